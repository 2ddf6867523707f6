//! rest-api: HTTP/1.1 and HTTP/2, and small services without code.
//!
//! [`http`] turns a connection of core's into requests and answers, strictly and within deadlines, and
//! gives them to a [`http::Handler`]; [`services`] says which handler a listener has. [`routes`] are the
//! services that the configuration describes, [`built_in`] those that need none, [`httpbin`] is what
//! HTTP clients are tested against, and [`yard`] shows and steers the daemons of this machine.
//! Everything else (sockets, TLS, limits, reload, drain) is
//! core's.

mod built_in;
mod http;
mod httpbin;
mod metrics;
mod routes;
mod services;
mod settings;
mod state;
mod yard;

use std::process::ExitCode;

use portyard_core::daemon;

/// The whole of the program: serves as the command line says. Must be the first thing that a process does.
pub fn main() -> ExitCode {
    daemon::run::<services::RestApi>()
}

/// The command line, for man pages and completions.
pub fn command_line() -> clap::Command {
    daemon::command_line::<services::RestApi>()
}
