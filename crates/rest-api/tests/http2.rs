//! HTTP/2: with real clients, and with frames by hand that mean harm.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::process::Command;
use std::time::Duration;

use common::{curl, start, url};
use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, End, finish, peer};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// GET http://a/hello, as HPACK has it without a table of its own.
const GET: &[u8] = b"\x82\x86\x44\x06/hello\x41\x01a";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn connect(daemon: &Daemon) -> Client {
    let client = Client::connect(&daemon.endpoint("http"));
    client.send([PREFACE, &frame(4, 0, 0, b"")].concat());
    client
}

/// The next frame: its kind, its stream, what it holds.
fn next(client: &Client) -> Option<(u8, u32, Vec<u8>)> {
    let head = client.try_receive(9)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], stream, client.try_receive(length)?))
}

/// The code of the GOAWAY that ends a connection; `None` if it ends without.
fn goodbye(client: &Client) -> Option<u32> {
    let mut code = None;
    while let Some((kind, _, payload)) = next(client) {
        if kind == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    code
}

#[test]
fn curl_and_nghttp_speak_it_by_prior_knowledge() {
    let daemon = start("", "");
    let page = url(&daemon, "/hello?name=two");
    let told = curl(&[
        "--http2-prior-knowledge",
        "-w",
        "%{http_version} %{http_code}",
        &page,
    ]);
    assert!(
        told.contains("Hello, two!") && told.ends_with("2 200"),
        "{told}"
    );
    let told = finish(Command::new(peer("nghttp")).args(["-v", &page, &page]), b"");
    let told = told.success();
    assert!(
        told.contains(":status: 200") && told.contains("Hello, two!"),
        "{told}"
    );
    let load = ["-n", "200", "-c", "4", "-m", "10", &page];
    let told = finish(Command::new(peer("h2load")).args(load), b"").success();
    assert!(told.contains("200 succeeded"), "{told}");
}

#[test]
fn a_host_that_differs_from_the_authority_is_refused() {
    let daemon = start("", "");
    let page = url(&daemon, "/hello");
    let client = connect(&daemon);
    client.send(frame(1, 5, 1, &[GET, b"\x00\x04host\x01b"].concat()));
    let status = loop {
        if let (1, 1, block) = next(&client).unwrap() {
            break block;
        }
    };
    // 400 is the twelfth entry of the static table (RFC 7541, appendix A).
    assert_eq!(status[0], 0x80 | 0x0c);
    let told = curl(&[
        "--http2-prior-knowledge",
        "-H",
        "Host: b",
        "-w",
        "%{http_code}",
        &page,
    ]);
    assert!(told.ends_with("200"), "{told}");
}

#[test]
fn a_client_that_opens_and_resets_for_ever_is_sent_away() {
    let daemon = start("", "");
    let client = connect(&daemon);
    let mut flood = Vec::new();
    for n in 0..5000_u32 {
        flood.extend(frame(1, 5, 2 * n + 1, GET));
        flood.extend(frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    client.try_send(flood);
    // ENHANCE_YOUR_CALM.
    assert_eq!(goodbye(&client), Some(11));
    assert!(curl(&[&url(&daemon, "/hello")]).contains("Hello"));
}

#[test]
fn a_head_that_never_ends_is_sent_away() {
    let daemon = start("", "");
    let client = connect(&daemon);
    client.send(frame(1, 0, 1, GET));
    let piece = [&b"\x00\x01a\x7f\x81\x7e"[..], &[b'a'; 16_000]].concat();
    let mut sent = 0;
    while sent < 64 << 20 && client.try_send(frame(9, 0, 1, &piece)) {
        sent += piece.len();
    }
    // The kernel's own buffers take up to ten megabytes before a client notices that nobody reads.
    assert!(sent < 16 << 20, "{sent} bytes were taken");
    goodbye(&client);
    assert!(curl(&[&url(&daemon, "/hello")]).contains("Hello"));
}

#[test]
fn streams_beyond_the_limit_are_refused_and_the_rest_served() {
    let daemon = start("streams = 2", "");
    let client = connect(&daemon);
    for n in 0..5_u32 {
        client.send(frame(1, 4, 2 * n + 1, &[b"\x83", &GET[1..]].concat()));
    }
    let (mut refused, mut settings) = (0, None);
    while refused < 3 {
        match next(&client).unwrap() {
            (4, _, payload) if !payload.is_empty() => settings = Some(payload),
            // REFUSED_STREAM.
            (3, _, code) if code == [0, 0, 0, 7] => refused += 1,
            _ => {}
        }
    }
    // MAX_CONCURRENT_STREAMS = 2.
    let said = settings.unwrap();
    assert!(
        said.chunks(6).any(|one| one == [0, 3, 0, 0, 0, 2]),
        "{said:?}"
    );
}

#[test]
fn a_drain_says_goodbye() {
    let daemon = start("", "");
    let client = connect(&daemon);
    client.send(frame(1, 5, 1, GET));
    while next(&client).unwrap().0 != 0 {}
    daemon.signal(Signal::SIGTERM);
    assert_eq!(goodbye(&client), Some(0));
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn what_is_no_preface_is_no_http2() {
    let daemon = start("header = \"1s\"", "");
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert_ne!(client.receive_all().1, End::Reset);
    let half = Client::connect(&daemon.endpoint("http"));
    half.send("PRI * HT");
    assert!(half.is_silent_for(Duration::from_millis(300)));
    assert_ne!(half.receive_all().1, End::Reset);
}
