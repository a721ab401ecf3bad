//! What refers to a secret, where it goes, and what is said when it cannot be had.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};

use support::{Start, World, os};

/// Prints each variable whose name begins with T_, sorted, with its end marked.
const SHOW: &str = "env -0 | tr '\\0\\n' '\\n~' | grep -a ^T_ | sort | sed 's/$/$/'";

fn shown(start: &Start) -> String {
    start.clone().shell(SHOW).finishes().succeeds()
}

// What refers to a secret.

#[test]
fn a_file_variable_becomes_the_content_of_its_file_less_newlines_at_the_end() {
    let world = World::new();
    let path = world.file("db", " a\n\tb \r\n\n\n");
    assert_eq!(shown(&world.secret_init().variable("T_DB_FILE", &path)), "T_DB= a~\tb \r$\n");
}

#[test]
fn a_file_of_newlines_or_of_nothing_becomes_an_empty_variable() {
    let world = World::new();
    let start = world.secret_init().variable("T_A_FILE", world.file("a", "\n\n")).variable("T_B_FILE", world.file("b", ""));
    assert_eq!(shown(&start), "T_A=$\nT_B=$\n");
}

#[test]
fn bytes_that_are_not_utf_8_pass() {
    let world = World::new();
    let outcome =
        world.secret_init().variable("T_A_FILE", world.file("a", b"\xff\xfe\x80")).shell("printf %s \"$T_A\" | od -An -tx1").finishes();
    assert_eq!(outcome.succeeds(), " ff fe 80\n");
}

#[test]
fn file_double_underscore_means_the_same() {
    let world = World::new();
    assert_eq!(shown(&world.secret_init().variable("FILE__T_DB", world.file("db", "x\n"))), "T_DB=x$\n");
}

#[test]
fn a_file_variable_with_a_reference_becomes_the_path_of_a_file() {
    let world = World::new();
    let source = world.file("db", "s3cret\n");
    let start =
        world.secret_init().variable("DB_PASSWORD_FILE", format!("file:{}?trim=true", source.display())).directory(world.directory());
    let stdout = start
        .shell("echo $DB_PASSWORD_FILE; stat -c %a $DB_PASSWORD_FILE; cat $DB_PASSWORD_FILE; echo; env | grep -c ^DB")
        .finishes()
        .succeeds();
    assert_eq!(stdout, format!("{}/DB_PASSWORD\n400\ns3cret\n1\n", world.directory().display()));
}

#[test]
fn a_text_with_references_is_put_together() {
    let world = World::new();
    let json = world.file("db.json", r#"{"user": "app", "password": "p@ss/w:rd", "ports": [5432]}"#);
    let json = json.display();
    let url = format!("postgresql://${{file:{json}#user}}:${{file:{json}#password | urlencode}}@db:${{file:{json}#/ports/0}}/app");
    assert_eq!(shown(&world.secret_init().variable("T_URL", url)), "T_URL=postgresql://app:p%40ss%2Fw%3Ard@db:5432/app$\n");
}

#[test]
fn every_store_answers() {
    let world = World::new();
    world.file("credentials/token", "c\n");
    let start = world
        .secret_init()
        .variable("CREDENTIALS_DIRECTORY", world.path.join("credentials"))
        .variable("T_CRED", "cred:token")
        .variable("T_DOTENV", format!("dotenv:{}#B", world.file(".env", "A=1\nB='two words' # x\n").display()))
        .variable("T_F", format!("${{file:{}}}", world.file("f", "f\n").display()))
        .variable("T_LITERAL", "literal:vault:x#y");
    assert_eq!(shown(&start), "T_CRED=c~$\nT_DOTENV=two words$\nT_F=f~$\nT_LITERAL=vault:x#y$\n");
}

#[test]
fn options_and_filters_transform_the_value() {
    let world = World::new();
    let path = world.file("x", " aGk= \n");
    let path = path.display();
    let start = world
        .secret_init()
        .variable("T_A", format!("${{file:{path}?decode=base64}}"))
        .variable("T_B", format!("${{file:{path}?trim=true}}"))
        .variable("T_C", format!("${{file:{path} | trim | base64decode | json}}"))
        .variable("T_D", format!("${{file:{path}.none?default=d%26e}}"))
        .variable("T_E", format!("${{file:{path}.none?optional=true}}"))
        .variable("T_F", format!("x${{file:{path}.none?optional=true}}y"));
    assert_eq!(shown(&start), "T_A=hi$\nT_B=aGk=$\nT_C=\"hi\"$\nT_D=d&e$\nT_F=xy$\n");
}

#[test]
fn an_optional_file_that_is_missing_is_not_written_and_its_variable_goes() {
    let world = World::new();
    let start = world
        .secret_init()
        .directory(world.directory())
        .variable("T_A_FILE", format!("file:{}?optional=true", world.path.join("none").display()));
    assert_eq!(start.shell("env | grep ^T_; ls $SECRET_INIT_DIR").finishes().succeeds(), "");
}

#[test]
fn an_escaped_reference_and_other_texts_stay() {
    let world = World::new();
    let start = world
        .secret_init()
        .variable("T_A", "$${vault:a#b}")
        .variable("T_B", "${HOME} ${X:-y}")
        .variable("T_C", "vault:8200")
        .variable("T_D", "file:/config/app.yml");
    assert_eq!(shown(&start), "T_A=${vault:a#b}$\nT_B=${HOME} ${X:-y}$\nT_C=vault:8200$\nT_D=file:/config/app.yml$\n");
}

#[test]
fn a_secret_is_never_looked_at_for_references() {
    let world = World::new();
    let path = world.file("x", "${file:/etc/passwd} literal:y cred:z");
    assert_eq!(shown(&world.secret_init().variable("T_A_FILE", path)), "T_A=${file:/etc/passwd} literal:y cred:z$\n");
}

#[test]
fn a_bare_file_reference_counts_below_a_file_root() {
    let world = World::new();
    let path = world.file("root/x", "v");
    let start = world.secret_init().variable("T_A", format!("file:{}", path.display()));
    assert_eq!(shown(&start), format!("T_A=file:{}$\n", path.display()));
    assert_eq!(shown(&start.clone().flag("--file-root").flag(world.path.join("root"))), "T_A=v$\n");
    // Not by climbing out of it.
    let climbing = format!("file:{}/root/../x", world.path.display());
    assert_eq!(
        shown(&world.secret_init().flag("--file-root").flag(world.path.join("root")).variable("T_A", &climbing)),
        format!("T_A={climbing}$\n")
    );
}

// What is left alone.

#[test]
fn variables_that_seldom_name_a_secret_are_left_alone() {
    let world = World::new();
    let kept = [
        "T_TLS_CERT_FILE",
        "T_CRT_FILE",
        "T_CA_FILE",
        "T_CACERT_FILE",
        "T_PEM_FILE",
        "T_CONFIG_FILE",
        "T_LOG_FILE",
        "T_PID_FILE",
        "T_LOCK_FILE",
        "T_SOCK_FILE",
        "T_STATE_FILE",
        "T_OUTPUT_FILE",
        "T_X__FILE",
    ];
    let mut start = world.secret_init();
    for name in kept {
        start = start.variable(name, "/nowhere");
    }
    let start = start
        .variable("T_REL_FILE", "some/where")
        .variable("T_EMPTY_FILE", "")
        .variable("SSL_CERT_FILE", "/nowhere")
        .variable("PID_FILE", "/nowhere");
    let mut expected: Vec<String> = kept.iter().map(|name| format!("{name}=/nowhere$\n")).collect();
    expected.extend(["T_REL_FILE=some/where$\n".to_owned(), "T_EMPTY_FILE=$\n".to_owned()]);
    expected.sort();
    assert_eq!(shown(&start), expected.concat());
}

#[test]
fn below_a_secret_folder_such_a_name_is_taken_after_all() {
    let world = World::new();
    let path = world.file("run/tls", "PEM\n");
    let start = world.secret_init().flag("--file-root").flag(world.path.join("run")).variable("T_TLS_CERT_FILE", &path);
    assert_eq!(shown(&start), "T_TLS_CERT=PEM$\n");
    assert_eq!(shown(&start.flag("--skip=T_*")), format!("T_TLS_CERT_FILE={}$\n", path.display()));
}

#[test]
fn skip_and_only_decide_by_name() {
    let world = World::new();
    let path = world.file("x", "v\n");
    let start = world.secret_init().variable("T_A_FILE", &path).variable("T_B_FILE", &path);
    let kept = format!("={}$\n", path.display());
    assert_eq!(shown(&start.clone().flag("--skip").flag("T_A_*")), format!("T_A_FILE{kept}T_B=v$\n"));
    assert_eq!(shown(&start.clone().variable("SECRET_INIT_SKIP", "X,T_B_FILE")), format!("T_A=v$\nT_B_FILE{kept}"));
    assert_eq!(shown(&start.clone().flag("--only=T_A*")), format!("T_A=v$\nT_B_FILE{kept}"));
    assert_eq!(shown(&start.variable("SECRET_INIT_ONLY", "NONE")), format!("T_A_FILE{kept}T_B_FILE{kept}"));
    assert_eq!(shown(&world.secret_init().flag("--skip=T_*").variable("T_A", "literal:x")), "T_A=literal:x$\n");
}

#[test]
fn the_variable_itself_wins_with_a_warning_and_with_strict_it_is_an_error() {
    let world = World::new();
    let start = world.secret_init().variable("T_A", "set").variable("T_A_FILE", world.file("x", "v\n"));
    let outcome = start.clone().shell(SHOW).finishes();
    assert_eq!(outcome.stdout, "T_A=set$\n");
    assert_eq!(
        outcome.stderr,
        "secret-init: warning: T_A_FILE: is ignored, since T_A is set\nsecret-init: hint: unset one of the two; T_A wins\n"
    );
    let lines = [
        "T_A_FILE: is ignored, since T_A is set",
        "hint: unset one of the two; T_A wins",
        "1 problem in the plan; the program was not started",
    ];
    start.flag("--strict").shell("echo started").finishes().fails(78, &lines);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let world = World::new();
    assert_eq!(shown(&world.secret_init().variable("T_A", "").variable("T_A_FILE", world.file("x", "v\n"))), "T_A=v$\n");
}

#[test]
fn settings_of_ours_do_not_reach_the_program() {
    let world = World::new();
    let start = world
        .secret_init()
        .variable("SECRET_INIT_SKIP", "X")
        .variable("SECRET_INIT_LOG_LEVEL", "error")
        .variable("SECRET_INIT_SERVICE_HOST", "10.0.0.1");
    assert_eq!(start.shell("env | grep -c SECRET_INIT; true").finishes().succeeds(), "0\n");
}

// Environment files.

#[test]
fn an_environment_file_brings_variables_that_may_be_references() {
    let world = World::new();
    let secret = world.file("db", "s3cret\n");
    let text = format!("# dev\nexport T_A=plain\nT_B_FILE={0}\nT_C='${{file:{0}}}'\nT_D=\"two\\nlines\"\n", secret.display());
    world.file(".env", text);
    // A relative path starts in the working directory.
    let start = world.secret_init().in_directory(&world.path).flag("--env-file").flag(".env");
    assert_eq!(shown(&start), "T_A=plain$\nT_B=s3cret$\nT_C=s3cret~$\nT_D=two~lines$\n");
}

#[test]
fn the_container_wins_over_an_environment_file_and_a_later_file_over_an_earlier() {
    let world = World::new();
    let (one, two) = (world.file("1.env", "T_A=1\nT_B=1\nT_C=1\nT_E=1\n"), world.file("2.env", "T_B=2\nT_C=2\n"));
    let start = world.secret_init().flag("--env-file").flag(one).flag("--env-file").flag(two).variable("T_C", "set").variable("T_E", "");
    let outcome = start.shell(SHOW).finishes();
    assert_eq!(outcome.stdout, "T_A=1$\nT_B=2$\nT_C=set$\nT_E=1$\n");
    let warning = "secret-init: warning: T_C: is set in the container, which wins over --env-file\n";
    assert_eq!(outcome.stderr, format!("{warning}secret-init: hint: remove one of the two\n"));
}

#[test]
fn a_setting_of_ours_in_an_environment_file_is_refused() {
    let world = World::new();
    let path = world.file(".env", "T_A=1\nSECRET_INIT_DIR=hunter2\n");
    let lines = [
        &format!("--env-file: {}: SECRET_INIT_DIR: is a setting of secret-init, not a variable for the program", path.display()),
        "hint: give it as a flag, or in the container",
        "1 problem in the plan; the program was not started",
    ];
    world.secret_init().flag("--env-file").flag(&path).shell("echo started").finishes().fails(78, &lines);
}

#[test]
fn an_environment_file_that_cannot_be_read_is_named_by_line_and_without_its_text() {
    let world = World::new();
    let path = world.file(".env", "T_A=1\nhunter2 = x = y\n\"hunter2\n");
    let lines = [
        &format!("--env-file: {}: line 3: no name of a variable", path.display()),
        "hint: lines are NAME=value, as in Compose",
        "1 problem in the plan; the program was not started",
    ];
    world.file(".env", "T_A=1\nB=2\n\"hunter2\n");
    world.secret_init().flag("--env-file").flag(&path).shell("echo started").finishes().fails(65, &lines);
    let none = world.path.join("none.env");
    let lines = [&format!("--env-file: {}: no such file", none.display()), "1 problem in the plan; the program was not started"];
    world.secret_init().flag("--env-file").flag(&none).shell("echo started").finishes().fails(66, &lines);
}

// Bad input: each message whole, its exit code, and that nothing ran.

fn fails_for_file(world: &World, path: &std::path::Path, code: u8, cause: &str, hint: &str) {
    let lines = [
        &format!("T_A_FILE: file:{}: {cause}", path.display()),
        &format!("hint: {hint}"),
        "1 of 1 secret failed; the program was not started",
    ];
    world.secret_init().variable("T_A_FILE", path).shell("echo started").finishes().fails(code, &lines.map(|line| -> &str { line }));
    world
        .secret_init()
        .flag("--exec")
        .variable("T_A_FILE", path)
        .shell("echo started")
        .finishes()
        .fails(code, &lines.map(|line| -> &str { line }));
}

#[test]
fn a_missing_file_ends_the_start() {
    let world = World::new();
    fails_for_file(
        &world,
        &world.path.join("none"),
        66,
        "no such file",
        "mount the secret there, or leave the variable alone with --skip T_A_FILE",
    );
    world.file("x", "");
    fails_for_file(
        &world,
        &world.path.join("x/y"),
        66,
        "no such file",
        "mount the secret there, or leave the variable alone with --skip T_A_FILE",
    );
}

#[test]
fn a_file_that_may_not_be_read_ends_the_start() {
    let world = World::new();
    let path = world.file("x", "v");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let lines = [
        &format!("T_A_FILE: file:{}: permission denied for uid 1000 (owner 0, mode 0600)", path.display()),
        "hint: make the file readable for that user, or start as root and give the program its user with --user",
        "1 of 1 secret failed; the program was not started",
    ];
    world.secret_init().as_user(1000).variable("T_A_FILE", &path).shell("echo started").finishes().fails(77, &lines);
}

#[test]
fn what_is_no_regular_file_ends_the_start_and_never_hangs() {
    let world = World::new();
    let regular = "a secret is read from a regular file";
    fails_for_file(&world, &world.path, 65, "is a directory", "name a file in it");
    let fifo = world.path.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    fails_for_file(&world, &fifo, 65, "is a FIFO, not a regular file", regular);
    let socket = world.path.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    fails_for_file(&world, &socket, 65, "is not a regular file", regular);
    for device in ["/dev/zero", "/dev/tty0", "/dev/null"].iter().filter(|device| std::path::Path::new(device).exists()) {
        fails_for_file(&world, std::path::Path::new(device), 65, "is a device, not a regular file", regular);
    }
}

#[test]
fn files_of_the_kernel_end_the_start_also_behind_a_link() {
    let world = World::new();
    let regular = "a secret is read from a regular file";
    for path in ["/proc/self/environ", "/proc/1/status", "/sys/kernel/uevent_seqnum"] {
        fails_for_file(&world, std::path::Path::new(path), 65, "lies in procfs or sysfs", regular);
        let link = world.path.join("link");
        symlink(path, &link).unwrap();
        fails_for_file(&world, &link, 65, "lies in procfs or sysfs", regular);
        std::fs::remove_file(&link).unwrap();
    }
    for path in ["/proc/self/fd/0", "/dev/stdin", "/proc/self/root/etc/hostname", "/proc/self/cwd/Cargo.toml"] {
        fails_for_file(&world, std::path::Path::new(path), 65, "is a link into procfs, or a loop of links", regular);
    }
}

#[test]
fn links_as_kubelet_makes_them_are_followed() {
    let world = World::new();
    world.file("..2026/pw", "v\n");
    symlink("..2026", world.path.join("..data")).unwrap();
    symlink("..data/pw", world.path.join("pw")).unwrap();
    assert_eq!(shown(&world.secret_init().variable("T_A_FILE", world.path.join("pw"))), "T_A=v$\n");
}

#[test]
fn a_mebibyte_is_a_secret_and_one_byte_more_is_not() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory());
    let size = |bytes: usize| {
        start.clone().variable("T_A_FILE", format!("file:{}", world.file("big", "x".repeat(bytes)).display())).shell("wc -c <$T_A_FILE")
    };
    assert_eq!(size(1 << 20).finishes().succeeds(), "1048576\n");
    let lines = [
        &format!("T_A_FILE: file:{}: is larger than 1 MiB", world.path.join("big").display()),
        "hint: a secret has at most 1,048,576 bytes",
        "1 of 1 secret failed; the program was not started",
    ];
    size((1 << 20) + 1).finishes().fails(65, &lines);
}

#[test]
fn a_nul_byte_is_no_part_of_a_variable_and_a_part_of_a_file() {
    let world = World::new();
    let path = world.file("x", "a\0b");
    fails_for_file(
        &world,
        &path,
        65,
        "the value has a NUL byte, which no variable can hold",
        "let the program read the file itself: --skip T_A_FILE",
    );
    let lines = [
        &format!("T_A: file:{}: the value has a NUL byte, which no variable can hold", path.display()),
        "hint: deliver it as a file: T_A_FILE=REFERENCE",
        "1 of 1 secret failed; the program was not started",
    ];
    world.secret_init().variable("T_A", format!("${{file:{}}}", path.display())).shell("echo started").finishes().fails(65, &lines);
    let start = world.secret_init().directory(world.directory()).variable("T_A_FILE", format!("file:{}", path.display()));
    assert_eq!(start.shell("od -An -c $T_A_FILE").finishes().succeeds(), "   a  \\0   b\n");
}

#[test]
fn a_variable_holds_32_pages_and_no_more() {
    let world = World::new();
    // With its name, the = and a NUL.
    let most = 131_072 - "T_A".len() - 2;
    let start = world.secret_init().variable("T_A_FILE", world.file("x", "v".repeat(most)));
    assert_eq!(start.shell("echo ${#T_A}").finishes().succeeds(), format!("{most}\n"));
    let path = world.file("x", "v".repeat(most + 1));
    fails_for_file(
        &world,
        &path,
        65,
        "the value has 131068 bytes, and a variable holds 131067 at most",
        "let the program read the file itself: --skip T_A_FILE",
    );
}

#[test]
fn an_environment_that_is_too_large_in_all_is_refused_before_exec() {
    let world = World::new();
    let path = world.file("x", "v".repeat(100_000));
    let mut start = world.secret_init().under(["prlimit", "--stack=1048576:1048576"]);
    for number in 0..3 {
        start = start.variable(format!("T_{number}_FILE"), &path);
    }
    let outcome = start.shell("echo started").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (65, ""));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(
        lines[0].starts_with("secret-init: T_2_FILE: environment and arguments have 30")
            && lines[0].ends_with(" bytes, and the kernel takes 262144"),
        "{lines:?}"
    );
    assert_eq!(
        lines[1..],
        ["secret-init: hint: T_2_FILE is the largest with 100000 bytes: deliver it as a file", "secret-init: the program was not started"]
    );
}

#[test]
fn entries_that_no_shell_would_make_pass_as_they_are() {
    let world = World::new();
    let script = world.script(
        "odd.py",
        "import os, sys\n\
         env = [b'PATH=/usr/bin:/bin', b'NOEQUALS', b'=nameless', b'T_N\\nL=x', b'T_D=first', b'T_D=second', b'T_\\xff=\\xfe']\n\
         import ctypes\n\
         libc = ctypes.CDLL(None)\n\
         argv = [a.encode() for a in sys.argv[1:]]\n\
         arr = lambda l: (ctypes.c_char_p * (len(l) + 1))(*l, None)\n\
         libc.execve(argv[0], arr(argv), arr(env))\n",
    );
    let outcome = world.secret_init().under(["python3", script.to_str().unwrap()]).program(["cat", "/proc/self/environ"]).finishes();
    assert_eq!(
        outcome.stderr,
        "secret-init: warning: T_D: is set more than once; the first value is used\nsecret-init: hint: set it once\n"
    );
    let mut entries: Vec<&str> = outcome.stdout.split_terminator('\0').collect();
    entries.sort_unstable();
    assert_eq!(entries, ["=nameless", "NOEQUALS", "PATH=/usr/bin:/bin", "T_D=first", "T_N\nL=x", "T_\u{fffd}=\u{fffd}"]);
}

#[test]
fn a_name_with_control_characters_is_escaped_in_messages() {
    let world = World::new();
    let lines = [
        "T\\n\\u{1b}[2J_FILE: file:/none%0A: no such file",
        "hint: mount the secret there, or leave the variable alone with --skip T\\n\\u{1b}[2J_FILE",
        "1 of 1 secret failed; the program was not started",
    ];
    world.secret_init().variable("T\n\x1b[2J_FILE", "/none\n").shell("echo started").finishes().fails(66, &lines.map(|line| line));
}

#[test]
fn a_variable_whose_name_cannot_be_a_files_is_refused() {
    let world = World::new();
    let start = world.secret_init().directory(world.directory()).variable("../T_FILE", "literal:x");
    let lines = [
        "../T_FILE: the name cannot be that of a file",
        "hint: use A-Z a-z 0-9 _ . - in it, and at most 128",
        "1 problem in the plan; the program was not started",
    ];
    start.shell("echo started").finishes().fails(78, &lines);
}

#[test]
fn two_variables_for_one_place_are_refused() {
    let world = World::new();
    let path = world.file("x", "v");
    let start = world.secret_init().variable("T_A_FILE", &path).variable("FILE__T_A", &path);
    let outcome = start.shell("echo started").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (78, ""));
    let (one, other) = ("FILE__T_A: goes to the same place as T_A_FILE", "T_A_FILE: goes to the same place as FILE__T_A");
    assert!(outcome.stderr.contains(one) || outcome.stderr.contains(other), "{}", outcome.stderr);
    assert!(
        outcome
            .stderr
            .ends_with("secret-init: hint: keep one of the two\nsecret-init: 1 problem in the plan; the program was not started\n")
    );
}

#[test]
fn an_unknown_scheme_stays_and_a_store_that_is_not_built_in_is_refused() {
    let world = World::new();
    assert_eq!(
        shown(&world.secret_init().variable("T_A", "${nope:x#y}").variable("T_B_FILE", "nope:x#y")),
        "T_A=${nope:x#y}$\nT_B_FILE=nope:x#y$\n"
    );
    let lines = [
        "T_A: this build of secret-init has no store for k8s:…",
        "hint: it has file, dotenv, cred, literal, vault, bao, aws-sm, aws-ssm; when the value is no reference, pass it on with --skip T_A",
        "1 problem in the plan; the program was not started",
    ];
    world.secret_init().variable("T_A", "k8s:secret#password").shell("echo started").finishes().fails(78, &lines);
}

#[test]
fn a_reference_that_is_not_closed_is_refused_without_what_stands_around_it() {
    let world = World::new();
    let lines =
        ["T_A: file:/x: no } closes ${", "hint: a literal ${ is written as $${", "1 problem in the plan; the program was not started"];
    world.secret_init().variable("T_A", "hunter2${file:/x").shell("echo started").finishes().fails(78, &lines);
}

#[test]
fn a_mode_is_for_files() {
    let world = World::new();
    let start = world.secret_init().variable("T_A", "cred:x?mode=0440");
    let lines = [
        "T_A: cred:x?mode=0440: a mode is for files, and this is a variable",
        "hint: write T_A_FILE=cred:x?mode=0440 to get a file",
        "1 problem in the plan; the program was not started",
    ];
    start.shell("echo started").finishes().fails(78, &lines);
}

#[test]
fn a_key_that_is_not_there_is_an_error_and_never_empty() {
    let world = World::new();
    let json = world.file("x.json", r#"{"a": "hunter2", "n": null, "d": 1, "d": 2}"#);
    let json = json.display();
    let reference = |selector: &str| format!("${{file:{json}#{selector}}}");
    let start = world
        .secret_init()
        .variable("T_1", reference("b"))
        .variable("T_2", reference("n"))
        .variable("T_3", reference("d"))
        .variable("T_4", reference("/a/b"))
        .variable("T_5", format!("dotenv:{}#X", world.file(".env", "A=hunter2\n").display()));
    let outcome = start.shell("echo started").finishes();
    let mut lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("secret-init: T_")).collect();
    lines.sort_unstable();
    let expected = [
        format!("secret-init: T_1: file:{json}#b: no such key"),
        format!("secret-init: T_2: file:{json}#n: the key is there and its value is null"),
        format!("secret-init: T_3: file:{json}#d: the key stands twice in the JSON object"),
        format!("secret-init: T_4: file:{json}#/a/b: a key is asked for and the secret is no JSON object at step 2 of the pointer"),
        format!("secret-init: T_5: dotenv:{}#X: no such key", world.path.join(".env").display()),
    ];
    assert_eq!(lines, expected);
    assert!(outcome.stderr.ends_with("secret-init: 5 of 5 secrets failed; the program was not started\n"));
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (66, ""));
}

#[test]
fn all_failures_of_a_start_are_told_at_once_in_the_order_of_the_names() {
    let world = World::new();
    let directory = world.path.display().to_string();
    let script = world.script(
        "ordered.sh",
        &format!("#!/bin/sh\nexec env -i PATH=/bin T_B_FILE={directory}/none T_A_FILE={directory} T_C='${{cred:x}}' T_D_FILE={directory}/good \"$@\"\n"),
    );
    world.file("good", "hunter2");
    let outcome = world.secret_init().under([script.to_str().unwrap()]).shell("echo started").finishes();
    outcome.fails(
        66,
        &[
            &format!("T_A_FILE: file:{directory}: is a directory"),
            "hint: name a file in it",
            &format!("T_B_FILE: file:{directory}/none: no such file"),
            "hint: mount the secret there, or leave the variable alone with --skip T_B_FILE",
            "T_C: cred:x: CREDENTIALS_DIRECTORY is not set",
            "hint: set CREDENTIALS_DIRECTORY to the folder of the credentials, as systemd does for LoadCredential=",
            "3 of 4 secrets failed; the program was not started",
        ],
    );
}

#[test]
fn without_a_program_nothing_starts() {
    let world = World::new();
    let lines = ["CMD is empty", "hint: name the program after --; when ENTRYPOINT is overridden, repeat the image's own CMD"];
    world.secret_init().finishes().fails(64, &lines);
    world.secret_init().flag("--").finishes().fails(64, &lines);
    let lines = ["unknown option --nope", "hint: see secret-init --help; the program and its options stand after --"];
    world.secret_init().flag("--nope").shell("echo started").finishes().fails(64, &lines);
}

#[test]
fn a_value_that_begins_like_a_reference_is_not_told_when_it_may_be_a_password() {
    for value in [
        "pass:hunter2",
        "pass:hunter2?mode=0440",
        "pass:hunter2?refresh=5m",
        "pass:hunter2?x",
        "pass:x?hunter2=x",
        "pass:hunter2#",
        "pass:hunter2%",
    ] {
        let outcome = World::new().secret_init().variable("OPENSSL_PASSIN", value).shell("echo started").finishes();
        assert!(!outcome.stderr.contains("hunter2") && outcome.stderr.contains("OPENSSL_PASSIN: "), "{}", outcome.stderr);
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (78, ""));
    }
}

#[test]
fn a_value_of_an_environment_file_that_no_variable_can_hold_is_refused() {
    let world = World::new();
    for (text, cause) in [
        ("T_A=x\0y\n".to_owned(), "the value has a NUL byte, which no variable can hold"),
        (format!("T_A={}\n", "v".repeat(131_068)), "the value has 131068 bytes, and a variable holds 131067 at most"),
    ] {
        let path = world.file("e.env", text);
        let lines = [&format!("--env-file: {}: T_A: {cause}", path.display()), "1 problem in the plan; the program was not started"];
        world.secret_init().flag("--env-file").flag(&path).shell("echo started").finishes().fails(65, &lines);
    }
}

#[test]
fn user_place_and_secrets_fail_together() {
    let world = World::new();
    let none = world.path.join("none/secrets");
    let start =
        world.secret_init().flag("--user").flag("nobodyy").directory(&none).variable("T_A_FILE", "cred:x").variable("T_B_FILE", "/none");
    let outcome = start.shell("echo started").finishes();
    for part in [
        "--user: nobodyy: no such user",
        "none/secrets: cannot be made: no such file",
        "T_A_FILE: cred:x: ",
        "T_B_FILE: file:/none: no such file",
    ] {
        assert!(outcome.stderr.contains(part), "{part} in {}", outcome.stderr);
    }
    assert!(outcome.stderr.ends_with("secret-init: 2 of 2 secrets failed; the program was not started\n"), "{}", outcome.stderr);
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (78, ""));
}

#[test]
fn a_setting_that_is_none_is_warned_of() {
    let start = World::new().secret_init().variable("SECRET_INIT_SKIPP", "X");
    let outcome = start.clone().program(["true"]).finishes();
    assert_eq!(
        outcome.stderr,
        "secret-init: warning: SECRET_INIT_SKIPP: is no setting of secret-init\nsecret-init: hint: secret-init --help lists them\n"
    );
    assert_eq!(start.flag("--strict").program(["true"]).finishes().code(), 78);
}

#[test]
fn a_secret_called_home_or_user_is_meant_and_comes_once() {
    let world = World::new();
    let path = world.file("x", "secret");
    let start = world.secret_init().flag("--user=1000:1000").variable("USER_FILE", &path).variable("HOME_FILE", &path);
    assert_eq!(start.shell("env | grep -E '^(HOME|USER)=' | sort").finishes().succeeds(), "HOME=secret\nUSER=secret\n");
}

#[test]
fn an_interpreter_that_is_missing_is_told_apart_from_a_program_that_is() {
    let world = World::new();
    world.script("app", "#!/none/such\n");
    let path = format!("{}:/usr/bin:/bin", world.path.display());
    let lines = ["app: its interpreter is not found", "hint: the file is there; what its #! line or ELF header names is not in the image"];
    world.secret_init().variable("PATH", path).program(["app"]).finishes().fails(127, &lines);
    let lines = ["plan: not found", "hint: for secret-init's own command: docker run --entrypoint secret-init IMAGE COMMAND"];
    world.secret_init().program(["plan"]).finishes().fails(127, &lines);
}

#[test]
fn a_signal_that_was_ignored_does_not_end_a_start() {
    let world = World::new();
    for mode in ["--group", "--exec"] {
        let under = ["sh", "-c", "trap '' HUP; exec strace -qq -o /dev/null -f -e inject=openat2:signal=HUP:when=1 \"$@\"", "sh"];
        let start = world.secret_init().under(under).flag(mode).variable("T_A_FILE", world.file("x", "v"));
        assert_eq!(start.shell("echo $T_A").finishes().stdout, "v\n", "{mode}");
    }
}

#[test]
fn write_ends_by_a_signal_as_pid_1() {
    let world = World::new();
    let directory = world.directory();
    let start = world.secret_init().as_pid_1().flag("write").directory(&directory).variable("T_A_FILE", "literal:x");
    let holder = std::fs::File::open(&directory).unwrap();
    let _lock = nix::fcntl::Flock::lock(holder, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let running = start.spawn();
    let pid = running.pid_1();
    support::eventually("it has its handler", || (support::status_field(pid, "SigCgt") != "0000000000000000").then_some(()));
    support::send(pid, libc::SIGTERM);
    assert_eq!(running.finishes().code(), 143);
}

#[test]
fn a_lock_that_is_never_let_go_ends_the_start() {
    let world = World::new();
    let directory = world.directory();
    let holder = std::fs::File::open(&directory).unwrap();
    let _lock = nix::fcntl::Flock::lock(holder, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
    let lines = [
        &format!("{}: another process holds its lock (flock)", directory.display()),
        "hint: give each container a directory of its own",
        "the program was not started",
    ];
    world.secret_init().directory(&directory).variable("T_A_FILE", "literal:x").shell("echo started").finishes().fails(73, &lines);
}

#[test]
fn closed_streams_in_an_image_without_dev_change_no_exit_code() {
    let world = World::new();
    std::fs::copy(support::binary(), world.path.join("secret-init")).unwrap();
    let script = format!("exec chroot {} /secret-init -- /none 2>&-", world.path.display());
    let status = std::process::Command::new("sh")
        .args(["-c", &script])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("T_A_FILE", "/none")
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(66));
}

// The other commands.

#[test]
fn plan_prints_each_decision_and_reads_no_secret() {
    let world = World::new();
    let script = world.script(
        "ordered.sh",
        "#!/bin/sh\nexec env -i T_URL='a${cred:u}b${file:/none#p | urlencode}' T_KEY_FILE='cred:k?mode=0440' T_DB_FILE=/none T_X='$${pass:x}' T_TLS_CERT_FILE=/c T_REL_FILE=r P=hunter2 \"$@\"\n",
    );
    let stdout = world.secret_init().under([script.to_str().unwrap()]).flag("plan").finishes().succeeds();
    let expected = "\
NAME        REFERENCE         STORE  DELIVERY
T_DB_FILE   file:/none        file   variable T_DB
T_KEY_FILE  cred:k?mode=0440  cred   file T_KEY (0440)
T_URL       cred:u            cred   variable T_URL
            file:/none#p      file   variable T_URL
T_X         (text)            -      variable T_X

Left alone:
  T_REL_FILE       neither an absolute path nor a reference
  T_TLS_CERT_FILE  such names seldom mean a secret
";
    assert_eq!(stdout, expected);
}

#[test]
fn plan_without_references_says_so() {
    assert_eq!(World::new().secret_init().flag("plan").finishes().succeeds(), "No variable refers to a secret.\n");
}

#[test]
fn check_prints_results_without_values_and_ends_as_a_start_would() {
    let world = World::new();
    let good = world.file("good", "hunter2");
    let start = world.secret_init().flag("check").variable("T_A_FILE", &good);
    let stdout = start.finishes().succeeds();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["NAME", "REFERENCE", "STORE", "DELIVERY", "VERSION", "MS", "RESULT"]);
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        (row[0], row[1], row[2], row[3], row[4], row[7]),
        ("T_A_FILE", &*format!("file:{}", good.display()), "file", "variable", "T_A", "ok")
    );
    assert!(!stdout.contains("hunter2"));

    let outcome = start.variable("T_B_FILE", world.path.join("none")).variable("T_C", "cred:x?optional=true").finishes();
    assert_eq!(outcome.code(), 66);
    assert!(outcome.stdout.contains("FAILED") && outcome.stdout.contains("absent"), "{}", outcome.stdout);
    assert!(outcome.stderr.ends_with("secret-init: 1 of 3 secrets failed; a start would fail\n"), "{}", outcome.stderr);
}

#[test]
fn check_finds_the_user_and_the_owners_as_a_start_does_and_makes_nothing() {
    let world = World::new();
    let config = world.file("c.yaml", "files: [{ path: a, from: 'literal:x', owner: 'nobody:nope' }]\n");
    let start = world.secret_init().directory(world.directory()).flag("--config").flag(config).flag("--user").flag("nosuch");
    let start = start.variable("T_A_FILE", world.path.join("none"));
    let (check, start) = (start.clone().flag("check").finishes(), start.program(["true"]).finishes());
    let lines =
        |text: &str| text.lines().filter(|line| !line.ends_with("failed; a start would fail")).map(str::to_owned).collect::<Vec<_>>();
    let started = start.stderr.replace("the program was not started", "a start would fail");
    assert_eq!((check.code(), lines(&check.stderr)), (start.code(), lines(&started)));
    for problem in ["--user: nosuch: no such user", "owner: nobody:nope: no such group", "none: no such file"] {
        assert!(check.stderr.contains(problem), "{problem}: {}", check.stderr);
    }
    assert_eq!(check.code(), 78);
    let quiet = world.secret_init().directory(world.path.join("new")).flag("check").variable("T_A_FILE", "literal:x").finishes();
    assert_eq!((quiet.code(), world.path.join("new").exists()), (0, false));
}

#[test]
fn a_value_that_is_made_is_no_larger_than_a_secret_may_be() {
    let world = World::new();
    let large = world.file("large", vec![b'+'; 1 << 20]).display().to_string();
    let start = world.secret_init().flag("check").directory(world.directory()).under(["prlimit", "--as=67108864"]);
    let hint = "secret-init: hint: take the part that is needed, with #KEY, or deliver the secrets one by one\n";
    let is_made = |value: &str| {
        let outcome = start.clone().variable("T_A_FILE", value).finishes();
        if outcome.code() != 0 {
            assert_eq!(outcome.code(), 65);
            let problem = format!("secret-init: T_A_FILE: file:{large}: the value that is made of it is larger than 1 MiB\n{hint}");
            assert_eq!(outcome.stderr, format!("{problem}secret-init: 1 of 1 secret failed; a start would fail\n"));
        }
        outcome.code() == 0
    };
    assert!(is_made(&format!("${{file:{large}}}")));
    assert!(!is_made(&format!("${{file:{large}}}x")));
    assert!(!is_made(&format!("${{file:{large}}}").repeat(600)));
    assert!(!is_made(&format!("${{file:{large}{}}}", " | urlencode".repeat(8))));
    let many = start.clone().variable("T_A", format!("${{literal:x{}}}", " | base64".repeat(9))).finishes();
    many.fails(78, &["T_A: literal:…: more than 8 filters on one reference", "1 problem in the plan; a start would fail"]);
}

#[test]
fn write_makes_the_files_and_ends() {
    let world = World::new();
    let start = world.secret_init().flag("write").directory(world.directory()).variable("T_A_FILE", "literal:x");
    assert_eq!(start.finishes().succeeds(), "");
    assert_eq!(std::fs::read(world.directory().join("T_A")).unwrap(), b"x");
    let lines = [
        "there is no file to write",
        "hint: a file is asked for by NAME_FILE=REFERENCE, like DB_PASSWORD_FILE=cred:db, or by files: in the configuration",
        "1 problem in the plan; nothing was written",
    ];
    world.secret_init().flag("write").finishes().fails(78, &lines);
}

#[test]
fn level_info_says_one_line_with_counts() {
    let world = World::new();
    let start = world
        .secret_init()
        .directory(world.directory())
        .flag("--log-level=info")
        .variable("T_A", "literal:x")
        .variable("T_B_FILE", "literal:y");
    let stderr = start.program(["true"]).finishes().stderr;
    let beginning = format!("secret-init: delivered 2 secrets (1 variable, 1 file in {}) in ", world.directory().display());
    assert!(stderr.starts_with(&beginning) && stderr.ends_with(" ms\n") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn help_fits_a_terminal_and_names_every_option_and_store() {
    let help = World::new().secret_init().flag("--help").finishes().succeeds();
    for word in [
        "--exec",
        "--user",
        "--group",
        "--kill-after",
        "--dir",
        "--allow-disk",
        "--env-file",
        "--skip",
        "--only",
        "--file-root",
        "--strict",
        "--log-level",
        "SECRET_INIT_DIR",
        "dotenv",
        "cred",
        "literal",
        "write",
        "plan",
        "check",
    ] {
        assert!(help.contains(word), "{word}");
    }
    let longest = help.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest <= 110, "{longest}");
    assert_eq!(
        World::new().secret_init().flag("--version").finishes().succeeds(),
        concat!("secret-init ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn a_reader_that_went_away_is_no_failure_of_help() {
    let outcome = World::new().secret_init().under(["sh", "-c", "\"$@\" --help | :", "sh"]).finishes();
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (0, ""));
}

#[test]
fn bytes_pass_as_arguments() {
    let outcome = World::new().secret_init().program([os(b"printf"), os(b"%s"), os(b"\xff\xfe")]).finishes();
    assert_eq!(outcome.stdout, "\u{fffd}\u{fffd}");
}
