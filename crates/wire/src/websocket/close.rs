//! Why a connection ends (RFC 6455, 7.4).

/// A status code of a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(u16);

impl Code {
    /// What was wanted is done.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer does not keep to the protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// Text is no UTF-8.
    pub const INVALID: Self = Self(1007);
    /// Against the rules here.
    pub const POLICY: Self = Self(1008);
    /// A message is too large.
    pub const TOO_LARGE: Self = Self(1009);

    /// A code that a peer may send. `None`: one that is reserved, undefined or out of range.
    pub fn received(code: u16) -> Option<Self> {
        let may = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        may.then_some(Self(code))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}
