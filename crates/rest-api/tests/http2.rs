//! HTTP/2: with real clients, and with frames by hand that mean harm.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::collections::BTreeSet;
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
fn a_frame_that_is_announced_as_huge_is_refused_and_half_a_frame_does_not_stay() {
    let builder = common::builder();
    let text = common::config(&builder, "", "").replace(
        "[listener.options]",
        "[listener.limits]\nidle = \"1s\"\n[listener.options]",
    );
    let daemon = builder.config(&text).start();
    for kind in [0, 1, 4, 6, 0xff] {
        let client = connect(&daemon);
        // The longest that can be said, of which nothing comes: FRAME_SIZE_ERROR.
        client.send(
            [
                &[0xff, 0xff, 0xff, kind, 0, 0xff, 0xff, 0xff, 0xff][..],
                b"x",
            ]
            .concat(),
        );
        assert_eq!(goodbye(&client), Some(6), "{kind}");
    }
    for half in [&frame(1, 0, 1, GET)[..5], &frame(1, 5, 1, GET)[..12]] {
        let client = connect(&daemon);
        client.send(half);
        goodbye(&client);
    }
    assert!(curl(&[&url(&daemon, "/hello")]).contains("Hello"));
}

/// A field as HPACK has it without tables.
fn field(name: &str, value: &str) -> Vec<u8> {
    let (name, value) = (name.as_bytes(), value.as_bytes());
    let lengths = (
        u8::try_from(name.len()).unwrap(),
        u8::try_from(value.len()).unwrap(),
    );
    [&[0, lengths.0][..], name, &[lengths.1], value].concat()
}

#[test]
fn what_http1_would_not_have_is_refused_here_too() {
    let daemon = start("", "");
    let path = |path: &str| [b"\x82\x86\x41\x01a", &field(":path", path)[..]].concat();
    let with = |fields: &[Vec<u8>]| [GET, &fields.concat()[..]].concat();
    for (block, name) in [
        (path("/\"x"), "a quote"),
        (path("/\u{e4}"), "no ASCII"),
        (path("*"), "an asterisk"),
        (
            path("/a/../b"),
            "nothing: there is no route that could be got around",
        ),
        (with(&[field("x", " a")]), "a blank before"),
        (with(&[field("x", "a\t")]), "a blank behind"),
        (
            with(&[field("content-length", "0"), field("content-length", "0")]),
            "two lengths",
        ),
        (with(&[field("host", "a"), field("host", "a")]), "two hosts"),
        (with(&[field("expect", "x")]), "an expectation"),
    ] {
        let client = connect(&daemon);
        client.send(frame(1, 5, 1, &block));
        let status = loop {
            match next(&client).unwrap() {
                (1, 1, block) => break block[0],
                (3 | 7, ..) => panic!("{name}"),
                _ => {}
            }
        };
        // 400 and 404 are entries of the static table; 417 is not.
        let expected = match name {
            "an expectation" => 0x48,
            name if name.starts_with("nothing") => 0x80 | 0x0d,
            _ => 0x80 | 0x0c,
        };
        assert_eq!(status, expected, "{name}");
    }
    // These are no requests at all (RFC 9113, 8.2.2, 8.3.1).
    for block in [
        path(""),
        path("/a b"),
        path("/a\r\nX: y"),
        path("http://b/"),
        with(&[field("transfer-encoding", "chunked")]),
        with(&[field("connection", "close")]),
        with(&[field("te", "gzip")]),
        with(&[field("content-length", "5")]),
        with(&[field("x", "a\r\nb: c")]),
        with(&[field("X", "a")]),
    ] {
        let client = connect(&daemon);
        client.send(frame(1, 5, 1, &block));
        let kind = loop {
            if let (kind @ (1 | 3 | 7), ..) = next(&client).unwrap() {
                break kind;
            }
        };
        assert_ne!(kind, 1, "{block:?}");
    }
}

#[test]
fn an_answer_that_is_not_taken_is_reset_beside_pings_and_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large");
    std::fs::write(&path, vec![0; 200_000]).unwrap();
    let builder = common::builder();
    let route = format!(
        "[[route]]\npath = \"/file\"\nfile = {{ path = \"{}\" }}\n",
        path.display()
    );
    let text = common::config(&builder, "", &route);
    let text = text.replace(
        "[listener.options]",
        "limits.write_stall = \"1s\"\n[listener.options]",
    );
    let daemon = builder.config(&text).start();
    let client = connect(&daemon);
    // A window of one byte for each stream.
    client.send(frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]));
    let asked = [b"\x82\x86\x41\x01a", &field(":path", "/file")[..]].concat();
    client.send([frame(1, 5, 1, &asked), frame(1, 5, 3, &asked)].concat());
    let (mut reset, mut answered) = (Vec::new(), false);
    while reset.len() < 2 {
        match next(&client).unwrap() {
            // CANCEL.
            (3, stream, code) if code == [0, 0, 0, 8] => reset.push(stream),
            (1, 3, _) => client.send(frame(6, 0, 0, b"01234567")),
            (6, ..) => answered = true,
            _ => {}
        }
    }
    reset.sort_unstable();
    assert!(reset == [1, 3] && answered, "{reset:?}");
    // The connection goes on.
    client.send(frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]));
    client.send(frame(1, 5, 5, &asked));
    let mut got = 0;
    // What the connection's own window leaves.
    while got < 65_000 {
        if let (0, 5, data) = next(&client).unwrap() {
            got += data.len();
        }
    }
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
fn bodies_that_nobody_wants_and_that_do_not_come_are_let_go_of() {
    let daemon = start("", "");
    let client = connect(&daemon);
    // As many as there may be at a time, twice.
    for round in 0..2 {
        let mut open: BTreeSet<u32> = (0..100)
            .map(|number| 2 * (100 * round + number) + 1)
            .collect();
        for stream in &open {
            client.send(frame(1, 4, *stream, b"\x83\x86\x44\x06/hello\x41\x01a"));
        }
        while !open.is_empty() {
            let (kind, stream, payload) = next(&client).unwrap();
            if kind == 3 {
                assert_eq!(payload, [0; 4], "not without an error");
                open.remove(&stream);
            }
        }
    }
    client.send(frame(1, 5, 999, b"\x82\x86\x44\x06/hello\x41\x01a"));
    while next(&client).unwrap().1 != 999 {}
}

#[test]
fn a_client_sees_the_answer_before_its_stream_is_reset() {
    let daemon = start("", "");
    // A reset directly behind the answer makes curl 7.88 fail with "Stream error" instead of telling it. Here what
    // is asked after the answer is answered before the reset.
    let is_later = || {
        let client = connect(&daemon);
        // POST, whose body does not come; /hello needs none.
        let post = b"\x83\x86\x44\x06/hello\x41\x01a";
        client.send(frame(1, 4, 1, post));
        while next(&client).unwrap().0 != 0 {}
        client.send(frame(6, 0, 0, b"12345678"));
        loop {
            match next(&client).unwrap().0 {
                6 => return true,
                3 => return false,
                _ => {}
            }
        }
    };
    // It comes after a second, which a busy machine may take for itself.
    assert!((0..10).any(|_| is_later()));
    // And a body that is little is read to its end.
    let page = url(&daemon, "/hello");
    let body = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(body.path(), vec![0; 100_000]).unwrap();
    let body = format!("@{}", body.path().display());
    let posting = [
        "--http2-prior-knowledge",
        "-H",
        "Accept: text/plain",
        "--data-binary",
    ];
    let told = curl(&[&posting[..], &[&body, &page]].concat());
    assert!(told.starts_with("405 Method Not Allowed"), "{told}");
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
