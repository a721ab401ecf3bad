//! HTTP as remote stores need it: TLS by rustls, deadlines, bounded bodies, no redirects, no proxy to what is near, and errors in words that hold nothing of
//! what was sent or answered.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{NoProxy, Proxy, Url, redirect, retry};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, RootCertStore};

use super::{Failure, FailureKind, Settings, Traffic};
use crate::report::printable;
use crate::secret::Secret;
use crate::sys;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a request may take, from the connection to the last byte of the answer.
const WHOLE: Duration = Duration::from_secs(10);
/// The largest body of an answer, in bytes.
const LARGEST: usize = 8 << 20;

/// What is special about the servers of a store.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    /// A file with the certificates of their authorities, in place of the system's, and what names it: `VAULT_CACERT`.
    pub authorities: Option<(String, String)>,
    /// Files with a certificate and its key that we show them.
    pub identity: Option<(String, String)>,
    /// The proxy to them, in place of the environment's.
    pub proxy: Option<String>,
}

/// A client. It keeps connections open as long as it lives.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    allows_http: bool,
    /// The host and port of the proxy, for messages.
    proxy: Option<String>,
    traffic: Traffic,
}

impl Client {
    /// A client for the servers of a store.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Misconfigured`] when a file with certificates or a key cannot be used.
    pub fn new(servers: &Servers, settings: &Settings) -> Result<Self, Failure> {
        sys::names::settle();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("secret-init/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .tcp_nodelay(true)
            .dns_resolver(Arc::new(Names))
            .no_proxy()
            .tls_backend_preconfigured(tls(servers, settings)?);
        let (proxy, name) = proxy(servers, settings)?.unzip();
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|_| Failure::new(FailureKind::Misconfigured, "no HTTP client can be made"))?;
        Ok(Self { inner: client, allows_http: settings.allow_http, proxy: name, traffic: settings.traffic.clone() })
    }

    /// Sends a request, once, and takes the whole answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`FailureKind::Unavailable`] without a whole answer in time, [`FailureKind::Protocol`] when TLS fails or the answer is too large,
    /// [`FailureKind::Misconfigured`] for an address that may not be asked.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Failure> {
        let request = reqwest::Request::try_from(request).map_err(|_| Failure::new(FailureKind::Misconfigured, "the address is no URL"))?;
        check_address(request.url(), self.allows_http)?;
        let began = Instant::now();
        let result = self.exchange(request).await;
        self.traffic.sent(result.as_ref().ok().map(|response| response.status().as_u16()), began.elapsed());
        result
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<Response<Vec<u8>>, Failure> {
        let host = host_and_port(request.url());
        let proxy = self.proxy.as_ref().filter(|_| request.url().scheme() == "https" && !is_near(request.url()));
        let failure = |error: &reqwest::Error| {
            let failure = failure(&host, error);
            match proxy {
                Some(proxy) if error.is_connect() && failure.is_temporary() => {
                    failure.hint(format!("it is asked by the proxy {proxy}, unless NO_PROXY names it: does that run, and let us through?"))
                }
                _ => failure,
            }
        };
        let mut response = self.inner.execute(request).await.map_err(|error| failure(&error))?;
        let mut builder = Response::builder().status(response.status());
        if let Some(headers) = builder.headers_mut() {
            *headers = response.headers().clone();
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + chunk.len() > LARGEST {
                let failure = Failure::new(FailureKind::Protocol, format!("{host}: the answer is larger than 8 MiB"));
                return Err(failure.hint("is this its address? no answer with a secret is so large"));
            }
            body.extend_from_slice(&chunk);
        }
        builder.body(body).map_err(|_| Failure::new(FailureKind::Protocol, format!("{host}: the answer is no HTTP")))
    }
}

/// When an answer asks to be tried again, by its header `Retry-After`: seconds, as all stores write it; a date is not looked at.
pub fn retry_after(header: &[u8]) -> Option<Duration> {
    std::str::from_utf8(header).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Whether a store may be at an address: `https`, or `http` to this very machine or where it was allowed.
///
/// # Errors
///
/// [`FailureKind::Misconfigured`] says what is wrong with it.
pub fn parse_address(address: &str, settings: &Settings) -> Result<Url, Failure> {
    let url = Url::parse(address).ok().filter(|url| url.has_host() && matches!(url.scheme(), "https" | "http"));
    let Some(url) = url else {
        return Err(Failure::new(FailureKind::Misconfigured, "the address is no URL").hint("write it like https://HOST:PORT"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::new(FailureKind::Misconfigured, "the address holds credentials").hint("write it like https://HOST:PORT"));
    }
    check_address(&url, settings.allow_http)?;
    Ok(url)
}

fn check_address(url: &Url, allows_http: bool) -> Result<(), Failure> {
    if url.scheme() == "https" || allows_http || is_near(url) {
        return Ok(());
    }
    let cause = format!("{}: what is sent by http can be read on the way", host_and_port(url));
    Err(Failure::new(FailureKind::Misconfigured, cause).hint("use https, or say --allow-http when the network is yours"))
}

/// Whether an address never leaves this machine: loopback, or the link-local one of a cloud's metadata.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        // fd00:ec2::/32 is where AWS has its metadata and the agent of EKS Pod Identity.
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local() || address.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => host == "localhost",
    }
}

/// An address for messages: never a path or a query, which may say more than it should.
#[must_use]
pub fn host_and_port(url: &Url) -> String {
    let host = printable(url.host_str().unwrap_or_default().as_bytes()).into_owned();
    url.port_or_known_default().map_or(host.clone(), |port| format!("{host}:{port}"))
}

/// The proxy that the environment names for https, as curl reads it, but never to what is near; and its host and port. Plain http goes by none.
fn proxy(servers: &Servers, settings: &Settings) -> Result<Option<(Proxy, String)>, Failure> {
    const NEAR: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,fd00:ec2::/32";
    let variable = |names: &[&str]| names.iter().find_map(|name| settings.variables.text(name).map(str::to_owned));
    let Some(proxy) = servers.proxy.clone().or_else(|| variable(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])) else {
        return Ok(None);
    };
    let but = variable(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let wrong =
        || Failure::new(FailureKind::Misconfigured, "the proxy is no URL").hint("check HTTPS_PROXY; it is written like http://HOST:PORT");
    let whole = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    let url = Url::parse(&whole).ok().filter(Url::has_host).ok_or_else(wrong)?;
    let name = host_and_port(&url);
    let proxy = Proxy::https(url).map_err(|_| wrong())?;
    Ok(Some((proxy.no_proxy(NoProxy::from_string(&format!("{NEAR},{but}"))), name)))
}

fn tls(servers: &Servers, settings: &Settings) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| Failure::new(FailureKind::Misconfigured, "no TLS can be had"))?
        .with_root_certificates(authorities(servers, settings)?);
    let mut config = match &servers.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let unusable = |path: &str| {
                Failure::new(FailureKind::Misconfigured, format!("{path}: no certificate with its key"))
                    .hint("both are PEM files, and the key is that of the certificate")
            };
            let chain = certificates(Path::new(certificate), certificate)?;
            let pem = read(Path::new(key), key)?;
            let key = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| unusable(key))?;
            builder.with_client_auth_cert(chain, key).map_err(|_| unusable(certificate))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // One connection is all that there will be.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Where distributions keep the certificates of public authorities, in one file.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// Those that are named for the store, else those of `SSL_CERT_FILE`, else the system's, else Mozilla's as they were when secret-init was built.
fn authorities(servers: &Servers, settings: &Settings) -> Result<RootCertStore, Failure> {
    let named =
        servers.authorities.clone().or_else(|| Some(("SSL_CERT_FILE".to_owned(), settings.variables.text("SSL_CERT_FILE")?.to_owned())));
    let mut store = RootCertStore::empty();
    if let Some((name, path)) = named {
        let (added, _) = store.add_parsable_certificates(certificates(Path::new(&path), &name)?);
        if added == 0 {
            let cause = format!("{name}: no certificate in {}", printable(path.as_bytes()));
            return Err(Failure::new(FailureKind::Misconfigured, cause).hint("it takes a file with PEM certificates"));
        }
        return Ok(store);
    }
    for bundle in SYSTEM_BUNDLES {
        if let Ok(found) = certificates(Path::new(bundle), bundle)
            && store.add_parsable_certificates(found).0 > 0
        {
            return Ok(store);
        }
    }
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    Ok(store)
}

/// All certificates of a file; what is none is passed over.
fn certificates(path: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = read(path, name)?;
    Ok(CertificateDer::pem_slice_iter(pem.expose()).filter_map(Result::ok).collect())
}

fn read(path: &Path, name: &str) -> Result<Secret, Failure> {
    super::read_file(path).map(|(secret, _)| secret).map_err(|failure| {
        let path = printable(path.as_os_str().as_encoded_bytes());
        let about = if name == path { String::new() } else { format!("{name}: ") };
        let hint = failure.hint.unwrap_or_else(|| "mount it, or name another file with PEM certificates".to_owned());
        let kind = if failure.kind == FailureKind::System { failure.kind } else { FailureKind::Misconfigured };
        Failure::new(kind, format!("{about}{path}: {}", failure.cause)).hint(hint)
    })
}

/// Looks names up by the C library, which knows search domains and `/etc/hosts`, in a thread: it blocks. Where no thread can be had that is an error.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let lookup = move || {
            let found = (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
            let _ = answer.send(found);
        };
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(lookup);
        Box::pin(async move {
            thread.map_err(|_| Unresolved::NoThread)?;
            match answered.await {
                Ok(Ok(addresses)) if !addresses.is_empty() => Ok(Box::new(addresses.into_iter()) as Addrs),
                Ok(Err(error)) if lacks_descriptors(&error) => Err(error.into()),
                _ => Err(Unresolved::NoName.into()),
            }
        })
    }
}

/// Why a name has no address.
#[derive(Debug)]
enum Unresolved {
    NoName,
    NoThread,
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("no address")
    }
}

impl Error for Unresolved {}

/// Says why there is no answer. Of the errors of libraries only their kind is used: their words may quote what was sent.
fn failure(host: &str, error: &reqwest::Error) -> Failure {
    let unavailable = |cause: &str| Failure::new(FailureKind::Unavailable { retry_after: None }, format!("{host}: {cause}"));
    let lacking = |cause: &str| Failure::new(FailureKind::System, format!("{host}: {cause}"));
    for source in causes(error) {
        match source.downcast_ref() {
            Some(Unresolved::NoName) => {
                return unavailable("the name cannot be resolved")
                    .hint("check the name, and that the container's /etc/resolv.conf names a server that knows it");
            }
            Some(Unresolved::NoThread) => {
                return lacking("no thread can be had to look the name up").hint("the container may lack processes (--pids-limit)");
            }
            None => {}
        }
        if let Some(error) = source.downcast_ref::<rustls::Error>() {
            return tls_failure(host, error);
        }
        if let Some(error) = source.downcast_ref::<io::Error>() {
            if lacks_descriptors(error) {
                return lacking("no descriptor can be had for a connection").hint("the container may lack descriptors (ulimit -n)");
            }
            match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    return unavailable("connection refused").hint("is it running, and is this its address?");
                }
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    return unavailable("unreachable").hint("is the container in a network that leads there?");
                }
                _ => {}
            }
        }
    }
    match (error.is_timeout(), error.is_connect()) {
        (true, true) => {
            unavailable("no connection within 3 s").hint("is this its address, and does a firewall keep it from being reached?")
        }
        (true, false) => unavailable("no answer within 10 s").hint("is it overloaded, or does something on the way hold the answer back?"),
        (false, true) => unavailable("no connection").hint("is this its address, and does it listen for https:// there?"),
        (false, false) => unavailable("the connection broke before the answer was complete")
            .hint("is this its address, and does it listen for http:// or https:// there?"),
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// An error and what caused it; an `io::Error` may hold another without naming it as its source.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

fn tls_failure(host: &str, error: &rustls::Error) -> Failure {
    const AUTHORITY: &str =
        "name the file with its authority's certificate: VAULT_CACERT, AWS_CA_BUNDLE, ca_file in the configuration, or SSL_CERT_FILE";
    let (cause, hint) = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            // The signature is wrong when the authority has the name of one that is known, and another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ("its certificate comes from an authority that is not known", AUTHORITY)
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("its certificate has expired", "renew it; if it is new, this machine's clock is wrong")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("its certificate is not valid yet", "is this machine's clock right?")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ("its certificate is for another name", "use a name for it that the certificate has")
            }
            _ => (
                "its certificate is not valid",
                "it has to be one for a server (not CA:TRUE, and its names in subjectAltName), signed by an authority that is known",
            ),
        },
        rustls::Error::InvalidMessage(_) => ("it does not speak TLS", "does it listen for http:// there?"),
        rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => (
            "it wants a certificate of ours",
            "give it one: VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or cert_file and key_file in the configuration",
        ),
        _ => ("TLS fails", "does it speak TLS 1.2 or 1.3?"),
    };
    Failure::new(FailureKind::Protocol, format!("{host}: {cause}")).hint(hint)
}
