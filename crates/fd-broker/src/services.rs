//! The table of services.

use std::sync::Arc;

use portyard_core::daemon::{Build, Daemon, Home, ServiceRow};
use portyard_core::listener::Streams;

use crate::broker::Broker;
use crate::hand_off::HandOff;
use crate::settings::Options;

/// The daemon.
pub enum FdBroker {}

impl Daemon for FdBroker {
    type Flavour = Streams;
    type Options = Options;
    type Shared = Broker;

    const NAME: &'static str = "fd-broker";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str =
        "Hands connections and listening sockets to worker processes, in any language";
    const SERVICES: &'static [ServiceRow<Self>] = &[row(
        "hand-off",
        Home::Port(17500),
        "connections for the workers of a pool",
        |listener, broker| Ok(Arc::new(HandOff::new(broker, &listener.options))),
    )];
}

const fn row(
    name: &'static str,
    home: Home,
    about: &'static str,
    build: Build<FdBroker>,
) -> ServiceRow<FdBroker> {
    ServiceRow {
        name,
        home,
        about,
        build,
    }
}
