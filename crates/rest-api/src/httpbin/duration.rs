//! Spans of time as Python's `float` and Go's `time.ParseDuration` read them, and as Go writes them.

use std::time::Duration;

/// Seconds as Python's `float()` reads them. `None`: no number, or not one that can be waited for.
pub fn python_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let grouped = text.split('_').any(|part| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        text.contains('_') && !(ends(part.chars().next()) && ends(part.chars().last()))
    });
    if grouped {
        return None;
    }
    // Rust reads what Python reads, but for the underscores.
    text.replace('_', "")
        .parse::<f64>()
        .ok()
        .filter(|seconds| !seconds.is_nan())
}

/// Seconds as a span: nothing below zero, at most `max`.
pub fn clamp(seconds: f64, max: Duration) -> Duration {
    if seconds <= 0.0 {
        return Duration::ZERO;
    }
    Duration::try_from_secs_f64(seconds).map_or(max, |span| span.min(max))
}

/// A span in nanoseconds, as Go reads it (`1.5s`, `2h45m`) or as a number of seconds; the text is what
/// Go says of one that is none.
pub fn go_nanoseconds(text: &str) -> Result<i64, String> {
    if let Some(span) = go_units(text) {
        return Ok(span);
    }
    let seconds: f64 = text.parse().map_err(|_| {
        let quoted = super::text::go_quoted(text);
        format!("strconv.ParseFloat: parsing {quoted}: invalid syntax")
    })?;
    // What is no number of milliseconds in Go either.
    let milliseconds = seconds * 1000.0;
    if !milliseconds.is_finite() || milliseconds.abs() > 9e12 {
        return Ok(if milliseconds < 0.0 {
            i64::MIN
        } else {
            i64::MAX
        });
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range has been checked"
    )]
    Ok(milliseconds as i64 * 1_000_000)
}

fn go_units(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let unit_end = behind.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, behind) = behind.split_at(unit_end.unwrap_or(behind.len()));
        let unit: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let fraction = format!("0.{fraction}0").parse::<f64>().ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "less than an hour")]
        let fraction = (fraction * unit as f64) as i64;
        total = total
            .checked_add(whole.checked_mul(unit)?)?
            .checked_add(fraction)?;
        rest = behind;
    }
    Some(if negative { -total } else { total })
}

/// A span as Go writes it: `1.5s`, `2h45m0s`, `300ms`.
pub fn go_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let nanos = nanoseconds.unsigned_abs();
    let decimal = |unit: u64| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", nanos % unit);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        (nanos / unit, format!("{point}{fraction}"))
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => {
            let (whole, fraction) = decimal(1_000);
            format!("{sign}{whole}{fraction}µs")
        }
        1_000_000..1_000_000_000 => {
            let (whole, fraction) = decimal(1_000_000);
            format!("{sign}{whole}{fraction}ms")
        }
        _ => {
            let (seconds, fraction) = decimal(1_000_000_000);
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let hours = if hours > 0 {
                format!("{hours}h")
            } else {
                String::new()
            };
            let minutes = if seconds >= 60 {
                format!("{minutes}m")
            } else {
                String::new()
            };
            format!("{sign}{hours}{minutes}{}{fraction}s", seconds % 60)
        }
    }
}

/// What is waited between so many writes, so that all of them take `span`.
pub fn pause(span: Duration, writes: u64) -> Duration {
    if writes <= 1 {
        return span;
    }
    let nanos = span.as_nanos().div_ceil(u128::from(writes - 1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Python 3.11: float(text).
    #[test]
    fn seconds_are_read_as_python_reads_them() {
        for (text, expected) in [
            ("1", Some(1.0)),
            (" .5\n", Some(0.5)),
            ("1e-1", Some(0.1)),
            ("-3", Some(-3.0)),
            ("1_0.0_1", Some(10.01)),
            ("inf", Some(f64::INFINITY)),
            ("Infinity", Some(f64::INFINITY)),
            ("nan", None),
            ("_1", None),
            ("1__0", None),
            ("1_.0", None),
            ("", None),
            ("1s", None),
            ("0x1", None),
        ] {
            assert_eq!(python_seconds(text), expected, "{text}");
        }
        let max = Duration::from_secs(10);
        assert_eq!(clamp(-1.0, max), Duration::ZERO);
        assert_eq!(clamp(0.25, max), Duration::from_millis(250));
        assert_eq!(clamp(f64::INFINITY, max), max);
    }

    // Go 1.27: time.ParseDuration, then Duration.String.
    #[test]
    fn spans_are_read_and_written_as_go_has_them() {
        for (text, expected) in [
            ("1s", "1s"),
            ("1.5s", "1.5s"),
            ("2h45m", "2h45m0s"),
            ("300ms", "300ms"),
            ("1us", "1µs"),
            ("1.5µs", "1.5µs"),
            ("10ns", "10ns"),
            ("-1m", "-1m0s"),
            ("+5s", "5s"),
            ("0", "0s"),
            ("1h0.25s", "1h0m0.25s"),
            (".5s", "500ms"),
            // Numbers alone are seconds, to a millisecond.
            ("1.0005", "1s"),
            ("0.25", "250ms"),
            ("-2", "-2s"),
        ] {
            assert_eq!(
                go_nanoseconds(text).map(go_text).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        for text in ["", "x", "1x", "s", ".s", "1..5s", "1s2", "--1s"] {
            assert!(go_nanoseconds(text).is_err(), "{text}");
        }
        let error = go_nanoseconds("foo").unwrap_err();
        assert_eq!(error, "strconv.ParseFloat: parsing \"foo\": invalid syntax");
        assert_eq!(go_nanoseconds("9999999999999999999999"), Ok(i64::MAX));
    }

    #[test]
    fn pauses_fill_the_span() {
        assert_eq!(pause(Duration::from_secs(1), 1), Duration::from_secs(1));
        assert_eq!(
            pause(Duration::from_secs(1), 11),
            Duration::from_millis(100)
        );
        assert_eq!(pause(Duration::from_nanos(10), 4), Duration::from_nanos(4));
        assert_eq!(pause(Duration::ZERO, 4), Duration::ZERO);
    }
}
