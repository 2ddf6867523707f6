//! A request as a handler sees it.

use std::cell::OnceCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri, Version};
use portyard_core::event_loop::EventLoop;
use portyard_core::listener::{Listener, Streams};
use portyard_core::serve::{Connection, Peer};
use portyard_core::tls::Facts;

use super::RequestBody;
use super::query::{decode_plus, pairs, parameters};
use crate::metrics::RouteMetrics;

/// A request. Its head has passed every check.
pub struct Request {
    /// The head.
    pub head: Rc<Head>,
    /// The body.
    pub body: RequestBody,
    /// Who sent it.
    pub client: Rc<Client>,
}

/// The head of a request.
pub struct Head {
    /// The method; case matters.
    pub method: Method,
    /// The target: path and query, and of HTTP/2 or a proxy's request scheme and authority too.
    pub uri: Uri,
    /// HTTP/1.0, 1.1 or 2.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
    /// The id by which logs name it, ours and others'.
    pub id: Option<HeaderValue>,
    /// What counts its answer.
    pub counted: OnceCell<Arc<RouteMetrics>>,
    /// Who has shown a key.
    pub user: OnceCell<User>,
}

/// Who has shown a key, and how.
pub struct User {
    /// The name of the key.
    pub name: String,
    /// The scheme of the authentication.
    pub scheme: &'static str,
}

/// What a head is made of.
pub struct Parts {
    /// The method.
    pub method: Method,
    /// The target.
    pub uri: Uri,
    /// The version.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
}

/// Who is at the other end of a connection.
pub struct Client {
    /// The address; that which a balancer names, if one does.
    pub peer: Peer,
    /// Whether TLS is spoken.
    pub is_encrypted: bool,
    /// What the client's certificate says, where it has shown one.
    pub certificate: Option<Facts>,
    /// The listener that accepted it.
    pub listener: Arc<Listener<Streams>>,
    /// The loop: the time of day, and the pool for work that would stall it.
    pub home: Rc<EventLoop>,
}

impl Client {
    /// Who is at the other end of this one.
    pub fn of(connection: &Connection) -> Self {
        Self {
            peer: connection.peer(),
            is_encrypted: connection.is_encrypted(),
            certificate: connection.certificate(),
            listener: connection.listener().clone(),
            home: connection.home().clone(),
        }
    }
}

impl Deref for Request {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

impl Request {
    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.client.is_encrypted {
            "https"
        } else {
            "http"
        }
    }
}

impl Head {
    /// The id by which logs name it; empty where the listener gives none.
    pub fn id(&self) -> &str {
        let id = self.id.as_ref().and_then(|id| id.to_str().ok());
        id.unwrap_or_default()
    }

    /// Says what is to count its answer; the first to say so is obeyed.
    pub fn count_as(&self, metrics: &Arc<RouteMetrics>) {
        // Already set: by who knows better.
        let _ = self.counted.set(metrics.clone());
    }

    /// The path, as it came: not decoded.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The parameters of the query, decoded, in their order.
    pub fn query(&self) -> Vec<(String, String)> {
        self.uri.query().map(parameters).unwrap_or_default()
    }

    /// The first parameter of that name in the query.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = pairs(self.uri.query()?);
        let found = pairs.find(|(other, _)| *other == name || decode_plus(other) == name);
        found.map(|(_, value)| decode_plus(value))
    }

    /// The value of a field, where it is there and is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The host that was asked for, with the port where one was given.
    pub fn host(&self) -> &str {
        let authority = self
            .uri
            .authority()
            .map(hyper::http::uri::Authority::as_str);
        authority
            .or_else(|| self.header(hyper::header::HOST))
            .unwrap_or_default()
    }
}
