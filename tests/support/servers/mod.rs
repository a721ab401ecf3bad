//! The servers that a test asks: the real ones, and [`faults`] for what a real one does not do on demand. `tests/run` installs them.
//!
//! Each listens on a port of its own at 127.0.0.1 and ends when it is dropped. One that several tests share in a `LazyLock` is never dropped: the kernel ends it with
//! the process of the tests, and its folder goes with it.

pub mod faults;
pub mod ministack;
pub mod mitmproxy;
pub mod openbao;
pub mod postgres;
pub mod prometheus;
pub mod tls;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::{DEADLINE, send};

/// A command of a server that `tests/run` has installed.
#[track_caller]
pub fn installed(server: &str, command: &str) -> PathBuf {
    let path = path(server, command);
    assert!(path.exists(), "there is no {}: run tests/run, which installs it", path.display());
    path
}

/// Where a command of a server is when it is installed.
pub fn path(server: &str, command: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(server).join("bin").join(command)
}

/// A server that runs.
pub struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    last_signal: i32,
}

impl Server {
    /// Starts it and waits for a line with these words. When it ends before, as one does whose port another has taken meanwhile, gives what it said.
    fn start(folder: &Path, command: &mut Command, ready: &'static str) -> Result<Self, String> {
        let mut whole = Command::new("setpriv");
        whole.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        whole.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", folder).env("TMPDIR", folder);
        whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(folder);
        let (reader, writer) = std::io::pipe().unwrap();
        whole.stdin(Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = spawn(whole);
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, is_ready) = channel();
        let mut server = Self { child, log: log.clone(), last_signal: libc::SIGKILL };
        std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                log.lock().unwrap().extend([&line, "\n"]);
                if line.contains(ready) {
                    let _ = sender.send(());
                }
            }
        });
        match is_ready.recv_timeout(DEADLINE) {
            Ok(()) => Ok(server),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = server.child.wait();
                Err(server.log())
            }
            Err(RecvTimeoutError::Timeout) => panic!("{whole:?} is not ready after {DEADLINE:?}: {}", server.log(), whole = command),
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Ends it.
    fn stop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            send(self.pid(), self.last_signal);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a process from a thread that lives as long as we do: the signal of `--pdeathsig` comes when the thread ends that started the process.
fn spawn(command: Command) -> Child {
    type Order = (Command, Sender<Child>);
    static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                // A failure leaves the other side without an answer.
                let _ = command.spawn().map(|child| answer.send(child));
            }
        });
        sender
    });
    let what = format!("{command:?}");
    let (sender, child) = channel();
    STARTER.send((command, sender)).unwrap();
    child.recv().unwrap_or_else(|_| panic!("cannot be started: {what}"))
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A new folder, which other users may pass. A shell that waits for the end of our process takes those away that are left.
fn folder() -> Folder {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    static ALL: LazyLock<(PathBuf, ChildStdin)> = LazyLock::new(|| {
        let path = std::env::temp_dir().join(format!("secret-init-servers-{}", std::process::id()));
        let script = "read -r _; for _ in $(seq 100); do rm -rf \"$0\" && break; sleep 0.1; done";
        let mut sweeper = Command::new("setsid");
        sweeper.args(["sh", "-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let stdin = spawn(sweeper).stdin.take().unwrap();
        (path, stdin)
    });
    let path = ALL.0.join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir_all(&path).unwrap();
    Folder(path)
}

/// Starts what listens on this port and on the next one. Another process may take one of them before it does, so there is more than one attempt.
#[track_caller]
fn on_a_free_port<T>(mut start: impl FnMut(u16) -> Result<T, String>) -> T {
    let mut said = String::new();
    for _ in 0..4 {
        match start(free_port()) {
            Ok(started) => return started,
            Err(log) => said = log,
        }
    }
    panic!("does not start: {said}");
}

/// A port that is free now, and so is the next one.
pub fn free_port() -> u16 {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
    panic!("no two ports are free");
}

/// Asks by curl with these arguments, and this body on its stdin (`--data-binary @-`). Gives the status, 0 when there was no answer, and the body.
#[track_caller]
pub fn curl(arguments: &[impl AsRef<OsStr>], body: Option<&str>) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--noproxy", "*", "--max-time", "20", "--write-out", "\n%{http_code}"]).args(arguments);
    command.args(body.map_or(&[][..], |_| &["--data-binary", "@-"]));
    let mut curl = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    curl.stdin.take().unwrap().write_all(body.unwrap_or_default().as_bytes()).unwrap();
    let output = String::from_utf8_lossy(&curl.wait_with_output().unwrap().stdout).into_owned();
    let (text, status) = output.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), text.to_owned())
}

/// A body, null when it is no JSON.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}
