//! A program for each connection: what it is given, how it ends, and what becomes of the peer.

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use portyard_testkit::{Certificates, Client, End, TlsClient, eventually, peer};

use crate::{build, connect, lives, ours, python, reload, running, service, start, started};

#[test]
fn each_connection_has_a_program_of_its_own() {
    let daemon = start(&service("cat", &["/bin/cat"], ""));
    let clients: Vec<Client> = (0..4).map(|_| connect(&daemon, "cat")).collect();
    assert!(clients.iter().all(Client::is_echoed));
    eventually("they are counted", || running(&daemon, "cat") == 4);
    for client in &clients {
        client.send_end();
        assert_eq!(client.receive_all(), (Vec::new(), End::Fin));
    }
    eventually("all have ended", || running(&daemon, "cat") == 0);
    let ended = "portyard_programs_ended_total{name=\"cat\",end=\"ok\"}";
    eventually("all ends are counted", || daemon.count(ended) == 4);
    daemon.wait_for_log("ended service=cat peer=127.0.0.1:");
    assert!(
        daemon.log().contains("end=\"exit 0\" took="),
        "{}",
        daemon.log()
    );
}

#[test]
fn a_program_is_told_of_its_peer_in_the_style_that_it_knows() {
    let env = peer("env").display().to_string();
    let services: String = ["inetd", "xinetd", "ucspi"]
        .map(|style| service(style, &[&env], &format!("style = \"{style}\"")))
        .concat();
    let script = "import os, socket\n\
        s = socket.socket(fileno=3)\n\
        s.sendall(repr([os.environ['LISTEN_PID'] == str(os.getpid()), sorted(os.environ)]).encode())";
    let daemon = start(&(services + &python("systemd", script, "style = \"systemd\"")));
    let told = |style: &str| {
        let client = connect(&daemon, style);
        let port = client.local_address().port();
        client.send_end();
        let said = String::from_utf8(client.receive_all().0).unwrap();
        let mut lines: Vec<String> = said.lines().map(String::from).collect();
        lines.sort_unstable();
        lines.retain(|line| !line.starts_with("PATH="));
        (lines, port)
    };
    assert!(told("inetd").0.is_empty());
    assert_eq!(told("xinetd").0, ["REMOTE_HOST=127.0.0.1"]);
    let (lines, port) = told("ucspi");
    let local = daemon.address("ucspi").port();
    assert_eq!(
        lines,
        [
            "PROTO=TCP".to_owned(),
            "TCPLOCALIP=127.0.0.1".into(),
            format!("TCPLOCALPORT={local}"),
            "TCPREMOTEIP=127.0.0.1".into(),
            format!("TCPREMOTEPORT={port}"),
        ]
    );
    let said = told("systemd").0.concat();
    // The interpreter adds what it likes.
    for name in [
        "[True, ",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "REMOTE_ADDR",
        "REMOTE_PORT",
    ] {
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn real_programs_of_an_inetd_work_unchanged() {
    let socat = peer("socat").display().to_string();
    let echo = ours("echo-tcp");
    let script = "import sys\nfor line in sys.stdin:\n    print(line.upper(), end='', flush=True)";
    let daemon = start(
        &[
            service("socat", &[&socat, "STDIO", "PIPE"], ""),
            service("echo", &[&echo, "--inetd=echo"], ""),
            service("daytime", &[&echo, "--inetd=daytime"], ""),
            python("upper", script, ""),
        ]
        .concat(),
    );
    assert!(connect(&daemon, "socat").is_echoed());
    assert!(connect(&daemon, "echo").is_echoed());
    assert_eq!(connect(&daemon, "daytime").receive_all().0.len(), 26);
    let client = connect(&daemon, "upper");
    client.send("hello\n");
    assert_eq!(client.receive_line(), "HELLO\n");
}

#[test]
fn a_program_that_is_not_there_is_a_log_line_a_count_and_a_close() {
    let told = "limits = { at_limit = \"banner\", banner = \"Try later.\\r\\n\" }";
    let daemon = start(
        &[
            service("silent", &["/nonexistent/in.ftpd"], ""),
            service("told", &["/nonexistent/in.ftpd"], told),
        ]
        .concat(),
    );
    assert_eq!(
        connect(&daemon, "silent").receive_all(),
        (Vec::new(), End::Fin)
    );
    daemon.wait_for_log("/nonexistent/in.ftpd cannot be run: No such file or directory");
    assert!(daemon.log().contains("install it, or correct command[0]"));
    let (said, _) = connect(&daemon, "told").receive_all();
    assert_eq!(said, b"Try later.\r\n");
    for name in ["silent", "told"] {
        assert_eq!(
            daemon.count(&format!(
                "portyard_programs_failed_total{{name=\"{name}\"}}"
            )),
            1
        );
    }
    // Its place is free again.
    let present = "portyard_connections{listener=\"silent\",service=\"program\"}";
    eventually("no connection is left", || daemon.count(present) == 0);
}

#[test]
fn what_a_program_says_on_standard_error_goes_to_the_log_and_not_to_the_peer() {
    let script = "printf 'evil \\033[31m\\nline two\\n' >&2; echo answer";
    let shell = ["/bin/sh", "-c", script];
    let daemon = start(
        &[
            service("log", &shell, ""),
            service(
                "null",
                &["/bin/sh", "-c", "echo secret >&2; echo answer"],
                "process = { stderr = \"null\" }",
            ),
            service(
                "peer",
                &["/bin/sh", "-c", "echo oops >&2; echo answer"],
                "process = { stderr = \"peer\" }",
            ),
        ]
        .concat(),
    );
    let said = |name: &str| String::from_utf8(connect(&daemon, name).receive_all().0).unwrap();
    assert_eq!(said("log"), "answer\n");
    assert_eq!(said("null"), "answer\n");
    assert_eq!(said("peer"), "oops\nanswer\n");
    daemon.wait_for_log("line two");
    let log = daemon.log();
    assert!(log.contains("evil") && !log.contains('\u{1b}'), "{log}");
    assert!(!log.contains("secret") && !log.contains("oops"), "{log}");
}

#[test]
fn the_log_tells_beginning_end_and_bytes_where_that_is_wanted() {
    let counted = "log = \"both\"\ncount_bytes = true";
    let tables = [
        service("counted", &["/bin/cat"], counted),
        service("silent", &["/bin/cat"], "log = \"off\""),
    ];
    let daemon = start(&tables.concat());
    for name in ["silent", "counted"] {
        let client = connect(&daemon, name);
        client.send(vec![b'x'; 70_000]);
        client.send_end();
        assert_eq!(client.receive_all().0.len(), 70_000);
    }
    daemon.wait_for_log("received=70000 sent=70000");
    daemon.wait_for_log("started service=counted");
    assert!(
        !daemon.log().contains("service=silent peer"),
        "{}",
        daemon.log()
    );
}

#[test]
fn a_banner_comes_before_the_program() {
    let daemon = start(&service(
        "cat",
        &["/bin/cat"],
        "banner = \"Welcome.\\r\\n\"",
    ));
    let client = connect(&daemon, "cat");
    assert_eq!(client.receive_line(), "Welcome.\r\n");
    assert!(client.is_echoed());
}

#[test]
fn a_program_runs_as_its_user_with_its_limits() {
    let user = if geteuid().is_root() {
        "nobody".into()
    } else {
        User::from_uid(geteuid()).unwrap().unwrap().name
    };
    let table = format!(
        "process = {{ user = \"{user}\", nice = 7, umask = \"0077\", directory = \"/usr\" }}"
    );
    let shell = [
        "/bin/sh",
        "-c",
        "id -un; echo $HOME $USER; nice; umask; pwd",
    ];
    let hog = "try:\n    x = bytearray(300_000_000)\n    print('allocated')\nexcept MemoryError:\n    print('refused')";
    let daemon = start(
        &[
            service("who", &shell, &table),
            python("hog", hog, "process = { limits = { memory = \"200MiB\" } }"),
        ]
        .concat(),
    );
    let said = String::from_utf8(connect(&daemon, "who").receive_all().0).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let home = User::from_name(&user).unwrap().unwrap().dir;
    let who = format!("{} {user}", home.display());
    assert_eq!(lines, [&user, &who, "7", "0077", "/usr"]);
    assert_eq!(connect(&daemon, "hog").receive_all().0, b"refused\n");
}

/// systemd sends SIGTERM, and so does whoever stops a broker: programs finish, and the stubborn are
/// killed at the end.
#[test]
fn a_drain_lets_programs_finish_and_kills_who_ignores_sigterm() {
    let stubborn = "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(100)";
    let more = "process = { kill_after = \"100ms\" }";
    let tables = [
        service("cat", &["/bin/cat"], ""),
        python("stubborn", stubborn, more),
    ]
    .concat();
    let daemon = build("grace = \"1s\"", &tables).start();
    let (cat, deaf) = (connect(&daemon, "cat"), connect(&daemon, "stubborn"));
    assert!(cat.is_echoed());
    assert_eq!(deaf.receive_line(), "ready\n");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("draining");
    // It goes on as long as there is grace.
    assert!(cat.is_echoed());
    let finished = daemon.wait();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(
        finished
            .stderr
            .contains("did not end after SIGTERM, killed"),
        "{}",
        finished.stderr
    );
    assert_eq!(deaf.receive_all().0, b"");
    assert!(
        finished.stderr.contains("end=SIGKILL"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_drain_without_programs_does_not_wait_for_the_grace() {
    let daemon = build("grace = \"100s\"", &service("cat", &["/bin/cat"], "")).start();
    let client = connect(&daemon, "cat");
    assert!(client.is_echoed());
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("draining");
    client.send_end();
    assert_eq!(daemon.wait().code, Some(0));
}

#[test]
fn programs_follow_a_broker_that_dies_unless_they_may_outlive_it() {
    let script = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(100)";
    let daemon = start(
        &[
            python("bound", script, ""),
            python("free", script, "process = { outlive = true }"),
        ]
        .concat(),
    );
    let (bound, free) = (connect(&daemon, "bound"), connect(&daemon, "free"));
    let pid = |client: &Client| client.receive_line().trim().parse::<i32>().unwrap();
    let (bound_pid, free_pid) = (pid(&bound), pid(&free));
    daemon.kill();
    eventually("the bound one has followed", || !lives(bound_pid));
    assert!(lives(free_pid));
    let free_pid = nix::unistd::Pid::from_raw(free_pid);
    nix::sys::signal::kill(free_pid, Signal::SIGKILL).unwrap();
}

#[test]
fn a_program_whose_time_is_over_is_ended() {
    let daemon = start(&service(
        "cat",
        &["/bin/cat"],
        "limits = { total = \"200ms\" }",
    ));
    let client = connect(&daemon, "cat");
    assert!(client.is_echoed());
    client.end();
    daemon.wait_for_log("end=SIGTERM");
}

#[test]
fn a_reload_adds_changes_and_removes_services_and_drops_nobody() {
    let two = [
        service("stays", &["/bin/cat"], ""),
        service("goes", &["/bin/cat"], ""),
    ]
    .concat();
    let daemon = start(&two);
    let (stays, goes) = (connect(&daemon, "stays"), connect(&daemon, "goes"));
    assert!(stays.is_echoed() && goes.is_echoed());
    let address = daemon.endpoint("stays");
    let changed =
        service("stays", &["/bin/echo", "changed"], "").replace("tcp://127.0.0.1:0", &address);
    // The port that was asked for is what makes it the same listener.
    let changed = changed.replace(&address, "tcp://127.0.0.1:0");
    let said = reload(&daemon, &(changed + &service("comes", &["/bin/cat"], "")));
    assert!(!said.contains("refused"), "{said}");
    assert!(stays.is_echoed() && goes.is_echoed());
    assert_eq!(Client::connect(&address).receive_all().0, b"changed\n");
    let comes = daemon.status()["listeners"][1].clone();
    assert_eq!(comes["name"], "comes");
    let comes = comes["endpoint"].as_str().unwrap();
    assert!(Client::connect(comes).is_echoed());
    // A bad file changes nothing.
    let said = reload(&daemon, &service("bad", &["cat"], ""));
    assert!(said.contains("not an absolute path"), "{said}");
    assert!(Client::connect(comes).is_echoed() && stays.is_echoed());
}

#[test]
fn a_program_behind_tls_knows_nothing_of_it() {
    let ca = Certificates::new();
    let pair = ca.server(&["localhost"]);
    let tls = format!(
        "style = \"ucspi\"\ntls = {{ certificates = [{{ chain = {:?}, key = {:?} }}] }}",
        pair.chain, pair.key
    );
    let script =
        "import os, sys\nfor line in sys.stdin:\n    print(os.environ['TCPREMOTEIP'], flush=True)";
    let daemon = start(
        &[
            python("tell", script, &tls),
            service("cat", &["/bin/cat"], &tls),
        ]
        .concat(),
    );
    let mut cat = TlsClient::connect(daemon.address("cat"), "localhost", ca.ca(), None).unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for piece in bytes.chunks(40_000) {
        assert!(cat.echo(piece).unwrap() == piece);
    }
    let mut tell = TlsClient::begin(daemon.address("tell"), "localhost", ca.ca(), None).unwrap();
    // As long as the answer.
    assert_eq!(tell.echo(b"who is it\n").unwrap(), b"127.0.0.1\n");
    // A peer that goes takes its program along.
    drop((cat, tell));
    eventually("no program is left", || {
        running(&daemon, "cat") + running(&daemon, "tell") == 0
    });
    daemon.wait_for_log("received=400001 sent=400001");
}

#[test]
fn a_peer_on_a_unix_socket_is_served_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("yard").join("s");
    let table = service("env", &["/usr/bin/env"], "style = \"ucspi\"")
        .replace("tcp://127.0.0.1:0", &format!("unix:{}", socket.display()));
    let daemon = start(&table);
    let client = connect(&daemon, "env");
    let said = String::from_utf8(client.receive_all().0).unwrap();
    let uid = format!("IPCREMOTEEUID={}", geteuid());
    assert!(said.contains("PROTO=IPC") && said.contains(&uid), "{said}");
}

#[test]
fn a_program_that_forks_into_the_background_holds_no_place() {
    let table = service(
        "fork",
        &["/bin/sh", "-c", "sleep 3 & echo gone"],
        "limits = { connections = 1 }",
    );
    let daemon = start(&table);
    for _ in 0..2 {
        let client = connect(&daemon, "fork");
        assert_eq!(client.receive_line(), "gone\n");
    }
    eventually("they are counted", || started(&daemon, "fork") == 2);
}
