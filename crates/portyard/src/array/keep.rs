//! A file that is there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, fallocate};
use nix::unistd::linkat;
use portyard_core::exit::{Exit, Fatal};
use tempfile::{Builder, TempPath};

/// A file being written, beside the place where it will be. Dropped, or with the whole process
/// killed, it leaves nothing behind; only on file systems without unnamed files a killed process
/// leaves a name that begins with `.portyard-`.
#[derive(Debug)]
pub struct Keep {
    /// What is written.
    pub file: File,
    place: PathBuf,
    force: bool,
    /// Its name for the time being, where it needs one.
    name: Option<TempPath>,
}

impl Keep {
    /// Begins the file that will be at `place`; what is there already is replaced only with `force`.
    pub fn begin(place: &Path, force: bool) -> Result<Self, Fatal> {
        match fs::symlink_metadata(place) {
            Ok(metadata) if !metadata.is_file() => {
                let message = format!("{} is not a regular file", place.display());
                return Err(Fatal::new(Exit::Usage, message));
            }
            Ok(_) if !force => return Err(exists(place)),
            _ => {}
        }
        let directory = directory_of(place);
        let failed = |error: io::Error| failure(place, &error);
        let (file, name) = match unnamed(directory) {
            Ok(file) => (file, None),
            Err(error) if has_no_unnamed(&error) => {
                let (file, name) = named(directory).map_err(failed)?;
                (file, Some(name))
            }
            Err(error) => return Err(failed(error)),
        };
        let place = place.to_owned();
        Ok(Self {
            file,
            place,
            force,
            name,
        })
    }

    /// Takes the room for `length` bytes, so that a full disk is found out before they come.
    pub fn reserve(&self, length: u64) -> Result<(), Fatal> {
        let Ok(length) = i64::try_from(length) else {
            return Err(failure(&self.place, &ErrorKind::FileTooLarge.into()));
        };
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if length == 0 {
            return Ok(());
        }
        match fallocate(&self.file, flags, 0, length) {
            Err(error @ (nix::Error::ENOSPC | nix::Error::EFBIG | nix::Error::EDQUOT)) => {
                Err(failure(&self.place, &error.into()))
            }
            // Not every file system can; then writing tells.
            _ => Ok(()),
        }
    }

    /// Puts the file at its place, after it is on the disk.
    pub fn keep(self) -> Result<(), Fatal> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&self.place),
            _ => failure(&self.place, &error),
        };
        self.file.sync_all().map_err(failed)?;
        let directory = directory_of(&self.place);
        match self.name {
            None if self.force => {
                // A link replaces nothing, a rename does.
                let link = |path: &Path| link(&self.file, path);
                let name = Builder::new().prefix(PREFIX).make_in(directory, link);
                let name = name.map_err(failed)?.into_temp_path();
                fs::rename(&name, &self.place).map_err(failed)?;
                // It has no name left to be removed under.
                let _ = name.keep();
            }
            None => link(&self.file, &self.place).map_err(failed)?,
            Some(name) if self.force => {
                name.persist(&self.place).map_err(|e| failed(e.error))?;
            }
            Some(name) => {
                name.persist_noclobber(&self.place)
                    .map_err(|e| failed(e.error))?;
            }
        }
        // The entry of the directory has to last as well.
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }

    /// What to tell when writing fails.
    pub fn failure(&self, error: &io::Error) -> Fatal {
        failure(&self.place, error)
    }
}

fn unnamed(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .read(true)
        .mode(MODE)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
}

/// open(2): not of this file system, or not of this kernel.
fn has_no_unnamed(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)
    )
}

fn named(directory: &Path) -> io::Result<(File, TempPath)> {
    let open = |path: &Path| {
        OpenOptions::new()
            .write(true)
            .read(true)
            .create_new(true)
            .mode(MODE)
            .open(path)
    };
    let file = Builder::new().prefix(PREFIX).make_in(directory, open)?;
    Ok(file.into_parts())
}

/// Gives an unnamed file a name that nothing has.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(
        AT_FDCWD,
        &*itself,
        AT_FDCWD,
        path,
        AtFlags::AT_SYMLINK_FOLLOW,
    )?;
    Ok(())
}

fn directory_of(place: &Path) -> &Path {
    match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn exists(place: &Path) -> Fatal {
    let message = format!("{} is there already; --force replaces it", place.display());
    Fatal::new(Exit::Usage, message)
}

fn failure(place: &Path, error: &io::Error) -> Fatal {
    let message = format!("cannot write {}: {error}", place.display());
    Fatal::new(Exit::Io, message)
}

/// Without what the umask takes away, as for every file.
const MODE: u32 = 0o666;
const PREFIX: &str = ".portyard-";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries.map(|e| name(e).into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_is_there_before_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("array");
        let mut keep = Keep::begin(&place, false).unwrap();
        keep.file.write_all(b"whole").unwrap();
        assert!(!place.exists());
        keep.keep().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"whole");
        drop(Keep::begin(&place, true).unwrap());
        assert_eq!(names(directory.path()), ["array"]);
    }

    #[test]
    fn what_is_there_stays_without_force() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("array");
        // One that appears while we write.
        let keep = Keep::begin(&place, false).unwrap();
        fs::write(&place, "old").unwrap();
        assert_eq!(keep.keep().unwrap_err().exit, Exit::Usage);
        assert!(Keep::begin(&place, false).is_err());
        assert_eq!(fs::read(&place).unwrap(), b"old");
        let mut keep = Keep::begin(&place, true).unwrap();
        keep.file.write_all(b"new").unwrap();
        keep.keep().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(names(directory.path()), ["array"]);
    }

    #[test]
    fn a_named_file_does_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("array");
        for (force, text) in [(false, "first"), (true, "second")] {
            let (mut file, name) = named(directory.path()).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            let place = place.clone();
            let name = Some(name);
            Keep {
                file,
                place,
                force,
                name,
            }
            .keep()
            .unwrap();
        }
        assert_eq!(fs::read(&place).unwrap(), b"second");
        let (file, name) = named(directory.path()).unwrap();
        let name = Some(name);
        let force = false;
        let keep = Keep {
            file,
            place,
            force,
            name,
        };
        assert_eq!(keep.keep().unwrap_err().exit, Exit::Usage);
        assert_eq!(names(directory.path()), ["array"]);
    }

    #[test]
    fn a_device_is_never_replaced() {
        let error = Keep::begin(Path::new("/dev/null"), true).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
    }
}
