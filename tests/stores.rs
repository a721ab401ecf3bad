//! The contract of a store, held by every row of the table: order kept, unchanged on the same version, each kind of failure, garbage without a panic, and
//! no value in a message.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
#[cfg(feature = "remote")]
use std::sync::LazyLock;
#[cfg(feature = "remote")]
use std::time::Duration;

use secret_init::reference::{Reference, Scheme};
use secret_init::resolve;
use secret_init::store::{self, Content, Failure, FailureKind, Fetched, Settings, Store, Variables, Wanted};
use support::World;
#[cfg(feature = "aws")]
use support::servers::ministack::{MiniStack, REGION};
#[cfg(feature = "vault")]
use support::servers::openbao::OpenBao;

#[cfg(feature = "vault")]
static BAO: LazyLock<OpenBao> = LazyLock::new(OpenBao::plain);

#[cfg(feature = "aws")]
static STACK: LazyLock<MiniStack> = LazyLock::new(|| MiniStack::start(true));

const CANARY: &str = "hunter2-canary";

/// Variables, as a store reads them.
type Given = Vec<(&'static str, Vec<u8>)>;

/// What a row of the table needs to be tried: a place with secrets, and how a secret in it is called.
struct Subject {
    scheme: Scheme,
    world: World,
    /// The name in a reference of the secret with this number; garbage and what is missing have one too.
    name: fn(&World, &str) -> String,
    /// Writes the secret.
    put: fn(&World, &str, &[u8]),
    /// What the store reads.
    variables: fn(&World) -> Given,
    /// A store that has everything that is asked of it.
    has_failures: bool,
}

/// A name that no other subject has.
#[cfg(feature = "remote")]
fn unique(world: &World, name: &str) -> String {
    format!("{}/{name}", world.path.file_name().unwrap().display())
}

fn subjects() -> Vec<Subject> {
    fn path(world: &World, name: &str) -> String {
        format!("file:{}", world.path.join(name).display())
    }
    fn dotenv(world: &World, name: &str) -> String {
        format!("dotenv:{}#VALUE", world.path.join(name).display())
    }
    vec![
        Subject {
            scheme: Scheme::File,
            world: World::new(),
            name: path,
            put: |world, name, value| drop(world.file(name, value)),
            variables: |_| Vec::new(),
            has_failures: true,
        },
        Subject {
            scheme: Scheme::Dotenv,
            world: World::new(),
            name: dotenv,
            put: |world, name, value| drop(world.file(name, [b"VALUE='", value, b"'\n"].concat())),
            variables: |_| Vec::new(),
            has_failures: true,
        },
        Subject {
            scheme: Scheme::Cred,
            world: World::new(),
            name: |_, name| format!("cred:{name}"),
            put: |world, name, value| drop(world.file(name, value)),
            variables: |world| vec![("CREDENTIALS_DIRECTORY", world.path.as_os_str().as_bytes().to_vec())],
            has_failures: true,
        },
        Subject {
            scheme: Scheme::Literal,
            world: World::new(),
            name: |_, name| format!("literal:{CANARY}-{name}"),
            put: |_, _, _| (),
            variables: |_| Vec::new(),
            has_failures: false,
        },
        #[cfg(feature = "vault")]
        vault(Scheme::Vault, |world, name| format!("vault:secret/data/{}#value", unique(world, name))),
        #[cfg(feature = "vault")]
        vault(Scheme::Bao, |world, name| format!("bao:secret/data/{}#value", unique(world, name))),
        #[cfg(feature = "aws")]
        aws(
            Scheme::AwsSecretsManager,
            |world, name| format!("aws-sm:{}", unique(world, name)),
            |world, name, value| {
                use base64::Engine as _;
                let (name, binary) = (unique(world, name), base64::engine::general_purpose::STANDARD.encode(value));
                let root = support::servers::ministack::Keys::root();
                let new = serde_json::json!({"Name": name, "SecretBinary": binary});
                if STACK.call_as(&root, REGION, "secretsmanager.CreateSecret", &new).0 != 200 {
                    STACK.call("secretsmanager.PutSecretValue", &serde_json::json!({"SecretId": name, "SecretBinary": binary}));
                }
            },
        ),
        #[cfg(feature = "aws")]
        aws(
            Scheme::AwsParameterStore,
            |world, name| format!("aws-ssm:/{}", unique(world, name)),
            |world, name, value| {
                STACK.put_parameter(&format!("/{}", unique(world, name)), "SecureString", &String::from_utf8_lossy(value));
            },
        ),
    ]
}

#[cfg(feature = "vault")]
fn vault(scheme: Scheme, name: fn(&World, &str) -> String) -> Subject {
    Subject {
        scheme,
        world: World::new(),
        name,
        put: |world, name, value| BAO.kv(&unique(world, name), &serde_json::json!({"value": String::from_utf8_lossy(value)})),
        variables: |_| vec![("VAULT_ADDR", BAO.address.clone().into()), ("VAULT_TOKEN", BAO.root.clone().into())],
        has_failures: true,
    }
}

#[cfg(feature = "aws")]
fn aws(scheme: Scheme, name: fn(&World, &str) -> String, put: fn(&World, &str, &[u8])) -> Subject {
    let variables = |_: &World| {
        let keys = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", REGION),
            ("AWS_ENDPOINT_URL", &STACK.address),
        ];
        keys.map(|(name, value)| (name, value.as_bytes().to_vec())).to_vec()
    };
    Subject { scheme, world: World::new(), name, put, variables, has_failures: true }
}

impl Subject {
    fn store(&self, variables: &[(&str, Vec<u8>)]) -> Box<dyn Store> {
        let variables = Variables::of(variables.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())));
        let settings = Settings { variables, ..Settings::default() };
        (store::row(self.scheme).unwrap().open)(&settings, None).unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    fn wanted(&self, name: &str) -> Wanted {
        Wanted { reference: Reference::parse((self.name)(&self.world, name).as_bytes()).unwrap(), since: None }
    }

    fn fetch(&self, wanted: &[Wanted]) -> Vec<Result<Fetched, Failure>> {
        self.fetch_with(&(self.variables)(&self.world), wanted)
    }

    fn fetch_with(&self, variables: &[(&str, Vec<u8>)], wanted: &[Wanted]) -> Vec<Result<Fetched, Failure>> {
        let store = self.store(variables);
        #[cfg(feature = "remote")]
        if store::row(self.scheme).unwrap().is_remote {
            return tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(store.fetch(wanted));
        }
        resolve::ready(store.fetch(wanted)).unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn one(&self, name: &str) -> Result<Fetched, Failure> {
        self.fetch(&[self.wanted(name)]).remove(0)
    }

    fn text(wanted: &Wanted, fetched: Result<Fetched, Failure>) -> String {
        match fetched.unwrap() {
            Fetched::New { content, .. } => {
                String::from_utf8(store::select(&content, wanted.reference.selector.as_ref()).unwrap().expose().to_vec()).unwrap()
            }
            Fetched::Unchanged => panic!("unchanged"),
        }
    }
}

#[test]
fn every_row_of_the_table_is_a_subject_of_these_tests() {
    let tested: BTreeSet<Scheme> = subjects().iter().map(|subject| subject.scheme).collect();
    assert_eq!(tested, store::ROWS.iter().map(|row| row.scheme).collect());
    let names: BTreeSet<&str> = store::ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), store::ROWS.len());
}

#[test]
fn answers_come_in_the_order_of_the_questions() {
    for subject in subjects() {
        let names: Vec<String> = (0..20).map(|number| format!("s{number}")).collect();
        for name in &names {
            (subject.put)(&subject.world, name, format!("{CANARY}-{name}").as_bytes());
        }
        let wanted: Vec<Wanted> = names.iter().rev().chain(&names).map(|name| subject.wanted(name)).collect();
        let answers = subject.fetch(&wanted);
        assert_eq!(answers.len(), wanted.len());
        let texts: Vec<String> = wanted.iter().zip(answers).map(|(wanted, answer)| Subject::text(wanted, answer)).collect();
        let expected: Vec<String> = names.iter().rev().chain(&names).map(|name| format!("{CANARY}-{name}")).collect();
        assert_eq!(texts, expected, "{:?}", subject.scheme);
    }
}

#[test]
fn the_same_version_is_unchanged_and_another_is_new() {
    for subject in subjects() {
        (subject.put)(&subject.world, "s", CANARY.as_bytes());
        let Ok(Fetched::New { version, .. }) = subject.one("s") else { panic!("{:?}", subject.scheme) };
        let again = Wanted { since: Some(version), ..subject.wanted("s") };
        assert!(matches!(subject.fetch(std::slice::from_ref(&again))[..], [Ok(Fetched::Unchanged)]), "{:?}", subject.scheme);
        if subject.has_failures {
            (subject.put)(&subject.world, "s", b"another of another length");
            assert!(matches!(subject.fetch(&[again])[..], [Ok(Fetched::New { .. })]), "{:?}", subject.scheme);
        }
    }
}

#[test]
fn one_failure_is_that_of_one_secret() {
    for subject in subjects().iter().filter(|subject| subject.has_failures) {
        (subject.put)(&subject.world, "good", CANARY.as_bytes());
        let answers = subject.fetch(&["none", "good", "none"].map(|name| subject.wanted(name)));
        assert!(matches!(&answers[..], [Err(one), Ok(_), Err(other)] if one.kind == FailureKind::NotFound && other == one), "{answers:?}");
    }
}

#[test]
fn garbage_is_bytes_or_an_error_and_never_a_panic_nor_a_value_in_a_message() {
    let garbage: &[&[u8]] =
        &[b"\xff\xfe", b"\0\0\0", b"'", b"\"", b"{", b"[[[", b"\n\n=", b"hunter2-canary", &[b'x'; 5000], b"{\"a\": hunter2-canary}"];
    for subject in subjects() {
        for (number, bytes) in garbage.iter().enumerate() {
            let name = format!("g{number}");
            (subject.put)(&subject.world, &name, bytes);
            let failure = match subject.one(&name) {
                Err(failure) => Some(failure),
                Ok(Fetched::New { content, .. }) => {
                    let key = secret_init::reference::Selector::Key("a".into());
                    store::select(&content, Some(&key)).err()
                }
                Ok(Fetched::Unchanged) => None,
            };
            let message = format!("{failure:?}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}

#[test]
fn a_secret_without_a_key_is_whole_and_a_map_needs_one() {
    let bytes = Content::Bytes(secret_init::secret::Secret::copy_of(b" {\"a\": 1} \n"));
    assert_eq!(store::select(&bytes, None).unwrap().expose(), b" {\"a\": 1} \n");
    let map = Content::Map([("a".to_owned(), secret_init::secret::Secret::copy_of(b"1"))].into());
    assert_eq!(store::select(&map, None).unwrap_err().kind, FailureKind::Invalid);
}

/// What a remote store answers is as little to be trusted as that it answers.
#[cfg(feature = "remote")]
#[test]
fn a_remote_store_that_is_away_broken_or_lying_is_a_failure_of_its_kind() {
    use support::servers::faults::{Answer, Faults, nobody};
    let unavailable = FailureKind::Unavailable { retry_after: None };
    let rows: Vec<(Answer, FailureKind)> = vec![
        (Answer::status(500).body(CANARY), unavailable),
        (
            Answer::status(503).header("retry-after", "7").body(CANARY),
            FailureKind::Unavailable { retry_after: Some(Duration::from_secs(7)) },
        ),
        (Answer::hang_up(), unavailable),
        (Answer::garbage(), unavailable),
        (Answer::status(200).body([b'x'; 100]).cut_after(10), unavailable),
        (Answer::oversize(), FailureKind::Protocol),
        (Answer::status(200).body(CANARY), FailureKind::Protocol),
        (Answer::status(200), FailureKind::Protocol),
        (Answer::json(&serde_json::json!({"x": CANARY})), FailureKind::Protocol),
        (Answer::redirect("http://127.0.0.1:1/hunter2"), FailureKind::Protocol),
        (Answer::status(418).body(CANARY), FailureKind::Protocol),
    ];
    for subject in subjects().iter().filter(|subject| store::row(subject.scheme).unwrap().is_remote) {
        let kind = |address: String| {
            let mut variables = (subject.variables)(&subject.world);
            variables.retain(|(name, _)| !["VAULT_ADDR", "AWS_ENDPOINT_URL"].contains(name));
            variables.extend([("VAULT_ADDR", address.clone().into_bytes()), ("AWS_ENDPOINT_URL", address.into_bytes())]);
            let failure = subject.fetch_with(&variables, &[subject.wanted("s")]).remove(0).unwrap_err();
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
            failure.kind
        };
        assert_eq!(kind(nobody()), unavailable, "{:?}", subject.scheme);
        for (answer, expected) in &rows {
            let server = Faults::always(answer.clone());
            assert_eq!(kind(server.address.clone()), *expected, "{:?} {answer:?}", subject.scheme);
        }
    }
}
