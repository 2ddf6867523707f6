//! Somebody who has broken into a daemon: makes system calls on one of its threads, as code of his
//! own there would, and sees what the kernel says.
//!
//! This is ptrace(2) on the very program that is shipped: nothing in it knows of tests.

mod forbidden;
mod registers;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

pub use forbidden::intrude;
use registers::{CALL, program_counter, result, set_call, stack};

use crate::process::eventually;

/// Has a thread in his hands, and lets it go on as if nothing had been when dropped.
pub struct Intruder {
    thread: Pid,
    /// What the thread was doing.
    before: libc::user_regs_struct,
    memory: fs::File,
    /// Bytes of texts written below its stack.
    written: u64,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this.
    Returned(i64),
    /// It failed.
    Failed(Errno),
    /// A filter answered it with a signal.
    Trapped,
}

/// A forbidden thing that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// What.
    pub what: &'static str,
    /// What became of it.
    pub outcome: Outcome,
}

impl Intruder {
    /// Takes a thread while it waits in a system call, as one does that serves nobody.
    #[track_caller]
    pub fn seize(thread: u32) -> Self {
        let thread = Pid::from_raw(i32::try_from(thread).expect("a thread's number fits"));
        let mut seized = None;
        eventually("the thread waits in a system call", || {
            seized = Self::try_seize(thread);
            seized.is_some()
        });
        seized.expect("it has been seized")
    }

    /// `None` when it was doing something else.
    #[track_caller]
    fn try_seize(thread: Pid) -> Option<Self> {
        ptrace::attach(thread).unwrap_or_else(|errno| {
            panic!("thread {thread} cannot be traced ({errno}); run the test as root or with ptrace_scope 1")
        });
        wait(thread);
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{thread}/mem"));
        let intruder = Self {
            thread,
            before: ptrace::getregs(thread).expect("a stopped thread has registers"),
            memory: memory.expect("the memory of a traced thread can be opened"),
            written: 0,
        };
        let mut instruction = [0; CALL.len()];
        let at = intruder.call_address();
        let read = intruder.memory.read_exact_at(&mut instruction, at);
        // Dropped, it lets the thread go.
        (read.is_ok() && instruction == CALL).then_some(intruder)
    }

    /// Puts bytes where the thread can read them, and says where.
    pub fn bytes(&mut self, bytes: &[u8]) -> u64 {
        self.written += (bytes.len() as u64).next_multiple_of(64);
        let at = stack(&self.before) - BELOW - self.written;
        let written = self.memory.write_all_at(bytes, at);
        written.expect("there is room below a stack");
        at
    }

    /// The same for a path.
    pub fn path(&mut self, path: impl AsRef<Path>) -> u64 {
        let path = path.as_ref().to_str().expect("tests use plain paths");
        self.bytes(format!("{path}\0").as_bytes())
    }

    /// Makes a call. A trap is kept from the thread, which does not count it then.
    pub fn call(&mut self, number: libc::c_long, arguments: &[u64]) -> Outcome {
        let outcome = self.begin(number, arguments);
        if outcome == Outcome::Trapped {
            // The stop of the step is still to come; nobody else may get it.
            ptrace::step(self.thread, None).expect("a stopped thread can step");
            wait(self.thread);
        }
        outcome
    }

    /// Makes a call, up to its return or to the trap.
    fn begin(&mut self, number: libc::c_long, arguments: &[u64]) -> Outcome {
        let mut registers = self.before;
        set_call(&mut registers, self.call_address(), number, arguments);
        ptrace::setregs(self.thread, registers).expect("registers can be set");
        loop {
            ptrace::step(self.thread, None).expect("a stopped thread can step");
            match wait(self.thread) {
                Signal::SIGTRAP => {}
                Signal::SIGSYS => return Outcome::Trapped,
                other => panic!("the thread got {other} in call {number}"),
            }
            let after = ptrace::getregs(self.thread).expect("a stopped thread has registers");
            // The first step behind a signal may stop before the call instead of behind it.
            if program_counter(&after) != self.call_address() {
                return outcome(result(&after));
            }
        }
    }

    /// Makes a call that is trapped, lets the daemon handle that as it does, and returns what its code
    /// would have seen.
    pub fn call_through(&mut self, number: libc::c_long, arguments: &[u64]) -> Outcome {
        assert_eq!(self.begin(number, arguments), Outcome::Trapped);
        let mut signal = Some(Signal::SIGSYS);
        for _ in 0..HANDLER_STEPS {
            ptrace::step(self.thread, signal.take()).expect("a stopped thread can step");
            wait(self.thread);
            let now = ptrace::getregs(self.thread).expect("a stopped thread has registers");
            if program_counter(&now) == program_counter(&self.before) {
                return outcome(result(&now));
            }
        }
        panic!("the handler does not return");
    }

    /// Tries to reach another service of this machine.
    fn connect(&mut self) -> Attempt {
        // AF_INET, port and address as the network has them (ip(7)).
        let mut address = [0; 16];
        address[..2].copy_from_slice(&2_u16.to_ne_bytes());
        address[2..4].copy_from_slice(&9_u16.to_be_bytes());
        address[4..8].copy_from_slice(&[127, 0, 0, 1]);
        let address = self.bytes(&address);
        let Outcome::Returned(socket) = self.call(libc::SYS_socket, &[2, 1, 0]) else {
            panic!("no socket can be made");
        };
        let socket = socket.cast_unsigned();
        let outcome = self.call(libc::SYS_connect, &[socket, address, 16]);
        self.call(libc::SYS_close, &[socket]);
        let what = "connect to TCP port 9";
        Attempt { what, outcome }
    }

    fn call_address(&self) -> u64 {
        program_counter(&self.before) - CALL.len() as u64
    }
}

impl Drop for Intruder {
    fn drop(&mut self) {
        let restored = ptrace::setregs(self.thread, self.before);
        let gone = ptrace::detach(self.thread, None);
        if !std::thread::panicking() {
            restored.and(gone).expect("a traced thread can be let go");
        }
    }
}

/// Prints the attempts as a table, and panics when one was not denied.
#[track_caller]
pub fn assert_denied(daemon: &str, attempts: &[Attempt]) {
    println!("{daemon}: {} forbidden things tried", attempts.len());
    for attempt in attempts {
        println!("  {:<32} {}", attempt.what, attempt.outcome);
    }
    let allowed: Vec<&Attempt> = attempts
        .iter()
        .filter(|attempt| !attempt.outcome.is_denial())
        .collect();
    assert!(allowed.is_empty(), "not denied: {allowed:#?}");
}

/// The numbers of a process's threads.
pub fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process has threads");
    let number = |task: fs::DirEntry| task.file_name().to_str()?.parse().ok();
    tasks.flatten().filter_map(number).collect()
}

/// The threads that are not confined: without the filters, or without the promise not to gain
/// privileges; each by its name.
pub fn unconfined(pid: u32) -> Vec<String> {
    let of = |thread: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).ok()?;
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().trim().to_owned()
        };
        let confined = value("Seccomp:") == "2" && value("NoNewPrivs:") == "1";
        (!confined).then(|| value("Name:"))
    };
    threads(pid).into_iter().filter_map(of).collect()
}

/// Waits for the thread to stop, and says why it did.
#[track_caller]
fn wait(thread: Pid) -> Signal {
    let mut why = None;
    eventually("the thread stops", || {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        match waitpid(thread, Some(flags)) {
            Ok(WaitStatus::Stopped(_, signal)) => why = Some(signal),
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            other => panic!("the daemon's thread has ended: {other:?}"),
        }
        why.is_some()
    });
    why.expect("it has been waited for")
}

fn outcome(result: i64) -> Outcome {
    match i32::try_from(result) {
        Ok(error @ -4095..=-1) => Outcome::Failed(Errno::from_raw(-error)),
        _ => Outcome::Returned(result),
    }
}

impl Outcome {
    /// Whether the sandbox has kept it from happening.
    pub fn is_denial(self) -> bool {
        matches!(
            self,
            Self::Trapped | Self::Failed(Errno::EACCES | Errno::EPERM | Errno::ENOSYS)
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned(value) => write!(f, "ALLOWED, returned {value}"),
            Self::Failed(Errno::EACCES) => f.write_str("denied by landlock (EACCES)"),
            Self::Failed(Errno::ENOSYS) => f.write_str("not there (ENOSYS)"),
            Self::Failed(Errno::EPERM) => f.write_str("denied (EPERM)"),
            Self::Failed(errno) => write!(f, "failed with {errno:?}"),
            Self::Trapped => f.write_str("denied by seccomp (EPERM), counted"),
        }
    }
}

/// More instructions than a handler has, even one that nobody has optimized.
const HANDLER_STEPS: u32 = 1_000_000;
/// A stack's red zone, and more.
const BELOW: u64 = 1024;
