//! Sockets that fd-broker holds, stored and retrieved from the command line.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::os::unix::fs::FileTypeExt;
use std::process::{Child, Command};

use common::beside;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use portyard_testkit::{Client, Daemon, Finished, finish};

fn broker() -> Daemon {
    let builder = Daemon::build(beside("fd-broker"));
    let config = format!(
        "[holding]\nrules = [\"allow all * uid:{}\", \"deny delete web any\"]\n\
         [[listener]]\nservice = \"control\"\nlisten = [\"unix:{}/control.sock\"]\n\
         [[hold]]\nname = \"web\"\nlisten = [\"tcp://127.0.0.1:0\"]\n",
        geteuid(),
        builder.dir().display()
    );
    builder.config(&config).start()
}

fn command(broker: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portyard"));
    let socket = broker.dir().join("control.sock");
    command.args(["broker", "--socket"]).arg(socket).args(words);
    command
}

fn run(broker: &Daemon, words: &[&str]) -> Finished {
    finish(&mut command(broker, words), b"")
}

/// A program that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_understands_listen_fds_runs_behind_a_held_listener() {
    let broker = broker();
    let address = broker.address("web");
    let waiting = Client::try_connect(address).unwrap();
    waiting.send("ping");
    for _ in 0..2 {
        let echo_tcp = beside("echo-tcp").display().to_string();
        let words = [
            "retrieve",
            "web",
            "--",
            &echo_tcp,
            "--listen",
            "systemd:web=echo",
        ];
        let _running = Running(command(&broker, &words).spawn().unwrap());
        assert!(Client::try_connect(address).unwrap().is_echoed());
    }
    assert_eq!(waiting.receive(4), b"ping");
}

#[test]
fn what_is_stored_is_shown_retrieved_and_deleted() {
    let broker = broker();
    let place = broker.dir().join("app.sock");
    let endpoint = format!("unix:{}", place.display());
    let stored = run(
        &broker,
        &[
            "store",
            "app",
            "tcp://127.0.0.1:0",
            &endpoint,
            "--expiry",
            "1h",
        ],
    );
    assert_eq!(stored.code, Some(0), "{}", stored.stderr);
    // The file stays with the socket, which is the broker's now.
    assert!(place.metadata().unwrap().file_type().is_socket());
    let shown = run(&broker, &["--json", "retrieve", "app"]);
    let lines: Vec<serde_json::Value> = shown
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{}", shown.stdout);
    assert_eq!(lines[1]["endpoint"], endpoint.as_str());
    let listed = run(&broker, &["listeners"]);
    assert_eq!(listed.code, Some(0), "{}", listed.stderr);
    for word in [
        "app",
        &endpoint,
        "stream",
        &format!("uid {}", geteuid()),
        "configuration",
    ] {
        assert!(
            listed.stdout.contains(word),
            "no {word} in\n{}",
            listed.stdout
        );
    }
    let again = run(&broker, &["store", "app", "tcp://127.0.0.1:0"]);
    assert_eq!(again.code, Some(78), "{}", again.stderr);
    assert!(again.stderr.contains("held already"), "{}", again.stderr);
    let replaced = run(&broker, &["store", "--replace", "app", "udp://127.0.0.1:0"]);
    assert_eq!(replaced.code, Some(0), "{}", replaced.stderr);
    let deleted = run(&broker, &["delete", "app"]);
    assert_eq!(deleted.code, Some(0), "{}", deleted.stderr);
    let gone = run(&broker, &["retrieve", "app"]);
    assert_eq!(gone.code, Some(78), "{}", gone.stderr);
    assert!(gone.stderr.contains("nothing is held"), "{}", gone.stderr);
}

#[test]
fn a_refusal_names_the_rule_and_an_absent_broker_is_69() {
    let broker = broker();
    let refused = run(&broker, &["delete", "web"]);
    assert_eq!(refused.code, Some(77), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("holding.rules"),
        "{}",
        refused.stderr
    );
    let taken = broker.address("web").to_string();
    let run_store = run(&broker, &["store", "x", &format!("tcp://{taken}")]);
    assert_eq!(run_store.code, Some(69), "{}", run_store.stderr);
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_portyard"));
    nowhere.args([
        "broker",
        "--socket",
        "/nonexistent/x.sock",
        "retrieve",
        "web",
    ]);
    let absent = finish(&mut nowhere, b"");
    assert_eq!(absent.code, Some(69), "{}", absent.stderr);
    assert!(
        absent.stderr.contains("start fd-broker first"),
        "{}",
        absent.stderr
    );
    let unknown = run(&broker, &["retrieve", "web", "--", "/nonexistent/program"]);
    assert_eq!(unknown.code, Some(69), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("/nonexistent/program"));
}
