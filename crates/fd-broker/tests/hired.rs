//! Daemons of ours as workers: echo-tcp behind a broker keeps its limits, its counts and its drain.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod common;

use portyard_core::auth::{Dialect, MinDigest, Prover};
use portyard_core::wire::auth::{Key, Secret};
use portyard_core::worker::{JoinError, Terms, Work, Worker};
use portyard_testkit::{Client, Daemon, End, eventually, pythons};
use tokio::io::AsyncWriteExt;

use common::{BINARY, beside, broker};

/// An echo-tcp that works for the broker's pool; `more` goes into its listener.
fn echo(broker: &Daemon, more: &str) -> Daemon {
    let place = broker.dir().join("native.sock");
    Daemon::build(beside("echo-tcp"))
        .config(&format!(
            "grace = \"5s\"\nloops = 1\n[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
             [[listener]]\nservice = \"echo\"\nlisten = [\"broker:{}#default\"]\n{more}\n",
            place.display()
        ))
        .start()
}

fn connect(broker: &Daemon) -> Client {
    Client::try_connect(broker.address("hand-off")).unwrap()
}

fn workers(broker: &Daemon) -> usize {
    broker
        .count("portyard_connections{listener=\"native\",service=\"native\"}")
        .try_into()
        .unwrap()
}

fn present(echo: &Daemon) -> u64 {
    echo.count("portyard_connections{listener=\"echo\",service=\"echo\"}")
}

#[test]
fn connections_go_through_the_daemons_own_counts() {
    let broker = broker("", "");
    let echo = echo(&broker, "");
    let clients: Vec<_> = (0..10).map(|_| connect(&broker)).collect();
    for client in &clients {
        assert!(client.is_echoed());
    }
    assert_eq!(present(&echo), 10);
    // The broker counts them as long as they live, by what the daemon reports.
    let line = "portyard_connections{listener=\"hand-off\",service=\"hand-off\"}";
    assert_eq!(broker.count(line), 10);
    for client in &clients {
        client.send_end();
        assert_eq!(client.end(), End::Fin);
    }
    eventually("all over at the broker", || broker.count(line) == 0);
    assert_eq!(present(&echo), 0);
    let log = echo.log();
    assert!(log.contains("broker:"), "{log}");
}

#[test]
fn what_one_daemon_refuses_another_one_serves() {
    let broker = broker("balance = \"round-robin\"", "");
    let picky = echo(&broker, "[listener.access]\ndefault = \"deny\"");
    let open = echo(&broker, "");
    eventually("two workers", || workers(&broker) == 2);
    for _ in 0..10 {
        assert!(connect(&broker).is_echoed());
    }
    let denied =
        "portyard_connections_refused_total{listener=\"echo\",service=\"echo\",reason=\"access\"}";
    assert!(picky.count(denied) > 0);
    assert_eq!(present(&picky), 0);
    drop(open);
}

#[test]
fn a_daemon_that_drains_finishes_and_its_successor_goes_on_without_one_lost_connection() {
    let broker = broker("", "");
    let mut current = echo(&broker, "");
    for _ in 0..5 {
        let old = connect(&broker);
        assert!(old.is_echoed());
        let next = echo(&broker, "");
        eventually("two workers", || workers(&broker) == 2);
        current.signal(nix::sys::signal::Signal::SIGTERM);
        // The peer that is silent is taken to have ended; new ones are served by the successor.
        for _ in 0..20 {
            assert!(connect(&broker).is_echoed());
        }
        assert_eq!(old.end(), End::Fin);
        assert_eq!(current.wait().code, Some(0));
        current = next;
    }
}

#[test]
fn connections_wait_in_the_broker_while_the_only_daemon_restarts() {
    let broker = broker("", "");
    let mut daemon = echo(&broker, "");
    assert!(connect(&broker).is_echoed());
    for _ in 0..3 {
        assert_eq!(daemon.terminate().code, Some(0));
        let waiting: Vec<_> = (0..5).map(|_| connect(&broker)).collect();
        daemon = echo(&broker, "");
        for client in &waiting {
            assert!(client.is_echoed());
        }
    }
}

#[test]
fn the_daemon_finds_a_broker_again_that_was_killed() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("native.sock");
    let config = format!(
        "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[listener]]\nservice = \"hand-off\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[listener]]\nservice = \"native\"\nlisten = [\"unix:{}\"]\n",
        socket.display()
    );
    let start = || Daemon::build(BINARY).config(&config).start();
    let first = start();
    let echo = Daemon::build(beside("echo-tcp"))
        .listen(format!("broker:{}#default=echo", socket.display()))
        .start();
    let old = connect(&first);
    assert!(old.is_echoed());
    first.kill();
    // What the daemon has is its own, with or without a broker.
    assert!(old.is_echoed());
    let second = start();
    assert!(connect(&second).is_echoed());
    assert!(old.is_echoed());
    echo.wait_for_log("no connections from the broker");
}

#[test]
fn a_pool_of_another_name_is_said() {
    let broker = broker("", "");
    let place = broker.dir().join("native.sock");
    let endpoint = format!("broker:{}#web=echo", place.display());
    let run = Daemon::build(beside("echo-tcp")).listen(endpoint).run();
    assert_ne!(run.code, Some(0));
    assert!(
        run.stderr.contains("for workers of the pool default"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_worker_proves_its_key_message_by_message() {
    for dialect in [Dialect::Mutual, Dialect::Python, Dialect::Recipe] {
        let builder = common::builder();
        let socket = builder.dir().join("keyed.sock");
        let keyed = format!(
            "[[listener]]\nservice = \"native\"\nname = \"keyed\"\nlisten = [\"unix:{}\"]\n\
             auth = \"{}\"\nauth_keys = \"{}/keys\"\n",
            socket.display(),
            dialect.name(),
            builder.dir().display(),
        );
        let broker = common::start(builder, "", &keyed);
        let terms = |secret: &str| {
            let key = Key::new("tutorial", Secret::new(secret.into()).unwrap());
            let prover = Prover::new(dialect, &[key], None, MinDigest::default());
            Terms {
                prover: Some(prover.unwrap()),
                ..Terms::new(&socket)
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let wrong = Worker::join(terms("another")).await.err().unwrap();
            assert!(
                matches!(wrong, JoinError::Key(_) | JoinError::Closed),
                "{wrong:?}"
            );
            let without = Worker::join(Terms::new(&socket)).await;
            assert!(without.is_err());
            let mut worker = Worker::join(terms("peekaboo")).await.unwrap();
            let client = connect(&broker);
            let Some(Work::Connection(offered)) = worker.next().await else {
                panic!("no connection");
            };
            let mut taken = offered.take().unwrap();
            taken.write_all(b"x").await.unwrap();
            drop(taken);
            worker.drain();
            assert!(worker.next().await.is_none());
            assert_eq!(client.receive_all(), (b"x".to_vec(), End::Fin));
        });
    }
}

#[test]
fn the_python_worker_of_the_protocol_page_works() {
    let page = include_str!("../../../docs/protocols/fd-broker.md");
    let (_, block) = page.split_once("```python\n").unwrap();
    let (script, _) = block.split_once("```").unwrap();
    let broker = broker("", "");
    let socket = broker.dir().join("native.sock");
    let place = "/run/fd-broker/native.sock";
    assert!(script.contains(place), "{script}");
    let script = script.replace(place, &socket.display().to_string());
    let pythons = pythons();
    for python in pythons.iter().filter(|python| python.version >= (3, 9)) {
        let _worker = common::Worker::python(&python.path, &script, &[]);
        for _ in 0..3 {
            let client = connect(&broker);
            assert!(client.is_echoed(), "{:?}", python.version);
            client.send_end();
            assert_eq!(client.end(), End::Fin);
        }
    }
}
