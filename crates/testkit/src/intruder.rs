//! Somebody who has broken into a daemon: makes system calls on one of its threads, as code of his
//! own there would, and sees what the kernel says.
//!
//! This is ptrace(2) on the very program that is shipped: nothing in it knows of tests.

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

use crate::Daemon;
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
    /// Takes a thread, which must be waiting in a system call.
    #[track_caller]
    pub fn seize(thread: u32) -> Self {
        let thread = Pid::from_raw(i32::try_from(thread).expect("a thread's number fits"));
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
        assert!(
            read.is_ok() && instruction == CALL,
            "thread {thread} is not waiting in a system call"
        );
        intruder
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

/// Tries what somebody would who has broken in: each must be denied, whoever runs the daemon.
/// `outside` is a directory that the daemon has nothing to do with.
pub fn intrude(daemon: &Daemon, outside: &Path) -> Vec<Attempt> {
    let us = u64::from(std::process::id());
    let secret = outside.join("secret");
    fs::write(&secret, "of somebody else").expect("a test's directory can be written to");
    // The last thread that was started is one of those that serve; it waits between two requests.
    let thread = threads(daemon.pid()).into_iter().max();
    let mut intruder = Intruder::seize(thread.unwrap_or_else(|| daemon.pid()));
    let (program, secret) = (intruder.path("/bin/true"), intruder.path(secret));
    let shadow = intruder.path("/etc/shadow");
    let new = intruder.path(outside.join("new"));
    let empty = intruder.bytes(&[0; 256]);
    let arguments = intruder.bytes(&[program.to_ne_bytes(), [0; 8]].concat());
    let port_9 = intruder.bytes(
        &[
            &2_u16.to_ne_bytes()[..],
            &9_u16.to_be_bytes(),
            &[127, 0, 0, 1],
            &[0; 8],
        ]
        .concat(),
    );
    let here = i64::from(libc::AT_FDCWD).cast_unsigned();
    let (read_write, execute) = (3, 4);
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let none = u64::MAX;
    let mut attempts = Vec::new();
    {
        let mut attempt = |what, number, arguments: &[u64]| {
            let outcome = intruder.call(number, arguments);
            attempts.push(Attempt { what, outcome });
        };
        attempt(
            "execve of /bin/true",
            libc::SYS_execve,
            &[program, arguments, empty],
        );
        attempt(
            "execveat of /bin/true",
            libc::SYS_execveat,
            &[here, program, arguments, empty, 0],
        );
        attempt(
            "clone of a process",
            libc::SYS_clone,
            &[libc::SIGCHLD as u64, 0, 0, 0, 0],
        );
        attempt(
            "openat of /etc/shadow",
            libc::SYS_openat,
            &[here, shadow, 0],
        );
        attempt(
            "openat of another's file",
            libc::SYS_openat,
            &[here, secret, 0],
        );
        attempt("openat to write it", libc::SYS_openat, &[here, secret, 1]);
        attempt(
            "openat of a new file",
            libc::SYS_openat,
            &[here, new, 0o101, 0o600],
        );
        attempt(
            "mkdirat of a directory",
            libc::SYS_mkdirat,
            &[here, new, 0o700],
        );
        attempt(
            "unlinkat of another's file",
            libc::SYS_unlinkat,
            &[here, secret, 0],
        );
        attempt(
            "fchmodat of another's file",
            libc::SYS_fchmodat,
            &[here, secret, 0o777],
        );
        attempt(
            "fchownat of another's file",
            libc::SYS_fchownat,
            &[here, secret, 0, 0, 0],
        );
        attempt("symlinkat", libc::SYS_symlinkat, &[secret, here, new]);
        attempt("mknodat", libc::SYS_mknodat, &[here, new, 0o010_600, 0]);
        attempt(
            "mmap, writable and executable",
            libc::SYS_mmap,
            &[0, 4096, read_write | execute, anonymous, none, 0],
        );
        attempt(
            "mmap of executable memory",
            libc::SYS_mmap,
            &[0, 4096, 1 | execute, anonymous, none, 0],
        );
        attempt(
            "mprotect to executable",
            libc::SYS_mprotect,
            &[empty & !4095, 4096, 1 | execute],
        );
        attempt(
            "ptrace of another process",
            libc::SYS_ptrace,
            &[16, us, 0, 0],
        );
        attempt(
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            &[us, empty, 1, empty, 1, 0],
        );
        attempt(
            "kill of another process",
            libc::SYS_kill,
            &[us, libc::SIGCONT as u64],
        );
        attempt(
            "tgkill of another process",
            libc::SYS_tgkill,
            &[us, us, libc::SIGCONT as u64],
        );
        attempt("mount", libc::SYS_mount, &[new, new, empty, 0, 0]);
        attempt("umount2", libc::SYS_umount2, &[new, 0]);
        attempt("chroot", libc::SYS_chroot, &[empty]);
        attempt(
            "unshare of the user namespace",
            libc::SYS_unshare,
            &[0x1000_0000],
        );
        attempt("setns", libc::SYS_setns, &[none, 0]);
        attempt("bpf", libc::SYS_bpf, &[0, empty, 64]);
        attempt("keyctl", libc::SYS_keyctl, &[0, none - 2, 0, 0, 0]);
        attempt(
            "perf_event_open",
            libc::SYS_perf_event_open,
            &[empty, 0, none, none, 0],
        );
        attempt("io_uring_setup", libc::SYS_io_uring_setup, &[8, empty]);
        attempt("userfaultfd", libc::SYS_userfaultfd, &[1]);
        attempt("personality", libc::SYS_personality, &[0xffff_ffff]);
        attempt("kexec_load", libc::SYS_kexec_load, &[0, 0, empty, 0]);
        attempt("init_module", libc::SYS_init_module, &[empty, 0, empty]);
        attempt("finit_module", libc::SYS_finit_module, &[none, empty, 0]);
        attempt("reboot", libc::SYS_reboot, &[0, 0, 0, 0]);
        attempt("sethostname", libc::SYS_sethostname, &[empty, none]);
        attempt("socket of AF_PACKET", libc::SYS_socket, &[17, 3, 0]);
        attempt("socket of SOCK_RAW", libc::SYS_socket, &[2, 3, 1]);
        attempt("socket of MPTCP", libc::SYS_socket, &[2, 1, 262]);
        attempt("socket of NETLINK_AUDIT", libc::SYS_socket, &[16, 3, 9]);
        attempt("socket of AF_VSOCK", libc::SYS_socket, &[40, 1, 0]);
        attempt("setuid", libc::SYS_setuid, &[0]);
        attempt("setresgid", libc::SYS_setresgid, &[0, 0, 0]);
        attempt("capset", libc::SYS_capset, &[empty, empty]);
        attempt(
            "prlimit64 of our own limits",
            libc::SYS_prlimit64,
            &[0, 7, empty, 0],
        );
        attempt(
            "prctl to become dumpable",
            libc::SYS_prctl,
            &[4, 1, 0, 0, 0],
        );
        attempt(
            "ioctl to type at a terminal",
            libc::SYS_ioctl,
            &[0, 0x5412, empty],
        );
        attempt("seccomp", libc::SYS_seccomp, &[1, 0, empty]);
        attempt("a call that nobody knows", 9_999, &[]);
    }
    let socket = intruder.call(libc::SYS_socket, &[2, 1, 0]);
    let Outcome::Returned(socket) = socket else {
        panic!("no socket can be made: {socket:?}");
    };
    let socket = socket.cast_unsigned();
    let outcome = intruder.call(libc::SYS_connect, &[socket, port_9, 16]);
    let what = "connect to TCP port 9";
    attempts.push(Attempt { what, outcome });
    intruder.call(libc::SYS_close, &[socket]);
    attempts
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
            Self::Failed(errno) => write!(f, "failed with {errno:?}"),
            Self::Trapped => f.write_str("denied by seccomp (EPERM), counted"),
        }
    }
}

/// More instructions than a handler has, even one that nobody has optimized.
const HANDLER_STEPS: u32 = 1_000_000;
/// A stack's red zone, and more.
const BELOW: u64 = 1024;

#[cfg(target_arch = "x86_64")]
const CALL: [u8; 2] = [0x0f, 0x05];

#[cfg(target_arch = "x86_64")]
fn set_call(
    registers: &mut libc::user_regs_struct,
    at: u64,
    number: libc::c_long,
    arguments: &[u64],
) {
    let argument = |position: usize| arguments.get(position).copied().unwrap_or(0);
    registers.rip = at;
    registers.rax = number.cast_unsigned();
    // No call is interrupted any more, so none is to be restarted.
    registers.orig_rax = u64::MAX;
    registers.rdi = argument(0);
    registers.rsi = argument(1);
    registers.rdx = argument(2);
    registers.r10 = argument(3);
    registers.r8 = argument(4);
    registers.r9 = argument(5);
}

#[cfg(target_arch = "x86_64")]
fn result(registers: &libc::user_regs_struct) -> i64 {
    registers.rax.cast_signed()
}

#[cfg(target_arch = "x86_64")]
fn program_counter(registers: &libc::user_regs_struct) -> u64 {
    registers.rip
}

#[cfg(target_arch = "x86_64")]
fn stack(registers: &libc::user_regs_struct) -> u64 {
    registers.rsp
}

#[cfg(target_arch = "aarch64")]
const CALL: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];

#[cfg(target_arch = "aarch64")]
fn set_call(
    registers: &mut libc::user_regs_struct,
    at: u64,
    number: libc::c_long,
    arguments: &[u64],
) {
    registers.pc = at;
    registers.regs[8] = number.cast_unsigned();
    for (position, register) in registers.regs.iter_mut().take(6).enumerate() {
        *register = arguments.get(position).copied().unwrap_or(0);
    }
}

#[cfg(target_arch = "aarch64")]
fn result(registers: &libc::user_regs_struct) -> i64 {
    registers.regs[0].cast_signed()
}

#[cfg(target_arch = "aarch64")]
fn program_counter(registers: &libc::user_regs_struct) -> u64 {
    registers.pc
}

#[cfg(target_arch = "aarch64")]
fn stack(registers: &libc::user_regs_struct) -> u64 {
    registers.sp
}
