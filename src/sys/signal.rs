//! Signals, all 64 of them.
//!
//! The C library's `sigset_t` functions leave out the signals that its threads use (32 and 33), and Docker's `RTMIN` is 34: here a mask is
//! the kernel's own 64 bits.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::unistd::Pid;

/// A signal's number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// The terminal was closed, or: read your configuration again.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Ctrl-C.
    pub const INT: Self = Self(libc::SIGINT);
    /// Ctrl-\.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// End at once.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// Nobody reads from the other end.
    pub const PIPE: Self = Self(libc::SIGPIPE);
    /// End.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// A child ended or stopped.
    pub const CHLD: Self = Self(libc::SIGCHLD);
    /// Go on after a stop.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// Stop, cannot be caught.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// Something urgent came on a socket.
    pub const URG: Self = Self(libc::SIGURG);
    /// The terminal has another size.
    pub const WINCH: Self = Self(libc::SIGWINCH);
    /// Ctrl-Z.
    pub const TSTP: Self = Self(libc::SIGTSTP);
    /// A background process read from its terminal.
    pub const TTIN: Self = Self(libc::SIGTTIN);
    /// A background process wrote to its terminal.
    pub const TTOU: Self = Self(libc::SIGTTOU);

    /// The exit code that tells of an end by this signal.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "signal {}", self.0)
    }
}

/// A set of signals, as the kernel has it: bit n-1 for signal n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(u64);

impl Mask {
    /// No signal.
    pub const NONE: Self = Self(0);
    /// All 64. The kernel leaves KILL and STOP out by itself.
    pub const ALL: Self = Self(u64::MAX);

    /// The set of these signals.
    #[must_use]
    pub const fn of(signals: &[Signal]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < signals.len() {
            bits |= 1 << (signals[index].0 - 1);
            index += 1;
        }
        Self(bits)
    }

    /// The set that has these bits, as `/proc/PID/status` shows it.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the signal is in the set.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    /// The set with the signal in it.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | (1 << (signal.0 - 1)))
    }

    /// The set without the signal.
    #[must_use]
    pub const fn without(self, signal: Signal) -> Self {
        Self(self.0 & !(1 << (signal.0 - 1)))
    }

    /// The signals of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The signals of the set, from 1 up.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=64).map(Signal).filter(move |&signal| self.contains(signal))
    }
}

/// The size of the kernel's `sigset_t`, which the raw calls want to be told.
const MASK_SIZE: usize = size_of::<u64>();

/// Blocks every signal and gives the mask as it was. Only faults of our own still end us: the kernel unblocks those.
#[must_use]
pub fn block_all() -> Mask {
    let (all, mut before) = (Mask::ALL, 0_u64);
    // SAFETY: both pointers are to 8 bytes of ours, as MASK_SIZE says.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const all.0, &raw mut before, MASK_SIZE) };
    Mask(before)
}

/// Sets the mask of blocked signals.
pub fn set_mask(mask: Mask) {
    // SAFETY: the pointer is to 8 bytes of ours; the old mask is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask.0, std::ptr::null_mut::<u64>(), MASK_SIZE) };
}

/// Whether the signal is ignored, as `nohup` and shells hand it down.
#[must_use]
pub fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction(2) writes one structure of ours, for which all zeros is a valid value.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        libc::sigaction(signal.0, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Makes sure that children which end can be waited for: a parent that ignores SIGCHLD hands that down, and the kernel then reaps them
/// by itself and tells nobody.
pub fn want_children() {
    // SAFETY: sigaction(2) reads and writes structures of ours; SIG_DFL installs no handler.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        if libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action) == 0
            && (action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0)
        {
            action.sa_sigaction = libc::SIG_DFL;
            action.sa_flags = 0;
            libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
        }
    }
}

/// Sends a signal to a process, to a group (a negative number), or to all but ourselves (-1). That there is no such process, or that it is
/// another user's, is no concern of an init.
pub fn send(to: Pid, signal: Signal) {
    // SAFETY: kill(2) takes two numbers.
    unsafe { libc::kill(to.as_raw(), signal.0) };
}

/// Whether the process or group exists.
#[must_use]
pub fn exists(process: Pid) -> bool {
    // SAFETY: kill(2) takes two numbers; 0 only asks.
    unsafe { libc::kill(process.as_raw(), 0) == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) }
}

/// A signal that was taken from the queue.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// Whether the kernel raised it (a terminal, a timer, a broken pipe), not a process.
    pub by_kernel: bool,
}

/// How many signals are taken from the queue by one call.
pub const BATCH: usize = 16;

/// A descriptor from which blocked signals are read.
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// A descriptor for the signals of the mask; it does not block and closes on exec.
    ///
    /// # Errors
    ///
    /// When no descriptor can be had.
    pub fn new(mask: Mask) -> io::Result<Self> {
        let number = signalfd(-1, mask)?;
        // SAFETY: the kernel just gave us this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// Listens for the signals of another mask from now on.
    ///
    /// # Errors
    ///
    /// None that the kernel documents for a valid descriptor.
    pub fn listen_to(&self, mask: Mask) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        signalfd(self.0.as_raw_fd(), mask).map(drop)
    }

    /// Takes what waits, at most [`BATCH`] signals, in the kernel's order. Gives nothing when nothing waits.
    pub fn read<'a>(&self, buffer: &'a mut Buffer) -> &'a [Received] {
        use std::os::fd::AsRawFd;
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut raw = [MaybeUninit::<libc::signalfd_siginfo>::uninit(); BATCH];
        // SAFETY: the buffer is ours and BATCH * SIZE bytes long.
        let length = unsafe { libc::read(self.0.as_raw_fd(), raw.as_mut_ptr().cast(), BATCH * SIZE) };
        let count = usize::try_from(length).unwrap_or(0) / SIZE;
        for (to, from) in buffer.0.iter_mut().zip(&raw[..count]) {
            // SAFETY: the kernel filled the first `count` structures, and any bytes are a valid one.
            let info = unsafe { from.assume_init_ref() };
            // SI_USER is 0, and what a process can send otherwise is below; SI_KERNEL and all others of the kernel are above.
            *to = Received { signal: Signal(i32::try_from(info.ssi_signo).unwrap_or(0)), by_kernel: info.ssi_code > 0 };
        }
        &buffer.0[..count]
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for one [`SignalFd::read`], so that the loop of PID 1 allocates nothing.
pub struct Buffer([Received; BATCH]);

impl Default for Buffer {
    fn default() -> Self {
        Self([Received { signal: Signal(0), by_kernel: false }; BATCH])
    }
}

fn signalfd(number: i32, mask: Mask) -> io::Result<i32> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the mask is 8 bytes of ours; the number is -1 or a signalfd of ours.
    let result = unsafe { libc::syscall(libc::SYS_signalfd4, number, &raw const mask.0, MASK_SIZE, flags) };
    i32::try_from(result).ok().filter(|&number| number >= 0).ok_or_else(io::Error::last_os_error)
}
