//! Writers that keep books: what was acknowledged must be there, in its order, whatever happened.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::random::Random;
use super::rpc::{NoResult, Rpc};

/// What one writer knows of its own keys.
pub struct Ledger {
    prefix: String,
    random: Random,
    /// Keys with their values, in the order in which they were first set.
    entries: Vec<(String, Value)>,
    /// A write whose answer never came.
    open: Option<Write>,
    names: u64,
    pub acknowledged: u64,
}

/// A write, and what it leads to: a key with its value, or without one.
#[derive(Clone, Debug)]
struct Write {
    key: String,
    after: Option<Value>,
}

impl Ledger {
    pub fn new(number: u64, seed: u64) -> Self {
        Self {
            prefix: format!("{number}:"),
            random: Random(seed.wrapping_mul(1_000).wrapping_add(number)),
            entries: Vec::new(),
            open: None,
            names: 0,
            acknowledged: 0,
        }
    }

    /// Writes until the daemon is gone or refuses, and returns what it said then. Each acknowledged
    /// write is counted.
    pub fn write(&mut self, address: SocketAddr, count: &AtomicU64, size: usize) -> Option<Value> {
        // Without a connection the daemon is gone already.
        let mut rpc = Rpc::connect(address).ok()?;
        loop {
            let (method, params, write) = self.next(size);
            self.open = Some(write.clone());
            match rpc.call(method, &params) {
                Ok(_) => {
                    self.open = None;
                    self.acknowledged += 1;
                    count.fetch_add(1, Ordering::SeqCst);
                    self.enter(write);
                }
                Err(NoResult::Lost(_)) => return None,
                Err(NoResult::Error(error)) => {
                    let maybe = &error["data"]["maybe_applied"];
                    if *maybe == Value::Bool(false) {
                        self.open = None;
                    }
                    return Some(error);
                }
            }
        }
    }

    /// Compares the books with what is there now. A write without an answer happened whole or not at
    /// all, and is entered if it did.
    pub fn settle(&mut self, all: &[(String, Value)]) {
        let ours = all.iter().filter(|(key, _)| key.starts_with(&self.prefix));
        let found: Vec<_> = ours.cloned().collect();
        if let Some(open) = self.open.take()
            && found != self.entries
        {
            self.enter(open);
        }
        assert_eq!(found, self.entries, "what is there, what was acknowledged");
    }

    fn next(&mut self, size: usize) -> (&'static str, Value, Write) {
        let value = json!(format!("{}{}", self.random.next(), "x".repeat(size)));
        let count = self.entries.len() as u64;
        let kind = self.random.below(10);
        if count < 5 || (kind < 5 && count < KEYS_MAX) {
            self.names += 1;
            let key = format!("{}{}", self.prefix, self.names);
            return set(key, value);
        }
        let at = usize::try_from(self.random.below(count)).unwrap();
        let key = self.entries[at].0.clone();
        if kind < 8 {
            return set(key, value);
        }
        ("delete", json!([key]), Write { key, after: None })
    }

    fn enter(&mut self, write: Write) {
        let at = self.entries.iter().position(|(key, _)| *key == write.key);
        match (at, write.after) {
            (Some(at), Some(value)) => self.entries[at].1 = value,
            (Some(at), None) => drop(self.entries.remove(at)),
            (None, Some(value)) => self.entries.push((write.key, value)),
            (None, None) => {}
        }
    }
}

fn set(key: String, value: Value) -> (&'static str, Value, Write) {
    let params = json!([key, value]);
    let after = Some(value);
    ("set", params, Write { key, after })
}

/// How many keys a writer keeps.
const KEYS_MAX: u64 = 40;
