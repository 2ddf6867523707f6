//! `portyard message` against Python's own listeners.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use common::pki::{Pki, Server};
use common::run;
use portyard_testkit::{Python, pythons};

/// A Listener of this Python that returns `connections` connections' messages.
fn listener(python: &Python, key: &str, connections: &str) -> Server {
    let mut command = Command::new(&python.path);
    command.args(["-c", LISTENER, key, connections]);
    Server::start(command, "PORT ")
}

fn chosen() -> Vec<Python> {
    let chosen: Vec<_> = pythons()
        .into_iter()
        .filter(|python| [(2, 7), (3, 8), (3, 13)].contains(&python.version))
        .collect();
    assert!(chosen.len() >= 3, "{chosen:?}");
    chosen
}

#[test]
fn every_message_comes_back_whole() {
    let pki = Pki::new();
    let large = pki.write("large", &"0123456789abcdef".repeat(100_000));
    for python in chosen() {
        let server = listener(&python, "", "4");
        let endpoint = server.endpoint.as_str();
        let said = run(&["message", endpoint, "one", "", "zwei \u{e9}"], b"").expect(0);
        assert_eq!(said.text(), "one\n\nzwei é\n");
        let said = run(&["message", endpoint], b"a\n\nb\r\nc").expect(0);
        assert_eq!(said.text(), "a\n\nb\\x0d\nc\n");
        let said = run(&["message", endpoint, "--file", &large, "--raw"], b"").expect(0);
        assert!(said.stdout == std::fs::read(&large).unwrap());
        let said = run(&["message", endpoint, "pickle"], b"").expect(0);
        assert!(
            said.text().starts_with("(pickle protocol 2, "),
            "{}",
            said.text()
        );
        assert_eq!(server.finish(), "");
    }
}

#[test]
fn a_key_is_proved_to_every_python_and_a_wrong_one_is_77() {
    let pki = Pki::new();
    let keys = pki.write("keys", "right:text:secret\nwrong:text:other\n");
    for python in chosen() {
        let old = python.version < (3, 12);
        let common = ["--auth", "python", "--auth-key-file", &keys];
        let with = |options: &[&str]| {
            let server = listener(&python, "secret", "1");
            let arguments = [&["message", &server.endpoint, "hi"], options].concat();
            run(&arguments, b"")
        };
        if old {
            let refused = with(&common).expect(77);
            assert!(
                refused.stderr.contains("--min-digest md5"),
                "{}",
                refused.stderr
            );
        }
        let digest = ["--min-digest", if old { "md5" } else { "sha256" }];
        let common = [&common[..], &digest].concat();
        assert_eq!(with(&common).expect(0).text(), "hi\n");
        let wrong = with(&[&common[..], &["--auth-key", "wrong"]].concat()).expect(77);
        assert!(
            wrong.stderr.contains("refused the key wrong"),
            "{}",
            wrong.stderr
        );
        let without = with(&[]).expect(77);
        assert!(
            without.stderr.contains("--auth python"),
            "{}",
            without.stderr
        );
    }
}

/// Serves one connection in a thread: reads what comes, and answers with these bytes.
fn answer(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(bytes).unwrap();
    });
    endpoint
}

#[test]
fn answers_that_are_none_are_told_apart() {
    for (bytes, code, part) in [
        (&b"\x7f\xff\xff\xff"[..], 65, "--max-message"),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            65,
            "--max-message",
        ),
        (b"\xff\xff\xff\xfe", 65, "-2"),
        (b"\0\0\0\x05abc", 74, "in the middle"),
        (b"", 74, "without an answer"),
    ] {
        let run = run(&["message", &answer(bytes), "x"], b"").expect(code);
        assert!(run.stderr.contains(part), "{bytes:?}: {}", run.stderr);
        assert_eq!(run.text(), "");
    }
}

#[test]
fn several_answers_or_none_are_awaited() {
    let both = answer(b"\0\0\0\x01a\0\0\0\x01b");
    let run_two = run(&["message", &both, "x", "--count", "2"], b"").expect(0);
    assert_eq!(run_two.text(), "a\nb\n");
    let none = answer(b"");
    assert_eq!(
        run(&["message", &none, "x", "--count", "0"], b"")
            .expect(0)
            .text(),
        ""
    );
}

#[test]
fn silence_is_75() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    run(&["message", &endpoint, "x", "--timeout", "50ms"], b"").expect(75);
}

const LISTENER: &str = r"
import sys
from multiprocessing.connection import Listener
from multiprocessing import AuthenticationError
key, connections = sys.argv[1].encode('ascii'), int(sys.argv[2])
listener = Listener(('127.0.0.1', 0), authkey=key or None)
print('PORT %d' % listener.address[1])
sys.stdout.flush()
for _ in range(connections):
    try:
        connection = listener.accept()
        while True:
            message = connection.recv_bytes()
            if message == b'pickle':
                import pickle
                message = pickle.dumps([1, 'two'], 2)
            connection.send_bytes(message)
    except (EOFError, IOError, AuthenticationError):
        pass
";
