//! kv-rpc: a durable key/value store behind the protocols that Python's clients already speak.
//!
//! [`store`] keeps keys and values, [`methods`] is what can be done with them, and each file in
//! [`doors`] says it in one protocol; [`commands`] is what an operator does with the data. Everything else (sockets, TLS, keys, limits, reload, drain) is
//! core's.

mod collector;
mod commands;
mod doors;
mod error;
mod methods;
mod services;
mod settings;
mod state;
pub mod store;

use std::process::ExitCode;

use portyard_core::daemon;

/// The whole of the program: serves as the command line says. Must be the first thing that a process does.
pub fn main() -> ExitCode {
    daemon::run::<services::KvRpc>()
}

/// The command line, for man pages and completions.
pub fn command_line() -> clap::Command {
    daemon::command_line::<services::KvRpc>()
}
