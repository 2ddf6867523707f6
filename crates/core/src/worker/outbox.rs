//! What a worker has to tell its broker, collected so that many reports cost one call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use portyard_wire::broker::{FromWorker, Report, Reports, Verdict, Why};

/// Shared by the link to the broker and the tickets of all connections.
#[derive(Debug)]
pub(crate) struct Outbox(Mutex<Owed>);

#[derive(Debug)]
struct Owed {
    /// Counts the links: a report is for the broker that made the offer.
    epoch: u64,
    reports: Reports,
    /// Packets that are complete, in their order before `reports`. Connections bound them: each has
    /// two reports at most.
    packets: VecDeque<Vec<u8>>,
    capacity: u32,
    /// The capacity that the broker was told.
    told: u32,
    /// Connections of this link, offered ones included.
    held: u32,
    /// Connections of earlier links, of which the broker at the other end of this one knows nothing.
    stale: u32,
    draining: bool,
    /// Something in `reports` is waited for. The rest may wait for company.
    urgent: bool,
    /// Whom to wake when there is something to send.
    waker: Option<Waker>,
}

/// What stands for one connection towards the broker. Dropped, it says that the connection is over; or,
/// when it was never taken, that another worker may have it.
#[derive(Debug)]
pub(crate) struct Ticket {
    outbox: Arc<Outbox>,
    epoch: u64,
    connection: u64,
    taken: bool,
}

impl Outbox {
    pub fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Owed {
            epoch: 0,
            reports: Reports::new(),
            packets: VecDeque::new(),
            capacity,
            told: 0,
            held: 0,
            stale: 0,
            draining: false,
            urgent: false,
            waker: None,
        })))
    }

    /// Begins a new link and returns the capacity to announce on it, which is 1 at least.
    pub fn begin(&self) -> u32 {
        let mut owed = self.lock();
        owed.end();
        owed.told = owed.room().max(1);
        let told = owed.told;
        if owed.draining {
            owed.packets.push_back(FromWorker::Drain.encode());
        }
        owed.tell_capacity();
        told
    }

    /// The link is lost: what was offered on it and not taken cannot be taken any more, because the
    /// broker may give it to another worker.
    pub fn end(&self) {
        self.lock().end();
    }

    /// A ticket for a connection that was offered on the present link.
    pub fn ticket(self: &Arc<Self>, connection: u64) -> Ticket {
        let mut owed = self.lock();
        owed.held += 1;
        Ticket {
            outbox: self.clone(),
            epoch: owed.epoch,
            connection,
            taken: false,
        }
    }

    /// The next packet to send. `None`, and `waker` is woken when there is one, or something that may
    /// wait: see [`Outbox::owes_later`].
    pub fn packet(&self, waker: &Waker) -> Option<Vec<u8>> {
        let mut owed = self.lock();
        if let Some(packet) = owed.packets.pop_front() {
            return Some(packet);
        }
        if owed.urgent && !owed.reports.is_empty() {
            owed.urgent = false;
            return Some(owed.reports.take());
        }
        if !owed.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            owed.waker = Some(waker.clone());
        }
        None
    }

    /// Whether there are reports that may wait a moment for others to go with: that connections are over,
    /// while there is room for more.
    pub fn owes_later(&self) -> bool {
        let owed = self.lock();
        !owed.urgent && !owed.reports.is_empty()
    }

    /// The moment is over.
    pub fn hurry(&self) {
        self.lock().urgent = true;
    }

    /// Takes back a packet that could not be sent.
    pub fn put_back(&self, packet: Vec<u8>) {
        self.lock().packets.push_front(packet);
    }

    /// Whether no connection is left and nothing waits to be sent.
    pub fn is_settled(&self) -> bool {
        let owed = self.lock();
        owed.held == 0 && owed.stale == 0 && owed.packets.is_empty() && owed.reports.is_empty()
    }

    pub fn set_capacity(&self, capacity: u32) {
        let mut owed = self.lock();
        owed.capacity = capacity;
        // Asked for behind each batch, of which few bring another capacity.
        if owed.tell_capacity() {
            owed.wake();
        }
    }

    pub fn drain(&self) {
        let mut owed = self.lock();
        owed.draining = true;
        owed.control(&FromWorker::Drain);
        owed.wake();
    }

    /// Whether the link that made the offer is still there.
    fn report(&self, epoch: u64, connection: u64, verdict: Verdict) -> bool {
        let mut owed = self.lock();
        let is_over = verdict != Verdict::Taken;
        let is_fresh = owed.epoch == epoch;
        if is_fresh {
            owed.reports.push(Report {
                connection,
                verdict,
            });
            let is_tight = owed.held >= owed.told - owed.told / 4;
            owed.urgent |= verdict != Verdict::Done || is_tight || owed.draining;
            if owed.reports.is_full() {
                let packet = owed.reports.take();
                owed.packets.push_back(packet);
            }
            owed.held -= u32::from(is_over);
        } else if is_over {
            owed.stale -= 1;
            owed.tell_capacity();
        }
        owed.wake();
        is_fresh
    }

    fn lock(&self) -> MutexGuard<'_, Owed> {
        // Every change is complete before anything that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owed {
    fn end(&mut self) {
        self.epoch += 1;
        self.stale += std::mem::take(&mut self.held);
        self.reports = Reports::new();
        self.urgent = false;
        self.packets.clear();
    }

    /// What is left of the capacity for this link.
    fn room(&self) -> u32 {
        self.capacity.saturating_sub(self.stale)
    }

    /// Tells the broker how many connections there may be, when that has changed; whether it has.
    fn tell_capacity(&mut self) -> bool {
        let room = self.room();
        let changed = room != self.told && self.epoch > 0;
        if changed {
            self.told = room;
            self.control(&FromWorker::Capacity(room));
        }
        changed
    }

    fn control(&mut self, message: &FromWorker<'_>) {
        if !self.reports.is_empty() {
            let packet = self.reports.take();
            self.packets.push_back(packet);
        }
        self.packets.push_back(message.encode());
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Ticket {
    /// Makes the connection ours. False when that is too late: the link is gone on which it was
    /// offered, and it may be another worker's by now.
    pub fn take(&mut self) -> bool {
        if !self.taken {
            let outbox = &self.outbox;
            self.taken = outbox.report(self.epoch, self.connection, Verdict::Taken);
        }
        self.taken
    }

    /// Whether the link on which the connection was offered is still there: what was said on it has been,
    /// or will be, heard.
    pub fn holds(&self) -> bool {
        self.outbox.lock().epoch == self.epoch
    }

    /// Gives back a connection that was not taken, and of which our copy is closed.
    pub fn refuse(mut self, why: Why) {
        if !self.taken {
            self.taken = true;
            let verdict = Verdict::Refused(why);
            self.outbox.report(self.epoch, self.connection, verdict);
            // Nothing more is to be said.
            self.epoch = SAID;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.epoch != SAID {
            let verdict = if self.taken {
                Verdict::Done
            } else {
                Verdict::Refused(Why::Other)
            };
            self.outbox.report(self.epoch, self.connection, verdict);
        }
    }
}

/// The epoch of a ticket that has said all. Links are counted from 1.
const SAID: u64 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(outbox: &Outbox) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| outbox.packet(Waker::noop())).collect()
    }

    fn reports(outbox: &Outbox) -> Vec<(u64, Verdict)> {
        let mut all = Vec::new();
        for packet in packets(outbox) {
            if let Ok(FromWorker::Report(reports)) = FromWorker::decode(&packet, 0) {
                all.extend(
                    reports
                        .iter()
                        .map(|report| (report.connection, report.verdict)),
                );
            }
        }
        all
    }

    #[test]
    fn each_connection_is_reported_once_and_many_in_one_packet() {
        let outbox = Outbox::new(10);
        assert_eq!(outbox.begin(), 10);
        let (mut one, two, three) = (outbox.ticket(1), outbox.ticket(2), outbox.ticket(3));
        assert!(one.take());
        assert!(one.take());
        two.refuse(Why::Full);
        drop(three);
        drop(one);
        assert!(!outbox.is_settled());
        let packets = packets(&outbox);
        assert_eq!(packets.len(), 1);
        let Ok(FromWorker::Report(said)) = FromWorker::decode(&packets[0], 0) else {
            panic!("no report");
        };
        let said: Vec<_> = said.iter().map(|r| (r.connection, r.verdict)).collect();
        assert_eq!(
            said,
            [
                (1, Verdict::Taken),
                (2, Verdict::Refused(Why::Full)),
                (3, Verdict::Refused(Why::Other)),
                (1, Verdict::Done),
            ]
        );
        assert!(outbox.is_settled());
    }

    #[test]
    fn another_broker_hears_nothing_of_the_connections_before_but_of_the_room_they_take() {
        let outbox = Outbox::new(3);
        outbox.begin();
        let mut old = outbox.ticket(1);
        assert!(old.take());
        let mut offered = outbox.ticket(2);
        assert_eq!(outbox.begin(), 1);
        assert_eq!(packets(&outbox), [[0u8; 0]; 0]);
        assert!(!offered.take(), "it may be another worker's by now");
        drop(offered);
        drop(old);
        assert_eq!(
            packets(&outbox),
            [
                FromWorker::Capacity(2).encode(),
                FromWorker::Capacity(3).encode()
            ]
        );
        let new = outbox.ticket(1);
        drop(new);
        assert_eq!(reports(&outbox), [(1, Verdict::Refused(Why::Other))]);
    }

    #[test]
    fn without_room_a_new_link_is_told_so_behind_its_hello() {
        let outbox = Outbox::new(1);
        outbox.begin();
        let old = outbox.ticket(1);
        // HELLO cannot say 0.
        assert_eq!(outbox.begin(), 1);
        assert_eq!(packets(&outbox), [FromWorker::Capacity(0).encode()]);
        drop(old);
        assert_eq!(packets(&outbox), [FromWorker::Capacity(1).encode()]);
    }

    #[test]
    fn what_is_reported_wakes_who_sends() {
        let outbox = Outbox::new(1);
        outbox.begin();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let ticket = outbox.ticket(1);
        assert_eq!(outbox.packet(&waker), None);
        assert!(!woken.0.load(std::sync::atomic::Ordering::SeqCst));
        drop(ticket);
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
}
