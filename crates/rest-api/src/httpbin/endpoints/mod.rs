//! The endpoints, by what clients are tested for.

pub mod auth;
pub mod bytes;
pub mod caching;
pub mod cookies;
pub mod documents;
pub mod events;
pub mod inspect;
pub mod redirects;
pub mod slow;
pub mod status;
pub mod websocket;

use std::ops::RangeInclusive;

use super::answer::Refusal;
use super::asked::Asked;

/// A number in a path or query as Go's `ParseInt` reads it, or what Go says of one that is none.
fn go_number(text: &str, what: &str) -> Result<i64, Refusal> {
    go_parse(text, what, "ParseInt")
}

/// A number, as Go's `Atoi` reads it.
fn go_count(text: &str, what: &str) -> Result<i64, Refusal> {
    go_parse(text, what, "Atoi")
}

/// The code of a status from a range, as go-httpbin reads it.
fn go_status(text: &str, range: RangeInclusive<i64>) -> Result<i64, Refusal> {
    let quoted = super::text::go_quoted(text);
    let code = go_count(text, &format!("status code: {quoted}"))?;
    if range.contains(&code) {
        return Ok(code);
    }
    let (first, last) = range.into_inner();
    Err(Refusal::bad(format!(
        "invalid status code: {code} not in range [{first}, {last}]"
    )))
}

fn go_parse(text: &str, what: &str, by: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let why = if is_number {
            "value out of range"
        } else {
            "invalid syntax"
        };
        let quoted = super::text::go_quoted(text);
        Refusal::bad(format!(
            "invalid {what}: strconv.{by}: parsing {quoted}: {why}"
        ))
    })
}

/// A number in a path of Python's dialect, of digits alone: what is too large is the largest.
fn count(asked: &Asked, place: usize) -> u64 {
    asked.parameter(place).parse().unwrap_or(u64::MAX)
}

/// A number in a query of Python's dialect.
fn integer(asked: &Asked, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(text) = asked.argument(name) else {
        return Ok(None);
    };
    let number = text.trim().parse();
    number
        .map(Some)
        .map_err(|_| Refusal::bad(format!("{name} must be an integer")))
}

/// Bytes that nobody can foretell.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The kernel has given some to every handshake before; if it gives none, zeros harm nobody here.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

/// A fraction from 0 up to 1.
fn random_fraction() -> f64 {
    (u64::from_ne_bytes(random()) >> 11) as f64 / (1_u64 << 53) as f64
}
