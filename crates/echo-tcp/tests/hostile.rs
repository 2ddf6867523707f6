//! Peers that mean harm: they get a clear word or an end, and nobody else notices them.

use std::fmt::Write as _;

use portyard_testkit::{Client, Daemon, eventually, rss_bytes};

const SERVICES: [&str; 11] = [
    "echo",
    "discard",
    "chargen",
    "daytime",
    "time",
    "timestamp",
    "command",
    "sleep",
    "message",
    "array-source",
    "array-sink",
];

#[test]
fn random_bytes_break_no_service() {
    let daemon = start("options = { max_line = 1000, max_sleep = \"10ms\" }");
    let mut noise = Noise(1);
    for round in 0..40_usize {
        for service in SERVICES {
            let client = connect(&daemon, service);
            let mut bytes = noise.bytes(1 + round * 100);
            if round % 2 == 0 {
                // Lines short enough to be looked at.
                bytes.iter_mut().step_by(7).for_each(|byte| *byte = b'\n');
            }
            let _ = client.try_send(&bytes);
            if round % 3 == 0 {
                client.reset();
            } else if !["chargen", "array-source"].contains(&service) && round % 3 == 1 {
                let _ = client.socket().shutdown(std::net::Shutdown::Write);
                client.receive_all();
            }
        }
    }
    assert_unharmed(&daemon);
}

#[test]
fn a_line_that_never_ends_is_refused_before_it_takes_memory() {
    let daemon = start("");
    for service in ["timestamp", "command", "sleep"] {
        let before = rss_bytes(daemon.pid());
        let clients: Vec<_> = (0..40).map(|_| connect(&daemon, service)).collect();
        for client in &clients {
            let _ = client.try_send(vec![b'a'; 1 << 20]);
            let (answer, _) = client.receive_all();
            assert!(
                answer.starts_with(b"error: line longer than 4096 bytes"),
                "{answer:?}"
            );
        }
        let grown = rss_bytes(daemon.pid()).saturating_sub(before);
        assert!(
            grown < 12 << 20,
            "{service}: {grown} bytes of 40 MiB that were sent"
        );
    }
    assert_unharmed(&daemon);
}

#[test]
fn a_line_that_never_ends_is_held_at_its_cap_while_it_waits() {
    // The largest cap there is, and clients that fill it and then say nothing.
    let daemon = start("options = { max_line = \"1MiB\", quiet = \"0s\" }");
    let before = rss_bytes(daemon.pid());
    let clients: Vec<_> = (0..8).map(|_| connect(&daemon, "timestamp")).collect();
    for client in &clients {
        client.send(vec![b'a'; 1_000_000]);
    }
    eventually("they are held", || {
        rss_bytes(daemon.pid()) > before + (6 << 20)
    });
    let grown = rss_bytes(daemon.pid()) - before;
    assert!(
        grown < 32 << 20,
        "{grown} bytes for eight lines of a megabyte"
    );
    assert_unharmed(&daemon);
}

#[test]
fn sixty_four_clients_that_never_read_take_no_memory_and_no_ones_time() {
    let daemon = start("");
    let before = rss_bytes(daemon.pid());
    let clients: Vec<_> = (0..64)
        .map(|_| Client::connect_narrow(daemon.address("chargen"), 8192))
        .collect();
    let present = r#"portyard_connections{listener="chargen",service="chargen"}"#;
    eventually("all are connected", || daemon.count(present) == 64);
    assert_unharmed(&daemon);
    let grown = rss_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    drop(clients);
    eventually("all have gone", || daemon.count(present) == 0);
}

#[test]
fn clients_that_write_and_never_read_are_held_by_their_own_full_buffers() {
    let daemon = start("");
    let before = rss_bytes(daemon.pid());
    let clients: Vec<_> = (0..32)
        .map(|_| Client::connect_narrow(daemon.address("echo"), 8192))
        .collect();
    let bytes = vec![b'x'; 256 * 1024];
    let mut quiet = 0;
    eventually("no one's way takes any more", || {
        let taken: usize = clients.iter().map(|client| client.send_some(&bytes)).sum();
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        quiet == 20
    });
    // What a loop keeps for them is bounded, however much each of them sends.
    let grown = rss_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes");
    assert_unharmed(&daemon);
}

#[test]
fn connections_thrown_away_at_once_are_only_counted() {
    let daemon = start("");
    for service in SERVICES {
        for _ in 0..50 {
            connect(&daemon, service).reset();
        }
    }
    for service in SERVICES {
        let present =
            format!("portyard_connections{{listener=\"{service}\",service=\"{service}\"}}");
        eventually("nothing is left of them", || daemon.count(&present) == 0);
    }
    assert_unharmed(&daemon);
}

/// Everybody else is served, and no service of ours has panicked.
#[track_caller]
fn assert_unharmed(daemon: &Daemon) {
    assert!(connect(daemon, "echo").is_echoed());
    assert_eq!(connect(daemon, "daytime").exchange("").len(), 26);
    assert_eq!(
        connect(daemon, "sleep").exchange("0.001\n"),
        b"slept 0.001\n"
    );
    for service in SERVICES {
        let panics = daemon.count(&format!(
            "portyard_connections_ended_total\
             {{listener=\"{service}\",service=\"{service}\",reason=\"panic\"}}"
        ));
        assert_eq!(panics, 0, "{service}\n{}", daemon.log());
    }
    assert_eq!(daemon.admin_get("/healthz").0, 200);
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

/// Bytes that look random and are the same in each run (xorshift64).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_be_bytes()[0]
        };
        (0..length).map(|_| next()).collect()
    }
}

fn connect(daemon: &Daemon, label: &str) -> Client {
    Client::connect(&daemon.endpoint(label))
}

/// All services, each with these settings.
fn start(more: &str) -> Daemon {
    let mut config = String::from("[admin]\nlisten = \"tcp://127.0.0.1:0\"\n");
    for service in SERVICES {
        let _ = write!(
            config,
            "[[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n{more}\n"
        );
    }
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
        .config(&config)
        .start()
}
