//! The access log: one line for each request, once its answer is over.

use std::rc::Rc;
use std::time::Instant;

use hyper::header::{HOST, REFERER, USER_AGENT};
use hyper::{StatusCode, Version};

use portyard_core::serve::Connection;

use super::Problem;
use super::request::{Client, Head};

/// What is known of a request by the time its answer begins. The line is written when it is dropped.
pub struct Record {
    head: Rc<Head>,
    client: Rc<Client>,
    status: StatusCode,
    started: Instant,
    /// Bytes of the body so far.
    pub sent: u64,
    /// Whether the answer was sent to its end.
    pub is_whole: bool,
}

impl Record {
    /// A record of a request that begins to be answered.
    pub fn new(head: Rc<Head>, client: Rc<Client>, status: StatusCode, started: Instant) -> Self {
        Self {
            head,
            client,
            status,
            started,
            sent: 0,
            is_whole: false,
        }
    }

    /// All of the answer, with a body of so many bytes, has been made.
    pub fn made(&mut self, bytes: usize) {
        self.sent = bytes as u64;
    }

    /// It has been sent, too.
    pub fn sent(mut self) {
        self.is_whole = true;
    }
}

/// Tells of what is no request, and so has no record.
pub fn refused(connection: &Connection, problem: &Problem) {
    tracing::info!(
        target: "rest_api::access",
        listener = %connection.listener().name, peer = %connection.peer(),
        status = problem.status.as_u16(), why = %problem.detail, "refused"
    );
}

impl Drop for Record {
    fn drop(&mut self) {
        let Self { head, client, .. } = self;
        let text = |name| {
            let value = head.headers.get(name);
            value.map_or(String::new(), |value| {
                String::from_utf8_lossy(value.as_bytes()).into()
            })
        };
        let version = match head.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        };
        // Fields are escaped by the log.
        tracing::info!(
            target: "rest_api::access",
            listener = %client.listener.name, peer = %client.peer, method = %head.method,
            target = %head.uri, version, host = text(HOST), status = self.status.as_u16(),
            bytes = self.sent, whole = self.is_whole,
            milliseconds = self.started.elapsed().as_secs_f64() * 1e3,
            id = head.id(),
            user = head.user.get().map_or("", |user| &user.name), agent = text(USER_AGENT),
            referer = text(REFERER), "request"
        );
    }
}
