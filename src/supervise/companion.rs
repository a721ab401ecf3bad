//! The agent that stays, as the supervisor has it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::Pid;

use super::deadline::Deadline;
use super::{Children, Runner};
use crate::handshake::{Ask, Heard, Stay, Told, Watcher};
use crate::sys::oom::Score;
use crate::sys::process;
use crate::sys::signal::{self, Signal};

/// The pause before an agent that died is started again; it doubles with each that dies.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// An agent that has lived this long was well: the next pause is the first again.
const HEALTHY: Duration = Duration::from_mins(10);
/// How long it may take to give back what was lent.
const FAREWELL: Duration = Duration::from_secs(5);

/// The agent: a process and our side of the pair, and what another needs when it dies, in a file in memory that we never look into.
pub struct Companion {
    /// None from its death to the start of another.
    process: Option<Pid>,
    /// None when all is heard that came by it. What was asked before a death still counts.
    watcher: Option<Watcher>,
    memory: Option<OwnedFd>,
    /// Ours, which one that we make inherits.
    score: Option<Score>,
    untold: Option<Told>,
    /// Whether it may ask for another start.
    pub restarts: bool,
    revokes: bool,
    started: Instant,
    pause: Duration,
    again: Deadline,
    /// How the last one ended.
    code: u8,
}

impl Companion {
    /// The agent that handed over; none when it does not stay.
    pub fn of(process: Pid, watcher: Watcher, stay: Stay, memory: Option<OwnedFd>, score: Option<Score>, revokes: bool) -> Option<Self> {
        let new = move |restarts| Self {
            process: Some(process),
            watcher: Some(watcher.of_an_agent()),
            memory,
            score,
            untold: None,
            restarts,
            revokes,
            started: Instant::now(),
            pause: FIRST_PAUSE,
            again: Deadline::NEVER,
            code: 0,
        };
        match stay {
            Stay::No => None,
            Stay::Signalling => Some(new(false)),
            Stay::Restarting => Some(new(true)),
        }
    }

    /// What to wait for.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watcher.as_ref().map(AsFd::as_fd)
    }

    /// What is kept for another.
    pub fn memory(&self) -> Option<BorrowedFd<'_>> {
        self.memory.as_ref().map(AsFd::as_fd)
    }

    /// What decides who is killed when memory runs out.
    pub fn score(&self) -> Option<BorrowedFd<'_>> {
        self.score.as_ref().map(AsFd::as_fd)
    }

    /// When another is due.
    pub fn again(&self) -> Deadline {
        self.again
    }

    /// What it asks for, if there is anything; what it wants to be remembered is. One that is not connected any more would do nothing that it is there for, and is made
    /// to end.
    pub fn hear(&mut self) -> Option<Ask> {
        loop {
            match self.watcher.as_ref()?.hear() {
                Heard::Remember(memory) => self.memory = Some(memory),
                Heard::Asked(ask, memory) => {
                    self.memory = memory.or(self.memory.take());
                    return Some(ask);
                }
                Heard::Closed => {
                    self.watcher = None;
                    if let Some(process) = self.process {
                        signal::send(process, Signal::KILL);
                    }
                }
                _ => return None,
            }
        }
    }

    /// Tells it, if it lives. Who the program is, it has to know: that is told again when there was no room for it.
    pub fn tell(&mut self, told: Told) {
        if let Some(watcher) = &self.watcher {
            let is_told = watcher.tell(told);
            if let Told::Program(_) = told {
                self.untold = (!is_told).then_some(told);
            }
        }
    }

    /// Tells it what there was no room for before.
    pub fn tell_again(&mut self) {
        if let Some(told) = self.untold {
            self.tell(told);
        }
    }

    /// Whether it is this child.
    pub fn is(&self, child: Pid) -> bool {
        self.process == Some(child)
    }

    /// It has died, with this exit code.
    pub fn died(&mut self, code: u8) {
        self.code = code;
        self.try_later();
    }

    fn try_later(&mut self) {
        self.process = None;
        self.untold = None;
        if self.started.elapsed() >= HEALTHY {
            self.pause = FIRST_PAUSE;
        }
        self.again = Deadline::after(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Starts another, with what the one before it left. Where there is no room for a process now it is tried again later.
    pub fn revive(&mut self, children: &dyn Children, program: Pid) {
        self.again = Deadline::NEVER;
        self.started = Instant::now();
        // An agent leaves it before it hands over.
        let Some(Ok(memory)) = self.memory.as_ref().map(OwnedFd::try_clone) else { return self.try_later() };
        self.score.iter().for_each(Score::be_first);
        let code = self.code;
        let runner = Runner::spawn(None, |start| children.take_over(start, memory, code));
        self.score.iter().for_each(Score::be_as_before);
        match runner {
            Ok(Runner { process, watcher }) => (self.process, self.watcher) = (Some(process), Some(watcher.of_an_agent())),
            Err(_) => return self.try_later(),
        }
        self.tell(Told::Program(program));
    }

    /// The program has ended, and so does the agent: at once, or when it has given back what was lent.
    pub fn finish(self) {
        let Some(process) = self.process else { return };
        if let Some(watcher) = self.watcher.filter(|_| self.revokes) {
            let _ = watcher.tell(Told::Finish);
            let deadline = Deadline::after(FAREWELL);
            while !deadline.has_passed() && !matches!(watcher.hear(), Heard::Closed) {
                let _ = poll(&mut [PollFd::new(watcher.as_fd(), PollFlags::POLLIN)], deadline.timeout());
            }
        }
        signal::send(process, Signal::KILL);
        let _ = process::wait_for(process);
    }
}
