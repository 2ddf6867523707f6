//! Programs that start daemons: xinetd, openbsd-inetd, tcpserver, systemd-socket-activate. Shared
//! by the launching tests of both daemons.
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a helper fails the test"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_testkit::{eventually, peer};
use tempfile::TempDir;

/// Far beyond what an answer takes on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What an inetd is told of a service.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    pub port: u16,
    pub kind: Kind,
    pub wait: bool,
    pub program: &'a str,
    pub arguments: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Stream,
    Datagram,
}

/// A program that starts others, in a process group of its own. Dropping it ends them all.
pub struct Launcher {
    child: Child,
    directory: TempDir,
}

impl Launcher {
    /// xinetd in the foreground, with these services on the loopback address.
    pub fn xinetd(services: &[Service]) -> Self {
        let mut text = String::from(
            "defaults\n{\n  cps = 100000 1\n  instances = UNLIMITED\n  per_source = UNLIMITED\n}\n",
        );
        for (number, service) in services.iter().enumerate() {
            let (kind, protocol) = service.names();
            let wait = if service.wait { "yes" } else { "no" };
            let Service {
                port,
                program,
                arguments,
                ..
            } = service;
            let _ = write!(
                text,
                "service portyard-{number}\n{{\n  type = UNLISTED\n  socket_type = {kind}\n  \
                 protocol = {protocol}\n  port = {port}\n  bind = 127.0.0.1\n  wait = {wait}\n  \
                 user = {}\n  server = {program}\n  server_args = {arguments}\n}}\n",
                user(),
            );
        }
        Self::xinetd_with(&text)
    }

    /// xinetd in the foreground, with this configuration.
    pub fn xinetd_with(text: &str) -> Self {
        let directory = directory();
        let config = directory.path().join("xinetd.conf");
        fs::write(&config, text).unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let arguments = [
            "-dontfork",
            "-f",
            &config.display().to_string(),
            "-filelog",
            &file("xinetd.log"),
            "-pidfile",
            &file("xinetd.pid"),
        ]
        .map(String::from);
        Self::start(Command::new(peer("xinetd")).args(arguments), directory)
    }

    /// openbsd-inetd in the foreground, with these services on the loopback address.
    pub fn inetd(services: &[Service]) -> Self {
        let mut text = String::new();
        for service in services {
            let (kind, protocol) = service.names();
            // Behind the dot: starts a minute before it takes the service for broken.
            let wait = if service.wait {
                "wait.100000"
            } else {
                "nowait.100000"
            };
            let Service {
                port,
                program,
                arguments,
                ..
            } = service;
            let name = Path::new(program).file_name().unwrap().to_str().unwrap();
            let _ = writeln!(
                text,
                "127.0.0.1:{port} {kind} {protocol} {wait} {} {program} {name} {arguments}",
                user(),
            );
        }
        Self::inetd_with(&text)
    }

    /// openbsd-inetd in the foreground, with this configuration.
    pub fn inetd_with(text: &str) -> Self {
        let directory = directory();
        let config = directory.path().join("inetd.conf");
        fs::write(&config, text).unwrap();
        // Its rivals are called inetd as well: it must be the one that the tests unpacked, or a
        // Debian machine's own, which is the same.
        Self::start(
            Command::new(peer("inetd")).arg("-i").arg(&config),
            directory,
        )
    }

    /// tcpserver on this port of the loopback address.
    pub fn tcpserver(port: u16, program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(peer("tcpserver"));
        command
            .args(["-HRl0", "127.0.0.1", &port.to_string(), program])
            .args(arguments);
        Self::start(&mut command, directory())
    }

    /// systemd-socket-activate with these options.
    pub fn socket_activate(options: &[&str], program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(peer("systemd-socket-activate"));
        command.args(options).arg(program).args(arguments);
        Self::start(&mut command, directory())
    }

    fn start(command: &mut Command, directory: TempDir) -> Self {
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = command
            .process_group(0)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    /// What it and its children have said.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read(self.directory.path().join(name)).unwrap_or_default();
        let all = [read("log"), read("xinetd.log")].concat();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// The processes that it has started and that are still there.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.child.id())
    }

    /// Its own process, which systemd-socket-activate turns into the daemon.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the launcher's log:\n{}", self.log());
        }
        // Some of them lead groups of their own. Each is stopped before its children are looked for,
        // so that it can neither start another nor leave one behind.
        let signal = |pid: u32, signal: Signal| {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
        };
        let mut all = vec![self.child.id()];
        let mut next = 0;
        while next < all.len() {
            signal(all[next], Signal::SIGSTOP);
            all.extend(children_of(all[next]));
            next += 1;
        }
        for pid in all {
            signal(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

impl Service<'_> {
    fn names(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Stream => ("stream", "tcp"),
            Kind::Datagram => ("dgram", "udp"),
        }
    }
}

/// A port that nobody has, for both transports, out of the range from which the kernel gives ports
/// to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap();
    for _ in 0..10_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed) * 7) % 10_000;
        let both = (
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)),
            UdpSocket::bind((Ipv4Addr::LOCALHOST, port)),
        );
        if let (Ok(_), Ok(_)) = both {
            return port;
        }
    }
    panic!("no port is free")
}

/// A connection to a port of the loopback address, as soon as somebody listens there.
pub fn connect(port: u16) -> TcpStream {
    let mut stream = None;
    eventually("somebody listens", || {
        stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes back for `request`, to its end.
pub fn exchange(port: u16, request: &[u8]) -> Vec<u8> {
    converse(connect(port), request)
}

/// The same over a connection that is there already.
pub fn converse(mut stream: TcpStream, request: &[u8]) -> Vec<u8> {
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// A connected datagram client of a port of the loopback address on which somebody listens.
pub fn datagrams(port: u16) -> UdpSocket {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually("somebody has the port", || UdpSocket::bind(server).is_err());
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(server).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// The answer to a datagram.
pub fn ask(client: &UdpSocket, request: &[u8]) -> Vec<u8> {
    client.send(request).unwrap();
    let mut buffer = vec![0; 65_536];
    let length = client.recv(&mut buffer).expect("no answer came");
    buffer.truncate(length);
    buffer
}

/// The answer to a datagram that may get lost, by an echo service.
pub fn ask_until_answered(client: &UdpSocket, request: &[u8]) {
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    eventually("it is answered", || {
        client.send(request).unwrap();
        let mut buffer = [0; 64];
        // What was asked before may have been answered twice.
        while let Ok(length) = client.recv(&mut buffer) {
            if buffer[..length] == *request {
                return true;
            }
        }
        false
    });
    client.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// A file with a configuration, in a directory that others may look into.
pub fn config(text: &str) -> (TempDir, PathBuf) {
    let directory = directory();
    let path = directory.path().join("daemon.toml");
    fs::write(&path, text).unwrap();
    (directory, path)
}

fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("portyard-launch-")
        .tempdir()
        .unwrap()
}

/// Who we are, for an inetd's `user`.
pub fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .expect("we have a name")
        .name
}

fn children_of(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        // Behind the name in parentheses come the state and the parent.
        stat.rsplit(") ")
            .next()?
            .split(' ')
            .nth(1)?
            .parse::<u32>()
            .ok()
    };
    numbers.filter(|child| parent(child) == Some(pid)).collect()
}
