//! The daemon's own tables, each with the module that it configures, and the options of a listener.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::inetd::{Entry, ServiceConfig};

/// The daemon's own tables.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The `[[pool]]` tables.
    #[serde(rename = "pool", skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolConfig>,
    /// The `[[service]]` tables.
    #[serde(rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceConfig>,
}

impl Settings {
    /// The tables' names.
    pub const TABLES: &'static [&'static str] = &["pool", "service"];
}

/// A `[[pool]]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name.
    pub name: String,
}

/// The `[listener.options]` table.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The pool that connections go to, or that workers belong to.
    pub pool: String,
    /// What a `[[service]]` table asks for that this listener was made from.
    #[serde(skip)]
    service: Option<Arc<Entry>>,
}

impl Options {
    /// The options of a listener that is made from a `[[service]]` table.
    pub fn of_service(entry: Arc<Entry>) -> Self {
        Self {
            service: Some(entry),
            ..Self::default()
        }
    }

    /// What the `[[service]]` table asks for that the listener was made from.
    pub fn service(&self) -> Option<Arc<Entry>> {
        self.service.clone()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pool: DEFAULT_POOL.into(),
            service: None,
        }
    }
}

/// The pool of listeners that name none.
const DEFAULT_POOL: &str = "default";
