//! An agent that dies, at whatever moment: another takes its place, and each change is told once.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::watched::{agent, refresh, replace, watched};
use support::{Running, Start, World, children, eventually, send};

/// Tells what it has at its start and at each HUP, at once, whatever that interrupts.
const TELLS: &str = r#"
sub content { open my $file, "<", $ENV{A_FILE} or die $!; <$file> }
sub tell_all { syswrite STDOUT, "$_[0] " . ($ENV{A} // content()) . "\n" }
$SIG{HUP} = sub { tell_all("HUP") };
tell_all("runs");
select undef, undef, undef, 0.05 while 1;
"#;

/// A system call of an agent: its name, and the how many of that name it is since the tracer came.
type Call = (String, u32);

/// Follows the system calls of an agent, and kills it on entry of one of them, if that is wanted.
struct Tracer {
    strace: Child,
    /// Not the one that the agent watches.
    world: World,
}

impl Tracer {
    /// Of an agent that does nothing at the moment.
    fn of(agent: i32, killing: Option<&Call>) -> Self {
        let world = World::new();
        let mut strace = Command::new("strace");
        strace.args(["-q", "-p", &agent.to_string(), "-o"]).arg(world.path.join("trace"));
        if let Some((name, number)) = killing {
            strace.args(["-e", &format!("inject={name}:signal=KILL:when={number}")]);
        }
        let tracer = Self { strace: strace.spawn().unwrap(), world };
        tracer.rests();
        tracer
    }

    /// The agent waits for the next event, or is dead.
    fn rests(&self) {
        eventually("the agent waits", || {
            let text = self.text();
            let last = text.lines().last()?;
            (last.starts_with("epoll_") && !last.contains(" = ") || last.starts_with("+++")).then_some(())
        });
    }

    fn text(&self) -> String {
        fs::read_to_string(self.world.path.join("trace")).unwrap_or_default()
    }

    fn calls(&self) -> Vec<Call> {
        let mut counts: HashMap<String, u32> = HashMap::new();
        let text = self.text();
        let names = text.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
        let counted = names.map(|name| {
            let count = counts.entry(name.clone()).or_default();
            *count += 1;
            (name, *count)
        });
        counted.collect()
    }
}

impl Drop for Tracer {
    /// An agent that is traced lives on.
    fn drop(&mut self) {
        if self.strace.try_wait().unwrap().is_none() {
            send(i32::try_from(self.strace.id()).unwrap(), libc::SIGTERM);
        }
        self.strace.wait().unwrap();
    }
}

/// A program with a secret that is watched.
struct Told {
    running: Running,
    world: World,
    /// How what it says begins when it was told of a change.
    beginning: &'static str,
}

impl Told {
    fn by_a_signal() -> Self {
        Self::of("HUP", |start, reference| start.variable("A_FILE", reference))
    }

    fn by_a_restart() -> Self {
        Self::of("runs", |start, reference| start.flag("--on-change=restart").variable("A", format!("${{{reference}}}")))
    }

    fn of(beginning: &'static str, start: impl FnOnce(Start, String) -> Start) -> Self {
        let world = World::new();
        let reference = format!("file:{}", world.file("a", "one").display());
        let mut running = start(watched(&world), reference).program(["perl", "-e", TELLS]).spawn();
        running.line("runs one");
        let told = Self { running, world, beginning };
        // The first look comes by itself.
        told.is_watched();
        told
    }

    /// An agent is there, and has looked.
    fn is_watched(&self) -> i32 {
        let agent = agent(self.running.pid());
        eventually("it answers", || refresh(&self.world).status.success().then_some(()));
        agent
    }

    fn changes(&mut self, value: &str) {
        replace(&self.world.path.join("a"), value);
        self.running.line(&format!("{} {value}", self.beginning));
    }

    /// The system calls of a change, and which of them asks for the program to be told.
    fn calls(mut self) -> (Vec<Call>, usize) {
        let tracer = Tracer::of(self.is_watched(), None);
        let before = tracer.calls().len();
        self.changes("two");
        tracer.rests();
        let calls = tracer.calls().split_off(before);
        let ask = calls.iter().rposition(|(name, _)| name == "sendmsg").unwrap();
        (calls, ask)
    }

    /// Two changes, and the agent is killed at this call of the first. Tells whether it was.
    fn once(mut self, killing: &Call, watch: impl FnOnce(&Self)) -> bool {
        let first = self.is_watched();
        let tracer = Tracer::of(first, Some(killing));
        self.changes("two");
        tracer.rests();
        drop(tracer);
        let second = self.is_watched();
        watch(&self);
        self.changes("three");
        let said = self.running.all_until_killed();
        let told: Vec<&str> = said.lines().filter(|line| line.starts_with("HUP") || line.starts_with("runs")).collect();
        let expected = ["two", "three"].map(|value| format!("{} {value}", self.beginning));
        assert_eq!(told[1..], expected, "{killing:?}: {said}");
        first != second
    }
}

/// How many of the agents are killed, when each of these calls is the last of another. Most of the time they wait.
fn killed(calls: &[Call], dies: impl Fn(&Call) -> bool + Sync) -> usize {
    let (left, killed) = (Mutex::new(calls.iter()), AtomicUsize::new(0));
    let next = || left.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while let Some(call) = next() {
                    killed.fetch_add(usize::from(dies(call)), Ordering::Relaxed);
                }
            });
        }
    });
    killed.into_inner()
}

#[test]
fn an_agent_that_is_killed_at_any_system_call_while_a_change_goes_through_has_the_program_told_once() {
    let (calls, ask) = Told::by_a_signal().calls();
    let put_in_place = calls.iter().rposition(|(name, _)| name == "renameat").unwrap();
    // Before the files are in place, and while it is looked what the signal would do, some of them are enough.
    let is_taken = |&at: &usize| at.abs_diff(put_in_place) < 8 || at + 8 > ask || at % 4 == 0;
    let taken: Vec<Call> = (0..calls.len()).filter(is_taken).map(|at| calls[at].clone()).collect();
    let killed = killed(&taken, |call| Told::by_a_signal().once(call, |_| {}));
    println!("{} of {} calls, {killed} agents killed", taken.len(), calls.len());
    assert!(taken.len() > 30 && killed * 4 > taken.len() * 3, "{killed} of {}", taken.len());
}

#[test]
fn an_agent_that_is_killed_while_it_has_the_program_started_again_has_it_started_once() {
    let (calls, ask) = Told::by_a_restart().calls();
    let taken = &calls[ask - 5..];
    let killed = killed(taken, |call| {
        Told::by_a_restart().once(call, |_| {
            // A restart that is still to come waits for two seconds.
            let began = Instant::now();
            eventually("it would have been started again", || (began.elapsed() > Duration::from_millis(2500)).then_some(()));
        })
    });
    println!("{} of {} calls, {killed} agents killed", taken.len(), calls.len());
    assert!(killed * 4 > taken.len() * 3, "{killed} of {taken:?}");
}

#[test]
fn an_agent_that_dies_before_it_says_more_than_that_all_is_delivered_has_a_successor_that_watches_on() {
    // It is dead before the program runs, or after that.
    for delay in ["500000", "0"] {
        let (world, traces) = (World::new(), World::new());
        let (path, trace) = (world.file("a", "one"), traces.path.join("trace"));
        // The lock of its directory, what it leaves for another, and what is delivered: there is no fourth message.
        let kills = "inject=sendmsg:signal=KILL:when=4";
        let delays = format!("inject=execve:delay_enter={delay}");
        let words = ["strace", "-f", "-q", "-o", trace.to_str().unwrap(), "-e", "trace=sendmsg,execve", "-e", kills, "-e", &delays];
        let start = watched(&world).variable("A_FILE", format!("file:{}", path.display())).program(["perl", "-e", TELLS]);
        let mut running = start.around(&words).spawn();
        running.line("runs one");
        let deaths = || fs::read_to_string(&trace).unwrap().matches("killed by SIGKILL").count();
        eventually("it is dead", || (deaths() == 1).then_some(()));
        replace(&path, "two");
        let changed = Instant::now();
        running.line("HUP two");
        // It looks at once, and not in its time, which may be half a minute.
        assert!(changed.elapsed() < Duration::from_secs(10), "{:?}", changed.elapsed());
        assert_eq!(deaths(), 1);
        // The tracer ends with those below it.
        send(children(running.pid())[0], libc::SIGTERM);
        assert_eq!(running.finishes().stdout.matches("HUP").count(), 1);
    }
}
