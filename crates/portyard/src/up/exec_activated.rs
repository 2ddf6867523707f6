//! `portyard exec-activated`: the last step before a daemon, in its own process.
//!
//! `LISTEN_PID` must be the daemon's process id (`sd_listen_fds(3)`), which exists only after the
//! fork. So the child runs this program first, which sets the variable and becomes the daemon.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use portyard_core::exit::Exit;

use crate::stop::{Outcome, Stop};

/// Set `LISTEN_PID` to this process and become PROGRAM.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// End with SIGTERM when this process, our parent, ends.
    #[arg(long, value_name = "PID")]
    parent: Option<i32>,
    /// What to become.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Becomes the program; returns only when that fails.
pub fn run(args: Args) -> Outcome {
    if let Some(parent) = args.parent {
        // A yard that is killed must not leave daemons that hold its ports. The setting survives
        // exec (prctl(2), PR_SET_PDEATHSIG).
        prctl::set_pdeathsig(Signal::SIGTERM).map_err(|error| {
            Stop::fatal(Exit::OsError, format!("cannot follow the parent: {error}"))
        })?;
        if getppid().as_raw() != parent {
            // It ended before it could be followed.
            return Err(Stop::fatal(Exit::TempFail, "the parent has ended"));
        }
    }
    let mut words = args.command.into_iter();
    // The argument is required.
    let program = words.next().unwrap_or_default();
    let error = Command::new(&program)
        .args(words)
        .env("LISTEN_PID", std::process::id().to_string())
        .exec();
    Err(Stop::fatal(
        Exit::from_io(&error),
        format!("cannot run {}: {error}", program.display()),
    ))
}
