//! What a listener of service `http` answers without any configuration.

mod hello;
mod localtime;

use std::sync::Arc;

use crate::http::{Answer, Request, turn_away};
use crate::metrics::{RequestMetrics, RouteMetrics};

/// The paths that are there without a route.
#[derive(Clone)]
pub struct BuiltIn {
    hello: Arc<RouteMetrics>,
    localtime: Arc<RouteMetrics>,
}

impl BuiltIn {
    /// Counted by `metrics`.
    pub fn new(metrics: &RequestMetrics) -> Self {
        Self {
            hello: metrics.route("/hello"),
            localtime: metrics.route("/localtime"),
        }
    }

    /// The answer, where the path is one of these.
    pub fn answer(&self, request: &Request) -> Option<Answer> {
        let path = request.path();
        let (metrics, form) = if path == "/hello" {
            (&self.hello, None)
        } else {
            let rest = path.strip_prefix("/localtime")?;
            let form = localtime::Wish::of_suffix(rest)?;
            (&self.localtime, Some(form))
        };
        request.count_as(metrics);
        if let Some(answer) = turn_away(request, &["GET"]) {
            return Some(answer);
        }
        Some(match form {
            None => hello::answer(request),
            Some(form) => localtime::answer(request, form),
        })
    }
}
