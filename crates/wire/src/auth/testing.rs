//! Two machines talking, for the tests of all dialogues.

use super::{AuthError, Handshake, Key, Keys, Outcome, Secret};

/// A key whose name is its secret.
pub fn key(secret: &str) -> Key {
    Key::new(secret, Secret::new(secret.into()).unwrap())
}

pub fn keys<const N: usize>(secrets: [&str; N]) -> Keys {
    Keys::new(secrets.map(key)).unwrap()
}

/// How a conversation ended for one side.
pub type End = Result<Option<Outcome>, AuthError>;

/// Lets two ends talk, `piece` bytes at a time, until nothing moves. Returns both ends and the
/// messages in order, each with whether the first side sent it.
pub fn talk(
    a: &mut impl Handshake,
    b: &mut impl Handshake,
    piece: usize,
) -> (End, End, Vec<(bool, Vec<u8>)>) {
    let (mut failed_a, mut failed_b) = (None, None);
    let mut transcript = Vec::new();
    for _ in 0..20 {
        if let Some(bytes) = a.output() {
            // Who reads what is wanted never waits for more than the message.
            assert!(b.wanted() <= bytes.len());
            failed_b = failed_b.or(feed(b, &bytes, piece).err());
            transcript.push((true, bytes));
        }
        if let Some(bytes) = b.output() {
            assert!(a.wanted() <= bytes.len());
            failed_a = failed_a.or(feed(a, &bytes, piece).err());
            transcript.push((false, bytes));
        }
    }
    let end = |failed: Option<_>, outcome| failed.map_or(Ok(outcome), Err);
    (
        end(failed_a, a.outcome()),
        end(failed_b, b.outcome()),
        transcript,
    )
}

/// Feeds a message in pieces; all of them must be taken.
pub fn feed(machine: &mut impl Handshake, bytes: &[u8], piece: usize) -> Result<(), AuthError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece.clamp(1, rest.len()));
        assert_eq!(machine.handle(now)?, now.len());
        rest = later;
    }
    Ok(())
}

/// Bytes from what a capture shows.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|byte| char::from(byte).to_digit(16))
        .map(|digit| u8::try_from(digit).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}
