//! Runs the real binaries and finds the real peers, for tests.
//!
//! A test builds a [`Daemon`] from the binary that cargo made, which returns when the daemon has
//! said READY over the notification socket, on ports of its own. What the daemon logs,
//! notifies, measures and prints can be asked for at any time; dropping it kills it. [`Client`]
//! talks to it, and so do the programs that [`peer`] and [`pythons`] find, loudly when one is missing.
//! [`Certificates`] makes an authority and what it signs, which a [`TlsClient`] verifies.
//!
//! Nothing here waits for a duration to pass, and nothing waits without a deadline.
#![expect(clippy::expect_used, reason = "a test helper fails by panicking")]

mod admin;
mod build;
mod certificates;
mod client;
mod daemon;
pub mod intruder;
mod notify;
mod peers;
mod process;
mod recording;
mod tls;

pub use build::DaemonBuilder;
pub use certificates::{Certificates, Pair};
pub use client::{Client, End};
pub use daemon::Daemon;
pub use peers::{Python, node, peer, python, pythons};
pub use process::{
    Finished, anonymous_bytes, cpu_seconds, eventually, finish, finish_within, open_fds, pss_bytes,
    raise_descriptor_limit, rss_bytes, threads,
};
pub use recording::{Case, cases_of};
pub use tls::TlsClient;
