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
    /// Refuses what nothing could be stored with.
    pub fn check(&self) -> Result<(), String> {
        for (key, is_none) in [
            ("max_keys", self.max_keys == 0),
            ("max_key", self.max_key.0 == 0),
            ("max_value", self.max_value.0 == 0),
            ("max_total", self.max_total.0 == 0),
            ("max_waiting", self.max_waiting == 0),
        ] {
            if is_none {
                return Err(format!(
                    "{key} = 0 lets nothing be stored; take it out for the default, or set \
                     read_only = true in the options of a listener to refuse changes"
                ));
            }
        }
        if self.engine == Engine::Memory && self.require_durable {
            return Err(
                "require_durable = true needs engine = \"redb\": what \"memory\" has acknowledged \
                 is gone with the process"
                    .into(),
            );
        }
        Ok(())
    }

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
    /// Refuses what no client could work with, and what this service does not know.
    pub fn check(&self, service: &str) -> Result<(), String> {
        let bytes = self.max_request.0;
        if !(REQUEST_MIN..=REQUEST_MAX).contains(&bytes) {
            return Err(format!(
                "options.max_request is {bytes} bytes; it can be from {REQUEST_MIN} bytes, which a \
                 short call takes, to 4GiB"
            ));
        }
        if self.max_batch == 0 {
            return Err(
                "options.max_batch = 0 would refuse every batch; it can be 1 or more".into(),
            );
        }
        if self.max_subscriptions > SUBSCRIPTIONS_MAX {
            return Err(format!(
                "options.max_subscriptions can be at most {SUBSCRIPTIONS_MAX}: each is looked at \
                 after each change; subscribe to a shorter prefix, or use more connections"
            ));
        }
        let default = Self::default();
        for (key, of, is_set) in [
            ("max_batch", "json-rpc", self.max_batch != default.max_batch),
            (
                "max_subscriptions",
                "json-rpc",
                self.max_subscriptions != default.max_subscriptions,
            ),
            ("faults", "xml-rpc", self.faults != default.faults),
            ("emit_i8", "xml-rpc", self.emit_i8 != default.emit_i8),
        ] {
            if is_set && service != of {
                return Err(format!(
                    "options.{key} is for {of} alone and would do nothing here; take it out"
                ));
            }
        }
        Ok(())
    }
}

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

/// Bytes of the shortest call in XML, and some.
const REQUEST_MIN: u64 = 256;
/// Four bytes of length announce no more.
const REQUEST_MAX: u64 = 4 << 30;
const SUBSCRIPTIONS_MAX: u32 = 10_000;
