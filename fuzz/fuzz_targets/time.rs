//! A moment survives each of its formats: four bytes (RFC 868), an NTP timestamp, and the text of
//! a ctime, which is read back here by counting days the other way round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portyard_wire::ctime::{Ctime, LEN, starts_with_ctime};
use portyard_wire::daytime::Daytime;
use portyard_wire::sntp::Timestamp;
use portyard_wire::time;

fuzz_target!(|input: (i64, u32, i32, &[u8])| {
    let (seconds, nanos, offset, bytes) = input;
    if let Some(four) = bytes.first_chunk() {
        assert_eq!(time::encode(time::decode(*four)), Some(*four));
    }
    match time::encode(seconds) {
        Some(four) => assert_eq!(time::decode(four), seconds),
        None => assert!(u32::try_from(seconds.saturating_add(time::UNIX_EPOCH)).is_err()),
    }

    let nanos = nanos % 1_000_000_000;
    let stamp = Timestamp::from_unix(seconds, nanos);
    let pivot = seconds.saturating_add(offset.max(-i32::MAX).into());
    assert_eq!(stamp.to_unix(pivot), (seconds, nanos));

    let ctime = Ctime::from_unix(seconds, offset);
    let text = ctime.as_str();
    assert_eq!(moment(text), Some(seconds.saturating_add(offset.into())));
    assert_eq!(
        starts_with_ctime(text.as_bytes()),
        text.len() >= LEN && !text.contains('-')
    );
    let daytime = Daytime::from_unix(seconds, offset);
    assert_eq!(
        daytime.as_bytes().strip_suffix(b"\r\n"),
        Some(ctime.as_bytes())
    );

    // What may be cut off by a datagram or a pipe is not taken for a whole one.
    let recognised = starts_with_ctime(bytes);
    assert_eq!(bytes.get(..LEN).is_some_and(starts_with_ctime), recognised);
});

/// Seconds since 1970-01-01 00:00:00 of a ctime, whose weekday must be the right one.
fn moment(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [weekday, month, day, clock, year] = words[..] else {
        return None;
    };
    let (month, day): (i64, i64) = (place(MONTHS, month)?, day.parse().ok()?);
    let clock: Vec<i64> = clock.split(':').flat_map(str::parse).collect();
    let [hour, minute, second] = clock[..] else {
        return None;
    };
    // Years begin in March here, so that the leap day is the last.
    let (months, year) = match month {
        0 | 1 => (month + 10, year.parse::<i64>().ok()? - 1),
        _ => (month - 2, year.parse().ok()?),
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = year * 365 + leaps + (months * 153 + 2) / 5 + day - 1 - 719_468;
    assert_eq!(place(WEEKDAYS, weekday)?, (days + 3).rem_euclid(7));
    let of_day = hour * 3_600 + minute * 60 + second;
    // The first day that i64 can say begins before its first second.
    i64::try_from(i128::from(days) * 86_400 + i128::from(of_day)).ok()
}

fn place(names: &str, name: &str) -> Option<i64> {
    let place = names.split(' ').position(|found| found == name)?;
    i64::try_from(place).ok()
}

const MONTHS: &str = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec";
const WEEKDAYS: &str = "Mon Tue Wed Thu Fri Sat Sun";
