//! Bytes from nobody prove nothing to either end, in one piece or byte by byte; ends with the same
//! key always agree, and one changed bit between them is never taken for the truth by both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::auth::python::{Client, Listener, MinDigest};
use portyard_wire::auth::{AuthError, Handshake, Key, Keys, Secret};

fuzz_target!(|input: (bool, bool, [u8; 24], u16, &[u8])| {
    let (listens, connects, nonce, flip, stream) = input;
    let [listens, connects] = [listens, connects].map(|md5| match md5 {
        true => MinDigest::Md5,
        false => MinDigest::Sha256,
    });
    let listener = || Listener::new(Keys::from(key("secret")), listens, [7; 40]);
    let client = || Client::new(key("secret"), connects, nonce);
    stranger(listener, stream);
    stranger(client, stream);

    let (mut a, mut b) = (listener(), client());
    talk(&mut a, &mut b, None);
    let proved = a.outcome().expect("the keys are the same");
    assert_eq!(Some(proved), b.outcome());

    let (mut a, mut b) = (listener(), client());
    if talk(&mut a, &mut b, Some(flip.into())) {
        assert!(a.outcome().is_none() || b.outcome().is_none());
    }
    let mut wrong = Client::new(key("wrong"), connects, nonce);
    let mut a = listener();
    talk(&mut a, &mut wrong, None);
    assert_eq!((a.outcome(), wrong.outcome()), (None, None));
});

fn key(secret: &str) -> Key {
    Key::new(secret, Secret::new(secret.into()).expect("not empty"))
}

/// Whoever does not know the key gets nowhere, and as far in one piece as in many.
fn stranger<M: Handshake>(machine: impl Fn() -> M, stream: &[u8]) {
    let (mut whole, mut trickled, mut modest) = (machine(), machine(), machine());
    let result = whole.handle(stream);
    let early = stream.iter().map(|&byte| trickled.handle(&[byte]));
    let early = early.filter_map(Result::err).next();
    assert_eq!(result.clone().err(), early);
    assert_eq!(read_as_wanted(&mut modest, stream), early);
    let said = whole.output();
    assert_eq!((&trickled.output(), &modest.output()), (&said, &said));
    assert_eq!((whole.outcome(), trickled.outcome()), (None, None));
    if let Err(error) = result {
        assert_eq!(whole.handle(b"x"), Err(error));
    }
}

/// Reads never more than the machine asks for, as a shell does that hands the socket on.
fn read_as_wanted(machine: &mut impl Handshake, mut stream: &[u8]) -> Option<AuthError> {
    while machine.wanted() > 0 && !stream.is_empty() {
        let (piece, rest) = stream.split_at(machine.wanted().min(stream.len()));
        match machine.handle(piece) {
            Ok(taken) => assert_eq!(taken, piece.len()),
            Err(error) => return Some(error),
        }
        stream = rest;
    }
    None
}

/// Lets both talk, with one bit of what they say changed. Says whether that bit was there.
fn talk(a: &mut impl Handshake, b: &mut impl Handshake, flip: Option<usize>) -> bool {
    let mut said = 0;
    let mut flipped = false;
    let mut garble = |mut bytes: Vec<u8>| {
        if let Some(bit) = flip.and_then(|bit| bit.checked_sub(said * 8))
            && let Some(byte) = bytes.get_mut(bit / 8)
        {
            *byte ^= 1 << (bit % 8);
            flipped = true;
        }
        said += bytes.len();
        bytes
    };
    for _ in 0..8 {
        if let Some(bytes) = a.output() {
            let _ = b.handle(&garble(bytes));
        }
        if let Some(bytes) = b.output() {
            let _ = a.handle(&garble(bytes));
        }
    }
    flipped
}
