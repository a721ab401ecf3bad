//! A sidecar: what it writes is for a program of another container, which it tells of a change. And `write` before it, as an init container.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "containers/engine.rs"]
mod engine;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use engine::{Container, Image, docker_says, unique};
use serde_json::json;
use support::servers::faults::{Answer, Faults};
use support::{Running, Start, World, children, eventually, is_ours, send};

/// Replaces a file as careful programs do.
fn replace(path: &Path, content: &str) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// A pod's share of the machine: a secret, a directory for it, and a program that reads what is there when it gets HUP.
struct Pod {
    world: World,
    source: PathBuf,
    directory: PathBuf,
    program: PathBuf,
}

const READS: &str = r#"#!/usr/bin/python3
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: print("reads", open(sys.argv[1]).read(), flush=True))
print("ready", flush=True)
while True:
    signal.pause()
"#;

impl Pod {
    fn new() -> Self {
        let world = World::new();
        let source = world.file("source/password", "first");
        let directory = world.directory();
        // A name that no other process of the machine has, and short enough for one.
        let number: String = world.path.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let program = world.script(&format!("app{number}"), READS);
        Self { world, source, directory, program }
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn file(&self) -> PathBuf {
        self.directory.join("PASSWORD")
    }

    /// The program, which runs beside the sidecar.
    fn app(&self) -> Start {
        self.world.secret_init().bare().program([self.program.as_os_str(), self.file().as_os_str()])
    }

    fn with_command(&self, command: &str) -> Start {
        let reference = format!("file:{}", self.source.display());
        self.world.secret_init().flag(command).directory(&self.directory).variable("PASSWORD_FILE", reference)
    }

    fn sidecar(&self) -> Start {
        self.with_command("sidecar")
    }

    fn asks(&self, command: &str) -> Start {
        self.world.secret_init().flag(command).directory(&self.directory)
    }

    /// The sidecar watches.
    fn is_healthy(&self) {
        eventually("the sidecar is healthy", || (self.asks("health").finishes().code() == 0).then_some(()));
    }

    /// Both are another user's.
    fn belongs_to(&self, uid: u32) {
        for path in [&self.directory, &self.source] {
            chown(path, Some(uid), Some(uid)).unwrap();
        }
    }
}

/// Starts a sidecar that watches.
fn starts(pod: &Pod, start: &Start) -> Running {
    let running = start.spawn();
    pod.is_healthy();
    running
}

/// Ends it as an engine does, and gives what it had to say.
#[track_caller]
fn ends(running: Running) -> String {
    running.signal(libc::SIGTERM);
    let outcome = running.finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, ""), "{}", outcome.stderr);
    outcome.stderr
}

// Whom it tells.

#[test]
fn a_process_is_found_by_its_name_and_told_by_hup_when_its_file_is_new() {
    let pod = Pod::new();
    let mut app = pod.app().spawn();
    app.line("ready");
    let sidecar = starts(&pod, &pod.sidecar().flag("--process").flag(pod.name()));
    assert_eq!(fs::read_to_string(pod.file()).unwrap(), "first");
    for content in ["second", "third"] {
        replace(&pod.source, content);
        assert_eq!(app.line("reads"), format!("reads {content}"));
    }
    assert_eq!(ends(sidecar), "");
    assert!(app.is_running());
}

#[test]
fn a_process_is_found_by_its_pid_file_also_when_it_starts_anew() {
    let pod = Pod::new();
    let pid_file = pod.world.path.join("app.pid");
    let sidecar = starts(&pod, &pod.sidecar().flag("--pid-file").flag(&pid_file));
    for content in ["second", "third"] {
        let mut app = pod.app().spawn();
        app.line("ready");
        fs::write(&pid_file, format!("{}\n", app.pid())).unwrap();
        replace(&pod.source, content);
        assert_eq!(app.line("reads"), format!("reads {content}"));
    }
    assert_eq!(ends(sidecar), "");
}

#[test]
fn a_program_that_makes_its_handler_a_little_later_is_told_then() {
    const YOUNG: &str = r#"#!/usr/bin/python3
import os, signal, sys, time
print("young", flush=True)
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
signal.signal(signal.SIGHUP, lambda *_: print("reads", open(sys.argv[1]).read(), flush=True))
while True: time.sleep(0.05)
"#;
    let pod = Pod::new();
    fs::write(&pod.program, YOUNG).unwrap();
    let grown = pod.world.path.join("grown");
    let mut app = pod.world.secret_init().bare().program([pod.program.as_os_str(), pod.file().as_os_str(), grown.as_os_str()]).spawn();
    app.line("young");
    let sidecar = starts(&pod, &pod.sidecar().flag("--process").flag(pod.name()));
    replace(&pod.source, "second");
    eventually("the file is new", || (fs::read_to_string(pod.file()).unwrap() == "second").then_some(()));
    assert_eq!(pod.asks("refresh").finishes().code(), 0);
    fs::write(grown, "").unwrap();
    assert_eq!(app.line("reads"), "reads second");
    assert_eq!(ends(sidecar), "");
}

#[test]
fn of_several_processes_of_a_name_each_is_told_that_takes_it() {
    let pod = Pod::new();
    let deaf = pod.world.script("deaf/x", "#!/usr/bin/python3\nimport signal\nprint('deaf', flush=True)\nsignal.pause()\n");
    let same = deaf.with_file_name(pod.name());
    fs::rename(&deaf, &same).unwrap();
    // The first in the list of processes.
    let mut first = pod.world.secret_init().bare().program([same.as_os_str()]).spawn();
    first.line("deaf");
    let mut app = pod.app().spawn();
    app.line("ready");
    let sidecar = starts(&pod, &pod.sidecar().flag("--process").flag(pod.name()));
    for content in ["second", "third"] {
        replace(&pod.source, content);
        assert_eq!(app.line("reads"), format!("reads {content}"));
    }
    assert!(first.is_running());
    let stderr = ends(sidecar);
    assert!(stderr.matches("warning").count() == 1 && stderr.contains(&format!("process {} ", first.pid())), "{stderr}");
}

#[test]
fn a_program_that_comes_later_or_not_at_all_finds_the_new_file_and_that_is_told_once() {
    let pod = Pod::new();
    let sidecar = starts(&pod, &pod.sidecar().flag("--process").flag(pod.name()));
    for content in ["second", "third"] {
        replace(&pod.source, content);
        eventually("the file is new", || (fs::read_to_string(pod.file()).unwrap() == content).then_some(()));
        let refresh = pod.asks("refresh").finishes();
        assert!(refresh.code() == 71 && refresh.stdout.contains("  signal failed: "), "{refresh:?}");
    }
    let stderr = ends(sidecar);
    let expected = format!("secret-init: warning: on_change: signal: {}: no process has this name\n", pod.name());
    assert!(stderr.starts_with(&expected) && stderr.matches("no process has this name").count() == 1, "{stderr}");
    assert!(stderr.contains("hint: does it run, and do both share a process namespace (shareProcessNamespace: true"), "{stderr}");
}

/// A process namespace with a process of its own as PID 1, as that of a pod has, the program, and the sidecar.
fn in_a_pod(start: Start, app: &Pod) -> Start {
    let script =
        format!("{} {} & app=$!; \"$@\"; echo sidecar ended with $?; kill -HUP $app; wait", app.program.display(), app.file().display());
    start.as_pid_1().under(["sh", "-c", &script, "sh"])
}

#[test]
fn in_a_pod_it_is_not_pid_1_and_leaves_the_program_alone_when_it_ends() {
    let pod = Pod::new();
    let mut running = in_a_pod(pod.sidecar().flag("--process").flag(pod.name()), &pod).spawn();
    running.line("ready");
    pod.is_healthy();
    replace(&pod.source, "second");
    assert_eq!(running.line("reads"), "reads second");
    let pause = eventually("the shell runs", || children(running.pid()).first().copied());
    let sidecar = eventually("the sidecar runs", || children(pause).into_iter().find(|&child| is_ours(child)));
    send(sidecar, libc::SIGTERM);
    assert_eq!(running.line("sidecar"), "sidecar ended with 0");
    // The program was not asked to end.
    assert_eq!(running.line("reads"), "reads second");
}

#[test]
fn as_pid_1_of_its_own_namespace_it_says_that_it_does_not_see_the_program() {
    let pod = Pod::new();
    let mut app = pod.app().spawn();
    app.line("ready");
    let running = starts(&pod, &pod.sidecar().flag("--process").flag(pod.name()).as_pid_1());
    replace(&pod.source, "second");
    eventually("the file is new", || (fs::read_to_string(pod.file()).unwrap() == "second").then_some(()));
    let refresh = pod.asks("refresh").finishes();
    assert!(refresh.code() == 71 && refresh.stdout.contains("  signal failed: "), "{refresh:?}");
    send(running.pid_1(), libc::SIGTERM);
    let outcome = running.finishes();
    assert!(outcome.code() == 0 && outcome.stderr.contains("no process has this name"), "{outcome:?}");
    assert!(app.is_running());
}

// By whom.

#[test]
fn a_process_of_another_user_is_not_told_and_both_users_are_named() {
    let pod = Pod::new();
    pod.belongs_to(1000);
    let mut app = pod.app().as_user(1001).spawn();
    app.line("ready");
    let sidecar = starts(&pod, &pod.sidecar().as_user(1000).flag("--process").flag(pod.name()));
    replace(&pod.source, "second");
    eventually("the file is new", || (fs::read_to_string(pod.file()).unwrap() == "second").then_some(()));
    let refresh = pod.asks("refresh").finishes();
    assert!(refresh.code() == 78 && refresh.stdout.contains("  signal failed: "), "{refresh:?}");
    let stderr = ends(sidecar);
    let name = pod.name();
    let cause =
        format!("process {} ({}): HUP is not sent: it runs as uid 1001, and this is uid 1000\n", app.pid(), &name[..15.min(name.len())]);
    assert!(stderr.contains(&cause), "{stderr}");
    let hint = "hint: run both as the same user (runAsUser, user:), or this one as root with the capability KILL\n";
    assert!(stderr.contains(hint) && app.is_running(), "{stderr}");
}

#[test]
fn root_with_the_capability_kill_tells_another_user_and_gives_it_the_files() {
    let pod = Pod::new();
    let mut app = pod.app().as_user(1001).spawn();
    app.line("ready");
    fs::set_permissions(&pod.directory, fs::Permissions::from_mode(0o711)).unwrap();
    let start = pod.sidecar().flag("--user").flag("1001:1001").flag("--process").flag(pod.name());
    let sidecar = starts(&pod, &start);
    replace(&pod.source, "second");
    // It can read its file, and nobody else's.
    assert_eq!(app.line("reads"), "reads second");
    let status = fs::metadata(pod.file()).unwrap();
    assert_eq!((status.uid(), status.mode() & 0o777), (1001, 0o400));
    assert_eq!(ends(sidecar), "");
}

// What else it does.

#[test]
fn by_the_configuration_it_runs_a_program_which_finds_the_new_files() {
    for as_pid_1 in [false, true] {
        let pod = Pod::new();
        let out = pod.world.path.join("out");
        let script = format!("cat $SECRET_INIT_DIR/PASSWORD > {0}.new && mv {0}.new {0}", out.display());
        let config = pod.world.file("config.yaml", format!("rotation:\n  on_change: {{ exec: [sh, -c, \"{script}\"] }}\n"));
        let start = pod.sidecar().flag("--config").flag(config);
        let running = starts(&pod, &if as_pid_1 { start.as_pid_1() } else { start });
        replace(&pod.source, "second");
        eventually("the program ran", || (fs::read_to_string(&out).ok()? == "second").then_some(()));
        send(if as_pid_1 { running.pid_1() } else { running.pid() }, libc::SIGTERM);
        let outcome = running.finishes();
        assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, ""));
    }
}

#[test]
fn by_the_configuration_or_a_flag_it_asks_a_url_with_the_names_of_what_changed() {
    for by_flag in [false, true] {
        let (pod, server) = (Pod::new(), Faults::always(Answer::status(204)));
        let url = format!("{}/-/reload", server.address);
        let config = pod.world.file("config.yaml", format!("rotation:\n  on_change: {{ http: \"{url}\" }}\n"));
        let start = if by_flag { pod.sidecar().flag("--on-change").flag(&url) } else { pod.sidecar().flag("--config").flag(config) };
        let sidecar = starts(&pod, &start);
        replace(&pod.source, "second");
        let request = eventually("the URL is asked", || server.requests().into_iter().next());
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/-/reload"));
        assert_eq!(request.json(), json!({"changed": ["PASSWORD_FILE"]}));
        assert_eq!(ends(sidecar), "");
    }
}

// Its own signals.

#[test]
fn term_int_and_quit_end_it_at_once_with_0() {
    let pod = Pod::new();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
        for as_pid_1 in [false, true] {
            let start = pod.sidecar().flag("--on-change=none");
            let running = starts(&pod, &if as_pid_1 { start.as_pid_1() } else { start });
            let began = std::time::Instant::now();
            send(if as_pid_1 { running.pid_1() } else { running.pid() }, signal);
            let outcome = running.finishes();
            assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, ""), "{signal}");
            // A pod's end waits for it: less than the two seconds that others are given.
            assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
        }
    }
}

#[test]
fn hup_and_usr2_have_it_look_now() {
    let (pod, server) = (Pod::new(), Faults::always(Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}}))));
    for as_pid_1 in [false, true] {
        let start = pod.world.secret_init().flag("sidecar").directory(&pod.directory).flag("--on-change=none");
        let start = start.variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
        let start = start.variable("PASSWORD_FILE", "vault:secret/data/app#k");
        let running = starts(&pod, &if as_pid_1 { start.as_pid_1() } else { start });
        for signal in [libc::SIGHUP, libc::SIGUSR2, libc::SIGHUP] {
            let asked = || server.requests().iter().filter(|request| request.path.contains("secret/data/app")).count();
            let before = asked();
            send(if as_pid_1 { running.pid_1() } else { running.pid() }, signal);
            eventually("the store is asked", || (asked() > before).then_some(()));
        }
        send(if as_pid_1 { running.pid_1() } else { running.pid() }, libc::SIGTERM);
        assert_eq!(running.finishes().code(), 0);
    }
}

#[test]
fn when_its_supervisor_is_killed_nothing_of_it_stays() {
    let pod = Pod::new();
    let running = starts(&pod, &pod.sidecar().flag("--on-change=none"));
    let agent = children(running.pid())[0];
    running.signal(libc::SIGKILL);
    eventually("the agent is gone", || (!is_ours(agent)).then_some(()));
}

// Health.

#[test]
fn it_is_healthy_when_all_is_delivered_and_not_before() {
    let (pod, server) = (Pod::new(), Faults::start(|_, _| Answer::silence()));
    let start = pod.world.secret_init().flag("sidecar").directory(&pod.directory).flag("--on-change=none");
    let start = start.variable("VAULT_TOKEN", "t0ken").variable("PASSWORD_FILE", "vault:secret/data/app#k");
    let waiting = start.clone().variable("VAULT_ADDR", &server.address).spawn();
    eventually("the store is asked", || (!server.requests().is_empty()).then_some(()));
    let outcome = pod.asks("health").finishes();
    assert!(outcome.code() == 69 && outcome.stderr.contains("no agent answers in "), "{outcome:?}");
    waiting.signal(libc::SIGTERM);
    // Nothing was delivered, which is no success.
    assert_eq!(waiting.finishes().code(), 128 + libc::SIGTERM);
    let good = Faults::always(Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}})));
    let sidecar = starts(&pod, &start.variable("VAULT_ADDR", &good.address));
    assert_eq!(fs::read_to_string(pod.file()).unwrap(), "v");
    assert_eq!(ends(sidecar), "");
    assert_eq!(pod.asks("health").finishes().code(), 69);
}

// What cannot be.

#[test]
fn a_sidecar_that_could_do_nothing_is_told_what_it_lacks() {
    let world = World::new();
    let start = world.secret_init().flag("sidecar").directory(world.directory()).flag("--process=app");
    start.clone().variable("A_FILE", "literal:a").finishes().fails(
        78,
        &[
            "a sidecar has nothing to watch",
            "hint: the files have to come from a store, or from other files",
            "1 problem in the plan; nothing was written",
        ],
    );
    start.variable("A_FILE", "file:/nowhere").finishes().fails(
        66,
        &[
            "A_FILE: file:/nowhere: no such file",
            "hint: add ?optional=true or ?default=… if it may be missing",
            "1 of 1 secret failed; nothing was written",
        ],
    );
}

// After an init container.

#[test]
fn a_sidecar_takes_over_what_write_has_left_and_rewrites_nothing_that_is_right() {
    let pod = Pod::new();
    let (certificate, key) = (pod.world.file("source/crt", "certificate"), pod.world.file("source/key", "key"));
    let config = pod.world.file(
        "config.yaml",
        format!(
            "files:\n  - {{ path: tls/tls.crt, from: \"file:{}\", group: tls }}\n  - {{ path: tls/tls.key, from: \"file:{}\", group: tls }}\n",
            certificate.display(),
            key.display()
        ),
    );
    assert_eq!(pod.with_command("write").flag("--config").flag(&config).finishes().succeeds(), "");
    let paths = ["PASSWORD", "tls/tls.crt", "tls/tls.key"].map(|path| pod.directory.join(path));
    let states =
        || paths.each_ref().map(|path| fs::metadata(path).map(|status| (status.ino(), status.ctime_nsec(), status.mtime_nsec())).unwrap());
    let written = states();
    let start = pod.sidecar().flag("--config").flag(&config).flag("--on-change=none");
    for as_pid_1 in [true, false] {
        let running = starts(&pod, &if as_pid_1 { start.clone().as_pid_1() } else { start.clone() });
        assert_eq!(states(), written);
        assert_eq!(pod.asks("refresh").finishes().code(), 0);
        assert_eq!(states(), written);
        send(if as_pid_1 { running.pid_1() } else { running.pid() }, libc::SIGTERM);
        assert_eq!(running.finishes().code(), 0);
    }
    // What has changed between the two is new, and the rest is as it was.
    replace(&pod.source, "second");
    let sidecar = starts(&pod, &start);
    assert_eq!(fs::read_to_string(pod.file()).unwrap(), "second");
    assert_eq!(states()[1..], written[1..]);
    replace(&key, "second key");
    eventually("the group is new", || (fs::read_to_string(&paths[2]).unwrap() == "second key").then_some(()));
    assert_eq!(fs::read_to_string(&paths[1]).unwrap(), "certificate");
    assert_eq!(ends(sidecar), "");
}

// In containers.

/// A volume in memory that two containers share, as an emptyDir is.
struct Volume(String);

impl Volume {
    fn in_memory() -> Self {
        let name = unique();
        docker_says(["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=mode=1777", &name]);
        Self(name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = engine::docker(["volume", "rm", "--force", &self.0]);
    }
}

#[test]
fn between_containers_that_share_their_processes_the_user_decides() {
    let (image, world, volume) = (Image::of_the_example(), World::new(), Volume::in_memory());
    let source = world.file("source/password", "first");
    let mount = format!("--volume {}:/run/secret-init", volume.0);
    let app = "trap 'echo reads $(cat /run/secret-init/PASSWORD)' HUP; echo ready; while :; do sleep 9999 & wait $!; done";
    // A name of its own for the program: that of its script.
    let app = format!(
        "echo '{}' >/tmp/the-app; chmod +x /tmp/the-app; exec /tmp/the-app",
        format_args!("#!/bin/sh\n{}", app.replace('\'', "'\\''"))
    );
    let app = Image::base().run().options(&mount).options("--user 1000:1000 --tmpfs /tmp:exec,mode=1777").shell(&app).starts();
    app.line("ready");
    let sidecar = |options: &str| -> Container {
        let start = image.run().options(&mount).options(&format!("--pid container:{} --read-only --cap-drop ALL", app.name));
        let start = start.options(&format!("--volume {}:/etc/secrets:ro --entrypoint secret-init", source.parent().unwrap().display()));
        let start = start.options(options).variable("PASSWORD_FILE", "file:/etc/secrets/password");
        let container = start.program(["sidecar", "--process", "the-app", "--log-level", "info"]).starts();
        eventually("it is healthy", || (container.exec(&["secret-init", "health"]).code() == 0).then_some(()));
        container
    };
    let same = sidecar("--user 1000:1000");
    replace(&source, "second");
    app.line("reads second");
    assert_eq!(same.stops(), 0);
    drop(same);
    // Without the capability root is as good as any other.
    let to_give_files =
        "--user 0:0 --env SECRET_INIT_USER=1000:1000 --cap-add SETUID --cap-add SETGID --cap-add CHOWN --cap-add DAC_OVERRIDE";
    let other = sidecar(to_give_files);
    replace(&source, "third");
    eventually("the refusal is told", || other.logs().contains("it runs as uid 1000, and this is uid 0").then_some(()));
    assert_eq!(other.stops(), 0);
    drop(other);
    let able = sidecar(&format!("{to_give_files} --cap-add KILL"));
    replace(&source, "fourth");
    app.line("reads fourth");
    assert_eq!(able.stops(), 0);
}
