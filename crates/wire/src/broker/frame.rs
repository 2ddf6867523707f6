//! What all messages have in common: the header, and how a body is written.

use super::{BrokerError, MESSAGE_MAX};

/// Bytes before the body.
pub const HEADER_LEN: usize = 4;

/// A message of which the header has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its kind.
    pub kind: u8,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Checks a packet, with which `descriptors` came, against its header.
    pub fn decode(packet: &'a [u8], descriptors: usize) -> Result<Self, BrokerError> {
        if packet.len() > MESSAGE_MAX {
            return Err(BrokerError::TooLong(packet.len()));
        }
        let Some((&[kind, count, high, low], body)) = packet.split_first_chunk() else {
            return Err(BrokerError::Length {
                came: packet.len(),
                wanted: HEADER_LEN,
            });
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length != body.len() {
            return Err(BrokerError::Length {
                came: packet.len(),
                wanted: HEADER_LEN + length,
            });
        }
        if usize::from(count) != descriptors {
            return Err(BrokerError::Descriptors {
                came: descriptors,
                wanted: count.into(),
            });
        }
        Ok(Self { kind, body })
    }
}

/// Writes a message. What is given to it must keep to the caps of the protocol; beyond
/// [`MESSAGE_MAX`] nothing is written.
#[derive(Clone, Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message of `kind`.
    pub fn new(kind: u8) -> Self {
        let mut packet = Vec::with_capacity(128);
        packet.extend_from_slice(&[kind, 0, 0, 0]);
        Self(packet)
    }

    /// How long the message is so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing follows the header.
    pub fn is_empty(&self) -> bool {
        self.0.len() == HEADER_LEN
    }

    /// Whether `more` bytes fit.
    pub fn has_room(&self, more: usize) -> bool {
        self.0.len() + more <= MESSAGE_MAX
    }

    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.0.extend_from_slice(bytes);
        }
    }

    /// Appends a field, with the first 65,535 bytes of `value`.
    pub fn field(&mut self, kind: u8, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        let value = &value[..length.into()];
        if self.has_room(FIELD_HEADER_LEN + value.len()) {
            self.0.push(kind);
            self.0.extend_from_slice(&length.to_be_bytes());
            self.0.extend_from_slice(value);
        }
    }

    /// Writes a number over what is at `place`.
    pub(super) fn patch(&mut self, place: usize, number: u16) {
        if let Some(bytes) = self.0.get_mut(place..place + 2) {
            bytes.copy_from_slice(&number.to_be_bytes());
        }
    }

    /// The finished packet, to be sent with `descriptors`.
    pub fn finish(mut self, descriptors: u8) -> Vec<u8> {
        self.0[1] = descriptors;
        // MESSAGE_MAX is far below 65,536.
        let length = u16::try_from(self.0.len() - HEADER_LEN).unwrap_or(u16::MAX);
        self.patch(2, length);
        self.0
    }
}

/// A body of exactly `N` bytes.
pub(super) fn exactly<const N: usize>(body: &[u8]) -> Result<[u8; N], BrokerError> {
    body.try_into().map_err(|_| BrokerError::Length {
        came: HEADER_LEN + body.len(),
        wanted: HEADER_LEN + N,
    })
}

/// Takes the first `N` bytes from `rest`.
pub(super) fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BrokerError> {
    let (first, behind) = rest.split_first_chunk().ok_or(BrokerError::Length {
        came: rest.len(),
        wanted: N,
    })?;
    *rest = behind;
    Ok(*first)
}

/// Text of at most `max` bytes on one line.
pub(super) fn text(bytes: &[u8], max: usize) -> Result<&str, BrokerError> {
    let text = std::str::from_utf8(bytes).map_err(|_| BrokerError::Text)?;
    let has_control = if text.is_ascii() {
        text.bytes().any(|byte| byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    };
    if bytes.len() > max || has_control {
        return Err(BrokerError::Text);
    }
    Ok(text)
}

/// As much of a text as `max` bytes hold.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const FIELD_HEADER_LEN: usize = 3;
