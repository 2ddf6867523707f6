//! How a subcommand ends.

use portyard_core::exit::{Exit, Fatal};

/// What `run` of a subcommand returns: an exit code, or why it stopped early.
pub type Outcome = Result<Exit, Stop>;

/// Why a subcommand stops before its end.
#[derive(Debug)]
pub enum Stop {
    /// An error for the person at the terminal.
    Fatal(Fatal),
    /// Whoever read standard output is gone, so there is nobody to go on for. No error.
    ReaderGone,
}

impl Stop {
    /// An error that leaves with `exit` after printing `message`.
    pub fn fatal(exit: Exit, message: impl Into<String>) -> Self {
        Self::Fatal(Fatal::new(exit, message))
    }
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}
