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

use portyard_core::daemon;

/// The whole of the program: serves as the command line says. Must be the first thing that a process does.
pub fn main() -> ExitCode {
    daemon::run::<services::FdBroker>()
}

/// The command line, for man pages and completions.
pub fn command_line() -> clap::Command {
    daemon::command_line::<services::FdBroker>()
}
