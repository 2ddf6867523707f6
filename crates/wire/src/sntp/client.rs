//! What a client sends, and what it learns from the answer.

use super::packet::{KissCode, LEN, LeapIndicator, Mode, Packet};
use super::stamp::{Short, Timestamp};

/// The request a client sends.
#[derive(Clone, Copy, Debug)]
pub enum Request {}

impl Request {
    /// A client's request: all zero but for version, mode and transmit time (RFC 4330 section 5).
    ///
    /// `transmit` comes back as the origin of the answer and must be hard to guess, or anybody can
    /// answer in the server's place: fill its lowest bits at random, or all of it, and keep the
    /// real time. The version is brought into 1 to 4.
    #[expect(clippy::new_ret_no_self, reason = "a request is nothing but its bytes")]
    pub fn new(transmit: Timestamp, version: u8) -> [u8; LEN] {
        Packet {
            leap: LeapIndicator::NoWarning,
            version: version.clamp(1, 4),
            mode: Mode::Client,
            stratum: 0,
            poll: 0,
            precision: 0,
            root_delay: Short(0),
            root_dispersion: Short(0),
            reference_id: [0; 4],
            reference: Timestamp::UNKNOWN,
            origin: Timestamp::UNKNOWN,
            receive: Timestamp::UNKNOWN,
            transmit,
        }
        .encode()
    }
}

/// What one exchange tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Seconds to add to the client's clock to get the server's.
    pub offset_seconds: f64,
    /// Seconds on the way, there and back, without the time in the server.
    pub delay_seconds: f64,
    /// The server's distance from a reference clock; 0 when it is not synchronised.
    pub stratum: u8,
    /// [`LeapIndicator::Unknown`] when the server is not synchronised: do not set a clock by it.
    pub leap: LeapIndicator,
    /// Where the server has its time from.
    pub reference_id: [u8; 4],
    /// The version the server answered in.
    pub version: u8,
}

/// Judges an answer and computes offset and delay (RFC 5905 section 8).
///
/// `request_tx` is the transmit time in the request, `arrived` when the answer came, both of the
/// client's clock. Right across the change of era while the clocks are within 68 years.
pub fn measure(
    request_tx: Timestamp,
    reply: &[u8],
    arrived: Timestamp,
) -> Result<Measurement, BadReply> {
    let reply = Packet::decode(reply).map_err(|short| BadReply::TooShort { len: short.len })?;
    if !(1..=4).contains(&reply.version) {
        return Err(BadReply::BadVersion(reply.version));
    }
    if reply.mode != Mode::Server {
        return Err(BadReply::WrongMode(reply.mode));
    }
    // Before the kiss: a refusal that anybody could forge would switch the client off.
    if reply.origin != request_tx {
        return Err(BadReply::Bogus);
    }
    if let Some(code) =
        KissCode::from_reference_id(reply.reference_id).filter(|_| reply.stratum == 0)
    {
        return Err(BadReply::Kiss(code));
    }
    if reply.transmit == Timestamp::UNKNOWN || reply.receive == Timestamp::UNKNOWN {
        return Err(BadReply::NoTime);
    }
    let there = i128::from(reply.receive.since(request_tx));
    let back = i128::from(reply.transmit.since(arrived));
    Ok(Measurement {
        offset_seconds: (there + back) as f64 / 2.0 / UNITS_PER_SECOND,
        delay_seconds: (there - back) as f64 / UNITS_PER_SECOND,
        stratum: reply.stratum,
        leap: reply.leap,
        reference_id: reply.reference_id,
        version: reply.version,
    })
}

/// Why an answer tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// Fewer bytes than a header.
    #[error("{len} bytes are too few for an NTP answer")]
    TooShort {
        /// The bytes there were.
        len: usize,
    },
    /// A version other than 1 to 4.
    #[error("the answer is of NTP version {0}, which is none of 1 to 4")]
    BadVersion(u8),
    /// Not from a server.
    #[error("NTP mode {0:?} is not an answer of a server")]
    WrongMode(Mode),
    /// Not an answer to this request: late, repeated or forged.
    #[error("the answer does not belong to this request")]
    Bogus,
    /// The server refuses; it must be asked less often, or not at all.
    #[error("the server refuses to answer: {}", match .0 {
        KissCode::Rate => "asked too often (RATE)",
        KissCode::Deny => "access denied (DENY)",
        KissCode::Rstr => "access restricted (RSTR)",
    })]
    Kiss(KissCode),
    /// The server left out its time.
    #[error("the server does not tell the time")]
    NoTime,
}

const UNITS_PER_SECOND: f64 = 4_294_967_296.0;

#[cfg(test)]
mod tests {
    use super::super::server::{Server, kiss};
    use super::*;
    use proptest::prelude::*;

    const ASKED: Timestamp = Timestamp(0xee93_0000_0000_0001);

    /// An answer from a server whose clock is 2 s ahead, 1/4 s away in each direction, 1/8 s at
    /// work.
    fn answer(server: Server) -> ([u8; LEN], Timestamp) {
        let at = |eighths: u64| Timestamp(ASKED.0.wrapping_add(eighths << 29));
        let bytes = server
            .reply(&Request::new(ASKED, 4), 40_000, at(18), at(19))
            .unwrap();
        (bytes, at(5))
    }

    #[test]
    fn an_answer_to_another_request_is_bogus_even_as_a_refusal() {
        let (bytes, arrived) = answer(Server::local(1));
        assert_eq!(
            measure(Timestamp(ASKED.0 + 1), &bytes, arrived),
            Err(BadReply::Bogus)
        );
        let refusal = kiss(
            KissCode::Deny,
            &Request::new(ASKED, 4),
            40_000,
            ASKED,
            ASKED,
        )
        .unwrap();
        assert_eq!(
            measure(Timestamp(7), &refusal, arrived),
            Err(BadReply::Bogus)
        );
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let request = Request::new(ASKED, 4);
        assert_eq!(
            measure(ASKED, &request[..47], ASKED),
            Err(BadReply::TooShort { len: 47 })
        );
        assert_eq!(
            measure(ASKED, &request, ASKED),
            Err(BadReply::WrongMode(Mode::Client))
        );
        assert_eq!(
            measure(ASKED, &[0; LEN], ASKED),
            Err(BadReply::BadVersion(0))
        );
        let (mut bytes, arrived) = answer(Server::local(1));
        bytes[40..].fill(0);
        assert_eq!(measure(ASKED, &bytes, arrived), Err(BadReply::NoTime));
    }

    #[test]
    fn a_refusal_is_an_error_with_its_code() {
        for code in [KissCode::Rate, KissCode::Deny, KissCode::Rstr] {
            let bytes = kiss(code, &Request::new(ASKED, 3), 40_000, ASKED, ASKED).unwrap();
            assert_eq!(measure(ASKED, &bytes, ASKED), Err(BadReply::Kiss(code)));
        }
        assert_eq!(
            BadReply::Kiss(KissCode::Rate).to_string(),
            "the server refuses to answer: asked too often (RATE)"
        );
    }

    #[test]
    fn the_request_is_zero_but_for_version_mode_and_time() {
        let request = Request::new(ASKED, 4);
        assert_eq!(request[0], 0x23);
        assert!(request[1..40].iter().all(|&byte| byte == 0));
        assert_eq!(request[40..], ASKED.to_bytes());
        assert_eq!(
            (Request::new(ASKED, 9)[0], Request::new(ASKED, 0)[0]),
            (0x23, 0x0b)
        );
    }

    #[test]
    fn offset_and_delay_are_those_of_rfc_5905() {
        let (bytes, arrived) = answer(Server::local(3));
        let seen = measure(ASKED, &bytes, arrived).unwrap();
        assert!((seen.offset_seconds - 2.0).abs() < 1e-9, "{seen:?}");
        assert!((seen.delay_seconds - 0.5).abs() < 1e-9, "{seen:?}");
        assert_eq!(
            (seen.stratum, seen.reference_id, seen.version),
            (3, *b"LOCL", 4)
        );
    }

    #[test]
    fn an_unsynchronised_server_is_measured_and_reported() {
        let (bytes, arrived) = answer(Server::unsynchronised());
        let seen = measure(ASKED, &bytes, arrived).unwrap();
        assert_eq!(
            (seen.leap, seen.stratum, seen.reference_id),
            (LeapIndicator::Unknown, 0, *b"INIT")
        );
    }

    proptest! {
        #[test]
        fn the_change_of_era_does_not_matter(
            start: u64,
            offset in -1_000_000_i64..1_000_000,
            way in 0_i64..100,
        ) {
            let at = |seconds: i64| Timestamp(start.wrapping_add((seconds << 32).cast_unsigned()));
            let (asked, arrived) = (at(0), at(2 * way));
            let there = at(offset + way);
            let request = Request::new(asked, 4);
            let bytes = Server::local(1).reply(&request, 40_000, there, there).unwrap();
            prop_assume!(there != Timestamp::UNKNOWN);
            let seen = measure(asked, &bytes, arrived).unwrap();
            prop_assert!((seen.offset_seconds - offset as f64).abs() < 1e-6);
            prop_assert!((seen.delay_seconds - 2.0 * way as f64).abs() < 1e-6);
        }

        #[test]
        fn arbitrary_bytes_are_judged_without_panic(asked: u64, reply: Vec<u8>, arrived: u64) {
            let _ = measure(Timestamp(asked), &reply, Timestamp(arrived));
        }
    }
}
