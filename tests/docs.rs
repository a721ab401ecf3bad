//! What README and `docs/` say is true: links lead somewhere, commands do what they claim, lists are complete.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use support::{World, binary};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    docs.chain(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|page| root().join(page)))
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The text of the code blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Which test executes a block, by the page, how the block begins, and the test. Where a test takes every block of the page, the beginning is empty.
const EXECUTED: &[(&str, &str, &str)] = &[
    ("README.md", "FROM debian:12-slim", "five_secrets_in_files_reach_the_app_of_a_newcomer"),
    ("README.md", "echo s3cret", "the_demo_of_the_readme_shows_a_secret_reaching_a_program"),
    // It runs this very test.
    ("README.md", "tests/run", "every_block_of_the_docs_is_executed_by_a_test"),
    ("README.md", "services:", "five_secrets_in_files_reach_the_app_of_a_newcomer"),
    ("README.md", "cp ~/secret-init/", "five_secrets_in_files_reach_the_app_of_a_newcomer"),
    ("README.md", "NAME    ", "five_secrets_in_files_reach_the_app_of_a_newcomer"),
    ("docs/aws.md", "export", "the_commands_of_the_docs_give_the_program_what_aws_has_and_the_policy_that_is_shown"),
    ("docs/aws.md", "{", "the_commands_of_the_docs_give_the_program_what_aws_has_and_the_policy_that_is_shown"),
    ("docs/aws.md", "stores:", "the_configuration_of_the_docs_is_good"),
    ("docs/configuration.md", "# yaml-language-server", "the_example_of_the_docs_gives_the_program_exactly_what_it_says"),
    ("docs/configuration.md", "stores:", "the_stores_of_the_docs_are_those_of_the_plan"),
    ("docs/configuration.md", "secret-init generate schema", "the_command_of_the_docs_writes_the_schema_that_the_example_names"),
    ("docs/configuration.md", "NAME    ", "the_plan_of_the_example_is_the_one_that_the_docs_show"),
    ("docs/configuration.md", "tls/..1", "a_group_is_laid_out_as_the_docs_draw_it_and_holds_nothing_else"),
    ("docs/configuration.md", "cd ", "who_opened_a_pair_reads_it_though_it_was_replaced"),
    ("docs/configuration.md", "import os", "who_opened_a_pair_reads_it_though_it_was_replaced"),
    ("docs/containers.md", "FROM ${BASE}", "other_snippets_of_the_docs_stand_in_the_examples"),
    ("docs/containers.md", "docker ", "every_command_of_the_docs_does_what_it_is_there_for"),
    ("docs/containers.md", "echo s3cret", "every_command_of_the_docs_does_what_it_is_there_for"),
    ("docs/containers.md", "chmod 0400", "every_command_of_the_docs_does_what_it_is_there_for"),
    ("docs/containers.md", "      # Compose takes", "other_snippets_of_the_docs_stand_in_the_examples"),
    ("docs/containers.md", "spec:", "the_init_container_of_the_docs_leaves_files_for_a_program_that_knows_nothing"),
    ("docs/command-line.md", "secret-init policy", "with_the_policy_alone_check_passes_and_without_any_line_of_it_it_fails"),
    ("docs/command-line.md", "secret-init generate", "what_the_docs_install_is_found_by_each_shell"),
    ("docs/kubernetes.md", "apiVersion:", "every_manifest_of_the_docs_is_valid_and_a_wrong_field_is_not"),
    ("docs/messages.md", "secret-init: DB_PASSWORD_FILE:", "the_messages_of_the_docs_are_those_of_a_start"),
    ("docs/messages.md", "{\"time\":", "the_json_of_the_docs_is_that_of_a_start"),
    ("docs/monitoring.md", "NAME ", "a_refresh_prints_what_the_docs_show"),
    ("docs/monitoring.md", "scrape_configs:", "a_real_prometheus_that_is_set_up_as_in_the_docs_has_every_metric_of_the_docs"),
    ("docs/monitoring.md", "{\"time\":", "the_record_of_a_start_has_what_the_docs_say"),
    ("docs/pid1.md", "ENTRYPOINT", "other_snippets_of_the_docs_stand_in_the_examples"),
    ("docs/recipes.md", "export VAULT_ADDR=", "a_pool_of_connections_goes_on_with_the_new_password_of_its_database"),
    ("docs/recipes.md", "export PGSERVICEFILE=", "a_pool_of_connections_goes_on_with_credentials_that_end"),
    ("docs/recipes.md", "new=$(openssl", "a_pool_of_connections_goes_on_with_the_new_password_of_its_database"),
    ("docs/recipes.md", "conf=", "nginx_serves_a_renewed_certificate_and_drops_no_download_and_never_serves_a_broken_one"),
    ("docs/recipes.md", "secret-init refresh", "after_a_leak_everything_is_rotated_by_one_command_that_tells_what_changed_and_what_failed"),
    ("docs/recipes.md", "NAME ", "after_a_leak_everything_is_rotated_by_one_command_that_tells_what_changed_and_what_failed"),
    ("docs/recipes.md", "", "every_block_of_the_page_belongs_to_a_recipe_that_is_run_here"),
    ("docs/references.md", "SCHEME:LOCATOR", "the_grammar_of_the_docs_is_that_of_the_help"),
    ("docs/references.md", "export DATABASE_URL=", "the_text_with_a_reference_of_the_docs_becomes_a_url"),
    ("docs/references.md", "# a comment", "the_environment_file_of_the_docs_means_what_it_says"),
    ("docs/rotation.md", "secrets:", "the_rotation_of_the_docs_is_planned_as_the_page_says"),
    ("docs/vault.md", "export", "the_commands_of_the_docs_give_the_program_what_the_server_has_and_the_policy_that_is_shown"),
    ("docs/vault.md", "path ", "the_commands_of_the_docs_give_the_program_what_the_server_has_and_the_policy_that_is_shown"),
    ("docs/vault.md", "stores:", "the_configurations_of_the_docs_are_good"),
    ("compose-examples/aws/README.md", "", "the_example_for_aws_does_what_its_readme_says"),
    ("compose-examples/config-file/README.md", "", "the_example_for_the_configuration_file_does_what_its_readme_says"),
    ("compose-examples/docker-secrets/README.md", "", "the_example_for_docker_secrets_does_what_its_readme_says"),
    ("compose-examples/rotation/README.md", "", "the_example_for_rotation_does_what_its_readme_says"),
    ("compose-examples/vault/README.md", "", "the_example_for_vault_does_what_its_readme_says"),
    ("compose-examples/dotenv/README.md", "", "the_example_for_environment_files_does_what_its_readme_says"),
];

#[test]
fn every_block_of_the_docs_is_executed_by_a_test() {
    let tests: String =
        fs::read_dir(root().join("tests")).unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()).collect();
    let examples = fs::read_dir(root().join("compose-examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("README.md"))
        .filter(|path| path.exists());
    let mut used = vec![false; EXECUTED.len()];
    for path in pages().into_iter().chain(examples) {
        let text = fs::read_to_string(&path).unwrap();
        let page = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let mut is_inside = false;
        for line in text.split('\n').collect::<Vec<_>>().windows(2) {
            if line[0].starts_with("```") {
                is_inside = !is_inside;
                assert!(!is_inside || line[0].len() > 3, "{page}: a block without a language before {:?}", line[1]);
                let row = EXECUTED.iter().position(|(of, beginning, _)| *of == page && line[1].starts_with(beginning));
                assert!(!is_inside || row.is_some(), "{page}: no test executes the block that begins with {:?}", line[1]);
                if is_inside {
                    used[row.unwrap()] = true;
                }
            }
            assert!(
                is_inside || !line[0].is_empty() || !line[1].starts_with("    "),
                "{page}: an indented block, which no test finds: {:?}",
                line[1]
            );
        }
    }
    for ((page, beginning, test), is_used) in EXECUTED.iter().zip(used) {
        assert!(is_used, "{page} has no block that begins with {beginning:?}");
        assert!(tests.contains(&format!("fn {test}()")), "there is no test {test}");
    }
}

/// What stands before the text of a message in the sources.
const OPENINGS: &[&str] = &[
    "Problem::new(",
    "configuration(",
    "Failure::new(",
    "Malformed::new(",
    "Malformed::hint(",
    "complain(&entry, ",
    "complain(entry, ",
    "warn_of_entry(&entry, ",
    "let cause = ",
    "invalid(",
    "failed(",
    "about(path, ",
    "about(&self.path, ",
    "configuration(",
    "self.problem(",
    "faults.add(node.at, ",
    "faults.add(at, ",
    "const EXPECTED: &str = ",
    ".map_err(|errno| (",
];

/// The texts of messages in a source: the first literal after an opening, when nothing but a code or a kind stands between.
fn messages(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    for opening in OPENINGS {
        for (at, _) in source.match_indices(opening) {
            let rest = &source[at + opening.len()..];
            let Some((before, literal)) = rest.split_once('"') else { continue };
            let is_direct = before.len() < 60 && !before.contains([';', '}', ')', '|']) && !before.starts_with("&cause");
            if is_direct && let Some(text) = literal.split('"').next() {
                found.push(text.to_owned());
            }
        }
    }
    found
}

/// A message with `…` for each part that differs.
fn pattern(message: &str) -> String {
    let message = message.replace("${…}", "$[…]");
    let mut parts = message.split(['{', '}']);
    let mut text = parts.next().unwrap().to_owned();
    while let (Some(_), Some(rest)) = (parts.next(), parts.next()) {
        text.push('…');
        text.push_str(rest);
    }
    text.replace("……", "…").replace("$[…]", "${…}")
}

#[test]
fn every_message_is_in_the_page_about_troubleshooting() {
    let page = page("docs/troubleshooting.md").replace("\\|", "|");
    let known: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    let mut folders = vec![root().join("src")];
    let (mut missing, mut count) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                for message in messages(&fs::read_to_string(&path).unwrap()) {
                    count += 1;
                    let pattern = pattern(&message);
                    let is_known = known
                        .iter()
                        .any(|known| known.contains(&pattern) || known.starts_with("expected …") && pattern.starts_with("expected"));
                    if !is_known {
                        missing.push(format!("{}: {pattern}", path.display()));
                    }
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 90, "{count}");
}

#[test]
fn the_messages_of_the_docs_are_those_of_a_start() {
    let shown = blocks(&page("docs/messages.md"), "text").remove(0);
    let outcome = World::new()
        .secret_init()
        .variable("DB_PASSWORD_FILE", "/run/secrets/db")
        .variable("A", "literal:a")
        .variable("B", "literal:b")
        .program(["true"])
        .finishes();
    assert_eq!((outcome.stderr, outcome.status.code()), (shown, Some(66)));
}

#[test]
fn the_json_of_the_docs_is_that_of_a_start() {
    let text = page("docs/messages.md");
    let objects = |lines: &str| lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let shown = objects(&blocks(&text, "json")[0]);
    let start = World::new().secret_init().flag("--log-format=json").variable("DB_PASSWORD_FILE", "/run/secrets/db");
    let mut came = objects(&start.variable("A", "literal:a").variable("B", "literal:b").program(["true"]).finishes().stderr);
    for (came, shown) in came.iter_mut().zip(&shown) {
        came["time"] = shown["time"].clone();
    }
    assert_eq!(came, shown);
    for field in shown[0].as_object().unwrap().keys() {
        assert!(text.contains(&format!("\n| `{field}` |")), "{field}");
    }
}

#[test]
fn the_grammar_of_the_docs_is_that_of_the_help() {
    let grammar = blocks(&page("docs/references.md"), "text").remove(0).replace("[&OPTION=VALUE…]", "").replace("SELECTOR", "KEY");
    let help = World::new().secret_init().flag("--help").finishes().succeeds();
    assert!(help.contains(grammar.trim()), "{grammar} in {help}");
}

#[test]
fn the_text_with_a_reference_of_the_docs_becomes_a_url() {
    let world = World::new();
    let secret = world.file("db.json", r#"{"password":"p@ss/word"}"#);
    let block = blocks(&page("docs/references.md"), "sh").remove(0).replace("/run/secrets/db.json", &secret.display().to_string());
    let script = format!("{block}exec {} -- sh -c 'echo $DATABASE_URL'", binary().display());
    let output = Command::new("sh").args(["-ec", &script]).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "postgresql://app:p%40ss%2Fword@db:5432/app\n");
}

#[test]
fn every_link_leads_to_a_file() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).filter(|link| !link.starts_with("http")) {
            let target = page.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{} links to {link}", page.display());
            count += 1;
        }
    }
    assert!(count > 8);
}

#[test]
fn every_page_of_docs_is_linked_from_the_readme() {
    let readme = page("README.md");
    for page in pages().iter().filter(|page| page.parent() == Some(&root().join("docs"))) {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("(docs/{name})")), "{name}");
    }
}

#[test]
fn the_demo_of_the_readme_shows_a_secret_reaching_a_program() {
    let readme = page("README.md");
    let demo = blocks(&readme, "sh").into_iter().find(|block| block.contains("cargo run")).unwrap();
    let world = World::new();
    let demo = demo
        .replace("cargo run --release", &binary().display().to_string())
        .replace("/dev/shm/demo", &world.path.join("demo").display().to_string());
    let output = Command::new("sh").args(["-ec", &demo]).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap();
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.stderr.as_slice()), ("the program got: s3cret\n", &b""[..]));
}

#[test]
fn the_environment_file_of_the_docs_means_what_it_says() {
    let world = World::new();
    let secret = world.file("db", "s3cret\n");
    let text = blocks(&page("docs/references.md"), "sh").remove(1).replace("/run/secrets/db", &secret.display().to_string());
    let start = world.secret_init().flag("--env-file").flag(world.file(".env", text));
    let stdout = start.shell("printf '%s|' \"$NAME\" \"$OTHER\" \"$TEXT\" \"$DB_PASSWORD\"").finishes().succeeds();
    assert_eq!(stdout, "value|as it is, $x and \\n|two\nlines|s3cret|");
}

#[test]
fn every_name_that_the_docs_call_left_alone_is() {
    let text = page("docs/references.md");
    let list = text.split("Left alone are").nth(1).unwrap().split("values that are neither").next().unwrap();
    let names: Vec<&str> = list.split('`').skip(1).step_by(2).filter(|name| name.ends_with("_FILE")).collect();
    assert!(names.len() > 20, "{names:?}");
    let start = names.iter().fold(World::new().secret_init().flag("plan"), |start, name| start.variable(name, "/nowhere"));
    let plan = start.finishes().succeeds();
    for name in names {
        assert!(plan.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))), "{name} in {plan}");
    }
}

/// A plan of a configuration.
fn planned(configuration: &str) -> String {
    let world = World::new();
    let start = world.secret_init().flag("plan").flag("--config").flag(world.file("c.yaml", configuration));
    start.variable("VAULT_ADDR", "https://127.0.0.1:1").variable("VAULT_TOKEN", "t").finishes().succeeds()
}

#[test]
fn the_rotation_of_the_docs_is_planned_as_the_page_says() {
    let text = page("docs/rotation.md");
    let plan = planned(&blocks(&text, "yaml")[0]);
    for watched in ["vault:secret/data/database", "file:/run/secrets/tls.crt", "file:/run/secrets/tls.key"] {
        assert!(plan.split("WATCHED").nth(1).unwrap().contains(watched), "{watched} in {plan}");
    }
    // And every action that the page names for a program is one.
    let table = text.split("| program | how").nth(1).unwrap().split("\n\n").next().unwrap();
    let actions: Vec<&str> = table.lines().skip(2).map(|row| row.trim_end_matches("` |").rsplit('`').next().unwrap()).collect();
    assert!(actions.len() > 10, "{actions:?}");
    for action in actions {
        planned(&format!("files: [{{ path: a, from: \"file:/run/secrets/a\" }}]\nrotation:\n  on_change: {action}\n"));
    }
}

#[test]
fn every_option_filter_and_store_of_the_docs_is_known_and_the_other_way_round() {
    let text = page("docs/references.md");
    for option in ["optional=true", "default=", "decode=base64", "trim=true", "mode=0440"] {
        assert!(text.contains(&format!("`{option}")), "{option}");
    }
    for filter in ["urlencode", "base64", "base64decode", "json", "trim"] {
        assert!(text.contains(&format!("`{filter}`")), "{filter}");
    }
    let readme = page("README.md");
    for row in secret_init::store::ROWS {
        assert!(text.contains(&format!("`{}:", row.name)) && readme.contains(&format!("`{}:", row.name)), "{}", row.name);
    }
}

#[test]
fn every_exit_code_of_ours_is_in_the_docs_and_in_the_help() {
    let help = World::new().secret_init().flag("--help").finishes().succeeds();
    let text = page("docs/messages.md");
    for (code, meaning) in secret_init::report::Code::ALL {
        let code = code as u8;
        assert!(text.contains(&format!("| {code} |")), "{code} in docs/messages.md");
        assert!(help.contains(&format!("\n  {code:<6} {meaning}\n")), "{code} in --help");
    }
}
