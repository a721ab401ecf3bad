//! The stores that a plan asks, and whether they are set up well.

use std::collections::BTreeSet;

use super::{Delivery, Plan, bank_vaults};
use crate::cli::{Arguments, Command};
use crate::config::{self, Config};
use crate::environment::Environment;
use crate::reference::Reference;
use crate::report::Problem;
use crate::store::{self, FailureKind, Settings, Traffic, Variables};

/// What the stores are made from.
pub fn settings(arguments: &Arguments, environment: &Environment, config: &Config) -> Settings {
    let variables = environment.variables.iter().map(|variable| (variable.name.as_slice(), variable.value.as_slice()));
    let variables = variables.filter(|(name, value)| !bank_vaults::asks_for_token(name, value));
    let instance = |(name, store): &(config::Located<config::StoreName>, config::Store)| store.instance(&name.0, config.place(name.at));
    Settings {
        variables: Variables::of(variables),
        instances: config.document.stores.0.iter().filter_map(instance).collect(),
        allow_http: arguments.options.allow_http,
        is_rehearsal: arguments.command == Command::Check,
        traffic: Traffic::default(),
    }
}

/// What keeps the stores of the plan from being asked, each store once, about the first that asks it.
pub fn check(plan: &Plan) -> Vec<Problem> {
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for (delivery, reference) in plan.references() {
        if seen.insert((reference.scheme, reference.store_name()))
            && let Err(problem) = check_one(plan, delivery, reference)
        {
            problems.push(problem);
        }
    }
    problems
}

fn check_one(plan: &Plan, delivery: &Delivery, reference: &Reference) -> Result<(), Problem> {
    let instance = plan.settings.instance(reference);
    let about = |failure: store::Failure| {
        let mut problem = Problem::new(failure.code(), failure.cause);
        problem.hint = failure.hint;
        match instance {
            Some(instance) => problem.about(format!("stores.{}", instance.name)).about(&instance.place),
            None => delivery.about(problem.about(reference)),
        }
    };
    if instance.is_none() && reference.store_option("store").is_some() {
        let cause = "the configuration sets up no such store of this kind";
        let hint = "name it below stores:, with its type, or leave ?store= out";
        return Err(about(store::Failure::new(FailureKind::Misconfigured, cause).hint(hint)));
    }
    let Some(row) = store::row(reference.scheme) else { return Ok(()) };
    (row.open)(&plan.settings, instance).map(drop).map_err(about)
}
