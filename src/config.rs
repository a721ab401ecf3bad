//! The configuration file: names for secrets, variables, files, and what to do on rotation, as far as it does not fit a variable.

mod read;
mod rotation;
mod stores;
mod yaml;

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::reference::{self, Reference};
use crate::report::{Code, Problem, count, printable};
use crate::store::{self, FailureKind};
use crate::template::{self, Named, Names};

use read::{Entries, Fault, Faults, Read, mapping};
use yaml::{Node, Value};

pub use read::{Located, Scalar};
pub use rotation::{Delay, OnChange, Period, Rotation, SignalName};
pub use stores::Store;
pub use yaml::Position;

/// The configuration, as far as it could be read.
pub struct Config {
    /// The path of the file, printable; empty without one.
    path: String,
    /// What is in it.
    pub document: Document,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Reads the file, if there is one. Its problems are not an error yet, so that those of the plan can be told with them.
    #[must_use]
    pub fn load(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::empty(String::new()) };
        let name = printable(path.as_os_str().as_encoded_bytes()).into_owned();
        match store::read_file(path) {
            Ok((text, _)) => Self::parse(text.expose(), name),
            Err(failure) => {
                let mut config = Self::empty(name);
                // The other hints are about secrets.
                let hint = failure.hint.filter(|_| failure.kind == FailureKind::Denied);
                let problem = Problem { hint, ..Problem::new(Code::Configuration, failure.cause) };
                config.problems.push(problem.about(&config.path).about("--config"));
                config
            }
        }
    }

    /// Reads the text of a file; the path is for messages.
    #[must_use]
    pub fn parse(text: &[u8], path: String) -> Self {
        let mut config = Self::empty(path);
        let mut faults = Faults::default();
        match std::str::from_utf8(text) {
            Ok(text) => {
                let document = yaml::parse(text, &mut faults).filter(|node| !matches!(node.value, Value::Null));
                if let Some(mut document) = document.and_then(|node| Document::read(node, &mut faults)) {
                    document.check(&mut faults);
                    document.refuse_settings(&mut faults);
                    document.secrets.sort();
                    config.document = document;
                }
            }
            Err(error) => faults.add(position_of(&text[..error.valid_up_to()]), "not UTF-8"),
        }
        let left_out = faults.left_out;
        let problems = faults.into_list().into_iter().map(|fault| config.problem(fault)).collect();
        config.problems = problems;
        if left_out > 0 {
            let cause = format!("{} more, which are not shown", count(left_out, "problem"));
            config.problems.push(Problem::new(Code::Configuration, cause).about(&config.path));
        }
        config
    }

    fn empty(path: String) -> Self {
        Self { path, document: Document::empty(), problems: Vec::new() }
    }

    /// A place in the file, as editors know it: `PATH:LINE:COLUMN`.
    #[must_use]
    pub fn place(&self, at: Position) -> String {
        format!("{}:{at}", self.path)
    }

    fn problem(&self, fault: Fault) -> Problem {
        let mut problem = Problem::new(Code::Configuration, fault.cause);
        problem.hint = fault.hint;
        if !fault.path.is_empty() {
            problem = problem.about(printable(fault.path.as_bytes()));
        }
        problem.about(self.place(fault.at))
    }
}

impl Names for Config {
    fn find(&self, name: &str) -> Named<'_> {
        match self.document.secrets.find(name) {
            Some(Source { from: Some(reference), .. }) => Named::Secret(reference),
            Some(_) => Named::Malformed,
            None => Named::Unknown,
        }
    }
}

fn position_of(before: &[u8]) -> Position {
    let line = before.split(|&byte| byte == b'\n');
    let column = String::from_utf8_lossy(line.clone().next_back().unwrap_or_default()).chars().count() + 1;
    Position { line: line.count(), column }
}

/// The JSON Schema of the file, for editors.
#[must_use]
pub fn schema() -> String {
    let mut schema = read::or_null(Document::schema());
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("secret-init");
    format!("{schema:#}\n")
}

mapping! {
    /// The configuration file of secret-init.
    pub struct Document {
        /// Stores with their addresses and logins, by a name of yours or that of their kind.
        pub stores: Entries<StoreName, Store>,
        /// Names for secrets. Each is fetched once, and used as `${NAME}` or `${NAME#KEY}` below.
        pub secrets: Entries<SecretName, Source>,
        /// Variables for the program: a text, with `${…}` in it where a secret is meant.
        pub env: Entries<VariableName, Located<Text>>,
        /// Files with secrets.
        pub files: Vec<Located<File>>,
        /// What to do when a secret changes.
        pub rotation: Option<Located<Rotation>>,
    }
}

impl Document {
    fn empty() -> Self {
        Self { stores: Entries::default(), secrets: Entries::default(), env: Entries::default(), files: Vec::new(), rotation: None }
    }

    fn refuse_settings(&mut self, faults: &mut Faults) {
        self.env.0.retain(|(name, _)| {
            let is_setting = name.0.starts_with(SETTINGS);
            if is_setting {
                let (cause, hint) = IS_A_SETTING;
                let add = |faults: &mut Faults| faults.add_with(name.at, cause, Some(hint.to_owned()));
                faults.within("env", |faults| faults.within(&name.0, add));
            }
            !is_setting
        });
    }

    /// What cannot be seen in one place alone.
    fn check(&self, faults: &mut Faults) {
        for (name, _) in &self.secrets.0 {
            if reference::is_scheme(&name.0) {
                faults.within("secrets", |faults| faults.add(name.at, "a secret cannot have the name of a kind of store"));
            }
        }
        for (name, store) in &self.stores.0 {
            if store.kind(&name.0).is_none() {
                faults.within("stores", |faults| faults.add(name.at, "the key type is missing, since the name is no kind of store"));
            }
            if store.is_of_another_kind(&name.0) {
                let cause = "the name is a kind of store, and the type is another";
                let hint = "give it another name, and write ?store=NAME in its references";
                faults.within("stores", |faults| faults.add_with(name.at, cause, Some(hint.to_owned())));
            }
        }
    }
}

/// What the name of every setting of ours begins with, in the container's environment.
pub const SETTINGS: &str = "SECRET_INIT_";

/// What is wrong with a setting of ours among the variables for the program, and what to do.
pub const IS_A_SETTING: (&str, &str) =
    ("is a setting of secret-init, not a variable for the program", "give it as a flag, or in the container");

/// Where a secret that has a name is.
#[derive(Debug)]
pub struct Source {
    /// The reference; none when it is malformed, which has been told.
    pub from: Option<Reference>,
    /// How often to look for a change of it.
    pub refresh: Option<Period>,
    /// What to do when it has changed.
    pub on_change: Option<OnChange>,
}

mapping! {
    /// Where a secret is, and what is its own on rotation.
    pub struct SourceFields {
        /// The reference.
        pub from: Whole,
        /// How often to look for a change of it, at least 5s.
        pub refresh: Option<Period>,
        /// What to do when it has changed.
        pub on_change: Option<OnChange>,
    }
}

impl Read for Source {
    /// Always something: that it has a name is known, so what refers to the name is no second problem.
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let at = node.at;
        let fields = if matches!(node.value, Value::Mapping(_)) {
            SourceFields::read(node, faults)
        } else {
            Whole::read(node, faults).map(|from| SourceFields { from, refresh: None, on_change: None })
        };
        if let Some(SourceFields { from: Whole(reference), refresh: Some(_), .. }) = &fields
            && reference.options.refresh.is_some()
        {
            faults.add_with(at, "refresh is given twice, by refresh: and in the reference", Some("keep one of the two".to_owned()));
        }
        Some(match fields {
            Some(SourceFields { from: Whole(reference), refresh, on_change }) => Self { from: Some(reference), refresh, on_change },
            None => Self { from: None, refresh: None, on_change: None },
        })
    }

    fn schema() -> Json {
        json!({ "oneOf": [<Whole as Read>::schema(), SourceFields::schema()] })
    }
}

/// A reference to a secret of which parts are taken elsewhere.
#[derive(Debug)]
pub struct Whole(pub Reference);

impl Read for Whole {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "expected a reference: SCHEME:LOCATOR, like file:/run/secrets/db";
        let Node { at, value: Value::Text(text) } = node else {
            if !matches!(node.value, Value::Refused) {
                faults.add(node.at, EXPECTED);
            }
            return None;
        };
        if !reference::begins(text.as_bytes()) {
            faults.add(at, EXPECTED);
            return None;
        }
        Reference::parse_whole(text.as_bytes())
            .map(Self)
            .map_err(|malformed| faults.add_with(at, malformed.cause, malformed.hint.map(str::to_owned)))
            .ok()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": reference::pattern() })
    }
}

mapping! {
    /// A file with a secret.
    pub struct File {
        /// Where it lies in the directory for secret files: `db`, `tls/tls.key`.
        pub path: FilePath,
        /// What is in it: a reference, or a text with `${…}` in it.
        pub from: Located<Text>,
        /// Its mode, in place of 0400.
        pub mode: Option<Mode>,
        /// The user that it belongs to, as USER or USER:GROUP, names or numbers; without it the user that the program runs as.
        pub owner: Option<Owner>,
        /// The group of files that it changes together with: all in one directory, and nothing else there.
        pub group: Option<GroupName>,
    }
}

/// A text, as it is written. It may hold a secret that someone wrote into it.
#[derive(Clone)]
pub struct Text(pub String);

impl std::fmt::Debug for Text {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Text({} bytes)", self.0.len())
    }
}

impl Scalar for Text {
    const EXPECTED: &'static str = "a text; an empty one is written \"\"";

    fn parse(text: &str) -> Option<Self> {
        (!text.contains('\0')).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// A name for a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreName(pub String);

impl Scalar for StoreName {
    const EXPECTED: &'static str = SecretName::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        template::is_name(text).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": template::NAME_PATTERN })
    }
}

/// A name for a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName(pub String);

impl Scalar for SecretName {
    const EXPECTED: &'static str = "a name of letters, digits, _ and -, which begins with a letter or _";

    fn parse(text: &str) -> Option<Self> {
        template::is_name(text).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        let schemes: std::collections::BTreeSet<&str> = reference::scheme_words().collect();
        json!({ "type": "string", "pattern": template::NAME_PATTERN, "not": { "enum": schemes } })
    }
}

/// The name of a variable.
#[derive(Clone, Debug)]
pub struct VariableName(pub String);

impl Scalar for VariableName {
    const EXPECTED: &'static str = "the name of a variable: letters, digits, _ . and -";

    fn parse(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        (!text.is_empty() && text.bytes().all(is_plain)).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]+$", "not": { "pattern": format!("^{SETTINGS}") } })
    }
}

/// The name of a group of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupName(pub String);

impl Scalar for GroupName {
    const EXPECTED: &'static str = SecretName::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        StoreName::parse(text).map(|StoreName(name)| Self(name))
    }

    fn schema() -> Json {
        <StoreName as Scalar>::schema()
    }
}

impl AsRef<str> for StoreName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for SecretName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for VariableName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A path below the directory for secret files.
#[derive(Clone, Debug)]
pub struct FilePath(pub String);

impl Scalar for FilePath {
    const EXPECTED: &'static str =
        "a path below the directory, like db or tls/tls.key: parts of A-Z a-z 0-9 _ . -, none of which begins with a dot";

    fn parse(text: &str) -> Option<Self> {
        reference::is_path(text).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number"], "pattern": reference::PATH_PATTERN })
    }
}

/// The mode of a file.
#[derive(Clone, Copy, Debug)]
pub struct Mode(pub u32);

impl Scalar for Mode {
    const EXPECTED: &'static str = "an octal mode like 0440: the owner reads, and others never write";

    fn parse(text: &str) -> Option<Self> {
        reference::file_mode(text).map(Self)
    }

    fn schema() -> Json {
        // As text, and as the numbers that editors make of it: YAML 1.1 reads 0440 as octal, YAML 1.2 as decimal.
        let modes = (0..=0o644).filter(|mode| mode & 0o400 != 0 && mode & !0o644 == 0);
        let numbers: Vec<u32> = modes.flat_map(|mode| [mode, format!("{mode:o}").parse().unwrap_or(mode)]).collect();
        json!({ "anyOf": [{ "type": "string", "pattern": reference::MODE_PATTERN }, { "enum": numbers }] })
    }
}

/// The owner of a file.
#[derive(Clone, Debug)]
pub struct Owner(pub String);

impl Scalar for Owner {
    const EXPECTED: &'static str = "an owner as USER or USER:GROUP, names or numbers from 0 to 4294967294";

    fn parse(text: &str) -> Option<Self> {
        // The highest number means "unchanged" to the kernel.
        let is_number = |part: &str| {
            part.len() <= 10 && part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse().is_ok_and(|id: u32| id != u32::MAX)
        };
        let is_name = |part: &str| part.starts_with(|first: char| !first.is_ascii_digit() && !matches!(first, '+' | '-' | '.'));
        let parts: Vec<&str> = text.split(':').collect();
        (parts.len() <= 2 && parts.iter().all(|part| is_number(part) || is_name(part))).then(|| Self(text.to_owned()))
    }

    /// A user may have the name `true`, which is a text here.
    fn schema() -> Json {
        json!({
            "type": ["string", "integer", "boolean"],
            "pattern": "^([0-9]{1,10}|[^:0-9.+-][^:]*)(:([0-9]{1,10}|[^:0-9.+-][^:]*))?$",
            "minimum": 0,
        })
    }
}
