//! How much a store holds and takes at once.

use portyard_wire::value::{DEPTH_MAX, Value};

use super::batch::{Batch, Compare, Operation};
use super::error::StoreError;
use super::key::Key;

/// The limits of a store. What is over them is refused; nothing is evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How many keys there may be.
    pub keys: u64,
    /// How many bytes one key may have.
    pub key_bytes: u64,
    /// How many bytes one value may take in memory; never more than 4 GiB, whatever stands here.
    pub value_bytes: u64,
    /// How many bytes all keys and values may take in memory. The indices take about 300 more for
    /// each key.
    pub total_bytes: u64,
    /// How many compares and operations one batch may have.
    pub batch_steps: u64,
    /// How many batches may wait for their answer.
    pub waiting: u64,
    /// How many bytes they may take in memory.
    pub waiting_bytes: u64,
    /// How many events are kept for watchers that resume.
    pub history: u64,
    /// How many bytes these may hold.
    pub history_bytes: u64,
}

impl Default for Limits {
    /// For a small machine: 1 GiB of data, of which nothing is larger than 16 MiB.
    fn default() -> Self {
        Self {
            keys: 1_000_000,
            key_bytes: 4 << 10,
            value_bytes: 16 << 20,
            total_bytes: 1 << 30,
            batch_steps: 10_000,
            waiting: 10_000,
            waiting_bytes: 64 << 20,
            history: 10_000,
            history_bytes: 64 << 20,
        }
    }
}

impl Limits {
    /// Checks what can be told from a batch alone, and returns how many bytes it takes.
    pub(super) fn admit(&self, batch: &Batch) -> Result<u64, StoreError> {
        let steps = batch.compares.len() + batch.operations.len();
        within("steps in a batch", steps, self.batch_steps)?;
        let mut bytes = steps * size_of::<Operation>();
        for compare in &batch.compares {
            bytes += self.key(compare.key())?;
            if let Compare::Value(_, value) = compare {
                bytes += self.value(value)?;
            }
        }
        for operation in &batch.operations {
            if let Some(key) = operation.key() {
                bytes += self.key(key)?;
            }
            if let Operation::Set { value, .. } = operation {
                bytes += self.value(value)?;
            }
            if let Operation::DeletePrefix(prefix) = operation {
                within("bytes in a prefix", prefix.length(), self.key_bytes)?;
                bytes += prefix.length();
            }
        }
        Ok(bytes as u64)
    }

    fn key(&self, key: &Key) -> Result<usize, StoreError> {
        let limit = self.key_bytes.min(u64::from(u32::MAX));
        within("bytes in a key", key.length(), limit)?;
        Ok(key.size())
    }

    fn value(&self, value: &Value) -> Result<usize, StoreError> {
        if !shallow(value, DEPTH_MAX) {
            let (what, limit) = ("values in each other", DEPTH_MAX as u64);
            let size = limit + 1;
            return Err(StoreError::TooLarge { what, size, limit });
        }
        let size = value.size();
        // Lengths have 32 bits on the disk.
        let limit = self.value_bytes.min(u64::from(u32::MAX));
        within("bytes in a value", size, limit)?;
        Ok(size)
    }
}

fn within(what: &'static str, size: usize, limit: u64) -> Result<(), StoreError> {
    let size = size as u64;
    if size > limit {
        return Err(StoreError::TooLarge { what, size, limit });
    }
    Ok(())
}

/// Whether at most `depth` lists and maps lie in each other. It looks no deeper.
fn shallow(value: &Value, depth: usize) -> bool {
    let below = depth.checked_sub(1);
    match (value, below) {
        (Value::List(items), Some(below)) => items.iter().all(|item| shallow(item, below)),
        (Value::Map(pairs), Some(below)) => pairs
            .iter()
            .all(|(key, value)| shallow(key, below) && shallow(value, below)),
        (Value::List(_) | Value::Map(_), None) => false,
        _ => true,
    }
}
