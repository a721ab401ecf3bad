//! Where secrets come from: one narrow trait, and a table with a row for each store.
//!
//! A store only answers. It sends no signals, ends nothing and prints nothing.

#[cfg(feature = "aws")]
mod aws;
mod cred;
mod dotenv;
mod file;
#[cfg(feature = "remote")]
mod http;
mod json;
mod literal;
mod settings;
mod traffic;
#[cfg(feature = "vault")]
mod vault;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use crate::reference::{Reference, Scheme, Selector};
use crate::report::Code;
use crate::secret::{Digest, Key, Secret, Version};

pub use dotenv::{Line, parse as parse_dotenv};
pub use file::{LARGEST, read as read_file};
#[cfg(feature = "remote")]
pub use http::{Client, Servers, host_and_port, parse_address};
pub use settings::{Auth, Instance, Settings, Variables};
pub use traffic::{Histogram, Requests, Traffic};

/// A future on the heap, so that stores of all kinds fit into one table.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of secrets.
pub trait Store: Send + Sync {
    /// Fetches each of the wanted secrets and answers in the same order. A local store's answer is ready at once.
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Result<Fetched, Failure>>>;

    /// What the user should know of how it went, although it went.
    fn remarks(&self) -> Vec<Failure> {
        Vec::new()
    }

    /// The store as one whose logins and secrets have an end, if they do.
    fn renewing(&self) -> Option<&dyn Renew> {
        None
    }
}

/// What is asked of a store.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which secret; the selector and the options that are not the store's own are not its concern.
    pub reference: Reference,
    /// The version that is known already: the same is answered by [`Fetched::Unchanged`].
    pub since: Option<Version>,
}

/// What a store answers.
#[derive(Debug)]
pub enum Fetched {
    /// The secret as it is now.
    New {
        /// Its content.
        content: Content,
        /// What the store calls this state of it.
        version: Version,
        /// How long it is good for.
        life: Life,
    },
    /// It is as it was.
    Unchanged,
}

/// How long a secret is good for, from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Until somebody writes another, which the store does not tell.
    Lasting,
    /// Until its lease ends: it was made for us, and each read makes another.
    Leased(Lease),
    /// Until then, when the store itself makes another (a static role).
    Rotated(Duration),
    /// Until then: each read makes another, and this one cannot be made to last longer.
    Ending(Duration),
}

/// What a store calls the promise that a secret stays good for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name at the store. Whoever may renew leases can end it by this name.
    pub id: String,
    /// How long it lasts.
    pub term: Term,
}

/// A time that has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// How long it lasts, from now on.
    pub duration: Duration,
    /// Whether the store would make it longer.
    pub is_renewable: bool,
}

/// A store whose logins and secrets have an end.
pub trait Renew: Send + Sync {
    /// The number of the login: each new one has another. Leases end with the login that they came with.
    fn login_number(&self) -> u64;

    /// How long the login is good for; none when there is none, or it has no end.
    fn login(&self) -> BoxFuture<'_, Result<Option<Term>, Failure>>;

    /// Makes the login last longer, and tells how long it lasts now.
    fn renew_login(&self) -> BoxFuture<'_, Result<Option<Term>, Failure>>;

    /// Logs in anew. The login before it lasts, with its leases, until its own end.
    fn log_in(&self) -> BoxFuture<'_, Result<Option<Term>, Failure>>;

    /// Asks for a lease to last this long from now on. The answer tells how long it really lasts: at the end of the longest time that it can have it is less.
    fn renew<'a>(&'a self, lease: &'a str, duration: Duration) -> BoxFuture<'a, Result<Term, Failure>>;

    /// Ends leases.
    fn end<'a>(&'a self, leases: &'a [String]) -> BoxFuture<'a, Result<(), Failure>>;

    /// Ends leases, and the login when it was made for us.
    fn revoke<'a>(&'a self, leases: &'a [String]) -> BoxFuture<'a, Result<(), Failure>>;

    /// What another process needs to go on with the same login; none without one.
    fn remember(&self) -> BoxFuture<'_, Option<Secret>>;

    /// Goes on with what [`remember`](Self::remember) gave in another process.
    fn resume<'a>(&'a self, remembered: &'a Secret) -> BoxFuture<'a, ()>;
}

/// A secret is bytes, or named values where the store itself has names.
#[derive(Debug)]
pub enum Content {
    /// Bytes; a selector reads them as JSON.
    Bytes(Secret),
    /// Named values; a selector takes one.
    Map(BTreeMap<String, Secret>),
}

/// Why a store has no answer. Nothing of the secret is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind.
    pub kind: FailureKind,
    /// What happened, in words.
    pub cause: String,
    /// What to try.
    pub hint: Option<String>,
}

/// The kinds of failure, which decide about trying again and about the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No such secret, or no such key in it.
    NotFound,
    /// Not for us.
    Denied,
    /// The store does not answer now.
    Unavailable {
        /// When it asks to be tried again.
        retry_after: Option<Duration>,
    },
    /// The secret is there and cannot be used.
    Invalid,
    /// The store does not speak as it should.
    Protocol,
    /// The store cannot be asked as it is set up.
    Misconfigured,
    /// The store cannot be asked for lack of descriptors or threads.
    System,
    /// Nothing is known to be wrong: it can be tried once alone, and that is left to a start.
    Untried,
}

impl FailureKind {
    /// The word for it in metrics and in the audit.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Unavailable { .. } => "unavailable",
            Self::Invalid => "invalid",
            Self::Protocol => "protocol",
            Self::Misconfigured => "misconfigured",
            Self::System => "system",
            Self::Untried => "untried",
        }
    }
}

/// The word for what came of asking for a secret.
#[must_use]
pub fn word(result: &Result<Fetched, Failure>) -> &'static str {
    match result {
        Ok(Fetched::New { .. }) => "ok",
        Ok(Fetched::Unchanged) => "unchanged",
        Err(failure) => failure.kind.word(),
    }
}

impl Content {
    /// The digest of all of it: the same for the same content, and for no other.
    #[must_use]
    pub fn digest(&self, key: Key) -> Digest {
        match self {
            Self::Bytes(secret) => key.digest(secret.expose()),
            Self::Map(map) => {
                let mut text = Secret::default();
                for (name, value) in map {
                    // With their lengths, so that no bytes can change sides.
                    for part in [name.as_bytes(), value.expose()] {
                        text.push(&part.len().to_le_bytes());
                        text.push(part);
                    }
                }
                key.digest(text.expose())
            }
        }
    }
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: FailureKind, cause: impl Into<String>) -> Self {
        Self { kind, cause: cause.into(), hint: None }
    }

    /// Adds what to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether a new try may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, FailureKind::Unavailable { .. })
    }

    /// When the store asks to be tried again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            FailureKind::Unavailable { retry_after } => retry_after,
            _ => None,
        }
    }

    /// The exit code that it calls for.
    #[must_use]
    pub fn code(&self) -> Code {
        match self.kind {
            FailureKind::NotFound => Code::NotFound,
            FailureKind::Denied => Code::Denied,
            FailureKind::Unavailable { .. } => Code::Unavailable,
            FailureKind::Invalid => Code::Data,
            FailureKind::Protocol => Code::Protocol,
            FailureKind::System => Code::System,
            FailureKind::Misconfigured | FailureKind::Untried => Code::Configuration,
        }
    }
}

/// A store, or what keeps it from being made.
pub type Opened = Result<Box<dyn Store>, Failure>;

/// A row of the table of stores.
pub struct Row {
    /// The scheme that it answers.
    pub scheme: Scheme,
    /// Its name in tables.
    pub name: &'static str,
    /// What it is, for the help.
    pub summary: &'static str,
    /// Whether it is asked over a network: its answers take time, and it may not answer at all.
    pub is_remote: bool,
    /// Makes it, as the configuration sets it up or as the environment does. It reads no file and asks nobody: the plan opens each store to see whether it is set
    /// up well, which [`FailureKind::Misconfigured`] says.
    pub open: fn(&Settings, Option<&Instance>) -> Opened,
}

/// As many secrets of a region of AWS are fetched one by one, side by side: nothing is faster. For more there are batches, which need a right of their own.
pub const FEW_OF_AWS: usize = 3;

/// The stores that this build has.
pub const ROWS: &[Row] = &[
    file::ROW,
    dotenv::ROW,
    cred::ROW,
    literal::ROW,
    #[cfg(feature = "vault")]
    vault::VAULT,
    #[cfg(feature = "vault")]
    vault::BAO,
    #[cfg(feature = "aws")]
    aws::SECRETS,
    #[cfg(feature = "aws")]
    aws::PARAMETERS,
];

/// The row of a scheme; `None` when this build has no such store.
#[must_use]
pub fn row(scheme: Scheme) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.scheme == scheme)
}

/// The file that a secret is read from; none when its store is none of files.
#[must_use]
pub fn path(reference: &Reference, settings: &Settings) -> Option<PathBuf> {
    let locator = Path::new(OsStr::from_bytes(&reference.locator));
    match reference.scheme {
        Scheme::File | Scheme::Dotenv => Some(locator.to_owned()),
        Scheme::Cred => Some(Path::new(OsStr::from_bytes(settings.variables.get("CREDENTIALS_DIRECTORY")?)).join(locator)),
        _ => None,
    }
}

/// The keys of a secret with their values; none for a value that is neither text nor number nor boolean.
///
/// # Errors
///
/// [`FailureKind::Invalid`] when the secret has no keys.
pub fn entries(content: &Content) -> Result<Vec<(String, Option<Secret>)>, Failure> {
    match content {
        Content::Bytes(secret) => json::entries(secret),
        Content::Map(map) => Ok(map.iter().map(|(key, secret)| (key.clone(), Some(Secret::copy_of(secret.expose())))).collect()),
    }
}

/// Takes the part of a secret that a selector names; all of it without one.
///
/// # Errors
///
/// [`FailureKind::NotFound`] when there is no such part, [`FailureKind::Invalid`] when there can be none.
pub fn select(content: &Content, selector: Option<&Selector>) -> Result<Secret, Failure> {
    match (content, selector) {
        (Content::Bytes(secret), None) => Ok(Secret::copy_of(secret.expose())),
        (Content::Bytes(secret), Some(selector)) => json::select(secret, selector),
        (Content::Map(map), Some(Selector::Key(key))) => match map.get(key) {
            Some(secret) => Ok(Secret::copy_of(secret.expose())),
            None => Err(Failure::new(FailureKind::NotFound, "no such key")),
        },
        (Content::Map(_), _) => Err(Failure::new(FailureKind::Invalid, "a key is needed: the secret has several").hint("name one after #")),
    }
}
