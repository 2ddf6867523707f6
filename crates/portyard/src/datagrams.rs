//! A connected datagram socket that can be awaited, UDP or Unix.

use std::io;

use socket2::{Domain, Socket};
use tokio::net::{UdpSocket, UnixDatagram};

/// Sends to and receives from one peer.
#[derive(Debug)]
pub enum Datagrams {
    /// UDP.
    Internet(UdpSocket),
    /// Unix.
    Unix(UnixDatagram),
}

impl Datagrams {
    /// Takes a connected, non-blocking datagram socket. To be called inside a runtime.
    pub fn new(socket: Socket) -> io::Result<Self> {
        if socket.domain()? == Domain::UNIX {
            UnixDatagram::from_std(socket.into()).map(Self::Unix)
        } else {
            UdpSocket::from_std(socket.into()).map(Self::Internet)
        }
    }

    /// Sends one datagram.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Internet(socket) => socket.send(bytes).await,
            Self::Unix(socket) => socket.send(bytes).await,
        }
    }

    /// Receives one datagram; what does not fit is cut off.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Internet(socket) => socket.recv(buffer).await,
            Self::Unix(socket) => socket.recv(buffer).await,
        }
    }
}
