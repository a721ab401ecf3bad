//! How the secrets of a running program are seen: health and refresh by the socket, metrics by HTTP, the record of accesses. Those who ask are the real ones:
//! secret-init itself, curl, promtool, Prometheus.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use secret_init::control::{Answer, Control, Kind, Looked, NAME};
use secret_init::health::{Clock, Seen, State};
use secret_init::listen::PATIENCE;
use secret_init::metrics::{Metrics, Rotation, Scrapes};
use secret_init::report::{Code, Problem};
use secret_init::store::{self, FailureKind, Fetched, Traffic};
use serde_json::{Value, json};
use support::canary::Canary;
use support::files::{Small, after, mode_of, names_in, set_mode};
use support::servers::faults::{self, Faults};
use support::servers::prometheus::Prometheus;
use support::servers::{curl, free_port};
use support::watched::{on_one_stream, replace};
use support::{Outcome, Start, World, eventually};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

// The agent's side, as its loop has it.

/// A loop with a socket and metrics, as long as it is not dropped.
struct Agent {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    metrics: SocketAddr,
}

impl Agent {
    fn start(directory: &Path, seen: impl Fn() -> Seen + Send + 'static) -> Self {
        Self::try_start(directory, seen).unwrap()
    }

    fn try_start(directory: &Path, seen: impl Fn() -> Seen + Send + 'static) -> Result<Self, Problem> {
        let directory = fs::File::open(directory).unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let (opened, result) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let (mut control, mut scrapes) = match Control::open(directory) {
                    Ok(control) => (control, Scrapes::open(([127, 0, 0, 1], 0).into()).unwrap()),
                    Err(problem) => return opened.send(Err(problem)).unwrap(),
                };
                opened.send(Ok(scrapes.address())).unwrap();
                let (metrics, mut ticks) = (metrics(), tokio::time::interval(Duration::from_millis(1)));
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        scrape = scrapes.next() => scrape.answer(&metrics, &seen()),
                        request = control.next() => match request.kind {
                            Kind::Health => request.answer(Answer::of_health(&seen())),
                            Kind::Refresh => request.answer(refreshed()),
                        },
                        // What is not waited for to the end loses nothing.
                        _ = ticks.tick() => {}
                    }
                }
            });
        });
        result.recv().unwrap().map(|metrics| Self { stop: Some(stop), thread: Some(thread), metrics })
    }

    fn curl(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        curl(&[arguments, &[&format!("http://{}{path}", self.metrics)]].concat(), None)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn metrics() -> Metrics {
    let traffic = Traffic::default();
    traffic.to("vault").sent(Some(200), Duration::from_millis(20));
    let mut metrics = Metrics::new(["file", "vault"], ["signal"], traffic);
    metrics.accessed("vault", &Ok(Fetched::Unchanged));
    metrics.accessed("vault", &Err(store::Failure::new(FailureKind::Unavailable { retry_after: None }, "connection refused")));
    metrics.rotated("vault", Rotation::Done(Duration::from_millis(30)));
    metrics.rotated("file", Rotation::Refused);
    metrics.action_failed("signal");
    metrics.restarted();
    metrics
}

fn state(name: &str, reference: &str) -> State {
    let now = Clock::now().moment;
    State {
        names: vec![name.to_owned()],
        reference: reference.to_owned(),
        store: "vault",
        is_required: true,
        last_success: Some(now),
        next_look: Some(now + Duration::from_mins(5)),
        expires: Some(now + Duration::from_hours(1)),
        failure: None,
    }
}

fn seen(secrets: Vec<State>) -> Seen {
    let clock = Clock::now();
    Seen { clock, secrets, logins: vec![("vault".to_owned(), clock.moment + Duration::from_mins(30))] }
}

fn well() -> Seen {
    seen(vec![state("DB_PASSWORD", "vault:secret/data/db"), state("KEY", "vault:secret/data/key")])
}

fn stale() -> Seen {
    let stale = State { failure: Some("connection refused".to_owned()), ..state("KEY", "vault:secret/data/key") };
    seen(vec![state("DB_PASSWORD", "vault:secret/data/db"), stale])
}

fn expired() -> Seen {
    let expired = State { expires: Some(Duration::ZERO), ..state("KEY", "vault:database/creds/app") };
    seen(vec![expired])
}

fn refreshed() -> Answer {
    let row = |name: &str, reference: &str, looked| (name.to_owned(), reference.to_owned(), looked);
    let looked = [
        row("DB_PASSWORD", "vault:secret/data/db", Looked::Changed),
        row("tls/tls.key", "file:/run/secrets/key", Looked::Failed(Code::NotFound, "no such file".to_owned())),
    ];
    Answer::of_refresh(looked, std::iter::empty())
}

fn asks(world: &World, command: &str) -> Start {
    world.secret_init().directory(world.directory()).flag(command)
}

#[track_caller]
fn says(outcome: &Outcome, code: i32, stdout: &str) {
    assert_eq!((outcome.code(), outcome.stdout.as_str(), outcome.stderr.as_str()), (code, stdout, ""));
}

// health and refresh.

#[test]
fn health_ends_with_0_when_all_is_well_and_also_when_a_store_is_down() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), well);
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
    drop(agent);
    let _agent = Agent::start(&world.directory(), stale);
    let lines =
        "NAME  REFERENCE              RESULT\nKEY   vault:secret/data/key  stale: connection refused\nhealthy: 2 secrets, 1 stale\n";
    says(&asks(&world, "health").finishes(), 0, lines);
}

#[test]
fn health_ends_with_69_when_a_secret_has_expired() {
    let world = World::new();
    let _agent = Agent::start(&world.directory(), expired);
    let lines = "NAME  REFERENCE                 RESULT\nKEY   vault:database/creds/app  expired\nunhealthy: 1 secret, 1 expired\n";
    says(&asks(&world, "health").finishes(), 69, lines);
}

#[test]
fn a_refresh_prints_what_the_docs_show() {
    let world = World::new();
    let _agent = Agent::start(&world.directory(), well);
    let page = fs::read_to_string("docs/monitoring.md").unwrap();
    let shown = page.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    let words = |text: &str| text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>();
    let outcome = asks(&world, "refresh").finishes();
    assert_eq!((words(&outcome.stdout), outcome.code()), (words(shown), 66));
}

#[test]
fn with_json_the_answer_is_an_object_a_line() {
    let world = World::new();
    let _agent = Agent::start(&world.directory(), well);
    let outcome = asks(&world, "refresh").flag("--log-format=json").finishes();
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [
        json!({"code": 66, "message": "1 secret changed, 0 unchanged, 1 failed"}),
        json!({"name": "DB_PASSWORD", "reference": "vault:secret/data/db", "result": "changed"}),
        json!({"name": "tls/tls.key", "reference": "file:/run/secrets/key", "result": "failed: no such file"}),
    ];
    assert_eq!((lines, outcome.code()), (expected.to_vec(), 66));
}

/// What is printed of an agent that may be anybody's cannot fool a terminal.
#[test]
fn what_an_agent_says_is_printed_without_its_control_characters() {
    let world = World::new();
    let _agent =
        Agent::start(&world.directory(), || seen(vec![State { failure: Some("\u{1b}[2Jgone".to_owned()), ..state("A\nB", "vault:x") }]));
    let stdout = asks(&world, "health").finishes().stdout;
    assert!(stdout.contains("A\\nB") && stdout.contains("\\u{1b}[2Jgone") && !stdout.contains('\u{1b}'), "{stdout}");
}

#[test]
fn without_an_agent_health_and_refresh_say_so() {
    let world = World::new();
    let hint =
        "hint: it runs while a secret is watched (--watch, refresh=, rotation:); --dir, or SECRET_INIT_DIR, says where its directory is";
    let cause = format!("no agent answers in {}", world.directory().display());
    for command in ["health", "refresh"] {
        asks(&world, command).finishes().fails(69, &[&cause, hint]);
    }
    // What an agent left that was killed.
    drop(UnixListener::bind(world.directory().join(NAME)).unwrap());
    asks(&world, "health").finishes().fails(69, &[&cause, hint]);
    let stderr = world.secret_init().flag("health").as_pid_1().finishes().stderr;
    assert!(stderr.starts_with("secret-init: no agent answers in /run/secret-init, /dev/shm/secret-init-0-"), "{stderr}");
}

#[test]
fn the_directory_is_found_as_the_start_found_it() {
    let world = World::new();
    let namespace = fs::read_link("/proc/self/ns/mnt").unwrap();
    let number: String = namespace.to_str().unwrap().chars().filter(char::is_ascii_digit).collect();
    // Of another user, as root finds it by docker exec.
    let directory = Path::new("/dev/shm").join(format!("secret-init-54321-{number}"));
    fs::create_dir(&directory).unwrap();
    let _agent = Agent::start(&directory, well);
    let unowned = world.secret_init().flag("health").finishes();
    std::os::unix::fs::chown(&directory, Some(54321), Some(54321)).unwrap();
    let owned = world.secret_init().flag("health").finishes();
    let _ = fs::remove_dir_all(&directory);
    assert!(unowned.code() == 69 && !unowned.stderr.contains("54321"), "{unowned:?}");
    says(&owned, 0, "healthy: 2 secrets\n");
    let _agent = Agent::start(&world.directory(), well);
    let start = world.secret_init().variable("SECRET_INIT_DIR", world.directory()).flag("health");
    says(&start.finishes(), 0, "healthy: 2 secrets\n");
}

/// A variable that is watched, and no file: the directory is there for the socket alone.
fn variable(world: &World) -> Start {
    let secret = world.file("a", "one");
    world.secret_init().flag("--on-change=restart").variable("A", format!("${{file:{}}}", secret.display()))
}

#[test]
fn the_socket_of_watched_variables_is_nothing_to_the_program_whoever_it_is() {
    let world = World::new();
    let start = variable(&world).flag("--user=4242:4343").shell("echo runs $A as $(id -u) in ${SECRET_INIT_DIR-nothing}; exec sleep 9999");
    let mut running = on_one_stream(start.clone().directory(world.directory())).spawn();
    running.line("runs one as 4242 in nothing");
    eventually("the agent can be asked", || (asks(&world, "health").finishes().code() == 0).then_some(()));
    assert_eq!((mode_of(world.directory()), names_in(world.directory())), (0o700, vec![NAME.to_owned()]));
    replace(&world.path.join("a"), "two");
    running.line("runs two as 4242 in nothing");
    // Where nobody named a directory.
    on_one_stream(start).as_pid_1().spawn().line("runs two as 4242 in nothing");
}

#[test]
fn where_no_socket_can_be_had_that_is_told_once_and_the_program_runs() {
    let world = World::new();
    let start = after(variable(&world), "mount -o bind,ro /run /run && mount -o bind,ro /dev/shm /dev/shm");
    let outcome = start.shell("echo runs $A; test ! -e /run/secret-init").finishes();
    let warning = "secret-init: warning: /run/secret-init: health and refresh cannot ask: ";
    let (first, hint) = outcome.stderr.split_once('\n').unwrap();
    assert!(first.starts_with(warning) && first.contains("; nor in /dev/shm: cannot be made: read-only file system"), "{first}");
    assert!(
        hint.starts_with("secret-init: hint: mount a tmpfs: docker run --tmpfs /run/secret-init:") && hint.lines().count() == 1,
        "{hint}"
    );
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "runs one\n"));
}

// Who may ask, and what is in the way.

#[test]
fn the_socket_is_for_root_and_our_own_user_alone() {
    let world = World::new();
    let _agent = Agent::start(&world.directory(), well);
    let socket = world.directory().join(NAME);
    assert_eq!((mode_of(&socket), names_in(world.directory())), (0o600, vec![NAME.to_owned()]));
    let about = world.directory().display().to_string();
    let denied =
        [format!("{about}: the agent there is another user's"), "hint: ask as root, or as the user that secret-init runs as".to_owned()];
    let denied: Vec<&str> = denied.iter().map(String::as_str).collect();
    asks(&world, "health").as_user(1000).finishes().fails(77, &denied);
    // The mode of the directory and of the socket do not matter in the end.
    set_mode(world.directory(), 0o755);
    asks(&world, "health").as_user(1000).finishes().fails(77, &denied);
    set_mode(&socket, 0o666);
    let outcome = asks(&world, "refresh").as_user(1000).finishes();
    says(&outcome, 77, "only root and the user of secret-init may ask\n");
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
}

#[test]
fn what_is_no_question_gets_no_answer_and_harms_nobody() {
    let world = World::new();
    let _agent = Agent::start(&world.directory(), well);
    let ask = |question: &[u8]| {
        let mut stream = UnixStream::connect(world.directory().join(NAME)).unwrap();
        let _ = stream.write_all(question);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let unknown = "{\"code\":64,\"message\":\"health and refresh are known\"}\n";
    for question in [&b"\n"[..], b"restart\n", b"HEALTH\n", b"health\0\n", b"health \n", b"\xff\xfe\n", &[b'x'; 64]] {
        assert_eq!(ask(question), unknown, "{question:?}");
    }
    for question in [&b""[..], b"health", &[0; 10]] {
        assert_eq!(ask(question), "", "{question:?}");
    }
    // Longer than is read: the rest is nobody's.
    ask(&vec![b'x'; 1 << 20]);
    assert!(ask(b"health\nrefresh\n").starts_with("{\"code\":0,"));
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
}

#[test]
fn those_who_say_nothing_keep_nobody_from_asking() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), well);
    let _silent: Vec<UnixStream> = (0..300).map(|_| UnixStream::connect(world.directory().join(NAME)).unwrap()).collect();
    let _slow: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(agent.metrics).unwrap();
            stream.write_all(b"GET /").unwrap();
            stream
        })
        .collect();
    // One would have to wait for the patience with one of them, at least.
    let started = Instant::now();
    assert_eq!(agent.curl("/livez", &[]), (200, "alive\n".to_owned()));
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn many_who_ask_at_once_are_all_answered() {
    let world = World::new();
    let _agent = Agent::start(&world.directory(), well);
    let asking: Vec<_> = (0..40).map(|_| asks(&world, "health").spawn()).collect();
    for running in asking {
        says(&running.finishes(), 0, "healthy: 2 secrets\n");
    }
}

#[test]
fn those_who_wait_for_a_refresh_by_a_store_that_hangs_keep_nobody_from_asking_how_it_is() {
    let (world, looks) = (World::new(), AtomicU32::new(0));
    let server = Faults::start(move |_, _| match looks.fetch_add(1, Ordering::Relaxed) {
        0 => faults::Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}})),
        _ => faults::Answer::silence(),
    });
    let start = world.secret_init().directory(world.directory()).flag("--watch").variable("A_FILE", "vault:secret/data/app#k");
    let start = start.variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
    let mut running = start.shell("echo runs; exec sleep 9999").spawn();
    running.line("runs");
    let connect = || eventually("the agent can be asked", || UnixStream::connect(world.directory().join(NAME)).ok());
    let _waiting: Vec<UnixStream> = (0..16)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"refresh\n").unwrap();
            stream
        })
        .collect();
    says(&asks(&world, "health").finishes(), 0, "healthy: 1 secret\n");
    says(&asks(&world, "refresh").finishes(), 69, "16 others wait for a refresh already\n");
    says(&asks(&world, "health").finishes(), 0, "healthy: 1 secret\n");
}

#[test]
fn a_stale_socket_is_replaced() {
    let world = World::new();
    drop(UnixListener::bind(world.directory().join(NAME)).unwrap());
    let agent = Agent::start(&world.directory(), well);
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
    drop(agent);
    assert!(names_in(world.directory()).is_empty());
}

#[test]
fn a_link_that_was_planted_in_place_of_the_socket_is_replaced_and_not_followed() {
    let world = World::new();
    let victim = world.file("victim", "as it was");
    symlink(&victim, world.directory().join(NAME)).unwrap();
    symlink(&victim, world.directory().join(format!(".secret-init-{}-control.tmp", std::process::id()))).unwrap();
    let _agent = Agent::start(&world.directory(), well);
    assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), mode_of(&victim)), ("as it was", 0o644));
    assert!(fs::symlink_metadata(world.directory().join(NAME)).unwrap().file_type().is_socket());
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
}

#[test]
fn a_directory_in_place_of_the_socket_is_told() {
    let world = World::new();
    fs::create_dir(world.directory().join(NAME)).unwrap();
    let problem = Agent::try_start(&world.directory(), well).err().unwrap();
    assert_eq!((problem.to_string().as_str(), problem.code), (".control: no socket can be made: is a directory", Code::CannotWrite));
    assert_eq!(names_in(world.directory()), [NAME]);
}

#[test]
fn an_agent_that_ends_leaves_the_socket_of_the_one_after_it() {
    let world = World::new();
    let first = Agent::start(&world.directory(), expired);
    let _second = Agent::start(&world.directory(), well);
    drop(first);
    says(&asks(&world, "health").finishes(), 0, "healthy: 2 secrets\n");
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_none_too_long_for_ours() {
    let world = World::new();
    let directory = world.path.join("x".repeat(100)).join("y".repeat(100));
    fs::create_dir_all(&directory).unwrap();
    let _agent = Agent::start(&directory, well);
    says(&world.secret_init().directory(&directory).flag("health").finishes(), 0, "healthy: 2 secrets\n");
}

#[test]
fn an_answer_that_breaks_off_is_told() {
    let world = World::new();
    let listener = UnixListener::bind(world.directory().join(NAME)).unwrap();
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = [0; 7];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"{\"code\":0,\"mess").unwrap();
        question
    });
    let lines = ["the agent broke off its answer", "hint: was the program, or the agent, ended meanwhile?"];
    asks(&world, "health").finishes().fails(69, &lines);
    assert_eq!(&serve.join().unwrap(), b"health\n");
}

// Metrics.

/// What a checker says of a text on its stdin; it accepts the text.
#[track_caller]
fn accepted_by(command: &mut Command, text: &str) -> String {
    let mut checker = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}{text}");
    said
}

const OPEN_METRICS: [&str; 2] = ["--header", "Accept: application/openmetrics-text; version=1.0.0"];

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), stale);
    let (status, text) = agent.curl("/metrics", &[]);
    assert_eq!((status, accepted_by(Command::new("promtool").args(["check", "metrics"]), &text).as_str()), (200, ""));
    assert!(text.contains("\nsecret_init_stale_secrets 1\n"), "{text}");
    // Of two secrets, nothing but their number.
    assert!(!text.contains("secret/data") && !text.contains("DB_PASSWORD"), "{text}");
}

#[test]
fn a_strict_reader_of_openmetrics_finds_no_fault() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), stale);
    let (status, text) = agent.curl("/metrics", &OPEN_METRICS);
    let script = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  print(*sorted(family.name + ' ' + family.type for family in read(sys.stdin.read())), sep='\\n')";
    let families = accepted_by(Command::new("/usr/bin/python3").args(["-c", script]), &text);
    assert_eq!(status, 200);
    for family in [
        "secret_init_build info",
        "secret_init_secret_access counter",
        "secret_init_backend_requests counter",
        "secret_init_backend_request_duration_seconds histogram",
        "secret_init_secret_rotation_duration_seconds histogram",
        "secret_init_stale_secrets gauge",
    ] {
        assert!(families.lines().any(|line| line == family), "{family} in {families}");
    }
}

#[test]
fn a_real_prometheus_that_is_set_up_as_in_the_docs_has_every_metric_of_the_docs() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), stale);
    let page = fs::read_to_string("docs/monitoring.md").unwrap();
    let configuration = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let prometheus = Prometheus::start(&format!(
        "global: {{ scrape_interval: 1s }}\n{}",
        configuration.replace("127.0.0.1:9464", &agent.metrics.to_string())
    ));
    let documented: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `secret_init_")?.split('`').next()).collect();
    assert!(documented.len() > 10, "{documented:?}");
    for name in &documented {
        let is_histogram = name.ends_with("_duration_seconds");
        let series = prometheus.query(&format!("secret_init_{name}{}", if is_histogram { "_count" } else { "" }));
        assert!(series.contains("job=\"secret-init\""), "{series}");
    }
    // And the other way round.
    for line in agent.curl("/metrics", &[]).1.lines() {
        if let Some(name) = line.strip_prefix("# TYPE secret_init_") {
            assert!(documented.contains(&name.split(' ').next().unwrap()), "{line}");
        }
    }
    let denied = prometheus.query("secret_init_secret_access_total{secret_type=\"vault\",status=\"unavailable\"}");
    assert!(denied.contains("=> 1 @"), "{denied}");
    assert!(prometheus.query("histogram_quantile(0.5, secret_init_secret_rotation_duration_seconds_bucket) > 0").contains("=> 0.0"));
}

#[test]
fn probes_by_http_say_what_health_says() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), stale);
    assert_eq!(agent.curl("/readyz", &[]), (200, "healthy: 2 secrets, 1 stale\n".to_owned()));
    assert_eq!(agent.curl("/livez?verbose", &[]), (200, "alive\n".to_owned()));
    assert_eq!(agent.curl("/startupz", &[]), (200, "alive\n".to_owned()));
    drop(agent);
    let agent = Agent::start(&world.directory(), expired);
    assert_eq!(agent.curl("/readyz", &[]), (503, "unhealthy: 1 secret, 1 expired\n".to_owned()));
    assert_eq!(agent.curl("/livez", &[]), (200, "alive\n".to_owned()));
}

#[test]
fn of_http_there_is_what_probes_and_scrapers_need() {
    let world = World::new();
    let agent = Agent::start(&world.directory(), well);
    let (status, head) = agent.curl("/metrics", &["--head"]);
    let length: usize = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse().ok()).unwrap();
    assert!(status == 200 && length > 1000 && head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    let (_, head) = agent.curl("/metrics", &[&OPEN_METRICS[..], &["--head"]].concat());
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{head}");
    assert_eq!(agent.curl("/", &[]).0, 404);
    assert_eq!(agent.curl("/metrics", &["--request", "POST"]).0, 405);
    let long = format!("X-Long: {}", "x".repeat(10_000));
    assert_eq!(agent.curl("/metrics", &["--header", &long]).0, 431);
    for garbage in [&b"\r\n\r\n"[..], b"\xff\xff\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET metrics HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(agent.metrics).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    }
    assert_eq!(agent.curl("/livez", &[]).0, 200);
}

#[test]
fn an_address_that_cannot_be_had_is_told() {
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let problem = runtime.block_on(async { Scrapes::open(([127, 0, 0, 1], port).into()).err().unwrap() });
    let expected = format!("--metrics: 127.0.0.1:{port}: metrics cannot be served there: address already in use");
    assert_eq!((problem.to_string(), problem.code), (expected, Code::System));
    let hint = "hint: see secret-init --help; the program and its options stand after --";
    let start = World::new().secret_init().flag("--metrics=9464").program(["true"]);
    start.finishes().fails(64, &["--metrics takes an IP address and a port, like 127.0.0.1:9464 or [::]:9464", hint]);
}

// The record of accesses.

fn record(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_record_of_a_start_has_what_the_docs_say() {
    let world = World::new();
    let secret = Canary::new();
    let db = world.file("db", &secret.0);
    let path = world.path.join("audit.jsonl");
    let reference = format!("file:{}", db.display());
    let start = world.secret_init().flag("--audit").flag(&path).directory(world.directory());
    let start = start.variable("DATABASE_URL", format!("postgresql://${{{reference}}}@db")).variable("DB_PASSWORD_FILE", &reference);
    let start = start.program(["true"]);
    assert_eq!(start.finishes().succeeds(), "");
    assert_eq!(mode_of(&path), 0o600);
    let page = fs::read_to_string("docs/monitoring.md").unwrap();
    let mut shown: Value = serde_json::from_str(page.split("```json\n").nth(1).unwrap().split("```").next().unwrap()).unwrap();
    let lines = record(&path);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let age = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(age.as_secs() > 0 && line["time"].as_str().unwrap().ends_with('Z') && line["time"].as_str().unwrap().len() == 24, "{line}");
    assert_eq!(line["fingerprint"].as_str().unwrap().len(), 32);
    for field in ["time", "version", "fingerprint"] {
        shown[field] = line[field].clone();
    }
    shown["reference"] = json!(reference);
    assert_eq!(*line, shown);
    for field in shown.as_object().unwrap().keys() {
        assert!(page.contains(&format!("\n| `{field}` |")), "{field}");
    }
    assert_eq!(secret.found_in(&world, &path), "");
}

#[test]
fn every_way_to_start_adds_its_accesses_to_the_record() {
    let world = World::new();
    let (one, path) = (world.file("one", "1"), world.path.join("audit.jsonl"));
    let start = || {
        let start = world.secret_init().variable("SECRET_INIT_AUDIT", &path).directory(world.directory());
        start.variable("ONE_FILE", format!("file:{}", one.display())).variable("TWO", "${file:/nowhere?optional=true}")
    };
    start().program(["true"]).finishes().succeeds();
    start().flag("--exec").program(["true"]).finishes().succeeds();
    start().flag("check").finishes().succeeds();
    assert_eq!(world.secret_init().flag("--audit").flag(&path).flag("plan").variable("A", "literal:x").finishes().code(), 0);
    let write = world.secret_init().variable("SECRET_INIT_AUDIT", &path).directory(world.directory());
    write.variable("ONE_FILE", format!("file:{}", one.display())).flag("write").finishes().succeeds();
    let lines = record(&path);
    let came: Vec<(&str, &str)> =
        lines.iter().map(|line| (line["names"][0].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect();
    let both = [("ONE_FILE", "ok"), ("TWO", "not_found")];
    assert_eq!(came, [&both[..], &both, &both, &both[..1]].concat());
    // Each start has a key of its own.
    assert_ne!(lines[0]["fingerprint"], lines[2]["fingerprint"]);
}

#[test]
fn a_start_that_fails_is_recorded_too_and_minus_is_stderr() {
    let world = World::new();
    let outcome = world.secret_init().flag("--audit=-").variable("A", "${file:/nowhere}").program(["true"]).finishes();
    let mut lines = outcome.stderr.lines();
    let line: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!((&line["reference"], &line["outcome"], &line["version"]), (&json!("file:/nowhere"), &json!("not_found"), &Value::Null));
    assert!(lines.next().unwrap().starts_with("secret-init: A: file:/nowhere: no such file"), "{outcome:?}");
    assert_eq!(outcome.code(), 66);
}

#[test]
fn the_process_that_asks_a_store_records_it_and_the_login_is_not_in_it() {
    let (world, token) = (World::new(), Canary::new());
    let answer = faults::Answer::json(&json!({"data": {"data": {"k": "v", "l": "w"}, "metadata": {"version": 7}}}));
    let server = Faults::always(answer);
    let path = world.path.join("audit.jsonl");
    let start = world.secret_init().flag("--audit").flag(&path).variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", &token.0);
    let start = start.variable("A", "vault:secret/data/app#k").variable("B", "vault:secret/data/app?default=hidden#l");
    start.program(["true"]).finishes().succeeds();
    let lines = record(&path);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let expected = (&json!(["A", "B"]), &json!("vault:secret/data/app"), &json!("7"), &json!("vault"));
    assert_eq!((&line["names"], &line["reference"], &line["version"], &line["store"]), expected);
    assert_eq!(token.found_in(&world, &path), "");
}

#[test]
fn without_the_record_that_was_asked_for_nothing_is_fetched() {
    let (world, server) = (World::new(), Faults::always(faults::Answer::silence()));
    let fifo = world.path.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let victim = world.file("victim", "");
    symlink(&victim, world.path.join("link")).unwrap();
    symlink("/proc/self/fd/2", world.path.join("stderr")).unwrap();
    let hint = "hint: name a file in a directory that can be written to, or - for stderr; without a record nothing is fetched";
    for (name, cause) in [
        ("link", "the record is not written through a link"),
        ("stderr", "the record is not written through a link"),
        ("fifo", "nobody reads from the pipe"),
        ("", "the record cannot be opened: is a directory"),
        ("none/audit", "the record cannot be opened: no such file or directory"),
    ] {
        let path = world.path.join(name);
        let start = world.secret_init().flag("--audit").flag(&path).variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t");
        let message = format!("--audit: {}: {cause}", path.display());
        let start = start.variable("A", "vault:secret/data/app#k").program(["true"]);
        start.finishes().fails(73, &[&message, hint, "the program was not started"]);
    }
    assert_eq!((server.requests().len(), fs::metadata(&victim).unwrap().size()), (0, 0));
    let device = world.secret_init().flag("--audit=/dev/null").variable("A", "literal:x").program(["true"]);
    device
        .finishes()
        .fails(73, &["--audit: /dev/null: the record is neither a regular file nor a pipe", hint, "the program was not started"]);
    let relative = world.secret_init().flag("--audit=audit.jsonl").program(["true"]);
    let usage =
        ["--audit takes an absolute path, or - for stderr", "hint: see secret-init --help; the program and its options stand after --"];
    relative.finishes().fails(64, &usage);
}

#[test]
fn a_record_that_is_full_is_told_once_and_the_program_runs() {
    let world = World::new();
    let mount = world.path.join("full");
    fs::create_dir(&mount).unwrap();
    let small = Small::mounted_at(mount.clone(), "8k");
    let path = small.0.join("audit.jsonl");
    fs::write(small.0.join("ballast"), vec![b'x'; 4096]).unwrap();
    // Half a page is left for the first of the two lines, and what does not fit begins the next page.
    fs::write(&path, vec![b'x'; 4000]).unwrap();
    let start = world.secret_init().flag("--audit").flag(&path);
    let start =
        (0..4).fold(start, |start, number| start.variable(format!("V{number}"), format!("${{file:/nowhere/{number}?optional=true}}")));
    let outcome = start.clone().shell("echo ran").finishes();
    let warning = format!("secret-init: warning: --audit: {}: the record has gaps from here on: ", path.display());
    assert!(outcome.stderr.starts_with(&warning) && outcome.stderr.matches("warning").count() == 1, "{outcome:?}");
    assert_eq!((outcome.stdout.as_str(), outcome.code()), ("ran\n", 0));
    // A line that was cut short does not spoil the next, once there is room.
    fs::remove_file(small.0.join("ballast")).unwrap();
    fs::write(&path, "{\"time\":\"20").unwrap();
    start.program(["true"]).finishes().succeeds();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"time\":\"20\n{\"time\":\"") && text.lines().count() == 5, "{text}");
}

#[test]
fn a_pipe_is_a_record_as_long_as_somebody_reads() {
    let world = World::new();
    let fifo = world.path.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Open at both ends, so that it neither waits nor breaks.
    let mut reader = fs::File::options().read(true).write(true).open(&fifo).unwrap();
    world.secret_init().flag("--audit").flag(&fifo).variable("A", "literal:x").program(["true"]).finishes().succeeds();
    let mut line = [0; 4096];
    let length = reader.read(&mut line).unwrap();
    let line: Value = serde_json::from_slice(&line[..length]).unwrap();
    assert_eq!(line["reference"], "literal:…");
}
