//! WebSockets, by hand.

use portyard_testkit::{Client, Daemon};

use super::{common, start};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[track_caller]
fn open(daemon: &Daemon, target: &str) -> Client {
    let client = Client::connect(&daemon.endpoint("httpbin"));
    client.send(request(target, &format!("Upgrade: websocket\r\n{KEY}")));
    let answer = common::answer(&client);
    assert_eq!(answer.status, 101, "{}", answer.head);
    let accept = answer.field("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client
}

fn request(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// A frame of a client, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(0x7f);
    assert!(length < 126, "this helper knows short frames alone");
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[test]
fn what_comes_goes_back_in_fragments_of_the_size_that_is_asked_for() {
    let daemon = start("");
    let client = open(
        &daemon,
        "/websocket/echo?max_fragment_size=4&max_message_size=10",
    );
    // Several at once, and one in two pieces.
    client.send([frame(0x81, b"abcd"), frame(0x89, b"p"), frame(0x01, b"ab")].concat());
    assert_eq!(client.receive(6), b"\x81\x04abcd");
    assert_eq!(client.receive(3), b"\x8a\x01p");
    let last = frame(0x80, b"cdef");
    client.send(&last[..5]);
    client.send(&last[5..]);
    assert_eq!(client.receive(10), b"\x01\x04abcd\x80\x02ef");
    client.send(frame(0x88, b"\x03\xe8bye"));
    assert_eq!(client.receive(4), b"\x88\x02\x03\xe8");
    client.end();
}

#[test]
fn what_is_too_large_or_wrong_ends_it_with_its_code() {
    let daemon = start("");
    let target = "/go/websocket/echo?max_fragment_size=4&max_message_size=6";
    for (bytes, code) in [
        (frame(0x82, b"12345"), 1009_u16),
        ([frame(0x02, b"1234"), frame(0x80, b"123")].concat(), 1009),
        (frame(0x81, b"\xff"), 1007),
        (b"\x81\x00".to_vec(), 1002),
        (frame(0xc1, b""), 1002),
    ] {
        let client = open(&daemon, target);
        client.send(&bytes);
        let close = client.receive(4);
        assert_eq!(
            (close[0], &close[2..]),
            (0x88, &code.to_be_bytes()[..]),
            "{bytes:?}"
        );
    }
}

#[test]
fn it_lasts_no_longer_than_a_request_may() {
    let daemon = start("httpbin.max_duration = \"200ms\"");
    let client = open(&daemon, "/websocket/echo");
    let (bytes, _) = client.receive_all();
    assert_eq!(&bytes[2..], b"\x03\xf0time is up");
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    let daemon = start("");
    let upgrade = format!("Upgrade: websocket\r\n{KEY}");
    for (target, request) in [
        ("no upgrade", request("/websocket/echo", KEY)),
        (
            "no key",
            request("/websocket/echo", "Upgrade: websocket\r\n"),
        ),
        (
            "short key",
            request(
                "/websocket/echo",
                "Upgrade: websocket\r\nSec-WebSocket-Key: YQ==\r\n",
            ),
        ),
        (
            "version",
            request("/websocket/echo", &upgrade).replace("13\r\n", "8\r\n"),
        ),
        (
            "connection",
            request("/websocket/echo", &upgrade).replace("keep-alive, Upgrade", "close"),
        ),
        (
            "size",
            request("/websocket/echo?max_message_size=0", &upgrade),
        ),
        (
            "sizes",
            request(
                "/websocket/echo?max_message_size=1&max_fragment_size=2",
                &upgrade,
            ),
        ),
    ] {
        let client = Client::connect(&daemon.endpoint("httpbin"));
        client.send(request);
        assert_eq!(common::answer(&client).status, 400, "{target}");
    }
}
