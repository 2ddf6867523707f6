//! Listeners that are held: who gets them, and what restarts behind them.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::unistd::geteuid;
use portyard_core::holding::Retrieved;
use portyard_core::wire::hold::{Origin, Reason};
use portyard_testkit::{Client, Daemon, eventually, pythons};
use socket2::Socket;

use super::load::Load;
use super::{beside, broker, control, endpoint, free_port, holder, name, reason, socket};

/// A broker that holds a TCP socket as `web` and a UDP socket as `clock`.
fn holding(directory: &Path) -> Daemon {
    broker().config(&config(directory)).start()
}

fn config(directory: &Path) -> String {
    control(directory)
        + "[[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
           [[hold]]\nname = \"clock\"\nlisten = [\"udp://127.0.0.1:0\"]\n"
}

fn echo(directory: &Path) -> Daemon {
    Daemon::build(beside("echo-tcp"))
        .listen(endpoint(directory, "web") + "=echo")
        .start()
}

#[test]
fn sixty_restarts_behind_a_held_listener_refuse_and_reset_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let broker = holding(dir.path());
    let mut echo_tcp = echo(dir.path());
    let load = Load::start(4, broker.address("web"));
    for _ in 0..60 {
        load.wait_for(10);
        assert_eq!(echo_tcp.terminate().code, Some(0));
        echo_tcp = echo(dir.path());
    }
    load.wait_for(10);
    load.stop().is_perfect();
}

#[test]
fn without_a_holder_the_same_restarts_refuse_many() {
    let port = free_port();
    let start = || {
        Daemon::build(beside("echo-tcp"))
            .listen(format!("tcp://127.0.0.1:{port}=echo"))
            .start()
    };
    let mut echo_tcp = start();
    let load = Load::start(4, SocketAddr::from(([127, 0, 0, 1], port)));
    for _ in 0..5 {
        load.wait_for(10);
        assert_eq!(echo_tcp.terminate().code, Some(0));
        echo_tcp = start();
    }
    assert!(!load.stop().failed.is_empty());
}

#[test]
fn datagram_daemons_and_several_loops_share_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let broker = holding(dir.path());
    let time_udp = Daemon::build(beside("time-udp"))
        .config(&format!(
            "loops = 2\n[[listener]]\nservice = \"daytime\"\nlisten = [\"{}\"]\n",
            endpoint(dir.path(), "clock")
        ))
        .start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let ask = |what: &str| {
        client.send_to(b"", broker.address("clock")).unwrap();
        let mut answer = [0; 64];
        let length = client.recv(&mut answer).expect(what);
        assert!(answer[..length].ends_with(b"\r\n"));
    };
    ask("an answer");
    // A reload keeps the socket, and so does the next start.
    assert!(time_udp.reload().starts_with("1 listeners"));
    ask("an answer after a reload");
    assert_eq!(time_udp.terminate().code, Some(0));
    let between = UdpSocket::bind("127.0.0.1:0").unwrap();
    between.send_to(b"", broker.address("clock")).unwrap();
    let _next = Daemon::build(beside("time-udp"))
        .listen(endpoint(dir.path(), "clock") + "=daytime")
        .start();
    between
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert!(between.recv(&mut [0; 64]).unwrap() > 0);
}

#[test]
fn a_daemon_says_what_is_wrong_with_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = holding(dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let plain = elsewhere.path().join("control.sock");
    let _plain = std::os::unix::net::UnixListener::bind(&plain).unwrap();
    for (place, code, said) in [
        (endpoint(dir.path(), "clock"), 78, "is a datagram socket"),
        (
            endpoint(dir.path(), "nope"),
            78,
            "nothing is held under the name nope",
        ),
        (
            endpoint(elsewhere.path(), "web"),
            78,
            "is not a broker's control socket",
        ),
    ] {
        let run = Daemon::build(beside("echo-tcp")).listen(place).run();
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
}

#[test]
fn a_daemon_waits_for_a_broker_that_is_just_being_started() {
    let dir = tempfile::tempdir().unwrap();
    let place = endpoint(dir.path(), "web") + "=echo";
    let early = std::thread::spawn(move || Daemon::build(beside("echo-tcp")).listen(place).start());
    let broker = holding(dir.path());
    let _echo_tcp = early.join().unwrap();
    assert!(
        Client::try_connect(broker.address("web"))
            .unwrap()
            .is_echoed()
    );
}

#[test]
fn what_a_peer_stores_others_retrieve_until_it_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = holding(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = holder(dir.path());
    let app = name("app");
    peer.store(&app, &[listener.as_fd()], None, false).unwrap();
    drop(listener);
    // The socket lives on, and connections wait in it.
    let waiting = Client::try_connect(address).unwrap();
    let _echo_tcp = Daemon::build(beside("echo-tcp"))
        .listen(endpoint(dir.path(), "app") + "=echo")
        .start();
    waiting.send("ping");
    assert_eq!(waiting.receive(4), b"ping");
    let listed = peer.list().unwrap();
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["app", "clock", "web"]);
    assert_eq!(listed[0].origin, Origin::User(geteuid().as_raw()));
    assert_eq!(listed[0].retrieved, 1);
    assert_eq!(listed[0].sockets[0].1, format!("tcp://{address}"));
    assert_eq!(listed[2].origin, Origin::Configured);
    peer.delete(&app).unwrap();
    let refused = peer.retrieve(&app).unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::NoSuchName), "{refused}");
}

#[test]
fn only_sockets_that_listen_or_take_datagrams_are_held() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = holding(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (pair, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let unbound = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let file = tempfile::tempfile().unwrap();
    let (pipe, _end) = std::io::pipe().unwrap();
    let peer = holder(dir.path());
    for wrong in [
        connection.as_fd(),
        pair.as_fd(),
        unbound.as_fd(),
        file.as_fd(),
        pipe.as_fd(),
    ] {
        let refused = peer
            .store(&name("x"), &[listener.as_fd(), wrong], None, false)
            .unwrap_err();
        assert_eq!(reason(&refused), Some(Reason::WrongSocket), "{refused}");
    }
    let good = UdpSocket::bind("127.0.0.1:0").unwrap();
    let both = [listener.as_fd(), good.as_fd()];
    peer.store(&name("x"), &both, None, false).unwrap();
    let Retrieved::Sockets(sockets) = peer.retrieve(&name("x")).unwrap() else {
        panic!("not sockets");
    };
    let places = sockets
        .into_iter()
        .map(|socket| Socket::from(socket).local_addr().unwrap().as_socket());
    let wanted = [listener.local_addr().unwrap(), good.local_addr().unwrap()];
    assert!(places.eq(wanted.map(Some)));
}

#[test]
fn what_has_expired_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = holding(dir.path());
    let before = portyard_testkit::open_fds(broker.pid());
    let peer = holder(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let second = Some(Duration::from_secs(1));
    peer.store(&name("x"), &[listener.as_fd()], second, false)
        .unwrap();
    assert!(peer.retrieve(&name("x")).is_ok());
    drop(listener);
    broker.wait_for_log("expired");
    let refused = peer.retrieve(&name("x")).unwrap_err();
    assert_eq!(reason(&refused), Some(Reason::NoSuchName), "{refused}");
    eventually("nobody listens there any more", || {
        Client::try_connect(address).is_err()
    });
    drop(peer);
    eventually("all descriptors are closed", || {
        portyard_testkit::open_fds(broker.pid()) <= before
    });
}

#[test]
fn a_reload_holds_more_and_less_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let broker = holding(dir.path());
    let web = broker.address("web");
    let more = config(dir.path())
        .replace("clock", "other")
        .replace("udp://", "tcp://");
    broker.rewrite_config(&more);
    assert!(broker.reload().starts_with("1 listeners"));
    let listed = holder(dir.path()).list().unwrap();
    let names: Vec<&str> = listed.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["other", "web"]);
    assert_eq!(listed[1].sockets[0].1, format!("tcp://{web}"));
    // One that cannot be opened changes nothing.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let wrong = format!(
        "{more}[[hold]]\nname = \"taken\"\nlisten = [\"tcp://{}\"]\n",
        taken.local_addr().unwrap()
    );
    broker.rewrite_config(&wrong);
    assert!(broker.reload().contains("in use"));
    assert_eq!(holder(dir.path()).list().unwrap().len(), 2);
    // A name that a peer has stored is not taken from it.
    let peer = holder(dir.path());
    peer.store(&name("mine"), &[taken.as_fd()], None, false)
        .unwrap();
    let wrong = format!("{more}[[hold]]\nname = \"mine\"\nlisten = [\"tcp://127.0.0.1:0\"]\n");
    broker.rewrite_config(&wrong);
    assert!(broker.reload().contains("has stored something"));
}

#[test]
fn the_example_of_the_protocol_page_works_in_every_python() {
    let dir = tempfile::tempdir().unwrap();
    let broker = holding(dir.path());
    let page = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/protocols/holding.md"
    ));
    let example = page.split("```python\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let script = format!(
        "{example}\nimport sys\n\
         try:\n    retrieve(sys.argv[1], 'nope')\nexcept OSError as error:\n    print(error)\n\
         listener, = retrieve(sys.argv[1], 'web')\n\
         listener.setblocking(True)\n\
         client = socket.create_connection(listener.getsockname())\n\
         accepted, _ = listener.accept()\n\
         accepted.sendall(b'served')\n\
         print(client.recv(6).decode())\n"
    );
    let path = socket(dir.path()).display().to_string();
    // recv_fds came with 3.9.
    let pythons = pythons().into_iter().filter(|it| it.version >= (3, 9));
    let mut tried = 0;
    for python in pythons {
        let run = python.run(&script, &[&path]);
        assert_eq!(run.code, Some(0), "{:?}: {}", python.version, run.stderr);
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(
            lines,
            ["nothing is held under the name nope", "served"],
            "{:?}",
            python.version
        );
        tried += 1;
    }
    assert!(tried > 0 && broker.log().contains("retrieved"));
}
