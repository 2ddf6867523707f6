//! What has happened in a pool.

use std::sync::atomic::{AtomicU64, Ordering};

use super::machine::Unserved;

/// Numbers that only grow.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that came.
    pub arrived: AtomicU64,
    /// Connections that workers took.
    pub taken: AtomicU64,
    /// Connections that ended at their workers.
    pub done: AtomicU64,
    /// Connections whose workers left before their end was known.
    pub released: AtomicU64,
    /// Offers that workers refused.
    pub refused: AtomicU64,
    /// Offers that went to another worker because the first one was gone.
    pub redelivered: AtomicU64,
    /// Connections that died with a worker which might have used them.
    pub lost: AtomicU64,
    /// Workers that were parted with: they did not answer, or broke the rules.
    pub cut: AtomicU64,
    /// Connections that nobody served, by [`Unserved`].
    pub unserved: [AtomicU64; UNSERVED.len()],
}

impl Counts {
    /// One more.
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// One more that nobody served.
    pub fn unserve(&self, why: Unserved) {
        Self::add(&self.unserved[why as usize]);
    }
}

/// Every reason, in the order of the counts.
pub const UNSERVED: [Unserved; 4] = [
    Unserved::Timeout,
    Unserved::Full,
    Unserved::Redeliveries,
    Unserved::Closing,
];
