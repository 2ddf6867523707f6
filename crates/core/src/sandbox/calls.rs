//! System calls by group: what a daemon makes, as measured by its tests under strace(1), with what
//! other versions of libc make in their place.
//!
//! Whatever is in no group that a daemon has does not exist for it: the call fails with `ENOSYS`, and
//! libc goes on with an older one. What an attacker would want fails with `EPERM`, is counted, and is
//! in [`DANGEROUS`].

/// A system call: its number on this processor.
pub type Number = libc::c_long;

macro_rules! calls {
    ($($name:ident)*; on x86_64: $($old:ident)*) => {
        &[
            $(libc::$name,)*
            $(#[cfg(target_arch = "x86_64")] libc::$old,)*
        ]
    };
}

macro_rules! named {
    ($($name:literal = $number:ident)*; on x86_64: $($old:literal = $old_number:ident)*) => {
        &[
            $(($name, libc::$number),)*
            $(#[cfg(target_arch = "x86_64")] ($old, libc::$old_number),)*
        ]
    };
}

/// Memory, threads, time, signals, sockets, and files read: what every daemon makes.
pub const COMMON: &[Number] = calls![
    // Memory and threads. Not clone3, whose flags no filter can see: libc then uses clone.
    SYS_brk SYS_clone SYS_exit SYS_exit_group SYS_futex SYS_futex_waitv SYS_getcpu
    SYS_gettid SYS_madvise SYS_membarrier SYS_mmap SYS_mprotect SYS_mremap SYS_munmap SYS_pkey_mprotect
    SYS_rseq SYS_sched_getaffinity SYS_sched_yield SYS_set_robust_list SYS_set_tid_address
    // Time.
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_gettimeofday SYS_nanosleep
    SYS_restart_syscall
    // Signals.
    SYS_kill SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn
    SYS_sigaltstack SYS_tgkill
    // Who and where we are.
    SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getpid SYS_getppid SYS_getrandom
    SYS_getrlimit SYS_getrusage SYS_getuid SYS_prctl
    SYS_prlimit64 SYS_sysinfo SYS_uname
    // Events.
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_ppoll SYS_pselect6
    // Sockets.
    SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_getpeername SYS_getsockname SYS_getsockopt
    SYS_listen SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto
    SYS_setsockopt SYS_shutdown SYS_socket SYS_socketpair
    // Descriptors.
    SYS_close SYS_close_range SYS_dup SYS_dup3 SYS_fcntl SYS_ioctl SYS_lseek SYS_pipe2 SYS_pread64
    SYS_pwrite64 SYS_read SYS_readv
    SYS_write SYS_writev
    // Files: landlock says which. Unlinked and made are those of Unix sockets.
    SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fchmod SYS_fstat SYS_fstatfs SYS_getcwd
    SYS_getdents64 SYS_mkdirat SYS_newfstatat SYS_openat SYS_openat2 SYS_readlinkat
    SYS_statfs SYS_statx SYS_umask SYS_unlinkat;
    on x86_64: SYS_access SYS_arch_prctl SYS_dup2 SYS_epoll_wait
    SYS_getdents SYS_lstat SYS_mkdir SYS_open SYS_pipe SYS_poll SYS_readlink SYS_select
    SYS_stat SYS_time SYS_unlink
];

/// Files made, written and put on the disk: kv-rpc's data, the arrays of array-sink.
pub const STORE: &[Number] = calls![
    SYS_copy_file_range SYS_fallocate SYS_fdatasync SYS_flock SYS_fsync SYS_ftruncate SYS_linkat
    SYS_msync SYS_renameat SYS_renameat2 SYS_sync_file_range;
    on x86_64: SYS_link SYS_rename
];

/// A file in memory that outlives the process: fd-broker's book of what it holds.
pub const MEMORY_FILE: &[Number] = calls![SYS_ftruncate SYS_memfd_create; on x86_64:];

/// Programs waited for and ended. They are started outside of the sandbox.
pub const PROGRAMS: &[Number] = calls![
    SYS_pidfd_open SYS_pidfd_send_signal SYS_wait4 SYS_waitid;
    on x86_64:
];

/// What nobody needs but who has broken in, with names for the log: denied, unless it is in a group of
/// the daemon. Nothing is here that libc calls while it blocks all signals (fork, vfork, tkill): the
/// signal of a denial would then end the process.
pub const DANGEROUS: &[(&str, Number)] = named![
    // Programs and other processes.
    "execve" = SYS_execve "execveat" = SYS_execveat "kcmp" = SYS_kcmp
    "pidfd_getfd" = SYS_pidfd_getfd "pidfd_send_signal" = SYS_pidfd_send_signal
    "process_madvise" = SYS_process_madvise "process_vm_readv" = SYS_process_vm_readv
    "process_vm_writev" = SYS_process_vm_writev "ptrace" = SYS_ptrace
    "rt_sigqueueinfo" = SYS_rt_sigqueueinfo "rt_tgsigqueueinfo" = SYS_rt_tgsigqueueinfo
    // File systems and namespaces.
    "chroot" = SYS_chroot "fsconfig" = SYS_fsconfig "fsmount" = SYS_fsmount "fsopen" = SYS_fsopen
    "fspick" = SYS_fspick "mount" = SYS_mount "mount_setattr" = SYS_mount_setattr
    "move_mount" = SYS_move_mount "open_by_handle_at" = SYS_open_by_handle_at
    "open_tree" = SYS_open_tree "pivot_root" = SYS_pivot_root "quotactl" = SYS_quotactl
    "setns" = SYS_setns "swapoff" = SYS_swapoff "swapon" = SYS_swapon "umount2" = SYS_umount2
    "unshare" = SYS_unshare
    // What landlock does not look at: modes, owners, devices, links.
    "fchmodat" = SYS_fchmodat "fchown" = SYS_fchown "fchownat" = SYS_fchownat
    "mknodat" = SYS_mknodat "setxattr" = SYS_setxattr "symlinkat" = SYS_symlinkat
    // The kernel's wide interfaces.
    "add_key" = SYS_add_key "bpf" = SYS_bpf "fanotify_init" = SYS_fanotify_init
    "io_uring_enter" = SYS_io_uring_enter "io_uring_register" = SYS_io_uring_register
    "io_uring_setup" = SYS_io_uring_setup "keyctl" = SYS_keyctl "memfd_create" = SYS_memfd_create
    "memfd_secret" = SYS_memfd_secret "perf_event_open" = SYS_perf_event_open
    "personality" = SYS_personality "request_key" = SYS_request_key "shmat" = SYS_shmat
    "syslog" = SYS_syslog "userfaultfd" = SYS_userfaultfd
    // The machine.
    "acct" = SYS_acct "adjtimex" = SYS_adjtimex "clock_adjtime" = SYS_clock_adjtime
    "clock_settime" = SYS_clock_settime "delete_module" = SYS_delete_module
    "finit_module" = SYS_finit_module "init_module" = SYS_init_module
    "kexec_load" = SYS_kexec_load "reboot" = SYS_reboot "setdomainname" = SYS_setdomainname
    "sethostname" = SYS_sethostname "settimeofday" = SYS_settimeofday "vhangup" = SYS_vhangup
    // Who we are.
    "capset" = SYS_capset "setfsgid" = SYS_setfsgid "setfsuid" = SYS_setfsuid "setgid" = SYS_setgid
    "setgroups" = SYS_setgroups "setregid" = SYS_setregid "setresgid" = SYS_setresgid
    "setresuid" = SYS_setresuid "setreuid" = SYS_setreuid "setrlimit" = SYS_setrlimit
    "setuid" = SYS_setuid;
    on x86_64: "chmod" = SYS_chmod "chown" = SYS_chown "ioperm" = SYS_ioperm
    "iopl" = SYS_iopl "kexec_file_load" = SYS_kexec_file_load "lchown" = SYS_lchown
    "mknod" = SYS_mknod "modify_ldt" = SYS_modify_ldt "symlink" = SYS_symlink
];

/// Calls that are denied with some of their arguments alone, with names for the log.
pub const DEPENDING: &[(&str, Number)] = named![
    "ioctl" = SYS_ioctl "kill" = SYS_kill "mmap" = SYS_mmap
    "mprotect" = SYS_mprotect "pkey_mprotect" = SYS_pkey_mprotect "prctl" = SYS_prctl
    "prlimit64" = SYS_prlimit64 "socket" = SYS_socket "tgkill" = SYS_tgkill;
    on x86_64:
];
