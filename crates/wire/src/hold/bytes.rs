//! Numbers, names and texts in a message.

use super::{ENDPOINT_MAX, HEADER_LEN, HoldError, Kind, MESSAGE_MAX, Name, SOCKETS_MAX};

/// The rest of a message that is being read. Nothing is allocated for what is not there.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the header of a packet that came with so many descriptors, and returns the kind of its
    /// message.
    pub fn begin(packet: &'a [u8], came: usize) -> Result<(u8, Self), HoldError> {
        if packet.len() > MESSAGE_MAX {
            return Err(HoldError::Long(packet.len()));
        }
        let (header, body) = packet
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(HoldError::Short)?;
        let [kind, wanted, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if body.len() < length {
            return Err(HoldError::Short);
        }
        if body.len() > length {
            return Err(HoldError::Trailing(body.len() - length));
        }
        let wanted = usize::from(wanted);
        if wanted != came {
            return Err(HoldError::Descriptors { came, wanted });
        }
        Ok((kind, Self(body)))
    }

    /// The bytes of something that has no header of its own.
    pub fn over(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Ends the message, which must have been read to its end.
    pub fn end(self) -> Result<(), HoldError> {
        match self.0.len() {
            0 => Ok(()),
            more => Err(HoldError::Trailing(more)),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], HoldError> {
        let (now, later) = self.0.split_at_checked(length).ok_or(HoldError::Short)?;
        self.0 = later;
        Ok(now)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HoldError> {
        let (now, later) = self.0.split_first_chunk().ok_or(HoldError::Short)?;
        self.0 = later;
        Ok(*now)
    }

    pub fn u8(&mut self) -> Result<u8, HoldError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, HoldError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, HoldError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, HoldError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn bool(&mut self, field: &'static str) -> Result<bool, HoldError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(HoldError::Field(field)),
        }
    }

    pub fn name(&mut self) -> Result<Name, HoldError> {
        self.maybe_name()?.ok_or(HoldError::Field("an empty name"))
    }

    /// A name, or none where it is empty.
    pub fn maybe_name(&mut self) -> Result<Option<Name>, HoldError> {
        let length = self.u8()?;
        if length == 0 {
            return Ok(None);
        }
        let bytes = self.take(length.into())?;
        let name = Name::from_bytes(bytes).map_err(|_| HoldError::Field("a name"))?;
        Ok(Some(name))
    }

    pub fn text(&mut self) -> Result<String, HoldError> {
        let bytes = self.bytes()?;
        let text = std::str::from_utf8(bytes).map_err(|_| HoldError::Field("a text"))?;
        Ok(text.into())
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], HoldError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// An endpoint of at most [`ENDPOINT_MAX`] bytes.
    pub fn endpoint(&mut self) -> Result<String, HoldError> {
        let text = self.text()?;
        if text.len() > ENDPOINT_MAX {
            return Err(HoldError::Field("an endpoint"));
        }
        Ok(text)
    }

    /// How many sockets: 1 to [`SOCKETS_MAX`].
    pub fn sockets(&mut self) -> Result<u8, HoldError> {
        match self.u8()? {
            count if (1..=SOCKETS_MAX).contains(&count.into()) => Ok(count),
            _ => Err(HoldError::Field("the number of sockets")),
        }
    }

    /// A count of sockets and the kind of each.
    pub fn kinds(&mut self) -> Result<Vec<Kind>, HoldError> {
        let count = self.sockets()?;
        let bytes = self.take(count.into())?;
        bytes.iter().map(|byte| Kind::from_byte(*byte)).collect()
    }
}

/// A message that is being written.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a message of this kind.
    pub fn begin(kind: u8) -> Self {
        Self(vec![kind, 0, 0, 0])
    }

    /// Begins something that has no header of its own.
    pub fn bare() -> Self {
        Self(Vec::new())
    }

    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub fn name(self, name: &Name) -> Self {
        self.maybe_name(Some(name))
    }

    pub fn maybe_name(mut self, name: Option<&Name>) -> Self {
        let bytes = name.map_or(&[][..], |name| name.as_str().as_bytes());
        // A name has at most 255 bytes.
        self.0.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(bytes);
        self
    }

    /// A text of at most so many bytes; of a longer one its beginning.
    pub fn text(self, text: &str, max: usize) -> Self {
        let mut end = text.len().min(max);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&text.as_bytes()[..end])
    }

    /// At most 65535 bytes; of more their beginning.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_be_bytes());
        self.0.extend_from_slice(&bytes[..length.into()]);
        self
    }

    /// A count of sockets and the kind of each; of more than [`SOCKETS_MAX`] the first.
    pub fn kinds(mut self, kinds: &[Kind]) -> Self {
        let kinds = &kinds[..kinds.len().min(SOCKETS_MAX)];
        self.0.push(u8::try_from(kinds.len()).unwrap_or(u8::MAX));
        self.0.extend(kinds.iter().map(|kind| *kind as u8));
        self
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The message, to be sent with so many descriptors.
    pub fn finish(mut self, descriptors: usize) -> Vec<u8> {
        // Both are below their caps, which fit.
        self.0[1] = u8::try_from(descriptors).unwrap_or(u8::MAX);
        let length = u16::try_from(self.0.len() - HEADER_LEN).unwrap_or(u16::MAX);
        self.0[2..HEADER_LEN].copy_from_slice(&length.to_be_bytes());
        self.0
    }

    /// What has no header.
    pub fn bare_end(self) -> Vec<u8> {
        self.0
    }
}
