//! fd-broker: hands connections and listening sockets to worker processes, in any language.
//!
//! Everything of sockets, TLS, keys, limits, reload and drain is core's.

mod broker;
mod collector;
mod commands;
mod crew;
mod hand_off;
mod hold;
mod import;
mod inetd;
mod operate;
mod peek;
mod pool;
mod process;
mod route;
mod services;
mod settings;
mod watch;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::FdBroker>()
}
