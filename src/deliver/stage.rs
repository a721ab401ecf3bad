//! What can fail comes first, and nobody sees it; then each file gets its name by one rename.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::stat::SFlag;

use super::Place;
use super::directory::{Below, Directory, kind, open_directory, split};
use super::draft::Draft;
use super::files::{self, Wanted};
use super::group::{self, Generation};
use super::manifest::{self, MANIFEST, collide};
use crate::plan::{Delivery, File, Plan, Target};
use crate::report::{Code, Problem};
use crate::resolve::Value;
use crate::secret::Secret;
use crate::user::Account;

/// Files that are complete, and not yet known by their names. Dropped, they are gone, and what was there is as it was.
pub struct Staged<'a> {
    /// None when the plan has no files.
    directory: Option<&'a Directory>,
    /// None as long as nothing is in it.
    draft: Option<Draft<'a>>,
    /// The lists of our names. They come first: what has its name has to be in one.
    lists: Vec<&'static str>,
    /// Paths, each with what messages call it.
    files: Vec<(&'a str, &'a str)>,
    groups: Vec<Generation<'a>>,
    /// What messages call the files that are left as they are, since they are [another's](Directory::reserve).
    left: Vec<&'a str>,
}

/// What becomes of a file of a group when its secret is absent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It is not in the next generation.
    Goes,
    /// It is there as it was.
    Stays,
}

impl<'a> Staged<'a> {
    /// Writes what is not as it should be. What is right already stays untouched, so that a probe beside a running program (`docker exec … secret-init --exec`) changes
    /// nothing for it.
    pub(super) fn new(place: &'a Place, plan: &'a Plan, changed: &[(usize, &Value)], absent: Absent) -> Result<Self, Problem> {
        let mut staged = Self::empty(place.directory.as_ref());
        let Some(directory) = staged.directory else { return Ok(staged) };
        let values: BTreeMap<usize, &Value> = changed.iter().copied().collect();
        let kept = if absent == Absent::Stays { kept(place, directory, plan, &values)? } else { BTreeMap::new() };
        let of_groups = files_of(plan).filter(|(index, _, file)| file.group.is_some() && values.contains_key(index));
        let mut groups: BTreeMap<&str, Vec<Wanted>> = of_groups.map(|(_, _, file)| (file.parent(), Vec::new())).collect();
        let mut singles = Vec::new();
        for (index, delivery, file) in files_of(plan) {
            let secret = match values.get(&index) {
                Some(Value::Secret(secret)) => Some(secret),
                _ => kept.get(&index),
            };
            let Some(secret) = secret else { continue };
            let wanted = Wanted { file, name: &delivery.name, secret, owner: place.owner(index, file) };
            match groups.get_mut(file.parent()).filter(|_| file.group.is_some()) {
                Some(group) => group.push(wanted),
                None => singles.push(wanted),
            }
        }
        let reserved = directory.reserved();
        for wanted in &singles {
            staged.stage(directory, wanted, &reserved).map_err(|problem| problem.about(wanted.name))?;
        }
        for (path, wanted) in &groups {
            staged.stage_group(directory, path, wanted, &reserved)?;
        }
        Ok(staged)
    }

    pub(super) fn empty(directory: Option<&'a Directory>) -> Self {
        Self { directory, draft: None, lists: Vec::new(), files: Vec::new(), groups: Vec::new(), left: Vec::new() }
    }

    fn stage(&mut self, directory: &'a Directory, wanted: &Wanted<'a, '_>, reserved: &[String]) -> Result<(), Problem> {
        let &Wanted { file, name, secret, owner } = wanted;
        let (parent, own) = split(&file.path);
        if let Ok(parent) = directory.walk(parent, open_directory) {
            if files::is_right(&parent, own, secret.expose(), file.mode, owner) {
                return Ok(());
            }
            if is_reserved(directory, &file.path, reserved) {
                self.left.push(name);
                return Ok(());
            }
            // The one thing that a rename cannot replace, and then others would already have their new names.
            if kind(&parent, own) == SFlag::S_IFDIR {
                return Err(files::problem(directory, &file.path, "cannot be replaced", Errno::EISDIR));
            }
        }
        let draft = self.draft(directory, &file.path)?;
        draft.prepare(parent)?;
        let failed = |(what, errno): (&str, Errno)| files::problem(directory, &file.path, what, errno);
        draft.write(&file.path, secret.expose(), file.mode, owner).map_err(failed)?;
        self.files.push((&file.path, name));
        Ok(())
    }

    fn stage_group(
        &mut self,
        directory: &'a Directory,
        path: &'a str,
        wanted: &[Wanted<'a, '_>],
        reserved: &[String],
    ) -> Result<(), Problem> {
        if let Ok(group) = directory.walk(path, open_directory) {
            // So that the next one has their room.
            group::remove_superseded(&group);
            if group::is_right(&group, wanted) {
                return Ok(());
            }
            if wanted.iter().any(|wanted| is_reserved(directory, &wanted.file.path, reserved)) {
                self.left.extend(wanted.iter().map(|wanted| wanted.name));
                return Ok(());
            }
        }
        let generation = Generation::write(self.draft(directory, path)?, path, wanted)?;
        self.groups.push(generation);
        Ok(())
    }

    /// Writes a list of our names, unless it is as it should be.
    pub(super) fn note<'l>(&mut self, list: &'static str, lines: impl Iterator<Item = &'l String>) -> Result<(), Problem> {
        let Some(directory) = self.directory else { return Ok(()) };
        let text: String = lines.flat_map(|line| [line.as_str(), "\n"]).collect();
        if files::is_right(&Below::Itself(directory.as_fd()), list, text.as_bytes(), manifest::MODE, None) {
            return Ok(());
        }
        let failed = |(what, errno): (&str, Errno)| files::problem(directory, list, what, errno);
        self.draft(directory, list)?.write(list, text.as_bytes(), manifest::MODE, None).map_err(failed)?;
        self.lists.push(list);
        Ok(())
    }

    /// Adds the names of the files that were not there before to those that a later start may sweep.
    pub(super) fn note_new(&mut self) -> Result<(), Problem> {
        let Some(directory) = self.directory else { return Ok(()) };
        let noted = directory.list(MANIFEST);
        let paths = self.files.iter().map(|(path, _)| (*path).to_owned());
        let new: Vec<String> = paths.filter(|path| !noted.contains(path)).collect();
        if new.is_empty() { Ok(()) } else { self.note(MANIFEST, noted.iter().chain(&new)) }
    }

    /// A warning for each file that is left as it is.
    pub(super) fn left_alone(&self) -> Vec<Problem> {
        let problem = |name| Problem::new(Code::CannotWrite, "is left as it is: the secret-init that watches it replaces it").about(name);
        self.left.iter().map(|name| problem(name).hint("secret-init refresh fetches it now")).collect()
    }

    fn draft(&mut self, directory: &'a Directory, path: &str) -> Result<&mut Draft<'a>, Problem> {
        Ok(match &mut self.draft {
            Some(draft) => draft,
            none => none.insert(Draft::new(directory).map_err(|errno| files::problem(directory, path, "cannot be made", errno))?),
        })
    }

    /// Whether nothing differs from what is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.groups.is_empty()
    }

    /// The directory in which the staged files lie by their own paths, each with its mode and its owner, a group as a whole; none when nothing is staged. It lets in the
    /// program's user, and nobody else but its group, which finds there what it may read anyway.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73 when it cannot be opened to that user.
    pub fn view(&self, account: Option<&Account>) -> Result<Option<PathBuf>, Problem> {
        let Some(draft) = &self.draft else { return Ok(None) };
        if let Some(account) = account {
            draft.open_to(account.gid).map_err(|(what, errno)| files::problem(draft.directory, &draft.name, what, errno))?;
        }
        Ok(Some(draft.directory.path.join(&draft.name)))
    }

    /// Gives each file its name, and swaps the groups.
    ///
    /// # Errors
    ///
    /// A problem with exit code 73: what has its name by then is new, all else as it was.
    pub fn commit(mut self) -> Result<(), Problem> {
        let Some(draft) = &mut self.draft else { return Ok(()) };
        let directory = draft.directory;
        for list in self.lists {
            publish(draft, directory, list)?;
        }
        for (path, name) in self.files {
            publish(draft, directory, path).map_err(|problem| problem.about(name))?;
        }
        self.groups.into_iter().try_for_each(|group| group.commit(draft))?;
        draft.keep_prepared();
        Ok(())
    }
}

/// The files of a plan, each with the number of its delivery.
fn files_of(plan: &Plan) -> impl Iterator<Item = (usize, &Delivery, &File)> {
    plan.deliveries.iter().enumerate().filter_map(|(index, delivery)| match &delivery.target {
        Target::File(file) => Some((index, delivery, file)),
        Target::Variable(_) | Target::Variables => None,
    })
}

/// What the next generations of groups take over from the current ones: what is not given.
fn kept(place: &Place, directory: &Directory, plan: &Plan, values: &BTreeMap<usize, &Value>) -> Result<BTreeMap<usize, Secret>, Problem> {
    let of_groups = || files_of(plan).filter(|(_, _, file)| file.group.is_some());
    let changed: BTreeSet<&str> = of_groups().filter(|(index, ..)| values.contains_key(index)).map(|(_, _, file)| file.parent()).collect();
    let is_given = |index: &usize| matches!(values.get(index), Some(Value::Secret(_)));
    let mut kept = BTreeMap::new();
    for (index, delivery, file) in of_groups().filter(|(index, _, file)| changed.contains(file.parent()) && !is_given(index)) {
        let content = group::content(directory, file, place.owner(index, file)).map_err(|problem| problem.about(&delivery.name))?;
        kept.extend(content.map(|content| (index, content)));
    }
    Ok(kept)
}

fn publish(draft: &Draft, directory: &Directory, path: &str) -> Result<(), Problem> {
    let (parent, name) = split(path);
    // Opened anew: a descriptor for each of many files would be too many.
    let parent = directory.below(parent)?;
    draft.publish(path, &parent, name).map_err(|errno| files::problem(directory, path, "cannot be replaced", errno))
}

/// Whether a file is there that is another's to replace.
fn is_reserved(directory: &Directory, path: &str, reserved: &[String]) -> bool {
    let (parent, name) = split(path);
    let is_there = || directory.walk(parent, open_directory).is_ok_and(|parent| !kind(&parent, name).is_empty());
    reserved.iter().any(|line| collide(line, path)) && is_there()
}
