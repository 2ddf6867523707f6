//! The `[[listener]]` table: where a service is offered, with which socket, limits and access.

use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::tls::TlsConfig;
use super::units::{FileMode, Rate, RateLimit, Size, Span};
use crate::access::AccessConfig;
use crate::auth::{Dialect, MinDigest};
use crate::endpoint::Endpoint;
use crate::files::FilePlace;
use crate::limits::Tariff;

/// One listener, or several on different endpoints with the same service and settings.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[serde(bound(
    deserialize = "L: Default + Deserialize<'de>, O: Default + Deserialize<'de>",
    serialize = "L: Serialize, O: Serialize"
))]
pub struct ListenerConfig<L, O> {
    /// The service, by its name in the daemon's table.
    pub service: Spanned<String>,
    /// The name in logs, metrics and status; the service's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to listen, each an [`Endpoint`] as text, so that an error names its line.
    pub listen: Vec<Spanned<String>>,
    /// The dialogue in which a key is proved to the broker of a `broker:` endpoint; absent: the mutual
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_auth: Option<Dialect>,
    /// The file whose first key is proved to that broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_keys: Option<FilePlace>,
    /// The dialogue that proves a key before anything is served.
    #[serde(default, skip_serializing_if = "Dialect::is_none")]
    pub auth: Dialect,
    /// The file of the keys that are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_keys: Option<FilePlace>,
    /// The weakest digest of a proof.
    #[serde(default, skip_serializing_if = "MinDigest::is_default")]
    pub min_digest: MinDigest,
    /// The balancers whose PROXY header is required and believed: prefixes, and `"unix"` for all
    /// peers of a Unix socket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxy: Vec<Spanned<String>>,
    /// Encryption; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Options of the sockets.
    #[serde(default)]
    pub socket: SocketOptions,
    /// Limits and deadlines.
    #[serde(default)]
    pub limits: L,
    /// Who may use it; absent: the daemon's `[access]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessConfig>,
    /// Options of the service.
    #[serde(default)]
    pub options: O,
}

impl<L: Default, O: Default> ListenerConfig<L, O> {
    /// A listener with defaults for everything but service and place.
    pub fn new(service: &str, endpoint: &Endpoint) -> Self {
        Self {
            service: Spanned::new(0..0, service.into()),
            name: None,
            broker_auth: None,
            broker_keys: None,
            auth: Dialect::None,
            auth_keys: None,
            min_digest: MinDigest::default(),
            proxy: Vec::new(),
            tls: None,
            listen: vec![Spanned::new(0..0, endpoint.to_string())],
            socket: SocketOptions::default(),
            limits: L::default(),
            access: None,
            options: O::default(),
        }
    }
}

impl<L, O> ListenerConfig<L, O> {
    /// The name in logs, metrics and status.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(self.service.as_ref())
    }
}

/// Options of a listening or datagram socket that we bind. Inherited sockets keep their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SocketOptions {
    /// Connections the kernel queues before we accept them (the kernel caps it at `somaxconn`).
    pub backlog: NonZeroU32,
    /// An IPv6 socket takes IPv6 only; `false` lets it take IPv4 as mapped addresses too.
    pub v6only: bool,
    /// Send small answers at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// First keepalive probe after this silence; `"0s"` turns keepalive off.
    pub keepalive: Span,
    /// Time between keepalive probes.
    pub keepalive_interval: Span,
    /// Unanswered keepalive probes before the connection is dead.
    pub keepalive_probes: u8,
    /// Unacknowledged data older than this ends the connection (`TCP_USER_TIMEOUT`); `"0s"`: the
    /// kernel's own rule, which may take a quarter of an hour.
    pub user_timeout: Span,
    /// Receive buffer; absent: the kernel's default for streams, 4 MiB (or as much of it as
    /// `net.core.rmem_max` allows) for datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_buffer: Option<Size>,
    /// Send buffer; absent: the kernel's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send_buffer: Option<Size>,
    /// Wake up only when the first bytes are there (`TCP_DEFER_ACCEPT`); `"0s"`: at once.
    pub defer_accept: Span,
    /// Bind addresses that the machine does not have (yet).
    pub freebind: bool,
    /// DSCP code point of what we send, 0 to 63.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<u8>,
    /// Mode of a Unix socket's file.
    pub mode: FileMode,
}

/// What happens to a connection over a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AtLimit {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It is reset.
    Refuse,
    /// It is told the listener's `banner` and closed.
    Banner,
}

/// Limits and deadlines of a stream listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamLimits {
    /// Connections of this listener at a time; absent: the daemon's `max_connections` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroU32>,
    /// Connections at a time from one IPv4 address or one IPv6 /64; absent: no limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_source: Option<NonZeroU32>,
    /// New connections from one IPv4 address or one IPv6 /64; `"off"`: as fast as they come.
    pub rate: RateLimit,
    /// Connections above the rate that may come at once.
    pub burst: NonZeroU32,
    /// What happens at a limit.
    pub at_limit: AtLimit,
    /// Connections that may wait at `per_source` or `rate`; one more is reset.
    pub queue: NonZeroU16,
    /// How long one waits there before it is reset.
    pub queue_timeout: Span,
    /// The text for `at_limit = "banner"`.
    pub banner: String,
    /// A connection on which nothing moves for so long is closed; `"0s"`: never.
    pub idle: Span,
    /// A connection whose peer takes nothing of what we send for so long is reset; `"0s"`: never.
    pub write_stall: Span,
    /// No connection lasts longer; `"0s"`: any length.
    pub total: Span,
    /// PROXY header, TLS and authentication together take no longer.
    pub handshake: Span,
    /// Connections at a time that have not come through these yet.
    pub handshakes: NonZeroU32,
    /// From so many of them on, a new one is dropped at random: the more there are, the likelier.
    pub handshakes_early: u32,
    /// What a failed authentication costs its source; `"0s"`: nothing.
    pub penalty: Span,
    /// A source that owes more than this is refused.
    pub penalty_min: Span,
    /// No source owes more.
    pub penalty_max: Span,
}

impl StreamLimits {
    /// What failed authentications cost.
    pub fn tariff(&self) -> Tariff {
        Tariff {
            each: self.penalty.0,
            minimum: self.penalty_min.0,
            maximum: self.penalty_max.0,
        }
    }
}

/// Limits of a datagram listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatagramLimits {
    /// Answers to one IPv4 address or one IPv6 /64; `"off"`: no limit.
    pub rate: RateLimit,
    /// Answers above the rate that may go at once.
    pub burst: NonZeroU32,
    /// One in so many datagrams over the rate is answered all the same, at random, so that a
    /// spoofer cannot silence its victim; 0: none.
    pub leak: u32,
    /// Whether loopback sources are exempt from the rate.
    pub exempt_loopback: bool,
    /// Demand requests at least as long as their answers.
    pub strict: bool,
    /// Answers may be this many times the request on the wire, headers included.
    pub amplification: NonZeroU32,
    /// Sources below this port are not answered (123 is allowed for sntp).
    pub min_source_port: u16,
    /// The longest datagram that is taken; a longer one is dropped and counted.
    pub max_datagram: Size,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            backlog: DEFAULT_BACKLOG,
            v6only: true,
            nodelay: true,
            keepalive: Span::secs(60),
            keepalive_interval: Span::secs(10),
            keepalive_probes: 6,
            user_timeout: Span::secs(30),
            receive_buffer: None,
            send_buffer: None,
            defer_accept: Span::secs(0),
            freebind: false,
            dscp: None,
            mode: FileMode(0o600),
        }
    }
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            connections: None,
            per_source: None,
            rate: RateLimit(None),
            burst: DEFAULT_BURST,
            at_limit: AtLimit::Queue,
            queue: DEFAULT_QUEUE,
            queue_timeout: Span::secs(10),
            banner: "Too many connections; try again later.\r\n".into(),
            idle: Span::secs(600),
            write_stall: Span::secs(60),
            total: Span::secs(0),
            handshake: Span::secs(10),
            handshakes: DEFAULT_HANDSHAKES,
            handshakes_early: 128,
            penalty: Span::secs(5),
            penalty_min: Span::secs(15),
            penalty_max: Span::secs(600),
        }
    }
}

impl Default for DatagramLimits {
    fn default() -> Self {
        Self {
            rate: RateLimit(Some(Rate::per_second(100))),
            burst: DEFAULT_BURST,
            leak: 4,
            exempt_loopback: true,
            strict: false,
            amplification: DEFAULT_AMPLIFICATION,
            min_source_port: 1024,
            max_datagram: Size(65_507),
        }
    }
}

/// A burst of connections that a reload of many clients makes; Debian's `somaxconn` is the same.
const DEFAULT_BACKLOG: NonZeroU32 = nonzero(4096);
/// Lets a client open a handful of connections at once, or retry a few datagrams.
const DEFAULT_BURST: NonZeroU32 = nonzero(50);
/// Enough for honest peers behind one address, few enough that an abuser holds little.
const DEFAULT_QUEUE: NonZeroU16 = match NonZeroU16::new(128) {
    Some(queue) => queue,
    None => NonZeroU16::MIN,
};
/// A handshake takes milliseconds, so these are thousands a second, or this many who say nothing.
const DEFAULT_HANDSHAKES: NonZeroU32 = nonzero(256);
/// The bound that RFC 9000 (8.1) gives for answers to an unproven address.
const DEFAULT_AMPLIFICATION: NonZeroU32 = nonzero(3);

const fn nonzero(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}
