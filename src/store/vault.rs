//! `vault:PATH#key` and `bao:PATH#key`: `HashiCorp` Vault and `OpenBao`, which speak alike.
//!
//! The path is that of the API, so one request serves all engines: KV of both versions, dynamic credentials, static roles.

mod api;
mod login;
mod setup;

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;

use super::http::Client;
use super::{BoxFuture, Content, Failure, FailureKind, Fetched, Instance, Lease, Life, Opened, Row, Settings, Store, Term, Wanted};
use crate::reference::{Reference, Scheme};
use crate::report::printable;
use crate::secret::{Secret, Version};

use api::{Api, Denial, Read, RevokeLease, RevokeSelf, Trouble};
use setup::Setup;

pub(super) const VAULT: Row = Row {
    scheme: Scheme::Vault,
    name: "vault",
    summary: "Vault: vault:secret/data/db#password, vault:database/creds/app#username",
    is_remote: true,
    open: |settings, instance| open(Scheme::Vault, settings, instance),
};

pub(super) const BAO: Row = Row {
    scheme: Scheme::Bao,
    name: "bao",
    summary: "OpenBao: bao:secret/data/db#password",
    is_remote: true,
    open: |settings, instance| open(Scheme::Bao, settings, instance),
};

fn open(scheme: Scheme, settings: &Settings, instance: Option<&Instance>) -> Opened {
    let setup = Setup::new(scheme, settings, instance)?;
    Ok(Box::new(Vault { setup, is_rehearsal: settings.is_rehearsal, known: Mutex::default(), left: std::sync::Mutex::default() }))
}

/// How many requests are under way at once.
const SIDE_BY_SIDE: usize = 16;

struct Vault {
    setup: Setup,
    is_rehearsal: bool,
    /// What is kept from one fetch to the next. No connection is.
    known: Mutex<Known>,
    /// The leases that a rehearsal could not give back.
    left: std::sync::Mutex<Vec<Failure>>,
}

/// What a login gave.
#[derive(Default)]
struct Known {
    token: Option<Secret>,
    /// What was unwrapped, which can be done once.
    unwrapped: Option<Secret>,
}

impl Store for Vault {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Result<Fetched, Failure>>> {
        Box::pin(async move {
            match self.read_all(wanted).await {
                Ok(answers) => answers,
                Err(failure) => wanted.iter().map(|_| Err(failure.clone())).collect(),
            }
        })
    }

    fn remarks(&self) -> Vec<Failure> {
        self.left.lock().map_or_else(|_| Vec::new(), |left| left.clone())
    }
}

/// What was read, and the lease that it came with.
struct Found {
    fetched: Fetched,
    lease: Option<String>,
}

impl Vault {
    async fn read_all(&self, wanted: &[Wanted]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        let client = Client::new(&self.setup.servers, &self.setup.transport)?;
        let api = self.log_in(&client, false).await?;
        // The first opens the connection that all others then share.
        let (first, rest) = wanted.split_at(1.min(wanted.len()));
        let mut found = self.read_some(&api, first).await;
        found.extend(self.read_some(&api, rest).await);
        // A token ends when it is revoked or its time is over: a new login may get what the old one does not.
        let refused: Vec<usize> =
            (0..wanted.len()).filter(|&index| matches!(&found[index], Err(trouble) if trouble.is_refusal())).collect();
        self.give_back(&api, &found).await;
        if !refused.is_empty()
            && self.setup.login.can_be_repeated()
            // Whatever keeps us from it, the refusal is what there is to tell.
            && let Ok(api) = self.log_in(&client, true).await
        {
            let again: Vec<Wanted> = refused.iter().map(|&index| wanted[index].clone()).collect();
            let answers = self.read_some(&api, &again).await;
            self.give_back(&api, &answers).await;
            for (index, answer) in refused.into_iter().zip(answers) {
                found[index] = answer;
            }
        }
        let answers = wanted.iter().zip(found);
        Ok(answers
            .map(|(wanted, found)| found.map(|found| found.fetched).map_err(|trouble| failure(&wanted.reference, &trouble)))
            .collect())
    }

    /// The API with a token: the one that is there already, or that of a new login.
    async fn log_in(&self, client: &Client, anew: bool) -> Result<Api, Failure> {
        let Known { token, unwrapped } = &mut *self.known.lock().await;
        if anew || token.is_none() {
            *token = Some(login::token(&self.setup, client, unwrapped, self.is_rehearsal).await?);
        }
        let token = token.as_ref().map_or(&[][..], Secret::expose);
        Api::new(&self.setup, client.clone(), token)
    }

    async fn read_some(&self, api: &Api, wanted: &[Wanted]) -> Vec<Result<Found, Trouble>> {
        let reads: Vec<BoxFuture<'_, _>> = wanted.iter().map(|wanted| Box::pin(read(api, wanted)) as BoxFuture<'_, _>).collect();
        stream::iter(reads).buffered(SIDE_BY_SIDE).collect().await
    }

    /// Ends the leases that a rehearsal made: with a token of our own all at once, else one by one. Those that are left end by themselves.
    async fn give_back(&self, api: &Api, found: &[Result<Found, Trouble>]) {
        let leases: Vec<&String> = found.iter().filter_map(|found| found.as_ref().ok()?.lease.as_ref()).collect();
        if !self.is_rehearsal || leases.is_empty() {
            return;
        }
        if self.setup.login.can_be_repeated() && api.run(RevokeSelf {}, None).await.is_ok() {
            self.known.lock().await.token = None;
            return;
        }
        for lease in leases {
            if api.run(RevokeLease { lease_id: lease.clone() }, None).await.is_err()
                && let Ok(mut left) = self.left.lock()
            {
                let path = lease.rsplit_once('/').map_or("", |(path, _)| path);
                let cause = format!("a lease of {} could not be given back, and ends by itself", printable(path.as_bytes()));
                let hint = "allow the login of a check to update sys/leases/revoke; a start does not need it";
                left.push(Failure::new(FailureKind::Denied, cause).hint(hint));
            }
        }
    }
}

async fn read(api: &Api, wanted: &Wanted) -> Result<Found, Trouble> {
    let reference = &wanted.reference;
    let path = std::str::from_utf8(&reference.locator).unwrap_or_default().trim_start_matches('/').to_owned();
    let read = Read { path: path.clone(), version: reference.store_option("version").map(str::to_owned) };
    let reply = api.run(read, reference.store_option("namespace")).await?;
    let data = reply.data.ok_or(Trouble::Nonsense("there is no data in the answer"))?;
    let lease = Some(reply.lease_id).filter(|lease| !lease.is_empty());
    if path.contains("static-creds/") && serde_json::from_str(data.get()).is_ok_and(|Rotation { ttl }| ttl == 0) {
        let kind = FailureKind::Unavailable { retry_after: Some(Duration::from_secs(1)) };
        return Err(Trouble::Other(Failure::new(kind, "the password of the static role is being changed")));
    }
    // An engine of version 2 puts data and metadata below.
    let versioned: Option<Versioned> =
        path.split('/').skip(1).any(|part| part == "data").then(|| serde_json::from_str(data.get()).ok()).flatten();
    let (content, version) = match versioned.filter(|versioned| versioned.metadata.get().starts_with('{')) {
        Some(Versioned { data, metadata }) => {
            let content = data.ok_or(Trouble::Nonsense("there is no data in the answer"))?.get();
            let Metadata { version } =
                serde_json::from_str(metadata.get()).map_err(|_| Trouble::Nonsense("the version in it is no number"))?;
            (content, Version::new(version.to_string()))
        }
        None => (data.get(), Version::digest(lease.as_ref().map_or(data.get().as_bytes(), |lease| lease.as_bytes()))),
    };
    let fetched = if wanted.since.as_ref() == Some(&version) {
        Fetched::Unchanged
    } else {
        let term = Term { duration: Duration::from_secs(reply.lease_duration), is_renewable: reply.renewable };
        let life = lease.clone().map_or(Life::Lasting, |id| Life::Leased(Lease { id, term }));
        Fetched::New { content: Content::Bytes(Secret::copy_of(content.as_bytes())), version, life }
    };
    Ok(Found { fetched, lease })
}

/// What an engine of version 2 answers, and nothing else. Its data is null for a version that was deleted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

/// When the password of a static role is changed next, in seconds.
#[derive(Deserialize)]
struct Rotation {
    ttl: u64,
}

/// In words for the user: what is wrong with this reference, and what to try.
fn failure(reference: &Reference, trouble: &Trouble) -> Failure {
    let path = printable(&reference.locator);
    let path = path.trim_start_matches('/');
    let not_found = |cause: &str| Failure::new(FailureKind::NotFound, cause);
    match trouble {
        Trouble::Denied { status, why } => {
            let policy = format!(
                "the policy of the login needs path \"{path}\" {{ capabilities = [\"read\"] }}; secret-init policy vault prints all that it needs"
            );
            let token = "the token may have expired or been revoked, or come from another server or namespace";
            let denied = Failure::new(FailureKind::Denied, format!("permission denied ({status})"));
            match why {
                Denial::Token => Failure::new(FailureKind::Denied, format!("the token is not valid ({status})")).hint(token),
                Denial::Policy => denied.hint(policy),
                Denial::Unsaid => denied.hint(format!("{token}; else {policy}")),
            }
        }
        Trouble::Deleted { destroyed: true } => {
            not_found("this version was destroyed").hint("write the secret anew, or ask for another version with ?version=N")
        }
        Trouble::Deleted { .. } => {
            not_found("this version was deleted").hint("undelete it, write the secret anew, or ask for another version with ?version=N")
        }
        Trouble::NeedsData => {
            not_found("the engine has version 2 of KV, where data/ stands in the path").hint(with_data(reference.scheme, path))
        }
        Trouble::NoEngine => not_found("no secrets engine is mounted there")
            .hint("the path is that of the API: MOUNT/data/NAME for version 2 of KV, MOUNT/NAME for version 1"),
        Trouble::NoRole => not_found("the engine has no such role"),
        Trouble::Absent if reference.store_option("version").is_some() => not_found("no such secret, or not in this version (404)"),
        Trouble::Absent => not_found("no such secret (404)"),
        trouble => trouble.failure(),
    }
}

/// The path with `data` after the mount, as a guess: a mount may have several parts.
fn with_data(scheme: Scheme, path: &str) -> String {
    let (mount, name) = path.split_once('/').unwrap_or((path, "NAME"));
    format!("write {}:{mount}/data/{name}", scheme.word())
}
