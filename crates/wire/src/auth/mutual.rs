//! `portyard-mutual-1`: both ends prove the key, the server first.
//!
//! Three messages of fixed size, so that nothing has to be framed. The client may go on right after
//! the third. All begin with the same four bytes:
//!
//! | byte | what |
//! |---|---|
//! | 0 | version: 1 |
//! | 1 | kind: 1 hello, 2 proof, 3 answer, 4 refusal |
//! | 2 | digest: 1 HMAC-SHA-256 |
//! | 3 | binding: 0 none, 1 the TLS exporter |
//!
//! | message | bytes | after the first four |
//! |---|---|---|
//! | hello, client to server | 44 | 4..12 hint, 12..44 client nonce |
//! | proof, server to client | 68 | 4..36 server nonce, 36..68 server proof |
//! | answer, client to server | 36 | 4..36 client proof |
//! | refusal, server to client in place of the proof | 4 | byte 2 is the reason, byte 3 is 0 |
//!
//! Reasons: 1 no such key, 2 version, 3 binding, 4 anything else. A refusal is not
//! authenticated; it can end a dialogue, as closing the connection can, and nothing else.
//!
//! # What is computed
//!
//! `key` is the shared key, `|` joins. `label` is `"portyard-mutual-1"`.
//!
//! ```text
//! hint         = the first 8 bytes of HMAC-SHA-256(HKDF(label, key, "hint"), client nonce)
//! server key   = HKDF(client nonce | server nonce, key, label | " server proves")
//! client key   = HKDF(client nonce | server nonce, key, label | " client proves")
//! said         = "hmac-sha256" | 0 | hello[0..44] | proof[0..36] | exporter
//! server proof = HMAC-SHA-256(server key, label | 0 | "server" | 0 | said)
//! client proof = HMAC-SHA-256(client key, label | 0 | "client" | 0 | said | server proof)
//! ```
//!
//! HKDF(salt, key, info) is that of RFC 5869 with SHA-256, 32 bytes of output. `exporter` is the 32
//! bytes of `EXPORTER-Channel-Binding` (RFC 9266) where the binding is 1, and nothing where it is 0.
//! TLS 1.2 needs the extended master secret for them to be unique.
//!
//! # What that gives
//!
//! - Reflection: the role is in the proof and in its key, and the kind is in the message. A nonce
//!   that is our own is refused as well.
//! - No oracle: a client computes a proof only after the server's was right, and over both nonces.
//! - Replay: each end has chosen one of the nonces.
//! - Relay: inside TLS the exporter differs between the two sessions of somebody in between. An end
//!   with an exporter demands one and the other way round, so leaving it out is no way out. Outside
//!   TLS whoever carries the bytes can carry them on, and read what follows.
//! - Downgrade: version, digest and binding are demanded, not negotiated, and are in the proof.
//!
//! The hint tells a server with several keys which one is meant, to nobody else, and differs each
//! time. Hint and server proof let whoever connects, or listens in the server's place, try keys at
//! leisure. So keys are random bytes, not words.

use super::digest::{hmac_sha256, hmac_sha256_begins};
use super::{AuthError, Digest, Key, Outcome};
use hkdf::Hkdf;
use zeroize::Zeroizing;

mod client;
mod server;

pub use client::Client;
pub use server::Server;

/// Random bytes that either end needs for one connection.
pub const NONCE_LEN: usize = 32;

/// The 32 bytes of RFC 9266 that only the two ends of one TLS session know.
pub type Exporter = [u8; 32];

const LABEL: &[u8] = b"portyard-mutual-1";
const VERSION: u8 = 1;
const DIGEST: u8 = 1;
const HEADER_LEN: usize = 4;
const HINT_LEN: usize = 8;
const PROOF_LEN: usize = 32;
const HELLO_LEN: usize = HEADER_LEN + HINT_LEN + NONCE_LEN;
/// The part of the server's proof message that is proved by it.
const SERVER_NONCE_END: usize = HEADER_LEN + NONCE_LEN;

/// Byte 1 of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Hello = 1,
    Proof = 2,
    Answer = 3,
    Refusal = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Hello, Self::Proof, Self::Answer, Self::Refusal]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    fn message_len(self) -> usize {
        match self {
            Self::Hello => HELLO_LEN,
            Self::Proof => SERVER_NONCE_END + PROOF_LEN,
            Self::Answer => HEADER_LEN + PROOF_LEN,
            Self::Refusal => HEADER_LEN,
        }
    }

    fn header(self, exporter: Option<&Exporter>) -> [u8; HEADER_LEN] {
        [VERSION, self as u8, DIGEST, u8::from(exporter.is_some())]
    }
}

/// Byte 2 of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reason {
    Key = 1,
    Version = 2,
    Binding = 3,
    Other = 4,
}

impl Reason {
    /// What a client makes of a refusal by a server that speaks `version`.
    fn error(byte: u8, version: u8) -> AuthError {
        match byte {
            1 => AuthError::Refused,
            2 => AuthError::Version(version),
            3 => AuthError::Binding,
            _ => AuthError::Malformed("refused for a reason without a name"),
        }
    }
}

/// Version and kind, given the kind that is due and the kinds that only this end sends.
fn check_header(message: &[u8], due: Kind, own: &[Kind]) -> Result<(), AuthError> {
    let &[version, kind, ..] = message else {
        return Err(AuthError::Malformed("a message without a header"));
    };
    if version != VERSION {
        return Err(AuthError::Version(version));
    }
    match Kind::from_byte(kind) {
        Some(kind) if kind == due => Ok(()),
        Some(kind) if own.contains(&kind) => Err(AuthError::Reflected),
        _ => Err(AuthError::Malformed("a message of another kind is due")),
    }
}

/// What the first four bytes of a hello, proof or answer must say.
fn check_settings(message: &[u8], exporter: Option<&Exporter>) -> Result<(), AuthError> {
    match message {
        [_, _, digest, ..] if *digest != DIGEST => Err(AuthError::Malformed(
            "a digest that does not exist in version 1",
        )),
        [_, _, _, 0, ..] if exporter.is_none() => Ok(()),
        [_, _, _, 1, ..] if exporter.is_some() => Ok(()),
        [_, _, _, 0 | 1, ..] => Err(AuthError::Binding),
        _ => Err(AuthError::Malformed("a binding that does not exist")),
    }
}

/// The nonce that ends a hello, or the part of a proof up to its nonce.
fn trailing_nonce(message: &[u8]) -> &[u8] {
    &message[message.len() - NONCE_LEN..]
}

fn hint_key(key: &Key) -> Zeroizing<[u8; 32]> {
    derived(LABEL, key, b"hint")
}

fn hint(key: &Key, client_nonce: &[u8]) -> Vec<u8> {
    let mut hint = hmac_sha256(&*hint_key(key), &[client_nonce]);
    hint.truncate(HINT_LEN);
    hint
}

fn hint_matches(key: &Key, client_nonce: &[u8], hint: &[u8]) -> bool {
    hmac_sha256_begins(&*hint_key(key), &[client_nonce], hint)
}

/// What both ends have said before the server proves: the proofs are over it.
#[derive(Debug)]
struct Said {
    /// The client's nonce, then the server's.
    nonces: Vec<u8>,
    said: Vec<u8>,
}

impl Said {
    /// `offer` is the server's message without its proof.
    fn new(hello: &[u8], offer: &[u8], exporter: Option<&Exporter>) -> Self {
        let exporter: &[u8] = exporter.map_or(&[], |bytes| bytes);
        Self {
            nonces: [trailing_nonce(hello), trailing_nonce(offer)].concat(),
            said: [b"hmac-sha256\0", hello, offer, exporter].concat(),
        }
    }

    fn server_proof(&self, key: &Key) -> Vec<u8> {
        hmac_sha256(&*self.server_key(key), &self.server_parts())
    }

    fn server_proved(&self, key: &Key, proof: &[u8]) -> bool {
        proof.len() == PROOF_LEN
            && hmac_sha256_begins(&*self.server_key(key), &self.server_parts(), proof)
    }

    fn client_proof(&self, key: &Key, server_proof: &[u8]) -> Vec<u8> {
        hmac_sha256(&*self.client_key(key), &self.client_parts(server_proof))
    }

    fn client_proved(&self, key: &Key, server_proof: &[u8], proof: &[u8]) -> bool {
        let parts = self.client_parts(server_proof);
        proof.len() == PROOF_LEN && hmac_sha256_begins(&*self.client_key(key), &parts, proof)
    }

    fn server_key(&self, key: &Key) -> Zeroizing<[u8; 32]> {
        derived(&self.nonces, key, b"portyard-mutual-1 server proves")
    }

    fn client_key(&self, key: &Key) -> Zeroizing<[u8; 32]> {
        derived(&self.nonces, key, b"portyard-mutual-1 client proves")
    }

    fn server_parts(&self) -> [&[u8]; 3] {
        [LABEL, b"\0server\0", &self.said]
    }

    fn client_parts<'a>(&'a self, server_proof: &'a [u8]) -> [&'a [u8]; 4] {
        [LABEL, b"\0client\0", &self.said, server_proof]
    }
}

#[expect(clippy::expect_used, reason = "HKDF gives up to 8160 bytes")]
fn derived(salt: &[u8], key: &Key, info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<sha2::Sha256>::new(Some(salt), key.secret().expose())
        .expand(info, &mut *out)
        .expect("32 bytes are less than HKDF's limit of 8160");
    out
}

fn outcome(key: &Key) -> Outcome {
    Outcome {
        key: key.name().clone(),
        digest: Digest::Sha256,
    }
}

#[cfg(test)]
mod tests;
