//! From a count of seconds to a calendar date and a time of day.

/// A date and a time of day in the proleptic Gregorian calendar, in one zone.
///
/// Only this crate makes one, so the fields agree with each other and stay in the ranges given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Civil {
    /// Astronomical year: 1 BC is 0, 2 BC is -1.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59; Unix time has no leap seconds.
    pub second: u8,
    /// 0 is Monday, 6 is Sunday.
    pub weekday: u8,
}

impl Civil {
    /// The date at `seconds` since 1970-01-01 00:00:00 UTC, in a zone `utc_offset` seconds east of
    /// UTC.
    ///
    /// Total: where the sum of both would overflow, it saturates.
    pub fn from_unix(seconds: i64, utc_offset: i32) -> Self {
        let local = seconds.saturating_add(i64::from(utc_offset));
        let days = local.div_euclid(SECONDS_PER_DAY);
        let second_of_day = local.rem_euclid(SECONDS_PER_DAY);
        let (year, month, day) = date(days);
        Self {
            year,
            month,
            day,
            hour: small(second_of_day / 3_600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
            // 1970-01-01 was a Thursday.
            weekday: small((days + 3).rem_euclid(7)),
        }
    }
}

/// Year, month and day of a count of days since 1970-01-01.
///
/// Years are counted from 1 March, so that the leap day is the last day of its year, and grouped in
/// eras of 400 years, which all have the same length.
fn date(days: i64) -> (i64, u8, u8) {
    let days = days + DAYS_FROM_YEAR_ZERO_TO_1970;
    let era = days.div_euclid(DAYS_PER_ERA);
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on repeat the lengths 31 30 31 30 31, 153 days together.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, small(month), small(day))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "each caller passes a remainder or a month, all within 0..=86"
)]
fn small(value: i64) -> u8 {
    value as u8
}

const SECONDS_PER_DAY: i64 = 86_400;
const DAYS_PER_ERA: i64 = 146_097;
/// From 0000-03-01 to 1970-01-01.
const DAYS_FROM_YEAR_ZERO_TO_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(seconds: i64, utc_offset: i32) -> (i64, u8, u8, u8, u8, u8, u8) {
        let c = Civil::from_unix(seconds, utc_offset);
        (
            c.year, c.month, c.day, c.hour, c.minute, c.second, c.weekday,
        )
    }

    #[test]
    fn absurd_seconds_do_not_overflow() {
        // Years computed with Python's integers: (2**63 // 86400) days from 1970.
        assert_eq!(Civil::from_unix(i64::MAX, i32::MAX).year, 292_277_026_596);
        assert_eq!(Civil::from_unix(i64::MIN, i32::MIN).year, -292_277_022_657);
        assert_eq!(Civil::from_unix(i64::MAX, i32::MIN).year, 292_277_026_528);
    }

    #[test]
    fn days_before_1970_count_downwards_within_the_day() {
        assert_eq!(fields(-1, 0), (1969, 12, 31, 23, 59, 59, 2));
        assert_eq!(fields(-86_400, 0), (1969, 12, 31, 0, 0, 0, 2));
    }

    #[test]
    fn a_century_is_a_leap_year_only_when_400_divides_it() {
        assert_eq!(fields(951_782_400, 0), (2000, 2, 29, 0, 0, 0, 1));
        assert_eq!(fields(4_107_542_400, 0), (2100, 3, 1, 0, 0, 0, 0));
    }

    #[test]
    fn the_offset_is_east_of_utc() {
        // Python: datetime.fromtimestamp(0, timezone(timedelta(hours=5, minutes=30))) and hours=-8.
        assert_eq!(fields(0, 19_800), (1970, 1, 1, 5, 30, 0, 3));
        assert_eq!(fields(0, -28_800), (1969, 12, 31, 16, 0, 0, 2));
    }

    /// Days since 1970-01-01 by counting whole years and months, the slow and obvious way.
    fn days_by_counting(year: i64, month: u8, day: u8) -> i64 {
        let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
        let whole = |y: i64| if leap(y) { 366 } else { 365 };
        let years: i64 = if year >= 1970 {
            (1970..year).map(whole).sum()
        } else {
            -(year..1970).map(whole).sum::<i64>()
        };
        let lengths = [
            31,
            28 + i64::from(leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ];
        years + lengths[..usize::from(month) - 1].iter().sum::<i64>() + i64::from(day) - 1
    }

    proptest! {
        #[test]
        fn counting_days_gives_the_seconds_back(seconds in -200_000_000_000_i64..200_000_000_000) {
            let c = Civil::from_unix(seconds, 0);
            let of_day = i64::from(c.hour) * 3_600 + i64::from(c.minute) * 60 + i64::from(c.second);
            let days = days_by_counting(c.year, c.month, c.day);
            prop_assert_eq!(days * SECONDS_PER_DAY + of_day, seconds);
        }

        #[test]
        fn every_field_stays_in_its_range(seconds: i64, utc_offset: i32) {
            let c = Civil::from_unix(seconds, utc_offset);
            prop_assert!((1..=12).contains(&c.month) && (1..=31).contains(&c.day));
            prop_assert!(c.hour < 24 && c.minute < 60 && c.second < 60 && c.weekday < 7);
        }
    }
}
