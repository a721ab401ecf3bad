//! Vault and OpenBao, by the real server: each engine, each login, each option.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::servers::openbao::OpenBao;
use support::servers::postgres::Postgres;
use support::servers::tls;
use support::{Outcome, Start, World, eventually};

/// One server for all tests that leave it as it is. Each test has names of its own in it.
static BAO: LazyLock<OpenBao> = LazyLock::new(OpenBao::start);

/// A start that knows the server, with its root token.
fn start(world: &World) -> Start {
    BAO.told(world.secret_init()).variable("VAULT_TOKEN", "root")
}

/// A start that knows the server, and how to log in by its configuration.
fn start_with(world: &World, auth: &Value) -> Start {
    let config = json!({ "stores": { "vault": { "address": BAO.address, "ca_file": BAO.ca, "auth": auth } } });
    world.secret_init().flag("--config").flag(world.file("config.yaml", config.to_string()))
}

/// What the program gets as the variable `A`.
fn gets(start: Start, reference: &str) -> String {
    start.variable("A", reference).shell("printf %s \"$A\"").finishes().succeeds()
}

/// What the program of a start says that had warnings.
fn warned(outcome: Outcome) -> String {
    assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
    outcome.stdout
}

/// A policy that reads this path, and its name.
fn may_read(path: &str) -> &str {
    BAO.policy(path, &format!("path \"{path}\" {{ capabilities = [\"read\"] }}"));
    path
}

#[test]
fn a_key_of_version_2_of_kv_is_read() {
    BAO.kv("key", &json!({"password": "p\"ä\n", "port": 5432, "nested": {"list": [1, {"x": "y"}]}}));
    let world = World::new();
    assert_eq!(gets(start(&world), "vault:secret/data/key#password"), "p\"ä\n");
    assert_eq!(gets(start(&world), "vault:secret/data/key#port"), "5432");
    assert_eq!(gets(start(&world), "${vault:secret/data/key#/nested/list/1/x}"), "y");
    assert_eq!(gets(start(&world), "bao:secret/data/key#port"), "5432");
}

#[test]
fn without_a_key_the_whole_is_delivered_as_the_store_has_it() {
    BAO.kv("whole", &json!({"a": 1, "b": "two"}));
    assert_eq!(gets(start(&World::new()), "${vault:secret/data/whole}"), r#"{"a":1,"b":"two"}"#);
}

#[test]
fn a_version_is_asked_for_in_two_ways() {
    BAO.kv("versions", &json!({"k": "one"}));
    BAO.kv("versions", &json!({"k": "two"}));
    let world = World::new();
    assert_eq!(gets(start(&world), "vault:secret/data/versions#k"), "two");
    assert_eq!(gets(start(&world), "vault:secret/data/versions#k#1"), "one");
    assert_eq!(gets(start(&world), "vault:secret/data/versions?version=1#k"), "one");
}

#[test]
fn version_1_of_kv_is_read() {
    BAO.mount("kv1", &json!({"type": "kv", "options": {"version": "1"}}));
    // Keys of these names do not make it an answer of version 2.
    BAO.succeeds("POST", "kv1/data/app", &json!({"password": "p1", "data": "d", "metadata": "m", "ttl": "30m"}));
    let world = World::new();
    assert_eq!(gets(start(&world), "vault:kv1/data/app#password"), "p1");
    assert_eq!(gets(start(&world), "vault:kv1/data/app#data"), "d");
}

#[test]
fn username_and_password_of_a_dynamic_credential_match_and_come_from_one_request() {
    let postgres = Postgres::start();
    let bao = OpenBao::start();
    bao.database(&postgres);
    let world = World::new();
    let told = || bao.told(world.secret_init()).variable("VAULT_TOKEN", "root");
    let outcome = told()
        .variable("BOTH", "${vault:database/creds/app#username} ${vault:database/creds/app#password}")
        .variable("USERNAME", "vault:database/creds/app#username")
        .shell("printf '%s %s' \"$BOTH\" \"$USERNAME\"")
        .finishes();
    assert!(outcome.stderr.contains("is valid for 1h, and nothing renews it"), "{}", outcome.stderr);
    let text = warned(outcome);
    let words: Vec<&str> = text.split(' ').collect();
    assert_eq!(postgres.query_as(words[0], words[1], "SELECT 1").unwrap().trim(), "1");
    assert_eq!(words[0], words[2]);
    assert_eq!(bao.requests("database/creds/app"), ["read database/creds/app"]);

    // A static role has one user whose password the server changes.
    let password = gets(told(), "vault:database/static-creds/fixed#password");
    assert_eq!(postgres.query_as("static", &password, "SELECT 1").unwrap().trim(), "1");

    // A rehearsal gives back what it was lent.
    let leases =
        || bao.request("LIST", "sys/leases/lookup/database/creds/app", &Value::Null).1["data"]["keys"].as_array().map_or(0, Vec::len);
    let before = leases();
    warned(told().variable("A", "vault:database/creds/app#username").flag("check").finishes());
    assert_eq!(bao.requests("database/creds/app").len(), 2);
    assert_eq!(leases(), before);

    let outcome = told().variable("A", "vault:database/creds/none#username").program(["true"]).finishes();
    outcome.fails(
        66,
        &[
            "A: vault:database/creds/none#username: the engine has no such role",
            "hint: add ?optional=true or ?default=… if it may be missing",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}

#[test]
fn ten_keys_of_one_path_are_one_request() {
    BAO.kv("ten", &json!({"k0": 0, "k1": 1, "k2": 2, "k3": 3, "k4": 4, "k5": 5, "k6": 6, "k7": 7, "k8": 8, "k9": 9}));
    let world = World::new();
    let started = (0..10).fold(start(&world), |start, key| start.variable(format!("K{key}"), format!("vault:secret/data/ten#k{key}")));
    assert_eq!(started.shell("echo $K0$K1$K2$K3$K4$K5$K6$K7$K8$K9").finishes().succeeds(), "0123456789\n");
    assert_eq!(BAO.requests("secret/data/ten").iter().filter(|request| request.starts_with("read ")).count(), 1);
}

#[test]
fn a_hundred_paths_are_a_hundred_requests_over_one_connection() {
    let bao = OpenBao::start();
    for number in 0..100 {
        bao.kv(&format!("h{number}"), &json!({"k": number}));
    }
    let world = World::new();
    let told = bao.told(world.secret_init()).variable("VAULT_TOKEN", "root");
    let told = (0..100).fold(told, |start, number| start.variable(format!("H{number}"), format!("vault:secret/data/h{number}#k")));
    assert_eq!(told.shell("echo $H0 $H57 $H99").finishes().succeeds(), "0 57 99\n");
    assert_eq!(bao.requests("secret/data/h").iter().filter(|request| request.starts_with("read ")).count(), 100);
}

#[test]
fn namespaces_are_those_of_the_variable_the_configuration_or_the_reference() {
    for namespace in ["team", "other"] {
        BAO.succeeds("POST", &format!("sys/namespaces/{namespace}"), &json!({}));
        BAO.succeeds("POST", &format!("{namespace}/sys/mounts/kv"), &json!({"type": "kv", "options": {"version": "1"}}));
        BAO.succeeds("POST", &format!("{namespace}/kv/app"), &json!({"k": namespace}));
    }
    let world = World::new();
    assert_eq!(gets(start(&world).variable("VAULT_NAMESPACE", "team"), "vault:kv/app#k"), "team");
    assert_eq!(gets(start(&world).variable("VAULT_NAMESPACE", "team"), "vault:kv/app?namespace=other#k"), "other");
    assert_eq!(gets(start(&world), "vault:other/kv/app#k"), "other");
    let token = world.file("token", "root");
    let auth = json!({"method": "token", "token_file": token});
    let config = json!({"stores": {"vault": {"address": BAO.address, "ca_file": BAO.ca, "namespace": "other", "auth": auth}}});
    let started = world.secret_init().flag("--config").flag(world.file("config.yaml", config.to_string()));
    assert_eq!(gets(started, "vault:kv/app#k"), "other");
}

#[test]
fn two_named_stores_have_addresses_and_logins_of_their_own() {
    let second = OpenBao::start();
    second.kv("app", &json!({"k": "second"}));
    BAO.kv("named", &json!({"k": "first"}));
    let world = World::new();
    let auth = json!({"method": "token", "token_file": world.file("token", "root\n")});
    let config = json!({
        "stores": {
            "vault": {"address": BAO.address, "ca_file": BAO.ca, "auth": auth},
            "eu": {"type": "vault", "address": second.address, "ca_file": second.ca, "auth": auth},
        },
        "secrets": {"there": "vault:secret/data/app?store=eu"},
        "env": {"C": "${there#k}"},
    });
    let started = world.secret_init().flag("--config").flag(world.file("config.yaml", config.to_string()));
    let started = started.variable("A", "vault:secret/data/named#k").variable("B", "vault:secret/data/app?store=eu#k");
    assert_eq!(started.shell("echo $A $B $C").finishes().succeeds(), "first second second\n");
    assert_eq!(second.requests("secret/data/app").iter().filter(|request| request.starts_with("read ")).count(), 1);
}

#[test]
fn a_login_by_a_token_in_a_variable_a_file_or_the_home_of_the_command_line() {
    BAO.kv("token", &json!({"k": "t"}));
    let token = BAO.token(&[may_read("secret/data/token")]);
    let world = World::new();
    let file = world.file(".vault-token", format!("{token}\n"));
    let told = || BAO.told(world.secret_init());
    assert_eq!(gets(told().variable("VAULT_TOKEN", &token), "vault:secret/data/token#k"), "t");
    assert_eq!(gets(told().variable("VAULT_TOKEN_FILE", &file), "vault:secret/data/token#k"), "t");
    assert_eq!(gets(told().variable("HOME", &world.path), "vault:secret/data/token#k"), "t");
    assert_eq!(gets(start_with(&world, &json!({"method": "token", "token_file": file})), "vault:secret/data/token#k"), "t");
    // For each product its own variables come first.
    let told = told().variable("BAO_TOKEN", &token).variable("VAULT_TOKEN", "no token");
    assert_eq!(gets(told, "bao:secret/data/token#k"), "t");
}

#[test]
fn a_login_by_approle() {
    BAO.auth("approle", "approle");
    BAO.kv("approle", &json!({"k": "a"}));
    let role = json!({"token_policies": [may_read("secret/data/approle")]});
    BAO.succeeds("POST", "auth/approle/role/app", &role);
    let role_id = BAO.succeeds("GET", "auth/approle/role/app/role-id", &Value::Null)["data"]["role_id"].as_str().unwrap().to_owned();
    let secret_id =
        || BAO.succeeds("POST", "auth/approle/role/app/secret-id", &json!({}))["data"]["secret_id"].as_str().unwrap().to_owned();
    let world = World::new();
    let file = world.file("secret-id", secret_id() + "\n");
    let told = || BAO.told(world.secret_init()).variable("VAULT_ROLE_ID", &role_id);
    assert_eq!(gets(told().variable("VAULT_SECRET_ID", secret_id()), "vault:secret/data/approle#k"), "a");
    assert_eq!(gets(told().variable("VAULT_SECRET_ID_FILE", &file), "vault:secret/data/approle#k"), "a");
    let auth = json!({"method": "approle", "role_id": role_id, "secret_id_file": file});
    assert_eq!(gets(start_with(&world, &auth), "vault:secret/data/approle#k"), "a");

    told().variable("VAULT_SECRET_ID", "wrong").variable("A", "vault:secret/data/approle#k").program(["true"]).finishes().fails(
        77,
        &[
            "A: vault:secret/data/approle#k: the login by approle at auth/approle is refused (400)",
            "hint: check the role id; a secret id may have been used up, or its time be over",
            "1 of 1 secret failed; the program was not started",
        ],
    );

    // A secret id that comes wrapped is unwrapped once, and only when it was made where it should be.
    let wrapped = || BAO.wrapped("POST", "auth/approle/role/app/secret-id", &json!({}));
    let auth = |path: &str| {
        let file = world.file("wrapped", wrapped());
        json!({"method": "approle", "role_id": role_id, "secret_id_file": file, "creation_path": path})
    };
    let good = auth("auth/approle/role/app/secret-id");
    let checked = start_with(&world, &good).variable("A", "vault:secret/data/approle#k").flag("check").finishes();
    assert!(checked.stderr.contains("left for the start"), "{}", checked.stderr);
    assert!(warned(checked).contains("untried"));
    assert_eq!(gets(start_with(&world, &good), "vault:secret/data/approle#k"), "a");
    let hint = "hint: if nobody should have used it before, someone may have taken it: see the server's audit log, and have a new one made";
    start_with(&world, &good).variable("A", "vault:secret/data/approle#k").program(["true"]).finishes().fails(
        77,
        &[
            "A: vault:secret/data/approle#k: the wrapping token is not valid: it was used, or its time is over",
            hint,
            "1 of 1 secret failed; the program was not started",
        ],
    );
    start_with(&world, &auth("auth/approle/role/other/secret-id"))
        .variable("A", "vault:secret/data/approle#k")
        .program(["true"])
        .finishes()
        .fails(
            77,
            &[
                "A: vault:secret/data/approle#k: the wrapping token was made by another path than the creation_path",
                hint,
                "1 of 1 secret failed; the program was not started",
            ],
        );
}

#[test]
fn a_login_by_a_wrapped_token() {
    BAO.kv("wrapped", &json!({"k": "w"}));
    let wrapped = BAO.wrapped("POST", "auth/token/create", &json!({"policies": [may_read("secret/data/wrapped")]}));
    let world = World::new();
    let auth = json!({"method": "token", "token_file": world.file("wrapped", wrapped), "creation_path": "auth/token/create"});
    assert_eq!(gets(start_with(&world, &auth), "vault:secret/data/wrapped#k"), "w");
}

#[test]
fn a_login_by_userpass() {
    BAO.auth("userpass", "userpass");
    BAO.kv("userpass", &json!({"k": "u"}));
    BAO.succeeds("POST", "auth/userpass/users/app", &json!({"password": "pass", "token_policies": [may_read("secret/data/userpass")]}));
    let world = World::new();
    let password = world.file("password", "pass\n");
    let told = BAO.told(world.secret_init()).variable("VAULT_USERNAME", "app").variable("VAULT_PASSWORD_FILE", &password);
    assert_eq!(gets(told, "vault:secret/data/userpass#k"), "u");
    let auth = json!({"method": "userpass", "username": "app", "password_file": password});
    assert_eq!(gets(start_with(&world, &auth), "vault:secret/data/userpass#k"), "u");
}

#[test]
fn a_login_by_a_signed_token_reads_it_at_each_login() {
    let keys = World::new();
    let jwt = Jwt::new(&keys);
    BAO.auth("jwt", "jwt");
    BAO.kv("jwt", &json!({"k": "j"}));
    BAO.succeeds("POST", "auth/jwt/config", &json!({"jwt_validation_pubkeys": [jwt.public_key]}));
    let role =
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["bao"], "token_policies": [may_read("secret/data/jwt")]});
    BAO.succeeds("POST", "auth/jwt/role/app", &role);
    let world = World::new();
    let file = world.file("jwt", jwt.signed(&json!({"sub": "me", "aud": "bao"})));
    let auth = json!({"method": "jwt", "role": "app", "jwt_file": file});
    assert_eq!(gets(start_with(&world, &auth), "vault:secret/data/jwt#k"), "j");
    // By the names of bank-vaults.
    let told = BAO.told(world.secret_init()).variable("VAULT_AUTH_METHOD", "jwt").variable("VAULT_PATH", "jwt");
    let told = told.variable("VAULT_ROLE", "app").variable("VAULT_JWT_FILE", &file);
    assert_eq!(gets(told, "vault:secret/data/jwt#k"), "j");

    fs::write(&file, jwt.signed(&json!({"sub": "me", "aud": "another"}))).unwrap();
    start_with(&world, &auth).variable("A", "vault:secret/data/jwt#k").program(["true"]).finishes().fails(
        77,
        &[
            "A: vault:secret/data/jwt#k: the login by jwt at auth/jwt is refused (400)",
            "hint: the role's bound audience, subject and claims must match the token's",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}

/// The cluster that the server asks about a token is one of the tests: its answer is that of `TokenReview` in Kubernetes' API.
#[test]
fn a_login_by_the_service_account_of_kubernetes() {
    use support::servers::faults::{Answer, Faults};
    let keys = World::new();
    let jwt = Jwt::new(&keys);
    let cluster = Faults::start(|request, _| {
        let is_known = request.json()["spec"]["token"].is_string();
        Answer::json(&json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": {
            "authenticated": is_known,
            "user": {"username": "system:serviceaccount:shop:app", "uid": "1", "groups": ["system:serviceaccounts"]},
        }}))
    });
    BAO.auth("kubernetes", "kubernetes");
    BAO.kv("kubernetes", &json!({"k": "k8s"}));
    let config = json!({"kubernetes_host": cluster.address, "kubernetes_ca_cert": tls::pem(&BAO.ca), "disable_local_ca_jwt": true, "token_reviewer_jwt": "reviewer"});
    BAO.succeeds("POST", "auth/kubernetes/config", &config);
    let role = json!({"bound_service_account_names": ["app"], "bound_service_account_namespaces": ["shop"],
        "token_policies": [may_read("secret/data/kubernetes")]});
    BAO.succeeds("POST", "auth/kubernetes/role/app", &role);
    let world = World::new();
    let claims = json!({"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:shop:app",
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "app", "uid": "1"}}});
    let file = world.file("jwt", jwt.signed(&claims));
    let auth = json!({"method": "kubernetes", "role": "app", "jwt_file": file});
    assert_eq!(gets(start_with(&world, &auth), "vault:secret/data/kubernetes#k"), "k8s");
    // A role alone means Kubernetes.
    let told = BAO.told(world.secret_init()).variable("VAULT_ROLE", "app").variable("VAULT_JWT_FILE", &file);
    assert_eq!(gets(told, "vault:secret/data/kubernetes#k"), "k8s");
    assert!(!cluster.requests().is_empty());

    let auth = json!({"method": "kubernetes", "role": "app", "mount": "elsewhere", "jwt_file": file});
    start_with(&world, &auth).variable("A", "vault:secret/data/kubernetes#k").program(["true"]).finishes().fails(
        77,
        &[
            "A: vault:secret/data/kubernetes#k: the login by kubernetes at auth/elsewhere is refused (403)",
            "hint: the role must be bound to the pod's service account and namespace, and the server must reach the cluster's API; \
            or nothing is mounted there: VAULT_PATH, or auth.mount in the configuration, names the mount",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}

#[test]
fn a_login_by_the_certificate_of_the_connection() {
    let bao = OpenBao::durable();
    let authority = tls::authority();
    bao.auth("cert", "cert");
    bao.kv("cert", &json!({"k": "c"}));
    bao.policy("read", "path \"secret/data/cert\" { capabilities = [\"read\"] }");
    let role = json!({"certificate": tls::pem(&authority.ca), "token_policies": ["read"]});
    bao.succeeds("POST", "auth/cert/certs/app", &role);
    let tls::Certificate { certificate, key } = authority.client("app");
    let world = World::new();
    let auth = json!({"method": "cert", "role": "app", "cert_file": certificate, "key_file": key});
    let config = json!({"stores": {"vault": {"address": bao.address, "ca_file": bao.ca, "auth": auth}}});
    let started = world.secret_init().flag("--config").flag(world.file("config.yaml", config.to_string()));
    assert_eq!(gets(started, "vault:secret/data/cert#k"), "c");
    let told = bao.told(world.secret_init()).variable("VAULT_AUTH_METHOD", "cert");
    let told = told.variable("VAULT_CLIENT_CERT", &certificate).variable("VAULT_CLIENT_KEY", &key);
    assert_eq!(gets(told, "vault:secret/data/cert#k"), "c");

    let strangers = tls::authority();
    let stranger = strangers.client("app");
    let told = bao.told(world.secret_init()).variable("VAULT_AUTH_METHOD", "cert");
    let told = told.variable("VAULT_CLIENT_CERT", &stranger.certificate).variable("VAULT_CLIENT_KEY", &stranger.key);
    told.variable("A", "vault:secret/data/cert#k").program(["true"]).finishes().fails(
        77,
        &[
            "A: vault:secret/data/cert#k: the login by cert at auth/cert is refused (400)",
            "hint: the certificate must come from the authority of a role, and the role allow its names",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}

#[test]
fn a_server_that_is_unsealed_meanwhile_answers_after_all() {
    let bao = OpenBao::durable();
    bao.kv("app", &json!({"k": "v"}));
    bao.seal();
    let world = World::new();
    let told =
        bao.told(world.secret_init()).variable("VAULT_TOKEN", &bao.root).variable("A", "vault:secret/data/app#k").shell("echo got $A");
    // Its warnings come where the lines of the program come.
    let mut running = told.around(&["sh", "-c", "exec \"$@\" 2>&1", "sh"]).spawn();
    running.line("secret-init: warning: vault: sealed (503); trying again, for 1m at most");
    bao.unseal();
    assert_eq!(running.line("got"), "got v");
}

#[test]
fn a_deleted_version_a_missing_one_and_a_path_for_the_other_version_are_told_apart() {
    BAO.kv("gone", &json!({"k": "one"}));
    BAO.kv("gone", &json!({"k": "two"}));
    BAO.succeeds("DELETE", "secret/data/gone", &Value::Null);
    BAO.succeeds("POST", "secret/destroy/gone", &json!({"versions": [1]}));
    let world = World::new();
    let fails = |reference: &str, cause: &str, hint: &str| {
        let cause = format!("A: {reference}: {cause}");
        let hint = format!("hint: {hint}");
        let last = "1 of 1 secret failed; the program was not started";
        start(&world).variable("A", reference).program(["true"]).finishes().fails(66, &[&cause, &hint, last]);
    };
    let optional = "add ?optional=true or ?default=… if it may be missing";
    fails(
        "vault:secret/data/gone#k",
        "this version was deleted",
        "undelete it, write the secret anew, or ask for another version with ?version=N",
    );
    fails(
        "vault:secret/data/gone?version=1#k",
        "this version was destroyed",
        "write the secret anew, or ask for another version with ?version=N",
    );
    fails("vault:secret/data/gone?version=9#k", "no such secret, or not in this version (404)", optional);
    fails("vault:secret/data/never#k", "no such secret (404)", optional);
    fails("vault:secret/gone#k", "the engine has version 2 of KV, where data/ stands in the path", "write vault:secret/data/gone");
    fails(
        "vault:nowhere/gone#k",
        "no secrets engine is mounted there",
        "the path is that of the API: MOUNT/data/NAME for version 2 of KV, MOUNT/NAME for version 1",
    );
    assert_eq!(gets(start(&world), "vault:secret/data/never?default=d#k"), "d");
    let optional = start(&world).variable("A", "vault:secret/data/gone?optional=true#k");
    assert_eq!(optional.shell("echo ${A-unset}").finishes().succeeds(), "unset\n");
}

#[test]
fn denied_names_the_line_of_the_policy() {
    BAO.kv("denied", &json!({"k": "v"}));
    let world = World::new();
    let told = BAO.told(world.secret_init()).variable("VAULT_TOKEN", BAO.token(&["default"]));
    told.variable("A", "vault:secret/data/denied#k").program(["true"]).finishes().fails(
        77,
        &[
            "A: vault:secret/data/denied#k: permission denied (403)",
            "hint: the policy of the login needs path \"secret/data/denied\" { capabilities = [\"read\"] }; secret-init policy vault prints all that it needs",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}

#[test]
fn secrets_reach_files_and_the_other_modes_too() {
    BAO.kv("modes", &json!({"k": "v"}));
    let world = World::new();
    let told = start(&world).directory(world.directory()).variable("K_FILE", "vault:secret/data/modes#k");
    assert_eq!(told.shell("cat $K_FILE; stat -c %a $K_FILE").finishes().succeeds(), "v400\n");
    let told = start(&world).variable("A", "vault:secret/data/modes#k").flag("--exec");
    assert_eq!(told.shell("echo $A").finishes().succeeds(), "v\n");
    let table = start(&world).variable("A", "vault:secret/data/modes#k").flag("check").finishes().succeeds();
    assert!(table.contains("vault:secret/data/modes#k  vault  variable A  1 "), "{table}");
}

#[test]
fn without_any_login_the_message_says_which_there_are() {
    let world = World::new();
    BAO.told(world.secret_init()).variable("A", "vault:secret/data/app#k").program(["true"]).finishes().fails(
        78,
        &[
            "A: vault:secret/data/app#k: there is no login",
            "hint: set VAULT_TOKEN_FILE, or VAULT_ROLE in Kubernetes, or VAULT_ROLE_ID and VAULT_SECRET_ID_FILE, or auth: in the configuration",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}

#[test]
fn a_restarted_server_serves_the_next_start() {
    let mut bao = OpenBao::durable();
    bao.kv("app", &json!({"k": "v"}));
    bao.restart();
    bao.unseal();
    eventually("it is active", || (bao.health() == 200).then_some(()));
    let world = World::new();
    assert_eq!(gets(bao.told(world.secret_init()).variable("VAULT_TOKEN", &bao.root), "vault:secret/data/app#k"), "v");
}

#[test]
fn a_path_that_would_lead_elsewhere_is_refused_before_anybody_is_asked() {
    let world = World::new();
    for path in ["secret/data/../x", "secret/data/%2e%2e/x", "./secret/x", "..", "secret/a%0d%0aX:%20y"] {
        let outcome = start(&world).variable("A", format!("vault:{path}#k")).program(["true"]).finishes();
        assert_eq!(outcome.code(), 78, "{path}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("the path has a part . or .., or characters that no path has"), "{}", outcome.stderr);
    }
    for (name, value) in [("VAULT_PATH", "../../sys"), ("VAULT_USERNAME", "../x")] {
        let told = BAO.told(world.secret_init()).variable("VAULT_USERNAME", "app").variable("VAULT_PASSWORD", "p").variable(name, value);
        let outcome = told.variable("A", "vault:secret/data/x#k").flag("plan").finishes();
        assert_eq!(outcome.code(), 78, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(" is no path\n"), "{}", outcome.stderr);
    }
}

#[test]
fn a_denied_path_is_no_theft_of_a_wrapped_secret_id_that_is_good_once() {
    let bao = OpenBao::start();
    bao.auth("approle", "approle");
    bao.kv("good", &json!({"k": "g"}));
    bao.policy("good", "path \"secret/data/good\" { capabilities = [\"read\"] }");
    bao.succeeds("POST", "auth/approle/role/once", &json!({"token_policies": ["good"], "secret_id_num_uses": 1}));
    let role_id = bao.succeeds("GET", "auth/approle/role/once/role-id", &Value::Null)["data"]["role_id"].as_str().unwrap().to_owned();
    let world = World::new();
    let wrapped = world.file("wrapped", bao.wrapped("POST", "auth/approle/role/once/secret-id", &json!({})));
    let auth =
        json!({"method": "approle", "role_id": role_id, "secret_id_file": wrapped, "creation_path": "auth/approle/role/once/secret-id"});
    let config = json!({"stores": {"vault": {"address": bao.address, "ca_file": bao.ca, "auth": auth}}});
    let started = world.secret_init().flag("--config").flag(world.file("config.yaml", config.to_string()));
    let started = started.variable("A", "vault:secret/data/good#k").variable("B", "vault:secret/data/denied#k");
    let outcome = started.program(["true"]).finishes();
    assert_eq!(outcome.code(), 77, "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("secret-init: B: vault:secret/data/denied#k: permission denied (403)\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with("secret-init: 1 of 2 secrets failed; the program was not started\n"), "{}", outcome.stderr);
}

#[test]
fn a_rehearsal_gives_back_its_leases_though_another_path_is_denied_and_says_which_it_could_not() {
    let postgres = Postgres::start();
    let bao = OpenBao::start();
    bao.database(&postgres);
    bao.auth("userpass", "userpass");
    bao.policy("app", "path \"database/creds/app\" { capabilities = [\"read\"] }");
    bao.succeeds("POST", "auth/userpass/users/app", &json!({"password": "pass", "token_policies": ["app"]}));
    let world = World::new();
    let told = || bao.told(world.secret_init()).variable("A", "vault:database/creds/app#username").flag("check");
    let leases =
        || bao.request("LIST", "sys/leases/lookup/database/creds/app", &Value::Null).1["data"]["keys"].as_array().map_or(0, Vec::len);
    let login = told().variable("VAULT_USERNAME", "app").variable("VAULT_PASSWORD", "pass").variable("B", "vault:secret/data/denied#k");
    assert_eq!(login.finishes().code(), 77);
    assert_eq!(bao.requests("database/creds/app").len(), 1);
    // The server ends what came with a login after it has answered.
    eventually("the lease is given back", || (leases() == 0).then_some(()));

    let given = told().variable("VAULT_TOKEN", bao.token(&["app"])).finishes();
    assert!(
        given.stderr.contains("vault: a lease of database/creds/app could not be given back, and ends by itself\n"),
        "{}",
        given.stderr
    );
    assert_eq!(leases(), 1);
    warned(given);
}

#[test]
fn an_answer_that_is_not_what_it_should_be_is_no_secret() {
    use support::servers::faults::{Answer, Faults};
    let world = World::new();
    for (answer, path, code, cause) in [
        (json!(["secret"]), "secret/data/x", 76, "the answer is not Vault's: it is not the JSON that it should be"),
        (
            json!({"data": {"data": {"k": "v"}, "metadata": {"version": "3"}}}),
            "secret/data/x",
            76,
            "the answer is not Vault's: the version in it is no number",
        ),
        (
            json!({"data": {"password": "old", "ttl": 0, "rotation_period": 60}}),
            "database/static-creds/x",
            69,
            "the password of the static role is being changed",
        ),
    ] {
        let server = Faults::always(Answer::json(&answer));
        let told = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t").flag("--timeout").flag("1s");
        let outcome = told.variable("A", format!("vault:{path}?default=d#k")).program(["true"]).finishes();
        assert_eq!(outcome.code(), code, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(cause), "{}", outcome.stderr);
    }
}

#[test]
fn a_template_is_no_token_and_half_a_certificate_none() {
    let world = World::new();
    let fails = |start: Start, cause: &str| {
        let outcome = start.variable("A", "vault:secret/data/x#k").flag("plan").finishes();
        assert_eq!(outcome.code(), 78, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(cause), "{}", outcome.stderr);
    };
    let told = || BAO.told(world.secret_init());
    fails(told().variable("VAULT_TOKEN", "${file:/run/secrets/t}"), "VAULT_TOKEN is a reference, and is needed to resolve references");
    fails(told().variable("VAULT_TOKEN", "t").variable("VAULT_CLIENT_CERT", "/x"), "of a certificate and its key one is missing");
    fails(told().variable("VAULT_TOKEN", "t").variable("VAULT_AGENT_ADDR", "https://x"), "VAULT_AGENT_ADDR is set, and is not read");
}

#[test]
fn a_process_that_does_not_come_to_an_end_by_itself_is_ended() {
    use support::servers::faults::{Answer, Faults};
    let world = World::new();
    let server = Faults::always(Answer::silence());
    let told = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t").flag("--timeout").flag("1s");
    let running = told.variable("A", "vault:secret/data/x#k").program(["true"]).spawn();
    eventually("it asks", || (!server.requests().is_empty()).then_some(()));
    let agent = support::children(running.pid())[0];
    support::send(agent, libc::SIGSTOP);
    running.finishes().fails(
        69,
        &[
            "the start took longer than --timeout; the program was not started",
            "hint: does a file system that a secret or a login lies in answer?",
        ],
    );
}

// docs/vault.md.

/// The blocks of code of the page in this language.
fn blocks(language: &str) -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/vault.md")).unwrap();
    text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_commands_of_the_docs_give_the_program_what_the_server_has_and_the_policy_that_is_shown() {
    let bao = OpenBao::start();
    bao.kv("db", &json!({"username": "app", "password": "a/b"}));
    bao.policy("shown", &blocks("hcl")[0]);
    let world = World::new();
    let token = world.file("token", bao.token(&["shown"]));
    let binary = support::binary().display().to_string();
    let script = blocks("sh")[0].replace("https://vault.example.com:8200", &bao.address);
    let script =
        script.replace("/etc/vault/ca.pem", &bao.ca.display().to_string()).replace("/etc/vault/token", &token.display().to_string());
    let shown = script
        .replace("secret-init -- myapp", &format!("{binary} -- printenv DATABASE_URL; {binary} policy vault; {binary} check >/dev/null"));
    let output = std::process::Command::new("sh").args(["-e", "-c", &shown]).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = format!("postgresql://app:a%2Fb@db:5432/app\n{}", blocks("hcl")[0]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn the_configurations_of_the_docs_are_good() {
    for block in blocks("yaml") {
        let world = World::new();
        let start =
            world.secret_init().flag("--config").flag(world.file("config.yaml", block)).variable("A", "vault:secret/data/db#password");
        let plan = start.flag("plan").finishes().succeeds();
        assert!(plan.contains("variable A\n"), "{plan}");
    }
    assert_eq!(blocks("yaml").len(), 2);
}

/// Who signs tokens.
struct Jwt<'a> {
    world: &'a World,
    public_key: String,
}

impl<'a> Jwt<'a> {
    fn new(world: &'a World) -> Self {
        openssl(world, &["genrsa", "-out", "key.pem", "2048"], "");
        let public_key = String::from_utf8(openssl(world, &["rsa", "-in", "key.pem", "-pubout"], "")).unwrap();
        Self { world, public_key }
    }

    /// A token for an hour with these claims.
    fn signed(&self, claims: &Value) -> String {
        use base64::Engine as _;
        let mut claims = claims.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        for (name, time) in [("iat", now), ("nbf", now), ("exp", now + 3600)] {
            claims[name] = time.into();
        }
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let text = format!("{}.{}", encode(br#"{"alg":"RS256","typ":"JWT"}"#), encode(claims.to_string().as_bytes()));
        let signature = openssl(self.world, &["dgst", "-sha256", "-sign", "key.pem"], &text);
        format!("{text}.{}", encode(&signature))
    }
}

fn openssl(world: &World, arguments: &[&str], input: &str) -> Vec<u8> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut child = Command::new("openssl")
        .args(arguments)
        .current_dir(&world.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}
