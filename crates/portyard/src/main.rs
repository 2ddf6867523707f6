//! The program `portyard`; its parts are in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    portyard::main()
}
