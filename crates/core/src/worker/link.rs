//! The connection to the broker.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use portyard_wire::broker::{
    BrokerError, FromWorker, Hello, MESSAGE_MAX, Offer, ToWorker, VERSION,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::{Outbox, Terms};
use crate::auth::ProveError;
use crate::fdpass::{self, ReceiveError};
use crate::serve::{Next, Plain};

/// A connection on which the broker has said welcome.
pub(crate) struct Link {
    socket: Packets,
    buffer: Vec<u8>,
    /// When reports go out that may wait for company.
    later: Option<Pin<Box<Sleep>>>,
}

/// What the broker wants.
pub(crate) enum Order {
    /// It has offered connections, which were given out.
    Offered,
    /// It lends a listening socket.
    Listener { name: String, socket: OwnedFd },
    /// Take nothing more.
    Drain,
    /// Take again.
    Resume,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody is there.
    #[error("no broker answers on {}: {error}; start fd-broker, with a listener of the service native there", .path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It does not want this worker.
    #[error("the broker rejects this worker: {0}")]
    Rejected(String),
    /// It takes longer than it may.
    #[error("the broker has not answered for {PATIENCE:?}")]
    Silent,
    /// It closed the connection.
    #[error(
        "the broker closed the connection; its access rules may not let this user in, or it demands a key"
    )]
    Closed,
    /// It demands a key, or another one.
    #[error(transparent)]
    Key(#[from] ProveError),
    /// It speaks something else.
    #[error("the broker's answer is not understood ({0}); does it demand a key?")]
    Malformed(#[from] BrokerError),
    /// What it sent got lost.
    #[error(transparent)]
    Lost(#[from] ReceiveError),
    /// The kernel refused.
    #[error("the connection to the broker failed: {0}")]
    Io(#[from] io::Error),
}

impl Link {
    /// Connects, proves the key, says hello.
    pub async fn join(terms: &Terms, outbox: &Outbox) -> Result<Self, JoinError> {
        let absent = |error| JoinError::Absent {
            path: terms.path.clone(),
            error,
        };
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        // A Unix socket is connected at once or not at all.
        let address = SockAddr::unix(&terms.path).map_err(absent)?;
        socket.connect(&address).map_err(absent)?;
        let mut socket = Packets {
            socket: Plain::new(socket),
            unread: Vec::new(),
        };
        let join = async {
            if let Some(prover) = &terms.prover {
                prover.prove_async(None, &mut socket).await?;
            }
            let hello = FromWorker::Hello(Hello {
                version: VERSION,
                reports_done: true,
                capacity: outbox.begin(),
                weight: terms.weight.max(1),
                name: &terms.name,
                pool: &terms.pool,
            });
            let packet = hello.encode();
            poll_fn(|cx| socket.poll_send(cx, &packet)).await?;
            let mut buffer = vec![0; MESSAGE_MAX];
            let message = poll_fn(|cx| socket.poll_receive(cx, &mut buffer)).await?;
            if message.length == 0 {
                return Err(JoinError::Closed);
            }
            let came = message.descriptors.len();
            match ToWorker::decode(&buffer[..message.length], came)? {
                ToWorker::Welcome(_) => Ok(buffer),
                ToWorker::Rejected(text) => Err(JoinError::Rejected(text.into())),
                _ => Err(BrokerError::Kind(buffer[0]).into()),
            }
        };
        let joined = timeout(PATIENCE, join).await;
        let buffer = joined.map_err(|_| JoinError::Silent)??;
        Ok(Self {
            socket,
            buffer,
            later: None,
        })
    }

    /// Takes what the broker sends; when that is all, sends what is owed, once for all of it, and waits.
    /// Connections are given out by `give`, each with its socket, before this is ready.
    ///
    /// An error is the end of the link.
    pub fn poll_order(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &Outbox,
        mut give: impl FnMut(&Offer<'_>, OwnedFd),
    ) -> Poll<Result<Order, JoinError>> {
        loop {
            let message = match self.socket.poll_receive(cx, &mut self.buffer) {
                Poll::Ready(message) => message?,
                Poll::Pending => {
                    self.settle(cx, outbox)?;
                    return Poll::Pending;
                }
            };
            if message.length == 0 {
                return Poll::Ready(Err(JoinError::Closed));
            }
            let packet = &self.buffer[..message.length];
            let mut descriptors = message.descriptors.into_iter();
            return Poll::Ready(Ok(match ToWorker::decode(packet, descriptors.len())? {
                ToWorker::Offer(offers) => {
                    for (offer, socket) in offers.iter().zip(descriptors) {
                        give(offer, socket);
                    }
                    Order::Offered
                }
                ToWorker::Listener { name } => {
                    let name = name.into();
                    let socket = descriptors.next().ok_or(JoinError::Closed)?;
                    Order::Listener { name, socket }
                }
                ToWorker::Drain => Order::Drain,
                ToWorker::Resume => Order::Resume,
                ToWorker::Pong(_) => continue,
                ToWorker::Rejected(text) => {
                    return Poll::Ready(Err(JoinError::Rejected(text.into())));
                }
                ToWorker::Welcome(_) => {
                    return Poll::Ready(Err(BrokerError::Kind(packet[0]).into()));
                }
            }));
        }
    }

    /// Sends what is owed, as far as the broker takes it.
    fn settle(&mut self, cx: &mut Context<'_>, outbox: &Outbox) -> io::Result<()> {
        loop {
            while let Some(packet) = outbox.packet(cx.waker()) {
                match self.socket.poll_send(cx, &packet) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => {
                        outbox.put_back(packet);
                        return Ok(());
                    }
                }
            }
            if !outbox.owes_later() {
                self.later = None;
                return Ok(());
            }
            let later = self.later.get_or_insert_with(|| Box::pin(sleep(COMPANY)));
            if later.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.later = None;
            outbox.hurry();
        }
    }
}

/// A socket of whole messages. As a byte stream, which the dialogue of keys wants, it hands a message
/// out in pieces.
struct Packets {
    socket: Plain,
    unread: Vec<u8>,
}

impl Packets {
    fn poll_send(&mut self, cx: &mut Context<'_>, packet: &[u8]) -> Poll<io::Result<()>> {
        self.socket.poll_out(cx, |socket| {
            fdpass::send(socket.as_fd(), packet, &[]).map(|_| ((), Next::Try))
        })
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<fdpass::Message, ReceiveError>> {
        let receive = |socket: &Socket| match fdpass::receive(socket.as_fd(), buffer) {
            Err(ReceiveError::Io(error)) => Err(error),
            received => Ok((received, Next::Try)),
        };
        Poll::Ready(ready!(self.socket.poll_in(cx, receive))?)
    }
}

impl AsyncRead for Packets {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            let mut buffer = [0; DIALOGUE_MAX];
            let message = ready!(this.poll_receive(cx, &mut buffer))?;
            this.unread.extend_from_slice(&buffer[..message.length]);
        }
        let length = into.remaining().min(this.unread.len());
        into.put_slice(&this.unread[..length]);
        this.unread.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Packets {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes).map_ok(|()| bytes.len())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How long reports wait that nobody waits for. So a busy worker wakes its broker once for many.
const COMPANY: Duration = Duration::from_millis(1);
/// How long a broker has for its welcome.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest message of a dialogue of keys, or two of them in one packet.
const DIALOGUE_MAX: usize = 1024;
