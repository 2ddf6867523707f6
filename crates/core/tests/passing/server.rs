//! A loop that serves one listener, without a daemon around it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portyard_core::access::{AccessConfig, AccessList};
use portyard_core::clock::Zone;
use portyard_core::config::{Source, StreamLimits};
use portyard_core::datagram::Own;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_core::event_loop::{Loops, Order, Parts, Threads};
use portyard_core::limits::Gate;
use portyard_core::listener::{Listener, Settings, Streams};
use portyard_core::observe::metrics::Metrics;
use portyard_core::offload::Offload;
use portyard_core::serve::{Hire, Reserve, StreamService};

use super::PATIENCE;
use super::broker::Broker;

pub struct Server {
    pub listener: Arc<Listener<Streams>>,
    loops: Loops<Streams>,
    threads: Option<Threads>,
}

/// What a server is made of.
pub struct Plan {
    pub limits: StreamLimits,
    /// The `[access]` table.
    pub access: &'static str,
    pub service: Arc<dyn StreamService>,
}

impl Plan {
    pub fn new(service: impl StreamService) -> Self {
        Self {
            limits: StreamLimits::default(),
            access: "",
            service: Arc::new(service),
        }
    }
}

impl Server {
    /// Accepts on a port of its own.
    pub fn listening(plan: Plan) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let endpoint = Endpoint::Tcp(socket.local_addr().unwrap().into());
        let server = Self::new(plan, endpoint);
        let order = Order::Serve(server.listener.clone(), socket.into());
        server.loops.send(0, order);
        server
    }

    /// Works for a broker's pool.
    pub fn working(plan: Plan, broker: &Broker) -> Self {
        let endpoint = format!("broker:{}#test", broker.path().display());
        let endpoint: Endpoint = endpoint.parse().unwrap();
        let Endpoint::Broker { path, name } = endpoint.clone() else {
            panic!("not a broker's endpoint");
        };
        let server = Self::new(plan, endpoint);
        let hire = Hire {
            path,
            pool: name,
            loops: 1,
        };
        server
            .loops
            .send(0, Order::Work(server.listener.clone(), hire));
        server
    }

    fn new(plan: Plan, endpoint: Endpoint) -> Self {
        let (faults, _) = tokio::sync::mpsc::unbounded_channel();
        let parts = Parts {
            zone: Zone::system(),
            offload: Offload::new(NonZeroU16::MIN, 1).unwrap(),
            own: Arc::new(Own::default()),
            reserve: Arc::new(Reserve::new()),
            start: Instant::now(),
            faults,
        };
        let (loops, threads) = Loops::start(1, &parts).unwrap();
        let access: AccessConfig = toml::from_str(plan.access).unwrap();
        let settings = Settings {
            limits: plan.limits,
            access: AccessList::new(&access, &Source::default()).unwrap(),
            service: plan.service,
            trust: None,
            prover: None,
        };
        let metrics = Metrics::new("test", "0", Transport::Stream).listener("test", "test");
        let total = Arc::new(Gate::new(100));
        let name = ("test", "test");
        let listener = Listener::new(name, endpoint, false, metrics, total, settings);
        Self {
            listener: Arc::new(listener),
            loops,
            threads: Some(threads),
        }
    }

    pub fn address(&self) -> SocketAddr {
        let endpoint = self.listener.endpoint.to_string();
        endpoint.trim_start_matches("tcp://").parse().unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    pub fn drain(&self) {
        self.listener.close();
        self.loops
            .send_all(|| Order::Drain(Duration::from_millis(50)));
    }

    /// Whether socket and connections are gone soon.
    pub fn empties(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.loops.empty())
                .await
                .is_ok()
        })
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
