//! What tests of files look at: names, modes, values that cannot be torn unseen, and a tmpfs that is soon full.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::Start;

/// In a mount namespace of its own, after a script has mounted what it likes.
pub fn after(start: Start, script: &str) -> Start {
    start.under(["unshare", "--mount", "sh", "-c", &format!("{script} && exec \"$@\""), "sh"])
}

pub fn mode_of(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A value whose number, length and content belong together.
pub fn stamped(number: u64) -> Vec<u8> {
    stamped_of(number, 1 + usize::try_from(number.wrapping_mul(0x9e37_79b9) % 20_000).unwrap())
}

/// The same, with a body of this length.
pub fn stamped_of(number: u64, length: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    let mut state = number;
    value.extend((0..length).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    }));
    let checksum = checksum(&value);
    value.extend(checksum.to_le_bytes());
    value
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The number of a value, if it is whole.
pub fn number_of(value: &[u8]) -> Option<u64> {
    let (body, end) = value.split_last_chunk::<8>()?;
    (checksum(body) == u64::from_le_bytes(*end)).then(|| body.first_chunk().map(|number| u64::from_le_bytes(*number)))?
}

/// A tmpfs of a few pages, gone with the test.
pub struct Small(pub PathBuf);

impl Small {
    pub fn mounted_at(path: PathBuf, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).status().unwrap();
        assert!(mounted.success());
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A sleep is too coarse to hit a moment within a millisecond.
pub fn spin_until(end: Instant) {
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}
