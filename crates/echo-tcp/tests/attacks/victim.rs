//! Who is attacked: ends of ours, and ends of CPython as the control.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;

use portyard_core::wire::auth::python::MinDigest;
use portyard_core::wire::auth::{Digest, Handshake, Key, Keys, Secret, mutual, python, recipe};
use portyard_testkit::{Daemon, pythons};

use crate::stream::{Stream, random};

/// What is said before the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Python,
    Mutual,
    Recipe,
}

impl Dialect {
    /// As a configuration calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Mutual => "mutual",
            Self::Recipe => "recipe",
        }
    }
}

/// The daemon with an echo behind each dialect, and no penalties: a source may try as often as it
/// likes.
pub fn daemon() -> Daemon {
    let builder = Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"));
    let keys = key_file(builder.dir());
    let listener = |(dialect, min): (Dialect, _)| {
        let (name, auth, digest) = (label(dialect, min), dialect.name(), digest(min));
        format!(
            "[[listener]]\nservice = \"echo\"\nname = \"{name}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
             auth = \"{auth}\"\nauth_keys = \"{keys}\"\nmin_digest = \"{digest}\"\n\
             [listener.limits]\npenalty_max = \"0s\"\n"
        )
    };
    let admin = "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n";
    let listeners = OURS.map(listener).concat();
    builder.config(&format!("{admin}{listeners}")).start()
}

/// Every dialect, and the digests it may be set to.
pub const OURS: [(Dialect, MinDigest); 4] = [
    (Dialect::Python, MinDigest::Sha256),
    (Dialect::Python, MinDigest::Md5),
    (Dialect::Mutual, MinDigest::Sha256),
    (Dialect::Recipe, MinDigest::Sha256),
];

/// A name for a listener, or a row of the table.
pub fn label(dialect: Dialect, min: MinDigest) -> String {
    format!("{}-{}", dialect.name(), digest(min))
}

fn digest(min: MinDigest) -> &'static str {
    match min {
        MinDigest::Md5 => "md5",
        MinDigest::Sha256 => "sha256",
    }
}

/// A file with the key, and its path.
pub fn key_file(directory: &Path) -> String {
    let path = directory.join("keys");
    fs::write(&path, format!("k:text:{SECRET}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// An end that listens, and serves an echo to whoever has proved the key.
pub struct Server {
    pub address: SocketAddr,
    pub dialect: Dialect,
    _process: Option<Process>,
}

impl Server {
    /// Ours: a listener of the daemon.
    pub fn ours(daemon: &Daemon, dialect: Dialect, min: MinDigest) -> Self {
        Self::at(daemon.address(&label(dialect, min)), dialect, None)
    }

    /// Ours, but with random bytes that are always the same.
    pub fn careless(dialect: Dialect) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = Stream::over(stream.unwrap());
                thread::spawn(move || {
                    stream.speak(&mut *careless_server(dialect))?;
                    stream.echo()
                });
            }
        });
        Self::at(address, dialect, None)
    }

    /// `multiprocessing.connection.Listener` of this Python.
    pub fn cpython(version: (u8, u8)) -> Self {
        let mut process = Process::start(version, LISTENER, &[SECRET]);
        let port = process.line().parse().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self::at(address, Dialect::Python, Some(process))
    }

    fn at(address: SocketAddr, dialect: Dialect, process: Option<Process>) -> Self {
        Self {
            address,
            dialect,
            _process: process,
        }
    }
}

/// An end that connects as often as it is told, and sends its canary to whoever has proved the key.
pub struct Client {
    pub dialect: Dialect,
    listener: TcpListener,
    visit: Box<dyn Fn()>,
    canary: [u8; 16],
}

impl Client {
    /// Ours.
    pub fn ours(dialect: Dialect, min: MinDigest) -> Self {
        Self::machines(dialect, move || client(dialect, SECRET, min))
    }

    /// Ours, but with random bytes that are always the same.
    pub fn careless(dialect: Dialect) -> Self {
        Self::machines(dialect, move || careless_client(dialect))
    }

    fn machines(
        dialect: Dialect,
        machine: impl Fn() -> Box<dyn Handshake + Send> + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let canary = random();
        let visit = move || {
            let mut machine = machine();
            thread::spawn(move || {
                let mut stream = Stream::over(TcpStream::connect(address)?);
                stream.speak(&mut *machine)?;
                stream.send(&canary)
            });
        };
        Self {
            dialect,
            listener,
            visit: Box::new(visit),
            canary,
        }
    }

    /// `multiprocessing.connection.Client` of this Python.
    pub fn cpython(version: (u8, u8)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let canary: [u8; 16] = random();
        let hex = canary.map(|byte| format!("{byte:02x}")).concat();
        let process = Process::start(version, CLIENT, &[&port, SECRET, &hex]);
        Self {
            dialect: Dialect::Python,
            listener,
            visit: Box::new(move || process.tell("visit")),
            canary,
        }
    }

    /// A new connection of this client.
    pub fn connection(&self) -> Stream {
        Stream::over(self.tcp_connection())
    }

    /// The same, bare.
    pub fn tcp_connection(&self) -> TcpStream {
        (self.visit)();
        self.listener.accept().unwrap().0
    }

    /// Whether the client believes whom it talks to: its canary arrives. Ends the connection.
    pub fn believes(&self, stream: Stream) -> bool {
        self.is_canary_in(&stream.end())
    }

    /// Whether the client has said what it says to nobody else.
    pub fn is_canary_in(&self, said: &[u8]) -> bool {
        said.windows(16).any(|seen| seen == self.canary)
    }
}

/// A Python that goes on until it is dropped.
pub struct Process {
    child: Child,
    stdin: Arc<ChildStdin>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub fn start(version: (u8, u8), script: &str, arguments: &[&str]) -> Self {
        let python = pythons()
            .into_iter()
            .find(|python| python.version == version);
        let python = python.unwrap_or_else(|| panic!("there is no Python {version:?}"));
        let mut child = Command::new(python.path)
            .args(["-c", script])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = Arc::new(child.stdin.take().unwrap());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    pub fn tell(&self, line: &str) {
        writeln!(&*self.stdin, "{line}").unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An honest end that listens.
pub fn server(dialect: Dialect, min: MinDigest) -> Box<dyn Handshake + Send> {
    let keys = Keys::from(key(SECRET));
    match dialect {
        Dialect::Python => Box::new(python::Listener::new(keys, min, random())),
        Dialect::Mutual => Box::new(mutual::Server::new(keys, random(), None)),
        Dialect::Recipe => Box::new(recipe::Server::new(keys, Digest::Sha256, random())),
    }
}

/// An honest end that connects, but for its key.
pub fn client(dialect: Dialect, secret: &str, min: MinDigest) -> Box<dyn Handshake + Send> {
    let key = key(secret);
    match dialect {
        Dialect::Python => Box::new(python::Client::new(key, min, random())),
        Dialect::Mutual => Box::new(mutual::Client::new(key, random(), None)),
        Dialect::Recipe => Box::new(recipe::Client::new(key, Digest::Sha256)),
    }
}

fn careless_server(dialect: Dialect) -> Box<dyn Handshake + Send> {
    let keys = Keys::from(key(SECRET));
    match dialect {
        Dialect::Python => Box::new(python::Listener::new(keys, MinDigest::Sha256, [1; 40])),
        Dialect::Mutual => Box::new(mutual::Server::new(keys, [1; 32], None)),
        Dialect::Recipe => Box::new(recipe::Server::new(keys, Digest::Sha256, [1; 32])),
    }
}

fn careless_client(dialect: Dialect) -> Box<dyn Handshake + Send> {
    let key = key(SECRET);
    match dialect {
        Dialect::Python => Box::new(python::Client::new(key, MinDigest::Sha256, [2; 24])),
        Dialect::Mutual => Box::new(mutual::Client::new(key, [2; 32], None)),
        Dialect::Recipe => Box::new(recipe::Client::new(key, Digest::Sha256)),
    }
}

pub fn key(secret: &str) -> Key {
    Key::new("k", Secret::new(secret.into()).unwrap())
}

/// What no attacker knows.
pub const SECRET: &str = "correct horse battery staple";

/// Four threads, so that an attacker can have two dialogues at a time.
const LISTENER: &str = r"
import sys, threading
from multiprocessing.connection import Listener
listener = Listener(('127.0.0.1', 0), backlog=64, authkey=sys.argv[1].encode('ascii'))
def serve():
    while True:
        try:
            connection = listener.accept()
            while True:
                connection.send_bytes(connection.recv_bytes(4096))
        except Exception:
            connection = None
for _ in range(4):
    threading.Thread(target=serve, daemon=True).start()
print(listener.address[1])
sys.stdout.flush()
sys.stdin.read()
";

const CLIENT: &str = r"
import sys, threading
from multiprocessing.connection import Client
def visit():
    try:
        key = sys.argv[2].encode('ascii')
        connection = Client(('127.0.0.1', int(sys.argv[1])), authkey=key)
        connection.send_bytes(bytes.fromhex(sys.argv[3]))
        connection.close()
    except Exception:
        pass
for line in sys.stdin:
    threading.Thread(target=visit, daemon=True).start()
";
