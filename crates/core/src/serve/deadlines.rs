//! The deadlines of a connection, and the time by which its loop counts.

use std::time::Duration;

use crate::config::StreamLimits;

/// A connection's deadlines in ticks; `Ticks::MAX` for none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) idle: Ticks,
    pub(super) write_stall: Ticks,
    pub(super) total: Ticks,
}

/// Tenths of a second. 2^32 of them are 13 years.
pub(super) type Ticks = u32;

impl Deadlines {
    /// The deadlines of a listener's connections, rounded up to tenths of a second, plus one tenth
    /// for the tick that has begun.
    pub(super) fn new(limits: &StreamLimits) -> Self {
        Self {
            idle: ticks(limits.idle.0).unwrap_or(NEVER),
            write_stall: ticks(limits.write_stall.0).unwrap_or(NEVER),
            total: ticks(limits.total.0).unwrap_or(NEVER),
        }
    }
}

/// A span in ticks, rounded up, plus one for the tick that has begun; `None` for zero.
pub(super) fn ticks(span: Duration) -> Option<Ticks> {
    let almost_a_tick = TICK.saturating_sub(Duration::from_nanos(1));
    (!span.is_zero()).then(|| whole_ticks(span + almost_a_tick).saturating_add(1))
}

/// How many ticks fit into a span. This runs for every connection: no 128-bit division.
pub(super) fn whole_ticks(span: Duration) -> Ticks {
    let ticks = span.as_secs() * 10 + u64::from(span.subsec_millis() / 100);
    Ticks::try_from(ticks).unwrap_or(NEVER - 1)
}

/// The grain of all connection deadlines.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Stands for a moment: the service works without the peer.
pub(super) const BUSY: Ticks = Ticks::MAX;
/// Stands for a moment, or a span, that does not come to its end.
pub(super) const NEVER: Ticks = Ticks::MAX;
