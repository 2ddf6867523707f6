//! Connections whose bytes pass through us: to another place, or to a program behind TLS, a proved key
//! or a PROXY header.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use portyard_core::endpoint::Endpoint;
use portyard_core::serve::{Connection, Ended};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::config::Detail;
use super::entry::Entry;
use super::metrics::{Refusal, ServiceMetrics};

/// What has passed in each direction.
#[derive(Debug, Default)]
pub struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counts {
    /// Bytes from the peer, bytes to the peer.
    pub fn get(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.received), load(&self.sent))
    }
}

/// The far end of a relay, counting.
struct Counted<S> {
    stream: S,
    counts: Arc<Counts>,
}

/// Passes bytes between a connection and `far`, each direction to its own end, until both have ended.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection,
    far: S,
    counts: Arc<Counts>,
) -> Ended {
    let mut far = Counted {
        stream: far,
        counts,
    };
    match copy_bidirectional(connection, &mut far).await {
        Ok(_) => {
            drop(far);
            connection.finish().await;
            Ended::Done
        }
        // One side has broken the connection; the other shall know.
        Err(_) => Ended::Broken,
    }
}

/// Serves a connection by passing it on to another place.
pub async fn redirect(
    mut connection: Connection,
    entry: Arc<Entry>,
    target: Endpoint,
    metrics: ServiceMetrics,
) -> Ended {
    connection.busy();
    let connected = timeout(CONNECT_WAIT, Far::connect(&target)).await;
    let far = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(far) => far,
        Err(error) => {
            metrics.refuse(Refusal::Target);
            if let Some(held) = FAILURES.with(portyard_core::observe::Throttle::pass) {
                tracing::warn!(service = %entry.name, %target, %error, held, "cannot pass a connection on");
            }
            if let Some(text) = &entry.refusal {
                let _ = connection.write_all(text).await;
                connection.finish().await;
            }
            return Ended::Broken;
        }
    };
    connection.rested();
    let report = Report {
        peer: connection.peer().to_string(),
        entry,
        target,
        counts: Arc::default(),
        since: Instant::now(),
    };
    if !report.entry.banner.is_empty()
        && let Err(error) = connection.write_all(&report.entry.banner).await
    {
        return error.into();
    }
    report.begin();
    relay(&mut connection, far, report.counts.clone()).await
}

thread_local! {
    /// Where failures are logged at most once a second.
    static FAILURES: portyard_core::observe::Throttle = portyard_core::observe::Throttle::new();
}

/// Tells of a connection that was passed on when it ends, however it ends.
struct Report {
    entry: Arc<Entry>,
    target: Endpoint,
    peer: String,
    counts: Arc<Counts>,
    since: Instant,
}

impl Report {
    fn begin(&self) {
        if self.entry.log == Detail::Both {
            tracing::info!(service = %self.entry.name, peer = %self.peer, target = %self.target, "passed on");
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.entry.log == Detail::Off {
            return;
        }
        let (received, sent) = self.counts.get();
        let took = self.since.elapsed();
        tracing::info!(
            service = %self.entry.name, peer = %self.peer, target = %self.target, ?took, received, sent, "ended"
        );
    }
}

/// A connection to another place.
enum Far {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Far {
    /// Connects. A name is looked up each time, so that a change of it is noticed.
    async fn connect(target: &Endpoint) -> io::Result<Self> {
        match target {
            Endpoint::Tcp(at) => {
                let stream = TcpStream::connect(at.to_string()).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Endpoint::Abstract(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                // Over a Unix socket a connection is there at once, or not at all.
                let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Self::Unix)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

macro_rules! either {
    ($self:expr, $stream:ident => $what:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $what,
            Self::Unix($stream) => $what,
        }
    };
}

impl AsyncRead for Far {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Far {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let length = buffer.filled().len() - before;
        this.counts.sent.fetch_add(length as u64, Ordering::Relaxed);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = &written {
            this.counts
                .received
                .fetch_add(*length as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// How long a target has to take a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(10);
