//! Passes requests to another HTTP server, and its answers back, piece by piece.

mod fields;
mod pool;

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use portyard_core::endpoint::Endpoint;
use portyard_core::serve::Ended;
use portyard_core::tls::ClientTls;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, Sleep};

use super::config::ProxyConfig;
use super::pattern::Pattern;
use super::template::{Escape, Template};
use super::upstream::{Secure, broken};
use super::values::{fill, template};
use crate::http::{Answer, Body, Problem, Request, Response, Upgraded};
use pool::{Line, Lines};

/// The handler.
pub struct Proxy {
    lines: Lines,
    /// What the server is called in Host.
    host: HeaderValue,
    path: Option<Template>,
    pattern: Pattern,
    keep_host: bool,
    /// How long it may be silent within an answer.
    stall: Duration,
}

impl Proxy {
    /// Reads where to.
    pub fn new(config: &ProxyConfig, pattern: &Pattern) -> Result<Self, String> {
        let (to, host, is_secure) = place(&config.to)?;
        if !is_secure && (config.ca.is_some() || config.server_name.is_some()) {
            return Err("proxy.ca and proxy.server_name are for https:// alone".into());
        }
        if config.keep > 0 && config.idle.0.is_zero() {
            return Err(
                "proxy.idle must be longer than \"0s\"; keep = 0 keeps no connection".into(),
            );
        }
        let path = config.path.as_deref().map(|path| {
            if path.starts_with('/') {
                template(path, pattern).map_err(|why| format!("proxy.path: {why}"))
            } else {
                Err(format!("proxy.path = \"{path}\" must begin with a slash"))
            }
        });
        let secure = is_secure.then(|| {
            let tls = ClientTls {
                ca: config.ca.clone(),
                server_name: config.server_name.clone(),
                alpn: vec![b"http/1.1".to_vec()],
                resumption: true,
                ..ClientTls::default()
            };
            Secure::new(&tls, &to).map_err(|why| format!("proxy: {why}"))
        });
        let lines = Lines::new(to, secure.transpose()?, config);
        Ok(Self {
            lines,
            host,
            path: path.transpose()?,
            pattern: pattern.clone(),
            keep_host: config.keep_host,
            stall: config.stall.0,
        })
    }

    /// Answers.
    pub async fn answer(&self, mut request: Request) -> Answer {
        let uri = self.target(&request)?;
        let host = HeaderValue::from_str(request.host()).ok();
        let host = host.filter(|_| self.keep_host);
        let headers = fields::onward(&request, host.unwrap_or_else(|| self.host.clone()));
        let upgrades = fields::asks_for_websocket(&request);
        request.body.keep_coded();
        let (length, is_empty) = (request.body.length(), request.body.is_empty());
        let method = request.method.clone();
        let mut body = Body::empty();
        // What the client did wrong ends the request there too; told is it to the client.
        let wrong = Rc::new(Cell::new(None));
        if !is_empty {
            let (mut client, wrong) = (request.body, wrong.clone());
            body = Body::produce(length, |mut sender| async move {
                loop {
                    match client.next().await {
                        Ok(Some(piece)) => sender.send(piece).await,
                        Ok(None) => return Ok(()),
                        Err(problem) => {
                            wrong.set(Some(problem));
                            return Err(io::ErrorKind::InvalidData.into());
                        }
                    }
                }
            });
        }
        let onward = |body| {
            let mut onward = hyper::Request::new(body);
            *onward.method_mut() = method.clone();
            *onward.uri_mut() = uri.clone();
            onward.headers_mut().clone_from(&headers);
            onward
        };
        let mut line = self.lines.take().await?;
        let answer = match line.send(onward(body)).await {
            Ok(answer) => answer,
            Err(failed) => {
                if let Some(problem) = wrong.take() {
                    return Err(problem);
                }
                tracing::debug!(error = %failed.error, to = %self.lines.to(), "proxy");
                // A connection that was kept may have been closed just now. Then once more, on a new one,
                // what has not been sent, or what may be sent twice (RFC 9110, 9.2.2) and is at hand still.
                let again = match failed.unsent {
                    Some(request) => Some(request),
                    None if is_empty && is_idempotent(&method) => Some(onward(Body::empty())),
                    None => None,
                };
                let again = again.filter(|_| line.was_kept()).ok_or_else(broken)?;
                line = self.lines.open().await?;
                line.send(again).await.map_err(|_| broken())?
            }
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return if upgrades {
                Ok(switch(answer, line))
            } else {
                Err(broken())
            };
        }
        let (mut head, incoming) = answer.into_parts();
        if !fields::is_framed(&head.headers) {
            tracing::warn!(to = %self.lines.to(), "an answer has two lengths, or an unknown coding");
            return Err(broken());
        }
        fields::back(&mut head.headers, head.version);
        let mut response = Response::new(Body::stream(Relayed {
            incoming,
            is_head: method == Method::HEAD,
            line: Some(line),
            stall: self.stall,
            silence: None,
        }));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        // hyper tells it where it is not the usual one.
        if let Some(reason) = head.extensions.remove::<ReasonPhrase>() {
            response.extensions_mut().insert(reason);
        }
        Ok(response)
    }

    fn target(&self, request: &Request) -> Result<Uri, Problem> {
        let path = match &self.path {
            None => request.path().to_owned(),
            Some(path) => {
                // Once decoded it could not be spelled the same again.
                let spelled = self.pattern.spelled(request.path()).unwrap_or_default();
                fill(path, Escape::Path, request, &spelled)
            }
        };
        let query = request
            .uri
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let target = format!("{path}{query}").parse();
        target.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the path cannot be passed on"))
    }
}

/// From the answer on, passes on whatever either end says.
fn switch(mut answer: hyper::Response<Incoming>, mut line: Line) -> Response {
    let switching = hyper::upgrade::on(&mut answer);
    let (head, _) = answer.into_parts();
    let body = Body::upgrade(move |client| async move {
        let mut switching = pin!(switching);
        // The connection hands itself over as the last thing that it does.
        let server = poll_fn(|cx| {
            line.run(cx);
            switching.as_mut().poll(cx)
        });
        match server.await {
            Ok(server) => tunnel(client, TokioIo::new(server)).await,
            Err(_) => Ended::Broken,
        }
    });
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    fields::back(response.headers_mut(), head.version);
    for (name, value) in fields::WEBSOCKET {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Passes bytes on between a client and a server until both are done. The client's side has the listener's
/// deadlines.
async fn tunnel(client: Upgraded, mut server: TokioIo<hyper::upgrade::Upgraded>) -> Ended {
    let Upgraded {
        mut connection,
        pending,
    } = client;
    let passing = async {
        server.write_all(&pending).await?;
        tokio::io::copy_bidirectional(&mut connection, &mut server).await
    };
    match passing.await {
        Ok(_) => {
            connection.finish().await;
            Ended::Done
        }
        Err(error) => Ended::from(error),
    }
}

/// Where a server is, what it is called, and whether it speaks TLS.
pub(super) fn place(to: &str) -> Result<(Endpoint, HeaderValue, bool), String> {
    let wrong = || {
        format!(
            "proxy.to = \"{to}\" is not \"http://HOST:PORT\", \"https://HOST:PORT\" or \"unix:/PATH\" \
             (write the path there as proxy.path)"
        )
    };
    let schemes = [("http://", 80, false), ("https://", 443, true)];
    let found = schemes
        .iter()
        .find_map(|(scheme, port, tls)| Some((to.strip_prefix(scheme)?, port, *tls)));
    let (endpoint, host, is_secure) = match found {
        Some((at, port, is_secure)) => {
            let at = at.strip_suffix('/').unwrap_or(at);
            let authority: hyper::http::uri::Authority = at.parse().map_err(|_| wrong())?;
            if at.contains('@') {
                return Err(format!(
                    "proxy.to = \"{to}\" has a user in it, who would be told to nobody; leave what stands \
                     before the @ out"
                ));
            }
            let port = authority.port_u16().unwrap_or(*port);
            let endpoint = format!("tcp://{}:{port}", authority.host());
            (endpoint, at, is_secure)
        }
        None if to.starts_with("unix:") => (to.to_owned(), "localhost", false),
        None => return Err(wrong()),
    };
    let endpoint = endpoint
        .parse()
        .map_err(|error| format!("proxy.to: {error}"))?;
    let host = HeaderValue::from_str(host).map_err(|_| wrong())?;
    Ok((endpoint, host, is_secure))
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// An answer on its way, and the connection that brings it.
struct Relayed {
    incoming: Incoming,
    /// There is none, but the length of what GET would get may be unknown.
    is_head: bool,
    line: Option<Line>,
    stall: Duration,
    /// Runs out when nothing has come for too long.
    silence: Option<Pin<Box<Sleep>>>,
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(line) = &mut this.line {
            line.run(cx);
        }
        let polled = Pin::new(&mut this.incoming)
            .poll_frame(cx)
            .map_err(io::Error::other);
        if this.stall.is_zero() {
            return polled;
        }
        if polled.is_ready() {
            this.silence = None;
            return polled;
        }
        let until = Instant::now() + this.stall;
        let silence = this
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if silence.as_mut().poll(cx).is_ready() {
            tracing::warn!("the server behind a route has become silent within an answer");
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_head {
            SizeHint::default()
        } else {
            self.incoming.size_hint()
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        // What has brought its answer to the end can bring another.
        if let Some(mut line) = self.line.take()
            && self.incoming.is_end_stream()
        {
            line.run(&mut Context::from_waker(Waker::noop()));
            line.keep();
        }
    }
}
