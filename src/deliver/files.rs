//! Secret files: a temporary name, the content, the mode, the owner, and then one rename.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::directory::Directory;
use crate::plan::{Plan, Target};
use crate::report::{Code, Problem, printable};
use crate::resolve::Secrets;
use crate::user::Account;

/// Writes all files under temporary names, and when that worked gives each its own: what can fail comes before anything is visible.
pub fn write(plan: &Plan, secrets: &Secrets, directory: &Directory, account: Option<&Account>) -> Result<(), Problem> {
    let mut staged = Vec::new();
    for (delivery, secret) in plan.deliveries.iter().zip(secrets) {
        if let (Target::File { name, mode, .. }, Some(secret)) = (&delivery.target, secret) {
            let file = Staged::write(directory, name, secret.expose(), *mode, account).map_err(|problem| problem.about(&delivery.name))?;
            staged.push((file, &delivery.name));
        }
    }
    for (file, variable) in staged {
        file.commit().map_err(|problem| problem.about(variable))?;
    }
    Ok(())
}

/// Writes one file in place of what has its name.
pub fn replace(directory: &Directory, name: &str, content: &[u8], mode: u32, account: Option<&Account>) -> Result<(), Problem> {
    Staged::write(directory, name, content, mode, account)?.commit()
}

/// What the names of temporary files begin and end with.
const TEMPORARY: (&str, &str) = (".secret-init-", ".tmp");

/// Whether a name is one of our temporary files'.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1)
}

/// A file that is complete, and not yet known by its name. Dropped, it is gone.
struct Staged<'a> {
    directory: &'a Directory,
    name: &'a str,
    temporary: Option<String>,
}

impl<'a> Staged<'a> {
    fn write(directory: &'a Directory, name: &'a str, content: &[u8], mode: u32, account: Option<&Account>) -> Result<Self, Problem> {
        let failed = |what: &str, errno: Errno| problem(directory, name, &format!("{what}: {}", errno.desc().to_lowercase()), errno);
        let (temporary, mut file) = create(directory).map_err(|errno| failed("cannot be made", errno))?;
        // From here on an error removes it.
        let staged = Self { directory, name, temporary: Some(temporary) };
        file.write_all(content).map_err(|error| failed("cannot be written", error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)))?;
        let owner = account.filter(|account| !account.is_current());
        // First the group, then the mode, then the user: at no moment may a group read it that will not later, and a file that was given away
        // cannot be changed without CAP_FOWNER.
        if let Some(account) = owner {
            nix::unistd::fchown(&file, None, Some(Gid::from_raw(account.gid))).map_err(|errno| failed("its group cannot be set", errno))?;
        }
        nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode)).map_err(|errno| failed("its mode cannot be set", errno))?;
        if let Some(account) = owner {
            nix::unistd::fchown(&file, Some(Uid::from_raw(account.uid)), None).map_err(|errno| failed("its owner cannot be set", errno))?;
        }
        // The one thing that a rename cannot replace, and then others would already have their new names.
        let is_directory = |status: FileStat| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        if fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(is_directory) {
            return Err(failed("cannot be replaced", Errno::EISDIR));
        }
        Ok(staged)
    }

    fn commit(mut self) -> Result<(), Problem> {
        let Some(temporary) = self.temporary.as_deref() else { return Ok(()) };
        nix::fcntl::renameat(self.directory, temporary, self.directory, self.name)
            .map_err(|errno| problem(self.directory, self.name, &format!("cannot be replaced: {}", errno.desc().to_lowercase()), errno))?;
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

/// Makes a file that was not there before, readable for us alone.
fn create(directory: &Directory) -> Result<(String, File), Errno> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let process = std::process::id();
    let mut number = 0_u32;
    loop {
        let name = format!("{}{process}-{number}{}", TEMPORARY.0, TEMPORARY.1);
        match nix::fcntl::openat(directory, name.as_str(), flags, Mode::from_bits_truncate(0o600)) {
            // A start in another container that shares the directory may have our process number.
            Err(Errno::EEXIST) if number < 100_000 => number += 1,
            result => return result.map(|file| (name, File::from(file))),
        }
    }
}

fn problem(directory: &Directory, name: &str, cause: &str, errno: Errno) -> Problem {
    let path = printable(directory.path.join(name).as_os_str().as_encoded_bytes()).into_owned();
    let problem = Problem::new(Code::CannotWrite, cause).about(path);
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => {
            problem.hint("make the tmpfs larger (size=…), or deliver less: a file that is replaced needs its room twice")
        }
        Errno::EPERM | Errno::EACCES => problem.hint("the directory must be writable for us; with --user, keep the capability CHOWN"),
        Errno::EISDIR | Errno::ENOTEMPTY => problem.hint("a directory has this name; remove it"),
        _ => problem,
    }
}
