//! `portyard http` into files: from nginx, which knows ranges, and from servers that break off or lie.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;
mod http;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;

use common::{portyard, run, wait};
use http::{Answering, answer, finish, nginx, read_head, serve};
use portyard_testkit::eventually;

/// Bytes of which no part is like another.
fn content(length: u32) -> Vec<u8> {
    (0..length)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_appears_whole_and_replaces_nothing_unasked() {
    let (site, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(site.path().join("f.bin"), content(300_000)).unwrap();
    let (_nginx, url) = nginx(site.path(), "");
    let at = format!("{url}/f.bin");
    let place = here.path().join("copy");
    let shown = place.display().to_string();
    let said = run(&["http", "-o", &shown, &at], b"").expect(0);
    assert_eq!((said.text(), &*said.stderr), ("", ""));
    assert!(fs::read(&place).unwrap() == content(300_000));
    assert_eq!(names(here.path()), ["copy"]);
    let said = run(&["http", "-o", &shown, &at], b"").expect(64);
    assert!(said.stderr.contains("--force"), "{}", said.stderr);
    run(&["http", "-o", &shown, "--force", &at], b"").expect(0);
    let mut command = portyard();
    command.args(["http", "-O", &at]).current_dir(here.path());
    common::finish(&mut command, b"").expect(0);
    assert_eq!(names(here.path()), ["copy", "f.bin"]);
    // What is no file is not kept, and what the server says about it is told.
    let other = here.path().join("other").display().to_string();
    let said = run(&["http", "-o", &other, &format!("{url}/none")], b"").expect(1);
    assert!(
        said.stderr.contains("answers 404 Not Found"),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("nginx"), "{}", said.stderr);
    assert_eq!(names(here.path()), ["copy", "f.bin"]);
    let said = run(&["http", "-o", "/dev/null", &at], b"").expect(0);
    assert_eq!(said.stderr, "");
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let (site, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = content(3_000_000);
    fs::write(site.path().join("f"), &all).unwrap();
    let (_nginx, url) = nginx(
        site.path(),
        "location /slow/ { alias /; } location /f { limit_rate 200k; limit_rate_after 1m; }",
    );
    let at = format!("{url}/f");
    let place = here.path().join("f");
    let part = here.path().join("f.part");
    let words = ["http", "-o", place.to_str().unwrap(), &at];
    let mut first = portyard();
    let mut first = first.args(words).stderr(Stdio::null()).spawn().unwrap();
    eventually("a part is there", || {
        fs::metadata(&part).is_ok_and(|part| part.len() > 500_000)
    });
    // Nobody else writes to it meanwhile.
    run(&words, b"").expect(75);
    first.kill().unwrap();
    wait(&mut first);
    assert!(!place.exists());
    let had = fs::metadata(&part).unwrap().len();
    let words = [&words[..], &["--resume", "--timing"]].concat();
    let said = run(&words, b"").expect(0);
    assert!(fs::read(&place).unwrap() == all);
    assert_eq!(names(here.path()), ["f"]);
    // Only the rest came.
    let row: Vec<&str> = said
        .stderr
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(row[1], "206", "{}", said.stderr);
    let received: u64 = row[row.len() - 2].parse().unwrap();
    assert!(received < 3_000_000 - had + 2000, "{}", said.stderr);
}

#[test]
fn a_file_that_has_changed_is_fetched_anew() {
    let (site, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = site.path().join("f");
    fs::write(&file, "new bytes").unwrap();
    let (_nginx, url) = nginx(site.path(), "");
    let place = here.path().join("f");
    fs::write(here.path().join("f.part"), "old ").unwrap();
    let source =
        format!("{{\"url\": \"{url}/f\", \"validator\": \"\\\"other\\\"\", \"length\": 9}}");
    fs::write(here.path().join("f.part.from"), source).unwrap();
    let at = format!("{url}/f");
    let words = ["http", "-o", place.to_str().unwrap(), "--resume", &at];
    let said = run(&words, b"").expect(0);
    assert!(said.stderr.contains("starting over"), "{}", said.stderr);
    assert_eq!(fs::read(&place).unwrap(), b"new bytes");
}

#[test]
fn what_breaks_off_is_fetched_on_as_often_as_allowed() {
    let all = content(100_000);
    let served = all.clone();
    // Each connection gives a third of what is asked for.
    let server = Answering::new(move |_, head| {
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("Range: bytes="));
        let from: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
        let rest = &served[from..];
        let part = &rest[..rest.len().min(40_000)];
        let status = if from == 0 {
            "200 OK"
        } else {
            "206 Partial Content"
        };
        let range = if from == 0 {
            String::new()
        } else {
            format!("Content-Range: bytes {from}-99999/100000\r\n")
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nETag: \"a\"\r\n{range}Content-Length: {}\r\n\r\n",
            rest.len()
        );
        [head.as_bytes(), part].concat()
    });
    let here = tempfile::tempdir().unwrap();
    let place = here.path().join("f");
    let words = ["http", "-o", place.to_str().unwrap(), &server.url];
    let said = run(&words, b"").expect(74);
    assert!(
        said.stderr.contains("40000 bytes are in"),
        "{}",
        said.stderr
    );
    assert_eq!(names(here.path()), ["f.part", "f.part.from"]);
    run(&[&words[..], &["--resume", "--retry", "5"]].concat(), b"").expect(0);
    assert!(fs::read(&place).unwrap() == all);
    let heads = server.heads();
    assert_eq!(heads.len(), 3);
    assert!(heads[1].contains("\r\nIf-Range: \"a\"\r\n"), "{}", heads[1]);
    assert!(
        heads[2].contains("\r\nRange: bytes=80000-\r\n"),
        "{}",
        heads[2]
    );
}

#[test]
fn a_part_that_does_not_fit_is_refused_and_what_is_there_stays() {
    for range in [
        "bytes 0-7/8",
        "bytes 3-7/8",
        "bytes 4-7/9",
        "bytes 4-8/9",
        "nonsense",
    ] {
        let fields = format!("Content-Range: {range}\r\nETag: \"a\"\r\n");
        let server = Answering::new(move |number, _| match number {
            0 => b"HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 8\r\n\r\n0123".to_vec(),
            _ => answer("206 Partial Content", &fields, b"4567"),
        });
        let here = tempfile::tempdir().unwrap();
        let place = here.path().join("f");
        let words = ["http", "-o", place.to_str().unwrap(), &server.url];
        run(&words, b"").expect(74);
        run(&[&words[..], &["--resume"]].concat(), b"").expect(65);
        assert_eq!(
            fs::read(here.path().join("f.part")).unwrap(),
            b"0123",
            "{range}"
        );
        assert!(!place.exists());
    }
    let unasked = Answering::new(|_, _| {
        answer(
            "206 Partial Content",
            "Content-Range: bytes 4-7/8\r\n",
            b"4567",
        )
    });
    let here = tempfile::tempdir().unwrap();
    let place = here.path().join("f");
    run(&["http", "-o", place.to_str().unwrap(), &unasked.url], b"").expect(65);
    assert_eq!(names(here.path()), [""; 0]);
}

#[test]
fn what_cannot_be_gone_on_with_leaves_nothing() {
    // Without a tag nobody knows whether the rest would be of the same file.
    let url = serve(|mut stream| {
        read_head(&mut stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n0123")
            .unwrap();
        finish(stream);
    });
    let here = tempfile::tempdir().unwrap();
    let place = here.path().join("f");
    let words = ["http", "-o", place.to_str().unwrap(), &url];
    run(&words, b"").expect(74);
    assert_eq!(names(here.path()), [""; 0]);
}

#[test]
fn a_full_disk_is_told_and_what_came_is_gone_on_with_when_there_is_room() {
    let (site, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = site.path().join("f.bin");
    fs::write(&file, content(3_000_000)).unwrap();
    let (_nginx, url) = nginx(site.path(), "");
    // A disk of its own, small at first.
    let script = format!(
        "mount -t tmpfs -o size=1m none {0} && cd {0} && ! \"$@\" && ls >&2 && \
         mount -o remount,size=8m {0} && \"$@\" --resume && cmp copy {1}",
        here.path().display(),
        file.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]);
    command.arg(portyard().get_program());
    command.args(["http", "-o", "copy", &format!("{url}/f.bin")]);
    let said = common::finish(&mut command, b"").expect(0).stderr;
    for part in ["cannot write copy: No space left", "copy.part", "--resume"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let (site, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, size) in [("small", 1 << 20), ("large", 300 << 20)] {
        fs::File::create(site.path().join(name))
            .unwrap()
            .set_len(size)
            .unwrap();
    }
    let (_nginx, url) = nginx(
        site.path(),
        "client_max_body_size 0; location /up { return 204; }",
    );
    let program = "import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let portyard = env!("CARGO_BIN_EXE_portyard");
    let peak = |words: &[&str]| -> u64 {
        let words = [&[portyard, "http"], words].concat();
        common::python(program, &words).trim().parse().unwrap()
    };
    let fetched = |name: &str| {
        let place = here.path().join(name);
        let peak = peak(&["-o", place.to_str().unwrap(), &format!("{url}/{name}")]);
        fs::remove_file(place).unwrap();
        peak
    };
    let (small, large) = (fetched("small"), fetched("large"));
    assert!(large < small + 16 * 1024, "{small} KiB, then {large} KiB");
    // A server that takes all before it answers.
    let sink = serve(|mut stream| {
        read_head(&mut stream);
        let (mut buffer, mut left) = (vec![0; 1 << 16], 300_usize << 20);
        while left > 0 {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            left -= read;
        }
        stream.write_all(&answer("200 OK", "", b"")).unwrap();
    });
    let data = format!("@{}", site.path().join("large").display());
    let sent = peak(&["PUT", &sink, "-d", &data]);
    assert!(sent < small + 16 * 1024, "{small} KiB, then {sent} KiB");
}
