//! Requests that are sent without waiting for answers: their order, their syncs, their memory.

#[path = "common/doors.rs"]
mod doors;

use std::fmt::Write as _;

use doors::{Http, configured, json_call, post, post_with, start, xml_call};
use portyard_testkit::{Client, Daemon, End, anonymous_bytes};

/// A call of a method with one key, over HTTP.
fn call(door: &str, method: &str, params: &[&str]) -> Vec<u8> {
    post(body(door, method, params))
}

fn body(door: &str, method: &str, params: &[&str]) -> String {
    if door == "xml-rpc" {
        xml_call(method, params)
    } else {
        let params: Vec<String> = params.iter().map(|param| format!("{param:?}")).collect();
        json_call(method, &format!("[{}]", params.join(",")))
    }
}

/// What a door writes for a value.
fn value(door: &str, kind: &str, text: &str) -> String {
    if door == "xml-rpc" {
        format!("<value><{kind}>{text}</{kind}></value>")
    } else if kind == "int" {
        format!("\"result\":{text}}}")
    } else {
        format!("\"result\":\"{text}\"}}")
    }
}

const DOORS: [&str; 2] = ["xml-rpc", "json-rpc"];
const TURNS: usize = 10;
const AT_ONCE: usize = 64;

#[test]
fn writes_share_a_sync_and_are_answered_in_their_order() {
    for door in DOORS {
        let data = tempfile::tempdir().unwrap();
        let store = format!("directory = \"{}/data\"", data.path().display());
        let start = || configured(Daemon::build(doors::BINARY), &[door], &store, "").start();
        let daemon = start();
        let http = Http::connect(&daemon, door);
        let request = call(door, "incr", &["n"]);
        for turn in 0..TURNS {
            http.0.send(request.repeat(AT_ONCE));
            for at in 1..=AT_ONCE {
                let answer = http.answer();
                let expected = value(door, "int", &(turn * AT_ONCE + at).to_string());
                assert!(answer.text().contains(&expected), "{door} {answer:?}");
            }
        }
        let commits = daemon.count("portyard_store_commits_total");
        // One each, if each waited for its own.
        assert!(
            commits <= (TURNS * AT_ONCE / 2) as u64,
            "{door}: {commits} commits"
        );
        // What was acknowledged is there.
        daemon.kill();
        let daemon = start();
        let answer = Http::connect(&daemon, door).post(body(door, "get", &["n"]));
        let expected = value(door, "int", &(TURNS * AT_ONCE).to_string());
        assert!(answer.text().contains(&expected), "{door} {answer:?}");
    }
}

#[test]
fn a_read_sees_the_writes_before_it_and_none_behind() {
    let data = tempfile::tempdir().unwrap();
    let durable = format!("directory = \"{}/data\"", data.path().display());
    for store in ["engine = \"memory\"", &durable] {
        for door in DOORS {
            let daemon = configured(Daemon::build(doors::BINARY), &[door], store, "").start();
            let http = Http::connect(&daemon, door);
            let mut sent = Vec::new();
            for turn in 0..50 {
                let text = format!("turn {turn}");
                sent.extend(call(door, "set", &["k", &text]));
                sent.extend(call(door, "set", &["other", "x"]));
                sent.extend(call(door, "get", &["k"]));
            }
            http.0.send(sent);
            for turn in 0..50 {
                http.answer();
                http.answer();
                let answer = http.answer().text();
                let expected = value(door, "string", &format!("turn {turn}"));
                assert!(answer.contains(&expected), "{store} {door} {answer}");
            }
        }
    }
}

#[test]
fn what_is_known_is_sent_before_the_next_is_waited_for() {
    let daemon = start(&DOORS, "", "");
    for door in DOORS {
        let http = Http::connect(&daemon, door);
        let sleep = if door == "xml-rpc" {
            post(xml_call("sleep", &["<int>3600</int>"]))
        } else {
            post(json_call("sleep", "[3600]"))
        };
        let sent = [call(door, "echo", &["first"]), sleep].concat();
        http.0.send(sent);
        let answer = http.answer().text();
        assert!(answer.contains(&value(door, "string", "first")), "{answer}");
    }
    let lines = Client::connect(&daemon.endpoint("json-rpc"));
    let mut sent = json_call("echo", "[\"first\"]");
    let _ = write!(sent, "\n{}\n", json_call("sleep", "[3600]"));
    lines.send(sent);
    assert!(lines.receive_line().contains("first"));
}

#[test]
fn nothing_is_done_behind_an_answer_that_says_so() {
    let daemon = start(&DOORS, "", "");
    for door in DOORS {
        let http = Http::connect(&daemon, door);
        let last = post_with("Connection: close\r\n", body(door, "incr", &["n"]));
        let all = [call(door, "incr", &["n"]), last, call(door, "incr", &["n"])].concat();
        http.0.send(all);
        assert!(!http.answer().head.contains("Connection: close"));
        assert!(http.answer().head.contains("Connection: close"));
        assert_eq!(http.0.end(), End::Fin, "{door}");
    }
    assert_eq!(doors::revision(&daemon), 4);
}

#[test]
fn a_refused_request_is_answered_in_its_turn() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("directory = \"{}/data\"", data.path().display());
    let daemon = configured(Daemon::build(doors::BINARY), &["xml-rpc"], &store, "").start();
    let http = Http::connect(&daemon, "xml-rpc");
    let wrong = post_with("Content-Encoding: gzip\r\n", "no gzip");
    let set = call("xml-rpc", "set", &["k", "v"]);
    let broken = b"POST / HTTP/1.1\r\n\r\n".to_vec();
    let all = [&set, &set, &wrong, &set, &broken, &set].map(Vec::as_slice);
    http.0.send(all.concat());
    let answers = [200, 200, 400, 200, 400].map(|_| http.answer().status);
    assert_eq!(answers, [200, 200, 400, 200, 400]);
    assert_eq!(http.0.end(), End::Fin);
    assert_eq!(doors::revision(&daemon), 3);
}

#[test]
fn answers_to_a_client_that_does_not_read_are_not_gathered() {
    const VALUE: usize = 1 << 20;
    const GETS: usize = 200;
    let builder = Daemon::build(doors::BINARY).env("MIMALLOC_ALLOW_THP", "0");
    let daemon = configured(builder, &DOORS, "engine = \"memory\"", "").start();
    let set = body("json-rpc", "set", &["k", &"x".repeat(VALUE - 100)]);
    assert_eq!(Http::connect(&daemon, "json-rpc").post(set).status, 200);
    let before = anonymous_bytes(daemon.pid());
    let line = json_call("get", "[\"k\"]") + "\n";
    for (door, request) in [
        ("xml-rpc", call("xml-rpc", "get", &["k"])),
        ("json-rpc", call("json-rpc", "get", &["k"])),
        ("json-rpc", line.into_bytes()),
    ] {
        let client = Client::connect(&daemon.endpoint(door));
        client.send(request.repeat(GETS));
        // Were all answers gathered, nothing would come before they are.
        client.receive(1);
        let grown = anonymous_bytes(daemon.pid()).saturating_sub(before);
        assert!(grown < 16 * VALUE as u64, "{door}: {grown} bytes");
    }
}
