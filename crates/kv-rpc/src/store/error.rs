//! What can go wrong: when a store is opened, and while it serves.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::Entry;

/// Why a batch was not applied, or may not have been.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// A compare does not hold; nothing was changed.
    #[error("condition {index} does not hold")]
    Conflict {
        /// Which compare, counted from 0.
        index: usize,
        /// What is there instead.
        current: Option<Entry>,
    },
    /// An `Increment` would leave 64 bits; nothing was changed.
    #[error("operation {index} would leave the range of 64-bit integers")]
    Overflow {
        /// Which operation, counted from 0.
        index: usize,
    },
    /// An `Increment` of something else; nothing was changed.
    #[error("operation {index} adds to a {kind}")]
    NotAnInteger {
        /// Which operation, counted from 0.
        index: usize,
        /// What is there.
        kind: &'static str,
    },
    /// Over a limit; nothing was changed.
    #[error("too large: {size} {what}, the limit is {limit}")]
    TooLarge {
        /// What is counted.
        what: &'static str,
        /// How much it would be.
        size: u64,
        /// How much it may be.
        limit: u64,
    },
    /// Too many batches wait for the disk; nothing was changed. It may be tried again.
    #[error("too many writes are waiting; try again later")]
    Busy,
    /// The store has failed and takes nothing more.
    #[error("the store has failed: {reason}")]
    Failed {
        /// What happened.
        reason: Arc<str>,
        /// Whether the batch may be on the disk none the less.
        maybe_applied: bool,
    },
    /// The store is closed; nothing was changed.
    #[error("the store is closed")]
    Closed,
}

/// Why a store cannot be opened, verified, backed up or restored, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system says no.
    #[error("{path}: {error}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is no directory of that name.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Others could read or change the data.
    #[error(
        "{path} has mode {mode:04o}; what is stored is for its owner alone: chmod {remedy} {path}"
    )]
    Exposed {
        /// What has these rights.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The remedy.
        remedy: &'static str,
    },
    /// It belongs to another user.
    #[error("{path} belongs to uid {owner}; it must belong to the user that runs this")]
    Foreign {
        /// What belongs to them.
        path: PathBuf,
        /// Who.
        owner: u32,
    },
    /// Another process has it open.
    #[error("{path} is in use by {holder}; stop it first, or name another directory")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// `process N`, or `another process` if its number is not known.
        holder: String,
    },
    /// Written by a later version.
    #[error("the data has format {found}, this program knows {known}; use a later version")]
    Newer {
        /// The format found.
        found: u32,
        /// The latest one known here.
        known: u32,
    },
    /// What was read cannot be right. Nothing was changed.
    #[error(
        "the data is damaged: {0}; nothing was changed: keep a copy, look for errors of the disk, and \
         restore a backup"
    )]
    Damaged(String),
    /// The target of a restore has something in it.
    #[error("{0} is not empty; restore into a new directory")]
    NotEmpty(PathBuf),
}

impl OpenError {
    /// For `map_err`: an error of the operating system at `path`.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }
}
