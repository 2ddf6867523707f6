//! The client's side of SNTP (RFC 4330, RFC 5905): one exchange, measured.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use portyard_core::exit::{Exit, Fatal};
use portyard_wire::escape::escape;
use portyard_wire::sntp::{BadReply, LeapIndicator, Measurement, Request, Timestamp, measure};

use super::iso;
use crate::ask::{Answer, Patience, Verdict, ask};
use crate::connect::Target;

/// Asks the server once, with retries, and prints what it says.
pub fn query(target: &Target, patience: Patience) -> Result<Report, Fatal> {
    // `ask` needs the requests of earlier tries to judge late answers.
    let tries = std::cell::RefCell::new(Vec::new());
    let judged = ask(
        target,
        patience,
        |_| {
            let sent = Sent::now();
            let bytes = Request::new(sent.cookie, VERSION).to_vec();
            tries.borrow_mut().push(sent);
            bytes
        },
        |answer| match tries.borrow().get(answer.attempt) {
            Some(sent) => sent.judge(answer),
            None => Verdict::Ignore("the answer belongs to no request".into()),
        },
    )?;
    judged.map_err(|refusal| {
        Fatal::new(
            Exit::Unavailable,
            format!(
                "{}: {refusal}; ask another server, or later",
                target.endpoint
            ),
        )
    })
}

/// One exchange with a server.
#[derive(Debug)]
pub struct Report {
    /// Offset, delay and what the server says of itself.
    pub measurement: Measurement,
    /// The client's clock when the answer came.
    arrived: SystemTime,
}

/// A request: what it carries, and when it left.
struct Sent {
    /// What the answer must repeat. All of it is random, so that nobody who does not see the
    /// request can answer it, and it tells nothing about our clock.
    cookie: Timestamp,
    at: Timestamp,
}

impl Sent {
    fn now() -> Self {
        // Keys of `RandomState` come from the system's random numbers and are not revealed.
        let random = RandomState::new().hash_one(SystemTime::now());
        Self {
            // Zero would mean "unknown".
            cookie: Timestamp(random.max(1)),
            at: stamp(SystemTime::now()),
        }
    }

    fn judge(&self, answer: &Answer) -> Verdict<Result<Report, BadReply>> {
        let mut bytes = answer.bytes.clone();
        // The arithmetic needs the true time of the request where the answer repeats the cookie.
        match bytes.get_mut(ORIGIN) {
            Some(origin) if *origin == self.cookie.to_bytes() => {
                origin.copy_from_slice(&self.at.to_bytes());
            }
            Some(_) => return Verdict::Ignore(BadReply::Bogus.to_string()),
            None => {}
        }
        match measure(self.at, &bytes, stamp(answer.arrived)) {
            Ok(measurement) => Verdict::Take(Ok(Report {
                measurement,
                arrived: answer.arrived,
            })),
            Err(kiss @ BadReply::Kiss(_)) => Verdict::Take(Err(kiss)),
            Err(other) => Verdict::Ignore(other.to_string()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.measurement;
        writeln!(
            f,
            "time       {}",
            iso(server_seconds(self.arrived, m.offset_seconds))
        )?;
        writeln!(
            f,
            "offset     {:+.6} s (add to this machine's clock)",
            m.offset_seconds
        )?;
        writeln!(f, "delay      {:.6} s", m.delay_seconds)?;
        writeln!(f, "stratum    {}{}", m.stratum, stratum(m.stratum))?;
        writeln!(f, "leap       {}", leap(m.leap))?;
        write!(f, "reference  {}", reference(m.stratum, m.reference_id))
    }
}

/// The second that the server's clock showed when ours showed `arrived`.
fn server_seconds(arrived: SystemTime, offset_seconds: f64) -> i64 {
    let (seconds, nanos) = unix(arrived);
    // The fraction counts too: half a second behind is not always the second before.
    let shift = (f64::from(nanos) / 1e9 + offset_seconds).floor();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float saturates when cast, and the sum does too"
    )]
    seconds.saturating_add(shift as i64)
}

fn stratum(stratum: u8) -> &'static str {
    match stratum {
        0 => " (unspecified)",
        1 => " (next to a reference clock)",
        2..=15 => "",
        _ => " (not synchronised)",
    }
}

/// What the leap indicator says, in words.
pub fn leap(leap: LeapIndicator) -> &'static str {
    match leap {
        LeapIndicator::NoWarning => "none",
        LeapIndicator::LastMinute61 => "a second will be inserted at the end of the day",
        LeapIndicator::LastMinute59 => "a second will be left out at the end of the day",
        LeapIndicator::Unknown => "the server's clock is not synchronised",
    }
}

/// Four characters next to a reference clock, an IPv4 address (or a hash) further away.
pub fn reference(stratum: u8, id: [u8; 4]) -> String {
    if stratum > 1 {
        return Ipv4Addr::from(id).to_string();
    }
    let end = id
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |at| at + 1);
    escape(&id[..end], 16)
}

fn stamp(time: SystemTime) -> Timestamp {
    let (seconds, nanos) = unix(time);
    Timestamp::from_unix(seconds, nanos)
}

/// Seconds and nanoseconds since 1970; a clock before that counts as 1970.
fn unix(time: SystemTime) -> (i64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    (seconds, since.subsec_nanos())
}

/// Where the answer repeats the request's transmit time (RFC 5905 section 7.3).
const ORIGIN: std::ops::Range<usize> = 24..32;
const VERSION: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use portyard_wire::sntp::{KissCode, Server, kiss};
    use std::time::Duration;

    fn answer(bytes: &[u8]) -> Answer {
        Answer {
            bytes: bytes.to_vec(),
            attempt: 0,
            arrived: SystemTime::now(),
        }
    }

    #[test]
    fn an_answer_without_the_cookie_is_ignored() {
        let sent = Sent::now();
        let other = Request::new(Timestamp(7), VERSION);
        let now = stamp(SystemTime::now());
        let bytes = Server::local(1).reply(&other, 40_000, now, now).unwrap();
        assert!(matches!(sent.judge(&answer(&bytes)), Verdict::Ignore(_)));
        assert!(matches!(
            sent.judge(&answer(&bytes[..20])),
            Verdict::Ignore(_)
        ));
    }

    #[test]
    fn the_offset_is_against_the_true_time_of_the_request() {
        let sent = Sent::now();
        let request = Request::new(sent.cookie, VERSION);
        let ahead = stamp(SystemTime::now() + Duration::from_secs(100));
        let bytes = Server::local(2)
            .reply(&request, 40_000, ahead, ahead)
            .unwrap();
        let Verdict::Take(Ok(report)) = sent.judge(&answer(&bytes)) else {
            panic!("refused");
        };
        assert!((report.measurement.offset_seconds - 100.0).abs() < 1.0);
        assert!(report.measurement.delay_seconds.abs() < 1.0);
    }

    #[test]
    fn the_server_is_in_another_second_only_when_the_fraction_says_so() {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        for (arrived, offset, seconds) in [
            (100_800, -0.002, 100),
            (100_001, -0.002, 99),
            (100_800, 0.1, 100),
            (100_800, 0.3, 101),
            (100_000, 0.0, 100),
        ] {
            assert_eq!(
                server_seconds(at(arrived), offset),
                seconds,
                "{arrived} {offset}"
            );
        }
    }

    #[test]
    fn a_refusal_settles_the_question() {
        let sent = Sent::now();
        let now = stamp(SystemTime::now());
        let request = Request::new(sent.cookie, VERSION);
        let bytes = kiss(KissCode::Rate, &request, 40_000, now, now).unwrap();
        assert!(matches!(sent.judge(&answer(&bytes)), Verdict::Take(Err(_))));
    }

    #[test]
    fn a_reference_is_text_or_an_address() {
        assert_eq!(reference(1, *b"GPS\0"), "GPS");
        assert_eq!(reference(0, [0x1b, b'[', 0, 0]), r"\x1b[");
        assert_eq!(reference(2, [192, 0, 2, 1]), "192.0.2.1");
    }
}
