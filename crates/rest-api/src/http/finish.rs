//! What every answer goes through on its way out: conditions, ranges, compression, safe fields.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, LAST_MODIFIED, RANGE, STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, StatusCode};
use portyard_wire::http::coding::{Coding, Encoder};

use super::conditions::{self, Validators, Verdict};
use super::negotiate::choose_coding;
use super::ranges;
use super::request::{Client, Head};
use super::response::{has_content, without_body};
use super::server::Site;
use super::{Body, Response};

/// Makes the answer that is sent of the one that a handler gave.
pub fn finish(site: &Site, head: &Head, client: &Client, mut response: Response) -> Response {
    let is_head = head.method == Method::HEAD;
    // Also of 304 and 206, which stand for an answer that might have been coded (RFC 9110, 15.3.7, 15.4.5).
    let is_codable = site.options.compress && is_codable(&response);
    if is_codable && !varies_by_coding(response.headers()) {
        let name = HeaderValue::from_static("accept-encoding");
        response.headers_mut().append(VARY, name);
    }
    let may_differ = || has_validator(response.headers());
    if response.status() == StatusCode::OK
        && (is_head || head.method == Method::GET)
        && may_differ()
    {
        condition(head, &mut response);
        select(head, &mut response);
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        name_known(head, is_codable, &mut response);
    } else if is_codable {
        compress(head, &mut response);
    }
    if response.status().canonical_reason().is_none()
        && response.extensions().get::<ReasonPhrase>().is_none()
    {
        // hyper would write one of its own; none is none (RFC 9112, 4).
        let extensions = response.extensions_mut();
        extensions.insert(ReasonPhrase::from_static(b""));
    }
    let fields = response.headers_mut();
    fields.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    if let Some(id) = &head.id {
        fields.insert(REQUEST_ID, id.clone());
    }
    if let Some(cors) = &site.cors {
        cors.tell(&head.headers, fields);
    }
    if let (true, Some(hsts)) = (client.is_encrypted, &site.hsts) {
        fields.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    if is_head {
        without_body(&mut response);
    }
    response
}

fn validators(response: &HeaderMap) -> Validators<'_> {
    let text = |name| -> Option<&str> { response.get(name)?.to_str().ok() };
    Validators {
        etag: text(ETAG),
        modified: text(LAST_MODIFIED).and_then(|date| httpdate::parse_http_date(date).ok()),
    }
}

/// Whether an answer says by what its client may know it again.
fn has_validator(fields: &HeaderMap) -> bool {
    // There are few, and most have neither: to compare names costs less than to look two of them up.
    fields
        .keys()
        .any(|name| name == ETAG || name == LAST_MODIFIED)
}

/// 304 or 412 instead of what the client has, or does not want.
fn condition(head: &Head, response: &mut Response) {
    let fields = response.headers();
    match conditions::evaluate(&head.method, &head.headers, validators(fields)) {
        Verdict::Go => {}
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
            let fields = response.headers_mut();
            for name in [
                CONTENT_TYPE,
                CONTENT_LENGTH,
                CONTENT_ENCODING,
                ACCEPT_RANGES,
            ] {
                fields.remove(name);
            }
        }
        Verdict::Failed => {
            let detail = "what is there is not what the request supposes";
            let problem = super::Problem::new(StatusCode::PRECONDITION_FAILED, detail);
            *response = problem.respond(&head.headers);
        }
    }
}

/// The ranges that are asked for, of a body that can be cut and has a strong tag.
fn select(head: &Head, response: &mut Response) {
    let fields = response.headers();
    let is_strong = fields
        .get(ETAG)
        .is_some_and(|tag| tag.as_bytes().starts_with(b"\""));
    let is_whole = response.status() == StatusCode::OK && !fields.contains_key(ACCEPT_RANGES);
    if !is_strong || !is_whole || !response.body().can_be_cut() {
        return;
    }
    let bytes = HeaderValue::from_static("bytes");
    response.headers_mut().insert(ACCEPT_RANGES, bytes);
    // Of other methods ranges mean nothing (RFC 9110, 14.2).
    if head.method == Method::GET && head.headers.contains_key(RANGE) {
        let fields = response.headers().clone();
        ranges::cut(&head.headers, validators(&fields), response);
    }
}

/// Whether an answer says already that it depends on Accept-Encoding.
fn varies_by_coding(fields: &HeaderMap) -> bool {
    lists(fields, &VARY, |name| {
        name.eq_ignore_ascii_case("accept-encoding")
    })
}

/// Whether a field has an item that is `wanted`.
fn lists(fields: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let values = fields.get_all(name).iter();
    let mut items = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    items.any(|item| wanted(item.trim()))
}

/// Whether an answer is worth to be compressed, or is a part of one that might be.
fn is_codable(response: &Response) -> bool {
    let (status, fields) = (response.status(), response.headers());
    let is_part = status == StatusCode::PARTIAL_CONTENT;
    let is_short = |length| length < COMPRESS_MIN;
    // Of a HEAD that is passed on only the field is known.
    let told = || fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    let length = response.body().length().or_else(told);
    if !is_part && length.is_some_and(is_short) {
        return false;
    }
    let is_fixed = lists(fields, &CACHE_CONTROL, |item| {
        item.eq_ignore_ascii_case("no-transform")
    });
    has_content(status)
        && !fields.contains_key(CONTENT_ENCODING)
        && !is_fixed
        && fields.get(CONTENT_TYPE).is_some_and(is_compressible)
}

/// The coding that the client likes best.
fn coding_for(head: &Head) -> Option<Coding> {
    choose_coding(&head.headers, Coding::NAMES).and_then(Coding::named)
}

/// Has a 304 tell the tag by which its client knows what it has.
fn name_known(head: &Head, is_codable: bool, response: &mut Response) {
    let coding = is_codable.then(|| coding_for(head)).flatten();
    let fields = response.headers_mut();
    let Some(etag) = fields.get(ETAG) else {
        return;
    };
    let coded = coding.and_then(|coding| conditions::coded_etag(etag, coding.name()));
    let known = conditions::known_etag(&head.headers, coded.as_ref().unwrap_or(etag));
    fields.insert(ETAG, known);
}

/// Compresses a whole answer in the coding that the client likes best.
fn compress(head: &Head, response: &mut Response) {
    let is_whole = !matches!(
        response.status(),
        StatusCode::PARTIAL_CONTENT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::RANGE_NOT_SATISFIABLE
    );
    if !is_whole {
        return;
    }
    let Some(coding) = coding_for(head) else {
        return;
    };
    // An encoder that cannot be made leaves the body as it is.
    let Ok(encoder) = Encoder::new(coding) else {
        return;
    };
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = match body.bytes() {
        Some(bytes) if bytes.len() <= AT_ONCE => match encode(encoder, bytes) {
            Ok(coded) => coded.into(),
            Err(_) => return *response.body_mut() = body,
        },
        _ => Body::stream(Compressed {
            body,
            encoder: Some(encoder),
            has_kept: false,
            trailers: None,
        }),
    };
    let fields = response.headers_mut();
    fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    fields.remove(CONTENT_LENGTH);
    fields.remove(ACCEPT_RANGES);
    if let Some(etag) = fields.get(ETAG)
        && let Some(etag) = conditions::coded_etag(etag, coding.name())
    {
        fields.insert(ETAG, etag);
    }
}

fn encode(mut encoder: Encoder, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = encoder.write(bytes, false)?;
    out.extend(encoder.finish()?);
    Ok(out)
}

/// Text in its many forms.
fn is_compressible(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let name = text.split(';').next().unwrap_or_default().trim();
    name.starts_with("text/")
        || name.ends_with("+json")
        || name.ends_with("+xml")
        || matches!(
            name,
            "application/json" | "application/xml" | "application/javascript" | "application/wasm"
        )
}

/// A body on its way through an encoder.
struct Compressed {
    body: Body,
    encoder: Option<Encoder>,
    /// The encoder has more than it has given: that is to reach the peer before anything is waited for.
    has_kept: bool,
    /// What comes behind all that the encoder has kept.
    trailers: Option<HeaderMap>,
}

impl hyper::body::Body for Compressed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            let Some(encoder) = &mut this.encoder else {
                let trailers = this.trailers.take();
                return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
            };
            let coded = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending if !std::mem::take(&mut this.has_kept) => return Poll::Pending,
                Poll::Pending => encoder.write(&[], true),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        this.has_kept = true;
                        encoder.write(&bytes, false)
                    }
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        continue;
                    }
                },
                Poll::Ready(None) => match this.encoder.take() {
                    Some(encoder) => encoder.finish(),
                    None => return Poll::Ready(None),
                },
            };
            match coded {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Numbers of requests, for the log of whoever sent them.
struct Ids {
    /// Of this process.
    prefix: [u8; PREFIX],
    next: u64,
}

thread_local! {
    static IDS: RefCell<Ids> = RefCell::new(Ids::new());
}

impl Ids {
    fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let mut prefix = [b'-'; PREFIX];
        hex(
            RandomState::new().hash_one(0) >> 16,
            &mut prefix[..PREFIX - 1],
        );
        Self { prefix, next: 0 }
    }

    fn next(&mut self) -> Option<HeaderValue> {
        let number = self.next;
        self.next = number.wrapping_add(1);
        let mut id = [0; PREFIX + 16];
        id[..PREFIX].copy_from_slice(&self.prefix);
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1) as usize;
        hex(number, &mut id[PREFIX..PREFIX + digits]);
        HeaderValue::from_bytes(&id[..PREFIX + digits]).ok()
    }
}

/// Writes as many hexadecimal digits of a number as there is room for.
fn hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number % 16) as usize];
        number /= 16;
    }
}

/// The client's own id of a request where it has a good one, else a new one.
pub fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_good = |id: &&HeaderValue| {
        (1..=ID_MAX).contains(&id.len())
            && id
                .as_bytes()
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    let given = headers.get(&REQUEST_ID).filter(is_good).cloned();
    given.or_else(|| IDS.with_borrow_mut(Ids::next))
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Nobody is to guess what a body is.
pub const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const ID_MAX: usize = 64;
/// Twelve digits and a dash.
const PREFIX: usize = 13;
/// Less is not worth the bytes that a coding adds.
const COMPRESS_MIN: u64 = 512;
/// What is compressed in one go; more, piece by piece.
const AT_ONCE: usize = 64 << 10;
