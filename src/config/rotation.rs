//! `rotation:`, what to do when a secret changes. It is read and checked; nothing acts on it yet.

use std::str::FromStr as _;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};

use super::Text;
use super::read::{Faults, Read, Scalar, mapping};
use super::yaml::{Node, Value};
use crate::reference;

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
    }
}

/// What to do when a secret has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// Send a signal to the program.
    Signal(Signal),
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

const KEYS: [&str; 4] = ["signal", "exec", "http", "exit"];

impl Read for OnChange {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let at = node.at;
        let action = match node.value {
            Value::Refused => return None,
            Value::Text(word) => Self::by_word(&word),
            Value::Mapping(mut entries) if entries.len() == 1 => match entries.pop() {
                // What is wrong with the value is told by itself.
                Some((Node { value: Value::Text(key), .. }, value)) if KEYS.contains(&key.as_str()) => {
                    return faults.within(&key, |faults| Self::by_key(&key, value, faults));
                }
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
        let one = |key: &str, help: &str, mut schema: Json| {
            schema["description"] = json!(help);
            json!({ "type": "object", "properties": { key: schema }, "required": [key], "additionalProperties": false })
        };
        json!({ "oneOf": [
            { "enum": ["signal", "restart", "exit", "none"] },
            one("signal", "Send this signal to the program.", <SignalName as Scalar>::schema()),
            one("exec", "Run this program beside it.", <Command as Read>::schema()),
            one("http", "Ask this URL, by POST.", <Url as Scalar>::schema()),
            one("exit", "End with this code.", <ExitCode as Scalar>::schema()),
        ] })
    }
}

impl OnChange {
    fn by_word(word: &str) -> Option<Self> {
        match word {
            "signal" => Some(Self::Signal(Signal::SIGHUP)),
            "restart" => Some(Self::Restart),
            "exit" => Some(Self::Exit(0)),
            "none" => Some(Self::Nothing),
            _ => None,
        }
    }

    fn by_key(key: &str, value: Node, faults: &mut Faults) -> Option<Self> {
        match key {
            "signal" => SignalName::read(value, faults).map(|SignalName(signal)| Self::Signal(signal)),
            "exec" => Command::read(value, faults).map(Self::Exec),
            "http" => Url::read(value, faults).map(Self::Http),
            _ => ExitCode::read(value, faults).map(|ExitCode(code)| Self::Exit(code)),
        }
    }
}

/// How often to look for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A signal that can be sent for a change.
struct SignalName(Signal);

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
