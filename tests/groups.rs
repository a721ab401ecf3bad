//! Groups of files: their layout, and that nobody ever sees the one file of a pair with the other one's predecessor.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use support::files::{Small, mode_of, names_in, number_of, set_mode, spin_until, stamped};
use support::{Start, World, eventually};

/// A start with a configuration in its own folder, `c.yaml`, in which `/W/` is that of the world, and a directory for its files.
fn configured(world: &World, text: &str) -> Start {
    world.file("c.yaml", text.replace("/W/", &format!("{}/", world.path.display())));
    world.secret_init().in_directory(&world.path).flag("--config").flag("c.yaml").directory(world.directory())
}

/// A certificate and its key.
const PAIR: &str = r#"
files:
  - { path: tls/tls.crt, from: "file:/W/crt", group: tls }
  - { path: tls/tls.key, from: "file:/W/key", group: tls }
"#;

/// Makes the two secrets: they belong together by their number.
fn source_is(world: &World, number: u64) {
    for (name, number) in [("crt", number), ("key", number + KEY)] {
        world.file("next", stamped(number));
        fs::rename(world.path.join("next"), world.path.join(name)).unwrap();
    }
}

/// What the number of a key has more than that of its certificate.
const KEY: u64 = 1 << 32;

fn write(world: &World, text: &str) {
    assert_eq!(configured(world, text).flag("write").finishes().succeeds(), "");
}

fn group(world: &World) -> PathBuf {
    world.directory().join("tls")
}

/// The generations that there are, by their numbers, and the current one.
fn generations(group: &Path) -> (Vec<u64>, u64) {
    let mut numbers: Vec<u64> = names_in(group).iter().filter_map(|name| name.strip_prefix("..")?.parse().ok()).collect();
    numbers.sort_unstable();
    let current = fs::read_link(group.join("..data")).unwrap();
    (numbers, current.to_str().unwrap().strip_prefix("..").unwrap().parse().unwrap())
}

/// Sets the time of a generation back, as if it had ended so long ago.
fn age(group: &Path, number: u64, by: Duration) {
    let then = (SystemTime::now() - by).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let then = TimeSpec::from_duration(then);
    utimensat(AT_FDCWD, &group.join(format!("..{number}")), &then, &then, UtimensatFlags::NoFollowSymlink).unwrap();
}

/// As if all generations but the current one had ended a minute ago.
fn age_all(group: &Path) {
    let (numbers, current) = generations(group);
    numbers.into_iter().filter(|&number| number != current).for_each(|number| age(group, number, Duration::from_mins(1)));
}

/// What is below a directory: paths, with what a link leads to, and with mode and owner of anything else.
fn tree(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in names_in(directory) {
        let path = directory.join(&name);
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_symlink() {
            lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            continue;
        }
        lines.push(format!("{name} {:o} {}:{}", mode_of(&path), metadata.uid(), metadata.gid()));
        if metadata.is_dir() {
            lines.extend(tree(&path).into_iter().map(|line| format!("{name}/{line}")));
        }
    }
    lines
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap()
}

fn block(language: &str, text: &str) -> String {
    let (page, opening) = (page(), format!("```{language}\n"));
    let mut blocks = page.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.find(|block| block.contains(text)).unwrap().to_owned()
}

// The layout.

#[test]
fn a_group_is_laid_out_as_the_docs_draw_it_and_holds_nothing_else() {
    let world = World::new();
    source_is(&world, 1);
    write(&world, PAIR);
    let expected = [
        "..1 711 0:0",
        "..1/tls.crt 400 0:0",
        "..1/tls.key 400 0:0",
        "..data -> ..1",
        "tls.crt -> ..data/tls.crt",
        "tls.key -> ..data/tls.key",
    ];
    assert_eq!(tree(&group(&world)), expected);
    assert_eq!(tree(&world.directory())[..2], [".secret-init.files 400 0:0", "tls 711 0:0"]);
    let drawn: HashSet<String> = block("text", "..data").lines().map(|line| line.replace("tls/", "").replace("..1/", "..1 ")).collect();
    let there: HashSet<String> = expected[1..].iter().map(|line| line.replace(" 400 0:0", "").replace("..1/", "..1 ")).collect();
    assert_eq!(drawn, there);
}

#[test]
fn each_file_of_a_group_has_its_own_mode_and_owner_and_the_program_can_open_what_is_its_own() {
    let world = World::new();
    let text = r#"
files:
  - { path: a/b/one, from: "literal:1", group: g }
  - { path: a/b/two, from: "literal:2", group: g, mode: 0444, owner: "0:0" }
  - { path: a/b/three, from: "literal:3", group: g, mode: 0440, owner: "7:4343" }
  - { path: a/b/four, from: "literal:4", group: g, owner: "7:8" }
"#;
    let script = "cd $SECRET_INIT_DIR/a/b; cat one two three; cat four 2>&1 | grep -o denied; ls 2>&1 | grep -o denied; cd ..data; cat one; ls 2>&1 | grep -o denied";
    let stdout = configured(&world, text).flag("--user=4242:4343").shell(script).finishes().stdout;
    assert_eq!(stdout, "123denied\ndenied\n1denied\n");
    let expected = ["..1 711 0:0", "..1/four 400 7:8", "..1/one 400 4242:4343", "..1/three 440 7:4343", "..1/two 444 0:0"];
    assert_eq!(tree(&world.directory().join("a/b"))[..5], expected);
}

#[test]
fn the_layout_does_not_depend_on_the_umask() {
    for umask in ["0", "077"] {
        let world = World::new();
        source_is(&world, 1);
        let start = configured(&world, PAIR).under(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
        start.flag("write").finishes().succeeds();
        assert_eq!(tree(&group(&world))[..3], ["..1 711 0:0", "..1/tls.crt 400 0:0", "..1/tls.key 400 0:0"], "{umask}");
    }
}

#[test]
fn every_mode_and_command_swaps() {
    let world = World::new();
    let start = configured(&world, PAIR);
    let script = "cd $SECRET_INIT_DIR/tls/..data && cmp tls.crt $W/crt && cmp tls.key $W/key && echo same";
    let start = start.variable("W", &world.path).shell(script);
    for (number, flag) in [(1, "--group"), (2, "--exec"), (3, "--user=4242:4343"), (4, "--group")] {
        source_is(&world, number);
        assert_eq!(start.clone().flag(flag).finishes().succeeds(), "same\n", "{flag}");
        assert_eq!(generations(&group(&world)).1, number);
    }
    for flag in ["plan", "check"] {
        configured(&world, PAIR).flag(flag).finishes().succeeds();
        assert_eq!(generations(&group(&world)), (vec![1, 2, 3, 4], 4), "{flag}");
    }
}

// Whole at every moment.

/// The system calls of a `write` that make, change or remove something of a group, with `TMP` for each temporary name.
fn calls(world: &World) -> Vec<String> {
    let trace = world.path.join("trace");
    let calls =
        "trace=openat,mkdirat,fchmod,fchown,renameat,renameat2,symlinkat,unlinkat,utimensat,/^(rename|symlink|unlink|chmod|chown|link)$";
    let words = ["strace", "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", trace.to_str().unwrap()];
    configured(world, PAIR).flag("write").flag("--user=4242:4343").under(words).finishes().succeeds();
    let text = fs::read_to_string(trace).unwrap();
    let lines = text.lines().map(|line| line.split_once(char::is_whitespace).unwrap().1.trim_start());
    let of_the_group =
        lines.skip_while(|call| !call.starts_with("mkdirat")).filter(|call| !call.starts_with("openat") || call.contains("O_CREAT"));
    let without_names = |word: &str| if word.contains(".secret-init-") { "TMP,".to_owned() } else { word.replace("|O_CLOEXEC", "") };
    of_the_group
        .map(|call| call.split_whitespace().map(without_names).collect::<Vec<_>>().join(" ").replace("TMP, = ", "TMP) = "))
        .collect()
}

#[test]
fn whatever_can_fail_comes_first_and_then_one_rename_swaps() {
    let world = World::new();
    source_is(&world, 1);
    let file = |name: &str| {
        [
            format!("openat(6, \"{name}\", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW, 0600) = 7"),
            "fchown(7, -1, 4343) = 0".to_owned(),
            "fchmod(7, 0400) = 0".to_owned(),
            "fchown(7, 4242, -1) = 0".to_owned(),
        ]
    };
    let text = |calls: &[&str]| calls.iter().map(|&call| call.to_owned()).collect::<Vec<_>>();
    let first = [
        text(&[
            "mkdirat(3, TMP, 0700) = 0",
            "mkdirat(3, \"tls\", 0711) = 0",
            "fchmod(5, 0711) = 0",
            "mkdirat(4, \"tls\", 0711) = 0",
            "fchmod(6, 0711) = 0",
            "symlinkat(\"..1\", 4, \"..0\") = 0",
        ]),
        file("tls.crt").to_vec(),
        text(&["symlinkat(\"..data/tls.crt\", 4, \"..1\") = 0"]),
        file("tls.key").to_vec(),
        text(&[
            "symlinkat(\"..data/tls.key\", 4, \"..2\") = 0",
            "openat(4, \".secret-init.files\", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW, 0600) = 5",
            "fchmod(5, 0400) = 0",
            "renameat(4, \".secret-init.files\", 3, \".secret-init.files\") = 0",
            "utimensat(4, \"tls\", [UTIME_NOW, UTIME_NOW], AT_SYMLINK_NOFOLLOW) = 0",
            "renameat(4, \"tls\", 5, \"..1\") = 0",
            "renameat(4, \"..0\", 5, \"..data\") = 0",
            "renameat(4, \"..1\", 5, \"tls.crt\") = 0",
            "renameat(4, \"..2\", 5, \"tls.key\") = 0",
            "unlinkat(3, TMP, AT_REMOVEDIR) = 0",
            "unlinkat(3, \".secret-init.reserved\", 0) = -1 ENOENT (No such file or directory)",
        ]),
    ];
    assert_eq!(calls(&world), first.concat());
    source_is(&world, 2);
    let later = [
        text(&["mkdirat(3, TMP, 0700) = 0", "mkdirat(4, \"tls\", 0711) = 0", "fchmod(6, 0711) = 0", "symlinkat(\"..2\", 4, \"..0\") = 0"]),
        file("tls.crt").to_vec(),
        file("tls.key").to_vec(),
        text(&[
            "utimensat(4, \"tls\", [UTIME_NOW, UTIME_NOW], AT_SYMLINK_NOFOLLOW) = 0",
            "renameat(4, \"tls\", 5, \"..2\") = 0",
            "utimensat(5, \"..1\", [UTIME_NOW, UTIME_NOW], AT_SYMLINK_NOFOLLOW) = 0",
            "renameat(4, \"..0\", 5, \"..data\") = 0",
            "unlinkat(3, TMP, AT_REMOVEDIR) = 0",
            "unlinkat(3, \".secret-init.reserved\", 0) = -1 ENOENT (No such file or directory)",
        ]),
    ];
    assert_eq!(calls(&world), later.concat());
}

/// Reads again and again, and notes which values it saw.
#[derive(Default)]
struct Reader {
    last: AtomicU64,
    mixed: AtomicU64,
}

impl Reader {
    fn read_until(&self, end: &AtomicBool, read: impl Fn() -> Result<[Vec<u8>; 2], String>) -> Result<HashSet<u64>, String> {
        let mut seen = HashSet::new();
        while !end.load(Ordering::Relaxed) {
            let [certificate, key] = read()?.map(|value| number_of(&value).ok_or(format!("torn or empty: {} bytes", value.len())));
            let (certificate, key) = (certificate?, key?);
            self.mixed.fetch_add(u64::from(certificate + KEY != key), Ordering::Relaxed);
            seen.insert(certificate);
            self.last.store(certificate, Ordering::Release);
        }
        Ok(seen)
    }
}

/// As the docs say: `..data` is opened once, and both files in what was opened.
fn read_pair(group: &Path) -> Result<[Vec<u8>; 2], String> {
    let failed = |what: &str, errno: nix::errno::Errno| format!("{what}: {errno}");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let pair: OwnedFd = nix::fcntl::open(&group.join("..data"), flags, Mode::empty()).map_err(|errno| failed("..data", errno))?;
    let read = |name: &str| -> Result<Vec<u8>, String> {
        let file =
            nix::fcntl::openat(&pair, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| failed(name, errno))?;
        let mut value = Vec::new();
        fs::File::from(file).read_to_end(&mut value).map_err(|error| error.to_string())?;
        Ok(value)
    };
    Ok([read("tls.crt")?, read("tls.key")?])
}

/// By the two paths, one after the other.
fn read_by_paths(group: &Path) -> Result<[Vec<u8>; 2], String> {
    let read = |name: &str| fs::read(group.join(name)).map_err(|error| format!("{name}: {error}"));
    Ok([read("tls.crt")?, read("tls.key")?])
}

#[test]
fn in_ten_thousand_swaps_no_pair_is_mixed_and_no_file_is_missing() {
    const SWAPS: u64 = 10_000;
    let world = World::new();
    let group = group(&world);
    let start = configured(&world, PAIR).flag("write");
    let swap = |number: u64| {
        source_is(&world, number);
        assert!(start.command().stdin(Stdio::null()).status().unwrap().success());
    };
    swap(0);
    let end = AtomicBool::new(false);
    let readers: [Reader; 3] = Default::default();
    std::thread::scope(|scope| {
        let (ways, end, group) = ([read_pair, read_pair, read_by_paths], &end, &group);
        let threads: Vec<_> =
            readers.iter().zip(ways).map(|(reader, read)| scope.spawn(move || reader.read_until(end, || read(group)))).collect();
        for number in 1..=SWAPS {
            swap(number);
            // Now and then all must have kept up, so that each sees many values however busy the machine is. What came before is then of no
            // use to any of them, and may go with the next swap.
            if number % 8 == 0 {
                eventually("all readers saw the value", || {
                    let stopped = threads.iter().any(std::thread::ScopedJoinHandle::is_finished);
                    (stopped || readers.iter().all(|reader| reader.last.load(Ordering::Acquire) == number)).then_some(())
                });
                age_all(group);
            }
        }
        end.store(true, Ordering::Relaxed);
        for (thread, reader) in threads.into_iter().zip(&readers) {
            let seen = thread.join().unwrap().unwrap();
            assert!(seen.len() >= 1_000, "{}", seen.len());
            println!("a reader saw {} of {SWAPS} values, and {} mixed pairs", seen.len(), reader.mixed.load(Ordering::Relaxed));
        }
    });
    assert_eq!(readers[..2].iter().map(|reader| reader.mixed.load(Ordering::Relaxed)).sum::<u64>(), 0);
    let (numbers, current) = generations(&group);
    assert!(current == SWAPS + 1 && numbers.len() <= 10, "{numbers:?}");
}

#[test]
fn a_mixed_pair_would_have_been_seen() {
    let world = World::new();
    source_is(&world, 1);
    write(&world, PAIR);
    let reader = Reader::default();
    let (end, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let mixed = reader.read_until(&end, || {
        end.store(calls.fetch_add(1, Ordering::Relaxed) == 1, Ordering::Relaxed);
        let certificate = fs::read(group(&world).join("tls.crt")).unwrap();
        source_is(&world, 2);
        write(&world, PAIR);
        Ok([certificate, fs::read(group(&world).join("tls.key")).unwrap()])
    });
    assert_eq!((mixed.unwrap().len(), reader.mixed.load(Ordering::Relaxed)), (2, 1));
    fs::remove_file(group(&world).join("..data")).unwrap();
    assert!(read_pair(&group(&world)).is_err() && read_by_paths(&group(&world)).is_err());
}

#[test]
fn an_earlier_generation_stays_for_thirty_seconds_and_goes_with_a_later_swap() {
    let world = World::new();
    let group = group(&world);
    let swap = |number: u64| {
        source_is(&world, number);
        write(&world, PAIR);
        generations(&group)
    };
    swap(1);
    // It has been there for an hour, and is superseded only now.
    age(&group, 1, Duration::from_hours(1));
    assert_eq!(swap(2), (vec![1, 2], 2));
    age(&group, 1, Duration::from_secs(25));
    assert_eq!(swap(3), (vec![1, 2, 3], 3));
    age(&group, 1, Duration::from_secs(32));
    assert_eq!(swap(4), (vec![2, 3, 4], 4));
    age_all(&group);
    assert_eq!(swap(5), (vec![4, 5], 5));
}

#[test]
fn who_opened_a_pair_reads_it_though_it_was_replaced() {
    let world = World::new();
    source_is(&world, 1);
    let start = configured(&world, PAIR);
    // As the docs say: by a shell, and by Python.
    let sh = block("sh", "..data").replace(" && ", " && echo opened && read next && ");
    let python = block("python", "O_PATH");
    let (before, after) = python.split_once("certificate,").unwrap();
    let python = format!("{before}print('opened', flush=True)\ninput()\ncertificate,{after}print(certificate + key, end='')\n");
    for (program, number) in [(["sh", "-c", &sh], 1), (["/usr/bin/python3", "-c", &python], 3)] {
        for (name, text) in [("crt", "old certificate\n"), ("key", "old key\n")] {
            world.file(name, text);
        }
        let mut running = start.clone().program(program).listens().spawn();
        running.line("opened");
        world.file("crt", "new certificate\n");
        world.file("key", "new key\n");
        write(&world, PAIR);
        assert_eq!(generations(&group(&world)).1, number + 1);
        running.say("next");
        running.line("old certificate");
        running.line("old key");
        assert_eq!(fs::read_to_string(group(&world).join("tls.key")).unwrap(), "new key\n");
        assert_eq!(running.finishes().code(), 0);
    }
}

// Killed.

/// A pair that is swapped again and again, with a kill in between.
struct Killed {
    world: World,
    start: Start,
    group: PathBuf,
}

impl Killed {
    const OLD: u64 = 1;
    const NEW: u64 = 2;

    fn new() -> Self {
        let world = World::new();
        let start = configured(&world, PAIR).flag("write");
        let group = group(&world);
        Self { world, start, group }
    }

    /// A start that is not disturbed brings the old pair, and sweeps whatever the one before left.
    fn restore(&self) {
        source_is(&self.world, Self::OLD);
        self.start.finishes().succeeds();
        assert_eq!(names_in(self.world.directory()), [".secret-init.files", "tls"]);
        let (numbers, current) = generations(&self.group);
        // The current one, the one before, the one before that when the killed start came so far, and one that was just being removed.
        assert!(numbers.contains(&current) && numbers.len() <= 4, "{numbers:?} {current}");
        assert_eq!(names_in(&self.group).len(), numbers.len() + 3);
        assert!(!self.has_new_pair());
        age_all(&self.group);
        source_is(&self.world, Self::NEW);
    }

    /// Whether the pair is the new one; it is that or the old one.
    fn has_new_pair(&self) -> bool {
        let pairs = [read_pair(&self.group).unwrap(), read_by_paths(&self.group).unwrap()];
        let [opened, by_paths] = pairs.map(|pair| pair.map(|value| number_of(&value).unwrap()));
        assert_eq!(opened, by_paths);
        assert!([[Self::OLD, Self::OLD + KEY], [Self::NEW, Self::NEW + KEY]].contains(&opened), "{opened:?}");
        opened[0] == Self::NEW
    }

    fn has_leftovers(&self) -> bool {
        let (numbers, current) = generations(&self.group);
        names_in(self.world.directory()).len() > 2 || numbers.last() > Some(&current)
    }
}

#[test]
fn killed_on_entry_of_any_system_call_the_pair_is_the_old_or_the_new_one() {
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
    assert!(calls.len() > 60 && calls.contains(&("renameat", 2)) && calls.contains(&("symlinkat", 1)), "{calls:?}");
    let (mut new, mut leftovers) = (0, 0);
    for (name, number) in &calls {
        killed.restore();
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let start = killed.start.clone().under(["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject]);
        let code = start.finishes().code();
        // What is cleaned up at the end differs with what there is.
        assert!(
            code == 1000 + libc::SIGKILL
                || code == 0 && ["unlinkat", "openat", "getdents64", "newfstatat", "fcntl", "fstat", "close"].contains(name),
            "{name} {number}: {code}"
        );
        new += usize::from(killed.has_new_pair());
        leftovers += usize::from(killed.has_leftovers());
    }
    killed.restore();
    println!("{} calls: the new pair after {new}, leftovers after {leftovers}", calls.len());
    assert!(new > 0 && new < calls.len() && leftovers > 10, "{new} {leftovers}");
}

#[test]
fn killed_a_hundred_times_at_random_the_pair_is_the_old_or_the_new_one() {
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
    let (mut starts, mut cut_short, mut new, mut leftovers, mut random) = (0, 0, 0, 0, 0x2545_f491_u32);
    age_all(&killed.group);
    while cut_short < 100 {
        killed.restore();
        // xorshift32: the same moments in each run, as far as the machine has it.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let (mut child, began) = start();
        spin_until(began + whole.mul_f64(f64::from(random) / f64::from(u32::MAX)));
        child.kill().unwrap();
        cut_short += u32::from(!child.wait().unwrap().success());
        new += u32::from(killed.has_new_pair());
        leftovers += u32::from(killed.has_leftovers());
        starts += 1;
        assert!(starts < 10_000, "{cut_short} of {starts} starts were cut short");
    }
    killed.restore();
    println!("of {starts} starts {cut_short} were cut short: the new pair after {new}, leftovers after {leftovers}");
}

#[test]
fn what_a_killed_start_left_goes_unless_a_start_beside_this_one_could_be_at_it() {
    let world = World::new();
    let group = group(&world);
    source_is(&world, 1);
    write(&world, PAIR);
    let left = world.directory().join(".secret-init-7-0.tmp");
    fs::create_dir_all(left.join("tls")).unwrap();
    fs::write(left.join("tls/tls.key"), "half of").unwrap();
    // Killed one rename later, when the link to it was not there yet.
    fs::create_dir(group.join("..7")).unwrap();
    let mut running =
        configured(&world, PAIR).flag("--exec").shell("exec 3<$SECRET_INIT_DIR; flock -s 3; echo runs; read line").listens().spawn();
    running.line("runs");
    source_is(&world, 2);
    write(&world, PAIR);
    assert_eq!((generations(&group), left.exists()), ((vec![1, 7, 8], 8), true));
    running.say("end");
    assert_eq!(running.finishes().code(), 0);
    age_all(&group);
    source_is(&world, 3);
    write(&world, PAIR);
    assert_eq!((generations(&group), left.exists()), ((vec![8, 9], 9), false));
}

// What changes from one start to the next.

#[test]
fn a_pair_that_is_right_already_stays_untouched() {
    let world = World::new();
    source_is(&world, 1);
    write(&world, PAIR);
    let again = configured(&world, PAIR);
    for again in [again.clone().flag("write"), again.clone().flag("--exec").shell(":"), again.shell(":")] {
        again.finishes().succeeds();
        assert_eq!(generations(&group(&world)), (vec![1], 1));
    }
    // A file that is missing, one too many, another mode, another owner.
    let key = group(&world).join("..1/tls.key");
    fs::remove_file(&key).unwrap();
    write(&world, PAIR);
    fs::write(group(&world).join("..2/more"), "x").unwrap();
    write(&world, PAIR);
    set_mode(group(&world).join("..3/tls.key"), 0o444);
    write(&world, PAIR);
    configured(&world, PAIR).flag("write").flag("--user=4242:4343").finishes().succeeds();
    fs::remove_file(group(&world).join("tls.key")).unwrap();
    configured(&world, PAIR).flag("write").flag("--user=4242:4343").finishes().succeeds();
    assert_eq!(generations(&group(&world)), (vec![1, 2, 3, 4, 5, 6], 6));
    assert_eq!(read_pair(&group(&world)).unwrap().map(|value| number_of(&value).unwrap()), [1, 1 + KEY]);
}

#[test]
fn a_long_superseded_generation_makes_room_for_the_next_one() {
    let world = World::new();
    let small = Small::mounted_at(world.directory(), "96k");
    for (round, byte) in ["a", "b", "c", "d"].into_iter().enumerate() {
        for name in ["crt", "key"] {
            world.file(name, byte.repeat(16 << 10));
        }
        write(&world, PAIR);
        assert!(generations(&group(&world)).0.len() <= 2, "{round}");
        age_all(&group(&world));
    }
    drop(small);
}

#[test]
fn a_group_shrinks_and_grows() {
    let world = World::new();
    source_is(&world, 1);
    write(&world, PAIR);
    let alone = r#"files: [{ path: tls/tls.crt, from: "file:/W/crt", group: tls }]"#;
    write(&world, alone);
    assert_eq!(names_in(group(&world)), ["..1", "..2", "..data", "tls.crt"]);
    assert_eq!(names_in(group(&world).join("..2")), ["tls.crt"]);
    write(&world, PAIR);
    assert_eq!(names_in(group(&world)), ["..1", "..2", "..3", "..data", "tls.crt", "tls.key"]);
    assert_eq!(read_pair(&group(&world)).unwrap().map(|value| number_of(&value).unwrap()), [1, 1 + KEY]);
}

#[test]
fn a_group_that_is_no_longer_asked_for_goes_as_a_whole() {
    let world = World::new();
    source_is(&world, 1);
    write(&world, PAIR);
    source_is(&world, 2);
    write(&world, PAIR);
    assert_eq!(generations(&group(&world)), (vec![1, 2], 2));
    write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
    assert_eq!(names_in(world.directory()), [".secret-init.files", "a"]);
    // With something of the user's in it all else goes.
    write(&world, PAIR);
    fs::write(group(&world).join("mine"), "the user's").unwrap();
    fs::create_dir(group(&world).join("..mine")).unwrap();
    symlink("..data/other/x", group(&world).join("other")).unwrap();
    source_is(&world, 3);
    write(&world, PAIR);
    assert_eq!(names_in(group(&world)), ["..1", "..2", "..data", "..mine", "mine", "other", "tls.crt", "tls.key"]);
    write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
    assert_eq!(names_in(group(&world)), ["..mine", "mine", "other"]);
}

#[test]
fn a_group_becomes_plain_files_and_the_reverse() {
    let world = World::new();
    source_is(&world, 1);
    let plain = PAIR.replace(", group: tls", "");
    let one = r#"files: [{ path: tls, from: "literal:x" }]"#;
    for texts in [[PAIR, &plain], [&plain, PAIR], [PAIR, one], [one, PAIR], [&plain, one], [one, &plain]] {
        for (number, text) in (1..).zip(texts) {
            source_is(&world, number);
            write(&world, text);
            if text == one {
                assert_eq!(fs::read_to_string(group(&world)).unwrap(), "x");
                continue;
            }
            assert_eq!(read_by_paths(&group(&world)).unwrap().map(|value| number_of(&value).unwrap()), [number, number + KEY]);
            let there: &[&str] = if text == PAIR { &["..1", "..data", "tls.crt", "tls.key"] } else { &["tls.crt", "tls.key"] };
            assert_eq!(names_in(group(&world)), there, "{texts:?}");
            if number == 2 {
                write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
                assert_eq!(names_in(world.directory()), [".secret-init.files", "a"]);
            }
        }
    }
}

#[test]
fn beside_a_program_that_runs_a_group_becomes_plain_files_and_the_reverse_without_a_gap() {
    let world = World::new();
    let group = group(&world);
    source_is(&world, 1);
    let plain = PAIR.replace(", group: tls", "");
    for (first, second) in [(PAIR, plain.as_str()), (&plain, PAIR)] {
        let mut running = configured(&world, first).shell("echo runs; read line").listens().spawn();
        running.line("runs");
        let end = AtomicBool::new(false);
        let reader = Reader::default();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| reader.read_until(&end, || read_by_paths(&group)));
            for _ in 0..20 {
                write(&world, second);
                write(&world, first);
            }
            end.store(true, Ordering::Relaxed);
            assert_eq!(thread.join().unwrap().unwrap().len(), 1);
        });
        running.say("end");
        assert_eq!(running.finishes().code(), 0);
    }
    write(&world, &plain);
    assert_eq!(names_in(&group), ["tls.crt", "tls.key"]);
}

#[test]
fn an_optional_secret_that_is_absent_is_not_in_the_generation() {
    let world = World::new();
    source_is(&world, 1);
    let text = &PAIR.replace("/W/crt", "/W/crt?optional=true").replace("/W/key", "/W/key?optional=true");
    write(&world, text);
    fs::remove_file(world.path.join("key")).unwrap();
    write(&world, text);
    assert_eq!(names_in(group(&world)), ["..1", "..2", "..data", "tls.crt"]);
    fs::remove_file(world.path.join("crt")).unwrap();
    write(&world, text);
    assert_eq!(names_in(group(&world)), ["..1", "..2", "..3", "..data"]);
    assert_eq!(names_in(group(&world).join("..data")), [""; 0]);
    source_is(&world, 2);
    write(&world, text);
    assert_eq!(read_pair(&group(&world)).unwrap().map(|value| number_of(&value).unwrap()), [2, 2 + KEY]);
    // A pair of which one is missing is no pair, unless it is optional: nothing changes.
    fs::remove_file(world.path.join("key")).unwrap();
    let outcome = configured(&world, PAIR).flag("write").finishes();
    let lines = [
        &format!("c.yaml:4:5: tls/tls.key: file:{}: no such file", world.path.join("key").display()),
        "hint: add ?optional=true or ?default=… if it may be missing",
        "1 of 2 secrets failed; nothing was written",
    ];
    outcome.fails(66, &lines);
    assert_eq!(read_pair(&group(&world)).unwrap().map(|value| number_of(&value).unwrap()), [2, 2 + KEY]);
}

#[test]
fn two_that_write_at_once_leave_a_whole_pair_and_nothing_else() {
    const SWAPS: u64 = 300;
    let world = World::new();
    let group = group(&world);
    let worlds = [World::new(), World::new()];
    let starts = worlds.each_ref().map(|own| {
        let text = PAIR.replace("/W/", &format!("{}/", own.path.display()));
        own.secret_init().flag("--config").flag(own.file("c.yaml", text)).directory(world.directory()).flag("write")
    });
    source_is(&worlds[0], 0);
    starts[0].finishes().succeeds();
    let end = AtomicBool::new(false);
    let reader = Reader::default();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| reader.read_until(&end, || read_pair(&group)));
        let writers = [0, 1].map(|index| {
            let (own, start) = (&worlds[index], &starts[index]);
            scope.spawn(move || {
                for number in 1..=SWAPS {
                    source_is(own, number * 2 + index as u64);
                    let output = start.command().stdin(Stdio::null()).output().unwrap();
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        end.store(true, Ordering::Relaxed);
        let seen = thread.join().unwrap().unwrap();
        println!("the reader saw {} of {} values", seen.len(), 2 * SWAPS);
        assert!(seen.len() > 100, "{}", seen.len());
    });
    assert_eq!(reader.mixed.load(Ordering::Relaxed), 0);
    age_all(&group);
    source_is(&worlds[0], 2 * SWAPS + 2);
    starts[0].finishes().succeeds();
    assert_eq!(names_in(world.directory()), [".secret-init.files", "tls"]);
    let (numbers, current) = generations(&group);
    assert_eq!((numbers.len(), numbers.last()), (2, Some(&current)));
    assert!(current >= 2 * SWAPS);
}

// What stands in the way.

const NOTHING_WRITTEN: &str = "nothing was written";

#[test]
fn what_has_the_name_of_the_groups_directory_is_named_and_not_followed() {
    let world = World::new();
    let outside = world.path.join("outside");
    fs::create_dir(&outside).unwrap();
    source_is(&world, 1);
    let start = configured(&world, PAIR).flag("write");
    let path = group(&world);
    let obstacles: [fn(&Path, &Path); 3] = [
        |path, outside| symlink(outside, path).unwrap(),
        |path, _| fs::write(path, "x").unwrap(),
        |path, _| nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o666)).unwrap(),
    ];
    for obstacle in obstacles {
        obstacle(&path, &outside);
        let lines = [
            &format!("{}: cannot be made or opened: not a directory", path.display()),
            "hint: a file or a link has the name of the directory; remove it",
            NOTHING_WRITTEN,
        ];
        start.finishes().fails(73, &lines);
        assert_eq!((names_in(&outside), names_in(world.directory())), (vec![], vec!["tls".to_owned()]));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_directory_with_the_name_of_a_link_ends_the_start_and_nothing_changes() {
    let world = World::new();
    let group = group(&world);
    source_is(&world, 1);
    let more = r#"
files:
  - { path: a, from: "file:/W/crt" }
  - { path: tls/tls.crt, from: "file:/W/crt", group: tls }
  - { path: tls/tls.key, from: "file:/W/key", group: tls }
  - { path: zzz/x, from: "file:/W/crt", group: last }
"#;
    write(&world, more);
    source_is(&world, 2);
    for (name, subject) in [
        ("tls/..data", format!("{}: ", group.display())),
        ("tls/tls.key", format!("tls/tls.key: {}: ", group.join("tls.key").display())),
        ("zzz/x", format!("zzz/x: {}: ", world.directory().join("zzz/x").display())),
        ("zzz/..data", format!("{}: ", world.directory().join("zzz").display())),
    ] {
        let path = world.directory().join(name);
        let target = fs::read_link(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let before = tree(&world.directory());
        let lines =
            [&format!("{subject}cannot be replaced: is a directory"), "hint: a directory has this name; remove it", NOTHING_WRITTEN];
        configured(&world, more).flag("write").finishes().fails(73, &lines);
        assert_eq!(tree(&world.directory()), before, "{name}");
        fs::remove_dir(&path).unwrap();
        symlink(target, &path).unwrap();
        assert_eq!(read_pair(&group).unwrap().map(|value| number_of(&value).unwrap()), [1, 1 + KEY]);
    }
    write(&world, more);
    assert_eq!(read_pair(&group).unwrap().map(|value| number_of(&value).unwrap()), [2, 2 + KEY]);
}

#[test]
fn what_else_has_the_name_of_a_link_is_replaced_and_not_followed() {
    let world = World::new();
    let group = group(&world);
    let outside = world.path.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("tls.key"), "as it was").unwrap();
    source_is(&world, 1);
    write(&world, PAIR);
    let obstacles: [fn(&Path, &Path); 3] = [
        |path, outside| symlink(outside, path).unwrap(),
        |path, _| fs::write(path, "x").unwrap(),
        |path, _| nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o666)).unwrap(),
    ];
    for (name, obstacle) in ["..data", "tls.key"].iter().flat_map(|name| obstacles.map(|obstacle| (name, obstacle))) {
        fs::remove_file(group.join(name)).unwrap();
        obstacle(&group.join(name), &outside);
        write(&world, PAIR);
        assert_eq!(read_pair(&group).unwrap(), read_by_paths(&group).unwrap());
        assert!(tree(&group).contains(&"tls.key -> ..data/tls.key".to_owned()));
        assert_eq!(tree(&outside), ["tls.key 644 0:0"]);
    }
    assert_eq!(fs::read_to_string(outside.join("tls.key")).unwrap(), "as it was");
}

#[test]
fn links_of_others_in_a_group_lead_nowhere() {
    let world = World::new();
    let group = group(&world);
    let outside = world.path.join("outside");
    source_is(&world, 1);
    write(&world, PAIR);
    let fresh = || {
        let _ = fs::remove_dir_all(&outside);
        fs::create_dir_all(outside.join("..1")).unwrap();
        fs::write(outside.join("..1/tls.key"), "as it was").unwrap();
        fs::write(outside.join("x"), "as it was").unwrap();
        symlink("..data/x", outside.join("link")).unwrap();
        tree(&outside)
    };
    let before = fresh();
    // Links that look like generations, and one that looks like the current one's.
    symlink(&outside, group.join("..5")).unwrap();
    symlink(&outside, group.join("..6")).unwrap();
    fs::remove_file(group.join("..data")).unwrap();
    symlink(&outside, group.join("..data")).unwrap();
    write(&world, PAIR);
    assert_eq!((tree(&outside), generations(&group).1), (before.clone(), 7));
    write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
    assert_eq!((tree(&outside), names_in(&group)), (before.clone(), ["..5", "..6"].map(str::to_owned).to_vec()));
    // The list of our names leads through a link, at each depth.
    fs::remove_dir_all(&group).unwrap();
    symlink(&outside, &group).unwrap();
    fs::create_dir(world.directory().join("deep")).unwrap();
    symlink(&outside, world.directory().join("deep/tls")).unwrap();
    let list = world.directory().join(".secret-init.files");
    for line in [
        "tls/",
        "tls/x",
        "tls/..1/tls.key",
        "tls/link",
        "deep/tls/",
        "deep/tls/x",
        "deep/tls/..1/",
        "../outside/x",
        "../outside/",
        "/",
        "tls//",
        "deep/../deep/tls/x",
    ] {
        fs::remove_file(&list).unwrap();
        fs::write(&list, format!("{line}\n")).unwrap();
        write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
        assert_eq!(tree(&outside), before, "{line}");
    }
}

#[test]
fn a_list_of_our_names_that_was_tampered_with_removes_no_directory_of_others() {
    let world = World::new();
    let directory = world.directory();
    write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
    fs::create_dir_all(directory.join("theirs/deep")).unwrap();
    fs::write(directory.join("theirs/deep/x"), "theirs").unwrap();
    fs::create_dir(directory.join("empty")).unwrap();
    let list = directory.join(".secret-init.files");
    for line in ["theirs", "theirs/deep", "theirs/", "theirs/deep/", "theirs/deep/x/", "empty"] {
        fs::remove_file(&list).unwrap();
        fs::write(&list, format!("{line}\n")).unwrap();
        write(&world, r#"files: [{ path: a, from: "literal:x" }]"#);
        assert_eq!(fs::read_to_string(directory.join("theirs/deep/x")).unwrap(), "theirs", "{line}");
        assert!(directory.join("empty").exists());
    }
}

#[test]
fn in_a_directory_that_others_can_write_to_their_links_lead_nowhere_either() {
    let world = World::new();
    set_mode(world.directory(), 0o1777);
    let outside = world.path.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("x"), "as it was").unwrap();
    let text = r#"files: [{ path: conf/x, from: "literal:secret" }, { path: tls/x, from: "literal:secret", group: tls }]"#;
    let as_other = |script: &str| {
        let script = script.replace("$D", &world.directory().display().to_string()).replace("$O", &outside.display().to_string());
        world.secret_init().bare().as_user(1000).shell(&script).finishes().succeeds();
    };
    let warning = format!("secret-init: warning: {}: others can write to it (owner 0, mode 1777)\n", world.directory().display());
    for (trap, path) in [("ln -s $O $D/conf", "conf"), ("ln -s $O $D/tls", "tls"), ("mkfifo $D/tls", "tls")] {
        as_other(trap);
        let outcome = configured(&world, text).flag("write").finishes();
        let name = if path == "conf" { "conf/x: " } else { "" };
        let expected = format!(
            "{warning}secret-init: {name}{}: cannot be made or opened: not a directory\nsecret-init: hint: a file or a link has the name of the directory; remove it\nsecret-init: nothing was written\n",
            world.directory().join(path).display()
        );
        assert_eq!((outcome.stderr.as_str(), outcome.code()), (expected.as_str(), 73));
        as_other(&format!("rm $D/{path}"));
        assert_eq!((tree(&outside), fs::read_to_string(outside.join("x")).unwrap().as_str()), (vec!["x 644 0:0".to_owned()], "as it was"));
    }
    // A directory that is another's: what is in it can be taken away, and not be read.
    as_other("mkdir -m 0777 $D/tls");
    let outcome = configured(&world, text).flag("write").finishes();
    assert_eq!((outcome.code(), outcome.stderr), (0, warning));
    as_other("! cat $D/tls/x 2>/dev/null && ! ls $D/tls/..1 2>/dev/null");
}

// When there is no room.

/// A start with a pair of this size each.
fn sized(world: &World, small: &Small, sizes: [usize; 2]) -> Start {
    for (name, size) in ["crt", "key"].iter().zip(sizes) {
        world.file(name, name[..1].repeat(size));
    }
    let text = PAIR.replace("/W/", &format!("{}/", world.path.display()));
    world.secret_init().flag("--config").flag(world.file("c.yaml", text)).directory(&small.0).flag("write")
}

#[test]
fn a_full_tmpfs_keeps_the_old_pair_whole_and_leaves_nothing_behind() {
    let world = World::new();
    let small = Small::mounted_at(world.directory(), "64k");
    let group = group(&world);
    sized(&world, &small, [8_000, 8_000]).finishes().succeeds();
    let before = tree(&small.0);
    for (sizes, name) in [([40_000, 40_000], "tls.key"), ([60_000, 1], "tls.crt")] {
        let lines = [
            &format!("tls/{name}: {}: cannot be written: no space left on device", group.join(name).display()),
            "hint: make the tmpfs larger (size=…), or deliver less: a file that is replaced needs its room twice, a group three times within 30 s",
            NOTHING_WRITTEN,
        ];
        sized(&world, &small, sizes).finishes().fails(73, &lines);
        assert_eq!(tree(&small.0), before);
        assert_eq!(read_pair(&group).unwrap(), [b"c".repeat(8_000), b"k".repeat(8_000)]);
    }
    sized(&world, &small, [9_000, 9_000]).finishes().succeeds();
    assert_eq!(read_pair(&group).unwrap(), [b"c".repeat(9_000), b"k".repeat(9_000)]);
}

#[test]
fn a_tmpfs_without_inodes_keeps_the_old_pair_whole_and_leaves_nothing_behind() {
    // One for the root, eight for the first generation (list, directory, generation, two files, three links), and one for what they are moved from. Then five more.
    let (mut failed, mut first) = (0, Vec::new());
    for inodes in 10..=14 {
        let world = World::new();
        let small = Small::mounted_at(world.directory(), &format!("64k,nr_inodes={inodes}"));
        sized(&world, &small, [10, 10]).finishes().succeeds();
        let before = tree(&small.0);
        let outcome = sized(&world, &small, [20, 20]).finishes();
        if outcome.code() == 0 {
            assert_eq!(read_pair(&group(&world)).unwrap(), [b"c".repeat(20), b"k".repeat(20)]);
            continue;
        }
        failed += 1;
        first.push(outcome.stderr.lines().next().unwrap().rsplit(": ").nth(2).unwrap().rsplit('/').next().unwrap().to_owned());
        assert_eq!((outcome.code(), outcome.stderr.contains("no space left on device")), (73, true), "{}", outcome.stderr);
        assert_eq!(tree(&small.0), before, "{inodes}");
        assert_eq!(read_pair(&group(&world)).unwrap(), [b"c".repeat(10), b"k".repeat(10)]);
    }
    println!("failed with {failed} numbers of inodes, at {first:?}");
    assert_eq!(failed, 4);
}

// What the plan refuses.

#[track_caller]
fn refuses(text: &str, lines: &[&str]) {
    let world = World::new();
    let lines: Vec<String> =
        lines.iter().map(|line| if line.starts_with(':') { format!("c.yaml{line}") } else { (*line).to_owned() }).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).chain(["1 problem in the plan; a start would fail"]).collect();
    configured(&world, text).flag("plan").finishes().fails(78, &lines);
}

#[test]
fn what_cannot_be_a_group_is_told() {
    let file = |path: &str, group: &str| {
        let group = if group.is_empty() { String::new() } else { format!(", group: {group}") };
        format!("- {{ path: {path}, from: 'literal:x'{group} }}\n")
    };
    let own = "hint: a group has a directory of its own";
    let both = |one: String, other: String| format!("files:\n{one}{other}");
    refuses(
        &both(file("a", "g"), String::new()),
        &[":2:3: a: a file of the group g needs a directory", "hint: write path: DIRECTORY/NAME"],
    );
    refuses(
        &both(file("a/x", "g"), file("b/y", "g")),
        &[":3:3: b/y: the group g has the directory a", "hint: all files of a group lie in one directory"],
    );
    refuses(
        &both(file("a/x", "g"), file("a/b/y", "g")),
        &[":3:3: a/b/y: the group g has the directory a", "hint: all files of a group lie in one directory"],
    );
    refuses(&both(file("a/x", "g"), file("a/y", "h")), &[":3:3: a/y: a/x lies in the directory of the group h", own]);
    refuses(&both(file("a/x", ""), file("a/y", "g")), &[":3:3: a/y: a/x lies in the directory of the group g", own]);
    refuses(&both(file("a/b/x", ""), file("a/y", "g")), &[":3:3: a/y: a/b/x lies in the directory of the group g", own]);
    refuses(&both(file("a/b/x", "g"), file("a/y", "h")), &[":3:3: a/y: a/b/x lies in the directory of the group h", own]);
    refuses(&both(file("a/x", "g"), file("a/y", "")), &[":3:3: a/y: a is the directory of the group g", own]);
    refuses(&both(file("a/x", "g"), file("a/b/y", "")), &[":3:3: a/b/y: a is the directory of the group g", own]);
    refuses(&both(file("a/x", "g"), file("a/b/y", "h")), &[":3:3: a/b/y: a is the directory of the group g", own]);
    let one = "hint: keep one of the two";
    refuses(&both(file("a/x", "g"), file("a/x", "g")), &[":3:3: a/x: goes to the same place as a/x", one]);
    refuses(&both(file("a/x", "g"), file("a", "")), &[":3:3: a: goes to the same place as a/x", one]);
    refuses(&both(file("a", ""), file("a/x", "g")), &[":3:3: a/x: goes to the same place as a", one]);
    refuses(
        &format!("env: {{ a_FILE: 'literal:x' }}\nfiles:\n{}", file("a/x", "g")),
        &[":3:3: a/x: goes to the same place as a_FILE", one],
    );
    // These are well.
    let world = World::new();
    let text = r#"
files:
  - { path: a/x, from: "literal:1", group: g }
  - { path: a.b/x, from: "literal:2" }
  - { path: b/a/x, from: "literal:3", group: h }
  - { path: b/x, from: "literal:4" }
  - { path: c, from: "literal:5" }
"#;
    write(&world, text);
    let read = |path: &str| fs::read_to_string(world.directory().join(path)).unwrap();
    assert_eq!(["a/x", "a.b/x", "b/a/x", "b/x", "c"].map(read).concat(), "12345");
}
