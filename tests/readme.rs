//! README, followed by a newcomer: an empty folder, what README shows, and nothing else.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "containers/engine.rs"]
mod engine;
mod support;

use std::fs;
use std::path::Path;

use engine::{Container, Image, composes, docker_says, root, shell, unique};
use support::{World, binary};

/// The one block of a language that has this text in it.
fn block(language: &str, text: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let found: Vec<&&str> = blocks.iter().filter(|block| block.contains(text)).collect();
    assert_eq!(found.len(), 1, "{text:?} in {blocks:?}");
    (*found[0]).to_owned()
}

/// A folder as the newcomer has it: the app, the Dockerfile of README, five secrets.
fn project(world: &World, base: &Image) {
    // Of two images that are the same to the byte, Docker makes one: a test would take it away from another that still builds on it.
    let app = format!("#!/bin/sh\n# {}\n", unique())
        + "for name in DATABASE_URL JWT_SECRET_KEY OPENAI_API_KEY REDIS_PASSWORD SENTRY_DSN; do eval \"echo $name has \\${#$name}\"; done\n"
        + "echo \"$@\"\nexec sleep 9999\n";
    world.script("myapp", &app);
    world.file("Dockerfile", block("dockerfile", "ENTRYPOINT").replace("debian:12-slim", &base.name));
    world.file("compose.yaml", block("yaml", "services:"));
    for (name, length) in [("database_url", 41), ("jwt_secret_key", 32), ("openai_api_key", 51), ("redis_password", 20), ("sentry_dsn", 60)]
    {
        world.file(&format!("secrets/{name}"), format!("{}\n", "s".repeat(length)));
    }
}

/// README's commands, with this machine's place for the source and name for Compose, in a project of its own.
fn commands(compose: &str, name: &str) -> Vec<String> {
    let source = binary()
        .ancestors()
        .find(|folder| folder.ends_with("target"))
        .map_or_else(|| root().to_owned(), |target| target.parent().unwrap().to_owned());
    let text = block("sh", "docker compose").replace("~/secret-init", &source.display().to_string());
    text.replace("docker compose", &format!("{compose} -p {name}")).lines().map(str::to_owned).collect()
}

struct Down<'a> {
    folder: &'a Path,
    compose: &'static str,
    name: String,
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = shell(self.folder, &format!("{} -p {} down --rmi all --volumes --timeout 0", self.compose, self.name), &[]);
    }
}

#[test]
fn five_secrets_in_files_reach_the_app_of_a_newcomer() {
    let base = Image::base();
    for compose in composes() {
        let world = World::new();
        project(&world, &base);
        let name = unique();
        let down = Down { folder: &world.path, compose, name };
        let mut outputs = Vec::new();
        for command in commands(compose, &down.name) {
            let outcome = shell(&world.path, &command, &[]);
            assert_eq!(outcome.code(), 0, "{command}: {}", outcome.stderr);
            outputs.push(outcome.stdout);
        }
        let container = Container::named(docker_says(["ps", "--quiet", "--filter", &format!("name={}", down.name)]).trim().to_owned());
        container.line("--serve");
        for line in ["DATABASE_URL has 41", "JWT_SECRET_KEY has 32", "OPENAI_API_KEY has 51", "REDIS_PASSWORD has 20", "SENTRY_DSN has 60"]
        {
            container.line(line);
        }
        let check = outputs.last().unwrap();
        assert_shows(check, &block("text", "RESULT"));
        assert_eq!(check.lines().filter(|line| line.ends_with(" ok")).count(), 5, "{check}");
        assert!(!check.contains("sss") && !docker_says(["inspect", &container.name]).contains("sss"));
    }
}

/// Each row that README shows is in the table, but for the version and the time, which differ each time.
fn assert_shows(table: &str, shown: &str) {
    let columns = |line: &str| -> Vec<String> {
        let words: Vec<String> = line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
        words.iter().take(4).chain(words.last()).cloned().collect()
    };
    let rows: Vec<Vec<String>> = table.lines().map(columns).collect();
    for line in shown.lines() {
        assert!(rows.contains(&columns(line)), "{line:?} is not in\n{table}");
    }
    assert!(shown.lines().count() > 2);
}

#[test]
fn a_secret_that_the_user_may_not_read_is_told_in_the_log_as_the_readme_says() {
    let (base, world, compose) = (Image::base(), World::new(), composes()[0]);
    project(&world, &base);
    fs::set_permissions(world.path.join("secrets/redis_password"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let down = Down { folder: &world.path, compose, name: unique() };
    for command in &commands(compose, &down.name)[..2] {
        assert_eq!(shell(&world.path, command, &[]).code(), 0);
    }
    let container = docker_says(["ps", "--all", "--quiet", "--filter", &format!("name={}", down.name)]).trim().to_owned();
    assert_eq!(docker_says(["wait", &container]).trim(), "77");
    let logs = shell(&world.path, &format!("{compose} -p {} logs api", down.name), &[]).stdout;
    for text in [
        "REDIS_PASSWORD_FILE: file:/run/secrets/redis_password: permission denied for uid 1000",
        "hint: ",
        "1 of 5 secrets failed; the program was not started",
    ] {
        assert!(logs.contains(text), "{text} in {logs}");
    }
}

#[test]
fn the_variable_that_the_readme_names_reaches_the_program_and_docker_does_not_see_it() {
    let (base, world) = (Image::base(), World::new());
    project(&world, &base);
    let image = Image { name: unique() };
    let built = shell(&world.path, &format!("cp {} . && docker build -t {} .", binary().display(), image.name), &[]);
    assert_eq!(built.code(), 0, "{}", built.stderr);
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let option = readme.split('`').find(|text| text.starts_with("-e DB_PASSWORD_FILE=")).unwrap();
    let secret = world.file("db_password", "s3cret\n");
    let container = Container::named(unique());
    let run = format!(
        "docker run -d --name {} -v {}:/run/secrets/db_password:ro {option} {} sh -c 'echo got $DB_PASSWORD; exec sleep 9999'",
        container.name,
        secret.display(),
        image.name
    );
    assert_eq!(shell(&world.path, &run, &[]).code(), 0);
    container.line("got s3cret");
    assert!(!docker_says(["inspect", &container.name]).contains("s3cret"));
}
