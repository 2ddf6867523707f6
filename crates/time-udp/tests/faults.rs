//! What the kernel may refuse while datagrams are received: a shortage passes and costs little, an
//! unusable socket ends the daemon.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::net::UdpSocket;

use portyard_testkit::{Daemon, eventually, peer};

fn with_fault(trace: &str, fault: &str) -> Daemon {
    let strace = peer("strace");
    let inject = format!("inject=recvmmsg:error={fault}");
    Daemon::build(env!("CARGO_BIN_EXE_time-udp"))
        .wrap([
            strace.to_str().unwrap(),
            "-f",
            "-o",
            trace,
            "-e",
            "trace=recvmmsg",
            "-e",
            &inject,
        ])
        .listen("udp://127.0.0.1:0=ctime")
        .start()
}

fn ask(daemon: &Daemon) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(std::time::Duration::from_millis(200)))
        .unwrap();
    client.send_to(b"", daemon.address("ctime")).unwrap();
    client
}

#[test]
fn a_shortage_while_receiving_passes_and_what_waited_is_answered() {
    let daemon = with_fault("/dev/null", "ENOMEM:when=1..5");
    let client = ask(&daemon);
    let mut answer = [0; 64];
    eventually("the datagram that waited is answered", || {
        client.recv(&mut answer).is_ok()
    });
    daemon.wait_for_log("cannot receive for the moment");
}

#[test]
fn a_shortage_that_lasts_is_no_busy_loop() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let daemon = with_fault(trace.to_str().unwrap(), "ENOMEM");
    let _client = ask(&daemon);
    let calls = || {
        std::fs::read_to_string(&trace)
            .unwrap_or_default()
            .lines()
            .count()
    };
    daemon.wait_for_log("cannot receive for the moment");
    // The log holds back to a line a second: the second one is a second of trying later.
    let lines = || {
        daemon
            .log()
            .matches("cannot receive for the moment")
            .count()
    };
    let (before, from) = (calls(), lines());
    eventually("another second has passed", || lines() > from);
    let tried = calls() - before;
    assert!(
        tried < 500,
        "{tried} calls in a second, one in 10 ms would be 100"
    );
}

#[test]
fn a_socket_that_is_unusable_ends_the_daemon_with_71() {
    let daemon = with_fault("/dev/null", "EBADF");
    let _client = ask(&daemon);
    let finished = daemon.wait();
    assert_eq!(finished.code, Some(71), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("cannot receive any more"),
        "{}",
        finished.stderr
    );
}
