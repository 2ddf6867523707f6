//! Values with units: sizes, spans of time and rates, each spelled one way.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: `4096`, `"64KiB"`, `"1MiB"`, `"2GiB"`; also `kB`, `MB`, `GB` for powers of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

/// A span of time: `"250ms"`, `"30s"`, `"5min"`, `"2h"`, `"1d"`. Zero is written `"0s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// How often something may happen: `"100/s"`, `"600/min"`, `"50/h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, in each period; at least 1.
    pub count: NonZeroU32,
    /// The period.
    pub per: Period,
}

/// A [`Rate`], or `"off"` for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RateLimit(pub Option<Rate>);

/// The mode of a file: `"0660"` or `0o660`; at most 0o777.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileMode(pub u32);

/// The period of a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

/// Why a text is not a value with a unit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("'{0}' is not a size; write bytes or a unit, such as 4096 or \"64KiB\"")]
    Size(String),
    /// Not a span.
    #[error(
        "'{0}' is not a span of time; write a number and a unit, such as \"250ms\", \"30s\", \"5min\" or \"2h\""
    )]
    Span(String),
    /// Not a rate.
    #[error("'{0}' is not a rate; write a count and a period, such as \"100/s\" or \"600/min\"")]
    Rate(String),
    /// Not a file mode.
    #[error("'{0}' is not a file mode; write it in octal, such as \"0660\" or 0o660")]
    FileMode(String),
}

impl Size {
    /// The size as a length in memory.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    /// A span of whole seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of milliseconds.
    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl Rate {
    /// A rate per second; 0 counts as 1.
    pub const fn per_second(count: u32) -> Self {
        let count = match NonZeroU32::new(count) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        };
        Self {
            count,
            per: Period::Second,
        }
    }

    /// The rate in events per second.
    pub fn hertz(self) -> f64 {
        f64::from(self.count.get()) / self.per.seconds()
    }
}

impl Period {
    fn seconds(self) -> f64 {
        match self {
            Self::Second => 1.0,
            Self::Minute => 60.0,
            Self::Hour => 3600.0,
        }
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Size(text.into());
        let (number, unit) = split_unit(text);
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Span(text.into());
        let (number, unit) = split_unit(text);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "min" | "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        // A cap far above any sensible wait keeps every later addition of times in range.
        match number.checked_mul(milliseconds) {
            Some(total) if total <= SPAN_MAX_MS => Ok(Self::millis(total)),
            _ => Err(wrong()),
        }
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Rate(text.into());
        let (count, period) = text.split_once('/').ok_or_else(wrong)?;
        let per = match period.trim() {
            "s" => Period::Second,
            "min" | "m" => Period::Minute,
            "h" => Period::Hour,
            _ => return Err(wrong()),
        };
        let count = count.trim().parse().map_err(|_| wrong())?;
        Ok(Self { count, per })
    }
}

impl FromStr for RateLimit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "off" {
            Ok(Self(None))
        } else {
            text.parse().map(|rate| Self(Some(rate)))
        }
    }
}

impl FromStr for FileMode {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(UnitError::FileMode(text.into())),
        }
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .bytes()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_millis();
        for (milliseconds, unit) in [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "min"),
            (1_000, "s"),
        ] {
            if total != 0 && total.is_multiple_of(milliseconds) {
                return write!(f, "{}{unit}", total / milliseconds);
            }
        }
        if total == 0 {
            f.write_str("0s")
        } else {
            write!(f, "{total}ms")
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.per {
            Period::Second => "s",
            Period::Minute => "min",
            Period::Hour => "h",
        };
        write!(f, "{}/{period}", self.count)
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
as_text!(Size, Span, Rate, RateLimit, FileMode);

macro_rules! from_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // A bare number lacks its unit; parsing it as text says what is missing.
                let text = match NumberOrText::deserialize(deserializer)? {
                    NumberOrText::Number(number) => number.to_string(),
                    NumberOrText::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
from_text!(Span, Rate, RateLimit);

/// A value that may be written as a bare number or as text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(bytes) => u64::try_from(bytes)
                .map(Self)
                .map_err(|_| serde::de::Error::custom(UnitError::Size(bytes.to_string()))),
            NumberOrText::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match NumberOrText::deserialize(deserializer)? {
            // TOML has octal numbers of its own.
            NumberOrText::Number(mode) => format!("{mode:o}"),
            NumberOrText::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Ten years.
const SPAN_MAX_MS: u64 = 10 * 366 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_units_are_refused() {
        for text in ["", "30", "30x", "s", "-1s", "1.5s", "99999999999d"] {
            assert_eq!(
                text.parse::<Span>(),
                Err(UnitError::Span(text.into())),
                "{text}"
            );
        }
        for text in ["", "KiB", "1K", "-1", "99999999999GiB"] {
            assert_eq!(
                text.parse::<Size>(),
                Err(UnitError::Size(text.into())),
                "{text}"
            );
        }
        for text in ["", "1000", "0888", "u+x"] {
            assert_eq!(
                text.parse::<FileMode>(),
                Err(UnitError::FileMode(text.into())),
                "{text}"
            );
        }
        for text in ["", "100", "0/s", "1/day", "-1/s"] {
            assert_eq!(
                text.parse::<Rate>(),
                Err(UnitError::Rate(text.into())),
                "{text}"
            );
        }
    }

    #[test]
    fn units_survive_a_round_trip() {
        for text in ["250ms", "30s", "5min", "2h", "1d", "0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in ["64KiB", "1MiB", "2GiB", "1500B", "0B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["0600", "0007"] {
            assert_eq!(text.parse::<FileMode>().unwrap().to_string(), text);
        }
        assert_eq!("off".parse::<RateLimit>(), Ok(RateLimit(None)));
        for text in ["100/s", "600/min", "50/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }
}
