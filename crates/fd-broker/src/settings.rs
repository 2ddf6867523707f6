//! The daemon's own tables, each with the module that it configures, and the options of a listener.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hold::{self, HoldConfig, HoldingConfig};
use crate::inetd::{Entry, ServiceConfig};
use crate::pool::PoolConfig;

/// The daemon's own tables.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The `[[pool]]` tables.
    #[serde(rename = "pool", skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolConfig>,
    /// The `[[hold]]` tables.
    #[serde(rename = "hold", skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<HoldConfig>,
    /// The `[holding]` table.
    pub holding: HoldingConfig,
    /// The `[[service]]` tables.
    #[serde(rename = "service", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceConfig>,
}

impl Settings {
    /// The tables' names.
    pub const TABLES: &'static [&'static str] = &["pool", "hold", "holding", "service"];

    /// All pools: those that are configured, and the one of listeners that name none.
    pub fn all_pools(&self) -> Vec<PoolConfig> {
        let mut pools = self.pools.clone();
        if !pools.iter().any(|pool| pool.name == DEFAULT_POOL) {
            pools.insert(0, PoolConfig::new(DEFAULT_POOL));
        }
        pools
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> Result<(), String> {
        for (at, pool) in self.pools.iter().enumerate() {
            pool.check()?;
            if self.pools[..at].iter().any(|other| other.name == pool.name) {
                return Err(format!(
                    "[[pool]]: there are two of name {:?}; give each its own",
                    pool.name
                ));
            }
        }
        hold::check(&self.holds, &self.holding)
    }
}

/// The `[listener.options]` table.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The pool that connections go to, or that workers belong to.
    pub pool: String,
    /// python, raw: connections that a worker has at a time.
    pub capacity: NonZeroU32,
    /// python, raw: a worker's share where the pool weighs.
    pub weight: NonZeroU16,
    /// native: connections that a worker may ask for at a time.
    pub max_capacity: NonZeroU32,
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
            capacity: NonZeroU32::MIN,
            weight: NonZeroU16::MIN,
            max_capacity: DEFAULT_MAX_CAPACITY,
            service: None,
        }
    }
}

/// The pool of listeners that name none.
pub const DEFAULT_POOL: &str = "default";
/// More than a process may open by default; a number that is a mistake is above it.
const DEFAULT_MAX_CAPACITY: NonZeroU32 = match NonZeroU32::new(1 << 20) {
    Some(capacity) => capacity,
    None => NonZeroU32::MIN,
};
