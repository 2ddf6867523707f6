//! Connections to the server behind a route, kept for a while between two requests.
//!
//! Each loop keeps its own, so that a connection never changes its thread. Nothing runs while it is kept:
//! whether the server has closed it meanwhile is found out when it is taken. One timer for each route and
//! loop, while it is in use, closes what has been kept too long.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use portyard_core::endpoint::Endpoint;
use tokio::time::Instant;

use super::super::config::ProxyConfig;
use super::super::upstream::{Secure, Upstream, broken};
use crate::http::{Body, Problem};

/// The connections of a route.
pub struct Lines {
    to: Endpoint,
    secure: Option<Secure>,
    connect: Duration,
    keep: Keep,
}

/// How many are kept on each loop, for how long, and under which number.
#[derive(Clone, Copy)]
struct Keep {
    route: u64,
    most: usize,
    idle: Duration,
}

/// A connection to the server.
pub struct Line {
    sender: SendRequest<Body>,
    /// What runs it; `None` when it is over.
    connection: Option<Connection>,
    was_kept: bool,
    keep: Keep,
}

/// A request that has got no answer.
pub struct Failed {
    /// Why.
    pub error: hyper::Error,
    /// The request, if nothing of it has been sent.
    pub unsent: Option<Request<Body>>,
}

type Connection = Pin<Box<dyn Future<Output = ()>>>;

impl Lines {
    /// None yet.
    pub fn new(to: Endpoint, secure: Option<Secure>, config: &ProxyConfig) -> Self {
        static ROUTES: AtomicU64 = AtomicU64::new(0);
        Self {
            to,
            secure,
            connect: config.connect.0,
            keep: Keep {
                route: ROUTES.fetch_add(1, Ordering::Relaxed),
                most: config.keep as usize,
                idle: config.idle.0,
            },
        }
    }

    /// Where the server is.
    pub fn to(&self) -> &Endpoint {
        &self.to
    }

    /// One that was kept, or a new one.
    pub async fn take(&self) -> Result<Line, Problem> {
        while let Some(mut line) = taken(self.keep.route) {
            let is_good = poll_fn(|cx| {
                line.run(cx);
                Poll::Ready(line.is_free())
            });
            if is_good.await {
                line.was_kept = true;
                return Ok(line);
            }
        }
        self.open().await
    }

    /// A new one.
    pub async fn open(&self) -> Result<Line, Problem> {
        time(self.keep);
        let stream = Upstream::connect(&self.to, self.secure.as_ref(), self.connect).await?;
        let (sender, connection) = Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| broken())?;
        Ok(Line {
            sender,
            connection: Some(Box::pin(async move {
                let _ = connection.with_upgrades().await;
            })),
            was_kept: false,
            keep: self.keep,
        })
    }
}

impl Line {
    /// Sends a request, and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        let sending = self.sender.try_send_request(request);
        tokio::pin!(sending);
        let connection = &mut self.connection;
        // The connection runs while we wait, and it may be over before its answer has been looked at.
        let answer = poll_fn(|cx| {
            run(connection, cx);
            sending.as_mut().poll(cx)
        });
        answer.await.map_err(|mut failed| Failed {
            unsent: failed.take_message(),
            error: failed.into_error(),
        })
    }

    /// Lets it do what it can.
    pub fn run(&mut self, cx: &mut Context<'_>) {
        run(&mut self.connection, cx);
    }

    /// Whether it had been kept since another request.
    pub fn was_kept(&self) -> bool {
        self.was_kept
    }

    /// Whether it takes a request.
    fn is_free(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Keeps it for another request, if it is good for one and there is room.
    pub fn keep(self) {
        let Keep { route, most, idle } = self.keep;
        if !self.is_free() {
            return;
        }
        KEPT.with_borrow_mut(|all| {
            // Nobody times what has been under way for long; it is not kept.
            if let Some(kept) = all.get_mut(&route)
                && kept.len() < most
            {
                kept.push((Instant::now() + idle, self));
            }
        });
    }
}

fn run(connection: &mut Option<Connection>, cx: &mut Context<'_>) {
    if let Some(running) = connection
        && running.as_mut().poll(cx).is_ready()
    {
        *connection = None;
    }
}

/// The one that was used last.
fn taken(route: u64) -> Option<Line> {
    KEPT.with_borrow_mut(|all| all.get_mut(&route)?.pop().map(|(_, line)| line))
}

/// Has connections of a route closed that are kept too long.
fn time(Keep { route, idle, most }: Keep) {
    let is_new = most > 0
        && KEPT.with_borrow_mut(|all| {
            let is_new = !all.contains_key(&route);
            all.entry(route).or_default();
            is_new
        });
    if is_new {
        // It ends by itself when the route has rested, and with its loop.
        tokio::task::spawn_local(close_old(route, idle));
    }
}

async fn close_old(route: u64, idle: Duration) {
    let mut rested = 0;
    while rested < RESTED {
        tokio::time::sleep(idle / 2).await;
        KEPT.with_borrow_mut(|all| {
            let now = Instant::now();
            let kept = all.entry(route).or_default();
            kept.retain(|(end, _)| *end > now);
            rested = if kept.is_empty() { rested + 1 } else { 0 };
        });
    }
    KEPT.with_borrow_mut(|all| all.remove(&route));
}

thread_local! {
    /// Of this loop, by route: until when, the oldest first.
    static KEPT: RefCell<HashMap<u64, Vec<(Instant, Line)>>> = RefCell::default();
}

/// How often nothing must be kept for the timer to end; each time is half of what one is kept.
const RESTED: u32 = 8;
/// The largest head of an answer.
const BUFFER: usize = 64 << 10;
