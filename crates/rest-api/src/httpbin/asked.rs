//! A request as the endpoints see it.

use std::borrow::Cow;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{CONTENT_TYPE, COOKIE, HOST, HeaderName};
use portyard_core::serve::Peer;

use super::answer::Refusal;
use super::{Dialect, HttpbinOptions, Site, text};
use crate::http::{Head, Request, RequestBody};

/// A request.
pub struct Asked {
    site: Arc<Site>,
    mount: usize,
    /// Whose answer is wanted.
    pub dialect: Dialect,
    /// The parts of the path that the route leaves open, decoded.
    pub parameters: Vec<String>,
    /// The body.
    pub body: RequestBody,
    head: Rc<Head>,
    is_encrypted: bool,
    /// There are fields of balancers.
    is_forwarded: bool,
    address: Option<std::net::IpAddr>,
}

impl Asked {
    /// Of a request that belongs to a mount.
    pub fn new(site: Arc<Site>, mount: usize, mut request: Request) -> Self {
        // It is told as it came.
        request.body.keep_coded();
        let dialect = site.mounts[mount].dialect;
        let address = match request.client.peer {
            Peer::Internet(address) => Some(address.ip().to_canonical()),
            Peer::Local => None,
        };
        Self {
            is_encrypted: request.client.is_encrypted,
            is_forwarded: request.headers.keys().any(is_of_balancer),
            dialect,
            mount,
            site,
            parameters: Vec::new(),
            body: request.body,
            head: request.head,
            address,
        }
    }

    /// Says which row of the table of endpoints counts its answer.
    pub fn count(&self, place: usize) {
        self.head.count_as(self.site.counts(place));
    }

    /// The options of the listener.
    pub fn options(&self) -> &HttpbinOptions {
        &self.site.options
    }

    /// The largest body.
    pub fn max_body(&self) -> u64 {
        self.site.max_body
    }

    /// The variables that may be told.
    pub fn environment(&self) -> &[(String, String)] {
        &self.site.environment
    }

    /// The path as it came, without the prefix.
    pub fn path(&self) -> &str {
        match &self.uri.path()[self.prefix().len()..] {
            "" => "/",
            path => path,
        }
    }

    /// The query as it came; `None`: there is not even a `?`.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The path before all of the API.
    pub fn prefix(&self) -> &str {
        &self.site.mounts[self.mount].prefix
    }

    /// An open part of the path.
    pub fn parameter(&self, place: usize) -> &str {
        self.parameters.get(place).map_or("", String::as_str)
    }

    /// The parameters of the query, decoded as the dialect does.
    pub fn arguments(&self) -> Vec<(String, String)> {
        let query = self.query().unwrap_or_default();
        match self.dialect {
            Dialect::Python => text::parameters(query.as_bytes()),
            Dialect::Go => text::go_parameters(query),
        }
    }

    /// The first parameter of that name in the query; in Python's dialect case does not count. In Go's
    /// an empty one is none.
    pub fn argument(&self, name: &str) -> Option<String> {
        self.query()?;
        let mut arguments = self.arguments().into_iter();
        let found = match self.dialect {
            Dialect::Python => arguments.find(|(other, _)| other.eq_ignore_ascii_case(name)),
            Dialect::Go => arguments.find(|(other, _)| other == name),
        };
        let value = found.map(|(_, value)| value);
        value.filter(|value| self.dialect == Dialect::Python || !value.is_empty())
    }

    /// A field as text: bytes beyond ASCII as the dialect has them.
    pub fn field(&self, name: &HeaderName) -> Option<String> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        Some(match self.dialect {
            Dialect::Go => String::from_utf8_lossy(first.as_bytes()).into_owned(),
            Dialect::Python => {
                let mut all = text::latin1(first.as_bytes()).into_owned();
                for value in values {
                    all.push(',');
                    all.push_str(&text::latin1(value.as_bytes()));
                }
                all
            }
        })
    }

    /// The type of the body.
    pub fn content_type(&self) -> String {
        self.field(&CONTENT_TYPE).unwrap_or_default()
    }

    /// The cookies. HTTP/2 may have them in several fields (RFC 9113, 8.2.3).
    pub fn cookies(&self) -> Vec<(String, String)> {
        let values = self.headers.get_all(COOKIE).iter();
        let fields: Vec<_> = values
            .map(|value| match self.dialect {
                Dialect::Python => text::latin1(value.as_bytes()),
                Dialect::Go => String::from_utf8_lossy(value.as_bytes()),
            })
            .collect();
        super::cookies::parse(&fields.join("; "), self.dialect)
    }

    /// The fields with their names as the dialect has them, in the order in which they came, except for
    /// those that nobody is told.
    pub fn fields(&self) -> Vec<(String, Cow<'_, str>)> {
        let shows_all = self.dialect == Dialect::Go || self.argument("show_env").is_some();
        let mut fields = Vec::with_capacity(self.headers.len() + 1);
        if !self.headers.contains_key(HOST) && !self.host().is_empty() {
            fields.push(("Host".to_owned(), self.host().into()));
        }
        for (name, value) in &self.headers {
            let name = match self.dialect {
                Dialect::Python => text::title(name),
                Dialect::Go => text::canonical(name),
            };
            if (!shows_all && ENVIRONMENT.contains(&name.as_str())) || self.options().hides(&name) {
                continue;
            }
            let value = value.as_bytes();
            // To WSGI it is none.
            if self.dialect == Dialect::Python && name == "Content-Type" && value.is_empty() {
                continue;
            }
            match self.dialect {
                Dialect::Go => fields.push((name, String::from_utf8_lossy(value))),
                Dialect::Python => {
                    let value = text::latin1(value);
                    match fields.iter_mut().find(|(other, _)| *other == name) {
                        // A crumb of HTTP/2's is a cookie more.
                        Some((_, all)) if name == "Cookie" => {
                            all.to_mut().extend(["; ", &value]);
                        }
                        Some((_, all)) => all.to_mut().extend([",", &value]),
                        None => fields.push((name, value)),
                    }
                }
            }
        }
        fields
    }

    /// Where the request comes from: what balancers claim is believed, as the originals do.
    pub fn origin(&self) -> String {
        let address = || self.address.map(text::of_address).unwrap_or_default();
        let forwarded = (self.is_forwarded)
            .then(|| self.field(&FORWARDED_FOR))
            .flatten();
        match self.dialect {
            Dialect::Python => forwarded.unwrap_or_else(address),
            Dialect::Go => {
                let mut named = CLIENT.iter().filter_map(|name| self.field(name));
                if let Some(origin) = named.find(|origin| !origin.is_empty()) {
                    return origin;
                }
                match forwarded.filter(|list| !list.is_empty()) {
                    Some(list) => list.split(',').next().unwrap_or_default().trim().to_owned(),
                    None => address(),
                }
            }
        }
    }

    /// `http` or `https`, as it is.
    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    /// The scheme that a balancer claims, or else as it is.
    pub fn claimed_scheme(&self) -> Cow<'static, str> {
        if !self.is_forwarded {
            return self.scheme().into();
        }
        let mut claimed = FORWARDED_PROTO.iter().filter_map(|name| self.field(name));
        let claimed = claimed.find(|scheme| !scheme.is_empty());
        claimed.map_or_else(
            || {
                if self.field(&FORWARDED_SSL).as_deref() == Some("on") {
                    "https".into()
                } else {
                    self.scheme().into()
                }
            },
            Cow::from,
        )
    }

    /// Scheme and host, as they are.
    pub fn root(&self) -> String {
        format!("{}://{}", self.scheme(), self.shown_host())
    }

    /// The host, without the port that the scheme implies in Python's dialect.
    fn shown_host(&self) -> Cow<'_, str> {
        if self.dialect == Dialect::Go {
            return self.host().into();
        }
        let port = if self.is_encrypted { ":443" } else { ":80" };
        let host = self.host();
        let host = host.strip_suffix(port).unwrap_or(host);
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            host.to_ascii_lowercase().into()
        } else {
            host.into()
        }
    }

    /// The URL that was asked for.
    pub fn url(&self) -> String {
        let (scheme, host) = (self.claimed_scheme(), self.shown_host());
        let prefix = match self.dialect {
            Dialect::Python => self.prefix(),
            // The original has taken its prefix away by then.
            Dialect::Go => "",
        };
        let length = self.uri.path().len() + self.query().map_or(0, str::len);
        let mut url = String::with_capacity(scheme.len() + host.len() + prefix.len() + length + 4);
        url.extend([&scheme, "://", &host, prefix]);
        match self.dialect {
            Dialect::Python => {
                let path = text::unquote(self.path().as_bytes());
                let path = String::from_utf8_lossy(&path);
                url.push('/');
                url.push_str(&text::iri_path(path.trim_start_matches('/')));
                if let Some(query) = self.query().filter(|query| !query.is_empty()) {
                    url.push('?');
                    url.push_str(&text::iri_query(query));
                }
            }
            Dialect::Go => {
                url.push_str(&text::quote(self.path().as_bytes(), b"!$&'()*+,/:;=@%[]"));
                if let Some(query) = self.query() {
                    url.push('?');
                    url.push_str(query);
                }
            }
        }
        url
    }

    /// The target as it came.
    pub fn target(&self) -> String {
        let prefix = self.prefix();
        let path = self.path();
        match self.query() {
            Some(query) => format!("{prefix}{path}?{query}"),
            None => format!("{prefix}{path}"),
        }
    }

    /// The body in full.
    pub async fn read(&mut self) -> Result<hyper::body::Bytes, Refusal> {
        let read = self.body.collect().await;
        read.map_err(|problem| Refusal::of(problem, self.dialect))
    }
}

impl Deref for Asked {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

/// Whether a field is one of `X-Forwarded-*`.
fn is_of_balancer(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-forwarded-")
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What is believed of the scheme, the first that says something.
static FORWARDED_PROTO: [HeaderName; 2] = [
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-protocol"),
];
const FORWARDED_SSL: HeaderName = HeaderName::from_static("x-forwarded-ssl");
/// What go-httpbin believes of the client's address before all else.
static CLIENT: [HeaderName; 4] = [
    HeaderName::from_static("fly-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("fastly-client-ip"),
    HeaderName::from_static("true-client-ip"),
];
/// What balancers add to a request, which httpbin does not tell unless asked.
const ENVIRONMENT: &[&str] = &[
    "X-Varnish",
    "X-Request-Start",
    "X-Heroku-Queue-Depth",
    "X-Real-Ip",
    "X-Forwarded-Proto",
    "X-Forwarded-Protocol",
    "X-Forwarded-Ssl",
    "X-Heroku-Queue-Wait-Time",
    "X-Forwarded-For",
    "X-Heroku-Dynos-In-Use",
    "X-Forwarded-Port",
    "X-Request-Id",
    "Via",
    "Total-Route-Time",
    "Connect-Time",
];
