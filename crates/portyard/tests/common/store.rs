//! A real kv-rpc with all its doors.

use std::fmt::Write as _;

use portyard_testkit::Daemon;

/// What `--door` calls a door, and what the daemon calls its service.
pub const DOORS: [(&str, &str); 3] = [
    ("xml", "xml-rpc"),
    ("json", "json-rpc"),
    ("python", "python-rpc"),
];

/// A store in memory, with an admin endpoint, these further lines in its table and these in the table of each
/// listener.
pub fn in_memory(table: &str, listener: &str) -> Daemon {
    let admin = "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n";
    let mut config = format!("{admin}[store]\nengine = \"memory\"\n{table}");
    for (_, service) in DOORS {
        let listen = "listen = [\"tcp://127.0.0.1:0\"]";
        write!(
            config,
            "[[listener]]\nservice = \"{service}\"\n{listen}\n{listener}\n"
        )
        .unwrap();
    }
    Daemon::build(super::beside("kv-rpc"))
        .config(&config)
        .start()
}
