//! A secret is rotated where it is, and the program goes on with the new one: what `docs/recipes.md` shows, with real servers and real programs.

#![cfg(all(feature = "vault", feature = "aws"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "containers/engine.rs"]
mod engine;
#[path = "programs/recipe.rs"]
#[allow(dead_code, reason = "no container is needed here")]
mod recipe;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use engine::host;
use recipe::{Recipe, mentioned};
use serde_json::json;
use support::kubelet::Volume;
use support::servers::ministack::{Keys, MiniStack};
use support::servers::openbao::{self, OpenBao};
use support::servers::postgres::Postgres;
use support::servers::tls::{self, Certificate, pem};
use support::servers::{free_port, installed};
use support::{Outcome, Running, eventually};

/// Where a recipe has its secret files.
fn directory(recipe: &Recipe) -> PathBuf {
    recipe.world.directory()
}

/// secret-init asks its agent.
#[track_caller]
fn refresh(recipe: &Recipe) -> Outcome {
    recipe.secret_init().directory(directory(recipe)).flag("refresh").finishes()
}

/// The program ends by TERM, and secret-init with it.
#[track_caller]
fn ends(running: Running) -> Outcome {
    running.signal(libc::SIGTERM);
    running.finishes()
}

// A password of a database.

/// What the commands of a recipe find: secret-init, the clients, and the database.
fn environment(recipe: &Recipe, postgres: &Postgres) -> String {
    let paths =
        [openbao::binary().parent().unwrap(), installed("clients", "python").parent().unwrap()].map(|path| path.display().to_string());
    let (world, directory) = (recipe.path("").display().to_string(), directory(recipe));
    format!(
        "export PATH={world}:{}:$PATH SECRET_INIT_DIR={} PGHOST=127.0.0.1 PGPORT={}\n",
        paths.join(":"),
        directory.display(),
        postgres.port
    )
}

#[test]
fn a_pool_of_connections_goes_on_with_the_new_password_of_its_database() {
    let (postgres, bao) = (Postgres::start(), OpenBao::plain());
    let admin = |sql: &str| postgres.query(sql).unwrap();
    admin("CREATE ROLE app LOGIN PASSWORD 'first'");
    admin("CREATE DATABASE app");
    bao.kv("app/db", &json!({"password": "first"}));
    bao.policy("app", "path \"secret/data/app/db\" { capabilities = [\"read\"] }");

    let recipe = Recipe::of("A database password", "myapp");
    let [start, rotate] = recipe.commands();
    recipe.put("token", &bao.token(&["app"]));
    let start = start.replace("http://127.0.0.1:8200", &bao.address).replace("secret-init --refresh", "exec secret-init --refresh");
    let (world, environment) = (recipe.path("").display().to_string(), environment(&recipe, &postgres));
    let mut running = recipe.begins(&format!("{environment}export PGAPPNAME=pool\n{start}"));
    running.line("ready");
    // Nobody is to say that nothing failed because nothing was asked: each connection has begun a query since then.
    let works = |what: &str| {
        let now = admin("SELECT clock_timestamp()");
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pool' AND query_start > '{now}'");
        eventually(what, || (admin(&count) == "4").then_some(()));
    };
    works("the pool works");

    let before = admin("SELECT now()");
    let somebody = format!("export BAO_ADDR={} BAO_TOKEN={} HOME={world} PGPASSWORD={}\n", bao.address, bao.root, postgres.password);
    let said = recipe.types(&format!("{environment}{somebody}{rotate}"));
    assert!(said.contains("DB_PASSWORD_FILE") && said.ends_with("1 secret changed, 0 unchanged, 0 failed\n"), "{said}");
    running.line("changed");
    eventually("every connection was made with the new password", || {
        let which = "FROM pg_stat_activity WHERE application_name = 'pool' AND backend_start";
        let counts = admin(&format!("SELECT count(*) FILTER (WHERE backend_start < '{before}'), count(*) {which} IS NOT NULL"));
        let (old, all) = counts.split_once('|').unwrap();
        (old == "0" && all == "4").then_some(())
    });
    assert!(postgres.query_as("app", "first", "SELECT 1").is_err());
    works("the pool goes on");
    let outcome = ends(running);
    assert!(!outcome.stdout.contains("failed:"), "{outcome:?}");
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
}

#[test]
fn a_pool_of_connections_goes_on_with_credentials_that_end() {
    let (postgres, bao) = (Postgres::start(), OpenBao::plain());
    let admin = |sql: &str| postgres.query(sql).unwrap();
    admin("CREATE DATABASE app");
    bao.database(&postgres);
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let role = json!({"db_name": "postgres", "creation_statements": create, "default_ttl": 5, "max_ttl": 10});
    bao.succeeds("POST", "database/roles/app", &role);
    bao.policy("app", "path \"database/creds/app\" { capabilities = [\"read\"] }");

    let recipe = Recipe::of("Credentials that end", "myapp");
    let [start] = recipe.commands();
    let (plain, pool) = (Recipe::of("A database password", "myapp").read("app.py"), mentioned("ConnectionPool(\"service=app\""));
    let program = plain.replace("ConnectionPool(\"dbname=app user=app\", kwargs=login, min_size=4)", &pool);
    assert_ne!(program, plain);
    recipe.put("app.py", &program);
    recipe.put("token", &bao.token(&["app"]));
    let start = start.replace("http://127.0.0.1:8200", &bao.address).replace("secret-init --config", "exec secret-init --config");
    let start = start.replace("/run/secret-init", directory(&recipe).to_str().unwrap());
    let mut running = recipe.begins(&format!("{}export PGAPPNAME=pool\n{start}", environment(&recipe, &postgres)));
    running.line("ready");
    let which = "FROM pg_stat_activity WHERE application_name = 'pool'";
    let user = || admin(&format!("SELECT string_agg(DISTINCT usename, ' ') {which} AND usename IS NOT NULL"));
    let first = user();
    running.line("changed");
    eventually("the first user is gone", || {
        (admin(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{first}'")) == "0").then_some(())
    });
    let (second, now) = (user(), admin("SELECT clock_timestamp()"));
    assert!(first.starts_with("v-") && !second.contains(&first), "{first}, then {second}");
    eventually("each connection goes on", || (admin(&format!("SELECT count(*) {which} AND query_start > '{now}'")) == "4").then_some(()));
    let outcome = ends(running);
    assert!(!outcome.stdout.contains("failed:"), "{outcome:?}");
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
}

// A secret of AWS.

/// A program that shows one of its files at HUP.
const SHOWS: &str = r#"
$| = 1;
sub show { open my $file, "<", "$ENV{SECRET_INIT_DIR}/pg_service.conf" or die; print "has ", join(" ", map { chomp; $_ } <$file>), "\n" }
$SIG{HUP} = \&show;
show;
select undef, undef, undef, 1000 while 1;
"#;

#[test]
fn a_rotation_of_aws_reaches_the_program_when_its_version_is_the_current_one_and_not_before() {
    let aws = MiniStack::start(true);
    let value = |password: &str| json!({"username": "app", "password": password}).to_string();
    let shown = |password: &str| format!("has [app] dbname=app user=app password={password}");
    aws.create_secret("app/database", &value("one"));
    let recipe = Recipe::of("A rotation of AWS", "myapp");
    let start = aws.told(recipe.secret_init(), &Keys::root()).directory(directory(&recipe));
    let start = start.flag("--config").flag(recipe.path("secret-init.yaml")).program(["perl", "-e", SHOWS]);
    let mut running = start.spawn();
    assert_eq!(running.line("has "), shown("one"));

    let current = aws.call("secretsmanager.GetSecretValue", &json!({"SecretId": "app/database"}))["VersionId"].clone();
    let pending = json!({"SecretId": "app/database", "SecretString": value("two"), "VersionStages": ["AWSPENDING"]});
    let pending = aws.call("secretsmanager.PutSecretValue", &pending)["VersionId"].clone();
    let said = refresh(&recipe).succeeds();
    assert!(said.ends_with("\n0 secrets changed, 1 unchanged, 0 failed\n"), "{said}");
    assert!(fs::read_to_string(directory(&recipe).join("pg_service.conf")).unwrap().ends_with("\npassword=one\n"));

    let moved =
        json!({"SecretId": "app/database", "VersionStage": "AWSCURRENT", "MoveToVersionId": pending, "RemoveFromVersionId": current});
    aws.call("secretsmanager.UpdateSecretVersionStage", &moved);
    let said = refresh(&recipe).succeeds();
    assert!(said.ends_with("\n1 secret changed, 0 unchanged, 0 failed\n"), "{said}");
    assert_eq!(running.line("has "), shown("two"));
    let outcome = ends(running);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (128 + libc::SIGTERM, ""));
    assert_eq!(outcome.stdout, format!("{}\n{}\n", shown("one"), shown("two")));
}

// A certificate of nginx.

/// A server behind nginx, whose answer has two parts: the second comes when it is asked for.
struct Backend {
    port: u16,
    /// What was asked, so far as the first part of its answer was sent.
    asked: Receiver<String>,
    go_on: Sender<()>,
}

const PART: usize = 300_000;

impl Backend {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (said, asked) = channel();
        let (go_on, goes_on) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if Self::serve(stream.unwrap(), &said, &goes_on).is_none() {
                    return;
                }
            }
        });
        Self { port, asked, go_on }
    }

    fn serve(mut stream: TcpStream, said: &Sender<String>, goes_on: &Receiver<()>) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * PART).ok()?;
        stream.write_all(&vec![b'a'; PART]).ok()?;
        said.send(String::from_utf8(head).unwrap()).ok()?;
        goes_on.recv().ok()?;
        stream.write_all(&vec![b'b'; PART]).ok()
    }
}

/// nginx as in the recipe, on a port of its own, with the secrets of a folder.
struct Nginx {
    recipe: Recipe,
    running: Running,
    port: u16,
    backend: Backend,
}

impl Nginx {
    /// With another source of the pair, and with these variables.
    fn start(secrets: &Path, others: &[(String, String)], variables: &[(&str, String)]) -> Self {
        let (plain, recipe) = (Recipe::of("nginx", "mynginx"), Recipe::of("A certificate", "mynginx"));
        let (backend, port) = (Backend::start(), free_port());
        let (directory, world) = (directory(&recipe).display().to_string(), recipe.path("").display().to_string());
        let here = |text: &str| {
            text.replace("/run/secret-init/", &format!("{directory}/"))
                .replace("/run/secrets/", &format!("{}/", secrets.display()))
                .replace("/etc/nginx/", &world)
                .replace("/usr/local/bin/", &world)
                .replace("8443", &format!("127.0.0.1:{port}"))
                .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", backend.port))
        };
        // Beside another nginx of this machine.
        let own = format!("pid {world}nginx.pid;\n");
        recipe.put("nginx.conf", &format!("{own}{}", here(&plain.read("nginx.conf")).replace("http {", "http {\n    access_log off;")));
        recipe.put("try.sh", &here(&recipe.read("try.sh")));
        let config = others.iter().fold(recipe.read("secret-init.yaml"), |config, (from, to)| config.replace(from, to));
        recipe.put("secret-init.yaml", &here(&config));
        let start = recipe.secret_init().directory(&directory).flag("--config").flag(recipe.path("secret-init.yaml"));
        let start = variables.iter().fold(start, |start, (name, value)| start.variable(name, value));
        let configuration = recipe.path("nginx.conf");
        let start = start.flag("--log-level=info").program(["nginx", "-c", configuration.to_str().unwrap(), "-g", "daemon off;"]);
        Self { running: start.spawn(), recipe, port, backend }
    }

    /// The certificate that a new connection finds, in PEM.
    fn certificate(&self) -> String {
        let script = format!("openssl s_client -connect 127.0.0.1:{} </dev/null 2>/dev/null | openssl x509", self.port);
        host(Command::new("sh").args(["-c", &script])).finishes().stdout
    }

    #[track_caller]
    fn serves(&self, pair: &Certificate) {
        eventually("nginx serves this certificate", || (self.certificate() == pem(&pair.certificate)).then_some(()));
    }

    /// A download that has begun, and is held by the server behind.
    fn download(&self, ca: &Path) -> (Running, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]).arg(ca).arg(format!("https://127.0.0.1:{}/", self.port));
        let running = host(curl.stdin(Stdio::null()));
        (running, self.backend.asked.recv_timeout(support::DEADLINE).unwrap())
    }

    #[track_caller]
    fn completes(&self, download: Running) {
        self.backend.go_on.send(()).unwrap();
        let body = download.finishes().succeeds();
        assert!(body == format!("{}{}", "a".repeat(PART), "b".repeat(PART)), "{} bytes", body.len());
    }
}

fn pair(certificate: &Path, key: &Path) -> [String; 2] {
    [pem(certificate), pem(key)]
}

fn files(pair: &[String; 2]) -> [(&'static str, &[u8]); 3] {
    [("tls.crt", pair[0].as_bytes()), ("tls.key", pair[1].as_bytes()), ("token", b"t0ken\n")]
}

#[test]
fn nginx_serves_a_renewed_certificate_and_drops_no_download_and_never_serves_a_broken_one() {
    let (authority, world) = (tls::authority(), support::World::new());
    let [first, second, third] = [(); 3].map(|()| authority.server());
    let mut volume = Volume::new(world.path.join("volume"), &files(&pair(&first.certificate, &first.key)));
    let nginx = Nginx::start(&volume.path, &[], &[]);
    nginx.serves(&first);
    let (download, asked) = nginx.download(&authority.ca);
    assert!(asked.contains("Authorization: Bearer t0ken\r\n"), "{asked}");

    volume.swap(&files(&pair(&second.certificate, &second.key)));
    nginx.serves(&second);
    nginx.completes(download);

    // A key that belongs to another certificate.
    volume.swap(&files(&pair(&third.certificate, &second.key)));
    let outcome = refresh(&nginx.recipe);
    assert_eq!(outcome.code(), 65, "{outcome:?}");
    assert!(outcome.stdout.contains("failed: the new files are refused: it ended with 1; the old ones stay"), "{outcome:?}");
    assert_eq!(nginx.certificate(), pem(&second.certificate));
    assert_eq!(fs::read_to_string(directory(&nginx.recipe).join("tls/tls.crt")).unwrap(), pem(&second.certificate));

    volume.swap(&files(&pair(&third.certificate, &third.key)));
    nginx.serves(&third);
    let (download, _) = nginx.download(&authority.ca);
    nginx.completes(download);
    nginx.running.signal(libc::SIGQUIT);
    let outcome = nginx.running.finishes();
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert_eq!(outcome.stderr.matches("the new files are refused").count(), 1, "{outcome:?}");
}

#[test]
fn nginx_serves_a_certificate_that_was_renewed_in_openbao() {
    let (authority, world, bao) = (tls::authority(), support::World::new(), OpenBao::start());
    let [first, second] = [(); 2].map(|()| authority.server());
    let put = |certificate: &Certificate| {
        let [certificate, key] = pair(&certificate.certificate, &certificate.key);
        bao.kv("tls", &json!({"certificate": certificate, "key": key}));
    };
    put(&first);
    world.file("secrets/token", "t0ken");
    let others = [("tls.crt", "certificate"), ("tls.key", "key")]
        .map(|(file, key)| (format!("from: \"file:/run/secrets/{file}\""), mentioned(&format!("from: \"vault:secret/data/tls#{key}"))));
    let variables =
        [("VAULT_ADDR", bao.address.clone()), ("VAULT_CACERT", bao.ca.display().to_string()), ("VAULT_TOKEN", bao.root.clone())];
    let nginx = Nginx::start(&world.path.join("secrets"), &others, &variables);
    nginx.serves(&first);
    let (download, _) = nginx.download(&authority.ca);
    put(&second);
    let said = refresh(&nginx.recipe).succeeds();
    assert!(said.contains("tls/tls.crt, tls/tls.key ") && said.ends_with("\n1 secret changed, 1 unchanged, 0 failed\n"), "{said}");
    nginx.serves(&second);
    nginx.completes(download);
    nginx.running.signal(libc::SIGQUIT);
    assert_eq!(nginx.running.finishes().code(), 0);
}

#[test]
fn a_pair_that_is_replaced_again_and_again_is_never_delivered_mixed() {
    // Large, so that it takes its time to read them.
    const SIZE: usize = 1_000_000;
    let world = support::World::new();
    let [one, other] = ["tls.crt", "tls.key"];
    let content = |number: u64| format!("{}{number:>8}", " ".repeat(SIZE - 8));
    let mut volume = Volume::new(world.path.join("volume"), &[(one, content(0).as_bytes()), (other, content(0).as_bytes())]);
    let line = |name: &str| format!("  - {{ path: tls/{name}, from: \"file:{}/{name}\", group: tls }}\n", volume.path.display());
    let config = world.file("c.yaml", format!("files:\n{}{}rotation: {{ on_change: none }}\n", line(one), line(other)));
    let start = world.secret_init().directory(world.directory()).flag("--config").flag(config);
    let mut running = start.program(["perl", "-e", "$| = 1; print qq(ready\\n); sleep 1 while 1"]).spawn();
    running.line("ready");
    let group = world.directory().join("tls");
    let mut seen = BTreeSet::new();
    let mut look = || {
        // What was opened once stays as it is.
        let generation = group.join(fs::read_link(group.join("..data")).unwrap());
        let [one, other] = [one, other].map(|name| fs::read(generation.join(name)).unwrap().split_off(SIZE - 8));
        assert_eq!(one, other);
        let number = String::from_utf8(one).unwrap().trim().parse::<u64>().unwrap();
        seen.insert(number);
        number
    };
    for number in 1..=100 {
        let content = content(number);
        volume.swap(&[(one, content.as_bytes()), (other, content.as_bytes())]);
        // About when the one before is read, and at times so that it can be read.
        let pause = if number % 10 == 0 { 250_000 } else { 18_000 + number * 7919 % 8_000 };
        let until = Instant::now() + Duration::from_micros(pause);
        while Instant::now() < until {
            look();
            // Not a wait: the reader leaves some of the processor to those it reads from.
            thread::sleep(Duration::from_millis(1));
        }
    }
    eventually("the last pair is there", || (look() == 100).then_some(()));
    assert!(seen.len() > 4, "{seen:?}");
    running.signal(libc::SIGTERM);
    assert_eq!(running.finishes().code(), 128 + libc::SIGTERM);
}

// Everything.

/// A program that reads all its files at HUP.
const READER: &str = r#"
$| = 1;
sub content { open my $file, "<", "$ENV{SECRET_INIT_DIR}/$_[0]" or die; local $/; my $text = <$file>; $text =~ s/\n//g; $text }
sub show { print "has ", join(" ", map { content($_) } qw(token mail signing-key database payments)), "\n" }
$SIG{HUP} = \&show;
show;
select undef, undef, undef, 1000 while 1;
"#;

#[test]
fn after_a_leak_everything_is_rotated_by_one_command_that_tells_what_changed_and_what_failed() {
    let (postgres, bao, aws) = (Postgres::start(), OpenBao::plain(), MiniStack::start(true));
    bao.database(&postgres);
    let recipe = Recipe::of("Everything at once", "myapp");
    let secrets = recipe.path("secrets");
    let rotate = |number: u32| {
        recipe.put("secrets/token", &format!("token-{number}\n"));
        recipe.put("secrets/.env", &format!("MAIL_PASSWORD=mail-{number}\n"));
        bao.kv("app", &json!({"key": format!("signing-{number}\n")}));
    };
    rotate(1);
    aws.create_secret("app/payments", "{\"key\":\"payments-1\"}");
    let yaml = recipe.read("secret-init.yaml").replace("/run/secrets", secrets.to_str().unwrap());
    recipe.put("secret-init.yaml", &yaml);
    let start = bao.told(aws.told(recipe.secret_init(), &Keys::root())).variable("VAULT_TOKEN", &bao.root);
    let start = start.directory(directory(&recipe)).flag("--config").flag(recipe.path("secret-init.yaml")).program(["perl", "-e", READER]);
    let mut running = start.spawn();
    let first = Shown::of(&running.line("has "));
    assert!(first.has(1, 1), "{first:?}");

    let [command, table] = recipe.commands();
    let command = command.trim().replace("secret-init", &recipe.path("secret-init").display().to_string());
    let refresh = || {
        let script = format!("export SECRET_INIT_DIR={}\n{command}", directory(&recipe).display());
        let outcome = recipe.begins(&script).finishes();
        Outcome { stdout: files_as_changed(&outcome.stdout), ..outcome }
    };
    rotate(2);
    aws.put_secret("app/payments", "{\"key\":\"payments-2\"}");
    let outcome = refresh();
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert!(outcome.stdout.ends_with("\n5 secrets changed, 0 unchanged, 0 failed\n"), "{outcome:?}");
    let second = Shown::last(&mut running, |shown| shown.has(2, 2));
    assert_ne!(first.user, second.user);
    postgres.query_as(&second.user, &second.password, "SELECT 1").unwrap();

    // Of one the store has nothing more to give.
    rotate(3);
    aws.call("secretsmanager.DeleteSecret", &json!({"SecretId": "app/payments", "RecoveryWindowInDays": 7}));
    let outcome = refresh();
    assert_eq!(outcome.code(), 66, "{outcome:?}");
    let shown = table.replace("/run/secrets", secrets.to_str().unwrap());
    let words = |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(words(&outcome.stdout), words(&shown));
    let third = Shown::last(&mut running, |shown| shown.has(3, 2));
    assert_ne!(second.user, third.user);
    let outcome = ends(running);
    assert_eq!(outcome.code(), 128 + libc::SIGTERM);
    assert_eq!(outcome.stderr.matches("the program keeps what it has").count(), 1, "{}", outcome.stderr);
}

/// A report of `refresh`, in which no file is unchanged: what happened to it may have been seen a moment before the command asked.
fn files_as_changed(report: &str) -> String {
    let is_seen = |line: &str| line.ends_with(" unchanged") && [" file:", " dotenv:"].iter().any(|scheme| line.contains(scheme));
    let seen = report.lines().filter(|line| is_seen(line)).count();
    let lines = report.lines().map(|line| if is_seen(line) { line.replace("unchanged", "changed") } else { line.to_owned() });
    let report: String = lines.map(|line| line + "\n").collect();
    (2..=5).fold(report, |report, changed| {
        report.replace(&format!("\n{changed} secrets changed, {seen} "), &format!("\n{} secrets changed, 0 ", changed + seen))
    })
}

/// What the program has.
#[derive(Debug)]
struct Shown {
    line: String,
    user: String,
    password: String,
}

impl Shown {
    fn of(line: &str) -> Self {
        let (user, password) = line.split(' ').nth(4).unwrap().split_once(':').unwrap();
        Self { user: user.to_owned(), password: password.to_owned(), line: line.to_owned() }
    }

    /// The others have this number, and what is at AWS that one.
    fn has(&self, number: u32, at_aws: u32) -> bool {
        let beginning = format!("has token-{number} mail-{number} signing-{number} ");
        self.line.starts_with(&beginning) && self.line.ends_with(&format!(" payments-{at_aws}"))
    }

    /// Several secrets may come one after the other.
    fn last(running: &mut Running, is_it: impl Fn(&Self) -> bool) -> Self {
        loop {
            let shown = Self::of(&running.line("has "));
            if is_it(&shown) {
                return shown;
            }
        }
    }
}
