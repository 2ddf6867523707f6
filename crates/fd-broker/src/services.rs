//! The table of services.

use std::sync::Arc;

use portyard_core::access::AccessConfig;
use portyard_core::config::{ConfigError, Source};
use portyard_core::daemon::{Build, ConfigOf, Daemon, Home, ListenerOf, ServiceRow};
use portyard_core::listener::Streams;
use portyard_core::sandbox::Needs;

use crate::broker::Broker;
use crate::hand_off::{HAND_OFF, HandOff};
use crate::hold::{CONTROL, Control};
use crate::inetd::{PROGRAM, REDIRECT, Service};
use crate::pool::Protocol;
use crate::settings::{Options, Settings};
use crate::worker::{Native, Plain};

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
    const SERVICES: &'static [ServiceRow<Self>] = &[
        row(
            HAND_OFF,
            Home::Port(17500),
            "connections for the workers of a pool",
            |listener, broker| Ok(Arc::new(HandOff::new(broker, listener)?)),
        ),
        row(
            CONTROL,
            Home::Socket("control.sock"),
            "named listeners stored and handed out; a successor's way in",
            |listener, broker| Ok(Arc::new(Control::new(broker, &listener.options))),
        ),
        row(
            "native",
            Home::Socket("native.sock"),
            "workers that speak the broker's own protocol",
            |listener, broker| Ok(Arc::new(Native::new(broker, &listener.options))),
        ),
        row(
            "python",
            Home::Socket("python.sock"),
            "workers that wait in Python's recv_handle",
            |listener, broker| {
                let options = &listener.options;
                Ok(Arc::new(Plain::new(broker, Protocol::Python, options)))
            },
        ),
        row(
            "raw",
            Home::Socket("raw.sock"),
            "workers that take a byte with a descriptor and answer OK",
            |listener, broker| {
                let options = &listener.options;
                Ok(Arc::new(Plain::new(broker, Protocol::Raw, options)))
            },
        ),
        row(
            PROGRAM,
            Home::Nowhere,
            "a program for each connection, as a [[service]] table says",
            |listener, broker| Ok(Service::new(broker.inetd().clone(), listener)?),
        ),
        row(
            REDIRECT,
            Home::Nowhere,
            "connections passed on, as a [[service]] table says",
            |listener, broker| Ok(Service::new(broker.inetd().clone(), listener)?),
        ),
    ];

    fn check(
        config: &ConfigOf<Self>,
        settings: &Settings,
        source: &Source,
    ) -> Result<(), ConfigError> {
        for listener in &config.listeners {
            let wrong = |message| source.error(&listener.service.span(), message);
            for pool in listener.options.pools() {
                settings.known_pool(pool).map_err(wrong)?;
            }
            let routes = &listener.options.route;
            if !routes.is_empty() && listener.service.get_ref() != HAND_OFF {
                return Err(wrong(
                    "options.route is for listeners of the service hand-off; take it out".into(),
                ));
            }
        }
        Ok(())
    }

    fn needs(_: &ConfigOf<Self>, settings: &Settings) -> Needs {
        settings.needs()
    }

    fn listeners(
        broker: &Broker,
        settings: &Settings,
        access: &AccessConfig,
        source: &Source,
    ) -> Result<Vec<ListenerOf<Self>>, ConfigError> {
        broker.inetd().plan(&settings.services, access, source)
    }
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
