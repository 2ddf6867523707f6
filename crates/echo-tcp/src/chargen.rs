//! RFC 864: lines of 72 rotating characters, until the peer closes. What it sends is thrown away.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::wire::chargen;

/// The chargen service.
pub struct Chargen;

impl StreamService for Chargen {
    fn serve(&self, connection: Connection) -> Serving {
        let pattern = chargen::Chargen::new();
        let mut generating = Generating {
            connection,
            pattern,
            peer_ended: false,
        };
        Box::pin(async move {
            match poll_fn(|cx| generating.turn(cx)).await {
                Ok(()) => {
                    generating.connection.finish().await;
                    Ended::Done
                }
                Err(error) => error.into(),
            }
        })
    }
}

struct Generating {
    connection: Connection,
    pattern: chargen::Chargen,
    /// The peer has closed its side; a peer that has only done that still reads.
    peer_ended: bool,
}

impl Generating {
    /// Throws away what came in, then writes until the peer takes no more. A peer that is gone
    /// resets the connection, which is the usual end; a drain is the other one.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let home = self.connection.home().clone();
        while !self.peer_ended {
            match home.with_buffer(|buffer| self.connection.poll_read(cx, buffer))? {
                Poll::Ready(length) => self.peer_ended = length == 0,
                Poll::Pending => break,
            }
        }
        while !self.connection.finishing() {
            match self.connection.poll_write(cx, self.pattern.chunk())? {
                Poll::Ready(taken) => self.pattern.advance(taken),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
