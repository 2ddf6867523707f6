//! Watches: long polls behind every door, and subscriptions where the server may speak unasked.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "common/doors.rs"]
mod doors;
#[path = "common/framing.rs"]
mod framing;

use std::thread;
use std::time::{Duration, Instant};

use doors::{BINARY, Http, configured, json_call, post, start, xml_call};
use framing::{FRAMINGS, Framing, call, connect, receive, send};
use portyard_testkit::{Client, Daemon, End, anonymous_bytes, eventually, pythons};
use serde_json::{Value, json};

const PUSHING: [Framing; 3] = [Framing::Length, Framing::Lines, Framing::Headers];

/// A page to look at with its events and where to go on, as `xmlrpc.client` sees them.
const LONG_POLL: &str = r#"
import sys, threading, time
try:
    import xmlrpc.client as client
except ImportError:
    import xmlrpclib as client
url, prefix = sys.argv[1:]
s = client.ServerProxy(url, allow_none=True)
other = client.ServerProxy(url, allow_none=True)
begin = s.revision() + 1
assert s.watch(prefix, None, 0) == {'events': [], 'next': begin}

def write():
    # It waits by then, or finds it in the history: the events are the same.
    other.set('elsewhere', 0)
    other.set(prefix + 'a', [1, None])
thread = threading.Thread(target=write)
thread.start()
page = s.watch(prefix, begin, 20)
thread.join()
assert page == {'next': begin + 2, 'events': [
    {'type': 'set', 'key': prefix + 'a', 'value': [1, None], 'revision': begin + 1, 'ttl': None}]}, page
other.delete(prefix + 'a')
other.setex(prefix + 'b', 'x', 0.05)
events = []
while len(events) < 3:
    page = s.watch(prefix, page['next'], 20, 1)
    assert len(page['events']) == 1, page
    events += page['events']
kinds = [(event['type'], event['key']) for event in events]
assert kinds == [('delete', prefix + 'a'), ('set', prefix + 'b'), ('expire', prefix + 'b')], events
assert 0 <= events[1]['ttl'] <= 0.05 and 'value' not in events[0] and 'value' not in events[2]
revisions = [event['revision'] for event in events]
assert revisions == sorted(revisions) and page['next'] == revisions[2] + 1

def fault(text, *args):
    try:
        s.watch(*args)
    except client.Fault as error:
        assert error.faultString.startswith(text), error
    else:
        raise AssertionError('no fault')
fault("<class 'ValueError'>:from_revision is not positive", '', -1)
fault("<class 'ValueError'>:from_revision is not positive", '', 0)
fault("<class 'ValueError'>:timeout must not be negative", '', None, -0.5)
fault("<class 'ValueError'>:limit is not from 1 to 1000", '', None, 0, 1001)
fault("<class 'TypeError'>:from_revision must be an integer", '', 'now')
fault("<class 'TypeError'>:timeout must be a number", '', None, 'long')
fault("<class 'LookupError'>:the store is at revision ", '', 10 ** 6)
calls = client.MultiCall(s)
calls.set(prefix + 'c', 1)
calls.watch(prefix, page['next'], 20)
assert [event['value'] for event in list(calls())[1]['events']] == [1]
sys.stdout.write('done')
"#;

#[test]
fn every_python_polls_and_misses_nothing() {
    let daemon = start(&["xml-rpc"], "", "");
    let url = format!("http://localhost:{}", daemon.address("xml-rpc").port());
    for python in pythons() {
        let prefix = format!("{:?} ", python.version);
        let done = python.run(LONG_POLL, &[&url, &prefix]);
        assert_eq!(done.code, Some(0), "{python:?}\n{}", done.stderr);
        assert_eq!(done.stdout, "done", "{python:?}");
    }
}

/// The recipe's client, with an exception that it can raise.
const PICKLED: &str = r"
import pickle, sys
from multiprocessing.connection import Client
c = Client((sys.argv[1], int(sys.argv[2])))
def call(*args, **kwargs):
    c.send(pickle.dumps((args[0], args[1:], kwargs)))
    result = pickle.loads(c.recv())
    if isinstance(result, Exception):
        raise result
    return result
call('set', 'a', 1)
page = call('watch', from_revision=1, timeout=20)
assert page == {'next': 2, 'events': [
    {'type': 'set', 'key': 'a', 'value': 1, 'revision': 1, 'ttl': None}]}, page
try:
    call('watch', None, 50)
except LookupError as error:
    assert type(error) is LookupError and 'is at revision 1 only' in str(error), error
else:
    raise AssertionError('no error')
try:
    call('watch.subscribe')
except KeyError:
    pass
else:
    raise AssertionError('no error')
sys.stdout.write('done')
";

#[test]
fn a_watch_is_pickled_and_fails_with_an_exception_that_python_raises() {
    for python in pythons() {
        if python.version < (3, 0) {
            continue;
        }
        let daemon = start(&["python-rpc"], "", "");
        let port = daemon.address("python-rpc").port().to_string();
        let done = python.run(PICKLED, &["127.0.0.1", &port]);
        assert_eq!(done.success(), "done", "{python:?}");
    }
}

#[test]
fn json_is_told_in_data_from_where_a_watch_can_go_on() {
    let daemon = start(&["json-rpc"], "history_events = 2", "");
    for framing in FRAMINGS {
        let client = connect(&daemon);
        for turn in 0..5 {
            let set = call(&client, framing, "set", &format!(r#"["k",{turn}]"#));
            assert_eq!(set["result"], Value::Null);
        }
        let last = last_revision(&client, framing);
        for (from, resume) in [(1, last - 1), (last - 2, last - 1), (last + 2, last + 1)] {
            let refused = call(&client, framing, "watch", &format!("[null,{from}]"));
            let error = &refused["error"];
            assert_eq!(error["code"], -32_007, "{refused}");
            assert_eq!(error["data"]["type"], "LookupError", "{refused}");
            assert_eq!(error["data"]["resume"], resume, "{refused}");
            let page = call(&client, framing, "watch", &format!("[null,{resume},0]"));
            assert_eq!(page["result"]["next"], last + 1, "{page}");
        }
    }
}

#[test]
fn a_long_timeout_is_cut_and_a_drain_ends_all_polls_with_where_to_go_on() {
    let daemon = start(&["json-rpc", "xml-rpc"], "", "");
    let json = connect(&daemon);
    send(&json, Framing::Http, &json_call("watch", "[null,1,1e300]"));
    let lines = connect(&daemon);
    send(
        &lines,
        Framing::Lines,
        &json_call("watch", r#"["a",null,1e300]"#),
    );
    let xml = Http::connect(&daemon, "xml-rpc");
    xml.0.send(post(xml_call(
        "watch",
        &["", "<nil/>", "<double>1e300</double>"],
    )));
    eventually("three watch", || watchers(&daemon) == 3);
    let begin = Instant::now();
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| daemon.terminate());
        let answer = doors::answer(&json);
        assert!(
            answer.text().contains(r#"{"events":[],"next":1}"#),
            "{answer:?}"
        );
        let line = lines.receive_line();
        assert!(line.contains(r#"{"events":[],"next":1}"#), "{line}");
        let answer = xml.answer();
        assert!(answer.text().contains("<name>next</name>"), "{answer:?}");
        ended.join().unwrap()
    });
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("cutting"), "{}", ended.stderr);
    // Well before any of the timeouts, capped or not.
    assert!(begin.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_subscriber_is_told_in_the_framing_of_its_connection() {
    let daemon = start(&["json-rpc"], "", "");
    let writer = connect(&daemon);
    for framing in PUSHING {
        let client = connect(&daemon);
        let made = call(&client, framing, "watch.subscribe", r#"["a"]"#);
        let next = made["result"]["next"].as_u64().unwrap();
        assert_eq!(made["result"]["subscription"], 1, "{made}");
        for (method, params) in [
            ("set", r#"["b",0]"#),
            ("set", r#"["a",{"x":[null]}]"#),
            ("delete", r#"["a"]"#),
        ] {
            call(&writer, Framing::Lines, method, params);
        }
        let mut events = Vec::new();
        while events.len() < 2 {
            let told = notification(&client, framing);
            assert_eq!(told["method"], "watch.events");
            assert_eq!(told["params"]["subscription"], 1);
            assert!(told.get("id").is_none(), "{told}");
            events.extend(told["params"]["events"].as_array().unwrap().clone());
        }
        let expected = json!([
            {"type": "set", "key": "a", "value": {"x": [null]}, "revision": next + 1, "ttl": null},
            {"type": "delete", "key": "a", "revision": next + 2},
        ]);
        assert_eq!(Value::Array(events), expected, "{framing:?}");
        // Calls go on meanwhile; after the last one nothing comes.
        assert_eq!(
            call(&client, framing, "watch.unsubscribe", "[1]")["result"],
            true
        );
        call(&writer, Framing::Lines, "set", r#"["a",1]"#);
        assert_eq!(
            call(&client, framing, "watch.unsubscribe", "[1]")["result"],
            false
        );
        let names = call(&client, framing, "system.listMethods", "[]");
        for name in ["watch", "watch.subscribe", "watch.unsubscribe"] {
            assert!(
                names["result"].as_array().unwrap().contains(&name.into()),
                "{names}"
            );
        }
    }
    // What cannot push says what can be had instead.
    let client = connect(&daemon);
    let refused = call(&client, Framing::Http, "watch.subscribe", "[]");
    assert_eq!(refused["error"]["code"], -32_601);
    let why = refused["error"]["message"].as_str().unwrap();
    assert!(why.contains("call \"watch\""), "{why}");
    let names = call(&client, Framing::Http, "system.listMethods", "[]");
    assert!(!names.to_string().contains("subscribe"), "{names}");
}

#[test]
fn the_subscription_on_the_protocol_page_holds() {
    let page = include_str!("../../../docs/protocols/kv-rpc.md");
    let (_, example) = page.split_once("```json push\n").unwrap();
    let (example, _) = example.split_once("```\n").unwrap();
    for framing in PUSHING {
        let daemon = start(&["json-rpc"], "", "");
        let client = connect(&daemon);
        let mut heard = 0;
        for line in example.lines() {
            if let Some(message) = line.strip_prefix("--> ") {
                send(&client, framing, message);
            } else if let Some(said) = line.strip_prefix("<-- ") {
                assert_eq!(receive(&client, framing).unwrap(), said, "{framing:?}");
                heard += 1;
            }
        }
        assert!(heard >= 5, "{heard} messages");
    }
}

#[test]
fn what_was_set_before_a_subscription_in_one_batch_is_told_by_none_from_now_on() {
    let daemon = start(&["json-rpc"], "", "");
    let client = connect(&daemon);
    client.send(
        r#"[{"jsonrpc":"2.0","id":1,"method":"set","params":["a",1]},{"jsonrpc":"2.0","id":2,"method":"watch.subscribe"},{"jsonrpc":"2.0","id":3,"method":"set","params":["a",2]}]
"#,
    );
    let replies: Value = serde_json::from_str(&client.receive_line()).unwrap();
    assert_eq!(replies[1]["result"], json!({"subscription": 1, "next": 2}));
    let told = notification(&client, Framing::Lines);
    assert_eq!(told["params"]["events"][0]["value"], 2);
    assert_eq!(told["params"]["next"], 3);
}

#[test]
fn a_thousand_subscriptions_are_as_many_as_one_connection_may_have() {
    let daemon = start(&["json-rpc"], "", "options = { max_subscriptions = 40 }");
    let client = connect(&daemon);
    for turn in 0..1000 {
        let made = call(&client, Framing::Lines, "watch.subscribe", r#"["k"]"#);
        if turn < 40 {
            assert_eq!(made["result"]["subscription"], turn + 1, "{made}");
        } else {
            assert_eq!(made["error"]["code"], -32_003, "{made}");
        }
    }
    assert_eq!(watchers(&daemon), 40);
    assert_eq!(daemon.count("portyard_store_watchers"), 40);
    let writer = connect(&daemon);
    call(&writer, Framing::Lines, "set", r#"["k",1]"#);
    let mut told: Vec<u64> = (0..40)
        .map(|_| {
            notification(&client, Framing::Lines)["params"]["subscription"]
                .as_u64()
                .unwrap()
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, (1..=40).collect::<Vec<_>>());
    assert_eq!(daemon.count("portyard_store_watch_events_total"), 40);
    drop(client);
    eventually("nobody watches", || watchers(&daemon) == 0);
}

#[test]
fn a_subscription_outlasts_the_idle_deadline() {
    let daemon = start(&["json-rpc"], "", "[listener.limits]\nidle = \"20ms\"");
    let subscribed = connect(&daemon);
    call(&subscribed, Framing::Lines, "watch.subscribe", "[]");
    // One without has come to its end meanwhile.
    let idle = connect(&daemon);
    call(&idle, Framing::Lines, "size", "[]");
    assert_eq!(idle.end(), End::Fin);
    let writer = connect(&daemon);
    call(&writer, Framing::Lines, "set", r#"["a",1]"#);
    assert_eq!(
        notification(&subscribed, Framing::Lines)["method"],
        "watch.events"
    );
    call(&subscribed, Framing::Lines, "watch.unsubscribe", "[1]");
    assert_eq!(subscribed.end(), End::Fin);
}

#[test]
fn a_subscriber_that_comes_too_late_is_told_what_it_missed_and_costs_no_memory() {
    // More than a connection holds on its way, and more than the allocator keeps of huge pages.
    const EVENTS: u64 = 1600;
    let daemon = start(
        &["json-rpc"],
        "history_events = 50\nhistory_bytes = \"1MiB\"",
        "",
    );
    let slow = Client::connect_narrow(daemon.address("json-rpc"), 4096);
    let lines = Framing::Lines;
    call(&slow, lines, "watch.subscribe", "[]");
    let writer = connect(&daemon);
    let before = anonymous_bytes(daemon.pid());
    let value = "x".repeat(50_000);
    for _ in 0..EVENTS {
        call(&writer, lines, "set", &format!(r#"["k","{value}"]"#));
    }
    let grown = anonymous_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes for 80 MB of events");
    // What was on its way comes whole and in order, then where the gap ends.
    let mut next = 1;
    let end = loop {
        let told = notification(&slow, lines);
        let params = &told["params"];
        if told["method"] == "watch.end" {
            break params.clone();
        }
        for event in params["events"].as_array().unwrap() {
            assert_eq!(event["revision"], next);
            next += 1;
        }
        assert_eq!(params["next"], next);
    };
    assert_eq!(
        (&end["subscription"], &end["reason"]),
        (&json!(1), &json!("lagged"))
    );
    let resume = end["next"].as_u64().unwrap();
    assert!(next < resume && resume <= EVENTS + 1, "{next} {end}");
    assert!(
        end["message"]
            .as_str()
            .unwrap()
            .contains(&resume.to_string()),
        "{end}"
    );
    assert_eq!(daemon.count("portyard_store_watches_lagged_total"), 1);
    // The connection goes on, and so may another watch: from where the gap ended, unless that was before the
    // writer was through. Then the answer names the revision.
    let mut resume = resume;
    let mut again = call(&slow, lines, "watch.subscribe", &format!("[null,{resume}]"));
    if let Some(message) = again["error"]["message"].as_str() {
        let named = message.split_once("begins at revision ").unwrap().1;
        resume = named.split_once(';').unwrap().0.parse().unwrap();
        again = call(&slow, lines, "watch.subscribe", &format!("[null,{resume}]"));
    }
    assert_eq!(again["result"], json!({"subscription": 2, "next": resume}));
    let told = notification(&slow, lines);
    assert_eq!(told["params"]["events"][0]["revision"], resume);
}

#[test]
fn a_subscriber_that_never_reads_is_cut() {
    let stall = "[listener.limits]\nwrite_stall = \"300ms\"";
    let daemon = start(&["json-rpc"], "", stall);
    let deaf = Client::connect_narrow(daemon.address("json-rpc"), 4096);
    call(&deaf, Framing::Lines, "watch.subscribe", "[]");
    let writer = connect(&daemon);
    let value = "x".repeat(100_000);
    eventually("it is cut", || {
        call(
            &writer,
            Framing::Lines,
            "set",
            &format!(r#"["k","{value}"]"#),
        );
        watchers(&daemon) == 0
    });
    let cut = "portyard_connections_ended_total\
               {listener=\"json-rpc\",service=\"json-rpc\",reason=\"write_stall\"}";
    eventually("it is counted", || daemon.count(cut) == 1);
}

#[test]
fn a_drain_gives_subscribers_a_last_word_behind_the_last_event() {
    let daemon = start(&["json-rpc"], "", "");
    let clients: Vec<Client> = (0..5).map(|_| connect(&daemon)).collect();
    for client in &clients {
        for _ in 0..2 {
            call(client, Framing::Lines, "watch.subscribe", r#"["a"]"#);
        }
    }
    call(&connect(&daemon), Framing::Lines, "set", r#"["a",1]"#);
    let ended = daemon.terminate();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("cutting"), "{}", ended.stderr);
    for client in &clients {
        let (said, end) = client.receive_all();
        assert_eq!(end, End::Fin);
        let said: Vec<Value> = String::from_utf8(said)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let count = |method: &str| said.iter().filter(|told| told["method"] == method).count();
        assert_eq!(
            (said.len(), count("watch.events"), count("watch.end")),
            (4, 2, 2)
        );
        for told in &said[2..] {
            assert_eq!(told["params"]["reason"], "draining");
            assert_eq!(told["params"]["next"], 2);
        }
    }
}

#[test]
fn a_watch_gets_past_what_its_protocol_cannot_say() {
    let daemon = start(&["json-rpc", "xml-rpc", "python-rpc"], "", "");
    let xml = Http::connect(&daemon, "xml-rpc");
    // JSON has no such number, and this XML-RPC no such integer.
    assert!(
        xml.post(xml_call("set", &["a", "<double>inf</double>"]))
            .text()
            .contains("<nil/>")
    );
    let client = connect(&daemon);
    call(&client, Framing::Lines, "set", r#"["a",9000000000]"#);
    for framing in FRAMINGS {
        let page = call(&connect(&daemon), framing, "watch", "[null,1]");
        let events = page["result"]["events"].as_array().unwrap().clone();
        assert!(events[0].get("value").is_none(), "{page}");
        assert!(
            events[0]["unsaid"].as_str().unwrap().starts_with("value: "),
            "{page}"
        );
        assert_eq!(events[1]["value"], 9_000_000_000_u64, "{page}");
    }
    let told = call(&client, Framing::Lines, "watch.subscribe", "[null,1]");
    assert_eq!(told["result"]["next"], 1);
    let told = notification(&client, Framing::Lines);
    assert!(told["params"]["events"][0]["unsaid"].is_string(), "{told}");
    let page = xml
        .post(xml_call("watch", &["<nil/>", "<int>1</int>"]))
        .text();
    assert!(page.contains("<double>inf</double>"), "{page}");
    assert!(page.contains("<name>unsaid</name>"), "{page}");
    assert!(page.contains("int exceeds XML-RPC limits"), "{page}");
}

#[test]
fn hostile_arguments_of_a_subscription_are_refused_and_subscribe_nobody() {
    let daemon = start(&["json-rpc"], "max_key = \"100B\"", "");
    let client = connect(&daemon);
    for (params, code) in [
        ("[null,-1]", -32_602),
        ("[null,0]", -32_602),
        ("[null,9223372036854775807]", -32_007),
        ("[null,1.5]", -32_602),
        ("[5]", -32_602),
        (r#"[["a"]]"#, -32_602),
        ("[null,null,1]", -32_602),
        (r#"{"from":1}"#, -32_602),
    ] {
        let refused = call(&client, Framing::Lines, "watch.subscribe", params);
        assert_eq!(refused["error"]["code"], code, "{params} {refused}");
    }
    for params in ["[]", r#"["1"]"#, "[1.0]"] {
        let refused = call(&client, Framing::Lines, "watch.unsubscribe", params);
        assert_eq!(refused["error"]["code"], -32_602, "{params} {refused}");
    }
    assert_eq!(watchers(&daemon), 0);
}

/// Events are told only of what is on the disk, so a server that is killed has told nothing that is
/// not there afterwards. What was done and not told is behind a gap, which is told.
#[test]
fn a_watch_resumes_behind_a_kill_or_is_told_that_it_has_missed_something() {
    let data = tempfile::tempdir().unwrap();
    let store = format!("directory = \"{}/data\"", data.path().display());
    let run = || configured(Daemon::build(BINARY), &["json-rpc"], &store, "").start();
    let lines = Framing::Lines;
    let (mut next, mut resumed, mut gaps) = (1_u64, 0, 0);
    for round in 0..12 {
        let daemon = run();
        let client = connect(&daemon);
        let revision = last_revision(&client, lines);
        assert!(next <= revision + 1, "told of what is not there");
        let params = format!("[null,{next}]");
        let made = call(&client, lines, "watch.subscribe", &params);
        if next == revision + 1 {
            assert_eq!(made["result"]["next"], next, "{made}");
            resumed += 1;
        } else {
            assert_eq!(made["error"]["code"], -32_007, "{made}");
            assert_eq!(made["error"]["data"]["resume"], revision + 1, "{made}");
            gaps += 1;
            next = revision + 1;
            call(&client, lines, "watch.subscribe", "[]");
        }
        let (writer, many) = (connect(&daemon), 20);
        for turn in 0..many {
            let set = json_call("set", &format!(r#"["{round} {turn}",1]"#));
            send(&writer, lines, &set);
        }
        // Every other time all of it has been heard before the end.
        while next <= revision + if round % 2 == 0 { many } else { 1 } {
            let told = notification(&client, lines);
            for event in told["params"]["events"].as_array().unwrap() {
                assert_eq!(event["revision"], next, "repeated or missed");
                next += 1;
            }
        }
        if round % 2 == 1 {
            // Done for certain, and not listened to.
            for _ in 0..many {
                receive(&writer, lines).unwrap();
            }
            call(&writer, lines, "set", r#"["unheard",1]"#);
        }
        daemon.kill();
    }
    assert_eq!((resumed, gaps), (7, 5));
}

/// What the server says unasked.
#[track_caller]
fn notification(client: &Client, framing: Framing) -> Value {
    serde_json::from_str(&receive(client, framing).unwrap()).unwrap()
}

#[track_caller]
fn last_revision(client: &Client, framing: Framing) -> u64 {
    call(client, framing, "revision", "[]")["result"]
        .as_u64()
        .unwrap()
}

/// How many watches there are.
#[track_caller]
fn watchers(daemon: &Daemon) -> u64 {
    daemon.status()["store"]["watchers"].as_u64().unwrap()
}
