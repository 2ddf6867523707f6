//! System calls that a seccomp filter denies, and what they return.

use std::io;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Has every system call that a seccomp filter answers with a signal (`SECCOMP_RET_TRAP`) return the
/// error that `answer` gives for its number, in all threads.
///
/// `answer` runs in a signal handler, on any thread and at any time: it must take no lock, allocate
/// nothing and not panic.
pub fn answer_denied_calls(answer: fn(libc::c_long) -> i32) -> io::Result<()> {
    // The first one stays: a handler that is running may use it.
    let _ = DENIED_ANSWER.set(answer);
    let action = SigAction::new(
        SigHandler::SigAction(on_denied_call),
        SaFlags::SA_ONSTACK | SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler does what one may do at any time: it reads a value that is set once, calls
    // what keeps to the contract above, and writes to the registers that the kernel has saved for it.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

static DENIED_ANSWER: OnceLock<fn(libc::c_long) -> i32> = OnceLock::new();

extern "C" fn on_denied_call(
    _: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    /// siginfo.h: a seccomp filter has sent it, and nobody else.
    const SYS_SECCOMP: libc::c_int = 1;
    let errno = Errno::last_raw();
    // SAFETY: the kernel passes both pointers (SA_SIGINFO), to structures that live until the handler
    // returns, and nobody else has them.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    if info.si_code == SYS_SECCOMP
        && let Some(answer) = DENIED_ANSWER.get()
    {
        // The kernel rolls the call back, so that its number is where it was, and takes its result
        // from where results are.
        #[cfg(target_arch = "x86_64")]
        {
            let result = &mut context.uc_mcontext.gregs[libc::REG_RAX as usize];
            *result = -libc::c_longlong::from(answer(*result));
        }
        #[cfg(target_arch = "aarch64")]
        {
            let registers = &mut context.uc_mcontext.regs;
            let number = registers[8].cast_signed();
            registers[0] = (-i64::from(answer(number))).cast_unsigned();
        }
    }
    Errno::set_raw(errno);
}
