//! One TOML file per daemon: read, checked and explained before anything is opened.
//!
//! A file becomes a [`Config`] or a [`ConfigError`] that names file, line, key and remedy. Types
//! carry their ranges and units ([`units`]), unknown keys are errors, and what no type can say is
//! checked by the daemon while it builds its services, with [`Source::error`] for the place.

mod error;
mod listener;
mod source;
mod tls;
pub mod units;

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use listener::{AtLimit, DatagramLimits, ListenerConfig, SocketOptions, StreamLimits};
pub use source::Source;
pub use tls::{CertificateConfig, ClientCertificates, TlsConfig, TlsVersion};
pub use toml::Spanned;
pub use units::{FileMode, Rate, RateLimit, Size, Span};

use crate::access::{AccessConfig, Kind, Matcher, Rule};
use crate::endpoint::Endpoint;
use crate::sandbox::Mode;

/// A daemon's whole configuration. `L` are the limits of its transport ([`StreamLimits`] or
/// [`DatagramLimits`]), `O` the options of its services.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[serde(bound(
    deserialize = "L: Default + Deserialize<'de>, O: Default + Deserialize<'de>",
    serialize = "L: Serialize, O: Serialize"
))]
pub struct Config<L, O> {
    /// Event loops, each on its own thread; absent: one per core we may run on.
    pub loops: Option<NonZeroU16>,
    /// How long connections may go on after SIGTERM before they are cut.
    pub grace: Span,
    /// Connections of the whole daemon; absent: what the descriptor limit allows.
    pub max_connections: Option<u32>,
    /// How long an inetd-style process waits for more work before it ends.
    pub inetd_idle: Span,
    /// What the kernel denies the process once everything is open.
    pub sandbox: Mode,
    /// Where the log goes and how much of it.
    pub log: LogConfig,
    /// The endpoint for probes, metrics and status.
    pub admin: AdminConfig,
    /// The pool for work that would stall a loop.
    pub offload: OffloadConfig,
    /// Who may use listeners that have no list of their own.
    pub access: AccessConfig,
    /// The listeners.
    #[serde(rename = "listener")]
    pub listeners: Vec<ListenerConfig<L, O>>,
}

/// The `[log]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: Level,
    /// The form of a line.
    pub format: LogFormat,
    /// Where lines go.
    pub target: LogTarget,
}

/// How important a log line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Faults that need somebody.
    Error,
    /// What an operator should look at.
    Warn,
    /// Life-cycle events: the default.
    #[default]
    Info,
    /// Each connection, and each peer's mistake.
    Debug,
    /// Everything.
    Trace,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `journal` when stderr is connected to journald, else `text`.
    #[default]
    Auto,
    /// Time, level, message, fields.
    Text,
    /// One JSON object a line.
    Json,
    /// `<N>` priority prefixes and no time, as journald wants on a service's stderr.
    Journal,
}

/// Where log lines go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogTarget {
    /// Standard error; syslog when that is the peer's socket, as under inetd.
    #[default]
    Auto,
    /// Standard error.
    Stderr,
    /// The local syslog daemon, `/dev/log`, in the form of RFC 5424.
    Syslog,
    /// Nowhere.
    None,
}

/// The `[admin]` table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where `/healthz`, `/readyz`, `/metrics` and `/status` are served over HTTP; absent: nowhere.
    /// A Unix socket, a loopback address or an inherited socket.
    pub listen: Option<Endpoint>,
    /// Mode of a Unix socket's file; absent: nobody but the daemon's user and root may connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Whether `POST /reload` and `POST /drain` do something, over a Unix socket, for the daemon's
    /// user, root and the actors.
    pub actions: bool,
    /// Who else may act: `"user:NAME"`, `"uid:NUMBER"`, `"group:NAME"` or `"gid:NUMBER"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
}

impl AdminConfig {
    /// Who else may act, or which of them cannot be understood.
    pub fn actors(&self) -> Result<Vec<Matcher>, String> {
        let understand = |text: &String| {
            let wrong = |why: String| format!("admin.actors: {why}");
            let rule = format!("allow {text}").parse::<Rule>();
            let matcher = rule.map_err(|error| wrong(error.to_string()))?.matcher;
            // The number of a process is no one for long.
            if matcher.kind() == Kind::User && !matches!(matcher, Matcher::Pid(_)) {
                Ok(matcher)
            } else {
                Err(wrong(format!(
                    "'{text}' is no local user; write user:NAME, uid:NUMBER, group:NAME or gid:NUMBER"
                )))
            }
        };
        self.actors.iter().map(understand).collect()
    }
}

/// The `[offload]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OffloadConfig {
    /// Threads for blocking work.
    pub threads: NonZeroU16,
    /// Jobs that may wait for a thread; one more is refused.
    pub queue: u32,
}

impl<L, O> Default for Config<L, O> {
    fn default() -> Self {
        Self {
            loops: None,
            grace: DEFAULT_GRACE,
            max_connections: None,
            inetd_idle: DEFAULT_INETD_IDLE,
            sandbox: Mode::default(),
            log: LogConfig::default(),
            admin: AdminConfig::default(),
            offload: OffloadConfig::default(),
            access: AccessConfig::default(),
            listeners: Vec::new(),
        }
    }
}

impl Default for OffloadConfig {
    fn default() -> Self {
        Self {
            threads: DEFAULT_OFFLOAD_THREADS,
            queue: DEFAULT_OFFLOAD_QUEUE,
        }
    }
}

/// Long enough for a request in flight, short enough for systemd's 90 s stop timeout and docker's
/// 10 s (which needs `stop_grace_period` above this to be safe).
const DEFAULT_GRACE: Span = Span::secs(9);

/// openbsd-inetd and xinetd start a `wait` server anew for the next peer, at the cost of a process
/// start; a minute keeps a busy service warm and an idle one away.
const DEFAULT_INETD_IDLE: Span = Span::secs(60);

/// Blocking work is rare (directory listings, big numbers); two threads keep it moving.
const DEFAULT_OFFLOAD_THREADS: NonZeroU16 = match NonZeroU16::new(2) {
    Some(threads) => threads,
    None => NonZeroU16::MIN,
};

/// A job waits at most a few seconds behind this many others; beyond it a refusal is kinder.
const DEFAULT_OFFLOAD_QUEUE: u32 = 128;
