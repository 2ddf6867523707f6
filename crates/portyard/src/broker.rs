//! `portyard broker`: what fd-broker holds, and for whom.

mod hold;

use std::path::PathBuf;

use portyard_core::config::Span;
use portyard_core::life::runtime_directory;

use crate::out::Out;
use crate::stop::Outcome;

/// Have fd-broker hold sockets, and run programs with those it holds.
///
/// Asks a running broker over its control socket, which answers whom its rules allow.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard broker store web tcp://0.0.0.0:80 'tcp://[::]:80' --expiry 1h
  portyard broker retrieve web
  portyard broker retrieve web -- gunicorn app:app
  portyard broker delete web

Exit codes: 0 done, 64 the command line is wrong, 69 no broker answers there or an address is in use, 75 no
answer in time, 77 no rule allows it, 78 nothing is held under that name, or something is already.")]
pub struct Args {
    /// The broker's control socket.
    ///
    /// Without it: control.sock in the runtime directory, which is fd-broker in $XDG_RUNTIME_DIR, or
    /// in ~/.local/state.
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    keys: hold::Keys,
    #[command(subcommand)]
    what: What,
}

/// What is asked for.
#[derive(Debug, clap::Subcommand)]
enum What {
    #[command(flatten)]
    Hold(hold::What),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Outcome {
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => runtime_directory("fd-broker").join("control.sock"),
    };
    let mut out = Out::new();
    match &args.what {
        What::Hold(what) => hold::run(what, &socket, &args.keys, args.json, &mut out),
    }
}

fn parse_span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error| format!("{error}"))
}
