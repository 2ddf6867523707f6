//! HTTP/1.1 and HTTP/1.0 with hyper.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::header::X_CONTENT_TYPE_OPTIONS;
use hyper::server::conn::http1;
use hyper::{HeaderMap, StatusCode};
use portyard_core::serve::{Connection, Ended};

use super::body::Upgraded;
use super::encode::encode;
use super::finish::NOSNIFF;
use super::io::Io;
use super::problem::Problem;
use super::record;
use super::request::Client;
use super::server::{Call, Exchange, Next, Site};
use super::watch::Watch;

/// Why hyper is left.
enum Turn {
    /// It is done with the connection.
    Done(hyper::Result<()>),
    /// Nothing has gone on for a while.
    Rest,
    /// The next request cannot be served.
    Refuse(Problem),
}

/// Serves a connection, of which `pending` has come already, until it rests or ends. The first request may
/// have `begun` to be answered.
pub async fn serve(
    connection: Connection,
    site: Arc<Site>,
    client: Rc<Client>,
    pending: Vec<u8>,
    begun: Option<Exchange>,
) -> io::Result<Next> {
    let watch = Watch::new(connection.place(), site.options.header.0);
    let call = Call::new(site.clone(), watch.clone(), client, None, begun);
    let added = if site.handler.is_verbatim() {
        TAKES_TRAILERS
    } else {
        b""
    };
    let io = Io::strict(connection, watch.clone(), site.caps(), added, &pending);
    drop(pending);
    let mut hyper = http1::Builder::new()
        .header_read_timeout(None)
        .title_case_headers(true)
        // And the one that is added.
        .max_headers(site.options.max_fields.get() as usize + 1)
        .max_buf_size(BUFFER.max(site.caps().head.saturating_add(added.len() + 1)))
        .serve_connection(io, call);
    let mut leaving = false;
    let turn = poll_fn(|cx| {
        loop {
            if !leaving && leaves(&watch) {
                leaving = true;
                Pin::new(&mut hyper).graceful_shutdown();
            }
            if let Poll::Ready(result) = hyper.poll_without_shutdown(cx) {
                return Poll::Ready(Turn::Done(result));
            }
            let idle = watch.is_idle() && !watch.blocked.get();
            if let Some(error) = watch.refusal.get()
                && idle
            {
                return Poll::Ready(Turn::Refuse(Problem::new(
                    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST),
                    error.to_string(),
                )));
            }
            if watch.place.is_due() {
                match (idle, watch.in_head.get()) {
                    (true, true) => return Poll::Ready(Turn::Refuse(too_slow())),
                    (true, false) if watch.resting.get() => return Poll::Ready(Turn::Rest),
                    // The answers to those before it take long; their peer is not to blame alone.
                    (false, true) => watch.place.wake_in(watch.header),
                    _ => {}
                }
            }
            watch.settle();
            // A request has begun since we looked, and the drain with it.
            if leaving || !leaves(&watch) {
                return Poll::Pending;
            }
        }
    })
    .await;
    let parts = hyper.into_parts();
    let (mut connection, rest, out) = parts.io.into_parts();
    // Answers that waited for others, which now do not come.
    connection.write_all(&out).await?;
    let pending = [&parts.read_buf[..], &rest].concat();
    match turn {
        Turn::Rest => Ok(Next::Rest(connection, pending)),
        Turn::Refuse(problem) => Ok(Next::End(refuse(&mut connection, &site, problem).await?)),
        Turn::Done(result) => {
            let upgrade = watch.upgrade.borrow_mut().take();
            let refused = watch.refusal.get().is_some();
            // Who has not waited for the answer has sent what is no request, and is lost.
            if let (Ok(()), Some(upgrade), false) = (&result, upgrade, refused) {
                let upgraded = Upgraded {
                    connection,
                    pending,
                };
                return Ok(Next::Upgrade(upgrade, upgraded));
            }
            match result {
                Err(error) if !refused => {
                    tracing::debug!(%error, "HTTP/1.1");
                    // hyper has told the peer what it could.
                    connection.finish().await;
                    Ok(Next::End(if error.is_parse() {
                        Ended::Protocol
                    } else {
                        Ended::Broken
                    }))
                }
                _ => {
                    connection.finish().await;
                    Ok(Next::End(if refused {
                        Ended::Protocol
                    } else {
                        Ended::Done
                    }))
                }
            }
        }
    }
}

/// Whether the connection is to end behind what is under way: when the daemon drains, at once where a
/// request is under way, else when the peer has had its chance to send one.
fn leaves(watch: &Watch) -> bool {
    if watch.is_idle() {
        watch.place.finishing()
    } else {
        watch.place.draining()
    }
}

/// What a head that does not come gets.
pub fn too_slow() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "the head of the request came too slowly",
    )
}

/// Tells what is wrong with what is no request, and ends the connection.
pub async fn refuse(
    connection: &mut Connection,
    site: &Site,
    problem: Problem,
) -> io::Result<Ended> {
    connection.count_bad_input();
    site.unrouted.answered(problem.status, Duration::ZERO);
    if site.options.access_log {
        record::refused(connection, &problem);
    }
    tell(connection, problem).await?;
    connection.finish().await;
    Ok(Ended::Protocol)
}

/// Writes an answer to what is no request.
async fn tell(connection: &mut Connection, problem: Problem) -> io::Result<()> {
    let mut response = problem.closing().respond(&HeaderMap::new());
    (response.headers_mut()).insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    let body = response.body().bytes().cloned().unwrap_or_default();
    let mut out = Vec::new();
    encode(&response, &body, Instant::now(), &mut out);
    connection.write_all(&out).await
}

/// Without this field hyper sends no trailers, which clients of those who do are tested with; RFC 9110
/// (6.5.1) lets a server send them to anybody who may do without.
const TAKES_TRAILERS: &[u8] = b"te: trailers\r\n";
/// What is kept of answers for a peer, and read ahead of a body.
const BUFFER: usize = 64 << 10;
