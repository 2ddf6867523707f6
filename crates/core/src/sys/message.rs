//! Messages of Unix sockets, with descriptors beside their bytes.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use portyard_wire::ancillary;

/// Sends `bytes` and copies of `descriptors` in one `sendmsg(2)` that neither blocks nor raises
/// SIGPIPE, and returns how many of the bytes went out. The descriptors go with the first of them.
///
/// Only a Unix socket passes them on; others drop them without a word. More than
/// [`DESCRIPTORS_MAX`] are refused.
pub fn send_message(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut numbers = [0; DESCRIPTORS_MAX];
    let numbers = numbers
        .get_mut(..descriptors.len())
        .ok_or(io::ErrorKind::InvalidInput)?;
    for (number, descriptor) in numbers.iter_mut().zip(descriptors) {
        *number = descriptor.as_raw_fd();
    }
    let mut control = MessageControl::new();
    let mut iov = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is a plain C structure for which zero is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if !numbers.is_empty() {
        let (level, kind) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let length = ancillary::write(&mut control.0, level, kind, numbers)
            .ok_or(io::ErrorKind::InvalidInput)?;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = length;
    }
    // SAFETY: the header points to an iovec of `bytes`, which sendmsg only reads, and to a control
    // message of its true length; the descriptors in it are borrowed for longer than the call.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What one `recvmsg(2)` brought.
#[derive(Debug)]
pub struct Incoming {
    /// Bytes in the buffer.
    pub length: usize,
    /// The descriptors that came, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
    /// Descriptors or other control messages were lost (`MSG_CTRUNC`): this process or its limits had
    /// no room for them.
    pub control_cut: bool,
    /// Bytes of the packet were lost (`MSG_TRUNC`): the buffer was too small.
    pub bytes_cut: bool,
}

/// Receives bytes and the descriptors that come with them, without blocking.
pub fn receive_message(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Incoming> {
    let mut control = MessageControl::new();
    let mut iov = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: msghdr is a plain C structure for which zero is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: the header points to an iovec of `buffer` and to a control buffer, with their true
    // lengths; both outlive the call and nobody else uses them.
    let received = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut header,
            libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let came = header.msg_controllen.min(control.0.len());
    let mut messages = ancillary::Messages::new(&control.0[..came]);
    let mut descriptors = Vec::new();
    for message in messages.by_ref() {
        if (message.level, message.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for number in message.numbers() {
                // SAFETY: the kernel has just opened this number for us and told nobody else, so we
                // are its only owner; each is in the message once.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(Incoming {
        length,
        descriptors,
        control_cut: header.msg_flags & libc::MSG_CTRUNC != 0 || !messages.is_complete(),
        bytes_cut: header.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Descriptors in one message. The kernel takes 253 (`SCM_MAX_FD`); musl's control messages have
/// room for one less.
pub const DESCRIPTORS_MAX: usize = 252;

/// Room for the control messages of a packet, aligned as `cmsghdr` wants it: the most descriptors that
/// the kernel passes, and credentials and a pidfd where the socket asks for them.
#[repr(C, align(8))]
struct MessageControl([u8; MESSAGE_CONTROL_LEN]);

impl MessageControl {
    fn new() -> Self {
        Self([0; MESSAGE_CONTROL_LEN])
    }
}

const MESSAGE_CONTROL_LEN: usize =
    ancillary::space(253) + ancillary::space(3) + ancillary::space(1);
