//! How long things take.

use std::time::Duration;

use super::text::Text;

/// The ends of the buckets, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    pub fn add(&mut self, took: Duration) {
        if let Some(index) = BUCKETS.iter().position(|end| took.as_secs_f64() <= *end) {
            self.buckets[index] += 1;
        }
        self.count += 1;
        self.sum += took;
    }

    /// Its samples, of a family that has begun.
    pub fn render(&self, text: &mut Text, label: (&str, &str)) {
        let mut below = 0;
        for (end, number) in BUCKETS.iter().zip(self.buckets) {
            below += number;
            text.count("_bucket", &[label, ("le", &format!("{end:?}"))], below);
        }
        text.count("_bucket", &[label, ("le", "+Inf")], self.count);
        text.sample("_sum", &[label], self.sum.as_secs_f64());
        text.count("_count", &[label], self.count);
    }
}
