//! Workers that speak the broker's own protocol, here in Python: offers, reports, redelivery, drain.

mod common;

use std::time::Duration;

use common::{broker, native, pool, workers};
use nix::sys::signal::Signal;
use portyard_testkit::{Client, End, eventually};

#[test]
fn connections_are_offered_taken_and_done() {
    let daemon = broker("", "");
    let _worker = native(&daemon, &["name=one", "capacity=4"]);
    workers(&daemon, 1);
    for _ in 0..3 {
        let client = Client::connect(&daemon.endpoint("hand-off"));
        assert!(client.is_echoed(), "{}", daemon.log());
    }
    eventually("each is done", || pool(&daemon, "default")["done"] == 3);
    let pool = pool(&daemon, "default");
    let worker = &pool["workers"][0];
    assert_eq!(
        (&worker["name"], &worker["capacity"], &worker["taken"]),
        (&"one".into(), &4.into(), &3.into())
    );
}

#[test]
fn connections_are_balanced_by_what_workers_have() {
    let daemon = broker("", "");
    let _workers = [
        native(&daemon, &["name=a", "capacity=99"]),
        native(&daemon, &["name=b", "capacity=99"]),
        native(&daemon, &["name=c", "capacity=99", "weight=2"]),
    ];
    workers(&daemon, 3);
    let clients: Vec<Client> = (0..16)
        .map(|_| Client::connect(&daemon.endpoint("hand-off")))
        .collect();
    assert!(clients.iter().all(Client::is_echoed));
    let pool = pool(&daemon, "default");
    for worker in pool["workers"].as_array().unwrap() {
        let share = if worker["name"] == "c" { 8 } else { 4 };
        assert_eq!(worker["connections"], share, "{pool}");
    }
}

#[test]
fn what_one_refuses_another_serves() {
    let daemon = broker("", "");
    let _refusing = native(&daemon, &["name=no", "mode=refuse"]);
    workers(&daemon, 1);
    let _serving = native(&daemon, &["name=yes"]);
    workers(&daemon, 2);
    for _ in 0..4 {
        assert!(Client::connect(&daemon.endpoint("hand-off")).is_echoed());
    }
    assert!(pool(&daemon, "default")["refused"].as_u64() >= Some(1));
}

#[test]
fn what_nobody_wants_is_answered_in_the_end() {
    let daemon = broker(
        "redeliveries = 1\nwhen_nobody = \"banner\"\nbanner = \"sorry\\n\"",
        "",
    );
    let _refusing = native(&daemon, &["mode=refuse"]);
    workers(&daemon, 1);
    let client = Client::connect(&daemon.endpoint("hand-off"));
    client.send("hello");
    assert_eq!(client.receive_all(), (b"sorry\n".to_vec(), End::Fin));
    assert_eq!(pool(&daemon, "default")["unserved"]["redeliveries"], 1);
}

#[test]
fn without_a_worker_the_queue_waits_until_its_deadline() {
    for (how, end) in [("close", End::Fin), ("reset", End::Reset)] {
        let daemon = broker(
            &format!("queue_timeout = \"200ms\"\nwhen_nobody = \"{how}\""),
            "",
        );
        let client = Client::connect(&daemon.endpoint("hand-off"));
        client.send("hello");
        eventually("it waits", || pool(&daemon, "default")["arrived"] == 1);
        assert_eq!(client.receive_all(), (Vec::new(), end), "{how}");
        assert_eq!(pool(&daemon, "default")["unserved"]["timeout"], 1);
    }
}

#[test]
fn a_full_queue_leaves_clients_in_the_backlog_until_somebody_comes() {
    let daemon = broker("queue = 2", "");
    let clients: Vec<Client> = (0..6)
        .map(|_| Client::connect(&daemon.endpoint("hand-off")))
        .collect();
    eventually("two wait", || pool(&daemon, "default")["waiting"] == 2);
    let arrived = pool(&daemon, "default")["arrived"].as_u64().unwrap();
    // Each loop may have one in its hands that has no place in the queue.
    let loops = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(arrived <= 2 + loops, "{arrived}");
    let _worker = native(&daemon, &["capacity=99"]);
    assert!(clients.iter().all(Client::is_echoed));
}

#[test]
fn who_dies_before_it_takes_loses_nothing() {
    let daemon = broker("", "");
    let mut doomed = native(&daemon, &["name=doomed"]);
    workers(&daemon, 1);
    doomed.signal(Signal::SIGSTOP);
    let clients: Vec<Client> = (0..8)
        .map(|_| Client::connect(&daemon.endpoint("hand-off")))
        .collect();
    for client in &clients {
        client.send("early");
    }
    eventually("they are offered", || {
        pool(&daemon, "default")["offered"] == 8
    });
    let _other = native(&daemon, &["name=other", "capacity=99"]);
    workers(&daemon, 2);
    doomed.kill();
    for client in &clients {
        assert_eq!(client.receive(5), b"early");
    }
    assert_eq!(pool(&daemon, "default")["redelivered"], 8);
}

#[test]
fn who_dies_while_it_takes_loses_nothing_that_it_has_not_touched() {
    let daemon = broker("", "");
    let mut doomed = native(&daemon, &["mode=hold"]);
    workers(&daemon, 1);
    let client = Client::connect(&daemon.endpoint("hand-off"));
    client.send("early");
    assert_eq!(doomed.line(), "ready");
    assert_eq!(doomed.line(), "holds");
    let _other = native(&daemon, &["name=other"]);
    workers(&daemon, 2);
    doomed.kill();
    assert_eq!(client.receive(5), b"early");
}

#[test]
fn who_does_not_answer_in_time_is_parted_with_and_another_serves() {
    let daemon = broker("offer_timeout = \"300ms\"", "");
    let mut late = native(&daemon, &["name=late", "mode=late"]);
    workers(&daemon, 1);
    let client = Client::connect(&daemon.endpoint("hand-off"));
    client.send("hello");
    assert_eq!(
        (late.line(), late.line()),
        ("ready".into(), "offered".into())
    );
    let _other = native(&daemon, &["name=other"]);
    assert_eq!(client.receive(5), b"hello");
    // It wakes up, cannot say that it takes the connection, and so leaves it alone.
    late.tell("take it");
    eventually("it ends", || late.ended().is_some());
    client.send("still mine");
    assert_eq!(client.receive(10), b"still mine");
    assert_eq!(pool(&daemon, "default")["cut"], 1);
}

#[test]
fn a_worker_hears_of_a_drain_and_finishes_what_it_has() {
    let daemon = broker("", "");
    let _worker = native(&daemon, &["capacity=9"]);
    workers(&daemon, 1);
    let client = Client::connect(&daemon.endpoint("hand-off"));
    assert!(client.is_echoed());
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    // The worker has gone with its broker here, but it need not.
    assert!(client.is_silent_for(Duration::from_millis(1)) || client.end() != End::Reset);
}
