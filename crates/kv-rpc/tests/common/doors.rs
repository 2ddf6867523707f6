//! What the tests of the doors share: a daemon with its listeners, and HTTP by hand.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::fmt::Write as _;
use std::thread;

use portyard_testkit::{Client, Daemon, DaemonBuilder, eventually};

/// An HTTP connection that stays open.
pub struct Http(pub Client);

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Http {
    #[track_caller]
    pub fn connect(daemon: &Daemon, service: &str) -> Self {
        Self(Client::connect(&daemon.endpoint(service)))
    }

    /// Posts a body and reads the answer.
    #[track_caller]
    pub fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        self.0.send(post(body));
        self.answer()
    }

    /// Reads an answer.
    #[track_caller]
    pub fn answer(&self) -> Answer {
        answer(&self.0)
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads an answer over HTTP.
#[track_caller]
pub fn answer(client: &Client) -> Answer {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &client.receive_line();
    }
    let field = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let length = field("Content-Length").map_or(0, |length| length.parse().unwrap());
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = client.receive(length);
    Answer { status, head, body }
}

/// A request with this body.
pub fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with("", body)
}

/// A request with this body and further header lines.
pub fn post_with(more: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nHost: kv\r\n{more}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// An XML-RPC call whose parameters are given as values in XML.
pub fn xml_call(method: &str, params: &[&str]) -> String {
    let mut call = format!("<methodCall><methodName>{method}</methodName><params>");
    for param in params {
        let _ = write!(call, "<param><value>{param}</value></param>");
    }
    call + "</params></methodCall>"
}

/// A JSON-RPC call with the id 1.
pub fn json_call(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)
}

/// The revision of the store, which counts changes, by a connection of its own.
#[track_caller]
pub fn revision(daemon: &Daemon) -> u64 {
    daemon.status()["store"]["revision"].as_u64().unwrap()
}

/// How many inputs of that service were counted as bad.
#[track_caller]
pub fn bad_inputs(daemon: &Daemon, service: &str) -> u64 {
    daemon.count(&format!(
        "portyard_bad_input_total{{listener=\"{service}\",service=\"{service}\"}}"
    ))
}

/// How many connections of that service were accepted.
#[track_caller]
pub fn accepted(daemon: &Daemon, service: &str) -> u64 {
    daemon.count(&format!(
        "portyard_connections_accepted_total{{listener=\"{service}\",service=\"{service}\"}}"
    ))
}

/// Starts with these services, each with the same further lines, and a store in memory with its
/// own.
#[track_caller]
pub fn start(services: &[&str], store: &str, more: &str) -> Daemon {
    let builder = Daemon::build(BINARY);
    configured(
        builder,
        services,
        &format!("engine = \"memory\"\n{store}"),
        more,
    )
    .start()
}

/// The same, of a builder, with all of the `[store]` table.
pub fn configured(
    builder: DaemonBuilder,
    services: &[&str],
    store: &str,
    more: &str,
) -> DaemonBuilder {
    let mut config = format!("[admin]\nlisten = \"tcp://127.0.0.1:0\"\n[store]\n{store}\n");
    for service in services {
        let _ = write!(
            config,
            "[[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n{more}\n"
        );
    }
    builder.config(&config)
}

/// A client makes the same change over and over while the daemon drains; each change that was done
/// must have been acknowledged, and nobody may have to be cut.
#[track_caller]
pub fn assert_drains(service: &str, request: &[u8], reply: &[u8]) {
    let data = tempfile::tempdir().unwrap();
    let store = format!("directory = \"{}/data\"", data.path().display());
    let start = || configured(Daemon::build(BINARY), &[service], &store, "").start();
    let daemon = start();
    let client = Client::connect(&daemon.endpoint(service));
    let acknowledged = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut acknowledged = 0;
            while client.try_send(request)
                && let Some(said) = client.try_receive(reply.len())
            {
                assert_eq!(said, reply);
                acknowledged += 1;
            }
            acknowledged
        });
        eventually("it is at work", || revision(&daemon) > 20);
        let ended = daemon.terminate();
        assert_eq!(ended.code, Some(0));
        assert!(!ended.stderr.contains("cutting"), "{}", ended.stderr);
        client.join().unwrap()
    });
    assert_eq!(revision(&start()), acknowledged);
}

pub const BINARY: &str = env!("CARGO_BIN_EXE_kv-rpc");
