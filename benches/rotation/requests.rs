//! How often servers are asked in an hour. What was asked for in a few looks that were ordered is counted, and taken for the twelve of an hour with an interval of five
//! minutes; leases of seconds are watched as they are renewed, and their times are stretched to an hour.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::subject::Subject;
use crate::support::servers::ministack::{Keys, MiniStack};
use crate::support::servers::openbao::OpenBao;
use crate::support::servers::postgres::Postgres;
use crate::support::{Start, World, eventually};
use crate::table::Table;

const LOOKS: usize = 4;
/// Of every five minutes.
const LOOKS_AN_HOUR: f64 = 12.0;
const COUNTS: [usize; 3] = [1, 10, 100];
/// How long a lease is good for here, and then so often.
const LEASE: Duration = Duration::from_secs(10);
const LEASES: u32 = 3;

pub fn count() {
    let (bao, aws) = (OpenBao::start(), MiniStack::tls(true));
    for number in 0..COUNTS[2] {
        bao.kv(&format!("bench/{number}"), &json!({"password": "x"}));
        aws.create_secret(&format!("bench/{number}"), "x");
        aws.put_parameter(&format!("/bench/{number}"), "SecureString", "x");
    }
    let vault = |start: Start| bao.told(start).variable("VAULT_TOKEN", &bao.root);
    let amazon = |start: Start| aws.told(start, &Keys::root());
    let of_vault = || bao.requests("").len();
    let of_aws = || settled(|| aws.requests().len());
    let rows = [
        ("OpenBao KV", each(&vault, "vault:secret/data/bench/N#password", &of_vault)),
        ("AWS Secrets Manager", each(&amazon, "aws-sm:bench/N", &of_aws)),
        ("AWS Parameter Store", each(&amazon, "aws-ssm:/bench/N", &of_aws)),
    ];
    let title = format!("Requests of an hour at an interval of 5 minutes, by {LOOKS} looks that were ordered");
    let mut table = Table::new(&title, &["1 secret", "10", "100"]);
    for (name, figures) in rows {
        table.row(name, &figures);
    }
    table.row(&format!("database/creds of OpenBao, leases of 1 h, by those of {} s", LEASE.as_secs()), &leases(&bao));
    table.print();
}

/// The log is written after the answer: it is complete when it does not grow any more.
fn settled(count: impl Fn() -> usize) -> usize {
    let mut before = count();
    eventually("no request comes any more", || {
        thread::sleep(Duration::from_millis(200));
        let now = count();
        (std::mem::replace(&mut before, now) == now).then_some(now)
    })
}

fn watched(world: &World, told: &dyn Fn(Start) -> Start, reference: &str, count: usize) -> Subject {
    let start = told(world.secret_init().directory(world.directory()).flag("--watch"));
    Subject::start(
        &(0..count)
            .fold(start, |start, number| start.variable(format!("SECRET_{number}_FILE"), reference.replace('N', &number.to_string()))),
    )
}

fn each(told: &dyn Fn(Start) -> Start, reference: &str, requests: &dyn Fn() -> usize) -> [String; 3] {
    COUNTS.map(|count| {
        let world = World::new();
        let subject = watched(&world, told, reference, count);
        // What is asked for once, such as what a token is good for, is past.
        Subject::looks(&world);
        let before = requests();
        for _ in 0..LOOKS {
            let outcome = Subject::looks(&world);
            assert_eq!(outcome.code(), 0, "{outcome:?}");
        }
        let asked = requests() - before;
        subject.ends();
        format!("{:.0}", asked as f64 / LOOKS as f64 * LOOKS_AN_HOUR)
    })
}

/// Each lease has a role of its own, as it would have a user of its own.
fn leases(bao: &OpenBao) -> [String; 3] {
    let postgres = Postgres::start();
    bao.database(&postgres);
    let create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
    for number in 0..COUNTS[2] {
        let role = json!({"db_name": "postgres", "creation_statements": create, "default_ttl": LEASE.as_secs(), "max_ttl": "1h"});
        bao.succeeds("POST", &format!("database/roles/bench-{number}"), &role);
    }
    let told = |start: Start| bao.told(start).variable("VAULT_TOKEN", &bao.root);
    COUNTS.map(|count| {
        let world = World::new();
        let subject = watched(&world, &told, "vault:database/creds/bench-N#password", count);
        let before = bao.requests("").len();
        let began = Instant::now();
        thread::sleep(LEASE * LEASES);
        let asked = (bao.requests("").len() - before) as f64;
        let in_a_lease = asked / (began.elapsed().as_secs_f64() / LEASE.as_secs_f64());
        subject.ends();
        format!("{in_a_lease:.1}")
    })
}
