//! Which part of a representation an answer holds: `Content-Range` (RFC 9110, 14.4).

/// What `Content-Range: bytes …` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentRange {
    /// The bytes from `first` to `last`, both included, of `length` (`None`: not known yet).
    Part {
        /// The first byte, counted from 0.
        first: u64,
        /// The last byte, not before `first`, and before `length`.
        last: u64,
        /// Bytes of the whole.
        length: Option<u64>,
    },
    /// None of the bytes that were asked for, of so many.
    Unsatisfied {
        /// Bytes of the whole.
        length: u64,
    },
}

impl ContentRange {
    /// `None`: another unit, or no range.
    pub fn parse(field: &str) -> Option<Self> {
        let (unit, rest) = field.trim().split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, length) = rest.trim().split_once('/')?;
        let length = match length {
            "*" => None,
            digits => Some(number(digits)?),
        };
        if range == "*" {
            return length.map(|length| Self::Unsatisfied { length });
        }
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let fits = first <= last && length.is_none_or(|length| last < length);
        fits.then_some(Self::Part {
            first,
            last,
            length,
        })
    }
}

fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        let part = |first, last, length| {
            Some(ContentRange::Part {
                first,
                last,
                length,
            })
        };
        assert_eq!(
            ContentRange::parse("bytes 42-1233/1234"),
            part(42, 1233, Some(1234))
        );
        assert_eq!(ContentRange::parse("Bytes 0-0/*"), part(0, 0, None));
        let none = ContentRange::Unsatisfied { length: 1234 };
        assert_eq!(ContentRange::parse("bytes */1234"), Some(none));
    }

    #[test]
    fn a_range_that_cannot_be_is_none() {
        for field in [
            "",
            "bytes",
            "bytes */*",
            "bytes 1-0/5",
            "bytes 0-5/5",
            "bytes -5/6",
            "bytes 0-/6",
            "bytes +1-2/6",
            "items 0-1/2",
            "bytes 0-18446744073709551616/*",
        ] {
            assert_eq!(ContentRange::parse(field), None, "{field}");
        }
    }
}
