//! Workers that the broker keeps running, pools that lend their listening socket, and the operator's client.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Worker, broker, builder, native, pool, python3, start, workers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_testkit::{Client, Daemon, Finished, eventually, finish};
use serde_json::Value;

/// A `[[worker]]` table that runs this script with the broker's socket.
fn table(directory: &Path, name: &str, script: &str, socket: &str) -> String {
    let file = directory.join(format!("{name}.py"));
    std::fs::write(&file, script).unwrap();
    format!(
        "[[worker]]\nname = \"{name}\"\ncommand = [\"{}\", \"{}\", \"{}\"]\n\
         restart = {{ delay = \"10ms\" }}\n",
        python3().display(),
        file.display(),
        directory.join(socket).display()
    )
}

#[test]
fn workers_are_started_and_started_again() {
    let builder = builder();
    let directory = builder.dir().to_owned();
    let table = table(&directory, "tutorial", common::TUTORIAL, "python.sock") + "count = 2\n";
    let daemon = start(builder, "", &table);
    workers(&daemon, 2);
    let clients = [0; 2].map(|_| Client::connect(&daemon.endpoint("hand-off")));
    assert!(clients.iter().all(Client::is_echoed));
    let pid = pool(&daemon, "default")["workers"][0]["pid"]
        .as_i64()
        .unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    eventually("it is started again", || {
        daemon.status()["programs"][0]["restarts"] == 1
    });
    workers(&daemon, 2);
    drop(clients);
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn a_stuck_worker_of_ours_is_killed_and_its_connection_served_by_another() {
    let builder = builder();
    let directory = builder.dir().to_owned();
    let table = table(&directory, "tutorial", common::TUTORIAL, "python.sock");
    let daemon = start(builder, "offer_timeout = \"200ms\"", &table);
    workers(&daemon, 1);
    let pid = pool(&daemon, "default")["workers"][0]["pid"]
        .as_i64()
        .unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGSTOP).unwrap();
    let client = Client::connect(&daemon.endpoint("hand-off"));
    client.send("hello");
    // Its successor serves.
    assert_eq!(client.receive(5), b"hello");
    let pool = pool(&daemon, "default");
    assert_eq!(
        (&pool["redelivered"], &pool["lost"]),
        (&1.into(), &0.into()),
        "{pool}"
    );
}

#[test]
fn a_stuck_worker_of_somebody_elses_keeps_its_connection_from_all() {
    let daemon = broker("offer_timeout = \"200ms\"", "");
    let stuck = common::tutorial(&python3(), &daemon);
    workers(&daemon, 1);
    stuck.signal(Signal::SIGSTOP);
    let client = Client::connect(&daemon.endpoint("hand-off"));
    client.send("hello");
    eventually("it is given up", || pool(&daemon, "default")["lost"] == 1);
    let _other = common::tutorial(&python3(), &daemon);
    workers(&daemon, 1);
    // It was ended, so that it cannot be served late, or twice.
    assert!(client.receive_all().0.is_empty());
}

#[test]
fn a_pool_can_lend_its_listening_socket() {
    let daemon = broker("mode = \"listener\"", "");
    let accepting = r"
import socket, sys
sys.path.insert(0, '.')
exec(open(sys.argv[2]).read().split('def main')[0])
broker = connect(sys.argv[1])
broker.send(hello(b'w'))
assert receive(broker)[0] == WELCOME
kind, body, descriptors = receive(broker)
assert kind == LISTENER
listener = socket.socket(fileno=descriptors[0])
print('accepts', flush=True)
import select
while True:
    select.select([listener], [], [])
    try:
        client, _ = listener.accept()
    except BlockingIOError:
        continue
    client.setblocking(True)
    client.sendall(client.recv(100))
    client.close()
";
    let module = daemon.dir().join("native.py");
    std::fs::write(&module, common::NATIVE).unwrap();
    let socket = daemon.dir().join("native.sock");
    let arguments = [socket.to_str().unwrap(), module.to_str().unwrap()];
    let worker = Worker::python(&python3(), accepting, &arguments);
    assert_eq!(worker.line(), "accepts");
    // As many loops as the machine has cores, each with a socket of its own; this worker has one of them.
    let echoed = (0..20)
        .filter(|_| {
            let client = Client::connect(&daemon.endpoint("hand-off"));
            client.send("hi");
            client
                .socket()
                .set_read_timeout(Some(std::time::Duration::from_millis(300)))
                .unwrap();
            client.try_receive(2).is_some()
        })
        .count();
    assert!(echoed > 0);
    assert_eq!(pool(&daemon, "default")["arrived"], 0);
}

/// Runs `portyard broker` on the daemon's control socket.
fn operate(daemon: &Daemon, arguments: &[&str]) -> Finished {
    let portyard = Path::new(common::BINARY).parent().unwrap().join("portyard");
    assert!(
        portyard.is_file(),
        "build it first: cargo build -p portyard"
    );
    let socket: PathBuf = daemon.dir().join("control.sock");
    finish(
        Command::new(portyard)
            .arg("broker")
            .arg("--socket")
            .arg(socket)
            .args(arguments),
        b"",
    )
}

#[test]
fn an_operator_sees_workers_and_queue_and_drains() {
    let builder = builder();
    let control = builder.dir().join("control.sock");
    let more = format!(
        "[[listener]]\nservice = \"control\"\nlisten = [\"unix:{}\"]\n",
        control.display()
    );
    let daemon = start(builder, "", &more);
    let worker = native(&daemon, &["name=one", "capacity=5"]);
    workers(&daemon, 1);
    assert_eq!(worker.line(), "ready");
    let client = Client::connect(&daemon.endpoint("hand-off"));
    assert!(client.is_echoed());
    let table = operate(&daemon, &["workers"]).success();
    assert!(table.contains("one") && table.contains("1/5"), "{table}");
    let told = operate(&daemon, &["drain", "one"]).success();
    assert_eq!(told, "one drains: 1 worker\n");
    assert_eq!(worker.line(), "drain");
    let waiting = Client::connect(&daemon.endpoint("hand-off"));
    waiting.send("hi");
    eventually("it waits", || pool(&daemon, "default")["waiting"] == 1);
    let queue = operate(&daemon, &["queue", "--json"]).success();
    let queue: Value = serde_json::from_str(&queue).unwrap();
    assert_eq!(queue[0]["listener"], "hand-off");
    operate(&daemon, &["resume", "default"]).success();
    assert_eq!(waiting.receive(2), b"hi");
    let listeners = operate(&daemon, &["listeners"]).success();
    assert!(
        listeners.contains("hand-off") && listeners.contains("tcp://127.0.0.1:"),
        "{listeners}"
    );
    let unknown = operate(&daemon, &["drain", "nobody"]);
    assert_eq!(unknown.code, Some(77));
    assert!(
        unknown.stderr.contains("no worker and no pool"),
        "{}",
        unknown.stderr
    );
    let watched = operate(&daemon, &["watch", "--every", "100ms", "--times", "2"]).success();
    assert_eq!(watched.matches("WORKER").count(), 2, "{watched}");
}
