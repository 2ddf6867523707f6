//! The `[listener.options]` table.

use std::path::PathBuf;

use portyard_core::config::{Size, Span};
use serde::{Deserialize, Serialize};

/// Options of the services. Each service reads its own; the others have no effect on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
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
        }
    }
}

/// A line is held in memory until its end has come.
const MAX_LINE_LIMIT: usize = 1 << 20;
