//! time-udp: the datagram services of inetd, an SNTP server, and the small servers of the Python
//! tutorials, none of which can be made to loop or to amplify.
//!
//! [`services`] is the table; the checks before a service sees a datagram, and the batches, are
//! core's.

mod fib;
mod options;
mod plain;
mod services;
mod sntp;

use std::process::ExitCode;

use portyard_core::daemon;

/// The whole of the program: serves as the command line says. Must be the first thing that a process does.
pub fn main() -> ExitCode {
    daemon::run::<services::TimeUdp>()
}

/// The command line, for man pages and completions.
pub fn command_line() -> clap::Command {
    daemon::command_line::<services::TimeUdp>()
}
