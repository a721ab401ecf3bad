//! What can be wrong with a store at a start: each fault has its exit code and its words, and the program does not run.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use serde_json::json;
use support::servers::faults::{Answer, Faults, deaf, nobody};
use support::servers::tls::{self, Authority, Certificate};
use support::{Start, World};

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

/// All of them.
const STORES: &[Store] = &[VAULT];

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
    _server: Box<dyn Any>,
}

impl Place {
    fn at(address: impl Into<String>) -> Self {
        Self { address: address.into(), way: |start| start, ca: AUTHORITY.ca.clone(), _server: Box::new(()) }
    }

    fn of(server: Faults) -> Self {
        Self { _server: Box::new(server), ..Self::at("") }.called()
    }

    fn called(mut self) -> Self {
        self.address = self._server.downcast_ref::<Faults>().unwrap().address.clone();
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
            Place { _server: Box::new(listener), ..Place::at(address) }
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
            Place { _server: Box::new(listener), ..Place::at(address.replace("http:", "https:")) }
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
        hint: "is this its address? no answer with a secret is so large",
    },
    Fault {
        what: "9 MiB in chunks",
        place: || Place::always(good().body(vec![b'x'; 9 << 20]).chunked()),
        code: 76,
        patience: Once,
        cause: "HOST: the answer is larger than 8 MiB",
        hint: "is this its address? no answer with a secret is so large",
    },
    Fault {
        what: "400 MiB",
        place: || Place::always(Answer::endless(400 << 20)),
        code: 76,
        patience: Once,
        cause: "HOST: the answer is larger than 8 MiB",
        hint: "is this its address? no answer with a secret is so large",
    },
];

static OTHER_AUTHORITY: LazyLock<Authority> = LazyLock::new(tls::authority);

/// An answer of OpenBao with this status and these words.
fn errors(status: u16, error: &str) -> Place {
    Place::always(Answer::errors(status, &[error]))
}

const POLICY: &str = "the policy of the login needs path \"secret/data/app\" { capabilities = [\"read\"] }; secret-init policy vault prints all that it needs";
const TOKEN: &str = "it may have expired or been revoked, or come from another server or namespace";
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
    once("401", || errors(401, "no"), 77, "permission denied (401)", POLICY),
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
    again("sealed", || errors(503, "Vault is sealed"), "sealed (503)", "unseal it"),
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
    once("a list", || says("[]"), 76, NO_DATA, NOT_VAULT),
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
    let expected: String = lines.iter().map(|line| format!("secret-init: {line}\n")).collect();
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
