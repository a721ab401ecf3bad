//! What follows from a change: signals, restarts, programs, URLs.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use nix::unistd::Pid;

use super::change::{Made, Trouble};
use super::handover;
use super::track::{Tracked, digest};
use super::{Agent, Event, Running};
use crate::audit::{Entry, Event as Audited};
use crate::config::OnChange;
use crate::deliver::Delivered;
use crate::handshake::{Starter, Stop, Then};
use crate::metrics::Metrics;
use crate::reference::Reference;
use crate::report::{self, Problem};
use crate::resolve::{Answers, Value};
use crate::rotation::debounce::{Debounce, Edge};
use crate::rotation::notify;
use crate::rotation::target::{self, Target};
use crate::secret::{Digest, Version};
use crate::store::{Life, Wanted};
use crate::sys::clock::Moment;
use crate::sys::random;
use crate::sys::signal::Signal;

use super::change::PATIENCE;

/// How long a program may take that is run for a change.
const PROGRAM: Duration = Duration::from_secs(30);
/// A program that has just started may not have its handler yet: so long it is waited for.
const YOUTH: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const GLANCE: Duration = Duration::from_millis(100);
/// The pause before the program is started again once more; it doubles with each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, also when what a start needs cannot be fetched.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// A program that ran so long was well: the next pause is the first again.
const HEALTHY: Duration = Duration::from_mins(10);

/// The signals that end a sidecar; others mean that everything is to be looked at.
pub fn ends_a_sidecar(signal: Signal) -> bool {
    matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT)
}

/// All actions that may follow.
pub struct Actions<'a> {
    agent: &'a Agent<'a>,
    supervisor: Option<&'a Starter>,
    /// The program, and since when it runs.
    program: Option<(Pid, Moment)>,
    list: Vec<Action<'a>>,
    pause: Duration,
    /// When the program was last started again.
    restarted: Option<Moment>,
}

/// One action, whichever secrets it is for.
struct Action<'a> {
    what: &'a OnChange,
    debounce: Debounce,
    /// The deliveries that have changed since it last began.
    names: BTreeSet<String>,
    /// Those that it is under way for.
    acting: BTreeSet<String>,
    is_busy: bool,
    /// Why it was not done, which has been told.
    told: Option<String>,
    failures: u32,
}

/// A restart that was asked for, with what was fetched for it.
pub struct Done {
    /// The watched secrets that were fetched.
    pub members: Vec<(usize, Version, Life)>,
    /// The digests of what was made.
    pub digests: Vec<(usize, Option<Digest>)>,
}

impl<'a> Actions<'a> {
    /// Every distinct action of the plan.
    pub fn new(agent: &'a Agent<'a>, supervisor: Option<&'a Starter>) -> Self {
        let mut list: Vec<Action> = Vec::new();
        for watched in &agent.rotation.watched {
            let what = &watched.on_change;
            if *what != OnChange::Nothing && !list.iter().any(|action| action.what == what) {
                let edge =
                    if matches!(what, OnChange::Restart | OnChange::Exec(_) | OnChange::Exit(_)) { Edge::Trailing } else { Edge::Leading };
                list.push(Action {
                    what,
                    debounce: Debounce::new(edge),
                    names: BTreeSet::new(),
                    acting: BTreeSet::new(),
                    is_busy: false,
                    told: None,
                    failures: 0,
                });
            }
        }
        Self { agent, supervisor, program: None, list, pause: FIRST_PAUSE, restarted: None }
    }

    /// Goes on after an agent that died: what it has put in place and nobody was told of is still to be told.
    pub fn go_on(&mut self, pending: &[BTreeSet<String>], now: Moment) {
        for (action, names) in self.list.iter_mut().zip(pending).filter(|(_, names)| !names.is_empty()) {
            action.names.clone_from(names);
            action.debounce.change(now, Duration::ZERO);
        }
    }

    /// What is in place and is still to be told, by action.
    pub fn pending(&self) -> Vec<BTreeSet<String>> {
        self.list.iter().map(|action| action.names.union(&action.acting).cloned().collect()).collect()
    }

    /// The names of the actions.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().map(|action| action.what.word())
    }

    /// Who runs the program.
    pub fn supervisor(&self) -> Option<&'a Starter> {
        self.supervisor
    }

    /// The program runs, as this process.
    pub fn program_runs(&mut self, program: Pid, now: Moment) {
        self.program = Some((program, now));
    }

    /// When one is due. Nothing acts on a program that does not run yet.
    pub fn next(&self) -> Option<Moment> {
        let waits_for_program = self.supervisor.is_some() && self.program.is_none();
        let open = self.list.iter().filter(|action| !action.is_busy && !waits_for_program);
        open.filter_map(|action| action.debounce.due()).min()
    }

    /// Secrets have changed, and are in place.
    pub fn changed(&mut self, members: &[usize], made: &Made, longest_splay: Duration, now: Moment) {
        let plan = self.agent.plan;
        for &member in members {
            let watched = &self.agent.rotation.watched[member];
            let is_its =
                |index: &&usize| plan.deliveries[**index].value.references().any(|reference| reference.same_secret(&watched.reference));
            let names: Vec<String> = made.deliveries.iter().filter(is_its).map(|&index| plan.deliveries[index].name.clone()).collect();
            if names.is_empty() {
                continue;
            }
            let splay = self.agent.rotation.splay.mul_f64(random::fraction()).min(longest_splay);
            if let Some(action) = self.list.iter_mut().find(|action| *action.what == watched.on_change) {
                action.names.extend(names);
                action.debounce.change(now, splay);
            } else {
                report::inform(|| format!("{}: changed", names.join(", ")));
            }
        }
    }

    /// Does what is due, and tells whether anything was.
    pub fn begin_what_is_due(
        &mut self,
        tracked: &Tracked<'a>,
        running: &FuturesUnordered<Running<'a>>,
        metrics: &mut Metrics,
        now: Moment,
    ) -> bool {
        if self.supervisor.is_some() && self.program.is_none() {
            return false;
        }
        let mut is_any = false;
        for index in 0..self.list.len() {
            if self.list[index].is_busy || !self.list[index].debounce.take(now) {
                continue;
            }
            is_any = true;
            let action = &mut self.list[index];
            action.acting = std::mem::take(&mut action.names);
            match action.what {
                OnChange::Signal(signal) => self.signal(index, *signal, metrics, now),
                OnChange::Restart => self.restart(index, tracked, running, now),
                OnChange::Exec(command) => {
                    let agent = self.agent;
                    let names = self.list[index].acting.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
                    let mut environment = agent.environment();
                    environment.push((b"SECRET_INIT_CHANGED".to_vec(), names.into_bytes()));
                    self.begin(index, running, async move { notify::run(&command.0, &environment, agent.account, PROGRAM).await });
                }
                OnChange::Http(url) => {
                    let names: Vec<String> = self.list[index].acting.iter().cloned().collect();
                    let settings = &self.agent.plan.settings;
                    self.begin(index, running, async move { notify::post(&url.0, &names, settings).await });
                }
                OnChange::Exit(code) => {
                    // Before it is our end too.
                    self.done(index);
                    if let Some(supervisor) = self.supervisor {
                        supervisor.stop(self.stop(), &Then::Exit(*code));
                    }
                }
                OnChange::Nothing => {}
            }
        }
        is_any
    }

    fn begin(&mut self, index: usize, running: &FuturesUnordered<Running<'a>>, action: impl Future<Output = Result<(), Problem>> + 'a) {
        self.list[index].is_busy = true;
        running.push(Box::pin(async move {
            let nothing = |()| Done { members: Vec::new(), digests: Vec::new() };
            Event::Acted(index, action.await.map(nothing).map_err(|problem| vec![problem]))
        }));
    }

    /// Sends a signal, unless it would kill.
    fn signal(&mut self, index: usize, signal: Option<nix::sys::signal::Signal>, metrics: &mut Metrics, now: Moment) {
        let is_default = signal.is_none();
        let signal = Signal(signal.unwrap_or(nix::sys::signal::Signal::SIGHUP) as i32);
        let result = match (self.supervisor, self.program) {
            (Some(supervisor), Some((program, _))) => target::may_signal(program, self.agent.arguments.options.group, signal, is_default)
                .map(|()| supervisor.signal(signal, program))
                .map_err(Problem::from),
            _ => self.signal_others(signal, is_default),
        };
        match result {
            Ok(()) => self.done(index),
            Err(_) if self.program.is_some_and(|(_, since)| now < since + YOUTH) => self.list[index].put_off(now + GLANCE),
            Err(problem) => {
                metrics.action_failed(self.list[index].what.word());
                self.refused(index, problem);
                let names = std::mem::take(&mut self.list[index].acting);
                self.audit(&names, "failed");
            }
        }
    }

    /// As a sidecar.
    fn signal_others(&self, signal: Signal, is_default: bool) -> Result<(), Problem> {
        let options = &self.agent.arguments.options;
        let target = match (&options.pid_file, &options.process) {
            (Some(path), _) => Target::PidFile(path.clone()),
            (None, Some(name)) => Target::Name(name.clone()),
            (None, None) => return Ok(()),
        };
        for process in target::find(&target)? {
            target::send(process, signal, is_default).map_err(Problem::from)?;
        }
        Ok(())
    }

    /// Starts the program again, when all that goes into its environment was fetched again; not more often than it is good for it.
    fn restart(&mut self, index: usize, tracked: &Tracked<'a>, running: &FuturesUnordered<Running<'a>>, now: Moment) {
        if let Some(restarted) = self.restarted {
            if now >= restarted + HEALTHY {
                self.pause = FIRST_PAUSE;
            } else if now < restarted + self.pause {
                return self.list[index].put_off(restarted + self.pause);
            }
        }
        self.list[index].is_busy = true;
        let (agent, supervisor, stop) = (self.agent, self.supervisor, self.stop());
        let (digests, leased) = (tracked.digests(), tracked.leased());
        running.push(Box::pin(async move {
            let result = agent.fetch_for_a_start(&digests, &leased).await.and_then(|(delivered, done)| {
                let sealed = handover::seal(&delivered).map_err(|failure| failure.problems)?;
                if let Some(supervisor) = supervisor {
                    supervisor.stop(stop, &Then::Start(sealed));
                }
                Ok(done)
            });
            Event::Acted(index, result)
        }));
    }

    fn stop(&self) -> Stop {
        let rotation = self.agent.rotation;
        Stop { signal: Signal(rotation.stop_signal as i32), grace: rotation.grace }
    }

    /// An action that took its time is over.
    pub fn acted(&mut self, index: usize, result: Result<Done, Vec<Problem>>, metrics: &mut Metrics, now: Moment) -> Option<Done> {
        self.list[index].is_busy = false;
        match result {
            Ok(done) => {
                if *self.list[index].what == OnChange::Restart {
                    metrics.restarted();
                    // The pause counts from this start to the next.
                    if self.restarted.is_some() {
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    }
                    self.restarted = Some(now);
                    // Until it runs there is nothing to act on.
                    self.program = None;
                }
                self.done(index);
                Some(done)
            }
            Err(problems) => {
                metrics.action_failed(self.list[index].what.word());
                let action = &mut self.list[index];
                // The new secrets are in place, and whoever is to know of it does not yet.
                let pause = FIRST_PAUSE.saturating_mul(1 << action.failures.min(16)).min(LONGEST_PAUSE);
                action.failures = action.failures.saturating_add(1);
                let names = action.acting.clone();
                action.put_off(now + pause);
                self.audit(&names, "failed");
                for problem in problems {
                    self.refused(index, problem);
                }
                None
            }
        }
    }

    fn done(&mut self, index: usize) {
        let action = &mut self.list[index];
        action.told = None;
        action.failures = 0;
        let names = std::mem::take(&mut action.acting);
        let word = action.what.word();
        report::inform(|| format!("{}: changed; {word}", names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")));
        self.audit(&names, word);
    }

    /// It was not done. The reason is told once, until it is done or the reason is another.
    fn refused(&mut self, index: usize, problem: Problem) {
        let action = &mut self.list[index];
        if action.told.as_deref() != Some(&problem.cause) {
            action.told = Some(problem.cause.clone());
            report::warn_of(&[problem.about(format!("on_change: {}", action.what.word()))]);
        }
    }

    fn audit(&self, names: &BTreeSet<String>, outcome: &str) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.agent.audit.record(&Entry {
            event: Audited::Notified,
            names: &names,
            reference: None,
            version: None,
            outcome,
            fingerprint: None,
        });
    }
}

impl Action<'_> {
    /// It is to be done later.
    fn put_off(&mut self, until: Moment) {
        self.names.append(&mut self.acting);
        self.debounce.again(until);
    }
}

impl Agent<'_> {
    /// Fetches all that goes into the environment again, and makes it. Files that the same secrets are part of are put in place with it, so that both are of one
    /// moment; others lie there.
    async fn fetch_for_a_start(&self, digests: &[Option<Digest>], leased: &[Reference]) -> Result<(Delivered, Done), Vec<Problem>> {
        let plan = self.plan;
        let is_variable = |index: usize| !matches!(plan.deliveries[index].target, crate::plan::Target::File(_));
        let variables = (0..plan.deliveries.len()).filter(|&index| is_variable(index));
        let mut triggers: Vec<Reference> = Vec::new();
        for reference in variables.flat_map(|index| plan.deliveries[index].value.references()) {
            if !triggers.iter().any(|trigger| trigger.same_secret(reference)) {
                triggers.push(reference.clone());
            }
        }
        let affected = self.affected(&triggers);
        let mut wanted = self.mates(&affected, &triggers);
        wanted.extend(triggers.into_iter().map(|reference| Wanted { reference, since: None }));
        // What is made for us at each read comes last: when another fails, none is made in vain.
        let (made_for_us, others): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|wanted| leased.iter().any(|leased| leased.same_secret(&wanted.reference)));
        let mut answers = self.stores.fetch(others, PATIENCE).await;
        if !answers.iter().any(|answer| answer.result.is_err() && plan.is_required(&answer.reference)) {
            answers.extend(self.stores.fetch(made_for_us, PATIENCE).await);
        }
        if !self.stores.read_together(&mut answers, |_| true).await {
            let failure = Trouble::Moving.failure();
            return Err(vec![Problem::new(failure.code(), failure.cause)]);
        }
        let mut members = Vec::new();
        let mut problems = Vec::new();
        for answer in &answers {
            self.audit.fetched(plan, answer);
            let index = self.rotation.watched.iter().position(|watched| watched.reference.same_secret(&answer.reference));
            if let (Some(index), Some(version), Some(life)) = (index, answer.version(), answer.life()) {
                members.push((index, version.clone(), life.clone()));
            }
            if let Err(failure) = answer.result.as_ref().map_err(Clone::clone)
                && plan.is_required(&answer.reference)
            {
                let problem =
                    Problem { hint: failure.hint.clone(), ..Problem::new(failure.code(), failure.cause).about(answer.reference.whole()) };
                let first =
                    plan.deliveries.iter().find(|delivery| delivery.value.references().any(|one| one.same_secret(&answer.reference)));
                problems.push(first.map_or(problem.clone(), |delivery| delivery.about(problem)));
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let answers = Answers::new(plan, answers);
        let mut values = Vec::with_capacity(plan.deliveries.len());
        for (index, delivery) in plan.deliveries.iter().enumerate() {
            values.push(if is_variable(index) || affected.contains(&index) {
                answers.value(delivery).unwrap_or_else(|found| {
                    problems.extend(found);
                    Value::Absent
                })
            } else if digests[index].is_some() {
                // Only whether it is there matters.
                Value::Secret(crate::secret::Secret::default())
            } else {
                Value::Absent
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let environment = self.place.environment(plan, &values, self.arguments, self.account).map_err(|problem| vec![problem])?;
        let files: Vec<(usize, &Value)> = affected.iter().map(|&index| (index, &values[index])).collect();
        self.put_in_place(&files).await.map_err(|trouble| trouble.problems().to_vec())?;
        let is_made = |index: &usize| is_variable(*index) || affected.contains(index) && !matches!(values[*index], Value::Absent);
        let made = (0..values.len()).filter(is_made).map(|index| (index, digest(&values[index]))).collect();
        let delivered = Delivered { environment, directory: self.place.path().map(std::path::Path::to_owned) };
        Ok((delivered, Done { members, digests: made }))
    }

    /// Writes down that leases were ended.
    pub fn revoked(&self, leases: &[String]) {
        for _ in leases {
            self.audit.record(&Entry {
                event: Audited::Revoked,
                names: &[],
                reference: None,
                version: None,
                outcome: "ok",
                fingerprint: None,
            });
        }
    }
}
