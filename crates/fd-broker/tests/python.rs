//! Workers as Python's tutorials write them, unmodified, on every Python that is here.

mod common;

use common::{broker, pool, pythons3, tutorial, tutorial_raw, workers};
use portyard_testkit::{Client, eventually};

#[test]
fn the_tutorials_worker_serves_on_every_python() {
    for python in pythons3() {
        let daemon = broker("", "");
        let _worker = tutorial(&python.path, &daemon);
        for _ in 0..3 {
            let client = Client::connect(&daemon.endpoint("hand-off"));
            assert!(client.is_echoed(), "{python:?}\n{}", daemon.log());
        }
        eventually("the kernel tells of each end", || {
            pool(&daemon, "default")["done"] == 3
        });
    }
}

#[test]
fn the_tutorials_worker_for_sockets_serves_on_every_python() {
    for python in pythons3() {
        let daemon = broker("", "");
        let _worker = tutorial_raw(&python.path, &daemon);
        for _ in 0..3 {
            let client = Client::connect(&daemon.endpoint("hand-off"));
            assert!(client.is_echoed(), "{python:?}\n{}", daemon.log());
        }
    }
}

#[test]
fn a_worker_that_serves_one_at_a_time_is_never_given_a_second() {
    // One loop accepts in the order in which clients come.
    let daemon = broker("", "loops = 1\n");
    let python = common::python3();
    let _workers = [tutorial(&python, &daemon), tutorial_raw(&python, &daemon)];
    workers(&daemon, 2);
    let clients: Vec<Client> = (0..3)
        .map(|_| Client::connect(&daemon.endpoint("hand-off")))
        .collect();
    assert!(clients[0].is_echoed() && clients[1].is_echoed());
    eventually("the third waits", || {
        pool(&daemon, "default")["waiting"] == 1
    });
    drop(clients.into_iter().next());
    eventually("until one is free", || {
        pool(&daemon, "default")["waiting"] == 0
    });
}
