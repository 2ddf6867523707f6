//! The daemon's own tables, each with the module that it configures, and the options of a listener.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use portyard_core::config::Span;
use portyard_core::sandbox::{Needs, Outside};
use serde::{Deserialize, Serialize};

use crate::crew::WorkerConfig;
use crate::hold::{self, HoldConfig, HoldingConfig};
use crate::inetd::{Entry, ServiceConfig};
use crate::pool::PoolConfig;
use crate::route::RouteConfig;

/// The daemon's own tables.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The `[[pool]]` tables.
    #[serde(rename = "pool", skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolConfig>,
    /// The `[[worker]]` tables.
    #[serde(rename = "worker", skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerConfig>,
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
    pub const TABLES: &'static [&'static str] = &["pool", "worker", "hold", "holding", "service"];

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
        for (at, worker) in self.workers.iter().enumerate() {
            worker.check()?;
            if self.workers[..at]
                .iter()
                .any(|other| other.name == worker.name)
            {
                return Err(format!(
                    "[[worker]]: there are two of name {:?}; give each its own",
                    worker.name
                ));
            }
        }
        hold::check(&self.holds, &self.holding)
    }

    /// What the broker does after its start for these tables, and for any.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        needs.memory_file = true;
        needs.outside = Outside::Looks;
        needs.netlink.sockets = true;
        for hold in &self.holds {
            hold.listen.iter().for_each(|at| needs.listen(at));
        }
        for rule in &self.holding.rules {
            needs.user_rule(rule);
        }
        for worker in &self.workers {
            needs.programs();
            needs.names |= worker.process.names_users();
        }
        for service in &self.services {
            let keys = [&service.auth_keys, &service.broker_keys];
            needs.trust(keys.into_iter().flatten(), service.tls.as_ref());
            for text in &service.listen {
                needs.listen_text(text.get_ref());
            }
            service.access.iter().for_each(|own| needs.access(own));
            service.redirect.iter().for_each(|to| needs.connect(to));
            if !service.command.is_empty() {
                needs.programs();
                needs.names |= service.process.names_users();
            }
        }
        needs
    }

    /// Whether there is a pool of this name, or what there is.
    pub fn known_pool(&self, name: &str) -> Result<(), String> {
        let pools = self.all_pools();
        if pools.iter().any(|pool| pool.name == name) {
            return Ok(());
        }
        let known: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        Err(format!(
            "there is no pool {name:?}; add a [[pool]] of that name, or use one of {}",
            known.join(", ")
        ))
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
    /// hand-off: how long a client has for the first bytes by which its connection is routed.
    pub peek_timeout: Span,
    /// hand-off: other pools for some connections; the first that fits has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteConfig>,
    /// What a `[[service]]` table asks for that this listener was made from.
    #[serde(skip)]
    service: Option<Arc<Entry>>,
}

impl Options {
    /// Every pool that is named.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        let routes = self.route.iter().map(|route| route.pool.as_str());
        std::iter::once(self.pool.as_str()).chain(routes)
    }

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
            peek_timeout: Span::secs(5),
            route: Vec::new(),
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
