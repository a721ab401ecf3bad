//! The record of who was given what, for those who have to account for it: a line of JSON for each access. It has names, versions and keyed fingerprints, and
//! never a value.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use serde::Serialize;

use crate::plan::Plan;
use crate::reference::Reference;
use crate::report::{self, Code, Problem, os_error, printable};
use crate::resolve::Answer;
use crate::secret::{Digest, Key, Version};
use crate::store::{self, Fetched};

/// Where the record is kept; nowhere when nobody asked for one.
#[derive(Debug, Default)]
pub struct Audit {
    sink: Sink,
    /// Whether the last line could not be written, or not all of it.
    is_torn: AtomicBool,
    /// Whether it was told that lines are lost.
    is_told: AtomicBool,
}

#[derive(Debug, Default)]
enum Sink {
    #[default]
    Nowhere,
    Stderr,
    File(File, String),
}

/// What happened to a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Its store was asked for it.
    Fetched,
    /// A new value of it was put in place.
    Rotated,
    /// Its lease was made longer.
    Renewed,
    /// Its lease was ended.
    Revoked,
    /// Somebody was told that it has changed.
    Notified,
    /// `validate` did not accept it, and the old value stays.
    Refused,
    /// It changed, and could not be put in place.
    Failed,
}

/// A line of the record.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What happened.
    pub event: Event,
    /// To which deliveries, by their names: variables, paths of files.
    pub names: &'a [&'a str],
    /// To which secret.
    pub reference: Option<&'a Reference>,
    /// In which version.
    pub version: Option<&'a Version>,
    /// What came of it, in a word: `ok`, or the kind of failure.
    pub outcome: &'a str,
    /// The digest of its content.
    pub fingerprint: Option<Digest>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: Event,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    names: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

impl Audit {
    /// Opens the record that was asked for: `-` is stderr. A file is added to, and made for us alone when it is not there.
    ///
    /// # Errors
    ///
    /// With exit code 73 when it cannot be written.
    pub fn open(path: Option<&Path>) -> Result<Self, Problem> {
        let mut is_torn = false;
        let sink = match path {
            None => Sink::Nowhere,
            Some(path) if path == Path::new("-") => Sink::Stderr,
            Some(path) => {
                let name = printable(path.as_os_str().as_encoded_bytes()).into_owned();
                let (file, torn) = open(path).map_err(|cause| {
                    let problem = Problem::new(Code::CannotWrite, cause).about(&name).about("--audit");
                    problem.hint("name a file in a directory that can be written to, or - for stderr; without a record nothing is fetched")
                })?;
                is_torn = torn;
                Sink::File(file, name)
            }
        };
        Ok(Self { sink, is_torn: is_torn.into(), is_told: false.into() })
    }

    /// Writes a line. When that fails it is told, once, and nothing else comes of it: a full disk ends no program.
    pub fn record(&self, entry: &Entry) {
        if let Sink::Nowhere = self.sink {
            return;
        }
        let line = Line {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            event: entry.event,
            names: entry.names,
            reference: entry.reference.map(|reference| reference.whole().to_string()),
            store: entry.reference.and_then(|reference| store::row(reference.scheme)).map(|row| row.name),
            version: entry.version.map(ToString::to_string),
            outcome: entry.outcome,
            fingerprint: entry.fingerprint.map(|digest| digest.to_string()),
        };
        // It fails for maps with keys that are no strings, and there are none.
        let text = serde_json::to_string(&line).unwrap_or_default();
        if let Err(error) = self.write(&text) {
            self.tell(&error);
        }
    }

    /// Records that a store was asked for a secret, and what it said.
    pub fn fetched(&self, plan: &Plan, answer: &Answer) {
        if let Sink::Nowhere = self.sink {
            return;
        }
        let mut names: Vec<&str> = Vec::new();
        for (delivery, _) in plan.references().filter(|(_, reference)| reference.same_secret(&answer.reference)) {
            // References of one delivery come one after the other.
            if names.last() != Some(&delivery.name.as_str()) {
                names.push(&delivery.name);
            }
        }
        let fingerprint = match &answer.result {
            Ok(Fetched::New { content, .. }) => Some(content.digest(Key::own())),
            _ => None,
        };
        self.record(&Entry {
            event: Event::Fetched,
            names: &names,
            reference: Some(&answer.reference),
            version: answer.version(),
            outcome: store::word(&answer.result),
            fingerprint,
        });
    }

    /// One write for a line, so that those of several processes do not mix.
    fn write(&self, text: &str) -> io::Result<()> {
        // A line that was cut short is not to spoil the next.
        let start = if self.is_torn.load(Ordering::Relaxed) { "\n" } else { "" };
        let line = format!("{start}{text}\n");
        let written = match &self.sink {
            Sink::Nowhere => return Ok(()),
            Sink::Stderr => retried(io::stderr(), line.as_bytes()),
            Sink::File(file, _) => retried(file, line.as_bytes()),
        };
        let length = written?;
        if length > 0 {
            self.is_torn.store(length > start.len() && length < line.len(), Ordering::Relaxed);
        }
        if length < line.len() { Err(Errno::ENOSPC.into()) } else { Ok(()) }
    }

    fn tell(&self, error: &io::Error) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = if let Sink::File(_, name) = &self.sink { name } else { "stderr" };
        let problem = Problem::new(Code::CannotWrite, format!("the record has gaps from here on: {}", os_error(error)));
        report::warn_of(&[problem.about(name).about("--audit").hint("is the disk full, or does nobody read from the pipe?")]);
    }
}

fn retried(mut sink: impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match sink.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Opens for additions, without following a link: where others can write they could have us write anywhere. A pipe that nobody reads from is refused and not waited
/// for. Tells also whether the last line there is not whole.
fn open(path: &Path) -> Result<(File, bool), String> {
    let failed = |errno: Errno| format!("the record cannot be opened: {}", errno.desc().to_lowercase());
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | SAFELY;
    let opened = nix::fcntl::open(path, flags, Mode::from_bits_truncate(0o600)).map_err(|errno| match errno {
        Errno::ELOOP => "the record is not written through a link".to_owned(),
        Errno::ENXIO => "nobody reads from the pipe".to_owned(),
        errno => failed(errno),
    })?;
    let status = nix::sys::stat::fstat(&opened).map_err(failed)?;
    match SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => Ok((opened.into(), ends_within_a_line(path).unwrap_or(false))),
        SFlag::S_IFIFO => Ok((opened.into(), false)),
        _ => Err("the record is neither a regular file nor a pipe".to_owned()),
    }
}

const SAFELY: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// Whether a start before this one, on a full disk, left a line that is not whole.
fn ends_within_a_line(path: &Path) -> io::Result<bool> {
    let mut file = File::from(nix::fcntl::open(path, OFlag::O_RDONLY | SAFELY, Mode::empty())?);
    let mut last = [0];
    file.seek(SeekFrom::End(-1)).and_then(|_| file.read_exact(&mut last)).map(|()| last != *b"\n")
}
