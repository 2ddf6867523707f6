//! The daemon's own arguments.

use clap::Args;

/// What the daemon can do beside serving.
#[derive(Debug, Clone, Args)]
pub struct Commands {
    /// Take over from the broker that runs, without a connection refused; then serve.
    ///
    /// The running broker is found by the control socket that this one is configured with. It gives
    /// away what it listens on, what it holds and which connections wait in it, and leaves once this one
    /// serves. Where none runs, this one starts as usual; where it fails, the running one serves on.
    #[arg(long)]
    pub take_over: bool,
}
