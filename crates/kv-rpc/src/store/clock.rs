//! The time by which entries end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time. Tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970 (UTC).
    fn now(&self) -> u64;
}

/// The wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }
}

/// A clock that never goes back: what has ended would otherwise be there again, though nobody set it.
/// Only a restart follows a wall clock that was set back.
pub(super) struct Time {
    clock: Arc<dyn Clock>,
    latest: AtomicU64,
}

impl Time {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            latest: AtomicU64::new(0),
        }
    }

    /// Milliseconds since 1970, never less than before.
    pub fn now(&self) -> u64 {
        let now = self.clock.now();
        now.max(self.latest.fetch_max(now, Ordering::SeqCst))
    }
}
