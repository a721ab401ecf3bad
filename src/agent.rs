//! The agent: it asks remote stores, and when something is watched it stays, looks again, delivers what has changed, and tells the program.
//!
//! One thread, one loop. Whatever takes time is a future beside it, and ends in an event. No value is kept: versions and keyed digests tell what has changed.

mod act;
mod change;
mod handover;
mod logins;
mod master;
mod memory;
mod refresh;
mod restart;
mod track;

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::audit::Audit;
use crate::cli::Arguments;
use crate::control::{self, Control};
use crate::deliver::Place;
use crate::handshake::{Starter, Told};
use crate::health::{Clock, Seen};
use crate::metrics::{Metrics, Scrapes};
use crate::plan::{Plan, Rotation};
use crate::reference::Reference;
use crate::report::{self, Failure, Problem};
use crate::resolve::{Answer, Answers, Secrets, Stores};
use crate::rotation::watch::Watch;
use crate::store;
use crate::sys::clock::{self, Moment};
use crate::sys::entry;
use crate::user::Account;

use act::Actions;
use change::Changed;
pub use handover::{changed, died, end_with_the_supervisor, prefer_to_be_killed, seal, unseal, unwatched};
use logins::{LoginEvent, Logins};
pub use master::Master;
pub use memory::Memory;
use refresh::Refresh;
use track::Tracked;

/// What an agent works with. None of it changes any more.
pub struct Agent<'a> {
    /// What is delivered, and what is watched.
    pub plan: &'a Plan,
    /// What is watched, and what follows from a change.
    pub rotation: &'a Rotation,
    /// How we were started.
    pub arguments: &'a Arguments,
    /// Who the program runs as; none for who we are.
    pub account: Option<Account>,
    /// Where files go.
    pub place: Place,
    /// Who is asked.
    pub stores: Stores,
    /// What is written down of it.
    pub audit: Audit,
}

/// Something that took time is over.
enum Event {
    /// A store answered.
    Looked(Vec<Answer>),
    /// What changed was put in place, or could not be.
    Changed(Box<Changed>),
    /// A store was asked for a longer lease.
    Renewed(usize, Result<store::Term, store::Failure>),
    /// About a login.
    Login(LoginEvent),
    /// An action is over.
    Acted(usize, Result<act::Done, Vec<Problem>>),
}

type Running<'a> = Pin<Box<dyn Future<Output = Event> + 'a>>;

/// File events come in swarms: a look waits until there was none for so long.
const QUIET: Duration = Duration::from_millis(20);
/// A swarm without an end does not keep a look from being taken.
const LONGEST_SWARM: Duration = Duration::from_millis(200);
/// The loop wakes up at least this often: a sleep does not count the time that the machine is suspended, and the moments do.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// How long what was lent may take to be given back: the supervisor waits a little longer.
const FAREWELL: Duration = Duration::from_millis(4500);

/// All that changes.
struct State<'a> {
    agent: &'a Agent<'a>,
    tracked: Tracked<'a>,
    logins: Logins<'a>,
    actions: Actions<'a>,
    metrics: Metrics,
    refreshes: Vec<Refresh>,
    memory: Memory,
    /// Whether something is to be remembered that was not yet.
    is_dirty: bool,
    /// A swarm of file events: when it began, and when the last came.
    swarm: Option<(Moment, Moment)>,
    /// When generations of groups can be removed.
    sweep: Option<Moment>,
    running: FuturesUnordered<Running<'a>>,
}

impl<'a> Agent<'a> {
    /// Stays as long as the program runs.
    ///
    /// # Errors
    ///
    /// When it cannot begin.
    pub async fn stay(&'a self, master: Master<'a>, beginning: Beginning) -> Result<Infallible, Failure> {
        if let Beginning::Memory(memory) = &beginning {
            self.resume_logins(memory).await;
        }
        let now = clock::now();
        let mut state = State::new(self, master.supervisor(), beginning, now);
        let mut watch = Watch::new();
        watch.follow(state.tracked.paths());
        report::warn_of(&watch.look());
        report::warn_of(watch.blindness().as_slice());
        let mut control = self.open_control();
        let mut scrapes = self.open_scrapes();
        let link = master.link()?;
        loop {
            let now = clock::now();
            state.begin_what_is_due(now);
            state.remember();
            state.answer(now);
            let sleep = state.next().map_or(LONGEST_SLEEP, |next| next.saturating_sub(now)).min(LONGEST_SLEEP);
            tokio::select! {
                biased;
                told = master.hear(&link) => match told {
                    Told::Program(program) => state.actions.program_runs(program, clock::now()),
                    Told::Refresh => state.refresh(None),
                    Told::Finish => state.finish().await,
                    Told::Nothing => {}
                },
                paths = watch.changed() => {
                    report::warn_of(&watch.look());
                    state.touched(&paths);
                }
                Some(event) = state.running.next(), if !state.running.is_empty() => {
                    state.happened(event);
                    // What is ready at the same moment is one thing to act upon.
                    while let Some(Some(event)) = state.running.next().now_or_never() {
                        state.happened(event);
                    }
                }
                request = next_request(&mut control) => state.asked(request),
                scrape = next_scrape(&mut scrapes) => scrape.answer(&state.metrics, &state.seen()),
                // Something is due, which the next round begins.
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// The logins of the agent before us are ours: their leases would end with them.
    async fn resume_logins(&self, memory: &Memory) {
        for (name, renew) in self.stores.all_renewing() {
            if let Some(remembered) = memory.of_store(name) {
                renew.resume(&remembered).await;
            }
        }
    }

    /// Without it nobody can ask how we are, and all else goes on.
    fn open_control(&self) -> Option<Control> {
        match Control::open(self.place.lock()?) {
            Ok(control) => Some(control),
            Err(problem) => {
                report::warn_of(&[problem]);
                None
            }
        }
    }

    /// The program runs already, and its secrets are watched, whoever may see how.
    fn open_scrapes(&self) -> Option<Scrapes> {
        match Scrapes::open(self.arguments.options.metrics?) {
            Ok(scrapes) => Some(scrapes),
            Err(problem) => {
                report::warn_of(&[problem]);
                None
            }
        }
    }
}

/// What an agent begins with.
pub enum Beginning {
    /// What was delivered at the start, and the environment that we were started with.
    Start(Answers, Secrets, Memory),
    /// What another left, which died.
    Memory(Memory),
}

async fn next_request(control: &mut Option<Control>) -> control::Request {
    match control {
        Some(control) => control.next().await,
        None => std::future::pending().await,
    }
}

async fn next_scrape(scrapes: &mut Option<Scrapes>) -> crate::metrics::Scrape {
    match scrapes {
        Some(scrapes) => scrapes.next().await,
        None => std::future::pending().await,
    }
}

impl<'a> State<'a> {
    fn new(agent: &'a Agent<'a>, supervisor: Option<&'a Starter>, beginning: Beginning, now: Moment) -> Self {
        let mut actions = Actions::new(agent, supervisor);
        let stores = agent.plan.secrets().filter_map(|reference| store::row(reference.scheme)).map(|row| row.name);
        let mut metrics = Metrics::new(stores, actions.words(), agent.plan.settings.traffic.clone());
        let (tracked, memory) = match beginning {
            Beginning::Start(answers, secrets, memory) => {
                for answer in answers.iter() {
                    metrics.accessed(kind(&answer.reference), &answer.result);
                }
                (Tracked::of_start(agent, &answers, &secrets, now), memory)
            }
            Beginning::Memory(memory) => {
                actions.go_on(&memory.pending, now);
                (Tracked::of_memory(agent, &memory, now), memory)
            }
        };
        let running = FuturesUnordered::new();
        let mut state = Self {
            metrics,
            logins: Logins::new(&agent.stores),
            agent,
            tracked,
            actions,
            refreshes: Vec::new(),
            memory,
            is_dirty: true,
            swarm: None,
            sweep: Some(now),
            running,
        };
        state.logins.begin(&state.running);
        state
    }

    /// When something is due next.
    fn next(&self) -> Option<Moment> {
        let swarm = self.swarm.map(|(began, last)| (last + QUIET).min(began + LONGEST_SWARM));
        [self.tracked.next(), self.logins.next(), self.actions.next(), swarm, self.sweep, self.next_answer()].into_iter().flatten().min()
    }

    fn begin_what_is_due(&mut self, now: Moment) {
        if self.swarm.is_some_and(|(began, last)| now >= (last + QUIET).min(began + LONGEST_SWARM)) {
            self.swarm = None;
            self.tracked.look_at_touched(now);
        }
        if self.sweep.is_some_and(|sweep| sweep <= now) {
            self.sweep = self.agent.place.sweep(self.agent.plan).map(|wait| now + wait);
        }
        for batch in self.tracked.take_due(now) {
            let agent = self.agent;
            self.running.push(Box::pin(async move { Event::Looked(agent.stores.fetch(batch, change::PATIENCE).await) }));
        }
        for (index, renew, lease, duration) in self.tracked.take_renewals(now) {
            self.running.push(Box::pin(async move { Event::Renewed(index, renew.renew(&lease, duration).await) }));
        }
        self.logins.begin_what_is_due(&self.running, now);
        self.is_dirty |= self.actions.begin_what_is_due(&self.tracked, &self.running, &mut self.metrics, now);
    }

    fn touched(&mut self, paths: &[std::path::PathBuf]) {
        if self.tracked.touch(paths) {
            let now = clock::now();
            self.swarm = Some((self.swarm.map_or(now, |(began, _)| began), now));
        }
    }

    fn happened(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Looked(answers) => self.looked(answers, now),
            Event::Changed(changed) => self.changed(*changed, now),
            Event::Renewed(index, result) => {
                self.is_dirty |= result.is_ok();
                self.agent.renewed(index, &result);
                self.tracked.renewed(index, result, now);
            }
            Event::Login(event) => self.logins.happened(&event, now),
            Event::Acted(index, result) => {
                self.is_dirty = true;
                if let Some(done) = self.actions.acted(index, result, &mut self.metrics, now) {
                    self.tracked.delivered(&done.members, &done.digests, now);
                }
            }
        }
        for store in self.logins.renewed_stores(&self.running) {
            self.tracked.look_at_leased(&store, now);
            self.is_dirty = true;
        }
    }

    fn looked(&mut self, answers: Vec<Answer>, now: Moment) {
        for answer in &answers {
            self.metrics.accessed(kind(&answer.reference), &answer.result);
            self.agent.audit.fetched(self.agent.plan, answer);
        }
        let sorted = self.tracked.looked(answers, now);
        for (index, looked) in sorted.settled {
            self.settle(index, &looked);
        }
        for (component, answers) in sorted.new {
            let digests = self.tracked.digests();
            let agent = self.agent;
            self.running.push(Box::pin(async move { Event::Changed(Box::new(agent.change(component, answers, digests, now).await)) }));
        }
    }

    fn changed(&mut self, mut changed: Changed, now: Moment) {
        if changed.outcome.is_ok() {
            // What could not be put in place before, and now went along with another.
            let is_news = |member: &change::Member| member.is_delivered && self.tracked.version(member.index) != Some(&member.version);
            changed.members.iter_mut().for_each(|member| member.is_new |= is_news(member));
        }
        for (kind, result) in &changed.asked {
            self.metrics.accessed(kind, result);
        }
        let splay = self.tracked.longest_splay(&changed, now);
        let settled = self.tracked.changed(&changed, &mut self.metrics, now);
        if let Ok(made) = &changed.outcome {
            self.is_dirty = true;
            if !made.deliveries.is_empty() {
                self.sweep = Some(now);
                self.actions.changed(&changed.changed_members(), made, splay, now);
            }
        }
        for (index, looked) in settled {
            self.settle(index, &looked);
        }
    }

    fn seen(&self) -> Seen {
        Seen { clock: Clock::now(), secrets: self.tracked.states(), logins: self.logins.ends() }
    }

    /// Leaves what a later agent would need, and asks the supervisor for what is to be asked, in one message: an agent that dies has asked and knows it, or neither.
    fn remember(&mut self) {
        let Some(supervisor) = self.actions.supervisor() else { return };
        let ask = self.actions.take_ask();
        if !self.is_dirty && ask.is_none() {
            return;
        }
        let mut is_whole = true;
        for (name, renew) in self.agent.stores.all_renewing() {
            match renew.remember().now_or_never() {
                Some(Some(remembered)) => self.memory.note(name, &remembered),
                Some(None) => {}
                // It is just logging in, and is asked the next time.
                None => is_whole = false,
            }
        }
        if !is_whole && ask.is_none() {
            return;
        }
        self.tracked.note(&mut self.memory);
        self.memory.pending = self.actions.pending();
        let memory = self.memory.write().ok();
        self.is_dirty = !is_whole || memory.is_none();
        match (ask, memory) {
            (Some(ask), memory) => supervisor.ask(&ask, memory.as_ref()),
            (None, Some(memory)) => supervisor.remember(&memory),
            (None, None) => {}
        }
    }

    /// Gives back what was lent, if that was asked for, and ends.
    async fn finish(&mut self) -> ! {
        if self.agent.arguments.options.revoke_on_exit {
            self.logins.revoke(&self.tracked, self.agent, FAREWELL).await;
        }
        entry::exit(0)
    }
}

/// The name of a secret's kind of store.
fn kind(reference: &Reference) -> &'static str {
    store::row(reference.scheme).map_or("", |row| row.name)
}
