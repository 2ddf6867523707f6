//! fd-broker: hands connections and listening sockets to worker processes, in any language.
//!
//! Everything of sockets, TLS, keys, limits, reload and drain is core's.

mod broker;
mod hand_off;
mod peek;
mod pool;
#[expect(
    dead_code,
    reason = "workers and services, which start programs, come next"
)]
mod process;
mod services;
mod settings;
mod watch;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::FdBroker>()
}
