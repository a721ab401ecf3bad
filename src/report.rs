//! What the user sees: problems with their exit codes, warnings, tables. Nothing here ever holds a secret.

mod message;
mod style;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use crate::sys::entry;
use message::{Message, Weight};
pub use style::Style;

/// The exit codes of our own, from sysexits(3). The program's own codes, 126, 127 and 128+n pass beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The command line cannot be understood.
    Usage = 64,
    /// A secret has bytes that cannot be used.
    Data = 65,
    /// A secret or a key in it does not exist.
    NotFound = 66,
    /// A store does not answer: a new try may help.
    Unavailable = 69,
    /// A bug of ours.
    Internal = 70,
    /// The system refused something: a fork, a privilege.
    System = 71,
    /// A file or the directory cannot be written.
    CannotWrite = 73,
    /// TLS or protocol.
    Protocol = 76,
    /// A store refused access.
    Denied = 77,
    /// The plan is wrong.
    Configuration = 78,
    /// The program was found and cannot be run.
    CannotRun = 126,
    /// The program was not found.
    NoProgram = 127,
}

impl Code {
    /// All of them with what each means. With several kinds of problem, the first of these that is present is the exit code: of our own 69 comes last, so that it
    /// means that trying again may help.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::Configuration, "the plan or the configuration is wrong"),
        (Self::Usage, "the command line cannot be understood"),
        (Self::Denied, "access to a secret was denied"),
        (Self::NotFound, "a secret, or a key in it, does not exist"),
        (Self::Data, "a secret has bytes that cannot be used"),
        (Self::Protocol, "TLS, or what a store answers, is not as it should be"),
        (Self::CannotWrite, "a secret file cannot be written"),
        (Self::System, "the system refused something: a process, a change of the user"),
        (Self::Internal, "a bug of secret-init"),
        (Self::Unavailable, "a store does not answer: a new try may help"),
        (Self::NoProgram, "the program was not found"),
        (Self::CannotRun, "the program was found and cannot be run"),
    ];
}

/// One thing that is wrong: what, why, and what to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The exit code that it calls for.
    pub code: Code,
    /// What it is about, most general first: a variable, a reference, a path. Printable.
    pub subject: Vec<String>,
    /// What happened.
    pub cause: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without subject and hint.
    pub fn new(code: Code, cause: impl Into<String>) -> Self {
        Self { code, subject: Vec::new(), cause: cause.into(), hint: None }
    }

    /// Names what it is about; a later call is put before what is there.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject.insert(0, subject.to_string());
        self
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        message::write_sentence(out, &self.subject, &self.cause)
    }
}

/// All that kept something from being done, in a stable order, and the sentence that closes the list.
#[derive(Debug)]
pub struct Failure {
    /// At least one.
    pub problems: Vec<Problem>,
    /// What follows from them, such as "the program was not started". Empty when the problem says it all.
    pub summary: String,
}

impl Failure {
    /// A failure by one problem that says it all.
    #[must_use]
    pub fn single(problem: Problem) -> Self {
        Self { problems: vec![problem], summary: String::new() }
    }

    /// The exit code: that of the problem that comes first in [`Code::ALL`].
    #[must_use]
    pub fn code(&self) -> u8 {
        let has = |code: Code| self.problems.iter().any(|problem| problem.code == code);
        Code::ALL.iter().find(|(code, _)| has(*code)).map_or(Code::Internal as u8, |&(code, _)| code as u8)
    }

    /// Prints everything on stderr and gives the exit code. In Kubernetes it goes to the termination log too, as the reason for the container's end, unless it
    /// happened beside the container's own program.
    #[must_use]
    pub fn print(&self, is_aside: bool) -> u8 {
        print(&self.messages());
        if !is_aside {
            write_termination_log(&self.to_string());
        }
        self.code()
    }

    fn messages(&self) -> Vec<Message<'_>> {
        let problems = self.problems.iter().map(|problem| Message::of(problem, Weight::Error(problem.code as u8)));
        let summary = Message::new(Weight::Error(self.code()), &self.summary);
        problems.chain((!self.summary.is_empty()).then_some(summary)).collect()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::single(problem)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&message::text(&self.messages(), Style::PLAIN))
    }
}

/// Two results, or the problems of both.
///
/// # Errors
///
/// When either failed.
pub fn both<A, B>(one: Result<A, Failure>, other: Result<B, Failure>) -> Result<(A, B), Failure> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(mut failure), Err(more)) => {
            failure.problems.extend(more.problems);
            Err(Failure { summary: more.summary, ..failure })
        }
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
    }
}

/// How much is printed. Errors always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors alone.
    Error,
    /// Warnings too.
    #[default]
    Warn,
    /// And one line about each start.
    Info,
}

/// How messages are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);
static FORMAT: AtomicU8 = AtomicU8::new(Format::Text as u8);

/// The first thing to call, as long as there is an environment: asks it whether it allows colours, and keeps panics quiet. A panic is a bug of ours: say where, never
/// with what, since its message may quote a value; and end with 70, since an abort of PID 1 looks like a segmentation fault.
pub fn prepare() {
    style::ask_environment();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, |location| format!(" at {}:{}", location.file(), location.line()));
        let code = Code::Internal as u8;
        print(&[Message::new(Weight::Error(code), &format!("internal error{place}; please report it"))]);
        entry::exit(code);
    }));
}

/// Sets how much is printed from now on, and how.
pub fn configure(level: Level, format: Format) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    FORMAT.store(format as u8, Ordering::Relaxed);
}

fn prints(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Prints warnings on stderr.
pub fn warn_of(warnings: &[Problem]) {
    if prints(Level::Warn) {
        print(&warnings.iter().map(|warning| Message::of(warning, Weight::Warning)).collect::<Vec<_>>());
    }
}

/// Prints a line of level info on stderr; it is made only when it is wanted.
pub fn inform(text: impl FnOnce() -> String) {
    if prints(Level::Info) {
        print(&[Message::new(Weight::Info, &text())]);
    }
}

/// All at once, so that nobody's line comes between.
fn print(messages: &[Message]) {
    if messages.is_empty() {
        return;
    }
    write_stderr(&if FORMAT.load(Ordering::Relaxed) == Format::Json as u8 {
        message::json(messages, SystemTime::now())
    } else {
        message::text(messages, Style::of_stderr())
    });
}

/// Writes to stdout what a command without a program answers: help, a table.
///
/// # Errors
///
/// When stdout cannot be written, but for a reader that went away.
pub fn answer(text: &str) -> Result<u8, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::new(Code::CannotWrite, format!("stdout: {}", os_error(&error))).into())
        }
        _ => Ok(0),
    }
}

/// One write, and whatever becomes of it is not worth ending PID 1 for, as `eprintln!` would.
fn write_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// `kubectl describe pod` shows what is in this file, up to 4096 bytes; kubelet makes it.
fn write_termination_log(text: &str) {
    let end = text.floor_char_boundary(4096);
    if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open("/dev/termination-log") {
        let _ = file.write_all(&text.as_bytes()[..end]);
    }
}

/// The operating system's own words for an error, without the number that Rust adds.
#[must_use]
pub fn os_error(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.kind().to_string(),
    }
}

/// Bytes that come from outside, made safe for a terminal and a log: control characters and what is not UTF-8 are escaped, and the end of a
/// very long text is cut.
#[must_use]
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    const LONGEST: usize = 300;
    let harmless = |char: char| {
        !char.is_control() && !matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.len() <= LONGEST
        && text.chars().all(harmless)
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for chunk in bytes[..bytes.len().min(LONGEST)].utf8_chunks() {
        for char in chunk.valid().chars() {
            if harmless(char) { escaped.push(char) } else { escaped.extend(char.escape_default()) }
        }
        for byte in chunk.invalid() {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    if bytes.len() > LONGEST {
        escaped.push('…');
    }
    Cow::Owned(escaped)
}

/// Aligns rows in columns of two spaces' distance; the first row is the heading.
#[must_use]
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A count with its noun: "1 secret", "7 secrets".
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_problems_the_first_in_the_precedence_gives_the_exit_code() {
        let failure =
            |codes: &[Code]| Failure { problems: codes.iter().map(|&code| Problem::new(code, "x")).collect(), summary: String::new() };
        assert_eq!(failure(&[Code::Unavailable, Code::Denied, Code::NotFound]).code(), 77);
        assert_eq!(failure(&[Code::Unavailable, Code::Data]).code(), 65);
        assert_eq!(failure(&[Code::Unavailable]).code(), 69);
    }

    #[test]
    fn what_could_fool_a_terminal_is_escaped() {
        assert_eq!(printable(b"/run/secrets/db"), "/run/secrets/db");
        assert_eq!(printable(b"a\n\x1b[2J\xff"), "a\\n\\u{1b}[2J\\xff");
        assert_eq!(printable("ab\u{202e}c".as_bytes()), "ab\\u{202e}c");
    }

    #[test]
    fn a_shared_hint_is_printed_once() {
        let problem = |name: &str| Problem::new(Code::Denied, "permission denied").about(name).hint("chmod");
        let failure = Failure { problems: vec![problem("A"), problem("B")], summary: "2 of 2 secrets failed".into() };
        let expected = "secret-init: A: permission denied\nsecret-init: B: permission denied\nsecret-init: hint: chmod\nsecret-init: 2 of 2 secrets failed\n";
        assert_eq!(failure.to_string(), expected);
    }
}
