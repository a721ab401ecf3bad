//! A change that starts the program again: it finds what the first start found, and nobody of the first is left.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::terminal::Terminal;
use support::watched::{agent, configured, on_one_stream, program, replace};
use support::{Running, Start, World, eventually, is_ours};

/// Says what it has in its environment and in its file, and the time.
const SHOWS: &str = r#"
use Time::HiRes "time";
$| = 1;
open my $file, "<", $ENV{B_FILE} // "/dev/null";
my $content = <$file> // "-";
printf "runs %s %s at %.3f\n", $ENV{A}, $content, time;
sleep 1 while 1;
"#;

/// A secret in the environment, as `A`, and a change of it is another start.
fn one(world: &World) -> Start {
    let path = world.file("a", "one");
    let start = world.secret_init().flag("--on-change=restart").flag("--log-level=info").directory(world.directory());
    on_one_stream(start).variable("A", format!("${{file:{}}}", path.display()))
}

fn runs(start: &Start) -> Running {
    let mut running = start.spawn();
    running.line("runs one");
    let _ = agent(running.pid());
    running
}

/// The same by a configuration.
fn by_configuration(world: &World, rotation: &str) -> Start {
    world.file("a", "one");
    configured(world, &format!("env: {{ A: 'file:/W/a' }}\nrotation: {{ on_change: restart, {rotation} }}\n"))
}

#[test]
fn a_change_is_in_the_environment_and_in_the_files_of_the_next_start() {
    let world = World::new();
    let start = one(&world).variable("B_FILE", format!("file:{}", world.file("b", "one").display()));
    let mut running = runs(&start.program(["perl", "-e", SHOWS]));
    let first = program(running.pid());
    replace(&world.path.join("a"), "two");
    running.line("runs two one");
    replace(&world.path.join("b"), "three");
    running.line("runs two three");
    assert_ne!(program(running.pid()), first);
    let said = running.all_until_killed();
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn a_secret_in_a_variable_and_in_a_file_is_of_one_moment_after_changes_in_a_row() {
    let world = World::new();
    let start = one(&world).variable("B_FILE", format!("file:{}", world.path.join("a").display()));
    let mut running = runs(&start.program(["perl", "-e", SHOWS]));
    replace(&world.path.join("a"), "two");
    eventually("it is in the file", || (fs::read_to_string(world.directory().join("B")).unwrap() == "two").then_some(()));
    replace(&world.path.join("a"), "three");
    assert!(running.line("runs").starts_with("runs three three"));
}

#[test]
fn as_pid_1_it_is_the_same() {
    let world = World::new();
    let mut running = one(&world).as_pid_1().program(["perl", "-e", SHOWS]).spawn();
    running.line("runs one");
    let supervisor = running.pid_1();
    for value in ["two", "three"] {
        replace(&world.path.join("a"), value);
        running.line(&format!("runs {value}"));
    }
    assert_eq!((running.pid_1(), support::children(supervisor).len()), (supervisor, 2));
}

#[test]
fn the_program_is_asked_by_its_signal_and_killed_after_the_grace_and_its_group_is_gone_before_the_next_starts() {
    const HOLDS: &str = r#"
import fcntl, os, signal, time
os.set_inheritable(fd := os.open(os.environ["LOCK"], os.O_RDWR | os.O_CREAT), True)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held = "alone"
except OSError:
    held = "not alone"
child = os.fork()
for number in signal.SIGINT, signal.SIGTERM:
    signal.signal(number, lambda number, _: child and print(signal.Signals(number).name, time.time(), flush=True))
if child:
    print("runs", os.environ["A"], held, time.time(), flush=True)
while True:
    time.sleep(1)
"#;
    let world = World::new();
    let start = by_configuration(&world, "stop_signal: INT, grace: 1s").variable("LOCK", world.path.join("lock"));
    let mut running = runs(&start.program(["python3", "-c", HOLDS]));
    replace(&world.path.join("a"), "two");
    let asked = running.time_of("SIGINT");
    let again = running.line("runs two");
    assert!(again.starts_with("runs two alone"), "{again}");
    let took = again.rsplit(' ').next().unwrap().parse::<f64>().unwrap() - asked;
    // The grace, and then two seconds for what the program left.
    assert!((2.9..8.0).contains(&took), "{took}");
    assert_eq!(support::children(running.pid()).iter().filter(|&&child| !is_ours(child)).count(), 1);
    assert!(!running.all_until_killed_hard().contains("SIGTERM"));
}

#[test]
fn who_ends_the_container_while_the_program_is_being_started_again_ends_it() {
    const SLOW: &str = r#"
use IO::Handle;
$| = 1;
$SIG{TERM} = sub { print "asked ", ++$count, "\n"; exit 42 if $count == 2 };
print "runs $ENV{A}\n";
sleep 1 while 1;
"#;
    let world = World::new();
    let mut running = runs(&one(&world).program(["perl", "-e", SLOW]));
    replace(&world.path.join("a"), "two");
    running.line("asked 1");
    running.signal(libc::SIGTERM);
    let outcome = running.finishes();
    assert_eq!((outcome.code(), outcome.stdout.matches("runs").count()), (42, 1), "{}", outcome.stdout);
}

/// Says what comes, and ends by USR1 alone.
const LIVES_ON: &str = r#"
$| = 1;
$SIG{TERM} = sub { print "asked\n" };
$SIG{INT} = sub { print "interrupted\n" };
$SIG{HUP} = sub { print "HUP\n" };
$SIG{USR1} = sub { exit 41 };
print "runs $ENV{A}\n";
select undef, undef, undef, 0.05 while 1;
"#;

#[test]
fn a_change_after_term_does_not_start_the_program_again() {
    let world = World::new();
    let mut running = runs(&one(&world).program(["perl", "-e", LIVES_ON]));
    running.signal(libc::SIGTERM);
    running.line("asked");
    replace(&world.path.join("a"), "two");
    // The agent has asked for a restart, and PID 1 has heard it.
    running.line("secret-init: A: changed; restart");
    running.signal(libc::SIGUSR1);
    let outcome = running.finishes();
    assert_eq!((outcome.code(), outcome.stdout.matches("runs").count()), (41, 1), "{}", outcome.stdout);
}

#[test]
fn a_program_that_lives_on_after_term_is_told_of_what_else_changes() {
    let world = World::new();
    for name in ["a", "b"] {
        world.file(name, "one");
    }
    let text = "secrets: { b: { from: 'file:/W/b', on_change: signal } }\nenv: { A: 'file:/W/a' }\nfiles: [{ path: b, from: '${b}' }]\nrotation: { on_change: restart }\n";
    let mut running = runs(&configured(&world, text).program(["perl", "-e", LIVES_ON]));
    running.signal(libc::SIGTERM);
    running.line("asked");
    replace(&world.path.join("a"), "two");
    running.line("secret-init: A: changed; restart");
    replace(&world.path.join("b"), "two");
    running.line("HUP");
}

#[test]
fn a_restart_that_is_called_off_kills_nobody_who_lives_on() {
    let world = World::new();
    world.file("b", "one");
    world.file("a", "one");
    let text = "secrets: { b: { from: 'file:/W/b', on_change: signal } }\nenv: { A: 'file:/W/a' }\nfiles: [{ path: b, from: '${b}' }]\nrotation: { on_change: restart, grace: 1s }\n";
    let mut running = runs(&configured(&world, text).program(["perl", "-e", LIVES_ON]));
    let asked = Instant::now();
    replace(&world.path.join("a"), "two");
    running.line("asked");
    running.signal(libc::SIGINT);
    running.line("interrupted");
    eventually("the grace is over", || (asked.elapsed() > Duration::from_secs(5)).then_some(()));
    replace(&world.path.join("b"), "two");
    running.line("HUP");
    running.signal(libc::SIGUSR1);
    let outcome = running.finishes();
    assert_eq!((outcome.code(), outcome.stdout.matches("runs").count()), (41, 1), "{}", outcome.stdout);
}

#[test]
fn an_end_that_a_change_asked_for_is_not_taken_back_by_a_restart_that_comes_later() {
    let world = World::new();
    for name in ["a", "b"] {
        world.file(name, "one");
    }
    let text = "secrets: { a: { from: 'file:/W/a', on_change: { exit: 42 } } }\nenv: { A: '${a}', B: 'file:/W/b' }\nrotation: { on_change: restart, grace: 1m }\n";
    let mut running = runs(&configured(&world, text).program(["perl", "-e", LIVES_ON]));
    replace(&world.path.join("a"), "two");
    running.line("asked");
    replace(&world.path.join("b"), "two");
    running.line("secret-init: B: changed; restart");
    running.signal(libc::SIGUSR1);
    let outcome = running.finishes();
    assert_eq!((outcome.code(), outcome.stdout.matches("runs").count()), (42, 1), "{}", outcome.stdout);
}

#[test]
fn hup_from_outside_is_not_for_the_program_that_is_just_being_started_again() {
    const SLOW: &str = r#"
import os, signal, sys, time
def hup(*_): print("HUP", os.environ["A"], flush=True)
signal.signal(signal.SIGHUP, hup)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if not child:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: print("leaving", flush=True))
    while True: time.sleep(1)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("runs", os.environ["A"], flush=True)
while True: time.sleep(1)
"#;
    let world = World::new();
    let mut running = runs(&one(&world).program(["python3", "-c", SLOW]));
    replace(&world.path.join("a"), "two");
    // The program has ended, and two seconds are waited for what it left.
    running.line("leaving");
    running.signal(libc::SIGHUP);
    // It would die of it before it has its handler, and has read everything anew.
    running.line("runs two");
    running.signal(libc::SIGHUP);
    running.line("HUP two");
}

#[test]
fn the_pause_between_two_starts_doubles() {
    let world = World::new();
    let mut running = one(&world).program(["perl", "-e", SHOWS]).spawn();
    running.line("runs one");
    let _ = agent(running.pid());
    let mut at = Vec::new();
    for value in ["two", "three", "four", "five"] {
        replace(&world.path.join("a"), value);
        at.push(running.time_of(&format!("runs {value}")));
    }
    let between: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (between, least) in between.iter().zip([0.9, 1.9, 3.9]) {
        assert!(*between >= least, "{between} {least}");
    }
}

#[test]
fn the_second_start_finds_what_the_first_one_found() {
    const LOOKS: &str = r#"
import os, resource, signal, stat
status = dict(line.rstrip("\n").split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
links = {int(name): os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}
print("runs", os.environ["A"], flush=True)
print("found", links, os.read(3, 2), os.getcwd(), status["Umask"], status["SigIgn"], status["SigBlk"], status["CapEff"], os.nice(0),
    os.getpid() == int(os.environ["LISTEN_PID"]), os.environ["LISTEN_FDS"], os.getpgrp() == os.getpid(), os.getsid(0) == os.getsid(os.getppid()),
    open("/proc/self/oom_score_adj").read().strip(), [resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")],
    sorted((name, value) for name, value in os.environ.items() if name not in ("A", "LISTEN_PID")), flush=True)
while True: signal.pause()
"#;
    let world = World::new();
    world.file("given", "aabbcc");
    let start = one(&world).in_directory(&world.path).variable("LISTEN_FDS", "1");
    let start = start.under(["env", "--ignore-signal=USR1", "--block-signal=USR2"]);
    let start = start.under(["sh", "-c", "umask 027; ulimit -n 777; LISTEN_PID=$$ exec nice -n 3 \"$@\" 3<given", "sh"]);
    let mut running = runs(&start.program(["python3", "-c", LOOKS]));
    let first = running.line("found");
    replace(&world.path.join("a"), "two");
    running.line("runs two");
    let second = running.line("found");
    // It is the very same open file: the first has read two bytes of it.
    assert_eq!(second, first.replace("b'aa'", "b'bb'"));
    assert!(first.contains("/given'") && first.contains(" True 1 True True "), "{first}");
    assert!(first.contains(&format!(" {} ", world.path.display())), "{first}");
}

#[test]
fn the_second_start_has_the_terminal_too() {
    let world = World::new();
    let path = world.file("a", "one");
    // Not one long wait: a signal just before it would be taken after it.
    let look = "import os, time; print('runs', os.environ['A'], os.tcgetpgrp(0) == os.getpgrp(), flush=True); print('read', input(), flush=True); [time.sleep(0.1) for _ in iter(int, 1)]";
    let start = world
        .secret_init()
        .flag("--on-change=restart")
        .variable("A", format!("${{file:{}}}", path.display()))
        .program(["python3", "-c", look]);
    for start in [start.clone(), start.as_pid_1().under(["setsid", "--ctty"])] {
        replace(&path, "one");
        let mut terminal = Terminal::running(start.command());
        terminal.shows("runs one True");
        terminal.types("first\n");
        terminal.shows("read first");
        replace(&path, "two");
        terminal.shows("runs two True");
        terminal.types("second\n");
        terminal.shows("read second");
        terminal.types("\x03");
        terminal.ends_with(130);
    }
}

#[test]
fn a_program_that_cannot_be_started_again_ends_the_container() {
    let world = World::new();
    let script = world.script("program", "#!/bin/sh\necho runs $A\nrm $0\nexec sleep 1000\n");
    let mut running = runs(&one(&world).program([script.as_os_str()]));
    eventually("it is gone", || (!script.exists()).then_some(()));
    replace(&world.path.join("a"), "two");
    let line = running.line("secret-init: ");
    assert!(line.starts_with("secret-init: A: changed; restart"), "{line}");
    let outcome = running.finishes();
    assert_eq!(outcome.code(), 127, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("not found"), "{}", outcome.stdout);
}

#[test]
fn it_is_not_started_again_as_long_as_a_secret_of_its_environment_cannot_be_fetched() {
    let world = World::new();
    let b = world.file("b", "one");
    let start = one(&world).variable("B", format!("${{file:{}}}", b.display())).variable("SHOWN", "B");
    let mut running = runs(&start.program(["perl", "-e", SHOWS]));
    let first = program(running.pid());
    fs::remove_file(&b).unwrap();
    running.line("secret-init: warning: B: file:");
    replace(&world.path.join("a"), "two");
    let warning = running.line("secret-init: warning: on_change: restart: B: file:");
    assert!(warning.ends_with("no such file"), "{warning}");
    assert_eq!(program(running.pid()), first);
    // It is tried again and again, and said once.
    let tried = Instant::now();
    fs::write(&b, "one").unwrap();
    running.line("runs two");
    assert!(tried.elapsed() < Duration::from_secs(20), "{:?}", tried.elapsed());
    let said = running.all_until_killed();
    assert_eq!((said.matches("on_change: restart").count(), said.matches("runs").count()), (1, 2), "{said}");
}

#[test]
fn an_agent_that_dies_before_it_has_the_program_started_again_leaves_it_to_the_next() {
    let world = World::new();
    let mut running = runs(&one(&world).program(["perl", "-e", SHOWS]));
    let old = agent(running.pid());
    replace(&world.path.join("a"), "two");
    // A restart waits two seconds for others that may follow.
    let refreshed = support::watched::refresh(&world);
    assert!(refreshed.status.success());
    support::send(old, libc::SIGKILL);
    running.line("runs two");
    assert_eq!(running.all_until_killed().matches("runs").count(), 2);
}

/// Says what an agent would say: that these processes are to get a signal, if they are the program.
const ASKS: &str = r#"
import ctypes, os, socket, struct, sys
agent, signal, programs = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
pidfd, pidfd_getfd = os.pidfd_open(agent), 438
for number in os.listdir(f"/proc/{agent}/fd"):
    copy = ctypes.CDLL(None).syscall(pidfd_getfd, pidfd, int(number), 0)
    if copy < 0 or not os.readlink(f"/proc/self/fd/{copy}").startswith("socket:"):
        continue
    pair = socket.socket(fileno=copy)
    if pair.type == socket.SOCK_SEQPACKET:
        for program in programs:
            pair.send(struct.pack("<BBBBI", 5, signal, 0, 0, int(program)))
        break
"#;

#[test]
fn a_signal_that_was_asked_for_a_program_that_has_been_started_anew_since_is_not_sent_to_the_new_one() {
    const TELLS: &str = "$| = 1; $SIG{$_} = sub { syswrite STDOUT, \"$_[0]\\n\" } for qw(USR1 USR2); print \"runs $ENV{A}\\n\"; select undef, undef, undef, 0.05 while 1;";
    let world = World::new();
    let mut running = runs(&one(&world).program(["perl", "-e", TELLS]));
    let (supervisor, first) = (running.pid(), program(running.pid()));
    let asks = |signal: i32, programs: &[i32]| {
        let words = [agent(supervisor), signal].into_iter().chain(programs.iter().copied()).map(|number| number.to_string());
        assert!(std::process::Command::new("python3").args(["-c", ASKS]).args(words).status().unwrap().success());
    };
    asks(libc::SIGUSR1, &[first]);
    running.line("USR1");
    replace(&world.path.join("a"), "two");
    running.line("runs two");
    let second = program(supervisor);
    asks(libc::SIGUSR1, &[first]);
    asks(libc::SIGUSR2, &[first, second]);
    running.line("USR2");
    let said = running.all_until_killed();
    assert_eq!((said.matches("USR1").count(), said.matches("USR2").count()), (1, 1), "{said}");
}
