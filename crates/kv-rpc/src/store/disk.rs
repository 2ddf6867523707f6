//! The engine on redb: a copy-on-write B-tree in one file.
//!
//! Two tables: records by place, and what there is to say about the whole. Every commit is one
//! transaction in two phases, synced, with what a quick recovery needs.

use std::fs::File;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableError,
};

use super::directory::Lock;
use super::encoding::{FORMAT, decode_state, encode_state};
use super::error::OpenError;
use super::fuse::{Fuse, Fused};
use super::load::unless_it_panics;
use super::overlay::Overlay;
use super::persistence::{Changes, Persistence, State};

/// The engine.
pub struct Disk {
    database: Database,
    fuse: Fuse,
    /// Held for as long as the file is open.
    _lock: Option<Lock>,
}

impl Disk {
    /// Opens a database on any storage, for tests of what happens when a disk fails. An empty storage
    /// gets an empty store.
    pub fn on(backend: impl StorageBackend) -> Result<Self, OpenError> {
        let (backend, fuse) = Fused::new(backend);
        let fresh = backend.len().map_err(OpenError::at("the storage"))? == 0;
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let database = unless_it_panics(|| builder.create_with_backend(backend).map_err(damaged))
            .inspect_err(|_| fuse.blow())?;
        let mut disk = Self {
            database,
            fuse,
            _lock: None,
        };
        if fresh {
            let written = disk.write(&Changes::default(), true);
            written.map_err(|error| OpenError::Io {
                path: "the new data".into(),
                error: std::io::Error::other(error),
            })?;
        }
        Ok(disk)
    }

    /// Opens the database in a file, or makes one in an empty file.
    pub(super) fn in_file(file: File, path: &Path) -> Result<Self, OpenError> {
        let backend = FileBackend::new(file).map_err(|error| OpenError::Io {
            path: path.into(),
            error: std::io::Error::other(error),
        })?;
        Self::on(backend)
    }

    /// Opens the database in a file without a write to it.
    pub(super) fn look(path: &Path) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::at(path))?;
        let overlay = Overlay::new(file).map_err(OpenError::at(path))?;
        // An empty storage would get an empty store.
        if overlay.len().map_err(OpenError::at(path))? == 0 {
            let empty = format!("{} is empty", path.display());
            return Err(OpenError::Damaged(empty));
        }
        Self::on(overlay)
    }

    /// Keeps a lock until the database is closed.
    pub(super) fn with_lock(self, lock: Lock) -> Self {
        Self {
            _lock: Some(lock),
            ..self
        }
    }

    /// One transaction. A `fresh` database gets its format, too.
    fn write(&mut self, changes: &Changes, fresh: bool) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        {
            let mut records = transaction.open_table(RECORDS)?;
            for place in &changes.removed {
                records.remove(place)?;
            }
            for (place, record) in &changes.put {
                records.insert(place, record.as_slice())?;
            }
            let mut about = transaction.open_table(ABOUT)?;
            if fresh {
                about.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
            }
            about.insert(STATE_KEY, encode_state(&changes.state).as_slice())?;
        }
        Ok(transaction.commit()?)
    }
}

impl Persistence for Disk {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn durable(&self) -> bool {
        true
    }

    fn load(&mut self, each: &mut dyn FnMut(u64, &[u8])) -> Result<State, OpenError> {
        load(&self.database, each)
    }

    fn commit(&mut self, changes: Changes) -> Result<(), String> {
        self.write(&changes, false)
            .map_err(|error| error.to_string())
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        // redb notes that it was closed well. If it cannot, the next start recovers.
        drop(self.database);
        Ok(())
    }

    fn abandon(self: Box<Self>) {
        self.fuse.blow();
    }
}

fn load(
    database: &impl ReadableDatabase,
    each: &mut dyn FnMut(u64, &[u8]),
) -> Result<State, OpenError> {
    let transaction = database.begin_read().map_err(damaged)?;
    let about = transaction.open_table(ABOUT).map_err(foreign)?;
    let about = |key| -> Result<Vec<u8>, OpenError> {
        let found = about.get(key).map_err(damaged)?;
        let found = found.ok_or_else(|| OpenError::Damaged(format!("there is no {key}")))?;
        Ok(found.value().to_vec())
    };
    let format = about(FORMAT_KEY)?.try_into();
    let format = format.map_err(|_| OpenError::Damaged("the format is no number".into()))?;
    match u32::from_le_bytes(format) {
        FORMAT => {}
        found if found > FORMAT => {
            return Err(OpenError::Newer {
                found,
                known: FORMAT,
            });
        }
        found => return Err(OpenError::Damaged(format!("there is no format {found}"))),
    }
    let state = decode_state(&about(STATE_KEY)?)
        .map_err(|fault| OpenError::Damaged(format!("the state of the whole: {fault}")))?;
    let records = transaction.open_table(RECORDS).map_err(foreign)?;
    for record in records.iter().map_err(damaged)? {
        let (place, bytes) = record.map_err(damaged)?;
        each(place.value(), bytes.value());
    }
    Ok(state)
}

fn damaged(error: impl Into<redb::Error>) -> OpenError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.into() {
        redb::Error::Io(error) if !matches!(error.kind(), InvalidData | UnexpectedEof) => {
            let path = DATA_FILE.into();
            OpenError::Io { path, error }
        }
        redb::Error::DatabaseAlreadyOpen => OpenError::Locked {
            path: DATA_FILE.into(),
            holder: "another process".into(),
        },
        error => OpenError::Damaged(error.to_string()),
    }
}

fn foreign(error: TableError) -> OpenError {
    match error {
        TableError::TableDoesNotExist(_) => {
            OpenError::Damaged("it is a database of something else".into())
        }
        error => damaged(error),
    }
}

/// The file in a store's directory.
pub const DATA_FILE: &str = "data.redb";

const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const ABOUT: TableDefinition<&str, &[u8]> = TableDefinition::new("about");
const FORMAT_KEY: &str = "format";
const STATE_KEY: &str = "state";

/// Pages that redb keeps. Reads are answered from the index, so it needs those it changes only.
const CACHE_BYTES: usize = 32 << 20;
