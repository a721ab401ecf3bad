//! What a store lends for a change that does not come about: it is given back at once. The program goes on with what it has, whose lease is its own.

use std::process::Command;

use serde_json::Value;

use crate::leases::{made, role, users};
use crate::rig::{BAO, Store, Watched, container};
use crate::support::files::Small;
use crate::support::{World, eventually};

/// Says with what it runs, and ends with 0 at TERM.
const RUNS: &str = "echo runs $A $USER; trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// The leases of a role that are known to the server, by the users in the database that they are for.
fn lent(role: &str) -> usize {
    let (_, answer) = BAO.request("LIST", &format!("sys/leases/lookup/database/creds/{role}"), &Value::Null);
    let leases = answer["data"]["keys"].as_array().map_or(0, Vec::len);
    assert!(leases <= made(role), "{answer}");
    leases.max(users().matches(&format!("-{role}-")).count())
}

/// So many were made by now, and all are gone but so many. The server ends them in its own time.
#[track_caller]
fn has_lent(role: &str, made_by_now: usize, left: usize) {
    eventually("they were made", || (made(role) >= made_by_now).then_some(()));
    eventually("the others are given back", || (lent(role) == left).then_some(()));
}

fn mount(directory: &std::path::Path, option: &str) {
    let remount = format!("remount,{option}");
    assert!(Command::new("mount").args(["-o", &remount]).arg(directory).status().unwrap().success());
}

#[test]
fn a_start_that_does_not_come_because_a_secret_cannot_be_used_gives_back_what_was_lent_for_it() {
    role("useless", 3600, 7200);
    let (good, bad, world) = (Store::new(), Store::new(), World::new());
    let start = good.told(container(&world)).flag("--on-change=restart").flag("--refresh=24h").variable("A", good.reference("?refresh=5s"));
    let start = start.variable("USER", "${vault:database/creds/useless#username}").variable("B", bad.reference(""));
    let mut watched = Watched::of(world, start.program(["sh", "-c", RUNS]));
    has_lent("useless", 1, 1);
    // No variable can hold it, but that shows when all is fetched.
    bad.put("on\0e");
    good.put("two");
    // It is tried again and again.
    has_lent("useless", 3, 1);
    bad.put("three");
    let again = watched.running.line("runs two");
    assert_ne!(again, format!("runs two {}", watched.first.replace("one ", "")));
    // What the program was started with is not given back, neither now nor then.
    has_lent("useless", 4, 2);
}

#[test]
fn a_start_that_does_not_come_because_a_file_cannot_be_written_gives_back_what_was_lent_for_it() {
    role("unwritte", 3600, 7200);
    let (store, world) = (Store::new(), World::new());
    let small = Small::mounted_at(world.directory(), "64k");
    let start =
        store.told(container(&world)).flag("--on-change=restart").flag("--refresh=24h").variable("A", store.reference("?refresh=5s"));
    let start = start.variable("USER", "${vault:database/creds/unwritte#username}");
    let start = start.variable("PASSWORD_FILE", "vault:database/creds/unwritte#password");
    let mut watched = Watched::of(world, start.program(["sh", "-c", RUNS])).on(small);
    has_lent("unwritte", 1, 1);
    mount(&watched.directory, "ro");
    store.put("two");
    has_lent("unwritte", 3, 1);
    mount(&watched.directory, "rw");
    watched.running.line("runs two");
    has_lent("unwritte", 4, 2);
}

#[test]
fn what_was_lent_to_see_whether_a_start_is_needed_is_given_back_and_the_start_has_its_own() {
    role("lookedat", 3600, 7200);
    let (store, world) = (Store::new(), World::new());
    let start = store.told(container(&world)).flag("--on-change=restart").flag("--refresh=24h").variable("A", store.reference(""));
    let start = start.variable("USER", "${vault:database/creds/lookedat#username}");
    let mut watched = Watched::of(world, start.program(["sh", "-c", RUNS]));
    has_lent("lookedat", 1, 1);
    watched.refresh();
    watched.running.line("runs one");
    has_lent("lookedat", 3, 2);
}

#[test]
fn a_change_that_is_refused_gives_back_what_was_lent_for_it() {
    role("refused", 3600, 7200);
    let (store, world) = (Store::new(), World::new());
    let text = format!(
        "files: [{{ path: A, from: '${{{}}}' }}, {{ path: B, from: '${{vault:database/creds/refused#username}} ${{{}}}' }}]\n\
         rotation: {{ on_change: signal, validate: [sh, -c, '! grep -q bad $SECRET_INIT_STAGED/B'] }}\n",
        store.reference("?refresh=5s"),
        store.reference("?refresh=5s")
    );
    let config = world.file("c.yaml", text);
    let start = store.told(container(&world)).flag("--config").flag(config);
    let mut watched = Watched::start(world, start, "one");
    has_lent("refused", 1, 1);
    store.put("bad");
    has_lent("refused", 2, 1);
    assert_eq!(watched.file().2, b"one");
    store.put("two");
    assert_eq!(watched.running.line("HUP"), "HUP 1 two");
    has_lent("refused", 3, 2);
    watched.ends(1);
}
