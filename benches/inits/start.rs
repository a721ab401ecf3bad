//! How long `true` takes, alone and below each contender.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use crate::contenders::{Contenders, secret};
use crate::measure::{Command, Run, interleaved, median};
use crate::table::{Table, Target};

const ROUNDS: usize = 400;
const WARM_UP: usize = 20;
const PROGRAM: &str = "/bin/true";

struct Candidate {
    name: String,
    command: Command,
    runs: Vec<Run>,
}

impl Candidate {
    fn new(name: impl Into<String>, command: &Command) -> Self {
        Self { name: name.into(), command: command.running([PROGRAM]), runs: Vec::new() }
    }
}

pub fn compare(contenders: &Contenders) -> Vec<Target> {
    let mut candidates = candidates(contenders);
    let null = File::options().write(true).open("/dev/null").unwrap();
    interleaved(WARM_UP + ROUNDS, candidates.len(), |round, index| {
        let run = candidates[index].command.run(null.as_fd());
        if round >= WARM_UP {
            candidates[index].runs.push(run);
        }
    });
    let figures = Figures(candidates);
    figures.print();
    figures.targets()
}

fn candidates(contenders: &Contenders) -> Vec<Candidate> {
    let Contenders { inits, scripts, ten_files, .. } = contenders;
    let mut candidates = vec![Candidate::new(BARE, &Command::new([], &[]))];
    for init in inits {
        candidates.push(Candidate::new(&init.name, &init.command(&[])));
        if init.is_ours {
            let exec = |environment| Command::new([init.path.as_str(), "--exec", "--"], environment);
            for command in [init.command(ten_files), exec(ten_files)] {
                reaches_the_program(&command);
            }
            candidates.push(Candidate::new(format!("{}{TEN_FILES}", init.name), &init.command(ten_files)));
            candidates.push(Candidate::new(format!("{} --exec", init.name), &exec(&[])));
            candidates.push(Candidate::new(format!("{} --exec{TEN_FILES}", init.name), &exec(ten_files)));
        }
    }
    for script in scripts {
        reaches_the_program(&script.command(ten_files));
        candidates.push(Candidate::new(script.name, &script.command(&[])));
        candidates.push(Candidate::new(format!("{}{TEN_FILES}", script.name), &script.command(ten_files)));
    }
    candidates
}

const BARE: &str = "bare";
const TEN_FILES: &str = ", ten files";
const SCRIPT: &str = "bash entrypoint";

/// Who does not deliver all ten secrets is no contender.
fn reaches_the_program(command: &Command) {
    let (mut out, into) = std::io::pipe().unwrap();
    command.running(["/usr/bin/env"]).run(into.as_fd());
    drop(into);
    let mut environment = String::new();
    out.read_to_string(&mut environment).unwrap();
    for number in 0..10 {
        let expected = format!("SECRET_{number}={}", secret(number));
        assert!(environment.lines().any(|line| line == expected), "no {expected} in\n{environment}");
    }
}

struct Figures(Vec<Candidate>);

impl Figures {
    fn print(&self) {
        let title = format!("Start of {PROGRAM} to its end, median of {ROUNDS}");
        let mut table = Table::new(&title, &["µs", "over bare, µs", "to tini", "to the bash entrypoint", "CPU, µs", "page faults"]);
        for candidate in &self.0 {
            let Candidate { name, runs, .. } = candidate;
            let script = if name.ends_with(TEN_FILES) { format!("{SCRIPT}{TEN_FILES}") } else { SCRIPT.to_owned() };
            let ratio = |ratio: Option<f64>| ratio.filter(|_| name != BARE).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            table.row(
                name,
                &[
                    format!("{:.0}", median(runs.iter().map(|run| run.microseconds))),
                    format!("{:.0}", self.overhead(name).unwrap()),
                    ratio(self.ratio(name, "tini")),
                    ratio(self.ratio(name, &script)),
                    format!("{:.0}", median(runs.iter().map(|run| run.cpu))),
                    format!("{:.0}", median(runs.iter().map(|run| run.faults))),
                ],
            );
        }
        table.print();
    }

    fn targets(&self) -> Vec<Target> {
        let ours = "secret-init";
        let with_files = format!("{ours}{TEN_FILES}");
        let goals = [
            (ours, "tini", 1.2),
            (with_files.as_str(), "tini", 1.6),
            (ours, SCRIPT, 0.2),
            (&with_files, &format!("{SCRIPT}{TEN_FILES}"), 0.2),
        ];
        let target = |(name, other, limit)| Some(Target::new(format!("start overhead: {name} / {other}"), self.ratio(name, other)?, limit));
        goals.into_iter().filter_map(target).chain(self.cost_of_stores()).collect()
    }

    /// What a start that asks no store costs more than in the build without stores, when that one was named: `files-only=/path/to/secret-init`.
    fn cost_of_stores(&self) -> impl Iterator<Item = Target> {
        let cost = |rest: &str| {
            let (name, other) = (format!("secret-init{rest}"), format!("secret-init (files-only){rest}"));
            Some(Target::new(format!("start, µs: {name}, over {other}"), self.beyond(&name, &other)?, 500.0))
        };
        ["", TEN_FILES, " --exec", " --exec, ten files"].into_iter().filter_map(cost)
    }

    /// The overhead over bare as a part of another's.
    fn ratio(&self, name: &str, other: &str) -> Option<f64> {
        Some(self.overhead(name)? / self.overhead(other)?)
    }

    fn overhead(&self, name: &str) -> Option<f64> {
        self.beyond(name, BARE)
    }

    /// By how much a run is longer than the other's of the same round.
    fn beyond(&self, name: &str, other: &str) -> Option<f64> {
        let of = |name: &str| self.0.iter().find(|candidate| candidate.name == name);
        let pairs = of(name)?.runs.iter().zip(&of(other)?.runs);
        Some(median(pairs.map(|(run, other)| run.microseconds - other.microseconds)))
    }
}
