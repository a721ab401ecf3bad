//! What an init must do. Each of 28 demands has its tests, as PID 1 and, where it differs, below another init.
//!
//!  1 all signals are collected        `every_signal_that_a_process_sends_reaches_the_program`, `all_signals_are_blocked_and_none_is_handled`
//!  2 not forwarded                    `what_the_kernel_raises_for_us_stays_with_us`, `a_child_signal_is_not_forwarded`
//!  3 stop signals                     `every_signal_…`; with a terminal: tests/terminal.rs
//!  4 real-time signals                `fifty_queued_real_time_signals_arrive_as_fifty`
//!  5 the target of a signal           `a_signal_goes_to_the_program_alone`, `with_group_a_signal_goes_to_the_whole_group`
//!  6 session and group                `the_program_leads_a_group_of_its_own_in_our_session`
//!  7 the foreground of the terminal   tests/terminal.rs
//!  8 exit codes                       `every_exit_code_is_passed_on`, `a_death_by_a_signal_is_128_and_the_signal`.
//!                                     Exception: no remapping of exit codes, which nothing has asked for yet
//!  9 a program that cannot be run     `a_program_that_is_not_found_is_127_and_one_that_cannot_be_run_126`
//! 10 a script without #!              `a_script_without_an_interpreter_line_is_run_by_the_shell`
//! 11 options after the program        `options_after_the_program_are_its_own`
//! 12 reaping                          `two_thousand_orphans_are_reaped`, `orphans_that_end_with_the_program_do_not_hide_its_exit_code`
//! 13 not PID 1                        the same, below another init and without a word: `two_thousand_…` and all others that go both ways
//! 14 death of the parent              Exception: no option for it. In a container the death of PID 1 is everybody's, and elsewhere nobody has asked for it
//! 15 the program's mask               `mask_and_ignored_signals_are_inherited_as_they_are`
//! 16 the program's dispositions       the same
//! 17 SIGCHLD ignored by our parent    `a_parent_that_ignores_child_signals_does_not_make_us_hang`
//! 18 descriptors                      `the_program_gets_the_inherited_descriptors_and_none_of_ours`, `an_inherited_pipe_ends_when_the_program_closes_it`
//! 19 closed stdio                     `closed_standard_streams_are_inherited_closed`
//! 20 socket activation                `listen_pid_that_names_us_names_the_program`
//! 21 working directory                `the_program_keeps_the_working_directory_and_we_leave_it`
//! 22 a signal during the start        `term_…`
//! 23 before our first instruction     `signals_are_blocked_before_anything_else_is_done`
//! 24 the program ends, others remain  `leftovers_…`, `without_group_below_another_init_leftovers_are_left_alone`
//! 25 stopped leftovers                `a_stopped_leftover_is_woken_to_see_term`
//! 26 numbers that are used again      `nothing_is_sent_to_a_program_that_is_reaped`
//! 27 at rest                          `at_rest_nothing_wakes_us`, `one_thread_and_little_memory`
//! 28 errors of kill                   `a_signal_that_we_may_not_send_is_no_reason_to_end`

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use support::servers::faults::{Answer, Faults};
use support::{DEADLINE, Outcome, Running, Start, World, binary, children, eventually, is_ours, send, status_field};

/// Prints the number of each signal that arrives, also of those that the C library keeps for itself; 64 ends it.
const RECORDER: &str = r#"
import ctypes, platform
libc = ctypes.CDLL(None)
block, wait = {"x86_64": (14, 128), "aarch64": (135, 137)}[platform.machine()]
every = ctypes.c_uint64(2**64 - 1)
libc.syscall(block, 0, ctypes.byref(every), None, 8)
print("ready", flush=True)
signal = 0
while signal != 64:
    signal = libc.syscall(wait, ctypes.byref(every), None, None, 8)
    print(signal, flush=True)
"#;

/// A program that ends with 55 on TERM, once it has said so.
const HANDLER: &str = "$SIG{TERM} = sub { exit 55 }; select undef, undef, undef, 0.01 while 1";

const LAST: i32 = 64;

/// Below another init, and as PID 1.
fn both_ways(world: &World) -> [Start; 2] {
    [world.secret_init(), world.secret_init().as_pid_1()]
}

/// Below another init, as PID 1, and in the mode that leaves nothing of us.
fn all_ways(world: &World) -> [Start; 3] {
    [world.secret_init(), world.secret_init().as_pid_1(), world.secret_init().flag("--exec")]
}

/// The same, and each with a secret of a store that is asked over a network, for which there is one process more.
fn with_a_store(starts: impl IntoIterator<Item = Start>) -> Vec<Start> {
    static STORE: LazyLock<Faults> = LazyLock::new(|| Faults::always(Answer::json(&serde_json::json!({"data": {"k": "v"}}))));
    let remote = |start: &Start| {
        let start = start.clone().variable("VAULT_ADDR", &STORE.address).variable("VAULT_TOKEN", "t0ken");
        start.variable("REMOTE", "vault:secret/app#k")
    };
    let local: Vec<Start> = starts.into_iter().collect();
    let remote: Vec<Start> = if cfg!(feature = "vault") { local.iter().map(remote).collect() } else { Vec::new() };
    [local, remote].concat()
}

fn recorder(start: &Start) -> (Running, i32) {
    let mut running = start.clone().program(["python3", "-c", RECORDER]).spawn();
    running.line("ready");
    let supervisor = supervisor(&running);
    (running, supervisor)
}

/// The first of our processes below the launcher, or the launcher itself.
fn supervisor(running: &Running) -> i32 {
    eventually("secret-init runs", || {
        let (mut above, mut pid) = (0, running.pid());
        while !is_ours(pid) {
            (above, pid) = (pid, *children(pid).first()?);
        }
        // The launcher may have become secret-init between two looks, and this be its child.
        (!is_ours(above)).then_some(pid)
    })
}

/// The process that is or becomes the program, which lives as long as the test needs it.
fn program(supervisor: i32) -> i32 {
    // One that has ended and is not yet reaped runs nothing.
    let runs_something = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    eventually("the program runs", || children(supervisor).into_iter().find(|&child| runs_something(child) && !is_ours(child)))
}

/// The system call that a process waits in, once it really sleeps.
fn sleeps_in(pid: i32) -> Option<i64> {
    fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?.split(' ').next()?.parse().ok()
}

/// All but KILL and STOP.
const ALL_BLOCKED: &str = "fffffffffffbfeff";

fn blocks_all(pid: i32) -> bool {
    status_field(pid, "SigBlk") == ALL_BLOCKED
}

// Signals.

#[test]
fn every_signal_that_a_process_sends_reaches_the_program() {
    let world = World::new();
    for start in both_ways(&world) {
        let (mut running, supervisor) = recorder(&start);
        for signal in (1..=LAST).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(signal)) {
            send(supervisor, signal);
            running.line(&format!("{signal}\n"));
        }
        let stdout = running.finishes().succeeds();
        assert_eq!(stdout.lines().count(), 1 + 64 - 3, "each once: {stdout}");
    }
}

#[test]
fn a_child_signal_is_not_forwarded() {
    let world = World::new();
    for start in both_ways(&world) {
        let (running, supervisor) = recorder(&start);
        send(supervisor, libc::SIGCHLD);
        // Higher numbers are taken later, by us and by the program.
        send(supervisor, LAST);
        assert_eq!(running.finishes().succeeds(), "ready\n64\n");
    }
}

#[test]
fn what_the_kernel_raises_for_us_stays_with_us() {
    // Each number is raised by the kernel for the process that becomes secret-init, when somebody writes into a pipe of its.
    const LAUNCHER: &str = r#"
import fcntl, os, sys
writers = []
for signal in (13, 14, 23, 24, 25, 26, 27):
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    os.set_inheritable(writer, True)
    fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(reader, 10, signal) # F_SETSIG
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
    writers.append(str(writer))
os.environ["WRITERS"] = " ".join(writers)
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let raising = format!("import os\ndef raise_all():\n    [os.write(int(fd), b'x') for fd in os.environ['WRITERS'].split()]\n{RECORDER}")
        .replace(
            "    print(signal, flush=True)\n",
            "    print(signal, flush=True)\n    if signal == 1: raise_all(); print('raised', flush=True)\n",
        );
    let world = World::new();
    for start in both_ways(&world) {
        let mut running = start.under(["/usr/bin/python3", "-c", LAUNCHER]).program(["python3", "-c", &raising]).spawn();
        running.line("ready");
        let supervisor = supervisor(&running);
        send(supervisor, 1);
        running.line("raised");
        send(supervisor, LAST);
        assert_eq!(running.finishes().succeeds(), "ready\n1\nraised\n64\n");
    }
}

#[test]
fn all_signals_are_blocked_and_none_is_handled() {
    let world = World::new();
    for start in both_ways(&world) {
        let (running, supervisor) = recorder(&start);
        assert_eq!(status_field(supervisor, "SigBlk"), ALL_BLOCKED);
        assert_eq!(status_field(supervisor, "SigCgt"), "0000000000000000");
        send(supervisor, LAST);
        running.finishes().succeeds();
    }
}

#[test]
fn fifty_queued_real_time_signals_arrive_as_fifty() {
    let world = World::new();
    for start in both_ways(&world) {
        let (running, supervisor) = recorder(&start);
        // While we are stopped they all have to wait.
        send(supervisor, libc::SIGSTOP);
        for signal in [34, 47] {
            (0..50).for_each(|_| send(supervisor, signal));
        }
        send(supervisor, LAST);
        send(supervisor, libc::SIGCONT);
        let stdout = running.finishes().succeeds();
        let count = |number: &str| stdout.lines().filter(|line| *line == number).count();
        assert_eq!((count("34"), count("47")), (50, 50));
    }
}

/// A program with a child in its group; each of both tells of USR1, and the program ends when its stdin does.
const TWO: &str = r#"
$| = 1;
my $child = fork;
my $who = $child ? "parent" : "child";
$SIG{USR1} = sub { print "$who\n" };
$SIG{USR2} = sub { exit 0 };
print "$who is ready\n";
select undef, undef, undef, 0.01 while 1;
"#;

#[test]
fn a_signal_goes_to_the_program_alone() {
    let world = World::new();
    for start in both_ways(&world) {
        let mut running = start.program(["perl", "-e", TWO]).spawn();
        (0..2).for_each(|_| drop(running.line("")));
        let supervisor = supervisor(&running);
        let program = program(supervisor);
        let child = children(program)[0];
        send(supervisor, libc::SIGUSR1);
        running.line("parent\n");
        // By now a signal for the child would be under way: it would be taken before USR2.
        send(child, libc::SIGUSR2);
        send(program, libc::SIGUSR2);
        let stdout = running.finishes().succeeds();
        assert!(!stdout.contains("child\n"), "{stdout}");
    }
}

#[test]
fn with_group_a_signal_goes_to_the_whole_group() {
    let world = World::new();
    for start in both_ways(&world) {
        for start in [start.clone().flag("--group"), start.variable("SECRET_INIT_GROUP", "true")] {
            let mut running = start.program(["perl", "-e", TWO]).spawn();
            (0..2).for_each(|_| drop(running.line("")));
            let supervisor = supervisor(&running);
            send(supervisor, libc::SIGUSR1);
            let mut both = [running.line(""), running.line("")];
            both.sort();
            assert_eq!(both, ["child", "parent"]);
            send(supervisor, libc::SIGUSR2);
            assert_eq!(running.finishes().code(), 0);
        }
    }
}

#[test]
fn a_signal_that_we_may_not_send_is_no_reason_to_end() {
    let world = World::new();
    for start in both_ways(&world) {
        let start = start.under(["setpriv", "--bounding-set", "-kill"]).listens();
        let other_user = "echo ready; read x; exit 5";
        let program = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", other_user];
        let mut running = start.program(program).spawn();
        running.line("ready");
        let supervisor = supervisor(&running);
        send(supervisor, libc::SIGUSR1);
        eventually("the signal is taken", || (status_field(supervisor, "ShdPnd") == "0000000000000000").then_some(()));
        running.say("");
        assert_eq!(running.finishes().code(), 5);
    }
}

// What the program is given.

#[test]
fn the_program_leads_a_group_of_its_own_in_our_session() {
    let world = World::new();
    for start in with_a_store(both_ways(&world)) {
        let mut running = start.listens().shell("echo ready; read x").spawn();
        running.line("ready");
        let supervisor = supervisor(&running);
        let program = program(supervisor);
        let of = |pid, field: usize| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let after_name = stat.rsplit(") ").next().unwrap().to_owned();
            after_name.split(' ').nth(field).unwrap().parse::<i32>().unwrap()
        };
        let (group, session) = (2, 3);
        assert_eq!(of(program, group), program);
        assert_ne!(of(supervisor, group), program);
        assert_eq!(of(program, session), of(supervisor, session));
        running.say("");
        running.finishes().succeeds();
    }
}

#[test]
fn mask_and_ignored_signals_are_inherited_as_they_are() {
    // The first blocks what the C library keeps for itself, too. An ignored SIGCHLD is the one thing that cannot be handed on.
    let raw_mask = r#"
import ctypes, os, platform, sys
block = {"x86_64": 14, "aarch64": 135}[platform.machine()]
ctypes.CDLL(None).syscall(block, 0, ctypes.byref(ctypes.c_uint64(0x8000000380004201)), None, 8)
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let launchers: [&[&str]; 6] = [
        &["/usr/bin/python3", "-c", raw_mask],
        &["env"],
        &["env", "--block-signal"],
        &["env", "--block-signal=TERM,USR1,CHLD", "--ignore-signal=HUP,PIPE"],
        &["env", "--ignore-signal=PIPE"],
        &["env", "--default-signal=PIPE", "--ignore-signal=INT,QUIT,TSTP,TTIN,TTOU,RTMIN,USR2"],
    ];
    let look = ["/bin/grep", "-E", "^Sig(Blk|Ign|Cgt)|^ShdPnd", "/proc/self/status"];
    let world = World::new();
    for launcher in launchers {
        for start in with_a_store(all_ways(&world)) {
            let start = launcher.iter().fold(start, |start, word| start.under([*word])).program(look);
            let bare = start.clone().bare().finishes().succeeds();
            assert_eq!(bare.lines().count(), 4);
            assert_eq!(start.finishes().succeeds(), bare, "{launcher:?}");
        }
    }
}

#[test]
fn a_parent_that_ignores_child_signals_does_not_make_us_hang() {
    let world = World::new();
    for start in with_a_store(all_ways(&world)) {
        let outcome = start.under(["env", "--ignore-signal=CHLD"]).shell("exit 7").finishes();
        assert_eq!(outcome.code(), 7);
    }
}

/// Descriptors 5 and 9 are open besides the standard ones.
const WITH_DESCRIPTORS: [&str; 4] = ["sh", "-c", "exec 5</dev/zero 9</etc/hostname; exec \"$@\"", "sh"];

#[test]
fn the_program_gets_the_inherited_descriptors_and_none_of_ours() {
    let world = World::new();
    let secret = world.file("secret", "s3cret");
    for start in with_a_store(all_ways(&world)) {
        // With a secret file there are a directory and its lock, too.
        let start = start.under(WITH_DESCRIPTORS).directory(world.directory());
        let start = start.variable("TOKEN_FILE", format!("${{file:{}}}", secret.display())).program(["ls", "/proc/self/fd"]);
        let bare = start.clone().bare().finishes().succeeds();
        assert!(bare.contains("5\n") && bare.contains("9\n"), "{bare}");
        assert_eq!(start.finishes().succeeds(), bare);
    }
}

#[test]
fn an_inherited_pipe_ends_when_the_program_closes_it() {
    let world = World::new();
    for (number, start) in with_a_store(both_ways(&world)).into_iter().enumerate() {
        let pipe = world.path.join(format!("pipe{number}"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (sender, ended) = std::sync::mpsc::channel();
        let from = pipe.clone();
        std::thread::spawn(move || sender.send(fs::read_to_string(from).unwrap()));
        let launcher = format!("exec 7>{}; exec \"$@\"", pipe.display());
        let start = start.under(["sh", "-c", &launcher, "sh"]).listens();
        let mut running = start.shell("echo last >&7; exec 7>&-; read x").spawn();
        assert_eq!(ended.recv_timeout(DEADLINE).unwrap(), "last\n");
        assert!(running.is_running());
        running.say("");
        running.finishes().succeeds();
    }
}

#[test]
fn closed_standard_streams_are_inherited_closed() {
    let world = World::new();
    let secret = world.file("secret", "s3cret");
    let list = world.script("list", "#!/bin/sh\nls /proc/self/fd >$1\n");
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        let launcher = format!("exec \"$@\" {closed}");
        let seen = world.path.join("seen");
        for start in with_a_store(all_ways(&world)) {
            let start = start.under(["sh", "-c", &launcher, "sh"]).directory(world.directory());
            let start = start.variable("TOKEN_FILE", format!("${{file:{}}}", secret.display())).program([&list, &seen]);
            let [bare, ours] = [start.clone().bare(), start].map(|start| {
                assert_eq!(start.finishes().code(), 0, "{closed}");
                fs::read_to_string(&seen).unwrap()
            });
            assert_eq!(ours, bare, "{closed}");
        }
    }
}

#[test]
fn listen_pid_that_names_us_names_the_program() {
    let world = World::new();
    for start in with_a_store(all_ways(&world)) {
        let ours = start.clone().under(["sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"", "sh"]);
        ours.shell("[ $LISTEN_PID = $$ ] && [ $LISTEN_FDS = 1 ]").finishes().succeeds();
        let of_another = start.variable("LISTEN_PID", "999999");
        assert_eq!(of_another.shell("echo $LISTEN_PID").finishes().succeeds(), "999999\n");
    }
}

#[test]
fn the_program_keeps_the_working_directory_and_we_leave_it() {
    let world = World::new();
    for start in with_a_store(both_ways(&world)) {
        let mut running = start.in_directory(&world.path).listens().shell("pwd; read x").spawn();
        assert_eq!(running.line("/"), world.path.to_str().unwrap());
        let supervisor = supervisor(&running);
        eventually("we are in /", || (fs::read_link(format!("/proc/{supervisor}/cwd")).unwrap().as_os_str() == "/").then_some(()));
        running.say("");
        running.finishes().succeeds();
    }
}

#[test]
fn options_after_the_program_are_its_own() {
    let world = World::new();
    for start in all_ways(&world) {
        let program = ["printf", "%s\n", "--exec", "--help", "-g", "--", "--no-such-option"];
        let expected = "--exec\n--help\n-g\n--\n--no-such-option\n";
        assert_eq!(start.clone().program(program).finishes().succeeds(), expected);
        // The separator may be left out.
        let without = program.iter().fold(start, Start::flag);
        assert_eq!(without.finishes().succeeds(), expected);
    }
}

// How it ends.

#[test]
fn every_exit_code_is_passed_on() {
    let world = World::new();
    for code in 0..=255 {
        for start in with_a_store(all_ways(&world)) {
            assert_eq!(start.shell(&format!("exit {code}")).finishes().code(), code);
        }
    }
}

#[test]
fn a_death_by_a_signal_is_128_and_the_signal() {
    use libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    let harmless = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
    let world = World::new();
    for signal in (1..=64).filter(|signal| !harmless.contains(signal)) {
        for start in both_ways(&world) {
            assert_eq!(start.shell(&format!("ulimit -c 0; kill -{signal} $$")).finishes().code(), 128 + signal);
        }
    }
}

#[test]
fn a_program_that_is_not_found_is_127_and_one_that_cannot_be_run_126() {
    let world = World::new();
    let path = |name: &str| world.path.join(name).to_str().unwrap().to_owned();
    world.file("data", "");
    world.script("orphaned", "#!/no/such/interpreter\n");
    let cases = [
        (127, "no-such-program".to_owned()),
        (127, path("nope")),
        (127, path("data/below-a-file")),
        (127, path("orphaned")),
        (126, path("data")),
        (126, path("")),
    ];
    for start in all_ways(&world) {
        for (code, program) in &cases {
            let outcome = start.clone().program([program]).finishes();
            assert_eq!((outcome.code(), outcome.stdout.as_str()), (*code, ""), "{program}");
            assert!(outcome.stderr.starts_with(&format!("secret-init: {program}: ")), "{outcome:?}");
        }
    }
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_the_shell() {
    let world = World::new();
    let script = world.script("script", "echo \"$0 $1\"; exit 3\n");
    for start in all_ways(&world) {
        let outcome = start.program([script.to_str().unwrap(), "x"]).finishes();
        assert_eq!((outcome.code(), outcome.stdout), (3, format!("{} x\n", script.display())));
    }
}

// Orphans and leftovers.

#[test]
fn two_thousand_orphans_are_reaped() {
    let world = World::new();
    for start in both_ways(&world) {
        let many = "i=0; while [ $i -lt 2000 ]; do (true &); i=$((i+1)); done; echo done; read x";
        let mut running = start.listens().shell(many).spawn();
        running.line("done");
        let supervisor = supervisor(&running);
        eventually("the program is our only child", || (children(supervisor).len() == 1).then_some(()));
        running.say("");
        running.finishes().succeeds();
    }
}

#[test]
fn orphans_that_end_with_the_program_do_not_hide_its_exit_code() {
    let world = World::new();
    for start in with_a_store(both_ways(&world)) {
        let together = "
            for (1..50) { if (!fork) { fork or sleep 1000; exit } }
            1 while wait > 0;
            $SIG{TERM} = 'IGNORE';
            kill -15, $$;
            exit 9";
        assert_eq!(start.program(["perl", "-e", together]).finishes().code(), 9);
    }
}

/// A program that ends with 4 after a line from the test, and leaves an orphan that says when it is ready, and ends with a signal.
fn leaving(orphan: &str) -> String {
    format!("(perl -e '$| = 1; {orphan}; select undef, undef, undef, 0.01 while 1' &); read x; exit 4")
}

const SAYS_BYE: &str = "$SIG{TERM} = sub { print \"bye\\n\"; exit }; print \"left $$\\n\"";

/// As PID 1 and in group mode the rest is ours to end.
fn ways_that_end_the_rest(world: &World) -> [Start; 2] {
    [world.secret_init().flag("--group"), world.secret_init().as_pid_1()]
}

/// Runs to the end under strace, and gives the calls of the supervisor among these.
fn traced(world: &World, start: &Start, calls: &str, converse: impl FnOnce(&mut Running, i32)) -> (Outcome, Vec<String>) {
    let log = world.path.join("strace");
    let trace = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", calls, "-e", "signal=none"];
    let mut running = start.clone().around(&trace).spawn();
    let supervisor = supervisor(&running);
    converse(&mut running, supervisor);
    let outcome = running.finishes();
    let prefix = format!("{supervisor} ");
    let calls = fs::read_to_string(&log).unwrap().lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.trim().to_owned())).collect();
    (outcome, calls)
}

#[test]
fn leftovers_get_term_and_the_moment_none_is_left_it_is_over() {
    let world = World::new();
    for start in ways_that_end_the_rest(&world) {
        let start = start.listens().shell(&leaving(SAYS_BYE));
        let (outcome, calls) = traced(&world, &start, "trace=poll,ppoll,kill", |running, _| {
            running.line("left");
            running.say("");
        });
        assert_eq!(outcome.code(), 4);
        assert!(outcome.stdout.ends_with("bye\n"), "{outcome:?}");
        assert!(calls.iter().any(|call| call.contains("SIGTERM")), "{calls:#?}");
        assert!(!calls.iter().any(|call| call.contains("Timeout") || call.contains("SIGKILL")), "{calls:#?}");
    }
}

#[test]
fn leftovers_that_do_not_heed_term_are_killed_after_a_grace() {
    let world = World::new();
    for start in ways_that_end_the_rest(&world) {
        let start = start.listens().shell(&leaving("$SIG{TERM} = sub { print \"no\\n\" }; print \"left $$\\n\""));
        let (outcome, calls) = traced(&world, &start, "trace=poll,ppoll,kill", |running, _| {
            running.line("left");
            running.say("");
        });
        assert_eq!(outcome.code(), 4);
        assert!(outcome.stdout.ends_with("no\n"), "{outcome:?}");
        assert!(calls.iter().any(|call| call.contains("Timeout")), "{calls:#?}");
        assert!(calls.iter().any(|call| call.contains("SIGKILL")), "{calls:#?}");
    }
}

#[test]
fn a_stopped_leftover_is_woken_to_see_term() {
    let world = World::new();
    for start in ways_that_end_the_rest(&world) {
        let mut running = start.listens().shell(&leaving(&format!("{SAYS_BYE}; kill STOP => $$"))).spawn();
        running.line("left");
        let supervisor = supervisor(&running);
        eventually("the leftover has stopped", || {
            children(supervisor).iter().any(|&child| status_field(child, "State").starts_with('T')).then_some(())
        });
        running.say("");
        let outcome = running.finishes();
        assert_eq!(outcome.code(), 4);
        assert!(outcome.stdout.ends_with("bye\n"), "{outcome:?}");
    }
}

#[test]
fn leftovers_of_a_program_that_a_signal_ended_are_ended_too() {
    let world = World::new();
    for start in ways_that_end_the_rest(&world) {
        let mut running = start.listens().shell(&leaving(SAYS_BYE)).spawn();
        running.line("left");
        let supervisor = supervisor(&running);
        send(program(supervisor), libc::SIGKILL);
        let outcome = running.finishes();
        assert_eq!(outcome.code(), 137);
        assert!(outcome.stdout.ends_with("bye\n"), "{outcome:?}");
    }
}

#[test]
fn without_group_below_another_init_leftovers_are_left_alone() {
    let world = World::new();
    let told = world.path.join("told");
    let tells = |what: &str| format!("sub {{ open F, \">>\", \"{}\"; print F \"{what}\"; close F; exit }}", told.display());
    // Of two signals that wait, the lower number is handled first.
    let orphan =
        format!("$SIG{{TERM}} = {}; $SIG{{RTMAX}} = {}; print \"left $$\\n\"; close STDOUT; close STDERR", tells("term"), tells("alive"));
    let mut running = world.secret_init().listens().shell(&leaving(&orphan)).spawn();
    let left: i32 = running.line("left")["left ".len()..].parse().unwrap();
    running.say("");
    assert_eq!(running.finishes().code(), 4);
    send(left, LAST);
    let told = eventually("the leftover tells", || fs::read_to_string(&told).ok().filter(|text| !text.is_empty()));
    assert_eq!(told, "alive");
}

#[test]
fn nothing_is_sent_to_a_program_that_is_reaped() {
    let world = World::new();
    for start in both_ways(&world) {
        let start = start.listens().shell("echo ready; read x; exit 6");
        let (outcome, calls) = traced(&world, &start, "trace=kill,wait4", |running, supervisor| {
            running.line("ready");
            let program = program(supervisor);
            // While we are stopped, the program ends and signals come.
            send(supervisor, libc::SIGSTOP);
            running.say("");
            eventually("the program has ended", || status_field(program, "State").starts_with('Z').then_some(()));
            for signal in [libc::SIGTERM, 34, LAST] {
                send(supervisor, signal);
            }
            send(supervisor, libc::SIGCONT);
        });
        assert_eq!(outcome.code(), 6);
        let reaped = calls.iter().position(|call| call.starts_with("wait4") && call.contains("WEXITSTATUS(s) == 6")).unwrap();
        assert!(!calls[reaped..].iter().any(|call| call.starts_with("kill(")), "{calls:#?}");
        assert!(calls[..reaped].iter().any(|call| call.starts_with("kill(")), "TERM comes before: {calls:#?}");
    }
}

#[test]
fn a_program_that_does_not_heed_term_is_killed_after_the_time_that_was_asked_for() {
    let world = World::new();
    for start in both_ways(&world) {
        for start in [start.clone().flag("--kill-after").flag("1s"), start.variable("SECRET_INIT_KILL_AFTER", "1s")] {
            let stubborn = "$| = 1; $SIG{TERM} = sub { print \"no\\n\" }; print \"ready\\n\"; select undef, undef, undef, 0.01 while 1";
            let mut running = start.program(["perl", "-e", stubborn]).spawn();
            running.line("ready");
            send(supervisor(&running), libc::SIGTERM);
            running.line("no");
            assert_eq!(running.finishes().code(), 137);
        }
    }
}

#[test]
fn a_program_that_heeds_term_in_time_is_not_killed() {
    let world = World::new();
    for start in both_ways(&world) {
        let mut running =
            start.flag("--kill-after").flag("1h").program(["perl", "-e", &format!("$| = 1; print \"ready\\n\"; {HANDLER}")]).spawn();
        running.line("ready");
        let supervisor = supervisor(&running);
        eventually("the handler is set", || (status_field(program(supervisor), "SigCgt") != "0000000000000000").then_some(()));
        send(supervisor, libc::SIGTERM);
        assert_eq!(running.finishes().code(), 55);
    }
}

// The start.

#[test]
fn signals_are_blocked_before_anything_else_is_done() {
    let world = World::new();
    let image = fs::read(binary()).unwrap();
    assert!(!image.windows(4).any(|bytes| bytes == b"/ld-"), "static: no loader runs before us");
    let log = world.path.join("strace");
    world.secret_init().under(["strace", "-qq", "-o", log.to_str().unwrap()]).program(["true"]).finishes().succeeds();
    let log = fs::read_to_string(log).unwrap();
    let before: Vec<&str> = log.lines().take_while(|line| !line.starts_with("rt_sigprocmask(SIG_BLOCK, ~[]")).collect();
    assert!(before.len() < log.lines().count(), "{log}");
    // What the C library does before main: memory, and what the kernel is to know of the thread.
    let start_up = [
        "execve",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "mmap",
        "munmap",
        "mprotect",
    ];
    for line in before {
        assert!(start_up.contains(&line.split('(').next().unwrap()), "{line}");
    }
}

/// The two programs that TERM may meet: one that leaves it to the kernel, one that handles it.
fn programs() -> [[&'static str; 3]; 2] {
    [["perl", "-e", "sleep 1000"], ["perl", "-e", HANDLER]]
}

/// However TERM came, it ended the run: as the end of the start, as that of the program, or as the program wished. `before_us` allows for a TERM that came
/// before we could block it.
#[track_caller]
fn assert_term_was_heeded(outcome: &Outcome, before_us: bool) {
    let code = outcome.code();
    assert!(code == 143 || code == 55 || before_us && code == 1000 + libc::SIGTERM, "{outcome:?}");
}

fn busy_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[test]
fn term_right_after_the_spawn_is_never_lost() {
    let world = World::new();
    for start in [world.secret_init(), world.secret_init().flag("--group"), world.secret_init().flag("--exec")] {
        for round in 0..200 {
            let running = start.clone().program(programs()[round % 2]).spawn();
            running.signal(libc::SIGTERM);
            assert_term_was_heeded(&running.finishes(), true);
        }
    }
}

#[test]
fn term_a_varied_moment_after_the_spawn_is_never_lost() {
    let world = World::new();
    for start in with_a_store([world.secret_init(), world.secret_init().flag("--group"), world.secret_init().flag("--exec")]) {
        for round in 0..200 {
            let running = start.clone().program(programs()[round as usize % 2]).spawn();
            busy_for(Duration::from_micros(25) * round);
            running.signal(libc::SIGTERM);
            assert_term_was_heeded(&running.finishes(), true);
        }
    }
}

#[test]
fn term_is_never_lost_as_pid_1_once_it_is_blocked() {
    let world = World::new();
    for start in [world.secret_init().as_pid_1(), world.secret_init().as_pid_1().flag("--group")] {
        for round in 0..200 {
            let running = start.clone().program(programs()[round as usize % 2]).spawn();
            let supervisor = supervisor(&running);
            eventually("signals are blocked", || blocks_all(supervisor).then_some(()));
            busy_for(Duration::from_micros(25) * (round / 2));
            send(supervisor, libc::SIGTERM);
            assert_term_was_heeded(&running.finishes(), false);
        }
    }
}

/// Starts with one kind of system call slowed down, sends TERM while one of our processes is held in it, and gives the outcome.
fn term_held_back(start: &Start, injection: &str, number: i64) -> Outcome {
    let calls = injection.split(':').next().unwrap().trim_start_matches("inject=");
    let trace = format!("trace={calls}");
    let running = start.clone().around(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", injection]).spawn();
    let supervisor = supervisor(&running);
    eventually("a process of ours is held, or the program runs", || {
        let mut both = children(supervisor);
        let runs = both.iter().any(|&child| !is_ours(child));
        both.push(supervisor);
        (runs || blocks_all(supervisor) && both.iter().any(|&pid| sleeps_in(pid) == Some(number))).then_some(())
    });
    send(supervisor, libc::SIGTERM);
    running.finishes()
}

#[test]
fn term_that_is_held_back_in_any_system_call_of_a_start_is_never_lost() {
    let world = World::new();
    let secret = world.file("secret", "s3cret");
    let start = world.secret_init().directory(world.directory()).variable("TOKEN_FILE", format!("${{file:{}}}", secret.display()));
    let calls = [
        ("clone", libc::SYS_clone),
        ("setpgid", libc::SYS_setpgid),
        ("chdir", libc::SYS_chdir),
        ("recvmsg", libc::SYS_recvmsg),
        ("sendmsg", libc::SYS_sendmsg),
        ("openat2", libc::SYS_openat2),
        ("read", libc::SYS_read),
        ("fstatfs", libc::SYS_fstatfs),
        ("flock", libc::SYS_flock),
        ("openat", libc::SYS_openat),
        ("write", libc::SYS_write),
        ("fchmod", libc::SYS_fchmod),
        ("renameat", libc::SYS_renameat),
        ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
        ("signalfd4", libc::SYS_signalfd4),
        ("execve", libc::SYS_execve),
    ];
    for round in 0..320 {
        let (name, number) = calls[round / 2 % calls.len()];
        let side = ["delay_enter", "delay_exit"][round % 2];
        let start = start.clone().program(["sleep", "1000"]);
        let outcome = term_held_back(&start, &format!("inject={name}:{side}=20000"), number);
        assert_eq!(outcome.code(), 143, "{name} {side}: {outcome:?}");
    }
}

#[test]
fn term_that_is_held_back_as_pid_1_is_never_lost() {
    let world = World::new();
    let secret = world.file("secret", "s3cret");
    let start =
        world.secret_init().as_pid_1().directory(world.directory()).variable("TOKEN_FILE", format!("${{file:{}}}", secret.display()));
    let calls = [
        ("setpgid", libc::SYS_setpgid),
        ("recvmsg", libc::SYS_recvmsg),
        ("sendmsg", libc::SYS_sendmsg),
        ("signalfd4", libc::SYS_signalfd4),
        ("execve", libc::SYS_execve),
    ];
    for round in 0..50 {
        let (name, number) = calls[round / 2 % calls.len()];
        let side = ["delay_enter", "delay_exit"][round % 2];
        let outcome = term_held_back(&start.clone().program(["sleep", "1000"]), &format!("inject={name}:{side}=20000"), number);
        assert_eq!(outcome.code(), 143, "{name} {side}: {outcome:?}");
    }
}

#[test]
fn term_while_secrets_are_read_ends_the_start_in_every_mode() {
    let world = World::new();
    let secret = world.file("secret", "s3cret");
    for start in [
        world.secret_init().flag("--exec"),
        world.secret_init(),
        world.secret_init().as_pid_1(),
        world.secret_init().as_pid_1().flag("--exec"),
    ] {
        for side in ["delay_enter", "delay_exit"] {
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP] {
                let injection = format!("inject=openat2:{side}=100000");
                let path = secret.to_str().unwrap();
                let start =
                    start.clone().around(&["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "trace=openat2", "-e", &injection]);
                let start = start.variable("TOKEN_FILE", &secret).shell("echo started; exec sleep 30");
                let running = eventually("a signal comes while the secret is being opened", || {
                    let running = start.spawn();
                    let supervisor = supervisor(&running);
                    let is_opening = || {
                        let mut both = children(supervisor);
                        both.push(supervisor);
                        both.iter().any(|&pid| sleeps_in(pid) == Some(libc::SYS_openat2))
                    };
                    eventually("the secret is being opened", || is_opening().then_some(()));
                    send(supervisor, signal);
                    // On a busy machine it may have come too late.
                    is_opening().then_some(running)
                });
                let outcome = running.finishes();
                assert_eq!((outcome.code(), outcome.stdout.as_str()), (128 + signal, ""), "{outcome:?}");
            }
        }
    }
}

#[test]
fn other_signals_during_the_start_wait_for_the_program() {
    let world = World::new();
    for start in with_a_store(both_ways(&world)) {
        // Python starts slowly enough to be late for the signals that come before it is ready, unless it blocks them: so they are blocked from the start.
        let start = start.under(["env", "--block-signal"]).program(["python3", "-c", RECORDER]);
        let running = start.spawn();
        let supervisor = supervisor(&running);
        eventually("signals are blocked", || blocks_all(supervisor).then_some(()));
        for signal in [libc::SIGUSR1, libc::SIGWINCH, 40, 40, 40, LAST] {
            send(supervisor, signal);
        }
        assert_eq!(running.finishes().succeeds(), "ready\n10\n28\n40\n40\n40\n64\n");
    }
}

#[test]
fn a_program_that_ends_while_we_still_wait_for_its_start_is_not_missed() {
    let world = World::new();
    let secret = world.file("secret", "s3cret");
    // The message about the lock wakes us, and while our next read is slow the program has come and gone.
    let start = world.secret_init().under(["strace", "-qq", "-o", "/dev/null", "-e", "inject=read:delay_enter=200000"]);
    let start = start.directory(world.directory()).variable("TOKEN_FILE", format!("${{file:{}}}", secret.display()));
    assert_eq!(start.shell("exit 3").finishes().code(), 3);
}

// At rest.

/// A program that tells when more than a second has passed, by its own clock.
const WAITS: &str = "trap 'echo got' USR1; echo ready; read x; sleep 1.1; echo slept; read x";

#[test]
fn at_rest_nothing_wakes_us() {
    let world = World::new();
    for start in with_a_store(both_ways(&world)) {
        let mut running = start.listens().shell(WAITS).spawn();
        running.line("ready");
        let supervisor = supervisor(&running);
        let wakes = || {
            eventually("we sleep in poll", || [Some(libc::SYS_poll), Some(libc::SYS_ppoll)].contains(&sleeps_in(supervisor)).then_some(()));
            status_field(supervisor, "voluntary_ctxt_switches")
        };
        // Once the descriptors of the start are closed we are in the last poll of all.
        eventually("the start is over", || (fs::read_dir(format!("/proc/{supervisor}/fd")).unwrap().count() == 4).then_some(()));
        let before = wakes();
        running.say("");
        running.line("slept");
        assert_eq!(wakes(), before);
        running.say("");
        running.finishes().succeeds();
    }
}

#[test]
fn one_thread_and_little_memory() {
    let world = World::new();
    let secret = world.file("secret", vec![b'x'; 100_000]);
    support::write_to_disk();
    for start in with_a_store(both_ways(&world)) {
        let mut running = start.listens().variable("TOKEN_FILE", &secret).shell("echo ready; read x").spawn();
        running.line("ready");
        let supervisor = supervisor(&running);
        assert_eq!(status_field(supervisor, "Threads"), "1");
        let rollup = fs::read_to_string(format!("/proc/{supervisor}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap();
        let dirty: u32 = line.trim().trim_end_matches(" kB").parse().unwrap();
        // Without optimisation there is more that the loader has to relocate.
        let limit = if cfg!(debug_assertions) { 4096 } else { 512 };
        assert!(dirty <= limit, "{dirty} KiB");
        running.say("");
        running.finishes().succeeds();
    }
}
