//! `aws-sm:NAME` and ARNs of secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{Builder, Region};
use aws_sdk_secretsmanager::operation::batch_get_secret_value::BatchGetSecretValueError;
use aws_sdk_secretsmanager::primitives::Blob;
use aws_sdk_secretsmanager::types::{ApiErrorType, SecretValueEntry};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::super::{BoxFuture, Content, FEW_OF_AWS, Failure, FailureKind, Fetched, Life, Store, Wanted};
use super::failure::{self, Complaint, Request};
use super::login::{Account, Login, Source};
use super::setup::Setup;
use super::{Answer, Ask, by_region, fetch, protocol, side_by_side};
use crate::reference::Reference;
use crate::secret::{Secret, Version};

/// As many a request may ask for.
const BATCH: usize = 20;

pub(super) struct Secrets {
    setup: Setup,
    login: Login,
    /// Secrets are fetched one by one, since a batch was refused.
    alone: AtomicBool,
    /// That was for want of a right, which the user can give.
    denied: AtomicBool,
}

impl Secrets {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, login: Login::default(), alone: AtomicBool::new(false), denied: AtomicBool::new(false) }
    }
}

impl Store for Secrets {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(fetch(self, wanted))
    }

    fn remarks(&self) -> Vec<Failure> {
        let remark = || {
            Failure::new(FailureKind::Denied, "AWS denies secretsmanager:BatchGetSecretValue, and the secrets are fetched one by one")
                .hint("allow it on *; secret-init policy aws prints the policy that all of the plan needs")
        };
        self.denied.load(Ordering::Relaxed).then(remark).into_iter().collect()
    }
}

impl Ask for Secrets {
    fn login(&self) -> (&Login, &Setup) {
        (&self.login, &self.setup)
    }

    fn ask<'a>(&'a self, account: &'a Account, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(by_region(account, wanted, |region, wanted| self.region(account, region).fetch(wanted)))
    }
}

impl Secrets {
    fn region<'a>(&'a self, account: &'a Account, region: &'a str) -> OfRegion<'a> {
        let builder = Builder::from(&account.config).region(Region::new(region.to_owned()));
        let builder = match &self.setup.endpoint {
            Some(endpoint) => builder.endpoint_url(endpoint),
            None => builder,
        };
        OfRegion { store: self, client: Client::from_conf(builder.build()), region, source: &account.source }
    }
}

/// The service in one region.
struct OfRegion<'a> {
    store: &'a Secrets,
    client: Client,
    region: &'a str,
    source: &'a Source,
}

/// Answers about some of the secrets, by their places among those that are wanted.
type Answered = Vec<(usize, Answer)>;

impl OfRegion<'_> {
    async fn fetch(self, wanted: Vec<&Wanted>) -> Vec<Answer> {
        let plain: Vec<usize> = (0..wanted.len()).filter(|&index| wanted[index].reference.asks_for_current()).collect();
        let together = if plain.len() > FEW_OF_AWS && !self.store.alone.load(Ordering::Relaxed) { plain.as_slice() } else { &[] };
        let alone = (0..wanted.len()).filter(|index| !together.contains(index));
        let batches = together.chunks(BATCH).map(|chunk| Box::pin(self.batch(&wanted, chunk)) as BoxFuture<'_, Answered>);
        let singles = alone.map(|index| self.single(&wanted, index));
        let mut answers: BTreeMap<usize, Answer> = side_by_side(batches.chain(singles).collect()).await.into_iter().flatten().collect();
        // What a batch did not answer.
        let left: Vec<usize> = (0..wanted.len()).filter(|index| !answers.contains_key(index)).collect();
        let singles = left.into_iter().map(|index| self.single(&wanted, index));
        answers.extend(side_by_side(singles.collect()).await.into_iter().flatten());
        answers.into_values().collect()
    }

    fn request(&self, action: &'static str) -> Request<'_> {
        Request { action, region: self.region, source: self.source }
    }

    fn single<'a>(&'a self, wanted: &[&'a Wanted], index: usize) -> BoxFuture<'a, Answered> {
        let wanted = wanted[index];
        Box::pin(async move { vec![(index, self.one(wanted).await)] })
    }

    async fn one(&self, wanted: &Wanted) -> Answer {
        let reference = &wanted.reference;
        let version = reference.store_option("version");
        // Without a stage some servers give a version that is not current.
        let stage = reference.store_option("stage").or(if version.is_none() { Some("AWSCURRENT") } else { None });
        let request = self.client.get_secret_value().secret_id(id(reference));
        let request = request.set_version_id(version.map(str::to_owned)).set_version_stage(stage.map(str::to_owned));
        let found = request.send().await.map_err(|error| failure::of_request(self.request("secretsmanager:GetSecretValue"), &error))?;
        answer(wanted, found.version_id(), found.secret_string(), found.secret_binary())
    }

    async fn batch(&self, wanted: &[&Wanted], chunk: &[usize]) -> Answered {
        let ids: BTreeSet<String> = chunk.iter().map(|&index| id(&wanted[index].reference)).collect();
        let found = match self.client.batch_get_secret_value().set_secret_id_list(Some(ids.into_iter().collect())).send().await {
            Ok(found) => found,
            Err(error) => return self.without_batch(&error).map_or_else(Vec::new, |failure| all_of(chunk, &failure)),
        };
        let about = |index: usize| {
            let id = id(&wanted[index].reference);
            let value = || found.secret_values().iter().find(|value| is_named(value, &id));
            let error = found.errors().iter().find(|error| error.secret_id() == Some(id.as_str()));
            let failed = error.map(|error| Err(failure::complaint(self.request("secretsmanager:GetSecretValue"), complaint(error))));
            let given = || value().map(|value| answer(wanted[index], value.version_id(), value.secret_string(), value.secret_binary()));
            Some((index, failed.or_else(given)?))
        };
        chunk.iter().filter_map(|&index| about(index)).collect()
    }

    /// What becomes of a batch that failed as a whole: a failure of all in it, or none when each is worth a request of its own.
    fn without_batch(&self, error: &SdkError<BatchGetSecretValueError, HttpResponse>) -> Option<Failure> {
        let (code, status) = match error {
            SdkError::ServiceError(context) => (context.err().code().unwrap_or_default(), context.raw().status().as_u16()),
            _ => ("", 0),
        };
        let is_denied = failure::is_denial(code);
        let is_impossible = matches!(code, "InvalidAction" | "UnknownOperationException" | "NotImplemented");
        if is_denied {
            self.store.denied.store(true, Ordering::Relaxed);
        }
        if is_denied || is_impossible || failure::is_throttling(code, status) {
            self.store.alone.store(true, Ordering::Relaxed);
            return None;
        }
        // One name that AWS does not accept spoils the batch for all.
        let is_spoilt = matches!(code, "InvalidParameterException" | "ValidationException");
        (!is_spoilt).then(|| failure::of_request(self.request("secretsmanager:BatchGetSecretValue"), error))
    }
}

/// The name or the ARN, as AWS takes it.
fn id(reference: &Reference) -> String {
    reference.arn().unwrap_or_else(|| String::from_utf8_lossy(&reference.locator).into_owned())
}

/// Whether a value is that of a name, an ARN, or an ARN without the six characters that AWS puts at its end.
fn is_named(value: &SecretValueEntry, id: &str) -> bool {
    let arn = value.arn().unwrap_or_default();
    let is_suffix = |rest: &str| rest.len() == 7 && rest.starts_with('-');
    value.name() == Some(id) || arn == id || id.starts_with("arn:") && arn.strip_prefix(id).is_some_and(is_suffix)
}

fn answer(wanted: &Wanted, version: Option<&str>, string: Option<&str>, binary: Option<&Blob>) -> Answer {
    let version = Version::new(version.ok_or_else(|| protocol("the answer has no version"))?.to_owned());
    if wanted.since.as_ref() == Some(&version) {
        return Ok(Fetched::Unchanged);
    }
    let bytes = string.map(str::as_bytes).or_else(|| binary.map(Blob::as_ref)).ok_or_else(|| protocol("the answer has no secret"))?;
    Ok(Fetched::New { content: Content::Bytes(Secret::copy_of(bytes)), version, life: Life::Lasting })
}

fn complaint(error: &ApiErrorType) -> Complaint<'_> {
    let (code, message) = (error.error_code().unwrap_or_default(), error.message().unwrap_or_default());
    let status = if code == "InternalServiceError" { 500 } else { 400 };
    Complaint { code, message, status, ..Complaint::default() }
}

fn all_of(chunk: &[usize], failure: &Failure) -> Answered {
    chunk.iter().map(|&index| (index, Err(failure.clone()))).collect()
}
