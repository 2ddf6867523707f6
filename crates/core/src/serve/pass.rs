//! What a connection over a Unix socket can do beside bytes: pass descriptors, and see whether its peer
//! has read what it was sent.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockRef, Socket};

use super::{Connection, Next};
use crate::sys;

impl Connection {
    /// Sends a message with copies of `descriptors`, without waiting, and returns how many of the bytes
    /// went out, as [`poll_send`](Self::poll_send) does with waiting. `WouldBlock` when the peer has left too
    /// much unread: then [`poll_writable`](Self::poll_writable) waits. An error over anything but a Unix socket.
    pub fn pass(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let socket = self.stream.unix()?;
        // Not by way of the readiness, which says nothing unless somebody waits for it.
        let sent = sys::send_message(socket.as_fd(), bytes, descriptors);
        match &sent {
            Ok(length) => self.home.registry.sent(self.slot, *length),
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    socket.is_full();
                }
                self.home.registry.stalled(self.slot);
            }
        }
        sent
    }

    /// Waits until the peer has read some of what filled the socket.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.unix()?.poll_writable(cx)
    }

    /// Waits until the peer has read everything that it was sent, descriptors included, or is gone. For a
    /// few small messages: the kernel tells of each one that is read only while the socket is less than
    /// a quarter full.
    pub fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Looked at while the readiness is held, so that what comes between is not missed.
        let look = |socket: &Socket| {
            if sys::unsent(socket.as_fd())? == 0 {
                Ok(((), Next::Try))
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            }
        };
        let drained = ready!(self.stream.unix()?.poll_out(cx, look));
        self.home.registry.sent(self.slot, 0);
        Poll::Ready(drained)
    }

    /// Whether the peer has closed the connection, or is gone, asked past the loop's knowledge, which may be a turn old.
    pub fn has_ended(&self) -> bool {
        let ends = PollFlags::POLLHUP | PollFlags::POLLERR;
        let mut looked_at = [PollFd::new(self.stream.as_fd(), ends)];
        poll(&mut looked_at, PollTimeout::ZERO).is_ok_and(|found| found > 0)
    }

    /// Ends both directions at once: what the peer sends from here on fails at its end. What it had sent
    /// before can still be read, with [`leftover`](Self::leftover).
    pub fn shut(&mut self) {
        // An error means that the peer is gone.
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Both);
    }

    /// Reads a message that is there already, without waiting and past the loop's knowledge; 0 when there
    /// is none.
    pub fn leftover(&mut self, buffer: &mut [u8]) -> usize {
        sys::receive_message(self.stream.as_fd(), buffer).map_or(0, |incoming| incoming.length)
    }
}
