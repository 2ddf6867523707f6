//! A stream of requests, checked before another parser reads it.

use super::{Body, Caps, Head, HttpError};

/// Lets through whole heads and the bytes of bodies, and stops at the first request that two programs
/// could understand differently. So a library that is more lenient sees nothing that it could be
/// lenient with.
#[derive(Clone, Debug)]
pub struct Checker {
    caps: Caps,
    /// A head that is not complete.
    head: Vec<u8>,
    /// Where its request line begins, behind empty lines.
    start: usize,
    body: Body,
    /// Content of chunks, which only the decoder looks at.
    content: Vec<u8>,
    heads: u64,
}

/// Bytes that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed<'a> {
    /// A whole head, with the empty line behind it.
    Head(&'a [u8]),
    /// Some of a body.
    Body(&'a [u8]),
}

impl Checker {
    /// A checker at the front of a request.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            head: Vec::new(),
            start: 0,
            body: Body::None,
            content: Vec::new(),
            heads: 0,
        }
    }

    /// Takes bytes as they arrive and hands on what may be read. After an error nothing more may be
    /// given to it: nobody knows where the next request would begin.
    pub fn check(
        &mut self,
        mut bytes: &[u8],
        mut hand_on: impl FnMut(Passed<'_>),
    ) -> Result<(), HttpError> {
        while !bytes.is_empty() {
            let taken = if !self.body.is_over() {
                self.content.clear();
                let taken = self.body.decode(bytes, &mut self.content)?;
                hand_on(Passed::Body(&bytes[..taken]));
                taken
            } else if self.head.is_empty() {
                if let Some((head, length)) = Head::parse(bytes, &self.caps)? {
                    self.body = head.body;
                    self.heads += 1;
                    hand_on(Passed::Head(&bytes[..length]));
                    length
                } else {
                    check_lines(bytes)?;
                    self.head.extend_from_slice(bytes);
                    self.skip_empty_lines();
                    bytes.len()
                }
            } else {
                // No more than could still be a head is kept.
                let room = (self.caps.head + 1).saturating_sub(self.head.len()).max(1);
                let more = bytes.len().min(room);
                let before = self.head.len();
                self.head.extend_from_slice(&bytes[..more]);
                self.skip_empty_lines();
                // Only what is new is looked at, or a head that drips in would cost its square.
                let fresh = &self.head[before.saturating_sub(3)..];
                // The method is looked at until it is over.
                let is_short = before <= self.start + SHORT;
                let may_end = fresh.windows(4).any(|four| four == b"\r\n\r\n");
                let is_long = self.head.len() > self.caps.head;
                // Empty lines count as a part of it, but are not read again with every piece.
                let skipped = if is_long { 0 } else { self.start };
                let whole = if is_short || may_end || is_long {
                    Head::parse(&self.head[skipped..], &self.caps)?
                } else {
                    None
                };
                if let Some((head, length)) = whole {
                    let length = skipped + length;
                    self.body = head.body;
                    self.heads += 1;
                    hand_on(Passed::Head(&self.head[..length]));
                    self.head = Vec::new();
                    self.start = 0;
                    length - before
                } else {
                    // Behind the end of a head lines are the body's.
                    check_lines(fresh)?;
                    more
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn skip_empty_lines(&mut self) {
        while self.head[self.start..].starts_with(b"\r\n") {
            self.start += 2;
        }
    }

    /// Whether a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// How many heads have passed.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether no body is under way.
    pub fn is_body_over(&self) -> bool {
        self.body.is_over()
    }

    /// Whether the next byte would be the first of a request.
    pub fn is_between(&self) -> bool {
        self.head.is_empty() && self.body.is_over()
    }
}

/// Who ends lines without CR learns it now: the end of the head would never come.
fn check_lines(bytes: &[u8]) -> Result<(), HttpError> {
    let mut before = None;
    for byte in bytes {
        if *byte == b'\n' && before.is_some_and(|before| before != b'\r') {
            return Err(HttpError::Field);
        }
        before = Some(*byte);
    }
    Ok(())
}

/// More than a method.
const SHORT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        head: 200,
        fields: 10,
        body: u64::MAX,
    };

    /// What is handed on of `text`, fed in pieces of so many bytes, and how it ends.
    fn check(text: &str, piece: usize) -> (String, Result<(), HttpError>, Checker) {
        let (mut checker, mut out) = (Checker::new(CAPS), Vec::new());
        let mut pieces = text.as_bytes().chunks(piece);
        let mut keep = |passed: Passed<'_>| match passed {
            Passed::Head(head) => {
                assert!(head.ends_with(b"\r\n\r\n"));
                out.extend_from_slice(head);
            }
            Passed::Body(part) => out.extend_from_slice(part),
        };
        let result = pieces.try_for_each(|piece| checker.check(piece, &mut keep));
        (String::from_utf8(out).unwrap(), result, checker)
    }

    const GOOD: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
        POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        GET /d HTTP/1.1\r\nHost: a\r\n\r\n";

    #[test]
    fn good_requests_pass_in_any_pieces() {
        for piece in 1..=GOOD.len() {
            let (out, result, checker) = check(GOOD, piece);
            assert_eq!((out.as_str(), result), (GOOD, Ok(())), "{piece}");
            assert!(checker.is_between());
        }
    }

    #[test]
    fn nothing_of_a_bad_head_passes() {
        let bad =
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for piece in [1, 7, 4000] {
            let (out, result, _) = check(&format!("{GOOD}{bad}"), piece);
            assert_eq!((out.as_str(), result), (GOOD, Err(HttpError::Length)));
        }
    }

    #[test]
    fn lines_without_cr_are_refused_before_the_end_of_the_head() {
        for piece in [1, 5, 1000] {
            let (out, result, _) = check("GET /a HTTP/1.1\nHost: a\n\n", piece);
            assert_eq!(
                (out.as_str(), result),
                ("", Err(HttpError::Field)),
                "{piece}"
            );
        }
    }

    #[test]
    fn who_speaks_something_else_learns_it_at_once_in_any_pieces() {
        for piece in [1, 3, 100] {
            let (_, result, _) = check("POST@GE /cT  HTTP/", piece);
            assert_eq!(result, Err(HttpError::RequestLine), "{piece}");
            let behind_lines = format!("{}{}", "\r\n".repeat(40), "W".repeat(40));
            let (_, result, _) = check(&behind_lines, piece);
            assert_eq!(result, Err(HttpError::RequestLine), "{piece}");
        }
    }

    #[test]
    fn empty_lines_before_a_head_count_and_pass() {
        for (lines, expected) in [(2, Ok(())), (200, Err(HttpError::HeadTooLarge))] {
            let text = format!("{GOOD}{}{GOOD}", "\r\n".repeat(lines));
            for piece in [1, 2, 3, 4000] {
                let (out, result, _) = check(&text, piece);
                assert_eq!(result, expected, "{lines} {piece}");
                let passed = if result.is_ok() { &text } else { GOOD };
                assert_eq!(out, passed, "{lines} {piece}");
            }
        }
    }

    #[test]
    fn lines_of_a_body_are_its_own() {
        let text = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\na\nb\n";
        for piece in 1..=text.len() {
            let (out, result, _) = check(text, piece);
            assert_eq!((out.as_str(), result), (text, Ok(())), "{piece}");
        }
    }

    #[test]
    fn an_unfinished_head_is_kept_back_up_to_its_cap() {
        let (out, result, checker) = check("GET /a HTTP/1.1\r\nHo", 3);
        assert_eq!((out.as_str(), result), ("", Ok(())));
        assert!(checker.is_in_head() && !checker.is_between());
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(300));
        assert_eq!(check(&long, 1).1, Err(HttpError::HeadTooLarge));
        assert_eq!(check(&long, 4000).1, Err(HttpError::HeadTooLarge));
    }
}
