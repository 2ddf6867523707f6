//! The service of a listener that speaks HTTP.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::{HeaderMap, Method, Version};
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Caps;
use tokio::time::timeout;

use super::at_once::{self, Then, Turn};
use super::body::Upgraded;
use super::cors::Cors;
use super::finish::{finish, request_id};
use super::head::METHODS;
use super::record::Record;
use super::remains::Remains;
use super::request::{Head, Parts};
use super::response::{Interim, allowed, has_content};
use super::watch::Watch;
use super::{Answer, Body, Client, Handler, Request, RequestBody, Response, h1, h2, head};
use crate::metrics::RouteMetrics;
use crate::settings::Options;
use crate::state::State;

/// Serves HTTP with a handler.
pub struct Server(Arc<Site>);

/// What all connections of a listener share.
pub struct Site {
    /// Its options.
    pub options: Options,
    /// Its handler.
    pub handler: Box<dyn Handler>,
    /// Whom browsers let read its answers.
    pub cors: Option<Cors>,
    /// What browsers are told of TLS.
    pub hsts: Option<HeaderValue>,
    /// What counts requests that reach no route.
    pub unrouted: Arc<RouteMetrics>,
}

impl Server {
    /// HTTP with a listener's options, or what is wrong with them.
    pub fn new(options: &Options, state: &State, handler: impl Handler) -> Result<Self, String> {
        let age = options.hsts.0.as_secs();
        Ok(Self(Arc::new(Site {
            options: options.clone(),
            handler: Box::new(handler),
            cors: Cors::new(&options.cors)?,
            hsts: (age > 0)
                .then(|| HeaderValue::from_str(&format!("max-age={age}")).ok())
                .flatten(),
            unrouted: state.metrics().route("-"),
        })))
    }
}

impl StreamService for Server {
    fn serve(&self, connection: Connection) -> Serving {
        let site = self.0.clone();
        Box::pin(async move { serve(connection, site).await.unwrap_or_else(Ended::from) })
    }
}

/// How a connection goes on.
pub enum Next {
    /// Nothing goes on, and all memory but the connection's own is free.
    Rest(Connection, Vec<u8>),
    /// It speaks something else now.
    Upgrade(super::body::Upgrade, Upgraded),
    /// It is over.
    End(Ended),
}

/// Serves a connection to its end. Between requests it holds nothing but the connection, and who is at the
/// other end of it.
async fn serve(mut connection: Connection, site: Arc<Site>) -> io::Result<Ended> {
    let mut pending = Vec::new();
    let mut client = None;
    if connection.protocol() == Some(b"h2") {
        return Box::pin(h2::serve(connection, site, pending)).await;
    }
    loop {
        while pending.len() < PREFACE.len() && PREFACE.starts_with(&pending) {
            let is_first = pending.is_empty();
            let reading = connection.read_some(&mut pending, READ);
            // It may rest as long as it likes, but not in the midst of a preface.
            let length = if is_first {
                reading.await?
            } else {
                let read = Box::pin(timeout(site.options.header.0, reading)).await;
                let Ok(length) = read else {
                    let refusing = h1::refuse(&mut connection, &site, h1::too_slow());
                    return Box::pin(refusing).await;
                };
                length?
            };
            if length == 0 {
                connection.finish().await;
                return Ok(Ended::Done);
            }
        }
        if pending.starts_with(PREFACE) {
            return Box::pin(h2::serve(connection, site, pending)).await;
        }
        let client = client.get_or_insert_with(|| Rc::new(Client::of(&connection)));
        let turn = poll_fn(|cx| {
            let bytes = Bytes::from(mem::take(&mut pending));
            Poll::Ready(at_once::answer(cx, &site, client, &connection, &bytes))
        });
        let Turn {
            out,
            records,
            rest,
            next,
        } = turn.await;
        pending = rest;
        if !out.is_empty() {
            connection.write_all(&out).await?;
            for record in records {
                record.sent();
            }
        }
        let begun = match next {
            Then::GoOn => continue,
            Then::Hyper(begun) => begun,
        };
        let client = client.clone();
        match Box::pin(h1::serve(connection, site.clone(), client, pending, begun)).await? {
            Next::Rest(same, rest) => {
                (connection, pending) = (same, rest);
                connection.place().freed();
            }
            Next::Upgrade(upgrade, upgraded) => return Ok(upgrade(upgraded).await),
            Next::End(ended) => return Ok(ended),
        }
    }
}

/// A connection's requests, as hyper hands them over.
pub struct Call {
    site: Arc<Site>,
    watch: Rc<Watch>,
    client: Rc<Client>,
    /// Of HTTP/2: what nobody has read.
    remains: Option<Rc<Remains>>,
    /// The answer to the first of them, where it has begun already.
    begun: Cell<Option<Exchange>>,
}

impl Call {
    /// For the requests of a connection, of which the first may have `begun` to be answered.
    pub fn new(
        site: Arc<Site>,
        watch: Rc<Watch>,
        client: Rc<Client>,
        remains: Option<Rc<Remains>>,
        begun: Option<Exchange>,
    ) -> Self {
        Self {
            site,
            watch,
            client,
            remains,
            begun: Cell::new(begun),
        }
    }
}

impl Service<hyper::Request<Incoming>> for Call {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>>>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (watch, version) = (self.watch.clone(), request.version());
        let under_way = watch.begin();
        let exchange = self.begun.take().unwrap_or_else(|| {
            let (mut parts, incoming) = request.into_parts();
            let is_verbatim = self.site.handler.is_verbatim();
            if version < Version::HTTP_2 && is_verbatim {
                drop_last(&mut parts.headers, &header::TE);
            }
            let mut body = RequestBody::new(incoming, &parts.headers, &self.site.options);
            if let Some(remains) = &self.remains {
                body.leave_to(remains.clone());
            }
            let parts = Parts {
                method: parts.method,
                uri: parts.uri,
                version,
                headers: parts.headers,
            };
            exchange(
                self.site.clone(),
                self.client.clone(),
                parts,
                body,
                Instant::now(),
            )
        });
        Box::pin(async move {
            let (mut response, record) = exchange.await;
            if let Some(Interim(status)) = response.extensions_mut().remove()
                && version == Version::HTTP_11
            {
                watch.tell_interim(status);
            }
            if let Some(upgrade) = response.body_mut().take_upgrade() {
                *watch.upgrade.borrow_mut() = Some(upgrade);
            } else if version < Version::HTTP_2 && watch.place.draining() {
                // RFC 9112, 9.6: a client that is never silent learns it from its next answer, behind which
                // hyper ends the connection.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            let is_h2 = version == Version::HTTP_2;
            Ok(response.map(|body| {
                let body = body.answers(under_way, record);
                if is_h2 { body.paced() } else { body }
            }))
        })
    }
}

/// A request being answered: its answer, and the line that it gets in the log.
pub type Exchange = Pin<Box<dyn Future<Output = (Response, Option<Box<Record>>)>>>;

/// Answers a request, whose head had come by `started`.
pub fn exchange(
    site: Arc<Site>,
    client: Rc<Client>,
    parts: Parts,
    mut body: RequestBody,
    started: Instant,
) -> Exchange {
    Box::pin(async move {
        let unread = body.unread();
        let options = &site.options;
        let head = Rc::new(Head {
            id: (options.request_id)
                .then(|| request_id(&parts.headers))
                .flatten(),
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers,
            counted: OnceCell::new(),
            user: OnceCell::new(),
        });
        let answer = answer(&site, head.clone(), body, client.clone()).await;
        let handler = &site.handler;
        let answer = answer.unwrap_or_else(|problem| handler.tell(problem, &head));
        let mut response = if handler.is_verbatim() {
            answer
        } else {
            finish(&site, &head, &client, answer)
        };
        if head.version == Version::HTTP_2
            && (head.method == Method::HEAD || !has_content(response.status()))
        {
            // Over HTTP/1.1 hyper leaves it out; over HTTP/2 it would send it, which clients take for a fault
            // of the stream (RFC 9113, 8.1.1).
            *response.body_mut() = Body::empty();
        }
        if let Some(unread) = unread
            && !response.headers().contains_key(header::CONNECTION)
            && !Box::pin(unread.finish(head.headers.contains_key(header::EXPECT))).await
        {
            // hyper ends the connection then, which the client is to know (RFC 9112, 9.6).
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let status = response.status();
        let counted = head.counted.get().unwrap_or(&site.unrouted);
        counted.answered(status, started.elapsed());
        let record = options
            .access_log
            .then(|| Box::new(Record::new(head, client, status, started)));
        (response, record)
    })
}

async fn answer(site: &Site, head: Rc<Head>, body: RequestBody, client: Rc<Client>) -> Answer {
    let limited = || {
        if site.handler.limits_bodies() {
            Ok(())
        } else {
            body.check()
        }
    };
    let checked = head::check(&head, &site.options).and_then(|()| limited());
    if let Err(problem) = checked {
        client.listener.metrics.bad_input.inc();
        return Err(problem);
    }
    if let Some(cors) = &site.cors
        && let Some(response) = cors.preflight(&head.method, &head.headers)
    {
        return Ok(response);
    }
    if head.path() == "*" {
        return Ok(allowed(METHODS));
    }
    let request = Request { head, body, client };
    site.handler.handle(request).await
}

impl Site {
    /// What a head of HTTP/1.1 may be.
    pub fn caps(&self) -> Caps {
        Caps {
            head: usize::try_from(self.options.max_header.0).unwrap_or(usize::MAX),
            fields: self.options.max_fields.get() as usize,
            // Whoever reads the body holds it to a limit.
            body: u64::MAX,
        }
    }
}

/// Takes back the field that was added behind those of the client.
fn drop_last(fields: &mut HeaderMap, name: &HeaderName) {
    let mut values: Vec<_> = fields.get_all(name).iter().cloned().collect();
    values.pop();
    let mut values = values.into_iter();
    match values.next() {
        // It keeps its place among the others.
        Some(first) => drop(fields.insert(name, first)),
        None => drop(fields.remove(name)),
    }
    for value in values {
        fields.append(name, value);
    }
}

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read of a connection that has rested: a head and more.
const READ: usize = 16 << 10;
