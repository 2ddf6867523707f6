//! JSON-RPC over HTTP and in its three framings: transcripts, order, and foreign clients.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "common/doors.rs"]
mod doors;
#[path = "common/framing.rs"]
mod framing;

use std::fs;
use std::path::Path;
use std::process::Command;

use doors::{Http, bad_inputs, json_call, revision, start};
use framing::{FRAMINGS, Framing, call, connect, framed, receive, send};
use portyard_testkit::{End, finish, peer, python};
use serde_json::{Value, json};

#[test]
fn transcripts_hold_over_http_and_in_every_framing() {
    let daemon = start(&["json-rpc"], "", "options = { max_batch = 8 }");
    let exchanges = transcripts();
    assert!(exchanges.len() >= 60, "only {} messages", exchanges.len());
    for framing in FRAMINGS {
        let client = connect(&daemon);
        // What the first byte of a connection says of its framing, no transcript does.
        assert_eq!(call(&client, framing, "size", "[]")["result"], 0);
        for (message, reply) in &exchanges {
            send(&client, framing, message);
            // Without a reply nothing comes, so the next message's reply would be the wrong one.
            let said = match (framing, reply) {
                (Framing::Http, _) | (_, Some(_)) => receive(&client, framing),
                (_, None) => None,
            };
            assert_eq!(&said, reply, "{message} {framing:?}");
        }
        assert_eq!(call(&client, framing, "size", "[]")["result"], 0);
    }
}

#[test]
fn the_examples_of_the_protocol_page_hold() {
    let page = include_str!("../../../docs/protocols/kv-rpc.md");
    // What the server says unasked is no reply (tests/watch.rs).
    let (before, pushed) = page.split_once("```json push\n").unwrap();
    let (_, behind) = pushed.split_once("```\n").unwrap();
    let exchanges = exchanges(&format!("{before}{behind}"));
    assert!(exchanges.len() >= 9, "only {} messages", exchanges.len());
    for framing in FRAMINGS {
        let daemon = start(&["json-rpc"], "", "");
        let client = connect(&daemon);
        for (message, reply) in &exchanges {
            send(&client, framing, message);
            let said = match (framing, reply) {
                (Framing::Http, _) | (_, Some(_)) => receive(&client, framing),
                (_, None) => None,
            };
            assert_eq!(&said, reply, "{message} {framing:?}");
        }
    }
}

#[test]
fn each_get_of_a_hundred_pipelined_calls_sees_the_sets_before_it() {
    let daemon = start(&["json-rpc"], "", "");
    for framing in FRAMINGS {
        let client = connect(&daemon);
        let mut sent = Vec::new();
        for turn in 0..50 {
            let set = format!(
                r#"{{"jsonrpc":"2.0","id":"set {turn}","method":"set","params":["k",{turn}]}}"#
            );
            let get =
                format!(r#"{{"jsonrpc":"2.0","id":"get {turn}","method":"get","params":["k"]}}"#);
            sent.extend(framed(framing, &set));
            sent.extend(framed(framing, &get));
        }
        client.send(&sent);
        for turn in 0..50 {
            let reply = receive(&client, framing).unwrap();
            let expected = format!(r#"{{"jsonrpc":"2.0","id":"set {turn}","result":null}}"#);
            assert_eq!(reply, expected, "{framing:?}");
            let reply = receive(&client, framing).unwrap();
            let expected = format!(r#"{{"jsonrpc":"2.0","id":"get {turn}","result":{turn}}}"#);
            assert_eq!(reply, expected, "{framing:?}");
        }
    }
}

#[test]
fn a_message_in_pieces_is_put_together() {
    let daemon = start(&["json-rpc"], "", "");
    for framing in FRAMINGS {
        let client = connect(&daemon);
        for byte in framed(framing, &json_call("echo", r#"["in pieces"]"#)) {
            client.send([byte]);
        }
        let reply = receive(&client, framing).unwrap();
        assert_eq!(
            reply, r#"{"jsonrpc":"2.0","id":1,"result":"in pieces"}"#,
            "{framing:?}"
        );
    }
}

#[test]
fn a_call_that_outlasts_the_idle_deadline_is_answered() {
    let daemon = start(&["json-rpc"], "", "[listener.limits]\nidle = \"20ms\"");
    for framing in FRAMINGS {
        let reply = call(&connect(&daemon), framing, "sleep", "[0.3]");
        assert_eq!(reply["result"], Value::Null, "{framing:?}");
        // It begins anew behind what has no reply.
        let client = connect(&daemon);
        send(&client, framing, r#"{"jsonrpc":"2.0","method":"size"}"#);
        client.receive_all();
    }
}

#[test]
fn notifications_are_done_and_not_answered() {
    let daemon = start(&["json-rpc"], "", "");
    for (turn, framing) in (1..).zip(FRAMINGS) {
        let client = connect(&daemon);
        let add = r#"{"jsonrpc":"2.0","method":"incr","params":["n"]}"#;
        send(&client, framing, add);
        if framing == Framing::Http {
            assert_eq!(Http(connect(&daemon)).post(add).status, 204);
            assert_eq!(receive(&client, framing), None);
            // The one above was another.
            let undo = r#"{"jsonrpc":"2.0","method":"incr","params":["n",-1]}"#;
            assert_eq!(Http(connect(&daemon)).post(undo).status, 204);
        }
        let get = call(&client, framing, "get", r#"["n"]"#);
        assert_eq!(get, json!({"jsonrpc": "2.0", "id": 1, "result": turn}));
    }
}

#[test]
fn a_batch_is_done_in_order_and_answered_as_one() {
    let daemon = start(&["json-rpc"], "", "");
    for framing in FRAMINGS {
        let client = connect(&daemon);
        send(
            &client,
            framing,
            r#"[{"jsonrpc":"2.0","id":1,"method":"set","params":["b",1]},
                {"jsonrpc":"2.0","method":"set","params":["b",2]},
                {"jsonrpc":"2.0","id":2,"method":"get","params":{"name":"b"}},
                {"jsonrpc":"2.0","id":3,"method":"nope"},
                {"jsonrpc":"2.0","id":4,"method":"delete","params":["b"]},
                {"jsonrpc":"2.0","id":5,"method":"exists","params":["b"]}]"#
                .replace('\n', " ")
                .as_str(),
        );
        let reply: Value = serde_json::from_str(&receive(&client, framing).unwrap()).unwrap();
        let short: Vec<Value> = reply
            .as_array()
            .unwrap()
            .iter()
            .map(|one| json!([one["id"], one.get("result"), one["error"]["code"]]))
            .collect();
        let expected = json!([
            [1, null, null],
            [2, 2, null],
            [3, null, -32601],
            [4, null, null],
            [5, false, null]
        ]);
        assert_eq!(Value::Array(short), expected, "{framing:?}");
    }
}

#[test]
fn errors_have_codes_and_the_class_that_python_raises() {
    let daemon = start(&["json-rpc"], "max_key = \"100B\"\nmax_value = \"1kB\"", "");
    let client = connect(&daemon);
    let big = format!(r#"["big","{}"]"#, "x".repeat(2000));
    assert_eq!(
        call(
            &client,
            Framing::Lines,
            "set",
            r#"["max",9223372036854775807]"#
        )["id"],
        1
    );
    for (method, params, code, class) in [
        ("get", r#"["nothing"]"#, -32_001, "KeyError"),
        ("delete", r#"["nothing"]"#, -32_001, "KeyError"),
        ("entry", r#"["nothing"]"#, -32_001, "KeyError"),
        ("incr", r#"["max"]"#, -32_003, "OverflowError"),
        ("set", &big, -32_003, "ValueError"),
        ("get", "[]", -32_602, "TypeError"),
        ("get", r#"["a","b"]"#, -32_602, "TypeError"),
        ("get", r#"{"nme":"a"}"#, -32_602, "TypeError"),
        ("set", "[[1],2]", -32_602, "TypeError"),
        ("setex", r#"["a",1,-1]"#, -32_602, "ValueError"),
        ("scan", r#"["",null,0]"#, -32_602, "ValueError"),
        ("nope", "[]", -32_601, "Exception"),
    ] {
        let reply = call(&client, Framing::Lines, method, params);
        let error = &reply["error"];
        assert_eq!(error["code"], code, "{method}{params}: {reply}");
        assert_eq!(error["data"]["type"], class, "{method}{params}: {reply}");
    }
}

#[test]
fn a_read_only_listener_refuses_what_changes_something() {
    let daemon = start(&["json-rpc"], "", "options = { read_only = true }");
    let client = connect(&daemon);
    for (method, params) in [
        ("set", r#"["a",1]"#),
        ("delete", r#"["a"]"#),
        ("incr", r#"["a"]"#),
        ("cas", r#"["a",null,1]"#),
        ("cad", r#"["a",null]"#),
        ("setex", r#"["a",1,1]"#),
        ("expire", r#"["a",1]"#),
        ("persist", r#"["a"]"#),
    ] {
        let reply = call(&client, Framing::Lines, method, params);
        assert_eq!(reply["error"]["code"], -32_006, "{reply}");
    }
    assert_eq!(
        call(&client, Framing::Lines, "keys", "[]")["result"],
        json!([])
    );
    assert_eq!(revision(&daemon), 0);
}

#[test]
fn a_stream_that_cannot_be_framed_is_told_so_and_ends() {
    let daemon = start(&["json-rpc"], "", "options = { max_request = \"1kB\" }");
    let long = "x".repeat(1100);
    let mut count = 0;
    for begin in [
        "x\n".to_owned(),
        "\u{1}\0\0\0".into(),
        "Content-Length: x\r\n\r\n".into(),
        "Content-Length: 1001\r\n\r\n".into(),
        format!("c{long}"),
        format!("{{{long}"),
        "\0\0\u{4}\0".into(),
    ] {
        let client = connect(&daemon);
        client.send(&begin);
        client.send_end();
        let (answer, end) = client.receive_all();
        assert_eq!(end, End::Fin, "{begin:?}");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(r#""id":null"#), "{begin:?} {answer:?}");
        assert!(answer.contains("-32700"), "{begin:?} {answer:?}");
        count += 1;
        assert_eq!(bad_inputs(&daemon, "json-rpc"), count, "{begin:?}");
    }
}

#[test]
fn a_busy_client_is_let_go_by_a_drain_with_all_that_was_done_acknowledged() {
    let request = json_call("set", r#"["k",1]"#) + "\n";
    let reply = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":null}\n";
    doors::assert_drains("json-rpc", request.as_bytes(), reply.as_bytes());
}

#[test]
fn curl_is_answered() {
    let daemon = start(&["json-rpc"], "", "");
    let url = format!("http://{}/", daemon.address("json-rpc"));
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new(peer("curl"));
        finish(curl.args(["-sS", "-i"]).args(arguments).arg(&url), b"").success()
    };
    let said = curl(&["--data", &json_call("set", r#"["curl",{"a":[1.5]}]"#)]);
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(
        said.contains("Content-Type: application/json\r\n"),
        "{said}"
    );
    assert!(
        said.ends_with(r#"{"jsonrpc":"2.0","id":1,"result":null}"#),
        "{said}"
    );
    let said = curl(&["--json", &json_call("get", r#"["curl"]"#)]);
    assert!(said.ends_with(r#""result":{"a":[1.5]}}"#), "{said}");
    let said = curl(&[
        "-H",
        "Transfer-Encoding: chunked",
        "--data",
        &json_call("size", "[]"),
    ]);
    assert!(said.ends_with(r#""result":1}"#), "{said}");
    let said = curl(&["--data", r#"{"jsonrpc":"2.0","method":"size"}"#]);
    assert!(said.starts_with("HTTP/1.1 204 No Content\r\n"), "{said}");
    let said = curl(&["-0", "--data", &json_call("size", "[]")]);
    assert!(said.ends_with(r#""result":1}"#), "{said}");
    let said = curl(&[]);
    assert!(said.starts_with("HTTP/1.1 405 "), "{said}");
    assert!(said.contains("Allow: POST\r\n"), "{said}");
}

/// What `pylsp` and its kin send: header fields before each message, over a socket's file.
const LANGUAGE_SERVER: &str = r"
import json, socket, sys
file = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).makefile('rwb')
for number in range(3):
    body = json.dumps({'jsonrpc': '2.0', 'id': number, 'method': 'echo', 'params': ['gr\xfc\xdfe \u20ac']},
                      ensure_ascii=False).encode()
    file.write(b'Content-Length: %d\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n' % len(body))
    file.write(body)
    file.flush()
    name, length = file.readline().split(b': ')
    assert name == b'Content-Length' and file.readline() == b'\r\n'
    reply = json.loads(file.read(int(length)))
    assert reply == {'jsonrpc': '2.0', 'id': number, 'result': 'gr\xfc\xdfe \u20ac'}, reply
sys.stdout.write('done')
";

#[test]
fn a_client_of_the_language_server_protocol_is_served() {
    let daemon = start(&["json-rpc"], "", "");
    let port = daemon.address("json-rpc").port().to_string();
    let done = python(LANGUAGE_SERVER, &["127.0.0.1", &port]);
    assert_eq!(done.success(), "done");
}

/// Messages of wire's transcripts with their replies, as far as this daemon's methods are those of
/// the transcripts: its `echo` has one parameter, and its methods have errors of their own.
fn transcripts() -> Vec<(String, Option<String>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/tests/jsonrpc");
    let files = directory.read_dir().unwrap();
    files
        .flat_map(|file| exchanges(&fs::read_to_string(file.unwrap().path()).unwrap()))
        .filter_map(ours)
        .collect()
}

/// Lines with messages (`-->`), each with its reply (`<--`) if it has one.
fn exchanges(text: &str) -> Vec<(String, Option<String>)> {
    let mut exchanges: Vec<(String, Option<String>)> = Vec::new();
    for line in text.lines() {
        if let Some(message) = line.strip_prefix("--> ") {
            exchanges.push((message.into(), None));
        } else if let Some(reply) = line.strip_prefix("<-- ") {
            exchanges.last_mut().unwrap().1 = Some(reply.into());
        }
    }
    exchanges
}

fn ours((message, reply): (String, Option<String>)) -> Option<(String, Option<String>)> {
    let said = reply.as_deref().unwrap_or_default();
    let own = message.contains("subtract") || message.contains("sum") || said.contains("-32601");
    if own {
        return None;
    }
    let parsed = !said.contains("-32700");
    if parsed && message.contains("\"echo\"") && !message.contains("params") {
        let message = message.replace("\"echo\"", "\"echo\",\"params\":[null]");
        return Some((message, reply));
    }
    let refused = said.contains("error") && !said.contains("result");
    (refused || reply.is_none()).then_some((message, reply))
}
