//! Peers of the control socket that mean no good, or do not know what they do.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use portyard_core::fdpass::Channel;
use portyard_core::wire::hold::{MESSAGE_MAX, Reason, Reply, Request};
use portyard_testkit::{Daemon, eventually, open_fds};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{broker, control, holder, name, socket};

fn start(directory: &Path, more: &str) -> Daemon {
    let config =
        control(directory) + more + "[[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    broker().config(&config).start()
}

/// How many descriptors it has open, those included that are opened when they are first needed.
fn settled(broker: &Daemon, directory: &Path) -> usize {
    assert!(holder(directory).retrieve(&name("web")).is_ok());
    open_fds(broker.pid())
}

/// A raw connection, which waits for its answers.
fn raw(directory: &Path) -> Channel<Socket> {
    let raw = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    raw.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    raw.connect(&SockAddr::unix(socket(directory)).unwrap())
        .unwrap();
    Channel::new(raw).unwrap()
}

/// The answer, which must be a refusal, and then the end.
#[track_caller]
fn refusal(channel: &Channel<Socket>) -> (Reason, String) {
    let Some(Reply::Refused { reason, text }) = answer(channel) else {
        panic!("it was not refused");
    };
    assert_eq!(answer(channel), None, "the connection goes on");
    (reason, text)
}

fn answer(channel: &Channel<Socket>) -> Option<Reply> {
    let mut buffer = vec![0; MESSAGE_MAX];
    let mut length = None;
    eventually("an answer", || {
        length = channel.receive(&mut buffer).ok().map(|m| m.length);
        length.is_some()
    });
    match length {
        Some(0) | None => None,
        Some(length) => Some(Reply::decode(&buffer[..length], 0).unwrap()),
    }
}

#[test]
fn garbage_is_told_so_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), "");
    let before = settled(&broker, dir.path());
    let long = vec![0x42; MESSAGE_MAX + 1];
    for packet in [
        &b"x"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x42, 0, 0, 1],
        &[0x42, 0, 0, 1, 200],
        &[0x41, 0, 0, 0],
        &[0xff; 4],
        // A batch for a successor, which nobody has asked for.
        &[0x49, 0, 0, 4, 0, 0, 0, 1],
        &[0x4a, 0, 0, 0],
        &long,
    ] {
        let channel = raw(dir.path());
        channel.send(packet, &[]).unwrap();
        let (reason, text) = refusal(&channel);
        assert_eq!(reason, Reason::Malformed, "{text}");
    }
    // Half a HELLO is none.
    let channel = raw(dir.path());
    channel.send(&[0x01, 0, 0, 0], &[]).unwrap();
    assert_eq!(refusal(&channel).0, Reason::Malformed);
    assert!(holder(dir.path()).retrieve(&name("web")).is_ok());
    drop(channel);
    eventually("nothing is left open", || open_fds(broker.pid()) <= before);
}

#[test]
fn forged_names_are_no_names() {
    let dir = tempfile::tempdir().unwrap();
    let _broker = start(dir.path(), "");
    for forged in [
        &b""[..],
        b"web\0",
        b"web\n",
        b"we b",
        b"\x1b[2J",
        b"w\xc3\xa9b",
    ] {
        let channel = raw(dir.path());
        let length = u8::try_from(forged.len()).unwrap();
        let packet = [&[0x42, 0, 0, length + 1, length][..], forged].concat();
        channel.send(&packet, &[]).unwrap();
        assert_eq!(refusal(&channel).0, Reason::Malformed, "{forged:?}");
    }
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), "");
    let before = settled(&broker, dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let many = vec![listener.as_fd(); 252];
    let retrieve = Request::Retrieve { name: name("web") }.encode();
    let store = Request::Store {
        name: name("x"),
        sockets: 16,
        expiry: None,
        replace: false,
    }
    .encode();
    for packet in [&retrieve, &store] {
        let channel = raw(dir.path());
        channel.send(packet, &many).unwrap();
        assert_eq!(refusal(&channel).0, Reason::Malformed);
    }
    // One that announces them and sends none.
    let channel = raw(dir.path());
    channel.send(&store, &[]).unwrap();
    assert_eq!(refusal(&channel).0, Reason::Malformed);
    drop(channel);
    eventually("nothing is left open", || open_fds(broker.pid()) <= before);
}

#[test]
fn names_and_sockets_of_peers_are_capped() {
    let dir = tempfile::tempdir().unwrap();
    let config = control(dir.path()).replace("[holding]\n", "[holding]\nnames = 2\nsockets = 3\n");
    let _broker = broker().config(&config).start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = holder(dir.path());
    let store = |text: &str, count, replace| {
        peer.store(&name(text), &vec![listener.as_fd(); count], None, replace)
    };
    store("a", 2, false).unwrap();
    let full = store("b", 2, false).unwrap_err().to_string();
    assert!(full.contains("holding.sockets"), "{full}");
    store("b", 1, false).unwrap();
    let full = store("c", 1, false).unwrap_err().to_string();
    assert!(full.contains("holding.names"), "{full}");
    let taken = store("b", 1, false).unwrap_err().to_string();
    assert!(taken.contains("held already"), "{taken}");
    store("b", 1, true).unwrap();
}

#[test]
fn the_silent_are_closed_and_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = control(dir.path()) + "[listener.limits]\nidle = \"1s\"\n";
    let _broker = broker().config(&config).start();
    let silent: Vec<_> = (0..50).map(|_| raw(dir.path())).collect();
    assert_eq!(holder(dir.path()).list().unwrap(), []);
    for channel in silent {
        assert_eq!(answer(&channel), None);
    }
}

#[test]
fn a_broker_that_is_out_of_descriptors_says_so_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        control(dir.path()) + "[[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n";
    // So many that what is left after the last store has room for the next connection.
    let broker = broker().config(&config).nofile(66).start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = holder(dir.path());
    let mut stored = 0;
    let refused = loop {
        let sockets = [listener.as_fd(); 8];
        match peer.store(&name(&format!("x{stored}")), &sockets, None, false) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 64);
    };
    assert!(refused.to_string().contains("LimitNOFILE"), "{refused}");
    let peer = holder(dir.path());
    for number in 0..stored {
        peer.delete(&name(&format!("x{number}"))).unwrap();
    }
    assert!(peer.retrieve(&name("web")).is_ok());
    drop(peer);
    assert_eq!(broker.terminate().code, Some(0));
}
