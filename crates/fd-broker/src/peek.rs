//! What was seen of a connection's first bytes, which are still there to be read.

use portyard_wire::broker::Offer;

/// What was seen of a connection's first bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peeked {
    /// The TLS server name.
    pub server_name: Option<String>,
    /// The application protocols of the client hello.
    pub alpn: Vec<Vec<u8>>,
    /// The first bytes themselves.
    pub first_bytes: Vec<u8>,
}

impl Peeked {
    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts it into an offer.
    pub fn describe<'a>(&'a self, offer: &mut Offer<'a>) {
        offer.server_name = self.server_name.as_deref();
        offer.alpn = self.alpn.iter().map(Vec::as_slice).collect();
        offer.first_bytes = &self.first_bytes;
    }
}
