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

use std::process::ExitCode;

use kv_rpc::store;

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::KvRpc>()
}
