//! Requests and answers over one HTTP/1.1 connection that stays open.
//!
//! A request that has come in whole is answered before the connection closes, whatever the reason: a
//! client that asks again because its connection broke never makes us do something twice.

use std::io;

use portyard_core::serve::{Connection, Ended};
use portyard_wire::http::{Caps, Head, HttpError, ResponseHead};

use crate::state::State;

/// What a protocol over HTTP makes of requests.
pub trait HttpDoor {
    /// What is left of a head when the body is read.
    type Plan;

    /// Looks at the head: goes on, or answers at once without the body.
    fn plan(&self, head: &Head<'_>) -> Result<Self::Plan, Response>;

    /// Answers a request.
    fn answer(&self, plan: Self::Plan, body: &[u8]) -> impl Future<Output = Response>;
}

/// An answer.
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: &'static str,
    /// Further header lines, each with CRLF.
    pub more: &'static str,
    /// The body; `None` where there is none (204).
    pub body: Option<Vec<u8>>,
    /// Whether the request was none that this protocol has.
    pub is_bad_input: bool,
}

impl Response {
    /// A short text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain",
            more: "",
            body: Some(text.into().into_bytes()),
            is_bad_input: false,
        }
    }
}

/// A client's connection.
pub struct Exchange<'a, D> {
    connection: &'a mut Connection,
    door: &'a D,
    state: &'a State,
    max_request: usize,
    /// What has arrived and belongs to no request yet.
    pending: Vec<u8>,
}

/// What a connection does next.
enum Next {
    Request,
    End(Ended),
}

impl<'a, D: HttpDoor> Exchange<'a, D> {
    /// An exchange that begins with bytes that have been read already.
    pub fn new(
        connection: &'a mut Connection,
        door: &'a D,
        state: &'a State,
        max_request: usize,
        pending: Vec<u8>,
    ) -> Self {
        Self {
            connection,
            door,
            state,
            max_request,
            pending,
        }
    }

    /// Serves until one side ends.
    pub async fn run(mut self) -> io::Result<Ended> {
        let ended = loop {
            match self.one().await? {
                Next::Request => {}
                Next::End(ended) => break ended,
            }
        };
        self.connection.finish().await;
        Ok(ended)
    }

    /// Serves one request.
    async fn one(&mut self) -> io::Result<Next> {
        let caps = Caps {
            head: HEAD_MAX,
            fields: FIELDS_MAX,
            body: self.max_request as u64,
        };
        let (length, keep_alive, is_1_0, expects_continue, mut body, plan) = loop {
            match Head::parse(&self.pending, &caps) {
                Ok(Some((head, length))) => {
                    let plan = self.door.plan(&head);
                    break (
                        length,
                        head.keep_alive,
                        !head.is_1_1,
                        head.expects_continue,
                        head.body,
                        plan,
                    );
                }
                Ok(None) => {}
                Err(error) => return self.refuse(error).await,
            }
            if self.connection.read_some(&mut self.pending, READ).await? == 0 {
                return Ok(Next::End(if self.pending.is_empty() {
                    Ended::Done
                } else {
                    Ended::Protocol
                }));
            }
        };
        let plan = match plan {
            Ok(plan) => plan,
            // Its body has not been read, so nothing can follow.
            Err(response) => {
                self.send(&response, false, is_1_0).await?;
                return Ok(Next::End(Ended::Done));
            }
        };
        if expects_continue && !body.is_over() {
            self.connection
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        // Most requests have come in one piece.
        let whole = match body {
            portyard_wire::http::Body::None => Some(0),
            portyard_wire::http::Body::Sized(size) => usize::try_from(size).ok(),
            portyard_wire::http::Body::Chunked(_) => None,
        };
        let (response, end) = match whole {
            Some(size) if self.pending.len() - length >= size => {
                let end = length + size;
                let bytes = &self.pending[length..end];
                self.connection.busy();
                (self.door.answer(plan, bytes).await, end)
            }
            _ => {
                let mut room = self.state.room();
                let mut content = Vec::new();
                let mut taken = length;
                loop {
                    match body.decode(&self.pending[taken..], &mut content) {
                        Ok(more) => taken += more,
                        Err(error) => return self.refuse(error).await,
                    }
                    if body.is_over() {
                        break;
                    }
                    if !room.grow(content.len() as u64 + READ as u64) {
                        let response =
                            Response::text(503, "too many requests are being received\n");
                        self.send(&response, false, is_1_0).await?;
                        return Ok(Next::End(Ended::Done));
                    }
                    self.pending.clear();
                    taken = 0;
                    if self.connection.read_some(&mut self.pending, READ).await? == 0 {
                        return Ok(Next::End(Ended::Protocol));
                    }
                }
                self.connection.busy();
                (self.door.answer(plan, &content).await, taken)
            }
        };
        self.take(end);
        if response.is_bad_input {
            self.connection.count_bad_input();
        }
        // A client that is never silent would be cut in the midst of a request at the end of the
        // grace period.
        let keep_alive = keep_alive && !self.connection.draining();
        self.send(&response, keep_alive, is_1_0).await?;
        Ok(if keep_alive {
            Next::Request
        } else {
            Next::End(Ended::Done)
        })
    }

    /// Lets go of what has been served; an idle connection holds nothing.
    fn take(&mut self, end: usize) {
        if end == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..end);
        }
    }

    async fn refuse(&mut self, error: HttpError) -> io::Result<Next> {
        self.connection.count_bad_input();
        let response = Response::text(error.status(), format!("{error}\n"));
        self.send(&response, false, false).await?;
        Ok(Next::End(Ended::Protocol))
    }

    async fn send(
        &mut self,
        response: &Response,
        keep_alive: bool,
        is_1_0: bool,
    ) -> io::Result<()> {
        let body = response.body.as_deref();
        let mut out = Vec::with_capacity(256 + body.map_or(0, <[u8]>::len));
        let head = ResponseHead {
            status: response.status,
            length: body.map(<[u8]>::len),
            content_type: body.map(|_| response.content_type),
            keep_alive,
            is_1_0,
            more: response.more,
        };
        head.encode(&mut out);
        out.extend_from_slice(body.unwrap_or_default());
        self.connection.write_all(&out).await
    }
}

const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 64;
/// What one read takes at the most.
const READ: usize = 64 << 10;
