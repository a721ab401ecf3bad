//! What can be wrong with a store at a start: each fault has its exit code and its words, and the program does not run.

#![allow(clippy::needless_pass_by_value, clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(unsafe_code, reason = "a queue of connections is made full")]

mod support;

use std::any::Any;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use support::servers::faults::{Answer, Faults, deaf, nobody};
use support::servers::openbao::OpenBao;
use support::servers::tls::{self, Authority, Certificate};
use support::{Start, World, binary, eventually, send};

/// A store as the tests of faults need it.
struct Store {
    name: &'static str,
    reference: &'static str,
    /// A start that asks for the secret `A`, at this address, and trusts this authority.
    start: fn(&World, &str, &Path) -> Start,
}

const VAULT: Store = Store {
    name: "vault",
    reference: "vault:secret/data/app#k",
    start: |world, address, ca| {
        let start = world.secret_init().variable("VAULT_ADDR", address).variable("VAULT_CACERT", ca).variable("VAULT_TOKEN", "t0ken");
        start.variable("A", VAULT.reference).program(["echo", "started"])
    },
};

const AWS: Store = Store {
    name: "aws-sm",
    reference: "aws-sm:app#k",
    start: |world, address, ca| {
        let start =
            world.secret_init().variable("AWS_ENDPOINT_URL", address).variable("AWS_CA_BUNDLE", ca).variable("AWS_REGION", "eu-central-1");
        let start = start.variable("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").variable("AWS_SECRET_ACCESS_KEY", "s3cret");
        start.variable("A", AWS.reference).program(["echo", "started"])
    },
};

/// All of them.
const STORES: &[Store] = &[VAULT, AWS];

/// What is wrong, and what is said of it.
struct Fault {
    what: &'static str,
    place: fn() -> Place,
    code: u8,
    patience: Patience,
    /// `HOST` stands for the host and port of the server.
    cause: &'static str,
    hint: &'static str,
}

/// How long the store is asked.
#[derive(Clone, Copy, PartialEq)]
enum Patience {
    /// Once: it will not change.
    Once,
    /// Again and again, which is said once.
    Again,
    /// It does not answer in the time that there is.
    Silence,
}
use Patience::{Again, Once, Silence};

/// Where a start looks for its store.
struct Place {
    address: String,
    /// What else is special about the start.
    way: fn(Start) -> Start,
    ca: PathBuf,
    /// What has to live as long.
    server: Box<dyn Any>,
}

impl Place {
    fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), way: |start| start, ca: AUTHORITY.ca.clone(), server: Box::new(()) }
    }

    fn of(server: Faults) -> Self {
        Self { server: Box::new(server), ..Self::at("") }.called()
    }

    fn called(mut self) -> Self {
        self.address = self.server.downcast_ref::<Faults>().unwrap().address.clone();
        self
    }

    fn always(answer: Answer) -> Self {
        Self::of(Faults::always(answer))
    }

    fn under(self, way: fn(Start) -> Start) -> Self {
        Self { way, ..self }
    }

    fn host(&self) -> &str {
        self.address.rsplit('/').next().unwrap()
    }
}

static AUTHORITY: LazyLock<Authority> = LazyLock::new(tls::authority);
static OTHER_AUTHORITY: LazyLock<Authority> = LazyLock::new(tls::authority);
static CERTIFICATE: LazyLock<Certificate> = LazyLock::new(|| AUTHORITY.server());

/// In a network of its own, in which there is nothing but itself.
fn alone(start: Start) -> Start {
    start.under(["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
}

fn good() -> Answer {
    Answer::json(&json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}}))
}

fn tls_with(certificate: &Certificate) -> Place {
    Place::of(Faults::tls(certificate, |_, _| good()))
}

const AUTHORITY_HINT: &str =
    "name the file with its authority's certificate: VAULT_CACERT, AWS_CA_BUNDLE, ca_file in the configuration, or SSL_CERT_FILE";
const NAME_HINT: &str = "check the name, and that the container's /etc/resolv.conf names a server that knows it";
const CUT: &str = "HOST: the connection broke before the answer was complete";
const CUT_HINT: &str = "is this its address, and does it listen for http:// or https:// there?";
const TOO_LARGE_HINT: &str = "is this its address? no answer with a secret is so large";
const SILENCE: &str = "no answer within 1s";
const SILENCE_HINT: &str = "is it overloaded, or does something on the way hold the answer back? --timeout gives it longer";

/// What happens before a store could say anything: each store has it, and says the same.
const ON_THE_WAY: &[Fault] = &[
    Fault {
        what: "nobody listens",
        place: || Place::at(nobody()),
        code: 69,
        patience: Again,
        cause: "HOST: connection refused",
        hint: "is it running, and is this its address?",
    },
    Fault {
        what: "a name that nobody knows",
        place: || Place::at("https://store.invalid:8200").under(alone),
        code: 69,
        patience: Again,
        cause: "HOST: the name cannot be resolved",
        hint: NAME_HINT,
    },
    Fault {
        what: "a network that cannot be reached",
        place: || Place::at("https://192.0.2.1:8200").under(alone),
        code: 69,
        patience: Again,
        cause: "HOST: unreachable",
        hint: "is the container in a network that leads there?",
    },
    Fault {
        what: "an authority that is not known",
        place: || Place { ca: OTHER_AUTHORITY.ca.clone(), ..tls_with(&CERTIFICATE) },
        code: 76,
        patience: Once,
        cause: "HOST: its certificate comes from an authority that is not known",
        hint: AUTHORITY_HINT,
    },
    Fault {
        what: "an expired certificate",
        place: || tls_with(&AUTHORITY.expired_server()),
        code: 76,
        patience: Once,
        cause: "HOST: its certificate has expired",
        hint: "renew it; if it is new, this machine's clock is wrong",
    },
    Fault {
        what: "a certificate for another name",
        place: || tls_with(&AUTHORITY.server_of_another_name()),
        code: 76,
        patience: Once,
        cause: "HOST: its certificate is for another name",
        hint: "use a name for it that the certificate has",
    },
    Fault {
        what: "a certificate of an authority as that of a server",
        place: || tls_with(&AUTHORITY.own()),
        code: 76,
        patience: Once,
        cause: "HOST: its certificate is not valid",
        hint: "it has to be one for a server (not CA:TRUE, and its names in subjectAltName), signed by an authority that is known",
    },
    Fault {
        what: "https where there is http",
        place: || {
            let place = Place::always(good());
            Place { address: place.address.replace("http:", "https:"), ..place }
        },
        code: 76,
        patience: Once,
        cause: "HOST: it does not speak TLS",
        hint: "does it listen for http:// there?",
    },
    Fault {
        what: "http where there is https",
        place: || {
            let place = tls_with(&CERTIFICATE);
            Place { address: place.address.replace("https:", "http:"), ..place }
        },
        code: 69,
        patience: Again,
        cause: CUT,
        hint: CUT_HINT,
    },
    Fault {
        what: "a certificate of ours that is wanted",
        place: || Place::of(Faults::tls_for(&CERTIFICATE, Some(&AUTHORITY.ca), rustls::ALL_VERSIONS, |_, _| good())),
        code: 76,
        patience: Once,
        cause: "HOST: it wants a certificate of ours",
        hint: "give it one: VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or cert_file and key_file in the configuration",
    },
    Fault {
        what: "a certificate of ours that is wanted, by TLS 1.2",
        place: || Place::of(Faults::tls_for(&CERTIFICATE, Some(&AUTHORITY.ca), &[&rustls::version::TLS12], |_, _| good())),
        code: 76,
        patience: Once,
        cause: "HOST: it wants a certificate of ours",
        hint: "give it one: VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, or cert_file and key_file in the configuration",
    },
    Fault {
        what: "a server that never reads",
        place: || {
            let (address, listener) = deaf();
            Place { server: Box::new(listener), ..Place::at(address) }
        },
        code: 69,
        patience: Silence,
        cause: SILENCE,
        hint: SILENCE_HINT,
    },
    Fault {
        what: "a server that never reads, by TLS",
        place: || {
            let (address, listener) = deaf();
            Place { server: Box::new(listener), ..Place::at(address.replace("http:", "https:")) }
        },
        code: 69,
        patience: Silence,
        cause: SILENCE,
        hint: SILENCE_HINT,
    },
    Fault { what: "silence", place: || Place::always(Answer::silence()), code: 69, patience: Silence, cause: SILENCE, hint: SILENCE_HINT },
    Fault {
        what: "a head that drips",
        place: || Place::always(good().dripping(Duration::from_millis(50))),
        code: 69,
        patience: Silence,
        cause: SILENCE,
        hint: SILENCE_HINT,
    },
    Fault {
        what: "a body that drips",
        place: || Place::always(good().with_a_dripping_body(Duration::from_millis(50))),
        code: 69,
        patience: Silence,
        cause: SILENCE,
        hint: SILENCE_HINT,
    },
    Fault {
        what: "the end of the connection instead of an answer",
        place: || Place::always(Answer::hang_up()),
        code: 69,
        patience: Again,
        cause: CUT,
        hint: CUT_HINT,
    },
    Fault {
        what: "the same, by TLS",
        place: || Place::of(Faults::tls(&CERTIFICATE, |_, _| Answer::hang_up())),
        code: 69,
        patience: Again,
        cause: CUT,
        hint: CUT_HINT,
    },
    Fault {
        what: "a connection that is reset",
        place: || Place::always(Answer::reset()),
        code: 69,
        patience: Again,
        cause: CUT,
        hint: CUT_HINT,
    },
    Fault {
        what: "a connection that is reset, by TLS",
        place: || Place::of(Faults::tls(&CERTIFICATE, |_, _| Answer::reset())),
        code: 69,
        patience: Again,
        cause: CUT,
        hint: CUT_HINT,
    },
    Fault {
        what: "a body that ends before its length",
        place: || Place::always(good().cut_after(9)),
        code: 69,
        patience: Again,
        cause: CUT,
        hint: CUT_HINT,
    },
    Fault { what: "what is no HTTP", place: || Place::always(Answer::garbage()), code: 69, patience: Again, cause: CUT, hint: CUT_HINT },
    Fault {
        what: "9 MiB",
        place: || Place::always(Answer::oversize()),
        code: 76,
        patience: Once,
        cause: "HOST: the answer is larger than 8 MiB",
        hint: TOO_LARGE_HINT,
    },
    Fault {
        what: "9 MiB in chunks",
        place: || Place::always(good().body(vec![b'x'; 9 << 20]).chunked()),
        code: 76,
        patience: Once,
        cause: "HOST: the answer is larger than 8 MiB",
        hint: TOO_LARGE_HINT,
    },
    Fault {
        what: "400 MiB",
        place: || Place::always(Answer::endless(400 << 20)),
        code: 76,
        patience: Once,
        cause: "HOST: the answer is larger than 8 MiB",
        hint: TOO_LARGE_HINT,
    },
];

/// An answer of OpenBao with this status and these words.
fn errors(status: u16, error: &str) -> Place {
    Place::always(Answer::errors(status, &[error]))
}

const POLICY: &str = "the policy of the login needs path \"secret/data/app\" { capabilities = [\"read\"] }; secret-init policy vault prints all that it needs";
const TOKEN: &str = "the token may have expired or been revoked, or come from another server or namespace";
const TOKEN_OR_POLICY: &str = "the token may have expired or been revoked, or come from another server or namespace; \
    else the policy of the login needs path \"secret/data/app\" { capabilities = [\"read\"] }; secret-init policy vault prints all that it needs";
const ABSENT: &str = "add ?optional=true or ?default=… if it may be missing";
const NOT_VAULT: &str = "does the address lead to Vault or OpenBao, or to something before it?";
const NOT_ITS_JSON: &str = "the answer is not Vault's: it is not the JSON that it should be";
const NO_DATA: &str = "the answer is not Vault's: there is no data in the answer";
const REDIRECTS: &str = "name the active server or its load balancer; a standby redirects when it does not forward requests";

/// A version that is gone, as OpenBao tells of it.
fn gone(destroyed: bool) -> Place {
    let metadata =
        json!({"created_time": "2024-01-01T00:00:00Z", "custom_metadata": null, "deletion_time": "", "destroyed": destroyed, "version": 1});
    Place::always(Answer::errors(404, &[]).body(json!({"data": {"data": null, "metadata": metadata}}).to_string()))
}

/// 200 with this body.
fn says(body: &str) -> Place {
    Place::always(Answer::status(200).header("content-type", "application/json").body(body))
}

/// A fault of Vault that stays.
const fn once(what: &'static str, place: fn() -> Place, code: u8, cause: &'static str, hint: &'static str) -> Fault {
    Fault { what, place, code, patience: Once, cause, hint }
}

/// A fault of Vault that may pass.
const fn again(what: &'static str, place: fn() -> Place, cause: &'static str, hint: &'static str) -> Fault {
    Fault { what, place, code: 69, patience: Again, cause, hint }
}

/// What Vault and OpenBao say, and what only looks as if they said it.
const OF_VAULT: &[Fault] = &[
    once("401", || errors(401, "no"), 77, "permission denied (401)", TOKEN_OR_POLICY),
    // As OpenBao says of a token that it does not know.
    once("403 without a word", || errors(403, "permission denied"), 77, "permission denied (403)", TOKEN_OR_POLICY),
    once("403", || errors(403, "1 error occurred:\n\t* permission denied\n\n"), 77, "permission denied (403)", POLICY),
    once(
        "403 for the token",
        || errors(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"),
        77,
        "the token is not valid (403)",
        TOKEN,
    ),
    once("no token", || errors(400, "missing client token"), 77, "the token is not valid (400)", TOKEN),
    once("404", || Place::always(Answer::errors(404, &[])), 66, "no such secret (404)", ABSENT),
    once("404 of something else", || Place::always(Answer::status(404).body("<html>no</html>")), 66, "no such secret (404)", ABSENT),
    once("404 without a body", || Place::always(Answer::status(404)), 66, "no such secret (404)", ABSENT),
    once(
        "a deleted version",
        || gone(false),
        66,
        "this version was deleted",
        "undelete it, write the secret anew, or ask for another version with ?version=N",
    ),
    once(
        "a destroyed version",
        || gone(true),
        66,
        "this version was destroyed",
        "write the secret anew, or ask for another version with ?version=N",
    ),
    once("a missing key", || says(r#"{"data": {"data": {"other": "v"}, "metadata": {"version": 1}}}"#), 66, "no such key", ABSENT),
    once(
        "a key with null",
        || says(r#"{"data": {"data": {"k": null}, "metadata": {"version": 1}}}"#),
        66,
        "the key is there and its value is null",
        ABSENT,
    ),
    once(
        "a key twice",
        || says(r#"{"data": {"data": {"k": "v", "k": "w"}, "metadata": {"version": 1}}}"#),
        65,
        "the key stands twice in the JSON object",
        "",
    ),
    once("400", || errors(400, "no"), 76, "the request is refused (400)", "check the path and the options"),
    once("405", || errors(405, "unsupported operation"), 76, "the request is refused (405)", "check the path and the options"),
    once("418", || errors(418, "a teapot"), 76, "the request is refused (418)", "check the path and the options"),
    once(
        "a server that wants https",
        || Place::always(Answer::status(400).body("Client sent an HTTP request to an HTTPS server.\n")),
        76,
        "the server listens for https, and was asked by http",
        "write the address with https://",
    ),
    once(
        "a redirect",
        || Place::always(Answer::redirect("https://127.0.0.1:1/v1/secret/data/app")),
        76,
        "the server redirects (307), and a token is not sent elsewhere",
        REDIRECTS,
    ),
    once(
        "a redirect to a page",
        || Place::always(Answer::status(302).header("location", "/login")),
        76,
        "the server redirects (302), and a token is not sent elsewhere",
        REDIRECTS,
    ),
    again(
        "412",
        || errors(412, "required index state not present"),
        "the server has not seen the latest state yet (412)",
        "is it cut off from the active one?",
    ),
    again("429", || errors(429, "too many requests"), "too many requests (429)", "a rate limit quota of the server is used up"),
    again(
        "a standby for disaster recovery",
        || errors(472, "no"),
        "a standby that does not answer (472)",
        "name the active server or its load balancer",
    ),
    again(
        "a standby for performance",
        || errors(473, "no"),
        "a standby that does not answer (473)",
        "name the active server or its load balancer",
    ),
    again("sealed", || errors(503, "Vault is sealed"), "sealed (503)", "unseal it; one that is new has to be initialised first"),
    again("not initialised", || errors(503, "Vault is not initialized"), "not initialised (503)", "initialise and unseal it"),
    again(
        "a standby without an active server",
        || errors(500, "local node not active but active cluster node not found"),
        "a standby, and no server is active (500)",
        "is the active one unsealed?",
    ),
    again("500", || errors(500, "internal error"), "the server fails (500)", "see its log"),
    again("502", || Place::always(Answer::status(502).body("<html>bad gateway</html>")), "the server fails (502)", "see its log"),
    again("503", || Place::always(Answer::status(503)), "the server fails (503)", "see its log"),
    again("504", || Place::always(Answer::status(504)), "the server fails (504)", "see its log"),
    once("no JSON", || says("{\"data\": {\"data\": {\"k\": \"v\"}"), 76, NOT_ITS_JSON, NOT_VAULT),
    once(
        "a page",
        || Place::always(Answer::status(200).header("content-type", "text/html").body("<html>welcome</html>")),
        76,
        NOT_ITS_JSON,
        NOT_VAULT,
    ),
    once(
        "no UTF-8",
        || Place::always(Answer::status(200).body(b"{\"data\": {\"data\": {\"k\": \"\xff\"}, \"metadata\": {\"version\": 1}}}")),
        76,
        NOT_ITS_JSON,
        NOT_VAULT,
    ),
    once("a list", || says("[]"), 76, NOT_ITS_JSON, NOT_VAULT),
    once("a list of what an answer has", || says(r#"[{"k": "v"}, null, "", 0]"#), 76, NOT_ITS_JSON, NOT_VAULT),
    once("a text", || says("\"v\""), 76, NOT_ITS_JSON, NOT_VAULT),
    once("a body of blanks", || says("  "), 76, NOT_ITS_JSON, NOT_VAULT),
    once("a lease that is no number", || says(r#"{"lease_duration": "long", "data": {"k": "v"}}"#), 76, NOT_ITS_JSON, NOT_VAULT),
    once("a lease before now", || says(r#"{"lease_duration": -1, "data": {"k": "v"}}"#), 76, NOT_ITS_JSON, NOT_VAULT),
    once("data twice", || says(r#"{"data": {"k": "v"}, "data": {"k": "w"}}"#), 76, NOT_ITS_JSON, NOT_VAULT),
    once("two values", || says(r#"{"data": {"k": "v"}} {"data": {"k": "w"}}"#), 76, NOT_ITS_JSON, NOT_VAULT),
    once(
        "what lies too deep",
        || says(&format!("{{\"data\": {}1{}}}", "[".repeat(5000), "]".repeat(5000))),
        65,
        "a key is asked for and the secret is no JSON object",
        "",
    ),
    once("no body", || says(""), 76, NO_DATA, NOT_VAULT),
    once("204", || Place::always(Answer::status(204)), 76, NO_DATA, NOT_VAULT),
    once("an empty object", || says("{}"), 76, NO_DATA, NOT_VAULT),
    once("no data", || says(r#"{"data": null}"#), 76, NO_DATA, NOT_VAULT),
    once("no data in the data", || says(r#"{"data": {"data": null, "metadata": {"version": 1}}}"#), 76, NO_DATA, NOT_VAULT),
    once(
        "a list of data",
        || says(r#"{"data": {"data": ["k"], "metadata": {"version": 1}}}"#),
        65,
        "a key is asked for and the secret is no JSON object",
        "",
    ),
    once("a text as data", || says(r#"{"data": "k"}"#), 65, "a key is asked for and the secret is no JSON object", ""),
];

/// What a start with this fault, in this mode, says and does that it should not.
fn misses(store: &Store, fault: &Fault, mode: &str) -> Option<String> {
    let (world, place) = (World::new(), (fault.place)());
    let start = (place.way)((store.start)(&world, &place.address, &place.ca)).flag(mode);
    let start = match fault.patience {
        // Enough for a machine that is busy; one that tries again all the time is told apart.
        Once => start.flag("--timeout=20s"),
        Again => start.flag("--timeout=3s"),
        Silence => start.flag("--timeout=1s"),
    };
    let outcome = start.finishes();
    let cause = fault.cause.replace("HOST", place.host());
    let mut lines = Vec::new();
    if fault.patience == Again {
        lines.push(format!("warning: {}: {cause}; trying again, for 3s at most", store.name));
    }
    lines.push(format!("A: {}: {cause}", store.reference));
    if !fault.hint.is_empty() {
        lines.push(format!("hint: {}", fault.hint));
    }
    lines.push("1 of 1 secret failed; the program was not started".to_owned());
    let expected: String = lines.iter().flat_map(|line| ["secret-init: ", line, "\n"]).collect();
    let is_right = (outcome.stderr.as_str(), outcome.code(), outcome.stdout.as_str()) == (&expected, i32::from(fault.code), "");
    let what = || {
        format!(
            "{}: {} ({mode}): {}, {}not\n{} {expected}",
            store.name,
            fault.what,
            outcome.code(),
            outcome.stdout.clone() + &outcome.stderr,
            fault.code
        )
    };
    (!is_right).then(what)
}

/// Each fault of each store, several at once: most of them wait.
fn all_are_told(stores: &[Store], faults: &[Fault]) {
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let modes = ["--group", "--exec"];
    let each = |store| faults.iter().flat_map(move |fault| modes.map(|mode| (store, fault, mode)));
    let all: Vec<(&Store, &Fault, &str)> = stores.iter().flat_map(each).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(&(store, fault, mode)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let said = misses(store, fault, mode);
                    missed.lock().unwrap().extend(said);
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn every_fault_on_the_way_to_a_store_has_its_exit_code_and_its_words() {
    all_are_told(STORES, ON_THE_WAY);
}

#[test]
fn every_fault_of_vault_has_its_exit_code_and_its_words() {
    all_are_told(&[VAULT], OF_VAULT);
}

/// A start by the token of a variable, at this address.
fn start(world: &World, address: &str) -> Start {
    (VAULT.start)(world, address, &AUTHORITY.ca)
}

/// As [`start`], with this reference, and whatever else is special; it fails so.
#[track_caller]
fn fails(start: Start, code: u8, cause: &str, hint: &str) {
    let lines =
        [&format!("A: {}: {cause}", VAULT.reference), &format!("hint: {hint}"), "1 of 1 secret failed; the program was not started"];
    start.finishes().fails(code, &lines.map(|line: &str| line));
}

// Time.

#[test]
fn a_connection_may_take_three_seconds_and_an_answer_ten() {
    // A full queue: the kernel lets the next one wait.
    let full = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: listen(2) takes two numbers.
    assert_eq!(unsafe { libc::listen(full.as_raw_fd(), 0) }, 0);
    let address = full.local_addr().unwrap();
    let waiting: Vec<TcpStream> = (0..2).map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok()).collect();
    assert!(!waiting.is_empty());
    let silent = Faults::always(Answer::silence());
    let cases = [
        (
            format!("http://{address}"),
            3,
            "no connection within 3 s",
            "is this its address, and does a firewall keep it from being reached?",
        ),
        (silent.address.clone(), 10, "no answer within 10 s", "is it overloaded, or does something on the way hold the answer back?"),
    ];
    std::thread::scope(|scope| {
        for (address, seconds, cause, hint) in &cases {
            scope.spawn(move || {
                let (world, began) = (World::new(), Instant::now());
                let outcome = start(&world, address).flag(format!("--timeout={}s", seconds + 1)).finishes();
                let took = began.elapsed();
                let host = address.strip_prefix("http://").unwrap();
                outcome.fails(
                    69,
                    &[
                        &format!("warning: vault: {host}: {cause}; trying again, for {}s at most", seconds + 1),
                        &format!("A: vault:secret/data/app#k: {host}: {cause}"),
                        &format!("hint: {hint}"),
                        "1 of 1 secret failed; the program was not started",
                    ],
                );
                assert!(took >= Duration::from_secs(*seconds), "{took:?}");
            });
        }
    });
}

/// A server that tells when it was asked.
fn that_notes_when(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (Faults, Arc<Mutex<Vec<Instant>>>) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let server = Faults::start(move |_, number| {
        noted.lock().unwrap().push(Instant::now());
        answer(number)
    });
    (server, times)
}

#[test]
fn pauses_between_attempts_are_random_and_their_bounds_double() {
    let run = || {
        let (server, times) = that_notes_when(|_| Answer::status(502));
        let world = World::new();
        let outcome = start(&world, &server.address).flag("--timeout=4s").finishes();
        assert_eq!(outcome.code(), 69);
        assert_eq!(outcome.stderr.matches("trying again").count(), 1, "{}", outcome.stderr);
        let times = times.lock().unwrap();
        let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (number, pause) in pauses.iter().enumerate() {
            // What the request itself takes, on a machine that is busy.
            let bound = Duration::from_millis(250 << number) + Duration::from_millis(700);
            assert!(*pause < bound, "{pauses:?}");
        }
        pauses
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(run);
        (run(), one.join().unwrap())
    });
    // At most 250 + 500 + 1000 + 2000 ms go before the fifth attempt; by chance there are more of them, and one longer than the whole is not begun.
    assert!((3..40).contains(&one.len()) && (3..40).contains(&other.len()), "{one:?} {other:?}");
    assert_ne!(one, other);
}

#[test]
fn a_server_is_asked_again_when_it_says_so_and_not_before() {
    let (server, times) =
        that_notes_when(|number| if number == 0 { Answer::errors(429, &["no"]).header("retry-after", "2") } else { good() });
    let outcome = start(&World::new(), &server.address).finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "started\n"));
    assert_eq!(outcome.stderr, "secret-init: warning: vault: too many requests (429); trying again, for 1m at most\n");
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_secs(2));
}

#[test]
fn a_server_that_asks_for_more_time_than_there_is_ends_the_start_at_once() {
    let server = Faults::always(Answer::errors(503, &["Vault is sealed"]).header("retry-after", "99999999999"));
    let (world, began) = (World::new(), Instant::now());
    fails(
        start(&world, &server.address).flag("--timeout=20s"),
        69,
        "sealed (503)",
        "unseal it; one that is new has to be initialised first",
    );
    assert_eq!(server.requests().len(), 1);
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_retry_after_that_is_no_number_is_as_good_as_none() {
    for wish in ["", "soon", "-1", "1.5", "18446744073709551616", "Thu, 01 Jan 2099 00:00:00 GMT"] {
        let retried = Answer::errors(503, &["Vault is sealed"]).header("retry-after", wish);
        let server = Faults::in_turn([retried, good()]);
        let outcome = start(&World::new(), &server.address).flag("--timeout=20s").finishes();
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "started\n"), "{wish}: {}", outcome.stderr);
    }
}

// What passes.

#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    for broken in [good().cut_after(9), Answer::reset(), Answer::hang_up()] {
        let server = Faults::in_turn([broken, good()]);
        let outcome = start(&World::new(), &server.address).finishes();
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "started\n"), "{}", outcome.stderr);
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn what_was_answered_is_not_asked_for_again() {
    let server = Faults::start(|request, number| match request.path.as_str() {
        "/v1/secret/data/app" => good(),
        "/v1/secret/data/none" => Answer::errors(404, &[]),
        _ if number < 6 => Answer::status(502),
        _ => good(),
    });
    let world = World::new();
    let start =
        start(&world, &server.address).variable("B", "vault:secret/data/late#k").variable("C", "${vault:secret/data/none?default=d#k}");
    let outcome = start.variable("D", "vault:secret/data/app#k").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "started\n"), "{}", outcome.stderr);
    let asked = |path: &str| server.requests().iter().filter(|request| request.path.ends_with(path)).count();
    assert_eq!((asked("/app"), asked("/none"), asked("/late")), (1, 1, 5));
}

#[test]
fn a_server_that_dies_and_comes_back_while_it_is_asked_answers_after_all() {
    let mut bao = OpenBao::durable();
    bao.kv("app", &json!({"k": "v"}));
    let world = World::new();
    let start = bao.told(world.secret_init()).variable("VAULT_TOKEN", &bao.root).variable("A", "vault:secret/data/app#k");
    // It takes the connection and the request, and gives nothing.
    send(bao.pid(), libc::SIGSTOP);
    let mut running = start.shell("echo got $A").around(&["sh", "-c", "exec \"$@\" 2>&1", "sh"]).spawn();
    eventually("it is asked", || is_connected(&bao.address).then_some(()));
    bao.restart();
    bao.unseal();
    assert_eq!(running.line("got"), "got v");
}

/// Whether somebody has a connection to this address.
fn is_connected(address: &str) -> bool {
    let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
    let there = format!("0100007F:{port:04X} 01");
    fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| line.contains(&there))
}

#[test]
fn a_server_that_is_initialised_and_unsealed_meanwhile_is_waited_for() {
    let mut bao = OpenBao::blank();
    let world = World::new();
    let start = bao.told(world.secret_init()).variable("VAULT_TOKEN", "t0ken").variable("A", "vault:secret/data/app#k");
    let start = start.flag("--timeout=25s").program(["true"]).around(&["sh", "-c", "exec \"$@\" 2>&1", "sh"]);
    let mut running = start.spawn();
    running.line("secret-init: warning: vault: sealed (503); trying again, for 25s at most");
    bao.init();
    bao.unseal();
    // Nobody there knows the token.
    running.line("secret-init: A: vault:secret/data/app#k: permission denied (403)");
    running.line(&format!("secret-init: hint: {TOKEN_OR_POLICY}"));
    assert_eq!(running.finishes().code(), 77);
}

#[test]
fn a_rate_limit_of_the_server_is_waited_out() {
    let bao = OpenBao::start();
    let world = World::new();
    let mut start = bao.told(world.secret_init()).variable("VAULT_TOKEN", "root");
    for number in 0..8 {
        bao.kv(&format!("app{number}"), &json!({"k": number.to_string()}));
        start = start.variable(format!("A{number}"), format!("vault:secret/data/app{number}#k"));
    }
    bao.succeeds("POST", "sys/quotas/rate-limit/few", &json!({"path": "secret/", "rate": 3, "interval": "1s"}));
    let outcome = start.shell("echo $A0$A1$A2$A3$A4$A5$A6$A7").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "01234567\n"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "secret-init: warning: vault: too many requests (429); trying again, for 1m at most\n");
}

// Logins.

/// A server with `AppRole` whose every login gives another token, and which answers a read as the closure says to the token.
fn with_logins(read: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> Faults {
    Faults::start(move |request, number| match request.path.as_str() {
        "/v1/auth/approle/login" => Answer::json(&json!({"auth": {"client_token": format!("token-{number}")}})),
        path => read(path, request.header("x-vault-token").unwrap_or_default()),
    })
}

fn start_with_login(world: &World, server: &Faults) -> Start {
    let start = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_ROLE_ID", "r0le");
    let start = start.variable("VAULT_SECRET_ID_FILE", world.file("secret-id", "s3cret-id"));
    start.variable("A", VAULT.reference).program(["echo", "started"])
}

fn paths(server: &Faults) -> Vec<String> {
    server.requests().into_iter().map(|request| request.path).collect()
}

#[test]
fn a_token_that_is_refused_is_followed_by_one_new_login_and_what_was_refused_is_asked_for_again() {
    let server = with_logins(|path, token| match (path, token) {
        ("/v1/secret/data/other", _) | (_, "token-3") => good(),
        _ => Answer::errors(403, &["permission denied", "invalid token"]),
    });
    let world = World::new();
    let start = start_with_login(&world, &server).variable("B", "vault:secret/data/other#k");
    assert_eq!(start.finishes().succeeds(), "started\n");
    let (login, read) = ("/v1/auth/approle/login", "/v1/secret/data/app");
    assert_eq!(paths(&server), [login, read, "/v1/secret/data/other", login, read]);
}

#[test]
fn a_second_refusal_is_the_last() {
    let server = with_logins(|_, _| Answer::errors(403, &["permission denied", "invalid token"]));
    let world = World::new();
    let hint = "the token may have expired or been revoked, or come from another server or namespace";
    fails(start_with_login(&world, &server), 77, "the token is not valid (403)", hint);
    let (login, read) = ("/v1/auth/approle/login", "/v1/secret/data/app");
    assert_eq!(paths(&server), [login, read, login, read]);
}

/// Another login would have the same policies, and leases would end with the one before.
#[test]
fn a_refusal_by_a_policy_costs_no_login() {
    let server = with_logins(|_, _| Answer::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]));
    let world = World::new();
    fails(start_with_login(&world, &server), 77, "permission denied (403)", POLICY);
    assert_eq!(paths(&server), ["/v1/auth/approle/login", "/v1/secret/data/app"]);
}

#[test]
fn a_token_that_was_given_is_not_tried_twice() {
    let server = Faults::always(Answer::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]));
    let world = World::new();
    fails(start(&world, &server.address), 77, "permission denied (403)", POLICY);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_login_is_tried_again_when_it_may_pass_and_its_token_is_kept() {
    let server = Faults::start(|request, number| match (request.path.as_str(), number) {
        ("/v1/auth/approle/login", 0) => Answer::errors(503, &["Vault is sealed"]),
        ("/v1/auth/approle/login", _) => Answer::json(&json!({"auth": {"client_token": "token"}})),
        (_, 0..4) => Answer::status(502),
        _ => good(),
    });
    let world = World::new();
    let outcome = start_with_login(&world, &server).finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "started\n"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "secret-init: warning: vault: sealed (503); trying again, for 1m at most\n");
    let (login, read) = ("/v1/auth/approle/login", "/v1/secret/data/app");
    assert_eq!(paths(&server), [login, login, read, read, read]);
}

// Where a token goes.

#[test]
fn a_token_follows_no_redirect() {
    let second = Faults::always(good());
    let port = second.address.rsplit(':').next().unwrap();
    for status in [301, 302, 303, 307, 308] {
        for host in ["127.0.0.1", "localhost"] {
            let to = format!("http://{host}:{port}/v1/secret/data/app");
            let first = Faults::always(Answer::status(status).header("location", &to));
            let world = World::new();
            let cause = format!("the server redirects ({status}), and a token is not sent elsewhere");
            fails(start(&world, &first.address), 76, &cause, REDIRECTS);
            assert_eq!(first.requests()[0].header("x-vault-token"), Some("t0ken"));
            // Nor does what a login needs.
            fails(start_with_login(&world, &first), 76, &cause, REDIRECTS);
        }
    }
    assert_eq!(second.connections(), 0);
}

#[test]
fn plain_http_is_for_this_machine_alone_or_by_an_option() {
    let world = World::new();
    let cause = "192.0.2.1:8200: what is sent by http can be read on the way";
    let hint = "use https, or say --allow-http when the network is yours";
    let told = || start(&world, "http://192.0.2.1:8200");
    let lines = |last| [format!("A: vault:secret/data/app#k: {cause}"), format!("hint: {hint}"), last];
    let fails = |start: Start, last: &str| {
        let lines = lines(last.to_owned());
        start.finishes().fails(78, &lines.each_ref().map(String::as_str));
    };
    let last = "1 problem in the plan; the program was not started";
    fails(told(), last);
    fails(told().flag("--exec"), last);
    let aside = |command: &str| {
        let start = world.secret_init().variable("VAULT_ADDR", "http://192.0.2.1:8200").variable("VAULT_TOKEN", "t0ken");
        start.variable("A", VAULT.reference).flag(command)
    };
    fails(aside("plan"), "1 problem in the plan; a start would fail");
    fails(aside("check"), "1 problem in the plan; a start would fail");
    for address in ["http://127.0.0.2:1", "http://[::1]:1", "http://localhost:1", "http://169.254.169.254:1", "http://192.0.2.1:1"] {
        let allowed = if address.contains("192") { "--allow-http" } else { "--group" };
        let outcome = alone(start(&world, address).flag(allowed).flag("--timeout=1s")).finishes();
        assert_eq!(outcome.code(), 69, "{}", outcome.stderr);
    }
}

// What the machine lacks.

#[test]
fn files_of_certificates_and_logins_are_named_when_they_are_missing_or_empty() {
    let (world, server) = (World::new(), Faults::always(good()));
    let empty = world.file("empty", " \n");
    let [none, empty] = [&world.path.join("none"), &empty].map(|path| path.display().to_string());
    let told = || world.secret_init().variable("VAULT_ADDR", &server.address).variable("A", VAULT.reference).program(["true"]);
    let with_token = || told().variable("VAULT_TOKEN", "t0ken");
    let pem = "mount it, or name another file with PEM certificates";
    fails(with_token().variable("VAULT_CACERT", &none), 78, &format!("VAULT_CACERT: {none}: no such file"), pem);
    fails(with_token().variable("SSL_CERT_FILE", &none), 78, &format!("SSL_CERT_FILE: {none}: no such file"), pem);
    let cause = format!("VAULT_CACERT: no certificate in {empty}");
    fails(with_token().variable("VAULT_CACERT", &empty), 78, &cause, "it takes a file with PEM certificates");
    let with_key = |certificate: &str, key: &str| with_token().variable("VAULT_CLIENT_CERT", certificate).variable("VAULT_CLIENT_KEY", key);
    fails(with_key(&none, &none), 78, &format!("{none}: no such file"), pem);
    fails(
        with_key(&empty, &empty),
        78,
        &format!("{empty}: no certificate with its key"),
        "both are PEM files, and the key is that of the certificate",
    );
    let login = "is it mounted, and is this its name?";
    fails(told().variable("VAULT_TOKEN_FILE", &none), 78, &format!("the login needs {none}: no such file"), login);
    let cause = format!("the login needs {empty}: it is empty");
    fails(told().variable("VAULT_TOKEN_FILE", &empty), 78, &cause, "is it written before the container starts?");
    assert_eq!(server.connections(), 0);
}

#[test]
fn too_few_descriptors_are_told() {
    let (world, server) = (World::new(), Faults::always(good()));
    // Without a file of certificates: a system's is passed over when it cannot be read.
    let start = world.secret_init().variable("VAULT_ADDR", &server.address).variable("VAULT_TOKEN", "t0ken");
    let start = start.variable("A", VAULT.reference).program(["true"]);
    for mode in ["--group", "--exec"] {
        let limited = |limit: u32| {
            let limit = format!("ulimit -n {limit}; exec \"$@\"");
            start.clone().flag(mode).under(["sh", "-c", &limit, "sh"]).finishes()
        };
        let mut seen = BTreeSet::new();
        for limit in 3..24 {
            let outcome = limited(limit);
            let (is_right, said) = ([0, 71].contains(&outcome.code()), &outcome.stderr);
            assert!(
                is_right && said.lines().all(|line| line.starts_with("secret-init: ")) && !said.contains("internal"),
                "{mode} {limit}: {outcome:?}"
            );
            seen.extend(said.lines().next().map(str::to_owned));
        }
        assert!(seen.iter().any(|line| line.ends_with(": no descriptor can be had for a connection")), "{seen:#?}");
        limited(24).succeeds();
    }
}

#[test]
fn a_name_that_no_thread_can_look_up_is_told() {
    let world = World::new();
    let copy = world.path.join("secret-init");
    fs::copy(binary(), &copy).unwrap();
    for (mode, processes) in [("--group", 2), ("--exec", 1)] {
        // Of a user of its own, since the limit is one of all that a user runs.
        let limit = format!("--nproc={processes}");
        let start =
            start(&world, "https://store.invalid:8200").flag(mode).under(["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]);
        let cause = "store.invalid:8200: no thread can be had to look the name up";
        fails(start.under(["prlimit", &limit]), 71, cause, "the container may lack processes (--pids-limit)");
    }
}

#[test]
fn a_body_of_any_size_takes_little_memory() {
    let server = Faults::always(Answer::endless(400 << 20));
    let world = World::new();
    let start = start(&world, &server.address).under(["sh", "-c", "ulimit -v 250000; exec \"$@\"", "sh"]);
    fails(start, 76, &format!("{}: the answer is larger than 8 MiB", server.address.strip_prefix("http://").unwrap()), TOO_LARGE_HINT);
}

// Several at once.

#[test]
fn all_that_fails_is_told_in_the_order_of_the_variables_and_the_worst_gives_the_code() {
    let server = Faults::start(|request, _| match request.path.as_str() {
        "/v1/secret/data/denied" => Answer::errors(403, &["1 error occurred:\n\t* permission denied\n\n"]),
        "/v1/secret/data/none" => Answer::errors(404, &[]),
        "/v1/secret/data/odd" => Answer::status(200).body("odd"),
        "/v1/secret/data/down" => Answer::status(502),
        _ => good(),
    });
    let world = World::new();
    let mut start = start(&world, &server.address).flag("--timeout=3s").directory(world.directory());
    for name in ["none", "odd", "down", "denied"] {
        start = start.variable(name.to_uppercase(), format!("vault:secret/data/{name}#k"));
    }
    start.variable("E_FILE", "vault:secret/data/app#k").finishes().fails(
        77,
        &[
            "warning: vault: the server fails (502); trying again, for 3s at most",
            "DENIED: vault:secret/data/denied#k: permission denied (403)",
            &format!("hint: {}", POLICY.replace("app", "denied")),
            "DOWN: vault:secret/data/down#k: the server fails (502)",
            "hint: see its log",
            "NONE: vault:secret/data/none#k: no such secret (404)",
            &format!("hint: {ABSENT}"),
            &format!("ODD: vault:secret/data/odd#k: {NOT_ITS_JSON}"),
            &format!("hint: {NOT_VAULT}"),
            "4 of 6 secrets failed; the program was not started",
        ],
    );
    // Nothing of it is there.
    assert_eq!(support::files::names_in(world.directory()), [""; 0]);
}
