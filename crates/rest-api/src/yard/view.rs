//! What is told of the daemons: as JSON, on the page, and as schemas in the OpenAPI document.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// All daemons.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Yard {
    /// When this was put together: seconds since 1970.
    pub at: u64,
    /// What may be done to them here.
    pub steering: Steering,
    /// In the order of the configuration.
    pub daemons: Vec<Daemon>,
    /// The latest changes of state, the newest first.
    pub changes: Vec<Change>,
    /// The latest actions that were taken here, the newest first.
    pub taken: Vec<Taken>,
}

/// What may be done.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Steering {
    /// Whether actions are taken here at all.
    pub enabled: bool,
    /// How a key is shown; null: none is demanded, a client certificate is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'static str>,
    /// Whether a client certificate may do, in place of a key where there is one.
    pub certificates: bool,
}

/// One daemon.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Daemon {
    /// What it is called here.
    pub name: String,
    /// Its admin endpoint.
    pub admin: String,
    /// How it is.
    pub state: State,
    /// Since when it has been so: seconds since 1970.
    pub since: u64,
    /// When it last answered: seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<u64>,
    /// Why nothing newer is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Which program it is.
    pub program: String,
    /// Its version.
    pub version: String,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// Its event loops.
    pub loops: u32,
    /// Its connections.
    pub connections: Connections,
    /// Jobs waiting for a thread.
    pub offload_waiting: u64,
    /// Sums over its listeners, since its start.
    pub totals: Totals,
    /// The same, each second, since it was last asked.
    pub rates: Rates,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// Limits that have turned somebody away, or that are reached now.
    pub limits: Vec<Limit>,
    /// What runs out, the next first.
    pub certificates: Vec<Certificate>,
    /// Of an fd-broker: its pools with their workers.
    pub pools: Vec<Pool>,
    /// What can be done to it: `reload`, `drain`; and to workers of it: `workers/drain`, `workers/resume`.
    pub actions: Vec<String>,
    /// Whether its keys can be looked at.
    pub keys: bool,
    /// What only this kind of daemon has in its status.
    pub details: Map<String, Value>,
    /// The last figures; not in events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// How a daemon is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not been asked yet.
    #[default]
    Unknown,
    /// It has not opened everything yet.
    Starting,
    /// It serves.
    Ready,
    /// It finishes what runs and takes nothing new.
    Draining,
    /// It answers, but one of its loops or sockets does not work.
    Unhealthy,
    /// It does not answer.
    Unreachable,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Connections, and how many there may be.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct Connections {
    /// That exist.
    pub present: u64,
    /// That may; absent: as many as come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Sums since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused.
    pub refused: u64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams answered.
    pub answered: u64,
    /// Datagrams dropped.
    pub dropped: u64,
    /// Inputs that broke a protocol's rules.
    pub bad_input: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// The same each second.
#[derive(Debug, Clone, Copy, Default, Serialize, JsonSchema)]
pub struct Rates {
    /// Connections accepted.
    pub accepted: f64,
    /// Connections refused.
    pub refused: f64,
    /// Datagrams received.
    pub datagrams: f64,
    /// Datagrams answered.
    pub answered: f64,
    /// Datagrams dropped.
    pub dropped: f64,
    /// Inputs that broke a protocol's rules.
    pub bad_input: f64,
    /// Bytes received.
    pub received_bytes: f64,
    /// Bytes sent.
    pub sent_bytes: f64,
}

/// One listener.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// What it serves.
    pub service: String,
    /// Where.
    pub endpoint: String,
    /// Connections of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Sums of it.
    pub totals: Totals,
}

/// A limit that somebody has met.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Limit {
    /// The listener; empty: the daemon as a whole.
    pub listener: String,
    /// Which limit: a reason of refusals, of drops or of ends, or `connections` for one that is full now.
    pub reason: String,
    /// How often.
    pub count: u64,
    /// Whether it has happened since the daemon was last asked, or holds now.
    pub now: bool,
}

/// Something that runs out.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Certificate {
    /// The listener that uses it.
    pub listener: String,
    /// Certificate, authority, or list of revocations.
    pub kind: String,
    /// Whose.
    pub name: String,
    /// The file it came from.
    pub file: String,
    /// When: seconds since 1970.
    pub not_after: u64,
    /// Days until then; negative: it has.
    pub days_left: i64,
}

/// Workers that serve the same connections.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Connections that wait for a worker.
    pub waiting: u64,
    /// How many may.
    pub waiting_limit: u64,
    /// Connections that its workers have.
    pub connections: u64,
    /// Its workers.
    pub workers: Vec<Worker>,
}

/// A process that is given connections.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Worker {
    /// Its name, which others may have too.
    pub name: String,
    /// What it speaks: `native`, `python` or `raw`.
    pub protocol: String,
    /// Its process.
    pub pid: u64,
    /// `serving` or `draining`.
    pub state: String,
    /// Connections that it has.
    pub connections: u64,
    /// How many it may have at a time.
    pub capacity: u64,
    /// Connections that it has taken since it came.
    pub taken: u64,
    /// Connections that it has refused.
    pub refused: u64,
}

/// Figures of the last while, the newest at the end.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct History {
    /// Seconds between two of them.
    pub every: f64,
    /// Connections that existed.
    pub present: Vec<u64>,
    /// Connections and datagrams taken, each second.
    pub work: Vec<f64>,
    /// Bytes received, each second.
    pub received: Vec<f64>,
    /// Bytes sent, each second.
    pub sent: Vec<f64>,
}

/// A change of state.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Change {
    /// Counts changes since rest-api has started.
    pub id: u64,
    /// When: seconds since 1970.
    pub at: u64,
    /// Which daemon.
    pub name: String,
    /// How it was.
    pub from: State,
    /// How it is.
    pub to: State,
    /// Why, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// An action that was taken.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Taken {
    /// Counts actions since rest-api has started.
    pub id: u64,
    /// When: seconds since 1970.
    pub at: u64,
    /// By whom: the name of a key or a certificate.
    pub by: String,
    /// What came of it.
    pub done: Done,
}

/// What came of an action.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Done {
    /// Which daemon.
    pub name: String,
    /// What was asked for.
    pub action: String,
    /// The worker or pool of an fd-broker that it was about, if it was not about the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// What it has said.
    pub said: String,
}

/// A page of keys.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Keys {
    /// In their order.
    pub keys: Vec<Key>,
    /// Where the next page begins; absent: this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A key and how its value begins.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Key {
    /// The key.
    pub name: String,
    /// What kind of value it has.
    pub kind: &'static str,
    /// The value as JSON, as far as there is room.
    pub begins: String,
    /// Whether there is more.
    pub cut: bool,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
}
