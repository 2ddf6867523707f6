//! A look at the first bytes of a connection that goes to another process, which finds them as they came.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Poll, ready};

use nix::sys::socket::{MsgFlags, recv};
use tokio::time::{Instant, timeout_at};

use super::Accepted;
use crate::event_loop::EventLoop;
use crate::sys;

/// How a look ended. In any case the bytes are still there.
#[derive(Debug)]
pub enum Peeked<T> {
    /// The bytes were enough.
    Seen(T),
    /// The deadline passed first.
    Late,
    /// The peer ended, or filled all the room there is to look at, before the bytes were enough.
    Short,
    /// The connection broke.
    Broken(io::Error),
}

impl Accepted {
    /// Looks at the first bytes, up to `limit` of them and at most 256 KiB, as often as more come, until
    /// `look` makes something of them. It is called with bytes that are there already before anything
    /// is waited for; until then the connection costs no registration.
    ///
    /// The connection is in no epoll afterwards, and nothing of it is read. To be called on a loop.
    pub async fn peek<T>(
        self,
        home: &EventLoop,
        limit: usize,
        deadline: Instant,
        mut look: impl FnMut(&[u8]) -> Option<T>,
    ) -> (Self, Peeked<T>) {
        match attempt(home, &self.socket, limit, false, &mut look) {
            Attempt::Over(peeked) => return (self, peeked),
            Attempt::Wait => {}
        }
        let Self {
            socket,
            peer,
            arrival,
            permit,
            is_unix,
        } = self;
        let (socket, peeked) = match sys::register_owned(socket.into()) {
            Ok(registered) => {
                let peeked = poll_fn(|cx| {
                    loop {
                        let mut ready = match ready!(registered.poll_read_ready(cx)) {
                            Ok(ready) => ready,
                            Err(error) => return Poll::Ready(Peeked::Broken(error)),
                        };
                        let ended = ready.ready().is_read_closed();
                        match attempt(home, registered.get_ref(), limit, ended, &mut look) {
                            Attempt::Over(peeked) => return Poll::Ready(peeked),
                            // Looking takes nothing away, so that the kernel would say for ever that
                            // there is something. What has come since `ready` is not forgotten.
                            Attempt::Wait => ready.clear_ready(),
                        }
                    }
                });
                let peeked = timeout_at(deadline, peeked).await.unwrap_or(Peeked::Late);
                (registered.into_inner(), peeked)
            }
            Err((socket, error)) => (socket, Peeked::Broken(error)),
        };
        let accepted = Self {
            socket: socket.into(),
            peer,
            arrival,
            permit,
            is_unix,
        };
        (accepted, peeked)
    }
}

enum Attempt<T> {
    Over(Peeked<T>),
    Wait,
}

/// One look, without waiting.
fn attempt<T>(
    home: &EventLoop,
    socket: &impl AsFd,
    limit: usize,
    ended: bool,
    look: &mut impl FnMut(&[u8]) -> Option<T>,
) -> Attempt<T> {
    home.with_buffer(|buffer| {
        let limit = limit.min(buffer.len());
        let buffer = &mut buffer[..limit];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(socket.as_fd().as_raw_fd(), buffer, flags).map_err(io::Error::from) {
            Ok(length) => match look(&buffer[..length]) {
                Some(seen) => Attempt::Over(Peeked::Seen(seen)),
                None if ended || length == 0 || length == limit => Attempt::Over(Peeked::Short),
                None => Attempt::Wait,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Attempt::Wait,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Attempt::Wait,
            Err(error) => Attempt::Over(Peeked::Broken(error)),
        }
    })
}
