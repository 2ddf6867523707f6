//! An answer, and the usual ways to make one.

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::Body;

/// An answer.
pub type Response = hyper::Response<Body>;

/// An answer with a body of this type.
pub fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
