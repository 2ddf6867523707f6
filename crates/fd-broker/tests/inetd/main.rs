//! `[[service]]` tables against real programs: what each connection, datagram and limit comes to.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod limits;
mod passing;
mod programs;
mod waiting;
mod warm;

use std::fs;
use std::path::PathBuf;

use portyard_testkit::{Client, Daemon, DaemonBuilder, peer};

const FD_BROKER: &str = env!("CARGO_BIN_EXE_fd-broker");

/// A broker with these tables, and an admin endpoint.
fn start(tables: &str) -> Daemon {
    build("", tables).start()
}

/// A broker with these keys, tables, and an admin endpoint, to be started.
fn build(keys: &str, tables: &str) -> DaemonBuilder {
    let builder = Daemon::build(FD_BROKER);
    let text = configuration(&builder.dir().join("admin"), keys, tables);
    builder.config(&text)
}

fn configuration(admin: &std::path::Path, keys: &str, tables: &str) -> String {
    format!(
        "{keys}\n[admin]\nlisten = \"unix:{}\"\n{tables}",
        admin.display()
    )
}

/// Gives a running broker other tables; what it says of them.
fn reload(daemon: &Daemon, tables: &str) -> String {
    daemon.rewrite_config(&configuration(&daemon.dir().join("admin"), "", tables));
    daemon.reload()
}

/// A service on a free port of the loopback address.
fn service(name: &str, command: &[&str], more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nlisten = [\"tcp://127.0.0.1:0\"]\ncommand = {command:?}\n{more}\n"
    )
}

/// A service whose program is a Python script.
fn python(name: &str, script: &str, more: &str) -> String {
    let python = peer("python3").display().to_string();
    service(name, &[&python, "-c", script], more)
}

/// A service of datagrams whose program is a Python script.
fn datagrams(name: &str, script: &str, more: &str) -> String {
    python(name, script, more).replace("tcp://", "udp://")
}

fn connect(daemon: &Daemon, name: &str) -> Client {
    Client::connect(&daemon.endpoint(name))
}

/// One of our own daemons, which the build has put beside this one.
fn ours(name: &str) -> String {
    let beside = PathBuf::from(FD_BROKER).with_file_name(name);
    assert!(
        beside.exists(),
        "{} is missing: cargo build -p {name}",
        beside.display()
    );
    beside.display().to_string()
}

/// How many processes of a service run now.
fn running(daemon: &Daemon, name: &str) -> u64 {
    daemon.count(&format!("portyard_programs{{name=\"{name}\"}}"))
}

/// How many processes of a service were started.
fn started(daemon: &Daemon, name: &str) -> u64 {
    daemon.count(&format!(
        "portyard_programs_started_total{{name=\"{name}\"}}"
    ))
}

/// Whether a process is there and is no zombie.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}
