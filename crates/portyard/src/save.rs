//! Files that appear whole or not at all.
//!
//! Each is written beside its place under another name, with its final mode from the first byte on,
//! and then renamed: nobody ever reads half a file, and a secret is at no moment open to others.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use portyard_core::exit::{Exit, Fatal};
use tempfile::{NamedTempFile, TempPath};

/// What to write, and where.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    /// The place.
    pub path: &'a Path,
    /// All of the file.
    pub bytes: &'a [u8],
    /// Whether nobody else may read it.
    pub secret: bool,
}

/// Whether a file that is there may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and nothing is written; the error ends in what to do.
    Kept(&'static str),
    /// It is replaced.
    Replaced,
}

/// Writes all files, or none. They appear in their order, so that a key is there before the
/// certificate that needs it.
pub fn all(files: &[Saved<'_>], existing: Existing) -> Result<(), Fatal> {
    for file in files {
        check_place(file.path, existing)?;
    }
    let written: Vec<_> = files
        .iter()
        .map(|file| {
            let mode = if file.secret { 0o600 } else { 0o644 };
            write(file.path, file.bytes, Permissions::from_mode(mode))
        })
        .collect::<Result<_, _>>()?;
    place(files, written, existing)?;
    files.iter().try_for_each(|file| settle(file.path))
}

/// Replaces a file that is there, with the mode and owner that it has.
pub fn over(path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    let failed = |error: io::Error| cannot_write(path, &error);
    let old = fs::symlink_metadata(path).map_err(failed)?;
    // Ours alone until it is complete; the owner changes before the mode, which he may widen.
    let temporary = write(path, bytes, Permissions::from_mode(0o600))?;
    let new = temporary.as_file().metadata().map_err(failed)?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(temporary.as_file(), Some(old.uid()), Some(old.gid())).map_err(failed)?;
    }
    let mode = Permissions::from_mode(old.mode() & 0o7777);
    temporary.as_file().set_permissions(mode).map_err(failed)?;
    temporary
        .persist(path)
        .map_err(|error| failed(error.error))?;
    settle(path)
}

/// Keeps other runs of this program from changing the files of a directory, until it is dropped.
///
/// Reading a file, adding to it and writing it back would else lose what another run adds meanwhile.
#[derive(Debug)]
pub struct Lock {
    _directory: Flock<File>,
}

impl Lock {
    /// Takes the directory that a file lies in; an error when another run has it.
    pub fn beside(path: &Path) -> Result<Self, Fatal> {
        let directory = directory(path);
        let failed = |error: io::Error| {
            let message = format!("{} cannot be locked: {error}", directory.display());
            Fatal::new(Exit::from_io(&error), message)
        };
        let opened = File::open(&directory).map_err(failed)?;
        match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => Ok(Self { _directory: locked }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Fatal::new(
                Exit::TempFail,
                format!(
                    "another portyard changes files in {}; try again",
                    directory.display()
                ),
            )),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}

/// Only a regular file is ever replaced: what else has the name was meant for something else.
fn check_place(path: &Path, existing: Existing) -> Result<(), Fatal> {
    match (fs::symlink_metadata(path), existing) {
        (Err(error), _) if error.kind() == ErrorKind::NotFound => Ok(()),
        (Err(error), _) => Err(cannot_write(path, &error)),
        (Ok(_), Existing::Kept(remedy)) => Err(in_the_way(path, remedy)),
        (Ok(metadata), _) if !metadata.is_file() => Err(Fatal::new(
            Exit::Usage,
            format!(
                "{} is not a regular file, so it is not replaced; name another place",
                path.display()
            ),
        )),
        (Ok(_), _) => Ok(()),
    }
}

/// Gives all files their names; when one cannot have its name, those before it lose theirs again.
fn place(
    files: &[Saved<'_>],
    written: Vec<NamedTempFile>,
    existing: Existing,
) -> Result<(), Fatal> {
    let mut placed: Vec<(&Path, Before)> = Vec::new();
    for (file, temporary) in files.iter().zip(written) {
        let before = Before::of(file.path, existing);
        let result = match existing {
            Existing::Kept(_) => temporary.persist_noclobber(file.path),
            Existing::Replaced => temporary.persist(file.path),
        };
        if let Err(error) = result {
            for (path, before) in placed {
                before.restore(path);
            }
            return Err(match (error.error.kind(), existing) {
                // Somebody was faster.
                (ErrorKind::AlreadyExists, Existing::Kept(remedy)) => in_the_way(file.path, remedy),
                _ => cannot_write(file.path, &error.error),
            });
        }
        placed.push((file.path, before));
    }
    Ok(())
}

/// What had a name before.
enum Before {
    Nothing,
    /// A file, which has a second name until this is dropped.
    Kept(TempPath),
    /// A file on a file system without second names.
    Gone,
}

impl Before {
    fn of(path: &Path, existing: Existing) -> Self {
        if existing != Existing::Replaced || !path.exists() {
            return Self::Nothing;
        }
        let second = tempfile::Builder::new()
            .prefix(".portyard-")
            .make_in(directory(path), |second| fs::hard_link(path, second));
        second.map_or(Self::Gone, |second| Self::Kept(second.into_temp_path()))
    }

    /// As far as it goes: there is an error to report already.
    fn restore(self, path: &Path) {
        match self {
            Self::Nothing => drop(fs::remove_file(path)),
            Self::Kept(second) => drop(second.persist(path)),
            Self::Gone => {}
        }
    }
}

fn write(path: &Path, bytes: &[u8], mode: Permissions) -> Result<NamedTempFile, Fatal> {
    let failed = |error: io::Error| cannot_write(path, &error);
    let mut temporary = tempfile::Builder::new()
        .prefix(".portyard-")
        .permissions(mode)
        .tempfile_in(directory(path))
        .map_err(failed)?;
    temporary.write_all(bytes).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    Ok(temporary)
}

/// Makes the new name last through a loss of power.
fn settle(path: &Path) -> Result<(), Fatal> {
    File::open(directory(path))
        .and_then(|directory| directory.sync_all())
        .map_err(|error| cannot_write(path, &error))
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    }
}

fn in_the_way(path: &Path, remedy: &str) -> Fatal {
    Fatal::new(
        Exit::Usage,
        format!("{} is there already; {remedy}", path.display()),
    )
}

fn cannot_write(path: &Path, error: &io::Error) -> Fatal {
    let message = format!("{} cannot be written: {error}", path.display());
    // A directory that is missing is a mistake in the name of the file.
    let exit = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Exit::Usage,
        _ => Exit::from_io(error),
    };
    Fatal::new(exit, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_are_written_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let [key, chain] = ["a.key", "a.pem"].map(|name| directory.path().join(name));
        let pair = |bytes: &'static [u8]| {
            [(&key, true), (&chain, false)].map(|(path, secret)| Saved {
                path,
                bytes,
                secret,
            })
        };
        fs::write(&chain, "old").unwrap();
        let refused = all(&pair(b"new"), Existing::Kept("go away")).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("a.pem is there already; go away")
        );
        assert_eq!(names(directory.path()), ["a.pem"]);
        all(&pair(b"new"), Existing::Replaced).unwrap();
        assert_eq!(names(directory.path()), ["a.key", "a.pem"]);
        assert_eq!(mode(&key), 0o600);
        assert_eq!(fs::read(&chain).unwrap(), b"new");
        fs::remove_file(&chain).unwrap();
        fs::create_dir(&chain).unwrap();
        assert!(all(&pair(b"newer"), Existing::Replaced).is_err());
        assert_eq!(fs::read(&key).unwrap(), b"new");
    }

    #[test]
    fn what_stood_there_comes_back_when_a_name_cannot_be_given() {
        let directory = tempfile::tempdir().unwrap();
        let [key, chain] = ["a.key", "a.pem"].map(|name| directory.path().join(name));
        let files = [&key, &chain].map(|path| Saved {
            path,
            bytes: b"new",
            secret: false,
        });
        // The second file goes before it gets its name.
        let written = || {
            let open = Permissions::from_mode(0o644);
            let written = files.map(|file| write(file.path, file.bytes, open.clone()).unwrap());
            fs::remove_file(written[1].path()).unwrap();
            Vec::from(written)
        };
        for existing in [Existing::Kept(""), Existing::Replaced] {
            assert!(place(&files, written(), existing).is_err());
            assert!(names(directory.path()).is_empty(), "{existing:?}");
        }
        fs::write(&key, "old").unwrap();
        fs::write(&chain, "old").unwrap();
        assert!(place(&files, written(), Existing::Replaced).is_err());
        assert_eq!(names(directory.path()), ["a.key", "a.pem"]);
        assert_eq!(fs::read(&key).unwrap(), b"old");
    }

    #[test]
    fn a_file_keeps_its_mode_when_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        for bits in [0o600, 0o400, 0o640] {
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            over(&path, b"new").unwrap();
            assert_eq!(mode(&path), bits);
            assert_eq!(fs::read(&path).unwrap(), b"new");
            fs::remove_file(&path).unwrap();
        }
        assert!(over(&path, b"new").is_err());
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn two_runs_do_not_change_one_directory_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let first = Lock::beside(&path).unwrap();
        assert_eq!(Lock::beside(&path).unwrap_err().exit, Exit::TempFail);
        drop(first);
        assert!(Lock::beside(&path).is_ok());
    }
}
