//! The bytes of a secret, and their version.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use siphasher::sip128::SipHasher24;
use zeroize::Zeroizing;

/// The bytes of a secret: wiped when dropped, never printed. There is no `Display`, no `Clone` and no comparison; `Debug` shows the length alone.
#[derive(Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one who delivers or transforms them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, for the one who reads them in.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Makes it longer, by zeros, or shorter.
    pub fn resize(&mut self, length: usize) {
        self.0.resize(length, 0);
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds bytes at the end. When the buffer moves, the allocator wipes the old place.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A secret of its own with some of the bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({} bytes)", self.len())
    }
}

/// What a store calls the state of a secret. Versions are compared for equality and never ordered: a store may go back to an older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// A version by the store's own name for it.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self(name)
    }

    /// A version by its number and the time at which it was made: what is removed and made anew counts from 1 again.
    #[must_use]
    pub fn numbered(number: impl fmt::Display, made: &str) -> Self {
        Self(if made.is_empty() { number.to_string() } else { format!("{number}@{made}") })
    }

    /// What tells it from others.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// A version for what has no name of its own: a digest by the key of this process.
    #[must_use]
    pub fn digest(bytes: &[u8]) -> Self {
        Self(format!("~{}", Key::own().digest(bytes)))
    }
}

/// A key for digests, which tell whether bytes are the same and nothing else of them.
#[derive(Clone, Copy)]
pub struct Key([u8; 16]);

static KEY: OnceLock<Key> = OnceLock::new();

impl Key {
    /// The key of this process, which nobody else has unless it is [handed on](Self::expose).
    #[must_use]
    pub fn own() -> Self {
        *KEY.get_or_init(|| {
            // A hasher has keys of its own, which the system's random numbers made; what it makes of two numbers nobody can guess.
            let [one, other] = [0_u8, 1].map(|number| RandomState::new().hash_one(number).to_le_bytes());
            let mut key = [0; 16];
            key[..8].copy_from_slice(&one);
            key[8..].copy_from_slice(&other);
            Self(key)
        })
    }

    /// Makes this process go on with the key of an earlier one. Too late when it has made a digest already.
    pub fn go_on_with(key: [u8; 16]) {
        let _ = KEY.set(Self(key));
    }

    /// The key itself, for the process that goes on.
    #[must_use]
    pub fn expose(self) -> [u8; 16] {
        self.0
    }

    /// The digest of some bytes, by SipHash-2-4 with 128 bits.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        Digest(SipHasher24::new_with_key(&self.0).hash(bytes).as_u128())
    }
}

/// What a [`Key`] makes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// Reads what `Display` prints.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}

/// Its name comes from a store, which may lie: what no store calls a version is not printed.
impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split('@').next().unwrap_or_default();
        let is_plain = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        out.write_str(if is_plain { name } else { "…" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_shown_when_it_looks_like_one() {
        let shown = |name: &str| Version::new(name.to_owned()).to_string();
        assert_eq!(shown("7"), "7");
        assert_eq!(shown("a1b2c3d4-5678-90ab-cdef-EXAMPLE11111"), "a1b2c3d4-5678-90ab-cdef-EXAMPLE11111");
        assert_eq!([shown("\x1b[31m"), shown("a b"), shown(&"x".repeat(65))], ["…"; 3]);
    }

    #[test]
    fn a_number_that_comes_again_is_another_version() {
        let [first, again] = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"].map(|made| Version::numbered(1, made));
        assert_ne!(first, again);
        assert_eq!([first.to_string(), again.to_string(), Version::numbered(2, "").to_string()], ["1", "1", "2"]);
    }

    #[test]
    fn debug_shows_a_length_and_nothing_else() {
        assert_eq!(format!("{:?}", Secret::copy_of(b"hunter2")), "Secret(7 bytes)");
    }
}
