//! What all doors share: the store, and the room for requests under way.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::sys::statvfs::statvfs;
use portyard_core::daemon::{Asked, Shared};
use portyard_core::exit::{Exit, Fatal};
use portyard_core::listen::Inherited;
use portyard_core::observe::admin::Download;
use portyard_core::observe::metrics::Metrics;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::collector::StoreCollector;
use crate::commands::Commands;
use crate::error::MethodError;
use crate::settings::{Engine, Tables};
use crate::store::{self, Health, OpenError, Store, SystemClock};

/// The state. Cheap to clone.
#[derive(Clone, Default)]
pub struct State(Arc<Inner>);

#[derive(Default)]
struct Inner {
    store: OnceLock<Store>,
    /// Bytes of requests that are being received, and how many there may be.
    receiving: AtomicU64,
    room: OnceLock<u64>,
    /// Where the data is, if anywhere.
    directory: OnceLock<PathBuf>,
    /// A backup is being written.
    backing_up: AtomicBool,
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

    /// The store, for a call.
    pub fn opened(&self) -> Result<&Store, MethodError> {
        self.store().ok_or_else(|| MethodError::Unavailable {
            why: "the store is not open yet".into(),
            maybe_applied: false,
        })
    }

    /// Writes a backup, which has no name any more when it is returned. Blocks.
    fn back_up(&self) -> Result<File, String> {
        let (Some(store), Some(directory)) = (self.store(), self.0.directory.get()) else {
            return Err("engine = \"memory\" has nothing to back up".into());
        };
        if self.0.backing_up.swap(true, Ordering::AcqRel) {
            return Err("another backup is being written; try again later".into());
        }
        let made = back_up(store, directory);
        self.0.backing_up.store(false, Ordering::Release);
        match &made {
            Ok((_, revision)) => tracing::info!(revision, "backup made"),
            Err(why) => tracing::error!(%why, "backup failed"),
        }
        made.map(|(file, _)| file)
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
    type Settings = Tables;
    const TABLES: &'static [&'static str] = &["store"];
    type Commands = Commands;
    const DOWNLOADS: &'static [&'static str] = &[BACKUP_PAGE];

    fn check(tables: &Tables) -> Result<(), String> {
        let settings = &tables.store;
        settings.check().map_err(|why| format!("[store]: {why}"))?;
        match settings.engine {
            Engine::Memory => Ok(()),
            Engine::Redb => match settings.directory() {
                Ok(_) => Ok(()),
                Err(message) => Err(format!("[store]: {message}")),
            },
        }
    }

    fn open(&self, tables: &Tables, _: &mut Inherited) -> Result<(), Fatal> {
        let settings = &tables.store;
        if settings.engine == Engine::Memory || self.store().is_some() {
            return Ok(());
        }
        // The sandbox permits a directory that is there.
        let directory = settings.directory();
        let directory = directory.map_err(|message| Fatal::new(Exit::Config, message))?;
        if settings.directory.is_none() {
            make_above(&directory)?;
        }
        store::make_directory(&directory).map_err(|error| open_failed(&error))
    }

    fn start(
        &self,
        tables: &Tables,
        metrics: &Metrics,
        faults: &mpsc::UnboundedSender<Fatal>,
    ) -> Result<(), Fatal> {
        let settings = &tables.store;
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
                    // Left by a process that was killed while it wrote them.
                    let _ = fs::remove_file(directory.join(BACKUP_FILE));
                    let _ = fs::remove_file(directory.join(BACKUP_FILE_NEW));
                }
                // Started once.
                let _ = self.0.directory.set(directory);
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

    fn reload(&self, _: &Tables) -> Option<&'static str> {
        Some("changes of [store] take effect at the next start")
    }

    fn drain(&self) {
        if let Some(store) = self.store() {
            store.dismiss_watchers();
        }
    }

    async fn stop(&self) {
        // The loops are gone, so nothing more comes; what is queued is synced.
        if let Some(store) = self.store()
            && let Health::Failed(why) = store.close().await
        {
            tracing::error!(%why, "the store did not close in order");
        }
    }

    fn status(&self) -> Map<String, Value> {
        let Some(store) = self.store() else {
            return Map::new();
        };
        let capabilities = store.capabilities();
        let history = store.history();
        let status = json!({
            "engine": capabilities.engine,
            "durable": capabilities.durable,
            "directory": self.0.directory.get(),
            "health": match store.health() {
                Health::Serving => "serving".into(),
                Health::Closed => "closed".into(),
                Health::Failed(why) => format!("failed: {why}"),
            },
            "keys": store.len(),
            "revision": store.revision(),
            "bytes": store.metrics().bytes.load(Ordering::Relaxed),
            "waiting": store.metrics().waiting.load(Ordering::Relaxed),
            "watchers": store.metrics().watchers.load(Ordering::Relaxed),
            "history": {
                "oldest": history.oldest,
                "events": history.events,
                "bytes": history.bytes,
            },
            "receiving_bytes": self.0.receiving.load(Ordering::Relaxed),
        });
        Map::from_iter([("store".into(), status)])
    }

    fn download(&self, _: &str) -> Download {
        let state = self.clone();
        Box::pin(async move {
            let (sender, made) = oneshot::channel();
            let thread = thread::Builder::new().name("backup".into());
            // Nobody may be there any more to take it; then it is gone.
            let spawned = thread.spawn(move || drop(sender.send(state.back_up())));
            spawned.map_err(|error| format!("no thread for a backup: {error}"))?;
            made.await
                .unwrap_or_else(|_| Err("the backup broke off".into()))
        })
    }

    fn command(commands: &Commands, asked: &Asked<'_, Self>) -> Option<Result<String, Fatal>> {
        commands.run(asked)
    }
}

/// Makes what is above a directory that nobody has named.
fn make_above(directory: &Path) -> Result<(), Fatal> {
    let Some(above) = directory.parent() else {
        return Ok(());
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(above);
    made.map_err(|error| Fatal::new(Exit::Io, format!("{}: {error}", above.display())))
}

fn back_up(store: &Store, directory: &Path) -> Result<(File, u64), String> {
    // A store whose disk is full fails for good; a backup must never be what fills it.
    let needed = fs::metadata(directory.join(store::DATA_FILE)).map_or(0, |data| data.len());
    let disk = statvfs(directory).map_err(|errno| format!("{}: {errno}", directory.display()))?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if free < needed.saturating_add(RESERVE) {
        return Err(format!(
            "{} has {free} bytes free, a backup may take {needed} and must leave {RESERVE}",
            directory.display()
        ));
    }
    let path = directory.join(BACKUP_FILE);
    let revision = store::backup(store, &path).map_err(|error| error.to_string())?;
    let opened = File::open(&path);
    let removed = fs::remove_file(&path);
    let file = opened.and_then(|file| removed.map(|()| file));
    file.map(|file| (file, revision))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// What the failure to open a store means for a program.
pub fn open_failed(error: &OpenError) -> Fatal {
    let exit = match error {
        OpenError::Locked { .. } => Exit::Unavailable,
        OpenError::Exposed { .. } | OpenError::Foreign { .. } => Exit::NoPermission,
        OpenError::Io { .. } => Exit::Io,
        OpenError::NotADirectory(_) => Exit::Config,
        _ => Exit::Data,
    };
    Fatal::new(exit, error.to_string())
}

/// Where the admin endpoint has backups.
pub const BACKUP_PAGE: &str = "/backup";
/// A backup while it is made, in the directory of the data.
const BACKUP_FILE: &str = "backup.redb";
const BACKUP_FILE_NEW: &str = "backup.redb.new";
/// What a backup leaves free for the store itself.
const RESERVE: u64 = 64 << 20;
/// What a connection may receive without asking.
const SMALL: u64 = 64 << 10;
