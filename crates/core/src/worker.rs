//! A worker of fd-broker: connections that another process has accepted.
//!
//! ```no_run
//! use portyard_core::worker::{Terms, Work, Worker};
//! use tokio::io::AsyncWriteExt;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut worker = Worker::join(Terms::new("/run/fd-broker/native.sock")).await?;
//! while let Some(work) = worker.next().await {
//!     let Work::Connection(offered) = work else { continue };
//!     tokio::spawn(async move {
//!         let mut taken = offered.take()?;
//!         taken.write_all(b"hello\r\n").await
//!     });
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Worker::next`] says hello again when the broker was restarted, and tells it what became of the
//! connections: whoever takes one and drops it when it is over has said all. One that is dropped untaken
//! goes to another worker. Reports go out together, when nothing more is there to be given out, so
//! `next` is to be called again soon; what takes long belongs into a task.

mod link;
mod outbox;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portyard_wire::broker::{Offer, User, Why};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::auth::Prover;
use crate::life::{Descriptors, connection_limit};
pub use link::JoinError;
pub(crate) use link::{Link, Order};
pub(crate) use outbox::{Outbox, Ticket};

/// What a worker says of itself, and to whom.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The broker's socket for native workers.
    pub path: PathBuf,
    /// The pool to work for; empty for the one that the socket belongs to.
    pub pool: String,
    /// The worker's name in the broker's log and status; empty: the broker makes one up.
    pub name: String,
    /// Connections at a time, offered ones included; at least 1.
    pub capacity: u32,
    /// Its share where the pool weighs; at least 1.
    pub weight: u16,
    /// The key to prove, where the broker demands one.
    pub prover: Option<Prover>,
}

/// A worker that has been welcomed once.
pub struct Worker {
    terms: Terms,
    outbox: Arc<Outbox>,
    link: Option<Link>,
    given: VecDeque<Work>,
    backoff: Backoff,
    drained_by_broker: bool,
    leaving: bool,
}

/// What the broker gives.
pub enum Work {
    /// A connection.
    Connection(Offered),
    /// A listening socket, from which the worker accepts by itself.
    Listener {
        /// The listener's name.
        name: String,
        /// The socket, shared with other processes.
        socket: OwnedFd,
    },
}

/// A connection that can be taken. Dropped, it goes to another worker.
pub struct Offered {
    /// The socket, non-blocking. Whoever reads from it or writes to it must take it first.
    pub socket: OwnedFd,
    /// What the broker knows of it.
    pub details: Details,
    ticket: Ticket,
}

/// What the broker knows of a connection.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// The listener that accepted it.
    pub listener: String,
    /// Who connected; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that was connected to, where the broker knew it without asking.
    pub local: Option<SocketAddr>,
    /// Who connected to a Unix socket.
    pub user: Option<User>,
    /// When it was accepted, in nanoseconds of `CLOCK_MONOTONIC`.
    pub arrival: u64,
    /// The TLS server name, where the broker has looked for it.
    pub server_name: Option<String>,
    /// The application protocols of the TLS client hello.
    pub alpn: Vec<Vec<u8>>,
    /// The first bytes, where the broker has looked at them. They are still there to be read.
    pub first_bytes: Vec<u8>,
}

/// A connection that is the worker's, to be read from and written to. Dropping it closes it and tells the
/// broker that it is over; that is why its stream cannot be taken out.
pub struct Taken {
    stream: Stream,
    details: Details,
    /// Tells the broker when it is dropped, as the last of all.
    _ticket: Ticket,
}

/// A connection of either kind.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Terms {
    /// A worker at `path` with as many connections as half its descriptors allow.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            pool: String::new(),
            name: String::new(),
            capacity: connection_limit(Descriptors::open()).div_ceil(2),
            weight: 1,
            prover: None,
        }
    }
}

impl Worker {
    /// Connects and says hello. An error says what to do; later the worker connects again by itself,
    /// for as long as it takes.
    pub async fn join(terms: Terms) -> Result<Self, JoinError> {
        let outbox = Outbox::new(terms.capacity);
        let link = Link::join(&terms, &outbox).await?;
        Ok(Self {
            terms,
            outbox,
            link: Some(link),
            given: VecDeque::new(),
            backoff: Backoff::default(),
            drained_by_broker: false,
            leaving: false,
        })
    }

    /// The next piece of work. `None` only after [`Worker::drain`], when every connection is over.
    ///
    /// A call can be dropped and made again; nothing is lost by it.
    pub async fn next(&mut self) -> Option<Work> {
        loop {
            while let Some(work) = self.given.pop_front() {
                match work {
                    // What was on its way goes back when it is dropped.
                    Work::Connection(offered) if self.leaving => offered.refuse(Why::Draining),
                    work => return Some(work),
                }
            }
            let Some(link) = &mut self.link else {
                if self.leaving {
                    return None;
                }
                self.rejoin().await;
                continue;
            };
            let (given, outbox, leaving) = (&mut self.given, &self.outbox, self.leaving);
            let order = poll_fn(|cx| {
                let give = |offer: &Offer<'_>, socket: OwnedFd| {
                    let ticket = outbox.ticket(offer.connection);
                    given.push_back(Work::Connection(Offered {
                        socket,
                        details: Details::of(offer),
                        ticket,
                    }));
                };
                let order = link.poll_order(cx, outbox, give).map_ok(Some);
                // Asked behind it, because it may just have sent the last report.
                if order.is_pending() && leaving && outbox.is_settled() {
                    return Poll::Ready(Ok(None));
                }
                order
            })
            .await;
            match order {
                Ok(Some(Order::Offered)) => {}
                Ok(Some(Order::Listener { name, socket })) => {
                    self.given.push_back(Work::Listener { name, socket });
                }
                Ok(Some(Order::Drain)) => self.drained_by_broker = true,
                Ok(Some(Order::Resume)) => self.drained_by_broker = false,
                Ok(None) => self.link = None,
                Err(error) => {
                    tracing::warn!(broker = %self.terms.path.display(), %error, "broker lost");
                    self.link = None;
                    self.outbox.end();
                    self.given.clear();
                }
            }
        }
    }

    /// Whether the broker has asked to finish: it offers nothing more until it says otherwise.
    pub fn is_drained_by_broker(&self) -> bool {
        self.drained_by_broker
    }

    /// Takes no more connections: what is on its way goes to others, what is there goes on, and
    /// [`Worker::next`] ends with the last of it.
    pub fn drain(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.outbox.drain();
        }
    }

    /// Changes how many connections it has at a time; 0 for none for the moment.
    pub fn set_capacity(&mut self, capacity: u32) {
        self.terms.capacity = capacity;
        self.outbox.set_capacity(capacity);
    }

    async fn rejoin(&mut self) {
        self.backoff.wait().await;
        match Link::join(&self.terms, &self.outbox).await {
            Ok(link) => {
                tracing::info!(broker = %self.terms.path.display(), "broker found again");
                self.backoff = Backoff::default();
                self.drained_by_broker = false;
                self.link = Some(link);
            }
            Err(error) => {
                tracing::debug!(broker = %self.terms.path.display(), %error, "broker not there");
            }
        }
    }
}

impl Offered {
    /// Takes the connection: the broker keeps nothing of it. To be called within a runtime. An error
    /// when the broker is gone that has offered it.
    pub fn take(mut self) -> io::Result<Taken> {
        if !self.ticket.take() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let stream = if self.details.peer.is_some() {
            TcpStream::from_std(StdTcpStream::from(self.socket)).map(Stream::Tcp)
        } else {
            UnixStream::from_std(self.socket.into()).map(Stream::Unix)
        };
        Ok(Taken {
            stream: stream?,
            details: self.details,
            _ticket: self.ticket,
        })
    }

    /// Takes the connection as a bare socket, for programs that do something else with it. The second
    /// value tells the broker that it is over when it is dropped, which must be after the socket.
    pub fn take_socket(mut self) -> io::Result<(OwnedFd, impl Send + use<>)> {
        if !self.ticket.take() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok((self.socket, self.ticket))
    }

    /// Gives it back: another worker gets it. Nothing may have been read or written.
    pub fn refuse(self, why: Why) {
        // Our copy is closed before anyone else hears of it.
        drop(self.socket);
        self.ticket.refuse(why);
    }
}

impl Taken {
    /// The connection, registered with the runtime that took it.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What the broker knows of it.
    pub fn details(&self) -> &Details {
        &self.details
    }
}

impl Details {
    fn of(offer: &Offer<'_>) -> Self {
        Self {
            listener: offer.listener.into(),
            peer: offer.peer,
            local: offer.local,
            user: offer.user,
            arrival: offer.arrival,
            server_name: offer.server_name.map(Into::into),
            alpn: offer.alpn.iter().map(|name| name.to_vec()).collect(),
            first_bytes: offer.first_bytes.into(),
        }
    }
}

/// How long to wait before the next try: from 50 ms up, doubled each time, 5 s at most, and less by
/// chance, so that many workers do not come all at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub async fn wait(&mut self) {
        let longest = (BACKOFF_MIN * 2_u32.pow(self.tries.min(10))).min(BACKOFF_MAX);
        self.tries = self.tries.saturating_add(1);
        tokio::time::sleep(longest.mul_f64(0.5 + crate::serve::dice() / 2.0)).await;
    }
}

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

impl AsyncRead for Taken {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Taken {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have no buffer of ours to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
