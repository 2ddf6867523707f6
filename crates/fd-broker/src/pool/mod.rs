//! Pools: connections come in, workers take them.
//!
//! [`Machine`] decides, without a socket. A [`Pool`] is a machine behind a lock, with what its actions
//! need: the workers' outboxes, and the answers for clients that nobody serves. A worker's session
//! holds a [`Seat`] in its pool for as long as it lasts.

mod action;
mod balance;
mod config;
mod connections;
mod counts;
mod handed;
mod machine;
mod offers;
mod seat;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portyard_core::observe::Throttle;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use action::Action;
pub use action::Unserved;
pub use config::{Mode, PoolConfig, is_name};
pub use connections::ConnectionId;
pub use counts::Counts;
pub use handed::{Handed, Place};
pub use machine::{Machine, Unknown};
pub use seat::{About, Asked, Legacy, Parked, Protocol, Seat, Sent};
pub use worker::{Joining, WorkerId};

use crate::watch::Watch;

/// A pool.
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What has happened in it.
    pub counts: Counts,
    /// Told when something in it has a deadline.
    pulse: Arc<Pulse>,
    /// Tells of connections that have ended, where workers do not.
    watch: Watch,
    state: Mutex<State>,
    /// Told when there is room in the queue again.
    room: Notify,
    /// Told when a worker has gone.
    left: Notify,
    throttle: Throttle,
}

struct State {
    config: PoolConfig,
    machine: Machine<Handed>,
    links: BTreeMap<WorkerId, Link>,
    /// Listening sockets for the workers, in listener mode.
    lent: Vec<(String, OwnedFd)>,
    /// It is in the configuration no more: nothing comes in, and workers go when they are through.
    leaving: bool,
    actions: Vec<Action<Handed>>,
}

/// The pool's end of a worker's session.
struct Link {
    about: About,
    /// Offers that have not been sent.
    outbox: Vec<ConnectionId>,
    /// Told when there is something in the outbox, or the session is to do something else.
    wake: Arc<Notify>,
    asked: Asked,
    /// Whether it is an operator, or the worker, who wants it to get nothing.
    drained: (bool, bool),
}

/// What is done once the lock is free.
#[derive(Default)]
struct Endings {
    answers: Vec<(Handed, Unserved)>,
    /// Closed by being dropped.
    dropped: Vec<Handed>,
    closed: Vec<OwnedFd>,
}

/// Wakes whoever turns the clocks of the pools.
#[derive(Debug, Default)]
pub struct Pulse {
    awake: std::sync::atomic::AtomicBool,
    notify: Notify,
}

impl Pool {
    /// A pool without workers. `offers` is how many of its descriptors may be in flight.
    pub fn new(config: PoolConfig, offers: usize, pulse: Arc<Pulse>, watch: Watch) -> Self {
        Self {
            name: config.name.clone(),
            counts: Counts::default(),
            pulse,
            watch,
            state: Mutex::new(State {
                machine: Machine::new(config.rules(offers)),
                config,
                links: BTreeMap::new(),
                lent: Vec::new(),
                leaving: false,
                actions: Vec::new(),
            }),
            room: Notify::new(),
            left: Notify::new(),
            throttle: Throttle::new(),
        }
    }

    /// What its table says.
    pub fn config(&self) -> PoolConfig {
        self.lock().config.clone()
    }

    /// Goes on by other rules, even if it was to leave.
    pub fn reload(&self, config: PoolConfig, offers: usize) {
        self.change(|state, now, _| {
            let rules = config.rules(offers);
            state.config = config;
            if std::mem::take(&mut state.leaving) {
                for (&id, link) in &mut state.links {
                    link.ask_to_drain(link.drained.0);
                    let drained = link.drained.0 || link.drained.1;
                    let (machine, actions) = (&mut state.machine, &mut state.actions);
                    machine.set_draining(id, drained, now, actions);
                }
            }
            state.machine.set_rules(rules, now, &mut state.actions);
        });
        self.room.notify_waiters();
    }

    /// Ends it, because it is in the configuration no more: who waits is answered, workers finish what
    /// they have and are parted with.
    pub fn leave(&self) {
        let first = self.change(|state, now, _| {
            state.lent.clear();
            for (&id, link) in &mut state.links {
                link.ask_to_drain(true);
                let (machine, actions) = (&mut state.machine, &mut state.actions);
                machine.set_draining(id, true, now, actions);
            }
            !std::mem::replace(&mut state.leaving, true)
        });
        if first {
            tracing::info!(pool = %self.name, "leaves: it is in the configuration no more");
        }
        // Whoever waits for room finds out where else to go.
        self.room.notify_waiters();
        self.left.notify_one();
    }

    /// Whether it is to leave.
    pub fn is_leaving(&self) -> bool {
        self.lock().leaving
    }

    /// Returns when its last worker has gone.
    pub async fn has_no_workers(&self) {
        while !self.lock().links.is_empty() {
            self.left.notified().await;
        }
    }

    /// A connection for its workers.
    pub fn arrive(&self, handed: Handed) {
        Counts::add(&self.counts.arrived);
        let source = handed.source();
        self.change(|state, now, endings| {
            if state.leaving {
                endings.answers.push((handed, Unserved::Closing));
                return;
            }
            state
                .machine
                .arrive(handed, source, now, &mut state.actions);
        });
    }

    /// What its workers get.
    pub fn mode(&self) -> Mode {
        self.lock().config.mode
    }

    /// Whether connections should be accepted for it now.
    pub fn accepts(&self) -> bool {
        let state = self.lock();
        // One that leaves has an answer for all.
        state.leaving || state.config.mode == Mode::Connections && !state.machine.is_full()
    }

    /// Lends these listening sockets to its workers, if they accept by themselves.
    pub fn lend(&self, sockets: Vec<(String, OwnedFd)>) {
        self.change(|state, _, _| {
            state.lent = sockets;
            for link in state.links.values_mut() {
                link.asked.lent = true;
                link.wake.notify_one();
            }
        });
    }

    /// Returns when the queue has room. Not accepting until then is how clients are made to wait.
    pub async fn has_room(&self) {
        loop {
            let room = self.room.notified();
            if self.accepts() {
                return;
            }
            room.await;
        }
    }

    /// A connection has ended, says the kernel.
    pub fn ended(&self, connection: ConnectionId) {
        self.change(|state, now, endings| {
            let ended = state
                .machine
                .done(None, connection, now, &mut state.actions);
            if let Some(handed) = ended {
                Counts::add(&self.counts.done);
                endings.dropped.push(handed);
            }
            state.look_who_is_through();
        });
    }

    /// Does what is due; whether nothing is left that has a deadline.
    pub fn tick(&self) -> bool {
        self.change(|state, now, _| {
            state.machine.tick(now, &mut state.actions);
            state.machine.is_idle()
        })
    }

    /// Takes out who waits, the next one first: another broker serves them.
    pub fn take_waiting(&self) -> Vec<Handed> {
        self.change(|state, _, _| state.machine.take_queue())
    }

    /// Takes one back that no other broker has taken.
    pub fn put_back(&self, handed: Handed) {
        let source = handed.source();
        self.change(|state, now, _| {
            state
                .machine
                .arrive(handed, source, now, &mut state.actions);
        });
    }

    /// Turns away who waits.
    pub fn close(&self) {
        self.change(|state, _, _| state.machine.close(&mut state.actions));
    }

    /// Has its workers stop whose sessions can go on with a successor; each tells `parked`.
    pub fn park(&self, parked: &UnboundedSender<Parked>) {
        for link in self.lock().links.values_mut() {
            if link.about.protocol != Protocol::Native {
                link.asked.park = Some(parked.clone());
                link.wake.notify_one();
            }
        }
    }

    /// Whether one of these processes has a connection, or may have one any moment.
    pub fn occupies(&self, processes: &BTreeSet<i32>) -> bool {
        let state = self.lock();
        let mut links = state.links.iter();
        links.any(|(&id, link)| processes.contains(&link.about.pid) && state.machine.load(id) > 0)
    }

    fn load_of(&self, worker: WorkerId) -> u32 {
        self.lock().machine.load(worker)
    }

    /// Whether nobody waits and no offer is open.
    pub fn is_idle(&self) -> bool {
        self.lock().machine.is_idle()
    }

    /// Lets workers of this name, or all when the name is the pool's, finish what they have, or takes
    /// them back; how many there were.
    pub fn set_draining(&self, name: &str, draining: bool) -> usize {
        self.change(|state, now, _| {
            let all = self.name == name;
            let mut found = 0;
            for (&id, link) in &mut state.links {
                if !all && link.about.name != name {
                    continue;
                }
                found += 1;
                if link.drained.0 == draining {
                    continue;
                }
                link.drained.0 = draining;
                if state.leaving {
                    continue;
                }
                link.ask_to_drain(draining);
                let drained = draining || link.drained.1;
                state
                    .machine
                    .set_draining(id, drained, now, &mut state.actions);
            }
            found
        })
    }

    /// Workers, and connections that wait, are offered, are served.
    pub fn sizes(&self) -> [usize; 4] {
        let state = self.lock();
        let machine = &state.machine;
        let (mut workers, mut served) = (0, 0);
        for (_, worker) in machine.workers() {
            workers += 1;
            served += worker.present as usize;
        }
        [workers, machine.queue().len(), machine.offered(), served]
    }

    /// What the status says of it.
    pub fn status(&self) -> Value {
        let now = Instant::now();
        let state = self.lock();
        let seconds = |since: Instant| now.duration_since(since).as_secs_f64();
        let workers: Vec<Value> = state
            .machine
            .workers()
            .filter_map(|(id, worker)| {
                let About {
                    name,
                    protocol,
                    pid,
                    uid,
                } = &state.links.get(&id)?.about;
                Some(json!({
                    "name": name,
                    "protocol": protocol.name(),
                    "pid": pid,
                    "uid": uid,
                    "age_seconds": seconds(worker.since),
                    "state": if worker.draining { "draining" } else { "serving" },
                    "weight": worker.joining.weight,
                    "capacity": worker.joining.capacity,
                    "connections": worker.present,
                    "offered": worker.offered,
                    "taken": worker.taken,
                    "refused": worker.refused,
                    "redelivered": worker.redelivered,
                }))
            })
            .collect();
        let served: u32 = state
            .machine
            .workers()
            .map(|(_, worker)| worker.present)
            .sum();
        let mut status = json!({
            "name": self.name,
            "mode": state.config.mode,
            "leaving": state.leaving,
            "balance": state.config.balance,
            "waiting": state.machine.queue().len(),
            "waiting_limit": state.config.queue,
            "waiting_seconds": state.machine.queue().next().map_or(0.0, |(_, since)| seconds(since)),
            "offered": state.machine.offered(),
            "connections": served,
            "workers": workers,
        });
        drop(state);
        if let Value::Object(status) = &mut status {
            self.counts.tell(status);
        }
        status
    }

    /// Who waits, the next one first.
    pub fn waiting(&self) -> Vec<Value> {
        let now = Instant::now();
        let state = self.lock();
        let describe = |(handed, since): (&Handed, Instant)| {
            json!({
                "pool": self.name,
                "peer": handed.peer.to_string(),
                "listener": handed.listener(),
                "waiting_seconds": now.duration_since(since).as_secs_f64(),
            })
        };
        state.machine.queue().map(describe).collect()
    }

    /// Changes the state, and does what comes of it.
    fn change<R>(&self, change: impl FnOnce(&mut State, Instant, &mut Endings) -> R) -> R {
        let mut endings = Endings::default();
        let mut guard = self.lock();
        let state = &mut *guard;
        let was_full = state.machine.is_full();
        let result = change(state, Instant::now(), &mut endings);
        if state.leaving {
            // What comes back to it has nowhere to go.
            state.machine.close(&mut state.actions);
        }
        for action in state.actions.drain(..) {
            match action {
                Action::Offer(worker, connection) => {
                    if let Some(link) = state.links.get_mut(&worker) {
                        if link.outbox.is_empty() {
                            link.wake.notify_one();
                        }
                        link.outbox.push(connection);
                    }
                }
                Action::Cut(worker) => {
                    if let Some(link) = state.links.get_mut(&worker) {
                        link.asked.cut = true;
                        link.wake.notify_one();
                    }
                }
                Action::Answer(handed, why) => endings.answers.push((handed, why)),
                Action::Lost(handed) => {
                    Counts::add(&self.counts.lost);
                    tracing::info!(
                        pool = %self.name, peer = %handed.peer,
                        "a connection is closed: its worker has died with it"
                    );
                    endings.dropped.push(handed);
                }
                Action::Released(handed) => {
                    Counts::add(&self.counts.released);
                    endings.dropped.push(handed);
                }
            }
        }
        if !state.machine.is_idle() {
            self.pulse.wake();
        }
        if was_full && !state.machine.is_full() {
            self.room.notify_waiters();
        }
        if !endings.answers.is_empty() {
            let (how, banner) = (state.config.when_nobody, state.config.banner.clone());
            drop(guard);
            for (handed, why) in endings.answers.drain(..) {
                self.counts.unserve(why);
                tracing::debug!(pool = %self.name, peer = %handed.peer, why = why.word(), "not served");
                handed.answer(how, &banner);
            }
        }
        result
    }

    /// Says that the kernel takes no more descriptors; once a second at most.
    fn warn_of_flight(&self) {
        if let Some(held) = self.throttle.pass() {
            tracing::warn!(
                pool = %self.name, held,
                "too many descriptors of this user are under way; raise LimitNOFILE"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The machine's methods leave it whole or do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has workers that may be through parted with.
    fn look_who_is_through(&mut self) {
        if self.leaving {
            for link in self.links.values() {
                link.wake.notify_one();
            }
        }
    }
}

impl Link {
    /// Has the worker told that it gets nothing more, or that it does again.
    fn ask_to_drain(&mut self, draining: bool) {
        self.asked.drain = Some(draining);
        // What is lent to workers is lent again.
        self.asked.lent |= !draining;
        self.wake.notify_one();
    }
}

impl Pulse {
    /// Something has a deadline. Cheap while somebody ticks.
    pub fn wake(&self) {
        use std::sync::atomic::Ordering;
        if !self.awake.load(Ordering::Acquire) && !self.awake.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Waits until something has a deadline.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Nothing has a deadline as far as is known. Whoever calls this looks once more afterwards.
    pub fn rest(&self) {
        self.awake
            .store(false, std::sync::atomic::Ordering::Release);
    }
}

impl Unserved {
    /// One word for metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Full => "full",
            Self::Redeliveries => "redeliveries",
            Self::Closing => "closing",
        }
    }
}
