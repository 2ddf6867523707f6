//! HTTP: what both ends need of it, and HTTP/1.1 as a server reads and writes it (RFC 9112), strictly: what two programs could understand
//! differently is refused, so that nothing can be smuggled past one of them.
//!
//! [`Head::parse`] reads the head of a request, [`Body`] its body, [`ResponseHead`] writes the head of
//! an answer; [`Checker`] lets only what is right through to another parser. All of them hold lengths
//! and counts against [`Caps`] before anything grows.
//!
//! [`coding`] compresses and decompresses bodies within caps. For a client, [`Challenge`] reads what a
//! server demands, [`digest`] answers it, and [`ContentRange`] says which part of a file has come.

mod body;
pub mod challenge;
mod checker;
pub mod coding;
mod content_range;
pub mod digest;
mod head;
mod response;

pub use body::Body;
pub use challenge::Challenge;
pub use checker::{Checker, Passed};
pub use content_range::ContentRange;
pub use head::{Caps, Head};
pub use response::{ResponseHead, reason};

/// A request that cannot be served; [`status`](Self::status) is its answer, after which the
/// connection is closed, because nobody knows where the next request would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The first line is not `METHOD TARGET HTTP/1.x`.
    #[error("the request line is malformed")]
    RequestLine,
    /// The target holds a character that has no place in one.
    #[error("the target of the request holds a character that must be percent-encoded")]
    Target,
    /// HTTP/2 or something else.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// The head is over its cap, or has too many fields.
    #[error("the head of the request is too large")]
    HeadTooLarge,
    /// A line of the head is not `name: value`, is folded, or does not end in CRLF.
    #[error("a header field is malformed")]
    Field,
    /// HTTP/1.1 without exactly one Host.
    #[error("the request needs exactly one Host")]
    Host,
    /// Several lengths, a length that is no number, or a length beside chunks.
    #[error("the length of the body is ambiguous")]
    Length,
    /// A transfer coding other than chunked.
    #[error("the only transfer coding here is chunked")]
    TransferCoding,
    /// The body is over its cap.
    #[error("the body of the request is too large")]
    BodyTooLarge,
    /// A chunk that is none.
    #[error("a chunk is malformed")]
    Chunk,
}

impl HttpError {
    /// The status code that tells it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::HeadTooLarge => 431,
            Self::TransferCoding => 501,
            Self::BodyTooLarge => 413,
            _ => 400,
        }
    }
}
