//! The pools' metrics, read when somebody scrapes.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::broker::Broker;

/// Shows the pools of a broker.
pub struct PoolCollector(pub Broker);

impl fmt::Debug for PoolCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolCollector")
    }
}

impl Collector for PoolCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pools = self.0.pools();
        let gauges = [
            ("pool_workers", "Workers that are there"),
            ("pool_waiting", "Connections that wait for a worker"),
            (
                "pool_offered",
                "Connections that workers have not answered for",
            ),
            ("pool_served", "Connections that workers have"),
        ];
        let sizes: Vec<_> = pools.iter().map(|pool| pool.sizes()).collect();
        for (at, (name, help)) in gauges.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (pool, sizes) in pools.iter().zip(&sizes) {
                let gauge = ConstGauge::new(i64::try_from(sizes[at]).unwrap_or(i64::MAX));
                gauge.encode(family.encode_family(&[("pool", pool.name.as_str())])?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "pool_connections",
            "What happened to connections",
            None,
            MetricType::Counter,
        )?;
        for pool in &pools {
            for (event, count) in pool.counts.named() {
                let labels = [("pool", pool.name.as_str()), ("event", event)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "pool_unserved",
            "Connections that no worker served",
            None,
            MetricType::Counter,
        )?;
        for pool in &pools {
            for (reason, count) in pool.counts.unserved() {
                let labels = [("pool", pool.name.as_str()), ("reason", reason)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
