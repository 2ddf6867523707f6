//! What strangers must not get by it.

use portyard_testkit::{Client, Daemon};

use super::{ask, common, get, start};

#[test]
fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
    let daemon = start("max_body = \"1KiB\"");
    for (target, status) in [("/post", 413), ("/go/post", 400), ("/go/upload", 400)] {
        let client = Client::connect(&daemon.endpoint("httpbin"));
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 10737418240\r\n\r\n"
        ));
        assert_eq!(common::answer(&client).status, status, "{target}");
    }
    for target in ["/post", "/go/post"] {
        let body = format!("800\r\n{}\r\n0\r\n\r\n", "x".repeat(2048));
        let client = Client::connect(&daemon.endpoint("httpbin"));
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        assert!(
            matches!(common::answer(&client).status, 400 | 413),
            "{target}"
        );
    }
    // What is made up is held to it too.
    assert_eq!(get(&daemon, "/bytes/5000").body.len(), 1024);
    for target in ["/go/bytes/5000", "/go/range/5000", "/go/drip?numbytes=5000"] {
        assert_eq!(get(&daemon, target).status, 400, "{target}");
    }
}

#[test]
fn nobody_makes_it_wait_longer_than_the_limit() {
    let daemon = start("httpbin.max_duration = \"100ms\"");
    for target in [
        "/go/delay/200ms",
        "/go/delay/1h",
        "/go/drip?duration=1s",
        "/go/drip?duration=80ms&delay=80ms",
        "/go/range/10?duration=1s",
        "/go/sse?duration=1s",
        "/go/jsonl?delay=1s",
    ] {
        let answer = get(&daemon, target);
        assert_eq!(answer.status, 400, "{target}: {}", answer.text());
    }
    // Who names no time is served within the limit.
    for target in ["/go/drip", "/go/sse?count=2"] {
        assert_eq!(get(&daemon, target).status, 200, "{target}");
    }
    // httpbin waits as long as it may.
    for target in [
        "/delay/1e9",
        "/drip?duration=inf&numbytes=2",
        "/range/10?duration=1e300",
    ] {
        assert_eq!(get(&daemon, target).status, 200, "{target}");
    }
}

#[test]
fn nothing_that_a_stranger_chose_is_a_page() {
    let daemon = start("");
    let script = "%3Cscript%3Ealert(1)%3C/script%3E";
    let base64 = "PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==";
    for target in [
        format!("/get?x={script}"),
        format!("/anything/{script}"),
        format!("/base64/{base64}"),
        format!("/base64/encode/{script}"),
        format!("/response-headers?x={script}"),
        format!("/response-headers?Content-Type=text/html&x={script}"),
        format!("/response-headers?content-type=image/svg%2Bxml&x={script}"),
        format!("/response-headers?Content-Type=text/plain&content-type=text/html&x={script}"),
        format!("/status/{script}"),
        format!("/cookies/set?{script}=1"),
        format!("/redirect-to?url=%22{script}"),
        format!("/redirect/{script}"),
        format!("/dump/request?{script}"),
        format!("/image/{script}"),
        format!("/nothing/{script}"),
        format!("/delay/{script}"),
        format!("/digest-auth/{script}/u/p"),
        format!("/websocket/echo?max_message_size={script}"),
    ] {
        for target in [
            target.clone(),
            format!("/go{target}"),
            format!("/go{target}&content-type=text/html"),
        ] {
            let answer = get(&daemon, &target);
            assert_eq!(
                answer.field("x-content-type-options"),
                Some("nosniff"),
                "{target}"
            );
            let types: Vec<_> = answer
                .head
                .lines()
                .filter_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-type: ")
                        .map(str::to_owned)
                })
                .collect();
            let is_text = types.iter().all(|media| {
                ["application/json", "text/plain", "application/x-ndjson"]
                    .iter()
                    .any(|safe| media.starts_with(safe))
            });
            let has_tag = answer.text().contains("<script");
            assert!(
                is_text || !has_tag,
                "{target}: {types:?}\n{}",
                answer.text()
            );
        }
    }
}

#[test]
fn no_field_is_split_and_no_framing_is_chosen() {
    let daemon = start("");
    for target in [
        "/response-headers?x=a%0d%0aSet-Cookie:%20b",
        "/response-headers?a%0d%0ab=c",
        "/response-headers?Content-Length=5",
        "/response-headers?transfer-encoding=chunked",
        "/response-headers?Connection=upgrade",
        "/redirect-to?url=/%0d%0aSet-Cookie:%20b",
        "/cookies/set?a%3Bb%0d=c",
        "/cookies/delete?a%0d%0ab",
        "/etag/a%0d%0ab",
        "/trailers?x=a%0d%0ab",
    ] {
        for prefix in ["", "/go"] {
            let answer = get(&daemon, &format!("{prefix}{target}"));
            // Go leaves out what it cannot send.
            let left_out = prefix == "/go" && matches!(answer.status, 200 | 302);
            let is_fine = answer.status == 400 || left_out;
            assert!(is_fine, "{prefix}{target}: {}", answer.head);
            assert!(
                !answer
                    .head
                    .to_ascii_lowercase()
                    .contains("\r\nset-cookie: b"),
                "{target}"
            );
        }
    }
}

#[test]
fn redirects_lead_to_listed_hosts_alone() {
    let daemon = start("httpbin.redirect_hosts = [\"good.test\"]");
    for prefix in ["", "/go"] {
        for (url, status) in [
            ("https://good.test/x", 302),
            ("/get", 302),
            ("https://evil.test", 403),
            ("//evil.test", 403),
            ("/%5cevil.test", 403),
            ("https:evil.test", 403),
        ] {
            let answer = get(&daemon, &format!("{prefix}/redirect-to?url={url}"));
            assert_eq!(answer.status, status, "{prefix} {url}: {}", answer.head);
        }
    }
    let told = get(&daemon, "/go/redirect-to?url=https://evil.test").text();
    assert!(told.contains("- good.test"), "{told}");
}

#[test]
fn hidden_fields_are_never_told() {
    let daemon = start("httpbin.hide_headers = [\"x-fc-*\", \"secret\"]");
    for prefix in ["", "/go"] {
        for endpoint in [
            "headers",
            "get",
            "anything",
            "dump/request",
            "stream/1",
            "jsonl",
            "gzip",
        ] {
            let target = format!("{prefix}/{endpoint}");
            let fields = "X-FC-Id: hidden\r\nSecret: hidden\r\nSeen: shown\r\n";
            let answer = ask(&daemon, "GET", &target, fields, "");
            assert!(
                !answer.text().contains("hidden"),
                "{target}: {}",
                answer.text()
            );
            assert!(
                endpoint == "gzip" || answer.text().contains("shown"),
                "{target}"
            );
        }
    }
}

#[test]
fn deep_or_odd_bodies_do_no_harm() {
    let daemon = start("");
    let deep = "[".repeat(100_000);
    let many = "--b\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(5000);
    for prefix in ["", "/go"] {
        for (media, body) in [
            ("application/json", deep.as_str()),
            ("multipart/form-data; boundary=b", many.as_str()),
            ("multipart/form-data; boundary=", "x"),
            ("multipart/form-data; boundary=\"", "x"),
            ("application/x-www-form-urlencoded", "%"),
        ] {
            let fields = format!("Content-Type: {media}\r\n");
            let answer = ask(&daemon, "POST", &format!("{prefix}/post"), &fields, body);
            assert!(
                matches!(answer.status, 200 | 400),
                "{prefix} {media}: {}",
                answer.head
            );
        }
    }
    let (code, page) = daemon.admin_get("/readyz");
    assert_eq!(code, 200, "{page}");
}

#[test]
fn requests_are_counted_by_endpoint() {
    let daemon = start("");
    get(&daemon, "/get");
    get(&daemon, "/go/get");
    get(&daemon, "/status/404");
    let count = |route: &str, class: &str| {
        daemon.count(&format!(
            "portyard_http_requests_total{{route=\"{route}\",class=\"{class}\"}}"
        ))
    };
    assert_eq!(count("httpbin/get", "2xx"), 2);
    assert_eq!(count("httpbin/status/{}", "4xx"), 1);
}

#[test]
fn wrong_options_are_told_at_the_start() {
    let binary = env!("CARGO_BIN_EXE_rest-api");
    for (options, told) in [
        ("httpbin.prefix = \"x\"", "must begin with /"),
        (
            "httpbin.prefixes = { \"/a//b\" = \"go\" }",
            "single slashes",
        ),
        ("httpbin.dialect = \"perl\"", "perl"),
        ("cors.origins = [\"https://a.test\"]", "cors"),
    ] {
        let config = format!(
            "[[listener]]\nservice = \"httpbin\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [listener.options]\n{options}\n"
        );
        let finished = Daemon::build(binary).config(&config).arg("--check").run();
        assert_eq!(finished.code, Some(78), "{options}");
        assert!(
            finished.stderr.contains(told),
            "{options}: {}",
            finished.stderr
        );
    }
}
