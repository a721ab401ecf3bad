//! The loop of an init, as long as the program runs.

use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{Pid, getpid};

use super::companion::Companion;
use super::deadline::Deadline;
use super::terminal::Terminal;
use super::{GRACE, Outcome, Started, Supervisor, is_forwarded, is_pid_1, is_session_leader};
use crate::handshake::{Ask, Stop, Then, Told};
use crate::sys::process::{Change, Waited};
use crate::sys::signal::{Buffer, Mask, Received, Signal};
use crate::sys::{descriptor, process, signal};

/// The program runs.
pub struct Running<'a> {
    supervisor: &'a Supervisor<'a>,
    program: Pid,
    lock: Option<OwnedFd>,
    agent: Option<Companion>,
    /// The signals that came before anybody could take them.
    held: Mask,
    /// When the program is killed, unless it has ended.
    kill_at: Deadline,
    /// What comes when it has ended, if that is our own doing.
    then: Option<Then>,
    /// Somebody wants the container to end: from then on nothing starts the program again.
    is_to_end: bool,
}

impl<'a> Running<'a> {
    /// What was started.
    pub fn new(supervisor: &'a Supervisor<'a>, started: Started) -> Self {
        let Started { program, held, lock, agent } = started;
        Self { supervisor, program, lock, agent, held, kill_at: Deadline::NEVER, then: None, is_to_end: false }
    }

    /// Lives as long as the program does, and gives its exit code.
    pub fn live(mut self) -> u8 {
        // What another start is to find as the first one did stays as it is.
        if !self.agent.as_ref().is_some_and(|agent| agent.restarts) {
            self.close_what_is_not_ours();
            // The program has its own: ours would keep a mount busy.
            let _ = nix::unistd::chdir("/");
        }
        let code = loop {
            self.begin();
            let code = self.until_the_program_ends();
            match self.then.take() {
                Some(Then::Start(delivered)) => match self.start_again(delivered) {
                    Ok(()) => {}
                    Err(code) => break code,
                },
                Some(Then::Exit(code)) => break code,
                None => break code,
            }
        };
        if let Some(agent) = self.agent.take() {
            agent.finish();
        }
        self.end_the_rest();
        if let Some(terminal) = self.terminal().filter(|_| !is_pid_1()) {
            terminal.take_back_from(self.program);
        }
        code
    }

    /// From now on the program has its signals, and those that came meanwhile.
    fn begin(&mut self) {
        let _ = self.supervisor.signals.listen_to(Mask::ALL);
        for signal in std::mem::take(&mut self.held).iter() {
            self.pass_on(signal);
        }
        self.tell_of_the_program();
    }

    /// An agent that has asked for another start acts on nothing until it knows that the program runs.
    fn tell_of_the_program(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.tell(Told::Program(self.program));
        }
    }

    fn terminal(&self) -> Option<&'a Terminal> {
        self.supervisor.terminal.as_ref()
    }

    /// Descriptors that we inherited are the program's: as long as we had them open, a pipe's reader would wait for us.
    fn close_what_is_not_ours(&self) {
        let agent = self.agent.as_ref();
        descriptor::close_all_but([
            Some(self.supervisor.signals.as_fd()),
            self.terminal().map(AsFd::as_fd),
            self.lock.as_ref().map(AsFd::as_fd),
            agent.and_then(Companion::descriptor),
            agent.and_then(Companion::memory),
            agent.and_then(Companion::score),
        ]);
    }

    /// The loop of an init. Every path out of it gives the program's own end.
    fn until_the_program_ends(&mut self) -> u8 {
        let mut buffer = Buffer::default();
        loop {
            self.wait();
            for &received in self.supervisor.signals.read(&mut buffer) {
                if received.signal == Signal::CHLD {
                    // What an agent asked for before it died still counts.
                    self.obey_the_agent();
                    if let Some(code) = self.reap() {
                        return code;
                    }
                } else {
                    self.take(received);
                }
            }
            self.obey_the_agent();
            if let Some(agent) = &mut self.agent {
                agent.tell_again();
            }
            if self.kill_at.has_passed() {
                self.kill_at = Deadline::NEVER;
                signal::send(self.target(), Signal::KILL);
            }
            if let Some(agent) = self.agent.as_mut().filter(|agent| agent.again().has_passed()) {
                agent.revive(self.supervisor.children, self.program);
            }
        }
    }

    /// Waits for a signal, for the agent, or for what is due.
    fn wait(&self) {
        let signals = PollFd::new(self.supervisor.signals.as_fd(), PollFlags::POLLIN);
        let again = self.agent.as_ref().map_or(Deadline::NEVER, Companion::again);
        let timeout = self.kill_at.earlier(again).timeout();
        let _ = match self.agent.as_ref().and_then(Companion::descriptor) {
            Some(agent) => poll(&mut [signals, PollFd::new(agent, PollFlags::POLLIN)], timeout),
            None => poll(&mut [signals], timeout),
        };
    }

    /// A signal that is not about our children.
    fn take(&mut self, received: Received) {
        if is_forwarded(received) {
            self.pass_on(received.signal);
        }
    }

    /// A signal from outside: it is the program's, unless it is the agent's.
    fn pass_on(&mut self, signal: Signal) {
        if self.supervisor.options.refresh_signal == Some(signal) {
            // A new one looks at everything anyway. To the program it would be what it does not expect.
            self.agent.iter_mut().for_each(|agent| agent.tell(Told::Refresh));
            return;
        }
        // Who ends the container means it, also while the program is being started again. A program may live on after INT or QUIT.
        if self.ends_a_start().contains(signal) {
            if self.then.take().is_some() {
                // One that lives on is not killed for a start that does not come, and is to hear of what else changes.
                if signal != Signal::TERM {
                    self.kill_at = Deadline::NEVER;
                }
                self.tell_of_the_program();
            }
            self.is_to_end |= signal == Signal::TERM;
        }
        self.forward(signal);
    }

    /// The signals that end another start. HUP does not: it is for a program that runs.
    fn ends_a_start(&self) -> Mask {
        self.supervisor.ending.without(Signal::HUP)
    }

    fn obey_the_agent(&mut self) {
        while let Some(ask) = self.agent.as_mut().and_then(Companion::hear) {
            match ask {
                // A program that has been started since was not meant.
                Ask::Signal(signal, program) if self.then.is_none() && program == self.program => signal::send(self.target(), signal),
                Ask::Stop(stop, then) if !self.is_to_end => self.stop(stop, then),
                // The program goes on as it is, and is to hear of what else changes.
                Ask::Stop(..) => self.tell_of_the_program(),
                Ask::Signal(..) => {}
            }
        }
    }

    /// Asks the program to end. What is asked for while it is ending takes the place of what was to come, but for the end of all.
    fn stop(&mut self, stop: Stop, then: Then) {
        if matches!(self.then, Some(Then::Exit(_))) {
            return;
        }
        if self.then.replace(then).is_none() {
            signal::send(self.target(), stop.signal);
            // One that is stopped would not see it.
            signal::send(self.target(), Signal::CONT);
            self.kill_at = Deadline::after(stop.grace);
        }
    }

    /// Starts the program again, when nobody of its process group is left.
    fn start_again(&mut self, delivered: OwnedFd) -> Result<(), u8> {
        self.kill_at = Deadline::NEVER;
        self.end(Pid::from_raw(-self.program.as_raw()));
        let ending = self.ends_a_start();
        if let Some(signal) = self.held.iter().find(|&signal| ending.contains(signal)) {
            return Err(signal.exit_code());
        }
        let _ = self.supervisor.signals.listen_to(ending);
        let runner = self.supervisor.program_with(delivered).map_err(|failure| failure.print(false))?;
        match self.supervisor.wait_for_start(runner, None) {
            Outcome::Ended(code) => Err(code),
            Outcome::Running(started) => {
                self.program = started.program;
                // One that has just started has read everything anew, and may not have its handler for HUP yet.
                self.held = self.held.and(started.held).without(Signal::HUP);
                Ok(())
            }
        }
    }

    /// Takes every child that changed: one SIGCHLD may stand for many. Gives the program's exit code when it is among them, after all others are reaped too.
    fn reap(&mut self) -> Option<u8> {
        let mut code = None;
        loop {
            match process::reap() {
                Waited::Changed(child, Change::Stopped(by)) if child == self.program => self.program_stopped(by),
                Waited::Changed(child, change) if child == self.program => code = change.exit_code(),
                Waited::Changed(child, change) => self.other_changed(child, change),
                Waited::Nothing | Waited::NoChildren => return code,
            }
        }
    }

    fn target(&self) -> Pid {
        if self.supervisor.options.group { Pid::from_raw(-self.program.as_raw()) } else { self.program }
    }

    fn forward(&mut self, signal: Signal) {
        if signal == Signal::CONT
            && let Some(terminal) = self.terminal()
        {
            // A shell's `fg` or `bg` means all of the job. After `fg` we are in the foreground, and the program is to be.
            terminal.give_to(self.program);
            return signal::send(Pid::from_raw(-self.program.as_raw()), Signal::CONT);
        }
        signal::send(self.target(), signal);
        if signal == Signal::TERM
            && let Some(duration) = self.supervisor.options.kill_after
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
        let may_read = by != Signal::TSTP && self.terminal().is_some_and(|terminal| terminal.give_to(self.program));
        let has_no_shell = is_pid_1() || is_session_leader();
        if may_read || has_no_shell && by == Signal::TSTP && self.terminal().is_some() {
            signal::send(Pid::from_raw(-self.program.as_raw()), Signal::CONT);
        } else if let Some(terminal) = self.terminal().filter(|_| !has_no_shell) {
            terminal.take_back_from(self.program);
            signal::send(Pid::from_raw(0), Signal::STOP);
        } else if !has_no_shell {
            signal::send(getpid(), Signal::STOP);
        }
    }

    /// Whoever outlives the program is asked to end, and after a grace made to.
    fn end_the_rest(&mut self) {
        match (is_pid_1(), self.supervisor.options.group) {
            (true, _) => self.end(Pid::from_raw(-1)),
            (false, true) => self.end(Pid::from_raw(-self.program.as_raw())),
            // Another init is above us, and will have them.
            (false, false) => {}
        }
    }

    /// Asks a group, or all, to end, and after a grace makes them. The moment nobody is left it is over. Signals that come meanwhile are held.
    fn end(&mut self, rest: Pid) {
        if self.nobody_is_left(rest) {
            return;
        }
        signal::send(rest, Signal::TERM);
        // One that is stopped would not see it.
        signal::send(rest, Signal::CONT);
        let mut deadline = Deadline::after(GRACE);
        let mut is_killed = false;
        let mut buffer = Buffer::default();
        while !self.nobody_is_left(rest) {
            if deadline.has_passed() {
                if is_killed {
                    return;
                }
                signal::send(rest, Signal::KILL);
                is_killed = true;
                deadline = Deadline::after(GRACE);
                if rest.as_raw() == -1 {
                    // Nobody waits for them any more: our end is theirs.
                    return;
                }
            }
            let _ = poll(&mut [PollFd::new(self.supervisor.signals.as_fd(), PollFlags::POLLIN)], deadline.timeout());
            for received in self.supervisor.signals.read(&mut buffer).iter().filter(|received| is_forwarded(**received)) {
                if received.signal != Signal::CHLD {
                    self.held = self.held.with(received.signal);
                }
            }
        }
    }

    /// Reaps, and tells whether that was the last. Processes that came by `docker exec` are not our children, and not waited for.
    fn nobody_is_left(&mut self, rest: Pid) -> bool {
        loop {
            match process::reap() {
                Waited::Changed(child, change) => self.other_changed(child, change),
                Waited::Nothing => return rest.as_raw() != -1 && !signal::exists(rest),
                Waited::NoChildren => return true,
            }
        }
    }

    /// A child that is not the program: an orphan, or the agent.
    fn other_changed(&mut self, child: Pid, change: Change) {
        if let Some(agent) = self.agent.as_mut().filter(|agent| agent.is(child))
            && let Some(code) = change.exit_code()
        {
            agent.died(code);
        }
    }
}
