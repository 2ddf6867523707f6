//! echo-tcp started by inetds, tcpserver and systemd: it serves the socket it is handed, says
//! nothing else into it, and leaves when there is nothing to do.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "../../time-udp/tests/common/launcher.rs"]
mod launcher;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use launcher::{
    Kind, Launcher, PATIENCE, Service, config, connect, converse, exchange, free_port, user,
};
use portyard_testkit::{Daemon, DaemonBuilder, eventually};

const ECHO_TCP: &str = env!("CARGO_BIN_EXE_echo-tcp");

/// A stream service on a free port.
fn stream(wait: bool, arguments: &str) -> Service<'_> {
    Service {
        port: free_port(),
        kind: Kind::Stream,
        wait,
        program: ECHO_TCP,
        arguments,
    }
}

fn echo_tcp() -> DaemonBuilder {
    Daemon::build(ECHO_TCP)
}

#[test]
fn nowait_serves_one_connection_and_ends() {
    for start in [Launcher::xinetd, Launcher::inetd] {
        let (echo, daytime) = (stream(false, "--inetd"), stream(false, "--inetd=daytime"));
        let launcher = start(&[echo, daytime]);
        for _ in 0..5 {
            assert_eq!(
                exchange(echo.port, b"hello"),
                b"hello",
                "{}",
                launcher.log()
            );
        }
        assert_eq!(exchange(daytime.port, b"").len(), 26);
        eventually("each process has ended", || launcher.children().is_empty());
    }
}

#[test]
fn nowait_serves_several_connections_side_by_side() {
    for start in [Launcher::xinetd, Launcher::inetd] {
        let echo = stream(false, "--inetd=echo");
        let launcher = start(&[echo]);
        let mut streams: Vec<TcpStream> = (0..4).map(|_| connect(echo.port)).collect();
        let mut buffer = [0; 1];
        for (n, stream) in (0..).zip(&mut streams) {
            stream.write_all(&[n]).unwrap();
        }
        for (n, stream) in (0..).zip(&mut streams) {
            stream.read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [n]);
        }
        assert_eq!(launcher.children().len(), 4, "a process for each");
    }
}

#[test]
fn wait_serves_all_connections_with_one_process() {
    for start in [Launcher::xinetd, Launcher::inetd] {
        let echo = stream(true, "--inetd=echo");
        let launcher = start(&[echo]);
        // The connection that made it start is the first to be served.
        for n in 0..50_u8 {
            assert_eq!(
                exchange(echo.port, &[n; 100]),
                [n; 100],
                "{}",
                launcher.log()
            );
        }
        let many: Vec<TcpStream> = (0..20).map(|_| connect(echo.port)).collect();
        for stream in many {
            assert_eq!(converse(stream, b"hello"), b"hello");
        }
        assert_eq!(launcher.children().len(), 1);
    }
}

#[test]
fn a_wait_process_without_work_leaves_and_the_next_connection_starts_another() {
    let (_directory, file) = config("inetd_idle = \"100ms\"\n");
    let arguments = format!("--config {} --inetd=echo", file.display());
    for start in [Launcher::xinetd, Launcher::inetd] {
        let echo = stream(true, &arguments);
        let launcher = start(&[echo]);
        let mut seen = Vec::new();
        for n in 0..3_u8 {
            let mut stream = connect(echo.port);
            stream.write_all(&[n]).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let children = launcher.children();
            assert_eq!(children.len(), 1);
            assert!(
                !seen.contains(&children[0]),
                "the old process is still there"
            );
            seen.extend(children);
            drop(stream);
            eventually("it has left", || launcher.children().is_empty());
        }
    }
}

#[test]
fn a_wait_process_with_an_open_connection_does_not_leave() {
    let (_directory, file) = config("inetd_idle = \"20ms\"\n");
    let arguments = format!("--config {} --inetd=echo", file.display());
    let echo = stream(true, &arguments);
    let launcher = Launcher::xinetd(&[echo]);
    let mut open = connect(echo.port);
    open.write_all(b"1").unwrap();
    open.read_exact(&mut [0]).unwrap();
    let process = launcher.children();
    // Many times the idle time.
    std::thread::sleep(std::time::Duration::from_millis(400));
    open.write_all(b"2").unwrap();
    open.read_exact(&mut [0]).unwrap();
    assert_eq!(launcher.children(), process);
}

/// A connection that comes while the old process leaves waits in the backlog for the next.
#[test]
fn no_connection_is_lost_between_two_wait_processes() {
    let (_directory, file) = config("inetd_idle = \"50ms\"\n");
    let arguments = format!("--config {} --inetd=echo", file.display());
    for start in [Launcher::xinetd, Launcher::inetd] {
        let echo = stream(true, &arguments);
        let launcher = start(&[echo]);
        for n in 0..30_u8 {
            assert_eq!(exchange(echo.port, &[n; 9]), [n; 9], "{}", launcher.log());
            // Around the time at which it leaves, and never the same.
            std::thread::sleep(std::time::Duration::from_micros(
                45_000 + u64::from(n) * 800,
            ));
        }
    }
}

#[test]
fn tcpserver_hands_over_connections() {
    let port = free_port();
    let launcher = Launcher::tcpserver(port, ECHO_TCP, &["--inetd=echo", "--log-level=debug"]);
    for _ in 0..5 {
        assert_eq!(exchange(port, b"hello"), b"hello", "{}", launcher.log());
    }
    // tcpserver keeps descriptor 2 for itself, so lines may go there.
    let half = connect(port);
    assert_eq!(converse(half, &vec![7; 100_000]), vec![7; 100_000]);
}

#[test]
fn systemd_socket_activate_passes_a_listening_socket() {
    let port = free_port();
    let launcher = activate(&["-l", &format!("127.0.0.1:{port}")], &[]);
    for _ in 0..5 {
        // Nobody named it: the first service of the table.
        assert_eq!(exchange(port, b"hello"), b"hello", "{}", launcher.log());
    }
    assert!(
        launcher.children().is_empty(),
        "it became the daemon itself"
    );
}

#[test]
fn systemd_socket_activate_passes_several_sockets_by_name() {
    let (echo, daytime) = (free_port(), free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let launcher = activate(
        &["-l", &at(echo), "-l", &at(daytime), "--fdname=echo:daytime"],
        &[],
    );
    assert_eq!(exchange(daytime, b"").len(), 26, "{}", launcher.log());
    assert_eq!(exchange(echo, b"hello"), b"hello");
}

#[test]
fn systemd_socket_activate_passes_connections() {
    let port = free_port();
    let launcher = activate(&["-a", "-l", &format!("127.0.0.1:{port}")], &[]);
    for _ in 0..5 {
        assert_eq!(exchange(port, b"hello"), b"hello", "{}", launcher.log());
    }
    eventually("each process has ended", || launcher.children().is_empty());
}

#[test]
fn systemd_socket_activate_passes_connections_as_an_inetd_does() {
    let port = free_port();
    let options = ["-a", "--inetd", "-l", &format!("127.0.0.1:{port}")];
    let launcher = activate(&options, &["--inetd=daytime"]);
    for _ in 0..5 {
        assert_eq!(exchange(port, b"").len(), 26, "{}", launcher.log());
    }
}

#[test]
fn systemd_socket_activate_passes_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo");
    let launcher = activate(&["-l", path.to_str().unwrap(), "--fdname=echo"], &[]);
    let mut stream = None;
    eventually("somebody listens", || {
        stream = UnixStream::connect(&path).ok();
        stream.is_some()
    });
    let mut stream = stream.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    stream
        .read_exact(&mut buffer)
        .unwrap_or_else(|error| panic!("{error}: {}", launcher.log()));
    assert_eq!(&buffer, b"hello");
}

#[test]
fn a_passed_listener_outlives_the_daemon_with_its_backlog() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    for _ in 0..3 {
        let daemon = echo_tcp().pass(socket.try_clone().unwrap(), "echo").start();
        assert_eq!(exchange(port, b"hello"), b"hello");
        assert_eq!(daemon.terminate().code, Some(0));
        // systemd forbids shutdown(2) on such a socket: it must go on listening.
        let waiting = connect(port);
        let daemon = echo_tcp().pass(socket.try_clone().unwrap(), "echo").start();
        assert_eq!(converse(waiting, b"in between"), b"in between");
        daemon.terminate();
    }
}

#[test]
fn listen_fds_of_another_process_are_left_alone() {
    let other = || echo_tcp().env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let daemon = other().listen("tcp://127.0.0.1:0=echo").start();
    assert_eq!(exchange(daemon.address("echo").port(), b"hello"), b"hello");
    let finished = other().listen("systemd:echo=echo").run();
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("process 1"), "{}", finished.stderr);
}

#[test]
fn passed_sockets_that_do_not_fit_are_78_and_say_what_to_change() {
    let datagram = UdpSocket::bind("127.0.0.1:0").unwrap();
    let finished = echo_tcp().pass(datagram, "echo").run();
    assert_eq!(finished.code, Some(78));
    assert!(
        finished.stderr.contains("ListenStream="),
        "{}",
        finished.stderr
    );
    let finished = echo_tcp()
        .pass(TcpListener::bind("127.0.0.1:0").unwrap(), "ecko")
        .run();
    assert_eq!(finished.code, Some(78));
    assert!(finished.stderr.contains("'ecko'"), "{}", finished.stderr);
    for (variables, words) in [
        (&[("LISTEN_FDS", "1")][..], "LISTEN_PID"),
        (&[("LISTEN_FDS", "x"), ("LISTEN_PID", "1")], "'x'"),
    ] {
        let mut daemon = echo_tcp();
        for (name, value) in variables {
            daemon = daemon.env(*name, *value);
        }
        let finished = daemon.run();
        assert_eq!(finished.code, Some(78));
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}

#[test]
fn descriptor_0_that_is_no_socket_is_78() {
    let output = Command::new(ECHO_TCP)
        .arg("--inetd")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("descriptor 0 is not a socket"), "{said}");
}

#[test]
fn a_datagram_socket_on_descriptor_0_is_78_and_nothing_is_sent() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let output = as_inetd(&["--inetd"], socket);
    assert_eq!(output.status.code(), Some(78));
    peer.set_nonblocking(true).unwrap();
    assert!(peer.recv(&mut [0; 512]).is_err(), "the peer got something");
}

#[test]
fn whatever_is_wrong_the_peer_of_an_inetd_sees_the_end_and_no_byte() {
    let (_directory, bad) = config("nonsense = 1\n");
    for arguments in [
        &["--config", bad.to_str().unwrap(), "--inetd"][..],
        &["--config", "/nonexistent.toml", "--inetd"],
        &["--inetd=nonsense"],
        &["--no-such-option", "--inetd"],
        &["--inetd", "--log-level", "loud"],
        // Not what an inetd hands over.
        &["--listen", "fd:77=echo"],
        &["--listen", "systemd:echo=echo"],
    ] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let output = as_inetd(arguments, theirs);
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).unwrap();
        assert_eq!(heard.escape_ascii().to_string(), "", "{arguments:?}");
        assert!(
            [64, 78].contains(&output.status.code().unwrap()),
            "{arguments:?}: {output:?}"
        );
    }
}

#[test]
fn a_bad_configuration_under_a_real_inetd_is_the_end_and_no_byte() {
    let (_directory, bad) = config("nonsense = 1\n");
    let arguments = format!("--config {} --inetd", bad.display());
    for start in [Launcher::xinetd, Launcher::inetd] {
        let broken = stream(false, &arguments);
        let _launcher = start(&[broken]);
        let mut heard = Vec::new();
        let result = connect(broken.port).read_to_end(&mut heard);
        assert_eq!(heard.escape_ascii().to_string(), "");
        // Data of ours that nobody read would make it a reset; there was none.
        assert!(result.is_ok(), "{result:?}");
    }
}

#[test]
fn log_lines_never_go_to_the_peer() {
    for start in [Launcher::xinetd, Launcher::inetd] {
        for wait in [false, true] {
            let echo = stream(wait, "--inetd=echo --log-level=trace");
            let _launcher = start(&[echo]);
            for _ in 0..3 {
                assert_eq!(exchange(echo.port, b"hello"), b"hello");
            }
        }
    }
}

#[test]
fn a_half_close_reaches_through_an_inetd() {
    let echo = stream(false, "--inetd=echo");
    let _launcher = Launcher::xinetd(&[echo]);
    let big: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let stream = connect(echo.port);
    let reader = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let back = scope.spawn(move || {
            let mut all = Vec::new();
            (&reader).read_to_end(&mut all).unwrap();
            all
        });
        (&stream).write_all(&big).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(back.join().unwrap() == big, "what came back differs");
    });
}

#[test]
fn the_shipped_inetd_files_work() {
    let path = |name: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../configs/inetd")
            .join(name)
    };
    let read = |name: &str| {
        fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    // Places and people are those of an installation; all else stays as it is.
    let here = |text: &str| {
        text.replace("/usr/bin/echo-tcp", ECHO_TCP)
            .replace("nobody", &user())
    };
    let (echo, timestamp) = (free_port(), free_port());
    let blocks: String = here(&read("xinetd.conf"))
        .split_inclusive("\n}\n")
        .filter(|block| block.contains("defaults\n") || block.contains(ECHO_TCP))
        .collect();
    let blocks = blocks
        .replace("= 7\n", &format!("= {echo}\n"))
        .replace("= 7014\n", &format!("= {timestamp}\n"));
    let launcher = Launcher::xinetd_with(&blocks);
    assert_eq!(exchange(echo, b"hello"), b"hello", "{}", launcher.log());
    assert!(
        exchange(timestamp, b"hi\n").ends_with(b"] hi\n"),
        "{}",
        launcher.log()
    );
    drop(launcher);

    let (echo, daytime, timestamp) = (free_port(), free_port(), free_port());
    let mut lines = String::new();
    let all = here(&read("inetd.conf"));
    for line in all
        .lines()
        .filter(|line| line.contains(ECHO_TCP) && !line.starts_with('#'))
    {
        let (name, rest) = line.split_once(' ').unwrap();
        let port = match name {
            "echo" => echo,
            "daytime" => daytime,
            "7014" => timestamp,
            other => panic!("a line for {other} is not tested here"),
        };
        lines += &[&port.to_string(), " ", rest, "\n"].concat();
    }
    let launcher = Launcher::inetd_with(&lines);
    assert_eq!(
        exchange(echo, b"hello"),
        b"hello",
        "{lines}{}",
        launcher.log()
    );
    assert!(
        exchange(timestamp, b"hi\n").ends_with(b"] hi\n"),
        "{}",
        launcher.log()
    );
    // That line is for IPv6.
    let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, daytime)).unwrap();
    assert_eq!(converse(stream, b"").len(), 26, "{}", launcher.log());
}

/// Runs the program as an inetd does: descriptors 0, 1 and 2 are the socket.
fn as_inetd(arguments: &[&str], socket: impl Into<OwnedFd>) -> Output {
    let socket = socket.into();
    let copy = || Stdio::from(socket.try_clone().unwrap());
    let mut command = Command::new(ECHO_TCP);
    command
        .args(arguments)
        .stdin(copy())
        .stdout(copy())
        .stderr(copy());
    // What the command and we hold would keep the peer from seeing the end.
    let child = command.spawn().unwrap();
    drop((command, socket));
    child.wait_with_output().unwrap()
}

/// systemd-socket-activate for echo-tcp.
fn activate(options: &[&str], arguments: &[&str]) -> Launcher {
    Launcher::socket_activate(options, ECHO_TCP, arguments)
}
