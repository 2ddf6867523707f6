//! What the tests of fd-broker share.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test helper fails by panicking"
)]
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_testkit::{Daemon, DaemonBuilder, Python, eventually, peer};
use serde_json::Value;

/// The daemon's binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_fd-broker");

/// The binary of another daemon, which cargo put beside that of this one.
pub fn beside(name: &str) -> PathBuf {
    let path = Path::new(BINARY).with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build -p {name}",
        path.display()
    );
    path
}

/// A program of ours that is killed with its test.
pub struct Worker {
    child: Child,
    lines: Mutex<mpsc::Receiver<String>>,
}

/// A broker with an admin endpoint, a port for clients, and sockets for workers of each protocol in its
/// directory. `pool` goes into the pool's table, `more` behind everything.
pub fn broker(pool: &str, more: &str) -> Daemon {
    start(builder(), pool, more)
}

/// A broker that has not been started yet.
pub fn builder() -> DaemonBuilder {
    Daemon::build(BINARY)
}

/// Starts a broker with that configuration.
pub fn start(builder: DaemonBuilder, pool: &str, more: &str) -> Daemon {
    let directory = builder.dir().to_owned();
    key_file(&directory);
    let text = configuration(&directory, pool, more);
    builder.config(&text).start()
}

/// A configuration whose admin endpoint takes actions, and the path of that.
pub fn with_actions(directory: &Path) -> (String, PathBuf) {
    let admin = directory.join("admin.sock");
    let text = format!(
        "[admin]\nlisten = \"unix:{}\"\nactions = true\n[[pool]]\nname = \"default\"\n\
         [[listener]]\nservice = \"hand-off\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
        admin.display()
    );
    (text, admin)
}

/// The configuration of [`broker`].
pub fn configuration(directory: &Path, pool: &str, more: &str) -> String {
    let place = directory.display();
    // Keys of no table come first.
    let (top, more) = match more.strip_prefix("loops = 1\n") {
        Some(rest) => ("loops = 1\n", rest),
        None => ("", more),
    };
    format!(
        "{top}[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[pool]]\nname = \"default\"\n{pool}\n\
         [[listener]]\nservice = \"hand-off\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         [[listener]]\nservice = \"native\"\nlisten = [\"unix:{place}/native.sock\"]\n\
         [[listener]]\nservice = \"raw\"\nlisten = [\"unix:{place}/raw.sock\"]\n\
         [[listener]]\nservice = \"python\"\nlisten = [\"unix:{place}/python.sock\"]\n\
         auth = \"python\"\nauth_keys = \"{place}/keys\"\nmin_digest = \"md5\"\n{more}\n"
    )
}

fn key_file(directory: &Path) {
    let path = directory.join("keys");
    // b"peekaboo", the tutorial's.
    fs::write(&path, "tutorial:text:peekaboo\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Worker {
    /// Starts a Python script.
    pub fn python(python: &Path, script: &str, arguments: &[&str]) -> Self {
        Self::start(Command::new(python).args(["-c", script]).args(arguments))
    }

    /// Starts a command.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines: Mutex::new(lines),
        }
    }

    /// Waits for the next line that it prints.
    #[track_caller]
    pub fn line(&self) -> String {
        let lines = self.lines.lock().unwrap();
        let line = lines.recv_timeout(Duration::from_secs(20));
        line.unwrap_or_else(|error| panic!("the worker prints nothing: {error}"))
    }

    /// Gives it a line to read.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<i32> {
        Some(self.child.try_wait().unwrap()?.code().unwrap_or(-1))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The tutorial's worker: it serves one client after the other.
pub const TUTORIAL: &str = r"
import os, sys
from multiprocessing.connection import Client
from multiprocessing.reduction import recv_handle
from socket import socket, AF_INET, SOCK_STREAM
broker = Client(sys.argv[1], authkey=b'peekaboo')
broker.send(os.getpid())
while True:
    with socket(AF_INET, SOCK_STREAM, fileno=recv_handle(broker)) as client:
        while True:
            message = client.recv(1024)
            if not message:
                break
            client.send(message)
";

/// The tutorial's worker for sockets.
pub const TUTORIAL_RAW: &str = r"
import socket, struct, sys
broker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
broker.connect(sys.argv[1])
def receive():
    message, ancillary, flags, address = broker.recvmsg(1, socket.CMSG_LEN(struct.calcsize('i')))
    level, kind, data = ancillary[0]
    assert level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
    broker.sendall(b'OK')
    return struct.unpack('i', data)[0]
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=receive()) as client:
        while True:
            message = client.recv(1024)
            if not message:
                break
            client.send(message)
";

/// Starts the tutorial's worker on a Python.
pub fn tutorial(python: &Path, daemon: &Daemon) -> Worker {
    let socket = daemon.dir().join("python.sock");
    Worker::python(python, TUTORIAL, &[socket.to_str().unwrap()])
}

/// Starts the tutorial's worker for sockets on a Python.
pub fn tutorial_raw(python: &Path, daemon: &Daemon) -> Worker {
    let socket = daemon.dir().join("raw.sock");
    Worker::python(python, TUTORIAL_RAW, &[socket.to_str().unwrap()])
}

/// Starts a worker that speaks the broker's own protocol, with options as native.py has them.
pub fn native(daemon: &Daemon, options: &[&str]) -> Worker {
    let socket = daemon.dir().join("native.sock");
    let mut arguments = vec![socket.to_str().unwrap()];
    arguments.extend(options);
    Worker::python(&python3(), NATIVE, &arguments)
}

/// A worker that speaks the broker's own protocol.
pub const NATIVE: &str = include_str!("native.py");

/// The system's Python.
pub fn python3() -> PathBuf {
    peer("python3")
}

/// Every Python 3.
pub fn pythons3() -> Vec<Python> {
    let mut pythons = portyard_testkit::pythons();
    pythons.retain(|python| python.version >= (3, 0));
    assert!(pythons.len() > 1, "{pythons:?}");
    pythons
}

/// What the status says of the pool of that name.
pub fn pool(daemon: &Daemon, name: &str) -> Value {
    let status = daemon.status();
    let pools = status["pools"].as_array().expect("pools");
    let found = pools.iter().find(|pool| pool["name"] == name);
    found
        .unwrap_or_else(|| panic!("no pool {name} in {status}"))
        .clone()
}

/// Waits until the pool `default` has so many workers.
pub fn workers(daemon: &Daemon, count: usize) {
    eventually("the workers are there", || {
        pool(daemon, "default")["workers"].as_array().unwrap().len() == count
    });
}
