//! Clients that mean harm: they get a clear word or an end, and nobody else notices them.

#[path = "common/doors.rs"]
mod doors;

use std::fmt::Write as _;
use std::io::Write as _;

use doors::{
    Http, answer, bad_inputs, configured, json_call, post, post_with, revision, start, xml_call,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use portyard_testkit::{Client, Daemon, End, anonymous_bytes, eventually};

const DOORS: [&str; 3] = ["xml-rpc", "json-rpc", "python-rpc"];

#[test]
fn documents_that_are_bombs_come_to_a_fault() {
    let daemon = start(&["xml-rpc"], "", "");
    let http = Http::connect(&daemon, "xml-rpc");
    let mut entities = String::from("<!DOCTYPE a [<!ENTITY a0 \"lol\">");
    for level in 1..10 {
        let before = format!("&a{};", level - 1).repeat(10);
        let _ = write!(entities, "<!ENTITY a{level} \"{before}\">");
    }
    let laughs = format!("{entities}]><methodName>&a9;</methodName>");
    let external =
        "<!DOCTYPE a [<!ENTITY b SYSTEM \"file:///etc/passwd\">]><methodName>&b;</methodName>";
    let nested = |depth: usize| {
        let value = "<value><array><data>".repeat(depth) + &"</data></array></value>".repeat(depth);
        format!(
            "<methodCall><methodName>echo</methodName><params><param>{value}</param></params></methodCall>"
        )
    };
    let unclosed = "<a>".repeat(1_000_000);
    let attributes = (0..100_000).fold(String::new(), |mut text, n| {
        let _ = write!(text, " a{n}=\"\"");
        text
    });
    let long_number = format!("<int>{}</int>", "1".repeat(1_000_000));
    let mut count = 0;
    for (name, body) in [
        ("nothing", String::new()),
        ("no XML", "hello".into()),
        ("cut off", "<methodCall><methodName>keys".into()),
        ("another document", "<html></html>".into()),
        ("laughs", laughs),
        ("external entity", external.into()),
        ("deep", nested(65)),
        ("deeper", nested(100_000)),
        ("unclosed", unclosed),
        (
            "attributes",
            format!("<methodName{attributes}>keys</methodName>"),
        ),
        (
            "elements",
            xml_call("echo", &[&"<int>1</int>".repeat(200_000)]),
        ),
        ("a long number", xml_call("echo", &[&long_number])),
        ("no byte of any encoding", "<a>\u{0}</a>".into()),
    ] {
        let answer = http.post(&body);
        assert_eq!(answer.status, 200, "{name}");
        let text = answer.text();
        assert!(text.contains("<fault>"), "{name}: {text}");
        assert!(
            !text.contains("root:") && text.len() < 2000,
            "{name}: {text}"
        );
        count += 1;
        assert_eq!(bad_inputs(&daemon, "xml-rpc"), count, "{name}");
    }
    // The deepest that is taken, over the same connection.
    assert!(!http.post(nested(63)).text().contains("<fault>"));
}

#[test]
fn json_that_is_none_is_a_parse_error() {
    let daemon = start(&["json-rpc"], "", "");
    let http = Http::connect(&daemon, "json-rpc");
    let members = "{\"a\":[".repeat(1000);
    let mut count = 0;
    for (name, body) in [
        ("nothing", String::new()),
        ("cut off", "{\"jsonrpc\":".into()),
        ("XML", "<a/>".into()),
        ("deep", "[".repeat(1_000_000)),
        (
            "deep and closed",
            "[".repeat(200_000) + &"]".repeat(200_000),
        ),
        ("deep in members", members),
        ("half a pair", "\"\\ud800\"".into()),
        ("NaN", "NaN".into()),
    ] {
        let answer = http.post(&body);
        assert_eq!(answer.status, 200, "{name}");
        let text = answer.text();
        assert!(text.contains("-32700"), "{name}: {text}");
        assert!(text.contains("\"id\":null"), "{name}: {text}");
        count += 1;
        assert_eq!(bad_inputs(&daemon, "json-rpc"), count, "{name}");
    }
    let batch = vec!["1"; 1001].join(",");
    assert!(http.post(format!("[{batch}]")).text().contains("-32600"));
}

#[test]
fn a_gzip_bomb_is_refused_before_it_expands() {
    let daemon = measured("");
    let http = Http::connect(&daemon, "xml-rpc");
    assert_eq!(http.post(xml_call("keys", &[])).status, 200);
    let before = anonymous_bytes(daemon.pid());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let blanks = vec![b' '; 1 << 20];
    for _ in 0..200 {
        encoder.write_all(&blanks).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 300_000, "{} bytes for 200 MiB", bomb.len());
    for body in [&bomb[..], b"no gzip", &bomb[..1000]] {
        let http = Http::connect(&daemon, "xml-rpc");
        http.0.send(post_with("Content-Encoding: gzip\r\n", body));
        assert_eq!(http.answer().status, 400);
    }
    // It is held at the largest request, which was there twice while it grew.
    let grown = anonymous_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    http.0.send(post_with("Content-Encoding: br\r\n", "x"));
    assert_eq!(http.answer().status, 501);
}

#[test]
fn what_is_only_announced_takes_no_memory() {
    let caps = [("8MiB", 413), ("4GiB", 0)];
    for (cap, status) in caps {
        let daemon = measured(&format!("options = {{ max_request = \"{cap}\" }}"));
        // What the first connection takes is no growth.
        assert!(is_served(&daemon));
        let before = anonymous_bytes(daemon.pid());
        let mut clients = Vec::new();
        for _ in 0..20 {
            for door in ["xml-rpc", "json-rpc"] {
                let client = connect(&daemon, door);
                client.send("POST / HTTP/1.1\r\nHost: kv\r\nContent-Length: 200000000\r\n\r\nabc");
                if status != 0 {
                    let answer = answer(&client);
                    assert_eq!(answer.status, status, "{door}");
                    client.receive_all();
                }
                clients.push(client);
            }
            for (door, begin) in [
                ("json-rpc", &[0, 0xff, 0xff, 0xff][..]),
                ("json-rpc", b"Content-Length: 4294967295\r\n\r\n{"),
                (
                    "python-rpc",
                    &[
                        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x80,
                    ],
                ),
                ("python-rpc", &[0x7f, 0xff, 0xff, 0xff, 0x80]),
            ] {
                let client = connect(&daemon, door);
                client.send(begin);
                clients.push(client);
            }
        }
        assert!(is_served(&daemon));
        let grown = anonymous_bytes(daemon.pid()).saturating_sub(before);
        assert!(
            grown < 1 << 20,
            "{grown} bytes for {} with {cap}",
            clients.len()
        );
    }
}

#[test]
fn who_drips_costs_others_nothing() {
    let daemon = measured("");
    assert!(is_served(&daemon));
    let before = anonymous_bytes(daemon.pid());
    let request = post(xml_call("set", &["dripped", "slowly"]));
    let drippers: Vec<_> = (0..50).map(|_| connect(&daemon, "xml-rpc")).collect();
    let good = Http::connect(&daemon, "xml-rpc");
    for byte in &request[..request.len() - 1] {
        for dripper in &drippers {
            dripper.send([*byte]);
        }
        let answer = good.post(xml_call("echo", &["quick"]));
        assert!(answer.text().contains("quick"));
    }
    assert!(is_served(&daemon));
    assert_eq!(revision(&daemon), 0);
    let grown = anonymous_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes");
    // In the end they are clients like others.
    for dripper in &drippers {
        dripper.send(&request[request.len() - 1..]);
        assert_eq!(answer(dripper).status, 200);
    }
    assert_eq!(revision(&daemon), 50);
}

#[test]
fn who_drips_for_too_long_is_cut() {
    let daemon = start(&DOORS, "", "[listener.limits]\ntotal = \"200ms\"");
    for door in DOORS {
        let client = connect(&daemon, door);
        eventually("it is cut", || {
            !client.try_send([0x80]) || !client.try_send("P")
        });
    }
}

#[test]
fn requests_that_two_programs_read_differently_are_refused() {
    let daemon = start(&["xml-rpc", "json-rpc"], "", "");
    let inner = xml_call("set", &["smuggled", "in"]);
    let hidden = String::from_utf8(post(&inner)).unwrap();
    let length = hidden.len();
    let host = "POST / HTTP/1.1\r\nHost: kv\r\n";
    let mut count = 0;
    for request in [
        format!("{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        format!(
            "{host}Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{hidden}"
        ),
        format!("{host}Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        format!("{host}Content-Length: 0, 0\r\n\r\n{hidden}"),
        format!("{host}Content-Length: +0\r\n\r\n{hidden}"),
        format!("{host}Content-Length: 0x0\r\n\r\n{hidden}"),
        format!("{host}Content-Length : 0\r\n\r\n{hidden}"),
        format!("{host}Content-Length: 0\n\r\n{hidden}"),
        format!("{host}X: y\n\r\n\r\n{hidden}"),
        format!("{host}X: y\r\n folded\r\n\r\n{hidden}"),
        format!("{host}X: a\rContent-Length: 5\r\n\r\n{hidden}"),
        format!("{host}X: a\u{0}b\r\n\r\n{hidden}"),
        format!("{host}: nameless\r\n\r\n{hidden}"),
        format!("{host}Host: other\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.1\r\n\r\n{hidden}"),
        format!("POST  / HTTP/1.1\r\nHost: kv\r\n\r\n{hidden}"),
        format!("POST / x HTTP/1.1\r\nHost: kv\r\n\r\n{hidden}"),
        format!("POST\t/ HTTP/1.1\r\nHost: kv\r\n\r\n{hidden}"),
        format!("{host}Transfer-Encoding: chunked\r\n\r\n0\n\r\n{hidden}"),
        format!("{host}Transfer-Encoding: chunked\r\n\r\n0;a\rb\r\n\r\n{hidden}"),
        format!("{host}Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}"),
        format!("{host}Transfer-Encoding: chunked\r\n\r\n1\r\naX\r\n0\r\n\r\n{hidden}"),
        format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
    ] {
        assert_eq!(refused(&daemon, &request), 400, "{request:?}");
        count += 1;
    }
    for (status, request) in [
        (
            501,
            format!("{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            501,
            format!("{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (505, format!("POST / HTTP/2.0\r\nHost: kv\r\n\r\n{hidden}")),
    ] {
        assert_eq!(refused(&daemon, &request), status, "{request:?}");
        count += 1;
    }
    assert_eq!(bad_inputs(&daemon, "xml-rpc"), count);
    assert_eq!(revision(&daemon), 0, "a hidden request was done");
    // What is behind a whole request is the next one.
    let client = connect(&daemon, "xml-rpc");
    client.send(hidden.repeat(3));
    for _ in 0..3 {
        assert_eq!(answer(&client).status, 200);
    }
    assert_eq!(revision(&daemon), 3);
}

#[test]
fn floods_of_header_fields_are_refused() {
    let daemon = start(&["xml-rpc", "json-rpc"], "", "");
    let host = "POST / HTTP/1.1\r\nHost: kv\r\n";
    let fields = |count: usize| "X: y\r\n".repeat(count);
    for request in [
        format!("{host}{}\r\n", fields(64)),
        format!("{host}X: {}\r\n\r\n", "y".repeat(20_000)),
        format!("{host}X: {}", "y".repeat(20_000)),
        format!("POST /{} HTTP/1.1\r\nHost: kv\r\n\r\n", "y".repeat(20_000)),
    ] {
        assert_eq!(refused(&daemon, &request), 431);
    }
    let client = connect(&daemon, "xml-rpc");
    let body = xml_call("keys", &[]);
    client.send(post_with(&fields(60), body));
    assert_eq!(answer(&client).status, 200);
}

#[test]
fn a_body_over_the_cap_is_refused_when_it_is_announced() {
    let daemon = start(
        &["xml-rpc", "json-rpc"],
        "",
        "options = { max_request = \"1kB\" }",
    );
    let host = "POST / HTTP/1.1\r\nHost: kv\r\n";
    for request in [
        format!("{host}Content-Length: 1001\r\n\r\n"),
        format!("{host}Content-Length: 99999999999999999999999999\r\n\r\n"),
        format!("{host}Transfer-Encoding: chunked\r\n\r\n3e9\r\n"),
        format!("{host}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n3e8\r\n"),
    ] {
        assert_eq!(refused(&daemon, &request), 413, "{request}");
    }
    // A client that waits to be told to go on is told before it has sent anything.
    let request = format!("{host}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
    assert_eq!(refused(&daemon, &request), 413);
    let fits = format!("{}{}", json_call("size", "[]"), " ".repeat(900));
    assert_eq!(Http::connect(&daemon, "json-rpc").post(fits).status, 200);
}

#[test]
fn requests_that_are_received_share_their_room() {
    let daemon = start(&["xml-rpc", "json-rpc"], "max_receiving = \"1MiB\"", "");
    let receiving = || {
        daemon.status()["store"]["receiving_bytes"]
            .as_u64()
            .unwrap()
    };
    let text = "x".repeat(900_000);
    let request = post(xml_call("set", &["large", &text]));
    let (first, last) = request.split_at(request.len() - 10);
    let large = connect(&daemon, "xml-rpc");
    large.send(first);
    eventually("it is received", || receiving() > 800_000);
    let second = connect(&daemon, "json-rpc");
    second.send(post(json_call("set", &format!("[\"other\",\"{text}\"]"))));
    let refused = answer(&second);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.head.contains("Connection: close"), "{refused:?}");
    // Small ones always have room, and the first is not disturbed.
    assert!(is_served(&daemon));
    large.send(last);
    assert_eq!(answer(&large).status, 200);
    eventually("the room is free", || receiving() == 0);
    let again = Http::connect(&daemon, "json-rpc");
    assert_eq!(
        again
            .post(json_call("set", &format!("[\"other\",\"{text}\"]")))
            .status,
        200
    );
    assert_eq!(revision(&daemon), 2);
}

#[test]
fn random_bytes_break_no_door() {
    let daemon = start(&DOORS, "", "");
    let mut noise = Noise(1);
    for round in 0..60_usize {
        for door in DOORS {
            let client = connect(&daemon, door);
            let mut bytes = noise.bytes(1 + round * 50);
            match round % 3 {
                0 => {}
                1 => bytes = post(&bytes),
                _ => bytes.splice(0..0, *b"{\"jsonrpc\":\"2.0\",").for_each(drop),
            }
            let _ = client.try_send(&bytes);
            if round % 2 == 0 {
                client.reset();
            } else {
                let _ = client.socket().shutdown(std::net::Shutdown::Write);
                client.receive_all();
            }
        }
    }
    assert!(is_served(&daemon));
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// A daemon whose memory is counted in small pages: of huge ones, each is two mebibytes.
#[track_caller]
fn measured(more: &str) -> Daemon {
    let builder = Daemon::build(doors::BINARY).env("MIMALLOC_ALLOW_THP", "0");
    configured(builder, &DOORS, "engine = \"memory\"", more).start()
}

/// The status with which every door over HTTP refuses a request; then the connection must end.
#[track_caller]
fn refused(daemon: &Daemon, request: &str) -> u16 {
    let mut status = 0;
    for door in ["json-rpc", "xml-rpc"] {
        let client = connect(daemon, door);
        client.send(request);
        let answer = answer(&client);
        assert!(answer.head.contains("Connection: close\r\n"), "{answer:?}");
        let (more, end) = client.receive_all();
        assert_eq!((more, end), (Vec::new(), End::Fin), "{request:?}");
        status = answer.status;
    }
    status
}

#[track_caller]
fn is_served(daemon: &Daemon) -> bool {
    let xml = Http::connect(daemon, "xml-rpc").post(xml_call("echo", &["well"]));
    let json = Http::connect(daemon, "json-rpc").post(json_call("echo", "[\"well\"]"));
    xml.text().contains("well") && json.text().contains("well")
}

#[track_caller]
fn connect(daemon: &Daemon, door: &str) -> Client {
    Client::connect(&daemon.endpoint(door))
}

/// Bytes that look random and are the same in each run (xorshift64).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }
}
