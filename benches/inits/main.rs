//! secret-init beside other inits: start, memory, a forwarded signal, size. `cargo bench`, in well under a minute.
//!
//! Everything is measured in one run, in an order that is drawn anew for each round, so that what else the machine does meets all alike: the ratios
//! are what counts. Each further argument (`cargo bench -- musl=/path/to/secret-init`) is another build of secret-init to compare.

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
mod measure;
mod memory;
mod signal;
mod start;
mod table;

use contenders::Contenders;
use table::Table;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().map(String::as_str) == Some(signal::ROLE) {
        signal::answer();
    }
    let contenders = Contenders::new(&arguments);
    for missing in &contenders.missing {
        println!("{missing}");
    }
    let mut targets = start::compare(&contenders);
    targets.extend(memory::compare(&contenders));
    targets.extend(signal::compare(&contenders));
    sizes(&contenders);
    table::summary(&targets);
}

fn sizes(contenders: &Contenders) {
    let mut table = Table::new("Size of the binary", &["bytes", "shared libraries"]);
    for init in &contenders.inits {
        let size = std::fs::metadata(&init.path).unwrap().len();
        table.row(&init.name, &[size.to_string(), if init.is_static { "none" } else { "libc" }.to_owned()]);
    }
    table.print();
}
