//! A stream to a server, plain or inside TLS, that both directions use at once.

mod session;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::Socket;

use self::session::Session;

/// A connected stream. Reading and writing take a shared reference, so that one thread can read
/// while another writes; a wait that is too long ends as "would block". Inside TLS a connection that
/// ends without saying so is an "unexpected end", and what was written needs a flush.
#[derive(Debug)]
pub struct Connected(Carrier);

#[derive(Debug)]
enum Carrier {
    Plain(Socket),
    Tls(Box<Session>),
}

/// What became of a piece that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// So many bytes of it are under way.
    Taken(usize),
    /// The server has said something, or closed; nothing was sent.
    Answered,
}

impl Connected {
    /// The socket as it is.
    pub fn plain(socket: Socket) -> Self {
        Self(Carrier::Plain(socket))
    }

    /// A TLS session over the socket; the handshake may take `deadline` in all.
    pub fn tls(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        deadline: Duration,
    ) -> io::Result<Self> {
        let session = Session::open(socket, config, name, deadline)?;
        Ok(Self(Carrier::Tls(Box::new(session))))
    }

    /// The channel binding of the TLS session, if there is one.
    pub fn exporter(&self) -> io::Result<Option<[u8; 32]>> {
        match &self.0 {
            Carrier::Plain(_) => Ok(None),
            Carrier::Tls(session) => session.exporter().map(Some),
        }
    }

    /// How long a read waits for the first byte.
    pub fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.0 {
            Carrier::Plain(socket) => socket.set_read_timeout(Some(timeout)),
            Carrier::Tls(session) => {
                session.set_read_timeout(timeout);
                Ok(())
            }
        }
    }

    /// How long a write, or a flush, waits until the server takes something.
    pub fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.0 {
            Carrier::Plain(socket) => socket.set_write_timeout(Some(timeout)),
            Carrier::Tls(session) => {
                session.set_write_timeout(timeout);
                Ok(())
            }
        }
    }

    /// Says that nothing more will be sent; what the server sends can still be read. A server that
    /// has closed already is no error: what it said before can be read too.
    pub fn close_write(&self) -> io::Result<()> {
        let closed = match &self.0 {
            Carrier::Plain(socket) => socket.shutdown(Shutdown::Write),
            Carrier::Tls(session) => session.close_write(),
        };
        match closed {
            Err(error) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    /// Sends a beginning of `bytes`, unless the server has something to say: that comes first. Waits
    /// at most `timeout` for either.
    pub fn send_watching(&self, bytes: &[u8], timeout: Duration) -> io::Result<Sent> {
        match &self.0 {
            Carrier::Plain(socket) => send_plain(socket, bytes, timeout),
            Carrier::Tls(session) => session.send_watching(bytes, timeout),
        }
    }
}

impl Read for &Connected {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Carrier::Plain(socket) => (&mut &*socket).read(buffer),
            Carrier::Tls(session) => session.read(buffer),
        }
    }
}

impl Write for &Connected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Carrier::Plain(socket) => (&mut &*socket).write(bytes),
            Carrier::Tls(session) => session.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.0 {
            Carrier::Plain(_) => Ok(()),
            Carrier::Tls(session) => session.flush(),
        }
    }
}

/// A [`Connected`] whose reads must all be over at a certain moment.
#[derive(Debug)]
pub struct Until<'a> {
    /// The stream.
    pub connected: &'a Connected,
    /// The moment.
    pub deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The kernel reads a timeout of zero as none.
        self.connected
            .set_read_timeout(left.max(Duration::from_millis(1)))?;
        (&mut self.connected).read(buffer)
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut self.connected).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&mut self.connected).flush()
    }
}

fn send_plain(socket: &Socket, bytes: &[u8], timeout: Duration) -> io::Result<Sent> {
    let deadline = Instant::now() + timeout;
    loop {
        let ready = wait(
            socket.as_fd(),
            PollFlags::POLLIN | PollFlags::POLLOUT,
            deadline,
        )?;
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            return Ok(Sent::Answered);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match socket.send_with_flags(bytes, flags.bits()) {
            Ok(length) => return Ok(Sent::Taken(length)),
            Err(error) if is_no_error(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the socket can do one of `events`; "would block" when the deadline passes before.
fn wait(socket: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> io::Result<PollFlags> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last part of a millisecond is not spun through.
        let left = left.as_millis() + u128::from(!left.is_zero());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut sockets = [PollFd::new(socket, events)];
        match poll(&mut sockets, timeout) {
            Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => return Ok(sockets[0].revents().unwrap_or(PollFlags::POLLERR)),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the server has closed before us.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Whether a call on a socket is simply to be made again, at once or when the socket is ready.
fn is_no_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// A TLS session with a server in the same process, for the tests of what is built on it.
#[cfg(test)]
pub fn tls_pair() -> (Connected, session::tests::Peer) {
    let (session, peer) = session::tests::pair();
    (Connected(Carrier::Tls(Box::new(session))), peer)
}
