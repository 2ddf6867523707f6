//! What is wrong with a configuration: file, line, and a sentence that says what to do.

use std::fmt;
use std::path::PathBuf;

use crate::exit::{Exit, Fatal};

/// A mistake in a configuration, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file; `None` for the built-in defaults and the command line.
    pub path: Option<PathBuf>,
    /// Line and column, counted from 1.
    pub place: Option<(usize, usize)>,
    /// What is wrong and what to do.
    pub message: String,
}

impl ConfigError {
    /// A mistake without a place in a file, such as one on the command line.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            path: None,
            place: None,
            message: message.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}", path.display())?;
            if let Some((line, column)) = self.place {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Fatal {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}
