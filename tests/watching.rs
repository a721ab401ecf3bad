//! Files that change are seen, whatever way they change, and nothing else is.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "a descriptor that is looked at by its number")]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use secret_init::report::Problem;
use secret_init::rotation::watch::Watch;
use support::{DEADLINE, World};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// A watch, and a file of its own: the queue keeps the order, so what is told before a change of that file is all that there was.
struct Watcher {
    runtime: Runtime,
    watch: Watch,
    fence: PathBuf,
}

impl Watcher {
    fn of<const COUNT: usize>(world: &World, paths: [&Path; COUNT]) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let fence = world.file("fence/post", "");
        let guard = runtime.enter();
        let mut watch = Watch::new();
        drop(guard);
        watch.follow(paths.iter().map(|path| path.to_path_buf()).chain([fence.clone()]));
        Self { runtime, watch, fence }
    }

    fn changed(&mut self) -> Vec<PathBuf> {
        self.runtime.block_on(async { timeout(DEADLINE, self.watch.changed()).await.unwrap() })
    }

    /// All that was told up to now, each path once.
    fn seen(&mut self) -> Vec<PathBuf> {
        fs::write(&self.fence, "x").unwrap();
        let mut seen = Vec::new();
        loop {
            seen.extend(self.changed());
            if let Some(at) = seen.iter().position(|path| *path == self.fence) {
                seen.remove(at);
                seen.sort();
                seen.dedup();
                return seen;
            }
        }
    }

    /// After something has changed, it is told, and the same once more: the watch goes on.
    fn sees(&mut self, path: &Path, change: impl Fn()) {
        for _ in 0..3 {
            change();
            assert_eq!(self.seen(), [path]);
            assert_eq!(self.seen(), [] as [&Path; 0]);
        }
    }

    fn look(&mut self) -> Vec<String> {
        let guard = self.runtime.enter();
        let problems = self.watch.look();
        drop(guard);
        problems.iter().map(Problem::to_string).collect()
    }
}

/// A folder that is written as kubelet does.
struct Volume {
    path: PathBuf,
    generation: u32,
}

impl Volume {
    fn new(world: &World, name: &str, files: &[&str]) -> Self {
        let path = world.path.join(name);
        fs::create_dir(&path).unwrap();
        let mut volume = Self { path, generation: 0 };
        volume.swap(files);
        for file in files {
            symlink(Path::new("..data").join(file), volume.path.join(file)).unwrap();
        }
        volume
    }

    fn swap(&mut self, files: &[&str]) {
        let generation = |number: u32| format!("..2026_01_01_00_00_00.{number}");
        let (old, new) = (generation(self.generation), generation(self.generation + 1));
        self.generation += 1;
        fs::create_dir(self.path.join(&new)).unwrap();
        for file in files {
            fs::write(self.path.join(&new).join(file), new.as_bytes()).unwrap();
        }
        symlink(&new, self.path.join("..data_tmp")).unwrap();
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).unwrap();
        let _ = fs::remove_dir_all(self.path.join(old));
    }
}

/// Replaces a file as careful programs do.
fn replace(path: &Path, content: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, path).unwrap();
}

fn relink(target: impl AsRef<Path>, path: &Path) {
    let temporary = path.with_extension("new");
    symlink(target, &temporary).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// Runs the test by this name again, in a process of its own that a wrapper starts, and its body there.
fn within<const COUNT: usize>(wrapper: [&str; COUNT], name: &str, body: impl FnOnce()) {
    if std::env::var_os("WITHIN").is_some() {
        return body();
    }
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("WITHIN", "1").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
}

/// The descriptors of inotify that this process has, and how many watches they have.
fn instances() -> Vec<(i32, usize)> {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let is_inotify = fs::read_link(&path).is_ok_and(|target| target == Path::new("anon_inode:inotify"));
        is_inotify.then(|| path.file_name().unwrap().to_str().unwrap().parse().unwrap())
    });
    let mut found: Vec<(i32, usize)> = descriptors
        .map(|number| {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            (number, info.lines().filter(|line| line.starts_with("inotify wd:")).count())
        })
        .collect();
    found.sort_unstable();
    found
}

fn run(program: &str, arguments: &[&Path]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

#[test]
fn a_file_that_is_written_in_place_is_seen_when_the_writing_ends() {
    let world = World::new();
    let path = world.file("a/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    watcher.sees(&path, || fs::write(&path, "new").unwrap());
    // Before that it is not whole.
    let mut writer = fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
    std::io::Write::write_all(&mut writer, b"ne").unwrap();
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
    std::io::Write::write_all(&mut writer, b"w").unwrap();
    drop(writer);
    assert_eq!(watcher.seen(), [path]);
}

#[test]
fn a_file_that_is_replaced_by_a_rename_is_seen_again_and_again() {
    let world = World::new();
    let path = world.file("a/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    watcher.sees(&path, || replace(&path, "new"));
    // What replaced it is watched too.
    watcher.sees(&path, || fs::write(&path, "in place").unwrap());
}

#[test]
fn a_file_that_is_removed_and_made_again_is_seen() {
    let world = World::new();
    let path = world.file("a/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    watcher.sees(&path, || {
        fs::remove_file(&path).unwrap();
        fs::write(&path, "new").unwrap();
    });
    watcher.sees(&path, || {
        if fs::remove_file(&path).is_err() {
            fs::write(&path, "new").unwrap();
        }
    });
}

#[test]
fn a_file_whose_mode_changes_is_seen_since_it_may_be_readable_now() {
    let world = World::new();
    let path = world.file("a/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    watcher.sees(&path, || fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap());
}

#[test]
fn reading_a_file_and_what_happens_beside_it_is_no_change() {
    let world = World::new();
    let path = world.file("a/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    fs::read(&path).unwrap();
    let other = world.file("a/other", "x");
    replace(&other, "y");
    fs::remove_file(other).unwrap();
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
    assert_eq!(watcher.look(), [] as [&str; 0]);
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
}

#[test]
fn what_kubelet_swaps_is_seen_at_the_swap_for_all_files_of_the_volume() {
    let world = World::new();
    let files = ["password", "username"];
    let mut volume = Volume::new(&world, "volume", &files);
    let paths = files.map(|file| volume.path.join(file));
    let mut watcher = Watcher::of(&world, [&paths[0], &paths[1]]);
    for _ in 0..3 {
        volume.swap(&files);
        assert_eq!(watcher.seen(), paths);
        assert_eq!(watcher.seen(), [] as [&Path; 0]);
    }
}

#[test]
fn the_end_of_an_old_generation_is_no_change_to_the_new_one() {
    let world = World::new();
    let mut volume = Volume::new(&world, "volume", &["password"]);
    let path = volume.path.join("password");
    let mut watcher = Watcher::of(&world, [&path]);
    let old = fs::read_link(volume.path.join("..data")).unwrap();
    // Kept for a while, and not removed by the swap.
    fs::create_dir(volume.path.join("kept")).unwrap();
    fs::rename(volume.path.join(&old), volume.path.join("kept").join(&old)).unwrap();
    symlink(Path::new("kept").join(&old), volume.path.join(&old)).unwrap();
    assert_eq!(watcher.seen(), [&*path]);
    volume.swap(&["password"]);
    assert_eq!(watcher.seen(), [&*path]);
    fs::remove_dir_all(volume.path.join("kept")).unwrap();
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
}

#[test]
fn two_volumes_do_not_wake_each_other() {
    within(["env"], "two_volumes_do_not_wake_each_other", || {
        let world = World::new();
        let mut one = Volume::new(&world, "one", &["a"]);
        let mut two = Volume::new(&world, "two", &["b"]);
        let (a, b) = (one.path.join("a"), two.path.join("b"));
        let mut both = Watcher::of(&world, [&a, &b]);
        one.swap(&["a"]);
        assert_eq!(both.seen(), [&*a]);
        two.swap(&["b"]);
        assert_eq!(both.seen(), [&*b]);
        drop(both);

        // Not even the process wakes.
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        let mut watch = Watch::new();
        watch.follow([b.clone()]);
        let is_readable = || {
            // SAFETY: the watch has it open, and lives longer.
            let descriptor = unsafe { BorrowedFd::borrow_raw(instances()[0].0) };
            poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
        };
        one.swap(&["a"]);
        assert!(!is_readable());
        two.swap(&["b"]);
        assert!(is_readable());
    });
}

#[test]
fn each_link_of_a_chain_of_links_is_watched() {
    let world = World::new();
    for place in ["one", "two"] {
        world.file(&format!("{place}/deep/secret"), place);
    }
    let folder = world.path.join("links");
    fs::create_dir(&folder).unwrap();
    let (path, middle, last) = (folder.join("secret"), folder.join("middle"), world.path.join("last"));
    // secret -> middle/deep/secret, middle -> ../last (relative, upwards) -> /…/one (absolute)
    symlink("middle/deep/secret", &path).unwrap();
    symlink("../last", &middle).unwrap();
    symlink(world.path.join("one"), &last).unwrap();
    let mut watcher = Watcher::of(&world, [&path]);
    watcher.sees(&path, || relink(world.path.join("two"), &last));
    watcher.sees(&path, || fs::write(world.path.join("two/deep/secret"), "in place").unwrap());
    watcher.sees(&path, || relink("../one", &middle));
    watcher.sees(&path, || replace(&world.path.join("one/deep/secret"), "new"));
    watcher.sees(&path, || relink("../two/deep/secret", &path));
    // It leads nowhere near these any more.
    replace(&world.path.join("one/deep/secret"), "newer");
    relink("one", &last);
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
}

#[test]
fn a_loop_of_links_ends_and_is_seen_when_it_is_mended() {
    let world = World::new();
    let (a, b) = (world.path.join("a"), world.path.join("b"));
    symlink("b", &a).unwrap();
    symlink("a", &b).unwrap();
    let mut watcher = Watcher::of(&world, [&a]);
    watcher.sees(&a, || replace(&b, "no link"));
}

#[test]
fn a_directory_that_is_removed_and_made_again_is_seen() {
    let world = World::new();
    let path = world.file("a/b/c/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    watcher.sees(&path, || {
        fs::remove_dir_all(world.path.join("a/b")).unwrap();
        world.file("a/b/c/secret", "new");
    });
    watcher.sees(&path, || {
        if fs::remove_dir_all(world.path.join("a")).is_err() {
            world.file("a/b/c/secret", "newer");
        }
    });
    watcher.sees(&path, || {
        world.file("a/b/c/secret", "newest");
    });
}

#[test]
fn a_directory_that_is_moved_away_with_all_that_is_in_it_is_seen() {
    let world = World::new();
    let path = world.file("a/b/c/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    for directory in ["a/b/c", "a/b", "a"] {
        let (directory, away) = (world.path.join(directory), world.path.join("away"));
        fs::rename(&directory, &away).unwrap();
        assert_eq!(watcher.seen(), [&*path], "{}", directory.display());
        fs::rename(&away, &directory).unwrap();
        assert_eq!(watcher.seen(), [&*path], "{}", directory.display());
    }
    watcher.sees(&path, || fs::write(&path, "new").unwrap());
}

#[test]
fn a_file_that_is_not_there_yet_is_seen_when_it_comes() {
    let world = World::new();
    let path = world.path.join("a/b/c/secret");
    let mut watcher = Watcher::of(&world, [&path]);
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
    fs::create_dir(world.path.join("a")).unwrap();
    assert_eq!(watcher.seen(), [&*path]);
    world.file("a/b/c/secret", "new");
    assert_eq!(watcher.seen(), [path]);
}

#[test]
fn a_file_below_a_directory_that_cannot_be_read_is_seen_as_far_as_it_can() {
    let wrapper = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"];
    within(wrapper, "a_file_below_a_directory_that_cannot_be_read_is_seen_as_far_as_it_can", || {
        let world = World::new();
        let path = world.file("a/closed/secret", "old");
        let closed = world.path.join("a/closed");
        let writer = |script: &str| run_as_1(&closed, script);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        chown(&closed, Some(1), Some(1)).unwrap();
        assert!(fs::read_dir(&closed).is_err());
        let mut watcher = Watcher::of(&world, [&path]);
        watcher.sees(&path, || fs::write(&path, "in place").unwrap());
        watcher.sees(&path, || writer("echo new > x && mv x secret"));
        // The name of the directory itself is seen above it.
        watcher.sees(&path, || {
            fs::rename(&closed, world.path.join("a/away")).unwrap();
            fs::rename(world.path.join("a/away"), &closed).unwrap();
        });
        chown(&closed, Some(0), Some(0)).unwrap();
    });
}

fn run_as_1(directory: &Path, script: &str) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1", "--regid=1", "--clear-groups", "sh", "-c", script]).current_dir(directory);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_file_that_is_mounted_by_itself_is_seen_in_place_and_told_once_when_it_was_replaced() {
    let name = "a_file_that_is_mounted_by_itself_is_seen_in_place_and_told_once_when_it_was_replaced";
    within(["unshare", "--mount"], name, || {
        let world = World::new();
        let source = world.file("host/secret", "old");
        let path = world.file("container/secret", "");
        run("mount", &[Path::new("--bind"), &source, &path]);
        let mut watcher = Watcher::of(&world, [&path]);
        watcher.sees(&path, || fs::write(&source, "in place").unwrap());
        assert_eq!(watcher.look(), [] as [&str; 0]);
        let told = format!("{}: the file was replaced where it is mounted from, and this mount still shows the old one", path.display());
        for _ in 0..2 {
            replace(&source, "new");
            assert_eq!(watcher.seen(), [&*path]);
            assert_eq!(fs::read(&path).unwrap(), b"in place");
            assert_eq!((watcher.look(), watcher.look()), (vec![told.clone()], vec![]));
            replace(&source, "in place");
            assert_eq!(watcher.seen(), [] as [&Path; 0]);
            // Mounted again it is whole, and no event tells it.
            run("umount", &[&path]);
            run("mount", &[Path::new("--bind"), &source, &path]);
            assert_eq!(watcher.look(), [] as [&str; 0]);
            watcher.sees(&path, || fs::write(&source, "in place").unwrap());
        }
        // What was replaced before anybody looked is told as well.
        replace(&source, "new");
        assert_eq!(Watcher::of(&world, [&path]).look(), [told]);
        run("umount", &[&path]);
    });
}

#[test]
fn a_directory_that_is_mounted_is_seen_whatever_happens_where_it_is_mounted_from() {
    within(["unshare", "--mount"], "a_directory_that_is_mounted_is_seen_whatever_happens_where_it_is_mounted_from", || {
        let world = World::new();
        let mut volume = Volume::new(&world, "host", &["password"]);
        world.file("host/plain", "old");
        let mounted = world.path.join("container");
        fs::create_dir(&mounted).unwrap();
        run("mount", &[Path::new("--bind"), &volume.path, &mounted]);
        let (password, plain) = (mounted.join("password"), mounted.join("plain"));
        let mut watcher = Watcher::of(&world, [&password, &plain]);
        volume.swap(&["password"]);
        assert_eq!(watcher.seen(), [password]);
        watcher.sees(&plain, || replace(&world.path.join("host/plain"), "new"));
        watcher.sees(&plain, || fs::write(world.path.join("host/plain"), "in place").unwrap());
        assert_eq!(watcher.look(), [] as [&str; 0]);
        run("umount", &[&mounted]);
    });
}

#[test]
fn without_an_instance_of_inotify_it_is_blind_says_so_once_and_sees_again_when_there_is_one() {
    let script = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
    let name = "without_an_instance_of_inotify_it_is_blind_says_so_once_and_sees_again_when_there_is_one";
    within(["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"], name, || {
        let world = World::new();
        let path = world.file("a/secret", "old");
        let mut watcher = Watcher::of(&world, [&path]);
        assert_eq!(watcher.watch.blindness().unwrap().to_string(), "files cannot be watched: too many open files");
        assert!(watcher.watch.blindness().is_none());
        assert_eq!(watcher.look(), [] as [&str; 0]);
        assert!(watcher.watch.blindness().is_none());
        fs::write(&path, "new").unwrap();
        // It waits for ever, and takes nothing from others that wait.
        let waited = watcher.runtime.block_on(async { timeout(Duration::from_millis(20), watcher.watch.changed()).await });
        assert!(waited.is_err());
        fs::write("/proc/sys/user/max_inotify_instances", "1").unwrap();
        watcher.look();
        watcher.sees(&path, || fs::write(&path, "new").unwrap());
    });
}

#[test]
fn without_a_descriptor_for_inotify_it_is_blind_and_says_so() {
    // Runtime and harness have theirs: none is left when the watch wants one.
    within(["env"], "without_a_descriptor_for_inotify_it_is_blind_and_says_so", || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        // The next two numbers that the kernel would give.
        let free = [fs::File::open("/").unwrap(), fs::File::open("/").unwrap()].map(|file| u64::try_from(file.as_raw_fd()).unwrap());
        // None for inotify, and then none for the second descriptor that the runtime waits for.
        for (limit, is_blind) in [(free[0], true), (free[0] + 1, true), (free[1] + 1, false)] {
            setrlimit(Resource::RLIMIT_NOFILE, limit, 1024).unwrap();
            let told = Watch::new().blindness().map(|problem| problem.to_string());
            assert_eq!(told.as_deref(), is_blind.then_some("files cannot be watched: too many open files"));
        }
    });
}

#[test]
fn without_enough_watches_it_sees_what_it_can_and_says_so_once() {
    let script = "echo 20 >/proc/sys/user/max_inotify_watches && exec \"$@\"";
    let name = "without_enough_watches_it_sees_what_it_can_and_says_so_once";
    within(["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"], name, || {
        let world = World::new();
        let first = world.file("a/first", "old");
        let mut watcher = Watcher::of(&world, [&first]);
        assert!(watcher.watch.blindness().is_none());
        let others: Vec<PathBuf> = (0..30).map(|number| world.file(&format!("a/{number}"), "old")).collect();
        watcher.watch.follow(others.iter().cloned());
        assert_eq!(watcher.watch.blindness().unwrap().to_string(), "not every file can be watched: no inotify watch is left");
        watcher.look();
        assert!(watcher.watch.blindness().is_none());
        watcher.seen();
        watcher.sees(&first, || fs::write(&first, "new").unwrap());
        // Its directory is watched, and nothing more is needed for that.
        watcher.sees(&others[29], || replace(&others[29], "new"));
    });
}

#[test]
fn a_queue_that_overflows_means_that_anything_may_have_changed() {
    let world = World::new();
    let (a, b) = (world.file("a/secret", "old"), world.file("b/secret", "old"));
    let mut watcher = Watcher::of(&world, [&a, &b]);
    let longest: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // Each makes two events, and no two that follow each other are the same.
    for number in 0..=longest / 2 {
        let path = world.path.join("a").join(["x", "y"][number % 2]);
        fs::File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
    }
    // Of this there is no event any more: neither that the one file changed, nor that the watch on the other has ended.
    replace(&a, "new");
    fs::remove_dir_all(world.path.join("b")).unwrap();
    world.file("b/secret", "new");
    assert_eq!(watcher.changed(), [&*a, &b, &watcher.fence.clone()]);
    watcher.sees(&a, || fs::write(&a, "new").unwrap());
    watcher.sees(&b, || fs::write(&b, "new").unwrap());
}

#[test]
fn of_a_thousand_files_those_that_change_are_told_and_no_others() {
    let world = World::new();
    let paths: Vec<PathBuf> = (0..1000).map(|number| world.file(&format!("a/{number:04}"), "old")).collect();
    let mut watcher = Watcher::of(&world, []);
    let start = Instant::now();
    watcher.watch.follow(paths.iter().cloned());
    let followed = start.elapsed();
    assert!(watcher.watch.blindness().is_none());
    let start = Instant::now();
    assert_eq!(watcher.look(), [] as [&str; 0]);
    println!("1,000 files: followed in {followed:?}, looked at in {:?}", start.elapsed());
    assert_eq!(watcher.seen(), [] as [&Path; 0]);
    replace(&paths[7], "new");
    fs::write(&paths[500], "new").unwrap();
    assert_eq!(watcher.seen(), [&*paths[7], &paths[500]]);
    for path in &paths {
        replace(path, "new");
    }
    assert_eq!(watcher.seen(), paths);
    for path in &paths {
        fs::write(path, "in place").unwrap();
    }
    assert_eq!(watcher.seen(), paths);
}

#[test]
fn thousands_of_swaps_leave_no_watch_and_no_descriptor() {
    within(["env"], "thousands_of_swaps_leave_no_watch_and_no_descriptor", || {
        let world = World::new();
        let files = ["password", "username"];
        let mut volume = Volume::new(&world, "volume", &files);
        let plain = world.file("plain/secret", "old");
        let paths = files.map(|file| volume.path.join(file));
        let mut watcher = Watcher::of(&world, [&plain, &paths[0], &paths[1]]);
        let (before, open) = (instances(), fs::read_dir("/proc/self/fd").unwrap().count());
        for _ in 0..2000 {
            volume.swap(&files);
            replace(&plain, "new");
            assert_eq!(watcher.seen(), [&*plain, &paths[0], &paths[1]]);
            watcher.watch.follow([plain.clone()]);
        }
        // What it led to before stays where it is.
        let kept = ["one", "two"].map(|name| world.file(&format!("{name}/secret"), name));
        fs::remove_file(&plain).unwrap();
        for number in 0..100 {
            relink(&kept[number % 2], &plain);
            assert_eq!(watcher.seen(), [&*plain]);
        }
        replace(&plain, "new");
        assert_eq!(watcher.seen(), [&*plain]);
        watcher.look();
        assert_eq!((instances(), fs::read_dir("/proc/self/fd").unwrap().count()), (before, open));
        drop(watcher);
        assert_eq!(instances(), []);
    });
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    let world = World::new();
    let paths: Vec<PathBuf> = (0..300).map(|number| world.file(&format!("a/{number:04}"), "old")).collect();
    let mut watcher = Watcher::of(&world, []);
    watcher.watch.follow(paths.iter().cloned());
    let script = "for file in a/*; do echo new >new && mv new $file; done";
    let mut writer = Command::new("sh").args(["-c", script]).current_dir(&world.path).spawn().unwrap();
    let Watcher { runtime, watch, .. } = &mut watcher;
    let mut seen = std::collections::BTreeSet::new();
    let mut given_up = 0;
    runtime.block_on(async {
        let all = async {
            while seen.len() < paths.len() {
                tokio::select! {
                    biased;
                    // Not a wait: it is what the future is given up for.
                    () = tokio::time::sleep(Duration::from_micros(1)) => given_up += 1,
                    changed = watch.changed() => seen.extend(changed),
                }
            }
        };
        timeout(DEADLINE, all).await.unwrap();
    });
    assert!(writer.wait().unwrap().success());
    assert!(seen.iter().eq(&paths) && given_up > 0, "{given_up}");
}

#[test]
fn a_change_is_told_within_a_millisecond_or_so() {
    let world = World::new();
    let path = world.file("a/secret", "old");
    let mut watcher = Watcher::of(&world, [&path]);
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            replace(&path, "new");
            let start = Instant::now();
            assert_eq!(watcher.changed(), [&*path]);
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("from the rename to the path: median {:?}, longest {:?}", took[100], took[199]);
    assert!(took[100] < Duration::from_millis(20));
}
