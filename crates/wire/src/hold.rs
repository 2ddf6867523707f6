//! Holding sockets: what a peer asks fd-broker for over its control socket, and how one broker hands
//! all it has to its successor.
//!
//! One message a packet (`SOCK_SEQPACKET`), numbers big-endian. Each message begins with
//! [`HEADER_LEN`] bytes, the same as those of a broker's workers: its kind, how many descriptors come
//! beside it (`SCM_RIGHTS`), and in two bytes how many bytes follow.
//!
//! | kind | message | body | descriptors |
//! |---|---|---|---|
//! | `40` | [`Request::List`] | name to go on behind, or an empty one | |
//! | `41` | [`Request::Store`] | u8 flags (1: replace), u8 sockets, u32 seconds (0: for good), name | as said |
//! | `42` | [`Request::Retrieve`] | name | |
//! | `43` | [`Request::Delete`] | name | |
//! | `48` | [`Request::TakeOver`] | | |
//! | `49` | [`Request::Received`] | u32 number of the batch | |
//! | `4a` | [`Request::Serving`] | | |
//! | `c0` | [`Reply::Done`] | | |
//! | `c1` | [`Reply::Listed`] | u8 more, u16 count, entries | |
//! | `c2` | [`Reply::Sockets`] | u8 count, their kinds | as said |
//! | `c3` | [`Reply::Pool`] | u8 mode | |
//! | `c4` | [`Reply::Refused`] | u8 reason, text | |
//! | `c8` | [`Reply::Batch`] | u32 number, u16 count, records | as the records say |
//! | `c9` | [`Reply::Complete`] | u32 batches | |
//! | `ca` | [`Reply::Over`] | u32 batches | |
//!
//! A name is a u8 length and that many bytes, a text a u16 length and UTF-8.
//!
//! A request is answered by one reply, but for the hand-over: after `TakeOver` come `Batch`es of
//! everything that listens, each to be confirmed by `Received` before the next, then `Complete`.
//! The successor opens its listeners with them and says `Serving`; only then does the predecessor
//! stop accepting, and hands on its workers and what still waits in it, again in confirmed `Batch`es, then `Over`.
//! Until the last confirmation the predecessor has everything, and serves on if it does not come.

mod bytes;
mod journal;
mod record;
mod reply;
mod request;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use journal::{Note, replay};
pub use record::{Bound, Held, Origin, Record, Running, SERVED_MAX, Served, Waiting, Worker};
pub use reply::{Entry, Mode, Reason, Reply};
pub use request::Request;

/// Kind, descriptors and length.
pub const HEADER_LEN: usize = 4;
/// The longest message. A list that is longer goes on in the next one.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Sockets that one name can stand for, such as one for IPv4 and one for IPv6.
pub const SOCKETS_MAX: usize = 16;
/// Descriptors of one batch. The kernel takes 253 in a message, C libraries 252.
pub const BATCH_MAX: usize = 200;
/// The longest name.
pub const NAME_MAX: usize = 255;
/// The longest endpoint or name of a listener in a list or a record.
pub const ENDPOINT_MAX: usize = 512;

/// The name of what a broker holds: 1 to [`NAME_MAX`] printable ASCII characters without spaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 255 printable ASCII characters without spaces")]
pub struct BadName;

/// What a socket is, as far as a holder cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A stream socket that listens.
    Stream = 1,
    /// A datagram socket.
    Datagram = 2,
    /// A `SOCK_SEQPACKET` socket that listens.
    Packet = 3,
}

/// Why a packet is no message. Whoever sent it has no further say: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The packet is shorter than it says, or than its kind needs.
    #[error("the message is cut short")]
    Short,
    /// The packet goes on behind its message.
    #[error("{0} bytes stand behind the message")]
    Trailing(usize),
    /// The packet is longer than any message.
    #[error("a message of {0} bytes; at most {MESSAGE_MAX} are taken")]
    Long(usize),
    /// A kind of message that is not expected here.
    #[error("a message of kind {0:#04x} is not expected here")]
    Kind(u8),
    /// Descriptors got lost on the way, or come where none belong.
    #[error("the message came with {came} descriptors where {wanted} are due")]
    Descriptors {
        /// What came.
        came: usize,
        /// What was announced, or what the message needs.
        wanted: usize,
    },
    /// A field holds what it may not.
    #[error("{0} is not valid")]
    Field(&'static str),
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, BadName> {
        let good = (1..=NAME_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(bytes).ok().filter(|_| good);
        text.map(|text| Self(text.into())).ok_or(BadName)
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self, HoldError> {
        match byte {
            1 => Ok(Self::Stream),
            2 => Ok(Self::Datagram),
            3 => Ok(Self::Packet),
            _ => Err(HoldError::Field("the kind of a socket")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stream => "stream",
            Self::Datagram => "datagram",
            Self::Packet => "packet",
        })
    }
}

#[cfg(test)]
mod tests;
