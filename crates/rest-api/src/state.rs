//! What all listeners share.

use std::sync::Arc;

use portyard_core::daemon::{NoCommands, Shared};
use portyard_core::exit::Fatal;
use portyard_core::observe::metrics::Metrics;
use tokio::sync::mpsc;

use crate::metrics::RequestMetrics;
use crate::settings::Settings;

/// The state. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct State(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    metrics: RequestMetrics,
}

impl State {
    /// What counts requests.
    pub fn metrics(&self) -> &RequestMetrics {
        &self.0.metrics
    }
}

impl Shared for State {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = &[];
    type Commands = NoCommands;

    fn start(
        &self,
        _: &Settings,
        metrics: &Metrics,
        _: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        self.0.metrics.register(metrics);
        Ok(())
    }
}
