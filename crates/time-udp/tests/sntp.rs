//! The sntp service towards real and forged clients: research of chrony's own behaviour (LVM bytes)
//! is the reference.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{
    Ground, SNTP_REQUEST, answered, assert_dropped, client, dropped, listener, one,
    serving_in_order,
};
use portyard_testkit::{Daemon, eventually, finish, peer};

#[test]
fn the_first_byte_of_the_answer_is_that_of_chronyd() {
    let daemon = vouching("stratum = 1");
    let client = client(&daemon, "sntp");
    for (asked, answered) in [(0x23, 0x24), (0x1b, 0x1c), (0x0b, 0x0c), (0x08, 0x0c)] {
        let answer = client.ask(&packet(asked));
        assert_eq!((answer.len(), answer[0]), (48, answered), "{asked:#04x}");
    }
}

#[test]
fn every_mode_of_every_version_gets_its_answer_or_none() {
    let daemon = vouching("stratum = 1");
    let client = client(&daemon, "sntp");
    for first in 0..=0xff_u8 {
        let (version, mode) = (first >> 3 & 7, first & 7);
        let expected = match (version, mode) {
            // Version 1 had no modes.
            (1..=4, 3) | (1, 0) => Some(4),
            (1..=4, 1) => Some(2),
            _ => None,
        };
        match expected {
            Some(mode) => {
                let answer = client.ask(&packet(first));
                assert_eq!(answer[0] & 0x3f, version << 3 | mode, "{first:#04x}");
            }
            None => assert_dropped(&daemon, "sntp", &client, &packet(first), "malformed"),
        }
    }
}

#[test]
fn what_is_no_request_gets_silence() {
    let daemon = vouching("stratum = 1");
    let client = client(&daemon, "sntp");
    for (request, what) in [
        (&b""[..], "nothing"),
        (&SNTP_REQUEST[..47], "47 bytes"),
        (&[0; 500], "500 zeros"),
        (&packet(0x24), "an answer"),
        (&packet(0x2b), "version 5"),
        (&packet(0x26), "a control message"),
        (&packet(0x27), "monlist's mode"),
    ] {
        println!("{what}");
        assert_dropped(&daemon, "sntp", &client, request, "malformed");
    }
}

#[test]
fn extensions_and_authenticators_are_not_answered_with_more() {
    let daemon = vouching("stratum = 1");
    let client = client(&daemon, "sntp");
    for extra in [1, 20, 24, 452] {
        let mut request = SNTP_REQUEST.to_vec();
        request.resize(48 + extra, 0xee);
        assert_eq!(client.ask(&request).len(), 48);
    }
}

#[test]
fn origin_is_the_requests_transmit_time_and_the_rest_is_now() {
    let daemon = vouching("stratum = 1");
    let client = client(&daemon, "sntp");
    let mut request = SNTP_REQUEST;
    request[2] = 10;
    request[40..].copy_from_slice(b"\x01\x02\x03\x04\x05\x06\x07\x08");
    let before = now();
    let answer = client.ask(&request);
    let after = now();
    assert_eq!(answer[24..32], request[40..], "origin");
    assert_eq!(answer[2], 10, "poll interval");
    let (received, sent) = (timestamp(&answer[32..40]), timestamp(&answer[40..48]));
    // Two f64 of seconds since 1900 agree to a microsecond.
    let order = [before - 1e-6, received, sent, after + 1e-6];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(client.ask(&SNTP_REQUEST)[2], 4, "the least poll interval");
}

#[test]
fn a_server_that_nobody_vouches_for_says_so() {
    let daemon = one("sntp", "");
    let answer = client(&daemon, "sntp").ask(&SNTP_REQUEST);
    assert_eq!(answer[0], 0xe4, "leap indicator 3");
    assert_eq!(answer[1], 0, "stratum");
    assert_eq!(&answer[12..16], b"INIT");
}

#[test]
fn stratum_and_reference_are_what_was_configured() {
    for (options, stratum, reference) in [
        ("stratum = 1", 1, b"LOCL"),
        ("stratum = 1\nreference = \"GPS\"", 1, b"GPS\0"),
        ("stratum = 3\nreference = \"192.0.2.7\"", 3, &[192, 0, 2, 7]),
        ("stratum = 15", 15, b"LOCL"),
    ] {
        let daemon = vouching(options);
        let answer = client(&daemon, "sntp").ask(&SNTP_REQUEST);
        assert_eq!(answer[..2], [0x24, stratum], "{options}");
        assert_eq!(&answer[12..16], reference, "{options}");
    }
}

#[test]
fn who_asks_too_often_is_told_so_now_and_then() {
    let limits = "rate = \"1/h\"\nburst = 3\nleak = 1\nexempt_loopback = false";
    let daemon = one("sntp", limits);
    let client = client(&daemon, "sntp");
    let mut request = SNTP_REQUEST;
    request[40..].copy_from_slice(b"transmit");
    for _ in 0..3 {
        assert_eq!(&client.ask(&request)[12..16], b"INIT");
    }
    for _ in 0..5 {
        let kiss = client.ask(&request);
        assert_eq!(
            (kiss.len(), kiss[0], kiss[1]),
            (48, 0xe4, 0),
            "a kiss has stratum 0"
        );
        assert_eq!(&kiss[12..16], b"RATE");
        assert_eq!(
            &kiss[24..32],
            b"transmit",
            "or the client could not tell whose it is"
        );
    }
    // What is no request gets no kiss either: the next one is for the next request.
    client.send(&packet(0x24));
    request[40..].copy_from_slice(b"the next");
    assert_eq!(&client.ask(&request)[24..32], b"the next");
}

#[test]
fn a_rate_without_leak_is_silence() {
    let limits = "rate = \"1/h\"\nburst = 2\nleak = 0\nexempt_loopback = false";
    let daemon = one("sntp", limits);
    let client = client(&daemon, "sntp");
    client.ask(&SNTP_REQUEST);
    client.ask(&SNTP_REQUEST);
    for _ in 0..20 {
        client.send(&SNTP_REQUEST);
    }
    eventually("all are counted", || dropped(&daemon, "sntp", "rate") == 20);
    assert!(!client.has_answer());
}

#[test]
fn clients_may_ask_from_port_123_but_without_a_mode() {
    let ground = Ground::new();
    let daemon = ground
        .put(serving_in_order(&vouched(
            "udp://127.0.0.1:0",
            "stratum = 1",
        )))
        .start();
    let said = ground.python(
        r"
import socket, sys
server = ('127.0.0.1', int(sys.argv[1]))
def client(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(30)
    s.bind(('127.0.0.77', port))
    s.connect(server)
    return s
ntp = client(123)
ntp.send(b'\x08' + bytes(47))   # version 1 without a mode: may be an answer of another server
ntp.send(b'\x23' + bytes(47))
print(hex(ntp.recv(512)[0]))
for port in (7, 37, 122, 124, 1023):
    client(port).send(b'\x23' + bytes(47))
",
        &[&daemon.address("sntp").port().to_string()],
    );
    assert_eq!(said.trim_end(), "0x24");
    eventually("the low ports are counted", || {
        dropped(&daemon, "sntp", "source_port") == 5
    });
    assert_eq!(dropped(&daemon, "sntp", "malformed"), 1);
    assert_eq!(answered(&daemon, "sntp"), 1);
}

#[test]
fn chronyd_believes_a_server_that_is_vouched_for() {
    let daemon = vouching("stratum = 2\nreference = \"127.0.0.1\"");
    let said = chronyd(&daemon);
    // "System clock wrong by 0.000012 seconds (ignored)": it has measured, and left the clock alone.
    let offset: f64 = said
        .split("System clock wrong by ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or_else(|| panic!("chronyd has not measured:\n{said}"));
    assert!(
        offset.abs() < 1.0,
        "the same clock differs by {offset} s:\n{said}"
    );
    eventually("its requests are counted", || {
        answered(&daemon, "sntp") >= 1
    });
}

#[test]
fn chronyd_does_not_believe_a_server_that_nobody_vouches_for() {
    let daemon = one("sntp", "");
    let said = chronyd(&daemon);
    assert!(
        said.contains("No suitable source for synchronisation"),
        "{said}"
    );
    eventually("its requests are counted", || {
        answered(&daemon, "sntp") >= 1
    });
}

/// What chronyd says after asking once, without setting any clock.
fn chronyd(daemon: &Daemon) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let address = daemon.address("sntp");
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap()
        .name;
    let config = format!(
        "server {} port {} iburst minpoll 0 maxpoll 0\ncmdport 0\n\
         bindcmdaddress {}\npidfile {}\ndriftfile {}\nuser {user}\n",
        address.ip(),
        address.port(),
        file("socket"),
        file("pid"),
        file("drift"),
    );
    std::fs::write(file("conf"), config).unwrap();
    // -Q measures and leaves the clock alone, -x does not touch it at all, -t ends it in any case.
    let mut chronyd = Command::new(peer("chronyd"));
    let finished = finish(
        chronyd.args(["-Q", "-x", "-t", "8", "-U", "-f", &file("conf")]),
        b"",
    );
    finished.stdout + &finished.stderr
}

/// A daemon whose sntp has these options.
fn vouching(options: &str) -> Daemon {
    serving_in_order(&vouched("udp://127.0.0.1:0", options)).start()
}

fn vouched(endpoint: &str, options: &str) -> String {
    format!(
        "{}[listener.options]\n{options}\n",
        listener("sntp", endpoint, "")
    )
}

fn packet(first: u8) -> [u8; 48] {
    let mut packet = [0; 48];
    packet[0] = first;
    packet
}

/// Seconds since 1900, as the protocol's 32 bits and a fraction say them.
fn timestamp(bytes: &[u8]) -> f64 {
    let value = u64::from_be_bytes(bytes.try_into().unwrap());
    value as f64 / f64::from(1_u32 << 16) / f64::from(1_u32 << 16)
}

fn now() -> f64 {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs_f64() + 2_208_988_800.0
}
