//! The tables of rest-api's own, and the options of a listener.

use std::num::NonZeroU32;

use portyard_core::config::{Size, Span};
use serde::{Deserialize, Serialize};

/// The tables of rest-api's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}

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
        }
    }
}

const fn nonzero(value: u32) -> NonZeroU32 {
    match NonZeroU32::new(value) {
        Some(value) => value,
        None => NonZeroU32::MIN,
    }
}
