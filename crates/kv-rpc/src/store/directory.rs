//! The directory of a store on the disk: who may use it, and one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::disk::{DATA_FILE, Disk};
use super::error::OpenError;
use super::persistence::Persistence;

/// Held while a process has the store open. The kernel lets it go with the process.
pub struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

/// Opens the engine in a directory, which is made if it is not there, and takes its lock.
pub fn open(path: &Path) -> Result<Disk, OpenError> {
    make(path)?;
    check(path, 0o022, "go-w")?;
    let lock = lock(path)?;
    let data = path.join(DATA_FILE);
    if !data.try_exists().map_err(OpenError::at(&data))? {
        begin(path)?;
    }
    check(&data, 0o077, "600")?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(&data);
    let file = file.map_err(OpenError::at(&data))?;
    let empty = file.metadata().map_err(OpenError::at(&data))?.len() == 0;
    if empty {
        // redb would take it for a new one.
        return Err(OpenError::Damaged(format!("{} is empty", data.display())));
    }
    Ok(Disk::in_file(file, &data)?.with_lock(lock))
}

/// Makes a directory for its owner alone, unless it is there.
pub fn make(path: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.map_err(OpenError::at(path))?,
    }
    if path.is_dir() {
        Ok(())
    } else {
        Err(OpenError::NotADirectory(path.into()))
    }
}

/// Takes the lock of a directory.
pub fn lock(directory: &Path) -> Result<Lock, OpenError> {
    let path = directory.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options.open(&path).map_err(OpenError::at(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let path = directory.into();
            let holder = holder(&mut file);
            return Err(OpenError::Locked { path, holder });
        }
        Err(TryLockError::Error(error)) => return Err(OpenError::at(path)(error)),
    }
    let pid = std::process::id();
    // Only for those who wonder who has it.
    let noted = file.set_len(0).and_then(|()| writeln!(file, "{pid}"));
    noted.map_err(OpenError::at(&path))?;
    Ok(Lock(file))
}

/// Makes a file that nobody else may read, in place of an old one.
pub fn new_file(path: &Path) -> Result<File, OpenError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(OpenError::at(path))?,
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.open(path).map_err(OpenError::at(path))
}

/// Gives a finished file its name, for good.
pub fn rename(from: &Path, to: &Path) -> Result<(), OpenError> {
    let file = File::open(from).map_err(OpenError::at(from))?;
    file.sync_all().map_err(OpenError::at(from))?;
    fs::rename(from, to).map_err(OpenError::at(to))?;
    let directory = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let opened = File::open(directory).map_err(OpenError::at(directory))?;
    opened.sync_all().map_err(OpenError::at(directory))
}

/// The first data of a directory: under another name until it is whole, so that a start that was
/// interrupted leaves nothing that looks damaged.
fn begin(directory: &Path) -> Result<(), OpenError> {
    let new = directory.join(NEW_FILE);
    let disk = Disk::in_file(new_file(&new)?, &new)?;
    Box::new(disk).close().map_err(OpenError::Damaged)?;
    rename(&new, &directory.join(DATA_FILE))
}

/// Refuses what others have `forbidden` rights to, or own.
fn check(path: &Path, forbidden: u32, remedy: &'static str) -> Result<(), OpenError> {
    let metadata = fs::metadata(path).map_err(OpenError::at(path))?;
    let path = path.to_path_buf();
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(OpenError::Exposed { path, mode, remedy });
    }
    let owner = metadata.uid();
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(OpenError::Foreign { path, owner });
    }
    Ok(())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(20).read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        _ => "another process".into(),
    }
}

const LOCK_FILE: &str = "lock";
/// What is being made.
pub const NEW_FILE: &str = "data.redb.new";
