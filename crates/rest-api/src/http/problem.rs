//! What went wrong with a request, told in the form that the client accepts (RFC 9457).

use std::borrow::Cow;

use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use hyper::{HeaderMap, StatusCode};
use serde_json::json;

use super::negotiate::{Offer, choose};
use super::{Body, Response};

/// What went wrong with a request.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// What is wrong, and what to do.
    pub detail: Cow<'static, str>,
    /// Fields of the answer.
    headers: Option<Box<HeaderMap>>,
}

impl Problem {
    /// A problem with a sentence for whoever sent the request.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
            headers: None,
        }
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing at this path")
    }

    /// 405, and what is allowed.
    pub fn method(allow: &str) -> Self {
        let detail = format!("this path knows the methods {allow}");
        let problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, detail);
        match HeaderValue::from_str(allow) {
            Ok(allow) => problem.with(hyper::header::ALLOW, allow),
            Err(_) => problem,
        }
    }

    /// 406, and what there is.
    pub fn not_acceptable(offers: &[Offer]) -> Self {
        let forms: Vec<_> = offers.iter().map(|offer| offer.content_type).collect();
        let detail = format!("what is at this path comes as {}", forms.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, detail)
    }

    /// A fault of ours.
    pub fn internal(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// With a field.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers_mut().append(name, value);
        self
    }

    /// The fields of the answer.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers.get_or_insert_default()
    }

    /// The connection ends behind it: where the next request would begin is not known, or not worth
    /// finding out.
    #[must_use]
    pub fn closing(self) -> Self {
        self.with(CONNECTION, HeaderValue::from_static("close"))
    }

    /// As an answer to a request with these fields.
    pub fn respond(self, headers: &HeaderMap) -> Response {
        let form = choose(headers, FORMS).unwrap_or(0);
        let title = self.status.canonical_reason().unwrap_or("Error");
        let code = self.status.as_u16();
        let text = match form {
            1 => {
                let (title, detail) = (escape_html(title), escape_html(&self.detail));
                format!(
                    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
                     <title>{code} {title}</title></head>\n\
                     <body><h1>{code} {title}</h1>\n<p>{detail}</p></body></html>\n"
                )
            }
            2 => format!("{code} {title}: {}\n", self.detail),
            _ => {
                let (title, detail) = (json!(title), json!(self.detail));
                format!(
                    "{{\"type\":\"about:blank\",\"title\":{title},\"status\":{code},\
                     \"detail\":{detail}}}\n"
                )
            }
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.map(|fields| *fields).unwrap_or_default();
        let content_type = HeaderValue::from_static(FORMS[form].content_type);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        let vary = HeaderValue::from_static("accept");
        response.headers_mut().append(VARY, vary);
        response
    }
}

impl From<Problem> for super::Answer {
    fn from(problem: Problem) -> Self {
        Err(problem)
    }
}

/// Makes text of anybody's into text within HTML or XML, or within a quoted attribute.
pub fn escape_html(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            char => out.push(char),
        }
    }
    out.into()
}

/// JSON comes first: who has no wish is no browser.
const FORMS: &[Offer] = &[
    Offer::new("application/problem+json", &["application/json"]),
    Offer::new("text/html; charset=utf-8", &[]),
    Offer::new("text/plain; charset=utf-8", &[]),
];
