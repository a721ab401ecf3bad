//! The command line and the `SECRET_INIT_*` variables: one table, read by the parser, the help, the man page and the completions of three shells.

mod completion;
mod glob;
mod help;
mod man;
mod parse;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{OnChange, Period, Scalar as _, SignalName};
use crate::reference;
use crate::report::{Format, Level};
use crate::sys::signal::Signal;
pub use completion::completion;
pub use glob::Glob;
pub use help::help;
pub use man::man_page;
pub use parse::{Misuse, parse};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What to do.
    pub command: Command,
    /// How.
    pub options: Options,
    /// The program and its arguments; empty when none was given.
    pub program: Vec<OsString>,
}

/// What secret-init can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the program as its init.
    Supervise,
    /// Become the program.
    Exec,
    /// Write the files and end.
    Write,
    /// Write the files, keep them up to date, and tell another process.
    Sidecar,
    /// Print what would be done.
    Plan,
    /// Fetch everything, deliver nothing, print what came of it.
    Check,
    /// Print the policy that a login needs.
    Policy(Platform),
    /// Ask the agent of a program that runs how its secrets are.
    Health,
    /// Have the agent of a program that runs look at all of its secrets.
    Refresh,
    /// Print the man page.
    ManPage,
    /// Print what makes a shell complete our command line.
    Completion(Shell),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

impl Command {
    /// Whether it is run beside a container's own program, by hand or as a probe: its failure is not the container's end.
    #[must_use]
    pub fn is_aside(self) -> bool {
        match self {
            Self::Supervise | Self::Write | Self::Sidecar => false,
            Self::Exec => std::process::id() != 1,
            _ => true,
        }
    }

    /// Whether something of us stays that can watch.
    #[must_use]
    pub fn stays(self) -> bool {
        matches!(self, Self::Supervise | Self::Sidecar)
    }

    /// Whether a program is to run at the end of it.
    #[must_use]
    pub fn runs_a_program(self) -> bool {
        matches!(self, Self::Supervise | Self::Exec)
    }
}

/// Where a policy says what a login may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Platform {
    Vault,
    Aws,
}

/// A shell that can complete our command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The settings, whichever way they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Options {
    /// Become the program instead of staying as its init.
    pub exec: bool,
    /// The user that the program runs as: a name or a number, with `:GROUP` or without.
    pub user: Option<String>,
    /// Send signals to the program's process group.
    pub group: bool,
    /// How long after TERM the program is killed.
    pub kill_after: Option<Duration>,
    /// The directory for secret files.
    pub directory: Option<PathBuf>,
    /// Accept a directory that is not in memory.
    pub allow_disk: bool,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Environment files to load.
    pub env_files: Vec<PathBuf>,
    /// Variables to leave alone.
    pub skip: Vec<Glob>,
    /// The only `*_FILE` variables to take.
    pub only: Vec<Glob>,
    /// Variables that the program gets though they hold the login of a store.
    pub keep_env: Vec<Glob>,
    /// More folders below which a bare `file:` is a reference.
    pub file_roots: Vec<PathBuf>,
    /// Ask stores on other machines by plain http too.
    pub allow_http: bool,
    /// How long the stores may take for all secrets together; none is [`TIMEOUT`].
    pub timeout: Option<Duration>,
    /// Watch all secrets.
    pub watch: bool,
    /// How often stores are asked for a change.
    pub refresh: Option<Period>,
    /// What to do when a secret has changed.
    pub on_change: Option<OnChange>,
    /// The signal that means: fetch all now.
    pub refresh_signal: Option<Signal>,
    /// Give leases and our login back when the program has ended.
    pub revoke_on_exit: bool,
    /// The name of the process that a sidecar tells.
    pub process: Option<String>,
    /// The file with the number of the process that a sidecar tells.
    pub pid_file: Option<PathBuf>,
    /// Where the agent serves metrics.
    pub metrics: Option<SocketAddr>,
    /// The record of accesses to secrets; `-` is stderr.
    pub audit: Option<PathBuf>,
    /// Warnings about the plan are errors.
    pub strict: bool,
    /// What to print.
    pub log_level: Level,
    /// How to print it.
    pub log_format: Format,
}

/// How long the stores may take when nothing else is said.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// A row of the table of flags.
struct Flag {
    long: &'static str,
    short: Option<char>,
    value: Value,
    /// Whether it may be given several times.
    repeats: bool,
    /// The variable that stands in for the flag, after `SECRET_INIT_`.
    variable: Option<&'static str>,
    help: &'static str,
    /// Takes a value, which is empty for a switch, into the options; the error is what the flag takes.
    apply: fn(&mut Options, &OsStr) -> Result<(), String>,
}

/// What follows a flag, and what a shell can complete it with.
#[derive(Clone, Copy)]
enum Value {
    /// Nothing: it is a switch.
    None,
    /// The path of a file.
    File,
    /// The path of a directory.
    Directory,
    /// One of a few words; first its name in the help.
    OneOf(&'static str, &'static [&'static str]),
    /// Text that nobody can guess; its name in the help.
    Text(&'static str),
}

impl Value {
    /// Its name in the help.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::File | Self::Directory => Some("PATH"),
            Self::OneOf(name, _) | Self::Text(name) => Some(name),
        }
    }
}

/// Words with what each means.
type Words<T> = [(&'static str, T)];

const FLAGS: &[Flag] = &[
    Flag {
        long: "exec",
        short: None,
        value: Value::None,
        repeats: false,
        variable: Some("EXEC"),
        help: "become the program: nothing of secret-init stays, for images with an init of their own",
        apply: |options, _| switch(&mut options.exec),
    },
    Flag {
        long: "user",
        short: Some('u'),
        value: Value::Text("USER[:GROUP]"),
        repeats: false,
        variable: Some("USER"),
        help: "start as root, read what root alone may read, and run the program as this user",
        apply: |options, value| {
            options.user =
                Some(value.to_str().filter(|text| !text.is_empty()).ok_or("a name or number, with :GROUP or without")?.to_owned());
            Ok(())
        },
    },
    Flag {
        long: "group",
        short: Some('g'),
        value: Value::None,
        repeats: false,
        variable: Some("GROUP"),
        help: "forward signals to the program's whole process group",
        apply: |options, _| switch(&mut options.group),
    },
    Flag {
        long: "kill-after",
        short: None,
        value: Value::Text("DURATION"),
        repeats: false,
        variable: Some("KILL_AFTER"),
        help: "kill the program when it is still there this long after TERM, like 8s (default: never)",
        apply: |options, value| {
            let duration = value.to_str().and_then(reference::duration).filter(|duration| !duration.is_zero());
            options.kill_after = Some(duration.ok_or("a duration like 8s or 2m")?);
            Ok(())
        },
    },
    Flag {
        long: "dir",
        short: None,
        value: Value::Directory,
        repeats: false,
        variable: Some("DIR"),
        help: "write secret files here (default: /run/secret-init, else a directory in /dev/shm)",
        apply: |options, value| {
            options.directory = Some(absolute(value)?);
            Ok(())
        },
    },
    Flag {
        long: "allow-disk",
        short: None,
        value: Value::None,
        repeats: false,
        variable: Some("ALLOW_DISK"),
        help: "accept a directory that is not in memory: secrets may then end up in images and backups",
        apply: |options, _| switch(&mut options.allow_disk),
    },
    Flag {
        long: "config",
        short: None,
        value: Value::File,
        repeats: false,
        variable: Some("CONFIG"),
        help: "the configuration file, in YAML: named secrets, variables, files and groups of files",
        apply: |options, value| {
            options.config = Some(path(value)?);
            Ok(())
        },
    },
    Flag {
        long: "env-file",
        short: None,
        value: Value::File,
        repeats: true,
        variable: Some("ENV_FILE"),
        help: "take the variables of this file too",
        apply: |options, value| {
            options.env_files.push(path(value)?);
            Ok(())
        },
    },
    Flag {
        long: "skip",
        short: None,
        value: Value::Text("GLOB"),
        repeats: true,
        variable: Some("SKIP"),
        help: "leave these variables alone, like 'GF_*', or 'A,B' for two",
        apply: |options, value| globs(&mut options.skip, value),
    },
    Flag {
        long: "only",
        short: None,
        value: Value::Text("GLOB"),
        repeats: true,
        variable: Some("ONLY"),
        help: "of the *_FILE variables take these alone, with patterns as for --skip",
        apply: |options, value| globs(&mut options.only, value),
    },
    Flag {
        long: "keep-env",
        short: None,
        value: Value::Text("GLOB"),
        repeats: true,
        variable: Some("KEEP_ENV"),
        help: "pass on a login that the program does not get otherwise, like VAULT_TOKEN",
        apply: |options, value| globs(&mut options.keep_env, value),
    },
    Flag {
        long: "file-root",
        short: None,
        value: Value::Directory,
        repeats: true,
        variable: Some("FILE_ROOT"),
        help: "one more secret folder, below which NAME=file:/path is a reference",
        apply: |options, value| {
            options.file_roots.push(absolute(value)?);
            Ok(())
        },
    },
    Flag {
        long: "timeout",
        short: None,
        value: Value::Text("DURATION"),
        repeats: false,
        variable: Some("TIMEOUT"),
        help: "give up when the stores have not answered after this long, trying again included (default: 60s)",
        apply: |options, value| {
            let duration = value.to_str().and_then(reference::duration).filter(|duration| !duration.is_zero());
            options.timeout = Some(duration.ok_or("a duration like 30s or 2m")?);
            Ok(())
        },
    },
    Flag {
        long: "allow-http",
        short: None,
        value: Value::None,
        repeats: false,
        variable: Some("ALLOW_HTTP"),
        help: "ask stores on other machines by plain http too: who is on the network can read the secrets",
        apply: |options, _| switch(&mut options.allow_http),
    },
    Flag {
        long: "watch",
        short: None,
        value: Value::None,
        repeats: false,
        variable: Some("WATCH"),
        help: "watch every secret: deliver it again when it changes, and tell the program",
        apply: |options, _| switch(&mut options.watch),
    },
    Flag {
        long: "refresh",
        short: None,
        value: Value::Text("DURATION"),
        repeats: false,
        variable: Some("REFRESH"),
        help: "watch, and ask stores for a change this often, at least 5s (default: 5m)",
        apply: |options, value| {
            options.refresh = Some(value.to_str().and_then(Period::parse).ok_or(Period::EXPECTED)?);
            Ok(())
        },
    },
    Flag {
        long: "on-change",
        short: None,
        value: Value::OneOf("ACTION", &["signal", "restart", "exit", "none"]),
        repeats: false,
        variable: Some("ON_CHANGE"),
        help: "watch, and on a change do this: signal (default), restart, exit, none, exit:CODE, USR1, or a URL",
        apply: |options, value| {
            let expected = "signal, restart, exit, none, exit:CODE, a URL, or the name of a signal other than KILL and STOP; a program to run stands in the configuration";
            options.on_change = Some(value.to_str().and_then(OnChange::parse).ok_or(expected)?);
            Ok(())
        },
    },
    Flag {
        long: "refresh-signal",
        short: None,
        value: Value::Text("SIGNAL"),
        repeats: false,
        variable: Some("REFRESH_SIGNAL"),
        help: "keep this signal, like USR2, from the program: it means that every secret is to be fetched now",
        apply: |options, value| {
            let signal = value.to_str().and_then(SignalName::parse).map(|SignalName(signal)| Signal(signal as i32));
            // Without these nobody could end the container, nor reap in it.
            let is_free = |signal: &Signal| !matches!(*signal, Signal::TERM | Signal::INT | Signal::QUIT | Signal::CHLD | Signal::CONT);
            options.refresh_signal =
                Some(signal.filter(is_free).ok_or("the name of a signal like USR2, and none that ends, stops or goes on")?);
            Ok(())
        },
    },
    Flag {
        long: "revoke-on-exit",
        short: None,
        value: Value::None,
        repeats: false,
        variable: Some("REVOKE_ON_EXIT"),
        help: "when the program has ended, end the leases of its secrets and our login at the store too",
        apply: |options, _| switch(&mut options.revoke_on_exit),
    },
    Flag {
        long: "process",
        short: None,
        value: Value::Text("NAME"),
        repeats: false,
        variable: Some("PROCESS"),
        help: "with sidecar: signal the processes of this name, in a pod that shares its process namespace",
        apply: |options, value| {
            options.process =
                Some(value.to_str().filter(|name| !name.is_empty() && !name.contains('/')).ok_or("the name of a program")?.to_owned());
            Ok(())
        },
    },
    Flag {
        long: "pid-file",
        short: None,
        value: Value::File,
        repeats: false,
        variable: Some("PID_FILE"),
        help: "with sidecar: signal the process whose number stands in this file",
        apply: |options, value| {
            options.pid_file = Some(absolute(value)?);
            Ok(())
        },
    },
    Flag {
        long: "metrics",
        short: None,
        value: Value::Text("ADDRESS"),
        repeats: false,
        variable: Some("METRICS"),
        help: "while secrets are watched, serve metrics and probes by http here, like 127.0.0.1:9464",
        apply: |options, value| {
            let address = value.to_str().and_then(|text| text.parse().ok());
            options.metrics = Some(address.ok_or("an IP address and a port, like 127.0.0.1:9464 or [::]:9464")?);
            Ok(())
        },
    },
    Flag {
        long: "audit",
        short: None,
        value: Value::File,
        repeats: false,
        variable: Some("AUDIT"),
        help: "add a line of JSON for each access to a secret to this file, or to stderr when it is -",
        apply: |options, value| {
            let is_stderr = value == OsStr::new("-");
            options.audit =
                Some(if is_stderr { path(value)? } else { absolute(value).map_err(|_| "an absolute path, or - for stderr")? });
            Ok(())
        },
    },
    Flag {
        long: "strict",
        short: None,
        value: Value::None,
        repeats: false,
        variable: Some("STRICT"),
        help: "a warning ends the start",
        apply: |options, _| switch(&mut options.strict),
    },
    Flag {
        long: "log-level",
        short: None,
        value: Value::OneOf("LEVEL", &names(&LEVELS)),
        repeats: false,
        variable: Some("LOG_LEVEL"),
        help: "error, warn (default), or info, which adds one line about each start",
        apply: |options, value| {
            options.log_level = one_of(&LEVELS, value)?;
            Ok(())
        },
    },
    Flag {
        long: "log-format",
        short: None,
        value: Value::OneOf("FORMAT", &names(&FORMATS)),
        repeats: false,
        variable: Some("LOG_FORMAT"),
        help: "text (default), or json: each message is an object on a line of its own",
        apply: |options, value| {
            options.log_format = one_of(&FORMATS, value)?;
            Ok(())
        },
    },
];

const LEVELS: [(&str, Level); 3] = [("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info)];

const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

/// A flag that is a question: whatever else is there, it is answered.
struct Question {
    long: &'static str,
    short: char,
    answer: Command,
    help: &'static str,
}

const QUESTIONS: &[Question] = &[
    Question { long: "help", short: 'h', answer: Command::Help, help: "print this help" },
    Question { long: "version", short: 'V', answer: Command::Version, help: "print the version" },
];

/// A row of the table of commands.
struct Verb {
    name: &'static str,
    takes: Takes,
    help: &'static str,
}

/// What follows the name of a command, options aside, and what both mean.
enum Takes {
    /// Nothing.
    Nothing(Command),
    /// A program, which does not run: the command can be put before any.
    Program(Command),
    /// One word of these; first its name in the help.
    Word(&'static str, &'static Words<Command>),
    /// One word of these, and a program, which does not run.
    WordAndProgram(&'static str, &'static Words<Command>),
}

impl Takes {
    /// The word that has to follow: its name in the help, and those that there are.
    fn word(&self) -> Option<(&'static str, &'static Words<Command>)> {
        match self {
            Self::Word(name, words) | Self::WordAndProgram(name, words) => Some((name, words)),
            Self::Nothing(_) | Self::Program(_) => None,
        }
    }

    /// Whether a program may follow.
    fn program(&self) -> bool {
        matches!(self, Self::Program(_) | Self::WordAndProgram(..))
    }
}

const COMMANDS: &[Verb] = &[
    Verb { name: "write", takes: Takes::Nothing(Command::Write), help: "write the secret files and end, for a Kubernetes init container" },
    Verb {
        name: "sidecar",
        takes: Takes::Nothing(Command::Sidecar),
        help: "write the secret files, keep them up to date, and tell another process or an URL",
    },
    Verb { name: "plan", takes: Takes::Program(Command::Plan), help: "print what would be done with each variable; reads no secret" },
    Verb {
        name: "check",
        takes: Takes::Program(Command::Check),
        help: "read every secret, deliver none, and print a table of the results",
    },
    Verb {
        name: "policy",
        takes: Takes::WordAndProgram("STORE", POLICIES),
        help: "print the least that the login of a store (vault, aws) has to be allowed; reads no secret",
    },
    Verb {
        name: "health",
        takes: Takes::Nothing(Command::Health),
        help: "ask the agent here how the secrets are: 0 when all are there and good, else 69",
    },
    Verb {
        name: "refresh",
        takes: Takes::Nothing(Command::Refresh),
        help: "have the agent here look at all secrets now, and print what changed and what failed",
    },
    Verb {
        name: "generate",
        takes: Takes::Word("WHAT", GENERATED),
        help: "print a man page, completions (bash, zsh, fish), or the schema of the configuration file",
    },
];

/// Whose policies can be printed.
const POLICIES: &Words<Command> = &[("vault", Command::Policy(Platform::Vault)), ("aws", Command::Policy(Platform::Aws))];

/// What can be generated.
const GENERATED: &Words<Command> = &[
    ("man", Command::ManPage),
    ("bash", Command::Completion(Shell::Bash)),
    ("zsh", Command::Completion(Shell::Zsh)),
    ("fish", Command::Completion(Shell::Fish)),
    ("schema", Command::Schema),
];

/// Whether a word is the name of a command.
#[must_use]
pub fn is_command(word: &[u8]) -> bool {
    COMMANDS.iter().any(|verb| verb.name.as_bytes() == word)
}

/// Whether a variable that begins with [`PREFIX`] is a setting. Kubernetes makes others when a Service is called secret-init: these are nobody's mistake.
#[must_use]
pub fn is_setting(name: &[u8]) -> bool {
    let Some(suffix) = name.strip_prefix(PREFIX) else { return false };
    let is_ours = FLAGS.iter().any(|flag| flag.variable.is_some_and(|variable| variable.as_bytes() == suffix));
    is_ours || suffix == b"SERVICE_HOST" || suffix.starts_with(b"SERVICE_PORT") || suffix == b"PORT" || suffix.starts_with(b"PORT_")
}

/// What every `SECRET_INIT_*` variable begins with.
pub const PREFIX: &[u8] = PREFIX_TEXT.as_bytes();
const PREFIX_TEXT: &str = crate::config::SETTINGS;

#[allow(clippy::unnecessary_wraps, reason = "a row of the table")]
fn switch(option: &mut bool) -> Result<(), String> {
    *option = true;
    Ok(())
}

fn path(value: &OsStr) -> Result<PathBuf, &'static str> {
    if value.is_empty() { Err("a path") } else { Ok(PathBuf::from(value)) }
}

fn absolute(value: &OsStr) -> Result<PathBuf, &'static str> {
    path(value).ok().filter(|path| path.is_absolute()).ok_or("an absolute path")
}

fn globs(list: &mut Vec<Glob>, value: &OsStr) -> Result<(), String> {
    let patterns = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|pattern| !pattern.is_empty());
    let before = list.len();
    list.extend(patterns.map(|pattern| Glob(OsString::from_vec(pattern.to_vec()).into_vec())));
    if list.len() > before { Ok(()) } else { Err("a pattern like 'GF_*'".to_owned()) }
}

fn one_of<T: Copy>(words: &Words<T>, value: &OsStr) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| value == OsStr::new(word));
    found.map(|&(_, meaning)| meaning).ok_or_else(|| alternatives(words))
}

/// "a, b or c".
fn alternatives<T>(words: &Words<T>) -> String {
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The words alone.
const fn names<T, const COUNT: usize>(words: &[(&'static str, T); COUNT]) -> [&'static str; COUNT] {
    let mut names = [""; COUNT];
    let mut index = 0;
    while index < COUNT {
        names[index] = words[index].0;
        index += 1;
    }
    names
}
