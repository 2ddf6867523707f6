//! Passes requests to another HTTP server, and its answers back, piece by piece.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use hyper::{StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use portyard_core::endpoint::Endpoint;

use super::config::ProxyConfig;
use super::pattern::{Captures, Pattern};
use super::template::{Escape, Template};
use super::upstream::{Upstream, broken};
use super::values::{fill, template};
use crate::http::{Answer, Body, Problem, Request, Response};

/// The handler.
pub struct Proxy {
    to: Endpoint,
    /// What the server is called in Host.
    host: HeaderValue,
    path: Option<Template>,
    connect: Duration,
    keep_host: bool,
}

impl Proxy {
    /// Reads where to.
    pub fn new(config: &ProxyConfig, pattern: &Pattern) -> Result<Self, String> {
        let wrong = || {
            format!(
                "proxy.to = \"{}\" is not \"http://HOST:PORT\" or \"unix:/PATH\" (write the path there as \
                 proxy.path)",
                config.to
            )
        };
        let (to, host) = config.server().ok_or_else(wrong)?;
        let path = config.path.as_deref().map(|path| {
            if path.starts_with('/') {
                template(path, pattern).map_err(|why| format!("proxy.path: {why}"))
            } else {
                Err(format!("proxy.path = \"{path}\" must begin with a slash"))
            }
        });
        Ok(Self {
            to,
            host: HeaderValue::from_str(&host).map_err(|_| wrong())?,
            path: path.transpose()?,
            connect: config.connect.0,
            keep_host: config.keep_host,
        })
    }

    /// Answers.
    pub async fn answer(&self, mut request: Request, captures: &Captures) -> Answer {
        let uri = self.target(&request, captures)?;
        let headers = self.request_headers(&request);
        let stream = Upstream::connect(&self.to, self.connect).await?;
        request.body.keep_coded();
        let (length, has_body) = (request.body.length(), !request.body.is_empty());
        let method = request.method.clone();
        let body = if has_body {
            let mut body = request.body;
            Body::produce(length, |mut sender| async move {
                // What the client did wrong ends the request there too.
                while let Some(piece) = body.next().await.map_err(|_| io::ErrorKind::InvalidData)? {
                    sender.send(piece).await;
                }
                Ok(())
            })
        } else {
            Body::empty()
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| broken())?;
        let mut connection: Connection = Box::pin(async move {
            let _ = connection.await;
        });
        let mut onward = hyper::Request::new(body);
        *onward.method_mut() = method;
        *onward.uri_mut() = uri;
        *onward.headers_mut() = headers;
        let sending = sender.send_request(onward);
        tokio::pin!(sending);
        let mut is_over = false;
        // The connection runs while we wait, and it may be over before its answer has been looked at.
        let answer = std::future::poll_fn(|cx| {
            if !is_over {
                is_over = connection.as_mut().poll(cx).is_ready();
            }
            sending.as_mut().poll(cx)
        })
        .await;
        let answer = answer.map_err(|error| {
            tracing::debug!(%error, to = %self.to, "proxy");
            broken()
        })?;
        let (mut head, incoming) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(broken());
        }
        strip(&mut head.headers);
        via(&mut head.headers, head.version);
        let mut response = Response::new(Body::stream(Relayed {
            incoming,
            connection: (!is_over).then_some(connection),
            // Kept, or the connection would end.
            _sender: Box::new(sender),
        }));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    fn target(&self, request: &Request, captures: &Captures) -> Result<Uri, Problem> {
        let path = match &self.path {
            None => request.path().to_owned(),
            Some(path) => fill(path, Escape::Path, request, captures),
        };
        let query = request
            .uri
            .query()
            .map_or(String::new(), |query| format!("?{query}"));
        let target = format!("{path}{query}").parse();
        target.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the path cannot be passed on"))
    }

    /// The client's fields, but for those of its connection, and what is known of the client.
    fn request_headers(&self, request: &Request) -> HeaderMap {
        let mut headers = request.headers.clone();
        strip(&mut headers);
        headers.remove(EXPECT);
        let host = HeaderValue::from_str(request.host())
            .ok()
            .filter(|_| self.keep_host);
        headers.insert(HOST, host.unwrap_or_else(|| self.host.clone()));
        // Ours is the word that the server can believe: what came is the client's to write.
        for name in FORWARDED {
            headers.remove(*name);
        }
        let peer = match request.client.peer.ip().map(|ip| ip.to_canonical()) {
            Some(std::net::IpAddr::V6(ip)) => format!("\"[{ip}]\""),
            Some(ip) => ip.to_string(),
            None => "unknown".into(),
        };
        let plain = peer.trim_matches(['"', '[', ']']).to_owned();
        let said = format!(
            "for={peer};host=\"{}\";proto={}",
            request.host(),
            request.scheme()
        );
        let fields = [
            (FORWARDED[0], said.as_str()),
            (FORWARDED[1], &plain),
            (FORWARDED[2], request.host()),
            (FORWARDED[3], request.scheme()),
        ];
        for (name, value) in fields {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        if let Some(id) = request
            .id
            .as_deref()
            .and_then(|id| HeaderValue::from_str(id).ok())
        {
            headers.insert("x-request-id", id);
        }
        via(&mut headers, request.version);
        headers
    }
}

type Connection = Pin<Box<dyn Future<Output = ()>>>;

/// An answer on its way, and the connection that brings it.
struct Relayed {
    incoming: Incoming,
    connection: Option<Connection>,
    _sender: Box<dyn std::any::Any>,
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(connection) = &mut this.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            this.connection = None;
        }
        Pin::new(&mut this.incoming)
            .poll_frame(cx)
            .map_err(io::Error::other)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Takes out what is for one connection alone (RFC 9110, 7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    let fixed = [
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
    ];
    for name in fixed {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

fn via(headers: &mut HeaderMap, version: Version) {
    let value = match version {
        Version::HTTP_10 => "1.0 rest-api",
        Version::HTTP_2 => "2 rest-api",
        _ => "1.1 rest-api",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

/// RFC 7239, and what came before it.
const FORWARDED: &[&str] = &[
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];
const BUFFER: usize = 64 << 10;
