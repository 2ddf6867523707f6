//! The one file with `unsafe`: the few system calls that no safe wrapper offers as we need them.
//!
//! Everything here is a thin, checked step: adopting an inherited descriptor, forgetting the
//! variables that announced it, one socket option, descriptors beside the bytes of a message,
//! sending a file, files that are received into their own pages, a child between its birth and its
//! program, and batches of datagrams.
#![expect(unsafe_code, reason = "the only file of the workspace that may use it")]

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{self, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{
    AT_FDCWD, AtFlags, FallocateFlags, FcntlArg, FdFlag, OFlag, fallocate, fcntl, openat,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Gid, Pid, Uid, chdir, getpid, getppid, linkat, setgid, setgroups, setsid, setuid,
};
use portyard_wire::ancillary;
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdRegisterError};

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

/// Registers a non-blocking socket with the current loop, to be told of arrivals. Dropping the
/// registration ends it; the socket stays open for its other owners.
pub fn register(socket: Rc<socket2::Socket>) -> io::Result<AsyncFd<Rc<socket2::Socket>>> {
    // SAFETY: a Socket owns its descriptor, gives the same one for every as_fd, and closes it only
    // when its last owner is gone, which AsyncFd is until it has deregistered the descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
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

/// Sends up to `limit` bytes of `file` from `offset` on, without a copy in user space
/// (`sendfile(2)`); 0 at the end of the file. The file's own position stays.
pub fn send_file(
    socket: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    limit: usize,
) -> io::Result<usize> {
    let mut at =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `at` is a live off_t, which the call reads and writes and keeps no pointer to; both
    // descriptors are borrowed for longer than the call.
    let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut at, limit) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Waits until a part of a file is in the page cache, in one call. An error where kernel or file system
/// cannot do that, where the file is shorter, or where it cannot be read.
pub fn populate(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<()> {
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours. Nobody
    // reads it here, so it does no harm that another process may cut the file short beneath it:
    // madvise then says so, where an access would be a fault. It is unmapped before anyone else
    // hears of its address.
    unsafe {
        let address = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            offset,
        );
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let advised = match libc::madvise(address, length, libc::MADV_POPULATE_READ) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        libc::munmap(address, length);
        advised
    }
}

/// A file without a name (`O_TMPFILE`), with all its room allocated, to be written through windows of
/// memory. Until it is given a name, no other process can open it; dropped before, it is gone.
///
/// Everything here may wait for the disk, dropping it included.
#[derive(Debug)]
pub struct Unnamed {
    /// Shared with the windows, so that a name is given only when there are none.
    file: Arc<File>,
    length: u64,
    /// Where the next window begins.
    next: u64,
}

/// A part of an [`Unnamed`] file as memory: what is written here is in the file. Its pages are there,
/// so that writing to them waits for no disk.
#[derive(Debug)]
pub struct Window {
    address: NonNull<u8>,
    length: usize,
    _file: Arc<File>,
}

impl Unnamed {
    /// The most that a window covers. A multiple of every page size.
    pub const WINDOW: usize = 4 * 1024 * 1024;

    /// Makes a file of `length` bytes for this user alone on the file system of `directory`. When
    /// that has no room for it, this is an error here (`ENOSPC`), and never one later.
    pub fn create(directory: BorrowedFd<'_>, length: u64) -> io::Result<Self> {
        let size = libc::off_t::try_from(length).map_err(|_| io::Error::from(Errno::EFBIG))?;
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = openat(directory, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // A length of 0 cannot be allocated.
        let mut allocated = size == 0;
        while !allocated {
            allocated = match fallocate(&file, FallocateFlags::empty(), 0, size) {
                Ok(()) => true,
                Err(Errno::EINTR) => false,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self {
            file: Arc::new(file.into()),
            length,
            next: 0,
        })
    }

    /// The next part of the file; `None` behind its end. Parts do not overlap.
    pub fn window(&mut self) -> io::Result<Option<Window>> {
        let left = self.length - self.next;
        let length = usize::try_from(left).map_or(Self::WINDOW, |left| left.min(Self::WINDOW));
        if length == 0 {
            return Ok(None);
        }
        let offset = libc::off_t::try_from(self.next).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours. The
        // file is open for reading and writing, offset and length lie within it.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut window = Window {
            address,
            length,
            _file: self.file.clone(),
        };
        // From here on the part is taken, even when its pages cannot be had.
        self.next += length as u64;
        window.populate()?;
        Ok(Some(window))
    }

    /// Waits until all that was written is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives the file a name in `directory`, which must be of the same file system; a name that
    /// exists is an error. All windows must be gone, and there are none afterwards: who can open
    /// the file could cut it short beneath them.
    pub fn link(&mut self, directory: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        if Arc::get_mut(&mut self.file).is_none() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.next = self.length;
        match linkat(&*self.file, "", directory, name, AtFlags::AT_EMPTY_PATH) {
            // Before Linux 6.10 this needs CAP_DAC_READ_SEARCH, and says so in this way; the file's
            // place in /proc needs nothing but /proc (open(2), O_TMPFILE).
            Err(Errno::ENOENT) => {
                let place = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                Ok(linkat(AT_FDCWD, place.as_str(), directory, name, follow)?)
            }
            linked => Ok(linked?),
        }
    }
}

impl Window {
    /// Makes every page present and writable. A shortage of memory or room is an error here instead
    /// of a fault on the first write.
    fn populate(&mut self) -> io::Result<()> {
        // SAFETY: the range is exactly the mapping, which `self` owns; the advice changes none of
        // its contents.
        let advised = unsafe {
            libc::madvise(
                self.address.as_ptr().cast(),
                self.length,
                libc::MADV_POPULATE_WRITE,
            )
        };
        if advised == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        // Before Linux 5.14: each page by a write. The file is new, so a zero changes nothing.
        for byte in self.iter_mut().step_by(SMALLEST_PAGE) {
            // SAFETY: the reference is to a byte of ours; volatile, so that it is not left out.
            unsafe { std::ptr::write_volatile(byte, 0) };
        }
        Ok(())
    }
}

impl Deref for Window {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `length` bytes and lives as long as `self`, which lends them by
        // the rules of references; `Unnamed` gives each part out once. No other process can reach
        // the file, which has no name while a window exists, so nobody changes it or cuts it short;
        // with its room allocated beforehand no access can fail (SIGBUS).
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.length) }
    }
}

impl DerefMut for Window {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` is the only way to these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.length) }
    }
}

// SAFETY: a mapping belongs to the process, not to a thread, and a window is the only owner of its own.
unsafe impl Send for Window {}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range is exactly the mapping that `self` owns, and nothing borrows it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
    }
}

/// What a child of ours does between its birth and its program, in the order of the fields.
///
/// Standard descriptors and others that were given to the [`Command`] are in their places before.
#[derive(Debug, Clone, Default)]
pub struct ChildSetup {
    /// Limits of resources, soft and hard.
    pub limits: Vec<(Resource, u64, u64)>,
    /// Its priority, -20 to 19; `None`: ours.
    pub nice: Option<i8>,
    /// The mode bits that its files do not get; `None`: ours.
    pub umask: Option<u32>,
    /// Whom it runs as; `None`: as us.
    pub user: Option<ChildUser>,
    /// Its working directory; `None`: ours.
    pub directory: Option<CString>,
    /// Whether it can never gain privileges, by a set-user-ID program for one.
    pub no_new_privileges: bool,
    /// Whether it gets SIGTERM when the thread that starts it ends, by whatever death.
    pub follow: bool,
    /// The first descriptor that it does not get: this one and all above close as its program starts.
    pub descriptors: u32,
    /// The program's path; no directories are searched for it.
    pub program: CString,
    /// Its arguments, the first of which is its name.
    pub arguments: Vec<CString>,
    /// Its whole environment, each `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// The name of a variable that holds the child's own number, which nobody knows before.
    pub own_number: Option<CString>,
}

/// Whom a child runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildUser {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
    /// The supplementary groups, all of them.
    pub groups: Vec<Gid>,
}

/// A step of a child that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ChildStep {
    /// A session of its own.
    Session = 1,
    /// A limit.
    Limit,
    /// The priority.
    Nice,
    /// User and groups.
    User,
    /// The working directory.
    Directory,
    /// Giving up what it could gain, or following us.
    Bond,
    /// The program.
    Program,
}

/// Makes `command` start what `setup` says, in a session of its own. The command's own program,
/// arguments and environment are not used; its standard descriptors are.
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let parent = getpid();
    let mut image = Image::new(&setup);
    // SAFETY: between fork and exec only the calling thread exists, and locks and allocator may be
    // in any state. The closure makes system calls on what was prepared before the fork: it
    // allocates and frees nothing, takes no lock, and cannot panic.
    unsafe {
        command.pre_exec(move || match setup.run(&mut image, parent) {
            Ok(never) => match never {},
            // An errno is all that comes back from a child; above its 16 bits there is room for the step.
            Err((step, errno)) => Err(io::Error::from_raw_os_error(
                (step as i32) << STEP_SHIFT | errno as i32,
            )),
        });
    }
}

/// Takes an error of a command that [`set_up_child`] has prepared apart: the step that failed, and why.
/// Without a step there was no child yet.
pub fn child_fault(error: io::Error) -> (Option<ChildStep>, io::Error) {
    let Some(code) = error.raw_os_error() else {
        return (None, error);
    };
    let steps = [
        ChildStep::Session,
        ChildStep::Limit,
        ChildStep::Nice,
        ChildStep::User,
        ChildStep::Directory,
        ChildStep::Bond,
        ChildStep::Program,
    ];
    let step = steps
        .into_iter()
        .find(|step| *step as i32 == code >> STEP_SHIFT);
    let errno = code & ((1 << STEP_SHIFT) - 1);
    (step, io::Error::from_raw_os_error(errno))
}

impl ChildSetup {
    /// The child's side. Returns only when a step fails.
    fn run(&self, image: &mut Image, parent: Pid) -> Result<Infallible, (ChildStep, Errno)> {
        let at = |step| move |errno| (step, errno);
        setsid().map_err(at(ChildStep::Session))?;
        for (resource, soft, hard) in &self.limits {
            setrlimit(*resource, *soft, *hard).map_err(at(ChildStep::Limit))?;
        }
        if let Some(nice) = self.nice {
            // SAFETY: a plain call with numbers; 0 is the calling process.
            let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) };
            Errno::result(set).map_err(at(ChildStep::Nice))?;
        }
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if let Some(user) = &self.user {
            setgroups(&user.groups).map_err(at(ChildStep::User))?;
            setgid(user.gid).map_err(at(ChildStep::User))?;
            setuid(user.uid).map_err(at(ChildStep::User))?;
        }
        if let Some(directory) = &self.directory {
            chdir(directory.as_c_str()).map_err(at(ChildStep::Directory))?;
        }
        if self.no_new_privileges {
            prctl::set_no_new_privs().map_err(at(ChildStep::Bond))?;
        }
        if self.follow {
            // After the change of user, which would take it back (prctl(2), PR_SET_PDEATHSIG).
            prctl::set_pdeathsig(Signal::SIGTERM).map_err(at(ChildStep::Bond))?;
            if getppid() != parent {
                // It ended before it could be followed.
                return Err((ChildStep::Bond, Errno::ESRCH));
            }
        }
        // Whatever was opened without close-on-exec, by a library for one, goes no further. Kernels
        // before 5.11 do not know the flag; all that is ours is close-on-exec by itself.
        // SAFETY: a plain call with numbers; the descriptors stay open until exec.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                self.descriptors,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        image.write_own_number();
        // SAFETY: both lists end with a null pointer and point to texts that end with a NUL, which
        // `self` and `image` own and nobody changes any more.
        unsafe {
            libc::execve(
                self.program.as_ptr(),
                image.arguments.0.as_ptr(),
                image.environment.0.as_ptr(),
            );
        }
        Err((ChildStep::Program, Errno::last()))
    }
}

/// Arguments and environment in the form that the kernel takes, made before the fork.
struct Image {
    /// What the pointers point to; never touched again.
    _texts: Vec<CString>,
    arguments: Pointers,
    environment: Pointers,
    /// `NAME=` and room for a number with its NUL, behind the last pointer of the environment.
    own_number: Option<(Vec<u8>, usize)>,
}

/// A list of pointers to texts that ends with null.
struct Pointers(Vec<*const libc::c_char>);

// SAFETY: the texts belong to the same `Image`, whose heap memory does not move with it, and are
// read by the one child that uses them.
unsafe impl Send for Pointers {}
// SAFETY: as above; nothing is changed through the pointers.
unsafe impl Sync for Pointers {}

impl Image {
    fn new(setup: &ChildSetup) -> Self {
        let texts = [&setup.arguments[..], &setup.environment[..]].concat();
        let (arguments, environment) = texts.split_at(setup.arguments.len());
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect();
        let mut arguments: Vec<*const libc::c_char> = pointers(arguments);
        arguments.push(std::ptr::null());
        let mut environment: Vec<*const libc::c_char> = pointers(environment);
        let own_number = setup.own_number.as_ref().map(|name| {
            let mut text = [name.as_bytes(), b"="].concat();
            let at = text.len();
            text.resize(at + NUMBER_ROOM, 0);
            environment.push(text.as_ptr().cast());
            (text, at)
        });
        environment.push(std::ptr::null());
        Self {
            _texts: texts,
            arguments: Pointers(arguments),
            environment: Pointers(environment),
            own_number,
        }
    }

    /// Writes the number of this process into its place.
    fn write_own_number(&mut self) {
        let Some((text, at)) = &mut self.own_number else {
            return;
        };
        let room = text.get_mut(*at..).unwrap_or_default();
        let number = getpid().as_raw().unsigned_abs();
        let mut divisor = 1_000_000_000;
        let mut places = room.iter_mut();
        while divisor > 0 {
            if number >= divisor || divisor == 1 {
                // A digit is below 10.
                let digit = u8::try_from(number / divisor % 10).unwrap_or(0);
                if let Some(place) = places.next() {
                    *place = b'0' + digit;
                }
            }
            divisor /= 10;
        }
    }
}

/// Above the bits of an errno, which is below 4096.
const STEP_SHIFT: u32 = 16;
/// Ten digits and a NUL.
const NUMBER_ROOM: usize = 11;

/// A batch of received datagrams and their answers: `recvmmsg(2)`, then `sendmmsg(2)`.
///
/// All memory is allocated once. The pages of a slot become resident only when a datagram reaches
/// that far, so a large `capacity` costs address space, not memory.
pub struct Batch {
    /// Bytes that a slot can receive.
    capacity: usize,
    /// Bytes of control messages that a slot can receive.
    control_length: usize,
    payloads: Vec<u8>,
    answers: Vec<Vec<u8>>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    receive_iovs: Vec<libc::iovec>,
    receive_headers: Vec<libc::mmsghdr>,
    send_iovs: Vec<libc::iovec>,
    send_headers: Vec<libc::mmsghdr>,
    received: usize,
    queued: usize,
    sent: usize,
}

/// Room for IP_PKTINFO or IPV6_PKTINFO and the traffic class, aligned as `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// What was sent, cut at the batch's capacity.
    pub payload: &'a [u8],
    /// How long it was when it was sent.
    pub length: usize,
    /// Who sent it; `None` for Unix sockets.
    pub source: Option<SocketAddr>,
    /// Whether the sender has an address that an answer can reach.
    pub named: bool,
    /// The address it was sent to, where the socket reports it (`IP_PKTINFO`).
    pub local: Option<IpAddr>,
    /// The type-of-service or traffic-class byte, where the socket reports it.
    pub tos: Option<u8>,
}

/// What to answer a datagram of the batch with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The datagram's own payload.
    Echo,
    /// What was written with [`Batch::answer_buffer`].
    Buffer,
}

impl Batch {
    /// A batch of `slots` datagrams of at most `capacity` bytes each; `control` says whether the
    /// socket reports more than payload and source.
    pub fn new(slots: usize, capacity: usize, control: bool) -> Self {
        let capacity = capacity.max(1);
        let empty_iov = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: mmsghdr and sockaddr_storage are plain C structures for which zero is valid.
        let (header, name) = unsafe {
            (
                mem::zeroed::<libc::mmsghdr>(),
                mem::zeroed::<libc::sockaddr_storage>(),
            )
        };
        let mut batch = Self {
            capacity,
            control_length: if control { CONTROL_LEN } else { 0 },
            payloads: vec![0; slots * capacity],
            answers: vec![Vec::new(); slots],
            names: vec![name; slots],
            controls: vec![Control([0; CONTROL_LEN]); slots],
            receive_iovs: vec![empty_iov; slots],
            receive_headers: vec![header; slots],
            send_iovs: vec![empty_iov; slots],
            send_headers: vec![header; slots],
            received: 0,
            queued: 0,
            sent: 0,
        };
        for slot in 0..slots {
            batch.prepare(slot);
        }
        batch
    }

    /// Points a slot's receive header to the slot's memory, none of which ever moves.
    fn prepare(&mut self, slot: usize) {
        self.receive_iovs[slot] = libc::iovec {
            iov_base: self.payloads[slot * self.capacity..].as_mut_ptr().cast(),
            iov_len: self.capacity,
        };
        let header = &mut self.receive_headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = length_of::<libc::sockaddr_storage>();
        header.msg_iov = &raw mut self.receive_iovs[slot];
        header.msg_iovlen = 1;
        if self.control_length > 0 {
            header.msg_control = self.controls[slot].0.as_mut_ptr().cast();
            header.msg_controllen = self.control_length;
        }
    }

    /// Receives as many datagrams as are waiting, without blocking. `WouldBlock` when none is.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.queued = 0;
        self.sent = 0;
        // The kernel changes the headers it fills, and no others.
        for header in &mut self.receive_headers[..self.received] {
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_storage>();
            header.msg_hdr.msg_controllen = self.control_length;
        }
        self.received = 0;
        let slots = libc::c_uint::try_from(self.names.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: each header points to a name, one iovec and a control buffer of this batch, with
        // their true lengths; they outlive the call, and `&mut self` keeps others away.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.receive_headers.as_mut_ptr(),
                slots,
                // MSG_TRUNC makes msg_len the true length of a datagram that did not fit.
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        self.received = match usize::try_from(count) {
            Ok(count) => count,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        Ok(self.received)
    }

    /// The datagram in a slot below the number that [`Batch::receive`] returned.
    pub fn datagram(&self, slot: usize) -> Datagram<'_> {
        let received = &self.receive_headers[..self.received][slot];
        let length = (received.msg_len as usize).min(self.capacity);
        let start = slot * self.capacity;
        let (local, tos) = ancillary(&received.msg_hdr);
        let source = socket_address(&self.names[slot], received.msg_hdr.msg_namelen);
        Datagram {
            payload: &self.payloads[start..start + length],
            length: received.msg_len as usize,
            source,
            // An unnamed Unix socket has an address of its family alone.
            named: source.is_some()
                || received.msg_hdr.msg_namelen > length_of::<libc::sa_family_t>(),
            local,
            tos,
        }
    }

    /// The sender of the datagram in a slot, for an answer that outlives the batch.
    pub fn peer(&self, slot: usize) -> socket2::SockAddr {
        let length = self.receive_headers[..self.received][slot]
            .msg_hdr
            .msg_namelen;
        let mut storage = socket2::SockAddrStorage::zeroed();
        // SAFETY: sockaddr_storage is one of the platform's address types; the kernel wrote the
        // name and its length, which describe a valid address.
        unsafe {
            *storage.view_as::<libc::sockaddr_storage>() = self.names[slot];
            socket2::SockAddr::new(storage, length)
        }
    }

    /// The datagram in a slot and the buffer for its answer, cleared.
    pub fn answer_buffer(&mut self, slot: usize) -> (&[u8], &mut Vec<u8>) {
        let length =
            (self.receive_headers[..self.received][slot].msg_len as usize).min(self.capacity);
        let start = slot * self.capacity;
        let answer = &mut self.answers[slot];
        answer.clear();
        (&self.payloads[start..start + length], answer)
    }

    /// Queues the answer to a slot. It leaves from `from`, the address that was asked, if given.
    pub fn queue(&mut self, slot: usize, reply: Reply, from: Option<IpAddr>) {
        let received = &self.receive_headers[..self.received][slot];
        let length = (received.msg_len as usize).min(self.capacity);
        let name_length = received.msg_hdr.msg_namelen;
        let iov = &mut self.send_iovs[self.queued];
        *iov = match reply {
            Reply::Echo => libc::iovec {
                iov_base: self.payloads[slot * self.capacity..].as_mut_ptr().cast(),
                iov_len: length,
            },
            Reply::Buffer => libc::iovec {
                iov_base: self.answers[slot].as_mut_ptr().cast(),
                iov_len: self.answers[slot].len(),
            },
        };
        let header = &mut self.send_headers[self.queued].msg_hdr;
        header.msg_name = (&raw mut self.names[slot]).cast();
        header.msg_namelen = name_length;
        header.msg_iov = iov;
        header.msg_iovlen = 1;
        let control = from.map_or(0, |from| write_source(&mut self.controls[slot], from));
        header.msg_control = match control {
            0 => std::ptr::null_mut(),
            _ => self.controls[slot].0.as_mut_ptr().cast(),
        };
        header.msg_controllen = control;
        self.queued += 1;
    }

    /// Sends what is queued, without blocking, and returns how many went out in all.
    ///
    /// After an error the call can be repeated (`WouldBlock`), or the datagram that failed be left
    /// out with [`Batch::skip`].
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.sent < self.queued {
            let pending = &mut self.send_headers[self.sent..self.queued];
            let count = libc::c_uint::try_from(pending.len()).unwrap_or(libc::c_uint::MAX);
            // SAFETY: `queue` pointed each of these headers to a name, an iovec and a control
            // buffer of this batch with their true lengths, and nothing has moved since: all of
            // them are heap buffers of fixed size, and an answer is written before it is queued.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    pending.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT,
                )
            };
            match usize::try_from(sent) {
                Ok(sent) => self.sent += sent,
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }

    /// Leaves out the datagram at which [`Batch::send`] failed.
    pub fn skip(&mut self) {
        self.sent = (self.sent + 1).min(self.queued);
    }

    /// Bytes and number of the answers queued since the last [`Batch::receive`].
    pub fn queued(&self) -> (usize, usize) {
        let bytes = self.send_iovs[..self.queued]
            .iter()
            .map(|iov| iov.iov_len)
            .sum();
        (bytes, self.queued)
    }
}

/// Local address and traffic class out of a received header's control messages.
fn ancillary(header: &libc::msghdr) -> (Option<IpAddr>, Option<u8>) {
    let (mut local, mut tos) = (None, None);
    if header.msg_controllen == 0 {
        return (local, tos);
    }
    // SAFETY: the header came back from recvmmsg with a control buffer of ours, and CMSG_FIRSTHDR
    // and CMSG_NXTHDR stay inside msg_controllen. Payloads are read unaligned, each after checking
    // level and type, which fix their size for the kernel that wrote them.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = message.as_ref() {
            let data = libc::CMSG_DATA(control);
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    // ipi_addr is where the packet went to; ipi_spec_dst is what to answer from
                    // (for a broadcast, the interface's own address).
                    local = Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => tos = Some(*data),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    let class: libc::c_int = data.cast::<libc::c_int>().read_unaligned();
                    tos = u8::try_from(class).ok();
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    (local, tos)
}

/// Writes the control message that makes an answer leave from `from`; returns its length.
fn write_source(control: &mut Control, from: IpAddr) -> usize {
    // SAFETY: all of these are plain C structures for which zero is valid; CMSG_LEN and CMSG_SPACE
    // only compute, and CONTROL_LEN has room for the larger of the two messages.
    unsafe {
        let head = libc::CMSG_LEN(0) as usize;
        let (level, kind, length) = match from {
            IpAddr::V4(from) => {
                let mut info: libc::in_pktinfo = mem::zeroed();
                info.ipi_spec_dst.s_addr = u32::from(from).to_be();
                control
                    .0
                    .as_mut_ptr()
                    .add(head)
                    .cast::<libc::in_pktinfo>()
                    .write_unaligned(info);
                (
                    libc::IPPROTO_IP,
                    libc::IP_PKTINFO,
                    size_of::<libc::in_pktinfo>(),
                )
            }
            IpAddr::V6(from) => {
                let mut info: libc::in6_pktinfo = mem::zeroed();
                info.ipi6_addr.s6_addr = from.octets();
                control
                    .0
                    .as_mut_ptr()
                    .add(head)
                    .cast::<libc::in6_pktinfo>()
                    .write_unaligned(info);
                (
                    libc::IPPROTO_IPV6,
                    libc::IPV6_PKTINFO,
                    size_of::<libc::in6_pktinfo>(),
                )
            }
        };
        let mut header: libc::cmsghdr = mem::zeroed();
        header.cmsg_level = level;
        header.cmsg_type = kind;
        let length = u32::try_from(length).unwrap_or(0);
        header.cmsg_len = libc::CMSG_LEN(length) as usize;
        (&raw mut *control).cast::<libc::cmsghdr>().write(header);
        libc::CMSG_SPACE(length) as usize
    }
}

/// The Internet address that the kernel wrote, if it is one.
fn socket_address(name: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET if length >= length_of::<libc::sockaddr_in>() => {
            // SAFETY: sockaddr_storage is at least as large and as aligned as sockaddr_in, and the
            // kernel filled one in: family and length say so.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 if length >= length_of::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

fn length_of<T>() -> libc::socklen_t {
    // The structures of the socket API are far below 4 GiB.
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// No page is smaller.
const SMALLEST_PAGE: usize = 4096;
/// in6_pktinfo (40 with its header) and a traffic class (24), rounded up.
const CONTROL_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        assert!(adopt(-1).is_err());
        assert!(adopt(60_000).is_err());
    }

    fn child(arguments: &[&str]) -> ChildSetup {
        let texts = |all: &[&str]| {
            all.iter()
                .map(|text| CString::new(*text).unwrap())
                .collect()
        };
        ChildSetup {
            program: CString::new(arguments[0]).unwrap(),
            arguments: texts(arguments),
            descriptors: 3,
            ..ChildSetup::default()
        }
    }

    fn said_by(setup: ChildSetup) -> String {
        let mut command = Command::new("unused");
        set_up_child(&mut command, setup);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_child_has_its_own_environment_number_session_and_descriptors_and_nothing_of_ours() {
        let leak = File::open("/dev/null").unwrap();
        fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut setup = child(&[
            "/bin/sh",
            "-c",
            "env; echo self=$$; ls /proc/$$/fd; ulimit -n; umask",
        ]);
        setup.environment = vec![c"A=1".into()];
        setup.own_number = Some(c"LISTEN_PID".into());
        setup.limits = vec![(Resource::RLIMIT_NOFILE, 77, 77)];
        setup.umask = Some(0o27);
        setup.directory = Some(c"/".into());
        let said = said_by(setup);
        let lines: Vec<&str> = said.lines().collect();
        let number = lines
            .iter()
            .find_map(|line| line.strip_prefix("self="))
            .unwrap();
        assert!(
            lines.contains(&"A=1") && lines.contains(&"77") && lines.contains(&"0027"),
            "{said}"
        );
        assert!(lines.contains(&&*format!("LISTEN_PID={number}")), "{said}");
        assert!(!said.contains("CARGO"), "{said}");
        let descriptor = leak.as_raw_fd().to_string();
        assert!(
            !lines.contains(&&*descriptor),
            "{descriptor} leaked: {said}"
        );
    }

    #[test]
    fn a_child_that_cannot_start_says_at_which_step() {
        let fail = |setup| {
            let mut command = Command::new("unused");
            set_up_child(&mut command, setup);
            let (step, error) = child_fault(command.spawn().unwrap_err());
            (step.unwrap(), error.raw_os_error().unwrap())
        };
        let missing = child(&["/nonexistent"]);
        assert_eq!(fail(missing.clone()), (ChildStep::Program, libc::ENOENT));
        let nowhere = ChildSetup {
            directory: Some(c"/nonexistent".into()),
            ..missing.clone()
        };
        assert_eq!(fail(nowhere), (ChildStep::Directory, libc::ENOENT));
        let greedy = ChildSetup {
            limits: vec![(Resource::RLIMIT_NOFILE, 2, 1)],
            ..missing
        };
        assert_eq!(fail(greedy), (ChildStep::Limit, libc::EINVAL));
    }

    #[test]
    fn an_unnamed_file_is_written_through_windows_and_named_when_they_are_gone() {
        let directory = tempfile::tempdir().unwrap();
        let place = File::open(directory.path()).unwrap();
        let length = Unnamed::WINDOW + 5;
        let mut file = Unnamed::create(place.as_fd(), length as u64).unwrap();
        let mut first = file.window().unwrap().unwrap();
        let mut second = file.window().unwrap().unwrap();
        assert_eq!((first.len(), second.len()), (Unnamed::WINDOW, 5));
        assert!(file.window().unwrap().is_none());
        first.fill(1);
        second.copy_from_slice(b"hello");
        drop(first);
        assert!(file.link(place.as_fd(), "name").is_err());
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        drop(second);
        file.sync().unwrap();
        file.link(place.as_fd(), "name").unwrap();
        let twice = file.link(place.as_fd(), "name").unwrap_err();
        assert_eq!(twice.kind(), io::ErrorKind::AlreadyExists);
        let written = std::fs::read(directory.path().join("name")).unwrap();
        assert_eq!(written.len(), length);
        assert!(written.ends_with(b"\x01hello"));
    }

    #[test]
    fn populating_beyond_the_end_of_a_file_is_an_error_and_no_fault() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        populate(file.as_fd(), 0, 10_000).unwrap();
        assert!(populate(file.as_fd(), 0, 20_000).is_err());
        assert!(populate(file.as_fd(), 1 << 40, 1).is_err());
        assert!(populate(file.as_fd(), u64::MAX, 1).is_err());
    }

    #[test]
    fn a_file_without_room_is_refused_before_it_is_written() {
        let place = tempfile::tempdir().unwrap();
        let place = File::open(place.path()).unwrap();
        // More than any disk; what a file system says of that differs.
        assert!(Unnamed::create(place.as_fd(), 1 << 62).is_err());
        assert!(Unnamed::create(place.as_fd(), u64::MAX).is_err());
    }

    #[test]
    fn a_batch_receives_and_answers_from_the_asked_address() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        nix::sys::socket::setsockopt(&server, nix::sys::socket::sockopt::Ipv4PacketInfo, &true)
            .unwrap();
        server.set_nonblocking(true).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::from(([127, 0, 0, 9], server.local_addr().unwrap().port()));
        let mut batch = Batch::new(4, 16, true);
        assert_eq!(
            batch.receive(server.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        client.send_to(b"one", to).unwrap();
        client.send_to(&[7; 17], to).unwrap();
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 2);
        let first = batch.datagram(0);
        assert_eq!(first.payload, b"one");
        assert_eq!(first.source, Some(client.local_addr().unwrap()));
        assert_eq!(first.local, Some([127, 0, 0, 9].into()));
        assert_eq!((first.length, batch.datagram(1).length), (3, 17));
        assert_eq!(batch.datagram(1).payload, [7; 16]);
        let local = first.local;
        batch.queue(0, Reply::Echo, local);
        batch.answer_buffer(1).1.extend_from_slice(b"two");
        batch.queue(1, Reply::Buffer, local);
        assert_eq!(batch.queued(), (6, 2));
        batch.send(server.as_fd()).unwrap();
        let mut buffer = [0; 16];
        for expected in [&b"one"[..], b"two"] {
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (expected, to));
        }
    }

    #[test]
    fn ipv6_reports_the_asked_address_and_the_class() {
        let server = UdpSocket::bind("[::]:0").unwrap();
        let socket = socket2::SockRef::from(&server);
        socket.set_recv_tclass_v6(true).unwrap();
        nix::sys::socket::setsockopt(
            &server,
            nix::sys::socket::sockopt::Ipv6RecvPacketInfo,
            &true,
        )
        .unwrap();
        let client = UdpSocket::bind("[::1]:0").unwrap();
        let to = SocketAddr::from((Ipv6Addr::LOCALHOST, server.local_addr().unwrap().port()));
        client.send_to(b"x", to).unwrap();
        let mut batch = Batch::new(1, 16, true);
        assert_eq!(batch.receive(server.as_fd()).unwrap(), 1);
        assert_eq!(batch.datagram(0).local, Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(batch.datagram(0).tos, Some(0));
        batch.queue(0, Reply::Echo, batch.datagram(0).local);
        batch.send(server.as_fd()).unwrap();
        let mut buffer = [0; 4];
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (1, to));
    }
}
