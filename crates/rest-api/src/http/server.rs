//! The service of a listener that speaks HTTP.

use std::cell::OnceCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hyper::Version;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::Service;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Caps;
use tokio::time::timeout;

use super::body::Upgraded;
use super::cors::Cors;
use super::finish::{finish, request_id};
use super::head::METHODS;
use super::record::Record;
use super::request::Head;
use super::response::allowed;
use super::watch::Watch;
use super::{Answer, Client, Handler, Request, RequestBody, Response, h1, h2, head};
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

/// Serves a connection to its end. Between requests it holds nothing but the connection.
async fn serve(mut connection: Connection, site: Arc<Site>) -> io::Result<Ended> {
    let mut pending = Vec::new();
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
        match Box::pin(h1::serve(connection, site.clone(), pending)).await? {
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
    pub site: Arc<Site>,
    pub watch: Rc<Watch>,
    pub client: Rc<Client>,
}

impl Call {
    /// For the requests of a connection.
    pub fn new(site: Arc<Site>, watch: Rc<Watch>, connection: &Connection) -> Self {
        let client = Client {
            peer: connection.peer(),
            is_encrypted: connection.is_encrypted(),
            certificate: connection.certificate(),
            listener: connection.listener().clone(),
            home: connection.home().clone(),
        };
        Self {
            site,
            watch,
            client: Rc::new(client),
        }
    }
}

impl Service<hyper::Request<Incoming>> for Call {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>>>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let (site, watch, client) = (self.site.clone(), self.watch.clone(), self.client.clone());
        let under_way = watch.begin();
        Box::pin(async move {
            let started = Instant::now();
            let (parts, incoming) = request.into_parts();
            let options = &site.options;
            let body = RequestBody::new(incoming, &parts.headers, options);
            let head = Rc::new(Head {
                id: options.request_id.then(|| request_id(&parts.headers)),
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
            if let Some(upgrade) = response.body_mut().take_upgrade() {
                *watch.upgrade.borrow_mut() = Some(upgrade);
            } else if head.version < Version::HTTP_2 && watch.place.draining() {
                // RFC 9112, 9.6: a client that is never silent learns it from its next answer, behind which
                // hyper ends the connection.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            let is_h2 = head.version == Version::HTTP_2;
            let status = response.status();
            let counted = head.counted.get().unwrap_or(&site.unrouted);
            counted.answered(status, started.elapsed());
            let record = options
                .access_log
                .then(|| Box::new(Record::new(head, client, status, started)));
            Ok(response.map(|body| {
                let body = body.answers(under_way, record);
                if is_h2 { body.paced() } else { body }
            }))
        })
    }
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

/// RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read of a connection that has rested: a head and more.
const READ: usize = 16 << 10;
