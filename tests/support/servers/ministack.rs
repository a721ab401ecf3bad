//! MiniStack, an emulator of AWS: Secrets Manager, Parameter Store, STS, IAM, KMS, and the two sources of credentials on a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{Folder, Server, curl, folder, installed, on_a_free_port, tls};
use crate::support::{Start, eventually};

pub const REGION: &str = "us-east-1";

/// Who gives web identities, `https://` before it. Their signature is not checked.
pub const ISSUER: &str = "oidc.test";

/// Credentials of a user.
#[derive(Clone, Debug)]
pub struct Keys {
    pub id: String,
    pub secret: String,
}

impl Keys {
    /// The root user of every MiniStack.
    pub fn root() -> Self {
        Self { id: "test".to_owned(), secret: "test".to_owned() }
    }
}

/// A MiniStack of its own.
pub struct MiniStack {
    /// `http://127.0.0.1:PORT`, or `https://`.
    pub address: String,
    /// Who has signed its certificate, over TLS.
    pub ca: Option<PathBuf>,
    server: Server,
    folder: Folder,
    _authority: Option<tls::Authority>,
}

impl MiniStack {
    /// Over plain HTTP. With `auth` it checks signatures and policies, and has no credentials for a machine: [`MiniStack::imds`], [`MiniStack::ecs`] need one without.
    #[track_caller]
    pub fn start(auth: bool) -> Self {
        Self::of(auth, None)
    }

    /// Over TLS.
    #[track_caller]
    pub fn tls(auth: bool) -> Self {
        Self::of(auth, Some(tls::authority()))
    }

    #[track_caller]
    fn of(auth: bool, authority: Option<tls::Authority>) -> Self {
        let folder = folder();
        let certificate = authority.as_ref().map(tls::Authority::server);
        let (server, port) = on_a_free_port(|port| Ok((serve(&folder, port, auth, certificate.as_ref())?, port)));
        let scheme = if authority.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://127.0.0.1:{port}");
        let ca = authority.as_ref().map(|authority| authority.ca.clone());
        let stack = Self { address, ca, server, folder, _authority: authority };
        eventually("MiniStack answers", || (stack.plain_request(&[], "/_ministack/health").0 == 200).then_some(()));
        stack
    }

    /// Its process, to stop it in the sense of SIGSTOP.
    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    fn plain_request(&self, words: &[&str], path: &str) -> (u16, String) {
        curl(&[&self.trust(), words, &[format!("{}{path}", self.address).as_str()]].concat(), None)
    }

    fn trust(&self) -> Vec<&str> {
        self.ca.as_ref().map_or_else(Vec::new, |ca| vec!["--cacert", ca.to_str().unwrap()])
    }

    /// A signed call such as `secretsmanager.CreateSecret` or `AmazonSSM.PutParameter`, in this region.
    #[track_caller]
    pub fn call_as(&self, keys: &Keys, region: &str, action: &str, body: &Value) -> (u16, Value) {
        let service = if action.starts_with("AmazonSSM.") { "ssm" } else { "secretsmanager" };
        let (target, kind) = (format!("X-Amz-Target: {action}"), "Content-Type: application/x-amz-json-1.1");
        let (status, text) = self.signed(keys, service, region, &["--header", &target, "--header", kind], &body.to_string());
        (status, super::json(&text))
    }

    /// A call as root that is to succeed.
    #[track_caller]
    pub fn call(&self, action: &str, body: &Value) -> Value {
        let (status, answer) = self.call_as(&Keys::root(), REGION, action, body);
        assert_eq!(status, 200, "{action} {body}: {answer}");
        answer
    }

    #[track_caller]
    fn signed(&self, keys: &Keys, service: &str, region: &str, words: &[&str], body: &str) -> (u16, String) {
        let (how, user) = (format!("aws:amz:{region}:{service}"), format!("{}:{}", keys.id, keys.secret));
        let to = format!("{}/", self.address);
        curl(&[&self.trust(), words, &["--aws-sigv4", &how, "--user", &user, &to]].concat(), Some(body))
    }

    /// A secret with this text; gives its ARN.
    #[track_caller]
    pub fn create_secret(&self, name: &str, text: &str) -> String {
        let answer = self.call("secretsmanager.CreateSecret", &json!({"Name": name, "SecretString": text}));
        answer["ARN"].as_str().unwrap().to_owned()
    }

    /// A new version of a secret; gives its id.
    #[track_caller]
    pub fn put_secret(&self, name: &str, text: &str) -> String {
        let answer = self.call("secretsmanager.PutSecretValue", &json!({"SecretId": name, "SecretString": text}));
        answer["VersionId"].as_str().unwrap().to_owned()
    }

    /// A parameter of this type: `String`, `StringList` or `SecureString`. One that is there gets a new version.
    #[track_caller]
    pub fn put_parameter(&self, name: &str, kind: &str, text: &str) {
        self.call("AmazonSSM.PutParameter", &json!({"Name": name, "Type": kind, "Value": text, "Overwrite": true}));
    }

    /// A user who may do what this policy says.
    #[track_caller]
    pub fn user(&self, name: &str, policy: &Value) -> Keys {
        self.iam(&[("Action", "CreateUser"), ("UserName", name)]);
        let document = policy.to_string();
        self.iam(&[("Action", "PutUserPolicy"), ("UserName", name), ("PolicyName", "own"), ("PolicyDocument", &document)]);
        let answer = self.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]);
        Keys { id: element(&answer, "AccessKeyId"), secret: element(&answer, "SecretAccessKey") }
    }

    /// A role that anybody may take on, also by a web identity of [`ISSUER`], and that may do what this policy says; gives its ARN.
    #[track_caller]
    pub fn role(&self, name: &str, policy: &Value) -> String {
        let provider = format!("arn:aws:iam::000000000000:oidc-provider/{ISSUER}");
        let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*", "Federated": provider},
            "Action": ["sts:AssumeRole", "sts:AssumeRoleWithWebIdentity"]}]})
        .to_string();
        let answer = self.iam(&[("Action", "CreateRole"), ("RoleName", name), ("AssumeRolePolicyDocument", &trust)]);
        let document = policy.to_string();
        self.iam(&[("Action", "PutRolePolicy"), ("RoleName", name), ("PolicyName", "own"), ("PolicyDocument", &document)]);
        element(&answer, "Arn")
    }

    /// Credentials of a role for so many seconds, as STS calls their parts.
    #[track_caller]
    pub fn session(&self, role: &str, seconds: u64) -> Value {
        let form = format!("Version=2011-06-15&Action=AssumeRole&RoleSessionName=tests&DurationSeconds={seconds}&RoleArn={role}");
        let (status, answer) = self.signed(&Keys::root(), "sts", REGION, &[], &form);
        assert_eq!(status, 200, "{answer}");
        let part = |name: &str| element(&answer, name);
        json!({"AccessKeyId": part("AccessKeyId"), "SecretAccessKey": part("SecretAccessKey"), "SessionToken": part("SessionToken")})
    }

    #[track_caller]
    fn iam(&self, fields: &[(&str, &str)]) -> String {
        let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut form = vec!["Version=2010-05-08".to_owned()];
        form.extend(fields.iter().map(|(name, value)| format!("{name}={}", encode(value))));
        let (status, answer) = self.signed(&Keys::root(), "iam", REGION, &[], &form.join("&"));
        assert_eq!(status, 200, "{fields:?}: {answer}");
        answer
    }

    /// For `AWS_EC2_METADATA_SERVICE_ENDPOINT`: version 2 alone.
    pub fn imds(&self) -> String {
        format!("{}/", self.address)
    }

    /// For `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn ecs(&self) -> String {
        format!("{}/v2/credentials/tests", self.address)
    }

    /// What was asked for, as its access log has it: `secretsmanager.GetSecretValue`, or `PUT /latest/api/token` for what is no call of that kind. The rig's own
    /// requests are among them.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap();
        let lines = log.lines().filter_map(|line| line.split_once("REQUEST ")?.1.rsplit_once(' '));
        let asked = lines.map(|(request, action)| if action == "-" { request.to_owned() } else { action.to_owned() });
        asked.filter(|request| !request.contains("/_ministack/")).collect()
    }

    /// A start that knows where it is, whom to trust and who it is itself.
    #[must_use]
    pub fn told(&self, start: Start, keys: &Keys) -> Start {
        let start = start.variable("AWS_ENDPOINT_URL", &self.address).variable("AWS_REGION", REGION);
        let start = start.variable("AWS_ACCESS_KEY_ID", &keys.id).variable("AWS_SECRET_ACCESS_KEY", &keys.secret);
        match &self.ca {
            Some(ca) => start.variable("AWS_CA_BUNDLE", ca),
            None => start,
        }
    }
}

fn serve(folder: &Path, port: u16, auth: bool, certificate: Option<&tls::Certificate>) -> Result<Server, String> {
    // Its own command would listen on port 443 as well when it has a certificate, and has no log of requests.
    let mut command = Command::new(installed("ministack", "python"));
    command.args(["-m", "hypercorn", "ministack.app:app", "--workers", "0", "--bind", &format!("127.0.0.1:{port}")]);
    command.args(["--access-logfile", "access.log", "--access-logformat", "REQUEST %(m)s %(U)s %({x-amz-target}i)s"]);
    if let Some(tls::Certificate { certificate, key }) = certificate {
        command.arg("--certfile").arg(certificate).arg("--keyfile").arg(key);
    }
    command.env("GATEWAY_PORT", port.to_string()).env("AUTH", auth.to_string()).env("MINISTACK_IMDS_V2_REQUIRED", "1");
    command.env("SERVICES", "secretsmanager,ssm,sts,iam,kms,imds,ecs").env("PYTHONUNBUFFERED", "1");
    // It would open a port to the whole world, and look after containers that are not its own.
    command.env("IOT_MTLS_ENABLED", "0").env("DOCKER_HOST", "unix:///nonexistent");
    Server::start(folder, &mut command, "Running on http")
}

fn element(xml: &str, name: &str) -> String {
    let found = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
    found.unwrap_or_else(|| panic!("no {name} in {xml}")).0.to_owned()
}
