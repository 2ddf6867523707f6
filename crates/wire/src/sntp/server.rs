//! What a server answers, and what it must not answer.

use super::packet::{KissCode, LEN, LeapIndicator, Mode, Packet};
use super::stamp::{Short, Timestamp};

/// What a server says of its own clock in every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// A leap second ahead, or a clock that is not synchronised.
    pub leap: LeapIndicator,
    /// 1 to 15, or 0 for a clock that is not synchronised.
    pub stratum: u8,
    /// Seconds that the clock can tell apart, as a power of two.
    pub precision: i8,
    /// The shortest poll interval told to a client, as a power of two of seconds.
    pub min_poll: i8,
    /// Round trip to the reference clock.
    pub root_delay: Short,
    /// Error bound to the reference clock.
    pub root_dispersion: Short,
    /// Where the time comes from.
    pub reference_id: [u8; 4],
    /// When the clock was last set. A synchronised server that leaves it [`Timestamp::UNKNOWN`]
    /// tells the receive time instead, as clients take an unknown reference time for an
    /// unsynchronised clock.
    pub reference_time: Timestamp,
}

impl Server {
    /// A server whose clock has never been set: leap indicator 3, stratum 0, `INIT` (RFC 4330
    /// section 6).
    pub fn unsynchronised() -> Self {
        Self {
            leap: LeapIndicator::Unknown,
            stratum: 0,
            precision: DEFAULT_PRECISION,
            min_poll: DEFAULT_MIN_POLL,
            root_delay: Short(0),
            root_dispersion: Short(0),
            reference_id: *b"INIT",
            reference_time: Timestamp::UNKNOWN,
        }
    }

    /// A server that vouches for the clock of its own machine: `LOCL`. The stratum is brought into
    /// 1 to 15.
    pub fn local(stratum: u8) -> Self {
        Self {
            leap: LeapIndicator::NoWarning,
            stratum: stratum.clamp(1, 15),
            reference_id: *b"LOCL",
            ..Self::unsynchronised()
        }
    }

    /// The answer to a request, always 48 bytes and so never longer than the request.
    ///
    /// `received` is when the request arrived, `transmit` when the answer leaves. Extension fields
    /// and authentication of the request are not looked at and not answered.
    pub fn reply(
        &self,
        request: &[u8],
        source_port: u16,
        received: Timestamp,
        transmit: Timestamp,
    ) -> Result<[u8; LEN], Ignored> {
        let (request, mode) = accept(request, source_port)?;
        let synchronised = self.leap != LeapIndicator::Unknown;
        let reference = if synchronised && self.reference_time == Timestamp::UNKNOWN {
            received
        } else {
            self.reference_time
        };
        Ok(Packet {
            leap: self.leap,
            version: request.version,
            mode,
            stratum: self.stratum,
            poll: request.poll.max(self.min_poll),
            precision: self.precision,
            root_delay: self.root_delay,
            root_dispersion: self.root_dispersion,
            reference_id: self.reference_id,
            reference,
            origin: request.transmit,
            receive: received,
            transmit,
        }
        .encode())
    }
}

/// The refusal of a request (RFC 5905 section 7.4): stratum 0 and the code. `None` where a reply
/// would be ignored too.
///
/// It carries the times as a reply does, since some clients look at them before they look at the
/// stratum.
pub fn kiss(
    code: KissCode,
    request: &[u8],
    source_port: u16,
    received: Timestamp,
    transmit: Timestamp,
) -> Option<[u8; LEN]> {
    let refusal = Server {
        reference_id: code.reference_id(),
        ..Server::unsynchronised()
    };
    refusal.reply(request, source_port, received, transmit).ok()
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// Fewer bytes than a header.
    #[error("{len} bytes are too few for an NTP request")]
    TooShort {
        /// The bytes there were.
        len: usize,
    },
    /// A version other than 1 to 4.
    #[error("NTP version {0} is not answered, only 1 to 4")]
    BadVersion(u8),
    /// An answer, a broadcast or a management message; answering those makes loops and amplifiers.
    #[error("NTP mode {0:?} is not a request")]
    NotARequest(Mode),
    /// Version 1 without a mode from the server port, which may be a server's answer.
    #[error("an NTP version 1 packet without a mode from port 123 may be an answer")]
    Undirected,
}

/// The packet and the mode of its answer, when it is a request.
fn accept(request: &[u8], source_port: u16) -> Result<(Packet, Mode), Ignored> {
    let packet = Packet::decode(request).map_err(|short| Ignored::TooShort { len: short.len })?;
    if !(1..=4).contains(&packet.version) {
        return Err(Ignored::BadVersion(packet.version));
    }
    match packet.mode {
        Mode::Client => Ok((packet, Mode::Server)),
        Mode::SymmetricActive => Ok((packet, Mode::SymmetricPassive)),
        // NTPv1 had no mode field: the port tells client from server (RFC 5905 section 7.3,
        // chronyd).
        Mode::Reserved if packet.version == 1 && source_port == NTP_PORT => {
            Err(Ignored::Undirected)
        }
        Mode::Reserved if packet.version == 1 => Ok((packet, Mode::Server)),
        mode => Err(Ignored::NotARequest(mode)),
    }
}

/// The UDP port of NTP servers.
pub const NTP_PORT: u16 = 123;

/// About a microsecond.
const DEFAULT_PRECISION: i8 = -20;
/// 16 seconds: MINPOLL of RFC 5905, and a client must not ask more often than every 15 (RFC 4330
/// section 10).
const DEFAULT_MIN_POLL: i8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECEIVED: Timestamp = Timestamp(0xee93_0000_1111_2222);
    const TRANSMIT: Timestamp = Timestamp(0xee93_0000_3333_4444);

    fn request(first: u8) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = first;
        bytes[40..].copy_from_slice(&0xee93_0000_0000_0001_u64.to_be_bytes());
        bytes
    }

    fn reply(request: &[u8], port: u16) -> Result<[u8; LEN], Ignored> {
        Server::local(10).reply(request, port, RECEIVED, TRANSMIT)
    }

    #[test]
    fn what_chronyd_is_silent_on_is_ignored() {
        // Observed with chronyd 4.3: silence to 0x24, 0x2b (version 5), 47 bytes and 500 bytes of
        // zeros.
        assert_eq!(
            reply(&request(0x24), 40_000),
            Err(Ignored::NotARequest(Mode::Server))
        );
        assert_eq!(reply(&request(0x2b), 40_000), Err(Ignored::BadVersion(5)));
        assert_eq!(
            reply(&request(0x23)[..47], 40_000),
            Err(Ignored::TooShort { len: 47 })
        );
        assert_eq!(reply(&[0; 500], 40_000), Err(Ignored::BadVersion(0)));
        assert_eq!(reply(&[], 40_000), Err(Ignored::TooShort { len: 0 }));
    }

    #[test]
    fn only_requests_are_answered() {
        for mode in [2, 4, 5, 6, 7] {
            let ignored = reply(&request(0x20 | mode), 40_000).unwrap_err();
            assert_eq!(
                ignored,
                Ignored::NotARequest(Packet::decode(&request(mode)).unwrap().mode)
            );
        }
    }

    #[test]
    fn a_packet_without_mode_is_a_request_only_in_version_1_and_from_a_client_port() {
        assert_eq!(reply(&request(0x08), 123), Err(Ignored::Undirected));
        assert_eq!(
            reply(&request(0x20), 40_000),
            Err(Ignored::NotARequest(Mode::Reserved))
        );
        assert_eq!(reply(&request(0x08), 40_000).unwrap()[0], 0x0c);
    }

    #[test]
    fn no_refusal_is_sent_where_no_answer_would_be() {
        assert_eq!(
            kiss(KissCode::Rate, &request(0x24), 40_000, RECEIVED, TRANSMIT),
            None
        );
        assert_eq!(
            kiss(
                KissCode::Rate,
                &request(0x23)[..47],
                40_000,
                RECEIVED,
                TRANSMIT
            ),
            None
        );
    }

    #[test]
    fn the_answer_speaks_the_version_of_the_request_and_the_mode_of_a_server() {
        // First bytes observed with chronyd 4.3.
        for (asked, answered) in [
            (0x23, 0x24),
            (0x1b, 0x1c),
            (0x13, 0x14),
            (0x0b, 0x0c),
            (0x08, 0x0c),
            (0x21, 0x22),
        ] {
            assert_eq!(
                reply(&request(asked), 40_000).unwrap()[0],
                answered,
                "{asked:#x}"
            );
        }
        assert_eq!(
            reply(&request(0xe3), 123).unwrap()[0],
            0x24,
            "a client may use port 123"
        );
    }

    #[test]
    fn the_times_go_where_the_client_looks_for_them() {
        let packet = Packet::decode(&reply(&request(0x23), 40_000).unwrap()).unwrap();
        assert_eq!(packet.origin, Timestamp(0xee93_0000_0000_0001));
        assert_eq!((packet.receive, packet.transmit), (RECEIVED, TRANSMIT));
        assert_eq!(packet.reference, RECEIVED);
        assert_eq!((packet.stratum, packet.reference_id), (10, *b"LOCL"));
    }

    #[test]
    fn the_poll_interval_is_never_below_the_minimum() {
        let mut slow = request(0x23);
        slow[2] = 10;
        assert_eq!(reply(&slow, 40_000).unwrap()[2], 10);
        assert_eq!(reply(&request(0x23), 40_000).unwrap()[2], 4);
    }

    #[test]
    fn an_unsynchronised_server_says_so() {
        let bytes = Server::unsynchronised()
            .reply(&request(0x23), 40_000, RECEIVED, TRANSMIT)
            .unwrap();
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(bytes[0], 0xe4);
        assert_eq!((packet.stratum, packet.reference_id), (0, *b"INIT"));
        assert_eq!(packet.reference, Timestamp::UNKNOWN);
    }

    #[test]
    fn a_refusal_has_stratum_0_and_its_code() {
        let bytes = kiss(KissCode::Rate, &request(0x1b), 40_000, RECEIVED, TRANSMIT).unwrap();
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(
            (bytes[0], packet.stratum, packet.reference_id),
            (0xdc, 0, *b"RATE")
        );
        assert_eq!(packet.origin, Timestamp(0xee93_0000_0000_0001));
    }

    #[test]
    fn extension_fields_do_not_make_the_answer_longer() {
        let mut long = request(0x23).to_vec();
        long.resize(228, 0xaa);
        assert_eq!(reply(&long, 40_000), reply(&request(0x23), 40_000));
    }

    proptest! {
        #[test]
        fn an_answer_is_never_answered(
            bytes in prop::collection::vec(any::<u8>(), 48..60),
            port: u16,
        ) {
            if let Ok(answer) = reply(&bytes, port) {
                prop_assert!(reply(&answer, port).is_err());
            }
        }
    }
}
