//! Whether a request may be made once more, and when (RFC 9110, 9.2.2 and 10.2.3).

use std::time::{Duration, SystemTime};

use hyper::{Method, StatusCode};

/// Retries that are left.
#[derive(Debug, Clone)]
pub struct Retries {
    left: u32,
    made: u32,
    longest: Duration,
}

impl Retries {
    /// So many at most, and no wait longer than `longest`.
    pub fn new(count: u32, longest: Duration) -> Self {
        Self {
            left: count,
            made: 0,
            longest,
        }
    }

    /// How long to wait before the next try, if there is one: what the server wants (`asked`), else
    /// one second, then two, four and so on. None is left when the server wants longer than we may.
    pub fn take(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let wait = asked.unwrap_or_else(|| {
            let doubled = FIRST.saturating_mul(1 << self.made.min(16));
            doubled.min(self.longest)
        });
        if self.left == 0 || wait > self.longest {
            return None;
        }
        self.left -= 1;
        self.made += 1;
        Some(wait)
    }
}

/// Whether a request may have been carried out, and must not be carried out twice.
pub fn is_safe_twice(method: &Method) -> bool {
    method.is_idempotent()
}

/// Whether this answer may be another one a little later, and asking again does no harm. The last
/// three say that nothing was done.
pub fn may_change(status: StatusCode, method: &Method, has_retry_after: bool) -> bool {
    match status.as_u16() {
        429 => true,
        503 => has_retry_after || is_safe_twice(method),
        408 | 425 | 500 | 502 | 504 => is_safe_twice(method),
        _ => false,
    }
}

/// What `Retry-After` says: seconds, or a date.
pub fn retry_after(field: &str, now: SystemTime) -> Option<Duration> {
    let field = field.trim();
    if !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is longer than anybody waits.
        return Some(Duration::from_secs(field.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(field).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

const FIRST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn waits_double_up_to_the_longest_and_end_with_the_count() {
        let mut retries = Retries::new(8, Duration::from_secs(20));
        let waits: Vec<u64> = std::iter::from_fn(|| retries.take(None))
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20, 20]);
    }

    #[test]
    fn a_server_decides_how_long_unless_it_is_too_long() {
        let mut retries = Retries::new(3, MINUTE);
        assert_eq!(retries.take(Some(Duration::ZERO)), Some(Duration::ZERO));
        assert_eq!(retries.take(Some(MINUTE)), Some(MINUTE));
        assert_eq!(retries.take(Some(MINUTE * 2)), None);
    }

    #[test]
    fn what_may_have_been_done_is_not_done_twice() {
        let status = |code| StatusCode::from_u16(code).unwrap();
        for (code, method, after, again) in [
            (503, Method::GET, false, true),
            (503, Method::POST, false, false),
            (503, Method::POST, true, true),
            (429, Method::POST, false, true),
            (500, Method::PUT, false, true),
            (500, Method::PATCH, true, false),
            (404, Method::GET, true, false),
            (200, Method::GET, true, false),
        ] {
            assert_eq!(
                may_change(status(code), &method, after),
                again,
                "{code} {method}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_700);
        let after = |field| retry_after(field, now).map(|wait| wait.as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(77));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(after("99999999999999999999999"), Some(u64::MAX));
        for field in ["", "-1", "soon", "1.5"] {
            assert_eq!(after(field), None, "{field}");
        }
    }
}
