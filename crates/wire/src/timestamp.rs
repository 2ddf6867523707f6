//! What a peer said, with the time before it: `[Fri Nov 20 11:41:40 2026] hi`.

use crate::ctime::{self, Ctime};

/// Appends `[`, the ctime, `] ` and `data` to `out`.
///
/// `data` goes through unchanged, its line end (if any) included: the answer ends as the question
/// did.
pub fn stamp(ctime: &Ctime, data: &[u8], out: &mut Vec<u8>) {
    let ctime = ctime.as_bytes();
    out.reserve(ctime.len() + 3 + data.len());
    out.push(b'[');
    out.extend_from_slice(ctime);
    out.extend_from_slice(b"] ");
    out.extend_from_slice(data);
}

/// Bytes put before the data while the year has four digits.
pub const PREFIX_LEN: usize = ctime::LEN + 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_data_still_gets_the_time() {
        let mut out = Vec::new();
        stamp(&Ctime::from_unix(0, 0), b"", &mut out);
        assert_eq!(out, b"[Thu Jan  1 00:00:00 1970] ");
        assert_eq!(out.len(), PREFIX_LEN);
    }

    #[test]
    fn the_answer_is_appended_and_keeps_the_line_end() {
        // Python 3.11, TZ=UTC: '[%s] %s' % (time.ctime(1793619700), 'hi\r\n').
        let mut out = b"before ".to_vec();
        stamp(&Ctime::from_unix(1_793_619_700, 0), b"hi\r\n", &mut out);
        assert_eq!(out, b"before [Mon Nov  2 11:41:40 2026] hi\r\n");
    }
}
