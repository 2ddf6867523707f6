//! Stream connections: accept, permit, access list, PROXY header, TLS, authentication, service; every
//! wait with a deadline.
//!
//! [`accept`] takes connections and decides who is served, [`Connection`] is what a service talks
//! through, and the loop's [`Registry`] holds each connection to its deadlines and ends all of
//! them when the daemon drains.

mod accept;
mod admission;
mod arrival;
mod bulk;
mod connection;
mod deadlines;
mod entry;
mod establish;
mod hired;
mod line;
mod pass;
mod peek;
mod plain;
mod registry;
mod shed;
mod stream;
mod trust;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

pub use accept::{Acceptor, serve_bequest, serve_connected};
pub use arrival::{Accepted, monotonic};
pub use bulk::Sum;
pub use connection::{Bequest, Connection, Peer, Place};
pub(crate) use establish::dice;
pub use hired::{Hire, work};
pub use line::{Line, LineReader};
pub use peek::Peeked;
pub(crate) use plain::{Next, Plain};
pub(crate) use registry::Registry;
pub(crate) use shed::AcceptFault;
pub use shed::Reserve;
pub use stream::Stream;
pub use trust::{Balancers, Trust};

use crate::endpoint::Transport;
use crate::event_loop::EventLoop;
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

/// Ends when a service has room again.
pub type Room = Pin<Box<dyn Future<Output = ()>>>;

/// What a stream listener serves. One value serves all its connections on all loops.
pub trait StreamService: Send + Sync + 'static {
    /// Serves one connection to its end. The future is polled on the connection's own loop, and
    /// dropped when a deadline or the end of the grace period cuts the connection.
    fn serve(&self, connection: Connection) -> Serving;

    /// Whether it takes connections as they are, by [`StreamService::take`], instead of serving them.
    /// A listener of such a service can demand no PROXY header, TLS or key.
    fn takes_sockets(&self) -> bool {
        false
    }

    /// Takes a connection that has been admitted. It belongs to the service from here on: no deadline
    /// holds for it, no drain waits for it.
    fn take(&self, home: &Rc<EventLoop>, accepted: Accepted) {
        let _ = (home, accepted);
    }

    /// Asked before each accept, by each loop: `None` when one more is welcome, else what to wait for
    /// before asking again. Meanwhile connections wait in the kernel's backlog.
    fn room(&self) -> Option<Room> {
        None
    }

    /// Whether it serves byte streams or, over Unix sockets, whole messages
    /// ([`Transport::SeqPacket`]).
    fn transport(&self) -> Transport {
        Transport::Stream
    }
}
