//! The grammar and the framing of HTTP/1.1, clause by clause (RFC 9110, RFC 9112): what each request gets, whether
//! the connection ends behind it, and that nothing behind a refused one is taken for another request.

mod common;

use common::{read, start};
use portyard_testkit::{Client, Daemon, End};

/// A program that answers when it has read everything.
const ECHO: &str = "[[route]]\npath = \"/post\"\nmethods = [\"POST\"]\n\
    cgi = { program = \"/bin/sh\", arguments = [\"-c\", \"cat > /dev/null; printf 'Content-Type: a/b\\\\n\\\\n'\"] }\n";

/// What a request must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// This status, and the connection goes on.
    On(u16),
    /// One of these, and the connection ends, whatever comes behind.
    Off(&'static [u16]),
}

/// Sends a request and, in the same write, another, which must be answered only where the connection goes on.
#[track_caller]
fn judge(daemon: &Daemon, name: &str, request: &[u8], fate: Fate) {
    let client = Client::connect(&daemon.endpoint("http"));
    let behind = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n";
    // Who does not read everything may be cut off in the midst of it.
    client.try_send([request, &behind[..]].concat());
    let is_head = request.starts_with(b"HEAD ");
    let first = read(&client, is_head);
    match fate {
        Fate::On(status) => {
            assert_eq!(first.status, status, "{name}: {}", first.text());
            assert_eq!(read(&client, false).status, 404, "{name}");
        }
        Fate::Off(statuses) => {
            assert!(statuses.contains(&first.status), "{name}: {}", first.head);
            let (rest, end) = client.receive_all();
            assert_eq!(rest, b"", "{name}");
            assert_ne!(end, End::Reset, "{name}");
        }
    }
}

/// A head with a Host, and no empty line.
fn get(fields: &str) -> String {
    format!("GET /hello HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /post HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

const BAD: Fate = Fate::Off(&[400]);

#[test]
fn request_lines_are_read_to_the_letter() {
    let daemon = start("", ECHO);
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for (first, fate) in [
        ("GET /hello HTTP/1.1", Fate::On(200)),
        ("HEAD /hello HTTP/1.1", Fate::On(200)),
        ("\r\nGET /hello HTTP/1.1", Fate::On(200)),
        ("GET http://b/hello HTTP/1.1", Fate::On(200)),
        ("GET HTTP://b/hello HTTP/1.1", Fate::On(200)),
        ("OPTIONS * HTTP/1.1", Fate::On(204)),
        ("DELETE /hello HTTP/1.1", Fate::On(405)),
        ("TRACE /hello HTTP/1.1", Fate::On(405)),
        ("FOO /hello HTTP/1.1", Fate::On(501)),
        ("get /hello HTTP/1.1", Fate::On(501)),
        // What follows it may be meant for whoever would be connected to.
        ("CONNECT a:80 HTTP/1.1", Fate::Off(&[501])),
        ("GET * HTTP/1.1", BAD),
        ("GET hello HTTP/1.1", BAD),
        ("GET a:80 HTTP/1.1", BAD),
        ("GET http:///hello HTTP/1.1", BAD),
        ("GET http://u@b/hello HTTP/1.1", BAD),
        ("GET ftp://b/hello HTTP/1.1", BAD),
        ("GET mailto:b HTTP/1.1", BAD),
        ("GET  /hello HTTP/1.1", BAD),
        (" GET /hello HTTP/1.1", BAD),
        ("GET\t/hello HTTP/1.1", BAD),
        ("GET\x0b/hello HTTP/1.1", BAD),
        ("GET /hel lo HTTP/1.1", BAD),
        ("GET /hello HTTP/1.1 ", BAD),
        ("GET /hello HTTP/1.1\r", BAD),
        ("GET /hel\0lo HTTP/1.1", BAD),
        ("GET /hel\x7flo HTTP/1.1", BAD),
        ("GET /hel\u{e4}lo HTTP/1.1", BAD),
        ("GET /hello#x HTTP/1.1", BAD),
        ("GET /hello", BAD),
        ("GE:T /hello HTTP/1.1", BAD),
        (" /hello HTTP/1.1", BAD),
        ("GET /hello http/1.1", BAD),
        ("GET /hello HTTPX/1.1", BAD),
        ("GET /hello HTTP/0.9", Fate::Off(&[505])),
        ("GET /hello HTTP/1.10", Fate::Off(&[505])),
        ("GET /hello HTTP/01.1", Fate::Off(&[505])),
        ("GET /hello HTTP/1,1", Fate::Off(&[505])),
        ("GET /hello HTTP/2.0", Fate::Off(&[505])),
    ] {
        judge(&daemon, first, line(first).as_bytes(), fate);
    }
    let lf = "GET /hello HTTP/1.1\nHost: a\n\n";
    judge(&daemon, "LF", lf.as_bytes(), BAD);
    judge(
        &daemon,
        "one LF",
        b"GET /hello HTTP/1.1\nHost: a\r\n\r\n",
        BAD,
    );
    judge(
        &daemon,
        "CR CR LF",
        b"GET /hello HTTP/1.1\r\r\nHost: a\r\n\r\n",
        BAD,
    );
    judge(
        &daemon,
        "TLS",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        BAD,
    );
    let absolute = b"GET http://b/hello HTTP/1.1\r\n\r\n";
    judge(&daemon, "a whole URI without Host", absolute, BAD);
}

#[test]
fn a_host_is_there_once_and_is_one() {
    let daemon = start("", ECHO);
    for (fields, fate) in [
        ("Host: [::1]:80\r\n", Fate::On(200)),
        ("Host:\r\n", Fate::On(200)),
        ("", BAD),
        ("Host: a\r\nHost: a\r\n", BAD),
        ("Host: a\r\nHost: b\r\n", BAD),
        ("Host: a b\r\n", BAD),
        ("Host: a/b\r\n", BAD),
        ("Host: u@a\r\n", BAD),
        ("Host: a,b\r\n", BAD),
        ("Host: a:x\r\n", BAD),
        ("Host: a:99999\r\n", BAD),
        ("Host: [::1\r\n", BAD),
        ("Host: [fe80::1%25eth0]\r\n", BAD),
        ("Host: a?b\r\n", BAD),
        ("Host: a#b\r\n", BAD),
        ("Host: a%00b\r\n", BAD),
        ("Host: \u{e4}\r\n", BAD),
        ("Host: http://a\r\n", BAD),
        ("Host:\r\n a\r\n", BAD),
        ("Host : a\r\n", BAD),
    ] {
        let request = format!("GET /hello HTTP/1.1\r\n{fields}\r\n");
        judge(&daemon, fields, request.as_bytes(), fate);
    }
    let old = b"GET /hello HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n";
    judge(&daemon, "two in HTTP/1.0", old, BAD);
}

#[test]
fn fields_are_read_to_the_letter() {
    let daemon = start("", ECHO);
    for (fields, fate) in [
        ("X: \u{e4}\r\n", Fate::On(200)),
        ("X:\r\n", Fate::On(200)),
        ("X:\t a \t\r\n", Fate::On(200)),
        ("Connection: host\r\n", Fate::On(200)),
        ("Upgrade: h2c\r\nConnection: upgrade\r\n", Fate::On(200)),
        ("Upgrade: foo\r\nConnection: upgrade\r\n", Fate::On(200)),
        ("X\r\n", BAD),
        (": x\r\n", BAD),
        ("X : y\r\n", BAD),
        ("X\t: y\r\n", BAD),
        ("X y: z\r\n", BAD),
        ("X(): y\r\n", BAD),
        ("\u{e4}: y\r\n", BAD),
        ("X: a\r\n b\r\n", BAD),
        ("X: a\r\n\tb\r\n", BAD),
        (" \r\n", BAD),
        ("X: a\0b\r\n", BAD),
        ("X\0: b\r\n", BAD),
        ("X: a\rb\r\n", BAD),
        ("X: a\nb\r\n", BAD),
        ("X: a\r\r\n", BAD),
        ("X: a\x07b\r\n", BAD),
        ("X: a\x7fb\r\n", BAD),
        ("X:\x0ba\r\n", BAD),
        ("X: a\x0c\r\n", BAD),
        ("Expect: 200-maybe\r\n", Fate::Off(&[417])),
    ] {
        judge(&daemon, fields, get(fields).as_bytes(), fate);
    }
    let folded = b"GET /hello HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n";
    judge(&daemon, "the first is folded", folded, BAD);
}

#[test]
fn lengths_are_digits_and_there_once() {
    let daemon = start("", ECHO);
    let length = |value: &str| post(&format!("Content-Length:{value}\r\n"), "hello");
    judge(&daemon, "5", length(" 5").as_bytes(), Fate::On(200));
    for value in [
        " +5", " -5", " 0x5", " 5.0", " 5 5", " 5,5", " 5, 6", "", " five", " 5;", " 1e1", " 5_0",
        " \"5\"", " 5\x0b", " 5\x0c", " 5\0", "\r\n 5",
    ] {
        judge(&daemon, value, length(value).as_bytes(), BAD);
    }
    let large: Fate = Fate::Off(&[413]);
    for value in [
        " 18446744073709551616",
        " 99999999999999999999999",
        " 10737418240",
    ] {
        judge(&daemon, value, length(value).as_bytes(), large);
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 0\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        judge(
            &daemon,
            fields,
            post(fields, "5\r\nhello\r\n0\r\n\r\n").as_bytes(),
            BAD,
        );
    }
}

#[test]
fn the_only_transfer_coding_is_chunked_written_so() {
    let daemon = start("", ECHO);
    let refused: Fate = Fate::Off(&[400, 501]);
    judge(
        &daemon,
        "chunked",
        chunked("5\r\nhello\r\n0\r\n\r\n").as_bytes(),
        Fate::On(200),
    );
    for value in [
        "xchunked",
        "chunked, identity",
        "identity",
        "identity, chunked",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        ", chunked",
        "\"chunked\"",
        "chunked;q=1",
        "chunke",
        "chunked x",
        "",
        "\x0bchunked",
        "chunked\x0c",
        "chunked\0",
        "chunked\u{a0}",
        "\r\n chunked",
    ] {
        let request = post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
        judge(&daemon, value, request.as_bytes(), refused);
    }
    for fields in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
    ] {
        judge(
            &daemon,
            fields,
            post(fields, "0\r\n\r\n").as_bytes(),
            refused,
        );
    }
    let old = "POST /post HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    judge(&daemon, "in HTTP/1.0", old.as_bytes(), BAD);
}

#[test]
fn chunks_and_trailers_are_read_to_the_letter() {
    let daemon = start("", ECHO);
    for body in [
        "5;a=b\r\nhello\r\n0\r\n\r\n",
        "5 ; a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "a\r\nhellohello\r\nA\r\nhellohello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        // They mean nothing there.
        "5\r\nhello\r\n0\r\nContent-Length: 3\r\nHost: evil\r\n\r\n",
    ] {
        judge(&daemon, body, chunked(body).as_bytes(), Fate::On(200));
    }
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5\x0b\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5;\x01\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
    ] {
        judge(&daemon, body, chunked(body).as_bytes(), BAD);
    }
    let huge = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(200_000));
    judge(&daemon, "a huge extension", chunked(&huge).as_bytes(), BAD);
}

#[test]
fn what_breaks_off_is_told_or_let_go() {
    let daemon = start("", ECHO);
    for (name, bytes, status) in [
        ("a body", post("Content-Length: 50\r\n", "hello"), Some(400)),
        ("a chunk", chunked("5\r\nhel"), Some(400)),
        ("chunks", chunked("5\r\nhello\r\n"), Some(400)),
        ("a head", "GET /hello HTTP/1.1\r\nHo".to_owned(), None),
        ("a whole request", get(""), Some(200)),
    ] {
        let client = Client::connect(&daemon.endpoint("http"));
        client.send(&bytes);
        client.send_end();
        if let Some(status) = status {
            assert_eq!(read(&client, false).status, status, "{name}");
        }
        assert_ne!(client.receive_all().1, End::Reset, "{name}");
    }
}

#[test]
fn what_is_refused_is_in_the_log_with_a_date_and_counted() {
    let daemon = start("access_log = true", "");
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("GET /hello HTTP/1.1\r\nX\r\n\r\n");
    let told = read(&client, false);
    assert_eq!(told.status, 400);
    assert!(
        told.field("date")
            .is_some_and(|date| date.ends_with(" GMT"))
    );
    assert_eq!(told.field("x-content-type-options"), Some("nosniff"));
    daemon.wait_for_log("refused");
    let log = daemon.log();
    assert!(
        log.contains("status=400") && log.contains("a header field is malformed"),
        "{log}"
    );
    let counted = "portyard_http_requests_total{route=\"-\",class=\"4xx\"}";
    assert_eq!(daemon.count(counted), 1);
    assert_eq!(client.end(), End::Fin);
}
