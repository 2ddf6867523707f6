//! A connection on its way through the broker.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use portyard_core::limits::Prefix;
use portyard_core::listener::{Permit, source_of};
use portyard_core::serve::{Accepted, Peer, monotonic};
use portyard_core::sockdiag::{Touch, touch};
use socket2::{SockRef, Socket};

use super::balance::mix;
use super::config::WhenNobody;
use super::machine::Trace;
use crate::peek::Peeked;

/// A connection on its way through the broker. Dropping it gives its permit back.
pub struct Handed {
    /// The broker's copy, until a worker has taken the connection.
    pub socket: Option<OwnedFd>,
    /// Who has connected.
    pub peer: Peer,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`, which all processes share.
    pub arrival: u64,
    /// What was seen of its first bytes, where somebody has looked.
    pub peeked: Option<Box<Peeked>>,
    /// Its place under the limits of its listener, until it ends.
    pub place: Place,
    /// Its cookie, while the kernel is to tell of its end.
    pub watched: Cell<Option<u64>>,
    /// Whether its descriptors wait in calls, which all copies share.
    blocking: Cell<bool>,
}

/// The place of a connection under the limits of its listener.
pub enum Place {
    /// It has one.
    Taken(Permit),
    /// A predecessor had accepted it, and here there is no room, or no such listener: its name.
    None(String),
}

impl Handed {
    /// A connection of a worker that a predecessor had, with the predecessor's copy if the worker has not
    /// taken it.
    pub fn bequeathed(socket: Option<OwnedFd>, place: Place) -> Self {
        let address = socket.as_ref().and_then(|socket| {
            let address = SockRef::from(socket).peer_addr().ok()?;
            address.as_socket()
        });
        Self {
            socket,
            peer: address.map_or(Peer::Local, Peer::Internet),
            arrival: monotonic(),
            peeked: None,
            place,
            watched: Cell::new(None),
            // As the worker, which does not know of such things, got it.
            blocking: Cell::new(true),
        }
    }

    /// The name of the listener that accepted it.
    pub fn listener(&self) -> &str {
        match &self.place {
            Place::Taken(permit) => &permit.listener().name,
            Place::None(name) => name,
        }
    }

    /// It is in another process, and takes none of our descriptors.
    pub fn leave_daemon(&mut self) {
        if let Place::Taken(permit) = &mut self.place {
            permit.leave_daemon();
        }
    }

    /// A connection that has just been accepted.
    pub fn new(accepted: Accepted, peeked: Option<Box<Peeked>>) -> Self {
        Self {
            socket: Some(accepted.socket),
            peer: accepted.peer,
            arrival: accepted.arrival,
            peeked,
            place: Place::Taken(accepted.permit),
            watched: Cell::new(None),
            blocking: Cell::new(false),
        }
    }

    /// A hash of where it comes from: the same for one IPv4 address or IPv6 /64.
    pub fn source(&self) -> u64 {
        mix(match source_of(self.peer.ip()) {
            Prefix::V4(bits) => u64::from(bits),
            Prefix::V6(bits) => bits,
            Prefix::Local => u64::MAX,
        })
    }

    /// The broker's copy, its flags as a worker of this kind wants them; `None` once it is gone.
    pub fn for_worker(&self, blocking: bool) -> io::Result<Option<BorrowedFd<'_>>> {
        let Some(socket) = &self.socket else {
            return Ok(None);
        };
        if self.blocking.get() != blocking {
            let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
            let wanted = if blocking {
                flags - OFlag::O_NONBLOCK
            } else {
                flags | OFlag::O_NONBLOCK
            };
            fcntl(socket, FcntlArg::F_SETFL(wanted))?;
            self.blocking.set(blocking);
        }
        Ok(Some(socket.as_fd()))
    }

    /// What the kernel says of it.
    pub fn trace(&self) -> Trace {
        match &self.socket {
            Some(socket) if matches!(touch(socket), Ok(Touch::None)) => Trace::Untouched,
            _ => Trace::Touched,
        }
    }

    /// Ends it for everybody who has a copy.
    pub fn end(&self) {
        if let Some(socket) = &self.socket {
            // An error means that it has ended already.
            let _ = SockRef::from(socket).shutdown(Shutdown::Both);
        }
    }

    /// Ends it without a worker.
    pub fn answer(self, how: WhenNobody, banner: &str) {
        let Some(socket) = self.socket.map(Socket::from) else {
            return;
        };
        // An error means that the client has gone by itself.
        let _ = match how {
            WhenNobody::Reset => socket.set_linger(Some(Duration::ZERO)),
            WhenNobody::Close => end(&socket, &[]),
            WhenNobody::Banner => end(&socket, banner.as_bytes()),
        };
    }
}

/// Says the last word and FIN. What the client has sent is read first, because a close with unread data
/// is a reset.
fn end(mut socket: &Socket, last: &[u8]) -> io::Result<()> {
    SockRef::from(socket).set_nonblocking(true)?;
    // Shorter than any send buffer.
    let written = socket.write(last);
    socket.shutdown(Shutdown::Write)?;
    let mut thrown_away = [0; 4096];
    for _ in 0..READS_MAX {
        if !matches!(socket.read(&mut thrown_away), Ok(1..)) {
            break;
        }
    }
    written.map(|_| ())
}

/// How much a client may have sent before a close is a reset all the same: 64 KiB.
const READS_MAX: usize = 16;
