//! The page for people: one document with its style and its script in it. It loads nothing from
//! anywhere, and a policy lets it run nothing but this script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::http::{Response, respond};

/// The page, ready to be sent.
pub struct Page {
    text: Bytes,
    etag: Option<HeaderValue>,
    policy: Option<HeaderValue>,
}

impl Page {
    /// Puts it together.
    pub fn new() -> Self {
        let text = HTML
            .replace("{{style}}", STYLE)
            .replace("{{script}}", SCRIPT);
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        // Styles and scripts stand between their tags exactly as they are hashed.
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'",
            hash(SCRIPT),
            hash(STYLE),
        );
        Self {
            // Base64 is text that any field can hold.
            etag: HeaderValue::from_str(&format!("\"{}\"", hash(&text))).ok(),
            policy: HeaderValue::from_str(&policy).ok(),
            text: text.into(),
        }
    }

    /// As an answer.
    pub fn answer(&self) -> Response {
        let mut response = respond(
            StatusCode::OK,
            "text/html; charset=utf-8",
            self.text.clone(),
        );
        let fields = response.headers_mut();
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(etag) = &self.etag {
            fields.insert(ETAG, etag.clone());
        }
        if let Some(policy) = &self.policy {
            fields.insert(POLICY, policy.clone());
        }
        response
    }
}

/// What a browser may do with an answer.
pub const POLICY: HeaderName = CONTENT_SECURITY_POLICY;
const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_all_it_needs_within_itself() {
        let page = Page::new();
        let text = std::str::from_utf8(&page.text).unwrap();
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            let found: Vec<_> = text
                .match_indices(outside)
                .map(|(at, _)| &text[at..(at + 40).min(text.len())])
                // The name of SVG's namespace is no address.
                .filter(|found| !found.starts_with("http://www.w3.org/2000/svg"))
                .collect();
            assert!(found.is_empty(), "{found:?}");
        }
        assert!(
            !text.contains("{{s") && !text.contains(" style=\"") && !text.contains(" onclick=")
        );
        assert!(page.policy.is_some() && page.etag.is_some());
    }
}
