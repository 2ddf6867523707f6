//! The table of services: adding one is one row and one adapter.

use std::sync::Arc;

use portyard_core::daemon::{Build, Daemon, Home, ListenerOf, ServiceOf, ServiceRow};
use portyard_core::listener::Datagrams;

use crate::fib::Fib;
use crate::options::Options;
use crate::plain::{Ctime, Daytime, Discard, Echo, Time, Timestamp};
use crate::sntp::Sntp;

/// The daemon.
pub enum TimeUdp {}

impl Daemon for TimeUdp {
    type Flavour = Datagrams;
    type Options = Options;
    type Shared = ();

    const NAME: &'static str = "time-udp";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ABOUT: &'static str = "Datagram services: ctime, daytime, time, sntp, echo and more";
    const SERVICES: &'static [ServiceRow<Self>] = &[
        row(
            "ctime",
            3737,
            "answers any datagram with the local time",
            |_, ()| Ok(Arc::new(Ctime)),
        ),
        row("daytime", 3713, "the same as a line (RFC 867)", |_, ()| {
            Ok(Arc::new(Daytime))
        }),
        row(
            "time",
            3738,
            "says the time as a number (RFC 868)",
            |_, ()| Ok(Arc::new(Time)),
        ),
        row(
            "timestamp",
            3714,
            "returns the data with the time before it",
            |_, ()| Ok(Arc::new(Timestamp)),
        ),
        row("echo", 3707, "returns the datagram (RFC 862)", |_, ()| {
            Ok(Arc::new(Echo))
        }),
        row(
            "discard",
            3709,
            "throws the datagram away (RFC 863)",
            |_, ()| Ok(Arc::new(Discard)),
        ),
        row(
            "sntp",
            3723,
            "the time for NTP clients (RFC 5905, 4330)",
            sntp,
        ),
        row("fib", 3715, "answers n with the n-th Fibonacci number", fib),
    ];
}

const fn row(
    name: &'static str,
    port: u16,
    about: &'static str,
    build: Build<TimeUdp>,
) -> ServiceRow<TimeUdp> {
    ServiceRow {
        name,
        home: Home::Port(port),
        about,
        build,
    }
}

fn sntp(listener: &ListenerOf<TimeUdp>, (): ()) -> Result<ServiceOf<TimeUdp>, String> {
    Ok(Arc::new(Sntp::new(&listener.options)?))
}

fn fib(listener: &ListenerOf<TimeUdp>, (): ()) -> Result<ServiceOf<TimeUdp>, String> {
    Ok(Arc::new(Fib::new(&listener.options)?))
}
