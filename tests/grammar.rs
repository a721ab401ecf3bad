//! The grammar of references, by its corpus: each is read, printed, and read again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::format_push_string, missing_docs)]

use secret_init::reference::{Reference, Scheme, Selector};
use secret_init::report::printable;
use secret_init::template::{Context, Filter, Named, Names, Piece, Template};

const CORPUS: &str = include_str!("references.txt");

struct Example {
    context: &'static str,
    value: &'static str,
    meaning: &'static str,
}

fn corpus() -> Vec<Example> {
    let lines = CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let examples: Vec<Example> = lines
        .map(|line| {
            let (context, rest) = line.split_once(" :: ").unwrap_or_else(|| panic!("{line}"));
            let (value, meaning) = rest.rsplit_once("=> ").unwrap_or_else(|| panic!("{line}"));
            Example { context, value: value.strip_suffix(' ').unwrap_or(value), meaning }
        })
        .collect();
    assert!(examples.len() > 120);
    examples
}

fn parse(context: &str, value: &[u8]) -> Result<Option<Template>, String> {
    let in_secret_folder = |path: &[u8]| path.starts_with(b"/run/secrets/");
    let context = match context {
        "variable" => Context::Variable(&in_secret_folder),
        "explicit" => Context::Explicit,
        other => panic!("no context {other}"),
    };
    Template::parse(value, &context).map_err(|fault| fault.malformed.cause)
}

#[test]
fn each_reference_means_what_the_corpus_says() {
    for Example { context, value, meaning } in corpus() {
        let read = match parse(context, value.as_bytes()) {
            Ok(None) => "stays".to_owned(),
            Ok(Some(template)) => template.pieces.iter().map(describe).collect::<Vec<_>>().join(" "),
            Err(cause) => format!("error: {cause}"),
        };
        assert_eq!(read, meaning, "{context}: {value}");
    }
}

#[test]
fn each_reference_is_the_same_when_it_is_printed_and_read_again() {
    for Example { context, value, .. } in corpus() {
        let Ok(Some(template)) = parse(context, value.as_bytes()) else { continue };
        let printed = template.to_source();
        // A reference alone is printed without ${…}, which counts everywhere in the explicit context alone.
        assert_eq!(parse("explicit", &printed).as_ref(), Ok(&Some(template)), "{value} became {}", printable(&printed));
    }
}

#[test]
fn what_is_printed_for_people_shows_no_default_and_no_literal() {
    for text in ["cred:a?default=hunter2#k", "literal:hunter2"] {
        let reference = Reference::parse(text.as_bytes()).unwrap();
        assert!(!reference.to_string().contains("hunter2"), "{reference}");
        assert!(!format!("{reference:?}").contains("hunter2"), "{reference:?}");
    }
}

#[test]
fn an_error_shows_nothing_after_the_locator() {
    for text in
        ["cred:a?default=hunter2&x=1", "cred:a?mode=hunter2", "vault:a#hunter2#hunter2", "${cred:a?default=hunter2", "${cred:a | hunter2x}"]
    {
        let fault = Template::parse(text.as_bytes(), &Context::Explicit).unwrap_err();
        assert!(!fault.reference.contains("hunter2"), "{fault:?}");
    }
}

#[test]
fn an_error_shows_no_word_that_is_no_known_name() {
    struct Nothing;
    impl Names for Nothing {
        fn find(&self, _: &str) -> Named<'_> {
            Named::Unknown
        }
    }
    for text in ["x${hunter2", "x${hunter2}", "x${hunter2#k}", "x${hunter2 | trim}"] {
        let fault = Template::parse(text.as_bytes(), &Context::Configuration(&Nothing)).unwrap_err();
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_in_a_reference_and_kept_around_it() {
    assert_eq!(parse("explicit", b"cred:\xff").unwrap_err(), "not UTF-8");
    let template = parse("variable", b"\xff${cred:a}").unwrap().unwrap();
    assert!(matches!(&template.pieces[0], Piece::Text(text) if text == b"\xff"));
}

/// A piece in the notation of the corpus.
fn describe(piece: &Piece) -> String {
    let (reference, filters) = match piece {
        Piece::Text(text) => return format!("\"{}\"", printable(text)),
        Piece::Secret(reference, filters) => (reference, filters),
    };
    let mut text = format!("<{} {}", reference.scheme_name(), printable(&reference.locator));
    match &reference.selector {
        None => {}
        Some(Selector::Key(key)) if key.starts_with('/') => text.push_str(&format!(" #%2F{}", &key[1..])),
        Some(Selector::Key(key)) => text.push_str(&format!(" #{key}")),
        Some(Selector::Pointer(steps)) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect();
            text.push_str(&format!(" #{}", steps.concat()));
        }
    }
    let options = &reference.options;
    text.push_str(if options.optional { " optional" } else { "" });
    text.push_str(&options.default.as_ref().map_or_else(String::new, |default| format!(" default={default}")));
    text.push_str(if options.decode_base64 { " decode=base64" } else { "" });
    text.push_str(if options.trim { " trim" } else { "" });
    text.push_str(&options.refresh.map_or_else(String::new, |refresh| format!(" refresh={}s", refresh.as_secs())));
    text.push_str(&options.mode.map_or_else(String::new, |mode| format!(" mode={mode:04o}")));
    for (name, value) in &options.store {
        text.push_str(&format!(" {name}={value}"));
    }
    for filter in filters {
        let name = match filter {
            Filter::Urlencode => "urlencode",
            Filter::Base64 => "base64",
            Filter::Base64Decode => "base64decode",
            Filter::Json => "json",
            Filter::Trim => "trim",
        };
        text.push_str(&format!(" |{name}"));
    }
    assert!(reference.scheme != Scheme::Literal || filters.len() < 2);
    text + ">"
}
