//! Watching keys through the doors: long polls of Python's own clients, and subscriptions on which the
//! server speaks unasked.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "common/doors.rs"]
mod doors;

use std::time::{Duration, Instant};

use doors::{Http, json_call, start};
use portyard_testkit::{Client, Daemon, eventually, pythons};
use serde_json::{Value, json};

/// A line of JSON-RPC and the next line that comes.
#[track_caller]
fn ask(client: &Client, method: &str, params: &str) -> Value {
    client.send(json_call(method, params) + "\n");
    line(client)
}

#[track_caller]
fn line(client: &Client) -> Value {
    serde_json::from_str(&client.receive_line()).unwrap()
}

fn watchers(daemon: &Daemon) -> u64 {
    daemon.count("portyard_store_watchers")
}

#[test]
fn a_long_poll_of_every_python_ends_with_the_first_event() {
    let daemon = start(&["xml-rpc", "json-rpc"], "", "");
    let port = daemon.address("xml-rpc").port().to_string();
    for python in pythons() {
        let script = r"
import sys, threading
try:
    from xmlrpc.client import ServerProxy, Fault
except ImportError:
    from xmlrpclib import ServerProxy, Fault
def proxy():
    return ServerProxy('http://127.0.0.1:' + sys.argv[1], allow_none=True)
s = proxy()
start = s.watch(None, None, 0)
assert start['events'] == [], start
setter = threading.Timer(0.05, lambda: proxy().set('py:k', [1, 'x']))
setter.start()
got = s.watch('py:', start['next'], 20)
setter.join()
event, = got['events']
assert (event['type'], event['key'], event['value']) == ('set', 'py:k', [1, 'x']), event
assert event['revision'] == got['next'] - 1, got
s.delete('py:k')
more = s.watch('py:', got['next'], 20)
assert [e['type'] for e in more['events']] == ['delete'], more
for wrong in ((None, -1), (None, 0), (None, 10**6), (None, 'x'), (None, None, -1), (None, None, 1, 0)):
    try:
        s.watch(*wrong)
    except Fault as fault:
        assert 'Error' in fault.faultString, fault
    else:
        raise SystemExit('not refused: %r' % (wrong,))
print('ok')
";
        assert_eq!(python.run(script, &[&port]).success(), "ok\n");
    }
}

#[test]
fn a_subscriber_is_told_unasked_and_between_its_own_calls() {
    let daemon = start(&["json-rpc"], "", "");
    let client = Client::connect(&daemon.endpoint("json-rpc"));
    let made = ask(&client, "watch.subscribe", r#"["a"]"#);
    assert_eq!(made["result"], json!({"subscription": 1, "next": 1}));
    let other = Client::connect(&daemon.endpoint("json-rpc"));
    ask(&other, "set", r#"["b", 0]"#);
    ask(&other, "set", r#"["a", 1]"#);
    let told = line(&client);
    assert_eq!(told["method"], "watch.events");
    assert_eq!(told.get("id"), None);
    let event = json!({"type": "set", "key": "a", "value": 1, "revision": 2, "ttl": null});
    let params = json!({"subscription": 1, "events": [event], "next": 3});
    assert_eq!(told["params"], params);
    // Its own call is answered, and what it changes is told to it as to anybody.
    client.send(json_call("delete", r#"["a"]"#) + "\n");
    let (first, second) = (line(&client), line(&client));
    assert!(first.get("result").is_some(), "{first}");
    assert_eq!(second["params"]["events"][0]["type"], "delete");
    assert_eq!(ask(&client, "watch.unsubscribe", "[1]")["result"], true);
    assert_eq!(ask(&client, "watch.unsubscribe", "[1]")["result"], false);
    ask(&other, "set", r#"["a", 1]"#);
    assert!(client.is_silent_for(Duration::from_millis(50)));
    eventually("nobody watches", || watchers(&daemon) == 0);
}

#[test]
fn subscriptions_end_with_their_connection_and_have_a_ceiling() {
    let daemon = start(&["json-rpc"], "", "options = { max_subscriptions = 3 }");
    let client = Client::connect(&daemon.endpoint("json-rpc"));
    for _ in 0..3 {
        let made = ask(&client, "watch.subscribe", "[]");
        assert!(made.get("result").is_some(), "{made}");
    }
    for _ in 0..1000 {
        let refused = ask(&client, "watch.subscribe", "[]");
        let why = refused["error"]["message"].as_str().unwrap();
        assert!(why.contains("max_subscriptions"), "{why}");
    }
    assert_eq!(watchers(&daemon), 3);
    drop(client);
    eventually("nobody watches", || watchers(&daemon) == 0);
}

#[test]
fn over_http_a_subscription_is_refused_with_the_way_that_works() {
    let daemon = start(&["json-rpc"], "", "");
    let http = Http::connect(&daemon, "json-rpc");
    for call in [
        json_call("watch.subscribe", "[]"),
        format!("[{}]", json_call("watch.subscribe", "[]")),
    ] {
        let text = http.post(call).text();
        assert!(
            text.contains("-32601") && text.contains(r#"call \"watch\""#),
            "{text}"
        );
    }
    let listed = http.post(json_call("system.listMethods", "[]")).text();
    assert!(
        listed.contains("\"watch\"") && !listed.contains("watch.subscribe"),
        "{listed}"
    );
    let client = Client::connect(&daemon.endpoint("json-rpc"));
    let listed = ask(&client, "system.listMethods", "[]").to_string();
    assert!(listed.contains("watch.subscribe"), "{listed}");
}

#[test]
fn a_subscriber_who_does_not_read_is_told_where_it_lost_the_thread_and_costs_nothing() {
    let daemon = start(&["json-rpc"], "history_events = 50\n", "");
    let slow = Client::connect_narrow(daemon.address("json-rpc"), 4096);
    slow.send(json_call("watch.subscribe", "[]") + "\n");
    assert!(line(&slow).get("result").is_some());
    let writer = Client::connect(&daemon.endpoint("json-rpc"));
    let value = "x".repeat(20_000);
    let before = portyard_testkit::anonymous_bytes(daemon.pid());
    for number in 0..2000 {
        let set = ask(
            &writer,
            "set",
            &format!(r#"["k{}", "{value}"]"#, number % 10),
        );
        assert!(set.get("result").is_some());
    }
    let grown = portyard_testkit::anonymous_bytes(daemon.pid()).saturating_sub(before);
    // 40 MB have passed by.
    assert!(grown < 16 << 20, "{grown} bytes for one that does not read");
    let end = loop {
        let told = line(&slow);
        if told["method"] == "watch.end" {
            break told;
        }
        assert_eq!(told["method"], "watch.events");
    };
    assert_eq!(end["params"]["reason"], "lagged");
    let next = end["params"]["next"].as_u64().unwrap();
    assert!((2..=2001).contains(&next), "{next}");
    // From there it can go on.
    let again = ask(
        &slow,
        "watch.subscribe",
        &format!("[null, {}]", next.max(1952)),
    );
    assert!(again.get("result").is_some(), "{again}");
}

#[test]
fn a_drain_lets_everybody_go_who_waits() {
    let daemon = start(&["json-rpc", "xml-rpc"], "", "");
    let poll = Http::connect(&daemon, "json-rpc");
    poll.0
        .send(doors::post(json_call("watch", "[null, null, 60]")));
    let subscriber = Client::connect(&daemon.endpoint("json-rpc"));
    ask(&subscriber, "watch.subscribe", "[]");
    eventually("both watch", || watchers(&daemon) == 2);
    let begin = Instant::now();
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let answer = poll.answer();
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains(r#""events":[]"#),
        "{}",
        answer.text()
    );
    let end = line(&subscriber);
    assert_eq!(end["params"]["reason"], "draining");
    assert_eq!(daemon.wait().code, Some(0));
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "it waited for its watchers"
    );
}

#[test]
fn waits_are_capped_whatever_is_asked_for() {
    let daemon = start(&["json-rpc"], "", "");
    let client = Client::connect(&daemon.endpoint("json-rpc"));
    for (params, wrong) in [
        ("[null, null, -1]", "timeout"),
        ("[null, null, \"x\"]", "timeout"),
        ("[null, -5, 0]", "from_revision"),
        ("[null, 1.5, 0]", "from_revision"),
        ("[5, null, 0]", "prefix"),
    ] {
        let refused = ask(&client, "watch", params);
        let why = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(why.contains(wrong), "{params}: {refused}");
    }
    let nothing = ask(&client, "watch", "[null, null, 0]");
    assert_eq!(nothing["result"], json!({"events": [], "next": 1}));
}
