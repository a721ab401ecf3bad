//! YAML as a tree that knows where each of its nodes stands. Without aliases and tags, so that a file means what it shows and cannot grow.

use std::fmt;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle};

use super::read::Faults;

/// A place in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.line, self.column)
    }
}

impl From<Marker> for Position {
    fn from(marker: Marker) -> Self {
        Self { line: marker.line(), column: marker.col() + 1 }
    }
}

/// A node, and where it begins.
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// The kinds of node.
pub enum Value {
    /// `~`, `null`, or nothing.
    Null,
    /// Any other scalar, as its text: `0400` and `yes` are what they look like, not a number and a truth.
    Text(String),
    /// `[a, b]`, or lines with `-`.
    Sequence(Vec<Node>),
    /// `{key: value}`, or lines with `:`, in their order.
    Mapping(Vec<(Node, Node)>),
    /// What was refused, and has been told.
    Refused,
}

/// As deep as nodes may lie in each other; the deepest that means something is 6.
const DEEPEST: usize = 32;
/// As many nodes as there may be, which is a thousand files or so: a file of 1 MiB could have half a million.
const MOST: usize = 10_000;

/// Reads a file with one document. What is wrong goes to the faults; after an error of syntax there is nothing more to be told.
pub fn parse(text: &str, faults: &mut Faults) -> Option<Node> {
    let options = granit_parser::options! { emit_unresolved_aliases: true, flow_nesting_limit: DEEPEST, block_nesting_limit: DEEPEST };
    let mut builder = Builder { faults, open: Vec::new(), done: None, count: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        let is_over = match event {
            Ok((event, span)) => builder.take(event, span.start.into(), span.tag_start().map(Position::from)),
            Err(error) => {
                builder.faults.add_with(*error.marker(), syntax(error.kind()), remedy(error.kind()).map(str::to_owned));
                true
            }
        };
        if is_over {
            return None;
        }
    }
    builder.done
}

/// The parser's own words, but for the one that would show a character of the file.
fn syntax(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::RecursionLimitExceeded => format!("lies too deep: {DEEPEST} levels at most"),
        ErrorKind::UnexpectedCharacter { .. } => "not YAML: unexpected character".to_owned(),
        kind => format!("not YAML: {kind}"),
    }
}

/// What to write instead, for the mistakes that people make with texts and columns.
fn remedy(kind: &ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::UnexpectedCharacter { .. }
        | ErrorKind::MappingValueNotAllowed
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::BlockSequenceEntryNotAllowed => Some("put the text in quotes"),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            Some("a quote in a text: '' in single quotes, \\\" in double quotes")
        }
        ErrorKind::UnknownQuotedScalarEscape => Some("put the text in single quotes, which take a backslash as it is"),
        ErrorKind::ExpectedBlockMappingKey => Some("keys that belong together begin in the same column"),
        ErrorKind::TabInBlockIndentation => Some("indent with spaces"),
        _ => None,
    }
}

/// A collection whose end has not come yet; of a mapping also the key that waits for its value.
struct Open {
    node: Node,
    key: Option<Node>,
}

struct Builder<'a> {
    faults: &'a mut Faults,
    open: Vec<Open>,
    done: Option<Node>,
    count: usize,
}

impl Builder<'_> {
    /// Takes an event, and where its tag begins, if it has one; true when it is of no use to go on.
    fn take(&mut self, event: Event<'_>, at: Position, tag: Option<Position>) -> bool {
        match event {
            Event::Scalar(text, style, ..) => {
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { Value::Null } else { Value::Text(text.into_owned()) };
                let value = self.without(tag, "a tag", value);
                self.add(Node { at, value })
            }
            Event::SequenceStart(..) => self.begin(tag, at, Value::Sequence(Vec::new())),
            Event::MappingStart(..) => self.begin(tag, at, Value::Mapping(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.add(open.node),
                None => false,
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let value = self.without(Some(at), "an alias", Value::Null);
                self.add(Node { at, value })
            }
            Event::DocumentStart(..) if self.done.is_some() => {
                self.faults.add(at, "a second document; the file holds one");
                true
            }
            _ => false,
        }
    }

    fn begin(&mut self, tag: Option<Position>, at: Position, value: Value) -> bool {
        // What is in it is still looked at.
        let value = self.without(tag, "a tag", value);
        self.open.push(Open { node: Node { at, value }, key: None });
        false
    }

    /// The value, unless something was there that we have no use for.
    fn without(&mut self, refused: Option<Position>, what: &str, value: Value) -> Value {
        let Some(at) = refused else { return value };
        self.faults.add(at, format!("{what}, which has no meaning here; write the value itself"));
        Value::Refused
    }

    /// Puts a complete node into what it belongs to.
    fn add(&mut self, node: Node) -> bool {
        self.count += 1;
        if self.count > MOST {
            self.faults.add(node.at, format!("more than {MOST} values"));
            return true;
        }
        let Some(parent) = self.open.last_mut() else {
            self.done = Some(node);
            return false;
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::Sequence(nodes), _) => nodes.push(node),
            (Value::Mapping(entries), Some(key)) => entries.push((key, node)),
            (Value::Mapping(_), None) => parent.key = Some(node),
            _ => {}
        }
        false
    }
}
