//! How long it takes to have the secrets, how many requests that are, and what they cost the server.

use std::fs::File;
use std::os::fd::AsFd;

use crate::contenders::{COUNTS, CURL, Candidate, EXEC, Field, OURS, TEN_KEYS};
use crate::measure::{Run, interleaved, median};
use crate::table::{Table, Target};

/// The most rounds of a candidate. Who is slow gets fewer, so that each takes about as long as the others, but never fewer than [`LEAST`].
const MOST: usize = 60;
const LEAST: usize = 3;
/// Microseconds for all rounds of a candidate.
const SHARE: f64 = 5e6;

pub fn compare(fields: &mut [Field<'_>]) -> Vec<Target> {
    let mut candidates: Vec<(&dyn crate::servers::Asked, &mut Candidate, usize)> = Vec::new();
    for Field { server, candidates: of_field, .. } in fields.iter_mut() {
        for candidate in of_field {
            let Run { microseconds, .. } = candidate.rehearse(*server);
            candidates.push((*server, candidate, rounds(microseconds)));
        }
    }
    let null = File::options().write(true).open("/dev/null").unwrap();
    interleaved(MOST, candidates.len(), |round, index| {
        let (server, candidate, rounds) = &mut candidates[index];
        // Spread over the whole time.
        if (round + 1) * *rounds / MOST > round * *rounds / MOST {
            let before = server.cpu();
            candidate.runs.push(candidate.command.run(null.as_fd()));
            candidate.server_cpu.push(server.cpu() - before);
        }
    });
    fields.iter().for_each(Field::print);
    targets(&fields[0], &fields[1])
}

fn rounds(microseconds: f64) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    let rounds = (SHARE / microseconds) as usize;
    rounds.clamp(LEAST, MOST)
}

fn targets(bao: &Field<'_>, aws: &Field<'_>) -> Vec<Target> {
    let [one, ten, hundred] = COUNTS;
    let time = |who, count| bao.of(who, count).unwrap().time();
    let requests = |field: &Field<'_>, who, count| field.of(who, count).unwrap().requests as f64;
    vec![
        Target::new("one secret of OpenBao: secret-init / curl", time(OURS, one) / time(CURL, one), 1.5),
        Target::new("one secret of OpenBao: secret-init --exec / curl", time(EXEC, one) / time(CURL, one), 1.5),
        Target::new("secrets of OpenBao: 100 / one", time(OURS, hundred) / time(OURS, one), 4.0),
        Target::new("requests: ten keys of one path", requests(bao, TEN_KEYS, ten), 1.0),
        Target::new("requests: 100 secrets of AWS", requests(aws, OURS, hundred), 5.0),
    ]
}

impl Field<'_> {
    pub fn of(&self, who: &str, count: usize) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.who == who && candidate.count == count)
    }

    /// A figure for each number of secrets.
    fn figures(&self, who: &str, figure: impl Fn(&Candidate) -> String) -> Vec<String> {
        COUNTS.iter().map(|&count| self.of(who, count).map_or_else(|| "-".to_owned(), &figure)).collect()
    }

    /// Each once, in the order in which they were listed.
    fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for candidate in &self.candidates {
            if !names.contains(&candidate.who.as_str()) {
                names.push(&candidate.who);
            }
        }
        names
    }

    fn print(&self) {
        let mut times = Table::new(
            &format!("{}: from start to end, median, ms", self.title),
            &["1 secret", "10", "100", "to secret-init: 1", "10", "100", "runs"],
        );
        let mut costs = Table::new(
            &format!("{}: requests, and CPU time, median, ms", self.title),
            &["requests: 1", "10", "100", "of the server: 1", "10", "100", "of the client: 1", "10", "100"],
        );
        let milliseconds = |microseconds: f64| format!("{:.1}", microseconds / 1e3);
        for who in self.names() {
            let ratio = |candidate: &Candidate| format!("{:.2}", candidate.time() / self.of(OURS, candidate.count).unwrap().time());
            let time = self.figures(who, |candidate| milliseconds(candidate.time()));
            let runs = self.figures(who, |candidate| candidate.runs.len().to_string()).join(", ");
            times.row(who, &[time, self.figures(who, ratio), vec![runs]].concat());
            let requests = self.figures(who, |candidate| candidate.requests.to_string());
            let server = self.figures(who, |candidate| milliseconds(median(candidate.server_cpu.iter().copied())));
            let client = self.figures(who, |candidate| milliseconds(median(candidate.runs.iter().map(|run| run.cpu))));
            costs.row(who, &[requests, server, client].concat());
        }
        times.print();
        costs.print();
    }
}

impl Candidate {
    /// The median, in microseconds.
    pub fn time(&self) -> f64 {
        median(self.runs.iter().map(|run| run.microseconds))
    }
}
