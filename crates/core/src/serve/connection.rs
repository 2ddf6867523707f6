//! One connection as its service sees it: bytes in, bytes out, deadlines and limits kept for it.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::establish::{Proving, establish};
use super::registry::Slot;
use super::{Ended, Next, Serving, Stream, Trust};
use crate::access::Identity;
use crate::event_loop::EventLoop;
use crate::fdpass::{self, Channel, Message, ReceiveError};
use crate::listener::{Listener, Permit, Settings, Streams};
use crate::observe::metrics::Ending;
use crate::tls::Facts;

/// A connection that is being served. Dropping it closes it and gives its permit back.
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) home: Rc<EventLoop>,
    pub(super) slot: Slot,
    /// The peer has sent its end of stream.
    ended: bool,
    permit: Permit,
}

/// What a connection is made of.
pub(super) struct Parts {
    pub stream: Stream,
    pub home: Rc<EventLoop>,
    pub slot: Slot,
    pub permit: Permit,
}

/// A connection's place in its loop, for what goes on beside its bytes: a protocol's library may have
/// the connection itself.
///
/// It must not outlive the [`Serving`] that was given the connection.
#[derive(Clone)]
pub struct Place {
    home: Rc<EventLoop>,
    slot: Slot,
}

/// A connection that a predecessor of this process had served, and what it knew of it.
pub struct Bequest {
    /// The socket.
    pub socket: Socket,
    /// The name of the key that its peer has proved.
    pub key: Option<Arc<str>>,
    /// What the service is to go on with: see [`Connection::take_legacy`].
    pub legacy: Box<dyn Any + Send>,
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// An Internet address.
    Internet(SocketAddr),
    /// Another process of this machine, over a Unix socket.
    Local,
}

impl Connection {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            stream,
            home,
            slot,
            permit,
        } = parts;
        Self {
            stream,
            home,
            slot,
            ended: false,
            permit,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        self.home.registry.peer(self.slot)
    }

    /// The name of the key that the peer has proved, where the listener demands one.
    pub fn key(&self) -> Option<Arc<str>> {
        self.home.registry.key(self.slot)
    }

    /// What the same service of a predecessor has left, where the connection is not a new one; once.
    pub fn take_legacy<T: 'static>(&self) -> Option<Box<T>> {
        self.home.registry.take_legacy(self.slot)?.downcast().ok()
    }

    /// The loop that serves the connection: its clock, its pool, its buffer.
    pub fn home(&self) -> &Rc<EventLoop> {
        &self.home
    }

    /// The listener that accepted it.
    pub fn listener(&self) -> &Arc<Listener<Streams>> {
        self.permit.listener()
    }

    /// Whether the daemon is about to stop and the peer has been silent for a while: finish what has
    /// begun, begin nothing new.
    pub fn finishing(&self) -> bool {
        self.home.registry.finishing(self.slot)
    }

    /// Whether the daemon is about to stop, however busy the peer is: where a protocol can tell its
    /// client to go elsewhere, this is the time.
    pub fn draining(&self) -> bool {
        self.home.registry.draining()
    }

    /// The service works by itself now (computes, sleeps): the idle deadline rests until the next
    /// byte moves.
    pub fn busy(&self) {
        self.home.registry.busy(self.slot);
    }

    /// The service waits for the peer again and has sent nothing: the idle deadline begins anew.
    pub fn rested(&self) {
        self.home.registry.sent(self.slot, 0);
    }

    /// Its place in its loop.
    pub fn place(&self) -> Place {
        Place {
            home: self.home.clone(),
            slot: self.slot,
        }
    }

    /// Whether TLS is spoken.
    pub fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// The protocol that was agreed on by ALPN (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.protocol()
    }

    /// What the client's certificate says of it, where TLS asked for one and got it.
    pub fn certificate(&self) -> Option<Facts> {
        // It has been read once already, or the handshake would have failed.
        Facts::of(self.stream.certificate()?).ok()
    }

    /// Counts an input that was answered with an error line.
    pub fn count_bad_input(&self) {
        self.listener().metrics.bad_input.inc();
    }

    /// Reads into `buffer`; 0 at the end of the stream.
    ///
    /// While the daemon drains, a peer that has been silent for a moment is taken to have ended: a
    /// read that would wait is the end of the stream. What the peer had sent before is served.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_read_through(cx, buffer) {
            Poll::Pending if self.finishing() => Poll::Ready(Ok(0)),
            read => read,
        }
    }

    /// As [`Connection::poll_read`], but a drain ends nothing: for a protocol that is in the midst of
    /// something, and asks [`Connection::draining`] itself.
    pub fn poll_read_through(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // What TLS has kept of earlier writes goes out before we wait for an answer to it.
        // Whether it does or not, we read on: the peer may wait for that.
        if self.stream.has_kept()
            && let Poll::Ready(Err(error)) = self.poll_out(cx, Stream::poll_flush)
        {
            return Poll::Ready(Err(error));
        }
        let mut into = ReadBuf::new(buffer);
        match Pin::new(&mut self.stream).poll_read(cx, &mut into) {
            Poll::Ready(Ok(())) => {
                let length = into.filled().len();
                self.ended |= length == 0;
                self.home.registry.received(self.slot, length);
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes some of `bytes`; a peer that takes nothing is held to the write-stall deadline.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(cx, bytes) {
            Poll::Ready(Ok(length)) => {
                self.home.registry.sent(self.slot, length);
                if length < bytes.len() {
                    self.home.registry.stalled(self.slot);
                }
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.home.registry.stalled(self.slot);
                Poll::Pending
            }
        }
    }

    /// Receives into `buffer` what one message brings, descriptors included. This is the way to read
    /// a connection of whole messages: after [`Connection::poll_read`] a second one that is there
    /// might be overlooked. A length of 0 is the end.
    ///
    /// A drain does not end it as it ends `poll_read`; the task is woken, and asks
    /// [`Connection::finishing`] whether to go on. An error on a connection that is not a Unix
    /// socket.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<Message, ReceiveError>> {
        let receive = |socket: &Socket| match fdpass::receive(socket.as_fd(), buffer) {
            Err(ReceiveError::Io(error)) => Err(error),
            received => Ok((received, Next::Try)),
        };
        let received = ready!(self.stream.unix()?.poll_in(cx, receive))?;
        if let Ok(message) = &received {
            self.ended |= message.length == 0;
            self.home.registry.received(self.slot, message.length);
        }
        Poll::Ready(received)
    }

    /// Sends a message with copies of `descriptors`; see [`fdpass::Channel::send`] for what may be
    /// sent. A peer that takes nothing is held to the write-stall deadline.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Poll<io::Result<usize>> {
        let send = |socket: &Socket| {
            fdpass::send(socket.as_fd(), bytes, descriptors).map(|length| (length, Next::Try))
        };
        let sent = self.stream.unix()?.poll_out(cx, send);
        match &sent {
            Poll::Pending => self.home.registry.stalled(self.slot),
            Poll::Ready(Ok(length)) => self.home.registry.sent(self.slot, *length),
            Poll::Ready(Err(_)) => {}
        }
        sent
    }

    /// A second way to send over a Unix socket, for another owner. The connection is closed only when
    /// both are gone, and what is sent by it moves no deadline.
    pub fn channel(&self) -> io::Result<Channel> {
        Channel::new(self.stream.as_fd())?.share()
    }

    /// The process at the other end of a Unix socket, as it was when it connected.
    pub fn user(&self) -> io::Result<Identity<'static>> {
        self.stream.user()
    }

    /// Reads what is there, at most `limit` bytes, and appends it to `pending`; 0 at the end of
    /// the stream. Memory is taken only once bytes have arrived.
    pub async fn read_some(&mut self, pending: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
        poll_fn(|cx| {
            let home = self.home.clone();
            home.with_buffer(|buffer| {
                let limit = limit.min(buffer.len());
                let read = self.poll_read(cx, &mut buffer[..limit]);
                if let Poll::Ready(Ok(length)) = read {
                    pending.extend_from_slice(&buffer[..length]);
                }
                read
            })
        })
        .await
    }

    /// Writes all of `bytes`, and does not keep any of them back.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let length = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[length..];
        }
        if self.stream.is_encrypted() {
            poll_fn(|cx| self.poll_out(cx, Stream::poll_flush)).await?;
        }
        Ok(())
    }

    /// Gives the peer what TLS has kept; a peer that takes nothing is held to the write-stall deadline.
    fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        step: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let result = step(Pin::new(&mut self.stream), cx);
        if result.is_pending() {
            self.home.registry.stalled(self.slot);
        } else {
            self.home.registry.flushed(self.slot);
        }
        result
    }

    /// Ends the connection so that the peer gets all that was written: FIN, then what it still
    /// sends is read and thrown away until it closes too, for a bounded time.
    ///
    /// A close with unread data would be a reset, which may destroy our answer on its way.
    pub async fn finish(&mut self) {
        // A peer that has ended needs no FIN before the close, but TLS has a last word of its own.
        if self.ended && !self.stream.is_encrypted() {
            return;
        }
        let shut = poll_fn(|cx| self.poll_out(cx, Stream::poll_shutdown)).await;
        if shut.is_err() || self.ended {
            return;
        }
        // Boxed, so that the timer takes no room in every connection's task from its start.
        Box::pin(self.linger()).await;
    }

    /// Throws away what the peer still sends until it closes, for a bounded time.
    async fn linger(&mut self) {
        let home = self.home.clone();
        let discard = poll_fn(|cx| {
            home.with_buffer(|buffer| {
                for _ in 0..LINGER_READS {
                    let mut into = ReadBuf::new(buffer);
                    match Pin::new(&mut self.stream).poll_read(cx, &mut into) {
                        Poll::Ready(Ok(())) if !into.filled().is_empty() => {}
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Ready(())
            })
        });
        let _ = tokio::time::timeout(LINGER, discard).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let registry = &self.home.registry;
        if registry
            .cut(self.slot)
            .is_some_and(|why| why != Ending::Idle)
        {
            self.stream.reset_on_close();
        }
    }
}

impl Place {
    /// As [`Connection::busy`].
    pub fn busy(&self) {
        self.home.registry.busy(self.slot);
    }

    /// As [`Connection::rested`].
    pub fn rested(&self) {
        self.home.registry.sent(self.slot, 0);
    }

    /// As [`Connection::finishing`].
    pub fn finishing(&self) -> bool {
        self.home.registry.finishing(self.slot)
    }

    /// As [`Connection::draining`].
    pub fn draining(&self) -> bool {
        self.home.registry.draining()
    }

    /// Wakes the connection's task once so much time has passed, to a tenth of a second; a later call
    /// replaces an earlier one. Cheaper than a timer where most are never due.
    pub fn wake_in(&self, span: Duration) {
        self.home.registry.wake_in(self.slot, Some(span));
    }

    /// Takes [`Place::wake_in`] back.
    pub fn let_sleep(&self) {
        self.home.registry.wake_in(self.slot, None);
    }

    /// More memory than a message takes has just been let go of: it is given to the kernel soon.
    pub fn freed(&self) {
        self.home.registry.freed();
    }

    /// Whether the time that [`Place::wake_in`] was given has passed. True once.
    pub fn is_due(&self) -> bool {
        self.home.registry.take_due(self.slot)
    }
}

/// Runs a connection's service until it ends or is cut, then counts and logs the end.
///
/// It is four words long, so that its task fits the allocator's 128-byte class.
pub(super) struct Session {
    /// Taken when it is over, so that the connection is gone before its slot is.
    serving: Option<Serving>,
    home: Rc<EventLoop>,
    slot: Slot,
    watched: bool,
}

impl Session {
    /// Starts to serve by `settings`. `proving` is what they demand before, and the place of a
    /// connection that has something to prove.
    pub(super) fn new(
        stream: Stream,
        peer: Peer,
        permit: Permit,
        home: Rc<EventLoop>,
        settings: Arc<Settings<Streams>>,
        proving: Option<(Arc<Trust>, Proving)>,
    ) -> Self {
        let listener = permit.listener();
        tracing::debug!(listener = %listener.name, %peer, "connection");
        let slot = home.registry.enter(peer, listener.clone());
        let parts = Parts {
            stream,
            home: home.clone(),
            slot,
            permit,
        };
        let serving = match proving {
            Some((trust, proving)) => establish(parts, settings, trust, proving),
            None => settings.service.serve(Connection::new(parts)),
        };
        Self {
            serving: Some(serving),
            home,
            slot,
            watched: false,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    fn end(&mut self, why: Ending) -> Poll<()> {
        self.serving = None;
        let registry = &self.home.registry;
        let listener = registry.listener(self.slot);
        listener.metrics.end(why);
        let (peer, age) = (registry.peer(self.slot), registry.age(self.slot));
        if why == Ending::Panic {
            tracing::error!(listener = %listener.name, %peer, "service panicked");
        } else {
            tracing::debug!(listener = %listener.name, %peer, %why, ?age, "ended");
        }
        Poll::Ready(())
    }
}

impl Future for Session {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(cut) = self.home.registry.cut(self.slot) {
            return self.end(cut);
        }
        if !self.watched {
            // Before its first byte is read, and behind the moment in which that it is taken was said.
            if self.home.registry.is_revoked(self.slot) {
                return self.end(Ending::Broken);
            }
            self.home.registry.watch(self.slot, cx.waker());
            self.watched = true;
        }
        let Some(serving) = &mut self.serving else {
            return Poll::Ready(());
        };
        match serving.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ended::Done) => self.end(Ending::Done),
            Poll::Ready(Ended::Broken) => self.end(Ending::Broken),
            Poll::Ready(Ended::Protocol) => self.end(Ending::Protocol),
            Poll::Ready(Ended::Unproved(why)) => self.end(why),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.serving.is_some() && std::thread::panicking() {
            let _ = self.end(Ending::Panic);
        }
        self.serving = None;
        self.home.registry.leave(self.slot);
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Connection::poll_read(self.get_mut(), cx, buffer.initialize_unfilled());
        read.map_ok(|length| buffer.advance(length))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Connection::poll_write(self.get_mut(), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx, Stream::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_out(cx, Stream::poll_shutdown)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(address) => {
                SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f)
            }
            Self::Local => f.write_str("local"),
        }
    }
}

/// How long a peer may take to close its side after we closed ours.
const LINGER: Duration = Duration::from_secs(2);
/// How many buffers of late data are thrown away before the close becomes a reset.
const LINGER_READS: usize = 64;
