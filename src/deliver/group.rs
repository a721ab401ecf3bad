//! A group of files: one directory whose files change together, as kubelet swaps a volume.
//!
//! ```text
//! tls/..2/tls.crt, tls/..2/tls.key   a generation
//! tls/..data -> ..2                  the one rename
//! tls/tls.crt -> ..data/tls.crt      what the program opens
//! ```
//!
//! Who opens `..data` once and then both files reads a pair, also when they are swapped in between: the earlier generation stays for a while.

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

/// A generation that is complete, and that nothing refers to yet. Dropped, it is gone.
pub struct Generation<'a> {
    directory: &'a Directory,
    /// The group's own directory, below ours.
    path: &'a str,
    /// What it is called in there.
    name: String,
    /// The names of the files.
    files: Vec<&'a str>,
    /// What has only to be renamed: temporary names in our directory, and those in the group's; the link to the current generation last.
    links: Vec<(String, &'a str)>,
    is_current: bool,
}

impl<'a> Generation<'a> {
    /// Writes the files of a group, and whatever else needs room; nothing when the current generation is right.
    pub fn stage(directory: &'a Directory, path: &'a str, wanted: &[Wanted<'a>]) -> Result<Option<Self>, Problem> {
        let failed = |what: &str, errno: Errno| problem(directory, path, what, errno);
        let group = directory.below(path)?;
        remove_superseded(&group);
        if is_right(&group, wanted) {
            return Ok(None);
        }
        let name = make_next(&group).map_err(|errno| failed("cannot be made", errno))?;
        // From here on an error removes it.
        let mut generation = Self { directory, path, name, files: Vec::new(), links: Vec::new(), is_current: false };
        let inside = open_directory(&group, &generation.name).map_err(|errno| failed("cannot be opened", errno))?;
        for Wanted { file, name, secret, owner } in wanted {
            let failed = |what: &str, errno: Errno| {
                let cause = format!("{what}: {}", errno.desc().to_lowercase());
                files::problem(directory, &file.path, &cause, errno).about(name)
            };
            let (_, own) = split(&file.path);
            let created = files::create(&inside, own).map_err(|errno| failed("cannot be made", errno))?;
            files::fill(created, secret.expose(), file.mode, *owner).map_err(|(what, errno)| failed(what, errno))?;
            generation.link(&group, own, &format!("{CURRENT}/{own}")).map_err(|errno| failed("cannot be replaced", errno))?;
            generation.files.push(own);
        }
        let target = generation.name.clone();
        generation.link(&group, CURRENT, &target).map_err(|errno| failed("cannot be replaced", errno))?;
        Ok(Some(generation))
    }

    /// Makes a link with a temporary name, unless it is there already.
    fn link(&mut self, group: &Below, name: &'a str, target: &str) -> Result<(), Errno> {
        if read_link(group, name).as_deref() == Some(target) {
            return Ok(());
        }
        // The one thing that a rename cannot replace, and then others would already have their new names.
        if kind(group, name) == SFlag::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        let (temporary, ()) = files::with_temporary_name(|temporary| nix::unistd::symlinkat(target, self.directory, temporary))?;
        self.links.push((temporary, name));
        Ok(())
    }

    /// Makes it the current one.
    pub fn commit(mut self) -> Result<(), Problem> {
        let directory = self.directory;
        let group = directory.below(self.path)?;
        // Now others may go through, which also tells that it is complete.
        let mode = Mode::from_bits_truncate(Directory::MODE_BELOW);
        open_directory(&group, &self.name)
            .and_then(|inside| nix::sys::stat::fchmod(inside, mode))
            .map_err(|errno| problem(directory, self.path, "its mode cannot be set", errno))?;
        // From now on it has been superseded. Before the swap, so that whoever comes between the two sees it too late rather than too early.
        if let Some(earlier) = current(&group) {
            let now = TimeSpec::UTIME_NOW;
            let _ = nix::sys::stat::utimensat(&group, earlier.as_str(), &now, &now, UtimensatFlags::NoFollowSymlink);
        }
        while let Some((temporary, name)) = self.links.last() {
            nix::fcntl::renameat(directory, temporary.as_str(), &group, *name)
                .map_err(|errno| problem(directory, self.path, "cannot be replaced", errno))?;
            self.is_current = true;
            self.links.pop();
        }
        for name in names(&group) {
            if !self.files.contains(&name.as_str()) && is_file_link(&group, &name) {
                let _ = nix::unistd::unlinkat(&group, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
        Ok(())
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        for (temporary, _) in &self.links {
            let _ = nix::unistd::unlinkat(self.directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        if !self.is_current
            && let Ok(group) = self.directory.below(self.path)
        {
            remove_directory(&group, &self.name);
        }
    }
}

/// Whether the current generation has the very files that are wanted, and each has its link.
fn is_right(group: &Below, wanted: &[Wanted]) -> bool {
    let Some(Ok(inside)) = current(group).map(|name| open_directory(group, &name)) else { return false };
    let inside = Below::Opened(inside);
    let is_there = |Wanted { file, secret, owner, .. }: &Wanted| {
        let (_, name) = split(&file.path);
        is_file_link(group, name) && files::is_right(&inside, name, secret.expose(), file.mode, *owner)
    };
    let links = names(group).iter().filter(|name| is_file_link(group, name)).count();
    links == wanted.len() && names(&inside).len() == wanted.len() && wanted.iter().all(is_there)
}

/// Makes the directory of the next generation, for us alone.
fn make_next(group: &Below) -> Result<String, Errno> {
    let mut next = names(group).iter().filter_map(|name| number(name)).max().unwrap_or(0);
    loop {
        next = next.wrapping_add(1);
        let name = format!("..{next}");
        match nix::sys::stat::mkdirat(group, name.as_str(), Mode::from_bits_truncate(0o700)) {
            // A start beside this one had the same number in mind.
            Err(Errno::EEXIST) => {}
            result => return result.map(|()| name),
        }
    }
}

/// Removes generations that nobody reads any more. Before another is written, so that it has their room.
fn remove_superseded(group: &Below) {
    let current = current(group);
    for name in names(group).iter().filter(|name| number(name).is_some() && current.as_ref() != Some(name)) {
        if is_long_superseded(group, name) {
            remove_directory(group, name);
        }
    }
}

/// Removes generations that never were complete: a start left them that was killed. There must be no other start beside this one.
pub fn sweep(group: &Below) {
    for name in names(group).iter().filter(|name| number(name).is_some()) {
        if status(group, name).is_some_and(|status| !is_complete(&status)) {
            remove_directory(group, name);
        }
    }
}

/// Removes all that is ours in the directory of a group.
pub fn empty(group: &Below) {
    for name in names(group) {
        if number(&name).is_some() {
            remove_directory(group, &name);
        } else if is_file_link(group, &name) || name == CURRENT {
            let _ = nix::unistd::unlinkat(group, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Removes a generation with the files in it. That it cannot be removed harms nobody.
fn remove_directory(group: &Below, name: &str) {
    let Ok(inside) = open_directory(group, name) else { return };
    for file in names(&inside) {
        let _ = nix::unistd::unlinkat(&inside, file.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    let _ = nix::unistd::unlinkat(group, name, UnlinkatFlags::RemoveDir);
}

fn current(group: &Below) -> Option<String> {
    read_link(group, CURRENT).filter(|name| number(name).is_some())
}

/// The number of a generation, if a name is one's.
fn number(name: &str) -> Option<u64> {
    name.strip_prefix("..").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Whether a name is a link of ours to a file of the current generation.
fn is_file_link(group: &Below, name: &str) -> bool {
    read_link(group, name).is_some_and(|target| target.strip_prefix(CURRENT) == Some(&format!("/{name}")))
}

fn read_link(group: &Below, name: &str) -> Option<String> {
    nix::fcntl::readlinkat(group, name).ok()?.into_string().ok()
}

/// What there is to know of a directory; none of anything else.
fn status(group: &Below, name: &str) -> Option<FileStat> {
    let status = nix::sys::stat::fstatat(group, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    (SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR).then_some(status)
}

fn is_complete(generation: &FileStat) -> bool {
    generation.st_mode & 0o077 != 0
}

/// A generation's time is that of its end, which [`Generation::commit`] gives to it. One that is not complete has none: it may still be made. It is the wall clock's
/// time, the only one that a file keeps: a clock that is set forward meanwhile ends the wait early.
fn is_long_superseded(group: &Below, name: &str) -> bool {
    let Some(status) = status(group, name).filter(is_complete) else { return false };
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(status.st_mtime).unwrap_or(0) + 1);
    SystemTime::now().duration_since(end).is_ok_and(|since| since >= KEPT)
}

fn problem(directory: &Directory, path: &str, what: &str, errno: Errno) -> Problem {
    files::problem(directory, path, &format!("{what}: {}", errno.desc().to_lowercase()), errno)
}
