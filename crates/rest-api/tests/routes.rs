//! Routes from the configuration, each kind of handler with what it stands in front of.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use common::{ask, get, start};
use portyard_testkit::{Client, Daemon, eventually, python};

#[test]
fn a_template_shows_values_harmlessly() {
    let daemon = start(
        "",
        r#"
[[route]]
path = "/greet/{who}"
template = { body = "<p title=\"{{query.t}}\">{{path.who}} {{header.x-a|none}} {{method}}</p>" }
cache = "public, max-age=60"
headers = { "X-Own" = "yes" }

[[route]]
path = "/json/{who}"
template = { body = '{"who": "{{path.who}}"}', content_type = "application/json", status = 201 }
"#,
    );
    let told = ask(&daemon, "GET", "/greet/%3Cb%3E?t=%22x", "X-A: <i>\r\n", "");
    assert_eq!(
        told.text(),
        "<p title=\"&quot;x\">&lt;b&gt; &lt;i&gt; GET</p>"
    );
    assert_eq!(told.field("cache-control"), Some("public, max-age=60"));
    assert_eq!(told.field("x-own"), Some("yes"));
    let json = get(&daemon, "/json/a%22b%0A");
    assert_eq!(
        (json.status, json.text().as_str()),
        (201, "{\"who\": \"a\\\"b\\n\"}")
    );
    assert_eq!(ask(&daemon, "POST", "/greet/x", "", "").status, 405);
    assert_eq!(get(&daemon, "/greet/a%2f..%2fb").status, 400);
    assert_eq!(get(&daemon, "/greet/../hello").status, 400);
    assert_eq!(get(&daemon, "/hello").status, 200);
    let counted = "portyard_http_requests_total{route=\"/greet/{who}\",class=\"4xx\"}";
    assert_eq!(daemon.count(counted), 1);
}

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let path = root.path();
    fs::create_dir_all(path.join("public/sub")).unwrap();
    fs::write(path.join("secret.txt"), "secret").unwrap();
    fs::write(path.join("public/index.html"), "<p>index").unwrap();
    fs::write(path.join("public/a b.txt"), "spaced").unwrap();
    fs::write(path.join("public/.hidden"), "hidden").unwrap();
    fs::write(path.join("public/big.js"), "x".repeat(1000)).unwrap();
    fs::write(path.join("public/big.js.gz"), "packed").unwrap();
    fs::write(path.join("public/sub/x.css"), "p {}").unwrap();
    symlink("../secret.txt", path.join("public/out")).unwrap();
    symlink("/etc/passwd", path.join("public/far")).unwrap();
    nix::unistd::mkfifo(&path.join("public/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    root
}

#[test]
fn a_directory_is_served_and_nothing_outside_of_it() {
    let root = tree();
    let public = root.path().join("public");
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/files/{{name..}}\"\ndirectory = {{ path = \"{0}\", precompressed = true }}\n\
             [[route]]\npath = \"/list/{{name..}}\"\n\
             directory = {{ path = \"{0}\", index = \"\", listing = true }}\n",
            public.display()
        ),
    );
    assert_eq!(get(&daemon, "/files/").text(), "<p>index");
    assert_eq!(get(&daemon, "/files/a%20b.txt").text(), "spaced");
    let css = get(&daemon, "/files/sub/x.css");
    assert_eq!(css.field("content-type"), Some("text/css; charset=utf-8"));
    let moved = get(&daemon, "/files/sub?a=b");
    assert_eq!(
        (moved.status, moved.field("location")),
        (301, Some("/files/sub/?a=b"))
    );
    for path in [
        "/files/sub/",
        "/files/nothing",
        "/files/.hidden",
        "/files/out",
        "/files/far",
        "/files/fifo",
        "/files/index.html/",
        "/files/a%00b",
    ] {
        let status = get(&daemon, path).status;
        assert!(status == 404 || status == 400, "{path} {status}");
    }
    for path in [
        "/files/../secret.txt",
        "/files/%2e%2e/secret.txt",
        "/files/sub%2f..%2f..%2fsecret.txt",
        "/files//etc/passwd",
    ] {
        let told = get(&daemon, path);
        assert!(
            told.status >= 400 && !told.text().contains("root:"),
            "{path} {}",
            told.status
        );
    }
    let packed = ask(
        &daemon,
        "GET",
        "/files/big.js",
        "Accept-Encoding: gzip\r\n",
        "",
    );
    assert_eq!(
        (packed.field("content-encoding"), packed.text().as_str()),
        (Some("gzip"), "packed")
    );
    assert_eq!(get(&daemon, "/files/big.js").body.len(), 1000);
    let list = ask(&daemon, "GET", "/list/", "Accept: application/json\r\n", "").text();
    assert!(
        list.contains("\"sub/\"") && list.contains("a b.txt") && !list.contains(".hidden"),
        "{list}"
    );
    assert!(
        get(&daemon, "/list/")
            .text()
            .contains("<a href=\"./a%20b.txt\">a b.txt</a>")
    );
}

#[test]
fn a_redirect_keeps_slashes_and_where_that_is_wanted_the_query() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/old/{rest..}\"\nredirect = { to = \"https://new.example/{{path.rest}}\" }\n\
         [[route]]\npath = \"/kept/{rest..}\"\n\
         redirect = { to = \"/new/{{path.rest}}\", keep_query = true }\n\
         [[route]]\npath = \"/both\"\nredirect = { to = \"/new?a=b\", keep_query = true }\n",
    );
    for (path, to) in [
        ("/old/a/b%20c?x=1", "https://new.example/a/b%20c"),
        ("/old//evil.example", "https://new.example//evil.example"),
        ("/kept/a/b?x=%20&y", "/new/a/b?x=%20&y"),
        ("/kept/a", "/new/a"),
        ("/both?x=1", "/new?a=b&x=1"),
        ("/both", "/new?a=b"),
    ] {
        assert_eq!(get(&daemon, path).field("location"), Some(to), "{path}");
    }
}

#[test]
fn a_redirect_leads_where_the_configuration_says() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/old/{id}\"\nredirect = { to = \"https://new.example/{{path.id}}?q={{query.q}}\", status = 308 }\n",
    );
    let told = get(&daemon, "/old/a%2Bb?q=%0D%0ASet-Cookie:x");
    assert_eq!(told.status, 308);
    assert_eq!(
        told.field("location"),
        Some("https://new.example/a%2Bb?q=%0D%0ASet-Cookie%3Ax")
    );
    for to in [
        "{{query.to}}",
        "//{{path.id}}",
        "https://{{path.id}}/",
        "ftp://a/",
    ] {
        let builder = common::builder();
        let route = format!("[[route]]\npath = \"/a/{{id}}\"\nredirect = {{ to = \"{to}\" }}\n");
        let text = common::config(&builder, "", &route);
        assert_eq!(
            builder.config(&text).arg("--check").run().code,
            Some(78),
            "{to}"
        );
    }
}

/// A program that tells its environment and its input.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import os, sys, time, json
path = os.environ.get("PATH_INFO", "")
if path == "/slow":
    time.sleep(60)
if path == "/nothing":
    sys.exit(3)
if path == "/drip":
    print("Content-Type: text/plain\n", flush=True)
    open(os.environ["MARK"], "w").write(str(os.getpid()))
    while True:
        print("drip", flush=True)
        time.sleep(0.05)
body = sys.stdin.buffer.read(int(os.environ.get("CONTENT_LENGTH", 0)))
print("Status: 202 Fine")
print("Content-Type: application/json")
print("X-From: program\n")
print(json.dumps({"env": dict(os.environ), "argv": sys.argv[1:], "body": body.decode()}))
"#;

fn program(directory: &Path) -> String {
    let path = directory.join("program.py");
    fs::write(&path, PROGRAM).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_program_gets_the_request_as_rfc_3875_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/run/{{rest..}}\"\ncgi = {{ program = \"{}\", arguments = [\"$(id)\", \"a b\"], \
             environment = {{ MARK = \"{}\" }}, run = \"2s\" }}\n",
            program(directory.path()),
            mark.display()
        ),
    );
    let fields =
        "Content-Type: text/x\r\nX-A-B: c\r\nProxy: http://evil\r\nAuthorization: Basic eDp5\r\n";
    let told = ask(&daemon, "POST", "/run/x/y?q=%20", fields, "hello");
    assert_eq!(
        (told.status, told.field("x-from")),
        (202, Some("program")),
        "{}",
        told.text()
    );
    let text = told.text();
    for part in [
        "\"GATEWAY_INTERFACE\": \"CGI/1.1\"",
        "\"PATH_INFO\": \"/x/y\"",
        "\"SCRIPT_NAME\": \"/run\"",
        "\"QUERY_STRING\": \"q=%20\"",
        "\"REQUEST_METHOD\": \"POST\"",
        "\"CONTENT_LENGTH\": \"5\"",
        "\"CONTENT_TYPE\": \"text/x\"",
        "\"HTTP_X_A_B\": \"c\"",
        "\"REMOTE_ADDR\": \"127.0.0.1\"",
        "\"body\": \"hello\"",
        "[\"$(id)\", \"a b\"]",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for part in ["HTTP_PROXY", "HTTP_AUTHORIZATION", "NOTIFY_SOCKET", "HOME"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    assert_eq!(get(&daemon, "/run/nothing").status, 502);
    assert_eq!(get(&daemon, "/run/slow").status, 504);
    // A client that goes takes the program with it.
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("GET /run/drip HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the program", || {
        fs::read_to_string(&mark).is_ok_and(|text| !text.is_empty())
    });
    let pid = fs::read_to_string(&mark).unwrap();
    let proc = format!("/proc/{pid}");
    assert!(Path::new(&proc).exists());
    client.reset();
    eventually("the end of the program", || {
        fs::read_to_string(format!("{proc}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
}

#[test]
fn a_program_may_lead_elsewhere_and_answer_without_a_type() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lead.sh");
    let script = "#!/bin/sh\ncase \"$PATH_INFO\" in\n\
        /here) printf 'Location: /hello?name=led\\n\\n';;\n\
        /circle) printf 'Location: /run/circle\\n\\n';;\n\
        /secret) printf 'Location: /locked\\n\\n';;\n\
        /there) printf 'Location: http://a.example/\\n\\n';;\n\
        /nothing) printf 'Status: 204 No Content\\n\\n';;\n\
        /lengths) printf 'A: b\\nContent-Length: 3\\nContent-Length: 5\\n\\nhello';;\n\
        *) printf 'Content-Type: text/plain\\n\\n%s|%s|%s|%s|' \"$HTTP_COOKIE\" \"$AUTH_TYPE\" \"$REMOTE_USER\" \
        \"$HTTP_CONTENT_ENCODING\"; od -An -tx1 | head -n 1;;\nesac\n";
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = start(
        "access_log = true",
        &format!(
            "[[route]]\npath = \"/run/{{rest..}}\"\ncgi = {{ program = \"{0}\" }}\n\
             [[route]]\npath = \"/keyed\"\ncgi = {{ program = \"{0}\" }}\n\
             key = {{ scheme = \"basic\", file = \"{1}\" }}\n\
             [[route]]\npath = \"/locked\"\ntemplate = {{ body = \"secret\" }}\nallow = [\"10.0.0.0/8\"]\n",
            path.display(),
            key_file(directory.path())
        ),
    );
    let led = ask(&daemon, "POST", "/run/here", "", "body");
    assert_eq!((led.status, led.field("location")), (200, None));
    assert!(led.text().contains("Hello, led!"), "{}", led.text());
    // The place has rules of its own.
    assert_eq!(get(&daemon, "/run/secret").status, 403);
    assert_eq!(get(&daemon, "/run/circle").status, 502);
    let there = get(&daemon, "/run/there");
    let to = there.field("location");
    assert_eq!((there.status, to), (302, Some("http://a.example/")));
    assert_eq!(get(&daemon, "/run/nothing").status, 204);
    assert_eq!(get(&daemon, "/run/lengths").status, 502);
    let cookies = "Cookie: a=b\r\nCookie: c=d\r\n";
    let told = ask(&daemon, "GET", "/run/x", cookies, "");
    assert!(told.text().starts_with("a=b; c=d||||"), "{}", told.text());
    let alice = "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWUgMTIzNA==\r\n";
    let told = ask(&daemon, "GET", "/keyed", alice, "");
    assert!(told.text().starts_with("|Basic|alice||"), "{}", told.text());
    daemon.wait_for_log("user=alice");
    // What it is told of the coding is so, in chunks as well.
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("POST /run/x HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("4\r\n\x1f\x08\x08\x01\r\n0\r\n\r\n");
    let told = common::answer(&client).text();
    assert!(told.starts_with("|||gzip| 1f 08 08 01"), "{told}");
}

#[test]
fn a_program_reads_on_after_it_has_begun_to_answer() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/echo\"\nmethods = [\"POST\"]\n\
         cgi = { program = \"/bin/sh\", arguments = [\"-c\", \"printf 'Content-Type: a/b\\\\n\\\\n'; exec cat\"] }\n",
    );
    let client = Client::connect(&daemon.endpoint("http"));
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &client.receive_line();
    }
    let mut came = 0;
    for _ in 0..10 {
        client.send("x".repeat(50_000));
        let mut left = 50_000;
        while left > 0 {
            let size = usize::from_str_radix(client.receive_line().trim(), 16).unwrap();
            assert!(client.receive(size + 2).starts_with(b"x"));
            left -= size;
            came += size;
        }
    }
    assert_eq!(came, 500_000);
    assert_eq!(client.receive(5), b"0\r\n\r\n");
}

fn key_file(directory: &Path) -> String {
    let path = directory.join("keys");
    fs::write(
        &path,
        "alice:text:open sesame 1234\nbob:text:another secret 99\n",
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_key_is_shown_as_a_token_a_password_or_a_signature() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path());
    let route = |scheme: &str| {
        format!(
            "[[route]]\npath = \"/{scheme}\"\nmethods = [\"GET\", \"POST\"]\ntemplate = {{ body = \"in\" }}\n\
             key = {{ scheme = \"{scheme}\", file = \"{keys}\" }}\n"
        )
    };
    let routes = [route("bearer"), route("basic"), route("hmac")].concat();
    let builder = common::builder();
    let text = common::config(&builder, "", &routes);
    let text = text.replace(
        "[listener.options]",
        "limits.penalty = \"0s\"\n[listener.options]",
    );
    let daemon = builder.config(&text).start();
    for (path, fields, status) in [
        ("/bearer", "Authorization: Bearer open sesame 1234\r\n", 200),
        (
            "/bearer",
            "Authorization: bearer b3BlbiBzZXNhbWUgMTIzNA==\r\n",
            200,
        ),
        ("/bearer", "Authorization: Bearer open sesame 1235\r\n", 401),
        ("/bearer", "", 401),
        (
            "/basic",
            "Authorization: Basic YWxpY2U6b3BlbiBzZXNhbWUgMTIzNA==\r\n",
            200,
        ),
        // bob with the key of alice.
        (
            "/basic",
            "Authorization: Basic Ym9iOm9wZW4gc2VzYW1lIDEyMzQ=\r\n",
            401,
        ),
        ("/basic", "", 401),
        ("/hmac", "", 401),
    ] {
        let told = ask(&daemon, "GET", path, fields, "");
        assert_eq!(told.status, status, "{path} {fields}");
        assert_eq!(told.field("www-authenticate").is_some(), status == 401);
    }
    let script = r#"
import base64, hashlib, hmac, http.client, sys, time
port, key = int(sys.argv[1]), b"open sesame 1234"
def ask(method, query, body, change=None, created=None, name="alice"):
    names = ["@method", "@authority", "@path", "@query"]
    values = {"@method": method, "@authority": "127.0.0.1:%d" % port, "@path": "/hmac", "@query": "?" + query}
    headers = {}
    if body:
        names.append("content-digest")
        values["content-digest"] = headers["Content-Digest"] = \
            "sha-256=:%s:" % base64.b64encode(hashlib.sha256(body).digest()).decode()
    parameters = '(%s);created=%d;keyid="%s";alg="hmac-sha256"' % (
        " ".join('"%s"' % n for n in names), created or time.time(), name)
    base = "".join('"%s": %s\n' % (n, values[n]) for n in names) + '"@signature-params": ' + parameters
    proof = base64.b64encode(hmac.new(key, base.encode(), "sha256").digest()).decode()
    headers["Signature-Input"], headers["Signature"] = "sig=" + parameters, "sig=:%s:" % proof
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, "/hmac" + ("?" + query if query else "") , change or body, headers)
    return connection.getresponse().status
print(ask("GET", "", b""), ask("GET", "a=b", b""), ask("POST", "", b"body"), ask("POST", "", b"body", b"BODY"),
      ask("GET", "", b"", created=time.time() - 400), ask("GET", "", b"", name="bob"))
"#;
    let port = daemon.address("http").port().to_string();
    assert_eq!(
        python(script, &[&port]).success().trim(),
        "200 200 200 401 401 401"
    );
}

#[test]
fn wrong_keys_cost_their_source_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(directory.path());
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/in\"\ntemplate = {{ body = \"in\" }}\nkey = {{ scheme = \"bearer\", file = \"{keys}\" }}\n"
        ),
    );
    let try_with = |key: &str| {
        ask(
            &daemon,
            "GET",
            "/in",
            &format!("Authorization: Bearer {key}\r\n"),
            "",
        )
        .status
    };
    let guesses: Vec<u16> = (0..8).map(|n| try_with(&format!("guess {n}"))).collect();
    assert!(guesses.contains(&429), "{guesses:?}");
}

#[test]
fn a_rate_is_told_and_kept() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/r\"\ntemplate = { body = \"in\" }\nrate = \"1/min\"\nburst = 2\n",
    );
    let first = get(&daemon, "/r");
    assert_eq!(first.field("ratelimit-policy"), Some("\"route\";q=2;w=120"));
    assert_eq!(first.field("ratelimit"), Some("\"route\";r=1;t=60"));
    assert_eq!(get(&daemon, "/r").status, 200);
    let over = get(&daemon, "/r");
    assert_eq!(
        (over.status, over.field("ratelimit")),
        (429, Some("\"route\";r=0;t=120"))
    );
    let wait: u64 = over.field("retry-after").unwrap().parse().unwrap();
    assert!((50..=61).contains(&wait), "{wait}");
}

#[test]
fn a_route_can_be_for_some_only() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/none\"\ntemplate = { body = \"in\" }\nallow = [\"10.0.0.0/8\"]\n\
         [[route]]\npath = \"/us\"\ntemplate = { body = \"in\" }\nallow = [\"127.0.0.0/8\", \"::1\"]\n\
         [[route]]\npath = \"/elsewhere\"\ntemplate = { body = \"in\" }\nlisteners = [\"other\"]\n",
    );
    for (path, status) in [("/none", 403), ("/us", 200), ("/elsewhere", 404)] {
        assert_eq!(get(&daemon, path).status, status, "{path}");
    }
}

/// A kv-rpc with its store in memory.
fn store() -> Daemon {
    let binary = Path::new(env!("CARGO_BIN_EXE_rest-api")).with_file_name("kv-rpc");
    assert!(
        binary.is_file(),
        "{} is missing: cargo build -p kv-rpc",
        binary.display()
    );
    let builder = Daemon::build(&binary);
    let text = "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    builder.config(text).start()
}

#[test]
fn keys_are_read_written_listed_and_watched() {
    let store = store();
    let server = store.endpoint("json-rpc");
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/kv\"\nkv = {{ server = \"{server}\", prefix = \"u/\" }}\n\
             [[route]]\npath = \"/kv/{{key..}}\"\nkv = {{ server = \"{server}\", key = \"u/{{{{path.key}}}}\", write = true }}\n\
             [[route]]\npath = \"/size\"\nmethods = [\"GET\"]\nrpc = {{ server = \"{server}\", method = \"size\" }}\n\
             [[route]]\npath = \"/add/{{a}}\"\nrpc = {{ server = \"{server}\", method = \"echo\", parameters = [{{ a = \"{{{{path.a}}}}\", b = \"{{{{body}}}}\", c = 1 }}] }}\n"
        ),
    );
    assert_eq!(get(&daemon, "/kv/a").status, 404);
    let put = |fields: &str, body: &str| ask(&daemon, "PUT", "/kv/a", fields, body);
    let made = put("Content-Type: text/plain\r\nIf-None-Match: *\r\n", "one");
    assert_eq!(made.status, 201, "{}", made.text());
    let etag = made.field("etag").unwrap().to_owned();
    let told = get(&daemon, "/kv/a");
    assert_eq!(
        (told.text().as_str(), told.field("etag")),
        ("one", Some(etag.as_str()))
    );
    assert_eq!(
        ask(
            &daemon,
            "GET",
            "/kv/a",
            &format!("If-None-Match: {etag}\r\n"),
            ""
        )
        .status,
        304
    );
    assert_eq!(put("If-None-Match: *\r\n", "two").status, 412);
    assert_eq!(put("If-Match: \"0-0\"\r\n", "two").status, 412);
    assert_eq!(
        put(
            &format!("Content-Type: application/json\r\nIf-Match: {etag}\r\n"),
            "{\"n\":2}"
        )
        .status,
        204
    );
    assert_eq!(put(&format!("If-Match: {etag}\r\n"), "three").status, 412);
    let json = get(&daemon, "/kv/a");
    assert_eq!(
        (json.text().as_str(), json.field("content-type")),
        ("{\"n\":2}", Some("application/json"))
    );
    assert_eq!(put("Content-Type: application/json\r\n", "{").status, 400);
    for n in 0..3 {
        let path = format!("/kv/n{n}");
        assert_eq!(
            ask(&daemon, "PUT", &path, "Content-Type: text/plain\r\n", "x").status,
            201
        );
    }
    let page = get(&daemon, "/kv?limit=2");
    assert!(page.text().contains("u/a"), "{}", page.text());
    let link = page.field("link").unwrap();
    let next = link.split(['<', '>']).nth(1).unwrap();
    let rest = get(&daemon, &format!("/kv{next}"));
    assert!(
        rest.text().contains("u/n2") && rest.field("link").is_none(),
        "{}",
        rest.text()
    );
    assert_eq!(get(&daemon, "/size").text(), "4\n");
    let echoed = ask(&daemon, "POST", "/add/x", "", "[1]");
    assert_eq!(echoed.text(), "{\"a\":\"x\",\"b\":[1],\"c\":1}\n");

    assert_eq!(
        ask(&daemon, "DELETE", "/kv/a", "If-Match: \"0-0\"\r\n", "").status,
        412
    );
    let etag = json.field("etag").unwrap();
    let matching = format!("If-Match: {etag}\r\n");
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", &matching, "").status, 204);
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", "", "").status, 404);
    assert_eq!(ask(&daemon, "PUT", "/kv", "", "x").status, 405);
}

/// The routes of a store, as most tests have them.
fn keys_of(store: &Daemon) -> String {
    let server = store.endpoint("json-rpc");
    format!(
        "[[route]]\npath = \"/kv\"\nkv = {{ server = \"{server}\", prefix = \"u/\" }}\n\
         [[route]]\npath = \"/kv/{{key..}}\"\nkv = {{ server = \"{server}\", key = \"u/{{{{path.key}}}}\", write = true }}\n"
    )
}

/// A client of an event stream.
struct Watcher(Client);

impl Watcher {
    fn of(daemon: &Daemon, path: &str, fields: &str) -> Self {
        let client = Client::connect(&daemon.endpoint("http"));
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{fields}\r\n"
        ));
        Self(client)
    }

    /// The next event: its name, its id and its data.
    fn next(&self) -> (String, String, String) {
        let mut event = <[String; 3]>::default();
        loop {
            let line = self.0.receive_line();
            let line = line.trim_end();
            let names = ["event: ", "id: ", "data: "];
            for (name, part) in names.iter().zip(&mut event) {
                if let Some(text) = line.strip_prefix(name) {
                    text.clone_into(part);
                }
            }
            if line.is_empty() && !event[0].is_empty() {
                let [name, id, data] = event;
                return (name, id, data);
            }
        }
    }

    fn tells(&self, name: &str, data: &str) -> String {
        let (told, id, with) = self.next();
        assert_eq!((told.as_str(), with.as_str()), (name, data));
        id
    }
}

#[test]
fn a_watched_key_tells_every_value_and_resumes_where_its_client_was() {
    let store = store();
    let daemon = start("", &keys_of(&store));
    let put = |path: &str, body: &str| {
        let told = ask(&daemon, "PUT", path, "Content-Type: text/plain\r\n", body);
        assert!(told.status < 300, "{}", told.text());
    };
    let watcher = Watcher::of(&daemon, "/kv/a", "");
    watcher.tells("gone", "null");
    // Each change is told, however fast they follow each other, and none of another key.
    for n in 0..50 {
        put("/kv/ab", "other");
        put("/kv/a", &format!("v{n}"));
    }
    let ids: Vec<String> = (0..50)
        .map(|n| watcher.tells("value", &format!("\"v{n}\"")))
        .collect();
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", "", "").status, 204);
    watcher.tells("gone", "null");
    drop(watcher);
    let seen = format!("Last-Event-ID: {}\r\n", ids[47]);
    let again = Watcher::of(&daemon, "/kv/a", &seen);
    again.tells("value", "\"v48\"");
    again.tells("value", "\"v49\"");
    again.tells("gone", "null");
    // What was seen of a store that knew more is of no use.
    let elsewhere = Watcher::of(&daemon, "/kv/a", "Last-Event-ID: 99999\r\n");
    elsewhere.tells("gone", "null");
    // It ends when the store does.
    store.signal(nix::sys::signal::Signal::SIGTERM);
    elsewhere.0.receive_all();
}

#[test]
fn a_watched_list_tells_what_is_there_and_then_what_happens() {
    let store = store();
    let daemon = start("", &keys_of(&store));
    let put = |path: &str, body: &str| {
        ask(&daemon, "PUT", path, "Content-Type: text/plain\r\n", body);
    };
    for n in 0..3 {
        put(&format!("/kv/n{n}"), "x");
    }
    let watcher = Watcher::of(&daemon, "/kv?prefix=n", "");
    for n in 0..3 {
        let entry = format!("{{\"key\":\"u/n{n}\",\"value\":\"x\"}}");
        watcher.tells("value", &entry);
    }
    let id = watcher.tells("listed", "null");
    put("/kv/m", "y");
    put("/kv/n1", "z");
    assert_eq!(ask(&daemon, "DELETE", "/kv/n2", "", "").status, 204);
    let change = "{\"key\":\"u/n1\",\"value\":\"z\"}";
    watcher.tells("value", change);
    watcher.tells("gone", "{\"key\":\"u/n2\"}");
    let again = Watcher::of(&daemon, "/kv?prefix=n", &format!("Last-Event-ID: {id}\r\n"));
    again.tells("value", change);
    again.tells("gone", "{\"key\":\"u/n2\"}");
}

#[test]
fn a_reload_replaces_routes_as_a_whole_or_not_at_all() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/v\"\ntemplate = { body = \"one\" }\n",
    );
    assert_eq!(get(&daemon, "/v").text(), "one");
    let config = fs::read_to_string(daemon.config_path()).unwrap();
    daemon.rewrite_config(&config.replace("one", "two"));
    daemon.reload();
    assert_eq!(get(&daemon, "/v").text(), "two");
    daemon.rewrite_config(&config.replace("one", "{{path.x}}"));
    let said = daemon.reload();
    assert!(said.contains("[[route]] \"/v\""), "{said}");
    assert_eq!(get(&daemon, "/v").text(), "two");
    daemon.rewrite_config(config.split("[[route]]").next().unwrap());
    daemon.reload();
    assert_eq!(get(&daemon, "/v").status, 404);
}

#[test]
fn requests_beyond_the_routes_number_are_told_to_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/run/{{rest..}}\"\nconcurrent = 1\ncgi = {{ program = \"{}\", environment = {{ MARK = \"/dev/null\" }} }}\n",
            program(directory.path())
        ),
    );
    let first = Client::connect(&daemon.endpoint("http"));
    first.send("GET /run/drip HTTP/1.1\r\nHost: a\r\n\r\n");
    first.receive_line();
    let second = get(&daemon, "/run/x");
    assert_eq!(
        (second.status, second.field("retry-after")),
        (503, Some("1"))
    );
    first.reset();
    eventually("a place", || get(&daemon, "/run/x").status == 202);
}

#[test]
fn a_wrong_route_is_refused_with_what_to_do() {
    for (route, part) in [
        (
            "path = \"x\"\ntemplate = { body = \"\" }",
            "must begin with a slash",
        ),
        ("path = \"/x\"", "write exactly one of"),
        (
            "path = \"/x\"\ntemplate = { body = \"\" }\nrpc = { server = \"unix:/x\", method = \"m\" }",
            "write exactly one of",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"{{query.a}}\", content_type = \"text/javascript\" }",
            "no value is safe",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"{{header.cookie}}\" }",
            "would show a secret",
        ),
        ("path = \"/x\"\ndirectory = { path = \"/\" }", "{name..}"),
        (
            "path = \"/x\"\nfile = { path = \"/nonexistent/x\" }",
            "cannot be opened",
        ),
        ("path = \"/x\"\ncgi = { program = \"ls\" }", "absolute path"),
        ("path = \"/x\"\nproxy = { to = \"ftp://x\" }", "proxy.to"),
        (
            "path = \"/x\"\nmethods = [\"PUT\"]\nfile = { path = \"/etc/passwd\" }",
            "means nothing here",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"\" }\nallow = [\"nobody\"]",
            "allow",
        ),
        (
            "path = \"/x\"\ntemplate = { body = \"\" }\nspeed = 1",
            "speed",
        ),
    ] {
        let builder = common::builder();
        let text = common::config(&builder, "", &format!("[[route]]\n{route}\n"));
        let said = builder.config(&text).arg("--check").run();
        assert_eq!(said.code, Some(78), "{route}");
        assert!(said.stderr.contains(part), "{route}: {}", said.stderr);
    }
}
