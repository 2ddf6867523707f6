//! Runs the real binary, and finds Python.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod pki;
pub mod store;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a finished run left behind.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Fails with everything there is to see unless the exit code is this.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{:?}\n{}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }
}

/// The binary under test.
pub fn portyard() -> Command {
    Command::new(env!("CARGO_BIN_EXE_portyard"))
}

/// Another program of the workspace, which lies beside ours.
#[track_caller]
pub fn beside(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_portyard")).with_file_name(name);
    assert!(
        path.is_file(),
        "{} is missing: run scripts/test, or cargo build -p {name}",
        path.display()
    );
    path
}

/// Runs the binary with arguments and an input, to its end.
pub fn run(arguments: &[&str], input: &[u8]) -> Run {
    finish(portyard().args(arguments), input)
}

/// Runs a command with an input, to its end; a hanging one fails the test.
pub fn finish(command: &mut Command, input: &[u8]) -> Run {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may end before it has read everything.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = read(child.stdout.take().unwrap());
    let stderr = read(child.stderr.take().unwrap());
    let code = wait(&mut child);
    writer.join().unwrap();
    Run {
        code,
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8(stderr.join().unwrap()).unwrap(),
    }
}

fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Waits for a child, at most [`PATIENCE`].
pub fn wait(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a Python program and returns what it prints. Python must be there.
pub fn python(program: &str, arguments: &[&str]) -> String {
    let run = finish(
        Command::new("python3")
            .arg("-c")
            .arg(program)
            .args(arguments),
        b"",
    );
    run.expect(0).text().to_owned()
}

pub const PATIENCE: Duration = Duration::from_secs(60);
