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
use nix::sys::stat::{FileStat, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::UnlinkatFlags;

use super::directory::{Below, Directory, each, kind, list, names, open_directory, split};
use super::draft::{self, Draft};
use super::files::{self, Wanted};
use crate::plan::File;
use crate::report::Problem;
use crate::secret::Secret;
use crate::user::Ownership;

/// The link to the current generation.
const CURRENT: &str = "..data";
/// How long an earlier generation stays at least, for those who read it when it was the current one.
const KEPT: Duration = Duration::from_secs(30);

/// A generation that is complete, and that nobody sees yet: it lies in a draft.
pub struct Generation<'a> {
    /// The group's own directory, below ours, and the generation in the draft.
    path: &'a str,
    /// What it will be called.
    number: u64,
    /// The names of the files.
    files: Vec<&'a str>,
    /// The link to it, by its name in the draft.
    current: String,
    /// The links to its files that are not there already, and their names.
    links: Vec<(String, &'a str)>,
}

impl<'a> Generation<'a> {
    /// Writes the files of a group, and whatever else needs room.
    pub fn write(draft: &mut Draft, path: &'a str, wanted: &[Wanted<'a, '_>]) -> Result<Self, Problem> {
        let directory = draft.directory;
        let failed = |what: &str, errno: Errno| files::problem(directory, path, what, errno);
        draft.prepare(path)?;
        let group = directory.below(path)?;
        draft.below(path).map_err(|errno| failed("cannot be made", errno))?;
        let mut number = 0;
        each_generation(&group, |other| number = other.max(number));
        let number = number.wrapping_add(1);
        let replace = |errno: Errno| failed("cannot be replaced", errno);
        let current = link(draft, &group, CURRENT, &format!("..{number}")).map_err(replace)?;
        let mut generation = Self { path, number, files: Vec::new(), current, links: Vec::new() };
        for Wanted { file, name, secret, owner } in wanted {
            let failed = |(what, errno): (&str, Errno)| files::problem(directory, &file.path, what, errno).about(name);
            draft.write(&file.path, secret.expose(), file.mode, *owner).map_err(failed)?;
            let (_, own) = split(&file.path);
            generation.files.push(own);
            if !is_file_link(&group, own) {
                let link = link(draft, &group, own, &format!("{CURRENT}/{own}")).map_err(|errno| failed(("cannot be replaced", errno)))?;
                generation.links.push((link, own));
            }
        }
        Ok(generation)
    }

    /// Makes it the current one.
    pub fn commit(mut self, draft: &mut Draft) -> Result<(), Problem> {
        let group = draft.directory.below(self.path)?;
        let failed = |errno: Errno| files::problem(draft.directory, self.path, "cannot be replaced", errno);
        let earlier = current(&group);
        self.give_name(draft, &group).map_err(failed)?;
        // From now on it has been superseded. Before the swap, so that whoever comes between the two sees it too late rather than too early.
        if let Some(earlier) = earlier {
            touch(&group, &earlier);
        }
        draft.publish(&self.current, &group, CURRENT).map_err(failed)?;
        for (link, name) in &self.links {
            draft.publish(link, &group, name).map_err(failed)?;
        }
        for name in files_of(&group) {
            if !self.files.contains(&name.as_str()) && is_file_link(&group, &name) {
                let _ = nix::unistd::unlinkat(&group, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
        }
        Ok(())
    }

    /// Moves it to where the link to it will lead.
    fn give_name(&mut self, draft: &mut Draft, group: &Below) -> Result<(), Errno> {
        // Nobody refers to it for another moment, and it is not to be taken for one that is long superseded.
        touch(draft.as_fd(), self.path);
        loop {
            match draft.publish(self.path, group, &format!("..{}", self.number)) {
                // A start beside this one had the same number in mind.
                Err(Errno::EEXIST | Errno::ENOTEMPTY) => {
                    self.number = self.number.wrapping_add(1);
                    self.current = draft.link(&format!("..{}", self.number))?;
                }
                result => return result,
            }
        }
    }
}

/// Makes a link in the draft, to be moved to a name of the group.
fn link(draft: &mut Draft, group: &Below, name: &str, target: &str) -> Result<String, Errno> {
    // The one thing that a rename cannot replace, and then others would already have their new names.
    if kind(group, name) == SFlag::S_IFDIR { Err(Errno::EISDIR) } else { draft.link(target) }
}

/// Whether the current generation has the very files that are wanted, and each has its link.
pub fn is_right(group: &Below, wanted: &[Wanted]) -> bool {
    let Some(inside) = open_current(group) else { return false };
    let is_there = |Wanted { file, secret, owner, .. }: &Wanted| {
        let (_, name) = split(&file.path);
        is_file_link(group, name) && files::is_right(&inside, name, secret.expose(), file.mode, *owner)
    };
    let links = files_of(group).iter().filter(|name| is_file_link(group, name)).count();
    links == wanted.len() && names(&inside).len() == wanted.len() && wanted.iter().all(is_there)
}

/// What is in a file of the current generation; nothing when there is none, or it is not as we make it.
pub fn content(directory: &Directory, file: &File, owner: Option<Ownership>) -> Result<Option<Secret>, Problem> {
    let (parent, name) = split(&file.path);
    let current = directory.walk(parent, open_directory).ok().and_then(|group| open_current(&group));
    let Some(current) = current else { return Ok(None) };
    files::content(&current, name, file.mode, owner).map_err(|errno| {
        files::problem(directory, &file.path, "cannot be read", errno)
            .hint("what was given to the program's user takes the capability DAC_OVERRIDE")
    })
}

/// Removes generations that nobody reads any more, and tells when the next can go.
pub fn remove_superseded(group: &Below) -> Option<Duration> {
    let current = current(group);
    let mut next: Option<Duration> = None;
    each_generation(group, |number| {
        let name = format!("..{number}");
        if current.as_ref() == Some(&name) {
            return;
        }
        match status(group, &name).map(|status| left_of(&status)) {
            Some(Duration::ZERO) => draft::remove(group, &name),
            Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
            None => {}
        }
    });
    next
}

/// Removes all that is ours in the directory of a group.
pub fn empty(group: &Below) {
    for name in names(group) {
        if number(&name).is_some() {
            draft::remove(group, &name);
        } else if is_file_link(group, &name) || name == CURRENT {
            let _ = nix::unistd::unlinkat(group, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn current(group: &Below) -> Option<String> {
    read_link(group, CURRENT).filter(|name| number(name).is_some())
}

fn open_current(group: &Below) -> Option<Below<'static>> {
    current(group).and_then(|name| open_directory(group, &name).ok()).map(Below::Opened)
}

/// Takes the number of each generation that there is.
fn each_generation(group: &Below, mut take: impl FnMut(u64)) {
    each(group, |name| number(name).into_iter().for_each(&mut take));
}

/// The names beside the generations.
fn files_of(group: &Below) -> Vec<String> {
    list(group, |name| number(name).is_none().then(|| name.to_owned()))
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

/// Gives a generation the time of its end.
fn touch(directory: impl AsFd, path: &str) {
    let now = TimeSpec::UTIME_NOW;
    let _ = nix::sys::stat::utimensat(directory, path, &now, &now, UtimensatFlags::NoFollowSymlink);
}

/// How long an earlier generation has to stay. Its time is that of its end. It is the wall clock's, the only one that a file keeps: a clock that is set forward
/// meanwhile ends the wait early.
fn left_of(generation: &FileStat) -> Duration {
    let part = |part| u64::try_from(part).unwrap_or(0);
    let end =
        SystemTime::UNIX_EPOCH + Duration::from_secs(part(generation.st_mtime)) + Duration::from_nanos(part(generation.st_mtime_nsec));
    KEPT.saturating_sub(SystemTime::now().duration_since(end).unwrap_or_default())
}
