//! What the dialogue is for: nobody without the key gets through, by any of the known ways.

use super::super::testing::{End, feed, hex, key, keys, talk};
use super::super::{AuthError, Digest, Handshake, Outcome};
use super::{Client, Exporter, HELLO_LEN, NONCE_LEN, Server};

fn server(exporter: Option<Exporter>) -> Server {
    Server::new(keys(["secret"]), [1; NONCE_LEN], exporter)
}

fn client(exporter: Option<Exporter>) -> Client {
    Client::new(key("secret"), [2; NONCE_LEN], exporter)
}

fn proved(key: &str) -> Outcome {
    Outcome {
        key: key.into(),
        digest: Digest::Sha256,
    }
}

/// How it ends for both when it succeeds.
fn both(key: &str) -> (End, End) {
    (Ok(Some(proved(key))), Ok(Some(proved(key))))
}

/// The three messages of a dialogue that succeeds.
fn transcript(exporter: Option<Exporter>) -> [Vec<u8>; 3] {
    let (served, connected, transcript) = talk(&mut server(exporter), &mut client(exporter), 99);
    assert_eq!((served, connected), both("secret"));
    let messages: Vec<_> = transcript.into_iter().map(|(_, bytes)| bytes).collect();
    messages.try_into().unwrap()
}

/// What a server makes of bytes, and what it says to them.
fn tell(server: &mut Server, bytes: &[u8]) -> (Result<(), AuthError>, Option<Vec<u8>>) {
    (feed(server, bytes, 5), server.output())
}

fn refusal(reason: u8) -> Vec<u8> {
    vec![1, 4, reason, 0]
}

#[test]
fn a_wrong_key_passes_neither_end() {
    let mut client = Client::new(key("wrong"), [2; NONCE_LEN], None);
    let (served, connected, _) = talk(&mut server(None), &mut client, 7);
    assert_eq!(served, Err(AuthError::WrongKey));
    assert_eq!(connected, Err(AuthError::Refused));
}

#[test]
fn a_server_without_the_key_gets_no_proof() {
    // It cannot tell that the hint is not for its key, so it claims that it is.
    let mut client = client(None);
    client.output();
    let mut impostor = Server::new(keys(["wrong"]), [1; NONCE_LEN], None);
    let hello = client_hello("wrong");
    feed(&mut impostor, &hello, 99).unwrap();
    let proof = impostor.output().unwrap();
    assert_eq!(feed(&mut client, &proof, 99), Err(AuthError::WrongKey));
    assert_eq!(client.output(), None);
}

fn client_hello(secret: &str) -> Vec<u8> {
    let mut client = Client::new(key(secret), [2; NONCE_LEN], None);
    client.output().unwrap()
}

#[test]
fn nothing_is_reflected() {
    let [hello, proof, answer] = transcript(None);
    // To the server: what servers send, and its own nonce.
    for message in [&proof[..], b"\x01\x04\x01\x00"] {
        let told = tell(&mut server(None), message);
        assert_eq!(told, (Err(AuthError::Reflected), Some(refusal(4))));
    }
    let mut own = Client::new(key("secret"), [1; NONCE_LEN], None);
    let told = tell(&mut server(None), &own.output().unwrap());
    assert_eq!(told, (Err(AuthError::Reflected), Some(refusal(4))));
    // To the client: what clients send, and its own nonce.
    for message in [&hello, &answer] {
        let mut client = client(None);
        assert_eq!(feed(&mut client, message, 99), Err(AuthError::Reflected));
    }
    let mut same = Server::new(keys(["secret"]), [3; NONCE_LEN], None);
    feed(&mut same, &hello, 99).unwrap();
    let mut own = Client::new(key("secret"), [3; NONCE_LEN], None);
    let reflected = feed(&mut own, &same.output().unwrap(), 99);
    assert_eq!(reflected, Err(AuthError::Reflected));
}

#[test]
fn a_machine_does_not_pass_against_itself() {
    let mut one = server(None);
    feed(&mut one, &client_hello("secret"), 99).unwrap();
    let proof = one.output().unwrap();
    assert!(feed(&mut one, &proof, 99).is_err());

    let mut one = client(None);
    let hello = one.output().unwrap();
    assert!(feed(&mut one, &hello, 99).is_err());

    let (a, b, _) = talk(&mut client(None), &mut client(None), 99);
    assert_eq!(
        (a, b),
        (Err(AuthError::Reflected), Err(AuthError::Reflected))
    );
    let (a, b, _) = talk(&mut server(None), &mut server(None), 99);
    assert_eq!((a, b), (Ok(None), Ok(None)));
}

#[test]
fn a_proof_for_the_server_is_none_for_the_client() {
    let [hello, proof, _] = transcript(None);
    let mut server = server(None);
    feed(&mut server, &hello, 99).unwrap();
    let answer = [b"\x01\x03\x01\x00", &proof[36..]].concat();
    assert_eq!(feed(&mut server, &answer, 99), Err(AuthError::WrongKey));
}

#[test]
fn a_relay_between_two_tls_sessions_does_not_pass() {
    let (near, far) = ([7; 32], [8; 32]);
    let (served, connected, messages) = talk(&mut server(Some(near)), &mut client(Some(far)), 99);
    assert_eq!(connected, Err(AuthError::WrongKey));
    assert_eq!(served, Ok(None));
    assert_eq!(messages.len(), 2, "the client never proves");
}

#[test]
fn leaving_the_binding_out_does_not_pass() {
    let exporter = Some([7; 32]);
    for (listens, connects) in [(exporter, None), (None, exporter)] {
        let (served, connected, _) = talk(&mut server(listens), &mut client(connects), 99);
        assert_eq!(served, Err(AuthError::Binding));
        assert_eq!(connected, Err(AuthError::Binding));
    }
    // Somebody in between who also changes the byte.
    let [mut hello, mut proof, _] = transcript(exporter);
    hello[3] = 0;
    proof[3] = 0;
    let mut unbound = server(None);
    feed(&mut unbound, &hello, 99).unwrap();
    let mut bound = client(exporter);
    assert_eq!(feed(&mut bound, &proof, 99), Err(AuthError::Binding));
    let mut rewritten = unbound.output().unwrap();
    rewritten[3] = 1;
    assert_eq!(
        feed(&mut client(exporter), &rewritten, 99),
        Err(AuthError::WrongKey)
    );
}

#[test]
fn a_transcript_cannot_be_replayed() {
    let [hello, proof, answer] = transcript(None);
    let mut later = Server::new(keys(["secret"]), [9; NONCE_LEN], None);
    feed(&mut later, &hello, 99).unwrap();
    assert_eq!(feed(&mut later, &answer, 99), Err(AuthError::WrongKey));
    let mut later = Client::new(key("secret"), [9; NONCE_LEN], None);
    assert_eq!(feed(&mut later, &proof, 99), Err(AuthError::WrongKey));
}

#[test]
fn no_other_version_or_digest_is_spoken() {
    let [hello, proof, _] = transcript(None);
    for version in [0, 2, 255] {
        let (mut hello, mut proof) = (hello.clone(), proof.clone());
        hello[0] = version;
        proof[0] = version;
        let told = tell(&mut server(None), &hello[..4]);
        assert_eq!(told, (Err(AuthError::Version(version)), Some(refusal(2))));
        let refused = feed(&mut client(None), &proof[..4], 99);
        assert_eq!(refused, Err(AuthError::Version(version)));
    }
    for digest in [0, 2, 255] {
        let (mut hello, mut proof) = (hello.clone(), proof.clone());
        hello[2] = digest;
        proof[2] = digest;
        let malformed = AuthError::Malformed("a digest that does not exist in version 1");
        let told = tell(&mut server(None), &hello);
        assert_eq!(told, (Err(malformed.clone()), Some(refusal(4))));
        assert_eq!(feed(&mut client(None), &proof, 99), Err(malformed));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let [hello, proof, answer] = transcript(None);
    for bit in 0..hello.len() * 8 {
        let mut server = server(None);
        let told = tell(&mut server, &flipped(&hello, bit));
        // A nonce or a hint that was changed leaves no key that was meant.
        assert!(told.0.is_err(), "bit {bit} of the hello");
    }
    for bit in 0..proof.len() * 8 {
        let mut client = client(None);
        client.output();
        let _ = feed(&mut client, &flipped(&proof, bit), 99);
        assert_eq!(
            (client.outcome(), client.output()),
            (None, None),
            "bit {bit} of the proof"
        );
    }
    for bit in 0..answer.len() * 8 {
        let mut server = server(None);
        feed(&mut server, &hello, 99).unwrap();
        let _ = feed(&mut server, &flipped(&answer, bit), 99);
        assert_eq!(server.outcome(), None, "bit {bit} of the answer");
    }
}

fn flipped(message: &[u8], bit: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[bit / 8] ^= 1 << (bit % 8);
    message
}

#[test]
fn truncated_messages_decide_nothing() {
    let [hello, proof, answer] = transcript(None);
    let mut server = server(None);
    assert_eq!(tell(&mut server, &hello[..HELLO_LEN - 1]), (Ok(()), None));
    let mut client = client(None);
    client.output();
    feed(&mut client, &proof[..proof.len() - 1], 3).unwrap();
    assert_eq!((client.outcome(), client.output()), (None, None));
    feed(&mut server, &hello[HELLO_LEN - 1..], 3).unwrap();
    feed(&mut server, &answer[..answer.len() - 1], 3).unwrap();
    assert_eq!(server.outcome(), None);
}

#[test]
fn what_follows_the_dialogue_is_the_services() {
    let [hello, proof, answer] = transcript(None);
    let mut server = server(None);
    let stream = [&hello[..], &answer, b"hello"].concat();
    assert_eq!(server.handle(&stream), Ok(hello.len() + answer.len()));
    let mut client = client(None);
    let stream = [&proof[..], &[0; 1000]].concat();
    assert_eq!(client.handle(&stream), Ok(proof.len()));
}

#[test]
fn an_answer_to_a_refused_hello_changes_nothing() {
    let mut server = server(None);
    let [_, _, answer] = transcript(None);
    assert!(feed(&mut server, &client_hello("wrong"), 99).is_err());
    assert_eq!(feed(&mut server, &answer, 99), Err(AuthError::WrongKey));
    assert_eq!(server.outcome(), None);
}

#[test]
fn both_ends_agree_on_the_key_that_was_meant() {
    for exporter in [None, Some([7; 32])] {
        for (secret, piece) in [("old", 1), ("new", 3), ("old", 99)] {
            let mut server = Server::new(keys(["new", "old"]), [1; NONCE_LEN], exporter);
            let mut client = Client::new(key(secret), [2; NONCE_LEN], exporter);
            let (served, connected, _) = talk(&mut server, &mut client, piece);
            assert_eq!((served, connected), both(secret));
        }
    }
}

#[test]
fn the_bytes_are_those_of_the_description() {
    // Computed from the module's description by a program of its own: scripts in Python 3.13 with
    // nothing but hmac and hashlib.
    for (exporter, vectors) in [(None, UNBOUND), (Some([7; 32]), BOUND)] {
        assert_eq!(transcript(exporter), vectors.map(hex));
    }
}

const UNBOUND: [&str; 3] = [
    "01010100335c2635a9fc50c60202020202020202020202020202020202020202020202020202020202020202",
    "010201000101010101010101010101010101010101010101010101010101010101010101fe609fe667d3bff5d85fc8bd0bf61a7b50ec436aaed4cba782b395fc9d279359",
    "01030100f912405a45c3791c8f75cb23a2d08645b66ee3f27e9aa0202c1c37a103dbaa41",
];
const BOUND: [&str; 3] = [
    "01010101335c2635a9fc50c60202020202020202020202020202020202020202020202020202020202020202",
    "01020101010101010101010101010101010101010101010101010101010101010101010140351e9ae55ab46afb7f3a39d4277921894097ae7f460e0b1ac12bbedf2d0606",
    "01030101409dff0fbfca5abd861bd71b124ee1e5c11b3d037e9251ab9443d04332c45587",
];
