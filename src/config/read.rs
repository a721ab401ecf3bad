//! From nodes to values: one description of each type, from which the file is read, its faults are told and the JSON Schema is made.

use std::fmt::Write as _;
use std::ops::Deref;

use serde_json::{Value as Json, json};

use super::yaml::{Node, Position, Value};

/// What is wrong with a file, in the order of its lines, and nothing of its values.
#[derive(Default)]
pub struct Faults {
    list: Vec<Fault>,
    path: String,
    /// How many there were beyond [`Self::MOST`].
    pub left_out: usize,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Fault {
    /// Where.
    pub at: Position,
    /// In what: `files[0].mode`; empty at the top.
    pub path: String,
    /// What is wrong, and what was expected.
    pub cause: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Faults {
    /// A file of a megabyte can have as many faults as bytes; nobody reads them.
    const MOST: usize = 50;

    /// Adds a fault of what is being read.
    pub fn add(&mut self, at: impl Into<Position>, cause: impl Into<String>) {
        self.add_with(at, cause, None);
    }

    /// Adds a fault with a hint.
    pub fn add_with(&mut self, at: impl Into<Position>, cause: impl Into<String>, hint: Option<String>) {
        if self.list.len() < Self::MOST {
            self.list.push(Fault { at: at.into(), path: self.path.clone(), cause: cause.into(), hint });
        } else {
            self.left_out += 1;
        }
    }

    /// Reads something that lies deeper: a key, `[0]`.
    pub fn within<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let dot = if length == 0 || step.starts_with('[') { "" } else { "." };
        let _ = write!(self.path, "{dot}{step}");
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// All of them, in the order of the file.
    pub fn into_list(mut self) -> Vec<Fault> {
        self.list.sort_by_key(|fault| fault.at);
        self.list
    }
}

/// What can stand in the file.
pub trait Read: Sized {
    /// Reads it, or as much of it as can be read, so that all faults of a file are told at once; none when nothing is left after a fault, which has been told.
    fn read(node: Node, faults: &mut Faults) -> Option<Self>;

    /// What it is when it is left out; none when it is required.
    fn absent() -> Option<Self> {
        None
    }

    /// What a JSON Schema says of it.
    fn schema() -> Json;
}

/// What is written as one text.
pub trait Scalar: Sized {
    /// What was expected when it cannot be read: "an octal mode like 0440".
    const EXPECTED: &'static str;

    /// Reads the text.
    fn parse(text: &str) -> Option<Self>;

    /// What a JSON Schema says of it.
    #[must_use]
    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl<T: Scalar> Read for T {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let at = node.at;
        let parsed = match node.value {
            Value::Text(text) => T::parse(&text),
            Value::Refused => return None,
            _ => None,
        };
        if parsed.is_none() {
            faults.add(at, format!("expected {}", T::EXPECTED));
        }
        parsed
    }

    fn schema() -> Json {
        <T as Scalar>::schema()
    }
}

/// A value that knows where it stands.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// Where it stands.
    pub at: Position,
    /// What it is.
    pub value: T,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Read> Read for Located<T> {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let at = node.at;
        T::read(node, faults).map(|value| Self { at, value })
    }

    fn schema() -> Json {
        T::schema()
    }
}

impl<T: Read> Read for Option<T> {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        Some(if matches!(node.value, Value::Null) { None } else { T::read(node, faults) })
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema() -> Json {
        or_null(T::schema())
    }
}

/// A key without a value is as good as none.
pub fn or_null(mut schema: Json) -> Json {
    match schema.get_mut("type") {
        Some(kinds) => {
            let mut all = kinds.as_array().cloned().unwrap_or_else(|| vec![kinds.clone()]);
            all.push(json!("null"));
            *kinds = json!(all);
            schema
        }
        None => json!({ "anyOf": [schema, { "type": "null" }] }),
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let read = |(index, node)| faults.within(&format!("[{index}]"), |faults| T::read(node, faults));
        match node.value {
            Value::Sequence(nodes) => return Some(nodes.into_iter().enumerate().filter_map(read).collect()),
            Value::Null | Value::Refused => {}
            _ => faults.add(node.at, "expected a list: [a, b], or lines that begin with -"),
        }
        Some(Self::new())
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn schema() -> Json {
        or_null(json!({ "type": "array", "items": T::schema() }))
    }
}

/// What the file gives names to. Each name stands once.
#[derive(Debug)]
pub struct Entries<K, V>(pub Vec<(Located<K>, V)>);

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: AsRef<str>, V> Entries<K, V> {
    /// Sorts them by name, which [`Self::find`] needs.
    pub fn sort(&mut self) {
        self.0.sort_by(|(one, _), (other, _)| one.as_ref().cmp(other.as_ref()));
    }

    /// What has the name.
    pub fn find(&self, name: &str) -> Option<&V> {
        let index = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        self.0.get(index).map(|(_, value)| value)
    }
}

impl<K: Scalar + AsRef<str>, V: Read> Read for Entries<K, V> {
    fn read(node: Node, faults: &mut Faults) -> Option<Self> {
        let entries = match node.value {
            Value::Mapping(entries) => entries,
            Value::Null | Value::Refused => Vec::new(),
            _ => {
                faults.add(node.at, "expected names and values: NAME: VALUE");
                Vec::new()
            }
        };
        let mut seen = Seen::default();
        let mut all = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let Some(key) = Located::<K>::read(key, faults) else { continue };
            if !seen.is_new(key.as_ref(), key.at, faults) {
                continue;
            }
            // In `{A: x,y}` the second part of a text looks like a name without a value: it is not told.
            let is_part_of_text = matches!(node.value, Value::Null);
            let read = |faults: &mut Faults| V::read(node, faults);
            if let Some(value) = if is_part_of_text { read(faults) } else { faults.within(key.as_ref(), read) } {
                all.push((key, value));
            }
        }
        Some(Self(all))
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }

    fn schema() -> Json {
        or_null(json!({ "type": "object", "propertyNames": <K as Scalar>::schema(), "additionalProperties": V::schema() }))
    }
}

/// Sees to it that a key stands once.
#[derive(Default)]
struct Seen(std::collections::BTreeMap<String, Position>);

impl Seen {
    fn is_new(&mut self, key: &str, at: Position, faults: &mut Faults) -> bool {
        let Some(first) = self.0.get(key) else {
            self.0.insert(key.to_owned(), at);
            return true;
        };
        faults.add(at, format!("this key stands on line {} already", first.line));
        false
    }
}

/// The nodes of a mapping whose keys are known.
pub struct Fields {
    at: Position,
    nodes: Vec<(&'static str, Node)>,
}

impl Fields {
    /// Takes a mapping apart; unknown keys and those that stand twice are faults.
    pub fn of(node: Node, known: &[&'static str], faults: &mut Faults) -> Option<Self> {
        let expected = || format!("expected the keys {}", known.join(", "));
        let entries = match node.value {
            Value::Mapping(entries) => entries,
            Value::Refused => return None,
            _ => {
                faults.add(node.at, expected());
                return None;
            }
        };
        let mut nodes = Vec::with_capacity(known.len());
        let mut seen = Seen::default();
        for (key, value) in entries {
            let Value::Text(text) = &key.value else {
                if !matches!(key.value, Value::Refused) {
                    faults.add(key.at, expected());
                }
                continue;
            };
            match known.iter().find(|known| *known == text) {
                // The key is not told: what was to be a value may have become one by its indentation.
                None => faults.add(key.at, format!("unknown key; {}", expected())),
                Some(known) => {
                    if seen.is_new(known, key.at, faults) {
                        nodes.push((*known, value));
                    }
                }
            }
        }
        Some(Self { at: node.at, nodes })
    }

    /// Reads the value of a key.
    pub fn take<T: Read>(&mut self, key: &'static str, faults: &mut Faults) -> Option<T> {
        match self.nodes.iter().position(|(name, _)| *name == key) {
            Some(index) => {
                let (_, node) = self.nodes.swap_remove(index);
                faults.within(key, |faults| T::read(node, faults))
            }
            None => T::absent().or_else(|| {
                faults.add(self.at, format!("the key {key} is missing"));
                None
            }),
        }
    }
}

/// Makes a type with the fields of a mapping: the struct, how it is read, and its schema, with the comments as its descriptions.
macro_rules! mapping {
    ($(#[doc = $about:literal])+ pub struct $name:ident { $($(#[doc = $help:literal])+ pub $key:ident: $type:ty,)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug)]
        pub struct $name { $($(#[doc = $help])+ pub $key: $type,)+ }

        impl $crate::config::read::Read for $name {
            fn read(node: $crate::config::yaml::Node, faults: &mut $crate::config::read::Faults) -> Option<Self> {
                let mut fields = $crate::config::read::Fields::of(node, &[$($crate::config::read::key(stringify!($key))),+], faults)?;
                // All are read before the first that failed is missed.
                $(let $key = fields.take::<$type>($crate::config::read::key(stringify!($key)), faults);)+
                Some(Self { $($key: $key?,)+ })
            }

            fn schema() -> serde_json::Value {
                $crate::config::read::mapping_schema(concat!($($about),+), [$((
                    $crate::config::read::key(stringify!($key)),
                    concat!($($help),+),
                    <$type as $crate::config::read::Read>::schema(),
                    <$type as $crate::config::read::Read>::absent().is_none(),
                )),+])
            }
        }
    };
}
pub(super) use mapping;

/// A key as the file has it: Rust's own words are fields as `r#type`.
pub const fn key(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// The schema of a mapping with known keys: name, description, schema, and whether it is required.
pub fn mapping_schema<const COUNT: usize>(about: &str, fields: [(&str, &str, Json, bool); COUNT]) -> Json {
    let required: Vec<&str> = fields.iter().filter(|field| field.3).map(|field| field.0).collect();
    let mut properties = serde_json::Map::new();
    for (key, help, mut schema, _) in fields {
        schema["description"] = json!(help.trim().replace('`', ""));
        properties.insert(key.to_owned(), schema);
    }
    let mut schema =
        json!({ "type": "object", "description": about.trim().replace('`', ""), "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn what_may_be_a_part_of_a_text_is_not_told() {
        for file in ["env: {PASSWORD: a,hunter2}", "secrets: {password: file:/a,hunter2}", "hunter2: {}", "rotation: {hunter2}"] {
            let problems = format!("{:?}", Config::parse(file.as_bytes(), "file".to_owned()).problems);
            assert!(problems.contains("expected") && !problems.contains("hunter2"), "{file}: {problems}");
        }
    }
}
