//! Files that change, by inotify.
//!
//! A watch belongs to an inode, and a path leads to another inode when a link or a directory on its way is replaced. So each path is walked as the kernel walks it:
//! where a name may come to mean something else (a symbolic link, the file, something that is not there yet) the directory is watched for that name, the directories
//! above it for being moved away, and the file for what is written into it, which is all that can be seen of a file that is mounted by itself.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::stat::{SFlag, lstat};
use tokio::io::unix::AsyncFd;

use crate::report::{Code, Problem, os_error, printable};
use crate::sys::descriptor;

/// The names in a directory that come, go, or are replaced.
const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ONLYDIR);
/// A directory on the way, which comes to stand elsewhere.
const DIRECTORY: AddWatchFlags = AddWatchFlags::IN_MOVE_SELF.union(AddWatchFlags::IN_ONLYDIR);
/// A file: not each write, since what is half written is no secret yet, but the end of writing; and its attributes, to which the number of its links belongs.
const FILE: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_ATTRIB).union(AddWatchFlags::IN_MOVE_SELF);
/// Nothing is taken from a watch that another path has on the same inode, and no link is followed.
const ALWAYS: AddWatchFlags = AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD).union(AddWatchFlags::IN_DONT_FOLLOW);

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;
/// About what a full queue has, so that others get their turn.
const MOST_READS: usize = 128;

/// Tells which of the paths it follows may have changed.
pub struct Watch {
    queue: Option<Queue>,
    followed: Vec<Followed>,
    /// Who wants to know what, by watch.
    concerns: BTreeSet<Concern>,
    /// Found meanwhile, for [`Watch::look`] to tell.
    problems: Vec<Problem>,
    blindness: Option<Problem>,
    was_blind: bool,
}

struct Followed {
    path: PathBuf,
    /// What of [`Watch::concerns`] is this path's.
    concerns: BTreeSet<Concern>,
    /// Its file is mounted by itself and has no name any more where it was mounted from.
    is_cut_off: bool,
}

/// A path is concerned by the events of a watch: of this name in a directory, or of the inode itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Concern {
    watch: WatchDescriptor,
    name: Option<OsString>,
    followed: usize,
}

struct Queue {
    inotify: Inotify,
    /// The same once more, for the runtime to wait for.
    ready: AsyncFd<OwnedFd>,
}

impl Queue {
    fn open() -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let ready = descriptor::readable(inotify.as_fd().try_clone_to_owned()?)?;
        Ok(Self { inotify, ready })
    }
}

impl Watch {
    /// Follows nothing yet. To be called within the runtime. Without inotify it is blind, and [`Watch::blindness`] says why.
    #[must_use]
    pub fn new() -> Self {
        let mut watch =
            Self { queue: None, followed: Vec::new(), concerns: BTreeSet::new(), problems: Vec::new(), blindness: None, was_blind: false };
        watch.open();
        watch
    }

    /// Why changes are not seen at once, or not those of all files. Told once.
    pub fn blindness(&mut self) -> Option<Problem> {
        self.blindness.take()
    }

    /// Follows these paths too. What changes from now on is told by [`Watch::changed`]: read the files after this.
    pub fn follow(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let mut known: HashSet<PathBuf> = self.followed.iter().map(|followed| followed.path.clone()).collect();
        for path in paths {
            if known.insert(path.clone()) {
                self.followed.push(Followed { path, concerns: BTreeSet::new(), is_cut_off: false });
                self.walk(self.followed.len() - 1);
            }
        }
    }

    /// Waits until some of the paths may have changed. Nothing is lost when the wait is given up.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        loop {
            let Some(queue) = &self.queue else { return std::future::pending().await };
            let Ok(mut ready) = queue.ready.readable().await else { return std::future::pending().await };
            let mut concerned = BTreeSet::new();
            let mut broken = None;
            for _ in 0..MOST_READS {
                match ready.try_io(|_| Ok(queue.inotify.read_events()?)) {
                    Ok(Ok(events)) => concerned.extend(events.iter().flat_map(|event| self.concerned(event))),
                    Ok(Err(error)) => {
                        broken = Some(error);
                        break;
                    }
                    Err(_would_block) => break,
                }
            }
            if let Some(error) = broken {
                self.close(&error);
            }
            for &number in &concerned {
                self.walk(number);
            }
            if !concerned.is_empty() {
                return concerned.into_iter().map(|number| self.followed[number].path.clone()).collect();
            }
            tokio::task::yield_now().await;
        }
    }

    /// Looks anew where each path leads, since a mount over one is no event, and tells what can no longer be seen from here: of each path once.
    pub fn look(&mut self) -> Vec<Problem> {
        if self.queue.is_none() {
            self.open();
        }
        for number in 0..self.followed.len() {
            self.walk(number);
        }
        std::mem::take(&mut self.problems)
    }

    fn open(&mut self) {
        match Queue::open() {
            Ok(queue) => self.queue = Some(queue),
            Err(error) => self.close(&error),
        }
    }

    /// All watches end with their queue.
    fn close(&mut self, why: &std::io::Error) {
        self.queue = None;
        self.concerns.clear();
        self.followed.iter_mut().for_each(|followed| followed.concerns.clear());
        self.lament(|| {
            Problem::new(Code::System, format!("files cannot be watched: {}", os_error(why))).hint(
                "changes of files are seen by looking every 30 s; for inotify raise fs.inotify.max_user_instances on the host, or ulimit -n of the container",
            )
        });
    }

    fn lament(&mut self, why: impl FnOnce() -> Problem) {
        if !std::mem::replace(&mut self.was_blind, true) {
            self.blindness = Some(why());
        }
    }

    /// The paths that an event may concern.
    fn concerned<'a>(&'a self, event: &'a InotifyEvent) -> impl Iterator<Item = usize> + 'a {
        let lost = if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) { self.followed.len() } else { 0 };
        let first = Concern { watch: event.wd, name: event.name.clone(), followed: 0 };
        // What befell a directory itself concerns all that is in it.
        let is_of_it = |concern: &&Concern| concern.watch == event.wd && (event.name.is_none() || concern.name == event.name);
        (0..lost).chain(self.concerns.range(first..).take_while(is_of_it).map(|concern| concern.followed))
    }

    /// Walks a path, and watches what its meaning hangs on, and no more what it hung on before.
    ///
    /// A watch is set before it is looked at what it watches: whatever comes between is an event, by which the path is walked again.
    fn walk(&mut self, number: usize) {
        let path = std::path::absolute(&self.followed[number].path).unwrap_or_default();
        let before = std::mem::take(&mut self.followed[number].concerns);
        let mut at = PathBuf::from("/");
        let mut rest = Vec::new();
        push(&mut rest, &path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            // It is a directory when this can be done; a link, when it can be read; and else perhaps a directory that may be passed and not read.
            if !rest.is_empty() && self.watch(number, &next, DIRECTORY, None) {
                at = next;
                continue;
            }
            self.watch(number, &at, NAMES, Some(name));
            match std::fs::read_link(&next) {
                Ok(_) if links == MOST_LINKS => break,
                Ok(target) => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    push(&mut rest, &target);
                }
                Err(error) if error.raw_os_error() != Some(Errno::EINVAL as i32) => break,
                Err(_) if rest.is_empty() => self.arrive(number, &next),
                Err(_) => at = next,
            }
        }
        self.forget(number, &before);
    }

    /// The last of the names is no link.
    fn arrive(&mut self, number: usize, file: &Path) {
        let regular = || lstat(file).ok().filter(|status| SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
        let Some(status) = regular() else { return };
        self.watch(number, file, FILE, None);
        // A name leads to a file without one where it is a mount; or it was removed as we looked, and is not there any more.
        let is_cut_off = status.st_nlink == 0 && regular().is_some_and(|again| again.st_nlink == 0 && again.st_ino == status.st_ino);
        let followed = &mut self.followed[number];
        if !std::mem::replace(&mut followed.is_cut_off, is_cut_off) && is_cut_off {
            let cause = "the file was replaced where it is mounted from, and this mount still shows the old one";
            let problem = Problem::new(Code::Unavailable, cause).about(printable(followed.path.as_os_str().as_encoded_bytes()));
            self.problems
                .push(problem.hint("restart the container to have the new one; mount the directory, not the file, to see each change"));
        }
    }

    /// Watches an inode for a path, if that can be done.
    fn watch(&mut self, number: usize, inode: &Path, what: AddWatchFlags, name: Option<OsString>) -> bool {
        let Some(queue) = &self.queue else { return false };
        match queue.inotify.add_watch(inode, what | ALWAYS) {
            Ok(watch) => {
                let concern = Concern { watch, name, followed: number };
                self.followed[number].concerns.insert(concern.clone());
                self.concerns.insert(concern);
                true
            }
            Err(Errno::ENOSPC | Errno::ENOMEM) => {
                self.lament(|| {
                    Problem::new(Code::System, "not every file can be watched: no inotify watch is left")
                        .hint("changes of such files are seen by looking every 30 s; raise fs.inotify.max_user_watches on the host")
                });
                false
            }
            Err(_) => false,
        }
    }

    /// What no path hangs on is watched no more.
    fn forget(&mut self, number: usize, before: &BTreeSet<Concern>) {
        for concern in before.difference(&self.followed[number].concerns) {
            self.concerns.remove(concern);
            let any = Concern { watch: concern.watch, name: None, followed: 0 };
            let is_wanted = self.concerns.range(any..).next().is_some_and(|other| other.watch == concern.watch);
            if let (Some(queue), false) = (&self.queue, is_wanted) {
                // It has ended by itself where the inode is gone.
                let _ = queue.inotify.rm_watch(concern.watch);
            }
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts the names of a path before the rest of the way, which is a stack.
fn push(rest: &mut Vec<OsString>, path: &Path) {
    let names = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    rest.extend(names.rev().map(|part| part.as_os_str().to_owned()));
}
