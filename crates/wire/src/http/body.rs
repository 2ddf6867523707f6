//! The body of a request: a length, or chunks (RFC 9112, 6 and 7).

use super::HttpError;
use super::head::{field, trim_end};
use crate::plain;

/// How much of a body is still to come. Bytes are handed to [`decode`](Self::decode) as they arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Sized(u64),
    /// Chunks.
    Chunked(Chunks),
}

/// Where in a body of chunks we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Bytes that may still come.
    room: u64,
    state: State,
    /// The line under way: a size, or a trailer, which nobody reads.
    line: Vec<u8>,
    /// Bytes of trailers so far.
    trailers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// The CRLF behind a chunk.
    End,
    Trailers,
    Over,
}

impl Body {
    pub(super) fn sized(digits: &[u8], cap: u64) -> Result<Self, HttpError> {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(HttpError::Length);
        }
        // Digits only, so the one thing that can be wrong is the size.
        let length = str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok());
        match length {
            Some(length) if length <= cap => Ok(Self::Sized(length)),
            _ => Err(HttpError::BodyTooLarge),
        }
    }

    pub(super) fn chunked(cap: u64) -> Self {
        Self::Chunked(Chunks {
            room: cap,
            state: State::Size,
            line: Vec::new(),
            trailers: 0,
        })
    }

    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        match self {
            Self::None | Self::Sized(0) => true,
            Self::Sized(_) => false,
            Self::Chunked(chunks) => chunks.state == State::Over,
        }
    }

    /// Takes what belongs to the body off the front of `bytes`, appends its content to `out`, and
    /// says how many bytes that were. Nothing of the next request is taken.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, HttpError> {
        match self {
            Self::None => Ok(0),
            Self::Sized(left) => {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                out.extend_from_slice(&bytes[..taken]);
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.decode(bytes, out),
        }
    }
}

impl Chunks {
    fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, HttpError> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Over {
            let rest = &bytes[at..];
            if let State::Data(left) = self.state {
                let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                out.extend_from_slice(&rest[..taken]);
                at += taken;
                self.state = match left - taken as u64 {
                    0 => State::End,
                    left => State::Data(left),
                };
                continue;
            }
            self.line.push(rest[0]);
            at += 1;
            if rest[0] == b'\n' {
                let line = std::mem::take(&mut self.line);
                let line = line.strip_suffix(b"\r\n").ok_or(HttpError::Chunk)?;
                self.line_ended(line)?;
            } else if self.line.len() > LINE_MAX {
                return Err(HttpError::Chunk);
            }
        }
        Ok(at)
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<(), HttpError> {
        // A lone CR in a line could end it for somebody else.
        if line.contains(&b'\r') {
            return Err(HttpError::Chunk);
        }
        self.state = match self.state {
            State::Size => match size(line)? {
                0 => State::Trailers,
                size if size > self.room => return Err(HttpError::BodyTooLarge),
                size => {
                    self.room -= size;
                    State::Data(size)
                }
            },
            State::End if line.is_empty() => State::Size,
            State::Trailers if line.is_empty() => State::Over,
            State::Trailers => {
                // Nobody reads them, but what is no field could be a request to somebody else.
                field(line).map_err(|_| HttpError::Chunk)?;
                self.trailers += line.len();
                if self.trailers > TRAILERS_MAX {
                    return Err(HttpError::HeadTooLarge);
                }
                State::Trailers
            }
            State::End | State::Data(_) | State::Over => return Err(HttpError::Chunk),
        };
        Ok(())
    }
}

/// A size in hexadecimal digits; an extension behind it is skipped, blanks before that too.
fn size(line: &[u8]) -> Result<u64, HttpError> {
    let end = memchr::memchr(b';', line);
    let (digits, extension) = line.split_at(end.unwrap_or(line.len()));
    if plain::leading(extension, [0x7f], [b'\t']) < extension.len() {
        return Err(HttpError::Chunk);
    }
    let digits = match end {
        Some(_) => trim_end(digits),
        None => digits,
    };
    if !(1..=16).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(HttpError::Chunk);
    }
    let text = str::from_utf8(digits).map_err(|_| HttpError::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| HttpError::Chunk)
}

/// A size with an extension, or one trailer.
const LINE_MAX: usize = 1024;
const TRAILERS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    /// The content and what is left, fed in pieces of so many bytes.
    fn read(mut body: Body, bytes: &[u8], piece: usize) -> Result<(Vec<u8>, usize), HttpError> {
        let (mut out, mut taken) = (Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            if body.is_over() {
                break;
            }
            taken += body.decode(piece, &mut out)?;
        }
        assert!(body.is_over(), "it is not over");
        Ok((out, bytes.len() - taken))
    }

    #[test]
    fn chunks_are_put_together_in_any_pieces() {
        let bytes =
            b"5\r\nhello\r\n1 ; name=\"v\"\r\n \r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\nPOST";
        for piece in 1..bytes.len() {
            let (out, left) = read(Body::chunked(100), bytes, piece).unwrap();
            assert_eq!(out, b"hello 0123456789");
            assert!(left >= 4, "{left}");
        }
        assert_eq!(read(Body::chunked(100), bytes, bytes.len()).unwrap().1, 4);
    }

    #[test]
    fn a_sized_body_takes_no_more_than_its_length() {
        let body = Body::sized(b"5", 5).unwrap();
        assert_eq!(read(body, b"helloPOST", 9), Ok((b"hello".to_vec(), 4)));
        assert!(Body::None.is_over() && Body::sized(b"0", 5).unwrap().is_over());
    }

    #[test]
    fn wrong_chunks_are_refused() {
        for (bytes, error) in [
            (&b"\r\n"[..], HttpError::Chunk),
            (b"x\r\n", HttpError::Chunk),
            (b"-1\r\n", HttpError::Chunk),
            (b" 1\r\n", HttpError::Chunk),
            (b"1\n", HttpError::Chunk),
            (b"1;a\rb\r\n", HttpError::Chunk),
            (b"1;a\0b\r\n", HttpError::Chunk),
            (b"1;\x7f\r\n", HttpError::Chunk),
            (b"1\x0c;a\r\n", HttpError::Chunk),
            (b" 1;a\r\n", HttpError::Chunk),
            (b"1 \r\n", HttpError::Chunk),
            (b"1\t\r\n", HttpError::Chunk),
            (b"0\r\nA b\r\n", HttpError::Chunk),
            (b"0\r\nA : b\r\n", HttpError::Chunk),
            (b"0\r\nA: b\0\r\n", HttpError::Chunk),
            (b"0\r\nA: b\r\n c\r\n", HttpError::Chunk),
            (b"00000000000000001\r\n", HttpError::Chunk),
            (b"1\r\nab\r\n", HttpError::Chunk),
            (b"65\r\n", HttpError::BodyTooLarge),
            (b"ffffffffffffffff\r\n", HttpError::BodyTooLarge),
        ] {
            let mut body = Body::chunked(100);
            assert_eq!(body.decode(bytes, &mut Vec::new()), Err(error), "{bytes:?}");
        }
        let mut body = Body::chunked(100);
        assert_eq!(
            body.decode(&[b'1'; 2000], &mut Vec::new()),
            Err(HttpError::Chunk)
        );
        let trailers = [&b"0\r\n"[..], &b"A: b\r\n".repeat(3000)].concat();
        let mut body = Body::chunked(100);
        assert_eq!(
            body.decode(&trailers, &mut Vec::new()),
            Err(HttpError::HeadTooLarge)
        );
    }
}
