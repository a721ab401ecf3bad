//! Secret files: what makes one right, and how one is made.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid};

use super::directory::{Below, Directory};
use crate::plan::File;
use crate::report::{Code, Problem, printable};
use crate::secret::Secret;
use crate::store::LARGEST;
use crate::user::Ownership;

/// One file and what is to be in it.
pub struct Wanted<'plan, 'value> {
    /// Where, and with which mode.
    pub file: &'plan File,
    /// What messages call it.
    pub name: &'plan str,
    /// The content.
    pub secret: &'value Secret,
    /// Who it will belong to; none is our own user.
    pub owner: Option<Ownership>,
}

/// Whether a file has these bytes already, this mode, this owner, and no other name.
pub fn is_right(parent: &Below, name: &str, content: &[u8], mode: u32, owner: Option<Ownership>) -> bool {
    self::content(parent, name, mode, owner).is_ok_and(|there| there.is_some_and(|there| there.expose() == content))
}

/// What is in a file; nothing when there is none, or it is not as we make it: of this mode and this owner, and without another name.
pub fn content(parent: &Below, name: &str, mode: u32, owner: Option<Ownership>) -> Result<Option<Secret>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match nix::fcntl::openat(parent, name, flags, Mode::empty()) {
        // Root without the capability DAC_OVERRIDE may not read what it gave away.
        Err(Errno::EACCES) => return Err(Errno::EACCES),
        Err(_) => return Ok(None),
        Ok(file) => file,
    };
    let status = nix::sys::stat::fstat(&file)?;
    let is_owned = match owner {
        Some(owner) => owner == Ownership { uid: status.st_uid, gid: status.st_gid },
        None => status.st_uid == nix::unistd::geteuid().as_raw(),
    };
    let is_as_we_make_it = status.st_mode == SFlag::S_IFREG.bits() | mode && status.st_nlink == 1 && is_owned;
    let length = usize::try_from(status.st_size).ok().filter(|&length| is_as_we_make_it && length <= LARGEST);
    let mut content = Secret::new(vec![0; length.unwrap_or(0)]);
    let is_whole = length.is_some() && std::fs::File::from(file).read_exact(content.expose_mut()).is_ok();
    Ok(is_whole.then_some(content))
}

/// Makes a file that was not there before, readable for us alone.
pub fn create(directory: impl AsFd, name: &str) -> Result<std::fs::File, Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(directory, name, flags, Mode::from_bits_truncate(0o600)).map(std::fs::File::from)
}

/// Writes the content and gives the file away; the error is what cannot be done.
pub fn fill(mut file: std::fs::File, content: &[u8], mode: u32, owner: Option<Ownership>) -> Result<(), (&'static str, Errno)> {
    file.write_all(content).map_err(|error| ("cannot be written", error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
    let owner = owner.filter(|owner| !owner.is_current());
    // First the group, then the mode, then the user: at no moment may a group read it that will not later, and a file that was given away
    // cannot be changed without CAP_FOWNER.
    if let Some(owner) = owner {
        nix::unistd::fchown(&file, None, Some(Gid::from_raw(owner.gid))).map_err(|errno| ("its group cannot be set", errno))?;
    }
    nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode)).map_err(|errno| ("its mode cannot be set", errno))?;
    if let Some(owner) = owner {
        nix::unistd::fchown(&file, Some(Uid::from_raw(owner.uid)), None).map_err(|errno| ("its owner cannot be set", errno))?;
    }
    Ok(())
}

/// A problem with a file of the directory, by its path below it: what cannot be done, and why.
pub fn problem(directory: &Directory, path: &str, what: &str, errno: Errno) -> Problem {
    let cause = format!("{what}: {}", errno.desc().to_lowercase());
    let path = printable(directory.path.join(path).as_os_str().as_encoded_bytes()).into_owned();
    let problem = Problem::new(Code::CannotWrite, cause).about(path);
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            problem.hint("make the tmpfs larger (size=…), or deliver less: a file that is replaced needs its room twice, a group three times within 30 s")
        }
        Errno::EPERM | Errno::EACCES => problem.hint("the directory must be writable for us; with --user, keep the capability CHOWN"),
        Errno::EISDIR | Errno::ENOTEMPTY => problem.hint("a directory has this name; remove it"),
        Errno::ENOTDIR | Errno::ELOOP => problem.hint("a file or a link has the name of the directory; remove it"),
        _ => problem,
    }
}
