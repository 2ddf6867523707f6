//! A service that takes accepted sockets as they are: no loop knows of them, limits still do.
#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU16, NonZeroU32};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use portyard_core::access::{AccessConfig, AccessList};
use portyard_core::clock::Zone;
use portyard_core::config::{AtLimit, Source, StreamLimits};
use portyard_core::datagram::Own;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::event_loop::{EventLoop, Loops, Order, Parts, Threads};
use portyard_core::limits::Gate;
use portyard_core::listener::{Listener, Settings, Streams};
use portyard_core::observe::metrics::{Metrics, Refusal};
use portyard_core::offload::Offload;
use portyard_core::serve::{
    Accepted, Connection, Ended, Reserve, Room, Serving, StreamService, monotonic,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

/// Gives what it takes to the test.
struct Taker {
    taken: Mutex<mpsc::Sender<Accepted>>,
    full: AtomicBool,
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

struct Server {
    address: SocketAddr,
    listener: Arc<Listener<Streams>>,
    service: Arc<Taker>,
    taken: mpsc::Receiver<Accepted>,
    loops: Loops<Streams>,
    threads: Option<Threads>,
}

impl Server {
    fn start(limits: StreamLimits, refuses: bool) -> Self {
        let (send, taken) = mpsc::channel();
        let service = Arc::new(Taker {
            taken: Mutex::new(send),
            full: AtomicBool::new(false),
            emptied: Arc::new(Notify::new()),
            refuses,
        });
        let (faults, _) = tokio::sync::mpsc::unbounded_channel();
        let parts = Parts {
            zone: Zone::system(),
            offload: Offload::new(NonZeroU16::MIN, 1).unwrap(),
            own: Arc::new(Own::default()),
            reserve: Arc::new(Reserve::new()),
            start: Instant::now(),
            faults,
        };
        let (loops, threads) = Loops::<Streams>::start(1, &parts).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let settings = Settings {
            limits,
            access: AccessList::new(&AccessConfig::default(), &Source::default()).unwrap(),
            service: service.clone() as Arc<dyn StreamService>,
            trust: None,
        };
        let metrics = Metrics::new("test", "0", Transport::Stream).listener("test", "take");
        let endpoint = Endpoint::Tcp(address.into());
        let total = Arc::new(Gate::new(100));
        let listener = Listener::new(("test", "take"), endpoint, false, metrics, total, settings);
        let listener = Arc::new(listener);
        loops.send(0, Order::Serve(listener.clone(), socket.into()));
        Self {
            address,
            listener,
            service,
            taken,
            loops,
            threads: Some(threads),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn take(&self) -> Accepted {
        self.taken.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.close();
        self.loops.send_all(|| Order::Stop);
        if let Some(threads) = self.threads.take() {
            threads.join();
        }
    }
}

/// Whether any epoll instance of this process watches the descriptor.
fn is_watched(descriptor: i32) -> bool {
    let infos = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    let watched = infos.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok());
    watched.into_iter().any(|info| {
        info.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("tfd:") && words.next() == Some(&descriptor.to_string())
        })
    })
}

#[test]
fn a_taken_socket_is_untouched_and_in_no_epoll() {
    let server = Server::start(StreamLimits::default(), false);
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
    let server = Server::start(limits, false);
    let _first = server.connect();
    let Accepted { socket, permit, .. } = server.take();
    // It lives on elsewhere: only the permit says so.
    drop(socket);
    let mut second = server.connect();
    let refused = second.read(&mut [0; 1]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    // The refused one gives its place back behind the reset.
    let deadline = Instant::now() + PATIENCE;
    while server.listener.gate.present() != 1 {
        assert!(Instant::now() < deadline, "a place is lost");
        std::thread::yield_now();
    }
    drop(permit);
    let _third = server.connect();
    server.take();
    assert_eq!(server.listener.gate.present(), 0);
}

#[test]
fn without_room_connections_wait_in_the_backlog() {
    let server = Server::start(StreamLimits::default(), false);
    let _first = server.connect();
    let _first = server.take();
    server.service.full.store(true, Ordering::SeqCst);
    let mut second = server.connect();
    let waits = server.taken.recv_timeout(Duration::from_millis(100));
    assert!(waits.is_err(), "accepted although there was no room");
    assert_eq!(server.listener.metrics.accepted.get(), 1);
    server.service.full.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    let accepted = loop {
        server.service.emptied.notify_waiters();
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
    let server = Server::start(limits, true);
    let mut said = String::new();
    server.connect().read_to_string(&mut said).unwrap();
    assert_eq!(said, "try later\r\n");
    let refusals: u64 = server
        .listener
        .metrics
        .refused
        .iter()
        .map(Counter::get)
        .sum();
    assert_eq!(refusals, 1);
}

const PATIENCE: Duration = Duration::from_secs(10);
