//! Attacks on an end that connects, by somebody who listens in the server's place.

use std::io;
use std::ops::ControlFlow;

use portyard_core::wire::auth::python::MinDigest;

use crate::oracle::{Dice, Forger};
use crate::stream::{Stream, random};
use crate::victim::{Client, Dialect, server};

/// What an attacker has in one try.
pub struct Try<'a> {
    pub client: &'a Client,
    /// What a server with the key once said to this client, message by message.
    pub recorded: &'a [Vec<u8>],
    pub forger: &'a Forger,
    pub number: usize,
}

/// Makes the try: true when the client believes that the attacker has the key.
pub type Attack = fn(&Try) -> io::Result<bool>;

/// The attacks on each dialect, and whether CPython falls for it. In the recipe the server proves
/// nothing, so there is nothing to attack.
pub fn attacks(dialect: Dialect) -> Vec<(&'static str, Attack, bool)> {
    let mut attacks: Vec<(_, Attack, _)> = match dialect {
        Dialect::Python => vec![
            ("its challenge to a second connection", python_second, true),
            (
                "its challenge, changed, to a second connection",
                python_second_changed,
                false,
            ),
            ("its challenge as our answer", python_same, false),
            ("a forged MD5 for SHA-256", python_md5, true),
            ("a welcome without a question", python_welcome, false),
            ("guessed answers", python_guess, false),
        ],
        Dialect::Mutual => vec![
            ("its hello as our proof", mutual_same, false),
            ("its hello to a second connection", mutual_second, false),
            (
                "version, kind, digest, binding changed",
                mutual_header,
                false,
            ),
            ("guessed proofs", mutual_guess, false),
        ],
        Dialect::Recipe => return Vec::new(),
    };
    attacks.push(("frames too long", too_long, false));
    attacks.push(("a recorded dialogue again", replay, false));
    attacks.push(("cut at every byte", cut, false));
    attacks
}

/// What an honest server says to this client, which must then believe it.
pub fn record(client: &Client) -> Vec<Vec<u8>> {
    let mut recorded = Vec::new();
    let mut stream = client.connection();
    let mut honest = server(client.dialect, MinDigest::Md5);
    let spoken = stream.speak_changed(&mut *honest, |said| {
        recorded.push(said.clone());
        ControlFlow::Continue(said)
    });
    spoken.unwrap();
    assert!(client.believes(stream), "an honest server is not believed");
    recorded
}

pub fn replay(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    stream.send(&at.recorded.concat())?;
    Ok(at.client.believes(stream))
}

/// An honest server that stops after so many bytes of its own; from the last on it is believed.
pub fn cut_after(client: &Client, bytes: usize) -> io::Result<bool> {
    let mut left = bytes;
    let mut stream = client.connection();
    let mut honest = server(client.dialect, MinDigest::Md5);
    stream.speak_changed(&mut *honest, |mut said| {
        if said.len() <= left {
            left -= said.len();
            return ControlFlow::Continue(said);
        }
        said.truncate(left);
        ControlFlow::Break(said)
    })?;
    Ok(client.believes(stream))
}

fn cut(at: &Try) -> io::Result<bool> {
    let all: usize = at.recorded.iter().map(Vec::len).sum();
    cut_after(at.client, at.number % all)
}

fn too_long(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    let headers: [&[u8]; 5] = [
        &[0xff; 4],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff; 12],
        &[0, 0, 1, 1],
        &[0x80, 0, 0, 0],
    ];
    stream.send(headers[at.number % headers.len()])?;
    stream.send(&[b'x'; 1000][..at.number])?;
    Ok(at.client.believes(stream))
}

/// A dialogue up to what the client asks, which it asks of anybody.
fn python_asked(stream: &mut Stream, challenge: &[u8]) -> io::Result<Vec<u8>> {
    stream.send_frame(&[b"#CHALLENGE#", challenge].concat())?;
    stream.receive_frame()?;
    stream.send_frame(b"#WELCOME#")?;
    stream.receive_frame()
}

fn python_challenge() -> Vec<u8> {
    [&b"{sha256}"[..], &random::<40>()].concat()
}

/// The attack that CPython's client falls for: its own second connection answers what its first has
/// asked.
fn python_second(at: &Try) -> io::Result<bool> {
    let mut first = at.client.connection();
    let asked = python_asked(&mut first, &python_challenge())?;
    let mut second = at.client.connection();
    second.send_frame(&asked)?;
    let answer = second.receive_frame()?;
    first.send_frame(&answer)?;
    Ok(at.client.believes(first))
}

/// The same with a challenge that the second connection may take for another.
fn python_second_changed(at: &Try) -> io::Result<bool> {
    let mut first = at.client.connection();
    let asked = python_asked(&mut first, &python_challenge())?;
    let random = &asked[asked.len() - 19..];
    let changed = match at.number % 4 {
        // Up to 3.11 all 20 bytes are random; so few that it is the old dialect.
        // One byte is another one for certain.
        0 => {
            let other = asked[asked.len() - 20] ^ 1;
            [b"#CHALLENGE#", &[other][..], random].concat()
        }
        1 => [b"#CHALLENGE#{sha384}", &asked[11..]].concat(),
        2 => [b"#CHALLENGE#{sha256}", random].concat(),
        _ => [&asked, random].concat(),
    };
    let mut second = at.client.connection();
    second.send_frame(&changed)?;
    let answer = second.receive_frame()?;
    first.send_frame(&answer)?;
    Ok(at.client.believes(first))
}

fn python_same(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    let asked = python_asked(&mut stream, &python_challenge())?;
    let answer = match at.number % 3 {
        0 => &asked[..],
        1 => &asked[11..],
        _ => &asked[11..asked.len().min(11 + 8 + 32)],
    };
    stream.send_frame(answer)?;
    Ok(at.client.believes(stream))
}

/// Somebody for whom HMAC-MD5 holds no secrets any more: asks for it, or not, and answers with it.
fn python_md5(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    let challenge = match at.number % 2 {
        0 => python_challenge(),
        // That of a server up to 3.11.
        _ => random::<20>().to_vec(),
    };
    let asked = python_asked(&mut stream, &challenge)?;
    stream.send_frame(&at.forger.hmac_md5(&asked[11..]))?;
    Ok(at.client.believes(stream))
}

fn python_welcome(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    for _ in 0..=at.number % 3 {
        stream.send_frame(b"#WELCOME#")?;
    }
    Ok(at.client.believes(stream))
}

fn python_guess(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    python_asked(&mut stream, &python_challenge())?;
    let name: &[u8] = [
        &b""[..],
        b"{sha256}",
        b"{sha3_384}",
        b"{md5}",
        b"#WELCOME#",
        b"{sha512}",
    ][at.number % 6];
    let lengths = [0, 16, 20, 31, 32, 33, 48, 200];
    let proof = Dice::new(at.number).bytes(lengths[at.number / 6 % lengths.len()]);
    stream.send_frame(&[name, &proof].concat())?;
    Ok(at.client.believes(stream))
}

fn mutual_same(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    let hello = stream.receive(44)?;
    let proof = match at.number % 4 {
        0 => hello,
        1 => [&MUTUAL_PROOF, &hello[12..], &hello[12..]].concat(),
        2 => [&MUTUAL_PROOF, &random::<32>()[..], &hello[12..]].concat(),
        _ => [&MUTUAL_PROOF, &hello[4..], &hello[4..28]].concat(),
    };
    stream.send(&proof)?;
    Ok(at.client.believes(stream))
}

fn mutual_second(at: &Try) -> io::Result<bool> {
    let mut first = at.client.connection();
    let hello = first.receive(44)?;
    let mut second = at.client.connection();
    let other = second.receive(44)?;
    if at.number.is_multiple_of(2) {
        first.send(&other)?;
        second.send(&hello)?;
    } else {
        first.send(&[&MUTUAL_PROOF, &other[12..], &random::<32>()[..]].concat())?;
        second.send(&[&MUTUAL_PROOF, &hello[12..], &hello[12..]].concat())?;
    }
    Ok(at.client.believes(first) || at.client.believes(second))
}

/// An honest server, and somebody in between who changes one byte of a header.
#[expect(clippy::unnecessary_wraps, reason = "all attacks are of one type")]
fn mutual_header(at: &Try) -> io::Result<bool> {
    let (byte, wrong) = (at.number % 4, at.number / 4 % 255 + 1);
    let mut stream = at.client.connection();
    let mut honest = server(Dialect::Mutual, MinDigest::Sha256);
    let spoken = stream.speak_changed(&mut *honest, |mut said| {
        said[byte] ^= u8::try_from(wrong).unwrap();
        ControlFlow::Continue(said)
    });
    assert!(
        spoken.is_err(),
        "the client has proved its key to a changed server"
    );
    Ok(at.client.believes(stream))
}

fn mutual_guess(at: &Try) -> io::Result<bool> {
    let mut stream = at.client.connection();
    stream.receive(44)?;
    let lengths = [0, 31, 32, 63, 64, 65];
    let rest = Dice::new(at.number).bytes(lengths[at.number % lengths.len()]);
    let header = match at.number % 5 {
        // A refusal for each reason, as anybody can forge it.
        0 => [1, 4, u8::try_from(at.number / 5 % 6).unwrap(), 0],
        _ => MUTUAL_PROOF,
    };
    stream.send(&[&header[..], &rest].concat())?;
    Ok(at.client.believes(stream))
}

/// What begins the second message of `mutual`.
const MUTUAL_PROOF: [u8; 4] = [1, 2, 1, 0];
