//! The message service, with the clients of every Python and with what no Python sends.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::thread;

use portyard_testkit::{Client, Daemon, DaemonBuilder, End, eventually, pythons, rss_bytes};

/// Objects of every kind there and back, first one by one, then many before the first is read.
const OBJECTS: &str = r"
import sys
from multiprocessing.connection import Client

place, family = sys.argv[1], sys.argv[2]
address = (place.rsplit(':', 1)[0], int(place.rsplit(':', 1)[1])) if family == 'AF_INET' else place
objects = [None, True, 0, -1, 2**70, 1.5, u'', u'gr\xfc\xdf \u20ac', b'', b'\0\xff', [], {}, (),
    {u'a': [1, (2, {u'b': None})], 3: (u'x',) * 100}, b'z' * 16384, b'z' * 16385, b'z' * (1 << 20)]
client = Client(address, family=family)
for one in objects:
    client.send(one)
    back = client.recv()
    assert back == one and type(back) is type(one), one
for length in (0, 1, 16383, 16384, 16385, 65535, 65536, 65537, 1 << 20):
    sent = bytes(bytearray(i * 7 % 251 for i in range(length)))
    client.send_bytes(sent)
    assert client.recv_bytes() == sent, length
for one in objects[:-3]:
    client.send(one)
for one in objects[:-3]:
    assert client.recv() == one, one
assert not client.poll(0)
client.close()
sys.stdout.write('done')
";

#[test]
fn every_python_gets_every_object_back_over_tcp_and_unix_sockets() {
    let builder = daemon();
    let path = builder.dir().join("message").display().to_string();
    let daemon = builder
        .listen("tcp://127.0.0.1:0=message")
        .listen(format!("unix:{path}=message"))
        .start();
    let address = daemon.address("message").to_string();
    let pythons = pythons();
    for wanted in [(2, 7), (3, 6), (3, 8), (3, 13)] {
        assert!(pythons.iter().any(|python| python.version == wanted));
    }
    for python in pythons {
        for (place, family) in [(&address, "AF_INET"), (&path, "AF_UNIX")] {
            let done = python.run(OBJECTS, &[place, family]);
            assert_eq!(done.code, Some(0), "{python:?} {family}\n{}", done.stderr);
            assert_eq!(done.stdout, "done", "{python:?} {family}");
        }
    }
}

/// A blocking send of all of it, and only then the first read, as every Python program does.
const HUGE: &str = r"
import sys
from multiprocessing.connection import Client
client = Client((sys.argv[1], int(sys.argv[2])))
sent = bytes(bytearray(range(251))) * ((64 << 20) // 251)
for _ in range(3):
    client.send_bytes(sent)
    assert client.recv_bytes() == sent
sys.stdout.write('done')
";

#[test]
fn messages_of_64_mebibytes_come_back_and_one_is_held_at_a_time() {
    let daemon = start("");
    let address = daemon.address("message");
    let before = rss_bytes(daemon.pid());
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let mut peak = 0;
    thread::scope(|scope| {
        let python = scope.spawn(|| portyard_testkit::python(HUGE, &[&host, &port]));
        while !python.is_finished() {
            peak = peak.max(rss_bytes(daemon.pid()));
            thread::yield_now();
        }
        assert_eq!(python.join().unwrap().success(), "done");
    });
    let grown = peak.saturating_sub(before);
    assert!(grown > 32 << 20, "it was never held: {grown} bytes");
    assert!(
        grown < 96 << 20,
        "{grown} bytes for three messages of 64 MiB, one at a time"
    );
}

#[test]
fn messages_come_back_however_they_are_cut_into_segments() {
    let daemon = start("");
    let messages = [
        &b"\0\0\0\x03abc"[..],
        b"\0\0\0\0",
        LONG_FORM,
        b"\0\0\0\x01!",
    ]
    .concat();
    let slow = connect(&daemon);
    for byte in &messages {
        slow.send([*byte]);
    }
    assert_eq!(slow.receive(messages.len()), messages);
    // Many in one segment, the last one without its end.
    let many = messages.repeat(1000);
    let client = connect(&daemon);
    client.send(&many);
    client.send(b"\0\0\0\x02x");
    assert_eq!(client.receive(many.len()), many);
    client.send(b"y");
    assert_eq!(client.receive(6), b"\0\0\0\x02xy");
}

#[test]
fn a_half_close_behind_a_message_does_not_lose_it() {
    let daemon = start("");
    assert_eq!(connect(&daemon).exchange(b"\0\0\0\x02ab"), b"\0\0\0\x02ab");
    let long = frame(&vec![7; 3_000_000]);
    thread::scope(|scope| {
        let client = connect(&daemon);
        let answer = scope.spawn(move || client.exchange(&long));
        assert_eq!(answer.join().unwrap().len(), 3_000_004);
    });
    assert_eq!(connect(&daemon).exchange(""), b"");
}

#[test]
fn a_message_that_ends_early_is_not_returned() {
    let daemon = start("");
    for cut in [&b"\0"[..], b"\0\0\0", b"\0\0\0\x05abcd", &LONG_FORM[..11]] {
        let client = connect(&daemon);
        client.send(cut);
        client.send_end();
        assert_eq!(client.end(), End::Fin, "{cut:?}");
    }
    let ended = ended("broken");
    eventually("all are counted", || daemon.count(&ended) == 4);
}

#[test]
fn a_length_that_cannot_be_is_refused_behind_what_came_before() {
    let daemon = start("options.max_message = 1000");
    let fine = frame(&[b'm'; 1000]);
    let wrong = [
        &b"\0\0\x03\xe9"[..],
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xfe",
        b"\x80\0\0\0",
        b"\xff\xff\xff\xff\0\0\0\0\0\0\x03\xe9",
        &[0xff; 12],
    ];
    for header in wrong {
        let client = connect(&daemon);
        client.send([&fine, header].concat());
        assert_eq!(client.receive_all(), (fine.clone(), End::Fin), "{header:?}");
    }
    let wrong = wrong.len() as u64;
    let bad = r#"portyard_bad_input_total{listener="message",service="message"}"#;
    eventually("all are counted", || daemon.count(bad) == wrong);
    let ended = ended("protocol");
    eventually("each by its reason", || daemon.count(&ended) == wrong);
}

#[test]
fn an_announced_length_takes_no_memory() {
    let daemon = start("options = { max_message = \"2GiB\", max_buffered = \"64GiB\" }");
    assert_eq!(connect(&daemon).exchange(b"\0\0\0\0"), b"\0\0\0\0");
    let before = rss_bytes(daemon.pid());
    let clients: Vec<_> = (0..20).map(|_| connect(&daemon)).collect();
    for client in &clients {
        client.send(b"\x7f\xff\xff\xffbeginning");
    }
    let received = r#"portyard_received_bytes_total{listener="message",service="message"}"#;
    eventually("all of it has arrived", || {
        daemon.count(received) >= 20 * 13
    });
    let grown = rss_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for 40 GiB announced");
}

#[test]
fn long_messages_wait_for_room_and_short_ones_do_not() {
    // One loop, whose connections are counted together.
    let options = "options = { max_message = \"1MiB\", max_buffered = \"1MiB\" }";
    let config = format!("loops = 1\n{}", config(options));
    let daemon = daemon().config(&config).start();
    let long = frame(&vec![b'l'; (1 << 19) - 4]);
    let clients: [Client; 4] = std::array::from_fn(|_| connect(&daemon));
    let [first, second, third, other] = &clients;
    let received = r#"portyard_received_bytes_total{listener="message",service="message"}"#;
    for client in [first, second] {
        client.send(&long[..100_000]);
    }
    eventually("both have their room", || daemon.count(received) == 200_000);
    third.send(&long[..100]);
    eventually("the third waits", || daemon.count(received) == 200_100);
    // Its bytes are not read while there is no room; what is short passes by.
    third.send(&long[100..200]);
    assert_eq!(exchange(other, b"\0\0\0\x01s"), b"\0\0\0\x01s");
    eventually("the others are counted", || {
        daemon.count(received) > 200_100
    });
    assert_eq!(daemon.count(received), 200_100 + 5);
    let [first, second, third, _other] = clients;
    first.reset();
    third.send(&long[200..]);
    assert_eq!(third.receive(long.len()), long);
    second.send(&long[100_000..]);
    assert_eq!(second.receive(long.len()), long);
}

#[test]
fn a_peer_that_reads_late_is_held_by_its_own_full_buffers_and_loses_nothing() {
    let daemon = start("");
    let before = rss_bytes(daemon.pid());
    let clients: Vec<_> = (0..8)
        .map(|_| Client::connect_narrow(daemon.address("message"), 8192))
        .collect();
    let messages: Vec<u8> = (0..=250_u8).flat_map(|n| frame(&[n; 1020])).collect();
    let mut quiet = 0;
    let mut sent = vec![0; clients.len()];
    eventually("no one's way takes any more", || {
        let mut moved = false;
        for (client, sent) in clients.iter().zip(&mut sent) {
            let more = client.send_some(&messages[*sent % messages.len()..]);
            (*sent, moved) = (*sent + more, moved || more > 0);
        }
        quiet = if moved { 0 } else { quiet + 1 };
        quiet == 20
    });
    let grown = rss_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
    assert_eq!(connect(&daemon).exchange(b"\0\0\0\0"), b"\0\0\0\0");
    for (client, sent) in clients.iter().zip(sent) {
        let whole = sent.next_multiple_of(1024);
        thread::scope(|scope| {
            scope.spawn(|| {
                let rest = &messages[sent % messages.len()..];
                client.send(&rest[..whole - sent]);
                client.send_end();
            });
            let (back, end) = client.receive_all();
            assert_eq!((back.len(), end), (whole, End::Fin));
            assert!(
                back.chunks(messages.len())
                    .all(|part| messages.starts_with(part))
            );
        });
    }
}

#[test]
fn a_drain_finishes_the_message_that_has_begun() {
    let daemon = start("");
    let long = frame(&vec![b'd'; 2_000_000]);
    let (busy, idle) = (connect(&daemon), connect(&daemon));
    assert_eq!(exchange(&idle, b"\0\0\0\x01i"), b"\0\0\0\x01i");
    busy.send(&long[..1_000_000]);
    let received = r#"portyard_received_bytes_total{listener="message",service="message"}"#;
    eventually("half of it is there", || daemon.count(received) > 1_000_000);
    thread::scope(|scope| {
        let end = scope.spawn(|| daemon.terminate());
        daemon.wait_for_notification("STOPPING=1");
        for piece in long[1_000_000..].chunks(100_000) {
            busy.send(piece);
        }
        assert_eq!(busy.receive(long.len()), long);
        assert_eq!((busy.end(), idle.end()), (End::Fin, End::Fin));
        assert_eq!(end.join().unwrap().code, Some(0));
    });
}

#[test]
fn limits_that_make_no_sense_are_78_and_say_why() {
    for (options, words) in [
        ("max_message = 0", ["max_message", "2GiB"]),
        ("max_message = \"3GiB\"", ["max_message", "2GiB"]),
        ("max_buffered = \"1MiB\"", ["max_buffered", "64MiB"]),
        ("max_buffered = \"2000GiB\"", ["max_buffered", "1024GiB"]),
    ] {
        let config = config(&format!("[listener.options]\n{options}"));
        let finished = daemon().config(&config).arg("--check").run();
        assert_eq!(finished.code, Some(78), "{options}");
        for word in words {
            assert!(finished.stderr.contains(word), "{}", finished.stderr);
        }
    }
}

fn exchange(client: &Client, message: &[u8]) -> Vec<u8> {
    client.send(message);
    client.receive(message.len())
}

/// A message with its header.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len()).unwrap();
    [&length.to_be_bytes(), payload].concat()
}

fn ended(reason: &str) -> String {
    format!(
        "portyard_connections_ended_total\
         {{listener=\"message\",service=\"message\",reason=\"{reason}\"}}"
    )
}

fn connect(daemon: &Daemon) -> Client {
    Client::connect(&daemon.endpoint("message"))
}

fn start(more: &str) -> Daemon {
    daemon().config(&config(more)).start()
}

fn config(more: &str) -> String {
    format!(
        "admin.listen = \"tcp://127.0.0.1:0\"\n[[listener]]\nservice = \"message\"\n\
         listen = [\"tcp://127.0.0.1:0\"]\n{more}\n"
    )
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}

/// Three bytes in the form that is meant for more than 2 GiB, which CPython takes for any length.
const LONG_FORM: &[u8] = b"\xff\xff\xff\xff\0\0\0\0\0\0\0\x03xyz";
