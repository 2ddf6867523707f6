//! What each service answers, byte for byte, over everything that carries a stream.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portyard_testkit::{Client, Daemon, DaemonBuilder, End, eventually, python, threads};

#[test]
fn every_kind_of_endpoint_carries_the_same_echo() {
    let builder = daemon();
    let path = format!("unix:{}", builder.dir().join("run/echo.sock").display());
    let name = format!("unix:@{}", builder.dir().display());
    let daemon = builder
        .listen("tcp://127.0.0.1:0=echo")
        .listen("tcp://[::1]:0=discard")
        .listen("tcp://[::1]:0=echo")
        .listen(format!("{path}=echo"))
        .listen(format!("{name}=echo"))
        .start();
    let [v4, v6] = daemon.addresses("echo")[..] else {
        panic!("two Internet listeners")
    };
    assert!(v6.is_ipv6());
    for endpoint in [format!("tcp://{v4}"), format!("tcp://{v6}"), path, name] {
        assert_eq!(
            Client::connect(&endpoint).exchange("hello\r\nthere\0"),
            b"hello\r\nthere\0"
        );
    }
    assert_eq!(connect(&daemon, "discard").exchange("hello"), b"");
}

#[test]
fn echo_answers_all_it_has_received_after_a_half_close() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=echo").start();
    let client = connect(&daemon, "echo");
    let sent = pattern(300_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&sent);
            client.send_end();
        });
        assert_eq!(client.receive_all(), (sent.clone(), End::Fin));
    });
}

#[test]
fn many_megabytes_come_back_whole_to_a_reader_that_starts_late() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=echo").start();
    // Narrow, and more than the kernels' buffers can grow to.
    let client = Client::connect_narrow(daemon.address("echo"), 16 * 1024);
    let sent = pattern(64 * 1024 * 1024);
    let start = send_until_full(&client, &sent);
    assert!(start < sent.len(), "the way never got full");
    thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&sent[start..]);
            client.send_end();
        });
        let (back, end) = client.receive_all();
        assert_eq!(end, End::Fin);
        assert!(
            back == sent,
            "{} of {} bytes came back, or others",
            back.len(),
            sent.len()
        );
    });
}

#[test]
fn bytes_sent_one_by_one_come_back_in_order() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=echo").start();
    let client = connect(&daemon, "echo");
    for byte in pattern(1000) {
        client.send([byte]);
        assert_eq!(client.receive(1), [byte]);
    }
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let daemon = daemon().config(&with_admin("discard", "")).start();
    assert_eq!(
        connect(&daemon, "discard").exchange(pattern(1_000_000)),
        b""
    );
    let received = r#"portyard_received_bytes_total{listener="discard",service="discard"}"#;
    eventually("all bytes are counted", || {
        daemon.count(received) == 1_000_000
    });
}

#[test]
fn chargen_sends_the_ring_of_rfc_864_for_as_long_as_it_is_read() {
    let daemon = daemon().config(&with_admin("chargen", "")).start();
    let client = connect(&daemon, "chargen");
    client.send("what the client sends is dropped");
    let ring: Vec<u8> = (b' '..=b'~').collect();
    let line = |number: usize| {
        let mut line: Vec<u8> = (0..72).map(|column| ring[(number + column) % 95]).collect();
        line.extend(b"\r\n");
        line
    };
    let wanted: Vec<u8> = (0..30_000).flat_map(line).collect();
    assert!(
        client.receive(wanted.len()) == wanted,
        "the pattern is another"
    );
    // A client that has said all it has to say may still read.
    client.send_end();
    assert!(client.receive(wanted.len()) == (30_000..60_000).flat_map(line).collect::<Vec<_>>());
    drop(client);
    let present = r#"portyard_connections{listener="chargen",service="chargen"}"#;
    eventually("its end is noticed", || daemon.count(present) == 0);
}

#[test]
fn daytime_is_the_local_time_as_python_writes_it() {
    // Half an hour off, so that no other zone gives the same by chance.
    let daemon = daemon()
        .env("TZ", "Asia/Kolkata")
        .listen("tcp://127.0.0.1:0=daytime")
        .start();
    let before = unix_time();
    let answer = String::from_utf8(connect(&daemon, "daytime").exchange("")).unwrap();
    let script = "
import os, sys, time
os.environ['TZ'] = 'Asia/Kolkata'
time.tzset()
text = sys.argv[1]
seconds = time.mktime(time.strptime(text))
assert time.ctime(seconds) == text, (time.ctime(seconds), text)
sys.stdout.write('%d' % seconds)
";
    let text = answer.strip_suffix("\r\n").unwrap();
    let said: u64 = python(script, &[text]).success().parse().unwrap();
    assert!(
        (before..=unix_time()).contains(&said),
        "{answer:?} is {said}, not {before}"
    );
}

#[test]
fn time_is_seconds_since_1900_as_python_unpacks_it() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=time").start();
    let address = daemon.address("time");
    let before = unix_time();
    let script = "
import socket, struct, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as s:
    data = b''
    while True:
        more = s.recv(100)
        if not more: break
        data += more
sys.stdout.write('%d' % (struct.unpack('!I', data)[0] - 2208988800))
";
    let port = address.port().to_string();
    let said: u64 = python(script, &[&address.ip().to_string(), &port])
        .success()
        .parse()
        .unwrap();
    assert!(
        (before..=unix_time()).contains(&said),
        "{said} is not {before}"
    );
}

#[test]
fn a_client_that_talks_to_daytime_and_time_still_gets_the_whole_answer() {
    let daemon = daemon()
        .listen("tcp://127.0.0.1:0=daytime")
        .listen("tcp://127.0.0.1:0=time")
        .start();
    for (service, length) in [("daytime", 26), ("time", 4)] {
        for _ in 0..50 {
            let client = connect(&daemon, service);
            client.send(pattern(50_000));
            let (answer, end) = client.receive_all();
            assert_eq!((answer.len(), end), (length, End::Fin), "{service}");
            // Unread data at a close would be a reset, which may overtake an answer on its way.
            let goes_on = client.try_send("still") && client.try_send("talking");
            assert!(goes_on, "{service}: the connection was reset");
        }
    }
}

#[test]
fn timestamp_puts_the_time_before_each_line_and_keeps_its_end() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=timestamp").start();
    let client = connect(&daemon, "timestamp");
    let answer = String::from_utf8(client.exchange("crlf\r\nlf\n\na\rb\nend")).unwrap();
    let lines: Vec<&str> = answer.split_inclusive('\n').collect();
    let rests: Vec<&str> = lines.iter().map(|line| unstamped(line)).collect();
    assert_eq!(rests, ["crlf\r\n", "lf\n", "\n", "a\rb\n", "end"]);
    let times: Vec<&str> = lines.iter().map(|line| &line[1..25]).collect();
    let script = "import sys, time\nfor text in sys.argv[1:]: time.strptime(text)";
    python(script, &times).success();
}

#[test]
fn timestamp_answers_text_without_a_line_end_after_the_quiet_time() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=timestamp").start();
    let client = connect(&daemon, "timestamp");
    for text in ["hi", "again"] {
        client.send(text);
        let answer = String::from_utf8(client.receive("[] ".len() + 24 + text.len())).unwrap();
        assert_eq!(unstamped(&answer), text);
    }
    client.send("a whole line\n");
    assert_eq!(unstamped(&client.receive_line()), "a whole line\n");
}

#[test]
fn timestamp_waits_for_the_line_end_when_there_is_no_quiet_time() {
    let config = with_admin("timestamp", "options.quiet = \"0s\"");
    let daemon = daemon().config(&config).start();
    let client = connect(&daemon, "timestamp");
    // The answer to the first line shows that what came with it has arrived, too.
    client.send("line\nfirst half, ");
    assert_eq!(unstamped(&client.receive_line()), "line\n");
    assert!(
        client.is_silent_for(Duration::from_millis(200)),
        "half a line is answered"
    );
    client.send("second half\n");
    assert_eq!(
        unstamped(&client.receive_line()),
        "first half, second half\n"
    );
}

#[test]
fn a_line_over_the_cap_gets_a_clear_word_and_the_end() {
    for service in ["timestamp", "command", "sleep"] {
        let config = with_admin(service, "options.max_line = 16");
        let daemon = daemon().config(&config).start();
        let client = connect(&daemon, service);
        client.send("0000000000000000\r\n");
        let at_cap = client.receive_line();
        assert!(!at_cap.contains("longer than"), "{service}: {at_cap}");
        client.send("00000000000000000");
        let (answer, end) = client.receive_all();
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(answer, "error: line longer than 16 bytes\n", "{service}");
        assert_eq!(end, End::Fin);
        let labels = format!("{{listener=\"{service}\",service=\"{service}\"");
        let ended = format!("portyard_connections_ended_total{labels},reason=\"protocol\"}}");
        eventually("the end is counted", || daemon.count(&ended) == 1);
        let bad = daemon.count(&format!("portyard_bad_input_total{labels}}}"));
        assert!(bad >= 1, "{service}: {bad}");
    }
}

#[test]
fn sleep_answers_in_order_and_says_how_long() {
    let daemon = daemon().listen("tcp://127.0.0.1:0=sleep").start();
    let start = Instant::now();
    let answer = connect(&daemon, "sleep").exchange("0.25\r\n0\nabc\n.5\n99999\n0");
    assert!(start.elapsed().as_secs_f64() >= 0.75, "it did not sleep");
    let wanted = "slept 0.25\r\nslept 0\nerror: 'abc' is not a number of seconds, such as 1.5\n\
                  slept 0.5\nerror: longer than the 3600 seconds allowed\nslept 0\n";
    assert_eq!(String::from_utf8(answer).unwrap(), wanted);
}

#[test]
fn a_thousand_sleepers_cost_no_thread_and_delay_nobody() {
    let daemon = daemon()
        .listen("tcp://127.0.0.1:0=sleep")
        .listen("tcp://127.0.0.1:0=daytime")
        .start();
    let start = Instant::now();
    let sleepers: Vec<Client> = (0..1000).map(|_| connect(&daemon, "sleep")).collect();
    for sleeper in &sleepers {
        sleeper.send("0\n3\n");
    }
    for sleeper in &sleepers {
        // What was sent with it has arrived, too: now it sleeps.
        assert_eq!(sleeper.receive_line(), "slept 0\n");
    }
    let count = threads(daemon.pid());
    assert!(count <= 16, "{count} threads");
    assert_eq!(connect(&daemon, "daytime").exchange("").len(), 26);
    for sleeper in &sleepers {
        assert_eq!(sleeper.receive_line(), "slept 3\n");
    }
    // One after the other they would need fifty minutes, on a pool of threads one at least.
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

/// Sends until neither we nor the daemon can get rid of more; how much has been sent.
fn send_until_full(client: &Client, bytes: &[u8]) -> usize {
    let mut sent = 0;
    let mut quiet = 0;
    eventually("the way is full", || {
        let taken = client.send_some(&bytes[sent..]);
        sent += taken;
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        quiet == 50 || sent == bytes.len()
    });
    sent
}

/// Bytes of every value, in an order that shows a shift.
fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// The line behind its time stamp.
fn unstamped(line: &str) -> &str {
    assert_eq!(
        (line.get(..1), line.get(25..27)),
        (Some("["), Some("] ")),
        "{line:?}"
    );
    &line[27..]
}

fn unix_time() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn with_admin(service: &str, more: &str) -> String {
    format!(
        "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[listener]]\nservice = \"{service}\"\nlisten = [\"tcp://127.0.0.1:0\"]\n{more}\n"
    )
}

fn connect(daemon: &Daemon, label: &str) -> Client {
    Client::connect(&daemon.endpoint(label))
}

fn daemon() -> DaemonBuilder {
    Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"))
}
