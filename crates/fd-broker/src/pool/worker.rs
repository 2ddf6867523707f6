//! A worker of a pool, as its machine sees it.

use std::time::Instant;

/// A worker of a pool. Numbers do not come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// A worker that joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// Its name; the hash of sources goes by it.
    pub name: String,
    /// Its share, from 1.
    pub weight: u32,
    /// Connections it takes at a time.
    pub capacity: u32,
    /// Offers without an answer that it may have at a time.
    pub window: u32,
}

/// A worker that is there.
#[derive(Debug)]
pub struct Worker {
    /// What it joined with.
    pub joining: Joining,
    /// When.
    pub since: Instant,
    /// It finishes what it has and gets nothing new.
    pub draining: bool,
    /// Offers it has not answered.
    pub offered: u32,
    /// Connections it has taken and not ended.
    pub present: u32,
    /// Connections it has taken in all.
    pub taken: u64,
    /// Connections it has refused.
    pub refused: u64,
    /// Connections that were offered to it and went to another.
    pub redelivered: u64,
    /// It gets nothing before: it has just refused, or could not be reached.
    pub(super) rests: Option<Instant>,
    /// For the balancing: when it was last picked, and its running share.
    pub(super) picked: u64,
    pub(super) share: i64,
}

impl Worker {
    /// One that has nothing yet.
    pub(super) fn new(joining: Joining, now: Instant) -> Self {
        Self {
            joining,
            since: now,
            draining: false,
            offered: 0,
            present: 0,
            taken: 0,
            refused: 0,
            redelivered: 0,
            rests: None,
            picked: 0,
            share: 0,
        }
    }

    /// Connections it has, or may have any moment.
    pub fn load(&self) -> u32 {
        self.offered + self.present
    }

    /// Whether it may be offered a connection.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        !self.draining
            && self.offered < self.joining.window
            && self.load() < self.joining.capacity
            && self.rests.is_none_or(|until| until <= now)
    }
}
