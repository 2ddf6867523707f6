//! Routes to the keys of a kv-rpc.

mod common;

use common::{ask, get, neighbour, start};
use portyard_testkit::{Client, Daemon};

/// A client of an event stream.
struct Watcher(Client);

impl Watcher {
    fn of(daemon: &Daemon, path: &str, fields: &str) -> Self {
        let client = Client::connect(&daemon.endpoint("http"));
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n{fields}\r\n"
        ));
        Self(client)
    }

    /// The next event: its name, its id and its data.
    fn next(&self) -> (String, String, String) {
        let mut event = <[String; 3]>::default();
        loop {
            let line = self.0.receive_line();
            let line = line.trim_end();
            let names = ["event: ", "id: ", "data: "];
            for (name, part) in names.iter().zip(&mut event) {
                if let Some(text) = line.strip_prefix(name) {
                    text.clone_into(part);
                }
            }
            if line.is_empty() && !event[0].is_empty() {
                let [name, id, data] = event;
                return (name, id, data);
            }
        }
    }

    fn tells(&self, name: &str, data: &str) -> String {
        let (told, id, with) = self.next();
        assert_eq!((told.as_str(), with.as_str()), (name, data));
        id
    }
}

/// A kv-rpc with its store in memory.
fn store() -> Daemon {
    let text = "[store]\nengine = \"memory\"\n[[listener]]\nservice = \"json-rpc\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    neighbour("kv-rpc", text)
}

/// The routes of a store, as most tests have them.
fn keys_of(store: &Daemon) -> String {
    let server = store.endpoint("json-rpc");
    format!(
        "[[route]]\npath = \"/kv\"\nkv = {{ server = \"{server}\", prefix = \"u/\" }}\n\
         [[route]]\npath = \"/kv/{{key..}}\"\nkv = {{ server = \"{server}\", key = \"u/{{{{path.key}}}}\", write = true }}\n"
    )
}

#[test]
fn keys_are_read_written_listed_and_watched() {
    let store = store();
    let server = store.endpoint("json-rpc");
    let daemon = start(
        "",
        &format!(
            "[[route]]\npath = \"/kv\"\nkv = {{ server = \"{server}\", prefix = \"u/\" }}\n\
             [[route]]\npath = \"/kv/{{key..}}\"\nkv = {{ server = \"{server}\", key = \"u/{{{{path.key}}}}\", write = true }}\n\
             [[route]]\npath = \"/size\"\nmethods = [\"GET\"]\nrpc = {{ server = \"{server}\", method = \"size\" }}\n\
             [[route]]\npath = \"/add/{{a}}\"\nrpc = {{ server = \"{server}\", method = \"echo\", parameters = [{{ a = \"{{{{path.a}}}}\", b = \"{{{{body}}}}\", c = 1 }}] }}\n"
        ),
    );
    assert_eq!(get(&daemon, "/kv/a").status, 404);
    let put = |fields: &str, body: &str| ask(&daemon, "PUT", "/kv/a", fields, body);
    let made = put("Content-Type: text/plain\r\nIf-None-Match: *\r\n", "one");
    assert_eq!(made.status, 201, "{}", made.text());
    let etag = made.field("etag").unwrap().to_owned();
    let told = get(&daemon, "/kv/a");
    assert_eq!(
        (told.text().as_str(), told.field("etag")),
        ("one", Some(etag.as_str()))
    );
    assert_eq!(
        ask(
            &daemon,
            "GET",
            "/kv/a",
            &format!("If-None-Match: {etag}\r\n"),
            ""
        )
        .status,
        304
    );
    assert_eq!(put("If-None-Match: *\r\n", "two").status, 412);
    assert_eq!(put("If-Match: \"0-0\"\r\n", "two").status, 412);
    assert_eq!(
        put(
            &format!("Content-Type: application/json\r\nIf-Match: {etag}\r\n"),
            "{\"n\":2}"
        )
        .status,
        204
    );
    assert_eq!(put(&format!("If-Match: {etag}\r\n"), "three").status, 412);
    let json = get(&daemon, "/kv/a");
    assert_eq!(
        (json.text().as_str(), json.field("content-type")),
        ("{\"n\":2}", Some("application/json"))
    );
    assert_eq!(put("Content-Type: application/json\r\n", "{").status, 400);
    for n in 0..3 {
        let path = format!("/kv/n{n}");
        assert_eq!(
            ask(&daemon, "PUT", &path, "Content-Type: text/plain\r\n", "x").status,
            201
        );
    }
    let page = get(&daemon, "/kv?limit=2");
    assert!(page.text().contains("u/a"), "{}", page.text());
    let link = page.field("link").unwrap();
    let next = link.split(['<', '>']).nth(1).unwrap();
    let rest = get(&daemon, &format!("/kv{next}"));
    assert!(
        rest.text().contains("u/n2") && rest.field("link").is_none(),
        "{}",
        rest.text()
    );
    assert_eq!(get(&daemon, "/size").text(), "4\n");
    let echoed = ask(&daemon, "POST", "/add/x", "", "[1]");
    assert_eq!(echoed.text(), "{\"a\":\"x\",\"b\":[1],\"c\":1}\n");

    assert_eq!(
        ask(&daemon, "DELETE", "/kv/a", "If-Match: \"0-0\"\r\n", "").status,
        412
    );
    let etag = json.field("etag").unwrap();
    let matching = format!("If-Match: {etag}\r\n");
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", &matching, "").status, 204);
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", "", "").status, 404);
    assert_eq!(ask(&daemon, "PUT", "/kv", "", "x").status, 405);
}

#[test]
fn a_watched_key_tells_every_value_and_resumes_where_its_client_was() {
    let store = store();
    let daemon = start("", &keys_of(&store));
    let put = |path: &str, body: &str| {
        let told = ask(&daemon, "PUT", path, "Content-Type: text/plain\r\n", body);
        assert!(told.status < 300, "{}", told.text());
    };
    let watcher = Watcher::of(&daemon, "/kv/a", "");
    watcher.tells("gone", "null");
    // Each change is told, however fast they follow each other, and none of another key.
    for n in 0..50 {
        put("/kv/ab", "other");
        put("/kv/a", &format!("v{n}"));
    }
    let ids: Vec<String> = (0..50)
        .map(|n| watcher.tells("value", &format!("\"v{n}\"")))
        .collect();
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", "", "").status, 204);
    watcher.tells("gone", "null");
    drop(watcher);
    let seen = format!("Last-Event-ID: {}\r\n", ids[47]);
    let again = Watcher::of(&daemon, "/kv/a", &seen);
    again.tells("value", "\"v48\"");
    again.tells("value", "\"v49\"");
    again.tells("gone", "null");
    // What was seen of a store that knew more is of no use.
    let elsewhere = Watcher::of(&daemon, "/kv/a", "Last-Event-ID: 99999\r\n");
    elsewhere.tells("gone", "null");
    // It ends when the store does.
    store.signal(nix::sys::signal::Signal::SIGTERM);
    elsewhere.0.receive_all();
}

#[test]
fn a_watched_list_tells_what_is_there_and_then_what_happens() {
    let store = store();
    let daemon = start("", &keys_of(&store));
    let put = |path: &str, body: &str| {
        ask(&daemon, "PUT", path, "Content-Type: text/plain\r\n", body);
    };
    for n in 0..3 {
        put(&format!("/kv/n{n}"), "x");
    }
    let watcher = Watcher::of(&daemon, "/kv?prefix=n", "");
    for n in 0..3 {
        let entry = format!("{{\"key\":\"u/n{n}\",\"value\":\"x\"}}");
        watcher.tells("value", &entry);
    }
    let id = watcher.tells("listed", "null");
    put("/kv/m", "y");
    put("/kv/n1", "z");
    assert_eq!(ask(&daemon, "DELETE", "/kv/n2", "", "").status, 204);
    let change = "{\"key\":\"u/n1\",\"value\":\"z\"}";
    watcher.tells("value", change);
    watcher.tells("gone", "{\"key\":\"u/n2\"}");
    let again = Watcher::of(&daemon, "/kv?prefix=n", &format!("Last-Event-ID: {id}\r\n"));
    again.tells("value", change);
    again.tells("gone", "{\"key\":\"u/n2\"}");
}

#[test]
fn each_form_of_a_value_has_a_tag_of_its_own_and_either_knows_the_value() {
    let store = store();
    let daemon = start("", &keys_of(&store));
    let put = |fields: &str| {
        let fields = format!("Content-Type: text/plain\r\n{fields}");
        ask(
            &daemon,
            "PUT",
            "/kv/a",
            &fields,
            "\u{e4}".repeat(300).as_str(),
        )
    };
    let tag = |answer: &common::Answer| answer.field("etag").unwrap_or_default().to_owned();
    let form = |accept: &str, fields: &str| {
        let fields = format!("Accept: {accept}\r\n{fields}");
        ask(&daemon, "GET", "/kv/a", &fields, "")
    };
    let (text, json) = ("text/plain", "application/json");
    let made = tag(&put(""));
    let plain = form(text, "");
    assert_eq!(tag(&plain), made);
    let quoted = tag(&form(json, ""));
    assert_ne!(quoted, made);
    // A range of the one is no part of the other.
    let part = |tag: &str| {
        let fields = format!("Range: bytes=0-3\r\nIf-Range: {tag}\r\n");
        form(json, &fields).status
    };
    assert_eq!((part(&made), part(&quoted)), (200, 206));
    for (accept, own, other) in [(text, &made, &quoted), (json, &quoted, &made)] {
        let known = |tag: &str| form(accept, &format!("If-None-Match: {tag}\r\n")).status;
        assert_eq!((known(own), known(other)), (304, 200), "{accept}");
    }
    let packed = tag(&form(json, "Accept-Encoding: gzip\r\n"));
    assert!(packed.ends_with("+gzip\""), "{packed}");
    // Whoever has any form knows what it replaces, and that it is there.
    let seen: [fn(&str) -> String; 2] =
        [str::to_owned, |tag| tag.replace("+json\"", "+json+gzip\"")];
    for seen in seen {
        let json = seen(&tag(&form(json, "")));
        assert_eq!(put(&format!("If-None-Match: {json}\r\n")).status, 412);
        assert_eq!(put(&format!("If-Match: {json}\r\n")).status, 204);
        assert_eq!(put(&format!("If-Match: {json}\r\n")).status, 412);
    }
    let old = tag(&form(text, ""));
    assert_eq!(put(&format!("If-Match: {old}\r\n")).status, 204);
    // What is put as JSON is known by the tag of its JSON.
    let fields = "Content-Type: application/json\r\n";
    let told = tag(&ask(&daemon, "PUT", "/kv/a", fields, "\"x\""));
    assert_eq!(tag(&form(json, "")), told);
    let matching = format!("If-Match: {told}\r\n");
    assert_eq!(ask(&daemon, "DELETE", "/kv/a", &matching, "").status, 204);
}

#[test]
fn no_two_paths_are_one_key() {
    let store = store();
    let daemon = start("", &keys_of(&store));
    for path in ["/kv/%ff", "/kv/a%C3", "/kv/a?x=%ff"] {
        let told = ask(&daemon, "PUT", path, "", "x");
        assert_eq!(told.status, 400, "{path}");
        assert!(told.text().contains("UTF-8"), "{}", told.text());
    }
    assert_eq!(ask(&daemon, "PUT", "/kv/%EF%BF%BD", "", "x").status, 201);
    assert_eq!(get(&daemon, "/kv/%EF%BF%BD").text(), "x");
}
