//! Locks that belong to an open file: they last as long as a copy of its descriptor is open, in whatever process.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FlockArg, fcntl};

/// Takes, shares or gives up the lock of an open file.
///
/// # Errors
///
/// `EWOULDBLOCK` when another has it.
#[allow(deprecated, reason = "nix's Flock would tie the lock to a value, and it belongs to a descriptor that goes to another process")]
pub fn flock(file: impl AsFd, how: FlockArg) -> Result<(), Errno> {
    nix::fcntl::flock(file.as_fd().as_raw_fd(), how)
}

/// Leaves a mark on an open file, which several may do. It is a lock beside that of [`flock`], and in nobody's way.
///
/// # Errors
///
/// `EINVAL` and the like where the kernel does not know such locks.
pub fn mark(file: impl AsFd) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&first_byte(libc::F_RDLCK))).map(drop)
}

/// Whether somebody else has left a mark.
#[must_use]
pub fn is_marked_by_another(file: impl AsFd) -> bool {
    let mut wanted = first_byte(libc::F_WRLCK);
    let free = first_byte(libc::F_UNLCK).l_type;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted)).is_ok() && wanted.l_type != free
}

/// What fcntl(2) is told: a lock of this kind on the first byte. A directory has no bytes, and they can be locked all the same.
fn first_byte(kind: i32) -> libc::flock {
    let number = |number: i32| i16::try_from(number).unwrap_or_default();
    libc::flock { l_type: number(kind), l_whence: number(libc::SEEK_SET), l_start: 0, l_len: 1, l_pid: 0 }
}
