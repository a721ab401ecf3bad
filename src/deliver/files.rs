//! Secret files: a temporary name, the content, the mode, the owner, and then one rename.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::directory::{Below, Directory, kind, split};
use super::group::Generation;
use crate::plan::{File, Plan, Target};
use crate::report::{Code, Problem, printable};
use crate::resolve::{Secrets, Value};
use crate::secret::Secret;
use crate::user::Ownership;

/// One file and what is to be in it.
pub struct Wanted<'a> {
    /// Where, and with which mode.
    pub file: &'a File,
    /// What messages call it.
    pub name: &'a str,
    /// The content.
    pub secret: &'a Secret,
    /// Who it will belong to; none is our own user.
    pub owner: Option<Ownership>,
}

/// Writes all files under temporary names, and when that worked gives each its own: what can fail comes before anything is visible. What is right already stays
/// untouched, so that a probe beside a running program (`docker exec … secret-init --exec`) changes nothing for it.
pub fn write(plan: &Plan, secrets: &Secrets, directory: &Directory, owners: &[Option<Ownership>]) -> Result<(), Problem> {
    let mut singles = Vec::new();
    let mut groups: BTreeMap<&str, Vec<Wanted>> =
        plan.files().filter(|file| file.group.is_some()).map(|file| (file.parent(), vec![])).collect();
    for ((delivery, secret), &owner) in plan.deliveries.iter().zip(secrets).zip(owners) {
        if let (Target::File(file), Value::Secret(secret)) = (&delivery.target, secret) {
            let owner = owner.or_else(|| owner_in_use(directory, &file.path));
            let wanted = Wanted { file, name: &delivery.name, secret, owner };
            match groups.get_mut(file.parent()).filter(|_| file.group.is_some()) {
                Some(group) => group.push(wanted),
                None => singles.push(wanted),
            }
        }
    }
    let mut staged = Vec::new();
    for Wanted { file, name, secret, owner } in &singles {
        let (path, content) = (&file.path, secret.expose());
        let single = match present(directory, path, content, file.mode, *owner).map_err(|problem| problem.about(name))? {
            Present::Right => continue,
            // The one thing that a rename cannot replace, and then others would already have their new names.
            Present::Directory => Err(problem(directory, path, "cannot be replaced: is a directory", Errno::EISDIR)),
            Present::Other => Staged::write(directory, path, content, file.mode, *owner),
        };
        staged.push((single.map_err(|problem| problem.about(name))?, name));
    }
    let mut generations = Vec::new();
    for (path, files) in &groups {
        generations.extend(Generation::stage(directory, path, files)?);
    }
    for (file, name) in staged {
        file.commit().map_err(|problem| problem.about(name))?;
    }
    generations.into_iter().try_for_each(Generation::commit)
}

/// Writes one file in place of what has its name.
pub fn replace(directory: &Directory, name: &str, content: &[u8], mode: u32) -> Result<(), Problem> {
    Staged::write(directory, name, content, mode, None)?.commit()
}

/// What the names of temporary files begin and end with.
const TEMPORARY: (&str, &str) = (".secret-init-", ".tmp");

/// Whether a name is one of our temporary files'.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1)
}

/// Makes something under a temporary name that was not there before.
pub fn with_temporary_name<T>(make: impl Fn(&str) -> Result<T, Errno>) -> Result<(String, T), Errno> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{process}-{number}{}", TEMPORARY.0, TEMPORARY.1);
        match make(&name) {
            // A start in another container that shares the directory may have our process number.
            Err(Errno::EEXIST) if number < 100_000 => {}
            result => return result.map(|made| (name, made)),
        }
    }
}

/// A file that is complete, and not yet known by its name. Dropped, it is gone.
struct Staged<'a> {
    directory: &'a Directory,
    path: &'a str,
    temporary: Option<String>,
}

impl<'a> Staged<'a> {
    fn write(directory: &'a Directory, path: &'a str, content: &[u8], mode: u32, owner: Option<Ownership>) -> Result<Self, Problem> {
        let failed = |what: &str, errno: Errno| problem(directory, path, &format!("{what}: {}", errno.desc().to_lowercase()), errno);
        let (temporary, file) =
            with_temporary_name(|name| create(directory.as_fd(), name)).map_err(|errno| failed("cannot be made", errno))?;
        // From here on an error removes it.
        let staged = Self { directory, path, temporary: Some(temporary) };
        fill(file, content, mode, owner).map_err(|(what, errno)| failed(what, errno))?;
        Ok(staged)
    }

    fn commit(mut self) -> Result<(), Problem> {
        let Some(temporary) = self.temporary.as_deref() else { return Ok(()) };
        let (parent, name) = split(self.path);
        // Opened anew: a descriptor for each of many files would be too many.
        let parent = self.directory.below(parent)?;
        nix::fcntl::renameat(self.directory, temporary, &parent, name)
            .map_err(|errno| problem(self.directory, self.path, &format!("cannot be replaced: {}", errno.desc().to_lowercase()), errno))?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = nix::unistd::unlinkat(self.directory.as_fd(), temporary.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Whose a file is that a running program has, when nothing else is said: with a user that was forgotten it is not taken away from the program.
fn owner_in_use(directory: &Directory, path: &str) -> Option<Ownership> {
    if !directory.is_in_use() {
        return None;
    }
    let FileStat { st_mode, st_uid: uid, st_gid: gid, .. } = nix::sys::stat::fstatat(directory, path, AtFlags::empty()).ok()?;
    (SFlag::from_bits_truncate(st_mode) & SFlag::S_IFMT == SFlag::S_IFREG).then_some(Ownership { uid, gid })
}

/// What has a name already.
enum Present {
    /// The very file that is wanted.
    Right,
    Directory,
    /// Nothing, or something else.
    Other,
}

fn present(directory: &Directory, path: &str, content: &[u8], mode: u32, owner: Option<Ownership>) -> Result<Present, Problem> {
    let (parent, name) = split(path);
    let parent = directory.below(parent)?;
    if is_right(&parent, name, content, mode, owner) {
        return Ok(Present::Right);
    }
    Ok(if kind(&parent, name) == SFlag::S_IFDIR { Present::Directory } else { Present::Other })
}

/// Whether a file has these bytes, this mode and this owner already, and no other name.
pub fn is_right(parent: &Below, name: &str, content: &[u8], mode: u32, owner: Option<Ownership>) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(file) = nix::fcntl::openat(parent, name, flags, Mode::empty()) else { return false };
    let Ok(status) = nix::sys::stat::fstat(&file) else { return false };
    let is_owned = match owner {
        Some(owner) => owner == Ownership { uid: status.st_uid, gid: status.st_gid },
        None => status.st_uid == nix::unistd::geteuid().as_raw(),
    };
    if status.st_mode != SFlag::S_IFREG.bits() | mode || status.st_nlink != 1 || !is_owned {
        return false;
    }
    // One byte more than is wanted tells a file that is longer.
    let mut there = Secret::new(vec![0; content.len() + 1]);
    let mut length = 0;
    while length < there.len() {
        match nix::unistd::read(&file, &mut there.expose_mut()[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    &there.expose()[..length] == content
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

/// A problem with a file of the directory, by its path below it.
pub fn problem(directory: &Directory, path: &str, cause: &str, errno: Errno) -> Problem {
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
