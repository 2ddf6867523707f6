//! Attacks on an end that listens, by somebody without its key.

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;

use portyard_core::wire::auth::python::MinDigest;
use portyard_core::wire::framing::python_message;

use crate::oracle::{Dice, Forger};
use crate::stream::{Stream, random};
use crate::victim::{Dialect, SECRET, Server, client};

/// What an attacker has in one try.
pub struct Try<'a> {
    pub server: &'a Server,
    /// What a client with the key once said to this server, message by message.
    pub recorded: &'a [Vec<u8>],
    pub forger: &'a Forger,
    pub number: usize,
}

/// Makes the try: true when the service serves the attacker.
pub type Attack = fn(&Try) -> io::Result<bool>;

/// The attacks on each dialect, and whether CPython falls for it.
pub fn attacks(dialect: Dialect) -> Vec<(&'static str, Attack, bool)> {
    let mut attacks: Vec<(_, Attack, _)> = match dialect {
        Dialect::Python => vec![
            ("guessed answers", python_guess, false),
            ("its challenge as our answer", python_same, false),
            ("its challenge to a second connection", python_second, false),
            ("a forged MD5 for SHA-256", python_md5, true),
            ("frames too long", too_long, false),
        ],
        Dialect::Mutual => vec![
            ("guessed answers", mutual_guess, false),
            ("its proof as our answer", mutual_same, false),
            ("its proof to a second connection", mutual_second, false),
            (
                "version, kind, digest, binding changed",
                mutual_header,
                false,
            ),
            ("frames too long", too_long, false),
        ],
        Dialect::Recipe => vec![
            ("guessed answers", recipe_guess, false),
            ("its question as our answer", recipe_same, false),
            ("its question to a second connection", recipe_second, false),
            ("a forged MD5 for SHA-256", recipe_md5, false),
        ],
    };
    attacks.push(("a wrong key", wrong_key, false));
    attacks.push(("a recorded dialogue again", replay, false));
    attacks.push(("cut at every byte", cut, false));
    attacks
}

/// What an honest client says to this server, which must then serve it: without that no attack
/// proves anything.
pub fn record(server: &Server) -> Vec<Vec<u8>> {
    let mut recorded = Vec::new();
    let mut stream = Stream::connect(server.address);
    let mut honest = client(server.dialect, SECRET, MinDigest::Md5);
    let spoken = stream.speak_changed(&mut *honest, |said| {
        recorded.push(said.clone());
        ControlFlow::Continue(said)
    });
    spoken.unwrap();
    assert!(stream.served(), "an honest client is not served");
    recorded
}

pub fn replay(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    stream.send(&at.recorded.concat())?;
    Ok(stream.served())
}

/// An honest client that stops after so many bytes of its own; from the last on it is served.
pub fn cut_after(address: SocketAddr, dialect: Dialect, bytes: usize) -> io::Result<bool> {
    let mut left = bytes;
    let mut stream = Stream::connect(address);
    let mut honest = client(dialect, SECRET, MinDigest::Md5);
    stream.speak_changed(&mut *honest, |mut said| {
        if said.len() <= left {
            left -= said.len();
            return ControlFlow::Continue(said);
        }
        said.truncate(left);
        ControlFlow::Break(said)
    })?;
    Ok(stream.served())
}

fn cut(at: &Try) -> io::Result<bool> {
    let all: usize = at.recorded.iter().map(Vec::len).sum();
    cut_after(at.server.address, at.server.dialect, at.number % all)
}

#[expect(clippy::unnecessary_wraps, reason = "all attacks are of one type")]
fn wrong_key(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let mut stranger = client(at.server.dialect, "wrong", MinDigest::Md5);
    // It gives up; we do not.
    let _ = stream.speak(&mut *stranger);
    Ok(stream.served())
}

fn too_long(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let headers: [&[u8]; 6] = [
        &[0xff; 4],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff; 12],
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0],
        &[0, 0, 1, 1],
        &[0x80, 0, 0, 0],
    ];
    stream.send(headers[at.number % headers.len()])?;
    stream.send(&[b'x'; 1000][..at.number])?;
    Ok(stream.served())
}

fn python_guess(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    stream.receive_frame()?;
    let mut dice = Dice::new(at.number);
    let name: &[u8] = match at.number % 9 {
        0 => b"",
        1 => b"{sha256}",
        2 => b"{sha384}",
        3 => b"{sha3_256}",
        4 => b"{sha3_384}",
        5 => b"{sha512}",
        6 => b"{SHA256}",
        7 => b"{md5}",
        _ => b"#WELCOME#",
    };
    let lengths = [0, 1, 12, 15, 16, 20, 31, 32, 33, 40, 48, 64, 200];
    let proof = dice.bytes(lengths[at.number / 9 % lengths.len()]);
    stream.send_frame(&[name, &proof].concat())?;
    python_push(stream)
}

fn python_same(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let asked = stream.receive_frame()?;
    let answer = match at.number % 3 {
        0 => &asked[..],
        1 => &asked[11..],
        _ => &asked[11..asked.len().min(11 + 8 + 32)],
    };
    stream.send_frame(answer)?;
    python_push(stream)
}

fn python_second(at: &Try) -> io::Result<bool> {
    let mut first = Stream::connect(at.server.address);
    let asked = first.receive_frame()?;
    let mut second = Stream::connect(at.server.address);
    second.receive_frame()?;
    second.send_frame(&asked)?;
    let answer = second.receive_frame()?;
    first.send_frame(&answer)?;
    python_push(first)
}

/// Somebody for whom HMAC-MD5 holds no secrets any more, in front of a server that has offered
/// SHA-256.
fn python_md5(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let asked = stream.receive_frame()?;
    let mut answer = at.forger.hmac_md5(&asked[11..]);
    // Up to 3.11 nothing has a name.
    if at.number % 2 == 1 && asked.starts_with(b"#CHALLENGE#{") {
        answer = [b"{md5}", &answer[..]].concat();
    }
    stream.send_frame(&answer)?;
    python_push(stream)
}

/// The other half of the dialogue, which needs no key: ask, and welcome any answer.
fn python_push(mut stream: Stream) -> io::Result<bool> {
    let asked = [&b"#CHALLENGE#{sha256}"[..], &random::<40>()].concat();
    stream.send(&[python_message(&asked), python_message(b"#WELCOME#")].concat())?;
    Ok(stream.served())
}

fn mutual_guess(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let mut dice = Dice::new(at.number);
    if at.number.is_multiple_of(2) {
        // A hint that somebody with the key has given.
        stream.send(&at.recorded[0])?;
    } else {
        stream.send(&[&at.recorded[0][..4], &dice.bytes(40)].concat())?;
    }
    let proof = match at.number % 3 {
        0 => dice.bytes(32),
        1 => vec![0; 32],
        _ => Vec::new(),
    };
    stream.send(&[&MUTUAL_ANSWER[..], &proof].concat())?;
    Ok(stream.served())
}

fn mutual_same(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    stream.send(&at.recorded[0])?;
    let proof = stream.receive(68)?;
    let answer = match at.number % 4 {
        0 => [&MUTUAL_ANSWER, &proof[36..]].concat(),
        1 => [&MUTUAL_ANSWER, &proof[4..36]].concat(),
        2 => proof,
        _ => at.recorded[0].clone(),
    };
    stream.send(&answer)?;
    Ok(stream.served())
}

fn mutual_second(at: &Try) -> io::Result<bool> {
    let mut first = Stream::connect(at.server.address);
    first.send(&at.recorded[0])?;
    let proof = first.receive(68)?;
    let mut second = Stream::connect(at.server.address);
    // The server's nonce as ours, under a hint of another.
    let hello = match at.number % 2 {
        0 => at.recorded[0].clone(),
        _ => [&at.recorded[0][..12], &proof[4..36]].concat(),
    };
    second.send(&hello)?;
    let other = second.receive(68)?;
    first.send(&[&MUTUAL_ANSWER, &other[36..]].concat())?;
    second.send(&[&MUTUAL_ANSWER, &proof[36..]].concat())?;
    Ok(first.served() || second.served())
}

/// An honest client, and somebody in between who changes one byte of a header.
#[expect(clippy::unnecessary_wraps, reason = "all attacks are of one type")]
fn mutual_header(at: &Try) -> io::Result<bool> {
    // Each of two messages, four bytes and 255 wrong values; the stride reaches all of them.
    let case = at.number * 7 % (2 * 4 * 255);
    let (message, byte, wrong) = (case / 1020, case / 255 % 4, case % 255 + 1);
    let mut count = 0;
    let mut stream = Stream::connect(at.server.address);
    let mut honest = client(Dialect::Mutual, SECRET, MinDigest::Sha256);
    let spoken = stream.speak_changed(&mut *honest, |mut said| {
        if count == message {
            said[byte] ^= u8::try_from(wrong).unwrap();
        }
        count += 1;
        ControlFlow::Continue(said)
    });
    // Whatever the server says to the first must not satisfy the client.
    assert!(message == 1 || spoken.is_err());
    Ok(stream.served())
}

fn recipe_guess(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    stream.receive(32)?;
    let lengths = [0, 1, 16, 31, 32, 33, 48];
    stream.send(&Dice::new(at.number).bytes(lengths[at.number % lengths.len()]))?;
    Ok(stream.served())
}

fn recipe_same(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let asked = stream.receive(32)?;
    stream.send(&asked)?;
    Ok(stream.served())
}

fn recipe_second(at: &Try) -> io::Result<bool> {
    let mut first = Stream::connect(at.server.address);
    let asked = first.receive(32)?;
    let mut second = Stream::connect(at.server.address);
    let other = second.receive(32)?;
    first.send(&other)?;
    second.send(&asked)?;
    Ok(first.served() || second.served())
}

fn recipe_md5(at: &Try) -> io::Result<bool> {
    let mut stream = Stream::connect(at.server.address);
    let proof = at.forger.hmac_md5(&stream.receive(32)?);
    let answer = match at.number % 3 {
        0 => proof,
        1 => [&proof[..], &[0; 16]].concat(),
        _ => [&proof[..], &proof].concat(),
    };
    stream.send(&answer)?;
    Ok(stream.served())
}

/// What stands before the proof in the third message of `mutual`.
const MUTUAL_ANSWER: [u8; 4] = [1, 3, 1, 0];
