//! time-udp started by inetds and by systemd: it serves the socket it is handed, and leaves when
//! there is nothing to do.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;
#[path = "common/launcher.rs"]
mod launcher;

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{is_ctime, time_udp};
use launcher::{
    Kind, Launcher, PATIENCE, Service, ask, ask_until_answered, config, datagrams, free_port, user,
};
use portyard_testkit::eventually;

const TIME_UDP: &str = env!("CARGO_BIN_EXE_time-udp");

/// A `wait` service on a free port.
fn wait(arguments: &str) -> Service<'_> {
    let (port, kind) = (free_port(), Kind::Datagram);
    Service {
        port,
        kind,
        wait: true,
        program: TIME_UDP,
        arguments,
    }
}

#[test]
fn xinetd_hands_over_its_datagram_socket() {
    let (ctime, echo) = (wait("--inetd"), wait("--inetd=echo"));
    let launcher = Launcher::xinetd(&[ctime, echo]);
    let client = datagrams(ctime.port);
    // The datagram that made xinetd start us is the first to be answered.
    assert!(is_ctime(&text(ask(&client, b""))));
    let client = datagrams(echo.port);
    for n in 0..200_u8 {
        assert_eq!(ask(&client, &[n]), [n]);
    }
    assert_eq!(
        launcher.children().len(),
        2,
        "one process for all datagrams of a service"
    );
}

#[test]
fn openbsd_inetd_hands_over_its_datagram_socket() {
    let (ctime, echo) = (wait("--inetd"), wait("--inetd=echo"));
    let launcher = Launcher::inetd(&[ctime, echo]);
    assert!(is_ctime(&text(ask(&datagrams(ctime.port), b""))));
    let client = datagrams(echo.port);
    // Its own services refuse to answer loopback; ours, on its socket, does.
    for n in 0..200_u8 {
        assert_eq!(ask(&client, &[n]), [n]);
    }
    assert_eq!(
        launcher.children().len(),
        2,
        "one process for all datagrams of a service"
    );
}

#[test]
fn a_process_without_work_leaves_and_the_next_datagram_starts_another() {
    let (_directory, file) = config("inetd_idle = \"100ms\"\n");
    let arguments = format!("--config {} --inetd=echo", file.display());
    for start in [Launcher::xinetd, Launcher::inetd] {
        let service = wait(&arguments);
        let launcher = start(&[service]);
        let client = datagrams(service.port);
        let mut seen = Vec::new();
        for n in 0..3_u8 {
            // xinetd empties the socket when a process has ended: what comes too soon is lost.
            ask_until_answered(&client, &[n]);
            // On a busy machine it may have left already.
            let children = launcher.children();
            assert!(children.len() <= 1, "{children:?}");
            assert!(
                children.iter().all(|child| !seen.contains(child)),
                "the old process is still there"
            );
            seen.extend(children);
            eventually("it has left", || launcher.children().is_empty());
        }
        assert!(seen.len() > 1, "{seen:?}");
    }
}

/// The moment between the last look at the socket and the exit belongs to nobody: what comes then
/// must wait in the socket for the next process. (Not under xinetd, which empties the socket
/// when a process has ended, whatever is there.)
#[test]
fn no_datagram_is_lost_between_two_processes() {
    let (_directory, file) = config("inetd_idle = \"50ms\"\n");
    let arguments = format!("--config {} --inetd=echo", file.display());
    let service = wait(&arguments);
    let _launcher = Launcher::inetd(&[service]);
    let client = datagrams(service.port);
    for n in 0..60_u8 {
        assert_eq!(ask(&client, &[n]), [n]);
        // Around the time at which it leaves, and never the same.
        std::thread::sleep(Duration::from_micros(45_000 + u64::from(n) * 400));
    }
}

#[test]
fn a_bad_configuration_under_an_inetd_sends_nothing_to_the_peer() {
    let (_directory, bad) = config("nonsense = 1\n");
    for arguments in [
        format!("--config {} --inetd=ctime", bad.display()),
        "--inetd=nonsense".into(),
        "--no-such-option".into(),
        "--config /nonexistent.toml --inetd".into(),
    ] {
        // As an inetd does it: 0, 1 and 2 are the socket; here with a peer for all that is written.
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let descriptor = || Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()));
        let status = Command::new(TIME_UDP)
            .args(arguments.split(' '))
            .stdin(descriptor())
            .stdout(descriptor())
            .stderr(descriptor())
            .status()
            .unwrap();
        let mut buffer = [0; 4096];
        if let Ok(length) = ours.recv(&mut buffer) {
            panic!(
                "{arguments}: the peer got {}",
                buffer[..length].escape_ascii()
            );
        }
        assert!(
            [64, 78].contains(&status.code().unwrap()),
            "{arguments}: {status}"
        );
    }
}

#[test]
fn log_lines_never_go_to_the_socket() {
    let service = wait("--inetd=echo --log-level=trace");
    let _launcher = Launcher::xinetd(&[service]);
    let client = datagrams(service.port);
    for n in 0..50_u8 {
        assert_eq!(ask(&client, &[n]), [n]);
    }
    client.set_nonblocking(true).unwrap();
    assert!(client.recv(&mut [0; 64]).is_err(), "something else came");
}

#[test]
fn systemd_socket_activate_passes_a_datagram_socket() {
    let port = free_port();
    let launcher = activate(&["-d", "-l", &format!("127.0.0.1:{port}")], &[]);
    // Nobody named it: the first service of the table.
    assert!(
        is_ctime(&text(ask(&datagrams(port), b""))),
        "{}",
        launcher.log()
    );
}

#[test]
fn systemd_socket_activate_passes_several_by_name() {
    let (ctime, echo, fib) = (free_port(), free_port(), free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let launcher = activate(
        &[
            "-d",
            "-l",
            &at(ctime),
            "-l",
            &at(echo),
            "-l",
            &at(fib),
            "--fdname=ctime:echo:fib",
        ],
        &[],
    );
    assert_eq!(
        ask(&datagrams(echo), b"hello"),
        b"hello",
        "{}",
        launcher.log()
    );
    assert_eq!(ask(&datagrams(fib), b"10"), b"55");
    assert!(is_ctime(&text(ask(&datagrams(ctime), b""))));
}

#[test]
fn a_configuration_picks_passed_sockets_by_name() {
    let (time, rest) = (free_port(), free_port());
    let (_directory, file) = config(
        "[[listener]]\nservice = \"time\"\nlisten = [\"systemd:clock\"]\n\
         [[listener]]\nservice = \"echo\"\nlisten = [\"systemd\"]\n",
    );
    let at = |port: u16| format!("127.0.0.1:{port}");
    let launcher = activate(
        &[
            "-d",
            "-l",
            &at(rest),
            "-l",
            &at(time),
            "--fdname=whatever:clock",
        ],
        &["--config", file.to_str().unwrap()],
    );
    assert_eq!(ask(&datagrams(time), b"").len(), 4, "{}", launcher.log());
    assert_eq!(ask(&datagrams(rest), b"hello"), b"hello");
}

#[test]
fn a_name_that_is_no_service_is_78() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let finished = time_udp().pass(socket, "nonsense").run();
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("nonsense"), "{}", finished.stderr);
}

#[test]
fn a_passed_wildcard_socket_answers_from_the_address_that_was_asked() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let _daemon = time_udp().pass(socket, "echo").start();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = SocketAddr::from(([127, 0, 0, 9], port));
    client.connect(server).unwrap();
    assert_eq!(ask(&client, b"hello"), b"hello");
}

#[test]
fn a_passed_socket_outlives_the_daemon() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..3 {
        let daemon = time_udp().pass(socket.try_clone().unwrap(), "echo").start();
        assert_eq!(ask(&client, b"hello"), b"hello");
        assert_eq!(daemon.terminate().code, Some(0));
        // It waits for the next process.
        client.send(b"in between").unwrap();
        let daemon = time_udp().pass(socket.try_clone().unwrap(), "echo").start();
        let mut buffer = [0; 64];
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"in between");
        daemon.terminate();
    }
}

#[test]
fn listen_fds_of_another_process_are_left_alone() {
    let daemon = time_udp()
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .listen("udp://127.0.0.1:0=echo")
        .start();
    let client = datagrams(daemon.address("echo").port());
    assert_eq!(ask(&client, b"hello"), b"hello");
    drop(daemon);
    let finished = time_udp()
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .listen("systemd:echo=echo")
        .run();
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("process 1"), "{}", finished.stderr);
}

#[test]
fn what_is_passed_must_fit() {
    let stream = TcpListener::bind("127.0.0.1:0").unwrap();
    let finished = time_udp().pass(stream, "echo").run();
    assert_eq!(finished.code, Some(78));
    assert!(
        finished.stderr.contains("ListenDatagram="),
        "{}",
        finished.stderr
    );
    let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
    connected.connect("127.0.0.1:9").unwrap();
    let finished = time_udp().pass(connected, "echo").run();
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("connected"), "{}", finished.stderr);
}

#[test]
fn descriptor_0_that_is_no_socket_is_78() {
    let null = fs::File::open("/dev/null").unwrap();
    let status = Command::new(TIME_UDP)
        .arg("--inetd")
        .stdin(null)
        .output()
        .unwrap();
    assert_eq!(status.status.code(), Some(78));
    let said = String::from_utf8(status.stderr).unwrap();
    assert!(said.contains("descriptor 0 is not a socket"), "{said}");
}

#[test]
fn the_shipped_inetd_files_work() {
    let path = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../configs")
            .join(name)
    };
    let read = |name: &str| {
        fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    // Places and people are those of an installation; all else stays as it is.
    let here = |text: &str| {
        text.replace("/usr/bin/time-udp", TIME_UDP)
            .replace(
                "/etc/portyard/time-udp.toml",
                path("time-udp.toml").to_str().unwrap(),
            )
            .replace("nobody", &user())
    };
    let (time, ctime) = (free_port(), free_port());
    let blocks = here(&read("inetd/xinetd.conf"));
    let blocks = only(&blocks, &["defaults", "service time", "service ctime"])
        .replace("= 37\n", &format!("= {time}\n"))
        .replace("= 3737\n", &format!("= {ctime}\n"));
    let launcher = Launcher::xinetd_with(&blocks);
    assert_eq!(ask(&datagrams(time), b"").len(), 4, "{}", launcher.log());
    assert!(
        is_ctime(&text(ask(&datagrams(ctime), b""))),
        "{}",
        launcher.log()
    );
    drop(launcher);

    let (time, ctime) = (free_port(), free_port());
    let mut lines = String::new();
    let all = here(&read("inetd/inetd.conf"));
    for line in all
        .lines()
        .filter(|line| line.contains(TIME_UDP) && !line.starts_with('#'))
    {
        let (name, rest) = line.split_once(' ').unwrap();
        let port = match name {
            "time" => time,
            "3737" => ctime,
            other => panic!("a line for {other} is not tested here"),
        };
        lines += &[&port.to_string(), " ", rest, "\n"].concat();
    }
    let launcher = Launcher::inetd_with(&lines);
    assert_eq!(
        ask(&datagrams(time), b"").len(),
        4,
        "{lines}{}",
        launcher.log()
    );
    // That line is for IPv6.
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client
        .connect((std::net::Ipv6Addr::LOCALHOST, ctime))
        .unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(
        is_ctime(&text(ask(&client, b""))),
        "{lines}{}",
        launcher.log()
    );
}

/// systemd-socket-activate for time-udp.
fn activate(options: &[&str], arguments: &[&str]) -> Launcher {
    Launcher::socket_activate(options, TIME_UDP, arguments)
}

/// The blocks of an xinetd.conf that begin with one of these lines.
fn only(text: &str, wanted: &[&str]) -> String {
    let blocks = text.split_inclusive("\n}\n");
    let starts = |block: &&str| block.lines().any(|line| wanted.contains(&line));
    blocks.filter(starts).collect()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
