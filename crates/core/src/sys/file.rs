//! Files: sent from the page cache, brought into it, and written through windows of memory.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

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

/// No page is smaller.
const SMALLEST_PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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
}
