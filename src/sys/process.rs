//! Processes: fork, wait, and what we are.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::unistd::Pid;

use super::signal::Signal;

/// Which side of a fork this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's number.
    Parent(Pid),
}

/// Makes a copy of this process.
///
/// # Errors
///
/// When the kernel has no room for one more (EAGAIN: the cgroup's `pids.max` or the user's limit; ENOMEM).
pub fn fork() -> io::Result<Fork> {
    debug_assert!(threads().is_none_or(|threads| threads == 1), "a fork copies one thread alone");
    // SAFETY: secret-init has one thread here, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent(Pid::from_raw(child))),
    }
}

/// How many threads this process has, as `/proc` says; `None` without `/proc`.
fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// What happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It ended with this exit code.
    Exited(u8),
    /// A signal ended it.
    Killed(Signal),
    /// A signal stopped it.
    Stopped(Signal),
}

impl Change {
    /// The exit code that passes this end on: the child's own, or 128 and the signal. `None` while it lives.
    #[must_use]
    pub fn exit_code(self) -> Option<u8> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Killed(signal) => Some(signal.exit_code()),
            Self::Stopped(_) => None,
        }
    }
}

/// What waiting for children gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// A child changed; one that ended is reaped by this.
    Changed(Pid, Change),
    /// Children live, and none has changed.
    Nothing,
    /// There is no child.
    NoChildren,
}

/// Asks for a child that ended or stopped, without waiting.
#[must_use]
pub fn reap() -> Waited {
    wait(-1, libc::WNOHANG | libc::WUNTRACED)
}

/// Waits until this child ends, and gives its exit code.
#[must_use]
pub fn wait_for(child: Pid) -> Option<u8> {
    match wait(child.as_raw(), 0) {
        Waited::Changed(_, change) => change.exit_code(),
        Waited::Nothing | Waited::NoChildren => None,
    }
}

fn wait(which: i32, flags: i32) -> Waited {
    loop {
        let mut status = 0;
        // SAFETY: waitpid(2) writes one int of ours.
        let child = unsafe { libc::waitpid(which, &raw mut status, flags) };
        return match child {
            0 => Waited::Nothing,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => continue,
            -1 => Waited::NoChildren,
            _ => Waited::Changed(Pid::from_raw(child), change(status)),
        };
    }
}

/// nix's `WaitStatus` knows no real-time signals, and a program may well end by one.
fn change(status: i32) -> Change {
    if libc::WIFEXITED(status) {
        Change::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    } else if libc::WIFSTOPPED(status) {
        Change::Stopped(Signal(libc::WSTOPSIG(status)))
    } else {
        Change::Killed(Signal(libc::WTERMSIG(status)))
    }
}

/// A process that stays the same one, whoever gets its number when it has ended.
pub struct Handle {
    number: Pid,
    /// None where the kernel, or a seccomp filter, has none: then the number has to do.
    descriptor: Option<OwnedFd>,
}

impl Handle {
    /// The process that has this number now.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn open(number: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes two numbers; the descriptor closes on exec.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, number.as_raw(), 0) };
        let descriptor = match i32::try_from(result) {
            // SAFETY: the kernel just gave us this descriptor, and nothing else owns it.
            Ok(descriptor) if descriptor >= 0 => Some(unsafe { OwnedFd::from_raw_fd(descriptor) }),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => return Err(error),
                _ => None,
            },
        };
        Ok(Self { number, descriptor })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended, `EPERM` when it is another user's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let result = match &self.descriptor {
            Some(descriptor) => {
                let nothing = std::ptr::null::<libc::siginfo_t>();
                // SAFETY: pidfd_send_signal(2) takes numbers and no structure of ours.
                unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor.as_raw_fd(), signal.0, nothing, 0) }
            }
            // SAFETY: kill(2) takes two numbers.
            None => unsafe { libc::kill(self.number.as_raw(), signal.0) }.into(),
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
