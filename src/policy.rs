//! The least that a login needs for a plan, in the words of its store: with it alone `check` passes, and without any line of it `check` fails.

mod aws;
mod vault;

use crate::cli::Platform;
use crate::plan::{Delivery, Plan};
use crate::reference::{Reference, Scheme};
use crate::report::{Code, Failure, Problem};

/// What is about a platform.
struct Row {
    /// Its name in messages.
    name: &'static str,
    /// The stores that its policies are about.
    schemes: &'static [Scheme],
    /// Writes the policy for these references, of which there is at least one.
    write: fn(&Plan, &[Asked]) -> Result<String, Vec<Problem>>,
}

fn row(platform: Platform) -> Row {
    match platform {
        Platform::Vault => Row { name: "Vault or OpenBao", schemes: &[Scheme::Vault, Scheme::Bao], write: vault::policy },
        Platform::Aws => Row { name: "AWS", schemes: &[Scheme::AwsSecretsManager, Scheme::AwsParameterStore], write: aws::policy },
    }
}

/// A reference, and the delivery that it is part of.
type Asked<'a> = (&'a Delivery, &'a Reference);

/// The policy that the plan needs at a platform.
///
/// # Errors
///
/// When it needs none, or one that cannot be written.
pub fn of(plan: &Plan, platform: Platform) -> Result<String, Failure> {
    let Row { name, schemes, write } = row(platform);
    let asked: Vec<Asked> = plan.references().filter(|(_, reference)| schemes.contains(&reference.scheme)).collect();
    if asked.is_empty() {
        let problem = Problem::new(Code::Configuration, format!("the plan has no reference to {name}"));
        return Err(problem.hint("secret-init plan shows what it has").into());
    }
    write(plan, &asked).map_err(|problems| Failure { problems, summary: String::new() })
}
