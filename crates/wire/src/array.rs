//! Arrays of numbers on the wire: a size, the bytes, a checksum, and the receipt for an upload.
//!
//! | what | bytes | who sends it |
//! |---|---|---|
//! | size | 8, big-endian, unsigned | whoever sends an array, before it |
//! | the array | as many as the size says | |
//! | checksum | 4, big-endian: CRC-32C of the array | a source whose frame is `checked`, behind it |
//! | receipt | 8 and 4, big-endian: length and CRC-32C of what came | a sink, behind each array |
//! | refusal | 8 of 0xff, then a [`Refusal`] as 4, big-endian | a sink, before it reads the array |
//!
//! CRC-32C is that of RFC 3720. Numbers that a source computes are float64, little-endian, which
//! numpy calls `<f8`.

/// The bytes before an array.
pub const SIZE_LEN: usize = 8;
/// The bytes of a receipt, or of a refusal.
pub const RECEIPT_LEN: usize = 12;
/// The bytes of one number.
pub const VALUE_LEN: usize = 8;

/// What a sink answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// It has the whole array, as safe as it ever will be.
    Taken {
        /// Bytes of the array; below `u64::MAX`, which marks a refusal.
        len: u64,
        /// Their CRC-32C.
        crc: u32,
    },
    /// It has kept nothing, and the connection ends.
    Refused(Refusal),
}

/// Why a sink keeps nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u32)]
pub enum Refusal {
    /// The array is larger than the sink takes; never try again.
    #[error("the array is too large")]
    TooLarge = 1,
    /// There is no room for it, in bytes or in files.
    #[error("there is no room for the array")]
    NoRoom = 2,
    /// Too many arrays are under way; try again later.
    #[error("too many arrays are under way")]
    Busy = 3,
    /// The sink could not store it.
    #[error("the array could not be stored")]
    Failed = 4,
}

/// A refusal for a reason that this version does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the array was refused for the unknown reason {code}")]
pub struct UnknownRefusal {
    /// The reason.
    pub code: u32,
}

impl Receipt {
    /// The bytes of the receipt.
    pub fn encode(self) -> [u8; RECEIPT_LEN] {
        let (len, second) = match self {
            Self::Taken { len, crc } => (len, crc),
            Self::Refused(why) => (REFUSED, why as u32),
        };
        let mut bytes = [0; RECEIPT_LEN];
        bytes[..8].copy_from_slice(&len.to_be_bytes());
        bytes[8..].copy_from_slice(&second.to_be_bytes());
        bytes
    }

    /// Reads the receipt at the front of `bytes`, or `None` while it is not complete. Never looks
    /// at more than [`RECEIPT_LEN`] bytes.
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
        let why = match second {
            1 => Refusal::TooLarge,
            2 => Refusal::NoRoom,
            3 => Refusal::Busy,
            4 => Refusal::Failed,
            code => return Err(UnknownRefusal { code }),
        };
        Ok(Some(Self::Refused(why)))
    }
}

/// The bytes before an array of `len` bytes.
pub fn encode_size(len: u64) -> [u8; SIZE_LEN] {
    len.to_be_bytes()
}

/// The size at the front of `bytes`, or `None` while it is not complete. It is what the peer says:
/// hold it against a cap.
pub fn decode_size(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|size| u64::from_be_bytes(*size))
}

/// The numbers `start + i * step` for `i` from 0 on, as the bytes of an endless array.
///
/// Each is computed by itself, one product and one sum in float64, so no error adds up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    /// The first number.
    pub start: f64,
    /// From each number to the next.
    pub step: f64,
}

impl Values {
    /// Writes the numbers from number `first` on, as many as fit into `out` as a whole; returns the
    /// bytes written. `first` is below 2^53, up to which every count is a float64.
    pub fn write(&self, first: u64, out: &mut [u8]) -> usize {
        let (values, _) = out.as_chunks_mut::<VALUE_LEN>();
        let mut base = first as f64;
        // Eight at a time do not wait for each other: each number is base plus its place.
        for eight in values.chunks_mut(LANES) {
            for (place, value) in eight.iter_mut().enumerate() {
                *value = (self.start + (base + place as f64) * self.step).to_le_bytes();
            }
            base += LANES as f64;
        }
        values.len() * VALUE_LEN
    }
}

/// A length that no array has.
const REFUSED: u64 = u64::MAX;

/// Numbers that are computed side by side.
const LANES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unknown_reason_is_told() {
        for code in [0, 5, u32::MAX] {
            let mut bytes = [0xff; RECEIPT_LEN];
            bytes[8..].copy_from_slice(&code.to_be_bytes());
            assert_eq!(Receipt::decode(&bytes), Err(UnknownRefusal { code }));
        }
    }

    #[test]
    fn an_incomplete_receipt_or_size_is_waited_for() {
        for n in 0..RECEIPT_LEN {
            assert_eq!(Receipt::decode(&[0xff; RECEIPT_LEN][..n]), Ok(None), "{n}");
        }
        for n in 0..SIZE_LEN {
            assert_eq!(decode_size(&[1; SIZE_LEN][..n]), None, "{n}");
        }
    }

    #[test]
    fn what_follows_is_not_looked_at() {
        let mut bytes = Receipt::Refused(Refusal::Busy).encode().to_vec();
        bytes.push(9);
        let busy = Ok(Some(Receipt::Refused(Refusal::Busy)));
        assert_eq!(Receipt::decode(&bytes), busy);
        assert_eq!(decode_size(b"\0\0\0\0\0\0\x01\x02\x03"), Some(258));
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        // Python: struct.pack('>QI', 400000000, 0x8a9136aa), struct.pack('>QI', 2**64 - 1, 2).
        let crc = 0x8a91_36aa;
        let taken = Receipt::Taken {
            len: 400_000_000,
            crc,
        };
        assert_eq!(taken.encode(), *b"\0\0\0\0\x17\xd7\x84\0\x8a\x91\x36\xaa");
        let refused = Receipt::Refused(Refusal::NoRoom);
        let bytes = *b"\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x02";
        assert_eq!(refused.encode(), bytes);
        assert_eq!(encode_size(400_000_000), *b"\0\0\0\0\x17\xd7\x84\0");
    }

    /// The checksum that daemon and client use is the one that the protocol names: the examples of
    /// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        // "An iSCSI - SCSI Read (10) Command PDU".
        let mut command = [0; 48];
        command[..2].copy_from_slice(&[0x01, 0xc0]);
        command[16] = 0x14;
        command[22] = 0x04;
        command[27] = 0x14;
        command[31] = 0x18;
        command[32] = 0x28;
        command[40] = 0x02;
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (&command, 0xd996_3a56),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c::crc32c(bytes), crc, "{bytes:?}");
            let (head, tail) = bytes.split_at(bytes.len() / 3);
            let pieces = crc32c::crc32c_append(crc32c::crc32c(head), tail);
            assert_eq!(pieces, crc, "{bytes:?}");
        }
    }

    #[test]
    fn values_are_those_of_numpy() {
        // numpy 1.24: (1.5 + np.arange(3) * -0.25).astype('<f8').tobytes().
        let values = Values {
            start: 1.5,
            step: -0.25,
        };
        let mut out = [0xee; 27];
        assert_eq!(values.write(0, &mut out), 24);
        let expected = *b"\0\0\0\0\0\0\xf8?\0\0\0\0\0\0\xf4?\0\0\0\0\0\0\xf0?\xee\xee\xee";
        assert_eq!(out, expected);
    }

    proptest! {
        #[test]
        fn a_receipt_survives_its_bytes(bytes: [u8; RECEIPT_LEN]) {
            if let Ok(receipt) = Receipt::decode(&bytes) {
                prop_assert_eq!(receipt.map(Receipt::encode), Some(bytes));
            }
        }

        #[test]
        fn values_are_the_same_from_wherever_they_begin(
            start in -1e9..1e9, step in -1e9..1e9, first in 0_u64..1 << 40, skip in 0_usize..8
        ) {
            let values = Values { start, step };
            let (mut all, mut rest) = ([0; 64], [0; 64]);
            values.write(first, &mut all);
            let rest = &mut rest[skip * VALUE_LEN..];
            values.write(first + skip as u64, rest);
            prop_assert_eq!(&all[skip * VALUE_LEN..], rest);
        }
    }
}
