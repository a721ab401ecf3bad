//! How the secrets of a running program are, as probes, metrics and people see it. Nothing of a secret is in it, and all of it can be printed.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::report::count;
use crate::sys::clock::{self, Moment};

/// What is known at a moment.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub clock: Clock,
    /// Each secret.
    pub secrets: Vec<State>,
    /// The stores that have a login with an end, by their names, and when that is.
    pub logins: Vec<(String, Moment)>,
}

/// One secret, whatever is made of it.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The names of its deliveries: variables, paths of files.
    pub names: Vec<String>,
    /// The reference to it.
    pub reference: String,
    /// The name of its kind of store.
    pub store: &'static str,
    /// Whether the program is not to be without it.
    pub is_required: bool,
    /// When its store last gave it, or said that it is as it was; none when there is no value.
    pub last_success: Option<Moment>,
    /// When it will be looked at again.
    pub next_look: Option<Moment>,
    /// When the value that the program has stops being good.
    pub expires: Option<Moment>,
    /// Why the last look failed, if it did.
    pub failure: Option<String>,
}

/// What is wrong with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// The program needs it and does not have it.
    Missing,
    /// The value that the program has is not good any more.
    Expired,
    /// The program has it, and whether it is still the same could not be told.
    Stale,
}

impl Ailment {
    /// Whether a program is unwell by it. Not by a value that is only old: else a store that is down would have every program restarted.
    #[must_use]
    pub fn is_grave(self) -> bool {
        self != Self::Stale
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Stale => "stale",
        }
    }
}

impl State {
    /// What is wrong with it at a moment, the worst alone.
    #[must_use]
    pub fn ailment(&self, now: Moment) -> Option<Ailment> {
        if self.last_success.is_none() {
            return self.is_required.then_some(Ailment::Missing);
        }
        if self.expires.is_some_and(|end| end <= now) {
            return Some(Ailment::Expired);
        }
        self.failure.is_some().then_some(Ailment::Stale)
    }
}

impl Seen {
    /// The secrets that something is wrong with.
    pub fn ailing(&self) -> impl Iterator<Item = (&State, Ailment)> {
        self.secrets.iter().filter_map(|state| Some((state, state.ailment(self.clock.moment)?)))
    }

    /// Whether all that is needed is there and good.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        !self.ailing().any(|(_, ailment)| ailment.is_grave())
    }

    /// How it is, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = if self.is_healthy() { "healthy: " } else { "unhealthy: " }.to_owned();
        text.push_str(&count(self.secrets.len(), "secret"));
        for kind in [Ailment::Missing, Ailment::Expired, Ailment::Stale] {
            let number = self.ailing().filter(|(_, ailment)| *ailment == kind).count();
            if number > 0 {
                let _ = write!(text, ", {number} {}", kind.word());
            }
        }
        text
    }
}

/// One moment by both clocks: a moment is told to others as they would see it on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// By the clock that nobody sets.
    pub moment: Moment,
    /// By the clock on the wall.
    pub wall: SystemTime,
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { moment: clock::now(), wall: SystemTime::now() }
    }

    /// A moment as seconds since 1970.
    #[must_use]
    pub fn unix(&self, moment: Moment) -> f64 {
        let wall = self.wall.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        wall.as_secs_f64() + moment.as_secs_f64() - self.moment.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(last_success: Option<u64>, expires: Option<u64>, failure: Option<&str>) -> State {
        let moment = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        State {
            is_required: true,
            last_success: moment(last_success),
            expires: moment(expires),
            failure: failure.map(str::to_owned),
            ..State::default()
        }
    }

    fn seen(secrets: Vec<State>) -> Seen {
        Seen { clock: Clock { moment: Duration::from_secs(100), wall: UNIX_EPOCH }, secrets, logins: Vec::new() }
    }

    #[test]
    fn what_is_old_is_told_and_harms_nobody() {
        let seen = seen(vec![state(Some(1), None, None), state(Some(1), Some(101), Some("connection refused"))]);
        assert_eq!((seen.summary().as_str(), seen.is_healthy()), ("healthy: 2 secrets, 1 stale", true));
    }

    #[test]
    fn what_is_missing_or_expired_is_grave() {
        let missing = seen(vec![state(None, None, Some("permission denied"))]);
        assert_eq!((missing.summary().as_str(), missing.is_healthy()), ("unhealthy: 1 secret, 1 missing", false));
        let expired = seen(vec![state(Some(1), Some(100), None), state(Some(1), None, None)]);
        assert_eq!((expired.summary().as_str(), expired.is_healthy()), ("unhealthy: 2 secrets, 1 expired", false));
        let optional = State { is_required: false, ..state(None, None, None) };
        assert!(seen(vec![optional]).is_healthy());
    }

    #[test]
    fn a_moment_is_told_by_the_clock_on_the_wall() {
        let clock = Clock { moment: Duration::from_secs(50), wall: UNIX_EPOCH + Duration::from_secs(1000) };
        let shown = |moment: u64| clock.unix(Duration::from_millis(moment)).to_string();
        assert_eq!([shown(40_000), shown(60_500)], ["990", "1010.5"]);
    }
}
