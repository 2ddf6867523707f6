//! Routes: which handler answers a request, and who may ask it.
//!
//! [`config`] is the table in the file, [`pattern`] and [`template`] read what it says, a [`Route`] lets
//! requests in or not, and each other file here is one kind of handler. A reload replaces all routes at
//! once; a request goes on by the route that it began with.

mod cgi;
mod config;
mod context;
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

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::{Method, StatusCode};

pub use config::{KeyConfig, KeyScheme, KvConfig, RouteConfig};
pub use key::KeyCheck;
pub use kv::Kv;
pub use pattern::{Captures, Pattern};
pub use route::{Allowed, Route};
pub use rpc::{Caller, problem_of};
pub use upstream::Upstream;

use cgi::Elsewhere;

use crate::built_in::BuiltIn;
use crate::http::{
    Answer, Answering, Handler, Head, Problem, Request, RequestBody, is_text, ready, turn_away,
};
use crate::metrics::RequestMetrics;
use crate::state::State;

/// All routes, in their order.
#[derive(Default)]
pub struct Routes(Vec<Arc<Route>>);

/// Answers the requests of a listener by the routes of the configuration, else by what is built in.
#[derive(Clone)]
pub struct Router {
    state: State,
    listener: Arc<str>,
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
        let routes = routes.collect::<Result<Vec<Arc<Route>>, String>>()?;
        for (at, later) in routes.iter().enumerate() {
            if let Some(earlier) = routes[..at].iter().find(|earlier| earlier.hides(later)) {
                return Err(format!(
                    "[[route]] \"{}\": no request reaches it, as \"{}\" before it takes them all; put it first, \
                     or take one of them out",
                    later.name(),
                    earlier.name()
                ));
            }
        }
        Ok(Self(routes))
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
    fn limits_bodies(&self) -> bool {
        true
    }

    fn handle(&self, request: Request) -> Answering {
        self.find(request, 0)
    }
}

impl Router {
    /// Answers a request to which programs have led so often.
    fn find(&self, request: Request, led: u32) -> Answering {
        let routes = self.state.routes();
        if !routes.0.is_empty() {
            if pattern::is_crooked(request.path()) {
                let detail = "the path must not hold . or .. or an encoded slash";
                return ready(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
            let mut allowed: Vec<&str> = Vec::new();
            for route in routes.iter().filter(|route| route.is_on(&self.listener)) {
                let Some(captures) = route.captures(request.path()) else {
                    continue;
                };
                if route.takes(&request.method) {
                    if !captures.is_empty() && route.reads_path() && !is_text(request.path()) {
                        let detail = "the path is not UTF-8, once it is decoded";
                        request.count_as(route.metrics());
                        return ready(Problem::new(StatusCode::BAD_REQUEST, detail));
                    }
                    let route = route.clone();
                    return if route.can_lead_elsewhere() {
                        Box::pin(self.clone().follow(route, request, captures, led))
                    } else {
                        route.answer(request, captures)
                    };
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
        if let Err(problem) = request.body.check() {
            return ready(problem);
        }
        match self.built_in.answer(&request) {
            Some(answer) => ready(answer),
            None => ready(Problem::not_found()),
        }
    }

    /// Answers by a program, or by what it says is to answer instead: as if that had been asked for with GET
    /// (RFC 3875, 6.2.2).
    async fn follow(
        self,
        route: Arc<Route>,
        request: Request,
        captures: Captures,
        led: u32,
    ) -> Answer {
        let (head, client) = (request.head.clone(), request.client.clone());
        let answer = route.answer(request, captures).await?;
        let Some(Elsewhere(to)) = answer.extensions().get() else {
            return Ok(answer);
        };
        let uri = to.parse().ok().filter(|_| led < LED_MAX);
        let Some(uri) = uri else {
            tracing::warn!(to, "a CGI program leads nowhere");
            return Err(Problem::new(
                StatusCode::BAD_GATEWAY,
                "the program behind this path leads nowhere",
            ));
        };
        let mut headers = head.headers.clone();
        for name in [
            CONTENT_LENGTH,
            CONTENT_TYPE,
            CONTENT_ENCODING,
            TRANSFER_ENCODING,
        ] {
            headers.remove(name);
        }
        let head = Head {
            method: Method::GET,
            uri,
            version: head.version,
            headers,
            id: head.id.clone(),
            counted: head.counted.clone(),
            user: OnceCell::new(),
        };
        let request = Request {
            head: Rc::new(head),
            body: RequestBody::none(),
            client,
        };
        self.find(request, led + 1).await
    }
}

/// More is a circle.
const LED_MAX: u32 = 10;
