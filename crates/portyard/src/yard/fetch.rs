//! Asks a rest-api for the state of the yard.

use std::fmt::Display;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode, Uri};
use indicatif::ProgressBar;
use portyard_core::endpoint::Endpoint;
use portyard_core::exit::{Exit, Fatal};
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use zeroize::Zeroizing;

use crate::connect::Target;
use crate::http::content::Content;
use crate::http::link::{Asked, Link, dial};
use crate::http::pace::Pace;
use crate::trust::Trust;

/// How to ask.
pub struct Fetcher {
    /// Whom.
    pub target: Target,
    /// TLS and keys.
    pub trust: Trust,
    /// How long it all may take.
    pub timeout: Duration,
    /// What is shown as bearer.
    pub token: Option<Zeroizing<String>>,
}

impl Fetcher {
    /// What the API tells.
    pub fn fetch(&self) -> Result<Value, Fatal> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.target.failure(&error))?;
        LocalSet::new().block_on(&runtime, self.ask())
    }

    async fn ask(&self) -> Result<Value, Fatal> {
        let endpoint = &self.target.endpoint;
        let odd = |why: &dyn Display| {
            let message = format!("{endpoint} does not answer as service yard does: {why}");
            Fatal::new(Exit::Data, message)
        };
        let pace = Pace {
            step: self.timeout,
            end: Some((Instant::now() + self.timeout, self.timeout)),
        };
        let late = || self.target.failure(&std::io::ErrorKind::TimedOut.into());
        let stream = dial(&self.target, self.timeout)?;
        let begun = self.trust.begin(&self.target, stream);
        let stream = pace.step(begun, late).await??;
        let mut link = Link::open(stream, false, endpoint, HEAD_MAX).await?;
        let mut fields = vec![
            ("Host".into(), self.host().into()),
            ("Accept".into(), b"application/json".to_vec()),
        ];
        if let Some(token) = &self.token {
            let value = format!("Bearer {}", **token).into();
            fields.push(("Authorization".into(), value));
        }
        let asked = Asked {
            method: &Method::GET,
            uri: &Uri::from_static("/api/v1/yard"),
            fields: &fields,
            body: Content::default().open(ProgressBar::hidden())?,
        };
        let answered = link.send(asked, &pace).await;
        let mut answer = answered.map_err(|failure| failure.fatal)?;
        let mut body = Vec::new();
        while let Some(bytes) = answer.body.next(&pace).await? {
            if bytes.len() > ANSWER_MAX.saturating_sub(body.len()) {
                return Err(odd(&"it tells too much"));
            }
            body.extend_from_slice(&bytes);
        }
        let status = answer.status;
        let value: Result<Value, _> = serde_json::from_slice(&body);
        if status.is_success() {
            let value = value.map_err(|error| odd(&error))?;
            if !value["daemons"].is_array() {
                return Err(odd(&"it tells of no daemons"));
            }
            return Ok(value);
        }
        // A problem document says what to do, but not that there is no such page.
        let detail = value
            .ok()
            .filter(|_| status != StatusCode::NOT_FOUND)
            .and_then(|value| value["detail"].as_str().map(String::from));
        let detail = detail.unwrap_or_else(|| {
            "is it a rest-api's listener of service yard? Without a configuration that is tcp://127.0.0.1:18082"
                .into()
        });
        let exit = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                Exit::NoPermission
            }
            _ => Exit::Data,
        };
        Err(Fatal::new(
            exit,
            format!("{endpoint} answers {status}: {detail}"),
        ))
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
const HEAD_MAX: u32 = 64 << 10;
