//! The requests to stores, counted where they are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::histogram::Histogram;
use super::text::{Kind, Text};

/// The requests to stores. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Whose requests these are; none are counted of nobody's.
    store: Option<String>,
    counted: Arc<Mutex<BTreeMap<String, Requests>>>,
}

/// The requests to a store.
#[derive(Debug)]
struct Requests {
    by_class: BTreeMap<&'static str, u64>,
    took: Histogram,
}

impl Default for Requests {
    /// What may be counted is there with 0 from the start, so that the first of it is seen as an increase.
    fn default() -> Self {
        Self { by_class: CLASSES.iter().map(|class| (*class, 0)).collect(), took: Histogram::default() }
    }
}

/// The classes of status codes, after that of no answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Traffic {
    /// The requests to the store of this name.
    #[must_use]
    pub fn to(&self, store: &str) -> Self {
        self.counted().entry(store.to_owned()).or_default();
        Self { store: Some(store.to_owned()), counted: Arc::clone(&self.counted) }
    }

    /// A request was sent, and had an answer with this status, or none, after this time.
    pub fn sent(&self, status: Option<u16>, took: Duration) {
        let Some(store) = &self.store else { return };
        let class = status.and_then(|status| CLASSES.get(usize::from(status / 100))).unwrap_or(&CLASSES[0]);
        let mut counted = self.counted();
        let requests = counted.entry(store.clone()).or_default();
        *requests.by_class.entry(class).or_default() += 1;
        requests.took.add(took);
    }

    pub(super) fn render(&self, text: &mut Text) {
        let counted = self.counted();
        let help = "Requests to a store, its logins among them, by the class of the answer's status; none without an answer";
        text.family("secret_init_backend_requests", Kind::Counter, help);
        for (store, requests) in &*counted {
            for (class, number) in &requests.by_class {
                text.count("_total", &[("backend", store), ("code_class", class)], *number);
            }
        }
        let help = "From the request to a store to the last byte of its answer, or to the failure";
        text.family("secret_init_backend_request_duration_seconds", Kind::Histogram, help);
        for (store, requests) in &*counted {
            requests.took.render(text, ("backend", store));
        }
    }

    fn counted(&self) -> MutexGuard<'_, BTreeMap<String, Requests>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
