//! The store's own metrics, read when somebody scrapes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::store::{Histogram, Store};

/// Shows a store's metrics.
pub struct StoreCollector(pub Store);

impl fmt::Debug for StoreCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreCollector")
    }
}

impl Collector for StoreCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = self.0.metrics();
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        for (name, help, number) in [
            ("store_commits", "Commits that succeeded", &metrics.commits),
            (
                "store_batches",
                "Writes that were answered",
                &metrics.batches,
            ),
            (
                "store_conflicts",
                "Writes whose condition did not hold",
                &metrics.conflicts,
            ),
            (
                "store_busy",
                "Writes turned away because too many were waiting",
                &metrics.busy,
            ),
            (
                "store_expired",
                "Keys that ended and were removed",
                &metrics.expired,
            ),
            (
                "store_watch_events",
                "Events that watchers were told, each counted for each of them",
                &metrics.events,
            ),
            (
                "store_watches_lagged",
                "Watches that ended because the history had moved past them",
                &metrics.lagged,
            ),
        ] {
            let counter = ConstCounter::new(read(number));
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        for (name, help, number) in [
            (
                "store_waiting",
                "Writes that wait for the disk",
                &metrics.waiting,
            ),
            (
                "store_revision",
                "The revision of the last change",
                &metrics.revision,
            ),
            ("store_keys", "Keys that there are", &metrics.keys),
            (
                "store_bytes",
                "Bytes of keys and values in memory",
                &metrics.bytes,
            ),
            (
                "store_watchers",
                "Watches that there are: subscriptions, and calls that wait",
                &metrics.watchers,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(read(number)).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        histogram(
            &mut encoder,
            "store_batch_size",
            "Writes in a commit",
            &metrics.batches_per_commit,
            1.0,
        )?;
        histogram(
            &mut encoder,
            "store_commit_seconds",
            "How long a commit took, its sync included",
            &metrics.commit_microseconds,
            1e6,
        )
    }
}

/// A histogram of powers of two, in units of which `unit` are one.
fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &Histogram,
    unit: f64,
) -> Result<(), fmt::Error> {
    let metric = prometheus_client::metrics::MetricType::Histogram;
    let mut encoder = encoder.encode_descriptor(name, help, None, metric)?;
    let counts: Vec<(f64, u64)> = histogram
        .buckets
        .iter()
        .enumerate()
        .map(|(at, count)| {
            let last = at + 1 == histogram.buckets.len();
            let end = if last {
                f64::INFINITY
            } else {
                2_f64.powi(i32::try_from(at).unwrap_or(0)) / unit
            };
            (end, count.load(Ordering::Relaxed))
        })
        .collect();
    let sum = histogram.sum.load(Ordering::Relaxed) as f64 / unit;
    let count = counts.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<prometheus_client::encoding::NoLabelSet>(sum, count, &counts, None)
}
