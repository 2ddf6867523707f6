//! At most one log line a second for something that may happen a million times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets one event a second through and counts the rest.
#[derive(Debug)]
pub struct Throttle {
    start: Instant,
    /// The last second in which an event passed, plus one; 0: none has.
    last: AtomicU64,
    held: AtomicU64,
}

impl Throttle {
    /// A throttle that lets the first event through.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            last: 0.into(),
            held: 0.into(),
        }
    }

    /// `Some(held)` when this event may be logged: `held` came since the last one that was.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(self.start.elapsed().as_secs())
    }

    fn pass_at(&self, second: u64) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        let passes = last <= second
            && self
                .last
                .compare_exchange(last, second + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if passes {
            Some(self.held.swap(0, Ordering::Relaxed))
        } else {
            self.held.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes_and_says_how_many_were_held() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass_at(0), Some(0));
        assert_eq!(throttle.pass_at(0), None);
        assert_eq!(throttle.pass_at(0), None);
        assert_eq!(throttle.pass_at(1), Some(2));
        assert_eq!(throttle.pass_at(7), Some(0));
    }
}
