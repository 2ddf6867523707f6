//! Datagrams are taken and answered in batches: none is lost, none gets another's answer.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::collections::HashMap;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use common::{
    Client, PATIENCE, all, answered, client, configured, dropped, listener, received, serving,
    serving_in_order, settled,
};
use nix::sys::signal::Signal;
use portyard_testkit::{Daemon, eventually};

#[test]
fn two_hundred_thousand_datagrams_from_four_sockets_all_come_back() {
    const EACH: u64 = 50_000;
    const WINDOW: u64 = 16;
    let daemon = serving(&listener("echo", "udp://127.0.0.1:0", "")).start();
    std::thread::scope(|scope| {
        for lane in 0..4_u64 {
            let client = client(&daemon, "echo");
            scope.spawn(move || {
                let mut buffer = [0; 64];
                let (mut sent, mut back) = (0_u64, 0_u64);
                while back < EACH {
                    while sent < EACH && sent - back < WINDOW {
                        client.send(&[lane.to_le_bytes(), sent.to_le_bytes()].concat());
                        sent += 1;
                    }
                    // One socket's datagrams stay in order, on one loop.
                    let length = client.socket.recv(&mut buffer).expect("none is lost");
                    let expected = [lane.to_le_bytes(), back.to_le_bytes()].concat();
                    assert_eq!(buffer[..length], expected, "lane {lane}");
                    back += 1;
                }
            });
        }
    });
    eventually("all are counted", || answered(&daemon, "echo") == 4 * EACH);
    assert_eq!(received(&daemon, "echo"), 4 * EACH);
    // Both ways are 16 bytes each.
    for direction in ["received", "sent"] {
        let line =
            format!("portyard_{direction}_bytes_total{{listener=\"echo\",service=\"echo\"}}");
        let bytes = daemon.metric(&line);
        assert!(
            (bytes - f64::from(4 * 50_000 * 16)).abs() < 0.5,
            "{direction}: {bytes}"
        );
    }
}

#[test]
fn a_full_batch_of_all_sizes_from_many_sockets_goes_back_to_each() {
    let daemon = serving_in_order(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let clients: Vec<Client> = (0..20).map(|_| client(&daemon, "echo")).collect();
    let question = |client: usize, n: usize| {
        let length = [0, 1, 5, 63, 64, 65, 500, 1400][(client + n) % 8];
        vec![u8::try_from(client * 10 + n).unwrap(); length]
    };
    while_asleep(&daemon, || {
        // More than two batches.
        for n in 0..7 {
            for (number, client) in clients.iter().enumerate() {
                client.send(&question(number, n));
            }
        }
    });
    for (number, client) in clients.iter().enumerate() {
        for n in 0..7 {
            assert_eq!(
                client.receive(),
                question(number, n),
                "client {number}, answer {n}"
            );
        }
    }
}

#[test]
fn what_is_dropped_in_a_batch_does_not_shift_the_answers_of_others() {
    let limits = "max_datagram = 100";
    let daemon = serving_in_order(&listener("timestamp", "udp://127.0.0.1:0", limits)).start();
    let good = client(&daemon, "timestamp");
    let bad = client(&daemon, "timestamp");
    while_asleep(&daemon, || {
        for n in 0..40_u8 {
            bad.send(&[0; 101]);
            good.send(&[n]);
            bad.send(b"error: not again");
        }
    });
    for n in 0..40_u8 {
        let answer = good.receive();
        assert_eq!((answer.len(), answer[27]), (28, n));
    }
    eventually("all are counted", || settled(&daemon, "timestamp") == 120);
    assert_eq!(dropped(&daemon, "timestamp", "oversize"), 40);
    assert_eq!(dropped(&daemon, "timestamp", "signature"), 40);
    assert!(!bad.has_answer());
}

#[test]
fn long_datagrams_after_short_ones_come_back_whole() {
    let daemon = all();
    let client = client(&daemon, "echo");
    for round in 0..20_u8 {
        for length in [1, 65_507, 3, 30_000] {
            let question = vec![round; length];
            assert!(
                client.ask(&question) == question,
                "{length} bytes in round {round}"
            );
        }
    }
}

#[test]
fn a_unix_peer_that_is_gone_costs_no_other_its_answer() {
    let (directory, daemon) = unix_echo();
    let server = directory.path().join("server");
    let before = unix_client(directory.path(), "before");
    let after = unix_client(directory.path(), "after");
    while_asleep(&daemon, || {
        before.send_to(b"1", &server).unwrap();
        let gone = unix_client(directory.path(), "gone");
        gone.send_to(b"2", &server).unwrap();
        drop(gone);
        after.send_to(b"3", &server).unwrap();
    });
    let mut buffer = [0; 8];
    for (client, answer) in [(&before, b"1"), (&after, b"3")] {
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], answer);
    }
    eventually("the lost answer is counted", || {
        dropped(&daemon, "echo", "send_failed") == 1
    });
    eventually("the others are", || answered(&daemon, "echo") == 2);
}

#[test]
fn a_unix_peer_that_never_reads_holds_up_nobody_else() {
    let (directory, _daemon) = unix_echo();
    let server = directory.path().join("server");
    let lazy = unix_client(directory.path(), "lazy");
    let busy = unix_client(directory.path(), "busy");
    let mut buffer = [0; 8];
    // Far more than the kernel keeps for a reader (net.unix.max_dgram_qlen, 10 or 512).
    for n in 0..600 {
        lazy.set_nonblocking(true).unwrap();
        eventually("there is room for a question", || {
            lazy.send_to(b"?", &server).is_ok()
        });
        if n % 20 == 0 {
            busy.send_to(b"!", &server).unwrap();
            let length = busy.recv(&mut buffer).expect("the lazy one holds it up");
            assert_eq!(&buffer[..length], b"!");
        }
    }
}

#[test]
fn one_busy_listener_does_not_starve_the_others_of_its_loop() {
    let tables =
        listener("echo", "udp://127.0.0.1:0", "") + &listener("ctime", "udp://127.0.0.1:0", "");
    let daemon = configured("loops = 1", &tables).start();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = client(&daemon, "echo");
        flood.socket.set_nonblocking(true).unwrap();
        scope.spawn(|| {
            let flood = flood;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = flood.socket.send(&[7; 100]);
            }
        });
        let ctime = client(&daemon, "ctime");
        for _ in 0..200 {
            assert_eq!(ctime.ask(b"").len(), 24);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn an_icmp_error_of_an_earlier_answer_costs_nothing() {
    let daemon = serving_in_order(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let server = daemon.address("echo");
    let patient = client(&daemon, "echo");
    while_asleep(&daemon, || {
        for n in 0..10_u8 {
            // Its port is closed when the answer comes: "port unreachable" goes to the daemon.
            let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
            gone.send_to(b"?", server).unwrap();
            drop(gone);
            patient.send(&[n]);
        }
    });
    for n in 0..10_u8 {
        assert_eq!(patient.receive(), [n]);
    }
    for n in 0..10_u8 {
        assert_eq!(patient.ask(&[n]), [n]);
    }
    eventually("all are counted", || settled(&daemon, "echo") == 30);
    assert_eq!(received(&daemon, "echo"), 30);
}

#[test]
fn several_loops_share_a_port_and_each_socket_gets_its_own_answers() {
    let daemon = configured("loops = 4", &listener("echo", "udp://127.0.0.1:0", "")).start();
    let mut seen = HashMap::new();
    for n in 0..200_u16 {
        let client = client(&daemon, "echo");
        assert_eq!(client.ask(&n.to_be_bytes()), n.to_be_bytes());
        seen.insert(client.socket.local_addr().unwrap(), n);
    }
    assert!(seen.len() > 1);
    eventually("all are counted", || answered(&daemon, "echo") == 200);
}

/// Does something while the daemon is stopped, so that what it sends is there in one batch.
fn while_asleep(daemon: &Daemon, work: impl FnOnce()) {
    daemon.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", daemon.pid());
    eventually("the daemon is stopped", || {
        let stat = std::fs::read_to_string(&stat).unwrap();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    });
    work();
    daemon.signal(Signal::SIGCONT);
}

fn unix_echo() -> (tempfile::TempDir, Daemon) {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("unix:{}", directory.path().join("server").display());
    let daemon = serving_in_order(&listener("echo", &endpoint, "")).start();
    (directory, daemon)
}

fn unix_client(directory: &Path, name: &str) -> UnixDatagram {
    let client = UnixDatagram::bind(directory.join(name)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}
