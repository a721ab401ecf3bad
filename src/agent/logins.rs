//! The logins at stores: those that have an end are renewed, or repeated, before it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::track::{Tracked, deliveries};
use super::{Agent, Event, Running};
use crate::audit::{Entry, Event as Audited};
use crate::report::{self, Problem};
use crate::resolve::{Answer, Stores};
use crate::rotation::schedule::{Schedule, Step};
use crate::store::{Failure, FailureKind, Life, Renew, Term};
use crate::sys::clock::{self, Moment};
use crate::sys::random;

/// How often it is asked when a login ends, as long as that cannot be told.
const LOOK_UP: Duration = Duration::from_mins(5);

/// All logins.
pub struct Logins<'a>(Vec<Login<'a>>);

struct Login<'a> {
    store: &'a str,
    renew: &'a dyn Renew,
    /// Which login it is: each new one has another number.
    number: u64,
    /// When it is to be seen to; none when it has no end.
    schedule: Option<Schedule>,
    /// Whether its end could not be asked for.
    is_unknown: bool,
    is_busy: bool,
    failure: Option<String>,
}

/// Something about a login is over.
pub enum LoginEvent {
    /// How long it lasts is known.
    Known(usize, Result<Option<Term>, Failure>),
    /// It was made longer, or not.
    Renewed(usize, Result<Option<Term>, Failure>),
    /// Another took its place, or not.
    Repeated(usize, Result<Option<Term>, Failure>),
}

impl<'a> Logins<'a> {
    /// The logins of the stores.
    pub fn new(stores: &'a Stores) -> Self {
        let login = |(store, renew): (&'a str, &'a dyn Renew)| Login {
            store,
            renew,
            number: renew.login_number(),
            schedule: None,
            is_unknown: false,
            is_busy: false,
            failure: None,
        };
        Self(stores.all_renewing().map(login).collect())
    }

    /// Asks how long each lasts.
    pub fn begin(&mut self, running: &FuturesUnordered<Running<'a>>) {
        for index in 0..self.0.len() {
            self.look_up(index, running);
        }
    }

    fn look_up(&mut self, index: usize, running: &FuturesUnordered<Running<'a>>) {
        let login = &mut self.0[index];
        login.is_busy = true;
        let renew = login.renew;
        running.push(Box::pin(async move { Event::Login(LoginEvent::Known(index, renew.login().await)) }));
    }

    /// When one is to be seen to.
    pub fn next(&self) -> Option<Moment> {
        self.0.iter().filter(|login| !login.is_busy).filter_map(|login| login.schedule.as_ref()).map(Schedule::next).min()
    }

    /// When each ends that has an end, by the names of the stores.
    pub fn ends(&self) -> Vec<(String, Moment)> {
        self.0.iter().filter_map(|login| Some((login.store.to_owned(), login.schedule.as_ref()?.end()?))).collect()
    }

    /// Sees to those that are due.
    pub fn begin_what_is_due(&mut self, running: &FuturesUnordered<Running<'a>>, now: Moment) {
        for (index, login) in self.0.iter_mut().enumerate().filter(|(_, login)| !login.is_busy) {
            let Some(schedule) = login.schedule.as_ref().filter(|schedule| schedule.next() <= now) else { continue };
            login.is_busy = true;
            let renew = login.renew;
            running.push(match schedule.step() {
                _ if login.is_unknown => Box::pin(async move { Event::Login(LoginEvent::Known(index, renew.login().await)) }),
                Step::Renew => Box::pin(async move { Event::Login(LoginEvent::Renewed(index, renew.renew_login().await)) }),
                Step::Fetch => Box::pin(async move { Event::Login(LoginEvent::Repeated(index, renew.log_in().await)) }),
            });
        }
    }

    /// Takes down what came of it.
    pub fn happened(&mut self, event: &LoginEvent, now: Moment) {
        let (LoginEvent::Known(index, result) | LoginEvent::Renewed(index, result) | LoginEvent::Repeated(index, result)) = event;
        let login = &mut self.0[*index];
        login.is_busy = false;
        let is_repeated = matches!(event, LoginEvent::Repeated(..));
        match (result, event) {
            (Ok(None), _) => (login.schedule, login.is_unknown) = (None, false),
            (Ok(Some(term)), LoginEvent::Renewed(..)) => {
                if let Some(schedule) = &mut login.schedule {
                    schedule.renewed(now, random::fraction(), *term);
                }
            }
            (Ok(Some(term)), _) => {
                login.schedule = Some(Schedule::of_login(*term, now, random::fraction()));
                login.is_unknown = false;
            }
            // Else nobody would see to it ever again.
            (Err(failure), LoginEvent::Known(..)) if failure.is_temporary() && (login.schedule.is_none() || login.is_unknown) => {
                login.schedule.get_or_insert_with(|| Schedule::new(LOOK_UP, now, 0.0)).failed(now, random::fraction(), failure);
                login.is_unknown = true;
            }
            (Err(failure), _) => {
                if let Some(schedule) = &mut login.schedule {
                    schedule.failed(now, random::fraction(), failure);
                }
                login.tell(failure, is_repeated);
            }
        }
        if result.is_ok() {
            login.failure = None;
        }
    }

    /// The stores that have another login than before: what was lent with the one before ends with it.
    pub fn renewed_stores(&mut self, running: &FuturesUnordered<Running<'a>>) -> Vec<String> {
        let mut stores = Vec::new();
        for index in 0..self.0.len() {
            let number = self.0[index].renew.login_number();
            if self.0[index].number != number {
                self.0[index].number = number;
                stores.push(self.0[index].store.to_owned());
                if !self.0[index].is_busy {
                    self.look_up(index, running);
                }
            }
        }
        stores
    }

    /// Gives back the leases, and the logins that were made for us, at all stores side by side and within this time.
    pub async fn revoke(&self, tracked: &Tracked<'_>, agent: &Agent<'_>, limit: Duration) {
        let silent = |_| Err(Failure::new(FailureKind::Unavailable { retry_after: None }, "no answer in time"));
        let revoked = join_all(self.0.iter().map(|login| async move {
            let leases = tracked.leases(login.store);
            let result = tokio::time::timeout(limit, login.renew.revoke(&leases)).await.unwrap_or_else(silent);
            (login, leases, result)
        }));
        for (login, leases, result) in revoked.await {
            match result {
                Ok(()) => agent.revoked(&leases),
                Err(failure) => {
                    let mut problem = Problem::new(failure.code(), format!("what was lent could not be given back: {}", failure.cause));
                    problem.hint = failure.hint;
                    report::warn_of(&[problem.about(login.store)]);
                }
            }
        }
    }
}

impl Login<'_> {
    /// That a login could not be renewed is told when another cannot be had either.
    fn tell(&mut self, failure: &Failure, is_repeated: bool) {
        if is_repeated && self.failure.as_deref() != Some(&failure.cause) {
            self.failure = Some(failure.cause.clone());
            let end = self.schedule.as_ref().and_then(Schedule::end).map(|end| end.saturating_sub(clock::now()));
            let end = end.map_or_else(String::new, |left| {
                format!("; it ends in {}", humantime::format_duration(std::time::Duration::from_secs(left.as_secs())))
            });
            let mut problem = Problem::new(failure.code(), format!("the login cannot be renewed: {}{end}", failure.cause));
            problem.hint.clone_from(&failure.hint);
            report::warn_of(&[problem.about(self.store)]);
        }
    }
}

/// Leases, by store.
type Lent = BTreeMap<String, Vec<String>>;

/// What is lent to us by these answers.
pub(super) fn lent<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Lent {
    let mut lent = Lent::new();
    for answer in answers {
        if let Some(Life::Leased(lease)) = answer.life() {
            lent.entry(answer.reference.store_name().to_owned()).or_default().push(lease.id.clone());
        }
    }
    lent
}

impl Agent<'_> {
    /// Gives back what was lent and nobody got. What cannot be given back ends by itself.
    pub(super) async fn give_back(&self, lent: &Lent) {
        for (store, renew) in self.stores.all_renewing() {
            if let Some(leases) = lent.get(store)
                && renew.end(leases).await.is_ok()
            {
                self.revoked(leases);
            }
        }
    }

    /// Writes down that a lease was to last longer.
    pub(super) fn renewed(&self, index: usize, result: &Result<Term, Failure>) {
        let watched = &self.rotation.watched[index];
        let names: Vec<&str> = deliveries(self.plan, watched).map(|delivery| delivery.name.as_str()).collect();
        self.audit.record(&Entry {
            event: Audited::Renewed,
            names: &names,
            reference: Some(&watched.reference),
            version: None,
            outcome: result.as_ref().err().map_or("ok", |failure| failure.kind.word()),
            fingerprint: None,
        });
    }

    /// Writes down that leases were ended.
    fn revoked(&self, leases: &[String]) {
        for _ in leases {
            self.audit.record(&Entry {
                event: Audited::Revoked,
                names: &[],
                reference: None,
                version: None,
                outcome: "ok",
                fingerprint: None,
            });
        }
    }
}
