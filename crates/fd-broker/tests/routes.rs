//! Routing by the first bytes, which the worker finds as they came; and clients that say nothing.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use common::{Worker, broker, native, pool, python3};
use portyard_testkit::{Client, Daemon, End, eventually, peer};

/// A broker whose listener sends HTTP to the pool `web` and one TLS name to `tls`, and a worker of each
/// pool.
fn routing(more: &str) -> (Daemon, Vec<Worker>) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.keep();
    let more = format!(
        "[[pool]]\nname = \"web\"\n[[pool]]\nname = \"tls\"\n\
         [[listener]]\nservice = \"hand-off\"\nname = \"routed\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [listener.options]\npeek_timeout = \"300ms\"\n\
         [[listener.options.route]]\nfirst_bytes = \"GET \"\npool = \"web\"\n\
         [[listener.options.route]]\nserver_name = [\"*.example.org\"]\npool = \"tls\"\n{more}\n\
         [[listener]]\nservice = \"native\"\nname = \"w\"\nlisten = [\"unix:{0}/web.sock\"]\n\
         options.pool = \"web\"\n\
         [[listener]]\nservice = \"native\"\nname = \"t\"\nlisten = [\"unix:{0}/tls.sock\"]\n\
         options.pool = \"tls\"\n",
        place.display()
    );
    let daemon = broker("", &more);
    let on = |socket: &str| {
        let path = place.join(socket);
        let worker = Worker::python(&python3(), common::NATIVE, &[path.to_str().unwrap()]);
        assert_eq!(worker.line(), "ready");
        worker
    };
    let mut workers = vec![on("web.sock"), on("tls.sock")];
    workers.push(native(&daemon, &[]));
    assert_eq!(workers[2].line(), "ready");
    (daemon, workers)
}

fn taken(daemon: &Daemon, name: &str) -> u64 {
    pool(daemon, name)["taken"].as_u64().unwrap()
}

#[test]
fn first_bytes_choose_the_pool_and_are_still_there() {
    let (daemon, _workers) = routing("");
    let client = Client::connect(&daemon.endpoint("routed"));
    client.send("GE");
    client.send("T / HTTP/1.0\r\n");
    assert_eq!(client.receive(16), b"GET / HTTP/1.0\r\n");
    let other = Client::connect(&daemon.endpoint("routed"));
    other.send("HELLO");
    assert_eq!(other.receive(5), b"HELLO");
    eventually("each pool has its own", || {
        (taken(&daemon, "web"), taken(&daemon, "default")) == (1, 1)
    });
}

#[test]
fn a_tls_name_chooses_the_pool() {
    let (daemon, _workers) = routing("");
    let address = daemon.address("routed").to_string();
    for (name, expected) in [("www.example.org", "tls"), ("example.net", "default")] {
        // The worker echoes the hello, which no client takes for an answer.
        let _ = Command::new(peer("openssl"))
            .args(["s_client", "-connect", &address, "-servername", name])
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        eventually(name, || taken(&daemon, expected) == 1);
    }
    assert_eq!(taken(&daemon, "web"), 0);
}

#[test]
fn who_says_nothing_goes_to_the_listeners_own_pool_in_the_end() {
    let (daemon, _workers) = routing("");
    let silent = Client::connect(&daemon.endpoint("routed"));
    eventually("it has waited", || taken(&daemon, "default") == 1);
    assert!(silent.is_echoed());
}

#[test]
fn not_too_many_may_say_nothing_at_a_time() {
    let (daemon, _workers) = routing("[listener.limits]\nhandshakes = 2\nhandshakes_early = 2\n");
    let silent: Vec<Client> = (0..2)
        .map(|_| Client::connect(&daemon.endpoint("routed")))
        .collect();
    eventually("both are looked at", || {
        daemon
            .count("portyard_connections_accepted_total{listener=\"routed\",service=\"hand-off\"}")
            == 2
    });
    let third = Client::connect(&daemon.endpoint("routed"));
    assert_eq!(third.receive_all().1, End::Reset);
    drop(silent);
}

#[test]
fn a_route_to_a_pool_that_is_not_there_is_refused() {
    let builder = common::builder();
    let directory = builder.dir().to_owned();
    let more = "[[listener]]\nservice = \"hand-off\"\nname = \"r\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
                [[listener.options.route]]\nfirst_bytes = \"x\"\npool = \"nowhere\"\n";
    let text = common::configuration(&directory, "", more);
    let finished = builder.config(&text).arg("--check").run();
    assert_eq!(finished.code, Some(78));
    assert!(
        finished.stderr.contains("no pool \"nowhere\"") && finished.stderr.contains("default"),
        "{}",
        finished.stderr
    );
}
