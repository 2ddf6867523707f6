//! What a store promises, on every engine.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::atomic::Ordering;

use common::{Bench, each_engine, eventually, key, set, set_for, set_if, texts, wait};
use kv_rpc::store::{
    Answer, Batch, Change, Compare, Cursor, Health, Limits, Only, Operation, Prefix, StoreError,
    Ttl, WatchEnd, WatchError,
};
use portyard_wire::value::Value;

fn everywhere(test: impl Fn(&mut Bench)) {
    each_engine(&Limits::default(), test);
}

#[test]
fn a_value_of_every_kind_comes_back() {
    everywhere(|bench| {
        let values = [
            Value::Nil,
            Value::Bool(true),
            Value::Int(i64::MIN),
            Value::Double(1e300),
            Value::from("text \u{1f980}"),
            Value::Bytes(vec![0, 255]),
            Value::DateTime("19980717T14:08:55".into()),
            Value::List(vec![Value::Nil, Value::List(vec![])]),
            Value::Map(vec![
                (Value::from("z"), Value::Int(1)),
                (Value::from("a"), Value::Nil),
            ]),
        ];
        for (number, value) in (0..).zip(&values) {
            bench.set(number, value.clone());
        }
        bench.reopen();
        for (number, value) in (0..).zip(&values) {
            assert_eq!(bench.value(number).as_ref(), Some(value));
        }
        assert_eq!(bench.value(99), None);
    });
}

#[test]
fn keys_are_pythons_and_keep_the_form_first_set() {
    everywhere(|bench| {
        bench.set(1, "one");
        bench.run(vec![set(key(Value::Bool(true)), "true")]);
        bench.run(vec![set(key(Value::Double(1.0)), "double")]);
        bench.set("1", "text");
        bench.set(key(Value::Bytes(b"1".into())), "bytes");
        bench.set(key(Value::Nil), "nil");
        bench.reopen();
        assert_eq!(bench.store.len(), 4);
        assert_eq!(bench.value(1), Some("double".into()));
        let forms = [
            Value::Int(1),
            "1".into(),
            Value::Bytes(b"1".into()),
            Value::Nil,
        ];
        assert_eq!(bench.keys(), forms);
        bench.one(Operation::Delete(1.into()));
        bench.set(key(Value::Bool(true)), "again");
        assert_eq!(bench.keys()[3], Value::Bool(true));
    });
}

#[test]
fn order_is_that_of_first_setting() {
    everywhere(|bench| {
        for name in ["c", "a", "b"] {
            bench.set(name, 1);
        }
        bench.set("c", 2);
        assert_eq!(bench.keys(), texts(&["c", "a", "b"]));
        bench.run(vec![Operation::Delete("c".into()), set("c", 3)]);
        assert_eq!(bench.keys(), texts(&["a", "b", "c"]));
        bench.reopen();
        assert_eq!(bench.keys(), texts(&["a", "b", "c"]));
    });
}

#[test]
fn entries_tell_their_revisions() {
    everywhere(|bench| {
        assert_eq!(bench.store.revision(), 0);
        assert_eq!(bench.set("a", 1), 1);
        assert_eq!(bench.set("b", 1), 2);
        assert_eq!(bench.set("a", 2), 3);
        bench.reopen();
        let entry = bench.store.get(&"a".into()).unwrap();
        assert_eq!((entry.revision, entry.created, entry.version), (3, 1, 2));
        // What changes nothing counts no revision.
        let outcome = bench.run(vec![
            Operation::Delete("x".into()),
            Operation::Get("a".into()),
        ]);
        assert_eq!(outcome.revision, 3);
        assert_eq!(outcome.answers[1], Answer::Got(Some(entry)));
        let gone = bench.run(vec![set("x", 1), Operation::Delete("x".into())]);
        assert_eq!((gone.revision, bench.store.revision()), (3, 3));
    });
}

#[test]
fn each_operation_answers() {
    everywhere(|bench| {
        let Answer::Set { done, before } = bench.one(set("a", 1)) else {
            panic!("of another kind");
        };
        assert!(done && before.is_none());
        let unmet = bench.one(set_if("a", 2, Ttl::Never, Only::IfAbsent));
        assert!(matches!(
            unmet,
            Answer::Set {
                done: false,
                before: Some(_)
            }
        ));
        let unmet = bench.one(set_if("b", 2, Ttl::Never, Only::IfPresent));
        assert!(matches!(
            unmet,
            Answer::Set {
                done: false,
                before: None
            }
        ));
        assert_eq!(bench.value("a"), Some(Value::Int(1)));
        assert_eq!(
            bench.one(Operation::Increment("a".into(), 41)),
            Answer::Number(42)
        );
        assert_eq!(
            bench.one(Operation::Increment("n".into(), -1)),
            Answer::Number(-1)
        );
        let Answer::Deleted(Some(entry)) = bench.one(Operation::Delete("a".into())) else {
            panic!("not deleted");
        };
        assert_eq!(*entry.value, Value::Int(42));
        assert_eq!(
            bench.one(Operation::Delete("a".into())),
            Answer::Deleted(None)
        );
        for name in ["user:1", "user:2", "users"] {
            bench.set(name, 1);
        }
        let prefix = Operation::DeletePrefix("user:".into());
        assert_eq!(bench.one(prefix), Answer::Removed(2));
        assert_eq!(bench.keys(), texts(&["n", "users"]));
        assert_eq!(bench.one(Operation::Clear), Answer::Removed(2));
        bench.reopen();
        assert!(bench.store.is_empty());
    });
}

#[test]
fn a_batch_happens_whole_or_not_at_all() {
    everywhere(|bench| {
        bench.set("max", i64::MAX);
        bench.set("text", "text");
        let before = common::all(&bench.store);
        let overflow = vec![
            set("a", 1),
            Operation::Clear,
            set("max", i64::MAX),
            Operation::Increment("max".into(), 1),
        ];
        let refused = bench.batch(overflow.into());
        assert_eq!(refused, Err(StoreError::Overflow { index: 3 }));
        let kind = vec![set("a", 1), Operation::Increment("text".into(), 1)];
        let refused = bench.batch(kind.into());
        let kind = "string";
        assert_eq!(refused, Err(StoreError::NotAnInteger { index: 1, kind }));
        assert_eq!(common::all(&bench.store), before);
        assert_eq!(bench.set("b", 1), 3);
        bench.reopen();
        assert_eq!(bench.keys(), texts(&["max", "text", "b"]));
    });
}

#[test]
fn a_batch_sees_what_it_did() {
    everywhere(|bench| {
        bench.set("old", 1);
        let outcome = bench.run(vec![
            set("a", 1),
            Operation::Increment("a".into(), 1),
            Operation::Get("a".into()),
            Operation::Clear,
            Operation::Get("a".into()),
            set("last", 1),
        ]);
        let Answer::Got(Some(entry)) = &outcome.answers[2] else {
            panic!("not seen");
        };
        assert_eq!(
            (&*entry.value, entry.revision, entry.version),
            (&Value::Int(2), 2, 2)
        );
        assert_eq!(outcome.answers[3], Answer::Removed(2));
        assert_eq!(outcome.answers[4], Answer::Got(None));
        bench.reopen();
        assert_eq!(bench.keys(), texts(&["last"]));
        assert_eq!(bench.store.revision(), 2);
    });
}

#[test]
fn conditions_decide_and_tell_what_is_there() {
    everywhere(|bench| {
        bench.set("a", 1);
        let write = || set("a", 2);
        let current = bench.store.get(&"a".into());
        let not = |compare| {
            let conflict = bench.when(compare, write());
            assert_eq!(
                conflict,
                Err(StoreError::Conflict {
                    index: 0,
                    current: current.clone()
                })
            );
        };
        not(Compare::Absent("a".into()));
        not(Compare::Revision("a".into(), 2));
        not(Compare::Value("a".into(), Value::Double(1.0)));
        let absent = |compare| {
            let conflict = bench.when(compare, write());
            assert_eq!(
                conflict,
                Err(StoreError::Conflict {
                    index: 0,
                    current: None
                })
            );
        };
        absent(Compare::Exists("x".into()));
        absent(Compare::Revision("x".into(), 1));
        absent(Compare::Value("x".into(), Value::Nil));
        assert_eq!(bench.store.revision(), 1);
        bench
            .when(Compare::Revision("a".into(), 1), write())
            .unwrap();
        bench
            .when(Compare::Value("a".into(), Value::Int(2)), write())
            .unwrap();
        bench.when(Compare::Exists("a".into()), write()).unwrap();
        bench.when(Compare::Absent("x".into()), write()).unwrap();
        assert_eq!(bench.store.revision(), 5);
        let remove = || Operation::Delete("a".into());
        let other = Compare::Value("a".into(), Value::Nil);
        bench.when(other, remove()).unwrap_err();
        assert!(bench.store.exists(&"a".into()));
        let same = || Compare::Value("a".into(), Value::Int(2));
        bench.when(same(), remove()).unwrap();
        bench.when(same(), remove()).unwrap_err();
        assert_eq!(
            (bench.store.exists(&"a".into()), bench.store.revision()),
            (false, 6)
        );
    });
}

#[test]
fn what_has_ended_is_hidden_at_once_and_removed_soon() {
    everywhere(|bench| {
        bench.run(vec![
            set_for("for", 1, Ttl::For(1_000)),
            set_for("at", 1, Ttl::At(1_002_000)),
            set("ever", 1),
        ]);
        let mut watcher = bench.store.watch(None, 2).unwrap();
        bench.clock.forward(999);
        assert!(bench.store.exists(&"for".into()));
        bench.clock.forward(1);
        assert!(!bench.store.exists(&"for".into()));
        assert_eq!(bench.store.len(), 2);
        assert_eq!(bench.keys(), texts(&["at", "ever"]));
        assert_eq!(bench.store.scan(None, None, 10).entries.len(), 2);
        assert_eq!(bench.store.snapshot().count(), 2);
        let event = wait(watcher.next()).unwrap();
        assert_eq!(event.revision, 2);
        assert_eq!((event.key, event.change), ("for".into(), Change::Expired));
        assert_eq!(bench.store.revision(), 2);
        bench.reopen();
        bench.clock.back(500);
        assert!(
            !bench.store.exists(&"for".into()),
            "come back from the dead"
        );
        bench.clock.forward(1_500);
        eventually("the other ends, too", || bench.store.revision() == 3);
        assert_eq!(bench.keys(), texts(&["ever"]));
    });
}

#[test]
fn time_never_goes_back_while_a_store_is_open() {
    everywhere(|bench| {
        bench.run(vec![set_for("a", 1, Ttl::For(1_000))]);
        bench.clock.forward(1_000);
        assert!(!bench.store.exists(&"a".into()));
        bench.clock.back(1_000);
        assert!(!bench.store.exists(&"a".into()));
    });
}

#[test]
fn ends_are_kept_moved_and_taken_away() {
    everywhere(|bench| {
        let end = |name: &str| bench.store.get(&name.into()).unwrap().expires;
        bench.run(vec![set_for("a", 1, Ttl::For(10))]);
        bench.run(vec![set_for("a", 2, Ttl::Keep)]);
        bench.run(vec![Operation::Increment("a".into(), 1)]);
        assert_eq!(end("a"), Some(1_000_010));
        let expire = |ttl| bench.one(Operation::Expire("a".into(), ttl));
        assert_eq!(expire(Ttl::For(20)), Answer::Expire(true));
        assert_eq!(end("a"), Some(1_000_020));
        assert_eq!(expire(Ttl::At(1_000_020)), Answer::Expire(false));
        assert_eq!(bench.one(Operation::persist("a")), Answer::Expire(true));
        assert_eq!(bench.one(Operation::persist("a")), Answer::Expire(false));
        assert_eq!(bench.one(Operation::persist("x")), Answer::Expire(false));
        assert_eq!(end("a"), None);
        bench.run(vec![
            set_for("a", 1, Ttl::For(u64::MAX)),
            set_for("b", 1, Ttl::Keep),
        ]);
        assert_eq!((end("a"), end("b")), (Some(u64::MAX), None));
    });
}

#[test]
fn setting_what_has_ended_makes_a_new_key() {
    everywhere(|bench| {
        bench.run(vec![set_for("a", 1, Ttl::For(10)), set("b", 1)]);
        let mut watcher = bench.store.watch(None, 2).unwrap();
        bench.clock.forward(10);
        let outcome = bench.run(vec![set_for("a", 2, Ttl::Keep)]);
        let absent = Answer::Set {
            done: true,
            before: None,
        };
        assert_eq!(outcome.answers, [absent]);
        assert_eq!(outcome.revision, 3);
        let entry = bench.store.get(&"a".into()).unwrap();
        assert_eq!((entry.created, entry.version, entry.expires), (3, 1, None));
        assert_eq!(bench.keys(), texts(&["b", "a"]));
        assert_eq!(wait(watcher.next()).unwrap().change, Change::Expired);
        assert_eq!(wait(watcher.next()).unwrap().change, Change::Set(entry));
    });
}

#[test]
fn what_ends_in_masses_is_gone_all_the_same() {
    everywhere(|bench| {
        let count = 1_500;
        let fill = || {
            bench.run(
                (0..count)
                    .map(|key| set_for(key, 1, Ttl::For(10)))
                    .collect(),
            );
            bench.clock.forward(10);
        };
        fill();
        let mut watcher = bench.store.watch(None, 2).unwrap();
        let last = bench.one(set_if(count - 1, 2, Ttl::Keep, Only::IfAbsent));
        assert!(matches!(
            last,
            Answer::Set {
                done: true,
                before: None
            }
        ));
        assert_eq!(bench.store.get(&(count - 1).into()).unwrap().expires, None);
        let mut next = || loop {
            let event = wait(watcher.next()).unwrap();
            if event.key == (count - 1).into() {
                return event.change;
            }
        };
        assert_eq!(next(), Change::Expired);
        assert!(matches!(next(), Change::Set(_)));
        fill();
        bench.set("stays", 1);
        assert_eq!(bench.one(Operation::Clear), Answer::Removed(1));
        eventually("all are removed", || {
            let keys = &bench.store.metrics().keys;
            keys.load(Ordering::SeqCst) == 0
        });
    });
}

#[test]
fn a_scan_goes_through_everything_once() {
    everywhere(|bench| {
        for number in 0..25 {
            bench.set(format!("k{number:02}").as_str(), number);
            bench.set(format!("x{number:02}").as_str(), number);
        }
        let prefix = Prefix::from("k");
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = bench.store.scan(Some(&prefix), cursor, 10);
            assert!(page.entries.len() <= 10);
            seen.extend(page.entries.into_iter().map(|(key, _)| key.to_value()));
            pages += 1;
            // What was seen may go, and what is new comes last.
            bench.run(vec![Operation::Delete("k00".into()), set("k99", pages)]);
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<_> = (0..25).map(|n| Value::String(format!("k{n:02}"))).collect();
        assert_eq!(seen[..25], expected);
        assert_eq!(seen[25..], texts(&["k99"]));
        assert_eq!(bench.store.scan(None, None, 0).cursor, Some(Cursor(0)));
        let bytes = Prefix::Bytes(b"k".into());
        assert!(bench.store.scan(Some(&bytes), None, 99).entries.is_empty());
    });
}

#[test]
fn a_snapshot_stays_as_it_was() {
    everywhere(|bench| {
        bench.set("a", 1);
        bench.set("b", 1);
        let snapshot = bench.store.snapshot();
        bench.run(vec![set("a", 2), Operation::Delete("b".into())]);
        assert_eq!(snapshot.revision(), 2);
        let seen: Vec<_> = snapshot
            .map(|(key, entry)| (key.to_value(), entry.revision))
            .collect();
        assert_eq!(seen, [("a".into(), 1), ("b".into(), 2)]);
    });
}

#[test]
fn watchers_see_their_prefix_from_their_revision_on() {
    everywhere(|bench| {
        bench.set("a1", 1);
        bench.run(vec![set("b1", 1), set("a2", 1)]);
        bench.run(vec![Operation::Delete("a1".into()), set("a1", 5)]);
        let mut watcher = bench.store.watch(Some("a".into()), 2).unwrap();
        let mut next = || {
            let event = wait(watcher.next()).unwrap();
            (event.revision, event.key.to_value(), event.change)
        };
        assert_eq!(next().1, "a2".into());
        // The net effect of a batch: one event a key.
        let (revision, key, change) = next();
        assert_eq!((revision, key), (3, "a1".into()));
        assert!(matches!(change, Change::Set(entry) if entry.created == 3));
        bench.one(Operation::Clear);
        let (revision, key, change) = next();
        assert_eq!((revision, key, change), (4, "a2".into(), Change::Deleted));
        assert_eq!(next().1, "a1".into());
        wait(bench.store.close());
        assert_eq!(wait(watcher.next()), Err(WatchEnd::Closed));
        let ahead = WatchError::Ahead { revision: 4 };
        assert_eq!(bench.store.watch(None, 6).err(), Some(ahead));
    });
}

#[test]
fn a_watch_is_woken_while_it_waits() {
    everywhere(|bench| {
        let mut watcher = bench.store.watch(None, 1).unwrap();
        let event = wait(async {
            let (event, _) = tokio::join!(watcher.next(), bench.store.apply(set("a", 1).into()));
            event.unwrap()
        });
        assert_eq!(event.revision, 1);
    });
}

#[test]
fn a_page_of_events_ends_with_a_revision_and_says_where_the_next_begins() {
    everywhere(|bench| {
        for number in 0..4 {
            bench.run((0..3).map(|key| set(key, number)).collect());
        }
        bench.set("other", 1);
        let mut watcher = bench.store.watch(None, 1).unwrap();
        let page = watcher.page(4, u64::MAX).unwrap();
        let revisions: Vec<_> = page.events.iter().map(|event| event.revision).collect();
        assert_eq!(revisions, [1, 1, 1, 2, 2, 2]);
        assert_eq!((page.next, page.more), (3, true));
        let page = watcher.page(100, 1).unwrap();
        assert_eq!((page.events.len(), page.next), (3, 4));
        let page = watcher.page(100, u64::MAX).unwrap();
        assert_eq!((page.events.len(), page.next, page.more), (4, 6, false));
        let page = watcher.page(100, u64::MAX).unwrap();
        assert_eq!((page.events.len(), page.next, page.more), (0, 6, false));
        // What was passed over is not looked at again.
        let mut rare = bench.store.watch(Some("none".into()), 1).unwrap();
        assert_eq!(rare.page(1, 1).unwrap().next, 6);
        wait(async {
            let (changed, _) =
                tokio::join!(rare.changed(), bench.store.apply(set("none", 1).into()));
            changed.unwrap();
        });
        let page = rare.page(1, 1).unwrap();
        assert_eq!((page.events.len(), page.next), (1, 7));
        assert_eq!(bench.store.metrics().watchers.load(Ordering::Relaxed), 2);
        drop(rare);
        assert_eq!(bench.store.metrics().watchers.load(Ordering::Relaxed), 1);
        wait(bench.store.close());
        assert_eq!(wait(watcher.changed()), Err(WatchEnd::Closed));
    });
}

#[test]
fn history_is_bounded_and_says_so() {
    let limits = Limits {
        history: 10,
        ..Limits::default()
    };
    each_engine(&limits, |bench| {
        let mut slow = bench.store.watch(None, 1).unwrap();
        for number in 0..5 {
            bench.run((0..3).map(|key| set(key, number)).collect());
        }
        // 15 events, of which the last 10 would begin within revision 2.
        let oldest = 3;
        assert_eq!(
            bench.store.watch(None, 2).err(),
            Some(WatchError::Compacted { oldest })
        );
        assert_eq!(wait(slow.next()), Err(WatchEnd::Lagged { resume: oldest }));
        assert_eq!(wait(slow.next()).unwrap().revision, oldest);
        bench.reopen();
        if bench.engine == "redb" {
            let compacted = WatchError::Compacted { oldest: 6 };
            assert_eq!(bench.store.watch(None, 5).err(), Some(compacted));
            assert!(bench.store.watch(None, 6).is_ok());
        }
    });
    let limits = Limits {
        history_bytes: 1,
        ..Limits::default()
    };
    each_engine(&limits, |bench| {
        let mut prompt = bench.store.watch(None, 1).unwrap();
        bench.set("a", 1);
        // Who keeps up misses nothing, however large it is.
        assert_eq!(wait(prompt.next()).unwrap().revision, 1);
        bench.set("a", 2);
        let compacted = WatchError::Compacted { oldest: 2 };
        assert_eq!(bench.store.watch(None, 1).err(), Some(compacted));
    });
}

#[test]
fn nothing_over_a_limit_gets_in() {
    let limits = Limits {
        keys: 3,
        key_bytes: 10,
        value_bytes: 1_000,
        total_bytes: 2_000,
        batch_steps: 5,
        ..Limits::default()
    };
    each_engine(&limits, |bench| {
        let over = |operation: Operation| match bench.batch(operation.into()) {
            Err(StoreError::TooLarge { what, .. }) => what,
            other => panic!("let in: {other:?}"),
        };
        let long = "x".repeat(11);
        assert_eq!(over(set(long.as_str(), 1)), "bytes in a key");
        assert_eq!(over(Operation::Get(long.as_str().into())), "bytes in a key");
        let prefix = Operation::DeletePrefix(long.as_str().into());
        assert_eq!(over(prefix), "bytes in a prefix");
        let large = Value::Bytes(vec![0; 1_001]);
        assert_eq!(over(set("a", large)), "bytes in a value");
        let deep = (0..65).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
        assert_eq!(over(set("a", deep)), "values in each other");
        let steps = (0..6)
            .map(|key| Operation::Get(key.into()))
            .collect::<Vec<_>>();
        assert!(matches!(
            bench.batch(steps.into()),
            Err(StoreError::TooLarge { .. })
        ));

        let large = || Value::Bytes(vec![0; 900]);
        bench.run(vec![set_for("a", large(), Ttl::For(10)), set("b", large())]);
        assert_eq!(over(set("c", large())), "bytes in all");
        bench.set("c", 1);
        assert_eq!(over(set("d", 1)), "keys");
        // Overwriting with less always goes, and what has ended makes room.
        bench.set("b", 1);
        bench.clock.forward(10);
        bench.set("d", large());
        assert_eq!(bench.keys(), texts(&["b", "c", "d"]));
    });
}

#[test]
fn a_full_queue_turns_away_and_recovers() {
    let limits = Limits {
        waiting: 2,
        ..Limits::default()
    };
    each_engine(&limits, |bench| {
        let answers = wait(async {
            let mut answers = Vec::new();
            let mut waiting = Vec::new();
            for number in 0..100 {
                waiting.push(bench.store.apply(set(number, number).into()));
            }
            for answer in waiting {
                answers.push(answer.await);
            }
            answers
        });
        let done = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(
            answers
                .iter()
                .all(|a| matches!(a, Ok(_) | Err(StoreError::Busy)))
        );
        assert_eq!(bench.store.len(), done);
        assert!(done >= 2);
        bench.set("again", 1);
        if bench.engine == "redb" {
            assert!(done < 100, "a disk cannot be that fast");
        }
    });
}

#[test]
fn a_closed_store_takes_nothing_more() {
    everywhere(|bench| {
        let last = bench.store.apply(set("a", 1).into());
        assert_eq!(wait(bench.store.close()), Health::Closed);
        assert!(wait(last).is_ok(), "queued before");
        let refused = bench.batch(set("b", 1).into());
        assert_eq!(refused, Err(StoreError::Closed));
        assert_eq!(bench.keys(), texts(&["a"]));
    });
}

#[test]
fn an_empty_batch_is_answered() {
    everywhere(|bench| {
        let outcome = bench.batch(Batch::default()).unwrap();
        assert_eq!((outcome.revision, outcome.answers.len()), (0, 0));
    });
}

#[test]
fn metrics_tell_what_happened() {
    everywhere(|bench| {
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
        bench.set("a", 1);
        bench.run(vec![set_for("b", 1, Ttl::For(1))]);
        let _ = bench.when(Compare::Absent("a".into()), Operation::Clear);
        bench.clock.forward(1);
        let metrics = bench.store.metrics();
        eventually("it is removed", || load(&metrics.expired) == 1);
        assert_eq!(load(&metrics.conflicts), 1);
        assert_eq!(load(&metrics.batches), 3);
        assert_eq!(load(&metrics.keys), 1);
        assert_eq!(load(&metrics.revision), 3);
        assert_eq!(load(&metrics.waiting), 0);
        assert!(load(&metrics.bytes) > 0);
        assert_eq!(metrics.commit_microseconds.count(), 3);
    });
}
