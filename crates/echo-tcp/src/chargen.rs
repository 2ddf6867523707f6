//! RFC 864: lines of 72 rotating characters, without end. What the peer sends is thrown away.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::wire::chargen;

/// The chargen service.
pub struct Chargen;

impl StreamService for Chargen {
    fn serve(&self, mut connection: Connection) -> Serving {
        Box::pin(async move {
            let mut pattern = chargen::Chargen::new();
            match poll_fn(|cx| generate(&mut connection, &mut pattern, cx)).await {
                Ok(()) => {
                    connection.finish().await;
                    Ended::Done
                }
                Err(error) => error.into(),
            }
        })
    }
}

/// One turn: a chunk out, whatever came in thrown away. The peer's end of stream, or a drain, ends
/// the pattern.
fn generate(
    connection: &mut Connection,
    pattern: &mut chargen::Chargen,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let home = connection.home().clone();
    loop {
        let read = home.with_buffer(|buffer| connection.poll_read(cx, buffer));
        if let Poll::Ready(0) = read.map(|read| read.unwrap_or(0)) {
            return Poll::Ready(Ok(()));
        }
        match connection.poll_write(cx, pattern.chunk())? {
            Poll::Ready(taken) => pattern.advance(taken),
            Poll::Pending => return Poll::Pending,
        }
    }
}
