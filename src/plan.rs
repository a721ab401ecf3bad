//! All that will happen, decided before anything happens.
//!
//! [`Plan::new`] is pure: arguments and environment in, plan or all complaints out. A plan holds references and the variables that pass through; it
//! never holds a secret that is delivered.

mod bank_vaults;
mod conventions;
mod imports;
mod layout;
mod names;
mod precedence;
mod rotation;
mod stores;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cli::{self, Arguments, Command};
use crate::config::{self, Config, Position};
use crate::environment::{Environment, Variable, check_entry};
use crate::reference::{self, Reference, Scheme};
use crate::report::{Code, Failure, Problem, count, printable};
use crate::store;
use crate::template::{Context, Fault, Template};

use conventions::{SecretFolders, plain_name};
pub use rotation::{Rotation, Watched};

use names::Noted;
use precedence::{Entry, Loser};

/// What will be delivered, and what the program gets besides.
#[derive(Debug)]
pub struct Plan {
    /// In the order of the names of the variables that ask for them.
    pub deliveries: Vec<Delivery>,
    /// The entries of the environment that the program gets as they came.
    pub passed: Vec<Vec<u8>>,
    /// The variables that the configuration sets to a text without a secret, and the text.
    pub set: Vec<(Vec<u8>, Vec<u8>)>,
    /// The variables that look as if they named a secret and are left as they are, with the reason.
    pub left_alone: Vec<(String, &'static str)>,
    /// The variables that the program does not get, with the reason.
    pub removed: Vec<(String, &'static str)>,
    /// What is worth a word, and with `--strict` ends the start.
    pub warnings: Vec<Problem>,
    /// What the stores are made from.
    pub settings: store::Settings,
    /// Whether what is worth a word ends the start.
    pub is_strict: bool,
    /// How long the remote stores may take together.
    pub timeout: Duration,
    /// Whether we run in a Kubernetes pod.
    pub in_kubernetes: bool,
    /// What is watched; none when nothing is.
    pub rotation: Option<Rotation>,
}

/// One secret on its way.
#[derive(Debug)]
pub struct Delivery {
    /// The variable that asks for it, or the path of the file, printable: what messages name.
    pub name: String,
    /// Where in the configuration it stands, printable: `PATH:LINE:COLUMN`; none for a variable of the container or of an environment file.
    pub place: Option<String>,
    /// How its bytes are made.
    pub value: Template,
    /// `NAME_FILE=/path` drops newlines at the end, as `$(cat /path)` does.
    pub strip_newlines: bool,
    /// Where they go.
    pub target: Target,
}

impl Delivery {
    /// Names the delivery that a problem is about, and where it stands.
    #[must_use]
    pub fn about(&self, problem: Problem) -> Problem {
        let problem = problem.about(&self.name);
        match &self.place {
            Some(place) => problem.about(place),
            None => problem,
        }
    }
}

/// Where a secret goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Into the program's environment.
    Variable(Vec<u8>),
    /// Each key of it into the program's environment, by its own name.
    Variables,
    /// Into a file in our directory.
    File(File),
}

/// A file with a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Its path below our directory: harmless components with `/` between them.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Who it belongs to, as it was written; the program's user when nothing was.
    pub owner: Option<String>,
    /// The group of files that it changes together with.
    pub group: Option<String>,
    /// The variable that becomes its path.
    pub variable: Option<Vec<u8>>,
}

impl File {
    /// The directory that it lies in; empty for our own.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(parent, _)| parent)
    }
}

impl Plan {
    /// Decides what to do with each variable, and with each file of the configuration.
    ///
    /// # Errors
    ///
    /// All problems at once: those of the configuration file, of environment files, of variables in the order of their names, and of files.
    pub fn new(arguments: &Arguments, environment: &Environment, config: &Config) -> Result<Self, Failure> {
        let folders = SecretFolders::new(&arguments.options, environment);
        let problems = config.problems.iter().chain(&environment.problems).cloned().collect();
        let names = Noted::new(config);
        let mut planner = Planner {
            arguments,
            environment,
            config,
            names,
            folders,
            plan: Self::empty(arguments, environment, config),
            count: 0,
            problems,
        };
        let (entries, losers) = precedence::merge(environment, &config.document, |entry| planner.is_taken(entry));
        planner.warn_of_variables(&losers);
        for entry in &entries {
            planner.decide(entry, &entries);
        }
        for file in &config.document.files {
            planner.decide_file(file.at, file);
        }
        planner.warn_of_names(&losers);
        planner.finish()
    }

    fn empty(arguments: &Arguments, environment: &Environment, config: &Config) -> Self {
        Self {
            deliveries: Vec::new(),
            passed: environment.irregular.clone(),
            set: Vec::new(),
            left_alone: Vec::new(),
            removed: Vec::new(),
            warnings: Vec::new(),
            settings: stores::settings(arguments, environment, config),
            is_strict: arguments.options.strict,
            timeout: arguments.options.timeout.unwrap_or(cli::TIMEOUT),
            in_kubernetes: environment.value(b"KUBERNETES_SERVICE_HOST").is_some(),
            rotation: None,
        }
    }

    /// Whether files are written, so that a directory is needed.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.files().next().is_some()
    }

    /// All references, each with the delivery that it is part of.
    pub fn references(&self) -> impl Iterator<Item = (&Delivery, &Reference)> {
        self.deliveries.iter().flat_map(|delivery| delivery.value.references().map(move |reference| (delivery, reference)))
    }

    /// A reference to each distinct secret, in the order of the deliveries.
    pub fn secrets(&self) -> impl Iterator<Item = &Reference> {
        let mut seen = BTreeSet::new();
        self.references().map(|(_, reference)| reference).filter(move |reference| seen.insert(reference.identity()))
    }

    /// Whether the program is not to be without a secret: somewhere it is neither optional nor has a default.
    #[must_use]
    pub fn is_required(&self, secret: &Reference) -> bool {
        let mut same = self.references().map(|(_, reference)| reference).filter(|reference| reference.same_secret(secret));
        same.any(|reference| !reference.options.optional && reference.options.default.is_none())
    }

    /// The names of all variables that the program gets for sure. An empty one counts as unset.
    #[must_use]
    pub fn names(&self) -> BTreeSet<Vec<u8>> {
        let passed = self.passed.iter().filter_map(|entry| {
            let at = entry.iter().position(|&byte| byte == b'=')?;
            (at + 1 < entry.len()).then(|| entry[..at].to_vec())
        });
        let set = self.set.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.clone());
        let delivered = self.deliveries.iter().filter_map(|delivery| delivery.target.variable().map(<[u8]>::to_vec));
        passed.chain(set).chain(delivered).collect()
    }

    /// Whether a store has to be asked over a network.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.references().any(|(_, reference)| store::row(reference.scheme).is_some_and(|row| row.is_remote))
    }

    /// The files.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.deliveries.iter().filter_map(|delivery| match &delivery.target {
            Target::File(file) => Some(file),
            Target::Variable(_) | Target::Variables => None,
        })
    }
}

struct Planner<'a> {
    arguments: &'a Arguments,
    environment: &'a Environment,
    config: &'a Config,
    names: Noted<'a>,
    folders: SecretFolders,
    plan: Plan,
    /// How many references the plan has.
    count: usize,
    problems: Vec<Problem>,
}

/// As many references as a plan may have. It is far more than a program has secrets, and little enough that a file which is made to exhaust us does not.
const MOST_IN_A_PLAN: usize = 5_000;

impl Planner<'_> {
    /// The context of a value: where a bare reference counts, and whether names do.
    fn parse(&self, entry: &Entry, is_explicit: bool) -> Result<Option<Template>, Fault> {
        match entry.at {
            Some(_) => Template::parse(entry.value, &Context::Configuration(&self.names)),
            None if is_explicit => Template::parse(entry.value, &Context::Explicit),
            None => Template::parse(entry.value, &Context::Variable(&|path| self.folders.contain(path))),
        }
    }

    fn is_skipped(&self, name: &[u8]) -> bool {
        self.arguments.options.skip.iter().any(|glob| glob.matches(name))
    }

    /// Whether a variable of the container is a `*_FILE` variable that we act on.
    fn is_taken(&self, entry: &Entry) -> bool {
        let is_candidate = plain_name(entry.name).is_some() && !entry.value.is_empty() && !self.is_skipped(entry.name);
        is_candidate && (!matches!(self.parse(entry, true), Ok(None)) || self.reason_to_leave_alone(entry).is_none())
    }

    fn decide(&mut self, entry: &Entry, all: &[Entry]) {
        let &Entry { name, value, at } = entry;
        if name.starts_with(cli::PREFIX) {
            if !cli::is_setting(name) {
                self.warn(
                    Problem::new(Code::Configuration, "is no setting of secret-init")
                        .about(printable(name))
                        .hint("secret-init --help lists them"),
                );
            }
            return;
        }
        if at.is_none() && bank_vaults::asks_for_token(name, value) && !self.is_skipped(name) {
            let hint = "let the program log in itself, or give it a token of its own by a reference";
            return self.complain(entry, "asks for the token of our login, which no program gets", hint);
        }
        // The configuration is ours alone: what it says is never there for something else.
        if at.is_none() && self.is_skipped(name) {
            self.leave_alone(entry, "--skip names it");
        } else if let Some(prefix) = imports::prefix(name).filter(|_| at.is_none() && !value.is_empty()) {
            self.decide_imports(entry, prefix);
        } else if let Some(plain) = plain_name(name).filter(|_| !value.is_empty()) {
            self.decide_file_variable(entry, plain, all);
        } else if at.is_none() && name.ends_with(b"_ARN") && reference::is_bare(value, |_| false) {
            self.leave_alone(entry, "a name in _ARN means the ARN itself");
        } else {
            match self.parse(entry, false) {
                Ok(None) => self.pass(entry),
                Ok(Some(template)) => self.deliver(entry, template, false, Target::Variable(name.to_vec())),
                Err(fault) => self.malformed(entry, fault),
            }
        }
    }

    /// The direction follows from the value: a path is read into the environment, a reference becomes a file.
    fn decide_file_variable(&mut self, entry: &Entry, plain: &[u8], all: &[Entry]) {
        let template = match self.parse(entry, true) {
            Ok(template) => template,
            Err(fault) => return self.malformed(entry, fault),
        };
        if template.is_none()
            && let Some(reason) = self.reason_to_leave_alone(entry)
        {
            return self.leave_alone(entry, reason);
        }
        let is_set = all.binary_search_by(|other| other.name.cmp(plain)).is_ok_and(|index| !all[index].value.is_empty());
        if is_set {
            let cause = format!("is ignored, since {} is set", printable(plain));
            let hint = format!("unset one of the two; {} wins", printable(plain));
            let problem = self.about(entry, Problem::new(Code::Configuration, cause).hint(hint));
            return self.warn(problem);
        }
        match template {
            None => self.deliver(entry, Template::of(Reference::file(entry.value)), true, Target::Variable(plain.to_vec())),
            Some(template) => match String::from_utf8(plain.to_vec()) {
                Ok(path) if reference::is_path(&path) => {
                    let Ok(mode) = mode(&template) else { return self.complain_of_modes(entry) };
                    let mode = mode.unwrap_or(DEFAULT_MODE);
                    let file = File { path, mode, owner: None, group: None, variable: Some(entry.name.to_vec()) };
                    self.deliver(entry, template, false, Target::File(file));
                }
                _ => self.complain(entry, "the name cannot be that of a file", "use A-Z a-z 0-9 _ . - in it, and at most 128"),
            },
        }
    }

    /// Secrets whose keys become variables.
    fn decide_imports(&mut self, entry: &Entry, prefix: &str) {
        let references = imports::references(prefix, entry.value);
        if references.is_empty() {
            self.complain(entry, "there is no path in it", "paths are written with commas between them: secret/data/app,secret/data/db");
        }
        for reference in references {
            match reference {
                Ok(reference) => self.deliver(entry, Template::of(reference), false, Target::Variables),
                Err(fault) => self.malformed(entry, fault),
            }
        }
    }

    /// A file of the configuration.
    fn decide_file(&mut self, at: Position, file: &config::File) {
        let config::File { path, from, mode: given, owner, group } = file;
        let entry = Entry { name: path.0.as_bytes(), value: from.value.0.as_bytes(), at: Some(from.at) };
        let template = match self.parse(&entry, true) {
            Ok(Some(template)) => template,
            Ok(None) => {
                let hint = "a secret is meant by its reference, or by ${NAME} or ${NAME#KEY}";
                return self.complain(&entry, "there is no reference in it", hint);
            }
            Err(fault) => return self.malformed(&entry, fault),
        };
        let entry = Entry { at: Some(at), ..entry };
        let Ok(mode) = mode(&template) else { return self.complain_of_modes(&entry) };
        let mode = match (given, mode) {
            (Some(_), Some(_)) => {
                return self.complain(&entry, "the mode is given twice, by mode: and in the reference", "keep one of the two");
            }
            (Some(config::Mode(mode)), None) => *mode,
            (None, mode) => mode.unwrap_or(DEFAULT_MODE),
        };
        let file = File {
            path: path.0.clone(),
            mode,
            owner: owner.as_ref().map(|owner| owner.0.clone()),
            group: group.as_ref().map(|group| group.0.clone()),
            variable: None,
        };
        match layout::check_group(&file, self.plan.files()) {
            Ok(()) => self.deliver(&entry, template, false, Target::File(file)),
            Err((cause, hint)) => self.complain(&entry, &cause, hint),
        }
    }

    /// A secret that has a name and no use: as a rule the name is misspelt where it was to be used.
    fn warn_of_names(&mut self, losers: &[Loser]) {
        // What lost to the container uses its names too, and where there are problems a use may not have been seen.
        for Loser { entry, .. } in losers {
            let _ = self.parse(entry, true);
        }
        if !self.problems.is_empty() {
            return;
        }
        for name in self.names.unused() {
            let problem = Problem::new(Code::Configuration, "no text in env: or files: uses this secret");
            let hint = format!("write ${{{0}}} or ${{{0}#KEY}} there, or remove it", name.0);
            self.warn(problem.about(format!("secrets.{}", name.0)).about(self.config.place(name.at)).hint(hint));
        }
    }

    fn reason_to_leave_alone(&self, entry: &Entry) -> Option<&'static str> {
        conventions::reason_to_leave_alone(entry.name, entry.value, &self.arguments.options, &self.folders)
    }

    fn deliver(&mut self, entry: &Entry, value: Template, strip_newlines: bool, target: Target) {
        let name = printable(entry.name).into_owned();
        let before = self.count;
        self.count += value.references().count();
        if self.count > MOST_IN_A_PLAN {
            // Said once, of the first that is too many.
            if before <= MOST_IN_A_PLAN {
                self.complain(entry, &format!("the plan has more than {MOST_IN_A_PLAN} references"), "give the program less at once");
            }
            return;
        }
        for reference in value.references() {
            if store::row(reference.scheme).is_none() {
                // It may be no reference at all but a password that begins like one: no more than the scheme is told.
                let cause = format!("this build of secret-init has no store for {}:…", reference.scheme_name());
                self.complain(entry, &cause, &stores_hint(entry.at.is_none().then_some(name.as_str())));
                continue;
            }
            if reference.options.mode.is_some() && matches!(target, Target::Variable(_)) {
                let hint = format!("write {name}_FILE={reference} to get a file");
                let problem = Problem::new(Code::Configuration, "a mode is for files, and this is a variable").about(reference).hint(hint);
                self.problems.push(self.about(entry, problem));
            }
        }
        if let Some(earlier) = self.plan.deliveries.iter().find(|earlier| layout::collide(&earlier.target, &target)) {
            let cause = format!("goes to the same place as {}", earlier.name);
            return self.complain(entry, &cause, "keep one of the two");
        }
        let place = entry.at.map(|at| self.config.place(at));
        self.plan.deliveries.push(Delivery { name, place, value, strip_newlines, target });
    }

    fn pass(&mut self, entry: &Entry) {
        let Entry { name, value, at } = entry;
        if at.is_none() {
            self.plan.passed.push([name, &b"="[..], value].concat());
        } else if let Err(cause) = check_entry(name, value) {
            self.complain(entry, &cause, "give it to the program as a file");
        } else {
            self.plan.set.push((name.to_vec(), value.to_vec()));
        }
    }

    fn leave_alone(&mut self, entry: &Entry, reason: &'static str) {
        self.plan.left_alone.push((printable(entry.name).into_owned(), reason));
        self.pass(entry);
    }

    fn malformed(&mut self, entry: &Entry, Fault { scheme, reference, malformed }: Fault) {
        let mut problem = Problem::new(Code::Configuration, malformed.cause);
        // As in `deliver`: what no store of ours would read may be no reference at all.
        if scheme.is_some_and(|scheme| store::row(scheme).is_some()) {
            problem = problem.about(reference);
        }
        problem.hint = malformed.hint.map(str::to_owned);
        self.problems.push(self.about(entry, problem));
    }

    /// Names the variable or file that a problem is about, and where it stands.
    fn about(&self, entry: &Entry, problem: Problem) -> Problem {
        let problem = problem.about(printable(entry.name));
        match entry.at {
            Some(at) => problem.about(self.config.place(at)),
            None => problem,
        }
    }

    fn complain(&mut self, entry: &Entry, cause: &str, hint: &str) {
        self.problems.push(self.about(entry, Problem::new(Code::Configuration, cause).hint(hint)));
    }

    /// What is set more than once. A variable that all three places set is told once, by its place in the configuration.
    fn warn_of_variables(&mut self, losers: &[Loser]) {
        const REMEDY: &str = "remove one of the two";
        let warning = |cause: &str, hint: &str| Problem::new(Code::Configuration, cause).hint(hint);
        for name in &self.environment.repeated {
            self.warn(warning("is set more than once; the first value is used", "set it once").about(printable(name)));
        }
        let told: BTreeSet<&[u8]> = losers.iter().map(|loser| loser.winner).collect();
        for name in self.environment.overridden.iter().filter(|name| !told.contains(name.as_slice())) {
            self.warn(warning("is set in the container, which wins over --env-file", REMEDY).about(printable(name)));
        }
        for Loser { entry, winner } in losers {
            let cause = "is set in the container or by --env-file, which win over the configuration";
            let cause = if *winner == entry.name { cause.to_owned() } else { format!("{} {cause}", printable(winner)) };
            self.warn(self.about(entry, warning(&cause, REMEDY)));
        }
    }

    fn complain_of_modes(&mut self, entry: &Entry) {
        self.complain(entry, "the references in it ask for different modes", "a file has one mode");
    }

    fn warn(&mut self, problem: Problem) {
        if self.arguments.options.strict { self.problems.push(problem) } else { self.plan.warnings.push(problem) }
    }

    fn finish(mut self) -> Result<Plan, Failure> {
        // What is delivered takes the place of an empty variable of that name.
        let mut delivered: Vec<&[u8]> = self.plan.deliveries.iter().filter_map(|delivery| delivery.target.variable()).collect();
        delivered.sort_unstable();
        let is_delivered = |name: &[u8]| delivered.binary_search(&name).is_ok();
        self.plan.passed.retain(|entry| entry.split(|&byte| byte == b'=').next().is_none_or(|name| !is_delivered(name)));
        self.plan.set.retain(|(name, _)| !is_delivered(name));
        if matches!(self.arguments.command, Command::Write | Command::Sidecar) {
            self.keep_files_alone();
        }
        self.plan.rotation = rotation::of(&self.plan, self.arguments, self.config);
        let (problems, warnings) = rotation::check(&self.plan, self.arguments, self.config);
        if matches!(self.arguments.command, Command::Exec | Command::Write) {
            self.plan.rotation = None;
        }
        self.problems.extend(problems);
        for warning in warnings {
            self.warn(warning);
        }
        if self.uses_vault() {
            self.remove_logins();
            self.warn_of_unread();
        }
        self.problems.extend(stores::check(&self.plan));
        if self.problems.is_empty() {
            return Ok(self.plan);
        }
        let summary = format!("{} in the plan; {}", count(self.problems.len(), "problem"), consequence(self.arguments.command));
        Err(Failure { problems: self.problems, summary })
    }

    /// Whether a secret comes from Vault or `OpenBao`.
    fn uses_vault(&self) -> bool {
        self.plan.references().any(|(_, reference)| matches!(reference.scheme, Scheme::Vault | Scheme::Bao))
    }

    /// What opens a store in use opens more of it than the program is to have.
    fn remove_logins(&mut self) {
        let keep = &self.arguments.options.keep_env;
        let Plan { passed, removed, left_alone, .. } = &mut self.plan;
        passed.retain(|entry| {
            let name = entry.split(|&byte| byte == b'=').next().unwrap_or_default();
            let is_kept = !conventions::is_login(name) || keep.iter().any(|glob| glob.matches(name));
            if !is_kept {
                let name = printable(name).into_owned();
                left_alone.retain(|(left, _)| *left != name);
                removed.push((name, "the login of the store"));
            }
            is_kept
        });
    }

    /// What would change how Vault is asked, if we read it.
    fn warn_of_unread(&mut self) {
        let unread = |Variable { name, value }: &'_ Variable| Some((printable(name).into_owned(), bank_vaults::unread(name, value)?));
        let mut found: Vec<_> = self.environment.variables.iter().filter_map(unread).collect();
        found.sort_unstable();
        for (name, (cause, hint)) in found {
            self.warn(Problem::new(Code::Configuration, cause).about(name).hint(hint));
        }
    }

    /// `write` has no program, so nothing can be delivered into an environment.
    fn keep_files_alone(&mut self) {
        let deliveries = std::mem::take(&mut self.plan.deliveries);
        let (files, variables): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|delivery| matches!(delivery.target, Target::File(_)));
        self.plan.deliveries = files;
        for delivery in variables {
            self.warn(Problem::new(Code::Configuration, "is not delivered: only files are, without a program to run").about(delivery.name));
        }
        if self.plan.deliveries.is_empty() && self.problems.is_empty() {
            let problem = Problem::new(Code::Configuration, "there is no file to write")
                .hint("a file is asked for by NAME_FILE=REFERENCE, like DB_PASSWORD_FILE=cred:db, or by files: in the configuration");
            self.problems.push(problem);
        }
    }
}

impl Target {
    /// The variable that is set, if one is.
    #[must_use]
    pub fn variable(&self) -> Option<&[u8]> {
        match self {
            Self::Variable(name) => Some(name),
            Self::Variables => None,
            Self::File(file) => file.variable.as_deref(),
        }
    }
}

/// The mode of a file when nothing else is said.
const DEFAULT_MODE: u32 = 0o400;

/// The mode that the references ask for.
///
/// # Errors
///
/// When they ask for different ones.
fn mode(template: &Template) -> Result<Option<u32>, ()> {
    let mut modes = template.references().filter_map(|reference| reference.options.mode);
    let first = modes.next();
    if modes.all(|mode| Some(mode) == first) { Ok(first) } else { Err(()) }
}

/// What it means for the user that a command failed.
#[must_use]
pub fn consequence(command: Command) -> &'static str {
    match command {
        Command::Supervise | Command::Exec => "the program was not started",
        Command::Write | Command::Sidecar => "nothing was written",
        _ => "a start would fail",
    }
}

fn stores_hint(variable: Option<&str>) -> String {
    let names: Vec<&str> = store::ROWS.iter().map(|row| row.name).collect();
    let escape = variable.map_or_else(String::new, |name| format!("; when the value is no reference, pass it on with --skip {name}"));
    format!("it has {}{escape}", names.join(", "))
}
