//! Policies of Vault and `OpenBao`, in HCL.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Asked;
use crate::plan::Plan;
use crate::reference::Reference;
use crate::report::{Code, Problem, printable};

/// Where a policy is written: the name of the store, and the namespace in it, which is empty for the root.
type Section = (String, String);

/// A line for each path that is read, sorted, below a comment for each store and namespace when there are several.
pub fn policy(plan: &Plan, asked: &[Asked]) -> Result<String, Vec<Problem>> {
    let mut sections: BTreeMap<Section, BTreeSet<String>> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut renewals: BTreeMap<Section, BTreeSet<String>> = BTreeMap::new();
    for (delivery, reference) in asked {
        let (section, path) = place(plan, reference);
        if plan.rotation.as_ref().is_some_and(|rotation| rotation.watched(reference).is_some()) {
            let locator = String::from_utf8_lossy(&reference.locator);
            let namespace = path.strip_suffix(locator.trim_start_matches('/')).unwrap_or_default();
            renewals.entry(section.clone()).or_default().insert(namespace.to_owned());
        }
        if takes_more(&path) {
            let problem = Problem::new(Code::Configuration, "a policy would take this path for a pattern");
            problems.push(
                delivery.about(problem.about(reference)).hint("a * at the end, a part +, {{ and ${ mean more there: rename the secret"),
            );
        }
        sections.entry(section).or_default().insert(path);
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let has_comments = sections.len() > 1 || sections.keys().any(|(_, namespace)| !namespace.is_empty());
    let mut text = String::new();
    for (section, paths) in &sections {
        let (store, namespace) = section;
        if has_comments {
            let line = if text.is_empty() { "" } else { "\n" };
            let at = if namespace.is_empty() { String::new() } else { format!(", in the namespace {}", printable(namespace.as_bytes())) };
            let _ = writeln!(text, "{line}# {}{at}", printable(store.as_bytes()));
        }
        for path in paths {
            let _ = writeln!(text, "path \"{}\" {{ capabilities = [\"read\"] }}", escaped(path));
        }
        if let Some(namespaces) = renewals.get(section) {
            renewal(&mut text, namespaces);
        }
    }
    Ok(text)
}

/// What keeps logins and leases alive. It is in comments: a start does without it, and the policy `default` allows it to every token that has that, but for leases
/// in other namespaces than the login's.
fn renewal(text: &mut String, namespaces: &BTreeSet<String>) {
    text.push_str("# To renew the login, and leases, if the token is made without the policy default; in other namespaces in any case:\n");
    text.push_str("# path \"auth/token/lookup-self\" { capabilities = [\"read\"] }\n");
    text.push_str("# path \"auth/token/renew-self\" { capabilities = [\"update\"] }\n");
    for namespace in namespaces {
        let _ = writeln!(text, "# path \"{}sys/leases/renew\" {{ capabilities = [\"update\"] }}", escaped(namespace));
    }
    text.push_str("# With --revoke-on-exit, to end leases that are left when the token is not ours to end:\n");
    for namespace in namespaces {
        let _ = writeln!(text, "# path \"{}sys/leases/revoke\" {{ capabilities = [\"update\"] }}", escaped(namespace));
    }
}

/// Where the policy for a reference belongs, and the path in it: with the login, and below its namespace when the secret is there.
fn place(plan: &Plan, reference: &Reference) -> (Section, String) {
    let trimmed = |namespace: &str| namespace.trim_matches('/').to_owned();
    let login = plan.settings.namespace(reference.scheme, plan.settings.instance(reference)).map(trimmed).unwrap_or_default();
    let own = reference.store_option("namespace").map_or_else(|| login.clone(), trimmed);
    let path = String::from_utf8_lossy(&reference.locator).trim_start_matches('/').to_owned();
    let below = match own.strip_prefix(&login) {
        Some("") => Some(""),
        Some(rest) if login.is_empty() => Some(rest),
        Some(rest) => rest.strip_prefix('/'),
        None => None,
    };
    let store = reference.store_name().to_owned();
    match below {
        Some("") => ((store, login), path),
        Some(below) => ((store, login), format!("{below}/{path}")),
        None => ((store, own), path),
    }
}

/// Whether a policy would take the path for a pattern.
fn takes_more(path: &str) -> bool {
    path.ends_with('*') || path.split('/').any(|part| part == "+") || path.contains("{{") || path.contains("${")
}

/// Text within quotes, as HCL has it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
