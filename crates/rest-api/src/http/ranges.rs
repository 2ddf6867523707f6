//! Which bytes of a content a request asks for (RFC 9110, 14), and several parts of it as one body
//! (15.3.7.2).
//!
//! [`part`] reads the fields, [`cut`] makes the answer of a whole one whose body can be cut. Who has a body of
//! his own makes it of a [`Multipart`]. All but [`boundary`] are decided from values alone.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::SystemTime;

use hyper::body::Bytes;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue,
    IF_RANGE, RANGE,
};
use hyper::{HeaderMap, StatusCode};

use super::conditions::{Validators, is_unchanged};
use super::{Body, Problem, Response};

/// What of a content is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// From a byte up to another, which is not in it.
    Bytes(u64, u64),
    /// Two or more parts, none of them empty; they neither overlap nor touch, and need not ascend.
    Several(Vec<Range<u64>>),
    /// Nothing that is there: 416.
    Unsatisfiable,
}

/// The part of a content of so many bytes that a GET asks for. What is no range gets all of it, and so does
/// who asks for more parts than anybody needs (RFC 9110, 14.2); parts that overlap or touch become one.
pub fn part(headers: &HeaderMap, there: Validators<'_>, length: u64) -> Part {
    let mut lines = headers.get_all(RANGE).iter();
    let (Some(range), None) = (lines.next(), lines.next()) else {
        return Part::Whole;
    };
    let Ok(range) = range.to_str() else {
        return Part::Whole;
    };
    if let Some(condition) = headers.get(IF_RANGE)
        && !is_unchanged(condition, there, SystemTime::now())
    {
        return Part::Whole;
    }
    parse(range, length).unwrap_or(Part::Whole)
}

/// What a Range field comes to; `None` if it is none, or is to be passed over.
fn parse(text: &str, length: u64) -> Option<Part> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty items of a list are nothing (RFC 9110, 5.6.1).
    let items = set
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let (mut spans, mut count, mut ascends) = (Vec::new(), 0, true);
    for item in items {
        count += 1;
        if count > RANGES_MAX {
            return None;
        }
        let Some(span) = span(item, length)? else {
            continue;
        };
        ascends &= spans
            .last()
            .is_none_or(|last: &Range<u64>| last.start <= span.start);
        join(&mut spans, span);
    }
    if !ascends && count > UNORDERED_MAX {
        return None;
    }
    match &spans[..] {
        [] if count == 0 => None,
        [] => Some(Part::Unsatisfiable),
        [span] => Some(Part::Bytes(span.start, span.end)),
        _ => Some(Part::Several(spans)),
    }
}

/// The bytes that one item of a set names: `None` if it is no range, `Some(None)` if they are not there.
#[expect(clippy::option_option, reason = "no range, and a range of nothing")]
fn span(item: &str, length: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = item.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // What overflows is behind every end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let span = if first.is_empty() {
        length.saturating_sub(number(last)?)..length
    } else {
        let first = number(first)?;
        let last = if last.is_empty() {
            u64::MAX
        } else {
            number(last)?
        };
        if last < first {
            return None;
        }
        first..last.saturating_add(1).min(length)
    };
    Some((span.start < span.end).then_some(span))
}

/// Puts a span to others, in the place of the first that it overlaps or touches.
fn join(spans: &mut Vec<Range<u64>>, mut span: Range<u64>) {
    let mut place = spans.len();
    // What has grown may reach others; each round takes one away.
    while let Some(found) = spans
        .iter()
        .position(|other| other.start <= span.end && span.start <= other.end)
    {
        let other = spans.remove(found);
        span = span.start.min(other.start)..span.end.max(other.end);
        place = place.min(found);
    }
    spans.insert(place.min(spans.len()), span);
}

/// Makes a whole answer, whose body can be cut, one with the part that a request with these fields asks for.
pub fn cut(asked: &HeaderMap, there: Validators<'_>, response: &mut Response) {
    let Some(length) = response.body().length() else {
        return;
    };
    let range = match part(asked, there, length) {
        Part::Whole => return,
        Part::Bytes(from, to) => {
            response.body_mut().cut(from..to);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            format!("bytes {from}-{}/{length}", to - 1)
        }
        Part::Several(spans) => {
            // What is coded is so as a whole, and not its frame of several parts.
            if !response.headers().contains_key(CONTENT_ENCODING)
                && let Some(boundary) = boundary()
            {
                let content_type = response.headers().get(CONTENT_TYPE);
                let parts = Multipart::new(spans, length, content_type, &boundary);
                let fields = response.headers_mut();
                fields.remove(CONTENT_LENGTH);
                fields.insert(CONTENT_TYPE, parts.content_type());
                response.body_mut().cut_to(parts);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
            return;
        }
        Part::Unsatisfiable => {
            let detail = format!("there are {length} bytes, and none in that range");
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail);
            *response = problem.respond(asked);
            let bytes = HeaderValue::from_static("bytes");
            response.headers_mut().insert(ACCEPT_RANGES, bytes);
            format!("bytes */{length}")
        }
    };
    let fields = response.headers_mut();
    fields.remove(CONTENT_LENGTH);
    if let Ok(range) = HeaderValue::from_str(&range) {
        fields.insert(CONTENT_RANGE, range);
    }
}

/// Several parts of a content as one body, `multipart/byteranges`. Of the content it holds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    content_type: HeaderValue,
    /// What stands before each part, and the part.
    parts: Vec<(Bytes, Range<u64>)>,
    /// What stands behind the last.
    end: Bytes,
}

impl Multipart {
    /// These parts of a content of so many bytes and of this type. `boundary` is of characters that need no
    /// quotes, and does not come in the content.
    pub fn new(
        spans: Vec<Range<u64>>,
        length: u64,
        content_type: Option<&HeaderValue>,
        boundary: &str,
    ) -> Self {
        let mut first = true;
        let head = |span: &Range<u64>| {
            // The line end before a boundary belongs to it.
            let before = if std::mem::take(&mut first) {
                ""
            } else {
                "\r\n"
            };
            let mut head = format!("{before}--{boundary}\r\n").into_bytes();
            if let Some(content_type) = content_type {
                head.extend_from_slice(b"Content-Type: ");
                head.extend_from_slice(content_type.as_bytes());
                head.extend_from_slice(b"\r\n");
            }
            let last = span.end.saturating_sub(1);
            let range = format!(
                "Content-Range: bytes {}-{last}/{length}\r\n\r\n",
                span.start
            );
            head.extend_from_slice(range.as_bytes());
            Bytes::from(head)
        };
        let heads: Vec<Bytes> = spans.iter().map(head).collect();
        let content_type = format!("multipart/byteranges; boundary={boundary}");
        Self {
            content_type: HeaderValue::from_str(&content_type)
                .unwrap_or(HeaderValue::from_static("multipart/byteranges")),
            parts: heads.into_iter().zip(spans).collect(),
            end: format!("\r\n--{boundary}--\r\n").into(),
        }
    }

    /// The type of the body, with the boundary.
    pub fn content_type(&self) -> HeaderValue {
        self.content_type.clone()
    }

    /// The body, of which `make` gives the parts. Each is asked for when the one before it is over.
    pub fn body(self, make: impl FnMut(Range<u64>) -> Body + 'static) -> Body {
        Body::in_turn(self.length(), self.parts.into_iter(), self.end, make)
    }

    /// How long the body is.
    pub fn length(&self) -> u64 {
        let part = |(head, span): &(Bytes, Range<u64>)| head.len() as u64 + (span.end - span.start);
        self.parts.iter().map(part).sum::<u64>() + self.end.len() as u64
    }
}

/// A boundary that nobody can know before, so that no content holds it; `None` if there is no randomness.
pub fn boundary() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    Some(text)
}

/// More than a reader of documents asks for at once.
const RANGES_MAX: usize = 100;
/// More that go to and fro are nobody's need (RFC 9110, 14.2).
const UNORDERED_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::conditions::tests::{headers, there};

    fn of(range: &str, length: u64) -> Part {
        part(&headers(&[(RANGE, range)]), there(), length)
    }

    #[test]
    fn a_range_is_one_part_or_all_or_not_there() {
        for (range, expected) in [
            ("bytes=0-3", Part::Bytes(0, 4)),
            ("bytes=3-", Part::Bytes(3, 10)),
            ("bytes=-3", Part::Bytes(7, 10)),
            ("bytes=-30", Part::Bytes(0, 10)),
            ("bytes=5-99999999999999999999", Part::Bytes(5, 10)),
            ("Bytes = 9-9", Part::Bytes(9, 10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=3-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=--1", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=,", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("lines=0-1,3-4", Part::Whole),
        ] {
            assert_eq!(of(range, 10), expected, "{range}");
        }
        assert_eq!(of("bytes=-1", 0), Part::Unsatisfiable);
        assert_eq!(of("bytes=0-", 0), Part::Unsatisfiable);
        let twice = headers(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=2-3")]);
        assert_eq!(part(&twice, there(), 10), Part::Whole);
    }

    #[test]
    fn a_set_is_told_in_its_order_without_what_is_not_there() {
        let several = |spans: &[(u64, u64)]| {
            Part::Several(spans.iter().map(|(from, to)| *from..*to).collect())
        };
        for (range, expected) in [
            ("bytes=0-9,20-29", several(&[(0, 10), (20, 30)])),
            ("bytes= 0-9 ,, 20-29 ", several(&[(0, 10), (20, 30)])),
            ("bytes=90-,0-1", several(&[(90, 100), (0, 2)])),
            ("bytes=0-0,-1", several(&[(0, 1), (99, 100)])),
            ("bytes=0-0,100-,5-5,-0", several(&[(0, 1), (5, 6)])),
            ("bytes=100-,200-300", Part::Unsatisfiable),
            ("bytes=0-1,100-", Part::Bytes(0, 2)),
            ("bytes=0-1,5-4", Part::Whole),
            ("bytes=0-1,x", Part::Whole),
            ("bytes=0-1;5-6", Part::Whole),
        ] {
            assert_eq!(of(range, 100), expected, "{range}");
        }
    }

    #[test]
    fn parts_that_overlap_or_touch_become_one() {
        for (range, expected) in [
            ("bytes=0-5,3-8", "0..9"),
            ("bytes=0-4,5-8", "0..9"),
            ("bytes=5-8,0-4", "0..9"),
            ("bytes=0-,0-,0-,-1,-100", "0..100"),
            ("bytes=0-1,10-11,4-5,1-4", "0..6 10..12"),
            ("bytes=20-29,0-9,5-24", "0..30"),
            ("bytes=60-69,20-29,40-49,0-9,25-44", "60..70 20..50 0..10"),
        ] {
            let spans = match of(range, 100) {
                Part::Bytes(from, to) => format!("{from}..{to}"),
                Part::Several(spans) => {
                    let spans: Vec<String> = spans.iter().map(|span| format!("{span:?}")).collect();
                    spans.join(" ")
                }
                other => format!("{other:?}"),
            };
            assert_eq!(spans, expected, "{range}");
        }
    }

    #[test]
    fn more_parts_than_anybody_needs_get_everything() {
        let set = |items: &mut dyn Iterator<Item = u64>| {
            let items: Vec<String> = items.map(|n| format!("{0}-{0}", 2 * n)).collect();
            of(&format!("bytes={}", items.join(",")), 1000)
        };
        assert!(matches!(set(&mut (0..100)), Part::Several(spans) if spans.len() == 100));
        assert_eq!(set(&mut (0..101)), Part::Whole);
        assert!(matches!(set(&mut (0..16).rev()), Part::Several(spans) if spans.len() == 16));
        assert_eq!(set(&mut (0..17).rev()), Part::Whole);
    }

    #[test]
    fn a_range_counts_only_for_what_the_client_has_begun_with() {
        for (condition, expected) in [
            ("\"a\"", Part::Bytes(0, 1)),
            ("\"b\"", Part::Whole),
            ("W/\"a\"", Part::Whole),
            ("Sun, 09 Sep 2001 01:46:40 GMT", Part::Bytes(0, 1)),
            ("Sun, 09 Sep 2001 01:46:39 GMT", Part::Whole),
        ] {
            let fields = headers(&[(RANGE, "bytes=0-0"), (IF_RANGE, condition)]);
            assert_eq!(part(&fields, there(), 10), expected, "{condition}");
            let fields = headers(&[(RANGE, "bytes=0-0,5-5"), (IF_RANGE, condition)]);
            let is_whole = part(&fields, there(), 10) == Part::Whole;
            assert_eq!(is_whole, expected == Part::Whole, "{condition}");
        }
    }

    // RFC 9110, 15.3.7.2 has the form.
    #[tokio::test]
    async fn several_parts_are_one_body_of_a_known_length() {
        use hyper::body::Body as _;
        let content_type = HeaderValue::from_static("text/plain");
        let parts = Multipart::new(vec![0..2, 5..7], 10, Some(&content_type), "edge");
        assert_eq!(parts.content_type(), "multipart/byteranges; boundary=edge");
        let expected = "--edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 5-6/10\r\n\r\n56\r\n--edge--\r\n";
        assert_eq!(parts.length(), expected.len() as u64);
        let content = Bytes::from_static(b"0123456789");
        let at = |place: u64| usize::try_from(place).unwrap();
        let mut body = parts.body(move |span| content.slice(at(span.start)..at(span.end)).into());
        let (mut all, mut left) = (Vec::new(), expected.len() as u64);
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left));
            let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx));
            let data = frame.await.unwrap().unwrap().into_data().unwrap();
            left -= data.len() as u64;
            all.extend_from_slice(&data);
        }
        assert_eq!(
            (String::from_utf8(all).unwrap().as_str(), left),
            (expected, 0)
        );
    }
}
