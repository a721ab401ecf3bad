//! A value with references in it: `postgresql://${vault:secret/data/db#username}:${…#password | urlencode}@db/app`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::reference::{self, Malformed, Reference, Scheme};
use crate::report::printable;
use crate::secret::Secret;

/// A value that is made when its references are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// In the order in which they are joined.
    pub pieces: Vec<Piece>,
}

/// A part of a [`Template`].
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that stands for itself.
    Text(Vec<u8>),
    /// A secret, and what is done with it in turn.
    Secret(Reference, Vec<Filter>),
}

/// The text may hold a secret that someone wrote into the value.
impl std::fmt::Debug for Piece {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(out, "Text({} bytes)", text.len()),
            Self::Secret(reference, filters) => write!(out, "Secret({reference}, {filters:?})"),
        }
    }
}

/// What can be done with a secret on its way into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Percent-encodes all but the unreserved characters of RFC 3986.
    Urlencode,
    /// Encodes as base64 (RFC 4648, padded).
    Base64,
    /// Decodes base64.
    Base64Decode,
    /// Makes the text a JSON string, with its quotes.
    Json,
    /// Drops white space at both ends.
    Trim,
}

const FILTERS: [(&str, Filter); 5] = [
    ("urlencode", Filter::Urlencode),
    ("base64", Filter::Base64),
    ("base64decode", Filter::Base64Decode),
    ("json", Filter::Json),
    ("trim", Filter::Trim),
];

/// A template that cannot be read: where, and of which reference as far as it may be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The scheme; none when the text has none.
    pub scheme: Option<Scheme>,
    /// The scheme and what of the locator is safe to show; empty when nothing is.
    pub reference: String,
    /// What is wrong.
    pub malformed: Malformed,
}

/// Where a value stands, which decides what in it is a reference.
pub enum Context<'a> {
    /// A variable of the environment. Tells whether a path lies below a secret folder.
    Variable(&'a dyn Fn(&[u8]) -> bool),
    /// A place that is meant for references: `NAME_FILE`.
    Explicit,
    /// The configuration, where `${NAME#KEY}` stands for a part of a secret that it names.
    Configuration(&'a dyn Names),
}

/// The secrets that have a name.
pub trait Names {
    /// What has this name.
    fn find(&self, name: &str) -> Named<'_>;

    /// Whether something has this name.
    fn has(&self, name: &str) -> bool {
        !matches!(self.find(name), Named::Unknown)
    }
}

/// What a name stands for.
pub enum Named<'a> {
    /// A secret.
    Secret(&'a Reference),
    /// One whose reference is malformed, which is told where it stands.
    Malformed,
    /// Nothing.
    Unknown,
}

impl Context<'_> {
    /// Whether a text between `${` and `}`, or longer, begins with something that is ours to replace.
    fn begins(&self, text: &[u8]) -> bool {
        reference::begins(text) || matches!(self, Self::Configuration(_)) && name(text).is_some() || self.is_near_miss(text)
    }

    /// Whether a text after `${` begins with the name of a secret that is not written as it has to be: `${NAME.KEY}`, `${ NAME }`, `${NAME|FILTER}`. As
    /// text it would reach the program unseen. A shell's `${NAME:-y}` is none.
    fn is_near_miss(&self, text: &[u8]) -> bool {
        let Self::Configuration(names) = self else { return false };
        let trimmed = text.trim_ascii_start();
        let (known, rest) = split_name(trimmed);
        let is_shell = matches!(rest, [b':', b'-' | b'?' | b'+' | b'=', ..]);
        let is_right = trimmed.len() == text.len() && (is_shell || name(text).is_some() || reference::begins(text));
        !is_right && std::str::from_utf8(known).is_ok_and(|known| names.has(known))
    }
}

/// The name of a secret that a text begins with, and what follows it: `NAME}`, `NAME?…`, `NAME#…` or `NAME | …`. Not `${X:-y}`, which is a shell's.
fn name(text: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = split_name(text);
    let is_end = matches!(rest.first(), None | Some(b'}' | b'?' | b'#')) || rest.starts_with(SEPARATOR);
    let name = std::str::from_utf8(name).ok()?;
    (is_name(name) && is_end).then_some((name, rest))
}

fn split_name(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|&byte| !is_name_byte(byte)).unwrap_or(text.len()))
}

/// Whether a text can be the name of a secret: letters, digits, `_` and `-`, beginning with a letter or `_`.
/// [`NAME_PATTERN`] says the same.
#[must_use]
pub fn is_name(text: &str) -> bool {
    text.bytes().all(is_name_byte) && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// [`is_name`] as a regular expression (ECMA 262).
pub const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Between a reference and its filters.
const SEPARATOR: &[u8] = b" | ";

impl Template {
    /// Reads a value. `None` when nothing in it refers to a secret, so that it stays as it is.
    ///
    /// # Errors
    ///
    /// When something in it is a reference by its scheme, and malformed.
    pub fn parse(value: &[u8], context: &Context<'_>) -> Result<Option<Self>, Fault> {
        if is_write(value) {
            return Err(write_fault());
        }
        let is_bare = match context {
            Context::Variable(in_secret_folder) => reference::is_bare(value, in_secret_folder),
            Context::Explicit | Context::Configuration(_) => reference::begins(value),
        };
        if is_bare {
            let reference = Reference::parse(value).map_err(|malformed| fault(value, malformed))?;
            return Ok(Some(Self::of(reference)));
        }
        parse_pieces(value, context)
    }

    /// A template of one reference.
    #[must_use]
    pub fn of(reference: Reference) -> Self {
        Self { pieces: vec![Piece::Secret(reference, Vec::new())] }
    }

    /// The references, in their order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Secret(reference, _) => Some(reference),
            Piece::Text(_) => None,
        })
    }

    /// The value as it could have been written. It may hold a secret (a text, a literal, a default): not for printing.
    #[must_use]
    pub fn to_source(&self) -> Vec<u8> {
        let mut source = Vec::new();
        for piece in &self.pieces {
            match piece {
                // A text of the form `${SCHEME:` came from an escape.
                Piece::Text(text) => source.extend(escape(text)),
                Piece::Secret(reference, filters) if self.pieces.len() == 1 && filters.is_empty() => source.extend(reference.to_source()),
                Piece::Secret(reference, filters) => {
                    source.extend(b"${");
                    source.extend(reference.to_source());
                    for filter in filters {
                        let name = FILTERS.iter().find(|(_, known)| known == filter).map_or("", |(name, _)| name);
                        source.extend(format!(" | {name}").bytes());
                    }
                    source.push(b'}');
                }
            }
        }
        source
    }
}

/// Whether a text is what bank-vaults writes to a store, to be given something back.
fn is_write(text: &[u8]) -> bool {
    text.strip_prefix(b">>").is_some_and(|reference| reference.starts_with(b"vault:") || reference.starts_with(b"bao:"))
}

fn write_fault() -> Fault {
    unnamed(Malformed { cause: "the >> prefix is not supported".into(), hint: Some("write the reference without >>") })
}

/// As many references as a text may have: each takes memory of its own, and a configuration could have hundreds of thousands.
const MOST_IN_A_TEXT: usize = 1_000;

/// Reads text with `${…}` in it.
fn parse_pieces(value: &[u8], context: &Context<'_>) -> Result<Option<Template>, Fault> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut is_ours = false;
    let mut count = 0;
    let mut rest = value;
    while let Some(&byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(b"$${")
            && (context.begins(after) || is_write(after))
        {
            is_ours = true;
            text.extend(b"${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix(b"${")
            && context.begins(after)
        {
            is_ours = true;
            if context.is_near_miss(after) {
                let hint = Some("write ${NAME}, ${NAME#KEY} or ${NAME | FILTER}; a literal ${ is written as $${");
                return Err(unnamed(Malformed { cause: "what is around the name of a secret in ${…} has no meaning".into(), hint }));
            }
            let Some(end) = after.iter().position(|&byte| byte == b'}') else {
                let malformed = Malformed { cause: "no } closes ${".into(), hint: Some("a literal ${ is written as $${") };
                // What only may be a name is not told: it could be text, and that a secret.
                return Err(if reference::begins(after) { fault(after, malformed) } else { unnamed(malformed) });
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            let (reference, filters) = split_filters(&after[..end]);
            count += 1;
            if count > MOST_IN_A_TEXT {
                return Err(unnamed(Malformed { cause: format!("more than {MOST_IN_A_TEXT} references in one text"), hint: None }));
            }
            if let Some(reference) = find(reference, context)? {
                pieces.push(Piece::Secret(reference, self::filters(after, &filters)?));
            }
            rest = &after[end + 1..];
        } else if rest.strip_prefix(b"${").is_some_and(is_write) {
            return Err(write_fault());
        } else {
            text.push(byte);
            rest = &rest[1..];
        }
    }
    if !text.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(is_ours.then_some(Template { pieces }))
}

/// The reference, and the filters after the first ` | `.
fn split_filters(inner: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let mut parts = Vec::new();
    let mut rest = inner;
    while let Some(at) = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR) {
        parts.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    parts.push(rest);
    let filters = parts.split_off(1);
    (parts[0], filters)
}

/// The reference that a text is, or names; none for a name whose own reference is malformed.
fn find(text: &[u8], context: &Context<'_>) -> Result<Option<Reference>, Fault> {
    let (Context::Configuration(names), Some((name, tail)), false) = (context, name(text), reference::begins(text)) else {
        return Reference::parse(text).map(Some).map_err(|malformed| fault(text, malformed));
    };
    match names.find(name) {
        Named::Secret(secret) => {
            let not_utf8 = || Malformed { cause: "not UTF-8".into(), hint: Some("write other bytes as %XX") };
            std::str::from_utf8(tail).map_err(|_| not_utf8()).and_then(|tail| secret.part(tail)).map(Some).map_err(unnamed)
        }
        Named::Malformed => Ok(None),
        Named::Unknown => {
            let hint = Some("secrets: gives names; a literal ${ is written as $${");
            Err(unnamed(Malformed { cause: "no secret has the name in ${…}".into(), hint }))
        }
    }
}

/// As many filters as a reference may have: each makes the value anew, and most make it longer.
const MOST_FILTERS: usize = 8;

fn filters(text: &[u8], names: &[&[u8]]) -> Result<Vec<Filter>, Fault> {
    if names.len() > MOST_FILTERS {
        return Err(fault(text, Malformed { cause: format!("more than {MOST_FILTERS} filters on one reference"), hint: None }));
    }
    // The name is not told: a ` | ` may have been meant as text, of a literal or a default, and what follows it is then a part of that.
    let unknown =
        || Malformed { cause: "unknown filter after |".into(), hint: Some("filters are urlencode, base64, base64decode, json, trim") };
    let known = |name: &[u8]| FILTERS.iter().find(|(known, _)| known.as_bytes() == name).map(|&(_, filter)| filter);
    names.iter().map(|name| name.trim_ascii()).map(|name| known(name).ok_or_else(|| fault(text, unknown()))).collect()
}

/// A fault that tells nothing of the text.
fn unnamed(malformed: Malformed) -> Fault {
    Fault { scheme: None, reference: String::new(), malformed }
}

/// Of a malformed reference what stands before its options and its selector is shown: the rest could be a default. Of a literal and of what is encrypted nothing is.
fn fault(text: &[u8], malformed: Malformed) -> Fault {
    let end = match reference::encrypted(text).or(text.starts_with(b"literal:").then_some("literal:".len())) {
        Some(end) => end,
        None => text.iter().position(|byte| matches!(byte, b'?' | b'#' | b' ' | b'$')).unwrap_or(text.len()),
    };
    let more = if end < text.len() { "…" } else { "" };
    Fault { scheme: reference::scheme(text), reference: format!("{}{more}", printable(&text[..end])), malformed }
}

/// Doubles the dollar of each `${SCHEME:` that is meant literally.
fn escape(text: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for (index, &byte) in text.iter().enumerate() {
        if byte == b'$' && text[index..].strip_prefix(b"${").is_some_and(|text| reference::begins(text) || is_write(text)) {
            escaped.push(b'$');
        }
        escaped.push(byte);
    }
    escaped
}

/// Unreserved in RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Filter {
    /// Applies the filter.
    ///
    /// # Errors
    ///
    /// What the bytes are not; never the bytes.
    pub fn apply(self, secret: &Secret) -> Result<Secret, &'static str> {
        let bytes = secret.expose();
        Ok(match self {
            Self::Urlencode => Secret::new(percent_encode(bytes, RESERVED).to_string().into_bytes()),
            Self::Base64 => Secret::new(STANDARD.encode(bytes).into_bytes()),
            Self::Base64Decode => base64_decode(secret)?,
            Self::Json => {
                let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8, which JSON demands")?;
                Secret::new(serde_json::to_vec(text).map_err(|_| "no JSON string can be made of it")?)
            }
            Self::Trim => trim(secret),
        })
    }
}

/// Decodes base64, with or without line breaks and padding.
///
/// # Errors
///
/// When the bytes are not base64.
pub fn base64_decode(secret: &Secret) -> Result<Secret, &'static str> {
    let lenient = base64::engine::GeneralPurposeConfig::new().with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let text: Secret = Secret::new(secret.expose().iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect());
    engine.decode(text.expose()).map(Secret::new).map_err(|_| "not base64")
}

/// Drops ASCII white space at both ends.
#[must_use]
pub fn trim(secret: &Secret) -> Secret {
    Secret::copy_of(secret.expose().trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(filter: Filter, text: &[u8]) -> Result<Vec<u8>, &'static str> {
        filter.apply(&Secret::copy_of(text)).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn filters_transform_bytes() {
        assert_eq!(apply(Filter::Urlencode, b"p@ss/w:rd ~._-\xff"), Ok(b"p%40ss%2Fw%3Ard%20~._-%FF".to_vec()));
        assert_eq!(apply(Filter::Base64, b"a\0b"), Ok(b"YQBi".to_vec()));
        assert_eq!(apply(Filter::Base64Decode, b"YQBi\nYQ\n"), Ok(b"a\0ba".to_vec()));
        assert_eq!(apply(Filter::Json, b"a\"b\n"), Ok(br#""a\"b\n""#.to_vec()));
        assert_eq!(apply(Filter::Trim, b" \t x y \n"), Ok(b"x y".to_vec()));
        assert_eq!(apply(Filter::Base64Decode, b"!"), Err("not base64"));
        assert_eq!(apply(Filter::Json, b"\xff"), Err("not UTF-8, which JSON demands"));
    }

    #[test]
    fn debug_shows_no_text() {
        let template = Template::parse(b"hunter2${pass:x?default=hunter3}", &Context::Explicit).unwrap();
        assert!(!format!("{template:?}").contains("hunter"));
    }
}
