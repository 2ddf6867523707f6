//! RFC 867: the date and time as one line of text.

use crate::civil::Civil;
use crate::ctime::{self, Ctime};
use std::fmt;

/// A [`Ctime`] and CRLF: `Fri Nov 20 11:41:40 2026\r\n`, 26 bytes for a year of four digits.
///
/// RFC 867 fixes no syntax beyond one line of printable ASCII.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Daytime {
    text: [u8; ctime::CAPACITY + 2],
    len: usize,
}

impl Daytime {
    /// Writes a date. Its zone is the one the date was made in; the text does not name it.
    pub fn new(civil: Civil) -> Self {
        let ctime = Ctime::new(civil);
        let end = ctime.as_bytes().len();
        let mut text = [0; ctime::CAPACITY + 2];
        text[..end].copy_from_slice(ctime.as_bytes());
        text[end..end + 2].copy_from_slice(b"\r\n");
        Self { text, len: end + 2 }
    }

    /// The date at `seconds` since 1970-01-01 00:00:00 UTC, in a zone `utc_offset` seconds east of
    /// UTC.
    pub fn from_unix(seconds: i64, utc_offset: i32) -> Self {
        Self::new(Civil::from_unix(seconds, utc_offset))
    }

    /// The line with its line end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

impl fmt::Debug for Daytime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Daytime(\"{}\")", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_year_still_has_room_for_the_line_end() {
        let line = Daytime::from_unix(i64::MIN, 0);
        assert_eq!(line.as_bytes(), b"Sun Jan 27 08:29:52 -292277022657\r\n");
    }

    #[test]
    fn the_line_is_a_ctime_and_crlf() {
        // Python 3.11: time.ctime(740618465) with TZ=UTC.
        let line = Daytime::from_unix(740_618_465, 0);
        assert_eq!(line.as_bytes(), b"Sun Jun 20 23:21:05 1993\r\n");
        assert_eq!(line.as_bytes().len(), 26);
    }
}
