//! The 24 characters of C's `ctime(3)`, as Python's `time.ctime()` writes them.

use crate::civil::Civil;
use std::fmt;

/// A moment as text: `Fri Nov 20 11:41:40 2026`.
///
/// English names, the day of the month padded with a space, the year not padded, no line end.
/// Four-digit years give [`LEN`] bytes. The text is held inline, so that a value is copied, not
/// allocated.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ctime {
    text: [u8; CAPACITY],
    len: u8,
}

impl Ctime {
    /// Writes a date. Its zone is the one the date was made in; the text does not name it.
    pub fn new(civil: Civil) -> Self {
        let mut text = [b' '; CAPACITY];
        text[..3].copy_from_slice(WEEKDAYS[usize::from(civil.weekday % 7)]);
        text[4..7].copy_from_slice(MONTHS[usize::from(civil.month.wrapping_sub(1) % 12)]);
        text[8..10].copy_from_slice(&two_digits(civil.day));
        if text[8] == b'0' {
            text[8] = b' ';
        }
        text[11..13].copy_from_slice(&two_digits(civil.hour));
        text[13] = b':';
        text[14..16].copy_from_slice(&two_digits(civil.minute));
        text[16] = b':';
        text[17..19].copy_from_slice(&two_digits(civil.second));
        let len = write_year(civil.year, &mut text);
        Self { text, len }
    }

    /// The date at `seconds` since 1970-01-01 00:00:00 UTC, in a zone `utc_offset` seconds east of
    /// UTC.
    pub fn from_unix(seconds: i64, utc_offset: i32) -> Self {
        Self::new(Civil::from_unix(seconds, utc_offset))
    }

    /// The text: ASCII, one line, without a line end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The text: ASCII, one line, without a line end.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl fmt::Display for Ctime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Ctime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ctime").field(&self.as_str()).finish()
    }
}

/// Whether `bytes` begin with a ctime of a four-digit year: real names, a possible day and a
/// possible time.
///
/// The first byte decides for nearly all other input.
pub fn starts_with_ctime(bytes: &[u8]) -> bool {
    let Some((text, _)) = bytes.split_first_chunk::<LEN>() else {
        return false;
    };
    if !matches!(text[0], b'M' | b'T' | b'W' | b'F' | b'S') {
        return false;
    }
    let two = |at: usize, last: u8| match (text[at], text[at + 1]) {
        (tens @ b'0'..=b'9', units @ b'0'..=b'9') => (tens - b'0') * 10 + (units - b'0') <= last,
        _ => false,
    };
    let day = match text[8] {
        b' ' => matches!(text[9], b'1'..=b'9'),
        b'1'..=b'3' => two(8, 31),
        _ => false,
    };
    WEEKDAYS.iter().any(|name| text.starts_with(*name))
        && MONTHS.iter().any(|name| text[4..].starts_with(*name))
        && [3, 7, 10, 19].iter().all(|&at| text[at] == b' ')
        && text[13] == b':'
        && text[16] == b':'
        && day
        && two(11, 23)
        && two(14, 59)
        // C allows a leap second.
        && two(17, 60)
        && text[20..].iter().all(u8::is_ascii_digit)
}

fn two_digits(value: u8) -> [u8; 2] {
    [b'0' + value / 10 % 10, b'0' + value % 10]
}

/// Writes the year behind the rest and returns the length of the whole text.
fn write_year(year: i64, text: &mut [u8; CAPACITY]) -> u8 {
    let mut digits = [0; 20];
    let mut rest = year.unsigned_abs();
    let mut count: u8 = 0;
    while rest > 0 || count == 0 {
        digits[usize::from(count)] = b"0123456789"[usize::try_from(rest % 10).unwrap_or_default()];
        rest /= 10;
        count += 1;
    }
    let mut len = YEAR_AT;
    if year < 0 {
        text[usize::from(len)] = b'-';
        len += 1;
    }
    for &digit in digits[..usize::from(count)].iter().rev() {
        text[usize::from(len)] = digit;
        len += 1;
    }
    len
}

/// Bytes of a ctime whose year has four digits.
pub const LEN: usize = 24;

const YEAR_AT: u8 = 20;
/// The fixed part, and the 20 characters of `i64::MIN` as a year.
pub(crate) const CAPACITY: usize = 40;

const WEEKDAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Source: `TZ=UTC python3 -c 'import time; print(time.ctime(N))'`, `CPython` 3.11 with glibc.
    const PYTHON: &[(i64, &str)] = &[
        (740_618_465, "Sun Jun 20 23:21:05 1993"),
        (0, "Thu Jan  1 00:00:00 1970"),
        (-1, "Wed Dec 31 23:59:59 1969"),
        (-86_400, "Wed Dec 31 00:00:00 1969"),
        (951_782_399, "Mon Feb 28 23:59:59 2000"),
        (951_782_400, "Tue Feb 29 00:00:00 2000"),
        (951_868_800, "Wed Mar  1 00:00:00 2000"),
        (1_709_164_800, "Thu Feb 29 00:00:00 2024"),
        (1_793_619_700, "Mon Nov  2 11:41:40 2026"),
        (2_085_978_495, "Thu Feb  7 06:28:15 2036"),
        (2_085_978_496, "Thu Feb  7 06:28:16 2036"),
        (4_107_542_399, "Sun Feb 28 23:59:59 2100"),
        (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
        (-2_203_891_200, "Thu Mar  1 00:00:00 1900"),
        (-2_208_988_800, "Mon Jan  1 00:00:00 1900"),
        (-59_011_459_200, "Fri Jan  1 00:00:00 100"),
        (-59_043_600_000, "Thu Dec 25 00:00:00 98"),
        (-62_135_596_800, "Mon Jan  1 00:00:00 1"),
        (-62_135_596_801, "Sun Dec 31 23:59:59 0"),
        (-62_167_219_200, "Sat Jan  1 00:00:00 0"),
        (-62_167_219_201, "Fri Dec 31 23:59:59 -1"),
        (253_402_300_799, "Fri Dec 31 23:59:59 9999"),
        (253_402_300_800, "Sat Jan  1 00:00:00 10000"),
        (326_732_097_600, "Mon Sep 24 12:00:00 12323"),
        (67_767_976_233_532_799, "Tue Dec 31 23:59:59 2147483647"),
        (-67_768_040_609_740_800, "Thu Jan  1 00:00:00 -2147481748"),
    ];

    #[test]
    fn near_misses_are_no_ctime() {
        for text in [
            "",
            "Fri Nov 20 11:41:40 202",
            "Fry Nov 20 11:41:40 2026",
            "Fri Nev 20 11:41:40 2026",
            "Fri Nov 00 11:41:40 2026",
            "Fri Nov  0 11:41:40 2026",
            "Fri Nov 32 11:41:40 2026",
            "Fri Nov 20 24:41:40 2026",
            "Fri Nov 20 11:60:40 2026",
            "Fri Nov 20 11:41:61 2026",
            "Fri Nov 20 11-41-40 2026",
            "Fri Nov 20 11:41:40 20x6",
            "fri nov 20 11:41:40 2026",
            "Monday is the best day of all",
        ] {
            assert!(!starts_with_ctime(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn the_text_is_pythons() {
        for &(seconds, text) in PYTHON {
            assert_eq!(Ctime::from_unix(seconds, 0).as_str(), text, "{seconds}");
        }
    }

    #[test]
    fn the_zone_moves_the_clock() {
        // TZ=Asia/Kolkata and TZ=America/Los_Angeles in the same command.
        assert_eq!(
            Ctime::from_unix(0, 19_800).to_string(),
            "Thu Jan  1 05:30:00 1970"
        );
        assert_eq!(
            Ctime::from_unix(0, -28_800).to_string(),
            "Wed Dec 31 16:00:00 1969"
        );
    }

    #[test]
    fn every_day_of_a_leap_year_is_recognised() {
        for day in 0..366 {
            let text = Ctime::from_unix(1_704_067_200 + day * 86_400, 0);
            assert_eq!(text.as_bytes().len(), LEN);
            assert!(starts_with_ctime(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_follows_a_ctime_does_not_matter() {
        assert!(starts_with_ctime(b"Fri Nov 20 11:41:40 2026\r\n"));
        assert!(starts_with_ctime(
            b"Sat Dec 31 23:59:60 2016 and a leap second"
        ));
    }

    proptest! {
        #[test]
        fn any_moment_fits_the_inline_text(seconds: i64, utc_offset: i32) {
            let civil = Civil::from_unix(seconds, utc_offset);
            let text = Ctime::new(civil).to_string();
            let end = format!(
                " {:2} {:02}:{:02}:{:02} {}",
                civil.day, civil.hour, civil.minute, civil.second, civil.year
            );
            prop_assert!(text.ends_with(&end));
        }

        #[test]
        fn arbitrary_bytes_are_looked_at_without_panic(bytes: Vec<u8>) {
            let _ = starts_with_ctime(&bytes);
        }
    }
}
