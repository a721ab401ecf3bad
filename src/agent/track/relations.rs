//! What secrets have to do with deliveries, with each other, and with stores.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Delivery, Plan, Target, Watched};
use crate::reference::Reference;
use crate::report::Problem;

/// The deliveries that a secret is part of.
pub fn deliveries<'a>(plan: &'a Plan, watched: &'a Watched) -> impl Iterator<Item = &'a Delivery> {
    plan.deliveries.iter().filter(|delivery| delivery.value.references().any(|reference| reference.same_secret(&watched.reference)))
}

/// Names what a problem with a secret is about.
pub fn about(plan: &Plan, watched: &Watched, problem: Problem) -> Problem {
    let problem = problem.about(watched.reference.whole());
    match deliveries(plan, watched).next() {
        Some(delivery) => delivery.about(problem),
        None => problem,
    }
}

/// Which secrets belong together, by a number for each: they share a delivery, or a group of files that changes as a whole.
pub fn components(plan: &Plan, watched: &[Watched]) -> Vec<usize> {
    let mut components: Vec<usize> = (0..watched.len()).collect();
    let mut join = |members: &BTreeSet<usize>| {
        let Some(lowest) = members.iter().map(|&member| components[member]).min() else { return };
        let joined: BTreeSet<usize> = members.iter().map(|&member| components[member]).collect();
        components.iter_mut().filter(|component| joined.contains(component)).for_each(|component| *component = lowest);
    };
    let of = |delivery: &Delivery| -> BTreeSet<usize> {
        let is_in = |index: &usize| delivery.value.references().any(|reference| reference.same_secret(&watched[*index].reference));
        (0..watched.len()).filter(is_in).collect()
    };
    let mut groups: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for delivery in &plan.deliveries {
        let members = of(delivery);
        join(&members);
        if let Target::File(file) = &delivery.target
            && file.group.is_some()
        {
            groups.entry(file.parent()).or_default().extend(members);
        }
    }
    groups.values().for_each(join);
    components
}

/// Whether two secrets are asked of one store.
pub fn is_same_store(one: &Reference, other: &Reference) -> bool {
    one.scheme == other.scheme && one.store_name() == other.store_name()
}
