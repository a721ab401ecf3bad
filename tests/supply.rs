//! Where the binary comes from: lock files that are in step, and a Rust that is what the manifest and the README say.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::binary;

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// What Cargo finds with the lock file alone: it fails when that is not in step with the manifest.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `1.95` and `1.95.0` are the same.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap_or_else(|_| panic!("no version: {text}"))).collect();
    parts.resize(3, 0);
    parts
}

fn ours() -> Vec<u32> {
    version(env!("CARGO_PKG_RUST_VERSION"))
}

/// Names and versions of a lock file; a name may have several.
fn locked(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut packages = BTreeMap::<String, Vec<String>>::new();
    for package in text.split("[[package]]\n").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.and_then(|rest| rest.strip_suffix('"')).unwrap().to_owned()
        };
        packages.entry(field("name")).or_default().push(field("version"));
    }
    packages
}

#[test]
fn the_lock_file_is_in_step_with_the_manifest() {
    let metadata = metadata();
    let locked = locked(&file("Cargo.lock"));
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 10);
    for package in packages {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        assert!(locked[name].iter().any(|locked| locked == version), "{name} {version}");
    }
}

#[test]
fn every_package_comes_from_crates_io_with_a_checksum() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        for package in file(lock).split("[[package]]\n").skip(1) {
            let is_own = package.starts_with("name = \"secret-init");
            let is_from_crates_io = package.contains("source = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = ");
            assert!(is_from_crates_io != is_own, "{lock}: {package}");
        }
    }
}

/// What is fuzzed is what is delivered: the parsers, and all that they are made from. The remote stores are left out.
#[test]
fn the_fuzz_targets_have_the_same_versions_of_all_that_both_have() {
    let fuzz = locked(&file("fuzz/Cargo.lock"));
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--no-default-features", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let packages: Vec<(&str, &str)> = tree.lines().filter_map(|line| line.split_once(" v")).collect();
    assert!(packages.len() > 10);
    for (name, version) in packages.into_iter().filter(|(name, _)| *name != "secret-init") {
        let version = version.split(' ').next().unwrap();
        assert!(
            fuzz.get(name).is_some_and(|versions| versions.iter().any(|locked| locked == version)),
            "fuzz/Cargo.lock lacks {name} {version}"
        );
    }
}

#[test]
fn the_pages_name_the_rust_that_the_manifest_asks_for() {
    let asked = env!("CARGO_PKG_RUST_VERSION");
    for page in ["README.md", "CONTRIBUTING.md"] {
        let text = file(page);
        let named = text.split("Rust ").skip(1).find_map(|rest| rest.split_once(" or newer")).unwrap().0;
        assert_eq!(named, asked, "{page}");
    }
    assert!(file("fuzz/Cargo.toml").contains(&format!("\nrust-version = \"{asked}\"\n")));
}

#[test]
fn no_dependency_asks_for_a_newer_rust() {
    let metadata = metadata();
    let asking: Vec<(&str, &str)> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| Some((package["name"].as_str()?, package["rust_version"].as_str()?)))
        .collect();
    assert!(asking.len() > 10);
    let too_new: Vec<_> = asking.iter().filter(|(_, asked)| version(asked) > ours()).collect();
    assert!(too_new.is_empty(), "{too_new:?}");
}

/// The compiler leaves its version in what it makes.
#[test]
fn the_binary_was_made_by_the_rust_that_is_asked_for_or_a_newer_one() {
    const MARK: &[u8] = b"rustc version ";
    let bytes = fs::read(binary()).unwrap();
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).unwrap() + MARK.len();
    let made_by = bytes[at..].split(|&byte| !byte.is_ascii_digit() && byte != b'.').next().unwrap();
    assert!(version(std::str::from_utf8(made_by).unwrap()) >= ours(), "{}", String::from_utf8_lossy(made_by));
}
