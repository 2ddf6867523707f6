//! The program kv-rpc; its parts are in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    kv_rpc::main()
}
