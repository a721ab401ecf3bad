//! `aws-ssm:/path` and ARNs of parameters.

use std::collections::BTreeMap;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::{Builder, Region};
use aws_sdk_ssm::types::Parameter;

use super::super::{BoxFuture, Content, Failure, FailureKind, Fetched, Life, Store, Wanted};
use super::failure::{self, Request};
use super::login::{Account, Login, Source};
use super::setup::Setup;
use super::{Answer, Ask, by_region, fetch, protocol, side_by_side};
use crate::reference::Reference;
use crate::secret::{Secret, Version};

/// As many a request may ask for.
const BATCH: usize = 10;

pub(super) struct Parameters {
    setup: Setup,
    login: Login,
}

impl Parameters {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, login: Login::default() }
    }
}

impl Store for Parameters {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(fetch(self, wanted))
    }
}

impl Ask for Parameters {
    fn login(&self) -> (&Login, &Setup) {
        (&self.login, &self.setup)
    }

    fn ask<'a>(&'a self, account: &'a Account, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(by_region(account, wanted, |region, wanted| self.region(account, region).fetch(wanted)))
    }
}

impl Parameters {
    fn region<'a>(&'a self, account: &'a Account, region: &'a str) -> OfRegion<'a> {
        let builder = Builder::from(&account.config).region(Region::new(region.to_owned()));
        let builder = match &self.setup.endpoint {
            Some(endpoint) => builder.endpoint_url(endpoint),
            None => builder,
        };
        OfRegion { client: Client::from_conf(builder.build()), region, source: &account.source }
    }
}

/// The service in one region.
struct OfRegion<'a> {
    client: Client,
    region: &'a str,
    source: &'a Source,
}

impl OfRegion<'_> {
    async fn fetch(self, wanted: Vec<&Wanted>) -> Vec<Answer> {
        let names: Vec<Name> = wanted.iter().map(|wanted| Name::of(&wanted.reference)).collect();
        let chunks = chunks(&names);
        let requests = chunks.iter().map(|chunk| Box::pin(self.some(&wanted, &names, chunk)) as BoxFuture<'_, _>);
        let mut answers: BTreeMap<usize, Answer> = side_by_side(requests.collect()).await.into_iter().flatten().collect();
        // One parameter that is denied, or that has no name, spoils a request for all in it.
        let is_shared = |index: &usize| chunks.iter().any(|chunk| chunk.len() > 1 && chunk.contains(index));
        let is_spoilt =
            |answer: &Answer| matches!(answer, Err(failure) if matches!(failure.kind, FailureKind::Denied | FailureKind::Misconfigured));
        let again: Vec<[usize; 1]> =
            answers.iter().filter(|(index, answer)| is_shared(index) && is_spoilt(answer)).map(|(&index, _)| [index]).collect();
        let requests = again.iter().map(|chunk| Box::pin(self.some(&wanted, &names, chunk)) as BoxFuture<'_, _>);
        answers.extend(side_by_side(requests.collect()).await.into_iter().flatten());
        answers.into_values().collect()
    }

    /// Asks for some of the parameters in one request.
    async fn some(&self, wanted: &[&Wanted], names: &[Name], chunk: &[usize]) -> Vec<(usize, Answer)> {
        let asked = chunk.iter().map(|&index| names[index].whole.clone()).collect();
        let found = match self.client.get_parameters().set_names(Some(asked)).with_decryption(true).send().await {
            Ok(found) => found,
            Err(error) => {
                let request = Request { action: "ssm:GetParameters", region: self.region, source: self.source };
                let failure: Failure = failure::of_request(request, &error);
                return chunk.iter().map(|&index| (index, Err(failure.clone()))).collect();
            }
        };
        let about = |index: usize| match found.parameters().iter().find(|parameter| names[index].is_of(parameter)) {
            Some(parameter) => answer(wanted[index], parameter),
            None if found.invalid_parameters().is_empty() => Err(protocol("AWS gave no answer")),
            None => Err(failure::not_found(self.region)),
        };
        chunk.iter().map(|&index| (index, about(index))).collect()
    }
}

/// What a parameter is asked for by.
struct Name {
    /// As AWS takes it: a name or an ARN, with a version or a label after a colon.
    whole: String,
    /// Without the version or the label.
    base: String,
    /// The version or the label.
    selector: Option<String>,
    /// The path alone, which a name and an ARN have in common.
    path: String,
}

impl Name {
    fn of(reference: &Reference) -> Self {
        let whole = reference.arn().unwrap_or_else(|| String::from_utf8_lossy(&reference.locator).into_owned());
        // A name has no colon in it, and an ARN five before its own.
        let colons = if reference.arn().is_some() { 5 } else { 0 };
        let end = whole.match_indices(':').nth(colons).map_or(whole.len(), |(at, _)| at);
        let (base, selector) = (whole[..end].to_owned(), whole.get(end + 1..).map(str::to_owned));
        let path = base.rsplit_once(":parameter/").map_or(base.as_str(), |(_, path)| path).trim_start_matches('/').to_owned();
        Self { whole, base, selector, path }
    }

    fn is_of(&self, parameter: &Parameter) -> bool {
        let is_named = [parameter.name(), parameter.arn()].contains(&Some(self.base.as_str()));
        let given = parameter.selector().map(|selector| selector.trim_start_matches(':'));
        let is_version = |selector: &str| given == Some(selector) || selector == parameter.version().to_string();
        is_named && self.selector.as_deref().is_none_or(is_version)
    }
}

/// Divides names into requests. Two versions of one parameter do not go into the same: their answers could be mistaken for each other.
fn chunks(names: &[Name]) -> Vec<Vec<usize>> {
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let has_room = |chunk: &&mut Vec<usize>| chunk.len() < BATCH && chunk.iter().all(|&other| names[other].path != name.path);
        match chunks.iter_mut().find(has_room) {
            Some(chunk) => chunk.push(index),
            None => chunks.push(vec![index]),
        }
    }
    chunks
}

fn answer(wanted: &Wanted, parameter: &Parameter) -> Answer {
    // The first is 1, and the SDK makes 0 of none.
    let version = Some(parameter.version()).filter(|&version| version > 0).ok_or_else(|| protocol("the answer has no version"))?;
    let made = parameter.last_modified_date().map(|date| date.as_nanos().to_string()).unwrap_or_default();
    let version = Version::numbered(version, &made);
    if wanted.since.as_ref() == Some(&version) {
        return Ok(Fetched::Unchanged);
    }
    let value = parameter.value().ok_or_else(|| protocol("the answer has no secret"))?;
    Ok(Fetched::New { content: Content::Bytes(Secret::copy_of(value.as_bytes())), version, life: Life::Lasting })
}
