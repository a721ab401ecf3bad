//! What follows from a change: signals, restarts, programs, URLs.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use nix::unistd::Pid;

use super::change::Made;
use super::track::Tracked;
use super::{Agent, Event, Running};
use crate::audit::{Entry, Event as Audited};
use crate::config::OnChange;
use crate::control::Undone;
use crate::handshake::{Ask, Starter, Stop, Then};
use crate::metrics::Metrics;
use crate::report::{self, Problem};
use crate::rotation::debounce::{Debounce, Edge};
use crate::rotation::notify;
use crate::rotation::target::{self, Reason, Target};
use crate::secret::{Digest, Version};
use crate::store::Life;
use crate::sys::clock::Moment;
use crate::sys::random;
use crate::sys::signal::Signal;

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

/// All actions that may follow.
pub struct Actions<'a> {
    agent: &'a Agent<'a>,
    supervisor: Option<&'a Starter>,
    /// The program, and since when it runs.
    program: Option<(Pid, Moment)>,
    list: Vec<Action<'a>>,
    /// What the supervisor is to be asked for, one thing at a time, so that each goes with what is to be remembered of it.
    ask: Option<Ask>,
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
    /// Those that it was given up for.
    given_up: BTreeSet<String>,
    /// Why it failed the last time.
    last: Option<Problem>,
    is_busy: bool,
    /// Why it was not done, which has been told.
    told: Vec<Problem>,
    /// Since when those that it is for would not take it.
    refused: Option<Moment>,
    failures: u32,
}

/// An action that is over, or a restart that can begin, with what was fetched for it.
#[derive(Default)]
pub struct Done {
    /// What the program is started with.
    pub environment: Option<OwnedFd>,
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
                    given_up: BTreeSet::new(),
                    last: None,
                    is_busy: false,
                    told: Vec::new(),
                    refused: None,
                    failures: 0,
                });
            }
        }
        Self { agent, supervisor, program: None, list, ask: None, pause: FIRST_PAUSE, restarted: None }
    }

    /// Goes on after an agent that died: what it has put in place and nobody was told of is still to be told.
    pub fn go_on(&mut self, pending: &BTreeMap<String, BTreeSet<String>>, now: Moment) {
        for action in &mut self.list {
            if let Some(names) = pending.get(&action.key()) {
                action.names.clone_from(names);
                action.debounce.change(now, Duration::ZERO);
            }
        }
    }

    /// What is in place and is still to be told, by action.
    pub fn pending(&self) -> BTreeMap<String, BTreeSet<String>> {
        let names = |action: &Action| -> BTreeSet<String> { action.names.union(&action.acting).cloned().collect() };
        self.list.iter().map(|action| (action.key(), names(action))).filter(|(_, names)| !names.is_empty()).collect()
    }

    /// What is not done, or was not.
    pub fn undone(&self) -> impl Iterator<Item = Undone> {
        self.list.iter().filter(|action| action.is_undone()).map(|action| Undone {
            action: action.what.word(),
            names: action.names.iter().chain(&action.acting).chain(&action.given_up).cloned().collect(),
            why: action.last.clone(),
        })
    }

    /// Whether all that follows from what has changed was done, or has failed.
    pub fn is_settled(&self) -> bool {
        self.list.iter().all(|action| !action.is_undone() || action.last.is_some())
    }

    /// What the supervisor is to be asked for now.
    pub fn take_ask(&mut self) -> Option<Ask> {
        self.ask.take()
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
            if self.ask.is_some() {
                break;
            }
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
                    self.begin(index, running, async move { notify::run(&command.0, &environment, agent.account.as_ref(), PROGRAM).await });
                }
                OnChange::Http(url) => {
                    let names: Vec<String> = self.list[index].acting.iter().cloned().collect();
                    let settings = &self.agent.plan.settings;
                    self.begin(index, running, async move { notify::post(&url.0, &names, settings).await });
                }
                OnChange::Exit(code) => {
                    // Before it is our end too.
                    self.done(index);
                    self.ask = Some(Ask::Stop(self.stop(), Then::Exit(*code)));
                }
                OnChange::Nothing => {}
            }
        }
        is_any
    }

    fn begin(&mut self, index: usize, running: &FuturesUnordered<Running<'a>>, action: impl Future<Output = Result<(), Problem>> + 'a) {
        self.list[index].is_busy = true;
        running.push(Box::pin(async move { Event::Acted(index, action.await.map(|()| Done::default()).map_err(|problem| vec![problem])) }));
    }

    /// Sends a signal, unless it would kill.
    fn signal(&mut self, index: usize, signal: Option<nix::sys::signal::Signal>, metrics: &mut Metrics, now: Moment) {
        let is_default = signal.is_none();
        let signal = Signal(signal.unwrap_or(nix::sys::signal::Signal::SIGHUP) as i32);
        let result = match self.program {
            Some((program, _)) => target::may_signal(program, self.agent.arguments.options.group, signal, is_default)
                .map(|()| {
                    self.ask = Some(Ask::Signal(signal, program));
                    self.list[index].told.clear();
                })
                .map_err(|refusal| (refusal.into(), true)),
            None => self.signal_others(index, signal, is_default),
        };
        let refused = *self.list[index].refused.get_or_insert(now);
        // Who a sidecar tells may have started just before the first try.
        let since = self.program.map_or(refused, |(_, since)| since);
        match result {
            Ok(()) => self.done(index),
            Err((_, may_pass)) if may_pass && now < since + YOUTH => self.list[index].put_off(now + GLANCE),
            Err((problem, _)) => {
                metrics.action_failed(self.list[index].what.word());
                self.refused(index, problem);
                self.list[index].refused = None;
                let names = std::mem::take(&mut self.list[index].acting);
                self.audit(&names, "failed");
                self.list[index].given_up.extend(names);
            }
        }
    }

    /// As a sidecar: to each that takes it. An error when none does, and whether that may pass.
    fn signal_others(&mut self, index: usize, signal: Signal, is_default: bool) -> Result<(), (Problem, bool)> {
        let options = &self.agent.arguments.options;
        let target = match (&options.pid_file, &options.process) {
            (Some(path), _) => Target::PidFile(path.clone()),
            (None, Some(name)) => Target::Name(name.clone()),
            (None, None) => return Ok(()),
        };
        // One that is not there yet will find the new file.
        let found = target::find(&target).map_err(|problem| (problem, false))?;
        let results: Vec<_> = found.into_iter().map(|process| target::send(process, signal, is_default)).collect();
        let is_told = results.iter().any(Result::is_ok);
        if results.iter().all(Result::is_ok) {
            self.list[index].told.clear();
        }
        for refusal in results.into_iter().filter_map(Result::err) {
            let may_pass = !matches!(refusal.reason, Reason::Denied { .. });
            if !is_told {
                return Err((refusal.into(), may_pass));
            }
            self.refused(index, refusal.into());
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
        let agent = self.agent;
        let (digests, leased) = (tracked.digests(), tracked.leased());
        running.push(Box::pin(async move { Event::Acted(index, agent.fetch_for_a_start(&digests, &leased).await) }));
    }

    fn stop(&self) -> Stop {
        let rotation = self.agent.rotation;
        Stop { signal: Signal(rotation.stop_signal as i32), grace: rotation.grace }
    }

    /// An action that took its time is over.
    pub fn acted(&mut self, index: usize, result: Result<Done, Vec<Problem>>, metrics: &mut Metrics, now: Moment) -> Option<Done> {
        self.list[index].is_busy = false;
        match result {
            Ok(mut done) => {
                if let Some(environment) = done.environment.take() {
                    self.ask = Some(Ask::Stop(self.stop(), Then::Start(environment)));
                    metrics.restarted();
                    // The pause counts from this start to the next.
                    if self.restarted.is_some() {
                        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                    }
                    self.restarted = Some(now);
                    // Until it runs there is nothing to act on.
                    self.program = None;
                }
                self.list[index].told.clear();
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
        action.refused = None;
        action.failures = 0;
        action.last = None;
        action.given_up.clear();
        let names = std::mem::take(&mut action.acting);
        let word = action.what.word();
        report::inform(|| format!("{}: changed; {word}", names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")));
        self.audit(&names, word);
    }

    /// It was not done. Each reason is told once, until it is done.
    fn refused(&mut self, index: usize, problem: Problem) {
        let action = &mut self.list[index];
        action.last = Some(problem.clone());
        if !action.told.contains(&problem) {
            action.told.push(problem.clone());
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
    /// What it is known by to an agent after this one, which may have read another configuration.
    fn key(&self) -> String {
        format!("{:?}", self.what)
    }

    fn is_undone(&self) -> bool {
        [&self.names, &self.acting, &self.given_up].iter().any(|names| !names.is_empty())
    }

    /// It is to be done later.
    fn put_off(&mut self, until: Moment) {
        self.names.append(&mut self.acting);
        self.debounce.again(until);
    }
}
