//! Real programs that read their configuration anew on HUP, and those that only seem to: each as its runtime makes it, without a supervisor between.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "a thread gives up rights, or gets a namespace of its own")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use secret_init::report::Problem;
use secret_init::rotation::target::{self, Reason, Refusal, Target};
use secret_init::sys::signal::Signal;
use support::servers::postgres::Postgres;
use support::{Running, Start, World, eventually, send};

/// What nobody asked for, and what somebody did.
const DEFAULT: bool = true;
const EXPLICIT: bool = false;

fn program<const COUNT: usize>(world: &World, words: [&str; COUNT]) -> Start {
    world.secret_init().bare().in_directory(&world.path).program(words)
}

#[track_caller]
fn ready(start: &Start) -> Running {
    let mut running = start.spawn();
    running.line("ready");
    running
}

fn pid(running: &Running) -> Pid {
    Pid::from_raw(running.pid())
}

fn hup(process: Pid, is_default: bool) -> Result<(), Reason> {
    target::send(process, Signal::HUP, is_default).map_err(|refusal| refusal.reason)
}

/// The program without a handler would end by HUP and does not get it; the one that says `reloaded` gets it. What catches HUP anyway, for this reason, gets it when it was
/// asked for alone.
#[track_caller]
fn hup_ends_none_and_reaches(without: &Start, with: &Start, catches: Option<Reason>) {
    let mut running = ready(without);
    assert_eq!(hup(pid(&running), DEFAULT), Err(catches.unwrap_or(Reason::NotCaught)));
    assert_eq!(target::may_signal(pid(&running), false, Signal::HUP, EXPLICIT).is_ok(), catches.is_some());
    assert!(running.is_running());
    // So that what is feared is real.
    send(running.pid(), libc::SIGHUP);
    let code = running.finishes().code();
    assert!([129, 1000 + libc::SIGHUP].contains(&code), "{code}");

    let mut running = ready(with);
    assert_eq!(hup(pid(&running), DEFAULT), catches.map_or(Ok(()), Err));
    if catches.is_none() {
        running.line("reloaded");
    }
    assert_eq!(hup(pid(&running), EXPLICIT), Ok(()));
    running.line("reloaded");
    assert!(running.is_running());
}

#[test]
fn hup_ends_no_bash_that_catches_it_for_its_exit_and_reaches_one_with_a_trap_for_it_when_it_was_asked_for() {
    let world = World::new();
    let without = program(&world, ["bash", "-c", "trap 'echo bye' EXIT; echo ready; while :; do sleep 0.1; done"]);
    let with = program(&world, ["bash", "-c", "trap 'echo bye' EXIT; trap 'echo reloaded' HUP; echo ready; while :; do sleep 0.1; done"]);
    hup_ends_none_and_reaches(&without, &with, Some(Reason::CatchesAll));
}

const RUBY: &str = "$stdout.sync = true; puts 'ready'; sleep";

#[test]
fn hup_ends_no_ruby_and_reaches_one_with_a_trap_when_it_was_asked_for() {
    let world = World::new();
    let with = format!("trap('HUP') {{ $stdout.syswrite(\"reloaded\\n\") }}; {RUBY}");
    let [without, with] = [RUBY, &with].map(|script| program(&world, ["ruby", "-e", script]));
    hup_ends_none_and_reaches(&without, &with, Some(Reason::Ruby));
}

const JAVA: &str = r#"
public class App {
    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length > 0) {
            sun.misc.Signal.handle(new sun.misc.Signal("HUP"), signal -> System.out.println("reloaded"));
        }
        System.out.println("ready");
        Thread.sleep(1_000_000);
    }
}
"#;

/// Without a handler, and with one.
fn java(world: &World) -> [Start; 2] {
    world.file("App.java", JAVA);
    // It warns of the class that handles signals.
    assert!(Command::new("javac").arg("App.java").current_dir(&world.path).stderr(Stdio::null()).status().unwrap().success());
    [program(world, ["java", "-XX:-UsePerfData", "App"]), program(world, ["java", "-XX:-UsePerfData", "App", "handler"])]
}

#[test]
fn hup_ends_no_jvm_and_reaches_one_with_a_handler_when_it_was_asked_for() {
    let world = World::new();
    let [without, with] = java(&world);
    hup_ends_none_and_reaches(&without, &with, Some(Reason::Jvm));
}

const GO: &str = r#"package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	hangups := make(chan os.Signal, 1)
	if len(os.Args) > 1 {
		signal.Notify(hangups, syscall.SIGHUP)
	} else {
		signal.Notify(hangups, syscall.SIGUSR1)
	}
	fmt.Println("ready")
	for range hangups {
		fmt.Println("reloaded")
	}
}
"#;

/// Without a handler for HUP, and with one.
fn go(world: &World, flags: &str) -> [Start; 2] {
    world.file("main.go", GO);
    let mut build = Command::new("go");
    build.args(["build", "-ldflags", flags, "main.go"]).current_dir(&world.path);
    build.env("GOCACHE", world.path.join(".cache")).env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    assert!(build.status().unwrap().success());
    [program(world, ["./main"]), program(world, ["./main", "handler"])]
}

#[test]
fn hup_ends_no_go_program_and_reaches_one_with_a_handler_when_it_was_asked_for() {
    let world = World::new();
    for flags in ["", "-s -w -buildid="] {
        let [without, with] = go(&world, flags);
        hup_ends_none_and_reaches(&without, &with, Some(Reason::Go));
    }
    // Without any section that tells: what it catches does.
    let [without, with] = go(&world, "-s -w -buildid=");
    let stripped = Command::new("objcopy").args(["--rename-section", ".go.buildinfo=.data1", "main"]).current_dir(&world.path).status();
    assert!(stripped.unwrap().success());
    hup_ends_none_and_reaches(&without, &with, Some(Reason::CatchesAll));
}

/// The worst case: an agent in a container is root without the right to trace, and the program runs as somebody else.
#[test]
fn hup_ends_none_whose_file_and_mappings_cannot_be_seen() {
    let world = World::new();
    let [java, _] = java(&world);
    let [go, _] = go(&world, "");
    let ruby = program(&world, ["ruby", "-e", RUBY]);
    for (start, reason) in [(java, Reason::Jvm), (go, Reason::CatchesAll), (ruby, Reason::CatchesAll)] {
        let mut running = ready(&start.as_user(1000));
        let process = pid(&running);
        let came = apart(move || {
            give_up_the_right_to_trace();
            assert!(fs::read(format!("/proc/{process}/maps")).is_err() && fs::read(format!("/proc/{process}/exe")).is_err());
            hup(process, DEFAULT)
        });
        assert_eq!(came, Err(reason));
        assert!(running.is_running());
    }
    let handler = "import os, signal; signal.signal(signal.SIGHUP, lambda *_: os.write(1, b'reloaded\\n')); print('ready', flush=True)";
    let mut running = ready(&program(&world, ["python3", "-c", &format!("{handler}\nwhile True: signal.pause()")]).as_user(1000));
    let process = pid(&running);
    let came = apart(move || {
        give_up_the_right_to_trace();
        hup(process, DEFAULT)
    });
    assert_eq!(came, Ok(()));
    running.line("reloaded");
}

#[test]
fn hup_makes_a_real_nginx_read_its_configuration_anew() {
    let world = World::new();
    world.file("nginx.conf", "pid nginx.pid; error_log stderr notice; daemon off; events {} http { access_log off; }");
    let prefix = world.path.display().to_string();
    let running = program(&world, ["nginx", "-p", &prefix, "-c", "nginx.conf", "-e", "stderr"]).spawn();
    let workers = || support::children(running.pid());
    let first = eventually("it has a worker", || workers().first().copied());
    eventually("it has a pid file", || fs::read_to_string(world.path.join("nginx.pid")).ok().filter(|text| text.ends_with('\n')));
    let found = target::find(&Target::PidFile(world.path.join("nginx.pid"))).unwrap();
    assert_eq!(found, [pid(&running)]);
    assert_eq!(hup(found[0], DEFAULT), Ok(()));
    eventually("another worker takes over", || workers().first().filter(|&&worker| worker != first).copied());
    send(running.pid(), libc::SIGQUIT);
    assert_eq!(running.finishes().code(), 0);
}

#[test]
fn hup_makes_a_real_postgres_read_its_configuration_anew() {
    let server = Postgres::start();
    let data = PathBuf::from(server.query("SHOW data_directory").unwrap());
    let since = server.query("SELECT pg_conf_load_time()").unwrap();
    // Its file has more lines than the number.
    let found = target::find(&Target::PidFile(data.join("postmaster.pid"))).unwrap();
    assert_eq!(hup(found[0], DEFAULT), Ok(()));
    eventually("it read its configuration", || (server.query("SELECT pg_conf_load_time()").unwrap() != since).then_some(()));
}

#[test]
fn a_thread_that_would_let_the_signal_through_is_enough_for_it_not_to_be_sent() {
    let world = World::new();
    let script = "import signal, threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
print('ready', flush=True)
signal.sigwait({signal.SIGHUP})";
    let mut running = ready(&program(&world, ["python3", "-c", script]));
    assert_eq!(hup(pid(&running), EXPLICIT), Err(Reason::NotCaught));
    assert!(running.is_running());
}

#[test]
fn a_group_of_those_who_ignore_it_is_sent_nothing() {
    let world = World::new();
    let running = ready(&program(&world, ["setsid", "sh", "-c", "trap '' HUP; echo ready; exec sleep 1000"]));
    let refusal = target::may_signal(pid(&running), true, Signal::HUP, DEFAULT).unwrap_err();
    assert_eq!((refusal.process, refusal.reason), (pid(&running), Reason::Ignored));
}

#[test]
fn where_proc_shows_nothing_nothing_is_sent() {
    let world = World::new();
    let mut running = ready(&program(&world, ["sh", "-c", "echo ready; while :; do sleep 0.1; done"]));
    let process = pid(&running);
    let came = apart(move || {
        hide_proc();
        (hup(process, EXPLICIT), target::may_signal(process, true, Signal::HUP, EXPLICIT).map_err(|refusal| refusal.reason))
    });
    // It has no group of its own, and what is not there cannot be hidden.
    assert_eq!(came, (Err(Reason::Hidden), Err(Reason::Gone)));
    assert!(running.is_running());
}

#[test]
fn a_refusal_says_who_why_and_what_to_do() {
    let refusal = |reason| Refusal { signal: Signal::HUP, process: Pid::from_raw(42), name: "app".to_owned(), reason };
    for (reason, sentence, hint) in [
        (Reason::NotCaught, "HUP is not sent: it has no handler for it, and would end", "restart"),
        (Reason::Ignored, "HUP is not sent: it ignores it", "restart"),
        (Reason::Jvm, "HUP is not sent: a JVM catches it, and ends", "--on-change HUP"),
        (Reason::Go, "HUP is not sent: a Go program catches it, and ends unless it is written otherwise", "{signal: HUP}"),
        (Reason::Hidden, "HUP is not sent: /proc does not show whether it has a handler", "hidepid"),
        (Reason::Denied { uid: 7 }, "HUP is not sent: it runs as uid 7, and this is uid 0", "runAsUser"),
    ] {
        let problem = Problem::from(refusal(reason));
        assert_eq!(problem.to_string(), format!("process 42 (app): {sentence}"));
        assert!(problem.hint.unwrap().contains(hint), "{reason:?}");
    }
    // The one that was asked for does as --on-change is told.
    for (signal, name) in [(libc::SIGUSR1, "USR1"), (34, "signal 34")] {
        assert!(Refusal { signal: Signal(signal), ..refusal(Reason::Ignored) }.to_string().contains(&format!(": {name} is not sent")));
    }
}

// Other rights than the test has, in a thread of its own.

fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Of this thread alone, as of root in a container.
fn give_up_the_right_to_trace() {
    const SYS_PTRACE: u32 = 19;
    const SYS_ADMIN: u32 = 21;
    // By its number beyond the first word.
    const PERFMON: u32 = 38 - 32;
    // _LINUX_CAPABILITY_VERSION_3: two words each of effective, permitted and inheritable.
    let header = [0x2008_0522_u32, 0];
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: capget(2) and capset(2) read and write what the version of the header says, which is what there is.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0][0] &= !(1 << SYS_PTRACE | 1 << SYS_ADMIN);
        sets[1][0] &= !(1 << PERFMON);
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

/// For this thread alone /proc is empty.
fn hide_proc() {
    // SAFETY: unshare(2) takes a number, and mount(2) strings that end.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let none = std::ptr::null();
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()), 0);
        assert_eq!(libc::mount(c"none".as_ptr(), c"/proc".as_ptr(), c"tmpfs".as_ptr(), 0, none.cast()), 0);
    }
}
