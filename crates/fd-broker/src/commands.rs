//! What the command line can ask for instead of serving.

use std::path::PathBuf;

use clap::Args;
use portyard_core::exit::Fatal;

use crate::import::import;

/// The daemon's own arguments.
#[derive(Debug, Clone, Args)]
pub struct Commands {
    /// Translate the configuration of another inetd and print it as TOML.
    ///
    /// FILE is an xinetd.conf, whose included files are read as well, or an inetd.conf of OpenBSD, Debian,
    /// FreeBSD or inetutils; which one is told by what it holds. What cannot be translated is a
    /// comment in its place and a warning on standard error, and the exit code is 1 then.
    #[arg(long, value_name = "FILE")]
    pub import: Option<PathBuf>,

    /// Take over from the broker that runs, without a connection refused; then serve.
    ///
    /// The running broker is found by the control socket that this one is configured with. It gives
    /// away what it listens on, what it holds and which connections wait in it, and leaves once this one
    /// serves. Where none runs, this one starts as usual; where it fails, the running one serves on.
    #[arg(long)]
    pub take_over: bool,
}

/// Does what the command line asks for; `None` when it asks for nothing of the kind.
pub fn run(commands: &Commands) -> Option<Result<String, Fatal>> {
    commands.import.as_deref().map(import)
}
