//! Events as values, and the method that waits for some.

use std::time::Duration;

use portyard_wire::value::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    Begun, Reply, beginning, int, map, milliseconds, page_limit, seconds_left, take, wrong_kind,
};
use crate::error::MethodError;
use crate::store::{Change, Event, EventPage, Store, StoreError, WatchEnd, Watcher};

/// A watch as a caller asks for it.
pub struct Watched {
    /// It.
    pub watcher: Watcher,
    /// The first revision whose events it tells.
    pub from: u64,
}

impl Watched {
    /// Of keys that begin with `prefix` (nil: of all), from `from` on (nil: from now on).
    pub fn begin(store: &Store, prefix: Value, from: &Value) -> Result<Self, MethodError> {
        let prefix = beginning(prefix)?;
        let from = match from {
            Value::Nil => {
                let (watcher, from) = store.watch_from_now(prefix);
                return Ok(Self { watcher, from });
            }
            Value::Int(from) => u64::try_from(*from).ok().filter(|from| *from > 0),
            other => return Err(wrong_kind("from_revision", "an integer", other)),
        };
        let from = from.ok_or_else(|| {
            MethodError::Value("from_revision is not positive; the first revision is 1".into())
        })?;
        let watcher = store.watch(prefix, from)?;
        Ok(Self { watcher, from })
    }
}

/// Waits for events, and tells them with the revision from which to go on.
pub fn watch(store: &Store, arguments: Vec<Value>) -> Result<Begun, MethodError> {
    let [prefix, from, timeout, limit] = take(arguments);
    let timeout = match timeout {
        Value::Nil => WAIT_DEFAULT,
        seconds => Duration::from_millis(milliseconds("timeout", &seconds)?).min(WAIT_MAX),
    };
    let limit = page_limit(&limit)?;
    let Watched { mut watcher, .. } = Watched::begin(store, prefix, &from)?;
    let store = store.clone();
    Ok(Begun::Waits(Box::pin(async move {
        let deadline = Instant::now() + timeout;
        let page = loop {
            let page = look(&mut watcher, limit)?;
            if !page.events.is_empty() {
                break page;
            }
            if page.more {
                tokio::task::yield_now().await;
                continue;
            }
            match timeout_at(deadline, watcher.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(WatchEnd::Closed)) => return Err(StoreError::Closed.into()),
                // Nothing has happened for so long, or there is no time to wait for more.
                Err(_) | Ok(Err(_)) => break look(&mut watcher, limit)?,
            }
        };
        let now = store.now();
        let events = page.events.into_iter().map(|told| event(told, now));
        let told = [
            ("events", Value::List(events.collect())),
            ("next", int(page.next)),
        ];
        Ok(Reply::Events(map(told)))
    })))
}

fn look(watcher: &mut Watcher, limit: usize) -> Result<EventPage, MethodError> {
    let page = watcher.page(limit, PAGE_BYTES);
    page.map_err(|end| match end {
        WatchEnd::Lagged { resume } => MethodError::History {
            why: end.to_string(),
            resume,
        },
        // A look alone does not end in another way.
        WatchEnd::Closed | WatchEnd::Dismissed => StoreError::Closed.into(),
    })
}

/// An event as callers see it.
pub fn event(event: Event, now: u64) -> Value {
    let key = ("key", event.key.to_value());
    let revision = ("revision", int(event.revision));
    match event.change {
        Change::Set(entry) => map([
            ("type", "set".into()),
            key,
            ("value", Value::clone(&entry.value)),
            revision,
            ("ttl", seconds_left(entry.expires, now)),
        ]),
        Change::Deleted => map([("type", "delete".into()), key, revision]),
        Change::Expired => map([("type", "expire".into()), key, revision]),
    }
}

/// How long a call waits for an event: in silence, less than a minute passes through most proxies.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// About how much one answer holds, in memory.
const PAGE_BYTES: u64 = 1 << 20;
