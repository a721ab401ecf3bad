//! A reference that parses is the same when it is printed and parsed again; what is printed for people shows no default and no literal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secret_init::reference::{Reference, Scheme, Selector, begins, scheme};
use secret_init_fuzz::{CANARY, assert_hidden, holds_canary, with_canary};

fuzz_target!(|text: &[u8]| {
    match Reference::parse(text) {
        Ok(reference) => {
            assert_eq!(scheme(text), Some(reference.scheme));
            is_the_same_when_read_again(&reference);
            is_sound(&reference);
            shows_no_secret(&reference);
        }
        Err(malformed) => assert!(!malformed.cause.is_empty() && malformed.cause.len() < 2500 && malformed.hint != Some("")),
    }
    if let Some(text) = with_canary(text).filter(|_| !holds_canary(text)) {
        match Reference::parse(&text) {
            Ok(reference) => assert_hidden(&(reference.to_string(), reference)),
            Err(malformed) => assert_hidden(&malformed),
        }
    }
});

fn is_the_same_when_read_again(reference: &Reference) {
    let source = reference.to_source();
    assert!(begins(&source));
    let again = Reference::parse(&source);
    assert!(again.as_ref() == Ok(reference), "{reference} became {again:?}");
    assert!(reference.same_secret(again.as_ref().unwrap_or(reference)));
    assert_eq!(again.map(|again| again.to_source()), Ok(source));
}

/// What the stores rely on.
fn is_sound(reference: &Reference) {
    let options = &reference.options;
    assert!(reference.scheme == Scheme::Literal || !reference.locator.is_empty() && !reference.locator.contains(&0));
    assert!(!matches!(reference.scheme, Scheme::File | Scheme::Dotenv) || reference.locator.starts_with(b"/"));
    assert!(reference.scheme != Scheme::Cred || !reference.locator.contains(&b'/') && !reference.locator.starts_with(b".."));
    assert!(!matches!(&reference.selector, Some(Selector::Key(key)) if key.is_empty()));
    assert!(!matches!(&reference.selector, Some(Selector::Pointer(steps)) if steps.is_empty()));
    assert!(options.mode.is_none_or(|mode| mode & 0o400 != 0 && mode & !0o644 == 0));
    assert!(options.store.is_sorted_by(|(one, _), (other, _)| one < other));
}

/// What is shown does not depend on what may be a secret.
fn shows_no_secret(reference: &Reference) {
    let shown = reference.to_string();
    assert!(!shown.chars().any(char::is_control));
    let mut other = reference.clone();
    if reference.scheme == Scheme::Literal {
        other.locator = CANARY.into();
    }
    if other.options.default.is_some() {
        other.options.default = Some(CANARY.to_owned());
    }
    assert_eq!((shown, format!("{reference:?}")), (other.to_string(), format!("{other:?}")));
}
