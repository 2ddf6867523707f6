//! What hyper reads and writes through.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use portyard_core::serve::Connection;
use portyard_wire::http::{Caps, Checker, Passed};
use tokio::io::AsyncWrite;

use super::watch::Watch;

/// A connection under hyper.
pub struct Io {
    connection: Connection,
    watch: Rc<Watch>,
    /// Of HTTP/1.1; HTTP/2 checks its frames itself.
    checker: Option<Checker>,
    /// What each head gets before its last line.
    added: &'static [u8],
    /// Bytes that hyper may have.
    ready: Vec<u8>,
    /// How many of them it has had.
    taken: usize,
    /// Answers that wait for the next: of requests that come together, they go together.
    out: Vec<u8>,
    /// How many bytes of them have been sent.
    sent: usize,
}

impl Io {
    /// HTTP/1.1, of which `pending` has come already. `added` are whole lines that hyper sees behind
    /// the fields of each request.
    pub fn strict(
        connection: Connection,
        watch: Rc<Watch>,
        caps: Caps,
        added: &'static [u8],
        pending: &[u8],
    ) -> Self {
        let mut io = Self {
            connection,
            watch,
            checker: Some(Checker::new(caps)),
            added,
            ready: Vec::new(),
            taken: 0,
            out: Vec::new(),
            sent: 0,
        };
        io.admit(pending, None);
        io
    }

    /// HTTP/2, of which `pending` has come already.
    pub fn plain(connection: Connection, watch: Rc<Watch>, pending: Vec<u8>) -> Self {
        Self {
            connection,
            watch,
            checker: None,
            added: b"",
            ready: pending,
            taken: 0,
            out: Vec::new(),
            sent: 0,
        }
    }

    /// The connection, what has come of it and not been read, and what is still to be sent.
    pub fn into_parts(mut self) -> (Connection, Vec<u8>, Vec<u8>) {
        self.ready.drain(..self.taken);
        self.out.drain(..self.sent);
        (self.connection, self.ready, self.out)
    }

    /// Whether another answer follows at once: hyper has a request in hand that has not begun, and none
    /// that makes it wait.
    fn has_more(&self) -> bool {
        let heads = self.checker.as_ref().map_or(0, Checker::heads);
        self.watch.is_idle() && heads > self.watch.begun()
    }

    /// Sends what waits.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            match self.connection.poll_write(cx, &self.out[self.sent..]) {
                Poll::Ready(Ok(length)) => self.sent += length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        (self.out, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Checks bytes and puts what passes where hyper reads it.
    fn admit(&mut self, bytes: &[u8], mut cursor: Option<&mut ReadBufCursor<'_>>) {
        let ready = &mut self.ready;
        let mut hand_on = |part: &[u8]| {
            let fits = match &mut cursor {
                // Order is kept: once something waits, the rest waits behind it.
                Some(cursor) if ready.is_empty() => {
                    let fits = cursor.remaining().min(part.len());
                    cursor.put_slice(&part[..fits]);
                    fits
                }
                _ => 0,
            };
            ready.extend_from_slice(&part[fits..]);
        };
        let Some(checker) = &mut self.checker else {
            hand_on(bytes);
            return;
        };
        let added = self.added;
        let hand_on = |passed: Passed<'_>| match passed {
            Passed::Head(head) if !added.is_empty() => {
                let (fields, end) = head.split_at(head.len() - END.len());
                for part in [fields, added, end] {
                    hand_on(part);
                }
            }
            Passed::Head(part) | Passed::Body(part) => hand_on(part),
        };
        if let Err(error) = checker.check(bytes, hand_on) {
            self.watch.refusal.set(Some(error));
        }
        if checker.is_in_head() && !self.watch.in_head.replace(true) {
            self.watch.place.wake_in(self.watch.header);
        } else if !checker.is_in_head() {
            self.watch.in_head.set(false);
        }
    }

    fn take_ready(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let rest = &self.ready[self.taken..];
        let fits = cursor.remaining().min(rest.len());
        cursor.put_slice(&rest[..fits]);
        self.taken += fits;
        if self.taken == self.ready.len() {
            (self.ready, self.taken) = (Vec::new(), 0);
        }
    }
}

impl Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = cursor.remaining();
        loop {
            if !this.ready.is_empty() {
                this.take_ready(&mut cursor);
                return Poll::Ready(Ok(()));
            }
            if this.watch.refusal.get().is_some() {
                // In the midst of a body it is broken. Between requests it is for the connection's
                // task to tell, once all before it has been answered.
                if this
                    .checker
                    .as_ref()
                    .is_some_and(|checker| !checker.is_body_over())
                {
                    let broken = io::Error::from(io::ErrorKind::InvalidData);
                    return Poll::Ready(Err(broken));
                }
                return Poll::Pending;
            }
            let home = this.connection.home().clone();
            let read = home.with_buffer(|buffer| {
                let limit = room.min(buffer.len());
                let read = this.connection.poll_read_through(cx, &mut buffer[..limit]);
                if let Poll::Ready(Ok(length)) = read {
                    this.admit(&buffer[..length], Some(&mut cursor));
                }
                read
            });
            match read {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) if cursor.remaining() < room => return Poll::Ready(Ok(())),
                // Nothing that hyper may have yet.
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.watch.flushed.set(false);
        if let Some(interim) = this.watch.interim.take() {
            this.out.extend_from_slice(&interim);
        }
        if this.out.len() + bytes.len() <= OUT && (this.has_more() || !this.out.is_empty()) {
            this.out.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = match this.poll_out(cx) {
            Poll::Ready(Ok(())) => this.connection.poll_write(cx, bytes),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        this.watch.blocked.set(written.is_pending());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // hyper asks for this once it has written all that it has.
        this.watch.flushed.set(true);
        if this.has_more() {
            return Poll::Ready(Ok(()));
        }
        let flushed = match this.poll_out(cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut this.connection).poll_flush(cx),
            other => other,
        };
        this.watch.blocked.set(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(cx)
    }
}

/// The line behind the fields of a head.
const END: &[u8] = b"\r\n";
/// Answers that go together, at the most.
const OUT: usize = 64 << 10;
