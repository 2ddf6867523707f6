//! The `hand-off` service: connections for the workers of a pool.

use portyard_core::serve::{Connection, Ended, Serving, StreamService};

use crate::broker::Broker;
use crate::settings::Options;

/// The service.
pub struct HandOff {
    _broker: Broker,
}

impl HandOff {
    /// A service of this broker.
    pub fn new(broker: Broker, _: &Options) -> Self {
        Self { _broker: broker }
    }
}

impl StreamService for HandOff {
    fn serve(&self, _: Connection) -> Serving {
        // Nobody is there to take it.
        Box::pin(std::future::ready(Ended::Done))
    }
}
