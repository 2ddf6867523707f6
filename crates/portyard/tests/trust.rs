//! Whom the client trusts, and by what it is trusted: TLS with OpenSSL and Python, keys.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use common::pki::Pki;
use common::{Run, finish, portyard, run};
use portyard_core::tls::exporter;
use portyard_wire::auth::{Handshake, Key, Keys, Secret, mutual, python, recipe};

/// Echoes through TLS with what `options` say, and returns how that ended.
fn echo(endpoint: &str, options: &[&str], input: &[u8]) -> Run {
    run(&[&["echo", endpoint, "--tls"], options].concat(), input)
}

#[test]
fn an_openssl_server_of_the_right_ca_is_trusted_in_both_versions() {
    let pki = Pki::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let server = pki.openssl(&[version]);
        let run = echo(&server.endpoint, &["--ca", &pki.file("ca.pem")], b"abc\n").expect(0);
        assert_eq!(run.text(), "cba\n", "{version}");
    }
}

#[test]
fn tls_1_2_without_the_extended_master_secret_is_65() {
    let pki = Pki::new();
    let server = pki.python(PYTHON_ECHO, &["no ems", "TLSv1_2"]);
    let run = echo(&server.endpoint, &["--ca", &pki.file("ca.pem")], b"x\n").expect(65);
    assert!(
        run.stderr.contains("ExtendedMasterSecret"),
        "{}",
        run.stderr
    );
}

#[test]
fn another_ca_is_77_with_the_fingerprint_and_the_remedies() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = pki.openssl(&[]);
    let run = echo(&server.endpoint, &["--ca", &other.file("ca.pem")], b"x\n").expect(77);
    let pin = format!("--pin sha256:{}", pki.fingerprint);
    for part in ["--ca", &pin, "is not trusted"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    assert_eq!(run.text(), "");
}

#[test]
fn another_name_is_77_unless_it_is_expected() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let at_address = |server: &str| server.replace("localhost", "127.0.0.1");
    let server = pki.openssl(&[]);
    let run = echo(&at_address(&server.endpoint), &["--ca", &ca], b"x\n").expect(77);
    for part in ["dns:localhost", "--server-name"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    let server = pki.openssl(&[]);
    let expected = ["--ca", &ca, "--server-name", "localhost"];
    echo(&at_address(&server.endpoint), &expected, b"x\n").expect(0);
}

#[test]
fn a_pinned_certificate_is_trusted_by_any_name_and_no_other_is() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = pki.openssl(&[]);
    let endpoint = server.endpoint.replace("localhost", "127.0.0.1");
    echo(&endpoint, &["--pin", &pki.fingerprint], b"x\n").expect(0);
    let server = pki.openssl(&[]);
    let run = echo(&server.endpoint, &["--pin", &other.fingerprint], b"x\n").expect(77);
    assert!(run.stderr.contains(&pki.fingerprint), "{}", run.stderr);
}

#[test]
fn without_a_ca_the_systems_are_asked() {
    let pki = Pki::new();
    let with_roots = |file: &str, endpoint: &str| {
        let mut command = portyard();
        command
            .args(["echo", endpoint, "--tls"])
            .env("SSL_CERT_FILE", file)
            .env("SSL_CERT_DIR", pki.file("nowhere"));
        finish(&mut command, b"x\n")
    };
    let server = pki.openssl(&[]);
    with_roots(&pki.file("ca.pem"), &server.endpoint).expect(0);
    let none = with_roots(&pki.file("none.pem"), &server.endpoint).expect(78);
    assert!(none.stderr.contains("ca-certificates"), "{}", none.stderr);
}

#[test]
fn a_server_that_wants_a_certificate_gets_it_or_is_77() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let (cert, key) = (pki.file("client.pem"), pki.file("client.key"));
    for (version, refused) in [("-tls1_2", 65), ("-tls1_3", 77)] {
        let strict = [version, "-Verify", "1", "-verify_return_error"];
        let server = pki.openssl(&strict);
        let run = echo(&server.endpoint, &["--ca", &ca], b"x\n").expect(refused);
        assert!(run.stderr.contains("--cert"), "{}", run.stderr);
        let server = pki.openssl(&strict);
        let ours = ["--ca", &ca, "--cert", &cert, "--key-file", &key];
        assert_eq!(
            echo(&server.endpoint, &ours, b"ab\n").expect(0).text(),
            "ba\n"
        );
    }
    let server = pki.openssl(&[]);
    let swapped = ["--ca", &ca, "--cert", &ca, "--key-file", &key];
    echo(&server.endpoint, &swapped, b"x\n").expect(78);
}

#[test]
fn both_directions_run_at_once_and_each_ends_in_order() {
    let pki = Pki::new();
    let input: Vec<u8> = (0..5_000_000_u32)
        .map(|n| n.to_be_bytes()[3] ^ n.to_be_bytes()[2])
        .collect();
    for version in ["TLSv1_2", "TLSv1_3"] {
        // One answers as it reads, one only after our half has ended.
        for mode in ["at once", "at the end"] {
            let server = pki.python(PYTHON_ECHO, &[mode, version]);
            let run = echo(&server.endpoint, &["--ca", &pki.file("ca.pem")], &input).expect(0);
            assert!(run.stdout == input, "{version}, {mode}");
            assert_eq!(server.finish(), "ended in order\n", "{version}, {mode}");
        }
    }
}

#[test]
fn a_session_that_is_cut_is_74_after_what_came() {
    let pki = Pki::new();
    let server = pki.python(PYTHON_ECHO, &["cut", "TLSv1_3"]);
    let run = echo(&server.endpoint, &["--ca", &pki.file("ca.pem")], b"half").expect(74);
    assert_eq!(run.text(), "half");
    assert!(run.stderr.contains("cut short"), "{}", run.stderr);
}

#[test]
fn a_server_without_tls_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 100];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let run = echo(&endpoint, &["--pin", &"0".repeat(64)], b"x").expect(65);
    assert!(run.stderr.contains("port of TLS"), "{}", run.stderr);
}

#[test]
fn a_handshake_that_does_not_go_on_is_75() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let options = ["--pin", &"0".repeat(64), "--timeout", "50ms"];
    echo(&endpoint, &options, b"x").expect(75);
}

#[test]
fn the_time_and_the_load_go_through_tls_too() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let endpoint = pki.serve(|mut stream| {
        stream.write_all(b"Fri Nov 20 11:41:40 2026\r\n").unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let arguments = [
        "time",
        &endpoint,
        "--service",
        "daytime",
        "--tls",
        "--ca",
        &ca,
    ];
    assert_eq!(
        run(&arguments, b"").expect(0).text(),
        "Fri Nov 20 11:41:40 2026\n"
    );

    for (kind, resumed) in [
        (&["echo", "--size", "20000", "--depth", "3"][..], false),
        (&["connect"], false),
        (&["connect", "--resume"], true),
    ] {
        let log = pki.file(&kind.concat());
        let server = pki.python(PYTHON_LOAD, &[&log]);
        let common = [
            "--tls",
            "--ca",
            &ca,
            "--connections",
            "2",
            "--seconds",
            "1",
            "--json",
        ];
        let arguments = [&["bench"], kind, &[&server.endpoint], &common].concat();
        let run = run(&arguments, b"").expect(0);
        let result: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert!(result["operations"].as_u64().unwrap() > 2, "{result}");
        assert_eq!(result["errors"], 0, "{result}");
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log.contains("resumed"), resumed, "{kind:?}");
    }
}

#[test]
fn each_key_dialogue_proves_our_key() {
    for dialect in ["python", "recipe", "mutual"] {
        for (name, code) in [("right", 0), ("wrong", 77)] {
            let (endpoint, pki) = guarded(dialect);
            let keys = pki.write("keys", "right:text:secret\nwrong:text:other\n");
            let options = [
                "--auth",
                dialect,
                "--auth-key-file",
                &keys,
                "--auth-key",
                name,
            ];
            let arguments = [&["echo", &endpoint], &options[..]].concat();
            let run = run(&arguments, b"hello");
            if dialect == "recipe" && name == "wrong" {
                // Nothing in this dialogue tells the client that it was refused.
                assert_eq!(run.text(), "");
                continue;
            }
            let run = run.expect(code);
            assert_eq!(run.text(), if code == 0 { "hello" } else { "" });
            if code != 0 {
                assert!(run.stderr.contains("the key wrong"), "{}", run.stderr);
            }
        }
    }
}

/// A server that wants a key before it echoes.
fn guarded(dialect: &str) -> (String, Pki) {
    let keys = Keys::from(Key::new("k", Secret::new(b"secret".to_vec()).unwrap()));
    let mut machine: Box<dyn Handshake + Send> = match dialect {
        "python" => Box::new(python::Listener::new(
            keys,
            python::MinDigest::Sha256,
            [1; python::LISTENER_NONCE_LEN],
        )),
        "recipe" => Box::new(recipe::Server::new(
            keys,
            portyard_wire::auth::Digest::Sha256,
            [1; recipe::NONCE_LEN],
        )),
        _ => Box::new(mutual::Server::new(keys, [1; mutual::NONCE_LEN], None)),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if shake(&mut stream, &mut *machine) {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            stream.write_all(&rest).unwrap();
        }
    });
    (endpoint, Pki::new())
}

/// Has a dialogue as the listening end; whether the key was proved.
fn shake(stream: &mut (impl Read + Write), machine: &mut dyn Handshake) -> bool {
    loop {
        if let Some(bytes) = machine.output() {
            stream.write_all(&bytes).unwrap();
            stream.flush().unwrap();
        }
        if machine.outcome().is_some() {
            return true;
        }
        let mut buffer = vec![0; machine.wanted()];
        let length = stream.read(&mut buffer).unwrap();
        if length == 0 || machine.handle(&buffer[..length]).is_err() {
            let _ = stream.write_all(&machine.output().unwrap_or_default());
            return false;
        }
    }
}

#[test]
fn a_mutual_proof_is_bound_to_the_tls_session() {
    let pki = Pki::new();
    let keys = pki.write("keys", "k:text:secret\n");
    let ca = pki.file("ca.pem");
    let options = ["--ca", &ca, "--auth", "mutual", "--auth-key-file", &keys];
    for bound in [true, false] {
        let endpoint = pki.serve(move |mut stream| {
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            let mut binding = exporter(&stream.conn).unwrap();
            if !bound {
                // As seen by somebody who carries the bytes from another session.
                binding[0] ^= 1;
            }
            let keys = Keys::from(Key::new("k", Secret::new(b"secret".to_vec()).unwrap()));
            let mut machine = mutual::Server::new(keys, [1; 32], Some(binding));
            if shake(&mut stream, &mut machine) {
                stream.write_all(b"welcome").unwrap();
            }
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            // A close with something unread would be a reset, and the client would see that instead.
            let _ = stream.sock.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream.sock, &mut std::io::sink());
        });
        let run = echo(&endpoint, &options, b"").expect(if bound { 0 } else { 77 });
        assert_eq!(run.text(), if bound { "welcome" } else { "" });
    }
}

#[test]
fn options_that_do_nothing_alone_are_mistakes() {
    let pki = Pki::new();
    let keys = pki.write("keys", "k:text:secret\n");
    for (options, part) in [
        (&["--ca", "x"][..], "--tls"),
        (&["--pin", &pki.fingerprint], "--tls"),
        (&["--server-name", "x"], "--tls"),
        (&["--tls", "--cert", "x"], "--key-file"),
        (&["--auth", "mutual"], "--auth-key-file"),
        (&["--auth-key-file", &keys], "--auth"),
        (&["--tls", "--pin", "sha256:12"], "64 hexadecimal"),
        (
            &[
                "--auth",
                "mutual",
                "--auth-key-file",
                &keys,
                "--auth-key",
                "other",
            ],
            "the keys are: k",
        ),
    ] {
        let arguments = [&["echo", "tcp://127.0.0.1:7"], options].concat();
        let run = run(&arguments, b"").expect(64);
        assert!(run.stderr.contains(part), "{options:?}: {}", run.stderr);
    }
    for arguments in [
        &["echo", "udp://127.0.0.1:7", "--tls"][..],
        &[
            "echo",
            "unix:/nowhere",
            "--tls",
            "--ca",
            &pki.file("ca.pem"),
        ],
    ] {
        run(arguments, b"").expect(64);
    }
}

#[test]
fn a_key_that_others_can_read_is_78() {
    let pki = Pki::new();
    let keys = pki.write("keys", "k:text:secret\n");
    std::process::Command::new("chmod")
        .args(["644", &keys])
        .status()
        .unwrap();
    let arguments = [
        "echo",
        "tcp://127.0.0.1:7",
        "--auth",
        "mutual",
        "--auth-key-file",
        &keys,
    ];
    let run = run(&arguments, b"").expect(78);
    assert!(run.stderr.contains("chmod 600"), "{}", run.stderr);
}

const PYTHON_ECHO: &str = r"
import socket, ssl, sys
cert, key, ca, mode, version = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
context.load_cert_chain(cert, key)
if mode == 'no ems':
    # SSL_OP_NO_EXTENDED_MASTER_SECRET, which the module has no name for.
    context.options |= 1
listener = socket.create_server(('127.0.0.1', 0))
print('PORT', listener.getsockname()[1], flush=True)
# An end without close_notify is an error.
stream = context.wrap_socket(listener.accept()[0], True, suppress_ragged_eofs=False)
kept = b''
while True:
    piece = stream.recv(65536)
    if not piece:
        break
    if mode == 'at once':
        stream.sendall(piece)
    else:
        kept += piece
stream.sendall(kept)
if mode != 'cut':
    stream.unwrap()
    print('ended in order')
stream.close()
";

/// An echo server for many connections, a thread each.
const PYTHON_LOAD: &str = r"
import socket, ssl, sys, threading
cert, key, ca, log = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
listener = socket.create_server(('127.0.0.1', 0))
print('PORT', listener.getsockname()[1], flush=True)
log = open(log, 'w', buffering=1)
def serve(plain):
    try:
        stream = context.wrap_socket(plain, True)
        log.write('resumed\n' if stream.session_reused else 'full\n')
        while True:
            piece = stream.recv(65536)
            if not piece:
                return
            stream.sendall(piece)
    except OSError:
        pass
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
";
