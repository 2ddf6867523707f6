//! A count with a ceiling that can be moved while it is used.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

/// How many of something exist, and how many may.
#[derive(Debug)]
pub struct Gate {
    ceiling: AtomicU32,
    present: AtomicU32,
    left: Notify,
}

impl Gate {
    /// A gate that lets `ceiling` in at a time.
    pub fn new(ceiling: u32) -> Self {
        Self {
            ceiling: ceiling.into(),
            present: 0.into(),
            left: Notify::new(),
        }
    }

    /// Enters if there is room. Each `true` must be paid back with one [`Gate::leave`].
    pub fn try_enter(&self) -> bool {
        let ceiling = self.ceiling.load(Ordering::Relaxed);
        self.present
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |present| {
                (present < ceiling).then_some(present + 1)
            })
            .is_ok()
    }

    /// Leaves, and wakes those who wait for room.
    pub fn leave(&self) {
        let before = self.present.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "left a gate that nobody had entered");
        // Waiters exist only at the ceiling, so the common case costs one load.
        if before >= self.ceiling.load(Ordering::Relaxed) {
            self.left.notify_waiters();
        }
    }

    /// Enters as soon as there is room.
    pub async fn enter(&self) {
        loop {
            let left = self.left.notified();
            if self.try_enter() {
                return;
            }
            left.await;
        }
    }

    /// Whether nobody can enter at the moment.
    pub fn is_full(&self) -> bool {
        self.present() >= self.ceiling()
    }

    /// How many are in.
    pub fn present(&self) -> u32 {
        self.present.load(Ordering::Relaxed)
    }

    /// How many may be in.
    pub fn ceiling(&self) -> u32 {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// Moves the ceiling. Who is in above a lower one may stay.
    pub fn set_ceiling(&self, ceiling: u32) {
        self.ceiling.store(ceiling, Ordering::Relaxed);
        self.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_enters_above_the_ceiling() {
        let gate = Gate::new(1);
        assert!(gate.try_enter());
        assert!(!gate.try_enter());
        gate.leave();
        assert!(gate.try_enter());
        gate.set_ceiling(2);
        assert!(gate.try_enter());
        gate.set_ceiling(0);
        assert_eq!((gate.present(), gate.ceiling()), (2, 0));
        gate.leave();
        assert!(!gate.try_enter());
    }

    #[tokio::test]
    async fn who_waits_enters_when_another_leaves() {
        let gate = std::sync::Arc::new(Gate::new(1));
        assert!(gate.try_enter());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.leave();
        waiting.await.unwrap();
        assert_eq!(gate.present(), 1);
    }
}
