//! The table of services.

use std::sync::Arc;

use portyard_core::config::{ConfigError, Source};
use portyard_core::daemon::{Build, ConfigOf, Daemon, Home, ListenerOf, ServiceRow};
use portyard_core::listener::Streams;
use portyard_core::sandbox::Needs;

use crate::http::{CorsConfig, Server};
use crate::httpbin::{Httpbin, HttpbinOptions};
use crate::routes::Router;
use crate::settings::{Options, Settings};
use crate::state::State;
use crate::yard::{self, YardOptions};

/// The daemon.
pub enum RestApi {}

impl Daemon for RestApi {
    type Flavour = Streams;
    type Options = Options;
    type Shared = State;

    const NAME: &'static str = "rest-api";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "HTTP: small services without code, from a configuration";
    const SERVICES: &'static [ServiceRow<Self>] = &[
        row(
            HTTP,
            18080,
            "/hello, /localtime, and the routes of the configuration",
            |listener, state| {
                not_yard(listener)?;
                if listener.options.httpbin != HttpbinOptions::default() {
                    return Err("the table httpbin is for listeners of service httpbin".into());
                }
                let router = Router::new(state.clone(), listener.label());
                let server = Server::new(&listener.options, &state, router)?;
                Ok(Arc::new(server))
            },
        ),
        row(
            "httpbin",
            18081,
            "the API of httpbin and go-httpbin, to test clients against",
            |listener, state| {
                not_yard(listener)?;
                let options = &listener.options;
                if options.cors != CorsConfig::default() {
                    return Err(
                        "httpbin lets every origin read its answers, as clients are \
                                tested with that; leave the table cors out"
                            .into(),
                    );
                }
                let httpbin = Httpbin::new(&options.httpbin, options.max_body.0, state.metrics())?;
                Ok(Arc::new(Server::new(options, &state, httpbin)?))
            },
        ),
        row(
            "yard",
            18082,
            "what the daemons of this machine do: a page, an API, metrics, actions",
            |listener, state| {
                if listener.options.httpbin != HttpbinOptions::default() {
                    return Err("the table httpbin is for listeners of service httpbin".into());
                }
                let service = yard::Service::new(&listener.options, &state)?;
                Ok(Arc::new(Server::new(&listener.options, &state, service)?))
            },
        ),
    ];
    const ALPN: &'static [&'static str] = &["h2", "http/1.1"];

    fn check(
        config: &ConfigOf<Self>,
        settings: &Settings,
        source: &Source,
    ) -> Result<(), ConfigError> {
        for listener in &config.listeners {
            let wrong = |message| source.error(&listener.service.span(), message);
            listener.options.check().map_err(wrong)?;
        }
        // Those of the command line stand for all that the file has, whatever their names.
        let is_file =
            |listener: &ListenerOf<Self>| listener.listen.iter().all(|at| at.span() != (0..0));
        if !config.listeners.iter().all(is_file) {
            return Ok(());
        }
        let listeners = config.listeners.iter();
        let names: Vec<&str> = listeners
            .filter(|listener| listener.service.get_ref() == HTTP)
            .map(ListenerOf::<Self>::label)
            .collect();
        for route in &settings.routes {
            route
                .check_listeners(&names)
                .map_err(|why| source.error(&(0..0), why))?;
        }
        Ok(())
    }

    fn needs(config: &ConfigOf<Self>, settings: &Settings) -> Needs {
        let mut needs = Needs::default();
        for route in &settings.routes {
            route.add_needs(&mut needs);
        }
        for daemon in &settings.yard {
            needs.connect(&daemon.admin);
            daemon.keys.iter().for_each(|keys| needs.connect(keys));
        }
        for listener in &config.listeners {
            if let Some(key) = &listener.options.yard.key {
                needs.read_place(&key.file);
            }
        }
        needs
    }
}

/// The service that has the routes.
const HTTP: &str = "http";

/// Options that would do nothing are mistakes.
fn not_yard(listener: &ListenerOf<RestApi>) -> Result<(), String> {
    if listener.options.yard == YardOptions::default() {
        Ok(())
    } else {
        Err("the table yard is for listeners of service yard".into())
    }
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
