//! The configuration file: what it says reaches the program, what is wrong with it is told at once and without a value, and no file takes long.
//!
//! A right document stands in `r#"…"#`, and `tests/schema.rs` tries the JSON Schema with all of them; a wrong one stands in plain quotes.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures, for --nocapture")]
#![allow(clippy::needless_raw_string_hashes, reason = "they mark a right document")]

mod support;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use support::files::{after, mode_of, names_in, set_mode};
use support::{Outcome, Start, World};

/// A start with a configuration in its own folder, `c.yaml`, in which `/W/` is that of the world.
fn configured(world: &World, text: &str) -> Start {
    world.file("c.yaml", text.replace("/W/", &format!("{}/", world.path.display())));
    world.secret_init().in_directory(&world.path).flag("--config").flag("c.yaml")
}

/// Prints each variable whose name begins with T_, sorted, with its end marked.
const SHOW: &str = "env -0 | tr '\\0\\n' '\\n~' | grep -a ^T_ | sort | sed 's/$/$/'";

fn shown(start: Start) -> String {
    start.shell(SHOW).finishes().succeeds()
}

/// The secrets that most of the tests use.
fn with_secrets(world: &World) {
    world.file("db.json", r##"{"user": "app", "password": "p@ss", "ports": [5432]}"##);
    world.file("token", "t0ken\n");
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap()
}

fn blocks(text: &str, language: &str) -> Vec<String> {
    text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

const NOT_STARTED: &str = "the program was not started";

// What the file says.

/// The example of the documentation, with its secrets in the world.
fn example(world: &World) -> Start {
    world.file("run/secrets/database.json", r##"{"user": "app", "password": "p@ss"}"##);
    world.file("run/secrets/keys.json", r##"{"jwt": "j", "api": "a"}"##);
    for name in ["license", "tls.crt", "tls.key"] {
        world.file(&format!("run/secrets/{name}"), format!("the {name}\n"));
    }
    configured(world, &blocks(&page(), "yaml")[0].replace("/run/secrets/", "/W/run/secrets/")).directory(world.directory())
}

#[test]
fn the_example_of_the_docs_gives_the_program_exactly_what_it_says() {
    let world = World::new();
    let expected = format!(
        "DATABASE_URL=postgresql://app:p%40ss@db:5432/app\nJWT_SECRET_KEY=j\nPATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\nPORT=8080\nSECRET_INIT_DIR={0}\n\
         {0}/license.txt 400 0 0 the license\n{0}/tls/tls.crt 444 0 0 the tls.crt\n{0}/tls/tls.key 400 1000 1000 the tls.key\n",
        world.directory().display()
    );
    let script = "env | grep -Ev '^(PWD|_|SHLVL)=' | sort; for file in $SECRET_INIT_DIR/* $SECRET_INIT_DIR/tls/*; do
        [ -d $file ] || echo $file $(stat -L -c '%a %u %g' $file) $(cat $file); done";
    for mode in ["--group", "--exec"] {
        assert_eq!(example(&world).flag(mode).shell(script).finishes().succeeds(), expected, "{mode}");
    }
}

#[test]
fn the_plan_of_the_example_is_the_one_that_the_docs_show() {
    let world = World::new();
    let plan = example(&world).flag("plan").finishes().succeeds().replace(&format!("{}/", world.path.display()), "/");
    let words = |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(words(&plan), words(&blocks(&page(), "text")[0]));
    let check = example(&world).flag("check").finishes().succeeds();
    assert_eq!((check.lines().count(), check.matches(" ok\n").count()), (7, 6), "{check}");
    assert!(!world.directory().join("tls").exists());
}

#[test]
fn write_makes_the_files_of_the_example_and_leaves_its_variables_out() {
    let world = World::new();
    let outcome = example(&world).flag("write").finishes();
    let warning = |name: &str| format!("secret-init: warning: {name}: is not delivered: only files are, without a program to run\n");
    assert_eq!((outcome.code(), outcome.stderr), (0, warning("DATABASE_URL") + &warning("JWT_SECRET_KEY")));
    assert_eq!(names_in(world.directory()), [".secret-init.files", "license.txt", "tls"]);
    assert_eq!(fs::read_to_string(world.directory().join("tls/tls.key")).unwrap(), "the tls.key\n");
}

#[test]
fn every_text_of_the_docs_with_a_name_in_it_becomes_what_stands_beside_it() {
    let world = World::new();
    world.file("db.json", r##"{"user": "app", "password": "p@ss"}"##);
    let table = page().split("| a text | becomes |\n|---|---|\n").nth(1).unwrap().split("\n\n").next().unwrap().replace("\\|", "\u{1}");
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().trim_matches('`').replace('\u{1}', "|")).collect::<Vec<_>>();
    let (mut text, mut expected) = ("secrets:\n  database: file:/W/db.json\nenv:\n".to_owned(), String::new());
    for (index, row) in table.lines().enumerate() {
        let [_, written, becomes, _] = cells(row).try_into().unwrap();
        writeln!(text, "  T_{index}: '{written}'").unwrap();
        writeln!(expected, "T_{index}={becomes}$").unwrap();
    }
    assert_eq!((shown(configured(&world, &text)), table.lines().count()), (expected, 8));
}

#[test]
fn texts_are_taken_as_they_are_written() {
    let world = World::new();
    let text = r#"
env:
  T_A: 8080
  T_B: yes
  T_C: 0400
  T_D: 1e3
  T_E: 2024-01-01
  T_F: |
    a
      $b #c
  T_G: >-
    a
    b
  T_H: "a\n\tb \u00e9 \x41"
  T_I: 'a\n ''b'''
  T_J: ""
  T_K: a:b c#d
  T_L: "null"
  T_M: 1_000
  T_N: True
  T_O: é ✓
  T_P: >
    a
    b

  ? T_Q
  : x
  "T_R": x
"#;
    let expected = "T_A=8080$\nT_B=yes$\nT_C=0400$\nT_D=1e3$\nT_E=2024-01-01$\nT_F=a~  $b #c~$\nT_G=a b$\nT_H=a~\tb é A$\nT_I=a\\n 'b'$\nT_J=$\n\
                    T_K=a:b c#d$\nT_L=null$\nT_M=1_000$\nT_N=True$\nT_O=é ✓$\nT_P=a b~$\nT_Q=x$\nT_R=x$\n";
    assert_eq!(shown(configured(&world, text)), expected);
}

#[test]
fn what_only_looks_like_a_name_stays() {
    let world = World::new();
    let text = r#"
secrets: { db: "literal:x" }
env:
  T_A: "$db ${db:-y} ${db:?e} ${db:+y} ${db:=y} ${ other } ${other |urlencode} ${} ${1a} ${a.b} $$ ${db"
  T_B: "$$${db}"
  T_C: "$${unknown} $${HOME} $${vault:a#b} $${db.user} $${ db }"
  T_D: "${db}${db}"
"#;
    let start = configured(&world, text);
    let lines = ["c.yaml:4:8: T_A: no } closes ${", "hint: a literal ${ is written as $${", "1 problem in the plan; a start would fail"];
    start.flag("plan").finishes().fails(78, &lines);
    let start = configured(&world, &text.replace(" ${db\"", "\""));
    let expected = "T_A=$db ${db:-y} ${db:?e} ${db:+y} ${db:=y} ${ other } ${other |urlencode} ${} ${1a} ${a.b} $$$\nT_B=$${db}$\n\
         T_C=${unknown} ${HOME} ${vault:a#b} ${db.user} ${ db }$\nT_D=xx$\n";
    assert_eq!(shown(start), expected);
}

#[test]
fn what_nearly_is_the_name_of_a_secret_does_not_reach_the_program_as_text() {
    for text in [
        "${db.user}",
        "${db:user}",
        "${db|trim}",
        "${db |trim}",
        "${ db#user}",
        "${db #user}",
        "${ db }",
        "${\tdb}",
        "${ db",
        "${db }",
        "${db/user}",
        "${ db:-y}",
    ] {
        let lines = [
            ":2:11: A: what is around the name of a secret in ${…} has no meaning",
            "hint: write ${NAME}, ${NAME#KEY} or ${NAME | FILTER}; a literal ${ is written as $${",
        ];
        refuses(&format!("secrets: {{ db: 'literal:x' }}\nenv: {{ A: 'hunter2 {text}' }}"), &lines);
    }
}

#[test]
fn parts_options_and_filters_stand_after_a_name() {
    let world = World::new();
    with_secrets(&world);
    world.file(".env", "A=1\nB='two words'\n");
    let text = r##"
secrets:
  db: file:/W/db.json
  token: { from: "file:/W/token?trim=true" }
  none: file:/W/none?optional=true
  environment: dotenv:/W/.env
  credential: cred:c
  text: "literal:vault:x#y"
env:
  T_A: "${db#/ports/0}"
  T_B: "${token | base64}"
  T_C: "a${none}b"
  T_D: "${none}"
  T_E: "${none?default=d%26e}"
  T_F: "${environment#B}"
  T_G: "${credential}"
  T_H: "${text}"
  T_I: "${db?trim=true&default=x#nothing}"
"##;
    world.file("credentials/c", "c");
    let start = configured(&world, text).variable("CREDENTIALS_DIRECTORY", world.path.join("credentials"));
    let expected = "T_A=5432$\nT_B=dDBrZW4=$\nT_C=ab$\nT_E=d&e$\nT_F=two words$\nT_G=c$\nT_H=vault:x#y$\nT_I=x$\n";
    assert_eq!(shown(start), expected);
}

#[test]
fn a_named_secret_is_read_once_however_often_it_is_used() {
    let world = World::new();
    with_secrets(&world);
    let text = r##"
secrets: { db: "file:/W/db.json" }
env: { T_A: "${db#user}", T_B: "${db#user}:${db#password | urlencode}", T_C: "${db}", T_D: "file:/W/db.json#user", T_E_FILE: "${db}" }
files: [{ path: a, from: "${db}" }, { path: b/c, from: "${db#password}", group: g }]
"##;
    let trace = world.path.join("trace");
    let start = configured(&world, text).directory(world.directory());
    let words = ["strace", "-f", "-qq", "-e", "trace=open,openat,openat2", "-o", trace.to_str().unwrap()];
    let stdout = start.under(words).shell("echo $T_B; cat $SECRET_INIT_DIR/b/c").finishes().succeeds();
    assert_eq!(stdout, "app:p%40ss\np@ss");
    let calls = fs::read_to_string(trace).unwrap();
    assert_eq!((calls.matches("/db.json").count(), calls.matches("\"c.yaml\"").count()), (1, 1), "{calls}");
}

#[test]
fn a_reference_as_a_whole_counts_everywhere_in_the_file() {
    let world = World::new();
    with_secrets(&world);
    // In the container this one would be left alone: it is not below a secret folder.
    let start = configured(&world, r#"env: { T_A: "file:/W/token?trim=true", T_B_ARN: "literal:x" }"#);
    assert_eq!(shown(start), "T_A=t0ken$\nT_B_ARN=x$\n");
}

#[test]
fn name_file_goes_both_ways() {
    let world = World::new();
    with_secrets(&world);
    let text = r##"
secrets: { db: "file:/W/db.json" }
env:
  T_A_FILE: /W/token
  T_B_FILE: "${db#password}"
  T_C_FILE: file:/W/token
  T_D_FILE: ""
  T_E_FILE: relative
  FILE__T_F: /W/token
"##;
    let start = configured(&world, text).directory(world.directory()).shell(&format!("{SHOW}; cat $T_B_FILE $T_C_FILE"));
    let directory = world.directory().display().to_string();
    let expected = format!(
        "T_A=t0ken$\nT_B_FILE={directory}/T_B$\nT_C_FILE={directory}/T_C$\nT_D_FILE=$\nT_E_FILE=relative$\nT_F=t0ken$\np@sst0ken\n"
    );
    assert_eq!(start.finishes().succeeds(), expected);
}

#[test]
fn the_file_may_say_what_home_is_to_another_user() {
    let world = World::new();
    let start = configured(&world, r#"env: { HOME: /srv/app, T_A: "", T_A_FILE: /W/token }"#).flag("--user=4242:4343");
    world.file("token", "t0ken");
    let script = "env | grep -E '^(HOME|USER|T_)' | sort";
    assert_eq!(start.shell(script).finishes().succeeds(), "HOME=/srv/app\nT_A=t0ken\nUSER=4242\n");
}

#[test]
fn the_variable_names_the_file_too_and_the_program_does_not_see_it() {
    let world = World::new();
    let path = world.file("c.yaml", r#"env: { T_A: "literal:x" }"#);
    let start = world.secret_init().variable("SECRET_INIT_CONFIG", &path).shell("env | grep -c SECRET_INIT; echo $T_A");
    for mode in ["--group", "--exec"] {
        assert_eq!(start.clone().flag(mode).finishes().succeeds(), "0\nx\n", "{mode}");
    }
}

#[test]
fn a_file_with_nothing_in_it_says_nothing() {
    let world = World::new();
    for text in ["", "\n", "# a comment\n", "---\n", "---\n...\n", "~", "null", "{}", "\u{feff}", "\u{feff}# a\n"] {
        assert_eq!(shown(configured(&world, text).variable("T_A", "x")), "T_A=x$\n", "{text:?}");
    }
    for text in
        [r#"{stores: , secrets: ~, env: null, files: , rotation: }"#, r#"{stores: {}, secrets: {}, env: {}, files: [], rotation: {}}"#]
    {
        let stderr = configured(&world, text).flag("--log-level=error").program(["true"]).finishes().stderr;
        assert_eq!(stderr, "", "{text:?}");
    }
}

#[test]
fn a_byte_order_mark_and_the_ends_of_lines_of_windows_are_no_harm() {
    let world = World::new();
    let start = configured(&world, "\u{feff}---\r\nenv:\r\n  T_A: |\r\n    a\r\n    b\r\n  T_B: \"literal:x\"\r\n");
    assert_eq!(shown(start), "T_A=a~b~$\nT_B=x$\n");
}

// What wins.

#[test]
fn a_flag_wins_over_the_variable() {
    let world = World::new();
    let other = world.file("other.yaml", r#"env: { T_A: other, T_B: other }"#);
    let start = configured(&world, r#"env: { T_A: "literal:x" }"#).variable("SECRET_INIT_CONFIG", other);
    assert_eq!(shown(start), "T_A=x$\n");
}

/// A start with something to warn of: the configuration, more of the start, what the program gets, and the warning.
type Warned = (&'static str, fn(&World, Start) -> Start, &'static str, &'static [&'static str]);

const WARNED: &[Warned] = &[
    (
        r#"env: { T_A: "literal:of the file" }"#,
        |_, start| start.variable("T_A", "of the container"),
        "T_A=of the container$\n",
        &["c.yaml:1:13: T_A: is set in the container or by --env-file, which win over the configuration", "hint: remove one of the two"],
    ),
    (
        r#"env: { T_A: "literal:of the file" }"#,
        |world, start| start.flag("--env-file").flag(world.file(".env", "T_A=of the environment file")),
        "T_A=of the environment file$\n",
        &["c.yaml:1:13: T_A: is set in the container or by --env-file, which win over the configuration", "hint: remove one of the two"],
    ),
    (
        r#"env: { T_A: "literal:of the file" }"#,
        |world, start| start.variable("T_A_FILE", world.file("token", "t0ken\n")),
        "T_A=t0ken$\n",
        &[
            "c.yaml:1:13: T_A: T_A_FILE is set in the container or by --env-file, which win over the configuration",
            "hint: remove one of the two",
        ],
    ),
    (
        r#"env: { T_A: "literal:of the file" }"#,
        |world, start| start.variable("FILE__T_A", world.file("token", "t0ken\n")),
        "T_A=t0ken$\n",
        &[
            "c.yaml:1:13: T_A: FILE__T_A is set in the container or by --env-file, which win over the configuration",
            "hint: remove one of the two",
        ],
    ),
    (
        // A warning, and not two of them.
        r#"env: { T_A: "literal:of the file" }"#,
        |world, start| start.flag("--env-file").flag(world.file(".env", "T_A=of the environment file")).variable("T_A", "of the container"),
        "T_A=of the container$\n",
        &["c.yaml:1:13: T_A: is set in the container or by --env-file, which win over the configuration", "hint: remove one of the two"],
    ),
    (
        r#"env: { T_A: of the container }"#,
        |world, start| start.flag("--env-file").flag(world.file(".env", "T_A=of the environment file")).variable("T_A", "of the container"),
        "T_A=of the container$\n",
        &["T_A: is set in the container, which wins over --env-file", "hint: remove one of the two"],
    ),
    (
        r#"env: { T_A_FILE: /W/token }"#,
        |_, start| start.variable("T_A", "of the container"),
        "T_A=of the container$\n",
        &["c.yaml:1:18: T_A_FILE: is ignored, since T_A is set", "hint: unset one of the two; T_A wins"],
    ),
    (
        r#"env: { T_A_FILE: /W/token, T_A: of the file }"#,
        |_, start| start,
        "T_A=of the file$\n",
        &["c.yaml:1:18: T_A_FILE: is ignored, since T_A is set", "hint: unset one of the two; T_A wins"],
    ),
    (
        r#"{ secrets: { a: "literal:x", b: "file:/W/none" }, env: { T_A: "${a}$${b} ${b:-y}" } }"#,
        |_, start| start,
        "T_A=x${b} ${b:-y}$\n",
        &["c.yaml:1:30: secrets.b: no text in env: or files: uses this secret", "hint: write ${b} or ${b#KEY} there, or remove it"],
    ),
    (
        // What lost to the container would have used it.
        r#"{ secrets: { a: "literal:x" }, env: { T_A: "${a}" } }"#,
        |_, start| start.variable("T_A", "of the container"),
        "T_A=of the container$\n",
        &["c.yaml:1:44: T_A: is set in the container or by --env-file, which win over the configuration", "hint: remove one of the two"],
    ),
    (
        r#"{ env: { T_B: "${a}", T_A: "${a}" }, secrets: { a: "file:/W/none?refresh=5m&default=x" } }"#,
        |_, start| start,
        "T_A=x$\nT_B=x$\n",
        &[
            "c.yaml:1:28: T_A: file:/W/none?default=…&refresh=300s: a change of it does not reach a program that runs, which has it in its environment",
            "hint: use on_change: restart (--on-change restart), or deliver it as a file: by files: in the configuration",
        ],
    ),
];

#[test]
fn what_is_set_in_two_places_and_what_a_change_cannot_reach_is_warned_of_and_strictly_an_error() {
    for (text, more, expected, lines) in WARNED {
        let world = World::new();
        let start = more(&world, configured(&world, text)).shell(SHOW);
        let outcome = start.finishes();
        let lines: Vec<String> = lines.iter().map(|line| line.replace("/W/", &format!("{}/", world.path.display()))).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (first, hints) = lines.split_first().unwrap();
        let warning =
            ["warning: ", first, "\n"].concat() + &hints.iter().map(|hint| ["secret-init: ", hint, "\n"].concat()).collect::<String>();
        let warning = format!("secret-init: {warning}");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr, outcome.status.code()), (*expected, warning, Some(0)), "{text}");
        start.flag("--strict").finishes().fails(78, &[&lines[..], &["1 problem in the plan; the program was not started"]].concat());
    }
}

#[test]
fn equal_values_and_an_empty_variable_of_the_container_are_nothing_to_warn_of() {
    let world = World::new();
    let text = r#"env: { T_E: "", T_A: same, T_B: "literal:of the file", T_C: "literal:x", T_D_FILE: /W/token }"#;
    world.file("token", "t0ken");
    let start = configured(&world, text).flag("--strict");
    let start = start.variable("T_A", "same").variable("T_B", "").variable("T_C_FILE", "").variable("T_D", "").variable("T_E", "x");
    let outcome = start.shell(SHOW).finishes();
    // An empty text is a value like another, when the file has it.
    let lines = [
        "c.yaml:1:13: T_E: is set in the container or by --env-file, which win over the configuration",
        "hint: remove one of the two",
        "1 problem in the plan; the program was not started",
    ];
    outcome.fails(78, &lines);
    let start = configured(&world, &text.replace("T_E: \"\", ", "")).flag("--strict");
    let start = start.variable("T_A", "same").variable("T_B", "").variable("T_C_FILE", "").variable("T_D", "");
    assert_eq!(shown(start), "T_A=same$\nT_B=of the file$\nT_C=x$\nT_C_FILE=$\nT_D=t0ken$\n");
}

#[test]
fn a_variable_of_the_container_that_is_left_alone_wins_over_nothing() {
    let world = World::new();
    let start = configured(&world, r#"env: { T_TLS_CERT: "literal:x", T_B: "literal:y" }"#).flag("--skip=T_B_FILE");
    let start = start.variable("T_TLS_CERT_FILE", "/etc/tls.crt").variable("T_B_FILE", "/etc/b");
    assert_eq!(shown(start), "T_B=y$\nT_B_FILE=/etc/b$\nT_TLS_CERT=x$\nT_TLS_CERT_FILE=/etc/tls.crt$\n");
}

#[test]
fn skip_is_about_the_variables_of_the_container_and_not_about_those_of_the_file() {
    let world = World::new();
    with_secrets(&world);
    let text = r##"{ secrets: { db: "file:/W/db.json" }, env: { T_A: "${db#password}", T_B_FILE: /W/token } }"##;
    let start = configured(&world, text).flag("--skip=T_*").variable("T_C", "${literal:x}");
    assert_eq!(shown(start), "T_A=p@ss$\nT_B=t0ken$\nT_C=${literal:x}$\n");
}

// Files.

#[test]
fn files_have_their_paths_modes_and_owners() {
    let world = World::new();
    with_secrets(&world);
    let text = r##"
secrets: { db: "file:/W/db.json" }
files:
  - { path: a, from: "${db#password}" }
  - { path: b/c/d.e, from: "file:/W/token", mode: 0440, owner: "1000:50" }
  - { path: b/c/f, from: "user=${db#user}\n", mode: "0644", owner: "1001:1001" }
  - { path: b/g, from: "file:/W/token?mode=440" }
"##;
    let script = "cd $SECRET_INIT_DIR; stat -c '%n %a %u:%g' . a b b/c b/c/* b/g; cat a b/c/f";
    let start = configured(&world, text).directory(world.directory()).shell(script);
    let expected = "a 400 0:0\nb 711 0:0\nb/c 711 0:0\nb/c/d.e 440 1000:50\nb/c/f 644 1001:1001\nb/g 440 0:0\np@ssuser=app\n";
    assert_eq!(start.finishes().succeeds(), format!(". 711 0:0\n{expected}"));
    // Without an owner it is the program's user.
    let as_user = start.flag("--user=4242:4343").shell("cd $SECRET_INIT_DIR; stat -c '%n %a %u:%g' a b/c/d.e b/g; cat b/c/f");
    assert_eq!(as_user.finishes().succeeds(), "a 400 4242:4343\nb/c/d.e 440 1000:50\nb/g 440 4242:4343\nuser=app\n");
}

#[test]
fn an_owner_is_found_by_name_or_number() {
    let world = World::new();
    let passwd = world.file("passwd", "root:x:0:0::/root:/bin/sh\napp:x:1234:1235::/srv/app:/bin/sh\n");
    let group = world.file("group", "root:x:0:\napp:x:1235:\nssl:x:50:www\n");
    let binds = format!("mount --bind {} /etc/passwd && mount --bind {} /etc/group", passwd.display(), group.display());
    let text = r#"
files:
  - { path: a, from: "literal:x", owner: app }
  - { path: b, from: "literal:x", owner: "app:ssl" }
  - { path: c, from: "literal:x", owner: 1234 }
  - { path: d, from: "literal:x", owner: "7:8" }
  - { path: e, from: "literal:x", owner: root }
"#;
    let start = after(configured(&world, text), &binds).directory(world.directory());
    let stdout = start.shell("cd $SECRET_INIT_DIR; stat -c '%n %u:%g' *").finishes().succeeds();
    assert_eq!(stdout, "a 1234:1235\nb 1234:50\nc 1234:1235\nd 7:8\ne 0:0\n");
}

#[test]
fn an_owner_that_cannot_be_had_is_told_for_each_file() {
    let world = World::new();
    let text = r#"
files:
  - { path: a, from: "literal:x", owner: nobody-here }
  - { path: b, from: "literal:x", owner: "0:nothing-here" }
  - { path: c, from: "literal:x", owner: 4242 }
"#;
    let lines = [
        "c.yaml:3:5: a: owner: nobody-here: no such user in /etc/passwd",
        "hint: give numbers, UID:GID, which need no entry",
        "c.yaml:4:5: b: owner: 0:nothing-here: no such group in /etc/group",
        "hint: give the group's number",
        "c.yaml:5:5: c: owner: 4242: the user has no entry in /etc/passwd",
        "hint: give the group too, as UID:GID",
    ];
    for mode in ["--group", "--exec"] {
        let start = configured(&world, text).directory(world.directory()).flag(mode).shell("echo started");
        start.finishes().fails(78, &[&lines[..], &[NOT_STARTED]].concat());
    }
    configured(&world, text)
        .directory(world.directory())
        .flag("write")
        .finishes()
        .fails(78, &[&lines[..], &["nothing was written"]].concat());
    assert_eq!(names_in(world.directory()), [""; 0]);
}

#[test]
fn a_secret_that_cannot_be_had_is_told_with_its_place() {
    let world = World::new();
    with_secrets(&world);
    let text = r##"
secrets: { db: "file:/W/db.json" }
env:
  T_A: "${db#usr}"
  T_B_FILE: /W/none
files: [{ path: a, from: "${db#usr}" }]
"##;
    let path = world.path.display();
    let lines = [
        &format!("c.yaml:4:8: T_A: file:{path}/db.json#usr: no such key"),
        "hint: add ?optional=true or ?default=… if it may be missing",
        &format!("c.yaml:5:13: T_B_FILE: file:{path}/none: no such file"),
        "hint: mount the secret there, or write NAME: \"${file:/PATH?optional=true}\" if it may be missing",
        &format!("c.yaml:6:9: a: file:{path}/db.json#usr: no such key"),
        "hint: add ?optional=true or ?default=… if it may be missing",
        "3 of 3 secrets failed; the program was not started",
    ];
    configured(&world, text).directory(world.directory()).shell("echo started").finishes().fails(66, &lines);
}

#[test]
fn only_root_with_its_capability_gives_files_away() {
    let world = World::new();
    set_mode(&world.path, 0o777);
    let text = r#"files: [{ path: a, from: "literal:x", owner: "4242:4343" }, { path: b, from: "literal:x" }]"#;
    let start = configured(&world, text).directory(world.path.join("of-its-own")).shell("echo started");
    let lines = |uid: &str| {
        [
            format!("c.yaml:1:9: a: owner: 4242:4343: only root can give files away, with the capability CHOWN; this is uid {uid}"),
            "hint: leave the owner out, or let the container start as root with cap_add: [CHOWN] and give the program its user with --user"
                .into(),
            NOT_STARTED.into(),
        ]
    };
    for (start, uid) in [(start.clone().as_user(1000), "1000"), (start.clone().under(["setpriv", "--bounding-set", "-chown"]), "0")] {
        start.finishes().fails(71, &lines(uid).each_ref().map(String::as_str));
    }
    // Its own owner needs no privilege.
    let start = configured(&world, &text.replace("4242:4343", "1000:1000")).as_user(1000).directory(world.path.join("of-its-own"));
    assert_eq!(start.shell("cat $SECRET_INIT_DIR/a").finishes().succeeds(), "x");
}

#[test]
fn an_optional_secret_that_is_absent_makes_no_file_and_takes_an_earlier_one_away() {
    let world = World::new();
    let source = world.file("source", "x");
    let text = r#"
secrets: { s: "file:/W/source?optional=true" }
files: [{ path: a/b, from: "${s}" }, { path: c, from: "${s}" }, { path: d, from: "before ${s} after" }]
"#;
    let start = configured(&world, text).directory(world.directory()).shell("cd $SECRET_INIT_DIR; find -type f ! -name '.*' | sort; cat d");
    assert_eq!(start.finishes().succeeds(), "./a/b\n./c\n./d\nbefore x after");
    fs::remove_file(source).unwrap();
    assert_eq!(start.finishes().succeeds(), "./d\nbefore  after");
    assert_eq!(names_in(world.directory()), [".secret-init.files", "d"]);
}

#[test]
fn what_stands_in_the_way_of_a_directory_is_named_and_not_followed() {
    let world = World::new();
    let (directory, outside) = (world.directory(), world.path.join("outside"));
    fs::create_dir(&outside).unwrap();
    let start = configured(&world, r#"files: [{ path: a/b, from: "literal:x" }]"#).directory(&directory).shell("echo started");
    let way = directory.join("a");
    let path = directory.display();
    let obstacles: [fn(&Path, &Path); 3] = [
        |way, outside| std::os::unix::fs::symlink(outside, way).unwrap(),
        |way, _| fs::write(way, "x").unwrap(),
        |way, _| nix::unistd::mkfifo(way, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap(),
    ];
    for obstacle in obstacles {
        obstacle(&way, &outside);
        let lines = [
            &format!("a/b: {path}/a: cannot be made or opened: not a directory"),
            "hint: a file or a link has the name of the directory; remove it",
            NOT_STARTED,
        ];
        start.finishes().fails(73, &lines);
        assert_eq!(names_in(&outside), [""; 0]);
        fs::remove_file(&way).unwrap();
    }
    fs::create_dir_all(way.join("b")).unwrap();
    let lines =
        [&format!("a/b: {path}/a/b: cannot be replaced: is a directory"), "hint: a directory has this name; remove it", NOT_STARTED];
    start.finishes().fails(73, &lines);
}

#[test]
fn directories_that_are_empty_go_with_their_files_and_others_stay() {
    let world = World::new();
    let directory = world.directory();
    let write = |text: &str| configured(&world, text).directory(&directory).flag("write").finishes().succeeds();
    write(r#"files: [{ path: a/b/c, from: "literal:x" }, { path: d/e/f, from: "literal:x" }, { path: g, from: "literal:x" }]"#);
    fs::write(directory.join("d/mine"), "the user's").unwrap();
    write(r#"files: [{ path: g, from: "literal:x" }]"#);
    assert_eq!(names_in(&directory), [".secret-init.files", "d", "g"]);
    assert_eq!((names_in(directory.join("d")), mode_of(directory.join("d"))), (vec!["mine".to_owned()], 0o711));
}

// What is wrong.

/// What `plan` says to a file with a mistake in it, beginning with the name of the file; then how many problems there are.
#[track_caller]
fn refuses(text: &str, lines: &[&str]) {
    let world = World::new();
    let lines: Vec<String> =
        lines.iter().map(|line| if line.starts_with(':') { format!("c.yaml{line}") } else { (*line).to_owned() }).collect();
    let count = lines.iter().filter(|line| !line.starts_with("hint:")).count();
    let summary = format!("{count} problem{} in the plan; a start would fail", if count == 1 { "" } else { "s" });
    let lines: Vec<&str> = lines.iter().map(String::as_str).chain([summary.as_str()]).collect();
    configured(&world, text).flag("plan").finishes().fails(78, &lines);
}

const ALL_KEYS: &str = "expected the keys stores, secrets, env, files, rotation";
const FILE_KEYS: &str = "expected the keys path, from, mode, owner, group";

#[test]
fn each_mistake_is_told_with_its_place() {
    let text = "a text; an empty one is written \"\"";
    let path = "a path below the directory, like db or tls/tls.key: parts of A-Z a-z 0-9 _ . -, none of which begins with a dot";
    let reference = "a reference: SCHEME:LOCATOR, like file:/run/secrets/db";
    let name = "a name of letters, digits, _ and -, which begins with a letter or _";
    let change = "one of signal, restart, exit, none, {signal: HUP}, {exec: [program, argument]}, {http: URL}, {exit: CODE}";
    let file = |rest: &str| format!("files: [{{ path: a, from: 'literal:x', {rest} }}]");
    let rotation = |rest: &str| format!("rotation: {{ {rest} }}");
    let vault = |rest: &str| format!("stores: {{ vault: {{ {rest} }} }}");
    for (document, place, expected) in [
        ("env: { A: [x] }".to_owned(), "1:11: env.A", text),
        ("env: { A: { b: c } }".to_owned(), "1:11: env.A", text),
        ("env: { A: }".to_owned(), "1:9: env", text),
        ("env: { A: ~ }".to_owned(), "1:11: env", text),
        ("env: { A: null }".to_owned(), "1:11: env", text),
        // What looks like a name may be a part of a text with a comma.
        ("env: { A: a,hunter2 }".to_owned(), "1:21: env", text),
        ("secrets: { a: file:/a,hunter2 }".to_owned(), "1:31: secrets", reference),
        ("env: { A: \"a\\0b\" }".to_owned(), "1:11: env.A", text),
        ("env: { 'A B': c }".to_owned(), "1:8: env", "the name of a variable: letters, digits, _ . and -"),
        ("env: { 'A=B': c }".to_owned(), "1:8: env", "the name of a variable: letters, digits, _ . and -"),
        ("env: { '': c }".to_owned(), "1:8: env", "the name of a variable: letters, digits, _ . and -"),
        ("env: { ? [a] : c }".to_owned(), "1:10: env", "the name of a variable: letters, digits, _ . and -"),
        ("env: { ~: c }".to_owned(), "1:8: env", "the name of a variable: letters, digits, _ . and -"),
        ("env: { <<: { A: b } }".to_owned(), "1:8: env", "the name of a variable: letters, digits, _ . and -"),
        ("env: [A=b]".to_owned(), "1:6: env", "names and values: NAME: VALUE"),
        ("env: A=b".to_owned(), "1:6: env", "names and values: NAME: VALUE"),
        ("secrets: { a: b }".to_owned(), "1:15: secrets.a", reference),
        ("secrets: { a: 'hunter2:x' }".to_owned(), "1:15: secrets.a", reference),
        ("secrets: { a: 'file://x' }".to_owned(), "1:15: secrets.a", reference),
        ("secrets: { a: }".to_owned(), "1:13: secrets", reference),
        ("secrets: { a: [x] }".to_owned(), "1:15: secrets.a", reference),
        ("secrets: { a: { from: x } }".to_owned(), "1:23: secrets.a.from", reference),
        (
            "secrets: { a: { from: 'literal:x', refresh: 4s } }".to_owned(),
            "1:45: secrets.a.refresh",
            "a duration of at least 5s, like 30s, 5m or 1h",
        ),
        ("secrets: { 1a: 'literal:x' }".to_owned(), "1:12: secrets", name),
        ("secrets: { a.b: 'literal:x' }".to_owned(), "1:12: secrets", name),
        ("secrets: [a]".to_owned(), "1:10: secrets", "names and values: NAME: VALUE"),
        ("files: { path: a }".to_owned(), "1:8: files", "a list: [a, b], or lines that begin with -"),
        ("files: hunter2".to_owned(), "1:8: files", "a list: [a, b], or lines that begin with -"),
        ("files: [{ path: /a, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        ("files: [{ path: a/../b, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        ("files: [{ path: .a, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        ("files: [{ path: a//b, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        ("files: [{ path: a/, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        ("files: [{ path: a b, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        ("files: [{ path: a/b/c/d/e/f/g/h/i, from: 'literal:x' }]".to_owned(), "1:17: files[0].path", path),
        (file("mode: 777"), "1:45: files[0].mode", "an octal mode like 0440: the owner reads, and others never write"),
        (file("mode: '0200'"), "1:45: files[0].mode", "an octal mode like 0440: the owner reads, and others never write"),
        (file("mode: '0o400'"), "1:45: files[0].mode", "an octal mode like 0440: the owner reads, and others never write"),
        (file("mode: rw"), "1:45: files[0].mode", "an octal mode like 0440: the owner reads, and others never write"),
        (file("group: a/b"), "1:46: files[0].group", name),
        (rotation("refresh: soon"), "1:22: rotation.refresh", "a duration of at least 5s, like 30s, 5m or 1h"),
        (rotation("refresh: 1"), "1:22: rotation.refresh", "a duration of at least 5s, like 30s, 5m or 1h"),
        (rotation("splay: -1s"), "1:20: rotation.splay", "a duration like 30s, 5m or 1h"),
        (rotation("on_change: hunter2"), "1:24: rotation.on_change", change),
        (rotation("on_change: { hunter2: x }"), "1:24: rotation.on_change", change),
        (rotation("on_change: { signal: HUP, exit: 0 }"), "1:24: rotation.on_change", change),
        (rotation("on_change: [signal]"), "1:24: rotation.on_change", change),
        (
            rotation("on_change: { signal: KILL }"),
            "1:34: rotation.on_change.signal",
            "the name of a signal other than KILL and STOP, like HUP or USR1",
        ),
        (
            rotation("on_change: { signal: 9 }"),
            "1:34: rotation.on_change.signal",
            "the name of a signal other than KILL and STOP, like HUP or USR1",
        ),
        (rotation("on_change: { exec: /bin/x }"), "1:32: rotation.on_change.exec", "a program with its arguments: [program, argument]"),
        (rotation("on_change: { exec: [] }"), "1:32: rotation.on_change.exec", "a program with its arguments: [program, argument]"),
        (rotation("on_change: { http: 'file:/x' }"), "1:32: rotation.on_change.http", "a URL that begins with https:// or http://"),
        (rotation("on_change: { exit: 256 }"), "1:32: rotation.on_change.exit", "an exit code from 0 to 255"),
        (rotation("validate: hunter2"), "1:23: rotation.validate", "a program with its arguments: [program, argument]"),
        (vault("address: hunter2"), "1:29: stores.vault.address", "a URL that begins with https:// or http://"),
        (vault("address: 'https:///x'"), "1:29: stores.vault.address", "a URL that begins with https:// or http://"),
        (vault("ca_file: ca.pem"), "1:29: stores.vault.ca_file", "an absolute path"),
        (
            vault("auth: { method: magic }"),
            "1:36: stores.vault.auth.method",
            "a method: one of token, kubernetes, approle, jwt, userpass, cert",
        ),
        (
            vault("type: hunter2"),
            "1:26: stores.vault.type",
            "a kind of store: one of vault, bao, aws-sm, aws-ssm, gcp-sm, azure-kv, k8s, pass",
        ),
        (
            vault("auth: token"),
            "1:26: stores.vault.auth",
            "the keys method, mount, role, username, token_file, jwt_file, role_id, secret_id_file, password_file, cert_file, key_file, creation_path",
        ),
        ("stores: { 'a b': { type: vault } }".to_owned(), "1:11: stores", name),
        ("rotation: [refresh]".to_owned(), "1:11: rotation", "the keys refresh, on_change, splay, validate, stop_signal, grace"),
        ("files: [hunter2]".to_owned(), "1:9: files[0]", "the keys path, from, mode, owner, group"),
    ] {
        refuses(&document, &[&format!(":{place}: expected {expected}")]);
    }
}

#[test]
fn an_owner_is_a_name_or_a_number_that_an_id_can_be() {
    for owner in ["'a:b:c'", "':b'", "'4294967295:1'", "99999999999", "1000.5", "'1:-1'"] {
        let document = format!("files: [{{ path: a, from: 'literal:x', owner: {owner} }}]");
        refuses(&document, &[":1:46: files[0].owner: expected an owner as USER or USER:GROUP, names or numbers from 0 to 4294967294"]);
    }
}

#[test]
fn keys_that_are_unknown_missing_or_there_twice_are_told_at_each_level() {
    refuses("hunter2: x", &[&format!(":1:1: unknown key; {ALL_KEYS}")]);
    refuses("? [hunter2]\n: x\n", &[&format!(":1:3: {ALL_KEYS}")]);
    refuses("~: x\n", &[&format!(":1:1: {ALL_KEYS}")]);
    refuses("<<: { env: {} }", &[&format!(":1:1: unknown key; {ALL_KEYS}")]);
    refuses("env: {}\nenv: {}", &[":2:1: this key stands on line 1 already"]);
    refuses("env:\n  A: x\n  B: y\n  A: hunter2", &[":4:3: env: this key stands on line 2 already"]);
    refuses("secrets:\n  a: literal:x\n  a: literal:y", &[":3:3: secrets: this key stands on line 2 already"]);
    refuses("secrets: { a: { from: 'literal:x', from: 'literal:y' } }", &[":1:36: secrets.a: this key stands on line 1 already"]);
    refuses("files: [{ path: a, path: b, from: 'literal:x' }]", &[":1:20: files[0]: this key stands on line 1 already"]);
    refuses("files: [{ path: a, from: 'literal:x', hunter2: x }]", &[&format!(":1:39: files[0]: unknown key; {FILE_KEYS}")]);
    refuses("files: [{}]", &[":1:9: files[0]: the key path is missing", ":1:9: files[0]: the key from is missing"]);
    refuses("files: [{ path: a }]", &[":1:9: files[0]: the key from is missing"]);
    refuses("secrets: { a: { refresh: 5m } }", &[":1:15: secrets.a: the key from is missing"]);
    refuses(
        "rotation: { hunter2: x }",
        &[":1:13: rotation: unknown key; expected the keys refresh, on_change, splay, validate, stop_signal, grace"],
    );
    refuses("stores: { vault: { auth: {} } }", &[":1:26: stores.vault.auth: the key method is missing"]);
    refuses("stores: { mine: {} }", &[":1:11: stores: the key type is missing, since the name is no kind of store"]);
    let another = ":1:11: stores: the name is a kind of store, and the type is another";
    refuses("stores: { vault: { type: bao } }", &[another, "hint: give it another name, and write ?store=NAME in its references"]);
    for name in ["vault", "file", "aws-sm", "arn", "gcp", "literal"] {
        refuses(&format!("secrets: {{ {name}: 'literal:x' }}"), &[":1:12: secrets: a secret cannot have the name of a kind of store"]);
    }
}

#[test]
fn references_and_names_that_lead_nowhere_are_told() {
    let no_name = ["hint: secrets: gives names; a literal ${ is written as $${"];
    refuses("env: { A: '${db#x}' }", &[":1:11: A: no secret has the name in ${…}", no_name[0]]);
    refuses("env: { A: 'hunter2 ${HOME}' }", &[":1:11: A: no secret has the name in ${…}", no_name[0]]);
    refuses("files: [{ path: a, from: '${db}' }]", &[":1:26: a: no secret has the name in ${…}", no_name[0]]);
    refuses("env: { A_FILE: '${db}' }", &[":1:16: A_FILE: no secret has the name in ${…}", no_name[0]]);
    let secrets = "secrets: { a: 'file:/x', b: 'file:/x#k', c: 'literal:x', d: 'dotenv:/x' }\n";
    refuses(
        &format!("{secrets}env: {{ A: '${{a#}}' }}"),
        &[":2:11: A: the selector is empty", "hint: name a key after #, or leave the # out"],
    );
    refuses(&format!("{secrets}env: {{ A: '${{b#k}}' }}"), &[":2:11: A: a part of the secret is selected already"]);
    refuses(&format!("{secrets}env: {{ A: '${{c#k}}' }}"), &[":2:11: A: a literal has neither options nor parts"]);
    refuses(
        &format!("{secrets}env: {{ A: '${{d}}' }}"),
        &[":2:11: A: no variable is named", "hint: write dotenv:/path/.env#NAME, or load the whole file with --env-file"],
    );
    refuses(&format!("{secrets}env: {{ A: '${{a?default=hunter2&default=hunter2}}' }}"), &[":2:11: A: the option default is given twice"]);
    refuses(
        &format!("{secrets}env: {{ A: '${{a | hunter2}}' }}"),
        &[":2:11: A: unknown filter after |", "hint: filters are urlencode, base64, base64decode, json, trim"],
    );
    refuses("secrets: { a: 'file:x' }", &[":1:15: secrets.a: the path is not absolute"]);
    refuses(
        "secrets: { a: 'file:/x#k?default=hunter2' }",
        &[":1:15: secrets.a: an option stands after the selector", "hint: options go before #, and a ? in a key is written as %3F"],
    );
    // That it has a name is known, so what refers to it is no second problem.
    refuses(
        "secrets: { a: hunter2 }\nenv: { A: '${a}' }",
        &[":1:15: secrets.a: expected a reference: SCHEME:LOCATOR, like file:/run/secrets/db"],
    );
    refuses("env: { A: 'file:x' }", &[":1:11: A: file:x: the path is not absolute"]);
    refuses(
        "env: { A: 'k8s:hunter2#x' }",
        &[
            ":1:11: A: this build of secret-init has no store for k8s:…",
            "hint: it has file, dotenv, cred, literal, vault, bao, aws-sm, aws-ssm",
        ],
    );
}

#[test]
fn variables_and_files_that_cannot_be_are_told() {
    for name in ["SECRET_INIT_DIR", "SECRET_INIT_HUNTER2"] {
        refuses(
            &format!("env: {{ {name}: hunter2 }}"),
            &[
                &format!(":1:8: env.{name}: is a setting of secret-init, not a variable for the program"),
                "hint: give it as a flag, or in the container",
            ],
        );
    }
    refuses(
        "env: { A: 'file:/x?mode=0440' }",
        &[":1:11: A: file:/x?mode=0440: a mode is for files, and this is a variable", "hint: write A_FILE=file:/x?mode=0440 to get a file"],
    );
    let no_reference = ["hint: a secret is meant by its reference, or by ${NAME} or ${NAME#KEY}"];
    refuses("files: [{ path: a, from: hunter2 }]", &[":1:26: a: there is no reference in it", no_reference[0]]);
    refuses("files: [{ path: a, from: 'db#hunter2' }]", &[":1:26: a: there is no reference in it", no_reference[0]]);
    refuses("files: [{ path: a, from: '' }]", &[":1:26: a: there is no reference in it", no_reference[0]]);
    refuses(
        "files: [{ path: a, from: 'file:/x?mode=0440', mode: '0440' }]",
        &[":1:9: a: the mode is given twice, by mode: and in the reference", "hint: keep one of the two"],
    );
    let two = "${file:/x?mode=0444}${file:/y?mode=440}";
    let modes = ["a: the references in it ask for different modes", "hint: a file has one mode"];
    refuses(&format!("files: [{{ path: a, from: '{two}' }}]"), &[&format!(":1:9: {}", modes[0]), modes[1]]);
    refuses(&format!("env: {{ a_FILE: '{two}' }}"), &[":1:16: a_FILE: the references in it ask for different modes", modes[1]]);
    refuses(
        "secrets: { a: { from: 'file:/x?refresh=5m', refresh: 10m } }",
        &[":1:15: secrets.a: refresh is given twice, by refresh: and in the reference", "hint: keep one of the two"],
    );
    refuses(
        "files: [{ path: a, from: 'literal:x' }, { path: a, from: 'literal:y' }]",
        &[":1:41: a: goes to the same place as a", "hint: keep one of the two"],
    );
    refuses(
        "files:\n- { path: a, from: 'literal:x' }\n- { path: a/b, from: 'literal:y' }",
        &[":3:3: a/b: goes to the same place as a", "hint: keep one of the two"],
    );
    refuses(
        "env: { A_FILE: 'literal:x' }\nfiles: [{ path: A, from: 'literal:y' }]",
        &[":2:9: A: goes to the same place as A_FILE", "hint: keep one of the two"],
    );
    refuses("env: { A_FILE: /x, FILE__A: /y }", &[":1:29: FILE__A: goes to the same place as A_FILE", "hint: keep one of the two"]);
}

#[test]
fn what_yaml_has_and_the_file_has_not_is_told() {
    let no = |what: &str| format!("{what}, which has no meaning here; write the value itself");
    refuses("env: { A: *hunter2 }", &[&format!(":1:11: {}", no("an alias"))]);
    refuses("env: { A: &a x, B: *a }", &[&format!(":1:20: {}", no("an alias"))]);
    refuses(
        "env: { A: x, <<: *a }",
        &[":1:14: env: expected the name of a variable: letters, digits, _ . and -", &format!(":1:18: {}", no("an alias"))],
    );
    refuses("env: *a", &[&format!(":1:6: {}", no("an alias"))]);
    refuses("*a : x", &[&format!(":1:1: {}", no("an alias"))]);
    refuses("env: { A: !!str x }", &[&format!(":1:11: {}", no("a tag"))]);
    refuses("env: !hunter2 { A: x }", &[&format!(":1:6: {}", no("a tag"))]);
    refuses("files: !!seq []", &[&format!(":1:8: {}", no("a tag"))]);
    refuses("!!map { env: { A: [x] } }", &[&format!(":1:1: {}", no("a tag"))]);
    refuses("---\nenv: {}\n---\nenv: {}\n", &[":3:1: a second document; the file holds one"]);
    refuses("[env]", &[&format!(":1:1: {ALL_KEYS}")]);
    refuses("hunter2", &[&format!(":1:1: {ALL_KEYS}")]);
    let quotes = "hint: put the text in quotes";
    refuses("env:\n\tA: x\n", &[":2:2: not YAML: tabs disallowed within this context (block indentation)", "hint: indent with spaces"]);
    refuses(
        "env:\n  A: x\n B: y\n",
        &[
            ":3:2: not YAML: while parsing a block mapping, did not find expected key",
            "hint: keys that belong together begin in the same column",
        ],
    );
    refuses("env: { A: x", &[":1:6: not YAML: unclosed bracket '{'"]);
    refuses("env: { A: \"hunter2", &[":1:11: not YAML: unclosed quote"]);
    for text in ["@hunter2", "%hunter2", "`hunter2`"] {
        refuses(&format!("env:\n  A: {text}\n"), &[":2:6: not YAML: unexpected character", quotes]);
    }
    for (text, column) in [("${hunter2: x}", 15), ("hunter2: x", 13), ("hunter2: x: y", 13)] {
        let fault = format!(":2:{column}: not YAML: mapping values are not allowed in this context");
        refuses(&format!("env:\n  A: {text}\n"), &[&fault, quotes]);
    }
    refuses("env: { A: ${hunter2} }", &[":1:12: not YAML: while parsing a flow mapping, did not find expected ',' or '}'", quotes]);
    refuses("files: [${hunter2}]", &[":1:10: not YAML: while parsing a flow sequence, expected ',' or ']'", quotes]);
    refuses("env:\n  A: - hunter2\n", &[":2:6: not YAML: block sequence entries are not allowed in this context", quotes]);
    let quote = "hint: a quote in a text: '' in single quotes, \\\" in double quotes";
    refuses("env:\n  A: 'hunter's'\n", &[":2:14: not YAML: invalid trailing content after single-quoted scalar", quote]);
    refuses("env:\n  A: \"hunter\"2\"\n", &[":2:14: not YAML: invalid trailing content after double-quoted scalar", quote]);
    refuses("%YAML 9.9\n---\nenv: {}\n", &[":1:1: not YAML: unsupported YAML major version"]);
    refuses(
        "env: { A: \"\\q\" }",
        &[
            ":1:11: not YAML: while parsing a quoted scalar, found unknown escape character",
            "hint: put the text in single quotes, which take a backslash as it is",
        ],
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_file_and_without_a_value() {
    let text = "
rotation: { refresh: hunter2 }
env:
  B: '${hunter2-} ${hunter2}'
  A: [hunter2, hunter2]
  C: !hunter2 x
  hunter2 x: y
secrets: { a: hunter2, b: { from: 'hunter2:', refresh: hunter2, hunter2: hunter2 }, hunter2!: x }
files:
  - hunter2
  - { path: hunter2!, from: x, mode: hunter2, owner: 'hunter2:', group: 'hunter2!', hunter2: x }
stores: { hunter2: { address: hunter2, auth: { method: hunter2 } } }
hunter2: x
";
    let reference = "expected a reference: SCHEME:LOCATOR, like file:/run/secrets/db";
    let name = "expected a name of letters, digits, _ and -, which begins with a letter or _";
    refuses(
        text,
        &[
            ":2:22: rotation.refresh: expected a duration of at least 5s, like 30s, 5m or 1h",
            ":5:6: env.A: expected a text; an empty one is written \"\"",
            ":6:6: a tag, which has no meaning here; write the value itself",
            ":7:3: env: expected the name of a variable: letters, digits, _ . and -",
            &format!(":8:15: secrets.a: {reference}"),
            &format!(":8:35: secrets.b.from: {reference}"),
            ":8:56: secrets.b.refresh: expected a duration of at least 5s, like 30s, 5m or 1h",
            ":8:65: secrets.b: unknown key; expected the keys from, refresh, on_change",
            &format!(":8:85: secrets: {name}"),
            &format!(":10:5: files[0]: {FILE_KEYS}"),
            ":11:13: files[1].path: expected a path below the directory, like db or tls/tls.key: parts of A-Z a-z 0-9 _ . -, none of which begins with a dot",
            ":11:38: files[1].mode: expected an octal mode like 0440: the owner reads, and others never write",
            ":11:54: files[1].owner: expected an owner as USER or USER:GROUP, names or numbers from 0 to 4294967294",
            &format!(":11:73: files[1].group: {name}"),
            &format!(":11:85: files[1]: unknown key; {FILE_KEYS}"),
            ":12:11: stores: the key type is missing, since the name is no kind of store",
            ":12:31: stores.hunter2.address: expected a URL that begins with https:// or http://",
            ":12:56: stores.hunter2.auth.method: expected a method: one of token, kubernetes, approle, jwt, userpass, cert",
            &format!(":13:1: unknown key; {ALL_KEYS}"),
            ":4:6: B: no secret has the name in ${…}",
            "hint: secrets: gives names; a literal ${ is written as $${",
        ],
    );
}

#[test]
fn of_very_many_problems_fifty_are_told() {
    let world = World::new();
    let text = (0..60).map(|number| format!("k{number}: x\n")).collect::<Vec<_>>().concat();
    let stderr = configured(&world, &text).flag("plan").finishes().stderr;
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((lines.len(), lines[49]), (52, format!("secret-init: c.yaml:50:1: unknown key; {ALL_KEYS}").as_str()));
    assert_eq!(
        lines[50..],
        ["secret-init: c.yaml: 10 problems more, which are not shown", "secret-init: 51 problems in the plan; a start would fail"]
    );
}

#[test]
fn a_text_that_no_variable_can_hold_is_told() {
    let world = World::new();
    let longest = 131_072 - "T_A=".len() - 1;
    let text = |length: usize| format!("env: {{ T_A: {} }}", "x".repeat(length));
    let start = configured(&world, &text(longest)).shell("printf %s \"$T_A\" | wc -c");
    assert_eq!(start.finishes().succeeds(), format!("{longest}\n"));
    let cause = format!(":1:13: T_A: the value has {} bytes, and a variable holds {longest} at most", longest + 1);
    refuses(&text(longest + 1), &[&cause, "hint: give it to the program as a file"]);
}

#[test]
fn problems_of_the_file_and_of_variables_are_told_together() {
    let world = World::new();
    let start = configured(&world, "hunter2: x").variable("T_A", "${file:x}").variable("T_B_FILE", "/x").variable("FILE__T_B", "/y");
    let lines = [
        &format!("c.yaml:1:1: unknown key; {ALL_KEYS}"),
        "T_A: file:x: the path is not absolute",
        "T_B_FILE: goes to the same place as FILE__T_B",
        "hint: keep one of the two",
        "3 problems in the plan; the program was not started",
    ];
    start.program(["true"]).finishes().fails(78, &lines);
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let world = World::new();
    let fails = |path: &str, lines: &[&str]| {
        let start = world.secret_init().in_directory(&world.path).flag("--config").flag(path);
        for (start, summary) in [
            (start.clone().flag("plan"), "1 problem in the plan; a start would fail"),
            (start.clone().flag("write"), "1 problem in the plan; nothing was written"),
            (start.clone().program(["true"]), "1 problem in the plan; the program was not started"),
            (start.flag("--exec").program(["true"]), "1 problem in the plan; the program was not started"),
        ] {
            start.finishes().fails(78, &[lines, &[summary]].concat());
        }
    };
    fails("none", &["--config: none: no such file"]);
    fails(".", &["--config: .: is a directory"]);
    fails("..", &["--config: ..: is a directory"]);
    nix::unistd::mkfifo(&world.path.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    fails("fifo", &["--config: fifo: is a FIFO, not a regular file"]);
    fails("/dev/null", &["--config: /dev/null: is a device, not a regular file"]);
    fails("/proc/self/environ", &["--config: /proc/self/environ: lies in procfs or sysfs"]);
    world.file("large", "#".repeat((1 << 20) + 1));
    fails("large", &["--config: large: is larger than 1 MiB"]);
    world.file("latin", b"env:\n  A: \xe9t\xe9\n");
    fails("latin", &["latin:2:6: not UTF-8"]);
    world.file("utf-16", b"\xff\xfee\0n\0v\0");
    fails("utf-16", &["utf-16:1:1: not UTF-8"]);
    let largest = format!("env: {{}}\n{}", "#".repeat((1 << 20) - 8));
    assert_eq!(shown(configured(&world, &largest[..1 << 20]).variable("T_A", "x")), "T_A=x$\n");
}

#[test]
fn a_file_that_is_not_ours_to_read_is_told_with_its_owner() {
    let world = World::new();
    let start = configured(&world, r#"env: { A: x }"#).as_user(1000).program(["true"]);
    set_mode(world.path.join("c.yaml"), 0o600);
    start.finishes().fails(
        78,
        &[
            "--config: c.yaml: permission denied for uid 1000 (owner 0, mode 0600)",
            "hint: make the file readable for that user, or start as root and give the program its user with --user",
            "1 problem in the plan; the program was not started",
        ],
    );
}

// Stores that cannot be asked as they are set up. Nobody is asked: the names in `.test` belong to nobody.

/// What `plan` says to a variable for each of these references, less the summary.
#[track_caller]
fn refuses_to_ask<const COUNT: usize>(stores: &str, references: [&str; COUNT], lines: &[&str]) {
    let world = World::new();
    let start = configured(&world, &format!("stores: {{ {stores} }}"));
    let names = ["A", "B", "C", "D", "E"];
    let start = names.iter().zip(references).fold(start, |start, (name, reference)| start.variable(name, reference));
    let count = lines.iter().filter(|line| !line.starts_with("hint:")).count();
    let summary = format!("{count} problem{} in the plan; a start would fail", if count == 1 { "" } else { "s" });
    start.flag("plan").finishes().fails(78, &lines.iter().copied().chain([summary.as_str()]).collect::<Vec<_>>());
}

#[test]
fn a_store_that_is_asked_for_by_name_has_to_be_there_and_of_that_kind() {
    let no_store = |subject: &str| format!("{subject}: the configuration sets up no such store of this kind");
    let lines = [no_store("A: vault:kv/a?store=nope#x"), no_store("B: vault:kv/a?store=eu#x"), no_store("D: aws-sm:a?store=eu")];
    // Each store is told once.
    refuses_to_ask(
        "eu: { type: bao, address: 'https://eu.test', auth: { method: jwt, jwt_file: /x } }",
        ["vault:kv/a?store=nope#x", "vault:kv/a?store=eu#x", "vault:kv/b?store=nope#x", "aws-sm:a?store=eu", "bao:kv/a?store=eu#x"],
        &[&lines[0], &lines[1], &lines[2], "hint: name it below stores:, with its type, or leave ?store= out"],
    );
    let world = World::new();
    let start = world.secret_init().variable("A", "vault:kv/a?store=vault#x").flag("plan");
    start.finishes().fails(
        78,
        &[
            "A: vault:kv/a?store=vault#x: the configuration sets up no such store of this kind",
            "hint: name it below stores:, with its type, or leave ?store= out",
            "1 problem in the plan; a start would fail",
        ],
    );
}

#[test]
fn the_address_of_a_store_is_https_or_near_and_without_a_password() {
    for (address, cause, hint) in [
        (
            "http://far.test",
            "far.test:80: what is sent by http can be read on the way",
            "use https, or say --allow-http when the network is yours",
        ),
        (
            "http://10.0.0.1:8200",
            "10.0.0.1:8200: what is sent by http can be read on the way",
            "use https, or say --allow-http when the network is yours",
        ),
        ("https://hunter2:hunter2@far.test", "the address holds credentials", "write it like https://HOST:PORT"),
        ("https://hunter2@far.test", "the address holds credentials", "write it like https://HOST:PORT"),
        ("https://[::1", "the address is no URL", "write it like https://HOST:PORT"),
    ] {
        let hint = format!("hint: {hint}");
        let vault = format!("c.yaml:1:11: stores.vault: {cause}");
        refuses_to_ask(&format!("vault: {{ address: '{address}' }}"), ["vault:kv/a#x", "vault:kv/b#x"], &[&vault, &hint]);
        let aws = format!("c.yaml:1:11: stores.aws-sm: address: {cause}");
        refuses_to_ask(&format!("aws-sm: {{ address: '{address}' }}"), ["aws-sm:a"], &[&aws, &hint]);
    }
    let world = World::new();
    let near = configured(
        &world,
        r#"stores: { vault: { address: "http://127.0.0.1:8200" }, bao: { address: "http://[::1]" }, aws-sm: { address: "http://localhost:1" } }"#,
    );
    let near = near.variable("A", "vault:kv/a#x").variable("B", "bao:kv/a#x").variable("C", "aws-sm:a");
    near.flag("plan").finishes().succeeds();
    let far = configured(&world, r#"stores: { vault: { address: "http://far.test:8200" } }"#).variable("A", "vault:kv/a#x");
    far.flag("plan").flag("--allow-http").finishes().succeeds();
    // Nobody looks at a store that nobody asks for.
    configured(&world, r#"stores: { vault: { address: "http://far.test:8200" } }"#).flag("plan").finishes().succeeds();
}

#[test]
fn a_login_that_is_not_complete_is_told_with_what_it_lacks() {
    for (auth, missing) in [
        ("method: token", "token_file"),
        ("method: kubernetes", "role"),
        ("method: approle, secret_id_file: /x", "role_id"),
        ("method: approle, role_id: x", "secret_id_file"),
        ("method: jwt, role: x", "jwt_file"),
        ("method: userpass, password_file: /x", "username"),
        ("method: userpass, username: x", "password_file"),
    ] {
        let method = auth.strip_prefix("method: ").unwrap().split(',').next().unwrap();
        let line = format!("c.yaml:1:11: stores.vault: auth.{missing} is missing");
        refuses_to_ask(
            &format!("vault: {{ auth: {{ {auth} }} }}"),
            ["vault:kv/a#x"],
            &[&line, &format!("hint: the method {method} needs it")],
        );
    }
    refuses_to_ask(
        "vault: { auth: { method: token, token_file: /x, role: x } }",
        ["vault:kv/a#x"],
        &["c.yaml:1:11: stores.vault: auth.role is not for the method token", "hint: it takes token_file, creation_path"],
    );
    refuses_to_ask(
        "bao: { auth: { method: cert, cert_file: /x } }",
        ["bao:kv/a#x"],
        &[
            "c.yaml:1:11: stores.bao: of a certificate and its key one is missing",
            "hint: name it and its key: cert_file and key_file, or VAULT_CLIENT_CERT and VAULT_CLIENT_KEY",
        ],
    );
    refuses_to_ask(
        "bao: { auth: { method: cert } }",
        ["bao:kv/a#x"],
        &[
            "c.yaml:1:11: stores.bao: a login by certificate has no certificate",
            "hint: name it and its key: cert_file and key_file, or VAULT_CLIENT_CERT and VAULT_CLIENT_KEY",
        ],
    );
    refuses_to_ask(
        "eu: { type: vault, address: 'https://eu.test' }",
        ["vault:kv/a?store=eu#x"],
        &["c.yaml:1:11: stores.eu: auth is missing", "hint: the login of the environment is for the store that has no other name alone"],
    );
}

#[test]
fn what_a_kind_of_store_does_not_have_is_refused() {
    refuses_to_ask(
        "aws-sm: { auth: { method: token, token_file: /x } }, aws-ssm: { namespace: team }, vault: { region: eu-west-1 }",
        ["aws-sm:a", "aws-ssm:/a", "vault:kv/a#x"],
        &[
            "c.yaml:1:11: stores.aws-sm: auth is set",
            "hint: the login to AWS comes from where its own tools have it: variables, a profile, the platform",
            "c.yaml:1:64: stores.aws-ssm: namespace is set",
            "hint: AWS has none",
            "c.yaml:1:94: stores.vault: region is set",
            "hint: Vault and OpenBao have none: a store in a region has an address of its own",
        ],
    );
    refuses_to_ask(
        "aws-sm: { region: Frankfurt }",
        ["aws-sm:a"],
        &["c.yaml:1:11: stores.aws-sm: region is no region", "hint: regions are written like eu-central-1"],
    );
}

#[test]
fn the_stores_of_the_docs_are_those_of_the_plan() {
    let world = World::new();
    let start = configured(&world, &blocks(&page(), "yaml")[1]);
    let expected = "\
NAME           REFERENCE                                       STORE   DELIVERY
API_KEY        aws-sm:app/keys#api                             aws-sm  variable API_KEY
DB_PASSWORD    vault:secret/data/database#password             vault   variable DB_PASSWORD
MAIL_PASSWORD  vault:secret/data/mail?store=eu#password        vault   variable MAIL_PASSWORD
";
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&start.clone().flag("plan").finishes().succeeds()), words(expected));
    let policy = "\
# eu, in the namespace team-a
path \"secret/data/mail\" { capabilities = [\"read\"] }

# vault
path \"secret/data/database\" { capabilities = [\"read\"] }
";
    assert_eq!(start.flag("policy").flag("vault").finishes().succeeds(), policy);
}

// What is too much.

const MEBIBYTE: usize = 1 << 20;

/// As often as it fits into a file, between a beginning and an end.
fn filled(begin: &str, part: &str, end: &str) -> String {
    format!("{begin}{}{end}", part.repeat((MEBIBYTE - begin.len() - end.len()) / part.len()))
}

/// As many lines as fit into a file.
fn lines(line: impl Fn(usize) -> String) -> String {
    let (mut text, mut next) = (String::new(), line(0));
    for number in 1.. {
        text += &next;
        next = line(number);
        if text.len() + next.len() > MEBIBYTE {
            break;
        }
    }
    text
}

/// Files that try to take much memory or time, and what is said to them first.
fn bombs() -> Vec<(&'static str, String, &'static str)> {
    let laughs = (1..30).map(|level| format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(10))).collect::<Vec<_>>();
    let no_alias = "an alias, which has no meaning here; write the value itself";
    let (deep, values) = ("lies too deep: 32 levels at most", "more than 10000 values");
    let unknown = "unknown key; expected the keys stores, secrets, env, files, rotation";
    let texts: Vec<String> = (0..2500).map(|number| format!("  A{number:03}: '{}'\n", "${a}".repeat(100))).collect();
    let names_in_many_texts = format!("secrets: {{ a: 'literal:x' }}\nenv:\n{}", texts.concat());
    vec![
        ("a billion laughs", format!("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n{}", laughs.concat()), no_alias),
        ("lists in lists", "[".repeat(MEBIBYTE), deep),
        ("mappings in mappings", "{".repeat(MEBIBYTE), deep),
        ("mappings in lists", "[{a: ".repeat(MEBIBYTE / 5), deep),
        ("lists in lists, in one line", "- ".repeat(MEBIBYTE / 2), deep),
        ("mappings in mappings, in one line", "? ".repeat(MEBIBYTE / 2), deep),
        ("empty keys in one line", ": ".repeat(MEBIBYTE / 2), deep),
        ("mappings in mappings, by lines", lines(|level| " ".repeat(level) + "a:\n"), deep),
        ("lists in lists, by lines", lines(|level| " ".repeat(level) + "-\n"), deep),
        ("empty lists", filled("[", "[],", "]"), values),
        ("empty mappings", filled("[", "{},", "]"), values),
        ("short texts", filled("[", "a,", "]"), values),
        ("empty texts", filled("[", "'',", "]"), values),
        ("aliases", filled("[", "*a,", "]"), no_alias),
        ("anchors", filled("[", "&a b,", "]"), values),
        ("tags", filled("[", "!a b,", "]"), "a tag, which has no meaning here; write the value itself"),
        ("keys of a mapping", filled("{", "a: b,", "}"), values),
        ("keys with question marks", filled("", "? a\n", ""), values),
        ("entries of a list", filled("", "- \n", ""), values),
        ("a key again and again", filled("", "env:\n", ""), values),
        ("a variable again and again", filled("env:\n", "  A: b\n", ""), values),
        ("unknown keys", lines(|number| format!("k{number}: x\n")), values),
        ("documents", filled("", "---\n", ""), "a second document; the file holds one"),
        ("directives", filled("", "%A b\n", ""), "not YAML: did not find expected <document start>"),
        ("an open quote", filled("a: \"", "x", ""), "not YAML: unclosed quote"),
        ("an open quote over lines", filled("a: '", "x\n", ""), "not YAML: unclosed quote"),
        ("escapes", filled("a: \"", "\\x41", "\""), unknown),
        ("a block of text", filled("a: |\n", " x\n", ""), unknown),
        ("a folded block of text", filled("a: >\n", " x\n", ""), unknown),
        ("a plain text over lines", filled("a:\n", " x\n", ""), unknown),
        ("a long key", filled("? ", "a", "\n"), unknown),
        ("a long alias", filled("*", "a", ""), no_alias),
        ("a long tag", filled("!", "a", ""), "a tag, which has no meaning here; write the value itself"),
        ("NUL bytes", "\0".repeat(MEBIBYTE), "not YAML: unexpected character"),
        ("opened braces", filled("env: { A: '", "${a", "' }"), "A: no } closes ${"),
        ("unknown names", filled("env: { A: '", "${a}", "' }"), "A: no secret has the name in ${…}"),
        (
            "names in one text",
            filled("secrets: { a: 'literal:x' }\nenv: { A: '", "${a}", "' }"),
            "A: more than 1000 references in one text",
        ),
        ("names in many texts", names_in_many_texts, "A050: the plan has more than 5000 references"),
        ("bars", filled("secrets: { a: 'literal:x' }\nenv: { A: '${a", " | ", "}' }"), "A: more than 8 filters on one reference"),
        ("a byte too many", "#".repeat(MEBIBYTE + 1), "is larger than 1 MiB"),
    ]
}

/// With 32 MiB of address space.
const BOUNDED: [&str; 3] = ["prlimit", "--as=33554432", "--cpu=1"];

/// Runs it to its end, which is to come before so many milliseconds of CPU time. The least of three runs counts, since a busy machine slows each down.
#[track_caller]
fn finishes_soon(start: &Start, name: &str, milliseconds: u64) -> Outcome {
    let bound = Duration::from_millis(milliseconds);
    let mut outcome = start.finishes();
    for _ in 1..3 {
        if outcome.cpu_time >= bound {
            outcome = start.finishes();
        }
    }
    println!("{name}: {:.1} ms", outcome.cpu_time.as_secs_f64() * 1000.0);
    assert!(outcome.cpu_time > Duration::ZERO && outcome.cpu_time < bound, "{name}: {:?}", outcome.cpu_time);
    outcome
}

#[test]
fn no_file_takes_much_memory_or_time() {
    for (name, text, cause) in bombs() {
        let world = World::new();
        let outcome = finishes_soon(&configured(&world, &text).flag("plan").under(BOUNDED), name, 100);
        let first = outcome.stderr.lines().next().unwrap_or_default();
        assert_eq!((outcome.code(), first.rsplit_once(cause).map(|(_, rest)| rest)), (78, Some("")), "{name}: {first}");
        assert!(outcome.stderr.len() < 20_000, "{name}: {}", outcome.stderr.len());
    }
}

#[test]
fn the_largest_files_that_are_allowed_fit_into_the_same_bounds() {
    let first = |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<String>();
    let variables = format!("env:\n{}", first(4_998, |number| format!("  T_{number}: \"literal:{number}\"\n")));
    let names = format!(
        "secrets:\n{}env:\n{}",
        first(2_498, |number| format!("  s{number}: file:/W/s{number}?default=x\n")),
        first(2_498, |number| format!("  T_{number}: \"${{s{number}}}\"\n"))
    );
    let files = format!("files:\n{}", first(1_400, |number| format!("- {{ path: d/f{number}, from: \"literal:x\", group: g }}\n")));
    for (text, rows) in [(variables, 4_999), (names, 2_499), (files, 1_401)] {
        let world = World::new();
        let start = configured(&world, &text).flag("plan").under(BOUNDED);
        assert_eq!(finishes_soon(&start, &format!("{rows} rows"), 100).succeeds().lines().count(), rows);
    }
}

#[test]
fn no_large_secret_takes_much_memory_or_time() {
    let from = |text: &str| format!("secrets: {{ x: file:/W/large }}\nfiles: [{{ path: a, from: '{text}' }}]\n");
    for (name, text, code) in [
        ("named often", from(&"${x}".repeat(1000)), 65),
        ("encoded often", from(&format!("${{x{}}}", " | urlencode".repeat(8))), 65),
        ("turned often", from(&format!("${{x{}}}", " | trim".repeat(8))), 0),
    ] {
        let world = World::new();
        world.file("large", vec![b'+'; MEBIBYTE]);
        let start = configured(&world, &text).directory(world.directory()).under(BOUNDED).program(["true"]);
        assert_eq!(finishes_soon(&start, name, 100).code(), code, "{name}");
    }
}

#[test]
fn no_environment_file_takes_much_memory_or_time() {
    // It is read in as many steps as it has lines; with the square of them it took 20 seconds.
    let world = World::new();
    let file = world.file(".env", lines(|number| format!("V{number:05}=x\n")));
    let one_name = world.file("1.env", filled("", "A=x\n", ""));
    let start = |file: &Path| world.secret_init().flag("--env-file").flag(file).under(["prlimit", "--as=67108864", "--cpu=1"]);
    let left = finishes_soon(&start(&file).flag("plan"), "an environment file", 250).succeeds();
    assert_eq!(left, "No variable refers to a secret.\n");
    finishes_soon(&start(&one_name).program(["true"]), "a name again and again", 250).succeeds();
    let start = start(&file).variable("T_A", "literal:x").program(["true"]);
    finishes_soon(&start, "a start with the environment file", 250).succeeds();
}
