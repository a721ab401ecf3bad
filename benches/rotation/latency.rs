//! From a change of a file to the program's answer to HUP: through secret-init, by a loop of inotify that does nothing but read the file, and by `inotifywait`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::Scale;
use crate::measure::{interleaved, median, now, quantile};
use crate::subject::{Subject, replacing};
use crate::support::kubelet::Volume;
use crate::support::{DEADLINE, Running, World};
use crate::table::{Table, Target};

/// After an action secret-init gathers what changes for 2 s: a change that comes later is answered by itself.
const APART: Duration = Duration::from_millis(2100);
/// Of quiet, before it looks, and of work: milliseconds.
const LIMIT: f64 = 20.0 + 20.0;

/// How a file changes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    InPlace,
    Rename,
    Swap,
}

const KINDS: [(Kind, &str); 3] = [(Kind::InPlace, "in place"), (Kind::Rename, "rename over"), (Kind::Swap, "swap of ..data")];

/// A file that changes.
struct Source {
    kind: Kind,
    file: PathBuf,
    volume: Volume,
    number: u32,
}

impl Source {
    fn new(folder: &Path, kind: Kind) -> Self {
        let volume = Volume::new(folder.join("volume"), &[("secret", b"0")]);
        let plain = folder.join("plain/secret");
        fs::create_dir_all(plain.parent().unwrap()).unwrap();
        fs::write(&plain, b"0").unwrap();
        let file = if kind == Kind::Swap { volume.path.join("secret") } else { plain };
        Self { kind, file, volume, number: 0 }
    }

    /// Changes it, and tells the moment before the step that makes the difference.
    fn change(&mut self) -> f64 {
        self.number += 1;
        let content = format!("secret number {}", self.number);
        match self.kind {
            Kind::InPlace => {
                let mut file = fs::File::options().write(true).open(&self.file).unwrap();
                let began = now();
                file.write_all(content.as_bytes()).unwrap();
                began
            }
            Kind::Rename => {
                let rename = replacing(&self.file, content.as_bytes());
                let began = now();
                rename();
                began
            }
            Kind::Swap => {
                let mut began = 0.0;
                self.volume.swap_after(&[("secret", content.as_bytes())], || began = now());
                began
            }
        }
    }
}

/// Who tells of a change.
enum Teller {
    Ours(Subject),
    Floor(Receiver<()>),
    Inotifywait(Running, Child),
}

const OURS: &str = "secret-init";
const FLOOR: &str = "a loop of inotify and read";
const INOTIFYWAIT: &str = "inotifywait, a shell and kill";

impl Teller {
    fn ours(world: &World, file: &Path) -> Self {
        let start = world.secret_init().directory(world.directory()).flag("--watch");
        Self::Ours(Subject::start(&start.variable("SECRET_FILE", format!("file:{}", file.display()))))
    }

    /// What nobody can be faster than.
    fn floor(source: &Source) -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        inotify.add_watch(source.file.parent().unwrap(), AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MODIFY).unwrap();
        let (sender, told) = channel();
        let file = source.file.clone();
        thread::spawn(move || {
            let mut before = fs::read(&file).unwrap();
            while inotify.read_events().is_ok() {
                // It is gone when all is over.
                let Ok(content) = fs::read(&file) else { return };
                if content != before && sender.send(()).is_err() {
                    return;
                }
                before = content;
            }
        });
        Self::Floor(told)
    }

    /// What is found in many an entrypoint.
    fn inotifywait(world: &World, source: &Source) -> Option<Self> {
        const LOOP: &str = "exec 3>&1; inotifywait -m -e $4 \"$1\" 2>&3 | while read -r line; do cat \"$2\" >/dev/null; kill -HUP $3; done";
        let found = Command::new("sh").args(["-c", "command -v inotifywait"]).stdout(Stdio::null()).status().unwrap();
        if !found.success() {
            return None;
        }
        let program = r#"$| = 1; $SIG{HUP} = sub { print "HUP\n" }; print "ready\n"; select undef, undef, undef, 1000 while 1"#;
        let mut program = world.secret_init().bare().program(["perl", "-e", program]).spawn();
        program.line("ready");
        let (folder, file) = (source.file.parent().unwrap(), &source.file);
        // Not also the one that tells of the file that is to take its place.
        let event = if source.kind == Kind::InPlace { "modify" } else { "moved_to" };
        let mut watcher = Command::new("setsid");
        watcher.args(["sh", "-c", LOOP, "sh"]).args([folder, file]).arg(program.pid().to_string()).arg(event);
        let mut watcher = watcher.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watcher.stdout.take().unwrap()));
        while !lines.next().unwrap().unwrap().contains("Watches established") {}
        Some(Self::Inotifywait(program, watcher))
    }

    fn is_told(&mut self) {
        match self {
            Self::Ours(subject) => subject.is_told(),
            Self::Floor(told) => told.recv_timeout(DEADLINE).unwrap(),
            Self::Inotifywait(program, _) => drop(program.line("HUP")),
        }
    }

    fn ends(self) {
        match self {
            Self::Ours(subject) => subject.ends(),
            Self::Floor(_) => {}
            Self::Inotifywait(_, mut watcher) => {
                crate::support::send(-i32::try_from(watcher.id()).unwrap(), libc::SIGTERM);
                watcher.wait().unwrap();
            }
        }
    }
}

struct Candidate {
    who: &'static str,
    source: Source,
    teller: Teller,
    /// Milliseconds.
    times: Vec<f64>,
    /// Before that it is not changed again.
    rests_until: Instant,
    _world: World,
}

impl Candidate {
    fn new(who: &'static str, kind: Kind) -> Option<Self> {
        let world = World::new();
        let source = Source::new(&world.path, kind);
        let teller = match who {
            OURS => Teller::ours(&world, &source.file),
            FLOOR => Teller::floor(&source),
            _ => Teller::inotifywait(&world, &source)?,
        };
        Some(Self { who, source, teller, times: Vec::new(), rests_until: Instant::now(), _world: world })
    }

    fn measure(&mut self) {
        thread::sleep(self.rests_until.saturating_duration_since(Instant::now()));
        let began = self.source.change();
        self.teller.is_told();
        self.times.push((now() - began) / 1e3);
        if self.who == OURS {
            self.rests_until = Instant::now() + APART;
        }
    }
}

pub fn compare(scale: &Scale) -> Vec<Target> {
    let every = |kind| [OURS, FLOOR, INOTIFYWAIT].into_iter().filter_map(move |who| Candidate::new(who, kind));
    let mut candidates: Vec<Candidate> = KINDS.iter().flat_map(|(kind, _)| every(*kind)).collect();
    if candidates.iter().all(|candidate| candidate.who != INOTIFYWAIT) {
        println!("inotifywait is missing: apt-get install inotify-tools");
    }
    interleaved(scale.changes, candidates.len(), |_, index| candidates[index].measure());
    let targets = KINDS.iter().map(|(kind, name)| report(*kind, name, &candidates)).collect();
    for candidate in candidates {
        candidate.teller.ends();
    }
    targets
}

fn report(kind: Kind, name: &str, candidates: &[Candidate]) -> Target {
    let of_kind = || candidates.iter().filter(|candidate| candidate.source.kind == kind);
    let middle = |candidate: &Candidate| median(candidate.times.iter().copied());
    let floor = middle(of_kind().find(|candidate| candidate.who == FLOOR).unwrap());
    let ours = middle(of_kind().find(|candidate| candidate.who == OURS).unwrap());
    let title = format!("From the change to the answer to HUP: {name}, {} changes", candidates[0].times.len());
    let mut table = Table::new(&title, &["median, ms", "p95, ms", "over the floor, ms"]);
    for candidate in of_kind() {
        let (median, late) = (middle(candidate), quantile(candidate.times.iter().copied(), 0.95));
        table.row(candidate.who, &[format!("{median:.2}"), format!("{late:.2}"), format!("{:.2}", median - floor)]);
    }
    table.print();
    Target::new(format!("from the change to the answer, median, ms: {name}"), ours, LIMIT)
}
