//! `portyard bench` against small servers on ports of their own.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use common::run;
use portyard_wire::sntp::{Server, Timestamp};
use serde_json::Value;

/// An echo server, one thread a connection; `spoil` changes what goes back.
fn echo(spoil: fn(&mut [u8])) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    spoil(&mut buffer[..length]);
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    endpoint
}

/// A datagram server that answers with what `answer` makes of a request.
fn datagrams(answer: impl Fn(u32, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> String {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("udp://{}", server.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        for number in 0.. {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            if let Some(answer) = answer(number, &buffer[..length]) {
                // The client's socket may be closed by now.
                let _ = server.send_to(&answer, from);
            }
        }
    });
    endpoint
}

fn json(arguments: &[&str]) -> Value {
    let run = run(arguments, b"").expect(0);
    assert_eq!(run.text().lines().count(), 1);
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn echo_is_measured_at_several_shapes() {
    let endpoint = echo(|_| {});
    for shape in [
        &["--connections", "1"][..],
        &["--connections", "8", "--depth", "16", "--loops", "2"],
        &["--connections", "2", "--size", "200000", "--depth", "3"],
        &["--connections", "3", "--size", "1", "--depth", "1024"],
    ] {
        let base = ["bench", "echo", &endpoint, "--seconds", "1", "--json"];
        let result = json(&[&base[..], shape].concat());
        assert!(result["operations"].as_u64().unwrap() > 10, "{result}");
        assert_eq!((&result["errors"], &result["lost"]), (&0.into(), &0.into()));
        let latency = |name: &str| result["latency_us"][name].as_f64().unwrap();
        assert!(
            latency("p50") > 0.0 && latency("p50") <= latency("p99"),
            "{result}"
        );
        assert!(latency("p99.9") <= latency("max"), "{result}");
    }
}

#[test]
fn a_byte_that_comes_back_changed_is_65() {
    let endpoint = echo(|bytes| bytes[0] ^= 1);
    let run = run(&["bench", "echo", &endpoint, "--seconds", "9"], b"").expect(65);
    assert!(run.stderr.contains("byte 0 "), "{}", run.stderr);
}

#[test]
fn connections_are_counted() {
    let result = json(&[
        "bench",
        "connect",
        &echo(|_| {}),
        "--seconds",
        "1",
        "--json",
    ]);
    assert!(result["operations"].as_u64().unwrap() > 10, "{result}");
    assert_eq!(result["errors"], 0, "{result}");
}

#[test]
fn datagrams_are_counted_and_losses_too() {
    // Two requests in the first window of each socket are dropped.
    let endpoint = datagrams(|number, request| (number >= 2).then(|| request.to_vec()));
    let result = json(&[
        "bench",
        "udp",
        &endpoint,
        "--request",
        "echo",
        "--seconds",
        "2",
        "--sockets",
        "2",
        "--window",
        "4",
        "--json",
    ]);
    assert!(result["operations"].as_u64().unwrap() > 10, "{result}");
    assert_eq!(
        (&result["lost"], &result["errors"]),
        (&2.into(), &0.into()),
        "{result}"
    );
}

#[test]
fn times_and_sntp_are_taken_as_answers() {
    let endpoint = datagrams(|_, request| {
        assert_eq!(request.len(), 1);
        Some(b"Fri Nov 20 11:41:40 2026".to_vec())
    });
    let result = json(&["bench", "udp", &endpoint, "--seconds", "1", "--json"]);
    assert!(result["operations"].as_u64().unwrap() > 10, "{result}");
    let endpoint = datagrams(|_, request| {
        let now = Timestamp(1 << 63);
        Some(
            Server::local(1)
                .reply(request, 40_000, now, now)
                .unwrap()
                .to_vec(),
        )
    });
    let arguments = [
        "bench",
        "udp",
        &endpoint,
        "--request",
        "sntp",
        "--seconds",
        "1",
        "--json",
    ];
    let result = json(&arguments);
    assert!(result["operations"].as_u64().unwrap() > 10, "{result}");
    assert_eq!(
        (&result["lost"], &result["errors"]),
        (&0.into(), &0.into()),
        "{result}"
    );
}

#[test]
fn nobody_there_is_69_and_silence_75() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for kind in ["echo", "connect"] {
        run(
            &["bench", kind, &format!("tcp://{closed}"), "--seconds", "1"],
            b"",
        )
        .expect(69);
    }
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    run(
        &["bench", "udp", &format!("udp://{closed}"), "--seconds", "1"],
        b"",
    )
    .expect(69);
    let silent = datagrams(|_, _| None);
    run(&["bench", "udp", &silent, "--seconds", "1"], b"").expect(75);
}
