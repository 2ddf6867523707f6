//! A whole answer as bytes of HTTP/1.1, for those that hyper does not write.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::ext::ReasonPhrase;
use hyper::header::DATE;
use portyard_wire::decimal;

use super::Response;

/// Appends an answer with a body of these bytes as hyper writes it: names with capitals, then the length and
/// the date, which is that of `now`.
pub fn encode(response: &Response, body: &[u8], now: Instant, out: &mut Vec<u8>) {
    let status = response.status();
    out.reserve(HEAD + body.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = response.extensions().get::<ReasonPhrase>();
    let usual = status.canonical_reason().unwrap_or("<none>").as_bytes();
    out.extend_from_slice(reason.map_or(usual, ReasonPhrase::as_bytes));
    out.extend_from_slice(b"\r\n");
    let mut is_dated = false;
    for (name, value) in response.headers() {
        capitals(name.as_str(), out);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
        is_dated |= name == DATE;
    }
    out.extend_from_slice(b"Content-Length: ");
    decimal::push_unsigned(body.len() as u64, out);
    if !is_dated {
        out.extend_from_slice(b"\r\nDate: ");
        TODAY.with_borrow_mut(|date| out.extend_from_slice(date.text(now)));
    }
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Appends a name with each word's first letter large.
fn capitals(name: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(name.as_bytes());
    let words = &mut out[start..];
    words[..1].make_ascii_uppercase();
    let mut at = 1;
    while let Some(dash) = memchr::memchr(b'-', &words[at..]) {
        at += dash + 1;
        if let Some(first) = words.get_mut(at) {
            first.make_ascii_uppercase();
        }
    }
}

/// The date, as text for as long as its second lasts.
struct Date {
    text: String,
    until: Option<Instant>,
}

impl Date {
    fn text(&mut self, now: Instant) -> &[u8] {
        if self.until.is_none_or(|until| now >= until) {
            let date = SystemTime::now();
            self.text = httpdate::fmt_http_date(date);
            // A clock before 1970 is not worth more than a wrong date.
            let since = date.duration_since(UNIX_EPOCH).unwrap_or_default();
            let gone = Duration::from_nanos(since.subsec_nanos().into());
            self.until = Some(now + Duration::from_secs(1).saturating_sub(gone));
        }
        self.text.as_bytes()
    }
}

thread_local! {
    static TODAY: RefCell<Date> = const {
        RefCell::new(Date { text: String::new(), until: None })
    };
}

/// Most heads.
const HEAD: usize = 512;
