//! What `/proc` tells of a process to everybody, whoever it belongs to. It is text of another's: whatever it is, it is read or it is not.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use nix::unistd::Pid;

use crate::sys::signal::{Mask, Signal};

/// The longest file that is read. The line of the groups has up to 65,536 of them.
const LONGEST: u64 = 1 << 20;

/// What a process does with signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    /// Whether it has ended, and waits for its parent alone.
    pub is_dead: bool,
    /// Its user.
    pub uid: u32,
    /// Those that its first thread has blocked.
    blocked: Mask,
    /// Those that it ignores.
    pub ignored: Mask,
    /// Those that it has a handler for.
    pub caught: Mask,
}

impl Signals {
    /// Those of a process; none when `/proc` does not show them.
    pub fn of(process: Pid) -> Option<Self> {
        Self::parse(&read(format!("/proc/{process}/status"))?)
    }

    /// Reads `status`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let field = |name: &str| {
            let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"));
            std::str::from_utf8(line?).ok()?.split_whitespace().next()
        };
        let mask = |name| u64::from_str_radix(field(name)?, 16).ok().map(Mask::from_bits);
        let threads: u32 = field("Threads")?.parse().ok()?;
        Some(Self {
            // The first thread may have ended, and others go on.
            is_dead: matches!(field("State")?, "Z" | "X") && threads <= 1,
            uid: field("Uid")?.parse().ok()?,
            blocked: mask("SigBlk")?,
            ignored: mask("SigIgn")?,
            caught: mask("SigCgt")?,
        })
    }
}

/// Whether every thread of a process has the signal blocked: then none of them has a use for it, or one waits for it.
pub fn blocks(process: Pid, signal: Signal) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let statuses = threads.filter_map(|thread| Signals::parse(&read(thread.ok()?.path().join("status"))?));
    let mut blocking = statuses.map(|status| status.blocked.contains(signal)).peekable();
    blocking.peek().is_some() && blocking.all(|blocks| blocks)
}

/// Whether one of the threads of a process has this name.
pub fn has_thread(process: Pid, name: &[u8]) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.filter_map(|thread| read(thread.ok()?.path().join("comm"))).any(|own| own.trim_ascii_end() == name)
}

/// Where a process stands among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub number: Pid,
    /// Its name, as far as the kernel keeps it.
    pub name: Vec<u8>,
    /// Who waits for its end.
    pub parent: Pid,
    /// Its process group.
    pub group: Pid,
}

impl Process {
    /// The process of a number; none when there is none, or `/proc` hides it.
    pub fn of(number: Pid) -> Option<Self> {
        Self::parse(number, &read(format!("/proc/{number}/stat"))?)
    }

    /// Reads `stat`, where the name stands in brackets and may have some itself.
    pub fn parse(number: Pid, text: &[u8]) -> Option<Self> {
        let start = text.iter().position(|&byte| byte == b'(')?;
        let end = text.iter().rposition(|&byte| byte == b')').filter(|&end| end > start)?;
        let mut fields = std::str::from_utf8(&text[end + 1..]).ok()?.split_whitespace().skip(1);
        let mut pid = || fields.next()?.parse().ok().map(Pid::from_raw);
        Some(Self { number, name: text[start + 1..end].to_vec(), parent: pid()?, group: pid()? })
    }

    /// Whether it has this name: the kernel's, that of its first argument, or that of its file where we may see it. None has no name at all, though the kernel's own threads
    /// have no argument.
    pub fn is_called(&self, name: &[u8]) -> bool {
        let number = self.number;
        let is_last = |path: &[u8]| path.rsplit(|&byte| byte == b'/').next() == Some(name);
        let first_argument =
            || read(format!("/proc/{number}/cmdline")).and_then(|line| Some(line.split(|&byte| byte == 0).next()?.to_vec()));
        let file = || std::fs::read_link(format!("/proc/{number}/exe")).ok().map(|path| path.into_os_string().into_encoded_bytes());
        let is_file = |path: Vec<u8>| is_last(path.strip_suffix(b" (deleted)").unwrap_or(&path));
        !name.is_empty() && (self.name == name || first_argument().is_some_and(|path| is_last(&path)) || file().is_some_and(is_file))
    }
}

/// All processes that `/proc` shows.
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| Process::of(Pid::from_raw(number))).collect()
}

/// A file of `/proc`, or what comes first of it.
fn read(path: impl AsRef<Path>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_brackets_spaces_and_newlines() {
        let process = Process::parse(Pid::from_raw(7), b"7 (a) S 9 9 (\n) S 3 5 5 0 -1 4194560").unwrap();
        assert_eq!((process.name.as_slice(), process.parent.as_raw(), process.group.as_raw()), (&b"a) S 9 9 (\n"[..], 3, 5));
    }

    #[test]
    fn a_process_without_its_first_thread_is_not_dead() {
        let status = |state: &str, threads: u32| {
            let text = format!(
                "Name:\tSigCgt:\nState:\t{state} (zombie)\nUid:\t7\t8\t9\t9\nThreads:\t{threads}\nSigBlk:\t0\nSigIgn:\t1\nSigCgt:\t4002\n"
            );
            Signals::parse(text.as_bytes()).unwrap()
        };
        assert!(status("Z", 1).is_dead && !status("Z", 2).is_dead && !status("S", 1).is_dead);
        let status = status("S", 1);
        assert!(status.caught.contains(Signal::TERM) && status.ignored.contains(Signal::HUP) && status.uid == 7);
    }

    /// Every part of a text that there is, and every text with a byte that is another.
    #[test]
    fn nothing_that_proc_could_say_is_too_much() {
        let [status, stat] = ["status", "stat"].map(|name| read(format!("/proc/self/{name}")).unwrap());
        for text in [status, stat] {
            for at in 0..text.len() {
                for byte in [0, b'\n', b')', b'-', 0xff] {
                    let mut other = text.clone();
                    other[at] = byte;
                    let _ = (Signals::parse(&other), Process::parse(Pid::this(), &other));
                }
                let _ = (Signals::parse(&text[..at]), Process::parse(Pid::this(), &text[..at]));
            }
        }
        assert_eq!((Signals::parse(b""), Process::parse(Pid::this(), b")(")), (None, None));
    }
}
