//! File descriptors that must be closed, or open.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::stat::Mode;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Opens `/dev/null` in place of each of stdin, stdout and stderr that is closed, so that no descriptor of ours gets its number.
/// Exec closes them again: the program finds what we found.
pub fn fill_standard() {
    // The kernel gives the lowest free number: each one below 3 fills a gap, and stays open until exec.
    while [0, 1, 2].iter().any(|&number| !is_open(number)) {
        let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        // An image may have no /dev: a file in memory does it too.
        let Ok(filler) = null.or_else(|_| nix::sys::memfd::memfd_create(c"", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)) else { return };
        let _ = filler.into_raw_fd();
    }
}

/// The size of a message.
pub const FRAME: usize = 8;

/// So many descriptors the kernel passes on in one message (`SCM_MAX_FD`): with less room than for all, some would be ours that nobody names.
const MOST_RIGHTS: usize = 253;

/// The bytes of a message, and the descriptors that came with it, the first ones first.
pub type Message = ([u8; FRAME], [Option<OwnedFd>; 2]);

/// Takes one message from a socket, without waiting, and the descriptors that came with it; nothing when the other side is closed. One that is shorter ends in zeros, and
/// of more descriptors than two the others are closed.
///
/// # Errors
///
/// `EAGAIN` when there is none yet.
pub fn receive(socket: &OwnedFd) -> Result<Option<Message>, Errno> {
    let mut frame = [0; FRAME];
    let mut control = nix::cmsg_space!([RawFd; MOST_RIGHTS]);
    let mut parts = [IoSliceMut::new(&mut frame)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let mut descriptors = [None, None];
    // There is none when no number was left for it.
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            for number in numbers {
                // SAFETY: the kernel made this number for us as it gave us the message, and nothing else owns it.
                let taken = unsafe { OwnedFd::from_raw_fd(number) };
                if let Some(place) = descriptors.iter_mut().find(|place| place.is_none()) {
                    *place = Some(taken);
                }
            }
        }
    }
    Ok((length > 0).then_some((frame, descriptors)))
}

/// Makes a descriptor one that can be waited for until it is readable, within a runtime.
///
/// # Errors
///
/// When the kernel has no room for it, or it is a file, which is always readable.
pub fn readable(descriptor: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has the same number, and keeps it open, as long as it lives; it lives in the `AsyncFd`.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Takes every name in a directory that was just opened, `.` and `..` too, as far as it can be read. Unlike readdir(3) it holds no more of thousands of names than of a few.
pub fn each_name(directory: &OwnedFd, mut take: impl FnMut(&CStr)) {
    // Of a `struct linux_dirent64`, see getdents64(2): where its length stands, and its name.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut buffer = [0_u8; 4096];
    loop {
        // SAFETY: the kernel writes no more than the buffer holds.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
        let Some(mut entries) = usize::try_from(read).ok().filter(|&read| read > 0).and_then(|read| buffer.get(..read)) else { return };
        while let Some(&[low, high]) = entries.get(LENGTH..NAME - 1) {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let Some((entry, rest)) = entries.split_at_checked(length).filter(|_| length > NAME) else { return };
            if let Ok(name) = CStr::from_bytes_until_nul(&entry[NAME..]) {
                take(name);
            }
            entries = rest;
        }
    }
}

fn is_open(number: RawFd) -> bool {
    // SAFETY: fcntl(F_GETFD) only asks about a number, whatever it is.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Closes every descriptor from 3 on but those to keep.
pub fn close_all_but<const COUNT: usize>(keep: [Option<BorrowedFd<'_>>; COUNT]) {
    // None is as good as stdin, which is kept anyway.
    let mut kept = keep.map(|fd| fd.and_then(|fd| u32::try_from(fd.as_raw_fd()).ok()).unwrap_or(0));
    kept.sort_unstable();
    let mut first = 3;
    for number in kept {
        if number > first {
            close_range(first, number - 1);
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    // SAFETY: the caller of `close_all_but` names every descriptor that something of ours still owns.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        return;
    }
    // Before Linux 5.9, or below a seccomp filter that does not know the call: one by one, up to what the limit allows.
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    for number in first..=last.min(u32::try_from(limit).unwrap_or(65_536)) {
        if let Ok(number) = RawFd::try_from(number) {
            // SAFETY: as above.
            unsafe { libc::close(number) };
        }
    }
}
