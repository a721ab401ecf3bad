//! AWS Secrets Manager and Parameter Store, by an emulator that checks signatures and policies: each name, each source of credentials, each refusal.

#![cfg(feature = "aws")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::sync::LazyLock;

use serde_json::{Value, json};
use support::servers::faults::{Answer, Faults, nobody};
use support::servers::ministack::{ISSUER, Keys, MiniStack, REGION};
use support::{Outcome, Start, World};

/// One server for all tests that leave it as it is. Each test has names of its own in it.
static STACK: LazyLock<MiniStack> = LazyLock::new(|| MiniStack::start(true));

/// One that gives credentials to machines, and takes any.
static OPEN: LazyLock<MiniStack> = LazyLock::new(|| MiniStack::start(false));

/// A start that knows the server, as its root user.
fn start(world: &World) -> Start {
    STACK.told(world.secret_init(), &Keys::root())
}

/// What the program gets as the variable `A`.
fn gets(start: Start, reference: &str) -> String {
    start.variable("A", reference).shell("printf %s \"$A\"").finishes().succeeds()
}

/// How the start goes that delivers this reference as the variable `A`.
fn tries(start: Start, reference: &str) -> Outcome {
    start.variable("A", reference).program(["true"]).finishes()
}

const LAST: &str = "1 of 1 secret failed; the program was not started";

/// A secret with this value in it, and the same in another region.
fn create_in(stack: &MiniStack, region: &str, name: &str, text: &str) -> String {
    let body = json!({"Name": name, "SecretString": text});
    let (status, answer) = stack.call_as(&Keys::root(), region, "secretsmanager.CreateSecret", &body);
    assert_eq!(status, 200, "{answer}");
    answer["ARN"].as_str().unwrap().to_owned()
}

fn allow(statements: &[(&str, &[&str])]) -> Value {
    let statement = |(action, resources): &(&str, &[&str])| json!({"Effect": "Allow", "Action": action, "Resource": resources});
    json!({"Version": "2012-10-17", "Statement": statements.iter().map(statement).collect::<Vec<_>>()})
}

// What is no answer, and no credential.

#[test]
fn keys_that_no_header_can_hold_are_refused_wherever_they_come_from() {
    let world = World::new();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        let keys =
            world.secret_init().variable("AWS_REGION", REGION).variable("AWS_ACCESS_KEY_ID", "AKIA").variable("AWS_SECRET_ACCESS_KEY", "x");
        let outcome = keys.variable(name, "hunter2\n").variable("A", "aws-sm:x").flag("check").finishes();
        outcome.fails(
            78,
            &[
                &format!("A: aws-sm:x: {name} has characters that no key has"),
                "hint: is there a newline at its end?",
                "1 problem in the plan; a start would fail",
            ],
        );
    }
    for (key, token) in [("AK\nIA", "t"), ("AKIA", "a\nb"), ("", "t")] {
        let expiry = "2126-01-01T00:00:00Z";
        let server =
            Faults::always(Answer::json(&json!({"AccessKeyId": key, "SecretAccessKey": "s", "Token": token, "Expiration": expiry})));
        let told = world.secret_init().variable("AWS_REGION", REGION).variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &server.address);
        let outcome = tries(told, "aws-sm:x");
        assert_eq!(outcome.code(), 65, "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("the container's credentials: the credentials have characters that none have\n"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn a_file_of_the_login_that_never_ends_is_refused() {
    let world = World::new();
    let path = world.path.join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    {
        let outcome = tries(start(&world).variable(name, &path), "aws-sm:x");
        assert_eq!(outcome.code(), 78, "{}", outcome.stderr);
        let cause = format!("A: aws-sm:x: the login needs {}, which {name} names: is a FIFO, not a regular file\n", path.display());
        assert!(outcome.stderr.contains(&cause), "{}", outcome.stderr);
    }
}

#[test]
fn the_name_of_a_version_makes_no_lines_and_no_colours() {
    let answer = json!({"Name": "x", "VersionId": "v\n\u{1b}[31mred", "SecretString": "s"});
    let server = Faults::always(Answer::json(&answer));
    let world = World::new();
    let told = start(&world).variable("AWS_ENDPOINT_URL", &server.address).variable("A", "aws-sm:x").flag("check");
    let table = told.finishes().succeeds();
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[test]
fn a_parameter_without_a_version_is_no_answer() {
    let parameter = json!({"Name": "/x", "Value": "hunter2", "Type": "String"});
    let server = Faults::always(Answer::json(&json!({"Parameters": [parameter], "InvalidParameters": []})));
    tries(at(&server, &World::new()), "aws-ssm:/x").fails(76, &["A: aws-ssm:/x: the answer has no version", LAST]);
}

#[test]
fn what_a_profile_has_for_a_region_is_checked() {
    let world = World::new();
    let config = world.file("config", "[default]\nregion = a b\n");
    let told = world.secret_init().variable("AWS_ACCESS_KEY_ID", "a").variable("AWS_SECRET_ACCESS_KEY", "b");
    tries(told.variable("AWS_CONFIG_FILE", config), "aws-sm:x").fails(
        78,
        &[
            "A: aws-sm:x: what the profile or the instance has for a region is no region",
            "hint: regions are written like eu-central-1",
            LAST,
        ],
    );
}

#[test]
fn an_answer_that_holds_no_credentials_is_no_refusal() {
    let world = World::new();
    for answer in ["[]", "7", "{}", "hunter2", "\"hunter2\""] {
        let server = Faults::always(Answer::status(200).body(answer));
        let told = world.secret_init().variable("AWS_REGION", REGION).variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &server.address);
        tries(told, "aws-sm:x").fails(
            76,
            &[
                "A: aws-sm:x: the answer of who has the credentials holds none",
                "hint: is it ECS, EKS or EC2 that answers at that address?",
                LAST,
            ],
        );
    }
}

// How long a login is kept.

#[test]
fn keys_of_a_file_are_read_anew_when_aws_is_asked_again() {
    let world = World::new();
    let keys = |id: &str| format!("[default]\naws_access_key_id = {id}\naws_secret_access_key = s\n");
    let path = world.file("credentials", keys("AKIAOLD"));
    let (replaced, new) = (path.clone(), keys("AKIANEW"));
    let server = Faults::start(move |_, number| {
        if number > 0 {
            return Answer::json(&value("x"));
        }
        std::fs::write(&replaced, &new).unwrap();
        complaint(503, "ServiceUnavailable", "x")
    });
    let told = world.secret_init().variable("AWS_ENDPOINT_URL", &server.address).variable("AWS_REGION", REGION);
    assert_eq!(tries(told.variable("AWS_SHARED_CREDENTIALS_FILE", path), "aws-sm:x").code(), 0);
    let who: Vec<bool> =
        server.requests().iter().map(|request| request.header("authorization").unwrap().contains("Credential=AKIANEW/")).collect();
    assert_eq!(who, [false, true]);
}

#[test]
fn credentials_that_end_are_asked_for_once() {
    let credentials = json!({"AccessKeyId": "AKIAPOD", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"});
    let agent = Faults::always(Answer::json(&credentials));
    let server = Faults::in_turn([complaint(503, "ServiceUnavailable", "x"), Answer::json(&value("x"))]);
    let world = World::new();
    let told = world.secret_init().variable("AWS_ENDPOINT_URL", &server.address).variable("AWS_REGION", REGION);
    let outcome = tries(told.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent.address), "aws-sm:x");
    assert_eq!((outcome.code(), server.requests().len(), agent.requests().len()), (0, 2, 1), "{}", outcome.stderr);
}

// What is there.

#[test]
fn a_secret_is_found_by_its_name_its_arn_and_its_arn_without_the_suffix() {
    let arn = STACK.create_secret("names/db", r#"{"username":"app","port":5432,"nested":{"list":[1,{"x":"y"}]}}"#);
    let partial = &arn[..arn.len() - 7];
    let world = World::new();
    assert_eq!(gets(start(&world), "aws-sm:names/db#username"), "app");
    assert_eq!(gets(start(&world), &format!("{arn}#username")), "app");
    assert_eq!(gets(start(&world), &format!("{partial}#port")), "5432");
    assert_eq!(gets(start(&world), &format!("aws-sm:{partial}#/nested/list/1/x")), "y");
    assert_eq!(gets(start(&world), "aws-sm:names/db"), r#"{"username":"app","port":5432,"nested":{"list":[1,{"x":"y"}]}}"#);
}

#[test]
fn stages_and_versions_are_asked_for_by_options_or_as_ecs_writes_them() {
    let arn = STACK.create_secret("stages", r#"{"k":"one"}"#);
    let second = STACK.put_secret("stages", r#"{"k":"two"}"#);
    let pending = json!({"SecretId": "stages", "SecretString": r#"{"k":"three"}"#, "VersionStages": ["AWSPENDING"]});
    STACK.call("secretsmanager.PutSecretValue", &pending);
    let world = World::new();
    let gets = |reference: &str| gets(start(&world), reference);
    assert_eq!(gets("aws-sm:stages#k"), "two");
    assert_eq!(gets("aws-sm:stages?stage=AWSCURRENT#k"), "two");
    assert_eq!(gets("aws-sm:stages?stage=AWSPREVIOUS#k"), "one");
    assert_eq!(gets("aws-sm:stages?stage=AWSPENDING#k"), "three");
    assert_eq!(gets(&format!("aws-sm:stages?version={second}#k")), "two");
    assert_eq!(gets(&format!("{arn}:k::")), "two");
    assert_eq!(gets(&format!("{arn}:k:AWSPREVIOUS:")), "one");
    assert_eq!(gets(&format!("{arn}:k::{second}")), "two");
    assert_eq!(gets(&format!("{arn}::AWSPENDING:")), r#"{"k":"three"}"#);
    let table = start(&world).variable("A", "aws-sm:stages#k").flag("check").finishes().succeeds();
    assert!(table.contains(&format!("aws-sm:stages#k  aws-sm  variable A  {second}  ")), "{table}");
}

#[test]
fn a_stage_that_moved_back_is_the_current_one() {
    STACK.create_secret("moved", "one");
    let first = STACK.call("secretsmanager.GetSecretValue", &json!({"SecretId": "moved"}))["VersionId"].clone();
    let second = STACK.put_secret("moved", "two");
    let body = json!({"SecretId": "moved", "VersionStage": "AWSCURRENT", "MoveToVersionId": first, "RemoveFromVersionId": second});
    STACK.call("secretsmanager.UpdateSecretVersionStage", &body);
    assert_eq!(gets(start(&World::new()), "aws-sm:moved"), "one");
}

#[test]
fn a_binary_secret_arrives_byte_for_byte() {
    STACK.call("secretsmanager.CreateSecret", &json!({"Name": "binary", "SecretBinary": "AP8BCg=="}));
    let world = World::new();
    let started = start(&world).directory(world.directory()).variable("A_FILE", "aws-sm:binary");
    assert_eq!(started.shell("od -An -tx1 $A_FILE").finishes().succeeds(), " 00 ff 01 0a\n");
}

#[test]
fn parameters_have_paths_names_versions_and_labels() {
    STACK.put_parameter("/parameters/a", "String", "one");
    STACK.put_parameter("/parameters/a", "SecureString", "two");
    STACK.put_parameter("parameter-without-path", "StringList", "a,b");
    STACK.call("AmazonSSM.LabelParameterVersion", &json!({"Name": "/parameters/a", "ParameterVersion": 1, "Labels": ["old"]}));
    let world = World::new();
    let arn = format!("arn:aws:ssm:{REGION}:000000000000:parameter");
    let names = ["aws-ssm:/parameters/a", "aws-ssm:/parameters/a:1", "aws-ssm:/parameters/a:old", "aws-ssm:parameter-without-path"];
    let names = names.map(str::to_owned).into_iter().chain([format!("{arn}/parameters/a"), format!("{arn}/parameter-without-path")]);
    let started = names.enumerate().fold(start(&world), |start, (number, name)| start.variable(format!("P{number}"), name));
    assert_eq!(started.shell("echo $P0 $P1 $P2 $P3 $P4 $P5").finishes().succeeds(), "two one one a,b two a,b\n");
    let table = start(&world).variable("A", "aws-ssm:/parameters/a").flag("check").finishes().succeeds();
    assert!(table.contains("aws-ssm:/parameters/a  aws-ssm  variable A  2  "), "{table}");
}

#[test]
fn a_region_is_that_of_the_reference_the_arn_the_configuration_or_the_variables() {
    let arn = create_in(&STACK, "eu-west-1", "regions", "ireland");
    create_in(&STACK, "eu-central-1", "regions", "frankfurt");
    create_in(&STACK, REGION, "regions", "virginia");
    let world = World::new();
    let config = json!({"stores": {"fra": {"type": "aws-sm", "region": "eu-central-1"}}}).to_string();
    let started = start(&world).flag("--config").flag(world.file("config.yaml", config));
    let started = started.variable("V", "aws-sm:regions").variable("I", "aws-sm:regions?region=eu-west-1").variable("ARN", "x");
    let started =
        started.variable("J", &arn).variable("F", "aws-sm:regions?store=fra").variable("K", "aws-sm:regions?store=fra&region=eu-west-1");
    assert_eq!(started.shell("echo $V $I $J $F $K").finishes().succeeds(), "virginia ireland ireland frankfurt ireland\n");
}

#[test]
fn the_json_of_a_database_becomes_a_url_and_is_fetched_once() {
    let stack = MiniStack::start(true);
    stack.create_secret("prod/db", r#"{"username":"app","password":"p@ss/word","host":"db.internal","port":5432}"#);
    let world = World::new();
    let url =
        "postgresql://${aws-sm:prod/db#username}:${aws-sm:prod/db#password | urlencode}@${aws-sm:prod/db#host}:${aws-sm:prod/db#port}/app";
    let started =
        stack.told(world.secret_init(), &Keys::root()).variable("DATABASE_URL", url).variable("PGUSER", "aws-sm:prod/db#username");
    let expected = "postgresql://app:p%40ss%2Fword@db.internal:5432/app app\n";
    assert_eq!(started.clone().shell("echo $DATABASE_URL $PGUSER").finishes().succeeds(), expected);
    assert_eq!(asked(&stack), ["secretsmanager.GetSecretValue"]);
    // The modes make no difference.
    assert_eq!(started.clone().flag("--exec").shell("echo $DATABASE_URL $PGUSER").finishes().succeeds(), expected);
    assert_eq!(started.as_pid_1().shell("echo $DATABASE_URL $PGUSER").finishes().succeeds(), expected);
}

/// What was asked of a server, but for what the tests did to fill it.
fn asked(stack: &MiniStack) -> Vec<String> {
    let ours = |request: &String| ["Create", "Put", "POST /"].iter().any(|word| request.contains(word));
    stack.requests().into_iter().filter(|request| !ours(request)).collect()
}

// How often it is asked.

#[test]
fn a_hundred_secrets_are_five_requests() {
    let stack = MiniStack::start(true);
    let world = World::new();
    let mut started = stack.told(world.secret_init(), &Keys::root());
    for number in 0..100 {
        let arn = stack.create_secret(&format!("many/{number}"), &format!("v{number}"));
        let name = if number % 2 == 0 { format!("aws-sm:many/{number}") } else { arn };
        started = started.variable(format!("V{number}"), name);
    }
    let values: Vec<String> = (0..100).map(|number| format!("$V{number}")).collect();
    let expected: Vec<String> = (0..100).map(|number| format!("v{number}")).collect();
    assert_eq!(started.shell(&format!("echo {}", values.join(" "))).finishes().succeeds(), expected.join(" ") + "\n");
    assert_eq!(asked(&stack), ["secretsmanager.BatchGetSecretValue"; 5]);
}

#[test]
fn twenty_parameters_are_two_requests_and_two_versions_of_one_do_not_share_one() {
    let stack = MiniStack::start(true);
    let world = World::new();
    let mut started = stack.told(world.secret_init(), &Keys::root());
    for number in 0..20 {
        stack.put_parameter(&format!("/p/{number}"), "String", &format!("v{number}"));
        started = started.variable(format!("V{number}"), format!("aws-ssm:/p/{number}"));
    }
    assert_eq!(started.clone().shell("echo $V0 $V9 $V10 $V19").finishes().succeeds(), "v0 v9 v10 v19\n");
    assert_eq!(asked(&stack), ["AmazonSSM.GetParameters"; 2]);
    stack.put_parameter("/p/0", "String", "new");
    assert_eq!(started.variable("W", "aws-ssm:/p/0:1").shell("echo $V0 $W").finishes().succeeds(), "new v0\n");
}

#[test]
fn three_secrets_are_fetched_alone_and_those_with_a_stage_always() {
    let stack = MiniStack::start(true);
    for name in ["a", "b", "c", "d"] {
        stack.create_secret(name, name);
    }
    let keys = stack.user("app", &allow(&[("secretsmanager:GetSecretValue", &["*"])]));
    let world = World::new();
    let started = ["a", "b", "c"]
        .iter()
        .fold(stack.told(world.secret_init(), &keys), |start, name| start.variable(name.to_uppercase(), format!("aws-sm:{name}")));
    let started = started.variable("D", "aws-sm:d?stage=AWSCURRENT");
    assert_eq!(started.shell("echo $A $B $C $D").finishes().succeeds(), "a b c d\n");
    assert_eq!(asked(&stack), ["secretsmanager.GetSecretValue"; 4]);
}

#[test]
fn a_batch_that_is_denied_is_fetched_one_by_one_with_a_warning() {
    for name in ["batch/a", "batch/b", "batch/c", "batch/d"] {
        STACK.create_secret(name, name);
    }
    let keys = STACK.user("without-batch", &allow(&[("secretsmanager:GetSecretValue", &["*"])]));
    let world = World::new();
    let started = ["a", "b", "c", "d"]
        .iter()
        .fold(STACK.told(world.secret_init(), &keys), |start, name| start.variable(name.to_uppercase(), format!("aws-sm:batch/{name}")));
    let cause = "aws-sm: AWS denies secretsmanager:BatchGetSecretValue, and the secrets are fetched one by one";
    let hint = "hint: allow it on *; secret-init policy aws prints the policy that all of the plan needs";
    let warning = format!("secret-init: warning: {cause}\nsecret-init: {hint}\n");
    let outcome = started.clone().shell("echo $A $B $C $D").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str(), outcome.stderr), (0, "batch/a batch/b batch/c batch/d\n", warning.clone()));
    let checked = started.clone().flag("check").finishes();
    assert_eq!((checked.code(), checked.stderr), (0, warning));
    let strict = started.flag("--strict");
    strict.clone().program(["true"]).finishes().fails(77, &[cause, hint, "--strict makes errors of warnings; the program was not started"]);
    let checked = strict.flag("check").finishes();
    let last = "secret-init: --strict makes errors of warnings; a start would fail\n";
    assert_eq!((checked.code(), checked.stderr), (77, format!("secret-init: {cause}\nsecret-init: {hint}\n{last}")));
}

#[test]
fn what_fails_in_a_batch_fails_alone() {
    let allowed: Vec<String> = ["a", "b", "c"].iter().map(|name| STACK.create_secret(&format!("part/{name}"), name)).collect();
    STACK.create_secret("part/denied", "d");
    let arns: Vec<&str> = allowed.iter().map(String::as_str).chain([NEVER]).collect();
    let policy = allow(&[("secretsmanager:GetSecretValue", &arns), ("secretsmanager:BatchGetSecretValue", &["*"])]);
    let keys = STACK.user("part", &policy);
    let world = World::new();
    let started = ["a", "b", "c", "denied", "none"]
        .iter()
        .fold(STACK.told(world.secret_init(), &keys), |start, name| start.variable(name.to_uppercase(), format!("aws-sm:part/{name}")));
    started.program(["true"]).finishes().fails(
        77,
        &[
            "DENIED: aws-sm:part/denied: AWS denies secretsmanager:GetSecretValue in us-east-1",
            "hint: allow it for this secret; secret-init policy aws prints the policy that all of the plan needs",
            "NONE: aws-sm:part/none: no such secret in us-east-1",
            "hint: check the name and the region; add ?optional=true or ?default=… if it may be missing",
            "2 of 5 secrets failed; the program was not started",
        ],
    );
}

/// The ARN of what is not there: without it AWS denies, and does not say whether it is there.
const NEVER: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:part/none*";

/// AWS denies a request as a whole when one parameter in it is denied. The emulator would look at no name.
#[test]
fn a_parameter_that_is_denied_does_not_spoil_the_others() {
    let server = Faults::start(|request, _| {
        let names: Vec<String> = serde_json::from_value(request.json()["Names"].clone()).unwrap();
        let parameter = |name: &String| json!({"Name": name, "Value": "v", "Version": 1, "Type": "String"});
        if names.iter().any(|name| name == "/b") {
            return complaint(400, "AccessDeniedException", "hunter2");
        }
        Answer::json(&json!({"Parameters": names.iter().map(parameter).collect::<Vec<_>>(), "InvalidParameters": []}))
    });
    let world = World::new();
    let told = at(&server, &world).variable("A", "aws-ssm:/a").variable("B", "aws-ssm:/b").variable("C", "aws-ssm:/c");
    told.program(["true"]).finishes().fails(
        77,
        &[
            "B: aws-ssm:/b: AWS denies ssm:GetParameters in us-east-1",
            "hint: allow it for this secret; secret-init policy aws prints the policy that all of the plan needs",
            "1 of 3 secrets failed; the program was not started",
        ],
    );
    assert_eq!(server.requests().len(), 4);
}

// What is refused.

#[test]
fn what_is_not_there_is_told_apart() {
    STACK.create_secret("there", r#"{"k":"v"}"#);
    STACK.create_secret("deleted", "v");
    STACK.call("secretsmanager.DeleteSecret", &json!({"SecretId": "deleted", "RecoveryWindowInDays": 7}));
    let world = World::new();
    let fails = |reference: &str, cause: &str, hint: &str| {
        tries(start(&world), reference).fails(66, &[&format!("A: {reference}: {cause}"), &format!("hint: {hint}"), LAST]);
    };
    let missing = "check the name and the region; add ?optional=true or ?default=… if it may be missing";
    fails("aws-sm:never", "no such secret in us-east-1", missing);
    fails("aws-sm:there?region=eu-west-1#k", "no such secret in eu-west-1", missing);
    fails("aws-ssm:/never", "no such secret in us-east-1", missing);
    fails("aws-sm:there#x", "no such key", "add ?optional=true or ?default=… if it may be missing");
    fails("aws-sm:deleted", "the secret is marked for deletion", "aws secretsmanager restore-secret brings it back");
    let version = "check ?stage= and ?version=; add ?optional=true if it may be missing";
    fails("aws-sm:there?stage=AWSPENDING#k", "the secret has no such version or stage in us-east-1", version);
    assert_eq!(gets(start(&world), "aws-sm:never?default=d"), "d");
}

#[test]
fn keys_that_are_wrong_or_unknown_are_told_apart() {
    let world = World::new();
    let told = |id: &str, secret: &str| STACK.told(world.secret_init(), &Keys { id: id.to_owned(), secret: secret.to_owned() });
    let user = STACK.user("keys", &allow(&[("*", &["*"])]));
    tries(told(&user.id, "hunter2"), "aws-sm:x").fails(
        77,
        &[
            "A: aws-sm:x: the secret key does not belong to the access key (credentials: AWS_ACCESS_KEY_ID)",
            "hint: check AWS_SECRET_ACCESS_KEY, or where it comes from",
            LAST,
        ],
    );
    tries(told("AKIAUNKNOWN", "hunter2"), "aws-ssm:/x").fails(
        77,
        &[
            "A: aws-ssm:/x: AWS does not know the access key (credentials: AWS_ACCESS_KEY_ID)",
            "hint: is the key still active, is it one of this partition, and is AWS_SESSION_TOKEN set when the key is temporary?",
            LAST,
        ],
    );
}

/// What AWS answers, by its own words, where the emulator has no way to be brought to it.
#[test]
fn each_error_of_aws_has_words_of_ours() {
    let key = "allow kms:Decrypt on that key, in the policy and in the key's own, and see that the key is enabled";
    let signature = "do the keys have characters that do not belong there, such as a newline?";
    let rows: &[(&str, &str, u8, &str, &str)] = &[
        (
            "AccessDeniedException",
            "Access to KMS is not allowed",
            77,
            "AWS denies kms:Decrypt with the key of the secret in us-east-1",
            key,
        ),
        ("DecryptionFailure", "hunter2", 77, "AWS denies kms:Decrypt with the key of the secret in us-east-1", key),
        (
            "AccessDeniedException",
            "User: hunter2 is not authorized",
            77,
            "AWS denies secretsmanager:GetSecretValue in us-east-1",
            "allow it for this secret; secret-init policy aws prints the policy that all of the plan needs",
        ),
        (
            "ExpiredTokenException",
            "hunter2",
            77,
            "the credentials have expired (credentials: AWS_ACCESS_KEY_ID)",
            "get new ones; they are temporary",
        ),
        (
            "AccessDeniedException",
            "The security token included in the request is expired",
            77,
            "the credentials have expired (credentials: AWS_ACCESS_KEY_ID)",
            "get new ones; they are temporary",
        ),
        (
            "InvalidSignatureException",
            "Signature expired: 20150830T123600Z is now earlier than 20261126T074217Z",
            77,
            "this machine's clock differs from AWS's, too much for a signature",
            "set the clock of the machine that the container runs on",
        ),
        ("IncompleteSignatureException", "hunter2", 77, "AWS does not accept the signature (credentials: AWS_ACCESS_KEY_ID)", signature),
        (
            "OptInRequired",
            "hunter2",
            77,
            "the account may not use the service in us-east-1",
            "enable the region for the account, or ask another",
        ),
        (
            "InvalidRequestException",
            "hunter2",
            65,
            "AWS cannot give the secret as it is",
            "it may have no version with the stage that is asked for: aws secretsmanager describe-secret shows them",
        ),
        (
            "InvalidParameterException",
            "hunter2",
            78,
            "AWS does not accept the name",
            "are name, stage and version written as AWS writes them?",
        ),
        (
            "NeverHeardOfException",
            "hunter2",
            76,
            "an answer that is not known: NeverHeardOfException (400)",
            "is there AWS at its address?",
        ),
        ("hunter2-canary", "hunter2", 76, "an answer that is not known (400)", "is there AWS at its address?"),
    ];
    for (code, message, exit, cause, hint) in rows {
        let server = Faults::always(complaint(400, code, message));
        let world = World::new();
        let hint = format!("hint: {hint}");
        tries(at(&server, &world), "aws-sm:x").fails(*exit, &[&format!("A: aws-sm:x: {cause}"), &hint, LAST]);
        assert_eq!(server.requests().len(), 1, "{code}");
    }
}

/// A start that takes this server for AWS.
fn at(server: &Faults, world: &World) -> Start {
    let start = world.secret_init().variable("AWS_ENDPOINT_URL", &server.address).variable("AWS_REGION", REGION);
    start.variable("AWS_ACCESS_KEY_ID", "AKIATEST").variable("AWS_SECRET_ACCESS_KEY", "hunter2-key")
}

fn complaint(status: u16, code: &str, message: &str) -> Answer {
    Answer::status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .body(json!({"__type": code, "Message": message}).to_string())
}

/// A server that gives each secret its name as its value, and says this to a batch.
fn one_by_one(batch: impl Fn() -> Answer + Send + Sync + 'static) -> Faults {
    Faults::start(move |request, _| {
        if request.header("x-amz-target").is_some_and(|target| target.ends_with("BatchGetSecretValue")) {
            return batch();
        }
        Answer::json(&value(request.json()["SecretId"].as_str().unwrap()))
    })
}

fn value(id: &str) -> Value {
    json!({"ARN": format!("arn:aws:secretsmanager:us-east-1:1:secret:{id}-AbCdEf"), "Name": id, "VersionId": "v", "SecretString": id})
}

#[test]
fn the_clock_is_blamed_by_the_date_of_the_answer() {
    let answer = complaint(400, "InvalidSignatureException", "hunter2").header("date", "Thu, 26 Nov 2015 07:42:17 GMT");
    let server = Faults::always(answer);
    let outcome = tries(at(&server, &World::new()), "aws-sm:x");
    assert!(outcome.stderr.contains(" min, too much for a signature\n"), "{}", outcome.stderr);
    assert_eq!(outcome.code(), 77);
}

#[test]
fn who_is_asked_too_often_is_asked_again_later() {
    let throttled = complaint(400, "ThrottlingException", "Rate exceeded").header("retry-after", "0");
    let server = Faults::in_turn([throttled, complaint(503, "ServiceUnavailable", "x"), Answer::json(&value("x"))]);
    let outcome = at(&server, &World::new()).variable("A", "aws-sm:x").shell("echo $A").finishes();
    assert_eq!((outcome.code(), outcome.stdout.as_str()), (0, "x\n"), "{}", outcome.stderr);
    let warning = "secret-init: warning: aws-sm: AWS asks to be asked less often (us-east-1); trying again, for 1m at most\n";
    assert_eq!(outcome.stderr, warning);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_batch_that_is_throttled_is_fetched_one_by_one() {
    let server = one_by_one(|| complaint(400, "ThrottlingException", "Rate exceeded"));
    let world = World::new();
    let started = (0..5).fold(at(&server, &world), |start, number| start.variable(format!("V{number}"), format!("aws-sm:s{number}")));
    assert_eq!(started.shell("echo $V0 $V1 $V2 $V3 $V4").finishes().succeeds(), "s0 s1 s2 s3 s4\n");
    assert_eq!(server.requests().len(), 6);
}

#[test]
fn what_a_batch_leaves_out_is_asked_for_alone() {
    let server = one_by_one(|| {
        Answer::json(&json!({
            "SecretValues": [value("s3"), value("s1")],
            "Errors": [{"SecretId": "s0", "ErrorCode": "ResourceNotFoundException", "Message": "hunter2"}],
            "NextToken": "more"
        }))
    });
    let world = World::new();
    let started = (1..5).fold(at(&server, &world), |start, number| start.variable(format!("V{number}"), format!("aws-sm:s{number}")));
    let started = started.variable("V0", "aws-sm:s0?optional=true");
    assert_eq!(started.shell("echo ${V0-none} $V1 $V2 $V3 $V4").finishes().succeeds(), "none s1 s2 s3 s4\n");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn the_stage_is_always_named_and_nothing_else_of_ours_is_sent() {
    let server = Faults::always(Answer::json(&value("x")));
    gets(at(&server, &World::new()), "aws-sm:x");
    let requests = server.requests();
    assert_eq!(requests[0].json(), json!({"SecretId": "x", "VersionStage": "AWSCURRENT"}));
    assert!(requests[0].header("authorization").unwrap().contains(&format!("/{REGION}/secretsmanager/aws4_request")));
}

#[test]
fn an_answer_that_is_none_is_told_without_a_word_of_it() {
    let fails = |answer: Answer, cause: &str, hint: &str| {
        let server = Faults::always(answer);
        let lines = [format!("A: aws-sm:x: {cause}"), format!("hint: {hint}"), LAST.to_owned()];
        let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|line| *line != "hint: ").collect();
        tries(at(&server, &World::new()), "aws-sm:x").fails(76, &lines);
    };
    let hint = "is its address right?";
    fails(Answer::status(200).body("hunter2"), "the answer is none of AWS", hint);
    fails(Answer::json(&json!({"SecretString": 7, "VersionId": ["hunter2"]})), "the answer is none of AWS", hint);
    fails(Answer::json(&json!({"SecretString": "hunter2"})), "the answer has no version", "");
    fails(Answer::json(&json!({"VersionId": "hunter2"})), "the answer has no secret", "");
    fails(Answer::status(404).body("hunter2"), "an answer that is not known (404)", "is there AWS at its address?");
    fails(Answer::redirect("http://127.0.0.1:1/"), "an answer that is not known (307)", "is there AWS at its address?");
}

#[test]
fn a_server_that_is_away_is_named_with_its_address() {
    let address = nobody();
    let world = World::new();
    let started = world.secret_init().flag("--timeout=1s").variable("AWS_ENDPOINT_URL", &address).variable("AWS_REGION", REGION);
    let started = started.variable("AWS_ACCESS_KEY_ID", "a").variable("AWS_SECRET_ACCESS_KEY", "b");
    let host = address.trim_start_matches("http://");
    let outcome = tries(started, "aws-sm:x");
    let expected = format!("secret-init: A: aws-sm:x: {host}: connection refused\n");
    assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
    assert_eq!(outcome.code(), 69);
}

// Who we are.

#[test]
fn credentials_come_from_the_instance_with_its_region() {
    let body = json!({"Name": "instance", "SecretString": "i"});
    assert_eq!(OPEN.call_as(&Keys::root(), REGION, "secretsmanager.CreateSecret", &body).0, 200);
    let world = World::new();
    let told = machine(&world).variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", OPEN.imds());
    assert_eq!(gets(told, "aws-sm:instance"), "i");
    let asked = OPEN.requests();
    assert!(asked.contains(&"PUT /latest/api/token".to_owned()), "{asked:?}");
    assert!(asked.contains(&"GET /latest/meta-data/placement/region".to_owned()), "{asked:?}");
}

/// A start that knows where AWS is, and not who it is itself.
fn machine(world: &World) -> Start {
    world.secret_init().variable("AWS_ENDPOINT_URL", &OPEN.address)
}

#[test]
fn credentials_come_from_the_container_and_a_token_may_end_in_a_newline() {
    let body = json!({"Name": "container", "SecretString": "c"});
    assert_eq!(OPEN.call_as(&Keys::root(), REGION, "secretsmanager.CreateSecret", &body).0, 200);
    let world = World::new();
    let told = || machine(&world).variable("AWS_REGION", REGION).variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", OPEN.ecs());
    assert_eq!(gets(told(), "aws-sm:container"), "c");

    // As EKS Pod Identity does it. The server of the tests shows what came; the credentials are such as the emulator takes.
    let credentials = json!({"AccessKeyId": "AKIAPOD", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"});
    let agent = Faults::always(Answer::json(&credentials));
    let token = world.file("token", "pod-identity-token\n");
    let told = machine(&world).variable("AWS_REGION", REGION).variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token);
    let told = told.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", agent.address));
    assert_eq!(gets(told, "aws-sm:container"), "c");
    assert_eq!(agent.requests()[0].header("authorization"), Some("pod-identity-token"));
    assert_eq!(agent.requests()[0].path, "/v1/credentials");
}

#[test]
fn credentials_come_for_a_web_identity() {
    STACK.create_secret("web", "w");
    let role = STACK.role("web", &allow(&[("secretsmanager:GetSecretValue", &["*"])]));
    let world = World::new();
    let told = world.secret_init().variable("AWS_ENDPOINT_URL", &STACK.address).variable("AWS_REGION", REGION);
    let told = |issuer: &str| {
        let token = world.file("token", web_identity(issuer));
        told.clone().variable("AWS_ROLE_ARN", &role).variable("AWS_WEB_IDENTITY_TOKEN_FILE", token)
    };
    assert_eq!(gets(told(ISSUER), "aws-sm:web"), "w");
    tries(told("stranger.test"), "aws-sm:web").fails(
        77,
        &[
            &format!("A: aws-sm:web: AWS denies the role {role} to the web identity"),
            "hint: the role's trust policy has to name the identity provider, the audience and the service account",
            LAST,
        ],
    );
}

/// A token as a cluster's issuer makes it for a service account.
fn web_identity(issuer: &str) -> String {
    use base64::Engine as _;
    let encode = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": format!("https://{issuer}"), "aud": "sts.amazonaws.com", "sub": "system:serviceaccount:shop:app"});
    format!("{}.{}.c2lnbmF0dXJl", encode(&json!({"alg": "RS256", "typ": "JWT"})), encode(&claims))
}

#[test]
fn a_web_identity_whose_token_is_not_accepted_is_told_apart() {
    let refusal = |code: &str| {
        let body =
            format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>hunter2</Message></Error></ErrorResponse>");
        Answer::status(403).header("content-type", "text/xml").body(body)
    };
    let world = World::new();
    let token = world.file("token", "hunter2");
    let told = |server: &Faults| {
        let start = world.secret_init().variable("AWS_ENDPOINT_URL", &server.address).variable("AWS_REGION", REGION);
        start.variable("AWS_ROLE_ARN", "arn:aws:iam::1:role/app").variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
    };
    tries(told(&Faults::always(refusal("InvalidIdentityToken"))), "aws-sm:x").fails(
        77,
        &[
            "A: aws-sm:x: AWS does not accept the web identity's token",
            "hint: is AWS_WEB_IDENTITY_TOKEN_FILE kept fresh, and its issuer an identity provider of the account?",
            LAST,
        ],
    );
    let server = Faults::always(Answer::silence());
    tries(told(&server).variable("AWS_WEB_IDENTITY_TOKEN_FILE", world.path.join("nowhere")), "aws-sm:x").fails(
        78,
        &[
            "A: aws-sm:x: a file of the credentials cannot be read: no such file or directory",
            "hint: see what AWS_WEB_IDENTITY_TOKEN_FILE and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE name",
            LAST,
        ],
    );
}

#[test]
fn credentials_region_and_address_come_from_a_profile() {
    STACK.create_secret("profile", "p");
    create_in(&STACK, "eu-west-1", "profile-region", "r");
    let role = STACK.role("profile", &allow(&[("secretsmanager:GetSecretValue", &["*"])]));
    let world = World::new();
    let keys = "aws_access_key_id = test\naws_secret_access_key = test\n";
    world.file(".aws/credentials", format!("[default]\n{keys}[named]\n{keys}"));
    let address = &STACK.address;
    world.file(
        ".aws/config",
        format!(
            "[default]\nregion = {REGION}\nendpoint_url = {address}\n\
            [profile named]\nregion = eu-west-1\nendpoint_url = {address}\n\
            [profile role]\nregion = {REGION}\nendpoint_url = {address}\nrole_arn = {role}\nsource_profile = named\n\
            [profile sso]\nsso_start_url = https://x\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = x\n"
        ),
    );
    let home = || world.secret_init().variable("HOME", &world.path);
    assert_eq!(gets(home(), "aws-sm:profile"), "p");
    assert_eq!(gets(home().variable("AWS_PROFILE", "named"), "aws-sm:profile-region"), "r");
    assert_eq!(gets(home().variable("AWS_PROFILE", "role").variable("AWS_ENDPOINT_URL", address), "aws-sm:profile"), "p");
    let elsewhere = world.secret_init().variable("AWS_CONFIG_FILE", world.path.join(".aws/config"));
    let elsewhere = elsewhere.variable("AWS_SHARED_CREDENTIALS_FILE", world.path.join(".aws/credentials"));
    assert_eq!(gets(elsewhere, "aws-sm:profile"), "p");
    tries(home().variable("AWS_PROFILE", "sso").variable("AWS_REGION", REGION), "aws-sm:profile").fails(
        78,
        &[
            "A: aws-sm:profile: the profile logs in by SSO or by a command",
            "hint: that is for people; give the container a role, or keys",
            LAST,
        ],
    );
}

#[test]
fn variables_of_an_environment_file_count_as_those_of_the_container() {
    STACK.create_secret("env-file", "e");
    let world = World::new();
    let text = format!("AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\nAWS_REGION={REGION}\nAWS_ENDPOINT_URL={}\n", STACK.address);
    let started = world.secret_init().flag("--env-file").flag(world.file(".env", text));
    assert_eq!(gets(started, "aws-sm:env-file"), "e");
}

#[test]
fn an_address_may_be_that_of_one_service_or_of_the_configuration() {
    STACK.create_secret("address", "a");
    let world = World::new();
    let keys = || {
        world.secret_init().variable("AWS_ACCESS_KEY_ID", "test").variable("AWS_SECRET_ACCESS_KEY", "test").variable("AWS_REGION", REGION)
    };
    let wrong = nobody();
    let told = keys().variable("AWS_ENDPOINT_URL", &wrong).variable("AWS_ENDPOINT_URL_SECRETS_MANAGER", &STACK.address);
    assert_eq!(gets(told, "aws-sm:address"), "a");
    let config = json!({"stores": {"aws-sm": {"address": STACK.address}}}).to_string();
    let told = keys().variable("AWS_ENDPOINT_URL", &wrong).flag("--config").flag(world.file("config.yaml", config));
    assert_eq!(gets(told, "aws-sm:address"), "a");
}

#[test]
fn tls_is_that_of_the_bundle_or_of_the_configuration() {
    let stack = MiniStack::tls(true);
    stack.create_secret("tls", "t");
    let world = World::new();
    assert_eq!(gets(stack.told(world.secret_init(), &Keys::root()), "aws-sm:tls"), "t");
    let config = json!({"stores": {"aws-sm": {"address": stack.address, "ca_file": stack.ca}}}).to_string();
    let keys = || {
        world.secret_init().variable("AWS_ACCESS_KEY_ID", "test").variable("AWS_SECRET_ACCESS_KEY", "test").variable("AWS_REGION", REGION)
    };
    assert_eq!(gets(keys().flag("--config").flag(world.file("config.yaml", config)), "aws-sm:tls"), "t");
    let host = stack.address.trim_start_matches("https://");
    let outcome = tries(keys().variable("AWS_ENDPOINT_URL", &stack.address), "aws-sm:tls");
    let expected = format!("secret-init: A: aws-sm:tls: {host}: its certificate comes from an authority that is not known\n");
    assert!(outcome.stderr.starts_with(&expected), "{}", outcome.stderr);
    assert_eq!(outcome.code(), 76);
}

#[test]
fn what_is_wrong_with_the_setup_is_told_in_the_plan() {
    let world = World::new();
    let keys = || world.secret_init().variable("AWS_ACCESS_KEY_ID", "a").variable("AWS_SECRET_ACCESS_KEY", "b").variable("A", "aws-sm:x");
    let fails = |start: Start, cause: &str, hint: &str| {
        let lines = [&format!("A: aws-sm:x: {cause}"), &format!("hint: {hint}"), "1 problem in the plan; a start would fail"];
        start.flag("plan").finishes().fails(78, &lines);
    };
    fails(
        keys().variable("AWS_ENDPOINT_URL", "http://aws.test:4566"),
        "AWS_ENDPOINT_URL: aws.test:4566: what is sent by http can be read on the way",
        "use https, or say --allow-http when the network is yours",
    );
    fails(
        keys().variable("AWS_ENDPOINT_URL_SECRETS_MANAGER", "x"),
        "AWS_ENDPOINT_URL_SECRETS_MANAGER: the address is no URL",
        "write it like https://HOST:PORT",
    );
    fails(keys().variable("AWS_REGION", "Frankfurt"), "AWS_REGION is no region", "regions are written like eu-central-1");
    let literal =
        world.secret_init().variable("AWS_ACCESS_KEY_ID", "a").variable("AWS_SECRET_ACCESS_KEY", "cred:key").variable("A", "aws-sm:x");
    let outcome = literal.flag("plan").finishes();
    let expected = "AWS_SECRET_ACCESS_KEY is a reference, and is needed to resolve references";
    assert!(outcome.stderr.contains(expected) && outcome.code() == 78, "{}", outcome.stderr);
    let config = |store: Value| {
        let config = json!({"stores": {"aws-sm": store}}).to_string();
        world.secret_init().variable("A", "aws-sm:x").flag("--config").flag(world.file("config.yaml", config)).flag("plan").finishes()
    };
    for (store, cause) in [(json!({"auth": {"method": "token"}}), "auth is set"), (json!({"namespace": "x"}), "namespace is set")] {
        let outcome = config(store);
        assert!(
            outcome.stderr.contains(&format!("config.yaml:1:12: stores.aws-sm: {cause}\n")) && outcome.code() == 78,
            "{}",
            outcome.stderr
        );
    }
}

const TRIED: &str =
    "hint: tried: AWS_ACCESS_KEY_ID, a profile, AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI";

#[test]
fn without_credentials_the_message_says_what_was_tried() {
    let world = World::new();
    let told = || world.secret_init().variable("AWS_REGION", REGION);
    let fails = |start: Start, cause: &str, metadata: &str| {
        tries(start, "aws-sm:x").fails(77, &[&format!("A: aws-sm:x: {cause}"), &format!("{TRIED}, {metadata}"), LAST]);
    };
    let none = "there are no credentials for AWS";
    let silent = "the instance's metadata, which did not answer (on EC2 a container on a bridge needs HttpPutResponseHopLimit 2)";
    fails(told().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody()), none, silent);
    // An answer that is lost on its way, as with a hop limit of 1: the wait is short.
    let server = Faults::always(Answer::silence());
    fails(told().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.address), none, silent);
    assert_eq!(server.requests().len(), 1);
    let forbidden = "but not the instance's metadata, which AWS_EC2_METADATA_DISABLED forbids";
    fails(told().variable("AWS_EC2_METADATA_DISABLED", "true"), none, forbidden);
    fails(
        told().variable("AWS_EC2_METADATA_DISABLED", "true").variable("AWS_PROFILE", "prod"),
        "there are no credentials for AWS; the profile prod is not in the files",
        forbidden,
    );
    let server = Faults::always(Answer::status(403));
    fails(told().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.address), none, "the instance's metadata, which refuses");
    let server = Faults::start(|request, _| match request.method.as_str() {
        "PUT" => Answer::status(200).header("x-aws-ec2-metadata-token-ttl-seconds", "60").body("token"),
        _ => Answer::status(404),
    });
    fails(told().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.address), none, "the instance's metadata, which has no role");
}

#[test]
fn who_has_the_credentials_may_refuse_or_be_away() {
    let world = World::new();
    let told = |address: &str| {
        let start = world.secret_init().flag("--timeout=1s").variable("AWS_REGION", REGION);
        start.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{address}/v1"))
    };
    let server = Faults::always(Answer::status(403).body("hunter2"));
    tries(told(&server.address), "aws-sm:x")
        .fails(77, &["A: aws-sm:x: who has the credentials refuses them", "hint: see the role of the task, the pod or the instance", LAST]);
    tries(told("http://10.0.0.1"), "aws-sm:x").fails(
        78,
        &[
            "A: aws-sm:x: the address of the container's credentials may not be asked",
            "hint: AWS_CONTAINER_CREDENTIALS_FULL_URI is https, or one of this machine, of ECS or of EKS",
            LAST,
        ],
    );
    let address = nobody();
    let outcome = tries(told(&address), "aws-sm:x");
    let expected = format!("secret-init: A: aws-sm:x: no credentials: {}: connection refused\n", address.trim_start_matches("http://"));
    assert!(outcome.stderr.contains(&expected) && outcome.code() == 69, "{}", outcome.stderr);
}

#[test]
fn without_a_region_the_message_says_where_to_name_it() {
    let world = World::new();
    let keys = || world.secret_init().variable("AWS_ACCESS_KEY_ID", "a").variable("AWS_SECRET_ACCESS_KEY", "b");
    let outcome = tries(keys().variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody()), "aws-sm:x");
    outcome.fails(
        78,
        &[
            "A: aws-sm:x: no region is known",
            "hint: name it: AWS_REGION, ?region= in the reference, region: of the store in the configuration, or in the profile",
            LAST,
        ],
    );
    // Nobody is asked for it when each reference has its own.
    let server = Faults::always(Answer::json(&value("x")));
    let told = keys().variable("AWS_ENDPOINT_URL", &server.address).variable("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.address);
    assert_eq!(gets(told, "aws-sm:x?region=eu-west-1"), "x");
    assert_eq!(server.requests().len(), 1);
}

// What the policy allows.

#[test]
fn with_the_policy_of_aws_alone_check_passes_and_without_any_part_of_it_it_fails() {
    let stack = MiniStack::start(true);
    let arn = stack.create_secret("policy/a", r#"{"k":"v"}"#);
    for name in ["policy/b", "policy/c", "policy/d", "policy/d-other1"] {
        stack.create_secret(name, "v");
    }
    stack.put_parameter("/policy/p", "SecureString", "v");
    let world = World::new();
    let told = |keys: &Keys| {
        let start = stack.told(world.secret_init(), keys).variable("AWS_ACCOUNT_ID", "000000000000");
        let start = start.variable("A", format!("{arn}#k")).variable("B", "aws-sm:policy/b").variable("C", "aws-sm:policy/c");
        start.variable("D", "aws-sm:policy/d").variable("P", "aws-ssm:/policy/p:1").flag("--strict")
    };
    let policy = told(&Keys::root()).flag("policy").flag("aws").finishes().succeeds();
    let mut policy: Value = serde_json::from_str(&policy).unwrap();
    // The emulator compares the parameters of a request with * alone.
    let parameters = &mut policy["Statement"][2]["Resource"];
    assert_eq!(*parameters, json!([format!("arn:aws:ssm:{REGION}:000000000000:parameter/policy/p")]));
    *parameters = json!(["*"]);
    let check = |name: &str, policy: &Value| told(&stack.user(name, policy)).flag("check").finishes();
    check("all", &policy).succeeds();
    let statements = policy["Statement"].as_array().unwrap();
    let mut number = 0;
    for (statement, resources) in statements.iter().map(|statement| statement["Resource"].as_array().unwrap()).enumerate() {
        for resource in 0..resources.len() {
            let mut less = policy.clone();
            let left = less["Statement"][statement]["Resource"].as_array_mut().unwrap();
            left.remove(resource);
            if left.is_empty() {
                less["Statement"].as_array_mut().unwrap().remove(statement);
            }
            number += 1;
            assert_eq!(check(&format!("less-{number}"), &less).code(), 77, "{less}");
        }
    }
    assert_eq!(number, 6, "{policy}");
    let names = ["aws-sm:policy/d-other1"];
    let outcome = tries(stack.told(world.secret_init(), &stack.user("other", &policy)), names[0]);
    assert_eq!(outcome.code(), 77, "{}", outcome.stderr);
}

#[test]
fn a_policy_has_a_star_for_what_is_not_known_and_no_batches_for_few() {
    let world = World::new();
    let policy = |start: Start| start.variable("A", "aws-sm:a").variable("P", "aws-ssm:p").flag("policy").flag("aws").finishes().succeeds();
    let text = policy(world.secret_init());
    assert!(text.contains("\"arn:aws:secretsmanager:*:*:secret:a-??????\"") && text.contains("\"arn:aws:ssm:*:*:parameter/p\""), "{text}");
    assert!(!text.contains("Batch"), "{text}");
    let role = "arn:aws-cn:iam::1234:role/x";
    let text = policy(world.secret_init().variable("AWS_REGION", "cn-north-1").variable("AWS_ROLE_ARN", role));
    assert!(text.contains("\"arn:aws-cn:secretsmanager:cn-north-1:1234:secret:a-??????\""), "{text}");
    let outcome = world.secret_init().variable("A", "aws-sm:a*").flag("policy").flag("aws").finishes();
    outcome.fails(78, &["A: aws-sm:a*: a policy would take this name for a pattern", "hint: names in AWS have no * or ? or ${ in them"]);
}

// The page about it.

fn blocks(language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/aws.md")).unwrap();
    page.split(&format!("```{language}\n")).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_commands_of_the_docs_give_the_program_what_aws_has_and_the_policy_that_is_shown() {
    let stack = MiniStack::start(true);
    create_in(&stack, "eu-west-1", "prod/db", r#"{"username":"app","password":"a/b","host":"db"}"#);
    let parameter = json!({"Name": "/prod/api-key", "Type": "SecureString", "Value": "k3y"});
    assert_eq!(stack.call_as(&Keys::root(), "eu-west-1", "AmazonSSM.PutParameter", &parameter).0, 200);
    let binary = support::binary().display().to_string();
    let script = blocks("sh")[0].replace(
        "secret-init -- myapp",
        &format!("{binary} -- printenv DATABASE_URL API_KEY; {binary} policy aws; {binary} check >/dev/null"),
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-e", "-c", &script]).env_clear().env("PATH", "/usr/bin:/bin").env("AWS_REGION", "eu-west-1");
    command.envs([("AWS_ENDPOINT_URL", stack.address.as_str()), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let expected = format!("postgresql://app:a%2Fb@db:5432/app\nk3y\n{}", blocks("json")[0]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn the_configuration_of_the_docs_is_good() {
    let world = World::new();
    let plan = world.secret_init().flag("--config").flag(world.file("config.yaml", &blocks("yaml")[0])).flag("plan").finishes().succeeds();
    assert!(plan.contains("aws-sm:prod/jwt?store=eu#key  aws-sm  variable JWT_SECRET_KEY\n"), "{plan}");
    assert_eq!(blocks("yaml").len(), 1);
}

#[test]
fn every_reference_of_the_docs_is_one_and_says_where_it_leads() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/aws.md")).unwrap();
    let table = page.split("## References\n").nth(1).unwrap().split("##").next().unwrap();
    let references: Vec<&str> = table.split('`').filter(|part| part.starts_with("aws-s") || part.starts_with("arn:")).collect();
    for text in &references {
        let reference = secret_init::reference::Reference::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        assert!(text.contains(":secret:") == (reference.region() == Some("eu-west-1") && !text.contains("ssm:")), "{text}");
    }
    assert_eq!(references.len(), 13);
}
