//! `portyard http` with programs of others: the servers of every Python, Python's TLS, nginx, nghttpd, and
//! curl and Python as readers of a jar.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;
mod http;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::pki::{Pki, Server};
use common::{finish, python, run};
use http::{
    Answering, answer, httpbin, microsocks, nghttpd, nginx, python_files, rest_api, serve, url,
};
use portyard_testkit::{peer, pythons};
use serde_json::Value;

#[test]
fn the_server_of_every_python_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f.json"), "{\"a\": 1}").unwrap();
    fs::create_dir(directory.path().join("d")).unwrap();
    for python in pythons() {
        let (_running, url) = python_files(&python.path, python.version, directory.path());
        let said = run(&["http", &format!("{url}/f.json")], b"").expect(0);
        assert_eq!(said.text(), "{\"a\": 1}", "{python:?}");
        let said = run(&["http", "-i", &format!("{url}/f.json")], b"").expect(0);
        assert!(said.text().starts_with("HTTP/1.0 200 "), "{}", said.text());
        let said = run(&["http", "-L", "--json", &format!("{url}/d")], b"").expect(0);
        let said: Value = serde_json::from_str(said.text()).unwrap();
        assert_eq!(said["requests"][0]["status"], 301, "{python:?}");
        assert_eq!(said["status"], 200, "{python:?}");
        run(&["http", "-I", "--fail", &format!("{url}/none")], b"").expect(1);
        run(&["http", "--fail", &url, "a=b"], b"").expect(69);
    }
}

/// httpbin's own reckoning of digests, with bodies that count.
#[test]
fn a_digest_covers_the_body_for_httpbin() {
    let (_running, base) = httpbin();
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large.txt");
    fs::write(&large, "a line\n".repeat(50_000)).unwrap();
    let file = format!("@{}", large.display());
    for algorithm in ["MD5", "SHA-256", "SHA-512"] {
        for quality in ["auth", "auth-int"] {
            let url = format!("{base}/digest-auth/{quality}/ada/secret/{algorithm}");
            for data in [&[][..], &["-d", "text"], &["-d", &file]] {
                let words = [&["http", "GET", "--digest", "--fail", &url, "-u"], data].concat();
                let at = words.iter().position(|word| *word == "-u").unwrap() + 1;
                let with = |user: &'static str| {
                    let mut words = words.clone();
                    words.insert(at, user);
                    run(&words, b"")
                };
                let said = with("ada:secret").expect(0);
                assert!(
                    said.text().contains("\"authenticated\": true"),
                    "{}",
                    said.text()
                );
                with("ada:wrong").expect(77);
            }
        }
    }
}

/// A proxy that wants to know who asks, and tells what it was asked for.
const PROXY: &str = r"
import http.server, select, socket, sys, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def knows(self):
        print('ASKED', self.requestline, flush=True)
        if self.headers['Proxy-Authorization'] == 'Basic YWRhOnMgZQ==': return True
        self.send_response(407)
        self.send_header('Proxy-Authenticate', 'Basic')
        self.send_header('Content-Length', '0')
        self.end_headers()
    def do_CONNECT(self):
        if not self.knows(): return
        host, port = self.path.rsplit(':', 1)
        try: there = socket.create_connection((host, int(port)))
        except OSError:
            self.send_error(502)
            return
        self.wfile.write(b'HTTP/1.1 200 Go\r\nVia: x\r\n\r\n')
        ends = {self.connection: there, there: self.connection}
        while True:
            for end in select.select(list(ends), [], [])[0]:
                data = end.recv(65536)
                if not data:
                    self.close_connection = True
                    return
                ends[end].sendall(data)
    def do_GET(self):
        if not self.knows(): return
        assert self.path.startswith('http://') and self.headers['Host'], self.path
        handler = urllib.request.ProxyHandler({})
        with urllib.request.build_opener(handler).open(self.path) as answer: body = answer.read()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print('PORT', server.server_port, flush=True)
server.serve_forever()
";

#[test]
fn a_proxy_asks_for_http_and_carries_https_unread() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let server = pki.python(TLS, &[""]);
    let secure = https(&server, "localhost");
    let plain = Answering::new(|_, request| answer("200 Yes", "", request.as_bytes()));
    let proxy = pki.python(PROXY, &[]);
    let port = proxy.endpoint.rsplit_once(':').unwrap().1;
    let known = format!("http://ada:s%20e@127.0.0.1:{port}");
    let unknown = format!("127.0.0.1:{port}");

    let said = run(
        &[
            "http",
            "-v",
            "--proxy",
            &known,
            &format!("{}/a?b=c", plain.url),
        ],
        b"",
    )
    .expect(0);
    assert!(
        said.stderr
            .contains(&format!("> GET {}/a?b=c HTTP/1.1", plain.url)),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr
            .contains("> Proxy-Authorization: Basic (hidden)"),
        "{}",
        said.stderr
    );
    // The server learns nothing of who asks the proxy.
    assert!(
        !said.text().to_ascii_lowercase().contains("proxy-auth"),
        "{}",
        said.text()
    );
    let said = run(&["http", "-x", &known, "--ca", &ca, &secure], b"").expect(0);
    assert!(said.text().starts_with("TLSv1.3 "), "{}", said.text());
    let said = run(&["http", "-x", &known, &secure], b"").expect(77);
    let site = secure.replace("https", "tcp");
    assert!(
        said.stderr.contains(site.trim_end_matches('/')),
        "{}",
        said.stderr
    );

    run(&["http", "--fail", "-x", &unknown, &plain.url], b"").expect(77);
    let said = run(&["http", "-x", &unknown, "--ca", &ca, &secure], b"").expect(77);
    assert!(said.stderr.contains("USER:PASSWORD@"), "{}", said.stderr);
    let said = run(
        &["http", "-x", &known, "--ca", &ca, "https://127.0.0.1:1"],
        b"",
    )
    .expect(69);
    assert!(said.stderr.contains("502"), "{}", said.stderr);
    for wrong in [
        "https://proxy:1",
        "http://proxy/path",
        "socks4://proxy",
        "socks5://proxy/path",
        "socks5h://",
    ] {
        run(&["http", "-x", wrong, &plain.url], b"").expect(64);
    }
}

/// What curl reads from a file of users and passwords, we do.
#[test]
fn who_we_are_is_found_where_curl_finds_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("netrc");
    let text = "# of hosts\nmachine a.example login ada password p:1 account none\n\
        macdef init\nmachine b.example login not password this\n\n\
        machine B.example\n\tlogin \"b \\\"c\\\\\"\n\tpassword \"two words\"\n\
        machine a.example login eve password other\n\
        machine 127.0.0.1 login local password here\ndefault login any password body\n";
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let server = Answering::new(|_, request| {
        let line = request
            .lines()
            .find(|line| line.starts_with("Authorization: "));
        answer("200 Yes", "", line.unwrap_or("nobody").as_bytes())
    });
    let at = server.url.trim_start_matches("http://");
    let curl = |words: &[&str]| {
        let mut command = Command::new(peer("curl"));
        let to = format!("::{at}");
        command.args([
            "-sS",
            "--max-time",
            "20",
            "--connect-to",
            &to,
            "--netrc-file",
            file,
        ]);
        finish(command.args(words), b"").expect(0).text().to_owned()
    };
    let ours = |words: &[&str]| {
        let to = format!("tcp://{at}");
        let all = [&["http", "--connect", &to, "--netrc-file", file], words].concat();
        run(&all, b"").expect(0).text().to_owned()
    };
    for words in [
        &["http://a.example/"][..],
        &["http://A.example:8080/"],
        &["http://b.example/"],
        &["http://127.0.0.1/"],
        &["http://other.example/"],
        &["-u", "you:me", "http://a.example/"],
    ] {
        let told = ours(words);
        assert!(
            told.starts_with("Authorization: Basic "),
            "{words:?} {told}"
        );
        assert_eq!(told, curl(words), "{words:?}");
    }
    // Where curl's versions differ.
    assert_eq!(
        ours(&["-u", "eve", "http://a.example/"]),
        "Authorization: Basic ZXZlOm90aGVy"
    );
    assert_eq!(
        ours(&["http://you:me@a.example/"]),
        ours(&["-u", "you:me", "http://b.example/"])
    );
    // It is at home, and asked only if somebody says so.
    fs::rename(file, directory.path().join(".netrc")).unwrap();
    let home = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portyard"));
        command
            .env("HOME", directory.path())
            .arg("http")
            .args(words);
        finish(&mut command, b"").expect(0).text().to_owned()
    };
    assert_eq!(home(&[&server.url]), "nobody");
    assert_eq!(
        home(&["-n", &server.url]),
        "Authorization: Basic bG9jYWw6aGVyZQ=="
    );
    // Of another origin nobody is looked up.
    let target = server.url.replace("127.0.0.1", "localhost");
    let field = format!("Location: {target}\r\n");
    let leads = Answering::new(move |_, _| answer("302 Go", &field, b""));
    assert_eq!(home(&["-n", "-L", &leads.url]), "nobody");
    // Nor is it where others can read it, or wrong.
    let place = directory.path().join(".netrc");
    let place = place.to_str().unwrap();
    fs::write(place, "machine x passwd y\n").unwrap();
    let said = run(&["http", "--netrc-file", place, &server.url], b"").expect(78);
    assert!(said.stderr.contains("line 1"), "{}", said.stderr);
    fs::set_permissions(place, fs::Permissions::from_mode(0o644)).unwrap();
    run(&["http", "--netrc-file", place, &server.url], b"").expect(78);
}

#[test]
fn microsocks_carries_everything_by_name_and_by_address() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let server = pki.python(TLS, &[""]);
    let secure = https(&server, "localhost");
    let plain = Answering::new(|_, request| answer("200 Yes", "", request.as_bytes()));
    let named = plain.url.replace("127.0.0.1", "localhost");
    let (_open, open) = microsocks(&[]);
    let (_closed, closed) = microsocks(&["-u", "ada", "-P", "s e"]);
    for scheme in ["socks5h", "socks5"] {
        for proxy in [
            format!("{scheme}://127.0.0.1:{open}"),
            format!("{scheme}://ada:s%20e@localhost:{closed}"),
        ] {
            let with = |words: &[&str]| {
                run(
                    &[&["http", "--fail", "-v", "-x", &proxy], words].concat(),
                    b"",
                )
            };
            // Whole URLs are for proxies of HTTP.
            let said = with(&[&format!("{named}/a?b=c")]).expect(0);
            assert!(
                said.text().starts_with("GET /a?b=c HTTP/1.1\r\n"),
                "{}",
                said.text()
            );
            assert!(said.stderr.contains("carries bytes to"), "{}", said.stderr);
            with(&[&plain.url]).expect(0);
            let said = with(&["--ca", &ca, &secure]).expect(0);
            assert!(said.text().starts_with("TLSv1.3 "), "{}", said.text());
            let said = with(&["http://127.0.0.1:1"]).expect(69);
            assert!(
                said.stderr.contains("127.0.0.1:1: it says: "),
                "{}",
                said.stderr
            );
        }
        let wrong = format!("{scheme}://ada:other@127.0.0.1:{closed}");
        let said = run(&["http", "-x", &wrong, &plain.url], b"").expect(77);
        assert!(said.stderr.contains("USER:PASSWORD"), "{}", said.stderr);
        let nobody = format!("{scheme}://127.0.0.1:{closed}");
        let said = run(&["http", "-x", &nobody, &plain.url], b"").expect(77);
        assert!(said.stderr.contains("USER:PASSWORD@"), "{}", said.stderr);
    }
}

/// Arguments: certificate, key, CA, whether a client's certificate is demanded.
const TLS: &str = r"
import http.server, ssl, sys
cert, key, ca, demands = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        peer = self.connection.getpeercert()
        names = [value for name, value in peer.get('subjectAltName', ())] if peer else []
        body = ('%s %s %s' % (self.connection.version(), names, self.headers['Host'])).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass
server = Quiet(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
if demands:
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
server.socket = context.wrap_socket(server.socket, True)
print('PORT', server.server_port, flush=True)
server.serve_forever()
";

fn https(server: &Server, host: &str) -> String {
    let port = server.endpoint.rsplit_once(':').unwrap().1;
    format!("https://{host}:{port}/")
}

#[test]
fn a_server_in_tls_is_believed_for_a_reason_only() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let server = pki.python(TLS, &[""]);
    let at = https(&server, "localhost");
    let said = run(&["http", "--ca", &ca, &at], b"").expect(0);
    assert!(
        said.text().starts_with("TLSv1.3 [] localhost:"),
        "{}",
        said.text()
    );
    run(&["http", "--pin", &pki.fingerprint, &at], b"").expect(0);
    let said = run(&["http", &at], b"").expect(77);
    assert!(
        said.stderr.contains("--pin") && said.stderr.contains("--ca"),
        "{}",
        said.stderr
    );
    let by_address = https(&server, "127.0.0.1");
    run(&["http", "--ca", &ca, &by_address], b"").expect(77);
    let words = [
        "http",
        "--ca",
        &ca,
        "--server-name",
        "localhost",
        &by_address,
    ];
    run(&words, b"").expect(0);
    run(&["http", "--insecure", "127.0.0.1", &by_address], b"").expect(0);
    // Another host than the one that is named.
    run(&["http", "--insecure", "localhost", &by_address], b"").expect(64);
    let to = at.clone();
    let redirects =
        Answering::new(move |_, _| answer("302 Go", &format!("Location: {to}\r\n"), b""));
    run(&["http", "-L", &redirects.url], b"").expect(77);
    let said = run(
        &["http", "-v", "--timing", "-L", "--ca", &ca, &redirects.url],
        b"",
    )
    .expect(0);
    assert!(said.stderr.contains("* TLS 1.3, "), "{}", said.stderr);
    // One that speaks nothing newer than 1.2, for who does not mind.
    let old = TLS.replace(
        "context.load_cert_chain",
        "context.maximum_version = ssl.TLSVersion.TLSv1_2\ncontext.load_cert_chain",
    );
    let server = pki.python(&old, &[""]);
    let old = https(&server, "localhost");
    let said = run(&["http", "--ca", &ca, &old], b"").expect(0);
    assert!(said.text().starts_with("TLSv1.2 "), "{}", said.text());
    let said = run(&["http", "--tls-min", "1.3", "--ca", &ca, &old], b"");
    assert_eq!(said.code, Some(65), "{}", said.stderr);
    assert!(said.stderr.contains("an older TLS"), "{}", said.stderr);
    run(&["http", "--tls-min", "1.3", "--ca", &ca, &at], b"").expect(0);
    // No server of TLS, and no server of HTTP.
    let plain = at.replace("https", "http");
    run(&["http", &plain], b"").expect(74);
    let clear = serve(|mut stream| {
        stream.write_all(&answer("400 What", "", b"")).unwrap();
        http::finish(stream);
    });
    let said = run(&["http", &clear.replace("http", "https")], b"").expect(65);
    assert!(
        said.stderr.contains("is it a port of TLS?"),
        "{}",
        said.stderr
    );
}

#[test]
fn our_certificate_is_shown_to_the_origin_of_the_url_alone() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let (cert, key) = (pki.file("client.pem"), pki.file("client.key"));
    let ours = ["http", "--ca", &ca, "--cert", &cert, "--key-file", &key];
    let server = pki.python(TLS, &["yes"]);
    let at = https(&server, "localhost");
    let said = run(&[&ours[..], &[&at]].concat(), b"").expect(0);
    assert!(said.text().contains("['somebody']"), "{}", said.text());
    let said = run(&["http", "--ca", &ca, &at], b"");
    assert_eq!(said.code, Some(77), "{}", said.stderr);
    let to = at.clone();
    let redirects =
        Answering::new(move |_, _| answer("302 Go", &format!("Location: {to}\r\n"), b""));
    let said = run(&[&ours[..], &["-L", &redirects.url]].concat(), b"");
    assert_eq!(said.code, Some(77), "{}", said.stderr);
}

#[test]
fn nghttpd_is_spoken_to_in_http2() {
    let directory = tempfile::tempdir().unwrap();
    let body: Vec<u8> = (0..500_000_u32).map(|n| (n % 251) as u8).collect();
    fs::write(directory.path().join("f"), &body).unwrap();
    let (_clear, port) = nghttpd(directory.path(), None);
    let at = format!("http://127.0.0.1:{port}/f");
    let said = run(&["http", "--http-version", "2", &at], b"").expect(0);
    assert!(said.stdout == body);
    let here = directory.path().join("copy");
    let words = [
        "http",
        "--http-version",
        "2",
        "-o",
        here.to_str().unwrap(),
        &at,
    ];
    run(&words, b"").expect(0);
    assert!(fs::read(&here).unwrap() == body);
    run(
        &["http", "--http-version", "2", "--fail", &format!("{at}x")],
        b"",
    )
    .expect(1);
    // It is told, not guessed.
    let said = run(&["http", &at], b"");
    assert!(matches!(said.code, Some(65 | 74)), "{}", said.stderr);
    let pki = Pki::new();
    let pair = (pki.file("server.pem").into(), pki.file("server.key").into());
    let (_tls, port) = nghttpd(directory.path(), Some(pair));
    let at = format!("https://localhost:{port}/f");
    let ca = pki.file("ca.pem");
    let said = run(&["http", "--ca", &ca, "-i", "--no-compress", &at], b"").expect(0);
    assert!(said.stdout.starts_with(b"HTTP/2 200\n"), "{}", said.stderr);
    let words = ["http", "--ca", &ca, "--http-version", "1.1", &at];
    let said = run(&words, b"");
    assert_ne!(said.code, Some(0), "nghttpd speaks HTTP/2 alone");
}

#[test]
fn nginx_compresses_redirects_and_demands_passwords() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f.html"), "word ".repeat(1000)).unwrap();
    fs::write(directory.path().join("in"), "inside").unwrap();
    // The password is "secret", as "openssl passwd -apr1" makes it.
    let hashed = finish(
        Command::new(peer("openssl")).args(["passwd", "-apr1", "secret"]),
        b"",
    );
    let users = directory.path().join("users");
    fs::write(&users, format!("ada:{}", hashed.expect(0).text())).unwrap();
    let more = format!(
        "gzip on; gzip_min_length 10; location /to {{ return 301 /f.html; }}\n\
         location /in {{ auth_basic x; auth_basic_user_file {}; }}",
        users.display()
    );
    let (_nginx, url) = nginx(directory.path(), &more);
    let said = run(&["http", "-L", "-v", &format!("{url}/to")], b"").expect(0);
    assert_eq!(said.text(), "word ".repeat(1000));
    assert!(
        said.stderr.contains("< Content-Encoding: gzip"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("* going on with the connection"),
        "{}",
        said.stderr
    );
    let inside = format!("{url}/in");
    run(&["http", "--fail", &inside], b"").expect(77);
    run(&["http", "--fail", "-u", "ada:wrong", &inside], b"").expect(77);
    let said = run(&["http", "--fail", "-u", "ada:secret", &inside], b"").expect(0);
    assert_eq!(said.text(), "inside");
}

#[test]
fn a_jar_is_shared_with_curl_and_python() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    let directory = tempfile::tempdir().unwrap();
    let jar = directory.path().join("jar").display().to_string();
    let set = format!("{base}/cookies/set?a=1");
    run(&["http", "--jar", &jar, &set], b"").expect(0);
    let expiring = Answering::new(|_, _| {
        answer(
            "200 OK",
            "Set-Cookie: long=2; Max-Age=1000; HttpOnly; Path=/\r\n",
            b"",
        )
    });
    run(&["http", "--jar", &jar, &expiring.url], b"").expect(0);
    let cookies = format!("{base}/cookies");
    let curl = finish(
        Command::new(peer("curl")).args(["-s", "-b", &jar, "-c", &jar, &cookies]),
        b"",
    );
    let told: Value = serde_json::from_str(curl.expect(0).text()).unwrap();
    assert_eq!(told["cookies"], serde_json::json!({"a": "1", "long": "2"}));
    // curl has written it anew, with one more.
    finish(
        Command::new(peer("curl"))
            .args(["-s", "-b", &jar, "-c", &jar])
            .arg(format!("{base}/cookies/set?b=3")),
        b"",
    )
    .expect(0);
    let said = run(&["http", "--jar", &jar, &cookies], b"").expect(0);
    let told: Value = serde_json::from_str(said.text()).unwrap();
    assert_eq!(
        told["cookies"],
        serde_json::json!({"a": "1", "b": "3", "long": "2"})
    );
    let program = "import http.cookiejar, sys
jar = http.cookiejar.MozillaCookieJar(sys.argv[1])
jar.load(ignore_discard=True, ignore_expires=True)
print(sorted((c.name, c.value, c.domain, c.path) for c in jar))";
    let read = python(program, &[&jar]);
    assert_eq!(
        read.trim(),
        "[('a', '1', '127.0.0.1', '/'), ('b', '3', '127.0.0.1', '/'), ('long', '2', '127.0.0.1', '/')]"
    );
    // Python writes a cookie that lasts for its session in another way.
    let program = "import http.cookiejar, sys
jar = http.cookiejar.MozillaCookieJar(sys.argv[1])
jar.load(ignore_discard=True, ignore_expires=True)
for c in jar:
    if c.name == 'b':
        c.expires, c.discard = None, True
jar.save(ignore_discard=True, ignore_expires=True)";
    python(program, &[&jar]);
    let said = run(&["http", "--jar", &jar, &cookies], b"").expect(0);
    let told: Value = serde_json::from_str(said.text()).unwrap();
    assert_eq!(told["cookies"]["b"], "3");
}

#[test]
fn a_bar_is_shown_on_a_terminal_and_nothing_elsewhere() {
    let rest = rest_api("");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("f.bin");
    fs::write(&file, vec![7; 900_000]).unwrap();
    let post = format!("{}/post", url(&rest, "python"));
    let item = format!("f@{}", file.display());
    let quiet = run(&["http", &post, &item, "--fail"], b"").expect(0);
    assert_eq!(quiet.stderr, "");
    let words = ["http", "--fail", "--headers", &post, &item];
    let shown = on_terminal(&words, directory.path());
    assert!(
        shown.contains("of 879.") && shown.contains(" left"),
        "{shown:?}"
    );
    // JSON has a line for each value.
    let get = format!("{}/get", url(&rest, "python"));
    let shown = on_terminal(&["http", &get, "a==b"], directory.path());
    assert!(shown.contains("\r\n    \"a\": \"b\""), "{shown:?}");
    // What would be obeyed is spelled out, what is binary is not shown.
    let server = Answering::new(|number, _| match number {
        0 => answer("200 OK", "", b"a\x1b[2Jb"),
        _ => answer("200 OK", "", b"a\x00b"),
    });
    let shown = on_terminal(&["http", &server.url], directory.path());
    assert!(shown.contains("a\\x1b[2Jb"), "{shown:?}");
    let shown = on_terminal(&["http", &server.url], directory.path());
    assert!(shown.contains("--output"), "{shown:?}");
    // A password is asked for, and not shown.
    let basic = format!("{}/basic-auth/ada/secret", url(&rest, "python"));
    let shown = on_terminal_with(&["http", "-u", "ada", &basic], directory.path(), "secret\r");
    assert!(shown.contains("Password for ada: "), "{shown:?}");
    assert!(shown.contains("\"authenticated\": true"), "{shown:?}");
    assert!(!shown.contains("secret"), "{shown:?}");
}

fn on_terminal(words: &[&str], directory: &Path) -> String {
    on_terminal_with(words, directory, "")
}

/// Runs the program on a terminal of Python's, and returns what it shows there; `typed` is typed when it
/// asks for something.
fn on_terminal_with(words: &[&str], directory: &Path, typed: &str) -> String {
    let program = r"
import os, pty, sys
typed = sys.argv[1].encode()
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
shown = b''
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if typed and b': ' in shown:
        os.write(terminal, typed)
        typed = b''
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0)
";
    let mut command = Command::new(peer("python3"));
    command.args(["-c", program, typed, env!("CARGO_BIN_EXE_portyard")]);
    command
        .args(words)
        .current_dir(directory)
        .env("TERM", "xterm");
    String::from_utf8_lossy(&finish(&mut command, b"").expect(0).stdout).into_owned()
}
