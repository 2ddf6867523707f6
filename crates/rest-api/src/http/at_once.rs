//! Requests that are answered at once: without a body, by a handler that need not wait and has the whole
//! answer at hand.
//!
//! Most are of this kind, and for them hyper is more than half of the work. Whatever turns out to be of
//! another kind goes on with hyper from where it is, the answer that has begun included.

use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode, Uri, Version};
use portyard_core::serve::Connection;
use portyard_wire::http::Head;

use super::encode::encode;
use super::record::Record;
use super::request::{Client, Parts};
use super::response::{FRAMING, has_content};
use super::server::{Exchange, Site, exchange};
use super::{RequestBody, Response};

/// What has become of bytes that came together.
pub struct Turn {
    /// Answers, to be sent.
    pub out: Vec<u8>,
    /// The lines that they get in the log once they are sent.
    pub records: Vec<Record>,
    /// Bytes that are not answered.
    pub rest: Vec<u8>,
    /// What to do then.
    pub next: Then,
}

/// How a connection goes on.
pub enum Then {
    /// As before: with what is left, and more when that is not enough.
    GoOn,
    /// With hyper, which goes on with an answer that has begun.
    Hyper(Option<Exchange>),
}

/// Answers the requests in `bytes`, as far as that is possible at once.
pub fn answer(
    cx: &mut Context<'_>,
    site: &Arc<Site>,
    client: &Rc<Client>,
    connection: &Connection,
    bytes: &Bytes,
) -> Turn {
    let (mut out, mut records, mut taken) = (Vec::new(), Vec::new(), 0);
    // Who is to be told that it is the last answer, is told by hyper.
    let mut next = Then::Hyper(None);
    while !connection.draining() {
        if taken == bytes.len() || out.len() > OUT {
            next = Then::GoOn;
            break;
        }
        let Some((parts, length)) = request(site, &bytes.slice(taken..)) else {
            break;
        };
        let started = Instant::now();
        let body = RequestBody::none();
        let mut exchange = exchange(site.clone(), client.clone(), parts, body, started);
        match exchange.as_mut().poll(cx) {
            Poll::Pending => {
                next = Then::Hyper(Some(exchange));
                break;
            }
            Poll::Ready((response, record)) => {
                let Some(body) = response.body().bytes().filter(|_| is_plain(&response)) else {
                    next = Then::Hyper(Some(Box::pin(ready((response, record)))));
                    break;
                };
                encode(&response, body, started, &mut out);
                records.extend(record.map(|mut record| {
                    record.made(body.len());
                    *record
                }));
            }
        }
        taken += length;
    }
    Turn {
        out,
        records,
        rest: bytes[taken..].to_vec(),
        next,
    }
}

/// The request at the front of `bytes` and its length, where it is whole, right and of the kind that can be
/// answered at once. It is for hyper to say what is wrong with any other.
fn request(site: &Site, bytes: &Bytes) -> Option<(Parts, usize)> {
    let (head, length) = Head::parse(bytes, &site.caps()).ok()??;
    let is_simple = head.is_1_1 && head.keep_alive && !head.expects_continue && head.body.is_over();
    let method = Method::from_bytes(head.method.as_bytes()).ok()?;
    if !is_simple || method == Method::HEAD || method == Method::CONNECT {
        return None;
    }
    let target = bytes.slice_ref(head.target.as_bytes());
    let mut headers = HeaderMap::with_capacity(head.fields().len());
    for (name, value) in head.fields() {
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(value)).ok()?;
        headers.append(name, value);
    }
    let parts = Parts {
        method,
        uri: Uri::from_maybe_shared(target).ok()?,
        version: Version::HTTP_11,
        headers,
    };
    Some((parts, length))
}

/// Whether an answer, whose body is at hand, is framed by its length, says nothing about the connection and
/// has nothing of its own to it but the reason's phrase.
fn is_plain(response: &Response) -> bool {
    let (status, fields) = (response.status(), response.headers());
    let own = response.extensions();
    let phrases = usize::from(own.get::<ReasonPhrase>().is_some());
    let has_body = has_content(status) && status != StatusCode::RESET_CONTENT;
    has_body && own.len() == phrases && !fields.keys().any(|name| FRAMING.contains(name))
}

/// What is made before it is sent, at the most and a last answer.
const OUT: usize = 64 << 10;
