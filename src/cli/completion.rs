//! Completions for shells. Each has a script that knows the form of a command line, and gets the names from the tables of flags and commands.

use std::fmt::Write as _;

use super::{COMMANDS, FLAGS, QUESTIONS, Shell, Takes, Value};

/// What makes a shell complete our command line.
#[must_use]
pub fn completion(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// A flag or a question, as a shell sees it.
struct Row {
    short: Option<char>,
    long: &'static str,
    value: Value,
    repeats: bool,
    help: String,
}

impl Row {
    fn all() -> Vec<Self> {
        let flags = FLAGS.iter().map(|flag| Self {
            short: flag.short,
            long: flag.long,
            value: flag.value,
            repeats: flag.repeats,
            help: flag.help.to_owned(),
        });
        let questions = QUESTIONS.iter().map(|question| Self {
            short: Some(question.short),
            long: question.long,
            value: Value::None,
            repeats: false,
            help: question.help.to_owned(),
        });
        flags.chain(questions).collect()
    }

    /// Its names, as they are typed.
    fn names(&self) -> Vec<String> {
        self.short.map(|short| format!("-{short}")).into_iter().chain([format!("--{}", self.long)]).collect()
    }

    fn is_switch(&self) -> bool {
        matches!(self.value, Value::None)
    }
}

/// A command so far, as `:NAME` or `:NAME:WORD`, or empty when there is none; with the words that may follow and what each does.
struct State {
    name: String,
    next: Vec<(&'static str, &'static str)>,
    runs_programs: bool,
}

impl State {
    fn all() -> Vec<Self> {
        let mut states =
            vec![Self { name: String::new(), next: COMMANDS.iter().map(|verb| (verb.name, verb.help)).collect(), runs_programs: true }];
        for verb in COMMANDS {
            let name = format!(":{}", verb.name);
            let words = if let Takes::Word(_, words) = verb.takes { words } else { &[] };
            let runs_programs = matches!(verb.takes, Takes::Program(_));
            states.push(Self { name: name.clone(), next: words.iter().map(|(word, _)| (*word, "")).collect(), runs_programs });
            states.extend(words.iter().map(|(word, _)| Self { name: format!("{name}:{word}"), next: Vec::new(), runs_programs: false }));
        }
        states
    }
}

/// What the scripts have in common: the names in the places that are marked for them, with what stands between alternatives.
fn filled(script: &str, between: &str, state: impl Fn(&str) -> String) -> String {
    let join = |names: Vec<String>| names.join(between);
    let of = |wanted: fn(&Row) -> bool| join(Row::all().iter().filter(|row| wanted(row)).flat_map(Row::names).collect());
    let verbs = State::all().into_iter().map(|state| state.name).filter(|name| !name.is_empty());
    let alone = State::all().into_iter().filter(|state| !state.runs_programs).map(|found| state(&found.name));
    script
        .replace("@VALUED@", &of(|row| !row.is_switch()))
        .replace("@VERBS@", &join(verbs.collect()))
        .replace("@NO_PROGRAM@", &join(alone.collect()))
}

fn bash() -> String {
    let rows = Row::all();
    let arms = |rows: Vec<String>| rows.join("\n");
    let longs = |wanted: fn(&Row) -> bool, end: &str| {
        let longs = rows.iter().filter(|row| wanted(row)).map(|row| format!("--{}{end}", row.long));
        longs.collect::<Vec<_>>().join(" | ")
    };
    let shorts = rows.iter().filter_map(|row| Some(format!("        -{}) long=--{} ;;", row.short?, row.long)));
    let choices = rows.iter().filter_map(|row| match row.value {
        Value::OneOf(_, words) => Some(format!("        --{}:*) list=({}) ;;", row.long, words.join(" "))),
        _ => None,
    });
    let next = State::all().into_iter().filter(|state| !state.next.is_empty()).map(|state| {
        let words: Vec<&str> = state.next.iter().map(|(word, _)| *word).collect();
        format!("                \"{}\") list=({}) ;;", state.name, words.join(" "))
    });
    filled(include_str!("completion/secret-init.bash"), " | ", str::to_owned)
        .replace("@SHORTS@", &arms(shorts.collect()))
        .replace("@FLAGS@", &rows.iter().flat_map(Row::names).collect::<Vec<_>>().join(" "))
        .replace("@REPEATABLE@", &longs(|row| row.repeats, ""))
        .replace("@FILES@", &longs(|row| matches!(row.value, Value::File), ":*"))
        .replace("@DIRECTORIES@", &longs(|row| matches!(row.value, Value::Directory), ":*"))
        .replace("@CHOICES@", &arms(choices.collect()))
        .replace("@NEXT@", &arms(next.collect()))
}

fn zsh() -> String {
    let flags: String = Row::all().iter().map(zsh_flag).collect();
    let next = State::all().into_iter().filter(|state| !state.next.is_empty()).map(|state| {
        let described = |(word, help): &(&str, &str)| zsh_quoted(&format!("{word}:{help}"));
        let words: Vec<String> = state.next.iter().map(described).collect();
        format!("    '{}') next=({}) ;;", state.name, words.join(" "))
    });
    filled(include_str!("completion/secret-init.zsh"), " | ", str::to_owned)
        .replace("@FLAGS@\n", &flags)
        .replace("@NEXT@", &next.collect::<Vec<_>>().join("\n"))
}

/// Specifications of `_arguments`, one for each name.
fn zsh_flag(row: &Row) -> String {
    let names = row.names();
    // What may not be given any more beside it: the same again; with a question nothing at all.
    let excluded = if row.repeats {
        "*".to_owned()
    } else if QUESTIONS.iter().any(|question| question.long == row.long) {
        "(- *)".to_owned()
    } else {
        format!("({})", names.join(" "))
    };
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let message = escaped(row.value.name().unwrap_or_default());
    let value = match row.value {
        Value::None => String::new(),
        Value::File => format!(":{message}:_files"),
        Value::Directory => format!(":{message}:_files -/"),
        Value::OneOf(_, words) => format!(":{message}:({})", words.join(" ")),
        Value::Text(_) => format!(":{message}: "),
    };
    let line = |name: &String| {
        let takes = match (row.is_switch(), name.starts_with("--")) {
            (true, _) => "",
            (false, true) => "=",
            (false, false) => "+",
        };
        format!("    {} \\\n", zsh_quoted(&format!("{excluded}{name}{takes}[{}]{value}", escaped(&row.help))))
    };
    names.iter().map(line).collect()
}

fn zsh_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn fish() -> String {
    let flags: String = Row::all().iter().map(fish_flag).collect();
    let mut next = String::new();
    for state in State::all() {
        for (word, help) in state.next {
            let _ = writeln!(next, "complete -c secret-init -n '__secret_init_is \"{}\"' -a {word} -d {}", state.name, fish_quoted(help));
        }
    }
    filled(include_str!("completion/secret-init.fish"), " ", |state| format!("verb{state}"))
        .replace("@COMMANDS@", &COMMANDS.iter().map(|verb| verb.name).collect::<Vec<_>>().join(" "))
        .replace("@NEXT@\n", &next)
        .replace("@FLAGS@\n", &flags)
}

fn fish_flag(row: &Row) -> String {
    let short = row.short.map_or_else(String::new, |short| format!(" -s {short}"));
    let names = if row.repeats { String::new() } else { format!(" {}", row.names().join(" ")) };
    let value = match row.value {
        Value::None => String::new(),
        Value::File => " -r -F".to_owned(),
        Value::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
        Value::OneOf(_, words) => format!(" -x -a '{}'", words.join(" ")),
        Value::Text(_) => " -x".to_owned(),
    };
    format!("complete -c secret-init -n '__secret_init_lacks{names}' -l {}{short}{value} -d {}\n", row.long, fish_quoted(&row.help))
}

fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
