//! What is read at a path: the secret, its version, and how long it is good for.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{Content, Failure, FailureKind, Fetched, Lease, Life, Wanted};
use super::api::{Api, Read, Trouble};
use super::lease::{Leased, term};
use crate::secret::{Secret, Version};

/// What was read, and the lease that it came with.
pub struct Found {
    pub fetched: Fetched,
    pub lease: Option<Leased>,
}

/// Reads one secret.
pub async fn one(api: &Api, wanted: &Wanted) -> Result<Found, Trouble> {
    let reference = &wanted.reference;
    let path = std::str::from_utf8(&reference.locator).unwrap_or_default().trim_start_matches('/').to_owned();
    let namespace = reference.store_option("namespace");
    let read = Read { path: path.clone(), version: reference.store_option("version").map(str::to_owned) };
    let reply = api.run(read, namespace).await?;
    let term = term(&reply);
    let data = reply.data.ok_or(Trouble::Nonsense("there is no data in the answer"))?;
    let lease = Some(reply.lease_id).filter(|lease| !lease.is_empty()).map(|id| Leased::new(id, namespace));
    let life = match &lease {
        Some(lease) => Life::Leased(Lease { id: lease.name(), term }),
        None => life(&path, &data)?,
    };
    // An engine of version 2 puts data and metadata below.
    let versioned: Option<Versioned> =
        path.split('/').skip(1).any(|part| part == "data").then(|| serde_json::from_str(data.get()).ok()).flatten();
    let (content, version) = match versioned.filter(|versioned| versioned.metadata.get().starts_with('{')) {
        Some(Versioned { data, metadata }) => {
            let content = data.ok_or(Trouble::Nonsense("there is no data in the answer"))?.get();
            let Metadata { version, created_time } =
                serde_json::from_str(metadata.get()).map_err(|_| Trouble::Nonsense("the version in it is no number"))?;
            (content, Version::numbered(version, &created_time))
        }
        None => (data.get(), version(&life, &data)),
    };
    let fetched = if wanted.since.as_ref() == Some(&version) {
        Fetched::Unchanged
    } else {
        Fetched::New { content: Content::Bytes(Secret::copy_of(content.as_bytes())), version, life }
    };
    Ok(Found { fetched, lease })
}

/// How long a secret without a lease is good for, as its path and its data tell.
fn life(path: &str, data: &RawValue) -> Result<Life, Trouble> {
    let is_static = path.split('/').any(|part| matches!(part, "static-creds" | "static-cred"));
    if !is_static && !path.starts_with("identity/oidc/token/") {
        return Ok(Life::Lasting);
    }
    match serde_json::from_str(data.get()).ok().map(|Ending { ttl }| Duration::from_secs(ttl)) {
        Some(Duration::ZERO) if is_static => {
            let kind = FailureKind::Unavailable { retry_after: Some(Duration::from_secs(1)) };
            Err(Trouble::Other(Failure::new(kind, "the password of the static role is being changed")))
        }
        Some(ttl) if is_static => Ok(Life::Rotated(ttl)),
        Some(ttl) => Ok(Life::Ending(ttl)),
        None => Ok(Life::Lasting),
    }
}

/// What tells a secret without a version of its own from the one before: its lease, or its data without the seconds that are left of it.
fn version(life: &Life, data: &RawValue) -> Version {
    match life {
        Life::Leased(lease) => Version::digest(lease.id.as_bytes()),
        Life::Rotated(_) => {
            let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(data.get()).unwrap_or_default();
            fields.remove("ttl");
            let mut text = Secret::default();
            for (name, value) in &fields {
                text.push(format!("{name:?}:{value}").as_bytes());
            }
            Version::digest(text.expose())
        }
        Life::Lasting | Life::Ending(_) => Version::digest(data.get().as_bytes()),
    }
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
    #[serde(default)]
    created_time: String,
}

/// How long a secret is good for, in seconds.
#[derive(Deserialize)]
struct Ending {
    ttl: u64,
}
