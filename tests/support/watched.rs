//! Programs whose secrets are watched: what they and secret-init say comes on one stream, line by line.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;

use super::{Running, Start, World, children, eventually, is_ours};

/// Tells what it has at its start and at each HUP, with the number of the HUP and the time. A signal just before its sleep is taken after a second.
pub const TELLS: &str = r#"
use Time::HiRes "time";
$| = 1;
sub content { local $/; open my $file, "<", $_[0] or return "(nothing)"; <$file> }
sub tell_all { printf "%s %s at %.3f\n", $_[0], join(" ", map { content("$ENV{SECRET_INIT_DIR}/$_") } split / /, $ENV{SHOWN} // "A"), time }
$SIG{HUP} = sub { tell_all("HUP " . ++$count) };
$SIG{USR1} = sub { print "USR1\n" };
tell_all("runs");
sleep 1 while 1;
"#;

/// Messages of secret-init go where the program's output goes.
#[must_use]
pub fn on_one_stream(start: Start) -> Start {
    start.under(["sh", "-c", "exec \"$@\" 2>&1", "sh"])
}

/// A start with every secret watched, and its files in the world's own directory.
#[must_use]
pub fn watched(world: &World) -> Start {
    on_one_stream(world.secret_init().flag("--watch").flag("--log-level=info").directory(world.directory()))
}

/// The same by a configuration, in which /W is the world.
#[must_use]
pub fn configured(world: &World, text: &str) -> Start {
    let text = text.replace("/W", world.path.to_str().unwrap());
    let config = world.file("c.yaml", text);
    on_one_stream(world.secret_init().flag("--log-level=info").flag("--config").flag(config).directory(world.directory()))
}

/// A new file takes the name of an old one.
pub fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, path).unwrap();
}

/// The agent below secret-init, once it watches.
pub fn agent(supervisor: i32) -> i32 {
    eventually("there is an agent", || children(supervisor).into_iter().find(|&child| is_ours(child) && is_settled(child)))
}

/// Whether a process waits for events, and is not on its way to become another.
fn is_settled(process: i32) -> bool {
    fs::read_to_string(format!("/proc/{process}/oom_score_adj")).is_ok_and(|score| score.trim() == "1000")
        && fs::read_dir(format!("/proc/{process}/fd")).is_ok_and(|mut all| {
            all.any(|entry| entry.is_ok_and(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("anon_inode:inotify"))))
        })
}

/// The program below secret-init.
#[must_use]
pub fn program(supervisor: i32) -> i32 {
    eventually("there is a program", || children(supervisor).into_iter().find(|&child| !is_ours(child)))
}

/// What `secret-init refresh` says, when all that it found is in place.
pub fn refresh(world: &World) -> Output {
    world.secret_init().flag("refresh").directory(world.directory()).command().output().unwrap()
}

/// The memory that a process has written to, in KiB, also what it shares with a fork that has not.
#[must_use]
pub fn dirty_memory(process: i32) -> u64 {
    super::write_to_disk();
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let fields = rollup.lines().filter_map(|line| line.strip_prefix("Private_Dirty:").or(line.strip_prefix("Shared_Dirty:")));
    fields.map(|field| field.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
}

/// A port that nobody listens on.
#[must_use]
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The value of a sample of the metrics.
#[must_use]
pub fn sample(address: &str, name: &str) -> String {
    let mut stream = eventually("metrics are served", || TcpStream::connect(address).ok());
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

impl Running {
    /// The time that stands at the end of a line, in seconds.
    #[track_caller]
    pub fn time_of(&mut self, beginning: &str) -> f64 {
        self.line(beginning).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// All that was said by a program that ignores TERM.
    #[track_caller]
    pub fn all_until_killed_hard(self) -> String {
        let program = program(self.pid());
        super::send(program, libc::SIGKILL);
        self.finishes().stdout
    }

    /// All that was said up to its end, which is made now.
    #[track_caller]
    pub fn all_until_killed(self) -> String {
        self.signal(libc::SIGTERM);
        self.finishes().stdout
    }
}
