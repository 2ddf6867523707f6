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
