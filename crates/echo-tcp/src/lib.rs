//! echo-tcp: the stream services of inetd, and the small servers of the Python tutorials, hardened.
//!
//! [`services`] is the table; each service is a file of its own, written against
//! `portyard_core::serve::Connection`. Everything else (sockets, limits, deadlines, reload, drain)
//! is core's.

mod array_sink;
mod array_source;
mod chargen;
mod command;
mod daytime;
mod discard;
mod echo;
mod message;
mod on_pool;
mod options;
mod services;
mod sleep;
mod spill;
mod store;
mod time;
mod timestamp;

use std::process::ExitCode;

use portyard_core::daemon;

/// The whole of the program: serves as the command line says. Must be the first thing that a process does.
pub fn main() -> ExitCode {
    daemon::run::<services::EchoTcp>()
}

/// The command line, for man pages and completions.
pub fn command_line() -> clap::Command {
    daemon::command_line::<services::EchoTcp>()
}
