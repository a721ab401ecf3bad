//! The configuration file: each problem has its place in the file and quotes no value, and without a problem nothing of the file is lost.

#![no_main]

use std::collections::BTreeSet;

use granit_parser::{Event, Parser};
use libfuzzer_sys::fuzz_target;
use secret_init::config::Config;
use secret_init::reference::{Reference, Scheme, Selector, is_path, is_scheme};
use secret_init::report::{Code, Problem};
use secret_init::template::{Context, Named, Names as _, Piece, Template, is_name};
use secret_init_fuzz::{CANARY, assert_hidden, holds_canary};

/// A file for each place of a value, `@`.
const PLACES: [&str; 14] = [
    "@",
    "stores: @",
    "stores: {x: {type: @, address: @}}",
    "stores: {vault: {address: @, namespace: @, region: @, ca_file: @}}",
    "stores: {vault: {auth: {method: @, mount: @, role: @, token_file: @}}}",
    "secrets: {a: @}",
    "secrets: {a: {from: @, refresh: @, on_change: @}}",
    "env: @",
    "env: {A: @}",
    "files: [@]",
    "files: [{path: @, from: @, mode: @, owner: @, group: @}]",
    "rotation: {refresh: @, on_change: @, splay: @, validate: @}",
    "rotation: {on_change: {signal: @}, validate: [@]}",
    "{secrets: {a: {from: \"file:/a\", on_change: {http: @}}, b: {from: \"file:/b\", on_change: {exit: @}}}, @: 1}",
];

fuzz_target!(|file: &[u8]| {
    let config = parse(file);
    has_its_problems_in_the_file(&config.problems, file);
    if config.problems.is_empty() {
        has_all_of_the_file(&config, file);
        is_sound(&config);
    }
    if !holds_canary(file) {
        quotes_no_value(file);
    }
});

fn parse(file: &[u8]) -> Config {
    Config::parse(file, "file".to_owned())
}

fn has_its_problems_in_the_file(problems: &[Problem], file: &[u8]) {
    let text = String::from_utf8_lossy(file);
    let lengths_of = |text: &str| -> Vec<usize> { text.split('\n').map(|line| line.chars().count()).collect() };
    // For YAML a carriage return alone ends a line too.
    let (lengths, lengths_in_yaml) = (lengths_of(&text), lengths_of(&text.replace("\r\n", "\n").replace('\r', "\n")));
    let mut last = (1, 1);
    for problem in problems {
        assert!(problem.code == Code::Configuration && !problem.cause.is_empty(), "{problem}");
        let place =
            problem.subject.first().and_then(|subject| subject.strip_prefix("file")).unwrap_or_else(|| panic!("no place: {problem}"));
        let Some((line, column)) = place.strip_prefix(':').and_then(|place| place.split_once(':')) else {
            assert!(problem.cause.ends_with(" more, which are not shown"), "{problem}");
            continue;
        };
        let (line, column): (usize, usize) = (line.parse().unwrap_or(0), column.parse().unwrap_or(0));
        let lengths = if problem.cause == "not UTF-8" { &lengths } else { &lengths_in_yaml };
        let is_in_file = line > 0 && column > 0 && lengths.get(line - 1).is_some_and(|&length| column <= length + 1);
        assert!(is_in_file, "not in the file: {problem}");
        assert!((line, column) >= last, "not in the order of the file: {problem}");
        last = (line, column);
    }
    assert!(problems.len() <= 51);
}

/// As many entries as the events of the YAML parser have.
fn has_all_of_the_file(config: &Config, file: &[u8]) {
    let entries = entries(str::from_utf8(file).unwrap_or_else(|_| panic!("read from what is not UTF-8")));
    let document = &config.document;
    let read = [
        ("stores", document.stores.0.len()),
        ("secrets", document.secrets.0.len()),
        ("env", document.env.0.len()),
        ("files", document.files.len()),
        ("rotation", usize::from(document.rotation.is_some())),
    ];
    assert!(entries.iter().all(|entry| read.iter().any(|(known, _)| *known == entry.key)));
    for (name, count) in read {
        let expected = match entries.iter().find(|entry| entry.key == name) {
            None => 0,
            Some(entry) if name == "rotation" => usize::from(entry.is_mapping),
            Some(entry) if entry.is_mapping => entry.nodes / 2,
            Some(entry) => entry.nodes,
        };
        assert_eq!(count, expected, "{name}");
    }
}

/// An entry at the top of the file.
#[derive(Default)]
struct Entry {
    key: String,
    is_mapping: bool,
    /// Those in its value, of a mapping keys and values.
    nodes: usize,
}

fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut depth, mut is_key) = (0, true);
    for event in Parser::new_from_str(text) {
        let (event, _) = event.unwrap_or_else(|error| panic!("read from what is not YAML: {error}"));
        let is_node = matches!(event, Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..));
        match (&event, entries.last_mut()) {
            (Event::Scalar(text, ..), _) if depth == 1 && is_key => entries.push(Entry { key: text.to_string(), ..Entry::default() }),
            (Event::MappingStart(..), Some(entry)) if depth == 1 => entry.is_mapping = true,
            (_, Some(entry)) if depth == 2 && is_node => entry.nodes += 1,
            _ => {}
        }
        is_key ^= is_node && depth == 1;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth -= 1,
            _ => {}
        }
    }
    entries
}

fn is_sound(config: &Config) {
    let document = &config.document;
    for (name, source) in &document.secrets.0 {
        assert!(is_name(&name.0) && !is_scheme(&name.0));
        assert!(source.from.is_some() && matches!(config.find(&name.0), Named::Secret(found) if Some(found) == source.from.as_ref()));
        assert!(source.refresh.is_none_or(|period| period.0.as_secs() >= 5));
    }
    assert!(document.secrets.0.is_sorted_by(|(one, _), (other, _)| one.0 < other.0));
    let names: BTreeSet<&str> = document.env.0.iter().map(|(name, _)| name.0.as_str()).collect();
    assert_eq!(names.len(), document.env.0.len(), "a name stands twice");
    for file in &document.files {
        assert!(is_path(&file.path.0) && file.path.0.split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
        assert!(file.mode.is_none_or(|mode| mode.0 & 0o400 != 0 && mode.0 & !0o644 == 0));
    }
    let texts = document.env.0.iter().map(|(_, text)| &text.0).chain(document.files.iter().map(|file| &file.from.0));
    for text in texts {
        assert!(!text.contains('\0'));
        if let Ok(Some(template)) = Template::parse(text.as_bytes(), &Context::Configuration(config)) {
            is_the_same_without_names(&template);
        }
    }
}

/// With the names replaced by the references that they stand for, a text is understood everywhere.
fn is_the_same_without_names(template: &Template) {
    // A literal has no other form than its own.
    let has_other_form = |reference: &Reference| {
        reference.scheme != Scheme::Literal
            || !reference.locator.contains(&b'}') && !reference.locator.windows(3).any(|window| window == b" | ")
    };
    // A name may stand for a file of which no part is selected.
    let is_whole = |reference: &Reference| reference.scheme != Scheme::Dotenv || matches!(reference.selector, Some(Selector::Key(_)));
    if template.references().next().is_some() && template.references().all(|reference| has_other_form(reference) && is_whole(reference)) {
        assert!(template.pieces.iter().all(|piece| !matches!(piece, Piece::Text(text) if text.is_empty())));
        let again = Template::parse(&template.to_source(), &Context::Explicit);
        assert!(again.as_ref() == Ok(&Some(template.clone())), "{template:?} became {again:?}");
    }
}

fn quotes_no_value(file: &[u8]) {
    let assert_quotes_nothing = |file: &[u8]| {
        let config = parse(file);
        assert_hidden(&config.problems);
        for text in config.document.env.0.iter().map(|(_, text)| text).chain(config.document.files.iter().map(|file| &file.from)) {
            if text.0.starts_with(CANARY) {
                assert_hidden(&Template::parse(text.0.as_bytes(), &Context::Configuration(&config)));
            }
        }
    };
    let Ok(text) = str::from_utf8(file) else { return };
    let Some(&choice) = file.first() else { return };
    // The canary as the beginning of a value of the file itself. Where another : follows it could be a key, and after some signs a part of the key before it.
    let mut values = text.match_indices(": ").map(|(at, _)| at + 2).filter(|&at| {
        let (before, after) = text.split_at(at);
        let (before, after) =
            (before.rsplit(['\n', '\r']).next().unwrap_or_default(), after.split(['\n', '\r']).next().unwrap_or_default());
        !after.contains(':') && !before.contains(['&', '*', '!', '?']) && !before.trim_end_matches(": ").ends_with(char::is_whitespace)
    });
    if let Some(at) = values.nth(usize::from(choice) % 4) {
        assert_quotes_nothing([&text[..at], CANARY, &text[at..]].concat().as_bytes());
    }
    // The file's own text and the canary as a value in one of the places. What follows ? or & could be the name of an option.
    let value = if choice % 2 == 0 || text.contains(['?', '&']) { format!("{CANARY}{text}") } else { format!("{text}{CANARY}") };
    if let Ok(value) = serde_json::to_string(&value) {
        assert_quotes_nothing(PLACES[usize::from(choice) / 2 % PLACES.len()].replace('@', &value).as_bytes());
    }
}
