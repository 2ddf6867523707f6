//! The lines of the yard on standard error, without ever holding the yard up.
//!
//! A terminal that is stopped (^S) or a pipe that nobody reads blocks its writer. So a thread
//! writes, and what does not fit into its queue is counted and left out.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::oneshot;

/// A handle to the writer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    lines: SyncSender<Entry>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Entry {
    Line(String),
    /// Everything before this is written.
    End(oneshot::Sender<()>),
}

impl Log {
    /// Starts the writer.
    pub fn start() -> Result<Self, Fatal> {
        let (lines, queue) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write(&queue, &counter))
            .map_err(|error| {
                Fatal::new(Exit::OsError, format!("cannot start a thread: {error}"))
            })?;
        Ok(Self { lines, lost })
    }

    /// One line about a daemon.
    pub fn line(&self, daemon: &str, text: &str) {
        let line = format!("{daemon:<WIDTH$} | {text}\n");
        if self.lines.try_send(Entry::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Copies a daemon's output line by line until its end; returns the last line.
    pub async fn follow(self, daemon: &'static str, pipe: impl AsyncRead + Unpin) -> String {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        let mut last = String::new();
        loop {
            line.clear();
            let read = (&mut pipe)
                .take(MAX_BYTES)
                .read_until(b'\n', &mut line)
                .await;
            if !matches!(read, Ok(length) if length > 0) {
                return last;
            }
            let whole = line.ends_with(b"\n");
            last = printable(line.trim_ascii_end());
            self.line(daemon, &last);
            if !whole && !skip_line(&mut pipe).await {
                return last;
            }
        }
    }

    /// Waits until everything is written, but not for a reader that has stopped reading.
    pub async fn close(self) {
        let (sender, written) = oneshot::channel();
        if self.lines.try_send(Entry::End(sender)).is_ok() {
            // Late or not, the yard closes.
            let _ = tokio::time::timeout(CLOSE, written).await;
        }
    }
}

fn write(queue: &Receiver<Entry>, lost: &AtomicU64) {
    for entry in queue {
        let missing = lost.swap(0, Ordering::Relaxed);
        let mut stderr = io::stderr().lock();
        // If nobody reads standard error any more, the yard goes on in silence.
        if missing > 0 {
            let _ = writeln!(stderr, "{:<WIDTH$} | {missing} lines left out", super::OURS);
        }
        match entry {
            Entry::Line(line) => {
                let _ = stderr.write_all(line.as_bytes());
            }
            // The one who asked may have given up.
            Entry::End(done) => drop(done.send(())),
        }
    }
}

/// Reads and drops the rest of a line that is too long; false at the end of the output.
async fn skip_line(pipe: &mut (impl AsyncBufReadExt + Unpin)) -> bool {
    loop {
        let (length, found) = match pipe.fill_buf().await {
            Ok([]) | Err(_) => return false,
            Ok(buffer) => match buffer.iter().position(|&byte| byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            },
        };
        pipe.consume(length);
        if found {
            return true;
        }
    }
}

/// Escaped, but with single backslashes: our daemons have escaped what came from peers already.
fn printable(line: &[u8]) -> String {
    let pieces: Vec<String> = line
        .split(|&byte| byte == b'\\')
        .map(|piece| escape(piece, MAX_CHARACTERS))
        .collect();
    pieces.join("\\")
}

/// As wide as the longest name of a daemon.
const WIDTH: usize = 9;
/// Lines that wait for a slow terminal: a few hundred kilobytes.
const QUEUE: usize = 1024;
/// Of one line; the rest is left out.
const MAX_BYTES: u64 = 2048;
const MAX_CHARACTERS: usize = 2048;
const CLOSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemons_line_cannot_command_the_terminal() {
        assert_eq!(printable(b"\x1b[2Jx"), r"\x1b[2Jx");
        assert_eq!(printable(br"peer said \x1b[2J"), r"peer said \x1b[2J");
        assert_eq!(printable(br"\\"), r"\\");
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_read() {
        let (lines, queue) = sync_channel(QUEUE);
        let lost = Arc::default();
        let log = Log { lines, lost };
        let mut output = vec![b'x'; 10_000];
        output.extend_from_slice(b"\nnext");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let last = runtime.block_on(log.follow("echo-tcp", output.as_slice()));
        assert_eq!(last, "next");
        let lengths: Vec<usize> = queue
            .try_iter()
            .map(|entry| match entry {
                Entry::Line(line) => line.len(),
                Entry::End(_) => 0,
            })
            .collect();
        let prefix = "echo-tcp  | ".len() + 1;
        assert_eq!(lengths, [prefix + 2048, prefix + 4]);
    }

    #[test]
    fn a_full_queue_loses_lines_instead_of_time() {
        let (lines, _queue) = sync_channel(1);
        let log = Log {
            lines,
            lost: Arc::default(),
        };
        log.line("a", "kept");
        log.line("a", "lost");
        assert_eq!(log.lost.load(Ordering::Relaxed), 1);
    }
}
