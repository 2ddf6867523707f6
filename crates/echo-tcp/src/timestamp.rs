//! Each line comes back as `[` ctime `] ` line, with the line's own terminator.
//!
//! The classic client sends text without a terminator and waits for the answer, so text that is
//! followed by silence is answered, too.

use std::time::Duration;

use portyard_core::serve::{Connection, Ended, Line, LineReader, Serving, StreamService};
use portyard_core::wire::line::LineTooLong;
use portyard_core::wire::{line, timestamp};

use crate::options::Options;

/// The timestamp service.
pub struct Timestamp {
    cap: usize,
    quiet: Option<Duration>,
}

impl Timestamp {
    /// Takes `max_line` and `quiet` out of the options.
    pub fn new(options: &Options) -> Result<Self, String> {
        let quiet = (!options.quiet.0.is_zero()).then_some(options.quiet.0);
        Ok(Self {
            cap: options.line_cap()?,
            quiet,
        })
    }
}

impl StreamService for Timestamp {
    fn serve(&self, connection: Connection) -> Serving {
        let (cap, lines) = (self.cap, LineReader::new(self.cap, self.quiet));
        Box::pin(async move {
            answer(connection, lines, cap)
                .await
                .unwrap_or_else(Ended::from)
        })
    }
}

async fn answer(
    mut connection: Connection,
    mut lines: LineReader,
    cap: usize,
) -> std::io::Result<Ended> {
    let mut out = Vec::new();
    loop {
        match lines.next(&mut connection).await? {
            Line::Text(text) => {
                let clock = &connection.home().clock;
                timestamp::stamp(&clock.ctime(clock.now()), &text, &mut out);
                connection.write_all(&out).await?;
                // Held only while there is something to say: most connections are silent.
                out = Vec::new();
            }
            Line::TooLong => {
                connection.count_bad_input();
                line::answer(&LineTooLong { max: cap }.to_string(), b"\n", &mut out);
                connection.write_all(&out).await?;
                connection.finish().await;
                return Ok(Ended::Protocol);
            }
            Line::End => {
                connection.finish().await;
                return Ok(Ended::Done);
            }
        }
    }
}
