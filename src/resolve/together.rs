//! Secrets that belong together are of one moment, although files are read one after the other, and all of them may be replaced between two reads.

use std::time::Duration;

use super::{Answer, Patience, Stores};
use crate::plan::{Plan, Target};
use crate::reference::Reference;
use crate::store::{Fetched, Wanted};

/// Whoever replaces files without a pause is not waited for: the end of it is another change.
const ROUNDS: usize = 8;

impl Stores {
    /// Reads those of the answers again that came from files, until none has another version than before: then there was a moment at which all were as they are here.
    /// False when there was none.
    pub async fn read_together(&self, answers: &mut [Answer], is_meant: impl Fn(&Reference) -> bool) -> bool {
        for _ in 0..ROUNDS {
            let is_local = |reference: &Reference| self.find(reference).is_some_and(|opened| !opened.is_remote);
            let of_files = answers.iter().filter(|answer| is_local(&answer.reference) && is_meant(&answer.reference));
            let known = |answer: &Answer| Some(Wanted { reference: answer.reference.clone(), since: Some(answer.version()?.clone()) });
            let wanted: Vec<Wanted> = of_files.filter_map(known).collect();
            if wanted.len() < 2 {
                return true;
            }
            let mut is_of_one_moment = true;
            for again in self.fetch(wanted, Patience::Once(Duration::ZERO)).await {
                is_of_one_moment &= matches!(again.result, Ok(Fetched::Unchanged));
                // What cannot be read just now is what it was.
                if again.version().is_some()
                    && let Some(answer) = answers.iter_mut().find(|answer| answer.reference.same_secret(&again.reference))
                {
                    *answer = again;
                }
            }
            if is_of_one_moment {
                return true;
            }
        }
        false
    }
}

/// Whether a secret is in a group of files.
pub fn is_in_group(plan: &Plan, reference: &Reference) -> bool {
    let is_in = |target: &Target| matches!(target, Target::File(file) if file.group.is_some());
    let grouped = plan.deliveries.iter().filter(|delivery| is_in(&delivery.target));
    grouped.flat_map(|delivery| delivery.value.references()).any(|other| other.same_secret(reference))
}
