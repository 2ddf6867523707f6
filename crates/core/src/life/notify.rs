//! Telling systemd (or whoever set `NOTIFY_SOCKET`) how we are: sd_notify(3), without a library.

use std::fmt::Write as _;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::sys;

/// The way to the service manager; without one, every message is dropped.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Takes `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` and removes them from the
    /// environment. To be called before any thread is started.
    pub fn from_environment() -> Self {
        let read = |name| std::env::var(name).ok();
        let socket = read("NOTIFY_SOCKET").and_then(|name| connect(&name));
        let ours = read("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = read("WATCHDOG_USEC")
            .and_then(|usec| usec.parse().ok())
            .filter(|_| ours);
        sys::forget_variables(&["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]);
        Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// How often to call [`Notifier::watchdog`]: half the time the manager allows
    /// (sd_watchdog_enabled(3)). `None`: nobody watches.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Ready, with a status line; `listeners` are told too, for starters that asked for port 0.
    pub fn ready(&self, status: &str, listeners: &[(String, String)]) {
        let mut message = format!("READY=1\nSTATUS={status}\n");
        for (name, endpoint) in listeners {
            // sd_notify(3): fields that start with X_ are free for private use.
            let _ = writeln!(message, "X_PORTYARD_LISTENER={name}={endpoint}");
        }
        self.send(&message);
    }

    /// A reload has begun. `MONOTONIC_USEC` belongs to it since systemd 253.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
            i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_nsec()) / 1_000
        });
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}\n"));
    }

    /// The drain has begun; it may take up to `grace` longer than the manager would wait.
    pub fn stopping(&self, grace: Duration) {
        let extend = (grace + Duration::from_secs(1)).as_micros();
        self.send(&format!(
            "STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC={extend}\n"
        ));
    }

    /// A line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}\n"));
    }

    /// Everything works at this moment.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(%error, "the service manager does not take notifications");
        }
    }
}

fn connect(name: &str) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    let connected = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)
            .and_then(|address| socket.connect_addr(&address)),
        None => socket.connect(name),
    };
    match connected {
        Ok(()) => Some(socket),
        Err(error) => {
            tracing::warn!(%name, %error, "NOTIFY_SOCKET cannot be reached");
            None
        }
    }
}
