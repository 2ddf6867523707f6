//! A connection to a server, and one request after another on it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, HeaderValue, PROXY_AUTHORIZATION};
use hyper::rt::Executor;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_local;
use tokio::time::sleep_until;

use super::answer::{Answer, Body, split};
use super::content::Outgoing;
use super::fault::{FIELDS_MAX, broken, is_broken_off, late};
use super::pace::Pace;
use super::tap::{Seen, Tap};
use crate::connect::Target;
use crate::trust::Stream;

/// A connection that takes requests. Needs a `LocalSet` around it, in which it is driven.
pub struct Link {
    sender: Sender,
    seen: Rc<RefCell<Seen>>,
    /// Why the connection ended, if it did.
    end: Rc<RefCell<Option<hyper::Error>>>,
    name: String,
    max_header: u32,
    has_served: bool,
    /// A proxy is at the other end.
    is_proxy: bool,
    /// Who we are to it.
    authorization: Option<HeaderValue>,
}

enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

/// A request, ready to be sent.
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// Scheme, authority, path and query.
    pub uri: &'a Uri,
    /// The fields, with names as they are to be spelled; the first is Host.
    pub fields: &'a [(String, Vec<u8>)],
    /// The body.
    pub body: Outgoing,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    /// What to tell.
    pub fatal: Fatal,
    /// Whether the server has certainly not begun with the request.
    pub is_unsent: bool,
    /// Whether it may be otherwise a little later.
    pub is_passing: bool,
}

/// Connects to a target.
pub fn dial(target: &Target, within: Duration) -> Result<Box<dyn Stream>, Fatal> {
    let socket = target.stream(within)?;
    let adopt = || -> io::Result<Box<dyn Stream>> {
        socket.set_nonblocking(true)?;
        Ok(match &target.endpoint {
            Endpoint::Unix(_) | Endpoint::Abstract(_) => {
                Box::new(UnixStream::from_std(socket.into())?)
            }
            _ => Box::new(TcpStream::from_std(socket.into())?),
        })
    };
    adopt().map_err(|error| target.failure(&error))
}

impl Link {
    /// Speaks HTTP/1.1, or HTTP/2, over a stream to `name`; a head of an answer may have `max_header`
    /// bytes.
    pub async fn open(
        stream: Box<dyn Stream>,
        is_http2: bool,
        name: impl fmt::Display,
        max_header: u32,
    ) -> Result<Self, Fatal> {
        let (tap, seen) = Tap::new(stream);
        let io = TokioIo::new(tap);
        let end = Rc::new(RefCell::new(None));
        let name = name.to_string();
        let cap = max_header as usize;
        let sender = if is_http2 {
            let shaken = http2::Builder::new(Local)
                .max_header_list_size(max_header)
                .adaptive_window(true)
                .handshake(io)
                .await;
            let (sender, connection) = shaken.map_err(|error| broken(&name, &error))?;
            drive(connection, &end);
            Sender::Http2(sender)
        } else {
            let shaken = http1::Builder::new()
                .max_headers(FIELDS_MAX)
                .max_header_size(cap)
                .max_buf_size(cap.max(BUFFER_MIN))
                .handshake(io)
                .await;
            let (sender, connection) = shaken.map_err(|error| broken(&name, &error))?;
            drive(connection, &end);
            Sender::Http1(sender)
        };
        Ok(Self {
            sender,
            seen,
            end,
            name,
            max_header,
            has_served: false,
            is_proxy: false,
            authorization: None,
        })
    }

    /// From here on a proxy is asked, for whole URLs.
    pub fn go_by_proxy(&mut self, authorization: Option<&str>) {
        self.is_proxy = true;
        // Base64 is text that any field can hold.
        self.authorization = authorization.and_then(|text| text.parse().ok());
    }

    /// Whether it speaks HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Whether it takes another request.
    pub async fn is_ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request and returns its answer when its head is there. The server must take a piece of
    /// the body in each step, and then answer in one.
    pub async fn send(&mut self, asked: Asked<'_>, pace: &Pace) -> Result<Answer, Failure> {
        let is_reused = std::mem::replace(&mut self.has_served, true);
        let feed = asked.body.feed();
        let request = self.request(asked).map_err(Failure::lasting)?;
        let started = Instant::now();
        let answering = match &mut self.sender {
            Sender::Http1(sender) => Either::One(sender.send_request(request)),
            Sender::Http2(sender) => Either::Two(sender.send_request(request)),
        };
        let answering = async {
            match answering {
                Either::One(answering) => answering.await,
                Either::Two(answering) => answering.await,
            }
        };
        let latest = || {
            let seen = self.seen.borrow();
            let taken = feed.taken.get();
            match &self.sender {
                // A head that has begun must end, however slowly it comes.
                Sender::Http1(_) if seen.first.is_some() => seen.first,
                Sender::Http1(_) => taken.max(seen.sent_at),
                Sender::Http2(_) => taken,
            }
            .unwrap_or(started)
        };
        let answered = active(answering, pace, latest).await;
        let trouble = feed.trouble.borrow_mut().take();
        match answered {
            Some(Ok(response)) => Ok(self.answer(response, started)),
            _ if trouble.is_some() => {
                let message = trouble.unwrap_or_default();
                Err(Failure::lasting(Fatal::new(Exit::Io, message)))
            }
            Some(Err(error)) => {
                let has_answered = self.seen.borrow().first.is_some();
                Err(Failure {
                    fatal: self.told(&error),
                    // A server may close a connection that rests just when it is used again.
                    is_unsent: error.is_canceled()
                        || (is_reused && !has_answered && is_broken_off(&error)),
                    is_passing: is_broken_off(&error),
                })
            }
            None => Err(Failure {
                fatal: pace.late(|| late(&self.name)),
                is_unsent: false,
                is_passing: true,
            }),
        }
    }

    fn request(&mut self, asked: Asked<'_>) -> Result<Request<Outgoing>, Fatal> {
        // Where a body is expected, some servers want to be told that there is none (RFC 9110, 8.6).
        let tells_nothing = asked.body.is_end_stream()
            && [Method::POST, Method::PUT, Method::PATCH].contains(asked.method);
        let mut request = Request::new(asked.body);
        *request.method_mut() = asked.method.clone();
        let is_http2 = self.is_http2();
        let wrong = |error: &dyn fmt::Display| {
            Fatal::new(Exit::Usage, format!("the request cannot be sent: {error}"))
        };
        let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = if is_http2 {
            // What HTTP/1.1 says in Host.
            let mut parts = asked.uri.clone().into_parts();
            let host = asked.fields.iter();
            let mut host = host.filter(|(name, _)| name.eq_ignore_ascii_case("host"));
            if let Some((_, host)) = host.next() {
                let host = hyper::http::uri::Authority::try_from(&host[..]);
                parts.authority = Some(host.map_err(|error| wrong(&error))?);
            }
            Uri::from_parts(parts).map_err(|error| wrong(&error))?
        } else if let Some(authority) = asked.uri.authority().filter(|_| self.is_proxy) {
            // Without a user, who is the server's.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            let whole = format!("http://{host}{path}");
            whole.parse().map_err(|error| wrong(&error))?
        } else {
            path.parse().map_err(|error| wrong(&error))?
        };
        let mut names = vec!["Content-Length".into(), "Transfer-Encoding".into()];
        if let Some(authorization) = &self.authorization {
            names.push("Proxy-Authorization".into());
            let fields = request.headers_mut();
            fields.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        for (name, value) in asked.fields {
            names.push(name.clone());
            if is_http2 && is_of_connection(name) {
                continue;
            }
            let name = name.parse::<hyper::header::HeaderName>();
            let name = name.map_err(|error| wrong(&error))?;
            let value = HeaderValue::from_bytes(value);
            request
                .headers_mut()
                .append(name, value.map_err(|error| wrong(&error))?);
        }
        if tells_nothing {
            let nothing = HeaderValue::from_static("0");
            request.headers_mut().insert(CONTENT_LENGTH, nothing);
        }
        let mut seen = self.seen.borrow_mut();
        if is_http2 {
            seen.begin_opaque();
        } else {
            // Interim answers beside the final one.
            seen.begin(names, 2 * self.max_header as usize);
        }
        drop(seen);
        Ok(request)
    }

    fn answer(&self, response: Response<Incoming>, started: Instant) -> Answer {
        let (head, incoming) = response.into_parts();
        let mut seen = self.seen.borrow_mut();
        let mut heads = std::mem::take(&mut seen.answers);
        let fields = match heads.pop() {
            Some(last) if !self.is_http2() => split(&last),
            _ => {
                let fields = head.headers.iter();
                fields
                    .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                    .collect()
            }
        };
        let reason = match head.extensions.get::<ReasonPhrase>() {
            Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
            None if self.is_http2() => String::new(),
            None => head.status.canonical_reason().unwrap_or_default().into(),
        };
        let first = match &self.sender {
            Sender::Http1(_) => seen.first.unwrap_or(started),
            // Its first bytes are about the connection.
            Sender::Http2(_) => Instant::now(),
        };
        Answer {
            version: head.version,
            status: head.status,
            reason,
            fields,
            headers: head.headers,
            interim: heads,
            request: std::mem::take(&mut seen.request),
            first,
            body: Body::new(
                incoming,
                self.name.clone(),
                Rc::clone(&self.seen),
                Rc::clone(&self.end),
            ),
        }
    }

    /// The reason of an error may be with the connection rather than with the request.
    fn told(&self, error: &hyper::Error) -> Fatal {
        match &*self.end.borrow() {
            Some(end) if error.is_canceled() || error.is_closed() => broken(&self.name, end),
            _ => broken(&self.name, error),
        }
    }
}

impl Failure {
    /// Which another try would meet again.
    pub fn lasting(fatal: Fatal) -> Self {
        Self {
            fatal,
            is_unsent: true,
            is_passing: false,
        }
    }

    /// Before a request could be sent.
    pub fn unsent(fatal: Fatal) -> Self {
        let is_passing = matches!(fatal.exit, Exit::TempFail | Exit::Unavailable | Exit::Io);
        Self {
            fatal,
            is_unsent: true,
            is_passing,
        }
    }
}

enum Either<A, B> {
    One(A),
    Two(B),
}

/// Runs the tasks of HTTP/2 on this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

fn drive(
    connection: impl Future<Output = hyper::Result<()>> + 'static,
    end: &Rc<RefCell<Option<hyper::Error>>>,
) {
    let end = Rc::clone(end);
    spawn_local(async move {
        if let Err(error) = connection.await {
            *end.borrow_mut() = Some(error);
        }
    });
}

/// Waits as long as `latest`, when something moved, is no step ago; `None`: that was too long.
async fn active<T>(
    work: impl Future<Output = T>,
    pace: &Pace,
    latest: impl Fn() -> Instant,
) -> Option<T> {
    let mut work = pin!(work);
    loop {
        let deadline = pace.deadline(latest());
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = sleep_until(deadline.into()) => {
                if pace.deadline(latest()) <= Instant::now() {
                    return None;
                }
            }
        }
    }
}

/// RFC 9113, 8.2.2, and what `:authority` says there.
fn is_of_connection(name: &str) -> bool {
    let names = [
        "connection",
        "keep-alive",
        "upgrade",
        "te",
        "host",
        "proxy-connection",
    ];
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// What hyper demands at least, and what makes large bodies cheap.
const BUFFER_MIN: usize = 256 << 10;
