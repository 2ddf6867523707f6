//! The `hand-off` service: connections for the workers of a pool.

use std::rc::Rc;

use portyard_core::event_loop::EventLoop;
use portyard_core::serve::{Accepted, Connection, Ended, Room, Serving, StreamService};

use crate::broker::Broker;
use crate::pool::Handed;
use crate::settings::Options;

/// The service.
pub struct HandOff {
    broker: Broker,
    options: Options,
}

impl HandOff {
    /// A service of this broker.
    pub fn new(broker: Broker, options: &Options) -> Self {
        Self {
            broker,
            options: options.clone(),
        }
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

    fn take(&self, _: &Rc<EventLoop>, accepted: Accepted) {
        if let Some(pool) = self.broker.pool(&self.options.pool) {
            pool.arrive(Handed::new(accepted, None));
        }
    }

    fn room(&self) -> Option<Room> {
        let pool = self.broker.pool(&self.options.pool)?;
        if !pool.is_full() {
            return None;
        }
        Some(Box::pin(async move { pool.has_room().await }))
    }
}
