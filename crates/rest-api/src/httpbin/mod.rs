//! The API of httpbin and of go-httpbin, which HTTP clients are tested against.
//!
//! A request is read into [`Asked`], [`routes`] finds its endpoint, and [`answer`] says what it gives in
//! the [`Dialect`] of the original: httpbin is in Python, go-httpbin in Go, and clients notice the
//! difference. What is pure (their JSON, their random numbers, forms, cookies, digests) stands in files
//! of its own. What compatibility demands but good sense forbids, such as credentials for any origin,
//! exists only here.

mod answer;
mod asked;
mod cookies;
mod digest;
mod documents;
mod duration;
mod echo;
mod endpoints;
mod go_random;
mod json;
mod loads;
mod multipart;
mod options;
mod python_random;
mod routes;
mod text;
mod weights;

use std::sync::{Arc, OnceLock};

use hyper::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW,
    CONNECTION, ETAG, HeaderName, HeaderValue, ORIGIN, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};

use crate::http::{
    Answering, Body, Handler, Head, Problem, Request, Response, Spelling, spell, without_body,
};
use crate::metrics::{RequestMetrics, RouteMetrics};
use answer::Refusal;
use asked::Asked;
pub use options::HttpbinOptions;
use options::Mount;
use routes::Found;

/// Whose answers are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// httpbin's.
    #[default]
    Python,
    /// go-httpbin's.
    Go,
}

/// The handler.
pub struct Httpbin(Arc<Site>);

/// What all requests of a listener share.
pub struct Site {
    options: HttpbinOptions,
    mounts: Vec<Mount>,
    /// The largest body, of a request or made up.
    max_body: u64,
    /// The variables that `/env` shows.
    environment: Vec<(String, String)>,
    metrics: RequestMetrics,
    /// What counts requests, for each row of the table of endpoints that was asked for.
    counts: Vec<OnceLock<Arc<RouteMetrics>>>,
    /// How httpbin spells what is not spelled as other fields are.
    spelling: Spelling,
}

impl Httpbin {
    /// With options, or what is wrong with them. `max_body` is the largest body of a request.
    pub fn new(
        options: &HttpbinOptions,
        max_body: u64,
        metrics: &RequestMetrics,
    ) -> Result<Self, String> {
        Ok(Self(Arc::new(Site {
            mounts: options.mounts()?,
            environment: options.chosen_environment(std::env::vars_os()),
            options: options.clone(),
            metrics: metrics.clone(),
            counts: routes::ROUTES.iter().map(|_| OnceLock::new()).collect(),
            spelling: Spelling::of(UNUSUAL.iter().map(|(_, spelled)| *spelled)),
            max_body,
        })))
    }
}

impl Handler for Httpbin {
    fn handle(&self, request: Request) -> Answering {
        let site = self.0.clone();
        Box::pin(async move {
            let Some(mount) = site.mount(request.uri.path()) else {
                return Err(Problem::not_found());
            };
            let head = request.head.clone();
            let response = answer_in(site.clone(), mount, request).await;
            Ok(site.complete(response, mount, &head))
        })
    }

    fn is_verbatim(&self) -> bool {
        true
    }

    fn tell(&self, problem: Problem, head: &Head) -> Response {
        let Some(mount) = self.0.mount(head.uri.path()) else {
            return problem.respond(&head.headers);
        };
        let dialect = self.0.mounts[mount].dialect;
        let response = Refusal::of(problem, dialect).respond(dialect);
        self.0.complete(response, mount, head)
    }
}

impl Site {
    /// The mount that a path belongs to: that with the longest prefix.
    fn mount(&self, path: &str) -> Option<usize> {
        // They are sorted so.
        self.mounts.iter().position(|mount| {
            let rest = path.strip_prefix(mount.prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// What counts the requests for a row of the table of endpoints.
    fn counts(&self, place: usize) -> &Arc<RouteMetrics> {
        self.counts[place].get_or_init(|| self.metrics.route(&routes::name(place)))
    }

    /// Adds what every answer has.
    fn complete(&self, mut response: Response, mount: usize, head: &Head) -> Response {
        let dialect = self.mounts[mount].dialect;
        let fields = response.headers_mut();
        allow_origin(fields, head, dialect);
        // What somebody chose is what it is called, and nothing else.
        let nosniff = HeaderValue::from_static("nosniff");
        fields.entry(X_CONTENT_TYPE_OPTIONS).or_insert(nosniff);
        if dialect == Dialect::Python && response.extensions().is_empty() {
            let fields = response.headers();
            if fields
                .keys()
                .any(|name| UNUSUAL.iter().any(|(unusual, _)| unusual == name))
            {
                spell(&mut response, &self.spelling);
            }
        }
        answer::name_reason(&mut response, dialect);
        if head.method == Method::HEAD {
            match dialect {
                // Its HEAD writes no body, so that no length is known.
                Dialect::Go => *response.body_mut() = Body::empty(),
                Dialect::Python if response.body().length().is_some() => {
                    without_body(&mut response);
                }
                // hyper tells that it comes in chunks.
                Dialect::Python => {}
            }
        }
        response
    }
}

async fn answer_in(site: Arc<Site>, mount: usize, request: Request) -> Response {
    let dialect = site.mounts[mount].dialect;
    if dialect == Dialect::Go && request.method == Method::OPTIONS {
        return answer::bare(StatusCode::OK);
    }
    let mut asked = Asked::new(site, mount, request);
    let result = match routes::find(&asked) {
        Found::Route(place, parameters) => {
            let route = &routes::ROUTES[place];
            asked.count(place);
            asked.parameters = parameters;
            if dialect == Dialect::Python && asked.method == Method::OPTIONS {
                Ok(answer::options(&route.allow(dialect)))
            } else {
                (route.run)(asked).await
            }
        }
        Found::Method(allow) => Err(answer::method_not_allowed(&allow, dialect)),
        Found::Clean(path) => {
            let reads = [Method::GET, Method::HEAD].contains(&asked.method);
            Ok(answer::cleaned(&path, reads))
        }
        Found::Nothing => Err(answer::nothing_there(dialect)),
    };
    result.unwrap_or_else(|refusal| refusal.respond(dialect))
}

/// Tells scripts of other origins that all may do all, as both originals do. It is safe as long as
/// nothing here is secret.
fn allow_origin(fields: &mut HeaderMap, head: &Head, dialect: Dialect) {
    let origin = head.headers.get(ORIGIN).filter(|origin| !origin.is_empty());
    if origin.is_some() {
        fields.append(VARY, HeaderValue::from_static("Origin"));
    }
    let any = HeaderValue::from_static("*");
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.cloned().unwrap_or(any));
    let yes = HeaderValue::from_static("true");
    fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    if head.method != Method::OPTIONS {
        return;
    }
    let methods = HeaderValue::from_static(match dialect {
        Dialect::Python => "GET, POST, PUT, DELETE, PATCH, OPTIONS",
        Dialect::Go => "GET, POST, HEAD, PUT, DELETE, PATCH, OPTIONS",
    });
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    if let Some(wanted) = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
}

/// Fields whose names httpbin does not spell with a capital at the beginning of each word alone.
static UNUSUAL: [(HeaderName, &str); 3] = [
    (ETAG, "ETag"),
    (WWW_AUTHENTICATE, "WWW-Authenticate"),
    (HeaderName::from_static("x-more-info"), "x-more-info"),
];
