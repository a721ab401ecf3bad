//! The command line and the `SECRET_INIT_*` variables: one table, read by the parser and by the help.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

use crate::reference;
use crate::report::{Code, Failure, Level, Problem, printable};
use crate::store;

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
    /// Print what would be done.
    Plan,
    /// Fetch everything, deliver nothing, print what came of it.
    Check,
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

impl Command {
    /// Whether it is run beside a container's own program, by hand or as a probe: its failure is not the container's end.
    #[must_use]
    pub fn is_aside(self) -> bool {
        matches!(self, Self::Plan | Self::Check) || self == Self::Exec && std::process::id() != 1
    }

    /// Whether a program is to run at the end of it.
    #[must_use]
    pub fn runs_a_program(self) -> bool {
        matches!(self, Self::Supervise | Self::Exec)
    }
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
    /// More folders below which a bare `file:` is a reference.
    pub file_roots: Vec<PathBuf>,
    /// Warnings about the plan are errors.
    pub strict: bool,
    /// What to print.
    pub log_level: Level,
}

/// A pattern for names of variables: `*` is any text, `?` any one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<u8>);

impl Glob {
    /// Whether the whole name fits.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        // The usual two pointers: after a mismatch go back to the last star, and let it take one byte more.
        let (pattern, mut at, mut position, mut star) = (&self.0, 0, 0, None);
        while position < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, position));
                    at += 1;
                }
                Some(&wanted) if wanted == b'?' || wanted == name[position] => {
                    at += 1;
                    position += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else { return false };
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    position = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|&byte| byte == b'*')
    }
}

/// A row of the table of flags.
struct Flag {
    long: &'static str,
    short: Option<char>,
    /// The name of its value in the help; none for a switch.
    value: Option<&'static str>,
    /// The variable that stands in for the flag, after `SECRET_INIT_`.
    variable: Option<&'static str>,
    help: &'static str,
    /// Takes a value, which is empty for a switch, into the options; the error is what the flag takes.
    apply: fn(&mut Options, &OsStr) -> Result<(), &'static str>,
}

const FLAGS: &[Flag] = &[
    Flag {
        long: "exec",
        short: None,
        value: None,
        variable: Some("EXEC"),
        help: "become the program: nothing of secret-init stays, for images with an init of their own",
        apply: |options, _| switch(&mut options.exec),
    },
    Flag {
        long: "user",
        short: Some('u'),
        value: Some("USER[:GROUP]"),
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
        value: None,
        variable: Some("GROUP"),
        help: "forward signals to the program's whole process group",
        apply: |options, _| switch(&mut options.group),
    },
    Flag {
        long: "kill-after",
        short: None,
        value: Some("DURATION"),
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
        value: Some("PATH"),
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
        value: None,
        variable: Some("ALLOW_DISK"),
        help: "accept a directory that is not in memory: secrets may then end up in images and backups",
        apply: |options, _| switch(&mut options.allow_disk),
    },
    Flag {
        long: "config",
        short: None,
        value: Some("PATH"),
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
        value: Some("PATH"),
        variable: Some("ENV_FILE"),
        help: "take the variables of this file too; may be given several times",
        apply: |options, value| {
            options.env_files.push(path(value)?);
            Ok(())
        },
    },
    Flag {
        long: "skip",
        short: None,
        value: Some("GLOB"),
        variable: Some("SKIP"),
        help: "leave these variables alone, like 'GF_*'; several times, or with commas",
        apply: |options, value| globs(&mut options.skip, value),
    },
    Flag {
        long: "only",
        short: None,
        value: Some("GLOB"),
        variable: Some("ONLY"),
        help: "of the *_FILE variables take these alone; several times, or with commas",
        apply: |options, value| globs(&mut options.only, value),
    },
    Flag {
        long: "file-root",
        short: None,
        value: Some("PATH"),
        variable: Some("FILE_ROOT"),
        help: "one more secret folder, below which NAME=file:/path is a reference; several times",
        apply: |options, value| {
            options.file_roots.push(absolute(value)?);
            Ok(())
        },
    },
    Flag {
        long: "strict",
        short: None,
        value: None,
        variable: Some("STRICT"),
        help: "a warning about the plan ends the start",
        apply: |options, _| switch(&mut options.strict),
    },
    Flag {
        long: "log-level",
        short: None,
        value: Some("LEVEL"),
        variable: Some("LOG_LEVEL"),
        help: "error, warn (default), or info, which adds one line about each start",
        apply: |options, value| {
            options.log_level = match value.to_str() {
                Some("error") => Level::Error,
                Some("warn") => Level::Warn,
                Some("info") => Level::Info,
                _ => return Err("error, warn or info"),
            };
            Ok(())
        },
    },
];

const COMMANDS: &[(&str, Command, &str)] = &[
    ("write", Command::Write, "write the secret files and end, for a Kubernetes init container"),
    ("plan", Command::Plan, "print what would be done with each variable; reads no secret"),
    ("check", Command::Check, "read every secret, deliver none, and print a table of the results"),
];

/// Whether a word is the name of a command.
#[must_use]
pub fn is_command(word: &[u8]) -> bool {
    COMMANDS.iter().any(|(name, ..)| name.as_bytes() == word)
}

/// Whether a variable that begins with [`PREFIX`] is a setting. Kubernetes makes others when a Service is called secret-init: these are nobody's mistake.
#[must_use]
pub fn is_setting(name: &[u8]) -> bool {
    let Some(suffix) = name.strip_prefix(PREFIX) else { return false };
    let is_ours = FLAGS.iter().any(|flag| flag.variable.is_some_and(|variable| variable.as_bytes() == suffix));
    is_ours || suffix == b"SERVICE_HOST" || suffix.starts_with(b"SERVICE_PORT") || suffix == b"PORT" || suffix.starts_with(b"PORT_")
}

/// What every `SECRET_INIT_*` variable begins with.
pub const PREFIX: &[u8] = b"SECRET_INIT_";
/// The same, for messages.
const PREFIX_TEXT: &str = "SECRET_INIT_";

/// Reads the arguments, and for the flags that are not among them the entries of the environment that begin with [`PREFIX`].
///
/// # Errors
///
/// A problem with exit code 64.
pub fn parse(arguments: Vec<OsString>, variables: &[Vec<u8>]) -> Result<Arguments, Failure> {
    read(arguments, variables).map_err(Failure::from)
}

fn read(arguments: Vec<OsString>, variables: &[Vec<u8>]) -> Result<Arguments, Problem> {
    let mut options = Options::default();
    let mut command = None;
    let mut given: Vec<&str> = Vec::new();
    let mut parser = Parser::from_args(arguments);
    let mut program = Vec::new();
    while !is_separator(&mut parser)
        && let Some(argument) = parser.next().map_err(|error| usage(&error.to_string()))?
    {
        let flag = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(answer(Command::Help)),
            Arg::Long("version") | Arg::Short('V') => return Ok(answer(Command::Version)),
            // tini's flag for what we always are.
            Arg::Short('s') => continue,
            Arg::Long(name) => FLAGS.iter().find(|flag| flag.long == name).ok_or_else(|| unknown(&format!("--{name}")))?,
            Arg::Short(name) => FLAGS.iter().find(|flag| flag.short == Some(name)).ok_or_else(|| unknown(&format!("-{name}")))?,
            Arg::Value(word) => {
                if command.is_none()
                    && let Some((_, found, _)) = COMMANDS.iter().find(|(name, ..)| word == OsStr::new(name))
                {
                    command = Some(*found);
                    continue;
                }
                // The first word that is no option begins the program: whatever follows is its own.
                program.push(word);
                break;
            }
        };
        let value = if flag.value.is_some() { parser.value().map_err(|error| usage(&error.to_string()))? } else { OsString::new() };
        (flag.apply)(&mut options, &value).map_err(|wanted| usage(&format!("--{} takes {wanted}", flag.long)))?;
        given.push(flag.long);
    }
    program.extend(parser.raw_args().map_err(|error| usage(&error.to_string()))?);
    apply_variables(&mut options, &given, variables)?;
    let command = command.unwrap_or(if options.exec { Command::Exec } else { Command::Supervise });
    finish(Arguments { command, options, program })
}

/// `--` ends the options and is nothing else's. lexopt would pass over it silently, and then `-- check` would be our own command.
fn is_separator(parser: &mut Parser) -> bool {
    let Some(mut rest) = parser.try_raw_args() else { return false };
    let is_separator = rest.peek() == Some(OsStr::new("--"));
    if is_separator {
        rest.next();
    }
    is_separator
}

fn answer(command: Command) -> Arguments {
    Arguments { command, options: Options::default(), program: Vec::new() }
}

fn apply_variables(options: &mut Options, given: &[&str], variables: &[Vec<u8>]) -> Result<(), Problem> {
    for flag in FLAGS.iter().filter(|flag| !given.contains(&flag.long)) {
        let Some(suffix) = flag.variable else { continue };
        let name = format!("{PREFIX_TEXT}{suffix}");
        let value = variables.iter().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
        if flag.value.is_none() {
            match value {
                b"1" | b"true" | b"yes" => {}
                b"0" | b"false" | b"no" => continue,
                _ => return Err(usage(&format!("{name} takes true or false"))),
            }
        }
        (flag.apply)(options, OsStr::from_bytes(value)).map_err(|wanted| usage(&format!("{name} takes {wanted}")))?;
    }
    Ok(())
}

fn finish(arguments: Arguments) -> Result<Arguments, Problem> {
    match arguments.command {
        command if command.runs_a_program() && arguments.program.first().is_none_or(|name| name.is_empty()) => {
            Err(Problem::new(Code::Usage, "CMD is empty")
                .hint("name the program after --; when ENTRYPOINT is overridden, repeat the image's own CMD"))
        }
        Command::Write if !arguments.program.is_empty() => Err(usage("write runs no program")),
        _ => Ok(arguments),
    }
}

fn unknown(flag: &str) -> Problem {
    usage(&format!("unknown option {}", printable(flag.as_bytes())))
}

fn usage(cause: &str) -> Problem {
    Problem::new(Code::Usage, printable(cause.as_bytes()).into_owned())
        .hint("see secret-init --help; the program and its options stand after --")
}

#[allow(clippy::unnecessary_wraps, reason = "a row of the table")]
fn switch(option: &mut bool) -> Result<(), &'static str> {
    *option = true;
    Ok(())
}

fn path(value: &OsStr) -> Result<PathBuf, &'static str> {
    if value.is_empty() { Err("a path") } else { Ok(PathBuf::from(value)) }
}

fn absolute(value: &OsStr) -> Result<PathBuf, &'static str> {
    path(value).ok().filter(|path| path.is_absolute()).ok_or("an absolute path")
}

fn globs(list: &mut Vec<Glob>, value: &OsStr) -> Result<(), &'static str> {
    let patterns = value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|pattern| !pattern.is_empty());
    let before = list.len();
    list.extend(patterns.map(|pattern| Glob(OsString::from_vec(pattern.to_vec()).into_vec())));
    if list.len() > before { Ok(()) } else { Err("a pattern like 'GF_*'") }
}

/// The text of `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "secret-init: delivers secrets to a program and runs it as a good init would\n\n\
         Usage:\n  \
         secret-init [OPTIONS] [--] PROGRAM [ARGUMENT...]\n  \
         secret-init [OPTIONS] COMMAND [OPTIONS] [-- PROGRAM [ARGUMENT...]]\n\n\
         In an image:\n  \
         ENTRYPOINT [\"secret-init\", \"--\"]\n  \
         CMD [\"myapp\", \"--serve\"]\n\n\
         What refers to a secret:\n  \
         NAME_FILE=/run/secrets/x      NAME becomes the content of the file\n  \
         NAME_FILE=REFERENCE           the secret is written to a file, and NAME_FILE becomes its path\n  \
         NAME=REFERENCE                NAME becomes the secret\n  \
         NAME='a ${REFERENCE} b'       the same inside a text, with filters: ${REFERENCE | urlencode}\n\n\
         A reference is SCHEME:LOCATOR[?OPTION=VALUE][#KEY]:\n",
    );
    for row in store::ROWS {
        let _ = writeln!(text, "  {:<9} {}", row.name, row.summary);
    }
    text.push_str("\nCommands:\n");
    for (name, _, summary) in COMMANDS {
        let _ = writeln!(text, "  {name:<9} {summary}");
    }
    text.push_str("\nOptions (each also as a variable, which the flag overrides):\n");
    for flag in FLAGS {
        let short = flag.short.map_or_else(String::new, |short| format!("-{short}, "));
        let value = flag.value.map_or_else(String::new, |value| format!(" {value}"));
        let variable = flag.variable.map_or_else(String::new, |suffix| format!("  [{PREFIX_TEXT}{suffix}]"));
        let _ = writeln!(text, "  {short}--{}{value}{variable}\n      {}", flag.long, flag.help);
    }
    text.push_str(
        "  -h, --help\n  -V, --version\n\n\
         Exit codes: the program's own; 128+n when signal n ended it; 127 it was not found; 126 it cannot be run.\n\
         Of secret-init, when the program was not started: 64 usage, 65 bad data, 66 secret not found, 69 store\n\
         unavailable, 70 internal, 71 system, 73 cannot write, 77 access denied, 78 configuration.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], variables: &[&str]) -> Result<Arguments, Problem> {
        let variables: Vec<Vec<u8>> = variables.iter().map(|variable| variable.as_bytes().to_vec()).collect();
        super::read(arguments.iter().map(OsString::from).collect(), &variables)
    }

    #[test]
    fn options_end_at_the_program() {
        for arguments in [&["--strict", "--", "sh", "-c", "--exec"][..], &["--strict", "sh", "-c", "--exec"]] {
            let parsed = read(arguments, &[]).unwrap();
            assert_eq!(parsed.program, ["sh", "-c", "--exec"], "{arguments:?}");
            assert!(parsed.options.strict && !parsed.options.exec, "{arguments:?}");
        }
        assert_eq!(read(&["--", "--", "x"], &[]).unwrap().program, ["--", "x"]);
    }

    #[test]
    fn a_command_stands_before_the_separator() {
        assert_eq!(read(&["check"], &[]).unwrap().command, Command::Check);
        assert_eq!(read(&["--strict", "plan", "--dir=/x", "--", "myapp"], &[]).unwrap().program, ["myapp"]);
        assert_eq!(read(&["--", "check"], &[]).unwrap().command, Command::Supervise);
    }

    #[test]
    fn a_flag_overrides_its_variable() {
        let variables = ["SECRET_INIT_DIR=/a", "SECRET_INIT_EXEC=true", "SECRET_INIT_STRICT=no", "SECRET_INIT_SKIP=A_*, B"];
        let parsed = read(&["--dir", "/b", "x"], &variables).unwrap();
        assert_eq!(parsed.options.directory, Some(PathBuf::from("/b")));
        assert_eq!(parsed.command, Command::Exec);
        assert!(!parsed.options.strict);
        assert_eq!(parsed.options.skip.len(), 2);
    }

    #[test]
    fn flags_of_other_inits_are_understood() {
        assert!(read(&["-s", "-g", "--", "x"], &[]).unwrap().options.group);
        assert!(read(&["-sg", "x"], &[]).unwrap().options.group);
        assert_eq!(read(&["--version"], &[]).unwrap().command, Command::Version);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let cause = |arguments: &[&str], variables: &[&str]| read(arguments, variables).unwrap_err().cause;
        assert_eq!(cause(&[], &[]), "CMD is empty");
        assert_eq!(cause(&["--"], &[]), "CMD is empty");
        assert_eq!(cause(&["--nope", "x"], &[]), "unknown option --nope");
        assert_eq!(cause(&["--dir", "x", "y"], &[]), "--dir takes an absolute path");
        assert_eq!(cause(&["--kill-after", "soon", "y"], &[]), "--kill-after takes a duration like 8s or 2m");
        assert_eq!(cause(&["x"], &["SECRET_INIT_EXEC=maybe"]), "SECRET_INIT_EXEC takes true or false");
        assert_eq!(cause(&["write", "--", "x"], &[]), "write runs no program");
    }

    #[test]
    fn globs_match_whole_names() {
        let matches = |glob: &str, name: &str| Glob(glob.as_bytes().to_vec()).matches(name.as_bytes());
        assert!(
            matches("GF_*", "GF_DATABASE_FILE")
                && matches("*_FILE", "A_FILE")
                && matches("*", "")
                && matches("A?C", "ABC")
                && matches("*A*B*", "xAyBz")
        );
        assert!(!matches("GF_*", "XGF_A") && !matches("A", "AB") && !matches("A?", "A") && !matches("*A*B", "AxBy"));
    }
}
