//! One message, and the two ways to print it: text for people, JSON for what collects logs.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Problem, Style};

/// What is said at once: one or two lines of text, or one JSON object.
pub(super) struct Message<'a> {
    pub weight: Weight,
    /// What it is about, most general first.
    pub subject: &'a [String],
    pub text: &'a str,
    pub hint: Option<&'a str>,
}

/// How bad it is.
#[derive(Clone, Copy)]
pub(super) enum Weight {
    /// It ends the start, with this exit code.
    Error(u8),
    Warning,
    Info,
}

impl<'a> Message<'a> {
    /// A message about nothing in particular.
    pub fn new(weight: Weight, text: &'a str) -> Self {
        Self { weight, subject: &[], text, hint: None }
    }

    /// What a problem says.
    pub fn of(problem: &'a Problem, weight: Weight) -> Self {
        Self { weight, subject: &problem.subject, text: &problem.cause, hint: problem.hint.as_deref() }
    }
}

/// Messages as lines of text. A hint that several share is said once, after the last of them.
pub(super) fn text(messages: &[Message], style: Style) -> String {
    let mut text = String::new();
    for (index, message) in messages.iter().enumerate() {
        let _ = match message.weight {
            Weight::Error(_) => write!(text, "{} ", style.red("secret-init:")),
            Weight::Warning => write!(text, "{} ", style.yellow("secret-init: warning:")),
            Weight::Info => write!(text, "secret-init: "),
        };
        let _ = write_sentence(&mut text, message.subject, message.text);
        text.push('\n');
        let next = messages.get(index + 1).and_then(|next| next.hint);
        if let Some(hint) = message.hint.filter(|&hint| next != Some(hint)) {
            let _ = writeln!(text, "{} {hint}", style.cyan("secret-init: hint:"));
        }
    }
    text
}

/// What it is about, and what happened.
pub(super) fn write_sentence(out: &mut impl fmt::Write, subject: &[String], text: &str) -> fmt::Result {
    for subject in subject {
        write!(out, "{subject}: ")?;
    }
    out.write_str(text)
}

/// Messages as JSON objects, one a line, each with its own hint.
pub(super) fn json(messages: &[Message], time: SystemTime) -> String {
    let time = humantime::format_rfc3339_millis(time).to_string();
    let mut text = String::new();
    for message in messages {
        // It fails for maps with keys that are no strings, and there are none.
        text.push_str(&serde_json::to_string(&Object { time: &time, message }).unwrap_or_default());
        text.push('\n');
    }
    text
}

struct Object<'a> {
    time: &'a str,
    message: &'a Message<'a>,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Message { weight, subject, text, hint } = self.message;
        let (level, code) = match weight {
            Weight::Error(code) => ("error", Some(code)),
            Weight::Warning => ("warning", None),
            Weight::Info => ("info", None),
        };
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("time", self.time)?;
        object.serialize_entry("level", level)?;
        object.serialize_entry("message", text)?;
        if !subject.is_empty() {
            object.serialize_entry("subject", subject)?;
        }
        if let Some(hint) = hint {
            object.serialize_entry("hint", hint)?;
        }
        if let Some(code) = code {
            object.serialize_entry("code", code)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::report::Code;

    #[test]
    fn json_has_one_object_a_line_with_its_fields_in_order() {
        let problem = Problem::new(Code::Denied, "permission \"denied\"\n").about("db").about("A").hint("chmod");
        let messages = [Message::of(&problem, Weight::Error(77)), Message::new(Weight::Info, "delivered")];
        let expected = "\
{\"time\":\"2026-11-26T02:03:04.005Z\",\"level\":\"error\",\"message\":\"permission \\\"denied\\\"\\n\",\"subject\":[\"A\",\"db\"],\"hint\":\"chmod\",\"code\":77}
{\"time\":\"2026-11-26T02:03:04.005Z\",\"level\":\"info\",\"message\":\"delivered\"}
";
        assert_eq!(json(&messages, UNIX_EPOCH + Duration::from_millis(1_795_658_584_005)), expected);
    }
}
