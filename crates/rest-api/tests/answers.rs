//! What every answer has: the form that is liked, conditions, ranges, codings, problems, safe fields.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read as _, Write as _};

use common::{ask, curl, get, start, url};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use portyard_testkit::Client;

#[test]
fn hello_greets_as_the_client_likes_and_takes_script_for_text() {
    let daemon = start("", "");
    let name = "%3Cscript%3Ealert(1)%3C/script%3E";
    let html = get(&daemon, &format!("/hello?name={name}"));
    assert_eq!(html.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        html.text()
            .contains("Hello, &lt;script&gt;alert(1)&lt;/script&gt;!"),
        "{}",
        html.text()
    );
    assert_eq!(html.field("x-content-type-options"), Some("nosniff"));
    for (accept, kind, text) in [
        (
            "text/plain",
            "text/plain; charset=utf-8",
            "Hello, <script>alert(1)</script>!\n",
        ),
        (
            "application/json;q=0.9, text/html;q=0.1",
            "application/json",
            "{\"hello\":\"<script>alert(1)</script>\"}\n",
        ),
    ] {
        let told = ask(
            &daemon,
            "GET",
            &format!("/hello?name={name}"),
            &format!("Accept: {accept}\r\n"),
            "",
        );
        assert_eq!(
            (told.field("content-type"), told.text().as_str()),
            (Some(kind), text)
        );
        assert_eq!(told.field("vary"), Some("accept"));
    }
    let none = ask(&daemon, "GET", "/hello", "Accept: image/png\r\n", "");
    assert_eq!(none.status, 406);
    assert!(none.text().contains("text/html") && none.text().contains("application/json"));
    assert!(
        get(&daemon, "/hello?name=J%C3%B6rg+X")
            .text()
            .contains("Jörg X")
    );
}

#[test]
fn the_local_time_comes_in_five_forms() {
    let builder = common::builder();
    let text = common::config(&builder, "", "");
    let daemon = builder.config(&text).env("TZ", "Asia/Kolkata").start();
    for (suffix, kind, part) in [
        (".xml", "application/xml", "<minute>"),
        (".json", "application/json", "\"offset\":19800,"),
        (
            ".csv",
            "text/csv; charset=utf-8; header=present",
            "year,month,day,hour,minute,second\r\n",
        ),
        (".html", "text/html; charset=utf-8", "<time datetime="),
        (".txt", "text/plain; charset=utf-8", "+05:30\n"),
    ] {
        let by_suffix = get(&daemon, &format!("/localtime{suffix}"));
        assert_eq!(by_suffix.field("content-type"), Some(kind));
        assert!(by_suffix.text().contains(part), "{}", by_suffix.text());
        let wish = format!("Accept: {}\r\n", kind.split(';').next().unwrap());
        let by_wish = ask(&daemon, "GET", "/localtime", &wish, "");
        assert_eq!(by_wish.field("content-type"), Some(kind));
        assert_eq!(by_wish.field("cache-control"), Some("no-store"));
    }
    let xml = get(&daemon, "/localtime").text();
    for name in ["year", "month", "day", "hour", "minute", "second"] {
        assert!(
            xml.contains(&format!("<{name}>")) && xml.contains(&format!("</{name}>")),
            "{xml}"
        );
    }
    assert_eq!(get(&daemon, "/localtime.doc").status, 404);
}

#[test]
fn a_problem_is_told_in_the_form_that_is_liked() {
    let daemon = start("", "");
    let json = get(&daemon, "/nothing");
    assert_eq!(json.field("content-type"), Some("application/problem+json"));
    assert_eq!(
        json.text(),
        "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,\
         \"detail\":\"there is nothing at this path\"}\n"
    );
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let html = ask(&daemon, "GET", "/nothing", browser, "");
    assert_eq!(html.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(html.text().contains("<h1>404 Not Found</h1>"));
    let text = ask(&daemon, "GET", "/nothing", "Accept: text/plain\r\n", "");
    assert_eq!(
        text.text(),
        "404 Not Found: there is nothing at this path\n"
    );
}

const FILE: &str = "[[route]]\npath = \"/file\"\nfile = { path = \"FILE\" }\n";

fn with_file(content: &[u8]) -> (portyard_testkit::Daemon, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some.txt");
    std::fs::write(&path, content).unwrap();
    let daemon = start("", &FILE.replace("FILE", path.to_str().unwrap()));
    (daemon, directory)
}

#[test]
fn conditions_and_ranges_spare_what_the_client_has() {
    let (daemon, _directory) = with_file(b"0123456789");
    let whole = get(&daemon, "/file");
    assert_eq!((whole.status, whole.text().as_str()), (200, "0123456789"));
    assert_eq!(whole.field("accept-ranges"), Some("bytes"));
    let etag = whole.field("etag").unwrap().to_owned();
    let modified = whole.field("last-modified").unwrap().to_owned();
    for (fields, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {etag}\r\n"), 304),
        (format!("If-Modified-Since: {modified}\r\n"), 304),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".into(), 412),
        ("If-None-Match: \"x\"\r\n".into(), 200),
    ] {
        let told = ask(&daemon, "GET", "/file", &fields, "");
        assert_eq!(told.status, status, "{fields}");
        if status == 304 {
            assert_eq!(told.field("etag"), Some(etag.as_str()));
            assert_eq!(told.field("content-type"), None);
        }
    }
    for (fields, status, range, text) in [
        (
            "Range: bytes=2-4\r\n".to_owned(),
            206,
            Some("bytes 2-4/10"),
            "234",
        ),
        (
            "Range: bytes=-2\r\n".into(),
            206,
            Some("bytes 8-9/10"),
            "89",
        ),
        // Several that touch are one.
        (
            "Range: bytes=0-1,2-4\r\n".into(),
            206,
            Some("bytes 0-4/10"),
            "01234",
        ),
        ("Range: bytes=0-1,x\r\n".into(), 200, None, "0123456789"),
        (
            format!("Range: bytes=1-1\r\nIf-Range: {etag}\r\n"),
            206,
            Some("bytes 1-1/10"),
            "1",
        ),
        (
            "Range: bytes=1-1\r\nIf-Range: \"x\"\r\n".into(),
            200,
            None,
            "0123456789",
        ),
    ] {
        let told = ask(&daemon, "GET", "/file", &fields, "");
        assert_eq!(
            (told.status, told.field("content-range")),
            (status, range),
            "{fields}"
        );
        assert_eq!(told.text(), text);
    }
    let beyond = ask(&daemon, "GET", "/file", "Range: bytes=10-\r\n", "");
    assert_eq!(
        (beyond.status, beyond.field("content-range")),
        (416, Some("bytes */10"))
    );
}

#[test]
fn a_date_is_good_for_a_range_only_when_it_is_old() {
    let (daemon, directory) = with_file(b"0123456789");
    let part = || {
        let modified = get(&daemon, "/file")
            .field("last-modified")
            .unwrap()
            .to_owned();
        let fields = format!("Range: bytes=1-1\r\nIf-Range: {modified}\r\n");
        ask(&daemon, "GET", "/file", &fields, "").status
    };
    let file = std::fs::File::options()
        .write(true)
        .open(directory.path().join("some.txt"))
        .unwrap();
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    for (modified, status) in [(now + hour, 200), (now - hour, 206)] {
        file.set_modified(modified).unwrap();
        assert_eq!(part(), status);
    }
}

#[test]
fn a_text_that_is_always_the_same_has_a_tag() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/same\"\ntemplate = { body = \"0123456789\" }\n\
         [[route]]\npath = \"/other\"\ntemplate = { body = \"0123456789\", content_type = \"text/plain\" }\n\
         [[route]]\npath = \"/filled\"\ntemplate = { body = \"{{query.a}}\" }\n",
    );
    let same = get(&daemon, "/same");
    let etag = same.field("etag").unwrap();
    let fields = format!("If-None-Match: {etag}\r\n");
    assert_eq!(ask(&daemon, "GET", "/same", &fields, "").status, 304);
    let part = ask(&daemon, "GET", "/same", "Range: bytes=2-3\r\n", "");
    assert_eq!((part.status, part.text().as_str()), (206, "23"));
    assert_ne!(get(&daemon, "/other").field("etag"), Some(etag));
    assert_eq!(get(&daemon, "/filled").field("etag"), None);
}

#[test]
fn a_large_file_comes_whole_and_in_parts() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (daemon, _directory) = with_file(&content);
    let whole = get(&daemon, "/file");
    assert!(whole.body == content, "{} bytes", whole.body.len());
    let part = ask(
        &daemon,
        "GET",
        "/file",
        "Range: bytes=1000000-1999999\r\n",
        "",
    );
    assert!(part.body == content[1_000_000..2_000_000]);
    let head = ask(&daemon, "HEAD", "/file", "", "");
    assert_eq!(head.field("content-length"), Some("3000000"));
}

#[test]
fn answers_are_compressed_where_that_is_liked() {
    let text = "Ein Satz, der sich wiederholt. ".repeat(20_000);
    let (daemon, _directory) = with_file(text.as_bytes());
    let page = url(&daemon, "/file");
    assert!(curl(&["--compressed", &page]) == text);
    for (coding, most) in [
        ("gzip", 20_000),
        ("deflate", 20_000),
        ("br", 20_000),
        ("zstd", 20_000),
    ] {
        let told = ask(
            &daemon,
            "GET",
            "/file",
            &format!("Accept-Encoding: {coding}\r\n"),
            "",
        );
        assert_eq!(told.field("content-encoding"), Some(coding));
        assert!(told.body.len() < most, "{coding} {}", told.body.len());
        let etag = told.field("etag").unwrap().to_owned();
        assert!(etag.ends_with(&format!("+{coding}\"")), "{etag}");
        assert!(told.head.to_lowercase().contains("vary: accept-encoding"));
        let again = ask(
            &daemon,
            "GET",
            "/file",
            &format!("Accept-Encoding: {coding}\r\nIf-None-Match: {etag}\r\n"),
            "",
        );
        // Else what the client keeps of one coding would count as another.
        let known = again.field("etag");
        assert_eq!((again.status, known), (304, Some(etag.as_str())));
        if coding == "gzip" {
            let mut plain = String::new();
            GzDecoder::new(&told.body[..])
                .read_to_string(&mut plain)
                .unwrap();
            assert!(plain == text);
        }
    }
    let plain = get(&daemon, "/file");
    assert_eq!(
        (plain.field("content-encoding"), plain.body.len()),
        (None, text.len())
    );
}

const TWICE: &str = "[[route]]\npath = \"/sink\"\nmax_body = \"100KiB\"\n\
    rpc = { server = \"unix:/nonexistent\", method = \"echo\", parameters = [\"{{body}}\"] }\n";

#[test]
fn compressed_requests_are_unpacked_within_the_limit() {
    let daemon = start("", TWICE);
    let post = |coding: &str, body: &[u8]| {
        let client = Client::connect(&daemon.endpoint("http"));
        client.send(format!(
            "POST /sink HTTP/1.1\r\nHost: a\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        client.send(body);
        common::answer(&client)
    };
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    // What reaches the server behind the route has been unpacked; that there is none is not our fault.
    assert_eq!(post("gzip", &gzip(b"[1, 2]")).status, 502);
    assert_eq!(post("gzip", b"[1, 2]").status, 400);
    assert_eq!(post("gzip", &gzip(b"no json")).status, 400);
    let bomb = post("gzip", &gzip(&vec![b' '; 50 << 20]));
    assert_eq!(bomb.status, 413, "{}", bomb.text());
    let unknown = post("compress", b"[1]");
    assert_eq!(
        (unknown.status, unknown.field("accept-encoding")),
        (415, Some("gzip, deflate, br, zstd"))
    );
    for twice in ["gzip, gzip", "gzip\r\nContent-Encoding: gzip"] {
        assert_eq!(post(twice, &gzip(b"[1]")).status, 415);
    }
    assert_eq!(post("Identity", b"[1]").status, 502);
}

#[test]
fn browsers_are_told_by_rule_who_may_read() {
    let daemon = start(
        "cors = { origins = [\"https://app.example\"], credentials = true, methods = [\"GET\", \"PUT\"] }",
        "",
    );
    let ours = ask(
        &daemon,
        "GET",
        "/hello",
        "Origin: https://app.example\r\n",
        "",
    );
    assert_eq!(
        ours.field("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(ours.field("access-control-allow-credentials"), Some("true"));
    let other = ask(
        &daemon,
        "GET",
        "/hello",
        "Origin: https://evil.example\r\n",
        "",
    );
    assert_eq!(other.field("access-control-allow-origin"), None);
    let before = "Origin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n";
    let told = ask(&daemon, "OPTIONS", "/hello", before, "");
    assert_eq!(
        (told.status, told.field("access-control-allow-methods")),
        (204, Some("GET, PUT"))
    );
    let refused = common::builder();
    let text = common::config(
        &refused,
        "cors = { origins = [\"*\"], credentials = true }",
        "",
    );
    let said = refused.config(&text).arg("--check").run();
    assert!(
        said.code == Some(78) && said.stderr.contains("name the origins"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_request_has_an_id_that_answer_and_log_show() {
    let daemon = start("access_log = true", "");
    let made = get(&daemon, "/hello");
    let id = made.field("x-request-id").unwrap().to_owned();
    daemon.wait_for_log(&id);
    let given = ask(
        &daemon,
        "GET",
        "/hello?a=%1b[31m",
        "X-Request-Id: mine-7\r\nUser-Agent: a\tb\r\n",
        "",
    );
    assert_eq!(given.field("x-request-id"), Some("mine-7"));
    daemon.wait_for_log("id=mine-7");
    let log = daemon.log();
    assert!(
        log.contains("method=GET") && log.contains("status=200") && log.contains("bytes=102"),
        "{log}"
    );
    assert!(!log.contains('\t'), "{log}");
    let bad = ask(&daemon, "GET", "/hello", "X-Request-Id: a b\r\n", "");
    assert_ne!(bad.field("x-request-id"), Some("a b"));
    let counted = "portyard_http_requests_total{route=\"/hello\",class=\"2xx\"}";
    assert_eq!(daemon.count(counted), 3);
}
