//! What a loop knows of one connection, and what its sweep asks of it.

use std::sync::Arc;
use std::task::Waker;

use super::Peer;
use super::deadlines::{BUSY, Deadlines, NEVER, Ticks};
use crate::listener::{Listener, Streams};
use crate::observe::metrics::Ending;

/// What the loop knows of one connection.
pub(super) struct Entry {
    pub(super) waker: Option<Waker>,
    pub(super) peer: Peer,
    deadlines: Deadlines,
    pub(super) opened: Ticks,
    /// When something last moved; `BUSY` while the service works without the peer.
    pub(super) moved: Ticks,
    /// When something last came from the peer.
    pub(super) heard: Ticks,
    /// When the peer stopped taking what we send; 0: it takes it.
    pub(super) stalled: Ticks,
    pub(super) cut: Option<Ending>,
    /// When the task is to be woken; `NEVER`: not.
    pub(super) alarm: Ticks,
    /// Whether the alarm has gone off.
    pub(super) due: bool,
    /// Whether the peer has had its chance to say more during a drain.
    pub(super) finishing: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) listener: Arc<Listener<Streams>>,
}

/// A drain, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub(super) since: Ticks,
    pub(super) quiet: Ticks,
}

impl Entry {
    /// A connection that has just been accepted.
    pub(super) fn new(peer: Peer, listener: Arc<Listener<Streams>>, now: Ticks) -> Self {
        Self {
            waker: None,
            peer,
            deadlines: Deadlines::new(&listener.settings().limits),
            opened: now,
            moved: now,
            heard: now,
            stalled: 0,
            cut: None,
            alarm: NEVER,
            due: false,
            finishing: false,
            received: 0,
            sent: 0,
            listener,
        }
    }

    /// Moves what was counted here into the listener's counters.
    pub(super) fn collect(&mut self) {
        if self.received > 0 {
            self.listener
                .metrics
                .traffic
                .received
                .inc_by(std::mem::take(&mut self.received));
        }
        if self.sent > 0 {
            self.listener
                .metrics
                .traffic
                .sent
                .inc_by(std::mem::take(&mut self.sent));
        }
    }

    /// Whether this is the moment from which a drain expects nothing more of the peer.
    pub(super) fn finishes(&self, now: Ticks, drain: Drain) -> bool {
        let last = self.heard.max(drain.since);
        !self.finishing && now.saturating_sub(last) >= drain.quiet
    }

    /// Whether this is the moment that the alarm is for.
    pub(super) fn rings(&mut self, now: Ticks) -> bool {
        let rings = self.alarm != NEVER && now >= self.alarm;
        if rings {
            self.alarm = NEVER;
            self.due = true;
        }
        rings
    }

    /// The deadline that is past, if one is.
    pub(super) fn overdue(&self, now: Ticks) -> Option<Ending> {
        let past =
            |since: Ticks, limit: Ticks| limit != NEVER && now.saturating_sub(since) >= limit;
        if past(self.opened, self.deadlines.total) {
            Some(Ending::Total)
        } else if self.stalled != 0 && past(self.stalled, self.deadlines.write_stall) {
            Some(Ending::WriteStall)
        } else if self.moved != BUSY && past(self.moved, self.deadlines.idle) {
            Some(Ending::Idle)
        } else {
            None
        }
    }
}
