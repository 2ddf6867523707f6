//! Sending a file: without a copy in user space where that can be, and never waiting for a disk on
//! the loop.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::{Context, Poll};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use socket2::Socket;

use super::{Connection, Next, Peer};
use crate::sys;

/// A checksum that grows with the bytes: what it was before, the next bytes, what it is then.
pub type Sum = fn(u32, &[u8]) -> u32;

impl Connection {
    /// Sends the first `length` bytes of `file`, and returns their checksum by `sum`, or 0.
    ///
    /// The pool brings one window after the other into the page cache, and computes the checksum
    /// there, while the window before is being sent. A file that is shorter by then is an error
    /// (`UnexpectedEof`), and the pool's refusal is `ResourceBusy`; either may come when much has
    /// been sent, so see [`Connection::reset_on_close`]. A file that others write into while it is
    /// sent arrives as a mixture, which a checksum tells as a rule.
    pub async fn send_file(
        &mut self,
        file: &Arc<File>,
        length: u64,
        sum: Option<Sum>,
    ) -> io::Result<u32> {
        let part = |start: u64, so_far| Part {
            file: file.clone(),
            start,
            end: length.min(start + WINDOW),
            sum,
            so_far,
        };
        let pool = self.home.offload.clone();
        let busy = |_| io::Error::from(io::ErrorKind::ResourceBusy);
        let first = part(0, 0);
        let mut so_far = pool.run(move || first.prepare()).await.map_err(busy)??;
        let mut start = 0;
        while start < length {
            let end = length.min(start + WINDOW);
            let next = part(end, so_far);
            let next = (end < length).then(|| pool.go_on(move || next.prepare()));
            while start < end {
                let sent = poll_fn(|cx| self.poll_send_file(cx, file, start, end - start)).await?;
                start += sent as u64;
            }
            if let Some(next) = next {
                so_far = next.await.map_err(busy)??;
            }
        }
        Ok(so_far)
    }

    /// Makes the coming close a reset, which tells the peer that what it has is not all. A Unix
    /// socket knows no reset.
    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    /// Sends some of `file`, at most `limit` bytes from `start` on, which should be in the page
    /// cache.
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        start: u64,
        limit: u64,
    ) -> Poll<io::Result<usize>> {
        let limit = usize::try_from(limit).map_or(PIECE, |limit| limit.min(PIECE));
        if self.is_near() {
            return self.poll_copy_file(cx, file, start, limit);
        }
        let send = |socket: &Socket| {
            sys::send_file(socket.as_fd(), file.as_fd(), start, limit)
                .map(|length| (length, Next::Try))
        };
        match self.stream.plain()?.poll_out(cx, send) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(length)) => {
                self.home.registry.sent(self.slot, length);
                Poll::Ready(Ok(length))
            }
            // A file system may know no sendfile.
            Poll::Ready(Err(error))
                if error.kind() == io::ErrorKind::Unsupported
                    || error.raw_os_error() == Some(Errno::EINVAL as i32) =>
            {
                self.poll_copy_file(cx, file, start, limit)
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.home.registry.stalled(self.slot);
                Poll::Pending
            }
        }
    }

    /// Whether the peer is on this machine. Then the kernel copies the bytes to it in any case, and
    /// it copies a quarter faster out of a buffer that is in the cache than page by page out of a
    /// file (docs/performance.md); on the way to another machine nothing need be copied at all.
    fn is_near(&self) -> bool {
        match self.peer() {
            Peer::Internet(address) => address.ip().to_canonical().is_loopback(),
            Peer::Local => true,
        }
    }

    /// The same through the loop's buffer.
    fn poll_copy_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &File,
        start: u64,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        let home = self.home.clone();
        home.with_buffer(|buffer| {
            let limit = limit.min(buffer.len());
            let length = file.read_at(&mut buffer[..limit], start)?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.poll_write(cx, &buffer[..length])
        })
    }
}

/// A part of a file that is to be sent.
struct Part {
    file: Arc<File>,
    start: u64,
    end: u64,
    sum: Option<Sum>,
    so_far: u32,
}

impl Part {
    /// Waits until the part is in the page cache, and returns the checksum up to its end.
    fn prepare(mut self) -> io::Result<u32> {
        let offset = |at: u64| libc::off_t::try_from(at).unwrap_or(libc::off_t::MAX);
        // Only advice: what it does not bring in is read below.
        let _ = posix_fadvise(
            &self.file,
            offset(self.start),
            offset(self.end - self.start),
            PosixFadviseAdvice::POSIX_FADV_WILLNEED,
        );
        if let Some(sum) = self.sum {
            let mut piece = vec![0; COPY];
            while self.start < self.end {
                let left = usize::try_from(self.end - self.start).unwrap_or(COPY);
                let length = self.read(&mut piece[..left.min(COPY)])?;
                self.so_far = sum(self.so_far, &piece[..length]);
                self.start += length as u64;
            }
            return Ok(self.so_far);
        }
        let length = usize::try_from(self.end - self.start).unwrap_or(usize::MAX);
        if sys::populate(self.file.as_fd(), self.start, length).is_err() {
            // The slower way, which also finds out what is wrong, if anything is.
            while self.start < self.end {
                self.read(&mut [0])?;
                self.start += PAGE;
            }
        }
        Ok(self.so_far)
    }

    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(into, self.start) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

/// What is brought in while the part before it is sent.
const WINDOW: u64 = 4 * 1024 * 1024;
/// The most that one call sends; then others of the loop have their turn.
const PIECE: usize = 256 * 1024;
/// As much as a read through memory of ours takes at once.
const COPY: usize = 64 * 1024;
/// A byte of each of these brings the page in.
const PAGE: u64 = 4096;
