//! AWS Secrets Manager and Parameter Store, by AWS's own SDK over the HTTP that all stores share.

mod failure;
mod login;
mod parameters;
mod secrets;
mod setup;
mod wire;

use std::collections::BTreeMap;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use super::{BoxFuture, Failure, FailureKind, Fetched, Row, Wanted};
use crate::reference::Scheme;

use login::{Account, Login};
use setup::{Service, Setup};

pub(super) const SECRETS: Row = Row {
    scheme: Scheme::AwsSecretsManager,
    name: "aws-sm",
    summary: "AWS Secrets Manager: aws-sm:NAME#password, arn:aws:secretsmanager:…#password",
    is_remote: true,
    open: |settings, instance| Ok(Box::new(secrets::Secrets::new(Setup::new(Service::Secrets, settings, instance)?))),
};

pub(super) const PARAMETERS: Row = Row {
    scheme: Scheme::AwsParameterStore,
    name: "aws-ssm",
    summary: "AWS Parameter Store: aws-ssm:/path, arn:aws:ssm:…:parameter/path",
    is_remote: true,
    open: |settings, instance| Ok(Box::new(parameters::Parameters::new(Setup::new(Service::Parameters, settings, instance)?))),
};

/// How many requests to a region are under way at once.
const SIDE_BY_SIDE: usize = 16;

/// What a store says about one secret.
type Answer = Result<Fetched, Failure>;

/// A service of AWS.
trait Ask: Send + Sync {
    fn login(&self) -> (&Login, &Setup);

    /// Asks with this account for each of the wanted secrets, and gives the answers in the same order.
    fn ask<'a>(&'a self, account: &'a Account, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Answer>>;
}

/// Asks a service. Credentials that were good before and are not any more are got anew, once, and what was refused is asked for again.
async fn fetch(service: &impl Ask, wanted: &[Wanted]) -> Vec<Answer> {
    let (login, setup) = service.login();
    let account = match login.account(setup, wanted).await {
        Ok(account) => account,
        Err(failure) => return all_fail(wanted, &failure),
    };
    let mut answers = service.ask(&account, wanted).await;
    if !account.is_over() {
        return answers;
    }
    login.forget().await;
    let is_refused = |answer: &Answer| matches!(answer, Err(failure) if failure.kind == FailureKind::Denied);
    let refused: Vec<usize> = (0..answers.len()).filter(|&index| is_refused(&answers[index])).collect();
    let again: Vec<Wanted> = refused.iter().map(|&index| wanted[index].clone()).collect();
    // Whatever keeps us from other credentials, the refusal is what there is to tell.
    if !account.is_new
        && let Ok(account) = login.account(setup, &again).await
    {
        for (index, answer) in refused.into_iter().zip(service.ask(&account, &again).await) {
            answers[index] = answer;
        }
        if account.is_over() {
            login.forget().await;
        }
    }
    answers
}

/// Asks each region for what is wanted of it, all regions side by side, and gives the answers in the order of the questions.
async fn by_region<'a, F>(account: &'a Account, wanted: &'a [Wanted], ask: impl Fn(&'a str, Vec<&'a Wanted>) -> F) -> Vec<Answer>
where
    F: Future<Output = Vec<Answer>>,
{
    let mut regions: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut answers: Vec<Answer> = wanted.iter().map(|_| Err(failure::no_region())).collect();
    for (index, wanted) in wanted.iter().enumerate() {
        if let Some(region) = wanted.reference.region().or(account.region.as_deref()) {
            regions.entry(region).or_default().push(index);
        }
    }
    let asked = regions.into_iter().map(|(region, indices)| {
        let answers = ask(region, indices.iter().map(|&index| &wanted[index]).collect());
        async move { indices.into_iter().zip(answers.await).collect::<Vec<_>>() }
    });
    for (index, answer) in join_all(asked).await.into_iter().flatten() {
        answers[index] = answer;
    }
    answers
}

/// Waits for what requests answer, a bounded number of them at once.
async fn side_by_side<T>(requests: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    stream::iter(requests).buffered(SIDE_BY_SIDE).collect().await
}

/// The same for all.
fn all_fail(wanted: &[Wanted], failure: &Failure) -> Vec<Answer> {
    wanted.iter().map(|_| Err(failure.clone())).collect()
}

fn protocol(cause: &str) -> Failure {
    Failure::new(FailureKind::Protocol, cause)
}
