//! What all services share.

use std::sync::Arc;

use portyard_core::daemon::{Asked, Shared};
use portyard_core::exit::Fatal;
use portyard_core::listen::Inherited;
use portyard_core::observe::metrics::Metrics;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::commands::{self, Commands};
use crate::inetd::Inetd;
use crate::settings::Settings;

/// The broker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Broker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    inetd: Inetd,
}

impl Broker {
    /// The services that start programs or pass on.
    pub fn inetd(&self) -> &Inetd {
        &self.0.inetd
    }
}

impl Shared for Broker {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = Settings::TABLES;
    type Commands = Commands;

    fn serves(settings: &Settings) -> bool {
        !settings.services.is_empty()
    }

    fn open(&self, _: &Settings, inherited: &mut Inherited) -> Result<(), Fatal> {
        self.inetd().open(inherited)
    }

    fn endpoints(&self) -> Vec<(String, String)> {
        self.inetd().endpoints()
    }

    fn start(
        &self,
        _: &Settings,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        self.inetd().start(metrics, faults)
    }

    fn drain(&self) {
        self.inetd().drain();
    }

    async fn empty(&self) {
        self.inetd().empty().await;
    }

    async fn stop(&self) {
        self.inetd().stop().await;
    }

    fn command(commands: &Commands, _: &Asked<'_, Self>) -> Option<Result<String, Fatal>> {
        commands::run(commands)
    }

    fn status(&self) -> Map<String, Value> {
        Map::from_iter([("services".into(), self.inetd().status())])
    }
}
