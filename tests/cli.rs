//! The command line beside the start: what it generates, in the programs that read it; messages for machines; colours for people.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde_json::{Value, json};

use support::terminal::Terminal;
use support::{Outcome, Start, World, binary, children, eventually, send};

fn help() -> String {
    World::new().secret_init().flag("--help").finishes().succeeds()
}

fn generated(what: &str) -> String {
    World::new().secret_init().flag("generate").flag(what).finishes().succeeds()
}

/// The names of all flags, long and short, as `--help` lists them.
fn flags() -> BTreeSet<String> {
    let flags: BTreeSet<String> = help()
        .lines()
        .filter(|line| line.starts_with("  -"))
        .flat_map(|line| line.split([' ', ',']).filter(|word| word.starts_with('-')).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(flags.len() > 15 && flags.contains("-u") && flags.contains("--log-format"), "{flags:?}");
    flags
}

/// Runs a command to its end and gives what it says on stdout; it says nothing on stderr.
#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.env("LC_ALL", "C.UTF-8").output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert_eq!((String::from_utf8_lossy(&output.stderr).as_ref(), output.status.code()), ("", Some(0)), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

// What can be generated.

#[test]
fn generate_takes_one_word_that_it_knows() {
    let lines = [
        "generate takes one word: man, bash, zsh, fish or schema",
        "hint: see secret-init --help; the program and its options stand after --",
    ];
    for words in [&["generate"][..], &["generate", "powershell"], &["generate", "bash", "zsh"], &["generate", "bash", "--", "sh"]] {
        words.iter().fold(World::new().secret_init(), Start::flag).finishes().fails(64, &lines);
    }
}

#[test]
fn the_man_page_has_all_that_the_help_has_and_no_fault() {
    let world = World::new();
    let source = generated("man");
    let sections: Vec<&str> = source.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let expected = ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "ENVIRONMENT", "EXIT STATUS", "FILES", "EXAMPLES"];
    assert_eq!(sections, expected);
    let page = world.file("secret-init.1", &source);
    assert_eq!(said(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page)), "");
    // Plain text, in lines that are long enough to break nothing.
    let text = said(Command::new("groff").args(["-man", "-Tutf8", "-P-cbou", "-ww", "-rLL=300n"]).arg(&page));
    let words: Vec<&str> = text.split_whitespace().collect();
    let sentences = words.join(" ");
    for flag in flags() {
        assert!(words.iter().any(|word| word.trim_end_matches(',') == flag), "{flag} in {text}");
    }
    for line in help().lines() {
        // What a line of the help says, without the alignment of its list and the variable of an option.
        let line = line.trim_start_matches("secret-init: ").split("  [SECRET_INIT_").next().unwrap();
        for part in line.split("  ").map(str::trim).filter(|part| !part.is_empty() && !part.ends_with(':')) {
            assert!(sentences.contains(part), "{part:?} in {text}");
        }
    }
    for line in help().lines().filter_map(|line| line.split("  [").nth(1)) {
        let variable = line.trim_end_matches(']');
        assert!(words.contains(&variable), "{variable} in {text}");
    }
}

/// A shell at a terminal, in a folder with a few files, which knows our completions and one program: zz-myapp, with the arguments serve and stop.
struct Shell {
    terminal: Terminal,
}

impl Shell {
    fn prepare(world: &World) {
        world.file("here/config.yaml", "");
        world.file("here/data/x", "");
        world.script("bin/zz-myapp", "#!/bin/sh\n");
    }

    fn start(world: &World, mut command: Command) -> Self {
        command.current_dir(world.path.join("here")).env_clear();
        command.env("TERM", "dumb").env("HOME", &world.path).env("INPUTRC", "/dev/null").env("LC_ALL", "C.UTF-8");
        command.env("PATH", "/usr/bin:/bin").env("XDG_DATA_DIRS", world.path.join("share"));
        Self { terminal: Terminal::running(command) }
    }

    /// bash with what is to be sourced first.
    fn bash(world: &World, source: &str) -> Self {
        Self::prepare(world);
        let bin = world.path.join("bin");
        let settings = format!(
            "{source}\ncomplete -W 'serve stop' zz-myapp\nsecret-init() {{ printf 'got['; printf '<%s>' \"$@\"; echo ]got; }}\n\
             bind 'set enable-bracketed-paste off'\nset +o history\nPATH={}\nPS1='ready> '\n",
            bin.display()
        );
        let mut command = Command::new("bash");
        command.arg("--rcfile").arg(world.file("bashrc", settings)).arg("-i");
        Self::start(world, command)
    }

    /// zsh with its completion system, and what is to be done before that starts and after. It writes what it offers into the file "offered".
    fn zsh(world: &World, before: &str, after: &str) -> Self {
        Self::prepare(world);
        let settings = format!(
            "{before}\nautoload -U compinit; compinit -u -D\n{after}\n_zz-myapp() {{ compadd serve stop; }}\ncompdef _zz-myapp zz-myapp\n\
             compadd() {{\n\
                 local -a offered\n\
                 [[ \" ${{@[1,(i)(-|--)]}} \" == *\" -\"[OAD]\" \"* ]] || {{ builtin compadd -O offered \"$@\"; print -rl -- $offered >>{0}/offered; }}\n\
                 builtin compadd \"$@\"\n\
             }}\n\
             secret-init() {{ printf 'got['; printf '<%s>' \"$@\"; echo ]got; }}\n\
             unset zle_bracketed_paste\nunsetopt prompt_cr prompt_sp beep\npath=({0}/bin)\nPROMPT='ready> '\n",
            world.path.display()
        );
        world.file(".zshrc", settings);
        let mut command = Command::new("zsh");
        command.arg("-i");
        Self::start(world, command)
    }

    /// The arguments of the command that comes of these keys.
    #[track_caller]
    fn makes(&mut self, keys: &str) -> Vec<String> {
        self.terminal.shows("ready> ");
        self.terminal.types(&format!("secret-init {keys}\n"));
        self.terminal.shows("got[");
        let words = self.terminal.shows("]got");
        words.trim_start_matches('<').trim_end_matches('>').split("><").map(str::to_owned).collect()
    }

    #[track_caller]
    fn makes_of_each<const COUNT: usize>(&mut self, cases: [(&str, &[&str]); COUNT]) {
        for (keys, words) in cases {
            assert_eq!(self.makes(keys), words, "{keys:?}");
        }
    }
}

/// What is typed, and what both bash and zsh make of it.
const TYPED: [(&str, &[&str]); 18] = [
    ("gen\tz\t", &["generate", "zsh"]),
    ("--strict pl\t--env\t", &["--strict", "plan", "--env-file"]),
    ("--log-format=j\t", &["--log-format=json"]),
    ("--log-level w\t", &["--log-level", "warn"]),
    ("--config con\t", &["--config", "config.yaml"]),
    ("--config=con\t", &["--config=config.yaml"]),
    ("--kill-after con\t", &["--kill-after", "con"]),
    // A flag is offered once, unless it may be given several times.
    ("--strict --stric\t", &["--strict", "--stric"]),
    ("-u a --us\t", &["-u", "a", "--us"]),
    ("--user=a --us\t", &["--user=a", "--us"]),
    ("--skip a --sk\t", &["--skip", "a", "--skip"]),
    // The program, with or without -- before it, behind values that look like one.
    ("-- zz\tse\t", &["--", "zz-myapp", "serve"]),
    ("zz\tst\t", &["zz-myapp", "stop"]),
    ("--dir data -u a:b zz\tst\t", &["--dir", "data", "-u", "a:b", "zz-myapp", "stop"]),
    ("check -- zz\tst\t", &["check", "--", "zz-myapp", "stop"]),
    ("zz-myapp --stric\t", &["zz-myapp", "--stric"]),
    ("-- gen\t", &["--", "gen"]),
    ("write zz\t", &["write", "zz"]),
];

const BASH_COMPLETION: &str = ". /usr/share/bash-completion/bash_completion";

#[test]
fn bash_completes_commands_flags_values_and_the_program() {
    let world = World::new();
    let script = world.file("completion", generated("bash"));
    let mut bash = Shell::bash(&world, &format!("{BASH_COMPLETION}; . {}", script.display()));
    bash.makes_of_each(TYPED);
    bash.makes_of_each([
        ("--log-f\tj\t", &["--log-format", "json"]),
        ("--dir d\t", &["--dir", "data/"]),
        ("--dir=d\t", &["--dir=data/"]),
        ("--dir con\t", &["--dir", "con"]),
        ("--strict -- zz-myapp a='b c' se\t", &["--strict", "--", "zz-myapp", "a=b c", "serve"]),
    ]);
}

#[test]
fn bash_completes_without_the_package_bash_completion_too() {
    let world = World::new();
    let script = world.file("completion", generated("bash"));
    let mut bash = Shell::bash(&world, &format!(". {}", script.display()));
    let own = TYPED.into_iter().filter(|(_, words)| !words.iter().any(|word| ["serve", "stop"].contains(word)));
    own.for_each(|case| bash.makes_of_each([case]));
    bash.makes_of_each([
        ("--dir=d\t", &["--dir=data/"]),
        ("--dir data -- zz\t", &["--dir", "data", "--", "zz-myapp"]),
        ("zz-myapp con\t", &["zz-myapp", "config.yaml"]),
    ]);
}

#[test]
fn zsh_completes_commands_flags_values_and_the_program() {
    let world = World::new();
    let script = world.file("completion", generated("zsh"));
    let mut zsh = Shell::zsh(&world, "", &format!("source {}", script.display()));
    zsh.makes_of_each(TYPED);
    // The ends of a flag that takes a value and of a folder, = and /, go away with the next key.
    zsh.makes_of_each([
        ("--log-f\tj\t", &["--log-format=json"]),
        ("--dir d\t", &["--dir", "data"]),
        ("--dir=d\t", &["--dir=data"]),
        ("--strict -- zz-myapp a='b c' se\t", &["--strict", "--", "zz-myapp", "a=b c", "serve"]),
    ]);
}

/// What fish offers for a line, without the descriptions.
fn fish_offers(world: &World, script: &Path, line: &str) -> BTreeSet<String> {
    Shell::prepare(world);
    let commands = "set PATH $argv[2]; source $argv[1]; complete -c zz-myapp -f -a 'serve stop'; complete -C \"secret-init $argv[3]\"";
    let mut command = Command::new("fish");
    command.args(["--no-config", "-c", commands]).arg(script).arg(world.path.join("bin")).arg(line);
    let offered = said(command.current_dir(world.path.join("here")).env("HOME", &world.path));
    offered.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn fish_completes_commands_flags_values_and_the_program() {
    let world = World::new();
    let script = world.file("completion", generated("fish"));
    let cases: &[(&str, &[&str])] = &[
        ("", &["check", "generate", "health", "plan", "policy", "refresh", "sidecar", "write"]),
        ("policy ", &["aws", "vault"]),
        ("policy vault -- zz-m", &["zz-myapp"]),
        ("policy vault zz-myapp st", &["stop"]),
        ("gen", &["generate"]),
        ("generate ", &["bash", "fish", "man", "schema", "zsh"]),
        ("generate bash ", &[]),
        ("--strict plan --env", &["--env-file"]),
        ("--log-level ", &["error", "info", "warn"]),
        ("--log-format=j", &["--log-format=json"]),
        ("--config con", &["config.yaml"]),
        ("--config=con", &["--config=config.yaml"]),
        ("--dir con", &[]),
        ("--dir ", &["data/"]),
        ("--dir=d", &["--dir=data/"]),
        ("--kill-after con", &[]),
        ("--strict --stric", &[]),
        ("-u a --us", &[]),
        ("--user=a --us", &[]),
        ("--skip a --sk", &["--skip"]),
        ("-- zz-m", &["zz-myapp"]),
        ("zz-m", &["zz-myapp"]),
        ("-- zz-myapp ", &["serve", "stop"]),
        ("--dir data -u a:b zz-myapp st", &["stop"]),
        ("check -- zz-myapp a=\\ b st", &["stop"]),
        ("zz-myapp --stric", &[]),
        ("-- generat", &[]),
        ("write zz-m", &[]),
    ];
    for (line, offered) in cases {
        assert_eq!(fish_offers(&world, &script, line), offered.iter().map(|word| (*word).to_owned()).collect(), "{line:?}");
    }
}

#[test]
fn every_flag_of_the_help_is_offered_by_each_shell() {
    let world = World::new();
    let script = world.file("completion.bash", generated("bash"));
    let ask = ". $0; COMP_WORDS=(secret-init -) COMP_CWORD=1 COMP_LINE='secret-init -' COMP_POINT=13; _secret_init; printf '%s\\n' ${COMPREPLY[@]}";
    let offered = said(Command::new("bash").args(["-c", ask]).arg(script));
    assert_eq!(offered.lines().map(str::to_owned).collect::<BTreeSet<_>>(), flags(), "bash");

    let script = world.file("completion.fish", generated("fish"));
    assert_eq!(fish_offers(&world, &script, "-"), flags(), "fish");

    let script = world.file("completion.zsh", generated("zsh"));
    let mut zsh = Shell::zsh(&world, "", &format!("source {}", script.display()));
    zsh.makes("-\t");
    let offered = fs::read_to_string(world.path.join("offered")).unwrap();
    assert_eq!(offered.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>(), flags(), "zsh");
}

#[test]
fn what_the_docs_install_is_found_by_each_shell() {
    let world = World::new();
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md")).unwrap();
    let commands = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(generated("man").replace("\\-", "-").contains(commands), "the man page has the same");
    let share = world.path.join("share");
    for folder in ["man/man1", "bash-completion/completions", "zsh/site-functions", "fish/vendor_completions.d"] {
        fs::create_dir_all(share.join(folder)).unwrap();
    }
    let commands = commands.replace("/usr/share", share.to_str().unwrap()).replace("secret-init generate", "\"$INIT\" generate");
    said(Command::new("sh").args(["-ec", &commands]).env("INIT", binary()));

    assert!(fs::read_to_string(share.join("man/man1/secret-init.1")).unwrap().starts_with(".TH SECRET"));
    Shell::bash(&world, BASH_COMPLETION).makes_of_each([("--log-f\tj\t", &["--log-format", "json"])]);
    let before = format!("fpath=({} $fpath)", share.join("zsh/site-functions").display());
    Shell::zsh(&world, &before, "").makes_of_each([("--log-f\tj\t", &["--log-format=json"])]);
    let mut fish = Command::new("fish");
    // fish looks for the completions of commands that are there.
    let path = format!("{}:/usr/bin:/bin", binary().parent().unwrap().display());
    fish.args(["-c", "complete -C 'secret-init --log-f'"]).env("PATH", path).env("XDG_DATA_DIRS", &share).env("HOME", &world.path);
    assert!(said(&mut fish).starts_with("--log-format\t"));
}

// Messages for machines.

/// The objects on stderr, each with a time that passed while the test ran, and without it.
#[track_caller]
fn objects(start: &Start) -> (Outcome, Vec<Value>) {
    let before = SystemTime::now();
    let outcome = start.finishes();
    let objects = outcome.stderr.lines().map(|line| object(line, before)).collect();
    (outcome, objects)
}

#[track_caller]
fn object(line: &str, before: SystemTime) -> Value {
    let mut object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    let fields = object.as_object_mut().unwrap();
    let time = fields.remove("time").unwrap();
    let time = time.as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    // It has whole milliseconds.
    let read = humantime::parse_rfc3339(time).unwrap();
    assert!(read + std::time::Duration::from_millis(1) > before && read <= SystemTime::now(), "{time}");
    object
}

#[track_caller]
fn fails_with(start: &Start, code: u8, expected: &Value) {
    let (outcome, objects) = objects(start);
    assert_eq!((Value::from(objects), outcome.code(), outcome.stdout.as_str()), (expected.clone(), i32::from(code), ""));
}

#[test]
fn a_usage_error_is_json_when_that_was_asked_for_before_it() {
    let hint = "see secret-init --help; the program and its options stand after --";
    let expected = json!([{"level": "error", "message": "unknown option --nope", "hint": hint, "code": 64}]);
    let start = || World::new().secret_init();
    fails_with(&start().flag("--log-format=json").flag("--nope"), 64, &expected);
    fails_with(&start().variable("SECRET_INIT_LOG_FORMAT", "json").flag("--nope"), 64, &expected);
    let expected = json!([{"level": "error", "message": "--log-format takes text or json", "hint": hint, "code": 64}]);
    fails_with(&start().variable("SECRET_INIT_LOG_FORMAT", "json").flag("--log-format").flag("xml"), 64, &expected);

    let lines = ["unknown option --nope", &*format!("hint: {hint}")];
    start().flag("--nope").flag("--log-format=json").finishes().fails(64, &lines);
    start().variable("SECRET_INIT_LOG_FORMAT", "json").flag("--log-format=text").flag("--nope").finishes().fails(64, &lines);
}

#[test]
fn a_plan_that_is_wrong_is_json_with_its_subject() {
    let start = World::new().secret_init().flag("--log-format=json").variable("T_A", "${file:/x").program(["true"]);
    let expected = json!([
        {"level": "error", "message": "no } closes ${", "subject": ["T_A", "file:/x"], "hint": "a literal ${ is written as $${", "code": 78},
        {"level": "error", "message": "1 problem in the plan; the program was not started", "code": 78},
    ]);
    fails_with(&start, 78, &expected);
}

#[test]
fn each_secret_that_failed_is_an_object_with_its_code_and_its_hint() {
    let world = World::new();
    let start = world.secret_init().variable("SECRET_INIT_LOG_FORMAT", "json").variable("T_A", "cred:x").variable("T_B", "cred:y");
    let start = start.variable("T_C_FILE", world.file("c", "not JSON")).variable("T_D", format!("${{file:{}/c#k}}", world.path.display()));
    let (outcome, objects) = objects(&start.program(["true"]));
    let field = |name: &str| objects.iter().map(|object| object.get(name).cloned().unwrap_or_default()).collect::<Value>();
    let file = format!("file:{}/c#k", world.path.display());
    assert_eq!(field("subject"), json!([["T_A", "cred:x"], ["T_B", "cred:y"], ["T_D", file], null]));
    assert_eq!(field("code"), json!([66, 66, 65, 66]));
    assert_eq!(field("level"), json!(["error", "error", "error", "error"]));
    // In text the two share one.
    assert!(objects[0]["hint"].is_string() && objects[0]["hint"] == objects[1]["hint"], "{objects:?}");
    assert_eq!(objects[3]["message"], "3 of 4 secrets failed; the program was not started");
    assert_eq!(outcome.code(), 66);
}

#[test]
fn a_warning_and_the_line_of_level_info_are_json() {
    let start = World::new().secret_init().flag("--log-format=json").flag("--log-level=info").variable("T_A", "a");
    let (outcome, objects) = objects(&start.variable("T_A_FILE", "/none").variable("T_B", "literal:b").shell("echo $T_A$T_B"));
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "ab\n"));
    let warning = json!({"level": "warning", "message": "is ignored, since T_A is set", "subject": ["T_A_FILE"], "hint": "unset one of the two; T_A wins"});
    assert_eq!(objects[0], warning);
    let message = objects[1]["message"].as_str().unwrap();
    assert!(message.starts_with("delivered 1 secret (1 variable, 0 files) in "), "{message}");
    assert_eq!((objects.len(), &objects[1]), (2, &json!({"level": "info", "message": message})));
}

#[test]
fn a_program_that_is_not_found_is_json() {
    let start = World::new().secret_init().flag("--log-format=json").program(["no-such-program"]);
    let hint = "check the name, and PATH in the image";
    let expected = json!([{"level": "error", "message": "not found", "subject": ["no-such-program"], "hint": hint, "code": 127}]);
    fails_with(&start, 127, &expected);
}

#[test]
fn a_start_that_somebody_killed_is_told_as_json_by_pid_1_itself() {
    let world = World::new();
    let before = SystemTime::now();
    let holder = fs::File::open(world.directory()).unwrap();
    let _lock = nix::fcntl::Flock::lock(holder, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let start = world.secret_init().flag("--log-format=json").directory(world.directory()).variable("T_A_FILE", "literal:x");
    let running = start.program(["true"]).spawn();
    send(eventually("the start runs", || children(running.pid()).first().copied()), libc::SIGKILL);
    let outcome = running.finishes();
    let object = object(outcome.stderr.trim_end_matches('\n'), before);
    assert_eq!(object["message"], "the start was cut short (exit code 137); the program was not started");
    assert_eq!((object["code"].as_u64(), outcome.code()), (Some(71), 71));
}

#[test]
fn the_termination_log_of_kubernetes_stays_text() {
    let script = "mount -t tmpfs none /dev && : >/dev/termination-log && { \"$@\"; code=$?; cat /dev/termination-log; exit $code; }";
    let start = World::new().secret_init().under(["unshare", "--mount", "sh", "-c", script, "sh"]).flag("--log-format=json");
    let (outcome, objects) = objects(&start.program(["no-such-program"]));
    let text = "secret-init: no-such-program: not found\nsecret-init: hint: check the name, and PATH in the image\n";
    assert_eq!((outcome.stdout.as_str(), outcome.code(), objects.len()), (text, 127, 1));
}

#[test]
fn no_secret_is_in_a_message_of_either_form() {
    const CANARY: &str = "Canary7Q!x";
    let world = World::new();
    let object = world.file("object", format!("{{\"key\": \"{CANARY}\", \"{CANARY}\": 1}}"));
    let text = world.file("text", CANARY);
    let nul = world.file("nul", format!("{CANARY}\0{CANARY}"));
    let environment = world.file("env", format!("GOOD={CANARY}\n{CANARY} {CANARY}\n"));
    let reference = |path: &Path, rest: &str| format!("${{file:{}{rest}}}", path.display());
    for format in ["text", "json"] {
        let start = world.secret_init().flag("--log-format").flag(format).flag("--log-level=info");
        let good = start.clone().variable("T_A_FILE", &text).variable("T_B", reference(&object, "#key")).directory(world.directory());
        let outcome = good.variable("T_C_FILE", format!("file:{}", text.display())).program(["true"]).finishes();
        assert_eq!(outcome.code(), 0, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("delivered 3 secrets") && !outcome.stderr.contains(CANARY), "{}", outcome.stderr);

        let bad = start.variable("T_A", reference(&object, "#none")).variable("T_B", reference(&text, "#key"));
        let bad = bad.variable("T_C_FILE", &nul).variable("T_D", format!("dotenv:{}#GOOD", environment.display()));
        let outcome = bad.program(["true"]).finishes();
        assert!(outcome.stderr.contains("4 of 4 secrets failed"), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains(CANARY), "{}", outcome.stderr);
    }
}

// Colours for people.

/// What a terminal shows of a run, from its first byte to its last.
fn screen(start: &Start) -> String {
    Terminal::running(start.command()).at_its_end().replace("\r\n", "\n")
}

#[test]
fn messages_have_a_coloured_prefix_on_a_terminal() {
    let start = World::new().secret_init().variable("TERM", "xterm").variable("T_A", "a").variable("T_A_FILE", "/none");
    let expected = "\
\x1b[33msecret-init: warning:\x1b[0m T_A_FILE: is ignored, since T_A is set
\x1b[36msecret-init: hint:\x1b[0m unset one of the two; T_A wins
secret-init: delivered 0 secrets (0 variables, 0 files) in X ms
\x1b[31msecret-init:\x1b[0m no-such-program: not found
\x1b[36msecret-init: hint:\x1b[0m check the name, and PATH in the image
";
    let seen = screen(&start.flag("--log-level=info").program(["no-such-program"]));
    let (before, after) = seen.split_once(" files) in ").unwrap_or_else(|| panic!("{seen}"));
    assert_eq!(format!("{before} files) in X ms{}", after.split_once(" ms").unwrap().1), expected);
}

#[test]
fn headings_and_failures_stand_out_on_a_terminal() {
    let start = || World::new().secret_init().variable("TERM", "xterm");
    let seen = screen(&start().flag("--help"));
    for heading in ["Usage:", "Commands:", "Exit codes:"] {
        assert!(seen.contains(&format!("\n\x1b[1m{heading}\x1b[0m\n")), "{seen:?}");
    }
    assert_eq!(seen.replace("\x1b[1m", "").replace("\x1b[0m", ""), help());
    let seen = screen(&start().flag("check").variable("T_A_FILE", "/none").variable("T_B", "literal:b"));
    assert!(seen.contains(" \x1b[31mFAILED\x1b[0m\n") && seen.contains("  ok\n"), "{seen:?}");
}

#[test]
fn there_is_no_colour_where_it_is_not_wanted() {
    let start = |term: &str, no_color: &str| {
        let start = World::new().secret_init().variable("TERM", term).variable("NO_COLOR", no_color);
        start.flag("check").variable("T_A_FILE", "/none")
    };
    let is_coloured = |start: &Start| screen(start).contains('\x1b');
    assert!(is_coloured(&start("xterm-256color", "")));
    assert!(!is_coloured(&start("xterm-256color", "1")));
    assert!(!is_coloured(&start("dumb", "")));
    assert!(!is_coloured(&start("", "")));
    assert!(!is_coloured(&World::new().secret_init().flag("check").variable("T_A_FILE", "/none")), "without TERM");
    assert!(!is_coloured(&World::new().secret_init().flag("--log-format=json").variable("TERM", "xterm").flag("--nope")), "json");
}

#[test]
fn each_stream_is_looked_at_for_itself() {
    let start = |script: &str| {
        let start = World::new().secret_init().under(["sh", "-c", script, "sh"]).variable("TERM", "xterm");
        screen(&start.flag("check").variable("T_A_FILE", "/none"))
    };
    let seen = start("\"$@\" | cat");
    assert!(seen.contains("FAILED\n") && seen.contains("\x1b[31msecret-init:\x1b[0m"), "{seen:?}");
    let seen = start("{ \"$@\" 2>&1 >&3 | cat; } 3>&1");
    assert!(seen.contains("\x1b[31mFAILED\x1b[0m\n") && !seen.contains("\x1b[31msecret-init"), "{seen:?}");
}
