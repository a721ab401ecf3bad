//! The API of Vault and `OpenBao`, by vaultrs and its client rustify, over our own HTTP.
//!
//! vaultrs' own transport reads bodies of any size, drops headers such as Retry-After, and puts whole answers into its errors; rustify lets another stand in its
//! place. vaultrs lacks a read of any path, leases, and the version of what it read, and a few of its requests cannot work (0.8.0: the name of a certificate's role,
//! the path of `revoke-self`): those are written here as it writes its own.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use http::{HeaderValue, Request, Response, Uri};
use rustify::client::Client as Transport;
use rustify::endpoint::{Endpoint, MiddleWare, Wrapper};
use rustify::errors::ClientError;
use rustify_derive::Endpoint;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::http::{Client, retry_after};
use super::super::{Failure, FailureKind};
use super::setup::Setup;

/// `GET v1/PATH`, whatever engine is there.
#[derive(Debug, Endpoint)]
#[endpoint(path = "{self.path}", response = "Box<RawValue>")]
pub struct Read {
    #[endpoint(skip)]
    pub path: String,
    #[endpoint(query)]
    pub version: Option<String>,
}

/// `POST v1/auth/MOUNT/login` for a client's certificate.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST", response = "Box<RawValue>")]
pub struct CertificateLogin {
    #[endpoint(skip)]
    pub mount: String,
    /// The role; without it the server tries each.
    pub name: Option<String>,
}

/// What there is to know of our token.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/lookup-self", response = "Box<RawValue>")]
pub struct LookupSelf {}

/// Makes our token last longer, by what the server has for it.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/renew-self", method = "POST", response = "Box<RawValue>")]
pub struct RenewSelf {}

/// Ends our token, and all leases that came with it.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/revoke-self", method = "POST", response = "Box<RawValue>")]
pub struct RevokeSelf {}

/// Makes a lease last longer.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/leases/renew", method = "POST", response = "Box<RawValue>")]
pub struct RenewLease {
    pub lease_id: String,
    /// How long from now on, in seconds.
    pub increment: u64,
}

/// Ends a lease.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/leases/revoke", method = "POST", response = "Box<RawValue>")]
pub struct RevokeLease {
    pub lease_id: String,
}

/// What surrounds every answer. vaultrs' own demands lists that servers leave null.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Reply {
    pub data: Option<Box<RawValue>>,
    pub auth: Option<Auth>,
    pub lease_id: String,
    /// In seconds.
    pub lease_duration: u64,
    pub renewable: bool,
}

/// What a login gives.
#[derive(Deserialize)]
pub struct Auth {
    pub client_token: String,
    /// In seconds; 0 for a token without an end.
    #[serde(default)]
    pub lease_duration: u64,
    #[serde(default)]
    pub renewable: bool,
}

/// Why there is no answer, as far as it shows in the answer. The words of the server are read and never kept: they may quote what was sent.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// 401 or 403, and why.
    Denied { status: u16, why: Denial },
    /// 404 with a body that tells of it.
    Deleted { destroyed: bool },
    /// 404: version 2 of KV, asked as if it were version 1.
    NeedsData,
    /// 404: nothing is mounted at the path.
    NoEngine,
    /// 400: an engine without such a role.
    NoRole,
    /// 404.
    Absent,
    /// Another status that will not change.
    Refused { status: u16 },
    /// 200, and not what it should be.
    Nonsense(&'static str),
    /// Said in words already.
    Other(Failure),
}

/// Why a server refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It says that it does not know the token.
    Token,
    /// The policies of the token do not allow it.
    Policy,
    /// It does not say. `OpenBao` says nothing of a token that it does not know.
    Unsaid,
}

impl Trouble {
    /// What there is to say of it without knowing what was asked for.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Denied { status, .. } => Failure::new(FailureKind::Denied, format!("permission denied ({status})")),
            Self::Deleted { .. } | Self::NeedsData | Self::NoEngine | Self::NoRole | Self::Absent => {
                Failure::new(FailureKind::NotFound, "not there (404)")
            }
            Self::Refused { status } => {
                Failure::new(FailureKind::Protocol, format!("the request is refused ({status})")).hint("check the path and the options")
            }
            Self::Nonsense(why) => Failure::new(FailureKind::Protocol, format!("the answer is not Vault's: {why}"))
                .hint("does the address lead to Vault or OpenBao, or to something before it?"),
            Self::Other(failure) => failure.clone(),
        }
    }

    /// Reads a status other than success.
    fn of(response: &Response<Vec<u8>>) -> Self {
        let says = |text: &str| contains(response.body(), text);
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").and_then(|header| retry_after(header.as_bytes()));
        let unavailable = |cause: String| Failure::new(FailureKind::Unavailable { retry_after }, cause);
        match status {
            300..=399 => Self::Other(
                Failure::new(FailureKind::Protocol, format!("the server redirects ({status}), and a token is not sent elsewhere"))
                    .hint("name the active server or its load balancer; a standby redirects when it does not forward requests"),
            ),
            400 if says("HTTP request to an HTTPS server") => Self::Other(
                Failure::new(FailureKind::Protocol, "the server listens for https, and was asked by http")
                    .hint("write the address with https://"),
            ),
            400 if says("missing client token") => Self::Denied { status, why: Denial::Token },
            401 | 403 if says("invalid token") || says("bad token") || says("missing client token") => {
                Self::Denied { status, why: Denial::Token }
            }
            // A policy is asked after the token was found, and its refusal comes in a list of errors.
            401 | 403 if says("1 error occurred") => Self::Denied { status, why: Denial::Policy },
            401 | 403 => Self::Denied { status, why: Denial::Unsaid },
            404 if says("versioned K/V") => Self::NeedsData,
            404 if says("no handler for route") => Self::NoEngine,
            404 => match serde_json::from_slice(response.body()) {
                Ok(Gone { data: GoneData { metadata: GoneMetadata { destroyed, .. } } }) => Self::Deleted { destroyed },
                Err(_) => Self::Absent,
            },
            400 if says("unknown role") => Self::NoRole,
            400 if says("failed to renew entry") && !says("past the max TTL") => Self::Other(
                unavailable("the engine cannot renew the lease now (400)".into())
                    .hint("what it makes users in may be away, or the role or the user be gone: see the server's log"),
            ),
            412 => Self::Other(
                unavailable("the server has not seen the latest state yet (412)".into()).hint("is it cut off from the active one?"),
            ),
            429 => Self::Other(unavailable("too many requests (429)".into()).hint("a rate limit quota of the server is used up")),
            472 | 473 => Self::Other(
                unavailable(format!("a standby that does not answer ({status})")).hint("name the active server or its load balancer"),
            ),
            500.. if says("is sealed") => {
                Self::Other(unavailable(format!("sealed ({status})")).hint("unseal it; one that is new has to be initialised first"))
            }
            500.. if says("not initialized") => {
                Self::Other(unavailable(format!("not initialised ({status})")).hint("initialise and unseal it"))
            }
            500.. if says("local node not active") => {
                Self::Other(unavailable(format!("a standby, and no server is active ({status})")).hint("is the active one unsealed?"))
            }
            500.. => Self::Other(unavailable(format!("the server fails ({status})")).hint("see its log")),
            _ => Self::Refused { status },
        }
    }
}

/// The body that comes with 404 for a version that was deleted.
#[derive(Deserialize)]
struct Gone {
    data: GoneData,
}

#[derive(Deserialize)]
struct GoneData {
    metadata: GoneMetadata,
}

#[derive(Deserialize)]
struct GoneMetadata {
    destroyed: bool,
    #[serde(rename = "deletion_time")]
    _deletion_time: String,
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

impl<T: serde::de::DeserializeOwned> Wrapper for Envelope<T> {
    type Value = T;
}

/// [`Reply`], as rustify has it: with the type of the endpoint that it answers.
#[derive(Deserialize)]
#[serde(from = "Reply")]
struct Envelope<T>(Reply, std::marker::PhantomData<fn() -> T>);

impl<T> From<Reply> for Envelope<T> {
    fn from(reply: Reply) -> Self {
        Self(reply, std::marker::PhantomData)
    }
}

/// A server, and who we are to it.
pub struct Api {
    transport: Http,
    token: HeaderValue,
    namespace: Option<HeaderValue>,
}

impl Api {
    /// The API of a store, with a token; without one it is empty.
    ///
    /// # Errors
    ///
    /// When the token or the namespace cannot be sent.
    pub fn new(setup: &Setup, client: Client, token: &[u8]) -> Result<Self, Failure> {
        let mut token = HeaderValue::from_bytes(token).map_err(|_| {
            Failure::new(FailureKind::Invalid, "the token has characters that no token has")
                .hint("is it in the right file, and on one line?")
        })?;
        token.set_sensitive(true);
        let namespace = setup.namespace.as_deref().map(namespace_header).transpose()?;
        Ok(Self { transport: Http { client, base: setup.address.clone() }, token, namespace })
    }

    /// Sends a request.
    ///
    /// # Errors
    ///
    /// What there is instead of an answer.
    pub async fn run<E: Endpoint>(&self, endpoint: E, namespace: Option<&str>) -> Result<Reply, Trouble> {
        let own = namespace.map(namespace_header).transpose().map_err(Trouble::Other)?;
        let headers = Headers { token: &self.token, namespace: own.as_ref().or(self.namespace.as_ref()) };
        let result = endpoint.with_middleware(&headers).exec(&self.transport).await.map_err(trouble)?;
        if result.response.body().is_empty() {
            return Ok(Reply::default());
        }
        // A list would be read as the fields of an object, one after the other.
        if !result.response.body().trim_ascii_start().starts_with(b"{") {
            return Err(Trouble::Nonsense("it is not the JSON that it should be"));
        }
        let Envelope(reply, _) =
            result.wrap::<Envelope<E::Response>>().map_err(|_| Trouble::Nonsense("it is not the JSON that it should be"))?;
        Ok(reply)
    }
}

fn namespace_header(namespace: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(namespace).map_err(|_| Failure::new(FailureKind::Misconfigured, "the namespace has characters that none has"))
}

fn trouble(error: ClientError) -> Trouble {
    match error {
        ClientError::GenericError { source } => match source.downcast::<Stopped>() {
            Ok(Stopped(trouble)) => trouble,
            Err(_) => Trouble::Nonsense("it cannot be read"),
        },
        _ => Trouble::Other(Failure::new(FailureKind::Misconfigured, "the request cannot be made").hint("check the address and the path")),
    }
}

/// Puts what every request has into its headers, and the version of the API before its path. vaultrs' own panics on a token that no header can hold, and takes the
/// path of an address (`https://HOST/vault`) for that of the request.
struct Headers<'a> {
    token: &'a HeaderValue,
    namespace: Option<&'a HeaderValue>,
}

impl MiddleWare for Headers<'_> {
    fn request<E: Endpoint>(&self, _: &E, request: &mut Request<Vec<u8>>) -> Result<(), ClientError> {
        let headers = request.headers_mut();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if !self.token.is_empty() {
            headers.insert("x-vault-token", self.token.clone());
        }
        if let Some(namespace) = self.namespace {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        Ok(())
    }

    fn response<E: Endpoint>(&self, _: &E, _: &mut Response<Vec<u8>>) -> Result<(), ClientError> {
        Ok(())
    }
}

struct Http {
    client: Client,
    /// The address of the API: with `/v1` at its end.
    base: String,
}

#[async_trait]
impl Transport for Http {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let response = self.client.send(plain(request)).await.map_err(|failure| stopped(Trouble::Other(failure)))?;
        if response.status().is_success() { Ok(response) } else { Err(stopped(Trouble::of(&response))) }
    }

    fn base(&self) -> &str {
        &self.base
    }
}

/// The paths of vaultrs begin with a slash, which rustify puts after one of its own; and it puts `?` before a query that is empty.
fn plain(mut request: Request<Vec<u8>>) -> Request<Vec<u8>> {
    let text = request.uri().to_string();
    let text = text.strip_suffix('?').unwrap_or(&text);
    let text = text.split_once("/v1//").map_or_else(|| text.to_owned(), |(before, after)| format!("{before}/v1/{after}"));
    if let Ok(uri) = Uri::from_str(&text) {
        *request.uri_mut() = uri;
    }
    request
}

/// What rustify passes through as the source of an error.
#[derive(Debug)]
struct Stopped(Trouble);

fn stopped(trouble: Trouble) -> ClientError {
    ClientError::GenericError { source: Stopped(trouble).into() }
}

impl fmt::Display for Stopped {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no answer")
    }
}

impl Error for Stopped {}
