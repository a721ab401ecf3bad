//! The text of `--help`, and what the man page says in the same words.

use std::fmt::Write as _;

use super::{COMMANDS, FLAGS, Flag, PREFIX_TEXT, QUESTIONS, Verb};
use crate::report::{Code, Style};
use crate::store;

/// What secret-init does.
pub(super) const PURPOSE: &str = "delivers secrets to a program and runs it as a good init would";

/// What follows `secret-init` on the command line.
pub(super) const USAGE: [&str; 2] = ["[OPTIONS] [--] PROGRAM [ARGUMENT...]", "[OPTIONS] COMMAND [OPTIONS] [-- PROGRAM [ARGUMENT...]]"];

/// What refers to a secret, and what becomes of it.
pub(super) const REFERENCES: [(&str, &str); 4] = [
    ("NAME_FILE=/run/secrets/x", "NAME becomes the content of the file"),
    ("NAME_FILE=REFERENCE", "the secret is written to a file, and NAME_FILE becomes its path"),
    ("NAME=REFERENCE", "NAME becomes the secret"),
    ("NAME='a ${REFERENCE} b'", "the same inside a text, with filters: ${REFERENCE | urlencode}"),
];

/// The form of a reference.
pub(super) const FORM: &str = "SCHEME:LOCATOR[?OPTION=VALUE][#KEY]";

/// The exit codes that are not ours, with what each means.
pub(super) const PASSED_ON: [(&str, &str); 2] =
    [("0-255", "the program's own, once it runs"), ("128+n", "signal n ended the program, or the start")];

/// The text of `--help`.
#[must_use]
pub fn help(style: Style) -> String {
    let mut text = format!("secret-init: {PURPOSE}\n");
    section(&mut text, style, "Usage:", USAGE.map(|usage| format!("secret-init {usage}")));
    section(&mut text, style, "In an image:", ["ENTRYPOINT [\"secret-init\", \"--\"]", "CMD [\"myapp\", \"--serve\"]"]);
    section(&mut text, style, "What refers to a secret:", REFERENCES.map(|(name, becomes)| format!("{name:<29} {becomes}")));
    let stores = store::ROWS.iter().map(|row| format!("{:<9} {}", row.name, row.summary));
    section(&mut text, style, &format!("A reference is {FORM}:"), stores);
    section(&mut text, style, "Commands:", COMMANDS.iter().map(|verb| format!("{:<14} {}", verb.usage(), verb.help)));
    section(&mut text, style, "Options (each also as a variable, which the flag overrides):", FLAGS.iter().map(described));
    for question in QUESTIONS {
        let _ = writeln!(text, "  -{}, --{}\n      {}", question.short, question.long, question.help);
    }
    section(&mut text, style, "Exit codes:", PASSED_ON.map(|(code, meaning)| format!("{code:<6} {meaning}")));
    for (code, meaning) in codes() {
        let _ = writeln!(text, "  {code:<6} {meaning}");
    }
    text
}

fn section(text: &mut String, style: Style, heading: &str, lines: impl IntoIterator<Item = impl AsRef<str>>) {
    let _ = writeln!(text, "\n{}", style.bold(heading));
    for line in lines {
        let _ = writeln!(text, "  {}", line.as_ref());
    }
}

fn described(flag: &Flag) -> String {
    let short = flag.short.map_or_else(String::new, |short| format!("-{short}, "));
    let value = flag.value.name().map_or_else(String::new, |name| format!(" {name}"));
    let variable = flag.variable.map_or_else(String::new, |suffix| format!("  [{PREFIX_TEXT}{suffix}]"));
    format!("{short}--{}{value}{variable}\n      {}", flag.long, flag.summary())
}

/// Our own exit codes in the order of their numbers.
pub(super) fn codes() -> Vec<(u8, &'static str)> {
    let mut codes = Code::ALL.map(|(code, meaning)| (code as u8, meaning)).to_vec();
    codes.sort_unstable();
    codes
}

impl Flag {
    /// What it does, in one line.
    pub(super) fn summary(&self) -> String {
        if self.repeats { format!("{} (repeatable)", self.help) } else { self.help.to_owned() }
    }
}

impl Verb {
    /// Its name and what must follow it.
    pub(super) fn usage(&self) -> String {
        match self.takes.word() {
            Some((name, _)) => format!("{} {name}", self.name),
            None => self.name.to_owned(),
        }
    }
}
