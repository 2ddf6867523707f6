//! Stream connections: accept, permit, access list, PROXY header, TLS, authentication, service; every
//! wait with a deadline.
//!
//! [`accept`] takes connections and decides who is served, [`Connection`] is what a service talks
//! through, and the loop's [`Registry`] holds each connection to its deadlines and ends all of
//! them when the daemon drains.

mod accept;
mod admission;
mod bulk;
mod connection;
mod establish;
mod line;
mod registry;
mod shed;
mod stream;
mod trust;

use std::future::Future;
use std::pin::Pin;

pub use accept::{Acceptor, serve_connected};
pub use bulk::Sum;
pub use connection::{Connection, Peer, Place};
pub use line::{Line, LineReader};
pub(crate) use registry::Registry;
pub(crate) use shed::AcceptFault;
pub use shed::Reserve;
pub use stream::Stream;
pub use trust::{Balancers, Trust};

use crate::observe::metrics::Ending;

/// How a service left its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All is said: what was written is delivered, then the connection closes with FIN.
    Done,
    /// The connection broke, or the peer broke the rules: it is closed at once.
    Broken,
    /// The peer broke the rules; counted, and closed after what was written is delivered.
    Protocol,
    /// The peer did not get as far as the service.
    Unproved(Ending),
}

impl From<std::io::Error> for Ended {
    /// An error on the socket is the end of the connection and nobody else's trouble.
    fn from(_: std::io::Error) -> Self {
        Self::Broken
    }
}

/// The running of one connection.
pub type Serving = Pin<Box<dyn Future<Output = Ended>>>;

/// What a stream listener serves. One value serves all its connections on all loops.
pub trait StreamService: Send + Sync + 'static {
    /// Serves one connection to its end. The future is polled on the connection's own loop, and
    /// dropped when a deadline or the end of the grace period cuts the connection.
    fn serve(&self, connection: Connection) -> Serving;
}
