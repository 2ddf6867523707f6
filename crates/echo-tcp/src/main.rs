//! The program echo-tcp; its parts are in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    echo_tcp::main()
}
