//! Where array-sink keeps arrays: a directory with a file for each.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use portyard_core::clock::Now;
use portyard_core::observe::Throttle;
use portyard_core::sys::Unnamed;
use portyard_core::wire::array::Refusal;
use portyard_core::wire::civil::Civil;

/// A directory for arrays, held open: what happens to its path later does not matter. Everything
/// here may wait for the disk.
pub struct Store {
    directory: File,
    path: PathBuf,
    /// Bytes of the file system that are left to others.
    min_free: u64,
    max_files: usize,
    faults: Throttle,
}

impl Store {
    /// Opens the directory and tries whether files can be made there.
    pub fn open(path: &Path, min_free: u64, max_files: usize) -> Result<Self, String> {
        let wrong = |why: String| format!("options.directory = \"{}\" {why}", path.display());
        let directory =
            File::open(path).map_err(|error| wrong(format!("cannot be opened: {error}")))?;
        if !directory.metadata().is_ok_and(|found| found.is_dir()) {
            return Err(wrong("is not a directory".into()));
        }
        Unnamed::create(directory.as_fd(), 0).map_err(|error| {
            wrong(format!(
                "cannot take files: {error}; name one that this user may write to, on a file \
                 system with O_TMPFILE (ext4, xfs, btrfs, tmpfs)"
            ))
        })?;
        Ok(Self {
            directory,
            path: path.into(),
            min_free,
            max_files,
            faults: Throttle::new(),
        })
    }

    /// Makes room for an array: a file without a name, all of its blocks allocated.
    pub fn begin(&self, length: u64) -> Result<Unnamed, Refusal> {
        let begun = self.try_begin(length);
        begun.map_err(|error| self.refusal(&error))
    }

    /// Puts an array on the disk under a name of its own, and the name, too.
    pub fn keep(&self, file: &mut Unnamed) -> Result<String, Refusal> {
        let kept = file.sync().and_then(|()| self.name(file));
        kept.map_err(|error| self.refusal(&error))
    }

    fn try_begin(&self, length: u64) -> io::Result<Unnamed> {
        self.check_files()?;
        self.check_free(length)?;
        let file = Unnamed::create(self.directory.as_fd(), length)?;
        // Others may have begun at the same time.
        self.check_free(0)?;
        Ok(file)
    }

    fn name(&self, file: &mut Unnamed) -> io::Result<String> {
        // Counting and naming are one step, whatever listeners share the directory.
        static NAMING: Mutex<()> = Mutex::new(());
        let naming = NAMING.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_files()?;
        let mut tries = 0;
        let name = loop {
            let name = next_name();
            match file.link(self.directory.as_fd(), &name) {
                Ok(()) => break name,
                // A daemon before us, in the same second.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => {
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        };
        drop(naming);
        // The name is in the directory, which is written to disk by itself.
        self.directory.sync_all()?;
        Ok(name)
    }

    fn check_free(&self, length: u64) -> io::Result<()> {
        let found = fstatvfs(&self.directory)?;
        let free = found
            .blocks_available()
            .saturating_mul(found.fragment_size());
        if free < length.saturating_add(self.min_free) {
            return Err(Errno::ENOSPC.into());
        }
        Ok(())
    }

    fn check_files(&self) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.directory, ".", flags, Mode::empty())?;
        let mut count = 0;
        for entry in directory.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            count += usize::from(name.starts_with(PREFIX) && name.ends_with(SUFFIX));
            if count >= self.max_files {
                return Err(Errno::ENOSPC.into());
            }
        }
        Ok(())
    }

    /// What the peer is told of an error; the operator hears all of it.
    pub fn refusal(&self, error: &io::Error) -> Refusal {
        let refusal = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Refusal::NoRoom,
            Some(Errno::EFBIG) => Refusal::TooLarge,
            _ => Refusal::Failed,
        };
        if let Some(held) = self.faults.pass() {
            tracing::warn!(directory = %self.path.display(), %error, held, "an array is not kept");
        }
        refusal
    }
}

/// A name that no array of this process has had.
fn next_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = Civil::from_unix(Now::read().seconds, 0);
    format!("array-{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{number:06}.bin")
}

const PREFIX: &[u8] = b"array-";
const SUFFIX: &[u8] = b".bin";
/// Names tried before something else must be wrong.
const TRIES: u32 = 10_000;
