//! What concurrent users see of a key fits one order in which each of their calls happened at one
//! moment between its begin and its end.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use common::history::{Call, NEVER, What, linearizable};
use common::random::Random;
use common::{each_engine, key, set_for, wait};
use kv_rpc::store::{Answer, Batch, Compare, Key, Limits, Operation, Store, StoreError, Ttl};
use portyard_wire::value::Value;

#[test]
fn every_key_is_linearizable() {
    each_engine(&Limits::default(), |bench| {
        for seed in 0..ROUNDS {
            let store = &bench.store;
            wait(store.apply(Operation::Clear.into())).unwrap();
            let mut histories = vec![Vec::new(); usize::try_from(KEYS).unwrap()];
            let clock = AtomicU64::new(0);
            thread::scope(|scope| {
                let user = |user| {
                    let clock = &clock;
                    scope.spawn(move || use_store(store, clock, Random(seed * 100 + user)))
                };
                let users: Vec<_> = (0..USERS).map(user).collect();
                for user in users {
                    for (key, call) in user.join().unwrap() {
                        histories[usize::try_from(key).unwrap()].push(call);
                    }
                }
            });
            for history in histories {
                assert!(linearizable(&history), "{}: {history:#?}", bench.engine);
            }
        }
    });
}

/// The checker's own test: it takes what is right, and sees each way of being wrong.
#[test]
fn the_checker_sees_what_is_wrong() {
    let call = |begin, end, what| Call { begin, end, what };
    let right = [
        call(0, 9, What::Set(1)),
        call(1, 2, What::Get(None)),
        call(3, 4, What::Get(Some(1))),
        call(5, 6, What::Swap(1, 2, true)),
        call(7, 8, What::Add(3, 5)),
        call(10, 11, What::Delete(true)),
        call(12, 13, What::Get(None)),
    ];
    assert!(linearizable(&right));
    let wrong = [
        (2, What::Get(Some(7))),
        (3, What::Swap(1, 2, false)),
        (4, What::Add(3, 6)),
        (5, What::Delete(false)),
        (6, What::Get(Some(5))),
    ];
    for (index, what) in wrong {
        let mut history = right.clone();
        history[index].what = what;
        assert!(!linearizable(&history), "{what:?}");
    }
    // A read that sees what was, after another has seen what is.
    let mut stale = right.clone();
    stale[1] = call(4, 5, What::Get(Some(1)));
    stale[2] = call(6, 7, What::Get(None));
    stale[3] = call(10, 11, What::Get(Some(1)));
    assert!(!linearizable(&stale[..4]));
    // What was never answered may have happened, at any time since, or not; but once at the most.
    let lost = call(2, NEVER, What::LostAdd(1));
    let seen = |first, second| {
        let get = |begin, found| call(begin, begin + 1, What::Get(Some(found)));
        linearizable(&[
            call(0, 1, What::Set(1)),
            lost.clone(),
            get(4, first),
            get(6, second),
        ])
    };
    assert!(seen(1, 1) && seen(1, 2) && seen(2, 2));
    assert!(!seen(2, 1) && !seen(2, 3));
}

/// What one user does, key by key.
fn use_store(store: &Store, clock: &AtomicU64, mut random: Random) -> Vec<(u64, Call)> {
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let at = random.below(KEYS);
        let key = key(Value::Int(i64::try_from(at).unwrap()));
        let mut number = || i64::try_from(random.below(4)).unwrap();
        let (a, b) = (number(), number());
        let kind = random.below(8);
        let begin = clock.fetch_add(1, Ordering::SeqCst);
        let what = call(store, kind, &key, a, b);
        let end = clock.fetch_add(1, Ordering::SeqCst);
        calls.push((at, Call { begin, end, what }));
    }
    calls
}

fn call(store: &Store, kind: u64, key: &Key, a: i64, b: i64) -> What {
    let one = |operation: Operation| {
        let answers = wait(store.apply(operation.into())).unwrap().answers;
        answers.into_iter().next().unwrap()
    };
    let number = |value: &Value| match value {
        Value::Int(number) => *number,
        other => panic!("{other:?}"),
    };
    match kind {
        0..3 => What::Get(store.get(key).map(|entry| number(&entry.value))),
        3 => match one(Operation::Get(key.clone())) {
            Answer::Got(found) => What::Get(found.map(|entry| number(&entry.value))),
            other => panic!("{other:?}"),
        },
        4 => {
            one(set_for(key.clone(), a, Ttl::Never));
            What::Set(a)
        }
        5 => match one(Operation::Delete(key.clone())) {
            Answer::Deleted(found) => What::Delete(found.is_some()),
            other => panic!("{other:?}"),
        },
        6 => match one(Operation::Increment(key.clone(), a)) {
            Answer::Number(sum) => What::Add(a, sum),
            other => panic!("{other:?}"),
        },
        _ => {
            let swapped = wait(store.apply(Batch {
                compares: vec![Compare::Value(key.clone(), Value::Int(a))],
                operations: vec![set_for(key.clone(), b, Ttl::Never)],
            }));
            match swapped {
                Ok(_) => What::Swap(a, b, true),
                Err(StoreError::Conflict { .. }) => What::Swap(a, b, false),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

const ROUNDS: u64 = 20;
const USERS: u64 = 6;
const CALLS: u64 = 60;
const KEYS: u64 = 5;
