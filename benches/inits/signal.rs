//! How long a signal takes through an init to its program, and the program's answer by a pipe back.

#![allow(unsafe_code, reason = "waiting for a signal without a handler")]

use std::io::{PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use crate::contenders::Contenders;
use crate::measure::{Command, Process, interleaved, median, now, quantile};
use crate::table::{Table, Target};

/// The argument that makes of this bench the program that answers.
pub const ROLE: &str = "answer";

/// All is started anew for each series: on which processors the scheduler has put the three makes more of a difference than who they are.
const SERIES: usize = 20;
const ROUNDS: usize = 150;
const WARM_UP: usize = 10;

struct Candidate {
    name: String,
    command: Command,
    times: Vec<f64>,
}

impl Candidate {
    fn new(name: &str, command: &Command) -> Self {
        let bench = std::env::current_exe().unwrap();
        Self { name: name.to_owned(), command: command.running([bench.to_str().unwrap(), ROLE]), times: Vec::new() }
    }
}

/// An init and its program.
struct Pair {
    process: Process,
    answers: PipeReader,
}

impl Pair {
    fn start(command: &Command) -> Self {
        let (mut answers, into) = std::io::pipe().unwrap();
        let process = command.spawn(into.as_fd());
        answers.read_exact(&mut [0]).unwrap();
        Self { process, answers }
    }

    fn round_trip(&mut self) -> f64 {
        let sent = now();
        self.process.signal(libc::SIGUSR1);
        self.answers.read_exact(&mut [0]).unwrap();
        now() - sent
    }
}

pub fn compare(contenders: &Contenders) -> Vec<Target> {
    let mut candidates = vec![Candidate::new("bare", &Command::new([], &[]))];
    candidates.extend(contenders.inits.iter().map(|init| Candidate::new(&init.name, &init.command(&[]))));
    for _ in 0..SERIES {
        let mut pairs: Vec<Pair> = candidates.iter().map(|candidate| Pair::start(&candidate.command)).collect();
        interleaved(WARM_UP + ROUNDS, pairs.len(), |round, index| {
            let time = pairs[index].round_trip();
            if round >= WARM_UP {
                candidates[index].times.push(time);
            }
        });
    }
    let of = |name: &str| candidates.iter().find(|candidate| candidate.name == name).map(|found| median(found.times.iter().copied()));
    let tini = of("tini");
    let title = format!("SIGUSR1 to the init, the program's answer back, {} rounds", SERIES * ROUNDS);
    let mut table = Table::new(&title, &["median, µs", "p99, µs", "to tini"]);
    for Candidate { name, times, .. } in &candidates {
        let middle = median(times.iter().copied());
        let ratio = tini.map_or_else(|| "-".to_owned(), |tini| format!("{:.2}", middle / tini));
        table.row(name, &[format!("{middle:.1}"), format!("{:.1}", quantile(times.iter().copied(), 0.99)), ratio]);
    }
    table.print();
    let ratio = of("secret-init").zip(tini).map(|(ours, tini)| ours / tini);
    ratio.into_iter().map(|ratio| Target::new("forwarded signal: secret-init / tini", ratio, 1.2)).collect()
}

/// The program: tells that it is there, and then of each SIGUSR1.
pub fn answer() -> ! {
    let mut stdout = std::io::stdout().lock();
    // SAFETY: the set is ours, and initialized by sigemptyset.
    let wanted = unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    };
    loop {
        if stdout.write_all(b".").and_then(|()| stdout.flush()).is_err() {
            std::process::exit(0);
        }
        // SAFETY: as above; what came with the signal is not asked for.
        unsafe { libc::sigwaitinfo(&raw const wanted, std::ptr::null_mut()) };
    }
}
