//! The daemon as a worker of fd-broker: connections that another process has accepted go through the
//! same admission as those that we accept.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use portyard_wire::broker::{Offer, Why};
use portyard_wire::hold::Name;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arrival::Arrival;
use super::{Acceptor, Peer, admission};
use crate::event_loop::EventLoop;
use crate::fdpass::{Kind, SocketType};
use crate::listener::{Listener, Streams};
use crate::observe::Throttle;
use crate::worker::{Backoff, JoinError, Link, Order, Outbox, Terms};

/// A pool for whose connections the loops of a daemon work.
#[derive(Debug, Clone)]
pub struct Hire {
    /// The broker's socket.
    pub path: PathBuf,
    /// The pool's name.
    pub pool: Name,
    /// The loops that share the work, each with a link of its own.
    pub loops: u32,
}

/// Works until the listener is stopped and the last connection is over. A broker that is not there is
/// looked for again and again.
pub async fn work(home: Rc<EventLoop>, listener: Arc<Listener<Streams>>, hire: Hire) {
    if listener.settings().service.takes_sockets() {
        tracing::error!(
            listener = %listener.name,
            "what a broker's pool gives cannot be handed to another pool; name its workers there"
        );
        return;
    }
    let outbox = Outbox::new(capacity(&listener, &hire));
    let mut terms = Terms {
        name: listener.name.clone(),
        pool: hire.pool.as_str().into(),
        ..Terms::new(hire.path.clone())
    };
    let mut hired = Hired {
        home,
        listener,
        hire,
        outbox,
        acceptors: JoinSet::new(),
        lent: CancellationToken::new(),
    };
    let throttle = Throttle::new();
    let mut backoff = Backoff::default();
    let stopped = hired.listener.stopped();
    while !stopped.is_cancelled() {
        // A reload may have brought another key.
        terms.prover.clone_from(&hired.listener.settings().prover);
        let joined = tokio::select! {
            biased;
            () = stopped.cancelled() => break,
            joined = Link::join(&terms, &hired.outbox) => joined,
        };
        let error = match joined {
            Ok(link) => {
                backoff = Backoff::default();
                // They accept from sockets that this link lends again.
                hired.give_back_lent();
                let Err(error) = hired.serve(link).await else {
                    break;
                };
                error
            }
            Err(error) => error,
        };
        hired.outbox.end();
        if let Some(held) = throttle.pass() {
            let listener = &hired.listener.name;
            tracing::warn!(listener, %error, held, "no connections from the broker");
        }
        tokio::select! {
            () = backoff.wait() => {}
            () = stopped.cancelled() => {}
        }
    }
    while hired.acceptors.join_next().await.is_some() {}
}

struct Hired {
    home: Rc<EventLoop>,
    listener: Arc<Listener<Streams>>,
    hire: Hire,
    outbox: Arc<Outbox>,
    /// What accepts from sockets that the broker lends, until this is cancelled.
    acceptors: JoinSet<()>,
    lent: CancellationToken,
}

impl Hired {
    /// Serves what comes over a link until that breaks, which is an error, or all is over.
    async fn serve(&mut self, mut link: Link) -> Result<(), JoinError> {
        let stop = self.listener.stopped();
        let mut leaving = false;
        let mut arrivals = Vec::new();
        loop {
            let outbox = &self.outbox;
            let mut give = |offer: &Offer<'_>, socket: OwnedFd| {
                arrivals.push(Arrival {
                    socket: socket.into(),
                    is_unix: offer.peer.is_none(),
                    peer: offer.peer.map_or(Peer::Local, Peer::Internet),
                    ticket: Some(outbox.ticket(offer.connection)),
                });
            };
            let order = poll_fn(|cx| {
                let order = link.poll_order(cx, outbox, &mut give).map_ok(Some);
                // Asked behind it, because it may just have sent the last report.
                if order.is_pending() && leaving && outbox.is_settled() {
                    return Poll::Ready(Ok(None));
                }
                order
            });
            let order = tokio::select! {
                biased;
                () = stop.cancelled(), if !leaving => {
                    leaving = true;
                    outbox.drain();
                    continue;
                }
                order = order => order?,
            };
            match order {
                None => return Ok(()),
                Some(Order::Offered) => {
                    for arrival in arrivals.drain(..) {
                        self.admit(arrival, leaving).await;
                    }
                }
                Some(Order::Listener { name, socket }) => self.accept_from(&name, socket, leaving),
                Some(Order::Drain) => {
                    // What it has lent comes again when it gives again.
                    self.give_back_lent();
                    tracing::info!(
                        listener = %self.listener.name, pool = self.hire.pool.as_str(),
                        "the broker gives nothing more for the moment"
                    );
                }
                Some(Order::Resume) => tracing::info!(
                    listener = %self.listener.name, pool = self.hire.pool.as_str(),
                    "the broker gives again"
                ),
            }
            // A reload may have moved the limits.
            self.outbox
                .set_capacity(capacity(&self.listener, &self.hire));
        }
    }

    async fn admit(&self, arrival: Arrival, leaving: bool) {
        if leaving {
            return arrival.give_back(Why::Draining);
        }
        if !self.home.reserve.refill() {
            return arrival.give_back(Why::Resources);
        }
        // With a ticket nothing waits here: what cannot be served now goes to another worker.
        admission::admit(&self.home, &self.listener, arrival).await;
    }

    /// Accepts nothing more from sockets that the broker has lent.
    fn give_back_lent(&mut self) {
        self.lent.cancel();
        self.lent = self.listener.stopped().child_token();
        while self.acceptors.try_join_next().is_some() {}
    }

    /// Accepts from a socket that the broker lends.
    fn accept_from(&mut self, name: &str, socket: OwnedFd, leaving: bool) {
        if leaving {
            return;
        }
        let listener = &self.listener;
        match Kind::of(&socket) {
            Ok(Kind::Listener(SocketType::Stream)) => {}
            kind => {
                let found = kind.map_or("of an unknown kind", Kind::describe);
                tracing::warn!(listener = %listener.name, lent = name, found, "not a listener");
                return;
            }
        }
        let socket = socket2::Socket::from(socket);
        // Another process may have made it blocking; the flag is shared.
        let acceptor = socket
            .set_nonblocking(true)
            .and_then(|()| Acceptor::until(self.lent.clone(), listener.clone(), socket));
        match acceptor {
            Ok(acceptor) => {
                tracing::info!(listener = %listener.name, lent = name, "accepting for the broker");
                self.acceptors
                    .spawn_local(Rc::new(acceptor).run(self.home.clone()));
            }
            Err(error) => {
                tracing::warn!(listener = %listener.name, lent = name, %error, "not accepting");
            }
        }
    }
}

/// This loop's share of what the listener and the daemon may have.
fn capacity(listener: &Listener<Streams>, hire: &Hire) -> u32 {
    let most = listener.gate.ceiling().min(listener.total.ceiling());
    most.div_ceil(hire.loops.max(1))
}
