//! The admin endpoint and the log, for probes, scrapers and people.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, DaemonBuilder, eventually};
use serde_json::Value;

#[test]
fn the_pages_answer_over_tcp_and_over_a_unix_socket() {
    let builder = daemon();
    let path = format!("unix:{}", builder.dir().join("admin.sock").display());
    let name = format!("unix:@{}", builder.dir().display());
    for place in ["tcp://127.0.0.1:0", "tcp://[::1]:0", &path, &name] {
        let daemon = daemon().config(&config(place)).start();
        assert_eq!(
            daemon.admin_get("/healthz"),
            (200, "ok\n".into()),
            "{place}"
        );
        assert_eq!(daemon.admin_get("/readyz"), (200, "ready\n".into()));
        assert_eq!(daemon.admin_get("/").0, 200);
        assert_eq!(daemon.admin_get("/none").0, 404);
        let status = daemon.status();
        assert_eq!(status["daemon"], "echo-tcp");
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["pid"], daemon.pid());
        assert_eq!(status["state"], "ready");
        assert!(status["uptime_seconds"].is_u64());
        let listener = &status["listeners"][0];
        assert_eq!(listener["name"], "echo");
        assert_eq!(listener["endpoint"], daemon.endpoint("echo"));
    }
}

#[test]
fn the_metrics_page_is_openmetrics_and_counts_what_happened() {
    let daemon = daemon().config(&config("tcp://127.0.0.1:0")).start();
    for _ in 0..3 {
        let client = Client::connect(&daemon.endpoint("echo"));
        assert_eq!(client.exchange("12345"), b"12345");
    }
    let of = |name: &str| daemon.count(&format!("{name}{{listener=\"echo\",service=\"echo\"}}"));
    eventually("all have ended", || {
        daemon.count(
            r#"portyard_connections_ended_total{listener="echo",service="echo",reason="done"}"#,
        ) == 3
    });
    assert_eq!(of("portyard_connections_accepted_total"), 3);
    assert_eq!(of("portyard_connections"), 0);
    assert_eq!(of("portyard_received_bytes_total"), 15);
    assert_eq!(of("portyard_sent_bytes_total"), 15);
    let raw = raw(
        &daemon,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(
        raw.contains("content-type: application/openmetrics-text"),
        "{raw}"
    );
    assert!(raw.ends_with("# EOF\n"), "{raw}");
}

#[test]
fn the_bytes_of_a_connection_that_lasts_are_counted_while_it_lasts() {
    let daemon = daemon().config(&config("tcp://127.0.0.1:0")).start();
    let client = Client::connect(&daemon.endpoint("echo"));
    assert!(client.is_echoed());
    let sent = r#"portyard_sent_bytes_total{listener="echo",service="echo"}"#;
    eventually("the bytes are counted", || daemon.count(sent) == 4);
    assert!(client.is_echoed());
}

#[test]
fn what_is_no_request_does_no_harm() {
    let daemon = daemon().config(&config("tcp://127.0.0.1:0")).start();
    let post = raw(
        &daemon,
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
                             Connection: close\r\n\r\n",
    );
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    for request in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        &long,
    ] {
        let client = Client::connect(&daemon.endpoint("admin"));
        let _ = client.try_send(request);
        client.receive_all();
    }
    assert_eq!(daemon.admin_get("/healthz").0, 200);
}

#[test]
fn a_client_that_asks_nothing_does_not_keep_a_probe_waiting() {
    let daemon = daemon().config(&config("tcp://127.0.0.1:0")).start();
    let silent: Vec<_> = (0..10)
        .map(|_| Client::connect(&daemon.endpoint("admin")))
        .collect();
    let start = Instant::now();
    assert_eq!(daemon.admin_get("/healthz").0, 200);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    // And it is sent away in the end.
    for client in silent {
        client.receive_all();
    }
}

#[test]
fn json_log_lines_are_json_and_text_of_peers_cannot_forge_one() {
    let daemon = daemon()
        .config(&format!(
            "log = {{ format = \"json\", level = \"debug\" }}\n{}",
            config(PLACE)
        ))
        .start();
    assert!(Client::connect(&daemon.endpoint("echo")).is_echoed());
    daemon.wait_for_log("\"message\":\"connection\"");
    for line in daemon.log().lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for key in ["time", "level", "message"] {
            assert!(value[key].is_string(), "no {key} in {line}");
        }
    }
    let finished = daemon.terminate();
    assert!(
        finished
            .stderr
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
}

#[test]
fn journal_lines_begin_with_their_priority() {
    let daemon = daemon()
        .config(&format!("log.format = \"journal\"\n{}", config(PLACE)))
        .start();
    daemon.wait_for_log("listening");
    assert!(
        daemon.log().lines().all(|line| line.starts_with("<6>")),
        "{}",
        daemon.log()
    );
}

#[test]
fn a_reader_of_the_log_that_has_gone_does_not_stop_the_work() {
    // The shell's stderr goes to a program that ends at once.
    let daemon = daemon()
        .wrap(["bash", "-c", "exec \"$0\" \"$@\" 2> >(exit)"])
        .listen("tcp://127.0.0.1:0=echo")
        .args(["--log-level", "trace"])
        .start();
    for _ in 0..20 {
        assert!(Client::connect(&daemon.endpoint("echo")).is_echoed());
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait().code, Some(0));
}

fn raw(daemon: &Daemon, request: &str) -> String {
    let client = Client::connect(&daemon.endpoint("admin"));
    client.send(request);
    String::from_utf8(client.receive_all().0).unwrap()
}

#[test]
fn actions_are_off_unless_the_configuration_says_otherwise() {
    let builder = daemon();
    let place = format!("unix:{}", builder.dir().join("admin.sock").display());
    let daemon = builder.config(&config(&place)).start();
    for path in ["/reload", "/drain"] {
        let (code, said) = daemon.admin_post(path);
        assert!(code == 403 && said.contains("actions = true"), "{said}");
    }
    assert_eq!(daemon.status()["actions"], serde_json::json!([]));
}

#[test]
fn reload_and_drain_are_done_when_the_owner_asks_over_a_unix_socket() {
    let builder = daemon();
    let place = format!("unix:{}", builder.dir().join("admin.sock").display());
    let with_actions = config(&place).replace("[admin]", "[admin]\nactions = true");
    let daemon = builder.config(&with_actions).start();
    assert_eq!(
        daemon.status()["actions"],
        serde_json::json!(["reload", "drain"])
    );
    let (code, said) = daemon.admin_get("/drain");
    assert_eq!((code, said.as_str()), (405, "use POST\n"));
    assert_eq!(daemon.admin_post("/reload"), (200, "reloaded\n".into()));
    daemon.wait_for_log("configuration reloaded");
    daemon.rewrite_config("nonsense = 1");
    let (code, said) = daemon.admin_post("/reload");
    assert!(code == 409 && said.contains("nonsense"), "{said}");
    // A connection that is used keeps the daemon: what it sends is echoed, and new ones are refused.
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send("1");
    assert_eq!(client.receive(1), b"1");
    assert_eq!(daemon.admin_post("/drain"), (202, "draining\n".into()));
    daemon.wait_for_log("draining");
    client.send_end();
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn nobody_acts_over_a_loopback_address() {
    let config = config("tcp://127.0.0.1:0").replace("[admin]", "[admin]\nactions = true");
    let daemon = daemon().config(&config).start();
    let (code, said) = daemon.admin_post("/drain");
    assert!(code == 403 && said.contains("Unix socket"), "{said}");
    assert_eq!(daemon.admin_get("/readyz").0, 200);
}

#[test]
fn an_actor_that_is_no_local_user_is_refused_at_the_start() {
    for actor in ["10.0.0.0/8", "pid:7", "user:there-is-none", "dns:a", "x"] {
        let table = format!("[admin]\nactors = [\"{actor}\"]");
        let config = config("tcp://127.0.0.1:0").replace("[admin]", &table);
        let said = daemon().config(&config).run();
        assert_eq!(said.code, Some(78), "{actor}");
        assert!(said.stderr.contains("admin.actors"), "{}", said.stderr);
    }
}

fn config(admin: &str) -> String {
    format!(
        "[admin]\nlisten = \"{admin}\"\n\
         [[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n"
    )
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}

const PLACE: &str = "tcp://127.0.0.1:0";
