//! What catches a signal and ends by it all the same.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;

use nix::unistd::Pid;

use super::Reason;
use super::process;
use crate::sys::signal::{Mask, Signal};

/// How much of the list of mappings is read; a large program has some MiB.
const MAPPINGS: u64 = 64 << 20;

/// Why a program that catches a signal may end by it, as far as can be known.
///
/// What a program has mapped and which file it is, only those may see who could trace it: the same user, or a root that has the capability `SYS_PTRACE`, which containers
/// lack. Everybody sees the names of its threads and which signals it catches, and those tell what there is to fear: a JVM has a thread for signals, and the runtimes of Go
/// and Ruby, as bash with a trap for its exit, catch nearly all that there are.
pub fn of(process: Pid, caught: Mask) -> Option<Reason> {
    let of_threads = || process::has_thread(process, b"Signal Dispatch").then_some(Reason::Jvm);
    let of_file = || File::open(format!("/proc/{process}/exe")).is_ok_and(|file| is_go(&file)).then_some(Reason::Go);
    let of_signals = || catches_all(caught).then_some(Reason::CatchesAll);
    of_mappings(process).or_else(of_threads).or_else(of_file).or_else(of_signals)
}

fn of_mappings(process: Pid) -> Option<Reason> {
    let mut mappings = BufReader::new(File::open(format!("/proc/{process}/maps")).ok()?.take(MAPPINGS));
    let mut line = Vec::new();
    while mappings.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let name = line.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if name.starts_with(b"libjvm.so") {
            return Some(Reason::Jvm);
        }
        if name.starts_with(b"libruby") {
            return Some(Reason::Ruby);
        }
        line.clear();
    }
    None
}

/// Whether these are caught that no program has a use of its own for all together.
fn catches_all(caught: Mask) -> bool {
    [libc::SIGUSR1, libc::SIGUSR2, libc::SIGVTALRM, libc::SIGSYS].into_iter().all(|signal| caught.contains(Signal(signal)))
}

fn is_go(file: &File) -> bool {
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    has_sections_of_go(read) == Some(true)
}

/// Whether an ELF file has one of the sections that Go's linker makes. `read` gives as many bytes from a place on.
fn has_sections_of_go(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<bool> {
    /// The longest text with the names of sections that is looked at; usual are some hundred bytes.
    const NAMES: usize = 1 << 16;
    let head = read(0, 52)?;
    if head.get(..4)? != b"\x7fELF" {
        return None;
    }
    let (is_wide, is_little) = (head[4] == 2, head[5] == 1);
    let number = |bytes: &[u8], at: usize, length: usize| {
        let mut number = 0_u64;
        for index in 0..length {
            let byte = u64::from(*bytes.get(at + index)?);
            number |= byte << (8 * if is_little { index } else { length - 1 - index });
        }
        Some(number)
    };
    let head = if is_wide { read(0, 64)? } else { head };
    // elf(5): where e_shoff and e_shentsize stand in the head, and sh_offset and sh_size in the entry of a section.
    let (table, sizes, word, offset, size, entry) = if is_wide { (40, 58, 8, 24, 32, 64) } else { (32, 46, 4, 16, 20, 40) };
    let half = |at| number(&head, at, 2).and_then(|number| usize::try_from(number).ok());
    let (count, names) = (half(sizes + 2)?, half(sizes + 4)?);
    if half(sizes)? != entry {
        return None;
    }
    let sections = read(number(&head, table, word)?, count * entry)?;
    let of_names = sections.chunks_exact(entry).nth(names)?;
    let length = usize::try_from(number(of_names, size, word)?).ok()?.min(NAMES);
    let names = read(number(of_names, offset, word)?, length)?;
    let is_of_go = |section: &[u8]| {
        let name = names.get(usize::try_from(number(section, 0, 4)?).ok()?..)?;
        Some(name.starts_with(b".go.buildinfo\0") || name.starts_with(b".note.go.buildid\0"))
    };
    Some(sections.chunks_exact(entry).any(|section| is_of_go(section) == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest file that has sections: the head, their names, and their table.
    fn elf(is_wide: bool, is_little: bool, names: &[u8]) -> Vec<u8> {
        let order = |mut bytes: Vec<u8>| {
            if !is_little {
                bytes.reverse();
            }
            bytes
        };
        let word = |number: u64| order(if is_wide { number.to_le_bytes().to_vec() } else { number.to_le_bytes()[..4].to_vec() });
        let half = |number: u16| order(number.to_le_bytes().to_vec());
        let (length, entry, after) = if is_wide { (64, 64, 40) } else { (52, 40, 32) };
        let mut file = b"\x7fELF".to_vec();
        file.extend([1 + u8::from(is_wide), 2 - u8::from(is_little)]);
        file.resize(after, 0);
        file.extend(word(length + names.len() as u64));
        file.resize(usize::try_from(length).unwrap() - 6, 0);
        file.extend([half(entry), half(1), half(0)].concat());
        file.extend(names);
        let start = file.len();
        // The one section is named by what stands behind the first NUL.
        file.extend(order(1_u32.to_le_bytes().to_vec()));
        file.resize(start + if is_wide { 24 } else { 16 }, 0);
        file.extend([word(length), word(names.len() as u64)].concat());
        file.resize(start + usize::from(entry), 0);
        file
    }

    fn is_go(file: &[u8]) -> bool {
        let read = |at: u64, length: usize| {
            let at = usize::try_from(at).ok()?;
            file.get(at..at.checked_add(length)?).map(<[u8]>::to_vec)
        };
        has_sections_of_go(read) == Some(true)
    }

    #[test]
    fn a_go_program_is_known_by_its_sections_for_every_processor() {
        for (is_wide, is_little) in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(is_go(&elf(is_wide, is_little, b"\0.go.buildinfo\0")), "{is_wide} {is_little}");
            assert!(is_go(&elf(is_wide, is_little, b"\0.note.go.buildid\0")), "{is_wide} {is_little}");
            assert!(!is_go(&elf(is_wide, is_little, b"\0.go.buildinfos\0.go.buildinfo\0")), "{is_wide} {is_little}");
        }
    }

    /// Every part of the file, and the file with each byte another: nothing of it is trusted.
    #[test]
    fn no_file_is_too_much() {
        for (is_wide, is_little) in [(true, true), (false, false)] {
            let file = elf(is_wide, is_little, b"\0.go.buildinfo\0");
            for at in 0..file.len() {
                assert!(!is_go(&file[..at]), "{at}");
                for byte in [0, 1, 0x7f, 0xff] {
                    let mut other = file.clone();
                    other[at] = byte;
                    let _ = is_go(&other);
                }
            }
        }
    }
}
