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

fn main() -> ExitCode {
    portyard_core::daemon::run::<services::TimeUdp>()
}
