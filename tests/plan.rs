//! What the plan decides about stores on other machines, before anyone is asked.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use support::{Start, World};

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

// Every key of a secret.

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
