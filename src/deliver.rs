//! From the secrets to the program's environment and to files in memory: all of them, or none.

mod directory;
mod environment;
mod files;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::cli::{Arguments, Command};
use crate::plan::{Plan, consequence};
use crate::report::{self, Failure, Problem};
use crate::resolve::Secrets;
use crate::user::Account;

use directory::Directory;

/// What was delivered.
pub struct Delivered {
    /// The program's whole environment.
    pub environment: Vec<CString>,
    /// Where files are; none when none was written.
    pub directory: Option<PathBuf>,
    /// Locks the directory as long as it is open somewhere; none when no file was written.
    pub lock: Option<OwnedFd>,
}

/// Where the files of a plan go, opened and checked before anything is fetched.
pub struct Place(Option<Directory>);

impl Place {
    /// Opens the directory, if the plan has files.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73.
    pub fn open(plan: &Plan, arguments: &Arguments, account: Option<&Account>) -> Result<Self, Failure> {
        if !plan.has_files() {
            return Ok(Self(None));
        }
        match Directory::open(&arguments.options, account, plan.in_kubernetes) {
            Ok(directory) => {
                report::warn_of(directory.warning.as_slice());
                Ok(Self(Some(directory)))
            }
            Err(problem) => Err(Failure { problems: vec![problem], summary: consequence(arguments.command).to_owned() }),
        }
    }
}

/// Writes the files and makes the environment.
///
/// # Errors
///
/// When the environment is too large for the kernel (65), or a file cannot be written (73): then each file that was there is as it was.
pub fn all(plan: &Plan, secrets: &Secrets, place: Place, arguments: &Arguments, account: Option<&Account>) -> Result<Delivered, Failure> {
    let command = arguments.command;
    let failed = |problem: Problem| Failure { problems: vec![problem], summary: consequence(command).to_owned() };
    let environment = environment::of(plan, secrets, place.0.as_ref(), account);
    if command != Command::Write {
        environment::check_size(plan, secrets, &environment, &arguments.program).map_err(failed)?;
    }
    if let Some(directory) = &place.0 {
        // Nothing would hold a lock for a program that we become, so exec mode neither sweeps nor is noted for a sweep.
        if command == Command::Exec {
            directory.share().map_err(failed)?;
        } else {
            directory.sweep(plan).map_err(failed)?;
        }
        files::write(plan, secrets, directory, account).map_err(failed)?;
    }
    let directory = place.0.as_ref().map(|directory| directory.path.clone());
    Ok(Delivered { environment, directory, lock: place.0.map(Directory::into_lock) })
}
