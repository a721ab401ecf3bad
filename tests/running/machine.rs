//! Faults of the machine: no room, no rights, no descriptors, no processes; agents that die, and storms of signals.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::rig::{PROGRAM, Relay, Store, Watched, container, port};
use crate::support::files::{Small, names_in, set_mode};
use crate::support::servers::faults::{Answer, Faults, Request};
use crate::support::servers::openbao::OpenBao;
use crate::support::watched::dirty_memory;
use crate::support::{World, children, eventually, send};

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// A program whose directory is a tmpfs of its own.
fn with_a_small_directory(store: &Store) -> Watched {
    let world = World::new();
    let small = Small::mounted_at(world.directory(), "64k");
    let start = store.told(container(&world)).variable("A_FILE", store.reference(""));
    Watched::start(world, start, "one").on(small)
}

#[test]
fn a_full_tmpfs_keeps_the_old_file_whole_and_nothing_is_left_of_the_new_one() {
    let store = Store::new();
    let mut watched = with_a_small_directory(&store);
    let names = names_in(&watched.directory);
    let ballast = watched.directory.join("ballast");
    // It ends when there is no room.
    let _ = fs::write(&ballast, vec![0; 1 << 20]);
    store.put("two");
    for _ in 0..3 {
        watched.stays(73, "no space left on device");
    }
    fs::remove_file(ballast).unwrap();
    assert_eq!(names_in(&watched.directory), names);
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn a_tmpfs_that_is_read_only_by_now_changes_nothing() {
    let store = Store::new();
    let mut watched = with_a_small_directory(&store);
    let path = watched.directory.display().to_string();
    run("mount", &["-o", "remount,ro", &path]);
    store.put("two");
    for _ in 0..3 {
        watched.stays(73, "read-only file system");
    }
    run("mount", &["-o", "remount,rw", &path]);
    watched.hears(1, "two");
    watched.ends(1);
}

/// As a user that has no other processes.
fn of_a_user(uid: u32, store: &Store, address: &str) -> Watched {
    let world = World::new();
    chown(world.directory(), Some(uid), Some(uid)).unwrap();
    let start = container(&world).as_user(uid).variable("VAULT_ADDR", address).variable("VAULT_TOKEN", "root");
    Watched::start(world, start.variable("A_FILE", store.reference("")), "one")
}

#[test]
fn a_directory_that_may_not_be_written_to_any_more_changes_nothing() {
    let store = Store::new();
    let mut watched = of_a_user(54_321, &store, &store.gate.address);
    set_mode(&watched.directory, 0o500);
    store.put("two");
    for _ in 0..3 {
        watched.stays(73, "permission denied");
    }
    set_mode(&watched.directory, 0o700);
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn no_thread_for_the_name_of_a_server_changes_nothing() {
    let store = Store::new();
    let mut watched = of_a_user(54_322, &store, &format!("http://localhost:{}", port(&store.gate.address)));
    let agent = watched.agent().to_string();
    // Where root lacks the right to do it to others, the user has it.
    let limit = |limit: &str| run("setpriv", &["--reuid=54322", "--regid=54322", "--clear-groups", "prlimit", "--pid", &agent, limit]);
    limit("--nproc=1:");
    store.put("two");
    for _ in 0..3 {
        watched.stays(71, "no thread can be had to look the name up");
    }
    limit("--nproc=100:");
    watched.hears(1, "two");
    watched.ends(1);
}

/// The numbers that the next descriptors of an agent will have that does nothing.
fn free_descriptors(watched: &Watched, store: &Store) -> Vec<u32> {
    let open = || names_in(format!("/proc/{}/fd", watched.agent()));
    let is_lookup = |request: &Request| request.path.ends_with("/lookup-self");
    eventually("it knows how long its token lasts", || store.gate.requests().iter().any(is_lookup).then_some(()));
    let open = eventually("it does nothing", || {
        let before = open();
        watched.health();
        (open() == before).then_some(before)
    });
    let open: Vec<u32> = open.iter().map(|name| name.parse().unwrap()).collect();
    (0..1024).filter(|number| !open.contains(number)).collect()
}

fn limit_descriptors(pid: i32, below: u32) {
    run("prlimit", &["--pid", &pid.to_string(), &format!("--nofile={below}:")]);
}

#[test]
fn no_descriptor_for_a_connection_changes_nothing() {
    let store = Store::new();
    let mut watched = store.watched("");
    let agent = watched.agent();
    store.put("two");
    // One for whoever asks, and none for the store.
    limit_descriptors(agent, free_descriptors(&watched, &store)[1]);
    for _ in 0..3 {
        watched.stays(71, "no descriptor can be had for a connection");
    }
    limit_descriptors(agent, 1024);
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn without_any_descriptor_the_agent_waits_and_does_not_spin() {
    let store = Store::new();
    let mut watched = store.watched("");
    let agent = watched.agent();
    store.put("two");
    limit_descriptors(agent, free_descriptors(&watched, &store)[0]);
    // Those who ask now are answered later.
    let refresh = watched.world.secret_init().directory(&watched.directory).flag("refresh").spawn();
    let ticks = || {
        let text = fs::read_to_string(format!("/proc/{agent}/stat")).unwrap();
        let fields: Vec<u64> = text.rsplit_once(')').unwrap().1.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        fields[10] + fields[11]
    };
    let (before, began) = (ticks(), Instant::now());
    eventually("some time is over", || (began.elapsed().as_secs() >= 2).then_some(()));
    assert!(ticks() - before < 50, "{} ticks of a hundred a second", ticks() - before);
    limit_descriptors(agent, 1024);
    let refresh = refresh.finishes();
    assert!(refresh.code() == 0 && refresh.stdout.contains(" changed"), "{refresh:?}");
    assert_eq!(watched.running.line("HUP"), "HUP 1 two");
    watched.ends(1);
}

/// What the kernel does to the one that offers itself when memory is short.
#[test]
fn an_agent_that_is_killed_is_followed_by_another_and_nothing_is_told_twice() {
    let store = Store::new();
    let mut watched = store.watched("");
    store.put("two");
    watched.hears(1, "two");
    let (first, before) = (watched.agent(), watched.file());
    send(first, libc::SIGKILL);
    let second = eventually("another is there", || Some(watched.agent()).filter(|&agent| agent != first));
    eventually("it answers", || (watched.health().code() == 0).then_some(()));
    for _ in 0..3 {
        let refresh = watched.refresh();
        assert!(refresh.code() == 0 && refresh.stdout.contains(" unchanged"), "{refresh:?}");
        assert_eq!(watched.file(), before);
    }
    watched.is_well();
    // One that dies after a change was there is followed by one that sees it.
    store.put("three");
    send(second, libc::SIGKILL);
    assert_eq!(watched.running.line("HUP"), "HUP 2 three");
    watched.ends(2);
}

#[test]
fn an_agent_that_dies_before_it_could_leave_what_it_knows_is_followed_by_one_that_looks_at_once() {
    let (store, world) = (Store::new(), World::new());
    let trace = world.path.join("trace");
    // The lock of its directory, what it leaves before it hands over, and what is delivered: there is no fourth message.
    let kills = "inject=sendmsg:signal=KILL:when=4";
    let words = ["strace", "-f", "-q", "-o", trace.to_str().unwrap(), "-e", "trace=sendmsg", "-e", kills];
    let start = store.told(world.secret_init()).directory(world.directory()).flag("--refresh=24h");
    let start = start.variable("A_FILE", store.reference("")).program(["perl", "-e", PROGRAM]);
    let mut running = start.around(&words).spawn();
    running.line("runs one");
    eventually("it is dead", || fs::read_to_string(&trace).ok()?.contains("killed by SIGKILL").then_some(()));
    store.put("two");
    assert_eq!(running.line("HUP"), "HUP 1 two");
    send(children(running.pid())[0], libc::SIGTERM);
    running.line("TERM 1");
}

#[test]
fn an_agent_that_dies_while_the_store_is_away_is_followed_by_one_that_keeps_the_files() {
    let store = Store::new();
    let mut watched = store.watched("");
    let (first, before) = (watched.agent(), watched.file());
    store.answers([Answer::reset()]);
    send(first, libc::SIGKILL);
    eventually("another is there", || Some(watched.agent()).filter(|&agent| agent != first));
    eventually("it answers", || (watched.health().code() == 0).then_some(()));
    for _ in 0..3 {
        watched.stays(69, "the connection broke before the answer was complete");
    }
    assert_eq!(watched.file(), before);
    store.put("two");
    store.answers_truly();
    watched.hears(1, "two");
    watched.ends(1);
}

// Memory.

#[test]
fn an_agent_that_watches_a_hundred_secrets_of_a_store_has_little_memory() {
    let (bao, world) = (OpenBao::start(), World::new());
    let change =
        |value: &str| (0..100).for_each(|number| bao.kv(&format!("many/{number}"), &json!({"k": value, "more": "x".repeat(1000)})));
    change("one");
    let start = bao.told(container(&world)).variable("VAULT_TOKEN", &bao.root).variable("A_FILE", "vault:secret/data/many/0#k");
    let start = (1..100).fold(start, |start, number| start.variable(format!("B{number}_FILE"), format!("vault:secret/data/many/{number}")));
    let mut watched = Watched::start(world, start, "one");
    let dirty = || {
        let dirty = dirty_memory(watched.agent());
        println!("{dirty} KiB");
        dirty
    };
    assert_eq!(watched.refresh().code(), 0);
    let before = dirty();
    change("two");
    let refresh = watched.refresh();
    assert!(refresh.code() == 0 && refresh.stdout.contains("100 secrets changed"), "{refresh:?}");
    let found = [before, dirty()];
    assert!(found.iter().all(|&dirty| dirty <= 12 * 1024), "{found:?} KiB");
    assert_eq!(watched.running.line("HUP"), "HUP 1 two");
    watched.ends(1);
}

// Signals.

#[test]
fn a_storm_of_hangups_reaches_the_program_and_loses_no_term() {
    const COUNTS: &str = r#"
$| = 1;
my ($number, $ends) = (0, 0);
$SIG{HUP} = sub { $number++ };
$SIG{TERM} = sub { $ends = 1 };
print "runs one\n";
until ($ends) { select undef, undef, undef, 0.05 }
print "TERM $number\n";
"#;
    let (store, world) = (Store::new(), World::new());
    let start = store.told(container(&world)).variable("A_FILE", store.reference("")).flag("--refresh=24h");
    let mut watched = Watched::of(world, start.program(["perl", "-e", COUNTS]));
    let pid_1 = watched.running.pid_1();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100_000).for_each(|_| send(pid_1, libc::SIGHUP)));
        // The agent has its own work meanwhile.
        for value in ["two", "three", "four"] {
            store.put(value);
            let refresh = watched.refresh();
            assert!(refresh.code() == 0 && refresh.stdout.contains(" changed"), "{refresh:?}");
        }
    });
    watched.is_well();
    send(pid_1, libc::SIGTERM);
    let number: u32 = watched.running.line("TERM").replace("TERM ", "").parse().unwrap();
    // Those of one kind that wait merge.
    assert!((1..=100_003).contains(&number), "{number}");
    assert_eq!(watched.running.finishes().code(), 0);
}

#[test]
fn a_change_before_the_program_has_its_handler_does_not_kill_it() {
    const LATE: &str = r#"
$| = 1;
print "runs one\n";
my $line = <STDIN>;
$SIG{HUP} = sub { open my $file, "<", $ENV{A_FILE}; print "HUP 1 ", <$file>, "\n" };
$SIG{TERM} = sub { print "TERM 1\n"; exit 0 };
select undef, undef, undef, 0.05 while 1;
"#;
    let (store, world) = (Store::new(), World::new());
    let start = store.told(container(&world)).variable("A_FILE", store.reference("")).flag("--refresh=24h").listens();
    let mut watched = Watched::of(world, start.program(["perl", "-e", LATE]));
    store.put("two");
    let refresh = watched.refresh();
    assert!(refresh.code() == 0 && refresh.stdout.contains(" changed"), "{refresh:?}");
    assert_eq!(watched.file().2, b"two");
    watched.running.say("now");
    assert_eq!(watched.running.line("HUP"), "HUP 1 two");
    assert_eq!(watched.ends(1), "");
}

#[test]
fn an_answer_that_never_ends_keeps_nobody_from_ending_the_program() {
    let (store, hung) = (Store::new(), Faults::always(Answer::silence()));
    let relay = Relay::to(&store.gate.address);
    let world = World::new();
    let start = container(&world).variable("VAULT_ADDR", format!("http://127.0.0.1:{}", relay.port)).variable("VAULT_TOKEN", "root");
    let watched = Watched::start(world, start.variable("A_FILE", store.reference("")), "one");
    relay.leads_to(&hung.address);
    let refresh = watched.world.secret_init().directory(&watched.directory).flag("refresh").spawn();
    eventually("it is asked", || (!hung.requests().is_empty()).then_some(()));
    // The agent still says how it is.
    assert_eq!(watched.health().code(), 0);
    let began = Instant::now();
    watched.ends(0);
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
    assert_eq!(refresh.finishes().code(), 69);
}
