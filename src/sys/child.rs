//! What a program finds that we start beside our own.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::unistd::{Gid, Uid};

use super::signal::{self, Mask};

/// The user of a child, and all its groups.
pub struct User {
    /// The user's number.
    pub uid: Uid,
    /// The group's number.
    pub gid: Gid,
    /// The supplementary groups.
    pub groups: Vec<Gid>,
}

/// Lets a child have its signals, which are blocked in us, none of our descriptors but the three standard ones, and its own user if it has one.
pub fn prepare(command: &mut Command, user: Option<User>) {
    let before_exec = move || {
        signal::set_mask(Mask::NONE);
        // SAFETY: close_range(2) takes numbers; with this flag it closes nothing before exec. A kernel that does not know it leaves what was made without O_CLOEXEC.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        match &user {
            Some(user) => become_it(user),
            None => Ok(()),
        }
    };
    // SAFETY: between fork and exec the closure makes system calls alone, on memory that was there before.
    unsafe { command.pre_exec(before_exec) };
}

/// `Command::uid` would drop the supplementary groups.
fn become_it(user: &User) -> io::Result<()> {
    nix::unistd::setgroups(&user.groups)?;
    nix::unistd::setresgid(user.gid, user.gid, user.gid)?;
    nix::unistd::setresuid(user.uid, user.uid, user.uid)?;
    Ok(())
}
