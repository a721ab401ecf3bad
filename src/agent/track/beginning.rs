//! What is known at the beginning: after a start, or after an agent that died; and what is left for one that comes after us.

use super::{Secret, Tracked, digest};
use crate::agent::Agent;
use crate::agent::memory::{Known, Memory, name};
use crate::resolve::{Answers, Secrets};
use crate::secret::{Digest, Version};
use crate::store::{Fetched, Lease, Term};
use crate::sys::clock::Moment;
use crate::sys::random;

impl<'a> Tracked<'a> {
    /// After a start, which delivered all of it.
    pub fn of_start(agent: &'a Agent<'a>, answers: &Answers, secrets: &Secrets, now: Moment) -> Self {
        let mut tracked = Self::new(agent, now);
        for (index, value) in secrets.iter().enumerate() {
            tracked.digests[index] = digest(value);
        }
        for secret in &mut tracked.secrets {
            let Some(answer) = answers.about(&secret.watched.reference) else { continue };
            match &answer.result {
                Ok(Fetched::New { version, life, .. }) => {
                    secret.version = Some(version.clone());
                    secret.last_success = Some(now);
                    secret.adopt(life, now, true);
                    if secret.path.is_some() {
                        // It may have changed between the start and the moment from which on it is watched.
                        secret.schedule.hurry(now);
                    }
                }
                Ok(Fetched::Unchanged) => {}
                // It is optional, or has a default: else there would have been no start.
                Err(_) => secret.last_success = Some(now),
            }
        }
        tracked
    }

    /// After an agent that died: what it knew is known, and something may have changed meanwhile.
    pub fn of_memory(agent: &'a Agent<'a>, memory: &Memory, now: Moment) -> Self {
        let mut tracked = Self::new(agent, now);
        for (index, delivery) in agent.plan.deliveries.iter().enumerate() {
            tracked.digests[index] = memory.delivered.get(&delivery.name).and_then(|text| Digest::parse(text));
        }
        for secret in &mut tracked.secrets {
            let Some(known) = memory.secrets.get(&name(secret.watched)) else {
                // It died before it could say what it knew.
                secret.schedule.hurry(now);
                continue;
            };
            secret.version = known.version.clone().map(Version::new);
            secret.last_success = Some(now);
            match &known.lease {
                None => {
                    known.rotation.into_iter().for_each(|at| secret.schedule.rotates(at));
                    secret.schedule.hurry(now);
                }
                Some((id, granted, end)) => {
                    let left = Term { duration: end.saturating_sub(now), is_renewable: known.is_renewable };
                    secret.lease = Some(Lease { id: id.clone(), term: Term { duration: *granted, ..left } });
                    secret.schedule.resumed(now, random::fraction(), left, *granted);
                }
            }
        }
        tracked
    }

    /// Notes what is known for a later agent.
    pub fn note(&self, memory: &mut Memory) {
        let digests = self.agent.plan.deliveries.iter().zip(&self.digests);
        memory.delivered = digests.filter_map(|(delivery, digest)| Some((delivery.name.clone(), digest.as_ref()?.to_string()))).collect();
        let known = |secret: &Secret| Known {
            version: secret.version.as_ref().map(|version| version.name().to_owned()),
            lease: secret.lease.as_ref().and_then(|lease| Some((lease.id.clone(), lease.term.duration, secret.schedule.end()?))),
            rotation: secret.schedule.rotation(),
            is_renewable: secret.lease.as_ref().is_some_and(|lease| lease.term.is_renewable),
        };
        memory.secrets = self.secrets.iter().map(|secret| (name(secret.watched), known(secret))).collect();
    }
}
