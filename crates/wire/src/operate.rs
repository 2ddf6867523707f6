//! Operating fd-broker: what `portyard broker` asks over the control socket.
//!
//! The messages have the header of [`hold`](crate::hold) and of workers (kind, descriptors, bytes that
//! follow), and kinds of their own, so that one socket serves all three. None comes with descriptors.
//!
//! | kind | message | body |
//! |---|---|---|
//! | `50` | [`Request::Status`] | |
//! | `51` | [`Request::Drain`] | name |
//! | `52` | [`Request::Resume`] | name |
//! | `d0` | [`Reply::Part`] | u8 more, bytes of a JSON document |
//! | `d1` | [`Reply::Done`] | u32 how many workers |
//! | `d2` | [`Reply::Refused`] | text |
//!
//! A status is longer than a message: it comes in parts, of which the last one says that no more come.

use std::ops::RangeInclusive;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The state of everything, as JSON. Answered by `Part`s.
    Status,
    /// Workers of this name, or of the pool of this name, get nothing new. Answered by `Done`.
    Drain(&'a str),
    /// They get connections again. Answered by `Done`.
    Resume(&'a str),
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A part of a document.
    Part {
        /// Whether another part follows.
        more: bool,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// So many workers were told.
    Done(u32),
    /// Why not, and what to do.
    Refused(&'a str),
}

/// A packet that is no message. Whoever sent it has no further say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// It is cut, too long, or not as long as it says.
    #[error("the message is not as long as it says")]
    Length,
    /// Another kind.
    #[error("a message of kind {0:#04x} is not expected here")]
    Kind(u8),
    /// Descriptors came.
    #[error("{0} descriptors came where none belong")]
    Descriptors(usize),
    /// A name or text that is empty, too long or not UTF-8.
    #[error("a name or text is malformed")]
    Text,
}

impl<'a> Request<'a> {
    /// The kinds of requests, which no other message to a broker has.
    pub const KINDS: RangeInclusive<u8> = 0x50..=0x5f;

    /// Reads a packet with which `descriptors` came.
    pub fn decode(packet: &'a [u8], descriptors: usize) -> Result<Self, OperateError> {
        let (kind, body) = open(packet, descriptors)?;
        match kind {
            STATUS if body.is_empty() => Ok(Self::Status),
            STATUS => Err(OperateError::Length),
            DRAIN => name(body).map(Self::Drain),
            RESUME => name(body).map(Self::Resume),
            other => Err(OperateError::Kind(other)),
        }
    }

    /// The packet. A name is cut at its cap.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Status => packet(STATUS, &[]),
            Self::Drain(name) => packet(DRAIN, cut(name, NAME_MAX).as_bytes()),
            Self::Resume(name) => packet(RESUME, cut(name, NAME_MAX).as_bytes()),
        }
    }
}

impl<'a> Reply<'a> {
    /// Reads a packet with which `descriptors` came.
    pub fn decode(packet: &'a [u8], descriptors: usize) -> Result<Self, OperateError> {
        let (kind, body) = open(packet, descriptors)?;
        match (kind, body) {
            (PART, [more @ 0..=1, bytes @ ..]) => Ok(Self::Part {
                more: *more == 1,
                bytes,
            }),
            (DONE, &[a, b, c, d]) => Ok(Self::Done(u32::from_be_bytes([a, b, c, d]))),
            (REFUSED, text) => std::str::from_utf8(text)
                .map(Self::Refused)
                .map_err(|_| OperateError::Text),
            (PART | DONE, _) => Err(OperateError::Length),
            (other, _) => Err(OperateError::Kind(other)),
        }
    }

    /// The packet. A part and a text are cut at their caps.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Part { more, bytes } => {
                let bytes = &bytes[..bytes.len().min(PART_MAX)];
                packet(PART, &[&[u8::from(*more)], bytes].concat())
            }
            Self::Done(count) => packet(DONE, &count.to_be_bytes()),
            Self::Refused(text) => packet(REFUSED, cut(text, TEXT_MAX).as_bytes()),
        }
    }
}

/// The packets of a document; one at least.
pub fn parts(document: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = document.len().div_ceil(PART_MAX).max(1);
    (0..count).map(move |at| {
        let start = at * PART_MAX;
        let bytes = &document[start..document.len().min(start + PART_MAX)];
        let more = at + 1 < count;
        Reply::Part { more, bytes }.encode()
    })
}

fn open(packet: &[u8], descriptors: usize) -> Result<(u8, &[u8]), OperateError> {
    let (&[kind, announced, high, low], body) =
        packet.split_first_chunk().ok_or(OperateError::Length)?;
    if descriptors > 0 || announced > 0 {
        return Err(OperateError::Descriptors(descriptors.max(announced.into())));
    }
    if body.len() != usize::from(u16::from_be_bytes([high, low])) || packet.len() > MESSAGE_MAX {
        return Err(OperateError::Length);
    }
    Ok((kind, body))
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    // Every body is cut to less than a message.
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[kind, 0], &length[..], body].concat()
}

fn name(body: &[u8]) -> Result<&str, OperateError> {
    let text = std::str::from_utf8(body).map_err(|_| OperateError::Text)?;
    let good = (1..=NAME_MAX).contains(&text.len()) && !text.contains(char::is_control);
    good.then_some(text).ok_or(OperateError::Text)
}

fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The longest message.
pub const MESSAGE_MAX: usize = 16 * 1024;
/// Bytes of a document in one message.
pub const PART_MAX: usize = MESSAGE_MAX - 5;
const NAME_MAX: usize = 255;
const TEXT_MAX: usize = 512;

const STATUS: u8 = 0x50;
const DRAIN: u8 = 0x51;
const RESUME: u8 = 0x52;
const PART: u8 = 0xd0;
const DONE: u8 = 0xd1;
const REFUSED: u8 = 0xd2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_message_has_the_bytes_that_are_written_down() {
        for (request, bytes) in [
            (Request::Status, &b"\x50\0\0\0"[..]),
            (Request::Drain("web"), b"\x51\0\0\x03web"),
            (Request::Resume("web"), b"\x52\0\0\x03web"),
        ] {
            assert_eq!(request.encode(), bytes);
            assert_eq!(Request::decode(bytes, 0), Ok(request));
        }
        let part = Reply::Part {
            more: true,
            bytes: b"{",
        };
        for (reply, bytes) in [
            (part, &b"\xd0\0\0\x02\x01{"[..]),
            (Reply::Done(2), b"\xd1\0\0\x04\0\0\0\x02"),
            (Reply::Refused("no"), b"\xd2\0\0\x02no"),
        ] {
            assert_eq!(reply.encode(), bytes);
            assert_eq!(Reply::decode(bytes, 0), Ok(reply));
        }
    }

    #[test]
    fn what_is_cut_smuggled_or_nameless_is_refused() {
        let packet = Request::Drain("web").encode();
        for end in 0..packet.len() {
            assert!(Request::decode(&packet[..end], 0).is_err(), "{end}");
        }
        assert_eq!(
            Request::decode(&packet, 1),
            Err(OperateError::Descriptors(1))
        );
        for body in [&b""[..], b"a\nb", b"\xff", &[b'x'; 256]] {
            let length = u16::try_from(body.len()).unwrap().to_be_bytes();
            let packet = [&[0x51, 0], &length[..], body].concat();
            assert_eq!(Request::decode(&packet, 0), Err(OperateError::Text));
        }
        assert_eq!(
            Request::decode(b"\x53\0\0\0", 0),
            Err(OperateError::Kind(0x53))
        );
        assert_eq!(
            Request::decode(b"\x50\0\0\x01x", 0),
            Err(OperateError::Length)
        );
    }

    proptest! {
        #[test]
        fn a_document_comes_whole_out_of_its_parts(size in 0..3 * PART_MAX) {
            let document: Vec<u8> = (0..=250).cycle().take(size).collect();
            let packets: Vec<Vec<u8>> = parts(&document).collect();
            let mut whole = Vec::new();
            for (at, packet) in packets.iter().enumerate() {
                let Ok(Reply::Part { more, bytes }) = Reply::decode(packet, 0) else {
                    panic!("part {at}");
                };
                prop_assert_eq!(more, at + 1 < packets.len());
                whole.extend_from_slice(bytes);
            }
            prop_assert_eq!(whole, document);
        }

        #[test]
        fn what_is_read_survives_being_written(packet in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut packet = packet;
            if packet.len() >= 4 {
                packet[1] = 0;
                packet[2] = 0;
                packet[3] = u8::try_from(packet.len() - 4).unwrap();
            }
            if let Ok(request) = Request::decode(&packet, 0) {
                prop_assert_eq!(request.encode(), packet.clone());
            }
            if let Ok(reply) = Reply::decode(&packet, 0) {
                prop_assert_eq!(reply.encode(), packet);
            }
        }
    }
}
