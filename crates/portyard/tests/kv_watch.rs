//! `portyard kv watch` against the real store, through each of its doors, and over its death.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use common::store::{self, DOORS};
use common::{beside, finish, portyard};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_testkit::{Daemon, eventually};
use serde_json::{Value, json};

/// A store in memory with all doors, and these further lines in its table.
fn store(table: &str) -> Daemon {
    store::in_memory(table, "")
}

#[track_caller]
fn kv(door: &str, endpoint: &str, words: &[&str]) -> common::Run {
    let mut command = portyard();
    command.args(["kv", "--door", door, endpoint]).args(words);
    finish(&mut command, b"")
}

fn watch(door: &str, endpoint: &str, words: &[&str]) -> Child {
    let mut command = portyard();
    command.args(["kv", "--door", door, endpoint, "watch", "--json"]);
    command.args(words);
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn every_door_tells_what_happens_as_it_happens() {
    let store = store("");
    for (door, service) in DOORS {
        let endpoint = store.endpoint(service);
        let mut watching = watch(door, &endpoint, &["w:", "--limit", "3"]);
        // From now on: so nothing may happen before it looks.
        eventually("somebody watches", || {
            store.count("portyard_store_watchers") == 1
        });
        kv(
            "json",
            &store.endpoint("json-rpc"),
            &["set", "elsewhere", "0"],
        )
        .expect(0);
        let words: [&[&str]; 3] = [
            &["set", "w:a", "[1, \"b\"]"],
            &["setex", "w:b", "5", "0.01"],
            &["size"],
        ];
        for words in words {
            kv(door, &endpoint, words).expect(0);
        }
        let lines: Vec<Value> = BufReader::new(watching.stdout.take().unwrap())
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        assert_eq!(watching.wait().unwrap().code(), Some(0), "{door}");
        let told = |event: &Value| (event["type"].clone(), event["key"].clone());
        let told: Vec<_> = lines.iter().map(told).collect();
        let expected = [("set", "w:a"), ("set", "w:b"), ("expire", "w:b")];
        let expected = expected.map(|(what, key)| (json!(what), json!(key)));
        assert_eq!(told, expected, "{door}");
        assert_eq!(lines[0]["value"], json!([1, "b"]));
        kv(door, &endpoint, &["delete", "w:a"]).expect(0);
        eventually("nobody watches", || {
            store.count("portyard_store_watchers") == 0
        });
    }
}

#[test]
fn a_revision_in_the_past_is_told_first_and_people_get_a_line_each() {
    let store = store("");
    let endpoint = store.endpoint("json-rpc");
    kv("json", &endpoint, &["set", "a", "1"]).expect(0);
    kv("json", &endpoint, &["set", "b", "\"two\""]).expect(0);
    kv("json", &endpoint, &["delete", "a"]).expect(0);
    let run = kv("json", &endpoint, &["watch", "--from", "1", "--limit", "3"]).expect(0);
    assert_eq!(
        run.text(),
        "1  set     a  1\n2  set     b  \"two\"\n3  delete  a\n"
    );
}

#[test]
fn what_is_forgotten_is_an_error_that_says_from_where_to_go_on() {
    let store = store("history_events = 2\n");
    for (door, service) in DOORS {
        let endpoint = store.endpoint(service);
        for value in ["1", "2", "3", "4"] {
            kv(door, &endpoint, &["set", "a", value]).expect(0);
        }
        let run = kv(door, &endpoint, &["watch", "--from", "1", "--limit", "1"]).expect(65);
        let oldest = store.status()["store"]["history"]["oldest"].to_string();
        assert!(
            run.stderr.contains("some events cannot be had") && run.stderr.contains(&oldest),
            "{door}: {}",
            run.stderr
        );
        // Nor is there a revision that has yet to come.
        kv(door, &endpoint, &["watch", "--from", "1000"]).expect(65);
    }
    kv(
        "json",
        &store.endpoint("json-rpc"),
        &["watch", "--from", "0"],
    )
    .expect(64);
}

#[test]
fn a_server_that_was_killed_is_found_again_and_nothing_is_missed_or_told_twice() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kv.sock");
    let data = directory.path().join("data");
    let config = format!(
        "[store]\ndirectory = \"{}\"\n[[listener]]\nservice = \"json-rpc\"\nlisten = [\"unix:{}\"]\n",
        data.display(),
        socket.display()
    );
    let endpoint = format!("unix:{}", socket.display());
    let start = || Daemon::build(beside("kv-rpc")).config(&config).start();
    let first = start();
    let mut watching = watch("json", &endpoint, &["--from", "1", "--limit", "4"]);
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    for (revision, key) in [(1, "a"), (2, "b")] {
        kv("json", &endpoint, &["set", key, "1"]).expect(0);
        let event = next();
        assert_eq!(
            (&event["revision"], &event["key"]),
            (&json!(revision), &json!(key))
        );
    }
    first.kill();
    let _second = start();
    for (revision, key) in [(3, "c"), (4, "d")] {
        kv("json", &endpoint, &["set", key, "1"]).expect(0);
        let event = next();
        assert_eq!(
            (&event["revision"], &event["key"]),
            (&json!(revision), &json!(key))
        );
    }
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

#[test]
fn an_interrupt_leaves_between_two_lines() {
    let store = store("");
    let endpoint = store.endpoint("json-rpc");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut watching = watch("json", &endpoint, &["--from", "1"]);
        let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
        kv("json", &endpoint, &["set", "a", "1"]).expect(0);
        lines.next().unwrap().unwrap();
        let pid = Pid::from_raw(watching.id().try_into().unwrap());
        kill(pid, signal).unwrap();
        assert_eq!(watching.wait().unwrap().code(), Some(0), "{signal}");
        for line in lines {
            serde_json::from_str::<Value>(&line.unwrap()).unwrap();
        }
        eventually("nobody watches", || {
            store.count("portyard_store_watchers") == 0
        });
    }
}
