//! Time that no one sets: it goes on while the machine is suspended, as leases do.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment, as the time since the machine started.
pub type Moment = Duration;

/// The moment that it is now, by `CLOCK_BOOTTIME`: no change of the wall clock moves it.
#[must_use]
pub fn now() -> Moment {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}
