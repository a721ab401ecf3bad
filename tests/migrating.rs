//! Every row of `docs/migrating.md`, by the real stores: what is the same is the same, what has another form gives the value that is told, and what is refused is refused with
//! the words that stand there.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;
use support::servers::installed;
use support::servers::ministack::{Keys, MiniStack, REGION};
use support::servers::openbao::OpenBao;
use support::servers::postgres::Postgres;
use support::{Start, World};

/// The stores of the page, with what it says is in them.
struct Stores {
    bao: OpenBao,
    aws: MiniStack,
    /// What the page calls the ARNs, and what they are.
    arns: Vec<(&'static str, String)>,
    _postgres: Postgres,
}

static STORES: LazyLock<Stores> = LazyLock::new(|| {
    let bao = OpenBao::start();
    bao.kv("app", &json!({"user": "app", "password": "first"}));
    bao.kv("app", &json!({"user": "app", "password": "p@ss/word"}));
    bao.kv("env", &json!({"LOG_LEVEL": "debug", "WORKERS": 4}));
    let version_1 = json!({"type": "kv", "options": {"version": "1"}});
    bao.mount("kv", &version_1);
    bao.succeeds("POST", "kv/app", &json!({"password": "of version 1"}));
    bao.succeeds("POST", "sys/namespaces/team", &json!({}));
    bao.succeeds("POST", "team/sys/mounts/kv", &version_1);
    bao.succeeds("POST", "team/kv/app", &json!({"password": "the team's"}));
    let postgres = Postgres::start();
    bao.database(&postgres);

    let aws = MiniStack::start(true);
    aws.create_secret("app/token", "0ld-t0ken");
    aws.put_secret("app/token", "t0ken");
    for value in ["old-k3y", "k3y"] {
        aws.put_parameter("/app/api_key", "SecureString", value);
    }
    let secret = |name: &'static str, text: &str| aws.create_secret(name, text);
    let (db, one) = (secret("app/db", r#"{"user": "app", "password": "p@ss/word"}"#), secret("app/one", r#"{"key": "v"}"#));
    let token = db.replace(db.split(":secret:").nth(1).unwrap(), "app/token");
    let parameter = token.replace("secretsmanager", "ssm").replace("secret:app/token", "parameter/app/api_key");
    let arns = vec![
        ("arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/token-1a2b3c", token),
        ("arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/db-1a2b3c", db),
        ("arn:aws:secretsmanager:eu-west-1:111122223333:secret:app/one-1a2b3c", one),
        ("arn:aws:ssm:eu-west-1:111122223333:parameter/app/api_key", parameter),
    ];
    Stores { bao, aws, arns, _postgres: postgres }
});

impl Stores {
    /// A start that knows them all, and the file of the page.
    fn told(&self, world: &World) -> Start {
        let start = self.aws.told(self.bao.told(world.secret_init()), &Keys::root());
        world.file("etc/app/password", "s3cret\n");
        start.variable("VAULT_TOKEN", "root")
    }

    /// What a text of the page is for these stores and this test.
    fn real(&self, world: &World, text: &str) -> String {
        let text = text.replace("/etc/app/", &format!("{}/etc/app/", world.path.display()));
        self.arns.iter().fold(text, |text, (shown, real)| text.replace(shown, real))
    }
}

/// A row of a table, by its cells.
struct Row(Vec<String>);

impl Row {
    fn cell(&self, index: usize) -> &str {
        self.0.get(index).map_or("", String::as_str)
    }

    /// What stands in a cell as code.
    fn code(&self, index: usize) -> Vec<&str> {
        self.cell(index).split('`').skip(1).step_by(2).collect()
    }

    /// The variables in a cell.
    fn variables(&self, index: usize) -> Vec<(&str, &str)> {
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        self.code(index).into_iter().filter_map(|code| code.split_once('=').filter(|(name, _)| is_name(name))).collect()
    }

    /// What is to be written: what stands there when it is the same.
    fn here(&self) -> Vec<(&str, &str)> {
        self.variables(usize::from(self.cell(1) != "the same"))
    }
}

/// The rows of the tables with so many columns.
fn rows(columns: usize) -> Vec<Row> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let line = line.replace("\\|", "\u{0}");
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(cells).filter(|cells| cells.len() == columns);
    rows.map(Row).collect()
}

fn with<'a>(start: Start, variables: impl IntoIterator<Item = (&'a str, &'a str)>, world: &World) -> Start {
    variables.into_iter().fold(start, |start, (name, value)| start.variable(name, STORES.real(world, value)))
}

/// Whether a start cannot work since this build lacks the store.
fn lacks_a_store(stderr: &str) -> bool {
    stderr.contains("this build of secret-init has no store for")
}

#[test]
fn every_row_gives_what_it_says() {
    let mut count = 0;
    for row in rows(4).iter().filter(|row| !row.variables(2).is_empty()) {
        let world = World::new();
        let outcome = with(STORES.told(&world), row.here(), &world).program(["env"]).finishes();
        if lacks_a_store(&outcome.stderr) {
            assert!(!cfg!(feature = "aws") || secret_init::store::ROWS.len() < 8, "{}: {}", row.cell(0), outcome.stderr);
            continue;
        }
        assert_eq!(outcome.code(), 0, "{}: {}", row.cell(0), outcome.stderr);
        for (name, value) in row.variables(2) {
            let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            let is_right = |line: &str| value.strip_suffix('…').map_or(line == value, |beginning| line.starts_with(beginning));
            assert!(line.is_some_and(is_right), "{}: {name} is {line:?}", row.cell(0));
        }
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

#[test]
fn every_row_that_is_refused_or_warned_of_has_the_words_of_that() {
    let (mut refused, mut warned) = (0, 0);
    for row in &rows(4) {
        let unchanged = row.cell(3);
        let words = row.code(3).first().map_or("", |words| *words);
        for there in row.variables(0) {
            let world = World::new();
            // What is the same is so together, as a certificate and its key.
            let given = if unchanged.is_empty() { row.variables(0) } else { vec![there] };
            let start = with(STORES.told(&world), given, &world).variable("REFERENCE", "vault:secret/data/app#user");
            let outcome = start.flag("plan").finishes();
            if lacks_a_store(&outcome.stderr) && !unchanged.starts_with("refused") {
                continue;
            }
            let (stdout, stderr) = (&outcome.stdout, &outcome.stderr);
            let is_shown = stdout.lines().any(|line| line.starts_with(&format!("{} ", there.0)));
            let said = stderr.contains(words.trim_end_matches('…'));
            match unchanged.split(':').next().unwrap() {
                "refused" => {
                    assert!(said && !words.is_empty() && matches!(outcome.code(), 64 | 78), "{}: {stderr}", row.cell(0));
                    refused += 1;
                }
                "warned" => {
                    assert!(said && !words.is_empty() && outcome.code() == 0, "{}: {stderr}", row.cell(0));
                    warned += 1;
                }
                beginning if beginning.starts_with("passed on as it is") => {
                    assert!(!is_shown && outcome.code() == 0 && stderr.is_empty(), "{}: {stdout} {stderr}", row.cell(0));
                }
                beginning if beginning.starts_with("delivered whole") => {
                    assert!(is_shown && outcome.code() == 0, "{}: {stderr}", row.cell(0));
                }
                "" => assert_eq!((outcome.code(), stderr.as_str()), (0, ""), "{}", row.cell(0)),
                other => panic!("{}: nothing is known of {other:?}", row.cell(0)),
            }
        }
    }
    assert!(refused >= 12 && warned >= 7, "{refused} {warned}");
}

/// What is written here in place of a setting is understood without a word.
#[test]
fn every_row_is_understood_as_it_is_to_be_written_here() {
    for row in &rows(4) {
        let world = World::new();
        let mut here = row.here();
        // A refusal that has no other form.
        if here.is_empty() || row.cell(1).is_empty() {
            continue;
        }
        here.push(("REFERENCE", "vault:secret/data/app#user"));
        let outcome = with(STORES.told(&world), here, &world).flag("plan").finishes();
        assert!(outcome.stderr.is_empty() || lacks_a_store(&outcome.stderr), "{}: {}", row.cell(0), outcome.stderr);
    }
}

#[test]
fn what_python_reads_is_what_the_variable_holds() {
    let mut count = 0;
    for row in &rows(2) {
        let world = World::new();
        let (there, here) = (row.code(0)[0], row.here()[0]);
        let start = with(STORES.told(&world), [here], &world);
        let outcome = start.clone().shell(&format!("printf %s \"${}\"", here.0)).finishes();
        if lacks_a_store(&outcome.stderr) {
            assert!(!cfg!(feature = "aws") || secret_init::store::ROWS.len() < 8, "{}: {}", row.cell(0), outcome.stderr);
            continue;
        }
        let told = start.command();
        let mut python = Command::new(installed("clients", "python"));
        python.args(["-c", &format!("import boto3, hvac, json\nprint({there}, end='')")]);
        python.env_clear().envs(told.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // boto3's own name for AWS_REGION.
        python.env("AWS_DEFAULT_REGION", REGION);
        let output = python.output().unwrap();
        assert!(output.status.success(), "{there}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!((outcome.stdout.as_str(), outcome.code()), (String::from_utf8_lossy(&output.stdout).as_ref(), 0), "{there}");
        assert!(!outcome.stdout.is_empty(), "{there}");
        count += 1;
    }
    assert!(count >= 5, "{count}");
}

#[test]
fn every_row_of_the_page_is_read_by_a_test() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating.md")).unwrap();
    let lines = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---") && !line.starts_with("| there")).count();
    assert_eq!(rows(4).len() + rows(2).len(), lines);
    for row in rows(4) {
        let is_tested = !row.here().is_empty() || !row.cell(3).is_empty();
        assert!(is_tested, "{}", row.cell(0));
    }
}
