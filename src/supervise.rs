//! PID 1: starts the runner, forwards signals, reaps what ends, and ends as the program did.
//!
//! One thread. It reads no secret, and once the program runs it allocates nothing and waits in one `poll` for a signal. Past that point it may not fail: its end is the
//! container's.

mod deadline;
mod terminal;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{Pid, getpid};

use crate::cli::{Command, Options, TIMEOUT};
use crate::handshake::{self, Heard, Starter, Watcher};
use crate::plan::consequence;
use crate::report::{Code, Failure, Problem, os_error};
use crate::sys::process::{Change, Fork, Waited};
use crate::sys::signal::{Buffer, Mask, Received, Signal, SignalFd};
use crate::sys::{descriptor, entry, environ, process, signal};
use deadline::Deadline;
use terminal::Terminal;

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

    /// Ends this process: another is made, which becomes the program with what was delivered.
    pub fn hand_over(&self, delivered: &OwnedFd) -> ! {
        self.starter.hand_over(delivered);
        entry::exit(0)
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

/// Runs `start` in a process of its own, which becomes the program, and gives the exit code that passes its end on.
///
/// That process may hand over what it delivered instead: then it was the agent, and `go_on` becomes the program in a process that never was in touch with a store.
/// All signals are blocked when this is called, and those of `ending` end the start. Both functions return only when they failed.
///
/// # Errors
///
/// When the system has no room for a process or a descriptor.
pub fn run(
    options: &Options,
    ending: Mask,
    start: impl FnOnce(&Start) -> Result<Infallible, Failure>,
    go_on: impl FnOnce(&Start, OwnedFd) -> Result<Infallible, Failure>,
) -> Result<u8, Failure> {
    // Not CHLD yet: it stays pending, so that a program that ends at once is not missed.
    let signals = SignalFd::new(ending).map_err(|error| no_room("signalfd", &error))?;
    signal::want_children();
    // When we are not PID 1, orphans of the program come to us all the same. An old kernel that refuses changes nothing.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    let terminal = Terminal::ours();
    let runner = Runner::spawn(terminal.as_ref(), start)?;
    environ::wipe();
    // The stores see to it themselves, unless a library of theirs or a file system blocks.
    let deadline = Deadline::after(options.timeout.unwrap_or(TIMEOUT) + GRACE);
    let outcome = wait_for_start(&signals, runner, deadline, |delivered| Runner::spawn(terminal.as_ref(), |start| go_on(start, delivered)));
    // The program has its own: ours would keep a mount busy.
    let _ = nix::unistd::chdir("/");
    match outcome {
        Outcome::Ended(code) => Ok(code),
        Outcome::Running { program, held, lock } => {
            let options = Supervision { group: options.group, kill_after: options.kill_after };
            let code = Running { signals, lock, terminal: terminal.as_ref(), program, options, kill_at: Deadline::NEVER }.live(held);
            if let Some(terminal) = terminal.filter(|_| !is_pid_1()) {
                terminal.take_back_from(program);
            }
            Ok(code)
        }
    }
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
    Running {
        program: Pid,
        /// The signals that came meanwhile and are the program's.
        held: Mask,
        /// What stays open with it.
        lock: Option<OwnedFd>,
    },
}

/// Waits until the runner has become the program, or not. `replace` makes another when the first was the agent.
fn wait_for_start(
    signals: &SignalFd,
    mut runner: Runner,
    mut deadline: Deadline,
    replace: impl FnOnce(OwnedFd) -> Result<Runner, Failure>,
) -> Outcome {
    let mut replace = Some(replace);
    let mut held = Mask::NONE;
    let mut lock = None;
    let mut buffer = Buffer::default();
    loop {
        let mut ready = [PollFd::new(runner.watcher.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, deadline.timeout());
        match runner.watcher.hear() {
            // Who still can take the token now knows that the runner died before it could become anything.
            Heard::Closed if runner.watcher.abort() => return Outcome::Ended(died(runner.process)),
            Heard::Closed => return Outcome::Running { program: runner.process, held, lock },
            Heard::Failed(code) => {
                let _ = process::wait_for(runner.process);
                return Outcome::Ended(code);
            }
            Heard::Keep(descriptor) => lock = Some(descriptor),
            Heard::HandedOver(delivered) => match replace.take().map(|replace| replace(delivered)) {
                Some(Ok(next)) => runner = next,
                Some(Err(failure)) => return Outcome::Ended(failure.print(false)),
                // The process that goes on has nothing to hand over.
                None => {}
            },
            Heard::Nothing => {}
        }
        for received in signals.read(&mut buffer) {
            if runner.watcher.abort() {
                runner.kill();
                return Outcome::Ended(received.signal.exit_code());
            }
            held = held.with(received.signal);
        }
        if deadline.has_passed() {
            if runner.watcher.abort() {
                runner.kill();
                let problem = Problem::new(Code::Unavailable, "the start took longer than --timeout; the program was not started")
                    .hint("does a file system that a secret or a login lies in answer?");
                return Outcome::Ended(Failure::from(problem).print(false));
            }
            // It is about to become the program, and however long that takes it is the program's time.
            deadline = Deadline::NEVER;
        }
    }
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

/// The program runs.
struct Running<'a> {
    signals: SignalFd,
    lock: Option<OwnedFd>,
    terminal: Option<&'a Terminal>,
    program: Pid,
    options: Supervision,
    kill_at: Deadline,
}

struct Supervision {
    /// Signals go to the program's process group.
    group: bool,
    /// How long after TERM the program is killed.
    kill_after: Option<Duration>,
}

impl Running<'_> {
    fn live(mut self, held: Mask) -> u8 {
        let _ = self.signals.listen_to(Mask::ALL);
        self.close_what_is_not_ours();
        held.iter().for_each(|signal| self.forward(signal));
        let code = self.until_the_program_ends();
        self.end_the_rest();
        code
    }

    /// Descriptors that we inherited are the program's: as long as we had them open, a pipe's reader would wait for us.
    fn close_what_is_not_ours(&self) {
        descriptor::close_all_but([Some(self.signals.as_fd()), self.terminal.map(AsFd::as_fd), self.lock.as_ref().map(AsFd::as_fd)]);
    }

    /// The loop of an init. Every path out of it gives the program's own end.
    fn until_the_program_ends(&mut self) -> u8 {
        let mut buffer = Buffer::default();
        loop {
            for &received in self.wait(self.kill_at, &mut buffer) {
                if received.signal == Signal::CHLD {
                    if let Some(code) = self.reap() {
                        return code;
                    }
                } else if is_forwarded(received) {
                    self.forward(received.signal);
                }
            }
            if self.kill_at.has_passed() {
                self.kill_at = Deadline::NEVER;
                signal::send(self.target(), Signal::KILL);
            }
        }
    }

    /// Waits for signals, at most until the deadline.
    fn wait<'a>(&self, deadline: Deadline, buffer: &'a mut Buffer) -> &'a [Received] {
        let mut ready = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, deadline.timeout());
        self.signals.read(buffer)
    }

    /// Takes every child that changed: one SIGCHLD may stand for many. Gives the program's exit code when it is among them, after all others are reaped too.
    fn reap(&mut self) -> Option<u8> {
        let mut code = None;
        loop {
            match process::reap() {
                Waited::Changed(child, Change::Stopped(by)) if child == self.program => self.program_stopped(by),
                Waited::Changed(child, change) if child == self.program => code = change.exit_code(),
                Waited::Changed(..) => {}
                Waited::Nothing | Waited::NoChildren => return code,
            }
        }
    }

    fn target(&self) -> Pid {
        if self.options.group { Pid::from_raw(-self.program.as_raw()) } else { self.program }
    }

    fn forward(&mut self, signal: Signal) {
        if signal == Signal::CONT
            && let Some(terminal) = self.terminal
        {
            // A shell's `fg` or `bg` means all of the job. After `fg` we are in the foreground, and the program is to be.
            terminal.give_to(self.program);
            return signal::send(Pid::from_raw(-self.program.as_raw()), Signal::CONT);
        }
        signal::send(self.target(), signal);
        if signal == Signal::TERM
            && let Some(duration) = self.options.kill_after
            && !self.kill_at.is_set()
        {
            self.kill_at = Deadline::after(duration);
        }
    }

    /// Job control. Below a shell we stop as the program did, so that the shell sees its job stopped. PID 1 has no shell that could bring it back, nor has the leader of a
    /// session, as in `docker exec -it`: there the program goes on.
    fn program_stopped(&self, by: Signal) {
        if !matches!(by, Signal::TSTP | Signal::TTIN | Signal::TTOU) {
            // A STOP is somebody's wish, who will send CONT to the program too.
            return;
        }
        // A shell's `fg` puts a job that was running in the background into the foreground without a word: it shows when the program reads. When others are in the
        // foreground the program put them there, and to wake it would only make it stop again, and again.
        let may_read = by != Signal::TSTP && self.terminal.is_some_and(|terminal| terminal.give_to(self.program));
        let has_no_shell = is_pid_1() || is_session_leader();
        if may_read || has_no_shell && by == Signal::TSTP && self.terminal.is_some() {
            signal::send(Pid::from_raw(-self.program.as_raw()), Signal::CONT);
        } else if let Some(terminal) = self.terminal.filter(|_| !has_no_shell) {
            terminal.take_back_from(self.program);
            signal::send(Pid::from_raw(0), Signal::STOP);
        } else if !has_no_shell {
            signal::send(getpid(), Signal::STOP);
        }
    }

    /// Whoever outlives the program is asked to end, and after a grace made to. The moment nobody is left it is over.
    fn end_the_rest(&self) {
        let rest = match (is_pid_1(), self.options.group) {
            (true, _) => Pid::from_raw(-1),
            (false, true) => Pid::from_raw(-self.program.as_raw()),
            // Another init is above us, and will have them.
            (false, false) => return,
        };
        if nobody_is_left(rest) {
            return;
        }
        signal::send(rest, Signal::TERM);
        // One that is stopped would not see it.
        signal::send(rest, Signal::CONT);
        let deadline = Deadline::after(GRACE);
        let mut buffer = Buffer::default();
        while !deadline.has_passed() {
            if nobody_is_left(rest) {
                return;
            }
            self.wait(deadline, &mut buffer);
        }
        signal::send(rest, Signal::KILL);
    }
}

/// Reaps, and tells whether that was the last. Processes that came by `docker exec` are not our children, and not waited for.
fn nobody_is_left(rest: Pid) -> bool {
    loop {
        match process::reap() {
            Waited::Changed(..) => {}
            Waited::Nothing => return rest.as_raw() != -1 && !signal::exists(rest),
            Waited::NoChildren => return true,
        }
    }
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
