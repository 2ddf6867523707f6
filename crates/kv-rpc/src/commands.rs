//! What an operator does with a store besides serving it: verify, back up, restore.

mod online;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use portyard_core::daemon::Asked;
use portyard_core::exit::{Exit, Fatal};

use crate::state::{State, open_failed};
use crate::store::{self, Limits, OpenError, Report, Store, SystemClock};

/// The commands. At most one at a time.
#[derive(Debug, Args)]
pub struct Commands {
    /// Read and check all data in DIR, or in a backup, and exit: 0 when it is good, 65 when it is not.
    ///
    /// Changes nothing. Without DIR it is the directory of the configuration. A daemon that has it
    /// open must be stopped first; its backups can be checked at any time.
    #[expect(
        clippy::option_option,
        reason = "clap's form of a value that may be left out"
    )]
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with_all = ["backup", "restore"])]
    verify: Option<Option<PathBuf>>,

    /// Write all data as it is at one moment into FILE, in place of an older one, and exit.
    ///
    /// A running daemon goes on serving: it is asked over the Unix socket of [admin] in the same
    /// configuration, as its own user or as root. FILE appears when it is whole, verified and on the
    /// disk.
    #[arg(long, value_name = "FILE", conflicts_with = "restore")]
    backup: Option<PathBuf>,

    /// Make a store of the backup in FILE and exit. The directory must be empty or not there yet.
    #[arg(long, value_name = "FILE")]
    restore: Option<PathBuf>,

    /// Restore into DIR instead of the directory of the configuration.
    #[arg(long, value_name = "DIR", requires = "restore")]
    directory: Option<PathBuf>,
}

impl Commands {
    /// Does what is asked for, and returns what to print.
    pub fn run(&self, asked: &Asked<'_, State>) -> Option<Result<String, Fatal>> {
        if let Some(place) = &self.verify {
            return Some(directory(place.as_ref(), asked).and_then(|place| verify(&place)));
        }
        if let Some(file) = &self.backup {
            return Some(backup(file, asked));
        }
        let file = self.restore.as_ref()?;
        let place = directory(self.directory.as_ref(), asked);
        Some(place.and_then(|place| restore(file, &place)))
    }
}

fn directory(named: Option<&PathBuf>, asked: &Asked<'_, State>) -> Result<PathBuf, Fatal> {
    if let Some(named) = named {
        return Ok(named.clone());
    }
    asked
        .settings
        .store
        .directory()
        .map_err(|why| Fatal::new(Exit::Config, why))
}

fn verify(place: &Path) -> Result<String, Fatal> {
    let report = store::verify(place).map_err(|error| failed(&error))?;
    good(place, &report)?;
    Ok(format!(
        "{}: good, {}\n",
        place.display(),
        describe(&report)
    ))
}

fn backup(file: &Path, asked: &Asked<'_, State>) -> Result<String, Fatal> {
    // A daemon that serves knows best where its data is.
    if !online::fetch(asked.admin, file)? {
        let place = directory(None, asked)?;
        let report = store::verify(&place).map_err(|error| match error {
            OpenError::Locked { .. } => online::unreachable(&error),
            error => failed(&error),
        })?;
        good(&place, &report)?;
        let opened = Store::open(&place, Limits::default(), Arc::new(SystemClock));
        let copied = opened.and_then(|store| store::backup(&store, file));
        copied.map_err(|error| failed(&error))?;
    }
    let report = store::verify(file).map_err(|error| failed(&error))?;
    good(file, &report)?;
    Ok(format!("{}: {}\n", file.display(), describe(&report)))
}

fn restore(file: &Path, place: &Path) -> Result<String, Fatal> {
    let report = store::restore(file, place).map_err(|error| failed(&error))?;
    Ok(format!(
        "{}: restored, {}\n",
        place.display(),
        describe(&report)
    ))
}

fn describe(report: &Report) -> String {
    format!("{} keys, revision {}", report.records, report.revision)
}

/// Refuses what has faults, and names them.
fn good(place: &Path, report: &Report) -> Result<(), Fatal> {
    if report.faults.is_empty() {
        return Ok(());
    }
    let faults = report.faults.join("\n  ");
    let message = format!(
        "{} is damaged; nothing was changed: keep a copy, look for errors of the disk, and restore a \
         backup\n  {faults}",
        place.display()
    );
    Err(Fatal::new(Exit::Data, message))
}

/// As when a daemon starts, but for what is not there: then a path was mistyped.
fn failed(error: &OpenError) -> Fatal {
    match error {
        OpenError::Io { error: io, .. } if io.kind() == std::io::ErrorKind::NotFound => {
            Fatal::new(Exit::Unavailable, format!("{error}; name what is there"))
        }
        OpenError::NotEmpty(_) | OpenError::NotADirectory(_) => {
            Fatal::new(Exit::Unavailable, error.to_string())
        }
        error => open_failed(error),
    }
}
