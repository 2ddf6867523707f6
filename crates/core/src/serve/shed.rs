//! Out of descriptors: a reserve lets us still accept, and so refuse, instead of spinning.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;

/// What an error of `accept(2)` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFault {
    /// The connection is gone, or a signal came: try again at once.
    Retry,
    /// The process or the machine has no descriptor left: shed one connection, then pause.
    NoDescriptors,
    /// The kernel has no memory: pause.
    NoMemory,
    /// The listening socket itself is unusable: a fault of ours, the daemon must end.
    Broken,
}

/// A descriptor kept back for the moment when there is no other. The loops share one.
#[derive(Debug)]
pub struct Reserve(Mutex<Option<File>>);

impl AcceptFault {
    /// Sorts an error of `accept(2)`. What the manual does not list is retried: it concerns the
    /// connection, not the listener.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::NoDescriptors,
            Some(libc::ENOMEM | libc::ENOBUFS) => Self::NoMemory,
            Some(libc::EBADF | libc::ENOTSOCK | libc::EINVAL | libc::EOPNOTSUPP) => Self::Broken,
            _ => Self::Retry,
        }
    }
}

impl Reserve {
    /// Takes a descriptor into reserve.
    pub fn new() -> Self {
        Self(Mutex::new(spare()))
    }

    /// Gives the reserve up for a moment to accept one connection of `listener` and reset it, so
    /// that its peer learns the truth at once. True when there was one.
    pub fn shed(&self, listener: impl AsFd) -> bool {
        let mut reserve = self.lock();
        *reserve = None;
        let accepted = SockRef::from(&listener).accept();
        if let Ok((socket, _)) = &accepted {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
        let shed = accepted.is_ok();
        drop(accepted);
        *reserve = spare();
        shed
    }

    /// Whether there is a reserve, after trying to have one. Another loop may have accepted with
    /// the descriptor that [`Reserve::shed`] freed; without a reserve nobody could be shed any more,
    /// so a connection that leaves none must go.
    pub fn refill(&self) -> bool {
        let mut reserve = self.lock();
        if reserve.is_none() {
            *reserve = spare();
        }
        reserve.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        // A descriptor is there or not; a panic cannot leave it half-taken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Reserve {
    fn default() -> Self {
        Self::new()
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// How long a listener rests after each connection it had to shed. At 100 a second the cost is
/// far below 2 % of a core, and a freed descriptor is used within this time.
pub const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn each_errno_has_its_remedy() {
        let of = |errno| AcceptFault::of(&io::Error::from_raw_os_error(errno));
        assert_eq!(of(libc::EMFILE), AcceptFault::NoDescriptors);
        assert_eq!(of(libc::ENFILE), AcceptFault::NoDescriptors);
        assert_eq!(of(libc::ENOBUFS), AcceptFault::NoMemory);
        assert_eq!(of(libc::EBADF), AcceptFault::Broken);
        for errno in [
            libc::ECONNABORTED,
            libc::EINTR,
            libc::EPROTO,
            libc::ENETDOWN,
            libc::EPERM,
        ] {
            assert_eq!(of(errno), AcceptFault::Retry);
        }
    }

    #[test]
    fn a_shed_connection_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let reserve = Reserve::new();
        assert!(!reserve.shed(&listener));
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(reserve.shed(&listener));
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(reserve.refill());
    }
}
