//! Service yard: what is told of real daemons, who may have them do something, and who may not ask.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::time::Duration;

use common::{ask_yard as ask, neighbour, with_key, yard};
use portyard_testkit::{Client, Daemon, eventually, python};
use serde_json::Value;

const ECHO: &str = "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
    limits = { per_source = 2, at_limit = \"refuse\" }\n";
const TIME: &str = "[[listener]]\nservice = \"daytime\"\nlisten = [\"udp://127.0.0.1:0\"]\n";
const STORE: &str = "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\n\
    listen = [\"tcp://127.0.0.1:0\"]\n";
const STEERED: &str = "yard = { actions = true, key = { scheme = \"bearer\", file = \"KEYS\" } }";

fn told(daemon: &Daemon, name: &str) -> Value {
    let answer = ask(daemon, "GET", &format!("/api/v1/yard/{name}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[track_caller]
fn wait_until(daemon: &Daemon, name: &str, state: &str) {
    eventually(&format!("{name} is {state}"), || {
        told(daemon, name)["state"] == state
    });
}

#[test]
fn daemons_are_told_of_with_their_counts_and_the_limits_that_were_met() {
    let (echo, time) = (neighbour("echo-tcp", ECHO), neighbour("time-udp", TIME));
    let daemon = yard("", &[("echo", &echo), ("time", &time)]);
    wait_until(&daemon, "echo", "ready");
    wait_until(&daemon, "time", "ready");
    let clients = [(); 2].map(|()| Client::connect(&echo.endpoint("echo")));
    for client in &clients {
        client.send("12345\n");
        assert_eq!(client.receive_line(), "12345\n");
    }
    // One more than may be there at a time.
    let refused = Client::connect(&echo.endpoint("echo"));
    refused.end();
    eventually("the counts arrive", || {
        let told = told(&daemon, "echo");
        let limit = |limit: &Value| limit["reason"] == "per_source" && limit["count"] == 1;
        told["totals"]["received_bytes"] == 12
            && told["totals"]["refused"] == 1
            && told["limits"].as_array().unwrap().iter().any(limit)
    });
    let told = told(&daemon, "echo");
    assert_eq!(told["program"], "echo-tcp");
    assert_eq!(told["pid"], echo.pid());
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["listeners"][0]["endpoint"], echo.endpoint("echo"));
    let history = told["history"]["work"].as_array().unwrap();
    assert!(
        history.iter().any(|rate| rate.as_f64().unwrap() > 0.0),
        "{history:?}"
    );
    let none = ask(&daemon, "GET", "/api/v1/yard/nobody", "");
    assert_eq!(none.status, 404);
    assert!(none.text().contains("/api/v1/yard"), "{}", none.text());
}

#[test]
fn one_that_is_killed_is_unreachable_and_the_log_says_so_once() {
    let echo = neighbour("echo-tcp", ECHO);
    let daemon = yard("", &[("echo", &echo)]);
    wait_until(&daemon, "echo", "ready");
    echo.kill();
    wait_until(&daemon, "echo", "unreachable");
    let gone = told(&daemon, "echo");
    assert!(
        gone["error"].as_str().unwrap().contains("is it running?"),
        "{gone}"
    );
    assert!(gone["seen"].is_u64());
    daemon.wait_for_log("a daemon of the yard is not well");
    let all: Value = serde_json::from_slice(&ask(&daemon, "GET", "/api/v1/yard", "").body).unwrap();
    assert_eq!(all["changes"][0]["from"], "ready");
    assert_eq!(all["changes"][0]["to"], "unreachable");
    // However often nobody answers, the log has one line.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(daemon.log().matches("is not well").count(), 1);
}

#[test]
fn events_begin_with_all_and_go_on_with_what_changes() {
    let echo = neighbour("echo-tcp", ECHO);
    let daemon = yard("", &[("echo", &echo)]);
    wait_until(&daemon, "echo", "ready");
    let client = Client::connect(&daemon.endpoint("yard"));
    client.send("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut names = Vec::new();
    let mut killed = false;
    while !names.contains(&"change".to_owned()) {
        let line = client.receive_line();
        if let Some(name) = line.strip_prefix("event: ") {
            names.push(name.trim().to_owned());
        }
        if names.contains(&"daemon".into()) && !killed {
            killed = true;
            echo.kill();
        }
    }
    assert_eq!(names[0], "yard");
    assert!(client.receive_line().starts_with("id: "));
    let change: Value =
        serde_json::from_str(client.receive_line().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(change["to"], "unreachable");
    // A stream does not keep a drain waiting.
    assert_eq!(daemon.terminate().code, Some(0));
    assert!(
        !daemon.log().contains("cutting the rest"),
        "{}",
        daemon.log()
    );
}

#[test]
fn the_metrics_of_all_are_one_page_with_each_family_once() {
    let (echo, time) = (neighbour("echo-tcp", ECHO), neighbour("time-udp", TIME));
    let daemon = yard("", &[("echo", &echo), ("time", &time)]);
    let page = ask(&daemon, "GET", "/metrics", "");
    assert!(
        page.field("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = page.text();
    for line in [
        "portyard_yard_up{daemon=\"echo\"} 1",
        "portyard_build_info{daemon=\"time\",exported_daemon=\"time-udp\",version=",
        "portyard_connections_accepted_total{daemon=\"echo\",listener=\"echo\",service=\"echo\"} 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    let families: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE "))
        .collect();
    let mut once = families.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), families.len());
    // What a browser shows, and programs read that know nothing newer.
    for accept in ["text/html,application/xml;q=0.9,*/*;q=0.8", "text/plain"] {
        let page = ask(&daemon, "GET", "/metrics", &format!("Accept: {accept}\r\n"));
        assert_eq!(
            page.field("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let text = page.text();
        assert!(
            text.contains("# TYPE portyard_connections_accepted_total counter\n"),
            "{text}"
        );
        assert!(
            !text.contains("# EOF") && !text.contains(" info\n"),
            "{text}"
        );
    }
    assert_eq!(
        ask(&daemon, "GET", "/metrics", "Accept: image/png\r\n").status,
        406
    );
    echo.kill();
    let text = ask(&daemon, "GET", "/metrics", "").text();
    assert!(
        text.contains("portyard_yard_up{daemon=\"echo\"} 0"),
        "{text}"
    );
    assert!(
        text.contains("portyard_yard_up{daemon=\"time\"} 1"),
        "{text}"
    );
}

#[test]
fn actions_need_a_key_and_are_told_of_in_the_log() {
    let (echo, time) = (neighbour("echo-tcp", ECHO), neighbour("time-udp", TIME));
    let daemon = yard(STEERED, &[("echo", &echo), ("time", &time)]);
    let post = |path: &str, fields: &str| ask(&daemon, "POST", path, fields);
    let reload = "/api/v1/yard/echo/reload";
    for fields in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Basic eDp5\r\n",
    ] {
        let refused = post(reload, fields);
        assert_eq!(refused.status, 401, "{}", refused.text());
        assert!(
            refused
                .field("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }
    assert_eq!(ask(&daemon, "GET", reload, &with_key()).status, 405);
    let done = post(reload, &with_key());
    assert_eq!(done.status, 200, "{}", done.text());
    echo.wait_for_log("configuration reloaded");
    daemon.wait_for_log("an action was taken");
    assert!(daemon.log().contains("by=\"key ada\""), "{}", daemon.log());
    // What the daemon says against it is passed on.
    echo.rewrite_config("nonsense = 1");
    let refused = post(reload, &with_key());
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("nonsense"), "{}", refused.text());
    assert_eq!(post("/api/v1/yard/nobody/drain", &with_key()).status, 404);
    assert_eq!(post("/api/v1/yard/time/drain", &with_key()).status, 200);
    assert_eq!(time.wait().code, Some(0));
}

#[test]
fn workers_of_a_broker_are_drained_and_resumed_by_name() {
    let (broker, worker) = common::broker_with_worker();
    let echo = neighbour("echo-tcp", ECHO);
    let daemon = yard(STEERED, &[("broker", &broker), ("echo", &echo)]);
    let pool = || {
        let told = told(&daemon, "broker");
        let pools = told["pools"].as_array().unwrap();
        let web = pools.iter().find(|pool| pool["name"] == "web");
        web.cloned().unwrap_or_default()
    };
    let state = || pool()["workers"][0]["state"].clone();
    eventually("the worker is there", || state() == "serving");
    let it = pool()["workers"][0].clone();
    assert_eq!(it["pid"], worker.pid());
    let name = it["name"].as_str().unwrap().to_owned();
    let events = Client::connect(&daemon.endpoint("yard"));
    events.send("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let path = |name: &str, action: &str| format!("/api/v1/yard/broker/workers/{name}/{action}");
    let post = |path: &str| ask(&daemon, "POST", path, &with_key());
    assert_eq!(ask(&daemon, "POST", &path(&name, "drain"), "").status, 401);
    let done = post(&path(&name, "drain"));
    assert_eq!(done.status, 200, "{}", done.text());
    let done: Value = serde_json::from_slice(&done.body).unwrap();
    assert_eq!(
        (&done["said"], &done["worker"]),
        (&"draining: 1".into(), &name.as_str().into())
    );
    eventually("it drains", || state() == "draining");
    // Nobody gets it now.
    let waiting = Client::connect(&broker.endpoint("hand-off"));
    waiting.send("hello");
    eventually("the client waits", || pool()["waiting"] == 1);
    // The pool's name stands for all.
    assert_eq!(post(&path("web", "resume")).status, 200);
    assert_eq!(waiting.receive(5), b"hello");
    eventually("it serves", || state() == "serving");
    let nobody = post(&path("nobody%20%2F%22", "drain"));
    assert_eq!(nobody.status, 409, "{}", nobody.text());
    assert!(nobody.text().contains("portyard broker workers"));
    // A daemon without workers says that it has none.
    let none = post("/api/v1/yard/echo/workers/x/drain");
    assert_eq!(none.status, 409, "{}", none.text());
    loop {
        let line = events.receive_line();
        if line.starts_with("event: action") {
            let data = events.receive_line();
            let told: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(told["by"], "key ada");
            assert_eq!(told["done"]["action"], "drain");
            break;
        }
    }
}

#[test]
fn actions_are_off_unless_the_configuration_says_otherwise() {
    let echo = neighbour("echo-tcp", ECHO);
    let daemon = yard("", &[("echo", &echo)]);
    let refused = ask(&daemon, "POST", "/api/v1/yard/echo/drain", "");
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("actions = true"),
        "{}",
        refused.text()
    );
}

#[test]
fn what_only_looks_like_a_guard_is_refused_at_the_start() {
    for (options, because) in [
        ("yard = { actions = true }", "need yard.key"),
        ("yard = { private = true }", "need yard.key"),
        (
            "yard = { actions = true, allow = [\"127.0.0.0/8\"] }",
            "proves nothing",
        ),
        ("cors = { origins = [\"*\"] }", "leave the table cors out"),
    ] {
        let config = format!(
            "[[listener]]\nservice = \"yard\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [listener.options]\n{options}\n"
        );
        let said = common::builder().config(&config).run();
        assert_eq!(said.code, Some(78), "{options}");
        assert!(said.stderr.contains(because), "{options}: {}", said.stderr);
    }
}

#[test]
fn pages_from_elsewhere_are_refused_under_any_name() {
    let echo = neighbour("echo-tcp", ECHO);
    let daemon = yard(STEERED, &[("echo", &echo)]);
    // A stranger's DNS can let a name of his point here.
    for host in [
        "evil.example",
        "localhost.evil.example:80",
        "127.0.0.1.nip.io",
    ] {
        let refused = ask(&daemon, "GET", "/api/v1/yard", &format!("Host: {host}\r\n"));
        assert_eq!(refused.status, 421, "{host}");
    }
    for host in ["localhost:7", "127.0.0.1", "[::1]:18082"] {
        let answer = ask(&daemon, "GET", "/api/v1/yard", &format!("Host: {host}\r\n"));
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(answer.field("access-control-allow-origin"), None);
        assert_eq!(
            answer.field("cross-origin-resource-policy"),
            Some("same-origin")
        );
    }
    let path = "/api/v1/yard/echo/reload";
    for from in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let refused = ask(&daemon, "POST", path, &format!("{}{from}", with_key()));
        assert_eq!(refused.status, 403, "{from}");
    }
    let own = format!(
        "{}Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n",
        with_key()
    );
    assert_eq!(ask(&daemon, "POST", path, &own).status, 200);
}

#[test]
fn a_private_listener_tells_nothing_without_the_key() {
    let echo = neighbour("echo-tcp", ECHO);
    let options = "yard = { private = true, key = { scheme = \"bearer\", file = \"KEYS\" } }";
    let daemon = yard(options, &[("echo", &echo)]);
    for path in [
        "/api/v1/yard",
        "/api/v1/yard/echo",
        "/api/v1/events",
        "/metrics",
    ] {
        assert_eq!(ask(&daemon, "GET", path, "").status, 401, "{path}");
    }
    assert_eq!(ask(&daemon, "GET", "/api/v1/yard", &with_key()).status, 200);
    // It has nothing of the daemons in it, and asks for the key.
    assert_eq!(ask(&daemon, "GET", "/yard", "").status, 200);
}

#[test]
fn the_keys_of_a_store_are_looked_at_page_by_page() {
    let (store, echo) = (neighbour("kv-rpc", STORE), neighbour("echo-tcp", ECHO));
    let daemon = yard("", &[("store", &store), ("echo", &echo)]);
    let server = Client::connect(&store.endpoint("json-rpc"));
    for (id, (key, value)) in [("a", "\"<b>1\""), ("b", "[1,2]"), ("c", "7")]
        .iter()
        .enumerate()
    {
        server.send(format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"set\",\"params\":[\"{key}\",{value}]}}\n"
        ));
        server.receive_line();
    }
    let get = |path: &str| ask(&daemon, "GET", &format!("/api/v1/yard/store/{path}"), "");
    let page: Value = serde_json::from_slice(&get("keys?limit=2").body).unwrap();
    assert_eq!(page["keys"][0]["name"], "a");
    assert_eq!(page["keys"][1]["begins"], "[1,2]");
    assert_eq!(page["keys"][1]["kind"], "list");
    let cursor = page["cursor"].as_str().unwrap();
    let page: Value = serde_json::from_slice(&get(&format!("keys?cursor={cursor}")).body).unwrap();
    assert_eq!(page["keys"][0]["name"], "c");
    assert_eq!(page["cursor"], Value::Null);
    let value: Value = serde_json::from_slice(&get("value?key=a").body).unwrap();
    assert_eq!(value["value"], "<b>1");
    assert_eq!(get("value?key=none").status, 404);
    assert_eq!(get("value").status, 400);
    assert_eq!(get("keys?limit=0").status, 400);
    assert_eq!(
        ask(&daemon, "GET", "/api/v1/yard/echo/keys", "").status,
        404
    );
}

#[test]
fn a_value_is_changed_by_the_holder_of_the_key_and_only_where_it_is_as_supposed() {
    let (store, echo) = (neighbour("kv-rpc", STORE), neighbour("echo-tcp", ECHO));
    let daemon = yard(STEERED, &[("store", &store), ("echo", &echo)]);
    let events = Client::connect(&daemon.endpoint("yard"));
    events.send("GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let change = |method: &str, query: &str, fields: &str, body: &str| {
        let client = Client::connect(&daemon.endpoint("yard"));
        client.send(format!(
            "{method} /api/v1/yard/store/value{query} HTTP/1.1\r\nHost: localhost\r\n{fields}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        common::read(&client, false)
    };
    let get = || ask(&daemon, "GET", "/api/v1/yard/store/value?key=a%20b", "");
    let key = with_key();
    for fields in ["", "Authorization: Bearer wrong\r\n"] {
        assert_eq!(change("PUT", "?key=a%20b", fields, "7").status, 401);
        assert_eq!(change("DELETE", "?key=a%20b", fields, "").status, 401);
    }
    assert_eq!(get().status, 404);
    let foreign = format!("{key}Origin: http://evil.example\r\n");
    assert_eq!(change("PUT", "?key=a%20b", &foreign, "7").status, 403);
    assert_eq!(change("PUT", "", &key, "7").status, 400);
    assert_eq!(change("PUT", "?key=a%20b", &key, "{").status, 400);
    assert_eq!(
        change("PUT", "?key=a%20b", &key, "{\"on\": [1, null]}").status,
        201
    );
    let told = get();
    let value: Value = serde_json::from_slice(&told.body).unwrap();
    assert_eq!(value["value"], serde_json::json!({ "on": [1, null] }));
    let tag = told.field("etag").unwrap();
    // New only, and nothing that somebody else has changed meanwhile.
    let new = format!("{key}If-None-Match: *\r\n");
    assert_eq!(change("PUT", "?key=a%20b", &new, "8").status, 412);
    let same = format!("{key}If-Match: {tag}\r\n");
    assert_eq!(change("PUT", "?key=a%20b", &same, "8").status, 204);
    assert_eq!(change("PUT", "?key=a%20b", &same, "9").status, 412);
    assert_eq!(change("DELETE", "?key=a%20b", &same, "").status, 412);
    assert_eq!(change("DELETE", "?key=a%20b", &key, "").status, 204);
    assert_eq!(change("DELETE", "?key=a%20b", &key, "").status, 404);
    assert_eq!(get().status, 404);
    let form = format!("{key}Content-Length: 0\r\n");
    assert_eq!(
        ask(&daemon, "PUT", "/api/v1/yard/store/value?key=a", &form).status,
        415
    );
    let path = "/api/v1/yard/echo/value?key=a";
    assert_eq!(ask(&daemon, "DELETE", path, &key).status, 404);
    daemon.wait_for_log("a value was changed");
    assert!(
        !daemon.log().contains("null"),
        "values stay out of it: {}",
        daemon.log()
    );
    loop {
        if events.receive_line().starts_with("event: action") {
            let data = events.receive_line();
            let told: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(told["by"], "key ada");
            assert_eq!(
                (&told["done"]["action"], &told["done"]["said"]),
                (&"set".into(), &"a b".into())
            );
            break;
        }
    }
    // Who may not act may look.
    let daemon = yard("", &[("store", &store)]);
    let refused = ask(&daemon, "DELETE", "/api/v1/yard/store/value?key=x", &key);
    assert_eq!(refused.status, 403, "{}", refused.text());
    let methods = ask(&daemon, "OPTIONS", "/api/v1/yard/store/value?key=x", "");
    assert_eq!(
        methods.field("allow"),
        Some("DELETE, GET, HEAD, OPTIONS, PUT")
    );
}

#[test]
fn a_reload_changes_which_daemons_are_told_of() {
    let (echo, time) = (neighbour("echo-tcp", ECHO), neighbour("time-udp", TIME));
    let daemon = yard("", &[("echo", &echo)]);
    wait_until(&daemon, "echo", "ready");
    let config = std::fs::read_to_string(daemon.config_path()).unwrap();
    let more = format!(
        "{config}[[yard]]\nname = \"time\"\nadmin = \"{}\"\n",
        time.endpoint("admin")
    );
    daemon.rewrite_config(&more);
    daemon.reload();
    wait_until(&daemon, "time", "ready");
    daemon.rewrite_config(&config);
    daemon.reload();
    assert_eq!(ask(&daemon, "GET", "/api/v1/yard/time", "").status, 404);
    assert_eq!(told(&daemon, "echo")["state"], "ready");
}

/// What the document says of schemas holds for what is told: checked by Python, with nothing of ours.
#[test]
fn the_document_is_true_to_what_is_told() {
    let (echo, store) = (neighbour("echo-tcp", ECHO), neighbour("kv-rpc", STORE));
    let daemon = yard(STEERED, &[("echo", &echo), ("store", &store)]);
    wait_until(&daemon, "echo", "ready");
    wait_until(&daemon, "store", "ready");
    let url = format!("http://{}", daemon.address("yard"));
    python(CHECK, &[&url]).success();
}

const CHECK: &str = r"
import json, sys, urllib.request
base = sys.argv[1]
get = lambda path: json.load(urllib.request.urlopen(base + path, timeout=20))
document = get('/openapi.json')
assert document['openapi'] == '3.1.0'
types = {'object': dict, 'array': list, 'string': str, 'boolean': bool, 'null': type(None)}
def fits(value, schema, place):
    if '$ref' in schema:
        node = document
        for step in schema['$ref'].lstrip('#/').split('/'):
            node = node[step]
        return fits(value, node, place)
    for several in ('anyOf', 'oneOf'):
        if several in schema:
            errors = []
            for one in schema[several]:
                try: return fits(value, one, place)
                except AssertionError as error: errors.append(error)
            raise AssertionError(errors)
    if 'const' in schema: assert value == schema['const'], (place, value)
    if 'enum' in schema: assert value in schema['enum'], (place, value)
    kinds = schema.get('type', [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    def is_a(kind):
        if kind in ('integer', 'number'):
            return isinstance(value, int if kind == 'integer' else (int, float)) and not isinstance(value, bool)
        return isinstance(value, types[kind])
    assert not kinds or any(is_a(kind) for kind in kinds), (place, value, kinds)
    if isinstance(value, dict) and 'properties' in schema:
        for name in schema.get('required', []): assert name in value, (place, name)
        for name, inner in value.items():
            assert name in schema['properties'], (place, name, 'is not in the document')
            fits(inner, schema['properties'][name], place + '/' + name)
    if isinstance(value, list) and isinstance(schema.get('items'), dict):
        for inner in value: fits(inner, schema['items'], place + '[]')
def check(path, row):
    schema = document['paths'][row]['get']['responses']['200']['content']['application/json']['schema']
    fits(get(path), schema, row)
check('/api/v1/yard', '/api/v1/yard')
check('/api/v1/yard/echo', '/api/v1/yard/{daemon}')
check('/api/v1/yard/store/keys', '/api/v1/yard/{daemon}/keys')
assert document['paths']['/api/v1/yard/{daemon}/drain']['post']['security'] == [{'key': []}]
for bad in ('/api/v1/yard/nobody', '/api/v1/nothing'):
    try:
        get(bad)
        raise SystemExit('no error')
    except urllib.error.HTTPError as error:
        assert error.headers['content-type'] == 'application/problem+json'
        fits(json.load(error), document['components']['schemas']['Problem'], bad)
";
