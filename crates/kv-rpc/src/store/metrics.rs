//! What a store has done, for whoever exports it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts and gauges of a store. Reading them takes no lock; they are not of one moment.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Commits that succeeded.
    pub commits: AtomicU64,
    /// Batches that were answered, failed conditions among them.
    pub batches: AtomicU64,
    /// Batches whose condition did not hold.
    pub conflicts: AtomicU64,
    /// Batches turned away because too much was waiting.
    pub busy: AtomicU64,
    /// Entries that ended and were removed.
    pub expired: AtomicU64,
    /// Batches waiting for their answer.
    pub waiting: AtomicU64,
    /// The latest revision.
    pub revision: AtomicU64,
    /// How many keys there are, ended ones among them until they are removed.
    pub keys: AtomicU64,
    /// How many bytes keys and values take.
    pub bytes: AtomicU64,
    /// Watchers that there are.
    pub watchers: AtomicU64,
    /// Events that watchers have taken in pages, each counted for each watcher.
    pub events: AtomicU64,
    /// How often a watcher came too late for events that were dropped.
    pub lagged: AtomicU64,
    /// How many batches went into one commit.
    pub batches_per_commit: Histogram,
    /// How many microseconds a commit took, its sync included.
    pub commit_microseconds: Histogram,
}

/// Counts of numbers by size: bucket `n` counts those below 2ⁿ that no lower bucket counts, the last
/// one all others, too.
#[derive(Debug, Default)]
pub struct Histogram {
    /// The buckets.
    pub buckets: [AtomicU64; BUCKETS],
    /// The sum of all numbers.
    pub sum: AtomicU64,
}

/// How many buckets a [`Histogram`] has. In microseconds the last begins at 18 minutes.
pub const BUCKETS: usize = 32;

impl Histogram {
    /// Counts a number.
    pub fn observe(&self, number: u64) {
        let bits = (u64::BITS - number.leading_zeros()) as usize;
        add(&self.buckets[bits.min(BUCKETS - 1)], 1);
        add(&self.sum, number);
    }

    /// Counts a duration, in microseconds.
    pub fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many numbers there were.
    pub fn count(&self) -> u64 {
        let counts = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        counts.sum()
    }
}

/// Adds to a counter.
pub(super) fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_below_its_power_of_two() {
        let histogram = Histogram::default();
        for number in [0, 1, 2, 3, 4, u64::MAX] {
            histogram.observe(number);
        }
        let counts = histogram
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        assert_eq!(counts[..4], [1, 1, 2, 1]);
        assert_eq!(counts[BUCKETS - 1], 1);
        assert_eq!(histogram.count(), 6);
    }
}
