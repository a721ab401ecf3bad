//! People's programs, with secret-init as PID 1: what `docs/recipes.md` says, with its own text.
//!
//! The Dockerfiles are built by a real engine. No image can be pulled, so what `FROM` names is made of this machine's files, which are Debian's.
//! What a program makes of a signal does not depend on the image: where no recipe is needed for it, a pid namespace is enough.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "containers/engine.rs"]
mod engine;
#[path = "programs/recipe.rs"]
mod recipe;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use engine::{Image, host};
use recipe::{Base, Recipe, blocks, mentioned, signals};
use support::{Outcome, Running, Start, World, children, eventually, send};

#[test]
fn every_block_of_the_page_belongs_to_a_recipe_that_is_run_here() {
    let mut sections: Vec<String> = blocks().into_iter().map(|block| block.section).collect();
    sections.dedup();
    let elsewhere = ["A database password", "Credentials that end", "A certificate", "A rotation of AWS", "Everything at once"];
    sections.retain(|section| !elsewhere.contains(&section.as_str()));
    assert_eq!(sections, ["nginx", "PostgreSQL", "Redis", OWN, "Node", "Python", "Java", "Go", "Shell", IMAGES]);
}

/// Where this machine has a command.
fn command(name: &str) -> PathBuf {
    PathBuf::from(World::new().secret_init().bare().shell(&format!("command -v {name}")).finishes().succeeds().trim_end())
}

/// As the recipes start a container, for one that is to end at once.
const RUN: &str = "docker run --rm --network none --tmpfs /run/secret-init:mode=0700 -v \"$PWD/secrets:/run/secrets:ro\"";

// nginx.

fn nginx() -> (Recipe, [String; 3]) {
    let base = Base::new().package("nginx-light").program(command("nginx"));
    let base = base.user("www-data", "var/lib/nginx").folder("var/log/nginx").image();
    let mut recipe = Recipe::of("nginx", "mynginx").from(&base);
    let commands: [String; 3] = recipe.commands();
    recipe.starts(&commands[0]);
    (recipe, commands)
}

/// Trusts this one certificate alone.
const VISIT: &str = "curl --silent --show-error --cacert secrets/tls.crt https://localhost:8443/";

fn nginx_serves(recipe: &Recipe) {
    recipe.says("start worker process ");
    recipe.succeeds(VISIT);
}

#[test]
fn nginx_serves_a_certificate_and_after_hup_a_new_one_and_finishes_its_requests_when_it_stops() {
    let (recipe, [_, renew, stop]) = nginx();
    nginx_serves(&recipe);
    recipe.types(&renew);
    nginx_serves(&recipe);

    // A request to a server behind it that takes its time.
    let mut server = recipe.inside("exec busybox nc -l -p 8080");
    let mut server = Running::new(server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    recipe.succeeds("grep -q ':1F90 0*:0000 0A' /proc/net/tcp /proc/net/tcp6");
    let visitor = host(&mut recipe.inside(VISIT));
    server.line("Authorization: Bearer t0ken");
    let stopping = recipe.begins(&stop);
    recipe.says("gracefully shutting down");
    server.say("HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello");
    drop(server.stdin.take());
    assert_eq!(visitor.finishes().succeeds(), "hello\n");
    assert_eq!(stopping.finishes().succeeds().lines().last(), Some("0"));
}

#[test]
fn nginx_obeys_signals_and_ends_with_its_own_code() {
    let (recipe, _) = nginx();
    nginx_serves(&recipe);
    recipe.ends_by("INT", 0);
    recipe.obeys("nginx", nginx_serves);
    recipe.dies_with_its_program(nginx_serves);

    recipe.starts_again();
    nginx_serves(&recipe);
    recipe.container().exec(&["sh", "-c", "echo nonsense >> /etc/nginx/nginx.conf"]).succeeds();
    recipe.container().signal("HUP");
    recipe.says("unexpected end of file");
    nginx_serves(&recipe);
    recipe.ends_by("QUIT", 0);
    recipe.starts_again();
    assert_eq!(recipe.container().exit_code(), 1);

    assert_eq!(recipe.types(&format!("{RUN} mynginx nginx; echo ended with $?")), "ended with 0\n");
}

// PostgreSQL.

/// The folder with the server and its tools.
fn postgres() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path().join("bin"));
    versions.filter(|bin| bin.join("postgres").exists()).max().unwrap()
}

fn database() -> (Recipe, [String; 4]) {
    let bin = postgres();
    let base = Base::new().package("postgresql").program(bin.join("postgres")).program(bin.join("psql"));
    let base = base.tree(bin.parent().unwrap()).tree("/usr/share/postgresql").tree("/usr/share/zoneinfo");
    let base = base.link("psql", bin.join("psql")).user("postgres", "var/lib/postgresql").image();
    let mut recipe = Recipe::of("PostgreSQL", "mydb").from(&base);
    let commands: [String; 4] = recipe.commands();
    recipe.starts(&commands[0]);
    (recipe, commands)
}

/// A client that trusts this one certificate alone.
fn ask(password: &str, question: &str) -> String {
    format!("PGPASSWORD={password} psql -tAq 'host=localhost user=postgres sslmode=verify-full sslrootcert=secrets/tls.crt' {question}")
}

fn database_answers(recipe: &Recipe) {
    recipe.says("database system is ready to accept connections");
    assert_eq!(recipe.succeeds(&ask("s3cret", "-c 'SELECT 42'")), "42\n");
}

#[test]
fn postgres_lets_in_who_has_the_password_and_shows_a_new_certificate_after_hup() {
    let (recipe, [_, client, renew, stop]) = database();
    database_answers(&recipe);
    let stranger = recipe.tries(&ask("guess", "-c 'SELECT 42'"));
    assert!(stranger.code() == 2 && stranger.stderr.contains("password authentication failed"), "{stranger:?}");
    assert!(recipe.types(&client).contains("\n t\n"));
    postgres_takes_a_client_with_a_password_file(&recipe);

    recipe.put("secrets/password", "n3w");
    recipe.types(&renew);
    database_answers(&recipe);
    recipe.succeeds(&ask("s3cret", "-c \"ALTER ROLE postgres PASSWORD 'n3w'\""));
    assert_eq!(recipe.succeeds(&ask("n3w", "-c 'SELECT 42'")), "42\n");

    let session = host(&mut recipe.inside(&ask("n3w", "-c 'SELECT pg_sleep(9999)'")));
    recipe.succeeds(&format!("{} | grep -q .", ask("n3w", "-c \"SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'\"")));
    assert_eq!(recipe.types(&stop).lines().last(), Some("0"));
    assert!(session.finishes().stderr.contains("terminating connection due to administrator command"));
}

/// The line for it is in the text below.
fn postgres_takes_a_client_with_a_password_file(recipe: &Recipe) {
    let (file, secret) = (mentioned("{ path: pgpass, "), recipe.path("secrets/password").display().to_string());
    let file = file.replace("/run/secrets/password", &secret).replace(":app:", ":postgres:");
    recipe.put("client.yaml", &format!("files:\n  - {file}\n"));
    let client = ask("", "-c 'SELECT 42'")
        .replace("PGPASSWORD=", "PGPASSFILE=$PWD/client/pgpass ./secret-init --dir $PWD/client --config client.yaml --");
    assert_eq!(recipe.tries(&client).succeeds(), "42\n");
}

#[test]
fn postgres_obeys_signals_and_ends_with_its_own_code() {
    let (recipe, _) = database();
    database_answers(&recipe);
    // TERM waits for a client.
    let mut session = recipe.inside(&ask("s3cret", ""));
    let mut session = Running::new(session.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    session.say("SELECT 'connected';");
    session.line("connected");
    recipe.container().signal("TERM");
    recipe.says("received smart shutdown request");
    session.say("SELECT 'still there';");
    session.line("still there");
    session.say("\\q");
    assert_eq!((session.finishes().code(), recipe.container().exit_code()), (0, 0));

    recipe.obeys("PostgreSQL", database_answers);
    recipe.says("database system was not properly shut down; automatic recovery in progress");
    recipe.dies_with_its_program(database_answers);

    let server = "sh -c 'exec /usr/lib/postgresql/*/bin/postgres --no-such=1'";
    for (options, cause) in [("", "unrecognized configuration parameter"), ("-e SECRET_INIT_USER=root", "\"root\" execution")] {
        let said = recipe.types(&format!("{RUN} {options} mydb {server} 2>&1 || echo ended with $?"));
        assert!(said.contains(cause) && said.ends_with("ended with 1\n"), "{said}");
    }
}

// Redis.

fn redis() -> (Recipe, [String; 4]) {
    let base = Base::new().package("redis-server").program(command("redis-server")).program(command("redis-cli"));
    let mut recipe = Recipe::of("Redis", "myredis").from(&base.user("redis", "var/lib/redis").image());
    let commands: [String; 4] = recipe.commands();
    recipe.starts(&commands[0]);
    (recipe, commands)
}

fn redis_says(recipe: &Recipe, password: &str, words: &str) -> String {
    recipe.tries(&format!("REDISCLI_AUTH={password} redis-cli {words}")).stdout
}

fn redis_answers(recipe: &Recipe) {
    recipe.says("Ready to accept connections");
    eventually("PONG", || (redis_says(recipe, "s3cret", "PING") == "PONG\n").then_some(()));
}

#[test]
fn redis_asks_for_the_password_and_takes_a_new_one_without_a_restart() {
    let (recipe, [_, client, renew, stop]) = redis();
    redis_answers(&recipe);
    assert_eq!(recipe.types(&client), "PONG\n");
    for stranger in ["", "guess"] {
        assert!(redis_says(&recipe, stranger, "PING").starts_with("NOAUTH"));
    }
    let seen = recipe.types("docker top myredis; docker inspect myredis; docker logs myredis");
    assert!(seen.contains("redis-server") && !seen.contains("s3cret"), "{seen}");

    assert_eq!(recipe.types(&renew), "OK\n");
    assert_eq!(redis_says(&recipe, "n3w", "PING"), "PONG\n");
    assert!(redis_says(&recipe, "s3cret", "PING").starts_with("NOAUTH"));

    assert_eq!(redis_says(&recipe, "n3w", "SET saved yes"), "OK\n");
    assert_eq!(recipe.types(&stop).lines().last(), Some("0"));
    recipe.starts_again();
    eventually("what was saved", || (redis_says(&recipe, "n3w", "GET saved") == "yes\n").then_some(()));
}

#[test]
fn redis_obeys_signals_and_ends_with_its_own_code() {
    let (recipe, _) = redis();
    redis_answers(&recipe);
    recipe.ends_by("INT", 0);
    recipe.obeys("Redis", redis_answers);
    recipe.dies_with_its_program(redis_answers);
    recipe.put("secrets/password", "white space");
    recipe.starts_again();
    assert_eq!(recipe.container().exit_code(), 1);
}

#[test]
fn redis_takes_a_password_from_the_environment_on_stdin() {
    let recipe = Recipe::of("Redis", "myredis");
    recipe.put("password", "s3cret\n");
    let conf = recipe.read("redis.conf");
    let is_other = |line: &&str| !line.starts_with("aclfile") && !line.starts_with("dir");
    let rest: Vec<&str> = conf.lines().filter(is_other).collect();
    recipe.put("redis.conf", &format!("{}\n", rest.join("\n")));
    recipe.put("start.sh", &recipe.read("start.sh").replace("/etc/redis.conf", "redis.conf"));
    let start = recipe.secret_init().variable("REDIS_PASSWORD_FILE", recipe.path("password")).in_directory(recipe.path(""));
    let running = alone(&start.program(["sh", "start.sh"])).spawn();
    let pid = running.pid_1();
    let ping = |password: &str| {
        let script = format!("REDISCLI_AUTH={password} redis-cli PING");
        host(Command::new("nsenter").arg(format!("--net=/proc/{pid}/ns/net")).args(["sh", "-c", &script])).finishes().stdout
    };
    eventually("PONG", || (ping("s3cret") == "PONG\n").then_some(()));
    assert!(ping("guess").starts_with("NOAUTH"));
    let command = fs::read_to_string(format!("/proc/{}/cmdline", children(pid)[0])).unwrap();
    assert!(command.contains("redis-server") && !command.contains("s3cret"), "{command}");
    send(pid, libc::SIGTERM);
    assert_eq!(running.finishes().code(), 0);
}

// Programs of your own.

const OWN: &str = "Programs of your own";

/// Follows what is the same for all languages.
fn follow(language: &str, base: Option<Arc<Image>>, code: &str) {
    let mut recipe = Recipe::of(language, "myapp");
    if let Some(base) = base {
        recipe = recipe.from(&base);
    }
    compile(&recipe);
    let [start, renew, stop] = Recipe::of(OWN, "myapp").commands();
    recipe.starts(&start);
    let container = recipe.container();
    container.line("password of 6 characters, token of 5");
    recipe.types(&renew);
    container.line("password of 6 characters, token of 9");
    recipe.put("secrets/password", "another");
    recipe.types("docker restart myapp");
    container.line("password of 7 characters, token of 9");
    assert_eq!(recipe.types(&stop).lines().last(), Some(code));
    assert_eq!(container.logs().contains("closing"), language == "Java");
}

/// What is to be typed before the image is built.
fn compile(recipe: &Recipe) {
    // The compiler of Go keeps what it has made in a folder of the user's. There may be none here.
    let cache = recipe.path(".cache").display().to_string();
    for commands in recipe.all_commands() {
        recipe.types(&format!("export GOCACHE={cache}\n{commands}"));
    }
}

#[test]
fn a_program_for_node_gets_its_secrets_reads_them_again_and_ends() {
    let base = Base::new().program(command("node"));
    let modules = Path::new("/usr/share/nodejs");
    let base = if modules.exists() { base.tree(modules) } else { base };
    follow("Node", Some(base.image()), "0");
}

#[test]
fn a_program_in_python_gets_its_secrets_reads_them_again_and_ends() {
    let python = command("python3");
    let library = "import sysconfig; print(sysconfig.get_path('stdlib'), end='')";
    let library = World::new().secret_init().bare().program(["python3", "-c", library]).finishes().succeeds();
    follow("Python", Some(Base::new().program(python).tree(library).image()), "0");
}

#[test]
fn a_program_in_java_gets_its_secrets_reads_them_again_and_ends() {
    let java = command("java").canonicalize().unwrap();
    let home = java.ancestors().nth(2).unwrap();
    let base = Base::new().program(&java).link("java", &java).tree(home).tree(home.join("lib/jvm.cfg"));
    let libraries = ["libjava.so", "libjimage.so", "libnio.so", "libnet.so", "libzip.so", "server/libjvm.so"];
    let base = libraries.iter().fold(base, |base, library| base.program(home.join("lib").join(library)));
    follow("Java", Some(base.image()), "143");
}

#[test]
fn a_program_in_go_gets_its_secrets_reads_them_again_and_ends() {
    follow("Go", None, "0");
}

#[test]
fn a_program_for_the_shell_gets_its_secrets_reads_them_again_and_ends() {
    follow("Shell", Some(Image::base()), "0");
}

// The same without handlers, in a namespace.

/// A program that handles no signal: it says that it is ready, and waits.
fn without_handlers(language: &str, world: &World) -> Start {
    let start = alone(&world.secret_init().in_directory(&world.path));
    match language {
        "Node" => start.program(["node", "-e", "setInterval(() => {}, 60_000); console.log('ready')"]),
        "Python" => start.program(["python3", "-c", "import signal; print('ready', flush=True); signal.pause()"]),
        "Java" => {
            world.file("App.java", JAVA);
            // It warns of the class that handles signals.
            assert_eq!(engine::shell(&world.path, "javac App.java", &[]).code(), 0);
            // It would share a file in /tmp with the one that has its number in another namespace.
            start.program(["java", "-XX:-UsePerfData", "App"])
        }
        "Go" => {
            world.file("main.go", GO);
            engine::shell(&world.path, "GOCACHE=$PWD/.cache CGO_ENABLED=0 go build main.go", &[]).succeeds();
            start.program(["./main"])
        }
        _ => unreachable!("{language}"),
    }
}

const JAVA: &str = r#"
public class App {
    public static void main(String[] arguments) throws InterruptedException {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("closing")));
        if (arguments.length > 0) {
            sun.misc.Signal.handle(new sun.misc.Signal("TERM"), signal -> System.exit(0));
        }
        System.out.println("ready");
        Thread.sleep(Long.MAX_VALUE);
    }
}
"#;

const GO: &str = r#"
package main

import (
	"fmt"
	"time"
)

func main() {
	fmt.Println("ready")
	time.Sleep(time.Hour)
}
"#;

/// Starts it, sends it a signal, and TERM after a signal that it is to survive; gives how it ended.
fn sent(start: &Start, signals: &[i32]) -> Outcome {
    let mut running = start.spawn();
    running.line("ready");
    for &signal in signals {
        send(running.pid_1(), signal);
    }
    running.finishes()
}

/// Each cell of its row of the table of signals.
fn obeys(language: &str, start: &Start) {
    for (signal, expected) in signals(language) {
        let outcome = match expected {
            Some(_) => sent(start, &[signal]),
            // It is written by a thread of its own, which the end would not wait for.
            None if language == "Java" && signal == libc::SIGQUIT => {
                let mut running = start.spawn();
                running.line("ready");
                send(running.pid_1(), signal);
                running.line("Full thread dump");
                send(running.pid_1(), libc::SIGTERM);
                running.finishes()
            }
            None => sent(start, &[signal, libc::SIGTERM]),
        };
        assert_eq!(outcome.code(), expected.unwrap_or(128 + libc::SIGTERM), "{language}: {signal}: {outcome:?}");
        let is_java = language == "Java";
        assert_eq!(outcome.stdout.contains("\nFull thread dump"), is_java && signal == libc::SIGQUIT, "{signal}");
        assert_eq!(outcome.stdout.ends_with("closing\n"), is_java, "{signal}");
        assert_eq!(outcome.stderr.starts_with("SIGQUIT: quit\n"), language == "Go" && signal == libc::SIGQUIT, "{signal}");
    }
    let mut running = start.spawn();
    running.line("ready");
    send(children(running.pid_1())[0], libc::SIGKILL);
    assert_eq!(running.finishes().code(), 128 + libc::SIGKILL);
}

#[test]
fn node_obeys_signals() {
    let world = World::new();
    obeys("Node", &without_handlers("Node", &world));
}

#[test]
fn python_obeys_signals() {
    let world = World::new();
    obeys("Python", &without_handlers("Python", &world));
}

#[test]
fn java_obeys_signals_runs_its_hooks_unless_it_was_told_not_to_and_may_end_with_its_own_code() {
    let world = World::new();
    let start = without_handlers("Java", &world);
    obeys("Java", &start);
    let outcome = sent(&start.clone().program(["java", "-XX:-UsePerfData", "-Xrs", "App"]), &[libc::SIGHUP]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (129, "ready\n"));
    let outcome = sent(&start.program(["java", "-XX:-UsePerfData", "App", "with a handler"]), &[libc::SIGTERM]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "ready\nclosing\n"));
}

#[test]
fn go_obeys_signals() {
    let world = World::new();
    obeys("Go", &without_handlers("Go", &world));
}

#[test]
fn node_listens_for_a_debugger_after_usr1() {
    let world = World::new();
    let mut running = without_handlers("Node", &world).spawn();
    running.line("ready");
    let pid = running.pid_1();
    send(pid, libc::SIGUSR1);
    let debugger = format!(":{:04X} 00000000:0000 0A ", 9229);
    eventually("a debugger", || fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap().contains(&debugger).then_some(()));
    send(pid, libc::SIGTERM);
    assert_eq!(running.finishes().code(), 143);
}

#[test]
fn python_loses_what_it_has_buffered_when_a_signal_ends_it() {
    let world = World::new();
    let start = world.secret_init().program(["python3", "-c", "import os; print('a line'); os.kill(os.getpid(), 15)"]);
    for (start, stdout) in [(start.clone(), ""), (start.variable("PYTHONUNBUFFERED", "1"), "a line\n")] {
        let outcome = start.finishes();
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (143, stdout));
    }
}

/// How a recipe's program ends on TERM when something else has started it. By itself it ends with 0.
fn below<const COUNT: usize>(language: &str, words: [&str; COUNT]) -> i32 {
    let recipe = Recipe::of(language, "myapp");
    recipe.put("token", "t0ken");
    recipe.put("package.json", r#"{ "scripts": { "start": "node app.js" } }"#);
    let start = recipe.secret_init().variable("PASSWORD", "s3cret");
    let start = start.variable("TOKEN_FILE", format!("file:{}", recipe.path("token").display())).variable("HOME", recipe.path(""));
    let mut running = alone(&start.in_directory(recipe.path("")).program(words)).spawn();
    while running.line("") != "password of 6 characters, token of 5" {}
    send(running.pid_1(), libc::SIGTERM);
    running.finishes().code()
}

#[test]
fn what_starts_the_program_and_stays_hides_its_exit_code() {
    assert_eq!(below("Node", ["node", "app.js"]), 0);
    assert_eq!(below("Node", ["sh", "-c", "node app.js; :"]), 143);
    // It does not come with Debian's node.
    if World::new().secret_init().bare().shell("command -v npm").finishes().code() == 0 {
        assert_eq!(below("Node", ["npm", "start"]), 143);
    }
    assert_eq!(below("Go", ["go", "run", "main.go"]), 143);
}

/// A command of a script, which tells of TERM.
const COMMAND: &str =
    "trap 'echo the command got TERM; exit 0' TERM; trap 'exit 0' USR1; echo ready; while :; do sleep 9999 & wait $!; done";

/// A script that runs the command in the foreground, after this beginning.
fn script(world: &World, beginning: &str) -> Start {
    let start = alone(&world.secret_init().variable("COMMAND", COMMAND).listens());
    start.shell(&format!("{beginning} sh -c \"$COMMAND\"; read -r _; echo not reached"))
}

#[test]
fn a_script_that_starts_its_program_by_exec_leaves_the_signals_to_it() {
    let world = World::new();
    world.file("prepare.sh", mentioned("exec \"$@\""));
    let start = world.secret_init().in_directory(&world.path).program(["sh", "prepare.sh", "sh", "-c", COMMAND]);
    let outcome = sent(&alone(&start), &[libc::SIGTERM]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "ready\nthe command got TERM\n"));
}

#[test]
fn a_script_without_a_trap_dies_before_its_command() {
    let outcome = sent(&script(&World::new(), ""), &[libc::SIGTERM]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (143, "ready\nthe command got TERM\n"));
}

#[test]
fn a_script_with_a_trap_waits_for_its_command_unless_the_group_gets_the_signal() {
    let world = World::new();
    let start = script(&world, "trap 'echo trapped; exit 0' TERM;");
    let mut running = start.spawn();
    running.line("ready");
    let pid = running.pid_1();
    send(pid, libc::SIGTERM);
    let shell = children(pid)[0];
    send(children(shell)[0], libc::SIGUSR1);
    let outcome = running.finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "ready\ntrapped\n"));

    let outcome = sent(&start.flag("--group"), &[libc::SIGTERM]);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "ready\nthe command got TERM\ntrapped\n"));
}

// Images with an entrypoint of their own.

const IMAGES: &str = "Images with an entrypoint of their own";

/// As the official images have it: the variable or its file, and not both.
const ENTRYPOINT: &str = r#"#!/bin/sh
[ -z "$POSTGRES_PASSWORD" ] || [ -z "$POSTGRES_PASSWORD_FILE" ] || exit 1
echo "$(id -un): ${POSTGRES_PASSWORD:-no password}, ${POSTGRES_PASSWORD_FILE:-no file}"
[ -z "$POSTGRES_PASSWORD_FILE" ] || echo "in the file: $(cat "$POSTGRES_PASSWORD_FILE")"
exec "$@"
"#;

#[test]
fn an_image_with_an_entrypoint_of_its_own_gets_what_it_expects() {
    let base = Base::new().script("docker-entrypoint.sh", ENTRYPOINT).script("postgres", "#!/bin/sh\nexec sleep 9999\n");
    let base = base.user("postgres", "var/lib/postgresql").image();
    let mut official = Recipe::of(IMAGES, "official").from(&base);
    official.put("Dockerfile", &format!("FROM {}\nSTOPSIGNAL INT\nENTRYPOINT [\"docker-entrypoint.sh\"]\nCMD [\"postgres\"]\n", base.name));
    let official = official.builds("docker build -t official .");
    let mut recipe = Recipe::of(IMAGES, "myimage").from(&official);
    let image = recipe.builds("docker build -t myimage .");
    let start = image.run().secret("password", &recipe.world.file("password", "s3cret\n"));
    let path = "/run/secrets/password";
    for (variables, line) in [
        (vec![("POSTGRES_PASSWORD_FILE", path)], "root: s3cret, no file"),
        (vec![("POSTGRES_PASSWORD_FILE", path), ("SECRET_INIT_SKIP", "POSTGRES_*")], "root: no password, /run/secrets/password"),
        (vec![("POSTGRES_PASSWORD_FILE", "file:/run/secrets/password"), ("SECRET_INIT_USER", "postgres")], "in the file: s3cret"),
    ] {
        let start = variables.iter().fold(start.clone(), |start, (name, value)| start.variable(name, value));
        let container = start.starts();
        container.line(line);
        assert_eq!(container.stops(), 128 + libc::SIGINT);
    }
}

/// As PID 1 with a network of its own.
fn alone(start: &Start) -> Start {
    start.clone().as_pid_1().around(&["unshare", "--net", "sh", "-c", "busybox ip link set lo up && exec \"$@\"", "sh"])
}
