//! The last step: becoming the program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::cli::{self, Command};
use crate::deliver::Delivered;
use crate::plan::consequence;
use crate::report::{Code, Failure, Problem, os_error, printable};
use crate::sys::descriptor;
use crate::sys::signal::{self, Mask, Signal};
use crate::user::Account;

/// What the program is to find as we found it, and we need otherwise.
pub struct Inherited {
    mask: Mask,
    /// The signals that end a start, as long as there is no program to forward them to: those that were ignored when we came (`nohup`) do not.
    pub ending: Mask,
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
        let ending = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP].into_iter().filter(|&signal| !signal::is_ignored(signal));
        Self { mask, ending: ending.fold(Mask::NONE, Mask::with) }
    }

    /// Lets signals through again, for a process without a supervisor: those that end a start do so at any moment from here on, with 128 and their number. They
    /// get a handler for it, since PID 1 would never see them without; execve resets it for the program.
    pub fn end_on_signals(&self) {
        let always = Arc::new(AtomicBool::new(true));
        for signal in self.ending.iter() {
            let code = i32::from(signal.exit_code());
            // It fails for signals alone that can have no handler, and these are not.
            let _ = signal_hook::flag::register_conditional_shutdown(signal.0, code, Arc::clone(&always));
        }
        signal::set_mask(self.mask);
    }
}

/// A program, ready to run.
pub struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Where its secret files are.
    directory: Option<PathBuf>,
    account: Option<Account>,
}

/// Where programs are looked for when the environment has no PATH, as Docker sets it.
pub const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Program {
    /// A program by its name and arguments, at least one, with what was delivered to it; it runs as the account, or as who we are.
    #[must_use]
    pub fn new(arguments: &[OsString], delivered: Delivered, account: Option<Account>) -> Self {
        let arguments = arguments.iter().map(|argument| c_string(argument.as_bytes())).collect();
        Self { arguments, environment: delivered.environment, directory: delivered.directory, account }
    }

    /// Replaces this process by the program.
    ///
    /// # Errors
    ///
    /// 127 when there is no such program, 126 when it cannot be run, 71 when the user cannot be changed.
    pub fn run(&self, inherited: &Inherited) -> Result<Infallible, Failure> {
        if let Some(account) = &self.account {
            account.become_it()?;
            self.check_directory(account)?;
        }
        signal::set_mask(inherited.mask);
        let obstacle = self.search();
        // What is left of this process must not be interrupted while it reports.
        let _ = signal::block_all();
        Err(self.cannot_run(&obstacle).into())
    }

    /// A directory above that of the secrets may be closed for the program's user.
    fn check_directory(&self, account: &Account) -> Result<(), Failure> {
        let Some(directory) = &self.directory else { return Ok(()) };
        access(directory, AccessFlags::X_OK).map_err(|errno| {
            let cause = format!("the program cannot reach its secrets as uid {}: {}", account.uid, errno.desc().to_lowercase());
            let path = printable(directory.as_os_str().as_encoded_bytes());
            let problem =
                Problem::new(Code::CannotWrite, cause).about(path).hint("each folder above it needs the permission x for that user");
            Failure { problems: vec![problem], summary: consequence(Command::Supervise).to_owned() }
        })
    }

    /// Tries each place where the program can be, as execvp(3) does, but in the program's own PATH.
    fn search(&self) -> Obstacle {
        let name = self.arguments[0].to_bytes();
        if name.contains(&b'/') {
            return self.execute(&self.arguments[0]);
        }
        let path = self.environment.iter().find_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
        let mut worst = Obstacle::Missing;
        for directory in path.split(|&byte| byte == b':') {
            let directory = if directory.is_empty() { b"." } else { directory };
            match self.execute(&c_string(&[directory, b"/", name].concat())) {
                Obstacle::Missing => {}
                // Perhaps another directory has one that can be run.
                obstacle @ (Obstacle::NoInterpreter | Obstacle::Error(Errno::EACCES)) => worst = obstacle,
                obstacle => return obstacle,
            }
        }
        worst
    }

    fn execute(&self, path: &CStr) -> Obstacle {
        let Err(errno) = nix::unistd::execve(path, &self.arguments, &self.environment);
        match errno {
            Errno::ENOENT if access(path, AccessFlags::F_OK).is_ok() => return Obstacle::NoInterpreter,
            Errno::ENOENT | Errno::ENOTDIR => return Obstacle::Missing,
            Errno::ENOEXEC => {}
            errno => return Obstacle::Error(errno),
        }
        // A script without #! is the shell's, as for every shell and for execvp(3).
        let mut arguments = vec![c_string(b"/bin/sh"), path.to_owned()];
        arguments.extend(self.arguments[1..].iter().cloned());
        match nix::unistd::execve(c"/bin/sh", &arguments, &self.environment) {
            Err(Errno::ENOENT) => Obstacle::Error(Errno::ENOEXEC),
            Err(errno) => Obstacle::Error(errno),
        }
    }

    fn cannot_run(&self, obstacle: &Obstacle) -> Problem {
        let name = self.arguments[0].to_bytes();
        let (code, cause) = match obstacle {
            Obstacle::Missing => (Code::NoProgram, "not found".to_owned()),
            Obstacle::NoInterpreter => (Code::NoProgram, "its interpreter is not found".to_owned()),
            Obstacle::Error(errno) => (Code::CannotRun, format!("cannot be run: {}", os_error(&(*errno).into()))),
        };
        let hint = match obstacle {
            Obstacle::Missing if cli::is_command(name) => {
                "for secret-init's own command: docker run --entrypoint secret-init IMAGE COMMAND"
            }
            Obstacle::Missing if name.contains(&b'/') => "check the path in the image; a relative one starts at WORKDIR",
            Obstacle::Missing => "check the name, and PATH in the image",
            Obstacle::NoInterpreter => "the file is there; what its #! line or ELF header names is not in the image",
            Obstacle::Error(Errno::EACCES) => "the file must be executable (chmod +x) for the program's user, and no directory",
            Obstacle::Error(Errno::ENOEXEC) => "is it built for another architecture, or a script without #! where there is no /bin/sh?",
            Obstacle::Error(Errno::E2BIG) => "arguments and environment are too large together: deliver large secrets as files",
            Obstacle::Error(_) => "check the file in the image",
        };
        Problem::new(code, cause).about(printable(name)).hint(hint)
    }
}

/// Why a program does not run.
enum Obstacle {
    Missing,
    /// The file is there, and execve(2) says that it is not: it means what the file needs.
    NoInterpreter,
    Error(Errno),
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
