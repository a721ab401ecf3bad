//! How a remote store is found and reached: names, proxies, and what goes by which.

#![allow(clippy::needless_pass_by_value, clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "a thread gets a network of its own")]

mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use support::files::after;
use support::servers::faults::{Answer, Faults, deaf, nobody};
use support::servers::tls::{self, Authority};
use support::{Start, World};

fn good() -> Answer {
    Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}}))
}

const TOKEN: &str = "t0ken-t0ken-t0ken";

/// A start that asks a Vault at this address for one secret, and says that it started.
fn start(world: &World, address: &str) -> Start {
    let start = world.secret_init().variable("VAULT_ADDR", address).variable("VAULT_TOKEN", TOKEN).variable("VAULT_CACERT", &AUTHORITY.ca);
    start.variable("A", "vault:secret/data/app#k").program(["echo", "started"])
}

#[track_caller]
fn starts(start: Start) {
    assert_eq!(start.finishes().succeeds(), "started\n");
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(tls::authority);

// Names.

/// What answers to names in a network of its own: `vault.test.internal` and `bare` are at 127.0.0.1, there are no others. Gives the names that it was asked for.
fn name_server() -> Arc<Mutex<Vec<String>>> {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let (name, answer) = answer(&query[..length]);
            noted.lock().unwrap().push(name);
            let _ = socket.send_to(&answer, from);
        }
    });
    asked
}

/// RFC 1035, as far as it is needed.
fn answer(query: &[u8]) -> (String, Vec<u8>) {
    let mut at = 12;
    let mut labels = Vec::new();
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
        at = end;
    }
    let end = at + 5;
    let is_ipv4 = query[at + 1..at + 3] == [0, 1];
    let name = labels.join(".");
    let is_known = ["vault.test.internal", "bare"].contains(&name.as_str());
    let count = u8::from(is_known && is_ipv4);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if count > 0 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(Ipv4Addr::LOCALHOST.octets());
    }
    (name, answer)
}

/// Runs a test in a thread, and whatever it starts, in a network of its own.
fn in_a_network_of_its_own(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare(2) takes a number, and what it changes is the thread's alone.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// With these files in place of those of `/etc`; those that it does not name are empty.
fn with_etc(world: &World, start: Start, etc: &[(&str, &str)]) -> Start {
    let mut script = String::from("true");
    for name in ["resolv.conf", "hosts", "nsswitch.conf", "gai.conf", "host.conf"] {
        let text = etc.iter().find(|(own, _)| *own == name).map_or("", |(_, text)| text);
        if Path::new("/etc").join(name).exists() {
            let file = world.file(name, text);
            script.push_str(&[" && mount --bind ", &file.display().to_string(), " /etc/", name].concat());
        }
    }
    after(start, &script)
}

#[test]
fn a_name_is_looked_up_in_hosts_and_by_the_servers_of_resolv_conf_with_its_search_domains() {
    in_a_network_of_its_own(|| {
        let (world, asked) = (World::new(), name_server());
        let server = Faults::always(good());
        let port = server.address.rsplit(':').next().unwrap();
        let starts = |host: &str, etc: &[(&str, &str)]| {
            let start = start(&world, &format!("http://{host}:{port}")).flag("--allow-http");
            starts(with_etc(&world, start, etc));
        };
        let resolv = |text| [("resolv.conf", text)];
        starts("bare", &resolv("nameserver 127.0.0.1\n"));
        starts("vault.test.internal", &resolv("nameserver 127.0.0.1\n"));
        assert!(asked.lock().unwrap().iter().all(|name| ["bare", "vault.test.internal"].contains(&name.as_str())));
        // As Kubernetes and Docker write it.
        starts("vault", &resolv("search shop.svc.cluster.local svc.cluster.local test.internal\nnameserver 127.0.0.1\noptions ndots:5\n"));
        assert!(asked.lock().unwrap().contains(&"vault.shop.svc.cluster.local".to_owned()));
        starts("vault", &resolv("nameserver 127.0.0.1\nsearch test.internal\noptions edns0 trust-ad ndots:0\n"));
        starts("VAULT.test.internal", &resolv("nameserver 127.0.0.1\n"));

        asked.lock().unwrap().clear();
        let hosts = ("hosts", "127.0.0.1 localhost vault.example # as Docker writes it\n::1 localhost ip6-localhost\n");
        starts("vault.example", &[hosts, ("resolv.conf", "nameserver 127.0.0.1\n")]);
        starts("vault.example", &[hosts]);
        starts("localhost", &[hosts]);
        assert_eq!(asked.lock().unwrap().len(), 0);
    });
}

#[test]
fn the_modules_that_an_image_names_for_hosts_are_not_loaded() {
    in_a_network_of_its_own(|| {
        let (world, _asked) = (World::new(), name_server());
        let server = Faults::always(good());
        let start = start(&world, &server.address.replace("127.0.0.1", "vault")).flag("--allow-http");
        for hosts in
            ["mymachines resolve [!UNAVAIL=return] files myhostname dns", "mdns4_minimal [NOTFOUND=return] dns", "nothing", "files"]
        {
            let nsswitch = format!("passwd: nothing\nhosts: {hosts}\n");
            let etc = [("nsswitch.conf", nsswitch.as_str()), ("resolv.conf", "nameserver 127.0.0.1\nsearch test.internal\n")];
            starts(with_etc(&world, start.clone(), &etc));
        }
    });
}

#[test]
fn a_name_server_that_does_not_answer_holds_nothing_up() {
    in_a_network_of_its_own(|| {
        let world = World::new();
        let _silent = UdpSocket::bind("127.0.0.1:53").unwrap();
        for mode in ["--group", "--exec"] {
            let start = start(&world, "https://vault.test.internal:8200").flag(mode).flag("--timeout=1s");
            let began = Instant::now();
            with_etc(&world, start, &[("resolv.conf", "nameserver 127.0.0.1\n")]).finishes().fails(
                69,
                &[
                    "A: vault:secret/data/app#k: no answer within 1s",
                    "hint: is it overloaded, or does something on the way hold the answer back? --timeout gives it longer",
                    "1 of 1 secret failed; the program was not started",
                ],
            );
            // The C library would wait for five seconds, twice.
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
    });
}

// Proxies.

/// A proxy for CONNECT, which leads to one place whatever is asked for.
struct Tunnel {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// The heads of the requests.
    heads: Vec<String>,
    /// All that came from who asked, tunnelled or not.
    bytes: Vec<u8>,
}

impl Tunnel {
    /// The answer to CONNECT, and where it leads when that is 200.
    fn start(answer: &'static str, to: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (seen, to) = (Arc::new(Mutex::new(Seen::default())), to.map(|to| to.rsplit('/').next().unwrap().to_owned()));
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (noted, to) = (Arc::clone(&noted), to.clone());
                std::thread::spawn(move || serve(&client, answer, to.as_deref(), &noted));
            }
        });
        Self { address, seen }
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }

    fn saw(&self, text: &str) -> bool {
        self.seen.lock().unwrap().bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

fn serve(mut client: &TcpStream, answer: &str, to: Option<&str>, seen: &Mutex<Seen>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let mut noted = seen.lock().unwrap();
    noted.bytes.extend(&head);
    noted.heads.push(String::from_utf8_lossy(&head).into_owned());
    drop(noted);
    client.write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    let Some(to) = to else { return client.shutdown(Shutdown::Both) };
    let mut server = TcpStream::connect(to)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 4096];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            return server.shutdown(Shutdown::Both);
        }
        seen.lock().unwrap().bytes.extend(&buffer[..length]);
        server.write_all(&buffer[..length])?;
    }
}

/// A server that is called `elsewhere.example`, which no name server knows, and its address.
fn elsewhere() -> (Faults, String) {
    let server = Faults::tls(&AUTHORITY.server_of_another_name(), |_, _| good());
    let address = server.address.replace("127.0.0.1", "elsewhere.example");
    (server, address)
}

#[test]
fn a_store_elsewhere_is_asked_by_the_proxy_which_sees_no_token() {
    let (server, address) = elsewhere();
    let host = address.strip_prefix("https://").unwrap();
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY"] {
        let (world, proxy) = (World::new(), Tunnel::start("200 OK", Some(&server.address)));
        starts(start(&world, &address).variable(name, &proxy.address));
        let heads = proxy.heads();
        assert!(heads.len() == 1 && heads[0].starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")), "{name}: {heads:?}");
        assert!(!proxy.saw(TOKEN) && !proxy.saw("secret/data") && proxy.saw("\x16\x03"), "{name}");
    }
    assert_eq!(server.requests().len(), 6);
    assert_eq!(server.requests()[0].header("x-vault-token"), Some(TOKEN));
}

#[test]
fn the_password_of_a_proxy_goes_to_the_proxy_alone_and_into_no_message() {
    let (server, address) = elsewhere();
    let (world, proxy) = (World::new(), Tunnel::start("200 OK", Some(&server.address)));
    let with_password = |address: &str| address.replace("http://", "http://me:pr0xy-passw0rd@");
    starts(start(&world, &address).variable("HTTPS_PROXY", with_password(&proxy.address)));
    assert!(proxy.heads()[0].to_lowercase().contains("\r\nproxy-authorization: basic bwu6chiwehktcgfzc3cwcmq=\r\n"), "{:?}", proxy.heads());
    assert!(!format!("{:?}", server.requests()).to_lowercase().contains("proxy-auth"));
    for (proxy, code) in [(&nobody(), 69), (&Tunnel::start("407 No", None).address, 69), (&"http://127.0.0.1:1:1".to_owned(), 78)] {
        let outcome = start(&world, &address).variable("HTTPS_PROXY", with_password(proxy)).flag("--timeout=2s").finishes();
        assert!(!outcome.stderr.contains("pr0xy") && outcome.code() == code, "{}", outcome.stderr);
    }
}

#[test]
fn no_proxy_is_asked_for_what_is_near_or_exempt_or_spoken_in_clear() {
    in_a_network_of_its_own(|| {
        let (world, proxy) = (World::new(), Tunnel::start("502 No", None));
        let by_proxy = |start: Start| {
            ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"].iter().fold(start, |start, name| start.variable(name, &proxy.address))
        };
        let near = Faults::tls(&AUTHORITY.server(), |_, _| good());
        starts(by_proxy(start(&world, &near.address)));
        starts(by_proxy(start(&world, &near.address.replace("127.0.0.1", "localhost"))));
        starts(by_proxy(start(&world, &Faults::always(good()).address)));
        let asks = |address: &str, but: &str| {
            let start = by_proxy(start(&world, address)).variable("NO_PROXY", but).flag("--timeout=1s").flag("--allow-http");
            assert_eq!(start.finishes().code(), 69, "{address} {but}");
            !std::mem::take(&mut proxy.seen.lock().unwrap().heads).is_empty()
        };
        for (address, but) in [
            ("https://169.254.169.254", ""),
            ("https://[fe80::1]", ""),
            ("https://[::1]:1", ""),
            ("https://[fd00:ec2::254]", ""),
            ("https://127.9.9.9:1", ""),
            // A proxy would see everything.
            ("http://192.0.2.1", ""),
            ("http://elsewhere.example", ""),
            ("https://192.0.2.1", "192.0.2.0/24"),
            ("https://192.0.2.1", "x,192.0.2.1"),
            ("https://elsewhere.example", "elsewhere.example"),
            ("https://elsewhere.example", "x, .example"),
            ("https://deep.elsewhere.example", "example"),
            ("https://elsewhere.example", "*"),
        ] {
            assert!(!asks(address, but), "{address} {but}");
        }
        for (address, but) in
            [("https://192.0.2.1", "192.0.3.0/24"), ("https://elsewhere.example", "where.example"), ("https://[fd00:1::1]", "")]
        {
            assert!(asks(address, but), "{address} {but}");
        }
    });
}

#[test]
fn a_proxy_that_does_not_lead_there_is_named() {
    in_a_network_of_its_own(|| {
        let world = World::new();
        let (silent, _listener) = deaf();
        let [forbids, asks, fails] =
            ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"].map(|answer| Tunnel::start(answer, None));
        for (proxy, cause) in [
            (nobody(), "connection refused"),
            ("http://proxy.invalid:3128".to_owned(), "the name cannot be resolved"),
            (nobody().replace("http://", "me:pr0xy-passw0rd@"), "connection refused"),
            (forbids.address.clone(), "no connection"),
            (asks.address.clone(), "no connection"),
            (fails.address.clone(), "no connection"),
            (silent, "no connection within 3 s"),
        ] {
            let start = start(&world, "https://elsewhere.example").variable("HTTPS_PROXY", &proxy).flag("--timeout=4s");
            let host = proxy.rsplit(['/', '@']).next().unwrap();
            start.finishes().fails(
                69,
                &[
                    &format!("warning: vault: elsewhere.example:443: {cause}; trying again, for 4s at most"),
                    &format!("A: vault:secret/data/app#k: elsewhere.example:443: {cause}"),
                    &format!("hint: it is asked by the proxy {host}, unless NO_PROXY names it: does that run, and let us through?"),
                    "1 of 1 secret failed; the program was not started",
                ],
            );
        }
    });
}
