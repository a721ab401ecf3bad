//! `file:/path`: a secret that the platform mounted.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC};

use super::{BoxFuture, Content, Failure, FailureKind, Fetched, Life, Row, Store, Wanted};
use crate::reference::Scheme;
use crate::secret::{Secret, Version};

/// The largest secret, in bytes: that of a Kubernetes Secret.
pub const LARGEST: usize = 1 << 20;

pub(super) const ROW: Row = Row {
    scheme: Scheme::File,
    name: "file",
    summary: "a file: file:/run/secrets/db, file:/etc/creds.json#/db/password",
    is_remote: false,
    open: |_, _| Ok(Box::new(Files)),
};

struct Files;

impl Store for Files {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Result<Fetched, Failure>>> {
        Box::pin(std::future::ready(
            wanted.iter().map(|wanted| fetch(Path::new(std::ffi::OsStr::from_bytes(&wanted.reference.locator)), wanted)).collect(),
        ))
    }
}

/// Reads a file, unless its version is the one that is known.
pub(super) fn fetch(path: &Path, wanted: &Wanted) -> Result<Fetched, Failure> {
    let (secret, version) = read(path)?;
    if wanted.since.as_ref() == Some(&version) {
        return Ok(Fetched::Unchanged);
    }
    Ok(Fetched::New { content: Content::Bytes(secret), version, life: Life::Lasting })
}

/// Reads a secret from a regular file.
///
/// Symbolic links are followed, since kubelet's volumes are made of them, but not the magic ones of procfs. What could block or never end (a
/// FIFO, a device) or shows another process's memory (procfs) is refused.
///
/// # Errors
///
/// A [`Failure`] of each kind but protocol.
pub fn read(path: &Path) -> Result<(Secret, Version), Failure> {
    let file = open_file(path).map_err(|errno| refused(errno, path))?;
    let status = nix::sys::stat::fstat(&file).map_err(|errno| refused(errno, path))?;
    check(&file, &status, path)?;
    let size = usize::try_from(status.st_size).unwrap_or(0);
    let secret = read_all(&file, size).map_err(|error| refused(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw), path))?;
    if secret.len() > LARGEST {
        return Err(too_large());
    }
    Ok((secret, version(&status)))
}

/// Reads to the end, or to one byte more than is allowed, which tells a file that is too large.
fn read_all(mut file: &File, size: usize) -> std::io::Result<Secret> {
    let mut secret = Secret::new(vec![0; size.min(LARGEST) + 1]);
    let mut length = 0;
    while length <= LARGEST {
        // It may grow meanwhile, or not know its size.
        match file.read(&mut secret.expose_mut()[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == size {
            // There was room for one byte more, so this is the end: a call to be told so is spared.
            break;
        }
        if length == secret.len() {
            secret.resize((2 * length).min(LARGEST + 1));
        }
    }
    secret.resize(length);
    Ok(secret)
}

fn open_file(path: &Path) -> Result<File, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match nix::fcntl::openat2(AT_FDCWD, path, how) {
        // Before Linux 5.6, or below a seccomp filter that does not know the call: `check` still refuses what lies in procfs.
        Err(Errno::ENOSYS | Errno::EPERM) => nix::fcntl::open(path, flags, Mode::empty()),
        result => result,
    }
    .map(File::from)
}

fn check(file: &File, status: &FileStat, path: &Path) -> Result<(), Failure> {
    let invalid = |cause: &str| Failure::new(FailureKind::Invalid, cause);
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        let hint = if path.starts_with("/run/secrets") {
            "Docker makes a directory where a bind mount's source is missing"
        } else {
            "name a file in it"
        };
        return Err(invalid("is a directory").hint(hint));
    }
    if kind != SFlag::S_IFREG {
        let name = match kind {
            SFlag::S_IFIFO => "a FIFO",
            SFlag::S_IFSOCK => "a socket",
            _ => "a device",
        };
        return Err(invalid(&format!("is {name}, not a regular file")).hint("a secret is read from a regular file"));
    }
    let filesystem = nix::sys::statfs::fstatfs(file).map_or(FsType(0), |statfs| statfs.filesystem_type());
    if filesystem == PROC_SUPER_MAGIC || filesystem == SYSFS_MAGIC {
        return Err(invalid("lies in procfs or sysfs").hint("a secret is read from a regular file"));
    }
    if usize::try_from(status.st_size).unwrap_or(0) > LARGEST {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> Failure {
    Failure::new(FailureKind::Invalid, "is larger than 1 MiB").hint("a secret has at most 1,048,576 bytes")
}

fn refused(errno: Errno, path: &Path) -> Failure {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => Failure::new(FailureKind::NotFound, "no such file"),
        Errno::EACCES | Errno::EPERM => {
            let user = nix::unistd::geteuid();
            let owner = nix::sys::stat::stat(path)
                .map_or(String::new(), |status| format!(" (owner {}, mode {:04o})", status.st_uid, status.st_mode & 0o7777));
            Failure::new(FailureKind::Denied, format!("permission denied for uid {user}{owner}"))
                .hint("make the file readable for that user, or start as root and give the program its user with --user")
        }
        Errno::ELOOP => {
            Failure::new(FailureKind::Invalid, "is a link into procfs, or a loop of links").hint("a secret is read from a regular file")
        }
        Errno::ENAMETOOLONG => Failure::new(FailureKind::Invalid, "the path is too long"),
        // A FIFO-like special file without its driver, or a socket.
        Errno::ENXIO | Errno::ENODEV => {
            Failure::new(FailureKind::Invalid, "is not a regular file").hint("a secret is read from a regular file")
        }
        Errno::EMFILE | Errno::ENFILE => {
            Failure::new(FailureKind::System, errno.desc().to_lowercase()).hint("the container may lack descriptors (ulimit -n)")
        }
        _ => Failure::new(FailureKind::Unavailable { retry_after: None }, errno.desc().to_lowercase()),
    }
}

/// Any write and any replacement changes one of these numbers.
fn version(status: &FileStat) -> Version {
    Version::new(format!("{}.{:09}-{}-{}", status.st_ctime, status.st_ctime_nsec, status.st_ino, status.st_size))
}
