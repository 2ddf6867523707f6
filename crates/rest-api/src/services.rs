//! The table of services.

use std::sync::Arc;

use portyard_core::daemon::{Build, Daemon, Home, ServiceRow};
use portyard_core::listener::Streams;

use crate::built_in::BuiltIn;
use crate::http::Server;
use crate::settings::Options;
use crate::state::State;

/// The daemon.
pub enum RestApi {}

impl Daemon for RestApi {
    type Flavour = Streams;
    type Options = Options;
    type Shared = State;

    const NAME: &'static str = "rest-api";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "HTTP: small services without code, from a configuration";
    const SERVICES: &'static [ServiceRow<Self>] =
        &[row("http", 18080, "/hello, /localtime", |listener, _| {
            Ok(Arc::new(Server::new(&listener.options, BuiltIn)))
        })];
    const ALPN: &'static [&'static str] = &["h2", "http/1.1"];
}

const fn row(
    name: &'static str,
    port: u16,
    about: &'static str,
    build: Build<RestApi>,
) -> ServiceRow<RestApi> {
    ServiceRow {
        name,
        home: Home::Port(port),
        about,
        build,
    }
}
