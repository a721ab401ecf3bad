//! `secret-init health` and `secret-init refresh`: what a probe or somebody in the container asks the agent, by a socket in the directory of the secret files.

mod client;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{FileStat, Mode, fchmod, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::health::Seen;
use crate::listen::{PATIENCE, Questions};
use crate::report::{Code, Problem, count, os_error};

pub use client::ask;

/// The name of the socket in the directory. No file of a plan can have it.
pub const NAME: &str = ".control";

/// A question is no longer.
const LONGEST: usize = 64;
/// As many may wait for a refresh, which takes as long as the stores do. They keep nobody from asking how it is.
const WAITING: usize = 16;

/// The agent's side.
pub struct Control {
    directory: OwnedFd,
    /// Which file is ours: another agent may have put its own in its place.
    made: Option<(u64, u64)>,
    questions: Questions<Request>,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whether all is well.
    Health,
    /// To look at every secret now, and tell what came of it.
    Refresh,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Health, Self::Refresh];

    fn word(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Refresh => "refresh",
        }
    }
}

/// A question, with the way back to who asked.
pub struct Request {
    /// What is asked.
    pub kind: Kind,
    reply: oneshot::Sender<Answer>,
}

impl Request {
    /// Answers. Who has gone away meanwhile does not matter.
    pub fn answer(self, answer: Answer) {
        let _ = self.reply.send(answer);
    }
}

/// An answer: first line and rows, each of them an object of JSON on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The exit code for who asked.
    pub code: u8,
    /// How it is, in a line.
    pub message: String,
    /// About which secrets there is something to say.
    #[serde(skip)]
    pub rows: Vec<Row>,
}

/// What there is to say about a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The names of its deliveries.
    pub name: String,
    /// The reference to it.
    pub reference: String,
    /// What came of it: a word, and after a colon why.
    pub result: String,
}

/// What looking at a secret anew came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// It has changed, and the new value is in place.
    Changed,
    /// It is as it was.
    Unchanged,
    /// It could not be read or put in place: the code that it calls for, and why.
    Failed(Code, String),
}

/// An action that follows from a change, and is not done.
#[derive(Clone, Debug)]
pub struct Undone {
    /// Its name.
    pub action: &'static str,
    /// The variables and files that have changed.
    pub names: BTreeSet<String>,
    /// Why it failed; none when it is still to come.
    pub why: Option<Problem>,
}

impl Answer {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u8, message: message.into(), rows: Vec::new() }
    }

    /// The answer to [`Kind::Health`].
    #[must_use]
    pub fn of_health(seen: &Seen) -> Self {
        let row = |(state, ailment): (&crate::health::State, crate::health::Ailment)| {
            let cause = state.failure.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
            Row { name: state.names.join(", "), reference: state.reference.clone(), result: format!("{}{cause}", ailment.word()) }
        };
        let code = if seen.is_healthy() { 0 } else { Code::Unavailable as u8 };
        Self { code, message: seen.summary(), rows: seen.ailing().map(row).collect() }
    }

    /// The answer to [`Kind::Refresh`]: for each secret its names, the reference to it, and what came of it; and the actions that are not done.
    #[must_use]
    pub fn of_refresh(looked: impl IntoIterator<Item = (String, String, Looked)>, undone: impl IntoIterator<Item = Undone>) -> Self {
        let (mut changed, mut unchanged, mut failures) = (0, 0, Vec::new());
        let row = |(name, reference, looked): (String, String, Looked)| {
            let result = match looked {
                Looked::Changed => {
                    changed += 1;
                    "changed".to_owned()
                }
                Looked::Unchanged => {
                    unchanged += 1;
                    "unchanged".to_owned()
                }
                Looked::Failed(code, cause) => {
                    failures.push(code);
                    format!("failed: {cause}")
                }
            };
            Row { name, reference, result }
        };
        let mut rows: Vec<Row> = looked.into_iter().map(row).collect();
        let mut message = format!("{} changed, {unchanged} unchanged, {} failed", count(changed, "secret"), failures.len());
        for Undone { action, names, why } in undone {
            let name = names.into_iter().collect::<Vec<_>>().join(", ");
            let result = match &why {
                Some(problem) => {
                    failures.push(problem.code);
                    format!("{action} failed: {problem}")
                }
                None => format!("{action} is to come"),
            };
            message.push_str(if why.is_some() { "; the program does not know of all" } else { "; the program will know later" });
            rows.push(Row { name, reference: String::new(), result });
        }
        let first = Code::ALL.iter().find(|(code, _)| failures.contains(code));
        Self { code: first.map_or(0, |&(code, _)| code as u8), message, rows }
    }

    /// The lines of it.
    fn lines(&self) -> String {
        // It fails for maps with keys that are no strings, and there are none.
        let first = serde_json::to_string(self).unwrap_or_default();
        let rows = self.rows.iter().map(|row| serde_json::to_string(row).unwrap_or_default());
        std::iter::once(first).chain(rows).map(|line| line + "\n").collect()
    }

    /// Reads the lines; none when they are not whole.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let mut answer: Self = serde_json::from_str(lines.next()?).ok()?;
        answer.rows = lines.map(|line| serde_json::from_str(line).ok()).collect::<Option<_>>()?;
        Some(answer)
    }
}

impl Control {
    /// Listens in a directory, in place of whatever has the name there. Only within a runtime of tokio.
    ///
    /// # Errors
    ///
    /// With exit code 73 when no socket can be made there.
    pub fn open(directory: impl AsFd) -> Result<Self, Problem> {
        let failed = |error: io::Error| Problem::new(Code::CannotWrite, format!("no socket can be made: {}", os_error(&error))).about(NAME);
        let directory = directory.as_fd().try_clone_to_owned().map_err(failed)?;
        let socket = make(&directory).map_err(|errno| failed(errno.into()))?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
        let made = identity(&directory);
        let waiting = Arc::new(Semaphore::new(WAITING));
        Ok(Self { directory, made, questions: Questions::of(listener, move |stream, agent| serve(stream, agent, Arc::clone(&waiting))) })
    }

    /// The next question. Nothing is lost when it is not waited for to the end.
    pub async fn next(&mut self) -> Request {
        self.questions.next().await
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.made.is_some() && self.made == identity(&self.directory) {
            let _ = unlinkat(&self.directory, NAME, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Makes a socket that only we and root can connect to, and gives it its name when it answers already.
fn make(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    // What is bound gets the mode that the socket has then: there is no moment at which others could connect.
    fchmod(&socket, Mode::from_bits_truncate(0o600))?;
    // The start that comes after a crash sweeps names of this form.
    let temporary = format!(".secret-init-{}-control.tmp", std::process::id());
    let _ = unlinkat(directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    // By the descriptor: a path could lead elsewhere by now, and is too long for the address of a socket at times.
    bind(socket.as_raw_fd(), &UnixAddr::new(format!("/proc/self/fd/{}/{temporary}", directory.as_raw_fd()).as_str())?)?;
    let named = listen(&socket, Backlog::MAXCONN).and_then(|()| nix::fcntl::renameat(directory, temporary.as_str(), directory, NAME));
    if named.is_err() {
        let _ = unlinkat(directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    named.map(|()| socket)
}

/// Which file has the name now.
fn identity(directory: &OwnedFd) -> Option<(u64, u64)> {
    let FileStat { st_dev, st_ino, .. } = fstatat(directory, NAME, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    Some((st_dev, st_ino))
}

/// One question and its answer; then the connection is closed.
async fn serve(mut stream: UnixStream, agent: mpsc::Sender<Request>, waiting: Arc<Semaphore>) {
    // Also of whom nothing is taken: what is closed with something unread is reset, and the answer may be lost by it.
    let Ok(Ok(question)) = timeout(PATIENCE, read_line(&mut stream)).await else { return };
    let is_trusted = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw());
    let refusal = match Kind::ALL.into_iter().find(|kind| question == kind.word().as_bytes()) {
        _ if !is_trusted => Answer::new(Code::Denied, "only root and the user of secret-init may ask"),
        None => Answer::new(Code::Usage, "health and refresh are known"),
        Some(Kind::Health) => return relay(stream, agent, Kind::Health).await,
        Some(Kind::Refresh) => match waiting.try_acquire_owned() {
            Ok(place) => {
                // The place among those who are served is another's from here on.
                tokio::spawn(async move {
                    relay(stream, agent, Kind::Refresh).await;
                    drop(place);
                });
                return;
            }
            Err(_) => Answer::new(Code::Unavailable, format!("{WAITING} others wait for a refresh already")),
        },
    };
    say(stream, &refusal).await;
}

/// Has the agent answer, which takes as long as it takes.
async fn relay(stream: UnixStream, agent: mpsc::Sender<Request>, kind: Kind) {
    let (reply, answer) = oneshot::channel();
    if agent.send(Request { kind, reply }).await.is_ok()
        && let Ok(answer) = answer.await
    {
        say(stream, &answer).await;
    }
}

async fn say(mut stream: UnixStream, answer: &Answer) {
    let _ = timeout(PATIENCE, async {
        stream.write_all(answer.lines().as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// A line without its end; what is too long for one is cut.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(LONGEST);
    while line.len() < LONGEST {
        if stream.read_buf(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            line.truncate(end);
            break;
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_tells_what_changed_and_what_failed_and_ends_with_the_code_of_the_first() {
        let row = |name: &str, looked| (name.to_owned(), format!("file:/{name}"), looked);
        let answer = Answer::of_refresh(
            [
                row("a", Looked::Changed),
                row("b", Looked::Failed(Code::Unavailable, "connection refused".to_owned())),
                row("c", Looked::Failed(Code::Denied, "permission denied (403)".to_owned())),
                row("d", Looked::Unchanged),
            ],
            [],
        );
        assert_eq!((answer.message.as_str(), answer.code), ("1 secret changed, 1 unchanged, 2 failed", 77));
        let lines = "\
{\"code\":77,\"message\":\"1 secret changed, 1 unchanged, 2 failed\"}
{\"name\":\"a\",\"reference\":\"file:/a\",\"result\":\"changed\"}
{\"name\":\"b\",\"reference\":\"file:/b\",\"result\":\"failed: connection refused\"}
{\"name\":\"c\",\"reference\":\"file:/c\",\"result\":\"failed: permission denied (403)\"}
{\"name\":\"d\",\"reference\":\"file:/d\",\"result\":\"unchanged\"}
";
        assert_eq!((answer.lines().as_str(), Answer::read(lines)), (lines, Some(answer)));
        assert_eq!(Answer::of_refresh([row("a", Looked::Unchanged)], []).code, 0);
    }

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        for text in [
            "",
            "\n",
            "{}\n",
            "{\"code\":0,\"message\":\"x\"}",
            "{\"code\":0,\"message\":\"x\"}\n{}\n",
            "{\"code\":300,\"message\":\"x\"}\n",
        ] {
            assert_eq!(Answer::read(text), None, "{text}");
        }
    }
}
