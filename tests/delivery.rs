//! Where secrets go: the directory, the files at each instant, what a later start sweeps, the user, and the environment.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use support::files::{Small, after, mode_of, names_in, number_of, set_mode, spin_until, stamped};
use support::{Start, World, eventually};

/// As in an image whose `/run` is on its disk, or is root's.
const NO_ROOM_IN_RUN: &str = "mount -t tmpfs -o mode=0755 none /run && mount -t tmpfs none /dev/shm";
/// The name in `/dev/shm` that is the user's and the container's own.
const OWN_NAME: &str = "/dev/shm/secret-init-$UID_-$(readlink /proc/self/ns/mnt | tr -dc 0-9)";

fn own_name(uid: u32) -> String {
    OWN_NAME.replace("$UID_", &uid.to_string())
}

/// The hint of a directory that cannot be used.
fn mount_hint(path: &str, uid: u32) -> String {
    format!(
        "hint: mount a tmpfs: docker run --tmpfs {path}:mode=0700,uid={uid}, or in Compose tmpfs: [\"{path}:mode=0700,uid={uid}\"]; or accept a disk with --allow-disk"
    )
}

const NOT_STARTED: &str = "the program was not started";

/// Shows where the file `T_A` went.
const WHERE: &str = "echo $SECRET_INIT_DIR $T_A_FILE; stat -c '%a %u:%g' $SECRET_INIT_DIR $T_A_FILE";

// The choice of the directory.

#[test]
fn files_go_to_run_where_that_is_in_memory() {
    let start = World::new().secret_init().variable("T_A_FILE", "literal:x").shell(WHERE);
    let expected = "/run/secret-init /run/secret-init/T_A\n700 0:0\n400 0:0\n";
    assert_eq!(after(start.clone(), "mount -t tmpfs none /run").finishes().succeeds(), expected);
    // As `docker run --tmpfs /run/secret-init` makes it.
    let mounted = "mount -t tmpfs none /run && mkdir /run/secret-init && mount -t tmpfs -o mode=1777 none /run/secret-init";
    assert_eq!(after(start, mounted).finishes().succeeds(), expected);
}

#[test]
fn a_user_who_cannot_write_to_run_gets_a_directory_of_his_own_in_shared_memory() {
    let script = "case $SECRET_INIT_DIR in /dev/shm/secret-init-1000-*[0-9]) echo $T_A_FILE | grep -c ^$SECRET_INIT_DIR/T_A$;; esac; stat -c '%a %u:%g' $SECRET_INIT_DIR $T_A_FILE";
    let start = after(World::new().secret_init(), NO_ROOM_IN_RUN).as_user(1000).variable("T_A_FILE", "literal:x").shell(script);
    assert_eq!(start.finishes().succeeds(), "1\n700 1000:1000\n400 1000:1000\n");
}

#[test]
fn in_kubernetes_shared_memory_is_the_whole_pods_and_never_taken() {
    let start = after(World::new().secret_init(), NO_ROOM_IN_RUN)
        .as_user(1000)
        .variable("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .variable("T_A_FILE", "literal:x")
        .shell("echo started");
    start.finishes().fails(
        73,
        &[
            "/run/secret-init: cannot be made: permission denied",
            "hint: add to the pod volumes: [{name: secrets, emptyDir: {medium: Memory}}], and to the container volumeMounts: [{name: secrets, mountPath: /run/secret-init}]",
            NOT_STARTED,
        ],
    );
}

#[test]
fn a_directory_in_shared_memory_that_somebody_else_made_is_refused() {
    let traps = [
        ("mkdir -m 0755 $NAME && chown 1001 $NAME", "cannot be written: permission denied"),
        ("mkdir $NAME && chown 1001 $NAME && chmod 0777 $NAME", "is another user's, or others can write to it"),
        ("mkdir $NAME && chown 1000 $NAME && chmod 0777 $NAME", "is another user's, or others can write to it"),
        ("mkdir -m 0777 /dev/shm/trap && ln -s /dev/shm/trap $NAME", "cannot be opened: not a directory"),
        ("touch $NAME && chown 1000 $NAME", "cannot be opened: not a directory"),
    ];
    for (trap, cause) in traps {
        let start = after(World::new().secret_init(), &format!("{NO_ROOM_IN_RUN} && NAME={} && {trap}", own_name(1000)));
        let first = format!("/run/secret-init: cannot be made: permission denied; nor in /dev/shm: {cause}");
        let lines = [first.as_str(), &mount_hint("/run/secret-init", 1000), NOT_STARTED];
        start.as_user(1000).variable("T_A_FILE", "literal:x").shell("echo started").finishes().fails(73, &lines);
    }
}

#[test]
fn a_directory_in_run_that_another_user_made_is_passed_over() {
    let squatted = "mount -t tmpfs none /run && mkdir /run/secret-init && chown 1001 /run/secret-init";
    let start = after(World::new().secret_init(), &format!("{squatted} && mount -t tmpfs none /dev/shm"));
    let stdout = start.variable("T_A_FILE", "literal:x").shell("echo $SECRET_INIT_DIR; ls /run/secret-init").finishes().succeeds();
    assert!(stdout.starts_with("/dev/shm/secret-init-0-") && stdout.lines().count() == 1, "{stdout}");
}

#[test]
fn a_directory_in_run_may_be_the_programs_own_user_s() {
    let mounted = "mount -t tmpfs none /run && mkdir /run/secret-init && mount -t tmpfs -o mode=0700,uid=4242 none /run/secret-init";
    let start = after(World::new().secret_init(), mounted).flag("--user=4242:4343").variable("T_A_FILE", "literal:x");
    assert_eq!(start.shell(WHERE).finishes().succeeds(), "/run/secret-init /run/secret-init/T_A\n700 4242:0\n400 4242:4343\n");
}

#[test]
fn a_mount_at_run_that_is_roots_and_open_to_all_is_taken_with_a_warning() {
    // As an emptyDir in a pod that does not run as root.
    let mounted = "mount -t tmpfs none /run && mkdir /run/secret-init && mount -t tmpfs -o mode=0777 none /run/secret-init";
    let start = after(World::new().secret_init(), mounted).as_user(1000).variable("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    let outcome = start.variable("T_A_FILE", "literal:x").shell("echo $T_A_FILE").finishes();
    assert_eq!(outcome.stdout, "/run/secret-init/T_A\n");
    assert_eq!(outcome.stderr, "secret-init: warning: /run/secret-init: others can write to it (owner 0, mode 0777)\n");
}

#[test]
fn a_directory_on_disk_is_refused_unless_a_disk_is_accepted() {
    let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("on-disk");
    let start = World::new().secret_init().directory(&disk).variable("T_A_FILE", "literal:x").shell("cat $T_A_FILE");
    let path = disk.display().to_string();
    let lines = [&format!("{path}: is not in memory (tmpfs or ramfs)"), &*mount_hint(&path, 0), NOT_STARTED];
    start.finishes().fails(73, &lines);
    assert!(!disk.exists());
    assert_eq!(start.clone().flag("--allow-disk").finishes().succeeds(), "x");
    assert_eq!(start.variable("SECRET_INIT_ALLOW_DISK", "true").finishes().succeeds(), "x");
    fs::remove_dir_all(&disk).unwrap();
}

#[test]
fn where_nothing_is_in_memory_the_default_too_needs_that_a_disk_is_accepted() {
    // A bind of the disk over both hides every tmpfs.
    let disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no-memory");
    fs::create_dir_all(&disk).unwrap();
    let binds = format!("mount --bind {0} /run && mount --bind {0} /dev/shm", disk.display());
    let start = after(World::new().secret_init(), &binds).variable("T_A_FILE", "literal:x").shell("echo $T_A_FILE");
    let first = "/run/secret-init: /run is not in memory; nor in /dev/shm: /dev/shm is not in memory";
    start.finishes().fails(73, &[first, &mount_hint("/run/secret-init", 0), NOT_STARTED]);
    assert!(!names_in(&disk).iter().any(|name| name.contains("secret-init")));
    assert_eq!(start.flag("--allow-disk").finishes().succeeds(), "/run/secret-init/T_A\n");
    fs::remove_dir_all(&disk).unwrap();
}

#[test]
fn a_read_only_directory_is_named() {
    let world = World::new();
    let path = world.directory().display().to_string();
    let start = after(world.secret_init(), &format!("mount -t tmpfs -o ro none {path}")).directory(&path);
    let lines = [&format!("{path}: cannot be written: read-only file system"), &*mount_hint(&path, 0), NOT_STARTED];
    start.variable("T_A_FILE", "literal:x").shell("echo started").finishes().fails(73, &lines);
}

#[test]
fn a_directory_of_another_user_is_named() {
    let world = World::new();
    let path = world.directory().display().to_string();
    let start = world.secret_init().as_user(1000).directory(&path).variable("T_A_FILE", "literal:x").shell("echo started");
    start.finishes().fails(73, &[&format!("{path}: cannot be opened: permission denied"), &*mount_hint(&path, 1000), NOT_STARTED]);
}

#[test]
fn a_folder_that_is_closed_for_the_user_of_the_program_is_told() {
    let world = World::new();
    let path = world.directory().display().to_string();
    set_mode(&world.path, 0o700);
    let start = world.secret_init().directory(&path).flag("--user=4242:4343").variable("T_A_FILE", "literal:x").shell("echo started");
    let cause = format!("{path}: the program cannot reach its secrets as uid 4242: permission denied");
    start.finishes().fails(73, &[&cause, "hint: each folder above it needs the permission x for that user", NOT_STARTED]);
}

#[test]
fn a_directory_that_others_can_write_to_is_taken_with_a_warning() {
    let world = World::new();
    let path = world.directory();
    set_mode(&path, 0o777);
    let outcome = world.secret_init().directory(&path).variable("T_A_FILE", "literal:x").shell("cat $T_A_FILE").finishes();
    let warning = format!("secret-init: warning: {}: others can write to it (owner 0, mode 0777)\n", path.display());
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code()), ("x", warning.as_str(), 0));
    assert_eq!(mode_of(&path), 0o777);
}

#[test]
fn a_problem_with_the_directory_and_those_of_secrets_are_told_together() {
    let world = World::new();
    let path = world.file("no-directory", "").display().to_string();
    let none = world.path.join("none").display().to_string();
    let lines = [
        &format!("{path}: cannot be opened: not a directory"),
        &mount_hint(&path, 0),
        &format!("T_B_FILE: file:{none}: no such file"),
        "hint: mount the secret there, or leave the variable alone with --skip T_B_FILE",
        "1 of 2 secrets failed; the program was not started",
    ];
    let start = world.secret_init().directory(&path).variable("T_A_FILE", "literal:x").variable("T_B_FILE", &none);
    start.shell("echo started").finishes().fails(66, &lines);
}

#[test]
fn the_directory_that_is_made_has_its_mode_whatever_the_umask() {
    for umask in ["0", "022", "077"] {
        let world = World::new();
        let start = |name: &str| {
            let start = world.secret_init().under(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
            start.directory(world.path.join(name)).variable("T_A_FILE", "literal:x").shell("cat $T_A_FILE")
        };
        assert_eq!(start("ours").finishes().succeeds(), "x");
        assert_eq!(mode_of(world.path.join("ours")), 0o700, "umask {umask}");
        assert_eq!(start("theirs").flag("--user=4242:4343").finishes().succeeds(), "x");
        assert_eq!(mode_of(world.path.join("theirs")), 0o711, "umask {umask}");
    }
}

#[test]
fn a_directory_that_was_there_lets_the_programs_user_through_and_stays_roots() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", "literal:x");
    let stdout = start.flag("--user=4242:4343").shell("cat $T_A_FILE; ls $SECRET_INIT_DIR 2>&1; rm -f $T_A_FILE 2>&1").finishes().stdout;
    assert!(stdout.starts_with('x') && stdout.matches("Permission denied").count() == 2, "{stdout}");
    assert_eq!((mode_of(world.directory()), fs::metadata(world.directory()).unwrap().uid()), (0o711, 0));
}

#[test]
fn the_program_is_told_the_directory_when_there_are_files_in_it() {
    let world = World::new();
    let start = world.secret_init().variable("SECRET_INIT_DIR", world.directory()).shell("echo $SECRET_INIT_DIR");
    assert_eq!(start.finishes().succeeds(), "\n");
    let expected = format!("{}\n", world.directory().display());
    assert_eq!(start.variable("T_A_FILE", "literal:x").finishes().succeeds(), expected);
}

// The files.

#[test]
fn a_file_has_the_mode_that_was_asked_for_and_the_programs_owner() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", "literal:x").variable("T_B_FILE", "${literal:y}");
    let secret = world.file("c", "z");
    let start = start.variable("T_C_FILE", format!("file:{}?mode=0440", secret.display()));
    let show = "cd $SECRET_INIT_DIR; stat -c '%a %u:%g' T_A T_B T_C";
    assert_eq!(start.clone().shell(show).finishes().succeeds(), "400 0:0\n400 0:0\n440 0:0\n");
    let to_user = start.clone().flag("--user=4242:4343").shell(show);
    assert_eq!(to_user.finishes().succeeds(), "400 4242:4343\n400 4242:4343\n440 4242:4343\n");
    assert_eq!(to_user.flag("--exec").finishes().succeeds(), "400 4242:4343\n400 4242:4343\n440 4242:4343\n");
}

/// The system calls of one delivery to another user, less those that make or change no file, in the form `name(arguments)`.
fn calls(world: &World, umask: &str) -> Vec<String> {
    let trace = world.path.join("trace");
    let calls = "trace=open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,chmod,fchmod,fchmodat,?fchmodat2,chown,lchown,fchown,fchownat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,setxattr,fsetxattr,umask";
    let start = world.secret_init().under(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"]).under([
        "strace",
        "-f",
        "-qq",
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
        trace.to_str().unwrap(),
    ]);
    let start = start.flag("write").directory(world.directory()).flag("--user=4242:4343");
    let start = start.variable("T_A_FILE", format!("file:{}?mode=0440", world.file("a", "x").display()));
    assert_eq!(start.finishes().succeeds(), "");
    let text = fs::read_to_string(trace).unwrap();
    text.lines()
        .map(|line| line.split_once(char::is_whitespace).unwrap().1.trim_start().to_owned())
        .filter(|call| !call.starts_with("open") || call.contains("O_CREAT"))
        .collect()
}

#[test]
fn at_no_instant_can_a_file_be_read_by_more_than_in_the_end() {
    for umask in ["0", "022"] {
        let world = World::new();
        let calls = calls(&world, umask);
        let made: Vec<&String> = calls.iter().filter(|call| call.contains("O_CREAT")).collect();
        assert_eq!(made.len(), 2, "the file, and the list of files: {calls:?}");
        assert!(made.iter().all(|call| call.contains("O_CREAT|O_EXCL|O_NOFOLLOW") && call.contains(", 0600) = ")), "{calls:?}");
        // In a directory of its own: first the group, then what the group may do, then away with it; its name last.
        let at = calls.iter().position(|call| call.starts_with("mkdirat(3, \".secret-init-")).unwrap();
        let after: Vec<&str> = calls[at..].iter().map(|call| call.rsplit_once(" = ").unwrap().0.trim_end()).collect();
        assert!(after[0].ends_with(".tmp\", 0700)"), "{after:?}");
        let expected = [
            "openat(4, \"T_A\", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600)",
            "fchown(5, -1, 4343)",
            "fchmod(5, 0440)",
            "fchown(5, 4242, -1)",
            "openat(4, \".secret-init.files\", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600)",
            "fchmod(5, 0400)",
            "renameat(4, \".secret-init.files\", 3, \".secret-init.files\")",
            "renameat(4, \"T_A\", 3, \"T_A\")",
        ];
        assert_eq!(after[1..], expected, "umask {umask}");
        let metadata = fs::metadata(world.directory().join("T_A")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o440, 4242, 4343));
    }
}

#[test]
fn what_has_the_name_of_a_file_is_replaced_and_not_followed() {
    let world = World::new();
    let (target, victim) = (world.directory().join("T_A"), world.file("victim", "as it was"));
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", "literal:x").shell("stat -c '%F %a %h' $T_A_FILE");
    symlink(&victim, &target).unwrap();
    assert_eq!(start.finishes().succeeds(), "regular file 400 1\n");
    fs::remove_file(&target).unwrap();
    fs::hard_link(&victim, &target).unwrap();
    assert_eq!(start.finishes().succeeds(), "regular file 400 1\n");
    assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), mode_of(&victim)), ("as it was", 0o644));
    fs::remove_file(&target).unwrap();
    nix::unistd::mkfifo(&target, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    assert_eq!(start.finishes().succeeds(), "regular file 400 1\n");
}

#[test]
fn a_directory_with_the_name_of_a_file_ends_the_start_and_no_file_changes() {
    let world = World::new();
    let directory = world.directory();
    fs::create_dir(directory.join("T_A")).unwrap();
    let path = directory.join("T_A").display().to_string();
    let start = world.secret_init().directory(&directory).variable("T_A_FILE", "literal:x").shell("echo started");
    let lines =
        [&format!("T_A_FILE: {path}: cannot be replaced: is a directory"), "hint: a directory has this name; remove it", NOT_STARTED];
    start.finishes().fails(73, &lines);
    assert_eq!(names_in(&directory), ["T_A"]);
}

#[test]
fn the_path_of_a_file_stays_over_starts() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory()).shell("echo $T_A_FILE; cat $T_A_FILE");
    let path = world.directory().join("T_A").display().to_string();
    assert_eq!(start.clone().variable("T_A_FILE", "literal:one").finishes().succeeds(), format!("{path}\none"));
    assert_eq!(start.variable("T_A_FILE", "literal:two, longer").finishes().succeeds(), format!("{path}\ntwo, longer"));
}

#[test]
fn write_makes_all_files_or_changes_none() {
    let world = World::new();
    let directory = world.directory();
    let start = world.secret_init().flag("write").directory(&directory);
    let write = |value: &str| {
        start.clone().variable("T_A_FILE", format!("literal:{value}")).variable("T_B_FILE", "literal:b").variable("T_C", "literal:c")
    };
    let outcome = write("one").finishes();
    assert_eq!(outcome.stderr, "secret-init: warning: T_C: is not delivered: only files are, without a program to run\n");
    assert_eq!((outcome.code(), names_in(&directory)), (0, [".secret-init.files", "T_A", "T_B"].map(str::to_owned).to_vec()));
    let none = world.path.join("none");
    let outcome = write("two").variable("T_D_FILE", format!("file:{}", none.display())).finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (66, ""));
    assert!(outcome.stderr.ends_with("secret-init: 1 of 3 secrets failed; nothing was written\n"), "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(directory.join("T_A")).unwrap(), "one");
    assert_eq!(names_in(&directory), [".secret-init.files", "T_A", "T_B"]);
}

#[test]
fn a_full_tmpfs_keeps_the_old_files_whole_and_ends_the_start() {
    let world = World::new();
    let small = Small::mounted_at(world.directory(), "64k");
    let (old_a, old_b) = ("a".repeat(16_000), "b".repeat(16_000));
    let start = world.secret_init().flag("write").directory(&small.0);
    let write = |a: &str, b: &str| {
        let (a, b) = (world.file("a", a), world.file("b", b));
        start.clone().variable("T_A_FILE", format!("file:{}", a.display())).variable("T_B_FILE", format!("file:{}", b.display())).finishes()
    };
    write(&old_a, &old_b).succeeds();
    // The first has room beside the old ones, and the second has not: neither is replaced.
    let outcome = write(&"A".repeat(16_000), &"B".repeat(32_000));
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (73, ""));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let path = small.0.display();
    let causes = ["A", "B"].map(|name| format!("secret-init: T_{name}_FILE: {path}/T_{name}: cannot be written: no space left on device"));
    assert!(lines.len() == 3 && causes.iter().any(|cause| cause == lines[0]), "{lines:?}");
    assert_eq!(
        lines[1..],
        [
            "secret-init: hint: make the tmpfs larger (size=…), or deliver less: a file that is replaced needs its room twice, a group three times within 30 s",
            "secret-init: nothing was written"
        ]
    );
    assert_eq!(names_in(&small.0), [".secret-init.files", "T_A", "T_B"]);
    assert_eq!(fs::read_to_string(small.0.join("T_A")).unwrap(), old_a);
    assert_eq!(fs::read_to_string(small.0.join("T_B")).unwrap(), old_b);
}

#[test]
fn a_tmpfs_without_inodes_ends_the_start() {
    let world = World::new();
    let small = Small::mounted_at(world.directory(), "64k,nr_inodes=2");
    let start = world.secret_init().directory(&small.0).variable("T_A_FILE", "literal:x").shell("echo started");
    let outcome = start.finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (73, ""));
    assert!(outcome.stderr.contains("T_A: cannot be made: no space left on device\n"), "{}", outcome.stderr);
}

// What a later start sweeps.

#[test]
fn the_next_start_sweeps_what_an_earlier_one_left_and_touches_nothing_else() {
    let world = World::new();
    let directory = world.directory();
    let start = world.secret_init().flag("write").directory(&directory);
    start.clone().variable("T_A_FILE", "literal:a").variable("T_OLD_FILE", "literal:old").finishes().succeeds();
    for name in [".secret-init-7-0.tmp", "keep", ".keep.tmp", ".secret-init-keep", "secret-init-7-0.tmp"] {
        fs::write(directory.join(name), "x").unwrap();
    }
    // The link of a group before it gets its name.
    symlink("keep", directory.join(".secret-init-7-1.tmp")).unwrap();
    start.variable("T_A_FILE", "literal:a").finishes().succeeds();
    let expected = [".keep.tmp", ".secret-init-keep", ".secret-init.files", "T_A", "keep", "secret-init-7-0.tmp"];
    assert_eq!(names_in(&directory), expected);
}

#[test]
fn a_file_that_is_not_ours_stays_though_an_earlier_plan_might_have_had_its_name() {
    let world = World::new();
    fs::write(world.directory().join("T_B"), "the user's").unwrap();
    let start = world.secret_init().flag("write").directory(world.directory()).variable("T_A_FILE", "literal:a");
    start.finishes().succeeds();
    start.finishes().succeeds();
    assert_eq!(fs::read_to_string(world.directory().join("T_B")).unwrap(), "the user's");
}

#[test]
fn a_list_of_files_that_was_tampered_with_leads_nowhere() {
    let world = World::new();
    let directory = world.directory();
    let victim = world.file("victim", "as it was");
    let start = world.secret_init().flag("write").directory(&directory).variable("T_A_FILE", "literal:a");
    let list = directory.join(".secret-init.files");
    fs::write(&list, format!("../victim\n{}\n..\n.\n/\n\n", victim.display())).unwrap();
    start.finishes().succeeds();
    fs::remove_file(&list).unwrap();
    fs::write(directory.join("named"), "x").unwrap();
    symlink(world.file("list", "named\n"), &list).unwrap();
    start.finishes().succeeds();
    fs::remove_file(&list).unwrap();
    nix::unistd::mkfifo(&list, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    start.finishes().succeeds();
    assert_eq!(fs::read_to_string(victim).unwrap(), "as it was");
    assert_eq!(names_in(&directory), [".secret-init.files", "T_A", "named"]);
    assert_eq!(fs::read_to_string(list).unwrap(), "T_A\n");
}

#[test]
fn a_list_of_files_that_another_user_could_have_written_removes_nothing() {
    let world = World::new();
    let directory = world.directory();
    set_mode(&directory, 0o1777);
    fs::create_dir(directory.join("sub")).unwrap();
    for name in ["root-file", "sub/config"] {
        fs::write(directory.join(name), "of root").unwrap();
    }
    let list = directory.join(".secret-init.files");
    let start = world.secret_init().flag("write").directory(&directory).variable("T_A_FILE", "literal:a");
    // By another user; by root, where others may write; and the name of another file of root's.
    for plant in [
        "printf 'root-file\\nsub/config\\nsub/\\n' >\"$0\" && chown 1000 \"$0\" && chmod 0400 \"$0\"",
        "printf 'root-file\\nsub/config\\nsub/\\n' >\"$0\" && chmod 0666 \"$0\"",
        "printf 'root-file\\nsub/config\\nsub/\\n' >\"$0.other\" && chmod 0400 \"$0.other\" && ln \"$0.other\" \"$0\"",
    ] {
        let _ = fs::remove_file(&list);
        assert!(std::process::Command::new("sh").args(["-ec", plant]).arg(&list).status().unwrap().success());
        let outcome = start.finishes();
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        assert!(directory.join("root-file").exists() && directory.join("sub/config").exists(), "{plant}");
    }
}

#[test]
fn a_file_that_is_right_already_stays_untouched() {
    let world = World::new();
    let file = world.directory().join("T_A");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap());
    let start = world.secret_init().directory(world.directory()).shell(":");
    start.clone().variable("T_A_FILE", "literal:a").finishes().succeeds();
    let first = inode();
    for flag in ["--strict", "--exec"] {
        start.clone().flag(flag).variable("T_A_FILE", "literal:a").finishes().succeeds();
        assert_eq!(inode(), first, "{flag}");
    }
    // Other bytes, more of them, fewer, another mode, another owner, another name for the same file.
    let mut last = first;
    for (value, flag) in
        [("literal:b", "--strict"), ("literal:bc", "--strict"), ("literal:b", "--strict"), ("${literal:b}", "--user=4242:4343")]
    {
        start.clone().flag(flag).variable("T_A_FILE", value).finishes().succeeds();
        assert_ne!(inode(), last, "{value} {flag}");
        last = inode();
    }
    set_mode(&file, 0o444);
    start.clone().flag("--user=4242:4343").variable("T_A_FILE", "literal:b").finishes().succeeds();
    assert_eq!(mode_of(&file), 0o400);
    fs::hard_link(&file, world.path.join("second")).unwrap();
    start.flag("--user=4242:4343").variable("T_A_FILE", "literal:b").finishes().succeeds();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&file).unwrap()), 1);
}

#[test]
fn a_user_that_was_forgotten_takes_nothing_away_from_a_program_that_runs() {
    let world = World::new();
    let secret = world.file("secret", "one");
    let start = world.secret_init().variable("T_A_FILE", format!("file:{}", secret.display()));
    let script = "echo runs; while read line; do cat $T_A_FILE; echo; done";
    let mut running = start.clone().directory(world.directory()).flag("--user=4242:4343").shell(script).listens().spawn();
    running.line("runs");
    let reads = |running: &mut support::Running, expected: &str| {
        running.say("read");
        running.line(expected);
    };
    reads(&mut running, "one");
    let other = start.clone().directory(world.directory());
    other.clone().flag("--exec").shell(":").finishes().succeeds();
    reads(&mut running, "one");
    fs::write(&secret, "two").unwrap();
    other.clone().flag("write").finishes().succeeds();
    reads(&mut running, "two");
    fs::write(&secret, "three").unwrap();
    other.clone().flag("--exec").shell(":").finishes().succeeds();
    reads(&mut running, "three");
    assert_eq!(other.flag("write").flag("--user=nobody-here").finishes().code(), 78);
    reads(&mut running, "three");
    drop(running.stdin.take());
    assert_eq!(running.finishes().code(), 0);
}

#[test]
fn the_default_directory_is_not_closed_for_a_program_that_runs() {
    let world = World::new();
    let fifo = world.path.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let inside = format!(
        "init=$0; fifo={}; export T_A_FILE=literal:a; $init --user=4242:4343 -- sh -c 'read line; cat $T_A_FILE' <$fifo & exec 3>$fifo; \
         until [ -e /run/secret-init/T_A ]; do :; done; \
         $init --exec -- true; $init write; $init write --user=nobody-here; stat -c %a /run/secret-init; echo go >&3; wait $!",
        fifo.display()
    );
    let binary = support::binary().display().to_string();
    let outcome = world.secret_init().bare().as_pid_1().program(["sh", "-c", &inside, &binary]).finishes();
    assert_eq!(outcome.stdout, "711\na", "{}", outcome.stderr);
}

#[test]
fn a_write_that_fails_removes_nothing() {
    let world = World::new();
    let start = world.secret_init().flag("write").directory(world.directory()).variable("T_A_FILE", "literal:a");
    start.clone().variable("T_B_FILE", "literal:b").finishes().succeeds();
    fs::create_dir(world.directory().join("T_C")).unwrap();
    assert_eq!(start.clone().variable("T_C_FILE", "literal:c").finishes().code(), 73);
    assert_eq!(names_in(world.directory()), [".secret-init.files", "T_A", "T_B", "T_C"]);
    // It is still known for the next one.
    start.finishes().succeeds();
    assert_eq!(names_in(world.directory()), [".secret-init.files", "T_A", "T_C"]);
}

#[test]
fn a_directory_in_use_is_never_swept() {
    let world = World::new();
    let directory = world.directory();
    let start = world.secret_init().directory(&directory);
    let program = "echo runs; cat $T_FIRST_FILE; read line";
    let mut first = start.clone().variable("T_FIRST_FILE", "literal:1").shell(program).listens().spawn();
    first.line("runs");
    fs::write(directory.join(".secret-init-7-0.tmp"), "of a start that is under way").unwrap();
    let second = start.clone().variable("T_SECOND_FILE", "literal:2");
    for (second, output) in [
        (second.clone().flag("write"), ""),
        (second.clone().flag("--exec").shell("cat $T_SECOND_FILE"), "2"),
        (second.shell("cat $T_SECOND_FILE"), "2"),
    ] {
        assert_eq!(second.finishes().succeeds(), output);
        assert_eq!(names_in(&directory), [".secret-init-7-0.tmp", ".secret-init.files", "T_FIRST", "T_SECOND"]);
    }
    first.signal(libc::SIGTERM);
    assert_eq!(first.finishes().code(), 143);
    start.flag("write").variable("T_THIRD_FILE", "literal:3").finishes().succeeds();
    assert_eq!(names_in(&directory), [".secret-init.files", "T_THIRD"]);
}

#[test]
fn the_lock_is_the_supervisors_and_not_the_programs() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", "literal:a");
    let script = "for fd in /proc/$$/fd/*; do readlink $fd; done | grep -c secrets; read line";
    let mut running = start.shell(script).listens().spawn();
    assert_eq!(running.line(""), "0");
    eventually("the supervisor holds the directory", || {
        let mut held =
            fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        held.any(|path| path == world.directory()).then_some(())
    });
}

#[test]
fn write_brings_new_values_to_a_program_that_runs() {
    let world = World::new();
    let source = world.file("source", "one");
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", format!("file:{}", source.display()));
    let mut running = start.clone().shell("while :; do cat $T_A_FILE; echo; read next || exit; done").listens().spawn();
    running.line("one");
    fs::write(&source, "another").unwrap();
    start.flag("write").finishes().succeeds();
    running.say("next");
    running.line("another");
}

#[test]
fn the_file_of_an_optional_secret_goes_with_the_secret() {
    let world = World::new();
    let source = world.file("source", "x");
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", format!("file:{}?optional=true", source.display()));
    let start = start.shell("ls $SECRET_INIT_DIR; echo ${T_A_FILE-unset}");
    assert_eq!(start.finishes().succeeds(), format!("T_A\n{}/T_A\n", world.directory().display()));
    fs::remove_file(&source).unwrap();
    assert_eq!(start.finishes().succeeds(), "unset\n");
}

#[test]
fn exec_mode_sweeps_nothing() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory());
    start.clone().flag("write").variable("T_OLD_FILE", "literal:old").finishes().succeeds();
    fs::write(world.directory().join(".secret-init-7-0.tmp"), "x").unwrap();
    let exec = start.flag("--exec").variable("T_A_FILE", "literal:a").shell("cat $T_A_FILE");
    assert_eq!(exec.finishes().succeeds(), "a");
    let names = names_in(world.directory());
    assert!([".secret-init-7-0.tmp", "T_A", "T_OLD"].iter().all(|name| names.iter().any(|there| there == name)), "{names:?}");
}

// Whole at every moment.

/// Reads a file again and again, and notes which values it saw.
struct Reader {
    last: AtomicU64,
}

impl Reader {
    fn read_until(&self, end: &AtomicBool, path: &Path) -> Result<HashSet<u64>, String> {
        let mut seen = HashSet::new();
        while !end.load(Ordering::Relaxed) {
            let value = fs::read(path).map_err(|error| format!("missing: {error}"))?;
            let number = number_of(&value).ok_or_else(|| format!("torn or empty: {} bytes", value.len()))?;
            seen.insert(number);
            self.last.store(number, Ordering::Release);
        }
        Ok(seen)
    }
}

#[test]
fn ten_thousand_deliveries_are_never_seen_torn_empty_or_missing() {
    const DELIVERIES: u64 = 10_000;
    let world = World::new();
    let path = world.directory().join("T_A");
    let (source, next) = (world.path.join("source"), world.path.join("next"));
    let start = world.secret_init().flag("write").directory(world.directory());
    let start = start.variable("T_A_FILE", format!("file:{}", source.display()));
    let deliver = |number: u64| {
        fs::write(&next, stamped(number)).unwrap();
        fs::rename(&next, &source).unwrap();
        assert!(start.command().stdin(Stdio::null()).status().unwrap().success());
    };
    deliver(0);
    let end = AtomicBool::new(false);
    let readers = [Reader { last: AtomicU64::new(0) }, Reader { last: AtomicU64::new(0) }];
    std::thread::scope(|scope| {
        let threads = readers.each_ref().map(|reader| scope.spawn(|| reader.read_until(&end, &path)));
        for number in 1..=DELIVERIES {
            deliver(number);
            // Now and then both must have kept up, so that each sees many values however busy the machine is.
            if number % 8 == 0 {
                eventually("both readers saw the value", || {
                    let stopped = threads.iter().any(std::thread::ScopedJoinHandle::is_finished);
                    (stopped || readers.iter().all(|reader| reader.last.load(Ordering::Acquire) == number)).then_some(())
                });
            }
        }
        end.store(true, Ordering::Relaxed);
        for thread in threads {
            let seen = thread.join().unwrap().unwrap();
            assert!(seen.len() >= 1_000, "{}", seen.len());
            println!("a reader saw {} of {DELIVERIES} values", seen.len());
        }
    });
}

/// Two files that are delivered again and again, with a kill in between.
struct Killed {
    world: World,
    start: Start,
}

impl Killed {
    const OLD: u64 = 1;
    const NEW: u64 = 2;

    fn new() -> Self {
        let world = World::new();
        let mut start = world.secret_init().flag("write").directory(world.directory());
        for name in ["T_A", "T_B"] {
            start = start.variable(format!("{name}_FILE"), format!("file:{}", world.path.join(name).display()));
        }
        Self { world, start }
    }

    fn source_is(&self, number: u64) {
        self.world.file("T_A", stamped(number));
        self.world.file("T_B", stamped(number + 10));
    }

    /// A start that is not disturbed brings the old values, and sweeps whatever the one before left.
    fn restore(&self) {
        self.source_is(Self::OLD);
        self.start.finishes().succeeds();
        assert_eq!(names_in(self.world.directory()), [".secret-init.files", "T_A", "T_B"]);
        assert_eq!(self.numbers(), [Self::OLD, Self::OLD + 10]);
        self.source_is(Self::NEW);
    }

    fn numbers(&self) -> [u64; 2] {
        ["T_A", "T_B"].map(|name| number_of(&fs::read(self.world.directory().join(name)).unwrap()).unwrap())
    }

    /// How many of the files are new; each is the old or the new one.
    fn count_new(&self) -> usize {
        let [a, b] = self.numbers();
        assert!([Self::OLD, Self::NEW].contains(&a) && [Self::OLD + 10, Self::NEW + 10].contains(&b));
        usize::from(a == Self::NEW) + usize::from(b == Self::NEW + 10)
    }

    fn has_leftovers(&self) -> bool {
        names_in(self.world.directory()).len() > 3
    }
}

#[test]
fn killed_on_entry_of_any_system_call_each_file_is_the_old_or_the_new_one() {
    let killed = Killed::new();
    killed.restore();
    let trace = killed.world.path.join("trace");
    let traced = killed.start.clone().under(["strace", "-f", "-qq", "-e", "signal=none", "-o", trace.to_str().unwrap()]);
    assert_eq!(traced.finishes().code(), 0);
    let text = fs::read_to_string(&trace).unwrap();
    let names = text.lines().filter_map(|line| Some(line.split_once(char::is_whitespace)?.1.trim_start().split_once('(')?.0));
    let mut counts: HashMap<&str, u32> = HashMap::new();
    let calls: Vec<(&str, u32)> = names
        .map(|name| {
            let count = counts.entry(name).or_default();
            *count += 1;
            (name, *count)
        })
        // The first is the tracer's own, before there is anything of ours.
        .filter(|&call| call != ("execve", 1))
        .collect();
    assert!(calls.len() > 40 && calls.contains(&("renameat", 2)), "{calls:?}");
    let (mut counts_of_new, mut leftovers) = ([0; 3], 0);
    for (name, number) in &calls {
        killed.restore();
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let start = killed.start.clone().under(["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject]);
        assert_eq!(start.finishes().code(), 1000 + libc::SIGKILL, "{name} {number}");
        counts_of_new[killed.count_new()] += 1;
        leftovers += u32::from(killed.has_leftovers());
    }
    killed.restore();
    println!("{} calls: {counts_of_new:?} with 0, 1, 2 new files; {leftovers} with leftovers", calls.len());
    assert!(counts_of_new.iter().all(|&count| count > 0) && leftovers > 0, "{counts_of_new:?} {leftovers}");
}

#[test]
fn killed_three_hundred_times_at_random_each_file_is_the_old_or_the_new_one() {
    let killed = Killed::new();
    killed.restore();
    let start = || {
        let child = killed.start.command().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        (child, Instant::now())
    };
    let mut times: Vec<_> = (0..21)
        .map(|_| {
            let (mut child, began) = start();
            assert!(child.wait().unwrap().success());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let whole = times[times.len() / 2];
    let (mut starts, mut cut_short, mut leftovers, mut counts_of_new, mut random) = (0, 0, 0, [0; 3], 0x2545_f491_u32);
    while cut_short < 300 {
        killed.restore();
        // xorshift32: the same moments in each run, as far as the machine has it.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let (mut child, began) = start();
        spin_until(began + whole.mul_f64(f64::from(random) / f64::from(u32::MAX)));
        child.kill().unwrap();
        cut_short += u32::from(!child.wait().unwrap().success());
        counts_of_new[killed.count_new()] += 1;
        leftovers += u32::from(killed.has_leftovers());
        starts += 1;
        assert!(starts < 30_000, "{cut_short} of {starts} starts were cut short");
    }
    killed.restore();
    println!("of {starts} starts {cut_short} were cut short: {counts_of_new:?} with 0, 1, 2 new files; {leftovers} left something");
}

// The user of the program.

#[test]
fn the_program_gets_its_user_group_home_and_name() {
    let world = World::new();
    let start = world.secret_init().variable("HOME", "/root").variable("USER", "root").shell("id -u; id -g; id -G; echo $HOME $USER");
    for mode in ["--exec", "--group"] {
        let run = |user: &str| start.clone().flag(mode).flag("--user").flag(user).finishes().succeeds();
        assert_eq!(run("4242:4343"), "4242\n4343\n4343\n/ 4242\n", "{mode}");
    }
}

#[test]
fn a_name_brings_the_groups_of_the_image() {
    let world = World::new();
    let passwd = world.file("passwd", "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/srv/app:/bin/sh\n");
    let group = world.file("group", "root:x:0:\napp:x:1235:\nssl:x:50:www,app\nlogs:x:51:app\nother:x:52:apple\n");
    let binds = format!("mount --bind {} /etc/passwd && mount --bind {} /etc/group", passwd.display(), group.display());
    let start = after(world.secret_init(), &binds).shell("id -u; id -g; id -G | tr ' ' '\\n' | sort -n | xargs; echo $HOME $USER");
    for (user, expected) in [
        ("app", "1234\n1235\n50 51 1235\n/srv/app app\n"),
        ("1234", "1234\n1235\n50 51 1235\n/srv/app app\n"),
        ("app:ssl", "1234\n50\n50\n/srv/app app\n"),
        ("app:77", "1234\n77\n77\n/srv/app app\n"),
        ("root", "0\n0\n0\n/root root\n"),
    ] {
        assert_eq!(start.clone().flag("--user").flag(user).finishes().succeeds(), expected, "{user}");
    }
    for (user, cause, hint) in [
        ("nobody-here", "no such user in /etc/passwd", "give numbers, UID:GID, which need no entry"),
        ("4242", "the user has no entry in /etc/passwd", "give the group too, as UID:GID"),
        ("app:nothing", "no such group in /etc/group", "give the group's number"),
    ] {
        let lines = [&format!("--user: {user}: {cause}"), &*format!("hint: {hint}"), "the program was not started"];
        start.clone().flag("--user").flag(user).finishes().fails(78, &lines);
    }
}

#[test]
fn a_secret_that_root_alone_may_read_reaches_the_programs_user() {
    let world = World::new();
    let path = world.file("secret", "s3cret");
    set_mode(&path, 0o400);
    let start = world.secret_init().directory(world.directory()).flag("--user=4242:4343");
    let start = start.variable("T_A_FILE", &path).variable("T_B_FILE", format!("file:{}", path.display()));
    let script = format!("echo $T_A; cat $T_B_FILE; echo; cat {} 2>&1", path.display());
    for mode in ["--exec", "--group"] {
        let stdout = start.clone().flag(mode).shell(&script).finishes().stdout;
        assert!(stdout.starts_with("s3cret\ns3cret\n") && stdout.ends_with("Permission denied\n"), "{mode}: {stdout}");
    }
}

#[test]
fn root_is_given_up_for_good() {
    let world = World::new();
    let program = "
import os
for become in (lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgid(0), lambda: os.setgroups([0])):
    try:
        become()
        print('possible')
    except PermissionError:
        print('refused')
print([line.split()[1] for line in open('/proc/self/status') if line[:6] in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')])
print(os.getresuid(), os.getresgid(), os.getgroups())";
    let none = "0".repeat(16);
    let expected = format!("{}{:?}\n(4242, 4242, 4242) (4343, 4343, 4343) [4343]\n", "refused\n".repeat(4), [&none; 4]).replace('"', "'");
    for mode in ["--exec", "--group"] {
        let start = world.secret_init().flag(mode).flag("--user=4242:4343").program(["/usr/bin/python3", "-c", program]);
        assert_eq!(start.finishes().succeeds(), expected, "{mode}");
        // A parent may have told the kernel to keep capabilities over a change of the user: then the start ends.
        let kept = start.under(["setpriv", "--securebits", "+no_setuid_fixup"]);
        kept.finishes().fails(71, &["--user: 4242: the user was changed, and the kernel says otherwise"]);
    }
}

#[test]
fn a_capability_that_is_missing_is_named() {
    let world = World::new();
    let start = world.secret_init().flag("--user=4242:4343").shell("echo started");
    for (without, names) in
        [("-setuid", "SETUID"), ("-setgid", "SETGID"), ("-chown", "CHOWN"), ("-kill", "KILL"), ("-all", "SETUID, SETGID, CHOWN, KILL")]
    {
        let lines = [
            &format!("--user: 4242: the capability to change the user is missing: {names}"),
            &*format!("hint: add it: cap_add: [{names}] in Compose, --cap-add for docker run"),
            "the program was not started",
        ];
        start.clone().under(["setpriv", "--bounding-set", without]).finishes().fails(71, &lines);
    }
    // Nothing of ours stays that would have to signal.
    let exec = start.clone().flag("--exec").under(["setpriv", "--bounding-set", "-kill"]);
    assert_eq!(exec.finishes().succeeds(), "started\n");
    let lines = [
        "--user: 4242: only root can change the user, and this is uid 1000",
        "hint: leave --user out, or let the container start as root",
        "the program was not started",
    ];
    start.as_user(1000).finishes().fails(71, &lines);
}

#[test]
fn the_same_user_needs_no_privilege() {
    let world = World::new();
    let start = world.secret_init().as_user(4242).flag("--user=4242:4242").shell("id -u; echo $HOME $USER");
    assert_eq!(start.finishes().succeeds(), "4242\n/ 4242\n");
}

#[test]
fn the_programs_user_can_open_the_standard_streams_by_name() {
    let world = World::new();
    let script = "stat -L -c %u /proc/self/fd/1 /proc/self/fd/2; echo out >/dev/stdout; echo err >/dev/stderr; cat </dev/stdin";
    for mode in ["--exec", "--group"] {
        let outcome = world.secret_init().flag(mode).flag("--user=4242:4343").input(b"in\n").shell(script).finishes();
        let seen = (outcome.code(), outcome.stdout.as_str(), outcome.stderr.as_str());
        assert_eq!(seen, (0, "4242\n4242\nout\nin\n", "err\n"), "{mode}");
    }
}

#[test]
fn files_and_devices_behind_the_standard_streams_stay_whose_they_are() {
    let world = World::new();
    let (input, log) = (world.file("in", "x"), world.file("log", ""));
    let redirect = format!("exec \"$@\" <{} 2>>{}", input.display(), log.display());
    let start = world.secret_init().under(["sh", "-c", &redirect, "sh"]).flag("--user=4242:4343").program(["true"]);
    start.finishes().succeeds();
    assert_eq!([&input, &log].map(|path| fs::metadata(path).unwrap().uid()), [0, 0]);
    let null = fs::metadata("/dev/null").unwrap();
    assert_eq!((null.uid(), null.mode() & 0o777), (0, 0o666));
}

#[test]
fn signals_reach_a_program_of_another_user() {
    let world = World::new();
    let start =
        world.secret_init().flag("--user=4242:4343").shell("trap 'echo heard; exit 3' TERM; echo runs; while :; do read line; done");
    let mut running = start.input(b"").spawn();
    running.line("runs");
    running.signal(libc::SIGTERM);
    running.line("heard");
    assert_eq!(running.finishes().code(), 3);
}

// The environment.

/// Starts what follows with entries that no shell and no library would make.
const IRREGULAR: &str = "
import ctypes, os, sys
entries = [b'PATH=/usr/bin:/bin', b'T_TWICE=1', b'NOEQUALS', b'=x', b'T_TWICE=2', b'T_N\\nL=\\xff', b'T_REF=literal:v', b'T_F_FILE=literal:w',
    b'T_E=', b'SECRET_INIT_LOG_LEVEL=error', b'SECRET_INIT_DIR=' + os.environb[b'D'], b'SECRET_INIT_OTHER=1']
strings = lambda items: (ctypes.c_char_p * (len(items) + 1))(*items, None)
words = [os.fsencode(word) for word in sys.argv[1:]]
ctypes.CDLL(None).execve(words[0], strings(words), strings(entries))";

#[test]
fn the_programs_environment_has_each_name_once_and_nothing_of_ours() {
    let world = World::new();
    let directory = world.directory().display().to_string();
    for mode in ["--exec", "--group"] {
        let start = world.secret_init().variable("D", &directory).under(["/usr/bin/python3", "-c", IRREGULAR]).flag(mode);
        let outcome = start.program(["od", "-An", "-v", "-c", "-w1", "/proc/self/environ"]).finishes();
        assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, ""), "{mode}");
        let text: String = outcome.stdout.lines().map(str::trim_start).map(|byte| if byte == "\\0" { "\n" } else { byte }).collect();
        let mut entries: Vec<&str> = text.lines().collect();
        entries.sort_unstable();
        let (dir, file) = (format!("SECRET_INIT_DIR={directory}"), format!("T_F_FILE={directory}/T_F"));
        let expected = ["=x", "NOEQUALS", "PATH=/usr/bin:/bin", &dir, "T_E=", &file, "T_N\\nL=377", "T_REF=v", "T_TWICE=1"];
        assert_eq!(entries, expected, "{mode}");
    }
}

#[test]
fn a_value_is_refused_when_the_kernel_could_not_pass_it_on() {
    let world = World::new();
    let longest = 131_072 - "T_A=".len() - 1;
    let run = |length: usize| {
        let start = world.secret_init().variable("T_A_FILE", world.file("big", "x".repeat(length)));
        start.shell("printf %s \"$T_A\" | wc -c").finishes()
    };
    assert_eq!(run(longest).succeeds(), format!("{longest}\n"));
    let lines = [
        &format!(
            "T_A_FILE: file:{}: the value has {} bytes, and a variable holds {longest} at most",
            world.path.join("big").display(),
            longest + 1
        ),
        "hint: let the program read the file itself: --skip T_A_FILE",
        "1 of 1 secret failed; the program was not started",
    ];
    run(longest + 1).fails(65, &lines);
}

#[test]
fn an_environment_that_is_too_large_as_a_whole_names_its_largest_secret() {
    let world = World::new();
    let (small, large) = (world.file("small", "x".repeat(60_000)), world.file("large", "x".repeat(100_000)));
    let start = world.secret_init().under(["sh", "-c", "ulimit -s 256; exec \"$@\"", "sh"]).shell("echo started");
    let start = start.variable("T_A_FILE", small).variable("T_B_FILE", large);
    let outcome = start.finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (65, ""));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(
        lines[0].starts_with("secret-init: T_B_FILE: environment and arguments have 16")
            && lines[0].ends_with(" bytes, and the kernel takes 131072")
    );
    assert_eq!(
        lines[1..],
        ["secret-init: hint: T_B_FILE is the largest with 100000 bytes: deliver it as a file", "secret-init: the program was not started"]
    );
}
