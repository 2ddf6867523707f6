//! Lines off a connection, with a cap and, if wanted, a quiet time that ends an unfinished one.

use std::io;
use std::time::Duration;

use portyard_wire::line::find_line;

use super::Connection;

/// Collects lines. It holds no memory while nothing unfinished is pending.
#[derive(Debug)]
pub struct LineReader {
    pending: Vec<u8>,
    /// Content bytes that a line may have.
    cap: usize,
    /// Text without a terminator counts as a line after this silence.
    quiet: Option<Duration>,
}

/// What came off the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line with its terminator, or without one at the end or after the quiet time.
    Text(Vec<u8>),
    /// More bytes without a terminator than a line may have.
    TooLong,
    /// The end of the stream.
    End,
}

impl LineReader {
    /// A reader of lines of at most `cap` bytes; `quiet` as in the type's field.
    pub fn new(cap: usize, quiet: Option<Duration>) -> Self {
        Self {
            pending: Vec::new(),
            cap,
            quiet,
        }
    }

    /// The next line.
    pub async fn next(&mut self, connection: &mut Connection) -> io::Result<Line> {
        loop {
            match find_line(&self.pending, self.cap) {
                Ok(Some(length)) => return Ok(Line::Text(self.take(length))),
                Ok(None) => {}
                Err(_) => {
                    self.pending = Vec::new();
                    return Ok(Line::TooLong);
                }
            }
            // Room for the cap and its terminator; what does not fit waits in the kernel.
            let room = self.cap + TERMINATOR - self.pending.len();
            let unfinished = !self.pending.is_empty();
            let read = connection.read_some(&mut self.pending, room);
            let length = match self.quiet {
                Some(quiet) if unfinished => match tokio::time::timeout(quiet, read).await {
                    Ok(length) => length?,
                    Err(_) => return Ok(Line::Text(self.take_all())),
                },
                _ => read.await?,
            };
            if length == 0 {
                let rest = self.take_all();
                return Ok(if rest.is_empty() {
                    Line::End
                } else {
                    Line::Text(rest)
                });
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        if length == self.pending.len() {
            return self.take_all();
        }
        self.pending.drain(..length).collect()
    }

    fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }
}

/// CR LF.
const TERMINATOR: usize = 2;
