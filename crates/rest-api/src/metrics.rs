//! Requests counted and timed by route.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use portyard_core::observe::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The metrics of all requests.
#[derive(Debug, Clone)]
pub struct RequestMetrics {
    requests: Family<ClassLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
}

/// The metrics of one route, looked up once.
#[derive(Debug)]
pub struct RouteMetrics {
    /// By the hundreds of the status, from 1xx.
    classes: [Counter; 5],
    seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    route: String,
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
        }
    }
}

impl RequestMetrics {
    /// Shows them on the metrics page.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            registry.register("http_requests", "Requests answered", self.requests.clone());
            registry.register(
                "http_request_seconds",
                "From the head of a request to that of its answer",
                self.seconds.clone(),
            );
        });
    }

    /// The metrics of a route. The same name gives the same.
    pub fn route(&self, route: &str) -> Arc<RouteMetrics> {
        let classes = CLASSES.map(|class| {
            let labels = ClassLabels {
                route: route.into(),
                class,
            };
            self.requests.get_or_create_owned(&labels)
        });
        let route = RouteLabels {
            route: route.into(),
        };
        Arc::new(RouteMetrics {
            classes,
            seconds: self.seconds.get_or_create_owned(&route),
        })
    }
}

impl RouteMetrics {
    /// Counts an answer.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        self.classes[class - 1].inc();
        self.seconds.observe(after.as_secs_f64());
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// From what a loop answers by itself to what a client does not wait for.
const BUCKETS: [f64; 8] = [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0];
