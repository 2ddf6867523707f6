//! The time of day in the local zone, formatted at most once a second per loop.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use portyard_wire::ctime::Ctime;

/// The local time zone, shared by all loops and read again on reload.
#[derive(Debug, Clone)]
pub struct Zone(Arc<ArcSwap<TimeZone>>);

/// A loop's clock. Reading the wall clock is a vDSO call; the text of a second is kept.
#[derive(Debug)]
pub struct Clock {
    zone: Zone,
    text: Cell<Option<(i64, Ctime)>>,
}

/// A moment of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970-01-01 00:00:00 UTC, negative before.
    pub seconds: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Zone {
    /// The zone of `TZ`, else of `/etc/localtime`, else UTC.
    pub fn system() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(TimeZone::system())))
    }

    /// Reads the zone again.
    pub fn reload(&self) {
        self.0.store(Arc::new(TimeZone::system()));
    }

    /// Seconds east of UTC at a moment; 0 outside the years -9999 to 9999.
    pub fn offset(&self, seconds: i64) -> i32 {
        Timestamp::from_second(seconds).map_or(0, |at| self.0.load().to_offset(at).seconds())
    }
}

impl Clock {
    /// A clock in this zone.
    pub fn new(zone: Zone) -> Self {
        Self {
            zone,
            text: Cell::new(None),
        }
    }

    /// The wall clock.
    pub fn now(&self) -> Now {
        Now::read()
    }

    /// Seconds that the local zone is east of UTC at a moment.
    pub fn offset(&self, now: Now) -> i32 {
        self.zone.offset(now.seconds)
    }

    /// The text of a moment, in Python's `time.ctime()` form.
    pub fn ctime(&self, now: Now) -> Ctime {
        match self.text.get() {
            Some((second, text)) if second == now.seconds => text,
            _ => {
                let text = Ctime::from_unix(now.seconds, self.zone.offset(now.seconds));
                self.text.set(Some((now.seconds, text)));
                text
            }
        }
    }
}

impl Now {
    /// The wall clock.
    pub fn read() -> Self {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Self {
                seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                nanoseconds: since.subsec_nanos(),
            },
            // Before 1970: the error holds how far, and the fraction counts the other way.
            Err(before) => {
                let before = before.duration();
                let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |s| -s);
                match before.subsec_nanos() {
                    0 => Self {
                        seconds,
                        nanoseconds: 0,
                    },
                    n => Self {
                        seconds: seconds.saturating_sub(1),
                        nanoseconds: 1_000_000_000 - n,
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_second_has_a_new_text() {
        let clock = Clock::new(Zone::system());
        let at = |seconds| {
            clock
                .ctime(Now {
                    seconds,
                    nanoseconds: 0,
                })
                .as_str()
                .to_owned()
        };
        let (first, same, next) = (at(1_000_000), at(1_000_000), at(1_000_001));
        assert_eq!(first, same);
        assert_ne!(first, next);
    }
}
