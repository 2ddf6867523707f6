//! Servers that want to harm who asks them: `portyard http` gives up on each in time, and gives nothing
//! away.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;
mod http;

use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{finish, run};
use http::{Answering, answer, read_head, serve};
use portyard_testkit::peer;

#[test]
fn a_head_without_end_is_cut_off() {
    for line in ["X: y\r\n", "HTTP/1.1 102 Processing\r\n\r\n"] {
        let url = serve(move |mut stream| {
            read_head(&mut stream);
            let start: &[u8] = if line.starts_with('X') {
                b"HTTP/1.1 200 OK\r\n"
            } else {
                b""
            };
            let mut sent = stream.write_all(start);
            while sent.is_ok() {
                sent = stream.write_all(line.repeat(100).as_bytes());
            }
        });
        let said = run(&["http", &url], b"").expect(65);
        assert!(said.stderr.contains("--max-header"), "{}", said.stderr);
    }
    let large = Answering::new(|_, _| {
        answer(
            "200 OK",
            &format!("X: {}\r\n", "y".repeat(100_000)),
            b"fine",
        )
    });
    run(&["http", &large.url], b"").expect(65);
    let said = run(&["http", "--max-header", "200KiB", &large.url], b"").expect(0);
    assert_eq!(said.text(), "fine");
}

#[test]
fn a_body_without_end_is_cut_off() {
    let url = serve(|mut stream| {
        read_head(&mut stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while sent.is_ok() {
            sent = stream.write_all(&[b'x'; 10_000]);
        }
    });
    for form in [
        &["http"][..],
        &["http", "--json"],
        &["http", "--pretty", "always"],
    ] {
        let said = run(&[form, &["--max-body", "1MiB", &url]].concat(), b"").expect(65);
        assert!(said.stderr.contains("--max-body"), "{}", said.stderr);
        assert!(said.stdout.len() <= 1 << 20);
    }
    let file = tempfile::tempdir().unwrap();
    let path = file.path().join("f").display().to_string();
    run(&["http", "-o", &path, "--max-body", "1MiB", &url], b"").expect(65);
    assert_eq!(std::fs::read_dir(file.path()).unwrap().count(), 0);
}

#[test]
fn a_server_that_dawdles_is_left() {
    let drip = |before: &'static [u8]| {
        serve(move |mut stream| {
            read_head(&mut stream);
            let mut sent = stream.write_all(before);
            while sent.is_ok() {
                thread::sleep(Duration::from_millis(20));
                sent = stream.write_all(b"x");
            }
        })
    };
    let start = Instant::now();
    // Each byte comes in time, the head does not.
    let head = drip(b"HTTP/1.1 200 OK\r\nX: ");
    let said = run(&["http", "--timeout", "300ms", &head], b"").expect(75);
    assert!(said.stderr.contains("--timeout"), "{}", said.stderr);
    let body = drip(b"HTTP/1.1 200 OK\r\n\r\n");
    let said = run(&["http", "--max-time", "300ms", &body], b"").expect(75);
    assert!(said.stderr.contains("--max-time"), "{}", said.stderr);
    let silent = serve(|mut stream| {
        read_head(&mut stream);
        thread::sleep(Duration::from_secs(60));
    });
    run(&["http", "--timeout", "300ms", &silent], b"").expect(75);
    // A body that stalls.
    let stalls = serve(|mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
            .unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    run(&["http", "--timeout", "300ms", &stalls], b"").expect(75);
    assert!(start.elapsed() < Duration::from_secs(50));
}

#[test]
fn a_proxy_that_means_harm_is_left_and_told_of() {
    let says = |text: &'static [u8]| {
        serve(move |mut stream| {
            read_head(&mut stream);
            let _ = stream.write_all(text);
        })
    };
    let asks = |proxy: &str, exit: i32, told: &str| {
        let words = [
            "http",
            "--timeout",
            "1s",
            "--proxy",
            proxy,
            "https://127.0.0.1:9/",
        ];
        let said = run(&words, b"").expect(exit);
        assert!(said.stderr.contains(told), "{}", said.stderr);
    };
    let endless = serve(|mut stream| {
        read_head(&mut stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while sent.is_ok() {
            sent = stream.write_all(&b"X: y\r\n".repeat(100));
        }
    });
    asks(&endless, 65, "is it one?");
    asks(&says(b"220 mail.example ESMTP\r\n\r\n"), 65, "is it one?");
    asks(
        &says(b"HTTP/1.1 4294967295 OK\r\n\r\n"),
        65,
        "does not carry",
    );
    asks(&says(b"HTTP/1.1 407 Who\r\n\r\n"), 77, "USER:PASSWORD");
    asks(
        &says(b"HTTP/1.1 403 No \x1b[31m\r\n\r\n"),
        77,
        "No \\x1b[31m",
    );
    asks(&says(b"HTTP/1.1 502 Far away\r\n\r\n"), 69, "Far away");
    // Half a head and the end, or silence; and a tunnel that leads nowhere.
    asks(&says(b"HTTP/1.1 200 O"), 65, "is it one?");
    let silent = serve(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        thread::sleep(Duration::from_secs(60));
    });
    asks(&silent, 75, "--timeout");
    asks(
        &says(b"HTTP/1.1 200 OK\r\n\r\nthis is no TLS"),
        65,
        "is it a port of TLS?",
    );
}

#[test]
fn a_socks_proxy_that_means_harm_is_left_and_told_of() {
    // What it says at once, and what it was asked for.
    let says = |text: &'static [u8]| {
        let (sender, asked) = std::sync::mpsc::channel();
        let url = serve(move |mut stream| {
            let _ = stream.write_all(text);
            let mut all = Vec::new();
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut all);
            let _ = sender.send(all);
        });
        (url.replace("http", "socks5h"), asked)
    };
    let asks = |proxy: &str, exit: i32, told: &str| {
        let url = "http://name.invalid:81/";
        let said = run(&["http", "--timeout", "1s", "--proxy", proxy, url], b"").expect(exit);
        assert!(said.stderr.contains(told), "{}", said.stderr);
    };
    for (text, exit, told) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], 65, "is it one?"),
        (b"", 65, "is it one?"),
        (b"\x05", 65, "is it one?"),
        (b"\x05\x00\x05", 65, "is it one?"),
        (b"\x05\x00\x05\x00\x00\x09", 65, "is it one?"),
        (b"\x05\x00\x04\x00\x00\x01", 65, "is it one?"),
        (b"\x05\xff", 77, "who you are"),
        // A password was not offered.
        (b"\x05\x02", 77, "who you are"),
        (b"\x05\x00\x05\x02\x00\x01", 77, "not allowed"),
        (b"\x05\x00\x05\x04\x00\x01", 69, "host cannot be reached"),
        (b"\x05\x00\x05\xff\x00\x01", 65, "it failed"),
    ] {
        asks(&says(text).0, exit, told);
    }
    // The name goes there as it is, and is looked up here if the scheme says so.
    let (proxy, asked) = says(b"\x05\x00\x05\x05\x00\x01");
    asks(
        &proxy,
        69,
        "name.invalid:81: it says: nothing listens there",
    );
    let asked = asked.recv().unwrap();
    assert_eq!(
        asked,
        b"\x05\x01\x00\x05\x01\x00\x03\x0cname.invalid\x00\x51"
    );
    let (proxy, asked) = says(b"\x05\x00\x05\x02\x00\x01");
    let proxy = proxy.replace("socks5h", "socks5");
    run(&["http", "--proxy", &proxy, "http://localhost:81/"], b"").expect(77);
    let asked = asked.recv().unwrap();
    assert!(matches!(asked[6], 1 | 4), "{asked:?}");
    let silent = serve(|_stream| thread::sleep(Duration::from_secs(60)));
    asks(&silent.replace("http", "socks5h"), 75, "--timeout");
}

#[test]
fn a_loop_of_redirects_ends() {
    let server = Answering::new(|_, _| answer("302 Found", "Location: /x\r\n", b""));
    run(&["http", "--follow", &server.url], b"").expect(65);
    assert_eq!(server.heads().len(), 11);
    for location in [
        "file:///etc/passwd",
        "javascript:x",
        "http://",
        "gopher://x/",
    ] {
        let fields = format!("Location: {location}\r\n");
        let server = Answering::new(move |_, _| answer("302 Found", &fields, b""));
        let said = run(&["http", "--follow", &server.url], b"").expect(65);
        assert!(said.stderr.contains("redirects to"), "{}", said.stderr);
    }
}

#[test]
fn a_decompression_bomb_does_not_go_off() {
    let zeros = vec![0; 50 << 20];
    let program =
        "import gzip, sys; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read()))";
    let bomb = finish(Command::new(peer("python3")).args(["-c", program]), &zeros).expect(0);
    let bomb = bomb.stdout;
    assert!(bomb.len() < 100_000);
    let twice = finish(Command::new(peer("python3")).args(["-c", program]), &bomb).expect(0);
    for (coding, body) in [("gzip", bomb), ("gzip, gzip", twice.stdout)] {
        let fields = format!("Content-Encoding: {coding}\r\n");
        let server = Answering::new(move |_, _| answer("200 OK", &fields, &body));
        let said = run(&["http", &server.url], b"").expect(65);
        assert!(said.stderr.contains("--no-compress"), "{}", said.stderr);
        assert!(said.stdout.len() < 20 << 20);
        run(&["http", "--no-compress", &server.url], b"").expect(0);
    }
    let broken = Answering::new(|_, _| answer("200 OK", "Content-Encoding: gzip\r\n", b"no gzip"));
    run(&["http", &broken.url], b"").expect(65);
    let nothing = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
    let nothing = Answering::new(move |_, _| nothing.to_vec());
    assert_eq!(run(&["http", &nothing.url], b"").expect(0).text(), "");
    let unknown = Answering::new(|_, _| answer("200 OK", "Content-Encoding: lzw\r\n", b"x"));
    let said = run(&["http", &unknown.url], b"").expect(65);
    assert!(said.stderr.contains("lzw"), "{}", said.stderr);
}

#[test]
fn cookies_for_others_are_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let jar = directory.path().join("jar");
    let server = Answering::new(|_, _| {
        let fields = "Set-Cookie: a=1; Domain=bank.example\r\nSet-Cookie: b=2; Domain=com\r\n\
                      Set-Cookie: __Host-c=3; Domain=evil.example; Secure; Path=/\r\n\
                      Set-Cookie: good=4; Max-Age=1000\r\n";
        answer("200 OK", fields, b"")
    });
    let words = ["http", "-v", "--jar", jar.to_str().unwrap(), &server.url];
    let said = run(&words, b"").expect(0);
    assert_eq!(
        said.stderr.matches("a cookie is not taken").count(),
        3,
        "{}",
        said.stderr
    );
    let kept = std::fs::read_to_string(&jar).unwrap();
    assert!(
        kept.contains("\tgood\t4") && !kept.contains("bank"),
        "{kept}"
    );
    assert_eq!(
        kept.lines().filter(|line| line.contains('\t')).count(),
        1,
        "{kept}"
    );
}

#[test]
fn secrets_stay_with_the_origin_that_they_are_for() {
    let thief = Answering::new(|_, _| answer("200 OK", "", b"thanks"));
    let to = format!("Location: {}/x\r\n", thief.url);
    let server = Answering::new(move |_, _| answer("307 Go", &to, b""));
    let secrets = [
        "Cookie:a=secret",
        "X-Api-Key:secret",
        "Authorization:secret",
        "Accept-Language:de",
    ];
    let words = [&["http", "-v", "--follow", &server.url], &secrets[..]].concat();
    let said = run(&words, b"").expect(0);
    assert_eq!(said.text(), "thanks");
    assert!(
        said.stderr
            .contains("* X-Api-Key is not sent to another origin"),
        "{}",
        said.stderr
    );
    let words = ["http", "-L", "-u", "ada:secret", &server.url];
    run(&words, b"").expect(0);
    assert!(server.heads()[0].contains("\r\nX-Api-Key: secret\r\n"));
    assert!(server.heads()[1].contains("\r\nAuthorization: Basic "));
    let stolen = thief.heads();
    assert_eq!(stolen.len(), 2);
    for head in &stolen {
        assert!(
            !head.contains("secret") && !head.contains("Authorization"),
            "{head}"
        );
        assert!(!head.contains("Cookie"), "{head}");
    }
    assert!(stolen[0].contains("\r\nAccept-Language: de\r\n"));
}

#[test]
fn a_digest_is_never_made_for_another_origin() {
    let thief = Answering::new(|_, _| {
        answer(
            "401 No",
            "WWW-Authenticate: Digest realm=r, nonce=n\r\n",
            b"who?",
        )
    });
    let to = format!("Location: {}/\r\n", thief.url);
    let server = Answering::new(move |_, _| answer("302 Go", &to, b""));
    run(
        &["http", "-L", "--digest", "-u", "a:b", "--fail", &server.url],
        b"",
    )
    .expect(77);
    assert_eq!(thief.heads().len(), 1);
    assert!(!thief.heads()[0].contains("Authorization"));
    // A server that is never satisfied is not asked for ever.
    let stale = Answering::new(|_, _| {
        let fields = "WWW-Authenticate: Digest realm=r, nonce=n, stale=true\r\n";
        answer("401 No", fields, b"who?")
    });
    run(
        &["http", "--digest", "-u", "a:b", "--fail", &stale.url],
        b"",
    )
    .expect(77);
    assert_eq!(stale.heads().len(), 4);
}

#[test]
fn what_is_not_http_is_told() {
    for bytes in [
        &b"SSH-2.0-x\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ] {
        let server = Answering::new(move |_, _| bytes.to_vec());
        run(&["http", &server.url], b"").expect(65);
    }
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxx",
    ] {
        let server = Answering::new(move |_, _| bytes.to_vec());
        run(&["http", &server.url], b"").expect(74);
    }
}

#[test]
fn fields_cannot_write_on_the_terminal() {
    // CSI as one character, which is no control character to a parser of bytes.
    let server = Answering::new(|_, _| answer("200 \u{9b}31m", "X: \u{9b}2J\r\n", b"{}"));
    for form in ["-i", "-v"] {
        let said = run(&["http", form, &server.url], b"").expect(0);
        let all = [said.text(), &said.stderr].concat();
        assert!(
            !all.contains('\u{9b}') && all.contains("\\u{9b}2J"),
            "{all}"
        );
    }
    let server = Answering::new(|_, _| answer("200 \x1b[31m", "", b"{}"));
    run(&["http", "-i", &server.url], b"").expect(65);
}
