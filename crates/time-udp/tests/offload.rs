//! Big Fibonacci numbers are worked out beside the loop: nobody else waits for them.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::{
    Client, PATIENCE, answered, client, configured, dropped, listener, received, settled,
};
use nix::sys::signal::Signal;
use portyard_testkit::{Daemon, DaemonBuilder, eventually};

#[test]
fn slow_questions_do_not_delay_the_time() {
    let daemon = slow(1, 128).start();
    let fib = Questions::send(&daemon, 50);
    let ctime = client(&daemon, "ctime");
    for _ in 0..20 {
        assert_eq!(ctime.ask(b"").len(), 24);
    }
    assert!(
        answered(&daemon, "fib") < 50,
        "the questions were answered too soon to delay anything"
    );
    for _ in 0..50 {
        assert_is_fib(&fib.client.receive());
    }
    eventually("all are counted", || answered(&daemon, "fib") == 50);
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_as_busy() {
    let daemon = slow(1, 2).start();
    let fib = Questions::send(&daemon, 12);
    eventually("all are answered or dropped", || {
        settled(&daemon, "fib") == 12
    });
    let (answers, busy) = (answered(&daemon, "fib"), dropped(&daemon, "fib", "busy"));
    assert_eq!(answers + busy, 12);
    assert!(answers >= 2 && busy >= 1, "{answers} answers, {busy} busy");
    for _ in 0..answers {
        assert_is_fib(&fib.client.receive());
    }
    // A refusal is over when the work is.
    assert_eq!(fib.client.ask_text(b"10"), "55");
}

#[test]
fn the_work_that_waits_is_shown() {
    let daemon = slow(1, 128).start();
    // A question is counted before its work is queued: the first look may be between the two.
    let fib = Questions::send(&daemon, 100);
    eventually("work waits", || {
        daemon.metric("portyard_offload_waiting") > 0.0
    });
    for _ in 0..100 {
        assert_is_fib(&fib.client.receive());
    }
    eventually("nothing waits", || {
        daemon.metric("portyard_offload_waiting") == 0.0
    });
}

#[test]
fn sigterm_answers_what_is_being_worked_on() {
    let daemon = slow(1, 128).start();
    let fib = Questions::send(&daemon, 5);
    let finished = daemon.terminate();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    for _ in 0..5 {
        assert_is_fib(&fib.client.receive());
    }
}

#[test]
fn a_second_sigterm_does_not_wait_for_the_work() {
    let daemon = slow(1, u32::MAX).start();
    let ten = Questions::send(&daemon, 10);
    let start = Instant::now();
    for _ in 0..10 {
        assert_is_fib(&ten.client.receive());
    }
    // Work for more than a minute.
    let count = 10 * 90_000 / u64::try_from(start.elapsed().as_millis()).unwrap().max(10);
    let _many = Questions::send(&daemon, count);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_notification("STOPPING=1");
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    daemon.wait();
    // Up to two seconds are for resets to go out.
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "it took {:?}",
        start.elapsed()
    );
}

/// A daemon on one loop that takes big questions, with a pool of so many threads and queue places.
fn slow(threads: u16, queue: u32) -> DaemonBuilder {
    let tables = format!(
        "[offload]\nthreads = {threads}\nqueue = {queue}\n{}[listener.options]\nmax_n = 300000\n{}",
        listener("fib", "udp://127.0.0.1:0", "amplification = 100000"),
        listener("ctime", "udp://127.0.0.1:0", ""),
    );
    configured("loops = 1\ngrace = \"60s\"", &tables)
}

/// Questions for a number of 62,696 digits.
struct Questions {
    client: Client,
}

impl Questions {
    /// Sends so many, none of them lost in a full buffer.
    fn send(daemon: &Daemon, count: u64) -> Self {
        let client = client(daemon, "fib");
        // Answers wait here until they are read.
        let buffer = nix::sys::socket::sockopt::RcvBuf;
        nix::sys::socket::setsockopt(&client.socket, buffer, &(4 << 20)).unwrap();
        let before = received(daemon, "fib");
        for n in 1..=count {
            client.send(b"300000");
            if n % 50 == 0 || n == count {
                eventually("they are received", || {
                    received(daemon, "fib") == before + n
                });
            }
        }
        Self { client }
    }
}

/// fib(300000), by its length and its last digits.
fn assert_is_fib(answer: &[u8]) {
    let text = std::str::from_utf8(answer).unwrap();
    assert_eq!(text.len(), 62_696, "{text:.60}");
    let (mut this, mut next) = (0_u64, 1_u64);
    for _ in 0..300_000 {
        (this, next) = (next, (this + next) % 1_000_000_000_000);
    }
    assert!(
        text.ends_with(&format!("{this:012}")),
        "it ends in {}",
        &text[text.len() - 12..]
    );
}

#[test]
fn a_late_answer_leaves_from_the_address_that_was_asked() {
    let tables = listener("fib", "udp://0.0.0.0:0", "") + "[listener.options]\nmax_n = 300000\n";
    let daemon = configured("", &tables).start();
    let port = daemon.address("fib").port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut question = b"300000".to_vec();
    question.resize(21_000, 0);
    let mut buffer = vec![0; 65_536];
    for last in [1, 9, 77] {
        let server = SocketAddr::from(([127, 0, 0, last], port));
        client.send_to(&question, server).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_is_fib(&buffer[..length]);
        assert_eq!(from, server);
    }
}
