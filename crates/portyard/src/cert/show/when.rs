//! Times as they are shown: days in UTC.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// A day, in UTC.
pub fn date(time: SystemTime) -> time::Date {
    OffsetDateTime::from(time).date()
}

/// A time of ASN.1, which lies between the years 0 and 9999.
pub fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

/// Days that are over or left in full.
pub fn whole_days(span: Duration) -> u64 {
    span.as_secs() / 86_400
}
