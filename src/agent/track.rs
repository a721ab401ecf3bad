//! What is known of the watched secrets: versions, digests, leases, and when each is looked at next.

mod beginning;
mod relations;

use std::path::PathBuf;
use std::time::Duration;

use super::Agent;
use super::change::{Changed, Member, Trouble, kept};
use crate::control::Looked;
use crate::health;
use crate::metrics::{Metrics, Rotation as Rotated};
use crate::plan::Watched;
use crate::reference::Reference;
use crate::report::{self, Code, Problem};
use crate::resolve::{Answer, Value};
use crate::rotation::schedule::{Schedule, Step};
use crate::secret::{Digest, Key, Version};
use crate::store::{self, Failure, Fetched, Lease, Life, Renew, Term, Wanted};
use crate::sys::clock::Moment;
use crate::sys::random;
pub use relations::deliveries;
use relations::{about, components, is_same_store};

/// Events of files can be missed (binds of Docker Desktop, NFS): this often files are looked at anyway.
const FILE_PERIOD: Duration = Duration::from_secs(30);

/// So long a program may be without the password that is good now.
const NO_OVERLAP: Duration = Duration::from_secs(2);

/// All watched secrets.
pub struct Tracked<'a> {
    agent: &'a Agent<'a>,
    secrets: Vec<Secret<'a>>,
    /// The digest of what was delivered, by delivery; none for what is absent.
    digests: Vec<Option<Digest>>,
    /// How many looks and changes are under way in each component.
    busy: Vec<usize>,
}

/// One watched secret.
struct Secret<'a> {
    watched: &'a Watched,
    kind: &'static str,
    /// Those that share a delivery or a group of files are looked at and changed one after the other.
    component: usize,
    path: Option<PathBuf>,
    is_touched: bool,
    /// Whether it is to be looked at once more when what is under way is over: that may have begun too early to see the last change.
    is_wanted: bool,
    version: Option<Version>,
    /// The version that `validate` did not want. It is asked once more when somebody wants everything to be looked at.
    refused: Option<Version>,
    lease: Option<Lease>,
    is_renewing: bool,
    schedule: Schedule,
    last_success: Option<Moment>,
    /// Why the last look failed, which has been told.
    failure: Option<String>,
    /// The watched secret that a change of this one waits for.
    waits_for: Option<usize>,
}

/// What looks came to.
pub struct Sorted {
    /// The secrets about which all is said.
    pub settled: Vec<(usize, Looked)>,
    /// What is new, by component.
    pub new: Vec<(usize, Vec<Answer>)>,
}

impl<'a> Tracked<'a> {
    fn new(agent: &'a Agent<'a>, now: Moment) -> Self {
        let plan = agent.plan;
        let components = components(plan, &agent.rotation.watched);
        let track = |(watched, component): (&'a Watched, usize)| {
            let row = store::row(watched.reference.scheme);
            let is_remote = row.is_some_and(|row| row.is_remote);
            let period = if is_remote { watched.period } else { watched.period.min(FILE_PERIOD) };
            Secret {
                watched,
                kind: row.map_or("", |row| row.name),
                component,
                path: store::path(&watched.reference, &plan.settings),
                is_touched: false,
                is_wanted: false,
                version: None,
                refused: None,
                lease: None,
                is_renewing: false,
                schedule: Schedule::new(period, now, random::fraction()),
                last_success: None,
                failure: None,
                waits_for: None,
            }
        };
        let secrets: Vec<Secret> = agent.rotation.watched.iter().zip(components).map(track).collect();
        let busy = vec![0; secrets.len()];
        let mut tracked = Self { agent, secrets, digests: vec![None; plan.deliveries.len()], busy };
        tracked.come_together();
        tracked
    }

    /// Secrets of one store that are looked at as often go together, so that a batch remains one.
    fn come_together(&mut self) {
        for index in 1..self.secrets.len() {
            let (before, rest) = self.secrets.split_at_mut(index);
            let secret = &mut rest[0];
            let is_alike = |other: &&Secret| {
                other.watched.period == secret.watched.period && is_same_store(&other.watched.reference, &secret.watched.reference)
            };
            if let Some(other) = before.iter().find(is_alike) {
                secret.schedule = other.schedule.clone();
            }
        }
    }

    /// The files that secrets are read from.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.secrets.iter().filter_map(|secret| secret.path.clone())
    }

    /// Something happened to files; false when none is watched here.
    pub fn touch(&mut self, paths: &[PathBuf]) -> bool {
        let touched = self.secrets.iter_mut().filter(|secret| secret.path.as_ref().is_some_and(|path| paths.contains(path)));
        touched.map(|secret| secret.is_touched = true).count() > 0
    }

    /// Looks at the files that something happened to.
    pub fn look_at_touched(&mut self, now: Moment) {
        self.look_at(now, |secret| std::mem::take(&mut secret.is_touched));
    }

    /// Looks at everything, and tells what that is.
    pub fn look_at_all(&mut self, now: Moment) -> Vec<usize> {
        self.look_at(now, |secret| {
            secret.refused = None;
            true
        });
        (0..self.secrets.len()).collect()
    }

    /// Looks at the leased secrets of a store: their leases end with its last login.
    pub fn look_at_leased(&mut self, store: &str, now: Moment) {
        self.look_at(now, |secret| secret.lease.is_some() && secret.watched.reference.store_name() == store);
    }

    fn look_at(&mut self, now: Moment, mut is_meant: impl FnMut(&mut Secret) -> bool) {
        for secret in &mut self.secrets {
            if is_meant(secret) {
                secret.is_wanted = self.busy[secret.component] > 0 || secret.is_renewing;
                secret.schedule.hurry(now);
            }
        }
    }

    /// What was under way is over. Those that are wanted once more are looked at now, and nothing is said of them before.
    fn over(&mut self, settled: &mut Vec<(usize, Looked)>, now: Moment) {
        for (index, secret) in self.secrets.iter_mut().enumerate() {
            if secret.is_wanted && self.busy[secret.component] == 0 && !secret.is_renewing {
                secret.is_wanted = false;
                secret.schedule.hurry(now);
                settled.retain(|(settled, _)| *settled != index);
            }
        }
    }

    /// When something is due next.
    pub fn next(&self) -> Option<Moment> {
        let is_free = |secret: &&Secret| self.busy[secret.component] == 0 && !secret.is_renewing;
        self.secrets.iter().filter(is_free).map(|secret| secret.schedule.next()).min()
    }

    /// What is to be fetched now, a batch for each store that is asked. What is nearly due goes along.
    pub fn take_due(&mut self, now: Moment) -> Vec<Vec<Wanted>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let is_free = |tracked: &Self, index: usize| {
            let secret = &tracked.secrets[index];
            tracked.busy[secret.component] == 0 && !secret.is_renewing && secret.schedule.step() == Step::Fetch
        };
        let free: Vec<usize> = (0..self.secrets.len()).filter(|&index| is_free(self, index)).collect();
        for &index in free.iter().filter(|&&index| self.secrets[index].schedule.next() <= now) {
            let reference = &self.secrets[index].watched.reference;
            match batches.iter_mut().find(|batch| is_same_store(&self.secrets[batch[0]].watched.reference, reference)) {
                Some(batch) => batch.push(index),
                None => batches.push(vec![index]),
            }
        }
        for batch in &mut batches {
            let along = free.iter().filter(|&&index| {
                let secret = &self.secrets[index];
                secret.schedule.is_due(now) && is_same_store(&self.secrets[batch[0]].watched.reference, &secret.watched.reference)
            });
            batch.extend(along.copied().collect::<Vec<_>>());
            batch.sort_unstable();
            batch.dedup();
        }
        for &index in batches.iter().flatten() {
            self.busy[self.secrets[index].component] += 1;
        }
        let wanted = |&index: &usize| {
            let secret = &self.secrets[index];
            Wanted { reference: secret.watched.reference.clone(), since: secret.version.clone() }
        };
        batches.iter().map(|batch| batch.iter().map(wanted).collect()).collect()
    }

    /// The leases that are to be renewed now.
    pub fn take_renewals(&mut self, now: Moment) -> Vec<(usize, &'a dyn Renew, String, Duration)> {
        let mut due = Vec::new();
        for (index, secret) in self.secrets.iter_mut().enumerate() {
            let is_due = secret.schedule.step() == Step::Renew && secret.schedule.next() <= now && !secret.is_renewing;
            if let Some(lease) = secret.lease.as_ref().filter(|_| is_due && self.busy[secret.component] == 0)
                && let Some(renew) = self.agent.stores.renewing(&secret.watched.reference)
            {
                secret.is_renewing = true;
                due.push((index, renew, lease.id.clone(), lease.term.duration));
            } else if is_due && secret.lease.is_none() {
                // Nothing to renew after all.
                secret.schedule.hurry(now);
            }
        }
        due
    }

    /// A lease was made longer, or not.
    pub fn renewed(&mut self, index: usize, result: Result<Term, Failure>, now: Moment) {
        let secret = &mut self.secrets[index];
        secret.is_renewing = false;
        match result {
            Ok(term) => {
                secret.schedule.renewed(now, random::fraction(), term);
                if let Some(lease) = &mut secret.lease {
                    lease.term.is_renewable = term.is_renewable;
                }
                self.well_again(index, now);
            }
            Err(failure) if failure.is_temporary() => self.failed(index, &failure, now),
            // It is fetched anew, which tells what there is to tell.
            Err(failure) => secret.schedule.failed(now, random::fraction(), &failure),
        }
        self.over(&mut Vec::new(), now);
    }

    /// Takes down what stores answered, and sorts out what is new.
    pub fn looked(&mut self, answers: Vec<Answer>, now: Moment) -> Sorted {
        let mut sorted = Sorted { settled: Vec::new(), new: Vec::new() };
        for answer in answers {
            let Some(index) = self.index(&answer.reference) else { continue };
            let secret = &mut self.secrets[index];
            match &answer.result {
                Ok(Fetched::New { version, .. }) if secret.refused.as_ref() == Some(version) => {
                    // `validate` has seen this very one.
                    secret.schedule.unchanged(now, random::fraction());
                    sorted.settled.push((index, Looked::Failed(Code::Data, secret.failure.clone().unwrap_or_default())));
                }
                Ok(Fetched::New { version, .. }) if secret.version.as_ref() != Some(version) => {
                    match sorted.new.iter_mut().find(|(component, _)| *component == secret.component) {
                        Some((_, list)) => {
                            // One change for all that is new in a component.
                            self.busy[secret.component] -= 1;
                            list.push(answer);
                        }
                        None => sorted.new.push((secret.component, vec![answer])),
                    }
                    continue;
                }
                Ok(_) => {
                    secret.schedule.unchanged(now, random::fraction());
                    sorted.settled.push((index, Looked::Unchanged));
                    self.well_again(index, now);
                }
                Err(failure) => {
                    let code = failure.code();
                    sorted.settled.push((index, Looked::Failed(code, failure.cause.clone())));
                    self.failed(index, &failure.clone(), now);
                }
            }
            let component = self.secrets[index].component;
            self.busy[component] -= 1;
            self.go_on_with_those_that_wait_for(index, now);
        }
        self.over(&mut sorted.settled, now);
        sorted
    }

    /// Those whose change failed for the want of this one are looked at now.
    fn go_on_with_those_that_wait_for(&mut self, index: usize, now: Moment) {
        if self.secrets[index].failure.is_some() {
            return;
        }
        for secret in self.secrets.iter_mut().filter(|secret| secret.waits_for == Some(index)) {
            secret.waits_for = None;
            secret.schedule.hurry(now);
        }
    }

    /// A secret is with the program as the store has it. Who was told that it could not be read may know that it can.
    fn well_again(&mut self, index: usize, now: Moment) {
        let secret = &mut self.secrets[index];
        let had_failed = secret.failure.is_some();
        secret.succeeded(now);
        if had_failed {
            report::inform(|| format!("{}: {}: is well again", self.names(index), self.reference(index)));
        }
    }

    /// A look failed: the program keeps what it has, and that is told once for each reason.
    fn failed(&mut self, index: usize, failure: &Failure, now: Moment) {
        let plan = self.agent.plan;
        let secret = &mut self.secrets[index];
        secret.schedule.failed(now, random::fraction(), failure);
        let is_optional = failure.kind == store::FailureKind::NotFound && !plan.is_required(&secret.watched.reference);
        if is_optional && secret.version.is_none() {
            secret.succeeded(now);
        } else if secret.failure.as_deref() != Some(&failure.cause) {
            secret.failure = Some(failure.cause.clone());
            let mut problem = Problem::new(failure.code(), &failure.cause);
            problem.hint.clone_from(&failure.hint);
            report::warn_of(&[kept(about(plan, secret.watched, problem))]);
        }
    }

    /// What came of a change: for each secret that everybody knows now.
    pub fn changed(&mut self, changed: &Changed, metrics: &mut Metrics, now: Moment) -> Vec<(usize, Looked)> {
        self.busy[changed.component] -= 1;
        let took = now.saturating_sub(changed.began);
        let mut settled = Vec::new();
        match &changed.outcome {
            Ok(made) => {
                let (delivered, others): (Vec<&Member>, Vec<&Member>) = changed.members.iter().partition(|member| member.is_delivered);
                let members: Vec<_> =
                    delivered.into_iter().map(|member| (member.index, member.version.clone(), member.life.clone())).collect();
                self.delivered(&members, &made.digests, now);
                for member in others {
                    let secret = &mut self.secrets[member.index];
                    secret.succeeded(now);
                    // The program goes on with the one that it has, as long as that lasts.
                    secret.schedule.unchanged(now, random::fraction());
                }
                for member in changed.members.iter().filter(|member| member.is_new) {
                    let looked = if made.deliveries.is_empty() { Looked::Unchanged } else { Looked::Changed };
                    if looked == Looked::Changed {
                        metrics.rotated(self.secrets[member.index].kind, Rotated::Done(took));
                    }
                    settled.push((member.index, looked));
                }
                for member in &changed.members {
                    self.go_on_with_those_that_wait_for(member.index, now);
                }
            }
            Err(trouble) => {
                let cause = trouble.cause();
                let mut is_news = false;
                for member in changed.members.iter().filter(|member| member.is_new) {
                    let secret = &mut self.secrets[member.index];
                    secret.refused = matches!(trouble, Trouble::Refused(_)).then(|| member.version.clone());
                    metrics.rotated(secret.kind, if matches!(trouble, Trouble::Refused(_)) { Rotated::Refused } else { Rotated::Failed });
                    secret.waits_for = trouble.failed_mate(self.agent);
                    secret.schedule.failed(now, random::fraction(), &trouble.failure());
                    if secret.failure.as_deref() != Some(&cause) {
                        secret.failure = Some(cause.clone());
                        is_news = true;
                    }
                    settled.push((member.index, Looked::Failed(trouble.code(), cause.clone())));
                }
                if is_news {
                    report::warn_of(&trouble.told());
                }
                if let Trouble::Mate(reference, failure) = trouble
                    && let Some(mate) = self.index(reference)
                {
                    self.failed(mate, failure, now);
                }
            }
        }
        self.over(&mut settled, now);
        settled
    }

    /// These secrets are with the program now.
    pub fn delivered(&mut self, members: &[(usize, Version, Life)], digests: &[(usize, Option<Digest>)], now: Moment) {
        for (index, version, life) in members {
            let secret = &mut self.secrets[*index];
            secret.version = Some(version.clone());
            secret.succeeded(now);
            secret.adopt(life, now, false);
        }
        for (delivery, digest) in digests {
            self.digests[*delivery] = *digest;
        }
    }

    /// How long an action that follows from a change may be put off: a static role's old password is not good any more, and a leased one not for ever.
    pub fn longest_splay(&self, changed: &Changed, now: Moment) -> Duration {
        let of = |member: &Member| match (&member.life, self.secrets[member.index].schedule.end()) {
            (Life::Rotated(_), _) => NO_OVERLAP,
            (_, Some(end)) => end.saturating_sub(now) / 4,
            _ => Duration::MAX,
        };
        changed.members.iter().filter(|member| member.is_new).map(of).min().unwrap_or(Duration::MAX)
    }

    /// The version of a secret that the program has.
    pub fn version(&self, index: usize) -> Option<&Version> {
        self.secrets[index].version.as_ref()
    }

    /// The digests of what was delivered.
    pub fn digests(&self) -> Vec<Option<Digest>> {
        self.digests.clone()
    }

    /// The secrets that are lent to us.
    pub fn leased(&self) -> Vec<Reference> {
        self.secrets.iter().filter(|secret| secret.lease.is_some()).map(|secret| secret.watched.reference.clone()).collect()
    }

    /// The names of the leases of a store.
    pub fn leases(&self, store: &str) -> Vec<String> {
        let its = self.secrets.iter().filter(|secret| secret.watched.reference.store_name() == store);
        its.filter_map(|secret| secret.lease.as_ref()).map(|lease| lease.id.clone()).collect()
    }

    /// The names of the deliveries of a secret.
    pub fn names(&self, index: usize) -> String {
        let names: Vec<&str> = deliveries(self.agent.plan, self.secrets[index].watched).map(|delivery| delivery.name.as_str()).collect();
        names.join(", ")
    }

    /// The reference to a secret, for people.
    pub fn reference(&self, index: usize) -> String {
        self.secrets[index].watched.reference.whole().to_string()
    }

    /// How each secret is.
    pub fn states(&self) -> Vec<health::State> {
        let plan = self.agent.plan;
        let state = |secret: &Secret| health::State {
            names: deliveries(plan, secret.watched).map(|delivery| delivery.name.clone()).collect(),
            reference: secret.watched.reference.whole().to_string(),
            store: secret.kind,
            is_required: plan.is_required(&secret.watched.reference),
            last_success: secret.last_success,
            next_look: Some(secret.schedule.next()),
            expires: secret.schedule.end(),
            failure: secret.failure.clone(),
        };
        self.secrets.iter().map(state).collect()
    }

    fn index(&self, reference: &Reference) -> Option<usize> {
        self.secrets.iter().position(|secret| secret.watched.reference.same_secret(reference))
    }
}

impl Secret<'_> {
    fn succeeded(&mut self, now: Moment) {
        self.last_success = Some(now);
        self.refused = None;
        self.failure = None;
        self.waits_for = None;
    }

    /// From now on this one lives as long as that. What has no end keeps the moment of its first look.
    fn adopt(&mut self, life: &Life, now: Moment, is_first: bool) {
        self.lease = match life {
            Life::Leased(lease) => Some(lease.clone()),
            _ => None,
        };
        if !(is_first && *life == Life::Lasting) {
            self.schedule.fetched(now, random::fraction(), life);
        }
    }
}

/// The digest of a value; none for what is absent.
pub fn digest(value: &Value) -> Option<Digest> {
    match value {
        Value::Absent => None,
        Value::Secret(secret) => Some(Key::own().digest(secret.expose())),
        Value::Variables(variables) => {
            let mut text = crate::secret::Secret::default();
            for (name, secret) in variables {
                text.push(name.as_bytes());
                text.push(&[0]);
                text.push(secret.expose());
                text.push(&[0]);
            }
            Some(Key::own().digest(text.expose()))
        }
    }
}
