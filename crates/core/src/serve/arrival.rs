//! A connection before anything is done with it, and one that a service takes as it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use socket2::{SockRef, Socket};

use super::admission;
use super::{Peer, Stream};
use crate::access::Identity;
use crate::config::AtLimit;
use crate::event_loop::EventLoop;
use crate::listener::{Listener, Permit, Streams};
use crate::observe::metrics::Refusal;
use crate::worker::Ticket;
use portyard_wire::broker::Why;

/// A connection that the kernel has handed over. No loop knows of it yet, so that one that is turned
/// away, or goes on to another process, costs no registration.
pub(super) struct Arrival {
    pub socket: Socket,
    pub is_unix: bool,
    pub peer: Peer,
    /// What stands for it towards the broker that has accepted it, if one has.
    pub ticket: Option<Ticket>,
}

impl Arrival {
    /// For a session on the current loop.
    pub fn into_stream(self) -> Stream {
        Stream::new(self.socket, self.is_unix)
    }

    /// The process at the other end of a Unix socket, as it was when it connected.
    pub fn user(&self) -> io::Result<Identity<'static>> {
        user(&self.socket)
    }

    /// Closes it with a reset (RST).
    pub fn reset(self) {
        reset_on_close(&self.socket);
    }

    /// Gives it back to the broker that it comes from; closes it when it comes from none.
    pub fn give_back(self, why: Why) {
        // Our copy is closed before anybody else hears of it.
        drop(self.socket);
        if let Some(ticket) = self.ticket {
            ticket.refuse(why);
        }
    }
}

/// A connection that a service takes as it is ([`super::StreamService::take`]): not registered with any
/// loop, not a byte of it read, non-blocking.
pub struct Accepted {
    /// The socket.
    pub socket: OwnedFd,
    /// Who is at the other end.
    pub peer: Peer,
    /// When it was accepted, in nanoseconds of `CLOCK_MONOTONIC`.
    pub arrival: u64,
    /// Its right to exist under the limits of its listener, its source and the daemon. To be kept for
    /// as long as the connection exists, in whatever process.
    pub permit: Permit,
    pub(super) is_unix: bool,
}

impl Accepted {
    pub(super) fn new(arrival: Arrival, permit: Permit) -> Self {
        Self {
            socket: arrival.socket.into(),
            peer: arrival.peer,
            arrival: monotonic(),
            permit,
            is_unix: arrival.is_unix,
        }
    }

    /// The listener that accepted it.
    pub fn listener(&self) -> &Arc<Listener<Streams>> {
        self.permit.listener()
    }

    /// The process at the other end of a Unix socket, as it was when it connected.
    pub fn user(&self) -> io::Result<Identity<'static>> {
        user(&self.socket)
    }

    /// Counts it as refused and ends it: with a reset, or with the listener's banner for
    /// [`AtLimit::Banner`]. To be called on a loop.
    pub fn turn_away(self, home: &Rc<EventLoop>, why: Refusal, how: AtLimit) {
        let listener = self.permit.listener().clone();
        let arrival = Arrival {
            socket: self.socket.into(),
            is_unix: self.is_unix,
            peer: self.peer,
            ticket: None,
        };
        admission::turn_away(home, &listener, arrival, why, how);
    }
}

impl AsFd for Accepted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The process at the other end of a Unix socket, as it was when it connected (`SO_PEERCRED`,
/// unix(7)).
pub(super) fn user(socket: &impl AsFd) -> io::Result<Identity<'static>> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(Identity::User {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
    })
}

/// Makes the coming close a reset (RST), which tells the peer that something was lost.
pub(super) fn reset_on_close(socket: &impl AsFd) {
    // An error means that the connection is gone already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share.
pub fn monotonic() -> u64 {
    // The clock exists on every Linux.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let nanoseconds = i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec());
        u64::try_from(nanoseconds).unwrap_or_default()
    })
}
