//! What somebody would try who has broken in.

use std::fs;
use std::path::Path;

use nix::libc;

use super::{Attempt, Intruder, threads};
use crate::Daemon;

/// Tries what somebody would who has broken in: each must be denied, whoever runs the daemon.
/// `outside` is a directory that the daemon has nothing to do with.
pub fn intrude(daemon: &Daemon, outside: &Path) -> Vec<Attempt> {
    let secret = outside.join("secret");
    fs::write(&secret, "of somebody else").expect("a test's directory can be written to");
    // The last thread that was started is one of those that serve; it waits between two requests.
    let thread = threads(daemon.pid()).into_iter().max();
    let mut intruder = Intruder::seize(thread.unwrap_or_else(|| daemon.pid()));
    let empty = intruder.bytes(&[0; 256]);
    let program = intruder.path("/bin/true");
    let arguments = intruder.bytes(&[program.to_ne_bytes(), [0; 8]].concat());
    let (secret, shadow) = (intruder.path(secret), intruder.path("/etc/shadow"));
    let new = intruder.path(outside.join("new"));
    let value = |argument: &Argument| match argument {
        N(value) => *value,
        Program => program,
        Arguments => arguments,
        Secret => secret,
        Shadow => shadow,
        New => new,
        Empty => empty,
        Page => empty & !4095,
        Us => u64::from(std::process::id()),
        Here => i64::from(libc::AT_FDCWD).cast_unsigned(),
    };
    let mut attempts: Vec<Attempt> = FORBIDDEN
        .iter()
        .map(|(what, number, arguments)| {
            let arguments: Vec<u64> = arguments.iter().map(value).collect();
            let outcome = intruder.call(*number, &arguments);
            Attempt { what, outcome }
        })
        .collect();
    attempts.push(intruder.connect());
    attempts
}

/// An argument of a call.
enum Argument {
    /// A number.
    N(u64),
    /// The path of a program.
    Program,
    /// The arguments of a program.
    Arguments,
    /// The path of a file that is none of the daemon's.
    Secret,
    /// The path of `/etc/shadow`.
    Shadow,
    /// A path where nothing is.
    New,
    /// The address of zeros.
    Empty,
    /// The address of a page.
    Page,
    /// The number of a process that is not the daemon.
    Us,
    /// The working directory.
    Here,
}
use Argument::{Arguments, Empty, Here, N, New, Page, Program, Secret, Shadow, Us};

/// What is tried: what it is, the call, its arguments.
const FORBIDDEN: &[(&str, libc::c_long, &[Argument])] = &[
    (
        "execve of /bin/true",
        libc::SYS_execve,
        &[Program, Arguments, Empty],
    ),
    (
        "execveat of /bin/true",
        libc::SYS_execveat,
        &[Here, Program, Arguments, Empty, N(0)],
    ),
    (
        "clone of a process",
        libc::SYS_clone,
        &[N(17), N(0), N(0), N(0), N(0)],
    ),
    (
        "openat of /etc/shadow",
        libc::SYS_openat,
        &[Here, Shadow, N(0)],
    ),
    (
        "openat of another's file",
        libc::SYS_openat,
        &[Here, Secret, N(0)],
    ),
    (
        "openat to write it",
        libc::SYS_openat,
        &[Here, Secret, N(1)],
    ),
    (
        "openat of a new file",
        libc::SYS_openat,
        &[Here, New, N(0o101), N(0o600)],
    ),
    (
        "mkdirat of a directory",
        libc::SYS_mkdirat,
        &[Here, New, N(0o700)],
    ),
    (
        "unlinkat of another's file",
        libc::SYS_unlinkat,
        &[Here, Secret, N(0)],
    ),
    (
        "fchmodat of another's file",
        libc::SYS_fchmodat,
        &[Here, Secret, N(0o777)],
    ),
    (
        "fchownat of another's file",
        libc::SYS_fchownat,
        &[Here, Secret, N(0), N(0), N(0)],
    ),
    ("symlinkat", libc::SYS_symlinkat, &[Secret, Here, New]),
    (
        "mknodat",
        libc::SYS_mknodat,
        &[Here, New, N(0o010_600), N(0)],
    ),
    (
        "mmap, writable and executable",
        libc::SYS_mmap,
        &[N(0), N(4096), N(7), N(0x22), N(NONE), N(0)],
    ),
    (
        "mmap of executable memory",
        libc::SYS_mmap,
        &[N(0), N(4096), N(5), N(0x22), N(NONE), N(0)],
    ),
    (
        "mprotect to executable",
        libc::SYS_mprotect,
        &[Page, N(4096), N(5)],
    ),
    (
        "ptrace of another process",
        libc::SYS_ptrace,
        &[N(16), Us, N(0), N(0)],
    ),
    (
        "process_vm_readv",
        libc::SYS_process_vm_readv,
        &[Us, Empty, N(1), Empty, N(1), N(0)],
    ),
    ("kill of another process", libc::SYS_kill, &[Us, N(18)]),
    (
        "tgkill of another process",
        libc::SYS_tgkill,
        &[Us, Us, N(18)],
    ),
    ("mount", libc::SYS_mount, &[New, New, Empty, N(0), N(0)]),
    ("umount2", libc::SYS_umount2, &[New, N(0)]),
    ("chroot", libc::SYS_chroot, &[Empty]),
    (
        "unshare of the user namespace",
        libc::SYS_unshare,
        &[N(0x1000_0000)],
    ),
    ("setns", libc::SYS_setns, &[N(NONE), N(0)]),
    ("bpf", libc::SYS_bpf, &[N(0), Empty, N(64)]),
    (
        "keyctl",
        libc::SYS_keyctl,
        &[N(0), N(NONE - 2), N(0), N(0), N(0)],
    ),
    (
        "perf_event_open",
        libc::SYS_perf_event_open,
        &[Empty, N(0), N(NONE), N(NONE), N(0)],
    ),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[N(8), Empty]),
    ("userfaultfd", libc::SYS_userfaultfd, &[N(1)]),
    ("personality", libc::SYS_personality, &[N(0xffff_ffff)]),
    (
        "kexec_load",
        libc::SYS_kexec_load,
        &[N(0), N(0), Empty, N(0)],
    ),
    ("init_module", libc::SYS_init_module, &[Empty, N(0), Empty]),
    (
        "finit_module",
        libc::SYS_finit_module,
        &[N(NONE), Empty, N(0)],
    ),
    ("reboot", libc::SYS_reboot, &[N(0), N(0), N(0), N(0)]),
    ("sethostname", libc::SYS_sethostname, &[Empty, N(NONE)]),
    (
        "socket of AF_PACKET",
        libc::SYS_socket,
        &[N(17), N(3), N(0)],
    ),
    ("socket of SOCK_RAW", libc::SYS_socket, &[N(2), N(3), N(1)]),
    ("socket of MPTCP", libc::SYS_socket, &[N(2), N(1), N(262)]),
    (
        "socket of NETLINK_AUDIT",
        libc::SYS_socket,
        &[N(16), N(3), N(9)],
    ),
    ("socket of AF_VSOCK", libc::SYS_socket, &[N(40), N(1), N(0)]),
    ("setuid", libc::SYS_setuid, &[N(0)]),
    ("setresgid", libc::SYS_setresgid, &[N(0), N(0), N(0)]),
    ("capset", libc::SYS_capset, &[Empty, Empty]),
    (
        "prlimit64 of our own limits",
        libc::SYS_prlimit64,
        &[N(0), N(7), Empty, N(0)],
    ),
    (
        "prctl to become dumpable",
        libc::SYS_prctl,
        &[N(4), N(1), N(0), N(0), N(0)],
    ),
    (
        "ioctl to type at a terminal",
        libc::SYS_ioctl,
        &[N(0), N(0x5412), Empty],
    ),
    ("seccomp", libc::SYS_seccomp, &[N(1), N(0), Empty]),
    ("a call that nobody knows", 9_999, &[]),
];
const NONE: u64 = u64::MAX;
