//! Identity policies of AWS, in JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::Asked;
use crate::plan::Plan;
use crate::reference::{Reference, Scheme};
use crate::report::{Code, Problem};
use crate::store::FEW_OF_AWS;

/// A statement for each action, with the secrets that it is needed for. What nothing says of region and account is a `*`.
pub fn policy(plan: &Plan, asked: &[Asked]) -> Result<String, Vec<Problem>> {
    let problems: Vec<Problem> = asked.iter().filter(|(_, reference)| takes_more(reference)).map(complaint).collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let of = |scheme: Scheme| asked.iter().map(|(_, reference)| *reference).filter(move |reference| reference.scheme == scheme);
    let resources = |scheme: Scheme| of(scheme).map(|reference| resource(plan, reference)).collect::<BTreeSet<_>>();
    let mut statements = Vec::new();
    let mut allow = |action: &str, resources: &BTreeSet<String>| {
        if !resources.is_empty() {
            let lines: Vec<String> = resources.iter().map(|resource| format!("        {}", json!(resource))).collect();
            let (action, lines) = (json!(action), lines.join(",\n"));
            statements.push(format!(
                "    {{\n      \"Effect\": \"Allow\",\n      \"Action\": {action},\n      \"Resource\": [\n{lines}\n      ]\n    }}"
            ));
        }
    };
    allow("secretsmanager:GetSecretValue", &resources(Scheme::AwsSecretsManager));
    if has_batches(plan, of(Scheme::AwsSecretsManager)) {
        allow("secretsmanager:BatchGetSecretValue", &BTreeSet::from(["*".to_owned()]));
    }
    allow("ssm:GetParameters", &resources(Scheme::AwsParameterStore));
    Ok(format!("{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{}\n  ]\n}}\n", statements.join(",\n")))
}

/// Whether a region is asked for so many secrets that a batch is.
fn has_batches<'a>(plan: &'a Plan, asked: impl Iterator<Item = &'a Reference>) -> bool {
    let mut regions: BTreeMap<(&str, &str), Vec<&Reference>> = BTreeMap::new();
    for reference in asked.filter(|reference| reference.asks_for_current()) {
        let known = regions.entry((reference.store_name(), region(plan, reference).unwrap_or_default())).or_default();
        if !known.iter().any(|other| other.same_secret(reference)) {
            known.push(reference);
        }
    }
    regions.values().any(|secrets| secrets.len() > FEW_OF_AWS)
}

fn region<'a>(plan: &'a Plan, reference: &'a Reference) -> Option<&'a str> {
    reference.region().or_else(|| plan.settings.region(plan.settings.instance(reference)).map(|(_, region)| region))
}

/// The ARN of what a reference asks for, as a policy has it.
fn resource(plan: &Plan, reference: &Reference) -> String {
    let name = String::from_utf8_lossy(&reference.locator);
    match (reference.scheme, reference.arn()) {
        (Scheme::AwsParameterStore, Some(arn)) => arn.splitn(7, ':').take(6).collect::<Vec<_>>().join(":"),
        (_, Some(arn)) => format!("{arn}{}", if has_suffix(&arn) { "" } else { SUFFIX }),
        (scheme, None) => {
            let region = region(plan, reference).unwrap_or("*");
            let account = plan.settings.account().unwrap_or("*");
            let partition = partition(region);
            match scheme {
                Scheme::AwsParameterStore => {
                    let path = name.split(':').next().unwrap_or_default().trim_start_matches('/');
                    format!("arn:{partition}:ssm:{region}:{account}:parameter/{path}")
                }
                _ => format!("arn:{partition}:secretsmanager:{region}:{account}:secret:{name}{SUFFIX}"),
            }
        }
    }
}

/// AWS puts a hyphen and six characters behind the name of a secret. A `*` would stand for other secrets too, whose names go on.
const SUFFIX: &str = "-??????";

fn has_suffix(arn: &str) -> bool {
    let suffix = arn.rsplit_once('-').map_or("", |(_, suffix)| suffix);
    suffix.len() == 6 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The partition that a region is in.
fn partition(region: &str) -> &'static str {
    const ROWS: &[(&str, &str)] = &[
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
    ];
    ROWS.iter().find(|(beginning, _)| region.starts_with(beginning)).map_or("aws", |(_, partition)| partition)
}

/// Whether a policy would take the name for a pattern.
fn takes_more(reference: &Reference) -> bool {
    let name = String::from_utf8_lossy(&reference.locator);
    name.contains(['*', '?']) || name.contains("${")
}

fn complaint((delivery, reference): &Asked) -> Problem {
    let problem = Problem::new(Code::Configuration, "a policy would take this name for a pattern");
    delivery.about(problem.about(reference)).hint("names in AWS have no * or ? or ${ in them")
}
