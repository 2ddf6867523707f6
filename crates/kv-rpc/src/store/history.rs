//! The latest events, and who watches them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::batch::Entry;
use super::committer::{Health, Shared, Status};
use super::key::{Key, Prefix};
use super::limits::Limits;
use super::metrics::{Metrics, add};

/// What happened to a key. All events of a batch have its revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub revision: u64,
    /// To which key.
    pub key: Key,
    /// What.
    pub change: Change,
}

/// What may happen to a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It was set, or its end was.
    Set(Entry),
    /// It was deleted.
    Deleted,
    /// It has ended.
    Expired,
}

/// Why a watch cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// What happened at that revision is not kept any more.
    #[error("the history begins at revision {oldest}; read everything, and watch from there")]
    Compacted {
        /// The first revision from which one can watch.
        oldest: u64,
    },
    /// That revision lies further ahead than the next.
    #[error("the store is at revision {revision} only; has it been restored from a backup?")]
    Ahead {
        /// The latest revision.
        revision: u64,
    },
}

impl WatchError {
    /// The first revision from which one can watch.
    pub const fn resume(&self) -> u64 {
        match self {
            Self::Compacted { oldest } => *oldest,
            Self::Ahead { revision } => *revision + 1,
        }
    }
}

/// What has happened since a watcher last looked: whole revisions, so that a watch that begins at
/// `next` neither misses nor repeats an event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventPage {
    /// What happened to the watched keys, in order.
    pub events: Vec<Event>,
    /// The first revision that was not looked at.
    pub next: u64,
    /// Whether there is more to look at already.
    pub more: bool,
}

/// Why there is no next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// Events were dropped before the watcher took them. It may go on with what is kept, but has missed
    /// something: read everything again first.
    #[error("events before revision {resume} were missed")]
    Lagged {
        /// Where the watch goes on.
        resume: u64,
    },
    /// The store is closed, or has failed.
    #[error("the store is closed")]
    Closed,
    /// The store goes on, but nobody is to wait any more: the daemon is about to stop.
    #[error("the daemon is about to stop")]
    Dismissed,
}

/// A place in the history. It keeps nothing of its own, so that a slow one costs no memory.
pub struct Watcher {
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    prefix: Option<Prefix>,
    /// The number of the next event to look at.
    next: u64,
    _counted: Counted,
}

/// Counts a watcher for as long as it is there.
struct Counted(Arc<Shared>);

/// The latest events, of whole revisions only.
pub struct History {
    events: VecDeque<Event>,
    /// The number of the first event that is kept.
    first: u64,
    /// The first revision whose events are all kept.
    oldest: u64,
    bytes: u64,
}

impl Watcher {
    pub(super) fn new(
        shared: Arc<Shared>,
        prefix: Option<Prefix>,
        from: u64,
    ) -> Result<Self, WatchError> {
        let next = shared.view(|index, history| history.find(from, index.state.revision))?;
        Ok(Self::at(shared, prefix, next))
    }

    /// From now on.
    pub(super) fn now(shared: Arc<Shared>, prefix: Option<Prefix>) -> (Self, u64) {
        let (next, revision) = shared.view(|index, history| (history.end(), index.state.revision));
        (Self::at(shared, prefix, next), revision + 1)
    }

    fn at(shared: Arc<Shared>, prefix: Option<Prefix>, next: u64) -> Self {
        Self {
            status: shared.status(),
            _counted: Counted::new(shared.clone()),
            shared,
            prefix,
            next,
        }
    }

    /// What has happened since, without a wait: about `limit` events that take about `bytes`, and more
    /// where a revision goes on. After an error the watch goes on with what is kept.
    pub fn page(&mut self, limit: usize, bytes: u64) -> Result<EventPage, WatchEnd> {
        // What is committed from here on wakes `changed`.
        self.status.borrow_and_update();
        let prefix = self.prefix.as_ref();
        let page = self.shared.view(|index, history| {
            let skip = history.place(&mut self.next)?;
            let (mut events, mut taken, mut last) = (Vec::new(), 0, None);
            for (looked, event) in history.events.range(skip..).enumerate() {
                let is_enough = events.len() >= limit || taken >= bytes || looked >= LOOK_MAX;
                if is_enough && last != Some(event.revision) {
                    self.next += looked as u64;
                    return Ok(EventPage {
                        events,
                        next: event.revision,
                        more: true,
                    });
                }
                last = Some(event.revision);
                if prefix.is_none_or(|prefix| prefix.matches(&event.key)) {
                    taken += event.size();
                    events.push(event.clone());
                }
            }
            self.next = history.end();
            Ok(EventPage {
                events,
                next: index.state.revision + 1,
                more: false,
            })
        });
        let metrics = &self.shared.metrics;
        match &page {
            Ok(page) => add(&metrics.events, page.events.len() as u64),
            Err(_) => add(&metrics.lagged, 1),
        }
        page
    }

    /// Waits until something may have happened since the last look. What has, a last look shows after an
    /// error too. Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) -> Result<(), WatchEnd> {
        self.status().end()?;
        let changed = self.status.changed().await;
        changed.map_err(|_| WatchEnd::Closed)?;
        self.status().end()
    }

    fn status(&self) -> watch::Ref<'_, Status> {
        self.status.borrow()
    }

    /// Waits for the next event. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Event, WatchEnd> {
        loop {
            // Read first: what happens from here on wakes us.
            let ended = self.status.borrow_and_update().health != Health::Serving;
            match self.look()? {
                Look::Event(event) => return Ok(event),
                Look::More => tokio::task::yield_now().await,
                Look::Nothing if ended => return Err(WatchEnd::Closed),
                Look::Nothing => {
                    if self.status.changed().await.is_err() {
                        return Err(WatchEnd::Closed);
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Result<Look, WatchEnd> {
        let (next, prefix) = (&mut self.next, self.prefix.as_ref());
        self.shared.view(|_, history| {
            let skip = history.place(next)?;
            let mut looked = 0;
            for event in history.events.range(skip..).take(LOOK_MAX) {
                *next += 1;
                looked += 1;
                if prefix.is_none_or(|prefix| prefix.matches(&event.key)) {
                    return Ok(Look::Event(event.clone()));
                }
            }
            Ok(if looked == LOOK_MAX {
                Look::More
            } else {
                Look::Nothing
            })
        })
    }
}

impl Status {
    /// Why nobody is to wait any more, if so.
    fn end(&self) -> Result<(), WatchEnd> {
        match self {
            status if status.health != Health::Serving => Err(WatchEnd::Closed),
            status if status.dismissed => Err(WatchEnd::Dismissed),
            _ => Ok(()),
        }
    }
}

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.metrics.watchers.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let metrics: &Metrics = &self.0.metrics;
        metrics.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Look {
    Event(Event),
    More,
    Nothing,
}

impl History {
    /// An empty one, after `revision`.
    pub fn after(revision: u64) -> Self {
        Self {
            events: VecDeque::new(),
            first: 0,
            oldest: revision + 1,
            bytes: 0,
        }
    }

    /// The first revision from which one can watch, and how many events are kept of how many bytes.
    pub fn extent(&self) -> (u64, u64, u64) {
        (self.oldest, self.events.len() as u64, self.bytes)
    }

    /// Adds events, and drops the oldest ones that are over the limits. The last revision stays, however
    /// large it is: or watchers that keep up would miss it.
    pub fn add(&mut self, events: Vec<Event>, limits: &Limits) {
        for event in events {
            self.bytes += event.size();
            self.events.push_back(event);
        }
        let last = self.events.back().map(|event| event.revision);
        while (self.events.len() as u64 > limits.history || self.bytes > limits.history_bytes)
            && self.events.front().map(|event| event.revision) != last
        {
            let Some(dropped) = self.drop_first() else {
                break;
            };
            self.oldest = dropped + 1;
            // Half a revision would be a lie.
            while self
                .events
                .front()
                .is_some_and(|event| event.revision == dropped)
            {
                self.drop_first();
            }
        }
    }

    /// The number of the first event at or after revision `from`.
    fn find(&self, from: u64, latest: u64) -> Result<u64, WatchError> {
        if from < self.oldest {
            let oldest = self.oldest;
            return Err(WatchError::Compacted { oldest });
        }
        if from > latest.saturating_add(1) {
            return Err(WatchError::Ahead { revision: latest });
        }
        let before = self.events.partition_point(|event| event.revision < from);
        Ok(self.first + before as u64)
    }

    /// Where the event with that number is, or the first one behind those that were dropped before
    /// anybody looked at them.
    fn place(&self, number: &mut u64) -> Result<usize, WatchEnd> {
        let Some(skip) = number.checked_sub(self.first) else {
            *number = self.first;
            let resume = self.oldest;
            return Err(WatchEnd::Lagged { resume });
        };
        // No number is beyond the end.
        Ok(usize::try_from(skip).map_or(0, |skip| skip.min(self.events.len())))
    }

    /// The number of the next event that will be added.
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn drop_first(&mut self) -> Option<u64> {
        let event = self.events.pop_front()?;
        self.first += 1;
        self.bytes -= event.size();
        Some(event.revision)
    }
}

impl Event {
    fn size(&self) -> u64 {
        let value = match &self.change {
            Change::Set(entry) => entry.value.size(),
            Change::Deleted | Change::Expired => 0,
        };
        (size_of::<Self>() + self.key.size() + value) as u64
    }
}

/// How many events a watcher looks at before others have their turn.
const LOOK_MAX: usize = 1_000;
