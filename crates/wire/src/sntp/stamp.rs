//! The two formats of time in a packet (RFC 5905 section 6).

use std::time::Duration;

/// A span of time in units of 2^-16 seconds, 0 to just under 65536 seconds (root delay and
/// dispersion).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Short(pub u32);

impl Short {
    /// Rounds up, so that an error bound stays one, and saturates.
    pub fn from_duration(duration: Duration) -> Self {
        let units = (duration.as_nanos() << 16).div_ceil(NANOS_PER_SECOND);
        Self(u32::try_from(units).unwrap_or(u32::MAX))
    }

    /// The span in seconds, exactly.
    pub fn seconds(self) -> f64 {
        f64::from(self.0) / 65_536.0
    }
}

/// A moment in units of 2^-32 seconds since 1900-01-01 00:00:00 UTC, modulo 2^32 seconds (an era of
/// 136 years).
///
/// Era 0 ends on 2036-02-07 06:28:16 UTC. The wire does not name the era, so a moment is only
/// defined next to another one less than 68 years away. That is also why timestamps have no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The value that says "unknown" (RFC 5905 section 6).
    pub const UNKNOWN: Self = Self(0);

    /// From Unix time; the era is dropped. More than 999,999,999 nanoseconds carry into the
    /// seconds.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        let nanos = u64::from(nanos);
        let carry = nanos / 1_000_000_000;
        // Seconds since 1900 modulo 2^32, which is what the field holds.
        let seconds = seconds
            .wrapping_add(crate::time::UNIX_EPOCH)
            .cast_unsigned()
            .wrapping_add(carry);
        let fraction = ((nanos % 1_000_000_000) << 32) / 1_000_000_000;
        Self((seconds << 32) | fraction)
    }

    /// Unix seconds and nanoseconds of the moment that lies within 68 years of `pivot` (Unix
    /// seconds).
    ///
    /// Gives back exactly what [`from_unix`](Self::from_unix) took. Saturates next to an absurd
    /// pivot.
    pub fn to_unix(self, pivot: i64) -> (i64, u32) {
        let from_pivot = self.since(Self::from_unix(pivot, 0));
        let fraction = u128::from(self.0 & u64::from(u32::MAX));
        // The fraction was rounded down to 0.23 ns, so the nearest nanosecond is the one it came
        // from.
        let nanos = (fraction * NANOS_PER_SECOND + (1 << 31)) >> 32;
        let carry = i64::from(nanos == NANOS_PER_SECOND);
        let seconds = pivot.saturating_add(from_pivot >> 32).saturating_add(carry);
        (
            seconds,
            if carry == 1 {
                0
            } else {
                u32::try_from(nanos).unwrap_or(0)
            },
        )
    }

    /// How much later than `earlier` this is, in units of 2^-32 seconds; right while both are
    /// within 68 years.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Big-endian, as on the wire.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn absurd_values_saturate() {
        assert_eq!(Short::from_duration(Duration::MAX), Short(u32::MAX));
        let (seconds, _) = Timestamp(u64::MAX / 3).to_unix(i64::MAX);
        assert!(seconds > i64::MAX - (1 << 32));
        let _ = Timestamp::from_unix(i64::MAX, u32::MAX).to_unix(i64::MIN);
    }

    #[test]
    fn the_era_changes_in_2036_without_a_jump() {
        // RFC 5905 figure 4: first day of era 1 is 2036-02-07 06:28:16, "the last day of era 0".
        assert_eq!(Timestamp::from_unix(2_085_978_496, 0), Timestamp(0));
        assert_eq!(
            Timestamp::from_unix(2_085_978_495, 500_000_000),
            Timestamp(0xffff_ffff_8000_0000)
        );
        assert_eq!(Timestamp(0).to_unix(2_085_978_490), (2_085_978_496, 0));
        assert_eq!(
            Timestamp(0xffff_ffff_0000_0000).to_unix(2_085_978_500),
            (2_085_978_495, 0)
        );
        assert_eq!(Timestamp(1 << 32).since(Timestamp(u64::MAX << 32)), 2 << 32);
    }

    #[test]
    fn the_unix_epoch_is_2208988800() {
        // RFC 5905 figure 4: 1970-01-01 is 2,208,988,800 in era 0.
        assert_eq!(Timestamp::from_unix(0, 0), Timestamp(2_208_988_800 << 32));
        assert_eq!(Timestamp(0).to_unix(0), (-2_208_988_800 + (1 << 32), 0));
        assert_eq!(
            Timestamp::from_unix(0, 1_500_000_000).to_unix(0),
            (1, 500_000_000)
        );
    }

    #[test]
    fn a_short_span_is_rounded_up() {
        assert_eq!(
            Short::from_duration(Duration::from_secs(1)),
            Short(0x1_0000)
        );
        assert_eq!(Short::from_duration(Duration::from_nanos(1)), Short(1));
        assert!((Short(0x1_8000).seconds() - 1.5).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn unix_time_comes_back_exactly_next_to_a_pivot(
            pivot in -1_000_000_000_000_i64..1_000_000_000_000,
            away in -2_147_483_647_i64..2_147_483_647,
            nanos in 0_u32..1_000_000_000,
        ) {
            let seconds = pivot + away;
            prop_assert_eq!(Timestamp::from_unix(seconds, nanos).to_unix(pivot), (seconds, nanos));
        }
    }
}
