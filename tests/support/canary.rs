//! Texts that are nowhere else, and the search for them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::Command;

use super::World;

/// A text that is nowhere else.
pub struct Canary(pub String);

impl Canary {
    pub fn new() -> Self {
        Self(format!("Q{}!{}z", random(), random()))
    }

    /// One with what has a meaning to JSON, YAML, URLs, shells and terminals.
    pub fn wild() -> Self {
        Self(format!("\"{}\\%+/=&\n\té\u{1b}[31m${{{}}}'", random(), random()))
    }

    /// What the scanner finds of it in these files and directories, in any of its forms; empty when it finds nothing.
    pub fn found_in(&self, world: &World, path: &Path) -> String {
        let text = world.file("canary", &self.0);
        let scanner = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/canary_scan.py");
        let output = Command::new("/usr/bin/python3").arg(scanner).arg(text).arg(path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.success(), found.is_empty());
        found
    }
}

/// `RandomState` has new random keys each time.
fn random() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
