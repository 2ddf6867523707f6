//! Counters and gauges by listener, service and reason, in Prometheus' text format.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::endpoint::Transport;
use crate::sandbox::{DenialCollector, Layer, Sandbox};
use crate::tls::Expiry;

/// All metrics of the process.
pub struct Metrics {
    registry: Mutex<Registry>,
    accepted: Family<Labels, Counter>,
    present: Family<Labels, Gauge>,
    refused: Family<ReasonLabels, Counter>,
    ended: Family<ReasonLabels, Counter>,
    received_bytes: Family<Labels, Counter>,
    sent_bytes: Family<Labels, Counter>,
    datagrams: Family<Labels, Counter>,
    answers: Family<Labels, Counter>,
    dropped: Family<ReasonLabels, Counter>,
    bad_input: Family<Labels, Counter>,
    reloads: Family<ResultLabels, Counter>,
    not_after: Family<ExpiryLabels, Gauge>,
    sandbox: Family<LayerLabels, Gauge>,
    uptime: Gauge<f64, AtomicU64>,
    offload_waiting: Gauge,
}

/// The counters of one listener, looked up once.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    /// Connections accepted, refused ones included.
    pub accepted: Counter,
    /// Connections that exist now.
    pub present: Gauge,
    /// Connections refused, by [`Refusal`].
    pub refused: Vec<Counter>,
    /// Connections ended, by [`Ending`].
    pub ended: Vec<Counter>,
    /// Bytes in and out.
    pub traffic: Arc<Traffic>,
    /// Datagrams received.
    pub datagrams: Counter,
    /// Datagrams answered.
    pub answers: Counter,
    /// Datagrams not answered, by [`Drop`].
    pub dropped: Vec<Counter>,
    /// Input that broke its protocol's rules and got a clear error line.
    pub bad_input: Counter,
}

/// The bytes of a listener.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Received.
    pub received: Counter,
    /// Sent.
    pub sent: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    listener: String,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    listener: String,
    service: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExpiryLabels {
    listener: String,
    kind: &'static str,
    name: String,
    file: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LayerLabels {
    layer: &'static str,
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of the `reason` label, and the word in logs.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

reasons! {
    /// Why a connection was not served.
    Refusal {
        /// The access list denies it.
        Access = "access",
        /// The listener or the daemon has all the connections it may have.
        Connections = "connections",
        /// Its source has all the connections it may have.
        PerSource = "per_source",
        /// Its source comes faster than it may.
        Rate = "rate",
        /// No descriptor or memory was left for it.
        Descriptors = "descriptors",
        /// Too many connections had not proved anything yet.
        Handshakes = "handshakes",
        /// Its source has failed to authenticate too often.
        Penalty = "penalty",
    }
}

reasons! {
    /// Why a connection that was served ended.
    Ending {
        /// The service and its peer were done.
        Done = "done",
        /// The connection broke.
        Broken = "broken",
        /// The peer broke the protocol's rules.
        Protocol = "protocol",
        /// Nothing moved for the `idle` time.
        Idle = "idle",
        /// The peer took nothing for the `write_stall` time.
        WriteStall = "write_stall",
        /// It lasted longer than `total`.
        Total = "total",
        /// The grace period was over.
        Drain = "drain",
        /// It did not begin with the PROXY header that it owes.
        Proxy = "proxy",
        /// The TLS handshake failed.
        Tls = "tls",
        /// It proved no key that is accepted.
        Auth = "auth",
        /// The access list denies its certificate, its key, or the peer that its balancer named.
        Denied = "denied",
        /// It took too long to prove anything.
        Handshake = "handshake",
        /// The service panicked: a fault of ours.
        Panic = "panic",
    }
}

reasons! {
    /// Why a datagram was not answered.
    Drop {
        /// Longer than `max_datagram`.
        Oversize = "oversize",
        /// From a Unix socket without a name, which no answer can reach.
        Unnamed = "unnamed",
        /// From port 0, a port below `min_source_port`, or 2049.
        SourcePort = "source_port",
        /// From one of our own listeners.
        OwnListener = "own_listener",
        /// From a broadcast, multicast or unspecified address.
        SourceAddress = "source_address",
        /// The access list denies it.
        Access = "access",
        /// It carries the mark of an answer of ours.
        Mark = "mark",
        /// It looks like an answer of ours.
        Signature = "signature",
        /// Its source comes faster than it may.
        Rate = "rate",
        /// The answer would be longer than a stranger may make us send.
        Amplification = "amplification",
        /// `strict` is set and the answer would be longer than the request.
        Strict = "strict",
        /// It is not a request of the protocol.
        Malformed = "malformed",
        /// The service never answers, as `discard`, or cannot, as `time` after 2036.
        Silent = "silent",
        /// Too much work was waiting.
        Busy = "busy",
        /// The kernel would not send the answer.
        SendFailed = "send_failed",
    }
}

impl Metrics {
    /// Metrics for a daemon.
    pub fn new(daemon: &'static str, version: &'static str, transport: Transport) -> Self {
        let mut registry = Registry::with_prefix("portyard");
        let build = Info::new(vec![("daemon", daemon), ("version", version)]);
        registry.register("build", "What runs here", build);
        macro_rules! family {
            ($transport:pat, $name:literal, $help:literal) => {{
                let family = Family::default();
                // What the daemon's transport does not have would only ever be 0.
                if matches!(transport, $transport) {
                    registry.register($name, $help, family.clone());
                }
                family
            }};
        }
        let accepted = family!(
            Transport::Stream,
            "connections_accepted",
            "Connections accepted, refused ones included"
        );
        let present = family!(
            Transport::Stream,
            "connections",
            "Connections that exist now"
        );
        let refused = family!(
            Transport::Stream,
            "connections_refused",
            "Connections that were not served"
        );
        let ended = family!(
            Transport::Stream,
            "connections_ended",
            "Connections that were served and have ended"
        );
        let received_bytes = family!(_, "received_bytes", "Bytes received from peers");
        let sent_bytes = family!(_, "sent_bytes", "Bytes sent to peers");
        let datagrams = family!(Transport::Datagram, "datagrams", "Datagrams received");
        let answers = family!(Transport::Datagram, "answers", "Datagrams answered");
        let dropped = family!(
            Transport::Datagram,
            "datagrams_dropped",
            "Datagrams that were not answered"
        );
        let bad_input = family!(_, "bad_input", "Inputs answered with an error line");
        let reloads = family!(_, "reloads", "Configuration reloads");
        let not_after = family!(
            Transport::Stream,
            "tls_not_after_timestamp_seconds",
            "When a certificate, an authority or a list of revocations runs out"
        );
        let sandbox = family!(_, "sandbox", "Whether a layer of the sandbox is enforced");
        let uptime = Gauge::default();
        registry.register("uptime_seconds", "Seconds since the start", uptime.clone());
        let offload_waiting = Gauge::default();
        registry.register(
            "offload_waiting",
            "Jobs waiting for a thread",
            offload_waiting.clone(),
        );
        Self {
            registry: Mutex::new(registry),
            accepted,
            present,
            refused,
            ended,
            received_bytes,
            sent_bytes,
            datagrams,
            answers,
            dropped,
            bad_input,
            reloads,
            not_after,
            sandbox,
            uptime,
            offload_waiting,
        }
    }

    /// The counters of one listener. The same names give the same counters.
    pub fn listener(&self, listener: &str, service: &str) -> ListenerMetrics {
        let labels = Labels {
            listener: listener.into(),
            service: service.into(),
        };
        let reason = |reason| ReasonLabels {
            listener: listener.into(),
            service: service.into(),
            reason,
        };
        let by = |family: &Family<ReasonLabels, Counter>, all: &[&'static str]| {
            all.iter()
                .map(|label| family.get_or_create_owned(&reason(label)))
                .collect()
        };
        let labels_of = |all: &[Refusal]| all.iter().map(|r| r.label()).collect::<Vec<_>>();
        let endings: Vec<_> = Ending::ALL.iter().map(|e| e.label()).collect();
        let drops: Vec<_> = Drop::ALL.iter().map(|d| d.label()).collect();
        ListenerMetrics {
            accepted: self.accepted.get_or_create_owned(&labels),
            present: self.present.get_or_create_owned(&labels),
            refused: by(&self.refused, &labels_of(Refusal::ALL)),
            ended: by(&self.ended, &endings),
            traffic: Arc::new(Traffic {
                received: self.received_bytes.get_or_create_owned(&labels),
                sent: self.sent_bytes.get_or_create_owned(&labels),
            }),
            datagrams: self.datagrams.get_or_create_owned(&labels),
            answers: self.answers.get_or_create_owned(&labels),
            dropped: by(&self.dropped, &drops),
            bad_input: self.bad_input.get_or_create_owned(&labels),
        }
    }

    /// Adds what one daemon alone measures.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts a reload that was taken over or refused.
    pub fn reloaded(&self, good: bool) {
        let result = if good { "ok" } else { "error" };
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// Shows which layers are enforced, and from here on what they deny.
    pub fn set_sandbox(&self, sandbox: &Sandbox) {
        for (layer, state) in sandbox.layers() {
            let gauge = self.sandbox.get_or_create_owned(&LayerLabels { layer });
            gauge.set(matches!(state, Layer::Full | Layer::Partial).into());
        }
        self.register(|registry| registry.register_collector(Box::new(DenialCollector)));
    }

    /// Replaces what is known of things that run out, each with its listener.
    pub fn set_expiries<'a>(&self, expiries: impl Iterator<Item = (&'a str, &'a Expiry)>) {
        self.not_after.clear();
        for (listener, expiry) in expiries {
            let labels = ExpiryLabels {
                listener: listener.into(),
                kind: expiry.kind,
                name: expiry.name.clone(),
                file: expiry.place.clone(),
            };
            let gauge = self.not_after.get_or_create_owned(&labels);
            let at = expiry.not_after.duration_since(UNIX_EPOCH);
            // What ran out before 1970 ran out.
            let at = at.map_or(0, |at| i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
            // Of several with one name (two keys for one host) the first to run out counts.
            if gauge.get() == 0 || at < gauge.get() {
                gauge.set(at);
            }
        }
    }

    /// The text that a scraper gets.
    pub fn render(&self, uptime: std::time::Duration, offload_waiting: usize) -> String {
        self.uptime.set(uptime.as_secs_f64());
        self.offload_waiting
            .set(i64::try_from(offload_waiting).unwrap_or(i64::MAX));
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        match encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing into a String does not fail; should an encoder, the scrape must show it.
            Err(error) => format!("# encoding failed: {error}\n"),
        }
    }
}

impl ListenerMetrics {
    /// Counts a refusal.
    pub fn refuse(&self, reason: Refusal) {
        self.refused[reason as usize].inc();
    }

    /// Counts an end.
    pub fn end(&self, reason: Ending) {
        self.ended[reason as usize].inc();
    }

    /// Counts a datagram that is not answered.
    pub fn drop(&self, reason: Drop) {
        self.dropped[reason as usize].inc();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_shown_from_the_start_and_counted_apart() {
        let metrics = Metrics::new("echo-tcp", "1.2.3", Transport::Stream);
        let listener = metrics.listener("front", "echo");
        listener.refuse(Refusal::Rate);
        listener.end(Ending::Idle);
        let text = metrics.render(std::time::Duration::from_secs(5), 2);
        for line in [
            "portyard_build_info{daemon=\"echo-tcp\",version=\"1.2.3\"} 1",
            "portyard_connections_refused_total{listener=\"front\",service=\"echo\",reason=\"rate\"} 1",
            "portyard_connections_refused_total{listener=\"front\",service=\"echo\",reason=\"access\"} 0",
            "portyard_connections_ended_total{listener=\"front\",service=\"echo\",reason=\"idle\"} 1",
            "portyard_offload_waiting 2",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
