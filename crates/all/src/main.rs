//! `portyard-all`: every program of the yard in one binary, for images in which size counts.
//!
//! It is the program whose name it is called by, so it is installed under one name and linked from six
//! others. What the programs share (core, TLS, the allocator) is in it once.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use portyard_all::PROGRAMS;

/// sysexits(3): the command line is wrong.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or(OsStr::new(""));
    if let Some(program) = PROGRAMS.iter().find(|program| name == program.name) {
        return (program.main)();
    }
    let names: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
    eprintln!(
        "portyard-all: called as {:?}, which is none of its programs; link it as, and run it by, one of \
         these names: {}",
        name.to_string_lossy(),
        names.join(", ")
    );
    ExitCode::from(EX_USAGE)
}
