//! Endpoints that give bytes: random ones, and parts of a known row.

use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_RANGE, RANGE,
};
use hyper::{Method, StatusCode};

use super::slow::{duration, seconds};
use super::{count, go_count, go_number, integer, random};
use crate::http::conditions::{Validators, Verdict, evaluate, is_unchanged};
use crate::http::ranges::{self, Multipart, Part, part};
use crate::http::{Body, Response, respond};
use crate::httpbin::Dialect;
use crate::httpbin::answer::{self, Given, Refusal};
use crate::httpbin::asked::Asked;
use crate::httpbin::go_random::GoRandom;
use crate::httpbin::python_random::PythonRandom;

/// A generator of bytes.
enum Generator {
    Python(PythonRandom),
    Go(Box<GoRandom>),
}

impl Generator {
    /// Of the seed that the request names, or of one that nobody knows.
    fn of(asked: &Asked) -> Result<Self, Refusal> {
        let seed = asked.argument("seed");
        match (asked.dialect, seed) {
            (Dialect::Python, Some(seed)) => PythonRandom::seeded(&seed)
                .map(Self::Python)
                .ok_or_else(|| Refusal::bad("seed must be an integer")),
            (Dialect::Go, Some(seed)) => {
                let seed = go_number(&seed, "seed")?;
                Ok(Self::Go(Box::new(GoRandom::seeded(seed))))
            }
            (_, None) => {
                let key = std::array::from_fn::<u32, 4, _>(|_| u32::from_ne_bytes(random()));
                Ok(Self::Python(PythonRandom::from_key(&key)))
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        match self {
            Self::Python(generator) => (0..count).map(|_| generator.byte()).collect(),
            Self::Go(generator) => (0..count).map(|_| generator.byte()).collect(),
        }
    }
}

/// `/bytes/{n}`.
pub fn bytes(asked: &Asked) -> Given {
    let count = length(asked)?;
    let bytes = Generator::of(asked)?.take(count);
    if count == 0 && asked.dialect == Dialect::Go {
        return Ok(answer::bare(StatusCode::OK));
    }
    Ok(respond(StatusCode::OK, OCTETS, bytes))
}

/// `/stream-bytes/{n}`: in pieces.
pub fn stream(asked: &Asked) -> Given {
    let mut left = length(asked)?;
    let mut generator = Generator::of(asked)?;
    if left == 0 && asked.dialect == Dialect::Go {
        return Ok(answer::bare(StatusCode::OK));
    }
    let piece = piece_size(asked)?;
    let body = Body::produce(None, move |mut sender| async move {
        while left > 0 {
            let count = left.min(piece);
            sender.send(generator.take(count)).await;
            left -= count;
        }
        Ok(())
    });
    Ok(respond(StatusCode::OK, OCTETS, body))
}

/// How many bytes are asked for: Python's gives no more than it has, Go's refuses.
fn length(asked: &Asked) -> Result<usize, Refusal> {
    let wanted = match asked.dialect {
        Dialect::Python => count(asked, 0).min(PYTHON_MAX).min(asked.max_body()),
        Dialect::Go => {
            let count = go_count(asked.parameter(0), "byte count")?;
            let Ok(count) = u64::try_from(count) else {
                let why = format!("invalid byte count: {count} must be greater than 0");
                return Err(Refusal::bad(why));
            };
            if count > asked.max_body() {
                let max = asked.max_body();
                let why = format!("invalid byte count: {count} not in range [1, {max}]");
                return Err(Refusal::bad(why));
            }
            count
        }
    };
    Ok(usize::try_from(wanted).unwrap_or(usize::MAX))
}

/// The size of the pieces of a stream.
fn piece_size(asked: &Asked) -> Result<usize, Refusal> {
    let wanted = match asked.dialect {
        Dialect::Python => integer(asked, "chunk_size")?,
        Dialect::Go => {
            let text = asked.argument("chunk_size");
            text.map(|text| go_count(&text, "chunk_size")).transpose()?
        }
    };
    let wanted = wanted.map_or(PIECE, |wanted| usize::try_from(wanted).unwrap_or(1).max(1));
    Ok(wanted.min(PIECE_MAX))
}

/// `/range/{n}`: a row of letters, of which a part can be asked for.
pub async fn range(asked: Asked) -> Given {
    match asked.dialect {
        Dialect::Python => range_python(&asked),
        Dialect::Go => range_go(&asked).await,
    }
}

fn range_python(asked: &Asked) -> Given {
    let total = count(asked, 0);
    let digits = asked.parameter(0).trim_start_matches('0');
    let tag = format!("range{}", if digits.is_empty() { "0" } else { digits });
    let with_tag = |response: &mut Response| {
        let accepts = HeaderValue::from_static("bytes");
        response.headers_mut().insert(ACCEPT_RANGES, accepts);
        answer::set(response, ETAG, &tag)
    };
    if total == 0 || total > PYTHON_MAX {
        let body = "number of bytes must be in the range (0, 102400]";
        let mut response = answer::plain(StatusCode::NOT_FOUND, body);
        with_tag(&mut response)?;
        return Ok(response);
    }
    let piece = piece_size(asked)?;
    let span = seconds(asked, "duration", 0.0)?;
    let field = asked.field(&RANGE).unwrap_or_default();
    let found = python_range(&field, total);
    let mut response = match found {
        Some((first, last)) => {
            let whole = first == 0 && last == total - 1;
            let status = if whole {
                StatusCode::OK
            } else {
                StatusCode::PARTIAL_CONTENT
            };
            respond(status, OCTETS, letters(first, last + 1, total, piece, span))
        }
        None => answer::plain(StatusCode::RANGE_NOT_SATISFIABLE, ""),
    };
    with_tag(&mut response)?;
    let part = found.map_or("*".into(), |(first, last)| format!("{first}-{last}"));
    answer::set(
        &mut response,
        CONTENT_RANGE,
        &format!("bytes {part}/{total}"),
    )?;
    Ok(response)
}

/// The first and the last byte that httpbin gives for a field; `None`: the part is not there.
fn python_range(field: &str, total: u64) -> Option<(u64, u64)> {
    let field = field.trim();
    let mut sides = (None, None);
    if field.starts_with("bytes") && field.matches('=').count() == 1 {
        let set = field.split('=').nth(1).unwrap_or_default();
        let number = |end: &str| {
            let end = end.trim();
            let end = end.strip_prefix('+').unwrap_or(end);
            let digits = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit());
            // What overflows is behind every end.
            digits.then(|| end.parse().unwrap_or(u64::MAX))
        };
        let mut ends = set.split('-').map(number);
        sides = (ends.next().flatten(), ends.next().flatten());
    }
    let (first, last) = match sides {
        (None, None) => (0, total - 1),
        (None, Some(count)) => (total.saturating_sub(count), total - 1),
        (Some(first), None) => (first, total - 1),
        (Some(first), Some(last)) => (first, last),
    };
    (first <= last && last < total).then_some((first, last))
}

async fn range_go(asked: &Asked) -> Given {
    let total = go_number(asked.parameter(0), "count")?;
    let span = duration(asked, "duration", 0, 0)?;
    let tag = format!("range{total}");
    let max = asked.max_body();
    let good = u64::try_from(total)
        .ok()
        .filter(|total| (1..=max).contains(total));
    let Some(length) = good else {
        let why = format!("invalid count: {total} not in range [1, {max}]");
        let tag = HeaderValue::try_from(tag).map_err(|_| Refusal::bad("no tag"))?;
        let accepts = HeaderValue::from_static("bytes");
        return Err(Refusal::bad(why)
            .with(ETAG, tag)
            .with(ACCEPT_RANGES, accepts));
    };
    let there = Validators {
        etag: Some(&tag),
        modified: None,
    };
    // The pause is for the whole row, however much of it is asked for.
    let per_byte = span.div_f64(length as f64);
    let row = move |first, end| go_letters(first, end, per_byte);
    let mut response = serve_parts(asked, there, length, row)?;
    let accepts = HeaderValue::from_static("bytes");
    response.headers_mut().insert(ACCEPT_RANGES, accepts);
    // Go takes validators off what is refused.
    if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
        answer::set(&mut response, ETAG, &tag)?;
    }
    // The head comes with the first piece.
    if response.status().is_success() && asked.method != Method::HEAD {
        let piece = response.body().length().unwrap_or_default().min(GO_PIECE);
        tokio::time::sleep(per_byte.mul_f64(piece as f64)).await;
    }
    Ok(response)
}

/// Part of the row of letters: the first piece at once, the others each after its pause.
fn go_letters(first: u64, end: u64, per_byte: Duration) -> Body {
    let piece = move |first: u64| (first..end.min(first + GO_PIECE)).map(letter).collect();
    let whole: Vec<u8> = piece(first);
    if end - first <= GO_PIECE {
        return whole.into();
    }
    Body::produce(Some(end - first), move |mut sender| async move {
        sender.send(whole).await;
        let mut at = first + GO_PIECE;
        while at < end {
            let bytes: Vec<u8> = piece(at);
            at += bytes.len() as u64;
            tokio::time::sleep(per_byte.mul_f64(bytes.len() as f64)).await;
            sender.send(bytes).await;
        }
        Ok(())
    })
}

/// Whether Go refuses the Range field, because it is none; others may pass over it (RFC 9110, 14.2).
fn is_refused(asked: &Asked, there: Validators<'_>) -> bool {
    let condition = asked.headers.get(IF_RANGE);
    let field = asked.field(&RANGE).filter(|field| !field.is_empty());
    let now = SystemTime::now();
    condition.is_none_or(|condition| is_unchanged(condition, there, now))
        && field.is_some_and(|field| !is_go_range(&field))
}

/// Whether a Range field is one to Go's `net/http`.
fn is_go_range(field: &str) -> bool {
    let Some(set) = field.strip_prefix("bytes=") else {
        return false;
    };
    let number = |text: &str| {
        text.trim()
            .parse::<i64>()
            .ok()
            .filter(|number| *number >= 0)
    };
    set.split(',').all(|item| {
        let item = item.trim();
        let Some((first, last)) = item.split_once('-') else {
            return item.is_empty();
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) => first <= last,
            (Some(_), None) => last.trim().is_empty(),
            (None, Some(_)) => first.trim().is_empty(),
            (None, None) => false,
        }
    })
}

fn letter(at: u64) -> u8 {
    b'a' + u8::try_from(at % 26).unwrap_or_default()
}

/// Part of the row of letters, slowly: `span` is for all of it.
fn letters(first: u64, end: u64, total: u64, piece: usize, span: Duration) -> Body {
    if span.is_zero() {
        return (first..end).map(letter).collect::<Vec<u8>>().into();
    }
    let per_byte = span.as_secs_f64() / total as f64;
    Body::produce(Some(end - first), move |mut sender| async move {
        let mut at = first;
        while at < end {
            let next = end.min(at + piece as u64);
            let pause = Duration::from_secs_f64(per_byte * (next - at) as f64);
            // The last piece comes behind its pause, all others before.
            if next == end {
                tokio::time::sleep(pause).await;
            }
            sender
                .send((at..next).map(letter).collect::<Vec<u8>>())
                .await;
            if next < end {
                tokio::time::sleep(pause).await;
            }
            at = next;
        }
        Ok(())
    })
}

/// Bytes with conditions and ranges, as Go's `ServeContent` has them.
pub fn serve(asked: &Asked, there: Validators<'_>, bytes: &Bytes) -> Given {
    let (length, bytes) = (bytes.len() as u64, bytes.clone());
    let index = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
    serve_parts(asked, there, length, move |first, end| {
        bytes.slice(index(first)..index(end)).into()
    })
}

fn serve_parts(
    asked: &Asked,
    there: Validators<'_>,
    length: u64,
    mut make: impl FnMut(u64, u64) -> Body + 'static,
) -> Given {
    match evaluate(&asked.method, &asked.headers, there) {
        Verdict::Go => {}
        Verdict::NotModified => return Ok(answer::bare(StatusCode::NOT_MODIFIED)),
        Verdict::Failed => return Ok(answer::plain(StatusCode::PRECONDITION_FAILED, "")),
    }
    if is_refused(asked, there) {
        let text = "invalid range\n";
        return Ok(answer::plain(StatusCode::RANGE_NOT_SATISFIABLE, text));
    }
    let (mut range, mut several) = (None, None);
    let body = match (part(&asked.headers, there, length), ranges::boundary()) {
        (Part::Bytes(first, end), _) => {
            range = Some(format!("bytes {first}-{}/{length}", end - 1));
            make(first, end)
        }
        (Part::Several(spans), Some(boundary)) => {
            let text = HeaderValue::from_static(answer::TEXT);
            let parts = Multipart::new(spans, length, Some(&text), &boundary);
            several = Some(parts.content_type());
            parts.body(move |span| make(span.start, span.end))
        }
        (Part::Whole | Part::Several(_), _) => make(0, length),
        (Part::Unsatisfiable, _) => {
            let text = "invalid range: failed to overlap\n";
            let mut response = answer::plain(StatusCode::RANGE_NOT_SATISFIABLE, text);
            answer::set(&mut response, CONTENT_RANGE, &format!("bytes */{length}"))?;
            return Ok(response);
        }
    };
    let length = body.length();
    let mut response = answer::plain(StatusCode::OK, body);
    let fields = response.headers_mut();
    fields.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Go's ServeContent tells the length to HEAD too.
    fields.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from(length))));
    if several.is_some() || range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if let Some(media) = several {
        response.headers_mut().insert(CONTENT_TYPE, media);
    }
    if let Some(range) = range {
        answer::set(&mut response, CONTENT_RANGE, &range)?;
    }
    Ok(response)
}

const OCTETS: &str = "application/octet-stream";
/// The most that httpbin gives.
const PYTHON_MAX: u64 = 100 << 10;
/// The pieces of a stream, where nothing is said.
const PIECE: usize = 10 << 10;
/// What Go copies at once.
const GO_PIECE: u64 = 32 << 10;
/// The largest that may be asked for.
const PIECE_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_httpbin_takes_for_one() {
        for (field, expected) in [
            ("", Some((0, 99))),
            ("bytes=0-9", Some((0, 9))),
            (" bytes=10-", Some((10, 99))),
            ("bytes=-10", Some((90, 99))),
            ("bytes=-200", Some((0, 99))),
            ("bytes=x-y", Some((0, 99))),
            ("lines=0-9", Some((0, 99))),
            ("bytes=0-9=1", Some((0, 99))),
            ("bytes=100-", None),
            ("bytes=9-8", None),
            ("bytes=0-100", None),
            ("bytes=-0", None),
        ] {
            assert_eq!(python_range(field, 100), expected, "{field}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn letters_come_in_pieces_that_fill_the_span() {
        use hyper::body::Body as _;
        let span = Duration::from_secs(10);
        let started = tokio::time::Instant::now();
        let mut body = letters(24, 30, 10, 4, span);
        let mut all = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
        {
            all.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        assert_eq!(all, b"yzabcd");
        assert_eq!(started.elapsed().as_secs(), 6);
    }
}
