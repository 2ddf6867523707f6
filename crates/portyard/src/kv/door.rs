//! The three protocols of the store: calls to bytes, bytes to replies.

mod json;
mod python;
mod xml;

use std::fmt;

use clap::ValueEnum;
use portyard_core::endpoint::{Endpoint, Transport};
use portyard_wire::jsonrpc::Caps;
use portyard_wire::value::Value;

use super::raised::Raised;
use crate::catalog;

/// A protocol that the store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Door {
    /// XML-RPC over HTTP, as Python's xmlrpc has it.
    Xml,
    /// JSON-RPC 2.0, a message on each line.
    Json,
    /// Pickles over Python's multiprocessing.connection.
    Python,
}

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method's name.
    pub method: &'static str,
    /// Its arguments by position.
    pub params: Vec<Value>,
}

/// What a server says to a call.
#[derive(Debug)]
pub struct Reply {
    /// The result, or what went wrong with this call.
    pub outcome: Result<Value, Raised>,
    /// The server closes behind it, and has done nothing with what was sent after the call.
    pub is_last: bool,
}

/// Bytes that are no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nonsense {
    /// It is longer than we take.
    TooLong {
        /// The cap.
        max: usize,
    },
    /// The server takes no request as long as ours.
    TooLarge(String),
    /// The server has no time for us.
    Busy(String),
    /// Python's way to ask for a key.
    WantsKey,
    /// Something else.
    Other(String),
}

/// The replies of one connection, in the order of the calls.
pub enum Replies {
    /// Lines.
    Json(json::Replies),
    /// Messages with their length.
    Python(python::Replies),
    /// Answers of HTTP.
    Xml(xml::Replies),
}

impl Door {
    /// The door that has this port by default.
    pub fn of(endpoint: &Endpoint) -> Option<Self> {
        let (Endpoint::Tcp(at) | Endpoint::Bare(at)) = endpoint else {
            return None;
        };
        let service = catalog::by_port(Transport::Stream, at.port)?;
        [Self::Xml, Self::Json, Self::Python]
            .into_iter()
            .find(|door| door.service() == service)
    }

    /// Where it is when nothing is configured.
    pub fn endpoint(self) -> Endpoint {
        let port = catalog::find(Transport::Stream, self.service()).map_or(0, |row| row.port);
        Endpoint::tcp_loopback(port)
    }

    /// The bytes of a call, to be sent to `endpoint`; an error says what cannot be said this way.
    pub fn encode(self, call: &Call, number: u64, endpoint: &Endpoint) -> Result<Vec<u8>, String> {
        match self {
            Self::Json => json::encode(call, number),
            Self::Python => python::encode(call),
            Self::Xml => xml::encode(call, endpoint),
        }
    }

    /// The replies of a new connection, each of at most `max` bytes.
    pub fn replies(self, max: usize) -> Replies {
        match self {
            Self::Json => Replies::Json(json::Replies::new(max)),
            Self::Python => Replies::Python(python::Replies::new(max)),
            Self::Xml => Replies::Xml(xml::Replies::new(max)),
        }
    }

    /// How it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xml => "xml",
            Self::Json => "json",
            Self::Python => "python",
        }
    }

    const fn service(self) -> &'static str {
        match self {
            Self::Xml => "xml-rpc",
            Self::Json => "json-rpc",
            Self::Python => "python-rpc",
        }
    }
}

impl Replies {
    /// Takes in what arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(replies) => replies.feed(bytes),
            Self::Python(replies) => replies.feed(bytes),
            Self::Xml(replies) => replies.feed(bytes),
        }
    }

    /// The reply to the oldest call without one, which has this number; `None` until more has
    /// arrived. An error is final.
    pub fn next(&mut self, number: u64) -> Result<Option<Reply>, Nonsense> {
        match self {
            Self::Json(replies) => replies.next(number),
            Self::Python(replies) => replies.next(),
            Self::Xml(replies) => replies.next(),
        }
    }

    /// Whether nothing has arrived of the next reply.
    pub fn at_boundary(&self) -> bool {
        match self {
            Self::Json(replies) => replies.at_boundary(),
            Self::Python(replies) => replies.at_boundary(),
            Self::Xml(replies) => replies.at_boundary(),
        }
    }
}

impl fmt::Display for Nonsense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { max } => {
                write!(f, "the answer is longer than {max} bytes (--max-answer)")
            }
            Self::TooLarge(why) => write!(f, "the request is too large for it ({why})"),
            Self::Busy(why) => write!(f, "it is busy ({why}); try again"),
            Self::WantsKey => {
                f.write_str("it wants a key first: --auth python --auth-key-file FILE")
            }
            Self::Other(why) => {
                write!(
                    f,
                    "this is not what the protocol says ({why}); is --door right?"
                )
            }
        }
    }
}

impl Reply {
    /// A reply after which the connection goes on.
    const fn new(outcome: Result<Value, Raised>) -> Self {
        Self {
            outcome,
            is_last: false,
        }
    }
}

/// What a message of `max` bytes may take in memory: more than a list of small numbers does.
fn caps(max: usize) -> Caps {
    Caps {
        size: max.saturating_mul(SIZE_FACTOR),
        batch: 1,
    }
}

const SIZE_FACTOR: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_follows_from_the_port() {
        let door = |text: &str| Door::of(&text.parse().unwrap());
        assert_eq!(door("tcp://[::1]:15000"), Some(Door::Xml));
        assert_eq!(door("somewhere:15001"), Some(Door::Json));
        assert_eq!(door("tcp://127.0.0.1:17000"), Some(Door::Python));
        assert_eq!(door("tcp://127.0.0.1:7007"), None);
        assert_eq!(door("unix:/run/kv.sock"), None);
        for door in [Door::Xml, Door::Json, Door::Python] {
            assert_eq!(Door::of(&door.endpoint()), Some(door));
        }
    }
}
