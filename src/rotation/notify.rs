//! How to tell of a change, other than by a signal: by a program that is run, or a URL that is asked.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Pid, Uid};

use crate::report::{Code, Problem, os_error, printable};
use crate::run::DEFAULT_PATH;
use crate::store::Settings;
use crate::sys::child::{self, User};
use crate::sys::signal::{self, Signal};
use crate::user::Account;

/// Runs a program beside ours, as the account if there is one, in `/`, with this environment alone. It reads nothing, and what it prints goes to our stderr. One that does
/// not end within the limit is killed with its process group, as when this future is dropped.
///
/// # Errors
///
/// When it cannot be run, or does not end with 0 in time. Of its arguments the first alone is told: the others may say more than they should.
pub async fn run(argv: &[String], environment: &[(Vec<u8>, Vec<u8>)], account: Option<&Account>, limit: Duration) -> Result<(), Problem> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let problem = |cause: String| Problem::new(Code::System, cause).about(printable(program.as_bytes()));
    let command = command(program, arguments, environment, account);
    let mut running = command.and_then(|command| tokio::process::Command::from(command).spawn()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => problem("not found".to_owned()).hint("check the name, and PATH in the image"),
        _ => {
            problem(format!("cannot be run: {}", os_error(&error))).hint("check that the file is in the image, and executable for its user")
        }
    })?;
    let mut group = Group(running.id());
    let ended = tokio::time::timeout(limit, running.wait()).await;
    if ended.is_ok() {
        group.0 = None;
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(problem(end_of(status)).hint("what it printed stands before this")),
        Ok(Err(error)) => Err(problem(format!("its end is not known: {}", os_error(&error)))),
        Err(_) => {
            drop(group);
            let _ = running.wait().await;
            Err(problem(format!("did not end within {}, and was killed", humantime::format_duration(limit))))
        }
    }
}

fn command(program: &str, arguments: &[String], environment: &[(Vec<u8>, Vec<u8>)], account: Option<&Account>) -> io::Result<Command> {
    use std::ffi::OsStr;
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    let variables = environment.iter().map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value)));
    command.args(arguments).env_clear().envs(variables);
    if !environment.iter().any(|(name, _)| name == b"PATH") {
        command.env("PATH", OsStr::from_bytes(DEFAULT_PATH));
    }
    let stderr = || io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
    command.current_dir("/").process_group(0).stdin(Stdio::null()).stdout(stderr()?).stderr(stderr()?);
    let user = account.filter(|account| !account.is_current()).map(|account| User {
        uid: Uid::from_raw(account.uid),
        gid: Gid::from_raw(account.gid),
        groups: account.groups.iter().copied().map(Gid::from_raw).collect(),
    });
    child::prepare(&mut command, user);
    Ok(command)
}

/// A process group that is killed when nobody waits for it any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(number) = self.0.and_then(|number| i32::try_from(number).ok()) {
            signal::send(Pid::from_raw(-number), Signal::KILL);
        }
    }
}

fn end_of(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with {code}"),
        (None, Some(signal)) => format!("{} ended it", Signal(signal)),
        (None, None) => "it ended".to_owned(),
    }
}

#[cfg(feature = "remote")]
pub use http::post;

/// This build asks no URL; the plan says so first.
#[cfg(not(feature = "remote"))]
pub fn post(_url: &str, _names: &[String], _settings: &Settings) -> std::future::Ready<Result<(), Problem>> {
    std::future::ready(Err(Problem::new(Code::Configuration, "this build of secret-init cannot ask a URL")))
}

#[cfg(feature = "remote")]
mod http {
    use std::time::Duration;

    use ::http::{Request, StatusCode};
    use serde_json::json;

    use super::{Problem, Settings};
    use crate::store::{Client, Failure, FailureKind, Servers, host_and_port, parse_address};
    use crate::sys::random;

    /// After each try that failed, but for the last, half of this or more is waited for.
    const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

    /// Tells a URL the names of what has changed, by POST, as `{"changed":["NAME"]}`. It is asked up to three times while that may help. Any answer of 2xx will do; none is
    /// followed to another place.
    ///
    /// # Errors
    ///
    /// When it may not be asked, or nothing said yes. Of the URL host and port alone are told.
    pub async fn post(url: &str, names: &[String], settings: &Settings) -> Result<(), Problem> {
        let problem = |failure: Failure| {
            let problem = Problem::new(failure.code(), failure.cause);
            match failure.hint {
                Some(hint) => problem.hint(hint),
                None => problem,
            }
        };
        let address = parse_address(url, settings).map_err(problem)?;
        let client = Client::new(&Servers::default(), settings).map_err(problem)?;
        let host = host_and_port(&address);
        let body = json!({ "changed": names }).to_string().into_bytes();
        let mut pauses = PAUSES.iter();
        loop {
            let Err(failure) = ask(&client, address.as_str(), &host, body.clone()).await else { return Ok(()) };
            let pause = pauses.next().filter(|_| failure.is_temporary());
            let Some(pause) = pause else { return Err(problem(failure)) };
            // Who was asked cannot tell when it will be well again: the pause is the only event there is.
            tokio::time::sleep(pause.mul_f64(f64::midpoint(1.0, random::fraction()))).await;
        }
    }

    async fn ask(client: &Client, url: &str, host: &str, body: Vec<u8>) -> Result<(), Failure> {
        let request = Request::post(url).header("content-type", "application/json").body(body);
        let request = request.map_err(|_| Failure::new(FailureKind::Misconfigured, "the address is no URL"))?;
        let status = client.send(request).await?.status();
        let kind = match status {
            _ if status.is_success() => return Ok(()),
            StatusCode::TOO_MANY_REQUESTS => FailureKind::Unavailable { retry_after: None },
            _ if status.is_server_error() => FailureKind::Unavailable { retry_after: None },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FailureKind::Denied,
            _ => FailureKind::Protocol,
        };
        let failure = Failure::new(kind, format!("{host}: it was told of the change, and answered {}", status.as_u16()));
        Err(if status.is_redirection() { failure.hint("redirects are not followed: name the place itself") } else { failure })
    }
}
