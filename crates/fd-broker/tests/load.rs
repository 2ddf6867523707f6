//! Restarts and deaths of workers while clients come without a pause: none of them may fail.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{Worker, broker, native, pool, python3, tutorial, workers};
use nix::sys::signal::Signal;
use portyard_testkit::eventually;

/// Clients that connect, have five bytes echoed, and come again.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let client = |_| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match exchange(address) {
                        Ok(()) => {
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        };
        let clients = (0..clients).map(client).collect();
        Self {
            stop,
            served,
            clients,
        }
    }

    /// Waits until so many more have been served.
    fn pass(&self, more: u64) {
        let wanted = self.served.load(Ordering::Relaxed) + more;
        eventually("clients are served", || {
            self.served.load(Ordering::Relaxed) >= wanted
        });
    }

    /// Ends it: how many were served, and what failed.
    fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self
            .clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let failures = failures.collect();
        (self.served.load(Ordering::Relaxed), failures)
    }
}

fn exchange(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)
}

/// A worker that takes connections with `SO_REUSEPORT` by itself, as the control of the test below.
const REUSEPORT: &str = r"
import socket, sys
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(('127.0.0.1', int(sys.argv[1])))
listener.listen(100)
print('ready', flush=True)
while True:
    client, _ = listener.accept()
    with client:
        client.sendall(client.recv(100))
";

#[test]
fn sixty_restarts_of_workers_fail_no_client() {
    let daemon = broker("queue = 4096", "");
    let mut crew = [0; 2].map(|_| native(&daemon, &["capacity=8"]));
    workers(&daemon, 2);
    let load = Load::start(daemon.address("hand-off"), 6);
    for restart in 0..60 {
        let old = &mut crew[restart % 2];
        load.pass(10);
        // Finish what is there, take nothing new, go: as a worker that is asked to end does.
        drain(&daemon, old);
        *old = native(&daemon, &["capacity=8"]);
        assert_eq!(old.line(), "ready");
    }
    let (served, failures) = load.end();
    assert!(
        served >= 600 && failures.is_empty(),
        "{served} served, {failures:?}"
    );
    assert_eq!(pool(&daemon, "default")["lost"], 0);
}

/// Ends a worker in order.
fn drain(daemon: &portyard_testkit::Daemon, worker: &mut Worker) {
    worker.tell("drain");
    eventually("it has finished", || worker.ended().is_some());
    let _ = daemon;
}

#[test]
fn the_same_restarts_with_reuseport_fail_some() {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let port = address.port().to_string();
    let start = || {
        let worker = Worker::python(&python3(), REUSEPORT, &[&port]);
        assert_eq!(worker.line(), "ready");
        worker
    };
    let mut crew = [start(), start()];
    let load = Load::start(address, 6);
    let mut restarts = 0;
    // What is in a listener's backlog when it closes is lost, which takes some luck to see.
    while restarts < 60 {
        load.pass(10);
        crew[restarts % 2].kill();
        crew[restarts % 2] = start();
        restarts += 1;
    }
    let (_, failures) = load.end();
    assert!(
        !failures.is_empty(),
        "SO_REUSEPORT lost nothing: is the control too kind?"
    );
}

#[test]
fn workers_that_are_killed_take_no_more_than_they_had() {
    let daemon = broker("queue = 4096", "");
    let mut crew: Vec<Worker> = (0..2).map(|_| native(&daemon, &["capacity=4"])).collect();
    crew.push(tutorial(&python3(), &daemon));
    workers(&daemon, 3);
    let load = Load::start(daemon.address("hand-off"), 8);
    for round in 0..12 {
        load.pass(20);
        let at = round % 2;
        // Stopped, it cannot touch what it is offered from here on; what it has, it has.
        crew[at].signal(Signal::SIGSTOP);
        load.pass(20);
        crew[at].kill();
        crew[at] = native(&daemon, &["capacity=4"]);
        assert_eq!(crew[at].line(), "ready");
    }
    let (served, failures) = load.end();
    // Those that were in the midst of an exchange with a worker that died: it had them.
    let had = 12 * 4;
    assert!(
        served >= 480 && failures.len() <= had,
        "{served} served, {failures:?}"
    );
    let pool = pool(&daemon, "default");
    assert!(pool["redelivered"].as_u64() > Some(0), "{pool}");
}

#[test]
fn a_worker_killed_before_it_takes_or_with_nothing_fails_no_client() {
    let daemon = broker("queue = 4096", "");
    let _steady = [0; 2].map(|_| native(&daemon, &["capacity=8"]));
    workers(&daemon, 2);
    let load = Load::start(daemon.address("hand-off"), 4);
    for round in 0..10 {
        // It is offered some and takes none: it is stopped as soon as it is there.
        let mut doomed = native(&daemon, &["mode=hold", "name=doomed"]);
        assert_eq!(doomed.line(), "ready");
        if round % 2 == 0 {
            // It has taken descriptors and said nothing of them.
            assert_eq!(doomed.line(), "holds");
        }
        load.pass(5);
        doomed.kill();
        load.pass(5);
    }
    let (served, failures) = load.end();
    assert!(
        served > 100 && failures.is_empty(),
        "{served} served, {failures:?}"
    );
}
