//! RFC 863: what arrives is thrown away; nothing is answered.

use std::future::poll_fn;
use std::task::ready;

use portyard_core::serve::{Connection, Ended, Serving, StreamService};

/// The discard service.
pub struct Discard;

impl StreamService for Discard {
    fn serve(&self, mut connection: Connection) -> Serving {
        Box::pin(async move {
            let home = connection.home().clone();
            let discarded = poll_fn(|cx| {
                loop {
                    let read = home.with_buffer(|buffer| connection.poll_read(cx, buffer));
                    if ready!(read)? == 0 {
                        return std::task::Poll::Ready(Ok::<_, std::io::Error>(()));
                    }
                }
            })
            .await;
            match discarded {
                Ok(()) => {
                    connection.finish().await;
                    Ended::Done
                }
                Err(error) => error.into(),
            }
        })
    }
}
