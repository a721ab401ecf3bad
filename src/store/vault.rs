//! `vault:PATH#key` and `bao:PATH#key`: `HashiCorp` Vault and `OpenBao`, which speak alike.
//!
//! The path is that of the API, so one request serves all engines: KV of both versions, dynamic credentials, static roles.

mod api;
mod lease;
mod login;
mod read;
mod renewal;
mod setup;

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::stream::{self, StreamExt};
use tokio::sync::Mutex;

use super::http::Client;
use super::{BoxFuture, Failure, FailureKind, Fetched, Instance, Opened, Renew, Row, Settings, Store, Wanted};
use crate::reference::{Reference, Scheme};
use crate::report::printable;

use api::{Api, Denial, LookupSelf, RevokeSelf, Trouble};
use lease::Leased;
use login::Known;
use read::Found;
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
    let (known, left) = (Mutex::default(), std::sync::Mutex::default());
    Ok(Box::new(Vault { setup, is_rehearsal: settings.is_rehearsal, known, logins: AtomicU64::new(0), left }))
}

/// How many requests are under way at once.
const SIDE_BY_SIDE: usize = 16;

struct Vault {
    setup: Setup,
    is_rehearsal: bool,
    /// What is kept from one fetch to the next. No connection is.
    known: Mutex<Known>,
    /// How many logins there were. It changes with what is known alone.
    logins: AtomicU64,
    /// The leases that a rehearsal could not give back.
    left: std::sync::Mutex<Vec<Failure>>,
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

    fn renewing(&self) -> Option<&dyn Renew> {
        Some(self)
    }
}

impl Vault {
    async fn read_all(&self, wanted: &[Wanted]) -> Result<Vec<Result<Fetched, Failure>>, Failure> {
        let client = Client::new(&self.setup.servers, &self.setup.transport)?;
        let (api, login) = self.api(&client, None).await?;
        // The first opens the connection that all others then share.
        let (first, rest) = wanted.split_at(1.min(wanted.len()));
        let mut found = self.read_some(&api, first).await;
        found.extend(self.read_some(&api, rest).await);
        let is_over = is_over(&api, &found).await;
        self.give_back(&api, &found).await;
        let refused: Vec<usize> = (0..wanted.len()).filter(|&index| matches!(found[index], Err(Trouble::Denied { .. }))).collect();
        // Whatever keeps us from another login, the refusal is what there is to tell.
        if is_over && let Ok((api, _)) = self.api(&client, Some(login)).await {
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

    /// The API by the login that there is, with its number. Without one, or when the one that there is does not serve any more, by a new one: of several that ask
    /// for it at once, the first logs in for all.
    async fn api(&self, client: &Client, spent: Option<u64>) -> Result<(Api, u64), Failure> {
        let known = &mut *self.known.lock().await;
        let mut number = self.logins.load(Ordering::Relaxed);
        if known.session.is_none() || spent == Some(number) {
            known.session = Some(login::log_in(&self.setup, client, known, self.is_rehearsal).await?);
            number += 1;
            self.logins.store(number, Ordering::Relaxed);
        }
        let token = known.session.as_ref().map_or(&[][..], |session| session.token.expose());
        Ok((Api::new(&self.setup, client.clone(), token)?, number))
    }

    async fn read_some(&self, api: &Api, wanted: &[Wanted]) -> Vec<Result<Found, Trouble>> {
        let reads: Vec<BoxFuture<'_, _>> = wanted.iter().map(|wanted| Box::pin(read::one(api, wanted)) as BoxFuture<'_, _>).collect();
        stream::iter(reads).buffered(SIDE_BY_SIDE).collect().await
    }

    /// Ends the leases that a rehearsal made: with a token of our own all at once, else one by one. Those that are left end by themselves.
    async fn give_back(&self, api: &Api, found: &[Result<Found, Trouble>]) {
        let leases: Vec<&Leased> = found.iter().filter_map(|found| found.as_ref().ok()?.lease.as_ref()).collect();
        if !self.is_rehearsal || leases.is_empty() {
            return;
        }
        if self.setup.login.makes_tokens() && api.run(RevokeSelf {}, None).await.is_ok() {
            self.known.lock().await.session = None;
            return;
        }
        for lease in leases {
            if lease.revoke(api).await.is_err()
                && let Ok(mut left) = self.left.lock()
            {
                let cause = format!("a lease of {} could not be given back, and ends by itself", printable(lease.path().as_bytes()));
                let hint = "allow the login of a check to update sys/leases/revoke; a start does not need it";
                left.push(Failure::new(FailureKind::Denied, cause).hint(hint));
            }
        }
    }
}

/// Whether the token has ended, or was revoked. One that is good, and may not read what is wanted, stays: leases last no longer than the login that they came with.
async fn is_over(api: &Api, found: &[Result<Found, Trouble>]) -> bool {
    let says = |denial: Denial| found.iter().any(|found| matches!(found, Err(Trouble::Denied { why, .. }) if *why == denial));
    let is_unknown = |trouble: Trouble| matches!(trouble, Trouble::Denied { why: Denial::Token | Denial::Unsaid, .. });
    says(Denial::Token) || says(Denial::Unsaid) && api.run(LookupSelf {}, None).await.is_err_and(is_unknown)
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
