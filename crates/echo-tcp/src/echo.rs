//! RFC 862: what arrives goes back, until the peer ends its side; then what is left, then FIN.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portyard_core::serve::{Connection, Ended, Serving, StreamService};

use crate::spill::Spill;

/// The echo service.
pub struct Echo;

impl StreamService for Echo {
    fn serve(&self, connection: Connection) -> Serving {
        let spill = Spill::new(connection.home().clone());
        let mut echoing = Echoing { connection, spill };
        Box::pin(async move {
            match (&mut echoing).await {
                Ok(()) => {
                    echoing.connection.finish().await;
                    Ended::Done
                }
                Err(error) => error.into(),
            }
        })
    }
}

/// Reads into the loop's buffer and writes from it in the same turn. Only what the peer does not
/// take at once is kept, and while any is kept nothing more is read: a peer that writes and never
/// reads is held by its own full buffers.
struct Echoing {
    connection: Connection,
    spill: Spill,
}

impl Future for &mut Echoing {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Echoing { connection, spill } = &mut **self.get_mut();
        loop {
            ready!(spill.poll_flush(connection, cx))?;
            let home = connection.home().clone();
            let read = home.with_buffer(|buffer| {
                let size = home.read_size();
                let length = ready!(connection.poll_read(cx, &mut buffer[..size]))?;
                if length == 0 {
                    return Poll::Ready(Ok(0));
                }
                let taken = match connection.poll_write(cx, &buffer[..length]) {
                    Poll::Ready(taken) => taken?,
                    Poll::Pending => 0,
                };
                if taken < length {
                    spill.keep(&buffer[taken..length]);
                }
                Poll::Ready(Ok::<_, io::Error>(length))
            });
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
