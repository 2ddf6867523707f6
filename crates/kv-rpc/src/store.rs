//! The store: typed keys and values, in order, with revisions, conditions, ends and watches.
//!
//! All entries lie in memory, in an index (`index`); reads take them from there and never wait for
//! a disk. A [`Batch`] goes through a queue to the `committer`, the one thread that changes
//! anything: it tries batches on a `draft`, has the engine (`persistence`) make them safe in one
//! commit, and then shows them to readers, to those who wait and to watchers (`history`).
//!
//! Two promises follow. An acknowledged batch is on the disk, and so is whatever anybody has read. And
//! a batch happens whole or not at all, at one revision.
//!
//! Keys are equal where Python's are (`key`). An overwritten key keeps its place in the order, one
//! that was deleted and set again comes last.

mod backup;
mod batch;
mod clock;
mod committer;
mod directory;
mod disk;
mod draft;
mod encoding;
mod error;
mod fuse;
mod history;
mod index;
mod key;
mod limits;
mod load;
mod metrics;
mod overlay;
mod persistence;

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use backup::{Report, backup, restore, verify};
pub use batch::{Answer, Batch, Compare, Entry, Only, Operation, Outcome, Ttl};
pub use clock::{Clock, SystemClock};
pub use committer::Health;
pub use directory::make as make_directory;
pub use disk::{DATA_FILE, Disk};
pub use error::{OpenError, StoreError};
pub use history::{Change, Event, EventPage, WatchEnd, WatchError, Watcher};
pub use key::{Key, KeyError, Prefix};
pub use limits::Limits;
pub use metrics::{BUCKETS, Histogram, Metrics};
pub use persistence::{Changes, Memory, Persistence, State};

use clock::Time;
use committer::{Promise, Shared, Submitted};
use index::Record;

/// A handle to a store. Cheap to clone, and usable from any thread and any loop. Dropping the last one
/// closes the store, and waits for what is queued.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    capabilities: Capabilities,
    _owner: Arc<Owner>,
}

/// A batch that was handed over.
pub enum Applied {
    /// Nothing was to wait for.
    Done(Result<Outcome, StoreError>),
    /// It waits for the disk.
    Queued(Safe),
}

/// The moment from which a batch is on the disk.
pub struct Safe {
    promise: Promise,
    shared: Arc<Shared>,
}

/// What a store promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The engine, in one word.
    pub engine: &'static str,
    /// Whether what is acknowledged survives the loss of power.
    pub durable: bool,
    /// The order of keys.
    pub order: Order,
    /// The steps, in milliseconds, in which an end can be told.
    pub ttl_grain: u64,
    /// How many bytes a value may take in memory.
    pub value_bytes: u64,
    /// Whether a watch can begin in the past, within what is kept.
    pub watch_resume: bool,
}

/// An order of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they were first set, Python's order.
    Insertion,
}

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

/// A part of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The entries, in order. There may be none though more follow.
    pub entries: Vec<(Key, Entry)>,
    /// Where the next page begins; `None` at the end.
    pub cursor: Option<Cursor>,
    /// The revision that was looked at.
    pub revision: u64,
}

/// The events that are kept for watchers that begin in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The first revision from which one can watch.
    pub oldest: u64,
    /// How many events.
    pub events: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

/// All entries at one revision, in order.
pub struct Snapshot {
    revision: u64,
    records: std::vec::IntoIter<Arc<Record>>,
}

/// Ends the committer with the last handle.
struct Owner {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// A store that forgets everything when it is closed.
    pub fn memory(limits: Limits, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Self::start(Box::new(Memory), limits, clock)
    }

    /// The store in a directory, which is made if it is not there. Reads everything, and refuses
    /// whatever cannot be right. Blocks.
    pub fn open(
        directory: &Path,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::start(Box::new(directory::open(directory)?), limits, clock)
    }

    /// A store on any engine.
    pub fn start(
        mut engine: Box<dyn Persistence>,
        limits: Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let index = match load::load(&mut *engine) {
            Ok(index) => index,
            Err(error) => {
                engine.abandon();
                return Err(error);
            }
        };
        let capabilities = Capabilities {
            engine: engine.name(),
            durable: engine.durable(),
            order: Order::Insertion,
            ttl_grain: 1,
            value_bytes: limits.value_bytes,
            watch_resume: true,
        };
        let shared = Arc::new(Shared::new(
            index,
            limits,
            Time::new(clock),
            engine.durable(),
        ));
        let thread = thread::Builder::new().name("committer".into());
        let thread = thread.spawn({
            let shared = shared.clone();
            move || shared.work(engine)
        });
        let thread = Some(thread.map_err(OpenError::at("a thread"))?);
        let owner = shared.clone();
        Ok(Self {
            shared,
            capabilities,
            _owner: Arc::new(Owner {
                shared: owner,
                thread,
            }),
        })
    }

    /// What is stored under a key. Never waits for the disk.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        let now = self.shared.time.now();
        self.shared.view(|index, _| {
            let record = index.find(key).filter(|record| !record.ended(now));
            record.map(|record| record.entry.clone())
        })
    }

    /// Whether something is stored under a key.
    pub fn exists(&self, key: &Key) -> bool {
        self.get(key).is_some()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        let now = self.shared.time.now();
        self.shared.view(|index, _| index.alive(now))
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The latest revision; 0 when nothing was ever set.
    pub fn revision(&self) -> u64 {
        self.shared.view(|index, _| index.state.revision)
    }

    /// The time by which entries end, in milliseconds since 1970 (UTC).
    pub fn now(&self) -> u64 {
        self.shared.time.now()
    }

    /// All keys in order, each in the form in which it was first set. Takes time and memory for all;
    /// [`Store::scan`] goes in steps.
    pub fn keys(&self) -> Vec<Key> {
        let now = self.shared.time.now();
        self.shared.view(|index, _| {
            let alive = index.after(None).filter(|record| !record.ended(now));
            alive.map(|record| record.key.clone()).collect()
        })
    }

    /// At most `limit` entries in order, of keys that begin with `prefix`, from the one after `after`.
    /// One call looks at a bounded number of keys. What is set or deleted between two calls may be
    /// seen or not; what stays is seen once.
    pub fn scan(&self, prefix: Option<&Prefix>, after: Option<Cursor>, limit: usize) -> Page {
        let now = self.shared.time.now();
        self.shared.view(|index, _| {
            let mut page = Page {
                entries: Vec::new(),
                cursor: None,
                revision: index.state.revision,
            };
            let mut last = after;
            let mut records = index.after(after.map(|Cursor(place)| place));
            for _ in 0..SCAN_MAX {
                if page.entries.len() >= limit {
                    break;
                }
                let Some(record) = records.next() else {
                    return page;
                };
                last = Some(Cursor(record.place));
                let matches = prefix.is_none_or(|prefix| prefix.matches(&record.key));
                if matches && !record.ended(now) {
                    page.entries
                        .push((record.key.clone(), record.entry.clone()));
                }
            }
            if records.next().is_some() {
                page.cursor = last.or(Some(Cursor(0)));
            }
            page
        })
    }

    /// All entries at one revision. Holds them until it is dropped, whatever happens to them.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.shared.time.now();
        let (state, mut records) = self.records();
        records.retain(|record| !record.ended(now));
        Snapshot {
            revision: state.revision,
            records: records.into_iter(),
        }
    }

    /// Applies a batch: whole, at one revision, and safe when the future is ready with `Ok`. It is
    /// queued (or, without a disk, done) at once, in the order of the calls; dropping the future does not take it back.
    pub fn apply(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<Outcome, StoreError>> + Send + use<> {
        let applied = self.submit(batch);
        async move {
            match applied {
                Applied::Done(outcome) => outcome,
                Applied::Queued(safe) => safe.wait().await,
            }
        }
    }

    /// As [`Store::apply`], for who can go on at once where there is no disk to wait for.
    pub fn submit(&self, batch: Batch) -> Applied {
        match self.shared.submit(batch) {
            Ok(Submitted::Done(outcome)) => Applied::Done(Ok(outcome)),
            Ok(Submitted::Queued(promise)) => Applied::Queued(Safe {
                promise,
                shared: self.shared.clone(),
            }),
            Err(error) => Applied::Done(Err(error)),
        }
    }

    /// Watches keys that begin with `prefix`, from the first event of revision `from`. The next
    /// revision means: from now on.
    pub fn watch(&self, prefix: Option<Prefix>, from: u64) -> Result<Watcher, WatchError> {
        Watcher::new(self.shared.clone(), prefix, from)
    }

    /// Watches keys that begin with `prefix` from now on, and tells the revision at which that is.
    pub fn watch_from_now(&self, prefix: Option<Prefix>) -> (Watcher, u64) {
        Watcher::now(self.shared.clone(), prefix)
    }

    /// Lets everybody go who waits in [`Watcher::changed`], now and from now on; all else goes on.
    pub fn dismiss_watchers(&self) {
        self.shared.dismiss();
    }

    /// What of the past can be watched.
    pub fn history(&self) -> Kept {
        let (oldest, events, bytes) = self.shared.view(|_, history| history.extent());
        Kept {
            oldest,
            events,
            bytes,
        }
    }

    /// Whether the store serves.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Waits until the store has failed, and says why. Never ready when it is closed in peace. The
    /// daemon should then close its doors and end, and tell so by its exit code.
    pub async fn failed(&self) -> Arc<str> {
        match self.shared.ended().await {
            Health::Failed(reason) => reason,
            Health::Serving | Health::Closed => std::future::pending().await,
        }
    }

    /// What the store promises.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// What it has done.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Lets nothing more in, waits for what is queued, and returns how it ended. Reads go on from
    /// memory.
    pub async fn close(&self) -> Health {
        self.shared.close();
        self.shared.ended().await
    }

    /// All records at one revision, ended ones among them.
    fn records(&self) -> (State, Vec<Arc<Record>>) {
        self.shared.view(|index, _| {
            let records = index.after(None).cloned().collect();
            (index.state, records)
        })
    }
}

impl Safe {
    /// Waits for it. Dropping the future does not take the batch back.
    pub async fn wait(self) -> Result<Outcome, StoreError> {
        if let Ok(answer) = self.promise.await {
            return answer;
        }
        // The committer has ended in the middle of it.
        let reason = match self.shared.ended().await {
            Health::Failed(reason) => reason,
            Health::Serving | Health::Closed => "the committer has ended".into(),
        };
        Err(StoreError::Failed {
            reason,
            maybe_applied: true,
        })
    }
}

impl Snapshot {
    /// The revision at which they are.
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Iterator for Snapshot {
    type Item = (Key, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        Some((record.key.clone(), record.entry.clone()))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

/// How many keys one call of [`Store::scan`] looks at; it holds up the committer meanwhile.
const SCAN_MAX: usize = 10_000;
