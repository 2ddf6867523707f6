//! Each service gives the bytes of docs/protocols/time-udp.md, over IPv4, IPv6 and Unix sockets.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{
    Client, PATIENCE, SERVICES, SNTP_REQUEST, all, answered, assert_dropped, client, configured,
    dropped, is_ctime, listener, named, received, serving, serving_in_order,
};
use portyard_testkit::{eventually, peer};

#[test]
fn ctime_answers_any_datagram_the_empty_one_too() {
    let daemon = all();
    let client = client(&daemon, "ctime");
    for request in [
        &b""[..],
        b"hi",
        b"what time is it?",
        &[0xff; 1400],
        &vec![0; 65_507],
    ] {
        let answer = client.ask_text(request);
        assert!(is_ctime(&answer), "{answer:?} to {} bytes", request.len());
    }
}

#[test]
fn daytime_is_a_line() {
    let daemon = all();
    let client = client(&daemon, "daytime");
    for request in [&b""[..], b"\n", b"hi"] {
        let answer = client.ask_text(request);
        let line = answer.strip_suffix("\r\n").expect("it ends with CRLF");
        assert!(is_ctime(line), "{answer:?}");
    }
}

#[test]
fn time_counts_seconds_since_1900() {
    let daemon = all();
    let client = client(&daemon, "time");
    for request in [&b""[..], b"time", b"what time is it?"] {
        let before = seconds_since_1900();
        let answer = u64::from(u32::from_be_bytes(client.ask(request).try_into().unwrap()));
        assert!(
            (before..=seconds_since_1900()).contains(&answer),
            "{answer}"
        );
    }
}

#[test]
fn timestamp_returns_any_bytes_with_the_time_before_them() {
    let daemon = all();
    let client = client(&daemon, "timestamp");
    for request in [&b""[..], b"hi", b"hi\r\n", b"\xff\0\n", &vec![b'x'; 60_000]] {
        let answer = client.ask(request);
        let (stamp, data) = answer.split_at(27);
        let stamp = String::from_utf8(stamp.to_vec()).unwrap();
        let time = stamp
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix("] "));
        assert!(time.is_some_and(is_ctime), "{stamp:?}");
        assert_eq!(data, request);
    }
}

#[test]
fn a_stamped_answer_that_fits_no_datagram_is_counted_and_costs_nothing_else() {
    let daemon = all();
    let client = client(&daemon, "timestamp");
    assert_dropped(
        &daemon,
        "timestamp",
        &client,
        &vec![b'x'; 65_507],
        "send_failed",
    );
    assert!(client.ask(b"hi").ends_with(b"] hi"));
    assert_eq!(client.ask(&vec![b'x'; 65_507 - 27]).len(), 65_507);
}

#[test]
fn echo_returns_every_size_unchanged() {
    let daemon = all();
    let client = client(&daemon, "echo");
    for size in [
        0, 1, 2, 3, 4, 63, 64, 65, 1471, 1472, 1473, 9000, 65_506, 65_507,
    ] {
        let request: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0] ^ 0x5a).collect();
        assert!(
            client.ask(&request) == request,
            "{size} bytes came back otherwise"
        );
    }
}

#[test]
fn echo_returns_what_looks_like_an_answer_of_others() {
    let daemon = all();
    let client = client(&daemon, "echo");
    for request in [
        &b"[Mon Nov  2 11:41:40 2026] hi"[..],
        b"error: no",
        b"Mon Nov  2 11:41:40 2026",
    ] {
        assert_eq!(client.ask(request), request);
    }
}

#[test]
fn discard_answers_nothing() {
    let daemon = all();
    let client = client(&daemon, "discard");
    for request in [&b""[..], b"hello", &vec![7; 65_507]] {
        assert_dropped(&daemon, "discard", &client, request, "silent");
    }
    assert_eq!(received(&daemon, "discard"), 3);
}

#[test]
fn fib_answers_the_number_or_what_is_wrong_with_the_question() {
    let daemon = all();
    let client = client(&daemon, "fib");
    for (request, answer) in [
        (&b"10"[..], "55"),
        (b" 0\r\n", "0"),
        (b"1", "1"),
        (b"100\0\0\0\0", "354224848179261915075"),
        (
            b"300",
            "222232244629420445529739893461909967206666939096499764990979600",
        ),
        (b"301", "error: larger than the 300 allowed"),
        (
            b"99999999999999999999",
            "error: larger than the 300 allowed",
        ),
        (b"-1", "error: '-1' is not a whole number"),
        (b"x", "error: 'x' is not a whole number"),
        (b"", "error: '' is not a whole number"),
    ] {
        let asked = request.escape_ascii();
        // fib(300) has more digits than a question of three bytes may be answered with.
        let padded = if answer.len() > 62 {
            [request, &[0; 20]].concat()
        } else {
            request.to_vec()
        };
        assert_eq!(client.ask_text(&padded), answer, "{asked}");
    }
}

#[test]
fn an_error_text_shows_the_peers_bytes_escaped() {
    let daemon = all();
    let answer = client(&daemon, "fib").ask_text(b"\x1b[2J\xff");
    assert!(
        answer.starts_with("error: ") && answer.bytes().all(|b| (0x20..0x7f).contains(&b)),
        "{answer:?}"
    );
}

#[test]
fn every_service_answers_over_ipv6() {
    let config: String = SERVICES
        .iter()
        .map(|service| listener(service, "udp://[::1]:0", ""))
        .collect();
    let daemon = serving(&config).start();
    for service in SERVICES.into_iter().filter(|service| *service != "discard") {
        assert!(
            looks_right(service, &client(&daemon, service).ask(question(service))),
            "{service}"
        );
    }
    assert_dropped(
        &daemon,
        "discard",
        &client(&daemon, "discard"),
        b"x",
        "silent",
    );
}

#[test]
fn every_service_answers_a_named_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let config: String = SERVICES
        .iter()
        .map(|service| listener(service, &format!("unix:{}", path(service).display()), ""))
        .collect();
    let daemon = serving(&config).start();
    let mut buffer = vec![0; 65_536];
    for service in SERVICES.into_iter().filter(|service| *service != "discard") {
        let client = UnixDatagram::bind(path(&format!("client-{service}"))).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(question(service), path(service)).unwrap();
        let (length, from) = client.recv_from(&mut buffer).expect(service);
        assert!(looks_right(service, &buffer[..length]), "{service}");
        assert_eq!(from.as_pathname(), Some(path(service).as_path()));
    }
    daemon.terminate();
    assert!(
        !path("ctime").exists(),
        "the file of the socket is still there"
    );
}

#[test]
fn an_abstract_unix_client_is_answered() {
    let name = format!("portyard-test-{}", std::process::id());
    let daemon = serving(&listener("echo", &format!("unix:@{name}"), "")).start();
    let address = |name: &str| UnixAddress::from_abstract_name(name).unwrap();
    let client = UnixDatagram::bind_addr(&address(&format!("{name}-client"))).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .send_to_addr(b"over an abstract name", &address(&name))
        .unwrap();
    let mut buffer = [0; 64];
    let length = client.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"over an abstract name");
    drop(daemon);
}

#[test]
fn an_unnamed_unix_client_is_counted_and_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let server = directory.path().join("server");
    let config = listener("ctime", &format!("unix:{}", server.display()), "");
    let daemon = serving_in_order(&config).start();
    let unnamed = UnixDatagram::unbound().unwrap();
    for _ in 0..5 {
        unnamed.send_to(b"", &server).unwrap();
    }
    let named = UnixDatagram::bind(directory.path().join("client")).unwrap();
    named.set_read_timeout(Some(PATIENCE)).unwrap();
    named.send_to(b"", &server).unwrap();
    assert_eq!(named.recv(&mut [0; 64]).unwrap(), 24);
    eventually("the unnamed are counted", || {
        dropped(&daemon, "ctime", "unnamed") == 5
    });
    eventually("the named one is counted", || {
        answered(&daemon, "ctime") == 1
    });
}

#[test]
fn a_wildcard_answers_from_the_address_that_was_asked() {
    let config: String = SERVICES
        .iter()
        .map(|service| listener(service, "udp://0.0.0.0:0", ""))
        .collect();
    let daemon = serving(&config).start();
    for service in SERVICES.into_iter().filter(|service| *service != "discard") {
        let port = daemon.address(service).port();
        for last in [1, 9, 200] {
            // A connected socket hears that address only.
            let client = Client::of(([127, 0, 0, last], port).into());
            assert!(
                looks_right(service, &client.ask(question(service))),
                "{service}"
            );
        }
    }
}

#[test]
fn an_ipv6_wildcard_answers_from_the_address_that_was_asked_mapped_ones_too() {
    let dual = "[listener.socket]\nv6only = false\n";
    let config: String = SERVICES
        .iter()
        .map(|service| listener(service, "udp://[::]:0", "") + dual)
        .collect();
    let daemon = serving(&config).start();
    for service in SERVICES.into_iter().filter(|service| *service != "discard") {
        let port = daemon.address(service).port();
        for ip in ["::1", "127.0.0.1", "127.0.0.9"] {
            let client = Client::of((ip.parse::<std::net::IpAddr>().unwrap(), port).into());
            assert!(
                looks_right(service, &client.ask(question(service))),
                "{service} at {ip}"
            );
        }
    }
}

/// A request that the service answers.
fn question(service: &str) -> &'static [u8] {
    match service {
        "sntp" => &SNTP_REQUEST,
        _ => b"10",
    }
}

/// Whether an answer to [`question`] is one of the service.
fn looks_right(service: &str, answer: &[u8]) -> bool {
    match service {
        "ctime" => answer.len() == 24,
        "daytime" => answer.len() == 26 && answer.ends_with(b"\r\n"),
        "time" => answer.len() == 4,
        "timestamp" => answer.len() == 29 && answer.ends_with(b"] 10"),
        "echo" => answer == b"10",
        "sntp" => answer.len() == 48 && answer[0] & 0x3f == 0x24,
        "fib" => answer == b"55",
        other => panic!("no service {other}"),
    }
}

fn seconds_since_1900() -> u64 {
    // RFC 868: the time of 1970 is 2,208,988,800.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 2_208_988_800
}

#[test]
fn two_listeners_never_get_the_same_port_of_the_kernels_choice() {
    // As many ports as listeners, each of which has a socket for each of two loops.
    let script = "ip link set lo up && echo 40000 40003 >/proc/sys/net/ipv4/ip_local_port_range && exec \"$@\"";
    let names = ["a", "b", "c", "d"];
    let listeners = names.map(|name| named(name, &listener("echo", "udp://127.0.0.1:0", "")));
    let daemon = configured("loops = 2", &listeners.concat());
    let unshare = peer("unshare");
    let wrap = [unshare.to_str().unwrap(), "-rn", "sh", "-c", script, "sh"];
    let daemon = daemon.wrap(wrap.map(String::from)).start();
    let mut ports = names.map(|name| daemon.address(name).port());
    ports.sort_unstable();
    assert_eq!(ports, [40_000, 40_001, 40_002, 40_003]);
}
