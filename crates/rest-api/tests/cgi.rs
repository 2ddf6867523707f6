//! Routes to programs (RFC 3875).
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{ask, get, key_file, start};
use portyard_testkit::{Client, eventually, finish, peer};

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
fn what_a_program_leaves_running_ends_with_its_answer() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let path = directory.path().join("leave.sh");
    // One that holds the answer open, and one that holds nothing of ours.
    let script = format!(
        "#!/bin/sh\nexec 9>{}\nif [ $PATH_INFO = /holds ]; then sleep 1000 & else sleep 1000 >/dev/null & fi\n\
         printf 'Content-Type: text/plain\\n\\nleft'\n",
        pipe.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/run/{{rest..}}\"\ncgi = {{ program = \"{}\", run = \"1s\" }}\n",
            path.display()
        ),
    );
    for rest in ["frees", "holds"] {
        let client = Client::connect(&daemon.endpoint("http"));
        client.send(format!(
            "GET /run/{rest} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        // The end of the pipe comes when nobody holds its other end any more.
        let (told, end) = std::sync::mpsc::channel();
        let pipe = pipe.clone();
        std::thread::spawn(move || told.send(fs::read(pipe).unwrap()));
        let end = end.recv_timeout(Duration::from_secs(60));
        assert_eq!(
            end.as_deref(),
            Ok(&b""[..]),
            "{rest}: what was left runs on"
        );
        let told = String::from_utf8(client.receive_all().0).unwrap();
        assert!(told.contains("left"), "{told}");
    }
}

#[test]
fn an_answer_breaks_off_where_its_program_is_killed() {
    let script = |then: &str| {
        format!(
            "program = \"/bin/sh\", arguments = [\"-c\", \"printf 'Content-Type: text/plain\\n\\nhalf'; {then}\"]"
        )
    };
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/killed\"\ncgi = {{ {} }}\n[[route]]\npath = \"/failed\"\ncgi = {{ {} }}\n\
             [[route]]\npath = \"/silent\"\ncgi = {{ {} }}\n",
            script("kill -9 $$"),
            script("exit 1"),
            script("exec >/dev/null; sleep 1000"),
        ),
    );
    for (path, code) in [("/killed", 18), ("/failed", 0), ("/silent", 0)] {
        let mut curl = Command::new(peer("curl"));
        let told = finish(curl.args(["-s", &common::url(&daemon, path)]), b"");
        assert_eq!(told.code, Some(code), "{path}: {}", told.stderr);
        assert_eq!(told.stdout, "half", "{path}");
    }
    assert!(
        daemon
            .log()
            .contains("a CGI program was killed while it answered")
    );
}

#[test]
fn a_program_names_its_status() {
    let daemon = start(
        "",
        "[[route]]\npath = \"/own\"\ncgi = { program = \"/usr/bin/printf\", \
         arguments = [\"Status: 404 Not Here\\n\\n\"] }\n\
         [[route]]\npath = \"/none\"\ncgi = { program = \"/usr/bin/printf\", arguments = [\"Status: 299\\n\\n\"] }\n",
    );
    for (path, line) in [
        ("/own", "HTTP/1.1 404 Not Here\r\n"),
        ("/none", "HTTP/1.1 299 \r\n"),
    ] {
        let head = get(&daemon, path).head;
        assert!(head.starts_with(line), "{head}");
    }
}
