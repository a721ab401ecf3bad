//! The terminal, when there is one: its foreground group decides who gets Ctrl-C and who may read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use crate::sys::signal;

/// Our controlling terminal. All signals are blocked while we use it, so that no call stops us.
pub struct Terminal {
    device: OwnedFd,
    /// The supervisor's process group: the shell's job.
    job: Pid,
}

impl Terminal {
    /// The terminal, if there is one. It need not be in our hands now: a shell's `fg` may put us into its foreground later.
    #[must_use]
    pub fn ours() -> Option<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        Some(Self { device: nix::fcntl::open("/dev/tty", flags, Mode::empty()).ok()?, job: getpgrp() })
    }

    /// Puts the program's group into the foreground, if we are there: to take it from somebody else's job would be theft. Tells whether it is there now. A terminal
    /// that is gone is no reason to fail.
    pub fn give_to(&self, program: Pid) -> bool {
        self.pass(self.job, program)
    }

    /// Takes the foreground back from the program's group, if it is there.
    pub fn take_back_from(&self, program: Pid) {
        self.pass(program, self.job);
    }

    /// A group whose processes have all ended may still be in the foreground.
    fn pass(&self, from: Pid, to: Pid) -> bool {
        let is_due = |present: Pid| present == from || !signal::exists(Pid::from_raw(-present.as_raw()));
        tcgetpgrp(&self.device).is_ok_and(is_due) && tcsetpgrp(&self.device, to).is_ok()
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
