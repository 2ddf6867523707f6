//! What all services share: the pools, and whoever turns their clocks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use portyard_core::daemon::{Asked, Shared};
use portyard_core::exit::Fatal;
use portyard_core::listen::Inherited;
use portyard_core::observe::metrics::Metrics;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::commands::{self, Commands};
use crate::inetd::Inetd;
use crate::pool::{Pool, PoolConfig, Pulse};
use crate::settings::Settings;
use crate::watch::Watch;

/// The broker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Broker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
    pulse: Arc<Pulse>,
    watch: Watch,
    inetd: Inetd,
}

impl Broker {
    /// The services that start programs or pass on.
    pub fn inetd(&self) -> &Inetd {
        &self.0.inetd
    }

    /// The pool of this name; all are there before the first connection comes.
    pub fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.lock().get(name).cloned()
    }

    /// All pools.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().values().cloned().collect()
    }

    /// Makes pools that are new, and changes the rules of those that are there.
    fn set_pools(&self, configs: Vec<PoolConfig>) {
        let offers = offers_in_flight(configs.len());
        let mut pools = self.lock();
        for config in configs {
            if let Some(pool) = pools.get(&config.name) {
                pool.reload(config, offers);
                continue;
            }
            let (pulse, watch) = (self.0.pulse.clone(), self.0.watch.clone());
            let pool = Pool::new(config, offers, pulse, watch);
            pools.insert(pool.name.clone(), Arc::new(pool));
        }
    }

    /// Turns the clocks of the pools for as long as something has a deadline.
    async fn tick(self) {
        loop {
            self.0.pulse.woken().await;
            let mut quiet = 0;
            while quiet < QUIET_TICKS {
                sleep(TICK).await;
                let mut idle = true;
                for pool in self.pools() {
                    idle &= pool.tick();
                }
                quiet = if idle { quiet + 1 } else { 0 };
            }
            self.0.pulse.rest();
            if !self.pools().iter().all(|pool| pool.is_idle()) {
                self.0.pulse.wake();
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Pool>>> {
        // A map of names; a panic cannot leave it half-changed.
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared for Broker {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = Settings::TABLES;
    type Commands = Commands;

    fn check(settings: &Settings) -> Result<(), String> {
        settings.check()
    }

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
        settings: &Settings,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        self.set_pools(settings.all_pools());
        tokio::task::spawn_local(self.clone().tick());
        tokio::task::spawn_local(self.0.watch.clone().run());
        self.inetd().start(metrics, faults)
    }

    fn reload(&self, settings: &Settings) -> Option<&'static str> {
        self.set_pools(settings.all_pools());
        None
    }

    fn drain(&self) {
        self.inetd().drain();
    }

    async fn empty(&self) {
        self.inetd().empty().await;
    }

    async fn stop(&self) {
        for pool in self.pools() {
            pool.close();
        }
        self.inetd().stop().await;
    }

    fn command(commands: &Commands, _: &Asked<'_, Self>) -> Option<Result<String, Fatal>> {
        commands::run(commands)
    }

    fn status(&self) -> Map<String, Value> {
        let pools: Vec<Value> = self.pools().iter().map(|pool| pool.status()).collect();
        Map::from_iter([
            ("pools".into(), pools.into()),
            ("services".into(), self.inetd().status()),
        ])
    }
}

/// How many descriptors of each pool may be on their way: a quarter of what the process may open, all
/// together, because the kernel counts those of all processes of a user against the limit of one.
fn offers_in_flight(pools: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    (limit / 4 / pools.max(1)).max(1)
}

/// The grain of a pool's deadlines.
const TICK: Duration = Duration::from_millis(50);
/// Ticks without anything to do before the clocks stop: a second.
const QUIET_TICKS: u32 = 20;
