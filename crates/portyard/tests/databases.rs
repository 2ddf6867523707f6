//! `service`, `resolve` and `cidr`, compared with Python where it has the same function.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{portyard, python, run};
use serde_json::Value;

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn service_answers_as_python_does() {
    let names = [
        "echo",
        "domain",
        "ntp",
        "time",
        "sink",
        "no-such-service",
        "ECHO",
    ];
    let program = "\
import socket, sys
for name in sys.argv[1:]:
    for protocol in (), ('tcp',), ('udp',):
        try: print(name, *protocol, socket.getservbyname(name, *protocol))
        except OSError: print(name, *protocol, 'none')
for port in 7, 13, 37, 53, 123, 1:
    for protocol in 'tcp', 'udp':
        try: print(port, protocol, socket.getservbyport(port, protocol))
        except OSError: print(port, protocol, 'none')";
    let answers = python(program, &names);
    assert_eq!(answers.lines().count(), names.len() * 3 + 12);
    for line in answers.lines() {
        let (question, expected) = line.rsplit_once(' ').unwrap();
        let words: Vec<&str> = question.split(' ').collect();
        let ours = run(&[&["service"], words.as_slice(), &["--json"]].concat(), b"");
        if expected == "none" {
            ours.expect(1);
            continue;
        }
        let first = json_lines(ours.expect(0).text()).remove(0);
        if words[0].parse::<u16>().is_ok() {
            assert_eq!(first["name"], expected, "{line}");
        } else {
            assert_eq!(first["port"].to_string(), expected, "{line}");
        }
    }
}

#[test]
fn a_file_of_ones_own_and_a_missing_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "mine 4711/tcp my-own # \x1b[1m\nmine 4711/udp\n",
    )
    .unwrap();
    let path = file.path().to_str().unwrap();
    let found = run(&["service", "my-own", "--file", path], b"").expect(0);
    assert_eq!(
        found.text(),
        "mine             4711/tcp my-own  # \\x1b[1m\n"
    );
    let missing = run(&["service", "echo", "--file", "/nonexistent/services"], b"").expect(69);
    assert!(missing.stderr.contains("netbase"), "{}", missing.stderr);
}

#[test]
fn cidr_answers_as_python_does() {
    let program = "\
import ipaddress, json, sys
for text in sys.argv[1:]:
    net = ipaddress.ip_network(text)
    hosts = net.hosts()
    few = net.num_addresses <= 4
    hosts = list(hosts) if few else [next(iter(hosts))]
    last = hosts[-1] if few else (net[-2] if net.version == 4 else net[-1])
    print(json.dumps(dict(network=str(net), version=net.version, prefix=net.prefixlen,
        netmask=str(net.netmask), hostmask=str(net.hostmask), count=str(net.num_addresses),
        address=str(net[0]), last_address=str(net[-1]),
        first_usable=str(hosts[0]), last_usable=str(last))))";
    let networks = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "192.0.2.0/24",
        "192.0.2.128/25",
        "192.0.2.4/30",
        "192.0.2.4/31",
        "192.0.2.4/32",
        "192.0.2.4",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.255.255.255",
        "255.255.255.254/31",
        "::/0",
        "2001:db8::/32",
        "2001:db8::/64",
        "2001:db8::/126",
        "2001:db8::4/127",
        "2001:db8::4/128",
        "fe80::/10",
        "::1",
        "ffff:ffff::/33",
    ];
    let theirs = json_lines(&python(program, &networks));
    assert_eq!(theirs.len(), networks.len());
    for (network, theirs) in networks.iter().zip(theirs) {
        let ours = run(&["cidr", network, "--json"], b"").expect(0);
        let ours: Value = serde_json::from_slice(&ours.stdout).unwrap();
        for (key, value) in theirs.as_object().unwrap() {
            assert_eq!(ours[key], *value, "{network} {key}");
        }
    }
}

#[test]
fn cidr_lists_as_python_does() {
    for network in ["192.0.2.0/29", "2001:db8::/125"] {
        let program = "import ipaddress, sys\nfor a in ipaddress.ip_network(sys.argv[1]): print(a)";
        let ours = run(&["cidr", network, "--list"], b"").expect(0);
        assert_eq!(ours.text(), python(program, &[network]));
    }
    let limited = run(&["cidr", "::/0", "--list", "--limit", "2"], b"").expect(0);
    assert_eq!(limited.text(), "::\n::1\n");
}

#[test]
fn a_list_without_end_starts_at_once_and_stops_with_its_reader() {
    let mut child = portyard()
        .args(["cidr", "2001:db8::/64", "--list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 24];
    stdout.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"2001:db8::\n2001:db8::1\n2");
    drop(stdout);
    assert_eq!(common::wait(&mut child), Some(0));
    let mut complaint = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaint)
        .unwrap();
    assert_eq!(complaint, "");
}

#[test]
fn cidr_contains_answers_with_its_exit_code() {
    for (network, address, code) in [
        ("10.0.0.0/8", "10.1.2.3", 0),
        ("10.0.0.0/8", "11.0.0.0", 1),
        ("10.0.0.0/8", "::a00:1", 1),
        ("2001:db8::/32", "2001:db8:ffff::", 0),
        ("10.0.0.0/8", "ten", 64),
    ] {
        run(&["cidr", network, "--contains", address], b"").expect(code);
    }
}

#[test]
fn host_bits_name_the_right_network() {
    let refused = run(&["cidr", "2001:db8::1/32"], b"").expect(64);
    assert!(
        refused.stderr.contains("the network is 2001:db8::/32"),
        "{}",
        refused.stderr
    );
    let cut = run(&["cidr", "2001:db8::1/32", "--strict=false"], b"").expect(0);
    assert!(
        cut.text().starts_with("network   2001:db8::/32\n"),
        "{}",
        cut.text()
    );
}

#[test]
fn resolve_answers_as_python_does() {
    let program = "\
import socket
for a in sorted({i[4][0] for i in socket.getaddrinfo('localhost', None)}): print(a)";
    let mut ours: Vec<String> = run(&["resolve", "localhost"], b"")
        .expect(0)
        .text()
        .lines()
        .map(Into::into)
        .collect();
    ours.sort();
    assert_eq!(ours, python(program, &[]).lines().collect::<Vec<_>>());
    let name = run(&["resolve", "127.0.0.1", "--json"], b"").expect(0);
    let name: Value = serde_json::from_slice(&name.stdout).unwrap();
    let theirs = python(
        "import socket; print(socket.getnameinfo(('127.0.0.1', 0), 0)[0])",
        &[],
    );
    assert_eq!(name["name"], theirs.trim_end());
    let v4 = run(&["resolve", "-4", "localhost"], b"").expect(0);
    assert_eq!(v4.text(), "127.0.0.1\n");
}
