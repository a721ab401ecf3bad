//! What the plan decides about stores on other machines: whose login reaches the program, what becomes a variable, and what a policy has to allow.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;
use support::servers::installed;
use support::servers::openbao::OpenBao;
use support::{Start, World, binary};

/// One server for all tests. Each has names of its own in it.
static BAO: LazyLock<OpenBao> = LazyLock::new(OpenBao::start);

/// A start that knows the server, with its root token.
fn root(world: &World) -> Start {
    BAO.told(world.secret_init()).variable("VAULT_TOKEN", "root")
}

/// A start that has an address to ask, where nobody is.
fn start() -> Start {
    World::new().secret_init().variable("VAULT_ADDR", "https://vault.test")
}

/// The variables of a login, in the environment.
fn with_logins(start: Start) -> Start {
    let names = ["VAULT_TOKEN", "VAULT_SECRET_ID", "VAULT_PASSWORD", "BAO_TOKEN", "BAO_SECRET_ID", "BAO_PASSWORD"];
    let start = names.iter().fold(start, |start, name| start.variable(name, "hunter2"));
    start.variable("VAULT_ROLE_ID", "app").variable("AWS_SECRET_ACCESS_KEY", "hunter2")
}

// Logins.

#[test]
fn the_login_of_a_store_in_use_is_taken_away_and_that_of_a_cloud_is_not() {
    let plan = with_logins(start()).variable("X", "vault:secret/data/app#x").flag("plan").finishes().succeeds();
    let expected = "\
NAME  REFERENCE                STORE  DELIVERY
X     vault:secret/data/app#x  vault  variable X

Removed:
  BAO_PASSWORD     the login of the store
  BAO_SECRET_ID    the login of the store
  BAO_TOKEN        the login of the store
  VAULT_PASSWORD   the login of the store
  VAULT_SECRET_ID  the login of the store
  VAULT_TOKEN      the login of the store
";
    assert_eq!(plan, expected);
}

#[test]
fn a_login_that_is_to_be_kept_is_named() {
    let start = with_logins(start()).variable("X", "bao:secret/data/app#x").variable("SECRET_INIT_KEEP_ENV", "BAO_*, VAULT_[X]");
    let removed = |start: &Start| {
        let plan = start.clone().flag("plan").finishes().succeeds();
        plan.split("\nRemoved:\n").nth(1).unwrap().split_whitespace().filter(|word| word.contains('_')).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(removed(&start), "VAULT_PASSWORD VAULT_SECRET_ID VAULT_TOKEN");
    let start = start.flag("--keep-env=VAULT_TOKEN,VAULT_SECRET*").flag("--keep-env=BAO_TOKEN");
    assert_eq!(removed(&start), "BAO_PASSWORD BAO_SECRET_ID VAULT_PASSWORD");
}

#[test]
fn a_login_of_a_store_that_is_not_in_use_is_the_programs_own() {
    let world = World::new();
    let start = with_logins(world.secret_init()).variable("DB_FILE", world.file("db", "s3cret"));
    let environment = start.program(["env"]).finishes().succeeds();
    assert_eq!(environment.lines().filter(|line| line.ends_with("=hunter2")).count(), 7, "{environment}");
}

#[test]
fn a_login_that_someone_leaves_alone_is_taken_away_all_the_same() {
    let start = start().variable("VAULT_TOKEN", "hunter2").variable("X", "vault:secret/data/app#x").flag("--skip=VAULT_*");
    let plan = start.flag("plan").finishes().succeeds();
    assert!(plan.ends_with("\n\nRemoved:\n  VAULT_TOKEN  the login of the store\n"), "{plan}");
    assert!(!plan.contains("VAULT_TOKEN  --skip names it"), "{plan}");
}

#[test]
fn the_program_gets_no_login_whichever_way_it_starts() {
    BAO.kv("login", &json!({"k": "v"}));
    let world = World::new();
    let start = || root(&world).variable("A", "vault:secret/data/login#k").shell("echo \"$A|$VAULT_TOKEN|\"");
    assert_eq!(start().finishes().succeeds(), "v||\n");
    assert_eq!(start().flag("--exec").finishes().succeeds(), "v||\n");
    assert_eq!(start().flag("--keep-env=VAULT_*").finishes().succeeds(), "v|root|\n");
}

#[test]
fn a_program_that_asks_for_our_token_is_not_started() {
    let lines = |name: &str| {
        let message = format!("{name}: asks for the token of our login, which no program gets");
        let hint = "hint: let the program log in itself, or give it a token of its own by a reference".to_owned();
        [message, hint, "1 problem in the plan; the program was not started".to_owned()]
    };
    for (name, value) in [("VAULT_TOKEN", "vault:login"), ("BAO_TOKEN", "bao:login")] {
        for other in ["nothing", "vault:secret/data/app#x"] {
            let start = start().variable(name, value).variable("X", other).program(["true"]);
            start.finishes().fails(78, &lines(name).each_ref().map(String::as_str));
        }
        let start = start().variable(name, value).flag("--skip=*_TOKEN").shell(&format!("echo ${name}"));
        assert_eq!(start.finishes().succeeds(), format!("{value}\n"));
    }
}

#[test]
fn what_of_bank_vaults_is_not_read_is_warned_of() {
    let start = start().variable("VAULT_IGNORE_MISSING_SECRETS", "true").variable("BAO_REVOKE_TOKEN", "1");
    let start =
        start.variable("VAULT_ENV_DAEMON", "True").variable("VAULT_PASSTHROUGH", "VAULT_TOKEN").variable("VAULT_ENV_PASSTHROUGH", "X");
    let used = start.clone().variable("X", "bao:secret/data/app#x");
    let warnings = "\
secret-init: warning: BAO_REVOKE_TOKEN: is not read: --revoke-on-exit ends a login
secret-init: hint: set SECRET_INIT_REVOKE_ON_EXIT=true beside SECRET_INIT_WATCH=true
secret-init: warning: VAULT_ENV_DAEMON: is not read: it is --on-change restart that starts the program anew
secret-init: hint: set SECRET_INIT_ON_CHANGE=restart
secret-init: warning: VAULT_ENV_PASSTHROUGH: is not read
secret-init: hint: name by --keep-env what of a login is to reach the program
secret-init: warning: VAULT_IGNORE_MISSING_SECRETS: is not read: a secret that does not exist ends the start
secret-init: hint: add ?optional=true or ?default=… to each that may be missing
secret-init: warning: VAULT_PASSTHROUGH: is not read
secret-init: hint: name by --keep-env what of a login is to reach the program
";
    assert_eq!(used.clone().flag("plan").finishes().stderr, warnings);
    assert_eq!(used.clone().flag("plan").flag("--strict").finishes().code(), 78);
    start.flag("plan").finishes().succeeds();
    let start = self::start().variable("VAULT_IGNORE_MISSING_SECRETS", "false").variable("VAULT_PASSTHROUGH", "");
    start.variable("X", "vault:secret/data/app#x").flag("plan").finishes().succeeds();
}

// Every key of a secret.

#[test]
fn every_key_becomes_a_variable_and_the_last_path_wins() {
    BAO.kv("app", &json!({"DB_USER": "old"}));
    BAO.kv("app", &json!({"DB_USER": "app", "DB_PASSWORD": "p\"ä\n", "DB_PORT": 5432, "DEBUG": true, "EMPTY": ""}));
    BAO.kv("more", &json!({"DB_PORT": 1.5e3, "_x": "lower"}));
    let world = World::new();
    let told = |paths: &str| root(&world).variable("VAULT_FROM_PATH", paths);
    let script = "printf '%s|' \"$DB_USER\" \"$DB_PASSWORD\" \"$DB_PORT\" \"$DEBUG\" \"${EMPTY-unset}\" \"$_x\" \"$VAULT_FROM_PATH\"";
    let gets = |start: Start| start.shell(script).finishes().succeeds();
    assert_eq!(gets(told("secret/data/app,secret/data/more")), "app|p\"ä\n|1500|true||lower||");
    assert_eq!(gets(told("secret/data/more,secret/data/app").flag("--exec")), "app|p\"ä\n|5432|true||lower||");
    assert_eq!(gets(told("secret/data/app#1")), "old||||unset|||");
    assert_eq!(gets(told("").variable("BAO_FROM_PATH", "secret/data/app#1")), "old||||unset|||");
    assert_eq!(gets(told("secret/data/nothing?optional=true, vault:secret/data/app?version=1")), "old||||unset|||");
    // A key that is taken alone as well is one request.
    let before = BAO.requests("secret/data/more").len();
    assert_eq!(
        told("secret/data/more").variable("A", "vault:secret/data/more#_x").shell("echo $A$_x").finishes().succeeds(),
        "lowerlower\n"
    );
    assert_eq!(BAO.requests("secret/data/more").len() - before, 1);
}

#[test]
fn what_is_set_by_other_means_wins_over_a_key_with_a_warning() {
    BAO.kv("taken", &json!({"A": "key", "B": "key", "C": "key", "D": "key", "E": "key", "PATH": "/nowhere"}));
    let world = World::new();
    let config = world.file("config.yaml", "env: { C: text, E: \"\" }");
    let start = root(&world).variable("VAULT_FROM_PATH", "secret/data/taken").variable("A", "container").variable("D", "");
    let start = start.variable("B", "literal:reference").flag("--config").flag(config);
    let outcome = start.clone().shell("echo $A $B $C $D $E").finishes();
    assert_eq!(outcome.stdout, "container reference text key key\n");
    let warnings = "\
secret-init: warning: A: is set by other means, which win over VAULT_FROM_PATH
secret-init: warning: B: is set by other means, which win over VAULT_FROM_PATH
secret-init: warning: C: is set by other means, which win over VAULT_FROM_PATH
secret-init: warning: PATH: is set by other means, which win over VAULT_FROM_PATH
secret-init: hint: remove one of the two
";
    assert_eq!((outcome.stderr.as_str(), outcome.status.code()), (warnings, Some(0)));
    let checked = start.flag("check").finishes();
    let variables: Vec<&str> =
        checked.stdout.lines().skip(1).filter_map(|line| line.split("  variable ").nth(1)?.split(' ').next()).collect();
    assert_eq!((variables, checked.stderr.as_str()), (vec!["B", "D", "E"], warnings), "{}", checked.stdout);
}

#[test]
fn a_key_that_cannot_be_a_variable_or_would_change_what_runs_ends_the_start() {
    let bad = json!({"LD_PRELOAD": "hunter2", "db-password": "hunter2", "1ST": "hunter2", "": "hunter2", "LIST": ["hunter2"], "NONE": null,
        "NUL": "hunter2\u{0}", "https_proxy": "hunter2", "GOOD": "hunter2", "SECRET_INIT_DIR": "/hunter2"});
    BAO.kv("bad", &bad);
    let subject = "VAULT_FROM_PATH: vault:secret/data/bad: ";
    let one_by_one = "hint: take the keys that are needed one by one, by NAME=vault:secret/data/bad#KEY, in place of VAULT_FROM_PATH";
    let no_name =
        |key: &str| format!("{subject}the key {key} cannot be the name of a variable, which is A-Z a-z 0-9 _ and begins with no digit");
    let denied = |key: &str| {
        let hint = format!("hint: remove the key, or write {key}=vault:secret/data/bad#{key} when it is meant");
        [format!("{subject}the key {key} would change how programs run"), hint]
    };
    let no_value = |key: &str| format!("{subject}the value of the key {key} is no text, number or boolean");
    let lines = [
        &[no_name(""), no_name("1ST"), one_by_one.to_owned()][..],
        &denied("LD_PRELOAD"),
        &[no_value("LIST"), no_value("NONE"), format!("{subject}the key NUL: the value has a NUL byte, which no variable can hold")],
        &[one_by_one.to_owned()],
        &denied("SECRET_INIT_DIR"),
        &[no_name("db-password"), one_by_one.to_owned()],
        &denied("https_proxy"),
        &["1 of 1 secret failed; the program was not started".to_owned()],
    ]
    .concat();
    let world = World::new();
    let start = || root(&world).variable("VAULT_FROM_PATH", "secret/data/bad");
    start().program(["true"]).finishes().fails(65, &lines.iter().map(String::as_str).collect::<Vec<_>>());

    // What is written by hand is trusted.
    BAO.kv("trusted", &json!({"PYTHONPATH": "/x", "GIT_DIR": "/y"}));
    let start =
        root(&world).variable("VAULT_FROM_PATH", "secret/data/trusted").variable("PYTHONPATH", "vault:secret/data/trusted#PYTHONPATH");
    let outcome = start.variable("GIT_DIR", "mine").shell("echo $PYTHONPATH $GIT_DIR").finishes();
    assert_eq!(outcome.stdout, "/x mine\n", "{}", outcome.stderr);
}

#[test]
fn every_name_that_the_docs_call_dangerous_is_refused_as_a_key() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/references.md")).unwrap();
    let list = page.split("and none of").nth(1).unwrap().split("else the start ends").next().unwrap();
    let names: Vec<String> = list.split('`').skip(1).step_by(2).map(|name| name.replace('*', "X")).collect();
    assert!(names.len() > 25, "{names:?}");
    BAO.kv("dangerous", &names.iter().map(|name| (name.clone(), json!("hunter2"))).collect());
    let world = World::new();
    // Without a PATH, which would win over the key.
    let mut start = root(&world).variable("VAULT_FROM_PATH", "secret/data/dangerous").flag("check").command();
    let output = start.env_remove("PATH").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    for name in names {
        assert!(stderr.contains(&format!(": the key {name} would change how programs run\n")), "{name} in {stderr}");
    }
}

#[test]
fn a_secret_that_is_not_there_is_told_with_its_path() {
    let world = World::new();
    let start = root(&world).variable("VAULT_FROM_PATH", "secret/data/none,secret/data/none?optional=true").program(["true"]);
    let lines = [
        "VAULT_FROM_PATH: vault:secret/data/none: no such secret (404)",
        "hint: add ?optional=true to the path if it may be missing",
        "1 of 2 secrets failed; the program was not started",
    ];
    start.finishes().fails(66, &lines);
}

#[test]
fn level_info_counts_the_variables_of_keys() {
    BAO.kv("counted", &json!({"A": 1, "B": 2}));
    let world = World::new();
    let start = root(&world).variable("VAULT_FROM_PATH", "secret/data/counted").variable("C", "vault:secret/data/counted#A");
    let outcome = start.flag("--log-level=info").program(["true"]).finishes();
    assert!(outcome.stderr.starts_with("secret-init: delivered 2 secrets (3 variables, 0 files) in "), "{}", outcome.stderr);
}

#[test]
fn paths_of_which_every_key_becomes_a_variable_are_shown_as_they_are_understood() {
    let start = start().variable("VAULT_FROM_PATH", "secret/data/app, secret/data/db#3,").variable("BAO_FROM_PATH", "kv/app?optional=true");
    let plan = start.variable("VAULT_ENV_FROM_PATH", "vault:kv/old?namespace=team").flag("plan").finishes().succeeds();
    let expected = "\
NAME                 REFERENCE                       STORE  DELIVERY
BAO_FROM_PATH        bao:kv/app?optional=true        bao    a variable for each key
VAULT_ENV_FROM_PATH  vault:kv/old?namespace=team     vault  a variable for each key
VAULT_FROM_PATH      vault:secret/data/app           vault  a variable for each key
VAULT_FROM_PATH      vault:secret/data/db?version=3  vault  a variable for each key
";
    assert_eq!(plan, expected);
}

#[test]
fn paths_that_make_no_sense_are_all_told() {
    let start = start().variable("VAULT_FROM_PATH", "secret/data/app#password,a?default=hunter2,-x").variable("BAO_FROM_PATH", ",");
    let lines = [
        "BAO_FROM_PATH: there is no path in it",
        "hint: paths are written with commas between them: secret/data/app,secret/data/db",
        "VAULT_FROM_PATH: secret/data/app…: the version after # is no number",
        "hint: for one key alone write NAME=vault:PATH#KEY",
        "VAULT_FROM_PATH: a…: default, decode, trim and mode are for one value, and here each key has one",
        "hint: for one key alone write NAME=vault:PATH?OPTION=VALUE#KEY",
        "VAULT_FROM_PATH: -x: no reference",
        "4 problems in the plan; the program was not started",
    ];
    start.program(["true"]).finishes().fails(78, &lines);
}

#[test]
fn a_list_of_paths_that_is_for_someone_else_is_left_alone() {
    let start = start().variable("VAULT_FROM_PATH", "#").flag("--skip=VAULT_FROM_PATH");
    assert_eq!(start.shell("echo $VAULT_FROM_PATH").finishes().succeeds(), "#\n");
}

#[test]
fn write_makes_no_variables_of_keys() {
    let start = World::new().secret_init().variable("VAULT_FROM_PATH", "secret/data/app").flag("write");
    let lines = [
        "there is no file to write",
        "hint: a file is asked for by NAME_FILE=REFERENCE, like DB_PASSWORD_FILE=cred:db, or by files: in the configuration",
        "1 problem in the plan; nothing was written",
    ];
    start.finishes().fails(78, &lines);
}

// Policies.

#[test]
fn a_policy_has_one_line_for_each_path_that_is_read() {
    let start =
        start().variable("A", "vault:secret/data/b#x").variable("B", "u:${vault:secret/data/a#x}:${vault:/secret/data/b?version=2#y}");
    let start = start.variable("VAULT_FROM_PATH", "kv/app,secret/data/a#4").variable("C_FILE", "vault:database/creds/q%22x%5C#password");
    let expected = "\
path \"database/creds/q\\\"x\\\\\" { capabilities = [\"read\"] }
path \"kv/app\" { capabilities = [\"read\"] }
path \"secret/data/a\" { capabilities = [\"read\"] }
path \"secret/data/b\" { capabilities = [\"read\"] }
";
    assert_eq!(start.clone().flag("policy").flag("vault").finishes().succeeds(), expected);
    // Before any program, and with options on either side.
    let start = start.flag("--strict").flag("policy").flag("--skip=NOPE").flag("vault").program(["myapp", "--serve"]);
    assert_eq!(start.finishes().succeeds(), expected);
}

#[test]
fn a_policy_of_what_is_watched_says_what_renewal_needs() {
    let start = start().variable("A", "vault:secret/data/a#x").variable("B", "vault:database/creds/b?namespace=team#x").flag("--watch");
    let expected = "\
path \"secret/data/a\" { capabilities = [\"read\"] }
path \"team/database/creds/b\" { capabilities = [\"read\"] }
# To renew the login, and leases, if the token is made without the policy default; in other namespaces in any case:
# path \"auth/token/lookup-self\" { capabilities = [\"read\"] }
# path \"auth/token/renew-self\" { capabilities = [\"update\"] }
# path \"sys/leases/renew\" { capabilities = [\"update\"] }
# path \"team/sys/leases/renew\" { capabilities = [\"update\"] }
# With --revoke-on-exit, to end leases that are left when the token is not ours to end:
# path \"sys/leases/revoke\" { capabilities = [\"update\"] }
# path \"team/sys/leases/revoke\" { capabilities = [\"update\"] }
";
    let outcome = start.flag("policy").flag("vault").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, expected), "{}", outcome.stderr);
}

#[test]
fn a_policy_says_where_each_part_belongs() {
    let world = World::new();
    let config = world.file(
        "config.yaml",
        "stores:\n  prod: { type: vault, address: \"https://prod.test\", namespace: team, auth: { method: jwt, jwt_file: /jwt } }\n",
    );
    let start = world.secret_init().flag("--config").flag(config).variable("VAULT_ADDR", "https://vault.test");
    let start = start.variable("A", "vault:secret/data/a#x").variable("B", "vault:secret/data/b?namespace=/team/sub/#x");
    let start =
        start.variable("C", "vault:secret/data/c?store=prod#x").variable("D", "vault:secret/data/d?store=prod&namespace=team/sub#x");
    let start = start.variable("E", "vault:secret/data/e?store=prod&namespace=teammates#x").variable("F", "bao:secret/data/f#x");
    let expected = "\
# bao
path \"secret/data/f\" { capabilities = [\"read\"] }

# prod, in the namespace team
path \"secret/data/c\" { capabilities = [\"read\"] }
path \"sub/secret/data/d\" { capabilities = [\"read\"] }

# prod, in the namespace teammates
path \"secret/data/e\" { capabilities = [\"read\"] }

# vault
path \"secret/data/a\" { capabilities = [\"read\"] }
path \"team/sub/secret/data/b\" { capabilities = [\"read\"] }
";
    assert_eq!(start.flag("policy").flag("vault").finishes().succeeds(), expected);
}

#[test]
fn the_namespace_of_a_login_is_named_also_when_it_is_the_only_one() {
    let start = start().variable("BAO_NAMESPACE", "/b/").variable("VAULT_NAMESPACE", "v").flag("policy").flag("vault");
    let part = |scheme: &str| start.clone().variable("A", format!("{scheme}:kv/a#x")).finishes().succeeds();
    assert_eq!(part("vault"), "# vault, in the namespace v\npath \"kv/a\" { capabilities = [\"read\"] }\n");
    assert_eq!(part("bao"), "# bao, in the namespace b\npath \"kv/a\" { capabilities = [\"read\"] }\n");
}

#[test]
fn a_policy_that_is_not_needed_or_cannot_be_written_is_refused() {
    let policy = |start: Start, word: &str| start.flag("policy").flag(word).finishes();
    let hint = "hint: secret-init plan shows what it has";
    let no_reference = World::new().secret_init().variable("A_FILE", "literal:vault");
    policy(no_reference.clone(), "vault").fails(78, &["the plan has no reference to Vault or OpenBao", hint]);
    policy(no_reference, "aws").fails(78, &["the plan has no reference to AWS", hint]);
    let start = start().variable("A", "vault:kv/*#x").variable("B", "vault:kv/+/b#x").variable("C", "vault:kv/{{c%7D%7D#x");
    let start = start.variable("D", "vault:kv/*/+d#x");
    let lines = [
        "A: vault:kv/*#x: a policy would take this path for a pattern",
        "B: vault:kv/+/b#x: a policy would take this path for a pattern",
        "C: vault:kv/{{c%7D%7D#x: a policy would take this path for a pattern",
        "hint: a * at the end, a part +, {{ and ${ mean more there: rename the secret",
    ];
    policy(start, "vault").fails(78, &lines);
}

#[test]
fn policy_takes_one_word_that_it_knows() {
    let lines = ["policy takes one word: vault or aws", "hint: see secret-init --help; the program and its options stand after --"];
    for words in [&["policy"][..], &["policy", "nomad"], &["policy", "--", "vault"], &["policy", "gcp", "--", "sh"]] {
        words.iter().fold(World::new().secret_init(), Start::flag).finishes().fails(64, &lines);
    }
}

/// The block of the docs, by the real command of OpenBao.
#[test]
fn with_the_policy_alone_check_passes_and_without_any_line_of_it_it_fails() {
    BAO.kv("policy/a", &json!({"x": "1"}));
    BAO.kv("policy/q\"", &json!({"x": "2"}));
    BAO.mount("policy", &json!({"type": "kv", "options": {"version": "1"}}));
    BAO.succeeds("POST", "policy/app", &json!({"KEY": "3"}));
    BAO.succeeds("POST", "sys/namespaces/policy-team", &json!({}));
    BAO.succeeds("POST", "policy-team/sys/mounts/kv", &json!({"type": "kv", "options": {"version": "1"}}));
    BAO.succeeds("POST", "policy-team/kv/app", &json!({"x": "4"}));
    let world = World::new();
    let start = |token: &str| {
        let start = BAO.told(world.secret_init()).variable("VAULT_TOKEN", token).variable("A", "vault:secret/data/policy/a#x");
        let start = start.variable("B", "vault:secret/data/policy/q%22#x").variable("VAULT_FROM_PATH", "policy/app");
        start.variable("C", "vault:kv/app?namespace=policy-team#x").in_directory(&world.path)
    };
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md")).unwrap();
    let block = page.split("```sh\n").find(|block| block.starts_with("secret-init policy")).unwrap().split("```").next().unwrap();
    let folders = [binary(), &installed("openbao", "bao")].map(|command| command.parent().unwrap().display().to_string());
    let mut shell = Command::new("sh");
    let told = start("root").command();
    shell.args(["-ec", block]).env_clear().envs(told.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.env("PATH", format!("{}:/usr/bin:/bin", folders.join(":"))).current_dir(&world.path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let policy = std::fs::read_to_string(world.path.join("app.hcl")).unwrap();
    let answer = BAO.succeeds("POST", "auth/token/create", &json!({"policies": ["app"], "no_default_policy": true}));
    let checked = start(answer["auth"]["client_token"].as_str().unwrap()).flag("check");
    checked.finishes().succeeds();
    let lines: Vec<&str> = policy.lines().collect();
    assert_eq!(lines.len(), 4, "{policy}");
    for line in &lines {
        BAO.policy("app", &lines.iter().filter(|other| *other != line).map(|other| [other, "\n"].concat()).collect::<String>());
        assert_eq!(checked.finishes().code(), 77, "without {line}");
    }
    BAO.policy("app", &policy);
    checked.finishes().succeeds();
}
