//! A line with a number of seconds is answered after that long. A sleeper is a timer, not a thread.

use std::io;
use std::time::Duration;

use portyard_core::serve::{Connection, Ended, Line, LineReader, Serving, StreamService};
use portyard_core::wire::line::{self, LineTooLong};
use portyard_core::wire::sleep;

use crate::options::Options;

/// The sleep service.
pub struct Sleep {
    cap: usize,
    max: Duration,
}

impl Sleep {
    /// Takes `max_line` and `max_sleep` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        Ok(Self {
            cap: options.line_cap()?,
            max: options.max_sleep.0,
        })
    }
}

impl StreamService for Sleep {
    fn serve(&self, connection: Connection) -> Serving {
        let (cap, max) = (self.cap, self.max);
        Box::pin(async move {
            answer(connection, cap, max)
                .await
                .unwrap_or_else(Ended::from)
        })
    }
}

async fn answer(mut connection: Connection, cap: usize, max: Duration) -> io::Result<Ended> {
    let mut lines = LineReader::new(cap, None);
    loop {
        let (text, question, too_long) = match lines.next(&mut connection).await? {
            Line::Text(line) => match sleep::parse(&line, max) {
                Ok(span) => {
                    connection.busy();
                    tokio::time::sleep(span).await;
                    (sleep::answer(span), line, false)
                }
                Err(error) => {
                    connection.count_bad_input();
                    (error.to_string(), line, false)
                }
            },
            Line::TooLong => {
                connection.count_bad_input();
                (LineTooLong { max: cap }.to_string(), b"\n".to_vec(), true)
            }
            Line::End => {
                connection.finish().await;
                return Ok(Ended::Done);
            }
        };
        let mut out = Vec::new();
        line::answer(&text, &question, &mut out);
        connection.write_all(&out).await?;
        if too_long {
            connection.finish().await;
            return Ok(Ended::Protocol);
        }
    }
}
