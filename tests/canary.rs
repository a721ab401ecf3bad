//! Whatever a store says, and however we log in to it: no secret and no credential is in a message, in any form.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use serde_json::{Value, json};
use support::canary::Canary;
use support::files::after;
use support::servers::faults::{Answer, Faults, Request};
use support::servers::tls::{self, Authority, Certificate};
use support::{Start, World};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(tls::authority);
static SERVER: LazyLock<Certificate> = LazyLock::new(|| AUTHORITY.server());
static CLIENT: LazyLock<Certificate> = LazyLock::new(|| AUTHORITY.client("app"));

/// What a start logs in with, each a text of its own, and what the store has and gives.
struct Canaries {
    all: Vec<(&'static str, Canary)>,
}

/// Those that go to the server.
const SENT: [&str; 10] = [
    "token",
    "role id",
    "secret id",
    "wrapped secret id",
    "wrapped token",
    "password",
    "jwt",
    "session token",
    "web identity",
    "container token",
];
/// Those that come from it.
const GIVEN: [&str; 4] = ["secret", "wild secret", "given token", "given key"];
/// What never leaves the machine.
const KEPT: [&str; 2] = ["client key", "secret key"];

impl Canaries {
    fn new() -> Self {
        let mut all: Vec<(&str, Canary)> =
            [&SENT[..], &GIVEN[..], &KEPT[..]].concat().into_iter().map(|name| (name, Canary::new())).collect();
        let wild = all.iter_mut().find(|(name, _)| *name == "wild secret").unwrap();
        wild.1 = Canary::wild();
        // Of a key the middle of its text stands for all.
        let key = fs::read_to_string(&CLIENT.key).unwrap();
        let middle = key.lines().nth(1).unwrap();
        all.iter_mut().find(|(name, _)| *name == "client key").unwrap().1 = Canary(middle.to_owned());
        Self { all }
    }

    fn of(&self, name: &str) -> &str {
        &self.all.iter().find(|(own, _)| *own == name).unwrap_or_else(|| panic!("{name}")).1.0
    }
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);
static CANARIES: LazyLock<Canaries> = LazyLock::new(Canaries::new);

fn file(name: &str, canary: &str) -> PathBuf {
    // The first that asks makes it.
    let path = WORLD.path.join(name);
    if !path.exists() {
        let half = WORLD.file(&format!("{name}-{:?}", std::thread::current().id()), CANARIES.of(canary));
        fs::rename(half, &path).unwrap();
    }
    path
}

/// A way to log in: how it is set, and which canaries the server is to get by it.
struct Login {
    name: &'static str,
    set: fn(Start, &str) -> Start,
    sends: &'static [&'static str],
    is_aws: bool,
}

fn configured(start: Start, name: &str, auth: &Value) -> Start {
    let config = json!({ "stores": { "vault": { "auth": auth } } }).to_string();
    let path = WORLD.path.join(name);
    fs::write(&path, config).unwrap();
    start.flag("--config").flag(path)
}

/// Each way to log in.
const LOGINS: &[Login] = &[
    Login { name: "a token", set: |start, _| start.variable("VAULT_TOKEN", CANARIES.of("token")), sends: &["token"], is_aws: false },
    Login {
        name: "a token in a file",
        set: |start, _| start.variable("VAULT_TOKEN_FILE", file("token", "token")),
        sends: &["token"],
        is_aws: false,
    },
    Login {
        name: "a wrapped token",
        set: |start, _| {
            let token = file("wrapped", "wrapped token");
            configured(start, "wrapped.yaml", &json!({"method": "token", "token_file": token, "creation_path": "auth/token/create"}))
        },
        sends: &["wrapped token"],
        is_aws: false,
    },
    Login {
        name: "AppRole",
        set: |start, _| start.variable("VAULT_ROLE_ID", CANARIES.of("role id")).variable("VAULT_SECRET_ID", CANARIES.of("secret id")),
        sends: &["role id", "secret id"],
        is_aws: false,
    },
    Login {
        name: "a wrapped secret id",
        set: |start, _| {
            let secret_id = file("secret-id", "wrapped secret id");
            let auth = json!({"method": "approle", "role_id": CANARIES.of("role id"), "secret_id_file": secret_id, "creation_path": "auth/approle/x"});
            configured(start, "approle.yaml", &auth)
        },
        sends: &["wrapped secret id"],
        is_aws: false,
    },
    Login {
        name: "userpass",
        set: |start, _| start.variable("VAULT_USERNAME", "me").variable("VAULT_PASSWORD", CANARIES.of("password")),
        sends: &["password"],
        is_aws: false,
    },
    Login {
        name: "Kubernetes",
        set: |start, _| start.variable("VAULT_ROLE", "app").variable("VAULT_JWT_FILE", file("jwt", "jwt")),
        sends: &["jwt"],
        is_aws: false,
    },
    Login {
        name: "jwt",
        set: |start, _| configured(start, "jwt.yaml", &json!({"method": "jwt", "role": "app", "jwt_file": file("jwt", "jwt")})),
        sends: &["jwt"],
        is_aws: false,
    },
    Login {
        name: "a certificate",
        set: |start, _| {
            let start = start.variable("VAULT_AUTH_METHOD", "cert").variable("VAULT_CLIENT_CERT", &CLIENT.certificate);
            start.variable("VAULT_CLIENT_KEY", &CLIENT.key)
        },
        sends: &[],
        is_aws: false,
    },
    Login {
        name: "keys",
        set: |start, _| {
            let start = start.variable("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").variable("AWS_SECRET_ACCESS_KEY", CANARIES.of("secret key"));
            start.variable("AWS_SESSION_TOKEN", CANARIES.of("session token"))
        },
        sends: &["session token"],
        is_aws: true,
    },
    Login {
        name: "a profile",
        set: |start, _| {
            let (key, token) = (CANARIES.of("secret key"), CANARIES.of("session token"));
            let path = WORLD.path.join("credentials");
            let text = format!("[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {key}\naws_session_token = {token}\n");
            fs::write(&path, text).unwrap();
            start.variable("AWS_SHARED_CREDENTIALS_FILE", path)
        },
        sends: &["session token"],
        is_aws: true,
    },
    Login {
        name: "a broken profile",
        set: |start, _| {
            let path = WORLD.path.join("broken");
            fs::write(&path, format!("[default\n{}\n = {}", CANARIES.of("secret key"), CANARIES.of("secret key"))).unwrap();
            start.variable("AWS_SHARED_CREDENTIALS_FILE", path).variable("AWS_EC2_METADATA_DISABLED", "true")
        },
        sends: &[],
        is_aws: true,
    },
    Login {
        name: "the container's credentials",
        set: |start, address| {
            let start = start.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{address}/credentials"));
            start.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", CANARIES.of("container token"))
        },
        sends: &["container token"],
        is_aws: true,
    },
    Login {
        name: "a web identity",
        set: |start, _| {
            let start = start.variable("AWS_WEB_IDENTITY_TOKEN_FILE", file("identity", "web identity"));
            start.variable("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/app").variable("AWS_EC2_METADATA_DISABLED", "true")
        },
        sends: &["web identity"],
        is_aws: true,
    },
];

/// Prints what Kubernetes would find in the file for the reason of an end.
const WITH_A_TERMINATION_LOG: &str = "mount --bind /dev/shm /mnt && mount -t tmpfs none /dev && mkdir /dev/shm && mount --bind /mnt /dev/shm && \
    : >/dev/termination-log && { \"$@\"; code=$?; cat /dev/termination-log; exit $code; }";

/// A start by this login, at this address. It is as talkative as it can be.
fn start(world: &World, login: &Login, address: &str) -> Start {
    let start = world.secret_init().flag("--log-level=info").flag("--timeout=1s").directory(world.directory());
    let start = start.variable("RUST_LOG", "trace").variable("RUST_BACKTRACE", "full").variable("RUST_LIB_BACKTRACE", "full");
    let start = start
        .variable("VAULT_CACERT", &AUTHORITY.ca)
        .variable("AWS_CA_BUNDLE", &AUTHORITY.ca)
        .variable("SSLKEYLOGFILE", world.path.join("keys"));
    let start = (login.set)(start, address);
    let reference = |what: &str| if login.is_aws { format!("aws-sm:{what}") } else { format!("vault:secret/data/{what}") };
    let start = if login.is_aws {
        let start = start.variable("AWS_REGION", "eu-central-1").variable("AWS_ENDPOINT_URL", address);
        start.variable("C", format!("${{aws-ssm:/{}}}", "c"))
    } else {
        start.variable("VAULT_ADDR", address)
    };
    start.variable("A", format!("{}#k", reference("app"))).variable("B_FILE", format!("${{{}}}", reference("other")))
}

/// What was sent, as a text that can be in an answer.
fn echo(request: &Request) -> String {
    let headers: Vec<&str> = request.headers.iter().map(|(_, value)| value.as_str()).collect();
    format!("{} {} {}", request.path, headers.join(" "), String::from_utf8_lossy(&request.body))
}

/// What a header can hold of it.
fn header(request: &Request) -> String {
    echo(request).chars().filter(|char| char.is_ascii_graphic() || *char == ' ').collect()
}

/// An answer that gives everything away: what was sent, or what is secret.
type Evil = (&'static str, fn(&Request) -> Answer);

fn secret() -> Value {
    json!({"k": CANARIES.of("secret"), "w": CANARIES.of("wild secret")})
}

/// KV of version 2, and a secret of AWS, with this content.
fn with_content(request: &Request, content: &Value) -> Answer {
    if is_aws(request) {
        let string = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        return Answer::json(&json!({"Name": "app", "VersionId": "v1", "SecretString": string}));
    }
    Answer::json(&json!({"data": {"data": content, "metadata": {"version": 1}}}))
}

fn is_aws(request: &Request) -> bool {
    request.header("x-amz-target").is_some()
}

/// What a login gives.
fn login(request: &Request) -> Option<Answer> {
    let token = CANARIES.of("given token");
    let text = String::from_utf8_lossy(&request.body);
    if text.contains("AssumeRoleWithWebIdentity") {
        let key = CANARIES.of("given key");
        let credentials = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>{key}</SecretAccessKey><SessionToken>{token}</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        return Some(Answer::status(200).header("content-type", "text/xml").body(credentials));
    }
    match request.path.as_str() {
        "/credentials" => {
            let (key, end) = (CANARIES.of("given key"), "2099-01-01T00:00:00Z");
            Some(Answer::json(&json!({"AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": key, "Token": token, "Expiration": end})))
        }
        "/v1/sys/wrapping/lookup" => {
            let by = if text.contains(CANARIES.of("wrapped token")) { "auth/token/create" } else { "auth/approle/x" };
            Some(Answer::json(&json!({"data": {"creation_path": by}})))
        }
        "/v1/sys/wrapping/unwrap" => {
            Some(Answer::json(&json!({"auth": {"client_token": token}, "data": {"secret_id": CANARIES.of("secret id")}})))
        }
        path if path.ends_with("/login") || path.contains("/login/") => Some(Answer::json(&json!({"auth": {"client_token": token}}))),
        _ => None,
    }
}

/// Told to whoever logs in, and to who reads, as it is.
const AT_ONCE: &[Evil] = &[
    ("400", |request| Answer::errors(400, &[&echo(request)])),
    ("401", |request| Answer::errors(401, &[&echo(request)])),
    ("403", |request| Answer::errors(403, &[&format!("1 error occurred {}", echo(request))])),
    ("403 for the token", |request| Answer::errors(403, &[&format!("invalid token {}", echo(request))])),
    ("404", |request| Answer::errors(404, &[&echo(request)])),
    ("404 for an engine", |request| Answer::errors(404, &[&format!("no handler for route {}", echo(request))])),
    ("418", |request| Answer::errors(418, &[&echo(request)])),
    ("429", |request| Answer::errors(429, &[&echo(request)]).header("retry-after", &header(request))),
    ("500", |request| Answer::errors(500, &[&echo(request)])),
    ("503", |request| Answer::errors(503, &[&format!("Vault is sealed {}", echo(request))])),
    ("a redirect", |request| Answer::status(307).header("location", &format!("https://{}/", header(request).replace(' ', "-")))),
    ("headers", |request| {
        Answer::status(403).header("x-error", &header(request)).header("server", &header(request)).header("date", &header(request))
    }),
    ("the words of a status", |request| Answer::raw(format!("HTTP/1.1 403 {}\r\ncontent-length: 0\r\n\r\n", header(request)))),
    ("a status that is none", |request| Answer::raw(format!("HTTP/1.1 {} 403\r\n\r\n", header(request)))),
    ("no HTTP", |request| Answer::raw(echo(request))),
    ("no JSON", |request| Answer::status(200).body(echo(request))),
    ("a text", |request| Answer::json(&json!(echo(request)))),
    ("values of other kinds", |request| {
        let echo = echo(request);
        Answer::json(
            &json!({"auth": echo, "data": echo, "lease_id": 1, "lease_duration": echo, "SecretString": [echo], "VersionId": {}, "Parameters": echo}),
        )
    }),
    ("a field of another kind", |request| {
        Answer::json(&json!({"lease_duration": echo(request), "auth": {"client_token": [echo(request)]}}))
    }),
    ("another creation path", |request| Answer::json(&json!({"data": {"creation_path": echo(request)}}))),
    ("a token that no header holds", |request| {
        Answer::json(&json!({"auth": {"client_token": format!("{}\n", echo(request))}, "data": {"creation_path": "auth/approle/x"}}))
    }),
    ("keys", |request| Answer::json(&json!({echo(request): {echo(request): 1}}))),
    ("half a body", |request| Answer::errors(400, &[&echo(request)]).cut_after(20)),
    ("an error of AWS", |request| {
        Answer::json(&json!({"__type": format!("{}Exception", header(request)), "message": echo(request), "Message": echo(request)}))
            .with_status(400)
    }),
    ("a denial of AWS", |request| Answer::json(&json!({"__type": "AccessDeniedException", "message": echo(request)})).with_status(400)),
    ("another denial of AWS", |request| {
        Answer::json(&json!({"__type": "UnrecognizedClientException", "message": echo(request)})).with_status(400)
    }),
    ("an error in XML", |request| {
        let xml = format!("<ErrorResponse><Error><Code>{0}</Code><Message>{0}</Message></Error></ErrorResponse>", echo(request));
        Answer::status(400).header("content-type", "text/xml").body(xml)
    }),
];

/// Told after a login that went well.
const AFTER_A_LOGIN: &[Evil] = &[
    ("all is well", |request| with_content(request, &secret())),
    ("a secret that is no object", |request| with_content(request, &json!(CANARIES.of("wild secret")))),
    ("a list", |request| with_content(request, &json!([CANARIES.of("secret")]))),
    ("no such key", |request| with_content(request, &json!({CANARIES.of("secret"): CANARIES.of("wild secret")}))),
    ("a key with null", |request| with_content(request, &json!({"k": null, CANARIES.of("secret"): 1}))),
    ("a NUL", |request| with_content(request, &json!({"k": format!("{}\0{}", CANARIES.of("secret"), CANARIES.of("wild secret"))}))),
    ("a key that stands twice", |request| {
        let (secret, wild) = (CANARIES.of("secret"), json!(CANARIES.of("wild secret")));
        let content = format!("{{\"k\": \"{secret}\", \"k\": {wild}}}");
        if is_aws(request) {
            return with_content(request, &json!(content));
        }
        Answer::status(200).body(format!("{{\"data\": {{\"data\": {content}, \"metadata\": {{\"version\": 1}}}}}}"))
    }),
    ("broken JSON behind the secret", |request| {
        let answer = with_content(request, &secret());
        Answer::status(200).body(format!("{},", answer.text()))
    }),
    ("half a body", |request| {
        let answer = with_content(request, &secret());
        let half = answer.text().len() / 2;
        answer.cut_after(half)
    }),
    ("too large", |request| with_content(request, &json!({"k": CANARIES.of("secret").repeat(40_000)}))),
    ("a version that is none", |request| {
        let version = echo(request);
        Answer::json(
            &json!({"Name": "app", "VersionId": version, "SecretString": secret().to_string(), "data": {"data": secret(), "metadata": {"version": version}}}),
        )
    }),
    ("a lease", |request| {
        if is_aws(request) {
            return with_content(request, &secret());
        }
        Answer::json(&json!({"lease_id": CANARIES.of("secret"), "lease_duration": 60, "data": secret()}))
    }),
    ("denied", |_| Answer::errors(403, &[&format!("1 error occurred {} {}", CANARIES.of("secret"), CANARIES.of("given token"))])),
    ("gone", |_| {
        let metadata = json!({"deletion_time": CANARIES.of("secret"), "destroyed": true, "version": 1});
        Answer::errors(404, &[]).body(json!({"data": {"data": secret(), "metadata": metadata}}).to_string())
    }),
];

/// Every answer to every login, in several modes, and what was said put into a folder.
fn ask_all(outputs: &Path, modes: &[&[&str]]) -> Vec<(String, i32)> {
    let mut cases = Vec::new();
    for login in LOGINS {
        for mode in modes {
            cases.extend(AT_ONCE.iter().map(|evil| (login, *evil, false, *mode)));
            cases.extend(AFTER_A_LOGIN.iter().map(|evil| (login, *evil, true, *mode)));
        }
    }
    let (next, codes, sent) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while let Some(&(how, (what, evil), is_later, mode)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let server = Faults::tls(&SERVER, move |request, _| {
                        let first = if is_later { login(request) } else { None };
                        first.unwrap_or_else(|| evil(request))
                    });
                    let world = World::new();
                    let start = mode.iter().fold(start(&world, how, &server.address), support::Start::flag);
                    let start = match mode[0] {
                        "check" => start,
                        "--group" => after(start.program(["true"]), WITH_A_TERMINATION_LOG),
                        _ => start.program(["true"]),
                    };
                    let outcome = start.finishes();
                    let name = format!("{} - {what} - {is_later} - {}", how.name, mode.join(" "));
                    assert!(!world.path.join("keys").exists(), "{name}: the keys of TLS were written down");
                    fs::write(outputs.join(&name), outcome.stdout.clone() + &outcome.stderr).unwrap();
                    sent.lock().unwrap().push((how.name, format!("{:?}", server.requests())));
                    codes.lock().unwrap().push((name, outcome.code()));
                }
            });
        }
    });
    // Without them there would be nothing to be found.
    let sent = sent.into_inner().unwrap();
    for login in LOGINS {
        for canary in login.sends {
            // Up to what a form writes otherwise.
            let canary_of = &CANARIES.of(canary)[..17];
            let is_sent = |text: &str| text.contains(canary_of) || text.contains(&bytes_of(canary_of));
            assert!(
                sent.iter().any(|(name, text)| *name == login.name && is_sent(text)),
                "{}: the server did not get the {canary}",
                login.name
            );
        }
    }
    codes.into_inner().unwrap()
}

/// As a body is shown.
fn bytes_of(text: &str) -> String {
    format!("{:?}", text.as_bytes()).trim_matches(['[', ']']).to_owned()
}

#[test]
fn no_message_holds_what_was_sent_or_what_is_secret() {
    let outputs = WORLD.path.join("outputs");
    fs::create_dir(&outputs).unwrap();
    let modes: &[&[&str]] = &[&["--group"], &["--exec", "--log-format=json"], &["check"]];
    let codes = ask_all(&outputs, modes);
    let count = |wanted: i32| codes.iter().filter(|(_, code)| *code == wanted).count();
    assert!([0, 65, 66, 69, 76, 77, 78].iter().all(|&code| count(code) > 50), "{codes:?}");
    let odd: Vec<_> = codes.iter().filter(|(_, code)| ![0, 65, 66, 69, 76, 77, 78].contains(code)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    // The file for the reason of an end had its part.
    let said = fs::read_to_string(outputs.join("a token - 403 - false - --group")).unwrap();
    assert_eq!(said.matches("2 of 2 secrets failed; the program was not started").count(), 2, "{said}");
    for (name, canary) in &CANARIES.all {
        assert_eq!(canary.found_in(&World::new(), &outputs), "", "{name}");
    }
}
