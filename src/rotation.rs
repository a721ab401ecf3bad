//! What rotation is made of: when to look, when to act, whom to tell and how.

pub mod debounce;
pub mod notify;
pub mod schedule;
pub mod target;
pub mod watch;
