//! fd-broker: hands connections and listening sockets to worker processes, in any language.
//!
//! Everything of sockets, TLS, keys, limits, reload and drain is core's.

mod broker;
mod hand_off;
mod services;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::FdBroker>()
}
