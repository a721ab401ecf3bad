//! Logins and leases that end: renewed, repeated, revoked and handed on, with the real server, a real database, and AWS as far as the emulator goes. All terms are
//! of seconds, so nothing here waits long for an end.

#![cfg(all(feature = "vault", feature = "aws"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use secret_init::reference::{Reference, Scheme};
use secret_init::secret::Version;
use secret_init::store::{
    self, Auth, Failure, FailureKind, Fetched, Instance, Lease, Life, Renew, Settings, Store, Term, Variables, Wanted,
};
use serde_json::{Value, json};
use support::servers::faults::{Answer, Faults};
use support::servers::ministack::{MiniStack, REGION};
use support::servers::openbao::OpenBao;
use support::servers::postgres::Postgres;
use support::{World, eventually};

static POSTGRES: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// One server for all tests. Each test has names of its own in it.
static BAO: LazyLock<OpenBao> = LazyLock::new(|| {
    let bao = OpenBao::plain();
    database(&bao, "", &POSTGRES);
    bao
});

/// The secrets engine `database/` in a namespace, empty or with a slash at its end.
fn database(bao: &OpenBao, namespace: &str, postgres: &Postgres) {
    bao.succeeds("POST", &format!("{namespace}sys/mounts/database"), &json!({"type": "database"}));
    let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", postgres.port);
    let config = json!({"plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*", "username": "postgres",
        "password": postgres.password});
    bao.succeeds("POST", &format!("{namespace}database/config/postgres"), &config);
}

/// A role that makes users of the database for so many seconds, and for at most so many.
fn role(bao: &OpenBao, role: &str, ttl: u64, longest: u64) {
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'";
    let body = json!({"db_name": "postgres", "creation_statements": create, "default_ttl": ttl, "max_ttl": longest});
    bao.succeeds("POST", role, &body);
}

/// A login by `AppRole` at `auth/NAME`, whose tokens have these properties, and its configuration.
fn approle(world: &World, name: &str, paths: &[&str], properties: Value) -> Auth {
    BAO.auth(name, "approle");
    let lines: Vec<String> = paths.iter().map(|path| format!("path \"{path}\" {{ capabilities = [\"read\", \"update\"] }}")).collect();
    BAO.policy(name, &lines.join("\n"));
    let mut body = properties;
    body["token_policies"] = json!([name]);
    BAO.succeeds("POST", &format!("auth/{name}/role/app"), &body);
    let role_id = BAO.succeeds("GET", &format!("auth/{name}/role/app/role-id"), &Value::Null)["data"]["role_id"].clone();
    let secret_id = BAO.succeeds("POST", &format!("auth/{name}/role/app/secret-id"), &json!({}))["data"]["secret_id"].clone();
    Auth {
        method: "approle".to_owned(),
        mount: Some(name.to_owned()),
        role_id: Some(role_id.as_str().unwrap().to_owned()),
        secret_id_file: Some(world.file("secret-id", secret_id.as_str().unwrap()).display().to_string()),
        ..Auth::default()
    }
}

/// A token with these properties.
fn token(properties: &Value) -> String {
    BAO.succeeds("POST", "auth/token/create", properties)["auth"]["client_token"].as_str().unwrap().to_owned()
}

/// The store, with this login.
fn store(auth: Auth) -> Box<dyn Store> {
    let instance = Instance {
        name: "vault".to_owned(),
        scheme: Scheme::Vault,
        place: String::new(),
        address: Some(BAO.address.clone()),
        namespace: None,
        region: None,
        ca_file: None,
        auth: Some(auth),
    };
    (store::row(Scheme::Vault).unwrap().open)(&Settings::default(), Some(&instance)).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// The store of a row, with these variables.
fn store_by(scheme: Scheme, variables: &[(&str, &str)]) -> Box<dyn Store> {
    let variables = Variables::of(variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
    let settings = Settings { variables, ..Settings::default() };
    (store::row(scheme).unwrap().open)(&settings, None).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// The store, with this token.
fn store_of(token: &str) -> Box<dyn Store> {
    store_by(Scheme::Vault, &[("VAULT_ADDR", &BAO.address), ("VAULT_TOKEN", token)])
}

fn with_token_file(path: &std::path::Path, creation_path: Option<&str>) -> Auth {
    let token_file = Some(path.display().to_string());
    Auth { method: "token".to_owned(), token_file, creation_path: creation_path.map(str::to_owned), ..Auth::default() }
}

fn renewing(store: &dyn Store) -> &dyn Renew {
    store.renewing().unwrap()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn wanted(reference: &str) -> Wanted {
    Wanted { reference: Reference::parse(reference.as_bytes()).unwrap(), since: None }
}

fn fetch(store: &dyn Store, references: &[&str]) -> Vec<Result<Fetched, Failure>> {
    let wanted: Vec<Wanted> = references.iter().map(|reference| wanted(reference)).collect();
    run(store.fetch(&wanted))
}

/// A secret, how it is called in this state, and how long it is good for.
#[track_caller]
fn read(store: &dyn Store, reference: &str) -> (Value, Version, Life) {
    match fetch(store, &[reference]).remove(0) {
        Ok(Fetched::New { content, version, life }) => {
            let text = store::select(&content, None).unwrap();
            (serde_json::from_slice(text.expose()).unwrap(), version, life)
        }
        other => panic!("{reference}: {other:?}"),
    }
}

/// A user of the database, and its lease.
#[track_caller]
fn lend(store: &dyn Store, reference: &str) -> (User, Lease) {
    let (value, _, life) = read(store, reference);
    let Life::Leased(lease) = life else { panic!("{reference}: {life:?}") };
    (User { name: value["username"].as_str().unwrap().to_owned(), password: value["password"].as_str().unwrap().to_owned() }, lease)
}

struct User {
    name: String,
    password: String,
}

impl User {
    fn is_there(&self) -> bool {
        POSTGRES.query_as(&self.name, &self.password, "SELECT 1").is_ok()
    }
}

/// How long a term is, to the second, and whether the store would make it longer.
fn seconds(term: Option<Term>) -> Option<(u64, bool)> {
    term.map(|Term { duration, is_renewable }| (duration.as_millis().div_ceil(1000).try_into().unwrap(), is_renewable))
}

fn logins(mount: &str) -> usize {
    BAO.requests(&format!("auth/{mount}/login")).len()
}

// Leases.

#[test]
fn a_lease_is_renewed_until_the_longest_time_that_it_can_have() {
    role(&BAO, "database/roles/longest", 2, 5);
    let store = store_of("root");
    let (user, lease) = lend(&*store, "vault:database/creds/longest");
    let begun = Instant::now();
    assert_eq!(lease.term, Term { duration: Duration::from_secs(2), is_renewable: true });
    let renew = || run(renewing(&*store).renew(&lease.id, Duration::from_secs(2)));
    let last = eventually("the server makes it no longer", || {
        let term = renew().unwrap();
        assert!(user.is_there());
        (term.duration < Duration::from_secs(2)).then_some(term)
    });
    assert!(begun.elapsed() > Duration::from_secs(2), "{last:?} after {:?}", begun.elapsed());
    // While it is being revoked the engine may be the one that fails.
    let failure = eventually("the lease is over", || renew().err().filter(|failure| !failure.is_temporary()));
    assert_eq!(failure.kind, FailureKind::NotFound, "{failure:?}");
    assert_eq!(failure.cause, "the lease cannot be renewed (400)");
    eventually("the user is gone", || (!user.is_there()).then_some(()));
}

#[test]
fn a_renewal_that_the_database_fails_or_that_the_server_does_not_answer_may_be_tried_again() {
    let postgres = Postgres::start();
    let mut bao = OpenBao::plain();
    database(&bao, "", &postgres);
    role(&bao, "database/roles/away", 60, 120);
    let store = store_by(Scheme::Vault, &[("VAULT_ADDR", &bao.address), ("VAULT_TOKEN", "root")]);
    let (_, lease) = lend(&*store, "vault:database/creds/away");
    let renew = || run(renewing(&*store).renew(&lease.id, Duration::from_mins(1))).unwrap_err();
    drop(postgres);
    let failure = renew();
    assert!(failure.is_temporary() && failure.cause == "the engine cannot renew the lease now (400)", "{failure:?}");
    bao.stop();
    let failure = renew();
    assert!(failure.is_temporary() && failure.cause.ends_with(": connection refused"), "{failure:?}");
}

#[test]
fn a_lease_of_another_namespace_is_renewed_and_ended_there() {
    BAO.succeeds("POST", "sys/namespaces/leases", &json!({}));
    database(&BAO, "leases/", &POSTGRES);
    role(&BAO, "leases/database/roles/app", 60, 120);
    let store = store_of("root");
    for reference in ["vault:database/creds/app?namespace=leases", "vault:leases/database/creds/app"] {
        let (user, lease) = lend(&*store, reference);
        let term = run(renewing(&*store).renew(&lease.id, Duration::from_secs(90))).unwrap();
        assert_eq!(term.duration, Duration::from_secs(90), "{reference}");
        run(renewing(&*store).revoke(std::slice::from_ref(&lease.id))).unwrap();
        eventually("the user is gone", || (!user.is_there()).then_some(()));
    }
    // There the policy default of the login says nothing.
    let read = "path \"leases/database/creds/app\" { capabilities = [\"read\"] }\n";
    BAO.policy("leases", read);
    let store = store_of(&token(&json!({"policies": ["leases"]})));
    let (_, lease) = lend(&*store, "vault:database/creds/app?namespace=leases");
    let renew = || run(renewing(&*store).renew(&lease.id, Duration::from_secs(90)));
    let failure = renew().unwrap_err();
    assert_eq!((failure.kind, failure.cause.as_str()), (FailureKind::Denied, "the lease may not be renewed (403)"));
    BAO.policy("leases", &format!("{read}path \"leases/sys/leases/renew\" {{ capabilities = [\"update\"] }}"));
    assert_eq!(renew().unwrap().duration, Duration::from_secs(90));
}

#[test]
fn a_static_role_tells_when_its_password_is_changed_next_and_is_the_same_until_then() {
    POSTGRES.query("CREATE ROLE changing LOGIN").unwrap();
    let body = json!({"db_name": "postgres", "username": "changing", "rotation_period": "5s"});
    BAO.succeeds("POST", "database/static-roles/changing", &body);
    let store = store_of("root");
    let reference = "vault:database/static-creds/changing";
    let (value, since, life) = eventually("there are two seconds left", || {
        let Ok(Fetched::New { content, version, life }) = fetch(&*store, &[reference]).remove(0) else { return None };
        let value: Value = serde_json::from_slice(store::select(&content, None).unwrap().expose()).unwrap();
        (value["ttl"].as_u64().unwrap() >= 3).then_some((value, version, life))
    });
    assert_eq!(life, Life::Rotated(Duration::from_secs(value["ttl"].as_u64().unwrap())));
    let again = [Wanted { since: Some(since), ..wanted(reference) }];
    let mut same = 0;
    let changed = eventually("the password is changed", || match run(store.fetch(&again)).remove(0) {
        Ok(Fetched::Unchanged) => {
            same += 1;
            None
        }
        Ok(Fetched::New { content, .. }) => Some(content),
        // In the last second there is none, and while it is changed the server may fail.
        Err(failure) => {
            assert!(failure.is_temporary(), "{failure:?}");
            None
        }
    });
    assert!(same > 1, "{same}");
    let changed: Value = serde_json::from_slice(store::select(&changed, None).unwrap().expose()).unwrap();
    assert_ne!(changed["password"], value["password"]);
}

#[test]
fn an_identity_token_is_one_that_ends_and_that_each_read_makes_anew() {
    BAO.auth("people", "userpass");
    BAO.policy("people", "path \"identity/oidc/token/app\" { capabilities = [\"read\"] }");
    BAO.succeeds("POST", "auth/people/users/me", &json!({"password": "pass", "token_policies": ["people"]}));
    BAO.succeeds("POST", "identity/oidc/key/app", &json!({"allowed_client_ids": ["*"]}));
    BAO.succeeds("POST", "identity/oidc/role/app", &json!({"key": "app", "ttl": "90s"}));
    let world = World::new();
    let password_file = Some(world.file("password", "pass").display().to_string());
    let (mount, username) = (Some("people".to_owned()), Some("me".to_owned()));
    let store = store(Auth { method: "userpass".to_owned(), mount, username, password_file, ..Auth::default() });
    let (first, _, life) = read(&*store, "vault:identity/oidc/token/app");
    assert_eq!(life, Life::Ending(Duration::from_secs(90)));
    // Within a second they are the same.
    eventually("another is made", || (read(&*store, "vault:identity/oidc/token/app").0["token"] != first["token"]).then_some(()));
}

// The login.

#[test]
fn a_lease_lives_as_long_as_its_login_is_renewed_and_no_longer() {
    role(&BAO, "database/roles/orphan", 3600, 7200);
    let world = World::new();
    let store = store(approle(&world, "orphan", &["database/creds/orphan"], json!({"token_ttl": 2, "token_max_ttl": 60})));
    assert_eq!(seconds(run(renewing(&*store).login()).unwrap()), None, "there is no login yet");
    let (user, _) = lend(&*store, "vault:database/creds/orphan");
    let begun = Instant::now();
    assert_eq!(seconds(run(renewing(&*store).login()).unwrap()), Some((2, true)));
    eventually("its first term is over", || {
        assert_eq!(seconds(run(renewing(&*store).renew_login()).unwrap()), Some((2, true)));
        assert!(user.is_there());
        (begun.elapsed() > Duration::from_secs(3)).then_some(())
    });
    assert_eq!((renewing(&*store).login_number(), logins("orphan")), (1, 1));
    eventually("the user is gone with the login", || (!user.is_there()).then_some(()));
    let failure = run(renewing(&*store).renew_login()).unwrap_err();
    assert_eq!((failure.kind, failure.cause.as_str()), (FailureKind::Denied, "the token is not valid any more (403)"));
    lend(&*store, "vault:database/creds/orphan");
    assert_eq!((renewing(&*store).login_number(), logins("orphan")), (2, 2));
}

#[test]
fn a_login_that_lasts_as_long_as_it_can_is_repeated_and_its_leases_go_on_meanwhile() {
    role(&BAO, "database/roles/repeated", 3600, 7200);
    let world = World::new();
    let store = store(approle(&world, "repeated", &["database/creds/repeated"], json!({"token_ttl": 3, "token_max_ttl": 4})));
    let (user, lease) = lend(&*store, "vault:database/creds/repeated");
    let renewing = renewing(&*store);
    eventually("renewing gives less than asked for", || {
        (run(renewing.renew_login()).unwrap().unwrap().duration < Duration::from_millis(2900)).then_some(())
    });
    assert_eq!(seconds(run(renewing.log_in()).unwrap()), Some((3, true)));
    assert_eq!((renewing.login_number(), logins("repeated")), (2, 2));
    assert!(user.is_there());
    run(renewing.renew(&lease.id, Duration::from_mins(1))).unwrap();
    // The new login has no part in the leases of the old one.
    eventually("the user is gone with the first login", || (!user.is_there()).then_some(()));
}

#[test]
fn a_revoked_login_is_repeated_once_for_all_that_is_read() {
    let world = World::new();
    for name in ["one", "two", "three"] {
        BAO.kv(&format!("revoked/{name}"), &json!({"k": name}));
    }
    let store = store(approle(&world, "revoked", &["secret/data/revoked/*"], json!({})));
    let all = ["vault:secret/data/revoked/one", "vault:secret/data/revoked/two", "vault:secret/data/revoked/three"];
    assert!(fetch(&*store, &all).iter().all(Result::is_ok));
    BAO.succeeds("POST", "sys/leases/revoke-prefix/auth/revoked/login", &json!({}));
    assert!(fetch(&*store, &all).iter().all(Result::is_ok));
    assert_eq!((renewing(&*store).login_number(), logins("revoked")), (2, 2));
}

#[test]
fn several_that_need_another_login_at_once_share_one() {
    let world = World::new();
    BAO.kv("shared", &json!({"k": "v"}));
    let store = store(approle(&world, "shared", &["secret/data/shared"], json!({})));
    read(&*store, "vault:secret/data/shared");
    BAO.succeeds("POST", "sys/leases/revoke-prefix/auth/shared/login", &json!({}));
    let wanted = [wanted("vault:secret/data/shared")];
    run(async {
        let logins = join_all((0..5).map(|_| renewing(&*store).log_in()));
        let reads = join_all((0..5).map(|_| store.fetch(&wanted)));
        let (logins, reads) = futures_util::future::join(logins, reads).await;
        assert!(logins.iter().all(Result::is_ok) && reads.iter().flatten().all(Result::is_ok), "{logins:?} {reads:?}");
    });
    assert_eq!((renewing(&*store).login_number(), logins("shared")), (2, 2));
}

/// Another login in place of one that is good would let the leases die that came with it.
#[test]
fn a_path_that_is_denied_does_not_cost_the_login_nor_its_leases() {
    role(&BAO, "database/roles/denied", 3600, 7200);
    let world = World::new();
    let store = store(approle(&world, "denied", &["database/creds/denied"], json!({"token_ttl": 60})));
    let (user, _) = lend(&*store, "vault:database/creds/denied");
    for _ in 0..3 {
        let failure = fetch(&*store, &["vault:secret/data/denied"]).remove(0).unwrap_err();
        assert_eq!((failure.kind, failure.cause.as_str()), (FailureKind::Denied, "permission denied (403)"));
    }
    assert_eq!((renewing(&*store).login_number(), logins("denied")), (1, 1));
    assert!(user.is_there());
}

// Tokens that were given.

#[test]
fn a_given_token_is_looked_up_when_its_end_is_asked_for_and_cannot_be_repeated() {
    BAO.kv("given", &json!({"k": "v"}));
    BAO.policy("given", "path \"secret/data/given\" { capabilities = [\"read\"] }");
    let given = token(&json!({"ttl": "30s", "policies": ["given"]}));
    let accessor = BAO.request_as(&given, &[], "GET", "auth/token/lookup-self", &Value::Null).1["data"]["accessor"].clone();
    let store = store_of(&given);
    read(&*store, "vault:secret/data/given");
    let renewing = renewing(&*store);
    let (seconds_left, is_renewable) = seconds(run(renewing.login()).unwrap()).unwrap();
    assert!((28..=30).contains(&seconds_left) && is_renewable, "{seconds_left} {is_renewable}");
    assert_eq!(seconds(run(renewing.renew_login()).unwrap()), Some((30, true)));
    let failure = run(renewing.log_in()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Denied);
    assert_eq!(failure.cause, "the token that was given is all that there is: nothing gives another");
    assert_eq!(renewing.login_number(), 1);
    read(&*store, "vault:secret/data/given");

    BAO.succeeds("POST", "auth/token/revoke-accessor", &json!({"accessor": accessor}));
    let failure = fetch(&*store, &["vault:secret/data/given"]).remove(0).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Denied);
}

#[test]
fn a_token_without_an_end_has_none_and_one_that_cannot_be_renewed_says_so() {
    let of = |token: &str| {
        let store = store_of(token);
        fetch(&*store, &["vault:secret/data/none"]);
        store
    };
    assert_eq!(run(renewing(&*of("root")).login()).unwrap(), None);
    for properties in [json!({"ttl": "30s", "renewable": false}), json!({"ttl": "30s", "type": "batch", "policies": ["default"]})] {
        let store = of(&token(&properties));
        let term = run(renewing(&*store).login()).unwrap().unwrap();
        assert!(!term.is_renewable && term.duration > Duration::from_secs(25), "{term:?}");
        let failure = run(renewing(&*store).renew_login()).unwrap_err();
        assert_eq!((failure.kind, failure.cause.as_str()), (FailureKind::Denied, "the token cannot be renewed (400)"));
    }
    let store = of(&token(&json!({"no_default_policy": true, "policies": ["nothing"]})));
    let failure = run(renewing(&*store).login()).unwrap_err();
    assert_eq!((failure.kind, failure.cause.as_str()), (FailureKind::Denied, "the token may not look after itself (403)"));
    // Another process that knows of no login asks nobody.
    assert_eq!(run(renewing(&*store_of("root")).renew_login()).unwrap(), None);
}

#[test]
fn a_token_file_is_read_again_when_its_token_has_ended() {
    BAO.kv("file", &json!({"k": "v"}));
    BAO.policy("file", "path \"secret/data/file\" { capabilities = [\"read\"] }");
    let world = World::new();
    let path = world.file("token", token(&json!({"ttl": "1s", "policies": ["file"]})));
    let store = store(with_token_file(&path, None));
    read(&*store, "vault:secret/data/file");
    let failure = run(renewing(&*store).log_in()).unwrap_err();
    assert!(failure.is_temporary(), "{failure:?}");
    assert_eq!(failure.cause, format!("{} has no other token than before", path.display()));
    eventually("the token ends", || fetch(&*store, &["vault:secret/data/file"]).remove(0).err());
    world.file("token", token(&json!({"policies": ["file"]})));
    read(&*store, "vault:secret/data/file");
    assert_eq!(renewing(&*store).login_number(), 2);
}

// Another process.

#[test]
fn another_process_goes_on_with_the_login_and_its_leases() {
    role(&BAO, "database/roles/resumed", 60, 120);
    let world = World::new();
    let auth = || approle_again(&world, "resumed");
    let first = store(approle(&world, "resumed", &["database/creds/resumed"], json!({"token_ttl": 60})));
    assert!(run(renewing(&*first).remember()).is_none());
    let (user, lease) = lend(&*first, "vault:database/creds/resumed");
    let remembered = run(renewing(&*first).remember()).unwrap();
    drop(first);
    let second = store(auth());
    run(renewing(&*second).resume(&remembered));
    let renewing = renewing(&*second);
    assert_eq!(renewing.login_number(), 1);
    let term = run(renewing.login()).unwrap().unwrap();
    assert!(term.duration > Duration::from_secs(50) && term.duration < Duration::from_mins(1), "the time goes on: {term:?}");
    assert_eq!(run(renewing.renew(&lease.id, Duration::from_secs(90))).unwrap().duration, Duration::from_secs(90));
    assert!(user.is_there());
    lend(&*second, "vault:database/creds/resumed");
    assert_eq!(logins("resumed"), 1);
    // What is no memory of ours is passed over.
    for garbage in ["", "{}", "{\"number\": -1}"] {
        run(renewing.resume(&secret_init::secret::Secret::copy_of(garbage.as_bytes())));
    }
    assert_eq!(renewing.login_number(), 1);
}

/// The configuration of a login that is there already.
fn approle_again(world: &World, name: &str) -> Auth {
    let role_id = BAO.succeeds("GET", &format!("auth/{name}/role/app/role-id"), &Value::Null)["data"]["role_id"].clone();
    Auth {
        method: "approle".to_owned(),
        mount: Some(name.to_owned()),
        role_id: Some(role_id.as_str().unwrap().to_owned()),
        secret_id_file: Some(world.path.join("secret-id").display().to_string()),
        ..Auth::default()
    }
}

#[test]
fn what_was_unwrapped_once_is_kept_for_every_login_and_another_wrapping_is_taken() {
    BAO.kv("unwrapped", &json!({"k": "v"}));
    let world = World::new();
    let wrapped = || BAO.wrapped("POST", "auth/unwrapped/role/app/secret-id", &json!({}));
    let mut auth = approle(&world, "unwrapped", &["secret/data/unwrapped"], json!({}));
    auth.creation_path = Some("auth/unwrapped/role/app/secret-id".to_owned());
    world.file("secret-id", wrapped());
    let before = BAO.requests("sys/wrapping/unwrap").len();
    let first = store(auth.clone());
    read(&*first, "vault:secret/data/unwrapped");
    run(renewing(&*first).log_in()).unwrap();
    let remembered = run(renewing(&*first).remember()).unwrap();
    let second = store(auth);
    run(renewing(&*second).resume(&remembered));
    run(renewing(&*second).log_in()).unwrap();
    assert_eq!(renewing(&*second).login_number(), 3);
    assert_eq!(BAO.requests("sys/wrapping/unwrap").len() - before, 1);
    // The file may be gone, or hold another.
    std::fs::remove_file(world.path.join("secret-id")).unwrap();
    run(renewing(&*second).log_in()).unwrap();
    world.file("secret-id", wrapped());
    run(renewing(&*second).log_in()).unwrap();
    assert_eq!(BAO.requests("sys/wrapping/unwrap").len() - before, 2);
    read(&*second, "vault:secret/data/unwrapped");
}

#[test]
fn a_wrapped_token_is_another_login_when_another_is_wrapped() {
    BAO.kv("rewrapped", &json!({"k": "v"}));
    BAO.policy("rewrapped", "path \"secret/data/rewrapped\" { capabilities = [\"read\"] }");
    let world = World::new();
    let wrapped = || BAO.wrapped("POST", "auth/token/create", &json!({"policies": ["rewrapped"]}));
    let path = world.file("wrapped", wrapped());
    let store = store(with_token_file(&path, Some("auth/token/create")));
    read(&*store, "vault:secret/data/rewrapped");
    assert!(run(renewing(&*store).login()).unwrap().unwrap().is_renewable);
    let failure = run(renewing(&*store).log_in()).unwrap_err();
    assert_eq!(failure.cause, format!("{} has no other token than before", path.display()));
    world.file("wrapped", wrapped());
    run(renewing(&*store).log_in()).unwrap();
    read(&*store, "vault:secret/data/rewrapped");
    assert_eq!(renewing(&*store).login_number(), 2);
}

// The end.

#[test]
fn a_login_of_ours_ends_with_all_its_leases_by_one_request() {
    role(&BAO, "database/roles/ended", 60, 120);
    let world = World::new();
    let store = store(approle(&world, "ended", &["database/creds/ended"], json!({})));
    let lent: Vec<(User, Lease)> = (0..3).map(|_| lend(&*store, "vault:database/creds/ended")).collect();
    let leases: Vec<String> = lent.iter().map(|(_, lease)| lease.id.clone()).collect();
    run(renewing(&*store).revoke(&leases)).unwrap();
    eventually("all users are gone", || lent.iter().all(|(user, _)| !user.is_there()).then_some(()));
    assert_eq!(run(renewing(&*store).login()).unwrap(), None);
    assert!(run(renewing(&*store).remember()).is_none());
}

#[test]
fn leases_of_an_earlier_login_are_ended_one_by_one() {
    role(&BAO, "database/roles/earlier", 60, 120);
    let world = World::new();
    let store = store(approle(&world, "earlier", &["database/creds/earlier", "sys/leases/revoke"], json!({})));
    let (one, first) = lend(&*store, "vault:database/creds/earlier");
    run(renewing(&*store).log_in()).unwrap();
    let (other, second) = lend(&*store, "vault:database/creds/earlier");
    run(renewing(&*store).revoke(&[first.id, second.id])).unwrap();
    eventually("both users are gone", || (!one.is_there() && !other.is_there()).then_some(()));
}

#[test]
fn a_given_token_is_not_ended_and_leases_that_it_may_not_end_are_told() {
    role(&BAO, "database/roles/kept", 60, 120);
    BAO.policy("kept", "path \"database/creds/kept\" { capabilities = [\"read\"] }");
    let store = store_of(&token(&json!({"policies": ["kept"]})));
    let (user, lease) = lend(&*store, "vault:database/creds/kept");
    let failure = run(renewing(&*store).revoke(std::slice::from_ref(&lease.id))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Denied);
    assert_eq!(failure.cause, "1 lease could not be ended: the lease may not be ended (403)");
    assert!(user.is_there());
    BAO.policy("kept", "path \"sys/leases/revoke\" { capabilities = [\"update\"] }");
    run(renewing(&*store).revoke(&[lease.id])).unwrap();
    eventually("the user is gone", || (!user.is_there()).then_some(()));
    assert!(run(renewing(&*store).login()).unwrap().is_some(), "the token is not ours to end");
}

// AWS.

/// Who has a container's credentials: the server of the tests, which hands out what it is told, one after the other, as if they lasted.
fn agent(sessions: Vec<Value>) -> Faults {
    Faults::in_turn(sessions.into_iter().map(|mut session| {
        session["Token"] = session["SessionToken"].take();
        session["Expiration"] = json!("2099-01-01T00:00:00Z");
        Answer::json(&session)
    }))
}

fn store_of_aws(scheme: Scheme, stack: &MiniStack, agent: &Faults) -> Box<dyn Store> {
    let address = agent.address.as_str();
    let variables = [("AWS_ENDPOINT_URL", stack.address.as_str()), ("AWS_REGION", REGION), ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)];
    store_by(scheme, &variables)
}

#[test]
fn credentials_of_aws_that_ended_before_their_time_are_got_anew_and_what_was_refused_is_asked_for_again() {
    let stack = MiniStack::start(true);
    let actions = json!(["secretsmanager:*", "ssm:*"]);
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]});
    let role = stack.role("short", &policy);
    stack.create_secret("short", "s");
    stack.put_parameter("/short", "String", "p");
    for (scheme, reference) in [(Scheme::AwsSecretsManager, "aws-sm:short"), (Scheme::AwsParameterStore, "aws-ssm:/short")] {
        let agent = agent(vec![stack.session(&role, 1), stack.session(&role, 900)]);
        let store = store_of_aws(scheme, &stack, &agent);
        eventually("the first credentials end", || {
            let answer = fetch(&*store, &[reference]).remove(0);
            assert!(answer.is_ok(), "{answer:?}");
            (agent.requests().len() == 2).then_some(())
        });
        assert!(fetch(&*store, &[reference]).remove(0).is_ok());
        assert_eq!(agent.requests().len(), 2, "the new ones are kept");
    }
}

#[test]
fn credentials_that_aws_does_not_know_are_not_used_again() {
    let stack = MiniStack::start(true);
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]});
    let role = stack.role("known", &policy);
    stack.create_secret("known", "k");
    let unknown = json!({"AccessKeyId": "ASIAUNKNOWN", "SecretAccessKey": "s", "SessionToken": "t"});
    let agent = agent(vec![unknown, stack.session(&role, 900)]);
    let store = store_of_aws(Scheme::AwsSecretsManager, &stack, &agent);
    let failure = fetch(&*store, &["aws-sm:known"]).remove(0).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert_eq!(agent.requests().len(), 1, "they were new: once more would be of no use");
    assert!(fetch(&*store, &["aws-sm:known"]).remove(0).is_ok());
    assert_eq!(agent.requests().len(), 2);
}
