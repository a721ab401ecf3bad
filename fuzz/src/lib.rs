//! What the fuzz targets share: a canary that stands where a secret may stand, and must not come out.

use std::fmt::Debug;

/// A text that no part of the program has.
pub const CANARY: &str = "qZ7canary7Zq";

/// The text of a reference with the canary where a secret may stand: in the literal, or at the beginning of the default. None when it has neither.
#[must_use]
pub fn with_canary(reference: &[u8]) -> Option<Vec<u8>> {
    let options = || {
        let left = reference.split(|&byte| byte == b'#').next()?;
        let start = left.iter().position(|&byte| byte == b'?')?;
        let mut options = left[start..].windows(9).enumerate();
        let (option, name) = options.find(|(at, window)| *window == b"&default=" || *at == 0 && *window == b"?default=")?;
        Some(start + option + name.len())
    };
    let at = if reference.starts_with(b"literal:") { Some(8) } else { options() };
    at.map(|at| [&reference[..at], CANARY.as_bytes(), &reference[at..]].concat())
}

/// Fails when the canary is in what may be printed.
///
/// # Panics
///
/// When it is.
pub fn assert_hidden(printed: &impl Debug) {
    let printed = format!("{printed:?}");
    assert!(!printed.contains(CANARY), "a secret is printed: {printed}");
}

/// Whether bytes hold the canary by themselves, so that it proves nothing.
#[must_use]
pub fn holds_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}
