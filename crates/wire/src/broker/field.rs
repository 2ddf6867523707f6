//! The fields in the end of a message, and the reader for them.

use super::BrokerError;

/// The worker's name, in HELLO.
pub const NAME: u8 = 1;
/// The pool's name, in WELCOME.
pub const POOL: u8 = 2;
/// The name of the listener that accepted the connection.
pub const LISTENER: u8 = 3;
/// The peer's address: 4 bytes of IPv4 or 16 of IPv6, then the port in 2; behind an IPv6 address
/// that needs one, the scope in 4.
pub const PEER: u8 = 4;
/// The connection's own address, likewise; absent where the broker would have to ask for it.
pub const LOCAL: u8 = 5;
/// The process at the other end of a Unix socket: user, group and process, 4 bytes each.
pub const USER: u8 = 6;
/// The name in the TLS client hello, where the broker has looked at it.
pub const SERVER_NAME: u8 = 7;
/// One application protocol of the TLS client hello. This field may be repeated.
pub const ALPN: u8 = 8;
/// The first bytes of the connection, where the broker has looked at them. They are still there to
/// be read.
pub const FIRST_BYTES: u8 = 9;

/// Walks through fields: their types and values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    seen: [bool; 256],
}

impl<'a> Fields<'a> {
    /// The fields in `bytes`, which they fill.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            seen: [false; 256],
        }
    }

    /// The next field, or `None` behind the last. A second one of a type is an error, unless it may
    /// be repeated.
    pub fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, BrokerError> {
        let Some((&kind, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        let wrong = BrokerError::Field(kind);
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(wrong)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(wrong)?;
        if self.seen[usize::from(kind)] && kind != ALPN {
            return Err(wrong);
        }
        self.seen[usize::from(kind)] = true;
        self.rest = rest;
        Ok(Some((kind, value)))
    }
}
