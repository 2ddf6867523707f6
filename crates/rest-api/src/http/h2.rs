//! HTTP/2 with hyper.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use portyard_core::serve::{Connection, Ended};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep_until};

use super::body::Pull;
use super::io::Io;
use super::remains::Remains;
use super::request::Client;
use super::server::{Call, Site};
use super::watch::Watch;

/// The tasks of one connection's requests; they end with it.
#[derive(Clone)]
struct Tasks {
    tasks: Rc<RefCell<JoinSet<()>>>,
    /// How long a peer may leave an answer untaken.
    stall: Duration,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, request: F) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(unless_stalled(request, self.stall));
    }
}

/// Runs a request, and resets it when the peer opens no window for its answer for so long (zero: for ever): the
/// connection itself goes on, with pings for instance, so nothing else would end it (CVE-2019-9517).
async fn unless_stalled(request: impl Future<Output = ()>, stall: Duration) {
    let mut request = pin!(request);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if request.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match Pull::take() {
            Some(Pull::Given) if !stall.is_zero() => {
                let end = Instant::now() + stall;
                match &mut timer {
                    Some(timer) => timer.as_mut().reset(end),
                    None => timer = Some(Box::pin(sleep_until(end))),
                }
            }
            Some(_) => timer = None,
            None => {}
        }
        let is_over = timer
            .as_mut()
            .is_some_and(|timer| timer.as_mut().poll(cx).is_ready());
        if is_over {
            tracing::debug!("a peer takes nothing of an answer");
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Serves a connection, of which `pending` has come already, to its end.
pub async fn serve(connection: Connection, site: Arc<Site>, pending: Vec<u8>) -> io::Result<Ended> {
    let watch = Watch::new(connection.place(), site.options.header.0);
    let client = Rc::new(Client::of(&connection));
    let remains = Rc::<Remains>::default();
    let call = Call::new(
        site.clone(),
        watch.clone(),
        client,
        Some(remains.clone()),
        None,
    );
    let stall = connection.listener().settings().limits.write_stall.0;
    let io = Io::plain(connection, watch.clone(), pending);
    let header = u32::try_from(site.options.max_header.0).unwrap_or(u32::MAX);
    let tasks = Tasks {
        tasks: Rc::default(),
        stall,
    };
    let mut hyper = http2::Builder::new(tasks)
        .max_concurrent_streams(site.options.streams.get())
        .max_header_list_size(header)
        // A client that opens and resets requests faster than we notice is cut off (CVE-2023-44487),
        // and so is one that makes us reset them (CVE-2025-8671).
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(BUFFER)
        .serve_connection(io, call);
    let mut leaving = false;
    let result = poll_fn(|cx| {
        if !leaving && watch.place.draining() {
            leaving = true;
            Pin::new(&mut hyper).graceful_shutdown();
        }
        let result = Pin::new(&mut hyper).poll(cx);
        remains.run(cx);
        if result.is_pending() {
            watch.settle();
        }
        match result {
            Poll::Pending if !leaving && watch.place.draining() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            result => result,
        }
    })
    .await;
    Ok(match result {
        Ok(()) => Ended::Done,
        Err(error) => {
            tracing::debug!(%error, "HTTP/2");
            Ended::Protocol
        }
    })
}

const RESETS: usize = 20;
/// What a client may send ahead, on one request and on all: enough for 1 Gbit/s over 10 ms.
const WINDOW: u32 = 1 << 20;
/// What is kept of an answer for a peer.
const BUFFER: usize = 64 << 10;
