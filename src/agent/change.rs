//! A change: all that belongs together is fetched, made, looked at, and put in place, or nothing is.

use std::time::Duration;

use super::logins::lent;
use super::track::digest;
use super::{Agent, kind};
use crate::audit::{Entry, Event};
use crate::plan::{Delivery, Target};
use crate::reference::Reference;
use crate::report::{Code, Problem};
use crate::resolve::{Answer, Answers, Patience, Value};
use crate::rotation::notify;
use crate::secret::{Digest, Key, Version};
use crate::store::{Failure, FailureKind, Fetched, Life, Wanted};
use crate::sys::clock::Moment;

/// A look that fails is repeated later; only its time is bounded.
pub const PATIENCE: Patience = Patience::Once(Duration::from_mins(1));

/// How long `validate` may take.
const VALIDATION: Duration = Duration::from_secs(30);

/// What became of a change.
pub struct Changed {
    /// Which secrets it was about.
    pub component: usize,
    /// When it was seen.
    pub began: Moment,
    /// The watched secrets that were fetched for it.
    pub members: Vec<Member>,
    /// What stores were asked besides, by kind, and what they said.
    pub asked: Vec<(&'static str, Result<Fetched, Failure>)>,
    /// What came of it.
    pub outcome: Result<Made, Trouble>,
}

/// A watched secret that was fetched.
pub struct Member {
    /// Its place among the watched.
    pub index: usize,
    /// Its version now.
    pub version: Version,
    /// How long it is good for.
    pub life: Life,
    /// Whether it is what changed.
    pub is_new: bool,
    /// Whether the program has it by this. What is lent at each read, and goes into an environment alone, is lent once more for another start.
    pub is_delivered: bool,
    /// The digest of its content.
    fingerprint: Option<Digest>,
}

/// What was put in place.
pub struct Made {
    /// The deliveries that have other bytes than before.
    pub deliveries: Vec<usize>,
    /// The digests of all that was made.
    pub digests: Vec<(usize, Option<Digest>)>,
}

/// Why nothing was put in place.
pub enum Trouble {
    /// A secret that goes with it could not be fetched.
    Mate(Reference, Failure),
    /// Its files were replaced again and again while they were read. There will be another look, since each time is an event.
    Moving,
    /// What was fetched cannot be used.
    Useless(Vec<Problem>),
    /// The files cannot be written.
    Unwritten(Problem),
    /// `validate` refused the files.
    Refused(Problem),
}

impl Trouble {
    /// What there is to tell; what is told of the mate is enough for that one.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Mate(..) | Self::Moving => &[],
            Self::Useless(problems) => problems,
            Self::Unwritten(problem) | Self::Refused(problem) => std::slice::from_ref(problem),
        }
    }

    /// The cause, in words.
    pub fn cause(&self) -> String {
        match self {
            Self::Mate(reference, failure) => format!("{reference}, which goes with it: {}", failure.cause),
            _ => self.problems().first().map_or_else(|| self.failure().cause, |problem| problem.cause.clone()),
        }
    }

    /// What is told of it. `validate` says for itself what becomes of the files.
    pub fn told(&self) -> Vec<Problem> {
        let is_refused = matches!(self, Self::Refused(_));
        self.problems().iter().cloned().map(|problem| if is_refused { problem } else { kept(problem) }).collect()
    }

    /// The exit code that it calls for.
    pub fn code(&self) -> Code {
        self.problems().first().map_or_else(|| self.failure().code(), |problem| problem.code)
    }

    /// As a failure of the secret that changed.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Mate(_, failure) => failure.clone(),
            Self::Useless(_) | Self::Refused(_) => Failure::new(FailureKind::Invalid, "cannot be used"),
            Self::Unwritten(_) => Failure::new(FailureKind::Unavailable { retry_after: None }, "cannot be written"),
            Self::Moving => Failure::new(FailureKind::Unavailable { retry_after: None }, "its files are being replaced"),
        }
    }

    /// The watched secret that has to be there first.
    pub fn failed_mate(&self, agent: &Agent) -> Option<usize> {
        match self {
            Self::Mate(reference, _) => agent.rotation.watched.iter().position(|watched| watched.reference.same_secret(reference)),
            _ => None,
        }
    }
}

impl Changed {
    /// The watched secrets that are what changed.
    pub fn changed_members(&self) -> Vec<usize> {
        self.members.iter().filter(|member| member.is_new).map(|member| member.index).collect()
    }
}

impl Agent<'_> {
    /// Makes what new secrets are part of. The digests are those of what was delivered, by delivery.
    pub async fn change(&self, component: usize, new: Vec<Answer>, digests: Vec<Option<Digest>>, began: Moment) -> Changed {
        let triggers: Vec<Reference> = new.iter().map(|answer| answer.reference.clone()).collect();
        let affected = self.affected(&triggers);
        let mates = self.stores.fetch(self.mates(&affected, &triggers), PATIENCE).await;
        let mut asked = Vec::new();
        for answer in &mates {
            self.audit.fetched(self.plan, answer);
            asked.push((kind(&answer.reference), answer.result.as_ref().map(|_| Fetched::Unchanged).map_err(Clone::clone)));
        }
        let mut all: Vec<Answer> = new.into_iter().chain(mates).collect();
        let is_of_one_moment = self.stores.read_together(&mut all, |_| true).await;
        let missing = all.iter().find_map(|answer| {
            let failure = answer.result.as_ref().err()?;
            // Without it there is a default, or nothing.
            let is_needed = failure.kind != FailureKind::NotFound || self.plan.is_required(&answer.reference);
            is_needed.then(|| Trouble::Mate(answer.reference.clone(), failure.clone()))
        });
        let members = self.members(all.iter(), &triggers);
        let (all_lent, lent_in_vain) = (lent(&all), lent(all.iter().filter(|answer| !self.is_delivered(answer))));
        let answers = Answers::new(self.plan, all);
        let outcome = match missing {
            Some(trouble) => Err(trouble),
            None if !is_of_one_moment => Err(Trouble::Moving),
            None => self.make(&affected, &answers, &digests).await,
        };
        self.give_back(if outcome.is_ok() { &lent_in_vain } else { &all_lent }).await;
        self.write_down(&members, &outcome);
        Changed { component, began, members, asked, outcome }
    }

    /// The deliveries that the secrets are part of, and those of the same groups.
    pub(super) fn affected(&self, triggers: &[Reference]) -> Vec<usize> {
        let deliveries = &self.plan.deliveries;
        let has_one = |delivery: &Delivery| {
            delivery.value.references().any(|reference| triggers.iter().any(|trigger| trigger.same_secret(reference)))
        };
        let groups: Vec<&str> = deliveries.iter().filter(|delivery| has_one(delivery)).filter_map(group).collect();
        let is_affected = |delivery: &Delivery| has_one(delivery) || group(delivery).is_some_and(|group| groups.contains(&group));
        (0..deliveries.len()).filter(|&index| is_affected(&deliveries[index])).collect()
    }

    /// What has to be fetched besides.
    pub(super) fn mates(&self, affected: &[usize], triggers: &[Reference]) -> Vec<Wanted> {
        let mut mates: Vec<Wanted> = Vec::new();
        for reference in affected.iter().flat_map(|&index| self.plan.deliveries[index].value.references()) {
            let is_there = triggers.iter().chain(mates.iter().map(|mate| &mate.reference)).any(|other| other.same_secret(reference));
            if !is_there {
                mates.push(Wanted { reference: reference.clone(), since: None });
            }
        }
        mates
    }

    fn members<'b>(&self, answers: impl Iterator<Item = &'b Answer>, triggers: &[Reference]) -> Vec<Member> {
        let member = |answer: &Answer| {
            let index = self.rotation.watched.iter().position(|watched| watched.reference.same_secret(&answer.reference))?;
            let (version, life) = (answer.version()?.clone(), answer.life()?.clone());
            let is_new = triggers.iter().any(|trigger| trigger.same_secret(&answer.reference));
            let fingerprint = match &answer.result {
                Ok(Fetched::New { content, .. }) => Some(content.digest(Key::own())),
                _ => None,
            };
            Some(Member { index, version, life, is_new, is_delivered: self.is_delivered(answer), fingerprint })
        };
        answers.filter_map(member).collect()
    }

    /// Whether a program that runs gets a secret by a change of files.
    fn is_delivered(&self, answer: &Answer) -> bool {
        let is_its = |delivery: &&Delivery| delivery.value.references().any(|reference| reference.same_secret(&answer.reference));
        let is_lent = matches!(answer.life(), Some(Life::Leased(_)));
        !is_lent || self.plan.deliveries.iter().filter(is_its).any(|delivery| matches!(delivery.target, Target::File(_)))
    }

    /// Makes the values, and puts those in place that have changed.
    async fn make(&self, affected: &[usize], answers: &Answers, digests: &[Option<Digest>]) -> Result<Made, Trouble> {
        let mut values: Vec<(usize, Value)> = Vec::with_capacity(affected.len());
        let mut problems = Vec::new();
        for &index in affected {
            match answers.value(&self.plan.deliveries[index]) {
                Ok(value) => values.push((index, value)),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(Trouble::Useless(problems));
        }
        // What is gone does not go: the program keeps what it has.
        values.retain(|(_, value)| !matches!(value, Value::Absent));
        let made: Vec<(usize, Option<Digest>)> = values.iter().map(|(index, value)| (*index, digest(value))).collect();
        let deliveries: Vec<usize> = made.iter().filter(|(index, digest)| digests[*index] != *digest).map(|(index, _)| *index).collect();
        if !deliveries.is_empty() {
            self.put_in_place(&values.iter().map(|(index, value)| (*index, value)).collect::<Vec<_>>()).await?;
        }
        Ok(Made { deliveries, digests: made })
    }

    /// Puts the files among these values in place; what is absent stays as it is.
    pub(super) async fn put_in_place(&self, values: &[(usize, &Value)]) -> Result<(), Trouble> {
        let is_file = |index: usize| matches!(self.plan.deliveries[index].target, Target::File(_));
        let files: Vec<(usize, &Value)> = values.iter().copied().filter(|(index, _)| is_file(*index)).collect();
        let staged = self.place.stage(self.plan, &files).map_err(Trouble::Unwritten)?;
        if let Some(command) = &self.rotation.validate
            && let Some(view) = staged.view(self.account.as_ref()).map_err(Trouble::Unwritten)?
        {
            let mut environment = self.environment();
            environment.push((b"SECRET_INIT_STAGED".to_vec(), view.into_os_string().into_encoded_bytes()));
            notify::run(command, &environment, self.account.as_ref(), VALIDATION).await.map_err(|problem| {
                let cause = format!("the new files are refused: {}; the old ones stay", problem.cause);
                let names: Vec<&str> = files.iter().map(|(index, _)| self.plan.deliveries[*index].name.as_str()).collect();
                Trouble::Refused(Problem { cause, code: Code::Data, ..problem }.about("validate").about(names.join(", ")))
            })?;
        }
        staged.commit().map_err(Trouble::Unwritten)
    }

    /// What programs get that we run: what came with the container, and where the files are.
    #[must_use]
    pub fn environment(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entries = self.plan.passed.iter().filter_map(|entry| {
            let at = entry.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
            Some((entry[..at].to_vec(), entry[at + 1..].to_vec()))
        });
        let directory = self.place.path().map(|path| (b"SECRET_INIT_DIR".to_vec(), path.as_os_str().as_encoded_bytes().to_vec()));
        entries.chain(self.plan.set.iter().cloned()).chain(directory).collect()
    }

    fn write_down(&self, members: &[Member], outcome: &Result<Made, Trouble>) {
        let (event, word) = match outcome {
            Ok(made) if made.deliveries.is_empty() => return,
            Ok(_) => (Event::Rotated, "ok"),
            Err(Trouble::Refused(_)) => (Event::Refused, "refused"),
            Err(_) => (Event::Failed, "failed"),
        };
        for member in members.iter().filter(|member| member.is_new) {
            let watched = &self.rotation.watched[member.index];
            let names: Vec<&str> = super::track::deliveries(self.plan, watched).map(|delivery| delivery.name.as_str()).collect();
            self.audit.record(&Entry {
                event,
                names: &names,
                reference: Some(&watched.reference),
                version: Some(&member.version),
                outcome: word,
                fingerprint: member.fingerprint,
            });
        }
    }
}

/// What keeps a secret from being new does nothing else.
pub fn kept(problem: Problem) -> Problem {
    Problem { cause: format!("{}; the program keeps what it has", problem.cause), ..problem }
}

/// The group of files that a delivery changes with.
fn group(delivery: &Delivery) -> Option<&str> {
    match &delivery.target {
        Target::File(file) if file.group.is_some() => Some(file.parent()),
        _ => None,
    }
}
