//! One route: who may use it, how much, and what answers.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use portyard_core::access::{AccessConfig, AccessList, Action, Identity, Kind, Rule};
use portyard_core::config::{Source, Spanned};
use portyard_core::limits::{Buckets, Gate, Token};
use portyard_core::listener::source_of;

use super::cgi::Cgi;
use super::config::RouteConfig;
use super::files::Files;
use super::key::KeyCheck;
use super::kv::Kv;
use super::pattern::{Captures, Pattern};
use super::proxy::Proxy;
use super::redirect::Redirect;
use super::rpc::Rpc;
use super::text::Text;
use crate::http::{Answer, Answering, FRAMING, Problem, Progress, Request, Response};
use crate::metrics::{RequestMetrics, RouteMetrics};

/// A route, ready to answer.
pub struct Route {
    pattern: Pattern,
    name: String,
    methods: Vec<String>,
    listeners: Vec<String>,
    access: Option<Allowed>,
    key: Option<KeyCheck>,
    max_body: Option<u64>,
    rate: Option<RateRule>,
    gate: Gate,
    timeout: Duration,
    fields: Vec<(HeaderName, HeaderValue)>,
    cache: Option<HeaderValue>,
    target: Target,
    metrics: Arc<RouteMetrics>,
}

/// What answers.
enum Target {
    Text(Text),
    Files(Files),
    Redirect(Redirect),
    Proxy(Proxy),
    Kv(Kv),
    Cgi(Cgi),
    Rpc(Rpc),
}

struct RateRule {
    buckets: Mutex<Buckets>,
    burst: u32,
    /// Seconds in which a whole burst comes back.
    window: u64,
}

/// A place among the requests that the route answers at a time.
struct Place(Arc<Route>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

impl Route {
    /// Reads what a table says, and the files that it names.
    pub fn new(config: &RouteConfig, metrics: &RequestMetrics) -> Result<Self, String> {
        let pattern = Pattern::parse(&config.path)?;
        let target = Target::new(config, &pattern)?;
        let known = target.methods();
        for method in &config.methods {
            if !known.contains(&method.as_str()) {
                return Err(format!(
                    "methods: '{method}' means nothing here; use some of {}",
                    known.join(", ")
                ));
            }
        }
        let methods = match &config.methods[..] {
            [] => target.usual().iter().map(ToString::to_string).collect(),
            methods => methods.to_vec(),
        };
        let access = match &config.allow[..] {
            [] => None,
            rules => Some(Allowed::new(rules)?),
        };
        let text = |name: &str, value: &str| {
            HeaderValue::from_str(value).map_err(|_| format!("{name} holds what no field can say"))
        };
        let mut fields = Vec::new();
        for (name, value) in &config.headers {
            let header = HeaderName::from_bytes(name.as_bytes());
            let header = header.map_err(|_| format!("headers: '{name}' is no name of a field"))?;
            if FRAMING.contains(&header) {
                return Err(format!(
                    "headers: {name} belongs to the connection and is written as it must be; take it out"
                ));
            }
            fields.push((header, text("headers", value)?));
        }
        if config.timeout.0.is_zero() {
            return Err("timeout must be longer than \"0s\"".into());
        }
        let rate = config.rate.0.map(|rate| {
            let burst = config.burst.get();
            RateRule {
                buckets: Mutex::new(Buckets::new(rate, burst)),
                burst,
                window: seconds_for(burst, rate.hertz()),
            }
        });
        Ok(Self {
            name: config.label().into(),
            methods,
            listeners: config.listeners.clone(),
            access,
            key: config.key.as_ref().map(KeyCheck::new).transpose()?,
            max_body: config.max_body.map(|size| size.0),
            rate,
            gate: Gate::new(config.concurrent.get()),
            timeout: config.timeout.0,
            fields,
            cache: config
                .cache
                .as_deref()
                .map(|cache| text("cache", cache))
                .transpose()?,
            target,
            metrics: metrics.route(config.label()),
            pattern,
        })
    }

    /// Its pattern.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// What the parameters stand for, if a path is one of its.
    pub fn captures(&self, path: &str) -> Option<Captures> {
        let found = self.pattern.captures(path);
        if found.is_none() && matches!(self.target, Target::Files(_)) {
            // A directory of ours without its slash, which it is told to add.
            return self.pattern.captures(&format!("{path}/"));
        }
        found
    }

    /// Its name in metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its answers can be [`Elsewhere`].
    pub fn can_lead_elsewhere(&self) -> bool {
        matches!(self.target, Target::Cgi(_))
    }

    /// Whether its answers depend on what parameters stand for, and not on the path as it is spelled.
    pub fn reads_path(&self) -> bool {
        !matches!(self.target, Target::Proxy(_))
    }

    /// Whether a listener has it.
    pub fn is_on(&self, listener: &str) -> bool {
        self.listeners.is_empty() || self.listeners.iter().any(|name| name == listener)
    }

    /// Whether it takes a method; GET means HEAD too.
    pub fn takes(&self, method: &Method) -> bool {
        let name = method.as_str();
        self.methods
            .iter()
            .any(|ours| ours == name || (ours == "GET" && name == "HEAD"))
    }

    /// Whether no request reaches a route behind this one.
    pub fn hides(&self, later: &Self) -> bool {
        let takes = |method: &String| {
            self.methods.contains(method) || (method == "HEAD" && self.takes(&Method::HEAD))
        };
        let is_everywhere = self.listeners.is_empty();
        let is_there = |name: &String| is_everywhere || self.listeners.contains(name);
        later.methods.iter().all(takes)
            && (is_everywhere || !later.listeners.is_empty())
            && later.listeners.iter().all(is_there)
            && self.pattern.covers(&later.pattern)
    }

    /// The methods that it takes.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.iter().map(String::as_str)
    }

    /// What counts its answers.
    pub fn metrics(&self) -> &Arc<RouteMetrics> {
        &self.metrics
    }

    /// Answers a request that is for it.
    pub fn answer(self: Arc<Self>, mut request: Request, captures: Captures) -> Answering {
        request.count_as(&self.metrics);
        Box::pin(async move {
            let left = self.admit(&mut request).await?;
            if !self.gate.try_enter() {
                let busy = "too many requests are being answered; try again later";
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, busy);
                return Err(problem.with(RETRY_AFTER, HeaderValue::from_static("1")));
            }
            let place = Place(self.clone());
            // While the body comes nobody can answer; that has a deadline of its own.
            let progress = request.body.progress();
            let answer = pin!(self.target.answer(request, &captures));
            let answer = within(self.timeout, progress, answer).await;
            let answer = answer.unwrap_or_else(|| {
                Err(Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "the answer did not begin in time",
                ))
            });
            // What is streamed counts for as long as it lasts.
            let answer = answer.map(|response| response.map(|body| body.holding(place)));
            self.mark(answer, left)
        })
    }

    /// Whether a request may be answered; how many its source has left, if there is a rate.
    async fn admit(&self, request: &mut Request) -> Result<Option<u32>, Problem> {
        if let Some(access) = &self.access
            && !access.allows(request)
        {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "you may not use this path",
            ));
        }
        let left = self
            .rate
            .as_ref()
            .map(|rate| rate.take(request))
            .transpose()?;
        match self.max_body {
            Some(max) => request.body.limit(max)?,
            None => request.body.check()?,
        }
        if let Some(key) = &self.key {
            key.check(request).await?;
        }
        Ok(left)
    }

    /// Adds the route's own fields.
    fn mark(&self, answer: Answer, left: Option<u32>) -> Answer {
        let rate = self.rate.as_ref().zip(left);
        match answer {
            Ok(mut response) => {
                let status = response.status();
                // What went wrong behind us is not to be remembered; the status of a text is the table's own.
                let is_error = status.is_client_error() || status.is_server_error();
                let is_kept = !is_error || matches!(self.target, Target::Text(_));
                let fields = response.headers_mut();
                if let Some(cache) = self.cache.as_ref().filter(|_| is_kept) {
                    fields.insert(CACHE_CONTROL, cache.clone());
                }
                for (name, value) in &self.fields {
                    fields.insert(name.clone(), value.clone());
                }
                if let Some((rate, left)) = rate {
                    rate.tell(left, fields);
                }
                Ok(response)
            }
            Err(mut problem) => {
                if let Some((rate, left)) = rate {
                    rate.tell(left, problem.headers_mut());
                }
                Err(problem)
            }
        }
    }
}

impl RateRule {
    /// Takes a token of the request's source; how many it has left.
    fn take(&self, request: &Request) -> Result<u32, Problem> {
        let source = source_of(request.client.peer.ip());
        let now = request.client.home.milliseconds();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.take(source, now) {
            Token::Taken => Ok(buckets.left(source, now)),
            Token::Wait(wait) => {
                let seconds = wait.as_secs() + 1;
                let detail = format!("too many requests; try again in {seconds} s");
                let mut problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
                    .with(RETRY_AFTER, HeaderValue::from(seconds));
                self.tell(0, problem.headers_mut());
                Err(problem)
            }
        }
    }

    /// draft-ietf-httpapi-ratelimit-headers: the policy, and what is left of it.
    fn tell(&self, left: u32, fields: &mut hyper::HeaderMap) {
        let policy = format!("\"route\";q={};w={}", self.burst, self.window);
        // A full bucket needs no time.
        let missing = self.burst.saturating_sub(left);
        let reset = self.window * u64::from(missing) / u64::from(self.burst);
        let state = format!("\"route\";r={left};t={reset}");
        for (name, value) in [(RATE_POLICY, policy), (RATE, state)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                fields.insert(name, value);
            }
        }
    }
}

/// What comes of an answer within a time since it began, or since something of the request's body has come.
async fn within<T>(
    span: Duration,
    progress: Option<Progress>,
    mut answer: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let mut timer = pin!(tokio::time::sleep(span));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let end = progress.as_ref().map(|last| last.get() + span);
            match end.filter(|end| *end > timer.deadline()) {
                Some(end) => timer.as_mut().reset(end),
                None => return Poll::Ready(None),
            }
        }
    })
    .await
}

fn seconds_for(burst: u32, hertz: f64) -> u64 {
    let seconds = (f64::from(burst) / hertz).ceil().clamp(1.0, 1e9);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what fits"
    )]
    let whole = seconds as u64;
    whole
}

/// Who may do something, by address or by certificate.
pub struct Allowed {
    list: AccessList,
    /// Whether it looks at addresses.
    addresses: bool,
}

impl Allowed {
    /// Reads what follows `allow` in rules of `[access]`.
    pub fn new(rules: &[String]) -> Result<Self, String> {
        let config = AccessConfig {
            default: Action::Deny,
            rules: rules
                .iter()
                .map(|rule| Spanned::new(0..0, format!("allow {rule}")))
                .collect(),
        };
        let list = AccessList::new(&config, &Source::default());
        let list = list.map_err(|error| format!("allow: {error}"))?;
        if list.concerns(Kind::User) || list.concerns(Kind::Key) {
            return Err(
                "allow takes addresses and names of certificates; users belong into the listener's \
                 access, and keys into key"
                    .into(),
            );
        }
        let is_address = |rule: &String| {
            let parsed = format!("allow {rule}").parse::<Rule>();
            parsed.is_ok_and(|rule| rule.matcher.kind() == Kind::Address)
        };
        Ok(Self {
            addresses: rules.iter().any(is_address),
            list,
        })
    }

    /// Whether a mere address can be enough.
    pub fn looks_at_addresses(&self) -> bool {
        self.addresses
    }

    /// By its address or by its certificate, whichever the list looks at; where it looks at both, both.
    pub fn allows(&self, request: &Request) -> bool {
        let certificates = self.list.concerns(Kind::Certificate);
        let by_certificate = || {
            let facts = request.client.certificate.as_ref();
            let none = Vec::new();
            let identity = Identity::Certificate {
                common_name: facts.and_then(|facts| facts.common_name.as_deref()),
                names: facts.map_or(&none, |facts| &facts.names),
            };
            self.list.check_identity(identity).action == Action::Allow
        };
        if self.addresses {
            let ip = request.client.peer.ip();
            let by_address = ip.is_some_and(|ip| self.list.check(ip) == Action::Allow);
            by_address && (!certificates || by_certificate())
        } else {
            by_certificate()
        }
    }
}

impl Target {
    fn new(config: &RouteConfig, pattern: &Pattern) -> Result<Self, String> {
        let mut targets = Vec::new();
        if let Some(config) = &config.template {
            targets.push(Self::Text(Text::new(config, pattern)?));
        }
        if let Some(config) = &config.file {
            targets.push(Self::Files(Files::file(config)?));
        }
        if let Some(config) = &config.directory {
            targets.push(Self::Files(Files::directory(config, pattern)?));
        }
        if let Some(config) = &config.redirect {
            targets.push(Self::Redirect(Redirect::new(config, pattern)?));
        }
        if let Some(config) = &config.proxy {
            targets.push(Self::Proxy(Proxy::new(config, pattern)?));
        }
        if let Some(config) = &config.kv {
            targets.push(Self::Kv(Kv::new(config, pattern)?));
        }
        if let Some(config) = &config.cgi {
            targets.push(Self::Cgi(Cgi::new(config, pattern)?));
        }
        if let Some(config) = &config.rpc {
            targets.push(Self::Rpc(Rpc::new(config, pattern)?));
        }
        match (targets.pop(), targets.is_empty()) {
            (Some(target), true) => Ok(target),
            _ => Err(
                "write exactly one of template, file, directory, redirect, proxy, kv, cgi and rpc, as \
                 in template = { body = \"Hello\" }"
                    .into(),
            ),
        }
    }

    /// The methods that it can answer.
    fn methods(&self) -> &'static [&'static str] {
        match self {
            Self::Text(_) | Self::Redirect(_) | Self::Rpc(_) => {
                &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY"]
            }
            // They may have ideas of their own of what they allow.
            Self::Proxy(_) | Self::Cgi(_) => &[
                "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "QUERY", "OPTIONS",
            ],
            Self::Files(_) => &["GET", "HEAD"],
            Self::Kv(kv) => kv.methods(),
        }
    }

    /// The methods that it answers unless the table says otherwise.
    fn usual(&self) -> &'static [&'static str] {
        match self {
            Self::Text(_) | Self::Files(_) | Self::Redirect(_) => &["GET"],
            Self::Proxy(_) | Self::Kv(_) => self.methods(),
            Self::Cgi(_) => &["GET", "POST"],
            Self::Rpc(_) => &["POST"],
        }
    }

    async fn answer(&self, request: Request, captures: &Captures) -> Result<Response, Problem> {
        match self {
            Self::Text(text) => Ok(text.answer(&request, captures)),
            Self::Files(files) => files.answer(&request, captures).await,
            Self::Redirect(redirect) => redirect.answer(&request, captures),
            Self::Proxy(proxy) => proxy.answer(request).await,
            Self::Kv(kv) => kv.answer(request, captures).await,
            Self::Cgi(cgi) => cgi.answer(request, captures).await,
            Self::Rpc(rpc) => rpc.answer(request, captures).await,
        }
    }
}

const RATE_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE: HeaderName = HeaderName::from_static("ratelimit");
