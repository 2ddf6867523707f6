//! Programs kept warm: one process, many connections, and none lost with it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_testkit::{Certificates, Client, End, TlsClient, eventually};

use crate::{build, connect, lives, python, reload, running, start, started};

/// Answers each line with its own number and what it was told of the peer.
const SERVE: &str = "\
import os, socket\n\
broker = socket.socket(fileno=0)\n\
while True:\n    \
    told, descriptors, _, _ = socket.recv_fds(broker, 4096, 1)\n    \
    if not told:\n        \
        break\n    \
    number, *variables = told.rstrip(b'\\0').split(b'\\0')\n    \
    with socket.socket(fileno=descriptors[0]) as connection:\n        \
        for line in connection.makefile('rb'):\n            \
            if line == b'die\\n':\n                \
                os._exit(1)\n            \
            said = b' '.join([b'%d' % os.getpid(), *variables, line])\n            \
            connection.sendall(said)\n    \
    broker.send(number)\n";

fn ask(client: &Client, line: &str) -> (i32, String) {
    client.send(format!("{line}\n"));
    let said = client.receive_line();
    let (pid, rest) = said.trim_end().split_once(' ').unwrap();
    (pid.parse().unwrap(), rest.into())
}

fn warm(name: &str, more: &str) -> String {
    python(name, SERVE, more)
}

fn leave(client: &Client) {
    client.send_end();
    assert_eq!(client.receive_all(), (Vec::new(), End::Fin));
}

#[test]
fn the_example_of_the_documentation_works_as_it_stands() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocols/warm.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```python\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let daemon = start(&python("shout", example, "warm = { processes = 2 }"));
    for _ in 0..5 {
        let client = connect(&daemon, "shout");
        client.send("hello\n");
        assert_eq!(client.receive_line(), "HELLO\n");
        leave(&client);
    }
    eventually("they are counted", || started(&daemon, "shout") == 2);
}

#[test]
fn one_process_serves_one_connection_after_the_other() {
    let daemon = start(&warm(
        "warm",
        "style = \"xinetd\"\nwarm = { processes = 1 }",
    ));
    let mut pids = Vec::new();
    for n in 0..20 {
        let client = connect(&daemon, "warm");
        let (pid, said) = ask(&client, &format!("n{n}"));
        assert_eq!(said, format!("REMOTE_HOST=127.0.0.1 n{n}"));
        pids.push(pid);
        leave(&client);
    }
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    assert_eq!((started(&daemon, "warm"), running(&daemon, "warm")), (1, 1));
    let present = "portyard_connections{listener=\"warm\",service=\"program\"}";
    eventually("no connection is left", || daemon.count(present) == 0);
}

#[test]
fn connections_wait_for_a_process_and_each_has_its_turn() {
    let daemon = start(&warm("warm", "warm = { processes = 2 }"));
    let busy = [connect(&daemon, "warm"), connect(&daemon, "warm")];
    let pids = busy.each_ref().map(|client| ask(client, "x").0);
    assert_ne!(pids[0], pids[1]);
    let third = connect(&daemon, "warm");
    third.send("later\n");
    eventually("it waits", || {
        let status = &daemon.status()["services"]["warm"][0];
        status["waiting"] == 1 && status["connections"] == 2
    });
    leave(&busy[0]);
    assert_eq!(third.receive_line(), format!("{} later\n", pids[0]));
}

#[test]
fn a_connection_that_waits_too_long_is_told_so() {
    let limits =
        "limits = { queue_timeout = \"200ms\", at_limit = \"banner\", banner = \"Busy.\\r\\n\" }";
    let daemon = start(&warm(
        "warm",
        &format!("warm = {{ processes = 1 }}\n{limits}"),
    ));
    let busy = connect(&daemon, "warm");
    ask(&busy, "x");
    assert_eq!(connect(&daemon, "warm").receive_all().0, b"Busy.\r\n");
    assert_eq!(ask(&busy, "y").1, "y");
}

#[test]
fn what_a_dying_process_has_not_touched_goes_to_another() {
    // It stops before it reads, so that what it is handed waits in its socket.
    let daemon = start(&warm(
        "warm",
        "warm = { processes = 1 }\nrestart = { delay = \"1ms\" }",
    ));
    let first = connect(&daemon, "warm");
    let (pid, _) = ask(&first, "x");
    leave(&first);
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    let second = connect(&daemon, "warm");
    second.send("hello\n");
    let handed = || daemon.status()["services"]["warm"][0]["connections"] == 1;
    eventually("it was handed over", handed);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let said = second.receive_line();
    let (other, text) = said.split_once(' ').unwrap();
    assert_eq!(text, "hello\n");
    assert_ne!(other, pid.to_string());
    leave(&second);
    // What it had touched is closed, and told.
    let third = connect(&daemon, "warm");
    ask(&third, "x");
    third.send("die\n");
    third.end();
    daemon.wait_for_log("closed: its process has died");
    assert_eq!(ask(&connect(&daemon, "warm"), "again").1, "again");
}

#[test]
fn many_clients_share_few_processes() {
    let daemon = start(&warm("warm", "warm = { processes = 3 }"));
    let endpoint = daemon.endpoint("warm");
    std::thread::scope(|scope| {
        for client in 0..4 {
            let endpoint = &endpoint;
            scope.spawn(move || {
                for n in 0..50 {
                    let connection = Client::connect(endpoint);
                    assert_eq!(
                        ask(&connection, &format!("{client}.{n}")).1,
                        format!("{client}.{n}")
                    );
                    leave(&connection);
                }
            });
        }
    });
    eventually("they are counted", || started(&daemon, "warm") == 3);
}

#[test]
fn a_process_may_have_several_connections_at_a_time() {
    let script = "\
import socket, threading\n\
broker = socket.socket(fileno=0)\n\
def serve(number, connection):\n    \
    with connection:\n        \
        for line in connection.makefile('rb'):\n            \
            connection.sendall(line)\n    \
    broker.send(number)\n\
while True:\n    \
    told, descriptors, _, _ = socket.recv_fds(broker, 4096, 1)\n    \
    if not told:\n        \
        break\n    \
    connection = socket.socket(fileno=descriptors[0])\n    \
    threading.Thread(target=serve, args=(told.split(b'\\0')[0], connection), daemon=True).start()\n";
    let daemon = start(&python(
        "warm",
        script,
        "warm = { processes = 1, each = 5 }",
    ));
    let clients: Vec<Client> = (0..5).map(|_| connect(&daemon, "warm")).collect();
    for client in clients.iter().rev() {
        client.send("hello\n");
        assert_eq!(client.receive_line(), "hello\n");
    }
    let status = &daemon.status()["services"]["warm"][0];
    assert_eq!(
        (&status["connections"], &status["running"]),
        (&5.into(), &1.into())
    );
}

#[test]
fn a_program_that_answers_nonsense_or_ends_at_once_is_told_and_harms_nobody() {
    let nonsense = "import socket\nbroker = socket.socket(fileno=0)\nbroker.send(b'17')\nbroker.send(b'x' * 1000)\nwhile socket.recv_fds(broker, 4096, 1)[0]:\n    pass\n";
    let limits = "limits = { queue_timeout = \"300ms\" }\n";
    let daemon = start(
        &[
            python("nonsense", nonsense, "warm = {}"),
            python(
                "ends",
                "pass",
                &format!("{limits}warm = {{}}\nrestart = {{ delay = \"50ms\" }}"),
            ),
            warm("warm", "warm = {}"),
        ]
        .concat(),
    );
    daemon.wait_for_log("a warm process answers for a connection that it does not have");
    assert_eq!(connect(&daemon, "ends").receive_all().0, b"");
    daemon.wait_for_log("no warm process was free in time");
    assert_eq!(ask(&connect(&daemon, "warm"), "x").1, "x");
}

#[test]
fn a_reload_keeps_the_processes_unless_they_change_and_lets_them_finish() {
    let daemon = start(&warm("warm", "warm = { processes = 1 }"));
    let client = connect(&daemon, "warm");
    let (pid, _) = ask(&client, "x");
    reload(
        &daemon,
        &warm(
            "warm",
            "warm = { processes = 1 }\nlimits = { connections = 7 }",
        ),
    );
    assert_eq!(ask(&client, "y").0, pid);
    leave(&client);
    let client = connect(&daemon, "warm");
    assert_eq!(ask(&client, "z").0, pid);
    // Another number of processes: new ones, and the old one finishes what it has.
    reload(&daemon, &warm("warm", "warm = { processes = 2 }"));
    let other = connect(&daemon, "warm");
    assert_ne!(ask(&other, "x").0, pid);
    assert_eq!(ask(&client, "y").0, pid);
    assert!(lives(pid));
    leave(&client);
    eventually("the old one has left", || !lives(pid));
    assert_eq!(ask(&other, "y").1, "y");
}

#[test]
fn a_drain_waits_for_connections_of_warm_processes() {
    let daemon = build(
        "grace = \"100s\"",
        &warm("warm", "warm = { processes = 1 }"),
    )
    .start();
    let client = connect(&daemon, "warm");
    let (pid, _) = ask(&client, "x");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_log("draining");
    assert_eq!(ask(&client, "y").1, "y");
    leave(&client);
    assert_eq!(daemon.wait().code, Some(0));
    assert!(!lives(pid));
}

#[test]
fn a_warm_program_may_be_behind_tls() {
    let ca = Certificates::new();
    let pair = ca.server(&["localhost"]);
    let tls = format!(
        "tls = {{ certificates = [{{ chain = {:?}, key = {:?} }}] }}",
        pair.chain, pair.key
    );
    let daemon = start(&warm(
        "warm",
        &format!("warm = {{}}\nstyle = \"ucspi\"\n{tls}"),
    ));
    for _ in 0..3 {
        let mut client =
            TlsClient::begin(daemon.address("warm"), "localhost", ca.ca(), None).unwrap();
        // As much of the answer as was asked.
        let said = client
            .echo(&[b"x".repeat(40), b"\n".to_vec()].concat())
            .unwrap();
        assert!(
            String::from_utf8_lossy(&said).contains("PROTO=TCP"),
            "{said:?}"
        );
    }
    eventually("they are counted", || started(&daemon, "warm") == 1);
}
