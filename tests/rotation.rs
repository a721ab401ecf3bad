//! A secret that changes while the program runs: the new bytes are in its files, and then the program is told, once.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

use support::files::{Small, names_in};
use support::watched::{TELLS, agent, configured, dirty_memory, free_address, program, refresh, replace, sample, watched};
use support::{Running, Start, World, children, eventually, send, status_field};

fn tells(start: Start) -> Running {
    let mut running = start.program(["perl", "-e", TELLS]).spawn();
    running.line("runs");
    let _ = agent(running.pid());
    running
}

/// One secret in a file, which is delivered as `A`.
fn one(world: &World) -> Start {
    let path = world.file("a", "one");
    watched(world).variable("A_FILE", format!("file:{}", path.display()))
}

// What is seen.

#[test]
fn a_file_that_is_written_in_place_is_with_the_program_before_it_is_told() {
    let world = World::new();
    let mut running = tells(one(&world));
    fs::write(world.path.join("a"), "two").unwrap();
    running.line("HUP 1 two");
    fs::write(world.path.join("a"), "three").unwrap();
    running.line("HUP 2 three");
}

#[test]
fn a_file_that_another_takes_the_place_of_is_with_the_program_before_it_is_told() {
    let world = World::new();
    let mut running = tells(one(&world));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    replace(&world.path.join("a"), "three");
    running.line("HUP 2 three");
}

#[test]
fn a_volume_that_kubelet_swaps_is_with_the_program_before_it_is_told() {
    let world = World::new();
    let volume = world.path.join("volume");
    let generation = |number: u32, value: &str| {
        fs::create_dir_all(volume.join(format!("..{number}"))).unwrap();
        fs::write(volume.join(format!("..{number}/a")), value).unwrap();
        symlink(format!("..{number}"), volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    generation(1, "one");
    symlink("..data/a", volume.join("a")).unwrap();
    let mut running = tells(watched(&world).variable("A_FILE", format!("file:{}", volume.join("a").display())));
    generation(2, "two");
    fs::remove_dir_all(volume.join("..1")).unwrap();
    running.line("HUP 1 two");
    generation(3, "three");
    running.line("HUP 2 three");
}

#[test]
fn the_same_bytes_anew_and_another_file_are_no_change() {
    let world = World::new();
    let running = tells(one(&world));
    let before = fs::metadata(world.directory().join("A")).unwrap().ino();
    replace(&world.path.join("a"), "one");
    fs::write(world.path.join("b"), "two").unwrap();
    let outcome = refresh(&world);
    let path = world.path.join("a");
    let expected = format!(
        "NAME    REFERENCE{:w$}  RESULT\nA_FILE  file:{}  unchanged\n0 secrets changed, 1 unchanged, 0 failed\n",
        "",
        path.display(),
        w = path.as_os_str().len() - 4
    );
    assert_eq!(String::from_utf8_lossy(&outcome.stdout), expected);
    assert_eq!(fs::metadata(world.directory().join("A")).unwrap().ino(), before);
    assert!(!running.all_until_killed().contains("HUP"));
}

#[test]
fn what_is_gone_stays_with_the_program_and_that_is_told_once() {
    let world = World::new();
    let mut running = tells(one(&world));
    fs::remove_file(world.path.join("a")).unwrap();
    running.line("secret-init: warning: A_FILE: file:");
    for _ in 0..3 {
        assert_eq!(refresh(&world).status.code(), Some(66));
    }
    assert_eq!(fs::read_to_string(world.directory().join("A")).unwrap(), "one");
    fs::write(world.path.join("a"), "two").unwrap();
    running.line("HUP 1 two");
    let said = running.all_until_killed();
    assert_eq!(said.matches("no such file; the program keeps what it has").count(), 1, "{said}");
}

// When the program is told.

#[test]
fn the_first_change_is_told_at_once_and_all_others_within_two_seconds_by_one_signal() {
    let world = World::new();
    let mut running = tells(one(&world));
    let path = world.path.join("a");
    replace(&path, "first");
    let first = running.time_of("HUP 1 first");
    for value in ["second", "third", "fourth", "last"] {
        replace(&path, value);
        eventually("it is in place", || (fs::read_to_string(world.directory().join("A")).unwrap() == value).then_some(()));
    }
    let second = running.time_of("HUP 2 last");
    assert!((1.9..4.0).contains(&(second - first)), "{}", second - first);
    replace(&path, "later");
    running.line("HUP 3 later");
    let said = running.all_until_killed();
    assert_eq!(said.matches("\nHUP ").count(), 3, "{said}");
}

#[test]
fn a_signal_is_sent_within_the_splay() {
    let world = World::new();
    world.file("a", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { splay: 2s }\n";
    let mut running = tells(configured(&world, text));
    let began = Instant::now();
    replace(&world.path.join("a"), "two");
    eventually("it is in place", || (fs::read_to_string(world.directory().join("A")).unwrap() == "two").then_some(()));
    running.line("HUP 1 two");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_program_that_has_no_handler_is_not_killed_and_that_is_told_once() {
    let world = World::new();
    world.file("a", "one");
    let metrics = free_address();
    let start = watched(&world).flag("--metrics").flag(&metrics).variable("A_FILE", format!("file:{}", world.path.join("a").display()));
    let mut running = start.program(["sh", "-c", "echo runs; exec sleep 1000"]).spawn();
    running.line("runs");
    replace(&world.path.join("a"), "two");
    // A program that is young may not have its handler yet.
    let line = running.line("secret-init: warning: on_change: signal: process ");
    assert!(line.ends_with("HUP is not sent: it has no handler for it, and would end"), "{line}");
    assert_eq!(sample(&metrics, "secret_init_on_change_failures_total{action=\"signal\"}"), "1");
    replace(&world.path.join("a"), "three");
    eventually("it is refused again", || {
        (sample(&metrics, "secret_init_on_change_failures_total{action=\"signal\"}") == "2").then_some(())
    });
    let said = running.all_until_killed();
    assert_eq!(said.matches("is not sent").count(), 1, "{said}");
}

// Groups.

const PAIR: &str = "
files:
  - { path: tls/tls.crt, from: 'file:/W/crt', group: tls, mode: '0444' }
  - { path: tls/tls.key, from: 'file:/W/key', group: tls }
rotation:
  on_change: { signal: HUP }
  validate: [sh, -c, 'cd $SECRET_INIT_STAGED/tls && cmp -s tls.crt tls.key']
";

#[test]
fn a_refresh_says_too_when_the_program_could_not_be_told() {
    let world = World::new();
    let a = world.file("a", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { on_change: { exec: [sh, -c, 'test -e /W/well'] } }\n";
    let mut running = configured(&world, text).program(["perl", "-e", TELLS]).spawn();
    running.line("runs one");
    let _ = agent(running.pid());
    replace(&a, "two");
    let refresh = || refresh(&world);
    let failed = eventually("it has failed", || {
        let output = refresh();
        (output.status.code() == Some(71)).then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(failed.contains("  exec failed: sh: it ended with 1\n") && failed.contains("; the program does not know of all\n"), "{failed}");
    world.file("well", "");
    let after = eventually("it is done", || {
        let output = refresh();
        (output.status.code() == Some(0)).then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert!(after.ends_with("0 secrets changed, 1 unchanged, 0 failed\n"), "{after}");
}

#[test]
fn what_was_refused_is_looked_at_again_when_it_changes_or_somebody_wants_it() {
    let world = World::new();
    let a = world.file("a", "one");
    let metrics = free_address();
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { on_change: signal, validate: [sh, -c, 'echo >>/W/asked; ! grep -q bad $SECRET_INIT_STAGED/A'] }\n";
    let mut running = tells(configured(&world, text).flag("--metrics").flag(&metrics));
    let asked = || fs::read_to_string(world.path.join("asked")).unwrap_or_default().len();
    let looks = || sample(&metrics, "secret_init_secret_access_total{secret_type=\"file\",status=\"ok\"}").parse::<u32>().unwrap();
    replace(&a, "bad");
    running.line("secret-init: warning: A: validate: sh: the new files are refused: ");
    let before = looks();
    // It is looked at, and is as bad as it was.
    drop(fs::File::options().write(true).open(&a).unwrap());
    eventually("it is looked at", || (looks() > before).then_some(()));
    assert_eq!(asked(), 1);
    assert_eq!((refresh(&world).status.code(), asked()), (Some(65), 2));
    replace(&a, "bad too");
    eventually("it is asked about", || (asked() == 3).then_some(()));
    replace(&a, "two");
    running.line("HUP 1 two");
    assert_eq!(asked(), 4);
}

#[test]
fn a_pair_that_does_not_fit_is_refused_as_a_whole_and_the_old_one_stays_until_one_fits() {
    let world = World::new();
    let (crt, key, directory) = (world.file("crt", "one"), world.file("key", "one"), world.directory());
    let metrics = free_address();
    let start = configured(&world, PAIR).flag("--metrics").flag(&metrics).variable("SHOWN", "tls/tls.crt tls/tls.key");
    let mut running = tells(start);
    let seen = || {
        ["tls/tls.crt", "tls/tls.key"]
            .map(|name| (fs::metadata(directory.join(name)).unwrap().ino(), fs::read(directory.join(name)).unwrap()))
    };
    let (before, generation) = (seen(), fs::read_link(directory.join("tls/..data")).unwrap());
    let refused = || sample(&metrics, "secret_init_secret_rotation_total{secret_type=\"file\",result=\"refused\"}");
    assert_eq!(refused(), "0");
    for (value, count) in [("two", "1"), ("three", "2")] {
        replace(&crt, value);
        eventually("it is refused", || (refused() == count).then_some(()));
        assert_eq!((seen(), fs::read_link(directory.join("tls/..data")).unwrap()), (before.clone(), generation.clone()));
    }
    replace(&key, "three");
    running.line("HUP 1 three three");
    assert_eq!(refused(), "2");
    // The files, and nothing of what was refused.
    assert_eq!(names_in(directory.join("tls")), ["..1", "..2", "..data", "tls.crt", "tls.key"]);
    let said = running.all_until_killed();
    let warning =
        "secret-init: warning: tls/tls.crt, tls/tls.key: validate: sh: the new files are refused: it ended with 1; the old ones stay\n";
    assert_eq!((said.matches(warning).count(), said.matches("warning").count()), (1, 1), "{said}");
    assert_eq!(said.matches("\nHUP ").count(), 1, "{said}");
}

#[test]
fn what_went_along_with_another_is_told_as_a_change_of_its_own() {
    let world = World::new();
    let (crt, key) = (world.file("crt", "one"), world.file("key", "one"));
    // A change of the key alone means nothing to anybody.
    let text = PAIR.replace("file:/W/key", "${key}") + "secrets: { key: { from: 'file:/W/key', on_change: none } }\n";
    let mut running = tells(configured(&world, &text).variable("SHOWN", "tls/tls.crt tls/tls.key"));
    replace(&crt, "two");
    running.line("secret-init: warning: tls/tls.crt, tls/tls.key: validate: ");
    replace(&key, "two");
    running.line("HUP 1 two two");
}

#[test]
fn a_certificate_and_its_key_that_change_at_once_are_one_change() {
    let world = World::new();
    let (crt, key) = (world.file("crt", "one"), world.file("key", "one"));
    let mut running = tells(configured(&world, PAIR).variable("SHOWN", "tls/tls.crt tls/tls.key"));
    let group = world.directory().join("tls");
    for value in ["two", "three", "four"] {
        replace(&crt, value);
        replace(&key, value);
        eventually("the pair is in place", || {
            // Who follows the link twice may find another pair the second time.
            let generation = group.join(fs::read_link(group.join("..data")).unwrap());
            let both = ["crt", "key"].map(|name| fs::read_to_string(generation.join(format!("tls.{name}"))).unwrap());
            assert_eq!(both[0], both[1]);
            (both[0] == value).then_some(())
        });
    }
    running.line("HUP 2 four four");
    assert_eq!(running.all_until_killed().matches("\nHUP ").count(), 2);
}

// What is done.

#[test]
fn a_program_beside_it_is_run_on_a_change() {
    let world = World::new();
    world.file("a", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { on_change: { exec: [sh, -c, 'echo told $(cat $SECRET_INIT_DIR/A) $PWD $0', x] } }\n";
    let mut running = tells(configured(&world, text));
    replace(&world.path.join("a"), "two");
    assert_eq!(running.line("told"), "told two / x");
}

#[test]
fn a_program_beside_it_that_fails_is_told_and_counted() {
    let world = World::new();
    world.file("a", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { on_change: { exec: [sh, -c, 'exit 3'] } }\n";
    let metrics = free_address();
    let mut running = tells(configured(&world, text).flag("--metrics").flag(&metrics));
    replace(&world.path.join("a"), "two");
    assert_eq!(running.line("secret-init: warning"), "secret-init: warning: on_change: exec: sh: it ended with 3");
    // It is tried again, and fails again.
    eventually("it is counted", || (sample(&metrics, "secret_init_on_change_failures_total{action=\"exec\"}") != "0").then_some(()));
}

/// Who asks the URL, and what it sends.
fn asked(listener: &TcpListener, body: &str) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let mut text = String::new();
    while !text.ends_with(body) {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        assert!(length > 0, "{text}");
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    (stream, text)
}

#[test]
fn what_changes_while_a_url_is_asked_is_told_by_the_next_request() {
    let world = World::new();
    let (listener, first, second) = (TcpListener::bind("127.0.0.1:0").unwrap(), world.file("a", "one"), world.file("b", "one"));
    let text = "files: [{ path: A, from: 'file:/W/a' }, { path: B, from: 'file:/W/b' }]\n";
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let mut running = tells(configured(&world, text).flag("--on-change").flag(address));
    replace(&first, "two");
    let (mut stream, _) = asked(&listener, "{\"changed\":[\"A\"]}");
    replace(&second, "two");
    eventually("it is in place", || (fs::read_to_string(world.directory().join("B")).unwrap() == "two").then_some(()));
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    running.line("secret-init: A: changed; http");
    let (mut stream, _) = asked(&listener, "{\"changed\":[\"B\"]}");
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    running.line("secret-init: B: changed; http");
}

#[test]
fn a_program_beside_it_is_told_what_changed_and_run_again_until_it_ends_well() {
    let world = World::new();
    world.file("a", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { on_change: { exec: [sh, -c, 'echo asks $SECRET_INIT_CHANGED; test -e /W/ready'] } }\n";
    let mut running = tells(configured(&world, text));
    replace(&world.path.join("a"), "two");
    assert_eq!(running.line("asks"), "asks A");
    running.line("secret-init: warning: on_change: exec: sh: it ended with 1");
    world.file("ready", "");
    running.line("secret-init: A: changed; exec");
}

#[test]
fn a_url_is_told_the_names_of_what_changed() {
    let world = World::new();
    let (listener, first) = (TcpListener::bind("127.0.0.1:0").unwrap(), world.file("a", "one"));
    world.file("b", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }, { path: B, from: 'file:/W/b' }]\n";
    let address = format!("http://{}/-/reload?key=s3cret", listener.local_addr().unwrap());
    let mut running = tells(configured(&world, text).flag("--on-change").flag(address));
    replace(&first, "two");
    let (mut stream, text) = asked(&listener, "{\"changed\":[\"A\"]}");
    assert!(text.starts_with("POST /-/reload?key=s3cret HTTP/1.1\r\n"), "{text}");
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    running.line("secret-init: A: changed; http");
    assert!(!running.all_until_killed().contains("s3cret"));
}

#[test]
fn the_container_ends_on_a_change_with_the_code_that_was_asked_for() {
    for (action, code) in [("exit", 0), ("exit:75", 75)] {
        let world = World::new();
        let mut running = tells(one(&world).flag("--on-change").flag(action));
        replace(&world.path.join("a"), "two");
        running.line("secret-init: A_FILE: changed; exit");
        assert_eq!(running.finishes().code(), code);
    }
}

#[test]
fn with_none_the_file_is_replaced_and_nobody_is_told() {
    let world = World::new();
    let mut running = tells(one(&world).flag("--on-change=none"));
    replace(&world.path.join("a"), "two");
    running.line("secret-init: A_FILE: changed");
    assert_eq!(fs::read_to_string(world.directory().join("A")).unwrap(), "two");
    assert!(!running.all_until_killed().contains("HUP"));
}

#[test]
fn each_secret_can_have_an_action_of_its_own() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.file(name, "one");
    }
    let text = "
secrets: { a: { from: 'file:/W/a', on_change: { signal: USR1 } }, b: { from: 'file:/W/b', on_change: none }, c: 'file:/W/c' }
files: [{ path: A, from: '${a}' }, { path: B, from: '${b}' }, { path: C, from: '${c}' }]
rotation: { on_change: signal }
";
    let mut running = tells(configured(&world, text).variable("SHOWN", "A B C"));
    replace(&world.path.join("b"), "two");
    running.line("secret-init: B: changed");
    replace(&world.path.join("a"), "two");
    running.line("USR1");
    replace(&world.path.join("c"), "two");
    running.line("HUP 1 two two two");
    let said = running.all_until_killed();
    assert_eq!((said.matches("\nHUP ").count(), said.matches("USR1\n").count()), (1, 1), "{said}");
}

#[test]
fn one_secret_alone_is_watched_when_it_alone_asks_for_it() {
    let world = World::new();
    for name in ["a", "b"] {
        world.file(name, "one");
    }
    let text =
        "secrets: { a: { from: 'file:/W/a', on_change: signal } }\nfiles: [{ path: A, from: '${a}' }, { path: B, from: 'file:/W/b' }]\n";
    let mut running = tells(configured(&world, text).variable("SHOWN", "A B"));
    replace(&world.path.join("b"), "two");
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two one");
}

// Signals from outside.

#[test]
fn the_refresh_signal_is_kept_from_the_program_and_others_are_not() {
    let world = World::new();
    let audit = world.path.join("audit");
    let mut running = tells(one(&world).flag("--refresh-signal=USR2").flag("--audit").flag(&audit));
    let looks = || fs::read_to_string(&audit).unwrap().matches("\"event\":\"fetched\"").count();
    // The first look after the start comes by itself.
    eventually("it looks by itself", || (looks() == 2).then_some(()));
    // USR2 would end the program, which has no handler for it.
    running.signal(libc::SIGUSR2);
    eventually("it looks when it is told to", || (looks() == 3).then_some(()));
    running.signal(libc::SIGHUP);
    running.line("HUP 1 one");
    running.signal(libc::SIGUSR2);
    eventually("it looks when it is told to", || (looks() == 4).then_some(()));
    assert!(running.is_running());
}

#[test]
fn a_signal_that_ends_a_container_cannot_mean_to_look() {
    for signal in ["TERM", "INT", "QUIT", "CHLD", "KILL"] {
        let world = World::new();
        let outcome = one(&world).flag("--refresh-signal").flag(signal).program(["true"]).finishes();
        assert_eq!(outcome.code(), 64, "{signal}");
    }
}

#[test]
fn an_agent_that_does_not_listen_keeps_pid_1_from_nothing() {
    let world = World::new();
    let running = tells(one(&world).flag("--refresh-signal=USR2"));
    let agent = agent(running.pid());
    send(agent, libc::SIGSTOP);
    // More than fit into the connection, though signals that wait are one.
    for _ in 0..2_000 {
        running.signal(libc::SIGUSR2);
        eventually("it is taken", || (status_field(running.pid(), "ShdPnd").trim_matches('0').is_empty()).then_some(()));
    }
    running.signal(libc::SIGTERM);
    assert_eq!(running.finishes().code(), 143);
}

#[test]
fn metrics_that_cannot_be_served_keep_no_secret_from_being_watched() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut running = tells(one(&world).flag("--metrics").flag(taken.local_addr().unwrap().to_string()));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    assert!(running.all_until_killed().contains("metrics cannot be served there"));
}

// What plans say.

#[test]
fn what_a_change_cannot_reach_is_told_before_anything_is_fetched() {
    let world = World::new();
    let a = world.file("a", "one").display().to_string();
    let start = world.secret_init().variable("A", format!("${{file:{a}}}"));
    let outcome = start.clone().flag("--watch").program(["true"]).finishes();
    let warning = format!(
        "secret-init: warning: A: file:{a}: a change of it does not reach a program that runs, which has it in its environment\n\
         secret-init: hint: use on_change: restart (--on-change restart), or deliver it as a file: A_FILE=REFERENCE\n"
    );
    assert_eq!((outcome.code(), outcome.stderr), (0, warning));
    let both = start.clone().directory(world.directory()).variable("B_FILE", format!("file:{a}")).program(["true"]);
    both.clone().flag("--watch").finishes().fails(
        78,
        &[
            &format!("A: file:{a}: B_FILE would change with the secret, and this variable would not"),
            "hint: deliver both as files, or use on_change: restart (--on-change restart)",
            "1 problem in the plan; the program was not started",
        ],
    );
    assert_eq!(both.flag("--on-change=restart").finishes().succeeds(), "");
    // A probe beside the container's program says nothing of it.
    let exec = start.flag("--watch").flag("--exec").program(["true"]);
    exec.finishes().succeeds();
    let outcome = exec.as_pid_1().finishes();
    let warning = "secret-init: warning: nothing is watched: with --exec nothing of secret-init stays\nsecret-init: hint: leave --exec out, or fetch anew by a restart\n";
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, warning));
}

#[test]
fn what_is_asked_for_and_cannot_be_is_told_before_anything_is_fetched() {
    let world = World::new();
    let a = world.file("a", "one").display().to_string();
    let start = world.secret_init().directory(world.directory()).variable("A_FILE", format!("file:{a}")).program(["true"]);
    let plain = || start.clone().flag("--on-change").flag("http://reload.test/hook");
    plain().finishes().fails(
        78,
        &[
            "--on-change: reload.test:80: what is sent by http can be read on the way",
            "hint: use https, or say --allow-http when the network is yours",
            "1 problem in the plan; the program was not started",
        ],
    );
    plain().flag("--allow-http").finishes().succeeds();
    let config = world.file(
        "c.yaml",
        "secrets: { a: { from: \"file:/a\", on_change: { http: \"http://me:word@127.0.0.1/\" } } }\nfiles: [{ path: a, from: \"${a}\" }]\n",
    );
    let outcome = start.clone().flag("--config").flag(&config).finishes();
    assert!(
        outcome.code() == 78
            && outcome.stderr.contains("a: file:/a: on_change: the address holds credentials")
            && !outcome.stderr.contains("word"),
        "{}",
        outcome.stderr
    );
    for (flags, warning, hint) in [
        (
            &["--process=nginx"][..],
            "--process: is for a sidecar alone",
            "leave it out: the program that secret-init runs is told by itself",
        ),
        (&["--pid-file=/run/a"], "--pid-file: is for a sidecar alone", "leave it out: the program that secret-init runs is told by itself"),
        (&["--watch"], "--watch: there is nothing to watch", "no secret comes from a file or a store: see secret-init plan"),
        (&["--refresh=1m"], "--refresh: there is nothing to watch", "no secret comes from a file or a store: see secret-init plan"),
    ] {
        let start = world.secret_init().directory(world.directory()).variable("B", "literal:b").program(["true"]);
        let outcome = flags.iter().fold(start, Start::flag).finishes();
        let said = format!("secret-init: warning: {warning}\nsecret-init: hint: {hint}\n");
        assert_eq!((outcome.code(), outcome.stderr), (0, said));
    }
}

#[test]
fn what_needs_an_agent_is_warned_of_when_none_stays() {
    let world = World::new();
    for (flag, name, cause) in [
        ("--metrics=127.0.0.1:9464", "--metrics", "be asked"),
        ("--refresh-signal=USR2", "--refresh-signal", "look; the signal does nothing"),
        ("--revoke-on-exit", "--revoke-on-exit", "give anything back"),
    ] {
        let outcome =
            world.secret_init().flag(flag).program(["sh", "-c", "[ $0 != --refresh-signal ] || kill -USR2 $PPID; exit 3", name]).finishes();
        let said = format!(
            "secret-init: warning: {name}: nothing is watched, so that nobody stays who could {cause}\nsecret-init: hint: add --watch\n"
        );
        assert_eq!((outcome.code(), outcome.stderr), (3, said));
    }
}

#[test]
fn a_sidecar_has_to_know_whom_to_tell() {
    let world = World::new();
    let a = world.file("a", "one").display().to_string();
    let start = world.secret_init().flag("sidecar").directory(world.directory()).variable("A_FILE", format!("file:{a}"));
    start.clone().finishes().fails(
        78,
        &[
            "--on-change: it is not said which process a sidecar signals",
            "hint: name it with --process or --pid-file, or say otherwise: --on-change none, a URL, or exec in the configuration",
            "1 problem in the plan; nothing was written",
        ],
    );
    for action in ["restart", "exit:3"] {
        start.clone().flag("--on-change").flag(action).finishes().fails(
            78,
            &[
                "--on-change: a sidecar has no program to restart or to end",
                "hint: use signal, exec, http or none",
                "1 problem in the plan; nothing was written",
            ],
        );
    }
    let config = world.file("c.yaml", "rotation: { on_change: restart }\n");
    start.flag("--config").flag(&config).finishes().fails(
        78,
        &[
            &format!("{}:1:11: rotation: a sidecar has no program to restart or to end", config.display()),
            "hint: use signal, exec, http or none",
            "1 problem in the plan; nothing was written",
        ],
    );
}

#[test]
fn a_plan_shows_what_is_watched_and_how() {
    let world = World::new();
    let text = "
secrets:
  a: { from: 'file:/run/a', on_change: restart }
  b: { from: 'vault:secret/data/b', refresh: 30s }
  c: { from: 'vault:secret/data/c', on_change: { http: 'http://127.0.0.1:1/s3cret' } }
  d: { from: 'file:/run/d', on_change: { exec: [/bin/tell, s3cret] } }
  e: { from: 'file:/run/e', on_change: none }
  f: { from: 'file:/run/f', on_change: { exit: 3 } }
files: [{ path: A, from: '${a}' }, { path: B, from: '${b}' }, { path: C, from: '${c#k}' }, { path: D, from: '${d}' }, { path: E, from: '${e}' }, { path: F, from: '${f}' }, { path: G, from: 'literal:x' }]
rotation: { on_change: signal }
";
    let start = world.secret_init().flag("plan").variable("VAULT_ADDR", "http://127.0.0.1:1").variable("VAULT_TOKEN", "t0ken");
    let plan = start.clone().flag("--config").flag(world.file("c.yaml", text)).finishes().succeeds();
    let expected = "
WATCHED              HOW        ON CHANGE
file:/run/a          events     restart
vault:secret/data/b  every 30s  signal HUP
vault:secret/data/c  every 5m   http
file:/run/d          events     exec /bin/tell
file:/run/e          events     none
file:/run/f          events     exit 3
";
    assert!(plan.ends_with(expected), "{plan}");
    assert!(!plan.contains("s3cret"));
    // Of what is not watched nothing is said.
    let plan = start.variable("A_FILE", "file:/run/a").finishes().succeeds();
    assert!(!plan.contains("WATCHED"), "{plan}");
}

// The agent.

/// Kills the agent, and waits for the next.
fn replaced(supervisor: i32, old: i32) -> (i32, Duration) {
    let began = Instant::now();
    send(old, libc::SIGKILL);
    let new = eventually("another agent takes its place", || Some(agent(supervisor)).filter(|&new| new != old));
    (new, began.elapsed())
}

#[test]
fn an_agent_that_is_killed_is_followed_by_another_and_nothing_is_told_twice() {
    let world = World::new();
    let mut running = tells(one(&world));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    // Who asks is answered when it is remembered.
    refresh(&world);
    let (inode, program) = (fs::metadata(world.directory().join("A")).unwrap().ino(), program(running.pid()));
    let (_, took) = replaced(running.pid(), agent(running.pid()));
    assert!(took >= Duration::from_millis(990), "{took:?}");
    let outcome = refresh(&world);
    assert!(String::from_utf8_lossy(&outcome.stdout).ends_with("0 secrets changed, 1 unchanged, 0 failed\n"), "{outcome:?}");
    assert_eq!(fs::metadata(world.directory().join("A")).unwrap().ino(), inode);
    replace(&world.path.join("a"), "three");
    running.line("HUP 2 three");
    assert_eq!(support::watched::program(running.pid()), program);
    assert_eq!(running.all_until_killed().matches("\nHUP ").count(), 2);
}

#[test]
fn what_changes_while_there_is_no_agent_is_told_by_the_next() {
    let world = World::new();
    let mut running = tells(one(&world));
    let old = agent(running.pid());
    send(old, libc::SIGKILL);
    eventually("it is gone", || (!children(running.pid()).contains(&old)).then_some(()));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    assert_eq!(running.all_until_killed().matches("\nHUP ").count(), 1);
}

#[test]
fn what_an_agent_had_put_in_place_and_not_told_is_told_by_the_next() {
    let world = World::new();
    let mut running = tells(one(&world));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    // This one waits for others that may follow within two seconds.
    replace(&world.path.join("a"), "three");
    eventually("it is in place", || (fs::read_to_string(world.directory().join("A")).unwrap() == "three").then_some(()));
    // And now it is remembered: who asks is answered after that.
    refresh(&world);
    send(agent(running.pid()), libc::SIGKILL);
    running.line("HUP 2 three");
    assert_eq!(running.all_until_killed().matches("\nHUP ").count(), 2);
}

#[test]
fn the_pause_before_another_agent_doubles_and_the_program_notices_nothing() {
    let world = World::new();
    let mut running = tells(one(&world));
    let (supervisor, program) = (running.pid(), program(running.pid()));
    let mut one = agent(supervisor);
    for seconds in [1, 2, 4] {
        let (next, took) = replaced(supervisor, one);
        assert!(took + Duration::from_millis(10) >= Duration::from_secs(seconds), "{took:?}");
        one = next;
    }
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    assert_eq!(support::watched::program(supervisor), program);
}

/// Closes the pair of an agent, which lives on.
const HANGS_UP: &str = r#"
import ctypes, os, socket, sys
agent = int(sys.argv[1])
pidfd, pidfd_getfd = os.pidfd_open(agent), 438
for number in os.listdir(f"/proc/{agent}/fd"):
    copy = ctypes.CDLL(None).syscall(pidfd_getfd, pidfd, int(number), 0)
    if copy < 0 or not os.readlink(f"/proc/self/fd/{copy}").startswith("socket:"):
        continue
    pair = socket.socket(fileno=copy)
    if pair.type == socket.SOCK_SEQPACKET:
        pair.shutdown(socket.SHUT_RDWR)
"#;

#[test]
fn an_agent_that_hangs_up_is_ended_and_followed_by_another() {
    let world = World::new();
    let mut running = tells(one(&world));
    let supervisor = running.pid();
    let old = agent(supervisor);
    send(old, libc::SIGSTOP);
    let ended = std::process::Command::new("python3").args(["-c", HANGS_UP, &old.to_string()]).status().unwrap();
    assert!(ended.success());
    eventually("it is ended", || (!children(supervisor).contains(&old)).then_some(()));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
}

#[test]
fn an_agent_that_finds_another_configuration_than_its_program_was_started_by_does_nothing_and_says_so() {
    let world = World::new();
    world.file("a", "one");
    let text = "files: [{ path: A, from: 'file:/W/a' }]\nrotation: { on_change: signal }\n";
    let mut running = tells(configured(&world, text));
    let config = world.path.join("c.yaml");
    let before = fs::read_to_string(&config).unwrap();
    replace(&config, &before.replace("path: A", "path: B"));
    send(agent(running.pid()), libc::SIGKILL);
    running.line("secret-init: warning: the process that watches ended (exit code 137); another takes its place, and the program goes on");
    running.line(&format!("secret-init: {}: was changed since the start, by which the program and its files are", config.display()));
    running.line("secret-init: nothing is watched now; the program goes on");
    replace(&config, &before);
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
    let said = running.all_until_killed();
    assert!(!said.contains("not started") && !world.directory().join("B").exists(), "{said}");
}

// PID 1.

#[test]
fn pid_1_has_one_thread_and_does_not_wake_up_while_nothing_happens() {
    let world = World::new();
    let mut running = one(&world).as_pid_1().program(["perl", "-e", TELLS]).spawn();
    running.line("runs");
    let supervisor = running.pid_1();
    let _ = agent(supervisor);
    refresh(&world);
    let woken = || status_field(supervisor, "voluntary_ctxt_switches");
    let before = woken();
    // The agent works, and its loop comes round: PID 1 has nothing to do with it.
    for _ in 0..20 {
        assert_eq!(refresh(&world).status.code(), Some(0));
    }
    assert_eq!((woken(), status_field(supervisor, "Threads").as_str()), (before, "1"));
    replace(&world.path.join("a"), "two");
    running.line("HUP 1 two");
}

#[test]
fn pid_1_sleeps_and_has_little_memory_while_a_hundred_files_are_watched_and_so_has_the_agent() {
    // Without optimisation there is more that the loader has to relocate.
    let (of_pid_1, of_agent) = (if cfg!(debug_assertions) { 4096 } else { 512 }, 12 * 1024);
    for action in ["signal", "restart"] {
        let world = World::new();
        let change = |value: &str| {
            for number in 0..100 {
                world.file(&format!("from/{number}"), format!("{value} {}", "x".repeat(1000)));
            }
        };
        change("one");
        let files: Vec<String> = (0..100).map(|number| format!("{{ path: 'to/{number}', from: 'file:/W/from/{number}' }}")).collect();
        let text = format!("files: [{}]\nrotation: {{ on_change: {action} }}\n", files.join(", "));
        let mut running = configured(&world, &text).as_pid_1().variable("SHOWN", "to/0").program(["perl", "-e", TELLS]).spawn();
        running.line("runs");
        let supervisor = running.pid_1();
        let have_little = |agent: i32| {
            let found = [supervisor, agent].map(dirty_memory);
            println!("{action}: {found:?} KiB");
            assert!(found[0] <= of_pid_1 && found[1] <= of_agent, "{found:?} KiB");
        };
        let mut watches = agent(supervisor);
        for is_another in [false, true] {
            if is_another {
                watches = replaced(supervisor, watches).0;
            }
            // Who asks is answered when all is looked at and remembered.
            eventually("it answers", || refresh(&world).status.success().then_some(()));
            let woken = || status_field(supervisor, "voluntary_ctxt_switches");
            let (before, began) = (woken(), Instant::now());
            eventually("some time is over", || (began.elapsed() > Duration::from_secs(2)).then_some(()));
            assert_eq!((woken(), status_field(supervisor, "Threads").as_str()), (before, "1"));
            have_little(watches);
        }
        change("two");
        running.line(if action == "signal" { "HUP 1 two" } else { "runs two" });
        have_little(watches);
    }
}

// No room.

#[test]
fn a_full_tmpfs_leaves_the_old_files_whole_and_the_change_follows_when_there_is_room() {
    let world = World::new();
    let (small, path) = (Small::mounted_at(world.directory(), "64k"), world.file("a", "one"));
    let mut running = tells(one(&world));
    fs::write(small.0.join("filler"), vec![b'x'; 40_000]).unwrap();
    let large = "y".repeat(30_000);
    replace(&path, &large);
    let warning = running.line("secret-init: warning: ");
    assert!(warning.ends_with("no space left on device; the program keeps what it has"), "{warning}");
    let inode = fs::metadata(small.0.join("A")).unwrap().ino();
    assert_eq!(refresh(&world).status.code(), Some(73));
    assert_eq!((fs::read_to_string(small.0.join("A")).unwrap(), fs::metadata(small.0.join("A")).unwrap().ino()), ("one".to_owned(), inode));
    // Nothing is left of what could not be written.
    let names: Vec<String> =
        names_in(&small.0).into_iter().filter(|name| !name.starts_with(".secret-init") && !name.starts_with(".control")).collect();
    assert_eq!(
        names,
        [".lock", "A", "filler"].iter().filter(|name| small.0.join(name).exists()).map(|name| (*name).to_owned()).collect::<Vec<_>>()
    );
    fs::remove_file(small.0.join("filler")).unwrap();
    running.line(&format!("HUP 1 {large}"));
    let said = running.all_until_killed();
    assert_eq!(said.matches("no space left").count(), 1, "{said}");
}
