//! From a way to log in to a session.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;
use vaultrs::api::auth::userpass::requests::LoginRequest as UserpassLogin;
use vaultrs::api::sys::requests::{UnwrapRequest, WrappingLookupRequest};

use super::super::http::Client;
use super::super::{Failure, FailureKind, read_file};
use super::api::{Api, CertificateLogin, Reply, Trouble};
use super::setup::{Login, Setup, Source, Token};
use crate::report::printable;
use crate::secret::Secret;
use crate::sys::clock::{self, Moment};

/// What logins gave.
#[derive(Default)]
pub struct Known {
    pub session: Option<Session>,
    /// What was unwrapped, which can be done once.
    pub unwrapped: Option<Unwrapped>,
}

/// A login, as it is now.
pub struct Session {
    pub token: Secret,
    pub end: End,
}

/// When a login ends.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum End {
    /// The server was not asked yet.
    Unknown,
    Never,
    At {
        moment: Moment,
        is_renewable: bool,
    },
}

impl End {
    /// So many seconds after a moment.
    pub fn after(asked: Moment, seconds: u64, is_renewable: bool) -> Self {
        Self::At { moment: asked.saturating_add(Duration::from_secs(seconds)), is_renewable }
    }
}

/// What a wrapping token held.
pub struct Unwrapped {
    /// The wrapping token.
    pub from: Secret,
    /// A token, or a secret id.
    pub content: Secret,
}

impl Unwrapped {
    fn is_from(&self, wrapping: &Secret) -> bool {
        self.from.expose() == wrapping.expose()
    }
}

/// Logs in. What comes wrapped is unwrapped once and kept; a rehearsal unwraps nothing.
///
/// # Errors
///
/// Of each kind; what is wrong is said of the login, since it is the same for every secret. When there was a session and no other can be had, that is one too.
pub async fn log_in(setup: &Setup, client: &Client, known: &mut Known, is_rehearsal: bool) -> Result<Session, Failure> {
    let api = Api::new(setup, client.clone(), &[])?;
    let asked = clock::now();
    let (mount, reply) = match &setup.login {
        Login::Token(token) => {
            let token = given(setup, client, token, known, is_rehearsal).await?;
            return Ok(Session { token, end: End::Unknown });
        }
        Login::Jwt { mount, role, file, is_kubernetes } => {
            let jwt = text(&read(file)?)?;
            let reply = match (is_kubernetes, role) {
                (true, Some(role)) => api.run(LoginWithKubernetesRequest { mount: mount.clone(), role: role.clone(), jwt }, None).await,
                _ => api.run(JWTLoginRequest { mount: mount.clone(), jwt, role: role.clone() }, None).await,
            };
            (mount, reply)
        }
        Login::AppRole { mount, role_id, secret_id, creation_path } => {
            let secret_id = match (creation_path, source(secret_id), &known.unwrapped) {
                (None, secret_id, _) => text(&secret_id?)?,
                // The file may be gone by now, or hold another.
                (Some(_), Err(_), Some(unwrapped)) => text(&unwrapped.content)?,
                (Some(_), Ok(wrapping), Some(unwrapped)) if unwrapped.is_from(&wrapping) => text(&unwrapped.content)?,
                (Some(creation_path), wrapping, _) => {
                    let wrapping = wrapping?;
                    let reply = unwrap(setup, client, &wrapping, creation_path, is_rehearsal).await?;
                    let inner: Option<SecretId> = reply.data.and_then(|data| serde_json::from_str(data.get()).ok());
                    let SecretId { secret_id } = inner.ok_or_else(not_wrapped)?;
                    known.unwrapped = Some(Unwrapped { from: wrapping, content: Secret::copy_of(secret_id.as_bytes()) });
                    secret_id
                }
            };
            (mount, api.run(LoginWithApproleRequest { mount: mount.clone(), role_id: role_id.clone(), secret_id }, None).await)
        }
        Login::Userpass { mount, username, password } => {
            let password = text(&source(password)?)?;
            (mount, api.run(UserpassLogin { mount: mount.clone(), username: username.clone(), password }, None).await)
        }
        Login::Certificate { mount, role } => (mount, api.run(CertificateLogin { mount: mount.clone(), name: role.clone() }, None).await),
    };
    let reply = reply.map_err(|trouble| refused(&setup.login, mount, &trouble))?;
    let auth =
        reply.auth.ok_or_else(|| refused(&setup.login, mount, &Trouble::Nonsense("there is no token in the answer to the login")))?;
    let end = if auth.lease_duration == 0 { End::Never } else { End::after(asked, auth.lease_duration, auth.renewable) };
    Ok(Session { token: Secret::new(auth.client_token.into_bytes()), end })
}

/// A token that somebody else logged in for, and another than before: those that are in files are renewed there.
async fn given(setup: &Setup, client: &Client, token: &Token, known: &mut Known, is_rehearsal: bool) -> Result<Secret, Failure> {
    let nowhere = || {
        Failure::new(FailureKind::Misconfigured, "there is no login").hint(
            "set VAULT_TOKEN_FILE, or VAULT_ROLE in Kubernetes, or VAULT_ROLE_ID and VAULT_SECRET_ID_FILE, or auth: in the configuration",
        )
    };
    let has_one = known.session.is_some();
    let is_same = |token: &Secret| known.session.as_ref().is_some_and(|session| session.token.expose() == token.expose());
    let another = |path: &str, token: Secret| if is_same(&token) { Err(unchanged(path)) } else { Ok(token) };
    match token {
        Token::Value(_) if has_one => {
            let cause = "the token that was given is all that there is: nothing gives another";
            Err(Failure::new(FailureKind::Denied, cause)
                .hint("let it log in by a role, or give it a periodic token, or a file in which somebody renews the token"))
        }
        Token::Value(token) => Ok(Secret::copy_of(token.expose())),
        Token::File { path, creation_path: None } => another(path, read(path)?),
        Token::File { path, creation_path: Some(creation_path) } => {
            let wrapping = read(path)?;
            match &known.unwrapped {
                Some(unwrapped) if unwrapped.is_from(&wrapping) && has_one => return Err(unchanged(path)),
                Some(unwrapped) if unwrapped.is_from(&wrapping) => return Ok(Secret::copy_of(unwrapped.content.expose())),
                _ => {}
            }
            let reply = unwrap(setup, client, &wrapping, creation_path, is_rehearsal).await?;
            let token = Secret::new(reply.auth.ok_or_else(not_wrapped)?.client_token.into_bytes());
            known.unwrapped = Some(Unwrapped { from: wrapping, content: Secret::copy_of(token.expose()) });
            Ok(token)
        }
        Token::OfCommandLine(path) => {
            let path = path.as_ref().filter(|path| Path::new(path).exists()).ok_or_else(nowhere)?;
            another(path, read(path)?)
        }
    }
}

/// A file in which a token is renewed was not written yet.
fn unchanged(path: &str) -> Failure {
    let cause = format!("{} has no other token than before", printable(path.as_bytes()));
    Failure::new(FailureKind::Unavailable { retry_after: None }, cause).hint("does somebody renew the token in it?")
}

/// Unwraps what a wrapping token holds, if it was wrapped by what it should: somebody who took the token may have put another in its place.
async fn unwrap(setup: &Setup, client: &Client, token: &Secret, creation_path: &str, is_rehearsal: bool) -> Result<Reply, Failure> {
    const STOLEN: &str =
        "if nobody should have used it before, someone may have taken it: see the server's audit log, and have a new one made";
    let used = |trouble: &Trouble| match trouble {
        Trouble::Refused { status: 400 } | Trouble::Denied { .. } => {
            Failure::new(FailureKind::Denied, "the wrapping token is not valid: it was used, or its time is over").hint(STOLEN)
        }
        trouble => trouble.failure(),
    };
    let wrapping = text(token)?;
    let lookup = Api::new(setup, client.clone(), &[])?
        .run(WrappingLookupRequest { token: wrapping.clone() }, None)
        .await
        .map_err(|trouble| used(&trouble))?;
    let found: Option<Wrapping> = lookup.data.and_then(|data| serde_json::from_str(data.get()).ok());
    let found = found.ok_or_else(not_wrapped)?;
    if found.creation_path.trim_matches('/') != creation_path.trim_matches('/') {
        // By which, only the server's word says, and that is not printed.
        let cause = "the wrapping token was made by another path than the creation_path";
        return Err(Failure::new(FailureKind::Denied, cause).hint(STOLEN));
    }
    if is_rehearsal {
        return Err(Failure::new(FailureKind::Untried, "the wrapping token is good, and is left for the start, which can use it once"));
    }
    Api::new(setup, client.clone(), token.expose())?.run(UnwrapRequest { token: None }, None).await.map_err(|trouble| used(&trouble))
}

fn not_wrapped() -> Failure {
    Failure::new(FailureKind::Protocol, "what was wrapped is not what the login needs")
        .hint("wrap a token for method token, and a secret id for approle")
}

#[derive(Deserialize)]
struct Wrapping {
    creation_path: String,
}

#[derive(Deserialize)]
struct SecretId {
    secret_id: String,
}

fn source(source: &Source) -> Result<Secret, Failure> {
    match source {
        Source::Value(value) => Ok(Secret::copy_of(value.expose())),
        Source::File(path) => read(path),
    }
}

/// What a file holds, without the white space around it.
fn read(path: &str) -> Result<Secret, Failure> {
    let (secret, _) = read_file(Path::new(path)).map_err(|failure| {
        let kind = if failure.kind == FailureKind::NotFound { FailureKind::Misconfigured } else { failure.kind };
        let hint = failure.hint.unwrap_or_else(|| "is it mounted, and is this its name?".to_owned());
        Failure::new(kind, format!("the login needs {}: {}", printable(path.as_bytes()), failure.cause)).hint(hint)
    })?;
    let text = secret.expose().trim_ascii();
    if text.is_empty() {
        let cause = format!("the login needs {}: it is empty", printable(path.as_bytes()));
        return Err(Failure::new(FailureKind::Misconfigured, cause).hint("is it written before the container starts?"));
    }
    Ok(Secret::copy_of(text))
}

fn text(secret: &Secret) -> Result<String, Failure> {
    std::str::from_utf8(secret.expose())
        .map(str::to_owned)
        .map_err(|_| Failure::new(FailureKind::Invalid, "the login is no text").hint("is it in the right file?"))
}

/// What is wrong with a login.
fn refused(login: &Login, mount: &str, trouble: &Trouble) -> Failure {
    let (method, hint) = match login {
        Login::Token(_) => ("token", ""),
        Login::Jwt { is_kubernetes: true, .. } => {
            ("kubernetes", "the role must be bound to the pod's service account and namespace, and the server must reach the cluster's API")
        }
        Login::Jwt { .. } => ("jwt", "the role's bound audience, subject and claims must match the token's"),
        Login::AppRole { .. } => ("approle", "check the role id; a secret id may have been used up, or its time be over"),
        Login::Userpass { .. } => ("userpass", "check the user's name and password"),
        Login::Certificate { .. } => ("cert", "the certificate must come from the authority of a role, and the role allow its names"),
    };
    let at = printable(mount.as_bytes());
    match trouble {
        Trouble::Denied { status, .. } | Trouble::Refused { status } => {
            // A server does not tell strangers what is mounted: then too it says 403.
            let mount = if *status == 403 {
                "; or nothing is mounted there: VAULT_PATH, or auth.mount in the configuration, names the mount"
            } else {
                ""
            };
            Failure::new(FailureKind::Denied, format!("the login by {method} at auth/{at} is refused ({status})"))
                .hint(format!("{hint}{mount}"))
        }
        Trouble::NoRole => {
            Failure::new(FailureKind::Denied, format!("the login by {method} at auth/{at} is refused: it has no such role")).hint(hint)
        }
        Trouble::NoEngine | Trouble::Absent => {
            Failure::new(FailureKind::Misconfigured, format!("nothing to log in is mounted at auth/{at}"))
                .hint("name the mount: VAULT_PATH, or auth.mount in the configuration; is the namespace right?")
        }
        trouble => trouble.failure(),
    }
}
