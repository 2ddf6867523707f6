//! What all services share.

use std::sync::Arc;

use portyard_core::daemon::{Boot, Helm, Listening, Shared};
use portyard_core::exit::Fatal;
use portyard_core::listen::Inherited;
use portyard_core::observe::metrics::Metrics;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::commands::Commands;
use crate::hold::{self, Holding, HoldingCollector, Succession};
use crate::inetd::Inetd;
use crate::settings::Settings;

/// A connection that waits for a worker.
pub type Waiter = portyard_core::serve::Accepted;

/// The broker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Broker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    inetd: Inetd,
    holding: Holding,
    succession: Succession,
}

impl Broker {
    /// What is held for others.
    pub fn holding(&self) -> &Holding {
        &self.0.holding
    }

    /// Who was before this broker, and who comes after it.
    pub fn succession(&self) -> &Succession {
        &self.0.succession
    }

    /// Takes out all connections that wait for a worker.
    pub fn take_waiting(&self) -> Vec<Waiter> {
        let _ = self;
        Vec::new()
    }

    /// Puts back what nobody else has taken.
    pub fn put_back(&self, waiting: Vec<Waiter>) {
        let _ = self;
        drop(waiting);
    }

    /// The services that start programs or pass on.
    pub fn inetd(&self) -> &Inetd {
        &self.0.inetd
    }
}

impl Shared for Broker {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = Settings::TABLES;
    type Commands = Commands;

    fn check(settings: &Settings) -> Result<(), String> {
        hold::check(&settings.holds, &settings.holding)
    }

    fn serves(settings: &Settings) -> bool {
        !settings.services.is_empty() || !settings.holds.is_empty()
    }

    fn inherit(&self, boot: Boot<'_, Self>) -> Result<(), Fatal> {
        let waiting = self.holding().take_up(boot.notifier, boot.inherited);
        self.succession().inherit_waiting(waiting);
        if boot.commands.take_over {
            let path = hold::control_path(boot.listeners)?;
            self.succession()
                .take_over(path, self.holding(), boot.inherited)?;
        }
        Ok(())
    }

    fn steer(&self, helm: Helm) {
        self.succession().steer(helm);
    }

    fn open(&self, settings: &Settings, inherited: &mut Inherited) -> Result<(), Fatal> {
        self.holding().open(&settings.holds, inherited)?;
        self.inetd().open(inherited)
    }

    fn endpoints(&self) -> Vec<(String, String)> {
        let mut endpoints = self.holding().endpoints();
        endpoints.extend(self.inetd().endpoints());
        endpoints
    }

    fn start(
        &self,
        settings: &Settings,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        self.holding().apply(&settings.holds, &settings.holding);
        let collector = HoldingCollector(self.holding().clone());
        metrics.register(|registry| registry.register_collector(Box::new(collector)));
        self.inetd().start(metrics, faults)
    }

    fn reload(&self, settings: &Settings) -> Option<&'static str> {
        self.holding().apply(&settings.holds, &settings.holding);
        None
    }

    fn listening(&self, sockets: &[Listening<'_>]) -> bool {
        self.holding().listening(sockets)
    }

    fn serving(&self) {
        let holding = self.holding().clone();
        tokio::task::spawn_local(async move { holding.expire().await });
        self.succession().serving();
    }

    fn drain(&self) {
        if self.holding().is_kept() {
            self.holding().leave_files();
        }
        self.inetd().drain();
    }

    async fn empty(&self) {
        self.inetd().empty().await;
    }

    async fn stop(&self) {
        self.inetd().stop().await;
        if self.succession().has_successor() {
            let _ = self.succession().pass_on(self.take_waiting());
            self.succession().end();
        } else {
            for waiter in self.take_waiting() {
                self.holding()
                    .keep_waiting(&waiter.listener().name, &waiter.socket);
            }
        }
        self.holding().settle();
    }

    fn status(&self) -> Map<String, Value> {
        Map::from_iter([
            ("services".into(), self.inetd().status()),
            ("held".into(), self.holding().status()),
        ])
    }
}
