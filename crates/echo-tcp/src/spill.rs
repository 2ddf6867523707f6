//! The bytes that a peer is to be sent and does not take yet.

use std::rc::Rc;

use portyard_core::event_loop::EventLoop;

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

    /// What is left, if anything is.
    pub fn pending(&self) -> Option<&[u8]> {
        (self.taken < self.bytes.len()).then(|| &self.bytes[self.taken..])
    }

    /// Keeps bytes; nothing may be left from before.
    pub fn keep(&mut self, bytes: &[u8]) {
        (self.bytes, self.taken) = (bytes.to_vec(), 0);
        self.counted.set(bytes.len());
    }

    /// The peer has taken so many bytes of what is left.
    pub fn advance(&mut self, taken: usize) {
        self.taken += taken;
        if self.taken == self.bytes.len() {
            (self.bytes, self.taken) = (Vec::new(), 0);
            self.counted.set(0);
        }
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
