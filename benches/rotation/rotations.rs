//! Thousands of rotations of a pair of files, with readers that look all the time.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;

use crate::Scale;
use crate::measure::{median, now, quantile};
use crate::subject::Subject;
use crate::support::files::{names_in, number_of, stamped_of};
use crate::support::kubelet::Volume;
use crate::support::{World, eventually};
use crate::table::{Table, Target};

const FILES: [&str; 2] = ["tls.crt", "tls.key"];
/// How long a generation stays that was superseded, and a little more.
const KEPT: Duration = Duration::from_secs(31);
/// About that of a certificate, which is as long as the one before it. Values of all lengths leave holes in a heap, until it is as large as all of them need.
const LENGTH: usize = 3000;
/// A tenth more comes at any moment: the longest pause between two, in microseconds.
const PAUSE: u64 = 60_000;
/// So often it is looked how the processes are, and so far apart.
const LOOKS: usize = 20;
const BETWEEN: Duration = Duration::from_millis(5);
/// Readers leave time to others.
const BREATH: Duration = Duration::from_micros(100);

const CONFIG: &str = "\
files:
  - { path: tls/tls.crt, from: \"file:SOURCE/tls.crt\", group: tls }
  - { path: tls/tls.key, from: \"file:SOURCE/tls.key\", group: tls }
rotation: { on_change: signal }
";

/// What readers found.
#[derive(Default)]
struct Found {
    pairs: AtomicU64,
    distinct: AtomicU64,
    mixed: AtomicU64,
    missing: AtomicU64,
    is_over: AtomicBool,
}

impl Found {
    /// Opens the directory once, and reads both files in it.
    fn read(&self, group: &Path) {
        let mut last = None;
        while !self.is_over.load(Ordering::Relaxed) {
            match pair(group) {
                Some([one, other]) if one == other => {
                    self.pairs.fetch_add(1, Ordering::Relaxed);
                    self.distinct.fetch_add(u64::from(last.replace(one) != Some(one)), Ordering::Relaxed);
                }
                Some(_) => drop(self.mixed.fetch_add(1, Ordering::Relaxed)),
                None => drop(self.missing.fetch_add(1, Ordering::Relaxed)),
            }
            thread::sleep(BREATH);
        }
    }
}

/// The numbers of both files; nothing when one is missing or is not whole.
fn pair(group: &Path) -> Option<[u64; 2]> {
    let directory = File::open(group.join("..data")).ok()?;
    let number = |name: &str| {
        let mut content = Vec::new();
        let file = openat(directory.as_fd(), name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        File::from(file).read_to_end(&mut content).ok()?;
        number_of(&content)
    };
    Some([number(FILES[0])?, number(FILES[1])?])
}

/// How the processes are.
struct Look {
    rotations: u64,
    memory: [f64; 2],
    descriptors: [usize; 2],
    processes: usize,
}

pub fn endure(scale: &Scale) -> Vec<Target> {
    let (world, found) = (World::new(), Found::default());
    let content = stamped_of(0, LENGTH);
    let mut volume = Volume::new(world.path.join("source"), &FILES.map(|name| (name, content.as_slice())));
    let config = world.file("config.yaml", CONFIG.replace("SOURCE", volume.path.to_str().unwrap()));
    let subject = Subject::start(&world.secret_init().directory(world.directory()).flag("--config").flag(config));
    let group = world.directory().join("tls");
    let swaps = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
    swaps.add_watch(&group, AddWatchFlags::IN_MOVED_TO).unwrap();
    let (mut times, mut looks) = (Vec::new(), Vec::new());
    let (began, mut took) = (Instant::now(), Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| found.read(&group));
        }
        for number in 1..=scale.rotations {
            let content = stamped_of(number, LENGTH);
            let mut changed = 0.0;
            volume.swap_after(&FILES.map(|name| (name, content.as_slice())), || changed = now());
            while pair(&group) != Some([number; 2]) {
                swaps.read_events().unwrap();
            }
            times.push((now() - changed) / 1e3);
            if number == scale.rotations / 10 || number == scale.rotations {
                looks.push(look(&subject, number));
            }
        }
        took = began.elapsed();
        // And as many as a tenth without waiting for what comes of them, also while the pair is being read.
        let last = scale.rotations + scale.rotations / 10;
        for number in scale.rotations + 1..=last {
            let content = stamped_of(number, LENGTH);
            volume.swap(&FILES.map(|name| (name, content.as_slice())));
            thread::sleep(Duration::from_micros(number * 7919 % PAUSE));
        }
        while pair(&group) != Some([last; 2]) {
            swaps.read_events().unwrap();
        }
        found.is_over.store(true, Ordering::Relaxed);
    });
    thread::sleep(KEPT);
    eventually("what is superseded is gone", || (names_in(&group).len() <= 4).then_some(()));
    let left = left(&group, &world.directory());
    let last = look(&subject, scale.rotations);
    subject.ends();
    report(&found, &times, took, &looks, &last, left)
}

/// How they are at rest: of several looks the least, since in the midst of a change more is open, and held.
fn look(subject: &Subject, rotations: u64) -> Look {
    let looks: Vec<_> = (0..LOOKS)
        .map(|_| {
            thread::sleep(BETWEEN);
            (subject.memory(), subject.descriptors(), subject.processes())
        })
        .collect();
    let least = |memory: usize| looks.iter().map(|(both, _, _)| both[memory]).fold(f64::INFINITY, f64::min);
    let fewest = |which: usize| looks.iter().map(|(_, both, _)| both[which]).min().unwrap();
    let processes = looks.iter().map(|(_, _, count)| *count).min().unwrap();
    Look { rotations, memory: [least(0), least(1)], descriptors: [fewest(0), fewest(1)], processes }
}

/// What should not be there any more: all but the group's own names, its link, one generation, and what the agent needs.
fn left(group: &Path, directory: &Path) -> usize {
    let current = fs::read_link(group.join("..data")).unwrap().to_str().unwrap().trim_end_matches('/').to_owned();
    let is_left = |name: &String| name != "..data" && *name != current && !FILES.contains(&name.as_str());
    let drafts = names_in(directory).into_iter().filter(|name| name.starts_with(".secret-init-"));
    names_in(group).into_iter().filter(is_left).chain(drafts).count()
}

fn report(found: &Found, times: &[f64], took: Duration, looks: &[Look], last: &Look, left: usize) -> Vec<Target> {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [first, second] = looks else { panic!("two looks are taken") };
    let title = format!("{} rotations of a pair of files, and two readers", second.rotations);
    let mut table = Table::new(&title, &["measured"]);
    let mut row = |name: &str, figure: String| table.row(name, &[figure]);
    row("all of them, s", format!("{:.0}", took.as_secs_f64()));
    row("from the swap of the source to that of the pair, median, ms", format!("{:.2}", median(times.iter().copied())));
    row("p95, ms", format!("{:.2}", quantile(times.iter().copied(), 0.95)));
    row("the longest, ms", format!("{:.2}", quantile(times.iter().copied(), 1.0)));
    row("rotations besides, which waited for nothing", (second.rotations / 10).to_string());
    row("pairs that were read", count(&found.pairs).to_string());
    row("of them another than before", count(&found.distinct).to_string());
    row("mixed pairs", count(&found.mixed).to_string());
    row("missing or torn files", count(&found.missing).to_string());
    row(&format!("left behind after {} s", KEPT.as_secs()), left.to_string());
    table.print();
    let columns = ["agent: private dirty, KiB", "descriptors", "PID 1: private dirty, KiB", "descriptors", "processes"];
    let mut table = Table::new("What it holds", &columns);
    for (name, look) in [("", first), ("", second), (", later", last)] {
        let [agent, init] = look.memory.map(|memory| format!("{memory:.0}"));
        let [agents, inits] = look.descriptors.map(|count| count.to_string());
        table.row(&format!("after {} rotations{name}", look.rotations), &[agent, agents, init, inits, look.processes.to_string()]);
    }
    table.print();
    let more =
        |what: &str, before: usize, after: usize| Target::new(format!("{what}: more than at the tenth"), after as f64 - before as f64, 0.0);
    vec![
        Target::new("mixed pairs", count(&found.mixed) as f64, 0.0),
        Target::new("missing or torn files", count(&found.missing) as f64, 0.0),
        Target::new("left behind", left as f64, 0.0),
        Target::new("private dirty memory of the agent: at the end / at the tenth", second.memory[0] / first.memory[0], 1.05),
        Target::new("private dirty memory of PID 1: at the end / at the tenth", second.memory[1] / first.memory[1], 1.05),
        more("descriptors", first.descriptors.iter().sum(), second.descriptors.iter().sum()),
        more("processes", first.processes, second.processes),
    ]
}
