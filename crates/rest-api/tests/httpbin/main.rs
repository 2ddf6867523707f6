//! The service `httpbin`: its endpoints in both dialects, its limits, and suites that others wrote.

#![expect(clippy::expect_used, reason = "a test helper fails by panicking")]

mod clients;
mod endpoints;
mod limits;
mod sockets;
mod suites;

#[path = "../common/mod.rs"]
mod common;

use portyard_testkit::{Client, Daemon};

use common::Answer;

/// A daemon with a listener in Python's dialect, which has Go's under `/go`, with further options.
#[track_caller]
fn start(options: &str) -> Daemon {
    let builder = common::builder();
    let admin = builder.dir().join("admin").display().to_string();
    let config = format!(
        "loops = 1\nadmin.listen = \"unix:{admin}\"\n[[listener]]\nservice = \"httpbin\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n[listener.options]\n\
         httpbin.prefixes = {{ \"/go\" = \"go\" }}\n{options}\n"
    );
    let builder = builder.env("HTTPBIN_SEEN", "yes").env("SECRET", "no");
    builder.config(&config).start()
}

/// One request on a connection of its own, with these lines of fields.
#[track_caller]
fn ask(daemon: &Daemon, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    let client = Client::connect(&daemon.endpoint("httpbin"));
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    client.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: a.test\r\n{fields}{length}\r\n{body}"
    ));
    common::read(&client, method == "HEAD")
}

#[track_caller]
fn get(daemon: &Daemon, target: &str) -> Answer {
    ask(daemon, "GET", target, "", "")
}

/// The URL of a path.
fn url(daemon: &Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.address("httpbin"))
}
