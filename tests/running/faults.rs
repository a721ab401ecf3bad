//! Faults of the store, and of the way to it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::rig::Store;
use crate::support::servers::faults::Answer;

/// What is wrong, for three looks: nothing changes, and it is told once. Then it is over, and the program has what is new.
#[track_caller]
fn is_survived(begin: impl Fn(&Store), code: i32, cause: &str) {
    let store = Store::new();
    let mut watched = store.watched("");
    begin(&store);
    for _ in 0..3 {
        watched.stays(code, cause);
    }
    store.put("two");
    store.answers_truly();
    watched.hears(1, "two");
    let said = watched.ends(1);
    let told = said.lines().filter(|line| line.starts_with("secret-init: warning: A_FILE: vault:secret/data/running/"));
    let told: Vec<&str> = told.filter(|line| line.contains(cause) && line.ends_with("; the program keeps what it has")).collect();
    // Each reason once.
    let reasons: std::collections::BTreeSet<&str> = told.iter().copied().collect();
    assert!(!told.is_empty() && told.len() == reasons.len(), "{said}");
}

/// A line for each row of the matrix: its name, what the store does, the exit code of a refresh, and the beginning of the cause.
macro_rules! faults {
    ($($name:ident: $begin:expr, $code:literal, $cause:literal;)*) => {
        $(#[test]
        fn $name() {
            is_survived($begin, $code, $cause);
        })*
    };
}

/// An answer as the real server would give it.
fn good() -> Answer {
    Answer::json(&json!({"data": {"data": {"k": "other"}, "metadata": {"version": 9}}}))
}

fn with(data: &str) -> Answer {
    good().body(format!(r#"{{"data":{data}}}"#))
}

/// One answer for all that is asked.
fn says(answer: Answer) -> impl Fn(&Store) {
    move |store| store.answers([answer.clone()])
}

const SLOWLY: Duration = Duration::from_millis(500);

faults! {
    a_server_that_fails_changes_nothing:
        |store| store.answers([500, 502, 504].map(Answer::status)), 69, "the server fails (50";
    a_standby_changes_nothing: says(Answer::status(473)), 69, "a standby that does not answer (473)";
    too_many_requests_change_nothing: says(Answer::status(429).header("retry-after", "60")), 69, "too many requests (429)";
    a_server_that_says_that_it_is_sealed_changes_nothing: says(Answer::errors(503, &["Vault is sealed"])), 69, "sealed (503)";
    silence_changes_nothing: says(Answer::silence()), 69, "no answer within 10 s";
    a_head_that_drips_changes_nothing: says(good().dripping(SLOWLY)), 69, "no answer within 10 s";
    a_body_that_drips_changes_nothing: says(good().with_a_dripping_body(SLOWLY)), 69, "no answer within 10 s";
    an_answer_that_is_cut_changes_nothing: says(good().cut_after(9)), 69, "the connection broke before the answer was complete";
    a_server_that_dies_while_it_answers_changes_nothing: says(Answer::reset()), 69, "the connection broke before the answer was complete";
    a_connection_that_ends_without_an_answer_changes_nothing: says(Answer::hang_up()), 69, "the connection broke before the answer was complete";
    what_is_no_http_changes_nothing: says(Answer::garbage()), 69, "the connection broke before the answer was complete";
    an_answer_that_is_too_large_changes_nothing: says(Answer::oversize()), 76, "the answer is larger than 8 MiB";
    a_redirect_changes_nothing: says(Answer::redirect("http://127.0.0.1:1/")), 76, "the server redirects (307)";
    what_is_no_json_changes_nothing: says(good().body("{\"data\":")), 76, "the answer is not Vault's";
    json_of_another_shape_changes_nothing:
        says(with(r#"{"data":{"k":"other"},"metadata":{"version":"nine"}}"#)), 76, "the answer is not Vault's";
    a_key_that_is_there_twice_changes_nothing:
        says(with(r#"{"data":{"k":"one","k":"other"},"metadata":{"version":9}}"#)), 65, "the key stands twice in the JSON object";
    a_refusal_without_a_reason_changes_nothing: says(Answer::errors(403, &["permission denied"])), 77, "permission denied (403)";
    an_unknown_token_changes_nothing: says(Answer::errors(401, &["bad token"])), 77, "the token is not valid (401)";
    a_right_that_is_gone_changes_nothing: says(Answer::errors(403, &["1 error occurred:\n\t* permission denied\n\n"])), 77, "permission denied (403)";
    a_secret_that_is_not_there_changes_nothing: says(Answer::errors(404, &[])), 66, "no such secret (404)";
    a_version_that_was_deleted_changes_nothing: |store| store.asks("DELETE", "data", &Value::Null), 66, "this version was deleted";
    a_version_that_was_destroyed_changes_nothing:
        |store| store.asks("PUT", "destroy", &json!({"versions": [1]})), 66, "this version was destroyed";
    a_secret_that_was_wiped_out_changes_nothing: |store| store.asks("DELETE", "metadata", &Value::Null), 66, "no such secret (404)";
    a_key_that_is_missing_changes_nothing: |store| store.put_all(&json!({"other": "x"})), 66, "no such key";
    a_value_that_is_too_large_changes_nothing: |store| store.put(&"x".repeat((1 << 20) + 1)), 65, "the value that is made of it is larger than 1 MiB";
}
