//! What refers to a secret, where it goes, and what is said when it cannot be had.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use support::World;

#[test]
fn a_file_variable_becomes_the_content_of_its_file_less_newlines_at_the_end() {
    let world = World::new();
    let path = world.file("db", " s3cret\n\n");
    let stdout = world.secret_init().variable("DB_PASSWORD_FILE", &path).shell("env | grep -a ^DB").finishes().succeeds();
    assert_eq!(stdout, "DB_PASSWORD= s3cret\n");
}

#[test]
fn a_file_variable_with_a_reference_becomes_the_path_of_a_file_of_mode_0400() {
    let world = World::new();
    let path = world.file("db", "s3cret\n");
    let start = world.secret_init().variable("DB_PASSWORD_FILE", format!("${{file:{}}}", path.display())).directory(world.directory());
    let stdout = start.shell("echo $DB_PASSWORD_FILE; stat -c %a $DB_PASSWORD_FILE; cat $DB_PASSWORD_FILE").finishes().succeeds();
    assert_eq!(stdout, format!("{}/DB_PASSWORD\n400\ns3cret\n", world.directory().display()));
}

#[test]
fn a_missing_file_ends_the_start_and_is_named() {
    let world = World::new();
    let path = world.path.join("nope");
    let reference = format!("file:{}", path.display());
    world.secret_init().variable("DB_PASSWORD_FILE", &path).shell("echo started").finishes().fails(
        66,
        &[
            &format!("DB_PASSWORD_FILE: {reference}: no such file"),
            "hint: mount the secret there, or leave the variable alone with --skip DB_PASSWORD_FILE",
            "1 of 1 secret failed; the program was not started",
        ],
    );
}
