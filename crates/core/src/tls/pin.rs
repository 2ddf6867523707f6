//! A certificate that is trusted by its fingerprint.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// SHA-256 of a whole certificate. Spelled `sha256:` and 64 hexadecimal digits, with or without
/// colons, as `openssl x509 -fingerprint -sha256` prints them, or the same 32 bytes as base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// A text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a fingerprint; write sha256: and 64 hexadecimal digits, as 'portyard cert show' \
     and 'openssl x509 -noout -fingerprint -sha256' print them"
)]
pub struct PinError(String);

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let wrong = || PinError(text.into());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        hexadecimal(digits)
            .or_else(|| STANDARD.decode(digits).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_fingerprint_is_refused() {
        for text in [
            "",
            "sha256:",
            "sha1:00",
            "00",
            &"0".repeat(63),
            &"0".repeat(66),
            "sha256:AAAA",
        ] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_spelling_is_the_same_pin() {
        let pin = Pin(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        let hex = pin.to_string();
        let digits = hex.strip_prefix("sha256:").unwrap();
        let pairs: Vec<&str> = (0..32).map(|i| &digits[2 * i..2 * i + 2]).collect();
        for text in [
            hex.clone(),
            digits.to_uppercase(),
            pairs.join(":").to_uppercase(),
            STANDARD.encode(pin.0),
            format!("sha256:{}", STANDARD.encode(pin.0)),
        ] {
            assert_eq!(text.parse(), Ok(pin), "{text}");
        }
    }
}
