//! Who asks for the metrics, by HTTP: a page for Prometheus and two for probes, no more of HTTP than they need.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Dialect, Metrics};
use crate::health::Seen;
use crate::listen::{PATIENCE, Questions};
use crate::report::{Code, Problem, os_error};

/// The head of a request is no longer.
const LONGEST: usize = 8 << 10;

/// Where metrics are asked for.
pub struct Scrapes {
    address: SocketAddr,
    questions: Questions<Scrape>,
}

/// One question that needs what the agent knows.
pub struct Scrape {
    page: Page,
    reply: oneshot::Sender<Reply>,
}

enum Page {
    Metrics(Dialect),
    Ready,
}

impl Scrapes {
    /// Listens. Only within a runtime of tokio.
    ///
    /// # Errors
    ///
    /// With exit code 71 when the address cannot be had.
    pub fn open(address: SocketAddr) -> Result<Self, Problem> {
        let failed = |error: &std::io::Error| {
            let problem = Problem::new(Code::System, format!("metrics cannot be served there: {}", os_error(error)));
            problem.about(address).about("--metrics").hint("take a free port, and an address that the container has, like 127.0.0.1:9464")
        };
        let listener = listen(address).map_err(|error| failed(&error))?;
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        Ok(Self { address, questions: Questions::of(listener, serve) })
    }

    /// Where it listens; the port is one of the system's choice when 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next question. Nothing is lost when it is not waited for to the end.
    pub async fn next(&mut self) -> Scrape {
        self.questions.next().await
    }
}

impl Scrape {
    /// Answers. Who has gone away meanwhile does not matter.
    pub fn answer(self, metrics: &Metrics, seen: &Seen) {
        let _ = self.reply.send(match self.page {
            Page::Metrics(dialect) => Reply { kind: dialect.content_type(), ..Reply::new(200, metrics.render(dialect, seen)) },
            Page::Ready => Reply::new(if seen.is_healthy() { 200 } else { 503 }, seen.summary() + "\n"),
        });
    }
}

/// The standard library lets an agent that was started anew have the port of the one before it.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// An answer, or what keeps one from being given.
struct Reply {
    status: u16,
    kind: &'static str,
    body: String,
}

impl Reply {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: body.into() }
    }

    fn text(&self, with_body: bool) -> String {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed\r\nAllow: GET, HEAD",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let body = if with_body { self.body.as_str() } else { "" };
        let (status, kind, length) = (self.status, self.kind, self.body.len());
        format!("HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    }
}

/// One request and its answer; then the connection is closed.
async fn serve(mut stream: TcpStream, agent: mpsc::Sender<Scrape>) {
    let Ok(Ok(head)) = timeout(PATIENCE, read_head(&mut stream)).await else { return };
    let (reply, with_body) = match head.as_deref().map(Request::parse) {
        None => (Reply::new(431, "the request is too large\n"), true),
        Some(None) => (Reply::new(400, "this is no request of HTTP\n"), true),
        Some(Some(request)) => (answer(&request, &agent).await, request.method != "HEAD"),
    };
    let text = reply.text(with_body);
    let _ = timeout(PATIENCE, async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        // What is closed with something unread is reset, and the answer may be lost by it.
        let mut rest = [0; 1024];
        for _ in 0..64 {
            if stream.read(&mut rest).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    })
    .await;
}

/// Reads up to the empty line; none when it does not come soon enough.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        if end.is_none_or(|end| end > LONGEST) && head.len() > LONGEST {
            return Ok(None);
        }
        if let Some(end) = end {
            head.truncate(end);
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
    }
}

struct Request<'a> {
    method: &'a str,
    path: &'a str,
    accept: String,
}

impl<'a> Request<'a> {
    fn parse(head: &'a str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let is_http = version.starts_with("HTTP/1.") && words.next().is_none() && target.starts_with('/');
        let accept: Vec<&str> = lines
            .filter_map(|line| line.split_once(':'))
            .filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
            .map(|(_, value)| value)
            .collect();
        let path = target.split('?').next()?;
        is_http.then(|| Self { method, path, accept: accept.join(",") })
    }
}

async fn answer(request: &Request<'_>, agent: &mpsc::Sender<Scrape>) -> Reply {
    if !matches!(request.method, "GET" | "HEAD") {
        return Reply::new(405, "only GET and HEAD are known\n");
    }
    match request.path {
        "/metrics" => ask(agent, Page::Metrics(Dialect::wanted(&request.accept)), PATIENCE).await,
        "/readyz" => ask(agent, Page::Ready, PATIENCE).await,
        // That it is said at all is the answer: nobody listens before everything was delivered.
        "/livez" | "/startupz" => Reply::new(200, "alive\n"),
        _ => Reply::new(404, "there are /metrics, /startupz, /readyz and /livez\n"),
    }
}

async fn ask(agent: &mpsc::Sender<Scrape>, page: Page, patience: Duration) -> Reply {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        agent.send(Scrape { page, reply }).await.ok()?;
        answer.await.ok()
    };
    timeout(patience, asked).await.ok().flatten().unwrap_or_else(|| Reply::new(503, "the agent does not answer now\n"))
}
