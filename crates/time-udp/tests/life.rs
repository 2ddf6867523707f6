//! From start to end: what is queued at SIGTERM, listeners that come and go with SIGHUP, and what
//! keeps a daemon from starting.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;

use common::{
    Client, Ground, PATIENCE, all, all_services, client, configuration, dropped, is_ctime,
    listener, named, serving, serving_in_order, settled, time_udp,
};
use nix::sys::signal::Signal;
use portyard_testkit::{Daemon, eventually};

#[test]
fn sigterm_and_sigint_end_it_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = all();
        assert_eq!(client(&daemon, "ctime").ask(b"").len(), 24);
        daemon.signal(signal);
        let finished = daemon.wait();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(
            daemon
                .notifications()
                .iter()
                .any(|message| message.contains("STOPPING=1"))
        );
    }
}

#[test]
fn sigterm_answers_what_is_queued() {
    for service in ["ctime", "echo", "fib"] {
        let pool = "[offload]\nqueue = 1000\n".to_owned();
        let daemon = serving_in_order(&(pool + &all_services(""))).start();
        let client = client(&daemon, service);
        daemon.signal(Signal::SIGSTOP);
        // Several batches.
        for _ in 0..200 {
            client.send(b"10");
        }
        // Signals and datagrams are both waiting when it wakes up.
        daemon.signal(Signal::SIGTERM);
        daemon.signal(Signal::SIGCONT);
        assert_eq!(daemon.wait().code, Some(0));
        let mut answers = 0;
        while client.has_answer() {
            client.receive();
            answers += 1;
        }
        assert_eq!(answers, 200, "{service} left questions behind");
    }
}

#[test]
fn a_port_is_free_again_at_once() {
    let daemon = all();
    let address = daemon.address("ctime");
    daemon.terminate();
    UdpSocket::bind(address).expect("nobody has it any more");
}

#[test]
fn sighup_adds_and_removes_listeners_and_keeps_the_others() {
    let daemon = serving(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let echo = client(&daemon, "echo");
    assert_eq!(echo.ask(b"before"), b"before");

    let (added, free) = free_port();
    drop(free);
    let both = listener("echo", "udp://127.0.0.1:0", "")
        + &listener("ctime", &format!("udp://127.0.0.1:{added}"), "");
    reload(&daemon, "", &both);
    let ctime = Client::of(([127, 0, 0, 1], added).into());
    assert!(is_ctime(&ctime.ask_text(b"")));
    assert_eq!(echo.ask(b"still the same socket"), b"still the same socket");

    reload(&daemon, "", &listener("echo", "udp://127.0.0.1:0", ""));
    eventually("the port is free", || {
        UdpSocket::bind(("127.0.0.1", added)).is_ok()
    });
    assert_eq!(echo.ask(b"after"), b"after");
    assert_eq!(daemon.status()["listeners"].as_array().unwrap().len(), 1);
}

#[test]
fn sighup_can_give_a_socket_another_service() {
    let daemon = serving(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let client = client(&daemon, "echo");
    assert_eq!(client.ask(b"x"), b"x");
    reload(&daemon, "", &listener("ctime", "udp://127.0.0.1:0", ""));
    assert!(is_ctime(&client.ask_text(b"x")));
}

#[test]
fn sighup_changes_limits_and_options_of_a_running_listener() {
    let daemon = serving(&listener("fib", "udp://127.0.0.1:0", "")).start();
    let client = client(&daemon, "fib");
    assert_eq!(
        client.ask_text(b"301\0\0\0\0"),
        "error: larger than the 300 allowed"
    );
    let tables = listener("fib", "udp://127.0.0.1:0", "max_datagram = 2000")
        + "[listener.options]\nmax_n = 1000\n";
    reload(&daemon, "", &tables);
    let mut question = b"301".to_vec();
    question.resize(60, 0);
    assert_eq!(
        client.ask_text(&question),
        "359579325206583560961765665172189099052367214309267232255589801"
    );
    client.send(&[0; 2001]);
    eventually("the new limit counts", || {
        dropped(&daemon, "fib", "oversize") == 1
    });
}

#[test]
fn a_smaller_datagram_limit_and_back_again_loses_nothing() {
    let daemon = serving(&listener("echo", "udp://127.0.0.1:0", "max_datagram = 100")).start();
    let client = client(&daemon, "echo");
    assert_eq!(client.ask(&[1; 100]), [1; 100]);
    reload(
        &daemon,
        "",
        &listener("echo", "udp://127.0.0.1:0", "max_datagram = 60000"),
    );
    // The buffers were made for the smaller limit.
    assert!(
        client.ask(&vec![2; 60_000]) == vec![2; 60_000],
        "60,000 bytes came back otherwise"
    );
    reload(
        &daemon,
        "",
        &listener("echo", "udp://127.0.0.1:0", "max_datagram = 10"),
    );
    client.send(&[3; 11]);
    assert_eq!(client.ask(&[3; 10]), [3; 10]);
}

#[test]
fn a_bad_file_keeps_the_old_one_and_says_so() {
    let daemon = serving(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let client = client(&daemon, "echo");
    for bad in [
        "nonsense",
        "[[listener]]\nservice = \"ecko\"\nlisten = [\"udp://127.0.0.1:0\"]\n",
        "",
    ] {
        daemon.rewrite_config(bad);
        let status = daemon.reload();
        assert!(status.starts_with("Reload refused"), "{status}");
        assert_eq!(client.ask(b"still here"), b"still here");
    }
}

#[test]
fn a_port_in_use_at_a_reload_changes_nothing() {
    let daemon = serving(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let client = client(&daemon, "echo");
    let (taken, _holder) = free_port();
    let tables = listener("ctime", &format!("udp://127.0.0.1:{taken}"), "");
    daemon.rewrite_config(&configuration(daemon.dir(), "", &tables));
    let status = daemon.reload();
    assert!(status.contains("another program has it"), "{status}");
    assert_eq!(client.ask(b"still here"), b"still here");
}

#[test]
fn no_datagram_is_lost_over_a_hundred_reloads() {
    let daemon = serving_in_order(&listener("echo", "udp://127.0.0.1:0", "")).start();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = client(&daemon, "echo");
        let stop = &stop;
        let asker = scope.spawn(move || {
            let mut asked = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(client.ask(&asked.to_be_bytes()), asked.to_be_bytes());
                asked += 1;
            }
            asked
        });
        for n in 0..100 {
            let limits = format!("max_datagram = {}", 1000 + n);
            reload(
                &daemon,
                "loops = 1",
                &listener("echo", "udp://127.0.0.1:0", &limits),
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asker.join().unwrap() > 0);
    });
}

#[test]
fn a_port_in_use_is_69_and_says_what_to_do() {
    let (port, _holder) = free_port();
    let finished = time_udp()
        .listen(format!("udp://127.0.0.1:{port}=ctime"))
        .run();
    assert_eq!(finished.code, Some(69), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("another program has it"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_low_port_without_the_right_to_it_is_77() {
    // Root without its capabilities is nobody special; everybody else is so already.
    let words: &[&str] = if nix::unistd::geteuid().is_root() {
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    } else {
        &[]
    };
    let finished = time_udp()
        .wrap(words.to_vec())
        .listen("udp://127.0.0.1:37=time")
        .run();
    assert_eq!(finished.code, Some(77), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("ports below 1024"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_low_port_with_the_right_to_it_is_served() {
    let ground = Ground::new();
    let daemon = ground
        .put(serving(&listener("time", "udp://127.0.0.78:37", "")))
        .start();
    let said = ground.python(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(30)\n\
         s.sendto(b'', ('127.0.0.78', 37))\nprint(len(s.recv(64)))\n",
        &[],
    );
    assert_eq!(said.trim_end(), "4");
    drop(daemon);
}

#[test]
fn a_unix_socket_has_its_mode_and_is_replaced_only_when_nobody_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ctime");
    let endpoint = format!("unix:{}", path.display());
    let daemon = serving(&listener("ctime", &endpoint, "")).start();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Somebody answers.
    let finished = time_udp().config(&listener("ctime", &endpoint, "")).run();
    assert_eq!(finished.code, Some(69), "{}", finished.stderr);
    daemon.kill();
    assert!(path.exists(), "a killed daemon leaves its file");
    let daemon = serving(&listener("ctime", &endpoint, "")).start();
    let client = UnixDatagram::bind(directory.path().join("client")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.send_to(b"", &path).unwrap();
    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 24);
    daemon.terminate();
    assert!(!path.exists());
}

#[test]
fn the_probes_say_what_the_daemon_is() {
    let daemon = serving(&all_services("")).start();
    assert_eq!(daemon.admin_get("/healthz").0, 200);
    assert_eq!(daemon.admin_get("/readyz").0, 200);
    let status = daemon.status();
    assert_eq!(
        (&status["daemon"], &status["state"]),
        (&"time-udp".into(), &"ready".into())
    );
    assert_eq!(status["listeners"].as_array().unwrap().len(), 8);
}

#[test]
fn an_idle_daemon_uses_no_processor_time() {
    let daemon = serving(&all_services("")).start();
    // Enough work to be sure that everything has run once.
    client(&daemon, "ctime").ask(b"");
    eventually("it is counted", || settled(&daemon, "ctime") == 1);
    let before = portyard_testkit::cpu_seconds(daemon.pid());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let used = portyard_testkit::cpu_seconds(daemon.pid()) - before;
    assert!(used < 0.1, "{used} s of one second");
}

#[test]
fn several_listeners_of_one_service_have_their_own_names_and_counts() {
    let tables = named("inside", &listener("echo", "udp://127.0.0.1:0", ""))
        + &named(
            "outside",
            &listener("echo", "udp://127.0.0.1:0", "max_datagram = 1"),
        );
    let daemon = serving(&tables).start();
    assert_eq!(client(&daemon, "inside").ask(b"xx"), b"xx");
    client(&daemon, "outside").send(b"xx");
    let line = "portyard_datagrams_dropped_total\
                {listener=\"outside\",service=\"echo\",reason=\"oversize\"}";
    eventually("the drop is counted", || {
        (daemon.metric(line) - 1.0).abs() < 0.5
    });
    eventually("each has its own", || settled(&daemon, "inside") == 1);
}

/// Gives the daemon these keys and tables, and waits until it has taken them.
fn reload(daemon: &Daemon, keys: &str, tables: &str) {
    daemon.rewrite_config(&configuration(daemon.dir(), keys, tables));
    let status = daemon.reload();
    assert!(status.contains("listeners"), "{status}");
}

/// A port that is free, and the socket that keeps it so.
fn free_port() -> (u16, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    (socket.local_addr().unwrap().port(), socket)
}
