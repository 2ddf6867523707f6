//! Clients that others wrote, over TCP, TLS, Unix sockets and under an inetd.

mod common;

use std::io::{Read as _, Write as _};
use std::process::Command;

use common::{curl, start, url};
use portyard_testkit::{Certificates, Daemon, finish, peer, pythons};

/// A daemon behind TLS that asks for certificates.
fn secure(certificates: &Certificates, client: &str) -> Daemon {
    let pair = certificates.server(&["localhost", "127.0.0.1"]);
    let builder = common::builder();
    let text = common::config(
        &builder,
        "hsts = \"1d\"",
        "[[route]]\npath = \"/me\"\ntemplate = { body = \"in\" }\nallow = [\"cn:alice\"]\n",
    );
    let tls = format!(
        "[listener.tls]\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\nclient = \"{client}\"\n\
         client_ca = \"{}\"\n[listener.options]",
        pair.chain.display(),
        pair.key.display(),
        certificates.ca().display()
    );
    builder
        .config(&text.replace("[listener.options]", &tls))
        .start()
}

#[test]
fn curl_gets_http2_over_tls_and_http1_where_it_wants() {
    let certificates = Certificates::new();
    let daemon = secure(&certificates, "optional");
    let page = format!("https://localhost:{}/hello", daemon.address("http").port());
    let ca = certificates.ca().display().to_string();
    for (version, expected) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let told = curl(&[
            "--cacert",
            &ca,
            version,
            "-w",
            "%{http_version} %{http_code}",
            &page,
        ]);
        assert!(told.ends_with(expected), "{told}");
    }
    let head = curl(&["--cacert", &ca, "-I", &page]);
    assert!(
        head.contains("strict-transport-security: max-age=86400"),
        "{head}"
    );
}

#[test]
fn python_shows_a_certificate_that_a_route_asks_for() {
    let certificates = Certificates::new();
    let daemon = secure(&certificates, "optional");
    let pair = certificates.client("alice");
    let script = "
import http.client, ssl, sys
port, ca, chain, key = int(sys.argv[1]), *sys.argv[2:]
def status(own):
    context = ssl.create_default_context(cafile=ca)
    if own:
        context.load_cert_chain(chain, key)
    connection = http.client.HTTPSConnection('localhost', port, context=context, timeout=20)
    statuses = []
    for path in ('/me', '/hello'):
        connection.request('GET', path)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    return statuses
print(status(True), status(False))
";
    let port = daemon.address("http").port().to_string();
    let arguments = [
        port,
        certificates.ca().display().to_string(),
        pair.chain.display().to_string(),
        pair.key.display().to_string(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = portyard_testkit::python(script, &arguments).success();
    assert_eq!(told.trim(), "[200, 200] [403, 200]");
}

#[test]
fn every_python_reads_and_posts_on_one_connection() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/post\"\nmethods = [\"POST\"]\ntemplate = { body = \"{{header.content-type}}\" }\n",
    );
    let script = "
import sys
try:
    from http.client import HTTPConnection
    from urllib.request import urlopen
except ImportError:
    from httplib import HTTPConnection
    from urllib2 import urlopen
connection = HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=20)
for n in range(3):
    connection.request('GET', '/hello?name=%d' % n)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200 and ('Hello, %d!' % n).encode() in body, body
connection.request('POST', '/post', b'x' * 100000, {'Content-Type': 'text/x'})
answer = connection.getresponse()
assert answer.read() == b'text/x', answer.status
page = urlopen('http://127.0.0.1:%s/localtime.json' % sys.argv[1], timeout=20).read()
assert b'\"minute\":' in page
sys.stdout.write('good')
";
    let port = daemon.address("http").port().to_string();
    for python in pythons() {
        let told = python.run(script, &[&port]).success();
        assert_eq!(told, "good", "{:?}", python.version);
    }
}

#[test]
fn wget_and_wrk_are_served() {
    let daemon = start("", "");
    let page = url(&daemon, "/hello?name=w");
    let told = finish(
        Command::new(peer("wget")).args(["-q", "-O", "-", &page]),
        b"",
    )
    .success();
    assert!(told.contains("Hello, w!"), "{told}");
    let load = ["-t1", "-c8", "-d1s", &page];
    let told = finish(Command::new(peer("wrk")).args(load), b"").success();
    assert!(
        told.contains("Requests/sec") && !told.contains("Non-2xx"),
        "{told}"
    );
    assert!(!told.contains("Socket errors"), "{told}");
}

#[test]
fn a_unix_socket_and_an_inetd_serve_as_well() {
    let builder = common::builder();
    let socket = builder.dir().join("http.sock");
    let daemon = builder
        .listen(format!("unix:{}=http", socket.display()))
        .start();
    let told = curl(&[
        "--unix-socket",
        &socket.display().to_string(),
        "http://localhost/hello",
    ]);
    assert!(told.contains("Hello, world!"), "{told}");
    drop(daemon);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_rest-api"))
        .arg("--inetd=http")
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .spawn();
    let mut child = child.unwrap();
    let mut ours = ours;
    ours.set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    ours.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut told = String::new();
    ours.read_to_string(&mut told).unwrap();
    assert!(
        told.starts_with("HTTP/1.1 200 OK\r\n") && told.contains("Hello"),
        "{told}"
    );
    drop(ours);
    assert!(child.wait().unwrap().success());
}
