//! The requests to stores, counted where they are sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The requests to stores. Clones count into the same.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Whose requests these are; none are counted of nobody's.
    store: Option<String>,
    counted: Arc<Mutex<BTreeMap<String, Requests>>>,
}

/// The requests to a store.
#[derive(Clone, Debug)]
pub struct Requests {
    /// By the class of the answer's status.
    pub by_class: BTreeMap<&'static str, u64>,
    /// From each to the last byte of its answer, or to the failure.
    pub took: Histogram,
}

impl Default for Requests {
    /// What may be counted is there with 0 from the start, so that the first of it is seen as an increase.
    fn default() -> Self {
        Self { by_class: CLASSES.iter().map(|class| (*class, 0)).collect(), took: Histogram::default() }
    }
}

/// No answer, and the classes of status codes.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Traffic {
    /// The requests to the store of this name.
    #[must_use]
    pub fn to(&self, store: &str) -> Self {
        self.counted(|counted| {
            counted.entry(store.to_owned()).or_default();
        });
        Self { store: Some(store.to_owned()), counted: Arc::clone(&self.counted) }
    }

    /// A request was sent, and had an answer with this status, or none, after this time.
    pub fn sent(&self, status: Option<u16>, took: Duration) {
        let Some(store) = &self.store else { return };
        let class = status.and_then(|status| CLASSES.get(usize::from(status / 100))).unwrap_or(&CLASSES[0]);
        self.counted(|counted| {
            let requests = counted.entry(store.clone()).or_default();
            *requests.by_class.entry(class).or_default() += 1;
            requests.took.add(took);
        });
    }

    /// What was counted, by store.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, Requests> {
        self.counted(|counted| counted.clone())
    }

    fn counted<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Requests>) -> T) -> T {
        with(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long things took.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    buckets: [u64; Self::ENDS.len()],
    /// How many there were.
    pub count: u64,
    /// Of all of them.
    pub sum: Duration,
}

impl Histogram {
    /// The ends of the buckets, in seconds.
    const ENDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    /// One more, that took so long.
    pub fn add(&mut self, took: Duration) {
        if let Some(index) = Self::ENDS.iter().position(|end| took.as_secs_f64() <= *end) {
            self.buckets[index] += 1;
        }
        self.count += 1;
        self.sum += took;
    }

    /// How many took no longer than each end, in seconds.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let below = |sum: &mut u64, (end, number): (f64, u64)| {
            *sum += number;
            Some((end, *sum))
        };
        Self::ENDS.into_iter().zip(self.buckets).scan(0, below)
    }
}
