//! Chance, to spread what would otherwise happen everywhere at once. It keeps no secret.

use std::hash::{BuildHasher, RandomState};

/// A number from 0 up to, and without, 1.
#[must_use]
pub fn fraction() -> f64 {
    // A hasher has keys of its own, which the system's random numbers made: good enough to spread.
    let random = RandomState::new().hash_one(()) >> 32;
    f64::from(u32::try_from(random).unwrap_or(0)) / f64::from(u32::MAX).next_up()
}
