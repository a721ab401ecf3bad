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
