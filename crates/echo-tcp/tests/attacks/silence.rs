//! What a peer costs that has proved nothing: no memory, and nobody's time but its own.

use std::net::SocketAddr;
use std::time::Duration;

use portyard_core::wire::auth::python::MinDigest;
use portyard_testkit::{self as testkit, Daemon, eventually, rss_bytes};

use crate::stream::Stream;
use crate::victim::{Dialect, SECRET, Server, client, key_file};
use crate::{TRIES, victim};

#[test]
fn an_announced_length_takes_no_memory() {
    let daemon = victim::daemon();
    let address = Server::ours(&daemon, Dialect::Python, MinDigest::Sha256).address;
    let headers: [&[u8]; 4] = [
        &[0xff; 4],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff; 12],
        // The longest that is allowed.
        &[0, 0, 1, 0],
    ];
    let held = |count: usize| {
        let streams = (0..count).map(|number| {
            let mut stream = Stream::connect(address);
            stream.receive_frame().unwrap();
            stream.send(headers[number % headers.len()]).unwrap();
            stream
        });
        streams.collect::<Vec<_>>()
    };
    // What the first connections bring into memory for good is not theirs.
    drop(held(100));
    let present = || daemon.status()["connections"]["present"] == 0;
    eventually("they have gone", present);
    let before = rss_bytes(daemon.pid());
    let held = held(100);
    let grown = rss_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} bytes for 100 announcements");
    assert!(held.into_iter().all(|stream| !stream.served()));
}

#[test]
fn who_says_nothing_holds_up_nobody() {
    testkit::raise_descriptor_limit();
    for dialect in [Dialect::Python, Dialect::Mutual, Dialect::Recipe] {
        let daemon = daemon(dialect);
        let address = daemon.address("echo");
        // Fewer than handshakes_early: nobody else notices them.
        let few: Vec<_> = (0..100).map(|_| Stream::connect(address)).collect();
        assert!(is_served(address, dialect), "{dialect:?}");
        // So many that some are thrown away, until the others' time is over.
        let many: Vec<_> = (100..TRIES)
            .filter_map(|_| Stream::connect_unless_dropped(address))
            .collect();
        eventually("an honest client is served", || is_served(address, dialect));
        let silent = few.into_iter().chain(many);
        for mut stream in silent {
            let ended = stream.wait_for_end();
            assert!(ended.is_ok(), "{dialect:?}: {ended:?}");
        }
        println!("{} server: silence | {TRIES} | - | 0", dialect.name());
    }
}

#[test]
fn who_says_nothing_holds_up_cpython() {
    for version in crate::CPYTHONS {
        let server = Server::cpython(version);
        // One for each thread that accepts.
        let silent: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = Stream::connect(server.address);
                stream.receive_frame().unwrap();
                stream
            })
            .collect();
        let honest = testkit::Client::connect(&format!("tcp://{}", server.address));
        assert!(
            honest.is_silent_for(Duration::from_millis(300)),
            "{version:?}"
        );
        drop(silent);
        assert_eq!(honest.receive(15)[4..], *b"#CHALLENGE#");
    }
}

fn is_served(address: SocketAddr, dialect: Dialect) -> bool {
    let mut stream = Stream::connect(address);
    let mut honest = client(dialect, SECRET, MinDigest::Sha256);
    stream.speak(&mut *honest).is_ok() && stream.served()
}

/// With a deadline that a test can wait for.
fn daemon(dialect: Dialect) -> Daemon {
    let builder = Daemon::build(env!("CARGO_BIN_EXE_echo-tcp"));
    let keys = key_file(builder.dir());
    let auth = dialect.name();
    let config = format!(
        "[[listener]]\nservice = \"echo\"\nlisten = [\"tcp://127.0.0.1:0\"]\n\
         auth = \"{auth}\"\nauth_keys = \"{keys}\"\n\
         [listener.limits]\nhandshake = \"2s\"\npenalty_max = \"0s\"\n"
    );
    builder.config(&config).start()
}
