//! Batches applied to a copy: the index, and what the batches of one commit change in it.

use std::sync::Arc;

use portyard_wire::value::Value;

use super::batch::{Answer, Batch, Compare, Entry, Only, Operation, Outcome, Ttl};
use super::encoding::encode;
use super::error::StoreError;
use super::history::{Change, Event};
use super::index::{Index, Record};
use super::key::{Key, KeyMap, Prefix};
use super::limits::Limits;
use super::persistence::{Changes, State};

/// The index with changes that are not committed yet. Batches run in order, and see those before.
pub struct Draft<'a> {
    index: &'a Index,
    limits: &'a Limits,
    now: u64,
    state: State,
    bytes: u64,
    changed: KeyMap<Slot>,
    events: Vec<Event>,
    expired: u64,
}

/// What the batches of one commit have changed, free of the index.
pub struct Settled {
    pub state: State,
    pub bytes: u64,
    pub changed: KeyMap<Slot>,
    pub events: Vec<Event>,
    /// How many of the changes are entries that ended.
    pub expired: u64,
}

/// A record, or its absence.
pub type Slot = Option<Arc<Record>>;

/// What stood where, before each change of a batch.
type Journal = Vec<(Key, Slot)>;

impl<'a> Draft<'a> {
    pub fn new(index: &'a Index, limits: &'a Limits, now: u64) -> Self {
        Self {
            index,
            limits,
            now,
            state: index.state,
            bytes: index.bytes,
            changed: KeyMap::default(),
            events: Vec::new(),
            expired: 0,
        }
    }

    /// Removes at most `limit` entries that have ended, under one revision of their own.
    pub fn sweep(&mut self, limit: usize) {
        let ended: Vec<_> = self.index.ended(self.now).take(limit).cloned().collect();
        self.expire(&ended);
    }

    /// Applies a batch whole, or not at all. `bytes` is how much it brings at most.
    pub fn run(&mut self, batch: Batch, bytes: u64) -> Result<Outcome, StoreError> {
        self.make_way(&batch, bytes);
        for (index, compare) in batch.compares.iter().enumerate() {
            self.check(index, compare)?;
        }
        let last_place = self.state.last_place;
        let mut journal = Journal::new();
        let mut answers = Vec::with_capacity(batch.operations.len());
        for (index, operation) in batch.operations.into_iter().enumerate() {
            match self.operate(index, operation, &mut journal) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    for (key, before) in journal.into_iter().rev() {
                        self.replace(&key, before);
                    }
                    self.state.last_place = last_place;
                    return Err(error);
                }
            }
        }
        self.record(journal);
        Ok(Outcome {
            revision: self.state.revision,
            answers,
        })
    }

    /// What the engine must keep. Records are encoded only for one that is `durable`.
    pub fn changes(&self, durable: bool) -> Changes {
        let mut changes = Changes {
            state: self.state,
            ..Changes::default()
        };
        if !durable {
            return changes;
        }
        for (key, after) in &self.changed {
            let before = self.index.find(key);
            if let Some(before) = before
                && after
                    .as_ref()
                    .is_none_or(|after| after.place != before.place)
            {
                changes.removed.push(before.place);
            }
            if let Some(after) = after
                && before.is_none_or(|before| !Arc::ptr_eq(before, after))
            {
                changes.put.push((after.place, encode(after)));
            }
        }
        changes.removed.sort_unstable();
        changes.put.sort_unstable_by_key(|(place, _)| *place);
        changes
    }

    /// Lets go of the index.
    pub fn settle(self) -> Settled {
        Settled {
            state: self.state,
            bytes: self.bytes,
            changed: self.changed,
            events: self.events,
            expired: self.expired,
        }
    }

    /// Removes what has ended where the batch would meet it: what it sets is then new, and watchers
    /// see the end first. Ended entries also must not take room that the batch needs.
    fn make_way(&mut self, batch: &Batch, bytes: u64) {
        let steps = batch.operations.len() as u64;
        let crowded = self.state.count.saturating_add(steps) > self.limits.keys
            || self.bytes.saturating_add(bytes) > self.limits.total_bytes;
        let all = |operation: &Operation| operation.key().is_none();
        let ended: Vec<_> = if crowded || batch.operations.iter().any(all) {
            self.records(|record| record.ended(self.now))
        } else {
            let sets = batch
                .operations
                .iter()
                .filter_map(|operation| match operation {
                    Operation::Set { key, .. } | Operation::Increment(key, _) => self.find(key),
                    _ => None,
                });
            sets.filter(|record| record.ended(self.now))
                .cloned()
                .collect()
        };
        self.expire(&ended);
    }

    fn expire(&mut self, ended: &[Arc<Record>]) {
        let events = self.events.len();
        let revision = self.state.revision + 1;
        for record in ended {
            // A batch may name a key twice.
            if self.replace(&record.key, None).is_some() {
                self.events.push(Event {
                    revision,
                    key: record.key.clone(),
                    change: Change::Expired,
                });
                self.expired += 1;
            }
        }
        if self.events.len() > events {
            self.state.revision = revision;
        }
    }

    fn check(&self, index: usize, compare: &Compare) -> Result<(), StoreError> {
        let current = self.entry(compare.key());
        let holds = match (compare, &current) {
            (Compare::Exists(_), current) => current.is_some(),
            (Compare::Absent(_), current) => current.is_none(),
            (Compare::Revision(_, revision), Some(entry)) => entry.revision == *revision,
            (Compare::Value(_, value), Some(entry)) => *entry.value == *value,
            (Compare::Revision(..) | Compare::Value(..), None) => false,
        };
        if holds {
            Ok(())
        } else {
            Err(StoreError::Conflict { index, current })
        }
    }

    fn operate(
        &mut self,
        index: usize,
        operation: Operation,
        journal: &mut Journal,
    ) -> Result<Answer, StoreError> {
        Ok(match operation {
            Operation::Get(key) => Answer::Got(self.entry(&key)),
            Operation::Set {
                key,
                value,
                ttl,
                only,
            } => {
                let before = self.entry(&key);
                let done = match only {
                    Only::Always => true,
                    Only::IfAbsent => before.is_none(),
                    Only::IfPresent => before.is_some(),
                };
                if done {
                    self.set(key, Arc::new(value), ttl, journal)?;
                }
                Answer::Set { done, before }
            }
            Operation::Delete(key) => {
                let before = self.entry(&key);
                if before.is_some() {
                    self.put(&key, None, journal);
                }
                Answer::Deleted(before)
            }
            Operation::Expire(key, ttl) => Answer::Expire(match self.entry(&key) {
                Some(entry) if ttl.end(entry.expires, self.now) != entry.expires => {
                    self.set(key, entry.value, ttl, journal)?;
                    true
                }
                _ => false,
            }),
            Operation::Increment(key, by) => {
                let number = match self.entry(&key).as_ref().map(|entry| &*entry.value) {
                    None => 0,
                    Some(Value::Int(number)) => *number,
                    Some(other) => {
                        let kind = other.kind();
                        return Err(StoreError::NotAnInteger { index, kind });
                    }
                };
                let sum = number
                    .checked_add(by)
                    .ok_or(StoreError::Overflow { index })?;
                self.set(key, Arc::new(Value::Int(sum)), Ttl::Keep, journal)?;
                Answer::Number(sum)
            }
            Operation::DeletePrefix(prefix) => self.delete_many(Some(&prefix), journal),
            Operation::Clear => self.delete_many(None, journal),
        })
    }

    fn set(
        &mut self,
        key: Key,
        value: Arc<Value>,
        ttl: Ttl,
        journal: &mut Journal,
    ) -> Result<(), StoreError> {
        let revision = self.state.revision + 1;
        let before = self.alive(&key).cloned();
        let (key, place, created, version, end) = match &before {
            Some(before) => {
                let entry = &before.entry;
                let version = entry.version + 1;
                (
                    before.key.clone(),
                    before.place,
                    entry.created,
                    version,
                    entry.expires,
                )
            }
            None => (key, self.state.last_place + 1, revision, 1, None),
        };
        let entry = Entry {
            value,
            revision,
            created,
            version,
            expires: ttl.end(end, self.now),
        };
        let record = Record::new(key, place, entry);
        self.check_room(&record, before.as_deref())?;
        self.state.last_place = self.state.last_place.max(place);
        let key = record.key.clone();
        self.put(&key, Some(Arc::new(record)), journal);
        Ok(())
    }

    /// Whether what grows has room. What shrinks always has.
    fn check_room(&self, record: &Record, before: Option<&Record>) -> Result<(), StoreError> {
        let (size, limit) = (self.state.count + 1, self.limits.keys);
        if before.is_none() && size > limit {
            let what = "keys";
            return Err(StoreError::TooLarge { what, size, limit });
        }
        let freed = before.map_or(0, |before| before.bytes);
        let (size, limit) = (self.bytes - freed + record.bytes, self.limits.total_bytes);
        if record.bytes > freed && size > limit {
            let what = "bytes in all";
            return Err(StoreError::TooLarge { what, size, limit });
        }
        Ok(())
    }

    fn delete_many(&mut self, prefix: Option<&Prefix>, journal: &mut Journal) -> Answer {
        let matching = self.records(|record| {
            !record.ended(self.now) && prefix.is_none_or(|prefix| prefix.matches(&record.key))
        });
        for record in &matching {
            self.put(&record.key, None, journal);
        }
        Answer::Removed(matching.len() as u64)
    }

    fn put(&mut self, key: &Key, record: Slot, journal: &mut Journal) {
        let before = self.replace(key, record);
        journal.push((key.clone(), before));
    }

    /// Puts `record` in the draft, keeps the totals, and returns what it replaces.
    fn replace(&mut self, key: &Key, record: Slot) -> Slot {
        let before = self.find(key).cloned();
        let state = &mut self.state;
        if let Some(before) = &before {
            state.count -= 1;
            state.digest = state.digest.wrapping_sub(before.mark());
            self.bytes -= before.bytes;
        }
        if let Some(record) = &record {
            state.count += 1;
            state.digest = state.digest.wrapping_add(record.mark());
            self.bytes += record.bytes;
        }
        self.changed.insert(key.clone(), record);
        before
    }

    /// Turns what a batch changed in the end into events, in the order of each key's last change, and
    /// counts the revision if there are any.
    fn record(&mut self, journal: Journal) {
        let events = self.events.len();
        let revision = self.state.revision + 1;
        if journal.len() < 2 {
            for (key, before) in journal {
                self.record_one(revision, &key, before);
            }
        } else {
            let mut net: KeyMap<(usize, Slot)> = KeyMap::default();
            for (step, (key, before)) in journal.into_iter().enumerate() {
                net.entry(key).or_insert((0, before)).0 = step;
            }
            let mut net: Vec<_> = net.into_iter().collect();
            net.sort_unstable_by_key(|(_, (step, _))| *step);
            for (key, (_, before)) in net {
                self.record_one(revision, &key, before);
            }
        }
        if self.events.len() > events {
            self.state.revision = revision;
        }
    }

    fn record_one(&mut self, revision: u64, key: &Key, before: Slot) {
        let (key, change) = match (self.find(key), before) {
            (Some(record), _) => (record.key.clone(), Change::Set(record.entry.clone())),
            (None, Some(before)) => (before.key.clone(), Change::Deleted),
            // Set and deleted again: nobody has seen it.
            (None, None) => return,
        };
        self.events.push(Event {
            revision,
            key,
            change,
        });
    }

    fn entry(&self, key: &Key) -> Option<Entry> {
        self.alive(key).map(|record| record.entry.clone())
    }

    fn alive(&self, key: &Key) -> Option<&Arc<Record>> {
        self.find(key).filter(|record| !record.ended(self.now))
    }

    fn find(&self, key: &Key) -> Option<&Arc<Record>> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.index.find(key),
        }
    }

    /// The matching records, in order.
    fn records(&self, matches: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let same = self.index.after(None);
        let same = same.filter(|record| !self.changed.contains_key(&record.key));
        let changed = self.changed.values().flatten();
        let mut found: Vec<_> = same
            .chain(changed)
            .filter(|r| matches(r))
            .cloned()
            .collect();
        found.sort_unstable_by_key(|record| record.place);
        found
    }
}
