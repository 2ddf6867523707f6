//! When a service may be used: windows of the week, in the local time zone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The times at which a service may be used; none: always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct AccessTimes(Vec<Window>);

/// From a minute of a day to another, on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Monday first.
    days: [bool; 7],
    /// The first minute of the day, and the first one that is over; at the same minute or before
    /// the first, it is the next day's.
    from: u16,
    to: u16,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a time of access; write \"08:00-18:00\", \"Mon-Fri 08:00-18:00\" or \"Sat,Sun 22:00-06:00\""
)]
pub struct WindowError(String);

impl AccessTimes {
    /// Whether the service may be used at a moment: seconds since 1970-01-01 00:00 of local time.
    pub fn allow(&self, local: i64) -> bool {
        let minute = u16::try_from(local.rem_euclid(DAY) / 60).unwrap_or(0);
        // 1970-01-01 was a Thursday.
        let day = usize::try_from((local.div_euclid(DAY) + 3).rem_euclid(7)).unwrap_or(0);
        self.0.is_empty() || self.0.iter().any(|window| window.holds(day, minute))
    }

    /// Whether it may always be used.
    pub fn is_always(&self) -> bool {
        self.0.is_empty()
    }
}

impl Window {
    fn holds(&self, day: usize, minute: u16) -> bool {
        if self.from < self.to {
            self.days[day] && (self.from..self.to).contains(&minute)
        } else {
            // It begins on one of its days and goes on into the next.
            let before = (day + 6) % 7;
            self.days[day] && minute >= self.from || self.days[before] && minute < self.to
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let parse = || {
            let mut words = text.split_whitespace();
            let (first, second) = (words.next()?, words.next());
            let (days, times) = match second {
                Some(times) => (days(first)?, times),
                None => ([true; 7], first),
            };
            let (from, to) = times.split_once('-')?;
            let (from, to) = (minute(from)?, minute(to)?);
            let fits = words.next().is_none() && from < MINUTES;
            fits.then_some(Self { days, from, to })
        };
        parse().ok_or_else(|| WindowError(text.into()))
    }
}

fn days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (weekday(first)?, weekday(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Some(days)
}

fn weekday(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| day.eq_ignore_ascii_case(text))
}

/// `HH:MM` as a minute of the day; 24:00 is its end.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| {
        let digits = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    (minute < 60 && hour * 60 + minute <= MINUTES).then_some(hour * 60 + minute)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let named: Vec<&str> = DAYS
                .iter()
                .zip(self.days)
                .filter_map(|(day, on)| on.then_some(*day))
                .collect();
            write!(f, "{} ", named.join(","))?;
        }
        let (from, to) = (self.from, self.to);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Seconds of a day.
const DAY: i64 = 86_400;
/// Minutes of a day.
const MINUTES: u16 = 1440;

#[cfg(test)]
mod tests {
    use super::*;

    fn times(windows: &[&str]) -> AccessTimes {
        AccessTimes(windows.iter().map(|text| text.parse().unwrap()).collect())
    }

    /// Seconds of a day of January 1970, which began with a Thursday.
    fn at(day: i64, hour: i64, minute: i64) -> i64 {
        (day - 1) * DAY + hour * 3600 + minute * 60
    }

    #[test]
    fn a_window_opens_with_its_first_minute_and_is_over_with_its_last() {
        let office = times(&["Mon-Fri 08:00-18:00"]);
        assert!(!office.allow(at(1, 7, 59)));
        assert!(office.allow(at(1, 8, 0)));
        assert!(office.allow(at(1, 17, 59)));
        assert!(!office.allow(at(1, 18, 0)));
        // Friday, Saturday, Sunday, Monday.
        let open: Vec<bool> = (2..6).map(|day| office.allow(at(day, 12, 0))).collect();
        assert_eq!(open, [true, false, false, true]);
        // Before 1970, too: 1969-12-31 was a Wednesday.
        assert!(office.allow(at(0, 12, 0)));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = times(&["Sat 22:00-06:00"]);
        assert!(night.allow(at(3, 23, 0)));
        assert!(night.allow(at(4, 5, 59)));
        assert!(!night.allow(at(4, 6, 0)));
        assert!(!night.allow(at(3, 5, 0)));
        assert!(!night.allow(at(4, 23, 0)));
    }

    #[test]
    fn several_windows_add_up_and_none_is_always() {
        let both = times(&["02:00-09:00", "12:00-24:00"]);
        let open: Vec<bool> = [1, 2, 10, 12, 23]
            .map(|hour| both.allow(at(9, hour, 30)))
            .into();
        assert_eq!(open, [false, true, false, true, true]);
        assert!(AccessTimes::default().allow(at(1, 3, 3)));
        assert!(times(&["Sun-Mon 00:00-24:00"]).allow(at(4, 0, 0)));
        assert!(!times(&["Sun-Mon 00:00-24:00"]).allow(at(6, 0, 0)));
    }

    #[test]
    fn what_is_no_window_is_refused_and_a_window_is_written_as_it_is_read() {
        for text in [
            "",
            "8-18",
            "08:00",
            "25:00-26:00",
            "24:00-25:00",
            "Mon 08:00",
            "Foo 08:00-09:00",
            "08:60-09:00",
            "+8:00-9:00",
            "Mon 1:00-2:00 x",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
        for text in ["08:00-18:00", "Mon,Tue,Sun 22:00-06:30", "12:00-24:00"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
    }
}
