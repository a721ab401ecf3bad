//! The names of ours in the directory, one a line: of a file, or with a slash at the end of the directory of a group.

use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::UnlinkatFlags;

use super::directory::{Directory, kind, open_directory, split};
use super::stage::Staged;
use super::{draft, group};
use crate::plan::{Delivery, File, Plan, Target};
use crate::reference::is_path;
use crate::report::Problem;
use crate::resolve::{Secrets, Value};
use crate::sys::lock;

/// What a later start may sweep.
pub const MANIFEST: &str = ".secret-init.files";
/// What a start beside the process that marked the directory leaves as it is.
pub const RESERVED: &str = ".secret-init.reserved";
pub const MODE: u32 = 0o400;

impl Directory {
    /// Takes the lock, and when nobody else has the directory removes what an earlier start did not finish, and what is in the way. Gives what an earlier start left
    /// besides, to be [`swept`](Self::sweep) when the new files are in place.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when somebody has the lock and does not share it.
    pub fn claim(&mut self, planned: &[String]) -> Result<Vec<String>, Problem> {
        self.is_alone = self.flock(FlockArg::LockExclusiveNonblock);
        if !self.is_alone {
            self.share()?;
        }
        let mut others = self.list(MANIFEST);
        others.retain(|line| !planned.contains(line));
        if self.is_alone {
            draft::sweep(self);
            let (in_the_way, left): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|line| planned.iter().any(|planned| collide(line, planned)));
            for line in &in_the_way {
                self.remove_line(line);
            }
            others = left;
        }
        Ok(others)
    }

    /// Removes what an earlier start left, unless another runs beside this one, to which it belongs; then others may use the directory too.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when the list of our names cannot be written.
    pub fn sweep(&mut self, planned: &[String], others: &[String]) -> Result<(), Problem> {
        if self.is_alone {
            for line in others {
                self.remove_line(line);
            }
            let mut staged = Staged::empty(Some(self));
            staged.note(MANIFEST, planned.iter())?;
            staged.commit()?;
            if !self.has_reserved {
                let _ = nix::unistd::unlinkat(&*self, RESERVED, UnlinkatFlags::NoRemoveDir);
            }
        }
        self.flock(FlockArg::LockSharedNonblock);
        Ok(())
    }

    /// Makes the files of the plan ours alone to replace, for as long as a copy of our descriptor is open: a start beside this one leaves those that are there as they
    /// are. What it fetched may be older than what is there by then, and what is newer the program has to be told of.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when the list cannot be written.
    pub fn reserve(&mut self, plan: &Plan) -> Result<(), Problem> {
        let mut staged = Staged::empty(Some(self));
        staged.note(RESERVED, all_lines(plan).iter())?;
        staged.commit()?;
        // Where the kernel does not know such a mark, a probe may be earlier or later than us, as without it.
        let _ = lock::mark(&*self);
        self.has_reserved = true;
        Ok(())
    }

    /// What is another's to replace.
    pub fn reserved(&self) -> Vec<String> {
        if self.has_reserved || !lock::is_marked_by_another(self) { Vec::new() } else { self.list(RESERVED) }
    }

    /// The names in a list of ours. A list that another user could have written is none: it would have us remove what is not ours.
    pub fn list(&self, name: &str) -> Vec<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Ok(file) = nix::fcntl::openat(self, name, flags, Mode::empty()) else { return Vec::new() };
        let is_ours = nix::sys::stat::fstat(&file).is_ok_and(|status| {
            let is_as_we_make_it = status.st_mode == SFlag::S_IFREG.bits() | MODE && status.st_nlink == 1;
            is_as_we_make_it && status.st_uid == nix::unistd::geteuid().as_raw()
        });
        let mut text = String::new();
        let is_read = std::io::Read::read_to_string(&mut std::io::Read::take(std::fs::File::from(file), 1 << 20), &mut text).is_ok();
        text.lines().filter(|line| is_ours && is_read && is_path(line.trim_end_matches('/'))).map(str::to_owned).collect()
    }

    /// Removes what a line of the manifest names, and the directories above it that are empty then. That it is gone already, or cannot be removed, harms nobody.
    fn remove_line(&self, line: &str) {
        let path = line.trim_end_matches('/');
        if line != path
            && let Ok(group) = self.walk(path, open_directory)
        {
            group::empty(&group);
        }
        let (mut parent, mut name) = split(path);
        let Ok(directory) = self.walk(parent, open_directory) else { return };
        let _: Result<(), Errno> = match kind(&directory, name) {
            SFlag::S_IFREG if line == path => nix::unistd::unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir),
            SFlag::S_IFDIR if line != path => nix::unistd::unlinkat(&directory, name, UnlinkatFlags::RemoveDir),
            _ => return,
        };
        while !parent.is_empty() {
            (parent, name) = split(parent);
            let Ok(directory) = self.walk(parent, open_directory) else { return };
            let _ = nix::unistd::unlinkat(&directory, name, UnlinkatFlags::RemoveDir);
        }
    }
}

/// Whether two lines cannot both be: one lies below the other, or is a file where the other is a directory.
pub fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    let is_below = |path: &str, directory: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    one == other || is_below(one, other) || is_below(other, one)
}

/// The line for a file.
pub fn line(file: &File) -> String {
    if file.group.is_some() { format!("{}/", file.parent()) } else { file.path.clone() }
}

/// The lines for the files that there will be.
pub fn lines(plan: &Plan, secrets: &Secrets) -> Vec<String> {
    let is_there = |(delivery, value): (&Delivery, &Value)| match &delivery.target {
        Target::File(file) if file.group.is_some() || matches!(value, Value::Secret(_)) => Some(line(file)),
        _ => None,
    };
    sorted(plan.deliveries.iter().zip(secrets).filter_map(is_there))
}

/// The lines for all files that there may be.
fn all_lines(plan: &Plan) -> Vec<String> {
    sorted(plan.files().map(line))
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}
