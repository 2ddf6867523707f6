//! A service that takes accepted sockets as they are: no loop knows of them, limits still do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use portyard_core::config::{AtLimit, StreamLimits};
use portyard_core::event_loop::EventLoop;
use portyard_core::observe::metrics::Refusal;
use portyard_core::serve::{Accepted, Connection, Ended, Room, Serving, StreamService, monotonic};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

use super::server::{Plan, Server};
use super::{PATIENCE, is_watched};

/// Gives what it takes to the test.
struct Taker {
    taken: Mutex<mpsc::Sender<Accepted>>,
    full: Arc<AtomicBool>,
    emptied: Arc<Notify>,
    refuses: bool,
}

impl StreamService for Taker {
    fn serve(&self, _: Connection) -> Serving {
        Box::pin(std::future::ready(Ended::Broken))
    }

    fn takes_sockets(&self) -> bool {
        true
    }

    fn take(&self, home: &Rc<EventLoop>, accepted: Accepted) {
        if self.refuses {
            return accepted.turn_away(home, Refusal::Connections, AtLimit::Banner);
        }
        self.taken.lock().unwrap().send(accepted).unwrap();
    }

    fn room(&self) -> Option<Room> {
        let emptied = self.emptied.clone();
        let full = self.full.load(Ordering::SeqCst);
        full.then(|| Box::pin(async move { emptied.notified().await }) as Room)
    }
}

struct Taking {
    server: Server,
    taken: mpsc::Receiver<Accepted>,
    full: Arc<AtomicBool>,
    emptied: Arc<Notify>,
}

impl Taking {
    fn start(limits: StreamLimits, refuses: bool) -> Self {
        let (send, taken) = mpsc::channel();
        let (full, emptied) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default());
        let service = Taker {
            taken: Mutex::new(send),
            full: full.clone(),
            emptied: emptied.clone(),
            refuses,
        };
        let plan = Plan {
            limits,
            ..Plan::new(service)
        };
        Self {
            server: Server::listening(plan),
            taken,
            full,
            emptied,
        }
    }

    fn connect(&self) -> TcpStream {
        self.server.connect()
    }

    fn take(&self) -> Accepted {
        self.taken.recv_timeout(PATIENCE).unwrap()
    }
}

#[test]
fn a_taken_socket_is_untouched_and_in_no_epoll() {
    let server = Taking::start(StreamLimits::default(), false);
    let before = monotonic();
    let mut client = server.connect();
    client.write_all(b"first").unwrap();
    let accepted = server.take();
    assert!(!is_watched(accepted.socket.as_raw_fd()));
    assert!((before..=monotonic()).contains(&accepted.arrival));
    assert_eq!(
        accepted.peer.to_string(),
        client.local_addr().unwrap().to_string()
    );
    let socket = TcpStream::from(accepted.socket);
    // Registered for comparison: the look at /proc sees it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut socket = runtime.block_on(async {
        let stream = tokio::net::TcpStream::from_std(socket).unwrap();
        assert!(is_watched(stream.as_raw_fd()));
        stream.into_std().unwrap()
    });
    socket.set_nonblocking(false).unwrap();
    let mut first = [0; 5];
    socket.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
}

#[test]
fn limits_count_a_taken_connection_until_its_permit_is_gone() {
    let limits = StreamLimits {
        per_source: NonZeroU32::new(1),
        at_limit: AtLimit::Refuse,
        ..StreamLimits::default()
    };
    let server = Taking::start(limits, false);
    let _first = server.connect();
    let Accepted { socket, permit, .. } = server.take();
    // It lives on elsewhere: only the permit says so.
    drop(socket);
    let mut second = server.connect();
    let refused = second.read(&mut [0; 1]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    // The refused one gives its place back behind the reset.
    let deadline = Instant::now() + PATIENCE;
    while server.server.listener.gate.present() != 1 {
        assert!(Instant::now() < deadline, "a place is lost");
        std::thread::yield_now();
    }
    drop(permit);
    let _third = server.connect();
    server.take();
    assert_eq!(server.server.listener.gate.present(), 0);
}

#[test]
fn without_room_connections_wait_in_the_backlog() {
    let server = Taking::start(StreamLimits::default(), false);
    let _first = server.connect();
    let _first = server.take();
    server.full.store(true, Ordering::SeqCst);
    let mut second = server.connect();
    let waits = server.taken.recv_timeout(Duration::from_millis(100));
    assert!(waits.is_err(), "accepted although there was no room");
    assert_eq!(server.server.listener.metrics.accepted.get(), 1);
    server.full.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    let accepted = loop {
        server.emptied.notify_waiters();
        match server.taken.recv_timeout(Duration::from_millis(5)) {
            Ok(accepted) => break accepted,
            Err(_) => assert!(Instant::now() < deadline, "never accepted"),
        }
    };
    let mut socket = TcpStream::from(accepted.socket);
    socket.write_all(b"x").unwrap();
    second.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn what_the_service_turns_away_hears_the_banner() {
    let limits = StreamLimits {
        banner: "try later\r\n".into(),
        ..StreamLimits::default()
    };
    let server = Taking::start(limits, true);
    let mut said = String::new();
    server.connect().read_to_string(&mut said).unwrap();
    assert_eq!(said, "try later\r\n");
    let refusals: u64 = server
        .server
        .listener
        .metrics
        .refused
        .iter()
        .map(Counter::get)
        .sum();
    assert_eq!(refusals, 1);
}
