//! JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), from the bytes of a stream to a call and
//! back.
//!
//! A server feeds a [`Decoder`] what arrives. It tells by the first byte how the peer frames its
//! messages ([`Framing`]), and hands them out whole. [`decode`] reads a message and always has an
//! answer: calls, or the errors that the specification asks for. What the calls come to goes into
//! [`Replies`], which knows what must not be answered, and back out through [`Framing::frame`].
//!
//! A client writes with [`encode_request`] and reads with [`decode_response`] or [`decode_batch`].
//!
//! [`json`] is how every [`Value`](crate::value::Value) looks as JSON. What the specification leaves
//! open is decided so:
//!
//! - An id comes back byte for byte as it came, whatever number or string it is.
//! - `"params": null` is no structured value, and so no request. The spelling of a request without
//!   parameters is to leave them out.
//! - A request that names one of its four members twice is none. Other members are ignored.
//! - Parameters that are JSON but cannot be had here (a number beyond 64 bits, two equal keys) are [`INVALID_PARAMS`] under the request's own id.
//! - A lone surrogate, a byte order mark, bytes behind the message and nesting that the stack would
//!   feel are a [`PARSE_ERROR`].

pub mod json;

mod form;
mod id;
mod reader;
mod reply;
mod request;
mod response;
mod scanner;
mod stream;
mod writer;

pub use id::Id;
pub use reply::{Replies, encode_error, encode_result};
pub use request::{Call, Incoming, Item, Params, decode, encode_request};
pub use response::{ErrorObject, Response, ResponseError, decode_batch, decode_response};
pub use stream::{Decoder, Framing, HEADERS_MAX, StreamError};

/// What a message may ask for. The bytes of a message are the [`Decoder`]'s cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes that all values of a message may take in memory, as
    /// [`Value::size`](crate::value::Value::size) counts. The shortest values take some twenty times
    /// their text.
    pub size: usize,
    /// Requests or responses in a batch.
    pub batch: usize,
}

/// The message is no JSON.
pub const PARSE_ERROR: i64 = -32_700;
/// The message is JSON and no request.
pub const INVALID_REQUEST: i64 = -32_600;
/// There is no such method.
pub const METHOD_NOT_FOUND: i64 = -32_601;
/// The parameters are not the method's.
pub const INVALID_PARAMS: i64 = -32_602;
/// The server failed.
pub const INTERNAL_ERROR: i64 = -32_603;
