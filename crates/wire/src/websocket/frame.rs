//! Frames (RFC 6455, 5.2).

use super::machine::Fault;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continuation,
    /// The first fragment of a text.
    Text,
    /// The first fragment of bytes.
    Binary,
    /// The end.
    Close,
    /// A question for a [`Opcode::Pong`].
    Ping,
    /// The answer to it, or a sign of life.
    Pong,
}

/// What stands before a frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last fragment of its message.
    pub is_last: bool,
    /// The first reserved bit: its message is compressed (RFC 7692, 6). Only what was agreed on may have
    /// it.
    pub is_compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub length: u64,
    /// What the payload is masked with; `None`: it is not, as servers send it.
    pub mask: Option<[u8; 4]>,
}

impl Header {
    /// Reads the header at the front of `bytes` and says how long it is; `None` while it is not
    /// complete. What is wrong is said as soon as it shows.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Fault> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        if first & 0x30 != 0 {
            return Err(Fault::Reserved);
        }
        let is_last = first & 0x80 != 0;
        let opcode = Opcode::of(first & 0x0f).ok_or(Fault::Opcode)?;
        if opcode.is_control() && !is_last {
            return Err(Fault::ControlFragmented);
        }
        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        let (short, masked) = (second & 0x7f, second & 0x80 != 0);
        if opcode.is_control() && usize::from(short) > CONTROL_MAX {
            return Err(Fault::ControlTooLong);
        }
        let (length, at) = match short {
            126 => match bytes.get(2..4) {
                Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
                _ => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
                Some(length) => (u64::from_be_bytes(length), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        // The shortest form is demanded, and 63 bits are the most (RFC 6455, 5.2).
        let least = [0, 126, 1 << 16][usize::from(short >= 126) + usize::from(short == 127)];
        if length < least || length >> 63 != 0 {
            return Err(Fault::Length);
        }
        let mut header = Self {
            is_last,
            is_compressed: first & COMPRESSED != 0,
            opcode,
            length,
            mask: None,
        };
        if !masked {
            return Ok(Some((header, at)));
        }
        match bytes.get(at..at + 4) {
            Some(&[a, b, c, d]) => {
                header.mask = Some([a, b, c, d]);
                Ok(Some((header, at + 4)))
            }
            _ => Ok(None),
        }
    }
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether it may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Appends a frame as a server sends it.
pub fn write(out: &mut Vec<u8>, is_last: bool, opcode: Opcode, payload: &[u8]) {
    frame(out, u8::from(is_last) << 7 | opcode.bits(), payload);
}

/// Appends the first fragment of a compressed message.
pub fn write_compressed(out: &mut Vec<u8>, is_last: bool, opcode: Opcode, payload: &[u8]) {
    let first = u8::from(is_last) << 7 | COMPRESSED | opcode.bits();
    frame(out, first, payload);
}

fn frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

const COMPRESSED: u8 = 0x40;
/// The longest payload of a control frame.
pub const CONTROL_MAX: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_examples_are_read() {
        let header = |is_last, opcode, length, mask| Header {
            is_last,
            is_compressed: false,
            opcode,
            length,
            mask,
        };
        let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
        let two_power_16 = [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0];
        for (bytes, expected, length) in [
            (
                &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d][..],
                header(true, Opcode::Text, 5, mask),
                6,
            ),
            (&[0x01, 0x03], header(false, Opcode::Text, 3, None), 2),
            (
                &[0x80, 0x02],
                header(true, Opcode::Continuation, 2, None),
                2,
            ),
            (&[0x89, 0x05], header(true, Opcode::Ping, 5, None), 2),
            (
                &[0x82, 0x7e, 1, 0],
                header(true, Opcode::Binary, 256, None),
                4,
            ),
            (&two_power_16, header(true, Opcode::Binary, 65536, None), 10),
        ] {
            assert_eq!(Header::parse(bytes), Ok(Some((expected, length))));
            for short in 0..length {
                assert_eq!(Header::parse(&bytes[..short]), Ok(None));
            }
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_a_fault() {
        for (bytes, fault) in [
            (&[0xa1][..], Fault::Reserved),
            (&[0x91], Fault::Reserved),
            (&[0x83], Fault::Opcode),
            (&[0x8f], Fault::Opcode),
            (&[0x09], Fault::ControlFragmented),
            (&[0x89, 0xfe], Fault::ControlTooLong),
            (&[0x82, 0x7e, 0, 125], Fault::Length),
            (&[0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Fault::Length),
            (&[0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], Fault::Length),
        ] {
            assert_eq!(Header::parse(bytes), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_are_written_as_short_as_they_can_be() {
        for (length, head) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65535, &[0x82, 126, 0xff, 0xff]),
            (65536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write(&mut out, true, Opcode::Binary, &vec![7; length]);
            assert_eq!(&out[..head.len()], head);
            assert_eq!(out.len(), head.len() + length);
        }
    }
}
