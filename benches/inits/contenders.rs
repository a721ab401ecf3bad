//! Who is compared: secret-init, the inits that Debian has, and the shell script that does the same for secrets.

use std::fs;
use std::path::{Path, PathBuf};

use crate::measure::{Command, copied};

/// An init that can be installed from Debian.
struct Peer {
    name: &'static str,
    path: &'static str,
    package: &'static str,
    flags: &'static [&'static str],
    is_static: bool,
}

/// None of them is PID 1 here: tini wants to hear that it shall be a subreaper, as secret-init and catatonit are always.
const PEERS: &[Peer] = &[
    Peer { name: "tini", path: "/usr/bin/tini", package: "tini", flags: &["-s", "--"], is_static: false },
    Peer { name: "tini-static", path: "/usr/bin/tini-static", package: "tini", flags: &["-s", "--"], is_static: true },
    Peer { name: "dumb-init", path: "/usr/bin/dumb-init", package: "dumb-init", flags: &["--"], is_static: false },
    Peer { name: "catatonit", path: "/usr/bin/catatonit", package: "catatonit", flags: &["--"], is_static: true },
];

const BASH: &str = "/bin/bash";

/// The idiom of the entrypoints of well-known images: each variable that may come as a file is named in the script.
const ENTRYPOINT: &str = r#"#!/bin/bash
set -Eeuo pipefail

# file_env NAME [DEFAULT]: sets NAME to itself, to the content of the file that NAME_FILE names, or to the default.
file_env() {
    local name="$1" file="${1}_FILE" value="${2:-}"
    if [ "${!name:-}" ] && [ "${!file:-}" ]; then
        echo >&2 "error: both $name and $file are set"
        exit 1
    fi
    if [ "${!name:-}" ]; then
        value="${!name}"
    elif [ "${!file:-}" ]; then
        value="$(< "${!file}")"
    fi
    export "$name"="$value"
    unset "$file"
}

for number in {0..9}; do
    file_env "SECRET_$number"
done
exec "$@"
"#;

/// bash 5.2 learned to do without a fork in the script above; this one, which is as common, forks for each file.
const WITH_CAT: (&str, &str) = (r#"$(< "${!file}")"#, r#"$(cat "${!file}")"#);

/// An entrypoint that reads the files and becomes the program.
pub struct Script {
    pub name: &'static str,
    words: Vec<String>,
}

impl Script {
    pub fn command(&self, environment: &[String]) -> Command {
        Command::new(self.words.iter().map(String::as_str), environment)
    }
}

/// An init that stays beside its program.
pub struct Init {
    pub name: String,
    pub path: String,
    pub flags: &'static [&'static str],
    pub is_static: bool,
    pub is_ours: bool,
}

impl Init {
    fn ours(name: String, path: String) -> Self {
        Self { name, path, flags: &["--"], is_static: true, is_ours: true }
    }

    /// The command to which the words of a program are added.
    pub fn command(&self, environment: &[String]) -> Command {
        Command::new(std::iter::once(self.path.as_str()).chain(self.flags.iter().copied()), environment)
    }
}

pub struct Contenders {
    /// The first is secret-init as it was just built.
    pub inits: Vec<Init>,
    /// What is not installed, and how to change that.
    pub missing: Vec<String>,
    /// The shell scripts, the plain one first; none without bash.
    pub scripts: Vec<Script>,
    /// Ten `*_FILE` variables.
    pub ten_files: Vec<String>,
    directory: PathBuf,
    binaries: PathBuf,
}

impl Contenders {
    pub fn new(other_builds: &[String]) -> Self {
        let directory = PathBuf::from(format!("/dev/shm/secret-init-bench-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let ten_files = (0..10)
            .map(|number| {
                let path = directory.join(format!("secret_{number}"));
                fs::write(&path, format!("{}\n", secret(number))).unwrap();
                format!("SECRET_{number}_FILE={}", path.display())
            })
            .collect();
        let binaries = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&binaries).unwrap();
        let mut inits = vec![Init::ours("secret-init".into(), copied(env!("CARGO_BIN_EXE_secret-init"), &binaries.join("secret-init")))];
        for build in other_builds {
            let (label, path) = build.split_once('=').expect("further arguments are LABEL=PATH, each a build of secret-init");
            inits.push(Init::ours(format!("secret-init ({label})"), copied(path, &binaries.join(label))));
        }
        let (there, absent): (Vec<&Peer>, Vec<&Peer>) = PEERS.iter().partition(|peer| fs::exists(peer.path).unwrap());
        inits.extend(there.into_iter().map(|peer| Init {
            name: peer.name.into(),
            path: copied(peer.path, &binaries.join(peer.name)),
            flags: peer.flags,
            is_static: peer.is_static,
            is_ours: false,
        }));
        let has_bash = fs::exists(BASH).unwrap();
        let absent = absent.into_iter().map(|peer| (peer.name, peer.package)).chain((!has_bash).then_some(("bash", "bash")));
        Self {
            missing: absent.map(|(name, package)| format!("{name} is missing: apt-get install {package}")).collect(),
            scripts: if has_bash { scripts(&directory, &inits) } else { Vec::new() },
            inits,
            ten_files,
            directory,
            binaries,
        }
    }
}

fn scripts(directory: &Path, inits: &[Init]) -> Vec<Script> {
    let written = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        vec![BASH.to_owned(), path.to_str().unwrap().to_owned()]
    };
    let plain = written("entrypoint.sh", ENTRYPOINT);
    let with_cat = written("with-cat.sh", &ENTRYPOINT.replace(WITH_CAT.0, WITH_CAT.1));
    // What does the same as secret-init: an init, and a script that is gone when the program runs.
    let below_tini = inits.iter().find(|init| init.name == "tini").map(|tini| {
        let words = std::iter::once(tini.path.as_str()).chain(tini.flags.iter().copied()).map(str::to_owned);
        Script { name: "tini and bash entrypoint", words: words.chain(plain.iter().cloned()).collect() }
    });
    let scripts = [Script { name: "bash entrypoint", words: plain }, Script { name: "bash entrypoint with cat", words: with_cat }];
    scripts.into_iter().chain(below_tini).collect()
}

impl Drop for Contenders {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(&self.binaries);
    }
}

/// What the file with this number holds.
pub fn secret(number: u32) -> String {
    format!("value-{number}-correct-horse-battery-staple")
}
