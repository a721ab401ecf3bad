//! What the agent holds while it watches.

use std::fs;

use serde_json::json;

use crate::Scale;
use crate::subject::Subject;
use crate::support::servers::openbao::OpenBao;
use crate::support::{Start, World};
use crate::table::{Table, Target};

/// Looks at everything before its memory is measured.
const LOOKS: usize = 3;
/// KiB, for a hundred secrets.
const LIMIT: f64 = 12.0 * 1024.0;

type Told<'a> = &'a dyn Fn(Start) -> Start;

pub fn compare(scale: &Scale) -> Vec<Target> {
    let bao = OpenBao::start();
    let most = scale.watched[2];
    let secrets = World::new();
    for number in 0..most {
        bao.kv(&format!("bench/{number}"), &json!({"password": value(number)}));
        fs::write(secrets.path.join(number.to_string()), value(number)).unwrap();
    }
    bao.policy("bench", "path \"secret/data/bench/*\" { capabilities = [\"read\"] }");
    let token = bao.token(&["bench"]);
    let files = |start: Start| start;
    let remote = |start: Start| bao.told(start).variable("VAULT_TOKEN", &token);
    let folder = secrets.path.display().to_string();
    let kinds: [(&str, Told, String); 2] =
        [("files", &files, format!("file:{folder}/N")), ("OpenBao KV", &remote, "vault:secret/data/bench/N#password".to_owned())];
    let title = format!("Memory while secrets are watched, after {LOOKS} looks");
    let mut table = Table::new(&title, &["agent: private dirty, KiB", "descriptors", "PID 1: private dirty, KiB"]);
    let mut targets = Vec::new();
    for (name, told, reference) in kinds {
        for count in scale.watched {
            let world = World::new();
            let start = told(world.secret_init().directory(world.directory()).flag("--watch"));
            let start = (0..count)
                .fold(start, |start, number| start.variable(format!("SECRET_{number}_FILE"), reference.replace('N', &number.to_string())));
            let subject = Subject::start(&start);
            for _ in 0..LOOKS {
                let outcome = Subject::looks(&world);
                assert_eq!(outcome.code(), 0, "{outcome:?}");
            }
            let [agent, init] = subject.memory();
            let row = [format!("{agent:.0}"), subject.descriptors()[0].to_string(), format!("{init:.0}")];
            table.row(&format!("{count} of {name}"), &row);
            if count == scale.watched[1] {
                targets.push(Target::new(format!("private dirty memory of the agent, KiB: {count} of {name}"), agent, LIMIT));
            }
            subject.ends();
        }
    }
    table.print();
    targets
}

/// What a secret is.
fn value(number: usize) -> String {
    format!("value-{number}-correct-horse-battery-staple")
}
