//! Descriptors passed between processes over Unix sockets (unix(7), `SCM_RIGHTS`).
//!
//! The kernel has ways of losing descriptors without an error, and each is closed here: a [`Channel`]
//! exists over Unix sockets only, because others drop them; a message has at least one byte, because
//! without one it may never arrive; what was cut off for want of room ([`ReceiveError::Cut`]) closes
//! the rest; and whoever receives says how many it expects. What comes is close-on-exec from its first
//! moment. What a descriptor is, is asked with [`Kind::of`] before it is used.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;
use socket2::{Domain, SockRef, Type};

use crate::sys;
pub use crate::sys::DESCRIPTORS_MAX;

/// A Unix socket, over which descriptors can be passed.
#[derive(Debug)]
pub struct Channel<S = OwnedFd> {
    socket: S,
}

/// A message that came.
#[derive(Debug)]
pub struct Message {
    /// How many bytes of the buffer it filled; 0 is the end of the stream.
    pub length: usize,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Why a message is of no use. Whatever came with it has been closed.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The kernel refused; `WouldBlock` when nothing is there.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Descriptors were lost.
    #[error(
        "descriptors were lost on their way, because this process may not open more; \
         raise LimitNOFILE"
    )]
    Cut,
    /// The packet was longer than the buffer.
    #[error("a message was longer than the {0} bytes that are allowed")]
    TooLong(usize),
    /// Not as many descriptors as announced or expected.
    #[error("{came} descriptors came where {wanted} are due")]
    Manifest {
        /// What came.
        came: usize,
        /// What was due.
        wanted: usize,
    },
}

impl<S: AsFd> Channel<S> {
    /// Passes descriptors over `socket`; an error when that is not a Unix socket.
    pub fn new(socket: S) -> io::Result<Self> {
        if SockRef::from(&socket).domain()? == Domain::UNIX {
            Ok(Self { socket })
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "descriptors are passed over Unix sockets only; other sockets drop them silently",
            ))
        }
    }

    /// The socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// The socket, for another use.
    pub fn into_socket(self) -> S {
        self.socket
    }

    /// Sends a message with copies of `descriptors`, without blocking, and returns how much of it went
    /// out: less than all only over a byte stream, where the rest is to be sent without descriptors.
    ///
    /// `bytes` has one byte at least, `descriptors` are at most [`DESCRIPTORS_MAX`]. `WouldBlock` when
    /// the peer has left too many messages unread; `ETOOMANYREFS` when this user has more descriptors
    /// under way than one of its processes may open.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        send(self.socket.as_fd(), bytes, descriptors)
    }

    /// Receives what is there into `buffer`, without blocking. How many descriptors should have come
    /// is the caller's to check, with [`Message::expect`].
    ///
    /// A byte stream hands out bytes that were sent before a message with descriptors together with
    /// its first byte, but never two messages with descriptors at once.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Message, ReceiveError> {
        receive(self.socket.as_fd(), buffer)
    }

    /// A second way to the same socket, for another owner. Both close it only together.
    pub fn share(&self) -> io::Result<Channel> {
        let socket = self.socket.as_fd().try_clone_to_owned()?;
        Ok(Channel { socket })
    }
}

/// Sends over a socket that is known to be a Unix socket; see [`Channel::send`].
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    if bytes.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a message without a byte may never arrive",
        ));
    }
    sys::send_message(socket, bytes, descriptors)
}

/// Receives from a socket that is known to be a Unix socket; see [`Channel::receive`].
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Message, ReceiveError> {
    let size = buffer.len();
    let incoming = sys::receive_message(socket, buffer)?;
    if incoming.control_cut {
        return Err(ReceiveError::Cut);
    }
    if incoming.bytes_cut {
        return Err(ReceiveError::TooLong(size));
    }
    Ok(Message {
        length: incoming.length,
        descriptors: incoming.descriptors,
    })
}

impl<S: AsFd> AsFd for Channel<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<ReceiveError> for io::Error {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

impl Message {
    /// The descriptors, if `wanted` of them came.
    pub fn expect(self, wanted: usize) -> Result<Vec<OwnedFd>, ReceiveError> {
        let came = self.descriptors.len();
        if came == wanted {
            Ok(self.descriptors)
        } else {
            Err(ReceiveError::Manifest { came, wanted })
        }
    }
}

/// What a descriptor is. A name that comes with it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A listening socket: TCP or Unix, of this type.
    Listener(SocketType),
    /// A connected socket, or one end of a pair.
    Connection(SocketType),
    /// A datagram socket without a fixed peer.
    Datagram,
    /// A socket that neither listens nor is connected, or of a family that is not served.
    OtherSocket,
    /// A file, a pipe, a device, a directory: no socket.
    File,
}

/// How a socket keeps what is sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketType {
    /// A byte stream.
    Stream,
    /// Whole messages, in order, over a connection.
    SeqPacket,
    /// Datagrams.
    Datagram,
}

impl Kind {
    /// Asks the kernel what a descriptor is.
    pub fn of(descriptor: impl AsFd) -> io::Result<Self> {
        if fstat(&descriptor)?.st_mode & libc::S_IFMT != libc::S_IFSOCK {
            return Ok(Self::File);
        }
        let socket = SockRef::from(&descriptor);
        if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&socket.domain()?) {
            return Ok(Self::OtherSocket);
        }
        let kind = match socket.r#type()? {
            Type::STREAM => SocketType::Stream,
            Type::SEQPACKET => SocketType::SeqPacket,
            Type::DGRAM => SocketType::Datagram,
            _ => return Ok(Self::OtherSocket),
        };
        if socket.is_listener()? {
            return Ok(Self::Listener(kind));
        }
        Ok(match (kind, socket.peer_addr().is_ok()) {
            (_, true) => Self::Connection(kind),
            (SocketType::Datagram, false) => Self::Datagram,
            (_, false) => Self::OtherSocket,
        })
    }

    /// What it is, to be put into a sentence.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Listener(SocketType::SeqPacket) => "a listening socket for messages",
            Self::Listener(_) => "a listening stream socket",
            Self::Connection(SocketType::SeqPacket) => "a connection of messages",
            Self::Connection(SocketType::Datagram) => "a connected datagram socket",
            Self::Connection(SocketType::Stream) => "a connection",
            Self::Datagram => "a datagram socket",
            Self::OtherSocket => {
                "a socket that neither listens nor is connected, or of another family"
            }
            Self::File => "no socket",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// Lets nobody pass descriptors to this socket, or to those that are accepted from it: whoever tries is
/// told so (`SO_PASSRIGHTS`). A kernel before Linux 6.16 does not know how, and drops them when the
/// message is read without room for them; until then they count against the sender's limit.
pub fn refuse_descriptors(socket: impl AsFd) {
    let _ = sys::set_pass_rights(socket.as_fd(), false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    fn pair(kind: SockType) -> (Channel, Channel) {
        let (a, b) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    fn same_file(a: impl AsFd, b: impl AsFd) -> bool {
        let (a, b) = (fstat(a).unwrap(), fstat(b).unwrap());
        (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
    }

    #[test]
    fn other_sockets_would_drop_descriptors_and_are_refused() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let error = Channel::new(client).unwrap_err();
        assert!(error.to_string().contains("Unix sockets only"), "{error}");
        assert!(Channel::new(UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
        assert!(Channel::new(File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn a_message_without_a_byte_is_refused() {
        let file = File::open("/dev/null").unwrap();
        for kind in [SockType::Stream, SockType::SeqPacket] {
            let (a, b) = pair(kind);
            let error = a.send(&[], &[file.as_fd()]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            let nothing = b.receive(&mut [0; 8]).unwrap_err();
            assert_eq!(io::Error::from(nothing).kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn descriptors_arrive_in_order_and_close_on_exec() {
        for kind in [SockType::Stream, SockType::SeqPacket, SockType::Datagram] {
            let (a, b) = pair(kind);
            let (one, two) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
            a.send(b"hi", &[one.as_fd(), two.as_fd(), one.as_fd()])
                .unwrap();
            let mut buffer = [0; 8];
            let message = b.receive(&mut buffer).unwrap();
            assert_eq!(&buffer[..message.length], b"hi");
            let came = message.expect(3).unwrap();
            assert!(same_file(&came[0], &one) && same_file(&came[1], &two));
            assert!(same_file(&came[2], &one));
            for descriptor in &came {
                let flags = fcntl(descriptor, FcntlArg::F_GETFD).unwrap();
                assert_ne!(flags & FdFlag::FD_CLOEXEC.bits(), 0);
            }
        }
    }

    #[test]
    fn the_most_descriptors_arrive_and_one_more_is_refused() {
        let (a, b) = pair(SockType::SeqPacket);
        let file = File::open("/dev/null").unwrap();
        let most = vec![file.as_fd(); DESCRIPTORS_MAX];
        a.send(b"x", &most).unwrap();
        let message = b.receive(&mut [0; 1]).unwrap();
        assert_eq!(
            message.expect(DESCRIPTORS_MAX).unwrap().len(),
            DESCRIPTORS_MAX
        );
        let more = vec![file.as_fd(); DESCRIPTORS_MAX + 1];
        let error = a.send(b"x", &more).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn another_number_than_expected_closes_what_came() {
        let (a, b) = pair(SockType::SeqPacket);
        let (ours, theirs) = UnixStream::pair().unwrap();
        a.send(b"x", &[theirs.as_fd()]).unwrap();
        drop(theirs);
        let message = b.receive(&mut [0; 1]).unwrap();
        let error = message.expect(2).unwrap_err();
        let counts = ReceiveError::Manifest { came: 1, wanted: 2 };
        assert_eq!(error.to_string(), counts.to_string());
        // With its last copy closed, the other end sees the end of the stream.
        assert_eq!(
            Kind::of(&ours).unwrap(),
            Kind::Connection(SocketType::Stream)
        );
        assert_eq!(io::Read::read(&mut &ours, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_an_error_and_closes_what_came() {
        let (a, b) = pair(SockType::SeqPacket);
        let (ours, theirs) = UnixStream::pair().unwrap();
        a.send(b"12345", &[theirs.as_fd()]).unwrap();
        drop(theirs);
        let error = b.receive(&mut [0; 4]).unwrap_err();
        assert!(matches!(error, ReceiveError::TooLong(4)), "{error}");
        assert_eq!(io::Read::read(&mut &ours, &mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(&path).unwrap();
        let (datagram, _peer) = UnixDatagram::pair().unwrap();
        let (messages, _other) = pair(SockType::SeqPacket);
        let idle = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let of = |descriptor: BorrowedFd<'_>| Kind::of(descriptor).unwrap();
        assert_eq!(of(tcp.as_fd()), Kind::Listener(SocketType::Stream));
        assert_eq!(of(unix.as_fd()), Kind::Listener(SocketType::Stream));
        assert_eq!(of(client.as_fd()), Kind::Connection(SocketType::Stream));
        assert_eq!(
            of(messages.as_fd()),
            Kind::Connection(SocketType::SeqPacket)
        );
        assert_eq!(of(datagram.as_fd()), Kind::Connection(SocketType::Datagram));
        assert_eq!(of(udp.as_fd()), Kind::Datagram);
        udp.connect("127.0.0.1:9").unwrap();
        assert_eq!(of(udp.as_fd()), Kind::Connection(SocketType::Datagram));
        assert_eq!(of(idle.as_fd()), Kind::OtherSocket);
        assert_eq!(of(File::open("/dev/null").unwrap().as_fd()), Kind::File);
    }

    #[test]
    fn where_the_kernel_knows_how_the_sender_hears_that_descriptors_are_refused() {
        let (a, b) = pair(SockType::SeqPacket);
        if sys::set_pass_rights(b.as_fd(), false).is_err() {
            // Before Linux 6.16.
            return;
        }
        let file = File::open("/dev/null").unwrap();
        let error = a.send(b"x", &[file.as_fd()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(a.send(b"x", &[]).unwrap(), 1);
    }
}
