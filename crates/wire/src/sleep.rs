//! The lines of echo-tcp's `sleep` service: how long to wait before answering.

use crate::escape::escape;
use std::fmt;
use std::time::Duration;

/// Parses a decimal number of seconds: `1`, `0.25`, `.5`.
///
/// White space around it, the line end included, is ignored. Digits and at most one point, nothing
/// else: no sign, no exponent, no `inf`. Fraction digits beyond the ninth are dropped. The result
/// is at most `max`.
pub fn parse(line: &[u8], max: Duration) -> Result<Duration, SleepError> {
    let text = line.trim_ascii();
    let not_a_number = || SleepError::NotANumber(escape(text, MAX_SHOWN));
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let digits = || whole.iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return Err(not_a_number());
    }
    let too_long = SleepError::TooLong { max };
    let seconds = whole
        .iter()
        .try_fold(0_u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
        .ok_or(too_long.clone())?;
    let nanos = (0..9).fold(0, |sum, place| {
        sum * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'))
    });
    let duration = Duration::new(seconds, nanos);
    if duration > max {
        Err(too_long)
    } else {
        Ok(duration)
    }
}

/// The answer after the sleep, without a line end: `slept 1.5`.
pub fn answer(slept: Duration) -> String {
    format!("slept {}", Seconds(slept))
}

/// Why a line is no duration. The text, without a line end, is the answer the person gets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SleepError {
    /// Not a decimal number; holds what was sent, made safe to print and cut to 32 characters.
    #[error("error: '{0}' is not a number of seconds, such as 1.5")]
    NotANumber(String),
    /// More than the server allows.
    #[error("error: longer than the {} seconds allowed", Seconds(*max))]
    TooLong {
        /// The longest sleep allowed.
        max: Duration,
    },
}

/// A duration as a decimal number of seconds, as short as it can be exactly.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())?;
        match self.0.subsec_nanos() {
            0 => Ok(()),
            nanos => write!(f, ".{}", format!("{nanos:09}").trim_end_matches('0')),
        }
    }
}

const MAX_SHOWN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn only_digits_and_a_point_are_a_number() {
        for line in [
            "", ".", "abc", "-1", "+1", "1e3", "inf", "nan", "1.2.3", "1 2", "0x10", "1,5", "١",
        ] {
            let error = parse(line.as_bytes(), MINUTE).unwrap_err();
            assert_eq!(error, SleepError::NotANumber(line.into()), "{line:?}");
        }
        assert_eq!(
            parse(b"abc\n", MINUTE).unwrap_err().to_string(),
            "error: 'abc' is not a number of seconds, such as 1.5"
        );
        assert_eq!(
            parse(b"\xff", MINUTE),
            Err(SleepError::NotANumber(r"\xff".into()))
        );
    }

    #[test]
    fn longer_than_the_cap_is_refused_even_beyond_any_integer() {
        for line in [
            "60.000000001",
            "61",
            "18446744073709551616",
            &"9".repeat(400),
        ] {
            assert_eq!(
                parse(line.as_bytes(), MINUTE),
                Err(SleepError::TooLong { max: MINUTE })
            );
        }
        let error = SleepError::TooLong {
            max: Duration::from_millis(2_500),
        };
        assert_eq!(
            error.to_string(),
            "error: longer than the 2.5 seconds allowed"
        );
    }

    #[test]
    fn whole_and_broken_seconds_are_exact() {
        for (line, nanos) in [
            ("0", 0),
            ("1", 1_000_000_000),
            ("1.", 1_000_000_000),
            (" 0.25\r\n", 250_000_000),
            (".5", 500_000_000),
            ("0.000000001", 1),
            ("0.0000000019", 1),
            ("0000000000000000000000007", 7_000_000_000),
            ("60.0000000009", 60_000_000_000),
        ] {
            assert_eq!(
                parse(line.as_bytes(), MINUTE),
                Ok(Duration::from_nanos(nanos)),
                "{line}"
            );
        }
    }

    #[test]
    fn the_answer_has_no_needless_digits() {
        assert_eq!(answer(Duration::from_millis(1_500)), "slept 1.5");
        assert_eq!(answer(Duration::ZERO), "slept 0");
        assert_eq!(answer(Duration::new(10, 1)), "slept 10.000000001");
    }

    proptest! {
        #[test]
        fn the_answer_parses_to_the_same_duration(secs: u64, nanos in 0_u32..1_000_000_000) {
            let duration = Duration::new(secs, nanos);
            let text = answer(duration);
            let number = text.strip_prefix("slept ").unwrap();
            prop_assert_eq!(parse(number.as_bytes(), Duration::MAX), Ok(duration));
        }

        #[test]
        fn nothing_parses_to_more_than_the_cap(line: Vec<u8>, millis in 0_u64..5_000) {
            let max = Duration::from_millis(millis);
            prop_assert!(parse(&line, max).is_ok_and(|d| d <= max) || parse(&line, max).is_err());
        }
    }
}
