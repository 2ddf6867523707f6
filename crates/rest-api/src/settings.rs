//! The tables of rest-api's own, and the options of a listener.

use std::num::NonZeroU32;

use hyper::http::uri::Authority;
use portyard_core::config::{Size, Span};
use serde::{Deserialize, Serialize};

use crate::http::CorsConfig;
use crate::httpbin::HttpbinOptions;
use crate::routes::RouteConfig;
use crate::yard::{YardConfig, YardOptions};

/// The tables of rest-api's own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The routes, in the order in which they are tried.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// The daemons that listeners of service `yard` tell of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub yard: Vec<YardConfig>,
}

/// The `[listener.options]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// From the first byte of a request's head to its last.
    pub header: Span,
    /// A request's body has so long to arrive, and longer by its size and `body_rate`.
    pub body: Span,
    /// Each so many bytes of a body give it one more second.
    pub body_rate: Size,
    /// The largest head.
    pub max_header: Size,
    /// Header fields.
    pub max_fields: NonZeroU32,
    /// The longest target.
    pub max_uri: Size,
    /// The largest body, as it comes and when it is decompressed.
    pub max_body: Size,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: NonZeroU32,
    /// The hosts that are served, without ports; empty: whatever a client says.
    pub hosts: Vec<String>,
    /// Compress answers where clients like that.
    pub compress: bool,
    /// Give each request an id, or keep that of its client, and show it in the answer.
    pub request_id: bool,
    /// A log line for each request.
    pub access_log: bool,
    /// How long browsers are told to come by TLS alone; only said over TLS. `"0s"`: nothing is said.
    pub hsts: Span,
    /// Whom browsers let read answers.
    pub cors: CorsConfig,
    /// Of service `httpbin`.
    pub httpbin: HttpbinOptions,
    /// Of service `yard`.
    pub yard: YardOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header: Span::secs(10),
            body: Span::secs(20),
            body_rate: Size(1 << 10),
            max_header: Size(32 << 10),
            max_fields: nonzero(100),
            max_uri: Size(8 << 10),
            max_body: Size(1 << 20),
            streams: nonzero(100),
            hosts: Vec::new(),
            compress: true,
            request_id: true,
            access_log: false,
            hsts: Span::secs(0),
            cors: CorsConfig::default(),
            httpbin: HttpbinOptions::default(),
            yard: YardOptions::default(),
        }
    }
}

impl Options {
    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), String> {
        if self.header.0.is_zero() {
            return Err("options.header = \"0s\" would give nobody time for a request".into());
        }
        for (name, size) in [("max_header", self.max_header), ("max_uri", self.max_uri)] {
            if size.0 < LEAST {
                return Err(format!("options.{name} must be {LEAST} bytes at least"));
            }
        }
        for host in &self.hosts {
            if !host
                .parse::<Authority>()
                .is_ok_and(|name| name.host() == host)
            {
                return Err(format!(
                    "options.hosts: '{host}' is no host; write names and addresses alone, such as \
                     \"www.example\" or \"[::1]\", without port or path"
                ));
            }
        }
        Ok(())
    }
}

/// Less than any client sends.
const LEAST: u64 = 16;

const fn nonzero(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}
