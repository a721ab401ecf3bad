//! What has an end: credentials of a real database, the logins that they came with, passwords that a store changes by itself, and the stages of AWS. The program is a
//! client that logs in again and again, and may never fail.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{BAO, Relay, Watched, container};
use crate::support::servers::faults::{Answer, Faults};
use crate::support::servers::ministack::{Keys, MiniStack};
use crate::support::servers::postgres::Postgres;
use crate::support::{Start, World, eventually, send};

/// A database whose users are made by `database/` of [`BAO`].
static POSTGRES: LazyLock<Postgres> = LazyLock::new(|| {
    let postgres = Postgres::start();
    BAO.mount("database", &json!({"type": "database"}));
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", postgres.port);
    let config = json!({"plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*", "username": "postgres",
        "password": postgres.password});
    BAO.succeeds("POST", "database/config/postgres", &config);
    postgres
});

/// Tells each user that its file names, once it has logged in, and whatever goes wrong. It ends with 0 at TERM.
const CLIENT: &str = r#"
$| = 1;
use Time::HiRes "time";
my ($ends, $last) = (0, "");
$SIG{HUP} = sub {};
$SIG{TERM} = sub { $ends = 1 };
print "runs\n";
until ($ends) {
    open my $file, "<", $ENV{A_FILE} or die $!;
    (my $user, $ENV{PGPASSWORD}) = split / /, <$file>;
    my $began = time;
    my $answer = `psql -X -tAq "host=127.0.0.1 port=$ENV{PORT} user=$user dbname=postgres" -c "SELECT 1" 2>&1`;
    if ($answer ne "1\n") { print "user failed after ", time - $began, " s at ", time, ": $answer" } elsif ($user ne $last) { print "user $user\n" }
    $last = $user;
    select undef, undef, undef, 0.05;
}
print "TERM\n";
"#;

/// A role whose users live so many seconds, and so many at most.
pub fn role(name: &str, ttl: u64, longest: u64) {
    LazyLock::force(&POSTGRES);
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    let body = json!({"db_name": "postgres", "creation_statements": create, "default_ttl": ttl, "max_ttl": longest});
    BAO.succeeds("POST", &format!("database/roles/{name}"), &body);
}

/// A start with a login whose tokens have these properties, which may make users of the role of the same name.
fn logged_in(world: &World, name: &str, mut properties: Value) -> Start {
    BAO.auth(name, "approle");
    BAO.policy(name, &format!("path \"database/creds/{name}\" {{ capabilities = [\"read\"] }}"));
    properties["token_policies"] = json!([name]);
    BAO.succeeds("POST", &format!("auth/{name}/role/app"), &properties);
    BAO.succeeds("POST", &format!("auth/{name}/role/app/role-id"), &json!({"role_id": name}));
    BAO.succeeds("POST", &format!("auth/{name}/role/app/custom-secret-id"), &json!({"secret_id": "of-the-tests"}));
    let start = container(world).variable("VAULT_ADDR", &BAO.address).variable("VAULT_AUTH_METHOD", "approle");
    start.variable("VAULT_PATH", name).variable("VAULT_ROLE_ID", name).variable("VAULT_SECRET_ID", "of-the-tests")
}

/// A client with a user of this role.
fn client(world: World, start: Start, role: &str) -> Watched {
    let file = format!("${{vault:database/creds/{role}#username}} ${{vault:database/creds/{role}#password}}");
    let start = start.variable("A_FILE", file).variable("PORT", POSTGRES.port.to_string()).flag("--refresh=24h");
    // It tells when what was done.
    let start = start.flag("--audit").flag(world.path.join("audit"));
    Watched::of(world, start.program(["perl", "-e", CLIENT]))
}

/// The next user that the client had, which never failed.
#[track_caller]
fn next_user(watched: &mut Watched) -> String {
    let line = watched.running.line("user");
    assert!(!line.contains("failed"), "{line}\n{}", std::fs::read_to_string(watched.world.path.join("audit")).unwrap());
    line
}

/// TERM ends the client, which never failed.
#[track_caller]
fn ends(mut watched: Watched) -> String {
    send(watched.running.pid_1(), libc::SIGTERM);
    watched.running.line("TERM");
    let outcome = watched.running.finishes();
    assert!(outcome.code() == 0 && !outcome.stdout.contains("failed"), "{outcome:?}");
    outcome.stderr
}

pub fn made(role: &str) -> usize {
    BAO.requests(&format!("database/creds/{role}")).len()
}

fn logins(name: &str) -> usize {
    BAO.requests(&format!("auth/{name}/login")).len()
}

fn lasts(since: Instant, seconds: u64) {
    eventually("some time is over", || (since.elapsed() >= Duration::from_secs(seconds)).then_some(()));
}

// Leases.

#[test]
fn a_client_can_log_in_at_any_time_while_its_leases_come_and_go() {
    role("client", 4, 12);
    let (world, began) = (World::new(), Instant::now());
    let start = container(&world).variable("VAULT_ADDR", &BAO.address).variable("VAULT_TOKEN", "root");
    let mut watched = client(world, start, "client");
    let users: Vec<String> = (0..3).map(|_| next_user(&mut watched)).collect();
    // Renewed, and not made anew each time.
    assert!(began.elapsed() > Duration::from_secs(18), "{users:?} in {:?}", began.elapsed());
    assert_eq!(made("client"), 3);
    watched.is_well();
    let audit = std::fs::read_to_string(watched.world.path.join("audit")).unwrap();
    let renewed = r#""event":"renewed","names":["A_FILE"],"reference":"vault:database/creds/client","store":"vault","outcome":"ok""#;
    assert!(audit.matches(renewed).count() >= 3, "{audit}");
    assert_eq!(ends(watched), "");
}

#[test]
fn a_lease_goes_on_as_long_as_its_login_can_be_renewed() {
    role("renewed", 3600, 7200);
    let (world, began) = (World::new(), Instant::now());
    let start = logged_in(&world, "renewed", json!({"token_ttl": 3}));
    let mut watched = client(world, start, "renewed");
    next_user(&mut watched);
    lasts(began, 9);
    assert_eq!((made("renewed"), logins("renewed")), (1, 1));
    watched.is_well();
    assert_eq!(ends(watched), "");
}

/// A login that ends takes its leases with it: before that there is another, with leases of its own.
#[track_caller]
fn outlives_its_logins(name: &'static str, properties: Value) {
    role(name, 3600, 7200);
    let world = World::new();
    let start = logged_in(&world, name, properties);
    let mut watched = client(world, start, name);
    for _ in 0..3 {
        next_user(&mut watched);
    }
    assert_eq!((made(name), logins(name)), (3, 3));
    watched.is_well();
    assert_eq!(ends(watched), "");
}

#[test]
fn a_login_that_lasts_no_longer_is_repeated_before_it_takes_its_leases_along() {
    outlives_its_logins("capped", json!({"token_ttl": 6, "token_max_ttl": 6}));
}

#[test]
fn a_login_that_cannot_be_renewed_is_repeated_before_it_takes_its_leases_along() {
    // A lease of such a login ends with it, to the second: with fewer of them there would be no telling which of the two comes first.
    outlives_its_logins("batch", json!({"token_ttl": 8, "token_type": "batch"}));
}

#[test]
fn a_lease_that_was_revoked_is_followed_by_another() {
    role("cut", 3, 3600);
    let world = World::new();
    let start = container(&world).variable("VAULT_ADDR", &BAO.address).variable("VAULT_TOKEN", "root");
    let mut watched = client(world, start, "cut");
    let first = next_user(&mut watched);
    BAO.succeeds("POST", "sys/leases/revoke-prefix/database/creds/cut", &json!({}));
    // Until the next renewal nobody knows.
    let second = eventually("another user is there", || Some(watched.running.line("user")).filter(|line| !line.contains("failed")));
    assert_ne!(first, second);
    assert_eq!(made("cut"), 2);
}

#[test]
fn leases_go_on_when_the_agent_dies_and_none_is_made_anew() {
    role("killed", 5, 3600);
    let world = World::new();
    let start = logged_in(&world, "killed", json!({"token_ttl": 5}));
    let mut watched = client(world, start, "killed");
    next_user(&mut watched);
    let first = watched.agent();
    send(first, libc::SIGKILL);
    let began = Instant::now();
    eventually("another is there", || Some(watched.agent()).filter(|&agent| agent != first));
    lasts(began, 11);
    assert_eq!((made("killed"), logins("killed")), (1, 1));
    watched.is_well();
    let stderr = ends(watched);
    assert!(stderr.matches("warning").count() == 1 && stderr.contains("another takes its place"), "{stderr}");
}

#[test]
fn a_lease_that_cannot_be_renewed_because_the_store_is_away_is_called_stale_until_it_can() {
    role("unsure", 6, 3600);
    let (relay, world) = (Relay::to(&BAO.address), World::new());
    let start = container(&world).variable("VAULT_ADDR", format!("http://127.0.0.1:{}", relay.port)).variable("VAULT_TOKEN", "root");
    let mut watched = client(world, start, "unsure");
    let user = next_user(&mut watched);
    // There is nobody.
    relay.leads_to("http://127.0.0.1:1");
    eventually("it is stale", || (watched.metric("secret_init_stale_secrets") == "1").then_some(()));
    relay.leads_to(&BAO.address);
    eventually("it is well", || (watched.metric("secret_init_stale_secrets") == "0").then_some(()));
    watched.is_well();
    assert_eq!((made("unsure"), user.is_empty()), (1, false));
    let stderr = ends(watched);
    assert!(stderr.matches("the program keeps what it has").count() == 1 && stderr.contains("database/creds/unsure"), "{stderr}");
}

// The end.

/// Whether a login with this policy is known to the server.
fn is_logged_in(policy: &str) -> bool {
    let (_, answer) = BAO.request("LIST", "auth/token/accessors", &Value::Null);
    let accessors: Vec<Value> = answer["data"]["keys"].as_array().unwrap().clone();
    accessors.iter().any(|accessor| {
        let (_, answer) = BAO.request("POST", "auth/token/lookup-accessor", &json!({"accessor": accessor}));
        answer["data"]["policies"].as_array().is_some_and(|policies| policies.contains(&json!(policy)))
    })
}

pub fn users() -> String {
    POSTGRES.query("SELECT rolname FROM pg_roles").unwrap()
}

#[test]
fn what_was_lent_is_given_back_at_the_end() {
    role("back", 3600, 7200);
    let world = World::new();
    let start = logged_in(&world, "back", json!({"token_ttl": 3600})).flag("--revoke-on-exit");
    let mut watched = client(world, start, "back");
    let user = next_user(&mut watched).replace("user ", "");
    assert!(is_logged_in("back") && users().contains(&user));
    let began = Instant::now();
    assert_eq!(ends(watched), "");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!is_logged_in("back"));
    // The server ends leases in its own time.
    eventually("the user is gone", || (!users().contains(&user)).then_some(()));
}

#[test]
fn without_being_asked_for_nothing_is_given_back() {
    role("kept", 3600, 7200);
    let world = World::new();
    let start = logged_in(&world, "kept", json!({"token_ttl": 3600}));
    let mut watched = client(world, start, "kept");
    let user = next_user(&mut watched).replace("user ", "");
    assert_eq!(ends(watched), "");
    assert!(is_logged_in("kept") && users().contains(&user));
}

#[test]
fn a_store_that_hangs_does_not_keep_a_container_from_its_end() {
    role("hung", 3600, 7200);
    let (world, relay, hung) = (World::new(), Relay::to(&BAO.address), Faults::always(Answer::silence()));
    let start = logged_in(&world, "hung", json!({"token_ttl": 3600})).flag("--revoke-on-exit");
    let start = start.variable("VAULT_ADDR", format!("http://127.0.0.1:{}", relay.port));
    let mut watched = client(world, start, "hung");
    next_user(&mut watched);
    relay.leads_to(&hung.address);
    let began = Instant::now();
    let said = ends(watched);
    assert!(!hung.requests().is_empty());
    // It is Docker's ten seconds that all has to fit into.
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    assert!(said.contains("what was lent could not be given back"), "{said}");
}

// What a store changes by itself.

#[test]
fn a_static_role_is_told_of_within_seconds_of_its_rotation() {
    POSTGRES.query("CREATE ROLE turning LOGIN").unwrap();
    let body = json!({"db_name": "postgres", "username": "turning", "rotation_period": "8s"});
    BAO.succeeds("POST", "database/static-roles/turning", &body);
    let world = World::new();
    let start = container(&world).variable("VAULT_ADDR", &BAO.address).variable("VAULT_TOKEN", "root").flag("--refresh=24h");
    let start = start.variable("A_FILE", "vault:database/static-creds/turning#password");
    let mut watched = Watched::of(world, start.program(["perl", "-e", crate::rig::PROGRAM]));
    let mut last = watched.first.clone();
    for number in 1..=2 {
        if number == 2 {
            // The next one knows when it is to look.
            send(watched.agent(), libc::SIGKILL);
        }
        let line = watched.running.line("HUP");
        let password = line.strip_prefix(&format!("HUP {number} ")).unwrap_or_else(|| panic!("{line}")).to_owned();
        let left = BAO.succeeds("GET", "database/static-creds/turning", &Value::Null)["data"]["ttl"].as_u64().unwrap();
        // The old one is good no more, so every second counts: eight from one to the next.
        assert!(left >= 4, "{left} s left, {number}");
        assert_eq!(POSTGRES.query_as("turning", &password, "SELECT 1").unwrap(), "1");
        assert_ne!(password, last);
        last = password;
    }
    watched.is_well();
    watched.ends(2);
}

// AWS.

static STACK: LazyLock<MiniStack> = LazyLock::new(|| MiniStack::start(true));

#[test]
fn a_version_that_is_pending_is_delivered_when_it_is_the_current_one_and_so_is_one_before() {
    STACK.create_secret("turning", "one");
    let current = || STACK.call("secretsmanager.GetSecretValue", &json!({"SecretId": "turning"}))["VersionId"].clone();
    let moves = |to: &Value| {
        let body = json!({"SecretId": "turning", "VersionStage": "AWSCURRENT", "MoveToVersionId": to, "RemoveFromVersionId": current()});
        STACK.call("secretsmanager.UpdateSecretVersionStage", &body);
    };
    let (world, first) = (World::new(), current());
    let start = STACK.told(container(&world), &Keys::root()).variable("A_FILE", "aws-sm:turning");
    let mut watched = Watched::start(world, start, "one");
    let before = watched.file();
    let pending = json!({"SecretId": "turning", "SecretString": "two", "VersionStages": ["AWSPENDING"]});
    let second = STACK.call("secretsmanager.PutSecretValue", &pending)["VersionId"].clone();
    for _ in 0..3 {
        let refresh = watched.refresh();
        assert!(refresh.code() == 0 && refresh.stdout.contains(" unchanged"), "{refresh:?}");
        assert_eq!(watched.file(), before);
    }
    moves(&second);
    watched.hears(1, "two");
    // Back to what is the previous one by now.
    moves(&first);
    watched.hears(2, "one");
    assert_eq!(watched.ends(2), "");
}

#[test]
fn a_parameter_that_was_removed_and_made_anew_is_another_although_its_number_is_the_same() {
    STACK.put_parameter("/anew", "String", "one");
    let world = World::new();
    let start = STACK.told(container(&world), &Keys::root()).variable("A_FILE", "aws-ssm:/anew");
    let mut watched = Watched::start(world, start, "one");
    STACK.call("AmazonSSM.DeleteParameter", &json!({"Name": "/anew"}));
    for _ in 0..3 {
        watched.stays(66, "");
    }
    STACK.put_parameter("/anew", "String", "two");
    watched.hears(1, "two");
    watched.ends(1);
}
