//! In containers of a real engine: Docker's default seccomp profile, no `--privileged`, no namespace of the host. And whatever the examples and
//! `docs/containers.md` tell users to type.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "containers/engine.rs"]
mod engine;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use engine::{Container, Image, Project, Run, base_folder, composes, docker, docker_says, example_context, host, root, shell, unique};
use serde_json::json;
use support::servers::faults::{Answer, Faults};
use support::watched::replace;
use support::{Outcome, World, binary, eventually};

// The binary.

#[test]
fn the_binary_is_static() {
    let file = fs::read(binary()).unwrap();
    assert_eq!(&file[..5], b"\x7fELF\x02");
    let number = |at: usize, length: usize| file[at..at + length].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let types: Vec<usize> = (0..count).map(|index| number(table + index * size, 4)).collect();
    let (load, interpreter) = (1, 3);
    assert!(types.contains(&load) && !types.contains(&interpreter), "{types:?}");
}

#[test]
fn the_binary_is_at_most_nine_mebibytes() {
    assert!(fs::metadata(binary()).unwrap().len() <= 9 << 20);
}

// Who it runs as, and what it may.

/// Delivers one secret to the environment and one as a file, to a program that tells what it got and where.
fn with_two_secrets(image: &Arc<Image>, world: &World) -> Run {
    image
        .run()
        .secret("password", &world.file("password", "s3cret\n"))
        .secret("token", &world.file("token", "t0ken"))
        .variable("DB_PASSWORD_FILE", "/run/secrets/password")
        .variable("TOKEN_FILE", "file:/run/secrets/token")
        .shell(
            "echo uid $(id -u) got $DB_PASSWORD and $(cat $TOKEN_FILE); stat -c '%a %u' $TOKEN_FILE; stat -f -c %T $TOKEN_FILE; \
             echo $TOKEN_FILE; grep Seccomp: /proc/self/status; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status",
        )
}

fn lines(outcome: Outcome) -> Vec<String> {
    outcome.succeeds().lines().map(|line| line.replace('\t', " ")).collect()
}

#[test]
fn it_runs_as_root_as_a_user_and_with_nothing_that_could_be_taken_away() {
    let (image, world) = (Image::of_the_example(), World::new());
    for (options, uid) in [
        ("--user 0", "0"),
        ("", "1000"),
        ("--user 4242:4343", "4242"),
        ("--read-only --cap-drop ALL --user 1000", "1000"),
        ("--read-only --cap-drop ALL --security-opt no-new-privileges --user 1000:1000 --network none --pids-limit 8 --memory 32m", "1000"),
    ] {
        let lines = lines(with_two_secrets(&image, &world).options(options).finishes());
        assert_eq!(lines[..3], [format!("uid {uid} got s3cret and t0ken"), format!("400 {uid}"), "tmpfs".into()], "{options}");
        // Every container has its own tmpfs there, and as no other user may be in it the path tells whose it is.
        assert!(lines[3].starts_with(&format!("/dev/shm/secret-init-{uid}-")) && lines[3].ends_with("/TOKEN"), "{options}: {lines:?}");
        assert_eq!(lines[4], "Seccomp: 2", "{options}: the engine's own filter is on");
    }
}

/// Docker's root with the capabilities that are needed to become another user, and no other.
const ONLY_TO_DROP_ROOT: &str =
    "--user 0 --read-only --cap-drop ALL --cap-add SETUID --cap-add SETGID --cap-add CHOWN --cap-add KILL --security-opt no-new-privileges";

#[test]
fn root_reads_what_is_its_own_and_the_program_is_another_user_for_good() {
    let (image, world) = (Image::of_the_example(), World::new());
    let start = with_two_secrets(&image, &world).options(ONLY_TO_DROP_ROOT).variable("SECRET_INIT_USER", "1000:1000");
    fs::set_permissions(world.path.join("password"), fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(world.path.join("token"), fs::Permissions::from_mode(0o400)).unwrap();
    let lines = lines(start.finishes());
    assert_eq!(lines[..3], ["uid 1000 got s3cret and t0ken", "400 1000", "tmpfs"]);
    assert!(lines.contains(&"CapEff: 0000000000000000".to_owned()), "{lines:?}");
}

#[test]
fn a_program_that_is_another_user_gets_its_signals() {
    let image = Image::of_the_example();
    let start = image.run().options(ONLY_TO_DROP_ROOT).variable("SECRET_INIT_USER", "app");
    let container =
        start.shell("trap 'echo as $(id -u):$(id -g); exit 9' TERM; echo ready; while :; do sleep 9999 & wait $!; done").starts();
    container.line("ready");
    assert_eq!(container.stops(), 9);
    container.line("as 1000:1000");
}

#[test]
fn a_capability_that_is_missing_is_named() {
    let start = Image::of_the_example().run().variable("SECRET_INIT_USER", "app").program(["true"]);
    start.clone().options("--user 0 --cap-drop ALL --cap-add SETUID --cap-add SETGID").finishes().fails(
        71,
        &[
            "--user: app: the capability to change the user is missing: CHOWN, KILL",
            "hint: add it: cap_add: [CHOWN, KILL] in Compose, --cap-add for docker run",
            "the program was not started",
        ],
    );
    start.options("--user 4242").finishes().fails(
        71,
        &[
            "--user: app: only root can change the user, and this is uid 4242",
            "hint: leave --user out, or let the container start as root",
            "the program was not started",
        ],
    );
}

#[test]
fn a_name_is_looked_up_without_the_plugins_that_the_image_names() {
    let world = World::new();
    let folder = base_folder(&world);
    let libraries = folder.join(format!("lib/{}-linux-gnu", std::env::consts::ARCH));
    fs::create_dir_all(&libraries).unwrap();
    let source = |name: &str| root().join("tests/containers").join(name).display().to_string();
    let compile = |words: &[&str]| assert_eq!(host(Command::new("cc").args(words)).finishes().code(), 0, "cc {words:?}");
    for plugin in ["trap", "files"] {
        let library = libraries.join(format!("libnss_{plugin}.so.2")).display().to_string();
        compile(&["-shared", "-fPIC", "-nostdlib", "-o", &library, &source("plugin.c")]);
    }
    compile(&["-static", "-o", &folder.join("bin/looks-up").display().to_string(), &source("looks_up.c")]);
    fs::write(
        folder.join("etc/nsswitch.conf"),
        "passwd: trap files\ngroup: trap files\ninitgroups: trap files\nhosts: trap missing files dns\n",
    )
    .unwrap();
    fs::copy(binary(), folder.join("bin/secret-init")).unwrap();
    let image = Image::import(&folder);
    // The plugin does kill a static program that asks the C library.
    assert_eq!(image.run().program(["/bin/looks-up"]).finishes().code(), 128 + libc::SIGILL);
    let start = image.run().program([
        "secret-init",
        "--user",
        "app",
        "--",
        "sh",
        "-c",
        "grep -E '^(Uid|Groups)' /proc/self/status; echo $USER $HOME",
    ]);
    assert_eq!(
        lines(start.finishes()).iter().map(|line| line.trim()).collect::<Vec<_>>(),
        ["Uid: 1000 1000 1000 1000", "Groups: 50 1000", "app /home/app"]
    );
    // Nor is it asked for the name of a store.
    let server = Faults::always(answer_of_vault());
    let start = image.run().options("--network host --add-host vault.test:127.0.0.1").variable("A", "vault:secret/data/app#k");
    let start = start.variable("VAULT_ADDR", &server.address.replace("127.0.0.1", "vault.test")).variable("VAULT_TOKEN", "t0ken");
    let start = start.program(["secret-init", "--allow-http", "--", "sh", "-c", "echo got $A"]);
    assert_eq!(start.finishes().succeeds(), "got v\n");
}

// Where files go.

#[test]
fn a_tmpfs_at_run_or_at_our_own_folder_is_taken() {
    let (image, world) = (Image::of_the_example(), World::new());
    for options in [
        "--user 0 --tmpfs /run",
        "--user 1000 --tmpfs /run",
        "--user 0 --tmpfs /run/secret-init",
        "--user 1000 --tmpfs /run/secret-init:mode=0700,uid=1000",
        "--user 1000 --tmpfs /run/secret-init:mode=0700,uid=1000 --ipc none --read-only --cap-drop ALL",
    ] {
        let lines = lines(with_two_secrets(&image, &world).options(options).finishes());
        assert_eq!((lines[2].as_str(), lines[3].as_str()), ("tmpfs", "/run/secret-init/TOKEN"), "{options}");
    }
}

#[test]
fn a_tmpfs_that_all_can_write_to_is_taken_with_a_warning() {
    let (image, world) = (Image::of_the_example(), World::new());
    let outcome = with_two_secrets(&image, &world).options("--user 1000 --tmpfs /run/secret-init").finishes();
    assert_eq!(outcome.stderr, "secret-init: warning: /run/secret-init: others can write to it (owner 0, mode 1777)\n");
    assert!(outcome.stdout.contains("\n/run/secret-init/TOKEN\n"), "{}", outcome.stdout);
}

#[test]
fn without_memory_to_write_to_the_program_is_not_started() {
    let (image, world) = (Image::of_the_example(), World::new());
    with_two_secrets(&image, &world).options("--ipc none --read-only").finishes().fails(
        73,
        &[
            "/run/secret-init: /run is not in memory; nor in /dev/shm: /dev/shm is not in memory",
            "hint: mount a tmpfs: docker run --tmpfs /run/secret-init:mode=0700,uid=1000, or in Compose tmpfs: [\"/run/secret-init:mode=0700,uid=1000\"]; or accept a disk with --allow-disk",
            "the program was not started",
        ],
    );
}

// Without anything else in the image.

#[test]
fn in_an_image_from_scratch_a_static_program_gets_its_secrets_and_its_signals() {
    let (image, world) = (Image::from_scratch(), World::new());
    let start = image
        .run()
        .options("--read-only --cap-drop ALL")
        .secret("password", &world.file("password", "s3cret\n"))
        .variable("DB_PASSWORD_FILE", "/run/secrets/password")
        .variable("TOKEN_FILE", "file:/run/secrets/password");
    let container = start.starts();
    container.line("serving");
    let logs = container.logs();
    assert!(logs.contains("DB_PASSWORD has 6 bytes\n") && logs.contains("/TOKEN has 7 bytes\n"), "{logs}");
    assert_eq!(container.exec(&["secret-init", "--exec", "--", "myapp"]).code(), 0);
    assert_eq!(container.stops(), 128 + libc::SIGTERM);
}

// Stores that are asked over a network.

fn answer_of_vault() -> Answer {
    Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}}))
}

/// A network of its own, in which a busybox that is called `store` plays Vault. It goes with its last container.
struct Network {
    name: String,
    store: Option<Container>,
}

impl Network {
    fn new() -> Self {
        let name = unique();
        docker_says(["network", "create", &name]);
        let script = format!(
            "mkdir -p /www/v1/secret/data && echo '{}' >/www/v1/secret/data/app && echo serves && exec httpd -f -p 8200 -h /www",
            answer_of_vault().text()
        );
        let store = Image::base()
            .run()
            .options(&format!("--network {name} --network-alias store --network-alias store.test.internal"))
            .shell(&script)
            .starts();
        store.line("serves");
        Self { name, store: Some(store) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.store.take());
        let _ = docker(["network", "rm", &self.name]);
    }
}

#[test]
fn in_an_image_from_scratch_a_store_is_found_by_the_name_that_the_engine_gives_it() {
    let (image, network) = (Image::from_scratch(), Network::new());
    let start = |name: &str| {
        let start = image.run().options(&format!("--network {} --read-only --cap-drop ALL", network.name));
        let start = start.variable("VAULT_ADDR", &format!("http://{name}:8200")).variable("VAULT_TOKEN", "t0ken");
        start.variable("SECRET_INIT_ALLOW_HTTP", "true").variable("DB_PASSWORD", "vault:secret/data/app#k").program(["myapp"])
    };
    let starts = |start: &Run| assert_eq!(start.finishes().succeeds(), "DB_PASSWORD has 1 bytes\n");
    starts(&start("store"));
    starts(&start("store.test.internal"));
    // By a search domain, as Kubernetes has them.
    starts(&start("store").options("--dns-search svc.cluster.local --dns-search test.internal --dns-option ndots:5"));
    starts(&start("store.test").options("--dns-search svc.cluster.local --dns-search internal --dns-option ndots:5"));
    // By /etc/hosts.
    let address = docker_says([
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        &network.store.as_ref().unwrap().name,
    ]);
    starts(&start("elsewhere.example").options(&format!("--add-host elsewhere.example:{}", address.trim())));
    let outcome = start("nothing.test.internal").variable("SECRET_INIT_TIMEOUT", "1s").finishes();
    assert!(outcome.code() == 69 && outcome.stderr.contains("nothing.test.internal:8200: the name cannot be resolved\n"), "{outcome:?}");
}

#[test]
fn an_answer_that_is_too_large_for_the_container_ends_the_start_clearly() {
    let image = Image::of_the_example();
    let server = Faults::always(Answer::endless(7 << 20));
    let start = image.run().options("--network host --memory 8m --memory-swap 8m").variable("A", "vault:secret/data/app#k");
    let start = start.variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
    start.program(["true"]).finishes().fails(
        71,
        &[
            "the start was cut short (exit code 137); the program was not started",
            "hint: was it killed for lack of memory? see the container's memory limit",
        ],
    );
}

// While it runs.

#[test]
fn an_agent_that_the_kernel_kills_for_want_of_memory_is_followed_by_another_and_nothing_is_told_twice() {
    goes_first("0");
}

/// Of a process that nobody may look into, no user but root can say that it goes first, not even itself.
#[test]
fn an_agent_goes_before_the_program_when_memory_runs_out_also_of_a_user_who_is_not_root() {
    goes_first("1000");
}

fn goes_first(user: &str) {
    // It starts no process for it: whatever runs may be killed.
    const TELLS: &str =
        "trap 'read value <$A_FILE; echo HUP $value' HUP; read value <$A_FILE; echo runs $value; sleep 9999 & while :; do wait $!; done";
    let world = World::new();
    let secret = world.file("from/password", "one");
    let folder = secret.parent().unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let volume = format!("--user {user} --volume {}:/from:ro --memory 32m --memory-swap 32m", folder.display());
    let start = Image::of_the_example().run().options(&volume).variable("SECRET_INIT_WATCH", "true");
    let container = start.variable("A_FILE", "file:/from/password").shell(TELLS).starts();
    container.line("runs one");
    let agent = || -> Option<u32> {
        let all = container.exec(&["pidof", "secret-init"]).stdout;
        all.split_whitespace().map(|pid| pid.parse().unwrap()).find(|&pid| pid != 1)
    };
    let unchanged = "0 secrets changed, 1 unchanged, 0 failed\n";
    let is_settled = || container.exec(&["secret-init", "refresh"]).stdout.ends_with(unchanged).then_some(());
    // What changes is seen by the one that is there, or by the one that comes.
    for (number, value, is_there) in [(1, "two", true), (2, "three", false)] {
        eventually("all is looked at and remembered", is_settled);
        let before = agent().unwrap();
        // The agent goes first, and then the one that wants it all.
        let wants = container.exec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=1024M", "count=1"]);
        assert_eq!(wants.code(), 128 + libc::SIGKILL, "{wants:?}");
        let counter = "grep -hs '^oom_kill ' /sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events";
        assert_eq!(container.exec(&["sh", "-c", counter]).stdout, format!("oom_kill {}\n", 2 * number));
        if is_there {
            eventually("another is there", || agent().filter(|&agent| agent != before));
            eventually("all is looked at and remembered", is_settled);
        }
        replace(&secret, value);
        container.line(&format!("HUP {value}"));
    }
    eventually("all is looked at and remembered", is_settled);
    let logs = container.logs();
    let (ours, told): (Vec<&str>, Vec<&str>) = logs.lines().partition(|line| line.starts_with("secret-init: "));
    assert_eq!(told, ["runs one", "HUP two", "HUP three"]);
    let warning = "secret-init: warning: the process that watches ended (exit code 137); another takes its place, and the program goes on";
    assert_eq!(ours.iter().filter(|line| **line == warning).count(), 2, "{logs}");
    container.signal("TERM");
    assert_eq!(container.exit_code(), 128 + libc::SIGTERM);
}

// How it ends.

#[test]
fn every_exit_code_reaches_docker() {
    let image = Image::of_the_example();
    for code in [0, 1, 2, 42, 125, 126, 127, 128, 143, 255] {
        assert_eq!(image.run().shell(&format!("exit {code}")).finishes().code(), code);
    }
    assert_eq!(image.run().shell("kill -KILL $$").finishes().code(), 128 + libc::SIGKILL);
    assert_eq!(image.run().program(["no-such-program"]).finishes().code(), 127);
    assert_eq!(image.run().program(["/etc/passwd"]).finishes().code(), 126);
}

#[test]
fn docker_stop_reaches_the_program_which_ends_with_its_own_code() {
    let container = Image::of_the_example()
        .run()
        .shell("trap 'echo got TERM; exit 7' TERM; trap 'echo got USR1' USR1; echo ready; while :; do sleep 9999 & wait $!; done")
        .starts();
    container.line("ready");
    container.signal("USR1");
    container.line("got USR1");
    assert_eq!(container.stops(), 7);
    container.line("got TERM");
}

#[test]
fn docker_stop_ends_a_program_that_has_no_handler() {
    // As PID 1 it would ignore TERM.
    let container = Image::of_the_example().run().shell("echo ready; exec sleep 9999").starts();
    container.line("ready");
    assert_eq!(container.stops(), 128 + libc::SIGTERM);
}

#[test]
fn leftovers_of_the_program_get_term_before_the_container_goes() {
    let leftover = "trap 'echo leftover got TERM; exit' TERM; echo ready; while :; do sleep 9999 & wait $!; done";
    let container = Image::of_the_example()
        .run()
        .variable("LEFTOVER", leftover)
        .shell("sh -c \"$LEFTOVER\" & read -r _ < /dev/null; exec sleep 9999")
        .starts();
    container.line("ready");
    assert_eq!(container.stops(), 128 + libc::SIGTERM);
    container.line("leftover got TERM");
}

#[test]
fn docker_restart_starts_the_program_with_its_secrets_again() {
    let (image, world) = (Image::of_the_example(), World::new());
    let password = world.file("password", "old");
    let start = image
        .run()
        .secret("password", &password)
        .variable("PASSWORD_FILE", "/run/secrets/password")
        .variable("T_FILE", "file:/run/secrets/password");
    let container = start.options("--tmpfs /run").shell("echo got $PASSWORD; cat $T_FILE; echo; exec sleep 9999").starts();
    container.line("got old");
    fs::write(&password, "new").unwrap();
    docker_says(["restart", "--time", "600", &container.name]);
    container.line("got new");
}

#[test]
fn below_the_init_of_docker_it_works_as_well() {
    let (image, world) = (Image::of_the_example(), World::new());
    let lines = lines(with_two_secrets(&image, &world).options("--init").finishes());
    assert_eq!(lines[..3], ["uid 1000 got s3cret and t0ken", "400 1000", "tmpfs"]);
    let container = image.run().options("--init").shell("trap 'exit 7' TERM; echo ready; while :; do sleep 9999 & wait $!; done").starts();
    container.line("ready");
    assert_eq!(container.stops(), 7);
}

// On a terminal.

#[test]
fn an_interactive_shell_has_job_control() {
    // The job itself says when it has the terminal: what is typed before that is the shell's. Its words are not those of the echo.
    let job = "sh -c 'trap \"echo con\"\"tinued\" CONT; echo run\"\"ning; sleep 9999 & while :; do wait; done'\r";
    let outcome = Image::of_the_example().run().options("--env PS1=prompt:").program(["sh"]).finishes_on_a_terminal(&[
        ("prompt:", "stty -a | grep -q isig && stty size\r"),
        ("40 100", job),
        ("running", "\x1a"),
        ("Stopped", "jobs\r"),
        ("Stopped", "fg\r"),
        ("continued", "\x03"),
        ("prompt:", "echo code $?\r"),
        ("code 130", "exit 7\r"),
    ]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (7, ""), "{}", outcome.stdout);
}

#[test]
fn interrupt_from_the_keyboard_reaches_the_program_once() {
    let outcome = Image::of_the_example()
        .run()
        .shell("trap 'echo got INT; count=$((count + 1))' INT; echo ready; until read line; do :; done; echo $line $count; exit 5")
        .finishes_on_a_terminal(&[("ready", "\x03"), ("got INT", "lines\r"), ("lines 1", "")]);
    assert_eq!((outcome.code(), outcome.stdout.matches("got INT").count()), (5, 1), "{} {}", outcome.stdout, outcome.stderr);
}

#[test]
fn interrupt_from_the_keyboard_ends_a_program_that_has_no_handler() {
    let outcome = Image::of_the_example().run().shell("echo ready; exec sleep 9999").finishes_on_a_terminal(&[("ready", "\x03")]);
    assert_eq!(outcome.code(), 128 + libc::SIGINT, "{} {}", outcome.stdout, outcome.stderr);
}

#[test]
fn stop_from_the_keyboard_does_not_hang_a_container() {
    let outcome = Image::of_the_example().run().shell("echo ready; read line; echo got $line; exit 3").finishes_on_a_terminal(&[
        ("ready", "\x1a"),
        ("^Z", "hello\r"),
        ("got hello", ""),
    ]);
    assert_eq!(outcome.code(), 3, "{} {}", outcome.stdout, outcome.stderr);
}

// docker exec.

#[test]
fn docker_exec_gets_the_secrets_the_same_way_and_sees_none_by_itself() {
    let (image, world) = (Image::of_the_example(), World::new());
    let container =
        with_two_secrets(&image, &world).options("--read-only --cap-drop ALL").shell("cat $TOKEN_FILE; echo; exec sleep 9999").starts();
    container.line("t0ken");
    assert_eq!(container.exec(&["sh", "-c", "echo \"${DB_PASSWORD-none}\""]).succeeds(), "none\n");
    let through = container.exec(&["secret-init", "--exec", "--", "sh", "-c", "echo $DB_PASSWORD $(cat $TOKEN_FILE)"]);
    assert_eq!(through.succeeds(), "s3cret t0ken\n");
    assert_eq!(container.exec(&["secret-init", "--exec", "--", "sh", "-c", "exit 12"]).code(), 12);
    let check = container.exec(&["secret-init", "check"]).succeeds();
    assert!(check.contains("DB_PASSWORD") && !check.contains("s3cret") && !check.contains("t0ken"), "{check}");
}

// What Docker keeps.

/// Forms in which a text could lie in a file: as it is, and in base64 from each of the three positions in which it can begin.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let encoded = (0..3).map(|shift| {
        let script = "printf '%*s%s' \"$0\" '' \"$1\" | base64 -w0";
        let whole = Command::new("sh").args(["-c", script, &shift.to_string(), text]).output().unwrap().stdout;
        whole[4..whole.len() - 4].to_vec()
    });
    encoded.chain([text.as_bytes().to_vec()]).collect()
}

fn holds(haystack: &[u8], text: &str) -> bool {
    forms(text).iter().any(|form| haystack.windows(form.len()).any(|window| window == form))
}

/// All that can be had of a container, and of an image that is made of it, with a name each.
fn what_docker_keeps(container: &Container) -> Vec<(&'static str, Vec<u8>)> {
    let image = Image { name: unique() };
    docker_says(["commit", &container.name, &image.name]);
    let id = docker_says(["inspect", "--format", "{{.Id}}", &container.name]);
    let folder = format!("{}/containers/{}", docker_says(["info", "--format", "{{.DockerRootDir}}"]).trim(), id.trim());
    let bytes = |words: &[&str]| Command::new(words[0]).args(&words[1..]).output().unwrap();
    let engine = |words: &[&str]| {
        let output = bytes(&[&["docker"], words].concat());
        assert!(output.status.success(), "docker {words:?}");
        [output.stdout, output.stderr].concat()
    };
    vec![
        ("inspect", engine(&["inspect", &container.name])),
        ("logs", engine(&["logs", &container.name])),
        ("diff", engine(&["diff", &container.name])),
        ("top", engine(&["top", &container.name, "-ef"])),
        ("the environment of docker exec", engine(&["exec", &container.name, "env"])),
        ("export", engine(&["export", &container.name])),
        ("inspect of the image", engine(&["inspect", &image.name])),
        ("history", engine(&["history", "--no-trunc", &image.name])),
        ("save", engine(&["save", &image.name])),
        ("the folder of the engine", bytes(&["tar", "-C", &folder, "-c", "."]).stdout),
    ]
}

#[test]
fn what_docker_keeps_of_a_container_holds_no_secret() {
    let (image, world) = (Image::of_the_example(), World::new());
    // The secret stands in each value from another beginning, so that base64 of it would differ.
    let secret = format!("canary-{:x}-of-a-secret", std::process::id() + 0x1234_5678);
    let bait = "bait-that-is-to-be-found-everywhere";
    let container = image
        .run()
        .options("--user 0")
        .secret("password", &world.file("password", &secret))
        .variable("BAIT", bait)
        .variable("DB_PASSWORD_FILE", "/run/secrets/password")
        .variable("URL", "redis://:${file:/run/secrets/password | urlencode}@cache")
        .variable("TOKEN_FILE", "file:/run/secrets/password")
        .shell("cat $TOKEN_FILE | wc -c; echo $DB_PASSWORD $URL | wc -w; echo $BAIT | tee /tmp/$BAIT; sh -c 'sleep 9999; :' $BAIT; :")
        .starts();
    container.line(bait);
    // It did arrive.
    assert_eq!(container.logs().lines().map(str::trim).take(2).collect::<Vec<_>>(), [secret.len().to_string(), "2".into()]);
    for (name, bytes) in what_docker_keeps(&container) {
        assert!(holds(&bytes, bait) || name == "history", "{name} is not what it should be: {}", String::from_utf8_lossy(&bytes));
        assert!(!bytes.is_empty() && !holds(&bytes, &secret), "{name} holds the secret");
    }
}

// What a failed start says.

#[test]
fn all_that_is_wrong_is_said_in_the_log_and_the_exit_code_tells_the_kind() {
    let (image, world) = (Image::of_the_example(), World::new());
    let container = image
        .run()
        .secret("good", &world.file("good", "x"))
        .variable("A_GOOD_FILE", "/run/secrets/good")
        .variable("DB_PASSWORD_FILE", "/run/secrets/db")
        .variable("TOKEN_FILE", "file:/run/secrets/token")
        .shell("echo started")
        .starts();
    assert_eq!(container.exit_code(), 66);
    let password = "secret-init: DB_PASSWORD_FILE: file:/run/secrets/db: no such file\n\
                    secret-init: hint: mount the secret there, or leave the variable alone with --skip DB_PASSWORD_FILE\n";
    let token = "secret-init: TOKEN_FILE: file:/run/secrets/token: no such file\n\
                 secret-init: hint: add ?optional=true or ?default=… if it may be missing\n";
    let summary = "secret-init: 2 of 3 secrets failed; the program was not started\n";
    // Docker hands the variables over in an order that varies from one start to the next, and the problems come in theirs.
    let logs = container.logs();
    assert!([[password, token, summary], [token, password, summary]].map(|parts| parts.concat()).contains(&logs), "{logs}");
}

#[test]
fn a_file_of_the_host_that_the_user_may_not_read_is_named_with_its_owner() {
    let (image, world) = (Image::of_the_example(), World::new());
    let start = with_two_secrets(&image, &world);
    fs::set_permissions(world.path.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let outcome = start.finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (77, ""));
    assert!(
        outcome.stderr.contains("TOKEN_FILE: file:/run/secrets/token: permission denied for uid 1000 (owner 0, mode 0600)\n"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_mount_whose_source_is_missing_is_told_apart() {
    // Docker makes a directory of it.
    let (image, world) = (Image::of_the_example(), World::new());
    let start = image.run().secret("db", &world.path.join("missing")).variable("DB_FILE", "/run/secrets/db").shell("echo started");
    let outcome = start.finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (65, ""));
    assert!(outcome.stderr.starts_with("secret-init: DB_FILE: file:/run/secrets/db: is a directory\n"), "{}", outcome.stderr);
}

#[test]
fn an_overridden_entrypoint_drops_cmd_and_the_hint_says_so() {
    let image = Image::of_the_example();
    image
        .run()
        .options("--entrypoint secret-init")
        .finishes()
        .fails(64, &["CMD is empty", "hint: name the program after --; when ENTRYPOINT is overridden, repeat the image's own CMD"]);
    assert_eq!(image.run().options("--entrypoint secret-init").program(["--", "echo", "ran"]).finishes().succeeds(), "ran\n");
}

// The examples for Compose.

fn healthy(project: &Project, service: &str) {
    let container = format!("container={}", project.container(service));
    let filters = ["--filter", &container, "--filter", "event=health_status", "--format", "{{.Status}}"];
    host(Command::new("docker").args(["events", "--since", "10m"]).args(filters)).line("health_status: healthy");
}

/// A line of an example's README: how it begins, what is waited for before it, and what its output has to hold.
struct Line(&'static str, fn(&Project), &'static [&'static str]);

fn at_once(_: &Project) {}

/// Runs the lines of an example's README in their order.
fn follow_the_readme(project: &Project, expectations: &[Line]) {
    let lines = project.readme();
    assert_eq!(lines.len(), expectations.len(), "{lines:?}");
    for (line, Line(beginning, before, wanted)) in lines.iter().zip(expectations) {
        assert!(line.starts_with(beginning), "{line}");
        before(project);
        let outcome = project.types(line);
        assert_eq!(outcome.code(), 0, "{line}: {}", outcome.stderr);
        for text in *wanted {
            assert!(outcome.stdout.contains(text), "{line}: {text:?} in {}{}", outcome.stdout, outcome.stderr);
        }
        assert!(!outcome.stdout.contains("fake") && !outcome.stderr.contains("fake"), "{line} shows a value: {outcome:?}");
    }
}

fn logs_of(project: &Project, service: &str, beginning: &str) {
    Container::named(project.container(service)).line_and_leave(beginning);
}

#[test]
fn the_example_for_docker_secrets_does_what_its_readme_says() {
    for compose in composes() {
        let project = Project::new("docker-secrets", compose);
        follow_the_readme(
            &project,
            &[
                Line("cp ", at_once, &[]),
                Line("docker-compose up", at_once, &[]),
                Line(
                    "docker-compose exec -T api wget",
                    |project| healthy(project, "api"),
                    &["DATABASE_URL 50\nJWT_SECRET_KEY 31\nOPENAI_API_KEY 30\n"],
                ),
                Line(
                    "docker-compose logs worker",
                    |project| logs_of(project, "worker", "working"),
                    &["working as uid 1000 with a database of 50 characters, and the key in /dev/shm/secret-init-0-", "(31 bytes)"],
                ),
                Line("docker-compose exec -T api secret-init", at_once, &["a probe sees 50 characters"]),
                Line("docker-compose down", assert_inspect_shows_paths_alone, &[]),
            ],
        );
    }
}

fn assert_inspect_shows_paths_alone(project: &Project) {
    for service in ["api", "worker"] {
        let inspected = docker_says(["inspect", &project.container(service)]);
        assert!(inspected.contains("DATABASE_URL_FILE=/run/secrets/database_url") && !inspected.contains("fake"), "{inspected}");
    }
}

#[test]
fn the_services_of_the_example_answer_on_their_port_and_stop_by_themselves() {
    let project = Project::new("docker-secrets", composes()[0]);
    project.types("cp ../../target/*/release/secret-init . && docker-compose up --build --detach");
    healthy(&project, "api");
    let address = project.types("docker-compose port api 8080").stdout;
    let url = format!("http://{}/", address.trim());
    let page = host(Command::new("/bin/busybox").args(["wget", "-q", "-O", "-", &url])).finishes();
    assert_eq!(page.succeeds(), "DATABASE_URL 50\nJWT_SECRET_KEY 31\nOPENAI_API_KEY 30\n");
    logs_of(&project, "worker", "working");
    let (api, worker) = (project.container("api"), project.container("worker"));
    project.types("docker-compose stop --timeout 600");
    let code = |container: &str| docker_says(["inspect", "--format", "{{.State.ExitCode}}", container]);
    assert_eq!((code(&api).trim(), code(&worker).trim()), ("143", "0"));
    assert!(docker(["logs", &worker]).stdout.ends_with("done\n"));
}

#[test]
fn a_missing_secret_keeps_a_service_of_the_example_from_starting() {
    let project = Project::new("docker-secrets", composes()[0]);
    let services = fs::read_to_string(root().join("compose-examples/docker-secrets/docker-compose.yml")).unwrap();
    project
        .put("docker-compose.yml", &services.replace("secrets: [database_url, jwt_secret_key, openai_api_key]", "secrets: [database_url]"));
    project.types("cp ../../target/*/release/secret-init . && docker-compose up --build --detach api");
    let container = project.types("docker-compose ps --all --quiet api").stdout.trim().to_owned();
    assert_eq!(docker_says(["wait", &container]).trim(), "66");
    let logs = docker(["logs", &container]).stderr;
    assert!(logs.contains("JWT_SECRET_KEY_FILE: file:/run/secrets/jwt_secret_key: no such file\n"), "{logs}");
    assert!(logs.ends_with("2 of 3 secrets failed; the program was not started\n"), "{logs}");
}

#[test]
fn the_example_for_environment_files_does_what_its_readme_says() {
    for compose in composes() {
        let project = Project::new("dotenv", compose);
        follow_the_readme(
            &project,
            &[
                Line("cp ", at_once, &[]),
                Line("docker-compose up", at_once, &[]),
                Line(
                    "docker-compose logs app",
                    |project| logs_of(project, "app", "JWT_SECRET_KEY"),
                    &["Hello, $USER stays as it is\n", "DATABASE_URL 57\n", "REDIS_URL 50\n", "SENTRY_DSN 45\n", "JWT_SECRET_KEY 31\n"],
                ),
                Line(
                    "docker-compose exec -T app secret-init plan",
                    at_once,
                    &["DATABASE_URL", "REDIS_URL", "dotenv:/run/secrets/shared.env#SENTRY_DSN"],
                ),
                Line("docker-compose exec -T app secret-init check", at_once, &["DATABASE_URL", "REDIS_URL", "SENTRY_DSN"]),
                Line("docker-compose down", |project| healthy(project, "app"), &[]),
            ],
        );
    }
}

#[test]
fn the_example_for_the_configuration_file_does_what_its_readme_says() {
    for compose in composes() {
        let project = Project::new("config-file", compose);
        follow_the_readme(
            &project,
            &[
                Line("cp ", at_once, &[]),
                Line("docker-compose up", at_once, &[]),
                Line(
                    "docker-compose logs app",
                    |project| logs_of(project, "app", "a certificate of 38"),
                    &[
                        "DATABASE_URL 52, DATABASE_USER 3, LOG_FORMAT json\n",
                        "a certificate of 38 and a key of 30 bytes, which belong together: first\n",
                    ],
                ),
                Line(
                    "docker-compose exec -T app secret-init check",
                    at_once,
                    &["DATABASE_URL", "file:/run/secrets/database.json#password", "file tls/tls.key (0400, group tls)"],
                ),
                Line("cp next", at_once, &[]),
                Line("docker-compose exec -T app secret-init write", at_once, &[]),
                Line("docker-compose kill -s HUP app", at_once, &[]),
                Line(
                    "docker-compose logs app",
                    |project| logs_of(project, "app", "a certificate of 53"),
                    &["a certificate of 53 and a key of 45 bytes, which belong together: second\n"],
                ),
                Line("docker-compose down", at_once, &[]),
            ],
        );
    }
}

/// Without the hint that a healthcheck may begin before the start is over.
fn waits_for_the_restart(project: &Project) {
    logs_of(project, "worker", "start: a password of 22");
    eventually("the agent has seen the start", || {
        (project.types("docker-compose exec -T worker secret-init health").code() == 0).then_some(())
    });
}

#[test]
fn the_example_for_rotation_does_what_its_readme_says() {
    for compose in composes() {
        let project = Project::new("rotation", compose);
        follow_the_readme(
            &project,
            &[
                Line("cp ", at_once, &[]),
                Line("docker-compose up", at_once, &[]),
                Line(
                    "docker-compose logs",
                    |project| {
                        logs_of(project, "api", "start:");
                        logs_of(project, "worker", "start:");
                    },
                    &["start: a password of 15 bytes\n", "start: a password of 15 characters\n"],
                ),
                Line("docker-compose exec -T api secret-init plan", at_once, &["file:/run/secrets/db_password", "WATCHED"]),
                Line("cp next", at_once, &[]),
                Line("docker-compose logs api", |project| logs_of(project, "api", "HUP:"), &["HUP: a password of 22 bytes\n"]),
                Line("docker-compose logs worker", waits_for_the_restart, &["start: a password of 22 characters\n"]),
                Line("docker-compose exec -T api secret-init refresh", at_once, &["0 secrets changed, 1 unchanged, 0 failed\n"]),
                Line("docker-compose exec -T worker secret-init health", at_once, &["healthy: 1 secret\n"]),
                Line("docker-compose down", no_container_was_restarted, &[]),
            ],
        );
    }
}

fn no_container_was_restarted(project: &Project) {
    for service in ["api", "worker"] {
        assert_eq!(docker_says(["inspect", "--format", "{{.RestartCount}} {{.State.Running}}", &project.container(service)]), "0 true\n");
    }
}

#[test]
fn the_example_for_vault_does_what_its_readme_says() {
    let image = Image::openbao();
    for compose in composes() {
        let mut project = Project::new("vault", compose);
        project.variables.push(("VAULT_IMAGE", image.name.clone()));
        follow_the_readme(
            &project,
            &[
                Line("cp ", at_once, &[]),
                Line("docker-compose up", at_once, &[]),
                Line("docker-compose run --rm setup kv put", at_once, &["version            1\n"]),
                Line("docker-compose run --rm setup kv put", at_once, &["version            1\n"]),
                Line("docker-compose run --rm setup policy write app", at_once, &["Uploaded policy: app\n"]),
                Line("docker-compose run --rm setup auth enable", at_once, &["Enabled userpass"]),
                Line("docker-compose run --rm setup write auth", at_once, &["Data written"]),
                Line("docker-compose up", at_once, &[]),
                Line(
                    "docker-compose logs app",
                    |project| logs_of(project, "app", "DATABASE_URL"),
                    &["DATABASE_URL 47, JWT_SECRET_KEY_FILE 23, VAULT_PASSWORD unset\n"],
                ),
                Line(
                    "docker-compose exec -T app secret-init check",
                    at_once,
                    &["vault:secret/data/app/database#username  vault  variable DATABASE_URL", "  ok\n"],
                ),
                Line(
                    "docker-compose exec -T app secret-init policy vault",
                    at_once,
                    &["path \"secret/data/app/database\" { capabilities = [\"read\"] }\n"],
                ),
                Line("docker-compose down --volumes", at_once, &[]),
            ],
        );
    }
}

#[test]
fn the_example_for_aws_does_what_its_readme_says() {
    let image = Image::ministack();

    for compose in composes() {
        let mut project = Project::new("aws", compose);
        project.variables.push(("AWS_IMAGE", image.name.clone()));
        follow_the_readme(
            &project,
            &[
                Line("cp ", at_once, &[]),
                Line("docker-compose up", at_once, &[]),
                Line(
                    "docker-compose logs app",
                    |project| logs_of(project, "app", "DATABASE_URL"),
                    &["DATABASE_URL 47, JWT_SECRET_KEY_FILE 23\n"],
                ),
                Line(
                    "docker-compose exec -T app secret-init check",
                    at_once,
                    &["aws-sm:shop/database#username  aws-sm  variable DATABASE_URL", "  ok\n"],
                ),
                Line("docker-compose exec -T app secret-init policy aws", at_once, &[include_str!("../compose-examples/aws/policy.json")]),
                Line("docker-compose down --volumes", at_once, &[]),
            ],
        );
    }
}

#[test]
fn the_examples_for_compose_have_no_value_that_could_be_real() {
    let examples = fs::read_dir(root().join("compose-examples")).unwrap().map(|entry| entry.unwrap().path());
    let folders = examples.flat_map(|example| ["secrets", "next"].map(|name| example.join(name)));
    let files: Vec<_> = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().map(|file| file.unwrap().path()).collect();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.to_lowercase().contains("fake"), "{text}");
    }
    assert_eq!(files.len(), 14);
}

// docs/containers.md.

/// The text of the code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    blocks_of("docs/containers.md", language)
}

fn blocks_of(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_of_the_docs_does_what_it_is_there_for() {
    let (world, base) = (World::new(), Image::base());
    example_context(&world.path);
    let (image, container) = (Image { name: unique() }, Container::named(unique()));
    let tagged = Image { name: format!("{}:static", image.name) };
    // A backslash at the end of a line continues it.
    let script = blocks("sh").concat().replace("\\\n", " ");
    let script = script.replace("myimage", &image.name).replace("mycontainer", &container.name);
    let mut shown = 0;
    for line in script.lines() {
        let outcome = shell(&world.path, &line.replace("docker build", &format!("docker build --build-arg BASE={}", base.name)), &[]);
        assert_eq!(outcome.code(), 0, "{line}: {}", outcome.stderr);
        if line.contains(" myapp") {
            let expected: &[&str] = match line {
                _ if line.contains("URL=") => &["URL has 21 bytes\n"],
                _ if line.contains("tmpfs") => &["DB_PASSWORD_FILE: /run/secret-init/DB_PASSWORD has 7 bytes\n"],
                _ if line.contains("=file:") => &["DB_PASSWORD_FILE: /dev/shm/secret-init-", "/DB_PASSWORD has 7 bytes\n"],
                _ => &["DB_PASSWORD has 6 bytes\n"],
            };
            assert!(expected.iter().all(|text| outcome.stdout.contains(text)), "{line}: {}{}", outcome.stdout, outcome.stderr);
            shown += 1;
        }
    }
    assert_eq!(shown, script.matches(" myapp").count());
    assert!(shown >= 9);
    drop(tagged);
}

#[test]
fn other_snippets_of_the_docs_stand_in_the_examples() {
    let examples = [
        ("docs/containers.md", "dockerfile", "Dockerfile.example"),
        ("docs/containers.md", "yaml", "compose-examples/dotenv/docker-compose.yml"),
        ("docs/pid1.md", "dockerfile", "Dockerfile.example"),
    ];
    for (page, language, example) in examples {
        let example = fs::read_to_string(root().join(example)).unwrap();
        for line in blocks_of(page, language)[0].lines() {
            assert!(example.lines().any(|there| there == line), "{line}");
        }
    }
}

#[test]
fn the_init_container_of_the_docs_leaves_files_for_a_program_that_knows_nothing() {
    let pod = &blocks("yaml")[1];
    let (path, value) = ("/secrets", "postgresql://app:${file:/etc/secrets/password | trim | urlencode}@db/app");
    for text in [
        "command: [\"secret-init\", \"write\", \"--dir\", \"/secrets\"]".to_owned(),
        format!("{{ name: DATABASE_URL_FILE, value: \"{value}\" }}"),
        format!("mountPath: {path} }}"),
        "{ name: DATABASE_URL_FILE, value: /secrets/DATABASE_URL }".to_owned(),
    ] {
        assert!(pod.contains(&text), "{text}");
    }
    let (image, world) = (Image::of_the_example(), World::new());
    // An emptyDir in memory: a tmpfs that all can write to, held by the pod.
    let volume = Volume::in_memory();
    let mount = format!("--volume {}:{path}", volume.name);
    let pod = image.run().options(&mount).shell("echo ready; exec sleep 9999").starts();
    pod.line("ready");
    let password = world.file("password", "p@ss\n");
    let init = image
        .run()
        .options(&format!(
            "{mount} --read-only --cap-drop ALL --entrypoint secret-init --volume {}:/etc/secrets/password:ro",
            password.display()
        ))
        .variable("DATABASE_URL_FILE", value)
        .variable("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .program(["write", "--dir", "/secrets"])
        .finishes();
    assert_eq!((init.code(), init.stderr.as_str()), (0, "secret-init: warning: /secrets: others can write to it (owner 0, mode 1777)\n"));
    let app = Image::base().run().options(&format!("{mount}:ro --user 1000:1000 --env DATABASE_URL_FILE=/secrets/DATABASE_URL"));
    assert_eq!(
        app.shell("cat $DATABASE_URL_FILE; stat -c ' %a' $DATABASE_URL_FILE").finishes().succeeds(),
        "postgresql://app:p%40ss@db/app 400\n"
    );
}

struct Volume {
    name: String,
}

impl Volume {
    fn in_memory() -> Self {
        let name = unique();
        docker_says(["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=mode=1777", &name]);
        Self { name }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = docker(["volume", "rm", "--force", &self.name]);
    }
}

#[test]
fn in_a_pod_the_shared_memory_of_all_its_containers_is_not_taken() {
    let (image, world) = (Image::of_the_example(), World::new());
    let outcome = with_two_secrets(&image, &world).variable("KUBERNETES_SERVICE_HOST", "10.0.0.1").finishes();
    outcome.fails(
        73,
        &[
            "/run/secret-init: /run is not in memory",
            "hint: add to the pod volumes: [{name: secrets, emptyDir: {medium: Memory}}], and to the container volumeMounts: [{name: secrets, mountPath: /run/secret-init}]",
            "the program was not started",
        ],
    );
}
