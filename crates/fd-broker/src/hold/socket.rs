//! One socket that is held: what it is, and where.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::sys::stat::fstat;
use portyard_core::endpoint::Transport;
use portyard_core::fdpass;
use portyard_core::listen::local_endpoint;
use portyard_core::wire::hold::Kind;
use socket2::Socket;

/// A held socket. Cheap to clone, for a message that passes it on.
#[derive(Debug, Clone)]
pub struct HeldSocket {
    descriptor: Arc<OwnedFd>,
    /// Where it is bound, as an endpoint; empty where nobody can say.
    pub place: String,
}

impl HeldSocket {
    /// Looks at a descriptor: only a socket that listens, or takes datagrams of anybody, is held. An
    /// error says what it is instead.
    pub fn new(descriptor: OwnedFd) -> Result<(Kind, Self), String> {
        let found = fdpass::Kind::of(&descriptor).map_err(|error| error.to_string())?;
        let kind = match found {
            fdpass::Kind::Listener(fdpass::SocketType::Stream) => Kind::Stream,
            fdpass::Kind::Listener(fdpass::SocketType::SeqPacket) => Kind::Packet,
            fdpass::Kind::Datagram => Kind::Datagram,
            other => {
                return Err(format!(
                    "the descriptor is {other}; only listening sockets and datagram sockets are held"
                ));
            }
        };
        let transport = match kind {
            Kind::Stream => Transport::Stream,
            Kind::Packet => Transport::SeqPacket,
            Kind::Datagram => Transport::Datagram,
        };
        let socket = Socket::from(descriptor);
        let place = local_endpoint(&socket, transport);
        let descriptor = OwnedFd::from(socket);
        let held = Self {
            descriptor: Arc::new(descriptor),
            place: place.map_or_else(String::new, |place| place.to_string()),
        };
        Ok((kind, held))
    }

    /// Another descriptor of it.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }
}

impl AsFd for HeldSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What tells a socket from every other: the number of its inode, which all its descriptors share in all
/// processes.
pub fn identity(socket: impl AsFd) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}
