//! The daemon's own tables, each with the module that it configures, and the options of a listener.

use serde::{Deserialize, Serialize};

/// The daemon's own tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The `[[pool]]` tables.
    #[serde(rename = "pool", skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolConfig>,
}

impl Settings {
    /// The tables' names.
    pub const TABLES: &'static [&'static str] = &["pool"];
}

/// A `[[pool]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name.
    pub name: String,
}

/// The `[listener.options]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The pool that connections go to, or that workers belong to.
    pub pool: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool: DEFAULT_POOL.into(),
        }
    }
}

/// The pool of listeners that name none.
const DEFAULT_POOL: &str = "default";
