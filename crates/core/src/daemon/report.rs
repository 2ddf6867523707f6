//! What the admin endpoint tells of a running daemon.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{Daemon, Shared};
use crate::event_loop::Loops;
use crate::limits::Gate;
use crate::listener::{Flavour, Listener};
use crate::observe::admin::{Acting, Action, Download, Report};
use crate::observe::metrics::{Drop, Ending, Metrics, Refusal};
use crate::offload::Offload;
use crate::sandbox::Sandbox;
use crate::serve::Trust;
use crate::tls::Expiry;

/// The state that the control thread and the admin endpoint share.
pub struct State<D: Daemon> {
    pub loops: Loops<D::Flavour>,
    pub metrics: Arc<Metrics>,
    pub shared: D::Shared,
    pub sandbox: Sandbox,
    pub total: Arc<Gate>,
    pub offload: Offload,
    pub started: Instant,
    pub phase: Cell<Phase>,
    pub listeners: RefCell<Vec<Arc<Listener<D::Flavour>>>>,
    /// Whether the admin endpoint takes actions.
    pub actions: bool,
    /// To the control thread.
    pub asks: mpsc::Sender<Ask>,
}

/// Something that the control thread is asked to do, and where it tells the outcome.
pub struct Ask {
    pub action: Action,
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// Where in its life the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    Draining,
}

impl<D: Daemon> Report for State<D> {
    fn healthy(&self) -> Pin<Box<dyn Future<Output = bool>>> {
        let loops = self.loops.clone();
        Box::pin(async move { loops.probe().await })
    }

    fn ready(&self) -> bool {
        self.phase.get() == Phase::Ready
    }

    fn metrics(&self) -> String {
        self.metrics
            .render(self.started.elapsed(), self.offload.waiting())
    }

    fn status(&self) -> Value {
        let listeners: Vec<Value> = self
            .listeners
            .borrow()
            .iter()
            .map(|listener| describe(listener))
            .collect();
        let mut status = json!({
            "daemon": D::NAME,
            "version": D::VERSION,
            "pid": std::process::id(),
            "state": match self.phase.get() {
                Phase::Starting => "starting",
                Phase::Ready => "ready",
                Phase::Draining => "draining",
            },
            "uptime_seconds": self.started.elapsed().as_secs(),
            "loops": self.loops.count(),
            "connections": { "present": self.total.present(), "limit": self.total.ceiling() },
            "offload_waiting": self.offload.waiting(),
            "sandbox": self.sandbox.status(),
            "actions": if self.actions { [&["reload", "drain"], D::Shared::ACTIONS].concat() } else { Vec::new() },
            "listeners": listeners,
        });
        if let Value::Object(status) = &mut status {
            status.extend(self.shared.status());
        }
        status
    }

    fn downloads(&self) -> &'static [&'static str] {
        D::Shared::DOWNLOADS
    }

    fn download(&self, path: &str) -> Download {
        self.shared.download(path)
    }

    fn own_actions(&self) -> &'static [&'static str] {
        D::Shared::ACTIONS
    }

    fn act_on(&self, action: &str, name: &str) -> Result<String, String> {
        self.shared.act(action, name)
    }

    fn act(&self, action: Action) -> Acting {
        let (reply, told) = oneshot::channel();
        let asked = if self.ready() {
            let asked = self.asks.try_send(Ask { action, reply });
            asked.map_err(|_| "others are asking for the same; try again later")
        } else {
            Err("the daemon is starting or draining")
        };
        Box::pin(async move {
            asked?;
            // Not told: the daemon has come to its end meanwhile.
            told.await
                .unwrap_or_else(|_| Err("the daemon is draining".into()))
        })
    }
}

fn describe<F: Flavour>(listener: &Listener<F>) -> Value {
    let metrics = &listener.metrics;
    let counts = |labels: Vec<&'static str>,
                  counters: &[prometheus_client::metrics::counter::Counter]| {
        let seen = labels
            .into_iter()
            .zip(counters)
            .filter(|(_, counter)| counter.get() > 0);
        Value::Object(
            seen.map(|(label, counter)| (label.into(), counter.get().into()))
                .collect(),
        )
    };
    let mut value = json!({
        "name": listener.name,
        "service": listener.service,
        "endpoint": listener.endpoint.to_string(),
        "inherited": listener.inherited,
        "received_bytes": metrics.traffic.received.get(),
        "sent_bytes": metrics.traffic.sent.get(),
        "bad_input": metrics.bad_input.get(),
    });
    let more = match F::TRANSPORT {
        crate::endpoint::Transport::Stream | crate::endpoint::Transport::SeqPacket => {
            let limit = listener.gate.ceiling();
            let busiest: Vec<Value> = listener
                .sources
                .busiest(BUSIEST)
                .into_iter()
                .map(
                    |(source, count)| json!({ "source": source.to_string(), "connections": count }),
                )
                .collect();
            json!({
                "connections": {
                    "present": listener.gate.present(),
                    "limit": if limit == u32::MAX { Value::Null } else { limit.into() },
                    "waiting": listener.waiting.present(),
                    "accepted": metrics.accepted.get(),
                    "refused": counts(Refusal::ALL.iter().map(|r| r.label()).collect(), &metrics.refused),
                    "ended": counts(Ending::ALL.iter().map(|e| e.label()).collect(), &metrics.ended),
                },
                "busiest_sources": busiest,
            })
        }
        crate::endpoint::Transport::Datagram => json!({
            "datagrams": {
                "received": metrics.datagrams.get(),
                "answered": metrics.answers.get(),
                "dropped": counts(Drop::ALL.iter().map(|d| d.label()).collect(), &metrics.dropped),
            },
        }),
    };
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
        if let Some(trust) = &listener.settings().trust {
            value.insert("proving".into(), listener.proving.present().into());
            value.insert("penalized_sources".into(), listener.penalties.len().into());
            value.insert("trust".into(), describe_trust(trust));
        }
    }
    value
}

fn describe_trust(trust: &Trust) -> Value {
    let now = SystemTime::now();
    let expiry = |expiry: &Expiry| {
        let at = expiry.not_after.duration_since(UNIX_EPOCH);
        json!({
            "kind": expiry.kind,
            "name": expiry.name,
            "file": expiry.place,
            "not_after": at.map_or(0, |at| at.as_secs()),
            "days_left": expiry.days_left(now),
        })
    };
    json!({
        "auth": trust.auth.as_ref().map_or("none", |auth| auth.dialect.name()),
        "tls": trust.tls.is_some(),
        "expiries": trust.expiries().map(expiry).collect::<Vec<_>>(),
    })
}

/// Sources that are named in the status.
const BUSIEST: usize = 10;
