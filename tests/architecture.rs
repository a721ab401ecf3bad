//! The design, held by a test: modules look down only, `unsafe` stays below `sys`, and `ls src` is the way from the arguments to the program.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top. A module may use those that stand before it, and its own parts.
const LAYERS: &[&str] = &[
    "sys",
    "report",
    "secret",
    "reference",
    "template",
    "store",
    "config",
    "cli",
    "environment",
    "plan",
    "resolve",
    "health",
    "listen",
    "metrics",
    "audit",
    "inspect",
    "policy",
    "user",
    "deliver",
    "control",
    "run",
    "handshake",
    "rotation",
    "agent",
    "supervise",
    "main",
];

#[test]
fn modules_look_down_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = module_of(&path);
        let own = LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} has no layer"));
        for used in used_modules(&code(&text)) {
            let layer = LAYERS.iter().position(|layer| *layer == used);
            if layer.is_none_or(|layer| layer > own) {
                wrong.push(format!("{} uses {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_layer_is_a_module() {
    let modules: Vec<String> = sources().keys().map(|path| module_of(path)).collect();
    for layer in LAYERS {
        assert!(modules.iter().any(|module| module == layer), "there is no module {layer}");
    }
}

#[test]
fn unsafe_stays_below_sys() {
    for (path, text) in sources() {
        let is_sys = module_of(&path) == "sys";
        assert!(
            is_sys || !code(&text).split(|char: char| !char.is_alphanumeric() && char != '_').any(|word| word == "unsafe"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn stores_only_answer() {
    for (path, text) in sources().into_iter().filter(|(path, _)| module_of(path) == "store") {
        for word in ["signal::", "entry::", "process::exit", "write_stderr", "warn_of", "inform(", "print!(", "println!(", ".print("] {
            assert!(!code(&text).contains(word), "{} has {word}", path.display());
        }
    }
}

/// The arrows are real: the test sees a module that looks up.
#[test]
fn a_use_of_another_module_is_seen() {
    assert_eq!(used_modules("use crate::plan::{Plan};\nuse crate::{sys, report::Code};"), ["plan", "report", "sys"]);
    assert_eq!(used_modules("let x = secret_init::store::ROWS;"), ["store"]);
}

fn sources() -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "lib.rs") {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The first folder or file below `src`.
fn module_of(path: &Path) -> String {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    below.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The text without comments and without its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// What stands after `crate::` or `secret_init::`, one or several in braces.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for prefix in ["crate::", "secret_init::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            let names = if let Some(group) = rest.strip_prefix('{') { top_level(group) } else { vec![rest] };
            used.extend(
                names.iter().map(|name| name.trim().split(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap().to_owned()),
            );
        }
    }
    used.retain(|name| !name.is_empty() && name != "entry");
    used.sort();
    used.dedup();
    used
}

/// The parts of `a::{b, c}, d}` that are not nested.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}
