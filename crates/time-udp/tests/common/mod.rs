//! What the tests of time-udp share: clients, counters, and a place where sources can be forged.
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails in a helper fails the test"
)]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use portyard_testkit::{Daemon, DaemonBuilder, eventually, peer};

/// The services, in the order of the daemon's table.
pub const SERVICES: [&str; 8] = [
    "ctime",
    "daytime",
    "time",
    "timestamp",
    "echo",
    "discard",
    "sntp",
    "fib",
];

/// A request of an SNTP client, version 4, as its first byte says; the rest is zero.
pub const SNTP_REQUEST: [u8; 48] = {
    let mut packet = [0; 48];
    packet[0] = 0x23;
    packet
};

/// Far beyond what an answer takes on the busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon under test.
pub fn time_udp() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_time-udp"))
}

/// The daemon with an admin endpoint and these tables, such as [`listener`] writes them.
pub fn serving(tables: &str) -> DaemonBuilder {
    configured("", tables)
}

/// As [`serving`], on one loop, which takes datagrams in the order in which they were sent.
pub fn serving_in_order(tables: &str) -> DaemonBuilder {
    configured("loops = 1", tables)
}

/// The daemon with an admin endpoint, these keys at the top of its configuration, and these tables.
pub fn configured(keys: &str, tables: &str) -> DaemonBuilder {
    let daemon = time_udp();
    let text = configuration(daemon.dir(), keys, tables);
    daemon.config(&text)
}

/// The text of such a configuration.
pub fn configuration(directory: &Path, keys: &str, tables: &str) -> String {
    let admin = directory.join("admin");
    format!(
        "{keys}\n[admin]\nlisten = \"unix:{}\"\n{tables}",
        admin.display()
    )
}

/// The listeners of all services on free ports of the IPv4 loopback address; `limits` go to each.
pub fn all_services(limits: &str) -> String {
    let each = |service: &&str| listener(service, "udp://127.0.0.1:0", limits);
    SERVICES.iter().map(each).collect()
}

/// A `[[listener]]` of a service at an endpoint, with these limits.
pub fn listener(service: &str, endpoint: &str, limits: &str) -> String {
    format!(
        "[[listener]]\nservice = \"{service}\"\nlisten = [\"{endpoint}\"]\n\
         [listener.limits]\n{limits}\n"
    )
}

/// The same `[[listener]]` under a name of its own.
pub fn named(name: &str, listener: &str) -> String {
    listener.replacen(
        "[[listener]]\n",
        &format!("[[listener]]\nname = \"{name}\"\n"),
        1,
    )
}

/// A daemon on one loop with one listener on the IPv4 loopback address.
pub fn one(service: &str, limits: &str) -> Daemon {
    serving_in_order(&listener(service, "udp://127.0.0.1:0", limits)).start()
}

/// A daemon on one loop with all services on the IPv4 loopback address.
pub fn all() -> Daemon {
    serving_in_order(&all_services("")).start()
}

/// A UDP client that talks to one address only.
pub struct Client {
    pub socket: UdpSocket,
}

impl Client {
    /// A client on a free port of the loopback address of the server's family.
    pub fn of(server: SocketAddr) -> Self {
        let local: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        Self::at(SocketAddr::new(local, 0), server)
    }

    /// A client on this address.
    pub fn at(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).unwrap_or_else(|error| panic!("bind {local}: {error}"));
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// Sends a datagram.
    pub fn send(&self, payload: &[u8]) {
        assert_eq!(self.socket.send(payload).unwrap(), payload.len());
    }

    /// The next answer.
    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.socket.recv(&mut buffer).expect("no answer came");
        buffer.truncate(length);
        buffer
    }

    /// The answer to a datagram.
    pub fn ask(&self, payload: &[u8]) -> Vec<u8> {
        self.send(payload);
        self.receive()
    }

    /// The answer to a datagram, as text.
    pub fn ask_text(&self, payload: &[u8]) -> String {
        String::from_utf8(self.ask(payload)).expect("the answer is text")
    }

    /// Whether an answer is waiting.
    pub fn has_answer(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let has = self.socket.peek(&mut [0; 1]).is_ok();
        self.socket.set_nonblocking(false).unwrap();
        has
    }
}

/// A client of a daemon's listener.
pub fn client(daemon: &Daemon, listener: &str) -> Client {
    Client::of(daemon.address(listener))
}

/// Whether this is the text of a moment, by its shape alone: `Fri Nov 20 11:41:40 2026`.
pub fn is_ctime(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| match c {
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            '0'..='9' => '9',
            other => other,
        })
        .collect();
    shape == "Aaa Aaa 99 99:99:99 9999" || shape == "Aaa Aaa  9 99:99:99 9999"
}

/// Datagrams that a listener has received.
pub fn received(daemon: &Daemon, listener: &str) -> u64 {
    count(daemon, "datagrams_total", listener)
}

/// Datagrams that the listeners named after services have received.
pub fn received_by_all(daemon: &Daemon) -> u64 {
    let (_, page) = daemon.admin_get("/metrics");
    let of = |service| {
        of_listener(&page, "datagrams_total", service)
            .map(value)
            .sum::<u64>()
    };
    SERVICES.into_iter().map(of).sum()
}

/// Datagrams that a listener has answered.
pub fn answered(daemon: &Daemon, listener: &str) -> u64 {
    count(daemon, "answers_total", listener)
}

/// Datagrams that a listener has not answered for this reason.
pub fn dropped(daemon: &Daemon, listener: &str, reason: &str) -> u64 {
    let (_, page) = daemon.admin_get("/metrics");
    let wanted = format!("reason=\"{reason}\"");
    of_listener(&page, "datagrams_dropped_total", listener)
        .find(|line| line.contains(&wanted))
        .map_or_else(
            || panic!("no drops of {listener} for {reason} in\n{page}"),
            value,
        )
}

/// Datagrams that a listener is done with: answered or dropped.
pub fn settled(daemon: &Daemon, listener: &str) -> u64 {
    let (_, page) = daemon.admin_get("/metrics");
    ["answers_total", "datagrams_dropped_total"]
        .iter()
        .flat_map(|name| of_listener(&page, name, listener))
        .map(value)
        .sum()
}

/// Sends a datagram that must not be answered, and waits until it is counted under `reason`.
pub fn assert_dropped(
    daemon: &Daemon,
    listener: &str,
    client: &Client,
    payload: &[u8],
    reason: &str,
) {
    // An answer is counted when it has been sent, which may be after its client has it.
    eventually("what came before is counted", || {
        settled(daemon, listener) == received(daemon, listener)
    });
    let (answers, drops) = (
        answered(daemon, listener),
        dropped(daemon, listener, reason),
    );
    client.send(payload);
    eventually(&format!("{listener} counts a drop for {reason}"), || {
        dropped(daemon, listener, reason) == drops + 1
    });
    assert_eq!(
        answered(daemon, listener),
        answers,
        "{listener} answered all the same"
    );
    assert!(!client.has_answer(), "{listener} answered all the same");
}

fn count(daemon: &Daemon, metric: &str, listener: &str) -> u64 {
    let (_, page) = daemon.admin_get("/metrics");
    of_listener(&page, metric, listener).map(value).sum()
}

fn of_listener<'a>(
    page: &'a str,
    metric: &'a str,
    listener: &str,
) -> impl Iterator<Item = &'a str> {
    let start = format!("portyard_{metric}{{listener=\"{listener}\",");
    page.lines().filter(move |line| line.starts_with(&start))
}

fn value(line: &str) -> u64 {
    let (_, value) = line.rsplit_once(' ').expect("a metric has a value");
    value.parse().expect("a counter is a number")
}

/// Where ports below 1024 can be bound and sources be forged: this machine's loopback for root, a
/// network namespace of its own for everybody else.
pub struct Ground {
    holder: Option<Child>,
}

impl Ground {
    /// Finds out what is possible, and loudly if nothing is.
    pub fn new() -> Self {
        if nix::unistd::geteuid().is_root() {
            return Self { holder: None };
        }
        let mut holder = Command::new(peer("unshare"))
            .args([
                "-rn",
                "sh",
                "-c",
                "ip link set lo up && echo up && exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "up\n",
            "no user namespace can be made here (unshare -rn); run this test as root"
        );
        Self {
            holder: Some(holder),
        }
    }

    /// The command line that runs a program there.
    fn enter(&self) -> Vec<String> {
        let Some(holder) = &self.holder else {
            return Vec::new();
        };
        let (nsenter, pid) = (peer("nsenter"), holder.id().to_string());
        let nsenter = nsenter.to_str().unwrap();
        [nsenter, "-t", &pid, "-U", "-n", "--preserve-credentials"]
            .map(String::from)
            .to_vec()
    }

    /// A daemon that will run there.
    pub fn put(&self, daemon: DaemonBuilder) -> DaemonBuilder {
        match self.enter() {
            words if words.is_empty() => daemon,
            words => daemon.wrap(words),
        }
    }

    /// Runs a Python script there and returns what it prints; panics when it fails.
    pub fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut words = self.enter();
        words.push(peer("python3").to_str().unwrap().into());
        let mut python = Command::new(&words[0])
            .args(&words[1..])
            .arg("-")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        python
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success(), "python failed: {}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Somebody there who forges sources.
    pub fn forger(&self) -> Forger {
        let mut words = self.enter();
        words.extend([peer("python3").to_str().unwrap(), "-uc", FORGE].map(String::from));
        let mut python = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(python.stdout.take().unwrap());
        Forger { python, answers }
    }
}

/// Sends datagrams whose source is forged. Nobody hears the answers but the forged sources.
pub struct Forger {
    python: Child,
    answers: BufReader<ChildStdout>,
}

impl Forger {
    /// Sends one datagram; when this returns, it is in the receiver's queue.
    pub fn forge(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let orders = self.python.stdin.as_mut().unwrap();
        writeln!(orders, "{from} {to} {}", hex(payload)).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(
            answer, "sent\n",
            "no source can be forged here; run this test as root"
        );
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.python.stdin.take());
        let _ = self.python.wait();
    }
}

/// Bytes as two digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            // The end of its input ends it, and with it the namespace.
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

/// Each line of input is a source, a destination, and a payload in hex.
const FORGE: &str = r"
import socket, struct, sys

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for line in sys.stdin:
    source, destination, payload = line.rstrip('\n').split(' ')
    (sip, sport), (dip, dport) = (a.rsplit(':', 1) for a in (source, destination))
    payload = bytes.fromhex(payload)
    # A checksum of 0 says that there is none (RFC 768).
    udp = struct.pack('!HHHH', int(sport), int(dport), 8 + len(payload), 0) + payload
    ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                     socket.inet_aton(sip), socket.inet_aton(dip))
    raw.sendto(ip + udp, (dip, 0))
    print('sent')
";
