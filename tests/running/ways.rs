//! Faults of the way to the store, of logins and rights; and how often a store is asked because of them.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::rig::{BAO, Relay, Store, Watched, container, port};
use crate::support::files::after;
use crate::support::servers::faults::{Answer, Faults};
use crate::support::servers::openbao::OpenBao;
use crate::support::servers::tls::{self, pem};
use crate::support::{Start, World, eventually};

/// The secret `secret/data/NAME` with this value.
fn put(bao: &OpenBao, name: &str, value: &str) {
    bao.kv(name, &json!({"k": value}));
}

// The way.

#[test]
fn a_server_that_is_down_and_comes_back_sealed_changes_nothing() {
    let mut bao = OpenBao::durable();
    put(&bao, "app", "one");
    let world = World::new();
    let start = bao.told(container(&world)).variable("VAULT_TOKEN", &bao.root).variable("A_FILE", "vault:secret/data/app#k");
    let mut watched = Watched::start(world, start, "one");
    let host = bao.address.replace("https://", "");
    bao.stop();
    for _ in 0..3 {
        watched.stays(69, &format!("{host}: connection refused"));
    }
    bao.restart();
    for _ in 0..3 {
        watched.stays(69, "sealed (503)");
    }
    bao.unseal();
    eventually("OpenBao is active", || (bao.health() == 200).then_some(()));
    // It comes back with what it had.
    assert!(watched.refresh().stdout.contains(" unchanged"));
    watched.is_well();
    put(&bao, "app", "two");
    watched.hears(1, "two");
    bao.seal();
    for _ in 0..3 {
        watched.stays(69, "sealed (503)");
    }
    bao.unseal();
    eventually("OpenBao is active", || (bao.health() == 200).then_some(()));
    put(&bao, "app", "three");
    watched.hears(2, "three");
    watched.ends(2);
}

#[test]
fn a_certificate_that_is_good_no_more_changes_nothing() {
    let (bao, ours, strange) = (OpenBao::start(), tls::authority(), tls::authority());
    put(&bao, "app", "one");
    let (world, relay) = (World::new(), Relay::to(&bao.address));
    let trusted = world.file("trusted.pem", pem(&bao.ca) + &pem(&ours.ca));
    let start = container(&world).variable("VAULT_ADDR", format!("https://127.0.0.1:{}", relay.port)).variable("VAULT_CACERT", trusted);
    let start = start.variable("VAULT_TOKEN", &bao.root).variable("A_FILE", "vault:secret/data/app#k");
    let mut watched = Watched::start(world, start, "one");
    for (certificate, cause) in [
        (strange.server(), "comes from an authority that is not known"),
        (ours.expired_server(), "has expired"),
        (ours.server_of_another_name(), "is for another name"),
    ] {
        let impostor =
            Faults::tls(&certificate, |_, _| Answer::json(&json!({"data": {"data": {"k": "false"}, "metadata": {"version": 2}}})));
        relay.leads_to(&impostor.address);
        watched.stays(76, &format!("127.0.0.1:{}: its certificate {cause}", relay.port));
        assert!(impostor.requests().is_empty());
    }
    relay.leads_to(&bao.address);
    put(&bao, "app", "two");
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn a_name_that_has_no_address_any_more_changes_nothing() {
    let (store, world) = (Store::new(), World::new());
    let hosts = world.file("hosts", "127.0.0.1 bao.test\n");
    let resolv = world.file("resolv.conf", "nameserver 127.0.0.1\n");
    let start = container(&world).variable("VAULT_ADDR", format!("http://bao.test:{}", port(&store.gate.address))).flag("--allow-http");
    let start = start.variable("VAULT_TOKEN", "root").variable("A_FILE", store.reference(""));
    let mounts = format!("mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf", hosts.display(), resolv.display());
    let mut watched = Watched::start(world, after(start, &mounts), "one");
    fs::write(&hosts, "").unwrap();
    for _ in 0..3 {
        watched.stays(69, &format!("bao.test:{}: the name cannot be resolved", port(&store.gate.address)));
    }
    fs::write(&hosts, "127.0.0.1 bao.test\n").unwrap();
    store.put("two");
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn a_redirect_takes_the_token_nowhere() {
    let (store, elsewhere) = (Store::new(), Faults::always(Answer::status(200)));
    let watched = store.watched("");
    store.answers([Answer::redirect(&format!("{}/v1/secret/data/app", elsewhere.address))]);
    watched.stays(76, "the server redirects (307)");
    assert_eq!(elsewhere.connections(), 0);
}

// Logins and rights.

/// A login of this name that can be made anew as it was: its start, and how often it was used.
struct Login {
    name: &'static str,
    properties: Value,
}

impl Login {
    fn new(name: &'static str, properties: Value) -> Self {
        BAO.auth(name, "approle");
        let login = Self { name, properties };
        login.comes();
        login
    }

    fn comes(&self) {
        let role = format!("auth/{}/role/app", self.name);
        BAO.succeeds("POST", &role, &self.properties);
        BAO.succeeds("POST", &format!("{role}/role-id"), &json!({"role_id": self.name}));
        BAO.succeeds("POST", &format!("{role}/custom-secret-id"), &json!({"secret_id": "of-the-tests"}));
    }

    fn goes(&self) {
        BAO.succeeds("DELETE", &format!("auth/{}/role/app", self.name), &Value::Null);
    }

    /// Whoever logged in is logged out.
    fn revoke(&self) {
        BAO.succeeds("POST", &format!("sys/leases/revoke-prefix/auth/{}/login", self.name), &json!({}));
    }

    fn told(&self, start: Start) -> Start {
        let start = start.variable("VAULT_AUTH_METHOD", "approle").variable("VAULT_PATH", self.name);
        start.variable("VAULT_ROLE_ID", self.name).variable("VAULT_SECRET_ID", "of-the-tests")
    }

    fn count(&self) -> usize {
        BAO.requests(&format!("auth/{}/login", self.name)).len()
    }
}

/// A policy that allows this path to be read.
fn allow(name: &str, path: &str) {
    BAO.policy(name, &format!("path \"{path}\" {{ capabilities = [\"read\"] }}"));
}

#[test]
fn a_login_that_was_revoked_is_repeated_once_and_nothing_changes() {
    let (store, world) = (Store::new(), World::new());
    allow("repeated", "secret/data/*");
    let login = Login::new("repeated", json!({"token_policies": ["repeated"]}));
    let start = login.told(container(&world)).variable("VAULT_ADDR", &store.gate.address).variable("A_FILE", store.reference(""));
    let mut watched = Watched::start(world, start, "one");
    let before = watched.file();
    for logins in 2..5 {
        login.revoke();
        let refresh = watched.refresh();
        assert!(refresh.code() == 0 && refresh.stdout.contains(" unchanged"), "{refresh:?}");
        assert_eq!((watched.file() == before, login.count()), (true, logins));
    }
    watched.is_well();
    store.put("two");
    watched.hears(1, "two");
    assert_eq!((watched.ends(1).as_str(), login.count()), ("", 4));
}

#[test]
fn a_login_that_cannot_be_repeated_is_tried_once_a_look_and_nothing_changes() {
    let (store, world) = (Store::new(), World::new());
    allow("refused", "secret/data/*");
    let login = Login::new("refused", json!({"token_policies": ["refused"]}));
    let start = login.told(container(&world)).variable("VAULT_ADDR", &store.gate.address).variable("A_FILE", store.reference(""));
    let mut watched = Watched::start(world, start, "one");
    login.revoke();
    login.goes();
    for logins in 2..5 {
        watched.stays(77, "permission denied (403)");
        assert_eq!(login.count(), logins);
    }
    login.comes();
    store.put("two");
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn a_token_that_ended_changes_nothing_and_its_file_is_read_again() {
    let (store, world) = (Store::new(), World::new());
    let token = |ttl: &str| {
        let body = json!({"policies": ["root"], "ttl": ttl, "renewable": false});
        BAO.succeeds("POST", "auth/token/create", &body)["auth"]["client_token"].as_str().unwrap().to_owned()
    };
    let first = token("1s");
    let file = world.file("token", &first);
    let start = container(&world).variable("VAULT_ADDR", &store.gate.address).variable("VAULT_TOKEN_FILE", &file);
    let mut watched = Watched::start(world, start.variable("A_FILE", store.reference("")), "one");
    // The server forgets it in its own time.
    let is_over = || BAO.request_as(&first, &[], "GET", "auth/token/lookup-self", &Value::Null).0 == 403;
    eventually("the token has ended", || is_over().then_some(()));
    for _ in 0..3 {
        watched.stays(77, "");
    }
    fs::write(&file, token("1h")).unwrap();
    store.put("two");
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn a_policy_that_is_taken_away_changes_nothing() {
    let (store, world) = (Store::new(), World::new());
    let path = format!("secret/data/{}", store.path);
    allow("taken", &path);
    let login = Login::new("taken", json!({"token_policies": ["taken"]}));
    let start = login.told(container(&world)).variable("VAULT_ADDR", &store.gate.address).variable("A_FILE", store.reference(""));
    let mut watched = Watched::start(world, start, "one");
    allow("taken", "secret/data/other");
    for _ in 0..3 {
        watched.stays(77, "permission denied (403)");
    }
    // The token is good, and its leases would end with it.
    assert_eq!(login.count(), 1);
    allow("taken", &path);
    store.put("two");
    watched.hears(1, "two");
    watched.ends(1);
}

#[test]
fn the_requests_to_a_store_are_counted_by_the_class_of_their_answers() {
    let mut bao = OpenBao::durable();
    put(&bao, "app", "one");
    let allow = |path: &str| bao.policy("counted", &format!("path \"{path}\" {{ capabilities = [\"read\"] }}"));
    allow("secret/data/app");
    let world = World::new();
    let start = bao.told(container(&world)).variable("VAULT_TOKEN", bao.token(&["counted"])).variable("A_FILE", "vault:secret/data/app#k");
    let watched = Watched::start(world, start, "one");
    let counted = |watched: &Watched| {
        let of = |class: &str| format!("secret_init_backend_requests_total{{backend=\"vault\",code_class=\"{class}\"}}");
        ["2xx", "4xx", "5xx", "none"].map(|class| watched.metric(&of(class)).parse::<u64>().unwrap())
    };
    // The read at the start, and the question how long the token lasts.
    eventually("the start is counted", || (counted(&watched) == [2, 0, 0, 0]).then_some(()));
    for reads in 1..=3 {
        assert_eq!(watched.refresh().code(), 0);
        assert_eq!(counted(&watched), [2 + reads, 0, 0, 0]);
    }
    allow("secret/data/other");
    for refusals in 1..=3 {
        watched.stays(77, "permission denied (403)");
        assert_eq!(counted(&watched), [5, refusals, 0, 0]);
    }
    // The server counts the same, with what is put into it.
    assert_eq!(bao.requests("secret/data/app").len(), 1 + 1 + 3 + 3);
    bao.seal();
    watched.stays(69, "sealed (503)");
    assert_eq!(counted(&watched), [5, 3, 1, 0]);
    bao.stop();
    for silences in 1..=3 {
        watched.stays(69, "connection refused");
        assert_eq!(counted(&watched), [5, 3, 1, silences]);
    }
    assert_eq!(watched.metric("secret_init_backend_request_duration_seconds_count{backend=\"vault\"}"), "12");
    watched.ends(0);
}

// What belongs together, and what does not.

#[test]
fn a_secret_that_fails_makes_no_other_be_fetched_again() {
    let (good, bad, world) = (Store::new(), Store::new(), World::new());
    let start = good.told(container(&world)).variable("A_FILE", good.reference("")).variable("B_FILE", bad.reference("?refresh=5s"));
    let watched = Watched::start(world, start, "one");
    bad.asks("DELETE", "data", &Value::Null);
    let count = |store: &Store| BAO.requests(&format!("secret/data/{}", store.path)).iter().filter(|line| line.starts_with("read")).count();
    eventually("it was asked for three times more", || (count(&bad) >= 4).then_some(()));
    // What happens to be nearly due goes along, once.
    assert!(count(&good) <= 2, "{}", count(&good));
    watched.is_stale("this version was deleted");
    let before = count(&good);
    for look in 1..=3 {
        assert_eq!(watched.refresh().code(), 66);
        assert_eq!(count(&good), before + look);
    }
    good.put("two");
    let refresh = watched.refresh();
    assert!(refresh.code() == 66 && refresh.stdout.contains("1 secret changed, 0 unchanged, 1 failed"), "{refresh:?}");
    let mut watched = watched;
    assert_eq!(watched.running.line("HUP"), "HUP 1 two");
    watched.ends(1);
}

#[test]
fn a_file_of_two_secrets_waits_for_both() {
    let (one, other, world) = (Store::new(), Store::new(), World::new());
    let both = format!("${{{}}}/${{{}}}", one.reference(""), other.reference(""));
    let start = one.told(container(&world)).variable("A_FILE", both);
    let mut watched = Watched::start(world, start, "one/one");
    other.asks("DELETE", "data", &Value::Null);
    one.put("two");
    let before = watched.file();
    for _ in 0..3 {
        let refresh = watched.refresh();
        assert!(refresh.code() == 66 && refresh.stdout.contains("0 secrets changed, 0 unchanged, 2 failed"), "{refresh:?}");
        assert_eq!(refresh.stdout.matches("this version was deleted").count(), 2, "{refresh:?}");
        assert_eq!(watched.file(), before);
        assert_eq!(watched.metric("secret_init_stale_secrets"), "2");
        assert_eq!(watched.health().code(), 0);
    }
    other.put("three");
    watched.hears(1, "two/three");
    let said = watched.ends(1);
    assert_eq!(said.matches("this version was deleted").count(), 1, "{said}");
}

#[test]
fn a_value_that_no_variable_can_hold_starts_nothing_again() {
    let (store, world) = (Store::new(), World::new());
    let start = store.told(container(&world)).variable("A", store.reference("")).flag("--on-change=restart").flag("--refresh=24h");
    let mut watched = Watched::of(world, start.program(["sh", "-c", "echo runs $A; trap 'exit 0' TERM; while :; do sleep 0.1; done"]));
    store.put("on\0e");
    for _ in 0..3 {
        let refresh = watched.refresh();
        assert!(refresh.code() == 65 && refresh.stdout.contains("failed: "), "{refresh:?}");
        watched.is_stale("");
    }
    store.put("two");
    assert_eq!(watched.refresh().code(), 0);
    // No other start was in between.
    assert_eq!(watched.running.line("runs"), "runs two");
    watched.is_well();
}

// How often.

#[test]
fn a_change_in_a_store_is_seen_within_the_interval_and_a_request() {
    let store = Store::new();
    let mut watched = store.watched("?refresh=5s");
    for (number, value) in [(1, "two"), (2, "three")] {
        store.put(value);
        let began = Instant::now();
        assert_eq!(watched.running.line("HUP"), format!("HUP {number} {value}"));
        // Half a second more or less, so that those who started together do not stay together; and what a loaded machine may take for the rest.
        assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    }
    watched.ends(2);
}

#[test]
fn a_store_that_asks_for_a_pause_gets_it() {
    let store = Store::new();
    let mut watched = store.watched("?refresh=5s");
    store.answers([Answer::status(429).header("retry-after", "7"), Answer::status(503).header("retry-after", "1")]);
    eventually("it is asked, and asked again", || (store.times().len() >= 3).then_some(()));
    store.put("two");
    store.answers_truly();
    assert_eq!(watched.running.line("HUP"), "HUP 1 two");
    let times = store.times();
    assert!(times[2] - times[1] >= Duration::from_secs(7), "{:?}", times[2] - times[1]);
    assert!(times[3] - times[2] >= Duration::from_secs(1), "{:?}", times[3] - times[2]);
    watched.is_well();
    watched.ends(1);
}
