//! The `[[pool]]` table.

use std::num::NonZeroU16;

use portyard_core::config::Span;
use serde::{Deserialize, Serialize};

use super::balance::Balance;
use super::machine::Rules;

/// A pool of workers and the connections for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name, by which listeners choose it.
    pub name: String,
    /// Who gets the next connection.
    #[serde(default)]
    pub balance: Balance,
    /// What workers get.
    #[serde(default)]
    pub mode: Mode,
    /// Connections that may wait for a worker; while so many do, no more are accepted.
    #[serde(default = "default_queue")]
    pub queue: NonZeroU16,
    /// How long one waits, from its arrival.
    #[serde(default = "default_queue_timeout")]
    pub queue_timeout: Span,
    /// What its client gets then.
    #[serde(default)]
    pub when_nobody: WhenNobody,
    /// The text for `when_nobody = "banner"`.
    #[serde(default = "default_banner")]
    pub banner: String,
    /// How long a worker may leave an offer without an answer before it is parted with.
    #[serde(default = "default_offer_timeout")]
    pub offer_timeout: Span,
    /// How often a connection may be offered again.
    #[serde(default = "default_redeliveries")]
    pub redeliveries: u32,
}

/// What the workers of a pool get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Accepted connections.
    #[default]
    Connections,
    /// The listening sockets, from which they accept by themselves.
    Listener,
}

/// What the client of a connection gets that no worker has room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenNobody {
    /// The end of the stream.
    Close,
    /// A reset, which no client takes for an answer.
    #[default]
    Reset,
    /// The `banner`, then the end of the stream.
    Banner,
}

impl PoolConfig {
    /// A pool with defaults for everything but its name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            balance: Balance::default(),
            mode: Mode::default(),
            queue: default_queue(),
            queue_timeout: default_queue_timeout(),
            when_nobody: WhenNobody::default(),
            banner: default_banner(),
            offer_timeout: default_offer_timeout(),
            redeliveries: default_redeliveries(),
        }
    }

    /// What it means for the machine, with this many descriptors in flight.
    pub fn rules(&self, offers: usize) -> Rules {
        Rules {
            balance: self.balance,
            queue: usize::from(self.queue.get()),
            queue_timeout: self.queue_timeout.0,
            offer_timeout: self.offer_timeout.0,
            redeliveries: self.redeliveries,
            offers,
        }
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if !is_name(name) {
            return Err(format!(
                "[[pool]]: name = {name:?} is no name; write 1 to 64 letters, digits and . _ - "
            ));
        }
        if self.offer_timeout.0.is_zero() || self.queue_timeout.0.is_zero() {
            return Err(format!(
                "[[pool]] {name}: queue_timeout and offer_timeout must be longer than 0s; every wait \
                 has an end"
            ));
        }
        if self.banner.len() > BANNER_MAX {
            return Err(format!(
                "[[pool]] {name}: banner is longer than the {BANNER_MAX} bytes that a fresh \
                 connection takes at once"
            ));
        }
        Ok(())
    }
}

/// Whether a name goes into labels, commands and paths as it is.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// A burst of clients; each holds one descriptor while it waits.
fn default_queue() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(1023)
}

/// Longer than a worker's restart takes, shorter than clients' own patience.
fn default_queue_timeout() -> Span {
    Span::secs(10)
}

/// Taking is one system call; a worker that has not managed it in this time is stuck.
fn default_offer_timeout() -> Span {
    Span::secs(5)
}

/// A connection that three workers did not want or survive is not offered to the rest of them.
fn default_redeliveries() -> u32 {
    3
}

fn default_banner() -> String {
    "No server is available; try again later.\r\n".into()
}

/// Fits the first window of every connection.
const BANNER_MAX: usize = 1024;
