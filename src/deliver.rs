//! From the secrets to the program's environment and to files in memory: all of them, or none.

mod directory;
mod draft;
mod environment;
mod files;
mod group;
mod manifest;
mod places;
mod stage;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag};

use crate::cli::{Arguments, Command};
use crate::plan::{File, Plan, Target, consequence};
use crate::report::{self, Failure, Problem};
use crate::resolve::{Secrets, Value};
use crate::user::{Account, Ownership};

use directory::{Directory, open_directory};
use manifest::MANIFEST;
pub use places::places;
use stage::Absent;
pub use stage::Staged;

/// What was delivered.
pub struct Delivered {
    /// The program's whole environment.
    pub environment: Vec<CString>,
    /// Where files are; none when none was written.
    pub directory: Option<PathBuf>,
}

/// Where the files of a plan go, opened and checked before anything is fetched, and who they belong to. It is needed for as long as they may change.
pub struct Place {
    /// None when the plan has no files.
    directory: Option<Directory>,
    /// For the socket by which `health` and `refresh` ask, when there are no files beside it. It is ours alone, and the program knows nothing of it.
    for_control: Option<Directory>,
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
        let mut for_control = None;
        if directory.is_none() && plan.rotation.is_some() && arguments.command.stays() {
            // A program without files does not fail for want of it.
            match Directory::open(&arguments.options, account, false, plan.in_kubernetes) {
                Ok(opened) => for_control = Some(opened),
                Err(problem) => report::warn_of(&[nobody_can_ask(problem)]),
            }
        }
        report::warn_of(directory.as_ref().or(for_control.as_ref()).map_or(&[], |directory| directory.warning.as_slice()));
        Ok(Self { directory, for_control, owners })
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

    /// Where the files are; none when the plan has none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.directory.as_ref().map(|directory| directory.path.as_path())
    }

    /// The directory of the files, or that for the socket alone: it is locked as long as a copy of this is open somewhere.
    #[must_use]
    pub fn lock(&self) -> Option<&OwnedFd> {
        self.directory.as_ref().or(self.for_control.as_ref()).map(Directory::lock)
    }

    /// Makes the files this process's alone to replace, for as long as a copy of the [lock](Self::lock) is open: a start beside it, a probe for example, leaves those that
    /// are there as they are. To be called before the first of them is written.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when that cannot be noted.
    pub fn reserve(&mut self, plan: &Plan) -> Result<(), Problem> {
        self.directory.as_mut().map_or(Ok(()), |directory| directory.reserve(plan))
    }

    /// The program's whole environment, if the kernel takes it.
    ///
    /// # Errors
    ///
    /// A problem with exit code 65 when it is too large.
    pub fn environment(
        &self,
        plan: &Plan,
        secrets: &Secrets,
        arguments: &Arguments,
        account: Option<&Account>,
    ) -> Result<Vec<CString>, Problem> {
        let environment = environment::of(plan, secrets, self.directory.as_ref(), account);
        if arguments.command != Command::Write {
            environment::check_size(plan, secrets, &environment, &arguments.program)?;
        }
        Ok(environment)
    }

    /// Makes the files of some deliveries, each by its index in the plan, so that all that can fail is done. A group is made as a whole, also when not all of it is given.
    /// What is absent stays as it is: a secret that is gone takes nothing away from a program that runs.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73; nothing has changed then.
    pub fn stage<'a>(&'a self, plan: &'a Plan, changed: &[(usize, &Value)]) -> Result<Staged<'a>, Problem> {
        if let Some(directory) = self.directory.as_ref().filter(|directory| directory.has_reserved) {
            draft::sweep(directory);
        }
        let mut staged = Staged::new(self, plan, changed, Absent::Stays)?;
        staged.note_new()?;
        Ok(staged)
    }

    /// Removes the generations of groups that nobody reads any more, and tells when the next can go.
    pub fn sweep(&self, plan: &Plan) -> Option<Duration> {
        let directory = self.directory.as_ref()?;
        let mut groups: Vec<&str> = plan.files().filter(|file| file.group.is_some()).map(File::parent).collect();
        groups.sort_unstable();
        groups.dedup();
        let groups = groups.into_iter().filter_map(|path| directory.walk(path, open_directory).ok());
        groups.filter_map(|group| group::remove_superseded(&group)).min()
    }

    /// Writes the files as a start does.
    fn write(&mut self, plan: &Plan, secrets: &Secrets, command: Command) -> Result<(), Problem> {
        let Some(directory) = &mut self.directory else { return Ok(()) };
        let values: Vec<(usize, &Value)> = secrets.iter().enumerate().collect();
        // Nothing would hold a lock for a program that we become, so exec mode neither sweeps nor is noted for a sweep.
        if command == Command::Exec {
            directory.share()?;
            return Staged::new(self, plan, &values, Absent::Goes)?.commit();
        }
        let planned = manifest::lines(plan, secrets);
        let others = directory.claim(&planned)?;
        let mut staged = Staged::new(self, plan, &values, Absent::Goes)?;
        staged.note(MANIFEST, planned.iter().chain(&others))?;
        if command == Command::Write {
            report::warn_of(&staged.left_alone());
        }
        staged.commit()?;
        self.directory.as_mut().map_or(Ok(()), |directory| directory.sweep(&planned, &others))
    }

    /// Who a file will belong to; none is our own user.
    fn owner(&self, index: usize, file: &File) -> Option<Ownership> {
        self.owners[index].or_else(|| self.owner_in_use(file))
    }

    /// The owner of a file that a running program may have, since nobody said another.
    fn owner_in_use(&self, file: &File) -> Option<Ownership> {
        let directory = self.directory.as_ref().filter(|directory| directory.is_in_use())?;
        let FileStat { st_mode, st_uid: uid, st_gid: gid, .. } =
            nix::sys::stat::fstatat(directory, file.path.as_str(), AtFlags::empty()).ok()?;
        (SFlag::from_bits_truncate(st_mode) & SFlag::S_IFMT == SFlag::S_IFREG).then_some(Ownership { uid, gid })
    }
}

/// What is told when no socket can be had: else `health` and `refresh` could only say that nobody answers.
fn nobody_can_ask(mut problem: Problem) -> Problem {
    problem.cause = format!("health and refresh cannot ask: {}", problem.cause);
    problem
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
pub fn all(
    plan: &Plan,
    secrets: &Secrets,
    place: &mut Place,
    arguments: &Arguments,
    account: Option<&Account>,
) -> Result<Delivered, Failure> {
    let command = arguments.command;
    let failed = |problem: Problem| Failure { problems: vec![problem], summary: consequence(command).to_owned() };
    let environment = place.environment(plan, secrets, arguments, account).map_err(failed)?;
    place.write(plan, secrets, command).map_err(failed)?;
    Ok(Delivered { environment, directory: place.path().map(Path::to_owned) })
}
