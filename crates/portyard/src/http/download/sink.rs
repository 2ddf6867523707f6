//! Where the bytes of a download go until it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};
use portyard_core::exit::{Exit, Fatal};

/// What is written to.
pub enum Sink {
    /// `FILE.part`, which is ours as long as it is locked.
    Part(Flock<File>),
    /// A device or a pipe.
    Stream(File),
}

impl Sink {
    /// For a file that will be at `place`; what is there stays unless `force`.
    pub fn open(place: &Path, force: bool) -> Result<Self, Fatal> {
        match fs::metadata(place) {
            Ok(there) if there.file_type().is_char_device() || there.file_type().is_fifo() => {
                let stream = OpenOptions::new().write(true).open(place);
                return stream
                    .map(Self::Stream)
                    .map_err(|error| failure(place, &error));
            }
            Ok(there) if !there.is_file() => {
                let message = format!("{} is not a regular file", place.display());
                return Err(Fatal::new(Exit::Usage, message));
            }
            Ok(_) if !force => return Err(exists(place)),
            _ => {}
        }
        let path = beside(place, ".part");
        let failed = |error: io::Error| failure(&path, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let message = format!("{} is not a regular file; remove it", path.display());
            return Err(Fatal::new(Exit::Usage, message));
        }
        let busy = || {
            let message = format!("another run fetches {} at this moment", place.display());
            Fatal::new(Exit::TempFail, message)
        };
        let part = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(part) => part,
            Err((_, Errno::EWOULDBLOCK)) => return Err(busy()),
            Err((_, errno)) => return Err(failed(errno.into())),
        };
        // Who had it before may have given it its final name meanwhile.
        let ours = part.metadata().map_err(failed)?;
        match fs::symlink_metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {
                Ok(Self::Part(part))
            }
            _ => Err(busy()),
        }
    }

    /// Gives the file its name `place`, after it is on the disk; what has the name stays unless `force`.
    pub fn keep(&self, place: &Path, force: bool) -> Result<(), Fatal> {
        let Self::Part(part) = self else {
            return Ok(());
        };
        let path = beside(place, ".part");
        part.sync_all().map_err(|error| failure(place, &error))?;
        let renamed = if force {
            fs::rename(&path, place)
        } else {
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(AT_FDCWD, &path, AT_FDCWD, place, flags) {
                // A file system that cannot tell.
                Err(Errno::EINVAL) if !place.exists() => fs::rename(&path, place),
                other => other.map_err(io::Error::from),
            }
        };
        renamed.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(place),
            _ => failure(place, &error),
        })?;
        remove(&beside(place, ".part.from"));
        let directory = directory_of(place);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failure(place, &error))
    }
}

/// The name of a file that belongs to `place`.
pub fn beside(place: &Path, ending: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// It is in nobody's way if it stays.
pub fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}

fn exists(place: &Path) -> Fatal {
    let message = format!(
        "{} exists; name another file, or replace it with --force",
        place.display()
    );
    Fatal::new(Exit::Usage, message)
}

/// What to tell when writing to `place` fails.
pub fn failure(place: &Path, error: &io::Error) -> Fatal {
    let exit = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Exit::Usage,
        ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Io,
    };
    Fatal::new(exit, format!("cannot write {}: {error}", place.display()))
}
