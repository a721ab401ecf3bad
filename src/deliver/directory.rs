//! The directory of the secret files: in memory, ours, and locked while it is used.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FlockArg, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::statfs::{FsType, TMPFS_MAGIC};
use nix::unistd::UnlinkatFlags;

use super::{files, group};
use crate::cli::Options;
use crate::plan::{Delivery, Plan, Target};
use crate::reference::is_path;
use crate::report::{Code, Problem, printable};
use crate::resolve::{Secrets, Value};
use crate::user::Account;

/// A directory that secrets may be written to, pinned by its descriptor.
pub struct Directory {
    /// Its path, for the program.
    pub path: PathBuf,
    /// Others can write to it, say.
    pub warning: Option<Problem>,
    /// Whether nobody else had it locked when we last looked: no program runs with what is in it.
    is_alone: bool,
    descriptor: OwnedFd,
}

/// Where secrets go when nothing else is said.
const DEFAULT: &str = "/run/secret-init";
/// A tmpfs in every Docker container, for every user.
const SHARED_MEMORY: &str = "/dev/shm";
/// Which of our names are in the directory, one a line: what a later start may sweep.
const MANIFEST: &str = ".secret-init.files";
const MANIFEST_MODE: u32 = 0o400;

/// From linux/magic.h; nix has no name for it, and the type differs between C libraries.
const RAMFS_MAGIC: u64 = 0x8584_58f6;

impl Directory {
    /// The mode of the directories in it. It is closed itself to whom it is not for, and a file has a mode of its own.
    pub const MODE_BELOW: u32 = 0o711;

    /// Opens the directory that the options name, or a default one, and makes it when it is not there. When it is also for other users than ours, they can go
    /// through and not list.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 that says how to mount one.
    pub fn open(options: &Options, account: Option<&Account>, is_for_others: bool, in_kubernetes: bool) -> Result<Self, Problem> {
        let mode = if is_for_others { 0o711 } else { 0o700 };
        if let Some(path) = &options.directory {
            return Self::open_at(path, mode, options.allow_disk, account, OFlag::empty())
                .map_err(|problem| problem.hint(how_to_mount(path, in_kubernetes)));
        }
        let default = Path::new(DEFAULT);
        let why_not = match Self::open_default(default, mode, account, false) {
            Ok(directory) => return Ok(directory),
            Err(problem) => problem,
        };
        let elsewhere = if in_kubernetes {
            // The whole pod shares /dev/shm.
            Err(why_not)
        } else {
            Self::open_default(&own_in_shared_memory(), mode, account, false).map_err(|problem| {
                let cause = format!("{}; nor in {SHARED_MEMORY}: {}", why_not.cause, problem.cause);
                Problem::new(Code::CannotWrite, cause).about(DEFAULT)
            })
        };
        elsewhere
            .or_else(|problem| if options.allow_disk { Self::open_default(default, mode, account, true) } else { Err(problem) })
            .map_err(|problem| problem.hint(how_to_mount(default, in_kubernetes)))
    }

    /// A default directory is made only in memory, unless a disk is accepted, and no other user's is taken.
    fn open_default(path: &Path, mode: u32, account: Option<&Account>, allow_disk: bool) -> Result<Self, Problem> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let is_there = nix::sys::stat::lstat(path).is_ok();
        let is_in_memory = || nix::sys::statfs::statfs(parent).is_ok_and(|statfs| is_memory(statfs.filesystem_type()));
        if !is_there && !allow_disk && !is_in_memory() {
            return Err(about(path, format!("{} is not in memory", parent.display())));
        }
        let directory = Self::open_at(path, mode, allow_disk, account, OFlag::O_NOFOLLOW)?;
        let FileStat { st_uid: owner, st_mode, .. } = directory.status()?;
        let is_shared = parent == Path::new(SHARED_MEMORY);
        let is_ours = owner == nix::unistd::geteuid().as_raw();
        // A tmpfs that was mounted for us may be root's, or the program's.
        let is_trusted = is_ours || (!is_shared && (owner == 0 || account.is_some_and(|account| account.uid == owner)));
        if !is_trusted || (is_shared && st_mode & 0o022 != 0) {
            return Err(about(path, "is another user's, or others can write to it"));
        }
        Ok(directory)
    }

    fn open_at(path: &Path, mode: u32, allow_disk: bool, account: Option<&Account>, extra: OFlag) -> Result<Self, Problem> {
        let is_new = match nix::unistd::mkdir(path, Mode::from_bits_truncate(mode)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(about(path, format!("cannot be made: {}", errno.desc().to_lowercase()))),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | extra;
        let descriptor = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| about(path, format!("cannot be opened: {}", errno.desc().to_lowercase())))?;
        let mut directory = Self { path: path.to_owned(), warning: None, is_alone: false, descriptor };
        directory.is_alone = directory.flock(FlockArg::LockExclusiveNonblock);
        let checked = directory.check(mode, is_new, allow_disk, account);
        // Until the files are written others may look too.
        directory.flock(FlockArg::LockSharedNonblock);
        if is_new && checked.is_err() {
            let _ = std::fs::remove_dir(path);
        }
        checked.map(|()| directory)
    }

    fn check(&mut self, mode: u32, is_new: bool, allow_disk: bool, account: Option<&Account>) -> Result<(), Problem> {
        let filesystem = nix::sys::statfs::fstatfs(&self.descriptor).map_or(FsType(0), |statfs| statfs.filesystem_type());
        if !is_memory(filesystem) && !allow_disk {
            return Err(about(&self.path, "is not in memory (tmpfs or ramfs)"));
        }
        if let Err(errno) = nix::unistd::faccessat(
            &self.descriptor,
            ".",
            nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK,
            AtFlags::AT_EACCESS,
        ) {
            return Err(about(&self.path, format!("cannot be written: {}", errno.desc().to_lowercase())));
        }
        let mut status = self.status()?;
        // What we made gets its mode whatever the umask, and so does our own mount point, which Docker makes with 1777. Any other directory of ours is at
        // least opened for the program's user to go through, and none is closed for a program that runs.
        let present = status.st_mode & 0o7777;
        let is_to_be_set = is_new || self.is_alone && self.path == Path::new(DEFAULT);
        let wanted = if is_to_be_set { mode } else { present | (mode & 0o011) };
        let is_ours = status.st_uid == nix::unistd::geteuid().as_raw();
        if is_ours && present != wanted && nix::sys::stat::fchmod(&self.descriptor, Mode::from_bits_truncate(wanted)).is_ok() {
            status = self.status()?;
        }
        let owner = status.st_uid;
        let is_foreign = !is_ours && owner != 0 && account.is_none_or(|account| account.uid != owner);
        if is_foreign || status.st_mode & 0o022 != 0 {
            let cause = format!("others can write to it (owner {owner}, mode {:04o})", status.st_mode & 0o7777);
            self.warning = Some(about(&self.path, cause));
        }
        Ok(())
    }

    fn status(&self) -> Result<FileStat, Problem> {
        nix::sys::stat::fstat(&self.descriptor).map_err(|errno| about(&self.path, errno.desc().to_lowercase()))
    }

    /// Takes a lock that others can share and that keeps each from sweeping. A sweep is over in a moment: who holds the lock for longer means harm.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when somebody does.
    pub fn share(&mut self) -> Result<(), Problem> {
        const TRIES: u32 = 200;
        self.is_alone = self.flock(FlockArg::LockExclusiveNonblock);
        for _ in 0..TRIES {
            if self.flock(FlockArg::LockSharedNonblock) {
                return Ok(());
            }
            // No event could be waited for: flock(2) waits for ever or not at all, and a stranger who holds the lock must not hang the start.
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(about(&self.path, "another process holds its lock (flock)").hint("give each container a directory of its own"))
    }

    /// Takes the lock, notes the names of what will be written for the next start, and when nobody else has the directory removes what an earlier start did not
    /// finish, and what is in the way. Gives what an earlier start left besides, to be [`swept`](Self::sweep) when the new files are in place.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when the list of our names cannot be written.
    pub fn claim(&mut self, plan: &Plan, secrets: &Secrets) -> Result<Vec<String>, Problem> {
        self.is_alone = self.flock(FlockArg::LockExclusiveNonblock);
        if !self.is_alone {
            self.share()?;
        }
        let planned = lines(plan, secrets);
        let mut others = self.manifest();
        others.retain(|line| !planned.contains(line));
        if self.is_alone {
            for name in names(&*self).iter().filter(|name| files::is_temporary(name)) {
                let _ = nix::unistd::unlinkat(&*self, name.as_str(), UnlinkatFlags::NoRemoveDir);
            }
            for group in planned.iter().filter_map(|line| line.strip_suffix('/')) {
                if let Ok(group) = self.walk(group, open_directory) {
                    group::sweep(&group);
                }
            }
            let (in_the_way, left): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|line| planned.iter().any(|planned| collide(line, planned)));
            for line in &in_the_way {
                self.remove_line(line);
            }
            others = left;
        }
        self.note(planned.iter().chain(&others))?;
        Ok(others)
    }

    /// Removes what an earlier start left, unless another runs beside this one, to which it belongs; then others may use the directory too.
    ///
    /// # Errors
    ///
    /// As [`Self::claim`].
    pub fn sweep(&mut self, plan: &Plan, secrets: &Secrets, others: &[String]) -> Result<(), Problem> {
        if self.is_alone && !others.is_empty() {
            for line in others {
                self.remove_line(line);
            }
            self.note(lines(plan, secrets).iter())?;
        }
        self.flock(FlockArg::LockSharedNonblock);
        Ok(())
    }

    /// Whether files that are there are a running program's, and nobody else can have put them there.
    pub fn is_in_use(&self) -> bool {
        !self.is_alone && self.warning.is_none()
    }

    fn note<'a>(&self, lines: impl Iterator<Item = &'a String>) -> Result<(), Problem> {
        let manifest: String = lines.flat_map(|line| [line.as_str(), "\n"]).collect();
        files::replace(self, MANIFEST, manifest.as_bytes(), MANIFEST_MODE)
    }

    #[allow(
        deprecated,
        reason = "nix's Flock would tie the lock to a value, and ours belongs to the descriptor that goes to another process"
    )]
    fn flock(&self, how: FlockArg) -> bool {
        nix::fcntl::flock(self.descriptor.as_raw_fd(), how).is_ok()
    }

    /// What an earlier start noted. A list that another user could have written is none: it would have us remove what is not ours.
    fn manifest(&self) -> Vec<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let Ok(file) = nix::fcntl::openat(&self.descriptor, MANIFEST, flags, Mode::empty()) else { return Vec::new() };
        let is_ours = nix::sys::stat::fstat(&file).is_ok_and(|status| {
            let is_as_we_make_it = status.st_mode == SFlag::S_IFREG.bits() | MANIFEST_MODE && status.st_nlink == 1;
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
        let _ = match kind(&directory, name) {
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

    /// Opens a directory in it, at whatever depth, and makes those that are missing. Links are not followed.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73.
    pub fn below(&self, path: &str) -> Result<Below<'_>, Problem> {
        self.walk(path, make_directory)
            .map_err(|errno| files::problem(self, path, &format!("cannot be made or opened: {}", errno.desc().to_lowercase()), errno))
    }

    /// Goes down a path, one component at a time: whoever can write to a directory could make a link of any of them.
    fn walk(&self, path: &str, open: impl Fn(&Below, &str) -> Result<OwnedFd, Errno>) -> Result<Below<'_>, Errno> {
        let mut below = Below::Itself(self.as_fd());
        for part in path.split('/').filter(|part| !part.is_empty()) {
            below = Below::Opened(open(&below, part)?);
        }
        Ok(below)
    }

    /// The descriptor, whose lock lives as long as a copy of it is open.
    #[must_use]
    pub fn into_lock(self) -> OwnedFd {
        self.descriptor
    }
}

/// The directory itself, or one in it.
pub enum Below<'a> {
    /// The directory itself.
    Itself(BorrowedFd<'a>),
    /// One in it.
    Opened(OwnedFd),
}

impl AsFd for Below<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Itself(descriptor) => *descriptor,
            Self::Opened(descriptor) => descriptor.as_fd(),
        }
    }
}

/// The directory of a path, empty for our own, and the name in it.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Whether two lines of the manifest cannot both be: one lies below the other, or is a file where the other is a directory.
fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    let is_below = |path: &str, directory: &str| path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    one == other || is_below(one, other) || is_below(other, one)
}

fn make_directory(parent: &Below, name: &str) -> Result<OwnedFd, Errno> {
    let mode = Mode::from_bits_truncate(Directory::MODE_BELOW);
    let is_new = match nix::sys::stat::mkdirat(parent, name, mode) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno),
    };
    let opened = open_directory(parent, name)?;
    if is_new {
        // Whatever the umask.
        nix::sys::stat::fchmod(&opened, mode)?;
    }
    Ok(opened)
}

/// Opens a directory that is there, and no link to one.
pub fn open_directory(parent: &Below, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::openat(parent, name, flags, Mode::empty())
}

/// What kind of file has a name; nothing when none has.
pub fn kind(directory: impl AsFd, name: &str) -> SFlag {
    nix::sys::stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_or(SFlag::empty(), |status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT)
}

/// The names in a directory; none when it cannot be read.
pub fn names(directory: impl AsFd) -> Vec<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(mut listing) = nix::dir::Dir::openat(directory, ".", flags, Mode::empty()) else { return Vec::new() };
    let names = listing.iter().filter_map(|entry| entry.ok()?.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name != "." && name != "..").collect()
}

/// What the manifest says: a line for each file that there will be, and one that ends in a slash for each directory of a group.
fn lines(plan: &Plan, secrets: &Secrets) -> Vec<String> {
    let line = |(delivery, value): (&Delivery, &Value)| match &delivery.target {
        Target::File(file) if file.group.is_some() => Some(format!("{}/", file.parent())),
        Target::File(file) if matches!(value, Value::Secret(_)) => Some(file.path.clone()),
        _ => None,
    };
    let mut lines: Vec<String> = plan.deliveries.iter().zip(secrets).filter_map(line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn about(path: &Path, cause: impl Into<String>) -> Problem {
    Problem::new(Code::CannotWrite, cause).about(printable(path.as_os_str().as_encoded_bytes()))
}

fn is_memory(filesystem: FsType) -> bool {
    filesystem == TMPFS_MAGIC || u64::try_from(filesystem.0) == Ok(RAMFS_MAGIC)
}

/// A name that no other container has, even when several share `/dev/shm` (`--ipc=host`): the mount namespace's number is the container's own.
fn own_in_shared_memory() -> PathBuf {
    let namespace = std::fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Path::new(SHARED_MEMORY).join(format!("secret-init-{}-{number}", nix::unistd::geteuid()))
}

fn how_to_mount(path: &Path, in_kubernetes: bool) -> String {
    let path = printable(path.as_os_str().as_encoded_bytes());
    if in_kubernetes {
        format!(
            "add to the pod volumes: [{{name: secrets, emptyDir: {{medium: Memory}}}}], and to the container volumeMounts: [{{name: secrets, mountPath: {path}}}]"
        )
    } else {
        let user = nix::unistd::geteuid();
        format!(
            "mount a tmpfs: docker run --tmpfs {path}:mode=0700,uid={user}, or in Compose tmpfs: [\"{path}:mode=0700,uid={user}\"]; or accept a disk with --allow-disk"
        )
    }
}
