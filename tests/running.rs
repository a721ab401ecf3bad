//! What goes wrong while a program runs: it keeps what it has, byte for byte, is not disturbed, and has what is new when the fault is over. Each row of the matrix of
//! faults has a test named after it.

#![cfg(all(feature = "vault", feature = "aws"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

#[path = "running/faults.rs"]
mod faults;
#[path = "running/leases.rs"]
mod leases;
#[path = "running/machine.rs"]
mod machine;
#[path = "running/rig.rs"]
mod rig;
#[path = "running/vain.rs"]
mod vain;
#[path = "running/ways.rs"]
mod ways;
