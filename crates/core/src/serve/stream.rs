//! The byte stream under a connection: TCP or a Unix socket, or TLS over one of them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::Socket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::arrival;
use super::plain::Plain;
use crate::access::Identity;

/// A connected stream socket, used on one loop.
#[derive(Debug)]
pub enum Stream {
    /// TCP, or a Unix socket.
    Plain(Plain, Family),
    /// TLS, over one of the others.
    Tls(Box<TlsStream<Stream>>),
}

/// What a socket is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// An Internet address.
    Internet,
    /// A file, or an abstract name, of this machine.
    Unix,
}

impl Stream {
    /// A connected, non-blocking socket.
    pub(crate) fn new(socket: Socket, is_unix: bool) -> Self {
        let family = if is_unix {
            Family::Unix
        } else {
            Family::Internet
        };
        Self::Plain(Plain::new(socket), family)
    }

    /// Whether what is written is kept for a while and encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Plain(_, Family::Unix))
    }

    /// The socket, where its bytes are those of the stream.
    pub(super) fn plain(&mut self) -> io::Result<&mut Plain> {
        match self {
            Self::Plain(plain, _) => Ok(plain),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The Unix socket, where it is one: the only kind that passes descriptors.
    pub(super) fn unix(&mut self) -> io::Result<&mut Plain> {
        match self {
            Self::Plain(plain, Family::Unix) => Ok(plain),
            Self::Plain(..) | Self::Tls(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "descriptors are passed over Unix sockets only",
            )),
        }
    }

    /// Whether something that was written waits to be sent.
    pub fn has_kept(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
            Self::Plain(..) => false,
        }
    }

    /// The protocol that was agreed on by ALPN (RFC 7301).
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Self::Plain(..) => None,
        }
    }

    /// The client's certificate, as DER, where TLS asked for one and got it.
    pub fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(stream) => {
                let shown = stream.get_ref().1.peer_certificates()?;
                shown.first().map(AsRef::as_ref)
            }
            Self::Plain(..) => None,
        }
    }

    /// The process at the other end of a Unix socket, as it was when it connected.
    pub fn user(&self) -> io::Result<Identity<'static>> {
        arrival::user(self)
    }

    /// Makes the coming close a reset (RST), which tells the peer that something was lost.
    pub fn reset_on_close(&self) {
        arrival::reset_on_close(self);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(plain, _) => plain.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain, _) => Pin::new(plain).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain, _) => Pin::new(plain).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    // TLS writes its records in one call with it, and its alert behind a ServerHello at all.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(plain, _) => Pin::new(plain).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain, _) => Pin::new(plain).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(plain, _) => Pin::new(plain).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
