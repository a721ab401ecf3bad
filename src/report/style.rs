//! Colours, for people at a terminal alone.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::environ;

static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Asks the environment whether a terminal may get colours: `NO_COLOR` that is not empty forbids them (no-color.org), and so does a `TERM` that is missing or `dumb`.
/// To be called before the environment is wiped.
pub fn ask_environment() {
    let value =
        |prefix: &[u8]| environ::entries(prefix).into_iter().map(|entry| entry[prefix.len()..].to_vec()).find(|value| !value.is_empty());
    let knows_colours = value(b"TERM=").is_some_and(|term| term != b"dumb");
    ALLOWED.store(knows_colours && value(b"NO_COLOR=").is_none(), Ordering::Relaxed);
}

/// Whether text is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    paints: bool,
}

/// A way to paint, by its number for a terminal (ECMA-48, SGR).
#[derive(Clone, Copy, Debug)]
enum Paint {
    Bold = 1,
    Red = 31,
    Yellow = 33,
    Cyan = 36,
}

impl Style {
    /// Text as it is.
    pub const PLAIN: Self = Self { paints: false };

    /// For what is printed on stdout.
    #[must_use]
    pub fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// For what is printed on stderr.
    pub(super) fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    fn of(stream: &impl IsTerminal) -> Self {
        Self { paints: ALLOWED.load(Ordering::Relaxed) && stream.is_terminal() }
    }

    /// A heading.
    #[must_use]
    pub fn bold(self, text: &str) -> impl fmt::Display {
        self.paint(Paint::Bold, text)
    }

    /// What failed.
    #[must_use]
    pub fn red(self, text: &str) -> impl fmt::Display {
        self.paint(Paint::Red, text)
    }

    /// What may be wrong.
    pub(super) fn yellow(self, text: &str) -> impl fmt::Display {
        self.paint(Paint::Yellow, text)
    }

    /// What to try.
    pub(super) fn cyan(self, text: &str) -> impl fmt::Display {
        self.paint(Paint::Cyan, text)
    }

    fn paint(self, paint: Paint, text: &str) -> Painted<'_> {
        Painted { paint: self.paints.then_some(paint), text }
    }
}

struct Painted<'a> {
    paint: Option<Paint>,
    text: &'a str,
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.paint {
            Some(paint) => write!(out, "\x1b[{}m{}\x1b[0m", paint as u8, self.text),
            None => out.write_str(self.text),
        }
    }
}
