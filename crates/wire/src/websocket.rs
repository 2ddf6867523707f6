//! WebSocket (RFC 6455), the server's side: the opening handshake's proof, frames, and a machine that
//! makes messages of bytes.
//!
//! [`Machine`] takes what comes and gives [`Event`]s; [`frame`] writes what goes out. Of extensions
//! permessage-deflate is spoken ([`deflate`]) where it was agreed on; a frame that uses another is a fault.

mod close;
pub mod deflate;
mod frame;
mod machine;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

pub use close::Code;
pub use frame::{CONTROL_MAX, Header, Opcode, write, write_compressed};
pub use machine::{Event, Fault, Limits, Machine};

/// The value of `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
///
/// The key must be 16 bytes in base64, whatever they are.
pub fn accept(key: &str) -> Option<String> {
    let key = key.trim();
    let bytes = STANDARD.decode(key).ok()?;
    if bytes.len() != 16 {
        return None;
    }
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    Some(STANDARD.encode(hash))
}

/// RFC 6455, 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfcs_example() {
        let accepted = accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j"] {
            assert_eq!(accept(key), None, "{key}");
        }
    }
}
