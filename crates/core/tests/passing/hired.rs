//! A daemon as a worker: what a broker gives goes through the listener's own admission.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::time::Instant;

use portyard_core::config::{AtLimit, Span, StreamLimits};
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::broker::{FromWorker, Verdict, Why};

use super::broker::Broker;
use super::server::{Plan, Server};
use super::{PATIENCE, connection};

/// Returns what it is sent.
struct Echo;

impl StreamService for Echo {
    fn serve(&self, mut connection: Connection) -> Serving {
        Box::pin(async move {
            let mut pending = Vec::new();
            loop {
                match connection.read_some(&mut pending, 1024).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return error.into(),
                }
                if let Err(error) = connection.write_all(&pending).await {
                    return error.into();
                }
                pending.clear();
            }
            connection.finish().await;
            Ended::Done
        })
    }
}

fn daemon(broker: &Broker, limits: StreamLimits, access: &'static str) -> Server {
    let plan = Plan {
        limits,
        access,
        ..Plan::new(Echo)
    };
    Server::working(plan, broker)
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn connections_are_served_counted_and_reported() {
    let broker = Broker::start();
    let daemon = daemon(&broker, StreamLimits::default(), "");
    let (session, said) = broker.welcome();
    assert_eq!((said.name.as_str(), said.pool.as_str()), ("test", "test"));
    assert_eq!(said.capacity, 100, "what the daemon may have");
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    echo(&mut client);
    assert_eq!(daemon.listener.metrics.accepted.get(), 1);
    assert_eq!(daemon.listener.gate.present(), 1);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(session.reports(1), [(1, Verdict::Done)]);
}

#[test]
fn what_a_limit_or_the_access_list_keeps_out_goes_back_whole() {
    let broker = Broker::start();
    let limits = StreamLimits {
        connections: NonZeroU32::new(1),
        at_limit: AtLimit::Banner,
        ..StreamLimits::default()
    };
    let _daemon = daemon(&broker, limits, "");
    let (session, said) = broker.welcome();
    assert_eq!(said.capacity, 1);
    let (_one, accepted_one) = connection();
    let (mut two, accepted_two) = connection();
    session.offer(1, &[&accepted_one, &accepted_two]);
    assert_eq!(
        session.reports(2),
        [(1, Verdict::Taken), (2, Verdict::Refused(Why::Full))]
    );
    // Neither banner nor reset has gone out: another worker can still serve it.
    (&accepted_two).write_all(b"x").unwrap();
    let mut answer = [0; 2];
    assert_eq!(two.read(&mut answer).unwrap(), 1);
    assert_eq!(&answer[..1], b"x");

    let broker = Broker::start();
    let denying = "default = \"deny\"";
    let _daemon = daemon(&broker, StreamLimits::default(), denying);
    let (session, _) = broker.welcome();
    session.offer(1, &[&accepted_two]);
    assert_eq!(session.reports(1), [(1, Verdict::Refused(Why::Denied))]);
}

#[test]
fn a_drain_tells_the_broker_and_finishes_what_runs() {
    let broker = Broker::start();
    let daemon = daemon(&broker, StreamLimits::default(), "");
    let (session, _) = broker.welcome();
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    echo(&mut client);
    daemon.drain();
    session.hear(|message| assert_eq!(message, FromWorker::Drain));
    // The peer that is silent now is taken to have ended.
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    assert_eq!(session.reports(1), [(1, Verdict::Done)]);
    session.expect_end();
    assert!(daemon.empties());
}

#[test]
fn a_listener_that_is_lent_is_accepted_from_until_another_link_lends_it_again() {
    let mut broker = Broker::start();
    let _daemon = daemon(&broker, StreamLimits::default(), "");
    let lent = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || {
        let stream = TcpStream::connect(lent.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let (session, _) = broker.welcome();
    session.lend("front", lent.as_fd());
    echo(&mut connect());
    drop(session);
    // Without a broker it goes on accepting.
    echo(&mut connect());
    broker.restart();
    let (session, _) = broker.welcome();
    session.lend("front", lent.as_fd());
    for _ in 0..20 {
        echo(&mut connect());
    }
    // What is no listener is not accepted from, and does no harm.
    let (_client, accepted) = connection();
    session.lend("front", accepted.as_fd());
    echo(&mut connect());
}

#[test]
fn a_broker_that_is_not_there_yet_is_waited_for_and_a_drain_does_not_wait_for_it() {
    let mut broker = Broker::start();
    let path = broker.path().to_path_buf();
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    let daemon = daemon(&broker, StreamLimits::default(), "");
    std::fs::rename(path.with_extension("away"), &path).unwrap();
    let (session, _) = broker.welcome();
    drop(session);
    broker.restart();
    let (session, _) = broker.welcome();
    std::fs::remove_file(&path).unwrap();
    drop(session);
    let began = Instant::now();
    daemon.drain();
    assert!(daemon.empties());
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn a_connection_cut_by_a_deadline_is_reported_too() {
    let broker = Broker::start();
    let limits = StreamLimits {
        idle: Span::millis(100),
        ..StreamLimits::default()
    };
    let _daemon = daemon(&broker, limits, "");
    let (session, _) = broker.welcome();
    let (mut client, accepted) = connection();
    session.offer(1, &[&accepted]);
    assert_eq!(session.reports(1), [(1, Verdict::Taken)]);
    drop(accepted);
    let end = client.read(&mut [0; 1]);
    assert!(matches!(&end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    assert_eq!(session.reports(1), [(1, Verdict::Done)]);
}
