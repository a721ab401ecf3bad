//! Patterns for names.

/// A pattern for names of variables: `*` is any text, `?` any one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(pub(super) Vec<u8>);

impl From<&str> for Glob {
    fn from(pattern: &str) -> Self {
        Self(pattern.as_bytes().to_vec())
    }
}

impl Glob {
    /// Whether the whole name fits.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        // The usual two pointers: after a mismatch go back to the last star, and let it take one byte more.
        let (pattern, mut at, mut position, mut star) = (&self.0, 0, 0, None);
        while position < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, position));
                    at += 1;
                }
                Some(&wanted) if wanted == b'?' || wanted == name[position] => {
                    at += 1;
                    position += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else { return false };
                    star = Some((star_at, taken + 1));
                    at = star_at + 1;
                    position = taken + 1;
                }
            }
        }
        pattern[at..].iter().all(|&byte| byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        let matches = |glob: &str, name: &str| Glob::from(glob).matches(name.as_bytes());
        assert!(
            matches("GF_*", "GF_DATABASE_FILE")
                && matches("*_FILE", "A_FILE")
                && matches("*", "")
                && matches("A?C", "ABC")
                && matches("*A*B*", "xAyBz")
        );
        assert!(!matches("GF_*", "XGF_A") && !matches("A", "AB") && !matches("A?", "A") && !matches("*A*B", "AxBy"));
    }
}
