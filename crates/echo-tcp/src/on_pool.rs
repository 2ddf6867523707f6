//! Values that a loop holds and must not drop.

use std::ops::{Deref, DerefMut};

use portyard_core::offload::Offload;

/// A value whose end may wait for a disk, such as a large file without a name: however it is
/// dropped, that happens on the pool.
pub struct OnPool<T: Send + 'static> {
    value: Option<T>,
    pool: Offload,
}

impl<T: Send + 'static> OnPool<T> {
    /// Will drop `value` on `pool`.
    pub fn new(pool: Offload, value: T) -> Self {
        Self {
            value: Some(value),
            pool,
        }
    }

    /// Drops the value at once: this is the pool.
    pub fn drop_here(mut self) {
        self.value = None;
    }

    /// The pool.
    pub fn pool(&self) -> &Offload {
        &self.pool
    }
}

impl<T: Send + 'static> Drop for OnPool<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            drop(self.pool.go_on(move || drop(value)));
        }
    }
}

impl<T: Send + 'static> Deref for OnPool<T> {
    type Target = T;

    #[expect(clippy::expect_used, reason = "only dropping takes the value out")]
    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is dropped last")
    }
}

impl<T: Send + 'static> DerefMut for OnPool<T> {
    #[expect(clippy::expect_used, reason = "only dropping takes the value out")]
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("it is dropped last")
    }
}
