//! Copies of a store while it serves, and back.

use std::fs;
use std::path::{Path, PathBuf};

use super::Store;
use super::directory::{self, NEW_FILE};
use super::disk::{DATA_FILE, Disk};
use super::encoding::encode;
use super::error::OpenError;
use super::load::read;
use super::persistence::{Changes, Persistence, State};

/// What was found in a store's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The latest revision.
    pub revision: u64,
    /// How many records there are.
    pub records: u64,
    /// How many bytes keys and values take in memory.
    pub bytes: u64,
    /// What cannot be right: the first hundred. A store with any does not open.
    pub faults: Vec<String>,
}

/// Copies a store as it is at one revision, and returns that. The store serves meanwhile. The file
/// appears under its name when it is whole and on the disk, in place of an older one. Blocks, for as
/// long as writing everything takes.
pub fn backup(store: &Store, path: &Path) -> Result<u64, OpenError> {
    let new = beside(path);
    let copied = copy(store, &new).and_then(|revision| {
        directory::rename(&new, path)?;
        Ok(revision)
    });
    if copied.is_err() {
        // What is half made is of no use; that it stays is no worse.
        let _ = fs::remove_file(&new);
    }
    copied
}

/// Makes a store from a backup, in a directory that is empty or not there yet. A backup in which
/// anything cannot be right is refused. Blocks.
pub fn restore(backup: &Path, target: &Path) -> Result<Report, OpenError> {
    let report = verify_file(backup)?;
    if !report.faults.is_empty() {
        return Err(OpenError::Damaged(report.faults.join("; ")));
    }
    directory::make(target)?;
    let mut found = fs::read_dir(target).map_err(OpenError::at(target))?;
    if found.next().is_some() {
        return Err(OpenError::NotEmpty(target.into()));
    }
    let lock = directory::lock(target)?;
    let new = target.join(NEW_FILE);
    let mut file = directory::new_file(&new)?;
    let mut source = fs::File::open(backup).map_err(OpenError::at(backup))?;
    std::io::copy(&mut source, &mut file).map_err(OpenError::at(&new))?;
    directory::rename(&new, &target.join(DATA_FILE))?;
    drop(lock);
    Ok(report)
}

/// Reads and checks everything in a store's directory or in a backup, and changes nothing. A
/// directory that a process has open is refused. Blocks.
pub fn verify(path: &Path) -> Result<Report, OpenError> {
    if !path.is_dir() {
        return verify_file(path);
    }
    let data = path.join(DATA_FILE);
    // Before the lock, which would otherwise be made in any directory.
    fs::metadata(&data).map_err(OpenError::at(&data))?;
    let _lock = directory::lock(path)?;
    verify_file(&data)
}

fn verify_file(path: &Path) -> Result<Report, OpenError> {
    let mut engine = Disk::look(path)?;
    let (mut faults, mut keys) = (Vec::new(), std::collections::HashSet::new());
    let (mut records, mut bytes) = (0, 0);
    let state = read(&mut engine, &mut faults, &mut |record| {
        records += 1;
        bytes += record.bytes;
        keys.insert(record.key)
    });
    Box::new(engine).abandon();
    let state = state?;
    Ok(Report {
        revision: state.revision,
        records,
        bytes,
        faults,
    })
}

fn copy(store: &Store, new: &Path) -> Result<u64, OpenError> {
    let (final_state, records) = store.records();
    let mut engine = Disk::in_file(directory::new_file(new)?, new)?;
    // The parts before the last are of no revision at all; the file has no name yet.
    let failed = |error: String| OpenError::Io {
        path: new.into(),
        error: std::io::Error::other(error),
    };
    for part in records.chunks(PART) {
        let put = part.iter().map(|record| (record.place, encode(record)));
        let changes = Changes {
            removed: Vec::new(),
            put: put.collect(),
            state: State::default(),
        };
        engine.commit(changes).map_err(failed)?;
    }
    let changes = Changes {
        state: final_state,
        ..Changes::default()
    };
    engine.commit(changes).map_err(failed)?;
    Box::new(engine).close().map_err(failed)?;
    Ok(final_state.revision)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// How many records one transaction of a backup has.
const PART: usize = 4_096;
