//! Connections to the servers behind routes.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::StatusCode;
use portyard_core::endpoint::{Endpoint, Host};
use portyard_core::tls::ClientTls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::http::Problem;

/// A stream to a server.
pub enum Upstream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// How a server is spoken to that speaks TLS.
pub struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Secure {
    /// Reads the files, and whom the certificate must be for.
    pub fn new(tls: &ClientTls, endpoint: &Endpoint) -> Result<Self, String> {
        let host = match endpoint {
            Endpoint::Tcp(at) | Endpoint::Bare(at) => Some(&at.host),
            _ => None,
        };
        Ok(Self {
            name: tls.name(host).map_err(|error| error.to_string())?,
            config: tls.config().map_err(|error| error.to_string())?,
        })
    }

    async fn begin(&self, stream: Upstream) -> io::Result<Upstream> {
        let Upstream::Tcp(stream) = stream else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(Upstream::Tls(Box::new(stream)))
    }
}

impl Upstream {
    /// Connects.
    pub async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Endpoint::Abstract(name) => {
                // tokio's spelling of an abstract name.
                let path = format!("\0{name}");
                UnixStream::connect(Path::new(&path)).await.map(Self::Unix)
            }
            Endpoint::Tcp(at) | Endpoint::Bare(at) => {
                let stream = match &at.host {
                    Host::Ip(ip) => TcpStream::connect((*ip, at.port)).await?,
                    Host::Name(name) => TcpStream::connect((name.as_str(), at.port)).await?,
                };
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Connects within a time to what is behind a route, TLS included.
    pub async fn connect(
        endpoint: &Endpoint,
        secure: Option<&Secure>,
        within: Duration,
    ) -> Result<Self, Problem> {
        let opening = async {
            let stream = Self::open(endpoint).await?;
            match secure {
                Some(secure) => secure.begin(stream).await,
                None => Ok(stream),
            }
        };
        match timeout(within, opening).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                tracing::warn!(%endpoint, %error, "the server behind a route cannot be reached");
                Err(unreachable())
            }
            Err(_) => {
                tracing::warn!(%endpoint, "the server behind a route does not accept a connection");
                Err(unreachable())
            }
        }
    }
}

/// Whether a stream can be made to an endpoint.
pub fn check(endpoint: &Endpoint) -> Result<(), String> {
    match endpoint {
        Endpoint::Tcp(_) | Endpoint::Bare(_) | Endpoint::Unix(_) | Endpoint::Abstract(_) => Ok(()),
        other => Err(format!(
            "{other} cannot be connected to; use tcp:// or unix:"
        )),
    }
}

/// What is behind us cannot be reached. Where it is is nobody's business.
fn unreachable() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "the server behind this path cannot be reached",
    )
}

/// What is behind us does not keep to its protocol.
pub fn broken() -> Problem {
    Problem::new(
        StatusCode::BAD_GATEWAY,
        "the server behind this path broke off",
    )
}

impl AsyncRead for Upstream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Upstream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // What the kernel has is on its way.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
