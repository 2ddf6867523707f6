//! What the tests of the store share: a clock that they move, both engines, and short spellings.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod disk;
pub mod history;
pub mod ledger;
pub mod random;
pub mod rpc;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kv_rpc::store::{
    Answer, Batch, Clock, Compare, Entry, Key, Limits, Only, Operation, Outcome, Store, StoreError,
    Ttl,
};
use portyard_wire::value::Value;

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub struct HandClock(Arc<AtomicU64>);

/// A store with its clock, on one of the engines.
pub struct Bench {
    pub engine: &'static str,
    pub store: Store,
    pub clock: HandClock,
    pub limits: Limits,
    pub directory: tempfile::TempDir,
}

impl HandClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_000_000)))
    }

    pub fn forward(&self, milliseconds: u64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }

    pub fn back(&self, milliseconds: u64) {
        self.0.fetch_sub(milliseconds, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs a test on every engine.
pub fn each_engine(limits: &Limits, test: impl Fn(&mut Bench)) {
    for engine in ["memory", "redb"] {
        let directory = tempfile::tempdir().unwrap();
        let clock = HandClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let store = match engine {
            "memory" => Store::memory(limits.clone(), shared),
            _ => Store::open(&directory.path().join("data"), limits.clone(), shared),
        };
        let mut bench = Bench {
            engine,
            store: store.unwrap(),
            clock,
            limits: limits.clone(),
            directory,
        };
        assert_eq!(bench.store.capabilities().engine, engine);
        test(&mut bench);
    }
}

impl Bench {
    /// Closes and opens again, where there is something to open.
    pub fn reopen(&mut self) {
        if self.engine == "memory" {
            return;
        }
        let clock = Arc::new(self.clock.clone());
        self.store = Store::memory(Limits::default(), clock.clone()).unwrap();
        let directory = self.directory.path().join("data");
        self.store = Store::open(&directory, self.limits.clone(), clock).unwrap();
    }

    pub fn run(&self, operations: Vec<Operation>) -> Outcome {
        self.batch(operations.into()).unwrap()
    }

    pub fn one(&self, operation: Operation) -> Answer {
        self.run(vec![operation]).answers.remove(0)
    }

    pub fn set(&self, key: impl Into<Key>, value: impl ToValue) -> u64 {
        self.run(vec![set(key, value)]).revision
    }

    pub fn batch(&self, batch: Batch) -> Result<Outcome, StoreError> {
        wait(self.store.apply(batch))
    }

    pub fn when(&self, compare: Compare, operation: Operation) -> Result<Outcome, StoreError> {
        self.batch(Batch {
            compares: vec![compare],
            operations: vec![operation],
        })
    }

    pub fn value(&self, key: impl Into<Key>) -> Option<Value> {
        self.store
            .get(&key.into())
            .map(|entry| (*entry.value).clone())
    }

    pub fn keys(&self) -> Vec<Value> {
        self.store.keys().iter().map(Key::to_value).collect()
    }
}

/// What may stand for a value.
pub trait ToValue {
    fn value(self) -> Value;
}

impl ToValue for i64 {
    fn value(self) -> Value {
        Value::Int(self)
    }
}

impl ToValue for &str {
    fn value(self) -> Value {
        self.into()
    }
}

impl ToValue for Value {
    fn value(self) -> Value {
        self
    }
}

pub fn set(key: impl Into<Key>, value: impl ToValue) -> Operation {
    set_for(key, value, Ttl::Never)
}

pub fn set_for(key: impl Into<Key>, value: impl ToValue, ttl: Ttl) -> Operation {
    set_if(key, value, ttl, Only::Always)
}

pub fn set_if(key: impl Into<Key>, value: impl ToValue, ttl: Ttl, only: Only) -> Operation {
    Operation::Set {
        key: key.into(),
        value: value.value(),
        ttl,
        only,
    }
}

pub fn key(value: Value) -> Key {
    Key::try_from(value).unwrap()
}

pub fn texts(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| Value::from(*text)).collect()
}

/// Waits for a future on a loop of its own.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let limit = Duration::from_secs(60);
    runtime
        .unwrap()
        .block_on(async { tokio::time::timeout(limit, future).await })
        .unwrap()
}

/// Waits until something is so.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::yield_now();
    }
}

pub fn all(store: &Store) -> Vec<(Value, Entry)> {
    let snapshot = store.snapshot();
    snapshot
        .map(|(key, entry)| (key.to_value(), entry))
        .collect()
}

pub fn open(directory: &Path) -> Store {
    Store::open(directory, Limits::default(), Arc::new(HandClock::new())).unwrap()
}
