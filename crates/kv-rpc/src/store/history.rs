//! The latest events, and who watches them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::batch::Entry;
use super::committer::{Health, Shared, Status};
use super::key::{Key, Prefix};
use super::limits::Limits;

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
}

/// A place in the history. It keeps nothing of its own, so that a slow one costs no memory.
pub struct Watcher {
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    prefix: Option<Prefix>,
    /// The number of the next event to look at.
    next: u64,
}

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
        let status = shared.status();
        Ok(Self {
            shared,
            status,
            prefix,
            next,
        })
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
            let Some(skip) = next.checked_sub(history.first) else {
                *next = history.first;
                let resume = history.oldest;
                return Err(WatchEnd::Lagged { resume });
            };
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            let mut looked = 0;
            for event in history.events.iter().skip(skip).take(LOOK_MAX) {
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

    /// Adds events, and drops the oldest ones that are over the limits.
    pub fn add(&mut self, events: Vec<Event>, limits: &Limits) {
        for event in events {
            self.bytes += event.size();
            self.events.push_back(event);
        }
        while self.events.len() as u64 > limits.history || self.bytes > limits.history_bytes {
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
