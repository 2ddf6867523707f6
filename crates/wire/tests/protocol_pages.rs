//! The examples on the protocol pages are true: each block tagged `vector` is run against the
//! crate.
#![expect(
    clippy::unwrap_used,
    reason = "a page that cannot be read must fail the test"
)]

use portyard_wire::array::{self, Receipt, Refusal};
use portyard_wire::auth::{Digest, Handshake, Key, Keys, Secret, python, recipe};
use portyard_wire::broker::{FromWorker, Mode, ToWorker, Verdict};
use portyard_wire::chargen::Chargen;
use portyard_wire::command::{Command, HELP};
use portyard_wire::ctime::Ctime;
use portyard_wire::daytime::Daytime;
use portyard_wire::framing::{Framing, Header};
use portyard_wire::sntp::{Server, Timestamp};
use portyard_wire::{fib, line, signature, sleep, time, timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

const ECHO_TCP: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/protocols/echo-tcp.md"
));
const FD_BROKER: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/protocols/fd-broker.md"
));
const TRUST: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/protocols/trust.md"
));
const TIME_UDP: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/protocols/time-udp.md"
));

#[test]
fn a_wrong_example_is_noticed() {
    let page = "```vector\nservice: fib\nmax: 9\nin: \"1\"\nout: \"2\"\n```\n";
    let vectors = vectors(page);
    assert_eq!(vectors.len(), 1);
    assert_ne!(datagram_answer(&vectors[0]), vectors[0].out());
}

#[test]
fn the_examples_of_echo_tcp_hold() {
    let vectors = vectors(ECHO_TCP);
    assert!(vectors.len() >= 41, "only {} examples found", vectors.len());
    for service in [
        "echo",
        "discard",
        "chargen",
        "daytime",
        "time",
        "timestamp",
        "command",
        "sleep",
        "message",
        "array-source",
        "array-sink",
    ] {
        assert!(
            vectors.iter().any(|v| v.text("service") == service),
            "no example of {service}"
        );
    }
    for vector in &vectors {
        let (answer, means) = stream_answer(vector);
        if let Some(start) = vector.field("starts") {
            assert!(answer.unwrap().starts_with(&bytes(start)), "{vector:?}");
        } else if vector.field("out").is_some() {
            assert_eq!(answer, vector.out(), "{vector:?}");
        }
        assert_eq!(
            means.map(String::into_bytes),
            vector.field("means").map(bytes),
            "{vector:?}"
        );
    }
}

#[test]
fn the_examples_of_time_udp_hold() {
    let vectors = vectors(TIME_UDP);
    assert!(vectors.len() >= 30, "only {} examples found", vectors.len());
    for service in [
        "ctime",
        "daytime",
        "time",
        "timestamp",
        "echo",
        "discard",
        "sntp",
        "fib",
    ] {
        assert!(
            vectors.iter().any(|v| v.text("service") == service),
            "no example of {service}"
        );
    }
    for vector in &vectors {
        assert_eq!(datagram_answer(vector), vector.out(), "{vector:?}");
    }
}

#[test]
fn the_examples_of_trust_hold() {
    let vectors = vectors(TRUST);
    assert!(vectors.len() >= 3, "only {} examples found", vectors.len());
    for vector in &vectors {
        let mut machine = listening(vector);
        assert_eq!(machine.output(), Some(bytes(vector.text("asks"))));
        // An error has been told to the peer in its own words, or by silence.
        let _ = machine.handle(&bytes(vector.text("in")));
        assert_eq!(machine.output(), vector.out(), "{vector:?}");
    }
}

#[test]
fn the_examples_of_fd_broker_hold() {
    let vectors = vectors(FD_BROKER);
    let native = vectors.iter().filter(|v| v.text("service") == "native");
    assert!(native.clone().count() >= 9, "too few examples found");
    for vector in native {
        let packet = bytes(vector.text("in"));
        let descriptors = usize::from(packet[1]);
        let (means, written) = if let Ok(message) = FromWorker::decode(&packet, descriptors) {
            (from_worker(&message), message.encode())
        } else {
            let message = ToWorker::decode(&packet, descriptors).unwrap();
            (to_worker(&message), message.encode())
        };
        assert_eq!(means.into_bytes(), bytes(vector.text("means")));
        assert_eq!(written, packet, "{vector:?}");
    }
}

fn from_worker(message: &FromWorker<'_>) -> String {
    match message {
        FromWorker::Hello(hello) => format!(
            "HELLO version {}, {} DONE, capacity {}, weight {}, name {}, pool {}",
            hello.version,
            if hello.reports_done { "reports" } else { "no" },
            hello.capacity,
            hello.weight,
            hello.name,
            hello.pool,
        ),
        FromWorker::Report(reports) => {
            let said = reports.iter().map(|report| match report.verdict {
                Verdict::Taken => format!("{} taken", report.connection),
                Verdict::Refused(why) => format!("{} refused: {}", report.connection, why.word()),
                Verdict::Done => format!("{} done", report.connection),
            });
            format!("REPORT {}", said.collect::<Vec<_>>().join(", "))
        }
        FromWorker::Capacity(capacity) => format!("CAPACITY {capacity}"),
        FromWorker::Drain => "DRAIN".into(),
        FromWorker::Resume => "RESUME".into(),
        FromWorker::Ping(token) => format!("PING {token}"),
    }
}

fn to_worker(message: &ToWorker<'_>) -> String {
    match message {
        ToWorker::Welcome(welcome) => {
            let mode = match welcome.mode {
                Mode::Connections => "connections",
                Mode::Listener => "listening sockets",
            };
            format!(
                "WELCOME version {}, {mode} of pool {}",
                welcome.version, welcome.pool
            )
        }
        ToWorker::Rejected(text) => format!("REJECTED {text}"),
        ToWorker::Offer(offers) => {
            let said = offers.iter().map(|offer| {
                let (number, arrival) = (offer.connection, offer.arrival);
                let peer = offer.peer.unwrap();
                format!("{number} at {arrival} of {} from {peer}", offer.listener)
            });
            format!("OFFER {}", said.collect::<Vec<_>>().join(", "))
        }
        ToWorker::Listener { name } => format!("LISTENER {name}"),
        ToWorker::Drain => "DRAIN".into(),
        ToWorker::Resume => "RESUME".into(),
        ToWorker::Pong(token) => format!("PONG {token}"),
    }
}

/// The listening end of a dialogue.
fn listening(vector: &Vector) -> Box<dyn Handshake> {
    let secret = Secret::new(bytes(vector.text("key"))).unwrap();
    let keys = Keys::from(Key::new("key", secret));
    let nonce = bytes(vector.text("nonce"));
    match vector.text("dialect") {
        "python" => {
            let nonce = nonce.try_into().unwrap();
            Box::new(python::Listener::new(
                keys,
                python::MinDigest::Sha256,
                nonce,
            ))
        }
        "recipe" => {
            let nonce = nonce.try_into().unwrap();
            Box::new(recipe::Server::new(keys, Digest::Sha256, nonce))
        }
        dialect => panic!("unknown dialect {dialect}"),
    }
}

/// All that a client gets for `in`, and what the line is understood as.
fn stream_answer(vector: &Vector) -> (Option<Vec<u8>>, Option<String>) {
    let mut out = Vec::new();
    let mut means = None;
    let input = vector.field("in").map(bytes).unwrap_or_default();
    match vector.text("service") {
        "echo" => out = input,
        "discard" => {}
        "chargen" => out.extend_from_slice(Chargen::new().chunk()),
        "daytime" => {
            let (now, offset) = vector.now();
            out.extend_from_slice(Daytime::from_unix(now, offset).as_bytes());
        }
        "time" => out.extend(time::encode(vector.now().0).into_iter().flatten()),
        "timestamp" => {
            let (now, offset) = vector.now();
            let mut rest = &input[..];
            while !rest.is_empty() {
                let len = line::find_line(rest, 1_024).unwrap().unwrap_or(rest.len());
                timestamp::stamp(&Ctime::from_unix(now, offset), &rest[..len], &mut out);
                rest = &rest[len..];
            }
        }
        "command" => match Command::parse(&input) {
            Ok(Command::Help) => line::answer(HELP, &input, &mut out),
            Ok(command) => {
                if command == Command::Date && vector.field("now").is_some() {
                    let (now, offset) = vector.now();
                    line::answer(Ctime::from_unix(now, offset).as_str(), &input, &mut out);
                }
                means = Some(command.to_string());
            }
            Err(error) => line::answer(&error.to_string(), &input, &mut out),
        },
        "sleep" => match sleep::parse(&input, Duration::from_secs(vector.number("max"))) {
            Ok(duration) => {
                line::answer(&sleep::answer(duration), &input, &mut out);
                means = Some(duration.as_secs_f64().to_string());
            }
            Err(error) => line::answer(&error.to_string(), &input, &mut out),
        },
        "message" => {
            let max = vector.number("max");
            let mut rest = &input[..];
            while let Ok(Some(header)) = Header::parse(Framing::Python, max, rest) {
                let end = header.header_len + usize::try_from(header.len).unwrap();
                let Some((message, behind)) = rest.split_at_checked(end) else {
                    break;
                };
                out.extend_from_slice(message);
                rest = behind;
            }
        }
        "array-source" => array_source(vector, &mut out),
        "array-sink" => {
            let mut rest = &input[..];
            while let Some(len) = array::decode_size(rest) {
                rest = &rest[array::SIZE_LEN..];
                if len > vector.number("max") {
                    out.extend(Receipt::Refused(Refusal::TooLarge).encode());
                    break;
                }
                let Some((bytes, behind)) = rest.split_at_checked(usize::try_from(len).unwrap())
                else {
                    break;
                };
                let crc = crc32c::crc32c(bytes);
                out.extend(Receipt::Taken { len, crc }.encode());
                rest = behind;
            }
        }
        service => panic!("unknown service {service}"),
    }
    (Some(out), means)
}

fn array_source(vector: &Vector, out: &mut Vec<u8>) {
    let values = array::Values {
        start: vector.text("start").parse().unwrap(),
        step: vector.text("step").parse().unwrap(),
    };
    let mut bytes = vec![0; usize::try_from(vector.number("count")).unwrap() * array::VALUE_LEN];
    values.write(0, &mut bytes);
    if vector.text("frame") != "raw" {
        out.extend(array::encode_size(bytes.len() as u64));
    }
    out.extend_from_slice(&bytes);
    if vector.text("frame") == "checked" {
        out.extend(crc32c::crc32c(&bytes).to_be_bytes());
    }
}

/// The answer to `in`, or `None` for silence.
fn datagram_answer(vector: &Vector) -> Option<Vec<u8>> {
    let request = bytes(vector.text("in"));
    let service = vector.text("service");
    let signed = matches!(service, "ctime" | "daytime" | "time" | "timestamp" | "fib");
    let (now, offset) = vector.field("now").map_or((0, 0), |_| vector.now());
    if signed && signature::is_own_answer(&request, now) {
        return None;
    }
    match service {
        "ctime" => Some(Ctime::from_unix(now, offset).as_bytes().to_vec()),
        "daytime" => Some(Daytime::from_unix(now, offset).as_bytes().to_vec()),
        "time" => time::encode(now).map(Vec::from),
        "timestamp" => {
            let mut out = Vec::new();
            timestamp::stamp(&Ctime::from_unix(now, offset), &request, &mut out);
            Some(out)
        }
        "echo" => Some(request),
        "discard" => None,
        "sntp" => {
            let server = match vector.text("server").strip_prefix("local ") {
                Some(stratum) => Server::local(stratum.parse().unwrap()),
                None => Server::unsynchronised(),
            };
            let port = u16::try_from(vector.number("port")).unwrap();
            let now = Timestamp::from_unix(now, 0);
            server.reply(&request, port, now, now).ok().map(Vec::from)
        }
        "fib" => {
            let max = u32::try_from(vector.number("max")).unwrap();
            Some(match fib::parse(&request, max) {
                Ok(n) => fib::answer(n).into_bytes(),
                Err(error) => error.to_string().into_bytes(),
            })
        }
        service => panic!("unknown service {service}"),
    }
}

/// One example: lines of `key: value`.
#[derive(Debug)]
struct Vector(BTreeMap<String, String>);

impl Vector {
    fn field(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn text(&self, key: &str) -> &str {
        self.field(key)
            .unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap()
    }

    /// Unix seconds and the offset in seconds east of UTC.
    fn now(&self) -> (i64, i32) {
        let (seconds, offset) = self.text("now").split_once(' ').unwrap();
        (seconds.parse().unwrap(), offset.parse().unwrap())
    }

    fn out(&self) -> Option<Vec<u8>> {
        Some(self.text("out"))
            .filter(|out| *out != "none")
            .map(bytes)
    }
}

/// The examples of a page: fenced blocks tagged `vector`, in which an empty line separates two.
fn vectors(page: &str) -> Vec<Vector> {
    page.split("```vector\n")
        .skip(1)
        .map(|block| block.split_once("```").unwrap().0)
        .flat_map(|block| block.split("\n\n"))
        .map(|example| {
            let fields = example.lines().map(|line| {
                let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
                let known = [
                    "service", "now", "max", "port", "server", "count", "start", "step", "frame",
                    "in", "out", "starts", "means", "dialect", "key", "nonce", "asks",
                ];
                assert!(known.contains(&key), "unknown key in {line}");
                (key.to_owned(), value.to_owned())
            });
            Vector(fields.collect())
        })
        .collect()
}

/// The bytes of `"…"` with escapes, or of `hex …` with repetitions.
fn bytes(value: &str) -> Vec<u8> {
    if let Some(hex) = value.strip_prefix("hex ") {
        return hex
            .split(' ')
            .flat_map(|token| {
                let (byte, count) = token.split_once('*').unwrap_or((token, "1"));
                vec![u8::from_str_radix(byte, 16).unwrap(); count.parse().unwrap()]
            })
            .collect();
    }
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let mut rest = quoted
        .unwrap_or_else(|| panic!("neither text nor hex: {value}"))
        .bytes();
    let mut out = Vec::new();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                quoted @ (b'\\' | b'"') => quoted,
                other => panic!("unknown escape {other} in {value}"),
            },
            byte => byte,
        });
    }
    out
}
