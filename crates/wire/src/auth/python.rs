//! The authkey dialogue of Python's `multiprocessing.connection`, both ends and both dialects.
//!
//! What `Listener(address, authkey=…).accept()` and `Client(address, authkey=…)` say before the
//! first object (cpython `Lib/multiprocessing/connection.py`, `deliver_challenge` and
//! `answer_challenge`; the order has not changed since 2.6). Each message is framed as
//! [`Framing::Python`](crate::framing::Framing::Python) and has at most 256 bytes:
//!
//! | # | from | up to 3.11 | from 3.12 |
//! |---|---|---|---|
//! | 1 | listener | `#CHALLENGE#`, 20 random bytes | `#CHALLENGE#{sha256}`, 40 random bytes |
//! | 2 | client | 16 bytes: HMAC-MD5 | `{sha256}`, HMAC-SHA-256 |
//! | 3 | listener | `#WELCOME#` or `#FAILURE#` | the same |
//! | 4 | client | as 1 | as 1 |
//! | 5 | listener | as 2 | as 2 |
//! | 6 | client | as 3 | as 3 |
//!
//! The HMAC is over everything after `#CHALLENGE#`, the name in braces included. The answering end
//! chooses the dialect:
//!
//! | after `#CHALLENGE#` | answer |
//! |---|---|
//! | fewer than 20 bytes | none: refused |
//! | exactly 20, even with a name in front | raw HMAC-MD5, if [`MinDigest`] allows it |
//! | `{md5}`, `{sha256}`, `{sha384}`, `{sha3_256}`, `{sha3_384}` and anything | that name, that HMAC |
//! | anything else | none: refused |
//!
//! | answer | verdict |
//! |---|---|
//! | 16 bytes | HMAC-MD5 whatever was offered, if [`MinDigest`] allows it |
//! | 20 bytes | wrong: never as long as any digest |
//! | one of the five names and an HMAC of its length | right when it is |
//! | anything else | wrong |
//!
//! A wrong answer is answered with `#FAILURE#`, a wrong challenge with nothing. We always offer
//! `{sha256}` and 40 bytes: old peers take all 48 for the random bytes.
//!
//! # Two things that Python does not do
//!
//! A Python client answers whoever it connected to, and would answer its own challenge: a listener
//! without the key hands it to a second connection of the same client and is welcomed. So our
//! [`Client`] marks its challenges. Of the 40 bytes 24 are random and 16 are an HMAC over them,
//! under the key and a label of their own; to everybody else they look alike. A challenge with that
//! mark is refused on any connection, in any process, that has the same key.
//!
//! And the digest has a lower bound of our own choice, where Python takes an MD5 answer to any
//! offer.
//!
//! Neither stops a listener without the key that passes the challenge of a real one on to a client
//! and its answer back: nothing in the dialogue says which connection is meant. On a network it
//! belongs inside TLS, or [`mutual`](super::mutual) in its place.

mod client;
mod listener;
mod message;

pub use client::{CLIENT_NONCE_LEN, Client};
pub use listener::{LISTENER_NONCE_LEN, Listener};

use super::Digest;

/// The weakest digest that is made or believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MinDigest {
    /// Everything, for peers up to Python 3.11, which know nothing but MD5.
    Md5,
    /// Everything but MD5.
    Sha256,
}

impl MinDigest {
    /// Whether `digest` is strong enough.
    pub fn allows(self, digest: Digest) -> bool {
        self == Self::Md5 || digest != Digest::Md5
    }
}

#[cfg(test)]
mod tests;
