//! A listener that runs, and the sockets behind it.

use std::sync::Arc;

use super::plan::Planned;
use super::report::State;
use super::{Daemon, os_error};
use crate::config::SocketOptions;
use crate::endpoint::{Endpoint, Transport};
use crate::event_loop::Order;
use crate::exit::Fatal;
use crate::listen::{Bound, Inherited, Shape, open, ucspi_peer};
use crate::listener::Listener;
use crate::serve::{Hire, Peer};

/// A listener and its sockets. The loops work on duplicates, so that a listener can be replaced
/// without closing a socket.
pub struct Active<D: Daemon> {
    /// What it was opened by; a reload that names it again keeps the sockets.
    pub endpoint: Endpoint,
    /// The options it was opened with.
    pub options: SocketOptions,
    /// The transport it was opened for; another one needs other sockets.
    pub transport: Transport,
    /// Which opening it came from: a name with several addresses makes several listeners at once.
    pub opening: u64,
    /// The listener.
    pub listener: SharedListener<D>,
    /// One socket for all loops, or one for each.
    pub bound: Vec<Bound>,
}

/// A listener of a daemon, shared with its loops.
pub type SharedListener<D> = Arc<Listener<<D as Daemon>::Flavour>>;
/// Orders that give loops their sockets, by number of the loop.
pub type Orders<D> = Vec<(usize, Order<<D as Daemon>::Flavour>)>;

impl<D: Daemon> Active<D> {
    /// Makes a listener of each group of opened sockets, with the orders that start it.
    pub fn open(
        planned: &Planned<D>,
        bound: Vec<Bound>,
        opening: u64,
        state: &State<D>,
    ) -> Result<Vec<(Self, Orders<D>)>, Fatal> {
        let mut opened = Vec::new();
        for bound in group_by_endpoint(bound) {
            let listener = new_listener(planned, &bound, state);
            let orders = orders(&listener, &bound, state)?;
            let endpoint = planned.endpoint.clone();
            let options = planned.socket.clone();
            opened.push((
                Self {
                    endpoint,
                    options,
                    transport: planned.transport,
                    opening,
                    listener,
                    bound,
                },
                orders,
            ));
        }
        Ok(opened)
    }

    /// Another listener on the same sockets, with the orders that start it.
    pub fn successor(
        &self,
        planned: &Planned<D>,
        state: &State<D>,
    ) -> Result<(SharedListener<D>, Orders<D>), Fatal> {
        let listener = new_listener(planned, &self.bound, state);
        let orders = orders(&listener, &self.bound, state)?;
        Ok((listener, orders))
    }

    /// Whether it has the name and the service that are planned.
    pub fn is_named_as(&self, planned: &Planned<D>) -> bool {
        self.listener.name == planned.label && self.listener.service == planned.service_name
    }

    /// Says that it is open.
    pub fn announce(&self) {
        let listener = &self.listener;
        tracing::info!(
            listener = %listener.name, service = %listener.service,
            endpoint = %listener.endpoint, "listening"
        );
    }
}

fn new_listener<D: Daemon>(
    planned: &Planned<D>,
    bound: &[Bound],
    state: &State<D>,
) -> SharedListener<D> {
    let (endpoint, inherited) = match bound.first() {
        Some(first) => (first.endpoint.clone(), first.inherited),
        None => (planned.endpoint.clone(), false),
    };
    let name = (planned.label.as_str(), planned.service_name);
    Arc::new(Listener::new(
        name,
        endpoint,
        inherited,
        state.metrics.listener(name.0, name.1),
        state.total.clone(),
        planned.settings(),
    ))
}

/// Each loop gets its socket, or its share of the one there is.
pub(super) fn orders<D: Daemon>(
    listener: &SharedListener<D>,
    bound: &[Bound],
    state: &State<D>,
) -> Result<Orders<D>, Fatal> {
    let mut orders = Vec::new();
    match bound {
        [] => {}
        [bound] if bound.shape == Shape::Connected => {
            let peer = ucspi_peer().map(|peer| Peer::Internet(peer.address));
            let peer = peer.filter(|_| bound.address().is_none());
            orders.push((0, Order::Connected(listener.clone(), share(bound)?, peer)));
        }
        [bound] if bound.shape == Shape::Pool => {
            if let Endpoint::Broker { path, name } = &bound.endpoint {
                let count = state.loops.count();
                let hire = Hire {
                    path: path.clone(),
                    pool: name.clone(),
                    loops: u32::try_from(count).unwrap_or(u32::MAX),
                };
                for number in 0..count {
                    orders.push((number, Order::Work(listener.clone(), hire.clone())));
                }
            }
        }
        // One socket for all: loops wake together, and none of its backlog is ever lost. A
        // predecessor may have had more loops, or fewer: each socket is served, and each loop serves.
        several => {
            for number in 0..several.len().max(state.loops.count()) {
                let bound = &several[number % several.len()];
                orders.push((number, Order::Serve(listener.clone(), share(bound)?)));
            }
        }
    }
    Ok(orders)
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
    let handed = inherited.take_bound(&planned.endpoint, &planned.label, planned.transport)?;
    if !handed.is_empty() {
        return Ok(handed);
    }
    Ok(open(
        &planned.endpoint,
        planned.transport,
        &planned.socket,
        inherited,
        count,
        planned.prover.as_ref(),
    )?)
}

/// Copies of one address belong to one listener; inherited sockets are one each.
fn group_by_endpoint(bound: Vec<Bound>) -> Vec<Vec<Bound>> {
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
