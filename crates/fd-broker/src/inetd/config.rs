//! The `[[service]]` table.

use portyard_core::access::AccessConfig;
use portyard_core::auth::{Dialect, MinDigest};
use portyard_core::config::{SocketOptions, Spanned, StreamLimits, TlsConfig};
use portyard_core::endpoint::Endpoint;
use portyard_core::files::FilePlace;
use serde::{Deserialize, Serialize};

use super::times::AccessTimes;
use super::warm::WarmConfig;
use crate::process::{ProcessConfig, RestartConfig};

/// A program that is started for its peers, or a place to which they are passed on.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// The name in logs, metrics and status.
    pub name: Spanned<String>,
    /// Where to listen, each an [`Endpoint`] as text.
    pub listen: Vec<Spanned<String>>,
    /// The dialogue in which a key is proved to the broker of a `broker:` endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_auth: Option<Dialect>,
    /// The file whose first key is proved to that broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_keys: Option<FilePlace>,
    /// What kind of socket that is; absent: datagrams for `udp://`, else streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_type: Option<SocketType>,
    /// Whether one process gets the socket itself and serves all peers; absent: for datagrams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// The program, by its absolute path, and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Instead of a program: where connections are passed on to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Endpoint>,
    /// How a program is told of its peer.
    #[serde(default)]
    pub style: Style,
    /// What a program is given, and whom it runs as.
    #[serde(default)]
    pub process: ProcessConfig,
    /// Processes that are kept and handed one connection after the other; absent: a process for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmConfig>,
    /// Waits before a program is started again: a `wait` program that left its work undone, a warm one
    /// that has ended.
    #[serde(default)]
    pub restart: RestartConfig,
    /// When the service may be used, in local time; none: always.
    #[serde(default, skip_serializing_if = "AccessTimes::is_always")]
    pub access_times: AccessTimes,
    /// What a peer is told before its program or its target.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub banner: String,
    /// What the log tells of each connection.
    #[serde(default)]
    pub log: Detail,
    /// Whether the log tells how many bytes a program has received and sent.
    #[serde(default)]
    pub count_bytes: bool,
    /// The dialogue that proves a key first.
    #[serde(default, skip_serializing_if = "Dialect::is_none")]
    pub auth: Dialect,
    /// The file of the keys that are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_keys: Option<FilePlace>,
    /// The weakest digest of a proof.
    #[serde(default, skip_serializing_if = "MinDigest::is_default")]
    pub min_digest: MinDigest,
    /// The balancers whose PROXY header is required and believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy: Vec<Spanned<String>>,
    /// Encryption; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Options of the sockets.
    #[serde(default)]
    pub socket: SocketOptions,
    /// Limits; `connections` are the instances of the program.
    #[serde(default)]
    pub limits: StreamLimits,
    /// Who may use it; absent: the daemon's `[access]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessConfig>,
}

/// What kind of socket a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketType {
    /// Byte streams.
    Stream,
    /// Datagrams.
    Datagram,
}

/// How a program finds its connection and is told of its peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Descriptors 0 and 1, and nothing else.
    #[default]
    Inetd,
    /// Descriptors 0 and 1, and `REMOTE_HOST`.
    Xinetd,
    /// Descriptors 0 and 1, and `PROTO`, `TCPREMOTEIP`, `TCPLOCALPORT` and their like.
    Ucspi,
    /// Descriptor 3, and `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`, `REMOTE_ADDR`, `REMOTE_PORT`.
    Systemd,
}

/// What the log tells of each connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// Nothing; what goes wrong is told all the same.
    Off,
    /// Its end: peer, process, how it ended, how long it took.
    #[default]
    End,
    /// Its beginning, too.
    Both,
}
