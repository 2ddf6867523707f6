//! The service of a listener that speaks HTTP.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_wire::http::Caps;

use super::body::Upgraded;
use super::watch::Watch;
use super::{Client, Handler, Request, RequestBody, Response, h1, h2, head};
use crate::settings::Options;

/// Serves HTTP with a handler.
pub struct Server(Arc<Site>);

/// What all connections of a listener share.
pub struct Site {
    /// Its options.
    pub options: Options,
    /// Its handler.
    pub handler: Box<dyn Handler>,
}

impl Server {
    /// HTTP with a listener's options.
    pub fn new(options: &Options, handler: impl Handler) -> Self {
        Self(Arc::new(Site {
            options: options.clone(),
            handler: Box::new(handler),
        }))
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
        while !may_begin(&pending) {
            if connection.read_some(&mut pending, READ).await? == 0 {
                connection.finish().await;
                return Ok(Ended::Done);
            }
        }
        if pending.starts_with(&PREFACE[..pending.len().min(PREFACE.len())]) {
            return Box::pin(h2::serve(connection, site, pending)).await;
        }
        match Box::pin(h1::serve(connection, site.clone(), pending)).await? {
            Next::Rest(same, rest) => (connection, pending) = (same, rest),
            Next::Upgrade(upgrade, upgraded) => return Ok(upgrade(upgraded).await),
            Next::End(ended) => return Ok(ended),
        }
    }
}

/// Whether enough has come to tell HTTP/2 from HTTP/1.1. `PRI` is no method that we know.
fn may_begin(pending: &[u8]) -> bool {
    pending.len() >= 4 || (!pending.is_empty() && !PREFACE.starts_with(pending))
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
            let response = answer(&site, &watch, client, request).await;
            Ok(response.map(|body| body.answers(under_way)))
        })
    }
}

async fn answer(
    site: &Site,
    watch: &Watch,
    client: Rc<Client>,
    request: hyper::Request<Incoming>,
) -> Response {
    let (head, incoming) = request.into_parts();
    if let Err(problem) = head::check(&head, &site.options) {
        client.listener.metrics.bad_input.inc();
        return problem.respond(&head.headers);
    }
    // For whatever has to be told afterwards.
    let headers = head.headers.clone();
    let mut body = RequestBody::new(incoming, &site.options);
    let limited = body.limit(site.options.max_body.0);
    let result = match limited {
        Ok(()) => {
            let request = Request {
                method: head.method,
                uri: head.uri,
                version: head.version,
                headers: head.headers,
                body,
                client,
            };
            site.handler.handle(request).await
        }
        Err(problem) => Err(problem),
    };
    let mut response = result.unwrap_or_else(|problem| problem.respond(&headers));
    if let Some(upgrade) = response.body_mut().take_upgrade() {
        *watch.upgrade.borrow_mut() = Some(upgrade);
    }
    response
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
