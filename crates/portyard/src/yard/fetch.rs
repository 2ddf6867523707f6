//! Asks a rest-api for the state of the yard.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::connect::Target;
use crate::trust::{Stream, Trust};

/// How to ask.
pub struct Fetcher {
    /// Whom.
    pub target: Target,
    /// TLS and keys.
    pub trust: Trust,
    /// How long it all may take.
    pub timeout: Duration,
    /// What is shown as bearer.
    pub token: Option<String>,
}

impl Fetcher {
    /// What the API tells.
    pub fn fetch(&self) -> Result<Value, Fatal> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.target.failure(&error))?;
        runtime.block_on(async {
            match timeout(self.timeout, self.ask()).await {
                Ok(told) => told,
                Err(_) => Err(self.target.failure(&io::ErrorKind::TimedOut.into())),
            }
        })
    }

    async fn ask(&self) -> Result<Value, Fatal> {
        let stream = self.connect()?;
        let stream = self.trust.begin(&self.target, stream).await?;
        let odd = |why: &dyn std::fmt::Display| {
            let endpoint = &self.target.endpoint;
            let message = format!("{endpoint} does not answer as service yard does: {why}");
            Fatal::new(Exit::Data, message)
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| odd(&error))?;
        let mut request = Request::get("/api/v1/yard")
            .header(HOST, self.host())
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| odd(&error))?;
        let exchange = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| odd(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            let body = body.map_err(|error| odd(&error))?.to_bytes();
            Ok::<_, Fatal>((status, body))
        };
        tokio::pin!(exchange, connection);
        let mut is_over = false;
        let (status, body) = loop {
            tokio::select! {
                answer = &mut exchange => break answer?,
                // What it has read by its end is still told.
                _ = &mut connection, if !is_over => is_over = true,
            }
        };
        let value: Result<Value, _> = serde_json::from_slice(&body);
        if status.is_success() {
            let value = value.map_err(|error| odd(&error))?;
            if !value["daemons"].is_array() {
                return Err(odd(&"it tells of no daemons"));
            }
            return Ok(value);
        }
        // A problem document says what to do.
        let detail = value
            .ok()
            .and_then(|value| value["detail"].as_str().map(String::from));
        let detail = detail.unwrap_or_default();
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                Exit::NoPermission
            }
            _ => Exit::Data,
        };
        let endpoint = &self.target.endpoint;
        Err(Fatal::new(
            exit,
            format!("{endpoint} answers {status}: {detail}"),
        ))
    }

    fn connect(&self) -> Result<Box<dyn Stream>, Fatal> {
        let socket = self.target.stream(self.timeout)?;
        let adopt = || -> io::Result<Box<dyn Stream>> {
            socket.set_nonblocking(true)?;
            Ok(match &self.target.endpoint {
                Endpoint::Unix(_) | Endpoint::Abstract(_) => {
                    Box::new(UnixStream::from_std(socket.into())?)
                }
                _ => Box::new(TcpStream::from_std(socket.into())?),
            })
        };
        adopt().map_err(|error| self.target.failure(&error))
    }

    fn host(&self) -> String {
        match &self.target.endpoint {
            Endpoint::Tcp(at) => at.to_string(),
            _ => "localhost".into(),
        }
    }
}

/// Hundreds of daemons with their figures.
const ANSWER_MAX: usize = 32 << 20;
