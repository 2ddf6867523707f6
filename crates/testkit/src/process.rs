//! Processes: running one to its end, and what `/proc` tells of one that runs.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All it wrote to standard error.
    pub stderr: String,
    /// All it wrote to standard output.
    pub stdout: String,
}

impl Finished {
    /// The standard output of a process that ended with 0; panics otherwise.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "it failed:\n{}{}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// Runs a command with `input` on its standard input to its end, which must come within a minute.
#[track_caller]
pub fn finish(command: &mut Command, input: &[u8]) -> Finished {
    finish_within(command, input, FINISH_WAIT)
}

/// As [`finish`], for a command that may take so long.
#[track_caller]
pub fn finish_within(command: &mut Command, input: &[u8], wait: Duration) -> Finished {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let stdout = Collector::start(child.stdout.take());
    let stderr = Collector::start(child.stderr.take());
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let input = input.to_vec();
    // Apart, so that a process that answers before it has read all does not hold us. One that does
    // not read to the end has its reasons.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child of ours can be waited for") {
            Some(status) => break status,
            None if start.elapsed() < wait => thread::sleep(POLL),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                let (out, err) = (stdout.text(), stderr.text());
                panic!("{command:?} does not end; so far:\n{out}{err}");
            }
        }
    };
    let finished = Finished {
        code: status.code(),
        stderr: stderr.end(),
        stdout: stdout.end(),
    };
    let _ = feeder.join();
    finished
}

/// Waits until `check` says yes; after 20 seconds without, panics with `what`.
#[track_caller]
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < EVENTUALLY, "this did not happen: {what}");
        thread::sleep(POLL);
    }
}

/// The processor time of a process so far, in user and kernel mode.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = read(pid, "stat");
    // The program's name stands in parentheses and may hold anything; numbers follow the last one.
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = numbers
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(number)
        .sum();
    let a_second = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .expect("the system has a clock tick");
    ticks / a_second as f64
}

/// The resident memory of a process.
pub fn rss_bytes(pid: u32) -> u64 {
    memory(pid, "Rss:")
}

/// The resident memory of a process, with its share of what it has in common with others.
pub fn pss_bytes(pid: u32) -> u64 {
    memory(pid, "Pss:")
}

/// The memory of a process that is backed by no file: what it has allocated and touched. The pages of
/// its program, which the kernel maps sixteen at a time, are not in it.
pub fn anonymous_bytes(pid: u32) -> u64 {
    memory(pid, "Anonymous:")
}

/// The descriptors a process has open.
pub fn open_fds(pid: u32) -> usize {
    let path = format!("/proc/{pid}/fd");
    fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("{path}: {error}"))
        .count()
}

/// The threads of a process.
pub fn threads(pid: u32) -> usize {
    let status = read(pid, "status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"));
    let line = line.unwrap_or_else(|| panic!("process {pid} has no thread count:\n{status}"));
    line.trim().parse().expect("a thread count is a number")
}

/// Raises our own descriptor limit to the hard one, and says how many we may have.
pub fn raise_descriptor_limit() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the descriptor limit can be read");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the soft limit can be raised");
    hard
}

/// Collects what a stream says, in a thread of its own, so that the writer never waits.
pub(crate) struct Collector {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Collector {
    pub fn start(stream: Option<impl Read + Send + 'static>) -> Self {
        let mut stream = stream.expect("the stream is piped");
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = text.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let mut text = shared.lock().unwrap_or_else(PoisonError::into_inner);
                text.extend_from_slice(&buffer[..length]);
            }
        });
        Self { text, reader }
    }

    /// What has come so far.
    pub fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All of it, when the writer has ended.
    pub fn end(&self) -> String {
        // A grandchild may hold the stream open for good; then what has come must do.
        let start = Instant::now();
        while !self.reader.is_finished() && start.elapsed() < COLLECT_WAIT {
            thread::sleep(POLL);
        }
        self.text()
    }
}

fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn memory(pid: u32, key: &str) -> u64 {
    let rollup = read(pid, "smaps_rollup");
    let line = rollup.lines().find_map(|line| line.strip_prefix(key));
    let line = line.unwrap_or_else(|| panic!("process {pid} has no {key}\n{rollup}"));
    let kibibytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a size is a number");
    kibibytes * 1024
}

fn number(text: &str) -> f64 {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) const POLL: Duration = Duration::from_millis(5);
const EVENTUALLY: Duration = Duration::from_secs(20);
const FINISH_WAIT: Duration = Duration::from_secs(60);
const COLLECT_WAIT: Duration = Duration::from_secs(5);
