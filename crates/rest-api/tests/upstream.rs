//! What a proxy route passes on and what it does not, before a server that tells every byte that it gets.

mod common;

use std::time::Duration;

use common::{Behind, answer, ask, curl, get, read, start, url};
use portyard_testkit::{Client, Daemon, End};

/// A server of Python's that answers with the head that it got and the length of the body, and that speaks to
/// whoever asks for a WebSocket: it gives back what comes, byte for byte.
const WIRE: &str = r#"
import base64, hashlib, socketserver, sys, urllib.parse
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            head = b''
            while not head.endswith(b'\r\n\r\n'):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            fields = {}
            for line in head.split(b'\r\n')[1:-2]:
                name, value = line.split(b': ', 1)
                fields.setdefault(name.lower(), []).append(value)
            if fields.get(b'upgrade') == [b'websocket'] and b'/refuse' not in head:
                key = fields[b'sec-websocket-key'][0] + b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
                accept = base64.b64encode(hashlib.sha1(key).digest())
                self.wfile.write(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
                                 b'Connection: Upgrade\r\nSec-WebSocket-Accept: ' + accept + b'\r\n\r\n')
                while True:
                    piece = self.request.recv(65536)
                    if not piece:
                        return
                    self.wfile.write(piece)
            body = b''
            if b'content-length' in fields:
                body = self.rfile.read(int(fields[b'content-length'][0]))
            while fields.get(b'transfer-encoding') == [b'chunked']:
                size = self.rfile.readline()
                if not size:
                    return
                body += self.rfile.read(int(size, 16))
                self.rfile.readline()
                if int(size, 16) == 0:
                    break
            target = head.split(b' ')[1]
            if target.startswith(b'/raw?'):
                # What the query says, and then nothing more.
                self.wfile.write(urllib.parse.unquote_to_bytes(target[5:]))
                return
            out = head + b'%d bytes' % len(body)
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nETag: "v"\r\nContent-Length: %d\r\n\r\n' % len(out))
            if not head.startswith(b'HEAD '):
                self.wfile.write(out)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    def handle_error(self, request, client_address):
        # Clients go in the midst of a request.
        pass
server = Server(('127.0.0.1', 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

fn in_front(options: &str, more: &str) -> (Behind, Daemon) {
    let behind = Behind::start(WIRE, &[]);
    let route = format!(
        "[[route]]\npath = \"/{{rest..}}\"\nproxy = {{ to = \"http://127.0.0.1:{}\" }}\n{more}\n",
        behind.1
    );
    let daemon = start(options, &route);
    (behind, daemon)
}

#[test]
fn a_route_may_take_more_than_its_listener_and_tells_when_it_is_too_much() {
    let (_behind, daemon) = in_front("max_body = \"1MiB\"", "max_body = \"4MiB\"");
    let body = "x".repeat(3 << 20);
    let told = ask(&daemon, "POST", "/a", "", &body);
    assert!(told.text().ends_with("3145728 bytes"), "{}", told.text());
    let over = format!("Content-Length: {}\r\n", 5 << 20);
    let told = ask(&daemon, "POST", "/a", &over, "");
    assert_eq!(told.status, 413);
    // Without a length too, and by the limit, not by what had been left of it.
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("80000\r\n{}\r\n", "x".repeat(0x80000));
    for _ in 0..9 {
        client.try_send(&chunk);
    }
    let told = answer(&client);
    assert_eq!(told.status, 413, "{}", told.text());
    assert!(told.text().contains("4194304 bytes"), "{}", told.text());
}

#[test]
fn a_body_that_breaks_off_is_its_clients_fault_and_not_the_servers() {
    let (_behind, daemon) = in_front("body = \"1s\"", "");
    for (bytes, status) in [
        ("Content-Length: 10\r\n\r\nhello", 408),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n", 400),
    ] {
        let client = Client::connect(&daemon.endpoint("http"));
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{bytes}"));
        assert_eq!(answer(&client).status, status, "{bytes:?}");
        assert_ne!(client.receive_all().1, End::Reset);
    }
}

#[test]
fn a_slow_upload_may_take_longer_than_an_answer() {
    let (_behind, daemon) = in_front("", "timeout = \"1s\"");
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    // Ten bytes over twice the time that the server has once they are there.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        client.send("x");
    }
    let told = read(&client, false);
    assert_eq!(told.status, 200, "{}", told.text());
    assert!(told.text().ends_with("10 bytes"), "{}", told.text());
}

#[test]
fn options_are_the_servers_to_answer() {
    let (_behind, daemon) = in_front("", "");
    let told = ask(&daemon, "OPTIONS", "/a", "", "");
    assert!(
        told.text().starts_with("OPTIONS /a HTTP/1.1\r\n"),
        "{}",
        told.text()
    );
    let told = ask(&daemon, "QUERY", "/a", "", "body");
    assert!(
        told.text().starts_with("QUERY /a HTTP/1.1\r\n"),
        "{}",
        told.text()
    );
    // That of all of us is ours.
    assert_eq!(ask(&daemon, "OPTIONS", "*", "", "").status, 204);
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_websocket_goes_through_in_both_directions() {
    let (_behind, daemon) = in_front("", "concurrent = 1");
    let client = Client::connect(&daemon.endpoint("http"));
    client.send(format!("GET /ws HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n"));
    let told = read(&client, true);
    assert_eq!(told.status, 101, "{}", told.head);
    // RFC 6455, 1.3.
    let accept = told.field("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(told.field("upgrade"), Some("websocket"));
    assert!(
        told.field("connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    client.send(b"\x81\x00");
    assert_eq!(client.receive(2), b"\x81\x00");
    let much: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    for piece in much.chunks(50_000) {
        client.send(piece);
        assert!(client.receive(piece.len()) == piece);
    }
    // It counts for as long as it lasts.
    assert_eq!(get(&daemon, "/a").status, 503);
    client.send_end();
    assert_eq!(client.receive_all(), (Vec::new(), End::Fin));
    portyard_testkit::eventually("a place", || get(&daemon, "/a").status == 200);
}

#[test]
fn nothing_but_a_websocket_gets_past_the_checks() {
    let (_behind, daemon) = in_front("", "");
    for fields in [
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: foo\r\nConnection: Upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
    ] {
        let told = ask(&daemon, "GET", "/a", fields, "");
        let text = told.text().to_lowercase();
        assert_eq!(told.status, 200, "{fields}");
        assert!(
            !text.contains("upgrade") && !text.contains("http2-settings"),
            "{text}"
        );
    }
    // What the server does not want is an answer like any other.
    let refused = ask(&daemon, "GET", "/refuse", HANDSHAKE, "");
    assert_eq!(refused.status, 200, "{}", refused.head);
    let post = ask(&daemon, "POST", "/a", HANDSHAKE, "body");
    assert!(!post.text().contains("pgrade: "), "{}", post.text());
}

#[test]
fn what_http2_splits_is_one_field_to_the_server_and_its_framing_is_ours() {
    let (_behind, daemon) = in_front("", "");
    let page = url(&daemon, "/a?b");
    let told = curl(&[
        "--http2-prior-knowledge",
        "-H",
        "Cookie: a=b",
        "-H",
        "Cookie: c=d",
        "-H",
        "TE: trailers",
        "--data",
        "hello",
        &page,
    ]);
    assert!(told.starts_with("POST /a?b HTTP/1.1\r\n"), "{told}");
    let lower = told.to_lowercase();
    assert_eq!(lower.matches("cookie: ").count(), 1, "{told}");
    assert!(lower.contains("cookie: a=b; c=d\r\n"), "{told}");
    assert_eq!(lower.matches("content-length: ").count(), 1, "{told}");
    assert!(
        !lower.contains("\r\nte: ") && !lower.contains("transfer-encoding"),
        "{told}"
    );
    assert!(lower.contains("\r\nvia: 2 rest-api\r\n"), "{told}");
}

#[test]
fn a_tag_that_a_coding_of_ours_has_changed_is_the_servers_own_to_the_server() {
    let (_behind, daemon) = in_front("", "");
    let fields = "If-Match: \"v+gzip\", W/\"x+br\"\r\nIf-None-Match: \"v+zstd\"\r\n";
    let told = ask(&daemon, "PUT", "/a", fields, "body")
        .text()
        .to_lowercase();
    assert!(
        told.contains("if-match: \"v\", w/\"x\"\r\n") && told.contains("if-none-match: \"v\"\r\n"),
        "{told}"
    );
}

#[test]
fn an_answer_whose_end_is_not_certain_is_none() {
    let (_behind, daemon) = in_front("", "");
    let raw = |method: &str, answer: &str| {
        let coded: Vec<String> = answer.bytes().map(|byte| format!("%{byte:02x}")).collect();
        ask(&daemon, method, &format!("/raw?{}", coded.concat()), "", "")
    };
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    for (fields, status) in [
        ("Content-Length: 2\r\n\r\nok", 200),
        ("\r\nok", 200),
        (&format!("Transfer-Encoding: Chunked\r\n\r\n{chunks}"), 200),
        (
            &format!("Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n{chunks}"),
            502,
        ),
        (
            &format!("Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            502,
        ),
        (
            &format!("Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}"),
            502,
        ),
        ("Transfer-Encoding: gzip\r\n\r\nok", 502),
        ("Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 502),
        ("Content-Length: x\r\n\r\nok", 502),
        ("Content-Length: +2\r\n\r\nok", 502),
        ("Content-Length : 2\r\n\r\nok", 502),
        ("X: a\r\n b\r\n\r\n", 502),
        ("X: a\rSet-Cookie: b\r\n\r\n", 502),
    ] {
        let told = raw("GET", &format!("HTTP/1.1 200 OK\r\n{fields}"));
        assert_eq!(told.status, status, "{fields:?}: {}", told.head);
        assert!(
            status != 200 || told.text() == "ok",
            "{fields:?}: {}",
            told.text()
        );
    }
    for answer in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 99 X\r\n\r\n",
    ] {
        assert_eq!(raw("GET", answer).status, 502, "{answer:?}");
    }
    // What comes behind an answer is nobody's.
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    assert_eq!(raw("GET", evil).text(), "ok");
    assert!(get(&daemon, "/a").text().starts_with("GET /a "));
    // HEAD is told no length where nobody knows one.
    let head = raw(
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    assert_eq!((head.status, head.field("content-length")), (200, None));
    let head = raw("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(head.field("content-length"), Some("5"));
}
