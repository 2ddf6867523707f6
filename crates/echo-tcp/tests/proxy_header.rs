//! The PROXY header: believed from listed balancers, and demanded of them.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::net::SocketAddr;

use common::{ADMIN, BINARY, check_fails, ended};
use portyard_core::wire::proxy::{Header, Transport};
use portyard_testkit::{Client, Daemon, DaemonBuilder, End, eventually};

#[test]
fn both_versions_name_the_peer_and_what_follows_is_the_services() {
    let daemon = build("\"127.0.0.1\"", "")
        .args(["--log-level", "debug"])
        .start();
    for header in [
        named("192.0.2.7:4000").to_v1(),
        named("[2001:db8::7]:4000").to_v2(),
    ] {
        let client = Client::connect(&daemon.endpoint("echo"));
        client.send([&header[..], b"hello"].concat());
        assert_eq!(client.receive(5), b"hello");
    }
    daemon.wait_for_log("ended listener=echo peer=192.0.2.7:4000");
    daemon.wait_for_log("ended listener=echo peer=[2001:db8::7]:4000");
}

#[test]
fn a_header_in_pieces_is_a_header() {
    let daemon = build("\"127.0.0.0/8\"", "").start();
    for header in [
        named("192.0.2.7:4000").to_v1(),
        named("192.0.2.7:4000").to_v2(),
    ] {
        let client = Client::connect(&daemon.endpoint("echo"));
        for byte in header {
            client.send([byte]);
        }
        assert!(client.is_echoed());
    }
}

#[test]
fn a_balancer_without_a_header_is_not_served() {
    let daemon = build("\"127.0.0.1\"", "").start();
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send(b"hello");
    assert!(client.receive_all().0.is_empty());
    eventually("it is counted", || ended(&daemon, "proxy") == 1);
    // A health check speaks for the balancer itself.
    for header in [Header::Local.to_v1(), Header::Local.to_v2()] {
        let client = Client::connect(&daemon.endpoint("echo"));
        client.send(header);
        assert!(client.is_echoed());
    }
}

#[test]
fn from_others_it_is_not_believed() {
    let daemon = build(
        "\"192.0.2.1\"",
        "access = { rules = [\"deny 192.0.2.7\"] }\n",
    )
    .start();
    let header = named("192.0.2.7:4000").to_v1();
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send(&header);
    // It is a line like any other, and the service's.
    assert_eq!(client.receive(header.len()), header);
}

#[test]
fn access_and_limits_are_for_the_peer_behind_the_balancer() {
    let rules = "access = { rules = [\"deny 192.0.2.7\"] }\n\
                 limits = { per_source = 1, at_limit = \"refuse\" }\n";
    let daemon = build("\"127.0.0.1\"", rules).start();
    let behind = |source: &str| {
        let client = Client::connect(&daemon.endpoint("echo"));
        client.send(named(source).to_v2());
        client
    };
    assert!(behind("192.0.2.7:1").receive_all().0.is_empty());
    eventually("it is counted", || ended(&daemon, "denied") == 1);
    let first = behind("192.0.2.8:1");
    assert!(first.is_echoed());
    assert!(behind("192.0.2.8:2").receive_all().0.is_empty());
    // The balancer itself may have as many as it likes.
    assert!(behind("192.0.2.9:1").is_echoed() && first.is_echoed());
    drop(first);
    eventually("its place is free again", || {
        let client = behind("192.0.2.8:3");
        client.is_echoed()
    });
}

#[test]
fn a_balancer_that_says_nothing_is_cut() {
    let daemon = build(
        "\"127.0.0.1\"",
        "limits = { handshake = \"200ms\", penalty = \"60s\", penalty_min = \"1s\" }\n",
    )
    .start();
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send(b"PROXY TCP4 ");
    let (answer, end) = client.receive_all();
    assert!(answer.is_empty() && matches!(end, End::Fin | End::Reset));
    eventually("it is counted", || ended(&daemon, "handshake") == 1);
    // Everybody behind it would have to pay for that.
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send(named("192.0.2.7:1").to_v2());
    assert!(client.is_echoed());
}

#[test]
fn local_balancers_are_listed_by_a_word() {
    let place = format!("unix:@portyard-proxy-{}", std::process::id());
    let config = format!(
        "{ADMIN}[[listener]]\nservice = \"echo\"\nlisten = [{place:?}]\nproxy = [\"unix\"]\n"
    );
    let daemon = Daemon::build(BINARY).config(&config).start();
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send(named("192.0.2.7:1").to_v2());
    assert!(client.is_echoed());
    check_fails(
        &config.replace("\"unix\"]", "\"balancer.example\"]"),
        "10.0.0.0/8",
    );
}

fn named(source: &str) -> Header {
    let source: SocketAddr = source.parse().unwrap();
    Header::Inet {
        transport: Transport::Stream,
        source,
        destination: SocketAddr::new(source.ip(), 7),
    }
}

fn build(balancers: &str, more: &str) -> DaemonBuilder {
    Daemon::build(BINARY).config(&format!(
        "{ADMIN}[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         proxy = [{balancers}]\n{more}"
    ))
}
