//! The JSON Schema of the configuration file and its parser take the same documents, so that an editor is right about a file.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(clippy::needless_raw_string_hashes, reason = "they mark a right document")]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secret_init::config::{Config, schema};
use support::{World, binary};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/configuration.md")).unwrap()
}

fn blocks(text: &str, language: &str) -> Vec<String> {
    text.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// Says of each document whether the schema takes it, as YAML 1.1 and as YAML 1.2 are read.
fn taken_by_the_schema(documents: &[String]) -> Vec<[bool; 2]> {
    let world = World::new();
    let path = world.file("schema.json", schema());
    let program = root().join("tests/schema/validate.py");
    let mut command = Command::new("/usr/bin/python3");
    let mut child = command.arg(program).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let documents = serde_json::to_string(documents).unwrap();
    let writer = std::thread::spawn(move || input.write_all(documents.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "tests/run installs python3-jsonschema and python3-yaml");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_taken_by_the_parser(document: &str) -> bool {
    Config::parse(document.as_bytes(), "c.yaml".into()).problems.is_empty()
}

/// The right documents of these tests and those of groups: what stands between `r#"` and `"#`, or with more of them.
fn documents_of_the_tests() -> Vec<String> {
    let mut found = Vec::new();
    for test in ["config.rs", "groups.rs"] {
        let source = fs::read_to_string(root().join("tests").join(test)).unwrap();
        for fence in ["#", "##"] {
            let (open, close) = (format!(" r{fence}\""), format!("\"{fence}"));
            let open = [open.clone(), open.replace(' ', "(")];
            let texts = open.iter().flat_map(|open| source.split(open.as_str()).skip(1));
            found.extend(texts.map(|rest| rest.split(&close).next().unwrap().to_owned()).filter(|text| is_configuration(text)));
        }
    }
    found
}

/// The configurations among the blocks of the pages, and the files of the examples.
fn documents_of_the_docs() -> Vec<String> {
    let texts = |folder: PathBuf, end: &str| -> Vec<String> {
        let paths = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        paths.filter(|path| path.to_str().unwrap().ends_with(end)).map(|path| fs::read_to_string(path).unwrap()).collect()
    };
    let pages = texts(root().join("docs"), ".md").into_iter().chain(texts(root().to_owned(), "README.md"));
    let blocks = pages.flat_map(|page| blocks(&page, "yaml"));
    let examples = fs::read_dir(root().join("compose-examples")).unwrap().flat_map(|folder| {
        let folder = folder.unwrap().path();
        [texts(folder.clone(), ".yaml"), texts(folder, ".yml")].concat()
    });
    blocks.chain(examples).filter(|text| is_configuration(text)).collect()
}

/// Whether a YAML text is one of our configurations: each of its keys is one of ours, and it is no file of Compose, which has `secrets:` too.
fn is_configuration(text: &str) -> bool {
    let is_ours = |line: &&str| {
        let key = line.trim_start_matches(['{', ' ']).split(':').next().unwrap();
        ["stores", "secrets", "env", "files", "rotation"].contains(&key)
    };
    let keys: Vec<&str> = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic() || first == '{')).collect();
    !keys.is_empty() && keys.iter().all(is_ours)
}

#[test]
fn the_schema_takes_every_document_that_the_parser_takes() {
    let (of_the_tests, of_the_docs) = (documents_of_the_tests(), documents_of_the_docs());
    assert!(of_the_tests.len() > 40 && of_the_docs.len() > 1, "{} {}", of_the_tests.len(), of_the_docs.len());
    let documents: Vec<String> = RIGHT.iter().map(|&text| text.to_owned()).chain(of_the_tests).chain(of_the_docs).collect();
    for (document, taken) in documents.iter().zip(taken_by_the_schema(&documents)) {
        assert_eq!((is_taken_by_the_parser(document), taken), (true, [true; 2]), "{document}");
    }
}

#[test]
fn the_schema_refuses_what_the_parser_refuses() {
    let documents: Vec<String> = WRONG.iter().map(|&text| text.to_owned()).collect();
    for (document, taken) in documents.iter().zip(taken_by_the_schema(&documents)) {
        assert_eq!((is_taken_by_the_parser(document), taken), (false, [false; 2]), "{document}");
    }
}

/// Every key, and every way to write its value.
const RIGHT: &[&str] = &[
    r#"
stores:
  vault:
    address: https://vault.example.com:8200
    namespace: team
    ca_file: /etc/ca.pem
    auth: { method: kubernetes, mount: cluster, role: app, jwt_file: /x }
  second: { type: bao, address: "http://127.0.0.1:8200", auth: { method: approle, role_id: a, secret_id_file: /x } }
  aws-sm: { region: eu-central-1 }
  k8s: { namespace: 123 }
  user: { type: vault, auth: { method: userpass, username: u, password_file: /x } }
  cert: { type: vault, auth: { method: cert, cert_file: /x, key_file: /x } }
  token: { type: vault, auth: { method: token, token_file: /x } }
  jwt: { type: vault, auth: { method: jwt, role: yes } }
  gcp-sm:
    region:
"#,
    r#"
secrets:
  a: file:/run/secrets/a
  b: "arn:aws:secretsmanager:eu-central-1:123456789012:secret:x#k"
  c: arn:aws-us-gov:ssm:us-gov-west-1:123456789012:parameter/x
  d: { from: "vault:secret/data/a", refresh: 30s, on_change: restart }
  e: { from: "cred:x", refresh: , on_change: ~ }
  f: "literal:"
  g: gcp:secretmanager:projects/p/secrets/s
  h: azure-kv:vault/name
  i: dotenv:/x
  j-k_L1: k8s:a#b
"#,
    r#"
env: { A: text, B: 1, C: 1.5, D: true, E: no, F: "", G: 0400, H: 0x10, I: 1e3, J: -1, K: .5, "L.M-N_o": x, M: "null", N: 1:30, 7: x }
"#,
    r#"
files:
- { path: a, from: "file:/x" }
- { path: a.b/c-d/_e, from: "${x}", mode: 0400 }
- { path: b, from: "file:/x", mode: 440 }
- { path: c, from: "file:/x", mode: "0444" }
- { path: d, from: "file:/x", mode: "600" }
- { path: e, from: "file:/x", mode: 0644 }
- { path: f, from: "file:/x", mode: 640 }
- { path: g, from: "file:/x", mode: , owner: , group: }
- { path: h, from: "file:/x", owner: 1000 }
- { path: i, from: "file:/x", owner: "1000:1000" }
- { path: j, from: "file:/x", owner: 1000:50 }
- { path: k, from: "file:/x", owner: app:ssl }
- { path: k1, from: "file:/x", owner: "0:4294967294" }
- { path: k2, from: "file:/x", owner: true }
- { path: k3, from: "file:/x", owner: "_x.y-z:ä" }
- { path: l/m, from: "file:/x", group: l }
- { path: 1, from: 1 }
"#,
    r#"rotation: { refresh: 5m, on_change: { signal: HUP }, splay: 10s, validate: [/bin/check, 1, true, ""] }"#,
    r#"rotation: { refresh: 90, on_change: { signal: SIGUSR1 }, splay: 0 }"#,
    r#"rotation: { refresh: 1d, on_change: { exec: [/bin/x, -y] }, splay: 1h, validate: }"#,
    r#"rotation: { on_change: { http: "https://127.0.0.1:8080/reload?now" } }"#,
    r#"rotation: { on_change: { exit: 0 } }"#,
    r#"rotation: { on_change: { exit: 255 } }"#,
    r#"rotation: { on_change: { exit: "007" }, refresh: 5, validate: [1, ""] }"#,
    r#"rotation: { refresh: 5s }"#,
    r#"rotation: { refresh: "10" }"#,
    r#"rotation: { refresh: 1m }"#,
    r#"{ secrets: { vaults: "file:/x", ar: "file:/x" }, env: { SECRET_INI: x, XSECRET_INIT_: x, secret_init_x: x } }"#,
    r#"rotation: { on_change: signal }"#,
    r#"rotation: { on_change: restart }"#,
    r#"rotation: { on_change: exit }"#,
    r#"rotation: { on_change: none }"#,
    r#"rotation: { on_change: , refresh: ~, splay: null }"#,
];

/// What both refuse. What only the plan can see, and what YAML itself forbids, is not here.
const WRONG: &[&str] = &[
    "[]",
    "text",
    "1",
    "unknown: x",
    "env: []",
    "env: text",
    "env: { A: [x] }",
    "env: { A: { b: c } }",
    "env: { A: }",
    "env: { A: ~ }",
    "env: { 'A B': x }",
    "env: { '': x }",
    "secrets: []",
    "secrets: { a: }",
    "secrets: { a: text }",
    "secrets: { a: 1 }",
    "secrets: { a: [] }",
    "secrets: { a: {} }",
    "secrets: { a: 'fil:/x' }",
    "secrets: { a: { from: x } }",
    "secrets: { a: { from: 'file:/x', refresh: 1s2 } }",
    "secrets: { a: { from: 'file:/x', refresh: 4 } }",
    "secrets: { a: { from: 'file:/x', on_change: x } }",
    "secrets: { a: { from: 'file:/x', unknown: x } }",
    "secrets: { 1a: 'file:/x' }",
    "secrets: { file: 'file:/x' }",
    "secrets: { gcp: 'file:/x' }",
    "secrets: { arn: 'file:/x' }",
    "env: { SECRET_INIT_DIR: x }",
    "env: { SECRET_INIT_: x }",
    "secrets: { 'a b': 'file:/x' }",
    "files: {}",
    "files: text",
    "files: [text]",
    "files: [{}]",
    "files: [{ path: a }]",
    "files: [{ from: 'file:/x' }]",
    "files: [{ path: , from: 'file:/x' }]",
    "files: [{ path: a, from: }]",
    "files: [{ path: a, from: [] }]",
    "files: [{ path: /a, from: 'file:/x' }]",
    "files: [{ path: ../a, from: 'file:/x' }]",
    "files: [{ path: a/, from: 'file:/x' }]",
    "files: [{ path: a//b, from: 'file:/x' }]",
    "files: [{ path: a/.b, from: 'file:/x' }]",
    "files: [{ path: 'a b', from: 'file:/x' }]",
    "files: [{ path: a/b/c/d/e/f/g/h/i, from: 'file:/x' }]",
    "files: [{ path: a, from: 'file:/x', unknown: x }]",
    "files: [{ path: a, from: 'file:/x', mode: 0777 }]",
    "files: [{ path: a, from: 'file:/x', mode: 777 }]",
    "files: [{ path: a, from: 'file:/x', mode: '0040' }]",
    "files: [{ path: a, from: 'file:/x', mode: '00400' }]",
    "files: [{ path: a, from: 'file:/x', mode: rw }]",
    "files: [{ path: a, from: 'file:/x', mode: true }]",
    "files: [{ path: a, from: 'file:/x', owner: ':a' }]",
    "files: [{ path: a, from: 'file:/x', owner: 'a:b:c' }]",
    "files: [{ path: a, from: 'file:/x', owner: [a] }]",
    "files: [{ path: a, from: 'file:/x', owner: -1 }]",
    "files: [{ path: a, from: 'file:/x', owner: '-1' }]",
    "files: [{ path: a, from: 'file:/x', owner: 1000.5 }]",
    "files: [{ path: a, from: 'file:/x', owner: '99999999999' }]",
    "files: [{ path: a, from: 'file:/x', owner: '0:99999999999' }]",
    "files: [{ path: a/b, from: 'file:/x', group: 'a b' }]",
    "rotation: []",
    "rotation: { unknown: x }",
    "rotation: { refresh: soon }",
    "rotation: { refresh: 4 }",
    "rotation: { refresh: 1s }",
    "rotation: { refresh: '04' }",
    "rotation: { refresh: 0m }",
    "rotation: { refresh: -1 }",
    "rotation: { refresh: 1.5 }",
    "rotation: { splay: 1w }",
    "rotation: { on_change: x }",
    "rotation: { on_change: {} }",
    "rotation: { on_change: { signal: HUP, exit: 0 } }",
    "rotation: { on_change: { unknown: x } }",
    "rotation: { on_change: { signal: KILL } }",
    "rotation: { on_change: { signal: SIGSTOP } }",
    "rotation: { on_change: { signal: hup } }",
    "rotation: { on_change: { signal: NONE } }",
    "rotation: { on_change: { signal: } }",
    "rotation: { on_change: { exec: /bin/x } }",
    "rotation: { on_change: { exec: [] } }",
    "rotation: { on_change: { exec: ['', a] } }",
    "rotation: { on_change: { exit: '+5' } }",
    "rotation: { on_change: { exit: '0005' } }",
    "rotation: { on_change: { http: 'ftp://x' } }",
    "rotation: { on_change: { http: 'https:///x' } }",
    "rotation: { on_change: { http: 'https://a b' } }",
    "rotation: { on_change: { exit: 256 } }",
    "rotation: { on_change: { exit: -1 } }",
    "rotation: { on_change: { exit: x } }",
    "rotation: { validate: x }",
    "rotation: { validate: [] }",
    "rotation: { validate: [[x]] }",
    "stores: []",
    "stores: { vault: x }",
    "stores: { vault: { address: x } }",
    "stores: { vault: { address: 1 } }",
    "stores: { vault: { unknown: x } }",
    "stores: { vault: { type: x } }",
    "stores: { vault: { ca_file: ca.pem } }",
    "stores: { vault: { auth: {} } }",
    "stores: { vault: { auth: token } }",
    "stores: { vault: { auth: { method: x } } }",
    "stores: { vault: { auth: { method: token, unknown: x } } }",
    "stores: { vault: { auth: { method: token, token_file: x } } }",
    "stores: { 'a b': { type: vault } }",
];

/// The keys of a schema, at whatever depth, and what is said of each.
fn keys(schema: &serde_json::Value, found: &mut Vec<(String, Option<String>)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (key, value) in properties {
            found.push((key.clone(), value["description"].as_str().map(str::to_owned)));
        }
    }
    match schema {
        serde_json::Value::Object(members) => members.values().for_each(|value| keys(value, found)),
        serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn each_key_of_the_schema_is_described_there_and_in_the_docs() {
    let mut found = Vec::new();
    keys(&serde_json::from_str(&schema()).unwrap(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    let page = page();
    for (key, description) in found {
        assert!(description.is_some_and(|text| text.len() > 8 && text.ends_with(|end: char| end == '.' || end.is_alphanumeric())), "{key}");
        assert!([format!("`{key}`"), format!("`{key}:`"), format!("{{{key}:")].iter().any(|text| page.contains(text)), "{key}");
    }
}

#[test]
fn the_command_of_the_docs_writes_the_schema_that_the_example_names() {
    let (world, page) = (World::new(), page());
    let block = blocks(&page, "sh").into_iter().find(|block| block.contains("schema")).unwrap();
    let path = format!("{}:/usr/bin:/bin", binary().parent().unwrap().display());
    let status = Command::new("sh").args(["-ec", &block]).current_dir(&world.path).env_clear().env("PATH", path).status().unwrap();
    assert!(status.success());
    let name = blocks(&page, "yaml")[0].lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=./").unwrap().to_owned();
    assert_eq!(fs::read_to_string(world.path.join(name)).unwrap(), schema());
}
