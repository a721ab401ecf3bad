//! What supervisor and runner tell each other until the program runs.
//!
//! A socket pair that exec closes tells the supervisor how the start went: its end means that the program runs, a message that it does not. And a pipe holds one
//! token, which only one of the two can take: the runner before it becomes the program, the supervisor before it ends the start. So a signal that comes in between
//! is either an end of the start or is forwarded to the program, and never lost.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use crate::sys::descriptor;

/// The supervisor's side.
pub struct Watcher {
    socket: OwnedFd,
    token: OwnedFd,
}

/// The runner's side.
pub struct Starter {
    socket: OwnedFd,
    token: OwnedFd,
}

/// What a [`Watcher`] hears.
#[derive(Debug)]
pub enum Heard {
    /// The other side is closed: the program runs, or the runner died.
    Closed,
    /// The start failed, was told to the user, and ends with this code.
    Failed(u8),
    /// A descriptor to keep open as long as the program runs.
    Keep(OwnedFd),
    /// What was delivered, in a file in memory: another process is to become the program with it.
    HandedOver(OwnedFd),
    /// Nothing yet.
    Nothing,
}

const TOKEN: [u8; 1] = [b'T'];
/// The messages with a descriptor; all others are exit codes, which are never these.
const KEEP: u8 = 0;
const HAND_OVER: u8 = 1;

/// Makes both sides. Each is to be dropped in the process that the other belongs to.
///
/// # Errors
///
/// When there are no descriptors left.
pub fn pair() -> io::Result<(Watcher, Starter)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    nix::unistd::write(&into, &TOKEN)?;
    let token = out.try_clone()?;
    Ok((Watcher { socket: ours, token: out }, Starter { socket: theirs, token }))
}

/// Takes the token, if it is still there.
fn take(token: &OwnedFd) -> bool {
    nix::unistd::read(token, &mut [0]) == Ok(1)
}

impl Watcher {
    /// Tries to end the start; false when the runner is about to become the program, or has.
    #[must_use]
    pub fn abort(&self) -> bool {
        take(&self.token)
    }

    /// Takes one message, without waiting.
    #[must_use]
    pub fn hear(&self) -> Heard {
        match descriptor::receive(&self.socket) {
            Err(Errno::EAGAIN | Errno::EINTR) | Ok((Some(KEEP | HAND_OVER), None)) => Heard::Nothing,
            Err(_) | Ok((None, _)) => Heard::Closed,
            Ok((Some(KEEP), Some(descriptor))) => Heard::Keep(descriptor),
            Ok((Some(HAND_OVER), Some(delivered))) => Heard::HandedOver(delivered),
            Ok((Some(code), _)) => Heard::Failed(code),
        }
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Starter {
    /// Tells that the start failed with this code, which has been explained to the user.
    pub fn fail(&self, code: u8) {
        self.send(code, &[]);
    }

    /// Asks the supervisor to keep a descriptor open as long as the program runs.
    pub fn keep(&self, descriptor: &OwnedFd) {
        self.send(KEEP, &[descriptor.as_raw_fd()]);
    }

    /// Gives what was delivered to the supervisor, which does not look into it, for the process that becomes the program.
    pub fn hand_over(&self, delivered: &OwnedFd) {
        self.send(HAND_OVER, &[delivered.as_raw_fd()]);
    }

    /// Before the program: from here on signals go to it. False when the supervisor has ended the start.
    #[must_use]
    pub fn commit(&self) -> bool {
        take(&self.token)
    }

    /// A supervisor that is gone takes us with it soon enough: PID 1's end is everybody's.
    fn send(&self, byte: u8, descriptors: &[i32]) {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        let _ = sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&[byte])], control, MsgFlags::MSG_NOSIGNAL, None);
    }
}
