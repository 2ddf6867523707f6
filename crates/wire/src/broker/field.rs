//! The fields in the end of a message, and the reader for them.

use super::BrokerError;

/// The worker's name, in HELLO.
pub const NAME: u8 = 1;
/// The pool's name, in WELCOME; in HELLO the one that the worker means.
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
    /// A bit for each type that has come.
    seen: [u64; 4],
}

impl<'a> Fields<'a> {
    /// The fields in `bytes`, which they fill.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            seen: [0; 4],
        }
    }

    fn step(&mut self, kind: u8) -> Option<&'a [u8]> {
        let (length, rest) = self.rest[1..].split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        self.rest = rest;
        let (seen, bit) = (&mut self.seen[usize::from(kind >> 6)], 1 << (kind & 63));
        let again = *seen & bit != 0;
        *seen |= bit;
        (!again || kind == ALPN).then_some(value)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u8, &'a [u8]), BrokerError>;

    /// The next field. A second one of a type is an error, unless it may be repeated; nothing comes
    /// after an error.
    fn next(&mut self) -> Option<Self::Item> {
        let kind = *self.rest.first()?;
        let value = self.step(kind);
        if value.is_none() {
            self.rest = &[];
        }
        Some(
            value
                .map(|value| (kind, value))
                .ok_or(BrokerError::Field(kind)),
        )
    }
}
