//! All that will happen, decided before anything happens.
//!
//! [`Plan::new`] is pure: arguments and environment in, plan or all complaints out. A plan holds references and the variables that pass through; it
//! never holds a secret that is delivered.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::cli::{self, Arguments, Command, Options};
use crate::environment::{Environment, Variable};
use crate::reference::{self, Reference};
use crate::report::{Code, Failure, Problem, count, printable};
use crate::store;
use crate::template::{Context, Fault, Template};

/// What will be delivered, and what the program gets besides.
#[derive(Debug)]
pub struct Plan {
    /// In the order of the names of the variables that ask for them.
    pub deliveries: Vec<Delivery>,
    /// The entries of the environment that the program gets as they came.
    pub passed: Vec<Vec<u8>>,
    /// The variables that look as if they named a secret and are left as they are, with the reason.
    pub left_alone: Vec<(String, &'static str)>,
    /// What is worth a word, and with `--strict` ends the start.
    pub warnings: Vec<Problem>,
    /// What the stores are made from.
    pub settings: store::Settings,
    /// Whether we run in a Kubernetes pod.
    pub in_kubernetes: bool,
}

/// One secret on its way.
#[derive(Debug)]
pub struct Delivery {
    /// The variable that asks for it, printable: what messages name.
    pub name: String,
    /// How its bytes are made.
    pub value: Template,
    /// `NAME_FILE=/path` drops newlines at the end, as `$(cat /path)` does.
    pub strip_newlines: bool,
    /// Where they go.
    pub target: Target,
}

/// Where a secret goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Into the program's environment.
    Variable(Vec<u8>),
    /// Into a file in our directory.
    File {
        /// The file's name, one harmless component.
        name: String,
        /// Its permissions.
        mode: u32,
        /// The variable that becomes its path.
        variable: Vec<u8>,
    },
}

impl Plan {
    /// Decides what to do with each variable.
    ///
    /// # Errors
    ///
    /// All problems at once, in the order of the variables' names; those of environment files first.
    pub fn new(arguments: &Arguments, environment: &Environment) -> Result<Self, Failure> {
        let folders = SecretFolders::new(&arguments.options, environment);
        let mut planner =
            Planner { arguments, environment, folders, plan: Self::empty(environment), problems: environment.problems.clone() };
        for name in &environment.repeated {
            planner.warn(Problem::new(Code::Configuration, "is set more than once; the first value is used").about(printable(name)));
        }
        for name in &environment.overridden {
            planner.warn(Problem::new(Code::Configuration, "is set in the container, which wins over --env-file").about(printable(name)));
        }
        // By name, since Docker hands the variables over in an order that varies from one start to the next.
        let mut variables: Vec<&Variable> = environment.variables.iter().collect();
        variables.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        for variable in variables {
            planner.decide(variable);
        }
        planner.finish()
    }

    fn empty(environment: &Environment) -> Self {
        Self {
            deliveries: Vec::new(),
            passed: environment.irregular.clone(),
            left_alone: Vec::new(),
            warnings: Vec::new(),
            settings: store::Settings {
                credentials_directory: environment.value(b"CREDENTIALS_DIRECTORY").map(|value| OsString::from_vec(value.to_vec())),
            },
            in_kubernetes: environment.value(b"KUBERNETES_SERVICE_HOST").is_some(),
        }
    }

    /// Whether files are written, so that a directory is needed.
    #[must_use]
    pub fn has_files(&self) -> bool {
        self.files().next().is_some()
    }

    /// The names of the files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.deliveries.iter().filter_map(|delivery| match &delivery.target {
            Target::File { name, .. } => Some(name.as_str()),
            Target::Variable(_) => None,
        })
    }
}

struct Planner<'a> {
    arguments: &'a Arguments,
    environment: &'a Environment,
    folders: SecretFolders,
    plan: Plan,
    problems: Vec<Problem>,
}

/// The name without the convention that says that the value names a file: `NAME_FILE`, or `FILE__NAME` as the images of LinuxServer have it.
fn plain_name(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"FILE__").or_else(|| name.strip_suffix(b"_FILE")).filter(|plain| !plain.is_empty())
}

/// Variables whose file is read by the program's own libraries, under these very names.
const READ_BY_LIBRARIES: &[&str] = &[
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "BAO_TOKEN_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "COMPOSE_FILE",
    "CONSUL_HTTP_TOKEN_FILE",
    "ENV_FILE",
    "SSL_CERT_FILE",
    "VAULT_TOKEN_FILE",
];

/// What stands before `_FILE` in names that seldom mean a secret: `TLS_CERT_FILE`, `PID_FILE`.
const SELDOM_SECRET: &[&str] = &["CERT", "CRT", "CA", "CACERT", "PEM", "CONFIG", "LOG", "PID", "LOCK", "SOCK", "STATE", "OUTPUT"];

impl Planner<'_> {
    fn decide(&mut self, variable: &Variable) {
        let Variable { name, value } = variable;
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
        if self.arguments.options.skip.iter().any(|glob| glob.matches(name)) {
            self.leave_alone(variable, "--skip names it");
        } else if let Some(plain) = plain_name(name).filter(|_| !value.is_empty()) {
            self.decide_file_variable(variable, plain);
        } else if name.ends_with(b"_ARN") && reference::is_bare(value, |_| false) {
            self.leave_alone(variable, "a name in _ARN means the ARN itself");
        } else {
            match Template::parse(value, &Context::Variable(&|path| self.folders.contain(path))) {
                Ok(None) => self.pass(variable),
                Ok(Some(template)) => self.deliver(variable, template, false, Target::Variable(name.clone())),
                Err(fault) => self.malformed(variable, fault),
            }
        }
    }

    /// The direction follows from the value: a path is read into the environment, a reference becomes a file.
    fn decide_file_variable(&mut self, variable: &Variable, plain: &[u8]) {
        let path = variable.value.starts_with(b"/");
        let template = match Template::parse(&variable.value, &Context::Explicit) {
            Ok(template) => template,
            Err(fault) => return self.malformed(variable, fault),
        };
        if template.is_none()
            && let Some(reason) = self.reason_to_leave_alone(variable, plain, path)
        {
            return self.leave_alone(variable, reason);
        }
        if self.environment.value(plain).is_some_and(|value| !value.is_empty()) {
            let cause = format!("is ignored, since {} is set", printable(plain));
            return self.warn(
                Problem::new(Code::Configuration, cause)
                    .about(printable(&variable.name))
                    .hint(format!("unset one of the two; {} wins", printable(plain))),
            );
        }
        match template {
            None => self.deliver(variable, Template::of(Reference::file(&variable.value)), true, Target::Variable(plain.to_vec())),
            Some(template) => match String::from_utf8(plain.to_vec()) {
                Ok(name) if reference::is_component(plain) && !name.starts_with('.') => {
                    let mode = template.references().find_map(|reference| reference.options.mode).unwrap_or(0o400);
                    self.deliver(variable, template, false, Target::File { name, mode, variable: variable.name.clone() });
                }
                _ => self.complain(variable, "the name cannot be that of a file", "use A-Z a-z 0-9 _ . - in it, and at most 128"),
            },
        }
    }

    /// Why a `*_FILE` variable that holds no reference is not taken.
    fn reason_to_leave_alone(&self, variable: &Variable, plain: &[u8], is_path: bool) -> Option<&'static str> {
        let Options { only, .. } = &self.arguments.options;
        if !is_path {
            return Some("neither an absolute path nor a reference");
        }
        if !only.is_empty() {
            let is_named = only.iter().any(|glob| glob.matches(&variable.name));
            return (!is_named).then_some("--only does not name it");
        }
        if READ_BY_LIBRARIES.iter().any(|known| known.as_bytes() == variable.name) {
            return Some("its file is read by libraries");
        }
        if plain.ends_with(b"_") {
            return Some("programs read __FILE themselves");
        }
        let last_word = plain.rsplit(|&byte| byte == b'_').next().unwrap_or_default();
        let is_seldom_secret = SELDOM_SECRET.iter().any(|word| word.as_bytes() == last_word);
        (is_seldom_secret && !self.folders.contain(&variable.value)).then_some("such names seldom mean a secret")
    }

    fn deliver(&mut self, variable: &Variable, value: Template, strip_newlines: bool, target: Target) {
        let name = printable(&variable.name).into_owned();
        for reference in value.references() {
            if store::row(reference.scheme).is_none() {
                // It may be no reference at all but a password that begins like one: no more than the scheme is told.
                let cause = format!("this build of secret-init has no store for {}:…", reference.scheme_name());
                self.problems.push(Problem::new(Code::Configuration, cause).about(&name).hint(stores_hint(&name)));
                continue;
            }
            if reference.options.mode.is_some() && matches!(target, Target::Variable(_)) {
                let hint = format!("write {name}_FILE={reference} to get a file");
                self.problems.push(
                    Problem::new(Code::Configuration, "a mode is for files, and this is a variable")
                        .about(reference)
                        .about(&name)
                        .hint(hint),
                );
            }
            if reference.options.refresh.is_some() {
                let problem = Problem::new(Code::Configuration, "refresh is not acted on: this version fetches once, at the start")
                    .about(reference)
                    .about(&name);
                self.warn(problem);
            }
        }
        if let Some(earlier) = self.plan.deliveries.iter().find(|earlier| collide(&earlier.target, &target)) {
            let cause = format!("goes to the same place as {}", earlier.name);
            return self.complain(variable, &cause, "keep one of the two");
        }
        self.plan.deliveries.push(Delivery { name, value, strip_newlines, target });
    }

    fn pass(&mut self, variable: &Variable) {
        self.plan.passed.push([&variable.name, &b"="[..], &variable.value].concat());
    }

    fn leave_alone(&mut self, variable: &Variable, reason: &'static str) {
        self.plan.left_alone.push((printable(&variable.name).into_owned(), reason));
        self.pass(variable);
    }

    fn malformed(&mut self, variable: &Variable, Fault { scheme, reference, malformed }: Fault) {
        let mut problem = Problem::new(Code::Configuration, malformed.cause);
        // As in `deliver`: what no store of ours would read may be no reference at all.
        if scheme.is_some_and(|scheme| store::row(scheme).is_some()) {
            problem = problem.about(reference);
        }
        problem.hint = malformed.hint.map(str::to_owned);
        self.problems.push(problem.about(printable(&variable.name)));
    }

    fn complain(&mut self, variable: &Variable, cause: &str, hint: &str) {
        self.problems.push(Problem::new(Code::Configuration, cause).about(printable(&variable.name)).hint(hint));
    }

    fn warn(&mut self, problem: Problem) {
        if self.arguments.options.strict { self.problems.push(problem) } else { self.plan.warnings.push(problem) }
    }

    fn finish(mut self) -> Result<Plan, Failure> {
        // What is delivered takes the place of an empty variable of that name.
        let delivered: Vec<&[u8]> = self.plan.deliveries.iter().map(|delivery| delivery.target.variable()).collect();
        self.plan.passed.retain(|entry| entry.split(|&byte| byte == b'=').next().is_none_or(|name| !delivered.contains(&name)));
        if self.arguments.command == Command::Write {
            self.keep_files_alone();
        }
        if self.problems.is_empty() {
            return Ok(self.plan);
        }
        let summary = format!("{} in the plan; {}", count(self.problems.len(), "problem"), consequence(self.arguments.command));
        Err(Failure { problems: self.problems, summary })
    }

    /// `write` has no program, so nothing can be delivered into an environment.
    fn keep_files_alone(&mut self) {
        let deliveries = std::mem::take(&mut self.plan.deliveries);
        let (files, variables): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| matches!(delivery.target, Target::File { .. }));
        self.plan.deliveries = files;
        for delivery in variables {
            self.warn(Problem::new(Code::Configuration, "is not delivered: write makes files alone").about(delivery.name));
        }
        if self.plan.deliveries.is_empty() && self.problems.is_empty() {
            let problem = Problem::new(Code::Configuration, "there is no file to write")
                .hint("a file is asked for by NAME_FILE=REFERENCE, like DB_PASSWORD_FILE=cred:db");
            self.problems.push(problem);
        }
    }
}

impl Target {
    /// The variable that is set.
    #[must_use]
    pub fn variable(&self) -> &[u8] {
        match self {
            Self::Variable(name) => name,
            Self::File { variable, .. } => variable,
        }
    }
}

fn collide(one: &Target, other: &Target) -> bool {
    match (one, other) {
        (Target::File { name: one, .. }, Target::File { name: other, .. }) => one == other,
        _ => one.variable() == other.variable(),
    }
}

/// What it means for the user that a command failed.
#[must_use]
pub fn consequence(command: Command) -> &'static str {
    match command {
        Command::Supervise | Command::Exec => "the program was not started",
        Command::Write => "nothing was written",
        _ => "a start would fail",
    }
}

fn stores_hint(name: &str) -> String {
    let names: Vec<&str> = store::ROWS.iter().map(|row| row.name).collect();
    format!("it has {}; when the value is no reference, pass it on with --skip {name}", names.join(", "))
}

/// The folders in which platforms mount secrets.
struct SecretFolders(Vec<Vec<u8>>);

const SECRET_FOLDERS: &[&str] = &["/run/secrets", "/var/run/secrets", "/etc/secrets", "/mnt/secrets-store", "/vault/secrets"];

/// Kubernetes mounts the pod's own identity here, which is not the program's secret.
const SERVICE_ACCOUNT: &[&str] = &["/run/secrets/kubernetes.io", "/var/run/secrets/kubernetes.io"];

impl SecretFolders {
    fn new(options: &Options, environment: &Environment) -> Self {
        let mut folders: Vec<Vec<u8>> = SECRET_FOLDERS.iter().map(|folder| folder.as_bytes().to_vec()).collect();
        folders.extend(environment.value(b"CREDENTIALS_DIRECTORY").filter(|folder| folder.starts_with(b"/")).map(<[u8]>::to_vec));
        folders.extend(options.file_roots.iter().map(|root| root.as_os_str().as_bytes().to_vec()));
        Self(folders)
    }

    /// Whether a path lies below one of the folders, by its text: a plan does not look at the disk.
    fn contain(&self, path: &[u8]) -> bool {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
        let is_below = |folder: &Path| path.starts_with(folder) && path != folder;
        !climbs
            && !SERVICE_ACCOUNT.iter().any(|folder| path.starts_with(folder))
            && self.0.iter().any(|folder| is_below(Path::new(std::ffi::OsStr::from_bytes(folder))))
    }
}
