//! The rules of the dialogue, against bytes that Pythons have sent.

use super::super::testing::{feed, hex, key, keys, talk};
use super::super::{AuthError, Digest, Handshake, Outcome};
use super::message;
use super::{CLIENT_NONCE_LEN, Client, LISTENER_NONCE_LEN, Listener, MinDigest};
use crate::framing::python_message;
use std::array::from_fn;

/// The `os.urandom` of the recordings: a listener's bytes count from 0, a client's from 100.
fn listener_nonce() -> [u8; LISTENER_NONCE_LEN] {
    from_fn(|i| u8::try_from(i).unwrap())
}

fn client_nonce() -> [u8; CLIENT_NONCE_LEN] {
    from_fn(|i| u8::try_from(100 + i).unwrap())
}

fn listener(min: MinDigest) -> Listener {
    Listener::new(keys(["secret"]), min, listener_nonce())
}

fn client(min: MinDigest) -> Client {
    Client::new(key("secret"), min, client_nonce())
}

fn outcome(name: &str, digest: Digest) -> Outcome {
    Outcome {
        key: name.into(),
        digest,
    }
}

fn framed(parts: &[&[u8]]) -> Vec<u8> {
    python_message(&parts.concat())
}

// Both ends in Python, a recorder between them, authkey b"secret". MODERN is 3.13.0 with 3.13.0,
// LEGACY 3.8.18 with 3.8.18 (2.7.18 with 2.7.18 is the same), OLD_CLIENT 3.8.18 connecting to
// 3.13.0, OLD_LISTENER the other way round.
const WELCOME: &str = "00000009 2357454c434f4d4523";
const FAILURE: &str = "00000009 234641494c55524523";
const MODERN: [&str; 6] = [
    "0000003b 234348414c4c454e4745237b7368613235367d000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627",
    "00000028 7b7368613235367dfc57fbe650d6124b98215e7b5d197d5807ad69982d275a9735ea2d56f1fa6989",
    WELCOME,
    "0000003b 234348414c4c454e4745237b7368613235367d6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b",
    "00000028 7b7368613235367dae0e87a78d52303bf1858025a924cf0bbdd4d462272cff778bea41045078e86a",
    WELCOME,
];
const LEGACY: [&str; 6] = [
    "0000001f 234348414c4c454e474523000102030405060708090a0b0c0d0e0f10111213",
    "00000010 7defa9cc46abc3583325d17ccda75190",
    WELCOME,
    "0000001f 234348414c4c454e4745236465666768696a6b6c6d6e6f7071727374757677",
    "00000010 5f9f891a641f27a6cbc56977af884b59",
    WELCOME,
];
const OLD_CLIENT_ANSWERS: &str = "00000010 8e48d2bb349b4b72b9382999ed5b62eb";
const OLD_LISTENER_ANSWERS: &str = "00000010 8151cd4c7af4d387ed2d53bddc335275";
/// A 3.13.0 client whose key is b"wrong" answers MODERN[0].
const WRONG_KEY_ANSWERS: &str =
    "00000028 7b7368613235367dc26d7460dd15c6dd4aa92917821afa7f1a9e7c80ee0553b0318ccc37a2fb373a";
/// `_create_response(b"secret", b"{name}" + bytes(range(40)))` in 3.13.0.
const EVERY_DIGEST: [(Digest, &str); 5] = [
    (Digest::Md5, "7b6d64357de8928e8cca3ace2d777017168dc6a0b2"),
    (
        Digest::Sha256,
        "7b7368613235367dfc57fbe650d6124b98215e7b5d197d5807ad69982d275a9735ea2d56f1fa6989",
    ),
    (
        Digest::Sha384,
        "7b7368613338347dbae78a3376369f7b803a8473318a9b7062495b47434159ac84fc92ddb33c51b277c44c3edd9a5f9cb7d628f21abe2665",
    ),
    (
        Digest::Sha3_256,
        "7b736861335f3235367d82e8fa62f363295b6655abecf0e98e510224c559e9745af9741c357aec358f90",
    ),
    (
        Digest::Sha3_384,
        "7b736861335f3338347dbfbe71d4e622f58ebf6cbe049af4c8fe518645b482915af0940d678c37c0b46dd1a2a448f9ee5141c91bba42b46a7862",
    ),
];

/// A listener that has sent its challenge, and what it says to a client's first answer.
fn answered(min: MinDigest, frame: &[u8]) -> (Result<(), AuthError>, Option<Vec<u8>>) {
    let mut listener = listener(min);
    listener.output();
    let result = feed(&mut listener, frame, 7);
    (result, listener.output())
}

/// What a client says to a challenge.
fn challenged(min: MinDigest, asked: &[u8]) -> Result<Option<Vec<u8>>, AuthError> {
    let mut client = client(min);
    feed(&mut client, &framed(&[b"#CHALLENGE#", asked]), 7)?;
    Ok(client.output())
}

#[test]
fn a_wrong_key_gets_the_failure_message() {
    for (answer, error) in [
        (hex(WRONG_KEY_ANSWERS), AuthError::WrongKey),
        (framed(&[&[0; 16]]), AuthError::WrongKey),
        (
            framed(&[&[0; 20]]),
            AuthError::Malformed("an answer of 20 bytes"),
        ),
        (
            framed(&[b"{sha256}", &[0; 31]]),
            AuthError::Malformed("an answer of the wrong length"),
        ),
        (
            framed(&[b"{sha512}", &[0; 64]]),
            AuthError::Malformed("an answer with a digest that does not exist here"),
        ),
        (
            framed(&[b""]),
            AuthError::Malformed("an answer with a digest that does not exist here"),
        ),
    ] {
        assert_eq!(
            answered(MinDigest::Md5, &answer),
            (Err(error), Some(hex(FAILURE)))
        );
    }
}

#[test]
fn md5_is_refused_where_the_minimum_is_sha256() {
    let refused = AuthError::DigestRefused(Digest::Md5);
    for answer in [hex(OLD_CLIENT_ANSWERS), framed(&[b"{md5}", &[0; 16]])] {
        let expected = (Err(refused.clone()), Some(hex(FAILURE)));
        assert_eq!(answered(MinDigest::Sha256, &answer), expected);
    }
    for asked in [&[0; 20][..], b"{md5}and sixteen more bytes"] {
        assert_eq!(
            challenged(MinDigest::Sha256, asked),
            Err(refused.clone()),
            "nothing is sent"
        );
    }
}

#[test]
fn a_frame_over_256_bytes_is_refused_at_its_header() {
    for (header, error) in [
        (&b"\0\0\x01\x01"[..], AuthError::FrameTooLong { len: 257 }),
        (
            b"\x7f\xff\xff\xff",
            AuthError::FrameTooLong { len: 0x7fff_ffff },
        ),
        (&[0xff; 12], AuthError::FrameTooLong { len: u64::MAX }),
        (
            b"\xff\xff\xff\xfe",
            AuthError::Malformed("a frame of negative length"),
        ),
    ] {
        assert_eq!(answered(MinDigest::Md5, header), (Err(error.clone()), None));
        let mut client = client(MinDigest::Md5);
        assert_eq!(feed(&mut client, header, 1), Err(error.clone()));
        assert_eq!(client.handle(b""), Err(error));
    }
}

#[test]
fn the_long_header_is_accepted() {
    let mut answer = b"\xff\xff\xff\xff\0\0\0\0\0\0\0\x28".to_vec();
    answer.extend(&hex(MODERN[1])[4..]);
    assert_eq!(
        answered(MinDigest::Sha256, &answer),
        (Ok(()), Some(hex(WELCOME)))
    );
}

#[test]
fn only_a_proper_challenge_is_answered() {
    let malformed = |asked: &[u8]| {
        matches!(
            challenged(MinDigest::Md5, asked),
            Err(AuthError::Malformed(_))
        )
    };
    assert!(malformed(b""));
    assert!(malformed(&[0; 19]));
    assert!(malformed(b"{md5}fourteen bytes"));
    assert!(malformed(&[0; 21]));
    assert!(malformed(b"{sha512}and thirty two more bytes.."));
    assert!(malformed(b"{}and some twenty more bytes"));
    assert!(malformed(b"{sha3_2561}and some twenty more"));
    let mut client = client(MinDigest::Md5);
    assert_eq!(
        feed(&mut client, &hex(WELCOME), 99),
        Err(AuthError::Malformed("this is no challenge"))
    );
    assert_eq!(client.output(), None);
}

#[test]
fn twenty_bytes_are_legacy_even_with_a_name() {
    // `_create_response(b"secret", b"{md5}" + bytes(range(15)))` in 3.13.0, and with 16.
    let counted: Vec<u8> = (0..16).collect();
    let asked = [b"{md5}", &counted[..15]].concat();
    let answer = framed(&[&hex("d423ddeba4a6da1463adff31b9fc9621")]);
    assert_eq!(challenged(MinDigest::Md5, &asked), Ok(Some(answer)));
    let asked = [b"{md5}", &counted[..]].concat();
    let answer = framed(&[&hex("7b6d64357d8c7edc00473f19d867f358fa73cc9110")]);
    assert_eq!(challenged(MinDigest::Md5, &asked), Ok(Some(answer)));
}

#[test]
fn every_digest_is_answered_as_python_does() {
    for (digest, answer) in EVERY_DIGEST {
        let asked = [format!("{{{digest}}}").as_bytes(), &listener_nonce()].concat();
        let answer = hex(answer);
        let framed = framed(&[&answer]);
        assert_eq!(challenged(MinDigest::Md5, &asked), Ok(Some(framed)));
        let keys = keys(["other", "secret"]);
        let verified = message::verify(&keys, MinDigest::Md5, &asked, &answer);
        let (key, proved) = verified.unwrap();
        assert_eq!((&**key.name(), proved), ("secret", digest));
    }
}

#[test]
fn a_peer_may_answer_with_any_stronger_digest() {
    for digest in [Digest::Sha384, Digest::Sha3_256, Digest::Sha3_384] {
        let offer = message::offer(&listener_nonce());
        let proof = digest.mac(key("secret").secret(), &[&offer]);
        let answer = framed(&[format!("{{{digest}}}").as_bytes(), &proof]);
        let welcomed = (Ok(()), Some(hex(WELCOME)));
        assert_eq!(answered(MinDigest::Sha256, &answer), welcomed);
    }
}

/// Our listener says to a recorded client what the recorded listener said.
fn listen_to(recorded: [&str; 6], min: MinDigest, digest: Digest) {
    for piece in [1, 3, 99] {
        let mut listener = listener(min);
        assert_eq!(listener.output(), Some(hex(MODERN[0])));
        for (said, reply) in [(1, Some(2)), (3, Some(4)), (5, None)] {
            assert_eq!(listener.outcome(), None);
            assert_eq!(feed(&mut listener, &hex(recorded[said]), piece), Ok(()));
            assert_eq!(listener.output(), reply.map(|n: usize| hex(recorded[n])));
        }
        assert_eq!(listener.outcome(), Some(outcome("secret", digest)));
        assert_eq!(listener.handle(b"\0\0\0\x05hello"), Ok(0));
    }
}

#[test]
fn a_recorded_client_of_313_is_welcomed() {
    listen_to(MODERN, MinDigest::Sha256, Digest::Sha256);
    listen_to(MODERN, MinDigest::Md5, Digest::Sha256);
}

#[test]
fn a_recorded_client_of_38_is_welcomed() {
    let mut recorded = LEGACY;
    recorded[1] = OLD_CLIENT_ANSWERS;
    listen_to(recorded, MinDigest::Md5, Digest::Md5);
}

#[test]
fn a_recorded_listener_is_answered_and_its_answers_are_believed() {
    for (recorded, min) in [
        (MODERN, MinDigest::Sha256),
        (MODERN, MinDigest::Md5),
        (LEGACY, MinDigest::Md5),
    ] {
        let mut client = client(min);
        assert_eq!(client.output(), None);
        assert_eq!(feed(&mut client, &hex(recorded[0]), 5), Ok(()));
        assert_eq!(client.output(), Some(hex(recorded[1])));
        assert_eq!(feed(&mut client, &hex(recorded[2]), 5), Ok(()));
        let asked = client.output().unwrap();
        assert_eq!(
            asked[..19 + CLIENT_NONCE_LEN + 4],
            hex(MODERN[3])[..19 + CLIENT_NONCE_LEN + 4]
        );
        assert_eq!(asked.len(), hex(MODERN[3]).len());
    }
    // The mark makes our challenge another than the recorded one, so its answers are checked apart.
    let keys = keys(["secret"]);
    let offer = &hex(MODERN[3])[15..];
    for (answer, min, digest) in [
        (MODERN[4], MinDigest::Sha256, Digest::Sha256),
        (OLD_LISTENER_ANSWERS, MinDigest::Md5, Digest::Md5),
    ] {
        let verified = message::verify(&keys, min, offer, &hex(answer)[4..]);
        assert_eq!(verified.map(|(_, proved)| proved), Ok(digest));
    }
}

#[test]
fn both_ends_agree_in_all_combinations() {
    use MinDigest::{Md5, Sha256};
    for (listens, connects) in [(Md5, Md5), (Md5, Sha256), (Sha256, Md5), (Sha256, Sha256)] {
        for (secret, piece) in [("old", 1), ("new", 2), ("new", 99)] {
            let mut listener = Listener::new(keys(["new", "old"]), listens, listener_nonce());
            let mut client = Client::new(key(secret), connects, client_nonce());
            let (listened, connected, transcript) = talk(&mut listener, &mut client, piece);
            let expected = outcome(secret, Digest::Sha256);
            assert_eq!(listened, Ok(Some(expected.clone())));
            assert_eq!(connected, Ok(Some(expected)));
            assert_eq!(transcript.len(), 6);
        }
        let mut listener = Listener::new(keys(["new", "old"]), listens, listener_nonce());
        let mut client = Client::new(key("wrong"), connects, client_nonce());
        let (listened, connected, transcript) = talk(&mut listener, &mut client, 3);
        assert_eq!(listened, Err(AuthError::WrongKey));
        assert_eq!(connected, Err(AuthError::Refused));
        assert_eq!(transcript[2].1, hex(FAILURE));
    }
}

#[test]
fn a_listener_with_the_wrong_key_gets_the_failure_message() {
    // It lets anybody in, then cannot answer.
    let mut client = client(MinDigest::Sha256);
    feed(&mut client, &hex(MODERN[0]), 99).unwrap();
    feed(&mut client, &hex(WELCOME), 99).unwrap();
    client.output();
    let result = feed(&mut client, &hex(WRONG_KEY_ANSWERS), 99);
    assert_eq!(result, Err(AuthError::WrongKey));
    assert_eq!(client.output(), Some(hex(FAILURE)));
}

#[test]
fn a_listener_that_is_refused_says_so() {
    let mut listener = listener(MinDigest::Sha256);
    for said in [MODERN[1], MODERN[3]] {
        feed(&mut listener, &hex(said), 99).unwrap();
    }
    assert_eq!(
        feed(&mut listener, &hex(FAILURE), 99),
        Err(AuthError::Refused)
    );
}

#[test]
fn our_own_challenge_is_not_answered() {
    let mut listener = listener(MinDigest::Md5);
    feed(&mut listener, &hex(MODERN[1]), 99).unwrap();
    listener.output();
    let reflected = feed(&mut listener, &hex(MODERN[0]), 99);
    assert_eq!(reflected, Err(AuthError::Reflected));
    assert_eq!(listener.output(), None);
}

#[test]
fn a_challenge_of_a_client_is_answered_on_no_connection() {
    // The attack that CPython's client falls for: a listener without the key takes two connections
    // of one client, and has the second answer what the first has asked.
    let mut first = client(MinDigest::Md5);
    feed(&mut first, &hex(MODERN[0]), 99).unwrap();
    feed(&mut first, &hex(WELCOME), 99).unwrap();
    let sent = first.output().unwrap();
    let asked = &sent[hex(MODERN[1]).len()..];
    for mut second in [
        client(MinDigest::Md5),
        Client::new(key("secret"), MinDigest::Md5, [9; CLIENT_NONCE_LEN]),
    ] {
        assert_eq!(feed(&mut second, asked, 99), Err(AuthError::Reflected));
        assert_eq!(second.output(), None);
    }
}

#[test]
fn messages_in_one_piece_are_taken_one_by_one() {
    let mut listener = listener(MinDigest::Sha256);
    let service = hex("0000000568656c6c6f");
    let stream = [hex(MODERN[1]), hex(MODERN[3]), hex(WELCOME), service].concat();
    let dialogue = stream.len() - 9;
    assert_eq!(listener.handle(&stream), Ok(dialogue));
    assert_eq!(listener.outcome(), Some(outcome("secret", Digest::Sha256)));
}
