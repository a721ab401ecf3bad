//! Deadlines for `poll`.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// A moment after which waiting ends, or none: `poll` then sleeps until something happens, without a timer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No deadline.
    pub const NEVER: Self = Self(None);

    /// The moment `duration` from now.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }

    /// Whether a moment is set.
    #[must_use]
    pub fn is_set(self) -> bool {
        self.0.is_some()
    }

    /// The one that comes first.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.0.is_some_and(|moment| Instant::now() >= moment)
    }

    /// The time that is left, rounded up to a millisecond so that `poll` does not return just before it.
    #[must_use]
    pub fn timeout(self) -> PollTimeout {
        match self.0 {
            None => PollTimeout::NONE,
            Some(moment) => {
                let left = moment.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
            }
        }
    }
}
