//! The datagrams of time-udp's `fib` service: a number in, the Fibonacci number of that index out.

use crate::escape::escape;
use num_bigint::BigUint;

/// Parses the decimal index in a datagram, which is at most `max`.
///
/// White space around it and NULs behind it are ignored. NULs let a client pad its request, where
/// the size of the answer is limited by the size of the request.
pub fn parse(datagram: &[u8], max: u32) -> Result<u32, FibError> {
    let padding = datagram.iter().rev().take_while(|&&byte| byte == 0).count();
    let text = datagram[..datagram.len() - padding].trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(FibError::NotANumber(escape(text, MAX_SHOWN)));
    }
    text.iter()
        .try_fold(0_u32, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
        })
        .filter(|n| *n <= max)
        .ok_or(FibError::TooLarge { max })
}

/// The Fibonacci number of index `n`: 0, 1, 1, 2, 3, 5, …
///
/// The time grows as the multiplication of numbers of `0.7 * n` bits, the memory as `n` bits: cap
/// `n` first.
pub fn fibonacci(n: u32) -> BigUint {
    // Fast doubling: F(2k) = F(k) * (2 F(k+1) - F(k)) and F(2k+1) = F(k)^2 + F(k+1)^2, from the
    // highest bit of n down.
    let (mut this, mut next) = (BigUint::ZERO, BigUint::from(1_u8));
    for bit in (0..u32::BITS - n.leading_zeros()).rev() {
        let doubled = &this * ((&next << 1_u8) - &this);
        let doubled_next = &this * &this + &next * &next;
        (this, next) = if n >> bit & 1 == 0 {
            (doubled, doubled_next)
        } else {
            let sum = doubled + &doubled_next;
            (doubled_next, sum)
        };
    }
    this
}

/// The answer: the decimal digits, without a line end.
pub fn answer(n: u32) -> String {
    fibonacci(n).to_string()
}

/// Why a datagram is no index. The text is the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FibError {
    /// Not a decimal number; holds what was sent, made safe to print and cut to 16 characters.
    #[error("error: '{0}' is not a whole number")]
    NotANumber(String),
    /// More than the server allows.
    #[error("error: larger than the {max} allowed")]
    TooLarge {
        /// The largest index allowed.
        max: u32,
    },
}

/// The largest index whose digits fit one datagram of 65,507 bytes, the most that UDP over IPv4
/// carries.
pub const MAX_ENCODABLE: u32 = 313_450;

/// Keeps each refusal within 64 bytes as long as the text is ASCII.
const MAX_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_decimal_number_is_refused() {
        for text in ["", "abc", "-1", "+1", "1.5", "1e3", "0x10", "1 2"] {
            assert_eq!(
                parse(text.as_bytes(), 100),
                Err(FibError::NotANumber(text.into()))
            );
        }
        assert_eq!(
            parse(b"\0\x001", 100),
            Err(FibError::NotANumber(r"\x00\x001".into()))
        );
        assert_eq!(
            parse(b"x", 9).unwrap_err().to_string(),
            "error: 'x' is not a whole number"
        );
    }

    #[test]
    fn an_index_over_the_cap_is_refused_even_beyond_any_integer() {
        for text in ["101", "4294967296", "99999999999999999999999999"] {
            assert_eq!(
                parse(text.as_bytes(), 100),
                Err(FibError::TooLarge { max: 100 })
            );
        }
        let text = FibError::TooLarge { max: 100 }.to_string();
        assert_eq!(text, "error: larger than the 100 allowed");
    }

    #[test]
    fn every_refusal_of_ascii_fits_64_bytes() {
        assert!(parse(&[b'x'; 2_000], 9).unwrap_err().to_string().len() <= 64);
        assert!(FibError::TooLarge { max: u32::MAX }.to_string().len() <= 64);
    }

    #[test]
    fn white_space_around_and_nuls_behind_are_ignored() {
        for text in [&b"30"[..], b" 30\r\n", b"30\0\0\0", b"30\n\0\0", b"0030"] {
            assert_eq!(parse(text, 100), Ok(30));
        }
        assert_eq!(parse(b"4294967295", u32::MAX), Ok(u32::MAX));
    }

    #[test]
    fn the_first_numbers_are_the_known_ones() {
        let known = ["0", "1", "1", "2", "3", "5", "8", "13", "21", "34", "55"];
        for (n, digits) in (0..).zip(known) {
            assert_eq!(answer(n), digits);
        }
        // OEIS A000045.
        assert_eq!(answer(100), "354224848179261915075");
    }

    #[test]
    fn the_largest_encodable_index_has_exactly_the_digits_of_a_datagram() {
        // Digits of F(n): floor(n * log10(phi) - log10(sqrt(5))) + 1. Python's integers say 65507
        // for 313450 and 65508 for 313451.
        let digits = |n: u32| {
            let phi = f64::midpoint(1.0, 5_f64.sqrt());
            (f64::from(n) * phi.log10() - 5_f64.sqrt().log10()).floor() + 1.0
        };
        assert!((digits(MAX_ENCODABLE) - 65_507.0).abs() < 0.5);
        assert!((digits(MAX_ENCODABLE + 1) - 65_508.0).abs() < 0.5);
        assert_eq!(answer(MAX_ENCODABLE).len(), 65_507);
    }

    proptest! {
        #[test]
        fn each_number_is_the_sum_of_the_two_before(n in 2_u32..3_000) {
            prop_assert_eq!(fibonacci(n), fibonacci(n - 1) + fibonacci(n - 2));
        }

        #[test]
        fn an_index_written_out_parses_to_itself(n: u32) {
            prop_assert_eq!(parse(n.to_string().as_bytes(), u32::MAX), Ok(n));
        }

        #[test]
        fn arbitrary_bytes_give_at_most_the_cap(datagram: Vec<u8>, max: u32) {
            prop_assert!(parse(&datagram, max).map_or(true, |n| n <= max));
        }
    }
}
