//! What the agent counts, in the words of Prometheus and of `OpenMetrics`. No secret's name or path is among the labels: there would be too many, and it is nobody's
//! concern who may read the metrics.

mod scrapes;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::{Seen, State};
use crate::store::{self, Fetched, Histogram, Traffic};
use crate::sys::clock::Moment;

pub use scrapes::{Scrape, Scrapes};
pub use text::Dialect;
use text::{Kind, Text};

/// Counters since the agent started. The rest is taken from what is [`Seen`] when somebody looks.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By kind of store and what came of it.
    accesses: BTreeMap<(&'static str, &'static str), u64>,
    /// By kind of store and what came of it.
    rotations: BTreeMap<(&'static str, &'static str), u64>,
    /// By kind of store: from the moment that a change was seen to the moment that it was in place.
    durations: BTreeMap<&'static str, Histogram>,
    /// By action.
    failed_actions: BTreeMap<&'static str, u64>,
    restarts: u64,
    traffic: Traffic,
}

/// What came of a secret that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// The new value is in place, this long after the change was seen.
    Done(Duration),
    /// `validate` refused it, and the old one stays.
    Refused,
    /// It could not be put in place, and the old one stays.
    Failed,
}

impl Rotation {
    const WORDS: [&'static str; 3] = ["rotated", "refused", "failed"];

    fn word(self) -> &'static str {
        let [done, refused, failed] = Self::WORDS;
        match self {
            Self::Done(_) => done,
            Self::Refused => refused,
            Self::Failed => failed,
        }
    }
}

impl Metrics {
    /// Nothing counted yet, for these kinds of store and these actions, but requests: what may be counted is there with 0 from the start, so that the first of it is
    /// seen as an increase.
    #[must_use]
    pub fn new(stores: impl IntoIterator<Item = &'static str>, actions: impl IntoIterator<Item = &'static str>, traffic: Traffic) -> Self {
        let mut metrics = Self { traffic, ..Self::default() };
        for store in stores {
            for word in ["ok", "unchanged"] {
                metrics.accesses.insert((store, word), 0);
            }
            for word in Rotation::WORDS {
                metrics.rotations.insert((store, word), 0);
            }
            metrics.durations.insert(store, Histogram::default());
        }
        metrics.failed_actions.extend(actions.into_iter().map(|action| (action, 0)));
        metrics
    }

    /// A store was asked for a secret.
    pub fn accessed(&mut self, store: &'static str, result: &Result<Fetched, store::Failure>) {
        *self.accesses.entry((store, store::word(result))).or_default() += 1;
    }

    /// A secret has changed.
    pub fn rotated(&mut self, store: &'static str, rotation: Rotation) {
        *self.rotations.entry((store, rotation.word())).or_default() += 1;
        if let Rotation::Done(took) = rotation {
            self.durations.entry(store).or_default().add(took);
        }
    }

    /// The program was started anew.
    pub fn restarted(&mut self) {
        self.restarts += 1;
    }

    /// What was to be done on a change failed.
    pub fn action_failed(&mut self, action: &'static str) {
        *self.failed_actions.entry(action).or_default() += 1;
    }

    /// All of it as text.
    #[must_use]
    pub fn render(&self, dialect: Dialect, seen: &Seen) -> String {
        let mut text = Text::new(dialect);
        text.family("secret_init_build", Kind::Info, "The version of secret-init");
        text.sample("_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.counters(&mut text);
        gauges(&mut text, seen);
        text.end()
    }

    fn counters(&self, text: &mut Text) {
        text.family(
            "secret_init_secret_access",
            Kind::Counter,
            "How often a store was asked for a secret, by the kind of store and what came of it",
        );
        for ((store, word), number) in &self.accesses {
            text.count("_total", &[("secret_type", store), ("status", word)], *number);
        }
        text.family(
            "secret_init_secret_rotation",
            Kind::Counter,
            "How often a secret has changed, by the kind of store and what came of it",
        );
        for ((store, word), number) in &self.rotations {
            text.count("_total", &[("secret_type", store), ("result", word)], *number);
        }
        let help = "From the moment that a change was seen to the moment that the new value was in place";
        text.family("secret_init_secret_rotation_duration_seconds", Kind::Histogram, help);
        for (store, histogram) in &self.durations {
            durations(text, ("secret_type", store), histogram);
        }
        let requests = self.traffic.requests();
        let help = "Requests to a store, its logins among them, by the class of the answer's status; none without an answer";
        text.family("secret_init_backend_requests", Kind::Counter, help);
        for (store, requests) in &requests {
            for (class, number) in &requests.by_class {
                text.count("_total", &[("backend", store), ("code_class", class)], *number);
            }
        }
        let help = "From a request to a store to the last byte of its answer, or to the failure";
        text.family("secret_init_backend_request_duration_seconds", Kind::Histogram, help);
        for (store, requests) in &requests {
            durations(text, ("backend", store), &requests.took);
        }
        text.family("secret_init_on_change_failures", Kind::Counter, "How often what was to be done on a change failed");
        for (action, number) in &self.failed_actions {
            text.count("_total", &[("action", action)], *number);
        }
        text.family("secret_init_child_restarts", Kind::Counter, "How often the program was started anew since a secret had changed");
        text.count("_total", &[], self.restarts);
    }
}

fn durations(text: &mut Text, label: (&str, &str), histogram: &Histogram) {
    for (end, number) in histogram.cumulative() {
        text.count("_bucket", &[label, ("le", &format!("{end:?}"))], number);
    }
    text.count("_bucket", &[label, ("le", "+Inf")], histogram.count);
    text.sample("_sum", &[label], histogram.sum.as_secs_f64());
    text.count("_count", &[label], histogram.count);
}

/// A gauge with a moment for each kind of store: its name, its help, and the moment of a secret.
type Gauge = (&'static str, &'static str, fn(&State) -> Option<Moment>);

/// Of several secrets in a kind of store the one counts that is the first to need somebody. Moments and not ages: whoever looks subtracts.
const GAUGES: [Gauge; 3] = [
    ("secret_init_secret_last_success_timestamp_seconds", "When the secret was read whose last good reading is the longest ago", |state| {
        state.last_success
    }),
    ("secret_init_secret_next_refresh_timestamp_seconds", "When the next secret will be looked at", |state| state.next_look),
    ("secret_init_lease_expiry_timestamp_seconds", "When the first value stops being good unless it is renewed or read again", |state| {
        state.expires
    }),
];

fn gauges(text: &mut Text, seen: &Seen) {
    text.family("secret_init_stale_secrets", Kind::Gauge, "Secrets whose last look failed: the program has the last good value");
    let stale = seen.secrets.iter().filter(|state| state.failure.is_some()).count();
    text.count("", &[], stale as u64);
    for (name, help, moment) in GAUGES {
        text.family(name, Kind::Gauge, help);
        let mut first: BTreeMap<&str, Moment> = BTreeMap::new();
        for (store, moment) in seen.secrets.iter().filter_map(|state| Some((state.store, moment(state)?))) {
            first.entry(store).and_modify(|first| *first = moment.min(*first)).or_insert(moment);
        }
        for (store, moment) in first {
            text.sample("", &[("secret_type", store)], seen.clock.unix(moment));
        }
    }
    text.family("secret_init_auth_token_expiry_timestamp_seconds", Kind::Gauge, "When a login ends unless it is renewed or repeated");
    for (store, moment) in &seen.logins {
        text.sample("", &[("backend", store)], seen.clock.unix(*moment));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::health::Clock;
    use crate::store::FailureKind;

    fn counted() -> (Metrics, Seen) {
        let traffic = Traffic::default();
        let requests = traffic.to("main");
        requests.sent(Some(200), Duration::from_millis(20));
        requests.sent(Some(503), Duration::from_millis(1));
        requests.sent(None, Duration::from_secs(3));
        traffic.sent(Some(200), Duration::ZERO);
        let mut metrics = Metrics::new(["vault"], ["signal"], traffic);
        metrics.accessed("vault", &Ok(Fetched::Unchanged));
        metrics.accessed("vault", &Err(store::Failure::new(FailureKind::Denied, "permission denied (403)")));
        metrics.rotated("vault", Rotation::Done(Duration::from_millis(30)));
        metrics.rotated("vault", Rotation::Done(Duration::from_secs(11)));
        metrics.rotated("vault", Rotation::Refused);
        metrics.action_failed("signal");
        metrics.restarted();
        let state = |last: u64, failure: Option<&str>| State {
            reference: "vault:secret/data/hidden".to_owned(),
            store: "vault",
            last_success: Some(Duration::from_secs(last)),
            expires: Some(Duration::from_millis(last * 1000 + 50)),
            failure: failure.map(str::to_owned),
            ..State::default()
        };
        let clock = Clock { moment: Duration::from_secs(100), wall: UNIX_EPOCH + Duration::from_secs(1_000_100) };
        let secrets = vec![state(90, None), state(70, Some("connection refused"))];
        (metrics, Seen { clock, secrets, logins: vec![("vault".to_owned(), Duration::from_secs(200))] })
    }

    #[test]
    fn open_metrics_has_the_names_of_families_without_the_endings_of_their_samples() {
        let (metrics, seen) = counted();
        let text = metrics.render(Dialect::OpenMetrics, &seen);
        for lines in [
            "# TYPE secret_init_build info\nsecret_init_build_info{version=",
            "# TYPE secret_init_secret_access counter\n",
            "secret_init_secret_access_total{secret_type=\"vault\",status=\"denied\"} 1\n",
            "secret_init_secret_access_total{secret_type=\"vault\",status=\"ok\"} 0\n",
            "secret_init_secret_access_total{secret_type=\"vault\",status=\"unchanged\"} 1\n",
            "secret_init_secret_rotation_total{secret_type=\"vault\",result=\"refused\"} 1\n",
            "# TYPE secret_init_secret_rotation_duration_seconds histogram\n# UNIT secret_init_secret_rotation_duration_seconds seconds\n",
            "_bucket{secret_type=\"vault\",le=\"0.025\"} 0\n",
            "_bucket{secret_type=\"vault\",le=\"0.05\"} 1\n",
            "_bucket{secret_type=\"vault\",le=\"10.0\"} 1\n",
            "_bucket{secret_type=\"vault\",le=\"+Inf\"} 2\n",
            "_sum{secret_type=\"vault\"} 11.03\n",
            "_count{secret_type=\"vault\"} 2\n",
            "secret_init_backend_requests_total{backend=\"main\",code_class=\"2xx\"} 1\n",
            "secret_init_backend_requests_total{backend=\"main\",code_class=\"4xx\"} 0\n",
            "secret_init_backend_requests_total{backend=\"main\",code_class=\"5xx\"} 1\n",
            "secret_init_backend_requests_total{backend=\"main\",code_class=\"none\"} 1\n",
            "secret_init_backend_request_duration_seconds_bucket{backend=\"main\",le=\"0.025\"} 2\n",
            "secret_init_backend_request_duration_seconds_count{backend=\"main\"} 3\n",
            "secret_init_on_change_failures_total{action=\"signal\"} 1\n",
            "secret_init_child_restarts_total 1\n",
            "secret_init_stale_secrets 1\n",
            "secret_init_secret_last_success_timestamp_seconds{secret_type=\"vault\"} 1000070\n",
            "secret_init_lease_expiry_timestamp_seconds{secret_type=\"vault\"} 1000070.05\n",
            "secret_init_auth_token_expiry_timestamp_seconds{backend=\"vault\"} 1000200\n",
        ] {
            assert!(text.contains(lines), "{lines} in {text}");
        }
        assert!(text.ends_with("\n# EOF\n") && !text.contains("hidden"), "{text}");
    }

    #[test]
    fn the_older_dialect_has_the_same_samples_and_names_families_as_them() {
        let (metrics, seen) = counted();
        let [text, open] = [Dialect::Text, Dialect::OpenMetrics].map(|dialect| metrics.render(dialect, &seen));
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&text), samples(&open));
        assert!(
            text.contains("# TYPE secret_init_secret_access_total counter\n") && text.contains("# TYPE secret_init_build_info gauge\n")
        );
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"), "{text}");
    }
}
