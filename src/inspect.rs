//! What `plan` and `check` answer: tables without a value in them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::audit::Audit;
use crate::cli::Command;
use crate::plan::{Delivery, File, Plan, Target};
use crate::reference::Reference;
use crate::report::{self, Code, Failure, Problem, Style, count, table};
use crate::resolve::{self, Secrets, Stores, Value};
use crate::store;

/// The table of what would be delivered, and the variables that are left alone.
#[must_use]
pub fn plan(plan: &Plan) -> String {
    let mut rows = vec![["NAME", "REFERENCE", "STORE", "DELIVERY"].map(str::to_owned)];
    for delivery in &plan.deliveries {
        for (index, reference) in delivery.value.references().enumerate() {
            let name = if index == 0 { delivery.name.clone() } else { String::new() };
            rows.push([name, reference.to_string(), store_name(reference), destination(delivery)]);
        }
        if delivery.value.references().next().is_none() {
            rows.push([delivery.name.clone(), "(text)".to_owned(), "-".to_owned(), destination(delivery)]);
        }
    }
    for (name, _) in &plan.set {
        let name = report::printable(name);
        rows.push([name.to_string(), "(text)".to_owned(), "-".to_owned(), format!("variable {name}")]);
    }
    let mut text = if rows.len() == 1 { "No variable refers to a secret.\n".to_owned() } else { table(&rows) };
    for (heading, variables) in [("Left alone", &plan.left_alone), ("Removed", &plan.removed)] {
        if !variables.is_empty() {
            let rows: Vec<[String; 2]> = variables.iter().map(|(name, reason)| [format!("  {name}"), (*reason).to_owned()]).collect();
            let _ = write!(text, "\n{heading}:\n{}", table(&rows));
        }
    }
    if let Some(rotation) = &plan.rotation {
        let mut rows = vec![["WATCHED", "HOW", "ON CHANGE"].map(str::to_owned)];
        rows.extend(rotation.watched.iter().map(|watched| {
            let how = if is_remote(&watched.reference) { every(watched.period) } else { "events".to_owned() };
            [watched.reference.whole().to_string(), how, watched.on_change.to_string()]
        }));
        let _ = write!(text, "\n{}", table(&rows));
    }
    text
}

fn is_remote(reference: &Reference) -> bool {
    store::row(reference.scheme).is_some_and(|row| row.is_remote)
}

fn every(period: Duration) -> String {
    format!("every {}", humantime::format_duration(period))
}

/// Fetches everything, prints the table of results, and gives the exit code of a start.
///
/// # Errors
///
/// All problems that a start would have had with the secrets.
pub fn check(plan: &Plan, audit: &Audit) -> Result<u8, Failure> {
    let answers = resolve::block_on(plan, resolve::fetch(plan, &Stores::of(plan)))?;
    answers.iter().for_each(|answer| audit.fetched(plan, answer));
    let mut rows = vec![["NAME", "REFERENCE", "STORE", "DELIVERY", "VERSION", "MS", "RESULT"].map(str::to_owned)];
    // In the last column, where nothing is aligned after it.
    let failed = Style::of_stdout().red("FAILED").to_string();
    let mut results = Vec::with_capacity(plan.deliveries.len());
    let mut left = Vec::new();
    for delivery in &plan.deliveries {
        let value = answers.value(delivery);
        let untried = answers.untried(delivery);
        let result = match (untried, &value) {
            (Some(_), _) => "untried",
            (None, Ok(Value::Absent)) => "absent",
            (None, Ok(_)) => "ok",
            (None, Err(_)) => &failed,
        };
        let destinations = match &value {
            Ok(Value::Variables(variables)) if !variables.is_empty() => {
                variables.iter().map(|(name, _)| format!("variable {name}")).collect()
            }
            _ => vec![destination(delivery)],
        };
        match untried {
            Some(why) => left.push(delivery.about(Problem::new(Code::Configuration, why))),
            None => results.push(value.map(drop)),
        }
        for reference in delivery.value.references() {
            let answer = answers.about(reference);
            let version = answer.and_then(|answer| answer.version()).map_or_else(|| "-".to_owned(), ToString::to_string);
            let took = answer.map_or(Duration::ZERO, |answer| answer.took);
            let milliseconds = format!("{:.1}", took.as_secs_f64() * 1000.0);
            for destination in &destinations {
                rows.push([
                    delivery.name.clone(),
                    reference.to_string(),
                    store_name(reference),
                    destination.clone(),
                    version.clone(),
                    milliseconds.clone(),
                    result.to_owned(),
                ]);
            }
        }
    }
    if rows.len() == 1 {
        return report::answer("No variable refers to a secret.\n");
    }
    report::answer(&table(&rows))?;
    let warned = resolve::heed(plan, &answers.warnings(plan), Command::Check);
    left.extend(answers.leases(plan));
    report::warn_of(&left);
    report::both(warned, resolve::together(results.into_iter(), Command::Check)).map(|_| 0)
}

/// The line of level info about a start.
#[must_use]
pub fn summary(plan: &Plan, secrets: &Secrets, directory: Option<&Path>, took: Duration) -> String {
    let files = plan.files().count();
    let place = directory.map_or_else(String::new, |path| format!(" in {}", report::printable(path.as_os_str().as_encoded_bytes())));
    let variables = plan.deliveries.iter().zip(secrets).map(|(delivery, value)| match (&delivery.target, value) {
        (Target::File(_), _) => 0,
        (_, Value::Variables(variables)) => variables.len(),
        _ => 1,
    });
    let variables = variables.sum();
    let (total, variables, files) = (count(plan.deliveries.len(), "secret"), count(variables, "variable"), count(files, "file"));
    format!("delivered {total} ({variables}, {files}{place}) in {:.1} ms", took.as_secs_f64() * 1000.0)
}

fn store_name(reference: &Reference) -> String {
    store::row(reference.scheme).map_or("-", |row| row.name).to_owned()
}

fn destination(delivery: &Delivery) -> String {
    match &delivery.target {
        Target::Variable(name) => format!("variable {}", report::printable(name)),
        Target::Variables => "a variable for each key".to_owned(),
        Target::File(File { path, mode, owner, group, .. }) => {
            let owner = owner.as_ref().map_or_else(String::new, |owner| format!(", {}", report::printable(owner.as_bytes())));
            let group = group.as_ref().map_or_else(String::new, |group| format!(", group {group}"));
            format!("file {path} ({mode:04o}{owner}{group})")
        }
    }
}
