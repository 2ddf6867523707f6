//! Requests and answers over one HTTP/1.1 connection that stays open.
//!
//! Requests that have come in together are answered together, in their order; writes among them that
//! follow each other wait for the disk together.
//!
//! A request that has come in whole is answered before the connection closes, whatever the reason: a
//! client that asks again because its connection broke never makes us do something twice. Only one
//! that is behind an answer with `Connection: close` is not looked at, as that answer says.

use std::collections::VecDeque;
use std::io;

use portyard_core::serve::{Connection, Ended};
use portyard_wire::http::{Body, Caps, Head, HttpError, ResponseHead};

use super::{Answer, REPLIES_MAX, UNDER_WAY_MAX, by_now};
use crate::state::State;

/// What a protocol over HTTP makes of requests.
pub trait HttpDoor {
    /// What is left of a head when the body is read.
    type Plan;
    /// A request that was read.
    type Asked;
    /// What a request came to.
    type Told;

    /// Looks at the head: goes on, or answers at once without the body.
    fn plan(&self, head: &Head<'_>) -> Result<Self::Plan, Response>;

    /// Reads a request, or answers it at once.
    fn read(&self, plan: Self::Plan, body: &[u8]) -> Result<Self::Asked, Response>;

    /// Whether it may begin while those before it wait for the disk.
    fn may_follow(&self, asked: &Self::Asked) -> bool;

    /// Begins a request. What it changes is queued when this returns.
    fn begin(&self, asked: Self::Asked) -> Answer<'_, Self::Told>;

    /// Writes the answer to a request.
    fn tell(&self, told: Self::Told) -> Response;
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
pub struct Exchange<'a, D: HttpDoor> {
    connection: &'a mut Connection,
    door: &'a D,
    state: &'a State,
    max_request: usize,
    /// What has arrived.
    pending: Vec<u8>,
    /// Where in it the next request begins.
    at: usize,
    /// Requests that have begun and are not answered, in their order.
    under_way: VecDeque<(Answer<'a, D::Told>, Manner)>,
    /// Answers that are not sent yet.
    out: Vec<u8>,
    /// An answer has said that nothing follows it.
    closes: bool,
}

/// How a client wants its answer.
#[derive(Clone, Copy)]
struct Manner {
    keep_alive: bool,
    is_1_0: bool,
}

/// What comes next on a connection.
enum Next<D: HttpDoor> {
    /// A request.
    Asked(D::Asked, Manner),
    /// A request that is answered without a call.
    Refused(Response, Manner),
    /// A request whose body is not there yet.
    Long(Box<Long<D>>),
    /// Nothing, before more has arrived.
    Nothing,
    /// No request, and nobody knows where the next one would begin.
    Broken(HttpError),
}

/// A request whose body is not there yet.
struct Long<D: HttpDoor> {
    plan: D::Plan,
    body: Body,
    manner: Manner,
    expects_continue: bool,
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
            at: 0,
            under_way: VecDeque::new(),
            out: Vec::new(),
            closes: false,
        }
    }

    /// Serves until one side ends.
    pub async fn run(mut self) -> io::Result<Ended> {
        let ended = loop {
            if let Some(ended) = self.step().await? {
                break ended;
            }
        };
        self.connection.finish().await;
        Ok(ended)
    }

    /// Serves what comes next; says how it ended, if it has.
    async fn step(&mut self) -> io::Result<Option<Ended>> {
        match self.next() {
            Next::Asked(asked, manner) => {
                let full = self.under_way.len() == UNDER_WAY_MAX;
                if !self.under_way.is_empty() && (full || !self.door.may_follow(&asked)) {
                    self.settle().await?;
                }
                if !self.closes {
                    self.begin(asked, manner);
                }
            }
            Next::Refused(response, manner) => {
                self.settle().await?;
                if !self.closes {
                    self.answer(&response, manner);
                }
            }
            Next::Long(long) => {
                self.settle().await?;
                // Boxed, so that the usual connection has no room for it.
                let ended = Box::pin(self.receive(*long)).await?;
                if ended.is_some() {
                    return Ok(ended);
                }
            }
            Next::Nothing => {
                self.settle().await?;
                self.send().await?;
                if !self.closes && !self.read().await? {
                    let ended = if self.pending.is_empty() {
                        Ended::Done
                    } else {
                        Ended::Protocol
                    };
                    return Ok(Some(ended));
                }
            }
            Next::Broken(error) => {
                self.settle().await?;
                return self.refuse(error).await.map(Some);
            }
        }
        if self.closes {
            self.settle().await?;
            self.send().await?;
            return Ok(Some(Ended::Done));
        }
        if self.out.len() >= REPLIES_MAX {
            self.send().await?;
        }
        Ok(None)
    }

    /// Looks at what has arrived.
    fn next(&mut self) -> Next<D> {
        let caps = Caps {
            head: HEAD_MAX,
            fields: FIELDS_MAX,
            body: self.max_request as u64,
        };
        let pending = &self.pending[self.at..];
        let (head, length) = match Head::parse(pending, &caps) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Next::Nothing,
            Err(error) => return Next::Broken(error),
        };
        let mut manner = Manner {
            keep_alive: head.keep_alive,
            is_1_0: !head.is_1_1,
        };
        let plan = match self.door.plan(&head) {
            Ok(plan) => plan,
            Err(response) => {
                // Its body has not been read, so nothing can follow.
                manner.keep_alive = false;
                return Next::Refused(response, manner);
            }
        };
        let size = match head.body {
            Body::None => Some(0),
            Body::Sized(size) => usize::try_from(size).ok(),
            Body::Chunked(_) => None,
        };
        // Most requests have come in one piece.
        let waits = head.expects_continue && !head.body.is_over();
        let body = size.filter(|_| !waits);
        let Some(body) = body.and_then(|size| pending[length..].get(..size)) else {
            let long = Long {
                plan,
                body: head.body,
                manner,
                expects_continue: head.expects_continue,
            };
            self.at += length;
            return Next::Long(Box::new(long));
        };
        let asked = self.door.read(plan, body);
        self.at += length + body.len();
        match asked {
            Ok(asked) => Next::Asked(asked, manner),
            Err(response) => Next::Refused(response, manner),
        }
    }

    /// Receives a body piece by piece, and begins the request.
    async fn receive(&mut self, long: Long<D>) -> io::Result<Option<Ended>> {
        let Long {
            plan,
            mut body,
            manner,
            expects_continue,
        } = long;
        if self.closes {
            return Ok(None);
        }
        if expects_continue && !body.is_over() {
            self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        self.send().await?;
        let mut room = self.state.room();
        let mut content = Vec::new();
        loop {
            match body.decode(&self.pending[self.at..], &mut content) {
                Ok(more) => self.at += more,
                Err(error) => return self.refuse(error).await.map(Some),
            }
            if body.is_over() {
                break;
            }
            if !room.grow(content.len() as u64 + READ as u64) {
                let response = Response::text(503, "too many requests are being received\n");
                let manner = Manner {
                    keep_alive: false,
                    ..manner
                };
                self.answer(&response, manner);
                return Ok(None);
            }
            if !self.read().await? {
                return Ok(Some(Ended::Protocol));
            }
        }
        match self.door.read(plan, &content) {
            Ok(asked) => self.begin(asked, manner),
            Err(response) => self.answer(&response, manner),
        }
        // What it takes in memory counts until it is done.
        self.settle().await?;
        Ok(None)
    }

    /// Reads more; false at the end of the stream.
    async fn read(&mut self) -> io::Result<bool> {
        if self.at == self.pending.len() {
            // An idle connection holds nothing.
            self.pending = Vec::new();
        } else {
            self.pending.drain(..self.at);
        }
        self.at = 0;
        Ok(self.connection.read_some(&mut self.pending, READ).await? > 0)
    }

    fn begin(&mut self, asked: D::Asked, manner: Manner) {
        // Its answer says that nothing follows.
        self.closes = !manner.keep_alive;
        match self.door.begin(asked) {
            Answer::Done(told) if self.under_way.is_empty() => self.tell(told, manner),
            answer => self.under_way.push_back((answer, manner)),
        }
    }

    /// Answers all that is under way. What is known is sent before we wait for what is not.
    async fn settle(&mut self) -> io::Result<()> {
        while let Some((answer, manner)) = self.under_way.pop_front() {
            let told = match answer {
                Answer::Done(told) => told,
                Answer::Waits(mut later) => {
                    if let Some(told) = by_now(&mut later).await {
                        told
                    } else {
                        self.send().await?;
                        // While we work, nothing need move.
                        self.connection.busy();
                        later.await
                    }
                }
            };
            self.tell(told, manner);
            if self.out.len() >= REPLIES_MAX {
                self.send().await?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, told: D::Told, manner: Manner) {
        let response = self.door.tell(told);
        self.answer(&response, manner);
    }

    /// Writes an answer behind those that are not sent yet.
    fn answer(&mut self, response: &Response, manner: Manner) {
        if response.is_bad_input {
            self.connection.count_bad_input();
        }
        // A client that is never silent would be cut in the midst of a request at the end of the
        // grace period.
        let is_last = self.under_way.is_empty() && self.connection.draining();
        let keep_alive = manner.keep_alive && !is_last;
        self.closes |= !keep_alive;
        let body = response.body.as_deref();
        let head = ResponseHead {
            status: response.status,
            length: body.map(<[u8]>::len),
            content_type: body.map(|_| response.content_type),
            keep_alive,
            is_1_0: manner.is_1_0,
            more: response.more,
        };
        self.out.reserve(ANSWER_HEAD + body.map_or(0, <[u8]>::len));
        head.encode(&mut self.out);
        self.out.extend_from_slice(body.unwrap_or_default());
    }

    async fn refuse(&mut self, error: HttpError) -> io::Result<Ended> {
        self.connection.count_bad_input();
        let response = Response::text(error.status(), format!("{error}\n"));
        let manner = Manner {
            keep_alive: false,
            is_1_0: false,
        };
        if !self.closes {
            self.answer(&response, manner);
        }
        self.send().await?;
        Ok(Ended::Protocol)
    }

    /// Sends the answers so far.
    async fn send(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        self.connection.write_all(&out).await
    }
}

const HEAD_MAX: usize = 16 << 10;
const FIELDS_MAX: usize = 64;
/// What one read takes at the most.
const READ: usize = 64 << 10;
/// About what the head of an answer takes.
const ANSWER_HEAD: usize = 128;
