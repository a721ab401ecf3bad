//! Processes, the clock and the median.

#![allow(unsafe_code, reason = "posix_spawn, wait4 and the clock: std's Command would add noise of its own")]

use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// Long enough for an init to have come to rest after the program's start.
const SETTLE: Duration = Duration::from_millis(50);

/// A command with its whole environment, ready for the kernel.
#[derive(Clone)]
pub struct Command {
    words: Vec<CString>,
    environment: Vec<CString>,
}

impl Command {
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>, environment: &[String]) -> Self {
        let c_string = |text: &str| CString::new(text).unwrap();
        let environment = std::iter::once("PATH=/usr/bin:/bin").chain(environment.iter().map(String::as_str));
        Self { words: words.into_iter().map(c_string).collect(), environment: environment.map(c_string).collect() }
    }

    /// The command in which this one starts a program.
    pub fn running<'a>(&self, program: impl IntoIterator<Item = &'a str>) -> Self {
        let mut command = self.clone();
        command.words.extend(program.into_iter().map(|word| CString::new(word).unwrap()));
        command
    }

    /// Starts it with the caller's stdin and stderr.
    pub fn spawn(&self, stdout: BorrowedFd<'_>) -> Process {
        let (words, environment) = (pointers(&self.words), pointers(&self.environment));
        let mut actions = MaybeUninit::uninit();
        let mut pid = 0;
        // SAFETY: the lists end with a null pointer, and all that is pointed to lives until the call is over; it is over when the new process has
        // execed, since glibc's posix_spawn waits for that as vfork does.
        let error = unsafe {
            assert_eq!(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()), 0);
            assert_eq!(libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), stdout.as_raw_fd(), 1), 0);
            let error = libc::posix_spawn(&raw mut pid, words[0], actions.as_ptr(), std::ptr::null(), words.as_ptr(), environment.as_ptr());
            libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
            error
        };
        assert_eq!(error, 0, "{:?}: {}", self.words, std::io::Error::from_raw_os_error(error));
        Process { pid, is_reaped: false }
    }

    /// Runs it to its end, which must be a good one.
    pub fn run(&self, stdout: BorrowedFd<'_>) -> Run {
        let started = now();
        let (status, usage) = self.spawn(stdout).wait();
        let microseconds = now() - started;
        assert_eq!(status, 0, "{:?} ended with wait status {status:#x}", self.words);
        let cpu = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
        Run { microseconds, cpu: cpu(usage.ru_utime) + cpu(usage.ru_stime), faults: (usage.ru_minflt + usage.ru_majflt) as f64 }
    }
}

impl Command {
    /// What it holds while it runs `sleep`.
    pub fn memory_beside_sleep(&self) -> Memory {
        let null = File::options().write(true).open("/dev/null").unwrap();
        let process = self.running(["/bin/sleep", "1000"]).spawn(null.as_fd());
        while !children(process.pid).any(|child| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "sleep\n")) {
            std::thread::yield_now();
        }
        std::thread::sleep(SETTLE);
        Memory::of(process.pid).unwrap()
    }
}

/// Memory of a process, in kilobytes.
pub struct Memory {
    pub rss: f64,
    pub pss: f64,
    pub private_dirty: f64,
}

impl Memory {
    /// Nothing when it has ended.
    pub fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let field = |name| kilobytes(&text, name);
        Some(Self { rss: field("Rss:")?, pss: field("Pss:")?, private_dirty: field("Private_Dirty:")? })
    }
}

/// A field of a file in /proc.
pub fn kilobytes(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// The processes that it has started and not yet waited for.
pub fn children(pid: i32) -> impl Iterator<Item = i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|child| child.parse().unwrap()).collect::<Vec<_>>().into_iter()
}

/// What a run took: it and all that it waited for.
pub struct Run {
    pub microseconds: f64,
    pub cpu: f64,
    pub faults: f64,
}

fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    strings.iter().map(|string| string.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
}

/// A process that was started. Dropped, it is ended.
pub struct Process {
    pub pid: i32,
    is_reaped: bool,
}

impl Process {
    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) takes two numbers, and the process is not reaped yet.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    /// Waits for its end; gives its status, and what it and all that it waited for took.
    pub fn wait(mut self) -> (i32, libc::rusage) {
        let (mut status, mut usage) = (0, MaybeUninit::uninit());
        // SAFETY: wait4(2) fills both, and what we wait for is a child of ours.
        let usage = unsafe {
            assert_eq!(libc::wait4(self.pid, &raw mut status, 0, usage.as_mut_ptr()), self.pid);
            usage.assume_init()
        };
        self.is_reaped = true;
        (status, usage)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_reaped {
            return;
        }
        // An init ends when its program does, and only so leaves no zombie to others.
        let program = children(self.pid).next().unwrap_or(self.pid);
        // SAFETY: kill(2) and waitpid(2) take numbers; no status is asked for.
        unsafe {
            libc::kill(program, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// A copy that nobody replaces while we measure, so that all lie alike in the page cache. It is on the disk too: pages that are still to be written
/// would count as dirty memory of whoever maps them.
pub fn copied(from: &str, to: &Path) -> String {
    fs::copy(from, to).unwrap_or_else(|error| panic!("{from}: {error}"));
    File::open(to).and_then(|file| file.sync_all()).unwrap();
    to.to_str().unwrap().to_owned()
}

/// Microseconds of `CLOCK_MONOTONIC`.
pub fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The value below which this part of all values lies.
pub fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = ((values.len() - 1) as f64 * part).round() as usize;
    values[index]
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// Calls `measure` for each index, round by round, each round in another order.
pub fn interleaved(rounds: usize, count: usize, mut measure: impl FnMut(usize, usize)) {
    let mut order: Vec<usize> = (0..count).collect();
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..rounds {
        for last in (1..count).rev() {
            // xorshift64 (Marsaglia), and the shuffle of Fisher and Yates.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(last, usize::try_from(random % (last as u64 + 1)).unwrap());
        }
        for &index in &order {
            measure(round, index);
        }
    }
}
