//! Secrets that change while the program runs: how soon it knows, whether it ever sees half a change, and what watching costs. `cargo bench --bench rotation`, in some
//! ten minutes; `cargo bench --bench rotation -- --rounds 200` is a trial, whose figures say little.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a bench that cannot measure is to say so and end"
)]
#![allow(clippy::print_stdout, reason = "the tables are what it is for")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod latency;
mod requests;
mod rotations;
mod subject;
mod watching;

#[path = "../inits/measure.rs"]
#[allow(dead_code, reason = "this bench needs a part")]
mod measure;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../inits/table.rs"]
mod table;

use support::servers;

/// How often a group of files is replaced when nothing else is said.
const ROTATIONS: u64 = 10_000;

/// How much is measured.
pub struct Scale {
    pub rotations: u64,
    /// Changes of each kind of which the time is taken.
    pub changes: usize,
    /// Numbers of secrets that are watched.
    pub watched: [usize; 3],
}

impl Scale {
    fn of(arguments: &[String]) -> Self {
        let rotations = match arguments {
            [] => ROTATIONS,
            [flag, number] if flag == "--rounds" => number.parse().expect("--rounds is followed by a number"),
            _ => panic!("the only argument is --rounds NUMBER"),
        };
        if rotations >= ROTATIONS {
            Self { rotations, changes: 40, watched: [1, 100, 1000] }
        } else {
            Self { rotations, changes: 3, watched: [1, 10, 100] }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let scale = Scale::of(&arguments);
    let is_missing = |(server, command): &(&str, &str)| !servers::path(server, command).exists();
    let missing: Vec<_> = [("openbao", "bao"), ("ministack", "python")].into_iter().filter(is_missing).collect();
    for (server, _) in &missing {
        println!("{server} is missing: tests/run installs it");
    }
    support::write_to_disk();
    let mut targets = latency::compare(&scale);
    targets.extend(rotations::endure(&scale));
    if missing.is_empty() {
        targets.extend(watching::compare(&scale));
        requests::count();
    }
    table::summary(&targets);
}
