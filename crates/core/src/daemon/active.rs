//! A listener that runs, and the sockets behind it.

use std::sync::Arc;

use super::plan::Planned;
use super::report::State;
use super::{Daemon, os_error};
use crate::config::SocketOptions;
use crate::endpoint::Endpoint;
use crate::event_loop::Order;
use crate::exit::Fatal;
use crate::listen::{Bound, Inherited, Shape, open, ucspi_peer};
use crate::listener::{Flavour, Listener};
use crate::serve::Peer;

/// A listener and its sockets. The loops work on duplicates, so that a listener can be replaced
/// without closing a socket.
pub struct Active<D: Daemon> {
    /// What it was opened by; a reload that names it again keeps the sockets.
    pub endpoint: Endpoint,
    /// The options it was opened with.
    pub options: SocketOptions,
    /// The listener.
    pub listener: Arc<Listener<D::Flavour>>,
    /// One socket for all loops, or one for each.
    pub bound: Vec<Bound>,
}

impl<D: Daemon> Active<D> {
    /// A new listener on these sockets.
    pub fn new(planned: &Planned<D>, bound: Vec<Bound>, state: &State<D>) -> Self {
        let (endpoint, inherited) = match bound.first() {
            Some(first) => (first.endpoint.clone(), first.inherited),
            None => (planned.endpoint.clone(), false),
        };
        let name = (planned.label.as_str(), planned.service_name);
        let listener = Listener::new(
            name,
            endpoint,
            inherited,
            state.metrics.listener(name.0, name.1),
            state.total.clone(),
            planned.settings(),
        );
        Self {
            endpoint: planned.endpoint.clone(),
            options: planned.socket.clone(),
            listener: Arc::new(listener),
            bound,
        }
    }

    /// Gives each loop its socket, or its share of the one there is.
    pub fn hand_to_loops(&self, state: &State<D>) -> Result<(), Fatal> {
        let loops = &state.loops;
        let listener = &self.listener;
        match self.bound.as_slice() {
            [bound] if bound.shape == Shape::Connected => {
                let peer = ucspi_peer().map(|peer| Peer::Internet(peer.address));
                let peer = peer.filter(|_| bound.address().is_none());
                loops.send(0, Order::Connected(listener.clone(), share(bound)?, peer));
            }
            // One socket for all: loops wake together, and none of its backlog is ever lost.
            [bound] => {
                for number in 0..loops.count() {
                    loops.send(number, Order::Serve(listener.clone(), share(bound)?));
                }
            }
            several => {
                for (number, bound) in several.iter().enumerate() {
                    loops.send(number, Order::Serve(listener.clone(), share(bound)?));
                }
            }
        }
        Ok(())
    }
}

fn share(bound: &Bound) -> Result<socket2::Socket, Fatal> {
    bound
        .share()
        .map_err(|error| os_error("a socket cannot be shared", &error))
}

/// Opens the sockets of a planned listener, one for each of `count` loops where that is possible.
pub fn open_planned<D: Daemon>(
    planned: &Planned<D>,
    inherited: &mut Inherited,
    count: usize,
) -> Result<Vec<Bound>, Fatal> {
    let transport = <D::Flavour as Flavour>::TRANSPORT;
    Ok(open(
        &planned.endpoint,
        transport,
        &planned.socket,
        inherited,
        count,
    )?)
}

/// Copies of one address belong to one listener; inherited sockets are one each.
pub fn group_by_endpoint(bound: Vec<Bound>) -> Vec<Vec<Bound>> {
    let mut groups: Vec<Vec<Bound>> = Vec::new();
    for bound in bound {
        match groups.last_mut() {
            Some(group) if !bound.inherited && group[0].endpoint == bound.endpoint => {
                group.push(bound);
            }
            _ => groups.push(vec![bound]),
        }
    }
    groups
}
