//! Who is compared: secret-init, curl, the clients of the stores, and the agent of OpenBao.

use std::fs;
use std::path::{Path, PathBuf};

use crate::measure::{Command, Run, copied};
use crate::servers::{Asked, Aws, Bao, value};
use crate::support::World;
use crate::support::servers::path as installed;

/// How many secrets are fetched.
pub const COUNTS: [usize; 3] = [1, 10, crate::servers::MOST];

/// The row that all others are compared with.
pub const OURS: &str = "secret-init";
pub const EXEC: &str = "secret-init --exec";
pub const TEN_KEYS: &str = "secret-init, ten keys of one path";
pub const CURL: &str = "curl";
pub const AGENT: &str = "bao agent, with a template";
pub const BOTO3: &str = "boto3, in a loop";

/// The build without stores, which is for the bench of starts alone when `cargo bench` runs both.
const FILES_ONLY: &str = "files-only";

/// Builds of secret-init: first the one that was just built, then those of the arguments.
pub struct Builds {
    pub all: Vec<Build>,
    /// Where their copies are.
    folder: PathBuf,
}

pub struct Build {
    /// What stands behind its name in the tables.
    label: String,
    path: String,
}

impl Builds {
    pub fn new(arguments: &[String]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let ours = Build { label: String::new(), path: copied(env!("CARGO_BIN_EXE_secret-init"), &folder.join("secret-init")) };
        let others = arguments
            .iter()
            .map(|argument| argument.split_once('=').expect("further arguments are LABEL=PATH, each a build of secret-init"));
        let others = others
            .filter(|(label, _)| *label != FILES_ONLY)
            .map(|(label, path)| Build { label: format!(" ({label})"), path: copied(path, &folder.join(label)) });
        Self { all: std::iter::once(ours).chain(others).collect(), folder }
    }
}

impl Drop for Builds {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Build {
    pub fn command(&self, flags: &[&str], environment: &[String]) -> Command {
        Command::new([&[self.path.as_str()], flags, &["--"]].concat(), environment)
    }

    fn candidate(&self, who: &str, count: usize, environment: &[String]) -> Candidate {
        let flags: &[&str] = if who == EXEC { &["--exec"] } else { &[] };
        let command = self.command(flags, environment);
        let shows = Some(command.running(["/usr/bin/env"]));
        Candidate { shows, ..Candidate::new(&format!("{who}{}", self.label), count, command.running(["/bin/true"])) }
    }
}

/// Somebody who fetches so many secrets from a server.
pub struct Candidate {
    pub who: String,
    pub count: usize,
    pub command: Command,
    /// What prints the secrets, if the command itself does not.
    shows: Option<Command>,
    /// Where they are afterwards, if they are not printed.
    file: Option<PathBuf>,
    /// How many requests arrived at the server.
    pub requests: usize,
    pub runs: Vec<Run>,
    /// The CPU time of the server meanwhile, in microseconds.
    pub server_cpu: Vec<f64>,
}

impl Candidate {
    fn new(who: &str, count: usize, command: Command) -> Self {
        Self { who: who.to_owned(), count, command, shows: None, file: None, requests: 0, runs: Vec::new(), server_cpu: Vec::new() }
    }

    /// Runs it once. Who does not fetch every secret is no contender.
    pub fn rehearse(&mut self, server: &dyn Asked) -> Run {
        let before = server.requests();
        let (mut out, into) = std::io::pipe().unwrap();
        let run = self.shows.as_ref().unwrap_or(&self.command).run(std::os::fd::AsFd::as_fd(&into));
        drop(into);
        self.requests = server.requests() - before;
        let mut shown = std::io::read_to_string(&mut out).unwrap();
        if let Some(file) = &self.file {
            shown = fs::read_to_string(file).unwrap();
        }
        for number in 0..self.count {
            assert!(shown.contains(&value(number)), "{}: not every secret of {} is in\n{shown}", self.who, self.count);
        }
        run
    }
}

/// Who asks one server.
pub struct Field<'a> {
    pub title: &'static str,
    pub short: &'static str,
    pub server: &'a dyn Asked,
    pub candidates: Vec<Candidate>,
}

/// The scripts and configurations of the others.
pub struct Clients {
    folder: PathBuf,
    boto3: String,
}

/// What programs with boto3 do at their start.
const PYTHON: &str = "\
import sys, boto3
client = boto3.client('secretsmanager')
for number in range(int(sys.argv[1])):
    print(client.get_secret_value(SecretId=f'bench/{number}')['SecretString'])
";

/// The entrypoint that many images have: a client for each secret. The words after it are the number of secrets and the client.
const BAO_LOOP: &str = "\
count=$1 bao=$2 number=0
while [ $number -lt $count ]; do
    \"$bao\" kv get -field=password secret/bench/$number || exit 1
    number=$((number + 1))
done
";
const AWS_LOOP: &str = "\
count=$1 aws=$2 number=0
while [ $number -lt $count ]; do
    \"$aws\" secretsmanager get-secret-value --secret-id bench/$number --query SecretString --output text || exit 1
    number=$((number + 1))
done
";

impl Clients {
    pub fn write(world: &World) -> Self {
        Self { folder: world.path.clone(), boto3: world.file("fetch.py", PYTHON).to_str().unwrap().to_owned() }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn looped(script: &str, count: usize, client: &Path, environment: &[String]) -> Command {
    Command::new(["/bin/sh", "-c", script, "sh", &count.to_string(), client.to_str().unwrap()], environment)
}

/// The variables `SECRET_n` with what the function says, beside the others.
fn variables(count: usize, others: &[String], reference: impl Fn(usize) -> String) -> Vec<String> {
    others.iter().cloned().chain((0..count).map(|number| format!("SECRET_{number}={}", reference(number)))).collect()
}

impl Bao {
    pub fn field(&self, builds: &[Build], clients: &Clients) -> Field<'_> {
        let mut candidates = Vec::new();
        for build in builds {
            for count in COUNTS {
                candidates.extend([OURS, EXEC].map(|who| build.candidate(who, count, &self.references(count))));
            }
            let keys = variables(10, &self.login(), |number| format!("vault:secret/data/bench/keys#key_{number}"));
            candidates.push(build.candidate(TEN_KEYS, 10, &keys));
        }
        let home = [self.login(), vec![format!("HOME={}", clients.folder.display())]].concat();
        for count in COUNTS {
            candidates.push(Candidate::new(CURL, count, self.curl(count, &[])));
            candidates.push(Candidate::new(
                "curl --parallel-max 16",
                count,
                self.curl(count, &["--no-progress-meter", "--parallel", "--parallel-max", "16"]),
            ));
            candidates.push(Candidate::new("bao kv get, in a loop", count, looped(BAO_LOOP, count, &self.client, &home)));
            candidates.push(self.agent(count, clients, &home));
        }
        Field { title: "OpenBao over TLS", short: "OpenBao", server: self, candidates }
    }

    fn login(&self) -> Vec<String> {
        let Self { server, token, .. } = self;
        vec![format!("VAULT_ADDR={}", server.address), format!("VAULT_CACERT={}", server.ca.display()), format!("VAULT_TOKEN={token}")]
    }

    /// The environment of a start with so many secrets.
    pub fn references(&self, count: usize) -> Vec<String> {
        variables(count, &self.login(), |number| format!("vault:secret/data/bench/{number}#password"))
    }

    /// It asks for all in one process and over one connection.
    fn curl(&self, count: usize, flags: &[&str]) -> Command {
        let (ca, token) = (self.server.ca.to_str().unwrap(), format!("X-Vault-Token: {}", self.token));
        let url = format!("{}/v1/secret/data/bench/[0-{}]", self.server.address, count - 1);
        Command::new([&["/usr/bin/curl", "--silent", "--cacert", ca, "--header", &token], flags, &[url.as_str()]].concat(), &[])
    }

    /// It logs in with a token, renders one template with all secrets, and ends.
    fn agent(&self, count: usize, clients: &Clients, environment: &[String]) -> Candidate {
        let line =
            |number: usize| format!("{{{{ with secret \"secret/data/bench/{number}\" }}}}{{{{ .Data.data.password }}}}{{{{ end }}}}\n");
        let template = clients.file(&format!("{count}.ctmpl"), &(0..count).map(line).collect::<String>());
        let token = clients.file("token", &self.token);
        let rendered = clients.folder.join(format!("rendered-{count}"));
        let (address, ca) = (&self.server.address, self.server.ca.display());
        let text = format!(
            "exit_after_auth = true\nvault {{ address = \"{address}\" ca_cert = \"{ca}\" }}\n\
            auto_auth {{ method \"token_file\" {{ config = {{ token_file_path = \"{token}\" }} }} }}\n\
            template {{ source = \"{template}\" destination = \"{}\" }}\n",
            rendered.display()
        );
        let config = format!("-config={}", clients.file(&format!("agent-{count}.hcl"), &text));
        // It takes a token of the environment for its own, and would ask for another with it.
        let environment: Vec<String> = environment.iter().filter(|variable| !variable.starts_with("VAULT_")).cloned().collect();
        let command = Command::new([self.client.to_str().unwrap(), "agent", &config, "-log-level=error"], &environment);
        Candidate { file: Some(rendered), ..Candidate::new(AGENT, count, command) }
    }
}

impl Aws {
    pub fn field(&self, builds: &[Build], clients: &Clients) -> Field<'_> {
        let login = self.login();
        let mut candidates = Vec::new();
        for build in builds {
            for count in COUNTS {
                let secrets = variables(count, &login, |number| format!("aws-sm:bench/{number}"));
                candidates.extend([OURS, EXEC].map(|who| build.candidate(who, count, &secrets)));
                let parameters = variables(count, &login, |number| format!("aws-ssm:/bench/{number}"));
                candidates.push(build.candidate("secret-init, Parameter Store", count, &parameters));
            }
        }
        candidates.push(Candidate::new(CURL, 1, self.curl()));
        let home = [login, vec![format!("HOME={}", clients.folder.display())]].concat();
        for count in COUNTS {
            candidates.push(Candidate::new("aws, in a loop", count, looped(AWS_LOOP, count, &installed("awscli", "aws"), &home)));
            let python = installed("awscli", "python");
            let command = Command::new([python.to_str().unwrap(), &clients.boto3, &count.to_string()], &home);
            candidates.push(Candidate::new(BOTO3, count, command));
        }
        Field { title: "AWS (MiniStack) over TLS", short: "AWS", server: self, candidates }
    }

    fn ca(&self) -> &str {
        self.server.ca.as_ref().unwrap().to_str().unwrap()
    }

    fn login(&self) -> Vec<String> {
        let Self { server, keys, region } = self;
        let login = [
            ("AWS_ENDPOINT_URL", server.address.as_str()),
            ("AWS_CA_BUNDLE", self.ca()),
            ("AWS_REGION", region),
            ("AWS_DEFAULT_REGION", region),
            ("AWS_ACCESS_KEY_ID", &keys.id),
            ("AWS_SECRET_ACCESS_KEY", &keys.secret),
        ];
        login.map(|(name, value)| format!("{name}={value}")).to_vec()
    }

    fn curl(&self) -> Command {
        let (signature, user) = (format!("aws:amz:{}:secretsmanager", self.region), format!("{}:{}", self.keys.id, self.keys.secret));
        let headers = ["--header", "X-Amz-Target: secretsmanager.GetSecretValue", "--header", "Content-Type: application/x-amz-json-1.1"];
        let signed = ["--aws-sigv4", &signature, "--user", &user, "--data", r#"{"SecretId":"bench/0"}"#];
        let words = [&["/usr/bin/curl", "--silent", "--cacert", self.ca()][..], &headers, &signed, &[&self.server.address]].concat();
        Command::new(words, &[])
    }
}
