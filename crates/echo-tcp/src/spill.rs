//! The bytes that a peer is to be sent and does not take yet.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use portyard_core::event_loop::EventLoop;
use portyard_core::serve::Connection;

/// What a slow peer has not taken yet, counted in its loop.
pub struct Spill {
    counted: Counted,
    bytes: Vec<u8>,
    taken: usize,
}

/// So many bytes kept for one peer. While a loop's peers have many of them, it reads less at a time.
pub struct Counted {
    home: Rc<EventLoop>,
    bytes: usize,
}

impl Spill {
    /// Nothing yet.
    pub fn new(home: Rc<EventLoop>) -> Self {
        Self {
            counted: Counted::new(home, 0),
            bytes: Vec::new(),
            taken: 0,
        }
    }

    /// Writes what is left.
    pub fn poll_flush(
        &mut self,
        connection: &mut Connection,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.taken < self.bytes.len() {
            self.taken += ready!(connection.poll_write(cx, &self.bytes[self.taken..]))?;
        }
        if self.taken > 0 {
            (self.bytes, self.taken) = (Vec::new(), 0);
            self.counted.set(0);
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps bytes; nothing may be left from before.
    pub fn keep(&mut self, bytes: &[u8]) {
        (self.bytes, self.taken) = (bytes.to_vec(), 0);
        self.counted.set(bytes.len());
    }
}

impl Counted {
    /// Counts `bytes` until it is dropped.
    pub fn new(home: Rc<EventLoop>, bytes: usize) -> Self {
        let mut counted = Self { home, bytes: 0 };
        counted.set(bytes);
        counted
    }

    /// Counts `bytes` instead.
    pub fn set(&mut self, bytes: usize) {
        let spilled = self.home.spilled();
        spilled.set(spilled.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}
