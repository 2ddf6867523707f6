//! Random batches against a plain model, with reopening in between.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::Arc;

use common::{HandClock, set_if, wait};
use kv_rpc::store::{
    Answer, Batch, Compare, Disk, Key, Limits, Only, Operation, Prefix, Store, StoreError, Ttl,
};
use portyard_wire::value::Value;
use proptest::prelude::*;

use common::disk::{Fault, SimDisk};

/// The model: pairs in order, each with when it ends.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(Vec<(Value, Value, Option<u64>)>);

#[derive(Clone, Debug)]
enum Step {
    /// Sent all at once, so that one commit takes several.
    Batches(Vec<Batch>),
    Reopen,
    Forward(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..25)) {
        let clock = HandClock::new();
        let mut now = 1_000_000;
        let disk = SimDisk::new(Vec::new(), Fault::None, false);
        let open = || {
            let engine = Box::new(Disk::on(disk.clone()).unwrap());
            Store::start(engine, Limits::default(), Arc::new(clock.clone())).unwrap()
        };
        let mut store = Some(open());
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Reopen => {
                    drop(store.take());
                    store = Some(open());
                }
                Step::Forward(by) => {
                    clock.forward(by);
                    now += by;
                    model.0.retain(|(_, _, end)| end.is_none_or(|end| end > now));
                }
                Step::Batches(batches) => {
                    let store = store.as_ref().unwrap();
                    let promises: Vec<_> = batches.iter().map(|b| store.apply(b.clone())).collect();
                    for (batch, promise) in batches.iter().zip(promises) {
                        let expected = model.run(batch, now);
                        prop_assert_eq!(answers(wait(promise)), expected);
                    }
                }
            }
            let store = store.as_ref().unwrap();
            let found = store.snapshot().map(|(key, entry)| {
                (key.to_value(), (*entry.value).clone(), entry.expires)
            });
            prop_assert_eq!(&Model(found.collect()), &model);
            prop_assert_eq!(store.len(), model.0.len());
            for (key, value, _) in &model.0 {
                let entry = store.get(&Key::try_from(key.clone()).unwrap());
                prop_assert_eq!(&*entry.unwrap().value, value);
            }
        }
    }
}

impl Model {
    /// `None` when the batch is refused.
    fn run(&mut self, batch: &Batch, now: u64) -> Option<Vec<String>> {
        let Batch {
            compares,
            operations,
        } = batch;
        for compare in compares {
            let found = self.find(compare.key()).map(|at| &self.0[at].1);
            let holds = match compare {
                Compare::Exists(_) => found.is_some(),
                Compare::Absent(_) => found.is_none(),
                Compare::Value(_, value) => found == Some(value),
                Compare::Revision(..) => unreachable!("not generated"),
            };
            if !holds {
                return None;
            }
        }
        let mut next = self.clone();
        let answers = operations
            .iter()
            .map(|operation| next.operate(operation, now));
        let answers = answers.collect::<Option<Vec<_>>>()?;
        next.0.retain(|(_, _, end)| end.is_none_or(|end| end > now));
        *self = next;
        Some(answers)
    }

    fn operate(&mut self, operation: &Operation, now: u64) -> Option<String> {
        let at = operation.key().and_then(|key| self.find(key));
        let before = at.map(|at| self.0[at].1.clone());
        Some(match operation {
            Operation::Set {
                key,
                value,
                ttl,
                only,
            } => {
                let done = match only {
                    Only::Always => true,
                    Only::IfAbsent => at.is_none(),
                    Only::IfPresent => at.is_some(),
                };
                if done {
                    self.put(at, key, value.clone(), *ttl, now);
                }
                format!("{done} {before:?}")
            }
            Operation::Delete(_) => {
                at.map(|at| self.0.remove(at));
                format!("{before:?}")
            }
            Operation::Expire(key, ttl) => {
                let Some(at) = at else {
                    return Some("false".into());
                };
                let old = self.0[at].2;
                let value = self.0[at].1.clone();
                self.put(Some(at), key, value, *ttl, now);
                (self.find(key).map(|at| self.0[at].2) != Some(old)).to_string()
            }
            Operation::Get(_) => format!("{before:?}"),
            Operation::Increment(key, by) => {
                let number = match before {
                    None => 0,
                    Some(Value::Int(number)) => number,
                    Some(_) => return None,
                };
                let sum = number.checked_add(*by)?;
                self.put(at, key, Value::Int(sum), Ttl::Keep, now);
                sum.to_string()
            }
            Operation::DeletePrefix(Prefix::Text(prefix)) => {
                let length = self.0.len();
                let matches =
                    |key: &Value| matches!(key, Value::String(text) if text.starts_with(prefix));
                self.0.retain(|(key, ..)| !matches(key));
                (length - self.0.len()).to_string()
            }
            Operation::DeletePrefix(Prefix::Bytes(_)) => unreachable!("not generated"),
            Operation::Clear => std::mem::take(&mut self.0).len().to_string(),
        })
    }

    fn put(&mut self, at: Option<usize>, key: &Key, value: Value, ttl: Ttl, now: u64) {
        let before = at.and_then(|at| self.0[at].2);
        let end = match ttl {
            Ttl::Keep => before,
            Ttl::Never => None,
            Ttl::For(by) => Some(now + by),
            Ttl::At(at) => Some(at),
        };
        match at {
            Some(at) => {
                self.0[at].1 = value;
                self.0[at].2 = end;
            }
            None => self.0.push((key.to_value(), value, end)),
        }
    }

    fn find(&self, key: &Key) -> Option<usize> {
        let same = |other: &Value| Key::try_from(other.clone()).unwrap() == *key;
        self.0.iter().position(|(other, ..)| same(other))
    }
}

fn answers(outcome: Result<kv_rpc::store::Outcome, StoreError>) -> Option<Vec<String>> {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(
            StoreError::Conflict { .. }
            | StoreError::Overflow { .. }
            | StoreError::NotAnInteger { .. },
        ) => return None,
        Err(error) => panic!("{error}"),
    };
    let value = |entry: Option<kv_rpc::store::Entry>| entry.map(|entry| (*entry.value).clone());
    let text = |answer| match answer {
        Answer::Set { done, before } => format!("{done} {:?}", value(before)),
        Answer::Deleted(entry) | Answer::Got(entry) => format!("{:?}", value(entry)),
        Answer::Expire(done) => done.to_string(),
        Answer::Number(sum) => sum.to_string(),
        Answer::Removed(count) => count.to_string(),
    };
    Some(outcome.answers.into_iter().map(text).collect())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(batch(), 1..6).prop_map(Step::Batches),
        1 => Just(Step::Reopen),
        1 => (0_u64..20).prop_map(Step::Forward),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let compares = prop::collection::vec(compare(), 0..2);
    let operations = prop::collection::vec(operation(), 0..6);
    (compares, operations).prop_map(|(compares, operations)| Batch {
        compares,
        operations,
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![
        key().prop_map(Compare::Exists),
        key().prop_map(Compare::Absent),
        (key(), value()).prop_map(|(key, value)| Compare::Value(key, value)),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let only = prop_oneof![
        Just(Only::Always),
        Just(Only::IfAbsent),
        Just(Only::IfPresent)
    ];
    prop_oneof![
        8 => (key(), value(), ttl(), only)
            .prop_map(|(key, value, ttl, only)| set_if(key, value, ttl, only)),
        4 => key().prop_map(Operation::Delete),
        2 => (key(), ttl()).prop_map(|(key, ttl)| Operation::Expire(key, ttl)),
        2 => key().prop_map(Operation::Get),
        2 => (key(), -2_i64..3).prop_map(|(key, by)| Operation::Increment(key, by)),
        1 => "[a-c]?".prop_map(|text| Operation::DeletePrefix(Prefix::Text(text))),
        1 => Just(Operation::Clear),
    ]
}

fn key() -> impl Strategy<Value = Key> {
    let value = prop_oneof![
        3 => "[a-c]{1,2}".prop_map(Value::String),
        2 => (0_i64..3).prop_map(Value::Int),
        1 => prop::bool::ANY.prop_map(Value::Bool),
        1 => prop_oneof![Just(-0.0), Just(1.0), Just(0.5)].prop_map(Value::Double),
        1 => Just(Value::Nil),
        1 => Just(Value::Bytes(b"a".into())),
    ];
    value.prop_map(|value| Key::try_from(value).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0_i64..3).prop_map(Value::Int),
        1 => Just(Value::Int(i64::MAX)),
        1 => "[a-z]{0,8}".prop_map(Value::String),
        1 => Just(Value::List(vec![Value::Nil])),
    ]
}

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        2 => Just(Ttl::Keep),
        3 => Just(Ttl::Never),
        // An end in the past would make the rest of its batch depend on the model's own rules.
        2 => (1_u64..30).prop_map(Ttl::For),
        1 => (2_000_000_u64..2_000_003).prop_map(Ttl::At),
    ]
}
