//! Messages out of a stream, in the framing that the peer begins with.

use crate::framing::{self, FrameError, Header};
use crate::line::{find_line, split_terminator};
use std::borrow::Cow;

/// How messages stand in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// A `u32` before each message. The first one is shorter than 16 MiB, so that its first byte is
    /// a zero.
    Length,
    /// A message on each line, which ends with LF or CRLF. Empty lines are passed over. The first
    /// byte is `{` or `[`.
    Lines,
    /// Header fields before each message, as the Language Server Protocol has them: a
    /// `Content-Length`, perhaps a `Content-Type`, an empty line, each with CRLF. The first byte is
    /// `C` or `c`.
    Headers,
}

impl Framing {
    /// Appends a message in this framing. False when it is too long for a [`Framing::Length`], and
    /// then nothing is written.
    ///
    /// What this module encodes is one line; a message from elsewhere must be, for
    /// [`Framing::Lines`].
    #[must_use]
    pub fn frame(self, message: &[u8], out: &mut Vec<u8>) -> bool {
        let start = self.begin(out);
        let content = out.len();
        out.extend_from_slice(message);
        if message.is_empty() {
            return self.close(start, content, out);
        }
        self.end(start, out)
    }

    /// Begins a message that is then appended to `out`, and returns where it begins.
    #[must_use]
    pub fn begin(self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        if self == Self::Length {
            out.extend_from_slice(&[0; LENGTH]);
        }
        start
    }

    /// Ends the message that began at `start`; one to which nothing was appended is taken back. False
    /// when it is too long for a [`Framing::Length`], and then it is taken back, too.
    #[must_use]
    pub fn end(self, start: usize, out: &mut Vec<u8>) -> bool {
        let content = start + if self == Self::Length { LENGTH } else { 0 };
        if out.len() == content {
            out.truncate(start);
            return true;
        }
        self.close(start, content, out)
    }

    fn close(self, start: usize, content: usize, out: &mut Vec<u8>) -> bool {
        let len = out.len() - content;
        match self {
            Self::Length => {
                let Some(header) = Header::encode(framing::Framing::U32, len as u64) else {
                    out.truncate(start);
                    return false;
                };
                out[start..content].copy_from_slice(&header);
            }
            Self::Lines => out.push(b'\n'),
            Self::Headers => {
                let header = format!("Content-Length: {len}\r\n\r\n");
                out.splice(start..start, header.into_bytes());
            }
        }
        true
    }
}

/// Bytes of the number in [`Framing::Length`].
const LENGTH: usize = 4;

/// Collects messages from a peer who chooses the framing.
///
/// Feed it what arrives, then take messages until there is none. It holds what has arrived and is not
/// taken yet, whatever a peer announces: so at most one message of `cap` bytes, its header fields and
/// one feed, for a caller who takes messages after each feed.
#[derive(Debug)]
pub struct Decoder {
    cap: usize,
    kind: Kind,
    failed: Option<StreamError>,
}

/// Bytes of header fields before a message.
pub const HEADERS_MAX: usize = 1024;

#[derive(Debug)]
enum Kind {
    Unknown,
    Length(framing::Decoder),
    Lines(Input),
    /// With the length of the message under way.
    Headers(Input, Option<usize>),
}

impl Decoder {
    /// A decoder at the beginning of a stream. `cap` counts the bytes of a message without what
    /// frames it.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            kind: Kind::Unknown,
            failed: None,
        }
    }

    /// The framing in which the peer expects replies; `None` before the first byte.
    pub fn framing(&self) -> Option<Framing> {
        match self.kind {
            Kind::Unknown => None,
            Kind::Length(_) => Some(Framing::Length),
            Kind::Lines(_) => Some(Framing::Lines),
            Kind::Headers(..) => Some(Framing::Headers),
        }
    }

    /// Takes in what arrived. After an error it is thrown away.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.recognise(bytes);
        if self.failed.is_some() {
            return;
        }
        match &mut self.kind {
            Kind::Unknown => {}
            Kind::Length(decoder) => decoder.feed(bytes),
            Kind::Lines(input) | Kind::Headers(input, _) => input.feed(bytes),
        }
    }

    /// The next whole message, or `None` until more has arrived. An error is final: every later
    /// call returns it again.
    #[expect(
        clippy::should_implement_trait,
        reason = "no iterator: `None` means not yet, and may be followed by a message"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, StreamError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let next = match &mut self.kind {
            Kind::Unknown => Ok(None),
            Kind::Length(decoder) => decoder.next().map_err(Into::into),
            Kind::Lines(input) => next_line(input, self.cap),
            Kind::Headers(input, len) => next_with_headers(input, len, self.cap),
        };
        next.inspect_err(|error| {
            self.failed = Some(*error);
            if let Kind::Lines(input) | Kind::Headers(input, _) = &mut self.kind {
                *input = Input::default();
            }
        })
    }

    /// As [`Decoder::feed`] with `arrived`, which is then empty, and [`Decoder::next`]; but a message that
    /// has arrived in one piece is taken off its front and copied nowhere.
    pub fn take<'a>(
        &mut self,
        arrived: &mut &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>, StreamError> {
        if self.failed.is_none() && self.at_boundary() {
            self.recognise(arrived);
            if let Some((message, rest)) = self.whole(arrived) {
                *arrived = rest;
                return Ok(Some(Cow::Borrowed(message)));
            }
        }
        self.feed(std::mem::take(arrived));
        Ok(self.next()?.map(Cow::Owned))
    }

    /// The framing, from the first byte of all.
    fn recognise(&mut self, bytes: &[u8]) {
        if let (Kind::Unknown, Some(&first)) = (&self.kind, bytes.first()) {
            self.kind = match first {
                0 => Kind::Length(framing::Decoder::new(framing::Framing::U32, self.cap)),
                b'{' | b'[' => Kind::Lines(Input::default()),
                b'C' | b'c' => Kind::Headers(Input::default(), None),
                first => {
                    self.failed = self.failed.or(Some(StreamError::Unframed { first }));
                    return;
                }
            };
        }
    }

    /// The whole message at the front of `arrived`, where that is easily told, and what is behind it.
    fn whole<'a>(&self, arrived: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        match &self.kind {
            Kind::Length(_) => {
                let parsed = Header::parse(framing::Framing::U32, self.cap as u64, arrived);
                let header = parsed.ok()??;
                let message = &arrived[header.header_len..];
                message.split_at_checked(usize::try_from(header.len).ok()?)
            }
            Kind::Lines(_) => {
                let lf = memchr::memchr(b'\n', arrived)?;
                let (line, rest) = arrived.split_at(lf + 1);
                let (content, _) = split_terminator(line);
                (1..=self.cap)
                    .contains(&content.len())
                    .then_some((content, rest))
            }
            Kind::Unknown | Kind::Headers(..) => None,
        }
    }

    /// Whether the stream may end here: everything that was fed has been taken as messages.
    pub fn at_boundary(&self) -> bool {
        match &self.kind {
            Kind::Unknown => true,
            Kind::Length(decoder) => decoder.at_boundary(),
            Kind::Lines(input) => input.pending().is_empty(),
            Kind::Headers(input, len) => input.pending().is_empty() && len.is_none(),
        }
    }

    /// The bytes of memory in use, reserved ones included.
    pub fn memory(&self) -> usize {
        match &self.kind {
            Kind::Unknown => 0,
            Kind::Length(decoder) => decoder.memory(),
            Kind::Lines(input) | Kind::Headers(input, _) => input.bytes.capacity(),
        }
    }
}

fn next_line(input: &mut Input, cap: usize) -> Result<Option<Vec<u8>>, StreamError> {
    loop {
        // What has been searched holds no LF, so it need not be searched again.
        let searched = input.searched;
        let pending = input.pending();
        let Some(lf) = memchr::memchr(b'\n', &pending[searched..]) else {
            let content = pending.strip_suffix(b"\r").unwrap_or(pending);
            if content.len() > cap {
                return Err(FrameError::NoDelimiter { max: cap }.into());
            }
            input.searched = pending.len();
            return Ok(None);
        };
        let len = searched + lf + 1;
        let (content, _) = split_terminator(&pending[..len]);
        if content.len() > cap {
            return Err(FrameError::NoDelimiter { max: cap }.into());
        }
        let message = content.to_vec();
        input.consume(len);
        if !message.is_empty() {
            return Ok(Some(message));
        }
    }
}

fn next_with_headers(
    input: &mut Input,
    len: &mut Option<usize>,
    cap: usize,
) -> Result<Option<Vec<u8>>, StreamError> {
    if len.is_none() {
        let window = input.pending();
        let window = &window[..window.len().min(HEADERS_MAX)];
        let Some((content, header_len)) = headers(window)? else {
            if window.len() == HEADERS_MAX {
                return Err(StreamError::LongHeaders);
            }
            return Ok(None);
        };
        let content = content.ok_or(StreamError::BadHeader)?;
        if content > cap as u64 {
            let (len, max) = (content, cap as u64);
            return Err(FrameError::TooLong { len, max }.into());
        }
        input.consume(header_len);
        // It is at most the cap, which is a `usize`.
        *len = usize::try_from(content).ok();
    }
    let Some(message) = len.and_then(|len| input.pending().get(..len)) else {
        return Ok(None);
    };
    let message = message.to_vec();
    input.consume(message.len());
    *len = None;
    Ok(Some(message))
}

/// The announced length and the length of the header fields with the empty line behind them; `None`
/// while there is no empty line.
fn headers(window: &[u8]) -> Result<Option<(Option<u64>, usize)>, StreamError> {
    let (mut content, mut at) = (None, 0);
    loop {
        let Ok(Some(len)) = find_line(&window[at..], HEADERS_MAX) else {
            return Ok(None);
        };
        let field = window[at..at + len].strip_suffix(b"\r\n");
        let field = str::from_utf8(field.ok_or(StreamError::BadHeader)?);
        let field = field.map_err(|_| StreamError::BadHeader)?;
        at += len;
        if field.is_empty() {
            return Ok(Some((content, at)));
        }
        let (name, value) = field.split_once(':').ok_or(StreamError::BadHeader)?;
        let value = value.trim_matches([' ', '\t']);
        if name.eq_ignore_ascii_case("content-length") {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse().ok().filter(|_| digits);
            let twice = content.is_some();
            content = Some(length.filter(|_| !twice).ok_or(StreamError::BadHeader)?);
        } else if name.eq_ignore_ascii_case("content-type") {
            // The only encoding of JSON, whose name the protocol once misspelt.
            let charset = value
                .rsplit_once("charset=")
                .map_or("utf-8", |(_, name)| name);
            if !["utf-8", "utf8"].contains(&&*charset.to_ascii_lowercase()) {
                return Err(StreamError::Charset);
            }
        } else {
            return Err(StreamError::BadHeader);
        }
    }
}

/// What has arrived and is not taken yet.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    /// Bytes behind `start` in which a line does not end.
    searched: usize,
}

impl Input {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        self.searched = 0;
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > framing::STEP {
                self.bytes = Vec::new();
            }
        }
    }
}

/// What the peer sent cannot be framed. The place where the next message begins is lost with it, so
/// the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The stream begins like none of the framings.
    #[error(
        "the stream begins with the byte {first:#04x}; a message begins with a length below 16 MiB, with `{{` or `[`, or with Content-Length"
    )]
    Unframed {
        /// Its first byte.
        first: u8,
    },
    /// A message that is too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No empty line in [`HEADERS_MAX`] bytes.
    #[error("there are more than {HEADERS_MAX} bytes of header fields")]
    LongHeaders,
    /// Not one `Content-Length` of digits, or what is no field.
    #[error("a message is announced by one Content-Length, and at most a Content-Type beside it")]
    BadHeader,
    /// A `Content-Type` that JSON does not have.
    #[error("the charset of a message is utf-8")]
    Charset,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(stream: &[u8], cap: usize) -> Result<Option<Vec<u8>>, StreamError> {
        let mut decoder = Decoder::new(cap);
        decoder.feed(stream);
        decoder.next()
    }

    #[test]
    fn the_first_byte_tells_the_framing() {
        for (stream, framing) in [
            (&b"\0\0\0\x02{}"[..], Framing::Length),
            (b"{}\n", Framing::Lines),
            (b"{}\r\n", Framing::Lines),
            (b"Content-Length: 2\r\n\r\n{}", Framing::Headers),
            (b"content-length:2\r\nContent-Type: application/vscode-jsonrpc; charset=utf8\r\n\r\n{}", Framing::Headers),
        ] {
            let mut decoder = Decoder::new(2);
            assert_eq!(decoder.framing(), None);
            decoder.feed(stream);
            assert_eq!(decoder.next(), Ok(Some(b"{}".to_vec())));
            assert_eq!(decoder.framing(), Some(framing));
            assert!(decoder.at_boundary());
        }
        for first in [b'G', b'P', b'*', b' ', b'\n', 0x16, 0x80, 1] {
            let refused = Err(StreamError::Unframed { first });
            assert_eq!(next(&[first, b'{', b'}', b'\n'], 2), refused);
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_before_the_message() {
        let too_long = |len| FrameError::TooLong { len, max: 2 };
        let no_end = FrameError::NoDelimiter { max: 2 };
        for (stream, refused) in [
            (&b"\0\0\0\x03"[..], too_long(3)),
            (b"{}}", no_end),
            (b"{}}\r\n", no_end),
            (b"Content-Length: 3\r\n\r\n", too_long(3)),
            (
                b"Content-Length: 18446744073709551615\r\n\r\n",
                too_long(u64::MAX),
            ),
        ] {
            let refused = StreamError::Frame(refused);
            let mut decoder = Decoder::new(2);
            decoder.feed(stream);
            for _ in 0..2 {
                assert_eq!(decoder.next(), Err(refused), "{stream:?}");
                decoder.feed(b"{}\n");
            }
            assert_eq!(decoder.memory(), 0);
        }
    }

    #[test]
    fn header_fields_must_be_two_at_most_and_well_formed() {
        for (fields, error) in [
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
                StreamError::BadHeader,
            ),
            ("Content-Length: +1\r\n\r\n", StreamError::BadHeader),
            ("Content-Length: \r\n\r\n", StreamError::BadHeader),
            (
                "Content-Length: 18446744073709551616\r\n\r\n",
                StreamError::BadHeader,
            ),
            ("Content-Length : 1\r\n\r\n", StreamError::BadHeader),
            ("Content-Length: 1\n\n", StreamError::BadHeader),
            (
                "Content-Length: 1\r\nHost: a\r\n\r\n",
                StreamError::BadHeader,
            ),
            ("Content-Type: a\r\n\r\n", StreamError::BadHeader),
            ("CONNECT\r\n", StreamError::BadHeader),
            ("C\u{80}\r\n", StreamError::BadHeader),
            ("Content-Type: a; charset=utf-16\r\n", StreamError::Charset),
        ] {
            assert_eq!(next(fields.as_bytes(), 9), Err(error), "{fields}");
        }
        let endless = next(&[b'C'; HEADERS_MAX], 9);
        assert_eq!(endless, Err(StreamError::LongHeaders));
        assert_eq!(next(&[b'C'; HEADERS_MAX - 1], 9), Ok(None));
    }

    #[test]
    fn what_is_announced_reserves_nothing() {
        for header in [
            &b"\0\xff\xff\xff"[..],
            b"Content-Length: 16777215\r\n\r\n",
            b"{",
        ] {
            let mut decoder = Decoder::new(1 << 24);
            decoder.feed(header);
            for arrived in 1..100 {
                assert_eq!(decoder.next(), Ok(None));
                assert!(!decoder.at_boundary());
                decoder.feed(&[b' '; 1000]);
                assert!(decoder.memory() <= 2 * (arrived * 1000 + 100) + framing::STEP);
            }
        }
    }

    #[test]
    fn empty_lines_are_passed_over() {
        let mut decoder = Decoder::new(2);
        decoder.feed(b"{}\n\r\n\n[]\n");
        assert_eq!(decoder.next(), Ok(Some(b"{}".to_vec())));
        assert_eq!(decoder.next(), Ok(Some(b"[]".to_vec())));
        assert_eq!(decoder.next(), Ok(None));
    }

    proptest! {
        #[test]
        fn messages_come_out_whole_however_they_were_cut(
            messages in prop::collection::vec("[\\[{][^\r\n]{0,40}", 1..10),
            framing in prop::sample::select(&[Framing::Length, Framing::Lines, Framing::Headers]),
            cuts in prop::collection::vec((0_usize..30, any::<bool>()), 0..60),
        ) {
            let mut stream = Vec::new();
            for message in &messages {
                prop_assert!(framing.frame(message.as_bytes(), &mut stream));
            }
            let mut decoder = Decoder::new(200);
            let (mut rest, mut out) = (&stream[..], Vec::new());
            for (cut, take) in cuts {
                let now;
                (now, rest) = rest.split_at(cut.min(rest.len()));
                decoder.feed(now);
                if take && let Some(message) = decoder.next().unwrap() {
                    out.push(String::from_utf8(message).unwrap());
                }
            }
            decoder.feed(rest);
            while let Some(message) = decoder.next().unwrap() {
                out.push(String::from_utf8(message).unwrap());
            }
            prop_assert_eq!(out, messages);
            prop_assert!(decoder.at_boundary());
            prop_assert_eq!(decoder.framing(), Some(framing));
        }

        #[test]
        fn what_is_taken_uncopied_is_what_is_fed_and_handed_out(
            start in prop::sample::select(vec!["\0\0\0", "{", "[", "Content-Length: 2\r\n\r\n{}", ""]),
            noise in prop::collection::vec(prop::sample::select(&b"\0\0\0\x03\x0c{}\r\n\n2C:"[..]), 0..60),
            cuts in prop::collection::vec(0_usize..30, 0..9),
        ) {
            let stream = [start.as_bytes(), &noise].concat();
            let (mut taking, mut feeding) = (Decoder::new(8), Decoder::new(8));
            let mut rest = &stream[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let mut now;
                (now, rest) = rest.split_at(cut.min(rest.len()));
                feeding.feed(now);
                loop {
                    let taken = taking.take(&mut now).map(|taken| taken.map(Cow::into_owned));
                    prop_assert_eq!(&taken, &feeding.next());
                    if !matches!(taken, Ok(Some(_))) {
                        break;
                    }
                }
                prop_assert!(now.is_empty());
                prop_assert_eq!(taking.at_boundary(), feeding.at_boundary());
                prop_assert_eq!(taking.framing(), feeding.framing());
            }
        }
    }
}
