//! The program rest-api; its parts are in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    rest_api::main()
}
