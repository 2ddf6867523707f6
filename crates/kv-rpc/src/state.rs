//! What all doors share: the store, and the room for requests under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use portyard_core::daemon::Shared;
use portyard_core::exit::{Exit, Fatal};
use portyard_core::observe::metrics::Metrics;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::collector::StoreCollector;
use crate::settings::{Engine, Settings};
use crate::store::{Health, OpenError, Store, SystemClock};

/// The state. Cheap to clone.
#[derive(Clone, Default)]
pub struct State(Arc<Inner>);

#[derive(Default)]
struct Inner {
    store: OnceLock<Store>,
    /// Bytes of requests that are being received, and how many there may be.
    receiving: AtomicU64,
    room: OnceLock<u64>,
}

/// A share of the room for requests. Dropping it gives it back.
pub struct Room {
    state: State,
    bytes: u64,
}

impl State {
    /// The store, which is open before the first connection comes.
    pub fn store(&self) -> Option<&Store> {
        self.0.store.get()
    }

    /// A share of the room, empty at first.
    pub fn room(&self) -> Room {
        Room {
            state: self.clone(),
            bytes: 0,
        }
    }
}

impl Room {
    /// Grows to so many bytes in all, if there is room. Small requests are not counted: there are no
    /// more of them than connections.
    pub fn grow(&mut self, bytes: u64) -> bool {
        if bytes <= SMALL || bytes <= self.bytes {
            return true;
        }
        let more = bytes - self.bytes;
        let limit = self.state.0.room.get().copied().unwrap_or(u64::MAX);
        let receiving = &self.state.0.receiving;
        let grown = receiving.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |present| {
            present.checked_add(more).filter(|sum| *sum <= limit)
        });
        if grown.is_ok() {
            self.bytes = bytes;
        }
        grown.is_ok()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.state
            .0
            .receiving
            .fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Shared for State {
    type Settings = Settings;
    const TABLE: &'static str = "store";

    fn check(settings: &Settings) -> Result<(), String> {
        match settings.engine {
            Engine::Memory if settings.require_durable => Err(
                "require_durable = true needs engine = \"redb\": what \"memory\" has acknowledged \
                 is gone with the process"
                    .into(),
            ),
            Engine::Memory => Ok(()),
            Engine::Redb => settings.directory().map(|_| ()),
        }
    }

    fn start(
        &self,
        settings: &Settings,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        let clock = Arc::new(SystemClock);
        let store = match settings.engine {
            Engine::Memory => Store::memory(settings.limits(), clock),
            Engine::Redb => {
                let directory = settings
                    .directory()
                    .map_err(|message| Fatal::new(Exit::Config, message))?;
                let opened = Store::open(&directory, settings.limits(), clock);
                if let Ok(store) = &opened {
                    tracing::info!(
                        directory = %directory.display(), keys = store.len(),
                        revision = store.revision(), "store open"
                    );
                }
                opened
            }
        };
        let store = store.map_err(|error| open_failed(&error))?;
        metrics.register(|registry| {
            registry.register_collector(Box::new(StoreCollector(store.clone())));
        });
        // What has failed on the disk cannot be trusted any more: the daemon closes its doors and ends.
        let (watched, faults) = (store.clone(), faults.clone());
        tokio::task::spawn_local(async move {
            let why = watched.failed().await;
            let message = format!("the store has failed, nothing more is acknowledged: {why}");
            let _ = faults.send(Fatal::new(Exit::Io, message));
        });
        let _ = self.0.room.set(settings.max_receiving.0);
        // Started once.
        let _ = self.0.store.set(store);
        Ok(())
    }

    fn reload(&self, _: &Settings) -> Option<&'static str> {
        Some("changes of [store] take effect at the next start")
    }

    async fn stop(&self) {
        // The loops are gone, so nothing more comes; what is queued is synced.
        if let Some(store) = self.store()
            && let Health::Failed(why) = store.close().await
        {
            tracing::error!(%why, "the store did not close in order");
        }
    }

    fn status(&self) -> Option<Value> {
        let store = self.store()?;
        let capabilities = store.capabilities();
        Some(json!({
            "engine": capabilities.engine,
            "durable": capabilities.durable,
            "health": match store.health() {
                Health::Serving => "serving".into(),
                Health::Closed => "closed".into(),
                Health::Failed(why) => format!("failed: {why}"),
            },
            "keys": store.len(),
            "revision": store.revision(),
            "bytes": store.metrics().bytes.load(Ordering::Relaxed),
            "waiting": store.metrics().waiting.load(Ordering::Relaxed),
            "receiving_bytes": self.0.receiving.load(Ordering::Relaxed),
        }))
    }
}

fn open_failed(error: &OpenError) -> Fatal {
    let exit = match error {
        OpenError::Locked { .. } => Exit::Unavailable,
        OpenError::Exposed { .. } | OpenError::Foreign { .. } => Exit::NoPermission,
        OpenError::Io { .. } => Exit::Io,
        _ => Exit::Data,
    };
    Fatal::new(exit, error.to_string())
}

/// What a connection may receive without asking.
const SMALL: u64 = 64 << 10;
