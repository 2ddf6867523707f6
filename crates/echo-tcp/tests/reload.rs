//! SIGHUP: a bad file changes nothing, a good one costs no connection.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, End, eventually, finish, peer};

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_where_it_is_wrong() {
    let daemon = start(&[("echo", "echo", "tcp://127.0.0.1:0")]);
    let open = connect(&daemon, "echo");
    assert!(open.is_echoed());
    daemon.rewrite_config(
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\nlimts = {}\n",
    );
    let status = daemon.reload();
    let place = format!("{}:4:", daemon.config_path().display());
    let says_it = |text: String| text.contains(&place) && text.contains("limts");
    assert!(says_it(status));
    // The log is read beside the notifications.
    eventually("the log says it", || says_it(daemon.log()));
    assert!(open.is_echoed() && connect(&daemon, "echo").is_echoed());
    assert_eq!(daemon.count(r#"portyard_reloads_total{result="error"}"#), 1);
    // A file that cannot even be read is no different.
    std::fs::remove_file(daemon.config_path()).unwrap();
    assert!(daemon.reload().contains("cannot be read"));
    assert!(open.is_echoed() && connect(&daemon, "echo").is_echoed());
    assert_eq!(daemon.count(r#"portyard_reloads_total{result="error"}"#), 2);
}

#[test]
fn a_listener_that_cannot_be_opened_refuses_the_whole_reload() {
    let daemon = start(&[("echo", "echo", "tcp://127.0.0.1:0")]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("tcp://{}", taken.local_addr().unwrap());
    daemon.rewrite_config(&config(&[
        ("new", "echo", "tcp://127.0.0.1:0"),
        ("more", "time", &place),
    ]));
    assert!(daemon.reload().contains("in use"));
    assert!(connect(&daemon, "echo").is_echoed());
    assert_eq!(daemon.status()["listeners"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.status()["listeners"][0]["name"], "echo");
}

#[test]
fn a_reload_that_runs_out_of_descriptors_changes_nothing() {
    let named = |name| config(&[(name, "echo", "tcp://127.0.0.1:0")]);
    let daemon = Daemon::build(BINARY)
        .config(&format!("loops = 2\n{}", named("echo")))
        .start();
    let (address, open) = (daemon.address("echo"), connect(&daemon, "echo"));
    assert!(open.is_echoed());
    // One is enough to read the file, and too few for the sockets of two loops.
    limit_descriptors(&daemon, free_above(&daemon, 1));
    daemon.rewrite_config(&format!("loops = 2\n{}", named("other")));
    let status = daemon.reload();
    assert!(status.contains("cannot be shared"), "{status}");
    limit_descriptors(&daemon, 256);
    assert_eq!(daemon.status()["listeners"][0]["name"], "echo");
    assert!(Client::try_connect(address).unwrap().is_echoed() && open.is_echoed());
    assert!(daemon.reload().starts_with("1 listeners"));
    let listener = &daemon.status()["listeners"][0];
    assert_eq!(listener["name"], "other");
    assert_eq!(
        listener["endpoint"],
        daemon.endpoint("echo"),
        "the old sockets were lost"
    );
    assert!(Client::try_connect(address).unwrap().is_echoed() && open.is_echoed());
}

#[test]
fn a_reload_of_the_same_file_changes_nothing_even_where_any_port_will_do() {
    let any = "tcp://127.0.0.1:0";
    let same = [
        ("one", "echo", any),
        ("two", "time", any),
        ("three", "daytime", any),
    ];
    let daemon = start(&same);
    for _ in 0..3 {
        daemon.reload();
        assert!(connect(&daemon, "one").is_echoed());
        assert_eq!(connect(&daemon, "two").exchange("").len(), 4);
        assert_eq!(connect(&daemon, "three").exchange("").len(), 26);
    }
}

#[test]
fn listeners_come_and_go_and_open_connections_stay() {
    let builder = Daemon::build(BINARY);
    // Where a unit's sockets are.
    let directory = builder.dir().display().to_string();
    let daemon = builder
        .env("RUNTIME_DIRECTORY", directory)
        .config(&config(&[("one", "echo", "tcp://127.0.0.1:0")]))
        .start();
    let path = daemon.dir().join("two.sock");
    let unix = format!("unix:{}", path.display());
    let (first, open) = (daemon.address("one"), connect(&daemon, "one"));
    assert!(open.is_echoed());
    daemon.rewrite_config(&config(&[
        ("one", "echo", "tcp://127.0.0.1:0"),
        ("two", "echo", &unix),
    ]));
    assert!(daemon.reload().starts_with("2 listeners"));
    let second = Client::connect(&unix);
    assert!(second.is_echoed() && open.is_echoed());
    assert!(
        Client::try_connect(first).is_ok_and(|client| client.is_echoed()),
        "it moved"
    );
    daemon.rewrite_config(&config(&[("two", "echo", &unix)]));
    assert!(daemon.reload().starts_with("1 listeners"));
    let gone = || match Client::try_connect(first) {
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(_) => false,
    };
    eventually("the first address is closed", gone);
    assert!(open.is_echoed(), "a connection died with its listener");
    assert!(second.is_echoed());
    daemon.rewrite_config(&config(&[("three", "echo", "tcp://127.0.0.1:0")]));
    daemon.reload();
    eventually("the file is gone", || !path.exists());
    assert!(open.is_echoed() && second.is_echoed());
}

#[test]
fn another_service_on_the_same_address_loses_no_queued_connection() {
    let daemon = start(&[("front", "echo", "tcp://127.0.0.1:0")]);
    let address = daemon.address("front");
    let open = connect(&daemon, "front");
    assert!(open.is_echoed());
    // Stopped, the daemon finds the connections and the reload all at once.
    daemon.signal(Signal::SIGSTOP);
    let queued: Vec<_> = (0..100)
        .map(|_| Client::try_connect(address).unwrap())
        .collect();
    for client in &queued {
        client.send("ping");
        client.send_end();
    }
    daemon.rewrite_config(&config(&[("front", "daytime", "tcp://127.0.0.1:0")]));
    daemon.signal(Signal::SIGHUP);
    daemon.signal(Signal::SIGCONT);
    for client in &queued {
        let (answer, end) = client.receive_all();
        // Either service may have them, but one of them must.
        assert!(answer == b"ping" || answer.len() == 26, "{answer:?}");
        assert_eq!(end, End::Fin);
    }
    daemon.wait_for_log("configuration reloaded");
    assert!(open.is_echoed());
    assert_eq!(Client::try_connect(address).unwrap().exchange("").len(), 26);
}

#[test]
fn who_waits_at_a_limit_outlives_a_change_of_the_listeners_name() {
    for limit in ["connections = 1", "per_source = 1"] {
        let named = |name: &str| {
            format!(
                "{}[listener.limits]\n{limit}\n",
                config(&[(name, "echo", "tcp://127.0.0.1:0")])
            )
        };
        let daemon = Daemon::build(BINARY).config(&named("before")).start();
        let address = daemon.address("before");
        let first = connect(&daemon, "before");
        assert!(first.is_echoed());
        let waiting = connect(&daemon, "before");
        waiting.send("hello");
        let accepted = r#"portyard_connections_accepted_total{listener="before",service="echo"}"#;
        eventually("it waits", || daemon.count(accepted) == 2);
        daemon.rewrite_config(&named("after"));
        daemon.reload();
        drop(first);
        assert_eq!(waiting.receive(5), b"hello", "{limit}");
        assert!(Client::try_connect(address).unwrap().is_echoed());
    }
}

#[test]
fn sixty_reloads_under_load_fail_nobody() {
    let plan = |number: usize| {
        let mut listeners = vec![("front", "echo", "tcp://127.0.0.1:0")];
        // Each way of changing a listener in its turn: a new name, another beside it.
        if number % 3 == 1 {
            listeners[0].0 = "face";
        }
        if number % 2 == 1 {
            listeners.push(("beside", "time", "tcp://[::1]:0"));
        }
        config(&listeners)
    };
    let daemon = Daemon::build(BINARY).config(&plan(0)).start();
    let address = daemon.address("front");
    let lasting = connect(&daemon, "front");
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match Client::try_connect(address) {
                            Ok(client) if client.is_echoed() => {
                                served.fetch_add(1, Ordering::Relaxed);
                            }
                            other => failures.push(format!("{other:?}")),
                        }
                    }
                    failures
                })
            })
            .collect();
        let mut before = 0;
        for number in 1..=60 {
            daemon.rewrite_config(&plan(number));
            daemon.reload();
            // Some traffic between any two.
            eventually("somebody is served", || {
                served.load(Ordering::Relaxed) > before + 10
            });
            before = served.load(Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            let failures = client.join().unwrap();
            assert!(
                failures.is_empty(),
                "{} failures: {:?}",
                failures.len(),
                failures.first()
            );
        }
    });
    assert!(lasting.is_echoed());
    assert_eq!(daemon.count(r#"portyard_reloads_total{result="ok"}"#), 60);
}

#[test]
fn new_limits_hold_for_new_connections_at_once() {
    let daemon = start(&[("echo", "echo", "tcp://127.0.0.1:0")]);
    let (first, second) = (connect(&daemon, "echo"), connect(&daemon, "echo"));
    assert!(first.is_echoed() && second.is_echoed());
    let limited = "[listener.limits]\nconnections = 1\nat_limit = \"refuse\"\n";
    daemon.rewrite_config(&(config(&[("echo", "echo", "tcp://127.0.0.1:0")]) + limited));
    daemon.reload();
    assert_eq!(connect(&daemon, "echo").end(), End::Reset);
    assert!(
        first.is_echoed() && second.is_echoed(),
        "a lower limit cuts nobody"
    );
    daemon.rewrite_config(&config(&[("echo", "echo", "tcp://127.0.0.1:0")]));
    daemon.reload();
    assert!(connect(&daemon, "echo").is_echoed());
}

#[test]
fn the_log_level_changes_with_a_reload() {
    let daemon = start(&[("echo", "echo", "tcp://127.0.0.1:0")]);
    assert!(connect(&daemon, "echo").is_echoed());
    let done = r#"portyard_connections_ended_total{listener="echo",service="echo",reason="done"}"#;
    eventually("it has ended", || daemon.count(done) == 1);
    let plain = config(&[("echo", "echo", "tcp://127.0.0.1:0")]);
    daemon.rewrite_config(&format!("log.level = \"debug\"\n{plain}"));
    daemon.reload();
    assert!(!daemon.log().contains("DEBUG"));
    assert!(connect(&daemon, "echo").is_echoed());
    daemon.wait_for_log("DEBUG connection");
}

/// The descriptor limit that leaves so many numbers free.
fn free_above(daemon: &Daemon, free: usize) -> usize {
    let used: Vec<usize> = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    (0..)
        .filter(|number| !used.contains(number))
        .nth(free)
        .unwrap()
}

fn limit_descriptors(daemon: &Daemon, limit: usize) {
    let mut prlimit = Command::new(peer("prlimit"));
    prlimit.args([
        "--pid",
        &daemon.pid().to_string(),
        &format!("--nofile={limit}:"),
    ]);
    finish(&mut prlimit, b"").success();
}

fn connect(daemon: &Daemon, label: &str) -> Client {
    Client::connect(&daemon.endpoint(label))
}

fn start(listeners: &[(&str, &str, &str)]) -> Daemon {
    Daemon::build(BINARY).config(&config(listeners)).start()
}

/// A configuration with listeners of name, service and endpoint.
fn config(listeners: &[(&str, &str, &str)]) -> String {
    let mut text = String::from("admin.listen = \"tcp://127.0.0.1:0\"\n");
    for (name, service, endpoint) in listeners {
        text += "[[listener]]\n";
        let _ = writeln!(text, "name = \"{name}\"\nservice = \"{service}\"");
        let _ = writeln!(text, "listen = [\"{endpoint}\"]");
    }
    text
}

const BINARY: &str = env!("CARGO_BIN_EXE_echo-tcp");
