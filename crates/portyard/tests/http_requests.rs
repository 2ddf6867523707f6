//! `portyard http` against rest-api's httpbin, in both dialects, and against servers that show what
//! was on the wire.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;
mod http;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{finish, run};
use http::{Answering, answer, rest_api, url};
use portyard_testkit::peer;
use serde_json::{Value, json};

/// What a run with these words prints, as JSON.
#[track_caller]
fn told(words: &[&str], input: &[u8]) -> Value {
    let words = [&["http"], words].concat();
    let run = run(&words, input).expect(0);
    serde_json::from_str(run.text()).unwrap_or_else(|error| panic!("{error}: {}", run.text()))
}

fn secret(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn items_become_query_fields_and_data() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    let get = format!("{base}/get?a=0");
    let said = told(&[&get, "q==two words&", "X-One:1", "User-Agent:"], b"");
    assert_eq!(said["args"], json!({"a": "0", "q": "two words&"}));
    assert_eq!(said["headers"]["X-One"], "1");
    assert_eq!(said["headers"].get("User-Agent"), None);
    assert_eq!(
        said["headers"]["Accept-Encoding"],
        "zstd, br, gzip, deflate"
    );

    let post = format!("{base}/post");
    let said = told(&[&post, "name=lamp", "on:=true", "tags:=[1, 2.50]"], b"");
    assert_eq!(
        said["json"],
        json!({"name": "lamp", "on": true, "tags": [1, 2.5]})
    );
    assert_eq!(said["headers"]["Content-Type"], "application/json");
    assert_eq!(said["headers"]["Accept"], "application/json, */*;q=0.5");

    let said = told(&["--form", &post, "a=1&2", "b=\u{e4}"], b"");
    assert_eq!(said["form"], json!({"a": "1&2", "b": "\u{e4}"}));

    let put = format!("{base}/put");
    let said = told(&["PUT", &put, "-d", "raw text", "-H", "X-Two: 2"], b"");
    assert_eq!(said["data"], "raw text");
    assert_eq!(said["headers"]["X-Two"], "2");
    let said = told(&["put", &put, "-d", "@-"], b"from a pipe");
    assert_eq!(said["data"], "from a pipe");
    assert_eq!(said["headers"]["Transfer-Encoding"], "chunked");
    let said = told(
        &[
            "-X",
            "DELETE",
            &format!("{base}/delete"),
            "-d",
            "{\"a\": 1}",
        ],
        b"",
    );
    assert_eq!(said["json"], json!({"a": 1}));
    // go-httpbin tells the same as lists.
    let go = format!("{base}/go/post");
    let said = told(&["--form", &go, "a=1", "a=2"], b"");
    assert_eq!(said["form"]["a"], json!(["1", "2"]));
}

/// Servers that want to know how long a body is answer 411 to who does not say so.
#[test]
fn a_body_that_is_not_there_is_told_of_where_one_is_expected() {
    let server = Answering::new(|_, request| answer("200 Yes", "", request.as_bytes()));
    let rest = rest_api("");
    let anything = format!("{}/anything", url(&rest, "python"));
    for (method, tells) in [
        ("POST", true),
        ("PUT", true),
        ("PATCH", true),
        ("GET", false),
        ("DELETE", false),
    ] {
        let said = run(&["http", method, &server.url], b"").expect(0);
        let lengths = said.text().matches("\r\nContent-Length: 0\r\n").count();
        assert_eq!(lengths, usize::from(tells), "{}", said.text());
        assert!(
            said.text()
                .starts_with(&format!("{method} / HTTP/1.1\r\nHost: ")),
            "{}",
            said.text()
        );
        let said = told(&[method, &anything, "--http-version", "2"], b"");
        let length = said["headers"].get("Content-Length");
        assert_eq!(length.is_some(), tells, "{said}");
    }
}

#[test]
fn files_are_sent_as_a_form_and_as_they_are() {
    let rest = rest_api("");
    let post = format!("{}/post", url(&rest, "python"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("note.txt");
    fs::write(&path, "a note").unwrap();
    let path = path.display().to_string();
    let said = told(&[&post, &format!("one@{path}"), "name=value"], b"");
    assert_eq!(said["files"], json!({"one": "a note"}));
    assert_eq!(said["form"], json!({"name": "value"}));
    let two = format!("two@{path};filename=x\"y.bin;type=image/png");
    let said = told(&[&post.replace("/post", "/go/post"), &two], b"");
    assert_eq!(said["files"]["two"], json!(["a note"]));
    let said = told(&[&post, "stdin@-", "a=b"], b"piped");
    assert_eq!(said["files"], json!({"stdin": "piped"}));
    let said = told(&[&post, "-d", &format!("@{path}")], b"");
    assert_eq!(said["data"], "a note");
    assert_eq!(said["headers"]["Content-Type"], "text/plain");
    assert_eq!(said["headers"]["Content-Length"], "6");
    let said = told(
        &[&post, &format!("text=@{path}"), &format!("A:@{path}")],
        b"",
    );
    assert_eq!(said["json"], json!({"text": "a note"}));
    assert_eq!(said["headers"]["A"], "a note");
}

#[test]
fn an_early_refusal_of_a_large_upload_is_heard() {
    let rest = rest_api("");
    let post = format!("{}/post", url(&rest, "python"));
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    fs::File::create(&large).unwrap().set_len(10 << 30).unwrap();
    let data = format!("@{}", large.display());
    let said = run(&["http", "--fail", "-i", &post, "-d", &data], b"").expect(1);
    assert!(said.text().starts_with("HTTP/1.1 413 "), "{}", said.text());
    assert!(said.stderr.contains("answers 413"), "{}", said.stderr);
}

#[test]
fn every_kind_of_credentials_is_shown_as_its_rfc_says() {
    let rest = rest_api("");
    let directory = tempfile::tempdir().unwrap();
    let password = secret(directory.path(), "password", "p:w \u{e4}\n");
    for prefix in ["", "/go"] {
        let base = format!("{}{prefix}", url(&rest, "python"));
        let ok = |words: &[&str]| {
            let said = told(words, b"");
            let is_in = said.get("authenticated").or_else(|| said.get("authorized"));
            assert_eq!(is_in, Some(&json!(true)), "{words:?}");
        };
        ok(&["-u", "ada:secret", &format!("{base}/basic-auth/ada/secret")]);
        let of_url = format!("{base}/basic-auth/ada/se%20cret").replace("//", "//ada:se%20cret@");
        ok(&[&of_url]);
        let algorithms = if prefix.is_empty() {
            &["MD5", "SHA-256", "SHA-512"][..]
        } else {
            &["MD5", "SHA-256"]
        };
        for algorithm in algorithms {
            let digest = format!("{base}/digest-auth/auth/ada/secret/{algorithm}");
            ok(&["-u", "ada:secret", "--digest", &digest]);
            let wrong = ["http", "-u", "ada:wrong", "--digest", "--fail", &digest];
            run(&wrong, b"").expect(77);
        }
        let token = secret(directory.path(), "token", "a-token\n");
        ok(&["--token", &token, &format!("{base}/bearer")]);
        run(&["http", "--fail", &format!("{base}/bearer")], b"").expect(77);
    }
    let base = url(&rest, "python");
    let named = format!("{base}/basic-auth/ada/p:w%20%C3%A4");
    let file = ["-u", "ada", "--password-file", &password];
    told(&[&file[..], &[&named]].concat(), b"");
    // The nonce is too old after one use.
    let stale = format!("{base}/digest-auth/auth/ada/secret/MD5/1");
    let words = ["http", "-u", "ada:secret", "--digest", "--fail", &stale];
    run(&words, b"").expect(0);
    // The whole message is to be covered.
    let whole = format!("{base}/digest-auth/auth-int/ada/secret");
    let words = ["-u", "ada:secret", "--digest", "--fail", &whole];
    told(&words, b"");
    // It is not known before it is read, and then it is gone.
    let words = [&["http", "GET"], &words[..], &["-d", "@-"]].concat();
    let said = run(&words, b"from a pipe").expect(64);
    assert!(said.stderr.contains("only once"), "{}", said.stderr);
    // Nobody can be asked: there is no terminal.
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    run(&[&["http"], &file[..], &[&named]].concat(), b"").expect(78);
}

#[test]
fn cookies_are_kept_from_call_to_call() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    let directory = tempfile::tempdir().unwrap();
    let jar = directory.path().join("jar");
    let jar = jar.to_str().unwrap();
    let set = format!("{base}/cookies/set?a=1&b=2");
    let said = told(&["--jar", jar, "--follow", &set], b"");
    assert_eq!(said["cookies"], json!({"a": "1", "b": "2"}));
    let cookies = format!("{base}/cookies");
    let said = told(&["--jar", jar, &cookies, "Cookie:c=3"], b"");
    assert_eq!(said["cookies"], json!({"a": "1", "b": "2", "c": "3"}));
    told(
        &["--jar", jar, "-L", &format!("{base}/cookies/delete?a=")],
        b"",
    );
    let said = told(&["--jar", jar, &cookies], b"");
    assert_eq!(said["cookies"], json!({"b": "2"}));
    assert_eq!(
        fs::metadata(jar).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Without a jar they last for the redirects of one call.
    let said = told(&["--follow", &set], b"");
    assert_eq!(said["cookies"], json!({"a": "1", "b": "2"}));
    assert_eq!(told(&[&cookies], b"")["cookies"], json!({}));
}

#[test]
fn redirects_are_followed_when_asked_for_and_to_a_limit() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    let three = format!("{base}/redirect/3");
    let said = run(&["http", "-i", &three], b"").expect(0);
    assert!(said.text().starts_with("HTTP/1.1 302 "), "{}", said.text());
    let said = told(&["--follow", "--json", &three], b"");
    assert_eq!(said["requests"].as_array().unwrap().len(), 4);
    assert_eq!(said["url"], format!("{base}/get"));
    // One connection served them all.
    assert!(said["requests"][0]["connect"].is_f64());
    assert!(said["requests"][3]["connect"].is_null());
    let few = ["http", "--follow", "--max-redirects", "2", &three];
    let said = run(&few, b"").expect(65);
    assert!(said.stderr.contains("--max-redirects"), "{}", said.stderr);
    for (status, method) in [("302", "GET"), ("307", "POST")] {
        let to = format!("{base}/redirect-to?status_code={status}&url=/anything");
        let said = told(&["-L", "POST", &to, "a=b"], b"");
        assert_eq!(said["method"], method);
        let body = if method == "POST" {
            json!({"a": "b"})
        } else {
            Value::Null
        };
        assert_eq!(said["json"], body);
        let kind = said["headers"].get("Content-Type").is_some();
        assert_eq!(kind, method == "POST");
    }
    let to = format!("{base}/redirect-to?status_code=307&url=/anything");
    let said = run(&["http", "-L", "POST", &to, "-d", "@-"], b"x").expect(65);
    assert!(said.stderr.contains("only once"), "{}", said.stderr);
}

#[test]
fn compressed_answers_are_read_and_left_alone_as_asked() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    for (path, mark) in [
        ("gzip", "gzipped"),
        ("deflate", "deflated"),
        ("brotli", "brotli"),
        ("zstd", "zstd"),
    ] {
        let said = told(&[&format!("{base}/{path}")], b"");
        assert_eq!(said[mark], true, "{path}");
    }
    // As some servers say deflate, in Python's words.
    let script = "import sys, zlib; o = zlib.compressobj(wbits=-15); t = b'a line\\n' * 99; \
                  sys.stdout.buffer.write(o.compress(t) + o.flush())";
    let bare = finish(Command::new(peer("python3")).args(["-c", script]), b"")
        .expect(0)
        .stdout;
    let short = bare[..bare.len() - 1].to_vec();
    for (bytes, exit) in [(bare, 0), (short, 65)] {
        let server =
            Answering::new(move |_, _| answer("200 Yes", "Content-Encoding: deflate\r\n", &bytes));
        let said = run(&["http", &server.url], b"").expect(exit);
        assert!(
            exit != 0 || said.text() == "a line\n".repeat(99),
            "{}",
            said.text()
        );
    }
    let raw = run(&["http", "--no-compress", &format!("{base}/gzip")], b"").expect(0);
    assert_eq!(raw.stdout[..2], [0x1f, 0x8b]);
    let said = told(&["--no-compress", &format!("{base}/get")], b"");
    assert_eq!(said["headers"]["Accept-Encoding"], "identity");
}

#[test]
fn the_forms_of_output_hold_what_they_say() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    let get = format!("{base}/get");
    let head = run(&["http", "-I", &get], b"").expect(0);
    assert!(
        head.text().starts_with("HTTP/1.1 200 OK\n"),
        "{}",
        head.text()
    );
    assert!(head.text().ends_with("\n\n"), "{}", head.text());
    let head = run(&["http", "--headers", &get], b"").expect(0);
    assert!(
        head.text().contains("\nContent-Length: "),
        "{}",
        head.text()
    );
    let both = run(&["http", "-i", &get], b"").expect(0);
    let (head, body) = both.text().split_once("\n\n").unwrap();
    assert!(head.contains("Content-Type: application/json"), "{head}");
    assert!(serde_json::from_str::<Value>(body).is_ok(), "{body}");
    let said = run(&["http", "OPTIONS", "--headers", &get], b"").expect(0);
    assert!(said.text().contains("\nAllow: "), "{}", said.text());
    let whole = told(&["--json", &format!("{base}/status/418")], b"");
    assert_eq!(whole["status"], 418);
    assert_eq!(whole["version"], "HTTP/1.1");
    assert!(
        whole["body"].as_str().unwrap().contains("teapot"),
        "{whole}"
    );
    let whole = told(&["--json", &format!("{base}/bytes/3?seed=1")], b"");
    assert!(whole["body_base64"].is_string(), "{whole}");
    let pretty = run(
        &["http", "--pretty", "always", &format!("{base}/json")],
        b"",
    )
    .expect(0);
    assert!(pretty.text().starts_with("{\n  \""), "{}", pretty.text());
    let said = run(&["http", "-v", "-u", "ada:secret", &get], b"").expect(0);
    assert!(
        said.stderr.contains("\n> GET /get HTTP/1.1\n> Host: "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("\n< HTTP/1.1 200 OK\n"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("> Authorization: Basic (hidden)"),
        "{}",
        said.stderr
    );
    let said = run(
        &["http", "--timing", "-L", &format!("{base}/redirect/1")],
        b"",
    )
    .expect(0);
    let lines: Vec<&str> = said.stderr.lines().collect();
    assert!(
        lines[0].starts_with("METHOD  STATUS  LOOKUP  CONNECT"),
        "{}",
        said.stderr
    );
    assert!(
        lines[1].starts_with("GET ") && lines[1].contains(" 302 "),
        "{}",
        said.stderr
    );
    assert!(lines[3].starts_with("all "), "{}", said.stderr);
}

#[test]
fn a_failure_is_an_exit_code_only_if_asked_for() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    for (status, code) in [
        ("200", 0),
        ("304", 0),
        ("400", 1),
        ("401", 77),
        ("403", 77),
        ("404", 1),
        ("429", 75),
        ("500", 69),
        ("503", 75),
    ] {
        let at = format!("{base}/status/{status}");
        run(&["http", &at], b"").expect(0);
        run(&["http", "--fail", &at], b"").expect(code);
    }
}

#[test]
fn unix_sockets_and_other_places_are_connected_to() {
    let rest = rest_api("");
    let socket = format!("unix:{}", rest.dir().join("bin.sock").display());
    let said = told(&["--connect", &socket, "/get", "a==b"], b"");
    assert_eq!(said["headers"]["Host"], "localhost");
    assert_eq!(said["args"], json!({"a": "b"}));
    let address = rest.address("python").to_string();
    let said = told(
        &["--connect", &address, "http://nowhere.example:81/get"],
        b"",
    );
    assert_eq!(said["headers"]["Host"], "nowhere.example:81");
    let gone = run(&["http", "--connect", "unix:/nonexistent/x", "/get"], b"").expect(69);
    assert!(gone.stderr.contains("nothing answers"), "{}", gone.stderr);
    run(&["http", "--connect", "udp://127.0.0.1:1", "/get"], b"").expect(64);
}

#[test]
fn http2_is_spoken_by_prior_knowledge() {
    let rest = rest_api("");
    let base = url(&rest, "python");
    let words = ["--http-version", "2", "--json"];
    let said = told(
        &[&words[..], &[&format!("{base}/get"), "A:b"]].concat(),
        b"",
    );
    assert_eq!(said["version"], "HTTP/2");
    let body: Value = serde_json::from_str(said["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["headers"]["A"], "b");
    let post = format!("{base}/post");
    let said = told(&["--http-version", "2", &post, "a=b"], b"");
    assert_eq!(said["json"], json!({"a": "b"}));
    let digest = format!("{base}/digest-auth/auth/ada/secret");
    told(
        &[
            "--http-version",
            "2",
            "-u",
            "ada:secret",
            "--digest",
            &digest,
        ],
        b"",
    );
    let said = run(&["http", "-v", "--http-version", "2", &post, "a=b"], b"").expect(0);
    assert!(said.stderr.contains("\n< HTTP/2 200\n"), "{}", said.stderr);
}

#[test]
fn names_are_spelled_as_they_were_given_and_shown_as_they_came() {
    let server = Answering::new(|_, _| {
        answer(
            "299 \"Quite\" fine",
            "x-ODD-name:  1 \r\nSet-Cookie: a=b\r\n",
            b"",
        )
    });
    let said = run(
        &[
            "http",
            "-i",
            &server.url,
            "x-API-key:1",
            "ACCEPT:a",
            "Empty;",
        ],
        b"",
    );
    let text = said.expect(0);
    let text = text.text();
    assert!(text.starts_with("HTTP/1.1 299 \"Quite\" fine\n"), "{text}");
    assert!(text.contains("\nx-ODD-name: 1\n"), "{text}");
    let head = &server.heads()[0];
    assert!(
        head.starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1:"),
        "{head}"
    );
    for line in [
        "x-API-key: 1",
        "ACCEPT: a",
        "Empty: ",
        "User-Agent: portyard/",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{head}");
    }
    assert_eq!(
        head.to_lowercase().matches("\r\naccept:").count(),
        1,
        "{head}"
    );
}

#[test]
fn trailers_and_interim_answers_are_told() {
    let server = Answering::new(|_, _| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
          HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
          3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n"
            .to_vec()
    });
    let said = run(&["http", "-v", "-i", &server.url], b"").expect(0);
    assert!(
        said.stderr.contains("\n< HTTP/1.1 103 Early Hints\n"),
        "{}",
        said.stderr
    );
    assert!(said.text().ends_with("abc\nx-sum: 6\n"), "{}", said.text());
    let said = told(&["--json", &server.url], b"");
    assert_eq!(said["trailers"], json!([["x-sum", "6"]]));
}

#[test]
fn a_request_is_tried_again_where_it_does_no_harm() {
    let busy = |status: &'static str, fields: &'static str| {
        Answering::new(move |number, _| match number {
            0 | 1 => answer(status, fields, b"busy"),
            _ => answer("200 OK", "", b"done"),
        })
    };
    let after = "Retry-After: 0\r\n";
    for (method, status, fields, done) in [
        ("GET", "503 Busy", after, true),
        ("POST", "503 Busy", after, true),
        ("POST", "429 Slowly", after, true),
        ("POST", "502 Bad", after, false),
        ("GET", "503 Busy", "Retry-After: 3600\r\n", false),
        ("GET", "404 No", after, false),
    ] {
        let server = busy(status, fields);
        let words = ["http", "--retry", "5", method, &server.url, "-d", "x"];
        let words = if method == "GET" {
            &words[..5]
        } else {
            &words[..]
        };
        let said = run(words, b"").expect(0);
        let body = if done { "done" } else { "busy" };
        assert_eq!(said.text(), body, "{method} {status} {fields}");
        assert_eq!(server.heads().len(), if done { 3 } else { 1 });
    }
    // It breaks off: a POST may have been carried out.
    let broken = || {
        Answering::new(|number, _| match number {
            0 => Vec::new(),
            _ => answer("200 OK", "", b"done"),
        })
    };
    let server = broken();
    let said = run(&["http", "--retry", "1", &server.url], b"").expect(0);
    assert_eq!(said.text(), "done");
    let server = broken();
    run(&["http", "--retry", "1", &server.url, "-d", "x"], b"").expect(74);
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn a_wrong_command_line_says_what_to_write() {
    for (words, part) in [
        (&["http"][..], "required"),
        (&["http", "x", "word"], "name=value"),
        (&["http", "ftp://x"], "neither http:// nor https://"),
        (&["http", "x", "a=b", "-d", "c"], "not from both"),
        (&["http", "x", "a:=b"], "wants JSON"),
        (&["http", "-I", "POST", "x"], "given twice"),
        (&["http", "TRACE", "x", "a=b"], "no body"),
        (&["http", "x", "Content-Length:1"], "cannot be given"),
        (&["http", "-O", "http://x/"], "--output"),
        (&["http", "--digest", "x"], "--user"),
        (
            &["http", "--insecure", "y", "https://x"],
            "does not go with",
        ),
        (&["http", "--resume", "x"], "--output"),
        (&["http", "x", "a@/nonexistent"], "cannot read"),
        (&["http", "--max-header", "1B", "x"], "1KiB"),
    ] {
        let said = run(words, b"").expect(64);
        assert!(said.stderr.contains(part), "{words:?}: {}", said.stderr);
    }
}
