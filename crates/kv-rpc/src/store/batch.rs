//! What is asked of the store in one step, and what it answers.

use std::sync::Arc;

use portyard_wire::value::Value;

use super::key::{Key, Prefix};

/// Conditions and operations that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// All must hold before the first operation.
    pub compares: Vec<Compare>,
    /// Done in order; each sees what those before it did.
    pub operations: Vec<Operation>,
}

/// A condition on one key.
#[derive(Clone, Debug)]
pub enum Compare {
    /// It is there.
    Exists(Key),
    /// It is not there.
    Absent(Key),
    /// It was changed last at this revision.
    Revision(Key, u64),
    /// Its value is this one: of the same kind, with the same content.
    Value(Key, Value),
}

/// A step of a batch.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Sets a value. An overwritten key keeps its place and its form.
    Set {
        /// The key.
        key: Key,
        /// Its new value.
        value: Value,
        /// How long it lives.
        ttl: Ttl,
        /// When it is set at all.
        only: Only,
    },
    /// Removes a key, if it is there.
    Delete(Key),
    /// Sets how long a key that is there lives.
    Expire(Key, Ttl),
    /// Reads a key.
    Get(Key),
    /// Adds to an integer; a key that is not there counts as 0. Its time to live stays.
    Increment(Key, i64),
    /// Removes all keys that begin like this.
    DeletePrefix(Prefix),
    /// Removes all keys.
    Clear,
}

/// How long an entry lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As long as before; for ever if it was not there.
    Keep,
    /// For ever.
    Never,
    /// So many milliseconds from now.
    For(u64),
    /// Until this moment, in milliseconds since 1970 (UTC).
    At(u64),
}

/// A condition on a single set. Unlike a compare it does not fail the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// Set it.
    Always,
    /// Set it if it is not there.
    IfAbsent,
    /// Set it if it is there.
    IfPresent,
}

/// What is stored under a key. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Arc<Value>,
    /// When it was changed last.
    pub revision: u64,
    /// When it was made.
    pub created: u64,
    /// How often it was written since then, 1 at first.
    pub version: u64,
    /// When it ends, in milliseconds since 1970 (UTC).
    pub expires: Option<u64>,
}

/// What a batch did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The revision that it made; the one that it saw, if it changed nothing.
    pub revision: u64,
    /// One answer for each operation.
    pub answers: Vec<Answer>,
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of `Set`.
    Set {
        /// Whether `only` let it happen.
        done: bool,
        /// What was there before.
        before: Option<Entry>,
    },
    /// Of `Delete`: what was there.
    Deleted(Option<Entry>),
    /// Of `Expire`: whether something changed.
    Expire(bool),
    /// Of `Get`.
    Got(Option<Entry>),
    /// Of `Increment`: the sum.
    Number(i64),
    /// Of `DeletePrefix` and `Clear`: how many keys are gone.
    Removed(u64),
}

impl Operation {
    /// Sets a value that lives for ever.
    pub fn set(key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self::Set {
            key: key.into(),
            value: value.into(),
            ttl: Ttl::Never,
            only: Only::Always,
        }
    }

    /// Takes away a key's end, if it has one.
    pub fn persist(key: impl Into<Key>) -> Self {
        Self::Expire(key.into(), Ttl::Never)
    }

    /// The key that it is about; `None` for those about many.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Set { key, .. }
            | Self::Delete(key)
            | Self::Expire(key, _)
            | Self::Get(key)
            | Self::Increment(key, _) => Some(key),
            Self::DeletePrefix(_) | Self::Clear => None,
        }
    }
}

impl Compare {
    /// The key that it is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Exists(key)
            | Self::Absent(key)
            | Self::Revision(key, _)
            | Self::Value(key, _) => key,
        }
    }
}

impl From<Operation> for Batch {
    fn from(operation: Operation) -> Self {
        Self::from(vec![operation])
    }
}

impl From<Vec<Operation>> for Batch {
    fn from(operations: Vec<Operation>) -> Self {
        Self {
            compares: Vec::new(),
            operations,
        }
    }
}

impl Ttl {
    /// When an entry ends whose end was `before`.
    pub(super) fn end(self, before: Option<u64>, now: u64) -> Option<u64> {
        match self {
            Self::Keep => before,
            Self::Never => None,
            Self::For(milliseconds) => Some(now.saturating_add(milliseconds)),
            Self::At(moment) => Some(moment),
        }
    }
}
