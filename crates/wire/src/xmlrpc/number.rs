//! Numbers as Python's `int`, `float` and `Decimal` read them.

use super::XmlError;
use super::python::{SHOWN_MAX, repr_of_at_most, write_float};

/// `int(text)`, of 64 bits: spaces around, a sign, digits with single underscores between them.
pub(super) fn int(text: &str) -> Result<i64, XmlError> {
    // The usual case. What the standard library takes, Python takes.
    if let Ok(value) = text.parse()
        && text.len() <= DIGITS_MAX
    {
        return Ok(value);
    }
    let trimmed = text.trim();
    let (negative, digits) = match trimmed.as_bytes() {
        [b'-', ..] => (true, &trimmed[1..]),
        [b'+', ..] => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let Some(digits) = without_underscores(digits).filter(|digits| is_digits(digits)) else {
        return Err(XmlError::Integer(repr_of_at_most(200, text)));
    };
    if digits.len() > DIGITS_MAX {
        return Err(XmlError::Digits(digits.len()));
    }
    let value = digits.bytes().try_fold(0_i64, |value, digit| {
        let digit = i64::from(digit - b'0');
        // Downwards, because there is one more number below zero.
        value.checked_mul(10)?.checked_sub(digit)
    });
    let value = if negative {
        value
    } else {
        value.and_then(i64::checked_neg)
    };
    value.ok_or(XmlError::IntegerRange)
}

/// `float(text)`.
pub(super) fn float(text: &str) -> Result<f64, XmlError> {
    let refused = || XmlError::Double(repr_of_at_most(SHOWN_MAX, text));
    without_underscores(text.trim())
        .and_then(|text| text.parse().ok())
        .ok_or_else(refused)
}

/// `Decimal(text)`, when it is a double without loss: Python keeps it and cannot send it back, and
/// here it would come back as another number.
pub(super) fn decimal(text: &str) -> Result<f64, XmlError> {
    let text: String = text.trim().chars().filter(|&c| c != '_').collect();
    let value: f64 = text.parse().map_err(|_| XmlError::Decimal)?;
    if !value.is_finite() {
        // Either it is spelled so, or it is too large.
        return if text.contains(|c: char| c.is_ascii_digit()) {
            Err(XmlError::DecimalRange)
        } else {
            Ok(value)
        };
    }
    let mut shortest = String::new();
    write_float(value, &mut shortest);
    if same_decimal(&text, &shortest) {
        Ok(value)
    } else {
        Err(XmlError::DecimalRange)
    }
}

/// `text` without its underscores, each of which must stand between two digits; `None` otherwise.
fn without_underscores(text: &str) -> Option<String> {
    let digit = |i: usize| text.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
    let between = |(i, _)| i > 0 && digit(i - 1) && digit(i + 1);
    text.match_indices('_')
        .all(between)
        .then(|| text.replace('_', ""))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether two finite numbers are equal as they are written.
fn same_decimal(a: &str, b: &str) -> bool {
    match (significant(a), significant(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// The digits without zeros at either end, and the power of ten of the last one; no digits for
/// zero. `None` when the exponent is beyond all doubles.
fn significant(number: &str) -> Option<(String, i64)> {
    let number = number.trim_start_matches(['+', '-']);
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((String::new(), 0));
    }
    let zeros = i64::try_from(digits.len() - trimmed.len()).ok()?;
    let exponent: i64 = exponent.parse().ok()?;
    let fraction = i64::try_from(fraction.len()).ok()?;
    let power = exponent.checked_sub(fraction)?.checked_add(zeros)?;
    Some((trimmed.to_owned(), power))
}

/// `sys.int_info.default_max_str_digits`.
const DIGITS_MAX: usize = 4300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_integer_is_guessed() {
        for text in [
            "", " ", "-", "+", "1.0", "0x10", "1__0", "_1", "1_", "- 1", "1 2", "a", "1e3",
        ] {
            let refused = XmlError::Integer(format!("'{text}'"));
            assert_eq!(int(text), Err(refused));
        }
    }

    #[test]
    fn integers_end_at_64_bits_and_4300_digits() {
        assert_eq!(int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int(" 9223372036854775807\n"), Ok(i64::MAX));
        for text in [
            "9223372036854775808",
            "-9223372036854775809",
            "1_0000000000000000000",
        ] {
            assert_eq!(int(text), Err(XmlError::IntegerRange), "{text}");
        }
        let zeros = |n| "0".repeat(n) + "7";
        assert_eq!(int(&zeros(4299)), Ok(7));
        assert_eq!(int(&zeros(4300)), Err(XmlError::Digits(4301)));
    }

    #[test]
    fn integers_are_read_as_by_python() {
        for (text, value) in [
            ("0", 0),
            ("+7", 7),
            (" 1_0 ", 10),
            ("-0_0", 0),
            ("\u{a0}5\u{2003}", 5),
        ] {
            assert_eq!(int(text), Ok(value), "{text:?}");
        }
    }

    #[test]
    fn doubles_are_read_as_by_python() {
        for (text, value) in [
            ("1.5", 1.5),
            (" +.5 ", 0.5),
            ("5.", 5.0),
            ("1_0.0_1e1_0", 10.01e10),
            ("-inf", f64::NEG_INFINITY),
            ("Infinity", f64::INFINITY),
            ("1e400", f64::INFINITY),
        ] {
            assert_eq!(float(text), Ok(value), "{text}");
        }
        assert!(float("NaN").unwrap().is_nan());
        for text in [
            "", ".", "e5", "1e", "1 2", "0x1p3", "1__0", "1_.0", "in_f", "1,5",
        ] {
            let refused = XmlError::Double(format!("'{text}'"));
            assert_eq!(float(text), Err(refused));
        }
    }

    #[test]
    fn a_decimal_must_be_a_double_without_loss() {
        for (text, value) in [
            ("1.10", 1.1),
            ("-0.00", -0.0),
            ("100", 100.0),
            ("1_0e+2", 1000.0),
            ("000.1e-6", 1e-7),
            ("12345678901234567e3", 1.234_567_890_123_456_7e19),
        ] {
            assert_eq!(decimal(text), Ok(value), "{text}");
        }
        assert_eq!(decimal("Infinity"), Ok(f64::INFINITY));
        let long = format!("1e{}", "9".repeat(30));
        for text in [
            "3.14159265358979323846",
            "1e400",
            "1e-400",
            "9007199254740993",
            &long,
        ] {
            assert_eq!(decimal(text), Err(XmlError::DecimalRange), "{text}");
        }
        for text in ["", "abc", "1e", "1 2"] {
            assert_eq!(decimal(text), Err(XmlError::Decimal), "{text}");
        }
    }
}
