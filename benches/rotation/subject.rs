//! A secret-init that watches, with a program that tells of each HUP.

use std::fs;
use std::path::Path;

use crate::measure::Memory;
use crate::support::{Outcome, Running, Start, World, children, eventually, is_ours};

/// Writes a line when it is there, and another for each HUP.
const PROGRAM: [&str; 3] =
    ["perl", "-e", r#"$| = 1; $SIG{HUP} = sub { print "HUP\n" }; print "ready\n"; select undef, undef, undef, 1000 while 1"#];

/// secret-init, which runs.
pub struct Subject {
    pub running: Running,
    pub agent: i32,
}

impl Subject {
    pub fn start(start: &Start) -> Self {
        let mut running = start.clone().program(PROGRAM).spawn();
        running.line("ready");
        let agent = eventually("the agent is there", || children(running.pid()).into_iter().find(|&child| is_ours(child)));
        Self { running, agent }
    }

    /// Waits for the program to have been told.
    pub fn is_told(&mut self) {
        self.running.line("HUP");
    }

    /// Looks at everything, once. The program may run before the agent can be asked.
    pub fn looks(world: &World) -> Outcome {
        let socket = world.directory().join(".control");
        eventually("the agent can be asked", || socket.exists().then_some(()));
        world.secret_init().directory(world.directory()).flag("refresh").finishes()
    }

    /// Private dirty memory of the agent and of PID 1, in KiB.
    pub fn memory(&self) -> [f64; 2] {
        [self.agent, self.running.pid()].map(|pid| Memory::of(pid).unwrap().private_dirty)
    }

    /// Open descriptors of the agent and of PID 1.
    pub fn descriptors(&self) -> [usize; 2] {
        [self.agent, self.running.pid()].map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
    }

    /// How many processes there are.
    pub fn processes(&self) -> usize {
        fn below(pid: i32) -> usize {
            1 + children(pid).into_iter().map(below).sum::<usize>()
        }
        below(self.running.pid())
    }

    pub fn ends(self) {
        self.running.signal(libc::SIGTERM);
        assert_eq!(self.running.finishes().code(), 128 + libc::SIGTERM);
    }
}

/// Replaces a file as careful programs do: first what can be done before, then, as what is returned is called, the rename.
pub fn replacing(path: &Path, content: &[u8]) -> impl FnOnce() + use<> {
    let (path, temporary) = (path.to_owned(), path.with_extension("new"));
    fs::write(&temporary, content).unwrap();
    move || fs::rename(temporary, path).unwrap()
}
