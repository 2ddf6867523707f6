//! `portyard bench`: a load generator.
//!
//! [`echo`], [`connect`] and [`udp`] each drive one kind of load on the loops of [`load`], count in
//! a [`tally`], and check what comes back against a [`pattern`].

mod batch;
mod connect;
mod echo;
mod load;
mod pattern;
mod tally;
mod udp;

use clap::Subcommand;

use crate::stop::Outcome;

/// Load a server and measure it.
///
/// Prints operations per second and the percentiles of latency, as a table or as one line of JSON.
/// Every byte that comes back is checked. Without --remote-ok only loopback addresses and Unix
/// sockets are loaded.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  portyard bench echo
  portyard bench echo tcp://127.0.0.1:7007 --connections 512 --size 1024 --seconds 10
  portyard bench udp udp://127.0.0.1:3737 --request time --sockets 8 --window 16
  portyard bench connect --json
  taskset -c 1 portyard bench echo --depth 16

Caps: 20000 connections or sockets, 1048576 bytes a message (65507 over UDP), depth and window 1024,
256 MiB in flight in all, 64 loops, 3600 seconds.

Exit codes: 0 measured, 64 the command line is wrong, 65 other bytes came back than were sent,
69 nothing listens there, 71 too few descriptors, 74 every connection broke, 75 no answer at all.")]
pub struct Args {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Echo(echo::Args),
    Udp(udp::Args),
    Connect(connect::Args),
}

/// Runs the subcommand.
pub fn run(args: Args) -> Outcome {
    match args.kind {
        Kind::Echo(args) => echo::run(args),
        Kind::Udp(args) => udp::run(args),
        Kind::Connect(args) => connect::run(args),
    }
}
