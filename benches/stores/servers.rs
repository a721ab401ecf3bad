//! The real servers, with a hundred secrets each, and what they tell of who asked them.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::eventually;
use crate::support::servers::ministack::{self, Keys, MiniStack};
use crate::support::servers::openbao::{self, OpenBao};

/// How many secrets there are at most.
pub const MOST: usize = 100;

/// What the secret with this number is.
pub fn value(number: usize) -> String {
    format!("value-{number}-correct-horse-battery-staple")
}

/// What is not installed, and how to change that.
pub fn missing() -> Vec<String> {
    let wanted = [("openbao", "bao", "tests/run"), ("ministack", "python", "tests/run"), ("awscli", "aws", "benches/install")];
    let is_missing = |(server, command, _): &(&str, &str, _)| !crate::support::servers::path(server, command).exists();
    wanted.into_iter().filter(is_missing).map(|(server, _, script)| format!("{server} is missing: {script} installs it")).collect()
}

/// A server that was asked.
pub trait Asked {
    /// How many requests it has got so far.
    fn requests(&self) -> usize;

    fn pid(&self) -> i32;

    /// The CPU time that it has taken so far, in microseconds.
    fn cpu(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // One that has just ended has nothing to tell any more.
        let texts = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
        texts.filter_map(|text| text.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1e3
    }
}

/// OpenBao with KV version 2: a secret with the key `password` in each of a hundred paths, and one path with ten keys.
pub struct Bao {
    pub server: OpenBao,
    /// The static binary, which is the client too.
    pub client: PathBuf,
    /// It may read the secrets, and nothing else.
    pub token: String,
}

impl Bao {
    pub fn start() -> Self {
        let server = OpenBao::start();
        for number in 0..MOST {
            server.kv(&format!("bench/{number}"), &json!({"password": value(number)}));
        }
        server.kv("bench/keys", &(0..10).map(|number| (format!("key_{number}"), json!(value(number)))).collect());
        server.policy("bench", "path \"secret/data/bench/*\" { capabilities = [\"read\"] }");
        let token = server.token(&["bench"]);
        Self { server, client: openbao::binary(), token }
    }
}

impl Asked for Bao {
    fn requests(&self) -> usize {
        self.server.requests("").len()
    }

    fn pid(&self) -> i32 {
        self.server.pid()
    }
}

/// `MiniStack`, which checks signatures: a hundred secrets, and as many parameters.
pub struct Aws {
    pub server: MiniStack,
    pub keys: Keys,
    pub region: &'static str,
}

impl Aws {
    pub fn start() -> Self {
        let server = MiniStack::tls(true);
        for number in 0..MOST {
            server.create_secret(&format!("bench/{number}"), &value(number));
            server.put_parameter(&format!("/bench/{number}"), "SecureString", &value(number));
        }
        Self { server, keys: Keys::root(), region: ministack::REGION }
    }
}

impl Asked for Aws {
    /// It writes its log after it has answered, and in that order: what was asked before this one has a line when this one has.
    fn requests(&self) -> usize {
        const OURS: &str = "secretsmanager.ListSecrets";
        let requests = || self.server.requests().into_iter().partition::<Vec<_>, _>(|request| request == OURS);
        let before = requests().0.len();
        self.server.call(OURS, &json!({"MaxResults": 1}));
        eventually("MiniStack has a line for each request", || {
            let (ours, others) = requests();
            (ours.len() > before).then_some(others.len())
        })
    }

    fn pid(&self) -> i32 {
        self.server.pid()
    }
}
