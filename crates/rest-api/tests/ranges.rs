//! Several ranges at once, read by programs that others wrote, and beside nginx.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::path::Path;

use common::nginx::Nginx;
use common::{ask, curl, start, url};
use portyard_testkit::{Client, Daemon, python, rss_bytes};

/// A directory at `/files/`, small files and large ones.
fn with_files(directory: &Path) -> Daemon {
    fs::write(directory.join("small.txt"), digits(1000)).unwrap();
    fs::write(directory.join("large.bin"), digits(3_000_000)).unwrap();
    fs::write(directory.join("packed.js"), digits(1000)).unwrap();
    fs::write(directory.join("packed.js.gz"), digits(500)).unwrap();
    let route = format!(
        "[[route]]\npath = \"/files/{{name..}}\"\ndirectory = {{ path = \"{}\", precompressed = true }}\n",
        directory.display()
    );
    start("", &route)
}

fn digits(count: usize) -> Vec<u8> {
    (0..count).map(|n| b"0123456789"[n * n % 97 % 10]).collect()
}

/// Asks with Python and reads the parts with its reader of mail. Writes the status, and for each part its
/// type, its range and a digest of it; or for what has one part alone the same of that.
const READ: &str = r#"
import email, email.policy, hashlib, http.client, sys
port, path, ranges = int(sys.argv[1]), sys.argv[2], sys.argv[3]
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
connection.request("GET", path, headers={"Range": ranges})
answer = connection.getresponse()
body = answer.read()
assert answer.headers["Content-Length"] == str(len(body)), (answer.headers["Content-Length"], len(body))
def tell(kind, place, content):
    return "%s %s %s" % (kind, place, hashlib.md5(content).hexdigest())
kind = answer.headers["Content-Type"]
told = []
if kind.startswith("multipart/byteranges"):
    assert answer.headers["Content-Range"] is None
    head = ("Content-Type: %s\r\n\r\n" % kind).encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert message.is_multipart() and not message.defects, message.defects
    for part in message.get_payload():
        content = part.get_payload(decode=True)
        assert not part.defects
        told.append(tell(part["Content-Type"], part["Content-Range"], content))
elif answer.status != 416:
    told.append(tell(kind, answer.headers["Content-Range"], body))
print(" | ".join([str(answer.status)] + told))
"#;

#[track_caller]
fn read(port: u16, path: &str, ranges: &str) -> String {
    let told = python(READ, &[&port.to_string(), path, ranges]).success();
    told.trim().to_owned()
}

/// The parts without their types.
fn untyped(told: &str) -> Vec<String> {
    let parts = told.split(" | ");
    let bare = parts.map(|part| match part.split_once(" bytes ") {
        Some((_, rest)) => rest.to_owned(),
        None => part.split(' ').next_back().unwrap().to_owned(),
    });
    bare.collect()
}

#[test]
fn several_ranges_are_several_parts_for_curl_and_python() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = with_files(directory.path());
    let raw = curl(&["-r", "0-1,5-6", "-i", &url(&daemon, "/files/small.txt")]);
    let text = String::from_utf8(digits(1000)).unwrap();
    assert!(raw.starts_with("HTTP/1.1 206 "), "{raw}");
    let edge = raw.split("boundary=").nth(1).unwrap();
    let edge = edge.split("\r\n").next().unwrap();
    let body = format!(
        "\r\n\r\n--{edge}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 0-1/1000\r\n\r\n{}\r\n\
         --{edge}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes 5-6/1000\r\n\r\n{}\r\n--{edge}--\r\n",
        &text[..2],
        &text[5..7]
    );
    assert!(raw.ends_with(&body), "{raw}");
    let again = curl(&["-r", "0-1,5-6", "-i", &url(&daemon, "/files/small.txt")]);
    assert!(!again.contains(edge), "a boundary that can be guessed");
    let h2 = [
        "--http2-prior-knowledge",
        "-r",
        "0-1,5-6",
        "-w",
        "%{http_code} %{size_download}",
        "-o",
        "/dev/null",
        &url(&daemon, "/files/small.txt"),
    ];
    assert_eq!(curl(&h2), format!("206 {}", body.len() - 4));
}

#[test]
fn parts_are_those_that_nginx_sends() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = with_files(directory.path());
    let nginx = Nginx::start();
    let files = nginx.place.path().join("files");
    for name in ["small.txt", "large.bin"] {
        fs::copy(directory.path().join(name), files.join(name)).unwrap();
    }
    let port = daemon.address("http").port();
    let both = |name: &str, ranges: &str| {
        let ours = read(port, &format!("/files/{name}"), ranges);
        let theirs = read(nginx.port, &format!("/{name}"), ranges);
        (untyped(&ours), untyped(&theirs))
    };
    for ranges in [
        "bytes=0-1,5-6",
        "bytes=0-0,-1",
        "bytes=900-,0-1",
        "bytes=5-6, 100-99999999",
        "bytes=0-0,2000000-2000000,9999999-",
        "bytes=5-6",
        "bytes=9999999-,99999999-",
        "lines=0-1,5-6",
    ] {
        for name in ["small.txt", "large.bin"] {
            let (ours, theirs) = both(name, ranges);
            assert_eq!(ours, theirs, "{name} {ranges}");
        }
    }
    // What overlaps nginx sends twice, unless all parts together are more than the whole. Ours are put together.
    let (ours, theirs) = both("large.bin", "bytes=0-99,50-149");
    assert_eq!((ours.len(), theirs.len()), (2, 3), "{ours:?} {theirs:?}");
    let one = read(port, "/files/large.bin", "bytes=0-149");
    assert_eq!(untyped(&one), ours);
}

#[test]
fn a_set_that_asks_for_too_much_costs_no_more_than_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = with_files(directory.path());
    let all = vec!["0-"; 90].join(",");
    let told = ask(
        &daemon,
        "GET",
        "/files/small.txt",
        &format!("Range: bytes={all}\r\n"),
        "",
    );
    assert_eq!(
        (told.status, told.field("content-range")),
        (206, Some("bytes 0-999/1000"))
    );
    let many: Vec<String> = (0..200).map(|n| format!("{0}-{0}", 3 * n)).collect();
    let many = format!("Range: bytes={}\r\n", many.join(","));
    let told = ask(&daemon, "GET", "/files/small.txt", &many, "");
    assert_eq!((told.status, told.body.len()), (200, 1000));
}

#[test]
fn several_ranges_of_what_has_changed_or_is_coded_get_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = with_files(directory.path());
    let ask = |path: &str, method: &str, fields: &str| {
        let fields = format!("Range: bytes=0-9,20-29\r\n{fields}");
        ask(&daemon, method, path, &fields, "")
    };
    let parts = ask("/files/small.txt", "GET", "Accept-Encoding: gzip\r\n");
    assert_eq!(parts.status, 206);
    assert_eq!(parts.field("content-encoding"), None);
    assert_eq!(parts.field("vary"), Some("accept-encoding"));
    let etag = parts.field("etag").unwrap();
    let kind = parts.field("content-type").unwrap();
    assert!(
        kind.starts_with("multipart/byteranges; boundary="),
        "{kind}"
    );
    for (fields, status) in [
        (format!("If-Range: {etag}\r\n"), 206),
        ("If-Range: \"x\"\r\n".to_owned(), 200),
        (format!("If-None-Match: {etag}\r\n"), 304),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
    ] {
        let told = ask("/files/small.txt", "GET", &fields);
        assert_eq!(told.status, status, "{fields}");
    }
    let head = ask("/files/small.txt", "HEAD", "");
    assert_eq!(
        (
            head.status,
            head.field("content-length"),
            head.field("accept-ranges")
        ),
        (200, Some("1000"), Some("bytes"))
    );
    // A frame around pieces of gzip would be no gzip.
    let coded = ask("/files/packed.js", "GET", "Accept-Encoding: gzip\r\n");
    assert_eq!(
        (
            coded.status,
            coded.field("content-encoding"),
            coded.body.len()
        ),
        (200, Some("gzip"), 500)
    );
    let beyond = "Range: bytes=5000-,6000-7000\r\n";
    let beyond = common::ask(&daemon, "GET", "/files/small.txt", beyond, "");
    assert_eq!(
        (beyond.status, beyond.field("content-range")),
        (416, Some("bytes */1000"))
    );
}

#[test]
fn parts_of_a_file_are_read_as_the_client_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.bin");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    let daemon = with_files(directory.path());
    let before = rss_bytes(daemon.pid());
    let client = Client::connect(&daemon.endpoint("http"));
    client.send(
        "GET /files/huge.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=0-499999999,500000010-\r\n\r\n",
    );
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &client.receive_line();
    }
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    client.receive(50_000_000);
    let grown = rss_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}
