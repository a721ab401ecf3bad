//! A terminal, real but for the person before it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{DEADLINE, binary};

/// A terminal with a session in it.
pub struct Terminal {
    pub screen: File,
    seen: String,
    session: Child,
}

impl Terminal {
    /// Starts the command as the leader of a session that has a new terminal.
    pub fn running(mut command: Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        // The terminal is closed when we close it, and nobody else holds it.
        for descriptor in [&pty.master, &pty.slave] {
            nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).unwrap();
        }
        let stdio = || pty.slave.try_clone().unwrap();
        command.stdin(stdio()).stdout(stdio()).stderr(stdio());
        // SAFETY: setsid(2) and ioctl(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let session = command.spawn().unwrap();
        Self { screen: File::from(pty.master), seen: String::new(), session }
    }

    /// An interactive bash without anybody's settings, which knows secret-init as `$INIT`.
    pub fn bash() -> Self {
        let mut command = Command::new("bash");
        command.args(["--norc", "--noprofile", "--noediting", "-i"]).env("PS1", "").env("INIT", binary());
        let mut terminal = Self::running(command);
        terminal.types("stty -echo; echo shell is $((40 + 2))\n");
        terminal.shows("shell is 42");
        terminal
    }

    pub fn types(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this text is on the screen, after all that was waited for before, and gives what stood between.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while !self.seen.contains(text) {
            assert!(Instant::now() < end, "{text:?} is not on the screen: {:?}", self.seen);
            let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now()).as_millis()).unwrap();
            let is_ready = poll(&mut [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)], left).unwrap() > 0;
            let mut bytes = [0; 4096];
            let length = if is_ready { self.screen.read(&mut bytes).unwrap_or(0) } else { 0 };
            assert!(length > 0, "{text:?} is not on the screen: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        let (before, after) = self.seen.split_once(text).unwrap();
        let before = before.to_owned();
        self.seen = after.to_owned();
        before
    }

    /// All that is on the screen when everybody has closed the terminal.
    #[track_caller]
    pub fn at_its_end(mut self) -> String {
        let end = Instant::now() + DEADLINE;
        let mut bytes = [0; 4096];
        loop {
            let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now()).as_millis()).unwrap();
            assert!(poll(&mut [PollFd::new(self.screen.as_fd(), PollFlags::POLLIN)], left).unwrap() > 0, "still open: {:?}", self.seen);
            // A terminal that nobody holds any more answers with EIO.
            match self.screen.read(&mut bytes) {
                Ok(length) if length > 0 => self.seen.push_str(&String::from_utf8_lossy(&bytes[..length])),
                _ => return std::mem::take(&mut self.seen),
            }
        }
    }

    /// The process group in the foreground.
    pub fn foreground(&self) -> i32 {
        let mut group = 0;
        // SAFETY: TIOCGPGRP writes one int.
        assert_eq!(unsafe { libc::ioctl(self.screen.as_raw_fd(), libc::TIOCGPGRP, &raw mut group) }, 0);
        group
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one structure of ours.
        assert_eq!(unsafe { libc::ioctl(self.screen.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
    }

    pub fn leader(&self) -> i32 {
        i32::try_from(self.session.id()).unwrap()
    }

    #[track_caller]
    pub fn ends_with(mut self, code: i32) {
        let end = Instant::now() + DEADLINE;
        let pidfd = super::pidfd(self.leader());
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now()).as_millis()).unwrap();
        assert_eq!(poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left), Ok(1), "still running; {:?}", self.seen);
        assert_eq!(self.session.wait().unwrap().code(), Some(code));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.session.kill();
        let _ = self.session.wait();
    }
}
