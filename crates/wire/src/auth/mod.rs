//! Dialogues that prove a key, before the first byte of a service.
//!
//! | module | who proves | towards whom |
//! |---|---|---|
//! | [`python`] | both, the client first | `multiprocessing.connection` of Python 2.7 and 3.6 on |
//! | [`recipe`] | the client | programs of a few lines |
//! | [`mutual`] | both, the server first | our own programs |
//!
//! Each dialogue is a machine for either end with the same three methods, the trait [`Handshake`].
//! Randomness and keys are arguments: a nonce must come from the system's random source and serve
//! one connection only. A listening end takes all [`Keys`] that are accepted, so that a key can be
//! replaced while both are in use, and the [`Outcome`] names the one that matched. A deadline and a
//! cap on peers that have proved nothing are the caller's.
//!
//! Every proof is compared in constant time, against every key, whichever matches.

mod digest;
mod key;
mod machine;
pub mod mutual;
pub mod python;
pub mod recipe;

use std::sync::Arc;

pub use digest::Digest;
pub use key::{EmptySecret, Key, Keys, NoKeys, Secret};

/// One end of a dialogue that proves a key.
///
/// The caller's loop: send what [`output`](Self::output) gives, read, hand it to
/// [`handle`](Self::handle), and again, until there is an outcome or an error. Output may be due in
/// both cases: it is sent before the service begins, or before the connection is closed.
pub trait Handshake {
    /// Takes in what arrived and says how many bytes of it belong to the dialogue. All of them,
    /// until there is an outcome; the rest is the service's.
    ///
    /// An error is final: every later call returns it again. The machine never holds more than a
    /// message of the dialogue, at most 268 bytes.
    fn handle(&mut self, input: &[u8]) -> Result<usize, AuthError>;

    /// How many bytes must still come before more can be said, 0 once the dialogue is over. Who
    /// reads no more than that reads nothing that is the service's.
    fn wanted(&self) -> usize;

    /// Bytes to send now, each given once.
    fn output(&mut self) -> Option<Vec<u8>>;

    /// What was proved, once everything is.
    fn outcome(&self) -> Option<Outcome>;
}

/// The peer has proved a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The name of the key, as this end's key file calls it.
    pub key: Arc<str>,
    /// The digest of the peer's proof; where only this end proves, the digest of its own.
    pub digest: Digest,
}

/// The dialogue failed. The variant says who is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The peer does not know the key; for a listening end: any of the keys.
    #[error("the peer proved no key that is accepted here")]
    WrongKey,
    /// The peer does not accept our key: one of the two key files is wrong.
    #[error("the peer refused our key; compare the key files of both ends")]
    Refused,
    /// The peer uses or demands a digest that the settings of this end forbid.
    #[error("the peer uses {0}, which min_digest forbids")]
    DigestRefused(Digest),
    /// What this end, or another holder of its key, had sent came back as the peer's own: an
    /// attack.
    #[error("the peer sent back what this end had sent")]
    Reflected,
    /// One end is bound to a TLS session and the other is not.
    #[error("one end binds the proof to its TLS session and the other does not")]
    Binding,
    /// The peer speaks a version that we do not.
    #[error("the peer speaks version {0} of the handshake; version 1 is spoken here")]
    Version(u8),
    /// The peer announced a frame that no dialogue contains. Nothing was allocated for it.
    #[error("the peer announced a frame of {len} bytes; a handshake has at most 256")]
    FrameTooLong {
        /// What was announced.
        len: u64,
    },
    /// The peer sent what the protocol does not allow here.
    #[error("the peer broke the protocol: {0}")]
    Malformed(&'static str),
}

#[cfg(test)]
mod testing;
