//! What another start of the program needs: all that goes into its environment, fetched again.

use super::act::Done;
use super::change::{PATIENCE, Trouble};
use super::logins::lent;
use super::track::digest;
use super::{Agent, handover};
use crate::deliver::Delivered;
use crate::plan::Target;
use crate::reference::Reference;
use crate::report::Problem;
use crate::resolve::{Answer, Answers, Value};
use crate::secret::{Digest, Secret};
use crate::store::Wanted;

impl Agent<'_> {
    /// Fetches all that goes into the environment again, and makes it. Files that the same secrets are part of are put in place with it, so that both are of one
    /// moment; others lie there. What is lent for a start that does not come is given back.
    pub(super) async fn fetch_for_a_start(&self, digests: &[Option<Digest>], leased: &[Reference]) -> Result<Done, Vec<Problem>> {
        let affected = self.affected(&self.in_the_environment());
        let mut answers = self.fetch_all_of(&affected, leased).await;
        let lent = lent(&answers);
        let result = if self.stores.read_together(&mut answers, |_| true).await {
            self.make_for_a_start(&affected, answers, digests).await
        } else {
            let failure = Trouble::Moving.failure();
            Err(vec![Problem::new(failure.code(), failure.cause)])
        };
        if result.is_err() {
            self.give_back(&lent).await;
        }
        result
    }

    /// The secrets that a program cannot have without another start.
    fn in_the_environment(&self) -> Vec<Reference> {
        let variables = (0..self.plan.deliveries.len()).filter(|&index| self.is_variable(index));
        let mut secrets: Vec<Reference> = Vec::new();
        for reference in variables.flat_map(|index| self.plan.deliveries[index].value.references()) {
            if !secrets.iter().any(|secret| secret.same_secret(reference)) {
                secrets.push(reference.clone());
            }
        }
        secrets
    }

    fn is_variable(&self, index: usize) -> bool {
        !matches!(self.plan.deliveries[index].target, Target::File(_))
    }

    /// Fetches what these deliveries are made of. What is made for us at each read comes last: when another fails, none is made in vain.
    async fn fetch_all_of(&self, affected: &[usize], leased: &[Reference]) -> Vec<Answer> {
        let is_lent = |wanted: &Wanted| leased.iter().any(|leased| leased.same_secret(&wanted.reference));
        let (made_for_us, others): (Vec<_>, Vec<_>) = self.mates(affected, &[]).into_iter().partition(is_lent);
        let mut answers = self.stores.fetch(others, PATIENCE).await;
        if !answers.iter().any(|answer| answer.result.is_err() && self.plan.is_required(&answer.reference)) {
            answers.extend(self.stores.fetch(made_for_us, PATIENCE).await);
        }
        for answer in &answers {
            self.audit.fetched(self.plan, answer);
        }
        answers
    }

    async fn make_for_a_start(&self, affected: &[usize], answers: Vec<Answer>, digests: &[Option<Digest>]) -> Result<Done, Vec<Problem>> {
        let plan = self.plan;
        let mut problems: Vec<Problem> = answers.iter().filter_map(|answer| self.keeps_from_starting(answer)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let member = |answer: &Answer| {
            let index = self.rotation.watched.iter().position(|watched| watched.reference.same_secret(&answer.reference))?;
            Some((index, answer.version()?.clone(), answer.life()?.clone()))
        };
        let members: Vec<_> = answers.iter().filter_map(member).collect();
        let made = Answers::new(plan, answers);
        let mut values = Vec::with_capacity(plan.deliveries.len());
        for (index, delivery) in plan.deliveries.iter().enumerate() {
            values.push(if affected.contains(&index) || self.is_variable(index) {
                made.value(delivery).unwrap_or_else(|found| {
                    problems.extend(found);
                    Value::Absent
                })
            } else if digests[index].is_some() {
                // Only whether it is there matters.
                Value::Secret(Secret::default())
            } else {
                Value::Absent
            });
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let environment = self.place.environment(plan, &values, self.arguments, self.account.as_ref()).map_err(|problem| vec![problem])?;
        let delivered = Delivered { environment, directory: self.place.path().map(std::path::Path::to_owned) };
        let environment = handover::seal(&delivered).map_err(|failure| failure.problems)?;
        let files: Vec<(usize, &Value)> = affected.iter().map(|&index| (index, &values[index])).collect();
        self.put_in_place(&files).await.map_err(|trouble| trouble.problems().to_vec())?;
        let is_made = |index: &usize| self.is_variable(*index) || affected.contains(index) && !matches!(values[*index], Value::Absent);
        let digests = (0..values.len()).filter(is_made).map(|index| (index, digest(&values[index]))).collect();
        Ok(Done { environment: Some(environment), members, digests })
    }

    /// What there is to tell of an answer without which there is no start.
    fn keeps_from_starting(&self, answer: &Answer) -> Option<Problem> {
        let failure = answer.result.as_ref().err().filter(|_| self.plan.is_required(&answer.reference))?;
        let mut problem = Problem::new(failure.code(), &failure.cause).about(answer.reference.whole());
        problem.hint.clone_from(&failure.hint);
        let is_its = |reference: &Reference| reference.same_secret(&answer.reference);
        let first = self.plan.deliveries.iter().find(|delivery| delivery.value.references().any(is_its));
        Some(first.map_or(problem.clone(), |delivery| delivery.about(problem)))
    }
}
