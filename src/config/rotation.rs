//! `rotation:`, what to do when a secret changes.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

use super::Text;
use super::read::{Faults, Read, Scalar, mapping};
use super::yaml::{Node, Value};
use crate::reference;
use crate::report::printable;

mapping! {
    /// What to do when a secret changes.
    pub struct Rotation {
        /// How often to look for a change, at least 5s: 30s, 5m, 1h.
        pub refresh: Option<Period>,
        /// What to do then.
        pub on_change: Option<OnChange>,
        /// Wait a random time up to this one before it, so that replicas do not act at once.
        pub splay: Option<Delay>,
        /// A program with its arguments that looks at the new files first; unless it ends with 0, the old ones stay.
        pub validate: Option<Command>,
        /// The signal that asks the program to end before it is started again, TERM when nothing is said.
        pub stop_signal: Option<SignalName>,
        /// How long it may take to end before it is killed, 10s when nothing is said.
        pub grace: Option<Delay>,
    }
}

/// What to do when a secret has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// Send a signal to the program: HUP when none is named.
    Signal(Option<Signal>),
    /// Stop the program and start it with the new environment.
    Restart,
    /// Run a program beside it.
    Exec(Command),
    /// Ask a URL, by POST.
    Http(Url),
    /// End with this code.
    Exit(u8),
    /// Write the files and tell nobody.
    Nothing,
}

const EXPECTED: &str = "expected one of signal, restart, exit, none, {signal: HUP}, {exec: [program, argument]}, {http: URL}, {exit: CODE}";

/// An action that takes a value.
struct Row {
    key: &'static str,
    help: &'static str,
    read: fn(Node, &mut Faults) -> Option<OnChange>,
    schema: fn() -> Json,
}

const ROWS: [Row; 4] = [
    Row {
        key: "signal",
        help: "Send this signal to the program.",
        read: |value, faults| SignalName::read(value, faults).map(|SignalName(signal)| OnChange::Signal(Some(signal))),
        schema: <SignalName as Scalar>::schema,
    },
    Row {
        key: "exec",
        help: "Run this program beside it.",
        read: |value, faults| Command::read(value, faults).map(OnChange::Exec),
        schema: <Command as Read>::schema,
    },
    Row {
        key: "http",
        help: "Ask this URL, by POST.",
        read: |value, faults| Url::read(value, faults).map(OnChange::Http),
        schema: <Url as Scalar>::schema,
    },
    Row {
        key: "exit",
        help: "End with this code.",
        read: |value, faults| ExitCode::read(value, faults).map(|ExitCode(code)| OnChange::Exit(code)),
        schema: <ExitCode as Scalar>::schema,
    },
];

impl Read for OnChange {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let at = node.at;
        let action = match node.value {
            Value::Refused => return None,
            Value::Text(word) => Self::by_word(&word),
            Value::Mapping(mut entries) if entries.len() == 1 => match entries.pop() {
                Some((Node { value: Value::Text(key), .. }, value)) => match ROWS.iter().find(|row| row.key == key) {
                    // What is wrong with the value is told by itself.
                    Some(row) => return faults.within(row.key, |faults| (row.read)(value, faults)),
                    None => None,
                },
                _ => None,
            },
            _ => None,
        };
        if action.is_none() {
            faults.add(at, EXPECTED);
        }
        action
    }

    fn schema() -> Json {
        let with_value = ROWS.iter().map(|Row { key, help, schema, .. }| {
            let mut schema = schema();
            schema["description"] = json!(help);
            json!({ "type": "object", "properties": { *key: schema }, "required": [key], "additionalProperties": false })
        });
        let words = json!({ "enum": ["signal", "restart", "exit", "none"] });
        json!({ "oneOf": std::iter::once(words).chain(with_value).collect::<Vec<_>>() })
    }
}

impl OnChange {
    /// Reads what a flag says: a word, `exit:CODE`, the name of a signal, or a URL.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let code = || ExitCode::parse(text.strip_prefix("exit:")?).map(|ExitCode(code)| Self::Exit(code));
        let signal = || SignalName::parse(text).map(|SignalName(signal)| Self::Signal(Some(signal)));
        Self::by_word(text).or_else(code).or_else(signal).or_else(|| Url::parse(text).map(Self::Http))
    }

    /// Its name.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Signal(_) => "signal",
            Self::Restart => "restart",
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
            Self::Exit(_) => "exit",
            Self::Nothing => "none",
        }
    }

    fn by_word(word: &str) -> Option<Self> {
        match word {
            "signal" => Some(Self::Signal(None)),
            "restart" => Some(Self::Restart),
            "exit" => Some(Self::Exit(0)),
            "none" => Some(Self::Nothing),
            _ => None,
        }
    }
}

impl fmt::Display for OnChange {
    /// For people. A URL, and what a program is given, may say more than they should.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => {
                let signal = signal.unwrap_or(Signal::SIGHUP).as_str();
                write!(out, "signal {}", signal.trim_start_matches("SIG"))
            }
            Self::Exec(Command(words)) => write!(out, "exec {}", printable(words.first().map_or("", String::as_str).as_bytes())),
            Self::Exit(code) => write!(out, "exit {code}"),
            Self::Restart | Self::Http(_) | Self::Nothing => out.write_str(self.word()),
        }
    }
}

/// How often to look for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Scalar for Period {
    const EXPECTED: &'static str = "a duration of at least 5s, like 30s, 5m or 1h";

    fn parse(text: &str) -> Option<Self> {
        reference::period(text).map(Self)
    }

    fn schema() -> Json {
        let shortest = reference::SHORTEST_PERIOD.as_secs();
        json!({ "type": ["string", "integer"], "pattern": reference::PERIOD_PATTERN, "minimum": shortest })
    }
}

/// A time to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay(pub Duration);

impl Scalar for Delay {
    const EXPECTED: &'static str = "a duration like 30s, 5m or 1h";

    fn parse(text: &str) -> Option<Self> {
        reference::duration(text).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": ["string", "integer"], "pattern": "^[0-9]+[smhd]?$", "minimum": 0 })
    }
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(pub Vec<String>);

impl Read for Command {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        const EXPECTED: &str = "expected a program with its arguments: [program, argument]";
        let at = node.at;
        if !matches!(node.value, Value::Sequence(_)) {
            faults.add(at, EXPECTED);
            return None;
        }
        let words: Vec<String> = Vec::<Text>::read(node, faults)?.into_iter().map(|Text(word)| word).collect();
        if words.first().is_none_or(String::is_empty) {
            faults.add(at, EXPECTED);
            return None;
        }
        Some(Self(words))
    }

    fn schema() -> Json {
        let mut program = <Text as Scalar>::schema();
        program["minLength"] = json!(1);
        json!({ "type": "array", "prefixItems": [program], "items": <Text as Scalar>::schema(), "minItems": 1 })
    }
}

/// A signal that can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalName(pub Signal);

impl Scalar for SignalName {
    const EXPECTED: &'static str = "the name of a signal other than KILL and STOP, like HUP or USR1";

    fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let signal = Signal::from_str(&format!("SIG{name}")).ok()?;
        (!matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)).then_some(Self(signal))
    }

    fn schema() -> Json {
        let names = Signal::iterator().map(Signal::as_str).filter_map(|name| Self::parse(name).and(name.strip_prefix("SIG")));
        json!({ "enum": names.flat_map(|name| [name.to_owned(), format!("SIG{name}")]).collect::<Vec<_>>() })
    }
}

/// A URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub String);

impl Scalar for Url {
    const EXPECTED: &'static str = "a URL that begins with https:// or http://";

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let is_plain = rest.bytes().all(|byte| byte.is_ascii_graphic());
        (is_plain && !rest.is_empty() && !rest.starts_with('/')).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^https?://[!-.0-~][!-~]*$" })
    }
}

struct ExitCode(u8);

impl Scalar for ExitCode {
    const EXPECTED: &'static str = "an exit code from 0 to 255";

    fn parse(text: &str) -> Option<Self> {
        let is_plain = text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| is_plain).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": ["integer", "string"], "minimum": 0, "maximum": 255, "pattern": "^[0-9]{1,3}$" })
    }
}
