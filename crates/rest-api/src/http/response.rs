//! An answer, and the usual ways to make one.

use hyper::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::{HeaderMap, StatusCode};

use super::request::Head;
use super::{Answer, Body, Problem};

/// An answer.
pub type Response = hyper::Response<Body>;

/// In an answer's extensions: a status from 100 to 199 that goes before it, to clients of HTTP/1.1.
#[derive(Debug, Clone, Copy)]
pub struct Interim(pub StatusCode);

/// An answer with a body of this type.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    // Room for what is added on the way out.
    let mut fields = HeaderMap::with_capacity(FIELDS);
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.headers_mut() = fields;
    response
}

/// Whether an answer with this status may have content (RFC 9110, 6.4.1).
pub fn has_content(status: StatusCode) -> bool {
    let is_bare = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    !is_bare && !status.is_informational()
}

/// Leaves the fields of a body that a HEAD does not get.
pub fn without_body(response: &mut Response) {
    if has_content(response.status())
        && let Some(length) = response.body().length()
    {
        let fields = response.headers_mut();
        fields.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = Body::empty();
}

/// Fields that say where an answer ends, and what becomes of its connection.
pub const FRAMING: [HeaderName; 5] = [
    CONNECTION,
    CONTENT_LENGTH,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The answer to a request whose method is none of these, of which GET means HEAD too, or is OPTIONS;
/// `None` where the request is to be answered.
pub fn turn_away(head: &Head, methods: &[&str]) -> Option<Answer> {
    let method = head.method.as_str();
    let wanted = if method == "HEAD" { "GET" } else { method };
    if methods.contains(&method) || methods.contains(&wanted) {
        None
    } else if method == "OPTIONS" {
        Some(Ok(allowed(methods)))
    } else {
        Some(Err(Problem::method(&list(methods))))
    }
}

/// The answer to OPTIONS.
pub fn allowed(methods: &[&str]) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(methods) = HeaderValue::from_str(&list(methods)) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// With those that go without saying.
fn list(methods: &[&str]) -> String {
    let mut all = methods.to_vec();
    if methods.contains(&"GET") {
        all.push("HEAD");
    }
    all.push("OPTIONS");
    all.sort_unstable();
    all.dedup();
    all.join(", ")
}

/// Fields of most answers.
const FIELDS: usize = 6;
