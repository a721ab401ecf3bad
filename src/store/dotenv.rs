//! `dotenv:/path/.env#KEY`: an environment file in Compose's dialect, without interpolation.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{BoxFuture, Content, Failure, FailureKind, Fetched, Row, Store, Wanted, file};
use crate::reference::Scheme;
use crate::secret::Secret;

pub(super) const ROW: Row = Row {
    scheme: Scheme::Dotenv,
    name: "dotenv",
    summary: "one variable of an environment file: dotenv:/path/.env#KEY",
    is_remote: false,
    open: |_, _| Ok(Box::new(Dotenv)),
};

struct Dotenv;

impl Store for Dotenv {
    fn fetch<'a>(&'a self, wanted: &'a [Wanted]) -> BoxFuture<'a, Vec<Result<Fetched, Failure>>> {
        Box::pin(std::future::ready(wanted.iter().map(fetch).collect()))
    }
}

fn fetch(wanted: &Wanted) -> Result<Fetched, Failure> {
    let path = Path::new(OsStr::from_bytes(&wanted.reference.locator));
    let Fetched::New { content: Content::Bytes(secret), version, life } = file::fetch(path, wanted)? else {
        return Ok(Fetched::Unchanged);
    };
    let lines = parse(&secret).map_err(|unreadable| Failure::new(FailureKind::Invalid, unreadable.to_string()))?;
    // The last of several lines for one name counts, as in Compose.
    let map: BTreeMap<String, Secret> = lines.into_iter().map(|line| (line.name, line.value)).collect();
    Ok(Fetched::New { content: Content::Map(map), version, life })
}

/// A variable of an environment file.
#[derive(Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its value, without the quotes.
    pub value: Secret,
}

/// An environment file that cannot be read: the number of the line, from 1, and what is wrong with it. Nothing of the line itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    line: usize,
    cause: &'static str,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "line {}: {}", self.line, self.cause)
    }
}

/// Reads an environment file: `NAME=value`, `export NAME=value`, `NAME: value`; comments; values in single quotes (as they are) or double
/// quotes (with `\n`, `\r`, `\t`, `\"`, `\\`, `\$`), which may span lines. A name alone takes the container's own value, so it gives nothing.
///
/// # Errors
///
/// The first line that cannot be read.
pub fn parse(text: &Secret) -> Result<Vec<Line>, Unreadable> {
    let bytes = text.expose();
    let mut reader = Reader { rest: bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes), line: 1 };
    let mut lines = Vec::new();
    while reader.skip_to_statement() {
        if let Some(line) = reader.statement()? {
            lines.push(line);
        }
    }
    Ok(lines)
}

struct Reader<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Reader<'a> {
    /// Skips white space, empty lines and comments; false at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            match self.rest.first() {
                None => return false,
                Some(b'#') => drop(self.take_line()),
                Some(byte) if byte.is_ascii_whitespace() => self.advance(1),
                Some(_) => return true,
            }
        }
    }

    fn statement(&mut self) -> Result<Option<Line>, Unreadable> {
        if let Some(after) = self.rest.strip_prefix(b"export")
            && after.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            self.advance(b"export".len());
            self.skip_blanks();
        }
        let length = self
            .rest
            .iter()
            .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')))
            .unwrap_or(self.rest.len());
        let name = String::from_utf8_lossy(&self.rest[..length]).into_owned();
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(self.unreadable("no name of a variable"));
        }
        self.advance(length);
        self.skip_blanks();
        match self.rest.first() {
            None | Some(b'\n') => return Ok(None),
            Some(b'=' | b':') => self.advance(1),
            Some(_) => return Err(self.unreadable("no = after the name")),
        }
        let before = self.rest.len();
        self.skip_blanks();
        let after_blank = self.rest.len() < before;
        let value = match self.rest.first() {
            Some(&quote @ (b'"' | b'\'')) => self.quoted(quote)?,
            _ => unquoted(self.take_line(), after_blank),
        };
        Ok(Some(Line { name, value }))
    }

    fn quoted(&mut self, quote: u8) -> Result<Secret, Unreadable> {
        let opened = self.line;
        self.advance(1);
        let mut value = Secret::default();
        loop {
            match *self.rest {
                [] => return Err(Unreadable { line: opened, cause: "a quote is not closed" }),
                [byte, ..] if byte == quote => break,
                [b'\\', escaped, ..] if quote == b'"' => {
                    match escaped {
                        b'n' => value.push(b"\n"),
                        b'r' => value.push(b"\r"),
                        b't' => value.push(b"\t"),
                        b'"' | b'\\' | b'$' | b'\'' => value.push(&[escaped]),
                        other => value.push(&[b'\\', other]),
                    }
                    self.advance(2);
                }
                [b'\\', b'\'', ..] if quote == b'\'' => {
                    value.push(b"'");
                    self.advance(2);
                }
                [byte, ..] => {
                    value.push(&[byte]);
                    self.advance(1);
                }
            }
        }
        self.advance(1);
        let line = self.line;
        let after = self.take_line().trim_ascii();
        if after.is_empty() || after.starts_with(b"#") {
            Ok(value)
        } else {
            Err(Unreadable { line, cause: "text after the closing quote" })
        }
    }

    fn skip_blanks(&mut self) {
        while matches!(self.rest.first(), Some(b' ' | b'\t' | b'\r')) {
            self.advance(1);
        }
    }

    /// The rest of the line; the end of the line is passed over.
    fn take_line(&mut self) -> &'a [u8] {
        let rest = self.rest;
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        self.advance((end + 1).min(rest.len()));
        &rest[..end]
    }

    fn advance(&mut self, count: usize) {
        self.line += self.rest[..count].split(|&byte| byte == b'\n').count() - 1;
        self.rest = &self.rest[count..];
    }

    fn unreadable(&self, cause: &'static str) -> Unreadable {
        Unreadable { line: self.line, cause }
    }
}

/// A value up to the end of its line, or to a `#` after white space: a secret may well begin with one, or have one in it.
fn unquoted(line: &[u8], after_blank: bool) -> Secret {
    let is_comment = |at: usize| line[at] == b'#' && if at == 0 { after_blank } else { line[at - 1].is_ascii_whitespace() };
    let end = (0..line.len()).find(|&at| is_comment(at)).unwrap_or(line.len());
    Secret::copy_of(line[..end].trim_ascii_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let lines = parse(&Secret::copy_of(text.as_bytes())).unwrap();
        lines.into_iter().map(|line| (line.name, String::from_utf8(line.value.expose().to_vec()).unwrap())).collect()
    }

    fn one(text: &str) -> String {
        let mut lines = read(text);
        assert_eq!(lines.len(), 1, "{text}");
        lines.remove(0).1
    }

    fn fault(text: &str) -> String {
        parse(&Secret::copy_of(text.as_bytes())).unwrap_err().to_string()
    }

    #[test]
    fn reads_the_dialect_of_compose() {
        assert_eq!(one("A=b"), "b");
        assert_eq!(one("export A=b\r\n"), "b");
        assert_eq!(one("A: b"), "b");
        assert_eq!(one("  A = b c   # comment"), "b c");
        assert_eq!(one("A=vault:secret/data/db#password"), "vault:secret/data/db#password");
        assert_eq!(one("A="), "");
        assert_eq!(one("A= # c"), "");
        assert_eq!(one("A=#c"), "#c");
        assert_eq!(one("A=\"l1\\nl2\\t\\\"\\\\\\$x\" # comment"), "l1\nl2\t\"\\$x");
        assert_eq!(one("A=\"line 1\nline 2\"\n"), "line 1\nline 2");
        assert_eq!(one("A='${HOME} \\n'"), "${HOME} \\n");
        assert_eq!(
            read("\u{feff}A=1\n\n# c\nB\nC=3\nA=2"),
            [("A", "1"), ("C", "3"), ("A", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn errors_tell_the_line_and_nothing_of_it() {
        assert_eq!(fault("A=1\nhunter2 x"), "line 2: no = after the name");
        assert_eq!(fault("A=1\n=hunter2"), "line 2: no name of a variable");
        assert_eq!(fault("A=1\nB=\"hunter2\nC=3"), "line 2: a quote is not closed");
        assert_eq!(fault("A=\"1\n2\" hunter2"), "line 2: text after the closing quote");
    }
}
