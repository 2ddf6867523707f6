//! RFC 868: the time as 32 bits of seconds since 1900-01-01 00:00:00 UTC, big-endian.

/// The four bytes for a moment in Unix seconds.
///
/// `None` before 1900 and from 2036-02-07 06:28:16 UTC on, where the count no longer fits. It is
/// not wrapped: a server that cannot tell the time closes the connection, or drops the datagram,
/// and sends nothing.
pub fn encode(unix_seconds: i64) -> Option<[u8; 4]> {
    let since_1900 = unix_seconds.checked_add(UNIX_EPOCH)?;
    u32::try_from(since_1900).ok().map(u32::to_be_bytes)
}

/// The moment in Unix seconds that four bytes tell: -2208988800 to 2085978495.
pub fn decode(bytes: [u8; 4]) -> i64 {
    i64::from(u32::from_be_bytes(bytes)) - UNIX_EPOCH
}

/// Seconds from 1900-01-01 to 1970-01-01 (RFC 868).
pub const UNIX_EPOCH: i64 = 2_208_988_800;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_moment_out_of_range_has_no_bytes() {
        assert_eq!(encode(-2_208_988_801), None);
        assert_eq!(encode(2_085_978_496), None);
        assert_eq!(encode(i64::MAX), None);
        assert_eq!(encode(i64::MIN), None);
    }

    #[test]
    fn the_range_ends_at_the_last_second_of_the_count() {
        assert_eq!(encode(-2_208_988_800), Some([0; 4]));
        assert_eq!(encode(2_085_978_495), Some([0xff; 4]));
    }

    #[test]
    fn the_examples_of_rfc_868_hold() {
        // RFC 868: 2,208,988,800 is 1970-01-01, 2,398,291,200 is 1976-01-01, 2,524,521,600 is
        // 1980-01-01, 2,629,584,000 is 1983-05-01, -1,297,728,000 is 1858-11-17 and does not fit.
        for (since_1900, unix) in [
            (2_208_988_800_u32, 0),
            (2_398_291_200, 189_302_400),
            (2_524_521_600, 315_532_800),
            (2_629_584_000, 420_595_200),
        ] {
            assert_eq!(encode(unix), Some(since_1900.to_be_bytes()));
        }
        assert_eq!(encode(-1_297_728_000 - UNIX_EPOCH), None);
    }

    proptest! {
        #[test]
        fn encode_gives_back_what_was_decoded(bytes: [u8; 4]) {
            prop_assert_eq!(encode(decode(bytes)), Some(bytes));
        }
    }
}
