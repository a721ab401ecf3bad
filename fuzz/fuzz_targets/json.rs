//! A value of a JSON text: the same as in `serde_json`'s own tree, and an error where that has none; errors quote nothing.
//!
//! The input is a JSON pointer or the name of a key, a newline, and the JSON text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secret_init::reference::{Reference, Selector};
use secret_init::secret::Secret;
use secret_init::store::{Content, Failure, FailureKind, select};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let Ok(wanted) = str::from_utf8(&input[..end]) else { return };
    let json = &input[end + 1..];
    let Ok(Reference { selector: Some(selector), .. }) = Reference::parse(format!("file:/x#{}", wanted.replace('%', "%25")).as_bytes())
    else {
        return;
    };
    let select = |json: &[u8]| select(&Content::Bytes(Secret::copy_of(json)), Some(&selector));
    let selected = select(json);
    if let Err(failure) = &selected {
        quotes_nothing(failure, json);
    }
    if let (Selector::Key(key), Ok(_), Some(rest)) = (&selector, &selected, json.trim_ascii_start().strip_prefix(b"{")) {
        let twice = select(&[format!("{{{}: 0,", Value::from(key.as_str())).as_bytes(), rest].concat());
        assert!(twice.as_ref().is_err_and(is_twice), "{twice:?}");
    }
    let Ok(tree) = serde_json::from_slice::<Value>(json) else {
        // What is no JSON is none for us either, but for numbers and depths that a tree cannot hold.
        assert!(str::from_utf8(json).is_ok() || selected.is_err());
        return;
    };
    let expected = match &selector {
        Selector::Key(key) => tree.as_object().and_then(|object| object.get(key)),
        Selector::Pointer(_) => tree.pointer(wanted),
    };
    match (&selected, expected) {
        (Ok(secret), Some(Value::String(text))) => assert_eq!(secret.expose(), text.as_bytes()),
        (Ok(_), Some(Value::Null)) => panic!("null is no secret"),
        (Ok(secret), Some(value)) => {
            assert!(json.windows(secret.len()).any(|window| window == secret.expose()), "not as it stands there");
            assert_eq!(serde_json::from_slice::<Value>(secret.expose()).ok().as_ref(), Some(value));
        }
        (Ok(_), None) => panic!("{selector:?} is there for us alone"),
        (Err(failure), Some(Value::Null)) => assert!(failure.kind == FailureKind::NotFound || is_twice(failure), "{failure:?}"),
        (Err(failure), Some(_)) => assert!(is_twice(failure), "{failure:?}"),
        (Err(_), None) => {}
    }
});

/// A tree keeps the last of two members of one name, which for us is an error.
fn is_twice(failure: &Failure) -> bool {
    failure.kind == FailureKind::Invalid && failure.cause.starts_with("the key stands twice in the JSON object")
}

fn quotes_nothing(failure: &Failure, json: &[u8]) {
    const NOT_JSON: &str = "a key is asked for and the secret is not JSON: ";
    let cause = failure.cause.split(" at step ").next().unwrap_or_default();
    let known = [
        "no such key",
        "the key is there and its value is null",
        "the key stands twice in the JSON object",
        "a key of the JSON object is no text",
        "a key is asked for and the secret is no JSON object",
        "a key is asked for and the secret is not JSON: it is not UTF-8",
        "a key is asked for and the secret is not JSON: a string in it is no text",
    ];
    if known.contains(&cause) {
        return;
    }
    let place = cause.strip_prefix(NOT_JSON).and_then(|place| place.strip_prefix("line ")?.split_once(", column "));
    let (line, column) = place.unwrap_or_else(|| panic!("{cause}"));
    let (line, column): (usize, usize) = (line.parse().unwrap_or(usize::MAX), column.parse().unwrap_or(usize::MAX));
    assert!(line <= json.split(|&byte| byte == b'\n').count() && column <= json.len(), "{cause}");
}
