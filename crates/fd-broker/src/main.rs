//! The program fd-broker; its parts are in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    fd_broker::main()
}
