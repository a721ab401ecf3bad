//! Remote stores: secret-init beside what else fetches secrets from OpenBao and from AWS, here `MiniStack`, both over TLS. `cargo bench --bench stores`.
//!
//! Everything is measured in one run, in an order that is drawn anew for each round, so that what else the machine does meets all alike: the ratios
//! are what counts. Each further argument (`cargo bench --bench stores -- musl=/path/to/secret-init`) is another build of secret-init to compare.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a bench that cannot measure is to say so and end"
)]
#![allow(clippy::print_stdout, reason = "the tables are what it is for")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

mod contenders;
mod memory;
mod servers;
mod times;

#[path = "../inits/measure.rs"]
#[allow(dead_code, reason = "this bench needs a part")]
mod measure;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../inits/table.rs"]
mod table;

use contenders::{Builds, Clients};
use servers::{Aws, Bao};
use support::World;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let missing = servers::missing();
    for missing in &missing {
        println!("{missing}");
    }
    if !missing.is_empty() {
        return;
    }
    let world = World::new();
    let (bao, aws) = (Bao::start(), Aws::start());
    let clients = Clients::write(&world);
    let builds = Builds::new(&arguments);
    let mut fields = vec![bao.field(&builds.all, &clients), aws.field(&builds.all, &clients)];
    let mut targets = times::compare(&mut fields);
    targets.extend(memory::compare(&bao, &builds.all[0], &fields));
    table::summary(&targets);
}
