//! Rotations: what is staged is seen by nobody, and then all of it is there; whoever comes beside undoes nothing.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{AT_FDCWD, FlockArg};
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use secret_init::cli::{self, Arguments};
use secret_init::config::Config;
use secret_init::deliver::{self, Place, Staged};
use secret_init::environment::Environment;
use secret_init::plan::Plan;
use secret_init::report::{Code, Problem};
use secret_init::resolve::Value;
use secret_init::secret::Secret;
use secret_init::sys::lock;
use secret_init::user::Account;
use support::files::{Small, mode_of, names_in};
use support::{Start, World, children, eventually, is_ours, send};

/// A file of its own, one in a directory, and a pair.
const FILES: &str = r#"
files:
  - { path: alone, from: "literal:old" }
  - { path: a/b/deep, from: "literal:old", mode: "0440" }
  - { path: tls/tls.crt, from: "literal:old", group: tls }
  - { path: tls/tls.key, from: "literal:old", group: tls }
"#;
const ALONE: usize = 0;
const DEEP: usize = 1;
const CRT: usize = 2;
const KEY: usize = 3;

/// What keeps a place over rotations, as the agent does.
struct Keeper {
    plan: Plan,
    place: Place,
    arguments: Arguments,
    account: Option<Account>,
}

impl Keeper {
    fn of(directory: &Path, files: &str, flags: &[&str]) -> Self {
        let words = [&["--dir", directory.to_str().unwrap()], flags, &["--", "true"]].concat();
        let Ok(arguments) = cli::parse(words.iter().map(Into::into).collect(), &[]) else { panic!("the arguments") };
        let plan = Plan::new(&arguments, &Environment::default(), &Config::parse(files.as_bytes(), "c.yaml".to_owned())).unwrap();
        let account = Account::wanted(&arguments).unwrap();
        let mut place = Place::open(&plan, &arguments, account.as_ref()).unwrap();
        place.reserve(&plan).unwrap();
        Self { plan, place, arguments, account }
    }

    /// The first delivery.
    fn starts(directory: &Path, files: &str, flags: &[&str], values: &[&str]) -> Self {
        let mut keeper = Self::of(directory, files, flags);
        let secrets = values.iter().map(|value| secret(value)).collect();
        deliver::all(&keeper.plan, &secrets, &mut keeper.place, &keeper.arguments, keeper.account.as_ref()).unwrap();
        keeper
    }

    fn stage(&self, changed: &[(usize, Value)]) -> Result<Staged<'_>, Problem> {
        let changed: Vec<(usize, &Value)> = changed.iter().map(|(index, value)| (*index, value)).collect();
        self.place.stage(&self.plan, &changed)
    }

    fn rotate(&self, changed: &[(usize, &str)]) {
        let changed: Vec<_> = changed.iter().map(|(index, value)| (*index, secret(value))).collect();
        self.stage(&changed).unwrap().commit().unwrap();
    }
}

fn secret(value: &str) -> Value {
    Value::Secret(Secret::copy_of(value.as_bytes()))
}

fn all_of(value: &str) -> Vec<(usize, Value)> {
    [ALONE, DEEP, CRT, KEY].map(|index| (index, secret(value))).into()
}

const PATHS: [&str; 4] = ["alone", "a/b/deep", "tls/tls.crt", "tls/tls.key"];

fn read(directory: &Path) -> [String; 4] {
    PATHS.map(|path| fs::read_to_string(directory.join(path)).unwrap())
}

/// Everything below a directory: path, inode, mode, owner, time of the last change, and what a link leads to or a file has in it.
fn everything(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in names_in(directory) {
        let path = directory.join(&name);
        let status = fs::symlink_metadata(&path).unwrap();
        let content = if status.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
        } else if status.is_file() {
            fs::read(&path).unwrap()
        } else {
            lines.extend(everything(&path));
            Vec::new()
        };
        let facts = (status.ino(), status.mode(), status.nlink(), status.uid(), status.gid(), status.len());
        lines.push(format!("{} {facts:?} {}", path.display(), String::from_utf8(content).unwrap()));
    }
    lines
}

/// The directory of a world, and what keeps it with `old` in all files.
fn kept(world: &World) -> (PathBuf, Keeper) {
    let directory = world.directory();
    let keeper = Keeper::starts(&directory, FILES, &[], &["old"; 4]);
    (directory, keeper)
}

// Staged.

#[test]
fn what_is_staged_is_seen_by_nobody_and_dropped_leaves_nothing() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let before = everything(&directory);
    let staged = keeper.stage(&all_of("new")).unwrap();
    assert!(!staged.is_empty());
    assert_eq!(read(&directory), ["old"; 4]);
    let draft: Vec<String> = names_in(&directory).into_iter().filter(|name| name.starts_with(".secret-init-")).collect();
    assert_eq!((draft.len(), mode_of(directory.join(&draft[0]))), (1, 0o700));
    drop(staged);
    assert_eq!(everything(&directory), before);
    keeper.stage(&all_of("new")).unwrap().commit().unwrap();
    assert_eq!(read(&directory), ["new"; 4]);
    assert_eq!(names_in(&directory), [".secret-init.files", ".secret-init.reserved", "a", "alone", "tls"]);
    assert_eq!(names_in(directory.join("tls")), ["..1", "..2", "..data", "tls.crt", "tls.key"]);
}

#[test]
fn what_is_right_already_is_not_staged() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let before = everything(&directory);
    let staged = keeper.stage(&all_of("old")).unwrap();
    assert!(staged.is_empty() && staged.view(None).unwrap().is_none());
    staged.commit().unwrap();
    keeper.rotate(&[]);
    assert_eq!(everything(&directory), before);
    // What has no files has nothing to stage.
    let keeper = Keeper::of(&directory, "env: { A: \"${literal:x}\" }", &[]);
    assert!(keeper.place.path().is_none() && keeper.place.lock().is_none() && keeper.place.sweep(&keeper.plan).is_none());
    assert!(keeper.stage(&[(0, secret("x"))]).unwrap().is_empty());
}

#[test]
fn once_it_is_staged_no_room_is_needed_any_more() {
    let world = World::new();
    let directory = world.directory();
    let small = Small::mounted_at(directory.clone(), "64k,nr_inodes=40");
    let optional = FILES.replace("path: a/b/deep, from: \"literal:old\"", "path: a/b/deep, from: \"file:/none?optional=true\"");
    let mut keeper = Keeper::of(&directory, &optional, &[]);
    let secrets = vec![secret("old"), Value::Absent, secret("old"), secret("old")];
    deliver::all(&keeper.plan, &secrets, &mut keeper.place, &keeper.arguments, None).unwrap();
    assert!(!directory.join("a").exists());
    let staged = keeper.stage(&all_of("new")).unwrap();
    // All that is left, of bytes and of names.
    let _ = fs::write(directory.join("filler"), vec![0; 64 << 10]);
    let fillers = (0..100).take_while(|number| symlink("x", directory.join(format!("filler-{number}"))).is_ok()).count();
    assert!((1..40).contains(&fillers) && fs::create_dir(directory.join("x")).is_err());
    staged.commit().unwrap();
    assert_eq!(read(&directory), ["new"; 4]);
    assert!(fs::read_to_string(directory.join(".secret-init.files")).unwrap().lines().any(|line| line == "a/b/deep"));
    drop(small);
}

#[test]
fn a_full_tmpfs_keeps_each_old_file_with_inode_and_bytes_and_leaves_nothing_behind() {
    let world = World::new();
    let directory = world.directory();
    let small = Small::mounted_at(directory.clone(), "96k");
    let keeper = Keeper::starts(&directory, FILES, &[], &["old"; 4]);
    let before = everything(&directory);
    let sizes = [[100, 1, 1, 1], [1, 100, 1, 1], [1, 1, 100, 1], [1, 1, 1, 100], [20, 20, 20, 40]];
    for (sizes, path) in sizes.into_iter().zip(["alone", "a/b/deep", "tls/tls.crt", "tls/tls.key", "tls/tls.key"]) {
        let changed: Vec<_> = sizes.iter().map(|&kilobytes| secret(&"x".repeat(kilobytes << 10))).enumerate().collect();
        let problem = keeper.stage(&changed).map(drop).unwrap_err();
        assert_eq!((problem.code, problem.cause.as_str()), (Code::CannotWrite, "cannot be written: no space left on device"));
        assert!(problem.subject.iter().any(|subject| subject.ends_with(path)), "{:?}", problem.subject);
        assert_eq!(everything(&directory), before, "{sizes:?}");
    }
    keeper.stage(&all_of("new")).unwrap().commit().unwrap();
    assert_eq!(read(&directory), ["new"; 4]);
    drop(small);
}

#[test]
fn a_tmpfs_without_inodes_keeps_each_old_file_and_leaves_nothing_behind() {
    let mut failed = 0;
    for inodes in 14..40 {
        let world = World::new();
        let directory = world.directory();
        let small = Small::mounted_at(directory.clone(), &format!("64k,nr_inodes={inodes}"));
        let mut keeper = Keeper::of(&directory, FILES, &[]);
        let secrets = all_of("old").into_iter().map(|(_, value)| value).collect();
        let before = everything(&directory);
        if deliver::all(&keeper.plan, &secrets, &mut keeper.place, &keeper.arguments, None).is_err() {
            assert_eq!(everything(&directory), before);
            failed += 1;
            continue;
        }
        let before = everything(&directory);
        if let Err(problem) = keeper.stage(&all_of("new")).map(drop) {
            assert!(problem.cause.ends_with("no space left on device"), "{problem:?}");
            assert_eq!(everything(&directory), before, "{inodes}");
            failed += 1;
        }
        drop(small);
    }
    println!("{failed} failed");
    assert!((3..24).contains(&failed), "{failed}");
}

#[test]
fn a_secret_that_is_gone_keeps_its_file_also_in_a_group() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    keeper.stage(&[(ALONE, Value::Absent), (CRT, Value::Absent), (KEY, secret("new"))]).unwrap().commit().unwrap();
    assert_eq!(read(&directory), ["old", "old", "old", "new"]);
    // A group is made as a whole, also when not all of it is given.
    keeper.rotate(&[(CRT, "new")]);
    assert_eq!(read(&directory), ["old", "old", "new", "new"]);
    assert_eq!(names_in(directory.join("tls/..data")), ["tls.crt", "tls.key"]);
    assert!(keeper.stage(&[(CRT, Value::Absent), (KEY, Value::Absent)]).unwrap().is_empty());
    // What lies there is not as we make it, so it is not ours to go on with.
    let key = directory.join("tls/..data/tls.key");
    fs::remove_file(&key).unwrap();
    symlink("/etc/shadow", &key).unwrap();
    keeper.rotate(&[(CRT, "newer")]);
    assert_eq!(names_in(directory.join("tls/..data")), ["tls.crt"]);
}

#[test]
fn a_file_of_a_group_that_cannot_be_read_is_not_dropped_from_it() {
    const DIRECTORY: &str = "T_DIRECTORY";
    let stage = |directory: &Path| {
        let keeper = Keeper::of(directory, FILES, &["--user=4242:4343"]);
        let problem = keeper.stage(&[(CRT, secret("new")), (KEY, Value::Absent)]).map(drop).unwrap_err();
        assert_eq!((problem.code, problem.cause.as_str()), (Code::CannotWrite, "cannot be read: permission denied"));
    };
    // The second time, as root that may not read what it gave away.
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return stage(Path::new(&directory));
    }
    let world = World::new();
    let directory = world.directory();
    drop(Keeper::starts(&directory, FILES, &["--user=4242:4343"], &["old"; 4]));
    let before = everything(&directory);
    let mut again = Command::new("setpriv");
    again.arg("--bounding-set=-dac_override,-dac_read_search").arg(std::env::current_exe().unwrap());
    again.args(["--exact", "a_file_of_a_group_that_cannot_be_read_is_not_dropped_from_it"]).env(DIRECTORY, &directory);
    let outcome = again.output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stdout));
    assert_eq!(everything(&directory), before);
}

#[test]
fn a_file_that_comes_with_a_rotation_goes_with_the_start_that_no_longer_asks_for_it() {
    let world = World::new();
    let directory = world.directory();
    let text = r#"files: [{ path: a/late, from: "file:/none?optional=true" }, { path: b, from: "literal:b" }]"#;
    let mut keeper = Keeper::of(&directory, text, &[]);
    deliver::all(&keeper.plan, &vec![Value::Absent, secret("b")], &mut keeper.place, &keeper.arguments, None).unwrap();
    keeper.rotate(&[(0, "late")]);
    assert_eq!(fs::read_to_string(directory.join("a/late")).unwrap(), "late");
    drop(keeper);
    configured(&world, text).flag("write").finishes().succeeds();
    assert_eq!(names_in(&directory), [".secret-init.files", "b"]);
}

#[test]
fn two_that_stage_at_once_both_swap() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let first = keeper.stage(&all_of("first")).unwrap();
    let second = keeper.stage(&all_of("second")).unwrap();
    second.commit().unwrap();
    first.commit().unwrap();
    assert_eq!(read(&directory), ["first"; 4]);
    assert_eq!(names_in(directory.join("tls")), ["..1", "..2", "..3", "..data", "tls.crt", "tls.key"]);
    assert_eq!(fs::read_to_string(directory.join("tls/..2/tls.key")).unwrap(), "second");
}

// Looked at before.

/// What a script says in there as this user and group.
fn as_user(uid: u32, gid: u32, script: &str, view: &Path) -> String {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    command.args(["sh", "-c", &format!("cd \"$0\" 2>&1 || exit 0; {{ {script}; }} 2>&1")]).arg(view);
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn who_validates_finds_the_staged_files_by_their_own_paths_and_nobody_else_does() {
    let world = World::new();
    let directory = world.directory();
    let keeper = Keeper::starts(&directory, FILES, &["--user=4242:4343"], &["old"; 4]);
    let staged = keeper.stage(&all_of("new")).unwrap();
    let view = staged.view(keeper.account.as_ref()).unwrap().unwrap();
    assert_eq!(view.parent(), Some(directory.as_path()));
    let cat = "cat alone a/b/deep tls/tls.crt tls/tls.key";
    assert_eq!(as_user(4242, 4343, cat, &view), "newnewnewnew");
    assert_eq!(
        as_user(4242, 4343, "stat -c '%n %a %u:%g' alone a/b/deep tls/tls.crt", &view),
        "alone 400 4242:4343\na/b/deep 440 4242:4343\ntls/tls.crt 400 4242:4343\n"
    );
    // It can neither list it nor put anything into it.
    let denied = as_user(4242, 4343, "ls; ls tls; echo x >x; mv alone other; rm tls/tls.key", &view);
    assert_eq!(denied.matches("ermission denied").count(), 5, "{denied}");
    // Of its group the mode of the file decides, as it will when it has its name.
    let others = as_user(4244, 4343, cat, &view);
    assert_eq!((others.matches("ermission denied").count(), others.matches("new").count()), (3, 1), "{others}");
    let stranger = as_user(4244, 4345, cat, &view);
    assert!(stranger.contains("can't cd"), "{stranger}");
    drop(staged);
    assert!(!view.exists());
    assert_eq!(read(&directory), ["old"; 4]);
    // Without another user it is ours alone, and a file that is right already is not in it.
    let keeper = Keeper::starts(&directory, FILES, &[], &["old"; 4]);
    let staged = keeper.stage(&[(ALONE, secret("old")), (CRT, secret("new"))]).unwrap();
    let view = staged.view(None).unwrap().unwrap();
    assert_eq!((mode_of(&view), fs::read_to_string(view.join("tls/tls.key")).unwrap().as_str()), (0o700, "old"));
    assert!(!view.join("alone").exists());
}

// What is left.

#[test]
fn superseded_generations_go_after_thirty_seconds() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let tls = directory.join("tls");
    let age = |generation: &str, by: Duration| {
        let then = TimeSpec::from_duration((SystemTime::now() - by).duration_since(SystemTime::UNIX_EPOCH).unwrap());
        utimensat(AT_FDCWD, &tls.join(generation), &then, &then, UtimensatFlags::NoFollowSymlink).unwrap();
    };
    assert_eq!(keeper.place.sweep(&keeper.plan), None);
    // It has been there for an hour, and is superseded only now.
    age("..1", Duration::from_hours(1));
    keeper.rotate(&[(CRT, "2"), (KEY, "2")]);
    keeper.rotate(&[(CRT, "3"), (KEY, "3")]);
    age("..1", Duration::from_secs(20));
    let next = keeper.place.sweep(&keeper.plan).unwrap();
    assert!(next > Duration::from_secs(5) && next <= Duration::from_secs(10), "{next:?}");
    assert_eq!(names_in(&tls), ["..1", "..2", "..3", "..data", "tls.crt", "tls.key"]);
    age("..1", Duration::from_secs(30));
    let next = keeper.place.sweep(&keeper.plan).unwrap();
    assert!(next > Duration::from_secs(20) && next <= Duration::from_secs(30), "{next:?}");
    assert_eq!(names_in(&tls), ["..2", "..3", "..data", "tls.crt", "tls.key"]);
    age("..2", Duration::from_secs(31));
    age("..3", Duration::from_hours(1));
    assert_eq!(keeper.place.sweep(&keeper.plan), None);
    assert_eq!(names_in(&tls), ["..3", "..data", "tls.crt", "tls.key"]);
    assert_eq!(read(&directory)[2..], ["3"; 2]);
}

#[test]
fn a_look_that_takes_long_does_not_make_the_new_generation_an_old_one() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let staged = keeper.stage(&all_of("new")).unwrap();
    let then = TimeSpec::from_duration(Duration::from_hours(1));
    utimensat(AT_FDCWD, &staged.view(None).unwrap().unwrap().join("tls"), &then, &then, UtimensatFlags::NoFollowSymlink).unwrap();
    staged.commit().unwrap();
    let age = fs::metadata(directory.join("tls/..2")).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age < Duration::from_mins(1), "{age:?}");
}

#[test]
fn what_a_killed_agent_left_goes_before_the_next_rotation_and_what_is_under_way_stays() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    for name in [".secret-init-7-0.tmp", ".secret-init-7-1.tmp"] {
        fs::create_dir_all(directory.join(name).join("tls")).unwrap();
        fs::write(directory.join(name).join("tls/tls.key"), "new").unwrap();
        symlink("..9", directory.join(name).join("..0")).unwrap();
    }
    let under_way = fs::File::open(directory.join(".secret-init-7-1.tmp")).unwrap();
    lock::flock(&under_way, FlockArg::LockExclusiveNonblock).unwrap();
    keeper.rotate(&[(ALONE, "new")]);
    assert_eq!(names_in(&directory), [".secret-init-7-1.tmp", ".secret-init.files", ".secret-init.reserved", "a", "alone", "tls"]);
    assert!(directory.join(".secret-init-7-1.tmp/tls/tls.key").exists());
    drop(under_way);
    keeper.rotate(&[(ALONE, "newer")]);
    assert_eq!(names_in(&directory), [".secret-init.files", ".secret-init.reserved", "a", "alone", "tls"]);
}

#[test]
fn thousands_of_rotations_leave_no_descriptor_and_no_file() {
    const ROUNDS: usize = 3_000;
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let ours = |path: &Path| path.starts_with(&directory);
    let descriptors = || {
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        open.filter(|path| ours(path)).count()
    };
    let open = descriptors();
    let began = Instant::now();
    for round in 0..ROUNDS {
        let staged = keeper.stage(&all_of(&format!("{round}"))).unwrap();
        if round % 3 == 0 {
            drop(staged);
        } else {
            staged.commit().unwrap();
        }
        for name in names_in(directory.join("tls")).iter().filter(|name| name.as_bytes()[2].is_ascii_digit()) {
            let long_ago = TimeSpec::from_duration(Duration::from_secs(1));
            utimensat(AT_FDCWD, &directory.join("tls").join(name), &long_ago, &long_ago, UtimensatFlags::NoFollowSymlink).unwrap();
        }
    }
    println!("{:?} each", began.elapsed() / u32::try_from(ROUNDS).unwrap());
    assert_eq!(keeper.place.sweep(&keeper.plan), None);
    assert_eq!(descriptors(), open);
    assert_eq!(names_in(&directory), [".secret-init.files", ".secret-init.reserved", "a", "alone", "tls"]);
    assert_eq!(names_in(directory.join("tls")).len(), 4);
    assert_eq!(read(&directory), [(ROUNDS - 1).to_string(), (ROUNDS - 1).to_string(), (ROUNDS - 1).to_string(), (ROUNDS - 1).to_string()]);
}

// Beside.

/// A start with a configuration in its own folder, in the directory of the world.
fn configured(world: &World, text: &str) -> Start {
    world.secret_init().flag("--config").flag(world.file("c.yaml", text)).directory(world.directory())
}

const SHOW: &str = "cd $SECRET_INIT_DIR; cat alone a/b/deep tls/tls.crt tls/tls.key";

#[test]
fn a_probe_beside_neither_undoes_a_rotation_nor_comes_before_it() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    keeper.rotate(&[(ALONE, "new"), (DEEP, "new"), (CRT, "new"), (KEY, "new")]);
    let before = everything(&directory);
    // What it fetched is older than what is there, and it has the environment of its own.
    let probe = configured(&world, &format!("{FILES}env: {{ A: \"${{literal:old}}\" }}\n"));
    for mode in ["--exec", "--group"] {
        let outcome = probe.clone().flag(mode).shell(&format!("{SHOW}; echo $A")).finishes();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("newnewnewnewold\n", ""), "{mode}");
        assert_eq!(everything(&directory).iter().filter(|line| !before.contains(line)).collect::<Vec<_>>(), [""; 0]);
    }
    // What it fetched is newer: to bring it is the agent's, which tells the program.
    configured(&world, &FILES.replace("old", "newest")).flag("--exec").shell(SHOW).finishes().succeeds();
    assert_eq!(read(&directory), ["new"; 4]);
    keeper.rotate(&[(ALONE, "newest"), (DEEP, "newest")]);
    assert_eq!(read(&directory), ["newest", "newest", "new", "new"]);
}

#[test]
fn a_file_that_is_missing_or_nobody_watches_is_written_beside_an_agent() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    fs::remove_file(directory.join("alone")).unwrap();
    let probe = |more: &str| {
        configured(&world, &format!("{FILES}  - {{ path: own, from: \"literal:{more}\" }}\n"))
            .flag("--exec")
            .shell("cat $SECRET_INIT_DIR/own $SECRET_INIT_DIR/alone")
    };
    assert_eq!(probe("1").finishes().succeeds(), "1old");
    assert_eq!(probe("2").finishes().succeeds(), "2old");
    // A group where the agent has plain files, and the reverse, would take them away.
    let other = "files: [{ path: a/b/deep, from: \"literal:x\", group: g }, { path: tls/tls.key, from: \"literal:x\" }]";
    configured(&world, other).flag("--exec").shell(":").finishes().succeeds();
    keeper.rotate(&[(CRT, "new")]);
    assert_eq!(read(&directory), ["old", "old", "new", "old"]);
}

#[test]
fn write_beside_an_agent_says_what_it_leaves() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    let outcome = configured(&world, &FILES.replace("literal:old", "literal:new")).flag("write").finishes();
    let warning = |path| format!("secret-init: warning: {path}: is left as it is: the secret-init that watches it replaces it\n");
    let told = PATHS.map(warning).concat() + "secret-init: hint: secret-init refresh fetches it now\n";
    assert_eq!((outcome.code(), outcome.stderr), (0, told));
    assert_eq!(read(&directory), ["old"; 4]);
    drop(keeper);
}

#[test]
fn files_are_reserved_as_long_as_a_copy_of_the_lock_is_open() {
    let world = World::new();
    let (directory, keeper) = kept(&world);
    // PID 1 has one, also when the agent was killed and the next is not there yet.
    let copy = keeper.place.lock().unwrap().try_clone().unwrap();
    drop(keeper);
    let probe = configured(&world, &FILES.replace("literal:old", "literal:new")).flag("--exec").shell(SHOW);
    assert_eq!(probe.finishes().succeeds(), "oldoldoldold");
    let next = Keeper::of(&directory, FILES, &[]);
    next.rotate(&[(ALONE, "newer")]);
    drop(next);
    assert_eq!(probe.finishes().succeeds(), "neweroldoldold");
    drop(copy);
    assert_eq!(probe.finishes().succeeds(), "newnewnewnew");
    // The list goes with the next start that is alone and reserves nothing.
    configured(&world, FILES).flag("write").finishes().succeeds();
    assert_eq!(names_in(&directory), [".secret-init.files", "a", "alone", "tls"]);
}

#[test]
fn beside_a_program_whose_secrets_are_watched_a_probe_is_harmless_also_while_the_agent_is_dead() {
    let world = World::new();
    let directory = world.directory();
    let source = world.file("source", "old");
    let text = |from: &str| format!("files: [{{ path: alone, from: \"{from}\" }}]\n");
    let start = configured(&world, &text(&format!("file:{}", source.display()))).flag("--watch").flag("--on-change").flag("none");
    let mut running = start.shell("echo runs; read line").listens().spawn();
    running.line("runs");
    world.file("next", "new");
    fs::rename(world.path.join("next"), &source).unwrap();
    let delivered = || fs::read_to_string(directory.join("alone")).unwrap();
    eventually("the agent brought it", || (delivered() == "new").then_some(()));
    let late = configured(&world, &text("literal:old")).flag("--exec").shell("cat $SECRET_INIT_DIR/alone");
    assert_eq!(late.finishes().succeeds(), "new");
    let agent = children(running.pid()).into_iter().find(|&child| is_ours(child)).unwrap();
    send(agent, libc::SIGKILL);
    for _ in 0..20 {
        assert_eq!(late.finishes().succeeds(), "new");
    }
    running.say("end");
    assert_eq!(running.finishes().code(), 0);
}
