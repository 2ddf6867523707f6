//! Who is not answered, and how much: sources, access, amplification, strict, rate. Every drop is
//! counted by its reason.

mod common;

use std::collections::BTreeSet;

use common::{
    Client, Ground, SERVICES, SNTP_REQUEST, all, all_services, answered, assert_dropped, client,
    configuration, dropped, listener, named, one, received, serving, serving_in_order, settled,
};
use portyard_testkit::{eventually, python};

#[test]
fn low_source_ports_belong_to_servers_and_get_silence() {
    let ground = Ground::new();
    let daemon = ground.put(serving_in_order(&all_services(""))).start();
    // What xinetd, openbsd-inetd and busybox refuse too; inetutils answers 13, 19, 37 and 53.
    let low = ["7", "13", "19", "37", "53", "123", "512", "1023", "2049"];
    for service in SERVICES.into_iter().filter(|service| *service != "discard") {
        let port = daemon.address(service).port().to_string();
        let said = ground.python(LOW_PORTS, &[&["127.0.0.1", &port][..], &low].concat());
        assert_eq!(
            said.trim_end(),
            if service == "sntp" { "123" } else { "" },
            "{service}"
        );
        let expected = if service == "sntp" {
            low.len() - 1
        } else {
            low.len()
        };
        eventually(&format!("{service} counts them"), || {
            dropped(&daemon, service, "source_port") == expected as u64
        });
    }
}

#[test]
fn the_lowest_source_port_can_be_configured() {
    let ground = Ground::new();
    let tables = named(
        "any",
        &listener("ctime", "udp://127.0.0.1:0", "min_source_port = 0"),
    ) + &named(
        "high",
        &listener("ctime", "udp://127.0.0.1:0", "min_source_port = 60000"),
    );
    let daemon = ground.put(serving_in_order(&tables)).start();
    let ask = |listener: &str, ports: &[&str]| {
        let port = daemon.address(listener).port().to_string();
        ground.python(LOW_PORTS, &[&["127.0.0.1", &port][..], ports].concat())
    };
    // Port 2049 stays refused: NFS answers whatever reaches it.
    assert_eq!(
        ask("any", &["7", "1023", "2049", "60001"]),
        "7 1023 60001\n"
    );
    assert_eq!(ask("high", &["7", "1023", "59999", "60001"]), "60001\n");
    eventually("the refused are counted", || {
        dropped(&daemon, "high", "source_port") == 3
    });
}

#[test]
fn a_source_that_is_a_listener_of_the_same_daemon_gets_silence() {
    let ground = Ground::new();
    let daemon = ground.put(serving_in_order(&all_services(""))).start();
    let mut forger = ground.forger();
    for service in SERVICES {
        let to = daemon.address(service);
        let mut count = 0;
        for other in SERVICES {
            let mut from = daemon.address(other);
            forger.forge(from, to, b"10");
            // Each address of the machine is one of the daemon's own.
            from.set_ip([127, 0, 0, 9].into());
            forger.forge(from, to, b"10");
            count += 2;
        }
        eventually(&format!("{service} counts {count}"), || {
            dropped(&daemon, service, "own_listener") == count
        });
    }
    for service in SERVICES {
        assert_eq!(answered(&daemon, service), 0, "{service}");
        assert_eq!(
            received(&daemon, service),
            2 * SERVICES.len() as u64,
            "an answer went to {service}"
        );
    }
}

#[test]
fn forged_broadcast_and_multicast_sources_get_silence() {
    let ground = Ground::new();
    let daemon = ground
        .put(serving_in_order(&listener("ctime", "udp://0.0.0.0:0", "")))
        .start();
    let to = ([127, 0, 0, 1], daemon.address("ctime").port()).into();
    let mut forger = ground.forger();
    // Most kernels drop these before us. Not in the list is 0.0.0.0, for which ours puts a real one.
    for source in [
        "255.255.255.255:5000",
        "224.0.0.1:5000",
        "239.1.2.3:5000",
        "127.0.0.1:0",
    ] {
        forger.forge(source.parse().unwrap(), to, b"");
    }
    // A forged source that can be answered: what was sent before it has come, if it comes at all.
    forger.forge("127.0.0.1:50000".parse().unwrap(), to, b"");
    eventually("the last one is answered", || {
        answered(&daemon, "ctime") >= 1
    });
    assert_eq!(answered(&daemon, "ctime"), 1);
}

#[test]
fn denied_addresses_get_silence() {
    let tables = "[access]\nrules = [\"deny 127.0.0.2\", \"deny 127.0.1.0/24 scanners\", \"allow 127.0.1.7\"]\n"
        .to_owned()
        + &listener("ctime", "udp://0.0.0.0:0", "");
    let daemon = serving_in_order(&tables).start();
    let port = daemon.address("ctime").port();
    let from = |ip: [u8; 4]| Client::at((ip, 0).into(), ([127, 0, 0, 1], port).into());
    for denied in [[127, 0, 0, 2], [127, 0, 1, 1], [127, 0, 1, 255]] {
        assert_dropped(&daemon, "ctime", &from(denied), b"", "access");
    }
    for allowed in [[127, 0, 0, 1], [127, 0, 0, 3], [127, 0, 1, 7]] {
        assert_eq!(from(allowed).ask(b"").len(), 24);
    }
}

#[test]
fn what_looks_like_an_answer_of_ours_gets_silence() {
    let daemon = all();
    let texts: Vec<Vec<u8>> = vec![
        client(&daemon, "ctime").ask(b""),
        client(&daemon, "daytime").ask(b""),
        client(&daemon, "time").ask(b""),
        client(&daemon, "timestamp").ask(b"hi"),
        client(&daemon, "fib").ask(b"x"),
    ];
    for service in ["ctime", "daytime", "time", "timestamp", "fib"] {
        let client = client(&daemon, service);
        for text in &texts {
            assert_dropped(&daemon, service, &client, text, "signature");
        }
    }
}

#[test]
fn a_datagram_with_the_reply_mark_gets_silence_from_echo_and_fib() {
    let mut tables = all_services("");
    tables += &named("echo6", &listener("echo", "udp://[::1]:0", ""));
    tables += &named("fib6", &listener("fib", "udp://[::1]:0", ""));
    let daemon = serving_in_order(&tables).start();
    for name in ["echo", "fib", "echo6", "fib6"] {
        let address = daemon.address(name);
        let arguments = [address.ip().to_string(), address.port().to_string()];
        python(MARKED, &arguments.each_ref().map(String::as_str)).success();
        // 0x0c with and without congestion notification; 0x00, 0x10, 0xb8 and 0x2c are other marks.
        eventually(&format!("{name} counts"), || {
            dropped(&daemon, name, "mark") == 4
        });
        assert_eq!(answered(&daemon, name), 4, "{name}");
    }
}

#[test]
fn a_datagram_longer_than_allowed_is_dropped_whole() {
    for service in SERVICES.into_iter().filter(|service| *service != "discard") {
        let daemon = one(service, "max_datagram = 100");
        let client = client(&daemon, service);
        let request = |length: usize| {
            let mut request = if service == "fib" {
                b"10".to_vec()
            } else {
                SNTP_REQUEST.to_vec()
            };
            request.resize(length, 0);
            request
        };
        for length in [101, 128, 1500, 65_507] {
            assert_dropped(&daemon, service, &client, &request(length), "oversize");
        }
        assert!(!client.ask(&request(100)).is_empty(), "{service}");
    }
}

#[test]
fn no_answer_is_larger_than_three_times_its_request_on_the_wire() {
    let mut tables = all_services("");
    tables += &named("big", &listener("fib", "udp://127.0.0.1:0", ""));
    tables += "[listener.options]\nmax_n = 20000\n";
    let daemon = serving_in_order(&tables).start();
    let names = SERVICES.into_iter().chain(["big"]);
    let sizes = (0..70).chain([100, 200, 500, 1000, 1400, 5000, 20_000]);
    let mut seen = BTreeSet::new();
    for (name, size) in names.flat_map(|name| sizes.clone().map(move |size| (name, size))) {
        for request in requests(name, size) {
            let client = client(&daemon, name);
            let (done, answers) = (settled(&daemon, name), answered(&daemon, name));
            client.send(&request);
            eventually("the request is counted", || {
                settled(&daemon, name) == done + 1
            });
            if answered(&daemon, name) > answers {
                let answer = client.receive().len();
                assert!(
                    answer + 28 <= 3 * (size + 28),
                    "{name}: {answer} bytes to {size}"
                );
                if ["ctime", "daytime", "time", "sntp"].contains(&name) {
                    assert!(answer <= 64, "{name}: {answer} bytes");
                }
                seen.insert(name);
            }
        }
    }
    assert_eq!(seen.len(), SERVICES.len(), "only {seen:?} answered at all");
    assert!(dropped(&daemon, "big", "amplification") > 0);
}

#[test]
fn strict_sends_no_more_than_it_got() {
    let tables = all_services("strict = true");
    let daemon = serving_in_order(&tables).start();
    for (service, least) in [("ctime", 24), ("daytime", 26), ("time", 4)] {
        let client = client(&daemon, service);
        for length in 0..least {
            assert_dropped(&daemon, service, &client, &vec![b'.'; length], "strict");
        }
        for length in [least, least + 1, 1400] {
            assert_eq!(client.ask(&vec![b'.'; length]).len(), least, "{service}");
        }
    }
    let client_of = |service| client(&daemon, service);
    for length in [0, 26, 27, 28, 1400] {
        assert_dropped(
            &daemon,
            "timestamp",
            &client_of("timestamp"),
            &vec![b'.'; length],
            "strict",
        );
        assert_eq!(client_of("echo").ask(&vec![b'.'; length]).len(), length);
    }
    assert_eq!(client_of("sntp").ask(&SNTP_REQUEST).len(), 48);
    let fib = client_of("fib");
    assert_dropped(&daemon, "fib", &fib, b"300", "strict");
    let mut padded = b"300".to_vec();
    padded.resize(62, 0);
    assert_dropped(&daemon, "fib", &fib, &padded, "strict");
    padded.resize(63, 0);
    assert_eq!(fib.ask(&padded).len(), 63);
}

#[test]
fn a_source_over_its_rate_is_silenced_and_others_are_not() {
    let limits = "rate = \"1/h\"\nburst = 5\nleak = 0\nexempt_loopback = false";
    let daemon = one("ctime", limits);
    let server = daemon.address("ctime");
    let abuser = Client::at(([127, 0, 0, 2], 0).into(), server);
    for _ in 0..5 {
        abuser.ask(b"");
    }
    for _ in 0..500 {
        abuser.send(b"");
    }
    eventually("the abuser is silenced", || {
        dropped(&daemon, "ctime", "rate") == 500
    });
    assert!(!abuser.has_answer());
    // Another port is the same source.
    assert_dropped(
        &daemon,
        "ctime",
        &Client::at(([127, 0, 0, 2], 0).into(), server),
        b"",
        "rate",
    );
    let other = Client::at(([127, 0, 0, 3], 0).into(), server);
    for _ in 0..5 {
        assert_eq!(other.ask(b"").len(), 24);
    }
}

#[test]
fn who_forges_an_address_cannot_silence_it() {
    let limits = "rate = \"1/h\"\nburst = 1\nleak = 4\nexempt_loopback = false";
    let daemon = one("echo", limits);
    let client = client(&daemon, "echo");
    client.ask(b"the only token");
    let sent = 2000_u64;
    for n in 0..sent {
        client.send(b"?");
        if n % 100 == 99 {
            eventually("a window is counted", || settled(&daemon, "echo") == n + 2);
        }
    }
    // echo has nothing to say to a source over its rate: a leaked datagram is answered as any other.
    let leaked = answered(&daemon, "echo") - 1;
    assert_eq!(leaked + dropped(&daemon, "echo", "rate"), sent);
    // One in four is 500; beyond these bounds chance does not go.
    assert!(
        (350..650).contains(&leaked),
        "{leaked} of {sent} were answered"
    );
}

#[test]
fn loopback_is_exempt_from_the_rate_by_default() {
    let daemon = one("echo", "rate = \"1/h\"\nburst = 1");
    let client = client(&daemon, "echo");
    for _ in 0..300 {
        client.ask(b"?");
    }
    assert_eq!(dropped(&daemon, "echo", "rate"), 0);
}

#[test]
fn a_reload_can_lift_the_rate() {
    let limits = "rate = \"1/h\"\nburst = 1\nleak = 0\nexempt_loopback = false";
    let daemon = one("ctime", limits);
    let client = client(&daemon, "ctime");
    client.ask(b"");
    assert_dropped(&daemon, "ctime", &client, b"", "rate");
    let tables = listener("ctime", "udp://127.0.0.1:0", "exempt_loopback = true");
    daemon.rewrite_config(&configuration(daemon.dir(), "loops = 1", &tables));
    daemon.reload();
    for _ in 0..10 {
        client.ask(b"");
    }
}

#[test]
fn every_reason_is_on_the_metrics_page_and_the_seen_ones_in_the_status() {
    let daemon = serving(&all_services("max_datagram = 100")).start();
    assert_dropped(
        &daemon,
        "ctime",
        &client(&daemon, "ctime"),
        &[0; 101],
        "oversize",
    );
    for service in SERVICES {
        for reason in REASONS {
            let expected = u64::from((service, reason) == ("ctime", "oversize"));
            assert_eq!(
                dropped(&daemon, service, reason),
                expected,
                "{service} {reason}"
            );
        }
    }
    let status = daemon.status();
    let ctime = &status["listeners"][0];
    assert_eq!(ctime["name"], "ctime");
    assert_eq!(
        ctime["datagrams"]["dropped"],
        serde_json::json!({ "oversize": 1 })
    );
    assert_eq!(ctime["datagrams"]["received"], 1);
}

#[test]
fn random_bytes_never_stop_a_service() {
    let daemon = all();
    // xorshift: the same bytes each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for service in SERVICES {
        let client = client(&daemon, service);
        for round in 1..=2000 {
            let length = usize::try_from(random() % 120).unwrap();
            let mut bytes: Vec<u8> = (0..length).map(|_| random().to_le_bytes()[0]).collect();
            // Half of them begin as something that is looked into.
            if let Some(start) = STARTS.get(usize::try_from(random() % 20).unwrap()) {
                bytes.splice(0..0, start.iter().copied());
            }
            client.send(&bytes);
            if round % 50 == 0 {
                eventually("they are counted", || settled(&daemon, service) >= round);
            }
        }
    }
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0));
    assert!(!finished.stderr.contains("panic"), "{}", finished.stderr);
}

/// What a service may be asked in so many bytes.
fn requests(name: &str, size: usize) -> Vec<Vec<u8>> {
    let filled = |byte: u8, start: &[u8]| {
        let mut request = vec![byte; size];
        let start = &start[..start.len().min(size)];
        request[..start.len()].copy_from_slice(start);
        request
    };
    match name {
        "fib" => vec![
            filled(0, b"300"),
            filled(0, b"9"),
            filled(b'x', b""),
            filled(0xff, b""),
        ],
        "big" => vec![filled(0, b"20000"), filled(0, b"1000"), filled(0, b"20001")],
        "sntp" => vec![filled(0, &SNTP_REQUEST), filled(0, &[0x08])],
        _ => vec![filled(b'.', b"")],
    }
}

/// What checks and parsers look for.
const STARTS: [&[u8]; 9] = [
    b"\x23",
    b"\x1b",
    b"\x08",
    b"[Fri Nov 20 11:41:40 2026] ",
    b"[Fri Nov 20",
    b"Fri Nov 20 11:41:40 2026",
    b"error: ",
    b"313450",
    b"99999999999999999999999999999999999999",
];

const REASONS: [&str; 15] = [
    "oversize",
    "unnamed",
    "source_port",
    "own_listener",
    "source_address",
    "access",
    "mark",
    "signature",
    "rate",
    "amplification",
    "strict",
    "malformed",
    "silent",
    "busy",
    "send_failed",
];

/// Asks from each of the ports, and prints those that get an answer. A last question, from any port,
/// tells that nothing more will come.
const LOW_PORTS: &str = r"
import select, socket, sys

server = (sys.argv[1], int(sys.argv[2]))
question = b'\x23' + bytes(47)
clients = {}
for port in sys.argv[3:]:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('127.0.0.77', int(port)))
    s.sendto(question, server)
    clients[s] = port
last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
last.settimeout(30)
last.bind(('127.0.0.77', 62000))
last.sendto(question, server)
last.recv(512)
heard, _, _ = select.select(clients, [], [], 0)
print(*[port for s, port in clients.items() if s in heard])
";

const MARKED: &str = r"
import socket, sys

host, port = sys.argv[1], int(sys.argv[2])
v6 = ':' in host
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.connect((host, port))
for mark in (0x0c, 0x0d, 0x0e, 0x0f, 0x00, 0x10, 0xb8, 0x2c):
    if v6:
        s.setsockopt(socket.IPPROTO_IPV6, 67, mark)   # IPV6_TCLASS
    else:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, mark)
    s.send(b'1')
for _ in range(4):
    assert s.recv(512) == b'1'
";
