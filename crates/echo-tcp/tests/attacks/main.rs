//! Whoever does not know the key gets nowhere: every attack on the handshakes that we know, a
//! thousand times against ours, and against CPython's own as the control. Where CPython falls, the
//! attacker works; where it does not, an honest end and a careless one show the same.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod on_clients;
mod on_servers;
mod oracle;
mod relay;
mod silence;
mod stream;
mod table;
mod victim;

use std::io;

use oracle::Forger;
use portyard_core::wire::auth::python::MinDigest;
use table::{Row, Table};
use victim::{Client, Dialect, OURS, Server, label};

#[test]
fn nobody_without_the_key_is_served() {
    let daemon = victim::daemon();
    let forger = Forger::new();
    let mut table = Table::default();
    for (dialect, min) in OURS {
        let ours = Server::ours(&daemon, dialect, min);
        let pythons = if label(dialect, min) == "python-sha256" {
            CPYTHONS.map(Server::cpython).into()
        } else {
            Vec::new()
        };
        for (name, attack, cpython_falls) in on_servers::attacks(dialect) {
            if min == MinDigest::Md5 && name.contains("MD5") {
                // It is what the setting allows.
                continue;
            }
            let passed = |server: &Server, tries, chances| {
                let recorded = &on_servers::record(server);
                let forger = &forger;
                let made = (0..tries).map(|number| on_servers::Try {
                    server,
                    recorded,
                    forger,
                    number,
                });
                made.filter(|made| comes_off(chances, || attack(made)))
                    .count()
            };
            table.add(Row {
                attack: format!("{} server: {name}", label(dialect, min)),
                cpython: pythons
                    .iter()
                    .map(|python| passed(python, CONTROLS, chances(cpython_falls)))
                    .collect(),
                cpython_falls,
                ours: passed(&ours, TRIES, 1),
            });
        }
    }
    table.judge();
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn nobody_without_the_key_is_believed() {
    let forger = Forger::new();
    let mut table = Table::default();
    for (dialect, min) in OURS {
        let ours = Client::ours(dialect, min);
        let pythons = if label(dialect, min) == "python-sha256" {
            CPYTHONS.map(Client::cpython).into()
        } else {
            Vec::new()
        };
        for (name, attack, cpython_falls) in on_clients::attacks(dialect) {
            if min == MinDigest::Md5 && name.contains("MD5") {
                // It is what the setting allows.
                continue;
            }
            let passed = |client: &Client, tries, chances| {
                let recorded = &on_clients::record(client);
                let forger = &forger;
                let made = (0..tries).map(|number| on_clients::Try {
                    client,
                    recorded,
                    forger,
                    number,
                });
                made.filter(|made| comes_off(chances, || attack(made)))
                    .count()
            };
            table.add(Row {
                attack: format!("{} client: {name}", label(dialect, min)),
                cpython: pythons
                    .iter()
                    .map(|python| passed(python, CONTROLS, chances(cpython_falls)))
                    .collect(),
                cpython_falls,
                ours: passed(&ours, TRIES, 1),
            });
        }
    }
    table.judge();
}

/// How many chances a try against CPython has: what must come off may be too late once, on a busy machine.
fn chances(must_come_off: bool) -> usize {
    if must_come_off { 2 } else { 1 }
}

/// Whether a try comes off, given so many chances.
fn comes_off(chances: usize, made: impl Fn() -> io::Result<bool>) -> bool {
    (0..chances).any(|_| made().unwrap_or(false))
}

#[test]
fn who_repeats_his_random_bytes_falls_for_a_recording() {
    let forger = &Forger::new();
    for dialect in [Dialect::Python, Dialect::Mutual, Dialect::Recipe] {
        let server = &Server::careless(dialect);
        let recorded = &on_servers::record(server);
        let made = on_servers::Try {
            server,
            recorded,
            forger,
            number: 0,
        };
        assert!(on_servers::replay(&made).unwrap(), "{dialect:?}");
    }
    for dialect in [Dialect::Python, Dialect::Mutual] {
        let client = &Client::careless(dialect);
        let recorded = &on_clients::record(client);
        let made = on_clients::Try {
            client,
            recorded,
            forger,
            number: 0,
        };
        assert!(on_clients::replay(&made).unwrap(), "{dialect:?}");
    }
}

#[test]
fn a_dialogue_that_is_cut_behind_its_last_byte_is_whole() {
    let daemon = victim::daemon();
    for (dialect, min) in OURS {
        let server = Server::ours(&daemon, dialect, min);
        let all = on_servers::record(&server).concat().len();
        assert!(on_servers::cut_after(server.address, dialect, all).unwrap());
    }
    for (dialect, min) in &OURS[..3] {
        let client = Client::ours(*dialect, *min);
        let all = on_clients::record(&client).concat().len();
        assert!(on_clients::cut_after(&client, all).unwrap());
    }
}

/// One of each wire format.
const CPYTHONS: [(u8, u8); 2] = [(3, 13), (3, 8)];
const TRIES: usize = 1000;
const CONTROLS: usize = 20;
