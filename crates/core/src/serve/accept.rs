//! The accept loop: the only one in the project.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockAddr, SockRef, Socket};
use tokio::net::{TcpListener, UnixListener};

use super::Stream;
use super::admission;
use super::connection::Peer;
use super::shed::{AcceptFault, PAUSE};
use crate::endpoint::Endpoint;
use crate::event_loop::EventLoop;
use crate::exit::{Exit, Fatal};
use crate::listener::{Listener, Streams};
use crate::observe::Throttle;
use crate::observe::metrics::Refusal;

/// A listening socket on the loop that serves it.
pub struct Acceptor {
    listener: Arc<Listener<Streams>>,
    socket: ListeningSocket,
    throttle: Throttle,
}

enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    /// Registers a listening, non-blocking socket with the current loop.
    pub fn new(listener: Arc<Listener<Streams>>, socket: Socket) -> io::Result<Self> {
        let socket = match listener.endpoint {
            Endpoint::Unix(_) | Endpoint::Abstract(_) => {
                ListeningSocket::Unix(UnixListener::from_std(socket.into())?)
            }
            _ if socket.domain()? == socket2::Domain::UNIX => {
                ListeningSocket::Unix(UnixListener::from_std(socket.into())?)
            }
            _ => ListeningSocket::Tcp(TcpListener::from_std(socket.into())?),
        };
        Ok(Self {
            listener,
            socket,
            throttle: Throttle::new(),
        })
    }

    /// Accepts until the listener is stopped. Connections run as tasks of the loop.
    pub async fn run(self: Rc<Self>, home: Rc<EventLoop>) {
        let stopped = self.listener.stopped().cancelled_owned();
        tokio::pin!(stopped);
        let mut faults: u32 = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if !home.reserve.refill() => {
                    self.give_up(&stream);
                    drop(stream);
                    home.reserve.refill();
                }
                Ok((stream, peer)) => {
                    faults = 0;
                    // Waiting for room goes on through a hand-over: the connection is ours.
                    tokio::select! {
                        biased;
                        () = admission::admit(&home, &self.listener, stream, peer) => {}
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
        match self.accept_now() {
            Ok((stream, peer)) => {
                let (home, listener) = (home.clone(), listener.clone());
                tokio::task::spawn_local(async move {
                    admission::admit(&home, &listener, stream, peer).await;
                });
                true
            }
            Err(error) => {
                error.kind() == io::ErrorKind::WouldBlock
                    || AcceptFault::of(&error) != AcceptFault::Broken
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                let (stream, address) = socket.accept().await?;
                Ok((Stream::Tcp(stream), Peer::Internet(address)))
            }
            ListeningSocket::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
        }
    }

    /// Accepts without waiting, past the loop's knowledge of readiness.
    fn accept_now(&self) -> io::Result<(Stream, Peer)> {
        let (socket, address) = SockRef::from(self).accept()?;
        socket.set_nonblocking(true)?;
        Ok((Stream::from_socket(socket)?, peer_of(&address)))
    }

    /// Resets a connection that has taken the last descriptor.
    fn give_up(&self, stream: &Stream) {
        self.listener.metrics.accepted.inc();
        self.listener.metrics.refuse(Refusal::Descriptors);
        stream.reset_on_close();
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
        while let Ok((stream, peer)) = self.accept_now() {
            let admit = admission::admit(home, &self.listener, stream, peer);
            if tokio::time::timeout(BACKLOG_WAIT, admit).await.is_err() {
                return;
            }
        }
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix(socket) => socket.as_fd(),
        }
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
    admission::admit(&home, &listener, Stream::from_socket(socket)?, peer).await;
    Ok(())
}

fn peer_of(address: &SockAddr) -> Peer {
    address.as_socket().map_or(Peer::Local, Peer::Internet)
}

/// Errors in a row that are retried without a pause.
const RETRIES_IN_A_ROW: u32 = 100;
/// How long the last connections of a full backlog may wait for a place during a drain.
const BACKLOG_WAIT: Duration = Duration::from_millis(100);
