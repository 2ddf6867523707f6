//! Out of descriptors, out of memory, and very many peers: others notice nothing.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use portyard_testkit::{
    Client, Daemon, cpu_seconds, eventually, finish, open_fds, peer, pss_bytes,
    raise_descriptor_limit, threads,
};

#[test]
fn too_few_descriptors_to_begin_with_are_told_as_that() {
    for limit in ["6", "16", "31"] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}")).arg(BINARY);
        command.args(["--listen", "127.0.0.1:0"]);
        let finished = finish(&mut command, b"");
        assert_eq!(finished.code, Some(71), "{limit}: {}", finished.stderr);
        let told = finished.stderr.contains("LimitNOFILE=");
        assert!(told, "{limit}: {}", finished.stderr);
    }
}

#[test]
fn a_daemon_with_64_descriptors_serves_as_many_as_it_can_and_the_rest_in_turn() {
    let _alone = alone();
    let daemon = Daemon::build(BINARY).config(&config("")).nofile(64).start();
    let mut clients: Vec<_> = (0..100).map(|_| connect(&daemon)).collect();
    for client in &clients {
        client.send("ping");
    }
    let limit = daemon.status()["connections"]["limit"]
        .as_u64()
        .unwrap_or(0);
    assert!((10..64).contains(&limit), "{limit}");
    let present = r#"portyard_connections{listener="echo",service="echo"}"#;
    eventually("all places are taken", || daemon.count(present) >= limit);
    assert!(open_fds(daemon.pid()) <= 64);
    assert_idle(&daemon);
    assert_eq!(daemon.admin_get("/healthz").0, 200);
    // Each that leaves makes room for one that waits, until all have had their turn.
    let mut served = 0;
    eventually("all are served in turn", || {
        clients.retain(|client| {
            let waits = client.is_silent_for(Duration::from_millis(1));
            if !waits {
                assert_eq!(client.receive(4), b"ping");
                served += 1;
            }
            waits
        });
        clients.is_empty()
    });
    assert_eq!(served, 100);
}

#[test]
fn a_daemon_whose_descriptors_run_out_sheds_and_recovers() {
    let _alone = alone();
    let daemon = Daemon::build(BINARY)
        .config(&config(""))
        .nofile(256)
        .start();
    // Below what it has planned with: now accept(2) itself fails.
    let limit = open_fds(daemon.pid()) + 20;
    let mut prlimit = Command::new(peer("prlimit"));
    prlimit.args([
        "--pid",
        &daemon.pid().to_string(),
        &format!("--nofile={limit}:{limit}"),
    ]);
    finish(&mut prlimit, b"").success();
    let start = Instant::now();
    let clients: Vec<_> = (0..100).map(|_| connect(&daemon)).collect();
    daemon.wait_for_log("cannot accept for the moment");
    // Whoever is not served is told so at once, not left to wait.
    let mut asking: Vec<_> = clients.iter().collect();
    for client in &asking {
        client.try_send("ping");
    }
    eventually("everybody has an answer", || {
        asking.retain(|client| client.is_silent_for(Duration::from_millis(1)));
        asking.is_empty()
    });
    let served = clients.iter().filter(|client| client.is_echoed()).count();
    assert!((10..=24).contains(&served), "{served} were served");
    assert_idle(&daemon);
    drop(clients);
    eventually("it has recovered", || connect(&daemon).is_echoed());
    let shed = r#"portyard_connections_refused_total{listener="echo",service="echo",reason="descriptors"}"#;
    assert!(daemon.count(shed) >= 100 - served as u64);
    // A line a second from each loop, whatever happens in it.
    let lines = daemon.log().matches("cannot accept").count() as u64;
    let most = 2 * threads(daemon.pid()) as u64 * (1 + start.elapsed().as_secs());
    assert!(lines <= most, "{lines} lines in the log");
    assert_eq!(daemon.terminate().code, Some(0));
}

#[test]
fn what_accept_can_fail_with_is_survived() {
    for errno in [
        "EMFILE",
        "ENFILE",
        "ENOMEM",
        "ENOBUFS",
        "ECONNABORTED",
        "EPROTO",
        "EINTR",
        "EPERM",
    ] {
        let builder = Daemon::build(BINARY);
        let trace = builder.dir().join("trace").display().to_string();
        let inject = format!("inject=accept4:error={errno}:when=1..20");
        let daemon = builder
            .wrap([
                "strace",
                "-f",
                "-o",
                &trace,
                "-e",
                "trace=accept4",
                "-e",
                &inject,
            ])
            .listen("tcp://127.0.0.1:0=echo")
            .start();
        // One may be shed meanwhile, which is the honest answer.
        eventually("it serves again", || connect(&daemon).is_echoed());
        let calls = std::fs::read_to_string(&trace).unwrap_or_default();
        assert!(
            calls.contains("(INJECTED)"),
            "{errno} was never seen:\n{calls}"
        );
        assert_eq!(daemon.terminate().code, Some(0), "{errno}");
    }
}

#[test]
fn an_accept_that_always_fails_costs_little() {
    for errno in ["EMFILE", "ECONNABORTED"] {
        let _alone = alone();
        let builder = Daemon::build(BINARY);
        let trace = builder.dir().join("trace").display().to_string();
        let inject = format!("inject=accept4:error={errno}");
        let daemon = builder
            .wrap([
                "strace",
                "-f",
                "-o",
                &trace,
                "-e",
                "trace=accept4",
                "-e",
                &inject,
            ])
            .listen("tcp://127.0.0.1:0=echo")
            .start();
        let _client = connect(&daemon);
        daemon.wait_for_log("cannot accept for the moment");
        let calls = || {
            std::fs::read_to_string(&trace)
                .unwrap_or_default()
                .lines()
                .count()
        };
        let before = calls();
        thread::sleep(Duration::from_secs(1));
        // A pause of 10 ms: a hundred a second, on a machine with nothing else to do.
        let rate = calls() - before;
        assert!(rate < 1000, "{errno}: {rate} calls of accept in a second");
    }
}

#[test]
fn a_listening_socket_that_is_broken_ends_the_daemon_with_71() {
    for errno in ["EBADF", "ENOTSOCK"] {
        // From each loop's fourth call on: it must have got ready first.
        let inject = format!("inject=accept4:error={errno}:when=4+");
        let daemon = Daemon::build(BINARY)
            .wrap([
                "strace",
                "-f",
                "-o",
                "/dev/null",
                "-e",
                "trace=accept4",
                "-e",
                &inject,
            ])
            .listen("tcp://127.0.0.1:0=echo")
            .start();
        let ended = || {
            let _ = Client::try_connect(daemon.address("echo")).map(|client| client.is_echoed());
            daemon.try_wait().is_some()
        };
        eventually("it gives up", ended);
        let finished = daemon.wait();
        assert_eq!(finished.code, Some(71), "{errno}: {}", finished.stderr);
        assert!(
            finished.stderr.contains("cannot accept any more"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn ten_thousand_idle_connections_leave_others_their_speed() {
    let _alone = alone();
    let limit = raise_descriptor_limit();
    assert!(
        limit >= 11_000,
        "raise the hard limit of open files above {limit} (ulimit -Hn)"
    );
    let daemon = Daemon::build(BINARY).config(&config("")).start();
    let idle = hold(&daemon, 10_000);
    assert_eq!(daemon.status()["connections"]["present"], 10_000);
    assert_idle(&daemon);
    for _ in 0..100 {
        assert!(connect(&daemon).is_echoed());
    }
    let count = threads(daemon.pid());
    assert!(count <= 16, "{count} threads");
    // And they have not been forgotten.
    assert!(idle.iter().step_by(100).all(Client::is_echoed));
}

#[test]
fn an_idle_connection_costs_little_memory() {
    let _alone = alone();
    raise_descriptor_limit();
    let daemon = Daemon::build(BINARY).config(&config("")).start();
    // What the first connections bring into memory for good is not theirs.
    drop(hold(&daemon, 100));
    let none = || daemon.status()["connections"]["present"] == 0;
    eventually("they have gone", none);
    let before = pss_bytes(daemon.pid());
    let _idle = hold(&daemon, 5000);
    let each = pss_bytes(daemon.pid()).saturating_sub(before) / 5000;
    // The debug profile keeps the states of a service's future apart that a release overlaps.
    let bound = if cfg!(debug_assertions) { 2500 } else { 1000 };
    assert!(each <= bound, "{each} bytes for each connection");
}

/// So many connections, all of them served.
fn hold(daemon: &Daemon, count: usize) -> Vec<Client> {
    // From several addresses, as one has only so many ports.
    let from = |number: usize| {
        let source = format!("127.0.0.{}", 2 + number % 8);
        Client::connect_from(&source, daemon.address("echo"))
    };
    let clients: Vec<_> = (0..count).map(from).collect();
    let accepted = || daemon.status()["connections"]["present"] == count;
    eventually("all are served", accepted);
    clients
}

/// The daemon does nothing to speak of at the moment.
#[track_caller]
fn assert_idle(daemon: &Daemon) {
    let before = cpu_seconds(daemon.pid());
    thread::sleep(Duration::from_secs(1));
    let spent = cpu_seconds(daemon.pid()) - before;
    assert!(spent < 0.1, "{spent} s of processor time in a second");
}

/// Tests that measure the process or hold thousands of descriptors take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.endpoint("echo"))
}

fn config(limits: &str) -> String {
    format!(
        "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [listener.limits]\n{limits}\n"
    )
}

const BINARY: &str = env!("CARGO_BIN_EXE_echo-tcp");
