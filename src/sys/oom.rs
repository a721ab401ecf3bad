//! Whom the kernel kills when memory runs out: `oom_score_adj`, see proc(5).
//!
//! The file of a process that shows its memory to nobody belongs to root. So who is not root opens its own while it still shows, or has nothing to show yet.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

use nix::sys::prctl;

const PATH: &str = "/proc/self/oom_score_adj";
/// Before all others.
const FIRST: &str = "1000";

/// How likely this process is to be killed.
pub struct Score {
    file: File,
    before: String,
}

impl Score {
    /// Opens that of this process. Who is not root shows its memory to others of its user for some microseconds meanwhile: it is to be called
    /// when nothing is in it, or nobody is there.
    ///
    /// # Errors
    ///
    /// When there is no `/proc`, or another owns the file, as with a binary that may not be read.
    pub fn open() -> io::Result<Self> {
        let open = || OpenOptions::new().read(true).write(true).open(PATH);
        let file = open().or_else(|_| {
            let _ = prctl::set_dumpable(true);
            let file = open();
            let _ = prctl::set_dumpable(false);
            file
        })?;
        let mut before = [0; 8];
        let length = file.read_at(&mut before, 0)?;
        Ok(Self { file, before: String::from_utf8_lossy(&before[..length]).trim().to_owned() })
    }

    /// This process is to be killed before all others, and those that it makes from now on.
    pub fn be_first(&self) {
        // Where that is not allowed it is as it was.
        let _ = self.file.write_at(FIRST.as_bytes(), 0);
    }

    /// It is as it was.
    pub fn be_as_before(&self) {
        let _ = self.file.write_at(self.before.as_bytes(), 0);
    }
}

impl AsFd for Score {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
