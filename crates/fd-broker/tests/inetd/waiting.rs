//! Programs that have the socket itself: datagrams, and streams with `wait`.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, eventually};

use crate::{
    build, connect, datagrams, lives, ours, python, reload, running, service, start, started,
};

/// Answers datagrams in capitals until none comes for a while, as in.tftpd lingers.
const UPPER: &str = "import os, socket\n\
    s = socket.socket(fileno=0)\n\
    s.settimeout(0.3)\n\
    try:\n    \
        while True:\n        \
            data, peer = s.recvfrom(4096)\n        \
            s.sendto(b'%d ' % os.getpid() + data.upper(), peer)\n\
    except TimeoutError:\n    pass";

fn client(daemon: &Daemon, name: &str) -> UdpSocket {
    client_from(daemon, name, "127.0.0.1")
}

fn client_from(daemon: &Daemon, name: &str, source: &str) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).unwrap();
    socket.connect(daemon.address(name)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

fn ask(client: &UdpSocket, request: &str) -> (i32, String) {
    client.send(request.as_bytes()).unwrap();
    let mut buffer = [0; 4096];
    let length = client.recv(&mut buffer).unwrap();
    let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let (pid, text) = said.split_once(' ').unwrap();
    (pid.parse().unwrap(), text.into())
}

#[test]
fn one_process_answers_all_datagrams_and_the_next_starts_another() {
    let daemon = start(&datagrams("upper", UPPER, ""));
    let (one, two) = (client(&daemon, "upper"), client(&daemon, "upper"));
    let (pid, text) = ask(&one, "hello");
    assert_eq!(text, "HELLO");
    for n in 0..50 {
        let client = if n % 2 == 0 { &one } else { &two };
        assert_eq!(ask(client, &format!("n{n}")), (pid, format!("N{n}")));
    }
    eventually("they are counted", || started(&daemon, "upper") == 1);
    eventually("it has left", || running(&daemon, "upper") == 0);
    let (other, _) = ask(&one, "again");
    assert_ne!(other, pid);
    assert_eq!(
        daemon.count("portyard_programs_unread_total{name=\"upper\"}"),
        0
    );
}

/// openbsd-inetd starts such a program until it takes the service for broken; xinetd as well.
#[test]
fn a_program_that_reads_nothing_is_not_spun_and_its_datagram_is_thrown_away_in_the_end() {
    let restart = "restart = { delay = \"50ms\" }";
    let daemon = start(&datagrams("idle", "pass", restart));
    let client = client(&daemon, "idle");
    let begun = Instant::now();
    client.send(b"poison").unwrap();
    daemon.wait_for_log("a datagram that nobody reads is thrown away");
    // Three starts, with 50, 100 and 200 ms between.
    assert!(begun.elapsed() >= Duration::from_millis(300));
    eventually("they are counted", || started(&daemon, "idle") == 3);
    assert_eq!(
        daemon.count("portyard_programs_unread_total{name=\"idle\"}"),
        3
    );
    let unread = "the program left what had come unread";
    assert!(daemon.log().contains(unread), "{}", daemon.log());
    // The service is still on.
    client.send(b"more").unwrap();
    eventually("it is started again", || started(&daemon, "idle") >= 4);
}

#[test]
fn a_program_that_is_not_there_is_tried_with_growing_waits() {
    let table = service("none", &["/nonexistent"], "restart = { delay = \"100ms\" }")
        .replace("tcp://", "udp://");
    let daemon = start(&table);
    client(&daemon, "none").send(b"x").unwrap();
    daemon.wait_for_log("/nonexistent cannot be run");
    daemon.wait_for_log("a datagram that nobody reads is thrown away");
    assert_eq!(
        daemon.count("portyard_programs_failed_total{name=\"none\"}"),
        3
    );
}

#[test]
fn a_denied_source_starts_no_program() {
    let daemon = start(&datagrams(
        "upper",
        UPPER,
        "access = { rules = [\"deny 127.0.0.2\"] }",
    ));
    client_from(&daemon, "upper", "127.0.0.2")
        .send(b"hello")
        .unwrap();
    let refused = "portyard_service_refused_total{name=\"upper\",reason=\"access\"}";
    eventually("it is refused", || daemon.count(refused) == 1);
    assert_eq!(started(&daemon, "upper"), 0);
    assert_eq!(ask(&client(&daemon, "upper"), "x").1, "X");
}

#[test]
fn a_stream_program_that_waits_accepts_by_itself() {
    let accept = "import os, socket\n\
        s = socket.socket(fileno=0)\n\
        s.settimeout(0.5)\n\
        try:\n    \
            while True:\n        \
                c, _ = s.accept()\n        \
                c.sendall(b'%d\\n' % os.getpid())\n        \
                c.close()\n\
        except TimeoutError:\n    pass";
    let echo = ours("echo-tcp");
    let daemon = start(
        &[
            python("accept", accept, "wait = true"),
            service("echo", &[&echo, "--inetd=echo"], "wait = true"),
        ]
        .concat(),
    );
    let pids: Vec<String> = (0..10)
        .map(|_| connect(&daemon, "accept").receive_line())
        .collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    let clients: Vec<Client> = (0..10).map(|_| connect(&daemon, "echo")).collect();
    assert!(clients.iter().all(Client::is_echoed));
    eventually("they are counted", || started(&daemon, "echo") == 1);
    // When it has left, the next connection starts another.
    eventually("it has left", || running(&daemon, "accept") == 0);
    assert_ne!(connect(&daemon, "accept").receive_line(), pids[0]);
}

#[test]
fn a_stream_program_that_accepts_nobody_is_not_spun() {
    let table = service(
        "none",
        &["/bin/true"],
        "wait = true\nrestart = { delay = \"100ms\" }",
    );
    let daemon = start(&table);
    let _waiting = connect(&daemon, "none");
    eventually("it was started thrice", || started(&daemon, "none") >= 3);
    let begun = Instant::now();
    let before = started(&daemon, "none");
    // By now the wait is 400 ms or longer.
    std::thread::sleep(Duration::from_millis(300));
    let soon = started(&daemon, "none") - before;
    assert!(soon <= 1, "{soon} starts within {:?}", begun.elapsed());
}

#[test]
fn a_drain_ends_programs_that_wait() {
    let echo = ours("echo-tcp");
    let tables = service("echo", &[&echo, "--inetd=echo"], "wait = true");
    let daemon = build("grace = \"100s\"", &tables).start();
    let client = connect(&daemon, "echo");
    assert!(client.is_echoed());
    daemon.signal(Signal::SIGTERM);
    // echo-tcp drains by itself when it is asked to end.
    let finished = daemon.wait();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn a_reload_changes_the_program_of_the_next_start_and_disturbs_none_that_runs() {
    let echo = "import os, socket\ns = socket.socket(fileno=0)\nwhile True:\n    data, peer = s.recvfrom(4096)\n    s.sendto(b'%d ' % os.getpid() + data, peer)\n    if data == b'end':\n        break";
    let daemon = start(&datagrams("u", echo, ""));
    let asker = client(&daemon, "u");
    let (pid, _) = ask(&asker, "one");
    let said = reload(&daemon, &datagrams("u", UPPER, ""));
    assert!(!said.contains("refused"), "{said}");
    assert_eq!(ask(&asker, "two"), (pid, "two".into()));
    ask(&asker, "end");
    eventually("it has left", || !lives(pid));
    assert_eq!(ask(&asker, "three").1, "THREE");
    // A service that is gone lets its program finish, and closes its socket then.
    let (pid, _) = ask(&asker, "four");
    let address = daemon.address("u");
    let said = reload(&daemon, &service("other", &["/bin/cat"], ""));
    assert!(!said.contains("refused"), "{said}");
    assert_eq!(ask(&asker, "five").0, pid);
    eventually("the port is free", || UdpSocket::bind(address).is_ok());
    assert!(!lives(pid));
}
