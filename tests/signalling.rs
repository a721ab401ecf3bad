//! Who is told of a change, by what, and who is left alone since it would end by it.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "a thread that becomes another user, and descriptors that are handed down")]

mod support;

use std::fs;
use std::future::Future;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use secret_init::report::{Code, Problem};
use secret_init::rotation::notify;
use secret_init::rotation::target::{self, Reason, Target};
use secret_init::sys::signal::{self, Signal};
use secret_init::user;
use support::{DEADLINE, Running, World, eventually, send};

const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A program that runs in a process group of its own and waits for its stdin, which nothing is written to.
fn spawn(words: &[&str]) -> Running {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", PATH).process_group(0);
    Running::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// As [`spawn`], once it has said that it is ready.
fn ready(words: &[&str]) -> Running {
    let mut running = spawn(words);
    running.line("ready");
    running
}

fn pid(running: &Running) -> Pid {
    Pid::from_raw(running.pid())
}

/// Why a signal is not sent; none when it was.
fn refused(running: &Running, signal: Signal, is_default: bool) -> Option<Reason> {
    target::send(pid(running), signal, is_default).err().map(|refusal| refusal.reason)
}

/// A program in Python that does this first, and prints `got` when its handler is called.
fn python(first: &str) -> Running {
    let script = format!(
        "import os, signal, sys\ndef got(*_): os.write(1, b'got\\n')\n{first}\nprint('ready', flush=True)\nwhile sys.stdin.readline(): pass\n"
    );
    ready(&["python3", "-c", &script])
}

fn java(world: &World, option: &str) -> Running {
    let source = world.file(
        "Waits.java",
        "class Waits { public static void main(String[] _a) throws Exception { System.out.println(\"ready\"); System.in.read(); } }",
    );
    ready(&["java", option, "-XX:TieredStopAtLevel=1", source.to_str().unwrap()])
}

fn go(world: &World, name: &str, first: &str) -> Running {
    let imports = if first.is_empty() { "" } else { "\"os/signal\"; \"syscall\";" };
    let main = format!(
        "package main\nimport (\"fmt\"; \"os\"; {imports})\nfunc main() {{ {first}; fmt.Println(\"ready\"); os.Stdin.Read(make([]byte, 1)) }}\n"
    );
    let source = world.file(&format!("{name}.go"), main);
    let program = world.path.join(name);
    let mut build = Command::new("go");
    build.arg("build").arg("-o").arg(&program).arg(source).current_dir(&world.path).env_clear().env("PATH", PATH);
    // The cache is shared by the tests of this file, and is bounded by go itself.
    build.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go")).env("CGO_ENABLED", "0");
    assert!(build.status().unwrap().success());
    ready(&[program.to_str().unwrap()])
}

const GO_HANDLER: &str =
    "c := make(chan os.Signal, 1); signal.Notify(c, syscall.SIGHUP); go func() { for range c { fmt.Println(\"got\") } }()";

/// HUP that nobody asked for is not sent, and was rightly not: who is sent it all the same ends.
fn dies_of_hup_and_is_not_told(mut running: Running, default: Reason, explicit: Option<Reason>) {
    assert_eq!(refused(&running, Signal::HUP, true), Some(default));
    assert_eq!(target::may_signal(pid(&running), true, Signal::HUP, true).unwrap_err().reason, default);
    let of_explicit = target::may_signal(pid(&running), false, Signal::HUP, false).err().map(|refusal| refusal.reason);
    assert_eq!(of_explicit, explicit);
    assert!(running.is_running());
    send(running.pid(), libc::SIGHUP);
    let status = running.finishes().status;
    assert!(status.signal() == Some(libc::SIGHUP) || status.code() == Some(129), "{status:?}");
}

// The matrix: HUP kills none.

#[test]
fn hup_by_default_does_not_kill_a_shell() {
    dies_of_hup_and_is_not_told(ready(&["sh", "-c", "echo ready; read -r _"]), Reason::NotCaught, Some(Reason::NotCaught));
}

#[test]
fn hup_by_default_does_not_kill_python() {
    dies_of_hup_and_is_not_told(python(""), Reason::NotCaught, Some(Reason::NotCaught));
}

#[test]
fn hup_by_default_does_not_kill_perl() {
    let running = ready(&["perl", "-e", "$| = 1; print qq(ready\\n); <STDIN>"]);
    dies_of_hup_and_is_not_told(running, Reason::NotCaught, Some(Reason::NotCaught));
}

#[test]
fn hup_by_default_does_not_kill_node() {
    let running = ready(&["node", "-e", "console.log('ready'); process.stdin.resume()"]);
    dies_of_hup_and_is_not_told(running, Reason::NotCaught, Some(Reason::NotCaught));
}

#[test]
fn hup_by_default_does_not_kill_a_sleep() {
    dies_of_hup_and_is_not_told(spawn(&["sleep", "60"]), Reason::NotCaught, Some(Reason::NotCaught));
}

#[test]
fn hup_by_default_does_not_kill_java_which_gets_it_when_it_was_asked_for() {
    let world = World::new();
    dies_of_hup_and_is_not_told(java(&world, "-Xshare:auto"), Reason::Jvm, None);
}

#[test]
fn a_jvm_that_leaves_signals_alone_gets_none() {
    let world = World::new();
    dies_of_hup_and_is_not_told(java(&world, "-Xrs"), Reason::NotCaught, Some(Reason::NotCaught));
}

#[test]
fn hup_by_default_does_not_kill_a_go_program_which_gets_it_when_it_was_asked_for() {
    let world = World::new();
    dies_of_hup_and_is_not_told(go(&world, "plain", ""), Reason::Go, None);
}

#[test]
fn hup_by_default_does_not_kill_bash_with_a_trap_for_its_exit() {
    let running = ready(&["bash", "-c", "trap 'exit 129' EXIT; echo ready; read -r _"]);
    dies_of_hup_and_is_not_told(running, Reason::CatchesAll, None);
}

// Who has a use for it.

#[test]
fn a_program_with_a_handler_gets_the_signal() {
    let mut running = python("signal.signal(signal.SIGHUP, got)");
    for is_default in [true, false] {
        assert_eq!(refused(&running, Signal::HUP, is_default), None);
        running.line("got");
        assert_eq!(target::may_signal(pid(&running), true, Signal::HUP, is_default), Ok(()));
    }
    // The handler is for this one alone.
    assert_eq!(refused(&running, Signal(libc::SIGUSR1), false), Some(Reason::NotCaught));
    assert!(running.is_running());
}

#[test]
fn handlers_of_perl_node_and_shells_are_seen_too() {
    // One that waits in a single call sees no signal that came just before it.
    for words in [
        ["sh", "-c", "trap 'echo got' HUP; echo ready; while :; do sleep 0.05; done"],
        ["bash", "-c", "trap 'echo got' HUP; echo ready; while :; do sleep 0.05; done"],
        ["perl", "-e", "$| = 1; $SIG{HUP} = sub { print qq(got\\n) }; print qq(ready\\n); select undef, undef, undef, 0.05 while 1"],
        ["node", "-e", "process.on('SIGHUP', () => console.log('got')); console.log('ready'); process.stdin.resume()"],
    ] {
        let mut running = ready(&words);
        assert_eq!(refused(&running, Signal::HUP, true), None, "{words:?}");
        running.line("got");
    }
}

#[test]
fn a_go_program_with_a_handler_gets_the_signal_that_was_asked_for() {
    let world = World::new();
    let mut running = go(&world, "handles", GO_HANDLER);
    // Nobody can see from outside that it has one.
    assert_eq!(refused(&running, Signal::HUP, true), Some(Reason::Go));
    assert_eq!(refused(&running, Signal::HUP, false), None);
    running.line("got");
}

#[test]
fn who_ignores_the_signal_is_not_sent_it_and_that_is_another_reason() {
    let ignoring = python("signal.signal(signal.SIGHUP, signal.SIG_IGN)");
    let nohup = spawn(&["nohup", "sleep", "60"]);
    eventually("nohup became sleep", || {
        fs::read_to_string(format!("/proc/{}/comm", nohup.pid())).unwrap().starts_with("sleep").then_some(())
    });
    for mut running in [ignoring, nohup] {
        for is_default in [true, false] {
            let refusal = target::send(pid(&running), Signal::HUP, is_default).unwrap_err();
            assert_eq!(refusal.reason, Reason::Ignored);
            assert!(Problem::from(refusal).cause.contains("HUP is not sent: it ignores it"));
        }
        assert!(running.is_running());
    }
}

#[test]
fn who_has_blocked_a_signal_gets_the_one_that_was_asked_for() {
    let mut running = ready(&[
        "python3",
        "-c",
        "import signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, {1})\nprint('ready', flush=True)\nsys.stdin.readline()\nsignal.sigwait({1})\nprint('got', flush=True)",
    ]);
    assert_eq!(refused(&running, Signal::HUP, true), Some(Reason::NotCaught));
    assert_eq!(refused(&running, Signal::HUP, false), None);
    running.say("");
    running.line("got");
}

/// The kernel shows its signal as not blocked.
#[test]
fn who_is_in_sigwait_is_not_told_and_lives() {
    let mut running = python("signal.pthread_sigmask(signal.SIG_BLOCK, {1})\nos.write(1, b'ready\\n')\nsignal.sigwait({1})");
    let call = format!("{} ", libc::SYS_rt_sigtimedwait);
    let path = format!("/proc/{}/syscall", running.pid());
    eventually("it is in sigwait", || fs::read_to_string(&path).unwrap().starts_with(&call).then_some(()));
    for is_default in [true, false] {
        assert_eq!(refused(&running, Signal::HUP, is_default), Some(Reason::NotCaught));
    }
    assert!(running.is_running());
}

#[test]
fn a_signal_that_does_nothing_by_itself_and_those_that_no_one_catches_are_not_sent() {
    let mut running = spawn(&["sleep", "60"]);
    for signal in [Signal::CHLD, Signal::CONT, Signal::URG, Signal::WINCH] {
        assert_eq!(refused(&running, signal, false), Some(Reason::Ignored), "{signal}");
    }
    for signal in [Signal::KILL, Signal::STOP, Signal::TERM, Signal::TSTP, Signal(34), Signal(64), Signal(65), Signal(0)] {
        assert_eq!(refused(&running, signal, false), Some(Reason::NotCaught), "{signal}");
    }
    assert!(running.is_running());
}

// A group.

#[test]
fn a_group_is_told_when_each_of_it_lives_through_it() {
    let script = |child: &str| format!("trap : HUP; {child} & echo ready; echo child $!; wait");
    let start = |child: &str, name: &str| {
        let mut running = ready(&["bash", "-c", &script(child)]);
        let child: i32 = running.line("child ")["child ".len()..].parse().unwrap();
        eventually("the child is what it is to be", || {
            (fs::read_to_string(format!("/proc/{child}/comm")).ok()?.trim_end() == name).then_some(())
        });
        (running, Orphan(Pid::from_raw(child)))
    };

    let (mut running, child) = start("exec sleep 60", "sleep");
    let refusal = target::may_signal(pid(&running), true, Signal::HUP, true).unwrap_err();
    assert_eq!((refusal.process, refusal.name.as_str(), refusal.reason), (child.0, "sleep", Reason::NotCaught));
    assert_eq!(
        Problem::from(refusal).to_string(),
        format!("process {} (sleep): HUP is not sent: it has no handler for it, and would end", child.0)
    );
    assert_eq!(target::may_signal(pid(&running), false, Signal::HUP, true), Ok(()));
    assert!(running.is_running());

    let (running, _child) = start("exec nohup sleep 60", "sleep");
    assert_eq!(target::may_signal(pid(&running), true, Signal::HUP, true), Ok(()));
}

#[test]
fn who_has_ended_is_not_told() {
    let mut child = Command::new("true").process_group(0).spawn().unwrap();
    let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let check = || {
        assert_eq!(target::send(process, Signal::HUP, false).unwrap_err().reason, Reason::Gone);
        assert_eq!(target::may_signal(process, false, Signal::HUP, true).unwrap_err().reason, Reason::Gone);
    };
    eventually("it waits for its parent", || fs::read_to_string(format!("/proc/{process}/stat")).unwrap().contains(") Z ").then_some(()));
    check();
    child.wait().unwrap();
    check();
    assert_eq!(target::may_signal(process, true, Signal::HUP, true).unwrap_err().reason, Reason::Gone);
}

// Another user.

/// Does it as a user without any privilege: the kernel has the user of each thread.
fn as_nobody<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: setresuid(2) by the kernel takes numbers and changes this thread alone, which ends here.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
            what()
        });
        thread.join().unwrap()
    })
}

#[test]
fn what_another_user_runs_is_judged_by_what_all_can_see() {
    let world = World::new();
    let reason = |running: &Running| {
        let process = pid(running);
        as_nobody(move || {
            assert!(fs::read_link(format!("/proc/{process}/exe")).is_err());
            target::may_signal(process, false, Signal::HUP, true).err().map(|refusal| refusal.reason)
        })
    };
    assert_eq!(reason(&java(&world, "-Xshare:auto")), Some(Reason::Jvm));
    assert_eq!(reason(&go(&world, "foreign", "")), Some(Reason::CatchesAll));
    assert_eq!(reason(&spawn(&["sleep", "60"])), Some(Reason::NotCaught));
    assert_eq!(reason(&python("signal.signal(signal.SIGHUP, got)")), None);
}

#[test]
fn a_process_of_another_user_is_not_told_and_it_is_said_what_would_help() {
    let running = python("signal.signal(signal.SIGHUP, got)");
    let process = pid(&running);
    let refusal = as_nobody(move || target::send(process, Signal::HUP, true)).unwrap_err();
    assert_eq!(refusal.reason, Reason::Denied { uid: 0 });
    let problem = as_nobody(move || Problem::from(refusal));
    assert_eq!(problem.cause, "HUP is not sent: it runs as uid 0, and this is uid 65534");
    assert!(problem.hint.unwrap().contains("the capability KILL"));
}

// Finding it.

/// A process that nobody of ours is above.
struct Orphan(Pid);

impl Orphan {
    fn start(script: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" </dev/null >/dev/null 2>&1 & echo $!"]).arg(script).env_clear().env("PATH", PATH);
        let output = shell.output().unwrap();
        let number: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let name = script.file_name().unwrap().to_str().unwrap();
        eventually("it runs, and the shell above it does not", || {
            let status = fs::read_to_string(format!("/proc/{number}/stat")).unwrap();
            status.contains(&format!("({})", &name[..name.len().min(15)])).then_some(())
        });
        Self(Pid::from_raw(number))
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        signal::send(self.0, Signal::KILL);
    }
}

fn named(name: &str) -> Result<Vec<Pid>, Problem> {
    target::find(&Target::Name(name.to_owned()))
}

#[test]
fn a_process_is_found_by_its_name_and_neither_its_workers_are_nor_what_is_ours() {
    let world = World::new();
    let name = format!("app-{}-with-a-long-name", std::process::id());
    // The worker is a fork, and ends with the pipe between them.
    let script = world.script(&name, "#!/usr/bin/perl\npipe(R, W); if (!fork) { close W; <R>; exit } close R; sleep 60\n");
    assert_eq!(named(&name).unwrap_err().cause, "no process has this name");
    let ours = spawn(&[script.to_str().unwrap()]);
    eventually("our own has a worker", || support::children(ours.pid()).first().copied());
    assert_eq!(named(&name).unwrap_err().cause, "no process has this name");

    let one = Orphan::start(&script);
    eventually("it has a worker", || support::children(one.0.as_raw()).first().copied());
    // As a script it is the second argument: the kernel keeps fifteen bytes of the name.
    let short = &name[..15];
    assert_eq!(named(short).unwrap(), [one.0]);
    let other = Orphan::start(&script);
    let mut both = named(short).unwrap();
    both.sort_unstable();
    let mut expected = vec![one.0, other.0];
    expected.sort_unstable();
    assert_eq!(both, expected);
}

#[test]
fn a_process_is_found_by_the_whole_name_of_its_file() {
    let world = World::new();
    let name = format!("program-{}-with-a-long-name", std::process::id());
    let path = world.path.join(&name);
    assert!(Command::new("cp").arg("/bin/sleep").arg(&path).status().unwrap().success());
    let wrapper = world.script("wrapper", &format!("#!/bin/sh\nexec {} 60\n", path.display()));
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", "\"$0\" </dev/null >/dev/null 2>&1 & echo $!"]).arg(wrapper).output().unwrap();
    let orphan = Orphan(Pid::from_raw(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()));
    eventually("it is found", || named(&name).ok().filter(|found| *found == [orphan.0]));
    assert!(named(&name[..name.len() - 1]).is_err());
    assert!(named("").is_err() && named("/").is_err() && named("\n\u{202e}").is_err());
}

#[test]
fn a_pid_file_names_a_process_or_it_is_said_what_is_wrong_with_it() {
    let world = World::new();
    let running = spawn(&["sleep", "60"]);
    let find = |content: &[u8]| target::find(&Target::PidFile(world.file("pid", content)));
    for content in [format!("{}", running.pid()), format!(" {}\r\nwhatever\n", running.pid())] {
        assert_eq!(find(content.as_bytes()).unwrap(), [pid(&running)], "{content:?}");
    }
    let cause = |content: &[u8]| find(content).unwrap_err().cause;
    for content in [&b""[..], b"\n1", b"0", b"-1", b"nginx", b"99999999999999999999", b"\xff\xfe"] {
        assert_eq!(cause(content), "its first line is no number of a process", "{content:?}");
    }
    assert_eq!(cause(b"2147483647\n"), "there is no process 2147483647");
    assert_eq!(cause(std::process::id().to_string().as_bytes()), "it has our own number");

    let at = |path: &Path| target::find(&Target::PidFile(path.to_owned())).unwrap_err();
    let missing = at(&world.path.join("missing"));
    assert_eq!(missing.to_string(), format!("{}: cannot be read: no such file or directory", world.path.join("missing").display()));
    assert_eq!(missing.code, Code::System);
    // Nothing that is no file holds us up.
    let pipe = world.path.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    for path in [pipe.as_path(), Path::new("/dev/zero"), Path::new("/dev/null")] {
        assert_eq!(at(path).cause, "its first line is no number of a process", "{}", path.display());
    }
    assert_eq!(at(&world.path).cause, "cannot be read: is a directory");
}

// A program that is run.

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn run(argv: &[&str]) -> Result<(), Problem> {
    block_on(notify::run(&words(argv), &[(b"PATH".to_vec(), PATH.into())], None, DEADLINE))
}

/// A script that writes into a file of the world, which anybody may write to.
fn writes(world: &World, script: &str) -> (Vec<String>, PathBuf) {
    let path = world.file("told", "");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    (words(&["sh", "-c", &format!("{{ {script}; }} >\"$0\""), path.to_str().unwrap()]), path)
}

#[test]
fn a_program_that_is_run_finds_what_it_was_given_and_nothing_of_ours() {
    let world = World::new();
    let environment = [(b"A".to_vec(), b"1 \xff\n".to_vec()), (b"PATH".to_vec(), PATH.into())];
    let (argv, told) = writes(&world, "tr '\\0' '|' </proc/$$/environ");
    block_on(notify::run(&argv, &environment, None, DEADLINE)).unwrap();
    assert_eq!(fs::read(&told).unwrap(), [b"A=1 \xff\n|PATH=", PATH.as_bytes(), b"|"].concat());
    // Without a PATH it finds programs where Docker looks for them.
    let (argv, told) = writes(&world, "echo \"$PATH\"");
    block_on(notify::run(&argv, &[], None, DEADLINE)).unwrap();
    assert_eq!(fs::read_to_string(&told).unwrap(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");

    let ours = fs::File::open(world.file("ours", "")).unwrap();
    // SAFETY: dup(2) gives a number that nothing owns: it is there to be handed down, and goes with the process of the tests.
    assert!(unsafe { libc::dup(std::os::fd::AsRawFd::as_raw_fd(&ours)) } > 2);
    let script = "pwd; readlink /proc/$$/fd/0; ls -l /proc/$$/fd | grep -c ours; while read -r line; do case $line in SigBlk*) echo \"$line\";; esac; done </proc/$$/status; ps -o pgid= -p $$; echo $$";
    let (argv, told) = writes(&world, script);
    // As an agent is. A shell blocks all signals while it starts a program: it reads its own by itself.
    let before = signal::block_all();
    block_on(notify::run(&argv, &environment, None, DEADLINE)).unwrap();
    signal::set_mask(before);
    let told = fs::read_to_string(&told).unwrap();
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["/", "/dev/null"]);
    assert_eq!(lines[2], "0", "it has a descriptor of ours");
    assert_eq!(lines[3], "SigBlk:\t0000000000000000");
    assert_eq!(lines[4], lines[5], "it has no group of its own: {told}");
}

#[test]
fn a_program_that_is_run_has_its_own_user_and_all_its_groups() {
    let world = World::new();
    let (argv, told) = writes(&world, "id -u; id -g; id -G; grep -E '^(Uid|CapEff)' /proc/self/status");
    let mut account = user::find("4242:4343").unwrap();
    account.groups = vec![4343, 50];
    block_on(notify::run(&argv, &[], Some(&account), DEADLINE)).unwrap();
    let told = fs::read_to_string(told).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines, ["4242", "4343", "4343 50", "Uid:\t4242\t4242\t4242\t4242", "CapEff:\t0000000000000000"]);
}

#[test]
fn a_program_that_fails_is_told_by_its_name_alone() {
    assert!(run(&["true"]).is_ok() && run(&[]).is_ok());
    let text = |argv: &[&str]| run(argv).unwrap_err().to_string();
    assert_eq!(text(&["sh", "-c", "exit 3 # s3cret"]), "sh: it ended with 3");
    assert_eq!(text(&["sh", "-c", "kill -9 $$ # s3cret"]), "sh: signal 9 ended it");
    assert_eq!(text(&["no-such-program", "s3cret"]), "no-such-program: not found");
    assert_eq!(text(&["/etc/passwd", "s3cret"]), "/etc/passwd: cannot be run: permission denied");
    assert_eq!(text(&["a\x1b[2J"]), "a\\u{1b}[2J: not found");
    assert_eq!(run(&["false"]).unwrap_err().code, Code::System);
}

/// A shell and the program below it, whose numbers it writes down, and neither of them ends by itself.
fn endless(world: &World) -> (Vec<String>, PathBuf) {
    let path = world.path.join("numbers");
    (words(&["sh", "-c", "trap '' TERM HUP; sleep 60 & echo $$ $! >\"$0.new\"; mv \"$0.new\" \"$0\"; wait", path.to_str().unwrap()]), path)
}

fn are_gone(numbers: &str) {
    for number in numbers.split_whitespace() {
        // Whoever the orphan has come to may take its time to reap it.
        eventually("it is gone", || match fs::read_to_string(format!("/proc/{number}/stat")) {
            Ok(status) => status.contains(") Z ").then_some(()),
            Err(_) => Some(()),
        });
    }
}

#[test]
fn a_program_that_does_not_end_in_time_is_killed_with_all_of_its_group() {
    let world = World::new();
    let (argv, numbers) = endless(&world);
    let limit = Duration::from_secs(3);
    let start = Instant::now();
    let problem = block_on(notify::run(&argv, &[], None, limit)).unwrap_err();
    assert_eq!(problem.to_string(), "sh: did not end within 3s, and was killed");
    assert!(start.elapsed() >= limit && start.elapsed() < DEADLINE);
    are_gone(&fs::read_to_string(numbers).unwrap());
}

#[test]
fn a_program_that_nobody_waits_for_any_more_is_killed_with_all_of_its_group() {
    let world = World::new();
    let (argv, numbers) = endless(&world);
    block_on(async {
        let ran = notify::run(&argv, &[], None, DEADLINE);
        let is_up = async {
            while !numbers.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            result = ran => panic!("it ended: {result:?}"),
            () = is_up => {}
        }
    });
    are_gone(&fs::read_to_string(numbers).unwrap());
}

// An URL that is asked.

#[cfg(feature = "remote")]
mod urls {
    use secret_init::store::Settings;
    use serde_json::json;

    use super::*;
    use crate::support::servers::faults::{Answer, Faults, nobody};

    fn post(url: &str) -> Result<(), Problem> {
        block_on(notify::post(url, &words(&["DB_PASSWORD", "tls/cert.pem"]), &Settings::default()))
    }

    #[test]
    fn a_url_is_told_the_names_of_what_has_changed_and_no_value() {
        for status in [200, 202, 204] {
            let server = Faults::always(Answer::status(status));
            post(&format!("{}/-/reload?x=1", server.address)).unwrap();
            let [request] = &server.requests()[..] else { panic!("{:?}", server.requests()) };
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/-/reload?x=1"));
            assert_eq!(request.header("content-type"), Some("application/json"));
            assert_eq!(request.json(), json!({ "changed": ["DB_PASSWORD", "tls/cert.pem"] }));
        }
    }

    #[test]
    fn what_may_pass_is_tried_three_times() {
        let server = Faults::in_turn([Answer::status(503), Answer::hang_up(), Answer::status(200)]);
        post(&server.address).unwrap();
        assert_eq!(server.requests().len(), 3);
        let server = Faults::always(Answer::status(500));
        let problem = post(&format!("{}/s3cret", server.address)).unwrap_err();
        let host = server.address.trim_start_matches("http://");
        assert_eq!(problem.to_string(), format!("{host}: it was told of the change, and answered 500"));
        assert_eq!((problem.code, server.requests().len()), (Code::Unavailable, 3));
        assert_eq!(post(&nobody()).unwrap_err().code, Code::Unavailable);
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        for (status, code) in
            [(400, Code::Protocol), (404, Code::Protocol), (403, Code::Denied), (401, Code::Denied), (304, Code::Protocol)]
        {
            let server = Faults::always(Answer::status(status));
            assert_eq!(post(&server.address).unwrap_err().code, code, "{status}");
            assert_eq!(server.requests().len(), 1, "{status}");
        }
    }

    #[test]
    fn no_redirect_is_followed() {
        let elsewhere = Faults::always(Answer::status(200));
        let server = Faults::always(Answer::redirect(&elsewhere.address));
        let problem = post(&server.address).unwrap_err();
        assert!(problem.hint.unwrap().starts_with("redirects are not followed"));
        assert_eq!((server.requests().len(), elsewhere.requests().len()), (1, 0));
    }

    #[test]
    fn plain_http_is_for_this_machine_alone_unless_it_was_allowed() {
        let problem = post("http://192.0.2.1/s3cret").unwrap_err();
        assert_eq!(problem.to_string(), "192.0.2.1:80: what is sent by http can be read on the way");
        assert_eq!(problem.code, Code::Configuration);
        for wrong in ["ftp://127.0.0.1/", "http://user:s3cret@127.0.0.1/", "http://", "no url"] {
            let problem = post(wrong).unwrap_err();
            assert!(problem.code == Code::Configuration && !problem.to_string().contains("s3cret"), "{wrong}");
        }
    }
}
