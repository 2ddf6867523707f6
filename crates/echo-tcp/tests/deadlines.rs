//! Every wait for a peer has a deadline, and no peer's slowness is another's.

use std::time::{Duration, Instant};

use portyard_testkit::{Client, Daemon, End, eventually};

#[test]
fn a_connection_on_which_nothing_moves_is_closed_in_order() {
    let daemon = start("echo", "idle = \"300ms\"");
    let client = connect(&daemon, "echo");
    assert!(client.is_echoed());
    assert_eq!(client.end(), End::Fin);
    eventually("the end is counted", || {
        daemon.count(&ended("echo", "idle")) == 1
    });
}

#[test]
fn a_connection_that_never_says_anything_is_idle_too() {
    for service in ["echo", "discard", "timestamp", "command", "sleep"] {
        let daemon = start(service, "idle = \"300ms\"");
        assert_eq!(connect(&daemon, service).end(), End::Fin, "{service}");
        eventually("the end is counted", || {
            daemon.count(&ended(service, "idle")) == 1
        });
    }
}

#[test]
fn a_byte_a_second_is_life_and_costs_others_nothing() {
    let daemon = start("echo", "idle = \"3s\"");
    let slow = connect(&daemon, "echo");
    let start = Instant::now();
    let mut others = 0;
    for byte in b"slowly" {
        slow.send([*byte]);
        assert_eq!(slow.receive(1), [*byte]);
        let next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < next {
            assert!(connect(&daemon, "echo").is_echoed());
            others += 1;
        }
    }
    assert!(start.elapsed() > Duration::from_secs(3));
    assert!(others >= 100, "only {others} others were served");
    assert_eq!(daemon.count(&ended("echo", "idle")), 0);
}

#[test]
fn a_peer_that_takes_nothing_is_reset() {
    let daemon = start("chargen", "write_stall = \"300ms\"\nidle = \"0s\"");
    let client = Client::connect_narrow(daemon.address("chargen"), 8192);
    eventually("the end is counted", || {
        daemon.count(&ended("chargen", "write_stall")) == 1
    });
    let (taken, end) = client.receive_all();
    assert_eq!(end, End::Reset);
    assert!(!taken.is_empty());
}

#[test]
fn a_peer_that_writes_and_never_reads_is_reset() {
    let daemon = start("echo", "write_stall = \"300ms\"\nidle = \"0s\"");
    let client = Client::connect_narrow(daemon.address("echo"), 8192);
    let bytes = vec![0; 65536];
    while client.try_send(&bytes) {}
    eventually("the end is counted", || {
        daemon.count(&ended("echo", "write_stall")) == 1
    });
}

#[test]
fn a_peer_that_reads_slowly_is_not_stalled() {
    let daemon = start("chargen", "write_stall = \"2s\"\nidle = \"2s\"");
    let client = Client::connect_narrow(daemon.address("chargen"), 8192);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        client.receive(100_000);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(daemon.count(&ended("chargen", "write_stall")), 0);
    assert_eq!(daemon.count(&ended("chargen", "idle")), 0);
}

#[test]
fn no_connection_lasts_longer_than_the_total() {
    let daemon = start("echo", "total = \"500ms\"");
    let client = connect(&daemon, "echo");
    let start = Instant::now();
    while client.is_echoed() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it lasts for ever"
        );
    }
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "it ended after {:?}",
        start.elapsed()
    );
    eventually("the end is counted", || {
        daemon.count(&ended("echo", "total")) == 1
    });
    assert!(connect(&daemon, "echo").is_echoed());
}

#[test]
fn a_sleep_longer_than_the_idle_time_is_not_idle() {
    let daemon = start("sleep", "idle = \"300ms\"");
    let client = connect(&daemon, "sleep");
    client.send("1.5\n");
    assert_eq!(client.receive_line(), "slept 1.5\n");
    // And from then on it is.
    assert_eq!(client.end(), End::Fin);
    eventually("the end is counted", || {
        daemon.count(&ended("sleep", "idle")) == 1
    });
}

#[test]
fn an_answer_to_a_peer_that_never_closes_is_not_held_for_ever() {
    let daemon = start("daytime", "idle = \"1min\"");
    let client = connect(&daemon, "daytime");
    assert_eq!(client.receive(26).len(), 26);
    assert_eq!(client.end(), End::Fin);
    // Our side stays open, and still the daemon gets rid of it.
    eventually("nothing is left of it", || {
        daemon.count(r#"portyard_connections{listener="daytime",service="daytime"}"#) == 0
    });
}

fn ended(service: &str, reason: &str) -> String {
    format!(
        "portyard_connections_ended_total\
         {{listener=\"{service}\",service=\"{service}\",reason=\"{reason}\"}}"
    )
}

fn connect(daemon: &Daemon, label: &str) -> Client {
    Client::connect(&daemon.endpoint(label))
}

fn start(service: &str, limits: &str) -> Daemon {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
        .config(&format!(
            "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
             [[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             [listener.limits]\n{limits}\n"
        ))
        .start()
}
