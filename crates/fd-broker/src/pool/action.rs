//! What a pool's machine wants done.

use super::connections::ConnectionId;
use super::worker::WorkerId;

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Send a connection to a worker.
    Offer(WorkerId, ConnectionId),
    /// Tell its client that nobody serves it.
    Answer(T, Unserved),
    /// Close it: a worker has died with it.
    Lost(T),
    /// Forget it: its worker has left, and whatever becomes of it is not known.
    Released(T),
    /// Part with a worker that does not answer, and then tell `leave` what the kernel says of its
    /// connections.
    Cut(WorkerId),
}

/// Why a connection is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// No worker had room for it in time.
    Timeout,
    /// The queue was full.
    Full,
    /// It went back too often.
    Redeliveries,
    /// The pool ends.
    Closing,
}
