//! The parser.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use lexopt::{Arg, Parser};

use super::{
    Arguments, COMMANDS, Command, FLAGS, FORMATS, Options, PREFIX, PREFIX_TEXT, QUESTIONS, Takes, Value, Verb, alternatives, one_of,
};
use crate::report::{Code, Failure, Format, Problem, printable};

/// A command line that cannot be understood.
#[derive(Debug)]
pub struct Misuse {
    /// Why, with exit code 64.
    pub failure: Failure,
    /// How to say so, as far as that was understood.
    pub log_format: Format,
}

/// Reads the arguments, and for the flags that are not among them the entries of the environment that begin with [`PREFIX`].
///
/// # Errors
///
/// A problem with exit code 64.
pub fn parse(arguments: Vec<OsString>, variables: &[Vec<u8>]) -> Result<Arguments, Misuse> {
    // Before all else: what is wrong with the first argument, too, is said in the form that was asked for.
    let log_format = variable(variables, "LOG_FORMAT").and_then(|value| one_of(&FORMATS, value).ok());
    let mut options = Options { log_format: log_format.unwrap_or_default(), ..Options::default() };
    match read(arguments, variables, &mut options) {
        Ok((command, program)) => Ok(Arguments { command, options, program }),
        Err(problem) => Err(Misuse { failure: problem.into(), log_format: options.log_format }),
    }
}

fn read(arguments: Vec<OsString>, variables: &[Vec<u8>], options: &mut Options) -> Result<(Command, Vec<OsString>), Problem> {
    let (mut verb, mut word): (Option<&Verb>, _) = (None, None);
    let mut given: Vec<&str> = Vec::new();
    let mut parser = Parser::from_args(arguments);
    let mut program = Vec::new();
    while !is_separator(&mut parser)
        && let Some(argument) = parser.next().map_err(|error| usage(&error.to_string()))?
    {
        if let Some(answer) = asked(&argument) {
            return Ok((answer, Vec::new()));
        }
        let flag = match argument {
            // tini's flag for what we always are.
            Arg::Short('s') => continue,
            Arg::Long(name) => FLAGS.iter().find(|flag| flag.long == name).ok_or_else(|| unknown(&format!("--{name}")))?,
            Arg::Short(name) => FLAGS.iter().find(|flag| flag.short == Some(name)).ok_or_else(|| unknown(&format!("-{name}")))?,
            Arg::Value(value) => {
                match verb {
                    None if let Some(found) = COMMANDS.iter().find(|verb| value == OsStr::new(verb.name)) => verb = Some(found),
                    Some(verb)
                        if word.is_none()
                            && let Some((_, words)) = verb.takes.word()
                            && let Ok(found) = one_of(words, &value) =>
                    {
                        word = Some(found);
                    }
                    // The first word that is no option begins the program: whatever follows is its own.
                    _ => {
                        program.push(value);
                        break;
                    }
                }
                continue;
            }
        };
        let value =
            if let Value::None = flag.value { OsString::new() } else { parser.value().map_err(|error| usage(&error.to_string()))? };
        (flag.apply)(options, &value).map_err(|wanted| usage(&format!("--{} takes {wanted}", flag.long)))?;
        given.push(flag.long);
    }
    program.extend(parser.raw_args().map_err(|error| usage(&error.to_string()))?);
    apply_variables(options, &given, variables)?;
    Ok((command(verb, word, options, &program)?, program))
}

/// What answers it, when it is a question.
fn asked(argument: &Arg) -> Option<Command> {
    let found = QUESTIONS.iter().find(|question| match argument {
        Arg::Long(name) => question.long == *name,
        Arg::Short(name) => question.short == *name,
        Arg::Value(_) => false,
    });
    found.map(|question| question.answer)
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

/// What all of it comes to.
fn command(verb: Option<&Verb>, word: Option<Command>, options: &Options, program: &[OsString]) -> Result<Command, Problem> {
    let Some(Verb { name, takes, .. }) = verb else {
        return match program.first() {
            Some(name) if !name.is_empty() => Ok(if options.exec { Command::Exec } else { Command::Supervise }),
            _ => Err(Problem::new(Code::Usage, "CMD is empty")
                .hint("name the program after --; when ENTRYPOINT is overridden, repeat the image's own CMD")),
        };
    };
    match takes {
        Takes::Nothing(_) if !program.is_empty() => Err(usage(&format!("{name} runs no program"))),
        Takes::Nothing(Command::Sidecar) if options.process.is_some() && options.pid_file.is_some() => {
            Err(usage("sidecar takes one of --process and --pid-file"))
        }
        Takes::Nothing(command) | Takes::Program(command) => Ok(*command),
        Takes::Word(_, words) | Takes::WordAndProgram(_, words) => {
            let is_right = takes.program() || program.is_empty();
            word.filter(|_| is_right).ok_or_else(|| usage(&format!("{name} takes one word: {}", alternatives(words))))
        }
    }
}

fn apply_variables(options: &mut Options, given: &[&str], variables: &[Vec<u8>]) -> Result<(), Problem> {
    for flag in FLAGS.iter().filter(|flag| !given.contains(&flag.long)) {
        let Some((suffix, value)) = flag.variable.and_then(|suffix| Some((suffix, variable(variables, suffix)?))) else { continue };
        let name = format!("{PREFIX_TEXT}{suffix}");
        if let Value::None = flag.value {
            match value.as_bytes() {
                b"1" | b"true" | b"yes" => {}
                b"0" | b"false" | b"no" => continue,
                _ => return Err(usage(&format!("{name} takes true or false"))),
            }
        }
        (flag.apply)(options, value).map_err(|wanted| usage(&format!("{name} takes {wanted}")))?;
    }
    Ok(())
}

/// The value of a variable by what follows [`PREFIX`] in its name, unless it is empty.
fn variable<'a>(variables: &'a [Vec<u8>], suffix: &str) -> Option<&'a OsStr> {
    let value = |entry: &'a Vec<u8>| entry.strip_prefix(PREFIX)?.strip_prefix(suffix.as_bytes())?.strip_prefix(b"=");
    variables.iter().find_map(value).filter(|value| !value.is_empty()).map(OsStr::from_bytes)
}

fn unknown(flag: &str) -> Problem {
    usage(&format!("unknown option {}", printable(flag.as_bytes())))
}

fn usage(cause: &str) -> Problem {
    Problem::new(Code::Usage, printable(cause.as_bytes()).into_owned())
        .hint("see secret-init --help; the program and its options stand after --")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cli::Shell;

    fn read(arguments: &[&str], variables: &[&str]) -> Result<Arguments, Misuse> {
        let variables: Vec<Vec<u8>> = variables.iter().map(|variable| variable.as_bytes().to_vec()).collect();
        parse(arguments.iter().map(OsString::from).collect(), &variables)
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
        let cause = |arguments: &[&str], variables: &[&str]| read(arguments, variables).unwrap_err().failure.problems.remove(0).cause;
        assert_eq!(cause(&[], &[]), "CMD is empty");
        assert_eq!(cause(&["--"], &[]), "CMD is empty");
        assert_eq!(cause(&["--nope", "x"], &[]), "unknown option --nope");
        assert_eq!(cause(&["--dir", "x", "y"], &[]), "--dir takes an absolute path");
        assert_eq!(cause(&["--kill-after", "soon", "y"], &[]), "--kill-after takes a duration like 8s or 2m");
        assert_eq!(cause(&["x"], &["SECRET_INIT_EXEC=maybe"]), "SECRET_INIT_EXEC takes true or false");
        assert_eq!(cause(&["x"], &["SECRET_INIT_LOG_LEVEL=debug"]), "SECRET_INIT_LOG_LEVEL takes error, warn or info");
        assert_eq!(cause(&["write", "--", "x"], &[]), "write runs no program");
        let both = ["sidecar", "--process", "nginx", "--pid-file", "/run/nginx.pid"];
        assert_eq!(cause(&both, &[]), "sidecar takes one of --process and --pid-file");
        assert_eq!(cause(&both[..3], &["SECRET_INIT_PID_FILE=/run/nginx.pid"]), "sidecar takes one of --process and --pid-file");
    }

    #[test]
    fn what_is_generated_is_one_word_after_the_command() {
        assert_eq!(read(&["generate", "--strict", "bash"], &[]).unwrap().command, Command::Completion(Shell::Bash));
        for arguments in [&["generate"][..], &["generate", "csh"], &["generate", "bash", "zsh"], &["generate", "--", "bash"]] {
            let problem = read(arguments, &[]).unwrap_err().failure.problems.remove(0);
            assert_eq!(problem.cause, "generate takes one word: man, bash, zsh, fish or schema", "{arguments:?}");
        }
    }

    #[test]
    fn a_mistake_is_told_in_the_form_that_was_asked_for_before_it() {
        let format = |arguments: &[&str], variables: &[&str]| read(arguments, variables).unwrap_err().log_format;
        let json = ["SECRET_INIT_LOG_FORMAT=json"];
        assert_eq!(format(&["--nope", "--log-format=json"], &[]), Format::Text);
        assert_eq!(format(&["--log-format=json", "--nope"], &[]), Format::Json);
        assert_eq!(format(&["--nope"], &json), Format::Json);
        assert_eq!(format(&["--log-format=xml"], &json), Format::Json);
        assert_eq!(format(&["--log-format=text", "--nope"], &json), Format::Text);
        assert_eq!(format(&[], &["SECRET_INIT_LOG_FORMAT=xml"]), Format::Text);
    }
}
