//! The program time-udp; its parts are in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    time_udp::main()
}
