//! A listener while it serves: its settings, which a reload replaces, and its counts, which stay.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::access::AccessList;
use crate::auth::Prover;
use crate::config::{DatagramLimits, Rate, StreamLimits};
use crate::datagram::DatagramService;
use crate::endpoint::{Endpoint, Transport};
use crate::limits::{Buckets, Gate, Penalties, Prefix, Sources, Token};
use crate::observe::metrics::ListenerMetrics;
use crate::serve::{StreamService, Trust};

/// What differs between streams and datagrams.
pub trait Flavour: 'static {
    /// The limits of a listener.
    type Limits: Clone + PartialEq + Send + Sync;
    /// What a listener serves.
    type Service: ?Sized + Send + Sync + 'static;
    /// The transport of most of its services.
    const TRANSPORT: Transport;

    /// The transport of a service.
    fn transport(service: &Self::Service) -> Transport {
        let _ = service;
        Self::TRANSPORT
    }

    /// Whether a service takes connections as they are.
    fn takes_sockets(service: &Self::Service) -> bool {
        let _ = service;
        false
    }

    /// At most so many places of connections that are in other processes, as far as there is room.
    fn places(listener: &Arc<Listener<Self>>, count: usize) -> Vec<Permit>
    where
        Self: Sized,
    {
        let _ = (listener, count);
        Vec::new()
    }

    /// The rate per source, and the burst above it.
    fn rate(limits: &Self::Limits) -> Option<(Rate, u32)>;
    /// Connections at a time.
    fn ceiling(limits: &Self::Limits) -> Option<u32>;
    /// Connections that may wait at a limit.
    fn queue(limits: &Self::Limits) -> u32;
    /// Connections at a time that have something to prove.
    fn handshakes(limits: &Self::Limits) -> u32;
}

/// Listeners of streams.
#[derive(Debug)]
pub enum Streams {}

/// Listeners of datagrams.
#[derive(Debug)]
pub enum Datagrams {}

/// A listener, shared by all loops.
pub struct Listener<F: Flavour> {
    /// The name in logs, metrics and status.
    pub name: String,
    /// The service's name.
    pub service: String,
    /// Where it really listens.
    pub endpoint: Endpoint,
    /// Whether the socket came from whoever started us.
    pub inherited: bool,
    /// Its counters.
    pub metrics: ListenerMetrics,
    stop: ArcSwap<CancellationToken>,
    /// Cancelled when it is gone for good, and nobody takes over what waits for it.
    pub closed: CancellationToken,
    /// Its connections, waiting ones included.
    pub gate: Gate,
    /// All connections of the daemon.
    pub total: Arc<Gate>,
    /// Its connections by source; empty unless `per_source` is set.
    pub sources: Sources,
    /// Connections waiting at `per_source` or `rate`.
    pub waiting: Gate,
    /// Connections that have something to prove and have not yet.
    pub proving: Gate,
    /// What sources owe for failed authentications.
    pub penalties: Penalties,
    buckets: Mutex<Option<Buckets>>,
    settings: ArcSwap<Settings<F>>,
    /// Told when there are other settings.
    reloaded: Notify,
}

/// What a reload can change.
pub struct Settings<F: Flavour> {
    /// Limits and deadlines.
    pub limits: F::Limits,
    /// Who may use it.
    pub access: AccessList,
    /// What it serves.
    pub service: Arc<F::Service>,
    /// What it demands before; `None`: nothing, and always for datagrams.
    pub trust: Option<Arc<Trust>>,
    /// What is proved to the broker that gives us connections.
    pub prover: Option<Prover>,
}

/// The right of one connection to exist. Dropping it gives the place back.
pub struct Permit {
    listener: Arc<Listener<Streams>>,
    source: Option<Prefix>,
    /// Whether it is counted in the daemon's total, too.
    in_total: bool,
}

impl<F: Flavour> Listener<F> {
    /// A listener that has not started yet.
    pub fn new(
        (name, service): (&str, &str),
        endpoint: Endpoint,
        inherited: bool,
        metrics: ListenerMetrics,
        total: Arc<Gate>,
        settings: Settings<F>,
    ) -> Self {
        Self {
            name: name.into(),
            service: service.into(),
            endpoint,
            inherited,
            metrics,
            stop: ArcSwap::from_pointee(CancellationToken::new()),
            closed: CancellationToken::new(),
            gate: Gate::new(F::ceiling(&settings.limits).unwrap_or(u32::MAX)),
            total,
            sources: Sources::default(),
            waiting: Gate::new(F::queue(&settings.limits)),
            proving: Gate::new(F::handshakes(&settings.limits)),
            penalties: Penalties::default(),
            buckets: Mutex::new(new_buckets::<F>(&settings.limits)),
            settings: ArcSwap::from_pointee(settings),
            reloaded: Notify::new(),
        }
    }

    /// Ends it: it stops accepting, serves what is left in the backlog of a socket that is about to
    /// close, and turns away who waits at a limit.
    pub fn close(&self) {
        self.closed.cancel();
        self.stop.load().cancel();
    }

    /// Cancelled when it is to stop accepting.
    pub fn stopped(&self) -> CancellationToken {
        CancellationToken::clone(&self.stop.load())
    }

    /// Stops accepting and leaves the backlog to the listener that takes the socket over. Who waits
    /// at a limit goes on waiting.
    pub fn hand_over(&self) {
        self.stop.load().cancel();
    }

    /// Undoes a hand-over that has failed: its sockets may be given to loops again.
    pub fn take_back(&self) {
        self.stop.store(Arc::default());
    }

    /// Whether the backlog must be served before the end. An inherited socket stays open elsewhere
    /// and keeps its backlog for the next process.
    pub fn owes_backlog(&self) -> bool {
        self.closed.is_cancelled() && !self.inherited
    }

    /// The settings of this moment. A connection keeps those it began with.
    pub fn settings(&self) -> Arc<Settings<F>> {
        self.settings.load_full()
    }

    /// Replaces the settings; connections and counts stay.
    pub fn reload(&self, settings: Settings<F>) {
        self.gate
            .set_ceiling(F::ceiling(&settings.limits).unwrap_or(u32::MAX));
        self.waiting.set_ceiling(F::queue(&settings.limits));
        self.proving.set_ceiling(F::handshakes(&settings.limits));
        if F::rate(&self.settings().limits) != F::rate(&settings.limits) {
            *self.lock_buckets() = new_buckets::<F>(&settings.limits);
        }
        self.settings.store(Arc::new(settings));
        self.reloaded.notify_waiters();
    }

    /// Takes a token of a source, if the listener has a rate. `now` is in milliseconds.
    pub fn take_token(&self, source: Prefix, now: u64) -> Token {
        self.lock_buckets()
            .as_mut()
            .map_or(Token::Taken, |buckets| buckets.take(source, now))
    }

    /// True once in `chance` calls, at random.
    pub fn leak(&self, chance: u32) -> bool {
        self.lock_buckets()
            .as_mut()
            .is_some_and(|buckets| buckets.leak(chance))
    }

    fn lock_buckets(&self) -> std::sync::MutexGuard<'_, Option<Buckets>> {
        // A bucket is a plain number; a panic cannot leave it half-changed.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_buckets<F: Flavour>(limits: &F::Limits) -> Option<Buckets> {
    F::rate(limits).map(|(rate, burst)| Buckets::new(rate, burst))
}

impl Listener<Streams> {
    /// Returns when the service has room for a connection more, or when a reload may have brought one
    /// that has.
    pub async fn room_or_reload(&self) {
        // Made before the settings are read, so that no reload is missed.
        let reloaded = self.reloaded.notified();
        let Some(room) = self.settings().service.room() else {
            return;
        };
        tokio::select! {
            () = room => {}
            () = reloaded => {}
        }
    }

    /// Enters the listener and the daemon if both have room.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        if !self.gate.try_enter() {
            return None;
        }
        let mut permit = self.half_permit();
        permit.in_total = self.total.try_enter();
        permit.in_total.then_some(permit)
    }

    /// Enters as soon as both have room.
    pub async fn enter(self: &Arc<Self>) -> Permit {
        self.gate.enter().await;
        let mut permit = self.half_permit();
        self.total.enter().await;
        permit.in_total = true;
        permit
    }

    fn half_permit(self: &Arc<Self>) -> Permit {
        self.metrics.present.inc();
        Permit {
            listener: self.clone(),
            source: None,
            in_total: false,
        }
    }
}

impl Permit {
    /// The listener that gave it.
    pub fn listener(&self) -> &Arc<Listener<Streams>> {
        &self.listener
    }

    /// The connection is in another process now, and takes none of our descriptors: it counts for its
    /// listener and its source, not for the daemon any more.
    pub fn leave_daemon(&mut self) {
        if std::mem::take(&mut self.in_total) {
            self.listener.total.leave();
        }
    }

    /// Counts the connection as one of its source, unless that has `ceiling` already.
    pub fn try_count(&mut self, source: Prefix, ceiling: u32) -> bool {
        let entered = self.listener.sources.try_enter(source, ceiling);
        if entered {
            self.source = Some(source);
        }
        entered
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            self.listener.sources.leave(source);
        }
        if self.in_total {
            self.listener.total.leave();
        }
        self.listener.gate.leave();
        self.listener.metrics.present.dec();
    }
}

impl Flavour for Streams {
    type Limits = StreamLimits;
    type Service = dyn StreamService;
    const TRANSPORT: Transport = Transport::Stream;

    fn transport(service: &Self::Service) -> Transport {
        service.transport()
    }

    fn takes_sockets(service: &Self::Service) -> bool {
        service.takes_sockets()
    }

    fn places(listener: &Arc<Listener<Self>>, count: usize) -> Vec<Permit> {
        let place = |_| {
            let mut permit = listener.try_enter()?;
            permit.leave_daemon();
            Some(permit)
        };
        (0..count).map_while(place).collect()
    }

    fn rate(limits: &StreamLimits) -> Option<(Rate, u32)> {
        Some((limits.rate.0?, limits.burst.get()))
    }

    fn ceiling(limits: &StreamLimits) -> Option<u32> {
        limits.connections.map(Into::into)
    }

    fn queue(limits: &StreamLimits) -> u32 {
        limits.queue.get().into()
    }

    fn handshakes(limits: &StreamLimits) -> u32 {
        limits.handshakes.get()
    }
}

impl Flavour for Datagrams {
    type Limits = DatagramLimits;
    type Service = dyn DatagramService;
    const TRANSPORT: Transport = Transport::Datagram;

    fn rate(limits: &DatagramLimits) -> Option<(Rate, u32)> {
        Some((limits.rate.0?, limits.burst.get()))
    }

    fn ceiling(_: &DatagramLimits) -> Option<u32> {
        None
    }

    fn queue(_: &DatagramLimits) -> u32 {
        0
    }

    fn handshakes(_: &DatagramLimits) -> u32 {
        0
    }
}

/// The source that an address is counted under; Unix peers are one source together.
pub fn source_of(address: Option<IpAddr>) -> Prefix {
    address.map_or(Prefix::Local, Prefix::of)
}
