//! What an init holds in memory while its program runs.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::contenders::{Contenders, Init};
use crate::measure::{interleaved, median};
use crate::table::{Table, Target};

const ROUNDS: usize = 5;
/// Long enough for an init to have come to rest after the program's start.
const SETTLE: Duration = Duration::from_millis(50);

/// Kilobytes.
struct Memory {
    rss: f64,
    pss: f64,
    private_dirty: f64,
}

pub fn compare(contenders: &Contenders) -> Vec<Target> {
    let mut candidates: Vec<(String, &Init, &[String], Vec<Memory>)> = Vec::new();
    for init in &contenders.inits {
        candidates.push((init.name.clone(), init, &[], Vec::new()));
        if init.is_ours {
            candidates.push((format!("{}, ten files", init.name), init, &contenders.ten_files, Vec::new()));
        }
    }
    interleaved(ROUNDS, candidates.len(), |_, index| {
        let (_, init, environment, found) = &mut candidates[index];
        found.push(beside_sleep(init, environment));
    });
    let title = format!("Memory of the init while sleep runs, median of {ROUNDS}");
    let mut table = Table::new(&title, &["private dirty, KiB", "PSS, KiB", "RSS, KiB"]);
    let mut targets = Vec::new();
    for (name, init, _, found) in &candidates {
        let private_dirty = median(found.iter().map(|memory| memory.private_dirty));
        let (pss, rss) = (median(found.iter().map(|memory| memory.pss)), median(found.iter().map(|memory| memory.rss)));
        table.row(name, &[private_dirty, pss, rss].map(|figure| format!("{figure:.0}")));
        if init.is_ours && init.name == "secret-init" {
            targets.push(Target::new(format!("private dirty memory, KiB: {name}"), private_dirty, 512.0));
        }
    }
    table.print();
    targets
}

fn beside_sleep(init: &Init, environment: &[String]) -> Memory {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let process = init.command(environment).running(["/bin/sleep", "1000"]).spawn(null.as_fd());
    while !has_child_named(process.pid, "sleep\n") {
        std::thread::yield_now();
    }
    std::thread::sleep(SETTLE);
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).unwrap();
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    Memory { rss: field("Rss:"), pss: field("Pss:"), private_dirty: field("Private_Dirty:") }
}

fn has_child_named(pid: i32, name: &str) -> bool {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().any(|child| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|found| found == name))
}
