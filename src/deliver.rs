//! From the secrets to the program's environment and to files in memory: all of them, or none.

mod directory;
mod environment;
mod files;
mod group;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::cli::{Arguments, Command};
use crate::plan::{File, Plan, Target, consequence};
use crate::report::{self, Failure, Problem};
use crate::resolve::Secrets;
use crate::user::{Account, Ownership};

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

/// Where the files of a plan go, opened and checked before anything is fetched, and who they belong to.
pub struct Place {
    directory: Option<Directory>,
    /// In the order of the plan's deliveries; none is our own user.
    owners: Vec<Option<Ownership>>,
}

impl Place {
    /// Finds the owners of the files and opens the directory, if the plan has files.
    ///
    /// # Errors
    ///
    /// Problems with the exit codes 71, 73 and 78.
    pub fn open(plan: &Plan, arguments: &Arguments, account: Option<&Account>) -> Result<Self, Failure> {
        let (owners, mut problems) = owners(plan, account);
        let mut directory = None;
        if plan.has_files() {
            // Whoever a file is given to must be able to go through, but not to list.
            let is_for_others = owners.iter().flatten().any(|owner| !owner.is_current());
            match Directory::open(&arguments.options, account, is_for_others, plan.in_kubernetes) {
                Ok(opened) => directory = Some(opened),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(Failure { problems, summary: consequence(arguments.command).to_owned() });
        }
        report::warn_of(directory.as_ref().map_or(&[], |directory| directory.warning.as_slice()));
        Ok(Self { directory, owners })
    }

    /// Says what [`Place::open`] would say of the owners, and touches nothing. The directory itself is not looked at.
    ///
    /// # Errors
    ///
    /// Problems with the exit codes 71 and 78.
    pub fn check(plan: &Plan, arguments: &Arguments, account: Option<&Account>) -> Result<(), Failure> {
        let (_, problems) = owners(plan, account);
        if problems.is_empty() {
            return Ok(());
        }
        Err(Failure { problems, summary: consequence(arguments.command).to_owned() })
    }
}

/// Who each file will belong to, and what is wrong with those that are named.
fn owners(plan: &Plan, account: Option<&Account>) -> (Vec<Option<Ownership>>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut owners = Vec::with_capacity(plan.deliveries.len());
    for delivery in &plan.deliveries {
        let named = match &delivery.target {
            Target::File(File { owner: Some(owner), .. }) => Some(owner),
            _ => None,
        };
        owners.push(match named.map(|owner| Ownership::find(owner)).transpose() {
            Ok(owner) => owner.or(account.map(Account::ownership)),
            Err(problem) => {
                problems.push(delivery.about(problem.about("owner")));
                None
            }
        });
    }
    (owners, problems)
}

/// Writes the files and makes the environment.
///
/// # Errors
///
/// When the environment is too large for the kernel (65), or a file cannot be written (73): then each file that was there is as it was.
pub fn all(plan: &Plan, secrets: &Secrets, place: Place, arguments: &Arguments, account: Option<&Account>) -> Result<Delivered, Failure> {
    let command = arguments.command;
    let failed = |problem: Problem| Failure { problems: vec![problem], summary: consequence(command).to_owned() };
    let Place { mut directory, owners } = place;
    let environment = environment::of(plan, secrets, directory.as_ref(), account);
    if command != Command::Write {
        environment::check_size(plan, secrets, &environment, &arguments.program).map_err(failed)?;
    }
    if let Some(directory) = &mut directory {
        // Nothing would hold a lock for a program that we become, so exec mode neither sweeps nor is noted for a sweep.
        if command == Command::Exec {
            directory.share().map_err(failed)?;
            files::write(plan, secrets, directory, &owners).map_err(failed)?;
        } else {
            let left = directory.claim(plan, secrets).map_err(failed)?;
            files::write(plan, secrets, directory, &owners).map_err(failed)?;
            directory.sweep(plan, secrets, &left).map_err(failed)?;
        }
    }
    let path = directory.as_ref().map(|directory| directory.path.clone());
    Ok(Delivered { environment, directory: path, lock: directory.map(Directory::into_lock) })
}
