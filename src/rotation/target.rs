//! Whom to tell by a signal, and whether it lives through it.

mod process;
mod runtime;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Pid;

use crate::report::{Code, Problem, os_error, printable};
use crate::sys::process::Handle;
use crate::sys::signal::{self, Signal};
use process::{Process, Signals};

/// Why a signal is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It would end the process, or stop it.
    NotCaught,
    /// The process ignores it: it would do no harm and be of no use.
    Ignored,
    /// A JVM catches it and ends.
    Jvm,
    /// Go's runtime catches it and ends.
    Go,
    /// Ruby catches it and ends.
    Ruby,
    /// What catches so many signals does so in order to end.
    CatchesAll,
    /// `/proc` does not tell.
    Hidden,
    /// There is no such process any more.
    Gone,
    /// The process is another user's.
    Denied {
        /// That user.
        uid: u32,
    },
}

/// A signal that is not sent, to whom, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which signal.
    pub signal: Signal,
    /// Which process, the one of its group that the reason is about.
    pub process: Pid,
    /// The name of the process, printable.
    pub name: String,
    /// Why.
    pub reason: Reason,
}

/// Whether a signal may be sent to a process, or to all of its process group: not one that it does not live through, and not one that would be of no use.
///
/// It has to have a handler for it. That is no proof: a JVM, Go, Ruby and bash with a trap for its exit catch HUP and end by it, unless they are written otherwise, which
/// nobody can see from outside. They are not told by a signal that nobody asked for, the default one. One that was asked for they get, and so does a process that has it
/// blocked in all threads, as who waits for it by signalfd(2) has. Of one in sigwait(3) the kernel shows the signal as not blocked, so that it cannot be told from one that
/// would end.
///
/// What can be seen of a process is less when it is another user's, and is enough: see `runtime`.
///
/// # Errors
///
/// Why not.
pub fn may_signal(process: Pid, whole_group: bool, signal: Signal, is_default: bool) -> Result<(), Refusal> {
    let refuse = |process, reason| Refusal { signal, process, name: name_of(process), reason };
    // Numbers from 0 down mean groups to kill(2), or everybody.
    if process.as_raw() <= 0 {
        return Err(refuse(process, Reason::Gone));
    }
    if !whole_group {
        return judge(process, signal, is_default).map_err(|reason| refuse(process, reason));
    }
    let members = process::all().into_iter().filter(|member| member.group == process).map(|member| member.number);
    let (mut takes_it, mut useless) = (false, None);
    for member in members {
        match judge(member, signal, is_default) {
            Ok(()) => takes_it = true,
            Err(Reason::Gone) => {}
            Err(Reason::Ignored) => useless = useless.or(Some(member)),
            Err(reason) => return Err(refuse(member, reason)),
        }
    }
    match useless {
        _ if takes_it => Ok(()),
        Some(member) => Err(refuse(member, Reason::Ignored)),
        None if signal::exists(Pid::from_raw(-process.as_raw())) => Err(refuse(process, Reason::Hidden)),
        None => Err(refuse(process, Reason::Gone)),
    }
}

fn judge(process: Pid, signal: Signal, is_default: bool) -> Result<(), Reason> {
    let Some(signals) = Signals::of(process) else {
        return Err(if signal::exists(process) { Reason::Hidden } else { Reason::Gone });
    };
    if signals.is_dead {
        return Err(Reason::Gone);
    }
    if !(1..=64).contains(&signal.0) || matches!(signal, Signal::KILL | Signal::STOP) {
        return Err(Reason::NotCaught);
    }
    if signals.caught.contains(signal) {
        return match runtime::of(process, signals.caught) {
            Some(reason) if is_default => Err(reason),
            _ => Ok(()),
        };
    }
    let does_nothing_by_itself = matches!(signal, Signal::CHLD | Signal::CONT | Signal::URG | Signal::WINCH);
    if signals.ignored.contains(signal) || does_nothing_by_itself {
        return Err(Reason::Ignored);
    }
    if !is_default && process::blocks(process, signal) {
        return Ok(());
    }
    Err(Reason::NotCaught)
}

fn name_of(process: Pid) -> String {
    Process::of(process).map_or_else(String::new, |process| printable(&process.name).into_owned())
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Problem::from(self.clone()).fmt(out)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        const OTHERWISE: &str =
            "tell it otherwise: by another signal, restart, exec or http, or by none when it reads the files anew by itself";
        let signal = nix::sys::signal::Signal::try_from(refusal.signal.0)
            .map_or_else(|_| refusal.signal.to_string(), |signal| signal.as_str().trim_start_matches("SIG").to_owned());
        let explicit = || {
            format!("if it has a handler of its own for it, say so: --on-change {signal}, or on_change: {{signal: {signal}}}; else restart")
        };
        let (reason, hint) = match refusal.reason {
            Reason::NotCaught => ("it has no handler for it, and would end".to_owned(), OTHERWISE.to_owned()),
            Reason::Ignored => ("it ignores it".to_owned(), OTHERWISE.to_owned()),
            Reason::Jvm => ("a JVM catches it, and ends".to_owned(), explicit()),
            Reason::Go => ("a Go program catches it, and ends unless it is written otherwise".to_owned(), explicit()),
            Reason::Ruby => ("Ruby catches it, and ends unless there is a trap for it".to_owned(), explicit()),
            Reason::CatchesAll => ("it catches nearly all signals, as runtimes and shells do that end by them".to_owned(), explicit()),
            Reason::Hidden => {
                ("/proc does not show whether it has a handler".to_owned(), "mount /proc as it comes, without hidepid".to_owned())
            }
            Reason::Gone => ("it has ended".to_owned(), "does it start anew? it finds the new files".to_owned()),
            Reason::Denied { uid } => (
                format!("it runs as uid {uid}, and this is uid {}", nix::unistd::geteuid()),
                "run both as the same user (runAsUser, user:), or this one as root with the capability KILL".to_owned(),
            ),
        };
        let cause = format!("{signal} is not sent: {reason}");
        let problem = Self::new(Code::Configuration, cause).hint(hint);
        match (refusal.process, refusal.name.as_str()) {
            (process, "") => problem.about(format!("process {process}")),
            (process, name) => problem.about(format!("process {process} ({name})")),
        }
    }
}

/// Sends a signal to a process if it [may be sent](may_signal).
///
/// # Errors
///
/// Why it was not sent.
pub fn send(process: Pid, signal: Signal, is_default: bool) -> Result<(), Refusal> {
    let refuse = |reason| Refusal { signal, process, name: name_of(process), reason };
    // The number is this process's from here on, whatever becomes of it.
    let handle = Handle::open(process).map_err(|_| refuse(Reason::Gone))?;
    may_signal(process, false, signal, is_default)?;
    handle.signal(signal).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => refuse(Reason::Denied { uid: Signals::of(process).map_or(u32::MAX, |signals| signals.uid) }),
        _ => refuse(Reason::Gone),
    })
}

/// Whom a sidecar tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The processes of this name.
    Name(String),
    /// The process whose number is the first line of this file.
    PidFile(PathBuf),
}

/// Finds the processes of a target, at least one. Of processes that have a name, those count that none of the others is above: a server's master, not its workers. Neither
/// are we among them, nor what we have started.
///
/// # Errors
///
/// When there is none.
pub fn find(target: &Target) -> Result<Vec<Pid>, Problem> {
    match target {
        Target::Name(name) => by_name(name),
        Target::PidFile(path) => by_file(path).map(|process| vec![process]),
    }
}

fn by_name(name: &str) -> Result<Vec<Pid>, Problem> {
    let all = process::all();
    let parent = |number: Pid| all.iter().find(|process| process.number == number).map(|process| process.parent);
    // While the list was made a number may have passed on to another: no more steps than there are processes.
    let above = |number: Pid| std::iter::successors(parent(number), |&number| parent(number)).take(all.len());
    let called: Vec<Pid> = all.iter().filter(|process| process.is_called(name.as_bytes())).map(|process| process.number).collect();
    let is_ours = |number: Pid| number == Pid::this() || above(number).any(|above| above == Pid::this());
    let lives = |number: Pid| Signals::of(number).is_none_or(|signals| !signals.is_dead);
    let candidates: Vec<Pid> = called.into_iter().filter(|&number| !is_ours(number) && lives(number)).collect();
    let found: Vec<Pid> = candidates.iter().copied().filter(|&number| !above(number).any(|above| candidates.contains(&above))).collect();
    if found.is_empty() {
        let hint = "does it run, and do both share a process namespace (shareProcessNamespace: true, in Compose pid: service:NAME)?";
        return Err(Problem::new(Code::System, "no process has this name").about(printable(name.as_bytes())).hint(hint));
    }
    Ok(found)
}

fn by_file(path: &Path) -> Result<Pid, Problem> {
    let about = |problem: Problem| problem.about(printable(path.as_os_str().as_encoded_bytes()));
    let first_line = first_line(path).map_err(|error| {
        let hint = "does the program write it, in a directory that both have mounted?";
        about(Problem::new(Code::System, format!("cannot be read: {}", os_error(&error))).hint(hint))
    })?;
    let Some(process) = number(&first_line) else {
        return Err(about(
            Problem::new(Code::System, "its first line is no number of a process").hint("is it the file that the program writes?"),
        ));
    };
    if process == Pid::this() {
        return Err(about(
            Problem::new(Code::System, "it has our own number").hint("do both share a process namespace (shareProcessNamespace: true)?"),
        ));
    }
    if !signal::exists(process) {
        let hint = "the file is old, or both do not share a process namespace (shareProcessNamespace: true, in Compose pid: service:NAME)";
        return Err(about(Problem::new(Code::System, format!("there is no process {process}")).hint(hint)));
    }
    Ok(process)
}

/// What stands before the first newline, as far as it can be a number.
fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file: File = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut line = Vec::new();
    file.take(64).read_to_end(&mut line)?;
    line.truncate(line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len()));
    Ok(line)
}

fn number(line: &[u8]) -> Option<Pid> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number: &i32| is_plain && number > 0).map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_process_is_digits_alone() {
        assert_eq!([&b"7"[..], b" 42 ", b"1\r"].map(number), [7, 42, 1].map(|number| Some(Pid::from_raw(number))));
        for line in [&b""[..], b"0", b"-1", b"+7", b"7 8", b"2147483648", b"x", b"\xff", b"\x007"] {
            assert_eq!(number(line), None, "{line:?}");
        }
    }

    #[test]
    fn no_signal_and_no_process_is_too_strange() {
        for signal in [0, -1, 65, i32::MIN, i32::MAX, 9, 19].map(Signal) {
            assert_eq!(may_signal(Pid::this(), false, signal, false).unwrap_err().reason, Reason::NotCaught);
        }
        for process in [i32::MAX, 0, -1, i32::MIN].map(Pid::from_raw) {
            assert_eq!(may_signal(process, false, Signal::HUP, true).unwrap_err().reason, Reason::Gone);
            assert_eq!(may_signal(process, true, Signal::HUP, true).unwrap_err().reason, Reason::Gone);
        }
    }
}
