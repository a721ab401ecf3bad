//! Job control: secret-init between a terminal and a program, as PID 1 of a container, below `docker exec`, and below an interactive shell.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use support::terminal::Terminal;
use support::{World, binary, children, eventually, is_ours, send, status_field};

/// A program that counts its signals, echoes its lines, and tells its counts on signal 64, which comes after all others.
const COUNTER: &str = r#"#!/usr/bin/perl
$| = 1;
my %count;
for my $name (qw(INT QUIT WINCH CONT HUP)) { $SIG{$name} = sub { $count{$name}++; print "<$name>\n" } }
$SIG{RTMAX} = sub { print "counts:", (map { " $_=$count{$_}" } sort keys %count), ".\n" };
print "counter runs\n";
my $line = "";
while (1) {
    # A signal that comes just before a read would wait for its end: so the waiting has an end.
    vec(my $stdin = "", 0, 1) = 1;
    next if select($stdin, undef, undef, 0.01) < 1;
    last if !sysread STDIN, my $byte, 1;
    $line .= $byte;
    next if $byte ne "\n";
    exit $1 if $line =~ /^exit (\d+)/;
    print "line: $line";
    $line = "";
}
exit 99;
"#;

/// As PID 1 with a session and a terminal of its own, as `docker run -it` gives them.
fn pid_1(world: &World, counter: &Path) -> Terminal {
    Terminal::running(world.secret_init().as_pid_1().under(["setsid", "--ctty"]).program([counter]).command())
}

/// As the leader of a session, not PID 1, as `docker exec -it` starts it.
fn session_leader(world: &World, counter: &Path) -> Terminal {
    Terminal::running(world.secret_init().program([counter]).command())
}

/// secret-init somewhere below the leader of the session.
fn supervisor(terminal: &Terminal) -> i32 {
    eventually("secret-init runs", || {
        let mut pid = terminal.leader();
        while !is_ours(pid) {
            pid = *children(pid).first()?;
        }
        Some(pid)
    })
}

#[test]
fn what_the_terminal_sends_reaches_the_program_once() {
    let world = World::new();
    let counter = world.script("counter", COUNTER);
    let mut bash = Terminal::bash();
    bash.types(&format!("$INIT -- {}\n", counter.display()));
    for mut terminal in [pid_1(&world, &counter), session_leader(&world, &counter), bash] {
        terminal.shows("counter runs");
        terminal.types("\x03");
        terminal.shows("<INT>");
        terminal.types("\x1c");
        terminal.shows("<QUIT>");
        terminal.resize(50);
        terminal.shows("<WINCH>");
        // Whatever came to us as well would be passed on before this.
        send(supervisor(&terminal), 64);
        terminal.shows("counts: INT=1 QUIT=1 WINCH=1.");
        terminal.types("still here\n");
        terminal.shows("line: still here");
    }
}

#[test]
fn the_exit_code_passes_through_a_terminal() {
    let world = World::new();
    let counter = world.script("counter", COUNTER);
    for mut terminal in [pid_1(&world, &counter), session_leader(&world, &counter)] {
        terminal.shows("counter runs");
        terminal.types("exit 7\n");
        terminal.ends_with(7);
    }
}

#[test]
fn where_no_shell_could_wake_it_a_program_that_stops_goes_on() {
    let world = World::new();
    let counter = world.script("counter", COUNTER);
    for mut terminal in [pid_1(&world, &counter), session_leader(&world, &counter)] {
        terminal.shows("counter runs");
        terminal.types("\x1a");
        terminal.shows("<CONT>");
        terminal.types("still here\n");
        terminal.shows("line: still here");
    }
}

#[test]
fn ctrl_z_below_a_shell_stops_the_job_and_fg_resumes_it() {
    let world = World::new();
    let counter = world.script("counter", COUNTER);
    let mut bash = Terminal::bash();
    bash.types(&format!("$INIT -- {}\n", counter.display()));
    bash.shows("counter runs");
    let supervisor = supervisor(&bash);
    for _ in 0..3 {
        bash.types("\x1a");
        bash.shows("Stopped");
        assert!(status_field(supervisor, "State").starts_with('T'));
        bash.types("echo the shell has the terminal: $((40 + 2))\n");
        bash.shows("the shell has the terminal: 42");
        bash.types("fg\n");
        bash.shows("<CONT>");
        bash.types("back again\n");
        bash.shows("line: back again");
    }
    bash.types("exit 7\n");
    bash.types("echo ended with $?\n");
    bash.shows("ended with 7");
}

#[test]
fn bg_resumes_every_process_of_a_stopped_job() {
    let world = World::new();
    let child = world.script(
        "child",
        "#!/usr/bin/perl\n$| = 1; $SIG{CONT} = sub { print qq(child goes on\n) }; print qq(child runs\n); select undef, undef, undef, 0.01 while 1\n",
    );
    let parent = world.script("parent", &format!("#!/bin/sh\n{} & wait\n", child.display()));
    let mut bash = Terminal::bash();
    bash.types(&format!("$INIT -- {}\n", parent.display()));
    bash.shows("child runs");
    let parent = children(supervisor(&bash))[0];
    let child = children(parent)[0];
    bash.types("\x1a");
    bash.shows("Stopped");
    eventually("the child has stopped, too", || status_field(child, "State").starts_with('T').then_some(()));
    bash.types("bg\n");
    bash.shows("child goes on");
    send(-parent, libc::SIGKILL);
}

#[test]
fn a_background_job_does_not_steal_the_terminal_and_fg_gives_it() {
    let world = World::new();
    let patient = r"#!/usr/bin/perl
$| = 1;
$SIG{USR1} = sub { $may_read = 1 };
print qq(patient runs\n);
select undef, undef, undef, 0.01 until $may_read;
print 'line: ', scalar <STDIN>;
";
    let patient = world.script("patient", patient);
    let mut bash = Terminal::bash();
    let shell = bash.foreground();
    bash.types(&format!("$INIT -- {} &\n", patient.display()));
    bash.shows("patient runs");
    assert_eq!(bash.foreground(), shell);
    bash.types("echo the shell has the terminal: $((40 + 2))\n");
    bash.shows("the shell has the terminal: 42");
    let supervisor = supervisor(&bash);
    // To a job that runs, `fg` says nothing.
    bash.types("fg\n");
    eventually("our job is in the foreground", || (bash.foreground() == supervisor).then_some(()));
    bash.types("now for the program\n");
    send(supervisor, libc::SIGUSR1);
    bash.shows("line: now for the program");
    bash.types("echo ended with $?\n");
    bash.shows("ended with 0");
}

#[test]
fn a_background_job_that_reads_is_stopped_until_fg() {
    let world = World::new();
    let mut bash = Terminal::bash();
    let reader = world.script("reader", "#!/bin/sh\nread line\necho \"read: $line\"\n");
    bash.types(&format!("$INIT -- {} &\n", reader.display()));
    let supervisor = eventually("secret-init is stopped", || {
        let child = *children(bash.leader()).first()?;
        status_field(child, "State").starts_with('T').then_some(child)
    });
    bash.types("fg\n");
    eventually("the program has the terminal", || (Some(&bash.foreground()) == children(supervisor).first()).then_some(()));
    bash.types("here it is\n");
    bash.shows("read: here it is");
}

#[test]
fn the_terminal_is_given_back_at_the_end() {
    let world = World::new();
    let script = world.script("script", "#!/bin/sh\n\"$INIT\" -- true\nread line\necho \"after: $line\"\n");
    let mut command = Command::new(script);
    command.env("INIT", binary());
    let mut terminal = Terminal::running(command);
    terminal.types("still mine\n");
    terminal.shows("after: still mine");
    terminal.ends_with(0);
}

#[test]
fn a_closed_terminal_reaches_the_program_as_hangup() {
    let world = World::new();
    for start in [world.secret_init(), world.secret_init().as_pid_1().under(["setsid", "--ctty"])] {
        let told = world.path.join("told");
        let script = format!(
            "$SIG{{HUP}} = sub {{ open F, '>', '{}'; print F 'hangup'; close F; exit 5 }}; print qq(ready\n); select undef, undef, undef, 0.01 while 1",
            told.display()
        );
        let mut terminal = Terminal::running(start.program(["perl", "-e", &format!("$| = 1; {script}")]).command());
        terminal.shows("ready");
        let closed = std::mem::replace(&mut terminal.screen, File::open("/dev/null").unwrap());
        drop(closed);
        terminal.ends_with(5);
        assert_eq!(std::fs::read_to_string(&told).unwrap(), "hangup");
        std::fs::remove_file(&told).unwrap();
    }
}

#[test]
fn an_interactive_shell_runs_as_the_program() {
    let world = World::new();
    for start in [world.secret_init(), world.secret_init().as_pid_1().under(["setsid", "--ctty"])] {
        let start = start.variable("PS1", "").program(["bash", "--norc", "--noprofile", "--noediting", "-i"]);
        let mut terminal = Terminal::running(start.command());
        terminal.types("stty -echo; echo shell is $((40 + 2))\n");
        terminal.shows("shell is 42");
        terminal.types("sleep 1000\n");
        eventually("sleep has the terminal", || {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", terminal.foreground())).ok()?;
            (name == "sleep\n").then_some(())
        });
        terminal.types("\x1a");
        terminal.shows("Stopped");
        terminal.types("kill %1; echo job control is $((40 + 2)); exit 3\n");
        terminal.shows("job control is 42");
        terminal.types("exit 3\n");
        terminal.ends_with(3);
    }
}

#[test]
fn a_stop_and_a_continue_that_no_terminal_sent_are_between_them_and_the_program() {
    let world = World::new();
    let counter = world.script("counter", COUNTER);
    let mut bash = Terminal::bash();
    bash.types(&format!("$INIT -- {}\n", counter.display()));
    bash.shows("counter runs");
    let program = children(supervisor(&bash))[0];
    send(program, libc::SIGSTOP);
    eventually("the program is stopped", || status_field(program, "State").starts_with('T').then_some(()));
    send(program, libc::SIGCONT);
    bash.types("still here\n");
    bash.shows("line: still here");
}

/// Gives the terminal to a child, which echoes lines, and reads itself, which stops it.
const GIVES_IT_AWAY: &str = r#"#!/usr/bin/perl
use POSIX;
$| = 1;
$SIG{TTOU} = "IGNORE";
my $child = fork;
if (!$child) {
    setpgid(0, 0);
    POSIX::tcsetpgrp(0, $$);
    print "child reads\n";
    while (<STDIN>) { print "child: $_" }
    exit;
}
setpgid($child, $child);
POSIX::tcsetpgrp(0, $child);
<STDIN>;
"#;

#[test]
fn a_program_that_gave_the_terminal_away_is_not_woken_again_and_again() {
    let world = World::new();
    let script = world.script("gives", GIVES_IT_AWAY);
    let mut terminal = pid_1(&world, &script);
    terminal.shows("child reads");
    let supervisor = supervisor(&terminal);
    let program = children(supervisor)[0];
    eventually("the program is stopped", || status_field(program, "State").starts_with('T').then_some(()));
    let woken = || status_field(supervisor, "voluntary_ctxt_switches");
    terminal.types("one\n");
    terminal.shows("child: one");
    eventually("the supervisor has seen it and sleeps again", || {
        let has_seen = status_field(supervisor, "ShdPnd").trim_start_matches('0').is_empty();
        (has_seen && status_field(supervisor, "State").starts_with('S')).then_some(())
    });
    let before = woken();
    for line in ["two", "three", "four"] {
        terminal.types(&format!("{line}\n"));
        terminal.shows(&format!("child: {line}"));
    }
    assert_eq!((woken(), status_field(program, "State").starts_with('T')), (before, true));
}
