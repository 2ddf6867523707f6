//! What has happened in a pool.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use super::action::Unserved;

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

    /// Every count with its name.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("arrived", &self.arrived),
            ("taken", &self.taken),
            ("done", &self.done),
            ("released", &self.released),
            ("refused", &self.refused),
            ("redelivered", &self.redelivered),
            ("lost", &self.lost),
            ("cut", &self.cut),
        ]
        .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    /// How many nobody served, by the reason's name.
    pub fn unserved(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = UNSERVED.iter().zip(&self.unserved);
        counts.map(|(why, count)| (why.word(), count.load(Ordering::Relaxed)))
    }

    /// Puts all counts into a status.
    pub fn tell(&self, status: &mut Map<String, Value>) {
        for (name, count) in self.named() {
            status.insert(name.into(), count.into());
        }
        let unserved = self.unserved().filter(|(_, count)| *count > 0);
        let unserved: Map<_, _> = unserved
            .map(|(why, count)| (why.into(), count.into()))
            .collect();
        status.insert("unserved".into(), unserved.into());
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
