//! Whole messages out of a stream that arrives in pieces.

use super::{FrameError, Framing, Header};

/// Collects messages with a length in front.
///
/// Feed it what arrives, then take messages until there is none. It holds the message under way and
/// whatever was fed behind it, so a caller who takes messages after each feed holds at most one
/// message of `cap` bytes and one feed. Memory reserved is what has arrived and is not taken yet,
/// plus at most twice [`STEP`], whatever a header announces.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    cap: u64,
    /// The message under way and its whole length.
    message: Option<(Vec<u8>, usize)>,
    /// What came behind it, from `start` on.
    input: Vec<u8>,
    start: usize,
    failed: Option<FrameError>,
}

/// Bytes reserved beyond what has arrived. On an allocator that moves large blocks page by page,
/// growing by a constant costs little more than growing by a factor.
pub const STEP: usize = 32 * 1024;

impl Decoder {
    /// A decoder at the beginning of a stream. `cap` counts the bytes of a message without header.
    pub fn new(framing: Framing, cap: usize) -> Self {
        Self {
            framing,
            cap: cap as u64,
            message: None,
            input: Vec::new(),
            start: 0,
            failed: None,
        }
    }

    /// Takes in what arrived. After an error it is thrown away.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let mut rest = bytes;
        // While a message is under way, nothing waits behind it that it still lacks.
        if let Some((message, len)) = &mut self.message {
            let now;
            (now, rest) = rest.split_at(rest.len().min(*len - message.len()));
            append(message, now, *len);
        }
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        self.input.reserve_exact(rest.len());
        self.input.extend_from_slice(rest);
    }

    /// The next whole message, or `None` until more has arrived. An error is final: every later
    /// call returns it again.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: `None` means not yet, and may be followed by a message"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.message.is_none() && !self.begin()? {
            return Ok(None);
        }
        let Some((mut message, len)) = self.message.take() else {
            return Ok(None);
        };
        let pending = &self.input[self.start..];
        let now = &pending[..pending.len().min(len - message.len())];
        append(&mut message, now, len);
        self.consume(now.len());
        if message.len() == len {
            return Ok(Some(message));
        }
        self.message = Some((message, len));
        Ok(None)
    }

    /// Whether the stream may end here: everything that was fed has been taken as messages.
    pub fn at_boundary(&self) -> bool {
        self.message.is_none() && self.pending().is_empty()
    }

    /// The bytes of memory in use, reserved ones included.
    pub fn memory(&self) -> usize {
        let message = self
            .message
            .as_ref()
            .map_or(0, |(bytes, _)| bytes.capacity());
        message + self.input.capacity()
    }

    /// Reads a header, if there is a whole one.
    fn begin(&mut self) -> Result<bool, FrameError> {
        let parsed = Header::parse(self.framing, self.cap, self.pending()).and_then(|header| {
            let Some(Header { len, header_len }) = header else {
                return Ok(None);
            };
            // Nothing longer than the address space gets past a cap that is a `usize`.
            match usize::try_from(len) {
                Ok(size) => Ok(Some((size, header_len))),
                Err(_) => Err(FrameError::TooLong { len, max: self.cap }),
            }
        });
        match parsed {
            Ok(Some((len, header_len))) => {
                self.consume(header_len);
                self.message = Some((Vec::new(), len));
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                self.failed = Some(error);
                self.input = Vec::new();
                self.start = 0;
                Err(error)
            }
        }
    }

    fn pending(&self) -> &[u8] {
        &self.input[self.start..]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.input.len() {
            self.start = 0;
            self.input.clear();
            if self.input.capacity() > STEP {
                self.input = Vec::new();
            }
        }
    }
}

/// Appends what arrived to a message that will be `len` bytes long, and reserves for no more than
/// a step beyond.
fn append(message: &mut Vec<u8>, arrived: &[u8], len: usize) {
    if message.capacity() - message.len() < arrived.len() {
        let missing = len - message.len();
        message.reserve_exact(missing.min(arrived.len().saturating_add(STEP)));
    }
    message.extend_from_slice(arrived);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{python_message, u32_header};
    use proptest::prelude::*;

    #[test]
    fn an_error_is_final() {
        let mut decoder = Decoder::new(Framing::U32, 8);
        decoder.feed(b"\0\0\0\x01a\0\0\0\x09");
        assert_eq!(decoder.next(), Ok(Some(b"a".to_vec())));
        let refused = Err(FrameError::TooLong { len: 9, max: 8 });
        assert_eq!(decoder.next(), refused);
        decoder.feed(b"\0\0\0\x01b");
        assert_eq!(decoder.next(), refused);
        assert_eq!(decoder.memory(), 0);
    }

    #[test]
    fn an_announced_length_reserves_nothing() {
        let mut decoder = Decoder::new(Framing::Python, usize::MAX);
        decoder.feed(b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.memory() <= 12);
        for arrived in 1..100 {
            decoder.feed(&[0; 1000]);
            assert_eq!(decoder.next(), Ok(None));
            assert!(decoder.memory() <= arrived * 1000 + 12 + STEP);
        }
    }

    #[test]
    fn a_message_as_long_as_the_cap_is_taken() {
        let mut decoder = Decoder::new(Framing::Python, 1 << 20);
        decoder.feed(b"\x00\x10\x00\x00");
        assert_eq!(decoder.next(), Ok(None));
        for _ in 0..1 << 8 {
            assert!(!decoder.at_boundary());
            decoder.feed(&[7; 1 << 12]);
        }
        let message = decoder.next().unwrap().unwrap();
        assert_eq!(message, vec![7; 1 << 20]);
        assert!(message.capacity() <= message.len() + STEP);
        assert!(decoder.at_boundary() && decoder.memory() <= STEP);
    }

    #[test]
    fn an_empty_message_is_a_message() {
        let mut decoder = Decoder::new(Framing::U32, 0);
        decoder.feed(&u32_header(0));
        assert_eq!(decoder.next(), Ok(Some(Vec::new())));
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.at_boundary());
    }

    #[test]
    fn the_stream_must_not_end_within_a_message() {
        let mut decoder = Decoder::new(Framing::U32, 9);
        for &byte in b"\0\0\0\x02a" {
            decoder.feed(&[byte]);
            assert_eq!(decoder.next(), Ok(None));
            assert!(!decoder.at_boundary());
        }
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_they_were_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10),
            cuts in prop::collection::vec((0_usize..30, any::<bool>()), 0..60),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|m| python_message(m)).collect();
            let mut decoder = Decoder::new(Framing::Python, 40);
            let (mut rest, mut out) = (&stream[..], Vec::new());
            for (cut, take) in cuts {
                let now;
                (now, rest) = rest.split_at(cut.min(rest.len()));
                decoder.feed(now);
                if take && let Some(message) = decoder.next().unwrap() {
                    out.push(message);
                }
            }
            decoder.feed(rest);
            while let Some(message) = decoder.next().unwrap() {
                out.push(message);
            }
            prop_assert_eq!(out, messages);
            prop_assert!(decoder.at_boundary());
        }
    }
}
