//! What the array services say beside the bytes: the size before an array, and the receipt for it.

/// Bytes of the size before an array.
pub const SIZE_LEN: usize = 8;
/// Bytes of a receipt, or of a refusal.
pub const RECEIPT_LEN: usize = 12;

/// What a sink answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It has the whole array.
    Taken {
        /// Bytes of the array.
        len: u64,
        /// Their CRC-32C.
        crc: u32,
    },
    /// It has kept nothing, and the connection ends. Can come before everything is sent.
    Refused(Refusal),
}

/// Why a sink keeps nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The array is larger than the sink takes.
    TooLarge,
    /// There is no room for it, in bytes or in files.
    NoRoom,
    /// Too many arrays are under way.
    Busy,
    /// The sink could not store it.
    Failed,
}

/// A refusal for a reason that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownRefusal {
    /// The reason.
    pub code: u32,
}

impl Receipt {
    /// Reads the receipt at the front of `bytes`, or `None` while it is not complete.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, UnknownRefusal> {
        let Some((len, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let Some(second) = rest.first_chunk() else {
            return Ok(None);
        };
        let (len, second) = (u64::from_be_bytes(*len), u32::from_be_bytes(*second));
        if len != REFUSED {
            return Ok(Some(Self::Taken { len, crc: second }));
        }
        Ok(Some(Self::Refused(match second {
            1 => Refusal::TooLarge,
            2 => Refusal::NoRoom,
            3 => Refusal::Busy,
            4 => Refusal::Failed,
            code => return Err(UnknownRefusal { code }),
        })))
    }
}

/// A length that no array has.
const REFUSED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_from_arrays() {
        let decode = |code: u8| {
            let mut bytes = [0xff; RECEIPT_LEN];
            bytes[8..].copy_from_slice(&[0, 0, 0, code]);
            Receipt::decode(&bytes)
        };
        for (code, refusal) in [
            (1, Refusal::TooLarge),
            (2, Refusal::NoRoom),
            (3, Refusal::Busy),
            (4, Refusal::Failed),
        ] {
            assert_eq!(decode(code), Ok(Some(Receipt::Refused(refusal))));
        }
        assert_eq!(decode(9), Err(UnknownRefusal { code: 9 }));
    }

    #[test]
    fn a_receipt_is_read_when_it_is_whole() {
        // RFC 3720 B.4: 32 bytes of zeros have the CRC-32C 8a9136aa.
        let bytes = [0, 0, 0, 0, 0, 0, 0, 32, 0x8a, 0x91, 0x36, 0xaa];
        for length in 0..RECEIPT_LEN {
            assert_eq!(Receipt::decode(&bytes[..length]), Ok(None));
        }
        let crc = crc32c::crc32c(&[0; 32]);
        let receipt = Receipt::Taken { len: 32, crc };
        assert_eq!(Receipt::decode(&bytes), Ok(Some(receipt)));
    }
}
