//! What the endpoints answer, in both dialects.

use portyard_testkit::Client;

use super::common::{self, curl};
use super::{ask, get, start, url};

#[test]
fn a_request_is_told_back_as_python_writes_it() {
    let daemon = start("");
    let answer = ask(
        &daemon,
        "GET",
        "/get?b=1&a=%C3%A4&b=2",
        "x-y: 1\r\nX-Y: 2\r\n",
        "",
    );
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let expected = r#"{
  "args": {
    "a": "\u00e4",
    "b": [
      "1",
      "2"
    ]
  },
  "headers": {
    "Host": "a.test",
    "X-Y": "1,2"
  },
  "origin": "127.0.0.1",
  "url": "http://a.test/get?b=1&a=\u00e4&b=2"
}
"#;
    assert_eq!(answer.text(), expected);
}

#[test]
fn a_request_is_told_back_as_go_writes_it() {
    let daemon = start("");
    let fields = "Content-Type: application/json\r\n";
    let answer = ask(
        &daemon,
        "POST",
        "/go/anything?a=%C3%A4",
        fields,
        "{\"x\": 1.0}",
    );
    let json = "application/json; charset=utf-8";
    assert_eq!(answer.field("content-type"), Some(json));
    let expected = r#"{
  "args": {
    "a": [
      "ä"
    ]
  },
  "headers": {
    "Content-Length": [
      "10"
    ],
    "Content-Type": [
      "application/json"
    ],
    "Host": [
      "a.test"
    ]
  },
  "method": "POST",
  "origin": "127.0.0.1",
  "url": "http://a.test/anything?a=%C3%A4",
  "data": "{\"x\": 1.0}",
  "files": {},
  "form": {},
  "json": {
    "x": 1
  }
}
"#;
    assert_eq!(answer.text(), expected);
}

#[test]
fn the_dialects_differ_where_clients_notice() {
    let daemon = start("");
    for (target, python, go) in [
        ("/status/401", "401 UNAUTHORIZED", "401 Unauthorized"),
        ("/status/418", "418 I'M A TEAPOT", "418 I'm a teapot"),
        ("/status/599", "599 UNKNOWN", "599 status code 599"),
        ("/nothing", "404 NOT FOUND", "404 Not Found"),
        ("/status/x", "400 BAD REQUEST", "400 Bad Request"),
        ("/redirect/0", "400 BAD REQUEST", "400 Bad Request"),
        ("/brotli", "200 OK", "501 Not Implemented"),
        ("/links/1000/0", "200 OK", "400 Bad Request"),
        ("/bytes/200000", "200 OK", "200 OK"),
        ("/range/200000", "404 NOT FOUND", "200 OK"),
    ] {
        for (prefix, expected) in [("", python), ("/go", go)] {
            let head = get(&daemon, &format!("{prefix}{target}")).head;
            let status = format!("HTTP/1.1 {expected}\r\n");
            assert!(head.starts_with(&status), "{prefix}{target}: {head}");
        }
    }
    let (python, go) = (get(&daemon, "/etag/x"), get(&daemon, "/go/etag/x"));
    assert_eq!(
        (python.field("etag"), go.field("etag")),
        (Some("x"), Some("\"x\""))
    );
    let (python, go) = (get(&daemon, "/nothing"), get(&daemon, "/go/status/x"));
    assert_eq!(
        python.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(go.text().contains("\"status_code\": 400"), "{}", go.text());
}

#[test]
fn seeded_bytes_are_those_that_clients_compute() {
    let daemon = start("");
    // random.Random(1); rand.New(rand.NewSource(1)).
    let python = [0x44, 0x20, 0x82, 0x3c, 0xfd, 0xe6, 0xf1, 0xc2];
    let go = [0x21, 0x0f, 0xc7, 0xbb, 0x81, 0x86, 0x39, 0xac];
    for (prefix, expected) in [("", python), ("/go", go)] {
        for endpoint in ["bytes", "stream-bytes"] {
            let target = format!("{prefix}/{endpoint}/8?seed=1&chunk_size=3");
            assert_eq!(get(&daemon, &target).body, expected, "{target}");
        }
    }
    assert_ne!(get(&daemon, "/bytes/8").body, get(&daemon, "/bytes/8").body);
}

#[test]
fn every_origin_may_read_and_a_preflight_is_answered() {
    let daemon = start("");
    for (prefix, methods) in [
        ("", "GET, POST, PUT, DELETE, PATCH, OPTIONS"),
        ("/go", "GET, POST, HEAD, PUT, DELETE, PATCH, OPTIONS"),
    ] {
        let fields = "Origin: https://o.test\r\nAccess-Control-Request-Headers: x-a\r\n";
        let answer = ask(&daemon, "OPTIONS", &format!("{prefix}/get"), fields, "");
        assert_eq!(answer.status, 200);
        for (name, expected) in [
            ("access-control-allow-origin", "https://o.test"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", methods),
            ("access-control-allow-headers", "x-a"),
            ("access-control-max-age", "3600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.field(name), Some(expected), "{prefix} {name}");
        }
        let answer = get(&daemon, &format!("{prefix}/status/500"));
        assert_eq!(answer.field("access-control-allow-origin"), Some("*"));
    }
}

#[test]
fn what_only_one_original_has_is_in_both_dialects() {
    let daemon = start("httpbin.hostname = \"h\"");
    for prefix in ["", "/go"] {
        let text = |target: &str| get(&daemon, &format!("{prefix}{target}")).text();
        assert_eq!(
            text("/env"),
            "{\n  \"env\": {\n    \"HTTPBIN_SEEN\": \"yes\"\n  }\n}\n"
        );
        assert_eq!(text("/hostname"), "{\n  \"hostname\": \"h\"\n}\n");
        assert_eq!(text("/ip?format=text"), "127.0.0.1\n");
        assert_eq!(text("/base64/encode/hello"), "aGVsbG8=");
        assert_eq!(text("/base64/decode/aGVsbG8="), "hello");
        assert!(text("/jsonl?count=3").lines().count() == 3);
        let dump = format!("GET {prefix}/dump/request HTTP/1.1\r\nHost: a.test\r\n\r\n");
        assert_eq!(text("/dump/request"), dump);
        let upload = ask(&daemon, "PUT", &format!("{prefix}/upload"), "", "12345");
        assert!(upload.text().contains("\"bytes_received\": 5"));
        let sse = get(&daemon, &format!("{prefix}/sse?count=2&duration=1ms"));
        assert_eq!(sse.text().matches("event: ping\ndata: {\"id\":").count(), 2);
        let head = ask(&daemon, "HEAD", &format!("{prefix}/head"), "", "");
        assert_eq!(head.status, 200);
    }
}

#[test]
fn trailers_come_behind_the_body_whether_asked_for_or_not() {
    let daemon = start("");
    for prefix in ["", "/go"] {
        for fields in [&["-H", "TE:"], &["-H", "TE: x;q=0.5, trailers"]] {
            let url = url(&daemon, &format!("{prefix}/trailers?X-A=1&X-B=2"));
            let told = curl(&[&["-i", "--raw"], &fields[..], &[&url]].concat());
            let (head, rest) = told.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("Trailer: X-A, X-B"), "{head}");
            assert!(
                rest.ends_with("\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"),
                "{told}"
            );
            // Only what the client has said is told back.
            let said = fields[1].strip_prefix("TE: ");
            assert_eq!(rest.contains("\"Te\""), said.is_some(), "{told}");
            assert_eq!(
                rest.matches("trailers").count(),
                1 + fields[1].matches("trailers").count()
            );
        }
    }
    let refused = get(&daemon, "/go/trailers?Content-Length=1");
    assert_eq!(refused.status, 400);
    // HTTP/1.0 has none.
    let old = curl(&["-i0", &url(&daemon, "/go/trailers?X-A=1")]);
    assert!(old.ends_with("}\n"), "{old}");
}

#[test]
fn a_status_on_the_way_goes_before_the_answer() {
    let daemon = start("");
    for (target, before) in [
        ("/go/status/100", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("/go/status/103", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        (
            "/go/drip?code=102&delay=0&duration=0",
            "HTTP/1.1 102 Processing\r\n\r\n",
        ),
    ] {
        let client = Client::connect(&daemon.endpoint("httpbin"));
        // Those that come behind others stay out of them, and may do without.
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(request.repeat(3));
        assert_eq!(
            String::from_utf8_lossy(&client.receive(before.len())),
            before,
            "{target}"
        );
        let mut answers = 0;
        while answers < 3 {
            let answer = common::answer(&client);
            answers += u32::from(answer.status == 200);
            assert!(answer.status == 200 || before.contains(&answer.status.to_string()));
        }
    }
    // 101 would be the end of HTTP, and HTTP/1.0 knows none of them.
    assert_eq!(get(&daemon, "/go/status/101").status, 400);
    let old = curl(&["-i0", &url(&daemon, "/go/status/103")]);
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}

#[test]
fn names_of_fields_are_spelled_as_httpbin_spells_them() {
    let daemon = start("");
    let told = get(
        &daemon,
        "/response-headers?foo=1&FOO=2&eTag=3&content-TYPE=text/plain",
    );
    for line in [
        "Content-Type: application/json",
        "foo: 1",
        "FOO: 2",
        "eTag: 3",
        "content-TYPE: text/plain",
        "Access-Control-Allow-Origin: *",
    ] {
        assert!(
            told.head.lines().any(|found| found == line),
            "{}",
            told.head
        );
    }
    assert!(get(&daemon, "/etag/a").head.contains("\r\nETag: a\r\n"));
    let asks = get(&daemon, "/basic-auth/u/p").head;
    assert!(asks.contains("\r\nWWW-Authenticate: Basic "), "{asks}");
    // Go begins each word with a capital.
    let told = get(&daemon, "/go/response-headers?foo=1&FOO=2&eTag=3").head;
    assert!(
        told.contains("\r\nFoo: ") && told.contains("\r\nEtag: 3\r\n"),
        "{told}"
    );
}

#[test]
fn go_leads_out_of_its_prefix_where_it_names_the_host() {
    let daemon = start("");
    for (target, location) in [
        ("/go/redirect/2", "/go/relative-redirect/1"),
        (
            "/go/absolute-redirect/2",
            "http://a.test/absolute-redirect/1",
        ),
        ("/go/redirect/1?absolute=true", "http://a.test/get"),
        ("/go/cookies/set?a=b", "/go/cookies"),
        ("/go/status/300", "/go/image/jpeg"),
    ] {
        let answer = get(&daemon, target);
        assert_eq!(answer.field("location"), Some(location), "{target}");
    }
}

#[test]
fn several_ranges_of_go_come_at_once() {
    let daemon = start("");
    let fields = "Range: bytes=10-12, 50-52\r\n";
    let answer = ask(&daemon, "GET", "/go/range/100", fields, "");
    assert_eq!(
        (answer.status, answer.field("etag")),
        (206, Some("range100"))
    );
    let media = answer.field("content-type").unwrap();
    let boundary = media
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let part = |range: &str, letters: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Range: bytes {range}/100\r\n\r\n{letters}\r\n"
        )
    };
    let expected = part("10-12", "klm") + &part("50-52", "yza") + &format!("--{boundary}--\r\n");
    assert_eq!(answer.text(), expected);
    // What is told back has the field in it, so that its bytes are not known here.
    assert_eq!(ask(&daemon, "GET", "/go/etag/t", fields, "").status, 206);
}

#[test]
fn a_paced_range_of_go_waits_before_its_head() {
    let daemon = start("");
    let started = std::time::Instant::now();
    let fields = "Range: bytes=10-59\r\n";
    let answer = ask(&daemon, "GET", "/go/range/100?duration=200ms", fields, "");
    assert!(started.elapsed() >= std::time::Duration::from_millis(100));
    assert_eq!((answer.status, answer.body.len()), (206, 50));
    let bytes = get(&daemon, "/go/range/100000?duration=1ms").body;
    assert_eq!(bytes.len(), 100_000);
    let is_row = |(at, byte): (usize, &u8)| usize::from(*byte) == 97 + at % 26;
    assert!(bytes.iter().enumerate().all(is_row));
}

#[test]
fn curl_proves_a_password_in_each_way() {
    let daemon = start("");
    for prefix in ["", "/go"] {
        let mut ways = vec![
            (vec!["-u", "u:p"], "basic-auth/u/p"),
            (vec!["-u", "u:p"], "hidden-basic-auth/u/p"),
            (vec!["-H", "Authorization: Bearer t"], "bearer"),
            (vec!["--digest", "-u", "u:p"], "digest-auth/auth/u/p"),
            (
                vec!["--digest", "-u", "u:p"],
                "digest-auth/auth/u/p/SHA-256",
            ),
        ];
        if prefix.is_empty() {
            ways.extend([
                (
                    vec!["--digest", "-u", "u:p"],
                    "digest-auth/auth-int/u/p/MD5",
                ),
                (
                    vec!["--digest", "-u", "u:p"],
                    "digest-auth/auth,auth-int/u/p",
                ),
                (
                    vec!["--digest", "-u", "u:p", "-b", "x=y"],
                    "digest-auth/auth/u/p/MD5/2?a=b",
                ),
            ]);
        }
        for (arguments, path) in ways {
            let page = url(&daemon, &format!("{prefix}/{path}"));
            let told = curl(&[&arguments[..], &[&page]].concat());
            assert!(
                told.contains("\"authenticated\": true"),
                "{prefix}/{path}: {told}"
            );
        }
        for path in [
            "basic-auth/u/x",
            "digest-auth/auth/u/x",
            "digest-auth/auth/v/p",
        ] {
            let page = url(&daemon, &format!("{prefix}/{path}"));
            let code = curl(&[
                "--anyauth",
                "-u",
                "u:p",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &page,
            ]);
            assert_eq!(code, "401", "{prefix}/{path}");
        }
    }
}

#[test]
fn a_stale_nonce_is_told_and_a_cookie_may_be_required() {
    let daemon = start("");
    let credentials = "Authorization: Digest username=u, nonce=n, response=r\r\n";
    for (target, fields, status, told) in [
        (
            "/digest-auth/auth/u/p",
            "Cookie: last_nonce=n\r\n",
            401,
            "stale=True",
        ),
        (
            "/digest-auth/auth/u/p",
            "Cookie: stale_after=0\r\n",
            401,
            "stale=True",
        ),
        ("/digest-auth/auth/u/p", "", 401, "stale=False"),
        (
            "/digest-auth/auth/u/p?require-cookie=1",
            "Cookie: a=b\r\n",
            403,
            "fake=fake_value",
        ),
    ] {
        let answer = ask(
            &daemon,
            "GET",
            target,
            &format!("{credentials}{fields}"),
            "",
        );
        assert_eq!(answer.status, status, "{target} {fields}");
        assert!(answer.head.contains(told), "{}", answer.head);
    }
}

#[test]
fn curl_keeps_cookies_follows_redirects_and_decodes() {
    let daemon = start("");
    for prefix in ["", "/go"] {
        let page = |path: &str| url(&daemon, &format!("{prefix}{path}"));
        let jar = daemon.dir().join("jar").display().to_string();
        let told = curl(&["-L", "-c", &jar, "-b", &jar, &page("/cookies/set?a=b")]);
        assert_eq!(told, "{\n  \"cookies\": {\n    \"a\": \"b\"\n  }\n}\n");
        let told = curl(&["-L", "-c", &jar, "-b", &jar, &page("/cookies/delete?a")]);
        assert_eq!(told, "{\n  \"cookies\": {}\n}\n");
        for path in [
            "/redirect/5",
            "/redirect/5?absolute=true",
            "/absolute-redirect/3",
        ] {
            let told = curl(&["-L", "-w", "%{num_redirects}", &page(path)]);
            let hops = &path.split('/').next_back().unwrap()[..1];
            assert!(told.ends_with(hops), "{path}: {told}");
        }
        for (path, flag) in [
            ("/gzip", "gzipped"),
            ("/deflate", "deflated"),
            ("/zstd", "zstd"),
        ] {
            let told = curl(&["--compressed", &page(path)]);
            assert!(told.contains(&format!("\"{flag}\": true")), "{told}");
        }
        let upload = curl(&[
            "-F",
            "a=1",
            "-F",
            "f=@/etc/hostname;type=text/plain",
            &page("/post"),
        ]);
        assert!(
            upload.contains("\"a\": ") && upload.contains("\"f\": "),
            "{upload}"
        );
        let chunked = curl(&[
            "-H",
            "Transfer-Encoding: chunked",
            "-d",
            "x=y",
            &page("/post"),
        ]);
        assert!(chunked.contains("\"x\": "), "{chunked}");
        let range = curl(&["-r", "5-9", "-w", "%{http_code}", &page("/range/26")]);
        assert_eq!(range, "fghij206");
    }
    let told = curl(&["--compressed", &url(&daemon, "/brotli")]);
    assert!(told.contains("\"brotli\": true"), "{told}");
}

#[test]
fn http2_gives_the_same() {
    let daemon = start("");
    let page = url(&daemon, "/get?a=b");
    let [first, second] = ["--http1.1", "--http2-prior-knowledge"].map(|http| curl(&[http, &page]));
    assert_eq!(first, second);
}

/// curl takes any byte behind the head of such an answer for a fault of the stream.
#[test]
fn http2_sends_no_body_where_none_may_be() {
    let daemon = start("");
    let h2 = "--http2-prior-knowledge";
    for prefix in ["", "/go"] {
        for path in ["/get", "/image/png", "/stream/3", "/status/404", "/nothing"] {
            let page = url(&daemon, &format!("{prefix}{path}"));
            let told = curl(&[h2, "-I", &page]);
            assert!(told.starts_with("HTTP/2 "), "{prefix}{path}: {told}");
        }
        for code in [204, 304] {
            let path = format!("{prefix}/drip?duration=0&numbytes=3&code={code}");
            let told = curl(&[h2, "-w", "%{http_code}", &url(&daemon, &path)]);
            assert_eq!(told, code.to_string(), "{path}");
        }
    }
    let [head, body] = ["-I", "-i"].map(|how| curl(&[h2, how, &url(&daemon, "/get")]));
    let length = head
        .lines()
        .find(|line| line.starts_with("content-length: "));
    assert!(body.contains(length.unwrap()), "{head}{body}");
}

#[test]
fn go_refuses_a_range_that_is_none() {
    let daemon = start("");
    for (range, status) in [
        ("bytes=a-b", 416),
        ("bytes=5-4", 416),
        ("bytes=--3", 416),
        ("lines=1-2", 416),
        ("Bytes=0-4", 416),
        ("bytes=0-99999999999999999999", 416),
        ("bytes=", 200),
        ("bytes=0-4,", 206),
        ("bytes=24-99", 206),
    ] {
        let fields = format!("Range: {range}\r\n");
        let answer = ask(&daemon, "GET", "/go/range/26", &fields, "");
        assert_eq!(answer.status, status, "{range}");
        if answer.status == 416 {
            assert_eq!(answer.text(), "invalid range\n", "{range}");
            assert_eq!(answer.field("accept-ranges"), Some("bytes"), "{range}");
            assert_eq!(answer.field("etag"), None, "{range}");
        }
        // A range whose condition fails is not looked at.
        let fields = format!("{fields}If-Range: \"other\"\r\n");
        let answer = ask(&daemon, "GET", "/go/range/26", &fields, "");
        assert_eq!(answer.status, 200, "{range}");
    }
}

/// What go-httpbin of July 2026 with Go 1.27 gave for the same.
#[test]
fn go_is_strict_where_the_original_is() {
    let daemon = start("");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (target, expected) in [
        ("/go/post?a=%zz", "invalid URL escape \\\"%zz\\\""),
        ("/go/post?a;b", "invalid semicolon separator in query"),
    ] {
        let answer = ask(&daemon, "POST", target, form, "x=y");
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.text().contains(expected), "{}", answer.text());
        // Where no form is read, what is malformed is left out.
        assert_eq!(get(&daemon, &target.replace("post", "get")).status, 200);
    }
    let parts = "--b\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n1\r\n\
                 --b\r\nContent-Disposition: form-data; name=\"\"; filename=\"f\"\r\n\r\n2\r\n\
                 --b\r\nContent-Disposition: form-data; name=\"c\"\r\n\r\n3\r\n--b--\r\n";
    let fields = "Content-Type: multipart/form-data; boundary=b\r\n";
    let answer = ask(&daemon, "POST", "/go/post", fields, parts);
    let told: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    assert_eq!(told["form"], serde_json::json!({"c": ["3"]}));
    assert_eq!(told["files"], serde_json::json!({}));
    let answer = get(&daemon, "/go/redirect/x");
    let why = "invalid redirect count: strconv.Atoi: parsing \\\"x\\\": invalid syntax";
    assert!(answer.text().contains(why), "{}", answer.text());
    let answer = get(&daemon, "/go/anything//x?a=b");
    let location = answer.field("location");
    assert_eq!((answer.status, location), (307, Some("/go/anything/x?a=b")));
    assert_eq!(
        answer.text(),
        "<a href=\"/go/anything/x?a=b\">Temporary Redirect</a>.\n\n"
    );
    let posted = ask(&daemon, "POST", "/go/anything//x", "", "");
    assert_eq!((posted.status, posted.body.len()), (307, 0));
    assert_eq!(get(&daemon, "/go/base64/aGVs%0AbG8=").text(), "hello");
    let seen = ask(&daemon, "GET", "/go/cache", "If-None-Match: x\r\n", "");
    assert_eq!((seen.status, seen.field("content-type")), (304, None));
}

#[test]
fn what_is_slow_takes_its_time() {
    let daemon = start("");
    for (target, least) in [
        ("/delay/0.2", 200),
        ("/go/delay/200ms", 200),
        ("/drip?duration=0.2&numbytes=4", 150),
        ("/go/drip?duration=200ms&numbytes=4&delay=0", 200),
        ("/range/26?duration=0.2&chunk_size=5", 200),
        ("/go/jsonl?count=3&duration=200ms", 200),
        ("/go/sse?count=3&duration=200ms&jitter=0", 200),
    ] {
        let started = std::time::Instant::now();
        assert_eq!(get(&daemon, target).status, 200, "{target}");
        let took = started.elapsed().as_millis();
        // Only that it waits at all: how punctual it is depends on the machine.
        assert!(took >= least, "{target}: {took} ms");
    }
    let answer = get(&daemon, "/drip?duration=0&numbytes=7&code=503");
    assert_eq!((answer.status, answer.text().as_str()), (503, "*******"));
    assert_eq!(answer.field("content-length"), Some("7"));
}

#[test]
fn images_are_what_they_say() {
    let daemon = start("");
    for (kind, media, magic) in [
        ("png", "image/png", &b"\x89PNG\r\n\x1a\n"[..]),
        ("jpeg", "image/jpeg", b"\xff\xd8\xff"),
        ("webp", "image/webp", b"RIFF"),
        ("svg", "image/svg+xml", b"<?xml"),
    ] {
        for (prefix, target, accept) in [
            ("", format!("/image/{kind}"), "*/*"),
            ("/go", format!("/image/{kind}"), "*/*"),
            ("", "/image".into(), media),
            ("/go", "/image".into(), media),
        ] {
            let fields = format!("Accept: {accept}\r\n");
            let answer = ask(&daemon, "GET", &format!("{prefix}{target}"), &fields, "");
            assert_eq!(answer.field("content-type"), Some(media));
            assert!(answer.body.starts_with(magic));
        }
    }
    let nothing = "Accept: text/html\r\n";
    assert_eq!(ask(&daemon, "GET", "/image", nothing, "").status, 406);
    assert_eq!(ask(&daemon, "GET", "/go/image", nothing, "").status, 415);
}
