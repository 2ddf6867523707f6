//! What all services of a daemon share, such as a store behind several protocols.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::exit::Fatal;
use crate::observe::metrics::Metrics;

/// State of the process, handed to every service. It is made empty before the configuration is read,
/// because services are built for a mere check too, and started before the first listener.
pub trait Shared: Clone + Default + Send + Sync + 'static {
    /// A table of the configuration beside those that all daemons have.
    type Settings: Clone + Default + PartialEq + DeserializeOwned + Serialize;
    /// The table's name; empty when there is none.
    const TABLE: &'static str;

    /// Checks what types cannot say.
    fn check(settings: &Self::Settings) -> Result<(), String> {
        let _ = settings;
        Ok(())
    }

    /// Opens what it needs, or says why the daemon cannot serve. Its metrics go to `metrics`; what
    /// later makes going on impossible goes to `faults` and ends the daemon.
    fn start(
        &self,
        settings: &Self::Settings,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        let _ = (settings, metrics, faults);
        Ok(())
    }

    /// Takes new settings over, or says what needs a restart.
    fn reload(&self, settings: &Self::Settings) -> Option<&'static str> {
        let _ = settings;
        None
    }

    /// Ends in order, after the last connection.
    fn stop(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }

    /// What `/status` shows of it, under the table's name.
    fn status(&self) -> Option<Value> {
        None
    }
}

/// No table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Shared for () {
    type Settings = NoSettings;
    const TABLE: &'static str = "";
}
