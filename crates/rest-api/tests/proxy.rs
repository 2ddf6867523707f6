//! Proxy routes, in front of servers that others wrote.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::process::Command;

use common::nginx::Nginx;
use common::{Answer, Behind, answer, ask, get, start, url};
use portyard_testkit::{Certificates, Client, Daemon, eventually, finish, peer};
use serde_json::Value;

/// A server of Python's that tells what it was asked.
const ECHO: &str = r"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        if self.path == '/big':
            out = b'x' * 3000000
        else:
            out = json.dumps({'path': self.path, 'method': self.command, 'body': body.decode(),
                              'headers': dict(self.headers)}).encode()
        self.send_response(203)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(out)))
        self.send_header('Connection', 'X-Hop')
        self.send_header('X-Hop', 'hop')
        self.end_headers()
        self.wfile.write(out)
    do_POST = do_PUT = do_GET
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
";

#[test]
fn a_proxy_passes_on_what_is_for_the_server_and_no_more() {
    let behind = Behind::start(ECHO, &[]);
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/up/{{rest..}}\"\nproxy = {{ to = \"http://127.0.0.1:{0}\", path = \"/{{{{path.rest}}}}\" }}\n\
             [[route]]\npath = \"/gone\"\nproxy = {{ to = \"unix:/nonexistent\" }}\n",
            behind.1
        ),
    );
    let fields = "Connection: close, X-Mine\r\nX-Mine: 1\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Kept: 2\r\n";
    let told = ask(&daemon, "POST", "/up/a/b%20c?q=1", fields, "hello");
    assert_eq!(told.status, 203, "{}", told.text());
    let text = told.text();
    assert!(
        text.contains("\"path\": \"/a/b%20c?q=1\"") && text.contains("\"body\": \"hello\""),
        "{text}"
    );
    assert!(
        text.contains("for=127.0.0.1;host=\\\"localhost\\\";proto=http"),
        "{text}"
    );
    assert!(
        !text.contains("6.6.6.6") && !text.to_lowercase().contains("x-mine"),
        "{text}"
    );
    assert!(
        text.to_lowercase().contains("\"x-kept\": \"2\"")
            && text.to_lowercase().contains("\"via\": \"1.1 rest-api\""),
        "{text}"
    );
    assert_eq!(
        (told.field("x-hop"), told.field("via")),
        (None, Some("1.1 rest-api"))
    );
    // What is spelled otherwise is another path to some.
    for spelled in ["/a;v=1/@b:c,(d)+%2B%3b%ff/", "/x//y", "/%25%32%66"] {
        let told = get(&daemon, &format!("/up{spelled}")).text();
        assert!(told.contains(&format!("\"path\": \"{spelled}\"")), "{told}");
    }
    assert_eq!(get(&daemon, "/up/big").body.len(), 3_000_000);
    let gone = get(&daemon, "/gone");
    assert_eq!(gone.status, 502);
    assert!(!gone.text().contains("nonexistent"), "{}", gone.text());
}

/// A server of Python's that keeps connections, tells from which port a request came and which one it is on
/// its connection, and does with the second request on a connection what its first argument says.
const KEEPER: &str = r"
import http.server, json, ssl, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    asked = 0
    def do_GET(self):
        self.asked += 1
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        if self.asked == 2 and sys.argv[1] == 'break':
            self.close_connection = True
            return
        if self.path == '/silent':
            self.send_response(200)
            self.send_header('Content-Length', '10')
            self.end_headers()
            self.wfile.write(b'half.')
            self.wfile.flush()
            time.sleep(60)
        out = json.dumps([self.client_address[1], self.asked, self.command, body.decode()]).encode()
        self.send_response(204 if self.path == '/none' else 200)
        if self.path != '/none':
            self.send_header('Content-Length', str(len(out)))
        if sys.argv[1] == 'close':
            self.send_header('Connection', 'close')
        self.end_headers()
        if self.command != 'HEAD' and self.path != '/none':
            self.wfile.write(out)
    do_POST = do_PUT = do_HEAD = do_GET
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
server.daemon_threads = True
if sys.argv[1] == 'tls':
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// The port and the number of the request.
fn place(told: &Answer) -> (i64, i64) {
    assert_eq!(told.status, 200, "{}", told.text());
    let told: Value = serde_json::from_slice(&told.body).unwrap();
    (told[0].as_i64().unwrap(), told[1].as_i64().unwrap())
}

fn in_front_of(behind: &Behind, more: &str) -> Daemon {
    start(
        "",
        &format!(
            "[[route]]\npath = \"/{{rest..}}\"\nproxy = {{ to = \"http://127.0.0.1:{}\"{more} }}\n",
            behind.1
        ),
    )
}

#[test]
fn connections_to_the_server_are_kept_up_to_their_number_and_age() {
    let behind = Behind::start(KEEPER, &["keep"]);
    let daemon = in_front_of(&behind, ", idle = \"1s\", keep = 2");
    let (port, first) = place(&get(&daemon, "/a"));
    assert_eq!(first, 1);
    // From whichever client, with or without bodies in either direction.
    assert_eq!(ask(&daemon, "HEAD", "/b", "", "").status, 200);
    assert_eq!(get(&daemon, "/none").status, 204);
    assert_eq!(place(&ask(&daemon, "POST", "/c", "", "body")), (port, 4));
    assert_eq!(place(&get(&daemon, "/d")), (port, 5));
    // When it has been kept for too long it is closed, not only forgotten.
    eventually("it is closed", || {
        let pid = daemon.pid().to_string();
        let told = finish(
            Command::new(peer("ss")).args(["-tnpH", "dport", "=", &behind.1]),
            b"",
        );
        !told.stdout.contains(&format!("pid={pid},"))
    });
    let (other, again) = place(&get(&daemon, "/e"));
    assert!(other != port && again == 1, "{other} {again}");
    // Three at a time need three; two are kept.
    let clients: Vec<Client> = (0..3)
        .map(|_| {
            let client = Client::connect(&daemon.endpoint("http"));
            client.send("POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1");
            client
        })
        .collect();
    let connected = || {
        let told = finish(
            Command::new(peer("ss")).args([
                "-tnpH",
                "state",
                "established",
                "dport",
                "=",
                &behind.1,
            ]),
            b"",
        );
        told.stdout
            .matches(&format!("pid={},", daemon.pid()))
            .count()
    };
    eventually("three are there", || connected() == 3);
    for client in &clients {
        client.send("2");
        assert_eq!(answer(client).status, 200);
    }
    eventually("two are kept", || connected() == 2);
}

#[test]
fn a_kept_connection_that_breaks_costs_no_client_an_answer_that_can_be_asked_for_twice() {
    let behind = Behind::start(KEEPER, &["break"]);
    let daemon = in_front_of(&behind, "");
    for _ in 0..10 {
        // Each second one meets a connection that breaks, and goes over a new one.
        assert_eq!(place(&get(&daemon, "/a")).1, 1);
    }
    // What may not be done twice is not, and its client is told.
    let told: Vec<u16> = (0..4)
        .map(|_| ask(&daemon, "POST", "/a", "", "body").status)
        .collect();
    assert!(told.contains(&502) && told.contains(&200), "{told:?}");
    let closing = Behind::start(KEEPER, &["close"]);
    let daemon = in_front_of(&closing, "");
    let ports: Vec<_> = (0..5)
        .map(|_| place(&ask(&daemon, "POST", "/a", "", "x")).0)
        .collect();
    assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
}

#[test]
fn a_server_that_becomes_silent_within_an_answer_is_given_up() {
    let behind = Behind::start(KEEPER, &["keep"]);
    let daemon = in_front_of(&behind, ", stall = \"300ms\"");
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n");
    let (got, _) = client.receive_all();
    assert!(String::from_utf8_lossy(&got).ends_with("half."), "{got:?}");
    daemon.wait_for_log("has become silent within an answer");
}

#[test]
fn a_server_behind_tls_is_believed_by_its_authority_and_name() {
    let pki = Certificates::new();
    let pair = pki.server(&["app.example"]);
    let [chain, key] = [&pair.chain, &pair.key].map(|path| path.display().to_string());
    let behind = Behind::start(KEEPER, &["tls", &chain, &key]);
    let route = |path: &str, more: &str| {
        format!(
            "[[route]]\npath = \"/{path}\"\nproxy = {{ to = \"https://127.0.0.1:{}\", path = \"/a\"{more} }}\n",
            behind.1
        )
    };
    let ca = format!(", ca = \"{}\"", pki.ca().display());
    let other = Certificates::new();
    let other = format!(
        ", ca = \"{}\", server_name = \"app.example\"",
        other.ca().display()
    );
    let named = format!("{ca}, server_name = \"app.example\"");
    let daemon = start(
        "",
        &[
            route("good", &named),
            route("name", &ca),
            route("ca", &other),
        ]
        .concat(),
    );
    let (port, first) = place(&get(&daemon, "/good"));
    assert_eq!((first, place(&get(&daemon, "/good"))), (1, (port, 2)));
    // The address is not what the certificate is for; and the authority is another.
    for path in ["/name", "/ca"] {
        let refused = get(&daemon, path);
        assert_eq!(refused.status, 502, "{path}");
        assert!(!refused.text().contains("example"), "{}", refused.text());
    }
    daemon.wait_for_log("cannot be reached");
    for (proxy, part) in [
        ("to = \"http://a\", ca = \"/x\"", "https:// alone"),
        ("to = \"https://a\", ca = \"/nonexistent\"", "/nonexistent"),
        ("to = \"http://a\", idle = \"0s\"", "keep = 0"),
    ] {
        let builder = common::builder();
        let text = common::config(
            &builder,
            "",
            &format!("[[route]]\npath = \"/\"\nproxy = {{ {proxy} }}\n"),
        );
        let said = builder.config(&text).arg("--check").run();
        assert_eq!(said.code, Some(78), "{proxy}");
        assert!(said.stderr.contains(part), "{proxy}: {}", said.stderr);
    }
}

#[test]
fn nginx_gets_many_requests_over_few_connections_and_none_fails_when_it_ends_them() {
    let nginx = Nginx::start();
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/{{rest..}}\"\nconcurrent = 1000\nproxy = {{ to = \"http://127.0.0.1:{}\" }}\n",
            nginx.port
        ),
    );
    // It ends a connection after 100 requests.
    let told = finish(
        Command::new(peer("h2load")).args([
            "--h1",
            "-n",
            "5000",
            "-c",
            "8",
            &url(&daemon, "/small"),
        ]),
        b"",
    );
    assert!(
        told.stdout.contains("5000 succeeded, 0 failed"),
        "{}",
        told.stdout
    );
    let log = fs::read_to_string(nginx.place.path().join("log")).unwrap();
    let first = log
        .lines()
        .filter(|line| line.split(' ').nth(1) == Some("1"))
        .count();
    assert!(
        (50..500).contains(&first),
        "{first} connections for 5000 requests"
    );
    for _ in 0..3 {
        assert_eq!(get(&daemon, "/big").body.len(), 3_000_000);
    }
    let part = ask(&daemon, "GET", "/big", "Range: bytes=5-9\r\n", "");
    assert_eq!((part.status, part.body.len()), (206, 5));
    assert_eq!(get(&daemon, "/nothing").status, 404);
}

/// A server of its own kind: what it sends is written out here.
const PLAIN: &str = r#"
import socket, threading
TEXT = b'some text ' * 100
HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n'
ANSWERS = {
    '/trailers': HEAD + b'Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n%x\r\n%s\r\n0\r\nX-Sum: 7\r\n\r\n'
        % (len(TEXT), TEXT),
    '/named': b'HTTP/1.1 404 Nobody Here\r\nContent-Length: 2\r\n\r\nno',
    '/unnamed': b'HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok',
    '/short': HEAD + b'Content-Length: 5\r\n\r\nshort',
    '/fixed': HEAD + b'Cache-Control: public\r\nCache-Control: no-transform\r\nContent-Length: %d\r\n\r\n%s'
        % (len(TEXT), TEXT),
    '/held': HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\npiece\r\n',
    '/known': b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',
}
def serve(connection):
    stream = connection.makefile('rb')
    while line := stream.readline():
        method, path, _ = line.decode().split()
        while stream.readline() != b'\r\n':
            pass
        answer = ANSWERS[path]
        connection.sendall(answer.split(b'\r\n\r\n')[0] + b'\r\n\r\n' if method == 'HEAD' else answer)
server = socket.create_server(('127.0.0.1', 0))
print(server.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()
"#;

/// A daemon that passes every path on to [`PLAIN`], by a route with this key besides.
fn before_plain(key: &str) -> (Daemon, Behind) {
    let behind = Behind::start(PLAIN, &[]);
    let route = format!(
        "[[route]]\npath = \"/{{rest..}}\"\n{key}\nproxy = {{ to = \"http://127.0.0.1:{}\" }}\n",
        behind.1
    );
    (start("", &route), behind)
}

#[test]
fn what_a_server_says_comes_as_it_said_it() {
    let (daemon, _behind) = before_plain("cache = \"public, max-age=3600\"");
    // What an encoder has kept goes out before the trailers do.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for coding in ["identity", "gzip", "br", "zstd"] {
            let coding = format!("Accept-Encoding: {coding}");
            let page = url(&daemon, "/trailers");
            let text = common::curl(&[version, "--compressed", "-H", &coding, &page]);
            assert_eq!(text, "some text ".repeat(100), "{version} {coding}");
        }
    }
    let named = get(&daemon, "/named");
    assert!(
        named.head.starts_with("HTTP/1.1 404 Nobody Here\r\n"),
        "{}",
        named.head
    );
    // What went wrong is not kept for an hour.
    assert_eq!(named.field("cache-control"), None);
    let unnamed = get(&daemon, "/unnamed");
    assert!(
        unnamed.head.starts_with("HTTP/1.1 299 \r\n"),
        "{}",
        unnamed.head
    );
    assert_eq!(unnamed.field("cache-control"), Some("public, max-age=3600"));
    // HEAD tells what GET would.
    let gzip = "Accept-Encoding: gzip\r\n";
    for method in ["GET", "HEAD"] {
        let short = ask(&daemon, method, "/short", gzip, "");
        let told = (
            short.field("content-encoding"),
            short.field("content-length"),
        );
        assert_eq!(told, (None, Some("5")), "{method}");
    }
    let known = ask(
        &daemon,
        "GET",
        "/known",
        "If-None-Match: \"a+gzip\"\r\n",
        "",
    );
    assert_eq!(
        (known.status, known.field("etag")),
        (304, Some("\"a+gzip\""))
    );
}

#[test]
fn what_is_not_to_be_changed_is_not_compressed() {
    let (daemon, _behind) = before_plain("");
    let fixed = ask(&daemon, "GET", "/fixed", "Accept-Encoding: gzip\r\n", "");
    assert_eq!(
        (fixed.field("content-encoding"), fixed.body.len()),
        (None, 1000)
    );
}

#[test]
fn a_piece_reaches_the_client_before_the_next_is_there_though_it_is_compressed() {
    let (daemon, _behind) = before_plain("");
    let script = r"
import http.client, sys, zlib
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
connection.request('GET', '/held', headers={'Accept-Encoding': 'gzip'})
answer, text, unpack = connection.getresponse(), b'', zlib.decompressobj(31)
while text != b'piece':
    text += unpack.decompress(answer.read1(100))
print(answer.headers['Content-Encoding'], text)
";
    let told = portyard_testkit::python(script, &[&daemon.address("http").to_string()]);
    assert_eq!(told.success().trim(), "gzip b'piece'");
}
