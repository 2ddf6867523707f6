//! rest-api: HTTP/1.1 and HTTP/2, and small services without code.
//!
//! [`http`] turns a connection of core's into requests and answers, strictly and within deadlines, and
//! gives them to a [`http::Handler`]; [`services`] says which handler a listener has. [`routes`] are the
//! services that the configuration describes, [`built_in`] those that need none, and [`httpbin`] is what HTTP clients are tested against. Everything else (sockets, TLS, limits, reload, drain) is
//! core's.

mod built_in;
mod http;
mod httpbin;
mod metrics;
mod routes;
mod services;
mod settings;
mod state;

use std::process::ExitCode;

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::RestApi>()
}
