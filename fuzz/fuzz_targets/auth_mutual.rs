//! Bytes from nobody prove nothing to either end, in one piece or byte by byte; ends with the same
//! key and session always agree, and a changed bit or another session is never accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::auth::mutual::{Client, Server};
use portyard_wire::auth::{AuthError, Handshake, Key, Keys, Secret};

/// Both nonces, the exporter, the bit that is changed, and what a stranger sends.
type Input<'a> = ([u8; 32], [u8; 32], Option<[u8; 32]>, u16, &'a [u8]);

fuzz_target!(|input: Input| {
    let (near, far, exporter, flip, stream) = input;
    let server = || Server::new(Keys::from(key("secret")), near, exporter);
    let client = || Client::new(key("secret"), far, exporter);
    stranger(server, stream);
    stranger(client, stream);

    let (mut a, mut b) = (client(), server());
    let [hello, proof, answer] = talk(&mut a, &mut b);
    if near == far {
        assert_eq!((a.outcome(), b.outcome()), (None, None));
        return;
    }
    assert!(a.outcome().is_some());
    assert_eq!(a.outcome(), b.outcome());

    let mut dialogue = [&hello[..], &answer].concat();
    let bit = usize::from(flip) % (dialogue.len() * 8);
    dialogue[bit / 8] ^= 1 << (bit % 8);
    assert!(server().handle(&dialogue).is_err());
    let mut garbled = proof.clone();
    let bit = usize::from(flip) % (garbled.len() * 8);
    garbled[bit / 8] ^= 1 << (bit % 8);
    let mut deceived = client();
    deceived.output();
    let _ = deceived.handle(&garbled);
    assert_eq!((deceived.outcome(), deceived.output()), (None, None));

    // The same dialogue in another TLS session, and with a server whose nonce is another.
    let elsewhere = exporter.map(|mut bytes| {
        bytes[0] ^= 1;
        bytes
    });
    let elsewhere = elsewhere.or(Some([0; 32]));
    let (mut a, mut b) = (
        client(),
        Server::new(Keys::from(key("secret")), near, elsewhere),
    );
    talk(&mut a, &mut b);
    assert_eq!((a.outcome(), b.outcome()), (None, None));
    let mut other = near;
    other[31] ^= 1;
    let mut later = Server::new(Keys::from(key("secret")), other, exporter);
    assert!(later.handle(&[hello, answer].concat()).is_err());
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
    assert_eq!(result.err(), early);
    assert_eq!(read_as_wanted(&mut modest, stream), early);
    let said = whole.output();
    assert_eq!((&trickled.output(), &modest.output()), (&said, &said));
    assert_eq!((whole.outcome(), trickled.outcome()), (None, None));
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

/// What is said, in order; empty where nothing was.
fn talk(client: &mut Client, server: &mut Server) -> [Vec<u8>; 3] {
    let hello = client.output().unwrap_or_default();
    let _ = server.handle(&hello);
    let proof = server.output().unwrap_or_default();
    let _ = client.handle(&proof);
    let answer = client.output().unwrap_or_default();
    let _ = server.handle(&answer);
    [hello, proof, answer]
}
