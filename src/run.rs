//! The last step: becoming the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use crate::report::{Code, Failure, Problem, os_error, printable};
use crate::sys::signal::{self, Mask, Signal};
use crate::sys::{descriptor, entry};
use crate::user::Account;

/// What the program is to find as we found it, and we need otherwise.
pub struct Inherited {
    mask: Mask,
}

impl Inherited {
    /// The first thing to call: blocks all signals, closes our memory to others of the same user, and makes sure that no descriptor of ours will be taken for a
    /// standard stream.
    #[must_use]
    pub fn take() -> Self {
        let mask = signal::block_all();
        // Neither /proc/PID/{environ,mem} nor ptrace nor a core dump shows what we hold. execve resets it for the program.
        let _ = nix::sys::prctl::set_dumpable(false);
        descriptor::fill_standard();
        Self { mask }
    }

    /// Lets signals through again as they were, for what is not the start of a program: there is nothing to keep them for.
    pub fn restore_signals(&self) {
        signal::set_mask(self.mask);
    }
}

/// The signals that end a start, as long as there is no program to forward them to.
pub const ENDING: Mask = Mask::of(&[Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP]);

/// Ends as a signal wants that came during the start. As PID 1 it would be dropped once it is unblocked.
pub fn heed_pending_signals() {
    if let Some(signal) = signal::pending().and(ENDING).iter().next() {
        entry::exit(signal.exit_code());
    }
}

/// A program, ready to run.
pub struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    account: Option<Account>,
}

/// Where programs are looked for when the environment has no PATH, as Docker sets it.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    /// A program by its name and arguments, at least one, and its whole environment; it runs as the account, or as who we are.
    #[must_use]
    pub fn new(arguments: Vec<OsString>, environment: Vec<CString>, account: Option<Account>) -> Self {
        Self { arguments: arguments.into_iter().map(|argument| c_string(argument.as_bytes())).collect(), environment, account }
    }

    /// Replaces this process by the program.
    ///
    /// # Errors
    ///
    /// 127 when there is no such program, 126 when it cannot be run, 71 when the user cannot be changed.
    pub fn run(&self, inherited: &Inherited) -> Result<Infallible, Failure> {
        if let Some(account) = &self.account {
            account.become_it()?;
        }
        signal::set_mask(inherited.mask);
        let errno = self.search();
        // What is left of this process must not be interrupted while it reports.
        let _ = signal::block_all();
        Err(self.cannot_run(errno).into())
    }

    /// Tries each place where the program can be, as execvp(3) does, but in the program's own PATH.
    fn search(&self) -> Errno {
        let name = self.arguments[0].to_bytes();
        if name.contains(&b'/') {
            return self.execute(&self.arguments[0]);
        }
        if name.is_empty() {
            return Errno::ENOENT;
        }
        let path = self.environment.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let mut found = Errno::ENOENT;
        for directory in path.split(|&byte| byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            match self.execute(&c_string(&[directory, b"/", name].concat())) {
                Errno::ENOENT | Errno::ENOTDIR => {}
                // Perhaps another directory has one that may be run.
                Errno::EACCES => found = Errno::EACCES,
                errno => return errno,
            }
        }
        found
    }

    fn execute(&self, path: &CStr) -> Errno {
        let Err(errno) = nix::unistd::execve(path, &self.arguments, &self.environment);
        if errno != Errno::ENOEXEC {
            return errno;
        }
        // A script without #! is the shell's, as for every shell and for execvp(3).
        let mut arguments = vec![c_string(b"/bin/sh"), path.to_owned()];
        arguments.extend(self.arguments[1..].iter().cloned());
        match nix::unistd::execve(c"/bin/sh", &arguments, &self.environment) {
            Err(Errno::ENOENT) => Errno::ENOEXEC,
            Err(errno) => errno,
        }
    }

    fn cannot_run(&self, errno: Errno) -> Problem {
        let name = self.arguments[0].to_bytes();
        let code = if matches!(errno, Errno::ENOENT | Errno::ENOTDIR) { Code::NoProgram } else { Code::CannotRun };
        let hint = match errno {
            Errno::ENOENT
                if name.contains(&b'/') && nix::unistd::access(self.arguments[0].as_c_str(), nix::unistd::AccessFlags::F_OK).is_ok() =>
            {
                "the file is there: the interpreter that its #! line or ELF header names is missing"
            }
            Errno::ENOENT if name.contains(&b'/') => "check the path in the image; a relative one starts at WORKDIR",
            Errno::ENOENT => "check the name, and PATH in the image",
            Errno::EACCES => "the file must be executable (chmod +x) for the program's user, and no directory",
            Errno::ENOEXEC => "is it built for another architecture, or a script without #! where there is no /bin/sh?",
            Errno::E2BIG => "arguments and environment are too large together: deliver large secrets as files",
            _ => "check the file in the image",
        };
        let cause = match errno {
            Errno::ENOENT => "not found".to_owned(),
            errno => format!("cannot be run: {}", os_error(&errno.into())),
        };
        Problem::new(code, cause).about(printable(name)).hint(hint)
    }
}

/// Socket activation names the process that may take the sockets: when it named us, it means the program.
pub fn pass_on_listen_pid(environment: &mut [CString]) {
    let ours = format!("LISTEN_PID={}", nix::unistd::getppid());
    for entry in environment.iter_mut().filter(|entry| entry.to_bytes() == ours.as_bytes()) {
        *entry = c_string(format!("LISTEN_PID={}", std::process::id()).as_bytes());
    }
}

/// A C string; bytes after a NUL, which none of the callers has, are dropped.
#[must_use]
pub fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}
