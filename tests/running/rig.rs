//! A program under secret-init whose one file is watched, and stores before which something can be put.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::files::Small;
use crate::support::servers::faults::{Answer, Faults, Request};
use crate::support::servers::openbao::OpenBao;
use crate::support::servers::{curl, free_port};
use crate::support::{Outcome, Running, Start, World, children, eventually, is_ours, send};

/// Tells what is in its file at the start and at each HUP, with the number of it, and ends with 0 at TERM.
pub const PROGRAM: &str = r#"
$| = 1;
my $number = 0;
sub content { local $/; open my $file, "<", $ENV{A_FILE} // "$ENV{SECRET_INIT_DIR}/A" or return "nothing: $!"; <$file> }
$SIG{HUP} = sub { $number++; print "HUP $number ", content(), "\n" };
$SIG{TERM} = sub { print "TERM $number\n"; exit 0 };
print "runs ", content(), "\n";
select undef, undef, undef, 0.05 while 1;
"#;

/// One server for many tests. Each has paths of its own in it.
pub static BAO: LazyLock<OpenBao> = LazyLock::new(OpenBao::plain);

/// Below a PID 1 of its own nothing outlives the test.
pub fn container(world: &World) -> Start {
    world.secret_init().as_pid_1()
}

/// A program that runs, and whose secret `A` is watched.
pub struct Watched {
    pub running: Running,
    /// What is mounted at the directory, if something is: it goes before the world does.
    #[allow(dead_code, reason = "it only has to end in time")]
    small: Option<Small>,
    pub world: World,
    pub directory: PathBuf,
    /// What it had at the start.
    pub first: String,
    metrics: u16,
}

impl Watched {
    /// Starts [`PROGRAM`], and waits until it runs with this value. Nothing is looked at by itself, but for what is said otherwise.
    #[track_caller]
    pub fn start(world: World, start: Start, value: &str) -> Self {
        let watched = Self::of(world, start.flag("--refresh=24h").program(["perl", "-e", PROGRAM]));
        assert_eq!(watched.first, value);
        watched
    }

    /// Starts a program that says `runs VALUE` when it does.
    #[track_caller]
    pub fn of(world: World, start: Start) -> Self {
        let (directory, metrics) = (world.directory(), free_port());
        let start = start.directory(&directory).flag(format!("--metrics=127.0.0.1:{metrics}"));
        let mut running = start.spawn();
        let first = running.line("runs").replace("runs ", "");
        let watched = Self { running, small: None, world, directory, first, metrics };
        // The program does not wait for it.
        eventually("the agent can be asked", || watched.directory.join(".control").exists().then_some(()));
        watched
    }

    /// What its directory is a mount of.
    pub fn on(mut self, small: Small) -> Self {
        self.small = Some(small);
        self
    }

    /// `secret-init refresh`.
    #[track_caller]
    pub fn refresh(&self) -> Outcome {
        self.world.secret_init().directory(&self.directory).flag("refresh").finishes()
    }

    /// `secret-init health`.
    #[track_caller]
    pub fn health(&self) -> Outcome {
        self.world.secret_init().directory(&self.directory).flag("health").finishes()
    }

    /// The agent, by its number outside.
    #[track_caller]
    pub fn agent(&self) -> i32 {
        eventually("an agent is there", || children(self.running.pid_1()).into_iter().find(|child| is_ours(*child)))
    }

    /// A metric without labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> String {
        let text = curl(&[format!("http://127.0.0.1:{}/metrics", self.metrics)], None).1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    }

    /// The file of the secret: which one it is, when it was changed, and what is in it.
    #[track_caller]
    pub fn file(&self) -> (u64, i64, Vec<u8>) {
        let path = self.directory.join("A");
        let metadata = fs::metadata(&path).unwrap();
        (metadata.ino(), metadata.ctime_nsec(), fs::read(path).unwrap())
    }

    /// One look that finds it wrong: the exit code, the words, and nothing else that changed.
    #[track_caller]
    pub fn stays(&self, code: i32, cause: &str) {
        let before = self.file();
        let refresh = self.refresh();
        assert!(refresh.code() == code && says(&refresh, "failed: ", cause), "{code} {cause}: {refresh:?}");
        assert_eq!(self.file(), before);
        self.is_stale(cause);
    }

    /// The program has what it had, and anybody can see that it may be old. Nobody is to start anything again for it.
    #[track_caller]
    pub fn is_stale(&self, cause: &str) {
        assert_eq!(self.metric("secret_init_stale_secrets"), "1");
        let health = self.health();
        assert!(health.code() == 0 && says(&health, "stale: ", cause), "{cause}: {health:?}");
    }

    /// A look finds a change, of which the program hears as its signal of this number.
    #[track_caller]
    pub fn hears(&mut self, number: u32, value: &str) {
        let refresh = self.refresh();
        assert!(refresh.code() == 0 && refresh.stdout.contains(" changed"), "{refresh:?}");
        assert_eq!(self.running.line("HUP"), format!("HUP {number} {value}"));
        assert_eq!(self.file().2, value.as_bytes());
        self.is_well();
    }

    /// Nothing is wrong.
    #[track_caller]
    pub fn is_well(&self) {
        assert_eq!(self.metric("secret_init_stale_secrets"), "0");
        let health = self.health();
        assert!(health.code() == 0 && !health.stdout.contains("stale"), "{health:?}");
    }

    /// TERM ends the program, which had so many signals. Gives what was said on stderr.
    #[track_caller]
    pub fn ends(mut self, signals: u32) -> String {
        send(self.running.pid_1(), libc::SIGTERM);
        assert_eq!(self.running.line("TERM"), format!("TERM {signals}"));
        let outcome = self.running.finishes();
        assert_eq!(outcome.code(), 0, "{outcome:?}");
        outcome.stderr
    }
}

/// Whether a row of the answer has this word, and this cause after it.
fn says(outcome: &Outcome, word: &str, cause: &str) -> bool {
    outcome.stdout.lines().any(|line| line.split_once(word).is_some_and(|(_, after)| after.contains(cause)))
}

/// A secret at the real server, with something before it that can answer in its stead.
pub struct Store {
    pub path: String,
    pub gate: Faults,
    answers: Arc<Mutex<Vec<Answer>>>,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Store {
    /// With the value `one`.
    #[track_caller]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = format!("running/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let answers = Arc::new(Mutex::new(Vec::<Answer>::new()));
        let times = Arc::new(Mutex::new(Vec::new()));
        let (said, noted, port) = (answers.clone(), times.clone(), port(&BAO.address));
        let gate = Faults::start(move |request, _| {
            let mut said = said.lock().unwrap();
            let is_secret = request.path.starts_with("/v1/secret/");
            if is_secret {
                noted.lock().unwrap().push(Instant::now());
            }
            let Some(answer) = said.first().filter(|_| is_secret).cloned() else {
                drop(said);
                return forward(request, port);
            };
            // The last one stays.
            if said.len() > 1 {
                said.remove(0);
            }
            answer
        });
        let store = Self { path, gate, answers, times };
        store.put("one");
        store
    }

    /// The value of the secret.
    #[track_caller]
    pub fn put(&self, value: &str) {
        self.put_all(&json!({"k": value}));
    }

    #[track_caller]
    pub fn put_all(&self, data: &Value) {
        BAO.kv(&self.path, data);
    }

    /// Asks the real server about the secret: `data`, `metadata`, `destroy`, …
    #[track_caller]
    pub fn asks(&self, method: &str, what: &str, body: &Value) {
        BAO.succeeds(method, &format!("secret/{what}/{}", self.path), body);
    }

    /// From now on these are the answers, one after the other, the last one for all that follow.
    pub fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        *self.answers.lock().unwrap() = answers.into_iter().collect();
    }

    /// From now on the real server answers.
    pub fn answers_truly(&self) {
        self.answers([]);
    }

    /// When the secret was asked for.
    pub fn times(&self) -> Vec<Instant> {
        self.times.lock().unwrap().clone()
    }

    /// The reference, with options.
    pub fn reference(&self, options: &str) -> String {
        format!("vault:secret/data/{}{options}#k", self.path)
    }

    /// A start that asks here.
    pub fn told(&self, start: Start) -> Start {
        start.variable("VAULT_ADDR", &self.gate.address).variable("VAULT_TOKEN", "root")
    }

    /// A program that runs with the value `one`.
    #[track_caller]
    pub fn watched(&self, options: &str) -> Watched {
        let world = World::new();
        let start = self.told(container(&world)).variable("A_FILE", self.reference(options));
        Watched::start(world, start, "one")
    }
}

pub fn port(address: &str) -> u16 {
    address.rsplit_once(':').unwrap().1.parse().unwrap()
}

/// What the server at this port answers.
pub fn forward(request: &Request, port: u16) -> Answer {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Answer::hang_up() };
    let mut lines = vec![format!("{} {} HTTP/1.1", request.method, request.path), "connection: close".to_owned()];
    lines.extend(request.headers.iter().filter(|(name, _)| name != "connection").map(|(name, value)| format!("{name}: {value}")));
    let head = lines.join("\r\n") + "\r\n\r\n";
    let mut answer = Vec::new();
    let _ = stream.write_all(&[head.as_bytes(), &request.body].concat());
    let _ = stream.read_to_end(&mut answer);
    Answer::raw(answer)
}

/// An address that leads to one server after the other. It ends with the process of the tests.
pub struct Relay {
    pub port: u16,
    to: Arc<AtomicU16>,
}

impl Relay {
    pub fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), to: Arc::new(AtomicU16::new(port(address))) };
        let to = relay.to.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to.load(Ordering::Relaxed))) else { continue };
                for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        relay
    }

    pub fn leads_to(&self, address: &str) {
        self.to.store(port(address), Ordering::Relaxed);
    }
}
