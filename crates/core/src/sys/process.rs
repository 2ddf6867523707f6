//! This process: what it was started with, and its memory.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Gives the kernel back what this thread has freed and not used again. The allocator does so by itself
/// only while more is freed. Takes up to a millisecond.
pub fn give_memory_back() {
    // SAFETY: it takes no pointer, and may be called at any time on any thread.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Takes ownership of a descriptor that this process was started with, and marks it close-on-exec.
///
/// Each number can be adopted once in the life of the process; a second try, or a number that is
/// not open, is an error.
pub fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    static ADOPTED: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let mut adopted = ADOPTED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if number < 0 || adopted.contains(&number) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the borrow lives for this call only, and fcntl on a closed number is just EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    adopted.push(number);
    // SAFETY: fcntl has just shown that the number is open, and the list above that nobody in this
    // process took it before; our starter left it to us, so we are its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Removes variables from the environment, so that no child believes they are meant for it.
///
/// To be called from `main` before any thread is started.
pub fn forget_variables(names: &[&str]) {
    for name in names {
        // SAFETY: the caller is still single-threaded (see the contract), so nobody reads the
        // environment at the same time.
        unsafe { std::env::remove_var(name) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        assert!(adopt(-1).is_err());
        assert!(adopt(60_000).is_err());
    }
}
