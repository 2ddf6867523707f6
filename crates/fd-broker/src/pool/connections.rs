//! The connections of a pool, and what they are called.

use std::ops::{Index, IndexMut};
use std::time::Instant;

use slab::Slab;

use super::worker::WorkerId;

/// A connection of a pool, as it is called towards its worker. Numbers do not come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The connections that have not ended. A place is used again; its generation tells who had it before.
#[derive(Debug)]
pub struct Connections<T> {
    entries: Slab<Entry<T>>,
    generation: u32,
}

/// What the machine knows of one connection.
#[derive(Debug)]
pub struct Entry<T> {
    generation: u32,
    /// The shell's.
    pub payload: T,
    /// A hash of where from.
    pub source: u64,
    /// When it came.
    pub arrived: Instant,
    /// How often it was offered.
    pub deliveries: u32,
    /// Where it is.
    pub state: State,
    /// Who had it last and did not keep it.
    pub shunned: Option<WorkerId>,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits.
    Queued,
    /// This worker has been asked, then, and has not answered.
    Offered(WorkerId, Instant),
    /// This worker has it.
    Served(WorkerId),
}

impl<T> Connections<T> {
    /// Enters one that waits, and gives its place.
    pub fn insert(&mut self, payload: T, source: u64, now: Instant) -> usize {
        self.generation = self.generation.wrapping_add(1);
        self.entries.insert(Entry {
            generation: self.generation,
            payload,
            source,
            arrived: now,
            deliveries: 0,
            state: State::Queued,
            shunned: None,
        })
    }

    /// Takes out the one at this place, where there must be one.
    pub fn remove(&mut self, key: usize) -> Entry<T> {
        self.entries.remove(key)
    }

    /// What the one at this place is called.
    pub fn id(&self, key: usize) -> ConnectionId {
        self.entries[key].id(key)
    }

    /// The place of one that has not ended.
    pub fn key(&self, id: ConnectionId) -> Option<usize> {
        let key = id.slot();
        let entry = self.entries.get(key)?;
        (u64::from(entry.generation) == id.0 >> 32).then_some(key)
    }

    /// All of them, with their places.
    pub fn iter(&self) -> slab::Iter<'_, Entry<T>> {
        self.entries.iter()
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Self {
            entries: Slab::new(),
            generation: 0,
        }
    }
}

impl<T> Index<usize> for Connections<T> {
    type Output = Entry<T>;

    fn index(&self, key: usize) -> &Entry<T> {
        &self.entries[key]
    }
}

impl<T> IndexMut<usize> for Connections<T> {
    fn index_mut(&mut self, key: usize) -> &mut Entry<T> {
        &mut self.entries[key]
    }
}

impl<T> Entry<T> {
    /// What it is called, at this place.
    pub fn id(&self, key: usize) -> ConnectionId {
        ConnectionId(u64::from(self.generation) << 32 | key as u64)
    }
}

impl ConnectionId {
    /// The place in the table: the lower half. The table never has 2^32 places, which would need as many
    /// descriptors.
    pub(super) fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }
}
