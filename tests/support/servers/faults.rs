//! A server that answers as a test says: wrongly, slowly, or not at all. It keeps what it was asked.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

#[cfg(feature = "remote")]
use super::tls::Certificate;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body, null when it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Whole,
    Chunked,
    /// A byte each time, from this part on.
    Drip(Duration, Part),
    /// So much of the body, then the end of the connection.
    Cut(usize),
    /// These bytes, whatever they are, then the end of the connection.
    Raw(Vec<u8>),
    /// The end of the connection at once, in the middle of everything.
    Reset,
    /// A body of this length, told before, which is nowhere as a whole.
    Endless(usize),
    Silence,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Head,
    Body,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), way: Way::Whole }
    }

    /// 200 with JSON.
    pub fn json(body: &Value) -> Self {
        Self::status(200).header("content-type", "application/json").body(body.to_string())
    }

    /// As OpenBao says what is wrong.
    pub fn errors(status: u16, errors: &[&str]) -> Self {
        Self { status, ..Self::json(&serde_json::json!({ "errors": errors })) }
    }

    /// To another address, with the same method.
    pub fn redirect(to: &str) -> Self {
        Self::status(307).header("location", to)
    }

    /// 200 with a body of 9 MiB, its length told before.
    pub fn oversize() -> Self {
        Self::endless(9 << 20)
    }

    /// 200 with a body of so many bytes, told before. It is sent as long as the other side takes it.
    pub fn endless(length: usize) -> Self {
        Self { way: Way::Endless(length), ..Self::status(200) }
    }

    /// These bytes, which need be no HTTP, then the end of the connection.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { way: Way::Raw(bytes.into()), ..Self::status(0) }
    }

    /// No HTTP at all, then the end of the connection.
    pub fn garbage() -> Self {
        Self::raw(b"\x16\x03\x00 no answer \xff\xfe\r\n\r\n")
    }

    /// The end of the connection.
    pub fn hang_up() -> Self {
        Self::raw("")
    }

    /// As a server that dies with the request in its hands: the other side is told that the connection is no more.
    pub fn reset() -> Self {
        Self { way: Way::Reset, ..Self::status(0) }
    }

    /// Nothing, as long as the other side waits.
    pub fn silence() -> Self {
        Self { way: Way::Silence, ..Self::status(0) }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Its body.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Without telling its length before.
    #[must_use]
    pub fn chunked(self) -> Self {
        Self { way: Way::Chunked, ..self }
    }

    /// A byte each time.
    #[must_use]
    pub fn dripping(self, pause: Duration) -> Self {
        Self { way: Way::Drip(pause, Part::Head), ..self }
    }

    /// The head at once, then a byte each time.
    #[must_use]
    pub fn with_a_dripping_body(self, pause: Duration) -> Self {
        Self { way: Way::Drip(pause, Part::Body), ..self }
    }

    /// The whole length is told, so many bytes come, and the connection ends.
    #[must_use]
    pub fn cut_after(self, count: usize) -> Self {
        Self { way: Way::Cut(count), ..self }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Answer\r\n", self.status);
        head.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")));
        match self.way {
            Way::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            Way::Endless(length) => head.push_str(&format!("content-length: {length}\r\n")),
            _ => head.push_str(&format!("content-length: {}\r\n", self.body.len())),
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Whether the connection goes on.
    fn send(&self, stream: &mut dyn Stream, socket: &TcpStream) -> io::Result<bool> {
        let head = self.head();
        match &self.way {
            Way::Whole => stream.write_all(&[head, self.body.clone()].concat())?,
            Way::Chunked => {
                stream.write_all(&head)?;
                for chunk in self.body.chunks(1 << 16) {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    stream.write_all(chunk)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            Way::Drip(pause, from) => {
                let (first, rest) = match from {
                    Part::Head => (Vec::new(), [head, self.body.clone()].concat()),
                    Part::Body => (head, self.body.clone()),
                };
                stream.write_all(&first)?;
                for byte in rest {
                    wait(socket, Some(*pause))?;
                    stream.write_all(&[byte])?;
                    stream.flush()?;
                }
            }
            Way::Cut(count) => stream.write_all(&[&head, &self.body[..*count]].concat())?,
            Way::Raw(bytes) => stream.write_all(bytes)?,
            Way::Endless(length) => {
                stream.write_all(&head)?;
                let part = [b'x'; 1 << 16];
                for _ in 0..length.div_ceil(part.len()) {
                    stream.write_all(&part)?;
                }
            }
            Way::Silence => wait(socket, None)?,
            Way::Reset => return reset(socket),
        }
        stream.flush()?;
        Ok(matches!(self.way, Way::Whole | Way::Chunked | Way::Drip(..)))
    }
}

/// Connecting to nowhere ends a connection by RST, also when others hold its descriptor.
fn reset(socket: &TcpStream) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).unwrap();
    // SAFETY: connect(2) reads an address of ours, of the length that it is told.
    match unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) } {
        0 => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pause that ends with the connection.
fn wait(socket: &TcpStream, pause: Option<Duration>) -> io::Result<()> {
    socket.set_read_timeout(pause)?;
    let seen = socket.peek(&mut [0]);
    socket.set_read_timeout(None)?;
    match seen {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

/// The server. It ends when it is dropped.
pub struct Faults {
    /// `http://127.0.0.1:PORT`, or `https://`.
    pub address: String,
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    connections: Vec<TcpStream>,
    is_over: bool,
}

impl Faults {
    /// Answers each request by what the closure says to it; `number` counts all requests, from 0.
    pub fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::of("http", answer, |socket| Ok(Box::new(socket)))
    }

    /// The same answer each time.
    pub fn always(answer: Answer) -> Self {
        Self::start(move |_, _| answer.clone())
    }

    /// One after the other; the last one for all that follow.
    pub fn in_turn(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers: Vec<Answer> = answers.into_iter().collect();
        Self::start(move |_, number| answers[number.min(answers.len() - 1)].clone())
    }

    /// Over TLS with this certificate.
    #[cfg(feature = "remote")]
    pub fn tls(certificate: &Certificate, answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::tls_for(certificate, None, rustls::ALL_VERSIONS, answer)
    }

    /// As [`Faults::tls`], for who shows a certificate of this authority, and by these versions alone.
    #[cfg(feature = "remote")]
    pub fn tls_for(
        certificate: &Certificate,
        clients: Option<&std::path::Path>,
        versions: &[&'static rustls::SupportedProtocolVersion],
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = |path| CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap);
        let verifier = clients.map(|clients| {
            let mut authorities = rustls::RootCertStore::empty();
            authorities.add_parsable_certificates(certificates(clients));
            rustls::server::WebPkiClientVerifier::builder_with_provider(authorities.into(), provider.clone()).build().unwrap()
        });
        let chain = certificates(&certificate.certificate).collect();
        let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = match verifier {
            Some(verifier) => config.with_client_cert_verifier(verifier),
            None => config.with_no_client_auth(),
        };
        let config = Arc::new(config.with_single_cert(chain, key).unwrap());
        Self::of("https", answer, move |socket| {
            let connection = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Ok(Box::new(rustls::StreamOwned::new(connection, socket)))
        })
    }

    fn of(
        scheme: &str,
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
        open: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, both) = (state.clone(), Arc::new((answer, open)));
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let mut state = shared.lock().unwrap();
                if state.is_over {
                    return;
                }
                state.connections.push(socket.try_clone().unwrap());
                let (shared, both) = (shared.clone(), both.clone());
                // How a connection ends is the matter of the test.
                std::thread::spawn(move || {
                    let _ = serve(&socket, &shared, &both.0, &both.1);
                    let _ = socket.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address: format!("{scheme}://127.0.0.1:{port}"), port, state }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections.len()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.is_over = true;
        for connection in &state.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
        drop(state);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    socket: &TcpStream,
    state: &Mutex<State>,
    answer: &impl Fn(&Request, usize) -> Answer,
    open: &impl Fn(TcpStream) -> io::Result<Box<dyn Stream>>,
) -> io::Result<()> {
    let mut stream = open(socket.try_clone()?)?;
    loop {
        let request = read(&mut *stream)?;
        let number = {
            let mut state = state.lock().unwrap();
            state.requests.push(request.clone());
            state.requests.len() - 1
        };
        if !answer(&request, number).send(&mut *stream, socket)? {
            return Ok(());
        }
    }
}

fn read(stream: &mut dyn Stream) -> io::Result<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if !head[0].is_ascii_alphabetic() {
            // As others do when a client begins with TLS.
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    let mut request = Request { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body)?;
    Ok(request)
}

/// An address at which nothing listens.
pub fn nobody() -> String {
    format!("http://127.0.0.1:{}", super::free_port())
}

/// A server that takes connections and never reads. It ends with the listener.
pub fn deaf() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("http://{}", listener.local_addr().unwrap()), listener)
}
