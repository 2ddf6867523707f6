//! One thread, one current-thread runtime, one share of every listener.
//!
//! Loops share nothing that is touched per message: each has its own clock, connections, read
//! buffer and reserve. The control thread sends them [`Order`]s.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::Socket;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::{Clock, Zone};
use crate::datagram::{self, Own};
use crate::exit::{Exit, Fatal};
use crate::listener::{Datagrams, Flavour, Listener, Streams};
use crate::observe::Throttle;
use crate::offload::Offload;
use crate::serve::{self, Acceptor, Bequest, Hire, Peer, Registry, Reserve};

/// What the tasks of one loop share.
pub struct EventLoop {
    /// The time of day.
    pub clock: Clock,
    /// The pool for work that would stall the loop.
    pub offload: Offload,
    pub(crate) registry: Registry,
    pub(crate) reserve: Arc<Reserve>,
    pub(crate) refusals: Throttle,
    pub(crate) own: Arc<Own>,
    start: Instant,
    buffer: RefCell<Buffer>,
    spilled: Cell<usize>,
    faults: mpsc::UnboundedSender<Fatal>,
}

/// What the control thread asks of a loop.
pub enum Order<F: Flavour> {
    /// Serve a listening or datagram socket.
    Serve(Arc<Listener<F>>, Socket),
    /// Serve one connection that we were started with.
    Connected(Arc<Listener<F>>, Socket, Option<Peer>),
    /// Go on with a connection that a predecessor had served.
    GoOn(Arc<Listener<F>>, Bequest),
    /// Work for a broker's pool.
    Work(Arc<Listener<F>>, Hire),
    /// Show that the loop runs and its sockets still accept.
    Probe(oneshot::Sender<bool>),
    /// Ask every connection to finish once its peer has been silent this long.
    Drain(Duration),
    /// Cut every connection.
    Cut,
    /// Say when no socket and no connection is left.
    Empty(oneshot::Sender<()>),
    /// End the loop.
    Stop,
}

/// The way to the loops of a daemon.
pub struct Loops<F: Flavour> {
    orders: Vec<mpsc::UnboundedSender<Order<F>>>,
}

/// The threads of the loops. They end with [`Order::Stop`].
pub struct Threads(Vec<JoinHandle<()>>);

/// The parts that every loop is given.
#[derive(Clone)]
pub struct Parts {
    /// When the loops start, as all of them count it.
    pub start: Instant,
    /// The local time zone.
    pub zone: Zone,
    /// The pool.
    pub offload: Offload,
    /// The machine's own addresses.
    pub own: Arc<Own>,
    /// The descriptor kept back.
    pub reserve: Arc<Reserve>,
    /// Where a loop reports what the daemon cannot go on with.
    pub faults: mpsc::UnboundedSender<Fatal>,
}

/// How a loop runs the sockets of its flavour.
pub trait Run: Flavour {
    /// What is kept of the sockets being served, for probes.
    type Sockets: Default + 'static;

    /// Starts to serve `socket`; the task ends when the listener is stopped.
    fn serve(
        home: &Rc<EventLoop>,
        sockets: &mut Self::Sockets,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        socket: Socket,
    ) -> io::Result<()>
    where
        Self: Sized;

    /// Serves one connection that we were started with.
    fn connected(
        home: &Rc<EventLoop>,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        socket: Socket,
        peer: Option<Peer>,
    ) where
        Self: Sized;

    /// Goes on with a connection that a predecessor had served.
    fn go_on(
        home: &Rc<EventLoop>,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        bequest: Bequest,
    ) where
        Self: Sized;

    /// Serves the connections that a broker's pool gives; the task ends when the listener is stopped
    /// and the last of them is over.
    fn work(
        home: &Rc<EventLoop>,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        hire: Hire,
    ) where
        Self: Sized;

    /// Whether every socket still works.
    fn probe(home: &Rc<EventLoop>, sockets: &Self::Sockets) -> bool;
}

impl<F: Run> Loops<F> {
    /// Starts `count` loops.
    pub fn start(count: usize, parts: &Parts) -> io::Result<(Self, Threads)> {
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count {
            let (send, receive) = mpsc::unbounded_channel();
            let parts = parts.clone();
            let thread = thread::Builder::new()
                .name(format!("loop-{number}"))
                .spawn(move || {
                    let faults = parts.faults.clone();
                    if let Err(error) = run::<F>(parts, receive) {
                        let message = format!("event loop {number} cannot start: {error}");
                        let _ = faults.send(Fatal::new(Exit::OsError, message));
                    }
                })?;
            orders.push(send);
            threads.push(thread);
        }
        Ok((Self { orders }, Threads(threads)))
    }

    /// How many loops there are.
    pub fn count(&self) -> usize {
        self.orders.len()
    }

    /// Sends an order to one loop; numbers wrap around.
    pub fn send(&self, number: usize, order: Order<F>) {
        // A loop that is gone has reported why through `faults`.
        let _ = self.orders[number % self.orders.len()].send(order);
    }

    /// Sends an order to every loop.
    pub fn send_all(&self, order: impl Fn() -> Order<F>) {
        for number in 0..self.count() {
            self.send(number, order());
        }
    }

    /// Whether every loop answers that its sockets still accept.
    pub async fn probe(&self) -> bool {
        self.ask_all(Order::Probe)
            .await
            .into_iter()
            .all(|answer| answer == Some(true))
    }

    /// Returns when no loop has a socket or a connection left.
    pub async fn empty(&self) {
        self.ask_all(Order::Empty).await;
    }

    async fn ask_all<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order<F>) -> Vec<Option<T>> {
        let mut pending = Vec::new();
        for number in 0..self.count() {
            let (send, receive) = oneshot::channel();
            self.send(number, order(send));
            pending.push(receive);
        }
        let mut answers = Vec::new();
        for receive in pending {
            answers.push(receive.await.ok());
        }
        answers
    }
}

impl<F: Flavour> Clone for Loops<F> {
    fn clone(&self) -> Self {
        Self {
            orders: self.orders.clone(),
        }
    }
}

impl Threads {
    /// Waits for the threads, which must have been ordered to stop.
    pub fn join(self) {
        for thread in self.0 {
            // A panic in a loop has been reported where it happened.
            let _ = thread.join();
        }
    }
}

fn run<F: Run>(parts: Parts, orders: mpsc::UnboundedReceiver<Order<F>>) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        // A turn of the loop takes up to 512 events and runs what they woke before it asks the
        // kernel again: fewer calls under load, and no connection waits behind another's second
        // message.
        .max_io_events_per_tick(EVENTS_PER_TURN)
        .event_interval(TASKS_PER_TURN)
        .build_local(LocalOptions::default())?;
    runtime.block_on(obey::<F>(Rc::new(EventLoop::new(parts)), orders));
    Ok(())
}

async fn obey<F: Run>(home: Rc<EventLoop>, mut orders: mpsc::UnboundedReceiver<Order<F>>) {
    let sweep = home.clone();
    let sweep = tokio::task::spawn_local(async move { sweep.registry.sweep().await });
    let mut tasks = JoinSet::new();
    let mut sockets = F::Sockets::default();
    while let Some(order) = orders.recv().await {
        while tasks.try_join_next().is_some() {}
        match order {
            Order::Serve(listener, socket) => {
                let name = listener.name.clone();
                if let Err(error) = F::serve(&home, &mut sockets, &mut tasks, listener, socket) {
                    home.fail(Fatal::new(
                        Exit::OsError,
                        format!("listener {name} cannot be registered with its loop: {error}"),
                    ));
                }
            }
            Order::Connected(listener, socket, peer) => {
                F::connected(&home, &mut tasks, listener, socket, peer);
            }
            Order::GoOn(listener, bequest) => F::go_on(&home, &mut tasks, listener, bequest),
            Order::Work(listener, hire) => F::work(&home, &mut tasks, listener, hire),
            Order::Probe(answer) => {
                let _ = answer.send(F::probe(&home, &sockets));
            }
            Order::Stop => break,
            Order::Drain(quiet) => home.registry.drain(quiet),
            Order::Cut => home.registry.cut_all(),
            Order::Empty(answer) => {
                let mut rest = std::mem::take(&mut tasks);
                let home = home.clone();
                tokio::task::spawn_local(async move {
                    while rest.join_next().await.is_some() {}
                    home.registry.empty().await;
                    let _ = answer.send(());
                });
            }
        }
    }
    sweep.abort();
}

impl EventLoop {
    fn new(parts: Parts) -> Self {
        Self {
            clock: Clock::new(parts.zone),
            offload: parts.offload,
            own: parts.own,
            registry: Registry::new(),
            reserve: parts.reserve,
            refusals: Throttle::new(),
            start: parts.start,
            buffer: RefCell::new(Buffer::new()),
            spilled: Cell::new(0),
            faults: parts.faults,
        }
    }

    /// Lends the loop's one read buffer, which is why an idle connection needs none of its own.
    ///
    /// Must not be called again from within `use_it`.
    pub fn with_buffer<T>(&self, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut buffer = self.buffer.borrow_mut();
        use_it(buffer.bytes())
    }

    /// How much to read for a peer whose own answers may have to be kept: the whole buffer, unless
    /// slow peers of this loop hold a lot already.
    pub fn read_size(&self) -> usize {
        if self.spilled.get() < SPILL_HIGH {
            BUFFER
        } else {
            READ_SMALL
        }
    }

    /// Bytes kept for slow peers, changed by who keeps them.
    pub fn spilled(&self) -> &Cell<usize> {
        &self.spilled
    }

    /// Milliseconds since the loops started.
    pub fn milliseconds(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends the daemon for a reason that no retry mends.
    pub fn fail(&self, fatal: Fatal) {
        // Without a control thread the process is ending already.
        let _ = self.faults.send(fatal);
    }
}

/// The read buffer, on a page boundary: the kernel's copies into it are a third faster there.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; BUFFER + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + BUFFER]
    }
}

impl Run for Streams {
    type Sockets = Vec<Weak<Acceptor>>;

    fn serve(
        home: &Rc<EventLoop>,
        sockets: &mut Self::Sockets,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        socket: Socket,
    ) -> io::Result<()> {
        sockets.retain(|acceptor| acceptor.strong_count() > 0);
        let acceptor = Rc::new(Acceptor::new(listener, socket)?);
        sockets.push(Rc::downgrade(&acceptor));
        tasks.spawn_local(acceptor.run(home.clone()));
        Ok(())
    }

    fn connected(
        home: &Rc<EventLoop>,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        socket: Socket,
        peer: Option<Peer>,
    ) {
        let home = home.clone();
        tasks.spawn_local(async move {
            let name = listener.name.clone();
            if let Err(error) = serve::serve_connected(home, listener, socket, peer).await {
                tracing::debug!(listener = %name, %error, "the connection was gone already");
            }
        });
    }

    fn go_on(
        home: &Rc<EventLoop>,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        bequest: Bequest,
    ) {
        let home = home.clone();
        tasks.spawn_local(async move {
            let name = listener.name.clone();
            if let Err(error) = serve::serve_bequest(home, listener, bequest).await {
                tracing::debug!(listener = %name, %error, "the connection was gone already");
            }
        });
    }

    fn work(
        home: &Rc<EventLoop>,
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        hire: Hire,
    ) {
        tasks.spawn_local(serve::work(home.clone(), listener, hire));
    }

    fn probe(home: &Rc<EventLoop>, sockets: &Self::Sockets) -> bool {
        let mut alive = sockets.iter().filter_map(Weak::upgrade);
        alive.all(|acceptor| acceptor.probe(home))
    }
}

impl Run for Datagrams {
    type Sockets = ();

    fn serve(
        home: &Rc<EventLoop>,
        (): &mut (),
        tasks: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        socket: Socket,
    ) -> io::Result<()> {
        tasks.spawn_local(datagram::run(home.clone(), listener, socket));
        Ok(())
    }

    fn connected(
        _: &Rc<EventLoop>,
        _: &mut JoinSet<()>,
        listener: Arc<Listener<Self>>,
        _: Socket,
        _: Option<Peer>,
    ) {
        // Probing refuses a connected socket for a datagram daemon, so this is never ordered.
        tracing::error!(listener = %listener.name, "a datagram daemon serves no connections");
    }

    fn go_on(_: &Rc<EventLoop>, _: &mut JoinSet<()>, listener: Arc<Listener<Self>>, _: Bequest) {
        tracing::error!(listener = %listener.name, "a datagram daemon goes on with no connection");
    }

    fn work(_: &Rc<EventLoop>, _: &mut JoinSet<()>, listener: Arc<Listener<Self>>, _: Hire) {
        // Opening refuses a pool for a datagram daemon, so this is never ordered.
        tracing::error!(listener = %listener.name, "a datagram daemon works for no pool");
    }

    fn probe(_: &Rc<EventLoop>, (): &()) -> bool {
        // The loop has answered; its sockets need no accept.
        true
    }
}

/// Large enough that a bulk echo costs few calls (4 KiB would cost six times the time), small
/// enough to stay in a core's second-level cache.
const BUFFER: usize = 256 * 1024;
const PAGE: usize = 4096;
/// Above this much data kept for slow peers, a loop reads in small pieces.
const SPILL_HIGH: usize = 16 * 1024 * 1024;
const READ_SMALL: usize = 4 * 1024;
const EVENTS_PER_TURN: usize = 512;
const TASKS_PER_TURN: u32 = 512;
