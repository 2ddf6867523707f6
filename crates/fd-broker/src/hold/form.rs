//! What is held, in the words of the protocol and back.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use portyard_core::listen::Handed;
use portyard_core::wire::hold::{self as wire, Entry, Kind, Name};

use super::socket::HeldSocket;
use super::table::{Held, Table};

/// A socket that a predecessor had bound, as [`Inherited`] takes it.
pub(super) fn handed(bound: &wire::Bound, descriptor: OwnedFd) -> Handed {
    Handed {
        endpoint: bound.endpoint.clone(),
        label: bound.listener.clone(),
        opening: bound.opening,
        socket: descriptor.into(),
    }
}

/// Holds again what was held before, so long ago; false where it is of no use any more.
pub(super) fn put_back(
    table: &mut Table<HeldSocket>,
    held: &wire::Held,
    ago: Duration,
    descriptors: Vec<OwnedFd>,
) -> bool {
    let name = &held.name;
    let mut sockets = Vec::new();
    for descriptor in descriptors {
        match HeldSocket::new(descriptor) {
            Ok(socket) => sockets.push(socket),
            Err(why) => {
                tracing::warn!(%name, why, "what was held is of no use any more");
                return false;
            }
        }
    }
    let now = Instant::now();
    let left = held.expiry.map(|expiry| expiry.saturating_sub(ago));
    let held = Held {
        sockets,
        origin: held.origin,
        since: now.checked_sub(held.age + ago).unwrap_or(now),
        until: left.and_then(|left| now.checked_add(left)),
        retrieved: held.retrieved,
    };
    table.put(name.clone(), held);
    true
}

/// What a successor is told of it.
pub(super) fn record(name: &Name, held: &Held<HeldSocket>, now: Instant) -> wire::Held {
    wire::Held {
        name: name.clone(),
        origin: held.origin,
        age: now.saturating_duration_since(held.since),
        expiry: held.until.map(|until| left(until, now)),
        retrieved: held.retrieved,
        kinds: held.sockets.iter().map(|(kind, _)| *kind).collect(),
    }
}

/// What a list says of it.
pub(super) fn entry(name: &Name, held: &Held<HeldSocket>, now: Instant) -> Entry {
    let socket = |(kind, socket): &(Kind, HeldSocket)| (*kind, socket.place.clone());
    Entry {
        name: name.clone(),
        origin: held.origin,
        age: now.saturating_duration_since(held.since),
        expiry: held.until.map(|until| left(until, now)),
        retrieved: held.retrieved,
        sockets: held.sockets.iter().map(socket).collect(),
    }
}

/// How much longer.
pub(super) fn left(until: Instant, now: Instant) -> Duration {
    until.saturating_duration_since(now)
}
