//! echo-tcp: the stream services of inetd, and the small servers of the Python tutorials, hardened.
//!
//! [`services`] is the table; each service is a file of its own, written against
//! `portyard_core::serve::Connection`. Everything else (sockets, limits, deadlines, reload, drain)
//! is core's.

mod chargen;
mod command;
mod daytime;
mod discard;
mod echo;
mod message;
mod options;
mod services;
mod sleep;
mod spill;
mod time;
mod timestamp;

use std::process::ExitCode;

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::EchoTcp>()
}
