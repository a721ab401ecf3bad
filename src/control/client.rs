//! The side of who asks.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket};
use nix::sys::stat::Mode;

use super::{Answer, Kind, NAME, Row};
use crate::cli::{Options, TIMEOUT};
use crate::deliver;
use crate::report::{self, Code, Failure, Format, Problem, os_error, printable, table};

/// An answer is no longer.
const LONGEST: usize = 16 << 20;
/// How long the agent may take to tell how it is. Others may be before us.
const SOON: Duration = Duration::from_secs(10);
/// How much longer than the stores the agent may take to look at everything: it also checks, writes and tells the program.
const BESIDES: Duration = Duration::from_mins(1);

/// Asks the agent, prints what it says, and gives the exit code that it calls for.
///
/// # Errors
///
/// When there is no agent, or it does not answer.
pub fn ask(kind: Kind, options: &Options) -> Result<u8, Failure> {
    let stream = find(options)?;
    let patience = match kind {
        Kind::Health => SOON,
        Kind::Refresh => options.timeout.unwrap_or(TIMEOUT) + BESIDES,
    };
    let question = format!("{}\n", kind.word());
    // A send to who has gone away would raise a signal otherwise. What is wrong shows when the answer is read.
    let _ = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(question.as_bytes())], &[], MsgFlags::MSG_NOSIGNAL, None);
    let text = read(&stream, patience).map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "the agent does not answer".to_owned(),
            _ => format!("the agent cannot be asked: {}", os_error(&error)),
        };
        Problem::new(Code::Unavailable, cause).hint("is it busy with a store that does not answer? its messages tell")
    })?;
    let Some(answer) = Answer::read(&text) else {
        return Err(Problem::new(Code::Unavailable, "the agent broke off its answer")
            .hint("was the program, or the agent, ended meanwhile?")
            .into());
    };
    report::answer(&if options.log_format == Format::Json { answer.lines() } else { for_people(&answer) })?;
    Ok(answer.code)
}

/// The line about all of it comes last, where it is seen.
fn for_people(answer: &Answer) -> String {
    let mut rows = vec![["NAME", "REFERENCE", "RESULT"].map(str::to_owned)];
    rows.extend(answer.rows.iter().map(|Row { name, reference, result }| {
        // It may come from somebody else: where others can write they can listen.
        [name, reference, result].map(|cell| printable(cell.as_bytes()).into_owned())
    }));
    let rows = if answer.rows.is_empty() { String::new() } else { table(&rows) };
    format!("{rows}{}\n", printable(answer.message.as_bytes()))
}

/// The first agent that answers, where its directory can be.
fn find(options: &Options) -> Result<UnixStream, Problem> {
    let places = deliver::places(options);
    let mut denied = None;
    for place in &places {
        match try_at(place) {
            Ok(stream) => return Ok(stream.into()),
            Err(Errno::EACCES | Errno::EPERM) => denied = denied.or(Some(place)),
            Err(_) => {}
        }
    }
    if let Some(place) = denied {
        let problem =
            Problem::new(Code::Denied, "the agent there is another user's").about(printable(place.as_os_str().as_encoded_bytes()));
        return Err(problem.hint("ask as root, or as the user that secret-init runs as"));
    }
    let places: Vec<_> = places.iter().map(|place| printable(place.as_os_str().as_encoded_bytes())).collect();
    let problem = Problem::new(Code::Unavailable, format!("no agent answers in {}", places.join(", ")));
    Err(problem
        .hint("it runs while a secret is watched (--watch, refresh=, rotation:); --dir, or SECRET_INIT_DIR, says where its directory is"))
}

fn try_at(place: &Path) -> Result<OwnedFd, Errno> {
    let directory = nix::fcntl::open(place, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The path itself may be too long for the address of a socket.
    let address = UnixAddr::new(format!("/proc/self/fd/{}/{NAME}", directory.as_fd().as_raw_fd()).as_str())?;
    connect(socket.as_raw_fd(), &address).map(|()| socket)
}

fn read(stream: &UnixStream, patience: Duration) -> std::io::Result<String> {
    let end = Instant::now() + patience;
    let mut text = Vec::new();
    let mut part = [0; 8192];
    loop {
        // A timeout of zero would be none.
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match (&mut &*stream).read(&mut part)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&part[..length]),
        }
        if text.len() > LONGEST || Instant::now() > end {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
}
