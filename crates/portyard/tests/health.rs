//! `portyard health` with a real daemon, and with what is none.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use common::{beside, run};
use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, eventually};

fn echo() -> Daemon {
    let listener = "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    Daemon::build(beside("echo-tcp"))
        .config(&format!("admin.listen = \"tcp://127.0.0.1:0\"\n{listener}"))
        .start()
}

#[test]
fn a_daemon_that_serves_is_well_and_ready_and_one_that_drains_is_only_well() {
    let daemon = echo();
    let admin = daemon.endpoint("admin");
    assert_eq!(run(&["health", &admin], b"").expect(0).text(), "ok\n");
    let ready = run(&["health", "--ready", &admin], b"").expect(0);
    assert_eq!(ready.text(), "ready\n");
    let quiet = run(&["health", "--quiet", &admin], b"").expect(0);
    assert_eq!(quiet.text(), "");

    // It drains for as long as this connection has something to say.
    let client = Client::connect(&daemon.endpoint("echo"));
    client.send("a");
    assert_eq!(client.receive(1), b"a");
    daemon.signal(Signal::SIGTERM);
    eventually("it is not ready", || {
        client.send("a");
        client.receive(1);
        run(&["health", "--ready", &admin], b"").code == Some(1)
    });
    client.send("a");
    run(&["health", &admin], b"").expect(0);
}

#[test]
fn what_is_no_admin_endpoint_is_not_taken_for_one() {
    let daemon = echo();
    let echo = daemon.endpoint("echo");
    // It returns the request, and waits for more.
    let silent = run(&["health", "--timeout", "200ms", &echo], b"").expect(75);
    assert!(silent.stderr.contains("in time"), "{}", silent.stderr);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        // What is left unread would reset the connection, and with it the answer.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 1024];
            let length = peer.read(&mut piece).unwrap();
            assert_ne!(length, 0, "the request is cut short");
            request.extend_from_slice(&piece[..length]);
        }
        peer.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    let odd = run(&["health", &address], b"").expect(65);
    assert!(odd.stderr.contains("admin.listen"), "{}", odd.stderr);
    server.join().unwrap();
    run(&["health", &address], b"").expect(69);
}
