//! `portyard up` with small daemons written in Python.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, portyard, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portyard_testkit::eventually;
use tempfile::TempDir;

/// A running yard and what it prints.
struct Yard {
    child: Child,
    directory: TempDir,
    _state: TempDir,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Yard {
    fn start(daemons: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, script) in daemons {
            install(directory.path(), name, script);
        }
        Self::start_in(directory)
    }

    /// With the daemons that are in the directory, and data and sockets elsewhere.
    fn start_in(directory: TempDir) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut child = portyard()
            .arg("up")
            .arg("--bin-dir")
            .arg(directory.path())
            // What a supervisor of ours left behind must not reach the daemons.
            .env("WATCHDOG_USEC", "1")
            .env("XDG_STATE_HOME", state.path())
            .env("XDG_RUNTIME_DIR", state.path())
            .env("LISTEN_PID", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            directory,
            _state: state,
            stdout,
            stderr,
        }
    }

    /// The lines of the table, when it has come.
    fn table(&self) -> Vec<String> {
        let mut table = Vec::new();
        until(&self.stdout, "DAEMON");
        loop {
            let line = self.stdout.recv_timeout(PATIENCE).unwrap();
            if line.is_empty() {
                return table;
            }
            table.push(line);
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// The exit code and the rest of standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let code = common::wait(&mut self.child);
        let rest: Vec<String> = self.stderr.iter().collect();
        (code, rest.join("\n"))
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // Already ended, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines until one holds the text, and returns all of them.
fn until(lines: &Receiver<String>, text: &str) -> String {
    let mut seen = String::new();
    loop {
        let Ok(line) = lines.recv_timeout(PATIENCE) else {
            panic!("no line with '{text}' in:\n{seen}");
        };
        seen.push_str(&line);
        seen.push('\n');
        if line.contains(text) {
            return seen;
        }
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn install(directory: &Path, name: &str, script: &str) {
    let script = format!("#!/usr/bin/env python3\n{PRELUDE}\n{script}");
    install_as_is(directory, name, &script);
}

fn install_as_is(directory: &Path, name: &str, script: &str) {
    let path = directory.join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The endpoint in the table's line for a service.
fn endpoint_of(table: &[String], service: &str) -> String {
    let row = table
        .iter()
        .find(|line| line.split_whitespace().nth(1) == Some(service))
        .unwrap_or_else(|| panic!("no {service} in {table:?}"));
    row.split_whitespace().nth(2).unwrap().to_owned()
}

fn ask(endpoint: &str, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(endpoint.strip_prefix("tcp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// What every daemon here does: print a configuration, check what systemd would pass, tell the
/// supervisor. Its own part follows.
const PRELUDE: &str = r"
import os, signal, socket, sys
def config(*listeners):
    if sys.argv[1:] == ['--print-config']:
        print('grace = \x229s\x22')
        for service, name, listen in listeners:
            print('[[listener]]')
            print(f'service = \x22{service}\x22')
            if name: print(f'name = \x22{name}\x22')
            print('listen =', str(listen).replace(chr(39), chr(34)))
        sys.exit(0)
    [option, path] = sys.argv[1:]
    assert option == '--config', sys.argv
    assert 'admin' in open(path).read(), path
def passed(names):
    assert os.environ['LISTEN_PID'] == str(os.getpid()), 'LISTEN_PID'
    assert os.environ['LISTEN_FDNAMES'] == ':'.join(names), os.environ['LISTEN_FDNAMES']
    assert os.environ['LISTEN_FDS'] == str(len(names))
    assert 'WATCHDOG_USEC' not in os.environ
    assert os.getpgrp() == os.getpid(), 'process group'
    assert os.readlink('/proc/self/fd/0') == '/dev/null'
    sockets = [socket.socket(fileno=3 + n) for n in range(len(names))]
    for s in sockets: s.setblocking(True)
    return sockets
def notify(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])
def first_time(name):
    path = os.path.join(os.path.dirname(sys.argv[0]), name)
    try: os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError: return False
    return True
def log(*words): print(*words, file=sys.stderr, flush=True)
";

/// Echoes; on SIGTERM says so and ends.
const ECHO: &str = r"
config(('echo', None, ['tcp://127.0.0.1:0', 'tcp://127.0.0.1:0']), ('discard', 'drop', ['127.0.0.1:0']))
listeners = passed(['echo', 'echo', 'drop'])
assert all(s.type == socket.SOCK_STREAM for s in listeners)
def drain(*_):
    log('drained')
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
notify('READY=1\nSTATUS=serving 3 listeners')
print('a line on stdout', flush=True)
while True:
    c, _ = listeners[0].accept()
    while data := c.recv(4096): c.sendall(data)
";

const CTIME: &str = r"
config(('ctime', None, ['udp://127.0.0.1:0']))
[s] = passed(['ctime'])
assert s.type == socket.SOCK_DGRAM
notify('READY=1')
while True:
    _, peer = s.recvfrom(100)
    s.sendto(b'Fri Nov 20 11:41:40 2026', peer)
";

#[test]
fn daemons_get_their_sockets_as_from_systemd_and_drain_on_a_signal() {
    let yard = Yard::start(&[("echo-tcp", ECHO), ("time-udp", CTIME)]);
    let table = yard.table();
    assert_eq!(table.len(), 4, "{table:?}");
    let echo = endpoint_of(&table, "echo");
    assert_eq!(ask(&echo, b"hi"), b"hi");
    assert!(
        table[0].ends_with(&format!("portyard echo {echo}")),
        "{}",
        table[0]
    );
    assert_eq!(endpoint_of(&table, "drop").split(':').next(), Some("tcp"));
    let ctime = endpoint_of(&table, "ctime");
    let time = run(&["time", &ctime], b"").expect(0);
    assert_eq!(time.text(), "Fri Nov 20 11:41:40 2026\n");
    yard.signal(Signal::SIGTERM);
    let (code, log) = yard.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("echo-tcp  | drained"), "{log}");
    assert!(log.contains("echo-tcp  | a line on stdout"), "{log}");
    assert!(
        log.contains("echo-tcp  | status: serving 3 listeners"),
        "{log}"
    );
    assert!(log.contains("time-udp  | closed (SIGTERM)"), "{log}");
}

#[test]
fn the_yard_of_up_shows_every_daemon_on_its_page_at_once_and_steers_none() {
    let directory = tempfile::tempdir().unwrap();
    for daemon in ["echo-tcp", "time-udp", "kv-rpc", "rest-api", "fd-broker"] {
        // The real one, on whatever ports are free.
        let real = common::beside(daemon);
        let real = real.display();
        // rest-api asks before this one is there.
        let late = if daemon == "time-udp" {
            "sleep 0.7;"
        } else {
            ""
        };
        let script = format!(
            "#!/bin/sh\nif [ \"$*\" != --print-config ]; then {late} exec {real} \"$@\"; fi\n\
             {real} \"$@\" | sed -E 's/(127\\.0\\.0\\.1):[0-9]+/\\1:0/'\n"
        );
        install_as_is(directory.path(), daemon, &script);
    }
    let yard = Yard::start_in(directory);
    let table = yard.table();
    assert_eq!(table.len(), 30, "{table:?}");
    let page = until(&yard.stdout, "/yard");
    let page = page.split_whitespace().last().unwrap();
    let fetch = |path: &str| {
        let url = page.replace("/yard", path);
        let program =
            "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())";
        common::python(program, &[&url])
    };
    let told = || serde_json::from_str::<serde_json::Value>(&fetch("/api/v1/yard")).unwrap();
    eventually("all are known", || {
        let told = told();
        let daemons = told["daemons"].as_array().unwrap();
        daemons.iter().all(|daemon| daemon["state"] == "ready")
    });
    let told = told();
    let daemons = told["daemons"].as_array().unwrap();
    let all: Vec<_> = daemons.iter().map(|daemon| &daemon["program"]).collect();
    assert_eq!(
        all,
        ["echo-tcp", "time-udp", "kv-rpc", "rest-api", "fd-broker"]
    );
    assert_eq!(told["steering"]["enabled"], false);
    let keys: Vec<_> = daemons.iter().map(|daemon| &daemon["keys"]).collect();
    assert_eq!(keys, [false, false, true, false, false]);
    for (daemon, change) in daemons.iter().zip(0..) {
        assert_eq!(daemon["actions"], serde_json::json!([]));
        // Daemons that start beside it have not been missed.
        assert_eq!(told["changes"][change]["from"], "unknown", "{told}");
    }
    let metrics = fetch("/metrics");
    assert_eq!(metrics.matches("portyard_yard_up{").count(), 5);
    assert!(!metrics.contains("\"} 0\nportyard_yard_up"), "{metrics}");
    assert!(fetch("/yard").contains("<h1>The yard</h1>"));
    assert!(fetch("/api/v1/yard/kv-rpc/keys").contains("\"keys\": []"));
    let endpoint = endpoint_of(&table, "yard");
    assert_eq!(
        run(&["yard", &endpoint], b"")
            .expect(0)
            .text()
            .lines()
            .count(),
        6
    );

    // One that has crashed is found again where it was.
    let pid = daemons[0]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    until(&yard.stderr, "ready again");
    eventually("it is back", || {
        let echo: serde_json::Value =
            serde_json::from_str(&fetch("/api/v1/yard/echo-tcp")).unwrap();
        echo["state"] == "ready" && echo["pid"] != pid
    });
    yard.signal(Signal::SIGTERM);
    assert_eq!(yard.end().0, Some(0));
}

#[test]
fn a_configuration_that_was_tidied_away_is_there_again_at_the_next_start() {
    let script = ECHO.replace(
        "while True:\n    c, _",
        "if first_time('tidied'):\n    os.unlink(sys.argv[2])\n    os.abort()\nwhile True:\n    c, _",
    );
    let yard = Yard::start(&[("echo-tcp", &script)]);
    until(&yard.stderr, "ready again");
    yard.signal(Signal::SIGTERM);
    assert_eq!(yard.end().0, Some(0));
}

#[test]
fn a_line_of_the_table_can_be_typed() {
    let yard = Yard::start(&[("time-udp", CTIME)]);
    let table = yard.table();
    let command = &table[0][table[0].find("python3").unwrap()..];
    let typed =
        common::finish(std::process::Command::new("sh").args(["-c", command]), b"").expect(0);
    assert_eq!(typed.text(), "b'Fri Nov 20 11:41:40 2026'\n");
    yard.signal(Signal::SIGINT);
    assert_eq!(yard.end().0, Some(0));
}

#[test]
fn a_crashed_daemon_comes_back_and_clients_wait_instead_of_being_refused() {
    let script = ECHO.replace(
        "while True:\n    c, _",
        "if first_time('crashed'):\n    log('crashing')\n    os.abort()\nwhile True:\n    c, _",
    );
    let yard = Yard::start(&[("echo-tcp", &script)]);
    let table = yard.table();
    until(&yard.stderr, "starting again in 100ms");
    // The listener is open all the time, so this waits for the second process.
    assert_eq!(
        ask(&endpoint_of(&table, "echo"), b"still there"),
        b"still there"
    );
    let log = until(&yard.stderr, "ready again");
    assert!(!log.contains("Traceback"), "{log}");
    yard.signal(Signal::SIGTERM);
    assert_eq!(yard.end().0, Some(0));
}

#[test]
fn a_daemon_that_refuses_its_configuration_closes_the_yard_with_its_code() {
    let refuse = "config()\nlog('line 3: unknown key: colour')\nsys.exit(78)";
    let yard = Yard::start(&[("echo-tcp", ECHO), ("kv-rpc", refuse)]);
    let (code, log) = yard.end();
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains("kv-rpc refuses its configuration (exit 78): line 3: unknown key: colour"),
        "{log}"
    );
    assert!(log.contains("echo-tcp  | closed"), "{log}");
}

#[test]
fn a_daemon_that_never_becomes_ready_is_given_up_after_five_tries() {
    let yard = Yard::start(&[("rest-api", "config()\nlog('no luck')\nsys.exit(3)")]);
    let (code, log) = yard.end();
    assert_eq!(code, Some(70), "{log}");
    assert_eq!(
        log.matches("no luck").count(),
        6,
        "five lines and the last message: {log}"
    );
    assert!(log.contains("starting again in 800ms"), "{log}");
    assert!(log.contains("five times"), "{log}");
}

#[test]
fn a_second_signal_kills_a_daemon_that_does_not_drain() {
    // Blocked and waited for: a handler would not run if the signal came just before it pauses.
    let stubborn = "config()\nwanted = {signal.SIGTERM}\nsignal.pthread_sigmask(signal.SIG_BLOCK, wanted)\n\
                    notify('READY=1')\nwhile signal.sigwait(wanted): log('not yet')";
    let yard = Yard::start(&[("fd-broker", stubborn)]);
    until(&yard.stdout, "DAEMON");
    yard.signal(Signal::SIGINT);
    until(&yard.stderr, "not yet");
    yard.signal(Signal::SIGINT);
    let (code, log) = yard.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("closed (SIGKILL)"), "{log}");
}

#[test]
fn a_taken_port_is_69_before_any_daemon_starts() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let second = CTIME.replace(
        "['udp://127.0.0.1:0']",
        &format!("['tcp://127.0.0.1:{port}']"),
    );
    let yard = Yard::start(&[
        ("echo-tcp", "config()\nfirst_time('started')"),
        ("time-udp", &second),
    ]);
    until(&yard.stderr, &format!("tcp://127.0.0.1:{port}"));
    assert!(!yard.directory.path().join("started").exists());
    let (code, _) = yard.end();
    assert_eq!(code, Some(69));
}

#[test]
fn no_daemon_is_69_and_says_how_to_build_them() {
    let empty = tempfile::tempdir().unwrap();
    let directory = empty.path().to_str().unwrap();
    for arguments in [
        &["up", "--bin-dir", directory][..],
        &["up", "--bin-dir", directory, "--only", "echo-tcp"],
    ] {
        let run = run(arguments, b"").expect(69);
        assert!(
            run.stderr.contains("cargo build --release"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn too_few_descriptors_are_told_before_anything_starts() {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 100; exec \"$@\"", "sh"]);
    command.arg(portyard().get_program()).arg("up");
    let said = common::finish(&mut command, b"").expect(71).stderr;
    assert!(
        said.contains("needs 128 at least") && said.contains("ulimit -n"),
        "{said}"
    );
}

#[test]
fn a_full_disk_is_told_with_what_needs_room() {
    let (bin, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    install(bin.path(), "echo-tcp", ECHO);
    // Directories are made on it, and files have no room.
    let script = format!(
        "mount -t tmpfs -o size=4k none {0} && echo full >{0}/f && exec env XDG_RUNTIME_DIR={0} \"$@\"",
        full.path().display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script, "sh"]);
    command
        .arg(portyard().get_program())
        .arg("up")
        .arg("--bin-dir")
        .arg(bin.path());
    let said = common::finish(&mut command, b"").expect(71).stderr;
    assert!(
        said.contains("No space left") && said.contains("XDG_RUNTIME_DIR"),
        "{said}"
    );
}

#[test]
fn daemons_do_not_outlive_a_yard_that_is_killed() {
    let yard = Yard::start(&[("time-udp", CTIME)]);
    let ctime = endpoint_of(&yard.table(), "ctime");
    yard.signal(Signal::SIGKILL);
    let address = ctime.strip_prefix("udp://").unwrap();
    // The port is free again as soon as the daemon has ended.
    let free = (0..1000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        UdpSocket::bind(address).is_ok()
    });
    assert!(free);
}

#[test]
fn exec_activated_becomes_the_program_with_its_own_process_id() {
    let script = "echo $LISTEN_PID = $$; exit 7";
    let ran = run(&["exec-activated", "--", "sh", "-c", script], b"").expect(7);
    let (set, own) = ran.text().trim_end().split_once(" = ").unwrap();
    assert_eq!(set, own);
    let missing = run(&["exec-activated", "--", "/nonexistent/program"], b"").expect(69);
    assert!(missing.stderr.contains("/nonexistent/program"));
    run(&["exec-activated", "--parent", "1", "--", "true"], b"").expect(75);
}
