//! What is left of the bodies of HTTP/2 that nobody reads.
//!
//! A stream that is let go of before its end is reset, and some clients do not look at the answer before it
//! (curl 7.88). So it is kept for a moment, and read on if little is left.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep, sleep_until};

use super::request_body::{LeftTo, UNREAD_MAX, UNREAD_SPAN};

/// Of one connection, which has a cap on its streams.
#[derive(Default)]
pub struct Remains {
    bodies: RefCell<Vec<Rest>>,
    /// Due when the first of them is to be let go of.
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
    /// The connection's task.
    waker: Cell<Option<Waker>>,
}

struct Rest {
    incoming: Incoming,
    end: Instant,
    read: u64,
}

impl LeftTo for Remains {
    fn take_over(&self, incoming: Incoming) {
        if incoming.is_end_stream() {
            return;
        }
        self.bodies.borrow_mut().push(Rest {
            incoming,
            end: Instant::now() + UNREAD_SPAN,
            read: 0,
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Remains {
    /// Reads on, and lets go of what is over or has been kept long enough.
    pub fn run(&self, cx: &mut Context<'_>) {
        self.waker.set(Some(cx.waker().clone()));
        let mut bodies = self.bodies.borrow_mut();
        let mut timer = self.timer.borrow_mut();
        loop {
            let now = Instant::now();
            bodies.retain_mut(|rest| rest.end > now && rest.goes_on(cx));
            let Some(end) = bodies.iter().map(|rest| rest.end).min() else {
                *timer = None;
                return;
            };
            let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if timer.deadline() != end {
                timer.as_mut().reset(end);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return;
            }
        }
    }
}

impl Rest {
    /// Whether there may be more of it. What is much is left where it is: the client has no window for it.
    fn goes_on(&mut self, cx: &mut Context<'_>) -> bool {
        while self.read <= UNREAD_MAX {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
                Poll::Ready(_) => return false,
                Poll::Pending => return true,
            }
        }
        true
    }
}
