//! Between hyper and the stream: spells the names of header fields as they were given, and keeps the
//! heads of both directions as they were on the wire.
//!
//! hyper writes names in lower case and hands them out so. Their case never matters (RFC 9110, 5.1),
//! except to the person who looks at the exchange and to a few servers that are wrong.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that is watched.
pub struct Tap<S> {
    inner: S,
    seen: Rc<RefCell<Seen>>,
}

/// What has gone through since the last [`begin`](Seen::begin).
#[derive(Debug, Default)]
pub struct Seen {
    /// Bytes that were sent and received.
    pub sent: u64,
    /// See there.
    pub received: u64,
    /// When the stream took bytes last.
    pub sent_at: Option<Instant>,
    /// When the first byte came.
    pub first: Option<Instant>,
    /// The head of the request, and those of the answers, the last of which is the final one. Not of
    /// HTTP/2, whose heads are no text.
    pub request: Vec<u8>,
    /// See there.
    pub answers: Vec<Vec<u8>>,
    names: Vec<String>,
    sending: bool,
    /// Bytes of a head that is not complete; `None`: no head is awaited.
    receiving: Option<Vec<u8>>,
    cap: usize,
}

impl Seen {
    /// A request of HTTP/1.1 comes next; `names` are those of its fields, and heads of answers may
    /// have `cap` bytes together.
    pub fn begin(&mut self, names: Vec<String>, cap: usize) {
        *self = Self {
            names,
            sending: true,
            receiving: Some(Vec::new()),
            cap,
            ..Self::default()
        };
    }

    /// A request whose heads are not to be looked at.
    pub fn begin_opaque(&mut self) {
        *self = Self::default();
    }

    /// What is to be written in place of `bytes`: the same, but for the case of names.
    fn spell(&self, bytes: &[u8]) -> Vec<u8> {
        let before = self.request.len();
        let mut all = [&self.request[..], bytes].concat();
        let end = end_of_head(&all).unwrap_or(all.len());
        let mut at = line_after(&all[..end], 0);
        while let Some(start) = at {
            let line = &mut all[start..end];
            let colon = line.iter().position(|byte| *byte == b':' || *byte == b'\n');
            if let Some(length) = colon {
                let spelled = self.names.iter().map(String::as_bytes);
                let spelled = spelled
                    .into_iter()
                    .find(|name| name.eq_ignore_ascii_case(&line[..length]));
                if let Some(spelled) = spelled {
                    line[..length].copy_from_slice(spelled);
                }
            }
            at = line_after(&all[..end], start);
        }
        all.split_off(before)
    }

    fn wrote(&mut self, bytes: &[u8]) {
        self.sent += bytes.len() as u64;
        self.sent_at = Some(Instant::now());
        if self.sending {
            self.request.extend_from_slice(bytes);
            if let Some(end) = end_of_head(&self.request) {
                self.request.truncate(end);
                self.sending = false;
            }
        }
    }

    fn read(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.received += bytes.len() as u64;
        if !bytes.is_empty() {
            self.first.get_or_insert_with(Instant::now);
        }
        while !bytes.is_empty()
            && let Some(head) = &mut self.receiving
        {
            let before = head.len();
            let held: usize = self.answers.iter().map(Vec::len).sum();
            // hyper has a cap for each, but takes any number of interim answers.
            let room = self.cap.saturating_sub(held + before);
            head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            let Some(end) = end_of_head(head) else {
                if bytes.len() > room {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, TOO_LARGE));
                }
                return Ok(());
            };
            bytes = &bytes[end - before..];
            head.truncate(end);
            let head = std::mem::take(head);
            let is_interim =
                status(&head).is_some_and(|code| (100..200).contains(&code) && code != 101);
            self.answers.push(head);
            if !is_interim {
                self.receiving = None;
            }
        }
        Ok(())
    }
}

/// What a reader of the stream is told when heads together are over their cap.
pub const TOO_LARGE: &str = "the heads of the answers are too large";

impl<S> Tap<S> {
    /// Watches a stream.
    pub fn new(inner: S) -> (Self, Rc<RefCell<Seen>>) {
        let seen = Rc::new(RefCell::new(Seen::default()));
        let tap = Self {
            inner,
            seen: Rc::clone(&seen),
        };
        (tap, seen)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = polled {
            this.seen.borrow_mut().read(&buffer.filled()[before..])?;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let spelled = {
            let seen = this.seen.borrow();
            seen.sending.then(|| seen.spell(bytes))
        };
        let bytes = spelled.as_deref().unwrap_or(bytes);
        let polled = Pin::new(&mut this.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = polled {
            this.seen.borrow_mut().wrote(&bytes[..length]);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The status code of a head.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let code = line.split(|byte| *byte == b' ').nth(1)?;
    std::str::from_utf8(code).ok()?.trim_end().parse().ok()
}

/// Behind the empty line that ends a head.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = Some(0);
    while let Some(start) = at {
        match &bytes[start..] {
            [b'\n', ..] if start > 0 => return Some(start + 1),
            [b'\r', b'\n', ..] if start > 0 => return Some(start + 2),
            _ => at = line_after(bytes, start),
        }
    }
    None
}

/// Where the line after that of `at` begins, if it has a byte.
fn line_after(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes[at..].iter().position(|byte| *byte == b'\n')?;
    let start = at + length + 1;
    (start < bytes.len()).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(cap: usize) -> Seen {
        let mut seen = Seen::default();
        let names = ["Host", "X-API-key"].map(String::from).to_vec();
        seen.begin(names, cap);
        seen
    }

    #[test]
    fn names_are_spelled_as_they_were_given_however_the_head_is_cut() {
        let head = b"GET /host: HTTP/1.1\r\nhost: x-api-key\r\nx-api-key: host: 1\r\nother: 2\r\n\r\nhost: 3";
        let spelled =
            &b"GET /host: HTTP/1.1\r\nHost: x-api-key\r\nX-API-key: host: 1\r\nother: 2\r\n\r\nhost: 3"[..];
        for taken in [1, 7, 1000] {
            let mut seen = seen(1000);
            let (mut rest, mut wire) = (&head[..], Vec::new());
            while !rest.is_empty() {
                let out = if seen.sending {
                    seen.spell(rest)
                } else {
                    rest.to_vec()
                };
                assert_eq!(out.len(), rest.len());
                // The stream may take only a part.
                let length = taken.min(out.len());
                seen.wrote(&out[..length]);
                wire.extend_from_slice(&out[..length]);
                rest = &rest[length..];
            }
            assert_eq!(wire, spelled, "{taken}");
            assert!(seen.request.ends_with(b"2\r\n\r\n"));
            assert_eq!(seen.sent, head.len() as u64);
        }
    }

    #[test]
    fn heads_are_kept_up_to_the_final_one() {
        let wire = b"HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 Fine\r\nc: d\r\n\r\nHTTP/1.1 9\r\n\r\n";
        for piece in [1, 5, 1000] {
            let mut seen = seen(1000);
            for bytes in wire.chunks(piece) {
                seen.read(bytes).unwrap();
            }
            assert_eq!(seen.answers.len(), 2, "{piece}");
            assert_eq!(seen.answers[0], b"HTTP/1.1 103 Early\r\na: b\r\n\r\n");
            assert_eq!(seen.answers[1], b"HTTP/1.1 200 Fine\r\nc: d\r\n\r\n");
            assert_eq!(seen.received, wire.len() as u64);
        }
    }

    #[test]
    fn interim_answers_without_end_are_an_error() {
        let mut seen = seen(1000);
        let read = (0..100).try_for_each(|_| seen.read(b"HTTP/1.1 102 Processing\r\n\r\n"));
        assert!(read.is_err());
        let mut seen = self::seen(1000);
        assert!((0..100).try_for_each(|_| seen.read(&[b'x'; 100])).is_err());
    }
}
