//! Who holds a secret: never PID 1, never a message, never a core; and nobody of the same user may look.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "to look into another process's descriptors without taking anything from them")]

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use support::canary::Canary;
use support::servers::faults::{Answer, Faults};
use support::servers::openbao::OpenBao;
use support::servers::tls::{self, Authority};
use support::{Running, Start, World, binary, children, eventually, pidfd, send, status_field};

/// Copies all that can be seen of a process into a directory: each readable mapping, `environ`, `cmdline`, and what its descriptors hold. Nothing is taken out of a
/// pipe or a socket.
fn dump(world: &World, pid: i32) -> PathBuf {
    let directory = world.path.join(format!("dump-{pid}"));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).unwrap();
    for name in ["environ", "cmdline", "maps"] {
        fs::write(directory.join(name), fs::read(format!("/proc/{pid}/{name}")).unwrap()).unwrap();
    }
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (from, to) = words[0].split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // The kernel's own pages are not memory of the process.
        if words[1].starts_with('r') && !matches!(words.get(5), Some(&("[vvar]" | "[vvar_vclock]" | "[vsyscall]"))) {
            memory.seek(SeekFrom::Start(from)).unwrap();
            memory.read_exact(&mut bytes).unwrap_or_else(|error| panic!("{line}: {error}"));
            fs::write(directory.join(format!("memory-{from:x}")), bytes).unwrap();
        }
    }
    let process = pidfd(pid);
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let number: i32 = entry.unwrap().file_name().into_string().unwrap().parse().unwrap();
        // A process that has just begun opens and closes the libraries of its program.
        let Ok(metadata) = fs::metadata(format!("/proc/{pid}/fd/{number}")) else { continue };
        let kind = metadata.file_type();
        let mut bytes = vec![0; 1 << 20];
        // SAFETY: pidfd_getfd(2) gives a new descriptor, which nothing else owns.
        let copy = unsafe {
            let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
            assert!(copy >= 0, "{}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(i32::try_from(copy).unwrap())
        };
        let (room, at) = (bytes.len(), bytes.as_mut_ptr().cast());
        // SAFETY: each call writes at most `room` bytes into a buffer of that size.
        let length = unsafe {
            if kind.is_fifo() {
                // What tee(2) shows stays in the pipe; the other end of ours takes the copy.
                let (out, into) = std::io::pipe().unwrap();
                let shown = libc::tee(copy.as_raw_fd(), into.as_raw_fd(), room, libc::SPLICE_F_NONBLOCK);
                if shown > 0 { libc::read(out.as_raw_fd(), at, room) } else { 0 }
            } else if kind.is_socket() {
                libc::recv(copy.as_raw_fd(), at, room, libc::MSG_PEEK | libc::MSG_DONTWAIT)
            } else if kind.is_file() {
                libc::pread(copy.as_raw_fd(), at, room, 0)
            } else {
                0
            }
        };
        bytes.truncate(usize::try_from(length).unwrap_or(0));
        fs::write(directory.join(format!("descriptor-{number}")), bytes).unwrap();
    }
    directory
}

#[test]
fn the_scan_sees_what_waits_in_a_pipe_and_in_a_socket_and_takes_none_of_it() {
    let (world, canary) = (World::new(), Canary::new());
    let (out, mut into) = std::io::pipe().unwrap();
    into.write_all(canary.0.as_bytes()).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(canary.0.as_bytes()).unwrap();
    let file = fs::File::open(world.file("open", &canary.0)).unwrap();
    let mut holder = Command::new("sleep");
    let holder = holder.arg("infinity").stdin(out).stdout(OwnedFd::from(theirs)).stderr(file).spawn();
    let mut holder = holder.unwrap();
    for _ in 0..2 {
        let dump = dump(&world, i32::try_from(holder.id()).unwrap());
        let seen = [0, 1, 2].map(|number| fs::read_to_string(dump.join(format!("descriptor-{number}"))).unwrap());
        assert_eq!(seen, [canary.0.as_str(); 3]);
        assert_eq!(canary.found_in(&world, &dump).lines().count(), 3);
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// One secret on each way on which secret-init gets and delivers them, each with a text of its own.
struct Secrets {
    world: World,
    canaries: Vec<(&'static str, Canary)>,
}

impl Secrets {
    const WAYS: [&str; 12] = [
        "a file",
        "a key",
        "a text",
        "a literal",
        "a default",
        "an environment file",
        "a credential",
        "a plain variable",
        "delivered as file",
        "a text of the configuration",
        "a secret with a name",
        "delivered in a group",
    ];

    fn new() -> Self {
        Self { world: World::new(), canaries: Self::WAYS.map(|way| (way, Canary::new())).into() }
    }

    fn value(&self, way: &str) -> &str {
        &self.canaries.iter().find(|(name, _)| *name == way).unwrap().1.0
    }

    /// A start with all of them. The program takes the one that comes as a file into its memory, and says that it runs.
    fn start(&self) -> Start {
        let file = |name: &str, way: &str| self.world.file(name, self.value(way)).display().to_string();
        let json = self.world.file("json", format!(r#"{{"key": "{}"}}"#, self.value("a key"))).display().to_string();
        file("credentials/c", "a credential");
        let environment = self.world.file("env", format!("T_ENV='{}'\n", self.value("an environment file")));
        let config = format!(
            "secrets: {{ named: 'file:{}' }}\nenv: {{ T_TEXT_OF_CONFIG: '{}', T_NAMED: '${{named}}' }}\nfiles: [{{ path: g/x, group: g, from: 'file:{}' }}]\n",
            file("n", "a secret with a name"),
            self.value("a text of the configuration"),
            file("g", "delivered in a group"),
        );
        self.world
            .secret_init()
            .flag("--env-file")
            .flag(environment)
            .flag("--config")
            .flag(self.world.file("config", config))
            .directory(self.world.directory())
            .variable("CREDENTIALS_DIRECTORY", self.world.path.join("credentials"))
            .variable("T_FILE_FILE", file("a", "a file"))
            .variable("T_KEY", format!("${{file:{json}#key}}"))
            .variable("T_TEXT", format!("before ${{file:{}}} after", file("t", "a text")))
            .variable("T_LITERAL", format!("literal:{}", self.value("a literal")))
            .variable("T_DEFAULT", format!("${{file:/none?default={}}}", self.value("a default")))
            .variable("T_CRED", "cred:c")
            .variable("T_PLAIN", self.value("a plain variable"))
            .variable("T_DELIVERED_FILE", format!("file:{}", file("d", "delivered as file")))
            .shell("secret=$(cat $T_DELIVERED_FILE) other=$(cat $SECRET_INIT_DIR/g/x); echo runs; read line; exit 7")
            .listens()
    }

    /// No form of any of them is in the process.
    #[track_caller]
    fn are_not_in(&self, pid: i32) {
        let dump = dump(&self.world, pid);
        assert!(fs::read_dir(&dump).unwrap().count() > 8);
        for (way, canary) in &self.canaries {
            assert_eq!(canary.found_in(&self.world, &dump), "", "{way}");
        }
    }

    /// The same scan finds each of them in the process.
    #[track_caller]
    fn are_in(&self, pid: i32) {
        let dump = dump(&self.world, pid);
        for (way, canary) in &self.canaries {
            assert!(canary.found_in(&self.world, &dump).contains("raw"), "{way}");
        }
    }
}

fn stop(pid: i32) {
    send(pid, libc::SIGSTOP);
    eventually("the process is stopped", || status_field(pid, "State").starts_with('T').then_some(()));
}

/// The supervisor and the runner of a start that a tracer holds: descendants that are still our binary.
fn supervisor_and_runner(tracer: i32) -> (i32, i32) {
    let ours = binary().canonicalize().unwrap();
    let is_ours = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == ours);
    let mut below = children(tracer);
    while let Some(pid) = below.pop() {
        match children(pid).first() {
            Some(&runner) if is_ours(pid) && is_ours(runner) => return (pid, runner),
            _ => below.extend(children(pid)),
        }
    }
    panic!("no supervisor with a runner below {tracer}");
}

/// Holds the runner on entry of a system call that it alone makes, by a stop that the tracer injects.
fn held_at(secrets: &Secrets, start: &Start, call: &str) -> Running {
    let trace = secrets.world.path.join("trace");
    let inject = format!("inject={call}:signal=STOP:when=2");
    let words = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=openat2,fchmod", "-e", &inject];
    let running = start.clone().around(&words).spawn();
    eventually("the runner is held", || fs::read_to_string(&trace).ok()?.contains("stopped by SIGSTOP").then_some(()));
    running
}

#[test]
fn pid_1_holds_no_secret_while_the_runner_reads_and_delivers_them() {
    // The second file that is read is the first secret. At the second mode all are read, the environment is made, and a file is written.
    for (call, has_all) in [("openat2", false), ("fchmod", true)] {
        let secrets = Secrets::new();
        let mut running = held_at(&secrets, &secrets.start().as_pid_1(), call);
        let (supervisor, runner) = supervisor_and_runner(running.pid());
        assert_eq!(status_field(supervisor, "NSpid").split_whitespace().last(), Some("1"));
        eventually("the supervisor's environment is overwritten", || {
            fs::read(format!("/proc/{supervisor}/environ")).unwrap().iter().all(|&byte| byte == 0).then_some(())
        });
        secrets.are_not_in(supervisor);
        if has_all {
            secrets.are_in(runner);
        }
        send(runner, libc::SIGCONT);
        running.line("runs");
        secrets.are_not_in(supervisor);
        running.say("end");
        assert_eq!(running.finishes().code(), 7);
    }
}

#[test]
fn pid_1_holds_no_secret_while_the_program_runs_and_when_it_has_ended() {
    let secrets = Secrets::new();
    let mut running = secrets.start().as_pid_1().spawn();
    running.line("runs");
    let supervisor = running.pid_1();
    stop(supervisor);
    secrets.are_not_in(supervisor);
    let program = children(supervisor)[0];
    secrets.are_in(program);
    running.say("end");
    eventually("the program ended", || status_field(program, "State").starts_with('Z').then_some(()));
    secrets.are_not_in(supervisor);
    send(supervisor, libc::SIGCONT);
    assert_eq!(running.finishes().code(), 7);
}

#[test]
fn the_supervisor_of_another_user_s_program_holds_no_secret_either() {
    let secrets = Secrets::new();
    let mut running = secrets.start().flag("--user=4242:4343").spawn();
    running.line("runs");
    secrets.are_not_in(running.pid());
    secrets.are_in(children(running.pid())[0]);
    running.say("end");
    assert_eq!(running.finishes().code(), 7);
}

#[test]
fn pid_1_holds_no_secret_while_they_are_watched_nor_after_a_change_nor_when_the_agent_has_died() {
    const PROGRAM: &str = "import os, time\nheld = []\nwhile True:\n    held = [open(os.environ['A_FILE']).read(), os.environ['B']]\n    print('holds', len(held[0]), flush=True)\n    input()\n";
    let (world, canaries) = (World::new(), [(); 4].map(|()| Canary::new()));
    let file = world.file("a", &canaries[0].0);
    let literal = format!("${{file:{}}}", world.file("b", &canaries[3].0).display());
    let start = world.secret_init().flag("--watch").directory(world.directory()).variable("B", literal);
    let start = start.variable("A_FILE", format!("file:{}", file.display())).program(["python3", "-c", PROGRAM]);
    let mut running = start.listens().as_pid_1().spawn();
    running.line("holds");
    let supervisor = running.pid_1();
    let looked_for = |canary: &Canary, pid: i32| canary.found_in(&world, &dump(&world, pid));
    let mut check = |canary: &Canary| {
        running.say("");
        running.line("holds");
        let program = support::watched::program(supervisor);
        assert!(looked_for(canary, program).contains("raw"));
        stop(supervisor);
        for canary in &canaries {
            assert_eq!(looked_for(canary, supervisor), "");
        }
        send(supervisor, libc::SIGCONT);
    };
    let _ = support::watched::agent(supervisor);
    check(&canaries[0]);
    support::watched::replace(&file, &canaries[1].0);
    eventually("it is in place", || (fs::read_to_string(world.directory().join("A")).unwrap() == canaries[1].0).then_some(()));
    check(&canaries[1]);
    let old = support::watched::agent(supervisor);
    send(old, libc::SIGKILL);
    eventually("another takes its place", || (support::watched::agent(supervisor) != old).then_some(()));
    check(&canaries[3]);
    support::watched::replace(&file, &canaries[2].0);
    eventually("it is in place", || (fs::read_to_string(world.directory().join("A")).unwrap() == canaries[2].0).then_some(()));
    check(&canaries[2]);
}

// Others of the same user.

const TO_READ: [&str; 5] = ["environ", "mem", "maps", "fd", "auxv"];

/// Which of the process's files a process of user 1000 can open.
fn readable_by_the_same_user(pid: i32) -> Vec<&'static str> {
    let opens = |name: &&str| {
        let path = format!("/proc/{pid}/{name}");
        let open = "import os, sys; os.open(sys.argv[1], os.O_RDONLY)";
        let user = ["--reuid=1000", "--regid=1000", "--clear-groups", "/usr/bin/python3", "-c", open];
        let output = Command::new("setpriv").args(user).arg(path).output().unwrap();
        let is_refused = String::from_utf8_lossy(&output.stderr).contains("PermissionError");
        assert!(output.status.success() != is_refused, "{output:?}");
        !is_refused
    };
    TO_READ.into_iter().filter(opens).collect()
}

fn started_as_a_user(secrets: &Secrets) -> Start {
    std::os::unix::fs::chown(secrets.world.directory(), Some(1000), Some(1000)).unwrap();
    secrets.start().as_user(1000)
}

#[test]
fn no_process_of_the_same_user_can_look_into_ours() {
    let secrets = Secrets::new();
    let mut running = held_at(&secrets, &started_as_a_user(&secrets), "fchmod");
    let (supervisor, runner) = supervisor_and_runner(running.pid());
    assert_eq!(readable_by_the_same_user(supervisor), [""; 0]);
    assert_eq!(readable_by_the_same_user(runner), [""; 0]);
    send(runner, libc::SIGCONT);
    running.line("runs");
    assert_eq!(readable_by_the_same_user(supervisor), [""; 0]);
    // The tracer is root's, and its tracee is not: without it, the program is as open as any.
    drop(running);
    let secrets = Secrets::new();
    let mut running = started_as_a_user(&secrets).spawn();
    running.line("runs");
    assert_eq!(readable_by_the_same_user(running.pid()), [""; 0]);
    assert_eq!(readable_by_the_same_user(children(running.pid())[0]), TO_READ);
}

// Secrets of a store that is asked over a network.

/// A store over TLS, what a start needs to log in to it, and what it gives: each a text of its own.
struct Remote {
    world: World,
    canaries: Vec<(&'static str, Canary)>,
    authority: Authority,
}

impl Remote {
    const ALL: [&str; 6] = ["secret id", "token", "a variable", "a file", "not asked for", "a plain variable"];

    fn new() -> Self {
        Self { world: World::new(), canaries: Self::ALL.map(|name| (name, Canary::new())).into(), authority: tls::authority() }
    }

    fn value(&self, name: &str) -> &str {
        &self.canaries.iter().find(|(own, _)| *own == name).unwrap().1.0
    }

    /// Asks for a login first. The second secret is answered when nobody holds the other end any more.
    fn server(&self, hold: Option<Receiver<()>>) -> Faults {
        let login = Answer::json(&json!({"auth": {"client_token": self.value("token")}}));
        let secret = |key: &str, name: &str| {
            let data = json!({key: self.value(name), "other": self.value("not asked for")});
            Answer::json(&json!({"data": {"data": data, "metadata": {"version": 1}}}))
        };
        let (variable, file) = (secret("k", "a variable"), secret("f", "a file"));
        let (token, hold) = (self.value("token").to_owned(), hold.map(Mutex::new));
        Faults::tls(&self.authority.server(), move |request, _| match request.path.as_str() {
            "/v1/auth/approle/login" => login.clone(),
            _ if request.header("x-vault-token") != Some(&token) => Answer::errors(403, &[]),
            "/v1/secret/data/variable" => variable.clone(),
            _ => {
                if let Some(hold) = &hold {
                    let _ = hold.lock().unwrap().recv();
                }
                file.clone()
            }
        })
    }

    /// The program takes the file into its memory, and says that it runs.
    fn start(&self, server: &Faults) -> Start {
        let start = self.world.secret_init().directory(self.world.directory()).variable("VAULT_ADDR", &server.address);
        let start = start.variable("VAULT_CACERT", &self.authority.ca).variable("VAULT_ROLE_ID", "app");
        let start = start.variable("VAULT_SECRET_ID", self.value("secret id")).variable("T_PLAIN", self.value("a plain variable"));
        let start = start.variable("T_K", "vault:secret/data/variable#k").variable("T_F_FILE", "vault:secret/data/with/a/file#f");
        start.shell("secret=$(cat $T_F_FILE); echo runs; read line; exit 7").listens()
    }

    /// Which of them are in a process, in any form.
    fn found_in(&self, pid: i32) -> Vec<&'static str> {
        let dump = dump(&self.world, pid);
        assert!(fs::read_dir(&dump).unwrap().count() > 8);
        self.canaries.iter().filter(|(_, canary)| !canary.found_in(&self.world, &dump).is_empty()).map(|(name, _)| *name).collect()
    }
}

const DELIVERED: [&str; 3] = ["a variable", "a file", "a plain variable"];

#[test]
fn pid_1_holds_no_secret_and_no_login_while_a_store_is_asked() {
    let remote = Remote::new();
    let (go_on, hold) = channel();
    let server = remote.server(Some(hold));
    let mut running = remote.start(&server).as_pid_1().spawn();
    // The login, the first secret, and the one that is held.
    eventually("the last secret is asked for", || (server.requests().len() == 3).then_some(()));
    let supervisor = running.pid_1();
    eventually("the supervisor's environment is overwritten", || {
        fs::read(format!("/proc/{supervisor}/environ")).unwrap().iter().all(|&byte| byte == 0).then_some(())
    });
    let agent = children(supervisor)[0];
    assert_eq!(remote.found_in(supervisor), [""; 0]);
    // All of an answer is there until the end.
    assert_eq!(remote.found_in(agent), ["secret id", "token", "a variable", "not asked for", "a plain variable"]);
    drop(go_on);
    running.line("runs");
    assert_eq!(remote.found_in(supervisor), [""; 0]);
    running.say("end");
    assert_eq!(running.finishes().code(), 7);
}

#[test]
fn once_the_program_runs_it_alone_has_what_was_delivered_and_nobody_has_the_login() {
    let remote = Remote::new();
    let server = remote.server(None);
    for start in [remote.start(&server), remote.start(&server).as_pid_1(), remote.start(&server).flag("--user=4242:4343")] {
        let mut running = start.spawn();
        running.line("runs");
        let supervisor = eventually("secret-init runs", || {
            let below = children(running.pid()).into_iter().chain([running.pid()]);
            below.into_iter().find(|&pid| support::is_ours(pid))
        });
        let program = eventually("the program is all that runs besides", || match children(supervisor)[..] {
            [program] => Some(program),
            _ => None,
        });
        stop(supervisor);
        assert_eq!(remote.found_in(supervisor), [""; 0]);
        assert_eq!(remote.found_in(program), DELIVERED);
        running.say("end");
        eventually("the program ended", || status_field(program, "State").starts_with('Z').then_some(()));
        assert_eq!(remote.found_in(supervisor), [""; 0]);
        send(supervisor, libc::SIGCONT);
        assert_eq!(running.finishes().code(), 7);
    }
}

#[test]
fn in_exec_mode_the_program_has_what_was_delivered_and_nothing_else_is_left() {
    let remote = Remote::new();
    let server = remote.server(None);
    let mut running = remote.start(&server).flag("--exec").spawn();
    running.line("runs");
    assert_eq!(remote.found_in(running.pid()), DELIVERED);
    assert_eq!(children(running.pid()), [0; 0]);
    running.say("end");
    assert_eq!(running.finishes().code(), 7);
}

#[test]
fn the_same_holds_with_a_real_openbao() {
    let bao = OpenBao::start();
    let mut remote = Remote::new();
    bao.kv("app", &json!({"k": remote.value("a variable"), "f": remote.value("a file"), "other": remote.value("not asked for")}));
    bao.policy("app", "path \"secret/data/app\" { capabilities = [\"read\"] }");
    bao.auth("approle", "approle");
    bao.succeeds("POST", "auth/approle/role/app", &json!({"token_policies": ["app"]}));
    bao.succeeds("POST", "auth/approle/role/app/role-id", &json!({"role_id": "app"}));
    bao.succeeds("POST", "auth/approle/role/app/custom-secret-id", &json!({"secret_id": remote.value("secret id")}));
    // What a login gives is its own.
    let token =
        bao.succeeds("POST", "auth/token/create", &json!({"policies": ["app"]}))["auth"]["client_token"].as_str().unwrap().to_owned();
    remote.canaries.iter_mut().find(|(name, _)| *name == "token").unwrap().1 = Canary(token);
    let token = remote.world.file("token", remote.value("token"));
    let start = |remote: &Remote| {
        let start =
            bao.told(remote.world.secret_init()).directory(remote.world.directory()).variable("T_PLAIN", remote.value("a plain variable"));
        let start = start.variable("T_K", "vault:secret/data/app#k").variable("T_F_FILE", "vault:secret/data/app#f");
        start.shell("secret=$(cat $T_F_FILE); echo runs; read line; exit 7").listens()
    };
    let by_role = start(&remote).variable("VAULT_ROLE_ID", "app").variable("VAULT_SECRET_ID", remote.value("secret id"));
    for start in [by_role, start(&remote).variable("VAULT_TOKEN_FILE", token)] {
        let mut running = start.clone().as_pid_1().spawn();
        running.line("runs");
        let supervisor = running.pid_1();
        let program = eventually("the program is all that runs besides", || Some(children(supervisor)).filter(|all| all.len() == 1))[0];
        assert_eq!(remote.found_in(supervisor), [""; 0]);
        assert_eq!(remote.found_in(program), DELIVERED);
        running.say("end");
        assert_eq!(running.finishes().code(), 7);

        let mut running = start.flag("--exec").spawn();
        running.line("runs");
        assert_eq!(remote.found_in(running.pid()), DELIVERED);
        running.say("end");
        assert_eq!(running.finishes().code(), 7);
    }
}

#[test]
fn no_process_of_the_same_user_can_look_into_the_one_that_asks() {
    let remote = Remote::new();
    let (go_on, hold) = channel();
    let server = remote.server(Some(hold));
    std::os::unix::fs::chown(remote.world.directory(), Some(1000), Some(1000)).unwrap();
    let mut running = remote.start(&server).as_user(1000).spawn();
    eventually("the last secret is asked for", || (server.requests().len() == 3).then_some(()));
    let agent = children(running.pid())[0];
    assert_eq!(readable_by_the_same_user(running.pid()), [""; 0]);
    assert_eq!(readable_by_the_same_user(agent), [""; 0]);
    drop(go_on);
    running.line("runs");
    assert_eq!(readable_by_the_same_user(running.pid()), [""; 0]);
}

// Cores.

/// How the processes of a start end when a fault is injected, as the tracer tells.
fn ends_by_a_fault(world: &World, start: Start, inject: &str) -> String {
    let trace = world.path.join("trace");
    let inject = format!("inject={inject}:signal=SEGV");
    let limit = ["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"];
    let traced = start.under(["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=renameat,uname", "-e", &inject]);
    // The core, if any, goes where the process is.
    traced.in_directory(&world.path).around(&limit).finishes();
    fs::read_to_string(trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains("killed by"))
        .map(|line| line.split_once(' ').unwrap().1.trim().to_owned() + "\n")
        .collect()
}

#[test]
fn a_fault_of_ours_leaves_no_core_and_one_of_the_program_does() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", "literal:x");
    for mode in ["--group", "--exec"] {
        // A file that is right already would not be renamed.
        let _ = fs::remove_file(world.directory().join("T_A"));
        // All signals are blocked until the program starts: it comes just before, when all secrets are there.
        let ends = ends_by_a_fault(&world, start.clone().flag(mode).program(["true"]), "renameat");
        assert_eq!(ends, "+++ killed by SIGSEGV +++\n", "{mode}");
        let ends = ends_by_a_fault(&world, start.clone().flag(mode).shell("kill -SEGV $$"), "uname");
        assert_eq!(ends, "+++ killed by SIGSEGV (core dumped) +++\n", "{mode}");
    }
    let _ = fs::remove_file(world.directory().join("T_A"));
    assert_eq!(ends_by_a_fault(&world, start.flag("write"), "renameat"), "+++ killed by SIGSEGV +++\n");
}

// Messages.

/// A start, its exit code, and what it is called in a failed test.
struct Case(&'static str, i32, Start);

/// Every kind of failure, with the canary wherever a secret can be.
#[allow(clippy::too_many_lines, reason = "a table")]
fn failures(world: &World, canary: &str) -> Vec<Case> {
    let file = |name: &str, content: &[u8]| world.file(name, content).display().to_string();
    let whole = file("whole", canary.as_bytes());
    let json = file("json", format!(r#"{{"{canary}": 1, "a": "{canary}", "d": "{canary}", "d": "{canary}", "n": null}}"#).as_bytes());
    let broken_json = file("broken", format!(r#"{{"a": "{canary}", "{canary}"#).as_bytes());
    let wrong_json = file("wrong", format!(r#""{canary}""#).as_bytes());
    let nul = file("nul", format!("{canary}\0{canary}").as_bytes());
    let latin = file("latin", &[canary.as_bytes(), b"\xff", canary.as_bytes()].concat());
    let long = file("long", canary.repeat(4000).as_bytes());
    let large = file("large", canary.repeat(40_000).as_bytes());
    let medium = file("medium", canary.repeat(3000).as_bytes());
    let environment = file("env", format!("T_ENV='{canary}'\nT_PLAIN=other{canary}\n").as_bytes());
    let broken_environment = file("broken.env", format!("T_ENV='{canary}'\n{canary} = {canary} = x\n\"{canary}\n").as_bytes());
    let open_quote = file("quote.env", format!("T_ENV=\"{canary}\n").as_bytes());
    let secret = file("secret", canary.as_bytes());
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let script = world.script("script", "no shebang\n").display().to_string();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR")).join("canary").display().to_string();

    // In each start the other ways to deliver hold the canary too.
    let start = || {
        let start = world.secret_init().flag("--log-level=info").directory(world.directory());
        let start = start.variable("T_PLAIN", canary).variable("T_WHOLE_FILE", &whole).variable("T_LITERAL", format!("literal:{canary}"));
        start.variable("T_DELIVERED_FILE", format!("file:{whole}")).variable("T_DEFAULT", format!("${{file:/none?default={canary}}}"))
    };
    let bad = |value: String| start().variable("T_BAD", value).program(["true"]);
    let bad_file = |value: &str| start().variable("T_BAD_FILE", value).program(["true"]);
    let strict = |start: Start| start.flag("--strict").program(["true"]);
    let stack = ["sh", "-c", "ulimit -s 256; exec \"$@\"", "sh"];
    let configured = |name: &str, text: String| start().flag("--config").flag(file(name, text.as_bytes())).program(["true"]);
    let good = format!(
        "secrets: {{ a: 'literal:{canary}' }}\nenv: {{ T_C: '{canary}${{a}}', T_D: '${{a | base64}}' }}\nfiles: [{{ path: x, from: '{canary}${{a}}' }}]\n"
    );
    vec![
        Case("all is well, by a configuration", 0, configured("good", good)),
        Case("a configuration that is no YAML", 78, configured("syntax", format!("env: {{ A: {canary}, '{canary}\n"))),
        Case("a character that YAML does not know", 78, configured("character", format!("{canary}: @{canary}\n"))),
        Case("a configuration that is a text", 78, configured("top", canary.to_owned())),
        Case(
            "unknown keys",
            78,
            configured("keys", format!("{canary}: {canary}\nfiles: [{{ {canary}: {canary} }}]\nrotation: {{ {canary}: 1 }}\n")),
        ),
        Case(
            "values of other kinds",
            78,
            configured(
                "kinds",
                format!("stores: {canary}\nsecrets: {canary}\nenv: [{canary}]\nfiles: {{ {canary}: {canary} }}\nrotation: [{canary}]\n"),
            ),
        ),
        Case(
            "values that cannot be read",
            78,
            configured(
                "values",
                format!(
                    "stores: {{ vault: {{ address: '{canary}', auth: {{ method: '{canary}' }} }} }}\nsecrets: {{ a: '{canary}', b: 'file:{canary}', '{canary}': x }}\n\
                     files: [{{ path: '{canary}', from: 'file:/x', mode: '{canary}', owner: '{canary}:a:b', group: '{canary}' }}]\nrotation: {{ refresh: '{canary}', on_change: '{canary}', splay: '{canary}', validate: '{canary}' }}\n"
                ),
            ),
        ),
        Case(
            "references that are wrong, in a configuration",
            78,
            configured(
                "references",
                format!(
                    "env: {{ T_C: '${{file:/x?nope={canary}}}', T_D: '{canary}${{file:/x', T_E: 'pass:{canary}', T_F: '${{literal:x | {canary}}}' }}\n"
                ),
            ),
        ),
        Case("a file without a reference", 78, configured("plain", format!("files: [{{ path: x, from: '{canary}' }}]\n"))),
        Case("keys that stand twice", 78, configured("twice", format!("env: {{ T_C: '{canary}', T_C: '{canary}' }}\n"))),
        Case(
            "an alias and a tag",
            78,
            configured("alias", format!("env: {{ T_C: &{canary} '{canary}', T_D: *{canary}, T_E: !{canary} '{canary}' }}\n")),
        ),
        Case("a configuration that is not UTF-8", 78, start().flag("--config").flag(&latin).program(["true"])),
        Case("a configuration that is too large", 78, start().flag("--config").flag(&large).program(["true"])),
        Case("a configuration that loses to the container", 0, configured("loses", format!("env: {{ T_PLAIN: 'x{canary}' }}\n"))),
        Case(
            "an owner that is not there",
            78,
            configured("owner", "files: [{ path: x, from: 'literal:x', owner: nobody-here }]\n".to_owned()),
        ),
        Case("all is well", 0, start().program(["true"])),
        Case(
            "all is well, by write",
            0,
            world
                .secret_init()
                .flag("write")
                .flag("--log-level=info")
                .directory(world.directory())
                .variable("T_A_FILE", format!("file:{whole}")),
        ),
        Case("plan", 0, start().flag("plan")),
        Case("check", 0, start().flag("check")),
        Case("help", 0, start().flag("--help")),
        Case("a program's own failure", 7, start().shell("exit 7")),
        Case("a program that is killed", 128 + libc::SIGKILL, start().shell("kill -KILL $$")),
        Case("a missing file", 66, bad_file("/none")),
        Case("a missing key", 66, bad(format!("{canary}${{file:{json}#b}}{canary}"))),
        Case("a missing key in a check", 66, start().flag("check").variable("T_BAD", format!("${{file:{json}#b}}"))),
        Case("a key with null", 66, bad(format!("${{file:{json}#n}}"))),
        Case("a missing variable in a file", 66, bad(format!("dotenv:{environment}#NONE"))),
        Case("a missing credential", 66, bad("cred:none".to_owned())),
        Case("a key that stands twice", 65, bad(format!("${{file:{json}#d}}"))),
        Case("a pointer through a text", 65, bad(format!("${{file:{json}#/a/b}}"))),
        Case("no JSON", 65, bad(format!("${{file:{whole}#a}}"))),
        Case("broken JSON", 65, bad(format!("${{file:{broken_json}#a}}"))),
        Case("JSON of another kind", 65, bad(format!("${{file:{wrong_json}#a}}"))),
        Case("JSON of another kind, by a pointer", 65, bad(format!("${{file:{wrong_json}#/a}}"))),
        Case("no base64", 65, bad(format!("${{file:{whole}?decode=base64}}"))),
        Case("no base64 for a filter", 65, bad(format!("${{literal:{canary} | base64decode}}"))),
        Case("no UTF-8 for a filter", 65, bad(format!("${{file:{latin} | json}}"))),
        Case("no UTF-8 and a key", 65, bad(format!("${{file:{latin}#a}}"))),
        Case("a NUL", 65, bad_file(&nul)),
        Case("a value that is too long", 65, bad_file(&long)),
        Case("a file that is too large", 65, bad_file(&large)),
        Case("an environment that is too large", 65, bad_file(&medium).variable("T_MORE_FILE", &medium).around(&stack)),
        Case("an environment file's value wins over nothing", 0, start().flag("--env-file").flag(&environment).program(["true"])),
        Case("an environment file's value, strictly", 78, strict(start().flag("--env-file").flag(&environment))),
        Case("a broken environment file", 65, start().flag("--env-file").flag(&broken_environment).program(["true"])),
        Case("a quote that stays open", 65, start().flag("--env-file").flag(&open_quote).program(["true"])),
        Case("a broken file of variables", 65, bad(format!("dotenv:{broken_environment}#T_ENV"))),
        Case(
            "a file of another user",
            77,
            world
                .secret_init()
                .as_user(1000)
                .flag("--log-level=info")
                .variable("T_PLAIN", canary)
                .variable("T_A_FILE", &secret)
                .program(["true"]),
        ),
        Case("a directory on disk", 73, start().flag("--dir").flag(&disk).program(["true"])),
        Case("a brace that stays open", 78, bad(format!("{canary}${{file:/x"))),
        Case("an unknown option", 78, bad(format!("${{file:/x?default={canary}&nope={canary}}}"))),
        Case("a password that begins like a reference with an option", 78, bad(format!("pass:hello?{canary}=x"))),
        Case("a text that begins like a reference with an option", 78, bad(format!("${{vault:hello?{canary}=x#y}}"))),
        Case("the name of an option", 78, bad(format!("${{file:/x?{canary}=x}}"))),
        Case("an option that is given twice", 78, bad(format!("${{file:/x?default={canary}&default={canary}}}"))),
        Case("a wrong number", 78, bad(format!("${{file:/x?default={canary}&refresh=soon}}"))),
        Case("a broken percent sign in a default", 78, bad(format!("${{file:/x?default={canary}%zz}}"))),
        Case("an empty selector", 78, bad(format!("${{file:/x?default={canary}#}}"))),
        Case("an option after the selector", 78, bad(format!("${{file:/x#a?default={canary}}}"))),
        Case("a relative path", 78, bad(format!("${{file:x?default={canary}}}"))),
        Case("a brace that stays open after a literal", 78, bad(format!("${{literal:{canary}"))),
        Case("a bar in a literal", 78, bad(format!("${{literal:a | {canary}}}"))),
        Case("a bar in a default", 78, bad(format!("${{file:/x?default=a | {canary}}}"))),
        Case("a literal for a file, with a bar", 78, bad_file(&format!("${{literal:{canary} | {canary}}}"))),
        Case("an unknown filter", 78, bad(format!("${{literal:{canary} | nope}}"))),
        Case("a mode for a variable", 78, bad(format!("{canary}${{file:/x?mode=0440&default={canary}}}"))),
        Case("a store that is not there", 78, bad(format!("{canary}${{vault:secret/x?default={canary}#y}}{canary}"))),
        Case("two ways to one place", 78, start().variable("FILE__T_WHOLE", &whole).program(["true"])),
        Case("two values", 0, start().variable("T_LITERAL_FILE", &whole).program(["true"])),
        Case("two values, strictly", 78, strict(start().variable("T_LITERAL_FILE", &whole))),
        Case("an unknown user", 78, start().flag("--user=nobody-here").program(["true"])),
        Case("a missing capability", 71, start().flag("--user=4242:4343").under(["setpriv", "--bounding-set", "-all"]).program(["true"])),
        Case("no program", 64, start()),
        Case("an unknown flag", 64, start().flag("--nope").program(["true"])),
        Case("a wrong setting", 64, start().variable("SECRET_INIT_KILL_AFTER", "soon").program(["true"])),
        Case("a program that is not there", 127, start().program(["nothing-of-that-name"])),
        Case("a program that cannot be run", 126, start().program([&script])),
    ]
}

#[test]
fn no_message_holds_a_secret_in_any_form() {
    let world = World::new();
    let canary = Canary::new();
    let outputs = world.path.join("outputs");
    fs::create_dir(&outputs).unwrap();
    for Case(name, code, start) in failures(&world, &canary.0) {
        let outcome = start.finishes();
        assert_eq!(outcome.code(), code, "{name}: {}", outcome.stderr);
        assert!(code == 0 || code == 7 || code > 127 || !outcome.stderr.is_empty(), "{name}");
        fs::write(outputs.join(name), outcome.stdout + &outcome.stderr).unwrap();
    }
    assert_eq!(canary.found_in(&world, &outputs), "");
    // The same scan sees what a program says that cannot keep it to itself.
    let program = world.secret_init().variable("T_A", format!("literal:{}", canary.0)).shell("printf %s $T_A | base64").finishes();
    fs::write(outputs.join("talks"), program.succeeds()).unwrap();
    assert!(canary.found_in(&world, &outputs).contains("talks: ['b64"));
}

#[test]
fn the_same_holds_for_messages_in_json() {
    let world = World::new();
    let canary = Canary::new();
    let outputs = world.path.join("outputs");
    fs::create_dir(&outputs).unwrap();
    for Case(name, code, start) in failures(&world, &canary.0) {
        let outcome = start.variable("SECRET_INIT_LOG_FORMAT", "json").finishes();
        assert_eq!(outcome.code(), code, "{name}: {}", outcome.stderr);
        assert!(outcome.stderr.lines().all(|line| line.starts_with("{\"time\":\"") && line.ends_with('}')), "{name}: {}", outcome.stderr);
        fs::write(outputs.join(name), outcome.stdout + &outcome.stderr).unwrap();
    }
    assert_eq!(canary.found_in(&world, &outputs), "");
}

#[test]
fn the_same_holds_in_exec_mode() {
    let world = World::new();
    let canary = Canary::new();
    let outputs = world.path.join("outputs");
    fs::create_dir(&outputs).unwrap();
    let runs_a_program =
        |name: &str| !matches!(name, "plan" | "check" | "help" | "no program" | "all is well, by write" | "a missing key in a check");
    for Case(name, code, start) in failures(&world, &canary.0).into_iter().filter(|case| runs_a_program(case.0)) {
        let outcome = start.flag("--exec").finishes();
        // Nothing of ours is left that would turn an end by a signal into an exit code.
        let expected = if code == 128 + libc::SIGKILL { 1000 + libc::SIGKILL } else { code };
        assert_eq!(outcome.code(), expected, "{name}: {}", outcome.stderr);
        fs::write(outputs.join(name), outcome.stdout + &outcome.stderr).unwrap();
    }
    assert_eq!(canary.found_in(&world, &outputs), "");
}
