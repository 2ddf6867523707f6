//! What the tests of trust have in common.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use portyard_core::auth::{MinDigest, key_line};
use portyard_core::wire::auth::{Handshake, Key, Secret, recipe};
use portyard_testkit::{Client, Daemon};

/// Writes a file that nobody else can read.
pub fn write_secret(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

/// A key file with keys of these names, each with its name as its secret.
pub fn key_file(directory: &Path, names: &[&str]) -> PathBuf {
    let path = directory.join("keys");
    let lines: Vec<String> = names
        .iter()
        .map(|name| key_line(name, name.as_bytes()))
        .collect();
    write_secret(&path, lines.join("\n").as_bytes());
    path
}

/// The key of that name.
pub fn key(name: &str) -> Key {
    Key::new(name, Secret::new(name.into()).unwrap())
}

/// Proves a key by the recipe; whether it was accepted shows in what follows.
pub fn prove(client: &Client, name: &str) {
    let mut machine = recipe::Client::new(key(name), MinDigest::Sha256.recipe());
    machine.handle(&client.receive(32)).unwrap();
    client.send(machine.output().unwrap());
}

/// How many connections of the listener `echo` have ended for that reason.
pub fn ended(daemon: &Daemon, reason: &str) -> u64 {
    count(daemon, "ended", reason)
}

/// How many connections of the listener `echo` were refused for that reason.
pub fn refused(daemon: &Daemon, reason: &str) -> u64 {
    count(daemon, "refused", reason)
}

fn count(daemon: &Daemon, what: &str, reason: &str) -> u64 {
    daemon.count(&format!(
        "portyard_connections_{what}_total{{listener=\"echo\",service=\"echo\",reason=\"{reason}\"}}"
    ))
}

/// Checks that the daemon refuses a configuration with 78 and says why.
#[track_caller]
pub fn check_fails(config: &str, said: &str) {
    let finished = Daemon::build(BINARY).config(config).args(["--check"]).run();
    assert_eq!(finished.code, Some(78), "{config}");
    assert!(
        finished.stderr.contains(said),
        "no '{said}' in {}",
        finished.stderr
    );
}

pub const ADMIN: &str = "[admin]\nlisten = \"tcp://127.0.0.1:0\"\n";
pub const BINARY: &str = env!("CARGO_BIN_EXE_echo-tcp");
