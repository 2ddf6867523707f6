//! Every connection of one loop, with its deadlines.
//!
//! One sweep every 100 ms looks at all of them, instead of a timer each: moving a deadline is one
//! store per message, and an idle connection costs less than a hundred bytes here.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Peer;
use super::deadlines::{BUSY, NEVER, TICK, Ticks, ticks, whole_ticks};
use super::entry::{Drain, Entry};
use crate::listener::{Listener, Streams};
use crate::observe::metrics::Ending;
use crate::sys::give_memory_back;
use crate::worker::Ticket;

/// The connections of a loop.
pub struct Registry {
    entries: RefCell<Slab<Entry>>,
    /// The tickets of connections that a broker has given, by slot; of a daemon that has no broker it is
    /// empty.
    tickets: RefCell<Vec<Option<Ticket>>>,
    start: Instant,
    /// Tenths of a second since `start`, as of the last sweep or arrival.
    now: Cell<Ticks>,
    /// Set while the daemon drains: since when, and for how long a peer may be silent.
    drain: Cell<Option<Drain>>,
    /// The names of the keys that were proved. Apart, because few connections prove any.
    keys: RefCell<HashMap<u32, Arc<str>>>,
    /// What a predecessor's service has left for the one that goes on with a connection.
    legacies: RefCell<HashMap<Slot, Box<dyn Any>>>,
    /// When something large was freed first, of what has not been given back.
    freed: Cell<Option<Ticks>>,
    changed: Notify,
}

/// A connection's place in its loop's registry. Small, because every task holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(u32);

impl Slot {
    fn index(self) -> usize {
        self.0 as usize
    }
}

impl Registry {
    /// No connections yet.
    pub fn new() -> Self {
        Self {
            entries: RefCell::new(Slab::with_capacity(RESERVED)),
            tickets: RefCell::default(),
            start: Instant::now(),
            now: Cell::new(1),
            drain: Cell::new(None),
            keys: RefCell::default(),
            legacies: RefCell::default(),
            freed: Cell::new(None),
            changed: Notify::new(),
        }
    }

    /// Enters a connection and returns its slot.
    pub fn enter(&self, peer: Peer, listener: Arc<Listener<Streams>>) -> Slot {
        // The sweep sleeps while there is nobody, so its last time may be long ago.
        let now = self.read_clock();
        let mut entries = self.entries.borrow_mut();
        let slot = entries.insert(Entry::new(peer, listener, now));
        if entries.len() == 1 {
            self.changed.notify_one();
        }
        // 2^32 connections would need as many descriptors.
        Slot(u32::try_from(slot).unwrap_or(u32::MAX))
    }

    /// Takes a connection out, which is closed by now; the broker that gave it hears of its end.
    pub fn leave(&self, slot: Slot) {
        self.entries.borrow_mut().remove(slot.index()).collect();
        let mut keys = self.keys.borrow_mut();
        if !keys.is_empty() {
            keys.remove(&slot.0);
        }
        if let Some(held) = self.tickets.borrow_mut().get_mut(slot.index()) {
            *held = None;
        }
        // Never taken, because the connection was cut before.
        drop(self.take_legacy(slot));
    }

    /// Keeps what a predecessor's service has left until the service asks for it.
    pub fn set_legacy(&self, slot: Slot, legacy: Box<dyn Any>) {
        self.legacies.borrow_mut().insert(slot, legacy);
    }

    /// What a predecessor's service has left; once.
    pub fn take_legacy(&self, slot: Slot) -> Option<Box<dyn Any>> {
        let mut legacies = self.legacies.borrow_mut();
        if legacies.is_empty() {
            return None;
        }
        legacies.remove(&slot)
    }

    /// The peer has proved the key of this name.
    pub fn set_key(&self, slot: Slot, key: Arc<str>) {
        self.keys.borrow_mut().insert(slot.0, key);
    }

    /// The name of the key that the peer has proved.
    pub fn key(&self, slot: Slot) -> Option<Arc<str>> {
        self.keys.borrow().get(&slot.0).cloned()
    }

    /// Keeps what stands for a connection towards its broker until it is over.
    pub fn hold(&self, slot: Slot, ticket: Ticket) {
        let mut tickets = self.tickets.borrow_mut();
        if tickets.len() <= slot.index() {
            tickets.resize_with(slot.index() + 1, || None);
        }
        tickets[slot.index()] = Some(ticket);
    }

    /// Remembers whom to wake for a cut or a drain.
    pub fn watch(&self, slot: Slot, waker: &Waker) {
        let entry = &mut self.entries.borrow_mut()[slot.index()];
        if !entry.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            entry.waker = Some(waker.clone());
        }
    }

    /// Whether a broker gave the connection and has not heard that it was taken: another worker may have
    /// it by now.
    pub fn is_revoked(&self, slot: Slot) -> bool {
        let tickets = self.tickets.borrow();
        let ticket = tickets.get(slot.index()).and_then(Option::as_ref);
        ticket.is_some_and(|ticket| !ticket.holds())
    }

    /// Why the connection is to be cut, if it is.
    pub fn cut(&self, slot: Slot) -> Option<Ending> {
        self.entries.borrow()[slot.index()].cut
    }

    /// Something was received.
    pub fn received(&self, slot: Slot, bytes: usize) {
        let entry = &mut self.entries.borrow_mut()[slot.index()];
        entry.moved = self.now.get();
        entry.heard = entry.moved;
        entry.received += bytes as u64;
    }

    /// The peer took something.
    pub fn sent(&self, slot: Slot, bytes: usize) {
        let entry = &mut self.entries.borrow_mut()[slot.index()];
        entry.moved = self.now.get();
        entry.stalled = 0;
        entry.sent += bytes as u64;
    }

    /// The peer has all that was written. Nothing has moved by that, unless it had stopped taking.
    pub fn flushed(&self, slot: Slot) {
        let entry = &mut self.entries.borrow_mut()[slot.index()];
        if entry.stalled != 0 {
            entry.moved = self.now.get();
            entry.stalled = 0;
        }
    }

    /// The peer takes nothing at the moment.
    pub fn stalled(&self, slot: Slot) {
        let entry = &mut self.entries.borrow_mut()[slot.index()];
        if entry.stalled == 0 {
            entry.stalled = self.now.get();
        }
    }

    /// The service works by itself until something moves: the idle deadline rests.
    pub fn busy(&self, slot: Slot) {
        self.entries.borrow_mut()[slot.index()].moved = BUSY;
    }

    /// Wakes the task once, when so much time has passed; `None`: not any more.
    pub fn wake_in(&self, slot: Slot, span: Option<Duration>) {
        let now = self.now.get();
        let entry = &mut self.entries.borrow_mut()[slot.index()];
        entry.alarm = span.map_or(NEVER, |span| {
            now.saturating_add(ticks(span).unwrap_or(1)).min(NEVER - 1)
        });
        entry.due = false;
    }

    /// Whether the alarm has gone off. True once.
    pub fn take_due(&self, slot: Slot) -> bool {
        std::mem::take(&mut self.entries.borrow_mut()[slot.index()].due)
    }

    /// A connection lets go of more memory than a message takes: the sweep gives it to the kernel.
    pub fn freed(&self) {
        if self.freed.get().is_none() {
            self.freed.set(Some(self.now.get()));
        }
    }

    /// Who is at the other end.
    pub fn peer(&self, slot: Slot) -> Peer {
        self.entries.borrow()[slot.index()].peer
    }

    /// Another than the socket says is at the other end: a balancer has named it.
    pub fn set_peer(&self, slot: Slot, peer: Peer) {
        self.entries.borrow_mut()[slot.index()].peer = peer;
    }

    /// The listener that accepted it.
    pub fn listener(&self, slot: Slot) -> Arc<Listener<Streams>> {
        self.entries.borrow()[slot.index()].listener.clone()
    }

    /// How long the connection has existed, to a tenth of a second.
    pub fn age(&self, slot: Slot) -> Duration {
        let opened = self.entries.borrow()[slot.index()].opened;
        TICK * self.now.get().saturating_sub(opened)
    }

    /// Whether the daemon drains and the peer has been silent for long enough that nothing more
    /// is expected of it.
    pub fn finishing(&self, slot: Slot) -> bool {
        self.drain.get().is_some() && self.entries.borrow()[slot.index()].finishing
    }

    /// Whether the daemon drains.
    pub fn draining(&self) -> bool {
        self.drain.get().is_some()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Asks all connections to finish, each as soon as its peer has been silent for `quiet`: what
    /// was on its way when the drain began is still served.
    pub fn drain(&self, quiet: Duration) {
        let quiet = ticks(quiet).unwrap_or(1);
        self.drain.set(Some(Drain {
            since: self.read_clock(),
            quiet,
        }));
        self.changed.notify_one();
    }

    /// Cuts all connections.
    pub fn cut_all(&self) {
        self.wake(|entry| {
            entry.cut.get_or_insert(Ending::Drain);
            true
        });
    }

    /// Returns when no connection is left.
    pub async fn empty(&self) {
        while self.len() > 0 {
            tokio::time::sleep(TICK / 10).await;
        }
    }

    /// Moves the clock and cuts what is past a deadline, for as long as the loop runs. It sleeps
    /// while there is nobody.
    pub async fn sweep(&self) {
        loop {
            if self.len() == 0 {
                self.changed.notified().await;
            }
            let (now, drain) = (self.read_clock(), self.drain.get());
            if self
                .freed
                .get()
                .is_some_and(|freed| now >= freed + GIVE_BACK)
            {
                self.freed.set(None);
                give_memory_back();
            }
            self.wake(|entry| {
                entry.collect();
                entry.cut = entry.cut.or_else(|| entry.overdue(now));
                let finishes = drain.is_some_and(|drain| entry.finishes(now, drain));
                entry.finishing |= finishes;
                entry.cut.is_some() || finishes || entry.rings(now)
            });
            tokio::time::sleep(TICK).await;
        }
    }

    fn read_clock(&self) -> Ticks {
        // Tick 0 is left out: it stands for "not stalled".
        let now = whole_ticks(self.start.elapsed()).saturating_add(1);
        self.now.set(now);
        now
    }

    /// Applies `change` to every connection and wakes those for which it says so.
    fn wake(&self, mut change: impl FnMut(&mut Entry) -> bool) {
        // Waking only marks a task as ready, it runs nothing, so the borrow is safe.
        for (_, entry) in self.entries.borrow_mut().iter_mut() {
            if change(entry)
                && let Some(waker) = &entry.waker
            {
                waker.wake_by_ref();
            }
        }
    }
}

/// Entries that the table has room for from the start. The kernel gives memory only to those that are
/// used; growing step by step would copy all of them and leave the old ones behind.
const RESERVED: usize = 16 * 1024;
/// A second: others are freed soon after the first, and giving back takes a while.
const GIVE_BACK: Ticks = 10;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{AccessConfig, AccessList};
    use crate::config::{Source, Span, StreamLimits};
    use crate::endpoint::{Endpoint, Transport};
    use crate::limits::Gate;
    use crate::listener::Settings;
    use crate::observe::metrics::Metrics;
    use crate::serve::{Connection, Ended, Serving, StreamService};
    use crate::worker::Outbox;
    use std::rc::Rc;
    use std::task::Poll;

    struct Nothing;

    impl StreamService for Nothing {
        fn serve(&self, _: Connection) -> Serving {
            Box::pin(std::future::ready(Ended::Done))
        }
    }

    /// Enters a connection of a listener with these deadlines, in milliseconds.
    fn enter(registry: &Registry, idle: u64, write_stall: u64, total: u64) -> Slot {
        let limits = StreamLimits {
            idle: Span::millis(idle),
            write_stall: Span::millis(write_stall),
            total: Span::millis(total),
            ..StreamLimits::default()
        };
        let access = AccessList::new(&AccessConfig::default(), &Source::default()).unwrap();
        let metrics = Metrics::new("test", "0", Transport::Stream).listener("test", "test");
        let service: Arc<dyn StreamService> = Arc::new(Nothing);
        let settings = Settings {
            limits,
            access,
            service,
            trust: None,
            prover: None,
        };
        let endpoint = Endpoint::tcp_loopback(0);
        let total = Arc::new(Gate::new(1));
        let listener = Listener::new(("test", "test"), endpoint, false, metrics, total, settings);
        registry.enter(Peer::Local, Arc::new(listener))
    }

    /// Waits for a cut as a connection does: by being woken.
    async fn cut_of(registry: &Registry, slot: Slot) -> Ending {
        std::future::poll_fn(|cx| {
            registry.watch(slot, cx.waker());
            registry.cut(slot).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    async fn with_sweep<T>(registry: Rc<Registry>, work: impl Future<Output = T>) -> T {
        tokio::select! {
            () = registry.sweep() => unreachable!("the sweep does not end"),
            result = work => result,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_deadline_cuts_with_its_reason() {
        let registry = Rc::new(Registry::new());
        with_sweep(registry.clone(), async {
            let idle = enter(&registry, 500, 0, 0);
            assert_eq!(cut_of(&registry, idle).await, Ending::Idle);
            let stall = enter(&registry, 0, 300, 0);
            registry.stalled(stall);
            assert_eq!(cut_of(&registry, stall).await, Ending::WriteStall);
            let total = enter(&registry, 0, 0, 200);
            assert_eq!(cut_of(&registry, total).await, Ending::Total);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_or_works_is_not_idle() {
        let registry = Rc::new(Registry::new());
        with_sweep(registry.clone(), async {
            let moving = enter(&registry, 500, 0, 0);
            let working = enter(&registry, 500, 0, 0);
            registry.busy(working);
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(200)).await;
                registry.received(moving, 1);
            }
            assert_eq!((registry.cut(moving), registry.cut(working)), (None, None));
            registry.sent(working, 1);
            assert_eq!(cut_of(&registry, working).await, Ending::Idle);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_of_nothing_moves_nothing_and_ends_a_stall() {
        let registry = Rc::new(Registry::new());
        with_sweep(registry.clone(), async {
            let (flushing, stalled) = (enter(&registry, 500, 0, 0), enter(&registry, 1000, 700, 0));
            registry.stalled(stalled);
            for _ in 0..6 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                registry.flushed(flushing);
            }
            assert_eq!(cut_of(&registry, flushing).await, Ending::Idle);
            registry.flushed(stalled);
            assert_eq!(cut_of(&registry, stalled).await, Ending::Idle);
        })
        .await;
    }

    #[test]
    fn a_connection_is_revoked_when_the_link_that_brought_it_is_lost_and_others_are_not() {
        let registry = Registry::new();
        let outbox = Outbox::new(9);
        let given = |number| {
            let slot = enter(&registry, 0, 0, 0);
            let mut ticket = outbox.ticket(number);
            assert!(ticket.take());
            registry.hold(slot, ticket);
            slot
        };
        outbox.begin();
        let ours = enter(&registry, 0, 0, 0);
        let first = given(1);
        let revoked = |slots: &[Slot]| -> Vec<bool> {
            slots
                .iter()
                .map(|&slot| registry.is_revoked(slot))
                .collect()
        };
        assert_eq!(revoked(&[ours, first]), [false, false]);
        // The broker did not hear that it was taken, for all we know.
        outbox.end();
        assert_eq!(revoked(&[ours, first]), [false, true]);
        outbox.begin();
        let second = given(2);
        assert_eq!(revoked(&[ours, first, second]), [false, true, false]);
        // Its place is another's once it has left.
        registry.leave(first);
        let next = enter(&registry, 0, 0, 0);
        assert_eq!(next, first);
        assert_eq!(revoked(&[ours, next, second]), [false, false, false]);
    }

    #[test]
    fn what_a_predecessor_left_is_had_once_and_never_by_another_connection() {
        let registry = Registry::new();
        let slot = enter(&registry, 0, 0, 0);
        let taken = |slot| registry.take_legacy(slot).is_some();
        assert!(!taken(slot));
        registry.set_legacy(slot, Box::new(7));
        assert!(taken(slot) && !taken(slot));
        registry.set_legacy(slot, Box::new(7));
        registry.leave(slot);
        let next = enter(&registry, 0, 0, 0);
        assert_eq!(next, slot);
        assert!(!taken(next));
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_wakes_once_and_can_be_taken_back() {
        let registry = Rc::new(Registry::new());
        with_sweep(registry.clone(), async {
            let slot = enter(&registry, 0, 0, 0);
            let start = Instant::now();
            registry.wake_in(slot, Some(Duration::from_millis(100)));
            registry.wake_in(slot, Some(Duration::from_millis(500)));
            std::future::poll_fn(|cx| {
                registry.watch(slot, cx.waker());
                if registry.take_due(slot) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            assert!((500..=800).contains(&start.elapsed().as_millis()));
            assert!(!registry.take_due(slot));
            registry.wake_in(slot, Some(Duration::from_millis(100)));
            registry.wake_in(slot, None);
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!registry.take_due(slot));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_at_the_end_of_the_grace_names_it() {
        let registry = Rc::new(Registry::new());
        let slot = enter(&registry, 0, 0, 0);
        registry.cut_all();
        assert_eq!(cut_of(&registry, slot).await, Ending::Drain);
        registry.leave(slot);
        registry.empty().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_a_peer_that_still_speaks() {
        let registry = Rc::new(Registry::new());
        with_sweep(registry.clone(), async {
            let (silent, speaking) = (enter(&registry, 0, 0, 0), enter(&registry, 0, 0, 0));
            registry.drain(Duration::from_millis(300));
            assert!(!registry.finishing(silent));
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                registry.received(speaking, 1);
            }
            assert!(registry.finishing(silent) && !registry.finishing(speaking));
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert!(registry.finishing(speaking));
        })
        .await;
    }
}
