//! The `[listener.options]` table.

use std::path::PathBuf;

use portyard_core::config::{Size, Span};
use serde::{Deserialize, Serialize};

/// Options of the services. Each service reads its own; the others have no effect on it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The longest line (timestamp, command, sleep), 1 byte to 1 MiB, without its terminator.
    pub max_line: Size,
    /// timestamp: text without a terminator is answered after this silence; `"0s"`: never.
    pub quiet: Span,
    /// command: the directory that `ls` lists; absent: `ls` is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// command: entries that `ls` lists at the most.
    pub max_entries: u32,
    /// sleep: the longest sleep.
    pub max_sleep: Span,
    /// message: the longest message, 1 byte to 2 GiB.
    pub max_message: Size,
    /// message: what the messages over 64 KiB of all connections may take; at least one of them.
    pub max_buffered: Size,
    /// array-source: the file to send; absent: `count` numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// array-source: how many numbers to compute and send; absent: a million. Not beside `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// array-source: the first number.
    pub start: f64,
    /// array-source: from each number to the next.
    pub step: f64,
    /// array-source: what stands around the array.
    pub frame: Frame,
    /// array-sink: where arrays are kept, a file each; absent: they are summed and thrown away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// array-sink: the largest array, 1 byte to 1 TiB.
    pub max_array: Size,
    /// array-sink: what is left of the directory's file system.
    pub min_free: Size,
    /// array-sink: arrays in the directory at the most.
    pub max_files: u32,
    /// array-sink: arrays that are being received into the directory at a time.
    pub max_uploads: u32,
}

/// What array-source sends around the array.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Frame {
    /// Nothing: the connection's end is the array's.
    #[default]
    Raw,
    /// Its size before it.
    Sized,
    /// Its size before it and its checksum behind it.
    Checked,
}

impl Options {
    /// The cap on a line, if it is in range.
    pub fn line_cap(&self) -> Result<usize, String> {
        match self.max_line.bytes() {
            cap @ 1..=MAX_LINE_LIMIT => Ok(cap),
            _ => Err(format!(
                "options.max_line = \"{}\" is not from 1B to 1MiB",
                self.max_line
            )),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_line: Size(4096),
            quiet: Span::millis(50),
            root: None,
            max_entries: 1000,
            max_sleep: Span::secs(3600),
            max_message: Size(64 << 20),
            max_buffered: Size(1 << 30),
            file: None,
            count: None,
            start: 0.0,
            step: 1.0,
            frame: Frame::Raw,
            directory: None,
            max_array: Size(4 << 30),
            min_free: Size(64 << 20),
            max_files: 1000,
            max_uploads: 16,
        }
    }
}

/// A line is held in memory until its end has come.
const MAX_LINE_LIMIT: usize = 1 << 20;
