//! Answers with text that holds values of the request.

use std::fmt::Write as _;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::config::TemplateConfig;
use super::pattern::{Captures, Pattern};
use super::template::{Escape, Template};
use super::values::{fill, template};
use crate::http::{Body, Request, Response};

/// The handler.
pub struct Text {
    template: Template,
    escape: Escape,
    content_type: HeaderValue,
    status: StatusCode,
    /// Of a text that is always the same.
    etag: Option<HeaderValue>,
}

impl Text {
    /// Reads the template.
    pub fn new(config: &TemplateConfig, pattern: &Pattern) -> Result<Self, String> {
        let text = match (&config.body, &config.file) {
            (Some(body), None) => body.clone(),
            (None, Some(place)) => {
                let bytes = place
                    .read(FILE_MAX)
                    .map_err(|error| format!("template.file: {error}"))?;
                let text = String::from_utf8(bytes);
                text.map_err(|_| format!("template.file: {place} is not UTF-8"))?
            }
            _ => return Err("template: write either body or file".into()),
        };
        let mut parsed = template(&text, pattern).map_err(|why| format!("template: {why}"))?;
        let escape = match Escape::for_type(&config.content_type) {
            Some(escape) => escape,
            None if parsed.is_constant() => Escape::None,
            None => {
                return Err(format!(
                    "template: no value is safe in {}; use HTML, XML, JSON, CSV or plain text, or a \
                     text without {{{{…}}}}",
                    config.content_type
                ));
            }
        };
        parsed
            .place_values(escape)
            .map_err(|why| format!("template: {why}"))?;
        let status = StatusCode::from_u16(config.status).ok();
        let status = status.filter(|status| !status.is_informational());
        if matches!(config.status, 204 | 205 | 304) && !text.is_empty() {
            return Err(format!(
                "template: an answer with status {} has no content; leave the body empty",
                config.status
            ));
        }
        let content_type = HeaderValue::from_str(&config.content_type);
        let content_type = content_type
            .ok()
            .filter(|_| config.content_type.contains('/'));
        let etag = parsed.is_constant().then(|| {
            let digest = Sha256::digest([&config.content_type, "\0", &text].concat());
            let short: String = digest[..8].iter().fold(String::new(), |mut tag, byte| {
                // Writing into a String does not fail.
                let _ = write!(tag, "{byte:02x}");
                tag
            });
            HeaderValue::from_str(&format!("\"{short}\""))
        });
        Ok(Self {
            etag: etag.and_then(Result::ok),
            template: parsed,
            escape,
            content_type: content_type
                .ok_or("template.content_type is no media type, such as \"text/plain\"")?,
            status: status.ok_or("template.status must be from 200 to 999")?,
        })
    }

    /// Answers.
    pub fn answer(&self, request: &Request, captures: &Captures) -> Response {
        let text = fill(&self.template, self.escape, request, captures);
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, self.content_type.clone());
        if let Some(etag) = &self.etag {
            fields.insert(ETAG, etag.clone());
        }
        if self.template.tells_time() {
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        response
    }
}

const FILE_MAX: u64 = 1 << 20;
