//! The rig's own servers: each starts, answers as the tests of stores need it, keeps what it was asked, and ends.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod support;

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use support::eventually;
use support::servers::faults::{Answer, Faults, deaf, nobody};
use support::servers::ministack::{Keys, MiniStack, REGION};
use support::servers::mitmproxy::Mitmproxy;
use support::servers::openbao::OpenBao;
use support::servers::postgres::Postgres;
use support::servers::{curl, tls};

fn is_closed(address: &str) -> bool {
    TcpStream::connect(address.rsplit('/').next().unwrap()).is_err()
}

#[test]
fn openbao_keeps_secrets_and_policies_over_tls_and_counts_who_asks() {
    let bao = OpenBao::start();
    bao.kv("app", &json!({"password": "p1"}));
    bao.policy("app", "path \"secret/data/app\" { capabilities = [\"read\"] }");
    let token = bao.token(&["app"]);
    let (status, answer) = bao.request_as(&token, &[], "GET", "secret/data/app", &Value::Null);
    assert_eq!((status, &answer["data"]["data"]), (200, &json!({"password": "p1"})));
    assert_eq!(bao.request_as(&token, &[], "GET", "secret/data/other", &Value::Null).0, 403);
    assert_eq!(bao.requests("secret/data/"), ["create secret/data/app", "read secret/data/app", "read secret/data/other"]);

    let wrapped = bao.wrapped("GET", "secret/data/app", &Value::Null);
    let unwrap = || bao.request_as(&wrapped, &[], "POST", "sys/wrapping/unwrap", &Value::Null);
    let (first, second) = (unwrap(), unwrap());
    assert_eq!((first.0, &first.1["data"]["data"]["password"], second.0), (200, &json!("p1"), 400), "{second:?}");

    let address = bao.address.clone();
    drop(bao);
    assert!(is_closed(&address));
}

#[test]
fn openbao_lets_in_who_has_a_certificate() {
    let (bao, authority) = (OpenBao::start(), tls::authority());
    let client = authority.client("app");
    bao.auth("cert", "cert");
    let certificate = tls::pem(&authority.ca);
    bao.succeeds("POST", "auth/cert/certs/app", &json!({"certificate": certificate, "allowed_common_names": "app"}));
    let (ca, path) = (bao.ca.display().to_string(), format!("{}/v1/auth/cert/login", bao.address));
    let (own, key) = (client.certificate.display().to_string(), client.key.display().to_string());
    assert_eq!(curl(&["--cacert", &ca, "--cert", &own, "--key", &key, &path], Some("{}")).0, 200);
    assert_eq!(curl(&["--cacert", &ca, &path], Some("{}")).0, 400);
}

#[test]
fn openbao_without_tls_forgets_with_a_restart() {
    let mut bao = OpenBao::plain();
    bao.kv("app", &json!({"password": "p1"}));
    let (pid, read) = (bao.pid(), |bao: &OpenBao| bao.request("GET", "secret/data/app", &Value::Null).0);
    assert_eq!(read(&bao), 200);
    bao.restart();
    assert_eq!((read(&bao), bao.pid() == pid), (404, false));
    bao.stop();
    assert!(is_closed(&bao.address));
}

#[test]
fn openbao_on_a_disk_is_initialised_sealed_unsealed_and_keeps_its_secrets_over_a_restart() {
    assert_eq!(OpenBao::blank().health(), 501);
    let mut bao = OpenBao::durable();
    bao.kv("app", &json!({"password": "p1"}));
    let read = |bao: &OpenBao| bao.request("GET", "secret/data/app", &Value::Null).0;
    assert_eq!(read(&bao), 200);
    bao.seal();
    assert_eq!(read(&bao), 503);
    bao.unseal();
    assert_eq!(read(&bao), 200);
    bao.restart();
    assert_eq!((bao.health(), read(&bao)), (503, 503));
    bao.unseal();
    assert_eq!(read(&bao), 200);
    assert_eq!(bao.requests("secret/data/app").iter().filter(|asked| asked.starts_with("read")).count(), 3);
}

#[test]
fn openbao_makes_users_of_a_database() {
    let (bao, postgres) = (OpenBao::start(), Postgres::start());
    bao.database(&postgres);
    let login = |path: &str| {
        let answer = bao.succeeds("GET", path, &Value::Null);
        let (user, password) = (answer["data"]["username"].as_str().unwrap(), answer["data"]["password"].as_str().unwrap());
        (postgres.query_as(user, password, "SELECT current_user").unwrap() == user, answer)
    };
    let (is_in, answer) = login("database/creds/app");
    assert!(is_in && answer["lease_duration"] == 3600 && answer["renewable"] == true, "{answer}");
    let (is_in, answer) = login("database/static-creds/fixed");
    assert!(is_in && answer["data"]["username"] == "static", "{answer}");
    assert!(postgres.query_as("static", "guess", "SELECT 1").unwrap_err().contains("password authentication failed"));
}

#[test]
fn ministack_checks_signatures_and_policies_and_counts_calls() {
    let stack = MiniStack::start(true);
    let arn = stack.create_secret("app", "p1");
    stack.put_parameter("/app/password", "SecureString", "p2");
    let policy =
        json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": arn}]});
    let user = stack.user("app", &policy);
    let get = |keys: &Keys| stack.call_as(keys, REGION, "secretsmanager.GetSecretValue", &json!({"SecretId": "app"}));
    let get_parameter = json!({"Name": "/app/password", "WithDecryption": true});
    assert_eq!(get(&user).1["SecretString"], "p1");
    assert_eq!(stack.call("AmazonSSM.GetParameter", &get_parameter)["Parameter"]["Value"], "p2");
    let kind = |answer: (u16, Value)| answer.1["__type"].as_str().unwrap().to_owned();
    assert!(kind(stack.call_as(&user, REGION, "AmazonSSM.GetParameter", &get_parameter)).contains("AccessDenied"));
    assert!(kind(get(&Keys { secret: "guess".to_owned(), ..user })).contains("InvalidSignature"));
    assert!(kind(get(&Keys { id: "AKIAUNKNOWN".to_owned(), secret: "guess".to_owned() })).contains("UnrecognizedClient"));
    let asked = stack.requests();
    assert_eq!(asked.iter().filter(|asked| *asked == "secretsmanager.GetSecretValue").count(), 3, "{asked:?}");

    let address = stack.address.clone();
    drop(stack);
    assert!(is_closed(&address));
}

#[test]
fn ministack_has_credentials_of_a_machine_and_of_a_container() {
    let stack = MiniStack::start(false);
    let path = format!("{}latest/meta-data/iam/security-credentials/", stack.imds());
    assert_eq!(curl(&[&path], None).0, 401);
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60";
    let (_, token) = curl(&["--request", "PUT", "--header", ttl, &format!("{}latest/api/token", stack.imds())], None);
    let token = format!("X-aws-ec2-metadata-token: {token}");
    let (_, role) = curl(&["--header", &token, &path], None);
    for answer in [curl(&["--header", &token, &format!("{path}{role}")], None), curl(&[stack.ecs()], None)] {
        let keys: Value = serde_json::from_str(&answer.1).unwrap();
        assert!(keys["AccessKeyId"].is_string() && keys["SecretAccessKey"].is_string() && keys["Token"].is_string(), "{keys}");
    }
    assert!(stack.requests().contains(&"PUT /latest/api/token".to_owned()));
}

#[test]
fn ministack_over_tls_shows_a_certificate_of_ours() {
    let stack = MiniStack::tls(true);
    stack.create_secret("app", "p1");
    assert_eq!(stack.call("secretsmanager.GetSecretValue", &json!({"SecretId": "app"}))["SecretString"], "p1");
    assert_eq!(curl(&["--cacert", "/dev/null", &stack.address], None).0, 0);
}

#[test]
fn mitmproxy_stands_in_front_of_a_real_server_and_changes_what_it_says() {
    let bao = OpenBao::start();
    let script = "def response(flow):\n    flow.response.headers['x-seen'] = 'yes'\n    flow.response.status_code = 418\n";
    let proxy = Mitmproxy::start(&bao.address, Some(&bao.ca), script);
    let (path, ca) = (format!("https://127.0.0.1:{}/v1/sys/health", proxy.port), proxy.ca.display().to_string());
    let (status, text) = curl(&["--include", "--cacert", &ca, &path], None);
    assert!(status == 418 && text.contains("x-seen: yes") && text.contains("\"sealed\":false"), "{status} {text}");
}

#[test]
fn a_server_that_is_never_dropped_ends_with_the_process_of_the_tests() {
    const NAME: &str = "a_server_that_is_never_dropped_ends_with_the_process_of_the_tests";
    if std::env::var_os("SECRET_INIT_TEST_INNER").is_some() {
        let (bao, postgres, stack) = (OpenBao::start(), Postgres::start(), MiniStack::start(false));
        println!("LEFT {} {} 127.0.0.1:{} {}", bao.ca.display(), bao.address, postgres.port, stack.address);
        std::mem::forget((bao, postgres, stack));
        return;
    }
    let mut inner = Command::new(std::env::current_exe().unwrap());
    let output = inner.args(["--exact", NAME, "--nocapture"]).env("SECRET_INIT_TEST_INNER", "1").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let left = text.lines().find_map(|line| line.split_once("LEFT ")).unwrap_or_else(|| panic!("{text}")).1;
    let (ca, addresses) = left.split_once(' ').unwrap();
    let folder = Path::new(ca).ancestors().nth(2).unwrap();
    assert!(folder.file_name().unwrap().to_str().unwrap().starts_with("secret-init-servers-"));
    eventually("the folders are gone", || (!folder.exists()).then_some(()));
    for address in addresses.split(' ') {
        eventually("the port is closed", || is_closed(address).then_some(()));
    }
}

#[test]
fn a_server_of_the_tests_answers_in_turn_and_keeps_what_it_was_asked() {
    let busy = || Answer::errors(503, &["busy"]).header("retry-after", "2");
    let faults = Faults::in_turn([busy(), busy(), Answer::json(&json!({"data": 1}))]);
    let path = format!("{}/v1/secret/data/app?version=1", faults.address);
    let ask = || curl(&["--include", "--header", "X-Vault-Token: t0ken", &path], Some("{\"a\":1}"));
    let answers = [ask(), ask(), ask(), ask()];
    assert_eq!(answers.each_ref().map(|(status, _)| *status), [503, 503, 200, 200]);
    assert!(answers[0].1.contains("retry-after: 2\r\n") && answers[0].1.ends_with("\r\n\r\n{\"errors\":[\"busy\"]}"), "{answers:?}");
    let requests = faults.requests();
    assert_eq!((requests.len(), faults.connections()), (4, 4));
    let request = &requests[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/secret/data/app?version=1"));
    assert_eq!((request.header("x-vault-token"), request.json()), (Some("t0ken"), json!({"a": 1})));

    let address = faults.address.clone();
    drop(faults);
    eventually("its port is closed", || is_closed(&address).then_some(()));
}

#[test]
fn a_server_of_the_tests_has_every_fault() {
    /// The exit code of curl tells the fault, by its manual.
    fn exit_code(words: &[&str]) -> i32 {
        let words = [&["--silent", "--noproxy", "*", "--output", "/dev/null", "--max-time", "0.5"], words].concat();
        Command::new("curl").args(words).status().unwrap().code().unwrap()
    }
    let of = |answer: Answer| exit_code(&[&Faults::always(answer).address]);
    let (partial, too_long, too_late, empty, no_http) = (18, 63, 28, 52, 1);
    let text = || Answer::status(200).body("0123456789");
    assert_eq!(of(text()), 0);
    assert_eq!(of(text().chunked()), 0);
    let dripping = Faults::always(text().dripping(Duration::from_millis(1)));
    assert_eq!(exit_code(&["--max-time", "20", &dripping.address]), 0);
    assert_eq!(of(text().dripping(Duration::from_millis(100))), too_late);
    assert_eq!(of(text().with_a_dripping_body(Duration::from_millis(100))), too_late);
    assert_eq!(of(text().cut_after(3)), partial);
    assert_eq!(of(Answer::silence()), too_late);
    assert_eq!(of(Answer::hang_up()), empty);
    assert_eq!(of(Answer::garbage()), no_http);
    let oversize = Faults::always(Answer::oversize());
    assert_eq!(exit_code(&["--max-filesize", "8388608", &oversize.address]), too_long);
    assert_eq!(exit_code(&[&nobody()]), 7);
    let (address, _listener) = deaf();
    assert_eq!(exit_code(&[&address]), too_late);

    let second = Faults::always(text());
    let first = Faults::always(Answer::redirect(&second.address));
    assert_eq!(curl(&["--location", "--header", "X-Vault-Token: t0ken", &first.address], None).0, 200);
    assert_eq!(second.requests()[0].header("x-vault-token"), Some("t0ken"));
}

#[cfg(feature = "remote")]
#[test]
fn a_server_of_the_tests_shows_certificates_that_are_not_to_be_trusted() {
    let (authority, stranger) = (tls::authority(), tls::authority());
    let said = |certificate: &tls::Certificate, ca: &Path| {
        let faults = Faults::tls(certificate, |_, _| Answer::status(200));
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"]).arg(ca).arg(&faults.address);
        String::from_utf8(curl.output().unwrap().stderr).unwrap()
    };
    assert_eq!(said(&authority.server(), &authority.ca), "");
    for (certificate, cause) in [
        (authority.expired_server(), "certificate has expired"),
        (authority.server_of_another_name(), "no alternative certificate subject name matches"),
        (stranger.server(), "unable to get local issuer certificate"),
    ] {
        let said = said(&certificate, &authority.ca);
        assert!(said.contains(cause), "{said}");
    }
}
