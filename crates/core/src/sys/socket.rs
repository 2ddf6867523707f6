//! Sockets: options that no safe wrapper sets, their queues, and their places in a loop.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

use super::length_of;

/// Sets `TCP_DEFER_ACCEPT` (tcp(7)): the listener wakes up when data arrives, at the latest after
/// about `wait`, which is rounded up to whole seconds.
pub fn set_defer_accept(socket: &socket2::Socket, wait: Duration) -> io::Result<()> {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let seconds = libc::c_int::try_from(seconds).unwrap_or(libc::c_int::MAX);
    // SAFETY: the value points to a live c_int and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length_of::<libc::c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets `SO_PASSRIGHTS`: whether a Unix socket may be sent descriptors. An error before Linux 6.16.
pub fn set_pass_rights(socket: BorrowedFd<'_>, pass: bool) -> io::Result<()> {
    // asm-generic/socket.h; another number on PA-RISC and SPARC, where this one is none.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let value = libc::c_int::from(pass);
    // SAFETY: the value points to a live c_int and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const value).cast(),
            length_of::<libc::c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads a socket option as bytes into `value`, and returns how many of them the kernel filled in.
/// Not for options whose value is a descriptor: nobody would own that.
pub fn read_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the value points to that many bytes of ours, of which the kernel writes no more, and it
    // keeps neither pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok((length as usize).min(value.len())),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that wait to be read from a socket (`SIOCINQ`, tcp(7)).
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue_length(socket, libc::FIONREAD)
}

/// Bytes that were sent and are still in the socket's queue (`SIOCOUTQ`): of TCP, those that the peer
/// has not acknowledged; of a Unix socket, what the memory of unread messages counts.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue_length(socket, libc::TIOCOUTQ)
}

fn queue_length(socket: BorrowedFd<'_>, queue: libc::Ioctl) -> io::Result<usize> {
    let mut length: libc::c_int = 0;
    // SAFETY: both of the callers' requests write one c_int, to which the pointer leads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), queue, &raw mut length) };
    match result {
        0 => Ok(usize::try_from(length).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a socket receive only what `program` accepts (`SO_ATTACH_FILTER`, socket(7)); the kernel
/// checks the program. It replaces the one before.
pub fn set_filter(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the value points to a live sock_fprog, which holds the true length of a program that
    // outlives the call; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            length_of::<libc::sock_fprog>(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Registers a non-blocking socket with the current loop, to be told of arrivals. Dropping the
/// registration ends it; the socket stays open for its other owners.
pub fn register(socket: Rc<socket2::Socket>) -> io::Result<AsyncFd<Rc<socket2::Socket>>> {
    // SAFETY: a Socket owns its descriptor, gives the same one for every as_fd, and closes it only
    // when its last owner is gone, which AsyncFd is until it has deregistered the descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

/// The same for any descriptor that can be waited for, with one owner.
pub fn register_descriptor(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above, and AsyncFd is the only owner.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// The same for a socket with one owner, which gets it back by [`AsyncFd::into_inner`], or with the error.
pub fn register_owned(
    socket: socket2::Socket,
) -> Result<AsyncFd<socket2::Socket>, (socket2::Socket, io::Error)> {
    register_for(socket, Interest::READABLE)
}

/// The same, to be told of what `interest` says.
pub fn register_for(
    socket: socket2::Socket,
    interest: Interest,
) -> Result<AsyncFd<socket2::Socket>, (socket2::Socket, io::Error)> {
    // SAFETY: as above, and AsyncFd is the only owner.
    unsafe { AsyncFd::register_with_interest(socket, interest) }
        .map_err(AsyncFdRegisterError::into_parts)
}
