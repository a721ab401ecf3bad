//! The two dialects of the text that Prometheus reads.

use std::fmt::Write as _;

/// A dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Dialect {
    /// What HTTP calls it.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The one that a header `Accept` prefers. Who does not say that it knows `OpenMetrics` gets the other.
    #[must_use]
    pub fn wanted(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known) = (1.0, true);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match (name.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"')) {
                    ("q", value) => quality = value.parse().unwrap_or(0.0),
                    ("version", version) => is_known = matches!(version, "1.0.0" | "0.0.4"),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => open = f32::max(open, quality),
                "text/plain" if is_known => plain = f32::max(plain, quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Text }
    }
}

/// What kind of thing a family is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A text in the making: families, each followed by its samples.
pub(super) struct Text {
    dialect: Dialect,
    family: &'static str,
    written: String,
}

impl Text {
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, family: "", written: String::new() }
    }

    /// Begins a family. `OpenMetrics` names it without the ending of its samples, the older dialect with it.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.family = name;
        let (ending, kind) = match (self.dialect, kind) {
            (Dialect::OpenMetrics, Kind::Counter) => ("", "counter"),
            (Dialect::Text, Kind::Counter) => ("_total", "counter"),
            (Dialect::OpenMetrics, Kind::Info) => ("", "info"),
            (Dialect::Text, Kind::Info) => ("_info", "gauge"),
            (_, Kind::Gauge) => ("", "gauge"),
            (_, Kind::Histogram) => ("", "histogram"),
        };
        let _ = writeln!(self.written, "# HELP {name}{ending} {help}\n# TYPE {name}{ending} {kind}");
        if self.dialect == Dialect::OpenMetrics && name.ends_with("_seconds") {
            let _ = writeln!(self.written, "# UNIT {name} seconds");
        }
    }

    pub fn count(&mut self, ending: &str, labels: &[(&str, &str)], number: u64) {
        self.line(ending, labels, &number.to_string());
    }

    pub fn sample(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        // To the microsecond, and no more than a number of this size holds.
        self.line(ending, labels, &((value * 1e6).round() / 1e6).to_string());
    }

    fn line(&mut self, ending: &str, labels: &[(&str, &str)], value: &str) {
        let _ = write!(self.written, "{}{ending}", self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.written, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.written, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub fn end(mut self) -> String {
        if self.dialect == Dialect::OpenMetrics {
            self.written.push_str("# EOF\n");
        }
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_is_the_one_that_is_asked_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Dialect::wanted(prometheus), Dialect::OpenMetrics);
        assert_eq!(Dialect::wanted("application/openmetrics-text"), Dialect::OpenMetrics);
        assert_eq!(Dialect::wanted("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"), Dialect::OpenMetrics);
        for other in ["", "*/*", "text/html", "application/openmetrics-text;version=0.0.1", "application/openmetrics-text;q=0", ";;==,,q"] {
            assert_eq!(Dialect::wanted(other), Dialect::Text, "{other}");
        }
        assert_eq!(Dialect::wanted("application/openmetrics-text;q=0.4, text/plain;q=0.5"), Dialect::Text);
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::new(Dialect::Text);
        text.family("x", Kind::Gauge, "y");
        text.sample("", &[("a", "\"\\\n"), ("b", "")], 0.5);
        assert_eq!(text.end(), "# HELP x y\n# TYPE x gauge\nx{a=\"\\\"\\\\\\n\",b=\"\"} 0.5\n");
    }
}
