//! The worker library against a broker that does what the test says.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};

use portyard_core::worker::{JoinError, Terms, Work, Worker};
use portyard_wire::broker::{FromWorker, ToWorker, Verdict, Why};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use super::broker::Broker;
use super::connection;

/// A worker on a thread of its own, which returns what it is sent, and drains when told to.
fn echo_worker(terms: Terms) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (drain, drained) = oneshot::channel();
    let work = async move {
        let mut worker = Worker::join(terms).await.unwrap();
        tokio::pin!(drained);
        let mut leaving = false;
        loop {
            let work = tokio::select! {
                _ = &mut drained, if !leaving => {
                    leaving = true;
                    worker.drain();
                    continue;
                }
                work = worker.next() => work,
            };
            let Some(Work::Connection(offered)) = work else {
                return;
            };
            tokio::spawn(async move {
                let mut taken = offered.take().unwrap();
                let mut buffer = [0; 64];
                loop {
                    match taken.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(length) => taken.write_all(&buffer[..length]).await.unwrap(),
                    }
                }
            });
        }
    };
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    });
    (drain, thread)
}

fn terms(broker: &Broker) -> Terms {
    Terms {
        name: "w1".into(),
        pool: "test".into(),
        capacity: 10,
        ..Terms::new(broker.path())
    }
}

fn echo(client: &mut std::net::TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn connections_are_taken_served_and_reported() {
    let broker = Broker::start();
    let (drain, thread) = echo_worker(terms(&broker));
    let (session, said) = broker.welcome();
    assert_eq!(
        (said.name.as_str(), said.pool.as_str(), said.capacity),
        ("w1", "test", 10)
    );
    let (mut one, accepted_one) = connection();
    let (mut two, accepted_two) = connection();
    session.offer(7, &[&accepted_one, &accepted_two]);
    assert_eq!(
        session.reports(2),
        [(7, Verdict::Taken), (8, Verdict::Taken)]
    );
    drop((accepted_one, accepted_two));
    echo(&mut one);
    echo(&mut two);
    drop(one);
    assert_eq!(session.reports(1), [(7, Verdict::Done)]);
    drop(drain);
    session.hear(|message| assert_eq!(message, FromWorker::Drain));
    // What runs goes on, what comes goes back.
    echo(&mut two);
    let (_three, accepted_three) = connection();
    session.offer(9, &[&accepted_three]);
    assert_eq!(session.reports(1), [(9, Verdict::Refused(Why::Draining))]);
    drop(two);
    assert_eq!(session.reports(1), [(8, Verdict::Done)]);
    session.expect_end();
    thread.join().unwrap();
}

#[test]
fn the_peer_sees_the_end_once_the_broker_has_dropped_its_copy() {
    let broker = Broker::start();
    let (_drain, _thread) = echo_worker(terms(&broker));
    let (session, _) = broker.welcome();
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(session.reports(1), [(1, Verdict::Done)]);
}

#[test]
fn a_broker_that_was_restarted_is_found_again_and_told_of_the_room_that_is_left() {
    let mut broker = Broker::start();
    let (_drain, _thread) = echo_worker(terms(&broker));
    let (session, _) = broker.welcome();
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    drop(session);
    broker.restart();
    let (session, said) = broker.welcome();
    assert_eq!(said.capacity, 9);
    // The connection of before lives on.
    echo(&mut client);
    drop(client);
    session.hear(|message| assert_eq!(message, FromWorker::Capacity(10)));
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    echo(&mut client);
}

#[test]
fn what_nobody_takes_goes_back() {
    let broker = Broker::start();
    let terms = terms(&broker);
    let (tell, mut told) = mpsc::unbounded_channel();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut worker = Worker::join(terms).await.unwrap();
            let Some(Work::Connection(offered)) = worker.next().await else {
                panic!("no connection");
            };
            tell.send(offered.details.listener.clone()).unwrap();
            drop(offered);
            let Some(Work::Connection(offered)) = worker.next().await else {
                panic!("no connection");
            };
            offered.refuse(Why::Full);
            worker.drain();
            assert!(worker.next().await.is_none());
        });
    });
    let (session, _) = broker.welcome();
    let (_client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Refused(Why::Other))]);
    assert_eq!(told.blocking_recv().unwrap(), "front");
    session.offer(2, &[&accepted]);
    assert_eq!(session.reports(1), [(2, Verdict::Refused(Why::Full))]);
    thread.join().unwrap();
}

#[test]
fn a_listener_that_is_lent_accepts() {
    let broker = Broker::start();
    let terms = terms(&broker);
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut worker = Worker::join(terms).await.unwrap();
            let Some(Work::Listener { name, socket }) = worker.next().await else {
                panic!("no listener");
            };
            assert_eq!(name, "front");
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(false).unwrap();
            listener.accept().unwrap().0.write_all(b"x").unwrap();
        });
    });
    let (session, _) = broker.welcome();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    session.lend("front", listener.as_fd());
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    thread.join().unwrap();
}

#[test]
fn why_there_is_no_broker_is_said() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let join = |terms| runtime.block_on(Worker::join(terms)).err().unwrap();
    let absent = join(Terms::new("/nonexistent/native.sock"));
    assert!(matches!(absent, JoinError::Absent { .. }));
    assert!(absent.to_string().contains("start fd-broker"), "{absent}");

    let broker = Broker::start();
    let terms = terms(&broker);
    let rejecting = thread::spawn(move || {
        let session = broker.accept();
        session.hear(|message| assert!(matches!(message, FromWorker::Hello(_))));
        session.say(&ToWorker::Rejected("there is no pool test"));
        drop(session);
        drop(broker.accept());
    });
    let rejected = join(terms.clone());
    assert!(
        rejected.to_string().contains("there is no pool test"),
        "{rejected}"
    );
    assert!(matches!(
        join(terms),
        JoinError::Closed | JoinError::Io(_) | JoinError::Lost(_)
    ));
    rejecting.join().unwrap();
}

#[test]
fn the_example_is_a_worker() {
    // Cargo builds the examples of a package with its tests, unless it is told which.
    let test = std::env::current_exe().unwrap();
    let example = test.ancestors().nth(2).unwrap().join("examples/worker");
    let broker = Broker::start();
    let _example = Killed(Command::new(example).arg(broker.path()).spawn().unwrap());
    let (session, _) = broker.welcome();
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    let mut greeting = [0; 7];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello\r\n");
    echo(&mut client);
    drop(client);
    assert_eq!(session.reports(1), [(1, Verdict::Done)]);
}

/// A child that is killed with its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
