//! A group of files: one directory whose files change together, as kubelet swaps a volume.
//!
//! ```text
//! tls/..2/tls.crt, tls/..2/tls.key   a generation
//! tls/..data -> ..2                  the one rename
//! tls/tls.crt -> ..data/tls.crt      what the program opens
//! ```
//!
//! Who opens `..data` once and then both files reads a pair, also when they are swapped in between: the earlier generation stays for a while.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::UnlinkatFlags;

use super::directory::{Below, Directory, kind, names, open_directory, split};
use super::files::{self, Wanted};
use crate::report::Problem;

/// The link to the current generation.
const CURRENT: &str = "..data";
/// How long an earlier generation stays at least, for those who read it when it was the current one.
const KEPT: Duration = Duration::from_secs(30);

/// Files that are complete, in a directory with a temporary name. Dropped, they are gone.
pub struct Generation<'a> {
    directory: &'a Directory,
    /// The group's own directory, below ours.
    path: &'a str,
    /// The names of the files.
    names: Vec<&'a str>,
    temporary: Option<String>,
}

impl<'a> Generation<'a> {
    /// Writes the files of a group.
    pub fn stage(directory: &'a Directory, path: &'a str, wanted: &[Wanted<'a>]) -> Result<Self, Problem> {
        let failed = |what: &str, errno: Errno| problem(directory, path, what, errno);
        let group = directory.below(path)?;
        // The owner may write, until it is complete; then others may go through.
        let make = |name: &str| nix::sys::stat::mkdirat(directory, name, Mode::from_bits_truncate(0o700));
        let (temporary, ()) = files::with_temporary_name(make).map_err(|errno| failed("cannot be made", errno))?;
        let mut generation = Self { directory, path, names: Vec::new(), temporary: Some(temporary.clone()) };
        let inside = open_directory(&Below::Itself(directory.as_fd()), &temporary).map_err(|errno| failed("cannot be opened", errno))?;
        for Wanted { file, name, secret, owner } in wanted {
            let failed = |what: &str, errno: Errno| {
                let cause = format!("{what}: {}", errno.desc().to_lowercase());
                files::problem(directory, &file.path, &cause, errno).about(name)
            };
            let (_, own) = split(&file.path);
            let created = files::create(&inside, own).map_err(|errno| failed("cannot be made", errno))?;
            files::fill(created, secret.expose(), file.mode, *owner).map_err(|(what, errno)| failed(what, errno))?;
            if kind(&group, own) == SFlag::S_IFDIR {
                return Err(failed("cannot be replaced", Errno::EISDIR));
            }
            generation.names.push(own);
        }
        let mode = Mode::from_bits_truncate(Directory::MODE_BELOW);
        nix::sys::stat::fchmod(&inside, mode).map_err(|errno| failed("its mode cannot be set", errno))?;
        Ok(generation)
    }

    /// Makes it the current one.
    pub fn commit(mut self) -> Result<(), Problem> {
        let Self { directory, path, .. } = self;
        let failed = |errno: Errno| problem(directory, path, "cannot be replaced", errno);
        let group = directory.below(path)?;
        let number = self.take_its_number(&group).map_err(failed)?;
        // From now on it has been superseded. Before the swap, so that whoever comes between the two sees it too late rather than too early.
        if let Some(earlier) = current(&group) {
            let now = TimeSpec::UTIME_NOW;
            let _ = nix::sys::stat::utimensat(&group, earlier.as_str(), &now, &now, UtimensatFlags::NoFollowSymlink);
        }
        link(directory, &group, &number, CURRENT).map_err(failed)?;
        for &name in &self.names {
            let target = format!("{CURRENT}/{name}");
            if read_link(&group, name).as_ref() != Some(&target) {
                link(directory, &group, &target, name).map_err(failed)?;
            }
        }
        let is_left_over = |name: &str| !self.names.contains(&name) && is_file_link(&group, name);
        for name in names(&group) {
            if is_left_over(&name) {
                let _ = nix::unistd::unlinkat(&group, name.as_str(), UnlinkatFlags::NoRemoveDir);
            } else if is_generation(&name) && name != number && is_long_superseded(&group, &name) {
                remove_directory(&group, &name);
            }
        }
        Ok(())
    }

    /// Gives it the next number as its name.
    fn take_its_number(&mut self, group: &Below) -> Result<String, Errno> {
        let Some(temporary) = self.temporary.as_deref() else { return Err(Errno::ENOENT) };
        let numbers = names(group).into_iter().filter_map(|name| name.strip_prefix("..")?.parse::<u64>().ok());
        let mut number = numbers.max().unwrap_or(0);
        loop {
            number = number.wrapping_add(1);
            let name = format!("..{number}");
            // A directory takes the place of an empty one alone, and a start beside this one had the same number in mind.
            match nix::fcntl::renameat(self.directory, temporary, group, name.as_str()) {
                Err(Errno::EEXIST | Errno::ENOTEMPTY) => {}
                Err(errno) => return Err(errno),
                Ok(()) => {
                    self.temporary = None;
                    return Ok(name);
                }
            }
        }
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            remove_directory(self.directory, temporary);
        }
    }
}

/// Removes all that is ours in the directory of a group.
pub fn empty(group: &Below) {
    for name in names(group) {
        if is_generation(&name) {
            remove_directory(group, &name);
        } else if is_file_link(group, &name) || name == CURRENT {
            let _ = nix::unistd::unlinkat(group, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Removes a directory of ours with the files in it. That it cannot be removed harms nobody.
pub fn remove_directory(parent: impl AsFd, name: &str) {
    let Ok(inside) = open_directory(&Below::Itself(parent.as_fd()), name) else { return };
    for file in names(&inside) {
        let _ = nix::unistd::unlinkat(&inside, file.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    let _ = nix::unistd::unlinkat(&parent, name, UnlinkatFlags::RemoveDir);
}

/// Makes a link, in place of what has its name.
fn link(directory: &Directory, group: &Below, target: &str, name: &str) -> Result<(), Errno> {
    let make = |temporary: &str| nix::unistd::symlinkat(target, directory, temporary);
    let (temporary, ()) = files::with_temporary_name(make)?;
    nix::fcntl::renameat(directory, temporary.as_str(), group, name).inspect_err(|_| {
        let _ = nix::unistd::unlinkat(directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    })
}

fn current(group: &Below) -> Option<String> {
    read_link(group, CURRENT).filter(|name| is_generation(name))
}

fn is_generation(name: &str) -> bool {
    name.strip_prefix("..").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a name is a link of ours to a file of the current generation.
fn is_file_link(group: &Below, name: &str) -> bool {
    read_link(group, name).is_some_and(|target| target.strip_prefix(CURRENT) == Some(&format!("/{name}")))
}

fn read_link(group: &Below, name: &str) -> Option<String> {
    nix::fcntl::readlinkat(group, name).ok()?.into_string().ok()
}

/// A generation's time is that of its end, which [`Generation::commit`] gives to it.
fn is_long_superseded(group: &Below, name: &str) -> bool {
    let Ok(FileStat { st_mode, st_mtime, .. }) = nix::sys::stat::fstatat(group, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return false };
    let is_directory = SFlag::from_bits_truncate(st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(st_mtime).unwrap_or(0) + 1);
    is_directory && SystemTime::now().duration_since(end).is_ok_and(|since| since >= KEPT)
}

fn problem(directory: &Directory, path: &str, what: &str, errno: Errno) -> Problem {
    files::problem(directory, path, &format!("{what}: {}", errno.desc().to_lowercase()), errno)
}
