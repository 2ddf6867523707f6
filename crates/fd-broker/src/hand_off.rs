//! The `hand-off` service: connections for the workers of a pool.

use std::rc::Rc;
use std::sync::Arc;

use portyard_core::config::AtLimit;
use portyard_core::daemon::ListenerOf;
use portyard_core::event_loop::EventLoop;
use portyard_core::observe::metrics::Refusal;
use portyard_core::serve::{Accepted, Connection, Ended, Peeked, Room, Serving, StreamService};
use tokio::time::Instant;

use crate::broker::Broker;
use crate::pool::{Handed, Mode};
use crate::route::{Routed, Routes};
use crate::services::FdBroker;
use crate::settings::Options;

/// The service.
pub struct HandOff {
    inner: Arc<Inner>,
}

struct Inner {
    broker: Broker,
    options: Options,
    routes: Routes,
}

impl HandOff {
    /// A service of this broker, or what is wrong with its options.
    pub fn new(broker: Broker, listener: &ListenerOf<FdBroker>) -> Result<Self, String> {
        let options = listener.options.clone();
        let routes = Routes::new(&options.route)?;
        broker.set_hand_off(listener.label(), &options.pool);
        let inner = Inner {
            broker,
            options,
            routes,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

impl StreamService for HandOff {
    fn serve(&self, _: Connection) -> Serving {
        // Connections come by `take`.
        Box::pin(std::future::ready(Ended::Broken))
    }

    fn takes_sockets(&self) -> bool {
        true
    }

    fn take(&self, home: &Rc<EventLoop>, accepted: Accepted) {
        let inner = &self.inner;
        if inner.routes.is_empty() {
            return inner.give(accepted, Routed::default());
        }
        // Who has not said anything yet counts as one who has not proved anything: there are not too
        // many of them, and not for too long.
        let listener = accepted.listener().clone();
        if !listener.proving.try_enter() {
            return accepted.turn_away(home, Refusal::Handshakes, AtLimit::Refuse);
        }
        let (home, inner) = (home.clone(), inner.clone());
        tokio::task::spawn_local(async move {
            let deadline = Instant::now() + inner.options.peek_timeout.0;
            let look = |bytes: &[u8]| inner.routes.find(bytes);
            let (accepted, seen) = accepted.peek(&home, Routes::LIMIT, deadline, look).await;
            listener.proving.leave();
            match seen {
                Peeked::Seen(routed) => inner.give(accepted, routed),
                // Whoever says nothing, or too little, is the listener's own pool's.
                Peeked::Late | Peeked::Short => inner.give(accepted, Routed::default()),
                Peeked::Broken(_) => {}
            }
        });
    }

    fn room(&self) -> Option<Room> {
        let pool = self.inner.broker.pool(&self.inner.options.pool)?;
        if pool.accepts() {
            return None;
        }
        Some(Box::pin(async move { pool.has_room().await }))
    }
}

impl Inner {
    fn give(&self, accepted: Accepted, routed: Routed) {
        let name = routed.pool.as_deref().unwrap_or(&self.options.pool);
        let pool = self.broker.pool(name);
        // A route to a pool whose workers accept by themselves finds nobody to give it to.
        let Some(pool) = pool.filter(|pool| pool.mode() == Mode::Connections) else {
            return;
        };
        let peeked = (!routed.peeked.is_empty()).then(|| Box::new(routed.peeked));
        pool.arrive(Handed::new(accepted, peeked));
    }
}

/// The service's name.
pub const HAND_OFF: &str = "hand-off";
