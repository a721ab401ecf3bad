//! One value out of a JSON text, byte for byte where it is no string.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Failure, FailureKind};
use crate::reference::Selector;
use crate::secret::Secret;

/// Follows the selector into the JSON text. A string gives its content, anything else its text as it stands there.
///
/// # Errors
///
/// Not JSON, a key twice, a key that is not there, `null`. Of the text only a line and a column are told: the JSON library's own words would quote it.
pub(super) fn select(json: &Secret, selector: &Selector) -> Result<Secret, Failure> {
    let (steps, takes_index) = match selector {
        Selector::Key(key) => (std::slice::from_ref(key), false),
        Selector::Pointer(steps) => (steps.as_slice(), true),
    };
    let text = std::str::from_utf8(json.expose()).map_err(|_| not_json("it is not UTF-8"))?;
    let mut value: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&position(&error)))?;
    for (depth, step) in steps.iter().enumerate() {
        value = child(value, step, takes_index).map_err(|fault| fault.at(depth, steps))?;
    }
    match value.get() {
        "null" => Err(Failure::new(FailureKind::NotFound, "the key is there and its value is null")),
        _ => content(value).ok_or_else(|| not_json("a string in it is no text")),
    }
}

/// The content of a string, and the text of anything else.
fn content(value: &RawValue) -> Option<Secret> {
    match value.get() {
        string if string.starts_with('"') => {
            let content: String = serde_json::from_str(string).ok()?;
            Some(Secret::new(content.into_bytes()))
        }
        other => Some(Secret::copy_of(other.as_bytes())),
    }
}

/// The members of a JSON object, in their order; none for a value that is `null`, an array or an object.
///
/// # Errors
///
/// No JSON object, or a key twice.
pub(super) fn entries(json: &Secret) -> Result<Vec<(String, Option<Secret>)>, Failure> {
    let no_object = || Failure::new(FailureKind::Invalid, "the secret is no JSON object, whose keys could become variables");
    let Members(members) = serde_json::from_slice(json.expose()).map_err(|_| no_object())?;
    let mut keys = BTreeSet::new();
    if !members.iter().all(|(key, _)| keys.insert(key)) {
        return Err(Failure::new(FailureKind::Invalid, "a key stands twice in the JSON object"));
    }
    let is_plain = |value: &RawValue| !value.get().starts_with(['{', '[', 'n']);
    Ok(members.into_iter().map(|(key, value)| (key.into_owned(), content(value).filter(|_| is_plain(value)))).collect())
}

/// All members of an object.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}

fn not_json(why: &str) -> Failure {
    Failure::new(FailureKind::Invalid, format!("a key is asked for and the secret is not JSON: {why}"))
        .hint("leave the # out to get the whole secret")
}

fn position(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

enum Fault {
    Missing,
    Twice,
    KeyIsNoText,
    NoContainer,
}

impl Fault {
    fn at(&self, depth: usize, steps: &[String]) -> Failure {
        // The steps come from the reference, which may be printed.
        let place = if steps.len() > 1 { format!(" at step {} of the pointer", depth + 1) } else { String::new() };
        match self {
            Self::Missing => Failure::new(FailureKind::NotFound, format!("no such key{place}")),
            Self::Twice => Failure::new(FailureKind::Invalid, format!("the key stands twice in the JSON object{place}")),
            Self::KeyIsNoText => Failure::new(FailureKind::Invalid, format!("a key of the JSON object is no text{place}")),
            Self::NoContainer => Failure::new(FailureKind::Invalid, format!("a key is asked for and the secret is no JSON object{place}")),
        }
    }
}

/// A member of an object, or of an array where a step can be an index: a pointer's can, a key cannot.
fn child<'a>(value: &'a RawValue, step: &str, takes_index: bool) -> Result<&'a RawValue, Fault> {
    let mut deserializer = serde_json::Deserializer::from_str(value.get());
    let found = match value.get().as_bytes().first() {
        Some(b'{') => deserializer.deserialize_map(Member(step)),
        Some(b'[') if takes_index => deserializer.deserialize_seq(Element(index(step))),
        _ => return Err(Fault::NoContainer),
    };
    // The text was read once as a whole, so the one error left is a key that is JSON and no text, such as half a surrogate pair.
    match found {
        Ok(Found::Once(found)) => Ok(found),
        Ok(Found::Never) => Err(Fault::Missing),
        Ok(Found::Twice) => Err(Fault::Twice),
        Err(_) => Err(Fault::KeyIsNoText),
    }
}

/// An index of an array in a JSON pointer: digits without a leading zero.
fn index(step: &str) -> Option<usize> {
    let is_plain = step == "0" || !step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit());
    step.parse().ok().filter(|_| is_plain)
}

/// How often something is there.
enum Found<'de> {
    Never,
    Once(&'de RawValue),
    Twice,
}

/// Finds one member of an object.
struct Member<'a>(&'a str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Found<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::Never;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let value: &'de RawValue = map.next_value()?;
            if key == self.0 {
                found = if matches!(found, Found::Never) { Found::Once(value) } else { Found::Twice };
            }
        }
        Ok(found)
    }
}

/// Finds one element of an array.
struct Element(Option<usize>);

impl<'de> Visitor<'de> for Element {
    type Value = Found<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = Found::Never;
        let mut position = 0;
        while let Some(element) = elements.next_element::<&'de RawValue>()? {
            if Some(position) == self.0 {
                found = Found::Once(element);
            }
            position += 1;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(json: &str, steps: &[&str]) -> Result<String, String> {
        pick_by(&Selector::Pointer(steps.iter().map(|&step| step.to_owned()).collect()), json)
    }

    fn pick_by(selector: &Selector, json: &str) -> Result<String, String> {
        select(&Secret::copy_of(json.as_bytes()), selector)
            .map(|secret| String::from_utf8(secret.expose().to_vec()).unwrap())
            .map_err(|failure| failure.cause)
    }

    #[test]
    fn a_string_gives_its_content_and_anything_else_its_text() {
        let json = r#" {"a": "x\n\u00e9", "n": 1.50e3, "t": true, "o": {"b": [1, {"c":"d"}]}, "k/~": "s"} "#;
        assert_eq!(pick(json, &["a"]).unwrap(), "x\né");
        assert_eq!(pick(json, &["n"]).unwrap(), "1.50e3");
        assert_eq!(pick(json, &["t"]).unwrap(), "true");
        assert_eq!(pick(json, &["o"]).unwrap(), r#"{"b": [1, {"c":"d"}]}"#);
        assert_eq!(pick(json, &["o", "b", "1", "c"]).unwrap(), "d");
        assert_eq!(pick(json, &["k/~"]).unwrap(), "s");
    }

    #[test]
    fn what_is_not_there_is_an_error_that_quotes_nothing() {
        assert_eq!(pick(r#"{"a": "hunter2"}"#, &["b"]).unwrap_err(), "no such key");
        assert_eq!(pick(r#"{"a": {"b": 1}}"#, &["a", "c"]).unwrap_err(), "no such key at step 2 of the pointer");
        assert_eq!(pick(r#"{"a": [1]}"#, &["a", "01"]).unwrap_err(), "no such key at step 2 of the pointer");
        assert_eq!(pick(r#"{"a": null}"#, &["a"]).unwrap_err(), "the key is there and its value is null");
        assert_eq!(pick(r#"{"a": 1, "a": 2}"#, &["a"]).unwrap_err(), "the key stands twice in the JSON object");
        assert_eq!(
            pick(r#"{"a": "hunter2"}"#, &["a", "b"]).unwrap_err(),
            "a key is asked for and the secret is no JSON object at step 2 of the pointer"
        );
        assert_eq!(pick("hunter2", &["a"]).unwrap_err(), "a key is asked for and the secret is not JSON: line 1, column 1");
        assert_eq!(pick(r#"{"\ud800": 1, "a": 2}"#, &["a"]).unwrap_err(), "a key of the JSON object is no text");
        assert_eq!(pick("\"a\"", &["a"]).unwrap_err(), "a key is asked for and the secret is no JSON object");
    }

    #[test]
    fn the_members_of_an_object_come_in_their_order_with_the_values_that_a_variable_can_hold() {
        let entries = |json: &str| entries(&Secret::copy_of(json.as_bytes()));
        let said =
            |value: &Option<Secret>| value.as_ref().map_or("-".to_owned(), |value| String::from_utf8_lossy(value.expose()).into_owned());
        let json = r#"{"b": "x\n", "a\u0062": 1.50, "t": true, "n": null, "o": {}, "l": [], "e": ""}"#;
        let all: Vec<String> = entries(json).unwrap().iter().map(|(key, value)| format!("{key}={}", said(value))).collect();
        assert_eq!(all, ["b=x\n", "ab=1.50", "t=true", "n=-", "o=-", "l=-", "e="]);
        assert_eq!(entries(r#"{"a": "hunter2", "a": 1}"#).unwrap_err().cause, "a key stands twice in the JSON object");
        for json in ["hunter2", "[]", "null", r#"{"a": "hunter2"} x"#, "\"\\ud800\"", "{\"\\ud800\":1}"] {
            assert_eq!(entries(json).unwrap_err().cause, "the secret is no JSON object, whose keys could become variables", "{json}");
        }
        assert_eq!(entries(r#"{"a": "\ud800"}"#).unwrap().len(), 1);
    }

    #[test]
    fn a_key_is_no_index_of_an_array() {
        let key = Selector::Key("0".into());
        assert_eq!(pick("[7]", &["0"]).unwrap(), "7");
        assert_eq!(pick_by(&key, "[7]").unwrap_err(), "a key is asked for and the secret is no JSON object");
        assert_eq!(pick_by(&key, r#"{"0": 7}"#).unwrap(), "7");
    }

    #[test]
    fn deep_nesting_ends_in_an_error_or_a_value_and_not_in_a_crash() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(pick(&deep, &["b"]).is_err());
    }
}
