//! What those who fetch secrets hold in memory at their peak, and what is left of secret-init while the program runs.

use std::fs::{self, File};
use std::os::fd::AsFd;

use crate::contenders::{AGENT, BOTO3, Build, CURL, Candidate, EXEC, Field, OURS};
use crate::measure::{Command, Memory, children, interleaved, kilobytes, median};
use crate::servers::{Asked, Bao, MOST};
use crate::support::{eventually, send};
use crate::table::{Table, Target};

const ROUNDS: usize = 5;

pub fn compare(bao: &Bao, build: &Build, fields: &[Field<'_>]) -> Vec<Target> {
    peaks(fields);
    left(bao, build)
}

/// A process that is looked at from its start to its end.
struct Watched<'a> {
    name: String,
    server: &'a dyn Asked,
    candidate: &'a Candidate,
    peaks: Vec<Peak>,
}

/// Kilobytes.
struct Peak {
    rss: f64,
    private_dirty: f64,
}

fn peaks(fields: &[Field<'_>]) {
    let mut watched = Vec::new();
    for field in fields {
        let chosen = field.candidates.iter().filter(|candidate| match candidate.who.as_str() {
            OURS => true,
            EXEC | AGENT | BOTO3 => candidate.count == MOST,
            who => who == CURL && candidate.count == 1,
        });
        watched.extend(chosen.map(|candidate| {
            let who = if candidate.who == OURS { "the agent of secret-init" } else { &candidate.who };
            let name = format!("{who}, {} of {}", candidate.count, field.short);
            Watched { name, server: field.server, candidate, peaks: Vec::new() }
        }));
    }
    interleaved(ROUNDS, watched.len(), |_, index| {
        let Watched { server, candidate, peaks, .. } = &mut watched[index];
        peaks.push(peak(*server, &candidate.command, candidate.who == OURS));
    });
    let mut table = Table::new(&format!("Memory at its peak, median of {ROUNDS}"), &["private dirty, KiB", "RSS, KiB"]);
    for Watched { name, peaks, .. } in &watched {
        let figures = [median(peaks.iter().map(|peak| peak.private_dirty)), median(peaks.iter().map(|peak| peak.rss))];
        table.row(name, &figures.map(|figure| format!("{figure:.0}")));
    }
    table.print();
}

/// Looks at the process, or at the first child of it, as often as can be. The server says nothing until we look, so that nothing is missed.
fn peak(server: &dyn Asked, command: &Command, is_child: bool) -> Peak {
    let null = File::options().write(true).open("/dev/null").unwrap();
    send(server.pid(), libc::SIGSTOP);
    let process = command.spawn(null.as_fd());
    let pid = if is_child { eventually("the agent is there", || children(process.pid).next()) } else { process.pid };
    send(server.pid(), libc::SIGCONT);
    let mut peak = Peak { rss: 0.0, private_dirty: 0.0 };
    // The kernel keeps the peak of the RSS, but none of what is dirty. A process that has ended has neither.
    let status = || kilobytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM:");
    while let (Some(memory), Some(rss)) = (Memory::of(pid), status()) {
        peak = Peak { rss: peak.rss.max(rss), private_dirty: peak.private_dirty.max(memory.private_dirty) };
    }
    assert_eq!(process.wait().0, 0);
    peak
}

fn left(bao: &Bao, build: &Build) -> Vec<Target> {
    let plans = [("no secret", Vec::new()), ("one of OpenBao", bao.references(1)), ("100 of OpenBao", bao.references(MOST))];
    let mut found: Vec<Vec<Memory>> = plans.iter().map(|_| Vec::new()).collect();
    interleaved(ROUNDS, plans.len(), |_, index| found[index].push(build.command(&[], &plans[index].1).memory_beside_sleep()));
    let title = format!("Memory of secret-init while sleep runs, median of {ROUNDS}");
    let mut table = Table::new(&title, &["private dirty, KiB", "PSS, KiB", "RSS, KiB"]);
    let mut targets = Vec::new();
    for ((name, _), found) in plans.iter().zip(&found) {
        let figure = |figure: fn(&Memory) -> f64| median(found.iter().map(figure));
        let private_dirty = figure(|memory| memory.private_dirty);
        table.row(name, &[private_dirty, figure(|memory| memory.pss), figure(|memory| memory.rss)].map(|figure| format!("{figure:.0}")));
        targets.push(Target::new(format!("private dirty memory that is left, KiB: {name}"), private_dirty, 512.0));
    }
    table.print();
    targets
}
