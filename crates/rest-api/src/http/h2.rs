//! HTTP/2 with hyper.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use portyard_core::serve::{Connection, Ended};
use tokio::task::JoinSet;

use super::io::Io;
use super::request::Client;
use super::server::{Call, Site};
use super::watch::Watch;

/// The tasks of one connection's requests; they end with it.
#[derive(Clone, Default)]
struct Tasks(Rc<RefCell<JoinSet<()>>>);

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, request: F) {
        let mut tasks = self.0.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(request);
    }
}

/// Serves a connection, of which `pending` has come already, to its end.
pub async fn serve(connection: Connection, site: Arc<Site>, pending: Vec<u8>) -> io::Result<Ended> {
    let watch = Watch::new(connection.place(), site.options.header.0);
    let client = Rc::new(Client::of(&connection));
    let call = Call::new(site.clone(), watch.clone(), client, None);
    let io = Io::plain(connection, watch.clone(), pending);
    let header = u32::try_from(site.options.max_header.0).unwrap_or(u32::MAX);
    let mut hyper = http2::Builder::new(Tasks::default())
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
