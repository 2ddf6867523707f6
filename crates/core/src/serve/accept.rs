//! The accept loop: the only one in the project.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockAddr, Socket};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::admission;
use super::arrival::Arrival;
use super::connection::{Bequest, Peer};
use super::shed::{AcceptFault, PAUSE};
use crate::event_loop::EventLoop;
use crate::exit::{Exit, Fatal};
use crate::listener::{Listener, Streams};
use crate::observe::Throttle;
use crate::observe::metrics::Refusal;
use crate::sys;

/// A listening socket on the loop that serves it.
pub struct Acceptor {
    listener: Arc<Listener<Streams>>,
    socket: AsyncFd<Socket>,
    /// Cancelled when it is to stop.
    stop: CancellationToken,
    /// Whether it is a Unix socket, as are those that are accepted from it.
    is_unix: bool,
    throttle: Throttle,
}

impl Acceptor {
    /// Registers a listening, non-blocking socket with the current loop, until the listener is stopped.
    pub fn new(listener: Arc<Listener<Streams>>, socket: Socket) -> io::Result<Self> {
        let stop = listener.stopped();
        Self::until(stop, listener, socket)
    }

    /// The same, until `stop` is cancelled.
    pub fn until(
        stop: CancellationToken,
        listener: Arc<Listener<Streams>>,
        socket: Socket,
    ) -> io::Result<Self> {
        let is_unix = socket.domain()? == socket2::Domain::UNIX;
        Ok(Self {
            listener,
            socket: sys::register_owned(socket).map_err(|(_, error)| error)?,
            stop,
            is_unix,
            throttle: Throttle::new(),
        })
    }

    /// Accepts until it is to stop. Connections run as tasks of the loop.
    pub async fn run(self: Rc<Self>, home: Rc<EventLoop>) {
        let stopped = self.stop.clone().cancelled_owned();
        tokio::pin!(stopped);
        let mut faults: u32 = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok(arrival) if !home.reserve.refill() => {
                    self.give_up(arrival);
                    home.reserve.refill();
                }
                Ok(arrival) => {
                    faults = 0;
                    // Waiting for room goes on through a hand-over: the connection is ours.
                    tokio::select! {
                        biased;
                        () = admission::admit(&home, &self.listener, arrival) => {}
                        () = self.listener.closed.cancelled() => break,
                    }
                }
                Err(error) => {
                    faults = faults.saturating_add(1);
                    if !self.survive(&home, &error, faults).await {
                        return;
                    }
                }
            }
        }
        self.empty_backlog(&home).await;
    }

    /// Shows that `accept(2)` still works on the socket: it accepts or finds nobody. A connection
    /// found is served as any other.
    pub fn probe(&self, home: &Rc<EventLoop>) -> bool {
        let listener = &self.listener;
        if listener.gate.is_full() || listener.total.is_full() {
            // Not accepting is what the limit is for.
            return true;
        }
        if listener.settings().service.room().is_some() {
            return true;
        }
        match self.accept_now() {
            Ok(arrival) => {
                let (home, listener) = (home.clone(), listener.clone());
                tokio::task::spawn_local(async move {
                    admission::admit(&home, &listener, arrival).await;
                });
                true
            }
            Err(error) => {
                error.kind() == io::ErrorKind::WouldBlock
                    || AcceptFault::of(&error) != AcceptFault::Broken
            }
        }
    }

    /// Accepts as soon as somebody is there, and the service has room for one more.
    async fn accept(&self) -> io::Result<Arrival> {
        loop {
            let mut ready = poll_fn(|cx| self.socket.poll_read_ready(cx)).await?;
            while self.listener.settings().service.room().is_some() {
                self.listener.room_or_reload().await;
            }
            match self.accept_now() {
                // This forgets no arrival that came after `ready`.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                accepted => return accepted,
            }
        }
    }

    /// Accepts without waiting, past the loop's knowledge of readiness.
    fn accept_now(&self) -> io::Result<Arrival> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (socket, address) = self.socket.get_ref().accept4(flags)?;
        Ok(Arrival {
            socket,
            is_unix: self.is_unix,
            peer: peer_of(&address),
            ticket: None,
        })
    }

    /// Resets a connection that has taken the last descriptor.
    fn give_up(&self, arrival: Arrival) {
        self.listener.metrics.accepted.inc();
        self.listener.metrics.refuse(Refusal::Descriptors);
        arrival.reset();
    }

    /// Deals with an error of accept; false when the listener is beyond use.
    async fn survive(&self, home: &EventLoop, error: &io::Error, faults: u32) -> bool {
        let name = &self.listener.name;
        let fault = AcceptFault::of(error);
        match fault {
            // A kernel that fails every time at once must not become a busy loop.
            AcceptFault::Retry if faults < RETRIES_IN_A_ROW => return true,
            AcceptFault::Broken => {
                let message = format!("listener {name} cannot accept any more: {error}");
                home.fail(Fatal::new(Exit::OsError, message));
                return false;
            }
            AcceptFault::NoDescriptors => {
                if home.reserve.shed(self) {
                    self.listener.metrics.accepted.inc();
                    self.listener.metrics.refuse(Refusal::Descriptors);
                }
            }
            AcceptFault::Retry | AcceptFault::NoMemory => {}
        }
        if let Some(held) = self.throttle.pass() {
            let hint = match fault {
                AcceptFault::NoDescriptors => "raise LimitNOFILE or lower max_connections",
                _ => "the machine is short of a resource",
            };
            tracing::warn!(listener = %name, %error, held, hint, "cannot accept for the moment");
        }
        tokio::time::sleep(PAUSE).await;
        true
    }

    /// Connections that the kernel has completed are ours: closing the socket would reset them.
    async fn empty_backlog(&self, home: &Rc<EventLoop>) {
        if !self.listener.owes_backlog() {
            return;
        }
        while let Ok(arrival) = self.accept_now() {
            let admit = admission::admit(home, &self.listener, arrival);
            if tokio::time::timeout(BACKLOG_WAIT, admit).await.is_err() {
                return;
            }
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// Serves one connection that we were started with.
pub async fn serve_connected(
    home: Rc<EventLoop>,
    listener: Arc<Listener<Streams>>,
    socket: Socket,
    peer: Option<Peer>,
) -> io::Result<()> {
    let peer = match peer {
        Some(peer) => peer,
        None => peer_of(&socket.peer_addr()?),
    };
    let arrival = Arrival {
        is_unix: socket.domain()? == socket2::Domain::UNIX,
        socket,
        peer,
        ticket: None,
    };
    admission::admit(&home, &listener, arrival).await;
    Ok(())
}

/// Goes on with a connection that a predecessor had served.
pub async fn serve_bequest(
    home: Rc<EventLoop>,
    listener: Arc<Listener<Streams>>,
    bequest: Bequest,
) -> io::Result<()> {
    let Bequest {
        socket,
        key,
        legacy,
    } = bequest;
    socket.set_nonblocking(true)?;
    let arrival = Arrival {
        is_unix: socket.domain()? == socket2::Domain::UNIX,
        peer: peer_of(&socket.peer_addr()?),
        socket,
        ticket: None,
    };
    admission::go_on(&home, &listener, arrival, key, legacy).await;
    Ok(())
}

fn peer_of(address: &SockAddr) -> Peer {
    address.as_socket().map_or(Peer::Local, Peer::Internet)
}

/// Errors in a row that are retried without a pause.
const RETRIES_IN_A_ROW: u32 = 100;
/// How long the last connections of a full backlog may wait for a place during a drain.
const BACKLOG_WAIT: Duration = Duration::from_millis(100);
