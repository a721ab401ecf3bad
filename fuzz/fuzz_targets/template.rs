//! A value that parses is the same when it is printed and parsed again, and nothing of its text, its literals and its defaults is shown.
//!
//! The first byte decides where the value stands, the others are the value.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use secret_init::reference::{Reference, begins};
use secret_init::template::{Context, Fault, Named, Names, Piece, Template, is_name};
use secret_init_fuzz::{CANARY, assert_hidden, holds_canary, with_canary};

/// What the configuration gives a name to.
struct Configured;

impl Names for Configured {
    fn find(&self, name: &str) -> Named<'_> {
        static SECRETS: LazyLock<[Option<Reference>; 3]> = LazyLock::new(|| {
            ["vault:secret/data/db", "dotenv:/app/.env", "literal:x"].map(|text| Reference::parse_whole(text.as_bytes()).ok())
        });
        let secret = ["db", "env", "text"].iter().position(|known| *known == name).and_then(|index| SECRETS[index].as_ref());
        secret.map_or(Named::Unknown, Named::Secret)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((place, value)) = input.split_first() else { return };
    let in_secret_folder = |path: &[u8]| path.starts_with(b"/run/secrets/");
    let variable = Context::Variable(&in_secret_folder);
    // As the first letters of their names.
    let context = match place % 3 {
        0 => Context::Configuration(&Configured),
        1 => Context::Variable(&in_secret_folder),
        _ => Context::Explicit,
    };
    let parsed = Template::parse(value, &context);
    if let Ok(Some(template)) = &parsed {
        is_sound(template);
        is_the_same_when_read_again(template, &context);
    }
    if matches!(Template::parse(value, &Context::Explicit), Ok(None)) {
        assert_eq!(Template::parse(value, &variable), Ok(None));
    }
    if !holds_canary(value) {
        hides_text(value, &parsed, &context);
        hides_literals_and_defaults(value, &context);
    }
});

fn is_sound(template: &Template) {
    assert!(!template.pieces.is_empty());
    let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
    assert!(!template.pieces.windows(2).any(|pair| pair.iter().all(is_text)), "two texts stand side by side");
    assert_eq!(template.references().count(), template.pieces.iter().filter(|piece| !is_text(piece)).count());
}

fn is_the_same_when_read_again(template: &Template, context: &Context) {
    let again = match (context, template.pieces.as_slice()) {
        // A name is printed as what it stands for, and text that is only like one is none elsewhere.
        (Context::Configuration(_), _) if template.references().next().is_none() => return,
        (Context::Configuration(_), _) => &Context::Explicit,
        // A reference alone is printed without ${…}, which counts everywhere in the explicit context alone.
        (_, [Piece::Secret(_, filters)]) if filters.is_empty() => &Context::Explicit,
        _ => context,
    };
    let again = Template::parse(&template.to_source(), again);
    assert!(again.as_ref() == Ok(&Some(template.clone())), "{template:?} became {again:?}");
}

/// Text before and after what is a template by itself.
fn hides_text(value: &[u8], parsed: &Result<Option<Template>, Fault>, context: &Context) {
    assert_hidden(&Template::parse(&[CANARY.as_bytes(), value].concat(), context));
    let is_bare = begins(value) || value.starts_with(b">>");
    if is_bare || parsed.is_err() {
        return;
    }
    // No secret has this name.
    for end in ["", "}", "#a}", " | trim}"] {
        assert_hidden(&Template::parse(&[value, b"${", CANARY.as_bytes(), end.as_bytes()].concat(), context));
    }
    if matches!(parsed, Ok(Some(_))) && !value.ends_with(b"{") {
        let longer = Template::parse(&[value, CANARY.as_bytes()].concat(), context);
        let ends = |template: &Template| matches!(template.pieces.last(), Some(Piece::Text(text)) if text.ends_with(CANARY.as_bytes()));
        assert!(matches!(&longer, Ok(Some(template)) if ends(template)), "{longer:?}");
        assert_hidden(&longer);
    }
}

/// The canary in a reference that is the whole value, and in the first `${…}`.
fn hides_literals_and_defaults(value: &[u8], context: &Context) {
    if begins(value)
        && let Some(value) = with_canary(value)
    {
        assert_hidden(&Template::parse(&value, &Context::Explicit));
    }
    let is_reference = |at: usize| {
        let is_escaped = at > 0 && value[at - 1] == b'$';
        value[at..].strip_prefix(b"${").is_some_and(|after| !is_escaped && (begins(after) || begins_with_name(after, context)))
    };
    let Some(start) = (0..value.len()).find(|&at| is_reference(at)).map(|at| at + 2) else { return };
    let length = value[start..].iter().position(|&byte| byte == b'}').unwrap_or(value.len() - start);
    let (inner, rest) = value[start..].split_at(length);
    if !begins(value)
        && let Some(inner) = with_canary(inner)
    {
        assert_hidden(&Template::parse(&[&value[..start], &inner, rest].concat(), context));
    }
}

fn begins_with_name(text: &[u8], context: &Context) -> bool {
    let name = text.split(|byte| matches!(byte, b'?' | b'#' | b'}' | b' ')).next().and_then(|name| str::from_utf8(name).ok());
    matches!(context, Context::Configuration(_)) && name.is_some_and(is_name)
}
