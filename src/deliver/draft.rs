//! What is not to be seen yet: a directory in ours in which files lie as they will lie in it, until each is moved to its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::FlockArg;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, UnlinkatFlags};

use super::directory::{Below, Directory, make_directory, names, open_directory, split, walk};
use super::files;
use crate::report::Problem;
use crate::sys::lock;
use crate::user::Ownership;

/// A directory that we alone can go into. Dropped, it is gone with whatever is still in it.
pub struct Draft<'a> {
    /// The directory that it is in.
    pub directory: &'a Directory,
    /// What it is called in there.
    pub name: String,
    /// Locked: so one that a killed process left can be told from one that is being written.
    opened: OwnedFd,
    links: u32,
    /// The directories that were made for what is in it, the deepest first.
    made: Vec<String>,
}

/// What the names of drafts begin and end with.
const NAMES: (&str, &str) = (".secret-init-", ".tmp");

impl<'a> Draft<'a> {
    /// Makes an empty one.
    pub fn new(directory: &'a Directory) -> Result<Self, Errno> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}{process}-{number}{}", NAMES.0, NAMES.1);
            match make(directory, &name) {
                // A start in another container that shares the directory may have our process number; or it was taken for one that was left.
                Err(Errno::EEXIST) if number < u32::MAX => {}
                made => return made.map(|opened| Self { directory, name, opened, links: 0, made: Vec::new() }),
            }
        }
    }

    /// Makes the directory in ours that something of the draft will be moved to, which must not fail for want of room then.
    pub fn prepare(&mut self, path: &str) -> Result<(), Problem> {
        let mut missing = path;
        while !missing.is_empty() && matches!(self.directory.walk(missing, open_directory), Err(Errno::ENOENT)) {
            self.made.push(missing.to_owned());
            (missing, _) = split(missing);
        }
        self.directory.below(path).map(drop)
    }

    /// Writes a file where it will lie in our directory.
    pub fn write(&self, path: &str, content: &[u8], mode: u32, owner: Option<Ownership>) -> Result<(), (&'static str, Errno)> {
        let (parent, name) = split(path);
        let file = self.below(parent).and_then(|parent| files::create(&parent, name));
        files::fill(file.map_err(|errno| ("cannot be made", errno))?, content, mode, owner)
    }

    /// Makes a directory in it, at whatever depth, and those above it.
    pub fn below(&self, path: &str) -> Result<Below<'_>, Errno> {
        walk(self.as_fd(), path, make_directory)
    }

    /// Makes a link, and gives the name that it has for now: one that no file of ours can have.
    pub fn link(&mut self, target: &str) -> Result<String, Errno> {
        let name = format!("..{}", self.links);
        self.links += 1;
        nix::unistd::symlinkat(target, &self.opened, name.as_str()).map(|()| name)
    }

    /// Moves something to its place.
    pub fn publish(&self, from: &str, parent: &Below, name: &str) -> Result<(), Errno> {
        nix::fcntl::renameat(&self.opened, from, parent, name)
    }

    /// What was made for it is of use now.
    pub fn keep_prepared(&mut self) {
        self.made.clear();
    }

    /// Lets the users of a group in, as far as the files do.
    pub fn open_to(&self, group: u32) -> Result<(), (&'static str, Errno)> {
        nix::unistd::fchown(&self.opened, None, Some(Gid::from_raw(group))).map_err(|errno| ("its group cannot be set", errno))?;
        nix::sys::stat::fchmod(&self.opened, Mode::from_bits_truncate(0o710)).map_err(|errno| ("its mode cannot be set", errno))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        remove(&Below::Itself(self.directory.as_fd()), &self.name);
        for path in &self.made {
            let (parent, name) = split(path);
            if let Ok(parent) = self.directory.walk(parent, open_directory) {
                // It fails for those that something was moved to before something else failed, as it should.
                let _ = nix::unistd::unlinkat(&parent, name, UnlinkatFlags::RemoveDir);
            }
        }
    }
}

impl AsFd for Draft<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.as_fd()
    }
}

fn make(directory: &Directory, name: &str) -> Result<OwnedFd, Errno> {
    nix::sys::stat::mkdirat(directory, name, Mode::from_bits_truncate(0o700))?;
    let opened = open_directory(&Below::Itself(directory.as_fd()), name).inspect_err(|_| {
        let _ = nix::unistd::unlinkat(directory, name, UnlinkatFlags::RemoveDir);
    })?;
    // Until it is locked another takes it for one that was left.
    let is_taken = lock::flock(&opened, FlockArg::LockExclusiveNonblock) == Err(Errno::EWOULDBLOCK);
    let is_gone = nix::sys::stat::fstat(&opened).is_ok_and(|status| status.st_nlink == 0);
    if is_taken || is_gone { Err(Errno::EEXIST) } else { Ok(opened) }
}

/// Removes what killed processes left.
pub fn sweep(directory: &Directory) {
    let below = Below::Itself(directory.as_fd());
    for name in names(directory).iter().filter(|name| name.starts_with(NAMES.0) && name.ends_with(NAMES.1)) {
        match open_directory(&below, name) {
            Ok(left) if lock::flock(&left, FlockArg::LockExclusiveNonblock).is_ok() => remove(&below, name),
            Ok(_) => {}
            Err(_) => {
                let _ = nix::unistd::unlinkat(directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
    }
}

/// Removes a directory with all that is in it. That it cannot be removed harms nobody.
pub fn remove(parent: &Below, name: &str) {
    // Most are empty by then.
    if nix::unistd::unlinkat(parent, name, UnlinkatFlags::RemoveDir).is_ok() {
        return;
    }
    let Ok(inside) = open_directory(parent, name).map(Below::Opened) else { return };
    for name in names(&inside) {
        if nix::unistd::unlinkat(&inside, name.as_str(), UnlinkatFlags::NoRemoveDir).is_err() {
            remove(&inside, &name);
        }
    }
    let _ = nix::unistd::unlinkat(parent, name, UnlinkatFlags::RemoveDir);
}
