//! Routes: which handler answers a request, and who may ask it.
//!
//! [`config`] is the table in the file, [`pattern`] and [`template`] read what it says, a [`Route`] lets
//! requests in or not, and each other file here is one kind of handler. A reload replaces all routes at
//! once; a request goes on by the route that it began with.

mod cgi;
mod config;
mod files;
mod key;
mod kv;
mod pattern;
mod proxy;
mod redirect;
mod route;
mod rpc;
mod template;
mod text;
mod upstream;
mod values;

use std::sync::Arc;

pub use config::{KeyConfig, KeyScheme, KvConfig, RouteConfig};
pub use key::KeyCheck;
pub use kv::Kv;
pub use pattern::{Captures, Pattern};
pub use route::{Allowed, Route};
pub use rpc::{Caller, problem_of};
pub use upstream::Upstream;

use crate::built_in::BuiltIn;
use crate::http::{Answering, Handler, Problem, Request, ready, turn_away};
use crate::metrics::RequestMetrics;
use crate::state::State;

/// All routes, in their order.
#[derive(Default)]
pub struct Routes(Vec<Arc<Route>>);

/// Answers the requests of a listener by the routes of the configuration, else by what is built in.
pub struct Router {
    state: State,
    listener: String,
    built_in: BuiltIn,
}

impl Routes {
    /// Reads what the tables say and name, or says which of them is wrong and what to do.
    pub fn new(configs: &[RouteConfig], metrics: &RequestMetrics) -> Result<Self, String> {
        let routes = configs.iter().map(|config| {
            let route = Route::new(config, metrics);
            route
                .map(Arc::new)
                .map_err(|why| format!("[[route]] \"{}\": {why}", config.label()))
        });
        routes.collect::<Result<_, _>>().map(Self)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.iter()
    }
}

impl Router {
    /// For the listener of that name.
    pub fn new(state: State, listener: &str) -> Self {
        let built_in = BuiltIn::new(state.metrics());
        Self {
            state,
            listener: listener.into(),
            built_in,
        }
    }
}

impl Handler for Router {
    fn handle(&self, request: Request) -> Answering {
        let routes = self.state.routes();
        if !routes.0.is_empty() {
            if pattern::is_crooked(request.path()) {
                let detail = "the path must not hold . or .. or an encoded slash";
                return ready(Problem::new(hyper::StatusCode::BAD_REQUEST, detail));
            }
            let mut allowed: Vec<&str> = Vec::new();
            for route in routes.iter().filter(|route| route.is_on(&self.listener)) {
                let Some(captures) = route.captures(request.path()) else {
                    continue;
                };
                if route.takes(&request.method) {
                    return route.clone().answer(request, captures);
                }
                allowed.extend(route.methods());
                request.count_as(route.metrics());
            }
            if !allowed.is_empty()
                && let Some(answer) = turn_away(&request, &allowed)
            {
                return ready(answer);
            }
        }
        match self.built_in.answer(&request) {
            Some(answer) => ready(answer),
            None => ready(Problem::not_found()),
        }
    }
}
