//! Service `yard`: what the daemons of this machine do, and for who may, what they shall do.
//!
//! [`Fleet`] asks the admin endpoints ([`ask`]) again and again and keeps what they say ([`reading`] to
//! [`view`]); [`table`] says what is answered: the API, its description ([`openapi`]), events
//! ([`events`]), the metrics of all ([`pages`]), actions ([`steer`]), keys ([`keys`]), and a page for
//! people ([`page`]).
//!
//! It never shares a listener with anything that reflects what clients send, lets no other origin read
//! its answers, and answers to no name that a stranger's DNS could point here.

mod ask;
mod config;
mod events;
mod fleet;
mod guard;
mod keys;
mod openapi;
mod page;
mod pages;
mod reading;
mod steer;
mod table;
mod view;

use std::sync::Arc;

use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, VARY,
};
use hyper::{Method, StatusCode};
use portyard_core::limits::Gate;
use serde::Serialize;
use tokio::task::JoinSet;

pub use config::{YardConfig, YardOptions};
pub use fleet::Fleet;
use fleet::{Latest, Member, seconds_now};
use guard::Watchman;
use page::Page;
use table::{Call, Guard, OPERATIONS, Operation};
use view::{Daemon, Steering, Yard};

use crate::http::{
    Answer, Answering, Body, Handler, Offer, Problem, Request, Response, choose, respond, turn_away,
};
use crate::metrics::RouteMetrics;
use crate::routes::{Captures, Pattern};
use crate::settings::Options;
use crate::state::State;

/// Answers the requests of a listener of service `yard`.
pub struct Service(Arc<YardService>);

/// What its requests share.
pub struct YardService {
    fleet: Fleet,
    table: Vec<(Pattern, &'static Operation)>,
    watchman: Watchman,
    steering: Steering,
    page: Page,
    document: String,
    streams: Arc<Gate>,
    /// Who fetches the metrics of all has every daemon asked.
    scrapes: Arc<Gate>,
    metrics: Arc<RouteMetrics>,
}

impl Service {
    /// For a listener with these options, or what is wrong with them.
    pub fn new(options: &Options, state: &State) -> Result<Self, String> {
        let watchman = Watchman::new(options)?;
        let table = OPERATIONS.iter().map(|operation| {
            let pattern = Pattern::parse(operation.path)?;
            Ok((pattern, operation))
        });
        let steering = Steering {
            enabled: options.yard.actions,
            key: options.yard.key.as_ref().map(|key| key.scheme.word()),
            certificates: !options.yard.allow.is_empty(),
        };
        let document = openapi::document(&options.yard);
        Ok(Self(Arc::new(YardService {
            fleet: state.fleet().clone(),
            table: table.collect::<Result<_, String>>()?,
            watchman,
            steering,
            page: Page::new(),
            document: format!("{document:#}\n"),
            streams: Arc::new(Gate::new(options.yard.streams.get())),
            scrapes: Arc::new(Gate::new(SCRAPES)),
            metrics: state.metrics().route("yard"),
        })))
    }
}

impl Handler for Service {
    fn handle(&self, request: Request) -> Answering {
        let yard = self.0.clone();
        Box::pin(async move {
            request.count_as(&yard.metrics);
            match yard.answer(request).await {
                Ok(mut response) => {
                    protect(response.headers_mut());
                    Ok(response)
                }
                Err(mut problem) => {
                    protect(problem.headers_mut());
                    Err(problem)
                }
            }
        })
    }
}

impl YardService {
    async fn answer(self: Arc<Self>, mut request: Request) -> Answer {
        self.watchman.check_origin(&request)?;
        let mut allowed: Vec<&str> = Vec::new();
        let mut found = None;
        for (pattern, operation) in &self.table {
            let Some(captures) = pattern.captures(request.path()) else {
                continue;
            };
            let method = &request.method;
            if method == operation.method || (method == Method::HEAD && operation.method == "GET") {
                found = Some((*operation, captures));
                break;
            }
            allowed.push(operation.method);
        }
        let Some((operation, captures)) = found else {
            if allowed.is_empty() {
                return Err(Problem::not_found());
            }
            return turn_away(&request, &allowed).unwrap_or_else(|| Err(Problem::not_found()));
        };
        let by = match operation.guard {
            Guard::None => None,
            Guard::Look => self.watchman.check_look(&mut request).await?,
            Guard::Act => self.watchman.check_act(&mut request).await?,
        };
        self.call(operation.call, request, &captures, by).await
    }

    async fn call(
        self: Arc<Self>,
        call: Call,
        request: Request,
        captures: &Captures,
        by: Option<String>,
    ) -> Answer {
        match call {
            Call::Home => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::FOUND;
                let to = HeaderValue::from_static("/yard");
                response.headers_mut().insert(LOCATION, to);
                Ok(response)
            }
            Call::Page => Ok(self.page.answer()),
            Call::Yard => json(&self.view(&self.fleet.latest())),
            Call::Daemon => json(&*self.member(captures)?.daemon),
            Call::Events => {
                enter(
                    &self.streams,
                    "as many event streams as there may be are open",
                )?;
                let gate = self.streams.clone();
                Ok(events::stream(self, &request, gate))
            }
            Call::Act(action) => {
                let member = self.member(captures)?;
                let worker = captures.get(1).map(|(_, name)| name.as_str());
                let order = steer::Order { action, worker };
                let by = by.unwrap_or_default();
                let done = steer::act(&member, order, &request, &by).await?;
                self.fleet.note(&done, &by);
                json(&done)
            }
            Call::Keys => {
                let member = self.member(captures)?;
                json(&keys::page(kv_of(&member)?, &request).await?)
            }
            Call::Value => {
                let member = self.member(captures)?;
                keys::value(kv_of(&member)?, &request).await
            }
            Call::Change(action) => {
                let member = self.member(captures)?;
                let by = by.unwrap_or_default();
                let (done, answer) = keys::change(&member, action, request, &by).await?;
                self.fleet.note(&done, &by);
                Ok(answer)
            }
            Call::Metrics => self.scrape(&request).await,
            Call::Document => Ok(respond(
                StatusCode::OK,
                "application/json",
                self.document.clone(),
            )),
        }
    }

    /// What is told of all daemons.
    pub fn view(&self, latest: &Latest) -> Yard {
        let daemon = |member: &Member| Daemon::clone(&member.daemon);
        Yard {
            at: seconds_now(),
            steering: self.steering.clone(),
            daemons: latest.members.iter().map(daemon).collect(),
            changes: latest.changes.iter().cloned().collect(),
            taken: latest.taken.iter().cloned().collect(),
        }
    }

    /// What looks after the daemons.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn member(&self, captures: &Captures) -> Result<Member, Problem> {
        let name = captures.first().map_or("", |(_, name)| name.as_str());
        let member = self.fleet.latest().member(name).cloned();
        member.ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no daemon has this name; GET /api/v1/yard tells which there are",
            )
        })
    }

    async fn scrape(&self, request: &Request) -> Answer {
        let form = choose(&request.headers, METRICS);
        let form = form.ok_or_else(|| Problem::not_acceptable(METRICS))?;
        let format = [pages::Format::OpenMetrics, pages::Format::Plain][form];
        enter(
            &self.scrapes,
            "others fetch the metrics of all at this moment",
        )?;
        let gate = self.scrapes.clone();
        // Also when the client does not wait for the end.
        let _place = Place(gate);
        let members = self.fleet.latest().members;
        let mut asking = JoinSet::new();
        for (place, member) in members.iter().enumerate() {
            let config = member.config.clone();
            asking.spawn(async move {
                let requests = [(Method::GET, "/metrics", String::new())];
                let said = ask::ask(&config.admin, requests, config.timeout.0, METRICS_MAX).await;
                let page = said.ok().filter(|[page]| page.status.is_success());
                let page = page.and_then(|[page]| String::from_utf8(page.body.into()).ok());
                (place, page)
            });
        }
        let mut all: Vec<Option<String>> = vec![None; members.len()];
        while let Some(told) = asking.join_next().await {
            if let Ok((place, page)) = told {
                all[place] = page;
            }
        }
        let named = members
            .iter()
            .map(|member| member.config.name.as_str())
            .zip(all.iter().map(Option::as_deref));
        let page = pages::merge(named, format);
        let mut response = respond(StatusCode::OK, METRICS[form].content_type, page);
        let fields = response.headers_mut();
        fields.insert(VARY, HeaderValue::from_static("accept"));
        Ok(response)
    }
}

struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn enter(gate: &Gate, why: &'static str) -> Result<(), Problem> {
    if gate.try_enter() {
        return Ok(());
    }
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
    Err(problem.with(RETRY_AFTER, HeaderValue::from_static("1")))
}

fn kv_of(member: &Member) -> Result<&portyard_core::endpoint::Endpoint, Problem> {
    let keys = member.config.keys.as_ref();
    keys.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "its keys cannot be looked at: its [[yard]] table has no keys = \"ENDPOINT\"",
        )
    })
}

fn json(value: &impl Serialize) -> Answer {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(respond(StatusCode::OK, "application/json", text + "\n"))
}

/// Nothing of this is kept, framed, or read by another origin.
fn protect(fields: &mut hyper::HeaderMap) {
    for (name, value) in PROTECTION {
        fields
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if fields
        .get(CONTENT_TYPE)
        .is_none_or(|kind| !kind.as_bytes().starts_with(b"text/html"))
    {
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        fields.entry(page::POLICY).or_insert(nothing);
    }
}

const PROTECTION: [(HeaderName, &str); 5] = [
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (HeaderName::from_static("referrer-policy"), "no-referrer"),
    (HeaderName::from_static("x-frame-options"), "DENY"),
];
const SCRAPES: u32 = 4;
/// A browser shows text, and offers to keep anything else.
const METRICS: &[Offer; 2] = &[
    Offer::new(
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        &[],
    ),
    Offer::new("text/plain; version=0.0.4; charset=utf-8", &["text/html"]),
];
/// Several times what a daemon with hundreds of listeners shows.
const METRICS_MAX: usize = 16 << 20;
