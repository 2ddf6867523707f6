//! RFC 867: the local time as one line of text, then the end.

use portyard_core::serve::{Connection, Ended, Serving, StreamService};

/// The daytime service.
pub struct Daytime;

impl StreamService for Daytime {
    fn serve(&self, mut connection: Connection) -> Serving {
        Box::pin(async move {
            let clock = &connection.home().clock;
            let mut line = clock.ctime(clock.now()).as_bytes().to_vec();
            line.extend_from_slice(b"\r\n");
            if let Err(error) = connection.write_all(&line).await {
                return error.into();
            }
            connection.finish().await;
            Ended::Done
        })
    }
}
