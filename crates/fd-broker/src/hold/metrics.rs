//! What was asked, and what is held, for whoever scrapes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::holding::Holding;
use super::rules::Operation;

/// What was asked, by operation: done, and refused.
#[derive(Debug, Default)]
pub struct Counts([[AtomicU64; 2]; Operation::ALL.len()]);

impl Counts {
    /// One more.
    pub fn count(&self, operation: Operation, done: bool) {
        let counter = &self.0[operation as usize][usize::from(!done)];
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an operation was done, and how often it was refused.
    pub fn of(&self, operation: Operation) -> [u64; 2] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [done, refused] = &self.0[operation as usize];
        [load(done), load(refused)]
    }
}

/// Shows what is held and what was asked.
pub struct HoldingCollector(pub Holding);

impl fmt::Debug for HoldingCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HoldingCollector")
    }
}

impl Collector for HoldingCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (names, sockets) = self.0.len();
        for (name, help, number) in [
            ("held_names", "Names under which sockets are held", names),
            ("held_sockets", "Sockets that are held", sockets),
        ] {
            let gauge = ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let mut family = encoder.encode_descriptor(
            "hold_requests",
            "Requests of peers for held sockets",
            None,
            MetricType::Counter,
        )?;
        for operation in Operation::ALL {
            for (result, count) in ["done", "refused"]
                .into_iter()
                .zip(self.0.counts().of(operation))
            {
                let labels = [("operation", operation.label()), ("result", result)];
                let counter = ConstCounter::new(count);
                counter.encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
