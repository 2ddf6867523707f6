//! What is counted of services, in Prometheus' form.

use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};

use portyard_core::observe::metrics::Metrics as Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// The counters of all services. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Families>);

#[derive(Debug, Default)]
struct Families {
    running: Family<Labels, Gauge>,
    started: Family<Labels, Counter>,
    failed: Family<Labels, Counter>,
    ended: Family<EndLabels, Counter>,
    refused: Family<RefusalLabels, Counter>,
    unread: Family<Labels, Counter>,
    registered: OnceLock<()>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    name: String,
    end: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    name: String,
    reason: &'static str,
}

/// The counters of one service.
#[derive(Debug, Clone)]
pub struct ServiceMetrics {
    /// Processes that run now.
    pub running: Gauge,
    /// Processes that were started.
    pub started: Counter,
    /// Processes that could not be started.
    pub failed: Counter,
    /// Starts of a `wait` program that left its work undone.
    pub unread: Counter,
    ended: [Counter; 3],
    refused: [Counter; 3],
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// With exit code 0.
    Ok,
    /// With another one.
    Failed,
    /// By a signal.
    Killed,
}

impl End {
    /// What a status comes to.
    pub fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(0) => Self::Ok,
            Some(_) => Self::Failed,
            None => Self::Killed,
        }
    }
}

/// Why a peer was not served here, though the listener had let it in.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    /// It came outside the access times.
    Time,
    /// The access list denies the source of a datagram.
    Access,
    /// The target of a redirection could not be reached.
    Target,
}

impl Metrics {
    /// Shows the counters on the metrics page.
    pub fn register(&self, page: &Registry) {
        // A second page would show them twice.
        if self.0.registered.set(()).is_err() {
            return;
        }
        let families = self.0.clone();
        page.register(|registry| {
            registry.register(
                "programs",
                "Processes of services that run now",
                families.running.clone(),
            );
            registry.register(
                "programs_started",
                "Processes of services that were started",
                families.started.clone(),
            );
            registry.register(
                "programs_failed",
                "Programs of services that could not be started",
                families.failed.clone(),
            );
            registry.register(
                "programs_ended",
                "Processes of services that have ended, by how they ended",
                families.ended.clone(),
            );
            registry.register(
                "service_refused",
                "Peers that were not served, by why",
                families.refused.clone(),
            );
            registry.register(
                "programs_unread",
                "Processes of wait services that left their work undone",
                families.unread.clone(),
            );
        });
    }

    /// The counters of a service. The same name gives the same counters.
    pub fn service(&self, name: &str) -> ServiceMetrics {
        let families = &self.0;
        let labels = Labels { name: name.into() };
        let ended = END_LABELS.map(|end| {
            let name = name.into();
            families.ended.get_or_create_owned(&EndLabels { name, end })
        });
        let refused = REFUSAL_LABELS.map(|reason| {
            let name = name.into();
            families
                .refused
                .get_or_create_owned(&RefusalLabels { name, reason })
        });
        ServiceMetrics {
            running: families.running.get_or_create_owned(&labels),
            started: families.started.get_or_create_owned(&labels),
            failed: families.failed.get_or_create_owned(&labels),
            unread: families.unread.get_or_create_owned(&labels),
            ended,
            refused,
        }
    }
}

impl ServiceMetrics {
    /// Counts the end of a process.
    pub fn end(&self, end: End) {
        self.ended[end as usize].inc();
    }

    /// Counts a peer that was not served.
    pub fn refuse(&self, why: Refusal) {
        self.refused[why as usize].inc();
    }

    /// How many were not served.
    pub fn refused(&self) -> u64 {
        self.refused.iter().map(Counter::get).sum()
    }
}

/// In the order of [`End`].
const END_LABELS: [&str; 3] = ["ok", "failed", "killed"];
/// In the order of [`Refusal`].
const REFUSAL_LABELS: [&str; 3] = ["time", "access", "target"];
