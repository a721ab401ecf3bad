//! Completions for shells. Each has a script that knows the form of a command line, and gets the names from the tables of flags and commands.

use super::{COMMANDS, FLAGS, QUESTIONS, Shell, Value};

/// What makes a shell complete our command line.
#[must_use]
pub fn completion(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(&rows(), &states()),
        Shell::Zsh => zsh(&rows(), &states()),
        Shell::Fish => fish(&rows(), &states()),
    }
}

/// A flag or a question, as a shell sees it.
struct Row {
    /// As they are typed.
    names: Vec<String>,
    value: Value,
    repeats: bool,
    /// Nothing else makes sense beside it.
    is_question: bool,
    help: &'static str,
}

fn rows() -> Vec<Row> {
    let names = |short: Option<char>, long| {
        let mut names: Vec<String> = short.map(|short| format!("-{short}")).into_iter().collect();
        names.push(format!("--{long}"));
        names
    };
    let mut rows = Vec::new();
    for flag in FLAGS {
        let names = names(flag.short, flag.long);
        rows.push(Row { names, value: flag.value, repeats: flag.repeats, is_question: false, help: flag.help });
    }
    for question in QUESTIONS {
        let names = names(Some(question.short), question.long);
        rows.push(Row { names, value: Value::None, repeats: false, is_question: true, help: question.help });
    }
    rows
}

impl Row {
    fn long(&self) -> &str {
        &self.names[self.names.len() - 1]
    }

    fn is_switch(&self) -> bool {
        matches!(self.value, Value::None)
    }
}

/// A command so far, as `:NAME` or `:NAME:WORD`, or empty when there is none.
struct State {
    name: String,
    /// The words that may follow, each with what it does.
    next: Vec<(&'static str, &'static str)>,
    runs_programs: bool,
}

fn states() -> Vec<State> {
    let mut states = Vec::new();
    let mut verbs = Vec::new();
    for verb in COMMANDS {
        verbs.push((verb.name, verb.help));
        let name = format!(":{}", verb.name);
        let mut next = Vec::new();
        let runs_programs = verb.takes.program();
        let words = verb.takes.word();
        for (word, _) in words.into_iter().flat_map(|(_, words)| words) {
            next.push((*word, ""));
            states.push(State { name: format!("{name}:{word}"), next: Vec::new(), runs_programs });
        }
        states.push(State { name, next, runs_programs: runs_programs && words.is_none() });
    }
    states.push(State { name: String::new(), next: verbs, runs_programs: true });
    states
}

fn bash(rows: &[Row], states: &[State]) -> String {
    let (mut names, mut repeatable, mut files, mut directories) = (List::of(" "), List::of(" | "), List::of(" | "), List::of(" | "));
    let (mut shorts, mut choices, mut next) = (List::of("\n"), List::of("\n"), List::of("\n"));
    for row in rows {
        let long = row.long();
        names.add(&row.names.join(" "));
        if row.names.len() > 1 {
            shorts.add(&format!("        {}) long={long} ;;", row.names[0]));
        }
        if row.repeats {
            repeatable.add(long);
        }
        match row.value {
            Value::File => files.add(&format!("{long}:*")),
            Value::Directory => directories.add(&format!("{long}:*")),
            Value::OneOf(_, words) => choices.add(&format!("        {long}:*) list=({}) ;;", words.join(" "))),
            Value::None | Value::Text(_) => {}
        }
    }
    for state in states.iter().filter(|state| !state.next.is_empty()) {
        let mut words = List::of(" ");
        for (word, _) in &state.next {
            words.add(word);
        }
        next.add(&format!("                \"{}\") list=({}) ;;", state.name, words.text));
    }
    let places = [
        ("@SHORTS@", shorts),
        ("@FLAGS@", names),
        ("@REPEATABLE@", repeatable),
        ("@FILES@", files),
        ("@DIRECTORIES@", directories),
        ("@CHOICES@", choices),
        ("@NEXT@", next),
    ];
    filled(include_str!("completion/secret-init.bash"), rows, states, " | ", "", &places)
}

fn zsh(rows: &[Row], states: &[State]) -> String {
    /// What means something in a specification for `_arguments`.
    const SPECIAL: &str = "\\[]:";
    let (mut flags, mut next) = (List::of("\n"), List::of("\n"));
    for row in rows {
        let message = escaped(row.value.name().unwrap_or_default(), SPECIAL);
        let action = match row.value {
            Value::None => String::new(),
            Value::File => format!(":{message}:_files"),
            Value::Directory => format!(":{message}:_files -/"),
            Value::OneOf(_, words) => format!(":{message}:({})", words.join(" ")),
            Value::Text(_) => format!(":{message}: "),
        };
        // What may not be given any more beside it: the same again, or anything.
        let excluded = match row {
            Row { repeats: true, .. } => "*".to_owned(),
            Row { is_question: true, .. } => "(- *)".to_owned(),
            _ => format!("({})", row.names.join(" ")),
        };
        for name in &row.names {
            let takes = match (row.is_switch(), name.starts_with("--")) {
                (true, _) => "",
                (false, true) => "=",
                (false, false) => "+",
            };
            flags.add(&format!("    {} \\", zsh_quoted(&format!("{excluded}{name}{takes}[{}]{action}", escaped(row.help, SPECIAL)))));
        }
    }
    for state in states.iter().filter(|state| !state.next.is_empty()) {
        let mut words = List::of(" ");
        for (word, help) in &state.next {
            words.add(&zsh_quoted(&format!("{word}:{help}")));
        }
        next.add(&format!("    '{}') next=({}) ;;", state.name, words.text));
    }
    filled(include_str!("completion/secret-init.zsh"), rows, states, " | ", "", &[("@FLAGS@", flags), ("@NEXT@", next)])
}

fn zsh_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn fish(rows: &[Row], states: &[State]) -> String {
    let (mut flags, mut next, mut verbs) = (List::of("\n"), List::of("\n"), List::of(" "));
    for row in rows {
        let names = if row.repeats { String::new() } else { format!(" {}", row.names.join(" ")) };
        let short = if row.names.len() > 1 { format!(" -s {}", row.names[0].trim_start_matches('-')) } else { String::new() };
        let value = match row.value {
            Value::None => String::new(),
            Value::File => " -r -F".to_owned(),
            Value::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
            Value::OneOf(_, words) => format!(" -x -a '{}'", words.join(" ")),
            Value::Text(_) => " -x".to_owned(),
        };
        let long = row.long().trim_start_matches('-');
        let help = fish_quoted(row.help);
        flags.add(&format!("complete -c secret-init -n '__secret_init_lacks{names}' -l {long}{short}{value} -d {help}"));
    }
    for state in states {
        for (word, help) in &state.next {
            let help = fish_quoted(help);
            next.add(&format!("complete -c secret-init -n '__secret_init_is \"{}\"' -a {word} -d {help}", state.name));
        }
    }
    for verb in COMMANDS {
        verbs.add(verb.name);
    }
    let places = [("@FLAGS@", flags), ("@NEXT@", next), ("@COMMANDS@", verbs)];
    filled(include_str!("completion/secret-init.fish"), rows, states, " ", "verb", &places)
}

fn fish_quoted(text: &str) -> String {
    format!("'{}'", escaped(text, "\\'"))
}

/// With a backslash before each of the special characters.
fn escaped(text: &str, special: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        if special.contains(char) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// A script with lists in the places that are marked for them, and with those lists that all have: the names of flags with a value, the states, and those in which no
/// program follows, with what stands between alternatives, and before such a state.
fn filled(script: &str, rows: &[Row], states: &[State], between: &'static str, before: &str, places: &[(&str, List)]) -> String {
    let (mut valued, mut verbs, mut alone) = (List::of(between), List::of(between), List::of(between));
    for row in rows.iter().filter(|row| !row.is_switch()) {
        for name in &row.names {
            valued.add(name);
        }
    }
    for state in states.iter().filter(|state| !state.name.is_empty()) {
        verbs.add(&state.name);
        if !state.runs_programs {
            alone.add(&format!("{before}{}", state.name));
        }
    }
    let common = [("@VALUED@", valued), ("@VERBS@", verbs), ("@NO_PROGRAM@", alone)];
    let mut script = script.to_owned();
    for (place, list) in common.iter().chain(places) {
        script = script.replace(place, &list.text);
    }
    script
}

/// A list as text.
struct List {
    text: String,
    between: &'static str,
}

impl List {
    fn of(between: &'static str) -> Self {
        Self { text: String::new(), between }
    }

    fn add(&mut self, item: &str) {
        if !self.text.is_empty() {
            self.text.push_str(self.between);
        }
        self.text.push_str(item);
    }
}
