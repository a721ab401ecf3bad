//! Which secrets are watched, and what is done when one of them changes.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Delivery, Plan, Target};
use crate::cli::{Arguments, Command};
use crate::config::{Config, Delay, OnChange, Period, SignalName, Source};
use crate::reference::{Identity, Reference, Scheme};
use crate::report::{Code, Problem};

/// How often a store is asked when nothing else is said.
const PERIOD: Duration = Duration::from_mins(5);
/// How long a program may take to end when nothing else is said: as long as Docker gives it.
const GRACE: Duration = Duration::from_secs(10);

/// What is watched, and how changes are acted upon.
#[derive(Debug)]
pub struct Rotation {
    /// The secrets that are watched, each once, in the order of the deliveries.
    pub watched: Vec<Watched>,
    /// A random time up to this one is waited before an action.
    pub splay: Duration,
    /// Looks at what was written before it takes the place of what was there.
    pub validate: Option<Vec<String>>,
    /// The signal that asks the program to end before another start.
    pub stop_signal: Signal,
    /// How long it may take to end before it is killed.
    pub grace: Duration,
}

/// A secret that is watched.
#[derive(Debug)]
pub struct Watched {
    /// Which secret.
    pub reference: Reference,
    /// How often a store is asked for it that does not tell by itself.
    pub period: Duration,
    /// What is done when it has changed.
    pub on_change: OnChange,
}

impl Rotation {
    /// Whether a change may start the program again.
    #[must_use]
    pub fn restarts(&self) -> bool {
        self.watched.iter().any(|watched| watched.on_change == OnChange::Restart)
    }

    /// The secret of a reference, if it is watched.
    #[must_use]
    pub fn watched(&self, reference: &Reference) -> Option<&Watched> {
        self.watched.iter().find(|watched| watched.reference.same_secret(reference))
    }
}

/// What the arguments and the configuration ask to be watched; nothing when they do not.
pub fn of(plan: &Plan, arguments: &Arguments, config: &Config) -> Option<Rotation> {
    let options = &arguments.options;
    let rotation = config.document.rotation.as_ref().map(|rotation| &rotation.value);
    let is_general = options.watch
        || options.refresh.is_some()
        || options.on_change.is_some()
        || rotation.is_some()
        || arguments.command == Command::Sidecar;
    let period = options.refresh.or(rotation.and_then(|rotation| rotation.refresh));
    let on_change = options.on_change.as_ref().or(rotation.and_then(|rotation| rotation.on_change.as_ref()));
    let own = own(plan, config);
    if !is_general && own.is_empty() {
        return None;
    }
    let watch = |reference: &Reference| {
        let (shortest, action) = own.get(&reference.identity()).copied().unwrap_or_default();
        let is_watched = is_general || own.contains_key(&reference.identity());
        // What is written in the reference itself is what it is.
        (is_watched && reference.scheme != Scheme::Literal).then(|| Watched {
            reference: reference.clone(),
            period: shortest.or(period).map_or(PERIOD, |Period(period)| period),
            on_change: action.or(on_change).cloned().unwrap_or(OnChange::Signal(None)),
        })
    };
    let watched: Vec<Watched> = plan.secrets().filter_map(watch).collect();
    let duration = |delay: Option<Delay>| delay.map(|Delay(duration)| duration);
    (!watched.is_empty()).then(|| Rotation {
        watched,
        splay: duration(rotation.and_then(|rotation| rotation.splay)).unwrap_or_default(),
        validate: rotation.and_then(|rotation| rotation.validate.as_ref()).map(|command| command.0.clone()),
        stop_signal: rotation.and_then(|rotation| rotation.stop_signal).map_or(Signal::SIGTERM, |SignalName(signal)| signal),
        grace: duration(rotation.and_then(|rotation| rotation.grace)).unwrap_or(GRACE),
    })
}

/// What single secrets ask for: the shortest period of all that refer to one, and the first action.
fn own<'a>(plan: &'a Plan, config: &'a Config) -> BTreeMap<Identity<'a>, (Option<Period>, Option<&'a OnChange>)> {
    let mut own: BTreeMap<_, (Option<Period>, Option<&OnChange>)> = BTreeMap::new();
    let references = plan.references().map(|(_, reference)| (reference, reference.options.refresh.map(Period), None));
    let sources = config
        .document
        .secrets
        .0
        .iter()
        .filter_map(|(_, Source { from, refresh, on_change })| Some((from.as_ref()?, *refresh, on_change.as_ref())));
    for (reference, period, action) in references.chain(sources).filter(|(_, period, action)| period.is_some() || action.is_some()) {
        let (shortest, first) = own.entry(reference.identity()).or_default();
        *shortest = [*shortest, period].into_iter().flatten().min();
        *first = first.or(action);
    }
    own
}

/// What cannot be done on a change, and what is worth a word: problems, and warnings.
pub fn check(plan: &Plan, arguments: &Arguments, config: &Config) -> (Vec<Problem>, Vec<Problem>) {
    let Some(rotation) = &plan.rotation else { return check_without(plan, arguments) };
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let options = &arguments.options;
    let at = |problem: Problem| match &config.document.rotation {
        Some(rotation) if options.on_change.is_none() => problem.about("rotation").about(config.place(rotation.at)),
        _ => problem.about("--on-change"),
    };
    let general = options.on_change.as_ref().or(config.document.rotation.as_ref().and_then(|rotation| rotation.value.on_change.as_ref()));
    for watched in &rotation.watched {
        let Some(problem) = url_problem(watched, plan) else { continue };
        if general == Some(&watched.on_change) {
            // One for all of them.
            problems.push(at(problem));
            break;
        }
        let first = plan.deliveries.iter().find(|delivery| is_use(delivery, watched, true) || is_use(delivery, watched, false));
        let problem = problem.about("on_change").about(&watched.reference);
        problems.push(first.map_or(problem.clone(), |delivery| delivery.about(problem)));
    }
    let has = |wanted: fn(&OnChange) -> bool| rotation.watched.iter().any(|watched| wanted(&watched.on_change));
    match arguments.command {
        // A probe beside the container's program inherits what that was told by variables.
        Command::Exec if arguments.command.is_aside() => {}
        Command::Exec => {
            let hint = "leave --exec out, or fetch anew by a restart";
            warnings.push(configuration("nothing is watched: with --exec nothing of secret-init stays", hint));
        }
        Command::Sidecar => {
            if has(|action| matches!(action, OnChange::Restart | OnChange::Exit(_))) {
                problems.push(at(configuration("a sidecar has no program to restart or to end", "use signal, exec, http or none")));
            }
            if has(|action| matches!(action, OnChange::Signal(_))) && options.process.is_none() && options.pid_file.is_none() {
                let hint = "name it with --process or --pid-file, or say otherwise: --on-change none, a URL, or exec in the configuration";
                problems.push(at(configuration("it is not said which process a sidecar signals", hint)));
            }
        }
        Command::Supervise | Command::Plan | Command::Check => {
            for watched in &rotation.watched {
                check_variables(plan, watched, &mut problems, &mut warnings);
            }
        }
        _ => {}
    }
    warnings.extend(needless_target(arguments));
    (problems, warnings)
}

fn configuration(cause: &str, hint: &str) -> Problem {
    Problem::new(Code::Configuration, cause).hint(hint)
}

/// As [`check`], when nothing is watched.
fn check_without(plan: &Plan, arguments: &Arguments) -> (Vec<Problem>, Vec<Problem>) {
    let options = &arguments.options;
    let mut problems = Vec::new();
    if arguments.command == Command::Sidecar && plan.has_files() {
        problems.push(configuration("a sidecar has nothing to watch", "the files have to come from a store, or from other files"));
    }
    let mut warnings = Vec::from_iter(needless_target(arguments));
    if arguments.command == Command::Supervise {
        let asked = [("--watch", options.watch), ("--refresh", options.refresh.is_some()), ("--on-change", options.on_change.is_some())];
        if let Some((flag, _)) = asked.iter().find(|(_, is_asked)| *is_asked) {
            let hint = "no secret comes from a file or a store: see secret-init plan";
            warnings.push(configuration("there is nothing to watch", hint).about(flag));
        }
        let needs_an_agent = [
            (
                "--metrics",
                options.metrics.is_some(),
                configuration("nothing is watched, so that nobody stays who could be asked", "add --watch"),
            ),
            (
                "--refresh-signal",
                options.refresh_signal.is_some(),
                configuration("nothing is watched, so that nobody stays who could look; the signal does nothing", "add --watch"),
            ),
            (
                "--revoke-on-exit",
                options.revoke_on_exit,
                configuration("nothing is watched, so that nobody stays who could give anything back", "add --watch"),
            ),
        ];
        let asked = needs_an_agent.into_iter().filter(|(_, is_asked, _)| *is_asked);
        warnings.extend(asked.map(|(flag, _, problem)| problem.about(flag)));
    }
    (problems, warnings)
}

/// A supervisor knows whom to tell.
fn needless_target(arguments: &Arguments) -> Option<Problem> {
    let options = &arguments.options;
    let flag = if options.process.is_some() { "--process" } else { "--pid-file" };
    let is_given = options.process.is_some() || options.pid_file.is_some();
    let hint = "leave it out: the program that secret-init runs is told by itself";
    (is_given && arguments.command == Command::Supervise).then(|| configuration("is for a sidecar alone", hint).about(flag))
}

/// Why a URL cannot be asked on a change.
#[cfg(feature = "remote")]
fn url_problem(watched: &Watched, plan: &Plan) -> Option<Problem> {
    let OnChange::Http(url) = &watched.on_change else { return None };
    let failure = crate::store::parse_address(&url.0, &plan.settings).err()?;
    Some(Problem { hint: failure.hint, ..Problem::new(Code::Configuration, failure.cause) })
}

/// No URL can be asked.
#[cfg(not(feature = "remote"))]
fn url_problem(watched: &Watched, _: &Plan) -> Option<Problem> {
    let is_url = matches!(watched.on_change, OnChange::Http(_));
    is_url.then(|| configuration("this build of secret-init cannot ask a URL", "run a program: {exec: [program, argument]}"))
}

/// Variables of a program that runs stay as they are.
fn check_variables(plan: &Plan, watched: &Watched, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    if matches!(watched.on_change, OnChange::Restart | OnChange::Exit(_)) {
        return;
    }
    let uses = |is_file: bool| plan.deliveries.iter().find(move |delivery| is_use(delivery, watched, is_file));
    let Some(variable) = uses(false) else { return };
    let problem = |cause: &str| variable.about(Problem::new(Code::Configuration, cause).about(&watched.reference));
    match uses(true) {
        None => {
            let cause = "a change of it does not reach a program that runs, which has it in its environment";
            let hint = format!("use on_change: restart (--on-change restart), or deliver it as a file: {}", as_file(variable));
            warnings.push(problem(cause).hint(hint));
        }
        Some(file) => {
            let cause = format!("{} would change with the secret, and this variable would not", file.name);
            problems.push(problem(&cause).hint("deliver both as files, or use on_change: restart (--on-change restart)"));
        }
    }
}

/// Whether a delivery has a part of the secret, and goes into a file, or not.
fn is_use(delivery: &Delivery, watched: &Watched, is_file: bool) -> bool {
    matches!(delivery.target, Target::File(_)) == is_file
        && delivery.value.references().any(|reference| reference.same_secret(&watched.reference))
}

/// How a variable would be a file.
fn as_file(delivery: &Delivery) -> String {
    match (&delivery.place, delivery.strip_newlines, &delivery.target) {
        (None, false, Target::Variable(_)) => format!("{}_FILE=REFERENCE", delivery.name),
        (None, true, Target::Variable(_)) => "let the program read the file itself, by --skip".to_owned(),
        _ => "by files: in the configuration".to_owned(),
    }
}
