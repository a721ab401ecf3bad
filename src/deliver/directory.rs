//! The directory of the secret files: in memory, ours, and locked while it is used.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FlockArg, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::statfs::{FsType, TMPFS_MAGIC};

use super::files;
use crate::cli::Options;
use crate::report::{Code, Problem, printable};
use crate::sys::descriptor;
use crate::sys::lock;
use crate::user::Account;

/// A directory that secrets may be written to, pinned by its descriptor.
pub struct Directory {
    /// Its path, for the program.
    pub path: PathBuf,
    /// Others can write to it, say.
    pub warning: Option<Problem>,
    /// Whether nobody else had it locked when we last looked: no program runs with what is in it.
    pub(super) is_alone: bool,
    /// Whether we are the one who may replace what is [reserved](Self::reserve).
    pub(super) has_reserved: bool,
    descriptor: OwnedFd,
}

/// Where secrets go when nothing else is said.
pub const DEFAULT: &str = "/run/secret-init";
/// A tmpfs in every Docker container, for every user.
pub const SHARED_MEMORY: &str = "/dev/shm";

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
        let mut directory = Self { path: path.to_owned(), warning: None, is_alone: false, has_reserved: false, descriptor };
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

    /// Whether files that are there are a running program's, and nobody else can have put them there.
    pub fn is_in_use(&self) -> bool {
        !self.is_alone && self.warning.is_none()
    }

    pub(super) fn flock(&self, how: FlockArg) -> bool {
        lock::flock(&self.descriptor, how).is_ok()
    }

    /// Opens a directory in it, at whatever depth, and makes those that are missing. Links are not followed.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73.
    pub fn below(&self, path: &str) -> Result<Below<'_>, Problem> {
        self.walk(path, make_directory).map_err(|errno| files::problem(self, path, "cannot be made or opened", errno))
    }

    /// Goes down a path, one component at a time: whoever can write to a directory could make a link of any of them.
    pub fn walk(&self, path: &str, open: impl Fn(&Below, &str) -> Result<OwnedFd, Errno>) -> Result<Below<'_>, Errno> {
        walk(self.as_fd(), path, open)
    }

    /// The descriptor, whose lock lives as long as a copy of it is open.
    #[must_use]
    pub fn lock(&self) -> &OwnedFd {
        &self.descriptor
    }
}

/// Goes down a path, one component at a time.
pub fn walk<'a>(from: BorrowedFd<'a>, path: &str, open: impl Fn(&Below, &str) -> Result<OwnedFd, Errno>) -> Result<Below<'a>, Errno> {
    let mut below = Below::Itself(from);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        below = Below::Opened(open(&below, part)?);
    }
    Ok(below)
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

/// Opens a directory, and makes it when it is not there.
pub fn make_directory(parent: &Below, name: &str) -> Result<OwnedFd, Errno> {
    match open_directory(parent, name) {
        Err(Errno::ENOENT) => {}
        opened => return opened,
    }
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
    list(directory, |name| Some(name.to_owned()))
}

/// What the names in a directory mean, for those that mean something.
pub fn list<T>(directory: impl AsFd, meaning: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut list = Vec::new();
    each(directory, |name| list.extend(meaning(name)));
    list
}

/// Takes every name in a directory, and keeps none: there may be thousands. One that is removed meanwhile does no harm.
pub fn each(directory: impl AsFd, mut take: impl FnMut(&str)) {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(listing) = nix::fcntl::openat(directory, ".", flags, Mode::empty()) else { return };
    descriptor::each_name(&listing, |name| {
        if let Ok(name) = name.to_str()
            && name != "."
            && name != ".."
        {
            take(name);
        }
    });
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
pub fn own_in_shared_memory() -> PathBuf {
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
