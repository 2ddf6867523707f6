//! All entries in memory: by key, in the order of their places, and by their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::batch::Entry;
use super::key::{Key, KeyMap};
use super::persistence::State;

/// An entry with its key, in the form first set, and its place. Places grow: a new key gets the next
/// one, and keeps it until it is removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub key: Key,
    pub place: u64,
    pub entry: Entry,
    /// What the limit on the total counts.
    pub bytes: u64,
}

/// The entries, as of the last commit.
#[derive(Default)]
pub struct Index {
    pub state: State,
    /// Bytes of all records.
    pub bytes: u64,
    by_key: KeyMap<Arc<Record>>,
    by_place: BTreeMap<u64, Arc<Record>>,
    /// When, and at which place.
    by_end: BTreeSet<(u64, u64)>,
}

impl Record {
    pub fn new(key: Key, place: u64, entry: Entry) -> Self {
        let bytes = (key.size() + entry.value.size()) as u64;
        Self {
            key,
            place,
            entry,
            bytes,
        }
    }

    /// Whether it has ended, though it may not be removed yet.
    pub fn ended(&self, now: u64) -> bool {
        self.entry.expires.is_some_and(|end| end <= now)
    }

    /// What it adds to the digest.
    pub fn mark(&self) -> u64 {
        State::mark(self.place, self.entry.revision)
    }
}

impl Index {
    /// What is stored under a key, ended or not.
    pub fn find(&self, key: &Key) -> Option<&Arc<Record>> {
        self.by_key.get(key)
    }

    /// All records in order, from the one after `place`.
    pub fn after(&self, place: Option<u64>) -> impl Iterator<Item = &Arc<Record>> {
        let start = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_place
            .range((start, Bound::Unbounded))
            .map(|(_, record)| record)
    }

    /// How many keys there are that have not ended.
    pub fn alive(&self, now: u64) -> usize {
        self.by_place.len() - self.by_end.range(..=(now, u64::MAX)).count()
    }

    /// The records that have ended, the longest ago first.
    pub fn ended(&self, now: u64) -> impl Iterator<Item = &Arc<Record>> {
        self.by_end
            .range(..=(now, u64::MAX))
            .filter_map(|(_, place)| self.by_place.get(place))
    }

    /// When the next entry ends.
    pub fn next_end(&self) -> Option<u64> {
        self.by_end.first().map(|(end, _)| *end)
    }

    /// Puts `record` under `key`, or nothing. The state is the caller's to keep.
    pub fn replace(&mut self, key: &Key, record: Option<Arc<Record>>) {
        if let Some(record) = &record
            && let Some(slot) = self.by_key.get_mut(key)
            && slot.place == record.place
            && let Some(placed) = self.by_place.get_mut(&record.place)
        {
            // An overwritten key stays where it is.
            *placed = record.clone();
            let old = std::mem::replace(slot, record.clone());
            if old.entry.expires != record.entry.expires {
                self.unset_end(&old);
                self.set_end(record);
            }
            return;
        }
        if let Some(old) = self.by_key.remove(key) {
            self.by_place.remove(&old.place);
            self.unset_end(&old);
        }
        if let Some(record) = record {
            self.set_end(&record);
            self.by_place.insert(record.place, record.clone());
            self.by_key.insert(record.key.clone(), record);
        }
    }

    fn set_end(&mut self, record: &Record) {
        if let Some(end) = record.entry.expires {
            self.by_end.insert((end, record.place));
        }
    }

    fn unset_end(&mut self, record: &Record) {
        if let Some(end) = record.entry.expires {
            self.by_end.remove(&(end, record.place));
        }
    }
}
