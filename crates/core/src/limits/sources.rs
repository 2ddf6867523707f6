//! How many connections each source has at the moment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Prefix;

/// Present connections per source. Its size is that of the connections that exist.
#[derive(Debug, Default)]
pub struct Sources {
    // std's SipHash with random keys: the keys are chosen by peers.
    counts: Mutex<HashMap<Prefix, u32>>,
}

impl Sources {
    /// Enters one connection of `source` unless it has `ceiling` already. Each `true` must be paid
    /// back with one [`Sources::leave`].
    pub fn try_enter(&self, source: Prefix, ceiling: u32) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(source).or_insert(0);
        if *count < ceiling {
            *count += 1;
            return true;
        }
        if *count == 0 {
            counts.remove(&source);
        }
        false
    }

    /// Takes one connection of `source` out.
    pub fn leave(&self, source: Prefix) {
        if let Entry::Occupied(mut entry) = self.lock().entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// How many sources have a connection.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody has a connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sources with the most connections, for status: at most `limit`, largest first.
    pub fn busiest(&self, limit: usize) -> Vec<(Prefix, u32)> {
        let mut all: Vec<_> = self
            .lock()
            .iter()
            .map(|(prefix, count)| (*prefix, *count))
            .collect();
        all.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.truncate(limit);
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Prefix, u32>> {
        // A count cannot be left half-changed by a panic.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_held_to_its_ceiling_and_others_are_not() {
        let sources = Sources::default();
        let (a, b) = (Prefix::V4(1), Prefix::V4(2));
        assert!(sources.try_enter(a, 1));
        assert!(!sources.try_enter(a, 1));
        assert!(sources.try_enter(b, 1));
        sources.leave(a);
        assert!(sources.try_enter(a, 1));
        assert_eq!(sources.busiest(1).len(), 1);
    }

    #[test]
    fn nothing_is_remembered_of_who_left() {
        let sources = Sources::default();
        assert!(!sources.try_enter(Prefix::V6(1), 0));
        assert!(sources.try_enter(Prefix::V6(2), 1));
        sources.leave(Prefix::V6(2));
        sources.leave(Prefix::V6(3));
        assert!(sources.is_empty());
    }
}
