//! File descriptors that must be closed, or open.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

/// Opens `/dev/null` in place of each of stdin, stdout and stderr that is closed, so that no descriptor of ours gets its number.
/// Exec closes them again: the program finds what we found.
pub fn fill_standard() {
    // open(2) gives the lowest free number: each one below 3 fills a gap.
    while [0, 1, 2].iter().any(|&number| !is_open(number)) {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        match nix::fcntl::open("/dev/null", flags, Mode::empty()) {
            // It stays open until exec closes it.
            Ok(opened) => drop(std::os::fd::IntoRawFd::into_raw_fd(opened)),
            Err(_) => return,
        }
    }
}

/// Stdin, stdout or stderr, by its number below 3.
#[must_use]
pub fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `fill_standard` made sure that they are open, and nothing of ours closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Takes over a descriptor that the kernel just made for us, such as one that came in a message.
#[must_use]
pub fn own(number: RawFd) -> OwnedFd {
    // SAFETY: the caller has the number from the kernel, and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
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
    if result == 0 || Errno::last() != Errno::ENOSYS {
        return;
    }
    // Before Linux 5.9: one by one, up to what the limit allows.
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    for number in first..=last.min(u32::try_from(limit).unwrap_or(65_536)) {
        if let Ok(number) = RawFd::try_from(number) {
            // SAFETY: as above.
            unsafe { libc::close(number) };
        }
    }
}
