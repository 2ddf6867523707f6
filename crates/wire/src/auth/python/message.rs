//! The messages and the rules that both ends share.

use super::super::digest::{hmac_sha256, hmac_sha256_begins};
use super::super::{AuthError, Digest, Key, Keys};
use super::MinDigest;
use crate::framing::{FrameError, Framing, Header};

/// `recv_bytes(256)` in CPython.
const MAX_MESSAGE: u64 = 256;

const CHALLENGE: &[u8] = b"#CHALLENGE#";
pub(super) const WELCOME: &[u8] = b"#WELCOME#";
pub(super) const FAILURE: &[u8] = b"#FAILURE#";

/// `_MD5ONLY_MESSAGE_LENGTH` in CPython.
const LEGACY_CHALLENGE_LEN: usize = 20;

/// Random bytes in our challenges: `MESSAGE_LENGTH` in CPython.
pub(super) const RANDOM_LEN: usize = 40;

/// How long a frame must be before more can be said, given its beginning.
pub(super) fn need(so_far: &[u8]) -> Result<usize, AuthError> {
    Ok(match header(so_far)? {
        Some((len, header_len)) => header_len + len,
        None if so_far.len() < 4 => 4,
        None => 12,
    })
}

/// What a complete frame contains.
pub(super) fn payload(frame: &[u8]) -> Result<&[u8], AuthError> {
    Ok(header(frame)?.map_or(&[], |(_, header_len)| &frame[header_len..]))
}

fn header(frame: &[u8]) -> Result<Option<(usize, usize)>, AuthError> {
    match Header::parse(Framing::Python, MAX_MESSAGE, frame) {
        Ok(header) => {
            let sizes = |Header { len, header_len }| Some((usize::try_from(len).ok()?, header_len));
            Ok(header.and_then(sizes))
        }
        Err(FrameError::TooLong { len, .. }) => Err(AuthError::FrameTooLong { len }),
        Err(_) => Err(AuthError::Malformed("a frame of negative length")),
    }
}

/// What we ask: the part after `#CHALLENGE#`.
pub(super) fn offer(random: &[u8; RANDOM_LEN]) -> Vec<u8> {
    [&b"{sha256}"[..], random].concat()
}

/// The message that asks `offer`.
pub(super) fn challenge(offer: &[u8]) -> Vec<u8> {
    [CHALLENGE, offer].concat()
}

/// What the peer asks: the part after `#CHALLENGE#`, long enough to be one.
pub(super) fn challenged(message: &[u8]) -> Result<&[u8], AuthError> {
    let Some(asked) = message.strip_prefix(CHALLENGE) else {
        return Err(AuthError::Malformed("this is no challenge"));
    };
    if asked.len() < LEGACY_CHALLENGE_LEN {
        return Err(AuthError::Malformed("a challenge of less than 20 bytes"));
    }
    Ok(asked)
}

/// Our answer to `asked`, in the dialect in which it was asked.
pub(super) fn answer(key: &Key, min: MinDigest, asked: &[u8]) -> Result<Vec<u8>, AuthError> {
    let named = if asked.len() == LEGACY_CHALLENGE_LEN {
        None
    } else {
        Some(split_name(asked).ok_or(AuthError::Malformed(
            "a challenge with a digest that does not exist here",
        ))?)
    };
    let digest = named.map_or(Digest::Md5, |(digest, _)| digest);
    if !min.allows(digest) {
        return Err(AuthError::DigestRefused(digest));
    }
    let mut answer = Vec::new();
    if named.is_some() {
        answer.extend_from_slice(format!("{{{digest}}}").as_bytes());
    }
    // The name of the digest is part of what is authenticated.
    answer.extend(digest.mac(key.secret(), &[asked]));
    Ok(answer)
}

/// The key and the digest with which the peer has answered `offer`.
pub(super) fn verify<'a>(
    keys: &'a Keys,
    min: MinDigest,
    offer: &[u8],
    answer: &[u8],
) -> Result<(&'a Key, Digest), AuthError> {
    let (digest, proof) = if answer.len() == Digest::Md5.proof_len() {
        (Digest::Md5, answer)
    } else if answer.len() == LEGACY_CHALLENGE_LEN {
        return Err(AuthError::Malformed("an answer of 20 bytes"));
    } else {
        split_name(answer).ok_or(AuthError::Malformed(
            "an answer with a digest that does not exist here",
        ))?
    };
    if proof.len() != digest.proof_len() {
        return Err(AuthError::Malformed("an answer of the wrong length"));
    }
    if !min.allows(digest) {
        return Err(AuthError::DigestRefused(digest));
    }
    match keys.verify(digest, &[offer], proof) {
        Some(key) => Ok((key, digest)),
        None => Err(AuthError::WrongKey),
    }
}

/// `{name}` of a digest, and what follows. Names are so short that the brace is looked for in the
/// first ten bytes only, as CPython does.
fn split_name(message: &[u8]) -> Option<(Digest, &[u8])> {
    let rest = message.strip_prefix(b"{")?;
    let end = rest.iter().take(9).position(|&byte| byte == b'}')?;
    Some((Digest::from_name(&rest[..end])?, &rest[end + 1..]))
}

/// Separates the mark from every other use of the key: no dialogue here makes anybody authenticate
/// bytes that begin so with the key itself.
const MARK_LABEL: &[u8] = b"portyard python dialogue, asked by a client: ";
const MARK_LEN: usize = 16;
pub(super) const MARKED_LEN: usize = RANDOM_LEN - MARK_LEN;

/// A client's random bytes with the mark behind them.
pub(super) fn marked(key: &Key, random: &[u8; MARKED_LEN]) -> [u8; RANDOM_LEN] {
    let mark = hmac_sha256(key.secret().expose(), &[MARK_LABEL, random]);
    let mut bytes = [0; RANDOM_LEN];
    bytes[..MARKED_LEN].copy_from_slice(random);
    bytes[MARKED_LEN..].copy_from_slice(&mark[..MARK_LEN]);
    bytes
}

/// Whether a client with the same key has asked this.
pub(super) fn is_marked(key: &Key, asked: &[u8]) -> bool {
    let Some((_, random)) = asked.split_last_chunk::<RANDOM_LEN>() else {
        return false;
    };
    let (random, mark) = random.split_at(MARKED_LEN);
    hmac_sha256_begins(key.secret().expose(), &[MARK_LABEL, random], mark)
}
