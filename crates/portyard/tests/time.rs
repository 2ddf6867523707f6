//! `portyard time` against small servers on ports of their own.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use common::run;
use portyard_wire::sntp::{KissCode, Server, Timestamp, kiss};

const CTIME: &str = "Fri Nov 20 11:41:40 2026";

/// A datagram server that does what `answer` says with each request, counted from 0.
fn datagrams(answer: impl Fn(usize, &[u8], SocketAddr, &UdpSocket) + Send + 'static) -> String {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("udp://{}", server.local_addr().unwrap());
    thread::spawn(move || {
        let mut buffer = [0; 1000];
        for number in 0.. {
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            answer(number, &buffer[..length], from, &server);
        }
    });
    endpoint
}

fn stream(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // As the services do: wait for the client's end, so that closing resets nothing.
        stream.read_to_end(&mut Vec::new()).unwrap();
        stream.write_all(answer).unwrap();
    });
    endpoint
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_unix(now.as_secs().cast_signed(), now.subsec_nanos())
}

#[test]
fn the_services_over_tcp() {
    // The number of 1976 is an example in RFC 868.
    for (service, answer, printed) in [
        ("ctime", &b"Fri Nov 20 11:41:40 2026"[..], CTIME),
        ("daytime", b"Fri Nov 20 11:41:40 2026\r\n", CTIME),
        ("time", b"\x8e\xf3\x05\x00", "1976-01-01T00:00:00Z"),
        ("timestamp", b"[Fri Nov 20 11:41:40 2026] \n", CTIME),
    ] {
        let run = run(&["time", &stream(answer), "--service", service], b"").expect(0);
        assert_eq!(run.text().trim_end(), printed, "{service}");
    }
}

#[test]
fn a_lost_request_is_repeated() {
    let endpoint = datagrams(|number, _, from, server| {
        if number == 2 {
            server.send_to(CTIME.as_bytes(), from).unwrap();
        }
    });
    let run = run(&["time", &endpoint, "--timeout", "50ms"], b"").expect(0);
    assert_eq!(run.text().trim_end(), CTIME);
}

#[test]
fn answers_that_are_none_are_65_and_shown_harmlessly() {
    let endpoint = datagrams(|_, _, from, server| {
        server.send_to(b"\x1b]0;owned\x07", from).unwrap();
    });
    let arguments = ["time", &endpoint, "--service", "time", "--timeout", "20ms"];
    let failed = run(&arguments, b"").expect(65);
    assert!(
        failed.stderr.contains(r"\x1b]0;owned\x07"),
        "{}",
        failed.stderr
    );
    let failed = run(&["time", &stream(b""), "--service", "time"], b"").expect(65);
    assert!(
        failed.stderr.contains("closed without telling"),
        "{}",
        failed.stderr
    );
}

#[test]
fn sntp_prints_what_the_server_says_and_measures_it() {
    let endpoint = datagrams(|_, request, from, server| {
        let ahead = Timestamp(now().0.wrapping_add(3600 << 32));
        let answer = Server::local(3)
            .reply(request, from.port(), ahead, ahead)
            .unwrap();
        // A forged answer comes first.
        let mut forged = answer;
        forged[30] ^= 1;
        server.send_to(&forged, from).unwrap();
        server.send_to(&answer, from).unwrap();
    });
    let arguments = ["time", &endpoint, "--service", "sntp"];
    let text = run(&arguments, b"").expect(0).text().to_owned();
    assert!(
        text.contains("offset     +3599.9") || text.contains("offset     +3600.0"),
        "{text}"
    );
    assert!(text.contains("delay      0."), "{text}");
    assert!(text.contains("stratum    3\n"), "{text}");
    assert!(text.contains("leap       none\n"), "{text}");
    let json = run(&[&arguments[..], &["--json"]].concat(), b"").expect(0);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["stratum"], 3);
    assert!((json["offset_seconds"].as_f64().unwrap() - 3600.0).abs() < 1.0);
}

#[test]
fn an_unsynchronised_server_is_reported_as_such() {
    let endpoint = datagrams(|_, request, from, server| {
        let answer = Server::unsynchronised()
            .reply(request, from.port(), now(), now())
            .unwrap();
        server.send_to(&answer, from).unwrap();
    });
    let text = run(&["time", &endpoint, "--service", "sntp"], b"")
        .expect(0)
        .text()
        .to_owned();
    assert!(text.contains("not synchronised"), "{text}");
    assert!(text.contains("reference  INIT"), "{text}");
}

#[test]
fn a_kiss_of_death_is_69() {
    let endpoint = datagrams(|_, request, from, server| {
        let answer = kiss(KissCode::Rate, request, from.port(), now(), now()).unwrap();
        server.send_to(&answer, from).unwrap();
    });
    let run = run(&["time", &endpoint, "--service", "sntp"], b"").expect(69);
    assert!(run.stderr.contains("RATE"), "{}", run.stderr);
}

#[test]
fn a_late_answer_to_an_earlier_sntp_request_is_measured_by_its_own_time() {
    // The first request is answered when the second one comes, 300 ms later: the delay shows it.
    let endpoint = datagrams(|number, request, from, server| {
        use std::cell::RefCell;
        thread_local!(static FIRST: RefCell<Option<(Vec<u8>, SocketAddr, Timestamp)>> = const { RefCell::new(None) });
        if number == 0 {
            FIRST.set(Some((request.to_vec(), from, now())));
        } else if let Some((request, from, arrived)) = FIRST.take() {
            let answer = Server::local(1)
                .reply(&request, from.port(), arrived, arrived)
                .unwrap();
            server.send_to(&answer, from).unwrap();
        }
    });
    let arguments = [
        "time",
        &endpoint,
        "--service",
        "sntp",
        "--timeout",
        "300ms",
        "--json",
    ];
    let json = run(&arguments, b"").expect(0);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["delay_seconds"].as_f64().unwrap() >= 0.29, "{json}");
}
