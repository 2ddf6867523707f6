//! The 48-byte header (RFC 5905 section 7.3, RFC 4330 section 4).

use super::stamp::{Short, Timestamp};

/// One packet without extension fields and authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// LI: a leap second ahead, or a clock that is not synchronised.
    pub leap: LeapIndicator,
    /// VN: 0 to 7 on the wire; of a larger number the lowest three bits are sent.
    pub version: u8,
    /// Who speaks.
    pub mode: Mode,
    /// 0: unspecified or a kiss, 1: next to a reference clock, 2 to 15: that many steps away from
    /// one.
    pub stratum: u8,
    /// Seconds between two requests, as a power of two.
    pub poll: i8,
    /// Seconds that the clock can tell apart, as a power of two.
    pub precision: i8,
    /// Round trip to the reference clock.
    pub root_delay: Short,
    /// Error bound to the reference clock.
    pub root_dispersion: Short,
    /// Where the time comes from: four characters for stratum 0 and 1, an address or hash else.
    pub reference_id: [u8; 4],
    /// When the clock was last set.
    pub reference: Timestamp,
    /// In an answer: the transmit time of the request.
    pub origin: Timestamp,
    /// In an answer: when the request arrived.
    pub receive: Timestamp,
    /// When this packet left.
    pub transmit: Timestamp,
}

impl Packet {
    /// Reads the first 48 bytes and ignores the rest. Any such bytes are a packet; whether it makes
    /// sense is for the server's and the client's rules.
    pub fn decode(bytes: &[u8]) -> Result<Self, TooShort> {
        let (header, _) = bytes
            .split_first_chunk::<LEN>()
            .ok_or(TooShort { len: bytes.len() })?;
        let [first, stratum, poll, precision, ..] = *header;
        Ok(Self {
            leap: LeapIndicator::from_bits(first >> 6),
            version: first >> 3 & 7,
            mode: Mode::from_bits(first & 7),
            stratum,
            poll: poll.cast_signed(),
            precision: precision.cast_signed(),
            root_delay: Short(u32::from_be_bytes(four(header, 4))),
            root_dispersion: Short(u32::from_be_bytes(four(header, 8))),
            reference_id: four(header, 12),
            reference: timestamp(header, 16),
            origin: timestamp(header, 24),
            receive: timestamp(header, 32),
            transmit: timestamp(header, 40),
        })
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = (self.leap as u8) << 6 | (self.version & 7) << 3 | self.mode as u8;
        bytes[1] = self.stratum;
        bytes[2] = self.poll.cast_unsigned();
        bytes[3] = self.precision.cast_unsigned();
        bytes[4..8].copy_from_slice(&self.root_delay.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.root_dispersion.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.reference_id);
        bytes[16..24].copy_from_slice(&self.reference.to_bytes());
        bytes[24..32].copy_from_slice(&self.origin.to_bytes());
        bytes[32..40].copy_from_slice(&self.receive.to_bytes());
        bytes[40..].copy_from_slice(&self.transmit.to_bytes());
        bytes
    }
}

/// LI, the two highest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LeapIndicator {
    /// Synchronised, nothing ahead.
    NoWarning = 0,
    /// The last minute of the day has 61 seconds.
    LastMinute61 = 1,
    /// The last minute of the day has 59 seconds.
    LastMinute59 = 2,
    /// The clock is not synchronised.
    Unknown = 3,
}

impl LeapIndicator {
    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::NoWarning,
            1 => Self::LastMinute61,
            2 => Self::LastMinute59,
            _ => Self::Unknown,
        }
    }
}

/// Who speaks, the three lowest bits: the direction field that most small protocols lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Reserved; what a client of NTP version 1 sends, as that had no mode field (RFC 1059).
    Reserved = 0,
    /// Symmetric active.
    SymmetricActive = 1,
    /// Symmetric passive.
    SymmetricPassive = 2,
    /// Client: a request.
    Client = 3,
    /// Server: an answer.
    Server = 4,
    /// Broadcast server.
    Broadcast = 5,
    /// NTP control message.
    Control = 6,
    /// Reserved for private use.
    Private = 7,
}

impl Mode {
    fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::Reserved,
            1 => Self::SymmetricActive,
            2 => Self::SymmetricPassive,
            3 => Self::Client,
            4 => Self::Server,
            5 => Self::Broadcast,
            6 => Self::Control,
            _ => Self::Private,
        }
    }
}

/// The refusals a client must obey, as the reference identifier of a stratum 0 packet (RFC 5905
/// section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KissCode {
    /// `RATE`: ask less often.
    Rate,
    /// `DENY`: do not ask again.
    Deny,
    /// `RSTR`: do not ask again, the server's rules forbid it.
    Rstr,
}

impl KissCode {
    /// The four characters on the wire.
    pub fn reference_id(self) -> [u8; 4] {
        match self {
            Self::Rate => *b"RATE",
            Self::Deny => *b"DENY",
            Self::Rstr => *b"RSTR",
        }
    }

    /// The refusal in a reference identifier, if it is one. Other codes of stratum 0, such as
    /// `INIT`, only inform.
    pub fn from_reference_id(id: [u8; 4]) -> Option<Self> {
        [Self::Rate, Self::Deny, Self::Rstr]
            .into_iter()
            .find(|code| code.reference_id() == id)
    }
}

/// Fewer bytes than a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes are too few for an NTP packet of {LEN}")]
pub struct TooShort {
    /// The bytes there were.
    pub len: usize,
}

fn four(header: &[u8; LEN], at: usize) -> [u8; 4] {
    [header[at], header[at + 1], header[at + 2], header[at + 3]]
}

fn timestamp(header: &[u8; LEN], at: usize) -> Timestamp {
    let high = u64::from(u32::from_be_bytes(four(header, at)));
    let low = u64::from(u32::from_be_bytes(four(header, at + 4)));
    Timestamp((high << 32) | low)
}

/// Bytes of a packet.
pub const LEN: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fewer_than_48_bytes_are_no_packet() {
        assert_eq!(Packet::decode(&[0x23; 47]), Err(TooShort { len: 47 }));
        assert_eq!(Packet::decode(&[]), Err(TooShort { len: 0 }));
    }

    #[test]
    fn the_first_byte_holds_leap_version_and_mode() {
        let mut bytes = [0; LEN];
        for (first, leap, version, mode) in [
            (0x23, LeapIndicator::NoWarning, 4, Mode::Client),
            (0xe3, LeapIndicator::Unknown, 4, Mode::Client),
            (0x0b, LeapIndicator::NoWarning, 1, Mode::Client),
            (0x5c, LeapIndicator::LastMinute61, 3, Mode::Server),
            (0x16, LeapIndicator::NoWarning, 2, Mode::Control),
        ] {
            bytes[0] = first;
            let packet = Packet::decode(&bytes).unwrap();
            assert_eq!(
                (packet.leap, packet.version, packet.mode),
                (leap, version, mode)
            );
        }
    }

    #[test]
    fn each_field_has_its_place() {
        let bytes: [u8; LEN] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!((packet.stratum, packet.poll, packet.precision), (1, 2, 3));
        assert_eq!(packet.root_delay, Short(0x0405_0607));
        assert_eq!(packet.root_dispersion, Short(0x0809_0a0b));
        assert_eq!(packet.reference_id, [12, 13, 14, 15]);
        assert_eq!(packet.reference, Timestamp(0x1011_1213_1415_1617));
        assert_eq!(packet.origin, Timestamp(0x1819_1a1b_1c1d_1e1f));
        assert_eq!(packet.receive, Timestamp(0x2021_2223_2425_2627));
        assert_eq!(packet.transmit, Timestamp(0x2829_2a2b_2c2d_2e2f));
    }

    #[test]
    fn only_three_codes_are_refusals() {
        assert_eq!(KissCode::from_reference_id(*b"INIT"), None);
        for code in [KissCode::Rate, KissCode::Deny, KissCode::Rstr] {
            assert_eq!(KissCode::from_reference_id(code.reference_id()), Some(code));
        }
    }

    proptest! {
        #[test]
        fn encoding_gives_back_the_48_bytes_decoded(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            match Packet::decode(&bytes) {
                Ok(packet) => prop_assert_eq!(&packet.encode()[..], &bytes[..LEN]),
                Err(error) => prop_assert_eq!(error, TooShort { len: bytes.len() }),
            }
        }
    }
}
