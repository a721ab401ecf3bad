//! PID 1: starts the runner, forwards signals, reaps what ends, and ends as the program did.
//!
//! One thread. It reads no secret, and once the program runs it allocates nothing and waits in one `poll` for a signal, or for what an agent asks. Past that point it may
//! not fail: its end is the container's.

mod companion;
mod deadline;
mod running;
mod terminal;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{Pid, getpid};

use crate::cli::{Command, Options, TIMEOUT};
use crate::handshake::{self, Heard, Starter, Stay, Watcher};
use crate::plan::consequence;
use crate::report::{Code, Failure, Problem, os_error};
use crate::sys::oom::Score;
use crate::sys::process::Fork;
use crate::sys::signal::{Buffer, Mask, Received, Signal, SignalFd};
use crate::sys::{descriptor, entry, environ, process, signal};
use companion::Companion;
use deadline::Deadline;
use running::Running;
use terminal::Terminal;

/// What the children of the supervisor do. Each function returns only when it failed.
pub trait Children {
    /// Plans, and becomes the program; or delivers to the one that does, and then ends, or stays as the agent.
    ///
    /// # Errors
    ///
    /// Whatever keeps the program from being started.
    fn start(&self, start: &Start) -> Result<Infallible, Failure>;

    /// Becomes the program with what was delivered.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    fn go_on(&self, start: &Start, delivered: OwnedFd) -> Result<Infallible, Failure>;

    /// Takes the place of an agent that died with this exit code, with what that one left for it.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from going on.
    fn take_over(&self, start: &Start, memory: OwnedFd, code: u8) -> Result<Infallible, Failure>;
}

/// A start, as a process sees it that is to become the program, or to deliver to the one that is.
pub struct Start<'a> {
    starter: Starter,
    terminal: Option<&'a Terminal>,
}

impl Start<'_> {
    /// Asks the supervisor to keep a descriptor open as long as the program runs.
    pub fn keep(&self, descriptor: Option<&OwnedFd>) {
        if let Some(descriptor) = descriptor {
            self.starter.keep(descriptor);
        }
    }

    /// Hands over to another process, which is made now and becomes the program with what was delivered. This one ends, or stays as the agent.
    pub fn hand_over(&self, delivered: &OwnedFd, stay: Stay) {
        self.starter.hand_over(delivered, stay);
        if stay == Stay::No {
            entry::exit(0);
        }
    }

    /// Closes what else we have inherited: it is the program's, and a pipe's reader would wait for us. To be called before anything else is opened.
    pub fn close_what_is_not_ours(&self, memory: Option<&OwnedFd>) {
        let [link, token] = self.starter.descriptors();
        descriptor::close_all_but([Some(link), Some(token), self.terminal.map(AsFd::as_fd), memory.map(AsFd::as_fd)]);
    }

    /// This process is the program itself.
    pub fn leave(&self) {
        self.starter.leave();
    }

    /// What an agent asks the supervisor by.
    #[must_use]
    pub fn link(&self) -> &Starter {
        &self.starter
    }

    /// The last thing before the program: from here on signals are the program's, and the terminal. Does not return when the supervisor has ended the start.
    pub fn commit(&self) {
        if !self.starter.commit() {
            entry::exit(0);
        }
        if let Some(terminal) = self.terminal {
            terminal.give_to(nix::unistd::getpgrp());
        }
    }
}

/// What the kernel raises for a process's own doing, and what must not be passed on when it is meant for us: faults, a broken pipe, timers, limits. From a process
/// they are forwarded like any other.
const OUR_OWN: Mask = Mask::of(&[
    Signal(libc::SIGILL),
    Signal(libc::SIGTRAP),
    Signal(libc::SIGBUS),
    Signal(libc::SIGFPE),
    Signal(libc::SIGSEGV),
    Signal(libc::SIGSYS),
    Signal(libc::SIGPIPE),
    Signal(libc::SIGALRM),
    Signal(libc::SIGVTALRM),
    Signal(libc::SIGPROF),
    Signal(libc::SIGURG),
    Signal(libc::SIGIO),
    Signal(libc::SIGXCPU),
    Signal(libc::SIGXFSZ),
]);

/// How long those that outlive the program may take to end: with the program's own time it stays within Docker's 10 s.
const GRACE: Duration = Duration::from_secs(2);

/// Runs a child that becomes the program, and gives the exit code that passes the program's end on.
///
/// The child may hand over what it delivered instead: then it is the agent, and another child becomes the program, which never was in touch with a store. All signals are
/// blocked when this is called, and those of `ending` end the start.
///
/// # Errors
///
/// When the system has no room for a process or a descriptor.
pub fn run(options: &Options, ending: Mask, children: &dyn Children) -> Result<u8, Failure> {
    // Not CHLD yet: it stays pending, so that a program that ends at once is not missed.
    let signals = SignalFd::new(ending).map_err(|error| no_room("signalfd", &error))?;
    signal::want_children();
    // When we are not PID 1, orphans of the program come to us all the same. An old kernel that refuses changes nothing.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let terminal = Terminal::ours();
    let runner = Runner::spawn(terminal.as_ref(), |start| children.start(start))?;
    environ::wipe();
    // Nothing of a secret is in us any more, nor yet.
    let score = Score::open().ok();
    let supervisor = Supervisor { signals, ending, terminal, options, children };
    Ok(match supervisor.wait_for_start(runner, score) {
        Outcome::Ended(code) => code,
        Outcome::Running(started) => Running::new(&supervisor, started).live(),
    })
}

/// What stays the same as long as we live.
struct Supervisor<'a> {
    signals: SignalFd,
    /// The signals that end a start.
    ending: Mask,
    terminal: Option<Terminal>,
    options: &'a Options,
    children: &'a dyn Children,
}

/// A process that is on its way to become the program.
struct Runner {
    process: Pid,
    watcher: Watcher,
}

impl Runner {
    /// Runs `become` in a process of its own, the leader of its group.
    fn spawn(terminal: Option<&Terminal>, r#become: impl FnOnce(&Start) -> Result<Infallible, Failure>) -> Result<Self, Failure> {
        let (watcher, starter) = handshake::pair().map_err(|error| no_room("a socket pair", &error))?;
        match process::fork().map_err(|error| no_room("a process", &error))? {
            Fork::Child => {
                drop(watcher);
                let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
                let ours = Start { starter, terminal };
                let Err(failure) = r#become(&ours);
                let code = failure.print(false);
                ours.starter.fail(code);
                entry::exit(code)
            }
            Fork::Parent(process) => {
                // On both sides, so that whoever comes first has made the group before a signal can be meant for it.
                let _ = nix::unistd::setpgid(process, process);
                Ok(Self { process, watcher })
            }
        }
    }
}

fn no_room(what: &str, error: &std::io::Error) -> Failure {
    // EAGAIN says "try again", which would not help.
    let cause = if error.kind() == std::io::ErrorKind::WouldBlock { "the limit is reached".to_owned() } else { os_error(error) };
    let hint = "the container may lack processes (--pids-limit), descriptors (ulimit -n) or memory";
    let problem = Problem::new(Code::System, format!("{what} cannot be had: {cause}")).hint(hint);
    Failure { problems: vec![problem], summary: consequence(Command::Supervise).to_owned() }
}

impl Runner {
    fn kill(&self) {
        signal::send(Pid::from_raw(-self.process.as_raw()), Signal::KILL);
        let _ = process::wait_for(self.process);
    }
}

/// How a start went.
enum Outcome {
    /// It failed, or was ended: there is no program.
    Ended(u8),
    /// The program runs.
    Running(Started),
}

/// The program runs, and what came up until it did.
struct Started {
    program: Pid,
    /// The signals that came meanwhile and are the program's.
    held: Mask,
    /// What stays open with it.
    lock: Option<OwnedFd>,
    /// The agent, if it stays.
    agent: Option<Companion>,
}

impl Supervisor<'_> {
    /// Waits until the runner has become the program, or not. When it was the agent, another is made.
    fn wait_for_start(&self, mut runner: Runner, mut score: Option<Score>) -> Outcome {
        // The stores see to it themselves, unless a library of theirs or a file system blocks.
        let mut deadline = Deadline::after(self.options.timeout.unwrap_or(TIMEOUT) + GRACE);
        let mut agent: Option<Companion> = None;
        let mut held = Mask::NONE;
        let mut lock = None;
        let mut memory = None;
        let mut buffer = Buffer::default();
        loop {
            let mut ready = [PollFd::new(runner.watcher.as_fd(), PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ready, deadline.timeout());
            match runner.watcher.hear() {
                // Who still can take the token now knows that the runner died before it could become anything.
                Heard::Closed if runner.watcher.abort() => return ended(agent, died(runner.process)),
                Heard::Closed => return Outcome::Running(Started { program: runner.process, held, lock, agent }),
                Heard::Failed(code) => {
                    let _ = process::wait_for(runner.process);
                    return ended(agent, code);
                }
                Heard::Keep(descriptor) => lock = Some(descriptor),
                Heard::Remember(descriptor) => memory = Some(descriptor),
                Heard::HandedOver(delivered, stay) => match self.program_with(delivered) {
                    Ok(next) => {
                        let Runner { process, watcher } = std::mem::replace(&mut runner, next);
                        agent = Companion::of(process, watcher, stay, memory.take(), score.take(), self.options.revoke_on_exit);
                    }
                    Err(failure) => return Outcome::Ended(failure.print(false)),
                },
                _ => {}
            }
            for received in self.signals.read(&mut buffer) {
                if runner.watcher.abort() {
                    runner.kill();
                    return ended(agent, received.signal.exit_code());
                }
                held = held.with(received.signal);
            }
            if deadline.has_passed() {
                if runner.watcher.abort() {
                    runner.kill();
                    let problem = Problem::new(Code::Unavailable, "the start took longer than --timeout; the program was not started")
                        .hint("does a file system that a secret or a login lies in answer?");
                    return ended(agent, Failure::from(problem).print(false));
                }
                // It is about to become the program, and however long that takes it is the program's time.
                deadline = Deadline::NEVER;
            }
        }
    }

    /// Makes the process that becomes the program.
    fn program_with(&self, delivered: OwnedFd) -> Result<Runner, Failure> {
        Runner::spawn(self.terminal.as_ref(), |start| self.children.go_on(start, delivered))
    }
}

/// There is no program, and so no agent.
fn ended(agent: Option<Companion>, code: u8) -> Outcome {
    if let Some(agent) = agent {
        agent.finish();
    }
    Outcome::Ended(code)
}

/// The runner died during the start, by no failure of its own.
fn died(runner: Pid) -> u8 {
    let code = process::wait_for(runner);
    let how = code.map_or_else(String::new, |code| format!(" (exit code {code})"));
    let is_killed = code.is_none_or(|code| code == Signal::KILL.exit_code());
    let (kind, hint) = if is_killed {
        (Code::System, "was it killed for lack of memory? see the container's memory limit")
    } else {
        (Code::Internal, "this is a bug of secret-init")
    };
    let problem = Problem::new(kind, format!("the start was cut short{how}; the program was not started")).hint(hint);
    Failure::from(problem).print(false)
}

fn is_forwarded(received: Received) -> bool {
    !(received.by_kernel && OUR_OWN.contains(received.signal))
}

fn is_pid_1() -> bool {
    getpid().as_raw() == 1
}

fn is_session_leader() -> bool {
    nix::unistd::getsid(None) == Ok(getpid())
}
