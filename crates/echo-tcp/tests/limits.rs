//! Limits slow or refuse what is above them; none ever switches a service off.

use std::time::Duration;

use portyard_testkit::{Client, Daemon, End, eventually};

#[test]
fn who_is_one_too_many_waits_and_is_served_when_another_leaves() {
    let daemon = start("connections = 2");
    let (first, second) = (connect(&daemon), connect(&daemon));
    assert!(first.is_echoed() && second.is_echoed());
    let third = connect(&daemon);
    third.send("hello");
    // The status says what is; the silence alone would prove little.
    let present = || daemon.status()["listeners"][0]["connections"]["present"] == 2;
    eventually("two are present", present);
    assert!(third.is_silent_for(Duration::from_millis(300)));
    assert!(first.is_echoed() && second.is_echoed());
    drop(first);
    assert_eq!(third.receive(5), b"hello");
    assert_eq!(daemon.count(&refused("connections")), 0);
}

#[test]
fn the_limit_of_the_whole_daemon_holds_across_listeners() {
    let config = format!(
        "max_connections = 2\n{ADMIN}{}{}",
        listener("echo", "at_limit = \"refuse\""),
        listener("discard", "at_limit = \"refuse\"")
    );
    let daemon = Daemon::build(BINARY).config(&config).start();
    let first = connect(&daemon);
    assert!(first.is_echoed());
    let other = Client::connect(&daemon.endpoint("discard"));
    eventually("both are present", || {
        daemon.status()["connections"]["present"] == 2
    });
    assert_eq!(connect(&daemon).end(), End::Reset);
    assert_eq!(daemon.count(&refused("connections")), 1);
    drop(other);
    eventually("a place is free", || connect(&daemon).is_echoed());
}

#[test]
fn who_is_one_too_many_is_reset_where_the_listener_refuses() {
    let daemon = start("connections = 2\nat_limit = \"refuse\"");
    let (first, second) = (connect(&daemon), connect(&daemon));
    assert!(first.is_echoed() && second.is_echoed());
    for number in 1..=5 {
        assert_eq!(connect(&daemon).end(), End::Reset);
        assert_eq!(daemon.count(&refused("connections")), number);
    }
    assert!(first.is_echoed() && second.is_echoed());
    drop(first);
    eventually("a place is free", || connect(&daemon).is_echoed());
}

#[test]
fn who_is_one_too_many_is_told_so_where_the_listener_has_a_banner() {
    let daemon = start("connections = 1\nat_limit = \"banner\"\nbanner = \"Full.\\r\\n\"");
    let first = connect(&daemon);
    assert!(first.is_echoed());
    assert_eq!(
        connect(&daemon).receive_all(),
        (b"Full.\r\n".to_vec(), End::Fin)
    );
    assert_eq!(daemon.count(&refused("connections")), 1);
    drop(first);
    eventually("a place is free", || connect(&daemon).is_echoed());
}

#[test]
fn the_status_shows_present_values_beside_their_limits() {
    let daemon = start("connections = 7\nper_source = 5");
    let clients: Vec<_> = (0..3).map(|_| connect(&daemon)).collect();
    let others: Vec<_> = (0..2).map(|_| from(&daemon, "127.0.0.2")).collect();
    assert!(clients.iter().chain(&others).all(Client::is_echoed));
    let status = daemon.status();
    let listener = &status["listeners"][0];
    assert_eq!(listener["connections"]["present"], 5);
    assert_eq!(listener["connections"]["limit"], 7);
    assert_eq!(listener["connections"]["waiting"], 0);
    assert_eq!(listener["connections"]["accepted"], 5);
    assert_eq!(listener["busiest_sources"][0]["source"], "127.0.0.1/32");
    assert_eq!(listener["busiest_sources"][0]["connections"], 3);
    assert_eq!(listener["busiest_sources"][1]["connections"], 2);
    assert_eq!(
        daemon.count(r#"portyard_connections{listener="echo",service="echo"}"#),
        5
    );
    drop((clients, others));
    eventually("all have left", || {
        let listener = &daemon.status()["listeners"][0];
        listener["connections"]["present"] == 0 && listener["busiest_sources"][0].is_null()
    });
}

#[test]
fn one_source_cannot_take_the_places_of_others() {
    let daemon = start("connections = 4\nper_source = 2\nat_limit = \"refuse\"");
    let greedy = [from(&daemon, "127.0.0.2"), from(&daemon, "127.0.0.2")];
    assert!(greedy.iter().all(Client::is_echoed));
    assert_eq!(from(&daemon, "127.0.0.2").end(), End::Reset);
    assert_eq!(daemon.count(&refused("per_source")), 1);
    let modest = from(&daemon, "127.0.0.3");
    assert!(modest.is_echoed());
    drop(greedy);
    eventually("its places are free again", || {
        from(&daemon, "127.0.0.2").is_echoed()
    });
}

#[test]
fn a_source_over_its_limit_waits_in_a_room_of_bounded_size() {
    let daemon = start("per_source = 1\nqueue = 1");
    let first = from(&daemon, "127.0.0.2");
    assert!(first.is_echoed());
    let waiting = from(&daemon, "127.0.0.2");
    waiting.send("hello");
    let one_waits = || daemon.status()["listeners"][0]["connections"]["waiting"] == 1;
    eventually("one waits", one_waits);
    assert_eq!(from(&daemon, "127.0.0.2").end(), End::Reset);
    assert_eq!(daemon.count(&refused("per_source")), 1);
    assert!(from(&daemon, "127.0.0.3").is_echoed());
    assert!(one_waits());
    drop(first);
    assert_eq!(waiting.receive(5), b"hello");
}

#[test]
fn who_waits_too_long_for_its_source_is_reset() {
    let daemon = start("per_source = 1\nqueue_timeout = \"200ms\"");
    let first = from(&daemon, "127.0.0.2");
    assert!(first.is_echoed());
    assert_eq!(from(&daemon, "127.0.0.2").end(), End::Reset);
    assert_eq!(daemon.count(&refused("per_source")), 1);
    assert!(first.is_echoed());
}

#[test]
fn a_source_that_comes_too_fast_is_slowed_and_others_are_not() {
    let daemon = start("rate = \"2/s\"\nburst = 3\nat_limit = \"refuse\"");
    let served = |source: &str| from(&daemon, source).is_echoed();
    let abuse = (0..30).filter(|_| served("127.0.0.2")).count();
    assert!((3..30).contains(&abuse), "{abuse} of 30 were served");
    assert!(
        (0..3).all(|_| served("127.0.0.3")),
        "another source is slowed, too"
    );
    let refused = daemon.count(&refused("rate"));
    assert_eq!(refused, 30 - abuse as u64);
    // The bucket fills up again, even for the abuser: a limit is not a switch.
    eventually("the abuser is served again", || served("127.0.0.2"));
}

#[test]
fn a_burst_above_the_rate_is_served_later_where_the_listener_queues() {
    let daemon = start("rate = \"10/s\"\nburst = 2");
    let clients: Vec<_> = (0..8).map(|_| from(&daemon, "127.0.0.2")).collect();
    for client in &clients {
        assert!(client.is_echoed());
    }
    assert_eq!(daemon.count(&refused("rate")), 0);
}

#[test]
fn a_listener_at_its_limit_is_healthy_and_feeds_the_watchdog() {
    let daemon = Daemon::build(BINARY)
        .config(&format!("{ADMIN}{}", listener("echo", "connections = 1")))
        .env("WATCHDOG_USEC", "200000")
        .start();
    let first = connect(&daemon);
    assert!(first.is_echoed());
    let waiting: Vec<_> = (0..20).map(|_| connect(&daemon)).collect();
    let before = beats(&daemon);
    eventually("the watchdog is fed", || beats(&daemon) >= before + 5);
    assert_eq!(daemon.admin_get("/healthz").0, 200);
    assert!(
        !daemon.log().contains("watchdog is not fed"),
        "a full listener looks dead"
    );
    drop(first);
    // Nobody who waited is lost, whoever accepted it. They are served in an order of their own.
    std::thread::scope(|scope| {
        for client in waiting {
            scope.spawn(move || assert!(client.is_echoed()));
        }
    });
}

fn beats(daemon: &Daemon) -> usize {
    daemon
        .notifications()
        .iter()
        .filter(|message| message.contains("WATCHDOG=1"))
        .count()
}

fn refused(reason: &str) -> String {
    format!(
        "portyard_connections_refused_total\
         {{listener=\"echo\",service=\"echo\",reason=\"{reason}\"}}"
    )
}

fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.endpoint("echo"))
}

fn from(daemon: &Daemon, source: &str) -> Client {
    Client::connect_from(source, daemon.address("echo"))
}

fn start(limits: &str) -> Daemon {
    Daemon::build(BINARY)
        .config(&format!("{ADMIN}{}", listener("echo", limits)))
        .start()
}

fn listener(service: &str, limits: &str) -> String {
    format!(
        "[[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [listener.limits]\n{limits}\n"
    )
}

const ADMIN: &str = "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n";
const BINARY: &str = env!("CARGO_BIN_EXE_echo-tcp");
