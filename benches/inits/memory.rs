//! What an init holds in memory while its program runs.

use crate::contenders::{Contenders, Init};
use crate::measure::{Memory, interleaved, median};
use crate::table::{Table, Target};

const ROUNDS: usize = 5;

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
        found.push(init.command(environment).memory_beside_sleep());
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
