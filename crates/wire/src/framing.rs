//! Where a message ends: a length in front of it, or a delimiter behind it.
//!
//! Lines that people type are in [`mod@crate::line`]. Here are the framings of programs: a `u32`
//! before each message ([`Framing::U32`]), the framing of Python's `multiprocessing.connection`
//! ([`Framing::Python`]), and any byte string after each message ([`Delimiter`]).
//!
//! There are two ways to read a length. [`Header::parse`] only looks at the header, so a service
//! can pass a message of any size on without holding it. [`Decoder`] collects whole messages. Both
//! hold the announced length against a cap before it means anything, and the decoder reserves
//! memory for what has arrived, never for what was announced.

mod decoder;
mod delimited;

pub use decoder::{Decoder, STEP};
pub use delimited::{Delimiter, EmptyDelimiter};

/// How a message says its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Four bytes, big-endian, unsigned.
    U32,
    /// What `Connection.send_bytes` of CPython writes on POSIX and for sockets everywhere: four
    /// bytes, big-endian, signed; after -1 eight more, big-endian, unsigned (cpython
    /// `Lib/multiprocessing/connection.py`, `Connection._send_bytes`).
    ///
    /// The long form is accepted for any size, as CPython does. Any other negative number is
    /// refused; CPython takes it for an empty message and is then out of step.
    Python,
}

/// What stands before a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes in the message that follows.
    pub len: u64,
    /// Bytes in the header itself: 4, or 12 in the long form.
    pub header_len: usize,
}

impl Header {
    /// Reads the header at the front of `bytes`, or `None` while it is not complete.
    ///
    /// Never looks at more than 12 bytes. A message longer than `cap` is refused here, before any
    /// of it has been read; there is no way to go on afterwards.
    pub fn parse(framing: Framing, cap: u64, bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((first, rest)) = bytes.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let header = match framing {
            Framing::U32 => Self {
                len: u32::from_be_bytes(*first).into(),
                header_len: 4,
            },
            Framing::Python => match i32::from_be_bytes(*first) {
                -1 => match rest.first_chunk() {
                    Some(long) => Self {
                        len: u64::from_be_bytes(*long),
                        header_len: 12,
                    },
                    None => return Ok(None),
                },
                len => Self {
                    len: u64::try_from(len).map_err(|_| FrameError::Negative { len })?,
                    header_len: 4,
                },
            },
        };
        if header.len > cap {
            return Err(FrameError::TooLong {
                len: header.len,
                max: cap,
            });
        }
        Ok(Some(header))
    }

    /// The bytes that `framing` puts before a message of `len` bytes. `None` when it cannot say
    /// such a length, which only happens to [`Framing::U32`].
    pub fn encode(framing: Framing, len: u64) -> Option<HeaderBytes> {
        match framing {
            Framing::U32 => Some(HeaderBytes::short(u32_header(u32::try_from(len).ok()?))),
            Framing::Python => Some(python_header(len)),
        }
    }
}

/// The four bytes before a message of `len` bytes in [`Framing::U32`].
pub fn u32_header(len: u32) -> [u8; 4] {
    len.to_be_bytes()
}

/// The bytes before a message of `len` bytes in [`Framing::Python`]: the short form up to
/// 0x7fff_ffff, the long one above. Python 2.7, 3.6 and 3.7 do not know the long form.
///
/// CPython writes header and message at once up to [`PYTHON_ONE_WRITE`] bytes of message, so that
/// neither waits for the other's acknowledgement; a sender here does well to do the same.
pub fn python_header(len: u64) -> HeaderBytes {
    if let Ok(short) = i32::try_from(len) {
        return HeaderBytes::short(short.to_be_bytes());
    }
    let mut bytes = [0xff; 12];
    bytes[4..].copy_from_slice(&len.to_be_bytes());
    HeaderBytes { bytes, len: 12 }
}

/// The longest message that CPython sends in one write with its header.
pub const PYTHON_ONE_WRITE: usize = 16_384;

/// A message with its header in [`Framing::Python`], for what is short enough to copy.
pub fn python_message(payload: &[u8]) -> Vec<u8> {
    [&python_header(payload.len() as u64), payload].concat()
}

/// A header ready to be sent, without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderBytes {
    bytes: [u8; 12],
    len: u8,
}

impl HeaderBytes {
    fn short(first: [u8; 4]) -> Self {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&first);
        Self { bytes, len: 4 }
    }
}

impl std::ops::Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What the peer sent cannot be framed. The place where the next message begins is lost with it, so
/// the connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length over the cap.
    #[error("the peer announced a message of {len} bytes, and {max} are allowed")]
    TooLong {
        /// What was announced.
        len: u64,
        /// What is allowed.
        max: u64,
    },
    /// A negative length that is not the mark of the long form.
    #[error("the peer announced a message of {len} bytes")]
    Negative {
        /// What was announced.
        len: i32,
    },
    /// No delimiter where the longest message would have ended.
    #[error("the peer sent more than {max} bytes without the delimiter")]
    NoDelimiter {
        /// The longest message allowed, without its delimiter.
        max: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn python(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        Header::parse(Framing::Python, u64::MAX, bytes)
    }

    /// Bytes written by `Connection.send_bytes` of Python 3.8.18 and 3.13.0, its `_send` recorded.
    const FROM_PYTHON: [(u64, &[u8]); 6] = [
        (0, b"\0\0\0\0"),
        (3, b"\0\0\0\x03"),
        (16_384, b"\0\0\x40\0"),
        (16_385, b"\0\0\x40\x01"),
        (0x7fff_ffff, b"\x7f\xff\xff\xff"),
        (0x8000_0000, b"\xff\xff\xff\xff\0\0\0\0\x80\0\0\0"),
    ];

    #[test]
    fn headers_are_those_of_cpython() {
        for (len, bytes) in FROM_PYTHON {
            assert_eq!(python_header(len)[..], *bytes);
            let header_len = bytes.len();
            assert_eq!(python(bytes), Ok(Some(Header { len, header_len })));
        }
    }

    #[test]
    fn the_long_form_is_accepted_for_a_short_message() {
        let header = Header {
            len: 3,
            header_len: 12,
        };
        let bytes = b"\xff\xff\xff\xff\0\0\0\0\0\0\0\x03abc";
        assert_eq!(python(bytes), Ok(Some(header)));
    }

    #[test]
    fn other_negative_lengths_are_refused() {
        for len in [-2, -3, i32::MIN] {
            assert_eq!(
                python(&len.to_be_bytes()),
                Err(FrameError::Negative { len })
            );
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_at_the_header() {
        for (framing, bytes, len) in [
            (Framing::U32, &b"\xff\xff\xff\xff"[..], 0xffff_ffff),
            (Framing::U32, b"\0\0\x01\x01", 257),
            (Framing::Python, b"\0\0\x01\x01", 257),
            (Framing::Python, &[0xff; 12], u64::MAX),
        ] {
            let refused = Err(FrameError::TooLong { len, max: 256 });
            assert_eq!(Header::parse(framing, 256, bytes), refused);
        }
        let longest = Header {
            len: 256,
            header_len: 4,
        };
        for framing in [Framing::U32, Framing::Python] {
            let parsed = Header::parse(framing, 256, b"\0\0\x01\0");
            assert_eq!(parsed, Ok(Some(longest)));
        }
    }

    #[test]
    fn an_incomplete_header_is_waited_for() {
        let long = &FROM_PYTHON[5].1;
        for n in 0..long.len() {
            assert_eq!(python(&long[..n]), Ok(None), "{n}");
        }
        assert_eq!(
            Header::parse(Framing::U32, 0, &[0xff, 0xff, 0xff]),
            Ok(None)
        );
    }

    #[test]
    fn a_length_that_four_bytes_cannot_say_is_not_encoded() {
        assert_eq!(Header::encode(Framing::U32, 1 << 32), None);
        let max = Header::encode(Framing::U32, u32::MAX.into()).unwrap();
        assert_eq!(max[..], [0xff; 4]);
    }

    proptest! {
        #[test]
        fn every_length_survives_its_header(len: u64) {
            let written = python_header(len);
            let header_len = written.len();
            prop_assert_eq!(python(&written), Ok(Some(Header { len, header_len })));
        }
    }
}
