//! An answer: its head as it came, and its body piece by piece.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::{HeaderMap, StatusCode, Version};
use portyard_core::exit::Fatal;

use super::fault;
use super::pace::Pace;
use super::tap::Seen;

/// An answer, whose body is still to be read.
pub struct Answer {
    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The status code.
    pub status: StatusCode,
    /// What stands behind it.
    pub reason: String,
    /// The fields in their order, with names as the server spells them.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The same for looking up.
    pub headers: HeaderMap,
    /// Heads of interim answers, and of the request, as they were on the wire. Not of HTTP/2.
    pub interim: Vec<Vec<u8>>,
    /// See there.
    pub request: Vec<u8>,
    /// When its first byte came.
    pub first: Instant,
    /// The body.
    pub body: Body,
}

/// The body of an answer.
pub struct Body {
    incoming: Incoming,
    name: String,
    seen: Rc<RefCell<Seen>>,
    end: Rc<RefCell<Option<hyper::Error>>>,
    /// Fields behind it.
    pub trailers: Option<HeaderMap>,
}

impl Body {
    /// The body of an answer that came from `name`.
    pub(super) fn new(
        incoming: Incoming,
        name: String,
        seen: Rc<RefCell<Seen>>,
        end: Rc<RefCell<Option<hyper::Error>>>,
    ) -> Self {
        Self {
            incoming,
            name,
            seen,
            end,
            trailers: None,
        }
    }

    /// The next piece; `None` at the end. `Err`: it broke off.
    pub async fn next(&mut self, pace: &Pace) -> Result<Option<Bytes>, Fatal> {
        loop {
            let name = &self.name;
            let frame = pace
                .step(self.incoming.frame(), || fault::late(name))
                .await?;
            let frame = match frame {
                None => return Ok(None),
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Err(match &*self.end.borrow() {
                        Some(end) if error.is_canceled() || error.is_closed() => {
                            fault::broken(&self.name, end)
                        }
                        _ => fault::broken(&self.name, &error),
                    });
                }
            };
            match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// Bytes of the body, if the head says so.
    pub fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// Bytes that were sent and received for its request so far.
    pub fn bytes(&self) -> (u64, u64) {
        let seen = self.seen.borrow();
        (seen.sent, seen.received)
    }
}

/// Name and value of each field of a head.
pub fn split(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let lines = head.split(|byte| *byte == b'\n').skip(1);
    lines
        .filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = String::from_utf8_lossy(&line[..colon]).into_owned();
            Some((name, line[colon + 1..].trim_ascii().to_vec()))
        })
        .collect()
}
