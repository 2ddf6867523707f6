//! Sockets that somebody else opened: systemd's, and an inetd's descriptor 0.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};

use portyard_testkit::{Client, Daemon, DaemonBuilder, End, eventually};

#[test]
fn each_passed_socket_serves_what_it_is_named_after() {
    let (echo, time) = (listener(), listener());
    let builder = daemon();
    let path = builder.dir().join("passed.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let places = [echo.local_addr().unwrap(), time.local_addr().unwrap()];
    let daemon = builder
        .pass(echo, "echo")
        .pass(time, "time")
        .pass(unix, "timestamp")
        .start();
    assert!(Client::connect(&format!("tcp://{}", places[0])).is_echoed());
    assert_eq!(
        Client::connect(&format!("tcp://{}", places[1]))
            .exchange("")
            .len(),
        4
    );
    let stamped = Client::connect(&format!("unix:{}", path.display())).exchange("hi\n");
    assert!(stamped.ends_with(b"] hi\n"), "{stamped:?}");
    assert_eq!(daemon.address("echo"), places[0]);
    // A socket that is not ours stays when we go.
    assert_eq!(daemon.terminate().code, Some(0));
    assert!(path.exists());
}

#[test]
fn what_came_while_nobody_served_is_served() {
    let socket = listener();
    let early = Client::connect(&format!("tcp://{}", socket.local_addr().unwrap()));
    early.send("ping");
    let _daemon = daemon().pass(socket, "echo").start();
    assert_eq!(early.receive(4), b"ping");
}

#[test]
fn a_restart_on_a_passed_socket_loses_no_connection() {
    let socket = listener();
    let address = socket.local_addr().unwrap();
    let first = daemon().pass(socket.try_clone().unwrap(), "echo").start();
    assert!(Client::try_connect(address).unwrap().is_echoed());
    assert_eq!(first.terminate().code, Some(0));
    let between = Client::try_connect(address).unwrap();
    between.send("ping");
    let _second = daemon().pass(socket, "echo").start();
    assert_eq!(between.receive(4), b"ping");
}

#[test]
fn a_refused_reload_keeps_the_passed_sockets_for_the_next_one() {
    let (echo, time, taken) = (listener(), listener(), listener());
    let address = time.local_addr().unwrap();
    let with = |more: &str| {
        format!("[[listener]]\nservice = \"echo\"\nlisten = [\"systemd:echo\"]\n{more}")
    };
    let wanted = "[[listener]]\nservice = \"time\"\nlisten = [\"systemd:time\"]\n";
    let daemon = daemon()
        .pass(echo, "echo")
        .pass(time, "time")
        .config(&with(""))
        .start();
    let place = taken.local_addr().unwrap();
    let wrong = format!("[[listener]]\nservice = \"time\"\nlisten = [\"tcp://{place}\"]\n");
    daemon.rewrite_config(&with(&format!("{wanted}{wrong}")));
    assert!(daemon.reload().contains("in use"));
    daemon.rewrite_config(&with(wanted));
    let status = daemon.reload();
    assert!(status.starts_with("2 listeners"), "{status}");
    assert_eq!(Client::try_connect(address).unwrap().exchange("").len(), 4);
}

#[test]
fn a_passed_socket_that_was_taken_out_can_be_put_back() {
    let (echo, time) = (listener(), listener());
    let address = time.local_addr().unwrap();
    let one = "[[listener]]\nservice = \"echo\"\nlisten = [\"systemd:echo\"]\n";
    let two = "[[listener]]\nservice = \"time\"\nlisten = [\"systemd:time\"]\n";
    let both = format!("{one}{two}");
    let daemon = daemon()
        .pass(echo, "echo")
        .pass(time, "time")
        .config(&both)
        .start();
    daemon.rewrite_config(one);
    assert!(daemon.reload().starts_with("1 listeners"));
    daemon.rewrite_config(&both);
    let status = daemon.reload();
    assert!(status.starts_with("2 listeners"), "{status}");
    assert_eq!(Client::try_connect(address).unwrap().exchange("").len(), 4);
}

#[test]
fn several_sockets_of_one_name_and_those_without_a_name_find_their_service() {
    let (one, two, unnamed) = (listener(), listener(), listener());
    let all = [&one, &two, &unnamed].map(|socket| socket.local_addr().unwrap());
    let daemon = daemon()
        .pass(one, "echo")
        .pass(two, "echo")
        .pass(unnamed, "x.socket")
        .start();
    for address in all {
        assert!(Client::try_connect(address).unwrap().is_echoed());
    }
    assert_eq!(daemon.addresses("echo").len(), 3);
}

#[test]
fn a_passed_socket_that_cannot_be_served_is_78_and_says_why() {
    let wrong = [
        (daemon().pass(listener(), "echoo"), "echoo"),
        (
            daemon().pass(UdpSocket::bind("127.0.0.1:0").unwrap(), "echo"),
            "ListenStream=",
        ),
        (
            daemon().pass(tempfile::tempfile().unwrap(), "echo"),
            "socket",
        ),
    ];
    for (builder, word) in wrong {
        let finished = builder.run();
        assert_eq!(finished.code, Some(78), "{word}: {}", finished.stderr);
        assert!(finished.stderr.contains(word), "{}", finished.stderr);
    }
}

#[test]
fn a_manifest_that_does_not_hold_is_78_and_one_for_another_process_is_ignored() {
    let wrong = [
        (daemon().env("LISTEN_FDS", "1"), "LISTEN_PID"),
        (
            daemon().env("LISTEN_FDS", "many").env("LISTEN_PID", "1"),
            "many",
        ),
        (
            daemon()
                .pass(listener(), "echo")
                .env("LISTEN_FDNAMES", "a:b"),
            "2 names for 1",
        ),
        (
            daemon()
                .pass(listener(), "echo")
                .env("LISTEN_FDS", "2")
                .env("LISTEN_FDNAMES", "a:b"),
            "4",
        ),
    ];
    for (builder, word) in wrong {
        let finished = builder.run();
        assert_eq!(finished.code, Some(78), "{word}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(word),
            "{word}: {}",
            finished.stderr
        );
    }
    let other = daemon().env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let daemon = other.listen("tcp://127.0.0.1:0=echo").start();
    assert!(Client::connect(&daemon.endpoint("echo")).is_echoed());
}

#[test]
fn a_connection_on_descriptor_0_is_served_and_then_the_process_ends() {
    let (ours, theirs) = connection();
    let daemon = daemon().stdin(theirs).arg("--inetd=timestamp").start();
    ours.send("hi\r\n");
    assert!(ours.receive_line().ends_with("] hi\r\n"));
    ours.send_end();
    assert_eq!(ours.end(), End::Fin);
    drop(ours);
    let finished = daemon.wait();
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""));
}

#[test]
fn a_unix_connection_on_descriptor_0_is_served_too() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let daemon = daemon().stdin(theirs).arg("--inetd=daytime").start();
    let text = std::io::read_to_string(&ours).unwrap();
    assert_eq!(text.len(), 26, "{text}");
    drop(ours);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn a_listening_descriptor_0_is_served_until_nothing_comes_any_more() {
    let socket = listener();
    let address = socket.local_addr().unwrap();
    let text = "inetd_idle = \"500ms\"\n";
    let daemon = daemon()
        .stdin(socket.try_clone().unwrap())
        .config(text)
        .arg("--inetd")
        .start();
    let lasting = Client::try_connect(address).unwrap();
    for _ in 0..5 {
        assert!(Client::try_connect(address).unwrap().is_echoed());
    }
    eventually("it is quiet", || {
        lasting.is_silent_for(std::time::Duration::from_secs(1))
    });
    assert!(lasting.is_echoed(), "it left while somebody was there");
    drop(lasting);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn descriptor_0_that_is_no_socket_is_78() {
    let finished = daemon().arg("--inetd").run();
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("start us from an inetd"),
        "{}",
        finished.stderr
    );
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Both ends of a connection.
fn connection() -> (Client, TcpStream) {
    let socket = listener();
    let ours = Client::try_connect(socket.local_addr().unwrap()).unwrap();
    (ours, socket.accept().unwrap().0)
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}
