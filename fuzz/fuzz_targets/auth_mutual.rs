//! Bytes from nobody prove nothing to either end, in one piece or byte by byte; ends with the same
//! key and session always agree, and a changed bit or another session is never accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::auth::mutual::{Client, Server};
use portyard_wire::auth::{Handshake, Key, Keys, Secret};

/// Both nonces, the exporter, the bit that is changed, and what a stranger sends.
type Input<'a> = ([u8; 32], [u8; 32], Option<[u8; 32]>, u16, &'a [u8]);

fuzz_target!(|input: Input| {
    let (near, far, exporter, flip, stream) = input;
    let server = || Server::new(Keys::from(key("secret")), near, exporter);
    let client = || Client::new(key("secret"), far, exporter);
    stranger(server(), server(), stream);
    stranger(client(), client(), stream);

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
fn stranger(mut whole: impl Handshake, mut trickled: impl Handshake, stream: &[u8]) {
    let result = whole.handle(stream);
    let early = stream.iter().map(|&byte| trickled.handle(&[byte]));
    let early = early.filter_map(Result::err).next();
    assert_eq!(result.err(), early);
    assert_eq!(whole.output(), trickled.output());
    assert_eq!((whole.outcome(), trickled.outcome()), (None, None));
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
