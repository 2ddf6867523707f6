//! RFC 868: seconds since 1900 as 32 bits, big-endian, then the end.

use portyard_core::serve::{Connection, Ended, Serving, StreamService};
use portyard_core::wire::time;

/// The time service.
pub struct Time;

impl StreamService for Time {
    fn serve(&self, mut connection: Connection) -> Serving {
        Box::pin(async move {
            // Past the range of the format the RFC wants a close without an answer.
            if let Some(time) = time::encode(connection.home().clock.now().seconds)
                && let Err(error) = connection.write_all(&time).await
            {
                return error.into();
            }
            connection.finish().await;
            Ended::Done
        })
    }
}
