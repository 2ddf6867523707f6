//! A storage that is dead after its first error.
//!
//! The kernel may forget pages that it could not write, and report success the next time. So after
//! one failed write or sync nothing more is written, whatever the engine does as it is dropped.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

/// Passes everything on until it is blown.
pub struct Fused<B> {
    backend: B,
    fuse: Fuse,
}

/// Stops a [`Fused`] storage from elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Arc<AtomicBool>);

impl Fuse {
    /// From here on nothing is written.
    pub fn blow(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn guard<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::other("not tried after an earlier error"));
        }
        write().inspect_err(|_| self.blow())
    }
}

impl<B> Fused<B> {
    pub fn new(backend: B) -> (Self, Fuse) {
        let fuse = Fuse::default();
        let own = fuse.clone();
        (Self { backend, fuse: own }, fuse)
    }
}

impl<B: StorageBackend> StorageBackend for Fused<B> {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.fuse.guard(|| self.backend.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fuse.guard(|| self.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fuse.guard(|| self.backend.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
}

impl<B> fmt::Debug for Fused<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fused")
            .field("fuse", &self.fuse)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;

    /// Fails once.
    #[derive(Debug)]
    struct Flaky(InMemoryBackend, AtomicBool);

    impl StorageBackend for Flaky {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.0.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            if self.1.swap(false, Ordering::SeqCst) {
                return Err(io::Error::other("once"));
            }
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    #[test]
    fn after_one_error_nothing_is_written() {
        let flaky = Flaky(InMemoryBackend::new(), AtomicBool::new(true));
        let (fused, _) = Fused::new(flaky);
        fused.set_len(10).unwrap();
        fused.write(0, b"before").unwrap();
        assert!(fused.sync_data().is_err());
        assert!(fused.sync_data().is_err(), "tried again");
        assert!(fused.write(0, b"after!").is_err());
        assert!(fused.set_len(0).is_err());
        let mut read = [0; 6];
        fused.read(0, &mut read).unwrap();
        assert_eq!(&read, b"before");

        let (fused, fuse) = Fused::new(InMemoryBackend::new());
        fuse.blow();
        assert!(fused.set_len(10).is_err());
    }
}
