//! What happens to the connections of a pool, without a socket and without a clock.
//!
//! ```text
//! arrive ─► queued ─► offered ─► served ─► done
//!             ▲          │
//!             └──────────┘ refused, not acknowledged, or its worker died and had not touched it
//! ```
//!
//! The shell feeds what happened (`arrive`, `taken`, `leave`, …) with the time, and does what comes
//! out as [`Action`]s. A connection's payload is the machine's until an action gives it back.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::action::{Action, Unserved};
use super::balance::{self, Balance};
use super::connections::{ConnectionId, Connections, State};
use super::offers::Offers;
use super::worker::{Joining, Worker, WorkerId};

/// The rules of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who gets the next connection.
    pub balance: Balance,
    /// Connections that may wait for a worker.
    pub queue: usize,
    /// How long one waits, from its arrival.
    pub queue_timeout: Duration,
    /// How long an offer may stay without an answer.
    pub offer_timeout: Duration,
    /// How often a connection may be offered again.
    pub redeliveries: u32,
    /// Offers without an answer at a time, all workers together: their descriptors are in flight.
    pub offers: usize,
}

/// What the kernel says of a connection that was offered to a worker which is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// Nothing was read from it or written to it.
    Untouched,
    /// It may have been used.
    Touched,
    /// Another broker has the worker, and its connections with it.
    Moved,
}

/// What a worker has that another broker had before.
#[derive(Debug)]
pub struct Estate<T> {
    /// For how long it has been a worker.
    pub age: Duration,
    /// Connections that it has taken in all.
    pub taken: u64,
    /// What it was offered and has not answered.
    pub offered: Option<T>,
    /// What it has.
    pub served: Vec<T>,
}

/// An acknowledgement that answers nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it acknowledges connection {0}, which is not offered to it")]
pub struct Unknown(pub u64);

/// The connections and workers of a pool.
#[derive(Debug)]
pub struct Machine<T> {
    rules: Rules,
    workers: BTreeMap<WorkerId, Worker>,
    connections: Connections<T>,
    queue: VecDeque<ConnectionId>,
    offers: Offers,
    next_worker: u64,
    picks: u64,
}

impl<T> Machine<T> {
    /// A pool without workers and connections.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            workers: BTreeMap::new(),
            connections: Connections::default(),
            queue: VecDeque::new(),
            offers: Offers::default(),
            next_worker: 1,
            picks: 0,
        }
    }

    /// Changes the rules. What waits goes on by the new ones.
    pub fn set_rules(&mut self, rules: Rules, now: Instant, actions: &mut Vec<Action<T>>) {
        self.rules = rules;
        self.dispatch(now, actions);
    }

    /// A worker is there.
    pub fn join(
        &mut self,
        joining: Joining,
        now: Instant,
        actions: &mut Vec<Action<T>>,
    ) -> WorkerId {
        let id = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.workers.insert(id, Worker::new(joining, now));
        self.dispatch(now, actions);
        id
    }

    /// A worker is there that another broker had. Returns what its connections are called here, the
    /// offered one apart.
    pub fn inherit(
        &mut self,
        joining: Joining,
        estate: Estate<T>,
        draining: bool,
        now: Instant,
        actions: &mut Vec<Action<T>>,
    ) -> (WorkerId, Option<ConnectionId>, Vec<ConnectionId>) {
        // It gets nothing before all that it has is counted.
        let capacity = joining.capacity;
        let joining = Joining {
            capacity: 0,
            ..joining
        };
        let id = self.join(joining, now, actions);
        let offered = estate.offered.map(|payload| {
            let key = self.connections.insert(payload, 0, now);
            self.connections[key].state = State::Offered(id, now);
            self.connections[key].deliveries = 1;
            let connection = self.connections.id(key);
            self.offers.push(connection);
            connection
        });
        let mut served = Vec::with_capacity(estate.served.len());
        for payload in estate.served {
            let key = self.connections.insert(payload, 0, now);
            self.connections[key].state = State::Served(id);
            served.push(self.connections.id(key));
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.joining.capacity = capacity;
            worker.since = now.checked_sub(estate.age).unwrap_or(now);
            worker.draining = draining;
            worker.taken = estate.taken;
            worker.offered = offered.is_some().into();
            worker.present = u32::try_from(served.len()).unwrap_or(u32::MAX);
        }
        self.dispatch(now, actions);
        (id, offered, served)
    }

    /// What a worker has: what it was offered, and what it serves.
    pub fn estate(&self, worker: WorkerId) -> impl Iterator<Item = (ConnectionId, &T)> {
        let of_worker = move |state| match state {
            State::Offered(to, _) => to == worker,
            State::Served(by) => by == worker,
            State::Queued => false,
        };
        let all = self.connections.iter();
        all.filter(move |(_, entry)| of_worker(entry.state))
            .map(|(key, entry)| (entry.id(key), &entry.payload))
    }

    /// A worker is gone. `trace` is asked about each connection that it has not answered for.
    pub fn leave(
        &mut self,
        worker: WorkerId,
        now: Instant,
        mut trace: impl FnMut(&T) -> Trace,
        actions: &mut Vec<Action<T>>,
    ) {
        if self.workers.remove(&worker).is_none() {
            return;
        }
        let mut held = Vec::new();
        for (key, entry) in self.connections.iter() {
            match entry.state {
                State::Offered(to, at) if to == worker => held.push((Some(at), key)),
                State::Served(by) if by == worker => held.push((None, key)),
                _ => {}
            }
        }
        // The youngest first, because each goes to the head of the queue.
        held.sort_unstable_by(|a, b| b.cmp(a));
        for (offered, key) in held {
            if offered.is_none() {
                actions.push(Action::Released(self.connections.remove(key).payload));
                continue;
            }
            self.connections[key].state = State::Queued;
            self.offers.answered(&self.connections);
            match trace(&self.connections[key].payload) {
                Trace::Untouched => self.requeue(key, worker, actions),
                Trace::Touched => {
                    actions.push(Action::Lost(self.connections.remove(key).payload));
                }
                Trace::Moved => {
                    actions.push(Action::Released(self.connections.remove(key).payload));
                }
            }
        }
        self.dispatch(now, actions);
    }

    /// A connection has come. `source` is a hash of where from.
    pub fn arrive(&mut self, payload: T, source: u64, now: Instant, actions: &mut Vec<Action<T>>) {
        let waits = !self.queue.is_empty();
        if waits && self.is_full() {
            actions.push(Action::Answer(payload, Unserved::Full));
            return;
        }
        let key = self.connections.insert(payload, source, now);
        // Who waits goes first.
        if !waits && self.place(key, now, actions) {
            return;
        }
        if self.rules.queue == 0 {
            let payload = self.connections.remove(key).payload;
            actions.push(Action::Answer(payload, Unserved::Full));
        } else {
            self.queue.push_back(self.connections.id(key));
        }
    }

    /// A worker has taken a connection. Gives its payload, of which the machine needs no socket any
    /// more.
    pub fn taken(&mut self, worker: WorkerId, connection: ConnectionId) -> Result<&mut T, Unknown> {
        let key = self.offered_to(worker, connection)?;
        self.connections[key].state = State::Served(worker);
        self.offers.answered(&self.connections);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.offered -= 1;
            worker.present += 1;
            worker.taken += 1;
        }
        Ok(&mut self.connections[key].payload)
    }

    /// A worker does not want a connection. It gets nothing more for a moment.
    pub fn refused(
        &mut self,
        worker: WorkerId,
        connection: ConnectionId,
        now: Instant,
        actions: &mut Vec<Action<T>>,
    ) -> Result<(), Unknown> {
        let key = self.offered_to(worker, connection)?;
        self.connections[key].state = State::Queued;
        self.offers.answered(&self.connections);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.offered -= 1;
            worker.refused += 1;
            worker.redelivered += 1;
            worker.rests = Some(now + REST);
        }
        self.requeue(key, worker, actions);
        self.dispatch(now, actions);
        Ok(())
    }

    /// An offer could not be sent: it does not count. The worker gets nothing more for a moment.
    pub fn unsent(&mut self, worker: WorkerId, connection: ConnectionId, now: Instant) {
        let Ok(key) = self.offered_to(worker, connection) else {
            return;
        };
        let entry = &mut self.connections[key];
        entry.state = State::Queued;
        entry.deliveries -= 1;
        self.offers.answered(&self.connections);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.offered -= 1;
            worker.rests = Some(now + REST);
        }
        self.queue.push_front(connection);
    }

    /// A connection has ended, by word of its worker, or of the kernel's where `by` is `None`. Gives
    /// its payload, unless it was known to have. A worker need not say `taken` before.
    pub fn done(
        &mut self,
        by: Option<WorkerId>,
        connection: ConnectionId,
        now: Instant,
        actions: &mut Vec<Action<T>>,
    ) -> Option<T> {
        if let Some(worker) = by
            && self.offered_to(worker, connection).is_ok()
        {
            // It was, one line above.
            let _ = self.taken(worker, connection);
        }
        let key = self.connections.key(connection)?;
        match self.connections[key].state {
            State::Served(worker) if by.is_none_or(|by| by == worker) => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.present -= 1;
                }
            }
            _ => return None,
        }
        let payload = self.connections.remove(key).payload;
        self.dispatch(now, actions);
        Some(payload)
    }

    /// A worker wants to have so many connections at a time from now on.
    pub fn set_capacity(
        &mut self,
        worker: WorkerId,
        capacity: u32,
        now: Instant,
        actions: &mut Vec<Action<T>>,
    ) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.joining.capacity = capacity;
        }
        self.dispatch(now, actions);
    }

    /// A worker finishes what it has, or is back.
    pub fn set_draining(
        &mut self,
        worker: WorkerId,
        draining: bool,
        now: Instant,
        actions: &mut Vec<Action<T>>,
    ) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.draining = draining;
        }
        self.dispatch(now, actions);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, actions: &mut Vec<Action<T>>) {
        self.dispatch(now, actions);
        while let Some(&id) = self.queue.front() {
            let key = self.connections.key(id);
            let Some(key) = key.filter(|&key| {
                now.duration_since(self.connections[key].arrived) >= self.rules.queue_timeout
            }) else {
                break;
            };
            self.queue.pop_front();
            let payload = self.connections.remove(key).payload;
            actions.push(Action::Answer(payload, Unserved::Timeout));
        }
        let cut = (self.offers).overdue(&self.connections, self.rules.offer_timeout, now);
        actions.extend(cut.into_iter().map(Action::Cut));
    }

    /// Ends the pool: what waits is told so.
    pub fn close(&mut self, actions: &mut Vec<Action<T>>) {
        while let Some(id) = self.queue.pop_front() {
            if let Some(key) = self.connections.key(id) {
                let payload = self.connections.remove(key).payload;
                actions.push(Action::Answer(payload, Unserved::Closing));
            }
        }
    }

    /// Takes out who waits, the next one first: somebody else serves them.
    pub fn take_queue(&mut self) -> Vec<T> {
        let mut taken = Vec::with_capacity(self.queue.len());
        while let Some(id) = self.queue.pop_front() {
            if let Some(key) = self.connections.key(id) {
                taken.push(self.connections.remove(key).payload);
            }
        }
        taken
    }

    /// Whether nothing has a deadline: a tick would do nothing.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.offers.open() == 0
    }

    /// Whether no more should be accepted for now.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.rules.queue
    }

    /// The workers, in the order in which they came.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(&id, worker)| (id, worker))
    }

    /// Connections that a worker has, or may have any moment.
    pub fn load(&self, worker: WorkerId) -> u32 {
        self.workers.get(&worker).map_or(0, Worker::load)
    }

    /// One worker.
    pub fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// A connection that has not ended.
    pub fn connection(&self, id: ConnectionId) -> Option<&T> {
        self.connections
            .key(id)
            .map(|key| &self.connections[key].payload)
    }

    /// Who waits, the next one first, and since when.
    pub fn queue(&self) -> impl ExactSizeIterator<Item = (&T, Instant)> {
        self.queue.iter().map(|id| {
            let entry = &self.connections[id.slot()];
            (&entry.payload, entry.arrived)
        })
    }

    /// Offers without an answer.
    pub fn offered(&self) -> usize {
        self.offers.open()
    }

    /// Connections in all.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Places who waits, while somebody has room.
    fn dispatch(&mut self, now: Instant, actions: &mut Vec<Action<T>>) {
        let mut at = 0;
        while at < self.queue.len() && self.has_room(now) {
            let key = self.queue[at].slot();
            if self.place(key, now, actions) {
                self.queue.remove(at);
            } else {
                // Only those are left that it was with.
                at += 1;
            }
        }
    }

    fn has_room(&self, now: Instant) -> bool {
        self.offers.open() < self.rules.offers
            && self.workers.values().any(|worker| worker.is_free(now))
    }

    /// Offers a connection to the worker whose turn it is, if one has room.
    fn place(&mut self, key: usize, now: Instant, actions: &mut Vec<Action<T>>) -> bool {
        if self.offers.open() >= self.rules.offers {
            return false;
        }
        let entry = &mut self.connections[key];
        let free = |shunned: Option<WorkerId>| {
            move |(id, worker): &(&WorkerId, &mut Worker)| {
                worker.is_free(now) && Some(**id) != shunned
            }
        };
        let others = self.workers.len() > 1;
        let shunned = entry.shunned.filter(|_| others);
        let candidates = self.workers.iter_mut().filter(free(shunned));
        let Some((&id, worker)) = balance::pick(self.rules.balance, entry.source, candidates)
        else {
            return false;
        };
        self.picks += 1;
        worker.picked = self.picks;
        worker.offered += 1;
        entry.state = State::Offered(id, now);
        entry.deliveries += 1;
        let connection = entry.id(key);
        self.offers.push(connection);
        actions.push(Action::Offer(id, connection));
        true
    }

    /// Puts a connection that came back to the head of the queue, unless it did so too often.
    fn requeue(&mut self, key: usize, from: WorkerId, actions: &mut Vec<Action<T>>) {
        let entry = &mut self.connections[key];
        entry.shunned = Some(from);
        if entry.deliveries > self.rules.redeliveries {
            let payload = self.connections.remove(key).payload;
            actions.push(Action::Answer(payload, Unserved::Redeliveries));
            return;
        }
        entry.state = State::Queued;
        self.queue.push_front(self.connections.id(key));
    }

    fn offered_to(&self, worker: WorkerId, id: ConnectionId) -> Result<usize, Unknown> {
        let key = self.connections.key(id).ok_or(Unknown(id.0))?;
        match self.connections[key].state {
            State::Offered(to, _) if to == worker => Ok(key),
            _ => Err(Unknown(id.0)),
        }
    }
}

/// How long a worker gets nothing after it refused: long enough that a busy one is not asked in
/// circles, short enough that nobody notices.
pub const REST: Duration = Duration::from_millis(50);

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
