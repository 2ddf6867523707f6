//! Asks an admin endpoint: a few requests on one connection, within a deadline and a cap.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use portyard_core::endpoint::Endpoint;
use tokio::time::timeout;

use crate::routes::Upstream;

/// An answer.
#[derive(Debug)]
pub struct Said {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Sends requests (method, path, body) one after the other, all within a time; what each was answered, or in one sentence
/// why not. The connection is closed in the end.
pub async fn ask<const N: usize>(
    endpoint: &Endpoint,
    requests: [(Method, &'static str, String); N],
    within: Duration,
    max: usize,
) -> Result<[Said; N], String> {
    let asking = async {
        let stream = Upstream::open(endpoint)
            .await
            .map_err(|error| why(&error))?;
        let broken = |error: hyper::Error| format!("it does not speak HTTP as it should: {error}");
        let (mut sender, connection) = Builder::new()
            .max_buf_size(BUFFER)
            .handshake::<_, String>(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let exchange = async move {
            let mut all = Vec::with_capacity(N);
            for request in requests {
                all.push(exchange(&mut sender, request, max).await?);
            }
            // One for each request.
            <[Said; N]>::try_from(all).map_err(|_| "it has not answered everything".to_owned())
        };
        drive(exchange, connection).await
    };
    match timeout(within, asking).await {
        Ok(answers) => answers,
        Err(_) => Err(format!("it has not answered within {within:?}")),
    }
}

async fn exchange(
    sender: &mut SendRequest<String>,
    (method, path, body): (Method, &'static str, String),
    max: usize,
) -> Result<Said, String> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = hyper::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    let broken = |error: hyper::Error| format!("it has broken off: {error}");
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = collect(answer.into_body(), max).await?;
    Ok(Said { status, body })
}

async fn collect(mut body: Incoming, max: usize) -> Result<Bytes, String> {
    let mut all = Vec::new();
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return Ok(all.into()),
            Some(Err(error)) => return Err(format!("it has broken off: {error}")),
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if all.len().saturating_add(data.len()) > max {
                    return Err(format!("its answer has more than {max} bytes"));
                }
                all.extend_from_slice(&data);
            }
        }
    }
}

/// Runs the connection for as long as the exchange needs it.
async fn drive<T>(
    exchange: impl Future<Output = T>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> T {
    tokio::pin!(exchange, connection);
    let mut is_over = false;
    poll_fn(|cx| {
        // What it has read by its end is still told.
        if !is_over && connection.as_mut().poll(cx).is_ready() {
            is_over = true;
        }
        exchange.as_mut().poll(cx)
    })
    .await
}

fn why(error: &io::Error) -> String {
    if error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32) {
        return "the sandbox of rest-api's unit lets it reach Unix sockets alone; use \
                admin = \"unix:/run/DAEMON/admin.sock\", or a drop-in as the unit's head says"
            .into();
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            "nothing listens there; is it running?".into()
        }
        io::ErrorKind::PermissionDenied => {
            "rest-api's user may not use its socket; see the mode of the file and its directory"
                .into()
        }
        _ => format!("cannot connect: {error}"),
    }
}

const BUFFER: usize = 64 << 10;
