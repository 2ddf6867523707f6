//! An answer from nobody is refused, a client's is accepted, and nothing behind it is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::auth::recipe::{Client, Server};
use portyard_wire::auth::{AuthError, Digest, Handshake, Key, Keys, Secret};

fuzz_target!(|input: (u8, [u8; 32], &[u8])| {
    let (digest, nonce, stream) = input;
    let digest = Digest::ALL[usize::from(digest) % 5];
    let key = Key::new("k", Secret::new(b"secret".to_vec()).expect("not empty"));
    let server = || Server::new(Keys::from(key.clone()), digest, nonce);

    let mut asked = server();
    let question = asked.output().expect("it asks first");
    let mut client = Client::new(key.clone(), digest);
    assert_eq!(client.handle(&question), Ok(32));
    let answer = client.output().expect("it answers anybody");
    let arrived = [&answer[..], stream].concat();
    assert_eq!(asked.handle(&arrived), Ok(digest.proof_len()));
    assert_eq!(asked.outcome(), client.outcome());
    assert!(asked.outcome().is_some());

    let mut stranger = server();
    let refused = stranger.handle(stream);
    if stream.len() < digest.proof_len() {
        assert_eq!(refused, Ok(stream.len()));
    } else if !stream.starts_with(&answer) {
        assert_eq!(refused, Err(AuthError::WrongKey));
    }
    assert_eq!(stranger.outcome().is_some(), stream.starts_with(&answer));
});
