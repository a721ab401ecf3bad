//! The process that asks the stores: however it ends, the start ends clearly or the program runs as if it had never been.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use support::servers::faults::{Answer, Faults};
use support::terminal::Terminal;
use support::{Running, Start, World, children, eventually, is_ours, send, status_field};

fn good() -> Answer {
    Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}}))
}

/// A start that asks this server for one secret.
fn start(world: &World, server: &Faults) -> Start {
    let start = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
    start.variable("A", "vault:secret/data/app#k").shell("echo started")
}

/// Below another init, and as PID 1.
fn both_ways(start: &Start) -> [Start; 2] {
    [start.clone(), start.clone().as_pid_1()]
}

/// The first of our processes below the launcher, or the launcher itself.
fn first_of_ours(running: &Running) -> i32 {
    eventually("secret-init runs", || {
        let (mut above, mut pid) = (0, running.pid());
        while !is_ours(pid) {
            (above, pid) = (pid, *children(pid).first()?);
        }
        (!is_ours(above)).then_some(pid)
    })
}

/// A start whose server was asked and says nothing, and the process that asks.
fn held(start: &Start, server: &Faults) -> (Running, i32) {
    let before = server.requests().len();
    let running = start.spawn();
    eventually("the server is asked", || (server.requests().len() > before).then_some(()));
    let first = first_of_ours(&running);
    let agent = children(first).first().copied().unwrap_or(first);
    assert!(is_ours(agent));
    (running, agent)
}

// Its end.

fn cut_short(running: Running, code: u8, signal: i32, hint: &str) {
    let cause = format!("the start was cut short (exit code {}); the program was not started", 128 + signal);
    running.finishes().fails(code, &[&cause, &format!("hint: {hint}")]);
}

#[test]
fn an_agent_that_is_killed_ends_the_start_clearly() {
    let (world, server) = (World::new(), Faults::always(Answer::silence()));
    for start in both_ways(&start(&world, &server)) {
        let (running, agent) = held(&start, &server);
        send(agent, libc::SIGKILL);
        cut_short(running, 71, libc::SIGKILL, "was it killed for lack of memory? see the container's memory limit");
        assert!(!Path::new(&format!("/proc/{agent}")).exists());
    }
}

#[test]
fn an_agent_that_crashes_ends_the_start_clearly() {
    let world = World::new();
    for as_pid_1 in [false, true] {
        let server = Faults::always(Answer::silence());
        let start = start(&world, &server);
        let (running, agent) = held(&if as_pid_1 { start.as_pid_1() } else { start }, &server);
        make_faulty(agent);
        // Its wait is over.
        drop(server);
        let fault = if cfg!(target_arch = "x86_64") { libc::SIGSEGV } else { libc::SIGILL };
        cut_short(running, 70, fault, "this is a bug of secret-init");
    }
}

/// Overwrites the instructions that a process will go on with when the system call is over that it waits in: its signals are all blocked, but for those of its own
/// faults.
fn make_faulty(pid: i32) {
    let place = eventually("it waits", || {
        let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
        let waits = [
            libc::SYS_epoll_pwait,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_epoll_wait,
        ]
        .map(|call| format!("{call} "));
        let place =
            waits.iter().any(|call| text.starts_with(call)).then(|| text.trim().rsplit_once(" 0x").map(|(_, place)| place.to_owned()))?;
        u64::from_str_radix(&place?, 16).ok()
    });
    let memory = fs::File::options().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(&[0; 16], place).unwrap();
}

#[test]
fn an_agent_that_dies_when_all_is_delivered_but_handed_over_ends_the_start_too() {
    let (world, server) = (World::new(), Faults::always(good()));
    let start = start(&world, &server).directory(world.directory()).variable("B_FILE", "vault:secret/data/app#k");
    for start in both_ways(&start) {
        // The file is there. Then comes the one in memory, with the environment.
        let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=memfd_create", "-e", "inject=memfd_create:signal=KILL"];
        let running = start.around(&words).spawn();
        cut_short(running, 71, libc::SIGKILL, "was it killed for lack of memory? see the container's memory limit");
    }
    // Nothing keeps the next one from starting.
    assert_eq!(start.finishes().succeeds(), "started\n");
}

#[test]
fn what_cannot_be_handed_over_ends_the_start() {
    let (world, server) = (World::new(), Faults::always(good()));
    for (call, error, cause) in [("memfd_create", "ENFILE", "file table overflow"), ("memfd_create", "ENOMEM", "out of memory")] {
        for start in both_ways(&start(&world, &server)) {
            let inject = format!("inject={call}:error={error}");
            let start = start.around(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
            let cause = format!("what was delivered cannot be handed over: {cause}; the program was not started");
            start.finishes().fails(71, &[&cause, "hint: the container may lack memory or descriptors"]);
        }
    }
}

#[test]
fn a_signal_that_ends_a_start_does_so_at_once_while_a_store_is_asked() {
    let (world, server) = (World::new(), Faults::always(Answer::silence()));
    let start = start(&world, &server).directory(world.directory()).variable("B_FILE", "vault:secret/data/app#k");
    let alone = [start.clone().flag("--exec"), start.clone().flag("--exec").as_pid_1()];
    for start in both_ways(&start).into_iter().chain(alone) {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
            let (running, agent) = held(&start, &server);
            let began = Instant::now();
            send(first_of_ours(&running), signal);
            let outcome = running.finishes();
            assert_eq!((outcome.code(), outcome.stdout.as_str(), outcome.stderr.as_str()), (128 + signal, "", ""));
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            assert!(!Path::new(&format!("/proc/{agent}")).exists());
        }
    }
    assert_eq!(support::files::names_in(world.directory()), [""; 0]);
}

#[test]
fn the_commands_without_a_program_end_at_once_too() {
    let (world, server) = (World::new(), Faults::always(Answer::silence()));
    let start = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
    let start = start.directory(world.directory()).variable("B_FILE", "vault:secret/data/app#k");
    for command in ["write", "check"] {
        for start in both_ways(&start.clone().flag(command)) {
            let (running, _) = held(&start, &server);
            send(first_of_ours(&running), libc::SIGTERM);
            let outcome = running.finishes();
            assert_eq!((outcome.code(), outcome.stdout.as_str(), outcome.stderr.as_str()), (128 + libc::SIGTERM, "", ""), "{command}");
        }
    }
}

#[test]
fn ctrl_c_ends_a_start_while_a_store_is_asked() {
    let (world, server) = (World::new(), Faults::always(Answer::silence()));
    let start = start(&world, &server);
    for (number, start) in [start.clone(), start.as_pid_1().under(["setsid", "--ctty"])].iter().enumerate() {
        let mut terminal = Terminal::running(start.command());
        eventually("the server is asked", || (server.requests().len() > number).then_some(()));
        terminal.types("\x03");
        terminal.ends_with(128 + libc::SIGINT);
    }
}

#[test]
fn an_ignored_hangup_does_not_end_a_start_and_another_signal_waits_for_the_program() {
    let world = World::new();
    let (hold, held_back) = std::sync::mpsc::channel::<()>();
    let held_back = std::sync::Mutex::new(held_back);
    let server = Faults::start(move |_, _| {
        let _ = held_back.lock().unwrap().recv();
        good()
    });
    let program = "import signal; print(signal.sigwait([signal.SIGUSR1]).name, signal.getsignal(signal.SIGHUP).name)";
    for start in both_ways(&start(&world, &server).program(["python3", "-c", program])) {
        let (running, _) = held(&start.under(["env", "--ignore-signal=HUP", "--block-signal=USR1"]), &server);
        let supervisor = first_of_ours(&running);
        send(supervisor, libc::SIGHUP);
        send(supervisor, libc::SIGUSR1);
        hold.send(()).unwrap();
        assert_eq!(running.finishes().succeeds(), "SIGUSR1 SIG_IGN\n");
    }
}

#[test]
fn term_at_any_moment_of_a_start_with_a_store_is_never_lost() {
    const HANDLER: &str = "$SIG{TERM} = sub { exit 55 }; select undef, undef, undef, 0.01 while 1";
    let (world, server) = (World::new(), Faults::always(good()));
    let began = Instant::now();
    start(&world, &server).finishes().succeeds();
    let whole = began.elapsed();
    for start in both_ways(&start(&world, &server).program(["perl", "-e", HANDLER])) {
        for round in 0..120 {
            let running = start.spawn();
            let supervisor = first_of_ours(&running);
            eventually("signals are blocked", || (status_field(supervisor, "SigBlk") == "fffffffffffbfeff").then_some(()));
            let until = Instant::now() + whole * round / 100;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            send(supervisor, libc::SIGTERM);
            let outcome = running.finishes();
            assert!([143, 55].contains(&outcome.code()), "{round}: {outcome:?}");
        }
    }
}

#[test]
fn a_program_that_takes_long_to_be_loaded_is_waited_for_without_any_work() {
    let (world, server) = (World::new(), Faults::always(good()));
    // More than a start may take: then it is too late for us to end it.
    let words =
        ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=execve", "-e", "inject=execve:delay_enter=3600000"];
    std::thread::scope(|scope| {
        for start in [start(&world, &server), world.secret_init().shell("echo started")] {
            scope.spawn(move || {
                let outcome = start.flag("--timeout=1s").around(&words).finishes();
                assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "started\n"), "{}", outcome.stderr);
                assert!(outcome.cpu_time < Duration::from_millis(500), "{:?}", outcome.cpu_time);
            });
        }
    });
}

// What is left of it.

#[test]
fn nothing_of_it_is_left_and_the_program_finds_everything_as_it_would_without_us() {
    const LOOK: &str = r#"
import os, resource
status = dict(line.split(":\t", 1) for line in open("/proc/self/status") if ":\t" in line)
print("umask", status["Umask"].strip(), "nice", os.nice(0), "oom", open("/proc/self/oom_score_adj").read().strip(), "uids", status["Uid"].strip())
print("limits", [resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")])
print("core", open("/proc/self/coredump_filter").read().strip(), status["NoNewPrivs"].strip(), status["CapEff"].strip(), status["CapBnd"].strip())
print("scheduling", os.sched_getscheduler(0), os.sched_getaffinity(0), "tids", os.listdir("/proc/self/task") == [str(os.getpid())])
print("dumpable", os.stat("/proc/self/environ").st_uid == os.getuid(), os.access("/proc/self/mem", os.R_OK))
print("cwd", os.getcwd(), "name", open("/proc/self/comm").read().strip(), "children", open(f"/proc/self/task/{os.getpid()}/children").read())
print("reaper", os.path.basename(os.readlink(f"/proc/{os.getppid()}/exe")) if os.getpid() != 1 else "", flush=True)
"#;
    let (world, server) = (World::new(), Faults::always(good()));
    let start = start(&world, &server).in_directory(&world.path).program(["python3", "-c", LOOK]);
    let start = start.under(["sh", "-c", "umask 027; ulimit -n 777; ulimit -c 4096; exec nice -n 3 \"$@\"", "sh"]);
    let seen = |start: Start| {
        let text = start.finishes().succeeds();
        text.lines().filter(|line| !line.starts_with("reaper")).map(str::to_owned).collect::<Vec<String>>()
    };
    let bare = seen(start.clone().bare());
    assert!(bare[0].contains("umask 0027 nice 3 oom 0"), "{bare:?}");
    for start in both_ways(&start).into_iter().chain([start.clone().flag("--exec"), start.clone().flag("--exec").as_pid_1()]) {
        assert_eq!(seen(start), bare);
    }
}

#[test]
fn pid_1_and_the_program_are_all_that_runs() {
    let (world, server) = (World::new(), Faults::always(good()));
    for start in both_ways(&start(&world, &server).listens().shell("echo started; read line")) {
        let mut running = start.spawn();
        running.line("started");
        let supervisor = first_of_ours(&running);
        let of_supervisor = eventually("the agent is reaped", || Some(children(supervisor)).filter(|children| children.len() == 1));
        assert!(!is_ours(of_supervisor[0]));
        assert_eq!(status_field(supervisor, "Threads"), "1");
        running.say("");
        running.finishes().succeeds();
    }
}

#[test]
fn it_gives_up_its_life_first_and_nobody_else_does() {
    let (world, server) = (World::new(), Faults::always(Answer::silence()));
    let score = |pid: i32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    for start in both_ways(&start(&world, &server)) {
        let (running, agent) = held(&start, &server);
        assert_eq!((score(agent).as_str(), score(first_of_ours(&running)).as_str()), ("1000", "0"));
    }
    // What becomes the program itself is as it was.
    let (running, itself) = held(&start(&world, &server).flag("--exec"), &server);
    assert_eq!((score(itself).as_str(), itself), ("0", running.pid()));
}

#[test]
fn the_directory_of_its_files_stays_locked_as_long_as_the_program_runs() {
    let (world, server) = (World::new(), Faults::always(good()));
    let is_free =
        || Command::new("flock").args(["--nonblock", "--exclusive"]).arg(world.directory()).arg("true").status().unwrap().success();
    let start = start(&world, &server).directory(world.directory()).variable("B_FILE", "vault:secret/data/app#k");
    for start in both_ways(&start.listens().shell("cat $B_FILE; echo; read line")) {
        let mut running = start.spawn();
        running.line("v");
        // Our own descriptors are closed once the program runs.
        eventually("the start is over", || (children(first_of_ours(&running)).len() == 1).then_some(()));
        assert!(!is_free());
        running.say("");
        running.finishes().succeeds();
        assert!(is_free());
    }
}

#[test]
fn the_program_has_the_terminal() {
    let (world, server) = (World::new(), Faults::always(good()));
    let start = start(&world, &server).program([
        "perl",
        "-e",
        r#"$| = 1; print "group ", getpgrp, "\n"; my $line = <STDIN>; print "got $line"; exit 9"#,
    ]);
    for start in [start.clone(), start.as_pid_1().under(["setsid", "--ctty"])] {
        let mut terminal = Terminal::running(start.command());
        terminal.shows("group ");
        terminal.shows("\n");
        let group = terminal.foreground();
        assert!(fs::read_to_string(format!("/proc/{group}/comm")).unwrap().starts_with("perl"));
        terminal.types("line\n");
        terminal.shows("got line");
        terminal.ends_with(9);
    }
}

// Other users, other modes.

#[test]
fn root_asks_and_the_program_is_another_user() {
    let (world, server) = (World::new(), Faults::always(good()));
    let token = world.file("token", "t0ken-of-root");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o400)).unwrap();
    let start = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN_FILE", &token).flag("--user=4242:4343");
    let start = start.directory(world.directory()).variable("A", "vault:secret/data/app#k").variable("B_FILE", "vault:secret/data/app#k");
    let start = start
        .shell("echo $(id -u):$(id -g) $A $(cat $B_FILE) $HOME; [ ! -r \"$TOKEN\" ] && stat -c '%a %u' $B_FILE")
        .variable("TOKEN", &token);
    for start in both_ways(&start).into_iter().chain([start.clone().flag("--exec")]) {
        assert_eq!(start.finishes().succeeds(), "4242:4343 v v /\n400 4242\n");
    }
    assert_eq!(server.requests()[0].header("x-vault-token"), Some("t0ken-of-root"));
    assert_eq!(fs::metadata(world.directory().join("B")).unwrap().uid(), 4242);
}

#[test]
fn write_leaves_the_files_and_check_nothing() {
    let (world, server) = (World::new(), Faults::always(good()));
    let start = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
    let start = start.directory(world.directory()).variable("B_FILE", "vault:secret/data/app#k");
    let table = start.clone().flag("check").finishes().succeeds();
    assert!(table.contains("B_FILE  vault:secret/data/app#k  vault  file B (0400)  1 ") && table.trim_end().ends_with("ok"), "{table}");
    assert_eq!(support::files::names_in(world.directory()), [""; 0]);
    assert_eq!(start.flag("write").finishes().succeeds(), "");
    assert_eq!(fs::read_to_string(world.directory().join("B")).unwrap(), "v");
}
