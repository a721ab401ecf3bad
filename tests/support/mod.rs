//! The rig of the tests: real processes, a builder that reads as a sentence, and waits that end by an event or a deadline, never by a sleep.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(unsafe_code, reason = "signals and pidfds, as the tests of an init need them")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test that fails is to panic")]
#![allow(clippy::pedantic, clippy::wrong_self_convention, reason = "the builder is to read as a sentence")]

pub mod canary;
pub mod files;
pub mod kubelet;
pub mod servers;
pub mod terminal;
pub mod watched;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// After this long an event that was waited for will not come any more.
pub const DEADLINE: Duration = Duration::from_secs(30);

static DEFAULT_ACTION: [u64; 4] = [0; 4];

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_secret-init"))
}

/// Has the binary on the disk: pages of it that are still to be written there would count as memory that its processes have written to.
pub fn write_to_disk() {
    fs::File::open(binary()).and_then(|file| file.sync_all()).unwrap();
}

/// A place in memory for one test, gone with it.
pub struct World {
    pub path: PathBuf,
}

impl World {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Always as long: some tests tell the column of what stands behind it.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/secret-init-test-{:07}-{number:04}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    /// A file with this content, readable for all.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// An executable script. Another process writes it: what a test beside this one forks at the same moment would hold our descriptor, and a file that is open for
    /// writing cannot be run.
    pub fn script(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut writer =
            Command::new("sh").args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        writer.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        path
    }

    /// A directory for secret files, to be given as `--dir`.
    pub fn directory(&self) -> PathBuf {
        let path = self.path.join("secrets");
        if !path.exists() {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        path
    }

    /// secret-init with an environment of PATH alone.
    pub fn secret_init(&self) -> Start {
        Start {
            flags: Vec::new(),
            program: Vec::new(),
            variables: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin".into())],
            wrapper: Vec::new(),
            directory: None,
            input: None,
            listens: false,
            is_bare: false,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// How secret-init will be started.
#[derive(Clone)]
pub struct Start {
    flags: Vec<OsString>,
    program: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    wrapper: Vec<OsString>,
    directory: Option<PathBuf>,
    input: Option<Vec<u8>>,
    listens: bool,
    is_bare: bool,
}

impl Start {
    /// An option or a command, before `--`.
    #[must_use]
    pub fn flag(mut self, flag: impl AsRef<OsStr>) -> Self {
        self.flags.push(flag.as_ref().to_owned());
        self
    }

    /// A variable of the container.
    #[must_use]
    pub fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// `--dir` with a directory of this world.
    #[must_use]
    pub fn directory(self, directory: impl AsRef<Path>) -> Self {
        self.flag("--dir").flag(directory.as_ref())
    }

    /// The program and its arguments, after `--`.
    #[must_use]
    pub fn program<const COUNT: usize>(mut self, words: [impl AsRef<OsStr>; COUNT]) -> Self {
        self.program = words.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// A shell script as the program.
    #[must_use]
    pub fn shell(self, script: &str) -> Self {
        self.program(["sh", "-c", script])
    }

    /// What the program finds on stdin.
    #[must_use]
    pub fn input(mut self, input: &[u8]) -> Self {
        self.input = Some(input.to_vec());
        self
    }

    /// The program's stdin stays open, for what the test will [`Running::say`].
    #[must_use]
    pub fn listens(mut self) -> Self {
        self.listens = true;
        self
    }

    /// Where it is started.
    #[must_use]
    pub fn in_directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Before the binary come these words: a launcher such as `strace` or `setpriv`, which ends in secret-init.
    #[must_use]
    pub fn under<const COUNT: usize>(mut self, words: [&str; COUNT]) -> Self {
        self.wrapper.extend(words.iter().map(OsString::from));
        self
    }

    /// As [`Start::under`], but around all launchers so far: a `strace` that is to stay outside of the namespace.
    #[must_use]
    pub fn around(mut self, words: &[&str]) -> Self {
        self.wrapper.splice(0..0, words.iter().map(OsString::from));
        self
    }

    /// As PID 1 of a namespace of its own, with a /proc of its own and an empty tmpfs at /run. Needs root.
    #[must_use]
    pub fn as_pid_1(self) -> Self {
        self.under([
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--mount-proc",
            "sh",
            "-c",
            "mount -t tmpfs none /run && exec \"$@\"",
            "sh",
        ])
    }

    /// As another user from the first instruction on.
    #[must_use]
    pub fn as_user(self, uid: u32) -> Self {
        let uid = uid.to_string();
        self.under(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"])
    }

    /// The program as it is without secret-init, for comparison.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.is_bare = true;
        self
    }

    /// The command, for what the builder has no word for.
    pub fn command(&self) -> Command {
        let mut words: Vec<OsString> = self.wrapper.clone();
        if !self.is_bare {
            words.push(binary().into());
            words.extend(self.flags.iter().cloned());
        }
        if !self.program.is_empty() {
            words.extend((!self.is_bare).then(|| "--".into()));
            words.extend(self.program.iter().cloned());
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        // posix_spawn(3), by which the tests themselves are started, hands down 32 and 33 ignored: the C library keeps them for itself. And who runs the tests by
        // nohup, or in the background of a script, has others ignored.
        // SAFETY: the closure makes two raw system calls. The kernel's struct sigaction is four words, and zeros mean the default.
        unsafe {
            command.pre_exec(|| {
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, 32, 33] {
                    libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT_ACTION, std::ptr::null_mut::<u64>(), 8);
                }
                Ok(())
            });
        }
        command
    }

    /// Starts it and gives it back running.
    pub fn spawn(&self) -> Running {
        let mut command = self.command();
        command
            .stdin(if self.listens || self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = Running::new(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
        if let Some(input) = &self.input {
            running.stdin.take().unwrap().write_all(input).unwrap();
        }
        running
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn finishes(&self) -> Outcome {
        self.spawn().finishes()
    }
}

/// A secret-init that runs. It is killed when the test ends.
pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    stderr: Receiver<Vec<u8>>,
    status: Option<ExitStatus>,
    cpu_time: Duration,
}

impl Running {
    pub fn new(mut child: Child) -> Self {
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let (whole, stderr_text) = channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            let _ = whole.send(text);
        });
        Self { stdin: child.stdin.take(), child, lines, seen: Vec::new(), stderr: stderr_text, status: None, cpu_time: Duration::ZERO }
    }

    /// The process that was started: secret-init itself, or its launcher.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// secret-init when it was started `as_pid_1`: the process below the launcher, by its number outside.
    pub fn pid_1(&self) -> i32 {
        eventually("unshare has a child that became secret-init", || {
            let child = *children(self.pid()).first()?;
            is_ours(child).then_some(child)
        })
    }

    /// Waits for a line of the program's output that begins so, and gives it without its end.
    #[track_caller]
    pub fn line(&mut self, beginning: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.starts_with(beginning) {
                        return line.trim_end_matches('\n').to_owned();
                    }
                }
                Err(error) => {
                    let stderr = self.stderr_after_kill();
                    panic!("no line {beginning:?} ({error}); there was {:?}; stderr {stderr:?}", self.seen)
                }
            }
        }
    }

    /// Writes a line to the stdin of a program that [`Start::listens`].
    pub fn say(&mut self, line: &str) {
        self.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn stderr_after_kill(&mut self) -> String {
        let _ = self.child.kill();
        self.whole_stderr(Duration::from_secs(1))
    }

    /// What was printed on stderr, when it is closed in time: a process that was left behind may hold it.
    fn whole_stderr(&self, patience: Duration) -> String {
        match self.stderr.recv_timeout(patience.max(Duration::from_secs(1))) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(_) => "(stderr is still open)".to_owned(),
        }
    }

    /// Sends a signal to the process that was started.
    pub fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.cpu_time = cpu_time(self.pid());
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finishes(mut self) -> Outcome {
        let end = Instant::now() + DEADLINE;
        // Its end closes stdout, unless a process that it left holds it: then the pidfd tells.
        let pidfd = pidfd(self.pid());
        let status = loop {
            if let Some(status) = self.poll() {
                break status;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let stderr = self.stderr_after_kill();
                panic!("still running after {DEADLINE:?}; stdout so far {:?}; stderr {stderr:?}", self.seen);
            }
            let mut ready = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&pidfd), nix::poll::PollFlags::POLLIN)];
            let _ = nix::poll::poll(&mut ready, nix::poll::PollTimeout::try_from(left.as_millis()).unwrap());
        };
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
        let stderr = self.whole_stderr(end.saturating_duration_since(Instant::now()));
        Outcome { status, stdout: self.seen.concat(), stderr, cpu_time: self.cpu_time }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// What it took of the processors, with all children that it waited for, as user and in the kernel.
    pub cpu_time: Duration,
}

impl Outcome {
    /// The exit code; 1000 and the signal when a signal ended secret-init itself.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 1000 + self.status.signal().unwrap_or(0))
    }

    /// The program ran, ended with 0, and nothing was printed on stderr; gives its output.
    #[track_caller]
    pub fn succeeds(self) -> String {
        assert_eq!((self.code(), self.stderr.as_str()), (0, ""), "stdout {:?}", self.stdout);
        self.stdout
    }

    /// The start failed with this exit code and exactly these lines on stderr, and nothing ran.
    #[track_caller]
    pub fn fails(self, code: u8, lines: &[&str]) {
        let expected: String = lines.iter().map(|line| format!("secret-init: {line}\n")).collect();
        assert_eq!((self.stderr.as_str(), self.code(), self.stdout.as_str()), (expected.as_str(), i32::from(code), ""));
    }
}

/// The CPU time of a child that has ended and is not yet reaped; nothing before.
fn cpu_time(pid: i32) -> Duration {
    let time = |time: libc::timeval| Duration::new(time.tv_sec.unsigned_abs(), 1000 * u32::try_from(time.tv_usec).unwrap());
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: waitid(2) as the kernel has it writes a `rusage` into its fifth argument, if it writes; zeros are one too.
    let usage = unsafe {
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::syscall(libc::SYS_waitid, libc::P_PID, pid, std::ptr::null_mut::<libc::siginfo_t>(), how, usage.as_mut_ptr());
        usage.assume_init()
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Waits until something is there, looking again whenever the scheduler lets us, until the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "did not happen within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

pub fn send(pid: i32, signal: i32) {
    // SAFETY: kill(2) takes two numbers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill({pid}, {signal}): {}", std::io::Error::last_os_error());
}

/// A descriptor that becomes readable when the process ends.
pub fn pidfd(pid: i32) -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open(2) gives a new descriptor, which nothing else owns.
    unsafe {
        let number = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(number >= 0, "pidfd_open({pid}): {}", std::io::Error::last_os_error());
        std::os::fd::OwnedFd::from_raw_fd(i32::try_from(number).unwrap())
    }
}

/// The children of a process.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Whether the process runs the binary under test, or ran it when it was built anew meanwhile.
pub fn is_ours(pid: i32) -> bool {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| binary().canonicalize().unwrap());
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    exe == *BINARY || exe.as_os_str().as_bytes().strip_suffix(b" (deleted)") == Some(BINARY.as_os_str().as_bytes())
}

/// A field of `/proc/PID/status`.
pub fn status_field(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
        .unwrap_or_else(|| panic!("no {field} in\n{text}"))
}

/// Bytes as part of a command line or an environment.
pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
