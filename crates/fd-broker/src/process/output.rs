//! What a program writes to standard error, as lines of our log: bounded in length and number.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads a program's standard error to its end and passes each line on as bytes; the log escapes them.
///
/// The pipe is always read, so that no program waits for our log. A line that is too long is cut, and
/// of lines that come too fast most are only counted.
pub async fn follow(mut from: impl AsyncRead + Unpin, mut say: impl FnMut(Said<'_>)) {
    let mut lines = Lines::default();
    let mut quota = Quota::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        lines.push(&buffer[..length], |line| {
            if let Some(held) = quota.admit(Instant::now()) {
                if held > 0 {
                    say(Said::Held(held));
                }
                say(Said::Line(line));
            }
        });
    }
    lines.end(|line| say(Said::Line(line)));
    if quota.held > 0 {
        say(Said::Held(quota.held));
    }
}

/// Something to tell of a program.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A line, without its end, perhaps cut.
    Line(&'a [u8]),
    /// So many lines were left out.
    Held(u64),
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    /// The line that has begun is longer than is kept.
    cut: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        // There is always a first part; what follows each end of a line begins another.
        if let Some(first) = parts.next() {
            self.add(first);
        }
        for part in parts {
            self.end(&mut line);
            self.add(part);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LINE_MAX - self.begun.len();
        self.cut |= bytes.len() > room;
        self.begun
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Ends the line that has begun; an empty one is not worth a line.
    fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if self.cut {
            self.begun.extend_from_slice(b"...");
        }
        let text = self.begun.trim_ascii_end();
        if !text.is_empty() {
            line(text);
        }
        self.begun.clear();
        self.cut = false;
    }
}

/// How many lines a program may have in a second.
#[derive(Debug)]
struct Quota {
    second: Instant,
    used: u32,
    held: u64,
}

impl Quota {
    fn new() -> Self {
        Self {
            second: Instant::now(),
            used: 0,
            held: 0,
        }
    }

    /// Whether a line may pass; `Some` with the number of lines held back before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.second).as_secs() > 0 {
            (self.second, self.used) = (now, 0);
        }
        if self.used == LINES_A_SECOND {
            self.held += 1;
            return None;
        }
        self.used += 1;
        Some(std::mem::take(&mut self.held))
    }
}

/// A line of a log that somebody reads; programs that write more write for a machine.
const LINE_MAX: usize = 500;
/// Enough for a traceback, few enough that a program gone wild does not fill a disk.
const LINES_A_SECOND: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn lines(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for part in parts {
            lines.push(part, |line| all.push(line.to_vec()));
        }
        lines.end(|line| all.push(line.to_vec()));
        all
    }

    #[test]
    fn lines_are_put_together_cut_and_never_empty() {
        assert_eq!(
            lines(&[b"on", b"e\r\n\ntwo\nthr", b"ee"]),
            [&b"one"[..], b"two", b"three"]
        );
        let long = lines(&[&[b'x'; 3000], b"y\nshort\n"]);
        assert_eq!(long.len(), 2);
        assert_eq!(long[0].len(), LINE_MAX + 3);
        assert_eq!(long[1], b"short");
    }

    #[test]
    fn lines_that_come_too_fast_are_counted_and_told() {
        let mut quota = Quota::new();
        let now = Instant::now();
        let passed = (0..200).filter(|_| quota.admit(now).is_some()).count();
        assert_eq!(passed, 50);
        assert_eq!(quota.admit(now + Duration::from_secs(2)), Some(150));
        assert_eq!(quota.admit(now + Duration::from_secs(2)), Some(0));
    }

    #[tokio::test]
    async fn all_is_read_and_the_end_tells_what_was_held() {
        let text = "line\n".repeat(10_000);
        let mut said = (0_u64, 0);
        follow(text.as_bytes(), |what| match what {
            Said::Line(line) => {
                assert_eq!(line, b"line");
                said.0 += 1;
            }
            Said::Held(held) => said.1 += held,
        })
        .await;
        assert_eq!(said.0 + said.1, 10_000);
        assert!(said.1 > 0, "{said:?}");
    }
}
