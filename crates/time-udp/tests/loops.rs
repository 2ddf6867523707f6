//! Two servers pointed at each other by one forged datagram fall silent at once, whichever they are.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use common::{
    Client, Ground, SERVICES, SNTP_REQUEST, all_services, client, dropped, hex, listener, named,
    received, received_by_all, serving_in_order, settled,
};
use portyard_testkit::{Daemon, DaemonBuilder, eventually, peer};

#[test]
fn every_pair_of_services_falls_silent_within_a_few_packets() {
    let ground = Ground::new();
    let start = || ground.put(with_nudges(&all_services(""))).start();
    let pair = [start(), start()];
    let mut forger = ground.forger();
    let mut talkers = Vec::new();
    for (one, other) in SERVICES
        .iter()
        .flat_map(|one| SERVICES.map(|other| (one, other)))
    {
        for payload in FIRST {
            let before = total(&pair);
            forger.forge(pair[0].address(one), pair[1].address(other), payload);
            eventually("the forged datagram comes", || total(&pair) > before);
            let packets = settle(&pair).map(|total| total - before);
            if packets.is_none_or(|packets| packets > MOST) {
                talkers.push((one, other, payload.escape_ascii().to_string(), packets));
            }
            // One pair that talks for ever would be counted for all others too.
            assert!(
                packets.is_some(),
                "from one, to the other, first word, packets: {talkers:?}"
            );
        }
    }
    assert!(
        talkers.is_empty(),
        "from one, to the other, first word, packets: {talkers:?}"
    );
}

#[test]
fn a_daemon_pointed_at_itself_falls_silent() {
    let ground = Ground::new();
    let daemon = ground.put(serving_in_order(&all_services(""))).start();
    let mut forger = ground.forger();
    for service in SERVICES {
        forger.forge(daemon.address(service), daemon.address(service), b"1");
        eventually("it is counted", || settled(&daemon, service) == 1);
        assert_eq!(received(&daemon, service), 1, "{service} heard itself");
    }
}

#[test]
fn a_peer_that_returns_everything_gets_no_conversation() {
    let daemon = with_nudges(&all_services("")).start();
    let python = Echo::start();
    for service in SERVICES
        .into_iter()
        .filter(|service| !["echo", "fib"].contains(service))
    {
        for payload in FIRST {
            let before = received(&daemon, service);
            python.start_with(daemon.address(service), payload);
            eventually("the first datagram comes", || {
                received(&daemon, service) > before
            });
            python.settle(&daemon);
            let packets = received(&daemon, service) - before;
            assert!(
                packets <= 2,
                "{service} took {packets} datagrams after {payload:?}"
            );
        }
    }
}

/// What echo and fib answer cannot be told from a question once a stranger has taken the mark off:
/// there the rate ends it.
#[test]
fn the_rate_ends_a_conversation_that_nothing_else_can() {
    let tables: String = ["echo", "fib"]
        .map(|service| {
            let limits = "rate = \"1/h\"\nburst = 20\nexempt_loopback = false";
            listener(service, "udp://127.0.0.1:0", limits)
        })
        .concat();
    let daemon = with_nudges(&tables).start();
    let python = Echo::start();
    for service in ["echo", "fib"] {
        python.start_with(daemon.address(service), b"1");
        eventually("it has run into the rate", || {
            dropped(&daemon, service, "rate") == 1
        });
        python.settle(&daemon);
        let packets = received(&daemon, service);
        // The burst, and by the leak a few more: a thousand would take a chance of 1 to 10^590.
        assert!((21..1000).contains(&packets), "{service} took {packets}");
    }
}

/// The first datagrams: nothing, a number that fib answers with itself, text, requests of SNTP.
const FIRST: [&[u8]; 5] = [b"", b"1", b"hi", &SNTP_REQUEST, &{
    let mut old = [0; 48];
    old[0] = 0x08;
    old
}];

/// Packets that one forged datagram may cause, itself included.
const MOST: u64 = 4;

/// A daemon with one more listener, for [`nudge`].
fn with_nudges(tables: &str) -> DaemonBuilder {
    let more = named("nudge", &listener("discard", "udp://127.0.0.1:0", ""));
    serving_in_order(&format!("{tables}{more}"))
}

/// All datagrams that the daemons' services have received.
fn total(daemons: &[Daemon]) -> u64 {
    daemons.iter().map(received_by_all).sum()
}

/// Waits until nothing moves between daemons any more; `None` if it goes on and on.
///
/// Each round has each daemon's one loop take one more datagram. By then it has seen what was sent
/// before, so that a conversation that goes on has grown in each round.
fn settle(daemons: &[Daemon]) -> Option<u64> {
    still(|| total(daemons), || daemons.iter().for_each(nudge))
}

/// Has the daemon's loop take a datagram of ours.
fn nudge(daemon: &Daemon) {
    let before = received(daemon, "nudge");
    let nudger = client(daemon, "nudge");
    eventually("a nudge is counted", || {
        // Among the many of a conversation without end, one may find no room.
        nudger.send(b"");
        received(daemon, "nudge") > before
    });
}

/// Waits until some rounds have left a count as it was; `None` if they never do.
fn still(count: impl Fn() -> u64, round: impl Fn()) -> Option<u64> {
    let (mut last, mut quiet) = (count(), 0);
    for _ in 0..300 {
        round();
        let now = count();
        quiet = if now == last { quiet + 1 } else { 0 };
        if quiet == 4 {
            return Some(now);
        }
        last = now;
    }
    None
}

/// The echo server of a Python tutorial.
struct Echo {
    python: Child,
    address: SocketAddr,
}

impl Echo {
    fn start() -> Self {
        let mut python = Command::new(peer("python3"))
            .args(["-u", "-c", ECHO])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(python.stdout.as_mut().unwrap())
            .read_line(&mut port)
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        Self { python, address }
    }

    /// Makes it send this as its first word to somebody.
    fn start_with(&self, to: SocketAddr, payload: &[u8]) {
        let order = format!("to {} {} {}", to.ip(), to.port(), hex(payload));
        assert_eq!(Client::of(self.address).ask_text(order.as_bytes()), "sent");
    }

    /// Waits until neither the daemon nor the echo server has anything to say.
    fn settle(&self, daemon: &Daemon) {
        let count = || total(std::slice::from_ref(daemon));
        let settled = still(count, || {
            nudge(daemon);
            // Its answer comes behind whatever it had to return before.
            assert_eq!(
                Client::of(self.address).ask(b"still there?"),
                b"still there?"
            );
        });
        assert!(
            settled.is_some(),
            "they are still talking after {} datagrams",
            count()
        );
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.python.kill();
        let _ = self.python.wait();
    }
}

const ECHO: &str = r"
import socket

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 0))
print(s.getsockname()[1])
while True:
    data, address = s.recvfrom(65535)
    if data.startswith(b'to '):
        _, host, port, payload = data.decode().split(' ')
        s.sendto(bytes.fromhex(payload), (host, int(port)))
        data = b'sent'
    s.sendto(data, address)
";
