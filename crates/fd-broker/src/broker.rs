//! What all services share: the pools, and whoever turns their clocks.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use portyard_core::daemon::{Asked, Boot, Helm, Listening, Shared};
use portyard_core::exit::Fatal;
use portyard_core::listen::Inherited;
use portyard_core::observe::metrics::Metrics;
use portyard_core::wire::hold::Bound;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::collector::PoolCollector;
use crate::commands::{self, Commands};
use crate::crew::Crew;
use crate::hold::{self, Holding, HoldingCollector, Succession};
use crate::inetd::{self, Inetd};
use crate::pool::{Handed, Parked, Pool, PoolConfig, Pulse};
use crate::settings::Settings;
use crate::watch::Watch;

/// A connection that waits for a worker, taken out of its pool.
pub struct Waiter {
    pool: Arc<Pool>,
    handed: Handed,
}

impl Waiter {
    /// The name of the listener that accepted it.
    pub fn listener(&self) -> &str {
        self.handed.listener()
    }

    /// The broker's copy, which there is until a worker has taken the connection.
    pub fn socket(&self) -> Option<&OwnedFd> {
        self.handed.socket.as_ref()
    }
}

/// The broker. Cheap to clone.
#[derive(Clone, Default)]
pub struct Broker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    pools: Mutex<BTreeMap<String, Arc<Pool>>>,
    pulse: Arc<Pulse>,
    watch: Watch,
    crew: Crew,
    /// The pools of hand-off listeners, by the listener's name.
    hand_offs: Mutex<BTreeMap<String, String>>,
    /// Where the daemon listens: names and endpoints.
    endpoints: Mutex<Vec<(String, String)>>,
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
        let of = |pool: Arc<Pool>| -> Vec<Waiter> {
            let waiting = pool.take_waiting().into_iter();
            let waiter = |handed| Waiter {
                pool: pool.clone(),
                handed,
            };
            waiting.map(waiter).collect()
        };
        self.pools().into_iter().flat_map(of).collect()
    }

    /// Has workers stop that a successor can go on with, and returns them. Who does not stop in time goes
    /// on here.
    pub async fn park_workers(&self) -> Vec<Parked> {
        let (send, mut receive) = mpsc::unbounded_channel();
        for pool in self.pools() {
            pool.park(&send);
        }
        // Each session has its own, and drops it when it has answered.
        drop(send);
        let mut parked = Vec::new();
        let all = async {
            while let Some(one) = receive.recv().await {
                parked.push(one);
            }
        };
        let _ = timeout(PARK_WAIT, all).await;
        parked
    }

    /// Puts back what nobody else has taken.
    pub fn put_back(&self, waiting: Vec<Waiter>) {
        for Waiter { pool, handed } in waiting {
            pool.put_back(handed);
        }
        // Whoever turns the pools' clocks looks at all of them.
        self.0.pulse.wake();
    }

    /// The sockets of services that accept by themselves, as a successor finds them.
    pub fn watched(&self) -> Vec<(Bound, OwnedFd)> {
        let watched = self.inetd().listening().into_iter();
        let bound = |one: inetd::Listening| {
            let bound = Bound {
                endpoint: one.endpoint,
                listener: one.label,
                opening: 0,
            };
            (bound, one.socket)
        };
        watched.map(bound).collect()
    }

    /// Leaves the files of Unix sockets where they are: somebody else has the sockets.
    pub fn leave_files(&self) {
        self.holding().leave_files();
        self.inetd().leave_files();
    }

    /// Gives away what still waits, to whoever comes after us; what nobody takes stays.
    fn give_away_waiting(&self) {
        let waiting = self.take_waiting();
        let rest = if self.succession().has_successor() {
            self.succession().pass_on(waiting).err().unwrap_or_default()
        } else {
            let stays = |waiter: &Waiter| {
                let socket = waiter.socket();
                !socket.is_some_and(|it| self.holding().keep_waiting(waiter.listener(), it))
            };
            waiting.into_iter().filter(stays).collect()
        };
        self.put_back(rest);
    }

    /// The services that start programs or pass on.
    pub fn inetd(&self) -> &Inetd {
        &self.0.inetd
    }

    /// Everything that an operator may want to see, as JSON.
    pub fn state(&self) -> Value {
        let mut state = Shared::status(self);
        let waiting: Vec<Value> = self
            .pools()
            .iter()
            .flat_map(|pool| pool.waiting())
            .collect();
        state.insert("waiting".into(), waiting.into());
        let hand_offs = lock(&self.0.hand_offs);
        let listeners: Vec<Value> = lock(&self.0.endpoints)
            .iter()
            .map(|(name, endpoint)| {
                json!({ "name": name, "endpoint": endpoint, "pool": hand_offs.get(name) })
            })
            .collect();
        state.insert("listeners".into(), listeners.into());
        Value::Object(state)
    }

    /// Lets workers of this name, or of the pool of this name, finish what they have, or takes them back;
    /// how many there were.
    pub fn set_draining(&self, name: &str, draining: bool) -> Result<usize, &'static str> {
        let pools = self.pools();
        let is_pool = pools.iter().any(|pool| pool.name == name);
        let found: usize = pools
            .iter()
            .map(|pool| pool.set_draining(name, draining))
            .sum();
        if found == 0 && !is_pool {
            return Err(
                "no worker and no pool has this name; 'portyard broker workers' lists them",
            );
        }
        tracing::info!(name, draining, workers = found, "asked by an operator");
        Ok(found)
    }

    /// The programs that are kept running as workers.
    pub fn crew(&self) -> &Crew {
        &self.0.crew
    }

    /// A hand-off listener of this name is for that pool.
    pub fn set_hand_off(&self, listener: &str, pool: &str) {
        let mut hand_offs = lock(&self.0.hand_offs);
        hand_offs.insert(listener.into(), pool.into());
    }

    /// Lends the listening sockets of pools whose workers accept by themselves.
    fn lend(&self, sockets: &[Listening<'_>]) {
        let hand_offs = lock(&self.0.hand_offs);
        for pool in self.pools() {
            let mut lent = Vec::new();
            for socket in sockets {
                if hand_offs.get(socket.label) != Some(&pool.name) {
                    continue;
                }
                match socket.socket.try_clone() {
                    Ok(copy) => lent.push((socket.label.to_owned(), copy.into())),
                    Err(error) => {
                        tracing::error!(listener = socket.label, %error, "cannot be lent to workers");
                    }
                }
            }
            pool.lend(lent);
        }
    }

    /// The pool of this name; all are there before the first connection comes. A connection may come
    /// late for one that leaves, a worker may not: see [`Broker::open_pool`].
    pub fn pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.lock().get(name).cloned()
    }

    /// The pool of this name, if it is in the configuration.
    pub fn open_pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.pool(name).filter(|pool| !pool.is_leaving())
    }

    /// All pools, those that leave included.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.lock().values().cloned().collect()
    }

    /// Makes pools that are new, before anybody accepts for them.
    fn add_pools(&self, configs: Vec<PoolConfig>) {
        let offers = offers_in_flight(configs.len());
        let mut pools = self.lock();
        for config in configs {
            if !pools.contains_key(&config.name) {
                let (pulse, watch) = (self.0.pulse.clone(), self.0.watch.clone());
                let pool = Pool::new(config, offers, pulse, watch);
                pools.insert(pool.name.clone(), Arc::new(pool));
            }
        }
    }

    /// Changes the rules of pools that are there, and has those leave that are in the configuration no
    /// more. To be called on the control thread.
    fn set_pools(&self, configs: Vec<PoolConfig>) {
        let offers = offers_in_flight(configs.len());
        let pools = self.lock();
        for pool in pools.values() {
            if !configs.iter().any(|config| config.name == pool.name) {
                pool.leave();
                tokio::task::spawn_local(self.clone().see_off(pool.clone()));
            }
        }
        for config in configs {
            if let Some(pool) = pools.get(&config.name) {
                pool.reload(config, offers);
            }
        }
    }

    /// Forgets a pool that leaves, once it has no workers any more.
    async fn see_off(self, pool: Arc<Pool>) {
        pool.has_no_workers().await;
        let mut pools = self.lock();
        // A reload may have kept it meanwhile, or another one have seen it off.
        let is_it = |found: &Arc<Pool>| Arc::ptr_eq(found, &pool) && pool.is_leaving();
        if pools.get(&pool.name).is_some_and(is_it) {
            pools.remove(&pool.name);
            tracing::info!(pool = %pool.name, "has left");
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

    /// Passes on what still comes in, after a successor has got everything: connections that had been
    /// accepted before, and waited for room or for their first bytes.
    async fn forward(self) {
        while self.succession().has_successor() {
            sleep(TICK).await;
            self.give_away_waiting();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pool>>> {
        lock(&self.0.pools)
    }
}

impl Shared for Broker {
    type Settings = Settings;
    const TABLES: &'static [&'static str] = Settings::TABLES;
    type Commands = Commands;
    const ACTIONS: &'static [&'static str] = &[DRAIN, "workers/resume"];

    fn check(settings: &Settings) -> Result<(), String> {
        settings.check()
    }

    fn serves(settings: &Settings) -> bool {
        !settings.services.is_empty() || !settings.holds.is_empty()
    }

    fn inherit(&self, boot: Boot<'_, Self>) -> Result<(), Fatal> {
        let waiting = self.holding().take_up(boot.notifier, boot.inherited);
        self.succession().inherit_waiting(waiting);
        if boot.commands.take_over {
            let path = hold::control_path(boot.listeners)?;
            let taken = self
                .succession()
                .take_over(path, self.holding(), boot.inherited)?;
            if taken {
                // Until it is known which programs of the predecessor's have sockets of theirs.
                self.inetd().gate().close();
            }
        }
        Ok(())
    }

    fn steer(&self, helm: Helm) {
        self.succession().steer(helm);
    }

    fn open(&self, settings: &Settings, inherited: &mut Inherited) -> Result<(), Fatal> {
        self.holding().open(&settings.holds, inherited)?;
        self.inetd().open(inherited)?;
        self.add_pools(settings.all_pools());
        Ok(())
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
        let collector = PoolCollector(self.clone());
        metrics.register(|registry| registry.register_collector(Box::new(collector)));
        self.crew().plan(&settings.workers);
        tokio::task::spawn_local(self.clone().tick());
        tokio::task::spawn_local(self.0.watch.clone().run());
        self.inetd().start(metrics, faults)
    }

    fn prepare(&self, settings: &Settings) -> Result<(), String> {
        for config in settings.all_pools() {
            let pool = self.pool(&config.name);
            if pool.is_some_and(|pool| pool.mode() != config.mode) {
                return Err(format!(
                    "[[pool]] {}: mode takes effect at the next start: its workers have the \
                     listening sockets, or wait for connections; take the change back, or restart",
                    config.name
                ));
            }
        }
        Ok(())
    }

    fn reload(&self, settings: &Settings) -> Option<&'static str> {
        self.set_pools(settings.all_pools());
        self.crew().plan(&settings.workers);
        self.crew().set_to_work();
        self.holding().apply(&settings.holds, &settings.holding);
        None
    }

    fn listening(&self, sockets: &[Listening<'_>]) -> bool {
        self.lend(sockets);
        let endpoints = sockets
            .iter()
            .map(|socket| (socket.label.to_owned(), socket.endpoint.to_owned()))
            .collect();
        *lock(&self.0.endpoints) = endpoints;
        self.holding().listening(sockets, self.watched())
    }

    fn serving(&self) {
        let holding = self.holding().clone();
        tokio::task::spawn_local(async move { holding.expire().await });
        self.succession().serving(self.inetd().gate());
        self.crew().set_to_work();
    }

    fn drain(&self) {
        if self.succession().has_successor() {
            tokio::task::spawn_local(self.clone().forward());
        }
        if self.holding().is_kept() {
            self.leave_files();
        }
        self.inetd().drain();
    }

    async fn empty(&self) {
        // What its programs serve is served to its end.
        while {
            let processes = self.crew().processes();
            self.pools().iter().any(|pool| pool.occupies(&processes))
        } {
            sleep(TICK).await;
        }
        self.crew().stop().await;
        self.inetd().empty().await;
    }

    async fn stop(&self) {
        self.give_away_waiting();
        self.succession().end();
        self.holding().settle();
        for pool in self.pools() {
            pool.close();
        }
        self.crew().stop().await;
        self.inetd().stop().await;
    }

    fn command(commands: &Commands, _: &Asked<'_, Self>) -> Option<Result<String, Fatal>> {
        commands::run(commands)
    }

    fn act(&self, action: &str, name: &str) -> Result<String, String> {
        let is_drain = action == DRAIN;
        let found = self.set_draining(name, is_drain)?;
        let done = if is_drain { "draining" } else { "serving" };
        Ok(format!("{done}: {found}"))
    }

    fn status(&self) -> Map<String, Value> {
        let pools: Vec<Value> = self.pools().iter().map(|pool| pool.status()).collect();
        Map::from_iter([
            ("pools".into(), pools.into()),
            ("programs".into(), self.crew().status()),
            ("services".into(), self.inetd().status()),
            ("held".into(), self.holding().status()),
        ])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of a table is one step; a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors of each pool may be on their way: a quarter of what the process may open, all
/// together, because the kernel counts those of all processes of a user against the limit of one.
fn offers_in_flight(pools: usize) -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    (limit / 4 / pools.max(1)).max(1)
}

/// How long sessions have to stop for a hand-over; they do so at once, unless their loop is stuck.
const PARK_WAIT: Duration = Duration::from_secs(5);
/// The action that has workers finish.
const DRAIN: &str = "workers/drain";
/// The grain of a pool's deadlines.
const TICK: Duration = Duration::from_millis(50);
/// Ticks without anything to do before the clocks stop: a second.
const QUIET_TICKS: u32 = 20;
