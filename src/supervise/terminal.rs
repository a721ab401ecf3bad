//! The terminal, when there is one: its foreground group decides who gets Ctrl-C and who may read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// Our controlling terminal, in whose foreground we are. All signals are blocked while we use it, so that no call stops us.
pub struct Terminal(OwnedFd);

impl Terminal {
    /// The terminal; none when there is none, or when somebody else's job is in its foreground: taking it would be theft.
    #[must_use]
    pub fn ours() -> Option<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let terminal = Self(nix::fcntl::open("/dev/tty", flags, Mode::empty()).ok()?);
        terminal.is_in_foreground(getpgrp()).then_some(terminal)
    }

    /// Whether this group is in the foreground.
    #[must_use]
    pub fn is_in_foreground(&self, group: Pid) -> bool {
        tcgetpgrp(&self.0) == Ok(group)
    }

    /// Puts a group into the foreground. A terminal that is gone is no reason to fail.
    pub fn give_to(&self, group: Pid) {
        let _ = tcsetpgrp(&self.0, group);
    }

    /// Takes the foreground back from a group that has it.
    pub fn take_back_from(&self, group: Pid) {
        if self.is_in_foreground(group) {
            self.give_to(getpgrp());
        }
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
