//! The `[store]` table, and the options of a door.

use std::env;
use std::path::PathBuf;

use portyard_core::config::Size;
use serde::{Deserialize, Serialize};

use crate::store::Limits;

/// The daemon's own tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tables {
    /// The `[store]` table.
    pub store: Settings,
}

/// The `[store]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What keeps the data.
    pub engine: Engine,
    /// Where; absent: the state directory of systemd or of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// The engine must be one whose acknowledgements survive the loss of power.
    pub require_durable: bool,
    /// How many keys there may be.
    pub max_keys: u64,
    /// How long a key may be.
    pub max_key: Size,
    /// How large a value may be in memory.
    pub max_value: Size,
    /// How large all keys and values may be in memory.
    pub max_total: Size,
    /// How many writes may wait for the disk.
    pub max_waiting: u64,
    /// How large they may be.
    pub max_waiting_bytes: Size,
    /// How many events are kept for watches that begin in the past.
    pub history_events: u64,
    /// How large they may be.
    pub history_bytes: Size,
    /// How large all requests that are being received may be.
    pub max_receiving: Size,
}

/// What keeps the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Nothing: a restart forgets all.
    Memory,
    /// A file of redb's.
    #[default]
    Redb,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            engine: Engine::Redb,
            directory: None,
            require_durable: false,
            max_keys: limits.keys,
            max_key: Size(limits.key_bytes),
            max_value: Size(limits.value_bytes),
            max_total: Size(limits.total_bytes),
            max_waiting: limits.waiting,
            max_waiting_bytes: Size(limits.waiting_bytes),
            history_events: limits.history,
            history_bytes: Size(limits.history_bytes),
            max_receiving: Size(256 << 20),
        }
    }
}

impl Settings {
    /// The limits of the store.
    pub fn limits(&self) -> Limits {
        Limits {
            keys: self.max_keys,
            key_bytes: self.max_key.0,
            value_bytes: self.max_value.0,
            total_bytes: self.max_total.0,
            waiting: self.max_waiting,
            waiting_bytes: self.max_waiting_bytes.0,
            history: self.history_events,
            history_bytes: self.history_bytes.0,
            ..Limits::default()
        }
    }

    /// Where the data is, or which variables would say so.
    pub fn directory(&self) -> Result<PathBuf, String> {
        self.directory
            .clone()
            // systemd's may name several directories, and the first is ours.
            .or_else(|| absolute(env::split_paths(&env::var_os("STATE_DIRECTORY")?).next()?))
            .or_else(|| Some(variable("XDG_STATE_HOME")?.join("kv-rpc")))
            .or_else(|| Some(variable("HOME")?.join(".local/state/kv-rpc")))
            .ok_or_else(|| {
                "neither $STATE_DIRECTORY nor $HOME is set; write directory = \"/PATH\" in [store]"
                    .into()
            })
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    absolute(env::var_os(name)?.into())
}

/// What is empty or relative counts as not set (XDG Base Directory Specification).
fn absolute(path: PathBuf) -> Option<PathBuf> {
    path.is_absolute().then_some(path)
}

/// The `[listener.options]` table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The longest request.
    pub max_request: Size,
    /// json-rpc: requests in a batch.
    pub max_batch: u32,
    /// json-rpc: subscriptions of one connection.
    pub max_subscriptions: u32,
    /// xml-rpc: how faults are told.
    pub faults: Faults,
    /// xml-rpc: integers beyond 32 bits go out as `i8`, which not every client knows.
    pub emit_i8: bool,
    /// Only methods that change nothing.
    pub read_only: bool,
}

/// How faults are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Faults {
    /// As Python's server does: code 1 and the text of the exception.
    #[default]
    Python,
    /// By the codes of the interoperability registry.
    Interop,
}

impl Options {
    /// Refuses what no request could pass.
    pub fn check(&self) -> Result<(), String> {
        if !(REQUEST_MIN..=REQUEST_MAX).contains(&self.max_request.0) {
            return Err(format!(
                "max_request = \"{}\" is no length for requests; write one from 256B to 4GiB",
                self.max_request
            ));
        }
        if self.max_batch == 0 {
            return Err(
                "max_batch = 0 leaves no batch that could be answered; write at least 1".into(),
            );
        }
        Ok(())
    }
}

/// Shorter ones have no room for a call over XML-RPC.
const REQUEST_MIN: u64 = 256;
/// What a length of 32 bits can say.
const REQUEST_MAX: u64 = 4 << 30;

impl Default for Options {
    fn default() -> Self {
        Self {
            max_request: Size(8 << 20),
            max_batch: 1000,
            max_subscriptions: 100,
            faults: Faults::Python,
            emit_i8: false,
            read_only: false,
        }
    }
}
