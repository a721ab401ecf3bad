//! The process that asks remote stores: it delivers files itself, and the environment through a file in memory that is sealed once it is whole.
//!
//! The program's own process comes after it and never was in touch with a store; PID 1 passes the file on and does not look into it.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::deliver::Delivered;
use crate::report::{Code, Failure, Problem, os_error, printable};
use crate::run::c_string;
use crate::secret::Secret;
use crate::sys::oom::Score;
use crate::sys::signal::Signal;

/// When the supervisor is gone, however it went, this process is to go too.
pub fn end_with_the_supervisor() {
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
}

/// When memory runs out this process is to go, and not the program nor PID 1. To be called before it has fetched anything: of a user who is not root the environment shows
/// for some microseconds, as it did when the container began, and there is no program yet that could look.
pub fn prefer_to_be_killed() {
    if let Ok(score) = Score::open() {
        score.be_first();
    }
}

/// Puts what the program gets into a file in memory: the directory of its files, then each entry of its environment, all of them ended by NUL.
///
/// # Errors
///
/// When there is no memory for it.
pub fn seal(delivered: &Delivered) -> Result<OwnedFd, Failure> {
    let mut text = Secret::default();
    text.push(delivered.directory.as_ref().map_or(&[], |path| path.as_os_str().as_bytes()));
    text.push(&[0]);
    for entry in &delivered.environment {
        text.push(entry.to_bytes_with_nul());
    }
    let file =
        memfd_create(c"secret-init", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).map_err(|errno| no_memory(&errno.into()))?;
    let mut file = File::from(file);
    file.write_all(text.expose()).map_err(|error| no_memory(&error))?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| no_memory(&errno.into()))?;
    Ok(file.into())
}

/// Reads what [`seal`] has made.
///
/// # Errors
///
/// When it is not whole: that is a failed start, and not an empty environment.
pub fn unseal(sealed: &OwnedFd) -> Result<Delivered, Failure> {
    let mut file = File::from(sealed.try_clone().map_err(|error| no_memory(&error))?);
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut text = Secret::new(vec![0; usize::try_from(length).unwrap_or(0)]);
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(text.expose_mut())).map_err(|error| no_memory(&error))?;
    let Some(whole) = text.expose().strip_suffix(&[0]) else {
        return Err(Problem::new(Code::Internal, "what was delivered did not arrive whole; the program was not started").into());
    };
    let mut parts = whole.split(|&byte| byte == 0);
    let directory = parts.next().filter(|path| !path.is_empty()).map(|path| PathBuf::from(OsString::from_vec(path.to_vec())));
    let environment: Vec<CString> = parts.map(c_string).collect();
    Ok(Delivered { environment, directory })
}

/// What a new agent says of the one before it, by its exit code. One that failed has said why itself.
#[must_use]
pub fn died(code: u8) -> Option<Problem> {
    let cause = format!("the process that watches ended (exit code {code}); another takes its place, and the program goes on");
    let hint = if code == Signal::KILL.exit_code() {
        "was it for lack of memory? see the container's memory limit"
    } else {
        "if that comes again, please report it"
    };
    (code > 128).then(|| Problem::new(Code::System, cause).hint(hint))
}

/// Of a failure of a new agent: what comes of it.
#[must_use]
pub fn unwatched(failure: Failure) -> Failure {
    Failure { summary: "nothing is watched now; the program goes on".to_owned(), ..failure }
}

/// A file of the plan is another than at the start.
#[must_use]
pub fn changed(path: &Path) -> Problem {
    Problem::new(Code::Configuration, "was changed since the start, by which the program and its files are")
        .about(printable(path.as_os_str().as_bytes()))
        .hint("restart the container, or have the file as it was")
}

pub fn no_memory(error: &std::io::Error) -> Failure {
    Problem::new(Code::System, format!("what was delivered cannot be handed over: {}; the program was not started", os_error(error)))
        .hint("the container may lack memory or descriptors")
        .into()
}
