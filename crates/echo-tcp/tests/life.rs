//! The life of a daemon: ready, drained, stopped, watched, and what it leaves behind.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portyard_testkit::{Client, Daemon, DaemonBuilder, End, eventually, raise_descriptor_limit};

#[test]
fn what_was_sent_before_a_sigterm_is_echoed_and_then_comes_the_end() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=echo").start();
    let (idle, busy) = (connect(&daemon, "echo"), connect(&daemon, "echo"));
    assert!(idle.is_echoed() && busy.is_echoed());
    // Stopped, the daemon finds the bytes, a connection and the signal all at once.
    daemon.signal(Signal::SIGSTOP);
    let text = vec![b'x'; 20_000];
    busy.send(&text);
    let queued = connect(&daemon, "echo");
    queued.send("I came before");
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    assert_eq!(busy.receive_all(), (text, End::Fin));
    assert_eq!(queued.receive_all(), (b"I came before".to_vec(), End::Fin));
    assert_eq!(idle.end(), End::Fin);
    drop((idle, busy, queued));
    let finished = daemon.wait();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    daemon.wait_for_notification("STOPPING=1");
}

#[test]
fn whoever_the_kernel_has_let_in_before_a_sigterm_is_served() {
    raise_descriptor_limit();
    let daemon = daemon().listen("tcp://127.0.0.1:0=echo").start();
    daemon.signal(Signal::SIGSTOP);
    let queued: Vec<_> = (0..1000).map(|_| connect(&daemon, "echo")).collect();
    for client in &queued {
        client.send("ping");
    }
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    for client in &queued {
        assert_eq!(client.receive_all(), (b"ping".to_vec(), End::Fin));
    }
    drop(queued);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn a_drain_takes_no_new_connections_and_says_that_it_is_not_ready() {
    let config = config("grace = \"1h\"", "sleep", "");
    let daemon = daemon().config(&config).start();
    let sleeper = connect(&daemon, "sleep");
    sleeper.send("0\n3000\n");
    assert_eq!(sleeper.receive_line(), "slept 0\n");
    daemon.signal(Signal::SIGTERM);
    eventually("it is not ready any more", || {
        daemon.admin_get("/readyz").0 == 503
    });
    assert_eq!(daemon.status()["state"], "draining");
    let refused = || match Client::try_connect(daemon.address("sleep")) {
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(_) => false,
    };
    eventually("new connections are refused", refused);
    assert_eq!(daemon.status()["state"], "draining");
}

#[test]
fn what_has_begun_when_a_sigterm_comes_is_finished() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=sleep").start();
    let sleeper = connect(&daemon, "sleep");
    sleeper.send("0\n1.5\n0.25\n");
    assert_eq!(sleeper.receive_line(), "slept 0\n");
    daemon.signal(Signal::SIGTERM);
    let wanted = b"slept 1.5\nslept 0.25\n".to_vec();
    assert_eq!(sleeper.receive_all(), (wanted, End::Fin));
    drop(sleeper);
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn what_does_not_end_is_cut_when_the_grace_period_is_over() {
    let config = config("grace = \"300ms\"", "sleep", "");
    let daemon = daemon().config(&config).start();
    let sleeper = connect(&daemon, "sleep");
    sleeper.send("0\n3000\n");
    assert_eq!(sleeper.receive_line(), "slept 0\n");
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("the grace period is over"),
        "{}",
        finished.stderr
    );
    assert_eq!(sleeper.end(), End::Reset);
}

#[test]
fn a_second_signal_leaves_at_once() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let config = config("grace = \"1h\"", "sleep", "");
        let daemon = daemon().config(&config).start();
        let sleeper = connect(&daemon, "sleep");
        sleeper.send("0\n3000\n");
        assert_eq!(sleeper.receive_line(), "slept 0\n");
        daemon.signal(Signal::SIGINT);
        daemon.wait_for_notification("STOPPING=1");
        // A reload in between changes nothing.
        daemon.signal(Signal::SIGHUP);
        assert!(daemon.try_wait().is_none());
        daemon.signal(second);
        let finished = daemon.wait();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert_eq!(sleeper.end(), End::Reset);
    }
}

#[test]
fn a_client_that_never_reads_does_not_hold_a_drain_beyond_its_grace() {
    let config = config("grace = \"500ms\"", "chargen", "");
    let daemon = daemon().config(&config).start();
    let clients: Vec<_> = (0..8)
        .map(|_| Client::connect_narrow(daemon.address("chargen"), 8192))
        .collect();
    let present = r#"portyard_connections{listener="chargen",service="chargen"}"#;
    eventually("all are served", || daemon.count(present) == 8);
    let start = Instant::now();
    assert_eq!(daemon.terminate().code, Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    drop(clients);
}

#[test]
fn the_service_manager_hears_of_every_step() {
    let config = config("grace = \"7s\"", "echo", "");
    let daemon = daemon()
        .config(&config)
        .env("WATCHDOG_USEC", "200000")
        .start();
    let ready = &daemon.notifications()[0];
    assert!(
        ready.contains("READY=1\n") && ready.contains("STATUS=1 listeners"),
        "{ready}"
    );
    let beats = || {
        daemon
            .notifications()
            .iter()
            .filter(|message| *message == "WATCHDOG=1\n")
            .count()
    };
    eventually("the watchdog is fed again and again", || beats() >= 5);
    let before = monotonic_microseconds();
    daemon.reload();
    let messages = daemon.notifications();
    let reloading = messages
        .iter()
        .find(|message| message.contains("RELOADING=1"))
        .unwrap();
    let since = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let since: u128 = since.unwrap().parse().unwrap();
    assert!(
        (before..=monotonic_microseconds()).contains(&since),
        "{reloading}"
    );
    assert_eq!(daemon.terminate().code, Some(0));
    let messages = daemon.notifications();
    let stopping = messages
        .iter()
        .find(|message| message.contains("STOPPING=1"))
        .unwrap();
    assert!(
        stopping.contains("EXTEND_TIMEOUT_USEC=8000000"),
        "{stopping}"
    );
}

#[test]
fn the_watchdog_is_fed_on_an_abstract_notification_socket_too() {
    // systemd's own socket may be abstract; READY alone proves that it was reached.
    let name = format!("portyard-life-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_echo-tcp"))
        .args(["--listen", "tcp://127.0.0.1:0=echo"])
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .spawn()
        .unwrap();
    let mut buffer = [0; 4096];
    let length = manager.recv(&mut buffer);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(buffer[..length.unwrap()].starts_with(b"READY=1\n"));
}

#[test]
fn a_unix_socket_is_private_and_its_file_goes_with_the_daemon() {
    let builder = daemon();
    let path = builder.dir().join("private/echo.sock");
    let daemon = builder
        .listen(format!("unix:{}=echo", path.display()))
        .start();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert!(connect(&daemon, "echo").is_echoed());
    assert_eq!(daemon.terminate().code, Some(0));
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let builder = daemon();
    let path = builder.dir().join("echo.sock");
    let endpoint = format!("unix:{}=echo", path.display());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.symlink_metadata().unwrap().file_type().is_socket());
    let first = builder.listen(&endpoint).start();
    assert!(connect(&first, "echo").is_echoed());
    let second = daemon().listen(&endpoint).run();
    assert_eq!(second.code, Some(69), "{}", second.stderr);
    assert!(
        second.stderr.contains("another program answers there"),
        "{}",
        second.stderr
    );
    assert!(
        connect(&first, "echo").is_echoed(),
        "the live socket was taken away"
    );
    // Killed, it leaves its file behind, and the next one takes the place.
    first.kill();
    assert!(path.exists());
    let third = daemon().listen(&endpoint).start();
    assert!(connect(&third, "echo").is_echoed());
}

#[test]
fn a_port_in_use_is_69_and_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let finished = daemon()
        .listen(format!("tcp://127.0.0.1:{port}=echo"))
        .run();
    assert_eq!(finished.code, Some(69), "{}", finished.stderr);
    let hint = format!("127.0.0.1:{port}");
    assert!(finished.stderr.contains(&hint), "{}", finished.stderr);
    assert!(finished.stderr.contains("in use"), "{}", finished.stderr);
}

#[test]
fn two_daemons_do_not_share_a_port_by_accident() {
    let first = daemon().listen("tcp://127.0.0.1:0=echo").start();
    let endpoint = first.endpoint("echo");
    let second = daemon().listen(format!("{endpoint}=discard")).run();
    assert_eq!(second.code, Some(69), "{}", second.stderr);
    for _ in 0..20 {
        assert!(connect(&first, "echo").is_echoed());
    }
}

#[test]
fn a_wrong_command_line_is_64() {
    for arguments in [
        &["--nonsense"][..],
        &["--log-level", "loud"],
        &["--explain", "host"],
    ] {
        let finished = daemon().args(arguments.iter().copied()).run();
        assert_eq!(
            finished.code,
            Some(64),
            "{arguments:?}: {}",
            finished.stderr
        );
        assert!(!finished.stderr.is_empty());
    }
    for question in ["--help", "--version"] {
        assert!(daemon().arg(question).run().success().contains("echo-tcp"));
    }
}

fn monotonic_microseconds() -> u128 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_micros()
}

fn config(top: &str, service: &str, more: &str) -> String {
    format!(
        "{top}\n[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n{more}\n"
    )
}

fn connect(daemon: &Daemon, label: &str) -> Client {
    Client::connect(&daemon.endpoint(label))
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}
